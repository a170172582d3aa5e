/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The broker with real connections over a real channel; needs root, runs in a network namespace and
 * on a bpf file system of its own.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <cmocka.h>

#include "accel/packet.h"
#include "base/clock.h"
#include "broker/server.h"
#include "netns.h"

#define FRONT_PORT 7443
#define BACKEND_PORT 9443
#define FIRST_PORT 41000
#define LAST_PORT 41999
#define NO_PORT 20000 /* of neither this range nor that of the kernel */
#define GENERATION 5
#define WAIT_MS 3000

static const char *why_skipped;
static char root[] = "/tmp/sl_broker.XXXXXX"; /* the bpf file system */
static char dir[64];
static uint16_t next_port = FIRST_PORT; /* none is used by two tests */

static const struct sl_broker_times quick = { .revival_ms = 100,
					      .closed_ms = 400,
					      .rst_ms = 300,
					      .killed_ms = 400,
					      .broken_ms = 1000,
					      .round_ms = 50 };

/* ---- surroundings ---- */

static int set_up_all(void **state)
{
	(void)state;
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
	return 0;
}

static int tear_down_all(void **state)
{
	(void)state;
	if (why_skipped)
		return 0;
	(void)umount(root);
	(void)rmdir(root);
	return 0;
}

/* A proxy with two workers and a control thread, and the broker it talks to. */
enum {
	WORKERS = 2,
	CONTROL = WORKERS,
	CHANNELS,
};

struct world {
	struct sl_loop *loop;
	struct sl_broker *broker;
	int channel[CHANNELS];
	bool is_v6;
	struct sl_addr front;
	struct sl_addr backend;
	int front_fd; /* listeners */
	int backend_fd;
	uint16_t next_port;
	uint64_t next_id;
	struct sl_broker_status status; /* the last one told */
};

static struct sl_addr addr(const char *text)
{
	struct sl_addr a = { 0 };

	assert_int_equal(sl_addr_parse(text, &a), 0);
	return a;
}

static int listen_on(const struct sl_addr *a)
{
	int fd = socket(sl_addr_family(a), SOCK_STREAM | SOCK_CLOEXEC, 0);
	int one = 1;

	assert_true(fd >= 0);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)), 0);
	assert_int_equal(bind(fd, &a->sa, sl_addr_len(a)), 0);
	assert_int_equal(listen(fd, 64), 0);
	return fd;
}

static struct sl_policy *new_policy(const struct world *w, uint64_t generation)
{
	struct sl_policy *p = calloc(1, sizeof(*p));

	assert_non_null(p);
	*p = (struct sl_policy){
		.generation = generation,
		.port_from = FIRST_PORT,
		.port_to = LAST_PORT,
		.max_flows = 256,
		.n_listens = 1,
		.n_routes = 1,
		.n_targets = 1,
		.listens = calloc(2, sizeof(*p->listens)),
		.routes = calloc(2, sizeof(*p->routes)),
		.targets = calloc(2, sizeof(*p->targets)),
		.interfaces = calloc(2, sizeof(*p->interfaces)),
	};
	p->listens[0] = (struct sl_policy_listen){ w->front, FRONT_PORT, FRONT_PORT };
	p->routes[0] = (struct sl_policy_route){ .name = "shop",
						 .n_targets = 1,
						 .min_port = FRONT_PORT,
						 .max_port = FRONT_PORT,
						 .may_packet = true };
	p->targets[0] = (struct sl_policy_target){ w->backend, BACKEND_PORT };
	(void)snprintf(p->bpf_dir, sizeof(p->bpf_dir), "%s", dir);
	return p;
}

static void start_broker_with(struct world *w, const struct sl_broker_times *times)
{
	const struct sl_broker_options options = { .loop = w->loop,
						   .times = times,
						   .proxy_uid = geteuid() };

	assert_int_equal(sl_broker_new(&options, &w->broker), 0);
	sl_broker_set_policy(w->broker, new_policy(w, GENERATION));
}

static void start_broker(struct world *w)
{
	start_broker_with(w, &quick);
}

/* Our end. */
static int add_channel(struct world *w, uint64_t proxy, unsigned worker)
{
	int sv[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv), 0);
	assert_int_equal(sl_broker_add_channel(w->broker, proxy, worker, WORKERS, sv[1]), 0);
	return sv[0];
}

static void turn(struct world *w)
{
	assert_true(sl_loop_turn(w->loop, 2) >= 0);
}

/* The next message of that type for that id, on that channel; others are passed over. */
static bool await_on(struct world *w, int channel, enum sl_broker_type type, uint64_t id,
		     struct sl_broker_msg *ret, int wait_ms)
{
	uint64_t until = sl_clock_ms() + (uint64_t)wait_ms;

	do {
		int fds[SL_BROKER_MAX_FDS];
		int r = sl_broker_recv(channel, false, ret, fds);

		if (r == 0) {
			sl_broker_close_fds(fds);
			if (ret->type == SL_BROKER_STATUS)
				w->status = ret->status;
			if (ret->type == type && ret->conn_id == id)
				return true;
			continue;
		}
		assert_int_equal(r, -EAGAIN);
		turn(w);
	} while (sl_clock_ms() < until);
	return false;
}

static int channel_of(const struct world *w, uint64_t id)
{
	return w->channel[id % WORKERS];
}

static struct sl_broker_msg await_msg(struct world *w, enum sl_broker_type type, uint64_t id)
{
	struct sl_broker_msg msg;

	assert_true(await_on(w, channel_of(w, id), type, id, &msg, WAIT_MS));
	return msg;
}

static void add_channels(struct world *w, uint64_t proxy)
{
	struct sl_broker_msg msg;

	for (unsigned i = 0; i < CHANNELS; i++) {
		w->channel[i] = add_channel(w, proxy, i);
		assert_true(await_on(w, w->channel[i], SL_BROKER_HELLO, 0, &msg, WAIT_MS));
	}
}

static void close_channels(struct world *w)
{
	for (unsigned i = 0; i < CHANNELS; i++)
		sl_broker_hang_up(w->channel[i]);
}

static int set_up_at(void **state, bool is_v6)
{
	struct world *w = calloc(1, sizeof(*w));

	if (why_skipped) {
		free(w);
		return 0;
	}
	assert_non_null(w);
	assert_int_equal(sl_loop_new(&w->loop), 0);
	w->is_v6 = is_v6;
	w->front = addr(is_v6 ? "[::1]:7443" : "127.0.0.1:7443");
	w->backend = addr(is_v6 ? "[::1]:9443" : "127.0.0.2:9443");
	w->front_fd = listen_on(&w->front);
	w->backend_fd = listen_on(&w->backend);
	w->next_port = next_port;
	w->next_id = 1000;
	start_broker(w);
	add_channels(w, 1);
	*state = w;
	return 0;
}

static int set_up(void **state)
{
	return set_up_at(state, false);
}

static int set_up_v6(void **state)
{
	return set_up_at(state, true);
}

static int tear_down(void **state)
{
	struct world *w = *state;

	if (why_skipped)
		return 0;
	next_port = w->next_port;
	sl_broker_stop(w->broker);
	sl_broker_free(w->broker);
	close_channels(w);
	turn(w);
	sl_loop_free(w->loop);
	(void)close(w->front_fd);
	(void)close(w->backend_fd);
	free(w);
	assert_int_equal(access(dir, F_OK), -1); /* everything pinned is gone */
	return 0;
}

static struct world *world(void **state)
{
	if (why_skipped) {
		print_message("skipped: %s\n", why_skipped);
		skip();
	}
	return *state;
}

/* ---- connections ---- */

/* client - front: one connection; back - backend: the other. The proxy has the inner two. */
struct conn {
	uint64_t id;
	int client;
	int front;
	int back;
	int backend;
	struct sl_packet_key key[2];
};

static struct sl_addr name_of(int fd, bool is_peer)
{
	struct sockaddr_storage ss = { 0 };
	socklen_t len = sizeof(ss);
	struct sl_addr a = { 0 };

	assert_int_equal((is_peer ? getpeername : getsockname)(fd, (struct sockaddr *)&ss, &len),
			 0);
	sl_addr_set(&a, (struct sockaddr *)&ss);
	return a;
}

static int connect_to(const struct sl_addr *to, const struct sl_addr *from)
{
	int fd = socket(sl_addr_family(to), SOCK_STREAM | SOCK_CLOEXEC, 0);
	int one = 1;

	assert_true(fd >= 0);
	if (from) {
		assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)), 0);
		assert_int_equal(bind(fd, &from->sa, sl_addr_len(from)), 0);
	}
	assert_int_equal(connect(fd, &to->sa, sl_addr_len(to)), 0);
	return fd;
}

static int accept_from(int listener)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

static struct conn new_conn_over(struct world *w, const struct sl_addr *back)
{
	struct conn c = { .id = w->next_id++ };
	struct sl_addr local;
	struct sl_addr peer;

	c.client = connect_to(&w->front, NULL);
	c.front = accept_from(w->front_fd);
	c.back = connect_to(&w->backend, back);
	c.backend = accept_from(w->backend_fd);
	local = name_of(c.front, false);
	peer = name_of(c.front, true);
	sl_packet_key_of(&peer, &local, &c.key[0]);
	local = name_of(c.back, false);
	peer = name_of(c.back, true);
	sl_packet_key_of(&peer, &local, &c.key[1]);
	return c;
}

static struct conn new_conn_from(struct world *w, uint16_t back_port)
{
	struct sl_addr back = addr(w->is_v6 ? "[::1]:1" : "127.0.0.1:1");

	sl_addr_set_port(&back, back_port);
	return new_conn_over(w, &back);
}

static struct conn new_conn(struct world *w)
{
	return new_conn_from(w, w->next_port++);
}

static void close_proxy_side(struct conn *c)
{
	(void)close(c->front);
	(void)close(c->back);
	c->front = c->back = -1;
}

static void close_all(struct conn *c)
{
	if (c->front >= 0)
		close_proxy_side(c);
	(void)close(c->client);
	(void)close(c->backend);
}

static void send_all(int fd, const void *bytes, size_t n)
{
	assert_int_equal(send(fd, bytes, n, MSG_NOSIGNAL), n);
}

static void receive_all(int fd, void *bytes, size_t n)
{
	size_t at = 0;

	while (at < n) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		ssize_t got;

		assert_int_equal(poll(&p, 1, WAIT_MS), 1);
		got = recv(fd, (char *)bytes + at, n - at, 0);
		assert_true(got > 0);
		at += (size_t)got;
	}
}

static void expect(int from, int to, const char *text)
{
	char got[64] = { 0 };

	send_all(from, text, strlen(text));
	receive_all(to, got, strlen(text));
	assert_string_equal(got, text);
}

