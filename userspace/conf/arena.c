/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "conf/arena.h"

#include <stdalign.h>
#include <stdint.h>
#include <string.h>

#define CHUNK ((size_t)32 * 1024)

struct sl_arena_chunk {
	struct sl_arena_chunk *next;
	size_t used;
	size_t cap;
	alignas(max_align_t) unsigned char bytes[];
};

void *sl_arena_alloc(struct sl_arena *a, size_t n)
{
	struct sl_arena_chunk *c = a->chunks;
	size_t cap;
	void *p;

	if (n > SIZE_MAX / 2)
		return NULL;
	n = (n + alignof(max_align_t) - 1) & ~(alignof(max_align_t) - 1);
	if (!c || c->cap - c->used < n) {
		cap = n > CHUNK ? n : CHUNK;
		c = malloc(sizeof(*c) + cap);
		if (!c)
			return NULL;
		*c = (struct sl_arena_chunk){ .next = a->chunks, .cap = cap };
		a->chunks = c;
	}
	p = c->bytes + c->used;
	c->used += n;
	return memset(p, 0, n);
}

char *sl_arena_copy(struct sl_arena *a, const char *bytes, size_t n)
{
	char *p = sl_arena_alloc(a, n + 1);

	if (p && n)
		memcpy(p, bytes, n);
	return p;
}

void sl_arena_done(struct sl_arena *a)
{
	while (a->chunks) {
		struct sl_arena_chunk *c = a->chunks;

		a->chunks = c->next;
		free(c);
	}
}
