/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_NFT_OTHERS_H
#define SL_NFT_OTHERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "nft/socket.h"

struct nftnl_rule;

#define SL_NFT_OTHERS_NAME 256 /* NFT_NAME_MAXLEN of the kernel, with the NUL */

/*
 * The tables of others, of the families ip, ip6 and inet, with their rules as libnftnl has them:
 * whatever they hold is kept, understood or not. For looking at, never to be written back.
 */

struct sl_nft_member {
	uint8_t key[64];
	uint8_t len;
	bool is_end;       /* of intervals: the first that is behind one */
	bool is_catch_all; /* whatever is in none of the others */
	int32_t verdict;
	char *chain; /* of the verdict; NULL: none */
};

struct sl_nft_others_set {
	char name[SL_NFT_OTHERS_NAME];
	bool is_interval;
	bool is_vague; /* intervals of concatenations, filled by packets, or too large: not read */
	struct sl_nft_member *members;
	size_t n;
	size_t cap;
};

struct sl_nft_others_chain {
	char name[SL_NFT_OTHERS_NAME];
	bool is_base;
	bool is_nat;
	bool drops; /* the policy of a base chain */
	uint32_t hook;
	int32_t priority;
	struct nftnl_rule **rules; /* in the order of evaluation */
	size_t n;
	size_t cap;
};

struct sl_nft_others_table {
	uint8_t family; /* NFPROTO_IPV4, _IPV6, _INET */
	char name[SL_NFT_OTHERS_NAME];
	bool is_dormant;
	struct sl_nft_others_chain *chains; /* by name */
	size_t n;
	size_t cap;
	struct sl_nft_others_set *sets; /* by name */
	size_t n_sets;
	size_t cap_sets;
};

struct sl_nft_others {
	struct sl_nft_others_table *tables;
	size_t n;
	size_t cap;
	size_t n_rules;
};

#define SL_NFT_OTHERS_RULES 200000 /* more are not looked at: -E2BIG */
#define SL_NFT_OTHERS_MEMBERS 4096 /* of a set; more are not read */

/* All but the table `inet ours`. -EINTR: they changed meanwhile, ask again. */
SL_MUST_CHECK int sl_nft_others_read(struct sl_nft_socket *s, const char *ours,
				     struct sl_nft_others **ret);
void sl_nft_others_free(struct sl_nft_others *o); /* NULL is fine */
SL_DEFINE_CLEANUP(struct sl_nft_others, sl_nft_others_free);

/* NULL: none of that name. */
const struct sl_nft_others_chain *sl_nft_others_find_chain(const struct sl_nft_others_table *t,
							   const char *name);
const struct sl_nft_others_set *sl_nft_others_find_set(const struct sl_nft_others_table *t,
						       const char *name);

#endif
