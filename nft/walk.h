/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_NFT_WALK_H
#define SL_NFT_WALK_H

#include "nft/others.h"

/*
 * One packet's way through a chain of others, as far as it can be told: of the packet some things
 * are known (that it belongs to a translated flow, its target, its mark), others are not (who sends
 * it, by which interface it comes). Pure.
 */
struct sl_nft_packet {
	uint8_t family;   /* NFPROTO_IPV4 or NFPROTO_IPV6 */
	uint8_t protocol; /* IPPROTO_* */
	uint32_t mark;    /* of its flow */
	bool is_new;      /* the first of its flow; else of one that is established */
	bool has_target;  /* the two below are what the packet says by now */
	uint8_t target[16];
	uint16_t port; /* host order; 0: not known */
};

enum sl_nft_way {
	SL_NFT_WAY_ON = 0, /* to the end of the chain */
	SL_NFT_WAY_ACCEPTED,
	SL_NFT_WAY_DROPPED,
};

struct sl_nft_walk {
	enum sl_nft_way way;
	bool may_be_accepted; /* before it was dropped or came to the end, by a rule that asks what
			       * is not known */
	/* the first rule that it meets, or may meet, of each kind, and the chain it is in; or NULL
	 */
	const struct sl_nft_others_chain *dropped_in;
	const struct sl_nft_others_chain *marked_in; /* sets the mark of the flow */
	const struct sl_nft_others_chain *copied_in; /* makes it the mark of the packet */
	const struct sl_nft_others_chain *asked_in;  /* takes this mark for one it knows */
	bool is_too_long;                            /* given up: nothing above can be relied on */
};

void sl_nft_walk(const struct sl_nft_others_table *t, const struct sl_nft_others_chain *base,
		 const struct sl_nft_packet *packet, struct sl_nft_walk *ret);

#endif
