/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What a change of the table is called. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "nft/say.h"

#include "nft_routes.h"

struct lab {
	struct test_routes a, b; /* installed, wanted */
	struct sl_nft_ruleset *installed;
	struct sl_nft_ruleset *wanted;
	struct sl_nft_ops ops;
	struct sl_nft_changes changes;
};

static int setup(void **state)
{
	struct lab *lab = calloc(1, sizeof(*lab));

	assert_non_null(lab);
	test_routes_init(&lab->a, 64);
	test_routes_init(&lab->b, 64);
	*state = lab;
	return 0;
}

static void forget(struct lab *lab)
{
	sl_nft_ruleset_free(lab->installed);
	sl_nft_ruleset_free(lab->wanted);
	lab->installed = lab->wanted = NULL;
	sl_nft_ops_done(&lab->ops);
	lab->ops = (struct sl_nft_ops){ 0 };
	lab->changes = (struct sl_nft_changes){ 0 };
}

static int teardown(void **state)
{
	struct lab *lab = *state;

	forget(lab);
	test_routes_done(&lab->a);
	test_routes_done(&lab->b);
	free(lab);
	return 0;
}

static struct sl_nft_route *route(struct test_routes *t, const char *name, uint16_t port,
				  const char *target)
{
	struct sl_nft_route *r = test_route(t, name);

	test_listen(r, NULL, port, port);
	(void)test_target(r, target, 80, 1);
	return r;
}

static void say(struct lab *lab, bool has_table)
{
	forget(lab);
	lab->installed = has_table ? test_build(&lab->a) : NULL;
	lab->wanted = test_build(&lab->b);
	assert_int_equal(sl_nft_diff(lab->installed, lab->wanted, &lab->ops), 0);
	sl_nft_say_ops("sluice", lab->installed, lab->wanted, &lab->ops, &lab->changes);
}

static void has(const struct lab *lab, const char *wanted, const char *found)
{
	for (size_t i = 0; i < lab->changes.n && i < SL_NFT_CHANGES; i++)
		if (strcmp(lab->changes.item[i].wanted, wanted) == 0 &&
		    strcmp(lab->changes.item[i].found, found) == 0)
			return;
	for (size_t i = 0; i < lab->changes.n && i < SL_NFT_CHANGES; i++)
		print_error("-%s\n+%s\n", lab->changes.item[i].wanted, lab->changes.item[i].found);
	fail_msg("not said: -%s +%s", wanted, found);
}

static void elements_are_written_as_nft_does(void **state)
{
	struct lab *lab = *state;
	struct sl_nft_route *r;

	(void)route(&lab->a, "web", 80, "10.0.0.1");
	(void)route(&lab->b, "web", 80, "10.0.0.2");
	r = test_route(&lab->b, "six");
	test_listen(r, "2001:db8::1", 443, 443);
	test_listen(r, NULL, 9000, 9099);
	(void)test_target(r, "2001:db8::2", 8443, 1);
	say(lab, true);
	has(lab, "element 0x00000001 : 10.0.0.2 . 80 of map to4 (web)",
	    "element 0x00000001 : 10.0.0.1 . 80 of map to4 (web)");
	has(lab, "element 2001:db8::1 . tcp . 443 : 0x00000002 of map listen6 (six)", "");
	has(lab, "element tcp . 9000-9099 : 0x00000002 of map any6_range (six)", "");
	has(lab, "element 0x00000002 : 2001:db8::2 . 8443 of map to6 (six)", "");
	has(lab, "element 0x00000002 : route_2 of map route_counter (six)", "");
	has(lab, "counter route_2", "");
}

static void chains_and_rules_have_names(void **state)
{
	struct lab *lab = *state;
	struct sl_nft_route *r = route(&lab->a, "web", 80, "10.0.0.1");

	r->max_connections = 10;
	(void)route(&lab->b, "web", 80, "10.0.0.1");
	say(lab, true);
	has(lab, "", "element 0x00000001 : jump policy_1 of map route_policy (web)");
	has(lab, "", "chain policy_1");
	for (size_t i = 0; i < lab->changes.n; i++)
		assert_true(!lab->changes.item[i].wanted[0] != !lab->changes.item[i].found[0]);
}

static void a_table_is_one_change(void **state)
{
	struct lab *lab = *state;

	(void)route(&lab->b, "web", 80, "10.0.0.1");
	say(lab, false);
	assert_int_equal(lab->changes.n, 1);
	has(lab, "table inet sluice", "");
	(void)route(&lab->a, "web", 80, "10.0.0.1");
	forget(lab);
	lab->installed = test_build(&lab->a);
	lab->installed->has_others = true;
	lab->wanted = test_build(&lab->b);
	assert_int_equal(sl_nft_diff(lab->installed, lab->wanted, &lab->ops), 0);
	sl_nft_say_ops("sluice", lab->installed, lab->wanted, &lab->ops, &lab->changes);
	assert_int_equal(lab->changes.n, 1);
	has(lab, "table inet sluice", "table inet sluice with another form, or objects of others");
}

/* What does not fit is counted, and what is said of it behind that as well. */
static void many_are_counted(void **state)
{
	struct lab *lab = *state;
	size_t n;

	for (int i = 0; i < 30; i++) {
		char name[16];

		(void)snprintf(name, sizeof(name), "r%d", i);
		(void)route(&lab->b, name, (uint16_t)(8000 + i), "10.0.0.1");
	}
	(void)route(&lab->a, "r0", 8000, "10.0.0.1");
	say(lab, true);
	n = lab->changes.n;
	assert_int_equal(n, lab->ops.n);
	assert_true(n > 3 * 29);
	sl_nft_say_ops("sluice", lab->installed, lab->wanted, &lab->ops, &lab->changes);
	assert_int_equal(lab->changes.n, 2 * n);
}

static void nothing_is_nothing(void **state)
{
	struct lab *lab = *state;

	(void)route(&lab->a, "web", 80, "10.0.0.1");
	(void)route(&lab->b, "web", 80, "10.0.0.1");
	say(lab, true);
	assert_int_equal(lab->changes.n, 0);
}

#define SAY(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		SAY(elements_are_written_as_nft_does),
		SAY(chains_and_rules_have_names),
		SAY(a_table_is_one_change),
		SAY(many_are_counted),
		SAY(nothing_is_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
