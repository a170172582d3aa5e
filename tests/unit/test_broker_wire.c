/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What proxy and broker say to each other: only whole, sound messages get through. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "broker/wire.h"

static void pair(int ret[2])
{
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ret),
			 0);
}

static void close_pair(const int p[2])
{
	assert_int_equal(close(p[0]), 0);
	assert_int_equal(close(p[1]), 0);
}

static unsigned count_fds(void)
{
	unsigned n = 0;

	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

/* Sends `len` bytes with `n_fds` descriptors, `fd` but for the last one, whatever they are. */
static void send_fds(int sock, const void *bytes, size_t len, int fd, int last, size_t n_fds)
{
	struct iovec iov = { .iov_base = (void *)(uintptr_t)bytes, .iov_len = len };
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(253 * sizeof(int))];
	} control = { 0 };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (n_fds > 0) {
		struct cmsghdr *c;

		mh.msg_control = control.room;
		mh.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		c = CMSG_FIRSTHDR(&mh);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		for (size_t i = 0; i < n_fds; i++)
			memcpy(CMSG_DATA(c) + i * sizeof(int), i + 1 < n_fds ? &fd : &last,
			       sizeof(int));
	}
	assert_int_equal(sendmsg(sock, &mh, 0), len);
}

static void send_raw(int sock, const void *bytes, size_t len, int fd, size_t n_fds)
{
	send_fds(sock, bytes, len, fd, fd, n_fds);
}

static struct sl_addr addr(const char *text)
{
	struct sl_addr a;

	assert_int_equal(sl_addr_parse(text, &a), 0);
	return a;
}

static struct sl_broker_msg handover(uint32_t type)
{
	struct sl_broker_msg msg = { .type = type, .conn_id = 7 };

	msg.handover.generation = 3;
	msg.handover.client = addr("192.0.2.1:1234");
	msg.handover.via = addr("[2001:db8::1]:80");
	return msg;
}

static struct sl_broker_msg adopt(void)
{
	struct sl_broker_msg msg = { .type = SL_BROKER_ADOPT, .conn_id = 7 };

	msg.flow.client = addr("[2001:db8::1]:1234");
	msg.flow.front = addr("[2001:db8::2]:80");
	msg.flow.back = addr("192.0.2.1:40000");
	msg.flow.backend = addr("192.0.2.2:80");
	return msg;
}

static struct sl_broker_msg result(void)
{
	return (struct sl_broker_msg){ .type = SL_BROKER_RESULT, .result.why = SL_WHY_ELIGIBLE };
}

static struct sl_broker_msg nat_target(void)
{
	return (struct sl_broker_msg){ .type = SL_BROKER_NAT_TARGET,
				       .flag = 1,
				       .nat_target = { "web", "192.0.2.1:80" } };
}

static struct sl_broker_msg nat_flow(void)
{
	struct sl_broker_msg msg = { .type = SL_BROKER_NAT_FLOW,
				     .conn_id = 7,
				     .nat_flow = { .route = "web" } };

	msg.nat_flow.client = addr("192.0.2.1:1234");
	msg.nat_flow.front = addr("192.0.2.2:80");
	msg.nat_flow.backend = addr("192.0.2.3:81");
	return msg;
}

/* ---- checks ---- */

