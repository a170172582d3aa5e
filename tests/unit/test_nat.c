/* SPDX-License-Identifier: GPL-3.0-or-later */
/* WRAP: sl_ct_fill sl_nft_encode_probe sl_nft_build sl_ct_stream_delete_flow */
/* WRAP: sl_nft_table_remove sl_nft_table_read sl_ct_stream_each sl_nat_routes_plan */
/*
 * The owner of the kernel's NAT against the real kernel, each test in a network namespace of its
 * own with nothing but loopback: clients on 127.0.0.1 meet the output hook.
 */
#include "conf_text.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/clock.h"
#include "broker/nat_state.h"
#include "netns.h"
#include "nft/encode.h"
#include "nft/table.h"
#include "slow.h"

#define WAIT_MS (20000 * slow())
#define HEAD "version: 1\ndefaults: { engine: nftables }\n"
#define ROUTE(name, ports, forward) \
	"  - { name: " name ", match: { ports: " ports " }, forward: " forward " }\n"
#define UDP(name, port, forward)                                                                  \
	"  - { name: " name ", match: { ports: " port ", protocol: udp }, forward: " forward " }" \
	"\n"

/* A kernel without owners: whoever has the right changes our table. */
static bool is_old_kernel;

int __real_sl_nft_encode_probe(uint32_t table_flags, uint32_t generation, uint32_t seq,
			       struct sl_nft_batch *ret);
int __wrap_sl_nft_encode_probe(uint32_t table_flags, uint32_t generation, uint32_t seq,
			       struct sl_nft_batch *ret);
int __wrap_sl_nft_encode_probe(uint32_t table_flags, uint32_t generation, uint32_t seq,
			       struct sl_nft_batch *ret)
{
	if (is_old_kernel)
		table_flags |= 0x80; /* one that no kernel knows */
	return __real_sl_nft_encode_probe(table_flags, generation, seq, ret);
}

static unsigned n_builds;

int __real_sl_nft_build(const struct sl_nft_route *routes, size_t n,
			const struct sl_nft_common *common, struct sl_nft_ruleset **ret,
			struct sl_str *why);
int __wrap_sl_nft_build(const struct sl_nft_route *routes, size_t n,
			const struct sl_nft_common *common, struct sl_nft_ruleset **ret,
			struct sl_str *why);
int __wrap_sl_nft_build(const struct sl_nft_route *routes, size_t n,
			const struct sl_nft_common *common, struct sl_nft_ruleset **ret,
			struct sl_str *why)
{
	n_builds++;
	return __real_sl_nft_build(routes, n, common, ret, why);
}

static uint32_t ct_limit; /* 0: that of the kernel, which is the host's */

int __real_sl_ct_fill(uint32_t *count, uint32_t *max);
int __wrap_sl_ct_fill(uint32_t *count, uint32_t *max);
int __wrap_sl_ct_fill(uint32_t *count, uint32_t *max)
{
	int r = __real_sl_ct_fill(count, max);

	if (r == 0 && ct_limit)
		*max = ct_limit;
	return r;
}

static unsigned n_requests;

int __real_sl_ct_stream_delete_flow(struct sl_ct_stream *s, const struct sl_ct_flow *f);
int __wrap_sl_ct_stream_delete_flow(struct sl_ct_stream *s, const struct sl_ct_flow *f);
int __wrap_sl_ct_stream_delete_flow(struct sl_ct_stream *s, const struct sl_ct_flow *f)
{
	n_requests++;
	return __real_sl_ct_stream_delete_flow(s, f);
}

/* What is so when the table is about to go. */
static void (*before_removal)(void);
static int removal_error; /* and then it stays */

int __real_sl_nft_table_remove(struct sl_nft_table *t, struct sl_nft_report *report);
int __wrap_sl_nft_table_remove(struct sl_nft_table *t, struct sl_nft_report *report);
int __wrap_sl_nft_table_remove(struct sl_nft_table *t, struct sl_nft_report *report)
{
	if (before_removal)
		before_removal();
	*report = (struct sl_nft_report){ 0 };
	return removal_error ? removal_error : __real_sl_nft_table_remove(t, report);
}

static int read_error;

int __real_sl_nft_table_read(struct sl_nft_table *t, struct sl_nft_ruleset **ret);
int __wrap_sl_nft_table_read(struct sl_nft_table *t, struct sl_nft_ruleset **ret);
int __wrap_sl_nft_table_read(struct sl_nft_table *t, struct sl_nft_ruleset **ret)
{
	return read_error ? read_error : __real_sl_nft_table_read(t, ret);
}

/* Flows come to light with that dump, as when all events of them were lost. */
static uint64_t dark_until;

void __real_sl_ct_stream_each(struct sl_ct_stream *s, sl_ct_flow_fn fn, void *arg);
void __wrap_sl_ct_stream_each(struct sl_ct_stream *s, sl_ct_flow_fn fn, void *arg);
void __wrap_sl_ct_stream_each(struct sl_ct_stream *s, sl_ct_flow_fn fn, void *arg)
{
	struct sl_ct_stream_counts c;

	sl_ct_stream_get_counts(s, &c);
	if (c.dumps >= dark_until)
		__real_sl_ct_stream_each(s, fn, arg);
}

static int plan_error;

int __real_sl_nat_routes_plan(struct sl_nat_routes *r, const struct sl_nat_plan *plan,
			      uint64_t gone_after);
int __wrap_sl_nat_routes_plan(struct sl_nat_routes *r, const struct sl_nat_plan *plan,
			      uint64_t gone_after);
int __wrap_sl_nat_routes_plan(struct sl_nat_routes *r, const struct sl_nat_plan *plan,
			      uint64_t gone_after)
{
	return plan_error ? plan_error : __real_sl_nat_routes_plan(r, plan, gone_after);
}

#define NEEDS_ROOT()                \
	do {                        \
		if (geteuid() != 0) \
			skip();     \
	} while (0)

static int run(const char *fmt, ...) SL_PRINTF(1, 2);
static int run(const char *fmt, ...)
{
	char command[512];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(command, sizeof(command), fmt, ap);
	va_end(ap);
	return system(command);
}

/* Masquerading needs an address that is more than the host's own. */
static int set_up(void **state)
{
	(void)state;
	is_old_kernel = false;
	ct_limit = 0;
	before_removal = NULL;
	removal_error = read_error = plan_error = 0;
	dark_until = 0;
	if (geteuid() != 0)
		return 0;
	return enter_netns() == 0 ? run("ip addr add 192.0.2.1/32 dev lo") : -1;
}

static void *need(void *p)
{
	assert_non_null(p);
	return p;
}

/* ---- the one under test, and what it told ---- */

struct told {
	uint64_t serial;
	struct sl_broker_nat_flow flow; /* the last */
	unsigned n;
};

struct lab {
	struct sl_loop *loop;
	struct sl_nat *nat;
	struct told told[64];
	size_t n_told;
	size_t room;  /* messages until there is none */
	bool is_many; /* they are not kept */
	struct sl_broker_nat_status status;
	unsigned n_status;
};

static bool on_tell(void *arg, uint64_t serial, const struct sl_broker_nat_flow *flow)
{
	struct lab *l = arg;
	size_t i = 0;

	if (l->room == 0)
		return false;
	l->room--;
	if (l->is_many)
		return true;
	while (i < l->n_told && l->told[i].serial != serial)
		i++;
	assert_true(i < SL_ARRAY_LEN(l->told));
	l->n_told += i == l->n_told;
	l->told[i].serial = serial;
	l->told[i].flow = *flow;
	l->told[i].n++;
	return true;
}

static void on_status(void *arg, const struct sl_broker_nat_status *status)
{
	struct lab *l = arg;

	l->status = *status;
	l->n_status++;
}

static struct sl_nat_plan *plan_with(const char *text, bool is_draining)
{
	_cleanup_(built_done) struct built b = build_text(text);
	_cleanup_(sl_str_done) struct sl_str why = { 0 };
	_cleanup_fd_ int fd = -1;
	struct sl_nat_plan *plan = NULL;

