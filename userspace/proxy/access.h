/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_PROXY_ACCESS_H
#define SL_PROXY_ACCESS_H

#include <stdint.h>

#include "base/str.h"

/*
 * The access log's writer: a thread of its own, so that a slow disk or a full
 * pipe never stops a worker. Lines wait in a bounded buffer; when it is full
 * they are dropped and counted.
 */
struct sl_access;

int sl_access_new(int fd, struct sl_access **ret); /* owns `fd`; -1: no log */
void sl_access_free(struct sl_access *a);          /* writes what is left, for at most 1 s */
/* Any thread. `fd`: as above; the old descriptor is closed after its last line. */
void sl_access_set_fd(struct sl_access *a, int fd);
bool sl_access_is_on(const struct sl_access *a);
/* Any thread; whole lines, newline included. */
void sl_access_add(struct sl_access *a, const struct sl_str *lines);
uint64_t sl_access_dropped(const struct sl_access *a); /* bytes */

#endif
