/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BROKER_NFT_ROUTES_H
#define SL_BROKER_NFT_ROUTES_H

#include "base/cleanup.h"
#include "base/str.h"
#include "conf/conf.h"
#include "nft/build.h"

/*
 * What the kernel's NAT is to do, from the configuration and from what is known of targets. Pure:
 * the same input gives the same routes, so it is made anew whenever one of them changes, and
 * applying it again changes nothing (nft/table.h).
 */
struct sl_nft_routes {
	struct sl_nft_route *item; /* the enabled routes with `engine: nftables`, in file order */
	size_t n;
	/* what they point to, beside the configuration */
	struct sl_nft_listener *listeners;
	struct sl_nft_target *targets;
	struct sl_ip_set *sets; /* each owned */
	size_t n_sets;
};
void sl_nft_routes_done(struct sl_nft_routes *r);

/* Whether health checks have taken a target out; both texts as in the configuration. */
typedef bool (*sl_nft_is_down_fn)(void *arg, const char *route, const char *target);

/*
 * `conf` has been checked by sl_conf_build(); `deny_file` is built, NULL: none; `is_down` NULL: no
 * target is. All must outlive what is made of them, whose marks are 0: see sl_nft_routes_number().
 *
 * The global lists and the file become part of each route, because NAT comes before
 * what else would ask them. Backups have no weight while, in their family, another target is
 * left. -EINVAL with `why` for patterns in the file that are no ranges, as 10.?.?.1; -ENOMEM.
 */
SL_MUST_CHECK int sl_nft_routes_make(const struct sl_conf *conf, const struct sl_ip_set *deny_file,
				     sl_nft_is_down_fn is_down, void *arg,
				     struct sl_nft_routes *ret, struct sl_str *why);

/*
 * Gives each the mark that a route of its name has in `installed` (NULL: none), else one above
 * `base` that is free there (nft/numbers.h). -ENOSPC: none is left; -ENOMEM.
 */
SL_MUST_CHECK int sl_nft_routes_number(struct sl_nft_routes *r,
				       const struct sl_nft_ruleset *installed, uint32_t base);

#endif
