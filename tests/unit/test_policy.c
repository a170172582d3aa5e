/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What the broker allows: taken from a configuration, carried in a memfd, believed in no number. */
#include "conf_text.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/memfd.h"
#include "broker/policy.h"

static int pack(const char *text, uint64_t generation)
{
	_cleanup_(built_done) struct built b = build_text(text);
	int fd = -1;

	if (b.r < 0)
		fail_msg("%s", sl_str_text(&b.diags.text));
	assert_int_equal(sl_policy_pack(b.conf, generation, &fd), 0);
	return fd;
}

static struct sl_policy *policy_of(const char *text)
{
	_cleanup_fd_ int fd = pack(text, 7);
	struct sl_policy *p = NULL;

	assert_int_equal(sl_policy_unpack(fd, &p), 0);
	return p;
}

static struct sl_addr addr(const char *text)
{
	struct sl_addr a;

	if (sl_addr_parse(text, &a) < 0)
		fail_msg("%s", text);
	return a;
}

static bool allows(const struct sl_policy *p, uint32_t route, const char *front,
		   const char *backend)
{
	const struct sl_addr f = addr(front), b = addr(backend);

	return sl_policy_allows(p, route, false, &f, &b);
}

/* ---- carrying it ---- */

#define SAMPLE                                                                                 \
	"version: 1\nglobal:\n  bpf_dir: /sys/fs/bpf/x\n  packet: { hook: xdp, interfaces: "   \
	"[eth0, abcdefghijklmno], ports: 2000-2999, max_flows: 64 }\nroutes:\n"                \
	"  - { name: a, match: { ports: [443, 80, \"10.0.0.1:8000-8010\"] }, forward: "        \
	"[\"192.0.2.1:1\", \"h:2\"] }\n"                                                       \
	"  - { name: b, match: { ports: 90 }, forward: { targets: \"::1\", port: preserve }, " \
	"engine: relay }\n"

static void test_round_trip(void **state)
{
	struct sl_policy *p = policy_of(SAMPLE);

	(void)state;
	assert_int_equal(p->generation, 7);
	assert_false(p->is_off);
	assert_true(p->wants_xdp);
	assert_int_equal(p->port_from, 2000);
	assert_int_equal(p->port_to, 2999);
	assert_int_equal(p->max_flows, 64);
	assert_string_equal(p->bpf_dir, "/sys/fs/bpf/x");
	assert_int_equal(p->n_interfaces, 2);
	assert_string_equal(p->interfaces[0], "eth0");
	assert_string_equal(p->interfaces[1], "abcdefghijklmno");
	assert_int_equal(p->n_listens, 4);
	assert_int_equal(p->n_routes, 2);
	assert_string_equal(p->routes[0].name, "a");
	assert_int_equal(p->routes[0].min_port, 80);
	assert_int_equal(p->routes[0].max_port, 8010);
	assert_int_equal(p->routes[0].first_target, 0);
	assert_int_equal(p->routes[0].n_targets, 2);
	assert_true(p->routes[0].may_packet);
	assert_string_equal(p->routes[1].name, "b");
	assert_int_equal(p->routes[1].first_target, 2);
	assert_int_equal(p->routes[1].n_targets, 1);
	assert_false(p->routes[1].may_packet);
	assert_int_equal(p->n_targets, 3);
	assert_int_equal(p->targets[0].port, 1);
	assert_int_equal(sl_addr_family(&p->targets[1].ip), AF_UNSPEC);
	assert_int_equal(p->targets[2].port, 0);
	assert_int_equal(sl_addr_family(&p->targets[2].ip), AF_INET6);
	sl_policy_free(p);
	sl_policy_free(NULL);
}

static void test_nothing_in_it(void **state)
{
	struct sl_policy *p = policy_of("version: 1\n");

	(void)state;
	assert_int_equal(p->n_listens + p->n_routes + p->n_targets + p->n_interfaces, 0);
	assert_false(p->is_off || p->wants_xdp);
	assert_false(allows(p, 0, "10.0.0.1:80", "10.0.0.2:80"));
	sl_policy_free(p);
}

/* As a program of its own would: paths longer than what carries them. */
static void test_too_long(void **state)
{
	struct sl_conf conf = { .global.packet = { .port_from = 1, .port_to = 2, .max_flows = 1 } };
	char *name = (char *)"abcdefghijklmnop", path[300];
	int fd = -7;

	(void)state;
	memset(path, 'x', sizeof(path));
	path[0] = '/';
	path[256] = '\0';
	conf.global.bpf_dir = path;
	assert_int_equal(sl_policy_pack(&conf, 1, &fd), -ENAMETOOLONG);
	path[255] = '\0';
	assert_int_equal(sl_policy_pack(&conf, 1, &fd), 0);
	assert_int_equal(close(fd), 0);
	fd = -7;
	conf.global.packet.interfaces = &name;
	conf.global.packet.n_interfaces = 1;
	assert_int_equal(sl_policy_pack(&conf, 1, &fd), -ENAMETOOLONG);
	assert_int_equal(fd, -7);
}