	if (b.r < 0)
		fail_msg("%s", sl_str_text(&b.diags.text));
	assert_int_equal(sl_nat_plan_pack(b.conf, NULL, is_draining, &fd, &why), 0);
	assert_int_equal(sl_nat_plan_unpack(fd, &plan), 0);
	return plan;
}

static struct sl_nat_plan *plan_of(const char *text)
{
	return plan_with(text, false);
}

static void open_nat(struct lab *l, const char *text)
{
	const struct sl_nat_options options = {
		.loop = l->loop, .tell = on_tell, .changed = on_status, .arg = l
	};
	struct sl_nat_plan *plan = plan_of(text);

	assert_int_equal(sl_nat_new(&options, plan, &l->nat), 0);
	sl_nat_set_plan(l->nat, plan);
}

static struct lab *start(const char *text)
{
	struct lab *l = need(calloc(1, sizeof(*l)));

	l->room = SIZE_MAX;
	assert_int_equal(sl_loop_new(&l->loop), 0);
	if (text)
		open_nat(l, text);
	return l;
}

/* Another one takes its place. */
static void restart(struct lab *l, const char *text)
{
	sl_nat_free(l->nat);
	l->n_told = 0;
	l->nat = NULL;
	open_nat(l, text);
}

static void finish(struct lab *l)
{
	sl_nat_free(l->nat);
	sl_loop_free(l->loop);
	free(l);
}

static void set_plan(struct lab *l, const char *text)
{
	struct sl_nat_plan *plan = plan_of(text);

	assert_true(sl_nat_can_take(l->nat, plan));
	sl_nat_set_plan(l->nat, plan);
}

static void assert_on(const struct lab *l, uint32_t n_routes)
{
	struct sl_broker_nat_status s;

	sl_nat_get_status(l->nat, &s);
	if (!s.is_on || s.n_routes != n_routes)
		fail_msg("on %u, %u routes: %s", s.is_on, s.n_routes, s.text);
}

static void assert_off(const struct lab *l, const char *why)
{
	struct sl_broker_nat_status s;

	sl_nat_get_status(l->nat, &s);
	if (s.is_on || !strstr(s.text, why))
		fail_msg("on %u: %s; want: %s", s.is_on, s.text, why);
}

/* Turns until `cond` holds. */
#define WAIT_FOR(l, cond)                                              \
	do {                                                           \
		uint64_t until_ = sl_clock_ms() + WAIT_MS;             \
		while (!(cond)) {                                      \
			if (sl_clock_ms() > until_)                    \
				fail_msg("waited for %s", #cond);      \
			assert_true(sl_loop_turn((l)->loop, 20) >= 0); \
		}                                                      \
	} while (0)

static struct told *find_told(struct lab *l, uint16_t client_port)
{
	for (size_t i = 0; i < l->n_told; i++)
		if (sl_addr_port(&l->told[i].flow.client) == client_port)
			return &l->told[i];
	return NULL;
}

/* ---- peers ---- */

static struct sockaddr_in loopback(uint16_t port)
{
	return (struct sockaddr_in){ .sin_family = AF_INET,
				     .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
				     .sin_port = htons(port) };
}

static int bound(int type, uint16_t port)
{
	struct sockaddr_in a = loopback(port);
	int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	if (type == SOCK_STREAM)
		assert_int_equal(listen(fd, 64), 0);
	return fd;
}

/* -errno of connect() */
static int connected(int type, uint16_t port)
{
	struct sockaddr_in a = loopback(port);
	int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0)
		return fd;
	(void)close(fd);
	return -errno;
}

static uint16_t port_of(int fd)
{
	struct sockaddr_in a;
	socklen_t n = sizeof(a);

	assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &n), 0);
	return ntohs(a.sin_port);
}

/* Bytes from one to the other. */
static void assert_passes(int from, int to)
{
	struct pollfd p = { .fd = to, .events = POLLIN };
	char c;

	assert_int_equal(send(from, "x", 1, MSG_NOSIGNAL), 1);
	assert_int_equal(poll(&p, 1, WAIT_MS), 1);
	assert_int_equal(recv(to, &c, 1, 0), 1);
}

/* Without a word of this side. */
static void assert_reset(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	char c;

	assert_int_equal(poll(&p, 1, WAIT_MS), 1);
	assert_int_equal(recv(fd, &c, 1, 0), -1);
	assert_int_equal(errno, ECONNRESET);
}

static int accepted(int listener)
{
	struct pollfd p = { .fd = listener, .events = POLLIN };
	int fd;

	assert_int_equal(poll(&p, 1, WAIT_MS), 1);
	fd = accept(listener, NULL, NULL);
	assert_true(fd >= 0);
	return fd;
}

static bool nft_says(const char *pattern)
{
	return run("nft list table inet sluice 2>/dev/null | grep -q -- '%s'", pattern) == 0;
}

static bool is_sysctl(const char *name, int value)
{
	return run("[ \"$(cat /proc/sys/net/%s)\" = %d ]", name, value) == 0;
}

/* ---- tests ---- */

#define DNS(target) HEAD "routes:\n" UDP("dns", "8053", target)
#define WEB HEAD "routes:\n" ROUTE("web", "8001", "\"127.0.0.1:9001\"")

static void a_flow_has_its_record(void **state)
{
	struct lab *l;
	struct told *t;
	int listener, client, server;
	uint16_t port;
	char text[SL_ADDR_TEXT];

	(void)state;
	NEEDS_ROOT();
	listener = bound(SOCK_STREAM, 9001);
	l = start(WEB);
	assert_on(l, 1);
	assert_string_equal(l->status.text, "1 route in table inet sluice");
	client = connected(SOCK_STREAM, 8001);
	assert_true(client >= 0);
	server = accepted(listener);
	assert_passes(client, server);
	port = port_of(client);
	WAIT_FOR(l, find_told(l, port) && find_told(l, port)->flow.bytes[SL_CLIENT] > 0);
	t = find_told(l, port);
	assert_string_equal(t->flow.route, "web");
	assert_string_equal(sl_addr_format(&t->flow.front, text), "127.0.0.1:8001");
	assert_string_equal(sl_addr_format(&t->flow.backend, text), "127.0.0.1:9001");
	assert_false(t->flow.is_udp || t->flow.is_over || t->flow.is_adopted);
	assert_true(t->flow.is_established);
	WAIT_FOR(l, l->status.n_flows == 1);
	assert_true(l->status.ct_max > 0 && l->status.ct_count > 0);
	(void)close(server);
	(void)close(client);
	WAIT_FOR(l, t->flow.is_over);
	assert_int_equal(t->flow.reason, SL_REASON_NORMAL);
	assert_true(t->flow.end_ns >= t->flow.start_ns);
	WAIT_FOR(l, l->status.n_flows == 0);
	(void)close(listener);
	finish(l);
}

/* What is changed of the host is put back, by whoever ends it. */
static void settings_are_put_back(void **state)
{
	struct lab *l;

	(void)state;
	NEEDS_ROOT();
	assert_int_equal(run("echo 0 > /proc/sys/net/netfilter/nf_conntrack_acct; "
			     "echo 2 > /proc/sys/net/netfilter/nf_conntrack_events; "
			     "echo 1 > /proc/sys/net/netfilter/nf_conntrack_timestamp"),
			 0);
	l = start(WEB);
	assert_true(is_sysctl("netfilter/nf_conntrack_acct", 1));
	assert_true(is_sysctl("netfilter/nf_conntrack_events", 1));
	assert_true(is_sysctl("ipv4/conf/all/route_localnet", 1));
	restart(l, WEB); /* which did not change them */
	assert_true(nft_says("was_events_2"));
	sl_nat_stop(l->nat);
	assert_off(l, "stopped");
	assert_int_not_equal(run("nft list table inet sluice 2>/dev/null"), 0);
	assert_true(is_sysctl("netfilter/nf_conntrack_acct", 0));
	assert_true(is_sysctl("netfilter/nf_conntrack_events", 2));
	assert_true(is_sysctl("netfilter/nf_conntrack_timestamp", 1));
	assert_true(is_sysctl("ipv4/conf/all/route_localnet", 0));
	finish(l);
}

