/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/netlink.h>

#include "ct_samples.h"
#include "nft/ct_request.h"

#define SAMPLE(name) ct_##name, sizeof(ct_##name)

static struct sl_ct_reply parse(const void *bytes, size_t n, enum sl_ct_msg expected)
{
	struct sl_ct_reply reply = { 0 };

	assert_int_equal(sl_ct_msg_parse(bytes, n, &reply), expected);
	return reply;
}

static void assert_addr(const struct sl_addr *a, const char *text)
{
	char buf[SL_ADDR_TEXT];

	assert_string_equal(sl_addr_format(a, buf), text);
}

static void a_new_connection_has_both_tuples(void **state)
{
	struct sl_ct_flow f = parse(SAMPLE(new_tcp4), SL_CT_MSG_FLOW).flow;

	(void)state;
	assert_int_equal(f.kind, SL_CT_NEW);
	assert_int_equal(f.protocol, IPPROTO_TCP);
	assert_addr(&f.tuple[SL_CT_ORIG].src, "127.0.0.1:34294");
	assert_addr(&f.tuple[SL_CT_ORIG].dst, "127.0.0.1:8001");
	assert_addr(&f.tuple[SL_CT_REPLY].src, "127.0.0.1:9001");
	assert_addr(&f.tuple[SL_CT_REPLY].dst, "127.0.0.1:34294");
	assert_int_equal(f.mark, 1);
	assert_int_equal(f.id, 0x436be807);
	assert_int_equal(f.tcp, SL_CT_TCP_SYN_SENT);
	assert_true(f.has_timeout && f.timeout_s == 120);
	assert_false(f.has_counts);
	assert_int_equal(f.status & (IPS_DST_NAT | IPS_SEEN_REPLY), IPS_DST_NAT);
	assert_int_equal(parse(SAMPLE(update_tcp4), SL_CT_MSG_FLOW).flow.kind, SL_CT_UPDATE);
}

static void a_dump_has_counts_and_start(void **state)
{
	struct sl_ct_flow f = parse(SAMPLE(dump_established), SL_CT_MSG_FLOW).flow;

	(void)state;
	assert_int_equal(f.kind, SL_CT_DUMPED);
	assert_int_equal(f.tcp, SL_CT_TCP_ESTABLISHED);
	assert_true(f.has_counts && f.start_ns > 0 && f.stop_ns == 0);
	assert_int_equal(f.count[SL_CT_ORIG].packets, 4);
	assert_int_equal(f.count[SL_CT_ORIG].bytes, 316);
	assert_int_equal(f.count[SL_CT_REPLY].packets, 3);
	assert_int_equal(f.count[SL_CT_REPLY].bytes, 364);
	f = parse(SAMPLE(dump_time_wait), SL_CT_MSG_FLOW).flow;
	assert_int_equal(f.tcp, SL_CT_TCP_TIME_WAIT);
	assert_int_equal(f.count[SL_CT_ORIG].packets, 6);
	assert_int_equal(f.start_ns, 0x18ea11e12760ebe7);
}

static void a_datagram_is_cut_into_messages(void **state)
{
	const uint8_t *p = ct_dump_two;
	size_t rest = sizeof(ct_dump_two);
	struct sl_ct_flow f = parse(p, rest, SL_CT_MSG_FLOW).flow;

	(void)state;
	assert_addr(&f.tuple[SL_CT_ORIG].dst, "[::1]:8002");
	assert_addr(&f.tuple[SL_CT_REPLY].src, "[::1]:9002");
	assert_int_equal(f.mark, 3);
	rest -= sl_ct_msg_len(p, rest);
	p += sl_ct_msg_len(p, sizeof(ct_dump_two));
	assert_int_equal(rest, 284);
	assert_int_equal(parse(p, rest, SL_CT_MSG_FLOW).flow.mark, 1);
	assert_int_equal(sl_ct_msg_len(p, rest), rest);
	assert_int_equal(sl_ct_msg_len(p, rest - 1), 0);
	assert_int_equal(sl_ct_msg_len(p, 0), 0);
}

