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
#include <linux/ip.h>
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
#include <sys/mman.h>
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
#include "daemon/sandbox.h"
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

SL_PRINTF(1, 2)
static void command(const char *fmt, ...)
{
	char text[256];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (system(text) != 0)
		fail_msg("%s", text);
}

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
	const int one = 1;

	connect_pair(&l->client, &l->in);
	connect_pair(&l->out, &l->server);
	(void)setsockopt(l->in, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	(void)setsockopt(l->out, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
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

static void get_end(int fd)
{
	char c;

	wait_for(fd, POLLIN);
	assert_int_equal(recv(fd, &c, 1, 0), 0);
}

static void kick(const struct lab *l)
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

static int try_release(const char *release, struct sl_str *report)
{
	struct sl_sockmap_found found;
	struct sl_sockmap *s = NULL;
	int r;

	sl_str_clear(report);
	r = sl_sockmap_open_as(&usual, N_PAIRS, release, &found, report, &s);
	sl_sockmap_close(s);
	return r;
}

static void test_releases(void **state)
{
	struct sl_str report = { 0 };

	(void)state;
	need_kernel();
	assert_int_equal(try_release("6.11.9", &report), -ENOTSUP);
	assert_non_null(strstr(sl_str_text(&report), "6.12"));
	assert_int_equal(try_release("5.20.1-cloud", &report), -ENOTSUP);
	assert_int_equal(try_release("strange", &report), -ENOTSUP);
	assert_int_equal(access(dir, F_OK), -1);
	assert_int_equal(try_release("6.12.0-cloud", &report), 0);
	assert_int_equal(try_release("7.0.0", &report), 0);
	sl_str_done(&report);
}

static int open_fails(const struct sl_sockmap_options *o, const char *word)
{
	struct sl_sockmap_found found;
	struct sl_sockmap *s = NULL;
	struct sl_str report = { 0 };
	int r = sl_sockmap_open(o, &found, &report, &s);

	if (!strstr(sl_str_text(&report), word))
		fail_msg("%d %s", r, sl_str_text(&report));
	sl_str_done(&report);
	return r;
}

static void test_directory(void **state)
{
	const struct sl_sockmap_options not_bpf = { .dir = "/tmp/sl_sockmap_none" };
	struct sl_sockmap *s;

	(void)state;
	need_kernel();
	assert_int_equal(open_fails(&not_bpf, "not on a bpf file system"), -ENODEV);
	assert_int_equal(mkdir(dir, 0700), 0);
	assert_int_equal(chown(dir, 12345, 12345), 0);
	assert_int_equal(open_fails(&usual, "belongs to another user"), -EPERM);
	assert_string_equal(listing(), "");
	assert_int_equal(chown(dir, 0, 0), 0);
	s = open_usual(NULL);
	assert_int_equal(open_fails(&usual, "in use by another daemon"), -EBUSY);
	assert_int_equal(purge(NULL), -EBUSY);
	sl_sockmap_close(s);
}

static uint32_t id_in(const char *name)
{
	int fd = get_pin(name);
	uint32_t id =
		strcmp(name, "sockmap_prog") == 0 ? sl_packet_prog_id(fd) : sl_packet_map_id(fd);

	(void)close(fd);
	assert_true(id > 0);
	return id;
}

static uint32_t attached_id(void)
{
	uint32_t id = 0;
	uint32_t n = 1;
	int fd = get_pin("sockmap_sources");

	assert_int_equal(bpf_prog_query(fd, BPF_SK_SKB_STREAM_VERDICT, 0, NULL, &id, &n), 0);
	(void)close(fd);
	return n == 1 ? id : 0;
}

/* What was pinned is given up, all of it. */
static void expect_anew(const char *why)
{
	struct sl_sockmap_found found;
	uint32_t before = id_in("sockmap_sources");
	struct sl_sockmap *s = open_usual(&found);

	assert_false(found.is_adopted);
	assert_int_equal(found.n_pairs, 0);
	assert_string_equal(found.why, why);
	assert_string_equal(listing(), PINS);
	assert_int_not_equal(id_in("sockmap_sources"), before);
	assert_int_equal(attached_id(), id_in("sockmap_prog"));
	sl_sockmap_close(s);
}

static void test_other_layout(void **state)
{
	struct sl_sockmap_meta meta;
	uint32_t zero = 0;
	int fd;

	(void)state;
	need_kernel();
	sl_sockmap_close(open_usual(NULL));
	fd = get_pin("sockmap_meta");
	assert_int_equal(bpf_map_lookup_elem(fd, &zero, &meta), 0);
	meta.layout = SL_SOCKMAP_LAYOUT + 6;
	assert_int_equal(bpf_map_update_elem(fd, &zero, &meta, BPF_ANY), 0);
	(void)close(fd);
	expect_anew("layout 7 instead of 1");
}

static void put_other(const char *name)
{
	int fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, "other", 4, 12, 1, NULL);

	assert_true(fd >= 0);
	assert_int_equal(unlink(in_dir(name)), 0);
	assert_int_equal(bpf_obj_pin(fd, in_dir(name)), 0);
	(void)close(fd);
}

static void test_other_shapes(void **state)
{
	struct sl_sockmap_found found;

	(void)state;
	need_kernel();
	sl_sockmap_close(open_usual(NULL));
	put_other("sockmap_slots");
	expect_anew("sockmap_slots has another shape");
	assert_int_equal(unlink(in_dir("sockmap_targets")), 0);
	expect_anew("sockmap_targets is not pinned");
	assert_int_equal(unlink(in_dir("sockmap_flows")), 0);
	assert_int_equal(symlink("nowhere", in_dir("sockmap_flows")), 0);
	sl_sockmap_close(open_usual(&found));
	assert_false(found.is_adopted);
	/* a table of another size */
	sl_sockmap_close(open_with(&usual, N_PAIRS / 2, &found));
	assert_false(found.is_adopted);
	assert_non_null(strstr(found.why, "sockmap_flows has another shape"));
}

/* Those that hold nothing of a connection. */
static void test_adopt_without_some(void **state)
{
	struct sl_sockmap_found found;
	struct sl_sockmap *s;
	uint32_t sources;

	(void)state;
	need_kernel();
	sl_sockmap_close(open_usual(NULL));
	sources = id_in("sockmap_sources");
	put_other("sockmap_counters");
	assert_int_equal(unlink(in_dir("sockmap_events")), 0);
	assert_int_equal(unlink(in_dir("sockmap_prog")), 0);
	s = open_usual(&found);
	assert_true(found.is_adopted);
	assert_string_equal(found.why, "sockmap_events is not pinned; "
				       "sockmap_counters has another shape");
	assert_int_equal(id_in("sockmap_sources"), sources);
	assert_string_equal(listing(), PINS);
	sl_sockmap_close(s);
}

static void test_purge(void **state)
{
	struct sl_str report = { 0 };

	(void)state;
	need_kernel();
	assert_int_equal(sl_sockmap_purge(dir, &report), 0);
	assert_string_equal(sl_str_text(&report), "");
	sl_sockmap_close(open_usual(NULL));
	assert_int_equal(mkdir(in_dir("else"), 0700), 0);
	assert_int_equal(unlink(in_dir("sockmap_orders")), 0);
	assert_int_equal(mkdir(in_dir("sockmap_orders"), 0700), 0);
	assert_int_equal(sl_sockmap_purge(dir, &report), 0);
	assert_string_equal(listing(), "else sockmap_orders ");
	assert_non_null(strstr(sl_str_text(&report), "/sockmap_prog\n"));
	assert_non_null(strstr(sl_str_text(&report), "/sockmap_orders: not ours\n"));
	assert_non_null(strstr(sl_str_text(&report), "it holds other things\n"));
	assert_false(sl_sockmap_is_pinned(dir));
	assert_int_equal(rmdir(in_dir("else")), 0);
	assert_int_equal(rmdir(in_dir("sockmap_orders")), 0);
	sl_str_clear(&report);
	assert_int_equal(sl_sockmap_purge(dir, &report), 0);
	assert_non_null(strstr(sl_str_text(&report), "removed "));
	assert_int_equal(access(dir, F_OK), -1);
	sl_str_done(&report);
}

static void test_repin(void **state)
{
	struct sl_sockmap *s;
	unsigned n = 99;
	uint32_t prog;
	int fd;

	(void)state;
	need_kernel();
	s = open_usual(NULL);
	prog = id_in("sockmap_prog");
	assert_int_equal(attached_id(), prog);
	assert_int_equal(sl_sockmap_repin(s, &n, NULL), 0);
	assert_int_equal(n, 0);
	assert_int_equal(unlink(in_dir("sockmap_prog")), 0);
	put_other("sockmap_events");
	fd = get_pin("sockmap_sources");
	assert_int_equal(bpf_prog_detach2(s->prog, fd, BPF_SK_SKB_STREAM_VERDICT), 0);
	(void)close(fd);
	assert_int_equal(attached_id(), 0);
	assert_int_equal(sl_sockmap_repin(s, &n, NULL), 0);
	assert_int_equal(n, 3);
	assert_int_equal(attached_id(), prog);
	assert_int_equal(id_in("sockmap_prog"), prog);
	command("rm -r %s", dir);
	assert_int_equal(sl_sockmap_repin(s, &n, NULL), 0);
	assert_int_equal(n, 9);
	assert_string_equal(listing(), PINS);
	assert_int_equal(open_fails(&usual, "in use by another daemon"), -EBUSY);
	sl_sockmap_close(s);
}

/* ---- beside the packet engine ---- */

static const struct sl_packet_options packet_usual = {
	.dir = dir, .max_flows = 4096, .port_from = 40000, .port_to = 41000
};
#define PACKET_PINS "counters events flows meta ports prog_control prog_freeze prog_tc routes "

static struct sl_packet *open_packet(struct sl_packet_found *found)
{
	struct sl_packet *p = NULL;
	struct sl_str report = { 0 };
	int r = sl_packet_open(&packet_usual, found, &report, &p);

	if (r < 0)
		fail_msg("open: %d %s", r, sl_str_text(&report));
	sl_str_done(&report);
	return p;
}

static void test_both_engines(void **state)
{
	const struct sl_sockmap_options beside = { .dir = dir, .has_lock = true };
	struct sl_packet_found packet_found;
	struct sl_sockmap_found found;
	struct sl_str report = { 0 };
	struct sl_packet *p;
	struct sl_sockmap *s;
	unsigned n = 99;

	(void)state;
	need_kernel();
	sl_sockmap_close(open_usual(NULL));
	p = open_packet(&packet_found);
	assert_false(packet_found.is_adopted);
	assert_string_equal(packet_found.why, "");
	assert_int_equal(open_fails(&usual, "in use by another daemon"), -EBUSY);
	s = open_with(&beside, N_PAIRS, &found);
	assert_true(found.is_adopted);
	assert_string_equal(found.why, "");
	assert_string_equal(listing(), PACKET_PINS PINS);
	assert_int_equal(sl_packet_repin(p, &n, NULL), 0);
	assert_int_equal(n, 0);
	sl_packet_close(p);
	sl_sockmap_close(s);

	assert_int_equal(sl_packet_purge(dir, &report), 0);
	assert_null(strstr(sl_str_text(&report), "/sockmap_"));
	assert_null(strstr(sl_str_text(&report), "left"));
	assert_string_equal(listing(), PINS);
	sl_packet_close(open_packet(&packet_found));
	sl_str_clear(&report);
	assert_int_equal(sl_sockmap_purge(dir, &report), 0);
	assert_null(strstr(sl_str_text(&report), "left"));
	assert_string_equal(listing(), PACKET_PINS);
	sl_str_clear(&report);
	assert_int_equal(sl_packet_purge(dir, &report), 0);
	assert_int_equal(access(dir, F_OK), -1);
	sl_str_done(&report);
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

static void tell_all(const struct sl_sockmap *s, struct sl_sockmap_counts *ret)
{
	struct sl_sockmap_view *v = NULL;
	int fds[4];

	assert_int_equal(sl_sockmap_give(s, &fds[0], &fds[1], &fds[2], &fds[3]), 0);
	assert_int_equal(sl_sockmap_view_new(fds[0], fds[1], fds[2], fds[3], &v), 0);
	assert_int_equal(sl_sockmap_view_counts(v, ret), 0);
	sl_sockmap_view_unref(v);
}

static void talk(const struct lab *l)
{
	put(l->client, "to the server");
	get(l->server, "to the server");
	put(l->server, "and back");
	get(l->client, "and back");
}

static void test_join_errors(void **state)
{
	struct sl_sockmap *s;
	struct sl_sockmap_pair p;
	struct lab l;
	uint32_t pair;
	uint32_t other = 77;

	(void)state;
	need_kernel();
	s = open_usual(NULL);
	lab_open(&l, LIMIT);
	p = l.p;
	p.conn_id = 0;
	assert_int_equal(sl_sockmap_join(s, &p, &other), -EINVAL);
	p = l.p;
	p.cookie[1] = p.cookie[0];
	assert_int_equal(sl_sockmap_join(s, &p, &other), -EINVAL);
	p = l.p;
	p.limit = UINT32_MAX;
	assert_int_equal(sl_sockmap_join(s, &p, &other), -EINVAL);
	p = l.p;
	p.fd[1] = -1;
	assert_true(sl_sockmap_join(s, &p, &other) < 0);
	assert_int_equal(sl_sockmap_n_pairs(s), 0);
	assert_int_equal(sl_sockmap_sweep(s), 0);

	pair = join(s, &l);
	assert_int_equal(sl_sockmap_join(s, &l.p, &other), -EEXIST);
	p = l.p;
	p.conn_id++;
	p.cookie[0] += 1000; /* the backend's socket is another connection's */
	assert_int_equal(sl_sockmap_join(s, &p, &other), -EEXIST);
	assert_int_equal(sl_sockmap_n_pairs(s), 1);
	facts_are(s, pair, &l, true);
	talk(&l);
	sl_sockmap_leave(s, pair, l.p.conn_id);

	assert_int_equal(shutdown(l.client, SHUT_WR), 0);
	wait_for(l.in, POLLRDHUP);
	assert_int_equal(sl_sockmap_join(s, &l.p, &other), -EOPNOTSUPP);
	assert_int_equal(other, 77);
	assert_int_equal(sl_sockmap_n_pairs(s), 0);
	assert_int_equal(sl_sockmap_sweep(s), 0);
	get_end(l.in);
	lab_close(&l);
	sl_sockmap_close(s);
}

/* A FIN that comes between the targets and the sources. */
static void test_no_source(void **state)
{
	struct sl_sockmap *s;
	struct lab l;
	uint32_t pair = 0;
	uint32_t resolved = 99;

	(void)state;
	need_kernel();
	s = open_usual(NULL);
	lab_open(&l, LIMIT);
	assert_int_equal(sl_sockmap_take_pair(s, &pair), 0);
	for (int step = 0; step < SL_SOCKMAP_STEP_SOURCE; step++)
		assert_int_equal(sl_sockmap_do_step(s, (enum sl_sockmap_step)step, pair, &l.p), 0);
	assert_int_equal(sl_sockmap_do_step(s, (enum sl_sockmap_step)(SL_SOCKMAP_STEP_SOURCE + 1),
					    pair, &l.p),
			 0);
	put(l.client, "the last words");
	assert_int_equal(shutdown(l.client, SHUT_WR), 0);
	wait_for(l.in, POLLRDHUP);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(sl_sockmap_resolve(s, &l.p, &resolved), 0);
		assert_int_equal(resolved, pair);
		assert_int_equal(slot_of(s, pair, SL_SOCKMAP_CLIENT)->state, SL_SOCKMAP_SPILLED);
		assert_int_equal(slot_of(s, pair, SL_SOCKMAP_CLIENT)->why, SL_SOCKMAP_NO_SOURCE);
		assert_int_equal(slot_of(s, pair, SL_SOCKMAP_BACKEND)->state, SL_SOCKMAP_FAST);
	}
	get(l.in, "the last words");
	get_end(l.in);
	put(l.server, "still fast");
	get(l.client, "still fast");
	assert_int_equal(slot_of(s, pair, SL_SOCKMAP_BACKEND)->redirected, 10);
	assert_int_equal(slot_of(s, pair, SL_SOCKMAP_CLIENT)->passed, 0);
	sl_sockmap_leave(s, pair, l.p.conn_id);
	facts_are(s, pair, &l, false);
	lab_close(&l);
	sl_sockmap_close(s);
}

/* A broker dies at every step; the next one finishes or takes back. */
static void test_cut_short(void **state)
{
	(void)state;
	need_kernel();
	for (int n = 0; n <= SL_SOCKMAP_STEP_COUNT_; n++) {
		struct sl_sockmap_found found;
		struct sl_sockmap *s = open_usual(NULL);
		struct lab l;
		uint32_t pair = 0;
		uint32_t resolved = UINT32_MAX;
		int r;

		lab_open(&l, LIMIT);
		put(l.client, "early "); /* whole in the queue */
		wait_for(l.in, POLLIN);
		assert_int_equal(sl_sockmap_take_pair(s, &pair), 0);
		for (int step = 0; step < n; step++)
			assert_int_equal(
				sl_sockmap_do_step(s, (enum sl_sockmap_step)step, pair, &l.p), 0);
		sl_sockmap_close(s);
		s = open_usual(&found);
		assert_int_equal(found.is_adopted, true);
		assert_int_equal(found.n_pairs, n > SL_SOCKMAP_STEP_FLOW);
		r = sl_sockmap_resolve(s, &l.p, &resolved);
		assert_int_equal(r, n > SL_SOCKMAP_STEP_SOURCE ? 0 : -ENOENT);
		if (r == 0)
			assert_int_equal(resolved, pair);
		else
			facts_are(s, pair, &l, false);
		assert_int_equal(sl_sockmap_n_pairs(s), r == 0);
		assert_int_equal(sl_sockmap_sweep(s), 0);
		if (r < 0)
			resolved = join(s, &l);
		facts_are(s, resolved, &l, true);
		kick(&l);
		put(l.client, "and late");
		get(l.server, "early and late");
		talk(&l);
		sl_sockmap_leave(s, resolved, l.p.conn_id);
		assert_int_equal(sl_sockmap_n_pairs(s), 0);
		lab_close(&l);
		sl_sockmap_close(s);
		assert_int_equal(purge(NULL), 0);
	}
}

/* Somebody has taken both sockets out: what they have moved is still counted. */
static void test_resolve_taken_out(void **state)
{
	struct sl_sockmap *s;
	struct lab l;
	uint32_t pair;
	uint32_t resolved = UINT32_MAX;

	(void)state;
	need_kernel();
	s = open_usual(NULL);
	lab_open(&l, LIMIT);
	pair = join(s, &l);
	talk(&l);
	for (int side = 0; side < 2; side++)
		assert_int_equal(
			bpf_map_delete_elem(s->maps[SL_SOCKMAP_SOURCES], &l.p.cookie[side]), 0);
	assert_int_equal(sl_sockmap_resolve(s, &l.p, &resolved), 0);
	assert_int_equal(resolved, pair);
	facts_are(s, pair, &l, true);
	talk(&l);
	sl_sockmap_leave(s, pair, l.p.conn_id);
	assert_int_equal(sl_sockmap_resolve(s, &l.p, &resolved), -ENOENT);
	lab_close(&l);
	sl_sockmap_close(s);
}

/* A reset alone takes nothing out of the maps: only close() does. */
static void test_reset(void **state)
{
	const struct linger hard = { 1, 0 };
	struct sl_sockmap *s;
	struct sl_sockmap_facts f;
	struct lab l;
	uint32_t pair;

	(void)state;
	need_kernel();
	s = open_usual(NULL);
	lab_open(&l, LIMIT);
	pair = join(s, &l);
	talk(&l);
	assert_int_equal(setsockopt(l.client, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard)), 0);
	close_fd(&l.client);
	wait_for(l.in, POLLERR);
	facts_are(s, pair, &l, true);
	close_fd(&l.in);
	sl_sockmap_look(s, pair, &f);
	assert_false(f.is_source[0] || f.is_target[0]);
	assert_true(f.is_source[1] && f.is_target[1]);
	sl_sockmap_leave(s, pair, l.p.conn_id);
	lab_close(&l);
	sl_sockmap_close(s);
}