/* 0: end of the stream; -errno. */
static int await_end(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	char byte;
	ssize_t n;

	assert_int_equal(poll(&p, 1, WAIT_MS), 1);
	n = recv(fd, &byte, 1, 0);
	assert_true(n <= 0);
	return n < 0 ? -errno : 0;
}

/* By the program on the loopback device, nothing else is awake. */
static void expect_both_ways(const struct conn *c)
{
	enum { SIZE = 300000 };
	char *out = malloc(SIZE);
	char *in = malloc(SIZE);

	assert_non_null(out);
	assert_non_null(in);
	for (size_t i = 0; i < SIZE; i++)
		out[i] = (char)(i * 2654435761u >> 13);
	for (int way = 0; way < 2; way++) {
		int from = way ? c->backend : c->client;
		int to = way ? c->client : c->backend;

		for (size_t at = 0; at < SIZE; at += 50000) {
			send_all(from, out + at, 50000);
			receive_all(to, in + at, 50000);
		}
		assert_memory_equal(in, out, SIZE);
		memset(in, 0, SIZE);
	}
	free(out);
	free(in);
}

/* A broker that refuses, or dies, leaves no socket that acknowledges late what is read from it. */
static void expect_no_delay(const struct conn *c)
{
	for (int i = 0; i < 2; i++) {
		socklen_t len = sizeof(int);
		int is_quick = 0;

		assert_int_equal(getsockopt(i ? c->back : c->front, IPPROTO_TCP, TCP_QUICKACK,
					    &is_quick, &len),
				 0);
		assert_int_equal(is_quick, 1);
	}
}

/* ---- asking ---- */

static struct sl_broker_msg request_of(enum sl_broker_type type, const struct conn *c)
{
	return (struct sl_broker_msg){
		.type = type,
		.conn_id = c->id,
		.handover = { .generation = GENERATION,
			      .client = addr("192.0.2.7:1234"),
			      .via = addr("198.51.100.1:4321"),
			      .accepted_us = 1000000,
			      .relayed = { 11, 22 },
			      .connect_us = 77,
			      .target_hash = 99 },
	};
}

static struct sl_broker_result ask_with(struct world *w, const struct sl_broker_msg *msg, int a,
					int b)
{
	int fds[2] = { a, b };

	assert_int_equal(sl_broker_send(channel_of(w, msg->conn_id), msg, fds, 2), 0);
	return await_msg(w, SL_BROKER_RESULT, msg->conn_id).result;
}

static struct sl_broker_result ask(struct world *w, const struct conn *c)
{
	const struct sl_broker_msg msg = request_of(SL_BROKER_HANDOVER, c);

	return ask_with(w, &msg, c->front, c->back);
}

static void hand_over(struct world *w, struct conn *c)
{
	struct sl_broker_result r = ask(w, c);

	assert_string_equal(sl_engine_reason_name(r.why), "eligible");
	close_proxy_side(c);
}

static struct conn in_kernel(struct world *w)
{
	struct conn c = new_conn(w);

	expect(c.client, c.front, "hello");
	expect(c.back, c.backend, "hello");
	hand_over(w, &c);
	return c;
}

static void tell(struct world *w, enum sl_broker_type type, uint64_t id, uint32_t flag)
{
	const struct sl_broker_msg msg = { .type = type, .conn_id = id, .flag = flag };

	assert_int_equal(sl_broker_send(channel_of(w, id), &msg, NULL, 0), 0);
}

static void expect_refused(struct world *w, const struct sl_broker_msg *msg, int a, int b,
			   enum sl_engine_reason why, bool is_final)
{
	struct sl_broker_result r = ask_with(w, msg, a, b);

	assert_string_equal(sl_engine_reason_name(r.why), sl_engine_reason_name(why));
	assert_int_equal(r.is_final, is_final);
}

/* What a refused hand-over must leave: two connections as they were. */
static void expect_relayed(const struct conn *c)
{
	expect(c->client, c->front, "to us");
	expect(c->back, c->backend, "to it");
	expect(c->backend, c->back, "from it");
	expect(c->front, c->client, "from us");
}

/* After a refusal: the relay goes on, and the next attempt succeeds. The end of `c`. */
static void expect_unharmed(struct world *w, struct conn *c)
{
	expect_relayed(c);
	hand_over(w, c);
	expect_both_ways(c);
	close_all(c);
}

/* ---- the map, as anyone with bpftool may read and change it ---- */

static int flows_fd(void)
{
	char path[96];
	int fd;

	(void)snprintf(path, sizeof(path), "%s/flows", dir);
	fd = bpf_obj_get(path);
	assert_true(fd >= 0);
	return fd;
}

static int n_entries(const struct conn *c)
{
	struct sl_packet_flow flow;
	int fd = flows_fd();
	int n = 0;

	for (int i = 0; i < 2; i++)
		n += sl_packet_read_flow(fd, &c->key[i], &flow) == 0;
	(void)close(fd);
	return n;
}

static struct sl_packet_flow entry(const struct conn *c, int side)
{
	struct sl_packet_flow flow;
	int fd = flows_fd();

	assert_int_equal(sl_packet_read_flow(fd, &c->key[side], &flow), 0);
	(void)close(fd);
	return flow;
}

static void delete_entry(const struct conn *c, int side)
{
	int fd = flows_fd();

	assert_int_equal(bpf_map_delete_elem(fd, &c->key[side]), 0);
	(void)close(fd);
}

static bool await_entries(struct world *w, const struct conn *c, int n)
{
	uint64_t until = sl_clock_ms() + WAIT_MS;

	while (n_entries(c) != n && sl_clock_ms() < until)
		turn(w);
	return n_entries(c) == n;
}

static int ignore_record(void *arg, void *record, size_t size)
{
	(void)record;
	(void)size;
	++*(int *)arg;
	return 0;
}

/* As if the ring had been full. */
static int lose_events(void)
{
	char path[96];
	struct ring_buffer *ring;
	int n = 0;
	int fd;

	(void)snprintf(path, sizeof(path), "%s/events", dir);
	fd = bpf_obj_get(path);
	assert_true(fd >= 0);
	ring = ring_buffer__new(fd, ignore_record, &n, NULL);
	assert_non_null(ring);
	assert_true(ring_buffer__consume(ring) >= 0);
	ring_buffer__free(ring);
	(void)close(fd);
	return n;
}

static int n_open(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	(void)closedir(d);
	return n;
}

static bool await_open(struct world *w, int n)
{
	uint64_t until = sl_clock_ms() + WAIT_MS;

	while (n_open() != n && sl_clock_ms() < until)
		turn(w);
	return n_open() == n;
}

/* The next broker on what the one before has left; new channels of the same proxy. */
static void replace_broker_with(struct world *w, uint64_t proxy,
				const struct sl_broker_times *times)
{
	sl_broker_free(w->broker);
	close_channels(w);
	turn(w);
	start_broker_with(w, times);
	add_channels(w, proxy);
}

/* ---- what is logged ---- */

/* Where what is logged goes; what was there before comes back with the end. */
struct logged {
	FILE *f;
	int err;
};

static struct logged log_into(void)
{
	struct logged l = { .f = tmpfile(), .err = dup(STDERR_FILENO) };

	assert_non_null(l.f);
	assert_true(l.err >= 0);
	(void)fflush(stderr);
	assert_true(dup2(fileno(l.f), STDERR_FILENO) >= 0);
	return l;
}

/* How many lines have `text`. */
static int end_log(struct logged *l, const char *text)
{
	char line[1024];
	int n = 0;

	(void)fflush(stderr);
	assert_true(dup2(l->err, STDERR_FILENO) >= 0);
	(void)close(l->err);
	rewind(l->f);
	while (fgets(line, sizeof(line), l->f))
		n += strstr(line, text) != NULL;
	(void)fclose(l->f);
	return n;
}

/* ---- tests: hand-over ---- */

static void test_hand_over(void **state)
{
	struct world *w = world(state);
	struct conn c = in_kernel(w);
	struct sl_packet_flow flow = entry(&c, SL_PACKET_CLIENT);
	struct sl_broker_msg msg;

	assert_int_equal(flow.state, SL_PACKET_ACTIVE);
	assert_int_equal(flow.conn_id, c.id);
	assert_int_equal(flow.relayed_bytes, 11);
	assert_int_equal(flow.client_port, 1234);
	assert_int_equal(flow.via_port, 4321);
	assert_int_equal(flow.target_hash, 99);
	assert_int_equal(flow.connect_us, 77);
	assert_int_equal(flow.accepted_ns, 1000000000);
	assert_int_equal(entry(&c, SL_PACKET_BACKEND).relayed_bytes, 22);
	expect_both_ways(&c);
	assert_int_equal(entry(&c, SL_PACKET_CLIENT).bytes, 300000);

	/* one side ends, the other goes on */
	assert_int_equal(shutdown(c.client, SHUT_WR), 0);
	assert_int_equal(await_end(c.backend), 0);
	(void)await_msg(w, SL_BROKER_CHANGED, c.id);
	expect(c.backend, c.client, "more");
	assert_int_equal(shutdown(c.backend, SHUT_WR), 0);
	assert_int_equal(await_end(c.client), 0);
	msg = await_msg(w, SL_BROKER_ENDED, c.id);
	assert_int_equal(msg.ended.how, SL_BROKER_END_CLOSED);
	assert_int_equal(msg.ended.bytes[SL_CLIENT], 300000);
	assert_int_equal(msg.ended.bytes[SL_BACKEND], 300004);
	assert_true(msg.ended.last_data_ns > 0);
	assert_int_equal(n_entries(&c), 2); /* held */
	assert_true(await_entries(w, &c, 0));
	close_all(&c);
}

/* Nothing of ours is left that could answer for the flow. */
static void test_sockets_go(void **state)
{
	struct world *w = world(state);
	struct conn c = new_conn(w);
	int before = n_open();

	assert_int_equal(ask(w, &c).why, SL_WHY_ELIGIBLE);
	assert_int_equal(n_open(), before + 2); /* the broker's */
	close_proxy_side(&c);
	assert_true(await_open(w, before - 2));
	expect_both_ways(&c);
	close_all(&c);
}

/* One that was frozen, that is: a quiet one has nothing to wait for. */
static void test_frozen_flow_is_kicked(void **state)
{
	struct world *w = world(state);
	struct conn c = new_conn(w);
	struct sl_broker_msg msg = request_of(SL_BROKER_HANDOVER, &c);
	uint64_t until = sl_clock_ms() + WAIT_MS;

	msg.handover.is_frozen = 1;
	assert_int_equal(ask_with(w, &msg, c.front, c.back).why, SL_WHY_ELIGIBLE);
	close_proxy_side(&c);

	/* Both peers have answered the probe through the flow. */
	while ((entry(&c, 0).packets == 0 || entry(&c, 1).packets == 0) && sl_clock_ms() < until)
		turn(w);
	assert_true(entry(&c, 0).packets > 0);
	assert_true(entry(&c, 1).packets > 0);
	assert_int_equal(entry(&c, 0).bytes, 0);
	close_all(&c);
}