static void ends_tell_whether_they_came_early(void **state)
{
	struct sl_ct_flow f = parse(SAMPLE(destroy_killed), SL_CT_MSG_FLOW).flow;

	(void)state;
	assert_int_equal(f.kind, SL_CT_DESTROY);
	assert_int_equal(f.tcp, SL_CT_TCP_ESTABLISHED);
	assert_true(f.has_timeout && f.timeout_s == 431998);
	assert_int_equal(f.stop_ns - f.start_ns, 0x18ea11e1a275334b - 0x18ea11e15335b6a8);
	f = parse(SAMPLE(destroy_udp), SL_CT_MSG_FLOW).flow;
	assert_int_equal(f.protocol, IPPROTO_UDP);
	assert_int_equal(f.tcp, SL_CT_TCP_NONE);
	assert_false(f.has_timeout);
	assert_true(f.status & IPS_SEEN_REPLY);
	f = parse(SAMPLE(destroy_refused), SL_CT_MSG_FLOW).flow;
	assert_int_equal(f.tcp, SL_CT_TCP_CLOSE);
	assert_true(f.has_timeout);
	assert_false(f.status & IPS_SEEN_REPLY);
	assert_int_equal(f.count[SL_CT_REPLY].packets, 1);
}

static void verdicts_are_told_apart(void **state)
{
	struct {
		struct nlmsghdr head;
		int error;
		struct nlmsghdr asked;
	} m = { .head = { .nlmsg_len = sizeof(m), .nlmsg_type = NLMSG_ERROR, .nlmsg_seq = 7 } };
	struct sl_ct_reply r;

	(void)state;
	(void)parse(SAMPLE(dump_done), SL_CT_MSG_DONE);
	m.error = -ENOENT;
	r = parse(&m, sizeof(m), SL_CT_MSG_ERROR);
	assert_int_equal(r.error, -ENOENT);
	assert_int_equal(r.seq, 7);
	m.error = 0;
	assert_int_equal(parse(&m, sizeof(m), SL_CT_MSG_ERROR).error, 0);
	m.head.nlmsg_type = NLMSG_DONE;
	(void)parse(&m, sizeof(m), SL_CT_MSG_DONE);
	m.error = -EINTR;
	assert_int_equal(parse(&m, sizeof(m), SL_CT_MSG_ERROR).error, -EINTR);
	m.head.nlmsg_len = sizeof(m.head);
	(void)parse(&m, sizeof(m.head), SL_CT_MSG_DONE);
	m.head.nlmsg_type = NLMSG_ERROR;
	(void)parse(&m, sizeof(m.head), SL_CT_MSG_BAD);
	m.head.nlmsg_type = NFNL_SUBSYS_CTNETLINK_EXP << 8 | IPCTNL_MSG_CT_NEW;
	(void)parse(&m, sizeof(m.head), SL_CT_MSG_OTHER);
}

/* Reads a copy of exactly that size, so that a sanitizer sees any overread. */
static enum sl_ct_msg parse_copy(const uint8_t *bytes, size_t n)
{
	struct sl_ct_reply untouched;
	struct sl_ct_reply r;
	uint8_t *copy = malloc(n ? n : 1);
	enum sl_ct_msg what;

	assert_non_null(copy);
	memcpy(copy, bytes, n);
	memset(&r, 0x5a, sizeof(r));
	memset(&untouched, 0x5a, sizeof(untouched));
	what = sl_ct_msg_parse(copy, n, &r);
	if (what == SL_CT_MSG_BAD)
		assert_memory_equal(&r, &untouched, sizeof(r));
	else if (what != SL_CT_MSG_FLOW)
		assert_memory_equal(&r.flow, &untouched.flow, sizeof(r.flow));
	free(copy);
	return what;
}

static const struct {
	const uint8_t *bytes;
	size_t n;
} samples[] = {
	{ SAMPLE(new_tcp4) },       { SAMPLE(update_tcp4) }, { SAMPLE(dump_established) },
	{ SAMPLE(new_tcp6) },       { SAMPLE(new_udp) },     { SAMPLE(destroy_refused) },
	{ SAMPLE(destroy_killed) }, { SAMPLE(destroy_udp) }, { SAMPLE(dump_time_wait) },
};

