/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_DAEMON_CHILD_H
#define SL_DAEMON_CHILD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/list.h"
#include "daemon/channel.h"
#include "io/loop.h"

/*
 * A proxy or broker as the supervisor sees it: a process of its own, or with --single a thread.
 * Its messages and its end are reported; after the end it is freed by the receiver.
 */
enum sl_child_state {
	SL_CHILD_STARTING = 0, /* no READY yet */
	SL_CHILD_RUNNING,
	SL_CHILD_DRAINING, /* told to end */
	SL_CHILD_LOST,     /* closed its channel without being told to; its end will follow */
};

struct sl_child;

struct sl_child_end {
	bool is_clean; /* exit code 0 */
	char text[96]; /* "was killed by signal 11 (Segmentation fault)" */
};

struct sl_child_events {
	/* `fd`: of the message, borrowed; -1: none. */
	void (*message)(void *arg, struct sl_child *child, const struct sl_msg *msg, int fd);
	/*
	 * The channel of a process is closed although it was not told to end: it is dead or
	 * about to be killed, but how and when it ends is known later only.
	 */
	void (*lost)(void *arg, struct sl_child *child);
	void (*ended)(void *arg, struct sl_child *child, const struct sl_child_end *end);
	void *arg;
};

struct sl_child {
	struct sl_list node; /* the owner's */
	uint64_t serial;     /* the owner's */
	unsigned n_workers;  /* the owner's; of a proxy */
	bool has_commit;     /* the owner's; of a proxy: its workers can be given channels */
	enum sl_role role;
	enum sl_child_state state;
	struct sl_timer deadline; /* the owner's: for the current state */
	pid_t pid;                /* 0: a thread */
	int pidfd;
	struct sl_channel *channel;
	/* private */
	struct sl_loop *loop;
	const struct sl_child_events *events;
	struct sl_io pid_io;
	struct sl_task free_task;
	pthread_t thread;
	int thread_fd;
	int thread_code;
};

/* Starts `exe` as proxy or broker; the calling process has one thread. NULL: a thread of this one.
 */
SL_MUST_CHECK int sl_child_spawn(struct sl_loop *loop, enum sl_role role, const char *exe,
				 const struct sl_child_events *events, struct sl_child **ret);
/* A child of this process from before it replaced its program; takes over both descriptors. */
SL_MUST_CHECK int sl_child_adopt(struct sl_loop *loop, enum sl_role role, pid_t pid, int pidfd,
				 int channel_fd, const struct sl_child_events *events,
				 struct sl_child **ret);

void sl_child_send(struct sl_child *child, const struct sl_msg *msg, int fd);
void sl_child_send_owned(struct sl_child *child, const struct sl_msg *msg, int fd);
/* A copy of the descriptor, which may be closed before the message has left. */
void sl_child_send_copy(struct sl_child *child, const struct sl_msg *msg, int fd);
void sl_child_kill(struct sl_child *child); /* SIGKILL; its end is reported later */
void sl_child_free(struct sl_child *child); /* after its end */

#endif
