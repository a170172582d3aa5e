/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "core/ip_set.h"

#include <string.h>

#include "core/ip_bytes.h"

static uint64_t load_be64(const uint8_t *p)
{
	return (uint64_t)sl_load_be32(p) << 32 | sl_load_be32(p + 4);
}

static void store_be64(uint8_t *p, uint64_t v)
{
	for (int i = 7; i >= 0; i--, v >>= 8)
		p[i] = (uint8_t)v;
}

void sl_ip_set_put(struct sl_ip_set *set, const struct sl_ip_pattern *pattern)
{
	switch (pattern->kind) {
	case SL_IP_RANGE4:
		set->v4[set->n4++] = pattern->v4;
		break;
	case SL_IP_RANGE6:
		set->v6[set->n6++] = pattern->v6;
		break;
	case SL_IP_GLOB4:
		set->globs[set->n_globs++] = pattern->glob;
		break;
	}
}

/*
 * Sorting by the first address. Elements are `size` bytes and begin with the key's `n_key` bytes,
 * most significant first except where the host keeps integers the other way round. Everything is
 * inlined twice, so that sizes are constants.
 */
#define ALWAYS_INLINE static inline __attribute__((always_inline))

struct layout {
	size_t size;
	unsigned n_key;
	bool low_first;
};

static const struct layout layout4 = {
	.size = sizeof(struct sl_ip4_range),
	.n_key = 4,
	.low_first = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
};
static const struct layout layout6 = { .size = sizeof(struct sl_ip6_range), .n_key = 16 };

/* Where the key byte of this significance is (0: the lowest). */
ALWAYS_INLINE unsigned key_at(struct layout l, unsigned significance)
{
	return l.low_first ? significance : l.n_key - 1 - significance;
}

ALWAYS_INLINE bool less(struct layout l, const uint8_t *a, const uint8_t *b)
{
	if (!l.low_first)
		return memcmp(a, b, l.n_key) < 0;
	for (unsigned k = l.n_key; k-- > 0;)
		if (a[k] != b[k])
			return a[k] < b[k];
	return false;
}

ALWAYS_INLINE bool is_sorted(struct layout l, const uint8_t *items, size_t n)
{
	for (size_t i = 1; i < n; i++)
		if (less(l, items + i * l.size, items + (i - 1) * l.size))
			return false;
	return true;
}

/* Moves every item to its place by one byte of the key, keeping the order of equals. */
ALWAYS_INLINE void radix_pass(struct layout l, const uint8_t *from, uint8_t *to, size_t n,
			      unsigned at, const size_t count[256])
{
	size_t place[256];
	size_t sum = 0;

	for (int b = 0; b < 256; b++) {
		place[b] = sum;
		sum += count[b];
	}
	for (size_t i = 0; i < n; i++, from += l.size)
		memcpy(to + place[from[at]]++ * l.size, from, l.size);
}

/* Sets the bits of the key's bytes that are not the same everywhere. */
ALWAYS_INLINE void find_differences(struct layout l, const uint8_t *items, size_t n, uint8_t *ret)
{
	memset(ret, 0, l.n_key);
	for (size_t i = 1; i < n; i++)
		for (unsigned k = 0; k < l.n_key; k++)
			ret[k] |= items[k] ^ items[i * l.size + k];
}

ALWAYS_INLINE void radix_sort(struct layout l, uint8_t *items, uint8_t *scratch, size_t n)
{
	uint8_t differs[16];
	size_t count[256];
	uint8_t *from = items;
	uint8_t *to = scratch;

	find_differences(l, items, n, differs);
	for (unsigned k = 0; k < l.n_key; k++) {
		unsigned at = key_at(l, k);
		uint8_t *other = from;

		if (!differs[at])
			continue;
		memset(count, 0, sizeof(count));
		for (size_t i = 0; i < n; i++)
			count[from[i * l.size + at]]++;
		radix_pass(l, from, to, n, at, count);
		from = to;
		to = other;
	}
	if (from != items)
		memcpy(items, from, n * l.size);
}

