/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_TLS_BACKEND_SSL_H
#define SL_TLS_BACKEND_SSL_H

/* Within tls/ only. */

#include <openssl/ssl.h>

#include "tls/backend.h"

const char *sl_tls_target_name(const struct sl_tls_target *target);
/* The handshake is over. */
void sl_tls_target_met(struct sl_tls_target *target, SSL *ssl);

#endif
