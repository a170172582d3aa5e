/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "core/tls_hello.h"

#include <errno.h>
#include <string.h>

#include "base/num.h"

/* RFC 8446 section 5.1 */
#define RECORD_HANDSHAKE 22
#define RECORD_HEADER 5
#define RECORD_MAX (1u << 14)
/* RFC 8446 section 4 */
#define MESSAGE_CLIENT_HELLO 1
#define MESSAGE_HEADER 4
/* Version, random, no session id, one cipher suite and one compression method (section 4.1.2). */
#define MESSAGE_MIN (MESSAGE_HEADER + 2 + 32 + 1 + 4 + 2)

#define EXT_SERVER_NAME 0         /* RFC 6066 section 3 */
#define EXT_ALPN 16               /* RFC 7301 */
#define EXT_SUPPORTED_VERSIONS 43 /* RFC 8446 section 4.2.1 */
#define EXT_ECH 0xfe0d            /* RFC 9849 */
#define NAME_TYPE_HOST 0

#define N_EXT_TYPES 65536

/* Bytes not read yet. Asking for more than there is makes it short for good. */
struct cursor {
	const uint8_t *p;
	size_t n;
	bool is_short;
};

static struct cursor take(struct cursor *c, size_t n)
{
	struct cursor taken = { .p = c->p, .n = n };

	if (c->is_short || n > c->n) {
		c->is_short = true;
		return (struct cursor){ .is_short = true };
	}
	c->p += n;
	c->n -= n;
	return taken;
}

static uint32_t take_number(struct cursor *c, size_t width)
{
	struct cursor bytes = take(c, width);
	uint32_t v = 0;

	for (size_t i = 0; i < bytes.n; i++)
		v = v << 8 | bytes.p[i];
	return v;
}

/* What a length of `width` bytes announces. */
static struct cursor take_vector(struct cursor *c, size_t width)
{
	return take(c, take_number(c, width));
}

/* A vector and nothing after it. */
static struct cursor only_vector(struct cursor c, size_t width)
{
	struct cursor v = take_vector(&c, width);

	if (c.n > 0)
		v.is_short = true;
	return v;
}

static struct sl_slice slice_of(struct cursor c)
{
	return (struct sl_slice){ .p = (const char *)c.p, .n = c.n };
}

/*
 * The readers of extensions return NULL, or what is wrong.
 *
 * The first host name counts. RFC 6066 allows one of each type; of several the
 * others are skipped, as servers do.
 */
static const char *read_server_name(struct cursor ext, struct sl_hello *hello)
{
	struct cursor list = only_vector(ext, 2);

	if (list.is_short || list.n == 0)
		return "server_name: an empty list or a length that does not fit";
	while (list.n > 0) {
		uint32_t type = take_number(&list, 1);
		struct cursor name = take_vector(&list, 2);

		if (list.is_short)
			return "server_name: an entry longer than its list";
		if (type == NAME_TYPE_HOST && !hello->name.p)
			hello->name = slice_of(name);
	}
	return NULL;
}

static const char *read_alpn(struct cursor ext, struct sl_hello *hello)
{
	struct cursor list = only_vector(ext, 2);

	if (list.is_short || list.n == 0)
		return "ALPN: an empty list or a length that does not fit";
	hello->alpn = slice_of(list);
	while (list.n > 0) {
		struct cursor protocol = take_vector(&list, 1);

		if (list.is_short || protocol.n == 0)
			return "ALPN: an empty protocol or one longer than its list";
	}
	return NULL;
}

/* Up to which version the old field offers; what is newer than it can say counts as 1.2. */
static uint32_t versions_up_to(uint32_t legacy)
{
	if (legacy >= 0x0303)
		return SL_TLS_1_0 | SL_TLS_1_1 | SL_TLS_1_2;
	if (legacy == 0x0302)
		return SL_TLS_1_0 | SL_TLS_1_1;
	return legacy == 0x0301 ? SL_TLS_1_0 : 0;
}

static uint32_t version_bit(uint32_t version)
{
	static const uint32_t bits[] = { SL_TLS_1_0, SL_TLS_1_1, SL_TLS_1_2, SL_TLS_1_3 };

	return version >= 0x0301 && version <= 0x0304 ? bits[version - 0x0301] : 0;
}

static const char *read_versions(struct cursor ext, struct sl_hello *hello)
{
	struct cursor list = only_vector(ext, 1);

	if (list.is_short || list.n == 0 || list.n % 2 != 0)
		return "supported_versions: an empty list or a length that does not fit";
	hello->versions = 0;
	while (list.n > 0)
		hello->versions |= version_bit(take_number(&list, 2)); /* GREASE has no bit */
	return NULL;
}