ALWAYS_INLINE void swap_items(struct layout l, uint8_t *a, uint8_t *b)
{
	uint8_t t[sizeof(struct sl_ip6_range)];

	memcpy(t, a, l.size);
	memcpy(a, b, l.size);
	memcpy(b, t, l.size);
}

ALWAYS_INLINE void sift(struct layout l, uint8_t *items, size_t i, size_t n)
{
	for (size_t child; (child = 2 * i + 1) < n; i = child) {
		if (child + 1 < n && less(l, items + child * l.size, items + (child + 1) * l.size))
			child++;
		if (!less(l, items + i * l.size, items + child * l.size))
			return;
		swap_items(l, items + i * l.size, items + child * l.size);
	}
}

/* In place, and n log n whatever the order was. */
ALWAYS_INLINE void heap_sort(struct layout l, uint8_t *items, size_t n)
{
	for (size_t i = n / 2; i-- > 0;)
		sift(l, items, i, n);
	for (size_t end = n; end-- > 1;) {
		swap_items(l, items, items + end * l.size);
		sift(l, items, 0, end);
	}
}

ALWAYS_INLINE void sort_ranges(struct layout l, void *items, size_t n, void *scratch)
{
	/* Lists usually come sorted. */
	if (is_sorted(l, items, n))
		return;
	/* The counts of a pass do not pay for few. */
	if (scratch && n > 64)
		radix_sort(l, items, scratch, n);
	else
		heap_sort(l, items, n);
}

static void merge4(struct sl_ip_set *set)
{
	struct sl_ip4_range *r = set->v4;
	size_t kept = 0;

	for (size_t i = 1; i < set->n4; i++) {
		if (r[kept].to == UINT32_MAX || r[i].from <= r[kept].to + 1) {
			if (r[i].to > r[kept].to)
				r[kept].to = r[i].to;
		} else {
			r[++kept] = r[i];
		}
	}
	if (set->n4)
		set->n4 = kept + 1;
}

/* Whether `next` begins inside `r` or right after it. */
static bool joins6(const struct sl_ip6_range *r, const struct sl_ip6_range *next)
{
	uint64_t hi = load_be64(r->to);
	uint64_t lo = load_be64(r->to + 8);
	uint64_t next_hi = load_be64(next->from);
	uint64_t next_lo = load_be64(next->from + 8);

	if (next_hi < hi || (next_hi == hi && next_lo <= lo))
		return true;
	if (lo == UINT64_MAX)
		return next_lo == 0 && next_hi - 1 == hi;
	return next_hi == hi && next_lo - 1 == lo;
}

static void merge6(struct sl_ip_set *set)
{
	struct sl_ip6_range *r = set->v6;
	size_t kept = 0;

	for (size_t i = 1; i < set->n6; i++) {
		if (joins6(&r[kept], &r[i])) {
			if (memcmp(r[i].to, r[kept].to, 16) > 0)
				memcpy(r[kept].to, r[i].to, 16);
		} else {
			r[++kept] = r[i];
		}
	}
	if (set->n6)
		set->n6 = kept + 1;
}

void sl_ip_set_build(struct sl_ip_set *set, void *scratch)
{
	sort_ranges(layout4, set->v4, set->n4, scratch);
	merge4(set);
	sort_ranges(layout6, set->v6, set->n6, scratch);
	merge6(set);
}

bool sl_ip_set_is_empty(const struct sl_ip_set *set)
{
	return !set->n4 && !set->n6 && !set->n_globs;
}

static bool glob_has(const struct sl_ip4_glob *glob, uint32_t ip)
{
	for (unsigned i = 0; i < 4; i++)
		if (!sl_ip_octet_has(glob->octet[i], ip >> (24 - 8 * i) & 0xff))
			return false;
	return true;
}

