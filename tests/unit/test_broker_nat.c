/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What proxies and the owner of the kernel's NAT say to each other, over real channels and with
 * flows of the real kernel, in a network namespace of its own.
 */
#include "conf_text.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "broker/server.h"
#include "broker/worries.h"
#include "netns.h"

#define WAIT_MS 20000
#define N_WORKERS 2
#define MAX_SEEN 8192
#define BACKEND 9001

struct seen {
	uint64_t serial;
	struct sl_broker_nat_flow flow; /* the last that was said */
};

/* A proxy: the ends of its channels. */
struct proxy {
	int fd[N_WORKERS + 1];
	bool is_deaf; /* workers do not read */
	struct seen *seen;
	size_t n_seen;
	struct sl_broker_nat_status status;
	unsigned n_status;
	unsigned n_told;       /* that these were all */
	struct sl_str worries; /* as told, part by part */
	unsigned n_worries;    /* whole ones */
	bool is_closed[N_WORKERS + 1];
};

struct lab {
	struct sl_loop *loop;
	struct sl_broker *broker;
	struct proxy proxy[2];
	int listener;
};

static int run(const char *command)
{
	return system(command);
}

/* Masquerading needs an address that is more than the host's own. */
static int set_up(void **state)
{
	(void)state;
	if (geteuid() != 0)
		return 0;
	return enter_netns() == 0 ? run("ip addr add 192.0.2.1/32 dev lo") : -1;
}

#define NEEDS_ROOT()                \
	do {                        \
		if (geteuid() != 0) \
			skip();     \
	} while (0)

static struct sl_nat_plan *plan_of(const char *text)
{
	_cleanup_(built_done) struct built b = build_text(text);
	_cleanup_(sl_str_done) struct sl_str why = { 0 };
	_cleanup_fd_ int fd = -1;
	struct sl_nat_plan *plan = NULL;

	if (b.r < 0)
		fail_msg("%s", sl_str_text(&b.diags.text));
	assert_int_equal(sl_nat_plan_pack(b.conf, NULL, false, &fd, &why), 0);
	assert_int_equal(sl_nat_plan_unpack(fd, &plan), 0);
	return plan;
}

#define ROUTES                                                                     \
	"version: 1\ndefaults: { engine: nftables }\nroutes:\n"                    \
	"  - { name: web, match: { ports: 8001 }, forward: \"127.0.0.1:9001\" }\n" \
	"  - { name: lb, match: { ports: 8002 }, forward: [\"127.0.0.1:9001\", "   \
	"\"127.0.0.1:9002\"] }\n"

static int listening(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET,
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
				 .sin_port = htons(BACKEND) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(fd, 4096), 0);
	return fd;
}

static int connected(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET,
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
				 .sin_port = htons(8001) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		fail_msg("%s", strerror(errno));
	return fd;
}

static uint16_t port_of(int fd)
{
	struct sockaddr_in a;
	socklen_t n = sizeof(a);

	assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &n), 0);
	return ntohs(a.sin_port);
}

static struct lab *start(void)
{
	struct lab *l = calloc(1, sizeof(*l));
	struct sl_broker_options options = { .proxy_uid = UINT32_MAX };
	struct sl_nat_plan *plan = plan_of(ROUTES);

	assert_non_null(l);
	assert_int_equal(sl_loop_new(&l->loop), 0);
	options.loop = l->loop;
	assert_int_equal(sl_broker_new(&options, &l->broker), 0);
	assert_false(sl_broker_can_take_nat(l->broker, plan));
	assert_int_equal(sl_broker_open_nat(l->broker, plan), 0);
	assert_true(sl_broker_can_take_nat(l->broker, plan));
	sl_broker_set_nat_plan(l->broker, plan);
	l->listener = listening();
	return l;
}

static void open_channel(struct lab *l, size_t which, unsigned worker)
{
	int p[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, p),
			 0);
	l->proxy[which].fd[worker] = p[0];
	assert_int_equal(sl_broker_add_channel(l->broker, which + 1, worker, N_WORKERS, p[1]), 0);
}

static void open_proxy(struct lab *l, size_t which)
{
	l->proxy[which].seen = calloc(MAX_SEEN, sizeof(struct seen));
	assert_non_null(l->proxy[which].seen);
	for (unsigned i = 0; i <= N_WORKERS; i++)
		open_channel(l, which, i);
}

