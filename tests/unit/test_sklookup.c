/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Port ranges through one socket; needs root, runs in a network namespace of its own. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "accel/sklookup.h"
#include "daemon/bind.h"
#include "daemon/listeners.h"
#include "daemon/privs.h"
#include "netns.h"

static const char *why_skipped;

static int set_up(void **state)
{
	struct sl_sklookup *s = NULL;
	int r;

	(void)state;
	if (geteuid() != 0) {
		why_skipped = "not root";
		return 0;
	}
	if (enter_netns() < 0) {
		why_skipped = "no network namespace of its own";
		return 0;
	}
	r = sl_sklookup_new(&s);
	if (r < 0)
		why_skipped = strerror(-r);
	sl_sklookup_free(s);
	return 0;
}

static void need_kernel(void)
{
	if (why_skipped) {
		print_message("skipped: %s\n", why_skipped);
		skip();
	}
}

static struct sl_addr ip(const char *text)
{
	struct sl_addr a = { 0 };

	if (text)
		assert_int_equal(sl_addr_parse_ip(text, &a), 0);
	return a;
}

static int listener(const char *text, uint16_t port)
{
	const struct sl_addr a = ip(text);
	int fd = -1;

	assert_int_equal(sl_bind_tcp(&a, port, 64, false, &fd), 0);
	return fd;
}

/* Connects and says whether the connection arrived at this listener, with its own port kept. */
static bool arrives(const char *text, uint16_t port, int fd)
{
	struct sl_addr to = ip(text);
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);
	struct sl_addr local;
	int client = socket(sl_addr_family(&to), SOCK_STREAM | SOCK_CLOEXEC, 0);
	int conn = -1;

	assert_true(client >= 0);
	sl_addr_set_port(&to, port);
	if (connect(client, &to.sa, sl_addr_len(&to)) == 0)
		conn = accept4(fd, NULL, NULL, 0);
	assert_int_equal(close(client), 0);
	if (conn < 0)
		return false;
	assert_int_equal(getsockname(conn, (struct sockaddr *)&ss, &len), 0);
	sl_addr_set(&local, (struct sockaddr *)&ss);
	assert_int_equal(sl_addr_port(&local), port);
	assert_true(sl_addr_same_ip(&local, &to));
	assert_int_equal(close(conn), 0);
	return true;
}

static bool is_refused(const char *text, uint16_t port)
{
	struct sl_addr to = ip(text);
	int client = socket(sl_addr_family(&to), SOCK_STREAM | SOCK_CLOEXEC, 0);
	int r;

	assert_true(client >= 0);
	sl_addr_set_port(&to, port);
	r = connect(client, &to.sa, sl_addr_len(&to)) < 0 ? -errno : 0;
	assert_int_equal(close(client), 0);
	return r == -ECONNREFUSED;
}

static void test_range_and_address(void **state)
{
	struct sl_sklookup *s = NULL;
	struct sl_steer_counts n;
	struct sl_steer ranges[3];
	int any, four, six;

	(void)state;
	need_kernel();
	assert_int_equal(sl_sklookup_new(&s), 0);
	any = listener(NULL, 2000);
	four = listener("127.0.0.7", 4000);
	six = listener("::1", 4500);
	ranges[0] = (struct sl_steer){ .from = 2000, .to = 2999, .fd = any };
	ranges[1] =
		(struct sl_steer){ .ip = ip("127.0.0.7"), .from = 4000, .to = 4099, .fd = four };
	ranges[2] = (struct sl_steer){ .ip = ip("::1"), .from = 4500, .to = 4599, .fd = six };
	assert_true(is_refused("127.0.0.1", 2500));
	assert_int_equal(sl_sklookup_set(s, ranges, 3), 0);
	assert_true(arrives("127.0.0.1", 2000, any));
	assert_true(arrives("127.0.0.1", 2500, any));
	assert_true(arrives("127.0.0.9", 2999, any));
	assert_true(arrives("::1", 2001, any));
	assert_true(is_refused("127.0.0.1", 1999));
	assert_true(is_refused("127.0.0.1", 3000));
	assert_true(arrives("127.0.0.7", 4050, four));
	assert_true(is_refused("127.0.0.8", 4050));
	assert_true(is_refused("::1", 4050));
	assert_true(arrives("::1", 4599, six));
	assert_true(is_refused("127.0.0.1", 4599));
	assert_int_equal(sl_sklookup_counts(s, &n), 0);
	assert_int_equal(n.steered, 6);
	assert_int_equal(n.no_socket, 0);
	assert_int_equal(n.not_assigned, 0);
	assert_true(n.passed >= 5);
	sl_sklookup_free(s);
	assert_true(is_refused("127.0.0.1", 2500)); /* detached */
	assert_int_equal(close(any), 0);
	assert_int_equal(close(four), 0);
	assert_int_equal(close(six), 0);
}

