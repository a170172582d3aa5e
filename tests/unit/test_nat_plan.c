/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What the kernel's NAT is to do: taken from a configuration, carried in a memfd, believed in
 * nothing. */
#include "conf_text.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/memfd.h"
#include "broker/nat_plan.h"
#include "broker/nft_routes.h"

#define SAMPLE                                                                                     \
	"version: 1\nglobal:\n  nft_table: mine\n  nftables: { keep_on_exit: true, mark_base: "    \
	"77, flow_offload: [eth0, wan] }\n"                                                        \
	"defaults: { engine: nftables, security: { deny: [10.8.0.0/16, \"2001:db8:8::/48\"] } }\n" \
	"routes:\n"                                                                                \
	"  - { name: a, match: { ports: [443, \"10.0.0.1:8000-8010\"] }, forward: { balance: "     \
	"maglev, targets: [\"192.0.2.1:1\", { address: \"192.0.2.2:2\", weight: 7, backup: true "  \
	"}, \"[2001:db8::1]:3\"] } }\n"                                                            \
	"  - { name: b, match: { ports: 90-99, protocol: udp }, forward: { targets: 192.0.2.3, "   \
	"port: preserve, preserve_source: true }, security: { allow: 192.0.2.0/24, deny: [], "     \
	"max_connections: 5, max_connections_per_ip: 2, new_connections_per_ip: 30/s, "            \
	"new_connections: 90/m, packets: 700/s, refuse: drop } }\n"                                \
	"  - { name: c, match: { ports: 100 }, forward: \"192.0.2.3:9\", security: { "             \
	"new_connections_per_ip: 60/m, new_connections: 8/s, refuse: icmp } }\n"                   \
	"  - { name: off, match: { ports: 101 }, forward: \"192.0.2.3:9\", enabled: false }\n"     \
	"  - { name: other, match: { ports: 102 }, forward: \"h:9\", engine: relay }\n"

static int pack(const char *text, const struct sl_ip_set *deny_file)
{
	_cleanup_(built_done) struct built b = build_text(text);
	_cleanup_(sl_str_done) struct sl_str why = { 0 };
	int fd = -1;

	if (b.r < 0)
		fail_msg("%s", sl_str_text(&b.diags.text));
	assert_int_equal(sl_nat_plan_pack(b.conf, deny_file, false, &fd, &why), 0);
	return fd;
}

static struct sl_nat_plan *plan_of(const char *text, const struct sl_ip_set *deny_file)
{
	_cleanup_fd_ int fd = pack(text, deny_file);
	struct sl_nat_plan *p = NULL;

	assert_int_equal(sl_nat_plan_unpack(fd, &p), 0);
	return p;
}

static void assert_addr(const struct sl_addr *a, const char *want)
{
	char text[SL_ADDR_TEXT];

	assert_string_equal(sl_addr_format(a, text), want);
}

static void assert_has(const struct sl_ip_set *set, const char *ip, bool want)
{
	struct sl_addr a;

	assert_int_equal(sl_addr_parse_ip(ip, &a), 0);
	if (sl_ip_set_has(set, &a) != want)
		fail_msg("%s: want %d", ip, want);
}

/* ---- carrying it ---- */

static void test_first_route(const struct sl_nat_plan *p)
{
	const struct sl_nft_route *r = &p->routes[0];

	assert_string_equal(r->name, "a");
	assert_int_equal(r->mark, 0);
	assert_int_equal(r->state, SL_NFT_ON);
	assert_int_equal(r->protocols, SL_NFT_TCP);
	assert_int_equal(r->balance, SL_BALANCE_MAGLEV);
	assert_true(r->masquerade);
	assert_null(r->allow);
	assert_has(r->deny, "10.8.1.1", true);
	assert_has(r->deny, "2001:db8:8::1", true);
	assert_has(r->deny, "10.9.1.1", false);
	assert_int_equal(r->n_listeners, 2);
	assert_int_equal(sl_addr_family(&r->listeners[0].ip), AF_UNSPEC);
	assert_int_equal(r->listeners[0].from, 443);
	assert_int_equal(r->listeners[0].to, 443);
	assert_addr(&r->listeners[1].ip, "10.0.0.1:0");
	assert_int_equal(r->listeners[1].from, 8000);
	assert_int_equal(r->listeners[1].to, 8010);
	assert_int_equal(r->n_targets, 3);
	assert_string_equal(r->targets[0].name, "192.0.2.1:1");
	assert_addr(&r->targets[0].addr, "192.0.2.1:1");
	assert_int_equal(r->targets[0].weight, 1);
	assert_int_equal(r->targets[1].weight, 7); /* whether it is time for it is not settled */
	assert_addr(&r->targets[2].addr, "[2001:db8::1]:3");
	assert_false(p->is_backup[0]);
	assert_true(p->is_backup[1]);
	assert_false(p->is_backup[2]);
}

