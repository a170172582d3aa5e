/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/breaker.h"
#include "core/ip_ledger.h"

#define SEC UINT64_C(1000000)

static struct sl_addr client(uint32_t n)
{
	struct sl_addr a = { 0 };

	a.v4.sin_family = AF_INET;
	a.v4.sin_addr.s_addr = htonl(0x0a000000 + n);
	return a;
}

static struct sl_ip_ledger new_ledger(size_t n_slots)
{
	struct sl_ip_ledger l = { .n_slots = n_slots, .key = { 1, 2, 3 } };

	l.slots = calloc(n_slots, sizeof(*l.slots));
	assert_non_null(l.slots);
	return l;
}

static void counts_open_connections_per_address_and_scope(void **state)
{
	const struct sl_ip_limits limits = { .max_active = 2 };
	struct sl_ip_ledger l = new_ledger(64);
	struct sl_addr a = client(1);
	struct sl_addr b = client(2);

	(void)state;
	assert_int_equal(sl_ip_ledger_open(&l, 1, &a, &limits, 0), SL_IP_OK);
	assert_int_equal(sl_ip_ledger_open(&l, 1, &a, &limits, 0), SL_IP_OK);
	assert_int_equal(sl_ip_ledger_open(&l, 1, &a, &limits, 0), SL_IP_TOO_MANY);
	assert_int_equal(sl_ip_ledger_open(&l, 1, &b, &limits, 0), SL_IP_OK);
	assert_int_equal(sl_ip_ledger_open(&l, 2, &a, &limits, 0), SL_IP_OK);
	sl_ip_ledger_close(&l, 1, &a, 0);
	assert_int_equal(sl_ip_ledger_open(&l, 1, &a, &limits, 0), SL_IP_OK);
	for (int i = 0; i < 2; i++)
		sl_ip_ledger_close(&l, 1, &a, 0);
	sl_ip_ledger_close(&l, 2, &a, 0);
	sl_ip_ledger_close(&l, 1, &b, 0);
	sl_ip_ledger_close(&l, 1, &b, 0); /* one too many: harmless */
	assert_int_equal(l.n_used, 0);
	free(l.slots);
}

static void rate_allows_the_burst_then_the_spacing(void **state)
{
	/* 5 a second: 5 at once, then one every 200 ms */
	const struct sl_ip_limits limits = { .rate_per_minute = 300, .burst = 5 };
	struct sl_ip_ledger l = new_ledger(64);
	struct sl_addr a = client(1);
	uint64_t now = 100 * SEC;

	(void)state;
	for (int i = 0; i < 5; i++)
		assert_int_equal(sl_ip_ledger_open(&l, 1, &a, &limits, now), SL_IP_OK);
	assert_int_equal(sl_ip_ledger_open(&l, 1, &a, &limits, now), SL_IP_TOO_FAST);
	assert_int_equal(sl_ip_ledger_open(&l, 1, &a, &limits, now + SEC / 5 - 1), SL_IP_TOO_FAST);
	assert_int_equal(sl_ip_ledger_open(&l, 1, &a, &limits, now + SEC / 5), SL_IP_OK);
	assert_int_equal(sl_ip_ledger_open(&l, 1, &a, &limits, now + SEC / 5), SL_IP_TOO_FAST);
	for (int i = 0; i < 5; i++)
		assert_int_equal(sl_ip_ledger_open(&l, 1, &a, &limits, now + 10 * SEC), SL_IP_OK);
	assert_int_equal(sl_ip_ledger_open(&l, 1, &a, &limits, now + 10 * SEC), SL_IP_TOO_FAST);
	free(l.slots);
}

