/* SPDX-License-Identifier: GPL-3.0-or-later */
/* SYNs of denied sources end in the kernel; needs root, runs in a network namespace of its own. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <cmocka.h>

#include "abi.h"
#include "accel/guard.h"
#include "daemon/bind.h"
#include "daemon/privs.h"
#include "netns.h"

#define PORT 4433
#define PASS (-1)
#define DROP 2
#define SYN 0x02
#define RST 0x04
#define ACK 0x10

static const char *why_skipped;

static int set_up(void **state)
{
	struct sl_guard *g = NULL;
	int r;

	(void)state;
	if (geteuid() != 0) {
		why_skipped = "not root";
		return 0;
	}
	if (enter_netns() < 0) {
		why_skipped = "no network namespace of its own";
		return 0;
	}
	r = sl_guard_new(-1, &g);
	if (r < 0)
		why_skipped = strerror(-r);
	sl_guard_free(g);
	return 0;
}

static void need_kernel(void)
{
	if (why_skipped) {
		print_message("skipped: %s\n", why_skipped);
		skip();
	}
}

static struct sl_addr ip(const char *text)
{
	struct sl_addr a = { 0 };

	if (text)
		assert_int_equal(sl_addr_parse_ip(text, &a), 0);
	return a;
}

/* ---- packets ---- */

struct packet {
	uint8_t p[256];
	size_t n;
};

static void put(struct packet *k, const void *bytes, size_t n)
{
	assert_true(k->n + n <= sizeof(k->p));
	memcpy(k->p + k->n, bytes, n);
	k->n += n;
}

static void put_eth(struct packet *k, uint16_t proto)
{
	uint8_t eth[14] = { [12] = (uint8_t)(proto >> 8), [13] = (uint8_t)proto };

	put(k, eth, sizeof(eth));
}

static void put_tcp(struct packet *k, uint16_t port, uint8_t flags)
{
	uint8_t tcp[20] = { 0x9c, 0x40, (uint8_t)(port >> 8), (uint8_t)port, [12] = 0x50, flags };

	put(k, tcp, sizeof(tcp));
}

struct v4 {
	const char *src;
	const char *dst;
	uint16_t port;
	uint8_t flags;
	uint8_t proto;     /* 0: TCP */
	uint8_t version;   /* 0: 4 */
	uint8_t ihl;       /* 0: 5 */
	uint16_t fragment; /* flags and offset */
};

static struct packet packet4(struct v4 o)
{
	struct packet k = { 0 };
	uint8_t head[60] = { 0 };
	unsigned ihl = o.ihl ? o.ihl : 5;

	put_eth(&k, 0x0800);
	head[0] = (uint8_t)((o.version ? o.version : 4) << 4 | ihl);
	head[6] = (uint8_t)(o.fragment >> 8);
	head[7] = (uint8_t)o.fragment;
	head[8] = 64;
	head[9] = o.proto ? o.proto : IPPROTO_TCP;
	assert_int_equal(inet_pton(AF_INET, o.src, head + 12), 1);
	assert_int_equal(inet_pton(AF_INET, o.dst ? o.dst : "127.0.0.1", head + 16), 1);
	memset(head + 20, 1, 40); /* NOP options, where there is room for them */
	put(&k, head, ihl < 5 ? 20 : ihl * 4);
	put_tcp(&k, o.port ? o.port : PORT, o.flags ? o.flags : SYN);
	return k;
}

static struct packet packet6(const char *src, uint8_t first, const void *extensions, size_t n)
{
	struct packet k = { 0 };
	uint8_t head[40] = { 0x60, [6] = first, [7] = 64 };

	put_eth(&k, 0x86dd);
	assert_int_equal(inet_pton(AF_INET6, src, head + 8), 1);
	assert_int_equal(inet_pton(AF_INET6, "::1", head + 24), 1);
	put(&k, head, sizeof(head));
	put(&k, extensions, n);
	put_tcp(&k, PORT, SYN);
	return k;
}

