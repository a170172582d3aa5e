/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/tls_hello.h"
#include "hello_samples.h"

#define V10 SL_TLS_1_0
#define V11 SL_TLS_1_1
#define V12 SL_TLS_1_2
#define V13 SL_TLS_1_3

/* Growing bytes; vec() and end() bracket a vector with a length of so many bytes. */
struct out {
	uint8_t b[SL_HELLO_STREAM_MAX + 1024];
	size_t n;
};

static void put(struct out *o, const void *bytes, size_t n)
{
	assert_true(n <= sizeof(o->b) - o->n);
	memcpy(o->b + o->n, bytes, n);
	o->n += n;
}

static void num(struct out *o, size_t width, size_t v)
{
	for (size_t i = width; i-- > 0;) {
		uint8_t byte = (uint8_t)(v >> (8 * i));

		put(o, &byte, 1);
	}
}

static void fill(struct out *o, size_t n, uint8_t byte)
{
	for (size_t i = 0; i < n; i++)
		put(o, &byte, 1);
}

static size_t vec(struct out *o, size_t width)
{
	num(o, width, 0);
	return o->n;
}

static void end(struct out *o, size_t width, size_t begin)
{
	size_t at = o->n;
	size_t len = at - begin;

	o->n = begin - width;
	num(o, width, len);
	o->n = at;
}

static void text_vec(struct out *o, size_t width, const char *text)
{
	num(o, width, strlen(text));
	put(o, text, strlen(text));
}

static void unhex(const char *hex, struct out *o)
{
	unsigned byte;

	o->n = 0;
	for (; *hex; hex += 2) {
		assert_int_equal(sscanf(hex, "%2x", &byte), 1);
		num(o, 1, byte);
	}
}

/* The message's records, all of `size` but the last. */
static void into_records(const uint8_t *msg, size_t n, size_t size, struct out *o)
{
	o->n = 0;
	for (size_t at = 0; at < n;) {
		size_t part = n - at < size ? n - at : size;

		num(o, 1, 22);
		num(o, 2, 0x0301);
		num(o, 2, part);
		put(o, msg + at, part);
		at += part;
	}
}

struct result {
	enum sl_hello_result r;
	struct sl_hello hello; /* name and alpn point into the texts below */
	char name[SL_NAME_MAX + 1];
	uint8_t alpn[1024];
	const char *why;
};

/* The exact size, so that AddressSanitizer sees a byte too many. */
static void *exact(const void *bytes, size_t n)
{
	void *p = malloc(n ? n : 1);

	assert_non_null(p);
	if (n > 0)
		memcpy(p, bytes, n);
	return p;
}

static void keep(struct result *res, const uint8_t *bytes, const uint8_t *copy, size_t n)
{
	assert_memory_equal(bytes, copy, n); /* never written to */
	if (res->hello.name.p) {
		memcpy(res->name, res->hello.name.p, res->hello.name.n);
		res->name[res->hello.name.n] = '\0';
		res->hello.name.p = res->name;
	}
	if (res->hello.alpn.p) {
		assert_true(res->hello.alpn.n <= sizeof(res->alpn));
		memcpy(res->alpn, res->hello.alpn.p, res->hello.alpn.n);
		res->hello.alpn.p = (const char *)res->alpn;
	}
}

/* Feeds `n` bytes, first `at`, then all. */
static void read_in_two(const uint8_t *bytes, size_t n, size_t at, struct result *res)
{
	struct sl_hello_reader reader = { 0 };
	uint8_t *joined = malloc(SL_HELLO_MAX);
	uint8_t *part = exact(bytes, at);
	uint8_t *all = exact(bytes, n);

	assert_non_null(joined);
	*res = (struct result){ 0 };
	res->r = sl_hello_read(&reader, part, at, joined, &res->hello, &res->why);
	free(part);
	memset(joined, 0xee, SL_HELLO_MAX); /* nothing is kept there between two calls */
	if (res->r == SL_HELLO_MORE || at == n) {
		res->r = sl_hello_read(&reader, all, n, joined, &res->hello, &res->why);
		keep(res, all, bytes, n);
	}
	free(all);
	free(joined);
}

static void read_all(const uint8_t *bytes, size_t n, struct result *res)
{
	read_in_two(bytes, n, 0, res);
}

static void assert_same(const struct result *a, const struct result *b)
{
	assert_int_equal(a->r, b->r);
	assert_int_equal(a->hello.versions, b->hello.versions);
	assert_int_equal(a->hello.has_ech, b->hello.has_ech);
	assert_int_equal(!a->hello.name.p, !b->hello.name.p);
	assert_string_equal(a->name, b->name);
	assert_int_equal(!a->hello.alpn.p, !b->hello.alpn.p);
	assert_int_equal(a->hello.alpn.n, b->hello.alpn.n);
	assert_memory_equal(a->alpn, b->alpn, sizeof(a->alpn));
}

