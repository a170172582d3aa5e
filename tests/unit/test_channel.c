/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Messages between the processes: only whole, known ones with the right descriptors get through. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/bundle.h"
#include "daemon/channel.h"

static void pair(int ret[2])
{
	assert_int_equal(sl_channel_pair(ret), 0);
}

static void close_pair(const int p[2])
{
	assert_int_equal(close(p[0]), 0);
	assert_int_equal(close(p[1]), 0);
}

static unsigned count_fds(void)
{
	unsigned n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

/* Sends `len` bytes of a message of this type with `n_fds` copies of `fd`. */
static void send_raw(int sock, uint32_t type, size_t len, int fd, size_t n_fds)
{
	char bytes[512] = { 0 };
	struct iovec iov = { .iov_base = bytes, .iov_len = len };
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(8 * sizeof(int))];
	} control = { 0 };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };

	memcpy(bytes, &type, sizeof(type));
	if (n_fds > 0) {
		struct cmsghdr *c;

		mh.msg_control = control.room;
		mh.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		c = CMSG_FIRSTHDR(&mh);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		for (size_t i = 0; i < n_fds; i++)
			memcpy(CMSG_DATA(c) + i * sizeof(int), &fd, sizeof(int));
	}
	assert_int_equal(sendmsg(sock, &mh, 0), len);
}

static void test_round_trip(void **state)
{
	struct sl_msg msg = { .type = SL_MSG_LISTENER, .id = 7 };
	struct sl_msg got;
	struct stat a, b;
	int fd = -1;
	int p[2];

	(void)state;
	pair(p);
	msg.listener.from = 80;
	msg.listener.to = 90;
	assert_int_equal(sl_msg_recv(p[1], &got, &fd), -EAGAIN);
	assert_int_equal(sl_msg_send(p[0], &msg, p[0]), 0);
	assert_int_equal(sl_msg_recv(p[1], &got, &fd), 0);
	assert_memory_equal(&got, &msg, sizeof(msg));
	assert_int_equal(fstat(fd, &a), 0);
	assert_int_equal(fstat(p[0], &b), 0);
	assert_int_equal(a.st_ino, b.st_ino);
	assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
	assert_int_equal(close(fd), 0);
	close_pair(p);
}

static void test_sender_checks_descriptors(void **state)
{
	const struct sl_msg with = { .type = SL_MSG_CONFIG };
	const struct sl_msg without = { .type = SL_MSG_PREPARE };
	const struct sl_msg unknown = { .type = SL_MSG_COUNT_ };
	int p[2];

	(void)state;
	pair(p);
	assert_int_equal(sl_msg_send(p[0], &with, -1), -EINVAL);
	assert_int_equal(sl_msg_send(p[0], &without, p[0]), -EINVAL);
	assert_int_equal(sl_msg_send(p[0], &unknown, -1), -EINVAL);
	close_pair(p);
}

