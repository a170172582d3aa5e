/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CTL_VIEW_KERNEL_H
#define SL_CTL_VIEW_KERNEL_H

#include "base/json.h"
#include "proxy/proxy.h"

/* What the kernel carries, as JSON. */

/* "kernel" and "packet" of the status. */
void sl_view_kernel(struct sl_json *j, const struct sl_proxy *proxy);
/* Members of the engine's object in GET /v1/engines. */
void sl_view_packet_engine(struct sl_json *j, const struct sl_proxy *proxy);
/* GET /v1/flows: at most `max` of them, from the kernel's own table. */
void sl_view_flows(struct sl_str *out, const struct sl_proxy *proxy, size_t max);

#endif
