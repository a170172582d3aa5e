/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_PROXY_EXPLAIN_H
#define SL_PROXY_EXPLAIN_H

#include "proxy/deny.h"
#include "proxy/generation.h"
#include "proxy/proxy.h"

/*
 * Answers a question by asking the matcher, the access lists and the choice of targets, exactly as
 * a connection would. `deny` may be NULL. `ret->is_listening` is the caller's.
 */
SL_MUST_CHECK int sl_explain(const struct sl_generation *g, const struct sl_deny *deny,
			     const struct sl_question *q, uint64_t now_ms,
			     struct sl_explanation *ret);

#endif
