/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Flows of the kernel's NAT as records of a worker, told by brokers that die and come back. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/log.h"
#include "broker/wire.h"
#include "conf_text.h"
#include "proxy/proxy.h"

#define WAIT_MS 6000
#define SECOND UINT64_C(1000000000)

#define ROUTE_N                                                                           \
	"  - { name: n, engine: nftables, match: { ports: \"10.0.0.1:80\" }, forward: [ " \
	"\"10.0.0.5:80\", \"10.0.0.6:80\" ], security: { max_connections: 2 } }\n"
#define ROUTE_SHORT                                                                           \
	"  - { name: short, engine: nftables, match: { ports: 81 }, forward: \"10.0.0.7:81\"" \
	", timeouts: { idle: 100ms, drain: 1s } }\n"
#define ROUTE_UDP                                                                         \
	"  - { name: dns, engine: nftables, match: { ports: 5300-5310, protocol: udp }, " \
	"forward: { targets: \"10.0.0.8\", port: preserve } }\n"
#define ROUTE_CHECKED                                                                       \
	"  - { name: checked, engine: nftables, match: { ports: 82 }, forward: { targets: " \
	"\"127.0.0.1:1\", health: { every: 100ms, timeout: 50ms, fall: 2 } } }\n"
#define ROUTE_RELAY "  - { name: relay, match: { ports: 84 }, forward: \"127.0.0.1:2\" }\n"
#define ROUTES "routes:\n" ROUTE_N ROUTE_SHORT ROUTE_UDP ROUTE_RELAY

static const char conf_text[] = "version: 1\n" ROUTES;
static const char keeping_text[] =
	"version: 1\nglobal: { nftables: { keep_on_exit: true } }\n" ROUTES;
static const char checked_text[] = "version: 1\n" ROUTES ROUTE_CHECKED;
static const char late_text[] =
	"version: 1\n" ROUTES
	"  - { name: late, engine: nftables, match: { ports: 83 }, forward: \"10.0.0.9:83\" }\n";

struct lab {
	struct sl_loop *loop;
	struct sl_proxy *proxy;
	int control; /* the broker's end of the control thread's channel; -1: none */
	int broker;  /* of the only worker's */
	int access;  /* where access lines arrive */
	bool done;
	struct sl_conn_row row; /* of the last survey */
	size_t n_rows;
	struct sl_route_view route;
	const char *wanted;
	char lines[65536];
	size_t n_lines; /* bytes of them */
};

static uint64_t real_ns(void)
{
	struct timespec ts;

	assert_int_equal(clock_gettime(CLOCK_REALTIME, &ts), 0);
	return (uint64_t)ts.tv_sec * SECOND + (uint64_t)ts.tv_nsec;
}

static void turn(struct lab *lab)
{
	assert_true(sl_loop_turn(lab->loop, 1) >= 0);
}

#define UNTIL(lab, ms, condition)                                                     \
	do {                                                                          \
		uint64_t until_ms_ = sl_clock_ms() + (ms);                            \
		while (!(condition) && sl_clock_ms() < until_ms_)                     \
			turn(lab);                                                    \
		if (!(condition))                                                     \
			fail_msg("%s:%d: never: %s", __FILE__, __LINE__, #condition); \
	} while (0)

/* ---- the broker ---- */

static int channel(struct lab *lab, unsigned worker)
{
	int p[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, p),
			 0);
	sl_proxy_connect_broker(lab->proxy, worker, p[0]);
	return p[1];
}

/* Its packet engine is off: no HELLO ever comes. */
static void start_broker(struct lab *lab)
{
	lab->control = channel(lab, 1);
	lab->broker = channel(lab, 0);
}

static void kill_broker(struct lab *lab)
{
	sl_broker_hang_up(lab->control);
	sl_broker_hang_up(lab->broker);
	lab->control = lab->broker = -1;
}

static struct sl_broker_nat_flow flow(const char *route, const char *client, const char *front,
				      const char *backend)
{
	struct sl_broker_nat_flow f = { .start_ns = real_ns(), .is_established = 1 };

	strcpy(f.route, route);
	assert_int_equal(sl_addr_parse(client, &f.client), 0);
	assert_int_equal(sl_addr_parse(front, &f.front), 0);
	assert_int_equal(sl_addr_parse(backend, &f.backend), 0);
	return f;
}

static struct sl_broker_nat_flow flow_n(void)
{
	return flow("n", "192.0.2.1:1000", "10.0.0.1:80", "10.0.0.6:80");
}

static void tell(const struct lab *lab, uint64_t serial, const struct sl_broker_nat_flow *f)
{
	const struct sl_broker_msg msg = { .type = SL_BROKER_NAT_FLOW,
					   .conn_id = serial,
					   .nat_flow = *f };

	assert_int_equal(sl_broker_send(lab->broker, &msg, NULL, 0), 0);
}

static void tell_end(const struct lab *lab, uint64_t serial, struct sl_broker_nat_flow *f,
		     enum sl_reason reason)
{
	f->is_over = 1;
	f->end_ns = real_ns();
	f->reason = (uint8_t)reason;
	tell(lab, serial, f);
}

static bool hear_on(struct lab *lab, int fd, int wait_ms, struct sl_broker_msg *ret)
{
	uint64_t until_ms = sl_clock_ms() + (uint64_t)wait_ms;
	int fds[SL_BROKER_MAX_FDS];
	int r;

	while ((r = sl_broker_recv(fd, true, ret, fds)) == -EAGAIN && sl_clock_ms() < until_ms)
		turn(lab);
	if (r == -EAGAIN)
		return false;
	assert_int_equal(r, 0);
	return true;
}

static uint64_t killed(struct lab *lab)
{
	struct sl_broker_msg msg;

	assert_true(hear_on(lab, lab->broker, 20000, &msg));
	assert_int_equal(msg.type, SL_BROKER_NAT_KILL);
	return msg.conn_id;
}

static void hears_kill(struct lab *lab, uint64_t serial)
{
	assert_int_equal(killed(lab), serial);
}

static void hears_target(struct lab *lab, uint32_t is_down)
{
	struct sl_broker_msg msg;

	assert_true(hear_on(lab, lab->control, WAIT_MS, &msg));
	assert_int_equal(msg.type, SL_BROKER_NAT_TARGET);
	assert_int_equal(msg.flag, is_down);
	assert_string_equal(msg.nat_target.route, "checked");
	assert_string_equal(msg.nat_target.target, "127.0.0.1:1");
}

/* ---- what the proxy shows ---- */

static struct sl_proxy_totals totals_of(const struct lab *lab)
{
	struct sl_proxy_totals t;

	sl_proxy_totals(lab->proxy, &t);
	assert_int_equal(t.fsm_bugs, 0);
	return t;
}

static uint64_t n_active(const struct lab *lab)
{
	return totals_of(lab).engine_active[SL_ENGINE_NFTABLES];
}

static uint64_t n_total(const struct lab *lab)
{
	return totals_of(lab).engine_total[SL_ENGINE_NFTABLES];
}

