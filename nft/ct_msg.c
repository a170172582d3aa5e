/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "nft/ct_msg.h"

#include <endian.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/netlink.h>
#include <string.h>

/* Unsigned, unlike NLA_HDRLEN and NLMSG_HDRLEN. */
#define ATTR_HEAD ((sizeof(struct nlattr) + 3) & ~(size_t)3)
#define MSG_HEAD ((sizeof(struct nlmsghdr) + 3) & ~(size_t)3)
#define GEN_HEAD ((sizeof(struct nfgenmsg) + 3) & ~(size_t)3)

_Static_assert(CTA_PROTO_SRC_PORT == CTA_PROTO_NUM + 1 && CTA_PROTO_DST_PORT == CTA_PROTO_NUM + 2,
	       "attributes of a tuple");

struct span {
	const uint8_t *p;
	size_t n;
	bool bad; /* sticky */
};

struct attr {
	uint16_t type;
	struct span body;
};

/* ---- attributes ---- */

static bool next_attr(struct span *rest, struct attr *ret)
{
	struct nlattr head;
	size_t step;

	if (rest->bad || rest->n == 0)
		return false;
	rest->bad = rest->n < ATTR_HEAD;
	if (rest->bad)
		return false;
	memcpy(&head, rest->p, sizeof(head));
	rest->bad = head.nla_len < ATTR_HEAD || head.nla_len > rest->n;
	if (rest->bad)
		return false;
	*ret = (struct attr){
		.type = (uint16_t)(head.nla_type & (unsigned)NLA_TYPE_MASK),
		.body = { .p = rest->p + ATTR_HEAD, .n = head.nla_len - ATTR_HEAD },
	};
	step = ((size_t)head.nla_len + 3) & ~(size_t)3;
	if (step > rest->n)
		step = rest->n; /* the last one may lack its padding */
	rest->p += step;
	rest->n -= step;
	return true;
}

/* Numbers are sent in network order. Too short a value spoils the nest it is in. */
static uint64_t read_be(struct span *nest, const struct attr *a, size_t width)
{
	uint64_t v = 0;

	if (a->body.n < width) {
		nest->bad = true;
		return 0;
	}
	for (size_t i = 0; i < width; i++)
		v = v << 8 | a->body.p[i];
	return v;
}

static void read_ip(struct span *nest, const struct attr *a, struct sl_addr *ret)
{
	const bool is_v6 = a->type == CTA_IP_V6_SRC || a->type == CTA_IP_V6_DST;
	const size_t width = is_v6 ? sizeof(ret->v6.sin6_addr) : sizeof(ret->v4.sin_addr);

	if (a->body.n < width) {
		nest->bad = true;
		return;
	}
	ret->sa.sa_family = is_v6 ? AF_INET6 : AF_INET;
	if (is_v6)
		memcpy(&ret->v6.sin6_addr, a->body.p, width);
	else
		memcpy(&ret->v4.sin_addr, a->body.p, width);
}

static bool read_ips(struct span nest, struct sl_ct_tuple *t)
{
	struct attr a;

	while (next_attr(&nest, &a)) {
		if (a.type == CTA_IP_V4_SRC || a.type == CTA_IP_V6_SRC)
			read_ip(&nest, &a, &t->src);
		else if (a.type == CTA_IP_V4_DST || a.type == CTA_IP_V6_DST)
			read_ip(&nest, &a, &t->dst);
	}
	return !nest.bad && sl_addr_family(&t->src) != AF_UNSPEC &&
	       sl_addr_family(&t->src) == sl_addr_family(&t->dst);
}

/* What is not TCP or UDP has no ports; `ret_protocol` says so, and the caller leaves it alone. */
static bool read_ports(struct span nest, struct sl_ct_tuple *t, uint8_t *ret_protocol)
{
	uint16_t port[2] = { 0 };
	struct attr a;

	while (next_attr(&nest, &a)) {
		if (a.type == CTA_PROTO_NUM)
			*ret_protocol = (uint8_t)read_be(&nest, &a, 1);
		else if (a.type == CTA_PROTO_SRC_PORT || a.type == CTA_PROTO_DST_PORT)
			port[a.type - CTA_PROTO_SRC_PORT] = (uint16_t)read_be(&nest, &a, 2);
	}
	sl_addr_set_port(&t->src, port[0]);
	sl_addr_set_port(&t->dst, port[1]);
	return !nest.bad;
}

