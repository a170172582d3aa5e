/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/hosts.h"

#define MAX 4

static const char text[] =
	"127.0.0.1 localhost\n"
	"::1\tlocalhost ip6-localhost\n"
	"# 192.0.2.1 commented\n"
	"192.0.2.2 Mixed.Case alias # tail\n"
	"192.0.2.3 other #hidden\n"
	"192.0.2.3 other\n"
	"192.0.2.4 Other.\r\n"
	"fe80::1%lo scoped\n"
	"not-an-address broken\n"
	"192.0.2.5\n"
	"10.0.0.1 many\n10.0.0.2 many\n10.0.0.3 many\n10.0.0.4 many\n10.0.0.5 many\n"
	"192.0.2.9 last";

static void names(void **state)
{
	static const struct {
		const char *name;
		const char *want[MAX + 1];
		const char *why;
	} rows[] = {
		{ "localhost", { "127.0.0.1", "::1" }, "two lines" },
		{ "ip6-localhost", { "::1" }, "second name of a line" },
		{ "commented", { NULL }, "a comment line" },
		{ "mixed.case", { "192.0.2.2" }, "lower case" },
		{ "MIXED.CASE.", { "192.0.2.2" }, "upper case and a final dot" },
		{ "alias", { "192.0.2.2" }, "alias" },
		{ "tail", { NULL }, "a word of a comment" },
		{ "#hidden", { NULL }, "a comment without a blank" },
		{ "other", { "192.0.2.3", "192.0.2.4" }, "no address twice; a dot in the file" },
		{ "othe", { NULL }, "a prefix of a name" },
		{ "others", { NULL }, "longer than a name" },
		{ "scoped", { NULL }, "address with a scope" },
		{ "broken", { NULL }, "not an address" },
		{ "192.0.2.5", { NULL }, "an address is not a name" },
		{ "many", { "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4" }, "at most max" },
		{ "last", { "192.0.2.9" }, "no newline at the end" },
		{ "", { NULL }, "empty name" },
		{ ".", { NULL }, "the root" },
	};

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(rows); i++) {
		struct sl_addr addrs[MAX + 1];
		char ip[SL_ADDR_TEXT];
		size_t n = sl_hosts_find(text, sizeof(text) - 1, rows[i].name, addrs, MAX);
		size_t k = 0;

		for (; k < n && rows[i].want[k]; k++)
			if (strcmp(sl_addr_format_ip(&addrs[k], ip), rows[i].want[k]) != 0)
				fail_msg("%s: %s is %s", rows[i].why, rows[i].name, ip);
		if (k != n || rows[i].want[k])
			fail_msg("%s: %s has %zu addresses", rows[i].why, rows[i].name, n);
	}
}

static void no_text_and_no_room(void **state)
{
	struct sl_addr a;

	(void)state;
	assert_int_equal(sl_hosts_find(NULL, 0, "localhost", &a, 1), 0);
	assert_int_equal(sl_hosts_find(text, sizeof(text) - 1, "localhost", NULL, 0), 0);
	assert_int_equal(sl_hosts_find("192.0.2.1 a\0b c\n", 16, "c", &a, 1), 1);
}

static void every_prefix(void **state)
{
	(void)state;
	for (size_t n = 0; n < sizeof(text); n++) {
		struct sl_addr a[2];
		char *copy = malloc(n ? n : 1);

		memcpy(copy, text, n);
		assert_int_equal(sl_hosts_find(copy, n, "localhost", a, 2),
				 (n >= 19) + (n >= 33)); /* the ends of the two names */
		free(copy);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names),
		cmocka_unit_test(no_text_and_no_room),
		cmocka_unit_test(every_prefix),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