/* ---- what it must not believe ---- */

static char *bytes_of(const char *text, size_t *ret_n)
{
	_cleanup_fd_ int fd = pack(text, 7);
	char *bytes = NULL;

	assert_int_equal(sl_memfd_read(fd, 1 << 20, &bytes, ret_n), 0);
	return bytes;
}

static int unpack_bytes(const void *bytes, size_t n, struct sl_policy **ret)
{
	_cleanup_fd_ int fd = -1;

	assert_int_equal(sl_memfd_new("test", bytes, n, &fd), 0);
	return sl_policy_unpack(fd, ret);
}

static void test_sizes(void **state)
{
	struct sl_policy *p = NULL;
	size_t n;
	char *bytes = bytes_of(SAMPLE, &n), *more = calloc(1, n + 64);

	(void)state;
	assert_non_null(more);
	memcpy(more, bytes, n);
	for (size_t cut = 0; cut < n; cut++)
		assert_int_equal(unpack_bytes(bytes, cut, &p), -EBADMSG);
	for (size_t i = 1; i <= 64; i++)
		assert_int_equal(unpack_bytes(more, n + i, &p), -EBADMSG);
	assert_null(p);
	assert_int_equal(unpack_bytes(bytes, n, &p), 0);
	sl_policy_free(p);
	free(bytes);
	free(more);
}

static void test_not_sealed(void **state)
{
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	struct sl_policy *p = NULL;
	size_t n;
	char *bytes = bytes_of(SAMPLE, &n);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, n), n);
	assert_int_equal(sl_policy_unpack(fd, &p), -EPERM);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, SL_SEALS & ~F_SEAL_WRITE), 0);
	assert_int_equal(sl_policy_unpack(fd, &p), -EPERM);
	assert_int_equal(close(fd), 0);
	assert_int_equal(sl_policy_unpack(STDIN_FILENO, &p), -EPERM);
	assert_null(p);
	free(bytes);
}

/* A policy that came through is one every part of which may be used. */
static void check_sound(const struct sl_policy *p)
{
	const struct sl_addr front = addr("10.0.0.1:80");

	assert_true(p->port_from >= 1 && p->port_from <= p->port_to && p->max_flows >= 1);
	assert_true(p->bpf_dir[0] == '/' && strnlen(p->bpf_dir, 256) < 256);
	for (uint32_t i = 0; i < p->n_listens; i++)
		assert_true(p->listens[i].from >= 1 && p->listens[i].from <= p->listens[i].to);
	for (uint32_t i = 0; i < p->n_routes; i++) {
		const struct sl_policy_route *r = &p->routes[i];

		assert_true(strnlen(r->name, sizeof(r->name)) < sizeof(r->name));
		assert_true((uint64_t)r->first_target + r->n_targets <= p->n_targets);
		(void)sl_policy_allows(p, i, false, &front, &front);
	}
	for (uint32_t i = 0; i < p->n_interfaces; i++)
		assert_true(p->interfaces[i][0] && strnlen(p->interfaces[i], 16) < 16);
}

/* Each byte in turn is other than it was: it is refused, or is a policy all the same. */
static void test_every_byte(void **state)
{
	static const uint8_t flip[] = { 0x01, 0x80, 0xff };
	size_t n, refused = 0;
	char *bytes = bytes_of(SAMPLE, &n);

	(void)state;
	for (size_t i = 0; i < n; i++) {
		for (size_t k = 0; k < SL_ARRAY_LEN(flip); k++) {
			struct sl_policy *p = NULL;
			char was = bytes[i];
			int r;

			bytes[i] = (char)((uint8_t)was ^ flip[k]);
			r = unpack_bytes(bytes, n, &p);
			bytes[i] = was;
			if (r == 0)
				check_sound(p);
			else
				assert_int_equal(r, -EBADMSG);
			refused += r < 0;
			sl_policy_free(p);
		}
	}
	assert_true(refused > n / 4); /* the magic, counts, ports, texts, flags */
	free(bytes);
}

/* ---- what is allowed ---- */

static const char *const rules =
	"version: 1\nroutes:\n"
	"  - { name: any, match: { ports: [80, 8000-8010] }, forward: [\"10.1.0.1:81\", "
	"\"[2001:db8::1]:82\"] }\n"
	"  - { name: one, match: { ports: \"10.0.0.1:90-95\" }, forward: \"10.1.0.2:99\", engine: "
	"packet }\n"
	"  - { name: v4, match: { ports: \"0.0.0.0:100\" }, forward: { targets: 10.1.0.3, port: "
	"preserve, send_proxy: v2 } }\n"
	"  - { name: v6, match: { ports: \"[::]:100-101\" }, forward: \"name.example:7\" }\n"
	"  - { name: relay, match: { ports: 120 }, forward: \"10.1.0.1:81\", engine: relay }\n"
	"  - { name: off, match: { ports: 80 }, forward: \"10.1.0.9:81\", enabled: false }\n"
	"  - { name: gone, match: { ports: 130 }, forward: \"10.1.0.9:81\", enabled: false }\n";

