/* SPDX-License-Identifier: GPL-3.0-or-later */
/* WRAP: accept4 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "ctl/server.h"

#define PATIENCE_MS 5000
#define IDLE_MS 300
#define HEAD_MS 60

struct lab {
	struct sl_loop *loop;
	struct sl_server *server;
	struct sockaddr_un addr;
	socklen_t len;
	size_t answer_bytes; /* size of every answer's body */
	bool hold;
	struct sl_call *held;
	unsigned n_calls;
};

static unsigned fail_accepts; /* how many further accept4() fail with EMFILE */
static unsigned failed_accepts;

int __real_accept4(int fd, struct sockaddr *sa, socklen_t *len, int flags);
int __wrap_accept4(int fd, struct sockaddr *sa, socklen_t *len, int flags)
{
	if (fail_accepts) {
		fail_accepts--;
		failed_accepts++;
		errno = EMFILE;
		return -1;
	}
	return __real_accept4(fd, sa, len, flags);
}

static void on_call(void *arg, struct sl_call *call)
{
	static char xs[1 << 20];
	struct lab *lab = arg;
	struct sl_str body = { 0 };

	memset(xs, 'x', sizeof(xs));
	lab->n_calls++;
	if (lab->hold) {
		lab->held = call;
		return;
	}
	while (body.len < lab->answer_bytes) {
		size_t n = lab->answer_bytes - body.len;

		sl_str_add(&body, xs, n < sizeof(xs) ? n : sizeof(xs));
	}
	sl_call_reply(call, 200, SL_TYPE_TEXT, &body);
}

static int setup_with(void **state, uint64_t idle_ms)
{
	struct lab *lab = calloc(1, sizeof(*lab));
	struct sl_server_options options;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	assert_non_null(lab);
	sl_log_setup(SL_LOG_ERROR, false, 2);
	lab->answer_bytes = 2;
	lab->addr.sun_family = AF_UNIX;
	assert_int_equal(bind(fd, (struct sockaddr *)&lab->addr, sizeof(sa_family_t)), 0);
	lab->len = sizeof(lab->addr);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&lab->addr, &lab->len), 0);
	assert_int_equal(listen(fd, 64), 0);
	assert_int_equal(sl_loop_new(&lab->loop), 0);
	options = (struct sl_server_options){ .loop = lab->loop,
					      .fd = fd,
					      .handle = on_call,
					      .arg = lab,
					      .idle_ms = idle_ms,
					      .head_ms = HEAD_MS,
					      .max_clients = 4 };
	assert_int_equal(sl_server_new(&options, &lab->server), 0);
	fail_accepts = failed_accepts = 0;
	*state = lab;
	return 0;
}

static int setup(void **state)
{
	return setup_with(state, IDLE_MS);
}

/* For tests in which nobody is to be given up for being slow. */
static int setup_patient(void **state)
{
	return setup_with(state, 60000);
}

static int teardown(void **state)
{
	struct lab *lab = *state;

	sl_server_free(lab->server);
	(void)sl_loop_turn(lab->loop, 0);
	sl_loop_free(lab->loop);
	free(lab);
	return 0;
}

static int dial(struct lab *lab)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&lab->addr, lab->len), 0);
	assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
	return fd;
}

