/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "nft/socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "nft/attr.h"

/* The kernel fills a dump's messages up to 32 KiB, and an error echoes nothing (CAP_ACK). */
#define BUFFER (1u << 16)
/* Several thousand refusals may come for one batch. */
#define RECEIVE_BUFFER (4 << 20)
#define WAIT_SECONDS 5

static int set_up(struct sl_nft_socket *s)
{
	const struct timeval wait = { .tv_sec = WAIT_SECONDS };
	const int on = 1, size = RECEIVE_BUFFER;
	int fd = mnl_socket_get_fd(s->nl);

	if (mnl_socket_bind(s->nl, 0, MNL_SOCKET_AUTOPID) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait)) < 0 ||
	    mnl_socket_setsockopt(s->nl, NETLINK_EXT_ACK, (void *)&on, sizeof(on)) < 0 ||
	    mnl_socket_setsockopt(s->nl, NETLINK_CAP_ACK, (void *)&on, sizeof(on)) < 0)
		return -errno;
	/* less than wished for is no failure: answers are then lost only where thousands fail */
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
	s->port = mnl_socket_get_portid(s->nl);
	return 0;
}

int sl_nft_socket_open(struct sl_nft_socket *ret)
{
	struct sl_nft_socket s = { .seq = 1, .size = BUFFER };
	int r;

	s.nl = mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC);
	if (!s.nl)
		return -errno;
	s.buf = malloc(s.size);
	r = s.buf ? set_up(&s) : -ENOMEM;
	if (r < 0) {
		sl_nft_socket_done(&s);
		return r;
	}
	*ret = s;
	return 0;
}

void sl_nft_socket_done(struct sl_nft_socket *s)
{
	if (s->nl)
		(void)mnl_socket_close(s->nl);
	free(s->buf);
	*s = (struct sl_nft_socket){ 0 };
}

uint32_t sl_nft_socket_seq(struct sl_nft_socket *s)
{
	s->seq += 1u << 20; /* more than a batch has messages */
	return s->seq;
}

static int wait_error(void)
{
	return errno == EAGAIN ? -ETIMEDOUT : -errno;
}

/*
 * Messages that answer an earlier question, which was given up, are passed over. A dump is read to
 * its end also when nobody wants the rest: until then the kernel begins no other (-EBUSY).
 */
static int read_answers(struct sl_nft_socket *s, uint32_t seq, sl_nft_answer_fn fn, void *arg)
{
	int res = 0;

	for (;;) {
		ssize_t n = recv(mnl_socket_get_fd(s->nl), s->buf, s->size, 0);
		const struct nlmsghdr *nlh = (const void *)s->buf;
		int left = (int)n;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return wait_error();
		for (; mnl_nlmsg_ok(nlh, left); nlh = mnl_nlmsg_next(nlh, &left)) {
			if (nlh->nlmsg_seq != seq)
				continue;
			if (nlh->nlmsg_flags & NLM_F_DUMP_INTR && res == 0)
				res = -EINTR;
			if (nlh->nlmsg_type == NLMSG_DONE)
				return res;
			if (nlh->nlmsg_type == NLMSG_ERROR && res == 0)
				res = ((const struct nlmsgerr *)mnl_nlmsg_get_payload(nlh))->error;
			if (nlh->nlmsg_type == NLMSG_ERROR)
				return res;
			if (res == 0)
				res = fn(nlh, arg);
			if (res != 0 && !(nlh->nlmsg_flags & NLM_F_MULTI))
				return res;
		}
	}
}

int sl_nft_socket_ask(struct sl_nft_socket *s, const struct sl_nft_request *q, sl_nft_answer_fn fn,
		      void *arg)
{
	uint8_t buf[1024];
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	struct nfgenmsg *nfg;

	nlh->nlmsg_type = (uint16_t)(NFNL_SUBSYS_NFTABLES << 8 | q->type);
	/* what is not a dump is one answer and an acknowledgement behind it */
	nlh->nlmsg_flags = (uint16_t)(NLM_F_REQUEST | (q->is_dump ? NLM_F_DUMP : NLM_F_ACK));
	nlh->nlmsg_seq = sl_nft_socket_seq(s);
	nfg = mnl_nlmsg_put_extra_header(nlh, sizeof(*nfg));
	nfg->nfgen_family = q->family ? q->family : NFPROTO_INET;
	if (q->type == NFT_MSG_GETGEN)
		nfg->nfgen_family = NFPROTO_UNSPEC;
	nfg->version = NFNETLINK_V0;
	if (q->table)
		mnl_attr_put_strz(nlh, NFTA_TABLE_NAME, q->table); /* 1 in every kind of message */
	if (q->name)
		mnl_attr_put_strz(nlh, q->attr, q->name);
	if (mnl_socket_sendto(s->nl, nlh, nlh->nlmsg_len) < 0)
		return wait_error();
	return read_answers(s, nlh->nlmsg_seq, fn, arg);
}

