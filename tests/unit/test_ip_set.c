/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>

#include "base/rand.h"
#include "core/ip_set.h"

static struct sl_addr ip(const char *text)
{
	struct sl_addr a = { 0 };

	assert_int_equal(sl_addr_parse_ip(text, &a), 0);
	return a;
}

static struct sl_addr ip4(uint32_t host)
{
	struct sl_addr a = { 0 };

	a.v4.sin_family = AF_INET;
	a.v4.sin_addr.s_addr = htonl(host);
	return a;
}

static void put_text(struct sl_ip_set *set, const char *text)
{
	struct sl_ip_pattern p;
	const char *why = NULL;

	if (sl_ip_pattern_parse(sl_slice_of(text), &p, &why))
		fail_msg("'%s': %s", text, why);
	sl_ip_set_put(set, &p);
}

/* Room for `n` of everything. */
static struct sl_ip_set new_set(size_t n)
{
	struct sl_ip_set set = { 0 };

	set.v4 = calloc(n, sizeof(*set.v4));
	set.v6 = calloc(n, sizeof(*set.v6));
	set.globs = calloc(n, sizeof(*set.globs));
	assert_true(set.v4 && set.v6 && set.globs);
	return set;
}

static void done(struct sl_ip_set *set)
{
	free(set->v4);
	free(set->v6);
	free(set->globs);
}

static bool has(const struct sl_ip_set *set, const char *text)
{
	struct sl_addr a = ip(text);

	return sl_ip_set_has(set, &a);
}

/* "from-to" for ranges, "glob" for those. */
static const char *describe(const struct sl_ip_pattern *p, char buf[128])
{
	char a[INET6_ADDRSTRLEN];
	char b[INET6_ADDRSTRLEN];

	if (p->kind == SL_IP_GLOB4)
		return "glob";
	if (p->kind == SL_IP_RANGE4) {
		uint32_t from = htonl(p->v4.from);
		uint32_t to = htonl(p->v4.to);

		inet_ntop(AF_INET, &from, a, sizeof(a));
		inet_ntop(AF_INET, &to, b, sizeof(b));
	} else {
		inet_ntop(AF_INET6, p->v6.from, a, sizeof(a));
		inet_ntop(AF_INET6, p->v6.to, b, sizeof(b));
	}
	snprintf(buf, 128, "%s-%s", a, b);
	return buf;
}

