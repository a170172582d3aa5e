/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_IO_LOOP_H
#define SL_IO_LOOP_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/list.h"

/*
 * One thread's event loop: watches on descriptors, timers, work for the end of
 * the turn, and a mailbox through which other threads hand over work. Only
 * sl_loop_post() and sl_loop_quit() may be called from another thread.
 */
struct sl_loop;
struct sl_io;
struct sl_timer;
struct sl_task;

typedef void (*sl_io_fn)(struct sl_io *io, uint32_t events); /* EPOLL* bits */
typedef void (*sl_timer_fn)(struct sl_timer *timer);
typedef void (*sl_task_fn)(struct sl_task *task);

/* Bits of sys/epoll.h, so that no other file needs it. */
enum {
	SL_IO_IN = 0x001,
	SL_IO_PRI = 0x002,
	SL_IO_OUT = 0x004,
	SL_IO_ERR = 0x008,
	SL_IO_HUP = 0x010,
	SL_IO_RDHUP = 0x2000,
	SL_IO_EXCLUSIVE = 1 << 28,
	SL_IO_EDGE = 1u << 31,
};

/*
 * A watched descriptor, embedded in its owner. The owner keeps the descriptor;
 * the loop borrows it between start and stop. After sl_io_stop() the callback
 * is not called again, not even for events already fetched; the memory must
 * stay until the end of the turn (free it from a deferred task).
 */
struct sl_io {
	int fd;
	uint32_t turn; /* the loop's: in which it was started; older events are not its own */
	sl_io_fn fn;   /* NULL: stopped */
	struct sl_loop *loop;
};

/* Embedded in its owner; zeroed is a valid stopped timer. */
struct sl_timer {
	struct sl_list node;
	uint64_t at_ms;
	sl_timer_fn fn; /* NULL: stopped */
};

/* Work to be done once, embedded in its owner; zeroed is a valid idle task. */
struct sl_task {
	struct sl_list node;
	sl_task_fn fn;
	bool is_queued;
};

int sl_loop_new(struct sl_loop **ret);
void sl_loop_free(struct sl_loop *loop); /* runs what is still deferred */

/* Runs until sl_loop_quit(); returns 0, or -errno when waiting failed. */
int sl_loop_run(struct sl_loop *loop);
/* One turn: waits at most `max_wait_ms` (-1: until something happens). For tests. */
int sl_loop_turn(struct sl_loop *loop, int max_wait_ms);
void sl_loop_quit(struct sl_loop *loop); /* any thread */

/* Monotonic time of this turn. */
uint64_t sl_loop_now_ms(const struct sl_loop *loop);
/* Many descriptors were ready in this turn. */
bool sl_loop_is_busy(const struct sl_loop *loop);
/* Reads the clock, for durations that must be exact within a turn. */
uint64_t sl_loop_now_us(const struct sl_loop *loop);

/* Level-triggered unless SL_IO_EDGE is in `events`. -errno of epoll_ctl(). */
int sl_io_start(struct sl_loop *loop, struct sl_io *io, int fd, uint32_t events, sl_io_fn fn);
int sl_io_change(struct sl_io *io, uint32_t events);
/* Idempotent. Must precede close() of the descriptor. */
void sl_io_stop(struct sl_io *io);
/*
 * As sl_io_stop() for a descriptor that is closed right after and of which no
 * copy exists in any process: leaves the deregistration to close().
 */
void sl_io_forget(struct sl_io *io);

/*
 * (Re)arms; a time in the past fires in the next turn. Resolution 1 ms, never
 * early. Cost is constant, whatever the number of timers.
 */
void sl_timer_start(struct sl_loop *loop, struct sl_timer *timer, uint64_t at_ms, sl_timer_fn fn);
void sl_timer_stop(struct sl_timer *timer); /* idempotent */

static inline bool sl_timer_is_armed(const struct sl_timer *timer)
{
	return timer->fn != NULL;
}

/* Runs at the end of this turn, after every callback; queueing twice is once. */
void sl_loop_defer(struct sl_loop *loop, struct sl_task *task, sl_task_fn fn);
/* Runs in the next turn, which does not wait: for work that used up its budget. */
void sl_loop_again(struct sl_loop *loop, struct sl_task *task, sl_task_fn fn);
void sl_task_cancel(struct sl_task *task); /* deferred or again; idempotent; loop's thread only */

/*
 * Any thread: runs `task` in the loop's thread. The task belongs to the loop
 * until its function runs. False when the loop has ended (sl_loop_run() has returned) and
 * will never run it. The caller sees to it that the loop's memory still exists.
 */
bool sl_loop_post(struct sl_loop *loop, struct sl_task *task, sl_task_fn fn);

#endif