static void test_adopt(void **state)
{
	struct sl_sockmap_found found;
	struct sl_sockmap *s;
	struct lab l[3];
	uint32_t pairs[3];
	uint32_t prog;

	(void)state;
	need_kernel();
	s = open_usual(NULL);
	for (int i = 0; i < 2; i++) {
		lab_open(&l[i], LIMIT);
		pairs[i] = join(s, &l[i]);
	}
	prog = attached_id();
	sl_sockmap_close(s);
	talk(&l[0]); /* nobody owns it */
	s = open_usual(&found);
	assert_true(found.is_adopted);
	assert_int_equal(found.n_pairs, 2);
	assert_string_equal(found.why, "");
	assert_int_not_equal(attached_id(), prog);
	assert_int_equal(attached_id(), id_in("sockmap_prog"));
	lab_open(&l[2], LIMIT);
	pairs[2] = join(s, &l[2]);
	for (int i = 0; i < 3; i++) {
		facts_are(s, pairs[i], &l[i], true);
		talk(&l[i]);
	}
	assert_int_equal(slot_of(s, pairs[0], SL_SOCKMAP_CLIENT)->redirected, 26);
	for (int i = 0; i < 3; i++) {
		sl_sockmap_leave(s, pairs[i], l[i].p.conn_id);
		facts_are(s, pairs[i], &l[i], false);
		lab_close(&l[i]);
	}
	assert_int_equal(sl_sockmap_n_pairs(s), 0);
	sl_sockmap_close(s);
}