static void assert_rate(const struct sl_nft_rate *r, uint32_t n, uint32_t seconds)
{
	assert_int_equal(r->rate, n);
	assert_int_equal(r->burst, n);
	if (n)
		assert_int_equal(r->seconds, seconds);
}

static void test_round_trip(void **state)
{
	struct sl_nat_plan *p = plan_of(SAMPLE, NULL);
	const struct sl_nft_route *r;

	(void)state;
	assert_string_equal(p->table, "mine");
	assert_int_equal(p->mark_base, 77);
	assert_true(p->keep_on_exit);
	assert_int_equal(p->common.masquerade.from, 0);
	assert_int_equal(p->n_routes, 3);
	assert_int_equal(p->n_targets, 5);
	assert_int_equal(p->n_devices, 2);
	assert_string_equal(p->devices[0], "eth0");
	assert_string_equal(p->devices[1], "wan");
	test_first_route(p);
	r = &p->routes[1];
	assert_string_equal(r->name, "b");
	assert_int_equal(r->protocols, SL_NFT_UDP);
	assert_false(r->masquerade);
	assert_null(r->deny);
	assert_has(r->allow, "192.0.2.7", true);
	assert_has(r->allow, "192.0.3.7", false);
	assert_int_equal(r->max_connections, 5);
	assert_int_equal(r->max_per_client, 2);
	assert_int_equal(r->per_client.rate, 30);
	assert_int_equal(r->per_client.seconds, 1);
	assert_int_equal(p->routes[0].max_per_client + p->routes[0].per_client.rate, 0);
	assert_int_equal(p->routes[2].per_client.rate, 60);
	assert_int_equal(p->routes[2].per_client.seconds, 60);
	assert_rate(&r->connections, 90, 60);
	assert_rate(&r->packets, 700, 1);
	assert_int_equal(r->refusal, SL_NFT_REFUSE_DROP);
	assert_rate(&p->routes[0].connections, 0, 0);
	assert_rate(&p->routes[0].packets, 0, 0);
	assert_int_equal(p->routes[0].refusal, SL_NFT_REFUSE_RESET);
	assert_rate(&p->routes[2].connections, 8, 1);
	assert_rate(&p->routes[2].packets, 0, 0);
	assert_int_equal(p->routes[2].refusal, SL_NFT_REFUSE_ICMP);
	assert_int_equal(r->listeners[0].from, 90);
	assert_int_equal(r->listeners[0].to, 99);
	assert_addr(&r->targets[0].addr, "192.0.2.3:0");
	/* whoever has no list of its own shares one */
	assert_ptr_equal(p->routes[2].deny, p->routes[0].deny);
	assert_int_equal(p->routes[2].n_listeners, 1);
	assert_int_equal(p->routes[2].listeners[0].from, 100);
	sl_nat_plan_free(p);
	sl_nat_plan_free(NULL);
}

static void test_denied_addresses_are_in_it(void **state)
{
	struct sl_ip4_range range = { 0xcb007100, 0xcb0071ff }; /* 203.0.113.0/24 */
	const struct sl_ip_set file = { .v4 = &range, .n4 = 1 };
	struct sl_nat_plan *p = plan_of(SAMPLE, &file);

	(void)state;
	assert_has(p->common.lists.deny, "203.0.113.9", true);
	assert_has(p->common.lists.deny, "203.0.114.9", false);
	assert_has(p->common.lists.deny, "10.8.1.1", false);
	assert_null(p->common.lists.allow);
	for (size_t i = 0; i < p->n_routes; i++)
		if (i != 1)
			assert_has(p->routes[i].deny, "10.8.1.1", true);
	assert_null(p->routes[1].deny);
	sl_nat_plan_free(p);
}

static void test_patterns_are_refused(void **state)
{
	_cleanup_(built_done) struct built b = build_text(SAMPLE);
	_cleanup_(sl_str_done) struct sl_str why = { 0 };
	struct sl_ip4_glob glob = { 0 };
	const struct sl_ip_set file = { .globs = &glob, .n_globs = 1 };
	int fd = -7;

	(void)state;
	assert_int_equal(b.r, 0);
	assert_int_equal(sl_nat_plan_pack(b.conf, &file, false, &fd, &why), -EINVAL);
	assert_non_null(strstr(sl_str_text(&why), "deny_file"));
	assert_int_equal(fd, -7);
}

static void test_nothing_in_it(void **state)
{
	struct sl_nat_plan *p = plan_of("version: 1\n", NULL);

	(void)state;
	assert_int_equal(p->n_routes + p->n_targets, 0);
	assert_string_equal(p->table, "sluice");
	assert_false(p->keep_on_exit);
	assert_false(p->is_draining);
	sl_nat_plan_free(p);
}

