/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rand.h"
#include "core/matcher.h"
#include "core/tls_hello.h"

static struct sl_addr ip(const char *text)
{
	struct sl_addr a = { 0 };

	if (text)
		assert_int_equal(sl_addr_parse_ip(text, &a), 0);
	return a;
}

/* In a block of exactly the size asked for, which held something else before. */
static struct sl_matcher *build(const struct sl_match_rule *rules, size_t n)
{
	size_t size = sl_matcher_size(rules, n);
	struct sl_matcher *m;
	void *block;

	assert_true(size > 0);
	block = malloc(size);
	assert_non_null(block);
	memset(block, 0xa5, size);
	m = sl_matcher_fill(block, rules, n);
	assert_ptr_equal(m, block);
	return m;
}

/* What a ClientHello (or, with `name` alone, any bytes) has shown. */
static struct sl_match_facts facts_of(uint16_t port, const char *name)
{
	struct sl_match_facts f = { .port = port, .known = SL_MATCH_HELLO };

	f.client = ip("192.0.2.1");
	f.local = ip("10.0.0.1");
	f.tls_versions = SL_TLS_1_2 | SL_TLS_1_3;
	if (name)
		f.name = sl_slice_of(name);
	return f;
}

static uint32_t find(const struct sl_matcher *m, uint16_t port, const char *name)
{
	struct sl_match_facts f = facts_of(port, name);

	return sl_matcher_find(m, &f);
}

static const struct sl_match_ports on_443 = { .from = 443, .to = 443 };

#define DOMAINS(...)                                     \
	.domains = (const char *const[]){ __VA_ARGS__ }, \
	.n_domains = SL_ARRAY_LEN(((const char *const[]){ __VA_ARGS__ }))
#define RULE .enabled = true, .ports = &on_443, .n_ports = 1

static void names_by_specificity(void **state)
{
	const struct sl_match_rule rules[] = {
		{ RULE },
		{ RULE, DOMAINS("*.example.com") },
		{ RULE, DOMAINS("*.shop.example.com", "shop.*") },
		{ RULE, DOMAINS("www.example.com", "example.com") },
		{ RULE, DOMAINS("api-*.example.*") },
		{ RULE, DOMAINS("*") },
		{ RULE, DOMAINS("www.example.com") },
		{ .enabled = false, .ports = &on_443, .n_ports = 1, .priority = 9 },
		{ RULE, DOMAINS("w*w.long.example.com") },
	};
	static const struct {
		const char *name;
		uint32_t route;
	} cases[] = {
		{ "www.example.com", 3 },
		{ "example.com", 3 },
		{ "a.example.com", 1 },
		{ "a.b.example.com", 1 },
		{ "x.shop.example.com", 2 },
		{ "shop.example.com", 1 },
		{ "shop.test", 2 },
		{ "shop", 5 },
		{ "api-1.example.com", 4 },
		{ "api-1.example.org", 4 },
		{ "api-1.b.example.com", 4 },
		{ "api.example.org", 5 },
		{ "nothing", 5 },
		{ "w1w.long.example.com", 8 },
		{ "www.long.example.com", 8 },
		{ "wxw2.long.example.com", 1 },
		{ "", 5 },
	};
	struct sl_matcher *m = build(rules, SL_ARRAY_LEN(rules));

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(cases); i++)
		if (find(m, 443, cases[i].name) != cases[i].route)
			fail_msg("%s: %u", cases[i].name, find(m, 443, cases[i].name));
	assert_int_equal(find(m, 443, NULL), 0);
	assert_int_equal(find(m, 444, "www.example.com"), SL_NO_ROUTE);
	free(m);
}

