/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BROKER_FLOWS_H
#define SL_BROKER_FLOWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "broker/wire.h"

struct sl_packet_key;

/*
 * The kernel's own table of flows for whoever has read-only descriptors of its maps: what is shown
 * is what the programs use, whether a daemon has a record of it or not.
 */
struct sl_flow_row {
	uint64_t conn_id;
	char route[72];    /* "": its name is lost */
	const char *state; /* "starting", "active", "half_closed", "closed", "reset", "killed" */
	bool has_partner;  /* false: one of the two directions is missing */
	struct sl_broker_flow tuple;
	struct sl_addr client;          /* the real one */
	struct sl_addr via;             /* who connected for it; AF_UNSPEC: itself */
	uint64_t bytes[SL_SIDE_COUNT_]; /* by sending side, in the kernel */
	uint64_t packets[SL_SIDE_COUNT_];
	uint64_t relayed[SL_SIDE_COUNT_]; /* bytes before the hand-over */
	uint32_t drops[SL_SIDE_COUNT_];
	uint32_t ifindex[SL_SIDE_COUNT_]; /* where packets of that side leave */
	uint64_t idle_ms;
	uint64_t age_ms;
};

/* A walk over the table in slices; zeros but for `max` at its start. */
struct sl_flows_walk {
	size_t max;         /* rows at most */
	size_t n;           /* rows so far */
	bool more;          /* there are others */
	uint32_t cursor[2]; /* struct sl_packet_cursor */
};

/*
 * Calls `fn` for the flows of the next slice, in no order: 1 when the walk is over, 0: call again.
 * A slice is a few hundred entries, thus below a millisecond; flows that come and go between two of
 * them may be missed or met twice. `now_ns`: CLOCK_MONOTONIC.
 */
SL_MUST_CHECK int sl_flows_step(struct sl_flows_walk *walk, int flows_fd, int routes_fd,
				uint64_t now_ns,
				void (*fn)(void *arg, const struct sl_flow_row *row), void *arg);

/* The addresses of a flow, from the keys of both directions (bpf/abi.h). */
void sl_flows_tuple(const struct sl_packet_key *keys, struct sl_broker_flow *ret);

/* Every outcome of the programs by its name, in a fixed order; none when they cannot be read. */
int sl_flows_outcomes(int counters_fd, void (*fn)(void *arg, const char *name, uint64_t value),
		      void *arg);

#endif
