/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "core/proxy_header.h"

#include <arpa/inet.h>

/* Section numbers are those of the specification named in the header. */
static const char v1_start[] = "PROXY ";
static const uint8_t v2_start[12] = { 0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d,
				      0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a };

enum {
	V2_VERSION = 0x20, /* byte 13: version and command */
	V2_LOCAL = 0x20,
	V2_PROXY = 0x21,
	FAM_UNSPEC = 0x00, /* byte 14: address family and protocol */
	FAM_TCP4 = 0x11,
	FAM_TCP6 = 0x21,
	FAM_UNIX_STREAM = 0x31,
	V2_FIXED = 16, /* bytes before the addresses */
	ADDRS_TCP4 = 12,
	ADDRS_TCP6 = 36,
	ADDRS_UNIX = 216,
};

/* Section 2.2, "the following types have already been registered". */
enum {
	TLV_ALPN = 0x01,
	TLV_AUTHORITY = 0x02,
	TLV_CRC32C = 0x03,
	TLV_UNIQUE_ID = 0x05,
	TLV_SSL = 0x20,
	TLV_SSL_VERSION = 0x21,
	TLV_SSL_CN = 0x22,
	TLV_SSL_CIPHER = 0x23,
	TLV_SSL_SIG_ALG = 0x24,
	TLV_SSL_KEY_ALG = 0x25,
	TLV_NETNS = 0x30,
	TLV_HEAD = 3, /* type and length */
	SSL_HEAD = 5, /* flags and verify, before the sub-TLVs */
};

/* ---- version 1 ---- */

/*
 * The line is read to its end even where the bytes end before: from there on the shortest that is
 * still missing is counted. So the question "can this become a header of at most 107 bytes?" has an
 * exact answer at any byte. The readers return false when nothing that follows helps.
 */
struct line {
	const uint8_t *p;
	size_t i;
	size_t n;
	size_t missing;
	const char *why;
};

static bool fail(struct line *l, const char *why)
{
	l->why = why;
	return false;
}

static bool at_end(const struct line *l)
{
	return l->i == l->n;
}

static bool take_text(struct line *l, const char *text, const char *why)
{
	for (; *text; text++) {
		if (at_end(l))
			l->missing++;
		else if (l->p[l->i++] != (uint8_t)*text)
			return fail(l, why);
	}
	return true;
}

static bool take_space(struct line *l)
{
	return take_text(l, " ", "not one space after a field");
}

/* Decimal, without leading zeros. */
static bool take_number(struct line *l, uint32_t max, uint32_t *ret, const char *why)
{
	uint32_t v = 0;
	size_t from = l->i;

	for (; !at_end(l) && l->p[l->i] >= '0' && l->p[l->i] <= '9'; l->i++) {
		if (l->i > from && v == 0)
			return fail(l, why);
		v = v * 10 + (uint32_t)(l->p[l->i] - '0');
		if (v > max)
			return fail(l, why);
	}
	if (l->i == from && !at_end(l))
		return fail(l, why);
	if (l->i == from)
		l->missing++;
	*ret = v;
	return true;
}

static bool take_ip4(struct line *l, uint8_t ret[4])
{
	static const char why[] = "a bad IPv4 address";

	for (size_t i = 0; i < 4; i++) {
		uint32_t octet;

		if (i > 0 && !take_text(l, ".", why))
			return false;
		if (!take_number(l, 255, &octet, why))
			return false;
		ret[i] = (uint8_t)octet;
	}
	return true;
}

/* What an IPv6 address is made of, in the order of its text (RFC 4291 section 2.2). */
struct groups {
	uint8_t byte[16];
	size_t n;   /* groups so far */
	size_t gap; /* groups before "::"; NO_GAP without one */
	bool ended;
};
enum { NO_GAP = 9 };

/* "::" stands for one group at least. */
static size_t max_groups(const struct groups *g)
{
	return g->gap == NO_GAP ? 8 : 7;
}