/* Each rule precedes all after it for the same connection. */
static void order_of_precedence(void **state)
{
	static const char *const h2[] = { "h2" };
	struct sl_ip4_range all = { 0, UINT32_MAX };
	struct sl_ip_set everybody = { .v4 = &all, .n4 = 1 };
	const struct sl_match_ports address = { .ip = ip("10.0.0.1"), .from = 443, .to = 443 };
	const struct sl_match_ports family = { .ip = ip("0.0.0.0"), .from = 443, .to = 443 };
	const struct sl_match_rule rules[] = {
		{ RULE, .priority = 1 },
		{ RULE, DOMAINS("www.example.com") },
		{ RULE, DOMAINS("www.*.com") },
		{ RULE, DOMAINS("*.com"), .path = "/a" },
		{ RULE, .path = "/a/b/*" },
		{ RULE, .path = "/a/:x/:y" },
		{ RULE, .path = "/:long_name/*" },
		{ RULE, .path = "/*", .clients = &everybody },
		{ .enabled = true, .ports = &address, .n_ports = 1 },
		{ .enabled = true, .ports = &family, .n_ports = 1 },
		{ RULE, .clients = &everybody, .tls_versions = SL_TLS_1_3, .alpn = h2,
		  .n_alpn = 1 },
		{ RULE, .tls_versions = SL_TLS_1_2, .clients = &everybody },
		{ RULE, .alpn = h2, .n_alpn = 1 },
		{ RULE },
		{ RULE },
	};
	struct sl_match_rule shuffled[SL_ARRAY_LEN(rules)];
	struct sl_match_facts f = facts_of(443, "www.example.com");

	(void)state;
	f.alpn = (struct sl_slice){ "\x08http/1.1\x02h2", 12 };
	/* In file order and the other way round, except for the last two, which differ only there.
	 */
	for (int reverse = 0; reverse < 2; reverse++) {
		size_t n = SL_ARRAY_LEN(rules);

		for (size_t i = 0; i < n; i++)
			shuffled[i] = rules[reverse && i < n - 2 ? n - 3 - i : i];
		for (size_t i = 0; i < n; i++) {
			size_t at = reverse && i < n - 2 ? n - 3 - i : i;
			bool has_path = rules[i].path != NULL;
			struct sl_matcher *m = build(shuffled, n);

			f.path = sl_slice_of(i == 3 ? "/a" : has_path ? "/a/b/c" : "/");
			if (i > 7)
				f.path = (struct sl_slice){ 0 };
			if (sl_matcher_find(m, &f) != at)
				fail_msg("%zu: %u", at, sl_matcher_find(m, &f));
			shuffled[at].enabled = false;
			free(m);
		}
	}
}

static void ports_and_addresses(void **state)
{
	const struct sl_match_ports p[] = {
		{ .from = 80, .to = 80 },
		{ .from = 1000, .to = 2000 },
		{ .from = 1500, .to = 1500 },
		{ .ip = ip("10.0.0.1"), .from = 443, .to = 443 },
		{ .ip = ip("2001:db8::1"), .from = 1, .to = 65535 },
		{ .from = 65535, .to = 65535 },
		{ .from = 0, .to = 0 },
		{ .ip = ip("0.0.0.0"), .from = 90, .to = 90 },
		{ .from = 90, .to = 90 },
		{ .ip = ip("::"), .from = 90, .to = 90 },
		{ .from = 443, .to = 443 },
	};
	static const struct {
		const char *local;
		uint16_t port;
		uint32_t route;
	} cases[] = {
		{ "10.0.0.1", 80, 0 },
		{ "10.0.0.1", 81, SL_NO_ROUTE },
		{ "10.0.0.1", 999, SL_NO_ROUTE },
		{ "10.0.0.1", 1000, 1 },
		{ "10.0.0.1", 1499, 1 },
		{ "10.0.0.1", 1500, 1 },
		{ "10.0.0.1", 2000, 1 },
		{ "10.0.0.1", 2001, SL_NO_ROUTE },
		{ "10.0.0.1", 443, 3 },
		{ "10.0.0.2", 443, 10 },
		{ "2001:db8::1", 443, 4 },
		{ "2001:db8::1", 1, 4 },
		{ "2001:db8::1", 65535, 4 },
		{ "2001:db8::2", 65535, 5 },
		{ "10.0.0.1", 0, 6 },
		{ "2001:db8::1", 0, 6 },
		{ "10.0.0.9", 90, 7 },
		{ "2001:db8::1", 90, 4 },
		{ "2001:db8::9", 90, 9 },
		{ "2001:db8::9", 80, 0 },
	};
	struct sl_match_rule rules[SL_ARRAY_LEN(p)];
	struct sl_matcher *m;

	(void)state;
	memset(rules, 0, sizeof(rules));
	for (size_t i = 0; i < SL_ARRAY_LEN(p); i++)
		rules[i] = (struct sl_match_rule){ .enabled = true, .ports = &p[i], .n_ports = 1 };
	m = build(rules, SL_ARRAY_LEN(p));
	for (size_t i = 0; i < SL_ARRAY_LEN(cases); i++) {
		struct sl_match_facts f = { .port = cases[i].port };

		f.local = ip(cases[i].local);
		if (sl_matcher_find(m, &f) != cases[i].route)
			fail_msg("%s port %u: %u", cases[i].local, cases[i].port,
				 sl_matcher_find(m, &f));
	}
	assert_true(sl_matcher_needs_ip(m, 443));
	assert_true(sl_matcher_needs_ip(m, 1));
	assert_true(sl_matcher_needs_ip(m, 65535));
	assert_false(sl_matcher_needs_ip(m, 0));
	free(m);
	rules[4].enabled = false;
	m = build(rules, SL_ARRAY_LEN(p));
	for (unsigned port = 0; port < 65536; port++)
		assert_true(sl_matcher_needs_ip(m, (uint16_t)port) == (port == 443 || port == 90));
	free(m);
}

