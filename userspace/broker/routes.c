/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "broker/routes.h"

#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "broker/state.h"

/* Changes come in bursts. */
#define SETTLE_MS 100
/* Messages read in one turn. */
#define PER_TURN 256

/* ---- asking ---- */

struct query {
	struct nlmsghdr head;
	struct rtmsg route;
	uint8_t attrs[64];
};

static void add_ip(struct query *q, uint16_t type, const struct sl_addr *a)
{
	uint8_t ip[16];
	size_t n = sl_addr_ip_bytes(a, ip);
	struct rtattr *attr = (void *)((uint8_t *)q + NLMSG_ALIGN(q->head.nlmsg_len));

	attr->rta_type = type;
	attr->rta_len = (uint16_t)RTA_LENGTH(n);
	memcpy(RTA_DATA(attr), ip, n);
	q->head.nlmsg_len = NLMSG_ALIGN(q->head.nlmsg_len) + (uint32_t)RTA_SPACE(n);
}

static uint32_t read_oif(const struct nlmsghdr *h)
{
	const struct rtmsg *route = NLMSG_DATA(h);
	const struct rtattr *a = RTM_RTA(route);
	unsigned len = (unsigned)RTM_PAYLOAD(h);
	uint32_t oif = 0;

	for (; RTA_OK(a, len); a = RTA_NEXT(a, len))
		if (a->rta_type == RTA_OIF && RTA_PAYLOAD(a) == sizeof(oif))
			memcpy(&oif, RTA_DATA(a), sizeof(oif));
	return oif;
}

struct answer {
	_Alignas(NLMSG_ALIGNTO) uint8_t bytes[16384];
};

/* The kernel answers within send(), so the answer is there at once. */
static const struct nlmsghdr *ask(struct sl_routes *r, struct nlmsghdr *q, struct answer *a)
{
	const struct nlmsghdr *h = (const void *)a->bytes;

	q->nlmsg_seq = ++r->seq;
	q->nlmsg_flags = NLM_F_REQUEST;
	if (send(r->ask_fd, q, q->nlmsg_len, MSG_DONTWAIT) < 0)
		return NULL;
	for (int i = 0; i < 16; i++) {
		ssize_t n = recv(r->ask_fd, a->bytes, sizeof(a->bytes), MSG_DONTWAIT);

		if (n < 0 && errno == ENOBUFS)
			continue;
		if (n < 0 || !NLMSG_OK(h, (unsigned)n))
			return NULL;
		if (h->nlmsg_seq == r->seq)
			return h;
	}
	return NULL;
}

uint32_t sl_routes_ask(struct sl_routes *r, const struct sl_addr *local, const struct sl_addr *peer)
{
	size_t bits = sl_addr_family(peer) == AF_INET6 ? 128 : 32;
	struct query q = { .head = { .nlmsg_len = NLMSG_LENGTH(sizeof(struct rtmsg)),
				     .nlmsg_type = RTM_GETROUTE },
			   .route = { .rtm_family = (uint8_t)sl_addr_family(peer),
				      .rtm_dst_len = (uint8_t)bits,
				      .rtm_src_len = (uint8_t)bits } };
	const struct nlmsghdr *h;
	struct answer a;

	/* Which link is meant, the address does not say. */
	if (bits == 128 && IN6_IS_ADDR_LINKLOCAL(&peer->v6.sin6_addr))
		return 0;
	add_ip(&q, RTA_DST, peer);
	add_ip(&q, RTA_SRC, local);
	h = ask(r, &q.head, &a);
	return h && h->nlmsg_type == RTM_NEWROUTE ? read_oif(h) : 0;
}

static int read_name(const struct nlmsghdr *h, char ret[16])
{
	const struct ifinfomsg *link = NLMSG_DATA(h);
	const struct rtattr *a = IFLA_RTA(link);
	unsigned len = (unsigned)IFLA_PAYLOAD(h);

	for (; RTA_OK(a, len); a = RTA_NEXT(a, len)) {
		if (a->rta_type != IFLA_IFNAME || RTA_PAYLOAD(a) > 16)
			continue;
		memset(ret, 0, 16);
		memcpy(ret, RTA_DATA(a), RTA_PAYLOAD(a));
		ret[15] = '\0';
		return 0;
	}
	return -ENODEV;
}

int sl_routes_name(struct sl_routes *r, unsigned ifindex, char ret[16])
{
	struct {
		struct nlmsghdr head;
		struct ifinfomsg link;
	} q = { .head = { .nlmsg_len = sizeof(q), .nlmsg_type = RTM_GETLINK },
		.link = { .ifi_index = (int)ifindex } };
	struct answer a;
	const struct nlmsghdr *h = ask(r, &q.head, &a);

	return h && h->nlmsg_type == RTM_NEWLINK ? read_name(h, ret) : -ENODEV;
}

/* ---- a round through the flows ---- */

/* Many flows share a client or a backend; a pair that loses its place is asked again. */
static uint32_t route_of(struct sl_routes *r, const struct sl_packet_flow *entry)
{
	struct sl_route_memo *m;
	struct sl_addr local;
	struct sl_addr peer;
	uint32_t hash = 2166136261u;

	for (int i = 0; i < 16; i++)
		hash = ((hash ^ entry->new_daddr[i]) * 16777619u ^ entry->new_saddr[i]) * 16777619u;
	m = &r->memo[hash % SL_ROUTE_MEMOS];
	if (m->round == r->round && memcmp(m->from, entry->new_saddr, 16) == 0 &&
	    memcmp(m->to, entry->new_daddr, 16) == 0)
		return m->ifindex;
	sl_packet_addr(entry->new_saddr, entry->new_sport, &local);
	sl_packet_addr(entry->new_daddr, entry->new_dport, &peer);
	memcpy(m->from, entry->new_saddr, 16);
	memcpy(m->to, entry->new_daddr, 16);
	m->round = r->round;
	m->ifindex = sl_routes_ask(r, &local, &peer);
	return m->ifindex;
}

