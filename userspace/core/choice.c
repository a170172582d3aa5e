/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "core/choice.h"

static bool is_due(const struct sl_choice_facts *f, const struct sl_choice_due *due)
{
	return f->is_connected && (f->bytes >= due->bytes || f->age_ms >= due->age_ms);
}

/* What the daemon has to read or to encrypt cannot pass it by. */
static enum sl_engine_reason needs_daemon(const struct sl_choice_facts *f)
{
	if (f->needs_tls)
		return SL_WHY_NEEDS_TLS;
	return f->needs_http ? SL_WHY_NEEDS_HTTP : SL_WHY_ELIGIBLE;
}

/*
 * ELIGIBLE: it can carry the connection, else why not. What will not change comes first, what does
 * as time goes by comes last: SHORT_LIVED means that nothing else is in the way.
 */
static enum sl_engine_reason judge_packet(const struct sl_choice_facts *f)
{
	if (needs_daemon(f) != SL_WHY_ELIGIBLE)
		return needs_daemon(f);
	if (f->packet_off != SL_WHY_ELIGIBLE)
		return f->packet_off;
	/* An IPv4 header cannot become an IPv6 one. */
	if (f->is_connected && f->mixes_families)
		return SL_WHY_NOT_LINUX_SUPPORTED;
	if (f->is_connected && !f->has_own_port)
		return SL_WHY_PORT_RANGE_FULL;
	if (f->is_connected && f->is_half_closed)
		return SL_WHY_HALF_CLOSED;
	if (f->packet_is_full)
		return SL_WHY_MAP_FULL;
	return is_due(f, &f->packet_due) ? SL_WHY_ELIGIBLE : SL_WHY_SHORT_LIVED;
}

static enum sl_engine_reason judge_sockmap(const struct sl_choice_facts *f)
{
	if (needs_daemon(f) != SL_WHY_ELIGIBLE)
		return needs_daemon(f);
	if (f->sockmap_off != SL_WHY_ELIGIBLE)
		return f->sockmap_off;
	if (f->is_connected && f->is_half_closed)
		return SL_WHY_HALF_CLOSED;
	if (f->sockmap_is_full)
		return SL_WHY_MAP_FULL;
	return is_due(f, &f->sockmap_due) ? SL_WHY_ELIGIBLE : SL_WHY_SHORT_LIVED;
}

/* `why`: ELIGIBLE where it can carry; it is CONFIGURED then where the route has named it. */
static void add_kernel(struct sl_choice *c, enum sl_engine_id engine, enum sl_engine_reason why,
		       bool is_named)
{
	bool can_carry = why == SL_WHY_ELIGIBLE;

	c->item[c->n++] = (struct sl_choice_item){
		.engine = engine,
		.why = can_carry && is_named ? SL_WHY_CONFIGURED : why,
		.can_carry = can_carry,
	};
}

/*
 * Why it falls to the daemon: the one that stands before it says so. Where that one can carry it
 * the daemon has it until the move, as short as that may be.
 */
static enum sl_engine_reason why_relay(const struct sl_choice *c, const struct sl_choice_facts *f)
{
	if (needs_daemon(f) != SL_WHY_ELIGIBLE)
		return needs_daemon(f);
	if (c->n == 0)
		return SL_WHY_CONFIGURED;
	return c->item[0].can_carry ? SL_WHY_SHORT_LIVED : c->item[0].why;
}

struct sl_choice sl_choose(const struct sl_choice_facts *f)
{
	struct sl_choice c = { .n = 0 };

	switch (f->wish) {
	case SL_WISH_NFTABLES:
		add_kernel(&c, SL_ENGINE_NFTABLES, SL_WHY_ELIGIBLE, true);
		return c;
	case SL_WISH_AUTO:
	case SL_WISH_PACKET:
		add_kernel(&c, SL_ENGINE_PACKET, judge_packet(f), f->wish == SL_WISH_PACKET);
		break;
	case SL_WISH_SOCKMAP:
		add_kernel(&c, SL_ENGINE_SOCKMAP, judge_sockmap(f), true);
		break;
	case SL_WISH_RELAY:
		break;
	}
	c.item[c.n] = (struct sl_choice_item){ .engine = SL_ENGINE_RELAY,
					       .why = why_relay(&c, f),
					       .can_carry = true };
	c.n++;
	return c;
}

const struct sl_choice_item *sl_choice_now(const struct sl_choice *c)
{
	for (size_t i = 0; i < c->n; i++)
		if (c->item[i].can_carry)
			return &c->item[i];
	return NULL;
}

const struct sl_choice_item *sl_choice_later(const struct sl_choice *c)
{
	for (size_t i = 0; i < c->n && !c->item[i].can_carry; i++)
		if (c->item[i].why == SL_WHY_SHORT_LIVED)
			return &c->item[i];
	return NULL;
}
