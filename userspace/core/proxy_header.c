/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "core/proxy_header.h"

#include <string.h>

/* Section 2.1 and 2.2 of the specification. */
static const char v1_signature[] = "PROXY ";
static const uint8_t v2_signature[12] = { 0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d,
					  0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a };

#define V2_FIXED 16

enum tlv_type {
	TLV_ALPN = 0x01,
	TLV_AUTHORITY = 0x02,
	TLV_CRC32C = 0x03,
	TLV_NOOP = 0x04,
	TLV_UNIQUE_ID = 0x05,
	TLV_SSL = 0x20,
	TLV_SSL_VERSION = 0x21,
	TLV_SSL_CN = 0x22,
	TLV_SSL_CIPHER = 0x23,
	TLV_NETNS = 0x30,
};

static enum sl_ph_result bad(const char **ret_why, const char *why)
{
	*ret_why = why;
	return SL_PH_BAD;
}

static uint16_t load_be16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t load_be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void store_be16(uint8_t *p, size_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void store_be32(uint8_t *p, uint32_t v)
{
	store_be16(p, v >> 16);
	store_be16(p + 2, v & 0xffff);
}

/* Reflected, four bits at a time: small, and a header's few bytes need no more. */
uint32_t sl_crc32c(uint32_t crc, const void *bytes, size_t n)
{
	static const uint32_t table[16] = {
		0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3,
		0x61c69362, 0x7198540d, 0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
		0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
	};
	const uint8_t *p = bytes;

	crc = ~crc;
	for (size_t i = 0; i < n; i++) {
		crc ^= p[i];
		crc = crc >> 4 ^ table[crc & 15];
		crc = crc >> 4 ^ table[crc & 15];
	}
	return ~crc;
}

/* ---- version 1 ---- */

/* Takes the text up to the next blank, which must be there and not be first. */
static bool next_field(struct sl_slice *rest, struct sl_slice *ret)
{
	const char *end = memchr(rest->p, ' ', rest->n);

	if (!end || end == rest->p)
		return false;
	*ret = (struct sl_slice){ .p = rest->p, .n = (size_t)(end - rest->p) };
	rest->p = end + 1;
	rest->n -= ret->n + 1;
	return true;
}

/* Decimal without leading zeros. */
static bool parse_port(struct sl_slice s, uint16_t *ret)
{
	uint32_t v = 0;

	if (s.n == 0 || s.n > 5 || (s.n > 1 && s.p[0] == '0'))
		return false;
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] < '0' || s.p[i] > '9')
			return false;
		v = v * 10 + (uint32_t)(s.p[i] - '0');
	}
	*ret = (uint16_t)v;
	return v <= UINT16_MAX;
}

/* Of the family's own form; IPv4-mapped IPv6 becomes IPv4. */
static bool parse_ip(struct sl_slice s, bool is_v6, struct sl_addr *ret)
{
	char text[46];
	struct sl_addr a;

	if (s.n >= sizeof(text) || memchr(s.p, '%', s.n) ||
	    (memchr(s.p, ':', s.n) != NULL) != is_v6)
		return false;
	memcpy(text, s.p, s.n);
	text[s.n] = '\0';
	if (sl_addr_parse_ip(text, &a) < 0)
		return false;
	sl_addr_set(ret, &a.sa);
	return true;
}

static bool parse_v1_addrs(struct sl_slice rest, bool is_v6, struct sl_proxy_header *h)
{
	struct sl_slice src;
	struct sl_slice dst;
	struct sl_slice src_port;
	uint16_t port;

	if (!next_field(&rest, &src) || !next_field(&rest, &dst) || !next_field(&rest, &src_port))
		return false;
	if (!parse_ip(src, is_v6, &h->src) || !parse_ip(dst, is_v6, &h->dst) ||
	    !parse_port(src_port, &port))
		return false;
	sl_addr_set_port(&h->src, port);
	if (!parse_port(rest, &port))
		return false;
	sl_addr_set_port(&h->dst, port);
	return true;
}

/* `line` is without its CR LF. */
static enum sl_ph_result read_v1_line(struct sl_slice line, struct sl_proxy_header *ret,
				      const char **ret_why)
{
	struct sl_proxy_header h = { .version = 1, .len = line.n + 2 };
	struct sl_slice rest = { .p = line.p + sizeof(v1_signature) - 1,
				 .n = line.n - (sizeof(v1_signature) - 1) };
	bool is_v6;

	if (rest.n >= 7 && memcmp(rest.p, "UNKNOWN", 7) == 0 && (rest.n == 7 || rest.p[7] == ' ')) {
		*ret = h;
		return SL_PH_OK;
	}
	if (rest.n < 5 || memcmp(rest.p, "TCP", 3) != 0 || (rest.p[3] != '4' && rest.p[3] != '6') ||
	    rest.p[4] != ' ')
		return bad(ret_why, "version 1: the family is none of TCP4, TCP6, UNKNOWN");
	is_v6 = rest.p[3] == '6';
	rest.p += 5;
	rest.n -= 5;
	if (!parse_v1_addrs(rest, is_v6, &h))
		return bad(ret_why, "version 1: addresses or ports are malformed");
	h.has_addrs = true;
	*ret = h;
	return SL_PH_OK;
}

