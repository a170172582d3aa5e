/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_PROXY_EXPLAIN_H
#define SL_PROXY_EXPLAIN_H

#include "proxy/deny.h"
#include "proxy/generation.h"
#include "proxy/proxy.h"

/*
 * Answers a question by asking the matcher, the access lists and the choice of targets, exactly as
 * a connection would. `deny` may be NULL. `ret->is_listening` is the caller's, and the engine is
 * sl_explain_engine()'s.
 */
SL_MUST_CHECK int sl_explain(const struct sl_generation *g, const struct sl_deny *deny,
			     const struct sl_question *q, uint64_t now_ms,
			     struct sl_explanation *ret);

/* `packet`, `sockmap`: ELIGIBLE, or why that engine can carry nothing here. */
void sl_explain_engine(const struct sl_generation *g, enum sl_engine_reason packet,
		       enum sl_engine_reason sockmap, struct sl_explanation *x);

#endif