static int on_generation(const struct nlmsghdr *nlh, void *arg)
{
	struct sl_attrs attrs = sl_attrs_of(nlh, sizeof(struct nfgenmsg));
	const struct nlattr *a;

	while ((a = sl_attrs_next(&attrs)))
		if (mnl_attr_get_type(a) == NFTA_GEN_ID)
			*(uint32_t *)arg = ntohl(mnl_attr_get_u32(a));
	return 0;
}

int sl_nft_socket_generation(struct sl_nft_socket *s, uint32_t *ret)
{
	const struct sl_nft_request q = { .type = NFT_MSG_GETGEN };
	uint32_t generation = 0;
	int r = sl_nft_socket_ask(s, &q, on_generation, &generation);

	if (r < 0)
		return r;
	*ret = generation;
	return 0;
}

/* Where the kernel says more than a number: which attribute, and why. */
static void read_details(const struct nlmsghdr *nlh, struct sl_nft_fault *fault)
{
	struct sl_attrs attrs = sl_attrs_of(nlh, sizeof(struct nlmsgerr));
	const struct nlattr *a;

	if (!(nlh->nlmsg_flags & NLM_F_ACK_TLVS))
		return;
	while ((a = sl_attrs_next(&attrs))) {
		if (mnl_attr_get_type(a) == NLMSGERR_ATTR_OFFS)
			fault->offset = mnl_attr_get_u32(a);
		if (mnl_attr_get_type(a) == NLMSGERR_ATTR_MSG)
			snprintf(fault->text, sizeof(fault->text), "%.*s",
				 (int)mnl_attr_get_payload_len(a), mnl_attr_get_str(a));
	}
}

/* One message of the kernel's; true when nothing else is to come. */
static bool on_verdict(const struct nlmsghdr *nlh, const struct sl_nft_batch *b,
		       struct sl_nft_fault *fault, int *error)
{
	const struct nlmsgerr *e = mnl_nlmsg_get_payload(nlh);
	uint32_t at = nlh->nlmsg_seq - b->seq; /* 0: the beginning of the batch */

	if (nlh->nlmsg_type != NLMSG_ERROR || at > b->n + 1)
		return false;
	if (e->error && fault->n_faults++ == 0) {
		*error = e->error;
		fault->message = at >= 1 && at <= b->n ? at - 1 : SIZE_MAX;
		read_details(nlh, fault);
	}
	return at == 0 || at == b->n;
}

/*
 * The kernel has answered when sendmsg() returns. It answers the last message last,
 * except that a batch it does not even begin has an answer to its beginning only.
 */
static int read_verdict(struct sl_nft_socket *s, const struct sl_nft_batch *b,
			struct sl_nft_fault *fault)
{
	bool is_over = false;
	int error = 0;

	while (!is_over) {
		ssize_t n =
			recv(mnl_socket_get_fd(s->nl), s->buf, s->size, error ? MSG_DONTWAIT : 0);
		const struct nlmsghdr *nlh = (const void *)s->buf;
		int left = (int)n;

		if (n < 0 && (errno == EINTR || errno == ENOBUFS))
			continue; /* of too many answers the first are there */
		if (n < 0 && error)
			break; /* a refused batch need not answer to its last message */
		if (n < 0)
			return wait_error();
		for (; mnl_nlmsg_ok(nlh, left); nlh = mnl_nlmsg_next(nlh, &left))
			is_over |= on_verdict(nlh, b, fault, &error);
	}
	return error;
}

int sl_nft_socket_commit(struct sl_nft_socket *s, const struct sl_nft_batch *b,
			 struct sl_nft_fault *fault)
{
	struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	struct iovec iov = { .iov_base = b->buf, .iov_len = b->len };
	const struct msghdr msg = {
		.msg_name = &kernel, .msg_namelen = sizeof(kernel), .msg_iov = &iov, .msg_iovlen = 1
	};
	/* the socket's own accounting takes some, too */
	const int size = b->len < INT32_MAX / 2 ? (int)b->len + (64 << 10) : INT32_MAX / 2;

	*fault = (struct sl_nft_fault){ .message = SIZE_MAX };
	if (b->n == 0)
		return 0;
	if (setsockopt(mnl_socket_get_fd(s->nl), SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) <
	    0)
		(void)setsockopt(mnl_socket_get_fd(s->nl), SOL_SOCKET, SO_SNDBUF, &size,
				 sizeof(size));
	if (sendmsg(mnl_socket_get_fd(s->nl), &msg, 0) < 0)
		return wait_error();
	return read_verdict(s, b, fault);
}