static const struct {
	uint32_t type;
	size_t n_fds;
	bool is_request;
} types[] = {
	{ SL_BROKER_HANDOVER, 2, true },       { SL_BROKER_RESOLVE, 2, true },
	{ SL_BROKER_KILL, 0, true },           { SL_BROKER_PROBE, 0, true },
	{ SL_BROKER_RELEASE, 0, true },        { SL_BROKER_ADOPTED, 0, true },
	{ SL_BROKER_FLUSH, 0, true },          { SL_BROKER_HELLO, 4, false },
	{ SL_BROKER_RESULT, 0, false },        { SL_BROKER_CHANGED, 0, false },
	{ SL_BROKER_ENDED, 0, false },         { SL_BROKER_ADOPT, 0, false },
	{ SL_BROKER_FLUSHED, 0, false },       { SL_BROKER_STATUS, 0, false },
	{ SL_BROKER_NAT_KILL, 0, true },       { SL_BROKER_NAT_TARGET, 0, true },
	{ SL_BROKER_NAT_FLOW, 0, false },      { SL_BROKER_NAT_STATUS, 0, false },
	{ SL_BROKER_NAT_WORRIES, 0, false },   { SL_BROKER_NAT_TOLD, 0, false },
	{ SL_BROKER_SOCKMAP_LEAVE, 0, true },  { SL_BROKER_SOCKMAP_HELD, 0, true },
	{ SL_BROKER_SOCKMAP_HELLO, 4, false }, { SL_BROKER_SOCKMAP_STATUS, 0, false },
	{ SL_BROKER_DIFF, 0, true },           { SL_BROKER_DIFF_TEXT, 0, false },
	{ SL_BROKER_DRIFT, 0, false },
};

static struct sl_broker_msg sample(uint32_t type)
{
	if (type == SL_BROKER_HANDOVER || type == SL_BROKER_RESOLVE)
		return handover(type);
	if (type == SL_BROKER_ADOPT)
		return adopt();
	if (type == SL_BROKER_RESULT)
		return result();
	if (type == SL_BROKER_NAT_TARGET)
		return nat_target();
	if (type == SL_BROKER_NAT_FLOW)
		return nat_flow();
	return (struct sl_broker_msg){ .type = type };
}

/* The same flow of any broker, and each worker its share. */
static void test_nat_worker(void **state)
{
	struct sl_broker_nat_flow f = nat_flow().nat_flow;
	struct sl_broker_nat_flow again;
	unsigned n[4] = { 0 };

	(void)state;
	for (uint16_t port = 1; port <= 4000; port++) {
		sl_addr_set_port(&f.client, port);
		again = f;
		again.start_ns++;
		again.bytes[SL_CLIENT] = 7;
		again.is_over = again.is_adopted = 1;
		assert_int_equal(sl_broker_nat_worker(&f, 4), sl_broker_nat_worker(&again, 4));
		n[sl_broker_nat_worker(&f, 4)]++;
	}
	for (int i = 0; i < 4; i++)
		assert_in_range(n[i], 900, 1100);
	assert_int_equal(sl_broker_nat_worker(&f, 1), 0);
}

/* Each type goes one way, in one size, with one number of descriptors. */
static void test_types(void **state)
{
	(void)state;
	assert_int_equal(sizeof(types) / sizeof(types[0]), SL_BROKER_TYPE_COUNT_ - 1);
	assert_int_equal(sl_broker_n_fds(0), -1);
	assert_int_equal(sl_broker_n_fds(SL_BROKER_TYPE_COUNT_), -1);
	assert_int_equal(sl_broker_n_fds(UINT32_MAX), -1);
	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		struct sl_broker_msg msg = sample(types[i].type);

		assert_int_equal(sl_broker_n_fds(msg.type), types[i].n_fds);
		assert_int_equal(sl_broker_is_request(msg.type), types[i].is_request);
		for (size_t n_fds = 0; n_fds < 6; n_fds++) {
			int good = n_fds == types[i].n_fds;

			assert_int_equal(sl_broker_check_request(&msg, sizeof(msg), n_fds),
					 good && types[i].is_request ? 0 : -EBADMSG);
			assert_int_equal(sl_broker_check_reply(&msg, sizeof(msg), n_fds),
					 good && !types[i].is_request ? 0 : -EBADMSG);
		}
		for (size_t n = 0; n < sizeof(msg); n++) {
			assert_int_equal(sl_broker_check_request(&msg, n, types[i].n_fds),
					 -EBADMSG);
			assert_int_equal(sl_broker_check_reply(&msg, n, types[i].n_fds), -EBADMSG);
		}
	}
}

static int check(const struct sl_broker_msg *msg)
{
	size_t n_fds = (size_t)sl_broker_n_fds(msg->type);

	return sl_broker_is_request(msg->type) ? sl_broker_check_request(msg, sizeof(*msg), n_fds)
					       : sl_broker_check_reply(msg, sizeof(*msg), n_fds);
}