/* What somebody else has set since is not put back. */
static void settings_of_others_stay(void **state)
{
	struct lab *l;

	(void)state;
	NEEDS_ROOT();
	assert_int_equal(run("echo 0 > /proc/sys/net/netfilter/nf_conntrack_acct; "
			     "echo 2 > /proc/sys/net/netfilter/nf_conntrack_events; "
			     "echo 1 > /proc/sys/net/netfilter/nf_conntrack_timestamp"),
			 0);
	l = start(WEB);
	assert_int_equal(run("echo 0 > /proc/sys/net/netfilter/nf_conntrack_events; "
			     "echo 0 > /proc/sys/net/netfilter/nf_conntrack_timestamp"),
			 0);
	set_plan(l, WEB);
	/* theirs, not what was before */
	assert_false(nft_says("was_timestamp"));
	assert_int_equal(run("echo 1 > /proc/sys/net/netfilter/nf_conntrack_timestamp"), 0);
	sl_nat_stop(l->nat);
	assert_true(is_sysctl("netfilter/nf_conntrack_acct", 0));
	assert_true(is_sysctl("netfilter/nf_conntrack_events", 0));
	assert_true(is_sysctl("netfilter/nf_conntrack_timestamp", 1));
	finish(l);
}

/* Another instance had set them, and has ended. */
static void settings_that_change_are_set_again(void **state)
{
	struct lab *l;

	(void)state;
	NEEDS_ROOT();
	assert_int_equal(run("echo 1 > /proc/sys/net/netfilter/nf_conntrack_acct; "
			     "echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet"),
			 0);
	l = start(WEB);
	assert_on(l, 1);
	assert_false(nft_says("was_acct\\|was_localnet"));
	assert_int_equal(run("echo 0 > /proc/sys/net/netfilter/nf_conntrack_acct; "
			     "echo 0 > /proc/sys/net/ipv4/conf/all/route_localnet"),
			 0);
	WAIT_FOR(l, is_sysctl("ipv4/conf/all/route_localnet", 1));
	/* ours by now: whoever comes next puts it back */
	assert_true(nft_says("was_localnet_0"));
	assert_true(nft_says("was_acct_0"));
	assert_true(is_sysctl("netfilter/nf_conntrack_acct", 1));
	restart(l, WEB);
	sl_nat_stop(l->nat);
	assert_true(is_sysctl("ipv4/conf/all/route_localnet", 0));
	assert_true(is_sysctl("netfilter/nf_conntrack_acct", 0));
	finish(l);
}

static unsigned n_removals;

/* Its guard keeps the network from 127.0.0.1. */
static void settings_are_back(void)
{
	n_removals++;
	assert_true(is_sysctl("ipv4/conf/all/route_localnet", 0));
	assert_true(is_sysctl("netfilter/nf_conntrack_acct", 0));
	/* until then; a further attempt finds nothing to guard */
	assert_true(n_removals > 2 || nft_says("chain guard"));
}

/* Whoever dies between two steps of the end leaves what the next one makes an end of. */
static void the_table_goes_last(void **state)
{
	_cleanup_(sl_str_done) struct sl_str report = { 0 };
	struct lab *l;

	(void)state;
	NEEDS_ROOT();
	before_removal = settings_are_back;
	n_removals = 0;
	l = start(WEB);
	removal_error = -EIO;
	sl_nat_stop(l->nat); /* dies there */
	assert_int_equal(n_removals, 1);
	removal_error = 0;
	restart(l, WEB);
	assert_on(l, 1);
	assert_true(is_sysctl("ipv4/conf/all/route_localnet", 1));
	assert_true(is_sysctl("netfilter/nf_conntrack_acct", 1));
	/* the last route goes, at first in vain */
	removal_error = -EIO;
	set_plan(l, "version: 1\n");
	WAIT_FOR(l, n_removals >= 3);
	assert_true(sl_nat_is_there("sluice"));
	removal_error = 0;
	WAIT_FOR(l, !sl_nat_is_there("sluice"));
	assert_true(is_sysctl("netfilter/nf_conntrack_acct", 0));
	n_removals = 0;
	restart(l, WEB);
	sl_nat_free(l->nat);
	l->nat = NULL;
	assert_int_equal(sl_nat_purge("sluice", &report), 0);
	assert_int_equal(n_removals, 1);
	assert_true(is_sysctl("netfilter/nf_conntrack_acct", 0));
	finish(l);
}

/* Another table comes: this one does not stay, whatever should at the end of the daemon. */
static void a_table_that_is_left_goes(void **state)
{
	struct lab *l;

	(void)state;
	NEEDS_ROOT();
	l = start("version: 1\nglobal: { nftables: { keep_on_exit: true } }\n"
		  "defaults: { engine: nftables }\nroutes:\n" ROUTE("web", "8001",
								    "\"127.0.0.1:9001\""));
	sl_nat_stop(l->nat);
	assert_true(sl_nat_is_there("sluice"));
	sl_nat_leave(l->nat);
	assert_false(sl_nat_is_there("sluice"));
	assert_true(is_sysctl("netfilter/nf_conntrack_acct", 0));
	finish(l);
}

/* An entry in TIME_WAIT is no flow that goes on. */
static void what_is_over_is_not_adopted(void **state)
{
	struct sl_ct_stream_counts c;
	int listener, client, server;
	struct lab *l;

	(void)state;
	NEEDS_ROOT();
	listener = bound(SOCK_STREAM, 9001);
	l = start(WEB);
	client = connected(SOCK_STREAM, 8001);
	server = accepted(listener);
	(void)close(client);
	(void)close(server);
	WAIT_FOR(l, l->n_told == 1 && l->told[0].flow.is_over);
	restart(l, WEB);
	WAIT_FOR(l, l->n_told == 1 && l->told[0].flow.is_over);
	WAIT_FOR(l, (sl_ct_stream_get_counts(l->nat->stream, &c), c.dumps > 0));
	sl_nat_get_status(l->nat, &l->status);
	assert_int_equal(l->status.adopted, 0);
	(void)close(listener);
	finish(l);
}

/* The rules were changing all the time: it is on as soon as they can be read. */
static void what_cannot_be_read_is_read_later(void **state)
{
	struct sl_nat_plan *plan;
	struct lab *l;

	(void)state;
	NEEDS_ROOT();
	read_error = -EAGAIN;
	l = start(WEB);
	assert_off(l, "cannot read the kernel's rules");
	assert_false(sl_nat_is_in_force(l->nat));
	plan = plan_of(WEB);
	assert_true(sl_nat_can_take(l->nat, plan)); /* another process can no better */
	sl_nat_set_plan(l->nat, plan);
	assert_off(l, "cannot read the kernel's rules");
	read_error = 0;
	WAIT_FOR(l, l->status.is_on);
	assert_true(sl_nat_is_in_force(l->nat));
	assert_on(l, 1);
	sl_nat_stop(l->nat);
	assert_true(is_sysctl("netfilter/nf_conntrack_acct", 0));
	finish(l);
}

/* Nobody is told that it is, when it is the one before. */
static void a_plan_that_cannot_be_taken_is_not_in_force(void **state)
{
	struct lab *l;

	(void)state;
	NEEDS_ROOT();
	l = start(WEB);
	assert_true(sl_nat_is_in_force(l->nat));
	plan_error = -ENOSPC;
	set_plan(l, DNS("\"127.0.0.1:9053\""));
	assert_false(sl_nat_is_in_force(l->nat));
	assert_true(nft_says("\"web\""));
	assert_non_null(strstr(l->status.text, "of an older configuration"));
	plan_error = 0;
	set_plan(l, WEB);
	assert_true(sl_nat_is_in_force(l->nat));
	assert_null(strstr(l->status.text, "older"));
	finish(l);
}

