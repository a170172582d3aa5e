/* SPDX-License-Identifier: GPL-3.0-or-later */
/* WRAP: malloc calloc realloc reallocarray nftnl_table_alloc nftnl_set_alloc nftnl_chain_alloc */
/* WRAP: nftnl_rule_alloc nftnl_obj_alloc nftnl_flowtable_alloc nftnl_expr_alloc */
/* Every allocation of building a ruleset, comparing two, and writing messages fails once. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <libnftnl/chain.h>
#include <libnftnl/expr.h>
#include <libnftnl/flowtable.h>
#include <libnftnl/object.h>
#include <libnftnl/rule.h>
#include <libnftnl/set.h>
#include <libnftnl/table.h>

#include "nft/diff.h"
#include "nft/encode.h"

#include "nft_routes.h"

static bool armed;
static long fail_at; /* the allocation that fails; counted down while armed */

static bool fails(void)
{
	return armed && fail_at-- == 0;
}

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__real_reallocarray(void *p, size_t n, size_t size);
void *__wrap_malloc(size_t n)
{
	return fails() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
	return fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
	return fails() ? NULL : __real_realloc(p, n);
}

void *__wrap_reallocarray(void *p, size_t n, size_t size)
{
	return fails() ? NULL : __real_reallocarray(p, n, size);
}

/* The library allocates where we do not see it. */
#define WRAP_ALLOC(type, fn, params, args)                \
	type __real_##fn params;                          \
	type __wrap_##fn params;                          \
	type __wrap_##fn params                           \
	{                                                 \
		return fails() ? NULL : __real_##fn args; \
	}
WRAP_ALLOC(struct nftnl_table *, nftnl_table_alloc, (void), ())
WRAP_ALLOC(struct nftnl_set *, nftnl_set_alloc, (void), ())
WRAP_ALLOC(struct nftnl_chain *, nftnl_chain_alloc, (void), ())
WRAP_ALLOC(struct nftnl_rule *, nftnl_rule_alloc, (void), ())
WRAP_ALLOC(struct nftnl_obj *, nftnl_obj_alloc, (void), ())
WRAP_ALLOC(struct nftnl_flowtable *, nftnl_flowtable_alloc, (void), ())
WRAP_ALLOC(struct nftnl_expr *, nftnl_expr_alloc, (const char *name), (name))

static void fill(struct test_routes *t)
{
	static struct sl_ip4_range range = { 1, 5 };
	static const struct sl_ip_set list = { .v4 = &range, .n4 = 1 };
	struct sl_nft_route *r;

	test_routes_init(t, 4);
	r = test_route(t, "one");
	test_listen(r, NULL, 80, 80);
	test_target(r, "10.0.0.1", 80, 1);
	r = test_route(t, "turn");
	r->allow = &list;
	r->max_connections = 3;
	r->packets = (struct sl_nft_rate){ 1, 1, 1 };
	test_listen(r, NULL, 81, 81);
	test_target(r, "10.0.0.1", 80, 1);
	test_target(r, "10.0.0.2", 80, 1);
	r = test_route(t, "hash");
	r->balance = SL_BALANCE_MAGLEV;
	test_listen(r, NULL, 82, 82);
	test_target(r, "fd00::1", 80, 1);
	test_target(r, "fd00::2", 80, 1);
}

static void building_fails_as_a_whole(void **state)
{
	struct test_routes t;
	long at = 0;
	int r = -ENOMEM;

	(void)state;
	fill(&t);
	for (; r == -ENOMEM; at++) {
		_cleanup_(sl_str_done) struct sl_str why = { 0 };
		struct sl_nft_ruleset *rs = NULL;

		armed = true;
		fail_at = at;
		r = sl_nft_build(t.route, t.n, NULL, &rs, &why);
		armed = false;
		assert_int_equal(rs == NULL, r < 0);
		sl_nft_ruleset_free(rs);
	}
	assert_int_equal(r, 0);
	assert_true(at > 50);
	test_routes_done(&t);
}

static void comparing_fails_as_a_whole(void **state)
{
	struct sl_nft_ruleset *a, *b;
	struct test_routes t;
	long at = 0;
	int r = -ENOMEM;

	(void)state;
	fill(&t);
	a = test_build(&t);
	t.route[1].connections = (struct sl_nft_rate){ 1, 1, 1 };
	t.n--;
	b = test_build(&t);
	for (; r == -ENOMEM; at++) {
		struct sl_nft_ops ops = { 0 };

		armed = true;
		fail_at = at;
		r = sl_nft_diff(a, b, &ops);
		armed = false;
		assert_int_equal(ops.n == 0, r < 0);
		sl_nft_ops_done(&ops);
	}
	assert_int_equal(r, 0);
	assert_true(at > 4);
	sl_nft_ruleset_free(a);
	sl_nft_ruleset_free(b);
	test_routes_done(&t);
}

/* Messages of all kinds: into nothing, and of what goes. */
static void writing_fails_as_a_whole(void **state)
{
	char device[][SL_NFT_DEVICE] = { "lo" };
	struct sl_nft_ruleset *rs[2];
	struct test_routes t;

	(void)state;
	fill(&t);
	rs[0] = test_build(&t);
	assert_int_equal(sl_nft_put_offload(rs[0], t.route, t.n, device, 1), 0);
	t.n = 0;
	rs[1] = test_build(&t);
	for (int i = 0; i < 2; i++) {
		struct sl_nft_encode e = {
			.table = "t", .installed = i ? rs[0] : NULL, .wanted = rs[i], .adopts = i
		};
		struct sl_nft_ops ops = { 0 };
		int r = -ENOMEM;
		long at = 0;

		e.ops = &ops;
		assert_int_equal(sl_nft_diff(e.installed, e.wanted, &ops), 0);
		for (; r == -ENOMEM; at++) {
			struct sl_nft_batch b = { 0 };

			armed = true;
			fail_at = at;
			r = sl_nft_encode(&e, 0, ops.n, 7, &b);
			armed = false;
			assert_int_equal(b.n == 0, r < 0);
			sl_nft_batch_done(&b);
		}
		assert_int_equal(r, 0);
		assert_true(at > 20);
		sl_nft_ops_done(&ops);
	}
	sl_nft_ruleset_free(rs[0]);
	sl_nft_ruleset_free(rs[1]);
	test_routes_done(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(building_fails_as_a_whole),
		cmocka_unit_test(comparing_fails_as_a_whole),
		cmocka_unit_test(writing_fails_as_a_whole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