#define refuses(msg, field, value)                        \
	do {                                              \
		struct sl_broker_msg bad_ = (msg);        \
                                                          \
		assert_int_equal(check(&bad_), 0);        \
		bad_.field = (value);                     \
		assert_int_equal(check(&bad_), -EBADMSG); \
	} while (0)
#define takes(msg, field, value)                    \
	do {                                        \
		struct sl_broker_msg good_ = (msg); \
                                                    \
		good_.field = (value);              \
		assert_int_equal(check(&good_), 0); \
	} while (0)

static void test_requests(void **state)
{
	const struct sl_broker_msg adopted = { .type = SL_BROKER_ADOPTED };
	struct sl_broker_msg target = nat_target();

	(void)state;
	refuses(handover(SL_BROKER_HANDOVER), handover.client.sa.sa_family, AF_UNIX);
	refuses(handover(SL_BROKER_HANDOVER), handover.via.sa.sa_family, 0xffff);
	refuses(handover(SL_BROKER_RESOLVE), handover.client.sa.sa_family, AF_PACKET);
	refuses(handover(SL_BROKER_RESOLVE), handover.is_frozen, 2);
	takes(handover(SL_BROKER_HANDOVER), handover.client.sa.sa_family, AF_UNSPEC);
	takes(handover(SL_BROKER_HANDOVER), handover.via.sa.sa_family, AF_UNSPEC);
	takes(handover(SL_BROKER_HANDOVER), handover.is_frozen, 1);
	/* what is asked of the policy, not believed: any number */
	takes(handover(SL_BROKER_HANDOVER), handover.route, UINT32_MAX);
	takes(handover(SL_BROKER_HANDOVER), handover.generation, UINT64_MAX);
	takes(handover(SL_BROKER_HANDOVER), conn_id, UINT64_MAX);
	/* reserved */
	takes(handover(SL_BROKER_HANDOVER), flag, UINT32_MAX);
	takes(handover(SL_BROKER_HANDOVER), room[239], 'x');
	takes(adopted, flag, 1);
	takes(adopted, flag, 2);
	takes(adopted, room[0], 'x');
	refuses(adopted, flag, 3);
	refuses(adopted, flag, UINT32_MAX);
	takes(nat_target(), flag, 0);
	refuses(nat_target(), flag, 2);
	refuses(nat_target(), nat_target.route[0], '\0');
	refuses(nat_target(), nat_target.target[0], '\0');
	memset(target.nat_target.route, 'x', sizeof(target.nat_target.route));
	assert_int_equal(check(&target), -EBADMSG);
	target.nat_target.route[71] = '\0';
	assert_int_equal(check(&target), 0);
	memset(target.nat_target.target, 'x', sizeof(target.nat_target.target));
	assert_int_equal(check(&target), -EBADMSG);
}

static void test_replies(void **state)
{
	const struct sl_broker_msg ended = { .type = SL_BROKER_ENDED };
	struct sl_broker_msg status = { .type = SL_BROKER_STATUS };

	(void)state;
	refuses(result(), result.why, SL_WHY_NONE);
	refuses(result(), result.why, SL_WHY_COUNT_);
	refuses(result(), result.is_final, 2);
	refuses(result(), result.has_holes, UINT32_MAX);
	takes(result(), result.why, SL_WHY_COUNT_ - 1);
	takes(ended, ended.how, SL_BROKER_END_KILLED);
	refuses(ended, ended.how, SL_BROKER_END_KILLED + 1);
	refuses(status, status.is_on, 2);
	refuses(status, status.why, SL_WHY_COUNT_);
	memset(status.status.text, 'x', sizeof(status.status.text));
	assert_int_equal(check(&status), -EBADMSG);
	status.status.text[sizeof(status.status.text) - 1] = '\0';
	assert_int_equal(check(&status), 0);
	refuses(adopt(), flow.client.sa.sa_family, AF_INET);
	refuses(adopt(), flow.front.sa.sa_family, AF_UNSPEC);
	refuses(adopt(), flow.back.sa.sa_family, AF_UNSPEC);
	refuses(adopt(), flow.backend.sa.sa_family, AF_INET6);
	refuses(adopt(), flow.backend.sa.sa_family, AF_UNIX);
}