static int run(const struct sl_guard *g, struct packet k)
{
	LIBBPF_OPTS(bpf_test_run_opts, o, .data_in = k.p, .data_size_in = (uint32_t)k.n);

	assert_int_equal(bpf_prog_test_run_opts(sl_guard_program_fd(g), &o), 0);
	return (int)o.retval;
}

static int run4(const struct sl_guard *g, const char *src)
{
	return run(g, packet4((struct v4){ .src = src }));
}

static int run6(const struct sl_guard *g, const char *src)
{
	return run(g, packet6(src, IPPROTO_TCP, "", 0));
}

/* ---- a guard with some rules ---- */

static struct sl_ip4_range range4(const char *from, const char *to)
{
	struct sl_addr a = ip(from), b = ip(to);

	return (struct sl_ip4_range){ ntohl(a.v4.sin_addr.s_addr), ntohl(b.v4.sin_addr.s_addr) };
}

static struct sl_ip6_range range6(const char *from, const char *to)
{
	struct sl_addr a = ip(from), b = ip(to);
	struct sl_ip6_range r;

	memcpy(r.from, &a.v6.sin6_addr, 16);
	memcpy(r.to, &b.v6.sin6_addr, 16);
	return r;
}

static void listens(struct sl_guard *g, const struct sl_guard_listen *l, size_t n)
{
	size_t left = 99;

	assert_int_equal(sl_guard_set_listens(g, l, n, &left), 0);
	assert_int_equal(left, 0);
}

static struct sl_guard *fresh(int count_fd)
{
	struct sl_ip4_range v4[2] = { range4("10.0.0.0", "10.0.0.255"),
				      range4("127.0.0.66", "127.0.0.66") };
	struct sl_ip6_range v6[1] = { range6("2001:db8::", "2001:db8::ffff") };
	const struct sl_ip_set denied = { .v4 = v4, .n4 = 2, .v6 = v6, .n6 = 1 };
	const struct sl_guard_listen l = { .from = PORT, .to = PORT + 1 };
	struct sl_guard *g = NULL;

	assert_int_equal(sl_guard_new(count_fd, &g), 0);
	listens(g, &l, 1);
	assert_int_equal(sl_guard_set_denied(g, &denied), 0);
	return g;
}

static struct sl_guard_counts counts(const struct sl_guard *g)
{
	const struct sl_guard_counts *page = NULL;
	struct sl_guard_counts n;

	assert_int_equal(sl_guard_map_counts(sl_guard_count_fd(g), &page), 0);
	n = *page;
	sl_guard_unmap_counts(page);
	return n;
}

static void assert_counts(const struct sl_guard *g, struct sl_guard_counts want)
{
	struct sl_guard_counts n = counts(g);

	assert_memory_equal(&n, &want, sizeof(n));
}

/* ---- tests ---- */

static void test_only_the_syn(void **state)
{
	const uint8_t all[] = { ACK, SYN | ACK, RST, RST | ACK, 0x01 | ACK, 0x08 | ACK };
	struct sl_guard *g;

	(void)state;
	need_kernel();
	g = fresh(-1);
	assert_int_equal(run4(g, "10.0.0.7"), DROP);
	assert_int_equal(run4(g, "10.0.1.0"), PASS);
	assert_counts(g, (struct sl_guard_counts){ .dropped4 = 1, .passed4 = 1 });
	for (size_t i = 0; i < sizeof(all); i++)
		assert_int_equal(run(g, packet4((struct v4){ .src = "10.0.0.7", .flags = all[i] })),
				 PASS);
	/* With ECN asked for, and with data, as TCP Fast Open has it. */
	assert_int_equal(run(g, packet4((struct v4){ .src = "10.0.0.7", .flags = SYN | 0xc0 })),
			 DROP);
	assert_int_equal(run(g, packet4((struct v4){ .src = "10.0.0.7", .flags = SYN | 0x08 })),
			 DROP);
	assert_int_equal(run(g, packet4((struct v4){ .src = "10.0.0.7", .proto = IPPROTO_UDP })),
			 PASS);
	assert_counts(g, (struct sl_guard_counts){ .dropped4 = 3, .passed4 = 1 });
	sl_guard_free(g);
}

