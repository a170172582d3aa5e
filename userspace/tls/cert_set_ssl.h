/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_TLS_CERT_SET_SSL_H
#define SL_TLS_CERT_SET_SSL_H

/* Within tls/ only. */

#include <openssl/ssl.h>

#include "tls/cert_set.h"

/* Gives the connection the certificates for that name. */
SL_MUST_CHECK int sl_cert_set_install(const struct sl_cert_set *set, const char *sni, SSL *ssl);
/* The first certificate, for a context that presents always the same. */
SL_MUST_CHECK int sl_cert_set_install_first(const struct sl_cert_set *set, SSL_CTX *ctx);
/* The response that belongs to the certificate the connection presents; false: none. */
bool sl_cert_set_staple(const struct sl_cert_set *set, SSL *ssl, const unsigned char **ret,
			size_t *ret_len);

#endif
