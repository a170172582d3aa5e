/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "base/clock.h"
#include "io/loop.h"

struct fixture {
	struct sl_loop *loop;
	int a[2];
	int b[2];
};

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	assert_int_equal(sl_loop_new(&f->loop), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, f->a), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, f->b), 0);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	sl_loop_free(f->loop);
	for (int i = 0; i < 2; i++) {
		(void)close(f->a[i]);
		(void)close(f->b[i]);
	}
	free(f);
	return 0;
}

struct watch {
	struct sl_io io;
	struct sl_task task;
	struct sl_timer timer;
	struct watch *other;
	int other_fd;
	unsigned calls;
	uint32_t events;
	bool restart_other;
};

static void free_watch(struct sl_task *task)
{
	free(SL_CONTAINER_OF(task, struct watch, task));
}

static void on_io(struct sl_io *io, uint32_t events)
{
	struct watch *w = SL_CONTAINER_OF(io, struct watch, io);

	w->calls++;
	w->events |= events;
}

static void byte(int fd)
{
	assert_int_equal(write(fd, "x", 1), 1);
}

static void level_and_edge(void **state)
{
	struct fixture *f = *state;
	struct watch level = { 0 };
	struct watch edge = { 0 };

	assert_int_equal(sl_io_start(f->loop, &level.io, f->a[0], SL_IO_IN, on_io), 0);
	assert_int_equal(sl_io_start(f->loop, &edge.io, f->b[0], SL_IO_IN | SL_IO_EDGE, on_io), 0);
	byte(f->a[1]);
	byte(f->b[1]);
	for (int i = 0; i < 3; i++)
		assert_int_equal(sl_loop_turn(f->loop, 0), 0);
	assert_int_equal(level.calls, 3);
	assert_int_equal(edge.calls, 1);
	assert_int_equal(edge.events, SL_IO_IN);
	byte(f->b[1]);
	assert_int_equal(sl_loop_turn(f->loop, 0), 0);
	assert_int_equal(edge.calls, 2);
	assert_int_equal(sl_io_change(&level.io, SL_IO_OUT), 0);
	level.events = 0;
	assert_int_equal(sl_loop_turn(f->loop, 0), 0);
	assert_int_equal(level.events, SL_IO_OUT);
	sl_io_stop(&level.io);
	sl_io_stop(&level.io);
	sl_io_stop(&edge.io);
	level.calls = 0;
	assert_int_equal(sl_loop_turn(f->loop, 0), 0);
	assert_int_equal(level.calls, 0);
}

static void hang_up_is_reported(void **state)
{
	struct fixture *f = *state;
	struct watch w = { 0 };

	assert_int_equal(sl_io_start(f->loop, &w.io, f->a[0], SL_IO_IN | SL_IO_RDHUP, on_io), 0);
	assert_int_equal(shutdown(f->a[1], SHUT_WR), 0);
	assert_int_equal(sl_loop_turn(f->loop, 1000), 0);
	assert_true(w.events & SL_IO_RDHUP);
	sl_io_stop(&w.io);
}

static void start_reports_errors(void **state)
{
	struct fixture *f = *state;
	struct watch w = { 0 };
	struct watch again = { 0 };
	int file = open("/proc/self/stat", O_RDONLY);

	assert_int_equal(sl_io_start(f->loop, &w.io, file, SL_IO_IN, on_io), -EPERM);
	assert_null(w.io.fn);
	assert_int_equal(sl_io_start(f->loop, &w.io, f->a[0], SL_IO_IN, on_io), 0);
	assert_int_equal(sl_io_start(f->loop, &again.io, f->a[0], SL_IO_IN, on_io), -EEXIST);
	assert_null(again.io.fn);
	sl_io_stop(&w.io);
	(void)close(file);
}

/* Whichever is called first stops the other, whose event has been fetched already. */
static void on_kill_other(struct sl_io *io, uint32_t events)
{
	struct watch *w = SL_CONTAINER_OF(io, struct watch, io);

	(void)events;
	w->calls++;
	sl_io_stop(&w->other->io);
	if (w->restart_other)
		assert_int_equal(
			sl_io_start(io->loop, &w->other->io, w->other_fd, SL_IO_IN, on_kill_other),
			0);
	else
		sl_loop_defer(io->loop, &w->other->task, free_watch);
}

