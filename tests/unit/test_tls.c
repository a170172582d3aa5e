/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The TLS client against a server of the library itself, and against peers that are none. */
#include "tls_server.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "daemon/sandbox.h"
#include "tls/client.h"
#include "tls/library.h"

#define SKIPPED 77

struct peer {
	struct sl_tls_client *client;
	struct sl_tls_conn *conn;
	int fd;
};

static int connect_to(uint16_t port)
{
	struct sockaddr_in a = { .sin_family = AF_INET,
				 .sin_port = htons(port),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	return connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0 && errno != EINPROGRESS ? -errno
											 : fd;
}

static int open_peer(struct peer *p, uint16_t port, const char *name)
{
	*p = (struct peer){ .fd = connect_to(port) };
	if (p->fd < 0)
		return p->fd;
	if (sl_tls_client_new_unverified(&p->client) < 0)
		return -ENOMEM;
	return sl_tls_connect(p->client, p->fd, name, &p->conn);
}

static void close_peer(struct peer *p)
{
	sl_tls_conn_free(p->conn);
	sl_tls_client_free(p->client);
	(void)close(p->fd);
}

/* Waits as the step asks; -ETIME: it asks for ever. */
static int wait_for(struct peer *p, int want)
{
	struct pollfd f = { .fd = p->fd, .events = want == SL_TLS_WANT_READ ? POLLIN : POLLOUT };

	return poll(&f, 1, 5000) == 1 ? 0 : -ETIME;
}

static int handshake(struct peer *p)
{
	struct pollfd f = { .fd = p->fd, .events = POLLOUT };
	int r = poll(&f, 1, 5000) == 1 ? sl_tls_handshake(p->conn) : -ETIME;

	while (r > 0) {
		r = wait_for(p, r);
		if (r == 0)
			r = sl_tls_handshake(p->conn);
	}
	return r;
}

static int read_one(struct peer *p, char *buf, size_t n, size_t *ret_n)
{
	int r = sl_tls_read(p->conn, buf, n, ret_n);

	while (r > 0) {
		r = wait_for(p, r);
		if (r == 0)
			r = sl_tls_read(p->conn, buf, n, ret_n);
	}
	return r;
}

/* A request and its answer up to the end; returns the bytes of the answer or -errno. */
static int converse(struct peer *p, const char *request, char *answer, size_t room)
{
	size_t have = 0;
	size_t n = 0;
	int r = sl_tls_write(p->conn, request, strlen(request), &n);

	if (r != SL_TLS_DONE || n != strlen(request))
		return -EIO;
	do {
		r = read_one(p, answer + have, room - have, &n);
		if (r < 0)
			return r;
		have += n;
	} while (n > 0);
	return (int)have;
}

static void answers_are_read_to_the_end(void **state)
{
	struct tls_server s;
	struct peer p;
	char answer[64];

	(void)state;
	start_tls_server(&s, "hello");
	assert_int_equal(open_peer(&p, s.port, "shop.example"), 0);
	assert_int_equal(handshake(&p), 0);
	assert_int_equal(converse(&p, "x\r\n\r\n", answer, sizeof(answer)), 5);
	assert_memory_equal(answer, "hello", 5);
	sl_tls_say_end(p.conn);
	close_peer(&p);
	stop_tls_server(&s);
	assert_string_equal(s.name, "shop.example");
	assert_int_equal(s.n_handshakes, 1);
	assert_int_equal(s.n_resets, 0);
}

/* An end that anybody on the way could have made is not taken for the server's. */
static void a_cut_answer_is_an_error(void **state)
{
	struct tls_server s;
	struct peer p;
	char answer[64];

	(void)state;
	start_tls_server(&s, "hello");
	s.rude = true;
	assert_int_equal(open_peer(&p, s.port, NULL), 0);
	assert_int_equal(handshake(&p), 0);
	assert_int_equal(converse(&p, "x\r\n\r\n", answer, sizeof(answer)), -EPIPE);
	assert_string_equal(sl_tls_conn_error(p.conn), "connection closed");
	close_peer(&p);
	stop_tls_server(&s);
	assert_string_equal(s.name, "");
}

static void old_versions_are_good_enough(void **state)
{
	static const int versions[] = { TLS1_VERSION, TLS1_1_VERSION, TLS1_2_VERSION,
					TLS1_3_VERSION };

	(void)state;
	for (size_t i = 0; i < sizeof(versions) / sizeof(versions[0]); i++) {
		struct tls_server s;
		struct peer p;

		start_tls_server(&s, NULL);
		SSL_CTX_set_security_level(s.ctx, 0);
		assert_int_equal(SSL_CTX_set_min_proto_version(s.ctx, versions[i]), 1);
		assert_int_equal(SSL_CTX_set_max_proto_version(s.ctx, versions[i]), 1);
		assert_int_equal(open_peer(&p, s.port, NULL), 0);
		assert_int_equal(handshake(&p), 0);
		close_peer(&p);
		stop_tls_server(&s);
	}
}

/* What a peer that is no TLS server says, and what becomes of the handshake. */
static void assert_refused(const char *says, size_t n, int want, const char *text)
{
	int listener = listen_on_loopback(0, 1);
	char hello[4096];
	struct peer p;
	int fd;
	int r;

	assert_int_equal(open_peer(&p, port_of(listener), NULL), 0);
	fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	assert_true(fd >= 0);
	r = sl_tls_handshake(p.conn);
	assert_int_equal(r, SL_TLS_WANT_READ);
	assert_true(recv(fd, hello, sizeof(hello), 0) > 0);
	if (n)
		assert_int_equal(send(fd, says, n, 0), n);
	assert_int_equal(close(fd), 0);
	while (r > 0) {
		assert_int_equal(wait_for(&p, r), 0);
		r = sl_tls_handshake(p.conn);
	}
	assert_int_equal(r, want);
	assert_string_equal(sl_tls_conn_error(p.conn), text);
	sl_tls_say_end(p.conn); /* nothing to end: harmless */
	close_peer(&p);
	assert_int_equal(close(listener), 0);
}

static void others_are_told_from_servers(void **state)
{
	(void)state;
	assert_refused("HTTP/1.1 400 Bad Request\r\n\r\n", 28, -EPROTO, "wrong version number");
	assert_refused("\x15\x03\x03\x00\x02\x02\x28", 7, -EPROTO, "sslv3 alert handshake failure");
	assert_refused("", 0, -EPIPE, "connection closed");
	assert_refused("\x16\x03\x03", 3, -EPIPE, "connection closed");
}

static void resets_are_told(void **state)
{
	int listener = listen_on_loopback(0, 1);
	const struct linger now = { .l_onoff = 1 };
	struct peer p;
	int fd;

	(void)state;
	assert_int_equal(open_peer(&p, port_of(listener), NULL), 0);
	fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	assert_int_equal(sl_tls_handshake(p.conn), SL_TLS_WANT_READ);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now)), 0);
	assert_int_equal(close(fd), 0);
	assert_int_equal(wait_for(&p, SL_TLS_WANT_READ), 0);
	assert_int_equal(sl_tls_handshake(p.conn), -ECONNRESET);
	assert_string_equal(sl_tls_conn_error(p.conn), strerror(ECONNRESET));
	close_peer(&p);
	assert_int_equal(close(listener), 0);
}