static void patterns_as_written(void **state)
{
	static const struct {
		const char *text;
		const char *is;
	} cases[] = {
		{ "192.0.2.1", "192.0.2.1-192.0.2.1" },
		{ "0.0.0.0", "0.0.0.0-0.0.0.0" },
		{ "255.255.255.255", "255.255.255.255-255.255.255.255" },
		{ "10.0.0.0/8", "10.0.0.0-10.255.255.255" },
		{ "10.9.8.7/8", "10.0.0.0-10.255.255.255" },
		{ "0.0.0.0/0", "0.0.0.0-255.255.255.255" },
		{ "1.2.3.4/32", "1.2.3.4-1.2.3.4" },
		{ "1.2.3.4/31", "1.2.3.4-1.2.3.5" },
		{ "128.0.0.0/1", "128.0.0.0-255.255.255.255" },
		{ "10.0.0.1-10.0.0.9", "10.0.0.1-10.0.0.9" },
		{ "10.0.0.1-10.0.0.1", "10.0.0.1-10.0.0.1" },
		{ "0.0.0.0-255.255.255.255", "0.0.0.0-255.255.255.255" },
		{ "10.*", "10.0.0.0-10.255.255.255" },
		{ "192.168.1.*", "192.168.1.0-192.168.1.255" },
		{ "192.168.*.*", "192.168.0.0-192.168.255.255" },
		{ "192.168.*", "192.168.0.0-192.168.255.255" },
		{ "*.*.*.*", "0.0.0.0-255.255.255.255" },
		{ "*.*", "0.0.0.0-255.255.255.255" },
		{ "10.0.0.?", "10.0.0.0-10.0.0.9" },
		{ "10.0.0.??", "10.0.0.10-10.0.0.99" },
		{ "10.0.0.???", "10.0.0.100-10.0.0.255" },
		{ "10.0.0.2??", "10.0.0.200-10.0.0.255" },
		{ "10.0.0.25?", "10.0.0.250-10.0.0.255" },
		{ "10.0.0.1?", "10.0.0.10-10.0.0.19" },
		{ "10.1?.*", "10.10.0.0-10.19.255.255" },
		{ "1?.*", "10.0.0.0-19.255.255.255" },
		{ "10.?.*.*", "10.0.0.0-10.9.255.255" },
		{ "10.0.0.?5", "glob" },
		{ "10.?.?.1", "glob" },
		{ "10.*.1.*", "glob" },
		{ "10.*.1", NULL },
		{ "*.1.*", "glob" },
		{ "?.0.0.0", "glob" },
		{ "10.0.?.1??", "glob" },
		{ "2001:db8::1", "2001:db8::1-2001:db8::1" },
		{ "::", "::-::" },
		{ "2001:db8::/32", "2001:db8::-2001:db8:ffff:ffff:ffff:ffff:ffff:ffff" },
		{ "2001:db8::9/33", "2001:db8::-2001:db8:7fff:ffff:ffff:ffff:ffff:ffff" },
		{ "::/0", "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff" },
		{ "2001:db8::1/128", "2001:db8::1-2001:db8::1" },
		{ "2001:DB8::1-2001:db8::ff", "2001:db8::1-2001:db8::ff" },
		{ "2001:db8:*", "2001:db8::-2001:db8:ffff:ffff:ffff:ffff:ffff:ffff" },
		{ "2001:DB8:0:1:2:3:4:*", "2001:db8:0:1:2:3:4:0-2001:db8:0:1:2:3:4:ffff" },
		{ "fe80:*", "fe80::-fe80:ffff:ffff:ffff:ffff:ffff:ffff:ffff" },
		{ "::ffff:192.0.2.1", "192.0.2.1-192.0.2.1" },
		{ "::ffff:10.0.0.0/104", "10.0.0.0-10.255.255.255" },
		{ "::ffff:0:0/96", "0.0.0.0-255.255.255.255" },
		{ "::ffff:10.0.0.1-::ffff:a00:9", "10.0.0.1-10.0.0.9" },
		{ "::ffff:10.0.0.1-10.0.0.9", "10.0.0.1-10.0.0.9" },
		{ "0:0:0:0:0:ffff:*", "0.0.0.0-255.255.255.255" },
		{ "0:0:0:0:0:FFFF:0a01:*", "10.1.0.0-10.1.255.255" },
		{ "0:0:0:0:0:*", "::-::ffff:255.255.255.255" },
	};

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(cases); i++) {
		struct sl_ip_pattern p;
		const char *why = NULL;
		char buf[128];
		int err = sl_ip_pattern_parse(sl_slice_of(cases[i].text), &p, &why);

		if ((err == 0) != (cases[i].is != NULL))
			fail_msg("'%s': %d (%s)", cases[i].text, err, why ? why : "good");
		if (!err && strcmp(describe(&p, buf), cases[i].is) != 0)
			fail_msg("'%s' became %s", cases[i].text, describe(&p, buf));
	}
}

