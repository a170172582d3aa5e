/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_TLS_TICKETS_SSL_H
#define SL_TLS_TICKETS_SSL_H

/* Within tls/ only. */

#include <openssl/evp.h>
#include <stdbool.h>

#include "tls/tickets.h"

/*
 * As SSL_CTX_set_tlsext_ticket_key_evp_cb() wants it, with the keys of the connection. `once`: a
 * ticket is good for one connection (TLS 1.3), so that one that was opened is always replaced.
 */
int sl_tls_tickets_use(const struct sl_tls_tickets *tickets, unsigned char name[16],
		       unsigned char iv[16], EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, bool seal,
		       bool once);

#endif
