/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Listening sockets: what they inherit to connections, conflicts and what is said about them. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/bind.h"
#include "daemon/listeners.h"

static struct sl_addr ip(const char *text)
{
	struct sl_addr a = { 0 };

	if (text)
		assert_int_equal(sl_addr_parse_ip(text, &a), 0);
	return a;
}

static uint16_t port_of(int fd)
{
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);
	struct sl_addr a;

	assert_int_equal(getsockname(fd, (struct sockaddr *)&ss, &len), 0);
	sl_addr_set(&a, (struct sockaddr *)&ss);
	return sl_addr_port(&a);
}

/* A port that is free on every address now; nobody else asks for ports of this range. */
static uint16_t free_port(void)
{
	const struct sl_addr any = ip(NULL);
	uint16_t port;
	int fd = -1;

	assert_int_equal(sl_bind_tcp(&any, 0, 1, false, &fd), 0);
	port = port_of(fd);
	assert_int_equal(close(fd), 0);
	return port;
}

static int option(int fd, int level, int name)
{
	int value = -1;
	socklen_t len = sizeof(value);

	assert_int_equal(getsockopt(fd, level, name, &value, &len), 0);
	return value;
}

static int dial(const char *text, uint16_t port)
{
	struct sl_addr to = ip(text);
	int fd = socket(sl_addr_family(&to), SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	sl_addr_set_port(&to, port);
	if (connect(fd, &to.sa, sl_addr_len(&to)) == 0)
		return fd;
	assert_int_equal(close(fd), 0);
	return -1;
}

static void test_inherited_options(void **state)
{
	const struct sl_addr any = ip(NULL);
	int fd = -1;
	int client, conn;

	(void)state;
	assert_int_equal(sl_bind_tcp(&any, 0, 16, false, &fd), 0);
	assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
	assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
	assert_int_equal(accept4(fd, NULL, NULL, 0), -1);
	client = dial("127.0.0.1", port_of(fd));
	assert_true(client >= 0);
	conn = accept4(fd, NULL, NULL, 0);
	assert_true(conn >= 0);
	assert_int_equal(option(conn, IPPROTO_TCP, TCP_NODELAY), 1);
	assert_int_equal(option(conn, SOL_SOCKET, SO_KEEPALIVE), 1);
	assert_int_equal(option(conn, IPPROTO_TCP, TCP_KEEPIDLE), 60);
	assert_int_equal(option(conn, IPPROTO_TCP, TCP_KEEPINTVL), 15);
	assert_int_equal(option(conn, IPPROTO_TCP, TCP_KEEPCNT), 5);
	assert_int_equal(close(conn), 0);
	assert_int_equal(close(client), 0);
	client = dial("::1", port_of(fd)); /* the same socket serves both families */
	if (client >= 0)
		assert_int_equal(close(client), 0);
	assert_int_equal(close(fd), 0);
}

static void test_taken(void **state)
{
	const struct sl_addr any = ip(NULL);
	const struct sl_addr one = ip("127.0.0.1");
	const struct sl_addr two = ip("127.0.0.2");
	uint16_t port;
	int fd = -1;
	int other = -7;

	(void)state;
	assert_int_equal(sl_bind_tcp(&one, 0, 16, false, &fd), 0);
	port = port_of(fd);
	assert_true(sl_bind_is_taken(&one, port));
	assert_true(sl_bind_is_taken(&any, port));
	assert_false(sl_bind_is_taken(&two, port));
	assert_int_equal(sl_bind_tcp(&one, port, 16, false, &other), -EADDRINUSE);
	assert_int_equal(sl_bind_tcp(&any, port, 16, false, &other), -EADDRINUSE);
	assert_int_equal(other, -7);
	assert_int_equal(sl_bind_tcp(&two, port, 16, false, &other), 0);
	assert_int_equal(close(other), 0);
	assert_int_equal(close(fd), 0);
	assert_false(sl_bind_is_taken(&one, port));
}

/* The local port of an outgoing connection is in the way of bind(), not of steering. */
static void test_outgoing_is_not_taken(void **state)
{
	const struct sl_addr one = ip("127.0.0.1");
	int fd = -1;
	int client, conn;

	(void)state;
	assert_int_equal(sl_bind_tcp(&one, 0, 16, false, &fd), 0);
	client = dial("127.0.0.1", port_of(fd));
	assert_true(client >= 0);
	conn = accept4(fd, NULL, NULL, 0);
	assert_true(conn >= 0);
	assert_false(sl_bind_is_taken(&one, port_of(client)));
	assert_int_equal(close(conn), 0);
	assert_int_equal(close(client), 0);
	assert_int_equal(close(fd), 0);
}

static void test_explanations(void **state)
{
	static const struct {
		int err;
		uint16_t port;
		const char *part;
	} rows[] = {
		{ -EADDRINUSE, 8080, "ss -ltnp 'sport = :8080'" },
		{ -EACCES, 80, "CAP_NET_BIND_SERVICE" },
		{ -EADDRNOTAVAIL, 80, "no interface" },
		{ -EMFILE, 80, "open files" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct sl_str s = { 0 };

		sl_bind_explain(&s, rows[i].err, rows[i].port);
		assert_non_null(strstr(sl_str_text(&s), rows[i].part));
		sl_str_done(&s);
	}
}

static void test_names(void **state)
{
	const struct sl_addr any = ip(NULL);
	const struct sl_addr one = ip("192.0.2.1");
	char buf[SL_ADDR_TEXT];

	(void)state;
	assert_string_equal(sl_bind_name(&any, 80, buf), "[::]:80");
	assert_string_equal(sl_bind_name(&one, 80, buf), "192.0.2.1:80");
}

static void test_control_socket(void **state)
{
	char dir[] = "/tmp/sluice-unit-XXXXXX";
	char path[64];
	char longer[256];
	struct stat st;
	int fd = -1;
	int again = -1;

	(void)state;
	assert_non_null(mkdtemp(dir));
	(void)snprintf(path, sizeof(path), "%s/control.sock", dir);
	assert_int_equal(sl_bind_control(path, (gid_t)-1, &fd), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_true(S_ISSOCK(st.st_mode));
	assert_int_equal(st.st_mode & 0777, 0660);
	/* A stale one is replaced. */
	assert_int_equal(sl_bind_control(path, (gid_t)-1, &again), 0);
	assert_int_equal(close(fd), 0);
	assert_int_equal(close(again), 0);
	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	assert_int_equal(sl_bind_control(longer, (gid_t)-1, &fd), -ENAMETOOLONG);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(rmdir(dir), 0);
}

/* ---- sets of listeners ---- */

struct bench {
	struct sl_conf conf;
	struct sl_listen_spec spec[4];
	struct sl_conf_sources sources;
	struct sl_steering steering;
	struct sl_str report;
	uint64_t next_id;
};

static void wants(struct bench *b, size_t n, const struct sl_listen_spec *spec)
{
	memcpy(b->spec, spec, n * sizeof(*spec));
	b->conf = (struct sl_conf){ .listens = b->spec, .n_listens = n };
	sl_str_clear(&b->report);
}

static int build(struct bench *b, const struct sl_listeners *old, struct sl_listeners *ret)
{
	const struct sl_listen_plan plan = { .conf = &b->conf,
					     .sources = &b->sources,
					     .old = old,
					     .steering = &b->steering,
					     .next_id = &b->next_id };

	return sl_listeners_build(&plan, ret, &b->report);
}

static bool accepts(const char *address, uint16_t port, int listener)
{
	int client = dial(address, port);
	int conn = accept4(listener, NULL, NULL, 0);
	bool ok = client >= 0 && conn >= 0;

	if (client >= 0)
		assert_int_equal(close(client), 0);
	if (conn >= 0)
		assert_int_equal(close(conn), 0);
	return ok;
}

static void test_unchanged_is_kept(void **state)
{
	const struct sl_listeners none = { 0 };
	struct bench b = { .next_id = 1 };
	uint16_t port = free_port();
	uint16_t other = free_port();
	struct sl_listeners first, second, third;
	int fd;

	(void)state;
	wants(&b, 1, &(struct sl_listen_spec){ .from = port, .to = port, .backlog = 16 });
	assert_int_equal(build(&b, &none, &first), 0);
	assert_int_equal(first.n, 1);
	fd = first.item[0].fd;
	wants(&b, 2,
	      (struct sl_listen_spec[]){ { .from = port, .to = port, .backlog = 32 },
					 { .from = other, .to = other, .backlog = 16 } });
	assert_int_equal(build(&b, &first, &second), 0);
	assert_int_equal(second.n, 2);
	sl_listeners_replace(&first, &second);
	for (size_t i = 0; i < 2; i++)
		assert_true((second.item[i].fd == fd) == (second.item[i].from == port));
	assert_true(accepts("127.0.0.1", port, fd));
	/* Giving up a set that was to follow leaves the one in force alone. */
	wants(&b, 1, &(struct sl_listen_spec){ .from = port, .to = port, .backlog = 16 });
	assert_int_equal(build(&b, &second, &third), 0);
	assert_int_equal(third.item[0].fd, fd);
	assert_int_equal(third.item[0].id, 1);
	sl_listeners_cancel(&third, &second);
	assert_true(accepts("127.0.0.1", port, fd));
	sl_listeners_done(&second);
	assert_int_equal(fcntl(fd, F_GETFD), -1);
	sl_str_done(&b.report);
}

/* From one address to every address and back, with the port served all the time. */
static void test_wider_and_narrower(void **state)
{
	const struct sl_listeners none = { 0 };
	struct bench b = { .next_id = 1 };
	uint16_t port = free_port();
	const struct sl_listen_spec narrow = {
		.ip = ip("127.0.0.1"), .from = port, .to = port, .backlog = 16
	};
	const struct sl_listen_spec wide = { .from = port, .to = port, .backlog = 16 };
	struct sl_listeners a, c, d;
	int foreign = -1;

	(void)state;
	wants(&b, 1, &narrow);
	assert_int_equal(build(&b, &none, &a), 0);
	wants(&b, 1, &wide);
	assert_int_equal(build(&b, &a, &c), 0);
	assert_true(accepts("127.0.0.1", port, a.item[0].fd)); /* the old one until it is closed */
	assert_true(accepts("127.0.0.2", port, c.item[0].fd));
	/* Another instance does not get the port by accident. */
	assert_int_equal(sl_bind_tcp(&wide.ip, port, 16, false, &foreign), -EADDRINUSE);
	assert_int_equal(sl_bind_tcp(&narrow.ip, port, 16, false, &foreign), -EADDRINUSE);
	sl_listeners_replace(&a, &c);
	assert_true(accepts("127.0.0.1", port, c.item[0].fd));
	wants(&b, 1, &narrow);
	assert_int_equal(build(&b, &c, &d), 0);
	sl_listeners_replace(&c, &d);
	assert_true(accepts("127.0.0.1", port, d.item[0].fd));
	assert_int_equal(dial("127.0.0.2", port), -1);
	sl_listeners_done(&d);
	sl_str_done(&b.report);
}

static void test_conflict_changes_nothing(void **state)
{
	const struct sl_listeners none = { 0 };
	const struct sl_addr any = ip(NULL);
	struct sl_conf_source source = { .name = (char *)"test.yaml" };
	struct bench b = { .next_id = 1, .sources = { &source, 1 } };
	uint16_t port = free_port();
	struct sl_listeners a, failed = { 0 };
	int foreign = -1;

	(void)state;
	assert_int_equal(sl_bind_tcp(&any, 0, 16, false, &foreign), 0);
	wants(&b, 1, &(struct sl_listen_spec){ .from = port, .to = port, .backlog = 16 });
	assert_int_equal(build(&b, &none, &a), 0);
	wants(&b, 2,
	      (struct sl_listen_spec[]){
		      { .from = port, .to = port, .backlog = 16 },
		      { .from = port_of(foreign),
			.to = port_of(foreign),
			.backlog = 16,
			.mark = { .line = 42 } },
	      });
	assert_int_equal(build(&b, &a, &failed), -EADDRINUSE);
	assert_int_equal(failed.n, 0);
	assert_non_null(strstr(sl_str_text(&b.report), "test.yaml:42: "));
	assert_non_null(strstr(sl_str_text(&b.report), "ss -ltnp"));
	assert_true(accepts("127.0.0.1", port, a.item[0].fd));
	sl_listeners_done(&a);
	sl_str_done(&b.report);
	assert_int_equal(close(foreign), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_inherited_options),
		cmocka_unit_test(test_taken),
		cmocka_unit_test(test_outgoing_is_not_taken),
		cmocka_unit_test(test_explanations),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_control_socket),
		cmocka_unit_test(test_unchanged_is_kept),
		cmocka_unit_test(test_wider_and_narrower),
		cmocka_unit_test(test_conflict_changes_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
