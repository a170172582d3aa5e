/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_NFT_BUILD_H
#define SL_NFT_BUILD_H

#include "base/addr.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "core/balance.h"
#include "core/ip_set.h"
#include "nft/ruleset.h"

/*
 * Routes that the kernel forwards by NAT, and the ruleset that makes it do so. Nothing here
 * is kept after the call: names, lists and arrays stay the caller's.
 */

enum sl_nft_protocol {
	SL_NFT_TCP = 1,
	SL_NFT_UDP = 2,
};

enum sl_nft_state {
	SL_NFT_ON = 0,
	SL_NFT_DRAINING, /* no new flows; those there are go on */
	SL_NFT_KILLED,   /* no new flows; packets of those there are are answered by RST, or dropped
			  */
};

/* What a client meets that is not let in, or for which no target is left. */
enum sl_nft_refusal {
	SL_NFT_REFUSE_RESET = 0, /* RST; UDP: ICMP port unreachable */
	SL_NFT_REFUSE_ICMP,      /* ICMP administratively prohibited */
	SL_NFT_REFUSE_DROP,      /* silence */
};

struct sl_nft_listener {
	/* without port. AF_UNSPEC: every local address; 0.0.0.0 or ::, every one of that family */
	struct sl_addr ip;
	uint16_t from;
	uint16_t to; /* inclusive */
};

struct sl_nft_target {
	const char *name;    /* identifies it over time: the address as the operator wrote it */
	struct sl_addr addr; /* port 0: the port the client connected to */
	uint32_t weight;     /* 0: no new flows */
	bool is_down;        /* by a health check: its slots go to others for now */
};

/* Token bucket; rate 0: no limit. */
struct sl_nft_rate {
	uint32_t rate;
	uint32_t seconds; /* per so many: 1, 60, 3600 */
	uint32_t burst;   /* at once */
};

#define SL_NFT_ROUTE_NAME 64 /* bytes, at most */

struct sl_nft_route {
	const char *name; /* not empty */
	/* conntrack mark of its flows, not 0; its number in the names of what it has of its own */
	uint32_t mark;
	enum sl_nft_state state;
	unsigned protocols; /* SL_NFT_TCP | SL_NFT_UDP */
	const struct sl_nft_listener *listeners;
	size_t n_listeners;
	/*
	 * Of both families; a family without any is not listened on, except where there is no
	 * target at all, which refuses everybody. In one family all keep the port or none does.
	 */
	const struct sl_nft_target *targets;
	size_t n_targets;
	enum sl_balance balance; /* least_conn, which the kernel cannot do, counts as round robin */
	bool masquerade;         /* else the target sees the client's address */
	const struct sl_ip_set *allow; /* built, without globs; NULL: everybody */
	const struct sl_ip_set *deny;  /* likewise; NULL: nobody. Wins over `allow` */
	uint32_t max_connections;      /* 0: no limit */
	struct sl_nft_rate connections;
	/* likewise of each client address; as many at once as the rate says, whatever its burst */
	uint32_t max_per_client;
	struct sl_nft_rate per_client;
	struct sl_nft_rate packets; /* of clients, not counting the first of each flow */
	enum sl_nft_refusal refusal;
};

struct sl_nft_lists {
	const struct sl_ip_set *allow; /* built, without globs; NULL: everybody */
	const struct sl_ip_set *deny;  /* likewise; NULL: nobody. Wins over `allow` */
};

struct sl_nft_ports {
	uint16_t from; /* 0: any */
	uint16_t to;   /* inclusive */
};

/* What holds for all routes. */
struct sl_nft_common {
	struct sl_nft_lists lists; /* asked before those of a route */
	/* from which masqueraded TCP leaves; other protocols leave from any */
	struct sl_nft_ports masquerade;
};

/*
 * The sorted ruleset; `common` NULL: nothing. -EINVAL with `why` where two routes want the same
 * listener (both are named), or a route is none that the kernel could carry; -ENOMEM. What overlaps
 * of port ranges only the kernel tells.
 */
SL_MUST_CHECK int sl_nft_build(const struct sl_nft_route *routes, size_t n,
			       const struct sl_nft_common *common, struct sl_nft_ruleset **ret,
			       struct sl_str *why);

/* Whether it has a target on 127.0.0.0/8, which needs net.ipv4.conf.all.route_localnet. */
bool sl_nft_needs_localnet(const struct sl_nft_route *route);

/*
 * Adds what keeps the network away from 127.0.0.0/8, unless a target there has brought it already:
 * for as long as net.ipv4.conf.all.route_localnet is what we made it. -ENOMEM.
 */
#define SL_NFT_GUARD "guard" /* the chain */
SL_MUST_CHECK int sl_nft_put_guard(struct sl_nft_ruleset *rs);

/*
 * Adds a flow table over these interfaces to a ruleset of sl_nft_build(), and what offers it the
 * established flows of the routes. They are there, or the kernel refuses the whole. -ENOMEM.
 */
#define SL_NFT_OFFER "offer" /* the chain that does */
SL_MUST_CHECK int sl_nft_put_offload(struct sl_nft_ruleset *rs, const struct sl_nft_route *routes,
				     size_t n, char (*devices)[SL_NFT_DEVICE], size_t n_devices);

/*
 * Calls `fn` for each route that a sorted ruleset has, by mark, also of one read from the kernel:
 * so the numbers of routes survive the process that gave them.
 */
typedef void (*sl_nft_route_fn)(void *arg, uint32_t mark, const char *name);
void sl_nft_each_route(const struct sl_nft_ruleset *rs, sl_nft_route_fn fn, void *arg);

#endif
