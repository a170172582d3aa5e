/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "proxy_fuzz.h"

#include <stdbool.h>

/* Whether some end makes it a header, by trying the shortest ends of the field and of the line. */
static bool can_be_completed(const uint8_t *bytes, size_t n)
{
	static const char *const lines[] = { "PROXY UNKNOWN\r\n", "PROXY TCP4 ", "PROXY TCP6 " };
	static const char *const ends[] = { "",     "0",      "::",  ":",     ":0",     ".0",
					    ".0.0", ".0.0.0", "0.0", "0.0.0", "0.0.0.0" };
	static const char *const rests[] = { "\r\n",     "\n",          " 0\r\n",
					     " 0 0\r\n", " :: 0 0\r\n", " 0.0.0.0 0 0\r\n" };
	char text[SL_PH_V1_MAX + 64];
	struct sl_proxy_header h;
	const char *why;

	assert(n < SL_PH_V1_MAX);
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
		if (n <= strlen(lines[i]) && memcmp(bytes, lines[i], n) == 0)
			return true;
	memcpy(text, bytes, n);
	for (size_t e = 0; e < sizeof(ends) / sizeof(ends[0]); e++) {
		size_t m = n + strlen(ends[e]);

		memcpy(text + n, ends[e], strlen(ends[e]));
		for (size_t i = 0; i < sizeof(rests) / sizeof(rests[0]); i++) {
			memcpy(text + m, rests[i], strlen(rests[i]));
			if (sl_proxy_header_read(text, m + strlen(rests[i]), &h, &why) == SL_PH_OK)
				return true;
		}
	}
	return false;
}

static void check_line(const uint8_t *bytes, size_t n)
{
	struct sl_proxy_header h = { 0 };
	enum sl_ph_result r = check_header(bytes, n, &h);

	if (n > 0 && bytes[0] != 'P')
		return; /* not this version */
	if (r == SL_PH_MORE && n >= 6)
		assert(can_be_completed(bytes, n));
	assert(r != SL_PH_MORE || n < SL_PH_V1_MAX);
	if (r != SL_PH_OK)
		return;
	assert(h.version == 1 && !h.is_local && h.len >= 15 && h.len <= SL_PH_V1_MAX);
	assert(bytes[h.len - 2] == '\r' && bytes[h.len - 1] == '\n');
	assert(!memchr(bytes, '\r', h.len - 2) && !memchr(bytes, '\n', h.len - 1));
	assert(!h.alpn.p && !h.authority.p && !h.unique_id.p && !h.netns.p && !h.has_ssl);
}

/* As it is, and behind each start, so that no input is spent on finding those. */
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
	static const char *const starts[] = { "", "PROXY ", "PROXY TCP4 ", "PROXY TCP6 " };
	uint8_t text[256];

	if (n > 200)
		n = 200;
	for (size_t i = 0; i < sizeof(starts) / sizeof(starts[0]); i++) {
		size_t len = strlen(starts[i]);

		if (i > 0 && n > 0 && bytes[0] == 'P')
			break;
		memcpy(text, starts[i], len);
		memcpy(text + len, bytes, n);
		check_line(text, len + n);
	}
	return 0;
}
