/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CTL_METRICS_H
#define SL_CTL_METRICS_H

#include "base/str.h"
#include "ctl/ctl.h"

/*
 * Everything that is counted, in the Prometheus text format 0.0.4. Labels are names of routes
 * and targets from the configuration and words of fixed lists: bounded. `age`
 * is of the open connections.
 */
void sl_metrics_render(struct sl_str *out, struct sl_proxy *proxy, const struct sl_ctl_facts *facts,
		       const struct sl_hist *age, uint64_t now_ms);

#define SL_TYPE_METRICS "text/plain; version=0.0.4; charset=utf-8"

#endif