static void waits_only_where_bytes_may_decide(void **state)
{
	struct sl_ip4_range few = { 0x0a000000, 0x0affffff };
	struct sl_ip_set ten = { .v4 = &few, .n4 = 1 };
	const struct sl_match_ports p[] = {
		{ .from = 1, .to = 1 }, { .from = 2, .to = 2 },
		{ .from = 3, .to = 3 }, { .ip = ip("10.0.0.9"), .from = 4, .to = 4 },
		{ .from = 4, .to = 4 }, { .from = 5, .to = 5 },
	};
	const struct sl_match_rule rules[] = {
		/* port 1: a name decides */
		{ .enabled = true, .ports = &p[0], .n_ports = 1, DOMAINS("a") },
		{ .enabled = true, .ports = &p[0], .n_ports = 1 },
		/* port 2: it cannot any more */
		{ .enabled = true, .ports = &p[1], .n_ports = 1, .priority = 1 },
		{ .enabled = true, .ports = &p[1], .n_ports = 1, DOMAINS("a") },
		/* port 3: for some clients only */
		{ .enabled = true, .ports = &p[2], .n_ports = 1, DOMAINS("a"), .clients = &ten },
		{ .enabled = true, .ports = &p[2], .n_ports = 1 },
		/* port 4: at one address only */
		{ .enabled = true, .ports = &p[3], .n_ports = 1, .tls_versions = SL_TLS_1_3 },
		{ .enabled = true, .ports = &p[4], .n_ports = 1 },
		/* port 5: nothing without bytes */
		{ .enabled = true, .ports = &p[5], .n_ports = 1, .path = "/x" },
	};
	static const struct {
		uint16_t port;
		const char *local;
		const char *client;
		uint32_t early;
		uint32_t not_tls;
	} cases[] = {
		{ 1, "10.0.0.1", "192.0.2.1", SL_NEED_BYTES, 1 },
		{ 2, "10.0.0.1", "192.0.2.1", 2, 2 },
		{ 3, "10.0.0.1", "192.0.2.1", 5, 5 },
		{ 3, "10.0.0.1", "10.1.1.1", SL_NEED_BYTES, 5 },
		{ 4, "10.0.0.1", "192.0.2.1", 7, 7 },
		{ 4, "10.0.0.9", "192.0.2.1", SL_NEED_BYTES, 7 },
		{ 5, "10.0.0.9", "192.0.2.1", SL_NEED_BYTES, SL_NO_ROUTE },
		{ 6, "10.0.0.9", "192.0.2.1", SL_NO_ROUTE, SL_NO_ROUTE },
	};
	struct sl_matcher *m = build(rules, SL_ARRAY_LEN(rules));

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(cases); i++) {
		struct sl_match_facts f = { .port = cases[i].port };

		f.local = ip(cases[i].local);
		f.client = ip(cases[i].client);
		if (sl_matcher_find(m, &f) != cases[i].early)
			fail_msg("case %zu, no bytes: %u", i, sl_matcher_find(m, &f));
		f.known = SL_MATCH_NOT_TLS;
		if (sl_matcher_find(m, &f) != cases[i].not_tls)
			fail_msg("case %zu, not TLS: %u", i, sl_matcher_find(m, &f));
	}
	free(m);
}