static bool read_tuple(struct span nest, struct sl_ct_tuple *ret, uint8_t *ret_protocol)
{
	struct span proto = { .bad = true };
	struct sl_ct_tuple t = { 0 };
	struct attr a;

	while (next_attr(&nest, &a)) {
		if (a.type == CTA_TUPLE_IP)
			nest.bad = !read_ips(a.body, &t);
		else if (a.type == CTA_TUPLE_PROTO)
			proto = a.body;
	}
	/* the ports go into addresses whose family is known by now */
	if (nest.bad || sl_addr_family(&t.src) == AF_UNSPEC || proto.bad ||
	    !read_ports(proto, &t, ret_protocol))
		return false;
	*ret = t;
	return true;
}

static bool read_counts(struct span nest, struct sl_ct_count *ret)
{
	struct attr a;

	while (next_attr(&nest, &a)) {
		if (a.type == CTA_COUNTERS_PACKETS)
			ret->packets = read_be(&nest, &a, 8);
		else if (a.type == CTA_COUNTERS_BYTES)
			ret->bytes = read_be(&nest, &a, 8);
	}
	return !nest.bad;
}

static bool read_times(struct span nest, struct sl_ct_flow *f)
{
	struct attr a;

	while (next_attr(&nest, &a)) {
		if (a.type == CTA_TIMESTAMP_START)
			f->start_ns = read_be(&nest, &a, 8);
		else if (a.type == CTA_TIMESTAMP_STOP)
			f->stop_ns = read_be(&nest, &a, 8);
	}
	return !nest.bad;
}

static bool read_tcp(struct span nest, enum sl_ct_tcp *ret)
{
	struct attr a;

	while (next_attr(&nest, &a)) {
		uint64_t state;

		if (a.type != CTA_PROTOINFO_TCP_STATE)
			continue;
		state = read_be(&nest, &a, 1);
		*ret = state < SL_CT_TCP_COUNT_ ? (enum sl_ct_tcp)state : SL_CT_TCP_NONE;
	}
	return !nest.bad;
}

static bool read_protoinfo(struct span nest, enum sl_ct_tcp *ret)
{
	struct attr a;

	while (next_attr(&nest, &a)) {
		if (a.type == CTA_PROTOINFO_TCP)
			nest.bad = !read_tcp(a.body, ret);
	}
	return !nest.bad;
}

/* ---- flow ---- */

/* What a flow cannot do without. */
struct found {
	bool tuple[SL_CT_DIR_COUNT_];
	bool id;
	uint8_t protocol[SL_CT_DIR_COUNT_];
};

static void read_number(struct span *rest, const struct attr *a, struct sl_ct_flow *f,
			struct found *found)
{
	switch (a->type) {
	case CTA_ID:
		f->id = (uint32_t)read_be(rest, a, 4);
		found->id = true;
		break;
	case CTA_MARK:
		f->mark = (uint32_t)read_be(rest, a, 4);
		break;
	case CTA_STATUS:
		f->status = (uint32_t)read_be(rest, a, 4);
		break;
	case CTA_TIMEOUT:
		f->timeout_s = (uint32_t)read_be(rest, a, 4);
		f->has_timeout = true;
		break;
	case CTA_ZONE:
		f->zone = (uint16_t)read_be(rest, a, 2);
		break;
	default:
		break; /* later kernels say more */
	}
}

static void read_attr(struct span *rest, const struct attr *a, struct sl_ct_flow *f,
		      struct found *found)
{
	enum sl_ct_dir dir = a->type == CTA_TUPLE_REPLY || a->type == CTA_COUNTERS_REPLY
				     ? SL_CT_REPLY
				     : SL_CT_ORIG;

	switch (a->type) {
	case CTA_TUPLE_ORIG:
	case CTA_TUPLE_REPLY:
		rest->bad = !read_tuple(a->body, &f->tuple[dir], &found->protocol[dir]);
		found->tuple[dir] = true;
		break;
	case CTA_COUNTERS_ORIG:
	case CTA_COUNTERS_REPLY:
		rest->bad = !read_counts(a->body, &f->count[dir]);
		f->has_counts = true;
		break;
	case CTA_TIMESTAMP:
		rest->bad = !read_times(a->body, f);
		break;
	case CTA_PROTOINFO:
		rest->bad = !read_protoinfo(a->body, &f->tcp);
		break;
	default:
		read_number(rest, a, f, found);
		break;
	}
}