static void test_not_quiet(void **state)
{
	struct world *w = world(state);
	struct conn c = new_conn(w);
	struct sl_broker_result r;
	char got[8] = { 0 };

	send_all(c.client, "unread", 6);
	r = ask(w, &c);
	assert_int_equal(r.why, SL_WHY_NOT_QUIESCENT);
	assert_false(r.is_final);
	assert_false(r.has_holes);
	receive_all(c.front, got, 6);
	assert_string_equal(got, "unread");
	expect_unharmed(w, &c);
}

static void test_refused_sockets(void **state)
{
	struct world *w = world(state);
	struct conn c = new_conn(w);
	struct sl_broker_msg msg = request_of(SL_BROKER_HANDOVER, &c);
	int udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int unix_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int fresh = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int pipes[2];

	assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
	expect_refused(w, &msg, udp, c.back, SL_WHY_NO_PRIVILEGE, true);
	expect_refused(w, &msg, c.front, pipes[0], SL_WHY_NO_PRIVILEGE, true);
	expect_refused(w, &msg, unix_fd, c.back, SL_WHY_NO_PRIVILEGE, true);
	expect_refused(w, &msg, w->front_fd, c.back, SL_WHY_HALF_CLOSED, true); /* a listener */
	expect_refused(w, &msg, fresh, c.back, SL_WHY_HALF_CLOSED, true);
	expect_refused(w, &msg, c.front, c.front, SL_WHY_NO_PRIVILEGE, true);
	expect_refused(w, &msg, c.back, c.front, SL_WHY_NO_PRIVILEGE,
		       true); /* the wrong way round */
	expect_refused(w, &msg, c.client, c.backend, SL_WHY_NO_PRIVILEGE, true);
	expect_unharmed(w, &c);
	(void)close(udp);
	(void)close(unix_fd);
	(void)close(fresh);
	(void)close(pipes[0]);
	(void)close(pipes[1]);
}

/* No more descriptors until emptied; `fd` ends with -1. */
static void fill_descriptors(int fd[256], struct rlimit *was)
{
	struct rlimit few;
	size_t n = 0;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, was), 0);
	few = *was;
	few.rlim_cur = 200;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	while (n < 255 && (fd[n] = dup(STDERR_FILENO)) >= 0)
		n++;
	assert_int_equal(errno, EMFILE);
	fd[n] = -1;
}

static void empty_descriptors(const int fd[256], const struct rlimit *was)
{
	for (size_t i = 0; fd[i] >= 0; i++)
		(void)close(fd[i]);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, was), 0);
}

/* The broker cannot have the sockets: they stay, the channel too, and later it works. */
static void test_no_descriptors(void **state)
{
	struct world *w = world(state);
	struct conn c = new_conn(w);
	struct sl_broker_msg msg = request_of(SL_BROKER_HANDOVER, &c);
	struct logged l = log_into();
	struct rlimit was;
	int fd[256];

	for (int spare = 0; spare < 2; spare++) {
		fill_descriptors(fd, &was);
		if (spare) { /* room for one of the two, which is closed */
			(void)close(fd[0]);
			fd[0] = STDERR_FILENO;
		}
		expect_refused(w, &msg, c.front, c.back, SL_WHY_RATE_LIMITED, false);
		expect_refused(w, &msg, c.front, c.back, SL_WHY_RATE_LIMITED, false);
		if (spare)
			fd[0] = dup(STDERR_FILENO);
		empty_descriptors(fd, &was);
	}
	assert_int_equal(end_log(&l, "packet: no descriptors left"), 1);
	expect_unharmed(w, &c);
}

/* Asked once more what had been done: that it is in the kernel needs no sockets. */
static void test_resolve_without(void **state)
{
	struct world *w = world(state);
	struct conn c = new_conn(w);
	struct conn unknown = new_conn(w);
	struct sl_broker_msg msg = request_of(SL_BROKER_RESOLVE, &c);
	struct rlimit was;
	int fd[256];
	int socks[2];

	assert_string_equal(sl_engine_reason_name(ask(w, &c).why), "eligible");
	fill_descriptors(fd, &was);
	expect_refused(w, &msg, c.front, c.back, SL_WHY_ELIGIBLE, false);
	msg = request_of(SL_BROKER_RESOLVE, &unknown);
	socks[0] = unknown.front;
	socks[1] = unknown.back;
	assert_int_equal(sl_broker_send(channel_of(w, unknown.id), &msg, socks, 2), 0);
	assert_false(
		await_on(w, channel_of(w, unknown.id), SL_BROKER_RESULT, unknown.id, &msg, 100));
	empty_descriptors(fd, &was);
	close_proxy_side(&c);
	expect_both_ways(&c);
	close_all(&c);
	close_all(&unknown);
}

/* Made by another user: st_uid of the socket says so. */
static void test_refused_owner(void **state)
{
	struct world *w = world(state);
	struct conn c;
	struct sl_broker_msg msg;

	assert_int_equal(seteuid(65534), 0);
	c = new_conn(w);
	assert_int_equal(seteuid(0), 0);
	msg = request_of(SL_BROKER_HANDOVER, &c);
	expect_refused(w, &msg, c.front, c.back, SL_WHY_NO_PRIVILEGE, true);
	expect_relayed(&c);
	close_all(&c);
}

/* Of another network namespace. */
static void test_refused_namespace(void **state)
{
	struct world *w = world(state);
	int ours = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	struct conn c = new_conn(w);
	struct sl_broker_msg msg = request_of(SL_BROKER_HANDOVER, &c);
	struct sl_addr there = addr("127.0.0.1:7443");
	int listener;
	int client;
	int front;

	if (w->is_v6)
		there = addr("[::1]:7443");
	assert_int_equal(enter_netns(), 0);
	listener = listen_on(&there);
	client = connect_to(&there, NULL);
	front = accept_from(listener);
	assert_int_equal(setns(ours, CLONE_NEWNET), 0);
	expect_refused(w, &msg, front, c.back, SL_WHY_NO_PRIVILEGE, true);
	close_all(&c);
	(void)close(front);
	(void)close(client);
	(void)close(listener);
	(void)close(ours);
}

static void test_refused_by_policy(void **state)
{
	struct world *w = world(state);
	struct conn c = new_conn(w);
	struct conn outside = new_conn_from(w, NO_PORT);
	struct sl_broker_msg msg = request_of(SL_BROKER_HANDOVER, &c);
	struct sl_addr elsewhere = w->backend;
	int listener;
	int other;

	/* one that is on its way to us, perhaps */
	msg.handover.generation = GENERATION + 1;
	expect_refused(w, &msg, c.front, c.back, SL_WHY_RATE_LIMITED, false);
	msg = request_of(SL_BROKER_HANDOVER, &c);
	msg.handover.route = 1;
	expect_refused(w, &msg, c.front, c.back, SL_WHY_NO_PRIVILEGE, true);

	sl_addr_set_port(&elsewhere, BACKEND_PORT + 1);
	listener = listen_on(&elsewhere);
	other = connect_to(&elsewhere, NULL);
	msg = request_of(SL_BROKER_HANDOVER, &c);
	expect_refused(w, &msg, c.front, other, SL_WHY_NO_PRIVILEGE, true);

	msg = request_of(SL_BROKER_HANDOVER, &outside);
	expect_refused(w, &msg, outside.front, outside.back, SL_WHY_PORT_RANGE_FULL, true);
	expect_relayed(&outside);

	/* generations are remembered, but not for ever */
	for (uint64_t i = 1; i < 8; i++)
		sl_broker_set_policy(w->broker, new_policy(w, GENERATION + i));
	hand_over(w, &c);
	sl_broker_set_policy(w->broker, new_policy(w, GENERATION + 8));
	close_all(&c);
	c = new_conn(w);
	msg = request_of(SL_BROKER_HANDOVER, &c);
	expect_refused(w, &msg, c.front, c.back, SL_WHY_NO_PRIVILEGE, true);
	close_all(&c);
	close_all(&outside);
	(void)close(other);
	(void)close(listener);
}

static void test_refused_states(void **state)
{
	struct world *w = world(state);
	struct conn c = new_conn(w);
	struct sl_broker_msg msg = request_of(SL_BROKER_HANDOVER, &c);
	int small = 500;

	assert_int_equal(shutdown(c.client, SHUT_WR), 0);
	assert_int_equal(await_end(c.front), 0);
	expect_refused(w, &msg, c.front, c.back, SL_WHY_HALF_CLOSED, true);
	expect(c.front, c.client, "half");
	close_all(&c);

	/* a segment size that the other side's path would have to carry is ours to limit, not less
	 */
	assert_int_equal(setsockopt(w->front_fd, IPPROTO_TCP, TCP_MAXSEG, &small, sizeof(small)),
			 0);
	c = new_conn(w);
	hand_over(w, &c);
	expect_both_ways(&c);
	close_all(&c);
	small = 0;
	(void)setsockopt(w->front_fd, IPPROTO_TCP, TCP_MAXSEG, &small, sizeof(small));
}

/* The same id, or the same sockets, cannot be handed over twice. */
static void test_refused_twice(void **state)
{
	struct world *w = world(state);
	struct conn c = new_conn(w);
	struct sl_broker_msg msg = request_of(SL_BROKER_HANDOVER, &c);
	struct sl_broker_result r = ask(w, &c);

	assert_int_equal(r.why, SL_WHY_ELIGIBLE);
	expect_refused(w, &msg, c.front, c.back, SL_WHY_NO_PRIVILEGE, true);
	msg.conn_id += 2;
	expect_refused(w, &msg, c.front, c.back, SL_WHY_PORT_RANGE_FULL, true);
	expect_no_delay(&c);
	close_proxy_side(&c);
	expect_both_ways(&c);
	close_all(&c);
}