static void test_nat_replies(void **state)
{
	struct sl_broker_msg status = { .type = SL_BROKER_NAT_STATUS };
	struct sl_broker_msg flow = nat_flow();

	(void)state;
	refuses(status, nat_status.is_on, 2);
	memset(status.nat_status.text, 'x', sizeof(status.nat_status.text));
	assert_int_equal(check(&status), -EBADMSG);
	takes(nat_flow(), nat_flow.is_udp, 1);
	takes(nat_flow(), nat_flow.reason, SL_REASON_COUNT_ - 1);
	refuses(nat_flow(), nat_flow.reason, SL_REASON_COUNT_);
	refuses(nat_flow(), nat_flow.is_udp, 2);
	refuses(nat_flow(), nat_flow.is_over, 2);
	refuses(nat_flow(), nat_flow.is_adopted, 255);
	refuses(nat_flow(), nat_flow.is_established, 2);
	refuses(nat_flow(), nat_flow.is_rough, 2);
	refuses(nat_flow(), nat_flow.route[0], '\0');
	refuses(nat_flow(), nat_flow.client.sa.sa_family, AF_UNSPEC);
	refuses(nat_flow(), nat_flow.front.sa.sa_family, AF_INET6);
	refuses(nat_flow(), nat_flow.backend.sa.sa_family, AF_INET6);
	memset(flow.nat_flow.route, 'x', sizeof(flow.nat_flow.route));
	assert_int_equal(check(&flow), -EBADMSG);
}

static struct sl_broker_msg text_part(uint32_t type)
{
	return (struct sl_broker_msg){ .type = type,
				       .flag = 300,
				       .nat_worries = { .at = 232, .text = "line\nline\n" } };
}

/* Only what fills its part of the text exactly, and may be shown to people. */
static void check_text(uint32_t type, uint32_t max)
{
	struct sl_broker_msg msg = text_part(type);

	assert_int_equal(check(&msg), -EBADMSG); /* shorter than it says */
	memset(msg.nat_worries.text, 'x', 68);
	assert_int_equal(check(&msg), 0);
	refuses(msg, nat_worries.text[68], 'x');
	refuses(msg, nat_worries.text[231], 'x');
	refuses(msg, nat_worries.text[67], '\0');
	refuses(msg, nat_worries.text[3], '\x1b');
	refuses(msg, nat_worries.text[3], '\x7f');
	takes(msg, nat_worries.text[3], '\n');
	takes(msg, nat_worries.text[3], '\xc3');
	refuses(msg, nat_worries.at, 231);
	refuses(msg, nat_worries.at, 464);
	refuses(msg, flag, 299);
	refuses(msg, flag, max + 1);
	memset(msg.nat_worries.text, 'x', sizeof(msg.nat_worries.text));
	takes(msg, flag, max);
	takes(msg, nat_worries.at, 0);
	msg = (struct sl_broker_msg){ .type = type };
	assert_int_equal(check(&msg), 0); /* none */
	refuses(msg, nat_worries.at, 232);
}

static void test_texts(void **state)
{
	(void)state;
	check_text(SL_BROKER_NAT_WORRIES, SL_BROKER_WORRIES_MAX);
	check_text(SL_BROKER_DIFF_TEXT, SL_BROKER_DIFF_MAX);
}

/* ---- the socket ---- */

