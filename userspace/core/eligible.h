/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CORE_ELIGIBLE_H
#define SL_CORE_ELIGIBLE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/reason.h"

/* What TCP_INFO says of one of the two sockets of a connection (linux/tcp.h). */
struct sl_tcp_facts {
	bool is_established;
	bool is_ipv6;
	bool has_timestamps;
	bool has_sack;
	bool has_ecn;
	bool has_wscale;
	uint8_t snd_wscale; /* the peer's */
	uint8_t rcv_wscale; /* ours */
	uint32_t advmss;    /* the longest segment the peer may send, as we told it */
	uint32_t pmtu;      /* of the path to the peer */
};

/* Octets of IP and TCP before what the segment size (RFC 6691) counts: options and payload. */
uint32_t sl_packet_headers(bool is_ipv6);

/*
 * Whether the packets of the two connections can be rewritten into each other:
 * SL_WHY_ELIGIBLE, or why not. Each side must be allowed no longer segment than the path to the
 * other carries; options that one side has not negotiated cannot be taken out of segments.
 */
enum sl_engine_reason sl_packet_eligible(const struct sl_tcp_facts *client,
					 const struct sl_tcp_facts *backend);

/*
 * By how many bits the window field of packets from `from` is shifted left, so that `to` reads in
 * it, by the scale we announced to it, what `from` means (RFC 7323, 2.3); below 0: right.
 */
int sl_packet_window_shift(const struct sl_tcp_facts *from, const struct sl_tcp_facts *to);

#endif
