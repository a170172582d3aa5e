/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_IO_PARTING_H
#define SL_IO_PARTING_H

#include "base/cleanup.h"
#include "io/loop.h"

/*
 * Sockets with which we are done and the other side may not be. Closing one at once would answer
 * what is still on its way with RST (RFC 1122, 4.2.2.13); so each says its end, reads on without
 * looking, and is closed when the other side has ended, too: after at most 1 s and 256 KiB, and at
 * most 256 at a time, the oldest going first.
 */
struct sl_parting;

SL_MUST_CHECK int sl_parting_new(struct sl_loop *loop, struct sl_parting **ret);
/* Closes what is there. */
void sl_parting_free(struct sl_parting *p);

/* Takes the descriptor, a stream socket that no loop watches any more. */
void sl_parting_take(struct sl_parting *p, int fd);

#endif