static void verdicts(void **state)
{
	static const char *const h2[] = { "h2" };
	struct sl_ip4_range few = { 0x0a000000, 0x0affffff };
	struct sl_ip_set ten = { .v4 = &few, .n4 = 1 };
	const struct sl_match_ports other = { .from = 1, .to = 442 };
	const struct sl_match_ports address[] = {
		{ .from = 1, .to = 2 },
		{ .ip = ip("10.0.0.9"), .from = 443, .to = 443 },
	};
	const struct sl_match_rule rules[] = {
		{ RULE, DOMAINS("a"), .path = "/a" },
		{ RULE },
		{ .ports = &on_443, .n_ports = 1 },
		{ .enabled = true, .ports = &other, .n_ports = 1 },
		{ .enabled = true, .ports = address, .n_ports = 2 },
		{ RULE, DOMAINS("b", "*.b") },
		{ RULE, .path = "/b" },
		{ RULE, .clients = &ten },
		{ RULE, .tls_versions = SL_TLS_1_0 },
		{ RULE, .alpn = h2, .n_alpn = 1 },
	};
	static const enum sl_match_verdict hello[] = {
		SL_MATCH_WON,         SL_MATCH_OUTRANKED, SL_MATCH_DISABLED, SL_MATCH_PORT,
		SL_MATCH_ADDRESS,     SL_MATCH_DOMAIN,    SL_MATCH_PATH,     SL_MATCH_CLIENT,
		SL_MATCH_TLS_VERSION, SL_MATCH_ALPN,
	};
	static const enum sl_match_verdict bare[] = {
		SL_MATCH_NO_NAME,  SL_MATCH_WON,      SL_MATCH_DISABLED, SL_MATCH_PORT,
		SL_MATCH_ADDRESS,  SL_MATCH_NO_NAME,  SL_MATCH_PATH,     SL_MATCH_CLIENT,
		SL_MATCH_NO_HELLO, SL_MATCH_NO_HELLO,
	};
	struct sl_matcher *m = build(rules, SL_ARRAY_LEN(rules));
	struct sl_match_facts f = facts_of(443, "a");

	(void)state;
	f.path = sl_slice_of("/a");
	for (uint32_t i = 0; i < SL_ARRAY_LEN(rules); i++)
		assert_int_equal(sl_matcher_judge(m, &f, sl_matcher_find(m, &f), i), hello[i]);
	f.known = SL_MATCH_NOT_TLS;
	f.name = f.path = (struct sl_slice){ 0 };
	for (uint32_t i = 0; i < SL_ARRAY_LEN(rules); i++)
		assert_int_equal(sl_matcher_judge(m, &f, sl_matcher_find(m, &f), i), bare[i]);
	for (int v = 0; v < SL_MATCH_VERDICT_COUNT_; v++) {
		const char *name = sl_match_verdict_name((enum sl_match_verdict)v);

		assert_true(name && strspn(name, "abcdefghijklmnopqrstuvwxyz_") == strlen(name));
		assert_true(strlen(sl_match_verdict_text((enum sl_match_verdict)v)) > 10);
		for (int k = 0; k < v; k++)
			assert_string_not_equal(name,
						sl_match_verdict_name((enum sl_match_verdict)k));
	}
	free(m);
}

static void impossible_numbers_are_refused(void **state)
{
	const struct sl_match_ports all = { .from = 1, .to = 65534 }; /* 30 blocks */
	static const char *const names[] = { "a" };
	struct sl_match_rule rule = { .enabled = true, .ports = &all, .n_ports = 1 };

	(void)state;
	assert_int_equal(sl_matcher_size(NULL, UINT32_MAX), 0);
	rule.n_domains = (size_t)UINT32_MAX / 30 + 1;
	rule.domains = names;
	assert_int_equal(sl_matcher_size(&rule, 1), 0);
	rule.n_domains = (size_t)UINT32_MAX + 1;
	assert_int_equal(sl_matcher_size(&rule, 1), 0);
	rule.enabled = false;
	assert_true(sl_matcher_size(&rule, 1) > 0);
}

/* Memory follows what is configured, not the product of routes and ranges. */
static void memory_is_linear(void **state)
{
	enum { N = 2000 };
	struct sl_match_ports *ports = calloc(2 * N, sizeof(*ports));
	struct sl_match_rule *rules = calloc(2 * N, sizeof(*rules));
	static const char *const names[] = { "*.example.com", "a.example.com" };
	struct sl_matcher *m;

	(void)state;
	assert_true(ports && rules);
	for (uint16_t i = 0; i < N; i++) {
		ports[i] = (struct sl_match_ports){ .from = 1 + i, .to = 10000 + i };
		ports[N + i] = (struct sl_match_ports){ .from = 2 * i, .to = 2 * i };
	}
	for (size_t i = 0; i < 2 * N; i++)
		rules[i] = (struct sl_match_rule){ .enabled = true,
						   .ports = &ports[i],
						   .n_ports = 1,
						   .domains = names,
						   .n_domains = 2 };
	/* 24 bytes an entry, 16 a place for a list, at most 3 entries for each of 30 blocks */
	assert_true(sl_matcher_size(rules, 2 * N) < (size_t)2 * N * 3 * 30 * (24 + 4 * 16));
	m = build(rules, 2 * N);
	assert_int_equal(find(m, 9999, "a.example.com"), 0);
	assert_int_equal(find(m, 10001, "a.example.com"), 1);
	assert_int_equal(find(m, 2 * N - 2, "b.example.com"), 0);
	assert_int_equal(find(m, 0, "b.example.com"), N);
	free(m);
	free(rules);
	free(ports);
}

