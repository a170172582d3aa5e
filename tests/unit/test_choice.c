/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/str.h"
#include "core/choice.h"

/* ---- the answer as text: "packet- short_lived, relay+ short_lived" ---- */

static const char *text_of(const struct sl_choice *c, char text[200])
{
	size_t n = 0;

	text[0] = '\0';
	for (size_t i = 0; i < c->n; i++)
		n += (size_t)snprintf(text + n, 200 - n, "%s%s%c %s", i ? ", " : "",
				      sl_engine_name(c->item[i].engine),
				      c->item[i].can_carry ? '+' : '-',
				      sl_engine_reason_name(c->item[i].why));
	return text;
}

static void is(const struct sl_choice_facts *f, const char *want)
{
	struct sl_choice c = sl_choose(f);
	char text[200];

	assert_string_equal(text_of(&c, text), want);
}

/* Connected, of one family, with a port of its own, due: nothing is in the way. */
static struct sl_choice_facts ready(enum sl_wish wish)
{
	return (struct sl_choice_facts){
		.wish = wish,
		.packet_off = SL_WHY_ELIGIBLE,
		.sockmap_off = SL_WHY_ELIGIBLE,
		.is_connected = true,
		.has_own_port = true,
		.bytes = 65536,
		.age_ms = 10,
		.packet_due = { .bytes = 65536, .age_ms = 1000 },
		.sockmap_due = { .bytes = 4096, .age_ms = 100 },
	};
}

static void test_wishes(void **state)
{
	struct sl_choice_facts f = ready(SL_WISH_AUTO);

	(void)state;
	is(&f, "packet+ eligible, relay+ short_lived");
	f.wish = SL_WISH_PACKET;
	is(&f, "packet+ configured, relay+ short_lived");
	f.wish = SL_WISH_SOCKMAP;
	is(&f, "sockmap+ configured, relay+ short_lived");
	f.wish = SL_WISH_RELAY;
	is(&f, "relay+ configured");
	f.wish = SL_WISH_NFTABLES;
	is(&f, "nftables+ configured");
}

/* Whatever the kernel can do. */
static void test_daemon_is_needed(void **state)
{
	struct sl_choice_facts f = ready(SL_WISH_AUTO);

	(void)state;
	f.needs_http = true;
	is(&f, "packet- needs_http, relay+ needs_http");
	f.needs_tls = true;
	is(&f, "packet- needs_tls, relay+ needs_tls");
	f.packet_off = SL_WHY_NO_PRIVILEGE;
	is(&f, "packet- needs_tls, relay+ needs_tls");
	f.wish = SL_WISH_SOCKMAP;
	is(&f, "sockmap- needs_tls, relay+ needs_tls");
	f.wish = SL_WISH_RELAY;
	is(&f, "relay+ needs_tls");
}

static void test_off(void **state)
{
	struct sl_choice_facts f = ready(SL_WISH_AUTO);

	(void)state;
	f.packet_off = SL_WHY_NO_PRIVILEGE;
	is(&f, "packet- no_privilege, relay+ no_privilege");
	f.packet_off = SL_WHY_CONFIGURED; /* packet.hook: off */
	is(&f, "packet- configured, relay+ configured");
	/* The other kernel engine does not stand in for one that the route has not named. */
	f.wish = SL_WISH_SOCKMAP;
	is(&f, "sockmap+ configured, relay+ short_lived");
	f.sockmap_off = SL_WHY_SELF_TEST_FAILED;
	f.packet_off = SL_WHY_ELIGIBLE;
	is(&f, "sockmap- self_test_failed, relay+ self_test_failed");
}

static void test_connection(void **state)
{
	struct sl_choice_facts f = ready(SL_WISH_PACKET);

	(void)state;
	f.is_half_closed = true;
	is(&f, "packet- half_closed, relay+ half_closed");
	f.has_own_port = false;
	is(&f, "packet- port_range_full, relay+ port_range_full");
	f.mixes_families = true;
	is(&f, "packet- not_linux_supported, relay+ not_linux_supported");
	f.wish = SL_WISH_SOCKMAP;
	is(&f, "sockmap- half_closed, relay+ half_closed");
	f.is_half_closed = false;
	is(&f, "sockmap+ configured, relay+ short_lived");
	f.sockmap_is_full = true;
	is(&f, "sockmap- map_full, relay+ map_full");
	f = ready(SL_WISH_AUTO);
	f.packet_is_full = true;
	is(&f, "packet- map_full, relay+ map_full");
}

