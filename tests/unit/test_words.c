/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "core/words.h"

/* Words in '<>', lines ended by '/'. */
static void texts(void **state)
{
	static const struct {
		const char *text;
		const char *want;
		const char *why;
	} rows[] = {
		{ "", "", "nothing" },
		{ "\n", "/", "an empty line" },
		{ "a", "<a>/", "no newline" },
		{ "a\n", "<a>/", "newline at the end adds no line" },
		{ "a\n\nb", "<a>//<b>/", "an empty line between" },
		{ "  a\t\tbc \r\n", "<a><bc>/", "blanks of all kinds" },
		{ " \v\f ", "/", "blanks alone" },
	};

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(rows); i++) {
		struct sl_words rest = { .p = rows[i].text, .n = strlen(rows[i].text) };
		struct sl_words line;
		struct sl_words word;
		char got[64] = "";

		while (sl_words_next_line(&rest, &line)) {
			while (sl_words_next(&line, &word)) {
				strcat(got, "<");
				strncat(got, word.p, word.n);
				strcat(got, ">");
			}
			strcat(got, "/");
		}
		if (strcmp(got, rows[i].want) != 0)
			fail_msg("%s: %s", rows[i].why, got);
	}
}

static void comparing_and_copying(void **state)
{
	struct sl_words word = { .p = "abcdef", .n = 3 };
	struct sl_words zero = { .p = "a\0b", .n = 3 };
	char buf[4] = "-";

	(void)state;
	assert_true(sl_words_is(&word, "abc"));
	assert_false(sl_words_is(&word, "abcd"));
	assert_false(sl_words_is(&word, "ab"));
	assert_false(sl_words_is(&word, "abd"));
	assert_false(sl_words_copy(&word, buf, 3));
	assert_false(sl_words_copy(&zero, buf, 4));
	assert_string_equal(buf, "-");
	assert_true(sl_words_copy(&word, buf, 4));
	assert_string_equal(buf, "abc");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(texts),
		cmocka_unit_test(comparing_and_copying),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