static void on_route(void *arg, const struct sl_route_view *route)
{
	struct lab *lab = arg;

	if (strcmp(route->conf->name, lab->wanted) == 0) {
		lab->route = *route;
		lab->route.targets = NULL;
	}
}

static const struct sl_route_view *route_of(struct lab *lab, const char *name)
{
	lab->wanted = name;
	lab->route = (struct sl_route_view){ 0 };
	sl_proxy_each_route(lab->proxy, on_route, lab);
	assert_non_null(lab->route.conf);
	return &lab->route;
}

static void on_survey(void *arg, const struct sl_conn_survey *survey)
{
	struct lab *lab = arg;

	lab->n_rows = survey->n_rows;
	lab->row = survey->n_rows ? survey->rows[0] : (struct sl_conn_row){ 0 };
	lab->done = true;
}

static void survey(struct lab *lab, const struct sl_conn_filter *filter)
{
	assert_int_equal(sl_proxy_survey(lab->proxy, filter, on_survey, lab), 0);
	UNTIL(lab, WAIT_MS, lab->done);
	lab->done = false;
}

static const struct sl_conn_row *only_row(struct lab *lab)
{
	const struct sl_conn_filter all = { 0 };

	survey(lab, &all);
	assert_int_equal(lab->n_rows, 1);
	return &lab->row;
}

static uint64_t bytes_up(struct lab *lab)
{
	return only_row(lab)->bytes_up;
}

static void kill_all(struct lab *lab)
{
	const struct sl_conn_filter all = { .kill = true };

	survey(lab, &all);
}

/* How many access lines hold this. */
static unsigned n_lines(struct lab *lab, const char *text)
{
	unsigned n = 0;
	ssize_t got;

	while ((got = read(lab->access, lab->lines + lab->n_lines,
			   sizeof(lab->lines) - 1 - lab->n_lines)) > 0)
		lab->n_lines += (size_t)got;
	lab->lines[lab->n_lines] = '\0';
	for (const char *at = lab->lines; (at = strstr(at, text)); at++)
		n++;
	return n;
}

/* ---- setup ---- */

static void on_done(void *arg)
{
	((struct lab *)arg)->done = true;
}

static void apply(struct lab *lab, const char *text, uint64_t generation)
{
	struct built b = build_text(text);

	if (b.r < 0)
		fail_msg("%s", sl_str_text(&b.diags.text));
	sl_diags_done(&b.diags);
	assert_int_equal(
		sl_proxy_apply(lab->proxy, b.conf, generation, NULL, 0, NULL, 0, on_done, lab), 0);
	UNTIL(lab, WAIT_MS, lab->done);
	lab->done = false;
}

static int setup(void **state)
{
	static struct lab lab;
	int pipe_fds[2];

	lab = (struct lab){ .control = -1, .broker = -1 };
	assert_int_equal(pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK), 0);
	lab.access = pipe_fds[0];
	assert_int_equal(sl_loop_new(&lab.loop), 0);
	assert_int_equal(sl_proxy_new(&(struct sl_proxy_options){ .control = lab.loop,
								  .n_workers = 1,
								  .first_conn_id = 1000,
								  .access_fd = pipe_fds[1] },
				      &lab.proxy),
			 0);
	apply(&lab, conf_text, 1);
	start_broker(&lab);
	*state = &lab;
	return 0;
}

static int teardown(void **state)
{
	struct lab *lab = *state;

	sl_proxy_free(lab->proxy);
	sl_loop_free(lab->loop);
	sl_closep(&lab->access);
	sl_closep(&lab->control);
	sl_closep(&lab->broker);
	return 0;
}

/* ---- the life of a flow ---- */

static void from_begin_to_end(void **state)
{
	struct lab *lab = *state;
	struct sl_broker_nat_flow f = flow_n();
	const struct sl_conn_row *row;
	char text[SL_ADDR_TEXT];

	f.start_ns -= 5 * SECOND;
	tell(lab, 7, &f);
	UNTIL(lab, WAIT_MS, n_active(lab) == 1);
	row = only_row(lab);
	assert_string_equal(row->route, "n");
	assert_int_equal(row->state, SL_CONN_ESTABLISHED);
	assert_int_equal(row->engine, SL_ENGINE_NFTABLES);
	assert_int_equal(row->engine_reason, SL_WHY_CONFIGURED);
	assert_string_equal(sl_addr_format(&row->client, text), "192.0.2.1:1000");
	assert_string_equal(sl_addr_format(&row->backend, text), "10.0.0.6:80");
	assert_in_range(row->age_ms, 5000, 9000);

	f.bytes[SL_CLIENT] = 100;
	f.bytes[SL_BACKEND] = 4000;
	tell(lab, 7, &f);
	UNTIL(lab, WAIT_MS, bytes_up(lab) == 100);
	assert_int_equal(lab->row.bytes_down, 4000);
	assert_int_equal(route_of(lab, "n")->active, 1);
	assert_int_equal(route_of(lab, "n")->engine_bytes_down[SL_ENGINE_NFTABLES], 4000);

	f.bytes[SL_CLIENT] = 150;
	f.is_over = 1;
	f.reason = SL_REASON_NORMAL;
	f.end_ns = f.start_ns + 2 * SECOND;
	tell(lab, 7, &f);
	UNTIL(lab, WAIT_MS, n_active(lab) == 0);
	UNTIL(lab, WAIT_MS, n_lines(lab, " access: ") == 1);
	assert_int_equal(n_lines(lab, "route=n engine=nftables/configured backend=10.0.0.6:80 "),
			 1);
	assert_int_equal(n_lines(lab, " up=150 down=4000 client_reason=normal "
				      "backend_reason=normal\n"),
			 1);
	assert_int_equal(n_lines(lab, " duration=2.000s "), 1); /* when it ended, not now */
	assert_int_equal(route_of(lab, "n")->active, 0);
	assert_int_equal(route_of(lab, "n")->total, 1);
	assert_int_equal(route_of(lab, "n")->bytes_up, 150);
	assert_int_equal(lab->route.ended[SL_ENGINE_NFTABLES][SL_CLIENT][SL_REASON_NORMAL], 1);
	assert_int_equal(totals_of(lab).accepted, 1);
	assert_int_equal(totals_of(lab).active, 0);
}

static void begin_and_end_at_once(void **state)
{
	struct lab *lab = *state;
	struct sl_broker_nat_flow f =
		flow("dns", "[2001:db8::1]:53", "[2001:db8::2]:5301", "[2001:db8::8]:5301");

	f.is_udp = 1;
	f.bytes[SL_CLIENT] = 70;
	f.bytes[SL_BACKEND] = 300;
	tell_end(lab, 1, &f, SL_REASON_INACTIVITY);
	UNTIL(lab, WAIT_MS, n_lines(lab, " access: ") == 1);
	assert_int_equal(n_lines(lab, "client=[2001:db8::1]:53 via=- route=dns engine=nftables"),
			 1);
	assert_int_equal(n_lines(lab, "client_reason=inactivity backend_reason=inactivity\n"), 1);
	assert_int_equal(n_total(lab), 1);
	assert_int_equal(n_active(lab), 0);
	assert_int_equal(route_of(lab, "dns")->bytes_down, 300);
}

