/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The proxy's side of hand-overs, with brokers that die, come back and say anything at any moment.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/log.h"
#include "broker/wire.h"
#include "conf_text.h"
#include "fake_flows.h"
#include "netns.h"
#include "proxy/proxy.h"

#define FRONT 8000
#define BACK 9000
#define WAIT_MS 3000

static const char conf_text[] =
	"version: 1\n"
	"global: { packet: { ports: 40000-40999, after_bytes: 0 } }\n"
	"routes: [ { name: r, match: { ports: 8000 }, forward: \"127.0.0.1:9000\" } ]\n";

struct lab {
	struct sl_loop *loop;
	struct sl_proxy *proxy;
	struct fake_flows maps;
	int listener;                 /* of the backend */
	int control;                  /* the broker's end of the control thread's channel */
	int broker;                   /* of the only worker's */
	int access;                   /* where access lines arrive */
	int given[SL_BROKER_MAX_FDS]; /* the descriptors of the last request */
	bool done;
	size_t n_found;
	enum sl_engine_reason reason;
	struct sl_moves moves;
	char lines[8192];
	size_t n_lines; /* bytes of them */
};

/* A connection through the proxy. */
struct through {
	int client;
	int backend;
	uint64_t id;
	struct sl_broker_handover asked;
	struct fake_tuple tuple;
	char text[4][SL_ADDR_TEXT];
};

/* ---- sockets ---- */

static struct sockaddr_in local(uint16_t port)
{
	return (struct sockaddr_in){ .sin_family = AF_INET,
				     .sin_port = htons(port),
				     .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
}

static int listen_on(uint16_t port)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_in at = local(port);
	int on = 1;

	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)), 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(listen(fd, 64), 0);
	return fd;
}

static bool is_readable(int fd, int wait_ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, wait_ms) == 1;
}

static void turn(struct lab *lab)
{
	assert_true(sl_loop_turn(lab->loop, 0) >= 0);
}

/* Until there is something to read. */
static bool await(struct lab *lab, int fd)
{
	uint64_t until_ms = sl_clock_ms() + WAIT_MS;

	while (!is_readable(fd, 5)) {
		turn(lab);
		if (sl_clock_ms() >= until_ms)
			return false;
	}
	return true;
}

/* ---- the broker ---- */

static int channel(struct lab *lab, unsigned worker)
{
	int p[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, p),
			 0);
	sl_proxy_connect_broker(lab->proxy, worker, p[0]);
	return p[1];
}

static void say(int fd, struct sl_broker_msg msg)
{
	assert_int_equal(sl_broker_send(fd, &msg, NULL, 0), 0);
}

static void say_hello(const struct lab *lab, int fd)
{
	const struct sl_broker_msg hello = { .type = SL_BROKER_HELLO };
	const struct fake_flows *m = &lab->maps;
	/* The last is the freeze filter's, which is never attached then: nothing is lost here. */
	const int fds[] = { m->flows_fd, m->counters_fd, m->routes_fd, m->flows_fd };

	assert_int_equal(sl_broker_send(fd, &hello, fds, 4), 0);
}

/* A new broker, on all channels. */
static void start_broker(struct lab *lab)
{
	struct sl_broker_msg on = { .type = SL_BROKER_STATUS, .status = { .is_on = 1 } };
	uint64_t until_ms = sl_clock_ms() + WAIT_MS;
	struct sl_kernel_view kernel;

	lab->control = channel(lab, 1);
	lab->broker = channel(lab, 0);
	strcpy(on.status.text, "tcx on 1 interface");
	say_hello(lab, lab->control);
	say(lab->control, on);
	do {
		turn(lab);
		sl_proxy_kernel(lab->proxy, &kernel);
	} while (kernel.off != SL_WHY_ELIGIBLE && sl_clock_ms() < until_ms);
	assert_int_equal(kernel.off, SL_WHY_ELIGIBLE);
}

static void kill_broker(struct lab *lab)
{
	sl_broker_hang_up(lab->control);
	sl_broker_hang_up(lab->broker);
	lab->control = lab->broker = -1;
}

/* The next request; the descriptors of the one before are closed. */
static struct sl_broker_msg hear(struct lab *lab)
{
	int fds[SL_BROKER_MAX_FDS];
	struct sl_broker_msg msg;

