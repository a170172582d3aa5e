/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BROKER_WIRE_H
#define SL_BROKER_WIRE_H

#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "core/reason.h"

/*
 * What proxy and broker say to each other: one SOCK_SEQPACKET channel per worker and one for
 * the control thread, fixed-size messages, each with exactly the number of descriptors its type
 * has. Another size, type, number of descriptors or one cut short is -EBADMSG, and the broker
 * closes the channel of whoever sent it. Nothing in a request is believed that can be asked of a
 * socket.
 */
enum sl_broker_type {
	/* from a worker */
	SL_BROKER_HANDOVER = 1, /* fds: client's socket, backend's socket */
	SL_BROKER_RESOLVE,      /* the same, when a broker died before it answered */
	SL_BROKER_KILL,  /* reset both sides; flag 0: the record is over already; 1: ENDED is to be
			  * told */
	SL_BROKER_PROBE, /* are the peers still there? Live ones answer, which moves last_ns */
	SL_BROKER_RELEASE, /* this process ends, the flow does not: the next one is told of it */
	SL_BROKER_ADOPTED, /* flag 1: it has a record now; 0: it cannot have one, to be killed; 2:
			    * its route is unknown, likewise */
	/* from the control thread */
	SL_BROKER_FLUSH, /* kill and remove every flow; answered by FLUSHED */
	/* from the broker */
	SL_BROKER_HELLO,  /* first on each channel; fds: flows, counters, routes (read-only), freeze
			   */
	SL_BROKER_RESULT, /* of HANDOVER and RESOLVE */
	SL_BROKER_CHANGED, /* look at the flow: FIN, RST, or gone */
	SL_BROKER_ENDED,   /* the flow is over; see end */
	SL_BROKER_ADOPT,   /* a flow without a record; answered by ADOPTED */
	SL_BROKER_FLUSHED,
	SL_BROKER_STATUS, /* to the control thread, when it has changed */
	/* flows of the kernel's NAT; conn_id is a serial of the broker's: SL_BROKER_NAT_FLOW */
	SL_BROKER_NAT_KILL,    /* from a worker: delete its entry and reset both sides */
	SL_BROKER_NAT_TARGET,  /* from the control thread; flag 1: down by health checks, 0: up */
	SL_BROKER_NAT_FLOW,    /* from the broker to a worker: begun, changed, ended */
	SL_BROKER_NAT_STATUS,  /* from the broker to the control thread, when it has changed */
	SL_BROKER_NAT_WORRIES, /* likewise: a part of a text; flag: how long that is */
	/* from the broker to a worker, once: it has been told of every flow that the kernel has */
	SL_BROKER_NAT_TOLD,
	/* sockmap */
	SL_BROKER_SOCKMAP_LEAVE, /* from a worker: the connection is over; flag: its pair */
	SL_BROKER_SOCKMAP_HELD,  /* likewise, to a new broker: it has the connection; flag: its pair
				  */
	/* from the broker, on each channel; fds: slots, orders (to write), flows, counters */
	SL_BROKER_SOCKMAP_HELLO,
	SL_BROKER_SOCKMAP_STATUS, /* to the control thread, when it has changed */
	/* differences between kernel and records */
	SL_BROKER_DIFF, /* from the control thread: look at everything; answered by DIFF_TEXT */
	SL_BROKER_DIFF_TEXT, /* a part of a text; flag: how long that is */
	SL_BROKER_DRIFT,     /* to the control thread, when it has changed */
	SL_BROKER_TYPE_COUNT_,
};

/*
 * Bits of CHANGED's flag, about a connection of the sockmap engine: a socket of it is no longer in
 * the kernel's maps; bit of enum sl_sockmap_side: that one is in none of them.
 */
#define SL_BROKER_SOCKMAP_LOST UINT32_C(4)
#define SL_BROKER_SOCKMAP_SIDES UINT32_C(3) /* both of them */
#define SL_BROKER_SOCKMAP_PAIR_SHIFT 8      /* the pair, above them */

/* Configurations that a broker remembers, because connections outlive theirs. */
#define SL_BROKER_GENERATIONS 8

struct sl_broker_handover {
	uint64_t generation; /* whose route it is */
	uint32_t route;      /* index among that configuration's routes */
	uint32_t is_frozen;  /* the caller has attached the freeze filter and keeps it if refused */
	struct sl_addr client; /* the real one, for the record alone */
	struct sl_addr via;
	uint64_t accepted_us;             /* CLOCK_MONOTONIC */
	uint64_t relayed[SL_SIDE_COUNT_]; /* bytes so far, by sending side */
	uint32_t connect_us;
	uint32_t target_hash; /* sl_target_hash() */
	uint32_t to_sockmap;  /* 0: to the packet engine */
};

