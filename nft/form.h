/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_NFT_FORM_H
#define SL_NFT_FORM_H

#include "nft/ruleset.h"

/*
 * The sets and maps there are. Those of the table come first; of those of a route each has
 * the route's number behind the name. The one for IPv6 stands behind that for IPv4, which is
 * relied on: form + is_ip6.
 */
enum sl_nft_form {
	/* who listens: the route of a new flow */
	SL_NFT_LISTEN4 = 0, /* address, protocol, port */
	SL_NFT_LISTEN6,
	SL_NFT_LISTEN4_RANGE, /* the same with ranges of ports */
	SL_NFT_LISTEN6_RANGE,
	SL_NFT_ANY4, /* protocol, port; on every local address */
	SL_NFT_ANY6,
	SL_NFT_ANY4_RANGE,
	SL_NFT_ANY6_RANGE,
	/* by route: */
	SL_NFT_TO4, /* the single target */
	SL_NFT_TO6,
	SL_NFT_TO4_ADDRESS, /* the single target, on the client's port */
	SL_NFT_TO6_ADDRESS,
	SL_NFT_ROUTE_COUNTER, /* every route is in it: number and name */
	SL_NFT_ROUTE_POLICY,  /* chains of those with lists or limits */
	SL_NFT_ROUTE_SLOTS,   /* chains of those with several targets */
	SL_NFT_ROUTE_REFUSE,  /* those that refuse otherwise than by RST */
	SL_NFT_ROUTE_PACKETS, /* chains of those with a limit of packets */
	SL_NFT_MASQ,
	SL_NFT_KILL,
	SL_NFT_HAIRPIN4, /* targets that may be their own clients: source, destination */
	SL_NFT_HAIRPIN6,
	SL_NFT_FIXED_COUNT_,
	SL_NFT_ALLOW4 = SL_NFT_FIXED_COUNT_,
	SL_NFT_ALLOW6,
	SL_NFT_DENY4,
	SL_NFT_DENY6,
	SL_NFT_SLOTS4, /* slot: target */
	SL_NFT_SLOTS6,
	SL_NFT_SLOTS4_ADDRESS,
	SL_NFT_SLOTS6_ADDRESS,
	/* filled by packets, a client each, with its limit */
	SL_NFT_CLIENTS4, /* of connections there are */
	SL_NFT_CLIENTS6,
	SL_NFT_NEW4, /* of how fast they come */
	SL_NFT_NEW6,
	SL_NFT_OFFLOADS, /* one of the table, where there is a flow table */
	SL_NFT_FORM_COUNT_,
};

/* `mark`: of the route; not used for those of the table; 0 for lists of all routes. */
void sl_nft_form_name(enum sl_nft_form form, uint32_t mark, char ret[SL_NFT_NAME]);

/* An empty set of that form, without a comment. */
void sl_nft_form_set(enum sl_nft_form form, uint32_t mark, struct sl_nft_set *ret);
const char *sl_nft_form_comment(enum sl_nft_form form); /* of those of the table */

#endif
