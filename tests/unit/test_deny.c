/* SPDX-License-Identifier: GPL-3.0-or-later */
/* deny_file: what is read, what is refused, and what the proxy believes of the memfd it gets. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/deny.h"
#include "daemon/deny_set.h"

#define SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

static char path[] = "/tmp/sluice-deny.XXXXXX";

static int set_up(void **state)
{
	int fd = mkstemp(path);

	(void)state;
	return fd < 0 ? -1 : close(fd);
}

static int tear_down(void **state)
{
	(void)state;
	return unlink(path);
}

static void write_file(const char *text, size_t n)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_int_equal(fwrite(text, 1, n, f), n);
	assert_int_equal(fclose(f), 0);
}

static struct sl_deny_list *read_good(const char *text)
{
	struct sl_str report = { 0 };
	struct sl_deny_list *list = NULL;

	write_file(text, strlen(text));
	assert_int_equal(sl_deny_list_read(path, &list, &report), 0);
	assert_int_equal(report.len, 0);
	return list;
}

/* The report, to be freed. */
static char *read_bad(int err)
{
	struct sl_deny_list *list = NULL;
	struct sl_str report = { 0 };

	assert_int_equal(sl_deny_list_read(path, &list, &report), err);
	assert_null(list);
	assert_true(report.len > 0);
	return sl_str_take(&report);
}

static struct sl_ip_set set_of(const struct sl_deny_list *list)
{
	struct sl_ip_set set = { 0 };

	assert_int_equal(sl_deny_set_unpack(list->fd, &set), 0);
	return set;
}

static bool has(const struct sl_ip_set *set, const char *text)
{
	struct sl_addr a;

	assert_int_equal(sl_addr_parse_ip(text, &a), 0);
	return sl_ip_set_has(set, &a);
}

/* ---- the file ---- */

static void test_forms(void **state)
{
	static const char *const in[] = { "10.0.0.1",    "10.1.255.255", "10.2.0.5", "10.2.0.9",
					  "10.3.7.8",    "10.4.5.1",     "::1",      "2001:db8::",
					  "2001:db8::f", "192.0.2.1",    "10.99.1.7" };
	static const char *const out[] = { "10.0.0.0",    "10.0.0.2", "10.2.0.4",  "10.2.0.10",
					   "10.4.5.2",    "::2",      "10.4.55.1", "2001:db8::10",
					   "10.99.2.255", "192.0.2.2" };
	struct sl_deny_list *list;
	struct sl_ip_set set;

	(void)state;
	list = read_good("# a comment\n\n10.0.0.1\n10.1.0.0/16 # one more\n\t10.2.0.5-10.2.0.9 \n"
			 "10.3.*\n10.4.?.1\n::1\n2001:db8::/124\n::ffff:192.0.2.1\n10.*.1.*");
	assert_int_equal(list->n_patterns, 9);
	set = set_of(list);
	/* Small globs have become ranges. */
	assert_int_equal(set.n_globs, 0);
	assert_int_equal(list->n_ranges, set.n4 + set.n6);
	for (size_t i = 0; i < SL_ARRAY_LEN(in); i++)
		assert_true(has(&set, in[i]));
	for (size_t i = 0; i < SL_ARRAY_LEN(out); i++)
		assert_false(has(&set, out[i]));
	sl_ip_list_done(&set);
	sl_deny_list_free(list);
}

static void test_empty(void **state)
{
	static const char *const texts[] = { "", "\n", "# nothing", "\n\n  \n#\n" };
	struct sl_str report = { 0 };
	struct sl_deny_list *list = NULL;
	struct sl_ip_set set;

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(texts); i++) {
		list = read_good(texts[i]);
		set = set_of(list);
		assert_true(sl_ip_set_is_empty(&set));
		assert_int_equal(list->n_patterns, 0);
		sl_ip_list_done(&set);
		sl_deny_list_free(list);
	}
	/* No file at all is the same. */
	assert_int_equal(sl_deny_list_read(NULL, &list, &report), 0);
	assert_int_equal(list->n_ranges, 0);
	set = set_of(list);
	assert_true(sl_ip_set_is_empty(&set));
	sl_ip_list_done(&set);
	sl_deny_list_free(list);
}

