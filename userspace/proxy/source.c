/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "proxy/source.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/siphash.h"
#include "core/eligible.h"
#include "io/sock.h"
#include "proxy/conn.h"
#include "proxy/handover.h"
#include "proxy/listener.h"
#include "proxy/worker.h"

#define SLOTS 256
/* How long what the kernel said of a route is believed. */
#define FRESH_MS 1000
#define PORT_TRIES 8
/* Of 256: when fewer than a quarter of the ports are free, connections leave from others. */
#define SCARCE 192

/* How packets reach a backend. */
struct source {
	struct sl_addr to;
	struct sl_addr from;
	uint32_t mtu;
	uint64_t until_ms;
	uint32_t next; /* port to try, counted from the first of the range */
	uint8_t taken; /* of 256: how many of the ports looked at were in use, smoothed */
};

/* How packets reach a client. */
struct path {
	struct sl_addr to; /* the port does not count */
	uint32_t mtu;
	uint64_t until_ms;
};

struct sl_sources {
	struct source slot[SLOTS];
	struct path path[SLOTS];
};

int sl_sources_new(struct sl_sources **ret)
{
	struct sl_sources *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	*ret = s;
	return 0;
}

void sl_sources_free(struct sl_sources *s)
{
	free(s);
}

static uint32_t mtu_of(int fd, sa_family_t family)
{
	int mtu = 0;
	socklen_t len = sizeof(mtu);
	int r = family == AF_INET ? getsockopt(fd, IPPROTO_IP, IP_MTU, &mtu, &len)
				  : getsockopt(fd, IPPROTO_IPV6, IPV6_MTU, &mtu, &len);

	return r == 0 && mtu > 0 ? (uint32_t)mtu : 0;
}

/* The kernel's choice of route and source address, without a packet. */
static bool ask_kernel(struct source *s)
{
	_cleanup_fd_ int fd = socket(sl_addr_family(&s->to), SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || connect(fd, &s->to.sa, sl_addr_len(&s->to)) < 0 ||
	    sl_sock_local(fd, &s->from) < 0)
		return false;
	s->mtu = mtu_of(fd, sl_addr_family(&s->to));
	return true;
}

uint32_t sl_source_mss(const struct sl_addr *to)
{
	struct source s = { .to = *to };

	return ask_kernel(&s) && s.mtu ? s.mtu - sl_packet_headers(sl_addr_family(to) == AF_INET6)
				       : 0;
}

static struct source *find(struct sl_worker *w, const struct sl_addr *to)
{
	static const uint8_t key[16] = "source";
	uint8_t ip[18];
	size_t n = sl_addr_ip_bytes(to, ip);
	uint16_t port = sl_addr_port(to);
	uint64_t now_ms = sl_loop_now_ms(w->loop);
	struct source *s;

	memcpy(ip + n, &port, sizeof(port));
	s = &w->sources->slot[sl_siphash(ip, n + sizeof(port), key) % SLOTS];
	if (!sl_addr_is_equal(&s->to, to))
		*s = (struct source){ .to = *to,
				      .next = (uint32_t)sl_rand_below(&w->rand, UINT16_MAX) };
	if (s->until_ms <= now_ms) {
		if (!ask_kernel(s))
			return NULL;
		s->until_ms = now_ms + FRESH_MS;
	}
	return s;
}

/* Workers share the range by taking every n-th port. */
static uint16_t next_port(struct source *s, const struct sl_worker *w,
			  const struct sl_conf_packet *conf)
{
	uint32_t n = (conf->port_to - conf->port_from + 1u) / w->port_step;

	if (n == 0) /* more workers than ports: which one is first is found out by trying */
		return (uint16_t)(conf->port_from +
				  s->next++ % (conf->port_to - conf->port_from + 1u));
	return (uint16_t)(conf->port_from + (s->next++ % n) * w->port_step + w->index);
}

/* A port that no flow of the kernel has towards this backend; 0: none among those looked at. */
static uint16_t free_port(struct source *s, struct sl_worker *w, const struct sl_conf_packet *conf)
{
	struct sl_addr from = s->from;

	for (int i = 0; i < PORT_TRIES; i++) {
		uint16_t port = next_port(s, w, conf);
		bool is_free;

		sl_addr_set_port(&from, port);
		is_free = sl_broker_is_free(sl_handovers_client(w->handovers), &from, &s->to);
		s->taken = (uint8_t)(s->taken - s->taken / 16 + (is_free ? 0 : 15));
		if (s->taken > SCARCE)
			return 0;
		if (is_free)
			return port;
	}
	return 0;
}

/* Of the next who come from the same address the socket is not asked again. */
static uint32_t client_mtu(const struct sl_conn *c)
{
	static const uint8_t key[16] = "path";
	const struct sl_addr *peer = sl_addr_family(&c->via) ? &c->via : &c->client;
	uint64_t now_ms = sl_loop_now_ms(c->worker->loop);
	uint8_t ip[16];
	size_t n = sl_addr_ip_bytes(peer, ip);
	struct path *p = &c->worker->sources->path[sl_siphash(ip, n, key) % SLOTS];

	if (now_ms >= p->until_ms || !sl_addr_same_ip(&p->to, peer))
		*p = (struct path){ .to = *peer,
				    .mtu = mtu_of(c->side[SL_CLIENT].io.fd, sl_addr_family(peer)),
				    .until_ms = now_ms + FRESH_MS };
	return p->mtu;
}

/*
 * Once handed over, segments of one side travel the other side's path. The backend is told of no
 * longer ones than the client's path carries; of future clients, none longer than this backend's
 * does.
 */
static void fit_segments(struct sl_conn *c, int fd, const struct source *s)
{
	uint32_t headers = sl_packet_headers(sl_addr_family(&s->to) == AF_INET6);
	uint32_t mtu = client_mtu(c);
	int mss = (int)(mtu - headers);

	if (mtu == 0 || s->mtu == 0)
		return;
	if (mtu < s->mtu)
		(void)setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &mss, sizeof(mss));
	else if (s->mtu < mtu)
		sl_listener_clamp(c->worker, c->port, s->mtu - headers);
}

bool sl_source_bind(struct sl_conn *c, int fd, bool may_move)
{
	const struct sl_conf_packet *conf = &c->gen->conf->global.packet;
	struct sl_worker *w = c->worker;
	struct source *s = find(w, &c->backend);
	struct sl_addr from;
	uint16_t port = s ? free_port(s, w, conf) : 0;
	const int on = 1;

	if (port == 0)
		return false;
	if (may_move)
		fit_segments(c, fd, s);
	from = s->from;
	sl_addr_set_port(&from, port);
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	return bind(fd, &from.sa, sl_addr_len(&from)) == 0;
}
