/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_PROXY_GENERATION_H
#define SL_PROXY_GENERATION_H

#include <stdbool.h>
#include <stdint.h>

#include "conf/conf.h"
#include "core/matcher.h"
#include "proxy/route.h"
#include "proxy/secure.h"
#include "proxy/target.h"

/*
 * One configuration as the workers use it: immutable, reference-counted, and
 * held by every connection it routed, so that a reload changes nothing for
 * them. Run-time objects of routes and targets are shared with the generation
 * before wherever their names are the same.
 */
struct sl_gen_route {
	const struct sl_conf_route *conf;
	struct sl_route *route;     /* owned reference */
	struct sl_target **targets; /* owned references, conf->n_targets of them */
	struct sl_slots *slots;     /* owned reference; NULL unless balance: maglev */
};

/* The table of balance: maglev; shared by generations while targets and weights stay. */
struct sl_slots {
	uint32_t refs; /* atomic */
	size_t n;
	uint16_t slot[];
};

/* What holds for a range of ports before a route is known. */
struct sl_port_segment {
	uint16_t from; /* up to where the next one begins */
	bool accepts_proxy;
	uint64_t
		proxy_header_ms; /* the longest that any route of these ports grants; 0: no limit */
	uint64_t first_data_ms;
};

struct sl_generation {
	uint32_t refs; /* atomic */
	uint64_t number;
	struct sl_conf *conf;        /* owned */
	struct sl_gen_route *routes; /* conf->n_routes of them, same order */
	const struct sl_gen_route **by_name;
	struct sl_match_rule *rules;  /* one for each route, same order */
	struct sl_match_ports *ports; /* of all rules */
	void *matcher_block;
	struct sl_matcher *matcher;       /* inside the block */
	struct sl_port_segment *segments; /* sorted */
	size_t n_segments;
	struct sl_secure_box *
		*secure; /* owned references, as `routes`; NULL where no TLS is spoken */
};

/* NULL: there is none of that name. */
const struct sl_gen_route *sl_generation_find_route(const struct sl_generation *g,
						    const char *name);
/* The daemon accepts for it; else the kernel's NAT forwards, and no socket of ours is met. */
bool sl_generation_accepts(const struct sl_conf_route *route);

/*
 * The route that the kernel's NAT takes for what comes to that address (AF_UNSPEC: any): those of
 * one address before those of every. NULL: none.
 */
const struct sl_gen_route *sl_generation_find_nat(const struct sl_generation *g,
						  const struct sl_addr *local, uint16_t port,
						  bool is_udp);

/* The listener's demand for a PROXY header; NULL: connections begin with the client's bytes. */
const struct sl_conf_accept_proxy *sl_generation_accept_proxy(const struct sl_generation *g,
							      const struct sl_addr *local,
							      uint16_t port);
/* Whether routes or listeners of that port differ by the local address. */
bool sl_generation_needs_ip(const struct sl_generation *g, uint16_t port);
const struct sl_port_segment *sl_generation_segment(const struct sl_generation *g, uint16_t port);

/*
 * Takes `conf` over, also on failure. `before` may be NULL. `next_scope` numbers
 * routes that are new.
 */
SL_MUST_CHECK int sl_generation_new(struct sl_conf *conf, uint64_t number, unsigned n_workers,
				    const struct sl_generation *before, uint32_t *next_scope,
				    struct sl_generation **ret);
/*
 * Control thread: what its routes need to speak TLS, of `m`; what has not changed is that of
 * `before` (may be NULL, or `g` itself). With `before` == `g`, a route that cannot be made keeps
 * what it has. What fails is logged. `*ret_changed`: a route has something else than before.
 */
SL_MUST_CHECK int sl_generation_secure(struct sl_generation *g, const struct sl_generation *before,
				       struct sl_materials *m, bool *ret_changed);
/* Any thread: a reference to the route's; NULL: it speaks no TLS. */
struct sl_secure *sl_generation_get_secure(struct sl_generation *g,
					   const struct sl_gen_route *route);
struct sl_generation *sl_generation_ref(struct sl_generation *g);
void sl_generation_unref(struct sl_generation *g); /* accepts NULL; any thread */
SL_DEFINE_CLEANUP(struct sl_generation, sl_generation_unref);

/*
 * Control thread: resolves the names of `now` and stops resolving those of
 * `before` (may be NULL) that it no longer has.
 */
SL_MUST_CHECK int sl_generation_watch(struct sl_generation *now, struct sl_generation *before,
				      struct sl_dns *dns);
/* Control thread: stops resolving every name of `g` (may be NULL). */
void sl_generation_unwatch(struct sl_generation *g);

#endif