static void test_round_trip(void **state)
{
	int p[2], fds[SL_BROKER_MAX_FDS];
	struct sl_broker_msg msg = handover(SL_BROKER_HANDOVER), got;
	struct stat sent[2], st;

	(void)state;
	pair(p);
	assert_int_equal(sl_broker_recv(p[1], true, &got, fds), -EAGAIN);
	assert_int_equal(sl_broker_send(p[0], &msg, p, 2), 0);
	assert_int_equal(sl_broker_recv(p[1], true, &got, fds), 0);
	assert_memory_equal(&got, &msg, sizeof(msg));
	for (int i = 0; i < 2; i++) {
		assert_int_equal(fstat(p[i], &sent[i]), 0);
		assert_int_equal(fstat(fds[i], &st), 0);
		assert_int_equal(st.st_ino, sent[i].st_ino);
		assert_int_equal(fcntl(fds[i], F_GETFD), FD_CLOEXEC);
	}
	assert_int_equal(fds[2], -1);
	assert_int_equal(fds[3], -1);
	sl_broker_close_fds(fds);
	for (int i = 0; i < 4; i++)
		assert_int_equal(fds[i], -1);
	close_pair(p);
}

static void test_sender_checks(void **state)
{
	struct sl_broker_msg msg = handover(SL_BROKER_HANDOVER);
	const struct sl_broker_msg unknown = { .type = SL_BROKER_TYPE_COUNT_ };
	const struct sl_broker_msg none = { .type = SL_BROKER_RESULT };
	int p[2];

	(void)state;
	pair(p);
	assert_int_equal(sl_broker_send(p[0], &msg, p, 1), -EINVAL);
	assert_int_equal(sl_broker_send(p[0], &msg, NULL, 0), -EINVAL);
	assert_int_equal(sl_broker_send(p[0], &unknown, NULL, 0), -EINVAL);
	assert_int_equal(sl_broker_send(p[0], &none, NULL, 0), -EINVAL);
	msg.handover.is_frozen = 9;
	assert_int_equal(sl_broker_send(p[0], &msg, p, 2), -EINVAL);
	close_pair(p);
}