	if (!await(lab, lab->broker))
		fail_msg("the proxy says nothing");
	assert_int_equal(sl_broker_recv(lab->broker, true, &msg, fds), 0);
	if (fds[0] >= 0) {
		sl_broker_close_fds(lab->given);
		memcpy(lab->given, fds, sizeof(fds));
	}
	return msg;
}

/* What a broker does to both sockets before it commits (1), and after a refusal (-1). */
static void repair(const struct lab *lab, int how)
{
	for (int i = 0; i < 2; i++)
		assert_int_equal(
			setsockopt(lab->given[i], IPPROTO_TCP, TCP_REPAIR, &how, sizeof(how)), 0);
}

static void hear_this(struct lab *lab, uint32_t type, uint64_t conn_id, uint32_t flag)
{
	struct sl_broker_msg msg = hear(lab);

	assert_int_equal(msg.type, type);
	assert_int_equal(msg.conn_id, conn_id);
	assert_int_equal(msg.flag, flag);
}

static void answer(const struct lab *lab, uint64_t conn_id, enum sl_engine_reason why)
{
	say(lab->broker, (struct sl_broker_msg){ .type = SL_BROKER_RESULT,
						 .conn_id = conn_id,
						 .result = { .why = why } });
}

/* ---- connections ---- */

static void name(int fd, int (*get)(int, struct sockaddr *, socklen_t *), char text[SL_ADDR_TEXT])
{
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);
	struct sl_addr a;

	assert_int_equal(get(fd, (struct sockaddr *)&ss, &len), 0);
	sl_addr_set(&a, (struct sockaddr *)&ss);
	(void)sl_addr_format(&a, text);
}

static struct sl_packet_flow entry_of(const struct through *t, uint32_t route)
{
	return (struct sl_packet_flow){ .state = SL_PACKET_ACTIVE,
					.conn_id = t->id,
					.family = 4,
					.route_id = route,
					.bytes = 1000,
					.relayed_bytes = 500,
					.last_ns = sl_clock_us() * 1000,
					.target_hash = t->asked.target_hash,
					.accepted_ns = t->asked.accepted_us * 1000 };
}

/* Its entries, as if the kernel had it. */
static void put_of(const struct lab *lab, const struct through *t, uint32_t route)
{
	const struct sl_packet_flow f = entry_of(t, route);
	const struct sl_packet_flow both[2] = { f, f };

	fake_flow(&lab->maps, &t->tuple, FAKE_BOTH, both);
}

static void put(const struct lab *lab, const struct through *t)
{
	put_of(lab, t, 1);
}

/* Connected, and the proxy asks the broker for it; unanswered. */
static struct through *asked(struct lab *lab, struct through *t)
{
	struct sockaddr_in to = local(FRONT);
	struct sl_broker_msg msg;

	t->client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(t->client, (struct sockaddr *)&to, sizeof(to)), 0);
	assert_true(await(lab, lab->listener));
	t->backend = accept4(lab->listener, NULL, NULL, SOCK_CLOEXEC);
	assert_true(t->backend >= 0);
	msg = hear(lab);
	assert_int_equal(msg.type, SL_BROKER_HANDOVER);
	t->id = msg.conn_id;
	t->asked = msg.handover;
	name(t->client, getsockname, t->text[0]);
	name(t->client, getpeername, t->text[1]);
	name(t->backend, getpeername, t->text[2]);
	name(t->backend, getsockname, t->text[3]);
	t->tuple = (struct fake_tuple){ t->text[0], t->text[1], t->text[2], t->text[3] };
	return t;
}

static struct sl_broker_flow flow_of(const struct through *t)
{
	return (struct sl_broker_flow){ fake_addr(t->text[0]), fake_addr(t->text[1]),
					fake_addr(t->text[2]), fake_addr(t->text[3]) };
}

static void hang_up(struct through *t)
{
	sl_closep(&t->client);
	sl_closep(&t->backend);
}

static uint64_t n_active(const struct lab *lab, enum sl_engine_id engine)
{
	struct sl_proxy_totals totals;

	sl_proxy_totals(lab->proxy, &totals);
	assert_int_equal(totals.fsm_bugs, 0);
	return totals.engine_active[engine];
}