static void test_full(void **state)
{
	struct sl_sockmap *s;
	struct lab l[5];
	uint32_t pairs[5];
	uint32_t pair = UINT32_MAX;
	unsigned seen = 0;

	(void)state;
	need_kernel();
	s = open_with(&usual, 4, NULL);
	for (int i = 0; i < 5; i++)
		lab_open(&l[i], LIMIT);
	for (int i = 0; i < 4; i++) {
		pairs[i] = join(s, &l[i]);
		assert_true(pairs[i] < 4);
	}
	assert_int_equal(sl_sockmap_join(s, &l[4].p, &pair), -ENOSPC);
	assert_int_equal(sl_sockmap_sweep(s), 0);
	while (sl_sockmap_next(s, &pair))
		seen |= 1u << pair;
	assert_int_equal(seen, 15);
	sl_sockmap_leave(s, pairs[2], l[2].p.conn_id);
	pair = 1;
	assert_true(sl_sockmap_next(s, &pair));
	assert_int_equal(pair, pairs[2] == 2 ? 3 : 2);
	pairs[4] = join(s, &l[4]);
	assert_int_equal(pairs[4], pairs[2]);
	for (int i = 0; i < 5; i++) {
		if (i != 2)
			talk(&l[i]);
		lab_close(&l[i]);
	}
	sl_sockmap_close(s);
}

static void test_closed(void **state)
{
	struct sl_sockmap *s;
	struct sl_sockmap_facts f;
	struct lab l;
	uint32_t pair;

	(void)state;
	need_kernel();
	s = open_usual(NULL);
	lab_open(&l, LIMIT);
	pair = join(s, &l);
	talk(&l);
	lab_close(&l);
	sl_sockmap_look(s, pair, &f);
	assert_int_equal(f.conn_id, l.p.conn_id);
	for (int i = 0; i < 2; i++) {
		assert_true(f.has_flow[i]);
		assert_false(f.is_target[i]);
		assert_false(f.is_source[i]);
	}
	assert_int_equal(sl_sockmap_sweep(s), 0); /* the pair explains them */
	sl_sockmap_leave(s, pair, l.p.conn_id);
	facts_are(s, pair, &l, false);
	assert_int_equal(sl_sockmap_sweep(s), 0);
	sl_sockmap_close(s);
}

static void test_restore_and_sweep(void **state)
{
	struct sl_sockmap_flow flow = { .conn_id = 5, .peer = 6, .slot = 1 };
	struct sl_sockmap_facts f;
	struct sl_sockmap *s;
	struct lab l;
	uint32_t pair;
	int fd;

	(void)state;
	need_kernel();
	s = open_usual(NULL);
	lab_open(&l, LIMIT);
	pair = join(s, &l);
	fd = get_pin("sockmap_flows");
	assert_int_equal(sl_sockmap_restore(s, pair), 0);
	assert_int_equal(sl_sockmap_restore(s, pair + 1), 0);
	assert_int_equal(bpf_map_delete_elem(fd, &l.p.cookie[0]), 0);
	assert_int_equal(bpf_map_update_elem(fd, &l.p.cookie[1], &flow, BPF_EXIST), 0);
	sl_sockmap_look(s, pair, &f);
	assert_false(f.has_flow[0] || f.has_flow[1]);
	assert_int_equal(sl_sockmap_restore(s, pair), 1);
	assert_int_equal(sl_sockmap_restore(s, pair), 0);
	facts_are(s, pair, &l, true);
	for (uint64_t key = UINT64_MAX - 49; key; key++) { /* cookies begin at 1 */
		flow.slot = key % 2 ? 2 * pair : UINT32_MAX - (uint32_t)key;
		assert_int_equal(bpf_map_update_elem(fd, &key, &flow, BPF_ANY), 0);
	}
	assert_int_equal(sl_sockmap_sweep(s), 50);
	assert_int_equal(sl_sockmap_sweep(s), 0);
	facts_are(s, pair, &l, true);
	/* What came meanwhile went to the daemon: nothing may overtake it. */
	for (uint32_t i = 0; i < 2; i++) {
		assert_int_equal(s->slots[2 * pair + i].state, SL_SOCKMAP_SPILLED);
		assert_int_equal(s->slots[2 * pair + i].why, SL_SOCKMAP_NO_ENTRY);
		s->orders[2 * pair + i].spills = s->slots[2 * pair + i].spills;
		s->orders[2 * pair + i].wish = SL_SOCKMAP_WANTS_FAST;
	}
	talk(&l);
	(void)close(fd);
	lab_close(&l);
	sl_sockmap_close(s);
}

