/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_NFT_TABLE_H
#define SL_NFT_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "nft/build.h"
#include "nft/ruleset.h"

/*
 * The table `inet NAME` of the network namespace in which it was opened. One thread.
 * Opening changes nothing in the kernel, and neither does closing: the table stays, unless
 * it is removed. Calls wait for the kernel (each answer 5 s at most, then -ETIMEDOUT); a
 * transaction takes microseconds to some hundred milliseconds.
 *
 * Where the kernel can (6.9 and later) the table belongs to the one who opened it: others' "flush
 * ruleset" passes it over, and it outlives its owner, without one. Elsewhere the watch
 * tells of what others do to it, and sl_nft_table_apply() makes it right again.
 */
struct sl_nft_table;

/*
 * -EPERM: without CAP_NET_ADMIN; -EOPNOTSUPP: the kernel has no nf_tables. `name` is copied; at
 * most 64 bytes (-EINVAL).
 */
SL_MUST_CHECK int sl_nft_table_open(const char *name, struct sl_nft_table **ret);
void sl_nft_table_close(struct sl_nft_table *t);
SL_DEFINE_CLEANUP(struct sl_nft_table, sl_nft_table_close);

/*
 * What the kernel holds; the caller owns it. -ENOENT: no such table. -EAGAIN: others change the
 * kernel's rules faster than they can be read.
 */
SL_MUST_CHECK int sl_nft_table_read(struct sl_nft_table *t, struct sl_nft_ruleset **ret);

struct sl_nft_report {
	size_t n_added; /* operations that took effect: elements, rules, sets, chains, counters */
	size_t n_removed;
	unsigned n_batches;
	unsigned n_retries; /* others changed the kernel's rules meanwhile
			     */
	bool is_replaced; /* the whole table: it had a form of another version, or foreign things */
	bool is_adopted;  /* it was there, without an owner, and is ours now */
	bool is_owned;    /* the kernel keeps others from changing it */
	uint64_t kernel_us; /* inside the kernel, of all batches */
	/* of a failure: */
	bool is_offload;  /* what sl_nft_put_offload() added is why: without it, it may succeed */
	char route[72];   /* whose object was refused; empty: none's */
	char object[160]; /* which: "element of 'any4'", "rule of chain 'policy_7'" */
	char text[400];   /* all of it as one line, for the log */
};

/*
 * What a call of sl_nft_table_apply() found different, in words: "element tcp . 8080 : 0x00000002
 * of map any4 (web)". Of an object that was missing `found` is empty, of one too many `wanted` is.
 */
#define SL_NFT_CHANGES 24
struct sl_nft_change {
	char wanted[160];
	char found[160];
};
struct sl_nft_changes {
	size_t n; /* all of them; those described come first */
	struct sl_nft_change item[SL_NFT_CHANGES];
};
/* What later calls change is told there, from now on; NULL: to nobody. Borrowed. */
void sl_nft_table_tell_changes(struct sl_nft_table *t, struct sl_nft_changes *to);

/*
 * Makes the table hold `*wanted`, of sl_nft_build(), with the least change, and takes it over
 * (`*wanted` is NULL then). On failure nothing of it took effect and `*wanted` stays the
 * caller's; only a first load of more than SL_NFT_BATCH_OPS operations, which takes several
 * batches, may leave a table that nothing leads into, and tries to remove it.
 *
 *   -EBUSY    the table belongs to another process
 *   -EEXIST   a table of that name is there which is not of this program; or, with `report->route`,
 *             something that the kernel has already, as port ranges that overlap
 *   -EPERM    no CAP_NET_ADMIN (any more), or another process has become the owner
 *   -EAGAIN   others changed the kernel's rules each time
 *   others    the kernel's refusal of `report->object` of `report->route`
 */
#define SL_NFT_BATCH_OPS 100000
SL_MUST_CHECK int sl_nft_table_apply(struct sl_nft_table *t, struct sl_nft_ruleset **wanted,
				     struct sl_nft_report *report);

/*
 * Deletes it. 0 also when there is none; -EEXIST and -EBUSY as above. Flows of a table that is
 * gone lose their translation: their entries of conntrack should be deleted after it.
 */
SL_MUST_CHECK int sl_nft_table_remove(struct sl_nft_table *t, struct sl_nft_report *report);

/* What the kernel holds is read anew the next time: an interface that goes makes no generation. */
void sl_nft_table_forget(struct sl_nft_table *t);

/*
 * Whether the kernel has flow tables: an attempt that leaves nothing behind, and has it load what
 * it may have to load. -EOPNOTSUPP with `why`: no.
 */
SL_MUST_CHECK int sl_nft_table_try_offload(struct sl_nft_table *t, struct sl_str *why);

/*
 * Readable when somebody changed some table of the namespace; never on our own account. Not to be
 * read or closed by the caller.
 */
int sl_nft_table_watch_fd(const struct sl_nft_table *t);

/*
 * Empties it, without waiting. 1: somebody else changed this table, or may have (notifications
 * were lost): apply again what is wanted, which does nothing when nothing is amiss. 0: not this
 * one.
 */
SL_MUST_CHECK int sl_nft_table_watch_read(struct sl_nft_table *t);

#endif
