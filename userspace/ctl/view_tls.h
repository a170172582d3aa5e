/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CTL_VIEW_TLS_H
#define SL_CTL_VIEW_TLS_H

#include "base/json.h"
#include "ctl/ctl.h"

/* What is shown of TLS; paths of files, and nothing of what is in a key. */

/* A certificate that is good for less is told of before it is too late. */
#define SL_CERT_SOON_S (INT64_C(14) * 86400)

/* One document: all certificates in use. */
void sl_view_certs(struct sl_str *out, struct sl_proxy *proxy);
/*
 * Those of a route, of a file or of a domain, and for a domain what a client that asks for it gets
 * at each port where a route would take it. False, and nothing appended: none is.
 */
bool sl_view_cert(struct sl_str *out, struct sl_proxy *proxy, const char *name);

/* The member `tls` of the status. */
void sl_view_tls_status(struct sl_json *j, struct sl_proxy *proxy,
			const struct sl_proxy_totals *totals, const struct sl_ctl_facts *facts);
/* The member `ktls`: whether the kernel could encrypt. */
void sl_view_ktls(struct sl_json *j, const struct sl_ctl_facts *facts);
/* The members `tls` and `backend_tls` of a route, as configured. */
void sl_view_tls_route(struct sl_json *j, const struct sl_conf_route *route);
/*
 * The members `terminates` (as `tls` of a route, but with the certificates for that name) and
 * `backend_tls` of the route that a connection would take.
 */
void sl_view_tls_explain(struct sl_json *j, struct sl_proxy *proxy, const struct sl_explanation *e,
			 const char *name);
/* The members `alpn`, `tls` and what was agreed, of a connection. */
void sl_view_tls_conn(struct sl_json *j, const struct sl_conn_row *c);

#endif
