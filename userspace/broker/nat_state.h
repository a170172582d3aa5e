/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BROKER_NAT_STATE_H
#define SL_BROKER_NAT_STATE_H

#include "broker/nat.h"
#include "broker/nat_apply.h"
#include "broker/nat_flows.h"
#include "broker/nat_offload.h"
#include "broker/nat_probe.h"
#include "broker/nat_routes.h"
#include "broker/nat_settings.h"
#include "nft/ct_stream.h"
#include "nft/table.h"

/*
 * The state of nat.h, shared by the files that are its parts: nat.c (plans, targets, status),
 * nat_life.c (from the first look at the kernel to the last), nat_apply.c, nat_flows.c,
 * nat_settings.c. One thread, one loop.
 */
#define SL_NAT_BATCH 64 /* changes taken at once */

struct sl_nat {
	struct sl_nat_options options;
	struct sl_loop *loop;
	char name[SL_NAT_TABLE];
	uint32_t mark_base;
	uint64_t started_ns; /* since 1970 */

	struct sl_nft_table *table;  /* NULL: not open, nothing is done */
	struct sl_ct_stream *stream; /* NULL: no route, no flow */
	struct sl_nat_probe probe;
	struct sl_nat_routes routes;
	struct sl_nat_offload offload;
	struct sl_nat_plan *plan; /* NULL: none yet */
	bool *is_down;            /* by target of the plan */
	struct sl_nft_target *settled;
	struct sl_ct_timeouts timeouts;
	struct sl_nat_settings was;
	bool is_set;              /* the settings are as records need them */
	bool cannot_set;          /* or could not be */
	bool has_lacked_localnet; /* it is said */

	bool is_installed;    /* the kernel has, or may have, something of ours */
	bool is_applied;      /* and it is what the plan wants */
	bool is_repairing;    /* it was, until somebody else changed it */
	bool is_barred;       /* no right to open the table, here or in another process */
	bool is_busy;         /* it could not be read: others change the rules all the time */
	bool has_lacked_room; /* it is said */
	bool is_missed;       /* without a table: the last plan has routes */
	bool is_stale;        /* the last plan could not be taken */
	struct sl_nat_plan *waiting; /* for the table, which may be opened later; NULL: none */
	char why_off[190];
	uint64_t retry_ms;
	uint64_t repaired_ms;
	uint64_t udp_until; /* so many dumps: entries of targets that are gone may come to light */
	struct sl_io watch_io;
	struct sl_io stream_io;
	struct sl_timer targets; /* some went down or came up */
	uint64_t targets_ms;     /* not before */
	struct sl_timer retry;
	struct sl_timer repair;
	struct sl_timer tick;

	struct sl_ct_change batch[SL_NAT_BATCH]; /* taken, yet to be told from `batch_at` on */
	size_t batch_n;
	size_t batch_at;
	bool is_blocked; /* until sl_nat_resume() */
	bool is_told;    /* what there was at the begin is, and that is said */

	struct sl_broker_nat_status status; /* as last told */
	uint32_t n_adopted;
	uint32_t n_repairs;
	uint64_t n_resyncs;     /* of earlier streams */
	uint64_t n_overruns;    /* of this one, when last looked at; */
	uint64_t overrun_until; /* by so many dumps everything has been told */
};

/* nat.c */
void sl_nat_refresh(struct sl_nat *n); /* tells of the status, if it is another */
/* Has what the kernel has to load loaded. `n->table` stays NULL where that is for later. */
SL_MUST_CHECK int sl_nat_open_table(struct sl_nat *n, bool is_wanted);
/* Whether an attempt failed because the table is not ours to change. */
bool sl_nat_is_of_others(int err);
/* Why nothing is done; logged once. */
void sl_nat_say_off(struct sl_nat *n, const char *text);

#endif
