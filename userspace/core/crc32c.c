/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "core/proxy_header.h"

/*
 * Half a byte at a time: what a checksum costs here is one pass over a header, so a table of
 * sixteen is enough. Entry i is i shifted four times through the reflected polynomial 0x82f63b78.
 */
static const uint32_t by_nibble[16] = {
	0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3,
	0x61c69362, 0x7198540d, 0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
	0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
};

uint32_t sl_crc32c(uint32_t crc, const void *bytes, size_t n)
{
	const uint8_t *p = bytes;

	crc = ~crc;
	for (size_t i = 0; i < n; i++) {
		crc = by_nibble[(crc ^ p[i]) & 15] ^ (crc >> 4);
		crc = by_nibble[(crc ^ (uint32_t)(p[i] >> 4)) & 15] ^ (crc >> 4);
	}
	return ~crc;
}