static void stopped_in_the_batch(void **state)
{
	struct fixture *f = *state;
	struct watch *a = calloc(1, sizeof(*a));
	struct watch *b = calloc(1, sizeof(*b));
	struct watch *left;

	a->other = b;
	b->other = a;
	assert_int_equal(sl_io_start(f->loop, &a->io, f->a[0], SL_IO_IN, on_kill_other), 0);
	assert_int_equal(sl_io_start(f->loop, &b->io, f->b[0], SL_IO_IN, on_kill_other), 0);
	left = a; /* epoll reports in the order in which they became ready */
	byte(f->a[1]);
	byte(f->b[1]);
	assert_int_equal(sl_loop_turn(f->loop, 1000), 0);
	assert_int_equal(left->calls, 1);
	sl_io_stop(&left->io);
	free(left);
}

/* A watch that is stopped and started on another descriptor gets no event of the old one. */
static void restarted_in_the_batch(void **state)
{
	struct fixture *f = *state;
	struct watch a = { .restart_other = true };
	struct watch b = { .restart_other = true };
	int fresh[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fresh), 0);
	a.other = &b;
	b.other = &a;
	a.other_fd = fresh[0];
	b.other_fd = fresh[0];
	assert_int_equal(sl_io_start(f->loop, &a.io, f->a[0], SL_IO_IN, on_kill_other), 0);
	assert_int_equal(sl_io_start(f->loop, &b.io, f->b[0], SL_IO_IN, on_kill_other), 0);
	byte(f->a[1]);
	byte(f->b[1]);
	assert_int_equal(sl_loop_turn(f->loop, 1000), 0);
	assert_int_equal(a.calls + b.calls, 1);
	sl_io_stop(&a.io);
	sl_io_stop(&b.io);
	(void)close(fresh[0]);
	(void)close(fresh[1]);
}

static void forgotten_watch_is_silent(void **state)
{
	struct fixture *f = *state;
	struct watch w = { 0 };
	int fd = dup(f->a[0]);

	assert_int_equal(sl_io_start(f->loop, &w.io, f->a[0], SL_IO_IN, on_io), 0);
	byte(f->a[1]);
	sl_io_forget(&w.io);
	assert_int_equal(sl_loop_turn(f->loop, 0), 0);
	assert_int_equal(w.calls, 0);
	(void)close(fd);
}

struct ticker {
	struct sl_timer timer;
	struct sl_loop *loop;
	uint64_t fired_us;
	unsigned calls;
	struct ticker *victim;
	bool rearm_in_the_past;
};

static void on_timer(struct sl_timer *timer)
{
	struct ticker *t = SL_CONTAINER_OF(timer, struct ticker, timer);

	t->calls++;
	t->fired_us = sl_clock_us();
	assert_false(sl_timer_is_armed(timer));
	if (t->victim)
		sl_timer_stop(&t->victim->timer);
	if (t->rearm_in_the_past)
		sl_timer_start(t->loop, timer, 0, on_timer);
}

static void timers_fire_never_early(void **state)
{
	struct fixture *f = *state;
	static const unsigned delays[] = { 0, 1, 2, 3, 5, 8, 13, 40, 63, 64, 65, 90, 130 };
	struct ticker t[SL_ARRAY_LEN(delays)] = { 0 };
	uint64_t late_us = 0;

	assert_int_equal(sl_loop_turn(f->loop, 0), 0);
	for (size_t i = 0; i < SL_ARRAY_LEN(t); i++)
		sl_timer_start(f->loop, &t[i].timer, sl_loop_now_ms(f->loop) + delays[i], on_timer);
	for (int turns = 0; sl_timer_is_armed(&t[SL_ARRAY_LEN(t) - 1].timer); turns++) {
		assert_true(turns < 100); /* no spinning on the way */
		assert_int_equal(sl_loop_turn(f->loop, -1), 0);
	}
	for (size_t i = 0; i < SL_ARRAY_LEN(t); i++) {
		assert_int_equal(t[i].calls, 1);
		assert_true(t[i].fired_us >= t[i].timer.at_ms * 1000);
		if (t[i].fired_us - t[i].timer.at_ms * 1000 > late_us)
			late_us = t[i].fired_us - t[i].timer.at_ms * 1000;
	}
	printf("latest timer: %llu us after its time\n", (unsigned long long)late_us);
}

