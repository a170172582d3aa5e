/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_TESTS_NFT_ROUTES_H
#define SL_TESTS_NFT_ROUTES_H

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nft/build.h"

/* Routes for tests, written as an operator would: listeners "80", "10.0.0.1:80", "9000-9099". */
struct test_routes {
	struct sl_nft_route *route;
	size_t n;
	struct sl_nft_listener *listeners; /* four for each route */
	struct sl_nft_target *targets;     /* eight for each */
	char (*names)[32];
	struct sl_nft_common common; /* nothing unless a test sets it */
};

static inline void test_routes_init(struct test_routes *t, size_t max)
{
	t->route = calloc(max, sizeof(*t->route));
	t->listeners = calloc(max * 4, sizeof(*t->listeners));
	t->targets = calloc(max * 8, sizeof(*t->targets));
	t->names = calloc(max, sizeof(*t->names));
	t->n = 0;
	t->common = (struct sl_nft_common){ 0 };
	assert(t->route && t->listeners && t->targets && t->names);
}

static inline void test_routes_done(struct test_routes *t)
{
	free(t->route);
	free(t->listeners);
	free(t->targets);
	free(t->names);
}

/* The mark is the place in the list, from 1 on. */
static inline struct sl_nft_route *test_route(struct test_routes *t, const char *name)
{
	struct sl_nft_route *r = &t->route[t->n];

	*r = (struct sl_nft_route){ .mark = (uint32_t)t->n + 1, .protocols = SL_NFT_TCP };
	snprintf(t->names[t->n], sizeof(t->names[0]), "%s", name);
	r->name = t->names[t->n];
	r->listeners = &t->listeners[t->n * 4];
	r->targets = &t->targets[t->n * 8];
	t->n++;
	return r;
}

static inline void test_listen(struct sl_nft_route *r, const char *ip, uint16_t from, uint16_t to)
{
	struct sl_nft_listener *l = (struct sl_nft_listener *)&r->listeners[r->n_listeners++];

	*l = (struct sl_nft_listener){ .from = from, .to = to };
	if (ip)
		assert(sl_addr_parse_ip(ip, &l->ip) == 0);
}

static inline struct sl_nft_target *test_target(struct sl_nft_route *r, const char *ip,
						uint16_t port, uint32_t weight)
{
	struct sl_nft_target *t = (struct sl_nft_target *)&r->targets[r->n_targets++];

	*t = (struct sl_nft_target){ .name = ip, .weight = weight };
	assert(sl_addr_parse_ip(ip, &t->addr) == 0);
	sl_addr_set_port(&t->addr, port);
	return t;
}

/* Each has a port and a target of its own. */
static inline void test_many_routes(struct test_routes *t, size_t n)
{
	test_routes_init(t, n);
	for (size_t i = 0; i < n; i++) {
		char name[32];
		struct sl_nft_route *r;

		snprintf(name, sizeof(name), "route-%zu", i);
		r = test_route(t, name);
		test_listen(r, NULL, (uint16_t)(1 + i), (uint16_t)(1 + i));
		test_target(r, "10.0.0.1", (uint16_t)(1 + i), 1);
	}
}

static inline struct sl_nft_ruleset *test_build(const struct test_routes *t)
{
	_cleanup_(sl_str_done) struct sl_str why = { 0 };
	struct sl_nft_ruleset *rs = NULL;
	int r = sl_nft_build(t->route, t->n, &t->common, &rs, &why);

	if (r < 0)
		fprintf(stderr, "%s\n", sl_str_text(&why));
	assert(r == 0);
	return rs;
}

#endif