static void test_bad_datagrams(void **state)
{
	static const struct {
		const char *why;
		uint32_t type;
		size_t len;
		size_t n_fds;
	} rows[] = {
		{ "too short", SL_BROKER_KILL, 255, 0 },
		{ "too long", SL_BROKER_KILL, 257, 0 },
		{ "one byte", SL_BROKER_KILL, 1, 0 },
		{ "nothing but a descriptor", SL_BROKER_KILL, 0, 1 },
		{ "type 0", 0, 256, 0 },
		{ "type beyond", SL_BROKER_TYPE_COUNT_, 256, 0 },
		{ "a reply", SL_BROKER_FLUSHED, 256, 0 },
		{ "descriptors missing", SL_BROKER_HANDOVER, 256, 0 },
		{ "one of two", SL_BROKER_HANDOVER, 256, 1 },
		{ "three of two", SL_BROKER_HANDOVER, 256, 3 },
		{ "more than anything has", SL_BROKER_HANDOVER, 256, 5 },
		{ "as many as the kernel lets through", SL_BROKER_HANDOVER, 256, 253 },
		{ "one unasked", SL_BROKER_KILL, 256, 1 },
		{ "short with descriptors", SL_BROKER_HANDOVER, 4, 2 },
		{ "long with descriptors", SL_BROKER_HANDOVER, 512, 2 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		char bytes[512] = { 0 };
		struct sl_broker_msg got = { .type = 99 };
		int p[2], fds[SL_BROKER_MAX_FDS] = { 9, 9, 9, 9 };
		unsigned before;

		memcpy(bytes, &rows[i].type, sizeof(rows[i].type));
		pair(p);
		before = count_fds();
		send_raw(p[0], bytes, rows[i].len, p[0], rows[i].n_fds);
		if (sl_broker_recv(p[1], true, &got, fds) != -EBADMSG)
			fail_msg("%s: accepted", rows[i].why);
		assert_int_equal(got.type, 99);
		for (int k = 0; k < 4; k++)
			assert_int_equal(fds[k], -1);
		if (count_fds() != before)
			fail_msg("%s: a descriptor is left", rows[i].why);
		close_pair(p);
	}
}

/* The receiver's table has room for one of two: the kernel says so in a flag alone. */
static void test_no_room_for_descriptor(void **state)
{
	const struct sl_broker_msg msg = handover(SL_BROKER_HANDOVER);
	const struct sl_broker_msg hello = { .type = SL_BROKER_HELLO };
	struct sl_broker_msg got;
	int p[2], fds[SL_BROKER_MAX_FDS], lowest;
	struct rlimit old, low;
	unsigned before;

	(void)state;
	pair(p);
	assert_int_equal(sl_broker_send(p[0], &msg, p, 2), 0);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	lowest = dup(p[0]);
	assert_true(lowest >= 0);
	assert_int_equal(close(lowest), 0);
	before = count_fds();
	low = (struct rlimit){ (rlim_t)lowest + 1, old.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
	assert_int_equal(sl_broker_recv(p[1], true, &got, fds), -EMFILE);
	assert_memory_equal(&got, &msg, sizeof(msg)); /* to be answered */
	for (size_t i = 0; i < SL_BROKER_MAX_FDS; i++)
		assert_int_equal(fds[i], -1);
	/* What would have been refused in any case: not from a proxy. */
	assert_int_equal(sl_broker_send(p[0], &hello, (int[]){ 0, 1, 2, 0 }, 4), 0);
	assert_int_equal(sl_broker_recv(p[1], true, &got, fds), -EBADMSG);
	assert_int_equal(sl_broker_send(p[0], &hello, (int[]){ 0, 1, 2, 0 }, 4), 0);
	assert_int_equal(sl_broker_recv(p[1], false, &got, fds), -EBADMSG);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	assert_int_equal(count_fds(), before);
	close_pair(p);
}

static void test_closed(void **state)
{
	const struct sl_broker_msg msg = { .type = SL_BROKER_KILL };
	int p[2], fds[SL_BROKER_MAX_FDS];
	struct sl_broker_msg got;

	(void)state;
	pair(p);
	assert_int_equal(close(p[0]), 0);
	assert_int_equal(sl_broker_recv(p[1], true, &got, fds), -EPIPE);
	assert_int_equal(sl_broker_send(p[1], &msg, NULL, 0), -EPIPE);
	assert_int_equal(close(p[1]), 0);
}

/* Who dies with something unread resets the channel; what it had said before is not lost. */
static void test_last_words(void **state)
{
	struct sl_broker_msg msg = handover(SL_BROKER_HANDOVER), got;
	const struct sl_broker_msg unread = { .type = SL_BROKER_CHANGED };
	const int sent[2] = { STDIN_FILENO, STDOUT_FILENO };
	int p[2], fds[SL_BROKER_MAX_FDS];

	(void)state;
	pair(p);
	assert_int_equal(sl_broker_send(p[1], &unread, NULL, 0), 0);
	for (uint64_t id = 1; id <= 3; id++) {
		msg.conn_id = id;
		assert_int_equal(sl_broker_send(p[0], &msg, sent, 2), 0);
	}
	assert_int_equal(close(p[0]), 0);
	for (uint64_t id = 1; id <= 3; id++) {
		assert_int_equal(sl_broker_recv(p[1], true, &got, fds), 0);
		assert_int_equal(got.conn_id, id);
		sl_broker_close_fds(fds);
	}
	assert_int_equal(sl_broker_recv(p[1], true, &got, fds), -EPIPE);
	assert_int_equal(close(p[1]), 0);
}

/* The sender is told to come later, and everything it was allowed to send arrives. */
static void test_flood(void **state)
{
	struct sl_broker_msg msg = handover(SL_BROKER_HANDOVER), got;
	int p[2], fds[SL_BROKER_MAX_FDS];
	unsigned before, n = 0;
	int r = 0;

	(void)state;
	pair(p);
	before = count_fds();
	while (n < 100000 && (r = sl_broker_send(p[0], &msg, p, 2)) == 0) {
		n++;
		msg.conn_id++;
	}
	assert_int_equal(r, -EAGAIN);
	assert_true(n > 16);
	for (unsigned i = 0; i < n; i++) {
		assert_int_equal(sl_broker_recv(p[1], true, &got, fds), 0);
		assert_int_equal(got.conn_id, 7 + i);
		sl_broker_close_fds(fds);
	}
	assert_int_equal(sl_broker_recv(p[1], true, &got, fds), -EAGAIN);
	assert_int_equal(count_fds(), before);
	close_pair(p);
}

/* ---- sockets that make who closes them wait ---- */

/* A connection whose bytes nobody reads, and which is to wait three seconds when it is closed. */
static int lingering_socket(int *ret_peer)
{
	const struct linger linger = { .l_onoff = 1, .l_linger = 3 };
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000001) };
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), small = 4096;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	static const char bytes[65536];
	socklen_t len = sizeof(a);

	assert_true(listener >= 0 && fd >= 0);
	assert_int_equal(setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)), 0);
	assert_int_equal(bind(listener, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&a, &len), 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	*ret_peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	assert_true(*ret_peer >= 0);
	assert_int_equal(close(listener), 0);
	while (send(fd, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
		;
	assert_int_equal(errno, EAGAIN);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)), 0);
	return fd;
}

