/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/balance.h"
#include "core/health.h"

/* Feeds results ('+' good, '-' bad) and returns what changed at each: 'U', 'D' or '.'. */
static const char *feed(struct sl_health *h, const char *results, uint32_t fall, uint32_t rise)
{
	static char text[64];
	size_t n = strlen(results);

	for (size_t i = 0; i < n; i++)
		text[i] = ".UD"[sl_health_step(h, results[i] == '+', fall, rise)];
	text[n] = '\0';
	return text;
}

static void thresholds(void **state)
{
	struct sl_health h = { 0 };

	(void)state;
	assert_string_equal(feed(&h, "+--+--+---", 3, 2), ".........D");
	assert_true(h.is_down);
	assert_string_equal(feed(&h, "--+-+-++", 3, 2), ".......U");
	assert_false(h.is_down);
	assert_string_equal(feed(&h, "--", 3, 2), "..");
	assert_int_equal(h.streak, 2);
	assert_string_equal(feed(&h, "+", 3, 2), ".");
	assert_int_equal(h.streak, 0);
}

static void thresholds_of_one(void **state)
{
	struct sl_health h = { 0 };

	(void)state;
	assert_string_equal(feed(&h, "+-+-++--", 1, 1), ".DUDU.D.");
	h = (struct sl_health){ 0 };
	assert_string_equal(feed(&h, "-+", 0, 0), "DU"); /* as 1 */
}

/* A reload may lower what is needed below what has been seen. */
static void thresholds_may_change(void **state)
{
	struct sl_health h = { 0 };

	(void)state;
	assert_string_equal(feed(&h, "----", 10, 2), "....");
	assert_string_equal(feed(&h, "-", 3, 2), "D");
}

static void delays_stay_within_a_tenth(void **state)
{
	uint64_t least = UINT64_MAX;
	uint64_t most = 0;

	(void)state;
	for (uint64_t i = 0; i < 5000; i++) {
		uint64_t delay = sl_health_delay(2000, i * UINT64_C(0x9e3779b97f4a7c15));

		least = delay < least ? delay : least;
		most = delay > most ? delay : most;
	}
	assert_in_range(least, 1800, 1805);
	assert_in_range(most, 2195, 2200);
	assert_int_equal(sl_health_delay(5, UINT64_MAX), 5);
	assert_int_equal(sl_health_delay(0, 3), 0);
}

static void slow_start_grows(void **state)
{
	uint32_t before = 0;

	(void)state;
	assert_int_equal(sl_slow_start_share(0, 0), SL_SHARE_ONE);
	assert_int_equal(sl_slow_start_share(0, 10000), SL_SHARE_ONE / 10);
	for (uint64_t ms = 0; ms <= 11000; ms += 10) {
		uint32_t share = sl_slow_start_share(ms, 10000);

		assert_true(share >= before && share <= SL_SHARE_ONE);
		before = share;
	}
	assert_in_range(sl_slow_start_share(5000, 10000), 562, 564);
	assert_true(sl_slow_start_share(9900, 10000) < SL_SHARE_ONE);
	assert_int_equal(sl_slow_start_share(10000, 10000), SL_SHARE_ONE);
	/* the longest duration the configuration can express */
	assert_in_range(sl_slow_start_share(UINT64_C(1577847600000), UINT64_C(3155695200000)), 562,
			564);
}

static void holds_double(void **state)
{
	static const uint64_t want[] = {
		0, 0, 0, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000
	};

	(void)state;
	for (uint32_t n = 0; n < sizeof(want) / sizeof(want[0]); n++)
		assert_int_equal(sl_passive_hold_ms(n), want[n]);
	assert_int_equal(sl_passive_hold_ms(UINT32_MAX), 30000);
}

/* Each strict prefix needs more, and what follows the decision changes nothing. */
static void assert_status(const char *bytes, int want, size_t decided_at)
{
	size_t n = strlen(bytes);

	for (size_t i = 0; i <= n; i++) {
		char *exact = malloc(i + 1);

		assert_non_null(exact);
		memcpy(exact, bytes, i);
		exact[i] = '!'; /* must not be read */
		if (sl_health_read_status(exact, i) != (i < decided_at ? 0 : want))
			fail_msg("'%.*s'", (int)i, bytes);
		free(exact);
	}
}

static void status_lines(void **state)
{
	(void)state;
	assert_status("HTTP/1.1 200 OK\r\n", 1, 13);
	assert_status("HTTP/1.0 204\r\n", 1, 13);
	assert_status("HTTP/1.1 301 Moved\r\n", 1, 13);
	assert_status("HTTP/1.1 399\n", 1, 13);
	assert_status("HTTP/1.1 404 Not Found\r\n", -EPROTO, 10);
	assert_status("HTTP/1.1 503 \r\n", -EPROTO, 10);
	assert_status("HTTP/1.1 100 Continue\r\n", -EPROTO, 10);
	assert_status("HTTP/1.1 2000\r\n", -EPROTO, 13);
	assert_status("HTTP/1.1 20 OK\r\n", -EPROTO, 12);
	assert_status("HTTP/1.1  200\r\n", -EPROTO, 10);
	assert_status("HTTP/2 200\r\n", -EPROTO, 6);
	assert_status("HTTP/1.x 200\r\n", -EPROTO, 8);
	assert_status("http/1.1 200\r\n", -EPROTO, 1);
	assert_status("SSH-2.0-x\r\n", -EPROTO, 1);
	assert_status("\r\nHTTP/1.1 200\r\n", -EPROTO, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(thresholds),
		cmocka_unit_test(thresholds_of_one),
		cmocka_unit_test(thresholds_may_change),
		cmocka_unit_test(delays_stay_within_a_tenth),
		cmocka_unit_test(slow_start_grows),
		cmocka_unit_test(holds_double),
		cmocka_unit_test(status_lines),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
