/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CONF_ARENA_H
#define SL_CONF_ARENA_H

#include <stddef.h>

#include "base/cleanup.h"

/* Memory that is given back all at once: the node trees of the files. Zeroed is empty. */
struct sl_arena_chunk;
struct sl_arena {
	struct sl_arena_chunk *chunks;
};

/* Zeroed and aligned for any type; NULL when memory ran out. */
void *sl_arena_alloc(struct sl_arena *a, size_t n);
/* A NUL-terminated copy. */
char *sl_arena_copy(struct sl_arena *a, const char *bytes, size_t n);
void sl_arena_done(struct sl_arena *a);

#endif