static void a_text_is_cut_with_dots(void **state)
{
	char text[10];

	(void)state;
	sl_nat_shorten("123456789", text, sizeof(text));
	assert_string_equal(text, "123456789");
	sl_nat_shorten("1234567890", text, sizeof(text));
	assert_string_equal(text, "12345 ...");
	sl_nat_shorten("12345", text, 3);
	assert_string_equal(text, "12");
}

static void the_next_one_adopts(void **state)
{
	struct lab *l;
	struct told *t;
	uint64_t serial;
	int listener, client, server;
	uint16_t port;

	(void)state;
	NEEDS_ROOT();
	listener = bound(SOCK_STREAM, 9001);
	l = start(HEAD "routes:\n" ROUTE("gone", "8009", "\"127.0.0.1:9\"")
			  ROUTE("web", "8001", "\"127.0.0.1:9001\""));
	client = connected(SOCK_STREAM, 8001);
	server = accepted(listener);
	port = port_of(client);
	WAIT_FOR(l, find_told(l, port));
	serial = find_told(l, port)->serial;
	assert_true(nft_says("tcp . 8001 comment \"web\" : 0x00000002"));
	restart(l, WEB);
	assert_passes(client, server);
	WAIT_FOR(l, find_told(l, port));
	t = find_told(l, port);
	assert_true(t->flow.is_adopted);
	assert_true(t->serial > serial);
	assert_string_equal(t->flow.route, "web");
	WAIT_FOR(l, l->status.adopted == 1 && l->status.n_flows == 1);
	assert_true(nft_says("tcp . 8001 comment \"web\" : 0x00000002"));
	/* nobody has a flow of the other one */
	WAIT_FOR(l, !nft_says("\"gone\""));
	assert_passes(server, client);
	(void)close(server);
	(void)close(client);
	(void)close(listener);
	finish(l);
}

static void applying_again_changes_nothing(void **state)
{
	struct lab *l;

	(void)state;
	NEEDS_ROOT();
	l = start(WEB);
	assert_int_equal(run("nft list table inet sluice > /tmp/test-nat-1.$PPID"), 0);
	assert_int_equal(run("nft -a list table inet sluice | grep handle | sort > "
			     "/tmp/test-nat-2.$PPID"),
			 0);
	set_plan(l, WEB);
	restart(l, WEB);
	assert_int_equal(run("nft list table inet sluice | diff /tmp/test-nat-1.$PPID -"), 0);
	assert_int_equal(run("nft -a list table inet sluice | grep handle | sort | "
			     "diff /tmp/test-nat-2.$PPID -; r=$?; "
			     "rm /tmp/test-nat-1.$PPID /tmp/test-nat-2.$PPID; exit $r"),
			 0);
	finish(l);
}

static void a_route_that_goes_drains(void **state)
{
	struct lab *l;
	int listener, client, server;
	uint16_t port;

	(void)state;
	NEEDS_ROOT();
	listener = bound(SOCK_STREAM, 9001);
	l = start(WEB);
	client = connected(SOCK_STREAM, 8001);
	server = accepted(listener);
	port = port_of(client);
	WAIT_FOR(l, find_told(l, port));
	set_plan(l, "version: 1\n");
	assert_int_equal(connected(SOCK_STREAM, 8001), -ECONNREFUSED);
	assert_on(l, 0);
	assert_non_null(strstr(l->status.text, "1 that is gone still with flows"));
	for (int i = 0; i < 3; i++) { /* longer than it takes to see that there is none */
		unsigned n = l->n_status;

		WAIT_FOR(l, l->n_status > n || l->status.n_flows == 1);
		assert_passes(client, server);
	}
	assert_true(nft_says("\"web\""));
	(void)close(server);
	(void)close(client);
	WAIT_FOR(l, find_told(l, port)->flow.is_over);
	assert_string_equal(find_told(l, port)->flow.route, "web");
	/* with the last route the table goes */
	WAIT_FOR(l, run("nft list table inet sluice >/dev/null 2>&1") != 0);
	assert_off(l, "no route has this engine");
	assert_true(is_sysctl("netfilter/nf_conntrack_acct", 0));
	/* and comes again */
	set_plan(l, WEB);
	assert_on(l, 1);
	client = connected(SOCK_STREAM, 8001);
	server = accepted(listener);
	assert_passes(client, server);
	port = port_of(client);
	WAIT_FOR(l, find_told(l, port));
	(void)close(server);
	(void)close(client);
	(void)close(listener);
	finish(l);
}

static void a_kill_resets_both(void **state)
{
	struct lab *l;
	int listener, client, server, other, other_server;
	uint16_t port;

	(void)state;
	NEEDS_ROOT();
	listener = bound(SOCK_STREAM, 9001);
	l = start(WEB);
	client = connected(SOCK_STREAM, 8001);
	server = accepted(listener);
	other = connected(SOCK_STREAM, 8001);
	other_server = accepted(listener);
	port = port_of(client);
	WAIT_FOR(l, find_told(l, port));
	sl_nat_kill(l->nat, find_told(l, port)->serial + 1000); /* of nobody */
	sl_nat_kill(l->nat, find_told(l, port)->serial);
	assert_reset(client);
	assert_reset(server);
	assert_passes(other, other_server);
	WAIT_FOR(l, find_told(l, port)->flow.is_over);
	assert_int_equal(find_told(l, port)->flow.reason, SL_REASON_NFTABLES_CLOSED);
	/* nothing of it is left, nor of how its peers were told */
	if (run("conntrack -L 2>/dev/null | grep -v mark=1 | grep .") == 0)
		fail_msg("these entries are left");
	(void)close(client);
	(void)close(server);
	(void)close(other);
	(void)close(other_server);
	(void)close(listener);
	finish(l);
}

static void udp_follows_the_targets(void **state)
{
	struct lab *l;
	int first, second, client;

	(void)state;
	NEEDS_ROOT();
	first = bound(SOCK_DGRAM, 9053);
	second = bound(SOCK_DGRAM, 9054);
	client = connected(SOCK_DGRAM, 8053);
	l = start(DNS("\"127.0.0.1:9053\""));
	assert_passes(client, first);
	set_plan(l, DNS("\"127.0.0.1:9054\""));
	/* however often it sent before: its entry goes, at the latest with what the next dump shows
	 */
	WAIT_FOR(l, find_told(l, port_of(client)) && find_told(l, port_of(client))->flow.is_over);
	assert_passes(client, second);
	set_plan(l, "version: 1\n");
	WAIT_FOR(l, run("nft list table inet sluice >/dev/null 2>&1") != 0);
	(void)close(first);
	(void)close(second);
	(void)close(client);
	finish(l);
}

/* Also what the last dump shows that may show any. */
static void udp_of_lost_events_is_deleted(void **state)
{
	int first, second, client;
	struct lab *l;

	(void)state;
	NEEDS_ROOT();
	first = bound(SOCK_DGRAM, 9053);
	second = bound(SOCK_DGRAM, 9054);
	client = connected(SOCK_DGRAM, 8053);
	l = start(DNS("\"127.0.0.1:9053\""));
	assert_passes(client, first);
	dark_until = UINT64_MAX;
	set_plan(l, DNS("\"127.0.0.1:9054\""));
	dark_until = l->nat->udp_until;
	WAIT_FOR(l, find_told(l, port_of(client)) && find_told(l, port_of(client))->flow.is_over);
	assert_passes(client, second);
	(void)close(first);
	(void)close(second);
	(void)close(client);
	finish(l);
}

static bool has_entry(uint16_t client_port)
{
	return run("conntrack -L -p udp --sport %u 2>/dev/null | grep -q .", client_port) == 0;
}

