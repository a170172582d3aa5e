/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_NFT_RULES_H
#define SL_NFT_RULES_H

#include "nft/build.h"
#include "nft/form.h"
#include "nft/ruleset.h"

/* The chains every table has, whatever its routes: ARCHITECTURE.md says what each is for. */
void sl_nft_put_fixed_chains(struct sl_nft_ruleset *rs, const struct sl_nft_common *common);

/*
 * Every packet of every flow of the host passes these, so they are there only while they have
 * something to do: targets on loopback, marks in `kill`, limits of packets.
 */
void sl_nft_put_guard_chain(struct sl_nft_ruleset *rs);
void sl_nft_put_killer_chains(struct sl_nft_ruleset *rs);
void sl_nft_put_police_chain(struct sl_nft_ruleset *rs);

/* The chain that offers flows to the flow table. */
void sl_nft_put_offer_chain(struct sl_nft_ruleset *rs);

/* The chain that a route refuses by. */
const char *sl_nft_refuse_chain(enum sl_nft_refusal refusal);

/* Lists and limits of a new flow; to be called for routes that have any. */
void sl_nft_put_policy_chain(struct sl_nft_ruleset *rs, const struct sl_nft_route *route,
			     const char *name, uint32_t comment);
/* The set of a route's clients: SL_NFT_CLIENTS4 and those behind it. */
void sl_nft_client_set_name(const struct sl_nft_route *route, enum sl_nft_form form,
			    char ret[SL_NFT_NAME]);
/* The limit of packets. */
void sl_nft_put_packets_chain(struct sl_nft_ruleset *rs, const struct sl_nft_route *route,
			      const char *name, uint32_t comment);

/* Several targets: one rule for each family and, where ports are rewritten, protocol. */
struct sl_nft_slots_chain {
	struct {
		uint32_t n_slots; /* 0: no targets of this family */
		bool keeps_port;
	} family[2]; /* IPv4, IPv6 */
};
void sl_nft_put_slots_chain(struct sl_nft_ruleset *rs, const struct sl_nft_route *route,
			    const char *name, uint32_t comment,
			    const struct sl_nft_slots_chain *slots);

#endif
