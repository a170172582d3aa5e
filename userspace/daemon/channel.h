/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_DAEMON_CHANNEL_H
#define SL_DAEMON_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "io/loop.h"

/*
 * What the supervisor and the processes it starts say to each other: fixed-size messages over a
 * SOCK_SEQPACKET pair, each with exactly the number of descriptors its type
 * has. A message of another size, type, number of descriptors, or cut short
 * by the kernel is -EBADMSG, and whoever sent it is not talked to any more.
 */
#define SL_PROTOCOL 5

/* The processes of the daemon, with --single its threads. */
enum sl_role {
	SL_ROLE_SUPERVISOR = 0,
	SL_ROLE_PROXY,
	SL_ROLE_BROKER,
	SL_ROLE_COUNT_,
};
const char *sl_role_name(enum sl_role role); /* "proxy" */

enum sl_msg_type {
	/* from the supervisor */
	SL_MSG_OPTIONS = 1, /* first message: who you are */
	SL_MSG_FACTS,       /* what the control interface shows; id: the broker's pid, 0: none */
	/* id: generation; fd: bundle; flag: its files of the system are those of the last one;
	 * opens a change */
	SL_MSG_CONFIG,
	SL_MSG_LISTENER,  /* part of the change; fd: listening socket */
	SL_MSG_REMOVE,    /* part of the change; id: listener to give up */
	SL_MSG_HTTP,      /* part of the change; fd: new listening socket of global.http */
	SL_MSG_NO_HTTP,   /* part of the change: global.http is off */
	SL_MSG_CONTROL,   /* before the first change; fd: listening Unix socket */
	SL_MSG_ACCESS,    /* any time; fd: where access lines go from now on */
	SL_MSG_NO_ACCESS, /* any time */
	SL_MSG_PREPARE,   /* answer PREPARED or FAILED, change nothing yet */
	SL_MSG_ABORT,     /* forget the change */
	SL_MSG_COMMIT,    /* make the change; answer APPLIED (READY the first time) */
	SL_MSG_REPLY,     /* id: of the REQUEST; flag: it worked; fd: sealed text */
	SL_MSG_DENY,      /* any time after OPTIONS; fd: sealed set of denied addresses */
	SL_MSG_DENIED,    /* any time; fd: page of counters of the kernel's drops, read-only */
	/* flag: accept the queues empty first; the broker ends and leaves the kernel as it is */
	SL_MSG_DRAIN,
	SL_MSG_STOP, /* end now; the broker takes everything out of the kernel first */
	/* after the first COMMIT; id: worker; flag: n_workers; fd: its channel to the broker. A
	 * worker n_workers is the control thread. Replaces the one before */
	SL_MSG_BROKER,
	SL_MSG_NO_BROKER, /* any time after OPTIONS; text: why there is none */
	/* to the broker, the first after OPTIONS and then any time; id: generation; flag: if it is
	 * off another one may be on; fd: what broker/policy.h packs */
	SL_MSG_POLICY,
	/* to the broker; id: the proxy's serial; flag: SL_MSG_WORKER_FLAG(); fd: the other end of
	 * BROKER */
	SL_MSG_WORKER,
	/* from the proxy; READY and FAILED from the broker, too */
	SL_MSG_READY, /* the broker's has a text, and flag: it can hand over; again when that
			 changes */
	SL_MSG_PREPARED,
	SL_MSG_APPLIED,
	SL_MSG_FAILED,  /* text; the broker's flag: the next one can, and is to be started */
	SL_MSG_REQUEST, /* id: chosen by the proxy; flag: enum sl_ctl_request */
	SL_MSG_CHANGE,  /* as REQUEST; fd: what daemon/overlay.h packs */
	/* from the broker; id: of the last NAT; flag: it is in force; text: the status. Again when
	 * that changes */
	SL_MSG_NAT_STATE,
	/* from the supervisor: */
	/* to the broker, once before the first POLICY and then any time; id: never used twice; fd:
	 * what broker/nat_plan.h packs */
	SL_MSG_NAT,
	/* part of the change, or (flag 1) any time after it; fd: what tls/material.h packs */
	SL_MSG_MATERIALS,
	SL_MSG_TICKETS, /* any time after OPTIONS; fd: daemon/ticket_keys.h */
	SL_MSG_COUNT_,
};
/* A program of another protocol says so by it; new types come last. */
_Static_assert(SL_MSG_OPTIONS == 1 && SL_MSG_READY == 23 && SL_MSG_FAILED == 26,
	       "these have the same number in every version");

