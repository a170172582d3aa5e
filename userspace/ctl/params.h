/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CTL_PARAMS_H
#define SL_CTL_PARAMS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/addr.h"
#include "core/ip_set.h"
#include "ctl/server.h"

/*
 * What a request to the control interface says in its query and path. Each returns false after
 * the call was failed because that is broken; `ret` is untouched then (texts: undefined).
 */
#define SL_PARAM_MAX 512

bool sl_param(struct sl_call *call, const char *name, char ret[SL_PARAM_MAX]); /* "": absent */
bool sl_param_number(struct sl_call *call, const char *name, uint64_t min, uint64_t max,
		     uint64_t absent, uint64_t *ret);
/* An address, with or without a port; AF_UNSPEC when absent. */
bool sl_param_addr(struct sl_call *call, const char *name, struct sl_addr *ret);
/* A pattern of addresses; `ret` is written when it is `given`. */
bool sl_param_client(struct sl_call *call, const char *name, struct sl_ip_pattern *ret,
		     bool *given);
/* tcp or udp; tcp where none is given. */
bool sl_param_protocol(struct sl_call *call, const char *name, bool *ret_is_udp);
bool sl_param_tls(struct sl_call *call, const char *name, uint32_t *ret); /* SL_TLS_*; 0: absent */
bool sl_param_route(struct sl_call *call, const char *name, char ret[SL_PARAM_MAX]);
/* NAME of /v1/routes/NAME and what stands below it. */
bool sl_param_path_name(struct sl_call *call, char ret[SL_PARAM_MAX]);

#endif