/* ---- without privileges ---- */

/* `caps` NULL: as it is. */
static int in_child(const uint32_t *caps, int (*fn)(void *arg), void *arg)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { 0 };
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		data[0].effective = data[0].permitted = caps ? *caps : 0;
		_exit(caps && syscall(SYS_capset, &head, data) < 0 ? 99 : fn(arg));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFSIGNALED(status))
		fail_msg("killed by signal %d", WTERMSIG(status));
	return WEXITSTATUS(status);
}

static const uint32_t no_cap = 0;
static const uint32_t net_admin = 1u << CAP_NET_ADMIN;

static int try_open(void *unused)
{
	struct sl_sockmap_found found;
	struct sl_sockmap *s = NULL;
	struct sl_str report = { 0 };

	(void)unused;
	if (sl_sockmap_open(&usual, &found, &report, &s) != -EPERM)
		return 1;
	return strstr(sl_str_text(&report), "CAP_BPF") ? 0 : 2;
}

static void test_no_privilege(void **state)
{
	(void)state;
	need_kernel();
	assert_int_equal(in_child(&no_cap, try_open, NULL), 0);
	assert_int_equal(in_child(&net_admin, try_open, NULL), 0);
	assert_int_equal(access(dir, F_OK), -1);
}

struct work {
	struct sl_sockmap *s;
	struct lab *l;
	struct sl_sockmap_view *v;
};

/* What a broker does, as confined as a broker. */
static int work_as_broker(void *arg)
{
	const struct work *w = arg;
	struct sl_sockmap_facts f;
	uint32_t pair = 0;
	uint32_t resolved = 99;
	bool is_on;
	int fds[4];
	int flows;

	if (sl_sandbox_enter(SL_ROLE_BROKER, &is_on) < 0)
		return 1;
	if (sl_sockmap_join(w->s, &w->l->p, &pair) < 0)
		return 2;
	if (sl_sockmap_resolve(w->s, &w->l->p, &resolved) < 0 || resolved != pair)
		return 3;
	flows = bpf_obj_get(in_dir("sockmap_flows"));
	if (flows < 0 || bpf_map_delete_elem(flows, &w->l->p.cookie[0]) < 0)
		return 4;
	if (sl_sockmap_restore(w->s, pair) != 1 || sl_sockmap_sweep(w->s) != 0)
		return 5;
	sl_sockmap_look(w->s, pair, &f);
	if (!f.is_target[0] || !f.is_source[1] || !f.has_flow[0])
		return 6;
	if (sl_sockmap_give(w->s, &fds[0], &fds[1], &fds[2], &fds[3]) < 0)
		return 7;
	return 0;
}

static int repin_as_broker(void *arg)
{
	const struct work *w = arg;
	unsigned n = 0;
	int fd = bpf_obj_get(in_dir("sockmap_sources"));

	if (fd < 0 || bpf_prog_detach2(w->s->prog, fd, BPF_SK_SKB_STREAM_VERDICT) < 0)
		return 1;
	if (unlink(in_dir("sockmap_flows")) < 0)
		return 2;
	return sl_sockmap_repin(w->s, &n, NULL) == 0 && n == 2 ? 0 : 3;
}

/* Mappings, reading; nothing else may reach the kernel's objects. */
static int work_as_proxy(void *arg)
{
	const struct work *w = arg;
	const struct sl_sockmap_flow flow = { 0 };
	struct sl_sockmap_counts counts;
	struct sl_sockmap_view *v = NULL;
	bool is_on;
	int fds[4];

	if (sl_sockmap_give(w->s, &fds[0], &fds[1], &fds[2], &fds[3]) < 0)
		return 1;
	if (bpf_map_update_elem(fds[2], &w->l->p.cookie[0], &flow, BPF_ANY) == 0 || errno != EPERM)
		return 3;
	sl_packet_read_init();
	if (setuid(65534) < 0 || sl_sandbox_enter(SL_ROLE_PROXY, &is_on) < 0)
		return 2;
	if (sl_sockmap_view_new(fds[0], fds[1], fds[2], fds[3], &v) < 0)
		return 4;
	if (!sl_sockmap_view_has(v, w->l->p.cookie[0]) || sl_sockmap_view_has(v, UINT64_MAX))
		return 5;
	if (sl_sockmap_view_counts(v, &counts) < 0 || counts.redirected < 2)
		return 6;
	if (!sl_sockmap_view_slot(v, 0) || sl_sockmap_view_slot(v, 2 * N_PAIRS) ||
	    !sl_sockmap_view_order(v, 2 * N_PAIRS - 1) || sl_sockmap_view_order(v, 2 * N_PAIRS))
		return 7;
	sl_sockmap_view_order(v, 1)->consumed = 4711;
	if (sl_sockmap_view_ref(v) != v)
		return 8;
	sl_sockmap_view_unref(v);
	sl_sockmap_view_unref(v);
	return 0;
}

static void test_confined(void **state)
{
	struct sl_sockmap *s;
	struct lab l;
	struct work w = { .l = &l };

	(void)state;
	need_kernel();
	s = w.s = open_usual(NULL);
	lab_open(&l, LIMIT);
	assert_int_equal(in_child(&net_admin, work_as_broker, &w), 0);
	for (int i = 0; i < 2; i++) /* it was restored: see test_restore_and_sweep */
		s->orders[i] = (struct sl_sockmap_order){ .wish = SL_SOCKMAP_WANTS_FAST,
							  .spills = s->slots[i].spills };
	kick(&l);
	talk(&l);
	assert_int_equal(in_child(&net_admin, repin_as_broker, &w), 0);
	assert_string_equal(listing(), PINS);
	assert_int_equal(attached_id(), id_in("sockmap_prog"));
	assert_int_equal(in_child(NULL, work_as_proxy, &w), 0);
	assert_int_equal(s->orders[1].consumed, 4711);
	lab_close(&l);
	sl_sockmap_close(s);
}

static void test_view_of_others(void **state)
{
	struct sl_sockmap_view *v = NULL;
	struct sl_sockmap *s;
	int fds[4];

	(void)state;
	need_kernel();
	s = open_usual(NULL);
	assert_int_equal(sl_sockmap_give(s, &fds[0], &fds[1], &fds[2], &fds[3]), 0);
	assert_int_equal(sl_sockmap_view_new(fds[1], fds[0], fds[2], fds[3], &v), -EINVAL);
	for (int i = 0; i < 4; i++)
		assert_int_equal(fcntl(fds[i], F_GETFD), -1);
	assert_null(v);
	sl_sockmap_close(s);
}

/* ---- verdicts ---- */

struct heard {
	struct sl_sockmap_event events[8];
	size_t n;
};

static void hear(void *arg, const struct sl_sockmap_event *e)
{
	struct heard *h = arg;

	if (h->n < SL_ARRAY_LEN(h->events))
		h->events[h->n] = *e;
	h->n++;
}

/* Exactly this event, or none with UINT64_MAX. */
static void expect_event(struct sl_sockmap *s, uint64_t conn_id, uint64_t cookie)
{
	struct heard h = { .n = 0 };
	int want = conn_id == UINT64_MAX ? 0 : 1;

	assert_int_equal(sl_sockmap_events(s, 8, hear, &h), want);
	assert_int_equal(h.n, want);
	if (want) {
		assert_int_equal(h.events[0].conn_id, conn_id);
		assert_int_equal(h.events[0].cookie, cookie);
	}
}

/* The counters that have moved, and by how much: in the order of the structure. */
static void expect_counts(struct sl_sockmap *s, struct sl_sockmap_counts *was,
			  struct sl_sockmap_counts want)
{
	struct sl_sockmap_counts now;
	const uint64_t *w = (const uint64_t *)&want;