static void every_prefix_is_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(samples); i++) {
		assert_int_equal(parse_copy(samples[i].bytes, samples[i].n), SL_CT_MSG_FLOW);
		for (size_t n = 0; n < samples[i].n; n++)
			assert_int_equal(parse_copy(samples[i].bytes, n), SL_CT_MSG_BAD);
	}
}

/* Whether an attribute of the top level ends there, with its padding or without. */
static bool is_between_attrs(const uint8_t *bytes, size_t n, size_t where)
{
	for (size_t at = 20; at + 4 <= n;) {
		struct nlattr a;

		memcpy(&a, bytes + at, sizeof(a));
		if (where == at + a.nla_len)
			return true;
		at += NLA_ALIGN(a.nla_len);
		if (where == at)
			return true;
	}
	return false;
}

/* A header that claims less than there is leads to half a message, never further. */
static void every_shorter_claim_ends(void **state)
{
	uint8_t copy[512];
	size_t n_whole = 0;

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(samples); i++) {
		memcpy(copy, samples[i].bytes, samples[i].n);
		for (uint32_t n = 0; n < samples[i].n; n++) {
			memcpy(copy, &n, sizeof(n));
			if (parse_copy(copy, samples[i].n) != SL_CT_MSG_FLOW)
				continue;
			n_whole++;
			assert_true(is_between_attrs(samples[i].bytes, samples[i].n, n));
		}
	}
	assert_true(n_whole > 0); /* what comes last can be missing */
}

static void every_changed_byte_ends(void **state)
{
	uint8_t copy[512];
	size_t n_bad = 0;

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(samples); i++) {
		memcpy(copy, samples[i].bytes, samples[i].n);
		for (size_t at = 0; at < samples[i].n; at++) {
			for (unsigned bit = 0; bit < 8; bit++) {
				copy[at] ^= (uint8_t)(1U << bit);
				n_bad += parse_copy(copy, samples[i].n) == SL_CT_MSG_BAD;
				copy[at] ^= (uint8_t)(1U << bit);
			}
		}
	}
	assert_true(n_bad > 0);
}

/* Position of the attribute of this type among those of the top level. */
static size_t find_attr(const uint8_t *bytes, size_t n, uint16_t type)
{
	for (size_t at = 20; at + 4 <= n;) {
		struct nlattr a;

		memcpy(&a, bytes + at, sizeof(a));
		if ((a.nla_type & NLA_TYPE_MASK) == type)
			return at;
		at += NLA_ALIGN(a.nla_len);
	}
	fail_msg("no attribute %u", type);
	return 0;
}

static void what_cannot_be_missing_and_what_is_unknown(void **state)
{
	static const uint16_t needed[] = { CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, CTA_ID };
	uint8_t copy[sizeof(ct_dump_established)];
	uint16_t unknown = 0x1234;
	size_t at;

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(needed); i++) {
		memcpy(copy, ct_dump_established, sizeof(copy));
		at = find_attr(copy, sizeof(copy), needed[i]);
		memcpy(copy + at + 2, &unknown, sizeof(unknown));
		(void)parse(copy, sizeof(copy), SL_CT_MSG_BAD);
	}
	memcpy(copy, ct_dump_established, sizeof(copy));
	at = find_attr(copy, sizeof(copy), CTA_MARK);
	memcpy(copy + at + 2, &unknown, sizeof(unknown));
	assert_int_equal(parse(copy, sizeof(copy), SL_CT_MSG_FLOW).flow.mark, 0);
}

static void protocols_without_ports_are_not_ours(void **state)
{
	uint8_t copy[sizeof(ct_new_udp)];
	size_t n = 0;

	(void)state;
	memcpy(copy, ct_new_udp, sizeof(copy));
	for (size_t at = 20; at + 5 <= sizeof(copy); at += 4) {
		/* CTA_PROTO_NUM, 5 bytes long */
		if (memcmp(copy + at, "\x05\x00\x01\x00\x11", 5) == 0) {
			copy[at + 4] = IPPROTO_ICMP;
			if (++n == 1)
				(void)parse(copy, sizeof(copy), SL_CT_MSG_BAD);
		}
	}
	assert_int_equal(n, 2);
	(void)parse(copy, sizeof(copy), SL_CT_MSG_OTHER);
}

