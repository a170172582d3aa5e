/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "proxy/access.h"

#include <errno.h>
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

/* At the end of the process a reader that does not read must not keep it. */
static bool can_write(int fd, bool is_last)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };

	return !is_last || poll(&p, 1, 1000) > 0;
}

static void write_all(int fd, const struct sl_str *s, bool is_last)
{
	size_t done = 0;

	while (fd >= 0 && done < s->len && can_write(fd, is_last)) {
		ssize_t n = write(fd, s->p + done, s->len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			struct pollfd p = { .fd = fd, .events = POLLOUT };

			(void)poll(&p, 1, 1000);
			continue;
		}
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
		write_all(fd, &lines, quit);
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
	a->quit = true;
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