static void rate_is_remembered_after_close_and_then_forgotten(void **state)
{
	const struct sl_ip_limits limits = { .rate_per_minute = 1, .burst = 1 };
	struct sl_ip_ledger l = new_ledger(64);
	struct sl_addr a = client(1);

	(void)state;
	assert_int_equal(sl_ip_ledger_open(&l, 1, &a, &limits, SEC), SL_IP_OK);
	sl_ip_ledger_close(&l, 1, &a, 2 * SEC);
	assert_int_equal(l.n_used, 1);
	assert_int_equal(sl_ip_ledger_open(&l, 1, &a, &limits, 30 * SEC), SL_IP_TOO_FAST);
	assert_int_equal(sl_ip_ledger_open(&l, 1, &a, &limits, 61 * SEC), SL_IP_OK);
	sl_ip_ledger_close(&l, 1, &a, 200 * SEC);
	assert_int_equal(l.n_used, 0);
	free(l.slots);
}

/* A flood of addresses neither grows the table nor locks anybody out. */
static void full_table_admits_untracked(void **state)
{
	const struct sl_ip_limits limits = { .max_active = 1 };
	struct sl_ip_ledger l = new_ledger(64);
	unsigned tracked = 0;
	unsigned untracked = 0;

	(void)state;
	for (uint32_t i = 0; i < 10000; i++) {
		struct sl_addr a = client(i);

		switch (sl_ip_ledger_open(&l, 1, &a, &limits, 0)) {
		case SL_IP_OK:
			tracked++;
			break;
		case SL_IP_OK_UNTRACKED:
			untracked++;
			break;
		case SL_IP_TOO_MANY:
		case SL_IP_TOO_FAST:
			fail_msg("address %u was refused", i);
		}
	}
	assert_int_equal(tracked, 64);
	assert_int_equal(tracked + untracked, 10000);
	assert_int_equal(l.untracked, untracked);
	assert_int_equal(l.n_used, 64);
	free(l.slots);
}

static void growing_keeps_the_counts(void **state)
{
	const struct sl_ip_limits limits = { .max_active = 1 };
	struct sl_ip_ledger l = new_ledger(256);
	struct sl_addr six = { 0 };

	(void)state;
	assert_int_equal(sl_addr_parse_ip("2001:db8::1", &six), 0);
	assert_int_equal(sl_ip_ledger_open(&l, 1, &six, &limits, 0), SL_IP_OK);
	for (uint32_t i = 0; i < 50; i++) {
		struct sl_addr a = client(i);

		assert_int_equal(sl_ip_ledger_open(&l, 1, &a, &limits, 0), SL_IP_OK);
	}
	free(sl_ip_ledger_move(&l, calloc(1024, sizeof(struct sl_ip_entry)), 1024));
	assert_int_equal(l.n_used, 51);
	assert_int_equal(sl_ip_ledger_open(&l, 1, &six, &limits, 0), SL_IP_TOO_MANY);
	for (uint32_t i = 0; i < 50; i++) {
		struct sl_addr a = client(i);

		assert_int_equal(sl_ip_ledger_open(&l, 1, &a, &limits, 0), SL_IP_TOO_MANY);
	}
	free(l.slots);
}

static void breaker_has_hysteresis(void **state)
{
	static const struct {
		const char *why;
		bool was_open;
		uint64_t active;
		bool is_open;
	} cases[] = {
		{ "quiet", false, 0, false },
		{ "at the mark it is still closed", false, 95, false },
		{ "above the mark it opens", false, 96, true },
		{ "open, still above the lower mark", true, 90, true },
		{ "open, at the lower mark", true, 85, true },
		{ "open, below the lower mark", true, 84, false },
		{ "closed between the marks stays closed", false, 90, false },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		if (sl_breaker_step(cases[i].was_open, cases[i].active, 100, 95, 85) !=
		    cases[i].is_open)
			fail_msg("%s", cases[i].why);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(counts_open_connections_per_address_and_scope),
		cmocka_unit_test(rate_allows_the_burst_then_the_spacing),
		cmocka_unit_test(rate_is_remembered_after_close_and_then_forgotten),
		cmocka_unit_test(full_table_admits_untracked),
		cmocka_unit_test(growing_keeps_the_counts),
		cmocka_unit_test(breaker_has_hysteresis),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
