/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CORE_ROUTE_TABLE_H
#define SL_CORE_ROUTE_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"

/*
 * From the address and port a client connected to, to a route, in constant
 * time: the ports are cut into segments at every port where a rule begins or
 * ends; a bitmap with ranks finds the segment, and a segment lists its rules in
 * order of precedence (an address before a family before none, then the order given).
 *
 * The table borrows memory from its builder, so that this stays free of
 * allocation: plan, provide the arrays, fill. It is immutable afterwards.
 */
struct sl_route_rule {
	struct sl_addr ip; /* AF_UNSPEC: every local address; 0.0.0.0, ::: of that family */
	uint16_t from;
	uint16_t to; /* inclusive */
	uint32_t route;
};

#define SL_NO_ROUTE UINT32_MAX
#define SL_PORT_WORDS 1024 /* 65536 ports in words of 64 */

struct sl_route_table {
	uint64_t starts[SL_PORT_WORDS];    /* bit p: a segment begins at port p */
	uint32_t rank[SL_PORT_WORDS];      /* segments that begin in earlier words */
	const struct sl_route_rule *rules; /* borrowed */
	size_t n_rules;
	size_t n_segments;
	size_t n_entries;
	uint32_t *first;   /* n_segments + 1: where a segment's entries begin */
	uint32_t *entries; /* indices into rules */
};

/* Cuts the segments and counts the entries; `rules` must outlive the table. */
void sl_route_table_plan(struct sl_route_table *t, const struct sl_route_rule *rules, size_t n);

/* `first` has n_segments + 1 elements, `entries` n_entries. */
void sl_route_table_fill(struct sl_route_table *t, uint32_t *first, uint32_t *entries);

/* `local` needs an address only where sl_route_table_needs_ip() says so, a port always. */
uint32_t sl_route_table_find(const struct sl_route_table *t, const struct sl_addr *local,
			     uint16_t port);
bool sl_route_table_needs_ip(const struct sl_route_table *t, uint16_t port);

#endif