static void close_proxy(struct lab *l, size_t which)
{
	for (unsigned i = 0; l->proxy[which].seen && i <= N_WORKERS; i++)
		sl_closep(&l->proxy[which].fd[i]);
	free(l->proxy[which].seen);
	sl_str_done(&l->proxy[which].worries);
	l->proxy[which] = (struct proxy){ 0 };
}

/* What waits in its queue is reset. */
static void end_backend(struct lab *l)
{
	(void)close(l->listener);
	l->listener = -1;
}

static void finish(struct lab *l)
{
	close_proxy(l, 0);
	close_proxy(l, 1);
	end_backend(l);
	sl_broker_stop_nat(l->broker);
	sl_broker_free(l->broker);
	sl_loop_free(l->loop);
	free(l);
}

static void note_flow(struct proxy *p, unsigned worker, const struct sl_broker_msg *msg)
{
	size_t i = 0;

	assert_int_equal(sl_broker_nat_worker(&msg->nat_flow, N_WORKERS), worker);
	while (i < p->n_seen && p->seen[i].serial != msg->conn_id)
		i++;
	assert_true(i < MAX_SEEN);
	p->n_seen += i == p->n_seen;
	p->seen[i] = (struct seen){ msg->conn_id, msg->nat_flow };
}

static void note_worries(struct proxy *p, const struct sl_broker_msg *msg)
{
	const struct sl_broker_part *w = &msg->nat_worries;

	if (w->at == 0)
		sl_str_clear(&p->worries);
	assert_int_equal(w->at, p->worries.len);
	sl_str_add(&p->worries, w->text, strnlen(w->text, sizeof(w->text)));
	p->n_worries += p->worries.len == msg->flag;
}

static void read_channel(struct proxy *p, unsigned worker)
{
	struct sl_broker_msg msg;
	int fds[SL_BROKER_MAX_FDS];
	int r;

	while ((r = sl_broker_recv(p->fd[worker], false, &msg, fds)) == 0) {
		if (msg.type == SL_BROKER_NAT_FLOW) {
			note_flow(p, worker, &msg);
		} else if (msg.type == SL_BROKER_NAT_STATUS) {
			assert_int_equal(worker, N_WORKERS);
			p->status = msg.nat_status;
			p->n_status++;
		} else if (msg.type == SL_BROKER_NAT_WORRIES) {
			assert_int_equal(worker, N_WORKERS);
			note_worries(p, &msg);
		} else if (msg.type == SL_BROKER_NAT_TOLD) {
			assert_true(worker < N_WORKERS);
			p->n_told++;
		} else {
			assert_true(msg.type == SL_BROKER_STATUS ||
				    msg.type == SL_BROKER_SOCKMAP_STATUS);
		}
	}
	p->is_closed[worker] = r == -EPIPE;
}

static void turn(struct lab *l)
{
	assert_true(sl_loop_turn(l->loop, 5) >= 0);
	for (size_t i = 0; i < SL_ARRAY_LEN(l->proxy); i++)
		for (unsigned k = 0; l->proxy[i].seen && k <= N_WORKERS; k++)
			if (l->proxy[i].fd[k] < 0)
				continue;
			else if (k == N_WORKERS || !l->proxy[i].is_deaf)
				read_channel(&l->proxy[i], k);
}

