/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "broker/conntrack.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/netlink.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"

/* Unsigned, unlike NLA_HDRLEN. */
#define ATTR_HEAD ((sizeof(struct nlattr) + 3) & ~(size_t)3)
#define PRESENT "/proc/sys/net/netfilter/nf_conntrack_count"

struct request {
	struct nlmsghdr head;
	struct nfgenmsg gen;
	uint8_t attrs[128];
};

struct answer {
	_Alignas(NLMSG_ALIGNTO) uint8_t bytes[4096];
	size_t n;
};

/* ---- attributes ---- */

static struct nlattr *add_attr(struct request *q, uint16_t type, const void *bytes, size_t n)
{
	struct nlattr *a = (void *)((uint8_t *)q + NLMSG_ALIGN(q->head.nlmsg_len));

	a->nla_type = type;
	a->nla_len = (uint16_t)(ATTR_HEAD + n);
	if (n)
		memcpy((uint8_t *)a + ATTR_HEAD, bytes, n);
	q->head.nlmsg_len += (uint32_t)NLA_ALIGN(a->nla_len);
	return a;
}

static struct nlattr *open_nest(struct request *q, uint16_t type)
{
	return add_attr(q, type | NLA_F_NESTED, NULL, 0);
}

static void close_nest(const struct request *q, struct nlattr *a)
{
	a->nla_len = (uint16_t)((const uint8_t *)q + q->head.nlmsg_len - (uint8_t *)a);
}

static void add_ips(struct request *q, const struct sl_addr *src, const struct sl_addr *dst)
{
	struct nlattr *nest = open_nest(q, CTA_TUPLE_IP);
	bool is_v6 = sl_addr_family(src) == AF_INET6;
	uint8_t ip[16];
	size_t n;

	n = sl_addr_ip_bytes(src, ip);
	(void)add_attr(q, is_v6 ? CTA_IP_V6_SRC : CTA_IP_V4_SRC, ip, n);
	n = sl_addr_ip_bytes(dst, ip);
	(void)add_attr(q, is_v6 ? CTA_IP_V6_DST : CTA_IP_V4_DST, ip, n);
	close_nest(q, nest);
}

static void add_ports(struct request *q, const struct sl_addr *src, const struct sl_addr *dst)
{
	struct nlattr *nest = open_nest(q, CTA_TUPLE_PROTO);
	uint16_t sport = htons(sl_addr_port(src));
	uint16_t dport = htons(sl_addr_port(dst));
	uint8_t proto = IPPROTO_TCP;

	(void)add_attr(q, CTA_PROTO_NUM, &proto, sizeof(proto));
	(void)add_attr(q, CTA_PROTO_SRC_PORT, &sport, sizeof(sport));
	(void)add_attr(q, CTA_PROTO_DST_PORT, &dport, sizeof(dport));
	close_nest(q, nest);
}

/*
 * What we send is the original direction of what we connected, and the reply of what we accepted:
 * those are the tuples a translation elsewhere in the entry does not change.
 */
static void make_request(struct request *q, uint16_t type, bool is_accepted,
			 const struct sl_addr *local, const struct sl_addr *peer)
{
	struct nlattr *nest;

	*q = (struct request){
		.head = { .nlmsg_len = NLMSG_LENGTH(sizeof(struct nfgenmsg)),
			  .nlmsg_type = (uint16_t)(NFNL_SUBSYS_CTNETLINK << 8 | type),
			  .nlmsg_flags = NLM_F_REQUEST },
		.gen = { .nfgen_family = (uint8_t)sl_addr_family(local), .version = NFNETLINK_V0 },
	};
	nest = open_nest(q, is_accepted ? CTA_TUPLE_REPLY : CTA_TUPLE_ORIG);
	add_ips(q, local, peer);
	add_ports(q, local, peer);
	close_nest(q, nest);
}

/* ---- socket ---- */

void sl_conntrack_init(struct sl_conntrack *ct)
{
	*ct = (struct sl_conntrack){ .fd = -1, .count_fd = -1 };
	sl_conntrack_check(ct);
}

void sl_conntrack_done(struct sl_conntrack *ct)
{
	sl_closep(&ct->fd);
	sl_closep(&ct->count_fd);
}

