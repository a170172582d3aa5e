/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "nft/ct_request.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>

struct sl_ct_marks sl_ct_marks_cover(uint32_t base, uint32_t n)
{
	uint32_t differs = n ? base ^ (base + n - 1) : 0;
	uint32_t mask = UINT32_MAX;

	while (differs & mask)
		mask <<= 1;
	return (struct sl_ct_marks){ .mark = base & mask, .mask = mask };
}

static struct nlmsghdr *begin(struct sl_ct_request *q, uint16_t type, uint16_t flags, uint32_t seq,
			      sa_family_t family)
{
	struct nlmsghdr *head = mnl_nlmsg_put_header(q->bytes);
	struct nfgenmsg *gen;

	head->nlmsg_type = (uint16_t)(NFNL_SUBSYS_CTNETLINK << 8 | type);
	head->nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
	head->nlmsg_seq = seq;
	gen = mnl_nlmsg_put_extra_header(head, sizeof(*gen));
	gen->nfgen_family = (uint8_t)family;
	gen->version = NFNETLINK_V0;
	return head;
}

static void finish(struct sl_ct_request *q, const struct nlmsghdr *head)
{
	q->n = head->nlmsg_len;
	assert(q->n <= sizeof(q->bytes));
}

static void put_marks(struct nlmsghdr *head, struct sl_ct_marks marks)
{
	mnl_attr_put_u32(head, CTA_MARK, htonl(marks.mark));
	mnl_attr_put_u32(head, CTA_MARK_MASK, htonl(marks.mask));
}

void sl_ct_request_count(struct sl_ct_request *q, uint32_t seq)
{
	finish(q, begin(q, IPCTNL_MSG_CT_GET_STATS, NLM_F_ACK, seq, AF_UNSPEC));
}

void sl_ct_request_dump(struct sl_ct_request *q, uint32_t seq, struct sl_ct_marks marks)
{
	struct nlmsghdr *head = begin(q, IPCTNL_MSG_CT_GET, NLM_F_DUMP, seq, AF_UNSPEC);

	put_marks(head, marks);
	finish(q, head);
}

int sl_ct_request_delete_marks(struct sl_ct_request *q, uint32_t seq, struct sl_ct_marks marks)
{
	struct nlmsghdr *head;

	if (marks.mask == 0 || marks.mark == 0 || (marks.mark & ~marks.mask) != 0)
		return -EINVAL;
	head = begin(q, IPCTNL_MSG_CT_DELETE, NLM_F_ACK, seq, AF_UNSPEC);
	put_marks(head, marks);
	finish(q, head);
	return 0;
}

static void put_ip(struct nlmsghdr *head, const struct sl_addr *a, uint16_t v4, uint16_t v6)
{
	uint8_t ip[16];
	size_t n = sl_addr_ip_bytes(a, ip);

	mnl_attr_put(head, sl_addr_family(a) == AF_INET6 ? v6 : v4, n, ip);
}

static void put_tuple(struct nlmsghdr *head, const struct sl_ct_flow *f)
{
	const struct sl_ct_tuple *t = &f->tuple[SL_CT_ORIG];
	struct nlattr *tuple = mnl_attr_nest_start(head, CTA_TUPLE_ORIG);
	struct nlattr *nest = mnl_attr_nest_start(head, CTA_TUPLE_IP);

	put_ip(head, &t->src, CTA_IP_V4_SRC, CTA_IP_V6_SRC);
	put_ip(head, &t->dst, CTA_IP_V4_DST, CTA_IP_V6_DST);
	mnl_attr_nest_end(head, nest);
	nest = mnl_attr_nest_start(head, CTA_TUPLE_PROTO);
	mnl_attr_put_u8(head, CTA_PROTO_NUM, f->protocol);
	mnl_attr_put_u16(head, CTA_PROTO_SRC_PORT, htons(sl_addr_port(&t->src)));
	mnl_attr_put_u16(head, CTA_PROTO_DST_PORT, htons(sl_addr_port(&t->dst)));
	mnl_attr_nest_end(head, nest);
	mnl_attr_nest_end(head, tuple);
}

void sl_ct_request_delete_flow(struct sl_ct_request *q, uint32_t seq, const struct sl_ct_flow *f)
{
	struct nlmsghdr *head = begin(q, IPCTNL_MSG_CT_DELETE, NLM_F_ACK, seq,
				      sl_addr_family(&f->tuple[SL_CT_ORIG].src));

	put_tuple(head, f);
	mnl_attr_put_u32(head, CTA_ID, htonl(f->id));
	if (f->zone)
		mnl_attr_put_u16(head, CTA_ZONE, htons(f->zone));
	finish(q, head);
}