/* Of one that is not connected yet only the route and the kernel are known. */
static void test_before_connect(void **state)
{
	struct sl_choice_facts f = ready(SL_WISH_AUTO);

	(void)state;
	f.is_connected = false;
	f.has_own_port = false;
	f.mixes_families = true;
	f.packet_due = f.sockmap_due = (struct sl_choice_due){ 0 };
	is(&f, "packet- short_lived, relay+ short_lived");
	f.wish = SL_WISH_SOCKMAP;
	is(&f, "sockmap- short_lived, relay+ short_lived");
	f.wish = SL_WISH_AUTO;
	f.packet_off = SL_WHY_NO_PRIVILEGE;
	is(&f, "packet- no_privilege, relay+ no_privilege");
}

static void test_due(void **state)
{
	struct sl_choice_facts f = ready(SL_WISH_AUTO);
	struct sl_choice c;

	(void)state;
	f.bytes = 65535;
	is(&f, "packet- short_lived, relay+ short_lived");
	c = sl_choose(&f);
	assert_int_equal(sl_choice_now(&c)->engine, SL_ENGINE_RELAY);
	assert_non_null(sl_choice_later(&c));
	assert_int_equal(sl_choice_later(&c)->engine, SL_ENGINE_PACKET);
	f.age_ms = 1000;
	is(&f, "packet+ eligible, relay+ short_lived");
	c = sl_choose(&f);
	assert_int_equal(sl_choice_now(&c)->engine, SL_ENGINE_PACKET);
	assert_null(sl_choice_later(&c));
	f.bytes = f.age_ms = 0;
	f.packet_due.age_ms = 0; /* at once, though the bytes are not there */
	is(&f, "packet+ eligible, relay+ short_lived");
	/* Each engine's own patience. */
	f = ready(SL_WISH_SOCKMAP);
	f.bytes = 4095;
	is(&f, "sockmap- short_lived, relay+ short_lived");
	f.age_ms = 100;
	is(&f, "sockmap+ configured, relay+ short_lived");
}

/* What will stay in the way leaves nothing to wait for. */
static void test_no_later(void **state)
{
	struct sl_choice_facts f = ready(SL_WISH_AUTO);
	struct sl_choice c;

	(void)state;
	f.bytes = 0;
	f.has_own_port = false;
	c = sl_choose(&f);
	assert_int_equal(sl_choice_now(&c)->why, SL_WHY_PORT_RANGE_FULL);
	assert_null(sl_choice_later(&c));
	f.wish = SL_WISH_NFTABLES;
	c = sl_choose(&f);
	assert_int_equal(sl_choice_now(&c)->engine, SL_ENGINE_NFTABLES);
	assert_null(sl_choice_later(&c));
}

/*
 * What the record of a connection says of the relay, on routes of auto, packet and relay: also
 * where packet.after_bytes is 0, so that it is due at once.
 */
static enum sl_engine_reason relay_reason(const struct sl_choice_facts *f)
{
	if (f->wish == SL_WISH_RELAY)
		return SL_WHY_CONFIGURED;
	if (f->packet_off != SL_WHY_ELIGIBLE) /* CONFIGURED: packet.hook is off */
		return f->packet_off;
	if (f->is_connected && f->mixes_families)
		return SL_WHY_NOT_LINUX_SUPPORTED;
	if (f->is_connected && !f->has_own_port)
		return SL_WHY_PORT_RANGE_FULL;
	return SL_WHY_SHORT_LIVED;
}