static void test_ports(void **state)
{
	struct sl_guard_listen l[] = {
		{ .from = 80, .to = 80 },
		{ .ip = ip("0.0.0.0"), .from = 100, .to = 110 },
		{ .ip = ip("::"), .from = 200, .to = 200 },
		{ .ip = ip("127.0.0.1"), .from = 300, .to = 301 },
		{ .ip = ip("::1"), .from = 400, .to = 400 },
		{ .ip = ip("127.0.0.2"), .from = 400, .to = 400 },
		{ .from = 65535, .to = 65535 },
	};
	static const struct {
		const char *dst;
		uint16_t port;
		int verdict;
	} cases[] = {
		{ "127.0.0.1", 80, DROP },   { "127.0.0.1", 79, PASS },
		{ "127.0.0.1", 81, PASS },   { "127.0.0.1", 100, DROP },
		{ "127.0.0.1", 110, DROP },  { "127.0.0.1", 99, PASS },
		{ "127.0.0.1", 111, PASS },  { "127.0.0.1", 200, PASS },
		{ "127.0.0.1", 300, DROP },  { "127.0.0.1", 301, DROP },
		{ "127.0.0.2", 300, PASS },  { "127.0.0.1", 302, PASS },
		{ "127.0.0.1", 400, PASS },  { "127.0.0.2", 400, DROP },
		{ "127.0.0.1", PORT, PASS }, { "127.0.0.1", 65535, DROP },
	};
	struct sl_guard *g;
	struct sl_guard_counts n;

	(void)state;
	need_kernel();
	g = fresh(-1);
	assert_int_equal(run4(g, "10.0.0.7"), DROP);
	listens(g, l, SL_ARRAY_LEN(l));
	for (size_t i = 0; i < SL_ARRAY_LEN(cases); i++) {
		const struct v4 o = { .src = "10.0.0.7",
				      .dst = cases[i].dst,
				      .port = cases[i].port };

		assert_int_equal(run(g, packet4(o)), cases[i].verdict);
	}
	/* What is not for us is not counted either. */
	n = counts(g);
	assert_int_equal(n.dropped4, 8);
	assert_int_equal(n.passed4, 0);
	l[3].ip = ip("127.0.0.2");
	listens(g, &l[3], 1);
	assert_int_equal(
		run(g, packet4((struct v4){ .src = "10.0.0.7", .dst = "127.0.0.2", .port = 300 })),
		DROP);
	assert_int_equal(
		run(g, packet4((struct v4){ .src = "10.0.0.7", .dst = "127.0.0.1", .port = 300 })),
		PASS);
	assert_int_equal(
		run(g, packet4((struct v4){ .src = "10.0.0.7", .dst = "127.0.0.1", .port = 80 })),
		PASS);
	sl_guard_free(g);
}

/* More than there is room for: the daemon answers for what is left out. */
static void test_too_many_addresses(void **state)
{
	struct sl_guard_listen l[2] = { { .ip = ip("127.0.0.1"), .from = 0, .to = 65535 },
					{ .ip = ip("127.0.0.2"), .from = 443, .to = 452 } };
	struct sl_guard *g;
	size_t left = 0;

	(void)state;
	need_kernel();
	g = fresh(-1);
	assert_int_equal(sl_guard_set_listens(g, l, 2, &left), 0);
	assert_int_equal(left, 10);
	assert_int_equal(
		run(g, packet4((struct v4){ .src = "10.0.0.7", .dst = "127.0.0.1", .port = 443 })),
		DROP);
	assert_int_equal(
		run(g, packet4((struct v4){ .src = "10.0.0.7", .dst = "127.0.0.2", .port = 443 })),
		PASS);
	/* All of them change, in a table that is full. */
	l[0].ip = ip("127.0.0.3");
	listens(g, l, 1);
	assert_int_equal(
		run(g, packet4((struct v4){ .src = "10.0.0.7", .dst = "127.0.0.1", .port = 443 })),
		PASS);
	assert_int_equal(
		run(g, packet4((struct v4){ .src = "10.0.0.7", .dst = "127.0.0.3", .port = 443 })),
		DROP);
	sl_guard_free(g);
}

