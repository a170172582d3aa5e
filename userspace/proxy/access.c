/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "proxy/access.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <time.h>

#include "base/log.h"

#define MAX_WAITING (4u << 20)

struct sl_access {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct sl_str waiting; /* under the lock, as all below */
	int fd;
	int next_fd; /* takes the place of `fd` when `has_next` */
	bool has_next;
	bool quit;
	uint64_t dropped;
};

/*
 * Never blocks for more than a second at a time: a pipe that poll() calls
 * writable takes PIPE_BUF bytes at once. A reader that does not read must not
 * keep the process from ending.
 */
static void write_all(struct sl_access *a, int fd, const struct sl_str *s)
{
	size_t done = 0;

	while (fd >= 0 && done < s->len) {
		struct pollfd p = { .fd = fd, .events = POLLOUT };
		size_t chunk = s->len - done < PIPE_BUF ? s->len - done : PIPE_BUF;
		ssize_t n;

		if (poll(&p, 1, 1000) == 0) {
			if (__atomic_load_n(&a->quit, __ATOMIC_RELAXED))
				return;
			continue;
		}
		n = write(fd, s->p + done, chunk);
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n <= 0)
			return; /* a full disk: the lines are lost, the service goes on */
		done += (size_t)n;
	}
}

static void *writer(void *arg)
{
	struct sl_access *a = arg;
	struct sl_str batch = { 0 };
	bool quit = false;

	while (!quit) {
		int old_fd = -1;

		(void)pthread_mutex_lock(&a->lock);
		while (!a->quit && !a->has_next && a->waiting.len == 0)
			(void)pthread_cond_wait(&a->wake, &a->lock);
		quit = a->quit;
		struct sl_str lines = a->waiting;
		a->waiting = batch;
		int fd = a->fd;
		if (a->has_next) {
			old_fd = fd;
			__atomic_store_n(&a->fd, a->next_fd, __ATOMIC_RELAXED);
			a->has_next = false;
		}
		(void)pthread_mutex_unlock(&a->lock);
		write_all(a, fd, &lines);
		sl_str_clear(&lines);
		batch = lines;
		sl_closep(&old_fd);
	}
	sl_str_done(&batch);
	return NULL;
}

int sl_access_new(int fd, struct sl_access **ret)
{
	struct sl_access *a = calloc(1, sizeof(*a));
	int r;

	if (!a)
		return -ENOMEM;
	a->fd = fd;
	(void)pthread_mutex_init(&a->lock, NULL);
	(void)pthread_cond_init(&a->wake, NULL);
	r = pthread_create(&a->thread, NULL, writer, a);
	if (r != 0) {
		free(a);
		return -r;
	}
	*ret = a;
	return 0;
}

void sl_access_free(struct sl_access *a)
{
	if (!a)
		return;
	(void)pthread_mutex_lock(&a->lock);
	__atomic_store_n(&a->quit, true, __ATOMIC_RELAXED);
	(void)pthread_cond_signal(&a->wake);
	(void)pthread_mutex_unlock(&a->lock);
	(void)pthread_join(a->thread, NULL);
	sl_str_done(&a->waiting);
	sl_closep(&a->fd);
	if (a->has_next)
		sl_closep(&a->next_fd);
	(void)pthread_cond_destroy(&a->wake);
	(void)pthread_mutex_destroy(&a->lock);
	free(a);
}

void sl_access_set_fd(struct sl_access *a, int fd)
{
	(void)pthread_mutex_lock(&a->lock);
	if (a->has_next)
		sl_closep(&a->next_fd);
	a->next_fd = fd;
	a->has_next = true;
	(void)pthread_cond_signal(&a->wake);
	(void)pthread_mutex_unlock(&a->lock);
}

bool sl_access_is_on(const struct sl_access *a)
{
	return __atomic_load_n(&a->fd, __ATOMIC_RELAXED) >= 0;
}

void sl_access_add(struct sl_access *a, const struct sl_str *lines)
{
	(void)pthread_mutex_lock(&a->lock);
	if (a->waiting.len + lines->len <= MAX_WAITING)
		sl_str_add(&a->waiting, lines->p, lines->len);
	else
		__atomic_fetch_add(&a->dropped, lines->len, __ATOMIC_RELAXED);
	(void)pthread_cond_signal(&a->wake);
	(void)pthread_mutex_unlock(&a->lock);
}

uint64_t sl_access_dropped(const struct sl_access *a)
{
	return __atomic_load_n(&a->dropped, __ATOMIC_RELAXED);
}
