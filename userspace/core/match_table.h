/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CORE_MATCH_TABLE_H
#define SL_CORE_MATCH_TABLE_H

#include "core/matcher.h"

/*
 * What core/match_build.c builds and core/matcher.c searches.
 *
 * An entry says: this rule, by this of its ports and this of its names, and how that ranks. Entries
 * of one name, or of one literal text of globs, are a group. Within it the ports are cut into
 * blocks: all ports that share their first 0 to 16 bits, so that any range is at
 * most 30 of them and memory is linear in what is configured. A list has the
 * entries of one block of one group, best first.
 */
struct sl_match_entry {
	uint64_t high; /* priority (32 bits), name (16), path (16) */
	uint64_t low;  /* listening address (2), criteria (2), ~rule (32) */
	uint32_t port; /* index into the rule's ports */
	uint32_t name; /* into its domains */
};

/* Of the two bits above: which ports of a rule name the address. */
enum sl_match_address {
	SL_MATCH_ANY_ADDRESS = 0,
	SL_MATCH_ONE_FAMILY,
	SL_MATCH_ONE_ADDRESS,
};

static inline uint32_t sl_match_entry_rule(const struct sl_match_entry *e)
{
	return ~(uint32_t)e->low;
}

static inline enum sl_match_address sl_match_entry_address(const struct sl_match_entry *e)
{
	return (enum sl_match_address)(e->low >> 34);
}

/* Whether nothing but port and name is left to look at. */
static inline bool sl_match_entry_is_plain(const struct sl_match_entry *e)
{
	return !(e->low >> 32) && !(e->high & 0xffff);
}

static inline bool sl_match_entry_precedes(const struct sl_match_entry *a,
					   const struct sl_match_entry *b)
{
	return a->high > b->high || (a->high == b->high && a->low > b->low);
}

/* What the text of a group is to a name. */
enum sl_match_kind {
	SL_MATCH_EXACT = 0,
	SL_MATCH_SUFFIX, /* of "*.x": ".x" */
	SL_MATCH_PREFIX, /* of "x.*": "x." */
	SL_MATCH_TAIL,   /* of another glob: what stands after its last star */
	SL_MATCH_HEAD,   /* what stands before its first */
	SL_MATCH_LABEL,  /* a label of it without stars: "x" of "a*.x.*" */
	SL_MATCH_KIND_COUNT_,
};

/* Groups without a name; those with one follow. */
enum sl_match_nameless {
	SL_MATCH_PLAIN = 0, /* rules that do not depend on the bytes */
	SL_MATCH_BYTES,     /* rules that do, without domains */
	SL_MATCH_WAIT,      /* all rules that do, each at the best rank it may have */
	SL_MATCH_NAMELESS_COUNT_,
};

/* A cache line: what most names have, one entry on one block of ports, is found here. */
#define SL_MATCH_GROUP_ALIGN 64

struct sl_match_group {
	const char *text;
	uint32_t len;
	enum sl_match_kind kind;
	uint32_t levels; /* bit b: some block is ports that share b bits */
	uint32_t n_lists;
	/* of the only list, when there is one */
	uint32_t block;
	uint32_t first;
	uint32_t count;
	uint32_t n_globs;           /* while filling: globs that could be found by this text */
	struct sl_match_entry best; /* of that list */
};
_Static_assert(sizeof(struct sl_match_group) <= SL_MATCH_GROUP_ALIGN, "larger than a cache line");

struct sl_match_slot {
	uint32_t hash;
	uint32_t group; /* 0: free (group 0 has no name) */
};

struct sl_match_list {
	uint64_t key; /* 0: free */
	uint32_t first;
	uint32_t count;
};

#define SL_MATCH_PORT_WORDS 1024 /* 65536 ports in words of 64 */

struct sl_matcher {
	const struct sl_match_rule *rules;
	struct sl_match_group *groups;
	struct sl_match_slot *slots; /* open addressing, at most half full */
	struct sl_match_list *lists; /* likewise */
	struct sl_match_entry *entries;
	uint32_t *group_of; /* while filling: of each domain of each rule */
	size_t slot_mask;
	size_t list_mask;
	uint32_t n_rules;
	uint32_t n_groups;
	/* bit n: some text of that kind has n characters (255: or more) */
	uint64_t lengths[SL_MATCH_KIND_COUNT_][4];
	uint64_t needs_ip[SL_MATCH_PORT_WORDS];
};

/* A block as one number: its bits after a leading one. */
static inline uint32_t sl_match_block(uint16_t port, unsigned bits)
{
	return UINT32_C(1) << bits | (uint32_t)port >> (16 - bits);
}

static inline uint64_t sl_match_list_key(uint32_t group, uint32_t block)
{
	return (uint64_t)group << 17 | block;
}

static inline bool sl_match_is_glob(enum sl_match_kind kind)
{
	return kind == SL_MATCH_TAIL || kind == SL_MATCH_HEAD || kind == SL_MATCH_LABEL;
}

/* Texts are hashed character by character from the side where they are anchored. */
#define SL_MATCH_HASH_BEGIN UINT64_C(0xcbf29ce484222325) /* FNV-1a, 64 bits */

static inline uint64_t sl_match_hash_add(uint64_t hash, char c)
{
	return (hash ^ (unsigned char)c) * UINT64_C(0x100000001b3);
}

static inline bool sl_match_is_from_end(enum sl_match_kind kind)
{
	return kind == SL_MATCH_SUFFIX || kind == SL_MATCH_TAIL;
}

/* Spreads the bits of a number over all of them (the golden ratio, twice). */
static inline uint64_t sl_match_mix(uint64_t h)
{
	h = (h ^ h >> 32) * UINT64_C(0x9e3779b97f4a7c15);
	return (h ^ h >> 29) * UINT64_C(0x9e3779b97f4a7c15);
}

static inline bool sl_match_has_length(const struct sl_matcher *m, enum sl_match_kind kind,
				       size_t n)
{
	n = n < 255 ? n : 255;
	return m->lengths[kind][n / 64] >> n % 64 & 1;
}

/* The slot with that text, or the free one where it belongs. `hash`: of the characters. */
struct sl_match_slot *sl_match_find_slot(const struct sl_matcher *m, enum sl_match_kind kind,
					 struct sl_slice text, uint64_t hash);
struct sl_match_list *sl_match_find_list(const struct sl_matcher *m, uint64_t key);

/* What of the first bytes a rule looks at. */
static inline bool sl_match_rule_needs_bytes(const struct sl_match_rule *rule)
{
	return rule->n_domains || rule->path || rule->tls_versions || rule->n_alpn;
}

#endif
