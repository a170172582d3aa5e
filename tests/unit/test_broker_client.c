/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A worker's way to the broker: nothing that must not be lost is, whatever becomes of brokers. */
/* WRAP: sl_packet_read_flow sl_packet_route_name sl_packet_key_of sl_packet_addr reallocarray */
/* WRAP: sl_sockmap_view_new sl_sockmap_view_unref */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "accel/packet.h"
#include "base/log.h"
#include "broker/client.h"

/* ---- what a client saw ---- */

enum { UP = 100, DOWN, LINKED, UNLINKED };

struct seen {
	uint32_t type; /* of the message, or UP, DOWN */
	uint64_t conn_id;
	uint32_t n;
};

struct lab {
	struct sl_loop *loop;
	struct sl_broker_client *cl;
	int broker;          /* its end of the channel; -1: none */
	int next;            /* down() connects to this one; -1: it does not */
	uint32_t free_after; /* the callback of this type frees the client */
	bool sees_links;     /* else LINKED and UNLINKED are passed over */
	struct seen seen[64];
	size_t n;
	unsigned n_fds;
};

static unsigned count_fds(void)
{
	unsigned n = 0;

	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void see(struct lab *lab, uint32_t type, uint64_t conn_id, uint32_t n)
{
	assert_true(lab->n < 64);
	lab->seen[lab->n++] = (struct seen){ type, conn_id, n };
	if (lab->free_after == type) {
		sl_broker_client_free(lab->cl);
		lab->cl = NULL;
	}
}

static void on_up(void *arg)
{
	see(arg, UP, 0, 0);
}

static void on_down(void *arg)
{
	struct lab *lab = arg;

	see(lab, DOWN, 0, 0);
	if (lab->next >= 0)
		sl_broker_client_connect(lab->cl, SL_TAKE_FD(lab->next));
}

static void on_result(void *arg, uint64_t conn_id, const struct sl_broker_result *result)
{
	see(arg, SL_BROKER_RESULT, conn_id, result->why);
}

static void on_changed(void *arg, uint64_t conn_id, uint32_t flag)
{
	see(arg, SL_BROKER_CHANGED, conn_id, flag);
}

static void on_ended(void *arg, uint64_t conn_id, const struct sl_broker_ended *ended)
{
	see(arg, SL_BROKER_ENDED, conn_id, ended->how);
}

static void on_adopt(void *arg, uint64_t conn_id, const struct sl_broker_flow *flow)
{
	see(arg, SL_BROKER_ADOPT, conn_id, sl_addr_port(&flow->backend));
}

static void on_status(void *arg, const struct sl_broker_status *status)
{
	see(arg, SL_BROKER_STATUS, 0, status->n_flows);
}

static void on_flushed(void *arg)
{
	see(arg, SL_BROKER_FLUSHED, 0, 0);
}

static void on_sockmap_up(void *arg)
{
	see(arg, SL_BROKER_SOCKMAP_HELLO, 0, 0);
}

static void on_sockmap_status(void *arg, const struct sl_broker_sockmap_status *status)
{
	see(arg, SL_BROKER_SOCKMAP_STATUS, 0, status->n_sockets);
}

static void on_linked(void *arg)
{
	struct lab *lab = arg;

	if (lab->sees_links)
		see(lab, LINKED, 0, 0);
}

static void on_unlinked(void *arg)
{
	struct lab *lab = arg;

	if (lab->sees_links)
		see(lab, UNLINKED, 0, 0);
}

static void on_nat_flow(void *arg, uint64_t serial, const struct sl_broker_nat_flow *flow)
{
	see(arg, SL_BROKER_NAT_FLOW, serial, sl_addr_port(&flow->backend));
}

static void on_nat_status(void *arg, const struct sl_broker_nat_status *status)
{
	see(arg, SL_BROKER_NAT_STATUS, 0, status->n_flows);
}

static void on_nat_worries(void *arg, const char *lines)
{
	see(arg, SL_BROKER_NAT_WORRIES, (uint8_t)lines[0], (uint32_t)strlen(lines));
}

static const struct sl_broker_client_fns fns = {
	.up = on_up,
	.down = on_down,
	.result = on_result,
	.changed = on_changed,
	.ended = on_ended,
	.adopt = on_adopt,
	.status = on_status,
	.flushed = on_flushed,
	.linked = on_linked,
	.unlinked = on_unlinked,
	.nat_flow = on_nat_flow,
	.nat_status = on_nat_status,
	.nat_worries = on_nat_worries,
	.sockmap_up = on_sockmap_up,
	.sockmap_status = on_sockmap_status,
};

static void saw(const struct lab *lab, size_t i, uint32_t type, uint64_t conn_id, uint32_t n)
{
	assert_true(i < lab->n);
	assert_int_equal(lab->seen[i].type, type);
	assert_int_equal(lab->seen[i].conn_id, conn_id);
	assert_int_equal(lab->seen[i].n, n);
}

/* ---- the broker's end ---- */

static void turn(struct lab *lab)
{
	assert_true(sl_loop_turn(lab->loop, 0) >= 0);
}

static int new_channel(int *ret_broker)
{
	int p[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, p),
			 0);
	*ret_broker = p[1];
	return p[0];
}

static void connect_broker(struct lab *lab)
{
	int fd = new_channel(&lab->broker);

	sl_broker_client_connect(lab->cl, fd);
}

static void say(struct lab *lab, const struct sl_broker_msg *msg)
{
	assert_int_equal(sl_broker_send(lab->broker, msg, NULL, 0), 0);
}