/*
 * The oracle: each rule is looked at by itself, in order, by definitions written out anew, and
 * compared with the best so far field by field.
 */
struct rank {
	uint32_t priority;
	int name_class; /* 2: exact, 1: pattern, 0: none */
	size_t literals;
	size_t path;
	int address;
	int criteria;
};

static bool is_better(const struct rank *a, const struct rank *b)
{
	if (a->priority != b->priority)
		return a->priority > b->priority;
	if (a->name_class != b->name_class)
		return a->name_class > b->name_class;
	if (a->name_class == 1 && a->literals != b->literals)
		return a->literals > b->literals;
	if (a->path != b->path)
		return a->path > b->path;
	if (a->address != b->address)
		return a->address > b->address;
	return a->criteria > b->criteria; /* equal: the earlier stays */
}

static bool glob(const char *p, const char *t)
{
	if (*p == '*')
		return glob(p + 1, t) || (*t && glob(p, t + 1));
	return *p == *t && (!*p || glob(p + 1, t + 1));
}

/* The patterns of the random tests, spelt out. */
static bool path_by_hand(const char *pattern, const char *path)
{
	if (strcmp(pattern, "/*") == 0)
		return true;
	if (strcmp(pattern, "/a/*") == 0)
		return strncmp(path, "/a/", 3) == 0;
	if (strcmp(pattern, "/:x/b") == 0) {
		const char *slash = strchr(path + 1, '/');

		return slash && slash > path + 1 && strcmp(slash, "/b") == 0;
	}
	return strcmp(pattern, path) == 0;
}

static size_t path_literals(const char *pattern)
{
	static const struct {
		const char *pattern;
		size_t n;
	} known[] = { { "/*", 1 }, { "/a/*", 3 }, { "/:x/b", 3 }, { "/a", 2 }, { "/a/b", 4 } };

	for (size_t i = 0; i < SL_ARRAY_LEN(known); i++)
		if (pattern && strcmp(pattern, known[i].pattern) == 0)
			return known[i].n;
	return 0;
}

struct world {
	struct sl_match_facts facts;
	const char *name; /* NUL-terminated; NULL: none */
	const char *path;
	const char *const *alpn;
	size_t n_alpn;
};

static int address_rank(const struct sl_match_ports *p, const struct sl_match_facts *f)
{
	char a[SL_ADDR_TEXT];
	char b[SL_ADDR_TEXT];

	if (f->port < p->from || f->port > p->to)
		return -1;
	if (p->ip.sa.sa_family == AF_UNSPEC)
		return 0;
	sl_addr_format_ip(&p->ip, a);
	sl_addr_format_ip(&f->local, b);
	if (strcmp(a, "0.0.0.0") == 0 || strcmp(a, "::") == 0)
		return p->ip.sa.sa_family == f->local.sa.sa_family ? 1 : -1;
	return strcmp(a, b) == 0 ? 2 : -1;
}

/* -1: no port and address of the rule; else how specific. */
static int best_address(const struct sl_match_rule *r, const struct sl_match_facts *f)
{
	int best = -1;

	for (size_t i = 0; i < r->n_ports; i++)
		if (address_rank(&r->ports[i], f) > best)
			best = address_rank(&r->ports[i], f);
	return best;
}

/* The best of the names that match, or with `any` of all; false without one. */
static bool best_name(const struct sl_match_rule *r, const char *name, bool any, struct rank *ret)
{
	struct rank best = { 0 };

	if (!r->n_domains)
		return true;
	for (size_t i = 0; i < r->n_domains; i++) {
		struct rank this = { .name_class = strchr(r->domains[i], '*') ? 1 : 2 };

		for (const char *c = r->domains[i]; *c; c++)
			this.literals += *c != '*';
		if ((any || (name && glob(r->domains[i], name))) && is_better(&this, &best))
			best = this;
	}
	ret->name_class = best.name_class;
	ret->literals = best.literals;
	return best.name_class > 0;
}

