/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "proxy/choose.h"

static enum sl_wish wish_of(enum sl_engine_choice engine)
{
	switch (engine) {
	case SL_CHOICE_AUTO:
		return SL_WISH_AUTO;
	case SL_CHOICE_RELAY:
		return SL_WISH_RELAY;
	case SL_CHOICE_PACKET:
		return SL_WISH_PACKET;
	case SL_CHOICE_SOCKMAP:
		return SL_WISH_SOCKMAP;
	case SL_CHOICE_NFTABLES:
		return SL_WISH_NFTABLES;
	}
	return SL_WISH_RELAY;
}

/* No route of this build reads HTTP. */
struct sl_choice_facts sl_choose_facts(const struct sl_conf_global *g,
				       const struct sl_conf_route *route,
				       enum sl_engine_reason packet, enum sl_engine_reason sockmap)
{
	return (struct sl_choice_facts){
		.wish = wish_of(route->engine),
		.packet_off = g->packet.hook == SL_HOOK_CHOICE_OFF ? SL_WHY_CONFIGURED : packet,
		.sockmap_off = sockmap,
		.needs_tls = route->tls || route->backend_tls,
		.packet_due = { .bytes = g->packet.after_bytes, .age_ms = g->packet.after_age_ms },
		.sockmap_due = { .bytes = g->sockmap.after_bytes,
				 .age_ms = g->sockmap.after_age_ms },
	};
}
