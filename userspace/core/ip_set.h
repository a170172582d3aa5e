/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CORE_IP_SET_H
#define SL_CORE_IP_SET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/cleanup.h"
#include "core/slice.h"

/*
 * Sets of client addresses as operators write them:
 *   192.0.2.1   10.0.0.0/8   2001:db8::/32   10.0.0.1-10.0.0.9   10.*   192.168.1.*   10.?.?.1
 * Everything that is exactly a range becomes one; only IPv4 globs that are not
 * ("10.?.?.1", "10.*.1.*") are kept as four sets of octet values. Looking an
 * address up takes a binary search over disjoint ranges and one step per glob.
 */
struct sl_ip4_range {
	uint32_t from; /* host order, inclusive */
	uint32_t to;
};

struct sl_ip6_range {
	uint8_t from[16];
	uint8_t to[16]; /* inclusive */
};

struct sl_ip4_glob {
	uint64_t octet[4][4]; /* 256 bits: values the octet may have */
};

static inline bool sl_ip_octet_has(const uint64_t octet[4], unsigned value)
{
	return octet[value / 64] >> value % 64 & 1;
}

struct sl_ip_set {
	struct sl_ip4_range *v4; /* sorted and disjoint once built */
	size_t n4;
	struct sl_ip6_range *v6;
	size_t n6;
	struct sl_ip4_glob *globs;
	size_t n_globs;
};

enum sl_ip_pattern_kind {
	SL_IP_RANGE4 = 0,
	SL_IP_RANGE6,
	SL_IP_GLOB4,
};

struct sl_ip_pattern {
	enum sl_ip_pattern_kind kind;
	union {
		struct sl_ip4_range v4;
		struct sl_ip6_range v6;
		struct sl_ip4_glob glob;
	};
};

/*
 * One pattern. "10.0.0.1/8" (bits after the prefix) is accepted as its network; an IPv4-mapped
 * IPv6 address is IPv4. -EINVAL with static text in `ret_why`.
 */
SL_MUST_CHECK int sl_ip_pattern_parse(struct sl_slice text, struct sl_ip_pattern *ret,
				      const char **ret_why);

/*
 * Adds to the set's arrays, which are the caller's (conf/ip_list.h allocates them) and have room;
 * the set is not usable before sl_ip_set_build().
 */
void sl_ip_set_put(struct sl_ip_set *set, const struct sl_ip_pattern *pattern);

/*
 * Sorts and merges in place. `scratch`: NULL, or as many bytes as the larger of the two range
 * arrays, which makes a million ranges sort in linear time.
 */
void sl_ip_set_build(struct sl_ip_set *set, void *scratch);

bool sl_ip_set_is_empty(const struct sl_ip_set *set);
/* `ip`: the port does not matter; IPv4-mapped counts as IPv4; AF_UNSPEC is in no set. */
bool sl_ip_set_has(const struct sl_ip_set *set, const struct sl_addr *ip);

/*
 * Files of patterns: one per line, '#' begins a comment, blank lines are skipped. Takes the next
 * pattern off `rest`; `line` counts from 0 and is the number of the line taken.
 */
bool sl_ip_file_next(struct sl_slice *rest, size_t *line, struct sl_slice *ret);

/*
 * A range as prefixes, for tables that know nothing else: calls `fn` for each, in order.
 * `bits` is the prefix length, `ip` 4 or 16 bytes in network order.
 */
typedef int (*sl_prefix_fn)(void *arg, const uint8_t *ip, unsigned bits);
int sl_ip4_prefixes(const struct sl_ip4_range *range, sl_prefix_fn fn, void *arg);
int sl_ip6_prefixes(const struct sl_ip6_range *range, sl_prefix_fn fn, void *arg);

#endif