static void timer_in_the_past_fires_next_turn(void **state)
{
	struct fixture *f = *state;
	struct ticker t = { .loop = f->loop, .rearm_in_the_past = true };

	sl_timer_start(f->loop, &t.timer, 0, on_timer);
	for (unsigned i = 1; i <= 3; i++) {
		assert_int_equal(sl_loop_turn(f->loop, -1), 0);
		assert_int_equal(t.calls, i);
	}
	sl_timer_stop(&t.timer);
	sl_timer_stop(&t.timer);
	assert_int_equal(sl_loop_turn(f->loop, 0), 0);
	assert_int_equal(t.calls, 3);
}

static void timer_stopped_by_one_due_with_it(void **state)
{
	struct fixture *f = *state;
	struct ticker a = { .loop = f->loop };
	struct ticker b = { .loop = f->loop };

	a.victim = &b;
	b.victim = &a;
	sl_timer_start(f->loop, &a.timer, 0, on_timer);
	sl_timer_start(f->loop, &b.timer, 0, on_timer);
	assert_int_equal(sl_loop_turn(f->loop, 0), 0);
	assert_int_equal(sl_loop_turn(f->loop, 0), 0);
	assert_int_equal(a.calls + b.calls, 1);
}

static void freeing_the_loop_stops_timers(void **state)
{
	struct sl_loop *loop;
	struct ticker t = { 0 };

	(void)state;
	assert_int_equal(sl_loop_new(&loop), 0);
	sl_timer_start(loop, &t.timer, UINT64_MAX, on_timer);
	sl_loop_free(loop);
	assert_false(sl_timer_is_armed(&t.timer));
	sl_loop_free(NULL);
}

/* A turn waits for the caller's limit or the next timer, whichever is shorter. */
static void waits_no_longer_than_asked(void **state)
{
	static const struct {
		int max_ms;
		uint64_t timer_ms; /* from now; 0: none */
		unsigned at_least_ms;
		const char *why;
	} rows[] = {
		{ 20, 0, 19, "no timer" },
		{ 20, 3600000, 19, "the limit comes first" },
		{ 20, UINT64_C(1) << 40, 19, "a timer beyond what epoll_wait() can express" },
		{ 2000, 20, 20, "the timer comes first" },
		{ 0, 20, 0, "not at all" },
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < SL_ARRAY_LEN(rows); i++) {
		struct ticker t = { 0 };
		unsigned turns = 0;
		unsigned fired;
		uint64_t start_ms;
		uint64_t waited_ms;

		assert_int_equal(sl_loop_turn(f->loop, 0), 0);
		start_ms = sl_loop_now_ms(f->loop);
		if (rows[i].timer_ms)
			sl_timer_start(f->loop, &t.timer, start_ms + rows[i].timer_ms, on_timer);
		/* The wheel may wake the loop on the way, once for each of its levels. */
		do {
			assert_int_equal(sl_loop_turn(f->loop, rows[i].max_ms), 0);
			waited_ms = sl_loop_now_ms(f->loop) - start_ms;
		} while (++turns < 12 && waited_ms < rows[i].at_least_ms);
		fired = t.calls;
		sl_timer_stop(&t.timer);
		if (waited_ms < rows[i].at_least_ms || waited_ms > 1500)
			fail_msg("%s: %llu ms", rows[i].why, (unsigned long long)waited_ms);
		assert_int_equal(fired, rows[i].timer_ms == 20 && rows[i].max_ms > 20);
	}
}

struct job {
	struct sl_task task;
	struct sl_loop *loop;
	struct job *next;
	unsigned runs;
	bool endless;
};