static void test_odd_ipv4(void **state)
{
	struct sl_guard *g;
	struct packet k;
	uint8_t tag[4] = { 0x00, 0x64, 0x08, 0x00 };

	(void)state;
	need_kernel();
	g = fresh(-1);
	for (uint8_t ihl = 5; ihl <= 15; ihl++)
		assert_int_equal(run(g, packet4((struct v4){ .src = "10.0.0.7", .ihl = ihl })),
				 DROP);
	assert_counts(g, (struct sl_guard_counts){ .dropped4 = 11 });
	for (uint8_t ihl = 1; ihl < 5; ihl++)
		assert_int_equal(run(g, packet4((struct v4){ .src = "10.0.0.7", .ihl = ihl })),
				 PASS);
	assert_int_equal(run(g, packet4((struct v4){ .src = "10.0.0.7", .version = 5 })), PASS);
	/* "Do not fragment" is none; more fragments and an offset are. */
	assert_int_equal(run(g, packet4((struct v4){ .src = "10.0.0.7", .fragment = 0x4000 })),
			 DROP);
	assert_counts(g, (struct sl_guard_counts){ .dropped4 = 12 });
	assert_int_equal(run(g, packet4((struct v4){ .src = "10.0.0.7", .fragment = 0x2000 })),
			 PASS);
	assert_int_equal(run(g, packet4((struct v4){ .src = "10.0.0.7", .fragment = 0x0001 })),
			 PASS);
	assert_int_equal(run(g, packet4((struct v4){ .src = "10.0.0.7", .fragment = 0x1000 })),
			 PASS);
	assert_counts(g, (struct sl_guard_counts){ .dropped4 = 12, .unread = 3 });
	/* Cut short; the kernel runs no test below an IP header. */
	k = packet4((struct v4){ .src = "10.0.0.7" });
	for (k.n = 14 + 20; k.n <= 14 + 20 + 20; k.n++)
		assert_int_equal(run(g, k), k.n < 14 + 20 + 20 ? PASS : DROP);
	/* A second tag stays in the packet. */
	k = packet4((struct v4){ .src = "10.0.0.7" });
	memmove(k.p + 18, k.p + 14, k.n - 14);
	k.p[12] = 0x81;
	k.p[13] = 0x00;
	memcpy(k.p + 14, tag, sizeof(tag));
	k.n += 4;
	assert_int_equal(run(g, k), PASS);
	/* IPv6 in the frame, IPv4 in its type, and the other way round. */
	k = packet6("2001:db8::1", IPPROTO_TCP, "", 0);
	k.p[12] = 0x08;
	k.p[13] = 0x00;
	assert_int_equal(run(g, k), PASS);
	sl_guard_free(g);
}

