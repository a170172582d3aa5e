/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The runtime directory belongs to one instance at a time; what a dead one left is replaced. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "daemon/runtime.h"

struct lab {
	char root[40];
	char dir[64];
	char state[64];
};

static int set_up(void **state)
{
	struct lab *lab = calloc(1, sizeof(*lab));

	assert_non_null(lab);
	(void)snprintf(lab->root, sizeof(lab->root), "/tmp/sluice-unit-XXXXXX");
	assert_non_null(mkdtemp(lab->root));
	(void)snprintf(lab->dir, sizeof(lab->dir), "%s/a/run", lab->root);
	(void)snprintf(lab->state, sizeof(lab->state), "%s/state", lab->root);
	*state = lab;
	return 0;
}

static int tear_down(void **state)
{
	struct lab *lab = *state;
	char path[80];

	(void)rmdir(lab->dir);
	(void)snprintf(path, sizeof(path), "%s/a", lab->root);
	(void)rmdir(path);
	(void)rmdir(lab->state);
	assert_int_equal(rmdir(lab->root), 0); /* nothing else was left */
	free(lab);
	return 0;
}

static long pid_in(const char *path)
{
	char text[32] = "";
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_true(read(fd, text, sizeof(text) - 1) > 0);
	assert_int_equal(close(fd), 0);
	return strtol(text, NULL, 10);
}

static void test_enter_and_leave(void **state)
{
	const struct lab *lab = *state;
	struct sl_runtime rt;
	char pid_path[80];

	assert_int_equal(sl_runtime_enter(lab->dir, lab->state, &rt), 0);
	(void)snprintf(pid_path, sizeof(pid_path), "%s/sluiced.pid", lab->dir);
	assert_string_equal(rt.pid_path, pid_path);
	assert_int_equal(pid_in(pid_path), getpid());
	assert_int_equal(access(lab->state, F_OK), 0);
	sl_runtime_leave(&rt);
	assert_int_equal(access(pid_path, F_OK), -1);
	assert_int_equal(rt.pid_fd, -1);
}

static void test_second_instance(void **state)
{
	const struct lab *lab = *state;
	struct sl_runtime rt;
	struct sl_runtime second = { .pid_fd = -7 };
	char line[512] = "";
	char expected[32];
	int p[2];

	assert_int_equal(sl_runtime_enter(lab->dir, lab->state, &rt), 0);
	assert_int_equal(pipe(p), 0);
	sl_log_setup(SL_LOG_INFO, false, p[1]);
	assert_int_equal(sl_runtime_enter(lab->dir, lab->state, &second), -EBUSY);
	sl_log_setup(SL_LOG_INFO, false, STDERR_FILENO);
	assert_int_equal(second.pid_fd, -7);
	assert_true(read(p[0], line, sizeof(line) - 1) > 0);
	(void)snprintf(expected, sizeof(expected), "(pid %d)", (int)getpid());
	assert_non_null(strstr(line, expected));
	assert_int_equal(pid_in(rt.pid_path), getpid()); /* the refused one wrote nothing */
	assert_int_equal(close(p[0]), 0);
	assert_int_equal(close(p[1]), 0);
	sl_runtime_leave(&rt);
}

static void test_stale_files(void **state)
{
	const struct lab *lab = *state;
	struct sl_runtime rt;
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0) {
		int fd;

		if (sl_runtime_enter(lab->dir, lab->state, &rt) < 0)
			_exit(1);
		fd = open(rt.control_path, O_CREAT | O_WRONLY, 0600);
		_exit(fd < 0); /* as if killed: the files stay */
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(sl_runtime_enter(lab->dir, lab->state, &rt), 0);
	assert_int_equal(pid_in(rt.pid_path), getpid());
	sl_runtime_leave(&rt);
}

/* What an upgrade does: the lock goes with the descriptor. */
static void test_resume(void **state)
{
	const struct lab *lab = *state;
	struct sl_runtime rt, later;
	int fd;

	assert_int_equal(sl_runtime_enter(lab->dir, lab->state, &rt), 0);
	fd = fcntl(rt.pid_fd, F_DUPFD_CLOEXEC, 3);
	assert_true(fd >= 0);
	sl_runtime_done(&rt); /* leaves the files */
	assert_int_equal(sl_runtime_resume(lab->dir, fd, &later), 0);
	sl_log_setup(SL_LOG_ERROR, false, open("/dev/null", O_WRONLY | O_CLOEXEC));
	assert_int_equal(sl_runtime_enter(lab->dir, lab->state, &rt), -EBUSY);
	sl_log_setup(SL_LOG_INFO, false, STDERR_FILENO);
	sl_runtime_leave(&later);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_enter_and_leave, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_second_instance, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_stale_files, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_resume, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