static void test_merged(void **state)
{
	struct sl_deny_list *list;
	struct sl_ip_set set;

	(void)state;
	list = read_good("10.0.0.3\n10.0.0.1\n10.0.0.2\n10.0.0.0/29\n10.0.0.8\n::2\n::1\n");
	set = set_of(list);
	assert_int_equal(list->n_patterns, 7);
	assert_int_equal(list->n_ranges, 2);
	assert_int_equal(set.n4, 1);
	assert_int_equal(set.v4[0].from, 0x0a000000);
	assert_int_equal(set.v4[0].to, 0x0a000008);
	sl_ip_list_done(&set);
	sl_deny_list_free(list);
}

static void test_bad_lines(void **state)
{
	char text[2000] = "10.0.0.1\n\n";
	char *report;
	char want[200];

	(void)state;
	for (int i = 0; i < 25; i++)
		(void)snprintf(text + strlen(text), sizeof(text) - strlen(text), "bad%d\n", i);
	write_file(text, strlen(text));
	report = read_bad(-EINVAL);
	for (int i = 0; i < 25; i++) {
		(void)snprintf(want, sizeof(want), "%s:%d: error: 'bad%d': ", path, i + 3, i);
		assert_int_equal(strstr(report, want) != NULL, i < 20);
	}
	assert_non_null(strstr(report, "5 more bad lines\n"));
	free(report);
	/* Whatever is in the line ends up on a terminal. */
	write_file("10.0.0.1\n\x1b[2J\0'x\n", 16);
	report = read_bad(-EINVAL);
	assert_non_null(strstr(report, ":2: error: '\\x1b[2J\\x00'x': "));
	free(report);
	memset(text, 'a', sizeof(text));
	write_file(text, sizeof(text));
	report = read_bad(-EINVAL);
	assert_true(strlen(report) < 300);
	free(report);
}

static void test_no_file(void **state)
{
	struct sl_deny_list *list = NULL;
	struct sl_str report = { 0 };

	(void)state;
	assert_int_equal(sl_deny_list_read("/nonexistent/x", &list, &report), -ENOENT);
	assert_non_null(strstr(report.p, "/nonexistent/x: error: global.security.deny_file: No "));
	sl_str_clear(&report);
	assert_int_equal(sl_deny_list_read("/tmp", &list, &report), -EINVAL);
	sl_str_clear(&report);
	assert_int_equal(sl_deny_list_read("/dev/zero", &list, &report), -EINVAL);
	assert_null(list);
	sl_str_done(&report);
}

