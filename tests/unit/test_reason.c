/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "core/reason.h"

static void check_word(const char *name, const char *text)
{
	assert_non_null(name);
	assert_non_null(text);
	assert_true(strlen(name) > 0 && strlen(name) < 32);
	assert_int_equal(strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_"), strlen(name));
	assert_true(strlen(text) > 0 && strlen(text) < 80);
	assert_null(strchr(text, '\n'));
}

/* The words are part of logs and metrics: none missing, none twice, nothing to escape. */
static void reasons(void **state)
{
	(void)state;
	assert_string_equal(sl_reason_name(SL_REASON_NONE), "-");
	assert_non_null(sl_reason_text(SL_REASON_NONE));
	for (int i = 1; i < SL_REASON_COUNT_; i++) {
		check_word(sl_reason_name((enum sl_reason)i), sl_reason_text((enum sl_reason)i));
		for (int k = 1; k < i; k++)
			assert_string_not_equal(sl_reason_name((enum sl_reason)i),
						sl_reason_name((enum sl_reason)k));
	}
}

static void engine_reasons(void **state)
{
	(void)state;
	assert_string_equal(sl_engine_reason_name(SL_WHY_NONE), "-");
	assert_non_null(sl_engine_reason_text(SL_WHY_NONE));
	for (int i = 1; i < SL_WHY_COUNT_; i++) {
		check_word(sl_engine_reason_name((enum sl_engine_reason)i),
			   sl_engine_reason_text((enum sl_engine_reason)i));
		for (int k = 1; k < i; k++)
			assert_string_not_equal(sl_engine_reason_name((enum sl_engine_reason)i),
						sl_engine_reason_name((enum sl_engine_reason)k));
	}
}

/* The external contract: these words and no other, whatever the order in the source. */
static void the_names_of_the_contract(void **state)
{
	static const char *const names[] = {
		"normal",
		"econnreset",
		"etimedout",
		"econnrefused",
		"ehostunreach",
		"enetunreach",
		"epipe",
		"error",
		"connection_timeout",
		"first_data_timeout",
		"proxy_header_timeout",
		"handshake_timeout",
		"inactivity",
		"max_lifetime",
		"parity_check",
		"close_grace",
		"closed_before_data",
		"closed_during_connect",
		"route_ip_blocked",
		"no_route",
		"limit_global",
		"limit_route",
		"limit_ip",
		"rate_ip",
		"overload",
		"proxy_protocol_error",
		"proxy_protocol_untrusted",
		"tls_error",
		"http_error",
		"killed",
		"drained",
		"backend_down",
		"nftables_closed",
		"force_cleanup",
		"shutdown",
		"crash_recovered",
	};

	(void)state;
	assert_int_equal(SL_REASON_COUNT_ - 1, SL_ARRAY_LEN(names));
	for (size_t i = 0; i < SL_ARRAY_LEN(names); i++) {
		int k = 1;

		while (k < SL_REASON_COUNT_ &&
		       strcmp(sl_reason_name((enum sl_reason)k), names[i]) != 0)
			k++;
		if (k == SL_REASON_COUNT_)
			fail_msg("%s is missing", names[i]);
	}
}

static void sides_and_engines(void **state)
{
	(void)state;
	assert_string_equal(sl_side_name(SL_CLIENT), "client");
	assert_string_equal(sl_side_name(SL_BACKEND), "backend");
	assert_string_equal(sl_engine_name(SL_ENGINE_RELAY), "relay");
	assert_string_equal(sl_engine_name(SL_ENGINE_PACKET), "packet");
	assert_string_equal(sl_engine_name(SL_ENGINE_SOCKMAP), "sockmap");
	assert_string_equal(sl_engine_name(SL_ENGINE_NFTABLES), "nftables");
	assert_string_equal(sl_engine_name(SL_ENGINE_NONE), "-");
}

static void socket_errors(void **state)
{
	static const struct {
		int err;
		const char *want;
	} rows[] = {
		{ ECONNRESET, "econnreset" },
		{ ETIMEDOUT, "etimedout" },
		{ ECONNREFUSED, "econnrefused" },
		{ EHOSTUNREACH, "ehostunreach" },
		{ EHOSTDOWN, "ehostunreach" },
		{ ENETUNREACH, "enetunreach" },
		{ ENETDOWN, "enetunreach" },
		{ EPIPE, "epipe" },
		{ EIO, "error" },
		{ ENOBUFS, "error" },
		{ 0, "error" },
	};

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(rows); i++)
		assert_string_equal(sl_reason_name(sl_reason_from_errno(rows[i].err)),
				    rows[i].want);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reasons),
		cmocka_unit_test(engine_reasons),
		cmocka_unit_test(the_names_of_the_contract),
		cmocka_unit_test(sides_and_engines),
		cmocka_unit_test(socket_errors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
