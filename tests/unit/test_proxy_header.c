/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/num.h"
#include "base/rand.h"
#include "core/proxy_header.h"

#define CASES "tests/lib/proxy_cases.txt"
#define PYTHON "/usr/bin/python3"
#define SECOND PYTHON " tests/lib/proxyproto.py "
#define TEXT_MAX 8192
#define ROUNDS 6000

/* ---- results as text, the way proxyproto.py writes them ---- */

static void add_escaped(FILE *f, const char *key, struct sl_slice s)
{
	if (!s.p)
		return;
	(void)fprintf(f, " %s=", key);
	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)s.p[i];

		if (c > 0x20 && c < 0x7f && !strchr("\\|{", c))
			(void)fputc(c, f);
		else
			(void)fprintf(f, "\\x%02x", c);
	}
}

static const char *describe(enum sl_ph_result r, const struct sl_proxy_header *h,
			    char buf[TEXT_MAX])
{
	static const char *const words[] = { "ok", "more", "none", "bad" };
	char addr[SL_ADDR_TEXT];
	FILE *f = fmemopen(buf, TEXT_MAX, "w");

	assert_non_null(f);
	(void)fputs(words[r], f);
	if (r == SL_PH_OK) {
		(void)fprintf(f, " v%d%s", h->version, h->is_local ? " local" : "");
		if (h->has_addrs) {
			(void)fprintf(f, " src=%s", sl_addr_format(&h->src, addr));
			(void)fprintf(f, " dst=%s", sl_addr_format(&h->dst, addr));
		}
		add_escaped(f, "alpn", h->alpn);
		add_escaped(f, "authority", h->authority);
		add_escaped(f, "unique_id", h->unique_id);
		add_escaped(f, "netns", h->netns);
		if (h->has_crc32c)
			(void)fputs(" crc32c", f);
		if (h->has_ssl)
			(void)fprintf(f, " ssl=%02x/%08x", h->ssl_client, h->ssl_verify);
		add_escaped(f, "ssl_version", h->ssl_version);
		add_escaped(f, "ssl_cn", h->ssl_cn);
		add_escaped(f, "ssl_cipher", h->ssl_cipher);
		add_escaped(f, "ssl_sig_alg", h->ssl_sig_alg);
		add_escaped(f, "ssl_key_alg", h->ssl_key_alg);
	}
	(void)fclose(f);
	return buf;
}

/* Reads a copy of exactly that size, so that a sanitizer sees any overread; keeps to the contract.
 */
static const char *read_text(const void *bytes, size_t n, char buf[TEXT_MAX])
{
	struct sl_proxy_header h;
	struct sl_proxy_header untouched;
	const char *why = NULL;
	char *copy = malloc(n ? n : 1);
	enum sl_ph_result r;

	assert_non_null(copy);
	if (n > 0)
		memcpy(copy, bytes, n);
	memset(&h, 0x55, sizeof(h));
	memset(&untouched, 0x55, sizeof(untouched));
	r = sl_proxy_header_read(copy, n, &h, &why);
	assert_int_equal(why != NULL, r == SL_PH_BAD);
	if (r != SL_PH_OK) {
		assert_memory_equal(&h, &untouched, sizeof(h));
	} else {
		assert_true(h.len <= n);
		assert_int_equal(sl_addr_family(&h.src) != AF_UNSPEC, h.has_addrs);
		assert_int_equal(sl_addr_family(&h.dst) != AF_UNSPEC, h.has_addrs);
	}
	(void)describe(r, &h, buf);
	free(copy);
	return buf;
}

/* ---- the cases ---- */

struct some_case {
	char *kind;
	char *name;
	char *left;
	char *right;
};

static unsigned hex(const char *two)
{
	const char pair[3] = { two[0], two[1], '\0' };

	return (unsigned)strtoul(pair, NULL, 16);
}