/* When it began the kernel says later than that it began. */
static void the_begin_is_told_better(void **state)
{
	struct lab *lab = *state;
	struct sl_broker_nat_flow f = flow_n();

	f.is_rough = 1;
	tell(lab, 7, &f);
	UNTIL(lab, WAIT_MS, n_active(lab) == 1);
	f.is_rough = 0;
	f.start_ns -= 2 * SECOND;
	f.bytes[SL_CLIENT] = 1;
	tell(lab, 7, &f);
	UNTIL(lab, WAIT_MS, bytes_up(lab) == 1);
	assert_in_range(lab->row.age_ms, 2000, 6000);
	assert_int_equal(n_total(lab), 1);
	f.is_over = 1;
	f.end_ns = f.start_ns + SECOND / 2;
	f.reason = SL_REASON_NORMAL;
	tell(lab, 7, &f);
	UNTIL(lab, WAIT_MS, n_lines(lab, " duration=0.500s ") == 1);
	assert_int_equal(n_active(lab), 0);

	/* nor has it, when the broker dies, which may have heard of it late */
	f = flow_n();
	f.is_rough = 1;
	tell(lab, 8, &f);
	UNTIL(lab, WAIT_MS, n_active(lab) == 1);
	kill_broker(lab);
	start_broker(lab);
	f.start_ns -= 3 * SECOND;
	f.is_rough = 0;
	f.is_adopted = 1;
	f.bytes[SL_CLIENT] = 2;
	tell(lab, 1008, &f);
	UNTIL(lab, WAIT_MS, bytes_up(lab) == 2);
	/* but now it has: what is told next of these names is another one */
	kill_broker(lab);
	start_broker(lab);
	f.start_ns += SECOND / 100;
	f.bytes[SL_CLIENT] = 3;
	tell(lab, 2008, &f);
	UNTIL(lab, WAIT_MS, n_active(lab) == 2);
}

/* Differences between times of one clock hold, whatever it is set to later. */
static void the_clock_is_set_back(void **state)
{
	struct lab *lab = *state;
	struct sl_broker_nat_flow f = flow_n();

	f.is_rough = 1;
	f.start_ns += 3600 * SECOND; /* an hour ahead of what the clock says now */
	tell(lab, 7, &f);
	UNTIL(lab, WAIT_MS, n_active(lab) == 1);
	f.is_rough = 0;
	f.start_ns -= 2 * SECOND;
	f.bytes[SL_CLIENT] = 1;
	tell(lab, 7, &f);
	UNTIL(lab, WAIT_MS, bytes_up(lab) == 1);
	assert_in_range(lab->row.age_ms, 2000, 6000);
	f.is_over = 1;
	f.reason = SL_REASON_NORMAL;
	f.end_ns = f.start_ns = real_ns(); /* before it began, which a broker does not say */
	tell(lab, 7, &f);
	UNTIL(lab, WAIT_MS, n_lines(lab, " access: ") == 1);
	assert_int_equal(n_lines(lab, " duration=0."), 0);
	assert_int_equal(n_lines(lab, " duration=2.") + n_lines(lab, " duration=3."), 1);
}

/* This process heard of it from a broker that had not looked either, and which goes at once. */
static void the_begin_is_told_better_by_another(void **state)
{
	struct lab *lab = *state;
	struct sl_broker_nat_flow f = flow_n();
	struct sl_broker_nat_flow later = flow_n();

	f.is_rough = later.is_rough = 1;
	f.is_adopted = later.is_adopted = 1;
	sl_addr_set_port(&later.client, 2);
	tell(lab, 7, &f);
	tell(lab, 8, &later);
	UNTIL(lab, WAIT_MS, n_active(lab) == 2);
	kill_broker(lab);
	start_broker(lab);
	f.start_ns -= SECOND / 50;
	f.is_rough = 0;
	f.bytes[SL_CLIENT] = 4;
	tell_end(lab, real_ns(), &f, SL_REASON_NORMAL);
	UNTIL(lab, WAIT_MS, n_lines(lab, " up=4 ") == 1);
	assert_int_equal(n_lines(lab, " client_reason=normal "), 1);

	/* the names are in use again: that one began when the first was known already */
	later.start_ns += SECOND;
	later.is_rough = 0;
	tell(lab, real_ns(), &later);
	UNTIL(lab, WAIT_MS, n_active(lab) == 2);
	assert_int_equal(n_total(lab), 3);
}

/* Without nf_conntrack_timestamp each broker has another idea of when it began. */
static void nobody_knows_the_begin(void **state)
{
	struct lab *lab = *state;
	struct sl_broker_nat_flow f = flow_n();
	struct sl_broker_nat_flow over = flow_n();
	uint64_t id;

	f.is_rough = 1;
	f.start_ns -= 5 * SECOND;
	tell(lab, 7, &f);
	UNTIL(lab, WAIT_MS, n_active(lab) == 1);
	id = only_row(lab)->id;
	kill_broker(lab);
	start_broker(lab);
	over.is_adopted = over.is_rough = 1;
	sl_addr_set_port(&over.client, 2);
	over.is_over = 1;
	over.end_ns = over.start_ns - 5 * SECOND; /* its line has been written */
	over.reason = SL_REASON_NORMAL;
	over.start_ns = real_ns();
	tell(lab, over.start_ns, &over);
	f.is_adopted = 1;
	f.start_ns += 6 * SECOND;
	f.bytes[SL_CLIENT] = 9;
	tell(lab, over.start_ns + 1, &f);
	UNTIL(lab, WAIT_MS, bytes_up(lab) == 9);
	assert_int_equal(lab->row.id, id);
	assert_in_range(lab->row.age_ms, 5000, 9000); /* the first idea was the better one */
	assert_int_equal(n_total(lab), 1);

	/* but a begin that a broker hears is that of another one */
	kill_broker(lab);
	start_broker(lab);
	f.is_adopted = 0;
	f.start_ns = real_ns();
	tell(lab, f.start_ns, &f);
	UNTIL(lab, WAIT_MS, n_active(lab) == 2);
}

/* Told to a process that came later, by a broker that had only heard of its begin. */
static void the_begin_is_told_better_at_an_upgrade(void **state)
{
	struct lab *lab = *state;
	struct sl_broker_nat_flow f = flow_n();

	f.is_adopted = f.is_rough = 1;
	tell(lab, 8, &f);
	UNTIL(lab, WAIT_MS, n_active(lab) == 1);
	kill_broker(lab);
	(void)usleep(20000);
	start_broker(lab);
	f.start_ns -= SECOND / 100;
	f.is_rough = 0;
	tell_end(lab, real_ns(), &f, SL_REASON_NORMAL);
	UNTIL(lab, WAIT_MS, n_lines(lab, "client_reason=normal ") == 1);
	assert_int_equal(n_active(lab), 0);
}