static void await_active(struct lab *lab, enum sl_engine_id engine, uint64_t n)
{
	uint64_t until_ms = sl_clock_ms() + WAIT_MS;

	while (n_active(lab, engine) != n && sl_clock_ms() < until_ms) {
		turn(lab);
		(void)usleep(1000);
	}
	assert_int_equal(n_active(lab, engine), n);
}

/* In the kernel, as far as the proxy is told. */
static struct through *in_kernel(struct lab *lab, struct through *t)
{
	uint64_t n = n_active(lab, SL_ENGINE_PACKET);

	asked(lab, t);
	put(lab, t);
	answer(lab, t->id, SL_WHY_ELIGIBLE);
	await_active(lab, SL_ENGINE_PACKET, n + 1);
	return t;
}

static void on_survey(void *arg, const struct sl_conn_survey *survey)
{
	struct lab *lab = arg;

	(void)survey;
	lab->done = true;
}

static void await_done(struct lab *lab)
{
	uint64_t until_ms = sl_clock_ms() + WAIT_MS;

	while (!lab->done && sl_clock_ms() < until_ms) {
		turn(lab);
		(void)usleep(1000);
	}
	assert_true(lab->done);
	lab->done = false;
}

/* As an operator does. */
static void kill_conn(struct lab *lab, uint64_t id)
{
	const struct sl_conn_filter filter = { .id = id, .kill = true };

	assert_int_equal(sl_proxy_survey(lab->proxy, &filter, on_survey, lab), 0);
	await_done(lab);
}

static void on_reason(void *arg, const struct sl_conn_survey *survey)
{
	struct lab *lab = arg;

	lab->reason = survey->n_rows == 1 ? survey->rows[0].engine_reason : SL_WHY_NONE;
	lab->done = true;
}

static void on_moves(void *arg, const struct sl_conn_survey *survey)
{
	struct lab *lab = arg;

	assert_int_equal(survey->n_rows, 1);
	lab->moves = survey->rows[0].moves;
	lab->done = true;
}

/* Since this process knows it. */
static void has_moved(struct lab *lab, uint64_t id, unsigned n)
{
	const struct sl_conn_filter filter = { .id = id };

	assert_int_equal(sl_proxy_survey(lab->proxy, &filter, on_moves, lab), 0);
	await_done(lab);
	assert_int_equal(lab->moves.n, n);
	for (unsigned i = 0; i < n; i++) {
		assert_int_equal(sl_moves_at(&lab->moves, i)->from, SL_ENGINE_RELAY);
		assert_int_equal(sl_moves_at(&lab->moves, i)->to, SL_ENGINE_PACKET);
		assert_int_equal(sl_moves_at(&lab->moves, i)->why, SL_WHY_ELIGIBLE);
	}
}

static void await_reason(struct lab *lab, uint64_t id, enum sl_engine_reason why)
{
	const struct sl_conn_filter filter = { .id = id };
	uint64_t until_ms = sl_clock_ms() + WAIT_MS;

	do {
		assert_int_equal(sl_proxy_survey(lab->proxy, &filter, on_reason, lab), 0);
		await_done(lab);
	} while (lab->reason != why && sl_clock_ms() < until_ms);
	assert_string_equal(sl_engine_reason_name(lab->reason), sl_engine_reason_name(why));
}

static unsigned n_lines(struct lab *lab, uint64_t id)
{
	char want[40];
	unsigned n = 0;
	ssize_t got;

	while (is_readable(lab->access, 50) &&
	       (got = read(lab->access, lab->lines + lab->n_lines,
			   sizeof(lab->lines) - 1 - lab->n_lines)) > 0)
		lab->n_lines += (size_t)got;
	lab->lines[lab->n_lines] = '\0';
	(void)snprintf(want, sizeof(want), " id=%llu ", (unsigned long long)id);
	for (const char *at = lab->lines; (at = strstr(at, want)); at++)
		n++;
	return n;
}

/* One, however busy the machine is. */
static void has_a_line(struct lab *lab, uint64_t id)
{
	uint64_t until_ms = sl_clock_ms() + WAIT_MS;

	while (n_lines(lab, id) == 0 && sl_clock_ms() < until_ms)
		turn(lab);
	assert_int_equal(n_lines(lab, id), 1);
}