/* Nor does a client go on with a port that is none of the route's any more. */
static void udp_goes_with_its_listener(void **state)
{
	static const char both[] =
		HEAD "routes:\n" UDP("dns", "[8053, \"127.0.0.1:8054\"]", "\"127.0.0.1:9053\""),
			  one[] = HEAD "routes:\n" UDP("dns", "8053", "\"127.0.0.1:9053\""),
			  tcp[] = HEAD "routes:\n" ROUTE("dns", "8053", "\"127.0.0.1:9053\"");
	int server, client, other;
	struct lab *l;

	(void)state;
	NEEDS_ROOT();
	server = bound(SOCK_DGRAM, 9053);
	client = connected(SOCK_DGRAM, 8053);
	other = connected(SOCK_DGRAM, 8054);
	l = start(both);
	assert_passes(client, server);
	assert_passes(other, server);
	WAIT_FOR(l, l->n_told == 2);
	set_plan(l, both);
	set_plan(l, one);
	assert_true(has_entry(port_of(client)));
	assert_false(has_entry(port_of(other)));
	set_plan(l, tcp);
	assert_false(has_entry(port_of(client)));
	WAIT_FOR(l, l->told[0].flow.is_over && l->told[1].flow.is_over);
	(void)close(server);
	(void)close(client);
	(void)close(other);
	finish(l);
}

static struct sl_broker_nat_target target(const char *route, const char *name)
{
	struct sl_broker_nat_target t = { 0 };

	(void)snprintf(t.route, sizeof(t.route), "%s", route);
	(void)snprintf(t.target, sizeof(t.target), "%s", name);
	return t;
}

#define PAIR HEAD "routes:\n" ROUTE("lb", "8001", "[\"127.0.0.1:9001\", \"127.0.0.1:9002\"]")

static void what_is_down_gets_nothing(void **state)
{
	const struct sl_broker_nat_target one = target("lb", "127.0.0.1:9001"),
					  two = target("lb", "127.0.0.1:9002"),
					  none = target("lb", "127.0.0.1:9003"),
					  other = target("x", "127.0.0.1:9001");
	struct lab *l;

	(void)state;
	NEEDS_ROOT();
	l = start(PAIR);
	assert_true(nft_says("127.0.0.1 . 9001") && nft_says("127.0.0.1 . 9002"));
	sl_nat_set_target(l->nat, &one, true);
	sl_nat_set_target(l->nat, &none, true);
	sl_nat_set_target(l->nat, &other, true);
	WAIT_FOR(l, !nft_says("127.0.0.1 . 9001"));
	assert_true(nft_says("127.0.0.1 . 9002"));
	set_plan(l, PAIR); /* it stays down */
	assert_false(nft_says("127.0.0.1 . 9001"));
	sl_nat_set_target(l->nat, &two, true);
	WAIT_FOR(l, !nft_says("127.0.0.1 . 9002"));
	assert_on(l, 1);
	assert_int_equal(connected(SOCK_STREAM, 8001), -ECONNREFUSED);
	sl_nat_set_target(l->nat, &one, false);
	WAIT_FOR(l, nft_says("127.0.0.1 . 9001"));
	finish(l);
}

/* However often a proxy changes its mind, others have their turn; the last word holds. */
static void a_flood_of_changes_is_slowed_down(void **state)
{
	const struct sl_broker_nat_target one = target("lb", "127.0.0.1:9001");
	uint64_t since_ms;
	unsigned n_turns = 0, n;
	struct lab *l;

	(void)state;
	NEEDS_ROOT();
	l = start(PAIR);
	n = n_builds;
	since_ms = sl_clock_ms();
	sl_nat_set_target(l->nat, &one, true);
	WAIT_FOR(l, n_builds == n + 1); /* the first one at once */
	while (sl_clock_ms() < since_ms + 1000 || n_turns < 50) {
		sl_nat_set_target(l->nat, &one, n_turns++ & 1);
		assert_true(sl_loop_turn(l->loop, 0) >= 0);
	}
	assert_in_range(n_builds - n, 2, (sl_clock_ms() - since_ms) / 100 + 1);
	sl_nat_set_target(l->nat, &one, true);
	WAIT_FOR(l, !nft_says("127.0.0.1 . 9001"));
	sl_nat_set_target(l->nat, &one, false);
	WAIT_FOR(l, nft_says("127.0.0.1 . 9001"));
	assert_int_equal(l->status.repairs, 0);
	finish(l);
}

/* It tells as long as there is room, and nothing is lost when there was none. */
static void no_room_loses_nothing(void **state)
{
	int listener, client[10];
	struct lab *l;

	(void)state;
	NEEDS_ROOT();
	listener = bound(SOCK_STREAM, 9001);
	l = start(WEB);
	l->room = 3;
	for (size_t i = 0; i < SL_ARRAY_LEN(client); i++)
		assert_true((client[i] = connected(SOCK_STREAM, 8001)) >= 0);
	WAIT_FOR(l, l->n_told == 3);
	/* the rest ends meanwhile */
	for (size_t i = 0; i < SL_ARRAY_LEN(client); i++)
		(void)close(client[i]);
	(void)close(listener);
	sl_nat_resume(l->nat); /* there is none still */
	assert_int_equal(l->n_told, 3);
	l->room = SIZE_MAX;
	sl_nat_resume(l->nat);
	WAIT_FOR(l, l->n_told == SL_ARRAY_LEN(client));
	for (size_t i = 0; i < l->n_told; i++)
		WAIT_FOR(l, l->told[i].flow.is_over);
	WAIT_FOR(l, l->status.n_flows == 0);
	finish(l);
}

static void somebody_new_is_told_of_all(void **state)
{
	int listener, client;
	struct lab *l;
	uint64_t serial;
	uint16_t port;

	(void)state;
	NEEDS_ROOT();
	listener = bound(SOCK_STREAM, 9001);
	l = start(WEB);
	client = connected(SOCK_STREAM, 8001);
	port = port_of(client);
	WAIT_FOR(l, find_told(l, port));
	serial = find_told(l, port)->serial;
	l->n_told = 0;
	sl_nat_tell_all(l->nat);
	WAIT_FOR(l, find_told(l, port));
	assert_true(find_told(l, port)->flow.is_adopted);
	assert_int_equal(find_told(l, port)->serial, serial);
	WAIT_FOR(l, l->status.n_flows == 1); /* and is not counted twice */
	/* also one who comes when it is over already */
	l->n_told = 0;
	l->room = 0;
	(void)close(client);
	(void)close(listener);
	WAIT_FOR(l, l->status.n_flows == 0);
	l->room = SIZE_MAX;
	sl_nat_tell_all(l->nat);
	sl_nat_resume(l->nat);
	WAIT_FOR(l, find_told(l, port) && find_told(l, port)->flow.is_over);
	assert_true(find_told(l, port)->flow.is_adopted);
	finish(l);
}

static void what_others_do_is_put_back(void **state)
{
	static const char *const acts[] = { "flush ruleset", "delete table inet sluice",
					    "flush map inet sluice any4",
					    "add rule inet sluice pre drop" };
	struct lab *l;
	int listener, client;

	(void)state;
	NEEDS_ROOT();
	is_old_kernel = true;
	listener = bound(SOCK_STREAM, 9001);
	l = start(WEB);
	assert_int_equal(run("nft add table inet foreign"), 0);
	for (unsigned i = 0; i < SL_ARRAY_LEN(acts); i++) {
		uint64_t since_ms = sl_clock_ms();

		assert_int_equal(run("nft '%s'", acts[i]), 0);
		WAIT_FOR(l, l->status.repairs == i + 1);
		assert_true(sl_clock_ms() - since_ms < 2000);
		client = connected(SOCK_STREAM, 8001);
		if (client < 0)
			fail_msg("after %s: %s", acts[i], strerror(-client));
		(void)close(client);
	}
	assert_on(l, 1);
	/* what is none of ours is none of our business */
	assert_int_equal(run("nft add table inet foreign && nft delete table inet foreign"), 0);
	assert_int_equal(run("nft list table inet foreign 2>/dev/null"), 256);
	assert_int_equal(l->status.repairs, SL_ARRAY_LEN(acts));
	(void)close(listener);
	finish(l);
}

