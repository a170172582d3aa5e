/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_NFT_TROUBLE_H
#define SL_NFT_TROUBLE_H

#include "base/addr.h"
#include "base/cleanup.h"
#include "base/str.h"

/*
 * What keeps flows of the kernel's NAT from arriving although our table is right: rules of others
 * that drop them (an accept in one table does not hold in the next), rules of others that use the
 * mark our flows are known by, settings of the host, a connection tracking that is nearly
 * full. Only looks. Rules of iptables-legacy are not part of nf_tables and are not seen.
 */

/* One that should pass: a route and one of its targets. */
struct sl_nft_trouble_flow {
	const char *route;
	uint32_t mark;
	uint8_t protocol;      /* IPPROTO_TCP, IPPROTO_UDP */
	struct sl_addr target; /* port 0: any */
};

/* Of more, so many are tried, spread over the list. */
#define SL_NFT_TROUBLE_FLOWS 64

struct sl_nft_trouble;

/* Sockets of the network namespace of now. Looking later needs CAP_NET_ADMIN there all the same. */
SL_MUST_CHECK int sl_nft_trouble_open(struct sl_nft_trouble **ret);
void sl_nft_trouble_close(struct sl_nft_trouble *t); /* NULL is fine */
SL_DEFINE_CLEANUP(struct sl_nft_trouble, sl_nft_trouble_close);

/* Of the kernel's rules: another number when somebody has changed them. Costs microseconds. */
SL_MUST_CHECK int sl_nft_trouble_generation(struct sl_nft_trouble *t, uint32_t *ret);

/* Of the host's settings that matter here: another number when they do. Costs microseconds. */
uint32_t sl_nft_trouble_settings(void);

/*
 * Appends one line for each trouble, with what to do about it behind the last ": "; nothing when
 * all is well. `ours` is the name of our table. Takes about 1 ms for 1000 rules of others. -EAGAIN:
 * others change them faster than they can be read. What does not change leads to the same lines.
 */
SL_MUST_CHECK int sl_nft_trouble_look(struct sl_nft_trouble *t, const char *ours,
				      const struct sl_nft_trouble_flow *flows, size_t n,
				      struct sl_str *lines);

#endif
