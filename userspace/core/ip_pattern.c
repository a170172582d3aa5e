/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "core/ip_set.h"

#include <errno.h>
#include <string.h>

#include "base/num.h"
#include "core/ip_bytes.h"

/* One address as written. */
struct end {
	bool is_v4;
	bool is_mapped; /* IPv4, written as IPv6 */
	uint32_t v4;    /* host order */
	uint8_t v6[16];
};

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool has_char(struct sl_slice s, char c)
{
	return s.n && memchr(s.p, c, s.n);
}

/* Takes what stands before `c` off `rest`; false, and nothing taken, without a `c`. */
static bool cut(struct sl_slice *rest, char c, struct sl_slice *ret)
{
	const char *at = rest->n ? memchr(rest->p, c, rest->n) : NULL;
	size_t n;

	if (!at)
		return false;
	n = (size_t)(at - rest->p);
	*ret = (struct sl_slice){ .p = rest->p, .n = n };
	*rest = (struct sl_slice){ .p = at + 1, .n = rest->n - n - 1 };
	return true;
}

/* Four decimal octets without leading zeros, which some readers take for octal. */
static bool parse_v4(struct sl_slice text, uint32_t *ret)
{
	uint32_t ip = 0;
	size_t at = 0;

	for (int octet = 0; octet < 4; octet++) {
		unsigned value = 0;
		size_t start;

		if (octet && (at == text.n || text.p[at++] != '.'))
			return false;
		for (start = at; at < text.n && at - start < 3 && is_digit(text.p[at]); at++)
			value = value * 10 + (unsigned)(text.p[at] - '0');
		if (at == start || value > 255 || (at - start > 1 && text.p[start] == '0'))
			return false;
		ip = ip << 8 | value;
	}
	if (at != text.n)
		return false;
	*ret = ip;
	return true;
}

static const char *parse_end(struct sl_slice text, struct end *ret)
{
	struct end e = { 0 };
	struct sl_addr addr;
	char copy[48]; /* INET6_ADDRSTRLEN is 46 */

	if (!has_char(text, ':')) {
		if (!parse_v4(text, &e.v4))
			return "not an IP address";
		e.is_v4 = true;
		*ret = e;
		return NULL;
	}
	if (text.n >= sizeof(copy) || has_char(text, '\0'))
		return "not an IPv6 address";
	memcpy(copy, text.p, text.n);
	copy[text.n] = '\0';
	if (sl_addr_parse_ip(copy, &addr))
		return "not an IPv6 address";
	memcpy(e.v6, &addr.v6.sin6_addr, 16);
	if (sl_ip6_is_mapped(e.v6)) {
		e.is_v4 = true;
		e.is_mapped = true;
		e.v4 = sl_load_be32(e.v6 + 12);
	}
	*ret = e;
	return NULL;
}

static struct sl_ip_pattern range4(uint32_t from, uint32_t to)
{
	return (struct sl_ip_pattern){ .kind = SL_IP_RANGE4, .v4 = { .from = from, .to = to } };
}

/* The network of the first `bits` bits. */
static struct sl_ip_pattern network4(uint32_t ip, unsigned bits)
{
	uint32_t host = bits ? (uint32_t)((UINT64_C(1) << (32 - bits)) - 1) : UINT32_MAX;

	return range4(ip & ~host, ip | host);
}

static struct sl_ip_pattern network6(const uint8_t ip[16], unsigned bits)
{
	struct sl_ip_pattern p = { .kind = SL_IP_RANGE6 };

	for (unsigned i = 0; i < 16; i++) {
		unsigned kept = bits >= (i + 1) * 8 ? 8 : bits > i * 8 ? bits - i * 8 : 0;
		uint8_t host = (uint8_t)(0xff >> kept);

		p.v6.from[i] = (uint8_t)(ip[i] & ~host);
		p.v6.to[i] = ip[i] | host;
	}
	return p;
}