static void carries(struct lab *lab, const struct through *t, char c)
{
	char got = 0;

	assert_int_equal(send(t->client, &c, 1, 0), 1);
	if (!await(lab, t->backend))
		fail_msg("the connection has come to a stop");
	assert_int_equal(read(t->backend, &got, 1), 1);
	assert_int_equal(got, c);
}

/* ---- setup ---- */

static void on_done(void *arg)
{
	((struct lab *)arg)->done = true;
}

/* Another configuration, with the same listeners. */
static void apply(struct lab *lab, const char *text, uint64_t generation)
{
	struct built b = build_text(text);

	if (b.r < 0)
		fail_msg("%s", sl_str_text(&b.diags.text));
	sl_diags_done(&b.diags);
	assert_int_equal(
		sl_proxy_apply(lab->proxy, b.conf, generation, NULL, 0, NULL, 0, on_done, lab), 0);
	await_done(lab);
}

static int setup(void **state)
{
	static struct lab lab;
	struct sl_proxy_listener front = { .id = 1, .from = FRONT, .to = FRONT };
	struct built b = build_text(conf_text);
	int pipe_fds[2];

	if (enter_netns() < 0) /* not root: each test skips */
		return 0;
	lab = (struct lab){ .control = -1, .broker = -1, .given = { -1, -1, -1, -1 } };
	if (b.r < 0)
		fail_msg("%s", sl_str_text(&b.diags.text));
	assert_true(fake_flows_open(&lab.maps, 64));
	fake_route(&lab.maps, 1, "r");
	fake_route(&lab.maps, 2, "renamed");
	assert_int_equal(pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK), 0);
	lab.access = pipe_fds[0];
	assert_int_equal(sl_loop_new(&lab.loop), 0);
	assert_int_equal(sl_proxy_new(&(struct sl_proxy_options){ .control = lab.loop,
								  .n_workers = 1,
								  .first_conn_id = 1000,
								  .access_fd = pipe_fds[1],
								  .expects_broker = true },
				      &lab.proxy),
			 0);
	lab.listener = listen_on(BACK);
	front.fd = listen_on(FRONT);
	start_broker(&lab);
	assert_int_equal(sl_proxy_apply(lab.proxy, b.conf, 1, &front, 1, NULL, 0, on_done, &lab),
			 0);
	sl_diags_done(&b.diags);
	await_done(&lab);
	say_hello(&lab, lab.broker);
	*state = &lab;
	return 0;
}

static int teardown(void **state)
{
	struct lab *lab = *state;

	if (!lab)
		return 0;
	sl_proxy_free(lab->proxy);
	sl_loop_free(lab->loop);
	sl_broker_close_fds(lab->given);
	fake_flows_close(&lab->maps);
	sl_closep(&lab->listener);
	sl_closep(&lab->access);
	sl_closep(&lab->control);
	sl_closep(&lab->broker);
	return 0;
}

static struct lab *lab_of(void **state)
{
	if (!*state)
		skip();
	return *state;
}

/* ---- the tests ---- */

/* What became of it is asked, whatever else has waited for a broker. */
static void in_doubt_behind_a_kill(void **state)
{
	struct lab *lab = lab_of(state);
	struct through a = { 0 };
	struct through b = { 0 };
	bool is_resolved = false;
	bool is_killed = false;

	in_kernel(lab, &a);
	has_moved(lab, a.id, 1);
	asked(lab, &b);
	has_moved(lab, b.id, 0); /* not before the broker has said so */
	repair(lab, 1);
	kill_broker(lab);
	kill_conn(lab, a.id);
	start_broker(lab);
	say_hello(lab, lab->broker);
	for (int i = 0; i < 2; i++) {
		struct sl_broker_msg msg = hear(lab);

		is_resolved |= msg.type == SL_BROKER_RESOLVE && msg.conn_id == b.id;
		is_killed |= msg.type == SL_BROKER_KILL && msg.conn_id == a.id;
	}
	assert_true(is_resolved && is_killed);
	repair(lab, -1);
	answer(lab, b.id, SL_WHY_NOT_QUIESCENT);
	carries(lab, &b, 'x');
	has_moved(lab, b.id, 0);
	hang_up(&a);
	hang_up(&b);
}

/* One that has not begun with it leaves nothing in doubt. */
static void not_in_doubt(void **state)
{
	struct lab *lab = lab_of(state);
	struct through t = { 0 };

	asked(lab, &t);
	assert_int_equal(send(t.client, "a", 1, 0), 1);
	kill_broker(lab);
	assert_true(await(lab, t.backend));
	hang_up(&t);
}