static void test_reason_of_relay(void **state)
{
	static const enum sl_wish wishes[] = { SL_WISH_AUTO, SL_WISH_PACKET, SL_WISH_RELAY };
	static const enum sl_engine_reason why[] = { SL_WHY_ELIGIBLE, SL_WHY_CONFIGURED,
						     SL_WHY_NO_PRIVILEGE };

	(void)state;
	for (unsigned n = 0; n < 3 * 3 * 16; n++) {
		struct sl_choice_facts f = ready(wishes[n / 48]);
		struct sl_choice c;

		f.packet_off = why[n / 16 % 3];
		f.is_connected = n & 1;
		f.mixes_families = n & 2;
		f.has_own_port = n & 4;
		f.bytes = f.age_ms = 0;
		if (n & 8)
			f.packet_due.bytes = 0;
		c = sl_choose(&f);
		assert_int_equal(c.item[c.n - 1].engine, SL_ENGINE_RELAY);
		assert_int_equal(c.item[c.n - 1].why, relay_reason(&f));
	}
}

/* ---- the whole table, against the rules said another way ---- */

/*
 * What may be in the way of an engine, the gravest first: each names its reason, or takes it from a
 * fact, and the kernel engines it concerns. The gravest that holds is the answer.
 */
#define FOR(engine) (1u << (engine))
#define BOTH (FOR(SL_ENGINE_PACKET) | FOR(SL_ENGINE_SOCKMAP))

struct obstacle {
	unsigned engines;
	bool holds;
	enum sl_engine_reason why;
};

static bool is_young(const struct sl_choice_facts *f, const struct sl_choice_due *due)
{
	return !f->is_connected || (f->bytes < due->bytes && f->age_ms < due->age_ms);
}

static enum sl_engine_reason gravest(const struct sl_choice_facts *f, enum sl_engine_id engine)
{
	const struct obstacle all[] = {
		{ BOTH, f->needs_tls, SL_WHY_NEEDS_TLS },
		{ BOTH, f->needs_http, SL_WHY_NEEDS_HTTP },
		{ FOR(SL_ENGINE_PACKET), f->packet_off != SL_WHY_ELIGIBLE, f->packet_off },
		{ FOR(SL_ENGINE_SOCKMAP), f->sockmap_off != SL_WHY_ELIGIBLE, f->sockmap_off },
		{ FOR(SL_ENGINE_PACKET), f->is_connected && f->mixes_families,
		  SL_WHY_NOT_LINUX_SUPPORTED },
		{ FOR(SL_ENGINE_PACKET), f->is_connected && !f->has_own_port,
		  SL_WHY_PORT_RANGE_FULL },
		{ BOTH, f->is_connected && f->is_half_closed, SL_WHY_HALF_CLOSED },
		{ FOR(SL_ENGINE_PACKET), f->packet_is_full, SL_WHY_MAP_FULL },
		{ FOR(SL_ENGINE_SOCKMAP), f->sockmap_is_full, SL_WHY_MAP_FULL },
		{ FOR(SL_ENGINE_PACKET), is_young(f, &f->packet_due), SL_WHY_SHORT_LIVED },
		{ FOR(SL_ENGINE_SOCKMAP), is_young(f, &f->sockmap_due), SL_WHY_SHORT_LIVED },
	};

	for (size_t i = 0; i < SL_ARRAY_LEN(all); i++)
		if ((all[i].engines & FOR(engine)) && all[i].holds)
			return all[i].why;
	return SL_WHY_NONE;
}

/* Before the relay, by the route's wish; NONE: nothing. */
static const enum sl_engine_id first_choice[] = {
	[SL_WISH_AUTO] = SL_ENGINE_PACKET,       [SL_WISH_RELAY] = SL_ENGINE_NONE,
	[SL_WISH_PACKET] = SL_ENGINE_PACKET,     [SL_WISH_SOCKMAP] = SL_ENGINE_SOCKMAP,
	[SL_WISH_NFTABLES] = SL_ENGINE_NFTABLES,
};

static struct sl_choice by_rules(const struct sl_choice_facts *f)
{
	enum sl_engine_id first = first_choice[f->wish];
	enum sl_engine_reason good = f->wish == SL_WISH_AUTO ? SL_WHY_ELIGIBLE : SL_WHY_CONFIGURED;
	enum sl_engine_reason bad = SL_WHY_NONE;