/* The one that ended is told of late; both count, although the kernel allows only two at a time. */
static void limits_count_and_do_not_refuse(void **state)
{
	struct lab *lab = *state;

	for (uint64_t i = 1; i <= 3; i++) {
		struct sl_broker_nat_flow f = flow_n();

		sl_addr_set_port(&f.client, (uint16_t)(1000 + i));
		tell(lab, i, &f);
	}
	UNTIL(lab, WAIT_MS, n_active(lab) == 3);
	assert_int_equal(route_of(lab, "n")->active, 3);
	assert_int_equal(totals_of(lab).active, 3);
	assert_int_equal(totals_of(lab).rejected, 0);
}

static uint64_t n_of_target(struct lab *lab, const char *target)
{
	const struct sl_conn_filter filter = { .target = target };

	survey(lab, &filter);
	return lab->n_rows;
}

static void targets_are_recognized(void **state)
{
	struct lab *lab = *state;
	struct sl_broker_nat_flow f = flow_n();

	tell(lab, 1, &f);
	f = flow("dns", "192.0.2.1:1", "10.0.0.1:5305", "10.0.0.8:5305"); /* 1:1 */
	f.is_udp = 1;
	tell(lab, 2, &f);
	UNTIL(lab, WAIT_MS, n_active(lab) == 2);
	assert_int_equal(n_of_target(lab, "10.0.0.6:80"), 1);
	assert_int_equal(n_of_target(lab, "10.0.0.5:80"), 0);
	assert_int_equal(n_of_target(lab, "10.0.0.8"), 1);

	/* of a configuration that this process has not seen: by its address */
	f = flow("n", "192.0.2.1:2", "10.0.0.1:80", "10.0.0.66:80");
	f.is_adopted = 1;
	tell(lab, 3, &f);
	UNTIL(lab, WAIT_MS, n_active(lab) == 3);
	assert_int_equal(n_of_target(lab, "10.0.0.66:80"), 1);
	assert_int_equal(n_of_target(lab, "10.0.0.66:81"), 0);
}

/* Bytes that another process has counted are shown, and not counted again. */
static void found_by_a_later_process(void **state)
{
	struct lab *lab = *state;
	struct sl_broker_nat_flow f = flow_n();

	f.is_adopted = 1;
	f.start_ns -= 60 * SECOND;
	f.bytes[SL_CLIENT] = 1000;
	tell(lab, 1, &f);
	UNTIL(lab, WAIT_MS, n_active(lab) == 1);
	assert_int_equal(bytes_up(lab), 1000);
	assert_int_equal(route_of(lab, "n")->bytes_up, 0);
	assert_int_equal(totals_of(lab).accepted, 0);
	f.bytes[SL_CLIENT] = 1200;
	tell(lab, 1, &f);
	UNTIL(lab, WAIT_MS, bytes_up(lab) == 1200);
	assert_int_equal(route_of(lab, "n")->bytes_up, 200);

	/* one whose begin the broker alone has missed is counted whole */
	f = flow_n();
	f.is_adopted = 1;
	f.bytes[SL_BACKEND] = 77;
	tell_end(lab, 2, &f, SL_REASON_NORMAL);
	UNTIL(lab, WAIT_MS, n_total(lab) == 2);
	assert_int_equal(route_of(lab, "n")->bytes_down, 77);
	assert_int_equal(totals_of(lab).accepted, 1);
}

/* ---- kills ---- */

static void a_kill_is_said_once(void **state)
{
	struct lab *lab = *state;
	struct sl_broker_nat_flow f = flow_n();
	struct sl_broker_msg msg;

	tell(lab, 9, &f);
	UNTIL(lab, WAIT_MS, n_active(lab) == 1);
	kill_all(lab);
	hears_kill(lab, 9);
	kill_all(lab); /* which is not open for anybody who asks */
	assert_int_equal(lab->n_rows, 0);
	UNTIL(lab, WAIT_MS, n_lines(lab, "client_reason=killed backend_reason=killed\n") == 1);
	assert_int_equal(n_active(lab), 0);
	f.bytes[SL_CLIENT] = 5; /* on its way when it was killed, and for more than three seconds */
	tell(lab, 9, &f);
	tell_end(lab, 9, &f, SL_REASON_NFTABLES_CLOSED);
	f = flow_n(); /* a new one of the same names */
	tell(lab, 10, &f);
	UNTIL(lab, WAIT_MS, n_active(lab) == 1);
	assert_int_equal(n_total(lab), 2);
	assert_int_equal(n_lines(lab, " access: "), 1);
	assert_false(hear_on(lab, lab->broker, 50, &msg));
}

/* What has passed since the last dump comes with the end of the entry. */
static void a_kill_brings_the_last_bytes(void **state)
{
	struct lab *lab = *state;
	struct sl_broker_nat_flow f = flow_n();

	f.bytes[SL_CLIENT] = 10;
	tell(lab, 9, &f);
	UNTIL(lab, WAIT_MS, n_active(lab) == 1);
	kill_all(lab);
	hears_kill(lab, 9);
	assert_int_equal(n_lines(lab, " access: "), 0);
	f.bytes[SL_CLIENT] = 7000;
	tell(lab, 9, &f);
	f.bytes[SL_BACKEND] = 90000;
	tell_end(lab, 9, &f, SL_REASON_NFTABLES_CLOSED);
	UNTIL(lab, WAIT_MS, n_active(lab) == 0);
	UNTIL(lab, WAIT_MS, n_lines(lab, " access: ") == 1);
	assert_int_equal(n_lines(lab, " up=7000 down=90000 client_reason=killed "
				      "backend_reason=killed\n"),
			 1);
	assert_int_equal(route_of(lab, "n")->bytes_up, 7000);
	assert_int_equal(lab->route.bytes_down, 90000);
	assert_int_equal(lab->route.ended[SL_ENGINE_NFTABLES][SL_BACKEND][SL_REASON_KILLED], 1);
	assert_int_equal(totals_of(lab).active, 0);
}

/* The process ends before that word has come. */
static void a_kill_and_the_end_of_the_process(void **state)
{
	struct lab *lab = *state;
	struct sl_broker_nat_flow f = flow_n();

	tell(lab, 9, &f);
	UNTIL(lab, WAIT_MS, n_active(lab) == 1);
	kill_all(lab);
	sl_proxy_free(lab->proxy);
	assert_int_equal(n_lines(lab, "client_reason=killed "), 1);
	lab->proxy = NULL;
}