static enum sl_ph_result read_v1(const char *p, size_t n, struct sl_proxy_header *ret,
				 const char **ret_why)
{
	size_t seen = n < SL_PH_V1_MAX ? n : SL_PH_V1_MAX;
	const char *cr = memchr(p, '\r', seen);
	const char *lf = memchr(p, '\n', seen);

	if (lf && (!cr || lf != cr + 1))
		return bad(ret_why, "version 1: the line does not end with CR LF");
	if (cr && (size_t)(cr - p) + 1 < seen && !lf)
		return bad(ret_why, "version 1: CR without LF");
	if (lf)
		return read_v1_line((struct sl_slice){ .p = p, .n = (size_t)(cr - p) }, ret,
				    ret_why);
	if (n >= SL_PH_V1_MAX || (cr && (size_t)(cr - p) == SL_PH_V1_MAX - 1))
		return bad(ret_why, "version 1: longer than 107 bytes");
	return SL_PH_MORE;
}

/* ---- version 2 ---- */

static void set_v2_addr(struct sl_addr *a, const uint8_t *ip, size_t len, uint16_t port)
{
	struct sl_addr raw = { 0 };

	if (len == 4) {
		raw.v4.sin_family = AF_INET;
		memcpy(&raw.v4.sin_addr, ip, len);
	} else {
		raw.v6.sin6_family = AF_INET6;
		memcpy(&raw.v6.sin6_addr, ip, len);
	}
	sl_addr_set(a, &raw.sa);
	sl_addr_set_port(a, port);
}

static void read_v2_addrs(const uint8_t *p, size_t len, struct sl_proxy_header *h)
{
	set_v2_addr(&h->src, p, len, load_be16(p + 2 * len));
	set_v2_addr(&h->dst, p + len, len, load_be16(p + 2 * len + 2));
	h->has_addrs = true;
}

struct tlv {
	uint8_t type;
	const uint8_t *p;
	size_t n;
};

/* Takes the next one off the front; false: it runs over the end. */
static bool next_tlv(const uint8_t **p, size_t *n, struct tlv *ret)
{
	size_t len;

	if (*n < 3)
		return false;
	len = load_be16(*p + 1);
	if (len > *n - 3)
		return false;
	*ret = (struct tlv){ .type = (*p)[0], .p = *p + 3, .n = len };
	*p += 3 + len;
	*n -= 3 + len;
	return true;
}

static bool set_once(struct sl_slice *slot, const struct tlv *t)
{
	if (slot->p)
		return false;
	*slot = (struct sl_slice){ .p = (const char *)t->p, .n = t->n };
	return true;
}

static const char *read_ssl(const struct tlv *ssl, struct sl_proxy_header *h)
{
	const uint8_t *p = ssl->p;
	size_t n = ssl->n;
	struct tlv t;
	bool is_new = true;

	if (h->has_ssl)
		return "version 2: a TLV is given twice";
	if (n < 5)
		return "version 2: the SSL TLV is too short";
	h->has_ssl = true;
	h->ssl_client = p[0];
	h->ssl_verify = load_be32(p + 1);
	p += 5;
	n -= 5;
	while (n > 0) {
		if (!next_tlv(&p, &n, &t))
			return "version 2: a TLV inside SSL runs over its end";
		if (t.type == TLV_SSL_VERSION)
			is_new = set_once(&h->ssl_version, &t);
		else if (t.type == TLV_SSL_CN)
			is_new = set_once(&h->ssl_cn, &t);
		else if (t.type == TLV_SSL_CIPHER)
			is_new = set_once(&h->ssl_cipher, &t);
		if (!is_new)
			return "version 2: a TLV is given twice";
	}
	return NULL;
}

/* The checksum is computed with its own four bytes as zero (section 2.2.4). */
static bool is_right_crc(const uint8_t *header, size_t len, const uint8_t *field)
{
	static const uint8_t zero[4];
	size_t at = (size_t)(field - header);
	uint32_t crc = sl_crc32c(0, header, at);

	crc = sl_crc32c(crc, zero, sizeof(zero));
	crc = sl_crc32c(crc, field + 4, len - at - 4);
	return crc == load_be32(field);
}

