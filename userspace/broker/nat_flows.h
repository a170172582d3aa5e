/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BROKER_NAT_FLOWS_H
#define SL_BROKER_NAT_FLOWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

struct sl_nat;

/*
 * The flows of the kernel's NAT: a thread follows conntrack, what it finds is told, and those that
 * must go are deleted.
 */

/* 0 also when it runs already. A failure is said. */
SL_MUST_CHECK int sl_nat_start_stream(struct sl_nat *n);
void sl_nat_stop_stream(struct sl_nat *n);
/* The kernel's module comes with whoever asks first; before that its settings are not there. */
void sl_nat_load_conntrack(const struct sl_nat *n);

/* Room for the records of as many flows as the kernel takes now. */
void sl_nat_look_at_room(struct sl_nat *n);

uint64_t sl_nat_n_flows(const struct sl_nat *n);
uint64_t sl_nat_dumps(const struct sl_nat *n); /* of conntrack, so far */

/* Nothing that the stream knows waits to be counted and told. */
bool sl_nat_is_all_told(const struct sl_nat *n);

/* Says when all that an earlier broker may have told of has been found, or is no more. */
void sl_nat_say_told(struct sl_nat *n);

/* UDP: of listeners and targets that are gone, or down while another is not. */
void sl_nat_clean_udp(struct sl_nat *n);
/* All of our marks; how many they were. */
size_t sl_nat_delete_flows(struct sl_nat *n);
/* The same without the thread running, as for somebody who has no broker. */
size_t sl_nat_find_and_delete(struct sl_nat *n);

#endif
