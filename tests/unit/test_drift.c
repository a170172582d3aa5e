/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The ledger of differences: what counts as another one, what it forgets, what it says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "abi.h"
#include "accel/packet.h"
#include "broker/drift.h"
#include "broker/wire.h"
#include "proxy/agree.h"

struct lab {
	struct sl_loop *loop;
	struct sl_drift drift;
	unsigned n_told;
	struct sl_str text;
};

static void on_changed(void *arg)
{
	struct lab *lab = arg;

	lab->n_told++;
	sl_loop_quit(lab->loop);
}

static int setup(void **state)
{
	struct lab *lab = calloc(1, sizeof(*lab));

	assert_non_null(lab);
	assert_int_equal(sl_loop_new(&lab->loop), 0);
	assert_int_equal(sl_drift_init(&lab->drift, lab->loop, on_changed, lab), 0);
	*state = lab;
	return 0;
}

static int teardown(void **state)
{
	struct lab *lab = *state;

	sl_drift_done(&lab->drift);
	sl_loop_free(lab->loop);
	sl_str_done(&lab->text);
	free(lab);
	return 0;
}

static const char *written(struct lab *lab)
{
	sl_str_clear(&lab->text);
	sl_drift_write(&lab->drift, 0, &lab->text);
	return sl_str_text(&lab->text);
}

static size_t n_listed(struct lab *lab)
{
	size_t n = 0;

	for (const char *p = written(lab); (p = strstr(p, "d packet_")); p++)
		n++;
	return n;
}

static void pin(struct lab *lab, enum sl_drift_done done, const char *wanted)
{
	sl_drift_note(&lab->drift, SL_DRIFT_PACKET_PIN, done, wanted, NULL, "pinned %s", "again");
}

static void test_lines(void **state)
{
	struct lab *lab = *state;

	assert_string_equal(written(lab), "");
	pin(lab, SL_DRIFT_REPAIRED, "pin flows");
	sl_drift_note(&lab->drift, SL_DRIFT_NFT_TABLE, SL_DRIFT_REMOVED, NULL, "rule\n\x1b[2J",
		      "%s", "");
	assert_string_equal(written(lab), "d packet_pin repaired 1 1 0\n- pin flows\n"
					  ". pinned again\n"
					  "d nft_table removed 1 1 0\n+ rule??[2J\n");
}

static void test_same_again(void **state)
{
	struct lab *lab = *state;
	const uint64_t *n = &lab->drift.count[SL_DRIFT_PACKET_PIN];

	pin(lab, SL_DRIFT_WAITS, "pin flows");
	pin(lab, SL_DRIFT_WAITS, "pin flows");
	pin(lab, SL_DRIFT_LEFT, "pin flows");
	assert_int_equal(*n, 1);
	pin(lab, SL_DRIFT_REPAIRED, "pin flows");
	assert_int_equal(*n, 1);
	assert_string_equal(written(lab),
			    "d packet_pin repaired 1 1 0\n- pin flows\n. pinned again\n");
	/* it was healed, and came back */
	pin(lab, SL_DRIFT_REPAIRED, "pin flows");
	pin(lab, SL_DRIFT_REPAIRED, "pin routes");
	assert_int_equal(*n, 3);
	assert_non_null(strstr(written(lab), "d packet_pin repaired 1 2 0\n- pin flows\n"));
	assert_int_equal(n_listed(lab), 2);
}

/* The oldest make room, are counted all the same, and said to be missing. */
static void test_bounded(void **state)
{
	struct lab *lab = *state;
	char text[300];

	for (int i = 0; i < 2 * SL_DRIFT_ENTRIES; i++) {
		(void)snprintf(text, sizeof(text), "%d %0280d", i, 0);
		sl_drift_note(&lab->drift, SL_DRIFT_PACKET_HALF, SL_DRIFT_REPAIRED, text, text,
			      "%s", text);
	}
	assert_int_equal(n_listed(lab), SL_DRIFT_ENTRIES);
	assert_int_equal(lab->drift.count[SL_DRIFT_PACKET_HALF], 2 * SL_DRIFT_ENTRIES);
	assert_non_null(strstr(written(lab), "\nm 256\n"));
	assert_null(strstr(written(lab), "\n- 255 "));
	assert_non_null(strstr(written(lab), "\n- 256 "));
	/* the whole fits an answer */
	assert_in_range(lab->text.len, SL_DRIFT_ENTRIES * 300, SL_BROKER_DIFF_MAX - 1024);
	sl_drift_more(&lab->drift, SL_DRIFT_NFT_TABLE, 1000);
	assert_int_equal(lab->drift.count[SL_DRIFT_NFT_TABLE], 1000);
	assert_non_null(strstr(written(lab), "\nm 1256\n"));
	sl_drift_more(&lab->drift, SL_DRIFT_NFT_TABLE, 0);
	assert_int_equal(lab->drift.count[SL_DRIFT_NFT_TABLE], 1000);
}

