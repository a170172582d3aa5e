/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "io/pipe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>

#define MAX_SIZE (1 << 20)
#define MIN_SIZE (1 << 16) /* the kernel's default; asking for less gains nothing */
/* After so many pipes of a reduced size the limits may have changed. */
#define TRIES_REDUCED 256

struct sl_pipe_pool {
	int size; /* the largest that the limits allowed lately */
	unsigned n_reduced;
	size_t max_idle;
	size_t n_idle;
	struct sl_pipe idle[]; /* a stack: the one used last is warm */
};

int sl_pipe_pool_new(size_t max_idle, struct sl_pipe_pool **ret)
{
	struct sl_pipe_pool *pool;

	if (max_idle > SIZE_MAX / 2 / sizeof(pool->idle[0]))
		return -ENOMEM;
	pool = calloc(1, sizeof(*pool) + max_idle * sizeof(pool->idle[0]));
	if (!pool)
		return -ENOMEM;
	pool->size = MAX_SIZE;
	pool->max_idle = max_idle;
	*ret = pool;
	return 0;
}

static void close_pipe(struct sl_pipe *pipe)
{
	(void)close(pipe->rd);
	(void)close(pipe->wr);
	*pipe = SL_PIPE_NONE;
}

void sl_pipe_pool_free(struct sl_pipe_pool *pool)
{
	if (!pool)
		return;
	while (pool->n_idle > 0)
		close_pipe(&pool->idle[--pool->n_idle]);
	free(pool);
}

/*
 * EPERM: above fs.pipe-max-size, or the user's pipes together above
 * fs.pipe-user-pages-soft. The second can be so strict that not even the
 * default is granted, so the last word has F_GETPIPE_SZ.
 */
static size_t grow(struct sl_pipe_pool *pool, int fd)
{
	int size;

	if (pool->size < MAX_SIZE && ++pool->n_reduced >= TRIES_REDUCED) {
		pool->size = MAX_SIZE;
		pool->n_reduced = 0;
	}
	for (; pool->size > MIN_SIZE; pool->size /= 2) {
		size = fcntl(fd, F_SETPIPE_SZ, pool->size);
		if (size > 0)
			return (size_t)size;
	}
	size = fcntl(fd, F_GETPIPE_SZ);
	return size > 0 ? (size_t)size : 4096;
}

int sl_pipe_take(struct sl_pipe_pool *pool, struct sl_pipe *ret)
{
	int fd[2];

	if (pool->n_idle > 0) {
		*ret = pool->idle[--pool->n_idle];
		return 0;
	}
	if (pipe2(fd, O_NONBLOCK | O_CLOEXEC) < 0)
		return -errno;
	*ret = (struct sl_pipe){ .rd = fd[0], .wr = fd[1], .size = grow(pool, fd[1]) };
	return 0;
}

void sl_pipe_give(struct sl_pipe_pool *pool, struct sl_pipe *pipe)
{
	if (pipe->rd < 0)
		return;
	if (pipe->used > 0 || pool->n_idle == pool->max_idle) {
		close_pipe(pipe);
		return;
	}
	pool->idle[pool->n_idle++] = *pipe;
	*pipe = SL_PIPE_NONE;
}
