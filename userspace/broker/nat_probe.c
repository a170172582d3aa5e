/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "broker/nat_probe.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define TCP_LEN 20
#define IP4_LEN 20
#define IP6_LEN 40
#define TTL 64
#define FLAG_ACK 0x10

static void put16(uint8_t *at, uint32_t v)
{
	at[0] = (uint8_t)(v >> 8);
	at[1] = (uint8_t)v;
}

/* RFC 1071; both lengths of use here are even. */
static uint32_t sum(uint32_t so_far, const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i += 2)
		so_far += (uint32_t)p[i] << 8 | p[i + 1];
	return so_far;
}

static uint32_t fold(uint32_t s)
{
	while (s >> 16)
		s = (s & 0xffff) + (s >> 16);
	return ~s & 0xffff;
}

/* Numbers and window are 0: the one in four thousand million that fits is harmless, too. */
static void write_tcp(const struct sl_addr *from, const struct sl_addr *to, const uint8_t *ips,
		      size_t n_ips, uint8_t *tcp)
{
	put16(tcp, sl_addr_port(from));
	put16(tcp + 2, sl_addr_port(to));
	tcp[12] = TCP_LEN / 4 << 4;
	tcp[13] = FLAG_ACK;
	put16(tcp + 16, fold(sum(sum(IPPROTO_TCP + TCP_LEN, ips, n_ips), tcp, TCP_LEN)));
}

size_t sl_nat_probe_write(const struct sl_addr *from, const struct sl_addr *to,
			  uint8_t ret[SL_NAT_PROBE_MAX])
{
	memset(ret, 0, SL_NAT_PROBE_MAX);
	if (sl_addr_family(to) == AF_INET) {
		ret[0] = 0x45;
		put16(ret + 2, IP4_LEN + TCP_LEN);
		ret[8] = TTL;
		ret[9] = IPPROTO_TCP;
		memcpy(ret + 12, &from->v4.sin_addr, 4);
		memcpy(ret + 16, &to->v4.sin_addr, 4);
		put16(ret + 10, fold(sum(0, ret, IP4_LEN)));
		write_tcp(from, to, ret + 12, 8, ret + IP4_LEN);
		return IP4_LEN + TCP_LEN;
	}
	ret[0] = 0x60;
	put16(ret + 4, TCP_LEN);
	ret[6] = IPPROTO_TCP;
	ret[7] = TTL;
	memcpy(ret + 8, &from->v6.sin6_addr, 16);
	memcpy(ret + 24, &to->v6.sin6_addr, 16);
	write_tcp(from, to, ret + 8, 32, ret + IP6_LEN);
	return IP6_LEN + TCP_LEN;
}

static int open_raw(int family)
{
	return socket(family, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_RAW);
}

void sl_nat_probe_open(struct sl_nat_probe *p)
{
	p->fd4 = open_raw(AF_INET);
	p->fd6 = open_raw(AF_INET6);
	sl_conntrack_init(&p->conntrack);
}

void sl_nat_probe_close(struct sl_nat_probe *p)
{
	if (p->fd4 >= 0)
		(void)close(p->fd4);
	if (p->fd6 >= 0)
		(void)close(p->fd6);
	p->fd4 = p->fd6 = -1;
	sl_conntrack_done(&p->conntrack);
}

static void send_probe(struct sl_nat_probe *p, const struct sl_addr *from, const struct sl_addr *to)
{
	struct sl_addr dest = *to;
	uint8_t packet[SL_NAT_PROBE_MAX];
	size_t n = sl_nat_probe_write(from, to, packet);
	int fd = sl_addr_family(to) == AF_INET ? p->fd4 : p->fd6;

	if (fd < 0)
		return;
	sl_addr_set_port(&dest, 0); /* or raw sockets of IPv6 refuse it */
	/* one that is lost leaves the peer to its next packet */
	(void)sendto(fd, packet, n, MSG_DONTWAIT | MSG_NOSIGNAL, &dest.sa, sl_addr_len(&dest));
	sl_conntrack_delete(&p->conntrack, false, from, to);
}

void sl_nat_probe_flow(struct sl_nat_probe *p, const struct sl_ct_flow *flow)
{
	const struct sl_ct_tuple *client = &flow->tuple[SL_CT_ORIG];
	const struct sl_ct_tuple *target = &flow->tuple[SL_CT_REPLY];

	if (flow->protocol != IPPROTO_TCP)
		return;
	sl_conntrack_check(&p->conntrack); /* it may have been loaded since */
	send_probe(p, &client->dst, &client->src);
	send_probe(p, &target->dst, &target->src);
}
