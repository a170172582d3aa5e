/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_PROXY_SURVEY_H
#define SL_PROXY_SURVEY_H

#include "proxy/proxy.h"

struct sl_worker;

/*
 * Looks at every connection of every worker: each walks its registry in slices
 * between its other work, with a cursor in the list as its place, and the last
 * one reports. See sl_proxy_survey().
 */
SL_MUST_CHECK int sl_survey_start(struct sl_loop *control, struct sl_worker **workers,
				  unsigned n_workers, const struct sl_conn_filter *filter,
				  sl_survey_fn fn, void *arg);

#endif
