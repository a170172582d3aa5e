/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BROKER_NFT_ROUTES_H
#define SL_BROKER_NFT_ROUTES_H

#include "base/cleanup.h"
#include "base/str.h"
#include "conf/conf.h"
#include "nft/build.h"

/*
 * What the kernel's NAT is to do, from the configuration. Pure: the same input gives the same
 * routes, and applying them again changes nothing (nft/table.h).
 */
struct sl_nft_routes {
	struct sl_nft_route *item; /* the enabled routes with `engine: nftables`, in file order */
	size_t n;
	/* what they point to, beside the configuration */
	struct sl_nft_listener *listeners;
	size_t n_listeners;
	struct sl_nft_target *targets; /* in the order of the routes */
	bool *is_backup;               /* of each */
	size_t n_targets;
	struct sl_nft_common common;
	/* owned: where `common.lists` needs more than one list has; NULL: it does not */
	struct sl_ip_set *denied;
};
void sl_nft_routes_done(struct sl_nft_routes *r);

/* Whether the kernel's NAT is to carry it: it is enabled, and names the engine. */
bool sl_nft_is_carried(const struct sl_conf_route *r);

/*
 * `conf` has been checked by sl_conf_build(); `deny_file` is built, NULL: none. Both must outlive
 * what is made of them, whose marks are 0, and in which no target is down.
 *
 * The global lists and the file go with them, because NAT comes before what else would ask
 * them. -EINVAL with `why` for patterns in the file that are no ranges, as 10.?.?.1;
 * -ENOMEM.
 */
SL_MUST_CHECK int sl_nft_routes_make(const struct sl_conf *conf, const struct sl_ip_set *deny_file,
				     struct sl_nft_routes *ret, struct sl_str *why);

/*
 * A copy of a route's targets as they count now. `is_backup` and `is_down` are of these targets;
 * is_down NULL: none is. Backups have no weight while, in their family, another target is left.
 * `ret` has room for them.
 */
void sl_nft_settle_targets(const struct sl_nft_route *route, const bool *is_backup,
			   const bool *is_down, struct sl_nft_target *ret);

#endif