/* Its close() would wait for a peer that does not read. */
static void test_linger_does_not_block(void **state)
{
	struct world *w = world(state);
	struct conn c = new_conn(w);
	struct sl_broker_msg msg = request_of(SL_BROKER_HANDOVER, &c);
	struct linger slow = { .l_onoff = 1, .l_linger = 3 };
	int fds[2] = { c.front, c.back };
	static char junk[1 << 20];
	uint64_t before;

	while (send(c.front, junk, sizeof(junk), MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
		;
	assert_int_equal(setsockopt(c.front, SOL_SOCKET, SO_LINGER, &slow, sizeof(slow)), 0);
	assert_int_equal(sl_broker_send(channel_of(w, c.id), &msg, fds, 2), 0);
	close_proxy_side(&c); /* the broker's are the last ones */
	before = sl_clock_ms();
	assert_int_equal(await_msg(w, SL_BROKER_RESULT, c.id).result.why, SL_WHY_NOT_QUIESCENT);
	assert_true(sl_clock_ms() - before < 1000);
	close_all(&c);
}

/*
 * The same with sockets that are in the kernel already: nobody but the broker can take them out of
 * repair mode, and a request about them under another id makes it do so.
 */
static void test_linger_of_the_handed_over(void **state)
{
	struct world *w = world(state);
	int before = n_open();
	struct conn c = new_conn(w);
	struct sl_broker_msg msg = request_of(SL_BROKER_HANDOVER, &c);
	struct linger slow = { .l_onoff = 1, .l_linger = 3 };
	uint64_t began;

	assert_int_equal(ask(w, &c).why, SL_WHY_ELIGIBLE);
	msg.conn_id += 2;
	expect_refused(w, &msg, c.front, c.back, SL_WHY_PORT_RANGE_FULL, true);
	assert_int_equal(send(c.front, "x", 1, MSG_DONTWAIT | MSG_NOSIGNAL), 1);
	assert_int_equal(setsockopt(c.front, SOL_SOCKET, SO_LINGER, &slow, sizeof(slow)), 0);
	close_proxy_side(&c); /* the broker's are the last ones */
	began = sl_clock_ms();
	assert_true(await_open(w, before + 2));
	assert_true(sl_clock_ms() - began < 1000);
	close_all(&c);
}

static void test_flood(void **state)
{
	struct world *w = world(state);
	struct conn c = new_conn(w);
	struct sl_broker_msg msg = request_of(SL_BROKER_HANDOVER, &c);
	struct conn other = new_conn(w);
	int limited = 0;

	msg.handover.route = 7;
	for (int i = 0; i < 20000 && !limited; i++)
		limited = ask_with(w, &msg, c.front, c.back).why == SL_WHY_RATE_LIMITED;
	assert_true(limited);
	/* of another channel */
	hand_over(w, &other);
	close_all(&c);
	close_all(&other);
}

static void test_nonsense_closes_the_channel(void **state)
{
	struct world *w = world(state);
	uint64_t until = sl_clock_ms() + WAIT_MS;
	struct sl_broker_msg msg = { .type = SL_BROKER_HELLO };
	int fds[SL_BROKER_MAX_FDS];
	int r = -EAGAIN;

	assert_int_equal(send(w->channel[0], &msg, sizeof(msg), 0), sizeof(msg));
	while (r != -EPIPE && sl_clock_ms() < until) {
		turn(w);
		r = sl_broker_recv(w->channel[0], false, &msg, fds);
		if (r == 0)
			sl_broker_close_fds(fds);
	}
	assert_int_equal(r, -EPIPE);
}

/* A worker may freeze before it asks, and keeps the filter if it is refused. */
static void test_frozen(void **state)
{
	struct world *w = world(state);
	struct conn c = new_conn(w);
	struct sl_broker_msg msg = request_of(SL_BROKER_HANDOVER, &c);

	msg.handover.is_frozen = 1;
	send_all(c.client, "x", 1);
	expect_refused(w, &msg, c.front, c.back, SL_WHY_NOT_QUIESCENT, false);
	expect(c.client, c.front, "x"); /* the octet of before */
	close_all(&c);
}

/* ---- tests: ends ---- */

static void test_kill(void **state)
{
	struct world *w = world(state);
	struct conn c = in_kernel(w);

	expect(c.client, c.backend, "before");
	tell(w, SL_BROKER_KILL, c.id, 0);
	turn(w);
	assert_int_equal(await_end(c.client), -ECONNRESET);
	assert_int_equal(await_end(c.backend), -ECONNRESET);
	assert_true(await_entries(w, &c, 0));
	close_all(&c);
}

/* Its record wants to know what has passed until then. */
static void test_kill_is_told(void **state)
{
	struct world *w = world(state);
	struct conn c = in_kernel(w);
	struct sl_broker_ended ended;

	expect(c.client, c.backend, "before");
	tell(w, SL_BROKER_KILL, c.id, 1);
	ended = await_msg(w, SL_BROKER_ENDED, c.id).ended;
	assert_int_equal(ended.how, SL_BROKER_END_KILLED);
	assert_int_equal(ended.bytes[SL_CLIENT], entry(&c, SL_PACKET_CLIENT).bytes);
	assert_int_equal(ended.bytes[SL_CLIENT], 6);
	assert_int_equal(entry(&c, SL_PACKET_CLIENT).state, SL_PACKET_KILLED);
	assert_int_equal(await_end(c.client), -ECONNRESET);
	assert_int_equal(await_end(c.backend), -ECONNRESET);
	tell(w, SL_BROKER_KILL, c.id, 1); /* of one that is over, and has been told */
	assert_true(await_entries(w, &c, 0));
	close_all(&c);
}

/* Its record has seen both ends first: they are left alone, and nobody is told again. */
static void test_kill_of_the_closed(void **state)
{
	struct world *w = world(state);

	for (int is_known = 0; is_known < 2; is_known++) {
		struct conn c = in_kernel(w);
		socklen_t len = sizeof(int);
		int err = 0;

		assert_int_equal(shutdown(c.client, SHUT_WR), 0);
		assert_int_equal(await_end(c.backend), 0);
		assert_int_equal(shutdown(c.backend, SHUT_WR), 0);
		assert_int_equal(await_end(c.client), 0);
		if (!is_known)
			assert_true(lose_events() > 0);
		else
			(void)await_msg(w, SL_BROKER_ENDED, c.id);
		tell(w, SL_BROKER_KILL, c.id, 0);
		turn(w);
		turn(w);
		assert_int_equal(entry(&c, SL_PACKET_CLIENT).state, SL_PACKET_ACTIVE);
		assert_int_equal(entry(&c, SL_PACKET_CLIENT).told, 1);
		assert_int_equal(getsockopt(c.backend, SOL_SOCKET, SO_ERROR, &err, &len), 0);
		assert_int_equal(err, 0);
		close_all(&c);
	}
}

static void reset(int fd)
{
	struct linger now = { .l_onoff = 1, .l_linger = 0 };

	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now)), 0);
	assert_int_equal(close(fd), 0);
}

static void test_rst(void **state)
{
	struct world *w = world(state);
	struct conn a = in_kernel(w);
	struct conn b = in_kernel(w);

	reset(a.client);
	assert_int_equal(await_end(a.backend), -ECONNRESET);
	assert_int_equal(await_msg(w, SL_BROKER_ENDED, a.id).ended.how, SL_BROKER_END_RST_CLIENT);
	reset(b.backend);
	assert_int_equal(await_end(b.client), -ECONNRESET);
	assert_int_equal(await_msg(w, SL_BROKER_ENDED, b.id).ended.how, SL_BROKER_END_RST_BACKEND);
	assert_true(await_entries(w, &a, 0));
	assert_true(await_entries(w, &b, 0));
	(void)close(a.backend);
	(void)close(b.client);
}

static void test_sweep_without_events(void **state)
{
	struct world *w = world(state);
	struct conn c = in_kernel(w);
	struct sl_broker_msg msg;

	expect(c.client, c.backend, "hello");
	assert_int_equal(shutdown(c.client, SHUT_WR), 0);
	assert_int_equal(shutdown(c.backend, SHUT_WR), 0);
	assert_int_equal(await_end(c.backend), 0);
	assert_int_equal(await_end(c.client), 0);
	assert_true(lose_events() > 0);
	msg = await_msg(w, SL_BROKER_ENDED, c.id);
	assert_int_equal(msg.ended.how, SL_BROKER_END_CLOSED);
	assert_int_equal(msg.ended.bytes[SL_CLIENT], 5);
	close_all(&c);
}

static void test_entries_deleted(void **state)
{
	struct world *w = world(state);
	struct conn c = in_kernel(w);

	expect_both_ways(&c);
	delete_entry(&c, SL_PACKET_BACKEND);
	assert_true(await_entries(w, &c, 2));
	expect_both_ways(&c);
	delete_entry(&c, SL_PACKET_CLIENT);
	assert_true(await_entries(w, &c, 2));
	expect_both_ways(&c);
	delete_entry(&c, SL_PACKET_CLIENT);
	delete_entry(&c, SL_PACKET_BACKEND);
	assert_int_equal(await_msg(w, SL_BROKER_ENDED, c.id).ended.how, SL_BROKER_END_LOST);
	close_all(&c);
}

/* Something between hook and socket had kept a packet until after the hand-over. */
static struct conn with_late_data(struct world *w, const char *bytes, size_t n, bool acknowledged)
{
	struct conn c = new_conn(w);
	int unused = 0;
	int now = 1;

	assert_int_equal(ask(w, &c).why, SL_WHY_ELIGIBLE);
	assert_int_equal(setsockopt(c.front, SOL_SOCKET, SO_DETACH_BPF, &unused, sizeof(unused)),
			 0);
	delete_entry(&c, SL_PACKET_CLIENT);
	if (acknowledged)
		assert_int_equal(setsockopt(c.front, IPPROTO_TCP, TCP_QUICKACK, &now, sizeof(now)),
				 0);
	send_all(c.client, bytes, n);
	close_proxy_side(&c);
	return c;
}

static bool is_acknowledged(int fd)
{
	int unacknowledged = -1;

	assert_int_equal(ioctl(fd, SIOCOUTQ, &unacknowledged), 0);
	return unacknowledged == 0;
}

/* A socket says what it has after 40 ms at the latest, which may pass on a busy machine. */
static struct conn with_silent_data(struct world *w, const char *bytes, size_t n)
{
	struct conn c = with_late_data(w, bytes, n, false);

	for (int i = 0; i < 20 && is_acknowledged(c.client); i++) {
		(void)await_msg(w, SL_BROKER_ENDED, c.id);
		close_all(&c);
		c = with_late_data(w, bytes, n, false);
	}
	return c;
}

/* Our socket has it, but has not said so: it comes again. */
static void test_late(void **state)
{
	struct world *w = world(state);
	static char late[20000];
	static char got[sizeof(late)];

	memset(late, 'l', sizeof(late));
	for (size_t n = 1; n <= sizeof(late); n += sizeof(late) - 1) {
		int before = n_open();
		struct conn c = with_silent_data(w, late, n);

		assert_true(await_open(w, before + 2)); /* the peers' */
		assert_true(await_entries(w, &c, 2));
		receive_all(c.backend, got, n);
		assert_memory_equal(got, late, n);
		expect_both_ways(&c);
		close_all(&c);
	}
}