/* What was in the way of a repair makes it late, and a repair all the same. */
static void a_repair_that_has_to_wait(void **state)
{
	uint64_t since_ms;
	struct lab *l;

	(void)state;
	NEEDS_ROOT();
	is_old_kernel = true;
	l = start(WEB);
	assert_int_equal(run("nft 'delete table inet sluice; add table inet sluice'"), 0);
	WAIT_FOR(l, !l->status.is_on);
	assert_int_equal(l->status.repairs, 0);
	assert_int_equal(run("nft delete table inet sluice"), 0);
	since_ms = sl_clock_ms();
	WAIT_FOR(l, l->status.repairs == 1);
	assert_true(sl_clock_ms() - since_ms < 2000);
	assert_on(l, 1);
	finish(l);
}

static void a_table_of_others_is_left_alone(void **state)
{
	struct lab *l;

	(void)state;
	NEEDS_ROOT();
	assert_int_equal(run("nft add table inet sluice"), 0);
	l = start(WEB);
	assert_off(l, "not of this program");
	assert_int_equal(run("nft list table inet sluice | grep -q chain"), 256);
	sl_nat_stop(l->nat);
	assert_int_equal(run("nft list table inet sluice > /dev/null"), 0);
	restart(l, WEB);
	assert_off(l, "not of this program");
	assert_int_equal(run("nft delete table inet sluice"), 0);
	WAIT_FOR(l, l->status.is_on); /* it is tried again */
	assert_int_equal(l->status.repairs, 0);
	finish(l);
}

static bool has_owners(void)
{
	unsigned major, minor;
	struct utsname u;

	return uname(&u) == 0 && sscanf(u.release, "%u.%u", &major, &minor) == 2 &&
	       (major > 6 || (major == 6 && minor >= 9));
}

static void the_owner_comes_first(void **state)
{
	_cleanup_(sl_str_done) struct sl_str report = { 0 };
	int listener, client, server;
	struct lab *l, *other;

	(void)state;
	NEEDS_ROOT();
	if (!has_owners()) {
		print_message("this kernel (before 6.9) has no owners of tables\n");
		skip();
	}
	l = start(WEB);
	if (!nft_says("flags.*owner")) { /* before Linux 6.9 */
		finish(l);
		skip();
	}
	listener = bound(SOCK_STREAM, 9001);
	client = connected(SOCK_STREAM, 8001);
	server = accepted(listener);
	WAIT_FOR(l, l->n_told == 1);
	other = start(DNS("\"127.0.0.1:9053\""));
	assert_off(other, "another process");
	assert_on(l, 1);
	/* whose flows and settings it lets alone, and does not follow */
	assert_null(other->nat->stream);
	sl_nat_stop(other->nat);
	finish(other);
	assert_int_equal(sl_nat_purge("sluice", &report), -EBUSY);
	assert_passes(client, server);
	assert_true(is_sysctl("netfilter/nf_conntrack_acct", 1));
	assert_true(is_sysctl("ipv4/conf/all/route_localnet", 1));
	other = start("version: 1\n");
	assert_off(other, "no route");
	finish(other);
	(void)close(client);
	(void)close(server);
	(void)close(listener);
	other = start(DNS("\"127.0.0.1:9053\""));
	assert_off(other, "another process");
	assert_on(l, 1);
	finish(l);
	WAIT_FOR(other, other->status.is_on);
	assert_true(nft_says("\"dns\""));
	finish(other);
}

static void nothing_to_do(void **state)
{
	struct sl_nat_plan *plan;
	struct lab *l;

	(void)state;
	NEEDS_ROOT();
	l = start("version: 1\n");
	assert_off(l, "no route has this engine");
	assert_int_equal(run("nft list table inet sluice 2>/dev/null"), 256);
	plan = plan_of("version: 1\n");
	assert_true(sl_nat_can_take(l->nat, plan));
	sl_nat_plan_free(plan);
	plan = plan_of(WEB);
	assert_false(sl_nat_can_take(l->nat, plan));
	sl_nat_plan_free(plan);
	finish(l);

	l = start(WEB);
	plan = plan_of("version: 1\nglobal: { nft_table: other }\n");
	assert_false(sl_nat_can_take(l->nat, plan));
	sl_nat_plan_free(plan);
	plan = plan_of("version: 1\nglobal: { nftables: { mark_base: 4096 } }\n");
	assert_false(sl_nat_can_take(l->nat, plan));
	sl_nat_plan_free(plan);
	finish(l);
}

static void it_may_stay(void **state)
{
	_cleanup_(sl_str_done) struct sl_str report = { 0 };
	int listener, client, server;
	struct lab *l;

	(void)state;
	NEEDS_ROOT();
	listener = bound(SOCK_STREAM, 9001);
	l = start("version: 1\nglobal: { nftables: { keep_on_exit: true } }\n"
		  "defaults: { engine: nftables }\nroutes:\n" ROUTE("web", "8001",
								    "\"127.0.0.1:9001\""));
	client = connected(SOCK_STREAM, 8001);
	server = accepted(listener);
	sl_nat_stop(l->nat);
	finish(l);
	assert_passes(client, server);
	assert_true(sl_nat_is_there("sluice"));
	assert_true(is_sysctl("netfilter/nf_conntrack_acct", 1));
	/* and goes when asked to */
	assert_int_equal(sl_nat_purge("sluice", &report), 0);
	assert_string_equal(sl_str_text(&report),
			    "removed table inet sluice with 1 route, cut 1 flow\n");
	assert_false(sl_nat_is_there("sluice"));
	assert_reset(client);
	assert_true(is_sysctl("netfilter/nf_conntrack_acct", 0));
	assert_true(is_sysctl("ipv4/conf/all/route_localnet", 0));
	sl_str_clear(&report);
	assert_int_equal(sl_nat_purge("sluice", &report), 0);
	assert_int_equal(report.len, 0);
	assert_int_equal(run("nft add table inet sluice"), 0);
	assert_false(sl_nat_is_there("sluice"));
	assert_int_equal(sl_nat_purge("sluice", &report), 0);
	assert_non_null(strstr(sl_str_text(&report), "not of this program"));
	assert_int_equal(run("nft list table inet sluice > /dev/null"), 0);
	(void)close(client);
	(void)close(server);
	(void)close(listener);
}

static void the_end_cuts_flows(void **state)
{
	int listener, client, server;
	struct lab *l;

	(void)state;
	NEEDS_ROOT();
	listener = bound(SOCK_STREAM, 9001);
	l = start(WEB);
	client = connected(SOCK_STREAM, 8001);
	server = accepted(listener);
	WAIT_FOR(l, l->status.n_flows == 1);
	sl_nat_stop(l->nat);
	assert_reset(client);
	assert_reset(server);
	assert_int_equal(connected(SOCK_STREAM, 8001), -ECONNREFUSED);
	assert_int_equal(run("nft list tables | grep -q ."), 256);
	(void)close(client);
	(void)close(server);
	(void)close(listener);
	finish(l);
}

/* Nobody looks at checksums. */
static void make_first(uint8_t *packet, size_t len, bool is_udp)
{
	if (!is_udp) {
		packet[20 + 13] = 2; /* SYN */
		return;
	}
	packet[9] = IPPROTO_UDP;
	memset(packet + 20 + 4, 0, len - 24);
	packet[20 + 5] = (uint8_t)(len - 20);
}