	tell_all(s, &now);
	for (size_t i = 0; i < sizeof(now) / 8; i++) {
		uint64_t moved = ((uint64_t *)&now)[i] - ((uint64_t *)was)[i];

		if (moved != w[i])
			fail_msg("counter %zu: %llu instead of %llu", i, (unsigned long long)moved,
				 (unsigned long long)w[i]);
	}
	*was = now;
}

/* As a worker returns to the fast way. */
static void ask_fast(struct sl_sockmap *s, uint32_t pair, uint64_t consumed)
{
	__atomic_store_n(&s->orders[2 * pair].consumed, consumed, __ATOMIC_RELEASE);
	__atomic_store_n(&s->orders[2 * pair].spills, s->slots[2 * pair].spills, __ATOMIC_RELEASE);
	__atomic_store_n(&s->orders[2 * pair].wish, SL_SOCKMAP_WANTS_FAST, __ATOMIC_RELEASE);
}

static void test_asked(void **state)
{
	struct sl_sockmap *s;
	const struct sl_sockmap_slot *slot;
	struct sl_sockmap_counts was;
	struct lab l;
	uint32_t pair;

	(void)state;
	need_kernel();
	s = open_usual(NULL);
	lab_open(&l, LIMIT);
	pair = join(s, &l);
	slot = slot_of(s, pair, SL_SOCKMAP_CLIENT);
	tell_all(s, &was);
	put(l.client, "one");
	get(l.server, "one");
	assert_true(slot->last_ns > 0);
	assert_int_equal(slot->is_based, 1);
	expect_counts(s, &was, (struct sl_sockmap_counts){ .redirected = 1 });
	expect_event(s, UINT64_MAX, 0);

	s->orders[2 * pair].wish = SL_SOCKMAP_WANTS_SPILL;
	put(l.client, "two");
	get(l.in, "two");
	assert_int_equal(slot->state, SL_SOCKMAP_SPILLED);
	assert_int_equal(slot->why, SL_SOCKMAP_ASKED);
	assert_int_equal(slot->spills, 1);
	expect_counts(s, &was, (struct sl_sockmap_counts){ .passed = 1, .spilled_asked = 1 });
	expect_event(s, l.p.conn_id, l.p.cookie[0]);
	put(l.client, "three"); /* no second event */
	get(l.in, "three");
	expect_counts(s, &was, (struct sl_sockmap_counts){ .passed = 1 });
	expect_event(s, UINT64_MAX, 0);
	assert_int_equal(slot->passed, 8);

	ask_fast(s, pair, 7); /* a byte less than was passed */
	put(l.client, "four");
	get(l.in, "four");
	assert_int_equal(slot->state, SL_SOCKMAP_SPILLED);
	ask_fast(s, pair, 12);
	put(l.client, "five");
	get(l.server, "five");
	assert_int_equal(slot->state, SL_SOCKMAP_FAST);
	assert_int_equal(slot->spills, 1);
	expect_counts(s, &was,
		      (struct sl_sockmap_counts){ .passed = 1, .redirected = 1, .returned = 1 });
	expect_event(s, UINT64_MAX, 0);
	assert_int_equal(slot->redirected, 7);
	assert_int_equal(slot->passed, 12);
	assert_int_equal(slot->packets, 5);
	assert_int_equal(slot_of(s, pair, SL_SOCKMAP_BACKEND)->packets, 0);
	lab_close(&l);
	sl_sockmap_close(s);
}

static void test_no_target_and_refused(void **state)
{
	struct sl_sockmap *s;
	const struct sl_sockmap_slot *slot;
	struct sl_sockmap_counts was;
	struct lab l;
	uint64_t value = (uint64_t)listener;
	uint32_t pair;
	int fd;

	(void)state;
	need_kernel();
	s = open_usual(NULL);
	lab_open(&l, LIMIT);
	pair = join(s, &l);
	slot = slot_of(s, pair, SL_SOCKMAP_CLIENT);
	tell_all(s, &was);
	fd = get_pin("sockmap_targets");
	assert_int_equal(bpf_map_delete_elem(fd, &l.p.cookie[1]), 0);
	put(l.client, "one");
	get(l.in, "one");
	assert_int_equal(slot->why, SL_SOCKMAP_NO_TARGET);
	expect_counts(s, &was, (struct sl_sockmap_counts){ .passed = 1, .spilled_no_target = 1 });
	expect_event(s, l.p.conn_id, l.p.cookie[0]);

	/* a listening socket may be in the map, but nothing can be redirected to it */
	assert_int_equal(bpf_map_update_elem(fd, &l.p.cookie[1], &value, BPF_ANY), 0);
	ask_fast(s, pair, 3);
	put(l.client, "two");
	get(l.in, "two");
	assert_int_equal(slot->state, SL_SOCKMAP_SPILLED);
	assert_int_equal(slot->why, SL_SOCKMAP_REFUSED);
	assert_int_equal(slot->spills, 2);
	assert_int_equal(slot->redirected, 0);
	expect_counts(
		s, &was,
		(struct sl_sockmap_counts){ .passed = 1, .spilled_refused = 1, .returned = 1 });
	expect_event(s, l.p.conn_id, l.p.cookie[0]);
	assert_int_equal(bpf_map_delete_elem(fd, &l.p.cookie[1]), 0);
	(void)close(fd);
	lab_close(&l);
	sl_sockmap_close(s);
}

/* The program has lost a packet of this direction: nothing behind it goes anywhere. */
static void test_lost(void **state)
{
	struct sl_sockmap *s;
	struct sl_sockmap_slot slot;
	struct sl_sockmap_counts was;
	struct lab l;
	char byte;
	uint32_t pair, index;
	int fd;

	(void)state;
	need_kernel();
	s = open_usual(NULL);
	lab_open(&l, LIMIT);
	pair = join(s, &l);
	tell_all(s, &was);
	index = 2 * pair + SL_SOCKMAP_CLIENT;
	fd = get_pin("sockmap_slots");
	assert_int_equal(bpf_map_lookup_elem(fd, &index, &slot), 0);
	slot.why = SL_SOCKMAP_LOST;
	assert_int_equal(bpf_map_update_elem(fd, &index, &slot, BPF_ANY), 0);
	(void)close(fd);

	put(l.client, "gone");
	put(l.server, "here"); /* its way is open */
	get(l.client, "here");
	assert_int_equal(recv(l.server, &byte, 1, MSG_DONTWAIT), -1);
	assert_int_equal(errno, EAGAIN);
	assert_int_equal(recv(l.in, &byte, 1, MSG_DONTWAIT), -1);
	assert_int_equal(errno, EAGAIN);
	assert_int_equal(slot_of(s, pair, SL_SOCKMAP_CLIENT)->packets, 0);
	expect_counts(s, &was, (struct sl_sockmap_counts){ .redirected = 1 });
	lab_close(&l);
	sl_sockmap_close(s);
}

static void test_unknown(void **state)
{
	struct sl_sockmap *s;
	struct sl_sockmap_counts was;
	struct lab l;
	uint32_t pair;
	int fd;

	(void)state;
	need_kernel();
	s = open_usual(NULL);
	lab_open(&l, LIMIT);
	pair = join(s, &l);
	tell_all(s, &was);
	fd = get_pin("sockmap_flows");
	ask_fast(s, pair, 0);
	assert_int_equal(bpf_map_delete_elem(fd, &l.p.cookie[0]), 0);
	put(l.client, "whose");
	get(l.in, "whose");
	expect_counts(s, &was, (struct sl_sockmap_counts){ .unknown = 1 });
	expect_event(s, 0, l.p.cookie[0]);
	assert_int_equal(slot_of(s, pair, SL_SOCKMAP_CLIENT)->packets, 0);
	assert_int_equal(sl_sockmap_restore(s, pair), 1);
	put(l.client, "late"); /* an order given before does not count */
	get(l.in, "late");
	expect_counts(s, &was, (struct sl_sockmap_counts){ .passed = 1 });
	ask_fast(s, pair, 4);
	put(l.client, "ours");
	get(l.server, "ours");
	/* its slot is another socket's */
	s->slots[2 * pair].cookie++;
	put(l.client, "whose");
	get(l.in, "whose");
	s->slots[2 * pair].cookie--;
	expect_counts(s, &was,
		      (struct sl_sockmap_counts){ .redirected = 1, .returned = 1, .unknown = 1 });
	(void)close(fd);
	lab_close(&l);
	sl_sockmap_close(s);
}

/* ---- octets that come again, in front of new ones ---- */

struct segment {
	struct iphdr ip;
	struct tcphdr tcp;
	char data[4096];
};