struct sl_broker_result {
	uint32_t why; /* enum sl_engine_reason: ELIGIBLE: it is in the kernel now, close the sockets
		       */
	uint32_t is_final;  /* asking again for this connection is pointless */
	uint32_t has_holes; /* not quiet, and segments are missing: do not freeze now */
	uint32_t pair;      /* of the sockmap engine, where that has taken it */
};

/* The key of the client's direction, as in bpf/abi.h. */
struct sl_broker_flow {
	struct sl_addr client; /* the tuples themselves: who connected, to what, */
	struct sl_addr front;
	struct sl_addr back; /* from what, to what */
	struct sl_addr backend;
};

enum sl_broker_end {
	SL_BROKER_END_CLOSED = 0, /* both FINs are acknowledged */
	SL_BROKER_END_RST_CLIENT, /* the client has sent a RST */
	SL_BROKER_END_RST_BACKEND,
	SL_BROKER_END_LOST,   /* its entries are gone: someone has deleted them */
	SL_BROKER_END_LATE,   /* data arrived at our sockets after the hand-over: both sides were
				 reset */
	SL_BROKER_END_BROKEN, /* packets of it could not be forwarded for long: both sides were
				 reset */
	SL_BROKER_END_KILLED, /* by FLUSH or another broker's order */
};
struct sl_broker_ended {
	uint32_t how; /* enum sl_broker_end */
	uint32_t pad;
	uint64_t bytes[SL_SIDE_COUNT_]; /* in the kernel, by sending side; the final count */
	uint64_t last_data_ns;
};

struct sl_broker_status {
	uint32_t is_on;   /* hand-overs are possible */
	uint32_t why;     /* else: enum sl_engine_reason of every refusal */
	uint32_t n_flows; /* entries in the map, halved */
	uint32_t n_live;  /* flows that are not over */
	uint32_t n_held;  /* over, entries kept for late packets */
	uint32_t max_flows;
	uint32_t adopted;      /* at the start of this broker */
	uint32_t dropped;      /* at that start */
	uint32_t repaired;     /* links, pins, entries put back since then */
	uint32_t orphans;      /* entries without a record now */
	uint32_t n_interfaces; /* attached */
	uint32_t n_failed;     /* interfaces that could not be attached to, or are not there */
	uint16_t port_from;
	uint16_t port_to;
	char text[120]; /* "tcx on 3 interfaces"; or "off: " and why */
	/* The first ones of those that are attached, each followed by a blank, as many as fit. */
	char interfaces[64];
};

struct sl_broker_sockmap_status {
	uint32_t is_on;
	uint32_t why;       /* else: enum sl_engine_reason of every refusal */
	uint32_t n_sockets; /* in the kernel's maps */
	uint32_t n_orphans; /* connections of them that no proxy has a record of */
	uint32_t repaired;  /* entries, pins put back since the start of this broker */
	uint32_t dropped;   /* entries of sockets that were gone, removed since then */
	char text[120];     /* "on, room for N sockets"; or "off: " and why */
};

struct sl_broker_nat_target {
	char route[72]; /* names as in the configuration */
	char target[160];
};

/*
 * All that is known of a flow of the kernel's NAT, each time. What a broker tells is told again,
 * as adopted, to a proxy that comes later; the same flow has the same addresses and start_ns then,
 * but after a restart of the broker another serial. When a flow began the kernel says only in dumps
 * and at the end, and only if nf_conntrack_timestamp was set then; before that it is rough, and
 * each broker's own.
 */
struct sl_broker_nat_flow {
	char route[72];
	struct sl_addr client;
	struct sl_addr front;
	struct sl_addr backend;
	uint64_t start_ns; /* since 1970; see is_rough */
	uint64_t end_ns;   /* with is_over: its last packet, as far as that can be told */
	uint64_t bytes[SL_SIDE_COUNT_]; /* by sending side, IP headers included, as conntrack counts
					 */
	uint8_t is_udp;
	uint8_t is_over;
	uint8_t is_adopted;     /* not seen from its begin, or told of that before */
	uint8_t is_established; /* TCP: both have spoken; UDP: an answer was seen */
	uint8_t reason;         /* with is_over: enum sl_reason */
	uint8_t is_rough;       /* start_ns is when that broker first heard of it, no earlier */
	uint8_t pad[2];
};