static const struct {
	const char *who;
	const char *hex;
	const char *name;
	const char *alpn; /* entries, each with a comma after it */
	uint32_t versions;
	bool has_ech;
} samples[] = {
	{ "openssl 1.3", HELLO_OPENSSL_TLS13, "shop.example.com", "h2,http/1.1,", V13, false },
	{ "openssl 1.2", HELLO_OPENSSL_TLS12, "shop.example.com", "", V10 | V11 | V12, false },
	{ "openssl 1.0", HELLO_OPENSSL_TLS10, "old.example", "", V10, false },
	{ "openssl, no name", HELLO_OPENSSL_NO_NAME, NULL, "", V10 | V11 | V12 | V13, false },
	{ "curl, A-label", HELLO_CURL, "xn--bcher-kva.example", "h2,http/1.1,",
	  V10 | V11 | V12 | V13, false },
	{ "curl, address", HELLO_CURL_IP, NULL, "h2,http/1.1,", V10 | V11 | V12 | V13, false },
	{ "curl 1.2", HELLO_CURL_H1, "shop.example.com", "http/1.1,", V10 | V11 | V12, false },
	{ "gnutls 1.3", HELLO_GNUTLS_TLS13, "shop.example.com", "h2,", V10 | V11 | V12 | V13,
	  false },
	{ "gnutls 1.2", HELLO_GNUTLS_TLS12, "shop.example.com", "", V10 | V11 | V12, false },
	{ "python", HELLO_PYTHON, "shop.example.com", "acme-tls/1,", V12 | V13, false },
	{ "node", HELLO_NODE, "shop.example.com", "h2,", V12 | V13, false },
	{ "chromium", HELLO_CHROMIUM, "shop.example.com", "h2,http/1.1,", V12 | V13, true },
};

static void alpn_text(struct sl_slice rest, char *text)
{
	struct sl_slice protocol;

	*text = '\0';
	while (sl_hello_next_alpn(&rest, &protocol)) {
		strncat(text, protocol.p, protocol.n);
		strcat(text, ",");
	}
	assert_int_equal(rest.n, 0);
}

static void check_sample(size_t i, const struct result *res)
{
	char alpn[256];

	if (res->r != SL_HELLO_OK)
		fail_msg("%s: %d, %s", samples[i].who, res->r, res->why ? res->why : "-");
	if (samples[i].name)
		assert_string_equal(res->name, samples[i].name);
	else
		assert_null(res->hello.name.p);
	alpn_text(res->hello.alpn, alpn);
	assert_string_equal(alpn, samples[i].alpn);
	assert_int_equal(!res->hello.alpn.p, samples[i].alpn[0] == '\0');
	assert_int_equal(res->hello.versions, samples[i].versions);
	assert_int_equal(res->hello.has_ech, samples[i].has_ech);
}

static void real_hellos_are_read(void **state)
{
	static struct out in;
	static struct result res;

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(samples); i++) {
		unhex(samples[i].hex, &in);
		read_all(in.b, in.n, &res);
		check_sample(i, &res);
		assert_int_equal(res.hello.len, in.n);
		fill(&in, 100, 0x17); /* what comes after it does not matter */
		read_all(in.b, in.n, &res);
		check_sample(i, &res);
		assert_int_equal(res.hello.len, in.n - 100);
	}
}

static void every_strict_prefix_asks_for_more(void **state)
{
	static struct out in;
	static struct result res;

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(samples); i++) {
		unhex(samples[i].hex, &in);
		for (size_t n = 0; n < in.n; n++) {
			read_all(in.b, n, &res);
			assert_int_equal(res.r, SL_HELLO_MORE);
			assert_null(res.why);
			assert_int_equal(res.hello.len, 0);
		}
	}
}

static void a_split_at_any_byte_changes_nothing(void **state)
{
	static struct out in;
	static struct result whole;
	static struct result res;

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(samples); i++) {
		unhex(samples[i].hex, &in);
		read_all(in.b, in.n, &whole);
		for (size_t at = 1; at <= in.n; at++) {
			read_in_two(in.b, in.n, at, &res);
			assert_same(&res, &whole);
			assert_int_equal(res.hello.len, in.n);
		}
	}
}

static void any_size_of_records_changes_nothing(void **state)
{
	static struct out in;
	static struct out cut;
	static struct result whole;
	static struct result res;

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(samples); i++) {
		size_t len;

		unhex(samples[i].hex, &in);
		len = in.n - 5;
		read_all(in.b, in.n, &whole);
		for (size_t size = 1; size <= len; size++) {
			into_records(in.b + 5, len, size, &cut);
			read_in_two(cut.b, cut.n, cut.n / 2, &res);
			assert_same(&res, &whole);
			assert_int_equal(res.hello.len, cut.n);
			read_all(cut.b, cut.n - 1, &res);
			assert_int_equal(res.r, SL_HELLO_MORE);
		}
	}
}

/* ---- crafted ones ---- */

