/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BROKER_NAT_APPLY_H
#define SL_BROKER_NAT_APPLY_H

#include <stdint.h>

#include "base/cleanup.h"
#include "io/loop.h"
#include "nft/table.h"

struct sl_nat;

/*
 * The kernel's table is what the plan says: by a change of the plan, of targets or interfaces, by
 * what others do to it, and after a failure until it works.
 */

/* All of it now; a failure is said, and tried again later. */
void sl_nat_apply(struct sl_nat *n);
/* In the next turn, of whatever came until then; but 100 ms after the last time at the soonest. */
void sl_nat_apply_soon(struct sl_nat *n);
/* The rules alone, with the routes of the plan in `state`. As sl_nft_table_apply(). */
SL_MUST_CHECK int sl_nat_install(struct sl_nat *n, enum sl_nft_state state,
				 struct sl_nft_report *report);

void sl_nat_on_watch(struct sl_io *io, uint32_t events);
void sl_nat_on_interfaces(void *arg); /* those of the short way */
void sl_nat_start_tick(struct sl_nat *n);
void sl_nat_stop_applying(struct sl_nat *n);

#endif