static void say_hello(struct lab *lab)
{
	const struct sl_broker_msg hello = { .type = SL_BROKER_HELLO };
	int fds[4];

	for (int i = 0; i < 4; i++) {
		fds[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
		assert_true(fds[i] >= 0);
	}
	assert_int_equal(sl_broker_send(lab->broker, &hello, fds, 4), 0);
	for (int i = 0; i < 4; i++)
		assert_int_equal(close(fds[i]), 0);
}

static void up(struct lab *lab)
{
	connect_broker(lab);
	say_hello(lab);
	turn(lab);
	assert_true(sl_broker_client_is_up(lab->cl));
}

static void hang_up(struct lab *lab)
{
	assert_int_equal(close(lab->broker), 0);
	lab->broker = -1;
}

/* The next request has this type, id and flag. */
static void hears(const struct lab *lab, uint32_t type, uint64_t conn_id, uint32_t flag)
{
	int fds[SL_BROKER_MAX_FDS];
	struct sl_broker_msg msg;

	assert_int_equal(sl_broker_recv(lab->broker, true, &msg, fds), 0);
	assert_int_equal(msg.type, type);
	assert_int_equal(msg.conn_id, conn_id);
	assert_int_equal(msg.flag, flag);
	sl_broker_close_fds(fds);
}

static void hears_nothing(const struct lab *lab)
{
	int fds[SL_BROKER_MAX_FDS];
	struct sl_broker_msg msg;

	assert_int_equal(sl_broker_recv(lab->broker, true, &msg, fds), -EAGAIN);
}

static int setup(void **state)
{
	struct lab *lab = calloc(1, sizeof(*lab));

	assert_non_null(lab);
	lab->n_fds = count_fds();
	lab->broker = lab->next = -1;
	assert_int_equal(sl_loop_new(&lab->loop), 0);
	assert_int_equal(sl_broker_client_new(lab->loop, &fns, lab, &lab->cl), 0);
	*state = lab;
	return 0;
}

static int teardown(void **state)
{
	struct lab *lab = *state;

	sl_broker_client_free(lab->cl);
	sl_loop_free(lab->loop);
	if (lab->broker >= 0)
		assert_int_equal(close(lab->broker), 0);
	assert_int_equal(count_fds(), lab->n_fds); /* nothing is left open */
	free(lab);
	return 0;
}

/* ---- the channel ---- */

static ino_t inode(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return st.st_ino;
}

static void test_hello(void **state)
{
	struct lab *lab = *state;
	struct sl_broker_client *cl = lab->cl;
	int flows;

	assert_false(sl_broker_client_is_up(cl));
	connect_broker(lab);
	turn(lab);
	assert_false(sl_broker_client_is_up(cl)); /* nobody has said anything */
	assert_int_equal(sl_broker_client_freeze_fd(cl), -1);
	assert_int_equal(sl_broker_client_flows_fd(cl), -1);
	say_hello(lab);
	turn(lab);
	assert_true(sl_broker_client_is_up(cl));
	assert_int_equal(lab->n, 1);
	saw(lab, 0, UP, 0, 0);
	flows = sl_broker_client_flows_fd(cl);
	assert_true(sl_broker_client_freeze_fd(cl) >= 0);
	assert_true(flows >= 0);
	assert_true(sl_broker_client_counters_fd(cl) >= 0);
	assert_true(sl_broker_client_routes_fd(cl) >= 0);

	hang_up(lab);
	turn(lab);
	saw(lab, 1, DOWN, 0, 0);
	assert_false(sl_broker_client_is_up(cl));
	assert_int_equal(sl_broker_client_freeze_fd(cl), -1);
	/* what is in the kernel can be read all the same */
	assert_int_equal(sl_broker_client_flows_fd(cl), flows);
	assert_true(fcntl(flows, F_GETFD) >= 0);
}

/* Descriptors of the broker before are closed, also when the same one has made its maps anew. */
static void test_hello_again(void **state)
{
	struct lab *lab = *state;
	unsigned before;

	up(lab);
	before = count_fds();
	say_hello(lab);
	turn(lab);
	assert_int_equal(count_fds(), before);
	assert_int_equal(lab->n, 1); /* it was up */
	hang_up(lab);
	turn(lab);
	up(lab);
	assert_int_equal(count_fds(), before);
	assert_int_equal(lab->n, 3);
	saw(lab, 2, UP, 0, 0);
}

static void test_replaced_channel(void **state)
{
	struct lab *lab = *state;
	int old;

	up(lab);
	old = lab->broker;
	connect_broker(lab); /* the old one still lives */
	assert_int_equal(lab->n, 2);
	saw(lab, 1, DOWN, 0, 0);
	say_hello(lab);
	turn(lab);
	saw(lab, 2, UP, 0, 0);
	assert_int_equal(close(old), 0);
	turn(lab);
	assert_int_equal(lab->n, 3);
	sl_broker_client_connect(lab->cl, -1);
	saw(lab, 3, DOWN, 0, 0);
	assert_false(sl_broker_client_is_up(lab->cl));
}

static void test_down_connects(void **state)
{
	struct lab *lab = *state;
	int next;

	up(lab);
	lab->next = new_channel(&next);
	hang_up(lab);
	lab->broker = next;
	say_hello(lab);
	turn(lab);
	turn(lab);
	assert_int_equal(lab->n, 3);
	saw(lab, 1, DOWN, 0, 0);
	saw(lab, 2, UP, 0, 0);

	/* and in the middle of connecting: the channel asked for from outside is the one */
	lab->next = new_channel(&next);
	hang_up(lab);
	connect_broker(lab);
	assert_int_equal(lab->next, -1);
	assert_int_equal(close(next), 0);
	say_hello(lab);
	turn(lab);
	assert_true(sl_broker_client_is_up(lab->cl));
}

static void test_replies(void **state)
{
	struct lab *lab = *state;
	struct sl_broker_msg msg = { .type = SL_BROKER_RESULT, .conn_id = 11 };

	up(lab);
	msg.result.why = SL_WHY_MAP_FULL;
	say(lab, &msg);
	msg = (struct sl_broker_msg){ .type = SL_BROKER_CHANGED, .conn_id = 12 };
	say(lab, &msg);
	msg = (struct sl_broker_msg){ .type = SL_BROKER_ENDED, .conn_id = 13 };
	msg.ended.how = SL_BROKER_END_LATE;
	say(lab, &msg);
	msg = (struct sl_broker_msg){ .type = SL_BROKER_ADOPT, .conn_id = 14 };
	assert_int_equal(sl_addr_parse("192.0.2.1:1000", &msg.flow.client), 0);
	msg.flow.front = msg.flow.back = msg.flow.client;
	assert_int_equal(sl_addr_parse("192.0.2.1:443", &msg.flow.backend), 0);
	say(lab, &msg);
	msg = (struct sl_broker_msg){ .type = SL_BROKER_STATUS, .status.n_flows = 5 };
	say(lab, &msg);
	msg = (struct sl_broker_msg){ .type = SL_BROKER_FLUSHED };
	say(lab, &msg);
	turn(lab);
	assert_int_equal(lab->n, 7);
	saw(lab, 1, SL_BROKER_RESULT, 11, SL_WHY_MAP_FULL);
	saw(lab, 2, SL_BROKER_CHANGED, 12, 0);
	saw(lab, 3, SL_BROKER_ENDED, 13, SL_BROKER_END_LATE);
	saw(lab, 4, SL_BROKER_ADOPT, 14, 443);
	saw(lab, 5, SL_BROKER_STATUS, 0, 5);
	saw(lab, 6, SL_BROKER_FLUSHED, 0, 0);
}

/* What a broker said before it died counts. */
static void test_last_words(void **state)
{
	struct lab *lab = *state;
	const struct sl_broker_msg msg = { .type = SL_BROKER_CHANGED, .conn_id = 1 };

	up(lab);
	sl_broker_tell(lab->cl, SL_BROKER_KILL, 9, 0); /* it dies with this unread */
	say(lab, &msg);
	hang_up(lab);
	turn(lab);
	assert_int_equal(lab->n, 3);
	saw(lab, 1, SL_BROKER_CHANGED, 1, 0);
	saw(lab, 2, DOWN, 0, 0);
}

static void test_bad_broker(void **state)
{
	struct lab *lab = *state;
	const struct sl_broker_msg request = { .type = SL_BROKER_KILL };

	up(lab);
	assert_int_equal(send(lab->broker, &request, sizeof(request), 0), sizeof(request));
	turn(lab);
	assert_int_equal(lab->n, 2);
	saw(lab, 1, DOWN, 0, 0);
	assert_int_equal(send(lab->broker, &request, 1, MSG_NOSIGNAL), -1); /* closed */
	assert_int_equal(errno, EPIPE);
}

/* More than one turn reads; the loop's others come in between, and nothing is lost. */
static void test_many_replies(void **state)
{
	struct lab *lab = *state;
	struct sl_broker_msg msg = { .type = SL_BROKER_FLUSHED };
	unsigned n = 0, got = 0;

	up(lab);
	while (sl_broker_send(lab->broker, &msg, NULL, 0) == 0)
		n++;
	assert_true(n > 64);
	for (lab->n = 0; got < n; lab->n = 0) {
		size_t seen;

		turn(lab);
		seen = lab->n;
		assert_true(seen > 0 && seen <= 64);
		got += (unsigned)seen;
	}
	assert_int_equal(got, n);
	turn(lab);
	assert_int_equal(lab->n, 0);
}

static void free_in(struct lab *lab, uint32_t type)
{
	const struct sl_broker_msg msg = { .type = SL_BROKER_CHANGED, .conn_id = 1 };

	lab->free_after = type;
	connect_broker(lab);
	sl_broker_tell(lab->cl, SL_BROKER_KILL, 1, 0);
	say_hello(lab);
	say(lab, &msg);
	say(lab, &msg);
	hang_up(lab);
	turn(lab);
	turn(lab);
	assert_null(lab->cl);
}

static void test_free_in_up(void **state)
{
	free_in(*state, UP);
}

static void test_free_in_changed(void **state)
{
	free_in(*state, SL_BROKER_CHANGED);
	assert_int_equal(((struct lab *)*state)->n, 2);
}

static void test_free_in_down(void **state)
{
	free_in(*state, DOWN);
}

static void test_free_in_connect(void **state)
{
	struct lab *lab = *state;
	int next, fd = new_channel(&next);

	up(lab);
	lab->free_after = DOWN;
	sl_broker_client_connect(lab->cl, fd);
	assert_null(lab->cl);
	turn(lab);
	assert_int_equal(close(next), 0);
}

/* ---- asking ---- */

static const struct sl_broker_handover any_handover = { .generation = 1, .route = 2 };

static void test_ask(void **state)
{
	struct lab *lab = *state;
	int fds[SL_BROKER_MAX_FDS], s[2];
	struct sl_broker_msg msg;

	assert_int_equal(pipe2(s, O_CLOEXEC), 0); /* any two descriptors */
	assert_int_equal(sl_broker_ask(lab->cl, 5, &any_handover, s[0], s[1]), -EAGAIN);
	connect_broker(lab);
	assert_int_equal(sl_broker_ask(lab->cl, 5, &any_handover, s[0], s[1]), -EAGAIN);
	say_hello(lab);
	turn(lab);
	hears_nothing(lab); /* what could not be asked is not kept */
	assert_int_equal(sl_broker_ask(lab->cl, 5, &any_handover, s[0], s[1]), 0);
	assert_int_equal(sl_broker_recv(lab->broker, true, &msg, fds), 0);
	assert_int_equal(msg.type, SL_BROKER_HANDOVER);
	assert_int_equal(msg.conn_id, 5);
	assert_int_equal(msg.handover.route, 2);
	/* the client's socket first; both stay the caller's */
	assert_int_equal(fcntl(fds[0], F_GETFL) & O_ACCMODE, O_RDONLY);
	assert_int_equal(fcntl(fds[1], F_GETFL) & O_ACCMODE, O_WRONLY);
	assert_int_equal(inode(fds[0]), inode(s[0]));
	sl_broker_close_fds(fds);
	assert_int_equal(sl_broker_resolve(lab->cl, 6, &any_handover, s[0], s[1]), 0);
	hears(lab, SL_BROKER_RESOLVE, 6, 0);
	hang_up(lab);
	assert_int_equal(sl_broker_ask(lab->cl, 5, &any_handover, s[0], s[1]), -EAGAIN);
	turn(lab);
	assert_int_equal(sl_broker_ask(lab->cl, 5, &any_handover, s[0], s[1]), -EAGAIN);
	assert_int_equal(close(s[0]), 0);
	assert_int_equal(close(s[1]), 0);
}

/* Asked as long as the channel takes it; then the caller is told to come later, and can. */
static void test_busy(void **state)
{
	struct lab *lab = *state;
	unsigned n = 0;
	int r = 0;

	up(lab);
	while (n < 100000 && (r = sl_broker_ask(lab->cl, n, &any_handover, 0, 1)) == 0)
		n++;
	assert_int_equal(r, -EAGAIN);
	sl_broker_tell(lab->cl, SL_BROKER_KILL, 77, 0);
	sl_broker_tell(lab->cl, SL_BROKER_PROBE, 78, 0); /* not kept */
	sl_broker_tell(lab->cl, SL_BROKER_ADOPTED, 79, 2);
	hears(lab, SL_BROKER_HANDOVER, 0, 0);
	/* there is room for one, but what is kept comes first */
	assert_int_equal(sl_broker_ask(lab->cl, n, &any_handover, 0, 1), -EAGAIN);
	turn(lab);
	for (unsigned i = 1; i < n; i++)
		hears(lab, SL_BROKER_HANDOVER, i, 0);
	turn(lab);
	hears(lab, SL_BROKER_KILL, 77, 0);
	hears(lab, SL_BROKER_ADOPTED, 79, 2);
	hears_nothing(lab);
	assert_int_equal(sl_broker_ask(lab->cl, n, &any_handover, 0, 1), 0);
}

/* ---- telling ---- */

static void test_kept_without_a_broker(void **state)
{
	struct lab *lab = *state;
	const unsigned n = 3000; /* more than a channel takes at a time */
	unsigned got = 0;

	sl_broker_tell(lab->cl, SL_BROKER_PROBE, 1, 0);
	for (unsigned i = 0; i < n; i++)
		sl_broker_tell(lab->cl, i % 2 ? SL_BROKER_KILL : SL_BROKER_RELEASE, i, 0);
	connect_broker(lab);
	turn(lab);
	hears_nothing(lab); /* it may be starting, and die of it */
	say_hello(lab);
	for (unsigned rounds = 0; got <= n && rounds < n; rounds++) {
		int fds[SL_BROKER_MAX_FDS];
		struct sl_broker_msg msg;

		turn(lab);
		if (rounds == 2) /* kept while others wait: behind them */
			sl_broker_tell(lab->cl, SL_BROKER_FLUSH, n, 0);
		while (sl_broker_recv(lab->broker, true, &msg, fds) == 0) {
			assert_int_equal(msg.conn_id, got);
			assert_int_equal(msg.type, got == n  ? SL_BROKER_FLUSH
						   : got % 2 ? SL_BROKER_KILL
							     : SL_BROKER_RELEASE);
			got++;
		}
	}
	assert_int_equal(got, n + 1);
	turn(lab);
	hears_nothing(lab);
	/* and straight on from there */
	sl_broker_tell(lab->cl, SL_BROKER_KILL, 4, 0);
	hears(lab, SL_BROKER_KILL, 4, 0);
}

/* A broker dies with some of it taken: the next one gets the rest. */
static void test_kept_over_a_death(void **state)
{
	struct lab *lab = *state;
	unsigned n = 0;

	for (unsigned i = 0; i < 2000; i++)
		sl_broker_tell(lab->cl, SL_BROKER_KILL, i, 0);
	up(lab);
	for (; n < 10; n++)
		hears(lab, SL_BROKER_KILL, n, 0);
	hang_up(lab);
	sl_broker_tell(lab->cl, SL_BROKER_KILL, 2000, 0); /* it is not known yet */
	turn(lab);
	saw(lab, 1, DOWN, 0, 0);
	sl_broker_tell(lab->cl, SL_BROKER_KILL, 2001, 0);
	up(lab);
	for (uint64_t last = 0; last < 2001;) {
		int fds[SL_BROKER_MAX_FDS];
		struct sl_broker_msg msg;

		while (sl_broker_recv(lab->broker, true, &msg, fds) == -EAGAIN)
			turn(lab);
		assert_true(last == 0 ? msg.conn_id > n && msg.conn_id < 2000
				      : msg.conn_id == last + 1);
		last = msg.conn_id;
	}
	turn(lab);
	hears_nothing(lab);
}

static void test_not_to_be_told(void **state)
{
	struct lab *lab = *state;

	sl_broker_tell(lab->cl, SL_BROKER_HANDOVER, 1, 0);
	sl_broker_tell(lab->cl, SL_BROKER_RESULT, 1, 0);
	sl_broker_tell(lab->cl, SL_BROKER_ADOPTED, 1, 3);
	sl_broker_tell(lab->cl, SL_BROKER_KILL, 2, 0);
	up(lab);
	hears(lab, SL_BROKER_KILL, 2, 0);
	hears_nothing(lab);
}

static bool no_memory;

void *__real_reallocarray(void *p, size_t n, size_t size);
void *__wrap_reallocarray(void *p, size_t n, size_t size)
{
	return no_memory ? NULL : __real_reallocarray(p, n, size);
}

static void test_no_memory(void **state)
{
	struct lab *lab = *state;

	for (unsigned i = 0; i < 16; i++)
		sl_broker_tell(lab->cl, SL_BROKER_KILL, i, 0);
	no_memory = true;
	sl_broker_tell(lab->cl, SL_BROKER_KILL, 16, 0);
	no_memory = false;
	sl_broker_tell(lab->cl, SL_BROKER_KILL, 17, 0);
	up(lab);
	for (unsigned i = 0; i < 16; i++)
		hears(lab, SL_BROKER_KILL, i, 0);
	hears(lab, SL_BROKER_KILL, 17, 0);
	hears_nothing(lab);
}

/* ---- reading a flow ---- */

static struct {
	struct sl_packet_key key;
	struct sl_packet_flow flow;
	bool is_there;
	int err;
} entries[2];

/* The bytes of addresses do not matter here: port and family tell them apart. */
void __wrap_sl_packet_key_of(const struct sl_addr *from, const struct sl_addr *to,
			     struct sl_packet_key *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->sport = sl_addr_port(from);
	ret->dport = sl_addr_port(to);
}

int __wrap_sl_packet_read_flow(int flows_fd, const struct sl_packet_key *key,
			       struct sl_packet_flow *ret)
{
	assert_true(fcntl(flows_fd, F_GETFD) >= 0);
	for (int i = 0; i < 2; i++) {
		if (memcmp(key, &entries[i].key, sizeof(*key)) != 0 || !entries[i].is_there)
			continue;
		if (entries[i].err == 0)
			*ret = entries[i].flow;
		return entries[i].err;
	}
	return -ENOENT;
}

int __wrap_sl_packet_route_name(int routes_fd, uint32_t id, char ret[72])
{
	assert_true(fcntl(routes_fd, F_GETFD) >= 0);
	if (id != 3)
		return -ENOENT;
	strcpy(ret, "shop");
	return 0;
}

void __wrap_sl_packet_addr(const uint8_t ip[16], uint16_t port, struct sl_addr *ret)
{
	*ret = (struct sl_addr){ 0 };
	if (ip[15] == 0)
		return;
	ret->v4.sin_family = AF_INET;
	ret->v4.sin_addr.s_addr = htonl(ip[15]);
	ret->v4.sin_port = htons(port);
}

static struct sl_broker_flow two_entries(void)
{
	struct sl_broker_flow flow;

	assert_int_equal(sl_addr_parse("192.0.2.1:1000", &flow.client), 0);
	assert_int_equal(sl_addr_parse("192.0.2.2:80", &flow.front), 0);
	assert_int_equal(sl_addr_parse("192.0.2.2:40000", &flow.back), 0);
	assert_int_equal(sl_addr_parse("192.0.2.3:8080", &flow.backend), 0);
	memset(entries, 0, sizeof(entries));
	entries[0].is_there = entries[1].is_there = true;
	entries[0].key = (struct sl_packet_key){ .sport = 1000, .dport = 80 };
	entries[1].key = (struct sl_packet_key){ .sport = 8080, .dport = 40000 };
	entries[0].flow = (struct sl_packet_flow){
		.state = SL_PACKET_ACTIVE,
		.from = SL_PACKET_CLIENT,
		.fin = 1,
		.packets = 10,
		.bytes = 1000,
		.relayed_bytes = 7,
		.last_ns = 500,
		.last_data_ns = 400,
		.conn_id = 9,
		.route_id = 3,
		.target_hash = 33,
		.connect_us = 44,
		.accepted_ns = 55,
		.client[15] = 5,
		.client_port = 1234,
	};
	entries[1].flow = entries[0].flow;
	entries[1].flow.from = SL_PACKET_BACKEND;
	entries[1].flow.fin = 0;
	entries[1].flow.rst = 1;
	entries[1].flow.peer_fin_acked = 1;
	entries[1].flow.packets = 20;
	entries[1].flow.bytes = 2000;
	entries[1].flow.relayed_bytes = 8;
	entries[1].flow.last_ns = 450;
	entries[1].flow.last_data_ns = 450;
	return flow;
}

static void test_read_flow(void **state)
{
	struct lab *lab = *state;
	const struct sl_broker_flow flow = two_entries();
	char text[SL_ADDR_TEXT];
	struct sl_flow_facts f;

	assert_int_equal(sl_broker_read_flow(lab->cl, &flow, true, &f), -ENOENT); /* no map */
	up(lab);
	assert_int_equal(sl_broker_read_flow(lab->cl, &flow, true, &f), 0);
	assert_int_equal(f.conn_id, 9);
	assert_int_equal(f.half[SL_CLIENT].packets, 10);
	assert_int_equal(f.half[SL_CLIENT].bytes, 1000);
	assert_int_equal(f.half[SL_CLIENT].relayed, 7);
	assert_true(f.half[SL_CLIENT].fin && f.half[SL_CLIENT].fin_acked && !f.half[SL_CLIENT].rst);
	assert_int_equal(f.half[SL_BACKEND].packets, 20);
	assert_int_equal(f.half[SL_BACKEND].bytes, 2000);
	assert_int_equal(f.half[SL_BACKEND].relayed, 8);
	assert_true(f.half[SL_BACKEND].rst && !f.half[SL_BACKEND].fin);
	assert_false(f.half[SL_BACKEND].fin_acked);
	assert_int_equal(f.half[SL_CLIENT].last_ns, 500);
	assert_int_equal(f.half[SL_BACKEND].last_ns, 450);
	assert_int_equal(f.last_data_ns, 450);
	assert_int_equal(f.accepted_ns, 55);
	assert_int_equal(f.connect_us, 44);
	assert_int_equal(f.target_hash, 33);
	assert_string_equal(f.route, "shop");
	assert_string_equal(sl_addr_format(&f.client, text), "0.0.0.5:1234");
	assert_int_equal(sl_addr_family(&f.via), AF_UNSPEC);

	assert_int_equal(sl_broker_read_flow(lab->cl, &flow, false, &f), 0);
	assert_string_equal(f.route, "");
	entries[0].flow.route_id = 4; /* a route nobody knows any more */
	assert_int_equal(sl_broker_read_flow(lab->cl, &flow, true, &f), 0);
	assert_string_equal(f.route, "");
	hang_up(lab);
	turn(lab);
	assert_int_equal(sl_broker_read_flow(lab->cl, &flow, false, &f), 0);
}

static void test_read_flow_that_is_gone(void **state)
{
	struct lab *lab = *state;
	struct sl_broker_flow flow = two_entries();
	struct sl_flow_facts f = { .conn_id = 99 };

	up(lab);
	for (int i = 0; i < 2; i++) {
		flow = two_entries();
		entries[i].is_there = false;
		assert_int_equal(sl_broker_read_flow(lab->cl, &flow, true, &f), -ENOENT);
		entries[i].is_there = true;
		entries[i].err = -EPERM;
		assert_int_equal(sl_broker_read_flow(lab->cl, &flow, true, &f), -EPERM);
		entries[i].err = 0;
		entries[i].flow.conn_id = 10; /* another connection has it now */
		assert_int_equal(sl_broker_read_flow(lab->cl, &flow, true, &f), -ENOENT);
	}
	assert_int_equal(f.conn_id, 99);
}

static void test_is_free(void **state)
{
	struct lab *lab = *state;
	const struct sl_broker_flow flow = two_entries();

	assert_false(sl_broker_is_free(lab->cl, &flow.back, &flow.client)); /* unknown */
	up(lab);
	assert_false(sl_broker_is_free(lab->cl, &flow.back, &flow.backend));
	assert_true(sl_broker_is_free(lab->cl, &flow.back, &flow.client));
	assert_true(sl_broker_is_free(lab->cl, &flow.front, &flow.backend));
	entries[1].err = -EPERM;
	assert_false(sl_broker_is_free(lab->cl, &flow.back, &flow.backend));
	entries[1].err = 0;
	entries[1].is_there = false;
	assert_true(sl_broker_is_free(lab->cl, &flow.back, &flow.backend));
}

/* ---- the kernel's NAT ---- */

static const struct sl_broker_nat_target target = { .route = "web", .target = "10.0.0.1:80" };

/* A broker whose packet engine is off never says HELLO. */
static void test_nat_without_hello(void **state)
{
	struct lab *lab = *state;
	struct sl_broker_msg msg = { .type = SL_BROKER_NAT_FLOW, .conn_id = 5 };

	lab->sees_links = true;
	assert_false(sl_broker_client_is_linked(lab->cl));
	sl_broker_nat_kill(lab->cl, 1); /* for nobody */
	connect_broker(lab);
	assert_true(sl_broker_client_is_linked(lab->cl));
	hears_nothing(lab);
	sl_broker_nat_kill(lab->cl, 2);
	hears(lab, SL_BROKER_NAT_KILL, 2, 0);
	sl_broker_nat_target(lab->cl, &target, true);
	hears(lab, SL_BROKER_NAT_TARGET, 0, 1);
	sl_broker_nat_target(lab->cl, &target, false);
	hears(lab, SL_BROKER_NAT_TARGET, 0, 0);
	sl_broker_tell(lab->cl, SL_BROKER_KILL, 3, 0); /* waits for one that is up */
	hears_nothing(lab);
	strcpy(msg.nat_flow.route, "web");
	assert_int_equal(sl_addr_parse("192.0.2.1:1000", &msg.nat_flow.client), 0);
	assert_int_equal(sl_addr_parse("192.0.2.2:443", &msg.nat_flow.front), 0);
	assert_int_equal(sl_addr_parse("10.0.0.1:80", &msg.nat_flow.backend), 0);
	say(lab, &msg);
	msg = (struct sl_broker_msg){ .type = SL_BROKER_NAT_STATUS, .nat_status.n_flows = 6 };
	say(lab, &msg);
	turn(lab);
	hang_up(lab);
	turn(lab);
	assert_false(sl_broker_client_is_linked(lab->cl));
	assert_int_equal(lab->n, 4);
	saw(lab, 0, LINKED, 0, 0);
	saw(lab, 1, SL_BROKER_NAT_FLOW, 5, 80);
	saw(lab, 2, SL_BROKER_NAT_STATUS, 0, 6);
	saw(lab, 3, UNLINKED, 0, 0);
}

/* `size` times `c`, the parts from `from` on to before `to`. */
static void say_worries(struct lab *lab, char c, uint32_t size, uint32_t from, uint32_t to)
{
	for (uint32_t at = from; at < to; at += 232) {
		struct sl_broker_msg msg = { .type = SL_BROKER_NAT_WORRIES,
					     .flag = size,
					     .nat_worries.at = at };

		memset(msg.nat_worries.text, c, size - at < 232 ? size - at : 232);
		say(lab, &msg);
	}
}

/* Whole texts only: one that breaks off for another, or with its broker, was none. */
static void test_worries(void **state)
{
	struct lab *lab = *state;
	const struct sl_broker_msg none = { .type = SL_BROKER_NAT_WORRIES };

	connect_broker(lab);
	say_worries(lab, 'a', 700, 0, 700);
	say_worries(lab, 'b', 700, 0, 464);
	say_worries(lab, 'c', 464, 0, 464);
	say_worries(lab, 'd', 700, 232, 700);
	say(lab, &none);
	say_worries(lab, 'e', 464, 0, 232);
	turn(lab);
	hang_up(lab);
	turn(lab);
	connect_broker(lab);
	say_worries(lab, 'e', 464, 232, 464);
	say_worries(lab, 'f', 1, 0, 1);
	turn(lab);
	assert_int_equal(lab->n, 4);
	saw(lab, 0, SL_BROKER_NAT_WORRIES, 'a', 700);
	saw(lab, 1, SL_BROKER_NAT_WORRIES, 'c', 464);
	saw(lab, 2, SL_BROKER_NAT_WORRIES, 0, 0);
	saw(lab, 3, SL_BROKER_NAT_WORRIES, 'f', 1);
}

static void test_nat_and_packet(void **state)
{
	struct lab *lab = *state;

	lab->sees_links = true;
	up(lab);
	hang_up(lab);
	turn(lab);
	assert_int_equal(lab->n, 4);
	saw(lab, 0, LINKED, 0, 0);
	saw(lab, 1, UP, 0, 0);
	saw(lab, 2, UNLINKED, 0, 0);
	saw(lab, 3, DOWN, 0, 0);
}

/* In order once there is room, and for this broker only. */
static void test_nat_without_room(void **state)
{
	struct lab *lab = *state;
	uint64_t n = 0;

	connect_broker(lab);
	for (; n < 2000; n++)
		sl_broker_nat_kill(lab->cl, n);
	sl_broker_nat_target(lab->cl, &target, true);
	for (uint64_t i = 0; i < n; i++) {
		turn(lab);
		hears(lab, SL_BROKER_NAT_KILL, i, 0);
	}
	turn(lab);
	hears(lab, SL_BROKER_NAT_TARGET, 0, 1);
	for (uint64_t i = 0; i < n; i++)
		sl_broker_nat_kill(lab->cl, i);
	hang_up(lab);
	turn(lab);
	connect_broker(lab);
	turn(lab);
	hears_nothing(lab);
	sl_broker_nat_kill(lab->cl, n);
	hears(lab, SL_BROKER_NAT_KILL, n, 0);
}

/* ---- the sockmap engine ---- */

static struct {
	int err;      /* of the next view */
	unsigned n;   /* views there are */
	char view[8]; /* where they point to, in turn */
	unsigned next;
} views;

/* What view it is matters here, not what can be seen. */
int __wrap_sl_sockmap_view_new(int slots_fd, int orders_fd, int flows_fd, int counters_fd,
			       struct sl_sockmap_view **ret)
{
	const int fds[] = { slots_fd, orders_fd, flows_fd, counters_fd };

	for (int i = 0; i < 4; i++)
		assert_int_equal(close(fds[i]), 0); /* taken, also on failure */
	if (views.err < 0)
		return views.err;
	views.n++;
	*ret = (struct sl_sockmap_view *)&views.view[views.next++ % sizeof(views.view)];
	return 0;
}

void __wrap_sl_sockmap_view_unref(struct sl_sockmap_view *v)
{
	if (v)
		views.n--;
}

static void say_sockmap_hello(struct lab *lab)
{
	const struct sl_broker_msg hello = { .type = SL_BROKER_SOCKMAP_HELLO };
	int fds[4];

	for (int i = 0; i < 4; i++) {
		fds[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
		assert_true(fds[i] >= 0);
	}
	assert_int_equal(sl_broker_send(lab->broker, &hello, fds, 4), 0);
	for (int i = 0; i < 4; i++)
		assert_int_equal(close(fds[i]), 0);
	turn(lab);
}

static struct sl_broker_handover to_sockmap(void)
{
	struct sl_broker_handover h = any_handover;

	h.to_sockmap = 1;
	return h;
}

/* The packet engine of that broker is off: it never comes up. */
static void test_sockmap(void **state)
{
	struct lab *lab = *state;
	const struct sl_broker_msg status = { .type = SL_BROKER_SOCKMAP_STATUS,
					      .sockmap_status = { .n_sockets = 6 } };
	const struct sl_broker_handover h = to_sockmap();
	const struct sl_sockmap_view *first;

	assert_int_equal(sl_broker_ask(lab->cl, 5, &h, 0, 1), -EAGAIN);
	connect_broker(lab);
	assert_int_equal(sl_broker_ask(lab->cl, 5, &h, 0, 1), -EAGAIN);
	assert_null(sl_broker_client_sockmap(lab->cl));
	say_sockmap_hello(lab);
	saw(lab, 0, SL_BROKER_SOCKMAP_HELLO, 0, 0);
	first = sl_broker_client_sockmap(lab->cl);
	assert_non_null(first);
	assert_false(sl_broker_client_is_up(lab->cl));
	say(lab, &status);
	turn(lab);
	saw(lab, 1, SL_BROKER_SOCKMAP_STATUS, 0, 6);
	assert_int_equal(sl_broker_ask(lab->cl, 5, &any_handover, 0, 1), -EAGAIN);
	assert_int_equal(sl_broker_ask(lab->cl, 5, &h, 0, 1), 0);
	assert_int_equal(sl_broker_resolve(lab->cl, 6, &h, 0, 1), 0);
	hears(lab, SL_BROKER_HANDOVER, 5, 0);
	hears(lab, SL_BROKER_RESOLVE, 6, 0);
	sl_broker_sockmap_tell(lab->cl, SL_BROKER_SOCKMAP_HELD, 7, 70);
	hears(lab, SL_BROKER_SOCKMAP_HELD, 7, 70);
	say_sockmap_hello(lab); /* other maps */
	assert_ptr_not_equal(sl_broker_client_sockmap(lab->cl), first);
	assert_int_equal(views.n, 1);
	hang_up(lab);
	turn(lab);
	assert_null(sl_broker_client_sockmap(lab->cl));
	assert_int_equal(views.n, 0);
	assert_int_equal(sl_broker_ask(lab->cl, 5, &h, 0, 1), -EAGAIN);
	assert_int_equal(lab->n, 3);
}

static void test_sockmap_unusable(void **state)
{
	struct lab *lab = *state;
	const struct sl_broker_handover h = to_sockmap();

	connect_broker(lab);
	say_sockmap_hello(lab);
	views.err = -EINVAL;
	say_sockmap_hello(lab);
	views.err = 0;
	assert_null(sl_broker_client_sockmap(lab->cl));
	assert_int_equal(views.n, 0);
	assert_int_equal(lab->n, 1);
	assert_int_equal(sl_broker_ask(lab->cl, 5, &h, 0, 1), -EAGAIN);
	assert_true(sl_broker_client_is_linked(lab->cl)); /* the channel goes on */
}

/* What waits for the packet engine's broker is no reason to wait where that is off. */
static void test_sockmap_and_packet(void **state)
{
	struct lab *lab = *state;
	const struct sl_broker_handover h = to_sockmap();

	sl_broker_tell(lab->cl, SL_BROKER_KILL, 3, 0);
	connect_broker(lab);
	say_sockmap_hello(lab);
	assert_int_equal(sl_broker_ask(lab->cl, 5, &h, 0, 1), 0);
	hears(lab, SL_BROKER_HANDOVER, 5, 0);
	say_hello(lab);
	turn(lab);
	hears(lab, SL_BROKER_KILL, 3, 0);
	assert_int_equal(sl_broker_ask(lab->cl, 6, &h, 0, 1), 0);
	hears(lab, SL_BROKER_HANDOVER, 6, 0);
}

/* Kept in order while the channel has no room, forgotten with it: the next one is told by HELD. */
static void test_sockmap_without_room(void **state)
{
	struct lab *lab = *state;
	uint64_t n = 0;

	sl_broker_sockmap_tell(lab->cl, SL_BROKER_SOCKMAP_LEAVE, 1, 1); /* to nobody */
	connect_broker(lab);
	hears_nothing(lab);
	say_sockmap_hello(lab);
	for (; n < 2000; n++)
		sl_broker_sockmap_tell(lab->cl,
				       n % 2 ? SL_BROKER_SOCKMAP_LEAVE : SL_BROKER_SOCKMAP_HELD, n,
				       (uint32_t)n / 2);
	for (uint64_t i = 0; i < n; i++) {
		turn(lab);
		hears(lab, i % 2 ? SL_BROKER_SOCKMAP_LEAVE : SL_BROKER_SOCKMAP_HELD, i,
		      (uint32_t)i / 2);
	}
	for (uint64_t i = 0; i < n; i++)
		sl_broker_sockmap_tell(lab->cl, SL_BROKER_SOCKMAP_LEAVE, i, 1);
	hang_up(lab);
	turn(lab);
	connect_broker(lab);
	turn(lab);
	hears_nothing(lab);
	say_sockmap_hello(lab);
	sl_broker_sockmap_tell(lab->cl, SL_BROKER_SOCKMAP_HELD, n, 2);
	hears(lab, SL_BROKER_SOCKMAP_HELD, n, 2);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_hello),
		T(test_hello_again),
		T(test_replaced_channel),
		T(test_down_connects),
		T(test_replies),
		T(test_last_words),
		T(test_bad_broker),
		T(test_many_replies),
		T(test_nat_without_hello),
		T(test_worries),
		T(test_nat_and_packet),
		T(test_nat_without_room),
		T(test_sockmap),
		T(test_sockmap_unusable),
		T(test_sockmap_and_packet),
		T(test_sockmap_without_room),
		T(test_free_in_up),
		T(test_free_in_changed),
		T(test_free_in_down),
		T(test_free_in_connect),
		T(test_ask),
		T(test_busy),
		T(test_kept_without_a_broker),
		T(test_kept_over_a_death),
		T(test_not_to_be_told),
		T(test_no_memory),
		T(test_read_flow),
		T(test_read_flow_that_is_gone),
		T(test_is_free),
	};

	sl_log_setup(SL_LOG_ERROR, false, -1);
	return cmocka_run_group_tests_name("broker_client", tests, NULL, NULL);
}