static uint32_t add_up(uint32_t sum, const void *bytes, size_t n)
{
	const uint8_t *p = bytes;

	for (size_t i = 0; i + 1 < n; i += 2)
		sum += (uint32_t)p[i] << 8 | p[i + 1];
	return n % 2 ? sum + ((uint32_t)p[n - 1] << 8) : sum;
}

static uint16_t checksum(const struct segment *s, size_t n_data)
{
	const uint16_t length = htons((uint16_t)(sizeof(s->tcp) + n_data));
	const uint8_t protocol[2] = { 0, IPPROTO_TCP };
	uint32_t sum = add_up(0, &s->ip.saddr, 8);

	sum = add_up(sum, protocol, 2);
	sum = add_up(sum, &length, 2);
	sum = add_up(sum, &s->tcp, sizeof(s->tcp) + n_data);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return htons((uint16_t)~sum);
}

static uint32_t queue_seq(int fd, int queue)
{
	const int on = 1;
	const int off = -1; /* without a window probe */
	uint32_t seq = 0;
	socklen_t size = sizeof(seq);

	assert_int_equal(setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on)), 0);
	assert_int_equal(setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, &queue, sizeof(queue)), 0);
	assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, &seq, &size), 0);
	assert_int_equal(setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &off, sizeof(off)), 0);
	return seq;
}

/* As the socket would send them if it had not heard of the acknowledgement of the first `n_old`. */
static void send_again(int fd, const char *data, size_t n_old, size_t n)
{
	struct segment s = { .ip = { .version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_TCP } };
	struct sockaddr_in from;
	struct sockaddr_in to;
	socklen_t size = sizeof(from);
	int raw = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);

	assert_true(raw >= 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&from, &size), 0);
	assert_int_equal(getpeername(fd, (struct sockaddr *)&to, &size), 0);
	s.ip.saddr = from.sin_addr.s_addr;
	s.ip.daddr = to.sin_addr.s_addr;
	s.tcp = (struct tcphdr){ .source = from.sin_port,
				 .dest = to.sin_port,
				 .seq = htonl(queue_seq(fd, TCP_SEND_QUEUE) - (uint32_t)n_old),
				 .ack_seq = htonl(queue_seq(fd, TCP_RECV_QUEUE)),
				 .doff = 5,
				 .ack = 1,
				 .psh = 1,
				 .window = htons(1000) };
	memcpy(s.data, data, n);
	s.tcp.check = checksum(&s, n);
	size = sizeof(to);
	assert_int_equal(
		sendto(raw, &s, sizeof(s.ip) + sizeof(s.tcp) + n, 0, (struct sockaddr *)&to, size),
		sizeof(s.ip) + sizeof(s.tcp) + n);
	(void)close(raw);
}

static void test_overlap(void **state)
{
	struct sl_sockmap *s;
	struct sl_sockmap_counts was;
	struct lab l;
	uint32_t pair;

	(void)state;
	need_kernel();
	s = open_usual(NULL);
	lab_open(&l, LIMIT);
	put(l.client, "read before the join, ");
	get(l.in, "read before the join, ");
	pair = join(s, &l);
	tell_all(s, &was);
	send_again(l.client, "join, first", 6, 11);
	get(l.server, "first");
	expect_counts(s, &was, (struct sl_sockmap_counts){ .redirected = 1, .trimmed = 1 });
	assert_int_equal(slot_of(s, pair, SL_SOCKMAP_CLIENT)->redirected, 5);
	/* its socket does not know of what was sent for it: 5 more are old */
	send_again(l.client, "first second", 0, 12);
	get(l.server, " second");
	s->orders[2 * pair].wish = SL_SOCKMAP_WANTS_SPILL;
	send_again(l.client, "first second third", 0, 18);
	get(l.in, " third");
	assert_int_equal(slot_of(s, pair, SL_SOCKMAP_CLIENT)->passed, 6);
	expect_counts(s, &was,
		      (struct sl_sockmap_counts){
			      .redirected = 1, .passed = 1, .spilled_asked = 1, .trimmed = 2 });
	lab_close(&l);
	sl_sockmap_close(s);
}

static void test_lost_events(void **state)
{
	struct sl_sockmap *s;
	struct sl_sockmap_counts counts;
	struct heard h = { .n = 0 };
	struct lab l;
	int one = 1;
	int r;

	(void)state;
	need_kernel();
	s = open_usual(NULL);
	lab_open(&l, LIMIT);
	(void)join(s, &l);
	(void)setsockopt(l.client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	assert_int_equal(bpf_map_delete_elem(s->maps[SL_SOCKMAP_FLOWS], &l.p.cookie[0]), 0);
	do { /* each packet that is unknown is an event */
		put(l.client, "x");
		get(l.in, "x");
		tell_all(s, &counts);
	} while (counts.events_lost == 0 && counts.unknown < 100000);
	assert_int_equal(counts.events_lost, 1);
	assert_int_equal(sl_sockmap_events(s, 5, hear, &h), 5);
	r = sl_sockmap_events(s, INT_MAX, hear, &h);
	assert_int_equal((uint64_t)r + 5 + counts.events_lost, counts.unknown);
	assert_int_equal(sl_sockmap_events(s, 5, hear, &h), 0);
	lab_close(&l);
	sl_sockmap_close(s);
}

static uint64_t received(int fd)
{
	struct tcp_info info = { 0 };
	socklen_t size = sizeof(info);

	assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size), 0);
	return info.tcpi_bytes_received;
}

static void test_fin(void **state)
{
	struct sl_sockmap *s;
	struct sl_sockmap_counts was;
	struct pollfd out = { .events = POLLOUT };
	struct lab l;
	uint32_t pair;

	(void)state;
	need_kernel();
	s = open_usual(NULL);
	lab_open(&l, LIMIT);
	out.fd = l.out;
	pair = join(s, &l);
	put(l.client, "all");
	get(l.server, "all");
	tell_all(s, &was);
	assert_int_equal(shutdown(l.client, SHUT_WR), 0);
	wait_for(l.in, POLLRDHUP);
	assert_int_equal(received(l.in), 3 + 1);
	expect_counts(s, &was, (struct sl_sockmap_counts){ .fins = 1 });
	assert_int_equal(slot_of(s, pair, SL_SOCKMAP_CLIENT)->packets, 1);
	get_end(l.in);
	/* no error at the other socket, and the other direction goes on */
	assert_int_equal(poll(&out, 1, 0), 1);
	assert_int_equal(out.revents, POLLOUT);
	put(l.server, "and back");
	get(l.client, "and back");
	assert_int_equal(shutdown(l.out, SHUT_WR), 0);
	get_end(l.server);
	lab_close(&l);
	sl_sockmap_close(s);
}

/* ---- traffic ---- */

static uint64_t seed;

static uint32_t any(uint32_t n) /* below n */
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)(seed >> 33) % n;
}

static uint8_t pattern(uint64_t id, uint64_t at)
{
	return (uint8_t)(((id << 40) + at) * 0x9e3779b97f4a7c15u >> 56);
}

/* A client or a server: sends its bytes and closes that half, reads and compares. */
struct peer {
	int fd;
	uint64_t sends; /* pattern of what it sends, and of what it expects */
	uint64_t expects;
	uint64_t total; /* to send */
	uint64_t sent;
	uint64_t got;
	uint32_t most_sent; /* at a time */
	uint32_t most_read;
	uint64_t sleeps_until_us; /* does not read */
	bool is_slow;
	bool waits; /* with its last byte, for the engine */
	bool is_shut;
	bool is_ended;
};

/* One direction in the proxy: what a worker does with it. */
struct way {
	int from;
	int to;
	uint64_t read0;    /* of `from`, before the engine */
	uint64_t written0; /* to `to` */
	uint64_t consumed;
	uint8_t held[16384]; /* read, not yet written */
	size_t n_held;
	size_t at;
	bool is_over;
};

struct flow {
	struct lab l;
	struct peer peers[2];
	struct way ways[2];
	uint32_t pair;
	bool is_joined;
	bool is_done;
	uint64_t joins_at; /* sent bytes of both */
};

struct totals {
	unsigned done;
	unsigned joined;
	unsigned plain; /* had a FIN before, or were over */
	uint64_t spills;
	uint64_t redirected;
	uint64_t passed;
	uint64_t most; /* waiting, beyond the limit */
};

static uint64_t written(int fd)
{
	struct tcp_info before;
	struct tcp_info info = { 0 };
	int waiting = 0;

	do {
		socklen_t size = sizeof(info);

		before = info;
		assert_int_equal(ioctl(fd, SIOCOUTQ, &waiting), 0);
		assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size), 0);
	} while (info.tcpi_bytes_acked != before.tcpi_bytes_acked);
	return info.tcpi_bytes_acked + (unsigned)waiting;
}