static bool has4(const struct sl_ip_set *set, uint32_t ip)
{
	size_t low = 0;
	size_t high = set->n4;

	/* The first range that begins after `ip`. */
	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (set->v4[middle].from <= ip)
			low = middle + 1;
		else
			high = middle;
	}
	if (low && ip <= set->v4[low - 1].to)
		return true;
	for (size_t i = 0; i < set->n_globs; i++)
		if (glob_has(&set->globs[i], ip))
			return true;
	return false;
}

static bool has6(const struct sl_ip_set *set, const uint8_t ip[16])
{
	size_t low = 0;
	size_t high = set->n6;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (memcmp(set->v6[middle].from, ip, 16) <= 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low && memcmp(ip, set->v6[low - 1].to, 16) <= 0;
}

bool sl_ip_set_has(const struct sl_ip_set *set, const struct sl_addr *ip)
{
	uint8_t bytes[16];

	if (sl_addr_family(ip) == AF_UNSPEC)
		return false;
	if (sl_addr_ip_bytes(ip, bytes) == 4)
		return has4(set, sl_load_be32(bytes));
	if (sl_ip6_is_mapped(bytes))
		return has4(set, sl_load_be32(bytes + 12));
	return has6(set, bytes);
}

int sl_ip4_prefixes(const struct sl_ip4_range *range, sl_prefix_fn fn, void *arg)
{
	uint64_t from = range->from;
	uint64_t end = (uint64_t)range->to + 1;

	while (from < end) {
		unsigned aligned = from ? (unsigned)__builtin_ctzll(from) : 32;
		unsigned fits = 63 - (unsigned)__builtin_clzll(end - from);
		unsigned host = aligned < fits ? aligned : fits;
		uint8_t ip[4];
		int err;

		for (unsigned i = 0; i < 4; i++)
			ip[i] = (uint8_t)(from >> (24 - 8 * i));
		err = fn(arg, ip, 32 - host);
		if (err)
			return err;
		from += UINT64_C(1) << host;
	}
	return 0;
}

/* The largest h for which 2^h addresses are not more than those of the distance + 1. */
static unsigned log2_of_count(uint64_t hi, uint64_t lo)
{
	if (hi == UINT64_MAX && lo == UINT64_MAX)
		return 128;
	hi += lo == UINT64_MAX;
	lo++;
	return hi ? 127 - (unsigned)__builtin_clzll(hi) : 63 - (unsigned)__builtin_clzll(lo);
}

static unsigned trailing_zeros(uint64_t hi, uint64_t lo)
{
	if (lo)
		return (unsigned)__builtin_ctzll(lo);
	return hi ? 64 + (unsigned)__builtin_ctzll(hi) : 128;
}

int sl_ip6_prefixes(const struct sl_ip6_range *range, sl_prefix_fn fn, void *arg)
{
	uint64_t hi = load_be64(range->from);
	uint64_t lo = load_be64(range->from + 8);
	uint64_t to_hi = load_be64(range->to);
	uint64_t to_lo = load_be64(range->to + 8);

	while (hi < to_hi || (hi == to_hi && lo <= to_lo)) {
		unsigned aligned = trailing_zeros(hi, lo);
		unsigned fits = log2_of_count(to_hi - hi - (to_lo < lo), to_lo - lo);
		unsigned host = aligned < fits ? aligned : fits;
		uint64_t old_lo = lo;
		uint8_t ip[16];
		int err;

		store_be64(ip, hi);
		store_be64(ip + 8, lo);
		err = fn(arg, ip, 128 - host);
		if (err)
			return err;
		if (host >= 64) {
			if (host == 128)
				return 0;
			hi += UINT64_C(1) << (host - 64);
			if (!hi)
				return 0; /* past the last address */
			continue;
		}
		lo += UINT64_C(1) << host;
		if (lo < old_lo && !++hi)
			return 0;
	}
	return 0;
}
