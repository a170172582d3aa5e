/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CTL_VIEWS_H
#define SL_CTL_VIEWS_H

#include "base/str.h"
#include "ctl/ctl.h"

/* The JSON documents of the control interface; each appends one document and a newline. */

/* "starting", "running" or "draining". */
const char *sl_view_state(const struct sl_proxy *proxy, const struct sl_ctl_facts *facts);

void sl_view_status(struct sl_str *out, struct sl_proxy *proxy, const struct sl_ctl_facts *facts,
		    uint64_t now_ms);
void sl_view_routes(struct sl_str *out, struct sl_proxy *proxy);
/* One of them, alone; false, and nothing appended: there is none of that name. */
bool sl_view_route(struct sl_str *out, struct sl_proxy *proxy, const char *name);
void sl_view_conns(struct sl_str *out, const struct sl_conn_survey *survey);
void sl_view_engines(struct sl_str *out, const struct sl_proxy *proxy,
		     const struct sl_ctl_facts *facts);
void sl_view_version(struct sl_str *out, const struct sl_ctl_facts *facts);

void sl_view_explain(struct sl_str *out, struct sl_proxy *proxy,
		     const struct sl_question *question);

#endif
