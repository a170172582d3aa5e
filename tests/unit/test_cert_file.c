/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Files of certificates: what is read and what is refused, who is told that they have changed,
 * and the keys of tickets, which lie in no file.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/memfd.h"
#include "daemon/cert_file.h"
#include "daemon/file_watch.h"
#include "daemon/ticket_keys.h"

static char dir[] = "/tmp/sluice-cert.XXXXXX";

static int set_up(void **state)
{
	(void)state;
	return mkdtemp(dir) && chdir(dir) == 0 ? 0 : -1;
}

static int tear_down(void **state)
{
	char command[64];

	(void)state;
	(void)snprintf(command, sizeof(command), "rm -r %s", dir);
	return system(command);
}

static void write_file(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

/* ---- reading ---- */

static void expect_bad(const char *path, bool is_key, int err, const char *words)
{
	struct sl_cert_file file = { 0 };
	struct sl_str why = { 0 };

	assert_int_equal(sl_cert_file_read(path, is_key, &file, &why), err);
	assert_null(file.bytes);
	assert_non_null(strstr(sl_str_text(&why), words));
	sl_str_done(&why);
}

static void expect_text(const char *path, bool is_key, const char *text)
{
	struct sl_cert_file file = { 0 };
	struct sl_cert_file_id id;
	struct sl_str why = { 0 };

	assert_int_equal(sl_cert_file_read(path, is_key, &file, &why), 0);
	assert_int_equal(file.len, strlen(text));
	assert_string_equal(file.bytes, text);
	id = sl_cert_file_look(path);
	assert_true(sl_cert_file_is_same(&file.id, &id));
	sl_cert_file_done(&file);
	assert_null(file.bytes);
	assert_int_equal(why.len, 0);
}

static void test_read(void **state)
{
	(void)state;
	write_file("plain", "some bytes");
	expect_text("plain", false, "some bytes");
	assert_int_equal(symlink("plain", "link"), 0);
	expect_text("link", false, "some bytes");
	write_file("empty", "");
	expect_text("empty", false, "");
	write_file("full", "");
	assert_int_equal(truncate("full", SL_CERT_FILE_MAX + 1), 0);
	expect_bad("full", false, -EFBIG, "1 MiB");
	expect_bad("missing", false, -ENOENT, "no such file");
	expect_bad(".", false, -EINVAL, "no regular file");
	assert_int_equal(mkfifo("fifo", 0600), 0);
	expect_bad("fifo", false, -EINVAL, "no regular file");
	expect_bad("plain/below", false, -ENOTDIR, "Not a directory");
	assert_int_equal(symlink("round", "round"), 0);
	expect_bad("round", false, -ELOOP, "cannot be read");
}

static void test_key_of_others(void **state)
{
	static const mode_t good[] = { 0600, 0400, 0640, 0660, 0440 };
	static const mode_t bad[] = { 0644, 0604, 0602, 0601, 0666, 0444 };

	static const char secret[] = "-----BEGIN EC PRIVATE KEY-----\n";

	(void)state;
	write_file("key", secret);
	for (size_t i = 0; i < SL_ARRAY_LEN(good); i++) {
		assert_int_equal(chmod("key", good[i]), 0);
		expect_text("key", true, secret);
	}
	for (size_t i = 0; i < SL_ARRAY_LEN(bad); i++) {
		char mode[16];

		assert_int_equal(chmod("key", bad[i]), 0);
		(void)snprintf(mode, sizeof(mode), "mode %04o", (unsigned)bad[i]);
		expect_bad("key", true, -EINVAL, mode);
		expect_text("key", false, secret);
	}
	/* where no key is, as one may have been forgotten, there is nothing to hide */
	write_file("open", "-----BEGIN CERTIFICATE-----\n");
	assert_int_equal(chmod("open", 0644), 0);
	expect_text("open", true, "-----BEGIN CERTIFICATE-----\n");
	/* it is the file that counts, not the link to it */
	assert_int_equal(chmod("key", 0600), 0);
	assert_int_equal(symlink("key", "key.link"), 0);
	expect_text("key.link", true, secret);
}

static void test_ids(void **state)
{
	struct sl_cert_file_id a, b;
	struct sl_cert_file_id never = { 0 };

	(void)state;
	a = sl_cert_file_look("nothing");
	assert_int_equal(a.err, -ENOENT);
	assert_false(sl_cert_file_is_same(&a, &never));
	b = sl_cert_file_look("nothing");
	assert_true(sl_cert_file_is_same(&a, &b));
	write_file("one", "1");
	a = sl_cert_file_look("one");
	assert_false(sl_cert_file_is_same(&a, &b));
	assert_false(sl_cert_file_is_same(&a, &never));
	write_file("two", "1");
	b = sl_cert_file_look("two");
	assert_false(sl_cert_file_is_same(&a, &b));
	assert_int_equal(rename("two", "one"), 0);
	a = sl_cert_file_look("one");
	assert_int_equal(a.ino, b.ino);
	assert_int_equal(chmod("one", 0604), 0);
	b = sl_cert_file_look("one");
	assert_false(sl_cert_file_is_same(&a, &b));
}

/* ---- watching ---- */

struct looks {
	struct sl_loop *loop;
	struct sl_file_watch *watch;
	unsigned n;
};

static void on_look(void *arg, bool is_regular)
{
	struct looks *l = arg;

	assert_false(is_regular); /* no test takes a minute */
	l->n++;
}

static char paths[4][256];

static void start(struct looks *l, const char *a, const char *b)
{
	const char *list[2];
	size_t n = 0;

	*l = (struct looks){ 0 };
	assert_int_equal(sl_loop_new(&l->loop), 0);
	assert_int_equal(sl_file_watch_new(l->loop, on_look, l, &l->watch), 0);
	for (const char *name = a; name; name = name == a ? b : NULL) {
		(void)snprintf(paths[n], sizeof(paths[n]), "%s/%s", dir, name);
		list[n] = paths[n];
		n++;
	}
	assert_int_equal(sl_file_watch_set(l->watch, list, n), 0);
}

static void end(struct looks *l)
{
	sl_file_watch_free(l->watch);
	sl_loop_free(l->loop);
}

/* Turns until somebody has been told, at most 5 s. */
static void expect_look(struct looks *l)
{
	uint64_t until_ms = sl_clock_ms() + 5000;
	unsigned before = l->n;

	while (l->n == before && sl_clock_ms() < until_ms)
		assert_int_equal(sl_loop_turn(l->loop, 50), 0);
	assert_int_equal(l->n, before + 1);
}

/* Nothing is under way: what has been asked for would have come by now. */
static void expect_none(struct looks *l)
{
	uint64_t until_ms = sl_clock_ms() + 2 * SL_FILE_WATCH_SETTLED_MS;
	unsigned before = l->n;

	while (sl_clock_ms() < until_ms)
		assert_int_equal(sl_loop_turn(l->loop, 50), 0);
	assert_int_equal(l->n, before);
}

static void test_rename_and_write(void **state)
{
	struct looks l;

	(void)state;
	assert_int_equal(mkdir("w", 0700), 0);
	write_file("w/cert", "1");
	write_file("w/new", "2");
	start(&l, "w/cert", NULL);
	expect_none(&l);
	assert_int_equal(rename("w/new", "w/cert"), 0);
	expect_look(&l);
	write_file("w/cert", "3");
	expect_look(&l);
	assert_int_equal(chmod("w/cert", 0644), 0);
	expect_look(&l);
	assert_int_equal(unlink("w/cert"), 0);
	expect_look(&l);
	write_file("w/cert", "4");
	expect_look(&l);
	expect_none(&l);
	/* several at once are one */
	write_file("w/cert", "5");
	write_file("w/key", "5");
	expect_look(&l);
	expect_none(&l);
	end(&l);
}

/* As certbot has it: live/NAME/cert.pem -> ../../archive/NAME/certN.pem. */
static void test_links(void **state)
{
	struct looks l;

	(void)state;
	assert_int_equal(mkdir("archive", 0700), 0);
	assert_int_equal(mkdir("live", 0700), 0);
	write_file("archive/cert1", "1");
	assert_int_equal(symlink("../archive/cert1", "live/cert"), 0);
	start(&l, "live/cert", NULL);
	write_file("archive/cert1", "1+");
	expect_look(&l);
	write_file("archive/cert2", "2");
	expect_look(&l);
	assert_int_equal(symlink("../archive/cert2", "live/next"), 0);
	assert_int_equal(rename("live/next", "live/cert"), 0);
	expect_look(&l);
	end(&l);
}

/* As secrets that are mounted have it: one link to a directory moves all files at once. */
static void test_link_on_the_way(void **state)
{
	struct looks l;

	(void)state;
	assert_int_equal(mkdir("m", 0700), 0);
	assert_int_equal(mkdir("m/v1", 0700), 0);
	assert_int_equal(mkdir("m/v2", 0700), 0);
	write_file("m/v1/cert", "1");
	write_file("m/v2/cert", "2");
	assert_int_equal(symlink("v1", "m/now"), 0);
	assert_int_equal(symlink("now/cert", "m/cert"), 0);
	start(&l, "m/cert", "m/now/cert");
	expect_none(&l);
	assert_int_equal(symlink("v2", "m/next"), 0);
	assert_int_equal(rename("m/next", "m/now"), 0);
	expect_look(&l);
	/* from now on the other directory counts */
	write_file("m/v2/cert", "2+");
	expect_look(&l);
	write_file("m/v1/cert", "1+");
	expect_none(&l);
	end(&l);
}

static void test_what_is_missing(void **state)
{
	struct looks l;

	(void)state;
	start(&l, "later/on/cert", NULL);
	assert_int_equal(mkdir("later", 0700), 0);
	expect_look(&l);
	assert_int_equal(mkdir("later/on", 0700), 0);
	expect_look(&l);
	write_file("later/on/cert", "1");
	expect_look(&l);
	assert_int_equal(rename("later/on", "later/off"), 0);
	expect_look(&l);
	end(&l);
}

/* Whoever writes all the time does not keep others from being seen. */
static void test_busy(void **state)
{
	struct looks l;
	uint64_t until_ms = sl_clock_ms() + 10000;

	(void)state;
	assert_int_equal(mkdir("busy", 0700), 0);
	start(&l, "busy/cert", NULL);
	while (l.n == 0 && sl_clock_ms() < until_ms) {
		write_file("busy/log", "x");
		assert_int_equal(sl_loop_turn(l.loop, 20), 0);
	}
	assert_int_equal(l.n, 1);
	end(&l);
}

static void test_none_any_more(void **state)
{
	struct looks l;

	(void)state;
	assert_int_equal(mkdir("none", 0700), 0);
	start(&l, "none/cert", NULL);
	sl_file_watch_ask(l.watch);
	assert_int_equal(sl_file_watch_set(l.watch, NULL, 0), 0);
	write_file("none/cert", "1");
	sl_file_watch_ask(l.watch);
	expect_none(&l);
	end(&l);
}

/* ---- keys of tickets ---- */

static void read_keys(int fd, struct sl_tls_ticket_key *keys, size_t n)
{
	char *bytes = NULL;
	size_t len = 0;

	assert_int_equal(sl_memfd_read(fd, 4096, &bytes, &len), 0);
	assert_int_equal(len, n * sizeof(*keys));
	memcpy(keys, bytes, len);
	free(bytes);
}

static bool is_same_key(const struct sl_tls_ticket_key *a, const struct sl_tls_ticket_key *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}

/* Each is next, in use, last, gone. */
static void test_ticket_keys(void **state)
{
	struct sl_tls_ticket_key keys[4][3] = { 0 };
	struct sl_tls_tickets *tickets = NULL;
	int fd[4] = { -1, -1, -1, -1 };

	(void)state;
	assert_int_equal(sl_ticket_keys_new(&fd[0]), 0);
	read_keys(fd[0], keys[0], 2);
	for (int i = 1; i < 4; i++) {
		assert_int_equal(sl_ticket_keys_turn(fd[i - 1], &fd[i]), 0);
		read_keys(fd[i], keys[i], 3);
		assert_true(is_same_key(&keys[i][0], &keys[i - 1][1]));
		assert_true(is_same_key(&keys[i][2], &keys[i - 1][0]));
		for (int k = 0; k < i; k++)
			for (int at = 0; at < 3; at++)
				assert_false(is_same_key(&keys[i][1], &keys[k][at]));
	}
	for (int i = 0; i < 4; i++) {
		assert_int_equal(sl_ticket_keys_unpack(fd[i], &tickets), 0);
		sl_tls_tickets_unref(tickets);
		assert_int_equal(close(fd[i]), 0);
	}
}

static void test_no_ticket_keys(void **state)
{
	static const size_t sizes[] = { 0,
					1,
					sizeof(struct sl_tls_ticket_key),
					2 * sizeof(struct sl_tls_ticket_key) - 1,
					2 * sizeof(struct sl_tls_ticket_key) + 1,
					4 * sizeof(struct sl_tls_ticket_key) };
	static const char zeros[4 * sizeof(struct sl_tls_ticket_key)];
	struct sl_tls_tickets *tickets = NULL;
	int next = -1;

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(sizes); i++) {
		int fd = -1;

		assert_int_equal(sl_memfd_new("test", zeros, sizes[i], &fd), 0);
		assert_int_equal(sl_ticket_keys_unpack(fd, &tickets), -EBADMSG);
		assert_int_equal(sl_ticket_keys_turn(fd, &next), -EBADMSG);
		assert_int_equal(close(fd), 0);
	}
	assert_null(tickets);
	assert_int_equal(next, -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_read),
		cmocka_unit_test(test_key_of_others),
		cmocka_unit_test(test_ids),
		cmocka_unit_test(test_rename_and_write),
		cmocka_unit_test(test_links),
		cmocka_unit_test(test_link_on_the_way),
		cmocka_unit_test(test_what_is_missing),
		cmocka_unit_test(test_busy),
		cmocka_unit_test(test_none_any_more),
		cmocka_unit_test(test_ticket_keys),
		cmocka_unit_test(test_no_ticket_keys),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