static void test_replace_and_failure(void **state)
{
	struct sl_steer many[SL_SKLOOKUP_MAX_RANGES + 1];
	struct sl_sklookup *s = NULL;
	struct sl_steer a, b, bad[2];
	int first, second;

	(void)state;
	need_kernel();
	assert_int_equal(sl_sklookup_new(&s), 0);
	first = listener(NULL, 2000);
	second = listener(NULL, 3000);
	a = (struct sl_steer){ .from = 2000, .to = 2099, .fd = first };
	b = (struct sl_steer){ .from = 2050, .to = 3099, .fd = second };
	for (int i = 0; i < 5; i++) { /* both banks, more than once */
		assert_int_equal(sl_sklookup_set(s, &a, 1), 0);
		assert_true(arrives("127.0.0.1", 2060, first));
		assert_true(is_refused("127.0.0.1", 3060));
		assert_int_equal(sl_sklookup_set(s, &b, 1), 0);
		assert_true(arrives("127.0.0.1", 2060, second));
		assert_true(is_refused("127.0.0.1", 2010));
	}
	bad[0] = a;
	bad[1] = (struct sl_steer){ .from = 5000, .to = 5099, .fd = STDERR_FILENO };
	assert_true(sl_sklookup_set(s, bad, 2) < 0);
	assert_true(arrives("127.0.0.1", 2060, second));
	for (size_t i = 0; i < SL_SKLOOKUP_MAX_RANGES + 1; i++)
		many[i] = (struct sl_steer){ .from = (uint16_t)(10000 + i * 20),
					     .to = (uint16_t)(10019 + i * 20),
					     .fd = i % 2 ? first : second };
	assert_int_equal(sl_sklookup_set(s, many, SL_SKLOOKUP_MAX_RANGES + 1), -E2BIG);
	assert_true(arrives("127.0.0.1", 2060, second));
	assert_int_equal(sl_sklookup_set(s, many, SL_SKLOOKUP_MAX_RANGES), 0);
	assert_true(arrives("127.0.0.1", 10000 + 255 * 20 + 7, first));
	assert_true(is_refused("127.0.0.1", 2060));
	assert_int_equal(sl_sklookup_set(s, NULL, 0), 0);
	assert_true(is_refused("127.0.0.1", 10007));
	sl_sklookup_free(s);
	assert_int_equal(close(first), 0);
	assert_int_equal(close(second), 0);
}

/* A closed listener leaves the maps by itself, and the lookup goes on as without a range. */
static void test_closed_listener(void **state)
{
	struct sl_sklookup *s = NULL;
	struct sl_steer_counts n;
	struct sl_steer range;
	int fd, plain;

	(void)state;
	need_kernel();
	assert_int_equal(sl_sklookup_new(&s), 0);
	fd = listener(NULL, 2000);
	range = (struct sl_steer){ .from = 2000, .to = 2099, .fd = fd };
	assert_int_equal(sl_sklookup_set(s, &range, 1), 0);
	plain = listener(NULL, 2010);
	assert_true(arrives("127.0.0.1", 2010, fd)); /* the range has precedence */
	assert_int_equal(close(fd), 0);
	assert_true(arrives("127.0.0.1", 2010, plain));
	assert_true(is_refused("127.0.0.1", 2011));
	assert_int_equal(sl_sklookup_counts(s, &n), 0);
	assert_int_equal(n.steered, 1);
	assert_true(n.no_socket >= 2);
	sl_sklookup_free(s);
	assert_int_equal(close(plain), 0);
}