/* The next broker finds its entries and tells of them before it is asked. */
static void in_doubt_and_told_of(void **state)
{
	struct lab *lab = lab_of(state);
	struct through t = { 0 };
	struct sl_proxy_totals totals;
	bool is_resolved = false;
	bool is_adopted = false;

	asked(lab, &t);
	put(lab, &t);
	repair(lab, 1);
	kill_broker(lab);
	start_broker(lab);
	say_hello(lab, lab->broker);
	say(lab->broker, (struct sl_broker_msg){
				 .type = SL_BROKER_ADOPT, .conn_id = t.id, .flow = flow_of(&t) });
	for (int i = 0; i < 2; i++) {
		struct sl_broker_msg msg = hear(lab);

		is_resolved |= msg.type == SL_BROKER_RESOLVE && msg.conn_id == t.id;
		is_adopted |= msg.type == SL_BROKER_ADOPTED && msg.conn_id == t.id && msg.flag == 1;
	}
	assert_true(is_resolved && is_adopted);
	answer(lab, t.id, SL_WHY_ELIGIBLE);
	await_active(lab, SL_ENGINE_PACKET, 1);
	await_active(lab, SL_ENGINE_RELAY, 0);
	say(lab->broker, (struct sl_broker_msg){ .type = SL_BROKER_ENDED,
						 .conn_id = t.id,
						 .ended = { .how = SL_BROKER_END_CLOSED } });
	await_active(lab, SL_ENGINE_PACKET, 0);
	sl_proxy_totals(lab->proxy, &totals);
	assert_int_equal(totals.engine_total[SL_ENGINE_PACKET], 1);
	assert_int_equal(totals.active, 0);
	has_a_line(lab, t.id);
	hang_up(&t);
}

/* As after brokers that keep dying: the next one is started 10 s later. */
static void in_doubt_for_long(void **state)
{
	struct lab *lab = lab_of(state);
	struct through t = { 0 };
	uint64_t until_ms = sl_clock_ms() + 10500;

	asked(lab, &t);
	repair(lab, 1);
	kill_broker(lab);
	while (sl_clock_ms() < until_ms)
		assert_true(sl_loop_turn(lab->loop, 100) >= 0);
	start_broker(lab);
	say_hello(lab, lab->broker);
	hear_this(lab, SL_BROKER_RESOLVE, t.id, 0);
	repair(lab, -1);
	answer(lab, t.id, SL_WHY_NOT_QUIESCENT);
	carries(lab, &t, 'x');
	hang_up(&t);
}

/* A kill that a broker has not read before it died is not forgotten. */
static void a_kill_nobody_read(void **state)
{
	struct lab *lab = lab_of(state);
	struct through t = { 0 };

	in_kernel(lab, &t);
	kill_conn(lab, t.id);
	assert_true(is_readable(lab->broker, WAIT_MS));
	kill_broker(lab);
	start_broker(lab);
	say_hello(lab, lab->broker);
	hear_this(lab, SL_BROKER_KILL, t.id, 1);
	hang_up(&t);
}

static void put_bytes(const struct lab *lab, const struct through *t, uint64_t bytes)
{
	struct sl_packet_flow f[2] = { entry_of(t, 1), entry_of(t, 1) };

	f[0].bytes = f[1].bytes = bytes;
	fake_flow(&lab->maps, &t->tuple, FAKE_BOTH, f);
}

static void say_ended(const struct lab *lab, const struct through *t, uint64_t up, uint64_t down)
{
	say(lab->broker, (struct sl_broker_msg){
				 .type = SL_BROKER_ENDED,
				 .conn_id = t->id,
				 .ended = { .how = SL_BROKER_END_KILLED, .bytes = { up, down } } });
}

/* It goes on until the broker has killed it: the bytes of its line are those of then. */
static void the_last_word(void **state)
{
	struct lab *lab = lab_of(state);
	struct through t = { 0 };

	in_kernel(lab, &t);
	kill_conn(lab, t.id);
	hear_this(lab, SL_BROKER_KILL, t.id, 1);
	assert_int_equal(n_lines(lab, t.id), 0);
	kill_conn(lab, t.id); /* nothing new */
	say_ended(lab, &t, 3000, 4000);
	await_active(lab, SL_ENGINE_PACKET, 0);
	has_a_line(lab, t.id);
	assert_non_null(strstr(lab->lines, " up=3000 down=4000 "
					   "client_reason=killed backend_reason=killed"));
	assert_false(is_readable(lab->broker, 50));
	hang_up(&t);
}

