/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CTL_VIEW_KERNEL_H
#define SL_CTL_VIEW_KERNEL_H

#include "base/json.h"
#include "broker/flows.h"
#include "broker/joined.h"
#include "ctl/ctl.h"
#include "proxy/proxy.h"

/* What the kernel carries, as JSON. */

/* "kernel", "packet", "sockmap" and "nftables" of the status. */
void sl_view_kernel(struct sl_json *j, const struct sl_proxy *proxy,
		    const struct sl_ctl_facts *facts);
/* Members of the engine's object in GET /v1/engines. */
void sl_view_packet_engine(struct sl_json *j, const struct sl_proxy *proxy,
			   const struct sl_ctl_facts *facts);
/* Flows can be handed over. */
bool sl_view_packet_is_on(const struct sl_proxy *proxy);
/* The same of the sockmap engine: "sockmap" of the status, and its object of the engines. */
void sl_view_sockmap_engine(struct sl_json *j, const struct sl_proxy *proxy,
			    const struct sl_ctl_facts *facts);
/* Connections can be given to it, and some route wants that. */
bool sl_view_sockmap_is_on(const struct sl_proxy *proxy);
/* The same of the nftables engine: "nftables" of the status, and its object of the engines. */
void sl_view_nft_engine(struct sl_json *j, const struct sl_proxy *proxy,
			const struct sl_ctl_facts *facts);

/*
 * Flows of the packet engine that are not over. Records are up to the moment, while the broker
 * tells its numbers a few times a second; but flows that have no record yet only it knows.
 */
uint64_t sl_view_packet_flows(const struct sl_proxy_totals *t, const struct sl_kernel_view *k);

/*
 * GET /v1/flows: from the kernel's own tables, in slices, because they may be large and the loop
 * has other work. The text is in `out`, which whoever made the view takes or frees; the view stays
 * where it is.
 */
struct sl_flows_view {
	struct sl_str out;
	struct sl_json j;
	struct sl_flows_walk walk;
	bool is_walked; /* the packet engine's table; next are the joined sockets */
	struct sl_joined_walk joined;
	size_t max;
	uint64_t id; /* of the only one that is wanted; 0: all, as far as `max` goes */
};
void sl_view_flows_start(struct sl_flows_view *v, size_t max);
/* 1: that was all; 0: call again, after other work; else -errno. */
SL_MUST_CHECK int sl_view_flows_step(struct sl_flows_view *v, const struct sl_proxy *proxy);
/* What the tables do not know has to be asked of the records of joined connections first. */
bool sl_view_flows_wants_records(const struct sl_flows_view *v);
/* `records`: NULL: not asked for. */
void sl_view_flows_end(struct sl_flows_view *v, const struct sl_proxy *proxy,
		       const struct sl_ctl_facts *facts, const struct sl_conn_survey *records);
/* What it holds, but for `out`. */
void sl_view_flows_done(struct sl_flows_view *v);

#endif