static void test_ipv6(void **state)
{
	uint8_t ext[64] = { 0 };
	struct sl_guard *g;
	struct packet k;

	(void)state;
	need_kernel();
	g = fresh(-1);
	assert_int_equal(run6(g, "2001:db8::"), DROP);
	assert_int_equal(run6(g, "2001:db8::ffff"), DROP);
	assert_int_equal(run6(g, "2001:db8::1:0"), PASS);
	assert_int_equal(run6(g, "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff"), PASS);
	assert_counts(g, (struct sl_guard_counts){ .dropped6 = 2, .passed6 = 2 });
	/* One header of each kind: next, length, ... */
	ext[0] = IPPROTO_TCP;
	assert_int_equal(run(g, packet6("2001:db8::1", IPPROTO_HOPOPTS, ext, 8)), DROP);
	assert_int_equal(run(g, packet6("2001:db8::1", IPPROTO_ROUTING, ext, 8)), DROP);
	assert_int_equal(run(g, packet6("2001:db8::1", IPPROTO_DSTOPTS, ext, 8)), DROP);
	assert_int_equal(run(g, packet6("2001:db8::1", IPPROTO_FRAGMENT, ext, 8)), DROP);
	ext[1] = 2;
	assert_int_equal(run(g, packet6("2001:db8::1", IPPROTO_HOPOPTS, ext, 24)), DROP);
	assert_int_equal(run(g, packet6("2001:db8::1", IPPROTO_AH, ext, 16)), DROP);
	assert_counts(g, (struct sl_guard_counts){ .dropped6 = 8, .passed6 = 2 });
	ext[1] = 0;
	ext[3] = 1; /* more fragments */
	assert_int_equal(run(g, packet6("2001:db8::1", IPPROTO_FRAGMENT, ext, 8)), PASS);
	ext[3] = 8; /* an offset */
	assert_int_equal(run(g, packet6("2001:db8::1", IPPROTO_FRAGMENT, ext, 8)), PASS);
	ext[3] = 0;
	ext[2] = 1;
	assert_int_equal(run(g, packet6("2001:db8::1", IPPROTO_FRAGMENT, ext, 8)), PASS);
	assert_counts(g, (struct sl_guard_counts){ .dropped6 = 8, .passed6 = 2, .unread = 3 });
	/* Six are followed, seven are not. */
	memset(ext, 0, sizeof(ext));
	for (unsigned i = 0; i < 7; i++)
		ext[i * 8] = i < 5 ? IPPROTO_DSTOPTS : IPPROTO_TCP;
	assert_int_equal(run(g, packet6("2001:db8::1", IPPROTO_DSTOPTS, ext, 48)), DROP);
	ext[40] = IPPROTO_DSTOPTS;
	assert_int_equal(run(g, packet6("2001:db8::1", IPPROTO_DSTOPTS, ext, 56)), PASS);
	assert_counts(g, (struct sl_guard_counts){ .dropped6 = 9, .passed6 = 2, .unread = 4 });
	/* ICMPv6, ESP, no next header. */
	assert_int_equal(run(g, packet6("2001:db8::1", IPPROTO_ICMPV6, "", 0)), PASS);
	assert_int_equal(run(g, packet6("2001:db8::1", IPPROTO_ESP, "", 0)), PASS);
	assert_int_equal(run(g, packet6("2001:db8::1", IPPROTO_NONE, "", 0)), PASS);
	k = packet6("2001:db8::1", IPPROTO_HOPOPTS, (uint8_t[8]){ IPPROTO_TCP }, 8);
	for (k.n = 14 + 40; k.n <= 14 + 40 + 8 + 20; k.n++)
		assert_int_equal(run(g, k), k.n < 14 + 40 + 8 + 20 ? PASS : DROP);
	/* A length that leads out of the packet. */
	ext[0] = IPPROTO_TCP;
	ext[1] = 255;
	assert_int_equal(run(g, packet6("2001:db8::1", IPPROTO_HOPOPTS, ext, 8)), PASS);
	sl_guard_free(g);
}

static uint32_t next_random(uint32_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 17;
	*x ^= *x << 5;
	return *x;
}

static void check_edge(const struct sl_guard *g, const struct sl_ip_set *set, uint32_t address)
{
	char text[INET_ADDRSTRLEN];
	struct in_addr in = { htonl(address) };
	struct sl_addr a;

	assert_non_null(inet_ntop(AF_INET, &in, text, sizeof(text)));
	a = ip(text);
	assert_int_equal(run4(g, text), sl_ip_set_has(set, &a) ? DROP : PASS);
}

