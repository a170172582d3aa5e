/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/ip_set.h"

#define MAX 16
#define TIMES 5 /* each pattern is put; more than the 64 that are sorted by comparison */

#define require(x)                        \
	do {                              \
		if (!(x))                 \
			__builtin_trap(); \
	} while (0)

struct lists {
	struct sl_ip4_range v4[MAX * TIMES];
	struct sl_ip6_range v6[MAX * TIMES];
	struct sl_ip4_glob globs[MAX * TIMES];
};

/* What is asked of the set: addresses at and beside the ends of each pattern. */
struct probes {
	struct sl_addr at[MAX * 8];
	size_t n;
};

static void probe(struct probes *p, const uint8_t ip[16], int delta)
{
	struct sl_addr a = { 0 };
	uint8_t b[16];

	memcpy(b, ip, 16);
	for (int i = 15; i >= 0; i--) {
		int v = b[i] + delta;

		b[i] = (uint8_t)v;
		delta = v < 0 ? -1 : v > 255;
	}
	a.v6.sin6_family = AF_INET6;
	memcpy(&a.v6.sin6_addr, b, 16);
	p->at[p->n++] = a;
}

static void map4(uint32_t ip, uint8_t ret[16])
{
	uint32_t be = htonl(ip);

	memset(ret, 0, 10);
	memset(ret + 10, 0xff, 2);
	memcpy(ret + 12, &be, 4);
}

/* Below, at and above both ends; for globs the lowest and highest address. */
static void add_probes(struct probes *p, const struct sl_ip_pattern *pattern)
{
	uint8_t from[16];
	uint8_t to[16];

	if (pattern->kind == SL_IP_RANGE6) {
		memcpy(from, pattern->v6.from, 16);
		memcpy(to, pattern->v6.to, 16);
		require(memcmp(from, to, 16) <= 0);
	} else if (pattern->kind == SL_IP_RANGE4) {
		map4(pattern->v4.from, from);
		map4(pattern->v4.to, to);
		require(pattern->v4.from <= pattern->v4.to);
	} else {
		map4(0, from);
		map4(0, to);
		for (int i = 0; i < 4; i++) {
			unsigned low = 256;
			unsigned high = 0;

			for (unsigned v = 0; v < 256; v++) {
				if (!(pattern->glob.octet[i][v / 64] >> v % 64 & 1))
					continue;
				low = low == 256 ? v : low;
				high = v;
			}
			require(low < 256);
			from[12 + i] = (uint8_t)low;
			to[12 + i] = (uint8_t)high;
		}
	}
	for (int delta = -1; delta <= 1; delta++) {
		probe(p, from, delta);
		probe(p, to, delta);
	}
}

/*
 * The oracle reads the pattern's text anew for each address and knows nothing of
 * ranges: prefixes compare bits, globs compare decimal texts.
 */
static int get_ip(const char *text, size_t n, uint8_t ret[16], int *ret_is4)
{
	char buf[64];

	require(n < sizeof(buf));
	memcpy(buf, text, n);
	buf[n] = '\0';
	memset(ret, 0, 10);
	memset(ret + 10, 0xff, 2);
	*ret_is4 = 1;
	if (inet_pton(AF_INET, buf, ret + 12) == 1)
		return 0;
	*ret_is4 = 0;
	return inet_pton(AF_INET6, buf, ret) == 1 ? 0 : -1;
}

static int is_mapped(const uint8_t ip[16])
{
	static const uint8_t zeros[10];

	return memcmp(ip, zeros, 10) == 0 && ip[10] == 0xff && ip[11] == 0xff;
}

static int same_bits(const uint8_t *a, const uint8_t *b, int bits)
{
	for (int i = 0; i < bits; i++)
		if ((a[i / 8] ^ b[i / 8]) & 0x80 >> i % 8)
			return 0;
	return 1;
}

static int glob4_has(const char *text, size_t n, const uint8_t *ip4)
{
	const char *end = text + n;
	int star = 0;

	for (int i = 0; i < 4; i++) {
		char digits[8];
		const char *dot = text < end ? memchr(text, '.', (size_t)(end - text)) : NULL;
		size_t len;

		if (star && text > end)
			return 1;
		len = (size_t)((dot ? dot : end) - text);
		snprintf(digits, sizeof(digits), "%u", ip4[i]);
		star = len == 1 && text[0] == '*';
		if (!star) {
			if (strlen(digits) != len)
				return 0;
			for (size_t k = 0; k < len; k++)
				if (text[k] != '?' && text[k] != digits[k])
					return 0;
		}
		text += len + 1;
	}
	return 1;
}

