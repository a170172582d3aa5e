/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What the supervisor hands over for the kernel's NAT. What is accepted can be used: the ruleset
 * that is made of it is one, or it is said which route is wrong.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/memfd.h"
#include "broker/nat_plan.h"
#include "broker/nft_routes.h"

static void check_lists(const struct sl_nft_route *r)
{
	struct sl_addr a = { .v4 = { .sin_family = AF_INET, .sin_addr.s_addr = 1 } };

	if (r->allow)
		(void)sl_ip_set_has(r->allow, &a);
	if (r->deny)
		(void)sl_ip_set_has(r->deny, &a);
}

static void check_plan(struct sl_nat_plan *p)
{
	_cleanup_(sl_nft_ruleset_freep) struct sl_nft_ruleset *rs = NULL;
	_cleanup_(sl_str_done) struct sl_str why = { 0 };
	_cleanup_free_ struct sl_nft_target *settled = calloc(p->n_targets + 1, sizeof(*settled));
	size_t at = 0;
	int r;

	assert(settled && strlen(p->table) < sizeof(p->table));
	for (size_t i = 0; i < p->n_routes; i++) {
		struct sl_nft_route *route = &p->routes[i];

		check_lists(route);
		route->mark = (uint32_t)i + 1;
		sl_nft_settle_targets(route, p->is_backup + at, NULL, settled + at);
		route->targets = settled + at;
		at += route->n_targets;
	}
	assert(at == p->n_targets);
	r = sl_nft_build(p->routes, p->n_routes, &p->common, &rs, &why);
	assert(r == 0 || (r == -EINVAL && why.len > 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t n)
{
	_cleanup_(sl_nat_plan_freep) struct sl_nat_plan *p = NULL;
	_cleanup_fd_ int fd = -1;
	int r;

	assert(sl_memfd_new("fuzz", input, n, &fd) == 0);
	r = sl_nat_plan_unpack(fd, &p);
	assert(r == 0 || r == -EBADMSG);
	if (r == 0)
		check_plan(p);
	return 0;
}
