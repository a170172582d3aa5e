/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_NFT_CT_REQUEST_H
#define SL_NFT_CT_REQUEST_H

#include "base/cleanup.h"
#include "nft/ct_msg.h"

/* What we ask of the connection tracking, as messages. Nothing here sends. */

struct sl_ct_request {
	_Alignas(4) uint8_t bytes[256];
	size_t n;
};

/* Which marks: those m with (m & mask) == mark. */
struct sl_ct_marks {
	uint32_t mark;
	uint32_t mask;
};

/* The narrowest that covers base to base + n - 1; a superset, so the reader tests each mark. */
struct sl_ct_marks sl_ct_marks_cover(uint32_t base, uint32_t n);

/* How many entries there are; acknowledged. Whoever asks has the kernel load what answers. */
void sl_ct_request_count(struct sl_ct_request *q, uint32_t seq);

/* All entries with these marks, of both families. The dump also makes the kernel drop what ran out.
 */
void sl_ct_request_dump(struct sl_ct_request *q, uint32_t seq, struct sl_ct_marks marks);

/*
 * Deletes all entries with these marks; acknowledged. Without mark or mask the kernel would
 * flush the whole table, with mark 0 what belongs to others: both are refused, -EINVAL.
 */
SL_MUST_CHECK int sl_ct_request_delete_marks(struct sl_ct_request *q, uint32_t seq,
					     struct sl_ct_marks marks);

/* Deletes this one entry; acknowledged, -ENOENT when it is gone or another has its tuple. */
void sl_ct_request_delete_flow(struct sl_ct_request *q, uint32_t seq, const struct sl_ct_flow *f);

#endif
