/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BROKER_SERVER_H
#define SL_BROKER_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include "broker/nat_plan.h"
#include "broker/policy.h"
#include "broker/wire.h"
#include "io/loop.h"

/*
 * The owner of the kernel's side of the packet engine: answers typed requests, validates what it is
 * given, commits hand-overs, watches interfaces and flows, removes what is over. All truth is in
 * the pinned maps, so a broker may die at any moment and the next one goes on.
 */
struct sl_broker;

/* How long things are waited for; shorter in tests. */
struct sl_broker_times {
	uint32_t revival_ms; /* for data that takes a RST back */
	uint32_t closed_ms;  /* entries stay after the last packet: both FINs acknowledged, */
	uint32_t rst_ms;     /* reset, */
	uint32_t killed_ms;  /* after the kill */
	uint32_t broken_ms;  /* packets are dropped and none gets through */
	uint32_t round_ms;   /* one walk through the flows */
};

struct sl_broker_options {
	struct sl_loop *loop;
	const struct sl_broker_times *times; /* NULL: 200 ms, 60 s, 10 s, 60 s, 30 s, 1 s */
	uint32_t proxy_uid; /* sockets must have been made by it; UINT32_MAX: by anyone */
	/* the status has changed */
	void (*changed)(void *arg, const struct sl_broker_status *status);
	/* The policy's max_flows is not what is loaded, and no flow is left: another process can
	 * load it now. NULL: nobody does */
	void (*outgrown)(void *arg);
	/* That of the kernel's NAT, or whether its plan is in force, may have. NULL: nobody asks */
	void (*nat_changed)(void *arg);
	void *arg;
};

int sl_broker_new(const struct sl_broker_options *options, struct sl_broker **ret);
/* Leaves the kernel as it is. */
void sl_broker_free(struct sl_broker *b);

/*
 * Takes over `policy`. The first one opens and adopts what is pinned; where that fails, the status
 * says why, every hand-over is refused for that reason, and the next policy tries again. Once it
 * has succeeded later ones change what is allowed, interfaces and ports; bpf_dir and wants_xdp are
 * settled by loading and have to stay, max_flows waits for outgrown(). Several generations are
 * remembered, because connections outlive theirs.
 */
void sl_broker_set_policy(struct sl_broker *b, struct sl_policy *policy);

/* They are loaded, though packet.hook may be off: policies make a difference. */
bool sl_broker_has_programs(const struct sl_broker *b);
/*
 * It is off, but not for lack of something in the kernel: with `dir` on a bpf file system
 * another process may well be on.
 */
bool sl_broker_is_off_for_now(const struct sl_broker *b);

/* The same of the sockmap engine. */
bool sl_broker_has_sockmap(const struct sl_broker *b);
bool sl_broker_is_sockmap_off_for_now(const struct sl_broker *b);

/*
 * The kernel's NAT (broker/nat.h). Opened once, before the sandbox and the first plan; then each
 * plan is taken over. A plan that this process cannot take is for the next one.
 */
SL_MUST_CHECK int sl_broker_open_nat(struct sl_broker *b, const struct sl_nat_plan *plan);
bool sl_broker_can_take_nat(const struct sl_broker *b, const struct sl_nat_plan *plan);
void sl_broker_set_nat_plan(struct sl_broker *b, struct sl_nat_plan *plan);
/* Whether the kernel holds what the last plan wants, and in words. */
bool sl_broker_is_nat_in_force(const struct sl_broker *b, const char **ret_text);
/* Its share of the end: unless it is to stay, flows, table and settings go. */
void sl_broker_stop_nat(struct sl_broker *b);
/* The same when the next one is to have `table`, and this one has another. */
void sl_broker_leave_nat(struct sl_broker *b, const char *table);

/*
 * A channel of a proxy (ownership passes). `proxy` tells processes apart; `worker` is its index of
 * `n_workers`, equal to n_workers for the control thread. Flows without a record are
 * announced (ADOPT) to worker conn_id % n_workers of the newest proxy, those of the kernel's NAT
 * told (NAT_FLOW) to worker sl_broker_nat_worker() of the newest one that is there with its control
 * thread, which comes last.
 */
SL_MUST_CHECK int sl_broker_add_channel(struct sl_broker *b, uint64_t proxy, unsigned worker,
					unsigned n_workers, int fd);

/* Everything goes: flows are killed, links, programs, maps and reserved ports removed. */
void sl_broker_stop(struct sl_broker *b);

#endif