static bool peer_sends(struct peer *p)
{
	uint8_t buf[65536];
	size_t n = 1 + any(p->most_sent);
	ssize_t done;

	if (p->is_shut || any(4) == 0)
		return false;
	if (n > p->total - p->waits - p->sent)
		n = p->total - p->waits - p->sent;
	for (size_t i = 0; i < n; i++)
		buf[i] = pattern(p->sends, p->sent + i);
	done = n ? send(p->fd, buf, n, MSG_NOSIGNAL) : 0;
	if (done < 0 && errno != EAGAIN)
		fail_msg("a peer cannot send: %d", errno);
	p->sent += done > 0 ? (uint64_t)done : 0;
	if (p->sent == p->total) {
		assert_int_equal(shutdown(p->fd, SHUT_WR), 0);
		p->is_shut = true;
	}
	return done > 0;
}

static bool peer_reads(struct peer *p)
{
	uint8_t buf[65536];
	ssize_t n;

	if (p->is_ended || sl_clock_us() < p->sleeps_until_us)
		return false;
	if (p->is_slow && any(64) == 0)
		p->sleeps_until_us = sl_clock_us() + any(30000);
	n = recv(p->fd, buf, 1 + any(p->most_read), 0);
	if (n < 0 && errno != EAGAIN)
		fail_msg("a peer cannot read: %d", errno);
	if (n == 0)
		p->is_ended = true;
	for (ssize_t i = 0; i < n; i++)
		if (buf[i] != pattern(p->expects, p->got + (uint64_t)i))
			fail_msg("byte %llu is another one",
				 (unsigned long long)p->got + (uint64_t)i);
	p->got += n > 0 ? (uint64_t)n : 0;
	return n >= 0;
}

static const struct sl_sockmap_slot *slot_of_way(const struct sl_sockmap *s, const struct flow *f,
						 int side)
{
	return slot_of(s, f->pair, side);
}

/* All that was redirected and relayed has been given to the socket. */
static bool is_drained(const struct sl_sockmap *s, const struct flow *f, int side)
{
	const struct way *w = &f->ways[side];
	uint64_t redirected = f->is_joined ? __atomic_load_n(&slot_of_way(s, f, side)->redirected,
							     __ATOMIC_ACQUIRE)
					   : 0;

	return written(w->to) - w->written0 == redirected + w->consumed;
}

/* Writes what is held; true: nothing is. */
static bool empties(struct way *w)
{
	while (w->at < w->n_held) {
		ssize_t n = send(w->to, w->held + w->at, w->n_held - w->at, MSG_NOSIGNAL);

		if (n < 0 && errno == EAGAIN)
			return false;
		assert_true(n > 0);
		w->at += (size_t)n;
		w->consumed += (uint64_t)n;
	}
	w->n_held = w->at = 0;
	return true;
}

/* Moves bytes as a worker does while it may; true: it has met the end of what is there. */
static bool relays(struct way *w)
{
	ssize_t n;

	if (!empties(w))
		return false;
	n = recv(w->from, w->held, sizeof(w->held), MSG_DONTWAIT);
	if (n < 0 && errno != EAGAIN)
		fail_msg("the proxy cannot read: %d", errno);
	w->n_held = n > 0 ? (size_t)n : 0;
	return n <= 0;
}

static bool has_rdhup(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLRDHUP };

	return poll(&p, 1, 0) == 1 && (p.revents & POLLRDHUP);
}

static void end_way(struct way *w)
{
	assert_int_equal(shutdown(w->to, SHUT_WR), 0);
	w->is_over = true;
}

/* Before the engine, or without it. */
static void way_plain(struct flow *f, int side)
{
	struct way *w = &f->ways[side];
	bool is_hup = has_rdhup(w->from);

	if (relays(w) && is_hup && w->consumed == received(w->from) - 1)
		end_way(w);
}

/* Counts are exact as soon as the end is seen: TCP_INFO waits for the socket's lock. */
static void way_ends(struct sl_sockmap *s, struct flow *f, int side)
{
	const struct sl_sockmap_slot *slot = slot_of_way(s, f, side);
	struct way *w = &f->ways[side];
	uint64_t all;

	if (!has_rdhup(w->from))
		return;
	all = received(w->from) - w->read0 - 1;
	if (slot->why == SL_SOCKMAP_NO_SOURCE) {
		if (w->consumed == all)
			end_way(w);
		return;
	}
	if (all != slot->redirected + slot->passed)
		fail_msg("%llu received, %llu redirected, %llu passed", (unsigned long long)all,
			 (unsigned long long)slot->redirected, (unsigned long long)slot->passed);
	if (w->consumed == slot->passed && w->at == w->n_held && is_drained(s, f, side))
		end_way(w);
}

static void way_fast(struct sl_sockmap *s, struct flow *f, int side)
{
	const struct sl_sockmap_slot *slot = slot_of_way(s, f, side);
	struct sl_sockmap_order *order = &s->orders[2 * f->pair + (uint32_t)side];
	struct way *w = &f->ways[side];

	if (__atomic_load_n(&slot->state, __ATOMIC_ACQUIRE) == SL_SOCKMAP_SPILLED &&
	    is_drained(s, f, side) && relays(w) && slot->why != SL_SOCKMAP_NO_SOURCE &&
	    w->consumed == __atomic_load_n(&slot->passed, __ATOMIC_ACQUIRE)) {
		__atomic_store_n(&order->consumed, w->consumed, __ATOMIC_RELEASE);
		__atomic_store_n(&order->spills, slot->spills, __ATOMIC_RELEASE);
		__atomic_store_n(&order->wish, SL_SOCKMAP_WANTS_FAST, __ATOMIC_RELEASE);
	} else if (any(500) == 0) {
		__atomic_store_n(&order->wish, SL_SOCKMAP_WANTS_SPILL, __ATOMIC_RELEASE);
	}
	way_ends(s, f, side);
}

/* The queue was read to its end, so that nothing of it is read in part, and that is written. */
static bool is_quiet(struct way *w)
{
	bool is_end = false;

	for (int i = 0; i < 64 && !is_end && empties(w); i++)
		is_end = relays(w);
	return is_end;
}

static void flow_joins(struct sl_sockmap *s, struct flow *f, struct totals *t)
{
	int r;

	if (!is_quiet(&f->ways[0]) || !is_quiet(&f->ways[1]))
		return;
	for (int side = 0; side < 2; side++) {
		f->ways[side].read0 = f->ways[side].consumed;
		f->ways[side].written0 = written(f->ways[side].to);
	}
	r = sl_sockmap_join(s, &f->l.p, &f->pair);
	f->joins_at = UINT64_MAX;
	f->peers[0].waits = f->peers[1].waits = false;
	if (r == -EOPNOTSUPP) {
		t->plain++;
		for (int side = 0; side < 2; side++)
			f->ways[side].written0 -= f->ways[side].consumed;
		return;
	}
	assert_int_equal(r, 0);
	f->is_joined = true;
	f->ways[0].consumed = f->ways[1].consumed = 0;
	t->joined++;
	kick(&f->l);
}