static const char *read_tlv(const uint8_t *header, const struct tlv *t, struct sl_proxy_header *h)
{
	bool is_new = true;

	switch (t->type) {
	case TLV_ALPN:
		is_new = set_once(&h->alpn, t);
		break;
	case TLV_AUTHORITY:
		is_new = set_once(&h->authority, t);
		break;
	case TLV_NETNS:
		is_new = set_once(&h->netns, t);
		break;
	case TLV_UNIQUE_ID:
		if (t->n > SL_PH_UNIQUE_ID_MAX)
			return "version 2: the unique id is longer than 128 bytes";
		is_new = set_once(&h->unique_id, t);
		break;
	case TLV_CRC32C:
		if (t->n != 4)
			return "version 2: the checksum has not four bytes";
		is_new = !h->has_crc32c;
		h->has_crc32c = true;
		if (is_new && !is_right_crc(header, h->len, t->p))
			return "version 2: the checksum is wrong";
		break;
	case TLV_SSL:
		return read_ssl(t, h);
	default: /* NOOP, and what later versions add */
		break;
	}
	return is_new ? NULL : "version 2: a TLV is given twice";
}

/* The bytes of the addresses that a family has; negative: not one we can take. */
static int v2_addrs_len(uint8_t family)
{
	switch (family) {
	case 0x00: /* AF_UNSPEC */
		return 0;
	case 0x11: /* TCP over IPv4 */
		return 12;
	case 0x21: /* TCP over IPv6 */
		return 36;
	case 0x31: /* unix stream */
		return 216;
	default:
		return -1;
	}
}

static enum sl_ph_result read_v2_rest(const uint8_t *header, struct sl_proxy_header *h,
				      struct sl_proxy_header *ret, const char **ret_why)
{
	size_t addrs_len = (size_t)v2_addrs_len(header[13]);
	const uint8_t *p = header + V2_FIXED;
	size_t n = h->len - V2_FIXED - addrs_len;
	struct tlv t;

	if (addrs_len == 12)
		read_v2_addrs(p, 4, h);
	else if (addrs_len == 36)
		read_v2_addrs(p, 16, h);
	p += addrs_len;
	while (n > 0) {
		const char *why = "version 2: a TLV runs over the end";

		if (next_tlv(&p, &n, &t))
			why = read_tlv(header, &t, h);
		if (why)
			return bad(ret_why, why);
	}
	*ret = *h;
	return SL_PH_OK;
}

static enum sl_ph_result read_v2(const uint8_t *p, size_t n, struct sl_proxy_header *ret,
				 const char **ret_why)
{
	struct sl_proxy_header h = { .version = 2 };

	if (n < 13)
		return SL_PH_MORE;
	if (p[12] != 0x20 && p[12] != 0x21)
		return bad(ret_why, "version 2: unknown version or command");
	h.is_local = p[12] == 0x20;
	if (n < 14)
		return SL_PH_MORE;
	if (!h.is_local && v2_addrs_len(p[13]) < 0)
		return bad(ret_why, "version 2: the family is none of TCP over IPv4 or IPv6, unix "
				    "stream, unspecified");
	if (n < V2_FIXED)
		return SL_PH_MORE;
	h.len = V2_FIXED + (size_t)load_be16(p + 14);
	if (!h.is_local && h.len < V2_FIXED + (size_t)v2_addrs_len(p[13]))
		return bad(ret_why, "version 2: the length leaves no room for the addresses");
	if (n < h.len)
		return SL_PH_MORE;
	if (!h.is_local)
		return read_v2_rest(p, &h, ret, ret_why);
	*ret = h; /* LOCAL: the receiver must ignore what follows (section 2.2) */
	return SL_PH_OK;
}

enum sl_ph_result sl_proxy_header_read(const void *bytes, size_t n, struct sl_proxy_header *ret,
				       const char **ret_why)
{
	const size_t v1_len = sizeof(v1_signature) - 1;
	size_t v2_len = sizeof(v2_signature);

	if (n == 0)
		return SL_PH_MORE;
	if (memcmp(bytes, v1_signature, n < v1_len ? n : v1_len) == 0)
		return n < v1_len ? SL_PH_MORE : read_v1(bytes, n, ret, ret_why);
	if (memcmp(bytes, v2_signature, n < v2_len ? n : v2_len) == 0)
		return n < v2_len ? SL_PH_MORE : read_v2(bytes, n, ret, ret_why);
	return SL_PH_NONE;
}

/* ---- writing ---- */

struct out {
	uint8_t *p;
	size_t n;
	size_t size;
	bool is_full;
};

static void put(struct out *o, const void *bytes, size_t n)
{
	if (o->is_full || n > o->size - o->n) {
		o->is_full = true;
		return;
	}
	if (n)
		memcpy(o->p + o->n, bytes, n);
	o->n += n;
}