/* Which channel of a proxy: `worker` of `n_workers`, each at most SL_MSG_WORKERS_MAX. */
#define SL_MSG_WORKERS_MAX 0xffffu
#define SL_MSG_WORKER_FLAG(worker, n_workers) ((uint32_t)(worker) << 16 | (uint32_t)(n_workers))

/* The identity and limits of a new process; the broker keeps its identity, uid is the proxy's. */
struct sl_msg_options {
	uint32_t protocol;   /* SL_PROTOCOL */
	int32_t supervisor;  /* process id */
	uint32_t n_workers;  /* at least 1 */
	uint32_t uid;        /* UINT32_MAX: unchanged */
	uint32_t gid;        /* UINT32_MAX: unchanged */
	uint32_t is_single;  /* a thread of the supervisor: keep identity, install no filter */
	uint32_t channel_fd; /* number to move the channel to; 0: leave it */
	uint16_t log_level;  /* until the configuration says it */
	uint16_t log_json;
	uint64_t first_conn_id;
	uint64_t started_ms; /* of the supervisor, monotonic */
};

struct sl_msg_facts {
	double last_reload_unix; /* 0: never reloaded */
	uint32_t last_reload_ok;
	uint32_t deny_patterns; /* of deny_file */
	uint32_t guard_ranges;
	uint32_t guard_interfaces;
	char steering[104];
	char guard[112];
};

struct sl_msg_listener {
	struct sl_addr ip;
	uint16_t from;
	uint16_t to;
};

struct sl_msg_ready {
	uint32_t state_version; /* of the supervisor's state this binary can resume */
	char version[32];
};

struct sl_msg {
	uint32_t type; /* enum sl_msg_type */
	uint32_t flag;
	uint64_t id;
	union {
		struct sl_msg_options options;
		struct sl_msg_facts facts;
		struct sl_msg_listener listener;
		struct sl_msg_ready ready;
		char text[240]; /* NUL-terminated by the receiver */
	};
};
_Static_assert(sizeof(struct sl_msg) == 256, "both binaries of an upgrade agree on the size");

/* Descriptors that travel with a type: 0 or 1; -1 for an unknown type. */
int sl_msg_n_fds(uint32_t type);
bool sl_msg_may_come_from(uint32_t type, enum sl_role sender);

int sl_channel_pair(int ret[2]); /* close-on-exec, non-blocking */

/* One message; `fd` is -1 for types without. Keeps the descriptor. -EAGAIN: later. */
SL_MUST_CHECK int sl_msg_send(int sock, const struct sl_msg *msg, int fd);
/* `*ret_fd` is owned, -1 for types without. -EPIPE: the other side closed. -EAGAIN: nothing there.
 */
SL_MUST_CHECK int sl_msg_recv(int sock, struct sl_msg *ret, int *ret_fd);

/*
 * The channel on a loop. What does not fit into the socket is queued here, so sending never
 * blocks whatever the other side does; the queue is bounded by what the configuration needs.
 */
struct sl_channel;

/*
 * `err` 0: a message; its descriptor passes to the receiver. Else the channel has ended
 * (-EPIPE closed, -EBADMSG protocol violated) and nothing more will come; may free it.
 */
typedef void (*sl_channel_fn)(void *arg, int err, const struct sl_msg *msg, int fd);

/* Takes over `fd`, also on failure. `peer`: who is on the other side, and so may say what. */
int sl_channel_new(struct sl_loop *loop, int fd, enum sl_role peer, sl_channel_fn fn, void *arg,
		   struct sl_channel **ret);
void sl_channel_free(struct sl_channel *ch); /* callable from the callback */

/* The descriptor must stay open until it is sent. -EPIPE or -ENOMEM: not sent, never will be. */
int sl_channel_send(struct sl_channel *ch, const struct sl_msg *msg, int fd);
/* As above; takes over the descriptor, also on failure. */
int sl_channel_send_owned(struct sl_channel *ch, const struct sl_msg *msg, int fd);
bool sl_channel_is_flushed(const struct sl_channel *ch); /* nothing queued here */
int sl_channel_fd(const struct sl_channel *ch);          /* borrowed */

#endif
