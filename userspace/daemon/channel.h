/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_DAEMON_CHANNEL_H
#define SL_DAEMON_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "io/loop.h"

/*
 * What supervisor and proxy say to each other: fixed-size messages over a
 * SOCK_SEQPACKET pair, each with exactly the number of descriptors its type
 * has. A message of another size, type, number of descriptors, or cut short
 * by the kernel is -EBADMSG, and whoever sent it is not talked to any more.
 */
#define SL_PROTOCOL 2

enum sl_msg_type {
	/* from the supervisor */
	SL_MSG_OPTIONS = 1, /* first message: who you are */
	SL_MSG_FACTS,       /* what the control interface shows */
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
	SL_MSG_DRAIN,     /* flag: accept the queues empty first */
	SL_MSG_STOP,      /* end now */
	/* from the proxy */
	SL_MSG_READY,
	SL_MSG_PREPARED,
	SL_MSG_APPLIED,
	SL_MSG_FAILED,  /* text */
	SL_MSG_REQUEST, /* id: chosen by the proxy; flag: enum sl_ctl_request */
	SL_MSG_CHANGE,  /* as REQUEST; fd: what daemon/overlay.h packs */
	SL_MSG_COUNT_,
};

/* The identity and limits of a new proxy process. */
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
bool sl_msg_is_from_proxy(uint32_t type);

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

/* Takes over `fd`, also on failure. `from_proxy`: which types are accepted. */
int sl_channel_new(struct sl_loop *loop, int fd, bool from_proxy, sl_channel_fn fn, void *arg,
		   struct sl_channel **ret);
void sl_channel_free(struct sl_channel *ch); /* callable from the callback */

/* The descriptor must stay open until it is sent. -EPIPE or -ENOMEM: not sent, never will be. */
int sl_channel_send(struct sl_channel *ch, const struct sl_msg *msg, int fd);
/* As above; takes over the descriptor, also on failure. */
int sl_channel_send_owned(struct sl_channel *ch, const struct sl_msg *msg, int fd);
bool sl_channel_is_flushed(const struct sl_channel *ch); /* nothing queued here */
int sl_channel_fd(const struct sl_channel *ch);          /* borrowed */

#endif
