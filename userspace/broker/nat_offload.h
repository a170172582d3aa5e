/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BROKER_NAT_OFFLOAD_H
#define SL_BROKER_NAT_OFFLOAD_H

#include "broker/nat_plan.h"
#include "io/loop.h"
#include "nft/links.h"
#include "nft/table.h"

/*
 * global.nftables.flow_offload: the interfaces of which the kernel's short way is made. What is
 * missing costs only that: the routes are served all the same.
 */
struct sl_nat_offload {
	struct sl_loop *loop;
	void (*changed)(void *arg); /* an interface has come or gone: apply again */
	void *arg;

	struct sl_nft_links *links; /* NULL: not asked for yet */
	struct sl_io io;
	struct sl_timer timer;
	char (*wanted)[SL_NFT_DEVICE]; /* the plan's */
	size_t n_wanted;
	bool was_tried;
	bool is_lacking; /* the kernel has no flow tables */
	bool is_refused; /* it has, and did not take these; until something changes */
	char device[SL_NFT_DEVICES][SL_NFT_DEVICE];
	size_t n;       /* of those that are there */
	char text[120]; /* what is amiss; empty: nothing */
};

/* By a plan, which must stay as long as it is the last one. */
void sl_nat_offload_plan(struct sl_nat_offload *o, const struct sl_nat_plan *plan);
/* What is there of it now; `n` is 0 where there is, or can be, no short way. */
void sl_nat_offload_look(struct sl_nat_offload *o, struct sl_nft_table *table);
/* The kernel did not take it, and said so. */
void sl_nat_offload_refused(struct sl_nat_offload *o, const char *why);
void sl_nat_offload_done(struct sl_nat_offload *o);

/* As much of it as there is room for, and dots where that is not all: the log has it. */
void sl_nat_shorten(const char *text, char *ret, size_t size);

#endif
