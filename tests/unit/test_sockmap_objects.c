/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Maps, program and pins of the sockmap engine, and what the program does with real sockets; needs
 * root, runs in a network namespace and on a bpf file system of its own.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <cmocka.h>

#include "accel/packet_impl.h"
#include "accel/sockmap_impl.h"
#include "base/clock.h"
#include "netns.h"
#include "slow.h"

#define LIMIT (1u << 20)
#define N_PAIRS 512

static const char *why_skipped;
static char root[] = "/tmp/sl_sockmap.XXXXXX"; /* the bpf file system */
static char dir[64];
static struct utsname kernel;
static int listener = -1;
static uint64_t last_conn_id = 100;

static const struct sl_sockmap_options usual = { .dir = dir };

/* ---- surroundings ---- */

static int listen_on_loopback(void)
{
	struct sockaddr_in addr = { .sin_family = AF_INET,
				    .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, 64) < 0)
		return -1;
	return fd;
}

static int set_up(void **state)
{
	(void)state;
	(void)uname(&kernel);
	if (geteuid() != 0) {
		why_skipped = "not root";
		return 0;
	}
	if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    enter_netns() < 0) {
		why_skipped = "no namespaces of its own";
		return 0;
	}
	if (!mkdtemp(root) || mount("bpf", root, "bpf", 0, "mode=0700") < 0) {
		why_skipped = "no bpf file system";
		return 0;
	}
	(void)snprintf(dir, sizeof(dir), "%s/sluice", root);
	listener = listen_on_loopback();
	return listener < 0 ? -1 : 0;
}

static int tear_down(void **state)
{
	(void)state;
	if (why_skipped)
		return 0;
	(void)close(listener);
	(void)umount(root);
	(void)rmdir(root);
	return 0;
}

static void need_kernel(void)
{
	int major = 0;
	int minor = 0;

	if (!why_skipped && sscanf(kernel.release, "%d.%d", &major, &minor) == 2 &&
	    (major < 6 || (major == 6 && minor < 12)))
		why_skipped = "needs Linux 6.12";
	if (why_skipped) {
		print_message("skipped: %s\n", why_skipped);
		skip();
	}
}

static char *in_dir(const char *name)
{
	static char path[4][128];
	static unsigned i;

	i = (i + 1) % 4;
	(void)snprintf(path[i], sizeof(path[i]), "%s/%s", dir, name);
	return path[i];
}

/* Names in the directory, in order. */
static const char *listing(void)
{
	static char text[512];
	struct dirent **names = NULL;
	int n = scandir(dir, &names, NULL, alphasort);

	text[0] = '\0';
	for (int i = 0; i < n; i++) {
		if (names[i]->d_name[0] != '.') {
			(void)strcat(text, names[i]->d_name);
			(void)strcat(text, " ");
		}
		free(names[i]);
	}
	free(names);
	return text;
}

#define PINS                                                                 \
	"sockmap_counters sockmap_events sockmap_flows sockmap_meta "        \
	"sockmap_orders sockmap_prog sockmap_slots sockmap_sources sockmap_" \
	"targets "

static struct sl_sockmap *open_with(const struct sl_sockmap_options *o, uint32_t n_pairs,
				    struct sl_sockmap_found *found)
{
	struct sl_sockmap_found unread;
	struct sl_sockmap *s = NULL;
	struct sl_str report = { 0 };
	int r = sl_sockmap_open_as(o, n_pairs, kernel.release, found ? found : &unread, &report,
				   &s);

	if (r < 0)
		fail_msg("open: %d %s", r, sl_str_text(&report));
	assert_string_equal(sl_str_text(&report), "");
	sl_str_done(&report);
	return s;
}

static struct sl_sockmap *open_usual(struct sl_sockmap_found *found)
{
	return open_with(&usual, N_PAIRS, found);
}

static int purge(struct sl_str *report)
{
	struct sl_str unread = { 0 };
	int r = sl_sockmap_purge(dir, report ? report : &unread);

	if (r == 0)
		r = sl_packet_purge(dir, &unread);
	sl_str_done(&unread);
	return r;
}

static int clean(void **state)
{
	(void)state;
	if (why_skipped)
		return 0;
	return purge(NULL) == 0 && access(dir, F_OK) < 0 ? 0 : -1;
}

static int get_pin(const char *name)
{
	int fd = bpf_obj_get(in_dir(name));

	if (fd < 0)
		fail_msg("no pin %s", name);
	return fd;
}

/* ---- sockets ---- */

/* client <-> in, out <-> server; `in` and `out` are the proxy's. */
struct lab {
	int client;
	int in;
	int out;
	int server;
	struct sl_sockmap_pair p;
};

static void connect_pair(int *ret_connected, int *ret_accepted)
{
	struct sockaddr_in addr;
	socklen_t size = sizeof(addr);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&addr, &size), 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	*ret_accepted = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	assert_true(*ret_accepted >= 0);
	assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
	*ret_connected = fd;
}

static uint64_t cookie_of(int fd)
{
	uint64_t cookie = 0;
	socklen_t size = sizeof(cookie);

	assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &size), 0);
	return cookie;
}

static void lab_open(struct lab *l, uint32_t limit)
{
	connect_pair(&l->client, &l->in);
	connect_pair(&l->out, &l->server);
	l->p = (struct sl_sockmap_pair){ .conn_id = ++last_conn_id,
					 .fd = { l->in, l->out },
					 .cookie = { cookie_of(l->in), cookie_of(l->out) },
					 .limit = limit };
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
	*fd = -1;
}

static void lab_close(struct lab *l)
{
	close_fd(&l->client);
	close_fd(&l->in);
	close_fd(&l->out);
	close_fd(&l->server);
}