/* Returns the end of one element of `text`, whose bytes it appends. */
static const char *unescape_one(const char *text, uint8_t *ret, size_t *n)
{
	static const char sig[] = "\r\n\r\n\0\r\nQUIT\n";
	const char *end;

	if (strncmp(text, "{sig}", 5) == 0) {
		memcpy(ret + *n, sig, 12);
		*n += 12;
		return text + 5;
	}
	if (*text == '{') {
		size_t times = (size_t)strtoul(text + 4, (char **)&end, 10);

		memset(ret + *n, (int)hex(text + 1), times);
		*n += times;
		return end + 1;
	}
	if (text[0] == '\\' && text[1] == 'x') {
		ret[(*n)++] = (uint8_t)hex(text + 2);
		return text + 4;
	}
	if (text[0] == '\\') {
		ret[(*n)++] = text[1] == 'r' ? '\r' : text[1] == 'n' ? '\n' : (uint8_t)text[1];
		return text + 2;
	}
	ret[(*n)++] = (uint8_t)*text;
	return text + 1;
}

static size_t unescape(const char *text, uint8_t ret[TEXT_MAX])
{
	size_t n = 0;

	while (*text)
		text = unescape_one(text, ret, &n);
	assert_true(n <= TEXT_MAX);
	return n;
}

static char *cut(char **rest, const char *at)
{
	char *field = *rest;
	char *end = strstr(field, at);

	if (!end)
		fail_msg("no '%s' in '%s'", at, field);
	*end = '\0';
	*rest = end + strlen(at);
	return field;
}

/* Runs `check` on each case of that kind; the number of them. */
static size_t each_case(const char *kind, void (*check)(const struct some_case *c))
{
	FILE *f = fopen(CASES, "r");
	char line[TEXT_MAX];
	size_t n = 0;

	if (!f)
		fail_msg("no " CASES ": run this from the root of the project");
	while (fgets(line, sizeof(line), f)) {
		struct some_case c;
		char *rest = line;

		line[strcspn(line, "\n")] = '\0';
		if (!*line || *line == '#')
			continue;
		c.kind = cut(&rest, " ");
		c.name = cut(&rest, " | ");
		c.left = cut(&rest, " | ");
		c.right = rest;
		if (strcmp(c.kind, kind) != 0)
			continue;
		check(&c);
		n++;
	}
	(void)fclose(f);
	return n;
}

static void expect_read(const struct some_case *c, const uint8_t *bytes, size_t n, const char *want)
{
	char got[TEXT_MAX];

	if (strcmp(read_text(bytes, n, got), want) != 0)
		fail_msg("%s: after %zu bytes '%s', want '%s'", c->name, n, got, want);
}

static void check_in(const struct some_case *c)
{
	uint8_t bytes[TEXT_MAX] = { 0 };
	size_t n = unescape(c->left, bytes);
	char *at_text = strstr(c->right, " at=");
	uint64_t at = n;
	size_t longer = n + 40;

	if (at_text) {
		*at_text = '\0';
		assert_int_equal(sl_num_parse(at_text + 4, 1, n, &at), 0);
	}
	for (size_t i = 0; i <= n; i++)
		expect_read(c, bytes, i, i < at ? "more" : c->right);
	if (strcmp(c->right, "more") == 0)
		return;
	/* what follows a header, or what is none, changes nothing */
	memset(bytes + n, 'x', longer - n);
	expect_read(c, bytes, longer, c->right);
	memcpy(bytes + n, "\r\nPROXY ", 8);
	expect_read(c, bytes, longer, c->right);
}

static void cases_are_read_at_every_length(void **state)
{
	(void)state;
	assert_true(each_case("in", check_in) >= 80);
}

/* ---- writing ---- */

static void parse_addr(const char *text, struct sl_addr *ret)
{
	const char *colon = strrchr(text, ':');
	char no_port[SL_ADDR_TEXT];
	uint64_t port;

	/* sl_addr_parse() refuses port 0 */
	assert_int_equal(sl_num_parse(colon + 1, 0, 65535, &port), 0);
	(void)snprintf(no_port, sizeof(no_port), "%.*s:1", (int)(colon - text), text);
	assert_int_equal(sl_addr_parse(no_port, ret), 0);
	sl_addr_set_port(ret, (uint16_t)port);
}

