/* SPDX-License-Identifier: GPL-3.0-or-later */
/* WRAP: malloc calloc realloc */
/* Every allocation that answering a request makes fails once; the control interface goes on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/clock.h"
#include "ctl/ctl.h"
#include "fake_flows.h"
#include "fake_proxy.h"

#define PATIENCE_MS 5000

static bool armed;
static long fail_at; /* the allocation that fails; counted down while armed */
static bool has_failed;

static bool fails(void)
{
	if (!armed || fail_at-- > 0)
		return false;
	fail_at = INT32_MAX;
	has_failed = true;
	return true;
}

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__wrap_malloc(size_t n)
{
	return fails() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
	return fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
	return fails() ? NULL : __real_realloc(p, n);
}

struct lab {
	struct sl_loop *loop;
	struct sl_proxy proxy;
	struct sl_ctl *ctl;
	struct sl_ctl_facts facts;
	struct sockaddr_un addr;
	socklen_t len;
};

static void on_request(void *arg, enum sl_ctl_request what, const struct sl_ctl_change *change,
		       sl_ctl_reply_fn reply, void *reply_arg)
{
	(void)change;
	(void)arg;
	(void)what;
	(void)change;
	reply(reply_arg, false, "a.yaml:1:1: error: no\n");
}

static int listen_unix(struct lab *lab)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	lab->addr.sun_family = AF_UNIX;
	assert_int_equal(bind(fd, (struct sockaddr *)&lab->addr, sizeof(sa_family_t)), 0);
	lab->len = sizeof(lab->addr);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&lab->addr, &lab->len), 0);
	assert_int_equal(listen(fd, 16), 0);
	return fd;
}

static struct sl_ctl_options options_of(struct lab *lab)
{
	return (struct sl_ctl_options){ .loop = lab->loop,
					.proxy = &lab->proxy,
					.control_fd = listen_unix(lab),
					.http_fd = -1,
					.facts = &lab->facts,
					.request = on_request,
					.request_arg = lab };
}

static int setup(void **state)
{
	struct lab *lab = calloc(1, sizeof(*lab));

	assert_non_null(lab);
	assert_int_equal(sl_loop_new(&lab->loop), 0);
	fake_init(&lab->proxy, lab->loop);
	lab->facts = (struct sl_ctl_facts){ .pid = 1, .ready = true };
	*state = lab;
	return 0;
}

static int teardown(void **state)
{
	struct lab *lab = *state;

	sl_ctl_free(lab->ctl);
	(void)sl_loop_turn(lab->loop, 0);
	sl_loop_free(lab->loop);
	free(lab);
	return 0;
}

/* The status of the answer; 0 when the connection was closed instead. */
static unsigned exchange(struct lab *lab, const char *request)
{
	_cleanup_fd_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	uint64_t until = sl_clock_ms() + PATIENCE_MS;
	char chunk[65536];
	unsigned status = 0;

	assert_int_equal(connect(fd, (struct sockaddr *)&lab->addr, lab->len), 0);
	assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
	assert_int_equal(send(fd, request, strlen(request), MSG_NOSIGNAL), strlen(request));
	assert_int_equal(shutdown(fd, SHUT_WR), 0);
	for (;;) {
		ssize_t n;

		assert_int_equal(sl_loop_turn(lab->loop, 1), 0);
		n = recv(fd, chunk, sizeof(chunk) - 1, 0);
		if (n == 0 || (n < 0 && errno == ECONNRESET))
			return status;
		if (n > 0 && !status) {
			chunk[n] = '\0';
			assert_int_equal(sscanf(chunk, "HTTP/1.1 %u ", &status), 1);
		}
		assert_true(sl_clock_ms() < until);
	}
}

#define REQUEST(line) line " HTTP/1.1\r\nHost: x\r\n\r\n"

static void every_request_survives(void **state)
{
	static const struct {
		const char *request;
		unsigned status; /* when memory is there */
	} cases[] = {
		{ REQUEST("GET /v1/status"), 200 },
		{ REQUEST("GET /v1/routes"), 200 },
		{ REQUEST("GET /v1/conns"), 200 },
		{ REQUEST("GET /metrics"), 200 },
		{ REQUEST("GET /v1/reasons"), 200 },
		{ REQUEST("POST /v1/kill?all=1"), 200 },
		{ REQUEST("POST /v1/reload"), 422 },
		{ REQUEST("GET /v1/nothing"), 404 },
		{ REQUEST("GET /v1/kill"), 405 },
		{ REQUEST("GET /v1/conns?x=1"), 400 },
		{ REQUEST("GET /v1/explain?port=1"), 200 },
		{ "garbage\r\n", 400 },
		{ REQUEST("GET /v1/flows"), 200 },
		{ REQUEST("GET /v1/engines"), 200 },
		{ REQUEST("DELETE /v1/flows"), 200 },
		{ REQUEST("GET /v1/certs"), 200 },
		{ REQUEST("GET /v1/certs?name=shop"), 200 },
	};
	struct lab *lab = *state;
	struct sl_ctl_options options = options_of(lab);
	struct fake_flows maps = { -1, -1, -1 };

	fake_packet_on(&lab->proxy);
	fake_tls_on(&lab->proxy);
	if (fake_flows_open(&maps, 64)) {
		lab->proxy.kernel.flows_fd = maps.flows_fd;
		lab->proxy.kernel.routes_fd = maps.routes_fd;
		lab->proxy.kernel.counters_fd = maps.counters_fd;
	}
	assert_int_equal(sl_ctl_new(&options, &lab->ctl), 0);
	for (size_t i = 0; i < SL_ARRAY_LEN(cases); i++) {
		unsigned failures = 0;

		for (long n = 0;; n++) {
			unsigned status;

			lab->proxy.n_surveys = lab->proxy.n_answered = 0;
			has_failed = false;
			fail_at = n;
			armed = true;
			status = exchange(lab, cases[i].request);
			armed = false;
			if (!has_failed) {
				assert_int_equal(status, cases[i].status);
				break;
			}
			failures++;
			if (status != 0 && status != 500 && status != cases[i].status)
				fail_msg("%s: status %u", cases[i].request, status);
		}
		assert_true(failures > 1);
	}
	fake_flows_close(&maps);
}

static void a_failed_start_leaves_nothing(void **state)
{
	struct lab *lab = *state;

	for (long n = 0;; n++) {
		struct sl_ctl_options options = options_of(lab);
		int r;

		options.http_fd = listen_unix(lab);
		has_failed = false;
		fail_at = n;
		armed = true;
		r = sl_ctl_new(&options, &lab->ctl);
		armed = false;
		(void)sl_loop_turn(lab->loop, 0);
		if (!has_failed) {
			assert_int_equal(r, 0);
			assert_true(n > 2);
			return;
		}
		assert_int_equal(r, -ENOMEM);
		assert_null(lab->ctl);
		/* Both sockets were closed, as promised. */
		assert_int_equal(fcntl(options.control_fd, F_GETFD), -1);
		assert_int_equal(fcntl(options.http_fd, F_GETFD), -1);
	}
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(every_request_survives),
		T(a_failed_start_leaves_nothing),
	};

	return cmocka_run_group_tests_name("ctl_oom", tests, NULL, NULL);
}