/* Nor is it waited for without end; what can be read then is read. */
static void no_last_word(void **state)
{
	struct lab *lab = lab_of(state);
	struct through t = { 0 };

	in_kernel(lab, &t);
	kill_conn(lab, t.id);
	hear_this(lab, SL_BROKER_KILL, t.id, 1);
	put_bytes(lab, &t, 2000);
	hear_this(lab, SL_BROKER_KILL, t.id, 0); /* after 3 s */
	await_active(lab, SL_ENGINE_PACKET, 0);
	has_a_line(lab, t.id);
	assert_non_null(strstr(lab->lines, " up=2000 down=2000 "
					   "client_reason=killed backend_reason=killed"));
	hang_up(&t);
}

/* A FIN that has been acknowledged, of which nobody has told yet, before and behind the kill. */
static void killed_behind_a_fin(void **state)
{
	struct lab *lab = lab_of(state);

	for (int is_late = 0; is_late < 2; is_late++) {
		struct through t = { 0 };
		struct sl_packet_flow f[2];

		in_kernel(lab, &t);
		f[0] = f[1] = entry_of(&t, 1);
		f[0].fin = f[1].peer_fin = f[1].peer_fin_acked = 1;
		if (!is_late)
			fake_flow(&lab->maps, &t.tuple, FAKE_BOTH, f);
		kill_conn(lab, t.id);
		hear_this(lab, SL_BROKER_KILL, t.id, 1);
		if (is_late)
			fake_flow(&lab->maps, &t.tuple, FAKE_BOTH, f);
		say_ended(lab, &t, 1000, 1000);
		await_active(lab, SL_ENGINE_PACKET, 0);
		has_a_line(lab, t.id);
		assert_non_null(strstr(lab->lines, "client_reason=normal backend_reason=killed"));
		assert_null(strstr(lab->lines, "client_reason=killed"));
		hang_up(&t);
	}
}

/* A broker has died before it noted that it had reported an end. */
static void told_of_what_is_over(void **state)
{
	struct lab *lab = lab_of(state);
	struct through t = { 0 };

	in_kernel(lab, &t);
	say(lab->broker, (struct sl_broker_msg){ .type = SL_BROKER_ENDED,
						 .conn_id = t.id,
						 .ended = { .how = SL_BROKER_END_CLOSED } });
	await_active(lab, SL_ENGINE_PACKET, 0);
	kill_broker(lab);
	start_broker(lab);
	say_hello(lab, lab->broker);
	say(lab->broker, (struct sl_broker_msg){
				 .type = SL_BROKER_ADOPT, .conn_id = t.id, .flow = flow_of(&t) });
	hear_this(lab, SL_BROKER_ADOPTED, t.id, 0);
	has_a_line(lab, t.id);
	hang_up(&t);

	/* but not of one whose reset the peers have not taken */
	in_kernel(lab, &t);
	say(lab->broker, (struct sl_broker_msg){ .type = SL_BROKER_ENDED,
						 .conn_id = t.id,
						 .ended = { .how = SL_BROKER_END_RST_CLIENT } });
	await_active(lab, SL_ENGINE_PACKET, 0);
	say(lab->broker, (struct sl_broker_msg){
				 .type = SL_BROKER_ADOPT, .conn_id = t.id, .flow = flow_of(&t) });
	hear_this(lab, SL_BROKER_ADOPTED, t.id, 1);
	hang_up(&t);
}

/* A flow that no process made a record of yet: four names nobody has. */
static void found(struct lab *lab, struct through *t, uint64_t id, uint32_t route)
{
	*t = (struct through){ .client = -1, .backend = -1, .id = id };
	(void)snprintf(t->text[0], sizeof(t->text[0]), "192.0.2.1:%u", 1111 + (unsigned)id % 1000);
	strcpy(t->text[1], "192.0.2.2:8000");
	(void)snprintf(t->text[2], sizeof(t->text[2]), "192.0.2.2:%u", 40000 + (unsigned)id % 1000);
	strcpy(t->text[3], "192.0.2.3:9000");
	t->tuple = (struct fake_tuple){ t->text[0], t->text[1], t->text[2], t->text[3] };
	t->asked.accepted_us = sl_clock_us();
	put_of(lab, t, route);
	say(lab->broker,
	    (struct sl_broker_msg){ .type = SL_BROKER_ADOPT, .conn_id = id, .flow = flow_of(t) });
}

