/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CTL_VIEW_JOINED_H
#define SL_CTL_VIEW_JOINED_H

#include "base/json.h"
#include "broker/joined.h"
#include "proxy/proxy.h"

/*
 * Joined connections as members of an array. The kernel's slots know neither peers nor routes:
 * `records`, sorted by id, do; NULL: they were not asked.
 */
void sl_view_joined(struct sl_json *j, const struct sl_joined_walk *w,
		    const struct sl_conn_survey *records, uint64_t now_ns);

#endif
