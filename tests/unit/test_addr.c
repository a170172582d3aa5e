/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/addr.h"

static void parse_with_port(void **state)
{
	static const struct {
		const char *text;
		const char *want; /* as formatted; NULL: refused */
		const char *why;
	} rows[] = {
		{ "192.0.2.1:80", "192.0.2.1:80", "IPv4" },
		{ "0.0.0.0:65535", "0.0.0.0:65535", "highest port" },
		{ "[2001:db8::1]:443", "[2001:db8::1]:443", "IPv6" },
		{ "[2001:DB8:0::0:1]:443", "[2001:db8::1]:443", "one form of each address" },
		{ "[::]:1", "[::]:1", "any" },
		{ "192.0.2.1", NULL, "no port" },
		{ "192.0.2.1:", NULL, "empty port" },
		{ "192.0.2.1:0", NULL, "port 0" },
		{ "192.0.2.1:65536", NULL, "port too high" },
		{ "192.0.2.1:+80", NULL, "sign" },
		{ "192.0.2.1: 80", NULL, "blank" },
		{ "192.0.2.1:80x", NULL, "letter after the port" },
		{ "192.0.2.256:80", NULL, "not an address" },
		{ "192.0.2:80", NULL, "three parts" },
		{ "2001:db8::1:443", NULL, "IPv6 without brackets" },
		{ "[192.0.2.1]:80", NULL, "IPv4 in brackets" },
		{ "[2001:db8::1]443", NULL, "no colon after the bracket" },
		{ "[2001:db8::1:443", NULL, "no closing bracket" },
		{ "[]:80", NULL, "nothing in brackets" },
		{ "[:80", NULL, "a bracket alone" },
		{ "", NULL, "empty" },
		{ ":", NULL, "a colon" },
		{ ":80", NULL, "a port alone" },
		{ "localhost:80", NULL, "a name" },
		{ "[fe80::1%lo]:80", NULL, "scope" },
		{ "11111111111111111111111111111111111111111111111111111111111111111111111111111111"
		  "1:80",
		  NULL, "longer than any address" },
	};

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(rows); i++) {
		struct sl_addr a = { .v4 = { .sin_family = AF_INET, .sin_port = 7 } };
		struct sl_addr before = a;
		char buf[SL_ADDR_TEXT];
		int r = sl_addr_parse(rows[i].text, &a);

		if (r != (rows[i].want ? 0 : -EINVAL))
			fail_msg("%s: %d", rows[i].why, r);
		if (rows[i].want && strcmp(sl_addr_format(&a, buf), rows[i].want) != 0)
			fail_msg("%s: %s", rows[i].why, buf);
		if (!rows[i].want)
			assert_memory_equal(&a, &before, sizeof(a));
	}
}

static void parse_without_port(void **state)
{
	struct sl_addr a;
	char buf[SL_ADDR_TEXT];

	(void)state;
	assert_int_equal(sl_addr_parse_ip("192.0.2.1", &a), 0);
	assert_string_equal(sl_addr_format_ip(&a, buf), "192.0.2.1");
	assert_int_equal(sl_addr_port(&a), 0);
	assert_int_equal(sl_addr_len(&a), sizeof(struct sockaddr_in));
	assert_int_equal(sl_addr_parse_ip("2001:db8::1", &a), 0);
	assert_string_equal(sl_addr_format_ip(&a, buf), "2001:db8::1");
	assert_int_equal(sl_addr_len(&a), sizeof(struct sockaddr_in6));
	assert_int_equal(sl_addr_parse_ip("[2001:db8::1]", &a), -EINVAL);
	assert_int_equal(sl_addr_parse_ip("1.2.3.4.5", &a), -EINVAL);
	assert_int_equal(sl_addr_parse_ip("", &a), -EINVAL);
}

static void none(void **state)
{
	struct sl_addr a = { 0 };
	struct sl_addr b = { 0 };
	char buf[SL_ADDR_TEXT];

	(void)state;
	assert_string_equal(sl_addr_format(&a, buf), "-");
	assert_string_equal(sl_addr_format_ip(&a, buf), "-");
	assert_int_equal(sl_addr_port(&a), 0);
	sl_addr_set_port(&a, 80);
	assert_int_equal(sl_addr_port(&a), 0);
	assert_false(sl_addr_is_any(&a));
	assert_true(sl_addr_is_equal(&a, &b));
}