static void put(int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* Turns the loop until `*what` has reached `value`. */
static void wait_count(struct lab *lab, const unsigned *what, unsigned value)
{
	uint64_t until = sl_clock_ms() + PATIENCE_MS;

	while (*what < value) {
		assert_int_equal(sl_loop_turn(lab->loop, 1), 0);
		assert_true(sl_clock_ms() < until);
	}
}

static void wait_clients(struct lab *lab, unsigned n)
{
	uint64_t until = sl_clock_ms() + PATIENCE_MS;

	while (sl_server_n_clients(lab->server) != n) {
		assert_int_equal(sl_loop_turn(lab->loop, 1), 0);
		assert_true(sl_clock_ms() < until);
	}
}

/* Reads to the end of the stream and says when it came. */
static uint64_t read_all(struct lab *lab, int fd, struct sl_str *got)
{
	uint64_t until = sl_clock_ms() + PATIENCE_MS;
	char chunk[65536];
	ssize_t n;

	for (;;) {
		assert_int_equal(sl_loop_turn(lab->loop, 1), 0);
		n = recv(fd, chunk, sizeof(chunk), 0);
		if (n == 0 || (n < 0 && errno == ECONNRESET))
			return sl_clock_ms();
		if (n > 0)
			sl_str_add(got, chunk, (size_t)n);
		assert_true(sl_clock_ms() < until);
	}
}

#define GET "GET / HTTP/1.1\r\nHost: x\r\n\r\n"

static void an_idle_client_is_closed_in_silence(void **state)
{
	struct lab *lab = *state;
	_cleanup_(sl_str_done) struct sl_str got = { 0 };
	_cleanup_fd_ int fd = dial(lab);
	uint64_t began = sl_clock_ms();
	uint64_t ended = read_all(lab, fd, &got);

	assert_int_equal(got.len, 0);
	assert_in_range(ended - began, IDLE_MS - 2, IDLE_MS + 3000);
	wait_clients(lab, 0);
}

/* Bytes that trickle in do not prolong the deadline of a head. */
static void half_a_head_has_a_deadline_of_its_own(void **state)
{
	struct lab *lab = *state;
	_cleanup_(sl_str_done) struct sl_str got = { 0 };
	_cleanup_fd_ int fd = dial(lab);
	uint64_t began = sl_clock_ms();
	uint64_t until = began + PATIENCE_MS;

	put(fd, "GET /");
	while (got.len == 0) {
		char chunk[4096];
		ssize_t n;

		(void)send(fd, "a", 1, MSG_NOSIGNAL);
		assert_int_equal(sl_loop_turn(lab->loop, 1), 0);
		n = recv(fd, chunk, sizeof(chunk), 0);
		if (n > 0)
			sl_str_add(&got, chunk, (size_t)n);
		assert_true(sl_clock_ms() < until);
	}
	assert_non_null(strstr(got.p, "HTTP/1.1 408 "));
	assert_in_range(sl_clock_ms() - began, HEAD_MS - 2, HEAD_MS + 3000);
	assert_int_equal(shutdown(fd, SHUT_WR), 0);
	wait_clients(lab, 0);
}

/* After an answer the quiet of keep-alive counts, not what was left of the request. */
static void keep_alive_waits_for_the_idle_time(void **state)
{
	struct lab *lab = *state;
	_cleanup_(sl_str_done) struct sl_str got = { 0 };
	_cleanup_fd_ int fd = dial(lab);
	uint64_t began = sl_clock_ms();

	put(fd, GET);
	wait_count(lab, &lab->n_calls, 1);
	assert_in_range(read_all(lab, fd, &got) - began, IDLE_MS - 2, IDLE_MS + 3000);
	assert_non_null(strstr(got.p, "\r\n\r\nxx"));
}

static void an_unread_answer_is_given_up(void **state)
{
	struct lab *lab = *state;
	_cleanup_fd_ int fd = dial(lab);

	lab->answer_bytes = 8 << 20;
	put(fd, GET);
	wait_count(lab, &lab->n_calls, 1);
	assert_int_equal(sl_server_n_clients(lab->server), 1);
	wait_clients(lab, 0);
}

static void a_slow_reader_gets_everything(void **state)
{
	struct lab *lab = *state;
	_cleanup_(sl_str_done) struct sl_str got = { 0 };
	_cleanup_fd_ int fd = dial(lab);

	lab->answer_bytes = 8 << 20;
	put(fd, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
	(void)read_all(lab, fd, &got);
	assert_true(got.len > lab->answer_bytes);
	assert_int_equal(got.p[got.len - 1], 'x');
}

static void unread_answers_are_bounded_together(void **state)
{
	struct lab *lab = *state;
	_cleanup_(sl_str_done) struct sl_str got = { 0 };
	_cleanup_fd_ int greedy = dial(lab);
	_cleanup_fd_ int second = -1;
	_cleanup_fd_ int third = -1;

	lab->answer_bytes = SL_SERVER_MAX_UNREAD; /* alone, even this is allowed */
	put(greedy, GET);
	wait_count(lab, &lab->n_calls, 1);
	lab->answer_bytes = 1 << 20;
	second = dial(lab);
	put(second, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
	(void)read_all(lab, second, &got);
	assert_non_null(strstr(got.p, "HTTP/1.1 503 "));
	sl_closep(&greedy);
	wait_clients(lab, 0);
	sl_str_clear(&got);
	third = dial(lab);
	put(third, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
	(void)read_all(lab, third, &got);
	assert_non_null(strstr(got.p, "HTTP/1.1 200 "));
}

static void the_longest_inactive_client_makes_room(void **state)
{
	struct lab *lab = *state;
	_cleanup_(sl_str_done) struct sl_str got = { 0 };
	int fd[5];

	for (int i = 0; i < 4; i++) {
		fd[i] = dial(lab);
		wait_clients(lab, (unsigned)i + 1);
	}
	put(fd[0], GET); /* now the second is the longest inactive */
	wait_count(lab, &lab->n_calls, 1);
	fd[4] = dial(lab);
	(void)read_all(lab, fd[1], &got);
	assert_int_equal(sl_server_n_clients(lab->server), 4);
	put(fd[4], GET);
	wait_count(lab, &lab->n_calls, 2);
	for (int i = 0; i < 5; i++)
		(void)close(fd[i]);
}

/* One that waits for its answer is dropped only when nobody is idle. */
static void a_waiting_client_is_dropped_last(void **state)
{
	struct lab *lab = *state;
	struct sl_str body = { 0 };
	int fd[5];

	lab->hold = true;
	fd[0] = dial(lab);
	put(fd[0], GET);
	wait_count(lab, &lab->n_calls, 1);
	for (int i = 1; i < 5; i++) {
		fd[i] = dial(lab);
		wait_clients(lab, i < 4 ? (unsigned)i + 1 : 4);
	}
	assert_int_equal(sl_loop_turn(lab->loop, 1), 0);
	assert_true(sl_call_is_wanted(lab->held));
	sl_str_adds(&body, "late");
	sl_call_reply(lab->held, 200, SL_TYPE_TEXT, &body);
	for (int i = 0; i < 5; i++)
		(void)close(fd[i]);
}

static void running_out_of_descriptors_neither_spins_nor_hurts(void **state)
{
	struct lab *lab = *state;
	_cleanup_fd_ int first = dial(lab);
	_cleanup_fd_ int second = -1;
	char byte;

	wait_clients(lab, 1);
	fail_accepts = 1;
	second = dial(lab);
	wait_count(lab, &failed_accepts, 1);
	assert_int_equal(sl_server_n_clients(lab->server), 0); /* the idle one made room */
	assert_int_equal(recv(first, &byte, 1, 0), 0);
	for (int i = 0; i < 10; i++)
		assert_int_equal(sl_loop_turn(lab->loop, 0), 0);
	assert_int_equal(failed_accepts, 1);
	put(second, GET);
	wait_count(lab, &lab->n_calls, 1); /* accepted after the pause */
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
#define PATIENT(fn) cmocka_unit_test_setup_teardown(fn, setup_patient, teardown)
	const struct CMUnitTest tests[] = {
		T(an_idle_client_is_closed_in_silence),
		T(half_a_head_has_a_deadline_of_its_own),
		T(keep_alive_waits_for_the_idle_time),
		T(an_unread_answer_is_given_up),
		PATIENT(a_slow_reader_gets_everything),
		PATIENT(unread_answers_are_bounded_together),
		PATIENT(the_longest_inactive_client_makes_room),
		PATIENT(a_waiting_client_is_dropped_last),
		PATIENT(running_out_of_descriptors_neither_spins_nor_hurts),
	};

	return cmocka_run_group_tests_name("server", tests, NULL, NULL);
}
