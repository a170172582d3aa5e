/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CORE_IP_BYTES_H
#define SL_CORE_IP_BYTES_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* What core/ip_pattern.c and core/ip_set.c share about addresses in network order. */
static inline uint32_t sl_load_be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* ::ffff:0:0/96 (RFC 4291 section 2.5.5.2): the last four bytes are an IPv4 address. */
static inline bool sl_ip6_is_mapped(const uint8_t ip[16])
{
	static const uint8_t prefix[12] = { [10] = 0xff, [11] = 0xff };

	return memcmp(ip, prefix, sizeof(prefix)) == 0;
}

#endif
