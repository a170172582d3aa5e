/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_NFT_LINKS_H
#define SL_NFT_LINKS_H

#include <stdbool.h>

#include "base/cleanup.h"
#include "nft/ruleset.h"

/* The interfaces of the network namespace in which it was opened. One thread. */
struct sl_nft_links;

SL_MUST_CHECK int sl_nft_links_open(struct sl_nft_links **ret);
void sl_nft_links_close(struct sl_nft_links *l); /* NULL is fine */

/* Readable when interfaces come, go or change. Not to be read or closed by the caller. */
int sl_nft_links_fd(const struct sl_nft_links *l);
/* Empties it, without waiting: whether one of these may have come or gone. */
bool sl_nft_links_read(struct sl_nft_links *l, char (*names)[SL_NFT_DEVICE], size_t n);

/* 1: there is one of that name; 0: none; -errno. Waits for the kernel, 5 s at most. */
SL_MUST_CHECK int sl_nft_links_has(struct sl_nft_links *l, const char *name);

#endif