/* As the last of `n` descriptors. */
static void give_away(int sock, const void *bytes, size_t len, size_t n, int *ret_peer)
{
	int fd = lingering_socket(ret_peer);

	send_fds(sock, bytes, len, STDIN_FILENO, fd, n);
	/* ours is not the last one: it is in the message */
	assert_int_equal(close(fd), 0);
}

/* Refused, surplus or unread: such a socket must not stop the broker. */
static void test_linger(void **state)
{
	const struct sl_broker_msg kill = { .type = SL_BROKER_KILL };
	int p[2], fds[SL_BROKER_MAX_FDS], peer[4];
	struct sl_broker_msg got;
	uint64_t start;

	(void)state;
	pair(p);
	give_away(p[0], &kill, sizeof(kill), 1, &peer[0]);
	give_away(p[0], &kill, sizeof(kill), 20, &peer[1]);
	give_away(p[0], "", 0, 1, &peer[2]);
	send_raw(p[0], "", 0, -1, 0); /* an empty one is not the end */
	give_away(p[0], &kill, 5, 2, &peer[3]);
	start = sl_clock_ms();
	for (int i = 0; i < 2; i++)
		assert_int_equal(sl_broker_recv(p[1], true, &got, fds), -EBADMSG);
	assert_true(sl_clock_ms() - start < 1000);
	sl_broker_hang_up(p[1]);
	assert_true(sl_clock_ms() - start < 1000);
	for (int i = 0; i < 4; i++) {
		char buf[65536];

		/* the last descriptor is gone: the stream ends, or is reset, without one of ours */
		while (recv(peer[i], buf, sizeof(buf), 0) > 0)
			;
		assert_int_equal(close(peer[i]), 0);
	}
	assert_int_equal(close(p[0]), 0);
}

/* A proxy that resets a connection while it asks closes its copy first: the last one decides. */
static void test_reset_stays(void **state)
{
	const struct linger at_once = { .l_onoff = 1, .l_linger = 0 };
	int fds[SL_BROKER_MAX_FDS] = { -1, -1, -1, -1 };
	char buf[65536];
	ssize_t n = 1;
	int peer;

	(void)state;
	fds[0] = lingering_socket(&peer);
	assert_int_equal(setsockopt(fds[0], SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once)), 0);
	sl_broker_close_fds(fds);
	assert_int_equal(fds[0], -1);
	while (n > 0)
		n = recv(peer, buf, sizeof(buf), 0);
	assert_int_equal(n, -1);
	assert_int_equal(errno, ECONNRESET);
	assert_int_equal(close(peer), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_types),         cmocka_unit_test(test_nat_worker),
		cmocka_unit_test(test_requests),      cmocka_unit_test(test_replies),
		cmocka_unit_test(test_nat_replies),   cmocka_unit_test(test_texts),
		cmocka_unit_test(test_round_trip),    cmocka_unit_test(test_sender_checks),
		cmocka_unit_test(test_bad_datagrams), cmocka_unit_test(test_no_room_for_descriptor),
		cmocka_unit_test(test_closed),        cmocka_unit_test(test_last_words),
		cmocka_unit_test(test_flood),         cmocka_unit_test(test_linger),
		cmocka_unit_test(test_reset_stays),
	};

	return cmocka_run_group_tests_name("broker_wire", tests, NULL, NULL);
}
