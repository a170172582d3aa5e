/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_DAEMON_FILE_WATCH_H
#define SL_DAEMON_FILE_WATCH_H

#include <stdbool.h>
#include <stddef.h>

#include "base/cleanup.h"
#include "io/loop.h"

/*
 * Says when somebody should look whether files have changed: 200 ms after something has happened in
 * their directories, or in one that holds a link on the way to them; 2 s after it, when things go
 * on happening; and each minute, for file systems that tell nothing. What has changed, if
 * anything, is the caller's to find out.
 */
#define SL_FILE_WATCH_SETTLED_MS 200
#define SL_FILE_WATCH_BUSY_MS 2000
#define SL_FILE_WATCH_EVERY_MS 60000

struct sl_file_watch;

/* `is_regular`: it is the look of each minute. */
typedef void (*sl_file_watch_fn)(void *arg, bool is_regular);

SL_MUST_CHECK int sl_file_watch_new(struct sl_loop *loop, sl_file_watch_fn fn, void *arg,
				    struct sl_file_watch **ret);
/*
 * The files from now on, copied; none: nothing is said any more. Absolute paths; files, directories
 * and links may be missing. Is to be called before the files are read, or a look asked for
 * after it.
 */
SL_MUST_CHECK int sl_file_watch_set(struct sl_file_watch *w, const char *const *paths, size_t n);
void sl_file_watch_ask(struct sl_file_watch *w);  /* as if something had happened just now */
void sl_file_watch_free(struct sl_file_watch *w); /* not from its own callback; accepts NULL */

#endif
