/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CTL_VIEW_SOCKMAP_H
#define SL_CTL_VIEW_SOCKMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "accel/sockmap.h"
#include "base/json.h"
#include "proxy/proxy.h"

/*
 * Connections as the kernel's slots of the sockmap engine have them, in slices. The slots know
 * neither peers nor routes: those come from the records, which are asked for when there is a row.
 */
struct sl_joined_row;
struct sl_joined_walk {
	struct sl_sockmap_view *maps; /* a reference; NULL: before the first slice, or none */
	uint32_t pair;                /* the next one */
	struct sl_joined_row *rows;
	size_t n;
	size_t cap;
	bool more; /* there are others */
};
/*
 * The rows of the next slice, as long as there are fewer than `max`, of connection `id` (0: of
 * any). 1: that was all; 0: call again; -ENOMEM. `maps`: the present ones, borrowed.
 */
SL_MUST_CHECK int sl_joined_step(struct sl_joined_walk *w, struct sl_sockmap_view *maps, size_t max,
				 uint64_t id);
/* As members of an array; `records`, sorted by id: NULL: they are not known. */
void sl_joined_write(struct sl_json *j, const struct sl_joined_walk *w,
		     const struct sl_conn_survey *records, uint64_t now_ns);
void sl_joined_done(struct sl_joined_walk *w);

/* Every outcome of the program by its name, in a fixed order; none when they cannot be read. */
void sl_joined_outcomes(const struct sl_sockmap_view *maps,
			void (*fn)(void *arg, const char *name, uint64_t value), void *arg);

#endif
