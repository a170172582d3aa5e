/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_NFT_SOCKET_H
#define SL_NFT_SOCKET_H

#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "nft/encode.h"

struct mnl_socket;
struct nlmsghdr;

/*
 * The one netlink socket of transactions. It stays open: closing it waits for the kernel to free
 * what was deleted (10 to 15 ms), and a table that belongs to it would lose its owner.
 * Each wait for an answer has an end (-ETIMEDOUT).
 */
struct sl_nft_socket {
	struct mnl_socket *nl;
	uint32_t seq;
	uint32_t port; /* netlink's name of the socket */
	uint8_t *buf;
	size_t size;
};

/* In the network namespace of now. */
SL_MUST_CHECK int sl_nft_socket_open(struct sl_nft_socket *ret);
void sl_nft_socket_done(struct sl_nft_socket *s);

SL_MUST_CHECK int sl_nft_socket_generation(struct sl_nft_socket *s, uint32_t *ret);

/*
 * Sends a request of type `type` (NFT_MSG_GET*) that names `table` and, unless NULL, one thing in
 * it (`attr` says what), and hands each answer to `fn`, which ends the reading by not
 * returning 0. `is_dump`: everything there is. -EINTR: what was read changed meanwhile.
 */
typedef int (*sl_nft_answer_fn)(const struct nlmsghdr *nlh, void *arg);
struct sl_nft_request {
	uint16_t type;
	bool is_dump;
	uint8_t family; /* NFPROTO_*; 0: inet */
	const char *table;
	uint16_t attr;
	const char *name;
};
SL_MUST_CHECK int sl_nft_socket_ask(struct sl_nft_socket *s, const struct sl_nft_request *q,
				    sl_nft_answer_fn fn, void *arg);

/* Why a batch was refused. */
struct sl_nft_fault {
	size_t message;  /* index in the batch; SIZE_MAX: none of them */
	uint32_t offset; /* of the attribute that the kernel complains about; 0: not said */
	size_t n_faults; /* the kernel goes on after the first, which is the one described */
	char text[128];  /* the kernel's words, or empty */
};

/*
 * All or nothing. -ERESTART: the generation is not that of the batch; otherwise the error of the
 * first message that was refused. `b->seq` must come from sl_nft_socket_seq().
 */
SL_MUST_CHECK int sl_nft_socket_commit(struct sl_nft_socket *s, const struct sl_nft_batch *b,
				       struct sl_nft_fault *fault);
uint32_t sl_nft_socket_seq(struct sl_nft_socket *s);

#endif