/* "07/00000000" */
static void parse_ssl(const char *text, struct sl_ph_out *out)
{
	unsigned client, verify;

	assert_int_equal(sscanf(text, "%2x/%8x", &client, &verify), 2);
	out->has_ssl = true;
	out->ssl_client = (uint8_t)client;
	out->ssl_verify = verify;
}

static struct sl_slice *ssl_value(const char *word, struct sl_ph_out *out)
{
	static const char *const names[] = { "ssl_version=", "ssl_cn=", "ssl_cipher=",
					     "ssl_sig_alg=", "ssl_key_alg=" };
	struct sl_slice *const values[] = { &out->ssl_version, &out->ssl_cn, &out->ssl_cipher,
					    &out->ssl_sig_alg, &out->ssl_key_alg };

	for (size_t i = 0; i < SL_ARRAY_LEN(names); i++)
		if (strncmp(word, names[i], strlen(names[i])) == 0)
			return values[i];
	return NULL;
}

/* Values point into `text`, which is cut into words. */
static struct sl_ph_out parse_out(char *text)
{
	struct sl_ph_out out = { 0 };

	for (char *save, *w = strtok_r(text, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
		struct sl_slice value = sl_slice_of(strchr(w, '=') ? strchr(w, '=') + 1 : "");

		if (ssl_value(w, &out))
			*ssl_value(w, &out) = value;
		else if (strncmp(w, "ssl=", 4) == 0)
			parse_ssl(value.p, &out);
		else if (w[0] == 'v')
			out.version = w[1] == '1' ? SL_PH_SEND_V1 : SL_PH_SEND_V2;
		else if (strncmp(w, "src=", 4) == 0)
			parse_addr(value.p, &out.src);
		else if (strncmp(w, "dst=", 4) == 0)
			parse_addr(value.p, &out.dst);
		else if (strncmp(w, "alpn=", 5) == 0)
			out.alpn = value;
		else if (strncmp(w, "authority=", 10) == 0)
			out.authority = value;
		else if (strncmp(w, "unique_id=", 10) == 0)
			out.unique_id = value;
		else if (strcmp(w, "crc32c") == 0)
			out.crc32c = true;
		else
			fail_msg("what is '%s'?", w);
	}
	return out;
}

static void check_out(const struct some_case *c)
{
	uint8_t want[TEXT_MAX];
	uint8_t got[SL_PH_OUT_MAX + 1];
	size_t n = unescape(c->right, want);
	struct sl_ph_out out = parse_out(c->left);

	memset(got, 0xa5, sizeof(got));
	if (sl_proxy_header_write(&out, got, SL_PH_OUT_MAX) != n || memcmp(got, want, n) != 0)
		fail_msg("%s is written otherwise", c->name);
	for (size_t size = 0; size < n; size++) {
		memset(got, 0xa5, sizeof(got));
		assert_int_equal(sl_proxy_header_write(&out, got, size), 0);
		assert_int_equal(got[size], 0xa5);
	}
	assert_int_equal(sl_proxy_header_write(&out, got, n), n);
}

static void cases_are_written(void **state)
{
	(void)state;
	assert_true(each_case("out", check_out) >= 15);
}

static void write_refuses_what_does_not_fit(void **state)
{
	static char big[70000];
	static uint8_t buf[80000];
	struct sl_ph_out out = { .version = SL_PH_SEND_V2 };

	(void)state;
	out.unique_id = (struct sl_slice){ .p = big, .n = SL_PH_UNIQUE_ID_MAX };
	assert_int_equal(sl_proxy_header_write(&out, buf, sizeof(buf)), 16 + 3 + 128);
	out.unique_id.n++;
	assert_int_equal(sl_proxy_header_write(&out, buf, sizeof(buf)), 0);
	out.unique_id = (struct sl_slice){ 0 };
	out.authority = (struct sl_slice){ .p = big, .n = 65535 - 3 };
	assert_int_equal(sl_proxy_header_write(&out, buf, sizeof(buf)), SL_PH_V2_MAX);
	out.authority.n++;
	assert_int_equal(sl_proxy_header_write(&out, buf, sizeof(buf)), 0);
	out.authority.n = 65536;
	assert_int_equal(sl_proxy_header_write(&out, buf, sizeof(buf)), 0);
	out.authority = (struct sl_slice){ 0 };
	out.has_ssl = true;
	out.ssl_cn = (struct sl_slice){ .p = big, .n = 65535 - 3 - 5 - 3 };
	assert_int_equal(sl_proxy_header_write(&out, buf, sizeof(buf)), SL_PH_V2_MAX);
	out.ssl_cn.n++;
	assert_int_equal(sl_proxy_header_write(&out, buf, sizeof(buf)), 0);
	out.ssl_cn.n = 65535 - 5 - 3; /* of SSL's own length */
	assert_int_equal(sl_proxy_header_write(&out, buf, sizeof(buf)), 0);
	out.ssl_cn.n = 65535;
	assert_int_equal(sl_proxy_header_write(&out, buf, sizeof(buf)), 0);
	out.has_ssl = false;
	assert_int_equal(sl_proxy_header_write(&out, buf, sizeof(buf)), 16);
	out.version = SL_PH_SEND_NONE;
	assert_int_equal(sl_proxy_header_write(&out, buf, sizeof(buf)), 0);
}

/* As the comment on SL_PH_OUT_MAX has it. */
static void there_is_room_for_everything(void **state)
{
	static const char text[256];
	const struct sl_slice few = { .p = text, .n = 64 };
	struct sl_ph_out out = { .version = SL_PH_SEND_V2,
				 .alpn = { .p = text, .n = 255 },
				 .authority = { .p = text, .n = 253 },
				 .unique_id = { .p = text, .n = SL_PH_UNIQUE_ID_MAX },
				 .crc32c = true,
				 .has_ssl = true,
				 .ssl_version = few,
				 .ssl_cn = { .p = text, .n = SL_PH_CN_MAX },
				 .ssl_cipher = few,
				 .ssl_sig_alg = few,
				 .ssl_key_alg = few };
	uint8_t buf[SL_PH_OUT_MAX];

	(void)state;
	parse_addr("[2001:db8::1]:5", &out.src);
	parse_addr("[2001:db8::1]:5", &out.dst);
	assert_true(sl_proxy_header_write(&out, buf, sizeof(buf)) > 1000);
}

static void destination_may_be_unknown(void **state)
{
	uint8_t buf[SL_PH_OUT_MAX];
	char text[TEXT_MAX];
	struct sl_ph_out out = { .version = SL_PH_SEND_V1 };

	(void)state;
	parse_addr("192.0.2.1:5", &out.src);
	assert_string_equal(read_text(buf, sl_proxy_header_write(&out, buf, sizeof(buf)), text),
			    "ok v1 src=192.0.2.1:5 dst=0.0.0.0:0");
	parse_addr("[2001:db8::1]:5", &out.src);
	out.version = SL_PH_SEND_V2;
	assert_string_equal(read_text(buf, sl_proxy_header_write(&out, buf, sizeof(buf)), text),
			    "ok v2 src=[2001:db8::1]:5 dst=[::]:0");
}

/* ---- limits ---- */

static void longest_header_of_version_2(void **state)
{
	static uint8_t bytes[SL_PH_V2_MAX + 10];
	static const uint8_t start[] = { 0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51,
					 0x55, 0x49, 0x54, 0x0a, 0x21, 0x11, 0xff, 0xff };
	const size_t tlv = 16 + 12;
	struct sl_proxy_header h;
	const char *why;

	(void)state;
	memcpy(bytes, start, sizeof(start));
	bytes[tlv] = 0xe0;
	bytes[tlv + 1] = (uint8_t)((65535 - 12 - 3) >> 8);
	bytes[tlv + 2] = (uint8_t)(65535 - 12 - 3);
	assert_int_equal(sl_proxy_header_read(bytes, SL_PH_V2_MAX - 1, &h, &why), SL_PH_MORE);
	assert_int_equal(sl_proxy_header_read(bytes, SL_PH_V2_MAX, &h, &why), SL_PH_OK);
	assert_int_equal(h.len, SL_PH_V2_MAX);
	assert_int_equal(sl_proxy_header_read(bytes, sizeof(bytes), &h, &why), SL_PH_OK);
	assert_int_equal(h.len, SL_PH_V2_MAX);
	bytes[tlv + 2]++;
	assert_int_equal(sl_proxy_header_read(bytes, SL_PH_V2_MAX, &h, &why), SL_PH_BAD);
}

static void crc32c_of_known_bytes(void **state)
{
	uint8_t b[32];
	uint32_t crc = 0;

	(void)state;
	/* RFC 3720 appendix B.4 */
	memset(b, 0, sizeof(b));
	assert_int_equal(sl_crc32c(0, b, sizeof(b)), 0x8a9136aa);
	memset(b, 0xff, sizeof(b));
	assert_int_equal(sl_crc32c(0, b, sizeof(b)), 0x62a8ab43);
	for (size_t i = 0; i < sizeof(b); i++)
		b[i] = (uint8_t)i;
	assert_int_equal(sl_crc32c(0, b, sizeof(b)), 0x46dd794e);
	for (size_t i = 0; i < sizeof(b); i++)
		crc = sl_crc32c(crc, b + i, 1);
	assert_int_equal(crc, 0x46dd794e);
	for (size_t i = 0; i < sizeof(b); i++)
		b[i] = (uint8_t)(31 - i);
	assert_int_equal(sl_crc32c(0, b, sizeof(b)), 0x113fdb5c);
	assert_int_equal(sl_crc32c(0, "123456789", 9), 0xe3069283);
	assert_int_equal(sl_crc32c(0, NULL, 0), 0);
}

/* ---- against inet_pton() ---- */

static void random_address(struct sl_rand *r, bool dotted, char ret[64])
{
	static const char *const v6[] = { "1",   "0", "ff",   "255", "::", ":",     ":1",
					  ":f0", ".", "1.2.", "256", "g",  "00001", "0:1" };
	static const char *const v4[] = { "1", ".0", ".255", ".256", ".1", "01", ".99", "0" };
	size_t n = 0;

	for (uint64_t left = 1 + sl_rand_next(r) % (dotted ? 6 : 9); left > 0; left--) {
		uint64_t pick = sl_rand_next(r);

		n += (size_t)snprintf(ret + n, 64 - n, "%s",
				      dotted ? v4[pick % SL_ARRAY_LEN(v4)]
					     : v6[pick % SL_ARRAY_LEN(v6)]);
	}
}

/* Returns whether it is an address. */
static bool compare_address(const char *text, bool is_v6)
{
	char line[128];
	char got[TEXT_MAX];
	struct sl_addr a;
	bool is_addr = sl_addr_parse_ip(text, &a) == 0 && (sl_addr_family(&a) == AF_INET6) == is_v6;
	int n = snprintf(line, sizeof(line), "PROXY TCP%c %s %s 1 2\r\n", is_v6 ? '6' : '4', text,
			 is_v6 ? "::" : "0.0.0.0");

	(void)read_text(line, (size_t)n, got);
	if (is_addr != (strncmp(got, "ok", 2) == 0))
		fail_msg("'%s' is %san address, read: %s", text, is_addr ? "" : "not ", got);
	if (is_addr) {
		char want[SL_ADDR_TEXT];

		sl_addr_set_port(&a, 1);
		sl_addr_set(&a, &a.sa);
		(void)sl_addr_format(&a, want);
		if (strncmp(got + 10, want, strlen(want)) != 0)
			fail_msg("'%s' read as %s", text, got);
	}
	return is_addr;
}

static void addresses_are_those_of_inet_pton(void **state)
{
	struct sl_rand r;
	char text[64];
	size_t n_v4 = 0;
	size_t n_v6 = 0;

	(void)state;
	sl_rand_seed(&r, 3720);
	for (size_t i = 0; i < 300000; i++) {
		random_address(&r, i % 3 == 0, text);
		n_v4 += compare_address(text, false);
		n_v6 += compare_address(text, true);
	}
	print_message("%zu IPv4 and %zu IPv6 addresses\n", n_v4, n_v6);
	assert_true(n_v4 > 500 && n_v6 > 5000);
}

/* ---- against the second implementation ---- */

static void need_python(void)
{
	if (access(PYTHON, X_OK) != 0) {
		print_message("no " PYTHON "\n");
		skip();
	}
}

static void check_line(char *line)
{
	char got[TEXT_MAX];
	uint8_t bytes[TEXT_MAX];
	char *rest = line;
	const char *digits = cut(&rest, "\t");
	size_t n = strlen(digits) / 2;
	bool decided = false;

	rest[strcspn(rest, "\n")] = '\0';
	for (size_t i = 0; i < n; i++)
		bytes[i] = (uint8_t)hex(digits + 2 * i);
	for (size_t i = 0; i <= n; i++) {
		(void)read_text(bytes, i, got);
		decided = decided || strcmp(got, "more") != 0;
		/* the first decision is the last */
		if (decided && strcmp(got, rest) != 0)
			fail_msg("%s: after %zu bytes '%s', read there '%s'", digits, i, got, rest);
	}
	if (!decided && strcmp(rest, "more") != 0)
		fail_msg("%s: read there '%s', undecided here", digits, rest);
}

static void what_the_second_writes_is_read_alike(void **state)
{
	FILE *f;
	char line[2 * TEXT_MAX];
	size_t n = 0;

	(void)state;
	need_python();
	f = popen(SECOND "random 6000 1", "r");
	assert_non_null(f);
	for (; fgets(line, sizeof(line), f); n++)
		check_line(line);
	assert_int_equal(pclose(f), 0);
	assert_int_equal(n, ROUNDS);
}

static void random_addr(struct sl_rand *r, struct sl_addr *a)
{
	uint64_t kind = sl_rand_next(r) % 5;
	uint8_t ip[16];

	for (size_t i = 0; i < sizeof(ip); i++)
		ip[i] = sl_rand_next(r) % 3 ? (uint8_t)sl_rand_next(r) : 0;
	*a = (struct sl_addr){ 0 };
	if (kind < 2) {
		a->v4.sin_family = AF_INET;
		memcpy(&a->v4.sin_addr, ip, 4);
	} else if (kind < 4) {
		a->v6.sin6_family = AF_INET6;
		memcpy(&a->v6.sin6_addr, ip, 16);
	}
	sl_addr_set_port(a, (uint16_t)sl_rand_next(r));
	sl_addr_set(a, &a->sa);
}

static struct sl_slice random_value(struct sl_rand *r, char *room, size_t size)
{
	size_t n = sl_rand_next(r) % (size + 1);

