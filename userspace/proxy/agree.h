/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_PROXY_AGREE_H
#define SL_PROXY_AGREE_H

#include <stdbool.h>
#include <stdint.h>

/*
 * Whether broker and records count the same connections of an engine. What begins or ends is told
 * a little later, so only a difference that stays, and is larger than what comes and goes between
 * two looks, means that a connection is known to one of them alone. Pure.
 */
#define SL_AGREE_LOOKS 6 /* in a row, about a second apart */

struct sl_agree {
	uint64_t records; /* of the last look */
	uint64_t known;   /* to the broker */
	uint64_t moved;   /* begun and ended so far */
	unsigned n;       /* looks in a row at which they differed the same way */
	bool is_off;
};

/* True: from now on they differ. */
bool sl_agree_look(struct sl_agree *a, uint64_t records, uint64_t known, uint64_t moved,
		   unsigned looks);
/* There is nothing to compare with. */
void sl_agree_forget(struct sl_agree *a);

#endif