/* ---- requests ---- */

static void marks_are_covered_narrowly(void **state)
{
	static const struct {
		uint32_t base;
		uint32_t n;
		uint32_t mark;
		uint32_t mask;
	} rows[] = {
		{ 1, 1, 1, UINT32_MAX },
		{ 0x100, 256, 0x100, 0xffffff00 },
		{ 0x100, 257, 0, 0xfffffc00 },
		{ 1, 10000, 0, 0xffffc000 },
		{ 0x50000000, 65536, 0x50000000, 0xffff0000 },
		{ 0, 0, 0, UINT32_MAX },
		{ 1, UINT32_MAX, 0, 0 },
	};

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(rows); i++) {
		struct sl_ct_marks m = sl_ct_marks_cover(rows[i].base, rows[i].n);

		assert_int_equal(m.mark, rows[i].mark);
		assert_int_equal(m.mask, rows[i].mask);
	}
}

static void nothing_but_given_marks_is_deleted(void **state)
{
	static const struct sl_ct_marks refused[] = {
		{ 0, 0 }, { 0, UINT32_MAX }, { 1, 0 }, { 0x101, 0xff }, { 0, 0xffff0000 },
	};
	struct sl_ct_request q = { .n = 77 };
	uint32_t mark = 0;
	uint32_t mask = 0;

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(refused); i++) {
		assert_int_equal(sl_ct_request_delete_marks(&q, 1, refused[i]), -EINVAL);
		assert_int_equal(q.n, 77);
	}
	assert_int_equal(sl_ct_request_delete_marks(&q, 9, (struct sl_ct_marks){ 0x1200, 0xff00 }),
			 0);
	assert_int_equal(q.n, 16 + 4 + 8 + 8);
	memcpy(&mark, q.bytes + find_attr(q.bytes, q.n, CTA_MARK) + 4, 4);
	memcpy(&mask, q.bytes + find_attr(q.bytes, q.n, CTA_MARK_MASK) + 4, 4);
	assert_int_equal(ntohl(mark), 0x1200);
	assert_int_equal(ntohl(mask), 0xff00);
}

/* What is written about a flow reads back as that flow, but for what a request does not say. */
static void a_request_names_its_flow(void **state)
{
	struct sl_ct_flow f = parse(ct_dump_two, sizeof(ct_dump_two), SL_CT_MSG_FLOW).flow;
	struct sl_ct_request q;

	(void)state;
	f.zone = 5;
	sl_ct_request_delete_flow(&q, 3, &f);
	assert_int_equal(sl_ct_msg_len(q.bytes, q.n), q.n);
	assert_int_equal(find_attr(q.bytes, q.n, CTA_TUPLE_ORIG), 20);
	/* the kernel's own sample has the same tuple at the same place, less the nest's flag */
	assert_memory_equal(q.bytes + 24 + 4, ct_dump_two + 24 + 4, 40);
	assert_memory_equal(q.bytes + find_attr(q.bytes, q.n, CTA_ID) + 4,
			    ct_dump_two + find_attr(ct_dump_two, sizeof(ct_dump_two), CTA_ID) + 4,
			    4);
	assert_int_equal(q.bytes[find_attr(q.bytes, q.n, CTA_ZONE) + 5], 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_new_connection_has_both_tuples),
		cmocka_unit_test(a_dump_has_counts_and_start),
		cmocka_unit_test(a_datagram_is_cut_into_messages),
		cmocka_unit_test(ends_tell_whether_they_came_early),
		cmocka_unit_test(verdicts_are_told_apart),
		cmocka_unit_test(every_prefix_is_refused),
		cmocka_unit_test(every_shorter_claim_ends),
		cmocka_unit_test(every_changed_byte_ends),
		cmocka_unit_test(what_cannot_be_missing_and_what_is_unknown),
		cmocka_unit_test(protocols_without_ports_are_not_ours),
		cmocka_unit_test(marks_are_covered_narrowly),
		cmocka_unit_test(nothing_but_given_marks_is_deleted),
		cmocka_unit_test(a_request_names_its_flow),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
