/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "core/eligible.h"

uint32_t sl_packet_headers(bool is_ipv6)
{
	return is_ipv6 ? 60 : 40;
}

/*
 * A peer sends segments of up to `advmss` octets, options included (RFC 6691), and they leave
 * through the other side's path unchanged but for numbers.
 */
static bool fits(const struct sl_tcp_facts *from, const struct sl_tcp_facts *to)
{
	uint32_t headers = sl_packet_headers(from->is_ipv6);

	return to->pmtu >= headers && from->advmss <= to->pmtu - headers;
}

enum sl_engine_reason sl_packet_eligible(const struct sl_tcp_facts *client,
					 const struct sl_tcp_facts *backend)
{
	if (!client->is_established || !backend->is_established)
		return SL_WHY_HALF_CLOSED;
	if (client->is_ipv6 != backend->is_ipv6)
		return SL_WHY_NOT_LINUX_SUPPORTED;
	/* A peer that has negotiated them may drop segments that lack them (RFC 7323, 3.2). */
	if (client->has_timestamps != backend->has_timestamps)
		return SL_WHY_TIMESTAMPS_ONE_SIDED;
	if (client->has_sack != backend->has_sack)
		return SL_WHY_SACK_ONE_SIDED;
	if (!fits(client, backend) || !fits(backend, client))
		return SL_WHY_MSS_MISMATCH;
	return SL_WHY_ELIGIBLE;
}

int sl_packet_window_shift(const struct sl_tcp_facts *from, const struct sl_tcp_facts *to)
{
	int meant = from->has_wscale ? from->snd_wscale : 0;
	int read = to->has_wscale ? to->rcv_wscale : 0;

	return meant - read;
}
