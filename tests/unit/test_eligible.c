/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/eligible.h"

static struct sl_tcp_facts usual(void)
{
	return (struct sl_tcp_facts){
		.is_established = true,
		.has_timestamps = true,
		.has_sack = true,
		.has_wscale = true,
		.snd_wscale = 7,
		.rcv_wscale = 7,
		.advmss = 1460,
		.pmtu = 1500,
	};
}

static void both_ways(const struct sl_tcp_facts *a, const struct sl_tcp_facts *b,
		      enum sl_engine_reason why)
{
	assert_int_equal(sl_packet_eligible(a, b), why);
	assert_int_equal(sl_packet_eligible(b, a), why);
}

static void test_alike(void **state)
{
	struct sl_tcp_facts a = usual();
	struct sl_tcp_facts b = usual();

	(void)state;
	both_ways(&a, &b, SL_WHY_ELIGIBLE);
	a.has_timestamps = b.has_timestamps = false;
	a.has_sack = b.has_sack = false;
	both_ways(&a, &b, SL_WHY_ELIGIBLE);
}

static void test_one_sided(void **state)
{
	struct sl_tcp_facts a = usual();
	struct sl_tcp_facts b = usual();

	(void)state;
	b.is_established = false;
	both_ways(&a, &b, SL_WHY_HALF_CLOSED);
	b = usual();
	b.has_timestamps = false;
	both_ways(&a, &b, SL_WHY_TIMESTAMPS_ONE_SIDED);
	b = usual();
	b.has_sack = false;
	both_ways(&a, &b, SL_WHY_SACK_ONE_SIDED);
	b = usual();
	b.is_ipv6 = true;
	b.advmss = 1440;
	both_ways(&a, &b, SL_WHY_NOT_LINUX_SUPPORTED);
}

static void test_unlike_but_fine(void **state)
{
	struct sl_tcp_facts a = usual();
	struct sl_tcp_facts b = usual();

	(void)state;
	b.has_ecn = true;
	b.has_wscale = false;
	both_ways(&a, &b, SL_WHY_ELIGIBLE);
}

static void test_segments(void **state)
{
	struct sl_tcp_facts a = usual();
	struct sl_tcp_facts b = usual();

	(void)state;
	b.pmtu = 1499; /* one octet too few for what the client may send */
	both_ways(&a, &b, SL_WHY_MSS_MISMATCH);
	b.pmtu = 1400;
	a.advmss = 1360; /* clamped */
	both_ways(&a, &b, SL_WHY_ELIGIBLE);
	a.is_ipv6 = b.is_ipv6 = true; /* the longer header */
	b.advmss = 1440;
	both_ways(&a, &b, SL_WHY_MSS_MISMATCH);
	a.advmss = 1340;
	both_ways(&a, &b, SL_WHY_ELIGIBLE);
	b.pmtu = 0;
	both_ways(&a, &b, SL_WHY_MSS_MISMATCH);
	/* the loopback device towards a backend of this host, a real one towards the client */
	a = b = usual();
	b.pmtu = 65536;
	b.advmss = 65483;
	both_ways(&a, &b, SL_WHY_MSS_MISMATCH);
	a.pmtu = 65536;
	a.advmss = 65483;
	both_ways(&a, &b, SL_WHY_ELIGIBLE);
}

static void test_window(void **state)
{
	struct sl_tcp_facts a = usual();
	struct sl_tcp_facts b = usual();

	(void)state;
	assert_int_equal(sl_packet_window_shift(&a, &b), 0);
	a.snd_wscale = 10; /* the client's field counts 1024s, the backend reads 128s */
	assert_int_equal(sl_packet_window_shift(&a, &b), 3);
	assert_int_equal(sl_packet_window_shift(&b, &a), 0);
	a.rcv_wscale = 14;
	assert_int_equal(sl_packet_window_shift(&b, &a), -7);
	a.has_wscale = false;
	assert_int_equal(sl_packet_window_shift(&a, &b), -7);
	assert_int_equal(sl_packet_window_shift(&b, &a), 7);
	b.has_wscale = false;
	assert_int_equal(sl_packet_window_shift(&a, &b), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_alike),    cmocka_unit_test(test_one_sided),
		cmocka_unit_test(test_segments), cmocka_unit_test(test_unlike_but_fine),
		cmocka_unit_test(test_window),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