static void what_is_no_pattern(void **state)
{
	static const struct {
		const char *text;
		const char *why; /* part of it */
	} cases[] = {
		{ "", "missing" },
		{ "*", "leave the list empty" },
		{ "10.0.0", "not an IP address" },
		{ "10.0.0.0.0", "not an IP address" },
		{ "10.0.0.", "not an IP address" },
		{ ".10.0.0", "not an IP address" },
		{ "10..0.0", "not an IP address" },
		{ "256.0.0.1", "not an IP address" },
		{ "10.0.0.1111", "not an IP address" },
		{ "010.0.0.1", "not an IP address" },
		{ "10.0.0.00", "not an IP address" },
		{ " 10.0.0.1", "not an IP address" },
		{ "10.0.0.1 ", "not an IP address" },
		{ "+1.0.0.1", "not an IP address" },
		{ "0x10.0.0.1", "not an IP address" },
		{ "localhost", "not an IP address" },
		{ "10.0.0.0/33", "from 0 to 32" },
		{ "10.0.0.0/", "from 0 to 32" },
		{ "10.0.0.0/-1", "from 0 to 32" },
		{ "10.0.0.0/255.0.0.0", "from 0 to 32" },
		{ "10.0.0.0/8/8", "from 0 to 32" },
		{ "10.*/8", "not an IP address" },
		{ "/8", "not an IP address" },
		{ "2001:db8::/129", "from 0 to 128" },
		{ "2001:db8::/", "from 0 to 128" },
		{ "::ffff:10.0.0.0/95", "at least 96" },
		{ "10.0.0.9-10.0.0.1", "ends before" },
		{ "2001:db8::2-2001:db8::1", "ends before" },
		{ "10.0.0.1-2001:db8::1", "both ends" },
		{ "::1-::ffff:1.2.3.4", "both ends" },
		{ "10.0.0.1-", "not an IP address" },
		{ "-10.0.0.1", "not an IP address" },
		{ "10.0.0.1-10.0.0.2-10.0.0.3", "not an IP address" },
		{ "10.0.0.1-9", "not an IP address" },
		{ "10.0.0.1-10.0.0.*", "not an IP address" },
		{ "2001:db8::g", "not an IPv6 address" },
		{ "fe80::1%eth0", "not an IPv6 address" },
		{ "[2001:db8::1]", "not an IPv6 address" },
		{ "2001:db8:1", "not an IPv6 address" },
		{ "1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa:bbbb", "not an IPv6" },
		{ "10.1*.0.0", "whole octet" },
		{ "10.**", "whole octet" },
		{ "10.?", "four octets or ends" },
		{ "10.*.1", "four octets or ends" },
		{ "10.*.*.*.*", "four octets" },
		{ "10.0.0.0.*", "four octets" },
		{ "10.0.0.3??", "looks like" },
		{ "10.0.0.0?", "looks like" },
		{ "10.0.0.????", "looks like" },
		{ "10..*", "looks like" },
		{ "10.0.0.26?", "looks like" },
		{ "10.0.a.*", "digits" },
		{ "10.0.0.*:80", "whole groups" },
		{ "2001:db8::*", "whole groups" },
		{ "2001:*:1", "whole groups" },
		{ "2001:db8*", "whole groups" },
		{ "2001:db?::1", "whole groups" },
		{ ":*", "whole groups" },
		{ "12345:*", "whole groups" },
		{ "x:*", "whole groups" },
		{ "1:2:3:4:5:6:7:8:*", "whole groups" },
		{ "2001:db8:**", "whole groups" },
	};
	static const char with_nul[] = "2001:db8::1\0x";
	struct sl_ip_pattern p;
	struct sl_ip_pattern before;
	const char *why = NULL;

	(void)state;
	memset(&p, 0x5a, sizeof(p));
	memcpy(&before, &p, sizeof(p));
	for (size_t i = 0; i < SL_ARRAY_LEN(cases); i++) {
		why = NULL;
		if (sl_ip_pattern_parse(sl_slice_of(cases[i].text), &p, &why) != -EINVAL)
			fail_msg("'%s' was taken", cases[i].text);
		if (!why || !strstr(why, cases[i].why))
			fail_msg("'%s': %s", cases[i].text, why ? why : "no text");
		assert_memory_equal(&p, &before, sizeof(p));
	}
	assert_int_equal(sl_ip_pattern_parse((struct sl_slice){ with_nul, 13 }, &p, &why), -EINVAL);
	assert_int_equal(sl_ip_pattern_parse((struct sl_slice){ 0 }, &p, &why), -EINVAL);
}