static void test_late_acknowledged(void **state)
{
	struct world *w = world(state);
	struct conn c = with_late_data(w, "late", 4, true);

	assert_int_equal(await_msg(w, SL_BROKER_ENDED, c.id).ended.how, SL_BROKER_END_LATE);
	close_all(&c);
}

/* Likewise, and it was a RST: nobody else would tell the other side. */
static void test_late_reset(void **state)
{
	struct world *w = world(state);

	for (int i = 0; i < 2; i++) {
		struct conn c = new_conn(w);
		const struct linger abort = { .l_onoff = 1 };
		int *leaves = i == SL_PACKET_CLIENT ? &c.client : &c.backend;
		int *stays = i == SL_PACKET_CLIENT ? &c.backend : &c.client;

		assert_int_equal(ask(w, &c).why, SL_WHY_ELIGIBLE);
		delete_entry(&c, (enum sl_packet_side)i);
		assert_int_equal(setsockopt(*leaves, SOL_SOCKET, SO_LINGER, &abort, sizeof(abort)),
				 0);
		assert_int_equal(close(*leaves), 0);
		*leaves = -1;
		assert_int_equal(await_msg(w, SL_BROKER_ENDED, c.id).ended.how,
				 i == SL_PACKET_CLIENT ? SL_BROKER_END_RST_CLIENT
						       : SL_BROKER_END_RST_BACKEND);
		assert_int_equal(await_end(*stays), -ECONNRESET);
		close_all(&c);
	}
}

/* As if no packet of the client could be forwarded. */
static void test_broken(void **state)
{
	struct world *w = world(state);
	struct conn c = in_kernel(w);
	uint64_t until = sl_clock_ms() + WAIT_MS;
	struct sl_broker_msg msg = { 0 };
	int fd = flows_fd();

	expect(c.client, c.backend, "hello");
	for (;;) {
		struct sl_packet_flow flow = entry(&c, SL_PACKET_CLIENT);

		flow.drops++;
		if (flow.state == SL_PACKET_ACTIVE)
			assert_int_equal(bpf_map_update_elem(fd, &c.key[0], &flow, BPF_EXIST), 0);
		if (await_on(w, channel_of(w, c.id), SL_BROKER_ENDED, c.id, &msg, 50) ||
		    sl_clock_ms() > until)
			break;
	}
	assert_int_equal(msg.ended.how, SL_BROKER_END_BROKEN);
	assert_int_equal(await_end(c.client), -ECONNRESET);
	assert_int_equal(await_end(c.backend), -ECONNRESET);
	(void)close(fd);
	close_all(&c);
}

/* A new connection from the same client port ends the holding of the old one. */
static void test_reused(void **state)
{
	struct world *w = world(state);
	int before = n_open();
	struct conn c = in_kernel(w);
	struct sl_addr from = name_of(c.client, false);
	int again;

	assert_true(await_open(w, before + 2)); /* the old sockets do not hear the SYN */

	assert_int_equal(shutdown(c.backend, SHUT_WR), 0);
	assert_int_equal(await_end(c.client), 0);
	assert_int_equal(shutdown(c.client, SHUT_WR), 0);
	assert_int_equal(await_end(c.backend), 0);
	assert_int_equal(await_msg(w, SL_BROKER_ENDED, c.id).ended.how, SL_BROKER_END_CLOSED);
	close_all(&c);
	again = connect_to(&w->front, &from);
	assert_int_equal(n_entries(&c), 0);
	(void)close(again);
	(void)close(accept_from(w->front_fd));
}

/* Over before its sockets are let go: they must not swallow the SYN of the next connection. */
static void test_reused_at_once(void **state)
{
	struct world *w = world(state);
	struct conn c = in_kernel(w);
	struct sl_addr from = name_of(c.client, false);
	uint64_t began;
	int again;

	assert_int_equal(shutdown(c.backend, SHUT_WR), 0);
	assert_int_equal(await_end(c.client), 0);
	assert_int_equal(shutdown(c.client, SHUT_WR), 0);
	assert_int_equal(await_end(c.backend), 0);
	assert_int_equal(await_msg(w, SL_BROKER_ENDED, c.id).ended.how, SL_BROKER_END_CLOSED);
	close_all(&c);
	began = sl_clock_ms();
	again = connect_to(&w->front, &from);
	assert_true(sl_clock_ms() - began < 500); /* a SYN is sent again after a second */
	assert_int_equal(n_entries(&c), 0);
	(void)close(again);
	(void)close(accept_from(w->front_fd));
}

static void test_flush(void **state)
{
	struct world *w = world(state);
	struct conn a = in_kernel(w);
	struct conn b = in_kernel(w);
	struct sl_broker_msg msg = { .type = SL_BROKER_FLUSH };

	assert_int_equal(sl_broker_send(w->channel[CONTROL], &msg, NULL, 0), 0);
	assert_true(await_on(w, w->channel[CONTROL], SL_BROKER_FLUSHED, 0, &msg, WAIT_MS));
	assert_int_equal(n_entries(&a), 0);
	assert_int_equal(n_entries(&b), 0);
	assert_int_equal(await_msg(w, SL_BROKER_ENDED, a.id).ended.how, SL_BROKER_END_KILLED);
	assert_int_equal(await_msg(w, SL_BROKER_ENDED, b.id).ended.how, SL_BROKER_END_KILLED);
	assert_int_equal(await_end(a.client), -ECONNRESET);
	assert_int_equal(await_end(b.backend), -ECONNRESET);
	close_all(&a);
	close_all(&b);
}

/* The whole of an answer; it fits one part, or the test is to be mended. */
static struct sl_broker_msg ask_diff(struct world *w)
{
	struct sl_broker_msg msg = { .type = SL_BROKER_DIFF };

	assert_int_equal(sl_broker_send(w->channel[CONTROL], &msg, NULL, 0), 0);
	assert_true(await_on(w, w->channel[CONTROL], SL_BROKER_DIFF_TEXT, 0, &msg, WAIT_MS));
	assert_int_equal(msg.diff_text.at, 0);
	return msg;
}

/* An entry under a key that is not the connection's is found at once, and goes after its grace. */
static void test_diff(void **state)
{
	struct world *w = world(state);
	struct sl_broker_msg msg = ask_diff(w);
	struct conn c = in_kernel(w);
	struct sl_packet_flow flow = entry(&c, 0);
	struct conn stray = c;
	_cleanup_fd_ int fd = flows_fd();

	assert_int_equal(strncmp(msg.diff_text.text, "l packet ", 9), 0);
	assert_null(strstr(msg.diff_text.text, "\nd "));
	stray.key[0].sport ^= 1;
	stray.key[1] = stray.key[0];
	assert_int_equal(bpf_map_update_elem(fd, &stray.key[0], &flow, BPF_ANY), 0);
	msg = ask_diff(w);
	assert_non_null(strstr(msg.diff_text.text, "\nd packet_stray waits "));
	assert_true(await_entries(w, &stray, 0));
	assert_int_equal(n_entries(&c), 2);
	expect_both_ways(&c);
	close_all(&c);
}

/* Who asks during a look gets the next one, which is one for all of them. */
static void test_diff_again(void **state)
{
	struct world *w = world(state);
	struct sl_broker_msg msg = { .type = SL_BROKER_DIFF };
	const struct sl_broker_msg ask = msg;
	const uint64_t from = sl_clock_ms();

	for (int i = 0; i < 5; i++)
		assert_int_equal(sl_broker_send(w->channel[CONTROL], &ask, NULL, 0), 0);
	assert_true(await_on(w, w->channel[CONTROL], SL_BROKER_DIFF_TEXT, 0, &msg, WAIT_MS));
	assert_true(await_on(w, w->channel[CONTROL], SL_BROKER_DIFF_TEXT, 0, &msg, WAIT_MS));
	assert_true(sl_clock_ms() - from >= 100); /* and rests before it */
	assert_false(await_on(w, w->channel[CONTROL], SL_BROKER_DIFF_TEXT, 0, &msg, 300));
}

/* The last count is what was forwarded, however short before the end. */
static void test_flush_counts(void **state)
{
	struct world *w = world(state);
	struct sl_broker_times rare = quick;
	struct sl_broker_msg msg = { .type = SL_BROKER_FLUSH };
	struct sl_broker_ended ended;
	struct conn c;

	rare.round_ms = 60000; /* no sweep sees it */
	replace_broker_with(w, 1, &rare);
	c = in_kernel(w);
	expect_both_ways(&c);
	expect(c.client, c.backend, "and this");
	assert_int_equal(sl_broker_send(w->channel[CONTROL], &msg, NULL, 0), 0);
	ended = await_msg(w, SL_BROKER_ENDED, c.id).ended;
	assert_int_equal(ended.how, SL_BROKER_END_KILLED);
	assert_int_equal(ended.bytes[SL_CLIENT], 300008);
	assert_int_equal(ended.bytes[SL_BACKEND], 300000);
	assert_true(await_on(w, w->channel[CONTROL], SL_BROKER_FLUSHED, 0, &msg, WAIT_MS));
	close_all(&c);
}

/* The same where everything ends at once: its owner is told before the table goes. */
static void test_stop_tells(void **state)
{
	struct world *w = world(state);
	struct sl_broker_times rare = quick;
	struct sl_broker_msg msg;
	struct conn a;
	struct conn b;

	rare.round_ms = 60000;
	replace_broker_with(w, 1, &rare);
	a = in_kernel(w);
	b = in_kernel(w);
	expect_both_ways(&a);
	sl_broker_stop(w->broker);
	msg = await_msg(w, SL_BROKER_ENDED, a.id);
	assert_int_equal(msg.ended.how, SL_BROKER_END_KILLED);
	assert_int_equal(msg.ended.bytes[SL_CLIENT], 300000);
	assert_int_equal(msg.ended.bytes[SL_BACKEND], 300000);
	assert_int_equal(await_msg(w, SL_BROKER_ENDED, b.id).ended.how, SL_BROKER_END_KILLED);
	close_all(&a);
	close_all(&b);
}

static bool await_status(struct world *w, bool (*fn)(const struct sl_broker_status *s))
{
	uint64_t until = sl_clock_ms() + WAIT_MS;
	struct sl_broker_msg msg;

	while (!fn(&w->status) && sl_clock_ms() < until)
		(void)await_on(w, w->channel[CONTROL], SL_BROKER_STATUS, 0, &msg, 10);
	return fn(&w->status);
}

static bool has_one_live(const struct sl_broker_status *s)
{
	return s->n_live == 1 && s->orphans == 0;
}

/* ---- tests: deaths ---- */

static void replace_broker(struct world *w, uint64_t proxy)
{
	replace_broker_with(w, proxy, &quick);
}

