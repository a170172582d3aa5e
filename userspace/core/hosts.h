/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CORE_HOSTS_H
#define SL_CORE_HOSTS_H

#include <stddef.h>

#include "base/addr.h"

/*
 * The addresses of `name` in the text of a hosts(5) file, in its order and
 * without repetition, at most `max`; returns how many. Upper and lower case are
 * equal and a final dot of the name does not count. Lines that are not
 * understood, addresses with a scope among them, are passed over.
 */
size_t sl_hosts_find(const char *text, size_t len, const char *name, struct sl_addr *addrs,
		     size_t max);

#endif