static void write_repeated(const char *line, size_t n)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	for (size_t i = 0; i < n; i++)
		assert_true(fputs(line, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

static void test_limits(void **state)
{
	struct sl_deny_list *list;
	struct sl_str report = { 0 };
	char *text;

	(void)state;
	write_repeated("1.2.3.4\n", SL_DENY_PATTERNS_MAX);
	assert_int_equal(sl_deny_list_read(path, &list, &report), 0);
	assert_int_equal(list->n_patterns, SL_DENY_PATTERNS_MAX);
	assert_int_equal(list->n_ranges, 1);
	sl_deny_list_free(list);
	write_repeated("1.2.3.4\n", SL_DENY_PATTERNS_MAX + 1);
	text = read_bad(-E2BIG);
	assert_non_null(strstr(text, "4 million"));
	free(text);
	write_repeated("\n", 10);
	assert_int_equal(truncate(path, SL_DENY_FILE_MAX), 0);
	free(read_bad(-EINVAL)); /* zeros, but not too long */
	assert_int_equal(truncate(path, SL_DENY_FILE_MAX + 1), 0);
	text = read_bad(-EFBIG);
	free(text);
	write_repeated("*.*.*.1\n", SL_DENY_GLOBS_MAX);
	assert_int_equal(sl_deny_list_read(path, &list, &report), 0);
	assert_int_equal(list->n_ranges, SL_DENY_GLOBS_MAX);
	sl_deny_list_free(list);
	write_repeated("*.*.*.1\n", SL_DENY_GLOBS_MAX + 1);
	free(read_bad(-E2BIG));
	write_repeated("10.?.?.1\n", 65537);
	free(read_bad(-E2BIG));
	write_repeated("10.*.?.1\n", 4096); /* 2560 ranges each */
	text = read_bad(-E2BIG);
	assert_non_null(strstr(text, "8 million"));
	free(text);
}

/* ---- sets ---- */

static uint32_t next_random(uint32_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 17;
	*x ^= *x << 5;
	return *x;
}

static void add_pattern(struct sl_ip_set *set, const char *text)
{
	struct sl_ip_set one = { 0 };
	struct sl_ip_pattern p;
	struct sl_ip4_range v4;
	struct sl_ip4_glob glob;
	const char *why;

	assert_int_equal(sl_ip_pattern_parse(sl_slice_of(text), &p, &why), 0);
	one.v4 = &v4;
	one.globs = &glob;
	sl_ip_set_put(&one, &p);
	assert_int_equal(sl_deny_set_append(set, &one), 0);
}

/* The same addresses, whichever form. */
static void test_expand(void **state)
{
	static const struct {
		const char *pattern;
		size_t n_ranges;
		size_t n_globs;
	} cases[] = {
		{ "10.?.?.1", 100, 0 },  { "10.*.1.*", 256, 0 }, { "10.*.?.1", 2560, 0 },
		{ "*.1.*.*", 256, 0 },   { "*.*.1.*", 0, 1 },    { "*.*.*.1", 0, 1 },
		{ "?.?.?.??", 1000, 0 }, { "10.0.0.1?", 1, 0 },  { "1?.?0.1?.*", 90, 0 },
		{ "10.1.?.??", 10, 0 },
	};
	uint32_t seed = 4711;

	(void)state;
	for (size_t c = 0; c < SL_ARRAY_LEN(cases); c++) {
		struct sl_ip_set before = { 0 };
		struct sl_ip_set after = { 0 };

		add_pattern(&before, cases[c].pattern);
		add_pattern(&after, cases[c].pattern);
		assert_int_equal(sl_deny_set_expand(&after), 0);
		assert_int_equal(after.n4, cases[c].n_ranges);
		assert_int_equal(after.n_globs, cases[c].n_globs);
		sl_deny_set_build(&before);
		sl_deny_set_build(&after);
		for (int i = 0; i < 200000; i++) {
			uint32_t r = next_random(&seed);
			struct sl_addr a = { .v4 = { .sin_family = AF_INET } };

			/* Small octets are what the patterns are about. */
			if (i % 2)
				r &= 0x0f1f1f0f;
			a.v4.sin_addr.s_addr = htonl(r);
			assert_int_equal(sl_ip_set_has(&before, &a), sl_ip_set_has(&after, &a));
		}
		sl_ip_list_done(&before);
		sl_ip_list_done(&after);
	}
}

/* ---- the memfd ---- */

struct head {
	uint64_t magic;
	uint64_t n4;
	uint64_t n6;
	uint64_t n_globs;
};

static int memfd(const void *bytes, size_t n, int seals)
{
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, n), n);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

static int unpack(const void *bytes, size_t n, int seals)
{
	struct sl_ip_set set = { .n4 = 77 };
	int fd = memfd(bytes, n, seals);
	int r = sl_deny_set_unpack(fd, &set);

	assert_int_equal(close(fd), 0);
	if (r == 0)
		sl_ip_list_done(&set);
	else
		assert_int_equal(set.n4, 77);
	return r;
}

static size_t good_bytes(uint8_t *to, size_t size)
{
	struct sl_ip_set set = { 0 };
	struct stat st;
	int fd = -1;

	add_pattern(&set, "10.0.0.0/8");
	add_pattern(&set, "11.0.0.2-11.0.0.9");
	add_pattern(&set, "192.0.2.1");
	add_pattern(&set, "*.*.*.1");
	assert_non_null(set.v6 = realloc(set.v6, 2 * sizeof(*set.v6)));
	set.n6 = 2;
	memset(set.v6, 0, 2 * sizeof(*set.v6));
	set.v6[0].to[15] = 9;
	set.v6[1].from[0] = 0x20;
	set.v6[1].to[0] = 0x21;
	sl_deny_set_build(&set);
	assert_int_equal(sl_deny_set_pack(&set, &fd), 0);
	assert_int_equal(fcntl(fd, F_GET_SEALS), SEALS);
	assert_int_equal(fstat(fd, &st), 0);
	assert_true((size_t)st.st_size <= size);
	assert_int_equal(pread(fd, to, size, 0), st.st_size);
	assert_int_equal(close(fd), 0);
	sl_ip_list_done(&set);
	return (size_t)st.st_size;
}

static void test_memfd(void **state)
{
	uint8_t good[512], bad[512];
	struct head *h = (void *)bad;
	struct sl_ip4_range *v4 = (void *)(bad + sizeof(*h));
	struct sl_ip6_range *v6 = (void *)(bad + sizeof(*h) + 3 * sizeof(*v4));
	size_t n = good_bytes(good, sizeof(good));

	(void)state;
	assert_int_equal(unpack(good, n, SEALS), 0);
	assert_int_equal(unpack(good, n, SEALS & ~F_SEAL_WRITE), -EPERM);
	assert_int_equal(unpack(good, n, SEALS & ~F_SEAL_SHRINK), -EPERM);
	assert_int_equal(unpack(good, n, F_SEAL_SEAL), -EPERM);
	/* Any other length. */
	memset(bad, 0, sizeof(bad));
	memcpy(bad, good, n);
	for (size_t len = 0; len < sizeof(bad); len++)
		assert_int_equal(unpack(bad, len, SEALS), len == n ? 0 : -EBADMSG);

#define WITH(change)                                               \
	do {                                                       \
		memcpy(bad, good, n);                              \
		change;                                            \
		assert_int_equal(unpack(bad, n, SEALS), -EBADMSG); \
	} while (0)
	WITH(h->magic ^= 1);
	WITH(h->n4 = UINT64_MAX);
	WITH(h->n4 += UINT64_C(1) << 61); /* the same size, modulo 2^64 */
	WITH(h->n6 += UINT64_C(1) << 59);
	WITH(h->n_globs += UINT64_C(1) << 57);
	WITH(h->n4 += 4; h->n6 -= 1);
	WITH(v4[0].to = v4[1].from);
	WITH(v4[1].from = v4[1].to + 1);
	WITH(v4[2] = v4[0]);
	WITH(v6[0].to[0] = 0x20);
	WITH(v6[1].from[0] = 0x22);
	WITH(v6[1] = v6[0]);
#undef WITH
}

/* Whatever single byte is wrong: refused, or a set that is sorted and disjoint. */
static void test_memfd_bytes(void **state)
{
	uint8_t good[512], bad[512];
	size_t n = good_bytes(good, sizeof(good));

	(void)state;
	for (size_t i = 0; i < n; i++) {
		for (unsigned bit = 0; bit < 8; bit++) {
			struct sl_ip_set set = { 0 };
			int fd;

			memcpy(bad, good, n);
			bad[i] ^= (uint8_t)(1u << bit);
			fd = memfd(bad, n, SEALS);
			if (sl_deny_set_unpack(fd, &set) == 0) {
				assert_int_equal(set.n4, 3);
				for (size_t k = 0; k < set.n4; k++)
					assert_true(set.v4[k].from <= set.v4[k].to &&
						    (!k || set.v4[k - 1].to < set.v4[k].from));
			}
			sl_ip_list_done(&set);
			assert_int_equal(close(fd), 0);
		}
	}
	assert_int_equal(sl_deny_set_unpack(-1, &(struct sl_ip_set){ 0 }), -EPERM);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_forms),       cmocka_unit_test(test_empty),
		cmocka_unit_test(test_merged),      cmocka_unit_test(test_bad_lines),
		cmocka_unit_test(test_no_file),     cmocka_unit_test(test_limits),
		cmocka_unit_test(test_expand),      cmocka_unit_test(test_memfd),
		cmocka_unit_test(test_memfd_bytes),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
