/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_DAEMON_GUARD_H
#define SL_DAEMON_GUARD_H

#include <stddef.h>
#include <stdint.h>

#include "conf/conf.h"
#include "daemon/deny.h"
#include "io/loop.h"

/*
 * Denied sources in the kernel, as the supervisor sees it: decides whether the program is
 * attached, keeps its tables as the configuration and the list say, and follows interfaces that
 * come and go. Where it cannot, nothing is attached, the proxy applies the same
 * lists, and the text says why.
 */
struct sl_guarding;

/* `changed`: text or numbers differ because interfaces came or went. */
int sl_guarding_new(struct sl_loop *loop, void (*changed)(void *arg), void *arg,
		    struct sl_guarding **ret);
void sl_guarding_free(struct sl_guarding *g); /* detaches; NULL is fine */

/* Makes it so; `list` NULL: no file. Does not fail: see the text. */
void sl_guarding_set(struct sl_guarding *g, const struct sl_conf *conf,
		     const struct sl_deny_list *list);
void sl_guarding_stop(struct sl_guarding *g); /* detaches; the counters stay */

const char *sl_guarding_text(const struct sl_guarding *g); /* "tcx on 3 interfaces, 12 ranges" */
uint32_t sl_guarding_n_interfaces(const struct sl_guarding *g);
uint32_t sl_guarding_n_ranges(const struct sl_guarding *g);

/* Counts up when the counters may be others than before. */
unsigned sl_guarding_n_loads(const struct sl_guarding *g);
/* Borrowed; valid until the rules change; -1: nothing is counted in the kernel yet. */
int sl_guarding_count_fd(const struct sl_guarding *g);

/*
 * For an exec: links of interfaces, whose descriptors the next program is given with the counters.
 * It loads a program of its own, attaches, and only then lets go of the old one.
 */
size_t sl_guarding_n_links(const struct sl_guarding *g);
int sl_guarding_link_fd(const struct sl_guarding *g, size_t i); /* borrowed */
/* Before sl_guarding_set(); takes over the descriptors, also on failure. `count_fd` may be -1. */
int sl_guarding_adopt(struct sl_guarding *g, int count_fd, const int *link_fds, size_t n);

#endif