/* What an exec passes on: copies of the descriptors keep everything working. */
static void test_adopt(void **state)
{
	struct sl_sklookup *s = NULL;
	struct sl_sklookup *later = NULL;
	struct sl_steer range;
	int fds[SL_SKLOOKUP_FDS];
	int fd;

	(void)state;
	need_kernel();
	assert_int_equal(sl_sklookup_new(&s), 0);
	fd = listener(NULL, 2000);
	range = (struct sl_steer){ .from = 2000, .to = 2099, .fd = fd };
	assert_int_equal(sl_sklookup_set(s, &range, 1), 0);
	sl_sklookup_fds(s, fds);
	for (size_t i = 0; i < SL_SKLOOKUP_FDS; i++) {
		fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 3);
		assert_true(fds[i] >= 0);
	}
	sl_sklookup_free(s);
	assert_true(arrives("127.0.0.1", 2042, fd));
	assert_int_equal(sl_sklookup_adopt(fds, &later), 0);
	range.to = 2050;
	assert_int_equal(sl_sklookup_set(later, &range, 1), 0);
	assert_true(arrives("127.0.0.1", 2050, fd));
	assert_true(is_refused("127.0.0.1", 2051));
	sl_sklookup_free(later);
	assert_true(is_refused("127.0.0.1", 2042));
	assert_int_equal(close(fd), 0);
}

/* The whole path of a reload: the range changes, its socket stays, a busy port is named. */
static void test_listeners_with_ranges(void **state)
{
	const struct sl_listeners none = { 0 };
	struct sl_conf_sources sources = { 0 };
	struct sl_steering steering = { 0 };
	struct sl_listen_spec spec = { .from = 2000, .to = 2999, .backlog = 16 };
	const struct sl_conf conf = { .listens = &spec, .n_listens = 1 };
	struct sl_str report = { 0 };
	uint64_t next_id = 1;
	struct sl_listen_plan plan = { .conf = &conf,
				       .sources = &sources,
				       .old = &none,
				       .steering = &steering,
				       .next_id = &next_id };
	struct sl_listeners a, b, c = { 0 };
	int foreign;

	(void)state;
	need_kernel();
	assert_int_equal(sl_listeners_build(&plan, &a, &report), 0);
	assert_int_equal(a.n, 1);
	assert_string_equal(steering.text, "sk_lookup");
	assert_int_equal(sl_steering_set(&steering, &a), 0);
	assert_true(arrives("127.0.0.1", 2999, a.item[0].fd));
	spec.to = 3500;
	plan.old = &a;
	assert_int_equal(sl_listeners_build(&plan, &b, &report), 0);
	assert_int_equal(b.item[0].fd, a.item[0].fd);
	assert_int_not_equal(b.item[0].id, a.item[0].id);
	assert_int_equal(sl_steering_set(&steering, &b), 0);
	sl_listeners_replace(&a, &b);
	assert_true(arrives("127.0.0.1", 3500, b.item[0].fd));
	foreign = listener("127.0.0.3", 3600);
	spec.to = 4000;
	plan.old = &b;
	assert_int_equal(sl_listeners_build(&plan, &c, &report), -EADDRINUSE);
	assert_non_null(strstr(sl_str_text(&report), "[::]:3600"));
	assert_true(arrives("127.0.0.1", 3500, b.item[0].fd));
	sl_listeners_done(&b);
	sl_steering_done(&steering);
	sl_str_done(&report);
	assert_int_equal(close(foreign), 0);
}

/* A reload may bring the first range when the supervisor has given up most capabilities. */
static void test_supervisor_may_load(void **state)
{
	pid_t pid;
	int status;

	(void)state;
	need_kernel();
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		struct sl_sklookup *s = NULL;

		if (sl_privs_trim_supervisor() < 0)
			_exit(1);
		_exit(sl_sklookup_new(&s) == 0 ? 0 : 2);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_range_and_address),
		cmocka_unit_test(test_replace_and_failure),
		cmocka_unit_test(test_closed_listener),
		cmocka_unit_test(test_adopt),
		cmocka_unit_test(test_listeners_with_ranges),
		cmocka_unit_test(test_supervisor_may_load),
	};

	return cmocka_run_group_tests(tests, set_up, NULL);
}
