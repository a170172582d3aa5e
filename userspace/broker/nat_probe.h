/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BROKER_NAT_PROBE_H
#define SL_BROKER_NAT_PROBE_H

#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "broker/conntrack.h"
#include "nft/ct_msg.h"

/*
 * Makes silent peers notice that their flow is gone. Once a flow of TCP has no entry in conntrack
 * any more, whoever sends a packet of it is answered by RST; a peer that only listens sends none.
 * So each is sent a bare acknowledgement in the name of the other, with a number that fits nothing:
 * RFC 9293 section 3.10.7.4 has it answer with one of its own, and that is the packet. Connection
 * tracking takes ours for the middle of a connection and would keep an entry of it for five
 * minutes, so that is taken out again; the answer's goes with the RST.
 */
struct sl_nat_probe {
	int fd4; /* -1: none; peers are told by their next packet alone */
	int fd6;
	struct sl_conntrack conntrack;
};

/* Needs CAP_NET_RAW, sending does not. */
void sl_nat_probe_open(struct sl_nat_probe *p);
void sl_nat_probe_close(struct sl_nat_probe *p);

/* After its entry has been deleted. Other protocols have nobody to tell. */
void sl_nat_probe_flow(struct sl_nat_probe *p, const struct sl_ct_flow *flow);

/* An acknowledgement from `from` to `to`, of one family, with IP header: its length. Pure. */
#define SL_NAT_PROBE_MAX 60
size_t sl_nat_probe_write(const struct sl_addr *from, const struct sl_addr *to,
			  uint8_t ret[SL_NAT_PROBE_MAX]);

#endif
