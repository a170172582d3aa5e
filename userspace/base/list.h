/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BASE_LIST_H
#define SL_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

#include "base/cleanup.h"

/* Intrusive, circular, doubly linked. A node outside any list points to itself. */
struct sl_list {
	struct sl_list *next;
	struct sl_list *prev;
};

static inline void sl_list_init(struct sl_list *l)
{
	l->next = l;
	l->prev = l;
}

static inline bool sl_list_is_empty(const struct sl_list *l)
{
	return l->next == l;
}

/* Appends `node`, which must be in no list, at the end of `head`. */
static inline void sl_list_add(struct sl_list *head, struct sl_list *node)
{
	node->prev = head->prev;
	node->next = head;
	head->prev->next = node;
	head->prev = node;
}

/* Puts `node`, which must be in no list, behind `place` (a node or the head). */
static inline void sl_list_insert_after(struct sl_list *place, struct sl_list *node)
{
	node->prev = place;
	node->next = place->next;
	place->next->prev = node;
	place->next = node;
}

/* Harmless on a node that is in no list. */
static inline void sl_list_remove(struct sl_list *node)
{
	node->prev->next = node->next;
	node->next->prev = node->prev;
	sl_list_init(node);
}

/* Moves everything from `from` to the end of `to`. */
static inline void sl_list_splice(struct sl_list *to, struct sl_list *from)
{
	if (sl_list_is_empty(from))
		return;
	from->next->prev = to->prev;
	to->prev->next = from->next;
	from->prev->next = to;
	to->prev = from->prev;
	sl_list_init(from);
}

#define sl_list_for_each(pos, head) for (pos = (head)->next; pos != (head); pos = pos->next)

/* The current node may be removed inside the loop. */
#define sl_list_for_each_safe(pos, tmp, head) \
	for (pos = (head)->next, tmp = pos->next; pos != (head); pos = tmp, tmp = pos->next)

#endif