enum part {
	PLAIN = 0,
	NO_EXTENSIONS,
	EMPTY_EXTENSIONS,
};

struct craft {
	size_t legacy;      /* 0: 0x0303 */
	size_t session;     /* bytes */
	size_t suites;      /* bytes; 0: four */
	size_t compression; /* bytes; 0: one; NONE: none */
	enum part part;
	void (*extensions)(struct out *o);
	size_t pad_to; /* message size */
	uint8_t trailing;
};
#define NONE SIZE_MAX

static void craft(const struct craft *c, struct out *o)
{
	size_t message;
	size_t v;

	o->n = 0;
	num(o, 1, 1);
	message = vec(o, 3);
	num(o, 2, c->legacy ? c->legacy : 0x0303);
	fill(o, 32, 0x5a);
	num(o, 1, c->session);
	fill(o, c->session, 0x11);
	v = vec(o, 2);
	if (c->suites != NONE)
		fill(o, c->suites ? c->suites : 4, 0x13);
	end(o, 2, v);
	v = vec(o, 1);
	if (c->compression != NONE)
		fill(o, c->compression ? c->compression : 1, 0);
	end(o, 1, v);
	if (c->part != NO_EXTENSIONS) {
		v = vec(o, 2);
		if (c->extensions)
			c->extensions(o);
		if (c->pad_to) {
			num(o, 2, 21);
			num(o, 2, c->pad_to - o->n - 2);
			fill(o, c->pad_to - o->n, 0);
		}
		end(o, 2, v);
	}
	fill(o, c->trailing, 0);
	end(o, 3, message);
}

static void name_entry(struct out *o, size_t type, const char *name)
{
	num(o, 1, type);
	text_vec(o, 2, name);
}

static void ext_name(struct out *o, const char *name)
{
	size_t e;
	size_t l;

	num(o, 2, 0);
	e = vec(o, 2);
	l = vec(o, 2);
	name_entry(o, 0, name);
	end(o, 2, l);
	end(o, 2, e);
}

static void ext_raw(struct out *o, size_t type, const void *bytes, size_t n)
{
	num(o, 2, type);
	num(o, 2, n);
	put(o, bytes, n);
}

#define RAW(o, type, text) ext_raw(o, type, text, sizeof(text) - 1)

static void upper_case(struct out *o)
{
	ext_name(o, "ShOp.EXAMPLE.com");
}

static void trailing_dot(struct out *o)
{
	ext_name(o, "shop.example.com.");
}

static void a_label(struct out *o)
{
	ext_name(o, "XN--bcher-KVA.example");
}

static void digits(struct out *o)
{
	ext_name(o, "192.0.2.1");
}

static void several_names(struct out *o)
{
	size_t e;
	size_t l;

	num(o, 2, 0);
	e = vec(o, 2);
	l = vec(o, 2);
	name_entry(o, 9, "of another type, not a name");
	name_entry(o, 0, "first.example");
	name_entry(o, 0, "second.example");
	name_entry(o, 0, "");
	end(o, 2, l);
	end(o, 2, e);
}

static void only_other_names(struct out *o)
{
	RAW(o, 0, "\0\4\7\0\1x");
}

/* As browsers send them now: GREASE everywhere, shares for X25519MLKEM768 and X25519. */
static void post_quantum(struct out *o)
{
	size_t e;
	size_t l;

	RAW(o, 0x2a2a, "");
	RAW(o, 16, "\0\x0c\2h2\x08http/1.1");
	RAW(o, 43, "\6\x6a\x6a\3\4\3\3");
	num(o, 2, 51);
	e = vec(o, 2);
	l = vec(o, 2);
	num(o, 2, 0x4a4a);
	num(o, 2, 1);
	fill(o, 1, 0);
	num(o, 2, 0x11ec);
	num(o, 2, 1216);
	fill(o, 1216, 0x77);
	num(o, 2, 29);
	num(o, 2, 32);
	fill(o, 32, 0x78);
	end(o, 2, l);
	end(o, 2, e);
	ext_name(o, "pq.example");
	RAW(o, 0xfafa, "\0");
}

static void ech_outer(struct out *o)
{
	RAW(o, 0xfe0d, "\0\0\1\0\1\7\0\0\0\0");
	ext_name(o, "public.example");
}

static void only_grease_version(struct out *o)
{
	RAW(o, 43, "\2\x0a\x0a");
}

static void all_versions(struct out *o)
{
	RAW(o, 43, "\x0c\3\4\3\3\3\2\3\1\3\0\x7f\x1c");
}

