/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <regex.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"

static int out[2];

static int set_up(void **state)
{
	(void)state;
	return pipe2(out, O_NONBLOCK);
}

static int tear_down(void **state)
{
	(void)state;
	sl_log_setup(SL_LOG_INFO, false, 2);
	(void)close(out[0]);
	(void)close(out[1]);
	return 0;
}

/* What has been written since the last call; "" for nothing. */
static const char *written(char *buf, size_t size)
{
	ssize_t n = read(out[0], buf, size - 1);

	buf[n > 0 ? n : 0] = '\0';
	return buf;
}

static void assert_matches(const char *text, const char *pattern)
{
	regex_t re;

	assert_int_equal(regcomp(&re, pattern, REG_EXTENDED | REG_NOSUB), 0);
	if (regexec(&re, text, 0, NULL, 0) != 0)
		fail_msg("'%s' does not match '%s'", text, pattern);
	regfree(&re);
}

#define TIME "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3}Z "

static void text_lines(void **state)
{
	char buf[512];

	(void)state;
	sl_log_setup(SL_LOG_DEBUG, false, out[1]);
	sl_log_set_role("proxy");
	sl_log(SL_LOG_INFO, "listening on %s", "[::]:80");
	assert_matches(written(buf, sizeof(buf)), TIME "info  proxy: listening on \\[::\\]:80\n$");
	sl_log_conn(SL_LOG_DEBUG, 42, "route %s", "web");
	assert_matches(written(buf, sizeof(buf)), TIME "debug proxy: id=42 route web\n$");
	assert_int_equal(sl_err(-ENOENT, "opening %s", "x"), -ENOENT);
	assert_matches(written(buf, sizeof(buf)),
		       TIME "error proxy: opening x: No such file or directory\n$");
	assert_int_equal(sl_warn(-EPERM, "trying"), -EPERM);
	assert_matches(written(buf, sizeof(buf)),
		       TIME "warn  proxy: trying: Operation not permitted");
}

static void json_lines(void **state)
{
	char buf[512];
	json_t *line;

	(void)state;
	sl_log_setup(SL_LOG_INFO, true, out[1]);
	sl_log_set_role("supervisor");
	sl_log_conn(SL_LOG_WARN, UINT64_C(1) << 40, "a \"quoted\"\nline");
	written(buf, sizeof(buf));
	assert_int_equal(buf[strlen(buf) - 1], '\n');
	assert_ptr_equal(strchr(buf, '\n'), buf + strlen(buf) - 1); /* one line each */
	line = json_loads(buf, 0, NULL);
	assert_non_null(line);
	assert_string_equal(json_string_value(json_object_get(line, "level")), "warn");
	assert_string_equal(json_string_value(json_object_get(line, "role")), "supervisor");
	assert_string_equal(json_string_value(json_object_get(line, "msg")), "a \"quoted\"\nline");
	assert_int_equal(json_integer_value(json_object_get(line, "id")), INT64_C(1) << 40);
	assert_matches(json_string_value(json_object_get(line, "time")), "T.*Z$");
	json_decref(line);
	sl_log(SL_LOG_INFO, "no id");
	line = json_loads(written(buf, sizeof(buf)), 0, NULL);
	assert_non_null(line);
	assert_null(json_object_get(line, "id"));
	json_decref(line);
}

static void levels(void **state)
{
	char buf[512];

	(void)state;
	sl_log_set_role("x");
	for (int max = 0; max < SL_LOG_LEVEL_COUNT_; max++) {
		sl_log_setup((enum sl_log_level)max, false, out[1]);
		for (int level = 0; level < SL_LOG_LEVEL_COUNT_; level++) {
			sl_log((enum sl_log_level)level, "message");
			assert_int_equal(*written(buf, sizeof(buf)) != '\0', level <= max);
		}
	}
	assert_string_equal(sl_log_level_name(SL_LOG_ERROR), "error");
	assert_string_equal(sl_log_level_name(SL_LOG_WARN), "warn");
	assert_string_equal(sl_log_level_name(SL_LOG_INFO), "info");
	assert_string_equal(sl_log_level_name(SL_LOG_DEBUG), "debug");
}

static void unwritable_log_is_survived(void **state)
{
	char buf[512];

	(void)state;
	sl_log_setup(SL_LOG_INFO, false, -1);
	sl_log(SL_LOG_ERROR, "into the void");
	sl_log_setup(SL_LOG_INFO, false, out[1]);
	sl_log(SL_LOG_ERROR, "here again");
	assert_non_null(strstr(written(buf, sizeof(buf)), "here again"));
}

static void limit(void **state)
{
	static const struct {
		uint64_t now_ms;
		bool want;
		const char *why;
	} rows[] = {
		{ 5000, true, "first" },       { 5000, true, "second" },
		{ 5001, false, "burst used" }, { 5999, false, "still the same window" },
		{ 6000, true, "next window" }, { 6999, true, "second of it" },
		{ 6999, false, "used again" }, { 90000, true, "long after" },
	};
	struct sl_log_limit l = { 0 };

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(rows); i++)
		if (sl_log_allowed(&l, rows[i].now_ms, 2, 1000) != rows[i].want)
			fail_msg("%s", rows[i].why);
	assert_false(sl_log_allowed(&(struct sl_log_limit){ 0 }, 0, 0, 1000));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(text_lines), TEST(json_lines), TEST(levels), TEST(unwritable_log_is_survived),
		TEST(limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
