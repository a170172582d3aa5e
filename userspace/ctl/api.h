/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CTL_API_H
#define SL_CTL_API_H

#include "base/list.h"
#include "ctl/ctl.h"
#include "ctl/params.h"
#include "ctl/server.h"

/* What the files of the control interface share: api.c (dispatch, views) and api_change.c. */
struct sl_ctl {
	struct sl_ctl_options options;
	struct sl_server *control;
	struct sl_server *http; /* NULL: none */
	struct sl_list waiting; /* answers that come later */
};

/* A call whose answer somebody else owes; outlives the client and the control interface. */
struct sl_wait {
	struct sl_list node; /* in ctl->waiting */
	struct sl_ctl *ctl;  /* NULL: freed */
	struct sl_call *call;
	char route[SL_PARAM_MAX]; /* that a kill was asked for; "": any */
	const char *engine;       /* that a move is to */
	uint64_t n_flows;         /* that a flush will end */
};

/* NULL when out of memory; the call has been failed then. */
struct sl_wait *sl_wait_start(struct sl_ctl *ctl, struct sl_call *call);
void sl_wait_end(struct sl_wait *w);

/* ---- api_change.c: what the supervisor is asked for ---- */

void sl_api_reload(struct sl_ctl *ctl, struct sl_call *call);
void sl_api_upgrade(struct sl_ctl *ctl, struct sl_call *call);
void sl_api_put_route(struct sl_ctl *ctl, struct sl_call *call);
void sl_api_delete_route(struct sl_ctl *ctl, struct sl_call *call);
void sl_api_enable_route(struct sl_ctl *ctl, struct sl_call *call);
void sl_api_disable_route(struct sl_ctl *ctl, struct sl_call *call);
void sl_api_drain(struct sl_ctl *ctl, struct sl_call *call);
void sl_api_undrain(struct sl_ctl *ctl, struct sl_call *call);
void sl_api_forget(struct sl_ctl *ctl, struct sl_call *call);
void sl_api_reload_certs(struct sl_ctl *ctl, struct sl_call *call);

#endif