static const char *parse_prefix(struct sl_slice ip, struct sl_slice bits, struct sl_ip_pattern *ret)
{
	struct end e;
	const char *why = parse_end(ip, &e);
	uint64_t n;

	if (why)
		return why;
	if (e.is_v4 && !e.is_mapped) {
		if (sl_num_parsen(bits.p, bits.n, 0, 32, &n))
			return "the prefix length of an IPv4 address is a number from 0 to 32";
		*ret = network4(e.v4, (unsigned)n);
		return NULL;
	}
	if (sl_num_parsen(bits.p, bits.n, 0, 128, &n))
		return "the prefix length of an IPv6 address is a number from 0 to 128";
	if (e.is_mapped && n < 96)
		return "the prefix length of an IPv4-mapped address is at least 96";
	*ret = e.is_mapped ? network4(e.v4, (unsigned)n - 96) : network6(e.v6, (unsigned)n);
	return NULL;
}

static const char *parse_range(struct sl_slice first, struct sl_slice last,
			       struct sl_ip_pattern *ret)
{
	struct end from;
	struct end to;
	const char *why = parse_end(first, &from);

	if (!why)
		why = parse_end(last, &to);
	if (why)
		return why;
	if (from.is_v4 != to.is_v4)
		return "both ends of a range are IPv4 or both are IPv6";
	if (from.is_v4 ? from.v4 > to.v4 : memcmp(from.v6, to.v6, 16) > 0)
		return "the range ends before it begins";
	if (from.is_v4) {
		*ret = range4(from.v4, to.v4);
		return NULL;
	}
	*ret = (struct sl_ip_pattern){ .kind = SL_IP_RANGE6 };
	memcpy(ret->v6.from, from.v6, 16);
	memcpy(ret->v6.to, to.v6, 16);
	return NULL;
}

/* Whether the decimal text of `value` has the pattern's length and digits. */
static bool octet_fits(struct sl_slice pattern, unsigned value)
{
	size_t len = value < 10 ? 1 : value < 100 ? 2 : 3;

	if (pattern.n != len)
		return false;
	for (size_t i = len; i-- > 0; value /= 10)
		if (pattern.p[i] != '?' && pattern.p[i] != (char)('0' + value % 10))
			return false;
	return true;
}

static const char *parse_octet(struct sl_slice pattern, uint64_t ret[4])
{
	uint64_t set[4] = { 0 };
	bool star = sl_slice_is(pattern, "*");

	for (size_t i = 0; i < pattern.n && !star; i++) {
		if (pattern.p[i] == '*')
			return "'*' stands for a whole octet or, at the end, for the rest";
		if (pattern.p[i] != '?' && !is_digit(pattern.p[i]))
			return "a pattern of IPv4 addresses has digits, '.', '*' and '?'";
	}
	for (unsigned value = 0; value < 256; value++)
		if (star || octet_fits(pattern, value))
			set[value / 64] |= UINT64_C(1) << value % 64;
	if (!(set[0] | set[1] | set[2] | set[3]))
		return "no number from 0 to 255 looks like one of the octets";
	memcpy(ret, set, sizeof(set));
	return NULL;
}

static unsigned octet_count(const uint64_t set[4])
{
	unsigned n = 0;

	for (int i = 0; i < 4; i++)
		n += (unsigned)__builtin_popcountll(set[i]);
	return n;
}

/* `set` is not empty. */
static unsigned octet_lowest(const uint64_t set[4])
{
	unsigned i = 0;

	while (!set[i])
		i++;
	return i * 64 + (unsigned)__builtin_ctzll(set[i]);
}

static unsigned octet_highest(const uint64_t set[4])
{
	unsigned i = 3;

	while (!set[i])
		i--;
	return i * 64 + 63 - (unsigned)__builtin_clzll(set[i]);
}

/* One run of values, only single values before it and only full octets after it. */
static bool glob_is_range(const struct sl_ip4_glob *glob, struct sl_ip4_range *ret)
{
	uint32_t from = 0;
	uint32_t to = 0;
	bool open = false;

	for (int i = 0; i < 4; i++) {
		unsigned count = octet_count(glob->octet[i]);
		unsigned low = octet_lowest(glob->octet[i]);
		unsigned high = octet_highest(glob->octet[i]);

		if (high - low + 1 != count || (open && count != 256))
			return false;
		open = open || count > 1;
		from = from << 8 | low;
		to = to << 8 | high;
	}
	*ret = (struct sl_ip4_range){ .from = from, .to = to };
	return true;
}