static void test_draining(void **state)
{
	_cleanup_(built_done) struct built b = build_text(SAMPLE);
	_cleanup_(sl_str_done) struct sl_str why = { 0 };
	struct sl_nat_plan *p = NULL;
	int fd = -1;

	(void)state;
	assert_int_equal(sl_nat_plan_pack(b.conf, NULL, true, &fd, &why), 0);
	assert_int_equal(sl_nat_plan_unpack(fd, &p), 0);
	assert_true(p->is_draining);
	assert_string_equal(p->table, "mine");
	assert_int_equal(p->n_routes, 3);
	test_first_route(p);
	sl_nat_plan_free(p);
	assert_int_equal(close(fd), 0);
}

static void test_has_routes(void **state)
{
	_cleanup_(built_done) struct built some = build_text(SAMPLE);
	_cleanup_(built_done) struct built none =
		build_text("version: 1\nroutes:\n  - { name: a, match: { ports: 1 }, forward: "
			   "\"192.0.2.3:9\" }\n  - { name: b, match: { ports: 2 }, forward: "
			   "\"192.0.2.3:9\", engine: nftables, enabled: false }\n");

	(void)state;
	assert_true(sl_nat_plan_has_routes(some.conf));
	assert_false(sl_nat_plan_has_routes(none.conf));
}

/* The longest name there can be. */
static void test_long_names(void **state)
{
	char text[400], name[65];
	struct sl_nat_plan *p;

	(void)state;
	memset(name, 't', 64);
	name[64] = '\0';
	(void)snprintf(text, sizeof(text),
		       "version: 1\nglobal: { nft_table: %s }\nroutes:\n  - { name: %s, match: { "
		       "ports: 1 }, forward: \"192.0.2.3:9\", engine: nftables }\n",
		       name, name);
	p = plan_of(text, NULL);
	assert_string_equal(p->table, name);
	assert_string_equal(p->routes[0].name, name);
	sl_nat_plan_free(p);
}

/* ---- what it must not believe ---- */

static char *bytes_of(const char *text, size_t *ret_n)
{
	_cleanup_fd_ int fd = pack(text, NULL);
	char *bytes = NULL;

	assert_int_equal(sl_memfd_read(fd, 1 << 20, &bytes, ret_n), 0);
	return bytes;
}

static int unpack_bytes(const void *bytes, size_t n, struct sl_nat_plan **ret)
{
	_cleanup_fd_ int fd = -1;

	assert_int_equal(sl_memfd_new("test", bytes, n, &fd), 0);
	return sl_nat_plan_unpack(fd, ret);
}

static void test_sizes(void **state)
{
	struct sl_nat_plan *p = NULL;
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
	sl_nat_plan_free(p);
	free(bytes);
	free(more);
}

static void test_not_sealed(void **state)
{
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	struct sl_nat_plan *p = NULL;
	size_t n;
	char *bytes = bytes_of(SAMPLE, &n);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, n), n);
	assert_int_equal(sl_nat_plan_unpack(fd, &p), -EPERM);
	assert_int_equal(close(fd), 0);
	assert_null(p);
	free(bytes);
}

/* What came through can be used: the lower half takes it, or says what it does not like. */
static void check_sound(struct sl_nat_plan *p)
{
	_cleanup_(sl_nft_ruleset_freep) struct sl_nft_ruleset *rs = NULL;
	_cleanup_(sl_str_done) struct sl_str why = { 0 };
	struct sl_nft_target *settled = calloc(p->n_targets + 1, sizeof(*settled));
	size_t at = 0;
	int r;

	assert_true(strnlen(p->table, sizeof(p->table)) < sizeof(p->table));
	for (size_t i = 0; i < p->n_routes; i++) {
		p->routes[i].mark = (uint32_t)i + 1;
		sl_nft_settle_targets(&p->routes[i], p->is_backup + at, NULL, settled + at);
		p->routes[i].targets = settled + at;
		at += p->routes[i].n_targets;
	}
	assert_int_equal(at, p->n_targets);
	r = sl_nft_build(p->routes, p->n_routes, &p->common, &rs, &why);
	if (r < 0)
		assert_true(r == -EINVAL && why.len > 0);
	free(settled);
}

/* Each byte in turn is other than it was: it is refused, or is a plan all the same. */
static void test_every_byte(void **state)
{
	static const uint8_t flip[] = { 0x01, 0x80, 0xff };
	size_t n, refused = 0;
	char *bytes = bytes_of(SAMPLE, &n);

	(void)state;
	for (size_t i = 0; i < n; i++) {
		for (size_t k = 0; k < SL_ARRAY_LEN(flip); k++) {
			struct sl_nat_plan *p = NULL;
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
			sl_nat_plan_free(p);
		}
	}
	assert_true(refused > n / 4); /* the magic, counts, ports, texts, flags */
	free(bytes);
}

