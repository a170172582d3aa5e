/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_PROXY_CERTS_H
#define SL_PROXY_CERTS_H

#include "proxy/generation.h"
#include "proxy/proxy.h"
#include "proxy/tls.h"

/* What the supervisor has sent of files and keys; the control thread's, but for the box. */
struct sl_certs {
	struct sl_materials materials;
	struct sl_tls_ticket_box tickets;
};
void sl_certs_init(struct sl_certs *certs);
void sl_certs_done(struct sl_certs *certs);
void sl_certs_set_materials(struct sl_certs *certs, struct sl_materials *m); /* takes it over */
void sl_certs_set_tickets(struct sl_certs *certs, struct sl_tls_tickets *tickets);
/* sl_proxy_each_cert() for one generation. */
void sl_certs_each(const struct sl_generation *g, sl_cert_fn fn, void *arg);

#endif
