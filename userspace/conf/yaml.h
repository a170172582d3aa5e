/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CONF_YAML_H
#define SL_CONF_YAML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "conf/arena.h"
#include "conf/diag.h"

enum sl_node_kind {
	SL_NODE_SCALAR = 0,
	SL_NODE_LIST,
	SL_NODE_MAPPING,
};

/* A value of the YAML text; everything lives in the arena given to sl_yaml_parse(). */
struct sl_node {
	enum sl_node_kind kind;
	struct sl_mark at;
	bool quoted;  /* a scalar in quotes or a block scalar: never null, true or a number */
	bool bad;     /* has been reported: nobody says more about it or uses it */
	bool partial; /* the text ended with a syntax error inside: more keys may have followed */
	const char *text; /* of a scalar; without NUL bytes */
	/* of a list or mapping */
	struct sl_node *first;
	struct sl_node *last;
	size_t n;
	/* of an item or a mapping's value */
	struct sl_node *next;
	const char *key;
	struct sl_mark key_at;
	bool key_bad; /* the key has been reported (twice, unknown): the value is not used */
};

/* Plain null, ~ or nothing at all. */
bool sl_node_is_null(const struct sl_node *n);

/* The value of a key in a mapping, NULL when it is absent, null or not usable, or there is none. */
struct sl_node *sl_node_find(const struct sl_node *mapping, const char *key);

/* As sl_node_find(), also when the value is null or not usable: written is written. */
const struct sl_node *sl_node_find_raw(const struct sl_node *mapping, const char *key);

/* The items of a value that is one or a list; NULL is an empty list. */
static inline const struct sl_node *sl_node_items(const struct sl_node *n)
{
	return n && n->kind == SL_NODE_LIST ? n->first : n;
}

static inline const struct sl_node *sl_node_next(const struct sl_node *whole,
						 const struct sl_node *item)
{
	return whole->kind == SL_NODE_LIST ? item->next : NULL;
}

static inline size_t sl_node_count(const struct sl_node *n)
{
	if (!n)
		return 0;
	return n->kind == SL_NODE_LIST ? n->n : 1;
}

/*
 * Reads one source into a tree. What is wrong is reported; what could be read is returned all the
 * same, so that the rest can be checked too. `*ret` is NULL for a source without content.
 */
SL_MUST_CHECK int sl_yaml_parse(struct sl_arena *arena, struct sl_report *report, uint32_t source,
				struct sl_node **ret);

#endif