	if (first == SL_ENGINE_NFTABLES)
		return (struct sl_choice){ .n = 1, .item = { { first, good, true } } };
	if (first == SL_ENGINE_NONE) {
		/* What only the daemon can do is said first. */
		bad = f->needs_tls    ? SL_WHY_NEEDS_TLS
		      : f->needs_http ? SL_WHY_NEEDS_HTTP
				      : SL_WHY_CONFIGURED;
		return (struct sl_choice){ .n = 1, .item = { { SL_ENGINE_RELAY, bad, true } } };
	}
	bad = gravest(f, first);
	if (bad != SL_WHY_NONE)
		return (struct sl_choice){
			.n = 2, .item = { { first, bad, false }, { SL_ENGINE_RELAY, bad, true } }
		};
	return (struct sl_choice){ .n = 2,
				   .item = { { first, good, true },
					     { SL_ENGINE_RELAY, SL_WHY_SHORT_LIVED, true } } };
}

static void compare(const struct sl_choice_facts *f)
{
	struct sl_choice want = by_rules(f);
	struct sl_choice got = sl_choose(f);
	const struct sl_choice_item *now = sl_choice_now(&got);
	const struct sl_choice_item *later = sl_choice_later(&got);
	bool waits = want.n == 2 && want.item[0].why == SL_WHY_SHORT_LIVED;
	char text[2][200];
	bool same = got.n == want.n;

	for (size_t i = 0; same && i < got.n; i++)
		same = got.item[i].engine == want.item[i].engine &&
		       got.item[i].why == want.item[i].why &&
		       got.item[i].can_carry == want.item[i].can_carry;
	if (!same)
		fail_msg("%s, not %s", text_of(&got, text[0]), text_of(&want, text[1]));
	if (now != &got.item[want.item[0].can_carry ? 0 : 1] ||
	    later != (waits ? &got.item[0] : NULL))
		fail_msg("%s: now or later", text_of(&got, text[0]));
}

static const enum sl_engine_reason offs[] = { SL_WHY_ELIGIBLE, SL_WHY_CONFIGURED,
					      SL_WHY_NO_PRIVILEGE, SL_WHY_NOT_LINUX_SUPPORTED,
					      SL_WHY_SELF_TEST_FAILED };
static const struct sl_choice_due dues[] = {
	{ 0, 0 }, { 0, 10 }, { 100, 0 }, { 100, 10 }, { UINT64_MAX, UINT64_MAX }
};
static const uint64_t bytes[] = { 0, 99, 100 };
static const uint64_t ages[] = { 0, 9, 10 };

/* Reads one digit of a number whose digits have different bases. */
static size_t digit(size_t *number, size_t base)
{
	size_t d = *number % base;

	*number /= base;
	return d;
}

static bool bit(size_t *number)
{
	return digit(number, 2) == 1;
}

static bool nth(size_t n, struct sl_choice_facts *f)
{
	size_t due;

	*f = (struct sl_choice_facts){ .wish = (enum sl_wish)digit(&n, 5) };
	f->needs_tls = bit(&n);
	f->needs_http = bit(&n);
	f->packet_off = offs[digit(&n, SL_ARRAY_LEN(offs))];
	f->sockmap_off = offs[digit(&n, SL_ARRAY_LEN(offs))];
	f->is_connected = bit(&n);
	f->mixes_families = bit(&n);
	f->has_own_port = bit(&n);
	f->is_half_closed = bit(&n);
	f->packet_is_full = bit(&n);
	f->sockmap_is_full = bit(&n);
	f->bytes = bytes[digit(&n, SL_ARRAY_LEN(bytes))];
	f->age_ms = ages[digit(&n, SL_ARRAY_LEN(ages))];
	due = digit(&n, SL_ARRAY_LEN(dues));
	f->packet_due = dues[due];
	f->sockmap_due = dues[(2 * due + 1) % SL_ARRAY_LEN(dues)]; /* seldom the same */
	return n == 0;
}

static void test_table(void **state)
{
	struct sl_choice_facts f;
	size_t n = 0;

	(void)state;
	for (; nth(n, &f); n++)
		compare(&f);
	assert_int_equal(n, 5 * 4 * 5 * 5 * 64 * 9 * 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_wishes),
		cmocka_unit_test(test_daemon_is_needed),
		cmocka_unit_test(test_off),
		cmocka_unit_test(test_connection),
		cmocka_unit_test(test_before_connect),
		cmocka_unit_test(test_due),
		cmocka_unit_test(test_no_later),
		cmocka_unit_test(test_reason_of_relay),
		cmocka_unit_test(test_table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