static const struct {
	const char *why;
	struct craft craft;
	const char *name;
	uint32_t versions;
	bool has_ech;
} crafted[] = {
	{ "no extensions", { .part = NO_EXTENSIONS }, NULL, V10 | V11 | V12, false },
	{ "none in an empty list", { 0 }, NULL, V10 | V11 | V12, false },
	{ "SSL 3.0 offers no TLS", { .legacy = 0x0300, .part = NO_EXTENSIONS }, NULL, 0, false },
	{ "1.0", { .legacy = 0x0301 }, NULL, V10, false },
	{ "1.1", { .legacy = 0x0302 }, NULL, V10 | V11, false },
	{ "1.3 in the old field says 1.2", { .legacy = 0x0304 }, NULL, V10 | V11 | V12, false },
	{ "the longest session id", { .session = 32 }, NULL, V10 | V11 | V12, false },
	{ "many suites and methods",
	  { .suites = 30000, .compression = 255 },
	  NULL,
	  V10 | V11 | V12,
	  false },
	{ "upper case", { .extensions = upper_case }, "shop.example.com", V10 | V11 | V12, false },
	{ "a dot at the end",
	  { .extensions = trailing_dot },
	  "shop.example.com",
	  V10 | V11 | V12,
	  false },
	{ "an A-label",
	  { .extensions = a_label },
	  "xn--bcher-kva.example",
	  V10 | V11 | V12,
	  false },
	{ "an IPv4 address is a name like others",
	  { .extensions = digits },
	  "192.0.2.1",
	  V10 | V11 | V12,
	  false },
	{ "the first of several names",
	  { .extensions = several_names },
	  "first.example",
	  V10 | V11 | V12,
	  false },
	{ "no host name among the names",
	  { .extensions = only_other_names },
	  NULL,
	  V10 | V11 | V12,
	  false },
	{ "post-quantum with GREASE",
	  { .session = 32, .extensions = post_quantum },
	  "pq.example",
	  V12 | V13,
	  false },
	{ "post-quantum, 2.4 KB",
	  { .extensions = post_quantum, .pad_to = 2400 },
	  "pq.example",
	  V12 | V13,
	  false },
	{ "ECH with its outer name",
	  { .extensions = ech_outer },
	  "public.example",
	  V10 | V11 | V12,
	  true },
	{ "supported_versions replaces the old field",
	  { .extensions = only_grease_version },
	  NULL,
	  0,
	  false },
	{ "all versions",
	  { .legacy = 0x0301, .extensions = all_versions },
	  NULL,
	  V10 | V11 | V12 | V13,
	  false },
	{ "more than one record can hold",
	  { .extensions = post_quantum, .pad_to = 40000 },
	  "pq.example",
	  V12 | V13,
	  false },
	{ "the largest",
	  { .extensions = post_quantum, .pad_to = SL_HELLO_MAX },
	  "pq.example",
	  V12 | V13,
	  false },
};

static void crafted_hellos_are_read(void **state)
{
	static const size_t sizes[] = { 1, 2, 3, 4, 5, 7, 63, 512, 1400, 16383, 16384 };
	static struct out msg;
	static struct out in;
	static struct result res;

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(crafted); i++) {
		craft(&crafted[i].craft, &msg);
		for (size_t s = 0; s < SL_ARRAY_LEN(sizes); s++) {
			into_records(msg.b, msg.n, sizes[s], &in);
			read_in_two(in.b, in.n, in.n * s / 11, &res);
			if (res.r != SL_HELLO_OK)
				fail_msg("%s: %d, %s", crafted[i].why, res.r, res.why);
			assert_string_equal(res.name, crafted[i].name ? crafted[i].name : "");
			assert_int_equal(!res.hello.name.p, !crafted[i].name);
			assert_int_equal(res.hello.versions, crafted[i].versions);
			assert_int_equal(res.hello.has_ech, crafted[i].has_ech);
			assert_int_equal(res.hello.len, in.n);
		}
	}
}

static void twice_unknown(struct out *o)
{
	RAW(o, 0x2a2a, "");
	RAW(o, 0x1234, "a");
	RAW(o, 0x2a2a, "");
}

static void twice_name(struct out *o)
{
	ext_name(o, "a.example");
	ext_name(o, "a.example");
}

static void name_empty(struct out *o)
{
	ext_name(o, "");
}

static void name_dot(struct out *o)
{
	ext_name(o, ".");
}

static void name_two_dots(struct out *o)
{
	ext_name(o, "a..example");
}

static void name_ipv6(struct out *o)
{
	ext_name(o, "2001:db8::1");
}

static void name_port(struct out *o)
{
	ext_name(o, "a.example:443");
}

static void name_star(struct out *o)
{
	ext_name(o, "*.example");
}

static void name_nul(struct out *o)
{
	RAW(o, 0, "\0\6\0\0\3a\0b");
}

static void name_utf8(struct out *o)
{
	ext_name(o, "b\xc3\xbc"
		    "cher.example");
}

static void names_none(struct out *o)
{
	RAW(o, 0, "\0\0");
}

static void names_no_bytes(struct out *o)
{
	RAW(o, 0, "");
}

static void names_half_length(struct out *o)
{
	RAW(o, 0, "\0");
}

static void names_short_list(struct out *o)
{
	RAW(o, 0, "\0\3\0\0\1a");
}