static bool alpn_by_hand(const struct sl_match_rule *r, const struct world *w)
{
	for (size_t i = 0; i < r->n_alpn; i++)
		for (size_t k = 0; k < w->n_alpn; k++)
			if (strcmp(r->alpn[i], w->alpn[k]) == 0)
				return true;
	return false;
}

static bool client_by_hand(const struct sl_match_rule *r, const struct sl_match_facts *f)
{
	return !r->clients || sl_ip_set_has(r->clients, &f->client);
}

static bool depends(const struct sl_match_rule *r)
{
	return r->n_domains || r->path || r->tls_versions || r->n_alpn;
}

/* Whether the rule matches; with `any_bytes`, whether it may for some bytes. */
static bool matches(const struct sl_match_rule *r, const struct world *w, bool any_bytes,
		    struct rank *ret)
{
	struct rank rank = { .priority = r->priority };

	rank.address = best_address(r, &w->facts);
	rank.path = path_literals(r->path);
	rank.criteria = !!r->clients + !!r->tls_versions + !!r->n_alpn;
	if (!r->enabled || rank.address < 0 || !client_by_hand(r, &w->facts))
		return false;
	if (!best_name(r, w->name, any_bytes, &rank))
		return false;
	*ret = rank;
	if (any_bytes)
		return true;
	if (r->path && (!w->path || !path_by_hand(r->path, w->path)))
		return false;
	if ((r->tls_versions || r->n_alpn) && w->facts.known != SL_MATCH_HELLO)
		return false;
	if (r->tls_versions && !(r->tls_versions & w->facts.tls_versions))
		return false;
	return !r->n_alpn || alpn_by_hand(r, w);
}

static uint32_t find_by_hand(const struct sl_match_rule *rules, size_t n, const struct world *w)
{
	bool early = w->facts.known == SL_MATCH_NO_BYTES;
	uint32_t found = SL_NO_ROUTE;
	struct rank best = { 0 };

	for (uint32_t i = 0; i < n; i++) {
		struct rank rank;

		if (!matches(&rules[i], w, early, &rank))
			continue;
		if (found != SL_NO_ROUTE && !is_better(&rank, &best))
			continue;
		best = rank;
		found = i;
	}
	return early && found != SL_NO_ROUTE && depends(&rules[found]) ? SL_NEED_BYTES : found;
}

#define MAX_RULES 24
#define MAX_PORTS 3
#define MAX_DOMAINS 3
#define NAME_SIZE 32

struct random_rules {
	struct sl_match_rule rule[MAX_RULES];
	struct sl_match_ports ports[MAX_RULES][MAX_PORTS];
	char text[MAX_RULES][MAX_DOMAINS][NAME_SIZE];
	const char *domains[MAX_RULES][MAX_DOMAINS];
	size_t n;
};

static const char *const addresses[] = { NULL,       NULL,       "0.0.0.0",    "::",
					 "10.0.0.1", "10.0.0.2", "2001:db8::1" };
static const char *const path_patterns[] = { "/*", "/a/*", "/:x/b", "/a", "/a/b" };
static const char *const protocols[] = { "h2", "http/1.1" };

/* Few ports and labels, so that rules meet. */
static uint16_t random_port(struct sl_rand *r)
{
	static const uint16_t few[] = { 0, 1, 80, 443, 444, 1023, 1024, 65534, 65535 };

	return sl_rand_below(r, 8) ? few[sl_rand_below(r, SL_ARRAY_LEN(few))]
				   : (uint16_t)sl_rand_next(r);
}

static void random_name(struct sl_rand *r, bool with_stars, char ret[NAME_SIZE])
{
	static const char *const labels[] = {
		"a", "b", "ab", "aa", "api-1", "*", "a*", "*b", "a*b"
	};
	size_t n = 1 + (size_t)sl_rand_below(r, 3);

	ret[0] = '\0';
	for (size_t i = 0; i < n; i++) {
		strcat(ret, i ? "." : "");
		strcat(ret, labels[sl_rand_below(r, with_stars ? SL_ARRAY_LEN(labels) : 5)]);
	}
}

