/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_NFT_CT_MSG_H
#define SL_NFT_CT_MSG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"

/*
 * One message of the kernel's connection tracking (ctnetlink), read from bytes. Pure: no system
 * call, no allocation, nothing is read past the length given, whatever the bytes are.
 */

enum sl_ct_kind {
	SL_CT_NEW = 0,
	SL_CT_UPDATE,
	SL_CT_DESTROY,
	SL_CT_DUMPED, /* part of an answer to a dump */
	SL_CT_KIND_COUNT_,
};

/* enum tcp_conntrack of linux/netfilter/nf_conntrack_tcp.h; its values are the kernel's ABI. */
enum sl_ct_tcp {
	SL_CT_TCP_NONE = 0, /* not TCP, or not said */
	SL_CT_TCP_SYN_SENT,
	SL_CT_TCP_SYN_RECV,
	SL_CT_TCP_ESTABLISHED,
	SL_CT_TCP_FIN_WAIT,
	SL_CT_TCP_CLOSE_WAIT,
	SL_CT_TCP_LAST_ACK,
	SL_CT_TCP_TIME_WAIT,
	SL_CT_TCP_CLOSE, /* a RST was seen */
	SL_CT_TCP_SYN_SENT2,
	SL_CT_TCP_COUNT_,
};

/* Directions as connection tracking has them: the one of the first packet, and the answers. */
enum sl_ct_dir {
	SL_CT_ORIG = 0,
	SL_CT_REPLY,
	SL_CT_DIR_COUNT_,
};

struct sl_ct_tuple {
	struct sl_addr src;
	struct sl_addr dst;
};

struct sl_ct_count {
	uint64_t packets;
	uint64_t bytes; /* of the network layer: IP headers included */
};

/* The target chosen is tuple[SL_CT_REPLY].src. */
struct sl_ct_flow {
	enum sl_ct_kind kind;
	struct sl_ct_tuple tuple[SL_CT_DIR_COUNT_];
	uint8_t protocol; /* IPPROTO_TCP or IPPROTO_UDP */
	uint16_t zone;
	uint32_t id; /* unique among the entries that exist; made by a keyed hash of the kernel */
	uint32_t mark;
	uint32_t status; /* IPS_ bits of linux/netfilter/nf_conntrack_common.h */
	enum sl_ct_tcp tcp;
	bool has_timeout; /* in a DESTROY: it was taken out before its time */
	uint32_t timeout_s;
	bool has_counts; /* never in a NEW */
	struct sl_ct_count count[SL_CT_DIR_COUNT_];
	uint64_t start_ns; /* since 1970; 0: not said */
	uint64_t stop_ns;  /* when the entry ran out, or was taken out; 0: not said */
};

enum sl_ct_msg {
	SL_CT_MSG_FLOW = 0,
	SL_CT_MSG_DONE,  /* end of a dump */
	SL_CT_MSG_ERROR, /* or its acknowledgement: `error` is 0 */
	SL_CT_MSG_OTHER, /* nothing of ours: another subsystem, neither TCP nor UDP */
	SL_CT_MSG_BAD,
};

struct sl_ct_reply {
	uint32_t seq;
	int error;              /* with ERROR: 0 or -errno */
	struct sl_ct_flow flow; /* with FLOW */
};

/* Length of the first message including its padding, at most `n`; 0: it is cut off or malformed. */
size_t sl_ct_msg_len(const void *bytes, size_t n);

/* The first message of `bytes`. `ret` is written unless BAD; `flow` only with FLOW. */
enum sl_ct_msg sl_ct_msg_parse(const void *bytes, size_t n, struct sl_ct_reply *ret);

#endif
