/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "io/loop.h"

#include <errno.h>
#include <limits.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "base/clock.h"
#include "io/wheel.h"

_Static_assert(SL_IO_IN == (int)EPOLLIN && SL_IO_OUT == (int)EPOLLOUT &&
		       SL_IO_ERR == (int)EPOLLERR && SL_IO_HUP == (int)EPOLLHUP &&
		       SL_IO_RDHUP == (int)EPOLLRDHUP && SL_IO_EXCLUSIVE == (int)EPOLLEXCLUSIVE &&
		       (unsigned)SL_IO_EDGE == (unsigned)EPOLLET,
	       "the bits are the kernel's");

#define BATCH 256
/* A task that defers itself again and again must not keep the loop from its descriptors. */
#define MAX_DEFER_ROUNDS 16
/* After a turn with more events than this the turn's time is too old to sleep by. */
#define BRIEF_TURN 16
#define BUSY_TURN 4

struct sl_loop {
	int epoll_fd;
	uint32_t turn;
	uint64_t now_us;
	size_t n_events; /* of the last turn */
	struct sl_list deferred;
	struct sl_list again;
	struct sl_io wake; /* eventfd, edge-triggered and therefore never read */
	bool quit;         /* atomic */

	pthread_mutex_t lock; /* guards the rest of this block */
	struct sl_list mailbox;
	bool has_ended;

	struct sl_wheel wheel;
	struct epoll_event events[BATCH];
};

static void run_list(struct sl_list *tasks)
{
	while (!sl_list_is_empty(tasks)) {
		struct sl_task *task = SL_CONTAINER_OF(tasks->next, struct sl_task, node);

		sl_list_remove(&task->node);
		task->is_queued = false;
		task->fn(task);
	}
}

static void run_mailbox(struct sl_loop *loop)
{
	struct sl_list tasks;

	sl_list_init(&tasks);
	(void)pthread_mutex_lock(&loop->lock);
	sl_list_splice(&tasks, &loop->mailbox);
	(void)pthread_mutex_unlock(&loop->lock);
	run_list(&tasks);
}

static void run_deferred(struct sl_loop *loop)
{
	struct sl_list tasks;

	sl_list_init(&tasks);
	for (int i = 0; i < MAX_DEFER_ROUNDS && !sl_list_is_empty(&loop->deferred); i++) {
		sl_list_splice(&tasks, &loop->deferred);
		run_list(&tasks);
	}
}

/* From here on nothing more is accepted, and everything accepted is run. */
static void end(struct sl_loop *loop)
{
	(void)pthread_mutex_lock(&loop->lock);
	loop->has_ended = true;
	(void)pthread_mutex_unlock(&loop->lock);
	run_mailbox(loop);
	run_deferred(loop);
}

static void on_wake(struct sl_io *io, uint32_t events)
{
	(void)events;
	run_mailbox(io->loop);
}

static void wake(struct sl_loop *loop)
{
	const uint64_t one = 1;

	/* Fails only when the counter is full, and then a wake-up is pending. */
	if (write(loop->wake.fd, &one, sizeof(one)) < 0)
		return;
}

int sl_loop_new(struct sl_loop **ret)
{
	struct sl_loop *loop = calloc(1, sizeof(*loop));
	int r;

	if (!loop)
		return -ENOMEM;
	loop->now_us = sl_clock_us();
	loop->wake.fd = -1;
	sl_list_init(&loop->deferred);
	sl_list_init(&loop->again);
	sl_list_init(&loop->mailbox);
	sl_wheel_init(&loop->wheel, loop->now_us / 1000);
	(void)pthread_mutex_init(&loop->lock, NULL); /* cannot fail without attributes */
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (loop->epoll_fd < 0) {
		r = -errno;
		sl_loop_free(loop);
		return r;
	}
	r = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (r < 0) {
		r = -errno;
		sl_loop_free(loop);
		return r;
	}
	loop->wake.fd = r;
	r = sl_io_start(loop, &loop->wake, loop->wake.fd, SL_IO_IN | SL_IO_EDGE, on_wake);
	if (r < 0) {
		sl_loop_free(loop);
		return r;
	}
	*ret = loop;
	return 0;
}

void sl_loop_free(struct sl_loop *loop)
{
	if (!loop)
		return;
	end(loop);
	while (!sl_list_is_empty(&loop->again))
		sl_task_cancel(SL_CONTAINER_OF(loop->again.next, struct sl_task, node));
	sl_wheel_clear(&loop->wheel);
	if (loop->wake.fd >= 0)
		(void)close(loop->wake.fd);
	if (loop->epoll_fd >= 0)
		(void)close(loop->epoll_fd);
	(void)pthread_mutex_destroy(&loop->lock);
	free(loop);
}

/* Milliseconds for epoll_wait(): not longer than `max_ms` unless that is -1. */
static int wait_time(struct sl_loop *loop, int max_ms)
{
	uint64_t next_ms;
	uint64_t now_ms;

	if (max_ms == 0 || !sl_list_is_empty(&loop->again) || !sl_list_is_empty(&loop->deferred))
		return 0;
	next_ms = sl_wheel_next(&loop->wheel);
	if (next_ms == UINT64_MAX)
		return max_ms;
	if (loop->n_events > BRIEF_TURN)
		loop->now_us = sl_clock_us();
	now_ms = loop->now_us / 1000;
	if (next_ms <= now_ms)
		return 0;
	if (next_ms - now_ms > INT_MAX)
		return max_ms < 0 ? INT_MAX : max_ms;
	if (max_ms >= 0 && next_ms - now_ms > (uint64_t)max_ms)
		return max_ms;
	return (int)(next_ms - now_ms);
}