static int hex_value(uint8_t c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool take_group(struct line *l, struct groups *g, const char *why)
{
	size_t from = l->i;
	unsigned v = 0;

	for (; !at_end(l) && hex_value(l->p[l->i]) >= 0; l->i++) {
		if (l->i - from == 4)
			return fail(l, why);
		v = v << 4 | (unsigned)hex_value(l->p[l->i]);
	}
	if (l->i == from || g->n == max_groups(g))
		return fail(l, why);
	if (!at_end(l) && l->p[l->i] == '.') { /* the last two groups, dotted */
		if (g->gap == NO_GAP ? g->n != 6 : g->n > 5)
			return fail(l, why);
		l->i = from;
		if (!take_ip4(l, &g->byte[g->n * 2]))
			return false;
		g->n += 2;
		g->ended = true;
		return true;
	}
	g->byte[g->n * 2] = (uint8_t)(v >> 8);
	g->byte[g->n * 2 + 1] = (uint8_t)v;
	g->n++;
	return true;
}

/* After a group: ":" asks for one more, "::" may be followed by more, and all else ends it. */
static bool take_colons(struct line *l, struct groups *g, const char *why)
{
	if (at_end(l) || l->p[l->i] != ':') {
		g->ended = true;
		if (g->gap != NO_GAP || g->n == 8)
			return true;
		if (!at_end(l))
			return fail(l, why);
		l->missing += 2; /* "::" */
		return true;
	}
	l->i++;
	if (g->n == max_groups(g))
		return fail(l, why);
	if (at_end(l)) {
		l->missing++; /* a digit or, while there is no gap, another colon */
		g->ended = true;
		return true;
	}
	if (g->gap != NO_GAP || l->p[l->i] != ':')
		return true;
	l->i++;
	g->gap = g->n;
	g->ended = at_end(l) || hex_value(l->p[l->i]) < 0;
	return true;
}

static void spread_groups(const struct groups *g, uint8_t ret[16])
{
	size_t head = g->gap == NO_GAP ? g->n : g->gap;
	size_t tail = g->n - head;

	memset(ret, 0, 16);
	memcpy(ret, g->byte, head * 2);
	memcpy(ret + 16 - tail * 2, g->byte + head * 2, tail * 2);
}

static bool take_ip6(struct line *l, uint8_t ret[16])
{
	static const char why[] = "a bad IPv6 address";
	struct groups g = { .gap = NO_GAP };

	if (at_end(l) || l->p[l->i] == ':') {
		if (!take_text(l, "::", why))
			return false;
		g.gap = 0;
		g.ended = at_end(l) || hex_value(l->p[l->i]) < 0;
	}
	while (!g.ended) {
		if (!take_group(l, &g, why))
			return false;
		if (!g.ended && !take_colons(l, &g, why))
			return false;
	}
	spread_groups(&g, ret);
	return true;
}

static bool take_addrs(struct line *l, bool is_v6, struct sl_proxy_header *h)
{
	static const char why_port[] = "a bad port";
	uint8_t ip[2][16] = { 0 };
	struct sl_addr *const to[2] = { &h->src, &h->dst };
	uint32_t port[2];

	for (size_t i = 0; i < 2; i++)
		if (!(is_v6 ? take_ip6(l, ip[i]) : take_ip4(l, ip[i])) || !take_space(l))
			return false;
	if (!take_number(l, 65535, &port[0], why_port) || !take_space(l) ||
	    !take_number(l, 65535, &port[1], why_port))
		return false;
	for (size_t i = 0; i < 2; i++) {
		struct sockaddr_in v4 = { .sin_family = AF_INET,
					  .sin_port = htons((uint16_t)port[i]) };
		struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = v4.sin_port };

		memcpy(&v4.sin_addr, ip[i], 4);
		memcpy(&v6.sin6_addr, ip[i], 16);
		sl_addr_set(to[i], is_v6 ? (struct sockaddr *)&v6 : (struct sockaddr *)&v4);
	}
	h->has_addrs = true;
	return true;
}

/* "The receiver must ignore anything presented before the CRLF." */
static bool take_unknown(struct line *l)
{
	if (!take_text(l, "UNKNOWN", "neither TCP4, TCP6 nor UNKNOWN"))
		return false;
	if (!at_end(l) && l->p[l->i] != ' ' && l->p[l->i] != '\r')
		return fail(l, "neither TCP4, TCP6 nor UNKNOWN");
	while (!at_end(l) && l->p[l->i] != '\r')
		if (l->p[l->i++] == '\n')
			return fail(l, "a line that ends with LF alone");
	return true;
}