/* A broker that died before it read that is no excuse. */
static void a_kill_nobody_read(void **state)
{
	struct lab *lab = *state;
	struct sl_broker_nat_flow f = flow_n();

	tell(lab, 9, &f);
	UNTIL(lab, WAIT_MS, n_active(lab) == 1);
	kill_all(lab);
	kill_broker(lab);
	start_broker(lab);
	f.is_adopted = 1;
	tell(lab, 500, &f);
	hears_kill(lab, 500);
	f.bytes[SL_CLIENT] = 17;
	tell_end(lab, 500, &f, SL_REASON_NFTABLES_CLOSED);
	UNTIL(lab, WAIT_MS, n_active(lab) == 0);
	UNTIL(lab, WAIT_MS, n_lines(lab, " up=17 ") == 1);
	assert_int_equal(n_total(lab), 1);

	/* and one that is killed while there is none */
	f = flow_n();
	tell(lab, 501, &f);
	UNTIL(lab, WAIT_MS, n_active(lab) == 1);
	kill_broker(lab);
	kill_all(lab);
	UNTIL(lab, WAIT_MS, n_active(lab) == 0);
	start_broker(lab);
	f.is_adopted = 1;
	tell(lab, 800, &f);
	hears_kill(lab, 800);
	tell_end(lab, 800, &f, SL_REASON_NFTABLES_CLOSED);
	f = flow_n();
	tell(lab, 801, &f);
	UNTIL(lab, WAIT_MS, n_active(lab) == 1);
	UNTIL(lab, WAIT_MS, n_lines(lab, "killed backend_reason=killed\n") == 2);
	assert_int_equal(n_lines(lab, " access: "), 2);
}

/* ---- brokers that die ---- */

static void another_broker_goes_on(void **state)
{
	struct lab *lab = *state;
	struct sl_broker_nat_flow f = flow_n();
	uint64_t id;

	f.bytes[SL_CLIENT] = 10;
	tell(lab, 9, &f);
	UNTIL(lab, WAIT_MS, n_active(lab) == 1);
	id = only_row(lab)->id;
	kill_broker(lab);
	start_broker(lab);
	f.is_adopted = 1;
	f.bytes[SL_CLIENT] = 30;
	tell(lab, 777, &f);
	UNTIL(lab, WAIT_MS, bytes_up(lab) == 30);
	assert_int_equal(lab->row.id, id);
	assert_int_equal(n_total(lab), 1);
	assert_int_equal(route_of(lab, "n")->bytes_up, 30);
	kill_all(lab);
	hears_kill(lab, 777);
	UNTIL(lab, WAIT_MS, n_lines(lab, " access: ") == 1);
}

/* Its entry stays for minutes, and the next broker finds it. */
static void what_was_over_is_not_news(void **state)
{
	struct lab *lab = *state;
	struct sl_broker_nat_flow f = flow_n();
	struct sl_broker_nat_flow open = flow_n();
	struct sl_broker_nat_flow fresh = flow_n();

	sl_addr_set_port(&open.client, 2);
	sl_addr_set_port(&fresh.client, 3);
	f.start_ns -= 20 * SECOND;
	f.is_over = 1;
	f.end_ns = f.start_ns + SECOND;
	f.reason = SL_REASON_NORMAL;
	tell(lab, 1, &f);
	tell(lab, 2, &open);
	UNTIL(lab, WAIT_MS, n_total(lab) == 2);
	kill_broker(lab);
	turn(lab);
	(void)usleep(20000);
	fresh.start_ns = real_ns();
	start_broker(lab);
	f.is_adopted = open.is_adopted = fresh.is_adopted = 1;
	tell(lab, real_ns(), &f);                               /* a line of it has been written */
	tell_end(lab, real_ns() + 1, &open, SL_REASON_NORMAL);  /* the record waits for this */
	tell_end(lab, real_ns() + 2, &fresh, SL_REASON_NORMAL); /* while nobody was there */
	UNTIL(lab, WAIT_MS, n_total(lab) == 3);
	assert_int_equal(n_active(lab), 0);
	UNTIL(lab, WAIT_MS, n_lines(lab, " access: ") == 3);
	assert_int_equal(n_lines(lab, "client=192.0.2.1:1000 "), 1);
	assert_int_equal(n_lines(lab, "client=192.0.2.1:2 "), 1);
	assert_int_equal(n_lines(lab, "client=192.0.2.1:3 "), 1);
}

/* 35 seconds, of real time. */
static void in_doubt_for_long(void **state)
{
	struct lab *lab = *state;
	struct sl_broker_nat_flow gone = flow_n();
	struct sl_broker_nat_flow there =
		flow("short", "192.0.2.9:1", "10.0.0.1:81", "10.0.0.7:81");
	struct sl_broker_msg msg;

	gone.bytes[SL_CLIENT] = 100;
	tell(lab, 1, &gone);
	tell(lab, 2, &there);
	UNTIL(lab, WAIT_MS, n_active(lab) == 2);
	kill_broker(lab);
	start_broker(lab);
	/* nobody can tell that it is silent */
	for (uint64_t until_ms = sl_clock_ms() + 10000; sl_clock_ms() < until_ms;)
		turn(lab);
	assert_int_equal(n_active(lab), 2);
	there.is_adopted = 1;
	tell(lab, 102, &there);
	UNTIL(lab, 30000, n_lines(lab, "crash_recovered backend_reason=crash_recovered\n") == 1);
	assert_int_equal(n_lines(lab, "client=192.0.2.1:1000 "), 1);
	/* which is known to be silent */
	assert_int_equal(n_lines(lab, "client=192.0.2.9:1 "), 1);
	assert_int_equal(n_lines(lab, "client_reason=inactivity "), 1);
	assert_int_equal(n_active(lab), 0);
	hears_kill(lab, 102);
	assert_false(hear_on(lab, lab->broker, 50, &msg)); /* of the other nothing is known */

	/* it is found all the same: what it had carried is not counted again */
	gone.is_adopted = 1;
	gone.bytes[SL_CLIENT] = 150;
	tell(lab, 101, &gone);
	UNTIL(lab, WAIT_MS, n_active(lab) == 1);
	assert_int_equal(bytes_up(lab), 150);
	assert_int_equal(route_of(lab, "n")->bytes_up, 100);
	assert_int_equal(totals_of(lab).accepted, 2);
}

/* It ended while nobody looked, and holds up no drain. */
static void in_doubt_until_all_is_told(void **state)
{
	const struct sl_broker_msg all = { .type = SL_BROKER_NAT_TOLD };
	struct lab *lab = *state;
	struct sl_broker_nat_flow gone = flow_n();
	struct sl_broker_nat_flow there = flow_n();

	sl_addr_set_port(&there.client, 2);
	tell(lab, 1, &gone);
	tell(lab, 2, &there);
	UNTIL(lab, WAIT_MS, n_active(lab) == 2);
	kill_broker(lab);
	start_broker(lab);
	there.is_adopted = 1;
	there.bytes[SL_CLIENT] = 7;
	tell(lab, 102, &there);
	UNTIL(lab, WAIT_MS, route_of(lab, "n")->bytes_up == 7);
	assert_int_equal(n_active(lab), 2);
	assert_int_equal(sl_broker_send(lab->broker, &all, NULL, 0), 0);
	UNTIL(lab, WAIT_MS, n_active(lab) == 1);
	UNTIL(lab, WAIT_MS, n_lines(lab, "crash_recovered backend_reason=crash_recovered\n") == 1);
	assert_int_equal(n_lines(lab, "client=192.0.2.1:1000 "), 1);
	/* and again, when nothing is in doubt */
	assert_int_equal(sl_broker_send(lab->broker, &all, NULL, 0), 0);
	there.bytes[SL_CLIENT] = 8;
	tell(lab, 102, &there);
	UNTIL(lab, WAIT_MS, route_of(lab, "n")->bytes_up == 8);
	assert_int_equal(n_active(lab), 1);
}