/* Those of long ago are not told of any more, unless they are there still. */
static void test_window(void **state)
{
	struct lab *lab = *state;

	pin(lab, SL_DRIFT_REPAIRED, "pin flows");
	pin(lab, SL_DRIFT_LEFT, "pin routes");
	lab->drift.entry[0].at_ms -= SL_DRIFT_WINDOW_MS;
	lab->drift.entry[1].at_ms -= 4000;
	assert_string_equal(written(lab), "d packet_pin left 1 1 4000\n- pin routes\n"
					  ". pinned again\n");
	lab->drift.entry[1].at_ms -= 4000; /* nobody has said so again */
	assert_string_equal(written(lab), "");
	pin(lab, SL_DRIFT_REPAIRED, "pin flows");
	assert_non_null(strstr(written(lab), "d packet_pin repaired 1 1 0\n- pin flows\n"));
	assert_int_equal(lab->drift.count[SL_DRIFT_PACKET_PIN], 3);
}

static void test_told_soon(void **state)
{
	struct lab *lab = *state;

	pin(lab, SL_DRIFT_REPAIRED, "a");
	pin(lab, SL_DRIFT_REPAIRED, "b");
	assert_int_equal(lab->n_told, 0);
	assert_int_equal(sl_loop_run(lab->loop), 0);
	assert_int_equal(lab->n_told, 1);
}

static void test_no_ledger(void **state)
{
	struct sl_drift none = { 0 };

	(void)state;
	sl_drift_note(NULL, SL_DRIFT_RECORDS, SL_DRIFT_LEFT, "x", "y", "z");
	sl_drift_more(NULL, SL_DRIFT_RECORDS, 1);
	sl_drift_note(&none, SL_DRIFT_RECORDS, SL_DRIFT_LEFT, "x", "y", "z");
	sl_drift_done(&none);
	assert_null(none.entry);
}

static void test_names(void **state)
{
	(void)state;
	for (int i = 0; i < SL_DRIFT_COUNT_; i++) {
		const char *name = sl_drift_kind_name((enum sl_drift_kind)i);

		assert_true(name[0] && strlen(name) < 20);
		assert_true(sl_drift_kind_place((enum sl_drift_kind)i)[0]);
		for (int k = 0; k < i; k++)
			assert_string_not_equal(name, sl_drift_kind_name((enum sl_drift_kind)k));
	}
	for (int i = 0; i < SL_DRIFT_DONE_COUNT_; i++)
		assert_in_range(strlen(sl_drift_done_name((enum sl_drift_done)i)), 1, 15);
}

static void test_entry_text(void **state)
{
	struct sl_packet_key key;
	struct sl_addr from, to;
	char text[SL_DRIFT_TEXT];

	(void)state;
	assert_int_equal(sl_addr_parse("192.0.2.1:4711", &from), 0);
	assert_int_equal(sl_addr_parse("[2001:db8::1]:80", &to), 0);
	sl_packet_key_of(&from, &to, &key);
	assert_string_equal(sl_drift_entry_text(&key, 42, false, text),
			    "entry 192.0.2.1:4711 > [2001:db8::1]:80 of connection 42, backend's "
			    "direction");
}

/* ---- broker and records ---- */

static unsigned n_looks(struct sl_agree *a, uint64_t records, uint64_t known, unsigned n)
{
	unsigned said = 0;

	while (n--)
		said += sl_agree_look(a, records, known, a->moved, SL_AGREE_LOOKS);
	return said;
}

static void test_agree(void **state)
{
	struct sl_agree a = { 0 };

	(void)state;
	assert_int_equal(n_looks(&a, 5, 5, 20), 0);
	/* what is told late */
	assert_int_equal(n_looks(&a, 5, 4, SL_AGREE_LOOKS - 1), 0);
	assert_int_equal(n_looks(&a, 4, 4, 1), 0);
	assert_int_equal(n_looks(&a, 5, 4, SL_AGREE_LOOKS - 1), 0);
	assert_int_equal(n_looks(&a, 4, 5, SL_AGREE_LOOKS - 1), 0);
	assert_false(a.is_off);
	/* said once, until it is over */
	assert_int_equal(n_looks(&a, 4, 5, 20), 1);
	assert_true(a.is_off);
	assert_int_equal(n_looks(&a, 5, 5, 1), 0);
	assert_false(a.is_off);
	assert_int_equal(n_looks(&a, 4, 5, 20), 1);
	sl_agree_forget(&a);
	assert_false(a.is_off);
}

static void test_agree_when_busy(void **state)
{
	struct sl_agree a = { 0 };

	(void)state;
	for (uint64_t i = 1; i < 50; i++)
		assert_false(sl_agree_look(&a, 1000, 990, 10 * i, SL_AGREE_LOOKS));
	assert_false(a.is_off);
	/* more than what comes and goes */
	for (uint64_t i = 50; i < 50 + SL_AGREE_LOOKS; i++)
		(void)sl_agree_look(&a, 1000, 900, 10 * i, SL_AGREE_LOOKS);
	assert_true(a.is_off);
	/* a busy moment proves nothing */
	assert_false(sl_agree_look(&a, 1000, 999, 10000, SL_AGREE_LOOKS));
	assert_true(a.is_off);
}

#define DRIFT(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		DRIFT(test_lines),
		DRIFT(test_same_again),
		DRIFT(test_bounded),
		DRIFT(test_window),
		DRIFT(test_told_soon),
		cmocka_unit_test(test_no_ledger),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_entry_text),
		cmocka_unit_test(test_agree),
		cmocka_unit_test(test_agree_when_busy),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