static void membership(void **state)
{
	static const char *const patterns[] = {
		"10.0.0.0/8",  "192.0.2.1",     "192.0.2.3-192.0.2.5",     "172.?.?.1",
		"198.*.100.*", "2001:db8::/32", "2001:db9::1-2001:db9::5", "255.255.255.255",
		"0.0.0.0",
	};
	static const char *const in[] = {
		"10.0.0.0",        "10.255.255.255",
		"192.0.2.1",       "192.0.2.3",
		"192.0.2.5",       "172.0.9.1",
		"198.51.100.9",    "2001:db8::",
		"2001:db9::1",     "2001:db9::5",
		"::ffff:10.1.2.3", "255.255.255.255",
		"0.0.0.0",         "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
	};
	static const char *const out[] = {
		"9.255.255.255",
		"11.0.0.0",
		"192.0.2.0",
		"192.0.2.2",
		"192.0.2.6",
		"172.10.1.1",
		"172.1.1.2",
		"198.51.101.9",
		"2001:db9::",
		"2001:db9::6",
		"2001:db7:ffff:ffff:ffff:ffff:ffff:ffff",
		"::ffff:11.0.0.0",
		"::a01:203",
		"::",
		"0.0.0.1",
	};
	struct sl_ip_set set = new_set(SL_ARRAY_LEN(patterns));
	struct sl_ip_set none = { 0 };
	struct sl_addr mapped = { 0 };
	struct sl_addr unspec = { 0 };

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(patterns); i++)
		put_text(&set, patterns[i]);
	sl_ip_set_build(&set, NULL);
	for (size_t i = 0; i < SL_ARRAY_LEN(in); i++)
		if (!has(&set, in[i]))
			fail_msg("%s is missing", in[i]);
	for (size_t i = 0; i < SL_ARRAY_LEN(out); i++)
		if (has(&set, out[i]))
			fail_msg("%s is in the set", out[i]);
	mapped.v6.sin6_family = AF_INET6;
	assert_int_equal(inet_pton(AF_INET6, "::ffff:10.1.2.3", &mapped.v6.sin6_addr), 1);
	assert_true(sl_ip_set_has(&set, &mapped));
	assert_false(sl_ip_set_has(&set, &unspec));
	assert_false(sl_ip_set_is_empty(&set));
	sl_ip_set_build(&none, NULL);
	assert_true(sl_ip_set_is_empty(&none));
	assert_false(sl_ip_set_has(&none, &mapped));
	done(&set);
}

static void everything_is_each_family_alone(void **state)
{
	struct sl_ip_set v4 = new_set(1);
	struct sl_ip_set v6 = new_set(1);
	struct sl_addr unspec = { 0 };

	(void)state;
	put_text(&v4, "0.0.0.0/0");
	put_text(&v6, "::/0");
	sl_ip_set_build(&v4, NULL);
	sl_ip_set_build(&v6, NULL);
	assert_true(has(&v4, "255.255.255.255") && !has(&v4, "::1"));
	assert_true(has(&v6, "::1") && has(&v6, "::") && !has(&v6, "1.2.3.4"));
	assert_false(sl_ip_set_has(&v4, &unspec));
	assert_false(sl_ip_set_has(&v6, &unspec));
	done(&v4);
	done(&v6);
}

static void neighbours_merge(void **state)
{
	static const char *const patterns[] = {
		"10.0.0.4-10.0.0.7",
		"10.0.0.0-10.0.0.3",
		"10.0.0.2",
		"10.0.0.9",
		"10.0.0.9",
		"255.255.255.0/24",
		"255.255.254.0/24",
		"255.255.255.255",
		"2001:db8::/64",
		"2001:db8:0:1::/64",
		"2001:db8:0:3::/64",
		"2001:db8:0:1::5",
		"ffff:*",
		"ffff:ffff:*",
		"::1",
		"::3",
	};
	struct sl_ip_set set = new_set(SL_ARRAY_LEN(patterns));

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(patterns); i++)
		put_text(&set, patterns[i]);
	sl_ip_set_build(&set, NULL);
	assert_int_equal(set.n4, 3);
	assert_int_equal(set.v4[0].from, 0x0a000000);
	assert_int_equal(set.v4[0].to, 0x0a000007);
	assert_int_equal(set.v4[2].from, 0xfffffe00);
	assert_int_equal(set.v4[2].to, 0xffffffff);
	assert_int_equal(set.n6, 5);
	assert_true(has(&set, "2001:db8:0:1:ffff:ffff:ffff:ffff"));
	assert_false(has(&set, "2001:db8:0:2::"));
	assert_false(has(&set, "::2"));
	done(&set);
}