static struct sl_broker_flow adopt(struct world *w, const struct conn *c, uint32_t flag)
{
	struct sl_broker_msg msg = await_msg(w, SL_BROKER_ADOPT, c->id);

	tell(w, SL_BROKER_ADOPTED, c->id, flag);
	return msg.flow;
}

static void test_adoption(void **state)
{
	struct world *w = world(state);
	struct conn a = in_kernel(w);
	struct conn b = in_kernel(w);
	struct sl_addr client = name_of(a.client, false);
	struct sl_broker_flow flow;

	replace_broker(w, 1);
	expect_both_ways(&a);
	flow = adopt(w, &a, 1);
	assert_true(sl_addr_is_equal(&flow.client, &client));
	assert_true(sl_addr_is_equal(&flow.front, &w->front));
	assert_true(sl_addr_is_equal(&flow.backend, &w->backend));
	assert_int_equal(sl_addr_port(&flow.back), a.key[1].dport);
	(void)adopt(w, &b, 2);
	turn(w);
	assert_int_equal(await_end(b.client), -ECONNRESET);
	assert_int_equal(await_end(b.backend), -ECONNRESET);
	expect_both_ways(&a);
	close_all(&a);
	assert_int_equal(await_msg(w, SL_BROKER_ENDED, a.id).ended.how, SL_BROKER_END_CLOSED);
	assert_true(await_entries(w, &a, 0));
	assert_true(await_entries(w, &b, 0));
	close_all(&b);
}

/* Ended while nobody looked: it is told of, and then of its end. */
static void test_adoption_of_the_dead(void **state)
{
	struct sl_broker_times slow = quick; /* loading programs may take half a second */
	struct world *w = world(state);
	struct conn c = in_kernel(w);

	slow.closed_ms = 2000;
	sl_broker_free(w->broker);
	close_channels(w);
	expect(c.client, c.backend, "hello");
	close_all(&c);
	turn(w);
	start_broker_with(w, &slow);
	add_channels(w, 2);
	(void)adopt(w, &c, 1);
	assert_int_equal(await_msg(w, SL_BROKER_ENDED, c.id).ended.how, SL_BROKER_END_CLOSED);
	assert_true(await_entries(w, &c, 0));
}

/* What was reported is not reported again, and not taken for something that lives. */
static void test_adoption_of_the_told(void **state)
{
	struct world *w = world(state);
	struct conn c = in_kernel(w);
	struct conn killed = in_kernel(w);
	struct conn live = in_kernel(w);
	struct sl_broker_msg msg;

	close_all(&c);
	(void)await_msg(w, SL_BROKER_ENDED, c.id);
	tell(w, SL_BROKER_KILL, killed.id, 0);
	assert_int_equal((turn(w), await_end(killed.client)), -ECONNRESET);
	assert_int_equal(entry(&c, SL_PACKET_CLIENT).told, 1);
	assert_int_equal(entry(&live, SL_PACKET_CLIENT).told, 0);
	replace_broker(w, 1);
	(void)adopt(w, &live, 1);
	assert_true(await_status(w, has_one_live));
	assert_int_equal(w->status.adopted, 1);
	assert_false(await_on(w, channel_of(w, c.id), SL_BROKER_ADOPT, c.id, &msg, 200));
	assert_false(await_on(w, channel_of(w, killed.id), SL_BROKER_ADOPT, killed.id, &msg, 0));
	assert_true(await_entries(w, &c, 0));
	assert_true(await_entries(w, &killed, 0));
	expect_both_ways(&live);
	close_all(&killed);
	close_all(&live);
}

static void test_release(void **state)
{
	struct world *w = world(state);
	struct conn c = in_kernel(w);
	int old = channel_of(w, c.id);
	struct sl_broker_msg msg = { .type = SL_BROKER_RELEASE, .conn_id = c.id };
	int kept[CHANNELS];

	memcpy(kept, w->channel, sizeof(kept));
	add_channels(w, 2);
	assert_int_equal(sl_broker_send(old, &msg, NULL, 0), 0);
	(void)adopt(w, &c, 1);
	expect_both_ways(&c);
	for (unsigned i = 0; i < CHANNELS; i++)
		sl_broker_hang_up(kept[i]);
	close_all(&c);
	assert_int_equal(await_msg(w, SL_BROKER_ENDED, c.id).ended.how, SL_BROKER_END_CLOSED);
}

/* What it was told crossed its letting go: the next one reports it, also to the next broker. */
static void test_release_of_the_told(void **state)
{
	struct sl_broker_times slow = quick; /* what is over must still be held when it is let go */
	struct world *w = world(state);

	slow.closed_ms = 5000;
	sl_broker_free(w->broker);
	close_channels(w);
	start_broker_with(w, &slow);
	add_channels(w, 1);
	for (int is_replaced = 0; is_replaced < 2; is_replaced++) {
		struct conn c = in_kernel(w);
		struct sl_broker_msg msg = { .type = SL_BROKER_RELEASE, .conn_id = c.id };
		int old;

		close_all(&c);
		(void)await_msg(w, SL_BROKER_ENDED, c.id);
		if (is_replaced) {
			sl_broker_free(w->broker);
			close_channels(w);
			turn(w);
			start_broker_with(w, &slow);
			add_channels(w, 1);
		}
		old = channel_of(w, c.id);
		add_channels(w, 2);
		assert_int_equal(sl_broker_send(old, &msg, NULL, 0), 0);
		(void)adopt(w, &c, 1);
		assert_int_equal(await_msg(w, SL_BROKER_ENDED, c.id).ended.how,
				 SL_BROKER_END_CLOSED);
	}
}

/* A proxy that dies says nothing. */
static void test_proxy_death(void **state)
{
	struct world *w = world(state);
	struct conn c = in_kernel(w);

	close_channels(w);
	turn(w);
	expect_both_ways(&c);
	add_channels(w, 2);
	(void)adopt(w, &c, 1);
	expect_both_ways(&c);
	close_all(&c);
}

static void test_resolve(void **state)
{
	struct world *w = world(state);
	struct conn done = new_conn(w);
	struct conn not_done = new_conn(w);
	struct sl_broker_msg msg;
	struct sl_broker_result r;
	int repair = 1;
	int late = 0;

	assert_int_equal(ask(w, &done).why, SL_WHY_ELIGIBLE);
	/* as a broker leaves it that dies before the commit */
	assert_int_equal(setsockopt(not_done.front, IPPROTO_TCP, TCP_REPAIR, &repair, sizeof(int)),
			 0);
	assert_int_equal(setsockopt(not_done.back, IPPROTO_TCP, TCP_REPAIR, &repair, sizeof(int)),
			 0);
	assert_int_equal(setsockopt(not_done.front, IPPROTO_TCP, TCP_QUICKACK, &late, sizeof(int)),
			 0);
	replace_broker(w, 1);

	msg = request_of(SL_BROKER_RESOLVE, &done);
	r = ask_with(w, &msg, done.front, done.back);
	assert_int_equal(r.why, SL_WHY_ELIGIBLE);
	close_proxy_side(&done);
	expect_both_ways(&done);
	for (uint64_t until = sl_clock_ms() + 100; sl_clock_ms() < until;)
		turn(w);
	expect_both_ways(&done); /* nothing was found late */

	msg = request_of(SL_BROKER_RESOLVE, &not_done);
	r = ask_with(w, &msg, not_done.front, not_done.back);
	assert_int_equal(r.why, SL_WHY_NOT_QUIESCENT);
	assert_int_equal(n_entries(&not_done), 0);
	expect_no_delay(&not_done);
	expect_relayed(&not_done);
	hand_over(w, &not_done);
	expect_both_ways(&not_done);
	close_all(&done);
	close_all(&not_done);
}

/* Refused for what came meanwhile: nothing of a broker's is left on the other socket. */
static void test_resolve_refused(void **state)
{
	struct world *w = world(state);
	struct conn c = new_conn(w);
	const struct sl_broker_msg msg = request_of(SL_BROKER_RESOLVE, &c);
	socklen_t len = sizeof(int);
	int repair = 1;

	for (int i = 0; i < 2; i++)
		assert_int_equal(setsockopt(i ? c.back : c.front, IPPROTO_TCP, TCP_REPAIR, &repair,
					    sizeof(int)),
				 0);
	replace_broker(w, 1);
	reset(c.client);
	expect_refused(w, &msg, c.front, c.back, SL_WHY_HALF_CLOSED, true);
	assert_int_equal(getsockopt(c.back, IPPROTO_TCP, TCP_REPAIR, &repair, &len), 0);
	assert_int_equal(repair, 0);
	reset(c.back);
	assert_int_equal(await_end(c.backend), -ECONNRESET);
	(void)close(c.front);
	(void)close(c.backend);
}

/* The next proxy has been told of it already: whoever asks lets go of its sockets alone. */
static void test_resolve_by_another(void **state)
{
	struct world *w = world(state);
	struct conn c = new_conn(w);
	const struct sl_broker_msg msg = request_of(SL_BROKER_RESOLVE, &c);
	int fds[2] = { c.front, c.back };
	struct sl_broker_msg got;
	int old;

	assert_int_equal(ask(w, &c).why, SL_WHY_ELIGIBLE);
	replace_broker(w, 2);
	got = await_msg(w, SL_BROKER_ADOPT, c.id);
	old = add_channel(w, 1, (unsigned)(c.id % WORKERS));
	assert_int_equal(sl_broker_send(old, &msg, fds, 2), 0);
	assert_true(await_on(w, old, SL_BROKER_RESULT, c.id, &got, WAIT_MS));
	assert_int_equal(got.result.why, SL_WHY_ELIGIBLE);
	close_proxy_side(&c);
	tell(w, SL_BROKER_ADOPTED, c.id, 1);
	got = (struct sl_broker_msg){ .type = SL_BROKER_RELEASE, .conn_id = c.id };
	assert_int_equal(sl_broker_send(old, &got, NULL, 0), 0);
	turn(w);
	expect_both_ways(&c);
	close_all(&c);
	assert_int_equal(await_msg(w, SL_BROKER_ENDED, c.id).ended.how, SL_BROKER_END_CLOSED);
	sl_broker_hang_up(old);
}

/* ---- tests: surroundings ---- */

static bool has_two_live(const struct sl_broker_status *s)
{
	return s->n_live == 2 && s->n_flows == 2;
}

static bool has_one_of_each(const struct sl_broker_status *s)
{
	return s->n_live == 1 && s->n_held == 1;
}

static bool has_three_interfaces(const struct sl_broker_status *s)
{
	return s->n_interfaces == 3;
}

static bool has_five_interfaces(const struct sl_broker_status *s)
{
	return s->n_interfaces == 5;
}

