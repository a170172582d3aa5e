/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "base/json.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#define MAX_DEPTH 63

/*
 * Length of the UTF-8 sequence at `p`, 0 when it is not one (RFC 3629 section
 * 4: no overlong forms, no surrogates, nothing above U+10FFFF).
 */
static size_t utf8_len(const unsigned char *p, size_t n)
{
	unsigned char lo = 0x80;
	unsigned char hi = 0xbf;
	size_t len;

	if (p[0] < 0x80)
		return 1;
	if (p[0] >= 0xc2 && p[0] <= 0xdf)
		len = 2;
	else if (p[0] >= 0xe0 && p[0] <= 0xef)
		len = 3;
	else if (p[0] >= 0xf0 && p[0] <= 0xf4)
		len = 4;
	else
		return 0;
	if (n < len)
		return 0;
	if (p[0] == 0xe0)
		lo = 0xa0;
	else if (p[0] == 0xed)
		hi = 0x9f;
	else if (p[0] == 0xf0)
		lo = 0x90;
	else if (p[0] == 0xf4)
		hi = 0x8f;
	if (p[1] < lo || p[1] > hi)
		return 0;
	for (size_t i = 2; i < len; i++)
		if (p[i] < 0x80 || p[i] > 0xbf)
			return 0;
	return len;
}

static void add_control(struct sl_str *out, unsigned char c)
{
	switch (c) {
	case '\n':
		sl_str_adds(out, "\\n");
		break;
	case '\r':
		sl_str_adds(out, "\\r");
		break;
	case '\t':
		sl_str_adds(out, "\\t");
		break;
	default:
		sl_str_addf(out, "\\u%04x", c);
	}
}

static void add_quoted(struct sl_str *out, const void *text, size_t n)
{
	const unsigned char *p = text;

	sl_str_addc(out, '"');
	for (size_t i = 0; i < n;) {
		size_t len = utf8_len(p + i, n - i);

		if (len == 0) {
			sl_str_adds(out, "\xef\xbf\xbd");
			len = 1;
		} else if (p[i] < 0x20 || p[i] == 0x7f) {
			add_control(out, p[i]);
		} else {
			if (p[i] == '"' || p[i] == '\\')
				sl_str_addc(out, '\\');
			sl_str_add(out, p + i, len);
		}
		i += len;
	}
	sl_str_addc(out, '"');
}

static void begin_value(struct sl_json *j, const char *key)
{
	uint64_t bit = UINT64_C(1) << j->depth;

	if (j->has_items & bit)
		sl_str_addc(j->out, ',');
	j->has_items |= bit;
	if (key) {
		add_quoted(j->out, key, strlen(key));
		sl_str_addc(j->out, ':');
	}
}

static void open_level(struct sl_json *j, const char *key, char c)
{
	begin_value(j, key);
	sl_str_addc(j->out, c);
	assert(j->depth < MAX_DEPTH);
	j->depth++;
	j->has_items &= ~(UINT64_C(1) << j->depth);
}

static void close_level(struct sl_json *j, char c)
{
	assert(j->depth > 0);
	j->depth--;
	sl_str_addc(j->out, c);
}

void sl_json_obj(struct sl_json *j, const char *key)
{
	open_level(j, key, '{');
}

void sl_json_obj_end(struct sl_json *j)
{
	close_level(j, '}');
}

void sl_json_arr(struct sl_json *j, const char *key)
{
	open_level(j, key, '[');
}

void sl_json_arr_end(struct sl_json *j)
{
	close_level(j, ']');
}

void sl_json_strn(struct sl_json *j, const char *key, const void *value, size_t n)
{
	begin_value(j, key);
	add_quoted(j->out, value, n);
}

void sl_json_str(struct sl_json *j, const char *key, const char *value)
{
	if (value)
		sl_json_strn(j, key, value, strlen(value));
	else
		sl_json_null(j, key);
}

void sl_json_u64(struct sl_json *j, const char *key, uint64_t value)
{
	begin_value(j, key);
	sl_str_addf(j->out, "%" PRIu64, value);
}

void sl_json_i64(struct sl_json *j, const char *key, int64_t value)
{
	begin_value(j, key);
	sl_str_addf(j->out, "%" PRId64, value);
}

void sl_json_f64(struct sl_json *j, const char *key, double value)
{
	if (!isfinite(value)) {
		sl_json_null(j, key);
		return;
	}
	begin_value(j, key);
	sl_str_addf(j->out, "%.10g", value);
}

void sl_json_addr(struct sl_json *j, const char *key, const struct sl_addr *a)
{
	char text[SL_ADDR_TEXT];

	sl_json_str(j, key, sl_addr_family(a) ? sl_addr_format(a, text) : NULL);
}

void sl_json_bool(struct sl_json *j, const char *key, bool value)
{
	begin_value(j, key);
	sl_str_adds(j->out, value ? "true" : "false");
}

void sl_json_null(struct sl_json *j, const char *key)
{
	begin_value(j, key);
	sl_str_adds(j->out, "null");
}