static bool take_tcp(struct line *l, struct sl_proxy_header *h)
{
	bool is_v6;

	if (!take_text(l, "TCP", "neither TCP4, TCP6 nor UNKNOWN"))
		return false;
	is_v6 = !at_end(l) && l->p[l->i] == '6';
	return take_text(l, is_v6 ? "6" : "4", "neither TCP4, TCP6 nor UNKNOWN") && take_space(l) &&
	       take_addrs(l, is_v6, h);
}

static enum sl_ph_result read_v1(const uint8_t *p, size_t n, struct sl_proxy_header *h,
				 const char **ret_why)
{
	struct line l = { .p = p,
			  .i = sizeof(v1_start) - 1,
			  .n = n < SL_PH_V1_MAX ? n : SL_PH_V1_MAX };
	bool is_unknown = !at_end(&l) && p[l.i] == 'U';
	bool ok = (is_unknown ? take_unknown(&l) : take_tcp(&l, h)) &&
		  take_text(&l, "\r\n", "the line does not end with CR LF");

	if (ok && l.n + l.missing > SL_PH_V1_MAX)
		ok = fail(&l, "longer than 107 bytes");
	if (!ok) {
		*ret_why = l.why;
		return SL_PH_BAD;
	}
	h->version = 1;
	h->len = l.i;
	return l.missing ? SL_PH_MORE : SL_PH_OK;
}

/* ---- version 2 ---- */

static uint32_t be16(const uint8_t *p)
{
	return (uint32_t)p[0] << 8 | p[1];
}

static uint32_t be32(const uint8_t *p)
{
	return be16(p) << 16 | be16(p + 2);
}

struct tlv {
	unsigned type;
	const uint8_t *p;
	size_t n;
};

/* Cuts the first TLV off; false when it runs over the end. */
static bool next_tlv(const uint8_t **p, size_t *n, struct tlv *ret)
{
	size_t len;

	if (*n < TLV_HEAD)
		return false;
	len = be16(*p + 1);
	if (*n - TLV_HEAD < len)
		return false;
	*ret = (struct tlv){ .type = (*p)[0], .p = *p + TLV_HEAD, .n = len };
	*p += TLV_HEAD + len;
	*n -= TLV_HEAD + len;
	return true;
}

/* Notes where a value stands; false when there was one already. */
static bool keep(struct sl_slice *s, const struct tlv *t)
{
	if (s->p)
		return false;
	*s = (struct sl_slice){ .p = (const char *)t->p, .n = t->n };
	return true;
}

/* Where a sub-TLV is kept; NULL: it is not. */
static struct sl_slice *find_ssl(struct sl_proxy_header *h, unsigned type)
{
	switch (type) {
	case TLV_SSL_VERSION:
		return &h->ssl_version;
	case TLV_SSL_CN:
		return &h->ssl_cn;
	case TLV_SSL_CIPHER:
		return &h->ssl_cipher;
	case TLV_SSL_SIG_ALG:
		return &h->ssl_sig_alg;
	case TLV_SSL_KEY_ALG:
		return &h->ssl_key_alg;
	default:
		return NULL;
	}
}

static const char *read_ssl(const struct tlv *ssl, struct sl_proxy_header *h)
{
	const uint8_t *p;
	struct tlv t;
	bool once = true;
	size_t n;

	if (h->has_ssl)
		return "a TLV is given twice";
	if (ssl->n < SSL_HEAD)
		return "the SSL TLV is too short";
	h->has_ssl = true;
	h->ssl_client = ssl->p[0];
	h->ssl_verify = be32(ssl->p + 1);
	p = ssl->p + SSL_HEAD;
	n = ssl->n - SSL_HEAD;
	while (n > 0) {
		struct sl_slice *to;

		if (!next_tlv(&p, &n, &t))
			return "a TLV of SSL runs over its end";
		to = find_ssl(h, t.type);
		once = once && (!to || keep(to, &t));
	}
	return once ? NULL : "a TLV is given twice";
}

/* The sum is that of the whole header with zeros in its own place (section 2.2.3). */
static bool is_sum_right(const uint8_t *header, size_t n, const uint8_t *sum)
{
	static const uint8_t zeros[4];
	size_t before = (size_t)(sum - header);
	uint32_t crc = sl_crc32c(0, header, before);

	crc = sl_crc32c(crc, zeros, sizeof(zeros));
	crc = sl_crc32c(crc, sum + 4, n - before - 4);
	return crc == be32(sum);
}

