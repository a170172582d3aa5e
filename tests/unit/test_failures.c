/* SPDX-License-Identifier: GPL-3.0-or-later */
/* WRAP: malloc calloc realloc epoll_create1 eventfd epoll_ctl epoll_wait */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>

#include <cmocka.h>

#include "base/str.h"
#include "io/dns.h"
#include "io/loop.h"
#include "io/pipe.h"

/*
 * Fails the n-th of the calls that can fail, for n = 1, 2, ... until everything
 * succeeds: every error path of a constructor is walked, nothing leaks, and the
 * result is untouched.
 */
static unsigned countdown; /* 0: nothing fails */
static bool has_failed;

static bool must_fail(int err)
{
	if (countdown == 0 || --countdown > 0)
		return false;
	has_failed = true;
	errno = err;
	return true;
}

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
int __real_epoll_create1(int flags);
int __real_eventfd(unsigned count, int flags);
int __real_epoll_ctl(int epoll_fd, int op, int fd, struct epoll_event *event);
int __real_epoll_wait(int epoll_fd, struct epoll_event *events, int max, int timeout_ms);

void *__wrap_malloc(size_t n)
{
	return must_fail(ENOMEM) ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
	return must_fail(ENOMEM) ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
	return must_fail(ENOMEM) ? NULL : __real_realloc(p, n);
}

int __wrap_epoll_create1(int flags)
{
	return must_fail(EMFILE) ? -1 : __real_epoll_create1(flags);
}

int __wrap_eventfd(unsigned count, int flags)
{
	return must_fail(EMFILE) ? -1 : __real_eventfd(count, flags);
}

int __wrap_epoll_ctl(int epoll_fd, int op, int fd, struct epoll_event *event)
{
	return must_fail(ENOSPC) ? -1 : __real_epoll_ctl(epoll_fd, op, fd, event);
}

static int wait_errno;

int __wrap_epoll_wait(int epoll_fd, struct epoll_event *events, int max, int timeout_ms)
{
	if (wait_errno) {
		errno = wait_errno;
		return -1;
	}
	return __real_epoll_wait(epoll_fd, events, max, timeout_ms);
}

static struct sl_loop *loop;

static int make_loop(void **ret)
{
	return sl_loop_new((struct sl_loop **)ret);
}

static void free_loop(void *p)
{
	sl_loop_free(p);
}

static int make_pool(void **ret)
{
	return sl_pipe_pool_new(4, (struct sl_pipe_pool **)ret);
}

static void free_pool(void *p)
{
	sl_pipe_pool_free(p);
}

static const struct sl_dns_files files = {
	.resolv_conf = "nameserver 192.0.2.1\nnameserver 2001:db8::1\n",
	.resolv_conf_len = 44,
	.hosts = "192.0.2.7 a\n",
	.hosts_len = 12,
};

static int make_dns(void **ret)
{
	return sl_dns_new(loop, &files, (struct sl_dns **)ret);
}

static void free_dns(void *p)
{
	sl_dns_free(p);
}

static struct sl_dns *dns;

static void on_names(void *arg, const struct sl_addr *addrs, size_t n, const char *err)
{
	(void)arg;
	(void)addrs;
	(void)n;
	(void)err;
}

static int make_name(void **ret)
{
	return sl_dns_watch(dns, "a", on_names, NULL, (struct sl_dns_name **)ret);
}

static void free_name(void *p)
{
	sl_dns_unwatch(p);
}

static void constructors(void **state)
{
	static const struct {
		int (*make)(void **ret);
		void (*free)(void *p);
		unsigned at_least; /* points of failure known to exist */
		const char *why;
	} rows[] = {
		{ make_loop, free_loop, 4, "loop" },
		{ make_pool, free_pool, 1, "pipe pool" },
		{ make_dns, free_dns, 3, "resolver" },
		{ make_name, free_name, 1, "name" },
	};

	(void)state;
	assert_int_equal(sl_loop_new(&loop), 0);
	assert_int_equal(sl_dns_new(loop, &files, &dns), 0);
	for (size_t i = 0; i < SL_ARRAY_LEN(rows); i++) {
		unsigned n = 0;
		void *made;
		int r;

		do {
			made = &made;
			has_failed = false;
			countdown = ++n;
			r = rows[i].make(&made);
			countdown = 0;
			if (r < 0 && (!has_failed || made != &made))
				fail_msg("%s, point %u: %d", rows[i].why, n, r);
			if (r == 0)
				rows[i].free(made);
			assert_true(n < 100);
		} while (has_failed);
		assert_int_equal(r, 0);
		if (n <= rows[i].at_least)
			fail_msg("%s: only %u points of failure", rows[i].why, n - 1);
	}
	sl_dns_free(dns);
	sl_loop_free(loop);
}

static void new_files_or_the_old(void **state)
{
	unsigned n = 0;
	int r;

	(void)state;
	assert_int_equal(sl_loop_new(&loop), 0);
	assert_int_equal(sl_dns_new(loop, &files, &dns), 0);
	do {
		has_failed = false;
		countdown = ++n;
		r = sl_dns_set_files(dns, &files);
		countdown = 0;
		assert_int_equal(r, has_failed ? -ENOMEM : 0);
	} while (has_failed);
	assert_true(n > 2);
	sl_dns_free(dns);
	sl_loop_free(loop);
}

struct answers {
	unsigned calls;
	unsigned failures;
};

static void on_answers(void *arg, const struct sl_addr *addrs, size_t n, const char *err)
{
	struct answers *a = arg;

	(void)addrs;
	(void)n;
	a->calls++;
	a->failures += err != NULL;
}

/* A question that cannot even be asked fails like any other. */
static void question_without_memory(void **state)
{
	(void)state;
	for (unsigned n = 1; n <= 2; n++) {
		struct answers a = { 0 };
		struct sl_dns_name *name;

		assert_int_equal(sl_loop_new(&loop), 0);
		assert_int_equal(sl_dns_new(loop, &files, &dns), 0);
		assert_int_equal(sl_dns_watch(dns, "not.in.hosts", on_answers, &a, &name), 0);
		countdown = n;
		assert_int_equal(sl_loop_turn(loop, 0), 0);
		countdown = 0;
		assert_int_equal(a.calls, 1);
		assert_int_equal(a.failures, 1);
		sl_dns_free(dns);
		sl_loop_free(loop);
	}
}

static void waiting_fails(void **state)
{
	(void)state;
	assert_int_equal(sl_loop_new(&loop), 0);
	wait_errno = EINTR;
	assert_int_equal(sl_loop_turn(loop, -1), 0); /* a signal is a turn without events */
	wait_errno = EBADF;
	assert_int_equal(sl_loop_run(loop), -EBADF);
	wait_errno = 0;
	sl_loop_free(loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(constructors),
		cmocka_unit_test(new_files_or_the_old),
		cmocka_unit_test(question_without_memory),
		cmocka_unit_test(waiting_fails),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