static void on_job(struct sl_task *task)
{
	struct job *j = SL_CONTAINER_OF(task, struct job, task);

	j->runs++;
	assert_false(task->is_queued);
	if (j->next)
		sl_loop_defer(j->loop, &j->next->task, on_job);
	if (j->endless)
		sl_loop_defer(j->loop, task, on_job);
}

static void on_again(struct sl_task *task)
{
	struct job *j = SL_CONTAINER_OF(task, struct job, task);

	j->runs++;
	sl_loop_again(j->loop, task, on_again);
}

static void deferred_runs_in_this_turn_once(void **state)
{
	struct fixture *f = *state;
	struct job last = { .loop = f->loop };
	struct job first = { .loop = f->loop, .next = &last };
	struct job cancelled = { .loop = f->loop };

	sl_loop_defer(f->loop, &first.task, on_job);
	sl_loop_defer(f->loop, &first.task, on_job);
	sl_loop_defer(f->loop, &cancelled.task, on_job);
	sl_task_cancel(&cancelled.task);
	sl_task_cancel(&cancelled.task);
	assert_int_equal(sl_loop_turn(f->loop, -1), 0);
	assert_int_equal(first.runs, 1);
	assert_int_equal(last.runs, 1);
	assert_int_equal(cancelled.runs, 0);
}

static void endless_deferral_does_not_hang_the_loop(void **state)
{
	struct fixture *f = *state;
	struct job j = { .loop = f->loop, .endless = true };
	struct watch w = { 0 };

	assert_int_equal(sl_io_start(f->loop, &w.io, f->a[0], SL_IO_IN, on_io), 0);
	byte(f->a[1]);
	sl_loop_defer(f->loop, &j.task, on_job);
	assert_int_equal(sl_loop_turn(f->loop, -1), 0);
	assert_int_equal(sl_loop_turn(f->loop, -1), 0);
	assert_int_equal(w.calls, 2);
	assert_true(j.runs > 1);
	sl_task_cancel(&j.task);
	sl_io_stop(&w.io);
}

static void again_is_once_a_turn_without_waiting(void **state)
{
	struct fixture *f = *state;
	struct job j = { .loop = f->loop };

	sl_loop_again(f->loop, &j.task, on_again);
	for (unsigned i = 1; i <= 5; i++) {
		assert_int_equal(sl_loop_turn(f->loop, -1), 0); /* would wait for ever otherwise */
		assert_int_equal(j.runs, i);
	}
	sl_task_cancel(&j.task);
	assert_int_equal(sl_loop_turn(f->loop, 0), 0);
	assert_int_equal(j.runs, 5);
}

static void freeing_the_loop_runs_what_is_deferred(void **state)
{
	struct sl_loop *loop;
	struct job deferred = { 0 };
	struct job posted = { 0 };
	struct job again = { 0 };

	(void)state;
	assert_int_equal(sl_loop_new(&loop), 0);
	again.loop = loop;
	sl_loop_defer(loop, &deferred.task, on_job);
	sl_loop_again(loop, &again.task, on_again);
	assert_true(sl_loop_post(loop, &posted.task, on_job));
	sl_loop_free(loop);
	assert_int_equal(deferred.runs, 1);
	assert_int_equal(posted.runs, 1);
	assert_int_equal(again.runs, 0);
	assert_false(again.task.is_queued);
}

#define N_POSTERS 3
#define N_POSTS 5000

struct poster {
	pthread_t thread;
	struct sl_loop *loop;
	struct job jobs[N_POSTS];
	unsigned accepted;
};

static void *post_all(void *arg)
{
	struct poster *p = arg;

	for (unsigned i = 0; i < N_POSTS; i++)
		p->accepted += sl_loop_post(p->loop, &p->jobs[i].task, on_job);
	return NULL;
}

static void *run_loop(void *arg)
{
	return (void *)(intptr_t)sl_loop_run(arg);
}