static void names_long_list(struct out *o)
{
	RAW(o, 0, "\0\5\0\0\1a");
}

static void names_long_entry(struct out *o)
{
	RAW(o, 0, "\0\4\0\0\2a");
}

static void names_half_entry(struct out *o)
{
	RAW(o, 0, "\0\6\0\0\1a\0\0");
}

static void names_second_long(struct out *o)
{
	RAW(o, 0, "\0\x0a\0\0\1a\0\0\x09zzz");
}

static void alpn_none(struct out *o)
{
	RAW(o, 16, "\0\0");
}

static void alpn_no_bytes(struct out *o)
{
	RAW(o, 16, "");
}

static void alpn_empty_protocol(struct out *o)
{
	RAW(o, 16, "\0\4\2h2\0");
}

static void alpn_long_protocol(struct out *o)
{
	RAW(o, 16, "\0\3\3h2");
}

static void alpn_long_list(struct out *o)
{
	RAW(o, 16, "\0\4\2h2");
}

static void alpn_short_list(struct out *o)
{
	RAW(o, 16, "\0\2\1hx");
}

static void versions_none(struct out *o)
{
	RAW(o, 43, "\0");
}

static void versions_no_bytes(struct out *o)
{
	RAW(o, 43, "");
}

static void versions_half(struct out *o)
{
	RAW(o, 43, "\3\3\4\3");
}

static void versions_long(struct out *o)
{
	RAW(o, 43, "\4\3\4");
}

static void versions_short(struct out *o)
{
	RAW(o, 43, "\2\3\4\3\3");
}

static void extension_long(struct out *o)
{
	num(o, 2, 0x1234);
	num(o, 2, 9);
	fill(o, 8, 0);
}

static void extension_half_header(struct out *o)
{
	RAW(o, 0x1234, "abc");
	fill(o, 3, 0);
}

static const struct {
	const char *why;
	struct craft craft;
	const char *says; /* begins so */
} refused[] = {
	{ "SSL 2.0 in the version", { .legacy = 0x0200 }, "a version" },
	{ "a version beyond TLS", { .legacy = 0x0400 }, "a version" },
	{ "a session id of 33 bytes", { .session = 33 }, "a session id" },
	{ "half a cipher suite", { .suites = 3 }, "no cipher suites" },
	{ "no cipher suites", { .suites = NONE, .session = 2 }, "no cipher suites" },
	{ "no compression method", { .compression = NONE, .session = 2 }, "no compression" },
	{ "a byte instead of extensions", { .part = NO_EXTENSIONS, .trailing = 1 }, "extensions" },
	{ "a byte after the extensions", { .trailing = 1 }, "extensions" },
	{ "an unknown extension twice", { .extensions = twice_unknown }, "an extension twice" },
	{ "server_name twice", { .extensions = twice_name }, "an extension twice" },
	{ "an extension beyond its list", { .extensions = extension_long }, "an extension longer" },
	{ "half an extension's header",
	  { .extensions = extension_half_header },
	  "an extension longer" },
	{ "an empty name", { .extensions = name_empty }, "server_name: not" },
	{ "a dot", { .extensions = name_dot }, "server_name: not" },
	{ "an empty label", { .extensions = name_two_dots }, "server_name: not" },
	{ "an IPv6 address", { .extensions = name_ipv6 }, "server_name: not" },
	{ "a port", { .extensions = name_port }, "server_name: not" },
	{ "a star", { .extensions = name_star }, "server_name: not" },
	{ "NUL in a name", { .extensions = name_nul }, "server_name: not" },
	{ "UTF-8 in a name", { .extensions = name_utf8 }, "server_name: not" },
	{ "no names", { .extensions = names_none }, "server_name: an empty" },
	{ "no list of names", { .extensions = names_no_bytes }, "server_name: an empty" },
	{ "half a length of names", { .extensions = names_half_length }, "server_name: an empty" },
	{ "bytes after the names", { .extensions = names_short_list }, "server_name: an empty" },
	{ "more names announced", { .extensions = names_long_list }, "server_name: an empty" },
	{ "a name beyond its list", { .extensions = names_long_entry }, "server_name: an entry" },
	{ "half an entry", { .extensions = names_half_entry }, "server_name: an entry" },
	{ "a second name too long", { .extensions = names_second_long }, "server_name: an entry" },
	{ "no protocols", { .extensions = alpn_none }, "ALPN: an empty list" },
	{ "no list of protocols", { .extensions = alpn_no_bytes }, "ALPN: an empty list" },
	{ "an empty protocol", { .extensions = alpn_empty_protocol }, "ALPN: an empty protocol" },
	{ "a protocol too long", { .extensions = alpn_long_protocol }, "ALPN: an empty protocol" },
	{ "more protocols announced", { .extensions = alpn_long_list }, "ALPN: an empty list" },
	{ "bytes after the protocols", { .extensions = alpn_short_list }, "ALPN: an empty list" },
	{ "no versions", { .extensions = versions_none }, "supported_versions" },
	{ "no list of versions", { .extensions = versions_no_bytes }, "supported_versions" },
	{ "half a version", { .extensions = versions_half }, "supported_versions" },
	{ "more versions announced", { .extensions = versions_long }, "supported_versions" },
	{ "bytes after the versions", { .extensions = versions_short }, "supported_versions" },
};

