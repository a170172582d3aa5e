/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BROKER_NAT_PLAN_H
#define SL_BROKER_NAT_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "conf/conf.h"
#include "nft/build.h"

/*
 * What the kernel's NAT is to do by one configuration, as flat memory that the supervisor makes of
 * it: the broker parses no file. Marks and which targets are down are the broker's to add.
 */
#define SL_NAT_TABLE 68 /* 64 bytes and the NUL */

struct sl_nat_plan {
	char table[SL_NAT_TABLE];
	uint32_t mark_base;
	bool keep_on_exit;
	bool is_draining;            /* the end of the daemon: none of the routes takes new flows */
	struct sl_nft_route *routes; /* marks are 0; all they point to is the plan's */
	size_t n_routes;
	struct sl_nft_common common;
	/* by target, in the order of the routes: asked only when, in its family, no other is left
	 */
	bool *is_backup;
	size_t n_targets;
	char (*devices)[SL_NFT_DEVICE]; /* between which flows may take the short way */
	size_t n_devices;
	void *memory; /* of everything above */
};

/*
 * Packs the routes with `engine: nftables` into a sealed memfd, which is the caller's; `deny_file`
 * is built, NULL: none. `is_draining`: no new flows, those there are go on. A plan without routes
 * takes away what an earlier one put in. -EINVAL with `why` for patterns in the file that are no
 * ranges, as 10.?.?.1.
 */
SL_MUST_CHECK int sl_nat_plan_pack(const struct sl_conf *conf, const struct sl_ip_set *deny_file,
				   bool is_draining, int *ret_fd, struct sl_str *why);
/* Whether it would have any routes. */
bool sl_nat_plan_has_routes(const struct sl_conf *conf);
/* Checks every number, name and address in it before it is used: -EBADMSG. */
SL_MUST_CHECK int sl_nat_plan_unpack(int fd, struct sl_nat_plan **ret);
void sl_nat_plan_free(struct sl_nat_plan *p); /* NULL is fine */
SL_DEFINE_CLEANUP(struct sl_nat_plan, sl_nat_plan_free);

#endif