static void put_text(struct out *o, const char *text)
{
	put(o, text, strlen(text));
}

static void put_port(struct out *o, uint16_t port)
{
	char text[6];
	size_t at = sizeof(text);

	text[--at] = '\0';
	do
		text[--at] = (char)('0' + port % 10);
	while (port /= 10);
	put_text(o, text + at);
}

/* Both addresses in one family: IPv4 as IPv4-mapped IPv6 where the other is IPv6. */
static bool use_v6(const struct sl_ph_out *h)
{
	return sl_addr_family(&h->src) == AF_INET6 || sl_addr_family(&h->dst) == AF_INET6;
}

static void as_v6(const struct sl_addr *a, uint8_t ip[16])
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };
	uint8_t own[16];
	size_t n = sl_addr_ip_bytes(a, own);

	memcpy(ip, mapped, sizeof(mapped));
	memcpy(ip + 16 - n, own, n);
}

static void put_v1_ip(struct out *o, const struct sl_addr *a, bool v6)
{
	char text[SL_ADDR_TEXT];

	if (v6 && sl_addr_family(a) == AF_INET)
		put_text(o, "::ffff:");
	put_text(o, sl_addr_format_ip(a, text));
	put(o, " ", 1);
}

static size_t write_v1(const struct sl_ph_out *h, struct out *o)
{
	bool v6 = use_v6(h);

	put_text(o, v1_signature);
	if (sl_addr_family(&h->src) == AF_UNSPEC || sl_addr_family(&h->dst) == AF_UNSPEC) {
		put_text(o, "UNKNOWN\r\n");
		return o->is_full ? 0 : o->n;
	}
	put_text(o, v6 ? "TCP6 " : "TCP4 ");
	put_v1_ip(o, &h->src, v6);
	put_v1_ip(o, &h->dst, v6);
	put_port(o, sl_addr_port(&h->src));
	put(o, " ", 1);
	put_port(o, sl_addr_port(&h->dst));
	put_text(o, "\r\n");
	return o->is_full ? 0 : o->n;
}

static void put_tlv(struct out *o, enum tlv_type type, const void *p, size_t n)
{
	uint8_t head[3] = { (uint8_t)type };

	if (n > UINT16_MAX) {
		o->is_full = true;
		return;
	}
	store_be16(head + 1, n);
	put(o, head, sizeof(head));
	put(o, p, n);
}

static void put_v2_addrs(struct out *o, const struct sl_ph_out *h, bool v6)
{
	uint8_t block[36];
	size_t len = v6 ? 16 : 4;

	if (v6) {
		as_v6(&h->src, block);
		as_v6(&h->dst, block + len);
	} else {
		memcpy(block, &h->src.v4.sin_addr, len);
		memcpy(block + len, &h->dst.v4.sin_addr, len);
	}
	store_be16(block + 2 * len, sl_addr_port(&h->src));
	store_be16(block + 2 * len + 2, sl_addr_port(&h->dst));
	put(o, block, 2 * len + 4);
}

static void put_slice(struct out *o, enum tlv_type type, struct sl_slice s)
{
	if (s.p)
		put_tlv(o, type, s.p, s.n);
}

static size_t write_v2(const struct sl_ph_out *h, struct out *o)
{
	bool has_addrs =
		sl_addr_family(&h->src) != AF_UNSPEC && sl_addr_family(&h->dst) != AF_UNSPEC;
	uint8_t fixed[4] = { has_addrs ? 0x21 : 0x20, !has_addrs ? 0x00 : use_v6(h) ? 0x21 : 0x11 };
	static const uint8_t no_crc[4];

	put(o, v2_signature, sizeof(v2_signature));
	put(o, fixed, sizeof(fixed));
	if (has_addrs)
		put_v2_addrs(o, h, use_v6(h));
	put_slice(o, TLV_ALPN, h->alpn);
	put_slice(o, TLV_AUTHORITY, h->authority);
	put_slice(o, TLV_UNIQUE_ID, h->unique_id);
	if (h->crc32c)
		put_tlv(o, TLV_CRC32C, no_crc, sizeof(no_crc));
	if (o->is_full || o->n - V2_FIXED > UINT16_MAX)
		return 0;
	store_be16(o->p + 14, o->n - V2_FIXED);
	if (h->crc32c)
		store_be32(o->p + o->n - 4, sl_crc32c(0, o->p, o->n));
	return o->n;
}

size_t sl_proxy_header_write(const struct sl_ph_out *h, uint8_t *buf, size_t size)
{
	struct out o = { .p = buf, .size = size };

	return h->version == SL_PH_SEND_V1 ? write_v1(h, &o) : write_v2(h, &o);
}
