/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CTL_VIEW_DIFF_H
#define SL_CTL_VIEW_DIFF_H

#include "base/str.h"
#include "ctl/ctl.h"
#include "proxy/proxy.h"

/*
 * GET /v1/diff. `lines`: what the broker's look has found (broker/diff.h); NULL: there is no
 * broker, and so nothing in the kernel to compare.
 */
void sl_view_diff(struct sl_str *out, const struct sl_proxy *proxy,
		  const struct sl_ctl_facts *facts, const char *lines);

#endif