/* First packets to all ports of a range, which nobody answers; how many flows they are. */
static uint32_t open_many_of(uint16_t from, uint16_t to, unsigned n_clients, bool is_udp)
{
	int fd = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
	struct sl_addr src, dst;
	uint8_t packet[SL_NAT_PROBE_MAX];
	uint32_t n = 0;

	assert_true(fd >= 0);
	assert_int_equal(sl_addr_parse("192.0.2.1:1", &src), 0);
	assert_int_equal(sl_addr_parse("192.0.2.1:1", &dst), 0);
	for (unsigned c = 0; c < n_clients; c++) {
		sl_addr_set_port(&src, (uint16_t)(5000 + c));
		for (unsigned port = from; port <= to; port++, n++) {
			size_t len;

			sl_addr_set_port(&dst, (uint16_t)port);
			len = sl_nat_probe_write(&src, &dst, packet);
			make_first(packet, len, is_udp);
			assert_int_equal(sendto(fd, packet, len, 0, &dst.sa, sl_addr_len(&dst)),
					 len);
		}
	}
	(void)close(fd);
	return n;
}

static uint32_t open_many(uint16_t from, uint16_t to, unsigned n_clients)
{
	return open_many_of(from, to, n_clients, false);
}

static void add_far(void)
{
	assert_int_equal(run("ip link add far0 type veth peer name far1 && "
			     "ip addr add 198.51.100.1/24 dev far0 && ip link set far1 up && "
			     "ip link set far0 up && ip neigh add 198.51.100.7 "
			     "lladdr 02:00:00:00:00:01 dev far0"),
			 0);
}

/* Two routes to where nobody answers. */
static struct lab *start_far(void)
{
	add_far();
	return start(
		HEAD "routes:\n" ROUTE("a", "10000-24999",
				       "{ targets: \"198.51.100.7\", port: preserve }")
			ROUTE("b", "30000-44999", "{ targets: \"198.51.100.7\", port: preserve }"));
}

/* Of this thread: other processes may be busy. */
static uint64_t cpu_ms(void)
{
	struct timespec ts;

	assert_int_equal(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts), 0);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* The supervisor waits for 2 s. */
static void the_end_of_many_flows_is_quick(void **state)
{
	struct sl_ct_stream_counts c;
	uint64_t begun_ms;
	struct lab *l;
	uint32_t n;

	(void)state;
	NEEDS_ROOT();
	l = start_far();
	assert_on(l, 2);
	l->is_many = true;
	n = open_many(10000, 24999, 2) + open_many(30000, 44999, 2);
	assert_int_equal(n, 60000);
	WAIT_FOR(l, l->status.n_flows == n);
	begun_ms = cpu_ms();
	n_requests = 0;
	sl_nat_stop(l->nat);
	assert_in_range(cpu_ms() - begun_ms, 0, 2000 * slow() - 1);
	assert_int_equal(n_requests, 0); /* not one for each of them */
	assert_false(sl_nat_is_there("sluice"));
	/* the next one finds none */
	restart(l, WEB);
	WAIT_FOR(l, (sl_ct_stream_get_counts(l->nat->stream, &c), c.dumps > 0));
	assert_int_equal(c.table.opened, 0);
	finish(l);
}

/* A route of UDP goes, and its entries with it. */
static void many_go_at_once(void **state)
{
	struct lab *l;
	uint64_t begun_ms;
	uint32_t n;

	(void)state;
	NEEDS_ROOT();
	add_far();
	l = start(WEB UDP("u", "10000-24999", "{ targets: \"198.51.100.7\", port: preserve }"));
	l->is_many = true;
	n = open_many_of(10000, 24999, 4, true);
	assert_int_equal(n, 60000);
	WAIT_FOR(l, l->status.n_flows == n);
	n_requests = 0;
	begun_ms = cpu_ms();
	set_plan(l, WEB);
	print_message("60000 flows of UDP: %u ms\n", (unsigned)(cpu_ms() - begun_ms));
	assert_int_equal(n_requests, 0); /* not one for each of them */
	assert_int_equal(run("conntrack -L -p udp 2>/dev/null | grep -q ."), 256);
	WAIT_FOR(l, l->status.n_flows == 0 && !nft_says("\"u\""));
	finish(l);
}

/* However late and slowly it looks: a route goes after its flows were counted, not before. */
static void a_route_waits_for_what_is_not_told(void **state)
{
	struct sl_ct_stream_counts c;
	struct lab *l;

	(void)state;
	NEEDS_ROOT();
	l = start_far();
	l->is_many = true;
	assert_int_equal(open_many(10000, 24999, 2) + open_many(30000, 30000, 1), 30001);
	WAIT_FOR(l, l->status.n_flows == 30001);
	restart(l, WEB);
	do { /* busy with something else, say */
		(void)usleep(100000);
		sl_ct_stream_get_counts(l->nat->stream, &c);
	} while (c.dumps < 3);
	WAIT_FOR(l, sl_nat_is_all_told(l->nat));
	sl_nat_get_status(l->nat, &l->status);
	assert_int_equal(l->status.n_flows, 30001);
	assert_true(nft_says("\"b\""));
	sl_nat_stop(l->nat);
	finish(l);
}

/* nf_conntrack_max was raised. */
static void room_grows_with_the_limit(void **state)
{
	const uint32_t room = 65536; /* the least there is */
	uint32_t count, limit;
	struct lab *l;

	(void)state;
	NEEDS_ROOT();
	assert_int_equal(__real_sl_ct_fill(&count, &limit), 0);
	if (limit < 80000) {
		print_message("nf_conntrack_max, which is the host's, is %u\n", limit);
		skip();
	}
	ct_limit = room;
	l = start_far();
	l->is_many = true;
	assert_int_equal(open_many(10000, 24999, 5), 75000);
	WAIT_FOR(l, strstr(l->status.text, "no room for a record") && l->status.n_flows == room);
	ct_limit = 2 * room;
	WAIT_FOR(l, l->status.n_flows == 75000);
	sl_nat_stop(l->nat);
	finish(l);
}

/* The daemon ends: whoever is there goes on, UDP too, until it has ended. */
static void the_end_drains_first(void **state)
{
	static const char text[] = WEB UDP("dns", "8053", "\"127.0.0.1:9053\"");
	struct sl_nat_plan *plan;
	int listener, client, server, udp, udp_server;
	struct lab *l;

	(void)state;
	NEEDS_ROOT();
	listener = bound(SOCK_STREAM, 9001);
	udp_server = bound(SOCK_DGRAM, 9053);
	l = start(text);
	client = connected(SOCK_STREAM, 8001);
	server = accepted(listener);
	udp = connected(SOCK_DGRAM, 8053);
	assert_passes(udp, udp_server);
	WAIT_FOR(l, l->status.n_flows == 2);
	plan = plan_with(text, true);
	assert_true(sl_nat_can_take(l->nat, plan));
	sl_nat_set_plan(l->nat, plan);
	assert_non_null(strstr(l->status.text, "2 routes in table inet sluice, no new flows"));
	assert_int_equal(connected(SOCK_STREAM, 8001), -ECONNREFUSED);
	for (int i = 0; i < 3; i++) { /* over dumps, which clean up what is stale */
		uint64_t until_ms = sl_clock_ms() + 1500;

		WAIT_FOR(l, sl_clock_ms() > until_ms);
		assert_passes(client, server);
		assert_passes(udp, udp_server);
	}
	assert_int_equal(l->status.n_flows, 2);
	sl_nat_stop(l->nat);
	assert_reset(client);
	assert_reset(server);
	assert_false(sl_nat_is_there("sluice"));
	(void)close(client);
	(void)close(server);
	(void)close(listener);
	(void)close(udp);
	(void)close(udp_server);
	finish(l);
}

