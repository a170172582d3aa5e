/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_NFT_RULESET_H
#define SL_NFT_RULESET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/str.h"

/*
 * A table of nftables as plain data: what is wanted (nft/build.h) and what the kernel holds
 * (nft/table.h) have the same form, so that they can be compared (nft/diff.h). No netlink here.
 *
 * Texts (comments, names inside elements) and the code of rules stand in one pool and are
 * referred to by offset; offset 0 is the empty text.
 */

#define SL_NFT_NAME 40   /* of a set, chain or counter, with the NUL */
#define SL_NFT_KEY 32    /* two IPv6 addresses, or one, a protocol and a port in words of 4 bytes */
#define SL_NFT_DATA 20   /* an IPv6 address and a port */
#define SL_NFT_DEVICE 16 /* name of an interface, with the NUL */
#define SL_NFT_DEVICES 64 /* of a flow table, at most */

/*
 * Says whose table it is and which form it has. A table of ours with another form is replaced as a
 * whole; one without it belongs to somebody else.
 */
#define SL_NFT_TABLE_COMMENT "sluice ruleset 1"

struct sl_nft_elem {
	uint8_t key[SL_NFT_KEY];
	uint8_t end[SL_NFT_KEY]; /* of sets of intervals of concatenations: inclusive; else 0 */
	uint8_t data[SL_NFT_DATA];
	uint32_t flags;   /* NFT_SET_ELEM_* */
	int32_t verdict;  /* NFT_JUMP, NFT_GOTO; 0 where the set holds none */
	uint32_t name;    /* text: chain of the verdict, or counter */
	uint32_t comment; /* text: the route's name */
};

struct sl_nft_set {
	char name[SL_NFT_NAME];
	uint32_t flags;     /* NFT_SET_* */
	uint32_t key_type;  /* nft's numbers of data types, 6 bits for each field */
	uint32_t key_len;   /* bytes */
	uint32_t data_type; /* 0: no map, or one of counters */
	uint32_t data_len;
	uint32_t object_type; /* NFT_OBJECT_*; 0: no map of objects */
	uint8_t field[4];     /* bytes of each field of an interval of concatenations */
	uint8_t n_fields;
	uint8_t n_layout;
	uint32_t size;       /* elements at most; 0: no bound */
	uint32_t timeout_ms; /* of elements; 0: they stay */
	uint8_t layout[112]; /* what nft needs to print it: user data without the comment */
	uint32_t comment;
	/* sorted by key and flags once sl_nft_ruleset_sort()ed; of sets that packets fill
	 * (NFT_SET_EVAL) none is here, whatever the kernel holds */
	struct sl_nft_elem *elems;
	size_t n;
	size_t cap;
};

struct sl_nft_rule {
	uint32_t code; /* offset in the pool: nft/expr.h */
	uint32_t n_code;
	uint32_t comment;
	uint64_t handle; /* the kernel's; 0: not installed */
};

struct sl_nft_chain {
	char name[SL_NFT_NAME];
	bool is_base;
	char type[8]; /* of base chains: "filter", "nat" */
	uint32_t hook;
	int32_t priority;
	uint32_t comment;
	struct sl_nft_rule *rules; /* in the order of evaluation */
	size_t n;
	size_t cap;
};

struct sl_nft_counter {
	char name[SL_NFT_NAME];
	uint32_t comment;
	uint64_t packets; /* of what the kernel holds */
	uint64_t bytes;
};

/* By which flows pass between interfaces without the rest of the kernel: the one flow table. */
#define SL_NFT_FLOWTABLE "ft"
struct sl_nft_flowtable {
	bool is_there;
	uint32_t flags; /* NFT_FLOWTABLE_* */
	size_t n;
	char device[SL_NFT_DEVICES][SL_NFT_DEVICE]; /* sorted */
};

