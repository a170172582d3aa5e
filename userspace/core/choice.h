/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CORE_CHOICE_H
#define SL_CORE_CHOICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/reason.h"

/*
 * Which engine is to carry a connection: one pure answer for new connections, for those that run
 * already, and for `sluice explain`.
 */

/* What the route asks for: `engine` of the configuration. */
enum sl_wish {
	SL_WISH_AUTO = 0, /* packet where the flow is eligible, else relay */
	SL_WISH_RELAY,
	SL_WISH_PACKET,
	SL_WISH_SOCKMAP,
	SL_WISH_NFTABLES,
};

/* When an engine may take a connection over: at whichever comes first. */
struct sl_choice_due {
	uint64_t bytes;  /* carried, both directions together; 0: at once */
	uint64_t age_ms; /* since it was established; 0: at once */
};

struct sl_choice_facts {
	/* the route */
	enum sl_wish wish;
	bool needs_tls;  /* the daemon terminates or originates it */
	bool needs_http; /* the daemon reads it */
	/* capabilities of the kernel and of this process; SL_WHY_ELIGIBLE: it may be used, else why
	 * not. `packet_off` is CONFIGURED where packet.hook is off. */
	enum sl_engine_reason packet_off;
	enum sl_engine_reason sockmap_off;
	/* the connection, as far as it has come */
	bool is_connected;   /* what follows is known */
	bool mixes_families; /* of its sides one is IPv4, the other IPv6 */
	bool has_own_port;   /* it leaves from one of packet.ports */
	bool is_half_closed; /* one side's FIN has come */
	/* traffic */
	uint64_t bytes;
	uint64_t age_ms;
	struct sl_choice_due packet_due;
	struct sl_choice_due sockmap_due;
	/* load */
	bool packet_is_full;  /* every entry of `flows` is in use */
	bool sockmap_is_full; /* every slot is in use */
};

/* One engine's place in the answer. */
struct sl_choice_item {
	enum sl_engine_id engine;
	/* With can_carry: why this one (CONFIGURED, ELIGIBLE, or, for the relay, why none before it
	 * can). Else: why it is passed over; SHORT_LIVED: only for now. */
	enum sl_engine_reason why;
	bool can_carry;
};

/* The engines the route may have, the best one first, each once. The relay is last wherever a
 * daemon carries connections, and can always carry; nftables stands alone. */
struct sl_choice {
	struct sl_choice_item item[SL_ENGINE_COUNT_];
	size_t n;
};

struct sl_choice sl_choose(const struct sl_choice_facts *facts);

/* The first one of the answer that can carry; there always is one. */
const struct sl_choice_item *sl_choice_now(const struct sl_choice *choice);
/* One before that which is passed over only for now (SHORT_LIVED); NULL: there is none. */
const struct sl_choice_item *sl_choice_later(const struct sl_choice *choice);

#endif