/*
 * Which worker has its record: always the same, whatever broker tells of it, because serials are
 * each broker's own.
 */
unsigned sl_broker_nat_worker(const struct sl_broker_nat_flow *f, unsigned n_workers);

struct sl_broker_nat_status {
	uint32_t is_on;    /* the table is in the kernel and as wanted */
	uint32_t n_routes; /* in it */
	uint32_t n_flows;  /* with records, not over */
	uint32_t adopted;  /* flows found by this broker */
	uint32_t repairs;  /* of the table, after somebody else had changed it */
	uint32_t resyncs;  /* records set right by a dump after events were lost */
	uint32_t ct_count; /* nf_conntrack_count, */
	uint32_t ct_max;   /* and _max, when last looked at */
	uint32_t lag_ms;   /* what is told of flows that live may be that old */
	char text[200];    /* "12 routes in table inet sluice"; or "off: " and why */
};

/*
 * Lines, in as many messages as it takes, in order. The first one of a text is `at` 0; a text of no
 * bytes is one message, too. No control characters but the newlines; behind the end of the text
 * zeros.
 */
struct sl_broker_part {
	uint32_t at; /* of the first byte of `text` in the whole */
	char text[232];
};

/* Why flows of the kernel's NAT may not arrive, and what to do about it: a line each. */
#define SL_BROKER_WORRIES 16                                                  /* lines */
#define SL_BROKER_WORRY_MAX 800                                               /* bytes of one */
#define SL_BROKER_WORRIES_MAX (SL_BROKER_WORRIES * (SL_BROKER_WORRY_MAX + 1)) /* of all */

/* Of a look: the lines are those of broker/diff.h. */
#define SL_BROKER_DIFF_MAX (160 * 1024) /* bytes of all */

/* How many were found since the start of this broker, by enum sl_drift_kind. */
#define SL_BROKER_DRIFT_KINDS 28
struct sl_broker_drift {
	uint64_t count[SL_BROKER_DRIFT_KINDS];
};

struct sl_broker_msg {
	uint32_t type; /* enum sl_broker_type */
	uint32_t flag;
	uint64_t conn_id;
	union {
		struct sl_broker_handover handover;
		struct sl_broker_result result;
		struct sl_broker_flow flow;
		struct sl_broker_ended ended;
		struct sl_broker_status status;
		struct sl_broker_nat_target nat_target;
		struct sl_broker_nat_flow nat_flow;
		struct sl_broker_nat_status nat_status;
		struct sl_broker_part nat_worries;
		struct sl_broker_sockmap_status sockmap_status;
		struct sl_broker_part diff_text;
		struct sl_broker_drift drift;
		char room[240];
	};
};
_Static_assert(sizeof(struct sl_broker_msg) == 256,
	       "both binaries of an upgrade agree on the size");

#define SL_BROKER_MAX_FDS 4

/* Descriptors that travel with a type; -1 for an unknown one. */
int sl_broker_n_fds(uint32_t type);
bool sl_broker_is_request(uint32_t type); /* comes from a proxy */

/*
 * Both are pure checks of a whole received datagram: -EBADMSG unless size, type, direction, number
 * of descriptors, and every enum and address in it are such as the sender may send. Fuzzed.
 */
SL_MUST_CHECK int sl_broker_check_request(const void *bytes, size_t n, size_t n_fds);
SL_MUST_CHECK int sl_broker_check_reply(const void *bytes, size_t n, size_t n_fds);

/*
 * Keeps the descriptors. -EAGAIN: the other side is busy; -EPIPE: it is gone; -EINVAL: the other
 * side would refuse the message. Never blocks.
 */
SL_MUST_CHECK int sl_broker_send(int sock, const struct sl_broker_msg *msg, const int *fds,
				 size_t n_fds);
/*
 * `fds` has room for SL_BROKER_MAX_FDS; those received belong to the caller, the rest is -1. With
 * an error none is left open. -EAGAIN: nothing there; -EPIPE: closed; -EBADMSG as above. -EMFILE:
 * this process had no room for the descriptors of a request, which is in *ret all the same.
 */
SL_MUST_CHECK int sl_broker_recv(int sock, bool requests, struct sl_broker_msg *ret,
				 int fds[SL_BROKER_MAX_FDS]);
/* Closes what was received, -1 being none, and waits for no socket of it. */
void sl_broker_close_fds(int fds[SL_BROKER_MAX_FDS]);
/* Closes a channel and what nobody has read from it, as above. */
void sl_broker_hang_up(int sock);

#endif