/* Its route is gone since: it is dropped, and that is counted and said, once. */
static void found_without_a_route(void **state)
{
	struct lab *lab = lab_of(state);
	struct sl_proxy_totals totals;
	struct sl_kernel_view kernel;
	struct through t;

	for (int i = 0; i < 2; i++) { /* the broker dies before it reads the answer */
		found(lab, &t, 77, 2);
		hear_this(lab, SL_BROKER_ADOPTED, 77, i == 0 ? 2 : 0);
	}
	has_a_line(lab, 77);
	assert_non_null(strstr(lab->lines, " route=renamed engine=packet/"));
	assert_non_null(strstr(lab->lines, " up=1500 down=1500 client_reason=crash_recovered "
					   "backend_reason=crash_recovered"));
	sl_proxy_kernel(lab->proxy, &kernel);
	assert_int_equal(kernel.status.dropped, 1);
	sl_proxy_totals(lab->proxy, &totals);
	assert_int_equal(totals.ended[SL_CLIENT][SL_REASON_CRASH_RECOVERED], 1);
	assert_int_equal(totals.ended[SL_BACKEND][SL_REASON_CRASH_RECOVERED], 1);
	assert_int_equal(totals.active, 0);
	assert_int_equal(totals.fsm_bugs, 0);
}

static void on_count(void *arg, const struct sl_conn_survey *survey)
{
	struct lab *lab = arg;

	lab->n_found = survey->n_matching;
	lab->done = true;
}

/* The clock has been set back: ids of before are above ours. They hide nobody and do not come
 * again. */
static void found_with_a_later_id(void **state)
{
	struct lab *lab = lab_of(state);
	const struct sl_conn_filter all = { 0 };
	struct through before = { 0 };
	struct through after = { 0 };
	struct through t[2];

	in_kernel(lab, &before);
	found(lab, &t[0], 500000, 1);
	hear_this(lab, SL_BROKER_ADOPTED, 500000, 1);
	found(lab, &t[1], 400000, 1);
	hear_this(lab, SL_BROKER_ADOPTED, 400000, 1);
	assert_int_equal(sl_proxy_survey(lab->proxy, &all, on_count, lab), 0);
	await_done(lab);
	assert_int_equal(lab->n_found, 3);
	in_kernel(lab, &after);
	assert_true(after.id > 500000);
	assert_int_equal(sl_proxy_survey(lab->proxy, &all, on_count, lab), 0);
	await_done(lab);
	assert_int_equal(lab->n_found, 4);
	hang_up(&before);
	hang_up(&after);
}

static void next_broker(struct lab *lab)
{
	kill_broker(lab);
	start_broker(lab);
	say_hello(lab, lab->broker);
}

static const char later_text[] =
	"version: 1\n"
	"global: { packet: { ports: 40000-40999, after_bytes: 0 } }\n"
	"routes: [ { name: new, match: { ports: 8001 }, forward: \"127.0.0.1:9001\" },\n"
	"  { name: r, match: { ports: 8000 }, forward: [\"127.0.0.1:9001\", \"127.0.0.1:9000\"] } "
	"]\n";

/* The next broker knows the newest configuration alone: connections of older ones go by that. */
static void of_an_older_configuration(void **state)
{
	struct lab *lab = lab_of(state);
	struct sl_broker_msg msg;
	struct through t = { 0 };

	asked(lab, &t);
	assert_int_equal(t.asked.generation, 1);
	apply(lab, later_text, 2);
	answer(lab, t.id, SL_WHY_RATE_LIMITED);
	msg = hear(lab); /* this one was there when it came */
	assert_int_equal(msg.handover.generation, 1);
	assert_int_equal(msg.handover.route, 0);
	next_broker(lab);
	msg = hear(lab);
	assert_int_equal(msg.type, SL_BROKER_HANDOVER);
	assert_int_equal(msg.conn_id, t.id);
	assert_int_equal(msg.handover.generation, 2);
	assert_int_equal(msg.handover.route, 1);
	put(lab, &t);
	answer(lab, t.id, SL_WHY_ELIGIBLE);
	await_active(lab, SL_ENGINE_PACKET, 1);
	hang_up(&t);
}