static void test_bad_messages(void **state)
{
	static const struct {
		const char *why;
		uint32_t type;
		size_t len;
		size_t n_fds;
	} rows[] = {
		{ "too short", SL_MSG_PREPARE, sizeof(struct sl_msg) - 1, 0 },
		{ "too long", SL_MSG_PREPARE, sizeof(struct sl_msg) + 1, 0 },
		{ "one byte", SL_MSG_PREPARE, 1, 0 },
		{ "type 0", 0, sizeof(struct sl_msg), 0 },
		{ "type beyond", SL_MSG_COUNT_, sizeof(struct sl_msg), 0 },
		{ "type huge", UINT32_MAX, sizeof(struct sl_msg), 0 },
		{ "descriptor missing", SL_MSG_LISTENER, sizeof(struct sl_msg), 0 },
		{ "descriptor too many", SL_MSG_LISTENER, sizeof(struct sl_msg), 2 },
		{ "descriptors beyond room", SL_MSG_LISTENER, sizeof(struct sl_msg), 8 },
		{ "descriptor unasked", SL_MSG_PREPARE, sizeof(struct sl_msg), 1 },
		{ "short with descriptor", SL_MSG_LISTENER, 4, 1 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct sl_msg got = { .type = 99 };
		int fd = -7;
		unsigned before;
		int p[2];

		pair(p);
		before = count_fds();
		send_raw(p[0], rows[i].type, rows[i].len, p[0], rows[i].n_fds);
		if (sl_msg_recv(p[1], &got, &fd) != -EBADMSG)
			fail_msg("%s: accepted", rows[i].why);
		assert_int_equal(got.type, 99);
		assert_int_equal(fd, -7);
		assert_int_equal(count_fds(), before); /* nothing leaked */
		close_pair(p);
	}
}

static void test_no_room_for_descriptor(void **state)
{
	const struct sl_msg msg = { .type = SL_MSG_CONFIG };
	struct rlimit old, low;
	struct sl_msg got;
	int fd = -1;
	int lowest;
	int p[2];

	(void)state;
	pair(p);
	assert_int_equal(sl_msg_send(p[0], &msg, p[0]), 0);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	lowest = dup(p[0]);
	assert_true(lowest >= 0);
	assert_int_equal(close(lowest), 0);
	low = (struct rlimit){ (rlim_t)lowest, old.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
	assert_int_equal(sl_msg_recv(p[1], &got, &fd), -EBADMSG);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	close_pair(p);
}

static void test_closed(void **state)
{
	const struct sl_msg msg = { .type = SL_MSG_PREPARE };
	struct sl_msg got;
	int fd = -1;
	int p[2];

	(void)state;
	pair(p);
	assert_int_equal(close(p[0]), 0);
	assert_int_equal(sl_msg_recv(p[1], &got, &fd), -EPIPE);
	assert_int_equal(sl_msg_send(p[1], &msg, -1), -EPIPE);
	assert_int_equal(close(p[1]), 0);
}

static void test_text_is_terminated(void **state)
{
	struct sl_msg msg = { .type = SL_MSG_FAILED };
	struct sl_msg got;
	int fd = -1;
	int p[2];

	(void)state;
	pair(p);
	memset(msg.text, 'x', sizeof(msg.text));
	assert_int_equal(sl_msg_send(p[0], &msg, -1), 0);
	assert_int_equal(sl_msg_recv(p[1], &got, &fd), 0);
	assert_int_equal(strnlen(got.text, sizeof(got.text)), sizeof(got.text) - 1);
	close_pair(p);
}

struct seen {
	unsigned n;
	uint64_t last_id;
	int err;
	struct sl_channel *free_in_callback;
};

static void on_message(void *arg, int err, const struct sl_msg *msg, int fd)
{
	struct seen *seen = arg;

	if (err) {
		seen->err = err;
	} else {
		if (msg->type == SL_MSG_LISTENER)
			assert_int_equal(close(fd), 0);
		else
			assert_int_equal(fd, -1);
		assert_int_equal(msg->id, seen->last_id + 1);
		seen->last_id = msg->id;
		seen->n++;
	}
	if (seen->free_in_callback) {
		sl_channel_free(seen->free_in_callback);
		seen->free_in_callback = NULL;
	}
}

/* More than the socket takes: queued without blocking, delivered in order, one by one. */
static void test_flood_is_queued(void **state)
{
	const unsigned n = 5000;
	struct seen at_a = { 0 }, at_b = { 0 };
	struct sl_channel *a = NULL, *b = NULL;
	struct sl_loop *loop = NULL;
	unsigned before = count_fds();
	int p[2];

	(void)state;
	assert_int_equal(sl_loop_new(&loop), 0);
	pair(p);
	assert_int_equal(sl_channel_new(loop, p[0], SL_ROLE_PROXY, on_message, &at_a, &a), 0);
	for (unsigned i = 1; i <= n; i++) {
		const struct sl_msg msg = { .type = SL_MSG_LISTENER, .id = i };
		int copy = i % 2 ? fcntl(p[0], F_DUPFD_CLOEXEC, 3) : -1;

		if (copy < 0 || i > 400)
			assert_int_equal(sl_channel_send(a, &msg, p[0]), 0);
		else
			assert_int_equal(sl_channel_send_owned(a, &msg, copy), 0);
		if (copy >= 0 && i > 400)
			assert_int_equal(close(copy), 0);
	}
	assert_false(sl_channel_is_flushed(a));
	assert_int_equal(sl_channel_new(loop, p[1], SL_ROLE_SUPERVISOR, on_message, &at_b, &b), 0);
	for (int i = 0; i < 10000 && at_b.n < n; i++)
		assert_true(sl_loop_turn(loop, 1000) >= 0);
	assert_int_equal(at_b.n, n);
	assert_true(sl_channel_is_flushed(a));
	sl_channel_free(a);
	assert_true(sl_loop_turn(loop, 1000) >= 0);
	assert_int_equal(at_b.err, -EPIPE);
	sl_channel_free(b);
	sl_loop_free(loop);
	assert_int_equal(count_fds(), before);
}

/* What a role may not say ends the channel on which it says it. */
static void test_wrong_sender(void **state)
{
	static const struct {
		uint32_t type;
		enum sl_role sender;
	} rows[] = {
		{ SL_MSG_STOP, SL_ROLE_PROXY },          { SL_MSG_STOP, SL_ROLE_BROKER },
		{ SL_MSG_NO_BROKER, SL_ROLE_PROXY },     { SL_MSG_APPLIED, SL_ROLE_BROKER },
		{ SL_MSG_REQUEST, SL_ROLE_BROKER },      { SL_MSG_READY, SL_ROLE_SUPERVISOR },
		{ SL_MSG_PREPARED, SL_ROLE_SUPERVISOR }, { SL_MSG_FAILED, SL_ROLE_SUPERVISOR },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct sl_msg msg = { .type = rows[i].type };
		struct seen seen = { 0 };
		struct sl_channel *ch = NULL;
		struct sl_loop *loop = NULL;
		int p[2];

		assert_int_equal(sl_loop_new(&loop), 0);
		pair(p);
		assert_int_equal(sl_channel_new(loop, p[0], rows[i].sender, on_message, &seen, &ch),
				 0);
		assert_int_equal(sl_msg_send(p[1], &msg, -1), 0);
		assert_true(sl_loop_turn(loop, 1000) >= 0);
		assert_int_equal(seen.err, -EBADMSG);
		assert_int_equal(sl_channel_send(ch, &msg, -1), -EPIPE);
		sl_channel_free(ch);
		sl_loop_free(loop);
		assert_int_equal(close(p[1]), 0);
	}
}

static void test_right_sender(void **state)
{
	(void)state;
	assert_true(sl_msg_may_come_from(SL_MSG_READY, SL_ROLE_BROKER));
	assert_true(sl_msg_may_come_from(SL_MSG_FAILED, SL_ROLE_BROKER));
	assert_true(sl_msg_may_come_from(SL_MSG_READY, SL_ROLE_PROXY));
	assert_true(sl_msg_may_come_from(SL_MSG_POLICY, SL_ROLE_SUPERVISOR));
	assert_false(sl_msg_may_come_from(0, SL_ROLE_SUPERVISOR));
	assert_false(sl_msg_may_come_from(SL_MSG_COUNT_, SL_ROLE_SUPERVISOR));
	for (uint32_t type = SL_MSG_OPTIONS; type < SL_MSG_COUNT_; type++)
		assert_true(sl_msg_may_come_from(type, SL_ROLE_SUPERVISOR) !=
			    (sl_msg_may_come_from(type, SL_ROLE_PROXY) ||
			     sl_msg_may_come_from(type, SL_ROLE_BROKER)));
}

static void test_free_in_callback(void **state)
{
	const struct sl_msg msg = { .type = SL_MSG_READY, .id = 1 };
	struct seen seen = { 0 };
	struct sl_channel *ch = NULL;
	struct sl_loop *loop = NULL;
	int p[2];

	(void)state;
	assert_int_equal(sl_loop_new(&loop), 0);
	pair(p);
	assert_int_equal(sl_channel_new(loop, p[0], SL_ROLE_PROXY, on_message, &seen, &ch), 0);
	seen.free_in_callback = ch;
	assert_int_equal(sl_msg_send(p[1], &msg, -1), 0);
	assert_int_equal(sl_msg_send(p[1], &msg, -1), 0);
	assert_true(sl_loop_turn(loop, 1000) >= 0);
	assert_int_equal(seen.n, 1);
	sl_loop_free(loop);
	assert_int_equal(close(p[1]), 0);
}

/* ---- long texts ---- */

static void test_memfd(void **state)
{
	char *text = NULL;
	size_t len = 0;
	int fd = -1;

	(void)state;
	assert_int_equal(sl_memfd_new("test", "hello", 5, &fd), 0);
	assert_int_equal(write(fd, "x", 1), -1);
	assert_int_equal(ftruncate(fd, 0), -1);
	assert_int_equal(sl_memfd_read(fd, 4, &text, &len), -EFBIG);
	assert_null(text);
	assert_int_equal(sl_memfd_read(fd, 5, &text, &len), 0);
	assert_int_equal(len, 5);
	assert_string_equal(text, "hello");
	free(text);
	assert_int_equal(close(fd), 0);
}

static void test_memfd_must_be_sealed(void **state)
{
	char *text = NULL;
	size_t len;
	int fd = memfd_create("open", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(sl_memfd_read(fd, 100, &text, &len), -EPERM);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), 0);
	assert_int_equal(sl_memfd_read(fd, 100, &text, &len), -EPERM);
	assert_int_equal(close(fd), 0);
}

static void test_bundle(void **state)
{
	struct sl_conf_source items[] = {
		{ .name = (char *)"a.yaml", .text = (char *)"x\0y", .len = 3 },
		{ .name = (char *)"b.yaml", .text = (char *)"", .len = 0 },
	};
	const struct sl_bundle in = { .sources = { items, 2 },
				      .hosts = (char *)"::1 me",
				      .hosts_len = 6 };
	struct sl_bundle out;
	int fd = -1;

	(void)state;
	assert_int_equal(sl_bundle_pack(&in, &fd), 0);
	assert_int_equal(sl_bundle_unpack(fd, &out), 0);
	assert_int_equal(out.sources.n, 2);
	assert_string_equal(out.sources.item[0].name, "a.yaml");
	assert_int_equal(out.sources.item[0].len, 3);
	assert_memory_equal(out.sources.item[0].text, "x\0y", 4);
	assert_string_equal(out.sources.item[1].name, "b.yaml");
	assert_int_equal(out.sources.item[1].len, 0);
	assert_string_equal(out.hosts, "::1 me");
	assert_null(out.resolv_conf);
	sl_bundle_done(&out);
	assert_int_equal(close(fd), 0);
}

/* Every cut and every wild length is refused, none is followed. */
static void test_bad_bundles(void **state)
{
	struct sl_conf_source item = { .name = (char *)"n", .text = (char *)"text", .len = 4 };
	const struct sl_bundle in = { .sources = { &item, 1 } };
	struct sl_bundle out;
	char *bytes = NULL;
	size_t len = 0;
	int fd = -1;

	(void)state;
	assert_int_equal(sl_bundle_pack(&in, &fd), 0);
	assert_int_equal(sl_memfd_read(fd, 1000, &bytes, &len), 0);
	assert_int_equal(close(fd), 0);
	for (size_t cut = 1; cut < len; cut++) {
		assert_int_equal(sl_memfd_new("cut", bytes, cut, &fd), 0);
		assert_int_equal(sl_bundle_unpack(fd, &out), -EBADMSG);
		assert_int_equal(close(fd), 0);
	}
	for (size_t field = 0; field < 3; field++) {
		char *bad = malloc(len);

		assert_non_null(bad);
		memcpy(bad, bytes, len);
		memset(bad + field * 8, 0xff, 8);
		assert_int_equal(sl_memfd_new("bad", bad, len, &fd), 0);
		assert_int_equal(sl_bundle_unpack(fd, &out), -EBADMSG);
		assert_int_equal(close(fd), 0);
		free(bad);
	}
	free(bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_sender_checks_descriptors),
		cmocka_unit_test(test_bad_messages),
		cmocka_unit_test(test_no_room_for_descriptor),
		cmocka_unit_test(test_closed),
		cmocka_unit_test(test_text_is_terminated),
		cmocka_unit_test(test_flood_is_queued),
		cmocka_unit_test(test_wrong_sender),
		cmocka_unit_test(test_right_sender),
		cmocka_unit_test(test_free_in_callback),
		cmocka_unit_test(test_memfd),
		cmocka_unit_test(test_memfd_must_be_sealed),
		cmocka_unit_test(test_bundle),
		cmocka_unit_test(test_bad_bundles),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
