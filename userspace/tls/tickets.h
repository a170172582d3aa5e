/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_TLS_TICKETS_H
#define SL_TLS_TICKETS_H

#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

/*
 * The keys that session tickets are sealed with. They come from outside, so that all workers, and
 * a process that takes over, open each other's tickets. Immutable and counted like sets of
 * certificates; a rotation is a new object. Keys are wiped at the end.
 */
struct sl_tls_ticket_key {
	uint8_t name[16]; /* goes over the wire; random */
	uint8_t cipher[32];
	uint8_t mac[32];
};
#define SL_TLS_TICKET_KEYS_MAX 4

struct sl_tls_tickets;

/* The first key seals, all open; what an older one opened is sealed anew. 1 to KEYS_MAX of them. */
SL_MUST_CHECK int sl_tls_tickets_new(const struct sl_tls_ticket_key *keys, size_t n,
				     struct sl_tls_tickets **ret);
struct sl_tls_tickets *sl_tls_tickets_ref(struct sl_tls_tickets *tickets); /* from any thread */
void sl_tls_tickets_unref(struct sl_tls_tickets *tickets); /* so is this; accepts NULL */
SL_DEFINE_CLEANUP(struct sl_tls_tickets, sl_tls_tickets_unref);

/* A fresh random key. -EIO. */
SL_MUST_CHECK int sl_tls_ticket_key_make(struct sl_tls_ticket_key *ret);

#endif