static void malformed_hellos_are_refused(void **state)
{
	static struct out msg;
	static struct out in;
	static struct result res;

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(refused); i++) {
		craft(&refused[i].craft, &msg);
		for (size_t size = 1; size <= msg.n; size += size < 9 ? 1 : 16) {
			into_records(msg.b, msg.n, size, &in);
			read_all(in.b, in.n - 1, &res);
			assert_int_equal(res.r, SL_HELLO_MORE);
			read_all(in.b, in.n, &res);
			if (res.r != SL_HELLO_BAD ||
			    strncmp(res.why, refused[i].says, strlen(refused[i].says)) != 0)
				fail_msg("%s: %d, %s", refused[i].why, res.r,
					 res.why ? res.why : "-");
			assert_int_equal(res.hello.len, 0);
		}
	}
}

/* The message cut anywhere with its lengths left alone or corrected: never OK by accident. */
static void a_message_cut_short_is_refused(void **state)
{
	static const struct craft c = { .session = 32, .extensions = post_quantum };
	static struct out msg;
	static struct out in;
	static struct result res;
	size_t whole;

	(void)state;
	craft(&c, &msg);
	whole = msg.n;
	for (size_t n = 45; n < whole; n++) {
		msg.b[2] = (uint8_t)((n - 4) >> 8);
		msg.b[3] = (uint8_t)(n - 4);
		into_records(msg.b, n, 16384, &in);
		read_all(in.b, in.n, &res);
		/* but where the extensions, which may be absent, would begin */
		if (n != 4 + 34 + 33 + 6 + 2)
			assert_int_equal(res.r, SL_HELLO_BAD);
		else
			assert_int_equal(res.r, SL_HELLO_OK);
	}
}

#define REC "\x16\3\1"
static const struct {
	const char *why;
	const char *bytes;
	size_t n; /* the shortest that shows it */
	enum sl_hello_result r;
} early[] = {
	{ "HTTP", "GET / HTTP/1.1\r\n", 1, SL_HELLO_NOT_TLS },
	{ "SSH", "SSH-2.0-", 1, SL_HELLO_NOT_TLS },
	{ "a PROXY header", "\r\n\r\n", 1, SL_HELLO_NOT_TLS },
	{ "a hello of SSL 2.0", "\x80\x2e\1\3\1", 1, SL_HELLO_NOT_TLS },
	{ "an alert", "\x15\3\1\0\2", 1, SL_HELLO_NOT_TLS },
	{ "zeros", "\0\0\0\0\0", 1, SL_HELLO_NOT_TLS },
	{ "DTLS", "\x16\xfe\xff", 2, SL_HELLO_NOT_TLS },
	{ "a record of 16640 bytes", REC "\x41\0", 4, SL_HELLO_NOT_TLS },
	{ "a record of 16385 bytes", REC "\x40\1", 5, SL_HELLO_NOT_TLS },
	{ "an empty record", REC "\0\0", 5, SL_HELLO_NOT_TLS },
	{ "a ServerHello", REC "\0\x50\2", 6, SL_HELLO_NOT_TLS },
	{ "16 MiB", REC "\0\x50\1\xff", 7, SL_HELLO_BAD },
	{ "a length of 65533", REC "\0\x50\1\0\xff\xfd", 9, SL_HELLO_BAD },
	{ "a length of 40", REC "\0\x2c\1\0\0\x28", 9, SL_HELLO_BAD },
	{ "more in the record", REC "\0\x50\1\0\0\x4b", 9, SL_HELLO_BAD },
	{ "an alert behind a part", REC "\0\1\1\x15", 7, SL_HELLO_BAD },
	{ "another version behind a part", REC "\0\1\1\x16\2", 8, SL_HELLO_BAD },
	{ "an empty record behind a part", REC "\0\1\1" REC "\0\0", 11, SL_HELLO_BAD },
	{ "a large record behind a part", REC "\0\1\1" REC "\x40\1", 11, SL_HELLO_BAD },
	{ "a huge record behind a part", REC "\0\1\1" REC "\x50", 10, SL_HELLO_BAD },
	{ "more in the second record", REC "\0\4\1\0\0\x50" REC "\0\x51", 14, SL_HELLO_BAD },
	{ "a length over two records", REC "\0\2\1\0" REC "\0\2\xff\xff", 14, SL_HELLO_BAD },
};