static void random_rule(struct sl_rand *r, struct random_rules *rr, size_t i,
			const struct sl_ip_set *clients)
{
	struct sl_match_rule *rule = &rr->rule[i];

	*rule = (struct sl_match_rule){ .enabled = sl_rand_below(r, 10) > 0 };
	rule->ports = rr->ports[i];
	rule->n_ports = 1 + (size_t)sl_rand_below(r, MAX_PORTS);
	for (size_t p = 0; p < rule->n_ports; p++) {
		struct sl_match_ports *ports = &rr->ports[i][p];
		uint16_t a = random_port(r);
		uint16_t b = sl_rand_below(r, 2) ? a : random_port(r);

		ports->from = a < b ? a : b;
		ports->to = a < b ? b : a;
		ports->ip = ip(addresses[sl_rand_below(r, SL_ARRAY_LEN(addresses))]);
	}
	rule->priority = sl_rand_below(r, 5) ? 0 : (uint32_t)sl_rand_below(r, 3);
	rule->n_domains = (size_t)sl_rand_below(r, MAX_DOMAINS + 1);
	rule->domains = rr->domains[i];
	for (size_t d = 0; d < rule->n_domains; d++) {
		random_name(r, sl_rand_below(r, 3) > 0, rr->text[i][d]);
		rr->domains[i][d] = rr->text[i][d];
	}
	if (!sl_rand_below(r, 5))
		rule->path = path_patterns[sl_rand_below(r, SL_ARRAY_LEN(path_patterns))];
	if (!sl_rand_below(r, 5))
		rule->clients = clients;
	if (!sl_rand_below(r, 5))
		rule->tls_versions = 1 + (uint32_t)sl_rand_below(r, 15);
	if (!sl_rand_below(r, 5)) {
		rule->alpn = &protocols[sl_rand_below(r, 2)];
		rule->n_alpn = rule->alpn == protocols ? 1 + (size_t)sl_rand_below(r, 2) : 1;
	}
}

static void random_world(struct sl_rand *r, struct world *w, char name[NAME_SIZE])
{
	static const char *const paths[] = { "/", "/a", "/a/", "/a/b", "/b/b", "//b", "/a/b/c" };
	static const char *const clients[] = { "10.1.1.1", "192.0.2.1", "2001:db8::7" };

	*w = (struct world){ 0 };
	w->facts.port = random_port(r);
	w->facts.local = ip(addresses[4 + sl_rand_below(r, 3)]);
	if (sl_rand_below(r, 8))
		w->facts.client = ip(clients[sl_rand_below(r, 3)]);
	w->facts.known = (enum sl_match_known)sl_rand_below(r, 3);
	if (w->facts.known == SL_MATCH_NO_BYTES)
		return;
	if (sl_rand_below(r, 6)) {
		random_name(r, false, name);
		w->name = name;
		w->facts.name = sl_slice_of(name);
	}
	if (sl_rand_below(r, 2)) {
		w->path = paths[sl_rand_below(r, SL_ARRAY_LEN(paths))];
		w->facts.path = sl_slice_of(w->path);
	}
	if (w->facts.known != SL_MATCH_HELLO)
		return;
	w->facts.tls_versions = (uint32_t)sl_rand_below(r, 16);
	switch (sl_rand_below(r, 4)) {
	case 0:
		w->facts.alpn = (struct sl_slice){ "\x02h2\x08http/1.1", 12 };
		w->alpn = protocols;
		w->n_alpn = 2;
		break;
	case 1:
		w->facts.alpn = (struct sl_slice){ "\x08http/1.1", 9 };
		w->alpn = &protocols[1];
		w->n_alpn = 1;
		break;
	case 2:
		w->facts.alpn = (struct sl_slice){ "\x03h2c", 4 };
		break;
	default:
		break;
	}
}

/* The verdict on one rule that did not win, against the oracle's predicates. */
static void check_verdict(const struct sl_match_rule *r, const struct world *w,
			  enum sl_match_verdict v)
{
	const struct sl_match_facts *f = &w->facts;
	struct rank rank;