/* Ranges around few values, so that they overlap, touch and repeat. */
static void random_ranges(struct sl_rand *r, struct sl_ip_set *set, size_t n, uint64_t span)
{
	for (size_t i = 0; i < n; i++) {
		struct sl_ip_pattern p = { .kind = SL_IP_RANGE4 };
		uint32_t at = (uint32_t)sl_rand_below(r, span);

		p.v4.from = sl_rand_below(r, 2) ? at : UINT32_MAX - at - 40;
		p.v4.to = p.v4.from + (uint32_t)sl_rand_below(r, 40);
		sl_ip_set_put(set, &p);
		p.kind = SL_IP_RANGE6;
		memset(&p.v6, 0, sizeof(p.v6));
		p.v6.from[sl_rand_below(r, 16)] = (uint8_t)sl_rand_next(r);
		p.v6.from[15] = (uint8_t)sl_rand_below(r, span);
		memcpy(p.v6.to, p.v6.from, 16);
		p.v6.to[15] |= (uint8_t)sl_rand_below(r, 8);
		sl_ip_set_put(set, &p);
	}
}

static bool naive_has4(const struct sl_ip4_range *ranges, size_t n, uint32_t at)
{
	for (size_t i = 0; i < n; i++)
		if (ranges[i].from <= at && at <= ranges[i].to)
			return true;
	return false;
}

static void check_sorted(const struct sl_ip_set *set)
{
	for (size_t i = 0; i < set->n4; i++) {
		assert_true(set->v4[i].from <= set->v4[i].to);
		assert_true(!i || set->v4[i - 1].to + UINT64_C(1) < set->v4[i].from);
	}
	for (size_t i = 0; i < set->n6; i++) {
		assert_true(memcmp(set->v6[i].from, set->v6[i].to, 16) <= 0);
		assert_true(!i || memcmp(set->v6[i - 1].to, set->v6[i].from, 16) < 0);
	}
}

static void sorting_with_and_without_scratch_agree(void **state)
{
	struct sl_rand r;

	(void)state;
	sl_rand_seed(&r, 3);
	for (int round = 0; round < 60; round++) {
		size_t n = (size_t)sl_rand_below(&r, 400) + 1;
		uint64_t span = round % 3 ? 4000 : UINT32_MAX;
		struct sl_ip_set a = new_set(n);
		struct sl_ip_set b = new_set(n);
		struct sl_ip_set raw = new_set(n);
		void *scratch = malloc(n * sizeof(struct sl_ip6_range));

		random_ranges(&r, &raw, n, span);
		memcpy(a.v4, raw.v4, n * sizeof(*a.v4));
		memcpy(b.v4, raw.v4, n * sizeof(*b.v4));
		memcpy(a.v6, raw.v6, n * sizeof(*a.v6));
		memcpy(b.v6, raw.v6, n * sizeof(*b.v6));
		a.n4 = a.n6 = b.n4 = b.n6 = n;
		sl_ip_set_build(&a, scratch);
		sl_ip_set_build(&b, NULL);
		check_sorted(&a);
		assert_true(a.n4 == b.n4 && memcmp(a.v4, b.v4, a.n4 * sizeof(*a.v4)) == 0);
		assert_true(a.n6 == b.n6 && memcmp(a.v6, b.v6, a.n6 * sizeof(*a.v6)) == 0);
		for (size_t i = 0; i < n; i++) {
			for (int d = -1; d <= 1; d++) {
				uint32_t at = raw.v4[i].to + (uint32_t)d;
				struct sl_addr addr = ip4(at);

				assert_true(sl_ip_set_has(&a, &addr) == naive_has4(raw.v4, n, at));
			}
		}
		free(scratch);
		done(&raw);
		done(&a);
		done(&b);
	}
}