/* Returns why a TLV is refused, or NULL. */
static const char *read_tlv(const struct tlv *t, struct sl_proxy_header *h, struct sl_slice *sum)
{
	static const char twice[] = "a TLV is given twice";

	switch (t->type) {
	case TLV_ALPN:
		return keep(&h->alpn, t) ? NULL : twice;
	case TLV_AUTHORITY:
		return keep(&h->authority, t) ? NULL : twice;
	case TLV_NETNS:
		return keep(&h->netns, t) ? NULL : twice;
	case TLV_UNIQUE_ID:
		if (t->n > SL_PH_UNIQUE_ID_MAX)
			return "the unique id is longer than 128 bytes";
		return keep(&h->unique_id, t) ? NULL : twice;
	case TLV_CRC32C:
		if (t->n != 4)
			return "the checksum is not of 4 bytes";
		return keep(sum, t) ? NULL : twice;
	case TLV_SSL:
		return read_ssl(t, h);
	default:
		return NULL; /* NOOP, and what we do not know */
	}
}

static const char *read_tlvs(const uint8_t *header, size_t at, struct sl_proxy_header *h)
{
	const uint8_t *p = header + at;
	size_t n = h->len - at;
	struct sl_slice sum = { 0 };

	while (n > 0) {
		const char *why;
		struct tlv t;

		if (!next_tlv(&p, &n, &t))
			return "a TLV runs over the end";
		why = read_tlv(&t, h, &sum);
		if (why)
			return why;
	}
	if (sum.p && !is_sum_right(header, h->len, (const uint8_t *)sum.p))
		return "the checksum is wrong";
	h->has_crc32c = sum.p != NULL;
	return NULL;
}

static void set_v4(struct sl_addr *a, const uint8_t *ip, const uint8_t *port)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET };

	memcpy(&v4.sin_addr, ip, 4);
	memcpy(&v4.sin_port, port, 2);
	sl_addr_set(a, (const struct sockaddr *)&v4);
}

static void set_v6(struct sl_addr *a, const uint8_t *ip, const uint8_t *port)
{
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6 };

	memcpy(&v6.sin6_addr, ip, 16);
	memcpy(&v6.sin6_port, port, 2);
	sl_addr_set(a, (const struct sockaddr *)&v6);
}

static bool is_family(uint8_t family)
{
	return family == FAM_UNSPEC || family == FAM_TCP4 || family == FAM_TCP6 ||
	       family == FAM_UNIX_STREAM;
}

static size_t addrs_len(uint8_t family)
{
	if (family == FAM_TCP4)
		return ADDRS_TCP4;
	if (family == FAM_TCP6)
		return ADDRS_TCP6;
	return family == FAM_UNIX_STREAM ? ADDRS_UNIX : 0;
}

/* Why the first 16 bytes, or those there are, cannot begin a header; NULL when they can. */
static const char *check_v2_start(const uint8_t *p, size_t n)
{
	bool is_local = n > 12 && p[12] == V2_LOCAL;

	if (n > 12 && (p[12] & 0xf0) != V2_VERSION)
		return "the version is not 2";
	if (n > 12 && !is_local && p[12] != V2_PROXY)
		return "neither LOCAL nor PROXY";
	if (n > 13 && !is_local && !is_family(p[13]))
		return "an address family or protocol that no TCP connection has";
	if (n >= V2_FIXED && !is_local && be16(p + 14) < addrs_len(p[13]))
		return "too short for its addresses";
	return NULL;
}

static enum sl_ph_result read_v2(const uint8_t *p, size_t n, struct sl_proxy_header *h,
				 const char **ret_why)
{
	const char *why = check_v2_start(p, n);
	const uint8_t *addrs = p + V2_FIXED;

	if (!why && (n < V2_FIXED || n - V2_FIXED < be16(p + 14)))
		return SL_PH_MORE;
	if (!why) {
		h->version = 2;
		h->len = V2_FIXED + be16(p + 14);
		h->is_local = p[12] == V2_LOCAL;
		h->has_addrs = !h->is_local && (p[13] == FAM_TCP4 || p[13] == FAM_TCP6);
	}
	if (!why && h->has_addrs && p[13] == FAM_TCP4) {
		set_v4(&h->src, addrs, addrs + 8);
		set_v4(&h->dst, addrs + 4, addrs + 10);
	} else if (!why && h->has_addrs) {
		set_v6(&h->src, addrs, addrs + 32);
		set_v6(&h->dst, addrs + 16, addrs + 34);
	}
	/* What LOCAL and UNSPEC carry is to be skipped: nothing says where TLVs would begin. */
	if (!why && !h->is_local && p[13] != FAM_UNSPEC)
		why = read_tlvs(p, V2_FIXED + addrs_len(p[13]), h);
	if (why)
		*ret_why = why;
	return why ? SL_PH_BAD : SL_PH_OK;
}

