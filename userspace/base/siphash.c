/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "base/siphash.h"

#include <string.h>

static uint64_t rotl(uint64_t x, int n)
{
	return x << n | x >> (64 - n);
}

static uint64_t load_le64(const uint8_t *p)
{
	uint64_t v = 0;

	for (int i = 7; i >= 0; i--)
		v = v << 8 | p[i];
	return v;
}

static void sip_rounds(uint64_t v[4], int n)
{
	while (n-- > 0) {
		v[0] += v[1], v[1] = rotl(v[1], 13), v[1] ^= v[0], v[0] = rotl(v[0], 32);
		v[2] += v[3], v[3] = rotl(v[3], 16), v[3] ^= v[2];
		v[0] += v[3], v[3] = rotl(v[3], 21), v[3] ^= v[0];
		v[2] += v[1], v[1] = rotl(v[1], 17), v[1] ^= v[2], v[2] = rotl(v[2], 32);
	}
}

uint64_t sl_siphash(const void *bytes, size_t n, const uint8_t key[16])
{
	const uint64_t k0 = load_le64(key);
	const uint64_t k1 = load_le64(key + 8);
	uint64_t v[4] = { k0 ^ 0x736f6d6570736575, k1 ^ 0x646f72616e646f6d, k0 ^ 0x6c7967656e657261,
			  k1 ^ 0x7465646279746573 };
	const uint8_t *p = bytes;
	uint8_t tail[8] = { 0 };
	size_t i;

	for (i = 0; i + 8 <= n; i += 8) {
		uint64_t m = load_le64(p + i);

		v[3] ^= m;
		sip_rounds(v, 2);
		v[0] ^= m;
	}
	if (n - i)
		memcpy(tail, p + i, n - i);
	tail[7] = (uint8_t)n;
	v[3] ^= load_le64(tail);
	sip_rounds(v, 2);
	v[0] ^= load_le64(tail);
	v[2] ^= 0xff;
	sip_rounds(v, 4);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}