static void dispatch(struct sl_loop *loop, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct sl_io *io = loop->events[i].data.ptr;

		/* The second test: stopped and started again by another callback of this turn. */
		if (io->fn && io->turn != loop->turn)
			io->fn(io, loop->events[i].events);
	}
}

static void run_timers(struct sl_list *due)
{
	while (!sl_list_is_empty(due)) {
		struct sl_timer *timer = SL_CONTAINER_OF(due->next, struct sl_timer, node);
		sl_timer_fn fn = timer->fn;

		sl_timer_stop(timer);
		fn(timer);
	}
}

int sl_loop_turn(struct sl_loop *loop, int max_wait_ms)
{
	struct sl_list again;
	struct sl_list due;
	int n;

	n = epoll_wait(loop->epoll_fd, loop->events, BATCH, wait_time(loop, max_wait_ms));
	if (n < 0 && errno != EINTR)
		return -errno;
	loop->now_us = sl_clock_us();
	loop->turn++;
	loop->n_events = n > 0 ? (size_t)n : 0;
	/* Taken before any callback: what is started by one belongs to the next turn. */
	sl_list_init(&again);
	sl_list_splice(&again, &loop->again);
	sl_list_init(&due);
	sl_wheel_advance(&loop->wheel, loop->now_us / 1000, &due);
	dispatch(loop, loop->n_events);
	run_timers(&due);
	run_list(&again);
	run_deferred(loop);
	return 0;
}

int sl_loop_run(struct sl_loop *loop)
{
	int r = 0;

	while (r == 0 && !__atomic_load_n(&loop->quit, __ATOMIC_ACQUIRE))
		r = sl_loop_turn(loop, -1);
	end(loop);
	return r;
}

void sl_loop_quit(struct sl_loop *loop)
{
	__atomic_store_n(&loop->quit, true, __ATOMIC_RELEASE);
	wake(loop);
}

uint64_t sl_loop_now_ms(const struct sl_loop *loop)
{
	return loop->now_us / 1000;
}

bool sl_loop_is_busy(const struct sl_loop *loop)
{
	return loop->n_events > BUSY_TURN;
}

uint64_t sl_loop_now_us(const struct sl_loop *loop)
{
	(void)loop;
	return sl_clock_us();
}

static int control(const struct sl_loop *loop, int op, struct sl_io *io, int fd, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = io };

	return epoll_ctl(loop->epoll_fd, op, fd, &ev) < 0 ? -errno : 0;
}

int sl_io_start(struct sl_loop *loop, struct sl_io *io, int fd, uint32_t events, sl_io_fn fn)
{
	int r = control(loop, EPOLL_CTL_ADD, io, fd, events);

	if (r == 0)
		*io = (struct sl_io){ .fd = fd, .turn = loop->turn, .fn = fn, .loop = loop };
	return r;
}

int sl_io_change(struct sl_io *io, uint32_t events)
{
	return control(io->loop, EPOLL_CTL_MOD, io, io->fd, events);
}

void sl_io_stop(struct sl_io *io)
{
	if (!io->fn)
		return;
	io->fn = NULL;
	(void)control(io->loop, EPOLL_CTL_DEL, io, io->fd, 0); /* fails only if it is not there */
}

void sl_io_forget(struct sl_io *io)
{
	io->fn = NULL;
}

void sl_timer_start(struct sl_loop *loop, struct sl_timer *timer, uint64_t at_ms, sl_timer_fn fn)
{
	sl_timer_stop(timer);
	timer->at_ms = at_ms;
	timer->fn = fn;
	sl_wheel_add(&loop->wheel, timer);
}

void sl_timer_stop(struct sl_timer *timer)
{
	if (!timer->fn)
		return;
	timer->fn = NULL;
	sl_list_remove(&timer->node);
}

static void queue(struct sl_list *tasks, struct sl_task *task, sl_task_fn fn)
{
	sl_task_cancel(task);
	task->fn = fn;
	task->is_queued = true;
	sl_list_add(tasks, &task->node);
}

void sl_loop_defer(struct sl_loop *loop, struct sl_task *task, sl_task_fn fn)
{
	queue(&loop->deferred, task, fn);
}

void sl_loop_again(struct sl_loop *loop, struct sl_task *task, sl_task_fn fn)
{
	queue(&loop->again, task, fn);
}

void sl_task_cancel(struct sl_task *task)
{
	if (!task->is_queued)
		return;
	task->is_queued = false;
	sl_list_remove(&task->node);
}

bool sl_loop_post(struct sl_loop *loop, struct sl_task *task, sl_task_fn fn)
{
	bool was_empty;

	(void)pthread_mutex_lock(&loop->lock);
	if (loop->has_ended) {
		(void)pthread_mutex_unlock(&loop->lock);
		return false;
	}
	was_empty = sl_list_is_empty(&loop->mailbox);
	task->fn = fn;
	task->is_queued = true;
	sl_list_add(&loop->mailbox, &task->node);
	/* Under the lock, because the loop may be freed as soon as it has ended. */
	if (was_empty)
		wake(loop);
	(void)pthread_mutex_unlock(&loop->lock);
	return true;
}
