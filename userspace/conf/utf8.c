/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "conf/utf8.h"

#include "base/cleanup.h"

struct range {
	uint32_t from;
	uint32_t to;
};

static bool is_in(uint32_t c, const struct range *ranges, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (c >= ranges[i].from && c <= ranges[i].to)
			return true;
	return false;
}

size_t sl_utf8_decode(const char *p, size_t n, uint32_t *ret)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	const unsigned char *u = (const unsigned char *)p;
	size_t len = u[0] < 0x80   ? 1
		     : u[0] < 0xc2 ? 0
		     : u[0] < 0xe0 ? 2
		     : u[0] < 0xf0 ? 3
		     : u[0] < 0xf5 ? 4
				   : 0;
	uint32_t c;

	*ret = UINT32_MAX;
	if (len == 0 || len > n)
		return 1;
	c = len == 1 ? u[0] : u[0] & (0x7fU >> len);
	for (size_t i = 1; i < len; i++) {
		if ((u[i] & 0xc0) != 0x80)
			return 1;
		c = c << 6 | (u[i] & 0x3fU);
	}
	if (c < least[len] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
		return 1;
	*ret = c;
	return len;
}

size_t sl_utf8_break(const char *p, size_t n)
{
	uint32_t c;
	size_t len;

	if (n == 0)
		return 0;
	if (p[0] == '\r')
		return n > 1 && p[1] == '\n' ? 2 : 1;
	if (p[0] == '\n')
		return 1;
	if ((unsigned char)p[0] < 0x80)
		return 0;
	len = sl_utf8_decode(p, n, &c);
	return c == 0x85 || c == 0x2028 || c == 0x2029 ? len : 0;
}

bool sl_utf8_is_printable(uint32_t c)
{
	static const struct range ranges[] = { { '\t', '\n' },     { '\r', '\r' },
					       { 0x20, 0x7e },     { 0x85, 0x85 },
					       { 0xa0, 0xd7ff },   { 0xe000, 0xfefe },
					       { 0xff00, 0xfffd }, { 0x10000, 0x10ffff } };

	return is_in(c, ranges, SL_ARRAY_LEN(ranges));
}

bool sl_utf8_is_unsafe(uint32_t c)
{
	static const struct range ranges[] = { { 0, 0x1f },        { 0x7f, 0x9f },
					       { 0xad, 0xad },     { 0x61c, 0x61c },
					       { 0x200b, 0x200f }, { 0x2028, 0x202e },
					       { 0x2060, 0x206f }, { 0xfeff, 0xfeff },
					       { 0xfff0, 0xffff }, { 0xe0000, 0x10ffff } };

	return c != 0xfffd && is_in(c, ranges, SL_ARRAY_LEN(ranges));
}

unsigned sl_utf8_width(uint32_t c)
{
	static const struct range none[] = {
		{ 0x300, 0x36f }, { 0x1ab0, 0x1aff }, { 0x20d0, 0x20ff }, { 0xfe00, 0xfe0f }
	};
	static const struct range twice[] = { { 0x1100, 0x115f },  { 0x2e80, 0xa4cf },
					      { 0xac00, 0xd7a3 },  { 0xf900, 0xfaff },
					      { 0xfe30, 0xfe6f },  { 0xff00, 0xff60 },
					      { 0xffe0, 0xffe6 },  { 0x1f300, 0x1faff },
					      { 0x20000, 0x3fffd } };

	if (c < 0x300)
		return 1;
	if (is_in(c, none, SL_ARRAY_LEN(none)))
		return 0;
	return is_in(c, twice, SL_ARRAY_LEN(twice)) ? 2 : 1;
}
