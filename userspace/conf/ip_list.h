/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CONF_IP_LIST_H
#define SL_CONF_IP_LIST_H

#include "base/cleanup.h"
#include "core/ip_set.h"

/* The memory of address sets, which core/ip_set.h leaves to its callers. */
struct sl_ip_counts {
	size_t n4;
	size_t n6;
	size_t n_globs;
};
void sl_ip_list_count(struct sl_ip_counts *counts, const struct sl_ip_pattern *pattern);

/* An empty set with room for so many; `ret` must own nothing. -ENOMEM. */
SL_MUST_CHECK int sl_ip_list_alloc(const struct sl_ip_counts *counts, struct sl_ip_set *ret);
/* Of a set that is built. */
SL_MUST_CHECK int sl_ip_list_copy(const struct sl_ip_set *from, struct sl_ip_set *ret);
/* The same addresses, as far as equal lists show it. */
bool sl_ip_list_is_equal(const struct sl_ip_set *a, const struct sl_ip_set *b);
void sl_ip_list_done(struct sl_ip_set *set);

#endif