static void test_allows(void **state)
{
	static const struct {
		uint32_t route;
		const char *front;
		const char *backend;
		bool allowed;
	} rows[] = {
		{ 0, "10.0.0.1:80", "10.1.0.1:81", true },
		{ 0, "[2001:db8::9]:8010", "10.1.0.1:81", true },
		{ 0, "10.0.0.1:8000", "[2001:db8::1]:82", true },
		{ 0, "10.0.0.1:80", "10.1.0.1:82", false }, /* port of the other target */
		{ 0, "10.0.0.1:80", "10.1.0.2:81", false }, /* address of no target */
		{ 0, "10.0.0.1:80", "10.1.0.2:99", false }, /* another route's target */
		{ 0, "10.0.0.1:79", "10.1.0.1:81", false },
		{ 0, "10.0.0.1:81", "10.1.0.1:81", false }, /* between its ports, no listener */
		/* listened to for another route, but between its ports: no more is kept of them */
		{ 0, "10.0.0.1:100", "10.1.0.1:81", true },
		{ 0, "10.0.0.1:8011", "10.1.0.1:81", false },
		{ 1, "10.0.0.1:90", "10.1.0.2:99", true },
		{ 1, "10.0.0.1:95", "10.1.0.2:99", true },
		{ 1, "10.0.0.2:90", "10.1.0.2:99", false }, /* not that address */
		{ 1, "10.0.0.1:96", "10.1.0.2:99", false },
		{ 1, "10.0.0.1:80", "10.1.0.2:99", false }, /* listened to, for another route */
		{ 2, "10.9.9.9:100", "10.1.0.3:100", true },
		{ 2, "10.9.9.9:100", "10.1.0.3:101", false }, /* "preserve" */
		{ 3, "[::1]:101", "192.0.2.1:7", true },      /* a name: whatever it resolves to */
		{ 3, "[::1]:100", "[2001:db8::7]:7", true },
		{ 3, "[::1]:101", "127.0.0.1:7", true },
		{ 3, "[::1]:101", "192.0.2.1:8", false },
		{ 3, "10.0.0.1:101", "192.0.2.1:7", false }, /* listened to on IPv6 alone */
		{ 3, "[::1]:101", "0.0.0.0:7", false },
		{ 3, "[::1]:101", "0.1.2.3:7", false },
		{ 3, "[::1]:101", "224.0.0.1:7", false },
		{ 3, "[::1]:101", "255.255.255.255:7", false },
		{ 3, "[::1]:101", "240.0.0.1:7", false },
		{ 3, "[::1]:101", "[::]:7", false },
		{ 3, "[::1]:101", "[ff02::1]:7", false },
		{ 3, "[::1]:101", "[::ffff:192.0.2.1]:7", false },
		{ 4, "10.0.0.1:120", "10.1.0.1:81", false }, /* engine: relay */
		{ 5, "10.0.0.1:80", "10.1.0.9:81", false },  /* disabled */
		{ 6, "10.0.0.1:130", "10.1.0.9:81", false },
		{ 7, "10.0.0.1:80", "10.1.0.1:81", false }, /* there is no such */
		{ UINT32_MAX, "10.0.0.1:80", "10.1.0.1:81", false },
	};
	struct sl_policy *p = policy_of(rules);

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(rows); i++)
		if (allows(p, rows[i].route, rows[i].front, rows[i].backend) != rows[i].allowed)
			fail_msg("route %u: %s to %s", rows[i].route, rows[i].front,
				 rows[i].backend);
	sl_policy_free(p);
}

/* What a socket that is not of TCP over IP would have. */
static void test_no_addresses(void **state)
{
	struct sl_policy *p = policy_of(rules);
	const struct sl_addr none = { 0 }, front = addr("[::1]:101"), back = addr("192.0.2.1:7");

	(void)state;
	assert_false(sl_policy_allows(p, 3, false, &none, &back));
	assert_false(sl_policy_allows(p, 3, false, &front, &none));
	assert_true(sl_policy_allows(p, 3, false, &front, &back));
	sl_policy_free(p);
}

static void test_hook_off(void **state)
{
	struct sl_policy *p = policy_of("version: 1\nglobal: { packet: { hook: off } }\nroutes:\n"
					"  - { name: a, match: { ports: 80 }, forward: "
					"\"10.1.0.1:81\" }\n");

	(void)state;
	assert_true(p->is_off);
	assert_false(p->wants_xdp);
	assert_false(allows(p, 0, "10.0.0.1:80", "10.1.0.1:81"));
	sl_policy_free(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip), cmocka_unit_test(test_nothing_in_it),
		cmocka_unit_test(test_too_long),   cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_not_sealed), cmocka_unit_test(test_every_byte),
		cmocka_unit_test(test_allows),     cmocka_unit_test(test_no_addresses),
		cmocka_unit_test(test_hook_off),
	};

	return cmocka_run_group_tests_name("policy", tests, NULL, NULL);
}