static const char *read_extension(uint32_t type, struct cursor ext, struct sl_hello *hello)
{
	switch (type) {
	case EXT_SERVER_NAME:
		return read_server_name(ext, hello);
	case EXT_ALPN:
		return read_alpn(ext, hello);
	case EXT_SUPPORTED_VERSIONS:
		return read_versions(ext, hello);
	case EXT_ECH:
		hello->has_ech = true;
		return NULL;
	default:
		return NULL;
	}
}

static const char *read_extensions(struct cursor list, struct sl_hello *hello)
{
	/* One bit for each type there can be, so that no list costs more than its length. */
	uint8_t seen[N_EXT_TYPES / 8] = { 0 };
	const char *why = NULL;

	while (!why && list.n > 0) {
		uint32_t type = take_number(&list, 2);
		struct cursor ext = take_vector(&list, 2);
		uint8_t bit = (uint8_t)(1u << (type & 7));

		if (list.is_short)
			return "an extension longer than the list of them";
		if (seen[type >> 3] & bit)
			return "an extension twice";
		seen[type >> 3] |= bit;
		why = read_extension(type, ext, hello);
	}
	return why;
}

/* RFC 8446 section 4.1.2; extensions are the optional end (RFC 5246 section 7.4.1.2). */
static const char *read_message(struct cursor c, struct sl_hello *hello)
{
	uint32_t legacy;
	struct cursor session;
	struct cursor suites;
	struct cursor compression;
	struct cursor extensions;

	(void)take(&c, MESSAGE_HEADER);
	legacy = take_number(&c, 2);
	(void)take(&c, 32); /* random */
	session = take_vector(&c, 1);
	suites = take_vector(&c, 2);
	compression = take_vector(&c, 1);
	if (c.is_short)
		return "a length that does not fit";
	if (legacy >> 8 != 3)
		return "a version that is none of TLS";
	if (session.n > 32)
		return "a session id longer than 32 bytes";
	if (suites.n == 0 || suites.n % 2 != 0)
		return "no cipher suites, or half of one";
	if (compression.n == 0)
		return "no compression method";
	hello->versions = versions_up_to(legacy);
	if (c.n == 0)
		return NULL;
	extensions = only_vector(c, 2);
	if (extensions.is_short)
		return "extensions that do not end with the message";
	return read_extensions(extensions, hello);
}

/* The message out of its records, which are known to be whole. */
static void join(const struct sl_hello_reader *reader, const uint8_t *bytes, uint8_t *joined)
{
	size_t to = 0;

	for (size_t at = 0; at < reader->at;) {
		size_t n = (size_t)bytes[at + 3] << 8 | bytes[at + 4];

		memcpy(joined + to, bytes + at + RECORD_HEADER, n);
		to += n;
		at += RECORD_HEADER + n;
	}
}

static const char *read_whole(const struct sl_hello_reader *reader, const uint8_t *bytes,
			      uint8_t *joined, struct sl_hello *hello)
{
	bool is_joined = reader->at != RECORD_HEADER + reader->length;
	struct cursor message = { .p = bytes + RECORD_HEADER, .n = reader->length };
	char name[SL_NAME_MAX + 1];
	uint8_t *to = joined;
	const char *why;
	size_t n;

	if (is_joined) {
		join(reader, bytes, joined);
		message.p = joined;
	}
	why = read_message(message, hello);
	if (why || !hello->name.p)
		return why;
	if (sl_name_normalize(hello->name, false, name, &n) < 0)
		return "server_name: not a host name";
	/* In its own place: everything else there stays as it came. */
	if (is_joined)
		to += (const uint8_t *)hello->name.p - joined;
	memcpy(to, name, n);
	hello->name = (struct sl_slice){ .p = (const char *)to, .n = n };
	return NULL;
}

static enum sl_hello_result bad(const char **ret_why, const char *why)
{
	*ret_why = why;
	return SL_HELLO_BAD;
}

/*
 * The header of the record at `reader->at`, of which `n` bytes are there. In the
 * first record anything else is another protocol, later it is a broken hello.
 */
static enum sl_hello_result read_record_header(const struct sl_hello_reader *reader,
					       const uint8_t *h, size_t n, size_t *ret_len,
					       const char **ret_why)
{
	size_t len = n >= RECORD_HEADER ? (size_t)h[3] << 8 | h[4] : 1;
	const char *why = NULL;

	if (n >= 1 && h[0] != RECORD_HANDSHAKE)
		why = "a record of another type before the hello's end";
	else if (n >= 2 && h[1] != 3)
		why = "a record of another version before the hello's end";
	else if ((n >= 4 && h[3] > RECORD_MAX >> 8) || len > RECORD_MAX)
		why = "a record larger than 16384 bytes";
	else if (len == 0)
		why = "an empty record";
	if (why)
		return reader->at == 0 ? SL_HELLO_NOT_TLS : bad(ret_why, why);
	if (n < RECORD_HEADER)
		return SL_HELLO_MORE;
	*ret_len = len;
	return SL_HELLO_OK;
}

/*
 * The header of the message, whose bytes may lie in different records. `n` bytes of the
 * record at `reader->at`, which will have `record`, are there.
 */