static void flow_opens(struct flow *f)
{
	static const uint32_t limits[] = { 0, 2000, 20000, 100000, LIMIT };
	int small = 4096 << any(4);
	int fds[4];

	*f = (struct flow){ .is_joined = false };
	lab_open(&f->l, limits[any(SL_ARRAY_LEN(limits))]);
	if (any(2))
		(void)setsockopt(f->l.out, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	if (any(2))
		(void)setsockopt(f->l.in, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	fds[0] = f->l.client;
	fds[1] = f->l.server;
	for (int side = 0; side < 2; side++) {
		f->peers[side] = (struct peer){
			.fd = fds[side],
			.sends = 2 * f->l.p.conn_id + (uint64_t)side,
			.expects = 2 * f->l.p.conn_id + (uint64_t)!side,
			.total = any(3) ? 1 + any(200000) : 1 + any(500),
			.most_sent = any(2) ? 65536 : 300 + any(3000),
			.most_read = any(2) ? 65536 : 500 + any(5000),
			.is_slow = any(2),
			.waits = any(4) > 0,
		};
		f->ways[side].from = f->l.p.fd[side];
		f->ways[side].to = f->l.p.fd[!side];
	}
	f->joins_at = any(2) ? 0 : any(200000);
	if (f->joins_at > f->peers[0].total + f->peers[1].total - 2)
		f->joins_at = 0;
}

static void flow_ends(struct sl_sockmap *s, struct flow *f, struct totals *t)
{
	for (int side = 0; side < 2; side++) {
		assert_int_equal(f->peers[side].got, f->peers[!side].total);
		if (f->is_joined) {
			const struct sl_sockmap_slot *slot = slot_of_way(s, f, side);

			t->spills += slot->spills;
			t->redirected += slot->redirected;
			t->passed += slot->passed;
			if (slot->max_waiting > f->l.p.limit &&
			    slot->max_waiting - f->l.p.limit > t->most)
				t->most = slot->max_waiting - f->l.p.limit;
		}
	}
	lab_close(&f->l);
	if (f->is_joined)
		sl_sockmap_leave(s, f->pair, f->l.p.conn_id);
	f->is_done = true;
	t->done++;
}

/* True: something has moved. */
static bool flow_runs(struct sl_sockmap *s, struct flow *f, struct totals *t)
{
	bool has_moved = false;

	for (int side = 0; side < 2; side++) {
		has_moved |= peer_sends(&f->peers[side]);
		has_moved |= peer_reads(&f->peers[side]);
	}
	if (!f->is_joined && f->peers[0].sent + f->peers[1].sent >= f->joins_at)
		flow_joins(s, f, t);
	for (int side = 0; side < 2; side++) {
		if (f->ways[side].is_over)
			continue;
		if (f->is_joined)
			way_fast(s, f, side);
		else
			way_plain(f, side);
	}
	if (f->ways[0].is_over && f->ways[1].is_over && f->peers[0].is_ended &&
	    f->peers[1].is_ended)
		flow_ends(s, f, t);
	return has_moved;
}

static void show(const struct sl_sockmap *s, const struct flow *f)
{
	for (int side = 0; side < 2; side++) {
		const struct peer *p = &f->peers[side];
		const struct sl_sockmap_slot *slot = slot_of_way(s, f, side);

		print_message("side %d: sent %llu of %llu, got %llu; consumed %llu held %zu over "
			      "%d joined %d; redirected %llu passed %llu state %u why %u\n",
			      side, (unsigned long long)p->sent, (unsigned long long)p->total,
			      (unsigned long long)p->got,
			      (unsigned long long)f->ways[side].consumed,
			      f->ways[side].n_held - f->ways[side].at, f->ways[side].is_over,
			      f->is_joined, (unsigned long long)slot->redirected,
			      (unsigned long long)slot->passed, slot->state, slot->why);
	}
}

/* The broker dies, another one comes. */
static struct sl_sockmap *succeed(struct sl_sockmap *s)
{
	struct sl_sockmap_found found;
	size_t n = sl_sockmap_n_pairs(s);

	sl_sockmap_close(s);
	s = open_usual(&found);
	assert_true(found.is_adopted);
	assert_int_equal(found.n_pairs, n);
	assert_int_equal(sl_sockmap_sweep(s), 0);
	return s;
}

#define N_FLOWS 128

static struct flow flows[N_FLOWS];

static void traffic(unsigned n_all, unsigned deaths)
{
	struct sl_sockmap *s = open_usual(NULL);
	struct totals t = { 0 };
	unsigned n_opened = 0;
	unsigned n_deaths = 0;
	uint64_t last_us = sl_clock_us();

	seed = 88172645463325252u ^ sl_clock_us();
	print_message("seed %llu\n", (unsigned long long)seed);
	for (size_t i = 0; i < N_FLOWS; i++)
		flows[i].is_done = true;
	while (t.done < n_all) {
		bool has_moved = false;

		for (size_t i = 0; i < N_FLOWS; i++) {
			if (flows[i].is_done && n_opened < n_all) {
				flow_opens(&flows[i]);
				n_opened++;
			}
			if (!flows[i].is_done)
				has_moved |= flow_runs(s, &flows[i], &t);
		}
		if (n_deaths < deaths && t.done >= (n_deaths + 1) * n_all / (deaths + 1)) {
			s = succeed(s);
			n_deaths++;
		}
		if (has_moved)
			last_us = sl_clock_us();
		else
			(void)poll(NULL, 0, 1);
		if (sl_clock_us() - last_us > 10000000 * slow()) {
			for (size_t i = 0; i < N_FLOWS; i++)
				if (!flows[i].is_done)
					show(s, &flows[i]);
			fail_msg("nothing moves any more");
		}
	}
	print_message("%u connections, %u joined, %u plain; %llu bytes redirected, %llu passed, "
		      "%llu spills, at most %llu beyond the limit\n",
		      t.done, t.joined, t.plain, (unsigned long long)t.redirected,
		      (unsigned long long)t.passed, (unsigned long long)t.spills,
		      (unsigned long long)t.most);
	assert_true(t.joined > n_all / 4);
	assert_true(t.most <= 65536); /* one packet */
	assert_true(t.spills > 0 && t.redirected > 0 && t.passed > 0);
	assert_int_equal(n_deaths, deaths);
	assert_int_equal(sl_sockmap_n_pairs(s), 0);
	assert_int_equal(sl_sockmap_sweep(s), 0);
	sl_sockmap_close(s);
}

static void test_traffic(void **state)
{
	(void)state;
	need_kernel();
	traffic(400, 0);
}

static void test_traffic_of_heirs(void **state)
{
	(void)state;
	need_kernel();
	traffic(200, 8);
}

/* ---- the start-up test ---- */

static void test_check(void **state)
{
	struct sl_sockmap_counts was = { 0 };
	struct sl_sockmap_counts now;
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
		assert_true(sl_clock_us() - start < 4000000 * slow());
		assert_int_equal(sl_sockmap_n_pairs(s), 0);
		assert_int_equal(sl_sockmap_sweep(s), 0);
		tell_all(s, &now);
		assert_true(now.spilled_limit > was.spilled_limit && now.passed > was.passed);
		assert_true(now.returned > was.returned && now.redirected > was.redirected);
		assert_int_equal(now.fins, was.fins + 2);
		assert_int_equal(now.unknown, 0);
		was = now;
	}
	sl_str_done(&report);
	sl_sockmap_close(s);
}

static void check_fails(struct sl_sockmap *s, const char *text)
{
	struct sl_str report = { 0 };
	uint64_t start = sl_clock_us();
	int r = sl_sockmap_check(s, &report);

	assert_true(r < 0);
	assert_true(sl_clock_us() - start < 4000000 * slow());
	assert_string_equal(sl_str_text(&report), text);
	assert_int_equal(sl_sockmap_n_pairs(s), 0);
	sl_str_done(&report);
}

static void test_check_fails(void **state)
{
	struct sl_sockmap *s;

	(void)state;
	need_kernel();
	s = open_usual(NULL);
	assert_int_equal(
		bpf_prog_detach2(s->prog, s->maps[SL_SOCKMAP_SOURCES], BPF_SK_SKB_STREAM_VERDICT),
		0);
	check_fails(s, "the self-test failed at data that came before: 0 of 1000 bytes arrived");
	command("ip link set lo down");
	check_fails(s, "the self-test failed at connecting: the loopback interface is down");
	command("ip link set lo up");
	sl_sockmap_close(s);
}

/* ---- all ---- */

#define OBJECTS(test) cmocka_unit_test_setup_teardown(test, clean, clean)

int main(void)
{
	const struct CMUnitTest tests[] = {
		OBJECTS(test_fresh),
		OBJECTS(test_releases),
		OBJECTS(test_directory),
		OBJECTS(test_other_layout),
		OBJECTS(test_other_shapes),
		OBJECTS(test_adopt_without_some),
		OBJECTS(test_purge),
		OBJECTS(test_repin),
		OBJECTS(test_both_engines),
		OBJECTS(test_join),
		OBJECTS(test_join_errors),
		OBJECTS(test_no_source),
		OBJECTS(test_cut_short),
		OBJECTS(test_resolve_taken_out),
		OBJECTS(test_reset),
		OBJECTS(test_adopt),
		OBJECTS(test_full),
		OBJECTS(test_closed),
		OBJECTS(test_restore_and_sweep),
		OBJECTS(test_no_privilege),
		OBJECTS(test_confined),
		OBJECTS(test_view_of_others),
		OBJECTS(test_asked),
		OBJECTS(test_no_target_and_refused),
		OBJECTS(test_lost),
		OBJECTS(test_unknown),
		OBJECTS(test_overlap),
		OBJECTS(test_lost_events),
		OBJECTS(test_fin),
		OBJECTS(test_traffic),
		OBJECTS(test_traffic_of_heirs),
		OBJECTS(test_check),
		OBJECTS(test_check_fails),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