/* ---- routes ---- */

static void a_route_that_comes_later(void **state)
{
	struct lab *lab = *state;
	struct sl_broker_nat_flow f = flow("late", "192.0.2.1:1", "10.0.0.1:83", "10.0.0.9:83");
	struct sl_broker_nat_flow over = f;

	sl_addr_set_port(&over.client, 2);
	f.bytes[SL_CLIENT] = 5;
	tell(lab, 1, &f);
	tell_end(lab, 2, &over, SL_REASON_NORMAL);
	f.bytes[SL_CLIENT] = 6;
	tell(lab, 1, &f);
	f = flow_n();
	tell(lab, 3, &f);
	UNTIL(lab, WAIT_MS, n_active(lab) == 1); /* which comes behind the others */
	assert_int_equal(n_lines(lab, " access: "), 0);
	apply(lab, late_text, 2);
	assert_int_equal(n_active(lab), 2);
	assert_int_equal(route_of(lab, "late")->total, 2);
	assert_int_equal(route_of(lab, "late")->active, 1);
	assert_int_equal(route_of(lab, "late")->bytes_up, 6);
	UNTIL(lab, WAIT_MS, n_lines(lab, "route=late ") == 1);
}

static void a_route_that_never_comes(void **state)
{
	struct lab *lab = *state;
	struct sl_broker_nat_flow f = flow("gone", "192.0.2.1:1", "10.0.0.1:83", "10.0.0.9:83");
	struct sl_broker_nat_flow over = f;
	struct sl_broker_msg msg;

	sl_addr_set_port(&over.client, 2);
	over.bytes[SL_BACKEND] = 12;
	tell(lab, 1, &f);
	tell_end(lab, 2, &over, SL_REASON_ECONNRESET);
	UNTIL(lab, 10000, n_lines(lab, " access: ") == 1);
	assert_int_equal(n_lines(lab, "client=192.0.2.1:2 via=- route=gone engine=nftables/"), 1);
	assert_int_equal(n_lines(lab, "down=12 client_reason=econnreset "), 1);
	assert_int_equal(totals_of(lab).no_route_ended[SL_REASON_ECONNRESET], 1);
	assert_int_equal(totals_of(lab).ended[SL_BACKEND][SL_REASON_ECONNRESET], 1);
	/* the other goes on, and is told of at its end */
	assert_int_equal(n_active(lab), 0);
	assert_false(hear_on(lab, lab->broker, 50, &msg));
	tell_end(lab, 1, &f, SL_REASON_NORMAL);
	UNTIL(lab, WAIT_MS, n_lines(lab, "client=192.0.2.1:1 ") == 1);
}

static void a_route_that_goes(void **state)
{
	struct lab *lab = *state;
	struct sl_broker_nat_flow f = flow("late", "192.0.2.1:1", "10.0.0.1:83", "10.0.0.9:83");

	apply(lab, late_text, 2);
	tell(lab, 1, &f);
	UNTIL(lab, WAIT_MS, n_active(lab) == 1);
	apply(lab, conf_text, 3);
	assert_string_equal(only_row(lab)->route, "late");
	f.bytes[SL_CLIENT] = 9;
	tell_end(lab, 1, &f, SL_REASON_NORMAL);
	UNTIL(lab, WAIT_MS, n_lines(lab, "route=late ") == 1);
	assert_int_equal(n_lines(lab, " up=9 "), 1);
	/* one that came in before the kernel's rules went */
	f = flow("late", "192.0.2.1:2", "10.0.0.1:83", "10.0.0.9:83");
	tell(lab, 2, &f);
	UNTIL(lab, WAIT_MS, n_active(lab) == 1);
	assert_string_equal(only_row(lab)->route, "late");
}

/* A port of NAT is none of the daemon's. */
static void nat_routes_are_not_matched(void **state)
{
	struct lab *lab = *state;
	struct sl_question q = { .port = 80 };
	struct sl_explanation x;

	assert_int_equal(sl_addr_parse_ip("10.0.0.1", &q.local), 0);
	assert_int_equal(sl_proxy_explain(lab->proxy, &q, &x), 0);
	assert_string_equal(x.route->name, "n");
	assert_int_equal(x.engine, SL_ENGINE_NFTABLES);
	assert_int_equal(x.engine_reason, SL_WHY_CONFIGURED);
	assert_int_equal(x.verdict, SL_REASON_NONE);
	assert_null(x.target); /* one of two, and the kernel chooses */
	assert_int_equal(x.n_usable, 2);
	assert_string_equal(x.usable[1], "10.0.0.6:80");
	assert_string_equal(x.target_why, "the kernel chooses: by turns");
	assert_false(x.is_listening); /* nobody has said that the rules are there */
	assert_false(x.needs_hello);
	assert_int_equal(x.n_candidates, 1);
	sl_explanation_done(&x);

	assert_int_equal(sl_addr_parse_ip("10.0.0.2", &q.local), 0);
	assert_int_equal(sl_proxy_explain(lab->proxy, &q, &x), 0);
	assert_null(x.route);
	assert_int_equal(x.verdict, SL_REASON_NO_ROUTE);
	sl_explanation_done(&x);

	q = (struct sl_question){ .port = 5303 };
	assert_int_equal(sl_proxy_explain(lab->proxy, &q, &x), 0);
	assert_null(x.route); /* TCP */
	assert_non_null(strstr(x.hint, "--protocol udp"));
	assert_int_equal(x.n_candidates, 0);
	sl_explanation_done(&x);
	q.is_udp = true;
	assert_int_equal(sl_proxy_explain(lab->proxy, &q, &x), 0);
	assert_string_equal(x.route->name, "dns");
	assert_string_equal(x.target, "10.0.0.8");
	sl_explanation_done(&x);
	q.port = 84;
	assert_int_equal(sl_proxy_explain(lab->proxy, &q, &x), 0);
	assert_null(x.route);
	assert_non_null(strstr(x.hint, "--protocol tcp"));
	sl_explanation_done(&x);
	q.is_udp = false;
	assert_int_equal(sl_proxy_explain(lab->proxy, &q, &x), 0);
	assert_string_equal(x.route->name, "relay");
	assert_int_equal(x.engine, SL_ENGINE_RELAY);
	sl_explanation_done(&x);
}

static void is_given(struct lab *lab, const char *client, const char *target, const char *why)
{
	struct sl_question q = { .port = 80 };
	struct sl_explanation x;

	assert_int_equal(sl_addr_parse_ip(client, &q.client), 0);
	assert_int_equal(sl_proxy_explain(lab->proxy, &q, &x), 0);
	assert_int_equal(x.verdict, target ? SL_REASON_NONE : SL_REASON_BACKEND_DOWN);
	if (target)
		assert_string_equal(x.target, target);
	else
		assert_null(x.target);
	assert_non_null(strstr(x.target_why, why));
	sl_explanation_done(&x);
}