static enum sl_hello_result read_message_header(struct sl_hello_reader *reader, const uint8_t *p,
						size_t n, size_t record, const char **ret_why)
{
	size_t known = reader->message;

	for (size_t i = 0; i < n && known < MESSAGE_HEADER; i++)
		reader->head[known++] = p[i];
	if (known >= 1 && reader->head[0] != MESSAGE_CLIENT_HELLO)
		return SL_HELLO_NOT_TLS;
	if (known >= 2 && reader->head[1] != 0)
		return bad(ret_why, "a hello larger than 64 KiB");
	if (known < MESSAGE_HEADER)
		return SL_HELLO_OK;
	reader->length = MESSAGE_HEADER + ((size_t)reader->head[2] << 8 | reader->head[3]);
	if (reader->length > SL_HELLO_MAX)
		return bad(ret_why, "a hello larger than 64 KiB");
	if (reader->length < MESSAGE_MIN)
		return bad(ret_why, "a hello too short to be one");
	/* A server's keys may change after it, so it ends with a record (RFC 8446 section 5.1). */
	if (record > reader->length - reader->message)
		return bad(ret_why, "a record with more than the hello");
	return SL_HELLO_OK;
}

/* One record further; OK when it is whole. */
static enum sl_hello_result read_record(struct sl_hello_reader *reader, const uint8_t *bytes,
					size_t n, const char **ret_why)
{
	const uint8_t *h = bytes + reader->at;
	size_t have = n - reader->at;
	enum sl_hello_result r;
	size_t record;

	r = read_record_header(reader, h, have, &record, ret_why);
	if (r != SL_HELLO_OK)
		return r;
	have -= RECORD_HEADER;
	if (have > record)
		have = record;
	r = read_message_header(reader, h + RECORD_HEADER, have, record, ret_why);
	if (r != SL_HELLO_OK)
		return r;
	if (have < record)
		return SL_HELLO_MORE;
	reader->at += RECORD_HEADER + record;
	reader->message += record;
	return SL_HELLO_OK;
}

enum sl_hello_result sl_hello_read(struct sl_hello_reader *reader, const void *bytes, size_t n,
				   uint8_t *joined, struct sl_hello *ret, const char **ret_why)
{
	struct sl_hello hello = { 0 };
	const char *why;

	while (reader->length == 0 || reader->message < reader->length) {
		enum sl_hello_result r = read_record(reader, bytes, n, ret_why);

		if (r != SL_HELLO_OK)
			return r;
	}
	why = read_whole(reader, bytes, joined, &hello);
	if (why)
		return bad(ret_why, why);
	hello.len = reader->at;
	*ret = hello;
	return SL_HELLO_OK;
}

bool sl_hello_next_alpn(struct sl_slice *rest, struct sl_slice *ret)
{
	size_t n;

	if (rest->n == 0)
		return false;
	n = (uint8_t)rest->p[0];
	if (n == 0 || n > rest->n - 1)
		return false;
	*ret = (struct sl_slice){ .p = rest->p + 1, .n = n };
	rest->p += 1 + n;
	rest->n -= 1 + n;
	return true;
}

/* 0 for what no name holds. */
static char name_char(char c)
{
	if (c >= 'A' && c <= 'Z')
		return (char)(c | 0x20);
	if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.')
		return c;
	return '\0';
}

/* RFC 3986 section 3.2.3: a port may be empty after its colon. */
static int cut_port(struct sl_slice *name)
{
	const char *colon = name->n ? memchr(name->p, ':', name->n) : NULL;
	uint64_t port;
	size_t digits;

	if (!colon)
		return 0;
	digits = name->n - (size_t)(colon + 1 - name->p);
	if (digits > 0 && sl_num_parsen(colon + 1, digits, 0, UINT16_MAX, &port) < 0)
		return -EINVAL;
	name->n = (size_t)(colon - name->p);
	return 0;
}

int sl_name_normalize(struct sl_slice name, bool strip_port, char buf[SL_NAME_MAX + 1],
		      size_t *ret_len)
{
	char text[SL_NAME_MAX + 1];
	size_t label = 0;

	if (strip_port && cut_port(&name) < 0)
		return -EINVAL;
	if (name.n > 0 && name.p[name.n - 1] == '.')
		name.n--;
	if (name.n == 0 || name.n > SL_NAME_MAX)
		return -EINVAL;
	for (size_t i = 0; i < name.n; i++) {
		text[i] = name_char(name.p[i]);
		if (text[i] == '\0' || (text[i] == '.' && label == 0))
			return -EINVAL;
		label = text[i] == '.' ? 0 : label + 1;
		if (label > 63)
			return -EINVAL;
	}
	if (label == 0)
		return -EINVAL;
	text[name.n] = '\0';
	memcpy(buf, text, name.n + 1);
	*ret_len = name.n;
	return 0;
}