static void what_is_no_hello_is_told_from_the_first_byte_that_shows_it(void **state)
{
	static struct out in;
	static struct result res;

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(early); i++) {
		in.n = 0;
		put(&in, early[i].bytes, early[i].n);
		for (size_t n = 0; n < early[i].n; n++) {
			read_all(in.b, n, &res);
			if (res.r != SL_HELLO_MORE)
				fail_msg("%s: %d after %zu bytes", early[i].why, res.r, n);
		}
		fill(&in, 20, 0xaa);
		for (size_t n = early[i].n; n < in.n; n++) {
			read_all(in.b, n, &res);
			if (res.r != early[i].r)
				fail_msg("%s: %d after %zu bytes", early[i].why, res.r, n);
			assert_int_equal(!res.why, res.r == SL_HELLO_NOT_TLS);
		}
	}
}

/* Byte by byte in records of one byte: 393216 calls, of which none looks back. */
static void the_longest_stream_costs_its_bytes(void **state)
{
	static const struct craft c = { .extensions = post_quantum, .pad_to = SL_HELLO_MAX };
	static struct out msg;
	struct sl_hello_reader reader = { 0 };
	uint8_t *stream = malloc(SL_HELLO_STREAM_MAX);
	uint8_t *joined = malloc(SL_HELLO_MAX);
	struct sl_hello hello = { 0 };
	const char *why = NULL;

	(void)state;
	assert_non_null(stream);
	assert_non_null(joined);
	craft(&c, &msg);
	assert_int_equal(msg.n, SL_HELLO_MAX);
	for (size_t i = 0; i < msg.n; i++) {
		memcpy(stream + i * 6, REC "\0\1", 5);
		stream[i * 6 + 5] = msg.b[i];
	}
	for (size_t n = 0; n < SL_HELLO_STREAM_MAX; n++) {
		assert_int_equal(sl_hello_read(&reader, stream, n, joined, &hello, &why),
				 SL_HELLO_MORE);
		assert_true(n - reader.at < 6);
	}
	assert_int_equal(sl_hello_read(&reader, stream, SL_HELLO_STREAM_MAX, joined, &hello, &why),
			 SL_HELLO_OK);
	assert_int_equal(hello.len, SL_HELLO_STREAM_MAX);
	assert_true(hello.name.n == 10 && memcmp(hello.name.p, "pq.example", 10) == 0);
	assert_true((const uint8_t *)hello.name.p > joined);
	free(stream);
	free(joined);
}

/* One answer, asked again, is the same. */
static void answers_stay(void **state)
{
	static struct out in;
	static uint8_t joined[SL_HELLO_MAX];
	struct sl_hello_reader reader = { 0 };
	struct sl_hello hello = { 0 };
	struct sl_hello again = { 0 };
	const char *why = NULL;

	(void)state;
	unhex(HELLO_CHROMIUM, &in);
	assert_int_equal(sl_hello_read(&reader, in.b, in.n, joined, &hello, &why), SL_HELLO_OK);
	assert_int_equal(sl_hello_read(&reader, in.b, in.n, joined, &again, &why), SL_HELLO_OK);
	assert_memory_equal(&hello, &again, sizeof(hello));
	in.b[9] ^= 1; /* the version */
	in.b[10] ^= 0x80;
	assert_int_equal(sl_hello_read(&reader, in.b, in.n, joined, &again, &why), SL_HELLO_BAD);
	assert_int_equal(sl_hello_read(&reader, in.b, in.n, joined, &again, &why), SL_HELLO_BAD);
	assert_string_equal(why, "a version that is none of TLS");
	assert_memory_equal(&hello, &again, sizeof(hello));
}

/* ---- against the reader in Python ---- */

static void compare_line(char *line)
{
	static const char *const words[] = { "ok", "more", "not_tls", "bad" };
	static struct out in;
	static struct result res;
	char *hex = strtok(line, " \n");
	char *want = strtok(NULL, " \n");
	char got[4096];
	char *p = got;

	assert_non_null(want);
	unhex(strcmp(hex, "-") == 0 ? "" : hex, &in);
	read_in_two(in.b, in.n, in.n / 2, &res);
	if (strcmp(words[res.r], want) != 0)
		fail_msg("%s, the reader in Python says %s: %s", words[res.r], want, hex);
	if (res.r != SL_HELLO_OK)
		return;
	p += sprintf(p, "%s ", res.hello.name.p ? res.name : "-");
	for (size_t i = 0; i < res.hello.alpn.n; i++)
		p += sprintf(p, "%02x", res.alpn[i]);
	(void)sprintf(p, "%s %u %d %zu", res.hello.alpn.p ? "" : "-", res.hello.versions,
		      res.hello.has_ech, res.hello.len);
	want = strtok(NULL, "\n");
	if (strcmp(got, want) != 0)
		fail_msg("'%s', the reader in Python says '%s': %s", got, want, hex);
}

static void the_reader_in_python_agrees(void **state)
{
	FILE *oracle =
		popen("/usr/bin/python3 tests/lib/hello.py random ${SLUICE_SEED:-20} 4000", "r");
	size_t cap = 0;
	char *line = NULL;
	size_t n = 0;

	(void)state;
	assert_non_null(oracle);
	for (; getline(&line, &cap, oracle) > 0; n++)
		compare_line(line);
	free(line);
	assert_int_equal(pclose(oracle), 0);
	assert_int_equal(n, 4000);
}