/* The text ends in a star, where strtoul() stops. */
static int glob6_has(const char *text, const uint8_t *ip)
{
	int groups = 0;
	char *end;

	for (; text[0] != '*'; text = end + 1, groups++) {
		unsigned long v = strtoul(text, &end, 16);

		require(*end == ':');
		if (v != (unsigned long)(ip[groups * 2] << 8 | ip[groups * 2 + 1]))
			return 0;
	}
	return groups < 6 && is_mapped(ip) ? 0 : 1;
}

static int naive_has(struct sl_slice s, const uint8_t ip[16])
{
	const char *slash = memchr(s.p, '/', s.n);
	const char *dash = memchr(s.p, '-', s.n);
	uint8_t a[16];
	uint8_t b[16];
	int is4;

	if (slash) {
		int bits = 0;

		for (const char *c = slash + 1; c < s.p + s.n; c++)
			bits = bits * 10 + (*c - '0');

		require(get_ip(s.p, (size_t)(slash - s.p), a, &is4) == 0);
		if (is_mapped(a) != is_mapped(ip))
			return 0;
		return same_bits(a, ip, is4 ? bits + 96 : bits);
	}
	if (dash) {
		require(get_ip(s.p, (size_t)(dash - s.p), a, &is4) == 0);
		require(get_ip(dash + 1, s.n - (size_t)(dash + 1 - s.p), b, &is4) == 0);
		return is_mapped(a) == is_mapped(ip) && memcmp(a, ip, 16) <= 0 &&
		       memcmp(ip, b, 16) <= 0;
	}
	if (!memchr(s.p, '*', s.n) && !memchr(s.p, '?', s.n)) {
		require(get_ip(s.p, s.n, a, &is4) == 0);
		return memcmp(a, ip, 16) == 0;
	}
	if (memchr(s.p, ':', s.n))
		return glob6_has(s.p, ip);
	return is_mapped(ip) && glob4_has(s.p, s.n, ip + 12);
}

/* The line that begins at `at`, without comment and blanks; returns where the next begins. */
static size_t naive_line(const char *text, size_t size, size_t at, struct sl_slice *ret)
{
	size_t end = at;
	size_t next;

	while (end < size && text[end] != '\n' && text[end] != '#')
		end++;
	for (next = end; next < size && text[next] != '\n';)
		next++;
	while (at < end && (text[at] == ' ' || text[at] == '\t' || text[at] == '\r'))
		at++;
	while (at < end && (text[end - 1] == ' ' || text[end - 1] == '\t' || text[end - 1] == '\r'))
		end--;
	*ret = (struct sl_slice){ .p = text + at, .n = end - at };
	return next + 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t n)
{
	static struct lists lists;
	static struct lists again;
	static struct probes probes;
	struct sl_slice good[MAX];
	struct sl_ip_set set = { .v4 = lists.v4, .v6 = lists.v6, .globs = lists.globs };
	struct sl_ip_set plain = { .v4 = again.v4, .v6 = again.v6, .globs = again.globs };
	static uint8_t scratch[sizeof(lists.v6)];
	struct sl_slice rest = { .p = (const char *)input, .n = n };
	struct sl_slice text;
	struct sl_slice expected;
	size_t n_good = 0;
	size_t line = 0;
	size_t n_lines = 0;
	size_t at = 0;

	probes.n = 0;
	while (n_good < MAX && sl_ip_file_next(&rest, &line, &text)) {
		struct sl_ip_pattern pattern;
		const char *why = NULL;

		do {
			require(at < n);
			at = naive_line((const char *)input, n, at, &expected);
			n_lines++;
		} while (!expected.n);
		require(line == n_lines && expected.p == text.p && expected.n == text.n);
		if (sl_ip_pattern_parse(text, &pattern, &why)) {
			require(why && *why);
			continue;
		}
		good[n_good++] = text;
		for (int i = 0; i < TIMES; i++)
			sl_ip_set_put(&set, &pattern);
		sl_ip_set_put(&plain, &pattern);
		add_probes(&probes, &pattern);
	}
	sl_ip_set_build(&set, scratch);
	sl_ip_set_build(&plain, NULL);
	require(sl_ip_set_is_empty(&set) == (n_good == 0));
	require(set.n4 == plain.n4 && set.n6 == plain.n6);
	require(memcmp(set.v4, plain.v4, set.n4 * sizeof(*set.v4)) == 0);
	require(memcmp(set.v6, plain.v6, set.n6 * sizeof(*set.v6)) == 0);
	for (size_t i = 0; i < probes.n; i++) {
		int want = 0;

		for (size_t k = 0; k < n_good && !want; k++)
			want = naive_has(good[k], (const uint8_t *)&probes.at[i].v6.sin6_addr);
		require(sl_ip_set_has(&set, &probes.at[i]) == want);
	}
	return 0;
}