	switch (v) {
	case SL_MATCH_OUTRANKED:
		assert_true(matches(r, w, false, &rank));
		return;
	case SL_MATCH_DISABLED:
		assert_false(r->enabled);
		break;
	case SL_MATCH_PORT:
	case SL_MATCH_ADDRESS:
		assert_int_equal(best_address(r, f), -1);
		break;
	case SL_MATCH_NO_HELLO:
		assert_true((r->tls_versions || r->n_alpn) && f->known != SL_MATCH_HELLO);
		break;
	case SL_MATCH_NO_NAME:
		assert_true(r->n_domains && !w->name);
		break;
	case SL_MATCH_DOMAIN:
		assert_true(w->name && !best_name(r, w->name, false, &rank));
		break;
	case SL_MATCH_PATH:
		assert_true(r->path && (!w->path || !path_by_hand(r->path, w->path)));
		break;
	case SL_MATCH_CLIENT:
		assert_false(client_by_hand(r, f));
		break;
	case SL_MATCH_TLS_VERSION:
		assert_true(r->tls_versions && !(r->tls_versions & f->tls_versions));
		break;
	case SL_MATCH_ALPN:
		assert_true(r->n_alpn && !alpn_by_hand(r, w));
		break;
	case SL_MATCH_WON:
	case SL_MATCH_VERDICT_COUNT_:
		fail();
	}
	assert_false(matches(r, w, false, &rank));
}

static void random_rules_agree_with_the_oracle(void **state)
{
	static struct random_rules rr;
	struct sl_ip4_range few = { 0x0a000000, 0x0affffff };
	struct sl_ip_set ten = { .v4 = &few, .n4 = 1 };
	unsigned won[3] = { 0 };
	unsigned none = 0;
	unsigned waits = 0;
	struct sl_rand r;

	(void)state;
	sl_rand_seed(&r, 11);
	for (int round = 0; round < 3000; round++) {
		struct sl_matcher *m;

		rr.n = (size_t)sl_rand_below(&r, MAX_RULES + 1);
		for (size_t i = 0; i < rr.n; i++)
			random_rule(&r, &rr, i, &ten);
		m = build(rr.rule, rr.n);
		for (int k = 0; k < 30; k++) {
			char name[NAME_SIZE];
			struct world w;
			uint32_t want;
			uint32_t got;

			random_world(&r, &w, name);
			want = find_by_hand(rr.rule, rr.n, &w);
			got = sl_matcher_find(m, &w.facts);
			if (got != want)
				fail_msg("round %d.%d: %u instead of %u", round, k, got, want);
			none += got == SL_NO_ROUTE;
			waits += got == SL_NEED_BYTES;
			for (uint32_t i = 0; i < rr.n; i++) {
				enum sl_match_verdict v = sl_matcher_judge(m, &w.facts, got, i);

				assert_true((v == SL_MATCH_WON) == (i == got));
				if (i != got)
					check_verdict(&rr.rule[i], &w, v);
				else
					won[!!rr.rule[i].n_domains +
					    (rr.rule[i].n_domains &&
					     strchr(rr.domains[i][0], '*'))]++;
			}
		}
		free(m);
	}
	/* Not only the easy answers. */
	assert_true(none > 1000 && waits > 1000 && won[0] > 1000 && won[1] > 1000 && won[2] > 1000);
}

/* Many names on one port, each found among the others, and by each way of being found. */
static void thousands_of_names(void **state)
{
	enum { N = 3000 };
	static char text[N][64];
	static const char *domains[N];
	static struct sl_match_rule rules[N];
	struct sl_matcher *m;

	(void)state;
	for (size_t i = 0; i < N; i++) {
		static const char *const forms[] = {
			"www.t%zu.example.com",   "*.t%zu.example.com", "t%zu.example.*",
			"api-*.t%zu.example.com", "t%zu-*.example.com", "*x%zux*"
		};

		snprintf(text[i], sizeof(text[i]), forms[i % 6], i);
		domains[i] = text[i];
		rules[i] = (struct sl_match_rule){ RULE, .domains = &domains[i], .n_domains = 1 };
	}
	m = build(rules, N);
	for (size_t i = 0; i < N; i++) {
		static const char *const names[] = {
			"www.t%zu.example.com",   "a.b.t%zu.example.com", "t%zu.example.org",
			"api-7.t%zu.example.com", "t%zu-7.example.com",   "ax%zuxb"
		};
		char name[64];

		snprintf(name, sizeof(name), names[i % 6], i);
		assert_int_equal(find(m, 443, name), i);
		snprintf(name, sizeof(name), "t%zu.example", i);
		assert_int_equal(find(m, 443, name), SL_NO_ROUTE);
	}
	free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_by_specificity),
		cmocka_unit_test(order_of_precedence),
		cmocka_unit_test(ports_and_addresses),
		cmocka_unit_test(waits_only_where_bytes_may_decide),
		cmocka_unit_test(verdicts),
		cmocka_unit_test(impossible_numbers_are_refused),
		cmocka_unit_test(memory_is_linear),
		cmocka_unit_test(random_rules_agree_with_the_oracle),
		cmocka_unit_test(thousands_of_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
