/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "core/resolv_conf.h"

/* All of a result as one line of text. */
static const char *describe(const struct sl_resolv_conf *c, char *buf, size_t size)
{
	char ip[SL_ADDR_TEXT];
	size_t n = 0;

	for (size_t i = 0; i < c->n_servers; i++)
		n += (size_t)snprintf(buf + n, size - n, "%s ",
				      sl_addr_format_ip(&c->server[i], ip));
	n += (size_t)snprintf(buf + n, size - n, "|");
	for (size_t i = 0; i < c->n_domains; i++)
		n += (size_t)snprintf(buf + n, size - n, " %s", c->domain[i]);
	(void)snprintf(buf + n, size - n, " | %u %u %u", c->ndots, c->timeout_s, c->attempts);
	return buf;
}

static void texts(void **state)
{
	static const struct {
		const char *text;
		const char *want;
		const char *why;
	} rows[] = {
		{ "", "| | 1 5 2", "empty: defaults" },
		{ "nameserver 192.0.2.1\n", "192.0.2.1 | | 1 5 2", "one server" },
		{ "nameserver 192.0.2.1", "192.0.2.1 | | 1 5 2", "no newline at the end" },
		{ "nameserver\t192.0.2.1 \r\n", "192.0.2.1 | | 1 5 2", "tabs and CR" },
		{ "nameserver 2001:db8::1\nnameserver 192.0.2.1\n",
		  "2001:db8::1 192.0.2.1 | | 1 5 2", "both families, in order" },
		{ "nameserver 192.0.2.1\nnameserver 192.0.2.1\n", "192.0.2.1 | | 1 5 2", "twice" },
		{ "nameserver fe80::1%eth0\n", "| | 1 5 2", "scope" },
		{ "nameserver ns.example\nnameserver\nnameserver 1.2.3\n", "| | 1 5 2",
		  "malformed" },
		{ "nameserver 192.0.2.1 192.0.2.2\n", "192.0.2.1 | | 1 5 2",
		  "the first word counts" },
		{ "# nameserver 192.0.2.1\n;nameserver 192.0.2.1\n", "| | 1 5 2", "comments" },
		{ "Nameserver 192.0.2.1\nnameservers 192.0.2.1\n", "| | 1 5 2", "unknown words" },
		{ "nameserver 1.0.0.1\nnameserver 1.0.0.2\nnameserver 1.0.0.3\nnameserver 1.0.0.4\n"
		  "nameserver 1.0.0.5\nnameserver 1.0.0.6\nnameserver 1.0.0.7\nnameserver 1.0.0.8\n"
		  "nameserver 1.0.0.9\n",
		  "1.0.0.1 1.0.0.2 1.0.0.3 1.0.0.4 1.0.0.5 1.0.0.6 1.0.0.7 1.0.0.8 | | 1 5 2",
		  "at most eight" },
		{ "search a.example b.example.\n", "| a.example b.example | 1 5 2", "search list" },
		{ "search a.example\ndomain c.example\n", "| c.example | 1 5 2",
		  "the last one counts" },
		{ "search a b c d e f g h\n", "| a b c d e f | 1 5 2", "at most six" },
		{ "search a/b . ok ü\n", "| ok | 1 5 2", "what cannot be a domain" },
		{ "search\n", "| | 1 5 2", "nothing after the word" },
		{ "options ndots:3 timeout:7 attempts:4\n", "| | 3 7 4", "options" },
		{ "options ndots:0 timeout:0 attempts:0\n", "| | 0 1 1", "lower limits" },
		{ "options ndots:99 timeout:99999999999999999999 attempts:6\n", "| | 15 30 5",
		  "upper limits" },
		{ "options ndots:-1 timeout: attempts:x rotate ndots\n", "| | 1 5 2", "malformed" },
		{ "options timeout:2\noptions attempts:3 edns0\n", "| | 1 2 3",
		  "two lines add up" },
	};
	struct sl_resolv_conf conf;
	char buf[1024];

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(rows); i++) {
		sl_resolv_conf_parse(rows[i].text, strlen(rows[i].text), &conf);
		if (strcmp(describe(&conf, buf, sizeof(buf)), rows[i].want) != 0)
			fail_msg("%s: '%s' instead of '%s'", rows[i].why, buf, rows[i].want);
	}
}

static void bytes_and_bounds(void **state)
{
	static const char text[] = "nameserver 192.0.2.1\0\nnameserver 192.0.2.2\nsearch a.b\n";
	struct sl_resolv_conf conf;
	char longest[400];

	(void)state;
	sl_resolv_conf_parse(text, sizeof(text) - 1, &conf);
	assert_int_equal(conf.n_servers, 1); /* a NUL byte spoils its line only */
	assert_int_equal(conf.n_domains, 1);
	memset(longest, 'x', sizeof(longest));
	memcpy(longest, "search ", 7);
	sl_resolv_conf_parse(longest, 7 + 253, &conf);
	assert_int_equal(conf.n_domains, 1);
	assert_int_equal(strlen(conf.domain[0]), 253);
	sl_resolv_conf_parse(longest, 7 + 254, &conf);
	assert_int_equal(conf.n_domains, 0);
}

/* Every prefix, on memory of exactly its size, so that an overread is seen. */
static void every_prefix(void **state)
{
	static const char text[] = "# c\nnameserver 192.0.2.1\nsearch a.b c.\noptions ndots:2\n\n";

	(void)state;
	for (size_t n = 0; n < sizeof(text); n++) {
		struct sl_resolv_conf conf;
		char *copy = malloc(n ? n : 1);

		memcpy(copy, text, n);
		sl_resolv_conf_parse(copy, n, &conf);
		assert_true(conf.n_servers <= 1 && conf.n_domains <= 2);
		free(copy);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(texts),
		cmocka_unit_test(bytes_and_bounds),
		cmocka_unit_test(every_prefix),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