/* Most bytes of the addresses are the same, which the sort skips. */
static void lists_of_one_network(void **state)
{
	enum { N = 100 };
	struct sl_ip6_range scratch[N];
	struct sl_ip_set set = new_set(N);

	(void)state;
	for (unsigned i = 0; i < N; i++) {
		char text[64];
		unsigned last = i * 37 % N * 2;

		snprintf(text, sizeof(text), "10.0.0.%u", last);
		put_text(&set, text);
		snprintf(text, sizeof(text), "2001:db8::%x:5", last);
		put_text(&set, text);
	}
	sl_ip_set_build(&set, scratch);
	check_sorted(&set);
	assert_int_equal(set.n4, N);
	assert_int_equal(set.n6, N);
	assert_true(has(&set, "10.0.0.198") && !has(&set, "10.0.0.197"));
	assert_true(has(&set, "2001:db8::2:5") && !has(&set, "2001:db8::3:5"));
	done(&set);
}

static void globs_mean_their_decimal_text(void **state)
{
	static const char *const octets[] = {
		"?", "1?", "?5", "??", "2??", "?0?", "*", "7", "25?"
	};
	struct sl_ip_set set = new_set(1);

	(void)state;
	for (size_t k = 0; k < SL_ARRAY_LEN(octets); k++) {
		char text[32];

		set.n4 = set.n_globs = 0;
		snprintf(text, sizeof(text), "?.1.2.%s", octets[k]);
		put_text(&set, text);
		sl_ip_set_build(&set, NULL);
		for (uint32_t v = 0; v < 256; v++) {
			struct sl_addr addr = ip4(0x03010200 | v);
			char digits[8];
			bool want = octets[k][0] == '*';

			snprintf(digits, sizeof(digits), "%u", v);
			if (!want && strlen(digits) == strlen(octets[k])) {
				want = true;
				for (size_t i = 0; digits[i]; i++)
					want = want &&
					       (octets[k][i] == '?' || octets[k][i] == digits[i]);
			}
			if (sl_ip_set_has(&set, &addr) != want)
				fail_msg("%s and %u", text, v);
		}
	}
	done(&set);
}

static void files(void **state)
{
	static const char text[] = "# list\n\n10.0.0.0/8 # ours\r\n  \t\n\t192.0.2.1\t\n#\n"
				   "a b\n2001:db8::/32";
	static const struct {
		size_t line;
		const char *is;
	} want[] = {
		{ 3, "10.0.0.0/8" }, { 5, "192.0.2.1" }, { 7, "a b" }, { 8, "2001:db8::/32" }
	};
	struct sl_slice rest = sl_slice_of(text);
	struct sl_slice got = { 0 };
	size_t line = 0;

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(want); i++) {
		assert_true(sl_ip_file_next(&rest, &line, &got));
		assert_int_equal(line, want[i].line);
		assert_true(sl_slice_is(got, want[i].is));
	}
	assert_false(sl_ip_file_next(&rest, &line, &got));
	assert_false(sl_ip_file_next(&rest, &line, &got));
	assert_int_equal(line, 8);
	rest = sl_slice_of("\n\n # only comments\n");
	line = 0;
	assert_false(sl_ip_file_next(&rest, &line, &got));
	assert_int_equal(line, 3);
	rest = (struct sl_slice){ 0 };
	assert_false(sl_ip_file_next(&rest, &line, &got));
}

struct prefixes {
	char text[2048];
	size_t n;
	size_t stop_at; /* 0: never */
	uint8_t next[16];
	bool wrapped;
	size_t len;
};

/* Each begins where the one before ended, is aligned, and the sum is checked by the caller. */
static int take_prefix(void *arg, const uint8_t *bytes, unsigned bits)
{
	struct prefixes *p = arg;
	uint8_t host[16] = { 0 };
	unsigned carry = 1;

	assert_true(bits <= p->len * 8);
	assert_memory_equal(bytes, p->next, p->len);
	assert_false(p->wrapped);
	for (unsigned b = bits; b < p->len * 8; b++)
		host[b / 8] |= (uint8_t)(0x80 >> b % 8);
	for (size_t i = p->len; i-- > 0;) {
		assert_int_equal(bytes[i] & host[i], 0);
		carry += (unsigned)(bytes[i] | host[i]);
		p->next[i] = (uint8_t)carry;
		carry >>= 8;
	}
	p->wrapped = carry;
	p->n++;
	return p->n == p->stop_at ? -ENOSPC : 0;
}

