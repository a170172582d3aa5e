/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CTL_VIEW_MATCH_H
#define SL_CTL_VIEW_MATCH_H

#include "base/json.h"
#include "conf/conf.h"

/* Members of the document of a route that repeat its configuration: which connections, how. */
void sl_view_match(struct sl_json *j, const struct sl_conf_route *r);

/* "1.3,1.2": the versions of SL_TLS_* bits, newest first; NULL for none. */
#define SL_TLS_TEXT 32
const char *sl_view_tls(uint32_t versions, char buf[SL_TLS_TEXT]);

/* "443", "8000-8100", "[::1]:443". */
void sl_view_port(struct sl_json *j, const char *key, const struct sl_port_spec *port);

/* How many entries a set of addresses has. */
size_t sl_view_set_size(const struct sl_ip_set *set);

#endif
