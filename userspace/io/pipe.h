/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_IO_PIPE_H
#define SL_IO_PIPE_H

#include <stddef.h>

#include "base/cleanup.h"

/*
 * Pipes for splice(2), reused because making one with a large buffer costs
 * several microseconds. A pool belongs to one thread. It opens no file.
 */
struct sl_pipe_pool;

/* Taken: owned by the caller, who keeps `used` right. Nothing taken: rd and wr are -1. */
struct sl_pipe {
	int rd;
	int wr;
	size_t size; /* bytes the kernel gave */
	size_t used; /* bytes inside */
};

#define SL_PIPE_NONE ((struct sl_pipe){ .rd = -1, .wr = -1 })

/* Keeps at most `max_idle` empty pipes open. */
SL_MUST_CHECK int sl_pipe_pool_new(size_t max_idle, struct sl_pipe_pool **ret);
void sl_pipe_pool_free(struct sl_pipe_pool *pool); /* accepts NULL; not the pipes taken */
SL_DEFINE_CLEANUP(struct sl_pipe_pool, sl_pipe_pool_free);

/*
 * A non-blocking, empty pipe of 1 MiB, or of what the limits of the system and
 * the user allow. -EMFILE, -ENFILE as pipe2(2).
 */
SL_MUST_CHECK int sl_pipe_take(struct sl_pipe_pool *pool, struct sl_pipe *ret);

/* Sets `pipe` to SL_PIPE_NONE. One that holds bytes is closed, which drops them. */
void sl_pipe_give(struct sl_pipe_pool *pool, struct sl_pipe *pipe);

#endif
