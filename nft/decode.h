/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_NFT_DECODE_H
#define SL_NFT_DECODE_H

#include "base/cleanup.h"
#include "nft/ruleset.h"
#include "nft/socket.h"

/*
 * What the kernel holds of a table, sorted, with handles and counts. -ENOENT: there is no such
 * table; -EINTR: it changed while it was read.
 */
SL_MUST_CHECK int sl_nft_decode(struct sl_nft_socket *s, const char *table,
				struct sl_nft_ruleset **ret);

/*
 * Gives the rules of a chain the handles of those the kernel has there, in their order. -ESTALE
 * when they are not as many.
 */
SL_MUST_CHECK int sl_nft_decode_handles(struct sl_nft_socket *s, const char *table,
					struct sl_nft_chain *chain);

#endif