/* Each family has targets and backups of its own; NAT does not lead from one to the other. */
static void explained_as_the_rules_have_it(void **state)
{
	struct lab *lab = *state;

	apply(lab,
	      "version: 1\nroutes:\n  - { name: n, engine: nftables, match: { ports: 80 }, "
	      "forward: { "
	      "targets: [ { address: \"10.0.0.5:80\" }, { address: \"10.0.0.6:80\", backup: true "
	      "}, "
	      "{ address: \"[2001:db8::7]:80\", backup: true } ] } }\n",
	      2);
	is_given(lab, "192.0.2.1", "10.0.0.5:80", "only one");
	is_given(lab, "2001:db8::1", "[2001:db8::7]:80", "a backup");
	apply(lab,
	      "version: 1\nroutes:\n  - { name: n, engine: nftables, match: { ports: 80 }, "
	      "forward: "
	      "\"10.0.0.5:80\" }\n",
	      3);
	is_given(lab, "192.0.2.1", "10.0.0.5:80", "the only one");
	is_given(lab, "2001:db8::1", NULL, "family");
	apply(lab,
	      "version: 1\nroutes:\n  - { name: n, engine: nftables, match: { ports: 80 }, "
	      "forward: { "
	      "targets: [ { address: \"10.0.0.5:80\", weight: 0 } ] } }\n",
	      4);
	is_given(lab, "192.0.2.1", NULL, "no target has weight");
}

/* ---- deadlines ---- */

static void silence_ends_it(void **state)
{
	struct lab *lab = *state;
	struct sl_broker_nat_flow f = flow("short", "192.0.2.9:1", "10.0.0.1:81", "10.0.0.7:81");
	uint64_t begun_ms = sl_clock_ms();

	tell(lab, 4, &f);
	UNTIL(lab, WAIT_MS, n_active(lab) == 1);
	hears_kill(lab, 4);
	UNTIL(lab, WAIT_MS, n_lines(lab, "client_reason=inactivity ") == 1);
	/* for so long a packet may have passed unseen */
	assert_true(sl_clock_ms() - begun_ms >= 6000);
}

static void on_drained(void *arg)
{
	((struct lab *)arg)->done = true;
}

/* Where dumps are far apart, what is told of a busy flow is old. */
static void silence_of_a_slow_broker_is_none(void **state)
{
	struct lab *lab = *state;
	struct sl_broker_nat_flow f = flow("short", "192.0.2.9:1", "10.0.0.1:81", "10.0.0.7:81");
	const struct sl_broker_msg slow = { .type = SL_BROKER_NAT_STATUS,
					    .nat_status = { .is_on = 1, .lag_ms = 8000 } };
	struct sl_broker_msg msg;

	assert_int_equal(sl_broker_send(lab->control, &slow, NULL, 0), 0);
	tell(lab, 4, &f);
	UNTIL(lab, WAIT_MS, n_active(lab) == 1);
	assert_false(hear_on(lab, lab->broker, 7500, &msg));
	hears_kill(lab, 4);
}

static void a_drain_ends_it(void **state)
{
	struct lab *lab = *state;
	struct sl_broker_nat_flow f = flow("short", "192.0.2.9:1", "10.0.0.1:81", "10.0.0.7:81");
	uint64_t first;

	tell(lab, 4, &f);
	UNTIL(lab, WAIT_MS, n_active(lab) == 1);
	sl_proxy_drain(lab->proxy, false, on_drained, lab);
	sl_addr_set_port(&f.client, 2);
	tell(lab, 5, &f); /* begins in the middle of it */
	UNTIL(lab, WAIT_MS, lab->done);
	assert_int_equal(n_active(lab), 0);
	first = killed(lab);
	assert_true(first == 4 || first == 5);
	hears_kill(lab, 9 - first);
	UNTIL(lab, WAIT_MS, n_lines(lab, "client_reason=shutdown ") == 2);
}

/* Of datagrams no end will come: those that are silent are not waited for. */
static void silent_datagrams_do_not_hold_up_the_end(void **state)
{
	struct lab *lab = *state;
	struct sl_broker_nat_flow f = flow("dns", "192.0.2.9:1", "10.0.0.1:5300", "10.0.0.8:5300");
	uint64_t begun_ms = sl_clock_ms();

	f.is_udp = 1;
	tell(lab, 4, &f);
	UNTIL(lab, WAIT_MS, n_active(lab) == 1);
	sl_proxy_drain(lab->proxy, false, on_drained, lab);
	UNTIL(lab, 12000, lab->done);                  /* of the 30 s there are */
	assert_true(sl_clock_ms() - begun_ms >= 6000); /* a packet may have passed unseen */
	hears_kill(lab, 4);
	UNTIL(lab, WAIT_MS, n_lines(lab, "client_reason=drained ") == 1);
}

/* Another process has them now, or the rules stay. */
static void lets_go(struct lab *lab, bool hands_on)
{
	struct sl_broker_nat_flow f = flow_n();
	struct sl_broker_msg msg;

	tell(lab, 4, &f);
	UNTIL(lab, WAIT_MS, n_active(lab) == 1);
	sl_proxy_drain(lab->proxy, hands_on, on_drained, lab);
	UNTIL(lab, 500, lab->done); /* at once */
	assert_int_equal(n_active(lab), 0);
	f.is_adopted = 1;
	tell(lab, 4, &f);
	assert_false(hear_on(lab, lab->broker, 100, &msg));
	assert_int_equal(n_active(lab), 0);
	assert_int_equal(n_lines(lab, " access: "), 0);
	/* the next process hears only of what lives: this end is told here or nowhere */
	f.is_adopted = 0;
	f.bytes[SL_CLIENT] = 77;
	tell_end(lab, 4, &f, SL_REASON_NORMAL);
	UNTIL(lab, WAIT_MS, n_lines(lab, " access: ") == 1);
	assert_int_equal(n_active(lab), 0);
}

/* Its line is there already. */
static void what_was_killed_before_an_upgrade(void **state)
{
	struct lab *lab = *state;
	struct sl_broker_nat_flow f = flow_n();

	tell(lab, 4, &f);
	UNTIL(lab, WAIT_MS, n_active(lab) == 1);
	kill_all(lab);
	hears_kill(lab, 4);
	sl_proxy_drain(lab->proxy, true, on_drained, lab);
	UNTIL(lab, WAIT_MS, lab->done); /* it waits for the last word, not for long */
	UNTIL(lab, WAIT_MS, n_lines(lab, "client_reason=killed ") == 1);
	tell_end(lab, 4, &f, SL_REASON_NFTABLES_CLOSED);
	sl_addr_set_port(&f.client, 2000);
	tell_end(lab, 5, &f, SL_REASON_NORMAL); /* read after it */
	UNTIL(lab, WAIT_MS, n_lines(lab, ":2000 ") == 1);
	assert_int_equal(n_lines(lab, ":1000 "), 1);
}