/* Errors of one connection must not be found by another of the same thread. */
static void errors_stay_with_their_connection(void **state)
{
	struct tls_server s;
	struct peer p;

	(void)state;
	start_tls_server(&s, NULL);
	assert_int_equal(open_peer(&p, s.port, NULL), 0);
	others_are_told_from_servers(NULL);
	ERR_raise(ERR_LIB_SSL, SSL_R_BAD_LENGTH);
	assert_int_equal(handshake(&p), 0);
	assert_string_equal(sl_tls_conn_error(p.conn), "");
	assert_int_equal(ERR_peek_error(), 0);
	close_peer(&p);
	stop_tls_server(&s);
}

/* In the proxy's sandbox, where a file that is opened or an unknown call would show. */
static int in_sandbox(int port_fd)
{
	uint16_t port = 0;
	struct peer p;
	char answer[64];
	bool on = false;
	int r;

	if (read(port_fd, &port, sizeof(port)) != sizeof(port))
		return 101;
	if (sl_tls_init() < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
	    sl_sandbox_enter(SL_ROLE_PROXY, &on) < 0)
		return 100;
	if (!on)
		return SKIPPED;
	r = open_peer(&p, port, "shop.example");
	if (r == 0)
		r = handshake(&p);
	if (r < 0)
		return 1;
	if (converse(&p, "x\r\n\r\n", answer, sizeof(answer)) != 5)
		return 2;
	sl_tls_say_end(p.conn);
	close_peer(&p);
	return 0;
}

static void works_in_the_sandbox(void **state)
{
	struct tls_server s;
	int port[2];
	int status;
	pid_t pid;

	(void)state;
	/* It must have inherited nothing of the library's state. */
	assert_int_equal(pipe(port), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(in_sandbox(port[0]));
	start_tls_server(&s, "hello");
	assert_int_equal(write(port[1], &s.port, sizeof(s.port)), sizeof(s.port));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	stop_tls_server(&s);
	(void)close(port[0]);
	(void)close(port[1]);
	if (WIFEXITED(status) && WEXITSTATUS(status) == SKIPPED)
		skip();
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(works_in_the_sandbox),
		cmocka_unit_test(answers_are_read_to_the_end),
		cmocka_unit_test(a_cut_answer_is_an_error),
		cmocka_unit_test(old_versions_are_good_enough),
		cmocka_unit_test(others_are_told_from_servers),
		cmocka_unit_test(resets_are_told),
		cmocka_unit_test(errors_stay_with_their_connection),
	};

	(void)signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
