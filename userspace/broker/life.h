/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BROKER_LIFE_H
#define SL_BROKER_LIFE_H

#include "broker/flow.h"

/* What becomes of a flow. Each of these may be the end of `f`, except where it says otherwise. */

/* Reads both entries and judges. */
void sl_life_look(struct sl_kflow *f);
/* By what is noted of both directions. */
void sl_life_judge(struct sl_kflow *f);
/*
 * A RST of `from` came that proves nothing: asks both sides, of which one that is no more answers
 * with another that does. Not the end of `f`.
 */
void sl_life_ask(struct sl_kflow *f, enum sl_packet_side from);
/* The entries have been deleted: `how` unless the flow was over before. */
void sl_life_gone(struct sl_kflow *f, enum sl_broker_end how);
/* A new connection has the tuple; the entries made room. */
void sl_life_reused(struct sl_kflow *f);
/* Both peers are reset; the flow is over, its entries stay. Not the end of `f`. */
void sl_life_kill(struct sl_kflow *f, enum sl_broker_end how);
/* Deletes the entries of a flow that is over. */
void sl_life_remove(struct sl_kflow *f);
/* Its owner knows that it is over. */
void sl_life_told(struct sl_kflow *f);
/* What is not over is reset, and its owner is told. Not the end of `f`. */
void sl_life_end(struct sl_kflow *f);
/* Its owner has no record of it any more: likewise, but there is nobody to be told. */
void sl_life_disown(struct sl_kflow *f);

#endif