static void correct(struct sl_broker *b, const struct sl_packet_key *key,
		    const struct sl_packet_flow *entry)
{
	struct sl_packet_request *q = sl_packet_request(b->packet);
	struct sl_packet_key partner;
	struct sl_packet_flow back;
	uint32_t to_backend;
	uint32_t to_client;

	if (entry->from != SL_PACKET_CLIENT || entry->state != SL_PACKET_ACTIVE)
		return;
	sl_packet_partner(entry, &partner);
	if (sl_packet_look_up(b->packet, &partner, &back) < 0)
		return;
	to_backend = route_of(&b->routes, entry);
	to_client = route_of(&b->routes, &back);
	/* Without a route there is nothing better than the last one. */
	to_backend = to_backend ? to_backend : entry->ifindex;
	to_client = to_client ? to_client : back.ifindex;
	if (to_backend == entry->ifindex && to_client == back.ifindex)
		return;
	*q = (struct sl_packet_request){ .op = SL_PACKET_OP_ROUTE,
					 .conn_id = entry->conn_id,
					 .ifindex = { to_client, to_backend },
					 .key = { *key, partner } };
	if (sl_broker_run(b) == SL_PACKET_DONE)
		sl_log_conn(SL_LOG_DEBUG, entry->conn_id,
			    "packet: the route has changed, leaving through %u and %u", to_backend,
			    to_client);
}

static void settle_later(struct sl_broker *b);

static void on_slice(struct sl_task *task)
{
	struct sl_broker *b = SL_CONTAINER_OF(task, struct sl_broker, routes.task);
	struct sl_routes *r = &b->routes;
	size_t n = 0;
	int end = sl_packet_batch(b->flows_fd, &r->cursor, SL_SWEEP_SLICE, b->sweep.keys,
				  b->sweep.flows, &n);

	for (size_t i = 0; end >= 0 && i < n; i++)
		correct(b, &b->sweep.keys[i], &b->sweep.flows[i]);
	if (end == 0) {
		sl_loop_again(b->loop, task, on_slice);
		return;
	}
	r->is_walking = false;
	if (r->is_dirty)
		settle_later(b);
}

static void on_timer(struct sl_timer *timer)
{
	struct sl_broker *b = SL_CONTAINER_OF(timer, struct sl_broker, routes.timer);
	struct sl_routes *r = &b->routes;

	r->is_walking = true;
	r->is_dirty = false;
	r->round++;
	r->cursor = (struct sl_packet_cursor){ 0 };
	sl_loop_again(b->loop, &r->task, on_slice);
}

static void settle_later(struct sl_broker *b)
{
	struct sl_routes *r = &b->routes;

	r->is_dirty = true;
	if (!r->is_walking && !sl_timer_is_armed(&r->timer))
		sl_timer_start(b->loop, &r->timer, sl_loop_now_ms(b->loop) + SETTLE_MS, on_timer);
}

/* ---- changes ---- */

/* What has changed does not matter; losing messages is a change, too. */
static void on_change(struct sl_io *io, uint32_t events)
{
	struct sl_broker *b = SL_CONTAINER_OF(io, struct sl_broker, routes.io);
	uint8_t buf[8192];
	ssize_t n = 0;

	(void)events;
	for (int i = 0; i < PER_TURN && n >= 0; i++)
		n = recv(io->fd, buf, sizeof(buf), MSG_DONTWAIT | MSG_TRUNC);
	if (n < 0 && errno != EAGAIN && errno != ENOBUFS && errno != EINTR) {
		(void)sl_warn(-errno, "packet: cannot follow changes of routes any more, flows "
				      "stay on the devices they have");
		sl_io_stop(io);
	}
	settle_later(b);
}

static int open_netlink(int *ret)
{
	struct sockaddr_nl us = { .nl_family = AF_NETLINK };
	_cleanup_fd_ int fd =
		socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);

	if (fd < 0 || bind(fd, (const struct sockaddr *)&us, sizeof(us)) < 0)
		return -errno;
	*ret = SL_TAKE_FD(fd);
	return 0;
}

static int subscribe(int fd)
{
	static const int groups[] = { RTNLGRP_LINK, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE,
				      RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_RULE };

	for (size_t i = 0; i < SL_ARRAY_LEN(groups); i++)
		if (setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &groups[i],
			       sizeof(groups[i])) < 0)
			return -errno;
	return 0;
}

int sl_routes_start(struct sl_broker *b)
{
	struct sl_routes *r = &b->routes;
	int e;

	*r = (struct sl_routes){ .watch_fd = -1, .ask_fd = -1 };
	r->memo = calloc(SL_ROUTE_MEMOS, sizeof(*r->memo));
	if (!r->memo)
		return -ENOMEM;
	e = open_netlink(&r->ask_fd);
	if (e == 0)
		e = open_netlink(&r->watch_fd);
	if (e == 0)
		e = subscribe(r->watch_fd);
	if (e == 0)
		e = sl_io_start(b->loop, &r->io, r->watch_fd, SL_IO_IN, on_change);
	if (e < 0)
		sl_routes_stop(b);
	else
		settle_later(b); /* of flows of an earlier process */
	return e;
}

void sl_routes_stop(struct sl_broker *b)
{
	struct sl_routes *r = &b->routes;

	sl_io_stop(&r->io);
	sl_timer_stop(&r->timer);
	sl_task_cancel(&r->task);
	sl_closep(&r->watch_fd);
	sl_closep(&r->ask_fd);
	free(r->memo);
	r->memo = NULL;
}
