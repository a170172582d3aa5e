/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rand.h"
#include "core/route_table.h"

struct built {
	struct sl_route_table table;
	uint32_t *first;
	uint32_t *entries;
};

static struct built build(const struct sl_route_rule *rules, size_t n)
{
	struct built b;

	sl_route_table_plan(&b.table, rules, n);
	b.first = calloc(b.table.n_segments + 1, sizeof(uint32_t));
	b.entries = calloc(b.table.n_entries + 1, sizeof(uint32_t));
	assert_non_null(b.first);
	assert_non_null(b.entries);
	sl_route_table_fill(&b.table, b.first, b.entries);
	return b;
}

static void done(struct built *b)
{
	free(b->first);
	free(b->entries);
}

static struct sl_addr ip(const char *text)
{
	struct sl_addr a = { 0 };

	if (text)
		assert_int_equal(sl_addr_parse_ip(text, &a), 0);
	return a;
}

static void rules_by_port_and_address(void **state)
{
	const struct sl_route_rule rules[] = {
		{ .from = 80, .to = 80, .route = 0 },
		{ .from = 1000, .to = 2000, .route = 1 },
		{ .from = 1500, .to = 1500, .route = 2 },
		{ .from = 443, .to = 443, .route = 3 },
		{ .ip = ip("10.0.0.1"), .from = 443, .to = 443, .route = 4 },
		{ .ip = ip("2001:db8::1"), .from = 1, .to = 65535, .route = 5 },
		{ .from = 65535, .to = 65535, .route = 6 },
		{ .from = 0, .to = 0, .route = 7 },
		{ .from = 90, .to = 90, .route = 8 },
		{ .ip = ip("0.0.0.0"), .from = 90, .to = 90, .route = 9 },
		{ .ip = ip("10.0.0.1"), .from = 90, .to = 90, .route = 10 },
	};
	static const struct {
		const char *why;
		const char *local;
		uint16_t port;
		uint32_t route;
	} cases[] = {
		{ "single port", "192.0.2.1", 80, 0 },
		{ "below it", "192.0.2.1", 79, SL_NO_ROUTE },
		{ "above it", "192.0.2.1", 81, SL_NO_ROUTE },
		{ "first of a range", "192.0.2.1", 1000, 1 },
		{ "last of a range", "192.0.2.1", 2000, 1 },
		{ "behind a range", "192.0.2.1", 2001, SL_NO_ROUTE },
		{ "inside another's range the earlier rule wins", "192.0.2.1", 1500, 1 },
		{ "an address wins over none, whatever the order", "10.0.0.1", 443, 4 },
		{ "another address", "10.0.0.2", 443, 3 },
		{ "IPv6 does not match IPv4", "2001:db8::1", 443, 5 },
		{ "a range with an address", "2001:db8::1", 7, 5 },
		{ "the last port", "192.0.2.1", 65535, 6 },
		{ "the last port with an address", "2001:db8::1", 65535, 5 },
		{ "port 0", "192.0.2.1", 0, 7 },
		{ "an address wins over a family", "10.0.0.1", 90, 10 },
		{ "a family wins over none", "10.0.0.2", 90, 9 },
		{ "a family is not the other", "2001:db8::2", 90, 8 },
	};
	struct built b = build(rules, sizeof(rules) / sizeof(rules[0]));

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct sl_addr local = ip(cases[i].local);
		uint32_t got = sl_route_table_find(&b.table, &local, cases[i].port);

		if (got != cases[i].route)
			fail_msg("%s: got %u", cases[i].why, got);
	}
	assert_true(sl_route_table_needs_ip(&b.table, 443));
	done(&b);
}

static void needs_ip_only_where_rules_differ(void **state)
{
	const struct sl_route_rule rules[] = {
		{ .from = 80, .to = 80, .route = 0 },
		{ .ip = ip("10.0.0.1"), .from = 81, .to = 81, .route = 1 },
	};
	struct built b = build(rules, 2);

	(void)state;
	assert_false(sl_route_table_needs_ip(&b.table, 80));
	assert_true(sl_route_table_needs_ip(&b.table, 81));
	assert_false(sl_route_table_needs_ip(&b.table, 82));
	done(&b);
}

static void empty_table_finds_nothing(void **state)
{
	struct built b = build(NULL, 0);
	struct sl_addr none = { 0 };

	(void)state;
	for (unsigned port = 0; port < 65536; port++)
		assert_int_equal(sl_route_table_find(&b.table, &none, (uint16_t)port), SL_NO_ROUTE);
	done(&b);
}

/* The same answers as a linear search, for random overlapping rules. */
static void agrees_with_a_linear_search(void **state)
{
	struct sl_rand rnd;

	(void)state;
	sl_rand_seed(&rnd, 7);
	for (int round = 0; round < 50; round++) {
		struct sl_route_rule rules[40];
		struct built b;

		for (uint32_t i = 0; i < 40; i++) {
			uint16_t from = (uint16_t)sl_rand_below(&rnd, 300);

			rules[i] = (struct sl_route_rule){
				.ip = ip(sl_rand_below(&rnd, 3) ? NULL : "10.0.0.1"),
				.from = from,
				.to = (uint16_t)(from + sl_rand_below(&rnd, 60)),
				.route = i,
			};
		}
		b = build(rules, 40);
		for (uint16_t port = 0; port < 400; port++) {
			struct sl_addr local = ip(port % 2 ? "10.0.0.1" : "10.0.0.2");
			uint32_t expect = SL_NO_ROUTE;

			for (int with_ip = 1; with_ip >= 0; with_ip--)
				for (uint32_t i = 0; i < 40 && expect == SL_NO_ROUTE; i++)
					if ((sl_addr_family(&rules[i].ip) != 0) == with_ip &&
					    port >= rules[i].from && port <= rules[i].to &&
					    (!with_ip || port % 2))
						expect = i;
			assert_int_equal(sl_route_table_find(&b.table, &local, port), expect);
		}
		done(&b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rules_by_port_and_address),
		cmocka_unit_test(needs_ip_only_where_rules_differ),
		cmocka_unit_test(empty_table_finds_nothing),
		cmocka_unit_test(agrees_with_a_linear_search),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