/* Two routes of one name would share a mark, and so each other's flows. */
static void test_names_are_unique(void **state)
{
	struct sl_nat_plan *p = NULL;
	size_t n;
	char *bytes = bytes_of(SAMPLE, &n);
	char *second = memmem(bytes + 120, n - 120, "b\0\0", 3);

	(void)state;
	assert_non_null(second);
	*second = 'a';
	assert_int_equal(unpack_bytes(bytes, n, &p), -EBADMSG);
	*second = 'x';
	assert_int_equal(unpack_bytes(bytes, n, &p), 0);
	assert_string_equal(p->routes[1].name, "x");
	sl_nat_plan_free(p);
	free(bytes);
}

/* 700 a second, 700 at once: a rate without a burst or of another time, a fourth refusal. */
static void test_rates_and_refusals(void **state)
{
	static const uint32_t rate[] = { 700, 1, 700, SL_NFT_REFUSE_DROP };
	static const uint32_t bad[][4] = {
		{ 700, 1, 0, SL_NFT_REFUSE_DROP },
		{ 700, 0, 700, SL_NFT_REFUSE_DROP },
		{ 700, 2, 700, SL_NFT_REFUSE_DROP },
		{ 700, 1, 700, SL_NFT_REFUSE_DROP + 1 },
	};
	struct sl_nat_plan *p = NULL;
	size_t n;
	char *bytes = bytes_of(SAMPLE, &n);
	char *at = memmem(bytes, n, rate, sizeof(rate));

	(void)state;
	assert_non_null(at);
	for (size_t i = 0; i < SL_ARRAY_LEN(bad); i++) {
		memcpy(at, bad[i], sizeof(rate));
		assert_int_equal(unpack_bytes(bytes, n, &p), -EBADMSG);
	}
	memcpy(at, (uint32_t[]){ 7, 3600, 9, SL_NFT_REFUSE_ICMP }, sizeof(rate));
	assert_int_equal(unpack_bytes(bytes, n, &p), 0);
	assert_int_equal(p->routes[1].packets.burst, 9);
	assert_int_equal(p->routes[1].refusal, SL_NFT_REFUSE_ICMP);
	sl_nat_plan_free(p);
	free(bytes);
}

/* Which ports masqueraded TCP leaves from: a whole range, or any. */
static void test_ports(void **state)
{
	static const struct sl_nft_ports bad[] = { { 0, 1 }, { 0, 65535 }, { 2, 1 }, { 65535, 0 } };
	static const struct sl_nft_ports good[] = { { 0, 0 }, { 1, 1 }, { 1024, 65535 } };
	struct sl_nft_ports ports = { 1024, 39998 };
	struct sl_nat_plan *p = NULL;
	size_t n;
	char *bytes =
		bytes_of("version: 1\nglobal: { packet: { ports: 39999-60000 } }\nroutes:\n"
			 "  - { name: a, match: { ports: 1 }, forward: \"192.0.2.3:9\" }\n"
			 "  - { name: b, match: { ports: 2 }, forward: \"192.0.2.3:9\", engine: "
			 "nftables }\n",
			 &n);
	char *at = memmem(bytes, n, &ports, sizeof(ports));

	(void)state;
	assert_non_null(at);
	for (size_t i = 0; i < SL_ARRAY_LEN(bad); i++) {
		memcpy(at, &bad[i], sizeof(bad[i]));
		assert_int_equal(unpack_bytes(bytes, n, &p), -EBADMSG);
	}
	for (size_t i = 0; i < SL_ARRAY_LEN(good); i++) {
		memcpy(at, &good[i], sizeof(good[i]));
		assert_int_equal(unpack_bytes(bytes, n, &p), 0);
		assert_memory_equal(&p->common.masquerade, &good[i], sizeof(good[i]));
		sl_nat_plan_free(p);
	}
	free(bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_denied_addresses_are_in_it),
		cmocka_unit_test(test_patterns_are_refused),
		cmocka_unit_test(test_nothing_in_it),
		cmocka_unit_test(test_draining),
		cmocka_unit_test(test_has_routes),
		cmocka_unit_test(test_long_names),
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_not_sealed),
		cmocka_unit_test(test_every_byte),
		cmocka_unit_test(test_names_are_unique),
		cmocka_unit_test(test_rates_and_refusals),
		cmocka_unit_test(test_ports),
	};

	return cmocka_run_group_tests_name("nat_plan", tests, NULL, NULL);
}