/* However the end falls among the posts: accepted means run, refused means never. */
static void every_accepted_post_is_run(void **state)
{
	struct fixture *f = *state;
	struct poster *p = calloc(N_POSTERS, sizeof(*p));
	unsigned accepted = 0;
	unsigned runs = 0;
	pthread_t runner;
	void *result;

	assert_int_equal(pthread_create(&runner, NULL, run_loop, f->loop), 0);
	for (int i = 0; i < N_POSTERS; i++) {
		p[i].loop = f->loop;
		assert_int_equal(pthread_create(&p[i].thread, NULL, post_all, &p[i]), 0);
	}
	assert_int_equal(pthread_join(p[0].thread, NULL), 0);
	assert_int_equal(p[0].accepted, N_POSTS);
	sl_loop_quit(f->loop);
	for (int i = 1; i < N_POSTERS; i++)
		assert_int_equal(pthread_join(p[i].thread, NULL), 0);
	assert_int_equal(pthread_join(runner, &result), 0);
	assert_null(result);
	for (int i = 0; i < N_POSTERS; i++) {
		accepted += p[i].accepted;
		for (int k = 0; k < N_POSTS; k++) {
			assert_true(p[i].jobs[k].runs <= 1);
			runs += p[i].jobs[k].runs;
		}
	}
	assert_int_equal(runs, accepted);
	assert_false(sl_loop_post(f->loop, &p[0].jobs[0].task, on_job));
	free(p);
}

static void quit_before_run_is_kept(void **state)
{
	struct fixture *f = *state;

	sl_loop_quit(f->loop);
	assert_int_equal(sl_loop_run(f->loop), 0);
	assert_int_equal(sl_loop_run(f->loop), 0);
}

static void post_wakes_a_waiting_loop(void **state)
{
	struct fixture *f = *state;
	struct job j = { 0 };

	assert_true(sl_loop_post(f->loop, &j.task, on_job));
	assert_int_equal(sl_loop_turn(f->loop, -1), 0);
	assert_int_equal(j.runs, 1);
	assert_true(sl_loop_post(f->loop, &j.task, on_job));
	assert_int_equal(sl_loop_turn(f->loop, -1), 0);
	assert_int_equal(j.runs, 2);
	assert_true(sl_loop_now_us(f->loop) / 1000 >= sl_loop_now_ms(f->loop));
}

#define N_MANY 600

/* More ready descriptors than one batch holds: all are served, none twice before the others. */
static void more_than_a_batch(void **state)
{
	struct fixture *f = *state;
	struct watch *w = calloc(N_MANY, sizeof(*w));
	int pair[N_MANY][2];
	bool all = false;

	for (int i = 0; i < N_MANY; i++) {
		assert_int_equal(pipe2(pair[i], O_NONBLOCK), 0);
		assert_int_equal(sl_io_start(f->loop, &w[i].io, pair[i][0], SL_IO_IN, on_io), 0);
		byte(pair[i][1]);
	}
	for (int turns = 0; !all; turns++) {
		assert_true(turns < 4);
		assert_int_equal(sl_loop_turn(f->loop, 0), 0);
		all = true;
		for (int i = 0; i < N_MANY; i++)
			all = all && w[i].calls > 0;
	}
	for (int i = 0; i < N_MANY; i++) {
		assert_true(w[i].calls <= 2);
		sl_io_stop(&w[i].io);
		(void)close(pair[i][0]);
		(void)close(pair[i][1]);
	}
	free(w);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(level_and_edge),
		TEST(hang_up_is_reported),
		TEST(start_reports_errors),
		TEST(stopped_in_the_batch),
		TEST(restarted_in_the_batch),
		TEST(forgotten_watch_is_silent),
		TEST(timers_fire_never_early),
		TEST(timer_in_the_past_fires_next_turn),
		TEST(timer_stopped_by_one_due_with_it),
		TEST(waits_no_longer_than_asked),
		cmocka_unit_test(freeing_the_loop_stops_timers),
		TEST(deferred_runs_in_this_turn_once),
		TEST(endless_deferral_does_not_hang_the_loop),
		TEST(again_is_once_a_turn_without_waiting),
		cmocka_unit_test(freeing_the_loop_runs_what_is_deferred),
		TEST(every_accepted_post_is_run),
		TEST(quit_before_run_is_kept),
		TEST(post_wakes_a_waiting_loop),
		TEST(more_than_a_batch),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
