/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_PROXY_CHOOSE_H
#define SL_PROXY_CHOOSE_H

#include "conf/conf.h"
#include "core/choice.h"

/*
 * What core/choice.h has to know of a route and of this kernel. What follows in the facts, of the
 * connection and the load, is the caller's. `packet`, `sockmap`: ELIGIBLE, or why the engine can
 * carry nothing here.
 */
struct sl_choice_facts sl_choose_facts(const struct sl_conf_global *g,
				       const struct sl_conf_route *route,
				       enum sl_engine_reason packet, enum sl_engine_reason sockmap);

#endif