/* The kernel finds what the daemon finds, for tables of many sizes, at the edge of each range. */
static void test_same_as_daemon(void **state)
{
	static const size_t sizes[] = { 1, 2, 3, 4, 5, 31, 32, 33, 1000 };
	struct sl_guard *g;
	uint32_t seed = 20261121;

	(void)state;
	need_kernel();
	g = fresh(-1);
	for (size_t s = 0; s < SL_ARRAY_LEN(sizes); s++) {
		size_t n = sizes[s];
		struct sl_ip4_range v4[1000];
		struct sl_ip6_range v6[1000] = { 0 };
		struct sl_ip_set set = { .v4 = v4, .n4 = n, .v6 = v6, .n6 = n };

		for (size_t i = 0; i < n; i++) {
			v4[i].from = next_random(&seed);
			v4[i].to = v4[i].from + next_random(&seed) % 1000;
			if (v4[i].to < v4[i].from)
				v4[i].to = UINT32_MAX;
			for (int b = 0; b < 16; b += 4)
				memcpy(&v6[i].from[b], (uint32_t[]){ next_random(&seed) }, 4);
			memcpy(v6[i].to, v6[i].from, 16);
			v6[i].to[15] |= 0x0f;
		}
		v4[0] = (struct sl_ip4_range){ 0, n % 2 };
		v4[n - 1] = (struct sl_ip4_range){ UINT32_MAX - 1, UINT32_MAX };
		sl_ip_set_build(&set, NULL);
		assert_int_equal(sl_guard_set_denied(g, &set), 0);
		for (size_t i = 0; i < set.n4; i++) {
			check_edge(g, &set, v4[i].from - 1);
			check_edge(g, &set, v4[i].from);
			check_edge(g, &set, v4[i].to);
			check_edge(g, &set, v4[i].to + 1);
		}
		for (size_t i = 0; i < set.n6; i++) {
			char text[INET6_ADDRSTRLEN];

			assert_non_null(inet_ntop(AF_INET6, v6[i].to, text, sizeof(text)));
			assert_int_equal(run6(g, text), DROP);
			v6[i].to[7] ^= 1; /* another one, as good as certainly in no range */
			assert_non_null(inet_ntop(AF_INET6, v6[i].to, text, sizeof(text)));
			assert_int_equal(run6(g, text), PASS);
		}
	}
	sl_guard_free(g);
}

static void test_replace(void **state)
{
	const struct sl_ip_set none = { 0 };
	struct sl_ip_set set = { .n4 = SL_GUARD_MAX_RANGES + 1ul };
	struct sl_ip6_range v6[1] = { range6("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff") };
	struct sl_guard *g;

	(void)state;
	need_kernel();
	g = fresh(-1);
	assert_int_equal(sl_guard_set_denied(g, &set), -E2BIG);
	set = (struct sl_ip_set){ .n6 = SL_GUARD_MAX_RANGES + 1ul };
	assert_int_equal(sl_guard_set_denied(g, &set), -E2BIG);
	assert_int_equal(run4(g, "10.0.0.7"), DROP);
	assert_int_equal(run6(g, "2001:db8::1"), DROP);
	assert_int_equal(sl_guard_set_denied(g, &none), 0);
	assert_int_equal(sl_guard_set_denied(g, &none), 0);
	assert_int_equal(run4(g, "10.0.0.7"), PASS);
	assert_int_equal(run6(g, "2001:db8::1"), PASS);
	set = (struct sl_ip_set){ .v6 = v6, .n6 = 1 };
	assert_int_equal(sl_guard_set_denied(g, &set), 0);
	assert_int_equal(run4(g, "10.0.0.7"), PASS);
	assert_int_equal(run6(g, "::"), DROP);
	assert_int_equal(run6(g, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), DROP);
	sl_guard_free(g);
}

/* What the proxy is given: it can read the counters and do nothing else. */
static void test_counters(void **state)
{
	const struct sl_guard_counts *page = NULL;
	struct sl_guard_counts n = { 0 };
	struct sl_guard *g;
	uint32_t zero = 0;
	int fd;

	(void)state;
	need_kernel();
	g = fresh(-1);
	fd = fcntl(sl_guard_count_fd(g), F_DUPFD_CLOEXEC, 3);
	assert_true(fd >= 0);
	assert_int_equal(sl_guard_map_counts(fd, &page), 0);
	assert_int_equal(page->dropped4, 0);
	assert_int_equal(run4(g, "10.0.0.7"), DROP);
	assert_int_equal(page->dropped4, 1);
	assert_true(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED);
	assert_true(errno == EPERM || errno == EACCES);
	assert_true(mprotect((void *)(uintptr_t)page, 4096, PROT_READ | PROT_WRITE) < 0);
	assert_true(errno == EPERM || errno == EACCES);
	assert_true(bpf_map_update_elem(fd, &zero, &n, BPF_ANY) < 0);
	assert_int_equal(errno, EPERM);
	/* The next guard goes on counting in the same place. */
	sl_guard_free(g);
	g = fresh(fd);
	assert_int_equal(run4(g, "10.0.0.7"), DROP);
	assert_int_equal(page->dropped4, 2);
	assert_int_equal(counts(g).dropped4, 2);
	sl_guard_unmap_counts(page);
	sl_guard_free(g);
	/* Whatever is not such a map is not used. */
	fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	g = fresh(fd);
	assert_int_equal(fcntl(fd, F_GETFD), -1);
	assert_int_equal(counts(g).dropped4, 0);
	sl_guard_free(g);
}