static const char *parse_glob4(struct sl_slice text, struct sl_ip_pattern *ret)
{
	struct sl_ip_pattern p = { .kind = SL_IP_GLOB4 };
	struct sl_slice octet;
	struct sl_ip4_range range;
	const char *why;
	int n = 0;

	if (sl_slice_is(text, "*"))
		return "'*' alone would be every address: leave the list empty, or write "
		       "0.0.0.0/0 and ::/0";
	for (bool more = true; more; n++) {
		more = cut(&text, '.', &octet);
		if (!more)
			octet = text;
		if (n == 4)
			return "an IPv4 address has four octets";
		why = parse_octet(octet, p.glob.octet[n]);
		if (why)
			return why;
	}
	if (n < 4 && !sl_slice_is(octet, "*"))
		return "an IPv4 pattern has four octets or ends in '*'";
	for (; n < 4; n++)
		memset(p.glob.octet[n], 0xff, sizeof(p.glob.octet[n]));
	*ret = p;
	if (glob_is_range(&p.glob, &range))
		*ret = range4(range.from, range.to);
	return NULL;
}

/* "2001:db8:*": whole groups, then the star for all that follow. */
static const char *parse_glob6(struct sl_slice text, struct sl_ip_pattern *ret)
{
	const char *const wrong = "an IPv6 pattern is whole groups and a final '*', as in "
				  "2001:db8:*";
	struct sl_slice group;
	uint8_t ip[16] = { 0 };
	unsigned n = 0;

	for (; cut(&text, ':', &group); n++) {
		unsigned value = 0;

		if (n == 7 || group.n == 0 || group.n > 4)
			return wrong;
		for (size_t i = 0; i < group.n; i++) {
			char c = group.p[i];
			char low = (char)(c | 0x20);

			if (!is_digit(c) && (low < 'a' || low > 'f'))
				return wrong;
			value = value << 4 | (unsigned)(is_digit(c) ? c - '0' : low - 'a' + 10);
		}
		ip[n * 2] = (uint8_t)(value >> 8);
		ip[n * 2 + 1] = (uint8_t)value;
	}
	if (!sl_slice_is(text, "*"))
		return wrong;
	if (n >= 6 && sl_ip6_is_mapped(ip))
		*ret = network4(sl_load_be32(ip + 12), n * 16 - 96);
	else
		*ret = network6(ip, n * 16);
	return NULL;
}

static const char *parse_one(struct sl_slice text, struct sl_ip_pattern *ret)
{
	struct end e;
	const char *why;

	if (has_char(text, '*') || has_char(text, '?'))
		return has_char(text, ':') ? parse_glob6(text, ret) : parse_glob4(text, ret);
	why = parse_end(text, &e);
	if (!why)
		*ret = e.is_v4 ? network4(e.v4, 32) : network6(e.v6, 128);
	return why;
}

int sl_ip_pattern_parse(struct sl_slice text, struct sl_ip_pattern *ret, const char **ret_why)
{
	struct sl_slice first;
	const char *why;

	if (!text.n)
		why = "an address is missing";
	else if (cut(&text, '/', &first))
		why = parse_prefix(first, text, ret);
	else if (cut(&text, '-', &first))
		why = parse_range(first, text, ret);
	else
		why = parse_one(text, ret);
	if (!why)
		return 0;
	*ret_why = why;
	return -EINVAL;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

bool sl_ip_file_next(struct sl_slice *rest, size_t *line, struct sl_slice *ret)
{
	while (rest->n) {
		struct sl_slice s;
		struct sl_slice before;

		if (!cut(rest, '\n', &s)) {
			s = *rest;
			*rest = (struct sl_slice){ .p = s.p + s.n };
		}
		(*line)++;
		if (cut(&s, '#', &before))
			s = before;
		while (s.n && is_blank(s.p[0])) {
			s.p++;
			s.n--;
		}
		while (s.n && is_blank(s.p[s.n - 1]))
			s.n--;
		if (s.n) {
			*ret = s;
			return true;
		}
	}
	return false;
}