static bool has_one_interface(const struct sl_broker_status *s)
{
	return s->n_interfaces == 1;
}

static bool has_1024(const struct sl_broker_status *s)
{
	return s->max_flows == 1024;
}

static bool has_missing(const struct sl_broker_status *s)
{
	return s->n_interfaces == 1 &&
	       strstr(s->text, " on 1 interface, 1 named in packet.interfaces missing");
}

static bool has_none_missing(const struct sl_broker_status *s)
{
	return s->n_interfaces == 2 && !strstr(s->text, "missing");
}

static bool has_repaired(const struct sl_broker_status *s)
{
	return s->repaired > 0 && s->n_interfaces == 1;
}

static void test_status(void **state)
{
	struct world *w = world(state);
	struct conn a = in_kernel(w);
	struct conn b = in_kernel(w);

	assert_true(await_status(w, has_two_live));
	assert_int_equal(w->status.is_on, 1);
	assert_int_equal(w->status.why, SL_WHY_NONE);
	assert_int_equal(w->status.max_flows, 256);
	assert_int_equal(w->status.n_interfaces, 1);
	assert_int_equal(w->status.port_from, FIRST_PORT);
	assert_non_null(strstr(w->status.text, " on 1 interface"));
	tell(w, SL_BROKER_KILL, a.id, 0);
	assert_true(await_status(w, has_one_of_each));
	close_all(&a);
	close_all(&b);
}

static void test_foreign_detach(void **state)
{
	struct world *w = world(state);
	struct conn c = in_kernel(w);
	char path[96];
	int link;

	(void)snprintf(path, sizeof(path), "%s/link_tcx_1", dir);
	link = bpf_obj_get(path);
	if (link < 0) {
		print_message("skipped: no tcx here\n");
		close_all(&c);
		skip();
	}
	assert_int_equal(bpf_link_detach(link), 0);
	(void)close(link);
	assert_true(await_status(w, has_repaired));
	expect_both_ways(&c);
	close_all(&c);
}

static bool run(const char *command)
{
	return system(command) == 0;
}

static void test_new_interface(void **state)
{
	struct world *w = world(state);
	struct sl_policy *lo_only = new_policy(w, GENERATION + 1);

	assert_true(await_status(w, has_one_interface));
	assert_string_equal(w->status.interfaces, "lo ");
	assert_true(run("ip link add sl0 type veth peer name sl2"));
	assert_true(await_status(w, has_three_interfaces));
	assert_non_null(strstr(w->status.interfaces, "sl0 "));
	assert_non_null(strstr(w->status.interfaces, "sl2 "));
	assert_true(run("ip link del sl0"));
	assert_true(await_status(w, has_one_interface));
	assert_string_equal(w->status.interfaces, "lo ");

	/* as many as there is room for */
	assert_true(run("ip link add sl3456789012345 type veth peer name sl4456789012345"));
	assert_true(run("ip link add sl5456789012345 type veth peer name sl6456789012345"));
	assert_true(await_status(w, has_five_interfaces));
	assert_int_equal(strlen(w->status.interfaces), 3 + 3 * 16);
	assert_true(run("ip link del sl3456789012345"));
	assert_true(run("ip link del sl5456789012345"));
	assert_true(await_status(w, has_one_interface));

	/* those named alone */
	lo_only->n_interfaces = 1;
	(void)snprintf(lo_only->interfaces[0], sizeof(lo_only->interfaces[0]), "sl1");
	assert_true(run("ip link add sl1 type veth peer name sl2"));
	assert_true(await_status(w, has_three_interfaces));
	sl_broker_set_policy(w->broker, lo_only);
	assert_true(await_status(w, has_one_interface));
	assert_true(run("ip link del sl1"));
}

static void test_interface_not_attached(void **state)
{
	struct world *w = world(state);
	struct sl_policy *none = new_policy(w, GENERATION + 1);
	struct conn before = in_kernel(w);
	struct conn c = new_conn(w);
	struct sl_broker_msg msg = request_of(SL_BROKER_HANDOVER, &c);

	none->n_interfaces = 1;
	(void)snprintf(none->interfaces[0], sizeof(none->interfaces[0]), "nowhere");
	sl_broker_set_policy(w->broker, none);
	expect_refused(w, &msg, c.front, c.back, SL_WHY_INTERFACE_NOT_ATTACHED, false);
	expect_relayed(&c);
	expect_both_ways(&before); /* the program stays as long as it is needed */
	close_all(&c);
	close_all(&before);
}

/* Named, and not there: said, and attached to when it comes. */
static void test_missing_interface(void **state)
{
	struct world *w = world(state);
	struct sl_policy *policy = new_policy(w, GENERATION + 1);
	struct logged l = log_into();

	policy->n_interfaces = 2;
	(void)snprintf(policy->interfaces[0], sizeof(policy->interfaces[0]), "lo");
	(void)snprintf(policy->interfaces[1], sizeof(policy->interfaces[1]), "sl1");
	sl_broker_set_policy(w->broker, policy);
	assert_int_equal(end_log(&l, "packet: sl1: no such interface yet"), 1);
	assert_true(await_status(w, has_missing));
	assert_true(run("ip link add sl1 type veth peer name sl2"));
	assert_true(await_status(w, has_none_missing));
	assert_true(run("ip link del sl1"));
}

/* Runs in the other namespace. */
static bool run_in(int netns, int ours, const char *command)
{
	bool done;

	assert_int_equal(setns(netns, CLONE_NEWNET), 0);
	done = run(command);
	assert_int_equal(setns(ours, CLONE_NEWNET), 0);
	return done;
}

/* Two ways to a backend in another namespace, which is itself on neither. */
static void lay_cables(int netns, int ours)
{
	char command[512];

	(void)snprintf(command, sizeof(command),
		       "ip link add sla0 type veth peer name slb0 && "
		       "ip link add sla1 type veth peer name slb1 && "
		       "ip link set slb0 netns /proc/%d/fd/%d && "
		       "ip link set slb1 netns /proc/%d/fd/%d && "
		       "ip addr add 10.9.0.1/24 dev sla0 && ip link set sla0 up && "
		       "ip addr add 10.9.1.1/24 dev sla1 && ip link set sla1 up && "
		       "ip addr add 10.9.8.1/32 dev lo && "
		       "ip route add 10.9.9.9 via 10.9.0.2 src 10.9.8.1",
		       getpid(), netns, getpid(), netns);
	assert_true(run(command));
	assert_true(run_in(netns, ours,
			   "ip addr add 10.9.0.2/24 dev slb0 && ip link set slb0 up && "
			   "ip addr add 10.9.1.2/24 dev slb1 && ip link set slb1 up && "
			   "ip addr add 10.9.9.9/32 dev lo && "
			   "ip route add 10.9.8.1 via 10.9.0.1 src 10.9.9.9"));
}

static void test_route_change(void **state)
{
	struct world *w = world(state);
	int ours = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	struct sl_addr back = addr("10.9.8.1:1");
	uint64_t until = sl_clock_ms() + WAIT_MS;
	int clamp = 1400;
	struct conn c;
	uint32_t before;
	int netns;

	assert_int_equal(enter_netns(), 0);
	netns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	(void)close(w->backend_fd);
	w->backend = addr("10.9.9.9:9443");
	assert_true(run("ip addr add 10.9.9.9/32 dev lo"));
	w->backend_fd = listen_on(&w->backend);
	assert_true(run("ip addr del 10.9.9.9/32 dev lo"));
	assert_int_equal(setns(ours, CLONE_NEWNET), 0);
	lay_cables(netns, ours);
	sl_broker_set_policy(w->broker, new_policy(w, GENERATION));
	/* or the loopback device's long segments would meet a shorter path */
	assert_int_equal(setsockopt(w->front_fd, IPPROTO_TCP, TCP_MAXSEG, &clamp, sizeof(clamp)),
			 0);
	sl_addr_set_port(&back, w->next_port);
	c = new_conn_over(w, &back);
	w->next_port++;
	turn(w);
	hand_over(w, &c);
	expect_both_ways(&c);
	before = entry(&c, SL_PACKET_CLIENT).ifindex;
	assert_int_equal(before, if_nametoindex("sla0"));
	assert_true(run("ip route replace 10.9.9.9 via 10.9.1.2 src 10.9.8.1"));
	while (entry(&c, SL_PACKET_CLIENT).ifindex == before && sl_clock_ms() < until)
		turn(w);
	assert_int_equal(entry(&c, SL_PACKET_CLIENT).ifindex, if_nametoindex("sla1"));
	assert_int_equal(entry(&c, SL_PACKET_BACKEND).peer_ifindex, if_nametoindex("sla1"));
	assert_int_equal(entry(&c, SL_PACKET_BACKEND).ifindex, if_nametoindex("lo"));
	expect_both_ways(&c);

	close_all(&c);
	(void)close(netns);
	(void)close(ours);
	assert_true(run("ip link del sla0 && ip link del sla1 && ip addr del 10.9.8.1/32 dev lo"));
}

static void test_full(void **state)
{
	struct world *w = world(state);
	static struct conn c[257];
	struct sl_broker_msg msg;

	for (size_t i = 0; i < 256; i++) {
		c[i] = new_conn(w);
		hand_over(w, &c[i]);
	}
	c[256] = new_conn(w);
	msg = request_of(SL_BROKER_HANDOVER, &c[256]);
	expect_refused(w, &msg, c[256].front, c[256].back, SL_WHY_MAP_FULL, false);
	expect_relayed(&c[256]);
	for (size_t i = 0; i < 257; i++)
		close_all(&c[i]);
}

static void test_off(void **state)
{
	struct world *w = world(state);
	struct conn c = new_conn(w);
	struct sl_broker_msg msg = request_of(SL_BROKER_HANDOVER, &c);
	struct sl_policy *policy = new_policy(w, GENERATION);

	sl_broker_stop(w->broker);
	sl_broker_free(w->broker);
	close_channels(w);
	turn(w);
	const struct sl_broker_options options = { .loop = w->loop,
						   .times = &quick,
						   .proxy_uid = geteuid() };
	assert_int_equal(sl_broker_new(&options, &w->broker), 0);
	(void)snprintf(policy->bpf_dir, sizeof(policy->bpf_dir), "/tmp/no-bpf-file-system");
	sl_broker_set_policy(w->broker, policy);
	for (unsigned i = 0; i < CHANNELS; i++)
		w->channel[i] = add_channel(w, 1, i);
	expect_refused(w, &msg, c.front, c.back, SL_WHY_NOT_LINUX_SUPPORTED, true);
	expect_relayed(&c);
	assert_true(await_on(w, w->channel[CONTROL], SL_BROKER_STATUS, 0, &msg, WAIT_MS));
	assert_int_equal(msg.status.is_on, 0);
	assert_int_equal(msg.status.why, SL_WHY_NOT_LINUX_SUPPORTED);
	assert_memory_equal(msg.status.text, "off: ", 5);

	/* mounted after all, and the configuration is loaded again */
	sl_broker_set_policy(w->broker, new_policy(w, GENERATION + 1));
	assert_true(await_on(w, w->channel[0], SL_BROKER_HELLO, 0, &msg, WAIT_MS));
	hand_over(w, &c);
	expect_both_ways(&c);
	close_all(&c);
}

