/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The broker's part of the sockmap engine, with real connections over real channels; needs root,
 * runs in a network namespace and on a bpf file system of its own.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <cmocka.h>

#include "accel/sockmap_impl.h"
#include "base/clock.h"
#include "base/log.h"
#include "broker/state.h"
#include "netns.h"
#include "slow.h"

#define GENERATION 5
#define WAIT_MS (5000 * (int)slow())
#define LIMIT (64u << 10)
#define LOST SL_BROKER_SOCKMAP_LOST

static const char *why_skipped;
static char root[] = "/tmp/sl_broker_sm.XXXXXX"; /* the bpf file system */
static char dir[64];

/* ---- surroundings ---- */

static bool is_kernel_new(void)
{
	struct utsname name;
	int major = 0;
	int minor = 0;

	return uname(&name) == 0 && sscanf(name.release, "%d.%d", &major, &minor) == 2 &&
	       (major > 6 || (major == 6 && minor >= 12));
}

static int set_up_all(void **state)
{
	struct rlimit room;

	(void)state;
	if (geteuid() != 0)
		why_skipped = "not root";
	else if (!is_kernel_new())
		why_skipped = "needs Linux 6.12";
	else if (unshare(CLONE_NEWNS) < 0 ||
		 mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || enter_netns() < 0)
		why_skipped = "no namespaces of its own";
	else if (!mkdtemp(root) || mount("bpf", root, "bpf", 0, "mode=0700") < 0)
		why_skipped = "no bpf file system";
	(void)snprintf(dir, sizeof(dir), "%s/sluice", root);
	if (getrlimit(RLIMIT_NOFILE, &room) == 0 && room.rlim_cur < 4096) {
		room.rlim_cur = 4096;
		if (room.rlim_max < room.rlim_cur)
			room.rlim_max = room.rlim_cur;
		(void)setrlimit(RLIMIT_NOFILE, &room);
	}
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

/* A proxy with a worker and a control thread, and the broker it talks to. */
enum {
	WORKER = 0,
	CONTROL,
	CHANNELS,
};
#define N_WORKERS 1

struct world {
	struct sl_loop *loop;
	struct sl_broker *broker;
	int channel[CHANNELS];
	struct sl_addr front;
	struct sl_addr backend;
	int front_fd; /* listeners */
	int backend_fd;
	uint64_t next_id;
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

/* Two routes: one that may, one that may not. */
static struct sl_policy *new_policy(const struct world *w, uint64_t generation)
{
	struct sl_policy *p = calloc(1, sizeof(*p));

	assert_non_null(p);
	*p = (struct sl_policy){
		.generation = generation,
		.is_off = true,
		.wants_sockmap = true,
		.sockmap_limit = LIMIT,
		.max_flows = 256,
		.n_listens = 1,
		.n_routes = 2,
		.n_targets = 1,
		.listens = calloc(2, sizeof(*p->listens)),
		.routes = calloc(3, sizeof(*p->routes)),
		.targets = calloc(2, sizeof(*p->targets)),
		.interfaces = calloc(2, sizeof(*p->interfaces)),
	};
	p->listens[0] = (struct sl_policy_listen){ w->front, 7443, 7443 };
	for (int i = 0; i < 2; i++)
		p->routes[i] = (struct sl_policy_route){ .n_targets = 1,
							 .min_port = 7443,
							 .max_port = 7443,
							 .may_packet = i == 1,
							 .may_sockmap = i == 0 };
	(void)snprintf(p->routes[0].name, sizeof(p->routes[0].name), "shop");
	(void)snprintf(p->routes[1].name, sizeof(p->routes[1].name), "other");
	p->targets[0] = (struct sl_policy_target){ w->backend, 9443 };
	(void)snprintf(p->bpf_dir, sizeof(p->bpf_dir), "%s", dir);
	return p;
}

static void start_broker(struct world *w)
{
	const struct sl_broker_options options = { .loop = w->loop, .proxy_uid = geteuid() };

	assert_int_equal(sl_broker_new(&options, &w->broker), 0);
	sl_broker_set_policy(w->broker, new_policy(w, GENERATION));
	if (!sl_broker_has_sockmap(w->broker))
		fail_msg("off: %s", w->broker->sockmap.off_text);
}

/* As one that was killed: the kernel keeps what it has. */
static void restart_broker(struct world *w)
{
	sl_broker_free(w->broker);
	start_broker(w);
}

static int add_channel(struct world *w, uint64_t proxy, unsigned worker)
{
	int sv[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv), 0);
	assert_int_equal(sl_broker_add_channel(w->broker, proxy, worker, N_WORKERS, sv[1]), 0);
	return sv[0];
}

static void turn(struct world *w)
{
	assert_true(sl_loop_turn(w->loop, 2) >= 0);
}

/* The next message of that type on that channel; others are passed over. */
static bool await_on(struct world *w, int channel, enum sl_broker_type type,
		     struct sl_broker_msg *ret, int fds[SL_BROKER_MAX_FDS], int wait_ms)
{
	uint64_t until = sl_clock_ms() + (uint64_t)wait_ms;

	do {
		int r = sl_broker_recv(channel, false, ret, fds);

		if (r == 0 && ret->type == type)
			return true;
		if (r == 0) {
			sl_broker_close_fds(fds);
			continue;
		}
		assert_int_equal(r, -EAGAIN);
		turn(w);
	} while (sl_clock_ms() < until);
	return false;
}

static struct sl_broker_msg await_msg(struct world *w, int channel, enum sl_broker_type type)
{
	int fds[SL_BROKER_MAX_FDS];
	struct sl_broker_msg msg;

	assert_true(await_on(w, channel, type, &msg, fds, WAIT_MS));
	sl_broker_close_fds(fds);
	return msg;
}

static void expect_changed(struct world *w, int channel, uint64_t id, uint32_t flag)
{
	struct sl_broker_msg msg = await_msg(w, channel, SL_BROKER_CHANGED);

	assert_int_equal(msg.conn_id, id);
	assert_int_equal(msg.flag, flag);
}

static void add_channels(struct world *w, uint64_t proxy)
{
	for (unsigned i = 0; i < CHANNELS; i++) {
		w->channel[i] = add_channel(w, proxy, i);
		(void)await_msg(w, w->channel[i], SL_BROKER_SOCKMAP_HELLO);
	}
}

static void close_channels(struct world *w)
{
	for (unsigned i = 0; i < CHANNELS; i++)
		sl_broker_hang_up(w->channel[i]);
}

static int set_up(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	assert_non_null(w);
	*state = w;
	if (why_skipped)
		return 0;
	assert_int_equal(sl_loop_new(&w->loop), 0);
	w->front = addr("127.0.0.1:7443");
	w->backend = addr("127.0.0.2:9443");
	w->front_fd = listen_on(&w->front);
	w->backend_fd = listen_on(&w->backend);
	w->next_id = 1000;
	start_broker(w);
	add_channels(w, 1);
	return 0;
}

static int tear_down(void **state)
{
	struct world *w = *state;

	if (!why_skipped) {
		if (sl_broker_has_sockmap(w->broker))
			sl_broker_stop(w->broker);
		sl_broker_free(w->broker);
		close_channels(w);
		turn(w);
		sl_loop_free(w->loop);
		(void)close(w->front_fd);
		(void)close(w->backend_fd);
		assert_int_equal(access(dir, F_OK), -1); /* everything pinned is gone */
	}
	free(w);
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

static struct sl_sockmap *maps(const struct world *w)
{
	return w->broker->sockmap.maps;
}

static size_t n_pairs(const struct world *w)
{
	return sl_sockmap_n_pairs(maps(w));
}

static bool await_pairs(struct world *w, size_t n)
{
	uint64_t until = sl_clock_ms() + (uint64_t)WAIT_MS;

	while (n_pairs(w) != n && sl_clock_ms() < until)
		turn(w);
	return n_pairs(w) == n;
}

/* ---- connections ---- */

/* client - front: one connection; back - backend: the other. The proxy has the inner two. */
struct conn {
	uint64_t id;
	uint32_t pair;
	int client;
	int front;
	int back;
	int backend;
};

static int connect_to(const struct sl_addr *to)
{
	int fd = socket(sl_addr_family(to), SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(connect(fd, &to->sa, sl_addr_len(to)), 0);
	return fd;
}

static int accept_from(int listener)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	assert_true(fd >= 0);
	return fd;
}

static struct conn new_conn(struct world *w)
{
	struct conn c = { .id = w->next_id++, .pair = UINT32_MAX };

	c.client = connect_to(&w->front);
	c.front = accept_from(w->front_fd);
	c.back = connect_to(&w->backend);
	assert_int_equal(fcntl(c.back, F_SETFL, O_NONBLOCK), 0);
	c.backend = accept_from(w->backend_fd);
	return c;
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

static void put(int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static void get(int fd, const char *text)
{
	char buf[64] = { 0 };
	size_t n = 0;

	while (n < strlen(text)) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		ssize_t r;

		assert_int_equal(poll(&p, 1, WAIT_MS), 1);
		r = recv(fd, buf + n, strlen(text) - n, 0);
		if (r <= 0 && !(r < 0 && errno == EAGAIN))
			fail_msg("end after %zu: %zd %d", n, r, errno);
		n += r > 0 ? (size_t)r : 0;
	}
	assert_string_equal(buf, text);
}

/* By the kernel: nobody reads the inner sockets. */
static void expect_joined(const struct conn *c)
{
	put(c->client, "question");
	get(c->backend, "question");
	put(c->backend, "answer");
	get(c->client, "answer");
}

/* By whoever has the inner sockets. */
static void expect_relayed(const struct conn *c)
{
	put(c->client, "to us");
	get(c->front, "to us");
	put(c->back, "to it");
	get(c->backend, "to it");
	put(c->backend, "from it");
	get(c->back, "from it");
}

static uint64_t cookie_of(int fd)
{
	uint64_t cookie = 0;
	socklen_t size = sizeof(cookie);

	assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &size), 0);
	return cookie;
}

/* ---- asking ---- */

static struct sl_broker_msg request_of(enum sl_broker_type type, const struct conn *c)
{
	return (struct sl_broker_msg){
		.type = type,
		.conn_id = c->id,
		.handover = { .generation = GENERATION, .to_sockmap = 1 },
	};
}

static struct sl_broker_result ask_with(struct world *w, const struct sl_broker_msg *msg, int a,
					int b)
{
	int fds[2] = { a, b };
	struct sl_broker_msg answer;

	assert_int_equal(sl_broker_send(w->channel[WORKER], msg, fds, 2), 0);
	answer = await_msg(w, w->channel[WORKER], SL_BROKER_RESULT);
	assert_int_equal(answer.conn_id, msg->conn_id);
	return answer.result;
}

static void expect_refused(struct world *w, const struct sl_broker_msg *msg, int a, int b,
			   enum sl_engine_reason why, bool is_final)
{
	size_t n = n_pairs(w);
	struct sl_broker_result r = ask_with(w, msg, a, b);

	assert_string_equal(sl_engine_reason_name(r.why), sl_engine_reason_name(why));
	assert_int_equal(r.is_final, is_final);
	assert_int_equal(n_pairs(w), n);
	assert_int_equal(sl_sockmap_sweep(maps(w)), 0);
}

static void take(struct world *w, struct conn *c, enum sl_broker_type type)
{
	const struct sl_broker_msg msg = request_of(type, c);
	struct sl_broker_result r = ask_with(w, &msg, c->front, c->back);

	assert_string_equal(sl_engine_reason_name(r.why), "eligible");
	c->pair = r.pair;
}

static struct conn joined(struct world *w)
{
	struct conn c = new_conn(w);

	take(w, &c, SL_BROKER_HANDOVER);
	return c;
}

static void tell_on(int channel, enum sl_broker_type type, uint64_t id, uint32_t pair)
{
	const struct sl_broker_msg msg = { .type = type, .conn_id = id, .flag = pair };

	assert_int_equal(sl_broker_send(channel, &msg, NULL, 0), 0);
}

static void tell(struct world *w, enum sl_broker_type type, const struct conn *c)
{
	tell_on(w->channel[WORKER], type, c->id, c->pair);
}

/* What was sent before on that channel has been served. */
static void served(struct world *w, int channel)
{
	const struct conn none = { .id = 9 };
	struct sl_broker_msg msg = request_of(SL_BROKER_HANDOVER, &none);
	int fds[2] = { channel, channel };

	assert_int_equal(sl_broker_send(channel, &msg, fds, 2), 0);
	msg = await_msg(w, channel, SL_BROKER_RESULT);
	assert_int_equal(msg.result.why, SL_WHY_NO_PRIVILEGE);
}

/* The connection has ended, as a worker ends it. */
static void end(struct world *w, struct conn *c)
{
	close_all(c);
	tell(w, SL_BROKER_SOCKMAP_LEAVE, c);
}

static int map_of(const char *name)
{
	char path[96];
	int fd;

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = bpf_obj_get(path);
	assert_true(fd >= 0);
	return fd;
}

static void delete_from(const char *map, int sock)
{
	uint64_t cookie = cookie_of(sock);
	int fd = map_of(map);

	assert_int_equal(bpf_map_delete_elem(fd, &cookie), 0);
	(void)close(fd);
}

/* ---- hand-overs ---- */

static struct sl_broker_sockmap_status await_status(struct world *w, uint32_t n_sockets)
{
	struct sl_broker_msg msg;

	do
		msg = await_msg(w, w->channel[CONTROL], SL_BROKER_SOCKMAP_STATUS);
	while (msg.sockmap_status.n_sockets != n_sockets);
	return msg.sockmap_status;
}

static void test_hand_over(void **state)
{
	struct world *w = world(state);
	struct sl_broker_sockmap_status status;
	struct conn c = joined(w);
	int other = add_channel(w, 2, 0);

	expect_joined(&c);
	assert_int_equal(n_pairs(w), 1);
	status = await_status(w, 2);
	assert_int_equal(status.is_on, 1);
	assert_int_equal(status.why, SL_WHY_NONE);
	assert_int_equal(status.n_orphans, 0);
	tell_on(other, SL_BROKER_SOCKMAP_LEAVE, c.id, c.pair); /* another proxy's */
	served(w, other);
	tell_on(w->channel[WORKER], SL_BROKER_SOCKMAP_LEAVE, c.id + 1, c.pair);
	tell_on(w->channel[WORKER], SL_BROKER_SOCKMAP_LEAVE, c.id, c.pair + 1);
	tell_on(w->channel[WORKER], SL_BROKER_SOCKMAP_LEAVE, c.id, UINT32_MAX);
	served(w, w->channel[WORKER]);
	assert_int_equal(n_pairs(w), 1);
	expect_joined(&c);
	end(w, &c);
	assert_true(await_pairs(w, 0));
	assert_int_equal(sl_sockmap_sweep(maps(w)), 0);
	(void)await_status(w, 0);
	sl_broker_hang_up(other);
}

static int socket_elsewhere(void)
{
	int here = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	int fd;

	assert_true(here >= 0);
	assert_int_equal(unshare(CLONE_NEWNET), 0);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(setns(here, CLONE_NEWNET), 0);
	(void)close(here);
	assert_true(fd >= 0);
	return fd;
}

static void test_refused(void **state)
{
	struct world *w = world(state);
	struct conn c = new_conn(w);
	struct conn half = new_conn(w);
	struct sl_broker_msg msg = request_of(SL_BROKER_HANDOVER, &c);
	int elsewhere = socket_elsewhere();
	int udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	expect_refused(w, &msg, c.front, null, SL_WHY_NO_PRIVILEGE, true);
	expect_refused(w, &msg, udp, c.back, SL_WHY_NO_PRIVILEGE, true);
	expect_refused(w, &msg, c.front, elsewhere, SL_WHY_NO_PRIVILEGE, true);
	expect_refused(w, &msg, c.front, c.front, SL_WHY_NO_PRIVILEGE, true);
	expect_refused(w, &msg, c.back, c.front, SL_WHY_NO_PRIVILEGE, true);
	expect_refused(w, &msg, c.client, c.back, SL_WHY_NO_PRIVILEGE, true);
	expect_refused(w, &msg, c.front, c.backend, SL_WHY_NO_PRIVILEGE, true);
	msg.handover.route = 1; /* has another engine */
	expect_refused(w, &msg, c.front, c.back, SL_WHY_NO_PRIVILEGE, true);
	msg.handover.route = 2; /* is none */
	expect_refused(w, &msg, c.front, c.back, SL_WHY_NO_PRIVILEGE, true);
	msg.handover.route = UINT32_MAX;
	expect_refused(w, &msg, c.front, c.back, SL_WHY_NO_PRIVILEGE, true);
	msg.handover.route = 0;
	msg.handover.generation = GENERATION - 1;
	expect_refused(w, &msg, c.front, c.back, SL_WHY_NO_PRIVILEGE, true);
	msg.handover.generation = GENERATION + 1;
	expect_refused(w, &msg, c.front, c.back, SL_WHY_RATE_LIMITED, false);
	msg.handover.generation = GENERATION;
	msg.conn_id = 0;
	expect_refused(w, &msg, c.front, c.back, SL_WHY_NOT_LINUX_SUPPORTED, true);
	/* half closed, by either side */
	assert_int_equal(shutdown(half.client, SHUT_WR), 0);
	msg = request_of(SL_BROKER_HANDOVER, &half);
	expect_refused(w, &msg, half.front, half.back, SL_WHY_HALF_CLOSED, true);
	assert_int_equal(shutdown(half.backend, SHUT_WR), 0);
	expect_refused(w, &msg, half.front, half.back, SL_WHY_HALF_CLOSED, true);
	/* none of it has done anything */
	expect_relayed(&c);
	take(w, &c, SL_BROKER_HANDOVER);
	expect_joined(&c);
	/* one of its sockets is in already */
	half.id = c.id + 100;
	msg = request_of(SL_BROKER_HANDOVER, &half);
	expect_refused(w, &msg, c.front, c.back, SL_WHY_NO_PRIVILEGE, true);
	expect_joined(&c);
	end(w, &c);
	assert_true(await_pairs(w, 0));
	close_all(&half);
	(void)close(elsewhere);
	(void)close(udp);
	(void)close(null);
}

static void test_full(void **state)
{
	struct world *w = world(state);
	struct conn c = new_conn(w);
	struct sl_broker_msg msg = request_of(SL_BROKER_HANDOVER, &c);

	maps(w)->n_used = maps(w)->n_pairs;
	expect_refused(w, &msg, c.front, c.back, SL_WHY_MAP_FULL, false);
	maps(w)->n_used = 0;
	expect_relayed(&c);
	take(w, &c, SL_BROKER_HANDOVER);
	expect_joined(&c);
	end(w, &c);
	assert_true(await_pairs(w, 0));
}

/* ---- deaths ---- */

static struct sl_sockmap_pair pair_of(const struct conn *c)
{
	return (struct sl_sockmap_pair){ .conn_id = c->id,
					 .fd = { c->front, c->back },
					 .cookie = { cookie_of(c->front), cookie_of(c->back) },
					 .limit = LIMIT };
}

/* The broker dies at each step; the walk of the next one finds it before the worker asks, or not.
 */
static void cut_short(struct world *w, int n, bool is_walked)
{
	struct conn c = new_conn(w);
	const struct sl_sockmap_pair p = pair_of(&c);
	struct sl_broker_msg msg = request_of(SL_BROKER_RESOLVE, &c);
	uint32_t pair = 0;

	put(c.client, "early ");
	assert_int_equal(sl_sockmap_take_pair(maps(w), &pair), 0);
	for (int step = 0; step < n; step++)
		assert_int_equal(sl_sockmap_do_step(maps(w), (enum sl_sockmap_step)step, pair, &p),
				 0);
	close_channels(w);
	restart_broker(w);
	if (is_walked)
		sl_sockmap_reconcile_now(w->broker);
	add_channels(w, 1);
	if (n > SL_SOCKMAP_STEP_SOURCE) {
		take(w, &c, SL_BROKER_RESOLVE);
		assert_int_equal(c.pair, pair);
	} else {
		struct sl_broker_result r = ask_with(w, &msg, c.front, c.back);

		assert_string_equal(sl_engine_reason_name(r.why), "not_quiescent");
		assert_int_equal(r.is_final, false);
		assert_int_equal(n_pairs(w), 0);
		assert_int_equal(sl_sockmap_sweep(maps(w)), 0);
		take(w, &c, SL_BROKER_HANDOVER);
	}
	(void)recv(c.front, &(char){ 0 }, 1, MSG_PEEK | MSG_DONTWAIT); /* the kick */
	get(c.backend, "early ");
	expect_joined(&c);
	sl_sockmap_reconcile_now(w->broker);
	expect_joined(&c);
	end(w, &c);
	assert_true(await_pairs(w, 0));
}

static void test_resolve(void **state)
{
	struct world *w = world(state);

	for (int n = 0; n <= SL_SOCKMAP_STEP_COUNT_; n++) {
		cut_short(w, n, false);
		cut_short(w, n, true);
	}
}

/* The configuration it came by is not known, or not yet: no matter. */
static void test_resolve_by_any_configuration(void **state)
{
	static const int64_t away[] = { -1, 1, 1000 };
	struct world *w = world(state);

	for (size_t i = 0; i < SL_ARRAY_LEN(away); i++) {
		struct conn c = new_conn(w);
		struct sl_broker_msg msg = request_of(SL_BROKER_RESOLVE, &c);
		const struct sl_sockmap_pair p = pair_of(&c);
		struct sl_broker_result r;

		assert_int_equal(sl_sockmap_join(maps(w), &p, &c.pair), 0);
		close_channels(w);
		restart_broker(w);
		add_channels(w, 1);
		msg.handover.generation = (uint64_t)(GENERATION + away[i]);
		r = ask_with(w, &msg, c.front, c.back);
		assert_string_equal(sl_engine_reason_name(r.why), "eligible");
		assert_int_equal(r.pair, c.pair);
		expect_joined(&c);
		end(w, &c);
		assert_true(await_pairs(w, 0));
	}
}

/* Only the slots were written: the same connection comes again, and is nobody else's. */
static void test_remnant(void **state)
{
	struct world *w = world(state);
	struct conn c = new_conn(w);
	const struct sl_sockmap_pair p = pair_of(&c);
	uint32_t pair = 0;

	assert_int_equal(sl_sockmap_take_pair(maps(w), &pair), 0);
	assert_int_equal(sl_sockmap_do_step(maps(w), SL_SOCKMAP_STEP_SLOTS, pair, &p), 0);
	close_channels(w);
	restart_broker(w);
	for (int i = 0; i < CHANNELS; i++)
		w->channel[i] = add_channel(w, 1, (unsigned)i);
	maps(w)->next = pair + 1;
	take(w, &c, SL_BROKER_HANDOVER); /* before the walk has come by */
	sl_sockmap_reconcile_now(w->broker);
	assert_int_equal(n_pairs(w), 1);
	assert_int_equal(w->broker->sockmap.n_repaired, 0);
	expect_joined(&c);
	assert_int_equal(sl_sockmap_slots(maps(w))[2 * c.pair].redirected, 8);
	end(w, &c);
	assert_true(await_pairs(w, 0));
}

static void test_held(void **state)
{
	struct world *w = world(state);
	struct conn c = joined(w);
	struct conn d = joined(w);
	int other;

	close_channels(w);
	restart_broker(w);
	expect_joined(&c); /* whoever knows of it */
	add_channels(w, 1);
	other = add_channel(w, 2, 0);
	sl_sockmap_reconcile_now(w->broker);
	assert_int_equal(n_pairs(w), 2);
	tell(w, SL_BROKER_SOCKMAP_HELD, &c);
	served(w, w->channel[WORKER]);
	/* What is not so does nothing, and whoever says it hears that it is not. */
	tell_on(other, SL_BROKER_SOCKMAP_HELD, c.id, c.pair); /* another one's */
	expect_changed(w, other, c.id, LOST | 3);
	tell_on(other, SL_BROKER_SOCKMAP_HELD, c.id, d.pair);
	expect_changed(w, other, c.id, LOST | 3);
	tell_on(other, SL_BROKER_SOCKMAP_HELD, d.id, d.pair + 1);
	expect_changed(w, other, d.id, LOST | 3);
	tell_on(other, SL_BROKER_SOCKMAP_HELD, d.id, UINT32_MAX);
	expect_changed(w, other, d.id, LOST | 3);
	tell_on(other, SL_BROKER_SOCKMAP_LEAVE, c.id, c.pair);
	served(w, other);
	assert_int_equal(n_pairs(w), 2);
	tell(w, SL_BROKER_SOCKMAP_HELD, &d);
	expect_joined(&c);
	expect_joined(&d);
	end(w, &c);
	end(w, &d);
	assert_true(await_pairs(w, 0));
	sl_broker_hang_up(other);
}

/* ---- spills, drift ---- */

static void send_much(int fd)
{
	static const char much[1 << 16];

	while (send(fd, much, sizeof(much), MSG_NOSIGNAL | MSG_DONTWAIT) > 0)
		;
}

static void test_spill(void **state)
{
	struct world *w = world(state);
	struct conn c = joined(w);

	send_much(c.client);
	expect_changed(w, w->channel[WORKER], c.id, 0);
	end(w, &c);
	assert_true(await_pairs(w, 0));
	/* of one that has no record here any more: nobody is told */
	c = joined(w);
	close_channels(w);
	turn(w);
	send_much(c.backend);
	for (int i = 0; i < 20; i++)
		turn(w);
	add_channels(w, 1);
	tell(w, SL_BROKER_SOCKMAP_HELD, &c);
	end(w, &c);
	assert_true(await_pairs(w, 0));
}

static void taken_out(struct world *w, const char *first, const char *second, int side,
		      uint32_t lost)
{
	struct conn c = joined(w);

	expect_joined(&c);
	delete_from(first, side ? c.back : c.front);
	if (second)
		delete_from(second, side ? c.back : c.front);
	expect_changed(w, w->channel[WORKER], c.id,
		       c.pair << SL_BROKER_SOCKMAP_PAIR_SHIFT | LOST | lost);
	assert_int_equal(n_pairs(w), 1); /* until its worker leaves */
	end(w, &c);
	assert_true(await_pairs(w, 0));
}

static void test_taken_out(void **state)
{
	struct world *w = world(state);

	for (int side = 0; side < 2; side++) {
		taken_out(w, "sockmap_targets", NULL, side, 0);
		taken_out(w, "sockmap_sources", NULL, side, 0);
		taken_out(w, "sockmap_targets", "sockmap_sources", side, 1u << side);
	}
}

/* A channel without room is no reason not to say it. */
static void test_taken_out_unheard(void **state)
{
	struct world *w = world(state);
	struct conn c = joined(w);
	const struct sl_broker_msg filler = { .type = SL_BROKER_CHANGED, .conn_id = 1 };
	struct sl_peer *p = SL_CONTAINER_OF(w->broker->peers.next, struct sl_peer, node);
	struct sl_broker_msg msg;
	int fds[SL_BROKER_MAX_FDS];

	assert_int_equal(p->worker, WORKER);
	while (sl_peer_hint(p, &filler))
		;
	delete_from("sockmap_targets", c.front);
	for (int i = 0; i < 4; i++)
		sl_sockmap_reconcile_now(w->broker);
	do
		assert_true(await_on(w, w->channel[WORKER], SL_BROKER_CHANGED, &msg, fds, WAIT_MS));
	while (msg.conn_id != c.id);
	assert_true(msg.flag & LOST);
	end(w, &c);
	assert_true(await_pairs(w, 0));
}

static bool has_flows(const struct world *w, const struct conn *c)
{
	struct sl_sockmap_facts f;

	sl_sockmap_look(maps(w), c->pair, &f);
	return f.has_flow[0] && f.has_flow[1];
}

/* The last of many; packets that meet no entry come all the time. */
static void test_entry_among_many(void **state)
{
	enum { N = 300 };
	struct world *w = world(state);
	struct conn *c = calloc(N, sizeof(*c));
	uint64_t until;

	assert_non_null(c);
	for (int i = 0; i < N; i++)
		c[i] = joined(w);
	assert_int_equal(n_pairs(w), N);
	delete_from("sockmap_flows", c[N - 1].front);
	until = sl_clock_ms() + (uint64_t)WAIT_MS;
	while (!has_flows(w, &c[N - 1]) && sl_clock_ms() < until) {
		put(c[N - 1].client, ".");
		turn(w);
	}
	assert_true(has_flows(w, &c[N - 1]));
	expect_changed(w, w->channel[WORKER], c[N - 1].id, 0);
	assert_int_equal(sl_sockmap_slots(maps(w))[2 * c[N - 1].pair].state, SL_SOCKMAP_SPILLED);
	for (int i = 0; i < N; i++) {
		end(w, &c[i]);
		turn(w);
	}
	assert_true(await_pairs(w, 0));
	free(c);
}

/* ---- ends ---- */

static void test_orphans(void **state)
{
	struct world *w = world(state);
	struct conn dead = joined(w);
	struct conn alive = joined(w);

	close_channels(w);
	close_proxy_side(&dead);
	assert_true(await_pairs(w, 1));
	expect_joined(&alive);
	assert_true(w->broker->sockmap.n_dropped > 0);
	add_channels(w, 1);
	tell(w, SL_BROKER_SOCKMAP_HELD, &alive);
	served(w, w->channel[WORKER]);
	expect_joined(&alive);
	end(w, &alive);
	assert_true(await_pairs(w, 0));
	close_all(&dead);
}

/* While sockets are in its maps: they are not any more when it has gone. */
static void test_stop(void **state)
{
	struct world *w = world(state);
	struct conn c = joined(w);

	expect_joined(&c);
	sl_broker_stop(w->broker);
	expect_changed(w, w->channel[WORKER], c.id,
		       c.pair << SL_BROKER_SOCKMAP_PAIR_SHIFT | LOST | 3);
	expect_relayed(&c);
	close_all(&c);
}

#define T(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_hand_over),
		T(test_refused),
		T(test_full),
		T(test_resolve),
		T(test_resolve_by_any_configuration),
		T(test_remnant),
		T(test_held),
		T(test_spill),
		T(test_taken_out),
		T(test_taken_out_unheard),
		T(test_orphans),
		T(test_entry_among_many),
		T(test_stop),
	};

	sl_log_setup(SL_LOG_ERROR, false, -1);
	return cmocka_run_group_tests_name("broker_sockmap", tests, set_up_all, tear_down_all);
}
