/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "nft/ct_msg.h"

static void check_flow(const struct sl_ct_flow *f)
{
	assert((unsigned)f->kind < SL_CT_KIND_COUNT_ && (unsigned)f->tcp < SL_CT_TCP_COUNT_);
	assert(f->protocol == IPPROTO_TCP || f->protocol == IPPROTO_UDP);
	for (int d = 0; d < SL_CT_DIR_COUNT_; d++) {
		sa_family_t family = sl_addr_family(&f->tuple[d].src);

		assert(family == AF_INET || family == AF_INET6);
		assert(sl_addr_family(&f->tuple[d].dst) == family);
		assert(f->has_counts || (!f->count[d].packets && !f->count[d].bytes));
	}
	assert(f->has_timeout || f->timeout_s == 0);
}

/* Reads a copy of exactly that size, so that a sanitizer sees any overread. */
static enum sl_ct_msg parse(const uint8_t *bytes, size_t n)
{
	struct sl_ct_reply r;
	struct sl_ct_reply before;
	uint8_t *copy = malloc(n ? n : 1);
	enum sl_ct_msg what;

	assert(copy);
	if (n > 0)
		memcpy(copy, bytes, n);
	memset(&r, 0xa5, sizeof(r));
	before = r;
	what = sl_ct_msg_parse(copy, n, &r);
	if (what == SL_CT_MSG_BAD)
		assert(memcmp(&r, &before, sizeof(r)) == 0);
	else
		assert(sl_ct_msg_len(copy, n) > 0);
	if (what == SL_CT_MSG_FLOW)
		check_flow(&r.flow);
	if (what == SL_CT_MSG_ERROR)
		assert(r.error <= 0);
	free(copy);
	return what;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
	size_t at = 0;

	for (unsigned i = 0; i < 64; i++) {
		size_t len = sl_ct_msg_len(bytes + at, n - at);
		enum sl_ct_msg what = parse(bytes + at, n - at);

		assert(len <= n - at);
		if (len == 0) {
			assert(what == SL_CT_MSG_BAD);
			break;
		}
		/* what follows a message does not change it */
		assert(parse(bytes + at, len) == what);
		/* and without its last byte but padding it is none */
		if (len > 4)
			assert(parse(bytes + at, len - 4) == SL_CT_MSG_BAD);
		at += len;
	}
	return 0;
}