/* Over, but the route has not come: nobody else would write the line. */
static void what_waits_for_a_route_at_an_upgrade(void **state)
{
	struct lab *lab = *state;
	struct sl_broker_nat_flow f = flow("late", "192.0.2.1:1000", "10.0.0.1:83", "10.0.0.9:83");
	struct sl_broker_nat_flow other = flow_n();

	tell_end(lab, 4, &f, SL_REASON_NORMAL);
	tell(lab, 5, &other); /* read after it */
	UNTIL(lab, WAIT_MS, n_active(lab) == 1);
	sl_proxy_drain(lab->proxy, true, on_drained, lab);
	UNTIL(lab, 500, lab->done);
	UNTIL(lab, WAIT_MS, n_lines(lab, "route=late ") == 1);
	assert_int_equal(n_lines(lab, " access: "), 1);
}

static void an_upgrade_lets_go(void **state)
{
	lets_go(*state, true);
}

static void keep_on_exit_lets_go(void **state)
{
	struct lab *lab = *state;

	apply(lab, keeping_text, 2);
	lets_go(lab, false);
}

/* ---- the control thread ---- */

static void targets_that_are_down(void **state)
{
	struct lab *lab = *state;
	struct sl_broker_msg msg;

	apply(lab, checked_text, 2);
	hears_target(lab, 1);
	kill_broker(lab);
	start_broker(lab);
	hears_target(lab, 1); /* the next one is told, too */
	assert_false(hear_on(lab, lab->control, 300, &msg));
	apply(lab, conf_text, 3);
	hears_target(lab, 0); /* nobody checks it any more */
}

/* Whoever was told by a process before this one that it is down would wait for ever. */
static void targets_that_are_up(void **state)
{
	struct lab *lab = *state;
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t n = sizeof(a);
	struct sl_broker_msg msg;
	_cleanup_fd_ int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char text[2048], target[32];

	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &n), 0);
	assert_int_equal(listen(fd, 8), 0);
	(void)snprintf(target, sizeof(target), "127.0.0.1:%u", ntohs(a.sin_port));
	(void)snprintf(
		text, sizeof(text),
		"version: 1\nroutes:\n  - { name: up, engine: nftables, match: { ports: 82 }, "
		"forward: { targets: \"%s\", health: { every: 100ms, timeout: 50ms } } }\n",
		target);
	apply(lab, text, 2);
	assert_true(hear_on(lab, lab->control, WAIT_MS, &msg));
	assert_int_equal(msg.type, SL_BROKER_NAT_TARGET);
	assert_int_equal(msg.flag, 0);
	assert_string_equal(msg.nat_target.target, target);
	assert_false(hear_on(lab, lab->control, 300, &msg));
}

static void status_is_shown(void **state)
{
	struct lab *lab = *state;
	struct sl_broker_msg msg = { .type = SL_BROKER_NAT_STATUS,
				     .nat_status = { .is_on = 1, .n_routes = 3, .repairs = 2 } };
	struct sl_kernel_view k;
	struct sl_question q = { .port = 81 };
	struct sl_explanation x;

	strcpy(msg.nat_status.text, "3 routes in table inet sluice");
	assert_int_equal(sl_broker_send(lab->control, &msg, NULL, 0), 0);
	UNTIL(lab, WAIT_MS, (sl_proxy_kernel(lab->proxy, &k), k.nat.is_on));
	assert_true(k.is_linked);
	assert_int_equal(k.nat.repairs, 2);
	assert_string_equal(k.nat.text, "3 routes in table inet sluice");
	assert_int_equal(sl_proxy_explain(lab->proxy, &q, &x), 0);
	assert_true(x.is_listening);
	sl_explanation_done(&x);
	kill_broker(lab);
	UNTIL(lab, WAIT_MS, (sl_proxy_kernel(lab->proxy, &k), !k.is_linked));
	assert_int_equal(k.nat.is_on, 0);
}

/* ---- many ---- */

static void many_at_once(void **state)
{
	enum { N = 5000 };
	struct lab *lab = *state;
	struct sl_broker_nat_flow f = flow_n();
	const uint64_t start_ns = f.start_ns;
	uint64_t n_sent = 0;

	for (int pass = 0; pass < 3; pass++) {
		for (unsigned i = 0; i < N; i++) {
			struct sl_broker_msg msg = { .type = SL_BROKER_NAT_FLOW, .conn_id = i };
			int r;

			sl_addr_set_port(&f.client, (uint16_t)(1 + i));
			f.start_ns = start_ns + i;
			f.bytes[SL_CLIENT] = (uint64_t)(pass + 1) * i;
			f.is_over = pass == 2;
			f.end_ns = f.is_over ? real_ns() : 0;
			f.reason = f.is_over ? SL_REASON_NORMAL : 0;
			msg.nat_flow = f;
			while ((r = sl_broker_send(lab->broker, &msg, NULL, 0)) == -EAGAIN)
				turn(lab);
			assert_int_equal(r, 0);
			n_sent++;
		}
		if (pass < 2)
			UNTIL(lab, 20000, n_active(lab) == N);
	}
	UNTIL(lab, 20000, n_active(lab) == 0);
	assert_int_equal(n_sent, 3 * N);
	assert_int_equal(n_total(lab), N);
	assert_int_equal(route_of(lab, "n")->bytes_up, UINT64_C(3) * N * (N - 1) / 2);
	assert_int_equal(totals_of(lab).active, 0);
}

int main(void)
{
#define EACH(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
	const struct CMUnitTest tests[] = {
		EACH(from_begin_to_end),
		EACH(begin_and_end_at_once),
		EACH(the_begin_is_told_better),
		EACH(the_begin_is_told_better_by_another),
		EACH(the_clock_is_set_back),
		EACH(nobody_knows_the_begin),
		EACH(the_begin_is_told_better_at_an_upgrade),
		EACH(limits_count_and_do_not_refuse),
		EACH(targets_are_recognized),
		EACH(found_by_a_later_process),
		EACH(a_kill_is_said_once),
		EACH(a_kill_brings_the_last_bytes),
		EACH(a_kill_and_the_end_of_the_process),
		EACH(a_kill_nobody_read),
		EACH(another_broker_goes_on),
		EACH(what_was_over_is_not_news),
		EACH(a_route_that_comes_later),
		EACH(a_route_that_never_comes),
		EACH(a_route_that_goes),
		EACH(nat_routes_are_not_matched),
		EACH(explained_as_the_rules_have_it),
		EACH(silence_ends_it),
		EACH(silence_of_a_slow_broker_is_none),
		EACH(a_drain_ends_it),
		EACH(silent_datagrams_do_not_hold_up_the_end),
		EACH(an_upgrade_lets_go),
		EACH(what_was_killed_before_an_upgrade),
		EACH(what_waits_for_a_route_at_an_upgrade),
		EACH(keep_on_exit_lets_go),
		EACH(targets_that_are_down),
		EACH(targets_that_are_up),
		EACH(status_is_shown),
		EACH(many_at_once),
		EACH(in_doubt_for_long),
		EACH(in_doubt_until_all_is_told),
	};

	sl_log_setup(SL_LOG_ERROR, false, STDERR_FILENO);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