struct sl_nft_ruleset {
	struct sl_nft_set *sets; /* each array by name once sorted */
	size_t n_sets;
	size_t cap_sets;
	struct sl_nft_chain *chains;
	size_t n_chains;
	size_t cap_chains;
	struct sl_nft_counter *counters;
	size_t n_counters;
	size_t cap_counters;
	struct sl_nft_flowtable flowtable;
	uint32_t comment; /* of the table */
	uint32_t flags;   /* NFT_TABLE_F_* of what the kernel holds */
	uint32_t owner;   /* netlink port of the socket that owns the table; 0: none */
	bool has_others;  /* objects in it that this form cannot express: not ours */
	struct sl_str pool;
	bool oom; /* sticky; checked once by whoever filled it */
};

/* Empty; -ENOMEM. */
SL_MUST_CHECK int sl_nft_ruleset_new(struct sl_nft_ruleset **ret);
void sl_nft_ruleset_free(struct sl_nft_ruleset *rs);
SL_DEFINE_CLEANUP(struct sl_nft_ruleset, sl_nft_ruleset_free);

static inline const char *sl_nft_text(const struct sl_nft_ruleset *rs, uint32_t offset)
{
	return rs->pool.p + offset;
}

/*
 * Filling it. Running out of memory sets `oom`, and what is returned is then not part of the
 * ruleset, though it may be written to. A pointer is valid until the next call of the same kind.
 */
uint32_t sl_nft_put_text(struct sl_nft_ruleset *rs, const char *text);
uint32_t sl_nft_put_bytes(struct sl_nft_ruleset *rs, const void *bytes, size_t n);
struct sl_nft_set *sl_nft_put_set(struct sl_nft_ruleset *rs, const struct sl_nft_set *set);
/* `set` is one of `rs`. */
void sl_nft_put_elem(struct sl_nft_ruleset *rs, struct sl_nft_set *set,
		     const struct sl_nft_elem *elem);
struct sl_nft_chain *sl_nft_put_chain(struct sl_nft_ruleset *rs, const struct sl_nft_chain *chain);
void sl_nft_put_rule(struct sl_nft_ruleset *rs, struct sl_nft_chain *chain,
		     const struct sl_nft_rule *rule);
void sl_nft_put_counter(struct sl_nft_ruleset *rs, const struct sl_nft_counter *counter);

/* After the last of them. -ENOMEM if memory ran out at any time. */
SL_MUST_CHECK int sl_nft_ruleset_sort(struct sl_nft_ruleset *rs);

/* Of a sorted one; NULL: none of that name. */
struct sl_nft_set *sl_nft_find_set(const struct sl_nft_ruleset *rs, const char *name);
struct sl_nft_chain *sl_nft_find_chain(const struct sl_nft_ruleset *rs, const char *name);

/* By key and flags: 0 is "the same element". */
int sl_nft_elem_compare(const struct sl_nft_elem *a, const struct sl_nft_elem *b);
/* Of a sorted set: where an element is the same as the one before; 0: nowhere. */
size_t sl_nft_set_find_repeated(const struct sl_nft_set *set);
/* Also of the same route, by the comment: numbers are read back by it. Given that the keys are the
 * same. */
bool sl_nft_elem_is_same(const struct sl_nft_ruleset *ra, const struct sl_nft_elem *a,
			 const struct sl_nft_ruleset *rb, const struct sl_nft_elem *b);
bool sl_nft_flowtable_has(const struct sl_nft_flowtable *ft, const char *device);
/* Adds an interface to it; false: it is full. */
bool sl_nft_put_device(struct sl_nft_ruleset *rs, const char *name);
/* Everything but comment and elements. */
bool sl_nft_set_has_same_form(const struct sl_nft_set *a, const struct sl_nft_set *b);
bool sl_nft_chain_has_same_form(const struct sl_nft_chain *a, const struct sl_nft_chain *b);
/* Of this program, whatever its form; else it is to be left alone. */
bool sl_nft_ruleset_is_ours(const struct sl_nft_ruleset *rs);
bool sl_nft_rule_is_same(const struct sl_nft_ruleset *ra, const struct sl_nft_rule *a,
			 const struct sl_nft_ruleset *rb, const struct sl_nft_rule *b);

#endif