static int connect_from(const char *src, uint16_t port)
{
	struct sl_addr from = ip(src);
	struct sl_addr to = ip("127.0.0.1");
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	assert_true(fd >= 0);
	sl_addr_set_port(&to, port);
	assert_int_equal(bind(fd, &from.sa, sl_addr_len(&from)), 0);
	if (connect(fd, &to.sa, sl_addr_len(&to)) < 0)
		assert_int_equal(errno, EINPROGRESS);
	return fd;
}

static bool is_connected(int fd, int wait_ms)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };

	return poll(&p, 1, wait_ms) == 1 && (p.revents & (POLLOUT | POLLERR | POLLHUP)) == POLLOUT;
}

/* Real connections over the loopback interface. */
static void test_attached(void **state)
{
	unsigned lo = if_nametoindex("lo");
	const struct sl_addr any = { 0 };
	struct sl_guard *g;
	int listener = -1, link = -1, again = -1, good, bad, before;

	(void)state;
	need_kernel();
	g = fresh(-1);
	assert_int_equal(sl_bind_tcp(&any, PORT, 16, false, &listener), 0);
	before = connect_from("127.0.0.66", PORT);
	assert_true(is_connected(before, 5000));
	if (sl_guard_attach(g, lo, &link) < 0) {
		print_message("skipped: no tcx\n");
		skip();
	}
	assert_true(sl_guard_is_attached(link, lo));
	assert_false(sl_guard_is_attached(link, lo + 1));
	assert_false(sl_guard_is_attached(listener, lo));
	assert_true(sl_guard_attach(g, lo, &again) < 0); /* once is enough */
	assert_true(sl_guard_attach(g, 4711, &again) < 0);
	bad = connect_from("127.0.0.66", PORT);
	good = connect_from("127.0.0.67", PORT);
	assert_true(is_connected(good, 5000));
	assert_false(is_connected(bad, 0));
	assert_true(counts(g).dropped4 >= 1);
	assert_int_equal(counts(g).passed4, 1);
	/* What was there before goes on. */
	assert_int_equal(write(before, "x", 1), 1);
	assert_int_equal(close(link), 0);
	assert_true(is_connected(bad, 10000)); /* by a retransmission */
	assert_int_equal(close(good) | close(bad) | close(before) | close(listener), 0);
	sl_guard_free(g);
}

/* A reload may bring the first denied source when most capabilities are given up. */
static void test_supervisor_may_load(void **state)
{
	pid_t pid;
	int status;

	(void)state;
	need_kernel();
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		if (sl_privs_trim_supervisor() < 0)
			_exit(1);
		_exit(run4(fresh(-1), "10.0.0.7") == DROP ? 0 : 2);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_only_the_syn),
		cmocka_unit_test(test_ports),
		cmocka_unit_test(test_too_many_addresses),
		cmocka_unit_test(test_odd_ipv4),
		cmocka_unit_test(test_ipv6),
		cmocka_unit_test(test_same_as_daemon),
		cmocka_unit_test(test_replace),
		cmocka_unit_test(test_counters),
		cmocka_unit_test(test_attached),
		cmocka_unit_test(test_supervisor_may_load),
	};

	return cmocka_run_group_tests(tests, set_up, NULL);
}