static void mapped_becomes_ipv4(void **state)
{
	struct sockaddr_in6 mapped = { .sin6_family = AF_INET6, .sin6_port = htons(99) };
	struct sockaddr_in6 other = { .sin6_family = AF_INET6, .sin6_port = htons(98) };
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(97) };
	struct sockaddr local = { .sa_family = AF_UNIX };
	struct sl_addr a;
	char buf[SL_ADDR_TEXT];

	(void)state;
	assert_int_equal(inet_pton(AF_INET6, "::ffff:192.0.2.1", &mapped.sin6_addr), 1);
	assert_int_equal(inet_pton(AF_INET6, "::192.0.2.1", &other.sin6_addr), 1);
	sl_addr_set(&a, (struct sockaddr *)&mapped);
	assert_string_equal(sl_addr_format(&a, buf), "192.0.2.1:99");
	sl_addr_set(&a, (struct sockaddr *)&other);
	assert_string_equal(sl_addr_format(&a, buf), "[::192.0.2.1]:98");
	sl_addr_set(&a, (struct sockaddr *)&v4);
	assert_string_equal(sl_addr_format(&a, buf), "0.0.0.0:97");
	sl_addr_set(&a, &local);
	assert_string_equal(sl_addr_format(&a, buf), "-");
}

static void comparisons(void **state)
{
	static const struct {
		const char *a;
		const char *b;
		bool same_ip;
		bool is_equal;
		const char *why;
	} rows[] = {
		{ "192.0.2.1:1", "192.0.2.1:1", true, true, "equal IPv4" },
		{ "192.0.2.1:1", "192.0.2.1:2", true, false, "other port" },
		{ "192.0.2.1:1", "192.0.2.2:1", false, false, "other address" },
		{ "[::1]:1", "[::1]:1", true, true, "equal IPv6" },
		{ "[::1]:1", "[::1]:2", true, false, "other port, IPv6" },
		{ "[::1]:1", "[::2]:1", false, false, "other IPv6" },
		{ "0.0.0.0:1", "[::]:1", false, false, "families differ" },
	};

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(rows); i++) {
		struct sl_addr a;
		struct sl_addr b;

		assert_int_equal(sl_addr_parse(rows[i].a, &a), 0);
		assert_int_equal(sl_addr_parse(rows[i].b, &b), 0);
		if (sl_addr_same_ip(&a, &b) != rows[i].same_ip ||
		    sl_addr_is_equal(&b, &a) != rows[i].is_equal)
			fail_msg("%s", rows[i].why);
	}
}

static void any_and_bytes(void **state)
{
	struct sl_addr a;
	uint8_t bytes[16];

	(void)state;
	assert_int_equal(sl_addr_parse("0.0.0.0:1", &a), 0);
	assert_true(sl_addr_is_any(&a));
	assert_int_equal(sl_addr_parse("[::]:1", &a), 0);
	assert_true(sl_addr_is_any(&a));
	assert_int_equal(sl_addr_parse("[::1]:1", &a), 0);
	assert_false(sl_addr_is_any(&a));
	assert_int_equal(sl_addr_ip_bytes(&a, bytes), 16);
	assert_int_equal(bytes[15], 1);
	sl_addr_set_port(&a, 7777);
	assert_int_equal(sl_addr_port(&a), 7777);
	assert_int_equal(sl_addr_parse("1.2.3.4:1", &a), 0);
	assert_false(sl_addr_is_any(&a));
	assert_false(sl_addr_is_many(&a));
	assert_int_equal(sl_addr_ip_bytes(&a, bytes), 4);
	assert_memory_equal(bytes, "\1\2\3\4", 4);
	sl_addr_set_port(&a, 7778);
	assert_int_equal(sl_addr_port(&a), 7778);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(parse_with_port),
		cmocka_unit_test(parse_without_port),
		cmocka_unit_test(none),
		cmocka_unit_test(mapped_becomes_ipv4),
		cmocka_unit_test(comparisons),
		cmocka_unit_test(any_and_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