/* ---- names ---- */

#define L63 "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz-0123456789"
#define L61 "-abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz01234567"
#define L253 L61 "." L63 "." L63 "." L63
static const struct {
	const char *why;
	const char *text;
	bool strip;
	const char *want; /* NULL: refused */
} names[] = {
	{ "a name", "a.example", false, "a.example" },
	{ "one letter", "a", false, "a" },
	{ "upper case", "WWW.Example.COM", false, "www.example.com" },
	{ "one dot at the end", "a.example.", false, "a.example" },
	{ "underscore and hyphen", "_x-.-y_", false, "_x-.-y_" },
	{ "digits and dots", "192.0.2.1", false, "192.0.2.1" },
	{ "a port", "a.example:443", true, "a.example" },
	{ "a dot before the port", "A.example.:443", true, "a.example" },
	{ "no port to strip", "a.example", true, "a.example" },
	{ "an empty port", "a.example:", true, "a.example" },
	{ "the largest port", "a:65535", true, "a" },
	{ "a label of 63", L63 ".x", false, L63 ".x" },
	{ "253 bytes", L253, false, L253 },
	{ "253 bytes and a dot", L253 ".", false, L253 },
	{ "254 bytes", "a" L253, false, NULL },
	{ "a label of 64", L63 "x", false, NULL },
	{ "a label of 64 later", "x." L63 "x.y", false, NULL },
	{ "nothing", "", false, NULL },
	{ "a port alone", ":80", true, NULL },
	{ "a dot alone", ".", false, NULL },
	{ "two dots at the end", "a..", false, NULL },
	{ "a dot first", ".a", false, NULL },
	{ "an empty label", "a..b", false, NULL },
	{ "a port not wanted", "a:80", false, NULL },
	{ "a port beyond 16 bits", "a:65536", true, NULL },
	{ "a port of letters", "a:http", true, NULL },
	{ "two ports", "a:1:2", true, NULL },
	{ "an IPv6 address", "[::1]:80", true, NULL },
	{ "a blank", "a b", false, NULL },
	{ "a star", "*.a", false, NULL },
	{ "UTF-8", "b\xc3\xbc", false, NULL },
	{ "a slash", "a/b", false, NULL },
};

static void names_are_made_comparable(void **state)
{
	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(names); i++) {
		size_t len = strlen(names[i].text);
		char *text = exact(names[i].text, len);
		char buf[SL_NAME_MAX + 1] = "untouched";
		size_t n = 77;
		int r = sl_name_normalize((struct sl_slice){ text, len }, names[i].strip, buf, &n);

		free(text);
		if (r != (names[i].want ? 0 : -EINVAL))
			fail_msg("%s: %d", names[i].why, r);
		assert_string_equal(buf, names[i].want ? names[i].want : "untouched");
		assert_int_equal(n, names[i].want ? strlen(names[i].want) : 77);
	}
}

static void protocols_are_taken_one_by_one(void **state)
{
	struct sl_slice rest = { 0 };
	struct sl_slice one = { 0 };

	(void)state;
	assert_false(sl_hello_next_alpn(&rest, &one)); /* absent */
	rest = sl_slice_of("\2h2\1x");
	assert_true(sl_hello_next_alpn(&rest, &one));
	assert_true(sl_slice_is(one, "h2"));
	assert_true(sl_hello_next_alpn(&rest, &one));
	assert_true(sl_slice_is(one, "x"));
	assert_false(sl_hello_next_alpn(&rest, &one));
	rest = sl_slice_of("\3h2"); /* not from a hello, and still inside */
	assert_false(sl_hello_next_alpn(&rest, &one));
	rest = (struct sl_slice){ "\0h2", 3 };
	assert_false(sl_hello_next_alpn(&rest, &one));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(real_hellos_are_read),
		cmocka_unit_test(every_strict_prefix_asks_for_more),
		cmocka_unit_test(a_split_at_any_byte_changes_nothing),
		cmocka_unit_test(any_size_of_records_changes_nothing),
		cmocka_unit_test(crafted_hellos_are_read),
		cmocka_unit_test(malformed_hellos_are_refused),
		cmocka_unit_test(a_message_cut_short_is_refused),
		cmocka_unit_test(what_is_no_hello_is_told_from_the_first_byte_that_shows_it),
		cmocka_unit_test(the_longest_stream_costs_its_bytes),
		cmocka_unit_test(answers_stay),
		cmocka_unit_test(the_reader_in_python_agrees),
		cmocka_unit_test(names_are_made_comparable),
		cmocka_unit_test(protocols_are_taken_one_by_one),
	};

	return cmocka_run_group_tests_name("tls_hello", tests, NULL, NULL);
}
