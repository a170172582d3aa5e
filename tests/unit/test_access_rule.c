/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/access_rule.h"

/* 10.0.0.0/8, 10.1.0.0/16, 10.1.1.0/24, 192.0.2.0/24 */
static struct sl_ip4_range ten[] = { { 0x0a000000, 0x0affffff } };
static struct sl_ip4_range ten_one[] = { { 0x0a010000, 0x0a01ffff } };
static struct sl_ip4_range ten_one_one[] = { { 0x0a010100, 0x0a0101ff } };
static struct sl_ip4_range doc[] = { { 0xc0000200, 0xc00002ff } };

#define SET(ranges) ((struct sl_ip_set){ .v4 = (ranges), .n4 = 1 })

static enum sl_access_rule check(const struct sl_access_lists *global, const struct sl_ip_set *file,
				 const struct sl_access_lists *route, const char *ip)
{
	struct sl_addr a;

	assert_int_equal(sl_addr_parse_ip(ip, &a), 0);
	return sl_access_check(global, file, route, &a);
}

static void no_list_says_anything(void **state)
{
	const struct sl_access_lists none = { 0 };
	enum sl_access_rule rule = check(&none, NULL, &none, "10.0.0.1");

	(void)state;
	assert_int_equal(rule, SL_ACCESS_OPEN);
	assert_false(sl_access_is_denied(rule));
}

static void deny_wins_over_allow_wherever_it_stands(void **state)
{
	const struct sl_access_lists route = { .allow = SET(ten), .deny = SET(ten_one) };
	const struct sl_access_lists global = { .allow = SET(ten), .deny = SET(ten_one_one) };
	const struct sl_ip_set file = SET(doc);

	(void)state;
	assert_int_equal(check(&global, &file, &route, "10.1.1.5"), SL_ACCESS_GLOBAL_DENY);
	assert_int_equal(check(&global, &file, &route, "10.1.2.5"), SL_ACCESS_ROUTE_DENY);
	assert_int_equal(check(&global, &file, &route, "10.2.0.5"), SL_ACCESS_ALLOWED);
	assert_int_equal(check(&global, &file, &route, "192.0.2.5"), SL_ACCESS_DENY_FILE);
	assert_int_equal(check(&global, &file, &route, "198.51.100.1"),
			 SL_ACCESS_NOT_IN_GLOBAL_ALLOW);
}

static void a_client_must_be_in_each_allow_list(void **state)
{
	const struct sl_access_lists wide = { .allow = SET(ten) };
	const struct sl_access_lists narrow = { .allow = SET(ten_one) };

	(void)state;
	assert_int_equal(check(&wide, NULL, &narrow, "10.1.0.1"), SL_ACCESS_ALLOWED);
	assert_int_equal(check(&wide, NULL, &narrow, "10.2.0.1"), SL_ACCESS_NOT_IN_ROUTE_ALLOW);
	assert_int_equal(check(&narrow, NULL, &wide, "10.2.0.1"), SL_ACCESS_NOT_IN_GLOBAL_ALLOW);
	assert_int_equal(check(&wide, NULL, &narrow, "2001:db8::1"), SL_ACCESS_NOT_IN_GLOBAL_ALLOW);
}

static void every_rule_has_its_words(void **state)
{
	(void)state;
	for (int i = 0; i < SL_ACCESS_COUNT_; i++) {
		assert_non_null(sl_access_rule_name((enum sl_access_rule)i));
		assert_non_null(sl_access_rule_text((enum sl_access_rule)i));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_list_says_anything),
		cmocka_unit_test(deny_wins_over_allow_wherever_it_stands),
		cmocka_unit_test(a_client_must_be_in_each_allow_list),
		cmocka_unit_test(every_rule_has_its_words),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