	for (size_t i = 0; i < n; i++)
		room[i] = (char)sl_rand_next(r);
	return (struct sl_slice){ .p = sl_rand_next(r) % 2 ? room : NULL, .n = n };
}

static void random_ssl(struct sl_rand *r, struct sl_ph_out *out,
		       char values[5][SL_PH_UNIQUE_ID_MAX / 2])
{
	struct sl_slice *const all[] = { &out->ssl_version, &out->ssl_cn, &out->ssl_cipher,
					 &out->ssl_sig_alg, &out->ssl_key_alg };

	out->has_ssl = sl_rand_next(r) % 2;
	out->ssl_client = (uint8_t)sl_rand_next(r);
	out->ssl_verify = (uint32_t)sl_rand_next(r);
	for (size_t i = 0; i < SL_ARRAY_LEN(all); i++)
		*all[i] = random_value(r, values[i], sizeof(values[i]));
}

/* Writes one header with its meaning, as "HEX<tab>RESULT". */
static void write_line(struct sl_rand *r, FILE *f)
{
	char values[3][SL_PH_UNIQUE_ID_MAX];
	char ssl[5][SL_PH_UNIQUE_ID_MAX / 2];
	uint8_t buf[SL_PH_OUT_MAX];
	char text[TEXT_MAX];
	char again[TEXT_MAX];
	struct sl_ph_out out = { .version = sl_rand_next(r) % 2 ? SL_PH_SEND_V1 : SL_PH_SEND_V2 };
	struct sl_proxy_header h = { .version = out.version == SL_PH_SEND_V1 ? 1 : 2 };
	size_t n;

	random_addr(r, &out.src);
	do
		random_addr(r, &out.dst);
	while (sl_addr_family(&out.dst) == AF_UNSPEC);
	out.alpn = random_value(r, values[0], sizeof(values[0]));
	out.authority = random_value(r, values[1], sizeof(values[1]));
	out.unique_id = random_value(r, values[2], sizeof(values[2]));
	out.crc32c = sl_rand_next(r) % 2;
	random_ssl(r, &out, ssl);
	n = sl_proxy_header_write(&out, buf, sizeof(buf));
	assert_true(n > 0);
	h.has_addrs = sl_addr_family(&out.src) != AF_UNSPEC;
	h.is_local = h.version == 2 && !h.has_addrs;
	if (h.has_addrs) {
		h.src = out.src;
		h.dst = out.dst;
	}
	if (h.version == 2 && h.has_addrs) {
		h.alpn = out.alpn;
		h.authority = out.authority;
		h.unique_id = out.unique_id;
		h.has_crc32c = out.crc32c;
	}
	if (h.version == 2 && h.has_addrs && out.has_ssl) {
		h.has_ssl = true;
		h.ssl_client = out.ssl_client;
		h.ssl_verify = out.ssl_verify;
		h.ssl_version = out.ssl_version;
		h.ssl_cn = out.ssl_cn;
		h.ssl_cipher = out.ssl_cipher;
		h.ssl_sig_alg = out.ssl_sig_alg;
		h.ssl_key_alg = out.ssl_key_alg;
	}
	for (size_t i = 0; i < n; i++)
		(void)fprintf(f, "%02x", buf[i]);
	(void)fprintf(f, "\t%s\n", describe(SL_PH_OK, &h, text));
	assert_string_equal(read_text(buf, n, again), text);
}

static void what_we_write_the_second_reads_alike(void **state)
{
	struct sl_rand r;
	FILE *f;

	(void)state;
	need_python();
	sl_rand_seed(&r, 107);
	f = popen(SECOND "verify >&2", "w");
	assert_non_null(f);
	for (size_t i = 0; i < ROUNDS; i++)
		write_line(&r, f);
	assert_int_equal(pclose(f), 0);
}

static void the_second_agrees_on_the_cases(void **state)
{
	(void)state;
	need_python();
	assert_int_equal(system(SECOND "cases >&2"), 0);
}

/* What a FIN makes of bytes that say MORE: payload before the signature is whole, then a cut
 * header. */
static void a_cut_header_is_told_from_payload(void **state)
{
	static const char v2[] = "\r\n\r\n\0\r\nQUIT\n\x21";

	(void)state;
	for (size_t n = 0; n < 6; n++)
		assert_false(sl_proxy_header_is_begun("PROXY TCP4", n));
	assert_true(sl_proxy_header_is_begun("PROXY TCP4", 6));
	assert_true(sl_proxy_header_is_begun("PROXY TCP4", 10));
	for (size_t n = 0; n < 12; n++)
		assert_false(sl_proxy_header_is_begun(v2, n));
	assert_true(sl_proxy_header_is_begun(v2, 12));
	assert_true(sl_proxy_header_is_begun(v2, 13));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_cut_header_is_told_from_payload),
		cmocka_unit_test(crc32c_of_known_bytes),
		cmocka_unit_test(cases_are_read_at_every_length),
		cmocka_unit_test(cases_are_written),
		cmocka_unit_test(write_refuses_what_does_not_fit),
		cmocka_unit_test(there_is_room_for_everything),
		cmocka_unit_test(destination_may_be_unknown),
		cmocka_unit_test(longest_header_of_version_2),
		cmocka_unit_test(addresses_are_those_of_inet_pton),
		cmocka_unit_test(what_the_second_writes_is_read_alike),
		cmocka_unit_test(what_we_write_the_second_reads_alike),
		cmocka_unit_test(the_second_agrees_on_the_cases),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
