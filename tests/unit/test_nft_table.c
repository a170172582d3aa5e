/* SPDX-License-Identifier: GPL-3.0-or-later */
/* WRAP: sl_nft_decode */
/* WRAP: sl_nft_encode sl_nft_encode_probe */
/*
 * The table against the real kernel, each test in a network namespace of its own. `nft` is the
 * other tool: what it shows, what it reads back, and what it does to our table.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <linux/netfilter/nf_tables.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "nft/diff.h"
#include "nft/encode.h"
#include "nft/socket.h"
#include "nft/table.h"

#include "netns.h"
#include "nft_random.h"
#include "nft_routes.h"

#define DIFFERENCES 200

static char dir[] = "/tmp/test-nft-XXXXXX";

/* What a batch meets on its way: somebody else's transaction, or a kernel without owners. */
static int n_intruders;
static bool is_old_kernel;

static int run(const char *fmt, ...) SL_PRINTF(1, 2);
static int run(const char *fmt, ...)
{
	char command[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(command, sizeof(command), fmt, ap);
	va_end(ap);
	return system(command);
}

int __real_sl_nft_encode(const struct sl_nft_encode *e, size_t from, size_t to, uint32_t seq,
			 struct sl_nft_batch *ret);
int __wrap_sl_nft_encode(const struct sl_nft_encode *e, size_t from, size_t to, uint32_t seq,
			 struct sl_nft_batch *ret);
int __wrap_sl_nft_encode(const struct sl_nft_encode *e, size_t from, size_t to, uint32_t seq,
			 struct sl_nft_batch *ret)
{
	if (n_intruders > 0) {
		n_intruders--;
		assert_int_equal(
			run("nft add table inet intruder && nft delete table inet intruder"), 0);
	}
	return __real_sl_nft_encode(e, from, to, seq, ret);
}

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

static int set_up(void **state)
{
	(void)state;
	n_intruders = 0;
	is_old_kernel = false;
	if (geteuid() != 0)
		return 0;
	return enter_netns();
}

#define NEEDS_ROOT()                \
	do {                        \
		if (geteuid() != 0) \
			skip();     \
	} while (0)

static struct sl_nft_table *open_table(void)
{
	struct sl_nft_table *t = NULL;

	assert_int_equal(sl_nft_table_open("sluice", &t), 0);
	return t;
}

/* Applies what the routes say; the report of it. */
static struct sl_nft_report apply(struct sl_nft_table *t, const struct test_routes *routes)
{
	struct sl_nft_ruleset *wanted = test_build(routes);
	struct sl_nft_report report;
	int r = sl_nft_table_apply(t, &wanted, &report);

	if (r < 0)
		fail_msg("%s", report.text);
	assert_null(wanted);
	return report;
}

static int try_apply(struct sl_nft_table *t, const struct test_routes *routes,
		     struct sl_nft_report *report)
{
	struct sl_nft_ruleset *wanted = test_build(routes);
	int r = sl_nft_table_apply(t, &wanted, report);

	assert_int_equal(wanted != NULL, r < 0);
	sl_nft_ruleset_free(wanted);
	return r;
}

/* What differs between the kernel's table and the routes: 0 operations, or the test fails. */
static unsigned n_growing; /* so many dumps show an element twice and leave out another */

int __real_sl_nft_decode(struct sl_nft_socket *s, const char *table, struct sl_nft_ruleset **ret);
int __wrap_sl_nft_decode(struct sl_nft_socket *s, const char *table, struct sl_nft_ruleset **ret);
int __wrap_sl_nft_decode(struct sl_nft_socket *s, const char *table, struct sl_nft_ruleset **ret)
{
	int r = __real_sl_nft_decode(s, table, ret);
	struct sl_nft_set *set = r == 0 && n_growing ? sl_nft_find_set(*ret, "any4") : NULL;

	if (set && set->n > 1) {
		set->elems[1] = set->elems[0];
		n_growing--;
	}
	return r;
}

static void assert_installed(struct sl_nft_table *t, const struct test_routes *routes)
{
	struct sl_nft_ruleset *wanted = test_build(routes), *installed = NULL;
	struct sl_nft_ops ops = { 0 };

	assert_int_equal(sl_nft_table_read(t, &installed), 0);
	assert_int_equal(sl_nft_diff(installed, wanted, &ops), 0);
	assert_int_equal(ops.n, 0);
	sl_nft_ops_done(&ops);
	sl_nft_ruleset_free(installed);
	sl_nft_ruleset_free(wanted);
}

static uint32_t generation(void)
{
	struct sl_nft_socket s = { 0 };
	uint32_t now = 0;

	assert_int_equal(sl_nft_socket_open(&s), 0);
	assert_int_equal(sl_nft_socket_generation(&s, &now), 0);
	sl_nft_socket_done(&s);
	return now;
}

/* One of everything that a route can be. */
static void every_kind(struct test_routes *t)
{
	static struct sl_ip4_range v4[] = { { 0x0a000000, 0x0affffff },
					    { 0xc0000201, 0xc000024d } };
	static struct sl_ip6_range v6[] = { { { 0x20, 1, 0xd, 0xb8 },
					      { 0x20, 1, 0xd, 0xb8, 255, 255, 255, 255, 255, 255,
						255, 255, 255, 255, 255, 255 } } };
	static const struct sl_ip_set list = { .v4 = v4, .n4 = 2, .v6 = v6, .n6 = 1 };
	struct sl_nft_route *r;

	test_routes_init(t, 16);
	t->common.lists = (struct sl_nft_lists){ .allow = &list, .deny = &list };
	t->common.masquerade = (struct sl_nft_ports){ 1024, 39999 };
	r = test_route(t, "web");
	test_listen(r, NULL, 80, 80);
	test_target(r, "10.0.0.5", 8080, 1);
	test_target(r, "fd00::5", 8080, 1);
	r = test_route(t, "lb");
	r->protocols = SL_NFT_TCP | SL_NFT_UDP;
	r->masquerade = true;
	test_listen(r, "10.1.1.1", 443, 443);
	test_listen(r, "fd01::1", 443, 443);
	test_target(r, "10.0.0.6", 443, 2);
	test_target(r, "10.0.0.7", 444, 1);
	test_target(r, "fd00::7", 443, 1);
	test_target(r, "fd00::8", 443, 1);
	r = test_route(t, "range");
	test_listen(r, NULL, 9000, 9099);
	test_listen(r, "10.1.1.1", 9200, 9300);
	test_target(r, "10.0.0.7", 0, 1);
	r = test_route(t, "random");
	r->balance = SL_BALANCE_RANDOM;
	test_listen(r, "0.0.0.0", 81, 81);
	test_target(r, "10.0.0.6", 0, 2);
	test_target(r, "10.0.0.7", 0, 1);
	r = test_route(t, "policy");
	test_listen(r, NULL, 82, 82);
	test_target(r, "10.0.0.7", 82, 1);
	test_target(r, "fd00::7", 82, 1);
	r->max_connections = 3;
	r->connections = (struct sl_nft_rate){ 100, 1, 50 };
	r->max_per_client = 2;
	r->per_client = (struct sl_nft_rate){ 30, 60, 30 };
	r->packets = (struct sl_nft_rate){ 60000, 60, 50 };
	r->refusal = SL_NFT_REFUSE_ICMP;
	r->allow = &list;
	r->deny = &list;
	r = test_route(t, "killed");
	r->state = SL_NFT_KILLED;
	test_target(r, "127.0.0.1", 82, 1);
	r = test_route(t, "nobody");
	r->refusal = SL_NFT_REFUSE_DROP;
	test_listen(r, NULL, 83, 83);
}

/* The kernel's table as nft writes it, less the flags, which would make nft its owner. */
static void list_table(const char *file)
{
	assert_int_equal(run("nft list table inet sluice > %s/raw", dir), 0);
	assert_int_equal(
		run("sed -e 's/ # progname.*//' -e '/^\tflags /d' -e '/^$/d' %s/raw > %s/%s", dir,
		    dir, file),
		0);
}

/*
 * Some point releases of kernels refuse what nft before 1.1 makes of a range in a concatenation,
 * also of its own (nft_byteorder without multi-register support).
 */
static bool nft_may_write_ranges(void)
{
	return run("printf 'table inet probe { map r { type inet_proto . inet_service : mark; "
		   "flags interval; }\n chain c { ct mark set meta l4proto . th dport map @r; "
		   "}\n}' "
		   "| nft -f - 2> /dev/null") == 0;
}

static void nft_reads_what_it_shows(void **state)
{
	struct sl_nft_table *t;
	struct test_routes routes;

	NEEDS_ROOT();
	(void)state;
	every_kind(&routes);
	t = open_table();
	apply(t, &routes);
	assert_installed(t, &routes);
	list_table("shown");
	sl_nft_table_close(t);
	/* the golden text has the spelling of this version */
	if (run("nft --version | grep -q 'v1\\.0\\.6 '") == 0)
		assert_int_equal(run("diff -u tests/nft/every_kind.nft %s/shown >&2", dir), 0);
	assert_int_equal(enter_netns(), 0);
	if (nft_may_write_ranges()) {
		assert_int_equal(run("nft -f %s/shown", dir), 0);
		list_table("again");
		assert_int_equal(run("diff -u %s/shown %s/again >&2", dir, dir), 0);
	} else {
		print_message("this kernel refuses ranges as this nft writes them\n");
	}
	test_routes_done(&routes);
}

static void a_second_time_changes_nothing(void **state)
{
	struct sl_nft_table *t;
	struct test_routes routes;
	struct sl_nft_report report;
	uint32_t before;

	NEEDS_ROOT();
	(void)state;
	every_kind(&routes);
	t = open_table();
	report = apply(t, &routes);
	assert_true(report.n_added > 100);
	assert_int_equal(report.n_batches, 1);
	before = generation();
	report = apply(t, &routes);
	assert_int_equal(report.n_added + report.n_removed + report.n_batches, 0);
	assert_int_equal(generation(), before);
	assert_int_equal(sl_nft_table_watch_read(t), 0);
	/* and the next process: finds it, becomes the owner where there are owners, no more */
	sl_nft_table_close(t);
	t = open_table();
	report = apply(t, &routes);
	assert_int_equal(report.n_added + report.n_removed, 0);
	assert_int_equal(report.is_adopted, report.n_batches == 1);
	assert_int_equal(report.is_adopted, report.is_owned);
	before = generation();
	report = apply(t, &routes);
	assert_int_equal(generation(), before);
	assert_installed(t, &routes);
	sl_nft_table_close(t);
	test_routes_done(&routes);
}

/* As an older version might: a table that goes with this socket. */
static void own_without_persist(struct sl_nft_socket *s)
{
	struct sl_nft_ruleset *rs = NULL;
	struct sl_nft_op op = { .kind = SL_NFT_ADD_TABLE };
	const struct sl_nft_ops ops = { .op = &op, .n = 1 };
	struct sl_nft_encode e = { .table = "sluice",
				   .ops = &ops,
				   .table_flags = NFT_TABLE_F_OWNER };
	struct sl_nft_batch b = { 0 };
	struct sl_nft_fault fault;

	assert_int_equal(sl_nft_ruleset_new(&rs), 0);
	rs->comment = sl_nft_put_text(rs, SL_NFT_TABLE_COMMENT);
	e.wanted = rs;
	assert_int_equal(sl_nft_socket_open(s), 0);
	assert_int_equal(sl_nft_socket_generation(s, &e.generation), 0);
	assert_int_equal(sl_nft_encode(&e, 0, 1, sl_nft_socket_seq(s), &b), 0);
	assert_int_equal(sl_nft_socket_commit(s, &b, &fault), 0);
	sl_nft_batch_done(&b);
	sl_nft_ruleset_free(rs);
}

/* An owner that dies leaves no new generation, but the table is free. */
static void what_an_owner_has_left_is_seen(void **state)
{
	struct sl_nft_socket other = { 0 };
	struct sl_nft_table *first, *second;
	struct sl_nft_report report;
	struct test_routes routes;

	NEEDS_ROOT();
	(void)state;
	every_kind(&routes);
	first = open_table();
	report = apply(first, &routes);
	if (!report.is_owned)
		skip();
	second = open_table();
	assert_int_equal(try_apply(second, &routes, &report), -EBUSY);
	sl_nft_table_close(first);
	report = apply(second, &routes);
	assert_true(report.is_adopted && report.is_owned);
	/* one without PERSIST goes with its owner */
	assert_int_equal(sl_nft_table_remove(second, &report), 0);
	own_without_persist(&other);
	assert_int_equal(try_apply(second, &routes, &report), -EBUSY);
	sl_nft_socket_done(&other);
	for (int i = 0; i < 100 && try_apply(second, &routes, &report) == -EBUSY; i++)
		usleep(50000); /* the kernel lets go of it in the background */
	assert_installed(second, &routes);
	sl_nft_table_close(second);
	test_routes_done(&routes);
}

/* What was taken out of it while nobody owned it, chains of hooks among it. */
static void an_orphan_is_made_whole(void **state)
{
	struct sl_nft_table *t;
	struct sl_nft_report report;
	struct test_routes routes;

	NEEDS_ROOT();
	(void)state;
	every_kind(&routes);
	t = open_table();
	apply(t, &routes);
	sl_nft_table_close(t);
	assert_int_equal(run("nft delete chain inet sluice post"), 0);
	assert_int_equal(run("nft delete chain inet sluice police"), 0);
	assert_int_equal(run("nft add chain inet sluice theirs '{ type filter hook input priority "
			     "0; }'"),
			 0);
	t = open_table();
	report = apply(t, &routes);
	assert_false(report.is_replaced);
	assert_int_equal(report.is_adopted, report.is_owned);
	assert_int_equal(report.n_removed, 1);
	assert_installed(t, &routes);
	report = apply(t, &routes);
	assert_int_equal(report.n_batches, 0);
	sl_nft_table_close(t);
	test_routes_done(&routes);
}

/* UINT64_MAX: there is no such counter. */
static uint64_t packets_of(struct sl_nft_table *t, const char *counter)
{
	_cleanup_(sl_nft_ruleset_freep) struct sl_nft_ruleset *rs = NULL;

	assert_int_equal(sl_nft_table_read(t, &rs), 0);
	for (size_t i = 0; i < rs->n_counters; i++)
		if (strcmp(rs->counters[i].name, counter) == 0)
			return rs->counters[i].packets;
	return UINT64_MAX;
}

/* A flow to a port of the loopback device: UDP, so that nobody need be there. */
static void send_to(uint16_t port)
{
	struct sl_addr to;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(sl_addr_parse_ip("127.0.0.1", &to), 0);
	sl_addr_set_port(&to, port);
	assert_int_equal(sendto(fd, "x", 1, 0, &to.sa, sl_addr_len(&to)), 1);
	close(fd);
}

static void counts_of_unchanged_routes_stay(void **state)
{
	struct sl_nft_table *t;
	struct test_routes routes;
	struct sl_nft_route *r, *other;
	struct sl_nft_report report;

	NEEDS_ROOT();
	(void)state;
	test_routes_init(&routes, 3);
	r = test_route(&routes, "a");
	r->protocols = SL_NFT_UDP;
	test_listen(r, NULL, 5000, 5000);
	test_target(r, "127.0.0.1", 5001, 1);
	other = test_route(&routes, "b");
	test_listen(other, NULL, 6000, 6000);
	test_target(other, "127.0.0.1", 6001, 1);
	test_target(other, "127.0.0.1", 6002, 1);
	t = open_table();
	apply(t, &routes);
	assert_int_equal(packets_of(t, "route_1"), 0);
	send_to(5000);
	send_to(5000);
	assert_int_equal(packets_of(t, "route_1"), 2);
	/* everything that "b" can become */
	test_target(other, "127.0.0.1", 6003, 3);
	report = apply(t, &routes);
	assert_int_equal(report.is_replaced, false);
	assert_int_equal(packets_of(t, "route_1"), 2);
	other->max_connections = 5;
	apply(t, &routes);
	other->max_connections = 6;
	apply(t, &routes);
	routes.n--;
	apply(t, &routes);
	assert_installed(t, &routes);
	assert_int_equal(packets_of(t, "route_1"), 2);
	assert_int_equal(packets_of(t, "route_2"), UINT64_MAX);
	send_to(5000);
	assert_int_equal(packets_of(t, "route_1"), 3);
	sl_nft_table_close(t);
	test_routes_done(&routes);
}

static void a_refusal_names_the_route(void **state)
{
	struct sl_nft_ruleset *none = NULL;
	struct sl_nft_report report;
	struct sl_nft_table *t;
	struct test_routes routes;
	struct sl_nft_route *r;

	NEEDS_ROOT();
	(void)state;
	test_routes_init(&routes, 64);
	for (uint16_t i = 0; i < 60; i++) {
		char name[16];

		snprintf(name, sizeof(name), "fine-%u", i);
		r = test_route(&routes, name);
		test_listen(r, NULL, (uint16_t)(1000 + i * 10), (uint16_t)(1005 + i * 10));
		test_target(r, "10.0.0.1", 0, 1);
	}
	r = test_route(&routes, "culprit");
	test_listen(r, NULL, 1203, 1208); /* overlaps with 1200-1205, which the set has by then */
	test_target(r, "10.0.0.1", 0, 1);
	t = open_table();
	assert_int_equal(try_apply(t, &routes, &report), -EEXIST);
	assert_string_equal(report.object, "element of 'any4_range'");
	assert_true(strcmp(report.route, "culprit") == 0 || strcmp(report.route, "fine-20") == 0);
	assert_non_null(strstr(report.text, report.route));
	assert_int_equal(sl_nft_table_read(t, &none), -ENOENT);
	/* a change of a table that is there: it stays as it was */
	routes.n--;
	apply(t, &routes);
	routes.n++;
	assert_int_equal(try_apply(t, &routes, &report), -EEXIST);
	assert_string_equal(report.route, "culprit");
	routes.n--;
	assert_installed(t, &routes);
	sl_nft_table_close(t);
	test_routes_done(&routes);
}

/* Sometimes with a flow table over some of the interfaces there are. */
static struct sl_nft_ruleset *random_ruleset(const struct random_routes *r, bool may_offload,
					     uint32_t *x)
{
	static char devices[][SL_NFT_DEVICE] = { "lo", "d0", "d1" };
	struct sl_nft_ruleset *rs = test_build(&r->t);
	uint32_t n = random_below(x, 4), first = random_below(x, 3);

	if (may_offload && n)
		assert_int_equal(sl_nft_put_offload(rs, r->t.route, r->t.n, devices + first,
						    n < 3 - first ? n : 3 - first),
				 0);
	return rs;
}

/* From any ruleset to any other in one transaction, after which there is nothing left to do. */
static void the_kernel_takes_every_difference(void **state)
{
	_cleanup_(sl_str_done) struct sl_str why = { 0 };
	uint32_t x = 2463534242u;
	bool may_offload;
	struct sl_nft_table *t;

	NEEDS_ROOT();
	(void)state;
	assert_int_equal(run("ip link add d0 type veth peer name d1"), 0);
	t = open_table();
	may_offload = sl_nft_table_try_offload(t, &why) == 0;
	for (int round = 0; round < DIFFERENCES; round++) {
		struct sl_nft_ruleset *wanted, *same, *installed = NULL;
		struct sl_nft_ops ops = { 0 };
		struct sl_nft_report report;
		struct random_routes routes;
		uint32_t y;

		random_routes(&routes, &x);
		y = x;
		wanted = random_ruleset(&routes, may_offload, &x);
		same = random_ruleset(&routes, may_offload, &y);
		if (sl_nft_table_apply(t, &wanted, &report) < 0)
			fail_msg("round %d: %s", round, report.text);
		if (report.is_replaced)
			fail_msg("round %d: the whole table was replaced", round);
		assert_int_equal(sl_nft_table_read(t, &installed), 0);
		assert_int_equal(sl_nft_diff(installed, same, &ops), 0);
		if (ops.n)
			fail_msg("round %d: %zu operations more, the first of kind %d", round,
				 ops.n, ops.op[0].kind);
		sl_nft_ops_done(&ops);
		sl_nft_ruleset_free(installed);
		sl_nft_ruleset_free(same);
		test_routes_done(&routes.t);
		if (round % 10 == 9) { /* what we know is not what was read, but what was sent */
			sl_nft_table_close(t);
			t = open_table();
		}
	}
	sl_nft_table_close(t);
}

/* As a hash looks that grows while it is dumped. */
static void a_dump_of_a_growing_hash_is_read_again(void **state)
{
	struct sl_nft_table *t;
	struct sl_nft_report report;
	struct test_routes routes;

	NEEDS_ROOT();
	(void)state;
	test_many_routes(&routes, 3);
	t = open_table();
	apply(t, &routes);
	sl_nft_table_forget(t);
	n_growing = 2;
	assert_int_equal(try_apply(t, &routes, &report), 0);
	assert_int_equal(n_growing, 0);
	assert_int_equal(report.n_added + report.n_removed, 0);
	assert_installed(t, &routes);
	/* not for ever */
	sl_nft_table_forget(t);
	n_growing = 1000;
	assert_int_equal(try_apply(t, &routes, &report), -EAGAIN);
	n_growing = 0;
	assert_int_equal(try_apply(t, &routes, &report), 0);
	assert_int_equal(report.n_added + report.n_removed, 0);
	sl_nft_table_close(t);
	test_routes_done(&routes);
}

static void others_in_between_are_retried(void **state)
{
	struct sl_nft_report report;
	struct sl_nft_table *t;
	struct test_routes routes;

	NEEDS_ROOT();
	(void)state;
	every_kind(&routes);
	t = open_table();
	n_intruders = 3;
	report = apply(t, &routes);
	assert_int_equal(n_intruders, 0);
	assert_int_equal(report.n_retries, 3);
	assert_installed(t, &routes);
	routes.n--;
	n_intruders = 1;
	report = apply(t, &routes);
	assert_int_equal(report.n_retries, 1);
	assert_installed(t, &routes);
	routes.n--;
	n_intruders = 100;
	assert_int_equal(try_apply(t, &routes, &report), -EAGAIN);
	n_intruders = 0;
	routes.n++;
	assert_installed(t, &routes);
	sl_nft_table_close(t);
	test_routes_done(&routes);
}

/* Readable within a second, and then what it says. */
static int watched(struct sl_nft_table *t)
{
	struct pollfd p = { .fd = sl_nft_table_watch_fd(t), .events = POLLIN };

	assert_int_equal(poll(&p, 1, 1000), 1);
	return sl_nft_table_watch_read(t);
}

static void what_others_do_is_noticed_and_repaired(void **state)
{
	static const struct {
		const char *command;
		int is_ours;
		size_t n_added;
		size_t n_removed;
	} cases[] = {
		{ "nft add table inet another", 0, 0, 0 },
		{ "nft add table ip sluice", 0, 0, 0 },
		{ "nft add set inet another any4 '{ type mark; }'", 0, 0, 0 },
		{ "nft delete element inet sluice any4 '{ tcp . 80 }'", 1, 1, 0 },
		{ "nft add element inet sluice masq '{ 77 }'", 1, 0, 1 },
		{ "nft insert rule inet sluice dispatch accept", 1, 0, 1 },
		{ "nft add rule inet sluice routed ip saddr '{ 1.2.3.4, 1.2.3.5 }' drop", 1, 0, 1 },
		{ "nft add chain inet sluice theirs", 1, 0, 1 },
		{ "nft add set inet sluice theirs '{ type mark; }'", 1, 0, 1 },
		{ "nft flush chain inet sluice policy_5", 1, 10, 0 },
		/* intervals: alone, beside one of ours, instead of it */
		{ "nft add element inet sluice deny4_5 '{ 172.16.0.0/12 }'", 1, 0, 2 },
		{ "nft add element inet sluice deny4_5 '{ 11.0.0.0/16 }'", 1, 0, 2 },
		{ "nft add element inet sluice deny6_5 '{ fd00::/8 }'", 1, 0, 2 },
		{ "nft delete element inet sluice deny4_5 '{ 10.0.0.0/8 }'", 1, 2, 0 },
		{ "nft delete element inet sluice allow4_5 '{ 10.0.0.0/8 }' && nft add element "
		  "inet sluice allow4_5 '{ 10.0.0.0/9 }'",
		  1, 2, 2 },
		{ "nft flush set inet sluice allow6_5", 1, 2, 0 },
		/* the name that goes with a number */
		{ "nft delete element inet sluice route_counter '{ 1 }' && nft add element inet "
		  "sluice route_counter '{ 1 comment \"another\" : \"route_1\" }'",
		  1, 1, 1 },
		{ "nft add element inet sluice any4 '{ * : 1 }'", 1, 0, 1 },
		{ "nft add element inet sluice masq '{ * }'", 1, 0, 1 },
	};
	struct sl_nft_table *t;
	struct test_routes routes;
	struct sl_nft_report report;

	NEEDS_ROOT();
	(void)state;
	is_old_kernel = true; /* or they could not */
	every_kind(&routes);
	t = open_table();
	report = apply(t, &routes);
	assert_false(report.is_owned);
	assert_int_equal(sl_nft_table_watch_read(t), 0);
	for (size_t i = 0; i < SL_ARRAY_LEN(cases); i++) {
		if (run("%s", cases[i].command) != 0)
			fail_msg("it does not work: %s", cases[i].command);
		if (watched(t) != cases[i].is_ours)
			fail_msg("%s", cases[i].command);
		report = apply(t, &routes);
		if (report.n_added != cases[i].n_added || report.n_removed != cases[i].n_removed ||
		    report.is_replaced)
			fail_msg("%s: %zu added, %zu removed", cases[i].command, report.n_added,
				 report.n_removed);
		assert_int_equal(sl_nft_table_watch_read(t), 0);
		assert_installed(t, &routes);
	}
	assert_int_equal(run("nft add quota inet sluice theirs '{ 1 mbytes }'"), 0);
	assert_int_equal(watched(t), 1);
	report = apply(t, &routes);
	assert_true(report.is_replaced);
	assert_installed(t, &routes);
	assert_int_equal(run("nft flush ruleset"), 0);
	assert_int_equal(watched(t), 1);
	report = apply(t, &routes);
	assert_true(report.n_added > 100);
	assert_installed(t, &routes);
	sl_nft_table_close(t);
	test_routes_done(&routes);
}

static void an_owned_table_is_left_alone(void **state)
{
	struct sl_nft_table *t;
	struct test_routes routes;
	struct sl_nft_report report;

	NEEDS_ROOT();
	(void)state;
	every_kind(&routes);
	t = open_table();
	report = apply(t, &routes);
	if (!report.is_owned) {
		sl_nft_table_close(t);
		test_routes_done(&routes);
		skip();
	}
	assert_int_equal(run("nft flush ruleset"), 0);
	assert_int_equal(sl_nft_table_watch_read(t), 0);
	assert_installed(t, &routes);
	assert_int_not_equal(run("nft delete table inet sluice 2> /dev/null"), 0);
	sl_nft_table_close(t);
	/* nobody's: still there, and open to all */
	assert_int_equal(run("nft flush ruleset"), 0);
	assert_int_not_equal(run("nft list table inet sluice > /dev/null 2>&1"), 0);
	test_routes_done(&routes);
}

static void tables_of_others_are_not_touched(void **state)
{
	struct sl_nft_table *t, *other;
	struct test_routes routes;
	struct sl_nft_report report;

	NEEDS_ROOT();
	(void)state;
	every_kind(&routes);
	assert_int_equal(run("nft add table inet sluice"), 0);
	t = open_table();
	assert_int_equal(try_apply(t, &routes, &report), -EEXIST);
	assert_non_null(strstr(report.text, "not of this program"));
	assert_int_equal(sl_nft_table_remove(t, &report), -EEXIST);
	assert_int_equal(run("nft delete table inet sluice"), 0);
	report = apply(t, &routes);
	if (report.is_owned) {
		other = open_table();
		assert_int_equal(try_apply(other, &routes, &report), -EBUSY);
		assert_non_null(strstr(report.text, "another process"));
		assert_int_equal(sl_nft_table_remove(other, &report), -EBUSY);
		sl_nft_table_close(other);
	}
	assert_installed(t, &routes);
	assert_int_equal(sl_nft_table_remove(t, &report), 0);
	assert_int_equal(sl_nft_table_remove(t, &report), 0);
	assert_int_not_equal(run("nft list table inet sluice > /dev/null 2>&1"), 0);
	apply(t, &routes);
	assert_installed(t, &routes);
	sl_nft_table_close(t);
	test_routes_done(&routes);
}

static void it_takes_the_right_to_do_so(void **state)
{
	pid_t pid;
	int status = -1;

	NEEDS_ROOT();
	(void)state;
	pid = fork();
	if (pid == 0) {
		struct sl_nft_table *t = NULL;

		if (setresuid(65534, 65534, 65534) < 0)
			_exit(1);
		_exit(sl_nft_table_open("sluice", &t) == -EPERM && !t ? 0 : 2);
	}
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void a_large_first_load_takes_batches(void **state)
{
	struct sl_nft_table *t;
	struct test_routes routes;
	struct sl_nft_report report;

	NEEDS_ROOT();
	(void)state;
	test_many_routes(&routes, 30000);
	t = open_table();
	report = apply(t, &routes);
	assert_int_equal(report.n_batches, 3); /* the last one: what makes it take effect */
	assert_installed(t, &routes);
	sl_nft_table_close(t);
	test_routes_done(&routes);
}

/* The refusal comes in the second batch; the first was in the kernel by then. */
static void a_large_first_load_leaves_no_half(void **state)
{
	struct sl_nft_ruleset *none = NULL;
	struct sl_nft_report report;
	struct sl_nft_table *t;
	struct test_routes routes;

	NEEDS_ROOT();
	(void)state;
	test_many_routes(&routes, 52000);
	routes.n -= 2;
	for (int i = 0; i < 2; i++) {
		struct sl_nft_route *r = test_route(&routes, i ? "upper" : "lower");

		test_listen(r, NULL, (uint16_t)(60000 + i * 50), (uint16_t)(60100 + i * 50));
		test_target(r, "10.0.0.1", 0, 1);
	}
	t = open_table();
	assert_int_equal(try_apply(t, &routes, &report), -EEXIST);
	assert_int_equal(report.n_batches, 2);
	assert_string_equal(report.route, "upper");
	assert_int_equal(sl_nft_table_read(t, &none), -ENOENT);
	routes.n = 10;
	apply(t, &routes);
	assert_installed(t, &routes);
	sl_nft_table_close(t);
	test_routes_done(&routes);
}

static long resident_kib(void)
{
	char line[256];
	long kib = -1;
	FILE *f = fopen("/proc/self/status", "re");

	assert_non_null(f);
	while (kib < 0 && fgets(line, sizeof(line), f))
		if (strncmp(line, "VmRSS:", 6) == 0)
			kib = strtol(line + 6, NULL, 10);
	(void)fclose(f);
	return kib;
}

/* A target moves, and every other time a route with everything comes or goes. */
static void one_change(struct sl_nft_table *t, struct test_routes *routes, unsigned turn)
{
	struct sl_nft_target *target = (struct sl_nft_target *)&routes->route[turn % 7].targets[0];
	size_t all = routes->n;
	struct sl_nft_report report;

	sl_addr_set_port(&target->addr, (uint16_t)(20000 + turn / 7 % 2));
	routes->n -= turn / 2 % 2;
	report = apply(t, routes);
	routes->n = all;
	assert_true(report.n_added + report.n_removed >= 2);
	assert_false(report.is_replaced);
}

/* After the first thousand, by when the allocators have what they need. */
static void memory_is_flat_over_many_changes(void **state)
{
	const char *slow = getenv("SLUICE_SLOW");
	const unsigned n_changes = slow && atoi(slow) > 1 ? 2000 : 10000;
	static struct sl_ip4_range range = { 1, 5 };
	static const struct sl_ip_set list = { .v4 = &range, .n4 = 1 };
	struct sl_nft_table *t;
	struct test_routes routes;
	struct sl_nft_route *r;
	long before = 0, after;

	NEEDS_ROOT();
	(void)state;
	test_many_routes(&routes, 100);
	r = &routes.route[99];
	test_target(r, "10.0.0.2", 80, 2);
	r->deny = &list;
	r->max_connections = r->max_per_client = 3;
	r->connections = r->packets = (struct sl_nft_rate){ 10, 1, 10 };
	t = open_table();
	apply(t, &routes);
	for (unsigned i = 0; i < n_changes; i++) {
		if (i == 1000)
			before = resident_kib();
		one_change(t, &routes, i);
	}
	after = resident_kib();
	print_message("%u changes: %ld KiB resident, %ld after 1000\n", n_changes, after, before);
#ifndef SL_SANITIZED /* which keep for a while what was freed */
	assert_in_range(after, 1, before + 512);
#endif
	apply(t, &routes);
	assert_installed(t, &routes);
	sl_nft_table_close(t);
	test_routes_done(&routes);
}

static uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

/* Figures are printed, not judged: machines differ. */
static void figures(void **state)
{
	struct sl_nft_table *t;
	struct test_routes routes;
	struct sl_nft_report report;
	struct sl_nft_ruleset *rs = NULL;
	uint64_t start, built, kernel = 0, all = 0;

	NEEDS_ROOT();
	(void)state;
	test_many_routes(&routes, 10000);
	t = open_table();
	start = now_us();
	rs = test_build(&routes);
	built = now_us() - start;
	start = now_us();
	assert_int_equal(sl_nft_table_apply(t, &rs, &report), 0);
	print_message("10000 routes: build %lu us, apply %lu us, of it kernel %lu us\n", built,
		      now_us() - start, report.kernel_us);
	start = now_us();
	assert_int_equal(sl_nft_table_read(t, &rs), 0);
	print_message("read back: %lu us\n", now_us() - start);
	sl_nft_ruleset_free(rs);
	for (uint16_t i = 0; i < 20; i++) {
		struct sl_addr *addr = (struct sl_addr *)&routes.route[5000].targets[0].addr;

		sl_addr_set_port(addr, (uint16_t)(20000 + i));
		rs = test_build(&routes);
		start = now_us();
		assert_int_equal(sl_nft_table_apply(t, &rs, &report), 0);
		all += now_us() - start;
		kernel += report.kernel_us;
		assert_int_equal(report.n_added, 1);
		assert_int_equal(report.n_removed, 1);
	}
	print_message("one of 10000 changed: apply %lu us, of it kernel %lu us\n", all / 20,
		      kernel / 20);
	assert_installed(t, &routes);
	sl_nft_table_close(t);
	test_routes_done(&routes);
}

static int make_dir(void **state)
{
	(void)state;
	return mkdtemp(dir) ? 0 : -1;
}

static int drop_dir(void **state)
{
	(void)state;
	return run("rm -rf %s", dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(nft_reads_what_it_shows, set_up),
		cmocka_unit_test_setup(what_an_owner_has_left_is_seen, set_up),
		cmocka_unit_test_setup(an_orphan_is_made_whole, set_up),
		cmocka_unit_test_setup(a_second_time_changes_nothing, set_up),
		cmocka_unit_test_setup(counts_of_unchanged_routes_stay, set_up),
		cmocka_unit_test_setup(a_refusal_names_the_route, set_up),
		cmocka_unit_test_setup(the_kernel_takes_every_difference, set_up),
		cmocka_unit_test_setup(a_dump_of_a_growing_hash_is_read_again, set_up),
		cmocka_unit_test_setup(others_in_between_are_retried, set_up),
		cmocka_unit_test_setup(what_others_do_is_noticed_and_repaired, set_up),
		cmocka_unit_test_setup(an_owned_table_is_left_alone, set_up),
		cmocka_unit_test_setup(tables_of_others_are_not_touched, set_up),
		cmocka_unit_test_setup(it_takes_the_right_to_do_so, set_up),
		cmocka_unit_test_setup(a_large_first_load_takes_batches, set_up),
		cmocka_unit_test_setup(a_large_first_load_leaves_no_half, set_up),
		cmocka_unit_test_setup(figures, set_up),
		cmocka_unit_test_setup(memory_is_flat_over_many_changes, set_up),
	};

	return cmocka_run_group_tests(tests, make_dir, drop_dir);
}
