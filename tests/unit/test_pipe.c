/* SPDX-License-Identifier: GPL-3.0-or-later */
/* WRAP: fcntl pipe2 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "io/pipe.h"

/* The limits of the pretended system; the real calls below them. */
static struct {
	int max_size; /* above: EPERM */
	int pipe_errno;
	unsigned n_set;
} limits;

int __real_fcntl(int fd, int cmd, ...);
int __wrap_fcntl(int fd, int cmd, int arg);
int __real_pipe2(int fd[2], int flags);
int __wrap_pipe2(int fd[2], int flags);

int __wrap_fcntl(int fd, int cmd, int arg)
{
	if (cmd == F_SETPIPE_SZ) {
		limits.n_set++;
		if (arg > limits.max_size) {
			errno = EPERM;
			return -1;
		}
	}
	return __real_fcntl(fd, cmd, arg);
}

int __wrap_pipe2(int fd[2], int flags)
{
	if (limits.pipe_errno) {
		errno = limits.pipe_errno;
		return -1;
	}
	return __real_pipe2(fd, flags);
}

static int set_up(void **state)
{
	(void)state;
	limits.max_size = 1 << 20;
	limits.pipe_errno = 0;
	limits.n_set = 0;
	return 0;
}

static bool is_open(int fd)
{
	return __real_fcntl(fd, F_GETFD) >= 0;
}

static void pipes_have_the_right_flags(void **state)
{
	_cleanup_(sl_pipe_pool_freep) struct sl_pipe_pool *pool = NULL;
	struct sl_pipe p;

	(void)state;
	assert_int_equal(sl_pipe_pool_new(2, &pool), 0);
	assert_int_equal(sl_pipe_take(pool, &p), 0);
	assert_true(__real_fcntl(p.rd, F_GETFL) & O_NONBLOCK);
	assert_true(__real_fcntl(p.wr, F_GETFL) & O_NONBLOCK);
	assert_true(__real_fcntl(p.rd, F_GETFD) & FD_CLOEXEC);
	assert_int_equal(p.used, 0);
	assert_int_equal(p.size, __real_fcntl(p.rd, F_GETPIPE_SZ));
	sl_pipe_give(pool, &p);
	assert_int_equal(p.rd, -1);
	assert_int_equal(p.wr, -1);
	sl_pipe_give(pool, &p); /* harmless */
}

static void empty_pipes_are_kept_up_to_the_cap(void **state)
{
	struct sl_pipe_pool *pool = NULL;
	struct sl_pipe p[3];
	int rd[3];

	(void)state;
	assert_int_equal(sl_pipe_pool_new(2, &pool), 0);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(sl_pipe_take(pool, &p[i]), 0);
		rd[i] = p[i].rd;
	}
	for (int i = 0; i < 3; i++)
		sl_pipe_give(pool, &p[i]);
	assert_true(is_open(rd[0]));
	assert_true(is_open(rd[1]));
	assert_false(is_open(rd[2]));
	assert_int_equal(sl_pipe_take(pool, &p[0]), 0);
	assert_int_equal(p[0].rd, rd[1]); /* the one used last */
	sl_pipe_give(pool, &p[0]);
	sl_pipe_pool_free(pool);
	assert_false(is_open(rd[0]));
	assert_false(is_open(rd[1]));
	sl_pipe_pool_free(NULL);
}

static void pipe_with_bytes_is_closed(void **state)
{
	_cleanup_(sl_pipe_pool_freep) struct sl_pipe_pool *pool = NULL;
	struct sl_pipe p;
	int rd;

	(void)state;
	assert_int_equal(sl_pipe_pool_new(2, &pool), 0);
	assert_int_equal(sl_pipe_take(pool, &p), 0);
	rd = p.rd;
	assert_int_equal(write(p.wr, "x", 1), 1);
	p.used = 1;
	sl_pipe_give(pool, &p);
	assert_false(is_open(rd));
}

static void size_falls_back_and_is_remembered(void **state)
{
	_cleanup_(sl_pipe_pool_freep) struct sl_pipe_pool *pool = NULL;
	struct sl_pipe p;

	(void)state;
	limits.max_size = 1 << 18;
	assert_int_equal(sl_pipe_pool_new(0, &pool), 0);
	assert_int_equal(sl_pipe_take(pool, &p), 0);
	assert_int_equal(p.size, 1 << 18);
	assert_int_equal(limits.n_set, 3);
	sl_pipe_give(pool, &p);
	assert_int_equal(sl_pipe_take(pool, &p), 0);
	assert_int_equal(p.size, 1 << 18);
	assert_int_equal(limits.n_set, 4);
	sl_pipe_give(pool, &p);
}

static void no_growth_at_all_keeps_the_default(void **state)
{
	_cleanup_(sl_pipe_pool_freep) struct sl_pipe_pool *pool = NULL;
	struct sl_pipe p;

	(void)state;
	limits.max_size = 0;
	assert_int_equal(sl_pipe_pool_new(0, &pool), 0);
	assert_int_equal(sl_pipe_take(pool, &p), 0);
	assert_int_equal(p.size, __real_fcntl(p.rd, F_GETPIPE_SZ));
	sl_pipe_give(pool, &p);
}

/* A user's limit that was reached once does not reduce the pool for ever. */
static void full_size_is_tried_again(void **state)
{
	_cleanup_(sl_pipe_pool_freep) struct sl_pipe_pool *pool = NULL;
	struct sl_pipe p;
	size_t size = 0;

	(void)state;
	limits.max_size = 0;
	assert_int_equal(sl_pipe_pool_new(0, &pool), 0);
	assert_int_equal(sl_pipe_take(pool, &p), 0);
	sl_pipe_give(pool, &p);
	limits.max_size = 1 << 20;
	for (int i = 0; i < 1000 && size < 1 << 20; i++) {
		assert_int_equal(sl_pipe_take(pool, &p), 0);
		size = p.size;
		sl_pipe_give(pool, &p);
	}
	assert_int_equal(size, 1 << 20);
}

static void errors_leave_the_result_untouched(void **state)
{
	_cleanup_(sl_pipe_pool_freep) struct sl_pipe_pool *pool = NULL;
	struct sl_pipe p = { .rd = 123 };

	(void)state;
	assert_int_equal(sl_pipe_pool_new(SIZE_MAX, &pool), -ENOMEM);
	assert_null(pool);
	assert_int_equal(sl_pipe_pool_new(1, &pool), 0);
	limits.pipe_errno = EMFILE;
	assert_int_equal(sl_pipe_take(pool, &p), -EMFILE);
	assert_int_equal(p.rd, 123);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(pipes_have_the_right_flags, set_up),
		cmocka_unit_test_setup(empty_pipes_are_kept_up_to_the_cap, set_up),
		cmocka_unit_test_setup(pipe_with_bytes_is_closed, set_up),
		cmocka_unit_test_setup(size_falls_back_and_is_remembered, set_up),
		cmocka_unit_test_setup(no_growth_at_all_keeps_the_default, set_up),
		cmocka_unit_test_setup(full_size_is_tried_again, set_up),
		cmocka_unit_test_setup(errors_leave_the_result_untouched, set_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
