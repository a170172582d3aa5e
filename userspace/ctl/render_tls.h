/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CTL_RENDER_TLS_H
#define SL_CTL_RENDER_TLS_H

#include "ctl/render.h"

/* The lines about TLS in what render.c shows; nothing where there is nothing to say. */

void sl_render_tls_status(const struct sl_render *r, const struct json_t *status);
void sl_render_tls_route(const struct sl_render *r, const struct json_t *route);
void sl_render_tls_conn(const struct sl_render *r, const struct json_t *conn);
void sl_render_tls_explain(const struct sl_render *r, const struct json_t *doc);
/* "ktls: unavailable (the kernel has no TLS): modprobe tls, and 'sluice upgrade'" */
void sl_render_ktls(const struct sl_render *r, const struct json_t *doc);

/* A route is served with a certificate that is no good, or not with its newest files. */
bool sl_render_tls_is_degraded(const struct json_t *status);

#endif