/* ---- either ---- */

static bool fits(const uint8_t *p, size_t n, const void *start, size_t len)
{
	return memcmp(p, start, n < len ? n : len) == 0;
}

enum sl_ph_result sl_proxy_header_read(const void *bytes, size_t n, struct sl_proxy_header *ret,
				       const char **ret_why)
{
	const size_t v1_len = sizeof(v1_start) - 1;
	const size_t v2_len = sizeof(v2_start);
	struct sl_proxy_header h = { 0 };
	enum sl_ph_result r;

	if (n == 0)
		return SL_PH_MORE;
	if (fits(bytes, n, v1_start, v1_len))
		r = n < v1_len ? SL_PH_MORE : read_v1(bytes, n, &h, ret_why);
	else if (fits(bytes, n, v2_start, v2_len))
		r = n < v2_len ? SL_PH_MORE : read_v2(bytes, n, &h, ret_why);
	else
		r = SL_PH_NONE;
	if (r == SL_PH_OK)
		*ret = h;
	return r;
}

bool sl_proxy_header_is_begun(const void *bytes, size_t n)
{
	bool is_v1 = n > 0 && *(const char *)bytes == v1_start[0];

	return n >= (is_v1 ? sizeof(v1_start) - 1 : sizeof(v2_start));
}

/* ---- writing ---- */

/* Bytes being put together; what does not fit makes the whole fail. */
struct room {
	uint8_t *p;
	size_t size;
	size_t n;
	bool is_full;
};

static void put(struct room *r, const void *bytes, size_t n)
{
	if (r->is_full || r->size - r->n < n) {
		r->is_full = true;
		return;
	}
	if (n > 0)
		memcpy(r->p + r->n, bytes, n);
	r->n += n;
}

static void put_text(struct room *r, const char *text)
{
	put(r, text, strlen(text));
}

static void put_be16(struct room *r, size_t v)
{
	const uint8_t b[2] = { (uint8_t)(v >> 8), (uint8_t)v };

	put(r, b, sizeof(b));
}

static void put_decimal(struct room *r, unsigned v)
{
	char digits[10];
	size_t i = sizeof(digits);

	do {
		digits[--i] = (char)('0' + v % 10);
		v /= 10;
	} while (v);
	put(r, digits + i, sizeof(digits) - i);
}

/* The address as the header's family has it; `a` may be none (all zeros) or, for IPv6, IPv4. */
static struct sl_addr as_family(const struct sl_addr *a, sa_family_t family)
{
	struct sl_addr got = { 0 };

	if (sl_addr_family(a) == family) {
		got = *a;
	} else if (family == AF_INET6 && sl_addr_family(a) == AF_INET) {
		got.v6.sin6_addr.s6_addr[10] = 0xff;
		got.v6.sin6_addr.s6_addr[11] = 0xff;
		memcpy(&got.v6.sin6_addr.s6_addr[12], &a->v4.sin_addr, 4);
	}
	got.sa.sa_family = family;
	sl_addr_set_port(&got, sl_addr_port(a));
	return got;
}

static void put_v1(struct room *r, const struct sl_addr *src, const struct sl_addr *dst)
{
	const struct sl_addr *const both[2] = { src, dst };
	char ip[SL_ADDR_TEXT];

	put_text(r, v1_start);
	if (sl_addr_family(src) == AF_UNSPEC) {
		put_text(r, "UNKNOWN\r\n");
		return;
	}
	put_text(r, sl_addr_family(src) == AF_INET ? "TCP4" : "TCP6");
	for (size_t i = 0; i < 2; i++) {
		put_text(r, " ");
		put_text(r, sl_addr_format_ip(both[i], ip));
	}
	for (size_t i = 0; i < 2; i++) {
		put_text(r, " ");
		put_decimal(r, sl_addr_port(both[i]));
	}
	put_text(r, "\r\n");
}