#define WAIT_FOR(l, cond)                                         \
	do {                                                      \
		uint64_t until_ = sl_clock_ms() + WAIT_MS;        \
		while (!(cond)) {                                 \
			if (sl_clock_ms() > until_)               \
				fail_msg("waited for %s", #cond); \
			turn(l);                                  \
		}                                                 \
	} while (0)

static bool is_worker(int client, unsigned worker)
{
	struct sl_broker_nat_flow f = { 0 };
	socklen_t n = sizeof(f.client);

	assert_int_equal(getsockname(client, &f.client.sa, &n), 0);
	assert_int_equal(sl_addr_parse("127.0.0.1:8001", &f.front), 0);
	assert_int_equal(sl_addr_parse("127.0.0.1:9001", &f.backend), 0);
	return sl_broker_nat_worker(&f, N_WORKERS) == worker;
}

static struct seen *find(struct proxy *p, uint16_t port)
{
	for (size_t i = 0; i < p->n_seen; i++)
		if (sl_addr_port(&p->seen[i].flow.client) == port)
			return &p->seen[i];
	return NULL;
}

static void tell(struct proxy *p, unsigned worker, struct sl_broker_msg msg)
{
	assert_int_equal(sl_broker_send(p->fd[worker], &msg, NULL, 0), 0);
}

static bool nft_says(const char *pattern)
{
	char command[256];

	(void)snprintf(command, sizeof(command),
		       "nft list table inet sluice 2>/dev/null | grep -q '%s'", pattern);
	return run(command) == 0;
}

/* ---- tests ---- */

static void flows_come_to_workers(void **state)
{
	struct lab *l;
	struct proxy *p;
	int client[8];

	(void)state;
	NEEDS_ROOT();
	l = start();
	p = &l->proxy[0];
	open_proxy(l, 0);
	WAIT_FOR(l, p->n_status > 0);
	assert_true(p->status.is_on);
	assert_int_equal(p->status.n_routes, 2);
	for (size_t i = 0; i < SL_ARRAY_LEN(client); i++)
		client[i] = connected();
	WAIT_FOR(l, p->n_seen == SL_ARRAY_LEN(client));
	for (size_t i = 0; i < SL_ARRAY_LEN(client); i++) {
		assert_non_null(find(p, port_of(client[i])));
		assert_string_equal(find(p, port_of(client[i]))->flow.route, "web");
	}
	WAIT_FOR(l, p->status.n_flows == SL_ARRAY_LEN(client));
	WAIT_FOR(l, p->n_told == N_WORKERS);
	/* whichever worker asks; numbers of nobody are passed over */
	tell(p, 0, (struct sl_broker_msg){ .type = SL_BROKER_NAT_KILL, .conn_id = 1 });
	tell(p, 1,
	     (struct sl_broker_msg){ .type = SL_BROKER_NAT_KILL, .conn_id = p->seen[0].serial });
	WAIT_FOR(l, p->seen[0].flow.is_over);
	assert_int_equal(p->seen[0].flow.reason, SL_REASON_NFTABLES_CLOSED);
	for (size_t i = 0; i < SL_ARRAY_LEN(client); i++)
		(void)close(client[i]);
	end_backend(l);
	WAIT_FOR(l, p->status.n_flows == 0);
	finish(l);
}

static void the_newest_is_told_of_all(void **state)
{
	struct lab *l;
	struct proxy *old, *new;
	int client, second;

	(void)state;
	NEEDS_ROOT();
	l = start();
	old = &l->proxy[0];
	new = &l->proxy[1];
	open_proxy(l, 0);
	WAIT_FOR(l, old->n_status > 0);
	client = connected();
	WAIT_FOR(l, find(old, port_of(client)));
	assert_false(find(old, port_of(client))->flow.is_adopted);
	open_proxy(l, 1);
	WAIT_FOR(l, find(new, port_of(client)));
	assert_true(find(new, port_of(client))->flow.is_adopted);
	assert_int_equal(find(new, port_of(client))->serial, find(old, port_of(client))->serial);
	second = connected();
	WAIT_FOR(l, find(new, port_of(second)));
	assert_null(find(old, port_of(second)));
	/* it was not to be: the one before has them again */
	close_proxy(l, 1);
	WAIT_FOR(l, find(old, port_of(second)));
	assert_true(find(old, port_of(second))->flow.is_adopted);
	/* with nobody there nothing is lost either */
	close_proxy(l, 0);
	for (int i = 0; i < 5; i++)
		turn(l);
	open_proxy(l, 0);
	WAIT_FOR(l, find(old, port_of(client)) && find(old, port_of(second)));
	(void)close(client);
	(void)close(second);
	finish(l);
}

/* Far more than a channel holds: what is not read is kept, and each flow is told to its end. */
static void a_deaf_worker_loses_nothing(void **state)
{
	static int client[1500];
	struct lab *l;
	struct proxy *p;
	size_t n_over;

	(void)state;
	NEEDS_ROOT();
	l = start();
	p = &l->proxy[0];
	open_proxy(l, 0);
	p->is_deaf = true;
	for (size_t i = 0; i < SL_ARRAY_LEN(client); i++) {
		client[i] = connected();
		if (i % 100 == 0)
			turn(l);
	}
	WAIT_FOR(l, p->status.ct_count >= SL_ARRAY_LEN(client)); /* it goes on for others */
	for (size_t i = 0; i < SL_ARRAY_LEN(client); i++)
		(void)close(client[i]);
	assert_int_equal(p->n_seen, 0);
	end_backend(l);
	turn(l);
	p->is_deaf = false;
	WAIT_FOR(l, p->n_seen == SL_ARRAY_LEN(client));
	do {
		uint64_t until_ms = sl_clock_ms() + WAIT_MS;

		n_over = 0;
		turn(l);
		for (size_t i = 0; i < p->n_seen; i++)
			n_over += p->seen[i].flow.is_over;
		assert_true(sl_clock_ms() < until_ms);
	} while (n_over < SL_ARRAY_LEN(client));
	WAIT_FOR(l, p->status.n_flows == 0);
	finish(l);
}

static void targets_are_for_the_control_thread(void **state)
{
	const struct sl_broker_msg down = { .type = SL_BROKER_NAT_TARGET,
					    .flag = 1,
					    .nat_target = { "lb", "127.0.0.1:9002" } };
	struct sl_broker_msg up = down;
	struct lab *l;
	struct proxy *p;

	(void)state;
	NEEDS_ROOT();
	l = start();
	p = &l->proxy[0];
	open_proxy(l, 0);
	assert_true(nft_says("127.0.0.1 . 9002"));
	tell(p, N_WORKERS, down);
	WAIT_FOR(l, !nft_says("127.0.0.1 . 9002"));
	up.flag = 0;
	tell(p, N_WORKERS, up);
	WAIT_FOR(l, nft_says("127.0.0.1 . 9002"));
	tell(p, 0, down);
	WAIT_FOR(l, p->is_closed[0]);
	assert_false(p->is_closed[1] || p->is_closed[N_WORKERS]);
	assert_true(nft_says("127.0.0.1 . 9002"));
	finish(l);
}

/* Begun and over while no proxy is there: the next one is told, once. */
static void nothing_is_lost_between_proxies(void **state)
{
	struct lab *l;
	struct proxy *p;
	int before, during;
	uint16_t ports[2];

	(void)state;
	NEEDS_ROOT();
	l = start();
	p = &l->proxy[0];
	open_proxy(l, 0);
	WAIT_FOR(l, p->n_status > 0);
	before = connected();
	WAIT_FOR(l, find(p, port_of(before)));
	close_proxy(l, 0);
	for (int i = 0; i < 5; i++)
		turn(l);
	during = connected();
	ports[0] = port_of(before);
	ports[1] = port_of(during);
	(void)close(before);
	(void)close(during);
	end_backend(l);
	/* until the dump that sees it has been made */
	for (uint64_t until_ms = sl_clock_ms() + 5000; sl_clock_ms() < until_ms;)
		turn(l);
	open_proxy(l, 0);
	for (int i = 0; i < 2; i++) {
		WAIT_FOR(l, find(p, ports[i]));
		assert_true(find(p, ports[i])->flow.is_over);
	}
	WAIT_FOR(l, p->status.n_flows == 0);
	finish(l);
}

/* One worker's channel is full, and then no more: the others hear of theirs again. */
static void a_worker_that_goes_stops_nobody(void **state)
{
	static int client[1500];
	struct lab *l;
	struct proxy *p;
	struct sl_broker_msg msg;
	int fds[SL_BROKER_MAX_FDS];
	int last;

	(void)state;
	NEEDS_ROOT();
	l = start();
	p = &l->proxy[0];
	open_proxy(l, 0);
	WAIT_FOR(l, p->n_status > 0);
	p->is_deaf = true;
	for (size_t i = 0; i < SL_ARRAY_LEN(client); i++) {
		client[i] = connected();
		if (i % 100 == 0) {
			turn(l);
			read_channel(p, 1);
		}
	}
	WAIT_FOR(l, p->status.ct_count >= SL_ARRAY_LEN(client));
	read_channel(p, 1);
	for (int i = 0; i < 5; i++)
		turn(l);
	assert_int_equal(sl_broker_recv(p->fd[1], false, &msg, fds), -EAGAIN);
	(void)shutdown(p->fd[0], SHUT_RDWR);
	(void)close(p->fd[0]);
	p->fd[0] = -1;
	p->is_deaf = false;
	do {
		last = connected();
		WAIT_FOR(l, find(p, port_of(last)) || !is_worker(last, 1));
	} while (!find(p, port_of(last)));
	for (size_t i = 0; i < SL_ARRAY_LEN(client); i++)
		(void)close(client[i]);
	(void)close(last);
	finish(l);
}

static bool worries(const struct proxy *p, const char *what)
{
	return strstr(sl_str_text(&p->worries), what);
}

/* Who is there, and who comes, is told what others' rules do; and that they do it no more. */
static void what_is_in_the_way_is_told(void **state)
{
	struct lab *l;
	struct proxy *p, *late;

	(void)state;
	NEEDS_ROOT();
	l = start();
	p = &l->proxy[0];
	late = &l->proxy[1];
	open_proxy(l, 0);
	WAIT_FOR(l, p->n_status > 0);
	assert_int_equal(p->n_worries, 0);
	/* long enough for several messages */
	assert_int_equal(
		run("for i in 1 2 3 4 5; do nft \"add table inet fw$i; add chain inet "
		    "fw$i in { type filter hook input priority $i; policy drop; }\"; done"),
		0);
	WAIT_FOR(l, worries(p, "table inet fw5, chain in: "));
	assert_true(p->worries.len > sizeof(((struct sl_broker_part *)NULL)->text));
	assert_true(worries(p, ": nft insert rule inet fw1 in ct status dnat accept\n"));
	open_proxy(l, 1);
	WAIT_FOR(l, late->n_worries > 0);
	assert_string_equal(sl_str_text(&late->worries), sl_str_text(&p->worries));
	assert_int_equal(run("for i in 1 2 3 4; do nft delete table inet fw$i; done; "
			     "nft insert rule inet fw5 in ct status dnat accept"),
			 0);
	WAIT_FOR(l, p->worries.len == 0 && late->worries.len == 0);
	/* without a route there is nothing to worry about */
	assert_int_equal(run("nft flush table inet fw5"), 0);
	WAIT_FOR(l, worries(p, "fw5"));
	sl_broker_set_nat_plan(l->broker, plan_of("version: 1\nroutes: []\n"));
	WAIT_FOR(l, p->worries.len == 0);
	finish(l);
}

static void their_text_is_bounded(void **state)
{
	_cleanup_(sl_str_done) struct sl_str from = { 0 }, to = { 0 };
	char line[2000];

	(void)state;
	sl_worries_bound("", &to);
	assert_int_equal(to.len, 0);
	sl_worries_bound("a\tb\x1b[1mc\x7f\nsecond: do it\n", &to);
	assert_string_equal(sl_str_text(&to), "a?b?[1mc?\nsecond: do it\n");
	sl_str_clear(&to);
	memset(line, 'x', sizeof(line));
	strcpy(line + sizeof(line) - 8, ": do it");
	for (int i = 0; i < 100; i++)
		sl_str_addf(&from, "%s\n", line);
	sl_worries_bound(sl_str_text(&from), &to);
	assert_true(to.len > 10000 && to.len <= SL_BROKER_WORRIES_MAX);
	assert_memory_equal(sl_str_text(&to), "xxxx", 4);
	assert_non_null(strstr(sl_str_text(&to), "x ... x"));
	assert_non_null(strstr(sl_str_text(&to), "x: do it\n"));
	assert_non_null(strstr(sl_str_text(&to), "\n85 more of the kind"));
}

int main(void)
{
	struct rlimit files;
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(flows_come_to_workers, set_up),
		cmocka_unit_test_setup(the_newest_is_told_of_all, set_up),
		cmocka_unit_test_setup(a_deaf_worker_loses_nothing, set_up),
		cmocka_unit_test_setup(nothing_is_lost_between_proxies, set_up),
		cmocka_unit_test_setup(a_worker_that_goes_stops_nobody, set_up),
		cmocka_unit_test_setup(targets_are_for_the_control_thread, set_up),
		cmocka_unit_test_setup(what_is_in_the_way_is_told, set_up),
		cmocka_unit_test(their_text_is_bounded),
	};

	/* more connections than the usual 1024 */
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
	return cmocka_run_group_tests_name("broker_nat", tests, NULL, NULL);
}