static enum sl_ct_msg read_flow(struct span rest, struct sl_ct_flow *ret)
{
	struct sl_ct_flow f = { .kind = ret->kind };
	struct found found = { 0 };
	struct attr a;

	while (next_attr(&rest, &a))
		read_attr(&rest, &a, &f, &found);
	if (rest.bad || !found.id || !found.tuple[SL_CT_ORIG] || !found.tuple[SL_CT_REPLY] ||
	    found.protocol[SL_CT_ORIG] != found.protocol[SL_CT_REPLY])
		return SL_CT_MSG_BAD;
	f.protocol = found.protocol[SL_CT_ORIG];
	if (f.protocol != IPPROTO_TCP && f.protocol != IPPROTO_UDP)
		return SL_CT_MSG_OTHER;
	*ret = f;
	return SL_CT_MSG_FLOW;
}

/* ---- message ---- */

static bool read_head(const void *bytes, size_t n, struct nlmsghdr *ret)
{
	struct nlmsghdr head;

	if (n < MSG_HEAD)
		return false;
	memcpy(&head, bytes, sizeof(head));
	if (head.nlmsg_len < MSG_HEAD || head.nlmsg_len > n)
		return false;
	*ret = head;
	return true;
}

size_t sl_ct_msg_len(const void *bytes, size_t n)
{
	struct nlmsghdr head;
	size_t len;

	if (!read_head(bytes, n, &head))
		return 0;
	len = ((size_t)head.nlmsg_len + 3) & ~(size_t)3;
	return len < n ? len : n;
}

/* DONE carries the error that ended a dump early; a kernel that has none may leave it out. */
static enum sl_ct_msg read_verdict(bool is_done, struct span rest, int *ret_error)
{
	int error = 0;

	if (rest.n >= sizeof(error))
		memcpy(&error, rest.p, sizeof(error));
	else if (!is_done)
		return SL_CT_MSG_BAD;
	if (is_done && error >= 0)
		return SL_CT_MSG_DONE;
	*ret_error = error < 0 ? error : 0;
	return SL_CT_MSG_ERROR;
}

static enum sl_ct_kind kind_of(const struct nlmsghdr *head)
{
	if ((head->nlmsg_type & 0xff) == IPCTNL_MSG_CT_DELETE)
		return SL_CT_DESTROY;
	if (head->nlmsg_flags & NLM_F_MULTI)
		return SL_CT_DUMPED;
	return head->nlmsg_flags & NLM_F_CREATE ? SL_CT_NEW : SL_CT_UPDATE;
}

enum sl_ct_msg sl_ct_msg_parse(const void *bytes, size_t n, struct sl_ct_reply *ret)
{
	struct sl_ct_flow flow = { 0 };
	enum sl_ct_msg what = SL_CT_MSG_OTHER;
	struct nlmsghdr head;
	struct span rest;
	int error = 0;

	if (!read_head(bytes, n, &head))
		return SL_CT_MSG_BAD;
	rest = (struct span){ .p = (const uint8_t *)bytes + MSG_HEAD,
			      .n = head.nlmsg_len - MSG_HEAD };
	if (head.nlmsg_type == NLMSG_DONE || head.nlmsg_type == NLMSG_ERROR) {
		what = read_verdict(head.nlmsg_type == NLMSG_DONE, rest, &error);
	} else if (head.nlmsg_type == (NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW) ||
		   head.nlmsg_type == (NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE)) {
		if (rest.n < GEN_HEAD)
			return SL_CT_MSG_BAD;
		rest.p += GEN_HEAD;
		rest.n -= GEN_HEAD;
		flow.kind = kind_of(&head);
		what = read_flow(rest, &flow);
	}
	if (what == SL_CT_MSG_BAD)
		return what;
	ret->seq = head.nlmsg_seq;
	ret->error = error;
	if (what == SL_CT_MSG_FLOW)
		ret->flow = flow;
	return what;
}