static void expect_prefixes(const char *text, size_t n)
{
	struct sl_ip_pattern pattern;
	struct prefixes p = { 0 };
	const char *why;
	uint8_t end[16];
	unsigned carry = 1;

	assert_int_equal(sl_ip_pattern_parse(sl_slice_of(text), &pattern, &why), 0);
	if (pattern.kind == SL_IP_RANGE4) {
		uint32_t from = htonl(pattern.v4.from);
		uint32_t to = htonl(pattern.v4.to);

		p.len = 4;
		memcpy(p.next, &from, 4);
		memcpy(end, &to, 4);
		assert_int_equal(sl_ip4_prefixes(&pattern.v4, take_prefix, &p), 0);
	} else {
		p.len = 16;
		memcpy(p.next, pattern.v6.from, 16);
		memcpy(end, pattern.v6.to, 16);
		assert_int_equal(sl_ip6_prefixes(&pattern.v6, take_prefix, &p), 0);
	}
	for (size_t i = p.len; i-- > 0; carry >>= 8) {
		carry += end[i];
		end[i] = (uint8_t)carry;
	}
	if (p.n != n)
		fail_msg("%s: %zu prefixes", text, p.n);
	assert_memory_equal(p.next, end, p.len);
	assert_int_equal(p.wrapped, carry);
}

static void ranges_as_prefixes(void **state)
{
	struct prefixes p = { .stop_at = 2, .len = 4, .next = { 0, 0, 0, 1 } };
	struct prefixes p6 = { .stop_at = 1, .len = 16 };
	struct sl_ip4_range range = { .from = 1, .to = 9 };
	struct sl_ip6_range all = { .from = { 0 } };

	(void)state;
	expect_prefixes("0.0.0.0/0", 1);
	expect_prefixes("10.0.0.0/8", 1);
	expect_prefixes("192.0.2.1", 1);
	expect_prefixes("255.255.255.255", 1);
	expect_prefixes("0.0.0.1-255.255.255.254", 62);
	expect_prefixes("0.0.0.1-255.255.255.255", 32);
	expect_prefixes("0.0.0.0-255.255.255.254", 32);
	expect_prefixes("10.0.0.1-10.0.0.9", 4);
	expect_prefixes("::/0", 1);
	expect_prefixes("2001:db8:*", 1);
	expect_prefixes("::1", 1);
	expect_prefixes("8000::/1", 1);
	expect_prefixes("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 1);
	expect_prefixes("::1-ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", 254);
	expect_prefixes("::1-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 128);
	expect_prefixes("::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", 128);
	expect_prefixes("2001:db8::ffff:ffff:ffff:ffff-2001:db8:0:1::", 2);
	expect_prefixes("2001:db8::-2001:db8:0:1:ffff:ffff:ffff:ffff", 1);
	assert_int_equal(sl_ip4_prefixes(&range, take_prefix, &p), -ENOSPC);
	assert_int_equal(p.n, 2);
	memset(all.to, 0xff, 15);
	assert_int_equal(sl_ip6_prefixes(&all, take_prefix, &p6), -ENOSPC);
	assert_int_equal(p6.n, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(patterns_as_written),
		cmocka_unit_test(what_is_no_pattern),
		cmocka_unit_test(membership),
		cmocka_unit_test(everything_is_each_family_alone),
		cmocka_unit_test(neighbours_merge),
		cmocka_unit_test(sorting_with_and_without_scratch_agree),
		cmocka_unit_test(lists_of_one_network),
		cmocka_unit_test(globs_mean_their_decimal_text),
		cmocka_unit_test(files),
		cmocka_unit_test(ranges_as_prefixes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