#define PATIENCE_MS (5000 * (int)slow())

static void wait_for(int fd, short events)
{
	struct pollfd p = { .fd = fd, .events = events };

	if (poll(&p, 1, PATIENCE_MS) != 1)
		fail_msg("nothing happens to the socket");
}

static void put(int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* All of `text`, and that it is no more. */
static void get(int fd, const char *text)
{
	char buf[256];
	size_t n = 0;

	while (n < strlen(text)) {
		ssize_t r;

		wait_for(fd, POLLIN);
		r = recv(fd, buf + n, sizeof(buf) - 1 - n, 0);
		if (r <= 0 && !(r < 0 && errno == EAGAIN))
			fail_msg("end after %zu: %zd %d", n, r, errno);
		n += r > 0 ? (size_t)r : 0;
	}
	buf[n] = '\0';
	assert_string_equal(buf, text);
}

__attribute__((unused)) static void get_end(int fd)
{
	char c;

	wait_for(fd, POLLIN);
	assert_int_equal(recv(fd, &c, 1, 0), 0);
}

__attribute__((unused)) static void kick(const struct lab *l)
{
	char c;

	(void)recv(l->in, &c, 1, MSG_PEEK | MSG_DONTWAIT);
	(void)recv(l->out, &c, 1, MSG_PEEK | MSG_DONTWAIT);
}

static uint32_t join(struct sl_sockmap *s, const struct lab *l)
{
	uint32_t pair = UINT32_MAX;
	int r = sl_sockmap_join(s, &l->p, &pair);

	if (r < 0)
		fail_msg("join: %d", r);
	return pair;
}

static const struct sl_sockmap_slot *slot_of(const struct sl_sockmap *s, uint32_t pair, int side)
{
	return &sl_sockmap_slots(s)[2 * pair + (uint32_t)side];
}

static void facts_are(const struct sl_sockmap *s, uint32_t pair, const struct lab *l, bool all)
{
	struct sl_sockmap_facts f;

	sl_sockmap_look(s, pair, &f);
	assert_int_equal(f.conn_id, all ? l->p.conn_id : 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(f.cookie[i], all ? l->p.cookie[i] : 0);
		assert_int_equal(f.has_flow[i], all);
		assert_int_equal(f.is_target[i], all);
		assert_int_equal(f.is_source[i], all);
	}
}

/* ---- opening ---- */

static void test_fresh(void **state)
{
	struct sl_sockmap_found found;
	struct sl_sockmap *s;
	struct sl_sockmap_meta meta;
	uint32_t zero = 0;
	int fd;

	(void)state;
	need_kernel();
	assert_false(sl_sockmap_is_pinned(dir));
	s = open_usual(&found);
	assert_string_equal(listing(), PINS);
	assert_true(sl_sockmap_is_pinned(dir));
	assert_false(found.is_adopted);
	assert_string_equal(found.why, "");
	assert_int_equal(found.n_pairs, 0);
	fd = get_pin("sockmap_meta");
	assert_int_equal(bpf_map_lookup_elem(fd, &zero, &meta), 0);
	assert_int_equal(meta.layout, SL_SOCKMAP_LAYOUT);
	assert_int_equal(meta.owner_pid, getpid());
	assert_string_equal(meta.version, SL_VERSION);
	(void)close(fd);
	sl_sockmap_close(s);
	assert_string_equal(listing(), PINS);
}

/* ---- pairs ---- */

static void test_join(void **state)
{
	struct sl_sockmap *s;
	struct lab l;
	uint32_t pair;

	(void)state;
	need_kernel();
	s = open_usual(NULL);
	lab_open(&l, LIMIT);
	pair = join(s, &l);
	assert_int_equal(sl_sockmap_n_pairs(s), 1);
	facts_are(s, pair, &l, true);
	put(l.client, "to the server");
	get(l.server, "to the server");
	put(l.server, "and back");
	get(l.client, "and back");
	assert_int_equal(slot_of(s, pair, SL_SOCKMAP_CLIENT)->redirected, 13);
	assert_int_equal(slot_of(s, pair, SL_SOCKMAP_BACKEND)->redirected, 8);
	assert_int_equal(slot_of(s, pair, SL_SOCKMAP_CLIENT)->passed, 0);
	sl_sockmap_leave(s, pair, l.p.conn_id + 1);
	facts_are(s, pair, &l, true);
	sl_sockmap_leave(s, pair, l.p.conn_id);
	facts_are(s, pair, &l, false);
	assert_int_equal(sl_sockmap_n_pairs(s), 0);
	put(l.client, "x"); /* a plain socket again */
	get(l.in, "x");
	lab_close(&l);
	sl_sockmap_close(s);
}

/* ---- the start-up test ---- */

static void test_check(void **state)
{
	struct sl_sockmap *s;
	struct sl_str report = { 0 };

	(void)state;
	need_kernel();
	s = open_usual(NULL);
	for (int i = 0; i < 5; i++) {
		uint64_t start = sl_clock_us();
		int r = sl_sockmap_check(s, &report);

		if (r < 0)
			fail_msg("check: %d %s", r, sl_str_text(&report));
		print_message("%llu us\n", (unsigned long long)(sl_clock_us() - start));
		assert_int_equal(sl_sockmap_n_pairs(s), 0);
		assert_int_equal(sl_sockmap_sweep(s), 0);
	}
	sl_sockmap_close(s);
}

/* ---- all ---- */

#define OBJECTS(test) cmocka_unit_test_setup_teardown(test, clean, clean)

int main(void)
{
	const struct CMUnitTest tests[] = {
		OBJECTS(test_fresh),
		OBJECTS(test_join),
		OBJECTS(test_check),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
