/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "proxy_fuzz.h"

#include <stdbool.h>

static const uint8_t start[12] = { 0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d,
				   0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a };

static size_t be16(const uint8_t *p)
{
	return (size_t)p[0] << 8 | p[1];
}

static void check_v2(const uint8_t *bytes, size_t n)
{
	struct sl_proxy_header h = { 0 };
	enum sl_ph_result r = check_header(bytes, n, &h);

	if (n < 16 || memcmp(bytes, start, 12) != 0)
		return;
	assert(r != SL_PH_NONE);
	if (r == SL_PH_MORE)
		assert(n < 16 + be16(bytes + 14));
	if (r != SL_PH_OK)
		return;
	assert(h.version == 2 && h.len == 16 + be16(bytes + 14));
	assert(h.is_local == (bytes[12] == 0x20));
	assert(h.has_addrs == (bytes[12] == 0x21 && (bytes[13] == 0x11 || bytes[13] == 0x21)));
}

/* Mends the sum of the first checksum TLV, which no mutation would ever hit; false without one. */
static bool mend_sum(uint8_t *bytes, size_t n)
{
	size_t at = bytes[13] == 0x11 ? 28 : bytes[13] == 0x21 ? 52 : 232;
	size_t end = 16 + be16(bytes + 14);
	uint32_t crc;

	if (end > n)
		return false;
	for (; at + 7 <= end; at += 3 + be16(bytes + at + 1)) {
		if (bytes[at] != 3 || be16(bytes + at + 1) != 4)
			continue;
		memset(bytes + at + 3, 0, 4);
		crc = sl_crc32c(0, bytes, end);
		for (unsigned i = 0; i < 4; i++)
			bytes[at + 3 + i] = (uint8_t)(crc >> (24 - 8 * i));
		return true;
	}
	return false;
}

/* As it is; behind the signature; with its length set right; with its sum set right. */
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
	uint8_t *copy;
	size_t rest;

	check_v2(bytes, n);
	if (n < 4 || n > 70000)
		return 0;
	copy = malloc(n + 12);
	assert(copy);
	if (n >= 16 && memcmp(bytes, start, 12) == 0) {
		bytes += 12;
		n -= 12;
	}
	memcpy(copy, start, 12);
	memcpy(copy + 12, bytes, n);
	check_v2(copy, n + 12);
	rest = n - 4;
	if (rest <= 65535) {
		copy[14] = (uint8_t)(rest >> 8);
		copy[15] = (uint8_t)rest;
		check_v2(copy, n + 12);
	}
	if (n >= 4 && mend_sum(copy, n + 12))
		check_v2(copy, n + 12);
	free(copy);
	return 0;
}