static void put_tlv(struct room *r, uint8_t type, struct sl_slice s)
{
	if (!s.p)
		return;
	put(r, &type, 1);
	put_be16(r, s.n);
	put(r, s.p, s.n);
	if (s.n > UINT16_MAX)
		r->is_full = true;
}

static void put_ssl(struct room *r, const struct sl_ph_out *out)
{
	const uint8_t type = TLV_SSL;
	size_t at = r->n + 1, len;

	if (!out->has_ssl)
		return;
	put(r, &type, 1);
	put_be16(r, 0); /* the length: below */
	put(r, &out->ssl_client, 1);
	put_be16(r, out->ssl_verify >> 16);
	put_be16(r, out->ssl_verify & 0xffff);
	put_tlv(r, TLV_SSL_VERSION, out->ssl_version);
	put_tlv(r, TLV_SSL_CN, out->ssl_cn);
	put_tlv(r, TLV_SSL_CIPHER, out->ssl_cipher);
	put_tlv(r, TLV_SSL_SIG_ALG, out->ssl_sig_alg);
	put_tlv(r, TLV_SSL_KEY_ALG, out->ssl_key_alg);
	len = r->n - at - 2;
	if (r->is_full || len > UINT16_MAX) {
		r->is_full = true;
		return;
	}
	r->p[at] = (uint8_t)(len >> 8);
	r->p[at + 1] = (uint8_t)len;
}

static void put_addrs(struct room *r, const struct sl_addr *src, const struct sl_addr *dst)
{
	const struct sl_addr *const both[2] = { src, dst };

	if (sl_addr_family(src) == AF_UNSPEC)
		return;
	for (size_t i = 0; i < 2; i++) {
		uint8_t ip[16];

		put(r, ip, sl_addr_ip_bytes(both[i], ip));
	}
	put_be16(r, sl_addr_port(src));
	put_be16(r, sl_addr_port(dst));
}

static void put_v2(struct room *r, const struct sl_ph_out *out, const struct sl_addr *src,
		   const struct sl_addr *dst)
{
	static const char zeros[4];
	sa_family_t family = sl_addr_family(src);
	uint8_t fixed[2] = { V2_PROXY, family == AF_INET ? FAM_TCP4 : FAM_TCP6 };
	uint32_t crc;

	if (family == AF_UNSPEC) {
		fixed[0] = V2_LOCAL;
		fixed[1] = FAM_UNSPEC;
	}
	put(r, v2_start, sizeof(v2_start));
	put(r, fixed, sizeof(fixed));
	put_be16(r, 0); /* the length: below */
	put_addrs(r, src, dst);
	put_tlv(r, TLV_ALPN, out->alpn);
	put_tlv(r, TLV_AUTHORITY, out->authority);
	put_tlv(r, TLV_UNIQUE_ID, out->unique_id);
	put_ssl(r, out);
	if (out->crc32c)
		put_tlv(r, TLV_CRC32C, (struct sl_slice){ .p = zeros, .n = sizeof(zeros) });
	if (r->is_full || r->n > SL_PH_V2_MAX) {
		r->is_full = true;
		return;
	}
	r->p[14] = (uint8_t)((r->n - V2_FIXED) >> 8);
	r->p[15] = (uint8_t)(r->n - V2_FIXED);
	if (!out->crc32c)
		return;
	crc = htonl(sl_crc32c(0, r->p, r->n));
	memcpy(r->p + r->n - sizeof(crc), &crc, sizeof(crc));
}

size_t sl_proxy_header_write(const struct sl_ph_out *out, uint8_t *buf, size_t size)
{
	struct room r = { .p = buf, .size = size };
	sa_family_t family = sl_addr_family(&out->src);
	struct sl_addr src;
	struct sl_addr dst;

	if (family != AF_UNSPEC && sl_addr_family(&out->dst) == AF_INET6)
		family = AF_INET6;
	src = as_family(&out->src, family);
	dst = as_family(&out->dst, family);
	if (out->version == SL_PH_SEND_V1)
		put_v1(&r, &src, &dst);
	else if (out->version == SL_PH_SEND_V2 && out->unique_id.n <= SL_PH_UNIQUE_ID_MAX)
		put_v2(&r, out, &src, &dst);
	return r.is_full ? 0 : r.n;
}