/* It has forgotten: what it does not know is asked by the newest, once. */
static void of_a_forgotten_configuration(void **state)
{
	struct lab *lab = lab_of(state);
	struct sl_broker_msg msg;
	struct through t = { 0 };

	asked(lab, &t);
	apply(lab, later_text, 2);
	for (int i = 0; i < 2; i++) {
		say(lab->broker, (struct sl_broker_msg){
					 .type = SL_BROKER_RESULT,
					 .conn_id = t.id,
					 .result = { .why = SL_WHY_NO_PRIVILEGE, .is_final = 1 } });
		if (i == 0) {
			msg = hear(lab);
			assert_int_equal(msg.handover.generation, 2);
			assert_int_equal(msg.handover.route, 1);
		}
	}
	await_reason(lab, t.id, SL_WHY_NO_PRIVILEGE);
	carries(lab, &t, 'x');
	hang_up(&t);
}

/* Its route, or its target, is in no configuration that the broker knows. */
static void of_a_route_that_is_gone(void **state)
{
	static const char *const text[] = {
		"version: 1\n"
		"global: { packet: { ports: 40000-40999, after_bytes: 0 } }\n"
		"routes: [ { name: s, match: { ports: 8000 }, forward: \"127.0.0.1:9000\" } ]\n",
		"version: 1\n"
		"global: { packet: { ports: 40000-40999, after_bytes: 0 } }\n"
		"routes: [ { name: r, match: { ports: 8000 }, forward: \"127.0.0.1:9001\" } ]\n",
	};
	struct lab *lab = lab_of(state);

	for (unsigned i = 0; i < SL_ARRAY_LEN(text); i++) {
		struct through t = { 0 };

		apply(lab, conf_text, 2 * i + 2);
		asked(lab, &t);
		apply(lab, text[i], 2 * i + 3);
		answer(lab, t.id, SL_WHY_RATE_LIMITED);
		next_broker(lab);
		await_reason(lab, t.id, SL_WHY_CONFIGURED);
		carries(lab, &t, 'x');
		hang_up(&t);
		await_active(lab, SL_ENGINE_RELAY, 0);
	}
}

/* What came while the broker had the sockets is read, also by a connection that is given up. */
static void data_at_the_last_refusal(void **state)
{
	struct lab *lab = lab_of(state);
	struct through t = { 0 };
	char last = 0;
	char got = 0;

	asked(lab, &t);
	for (int i = 0; i < 4000 && !got; i++) {
		/* Arrives while the answer is awaited. */
		last = (char)('a' + i % 26);
		assert_int_equal(send(t.client, &last, 1, 0), 1);
		(void)usleep(90000); /* longer than a flow is frozen */
		answer(lab, t.id, SL_WHY_NOT_QUIESCENT);
		if (!await(lab, t.backend))
			fail_msg("byte %d has not arrived", i);
		assert_int_equal(read(t.backend, &got, 1), 1);
		assert_int_equal(got, last);
		got = 0;
		if (!is_readable(lab->broker, 3000))
			return hang_up(&t); /* given up, and nothing was lost */
		assert_int_equal(hear(lab).conn_id, t.id);
	}
	fail_msg("never given up");
}

int main(void)
{
#define EACH(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
	const struct CMUnitTest tests[] = {
		EACH(in_doubt_behind_a_kill),
		EACH(not_in_doubt),
		EACH(in_doubt_and_told_of),
		EACH(a_kill_nobody_read),
		EACH(told_of_what_is_over),
		EACH(data_at_the_last_refusal),
		EACH(found_without_a_route),
		EACH(found_with_a_later_id),
		EACH(of_an_older_configuration),
		EACH(of_a_forgotten_configuration),
		EACH(of_a_route_that_is_gone),
		EACH(in_doubt_for_long),
		EACH(the_last_word),
		EACH(no_last_word),
		EACH(killed_behind_a_fin),
	};

	sl_log_setup(SL_LOG_ERROR, false, STDERR_FILENO);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