/* Nothing can be drained that could not be opened: no other broker has to come for it. */
static void what_is_closed_is_drained(void **state)
{
	struct sl_nat_plan *none = plan_of("version: 1\n"), *routes = plan_of(WEB),
			   *drain = plan_with(WEB, true);
	struct lab *l = start(NULL);
	const struct sl_nat_options options = { .loop = l->loop };

	(void)state;
	NEEDS_ROOT();
	assert_int_equal(sl_nat_new(&options, none, &l->nat), 0);
	assert_true(sl_nat_can_take(l->nat, none));
	assert_false(sl_nat_can_take(l->nat, routes));
	assert_true(sl_nat_can_take(l->nat, drain));
	sl_nat_plan_free(none);
	sl_nat_plan_free(routes);
	sl_nat_set_plan(l->nat, drain);
	assert_false(sl_nat_is_there("sluice"));
	finish(l);
}

/* Without flow tables, or without those interfaces, the routes are served all the same. */
static void the_short_way_is_no_condition(void **state)
{
	static const char text[] =
		"version: 1\nglobal: { nftables: { flow_offload: [lo, later0] } }\n"
		"defaults: { engine: nftables }\nroutes:\n" ROUTE("web", "8001",
								  "\"127.0.0.1:9001\"");
	int listener, client, server;
	struct lab *l;

	(void)state;
	NEEDS_ROOT();
	listener = bound(SOCK_STREAM, 9001);
	l = start(text);
	assert_on(l, 1);
	client = connected(SOCK_STREAM, 8001);
	server = accepted(listener);
	assert_passes(client, server);
	if (strstr(l->status.text, "no flow tables")) {
		assert_false(nft_says("flowtable"));
	} else {
		assert_non_null(strstr(l->status.text, "later0 not there yet"));
		assert_true(nft_says("devices = { lo }"));
		assert_int_equal(run("ip link add later0 type dummy"), 0);
		WAIT_FOR(l, !strstr(l->status.text, "later0"));
		assert_true(nft_says("devices = { later0, lo }"));
		/* made anew it is another one */
		assert_int_equal(run("ip link del dev later0 && ip link add later0 type dummy"), 0);
		WAIT_FOR(l, nft_says("devices = { later0, lo }"));
		assert_int_equal(run("ip link del dev later0"), 0);
		WAIT_FOR(l, strstr(l->status.text, "later0"));
		assert_true(nft_says("devices = { lo }"));
		/* not asked for any more */
		set_plan(l, WEB);
		assert_false(nft_says("flowtable"));
	}
	assert_passes(client, server);
	set_plan(l, WEB);
	assert_null(strstr(l->status.text, "flow"));
	(void)close(client);
	(void)close(server);
	(void)close(listener);
	finish(l);
}

/* A mark is not given to another route while flows have it. */
static void marks_of_flows_are_not_reused(void **state)
{
	int listener, client, server;
	struct lab *l;

	(void)state;
	NEEDS_ROOT();
	listener = bound(SOCK_STREAM, 9001);
	l = start(WEB);
	client = connected(SOCK_STREAM, 8001);
	server = accepted(listener);
	WAIT_FOR(l, l->status.n_flows == 1);
	set_plan(l, HEAD "routes:\n" ROUTE("new", "8002", "\"127.0.0.1:9001\""));
	assert_true(nft_says("tcp . 8002 comment \"new\" : 0x00000002"));
	/* the same name again is the same route */
	set_plan(l, WEB);
	assert_true(nft_says("tcp . 8001 comment \"web\" : 0x00000001"));
	assert_passes(client, server);
	WAIT_FOR(l, !nft_says("\"new\""));
	(void)close(client);
	(void)close(server);
	(void)close(listener);
	finish(l);
}

/* Records of the stream, taken, or 0. */
static uint64_t n_records(const struct lab *l)
{
	struct pollfd p = { .fd = sl_ct_stream_fd(l->nat->stream), .events = POLLIN };
	struct sl_ct_stream_counts c;

	sl_ct_stream_get_counts(l->nat->stream, &c);
	return poll(&p, 1, 0) == 0 ? c.table.opened : 0;
}

/* A mark of ours that somebody else has set, before it was that of a route. */
static void what_was_not_counted_does_not_end(void **state)
{
	struct lab *l;
	int client, server;

	(void)state;
	NEEDS_ROOT();
	assert_int_equal(run("nft 'table ip other { chain o { type filter hook output priority 200;"
			     " udp dport 7777 ct mark set 2; }; }'"),
			 0);
	l = start(WEB);
	server = bound(SOCK_DGRAM, 7777);
	client = connected(SOCK_DGRAM, 7777);
	assert_passes(client, server);
	WAIT_FOR(l, n_records(l) == 1);
	/* it is no flow of the new route, and goes as one of a target that is gone */
	set_plan(l, WEB UDP("dns", "8053", "\"127.0.0.1:9053\""));
	assert_true(nft_says("\"dns\" : 0x00000002"));
	WAIT_FOR(l, find_told(l, port_of(client)) && find_told(l, port_of(client))->flow.is_over);
	sl_nat_get_status(l->nat, &l->status);
	assert_int_equal(l->status.n_flows, 0);
	/* so nothing holds that route */
	set_plan(l, WEB);
	WAIT_FOR(l, !nft_says("\"dns\""));
	(void)close(client);
	(void)close(server);
	finish(l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(a_flow_has_its_record, set_up),
		cmocka_unit_test_setup(settings_are_put_back, set_up),
		cmocka_unit_test_setup(settings_of_others_stay, set_up),
		cmocka_unit_test_setup(settings_that_change_are_set_again, set_up),
		cmocka_unit_test_setup(the_table_goes_last, set_up),
		cmocka_unit_test_setup(a_table_that_is_left_goes, set_up),
		cmocka_unit_test_setup(what_is_over_is_not_adopted, set_up),
		cmocka_unit_test_setup(what_cannot_be_read_is_read_later, set_up),
		cmocka_unit_test_setup(a_plan_that_cannot_be_taken_is_not_in_force, set_up),
		cmocka_unit_test(a_text_is_cut_with_dots),
		cmocka_unit_test_setup(the_next_one_adopts, set_up),
		cmocka_unit_test_setup(applying_again_changes_nothing, set_up),
		cmocka_unit_test_setup(a_route_that_goes_drains, set_up),
		cmocka_unit_test_setup(a_kill_resets_both, set_up),
		cmocka_unit_test_setup(udp_follows_the_targets, set_up),
		cmocka_unit_test_setup(udp_of_lost_events_is_deleted, set_up),
		cmocka_unit_test_setup(udp_goes_with_its_listener, set_up),
		cmocka_unit_test_setup(what_is_down_gets_nothing, set_up),
		cmocka_unit_test_setup(a_flood_of_changes_is_slowed_down, set_up),
		cmocka_unit_test_setup(no_room_loses_nothing, set_up),
		cmocka_unit_test_setup(somebody_new_is_told_of_all, set_up),
		cmocka_unit_test_setup(what_others_do_is_put_back, set_up),
		cmocka_unit_test_setup(a_repair_that_has_to_wait, set_up),
		cmocka_unit_test_setup(a_table_of_others_is_left_alone, set_up),
		cmocka_unit_test_setup(the_owner_comes_first, set_up),
		cmocka_unit_test_setup(nothing_to_do, set_up),
		cmocka_unit_test_setup(it_may_stay, set_up),
		cmocka_unit_test_setup(the_end_cuts_flows, set_up),
		cmocka_unit_test_setup(the_end_of_many_flows_is_quick, set_up),
		cmocka_unit_test_setup(many_go_at_once, set_up),
		cmocka_unit_test_setup(a_route_waits_for_what_is_not_told, set_up),
		cmocka_unit_test_setup(room_grows_with_the_limit, set_up),
		cmocka_unit_test_setup(the_end_drains_first, set_up),
		cmocka_unit_test_setup(what_is_closed_is_drained, set_up),
		cmocka_unit_test_setup(the_short_way_is_no_condition, set_up),
		cmocka_unit_test_setup(marks_of_flows_are_not_reused, set_up),
		cmocka_unit_test_setup(what_was_not_counted_does_not_end, set_up),
	};

	return cmocka_run_group_tests_name("nat", tests, NULL, NULL);
}
