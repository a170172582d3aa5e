/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_TESTS_NFT_RANDOM_H
#define SL_TESTS_NFT_RANDOM_H

#include <arpa/inet.h>

#include "nft_routes.h"

/* Routes of every kind by chance, of which the next ones share much with the ones before. */

#define RANDOM_ROUTES 8
#define RANDOM_RANGES 6

static inline uint32_t random_next(uint32_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 17;
	*x ^= *x << 5;
	return *x;
}

static inline uint32_t random_below(uint32_t *x, uint32_t n)
{
	return random_next(x) % n;
}

struct random_list {
	struct sl_ip4_range v4[RANDOM_RANGES];
	struct sl_ip6_range v6[RANDOM_RANGES];
	struct sl_ip_set set;
};

struct random_routes {
	struct test_routes t;
	struct random_list list[RANDOM_ROUTES][2];
};

/* Neighbours, single addresses, the first and the last there are; sorted, apart. */
static inline void random_list(struct random_list *l, uint32_t *x)
{
	uint32_t n4 = random_below(x, RANDOM_RANGES + 1), n6 = random_below(x, RANDOM_RANGES + 1);
	uint32_t at = random_below(x, 2);

	for (uint32_t i = 0; i < n4; i++) {
		l->v4[i].from = at + random_below(x, 3);
		l->v4[i].to = l->v4[i].from + random_below(x, 4);
		at = l->v4[i].to + 1;
	}
	if (n4 && random_below(x, 4) == 0)
		l->v4[n4 - 1].to = UINT32_MAX;
	at = random_below(x, 2);
	for (uint32_t i = 0; i < n6; i++) {
		uint32_t from = at + random_below(x, 3), to = from + random_below(x, 4);

		at = to + 1;
		from = htonl(from);
		to = htonl(to);
		l->v6[i] = (struct sl_ip6_range){ .from = { 0x20 }, .to = { 0x20 } };
		memcpy(l->v6[i].from + 12, &from, 4);
		memcpy(l->v6[i].to + 12, &to, 4);
	}
	if (n6 && random_below(x, 4) == 0)
		memset(l->v6[n6 - 1].to, 0xff, 16);
	l->set = (struct sl_ip_set){ .v4 = l->v4, .n4 = n4, .v6 = l->v6, .n6 = n6 };
}

static inline struct sl_nft_rate random_rate(uint32_t *x)
{
	uint32_t n = 1 + random_below(x, 3) * 10;

	return random_below(x, 3) ? (struct sl_nft_rate){ 0 }
				  : (struct sl_nft_rate){ n, random_below(x, 2) ? 60 : 1, n };
}

static inline void random_listeners(struct sl_nft_route *r, uint32_t slot, uint32_t *x)
{
	static const char *const ips[] = { NULL, "0.0.0.0", "::", "10.9.9.9", "fd09::9" };
	uint32_t ip = random_below(x, 5);
	/* of two routes only the ranges touch: 1000-1009, 1010-1019 */
	uint32_t from = 1000 + slot * 10, at = from + random_below(x, 5);

	test_listen(r, ips[ip], (uint16_t)at, (uint16_t)at);
	at += 1 + random_below(x, 2);
	if (random_below(x, 2))
		test_listen(r, ips[ip], (uint16_t)at, (uint16_t)(from + 9 - random_below(x, 3)));
	if (random_below(x, 4) == 0)
		test_listen(r, "10.9.9.8", (uint16_t)from, (uint16_t)(from + 9));
	if (random_below(x, 4) == 0)
		test_listen(r, "fd09::8", (uint16_t)from, (uint16_t)(from + 9));
}

static inline void random_targets(struct sl_nft_route *r, uint32_t *x)
{
	static const char *const ips[] = { "10.0.0.1", "10.0.0.2",  "fd00::1", "10.0.0.3",
					   "fd00::2",  "127.0.0.1", "fd00::3", "10.0.0.3" };
	uint32_t n = random_below(x, 6), first = random_below(x, 3);
	uint16_t port[2] = { random_below(x, 2) ? 80 : 0, random_below(x, 2) ? 81 : 0 };

	for (uint32_t i = 0; i < n; i++) {
		const char *ip = ips[first + i];

		test_target(r, ip, port[strchr(ip, ':') != NULL], random_below(x, 4))->is_down =
			random_below(x, 4) == 0;
	}
}

/* Marks: some small, some that take all 32 bits. `ret` is given back with test_routes_done(). */
static inline void random_routes(struct random_routes *ret, uint32_t *x)
{
	*ret = (struct random_routes){ 0 };
	test_routes_init(&ret->t, RANDOM_ROUTES);
	for (uint32_t slot = 0; slot < RANDOM_ROUTES; slot++) {
		struct random_list *list = ret->list[slot];
		struct sl_nft_route *r;
		uint32_t bits = random_next(x);

		if (bits % 4 == 0)
			continue;
		r = test_route(&ret->t, "");
		r->mark = slot % 2 ? slot : UINT32_MAX - slot;
		if (bits >> 2 & 1)
			r->mark += slot % 2 ? 100 : -100u; /* as if another had its ports now */
		snprintf(ret->t.names[ret->t.n - 1], sizeof(ret->t.names[0]), "route.%x_-",
			 r->mark);
		r->protocols = 1 + (bits >> 3 & 3) % 3;
		r->state = (enum sl_nft_state)((bits >> 5 & 7) % 5 ? SL_NFT_ON
					       : bits >> 8 & 1     ? 1
								   : 2);
		r->balance = (enum sl_balance)((bits >> 9 & 7) % 5);
		r->masquerade = bits >> 12 & 1;
		random_list(&list[0], x);
		random_list(&list[1], x);
		r->allow = bits >> 13 & 1 ? &list[0].set : NULL;
		r->deny = bits >> 14 & 1 ? &list[1].set : NULL;
		r->max_connections = bits >> 15 & 1 ? 1 + (bits >> 16 & 1) : 0;
		r->max_per_client = bits >> 17 & 1 ? 1 + (bits >> 18 & 1) : 0;
		r->connections = random_rate(x);
		r->per_client = random_rate(x);
		r->packets = random_rate(x);
		r->refusal = (enum sl_nft_refusal)((bits >> 19 & 3) % 3);
		random_listeners(r, slot, x);
		random_targets(r, x);
	}
}

#endif
