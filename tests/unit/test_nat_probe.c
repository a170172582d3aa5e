/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What is sent to peers of a flow that was cut; whether they answer is seen by test_nat. */
#include "broker/nat_probe.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static struct sl_addr address(const char *text)
{
	struct sl_addr a;

	assert_int_equal(sl_addr_parse(text, &a), 0);
	return a;
}

/* Checksums computed by another program, from RFC 1071. */
static void ipv4(void **state)
{
	static const uint8_t want[] = { 0x45, 0,    0,    40,   0, 0, 0,    0,    64, 6,
					0x66, 0xce, 10,   0,    0, 1, 10,   0,    0,  2,
					0x1f, 0x90, 0x30, 0x39, 0, 0, 0,    0,    0,  0,
					0,    0,    0x50, 0x10, 0, 0, 0x4c, 0x09, 0,  0 };
	const struct sl_addr from = address("10.0.0.1:8080"), to = address("10.0.0.2:12345");
	uint8_t got[SL_NAT_PROBE_MAX];

	(void)state;
	assert_int_equal(sl_nat_probe_write(&from, &to, got), sizeof(want));
	assert_memory_equal(got, want, sizeof(want));
}

static void ipv6(void **state)
{
	const struct sl_addr from = address("[fd00::1]:8080"), to = address("[fd00::2]:12345");
	uint8_t got[SL_NAT_PROBE_MAX];
	uint32_t sum = 20 + 6;

	(void)state;
	assert_int_equal(sl_nat_probe_write(&from, &to, got), 60);
	assert_int_equal(got[0], 0x60);
	assert_int_equal(got[4] << 8 | got[5], 20);
	assert_memory_equal(got + 8, &from.v6.sin6_addr, 16);
	assert_memory_equal(got + 24, &to.v6.sin6_addr, 16);
	assert_int_equal(got[40] << 8 | got[41], 8080);
	assert_int_equal(got[42] << 8 | got[43], 12345);
	for (int i = 8; i < 60; i += 2)
		sum += (uint32_t)got[i] << 8 | got[i + 1];
	assert_int_equal((sum & 0xffff) + (sum >> 16), 0xffff);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(ipv4), cmocka_unit_test(ipv6) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