static void test_stop(void **state)
{
	struct world *w = world(state);
	struct conn c = in_kernel(w);

	sl_broker_stop(w->broker);
	assert_int_equal(await_end(c.client), -ECONNRESET);
	assert_int_equal(await_end(c.backend), -ECONNRESET);
	assert_int_equal(access(dir, F_OK), -1);
	close_all(&c);
}

/* ---- tests: reserved ports ---- */

static void read_reserved(char *ret, size_t size)
{
	FILE *f = fopen("/proc/sys/net/ipv4/ip_local_reserved_ports", "re");

	assert_non_null(f);
	if (!fgets(ret, (int)size, f))
		ret[0] = '\0';
	(void)fclose(f);
	ret[strcspn(ret, "\n")] = '\0';
}

static bool await_reserved(struct world *w, const char *want)
{
	uint64_t until = sl_clock_ms() + WAIT_MS;
	char text[256];

	for (;;) {
		read_reserved(text, sizeof(text));
		if (strcmp(text, want) == 0 || sl_clock_ms() >= until)
			break;
		turn(w);
	}
	return strcmp(text, want) == 0;
}

#define assert_reserved(want)                        \
	do {                                         \
		char text_[256];                     \
		read_reserved(text_, sizeof(text_)); \
		assert_string_equal(text_, want);    \
	} while (0)

static struct sl_policy *other_ports(struct world *w, uint64_t generation, uint16_t from,
				     uint16_t to)
{
	struct sl_policy *policy = new_policy(w, generation);

	policy->port_from = from;
	policy->port_to = to;
	return policy;
}

/* As long as a flow has a port of the old range, it is given to nobody else. */
static void test_ports_change(void **state)
{
	struct world *w = world(state);
	struct conn c = in_kernel(w);
	struct conn late;
	struct sl_broker_msg msg;

	assert_reserved("41000-41999");
	sl_broker_set_policy(w->broker, other_ports(w, GENERATION + 1, 43000, 43999));
	assert_reserved("41000-41999,43000-43999");
	expect_both_ways(&c);
	/* over, and its entries are still there */
	close_all(&c);
	(void)await_msg(w, SL_BROKER_ENDED, c.id);
	assert_int_equal(n_entries(&c), 2);
	assert_reserved("41000-41999,43000-43999");
	assert_true(await_reserved(w, "43000-43999"));
	assert_int_equal(n_entries(&c), 0);
	/* too late for one that was there before */
	late = new_conn(w);
	msg = request_of(SL_BROKER_HANDOVER, &late);
	expect_refused(w, &msg, late.front, late.back, SL_WHY_PORT_RANGE_FULL, true);
	expect_relayed(&late);
	close_all(&late);
	/* nobody has one: at once */
	sl_broker_set_policy(w->broker, other_ports(w, GENERATION + 2, 43500, 44999));
	assert_reserved("43500-44999");
}

/* The next broker has another range, and adopts a flow of the old one. */
static void test_ports_adopted(void **state)
{
	struct world *w = world(state);
	const struct sl_broker_options options = { .loop = w->loop,
						   .times = &quick,
						   .proxy_uid = geteuid() };
	struct conn c = in_kernel(w);

	sl_broker_free(w->broker);
	close_channels(w);
	turn(w);
	assert_int_equal(sl_broker_new(&options, &w->broker), 0);
	sl_broker_set_policy(w->broker, other_ports(w, GENERATION, 43000, 43999));
	add_channels(w, 1);
	(void)adopt(w, &c, 1);
	expect_both_ways(&c);
	assert_reserved("41000-41999,43000-43999");
	close_all(&c);
	assert_true(await_reserved(w, "43000-43999"));
}

/* ---- tests: size ---- */

static void count_call(void *arg)
{
	++*(int *)arg;
}

static struct sl_policy *other_size(struct world *w, uint64_t generation, uint32_t max_flows)
{
	struct sl_policy *policy = new_policy(w, generation);

	policy->max_flows = max_flows;
	return policy;
}

/* Another table can be loaded when no flow is left in this one: by another process. */
static void test_size_change(void **state)
{
	struct world *w = world(state);
	int n_calls = 0;
	const struct sl_broker_options options = { .loop = w->loop,
						   .times = &quick,
						   .proxy_uid = geteuid(),
						   .outgrown = count_call,
						   .arg = &n_calls };
	struct conn c = in_kernel(w);
	uint64_t until;

	sl_broker_free(w->broker);
	close_channels(w);
	turn(w);
	assert_int_equal(sl_broker_new(&options, &w->broker), 0);
	sl_broker_set_policy(w->broker, other_size(w, GENERATION, 512));
	add_channels(w, 1);
	(void)adopt(w, &c, 1);
	sl_broker_set_policy(w->broker, other_size(w, GENERATION + 1, 512));
	sl_broker_set_policy(w->broker, other_size(w, GENERATION + 2, 256));
	sl_broker_set_policy(w->broker, other_size(w, GENERATION + 3, 1024));
	expect_both_ways(&c);
	assert_int_equal(n_calls, 0);
	close_all(&c);
	until = sl_clock_ms() + WAIT_MS;
	while (n_calls == 0 && sl_clock_ms() < until) {
		turn(w);
	}
	assert_int_equal(n_calls, 1);
	assert_int_equal(n_entries(&c), 0);
	/* that process */
	sl_broker_free(w->broker);
	close_channels(w);
	turn(w);
	assert_int_equal(sl_broker_new(&options, &w->broker), 0);
	sl_broker_set_policy(w->broker, other_size(w, GENERATION + 3, 1024));
	add_channels(w, 1);
	assert_true(await_status(w, has_1024));
	/* no flow is there: at once */
	sl_broker_set_policy(w->broker, other_size(w, GENERATION + 4, 1024));
	assert_int_equal(n_calls, 1);
	sl_broker_set_policy(w->broker, other_size(w, GENERATION + 5, 64));
	assert_int_equal(n_calls, 2);
}

/* ---- tests: connection tracking ---- */

static int n_tracked(uint16_t port)
{
	char line[512];
	char want[32];
	FILE *f = fopen("/proc/self/net/nf_conntrack", "re");
	int n = 0;

	if (!f)
		return -1;
	(void)snprintf(want, sizeof(want), "port=%u ", port);
	while (fgets(line, sizeof(line), f))
		n += strstr(line, want) && strstr(line, "ESTABLISHED");
	(void)fclose(f);
	return n;
}

static void test_conntrack(void **state)
{
	struct world *w = world(state);
	struct conn c;
	struct conn translated;
	uint64_t until;
	struct sl_broker_msg msg;
	struct sl_addr front = w->front;

	if (!run("nft 'table inet t { chain o { type nat hook output priority -100; "
		 "tcp dport 7444 redirect to :7443; }; }'")) {
		print_message("skipped: no nft\n");
		skip();
	}
	until = sl_clock_ms() + 1200; /* it is looked for once a second */
	while (sl_clock_ms() < until)
		turn(w);
	c = new_conn(w);
	if (n_tracked(c.key[1].dport) != 1) {
		print_message("skipped: nothing is tracked here\n");
		close_all(&c);
		(void)run("nft delete table inet t");
		skip();
	}
	assert_int_equal(n_tracked(sl_addr_port(&w->front)), 1);

	/* to 7444, and so it is not what the sockets say */
	sl_addr_set_port(&w->front, 7444);
	translated = new_conn(w);
	w->front = front;
	msg = request_of(SL_BROKER_HANDOVER, &translated);
	expect_refused(w, &msg, translated.front, translated.back, SL_WHY_NO_ROUTE, true);
	expect_relayed(&translated);
	close_all(&translated);

	hand_over(w, &c);
	until = sl_clock_ms() + WAIT_MS;
	while (n_tracked(c.key[1].dport) && sl_clock_ms() < until)
		turn(w);
	assert_int_equal(n_tracked(c.key[1].dport), 0);
	close_all(&c);
	assert_true(run("nft delete table inet t"));
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)
#define TEST_V6(fn) cmocka_unit_test_setup_teardown(fn, set_up_v6, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_hand_over),
		TEST_V6(test_hand_over),
		TEST(test_sockets_go),
		TEST(test_frozen_flow_is_kicked),
		TEST(test_not_quiet),
		TEST(test_refused_sockets),
		TEST(test_no_descriptors),
		TEST(test_resolve_without),
		TEST(test_refused_owner),
		TEST(test_refused_namespace),
		TEST(test_refused_by_policy),
		TEST(test_refused_states),
		TEST(test_refused_twice),
		TEST(test_linger_does_not_block),
		TEST(test_linger_of_the_handed_over),
		TEST(test_flood),
		TEST(test_nonsense_closes_the_channel),
		TEST(test_frozen),
		TEST(test_kill),
		TEST(test_kill_is_told),
		TEST(test_kill_of_the_closed),
		TEST_V6(test_kill),
		TEST(test_rst),
		TEST(test_sweep_without_events),
		TEST(test_entries_deleted),
		TEST(test_late),
		TEST(test_late_acknowledged),
		TEST(test_late_reset),
		TEST(test_broken),
		TEST(test_reused),
		TEST(test_reused_at_once),
		TEST(test_flush),
		TEST(test_diff),
		TEST(test_diff_again),
		TEST(test_flush_counts),
		TEST(test_stop_tells),
		TEST(test_adoption),
		TEST_V6(test_adoption),
		TEST(test_adoption_of_the_dead),
		TEST(test_adoption_of_the_told),
		TEST(test_release),
		TEST(test_release_of_the_told),
		TEST(test_proxy_death),
		TEST(test_resolve),
		TEST(test_resolve_refused),
		TEST(test_resolve_by_another),
		TEST(test_status),
		TEST(test_foreign_detach),
		TEST(test_new_interface),
		TEST(test_interface_not_attached),
		TEST(test_route_change),
		TEST(test_full),
		TEST(test_off),
		TEST(test_stop),
		TEST(test_missing_interface),
		TEST(test_size_change),
		TEST(test_ports_change),
		TEST(test_ports_adopted),
		TEST(test_conntrack),
	};

	return cmocka_run_group_tests(tests, set_up_all, tear_down_all);
}