void sl_conntrack_check(struct sl_conntrack *ct)
{
	_cleanup_fd_ int fd = -1;
	struct sockaddr_nl us = { .nl_family = AF_NETLINK };
	int one = 1;

	if (ct->fd >= 0 || access(PRESENT, F_OK) < 0)
		return;
	fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_NETFILTER);
	if (fd < 0 || bind(fd, (const struct sockaddr *)&us, sizeof(us)) < 0) {
		sl_debug("packet: connection tracking is there, but cannot be asked (%s)",
			 strerror(errno));
		return;
	}
	(void)setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &one, sizeof(one));
	ct->fd = SL_TAKE_FD(fd);
	ct->count_fd = open(PRESENT, O_RDONLY | O_CLOEXEC);
}

bool sl_conntrack_is_idle(const struct sl_conntrack *ct)
{
	char first = '1';

	if (ct->fd < 0)
		return true;
	return ct->count_fd >= 0 && pread(ct->count_fd, &first, 1, 0) == 1 && first == '0';
}

/* The kernel answers within send(), so what is there is there at once. */
static void receive(struct sl_conntrack *ct, struct answer *ret)
{
	struct answer a;

	ret->n = 0;
	for (int i = 0; i < 16; i++) {
		ssize_t n = recv(ct->fd, a.bytes, sizeof(a.bytes), MSG_DONTWAIT);
		const struct nlmsghdr *h = (const void *)a.bytes;

		if (n < 0 && errno == ENOBUFS)
			continue;
		if (n < (ssize_t)sizeof(*h))
			return;
		if (h->nlmsg_seq != ct->seq)
			continue;
		memcpy(ret->bytes, a.bytes, (size_t)n);
		ret->n = (size_t)n;
	}
}

static int send_request(struct sl_conntrack *ct, struct request *q)
{
	q->head.nlmsg_seq = ++ct->seq;
	return send(ct->fd, q, q->head.nlmsg_len, MSG_DONTWAIT) < 0 ? -errno : 0;
}

/* ---- what is asked ---- */

static const struct nlattr *find(const uint8_t *p, size_t n, uint16_t type)
{
	while (n >= ATTR_HEAD) {
		const struct nlattr *a = (const void *)p;
		size_t step = (size_t)NLA_ALIGN(a->nla_len);

		if (a->nla_len < ATTR_HEAD || a->nla_len > n)
			return NULL;
		if ((a->nla_type & NLA_TYPE_MASK) == type)
			return a;
		if (step >= n)
			return NULL;
		p += step;
		n -= step;
	}
	return NULL;
}

static bool says_translated(const struct answer *a)
{
	const struct nlmsghdr *h = (const void *)a->bytes;
	const size_t skip = NLMSG_LENGTH(sizeof(struct nfgenmsg));
	const struct nlattr *status;
	uint32_t bits;

	if (a->n < skip || h->nlmsg_len > a->n ||
	    h->nlmsg_type != (NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW))
		return false;
	status = find(a->bytes + skip, h->nlmsg_len - skip, CTA_STATUS);
	if (!status || status->nla_len < ATTR_HEAD + sizeof(bits))
		return false;
	memcpy(&bits, (const uint8_t *)status + ATTR_HEAD, sizeof(bits));
	return ntohl(bits) & (IPS_SRC_NAT | IPS_DST_NAT);
}

bool sl_conntrack_is_translated(struct sl_conntrack *ct, bool is_accepted,
				const struct sl_addr *local, const struct sl_addr *peer)
{
	struct request q;
	struct answer a;

	if (ct->fd < 0)
		return false;
	make_request(&q, IPCTNL_MSG_CT_GET, is_accepted, local, peer);
	if (send_request(ct, &q) < 0)
		return false;
	receive(ct, &a);
	return says_translated(&a);
}

void sl_conntrack_delete(struct sl_conntrack *ct, bool is_accepted, const struct sl_addr *local,
			 const struct sl_addr *peer)
{
	struct request q;
	struct answer a;

	if (ct->fd < 0)
		return;
	make_request(&q, IPCTNL_MSG_CT_DELETE, is_accepted, local, peer);
	if (send_request(ct, &q) == 0)
		receive(ct, &a); /* that there is none is answered, too */
}
