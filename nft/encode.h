/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_NFT_ENCODE_H
#define SL_NFT_ENCODE_H

#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "nft/diff.h"
#include "nft/ruleset.h"

/* A transaction as bytes: one batch, to be sent by one sendmsg(). */

struct sl_nft_message {
	uint32_t offset; /* in the batch */
	uint32_t len;
	size_t op; /* the first operation it carries, and how many: elements share messages */
	size_t n_ops;
};

struct sl_nft_batch {
	uint8_t *buf;
	size_t len;
	size_t cap;
	struct sl_nft_message *messages; /* number i has the sequence number seq + 1 + i */
	size_t n;
	size_t cap_messages;
	uint32_t seq; /* of the beginning */
	bool oom;
};

void sl_nft_batch_done(struct sl_nft_batch *b);

struct sl_nft_encode {
	const char *table;
	const struct sl_nft_ruleset *installed; /* may be NULL */
	const struct sl_nft_ruleset *wanted;
	const struct sl_nft_ops *ops;
	uint32_t table_flags; /* for a table that is made */
	uint32_t generation;  /* the batch is refused where it is another by now */
	bool adopts;          /* the table is there, has lost its owner, and becomes ours */
};

/* Operations [from, to). -ENOMEM. */
SL_MUST_CHECK int sl_nft_encode(const struct sl_nft_encode *e, size_t from, size_t to, uint32_t seq,
				struct sl_nft_batch *ret);
/* One that deletes the table. */
SL_MUST_CHECK int sl_nft_encode_removal(const char *table, uint32_t generation, uint32_t seq,
					struct sl_nft_batch *ret);

/*
 * One that is refused in any case, and tells by which message whether the kernel knows the flags of
 * a table: the first with -EOPNOTSUPP if not, else the second.
 */
SL_MUST_CHECK int sl_nft_encode_probe(uint32_t table_flags, uint32_t generation, uint32_t seq,
				      struct sl_nft_batch *ret);

/*
 * Makes a table as `wanted` says, under a name of its own, and is refused in any case: by the last
 * message if the kernel would take it.
 */
SL_MUST_CHECK int sl_nft_encode_trial(const struct sl_nft_ruleset *wanted, uint32_t generation,
				      uint32_t seq, struct sl_nft_batch *ret);

/* The operation that the byte at `offset` of a message belongs to. */
size_t sl_nft_batch_op_at(const struct sl_nft_batch *b, const struct sl_nft_message *m,
			  uint32_t offset);

#endif
