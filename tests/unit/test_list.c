/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/list.h"
#include "base/rand.h"

struct item {
	char name;
	struct sl_list node;
};

static const char *names(struct sl_list *head, char *buf)
{
	struct sl_list *pos;
	size_t n = 0;

	sl_list_for_each (pos, head) {
		assert_ptr_equal(pos->next->prev, pos);
		buf[n++] = SL_CONTAINER_OF(pos, struct item, node)->name;
	}
	buf[n] = '\0';
	return buf;
}

static void add_and_remove(void **state)
{
	struct item a = { .name = 'a' };
	struct item b = { .name = 'b' };
	struct item c = { .name = 'c' };
	struct sl_list head;
	char buf[8];

	(void)state;
	sl_list_init(&head);
	assert_true(sl_list_is_empty(&head));
	sl_list_add(&head, &a.node);
	sl_list_add(&head, &b.node);
	sl_list_add(&head, &c.node);
	assert_false(sl_list_is_empty(&head));
	assert_string_equal(names(&head, buf), "abc");
	sl_list_remove(&b.node);
	assert_string_equal(names(&head, buf), "ac");
	sl_list_remove(&b.node); /* harmless */
	assert_string_equal(names(&head, buf), "ac");
	sl_list_add(&head, &b.node);
	assert_string_equal(names(&head, buf), "acb");
}

static void splice(void **state)
{
	static const struct {
		const char *to;
		const char *from;
		const char *want;
	} rows[] = { { "", "", "" },
		     { "ab", "", "ab" },
		     { "", "cd", "cd" },
		     { "ab", "cd", "abcd" },
		     { "a", "c", "ac" } };

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(rows); i++) {
		struct item items[8];
		struct sl_list to;
		struct sl_list from;
		size_t n = 0;
		char buf[9];

		sl_list_init(&to);
		sl_list_init(&from);
		for (const char *p = rows[i].to; *p; p++, n++) {
			items[n].name = *p;
			sl_list_add(&to, &items[n].node);
		}
		for (const char *p = rows[i].from; *p; p++, n++) {
			items[n].name = *p;
			sl_list_add(&from, &items[n].node);
		}
		sl_list_splice(&to, &from);
		assert_string_equal(names(&to, buf), rows[i].want);
		assert_true(sl_list_is_empty(&from));
	}
}

static void remove_while_walking(void **state)
{
	struct item items[6];
	struct sl_list head;
	struct sl_list *pos;
	struct sl_list *tmp;
	char buf[8];

	(void)state;
	sl_list_init(&head);
	for (int i = 0; i < 6; i++) {
		items[i].name = (char)('a' + i);
		sl_list_add(&head, &items[i].node);
	}
	sl_list_for_each_safe (pos, tmp, &head) {
		if (SL_CONTAINER_OF(pos, struct item, node)->name % 2)
			sl_list_remove(pos);
	}
	assert_string_equal(names(&head, buf), "bdf");
}

static int n_freed;

struct thing;
static void thing_free(struct thing *t)
{
	n_freed += t != NULL;
}
SL_DEFINE_CLEANUP(struct thing, thing_free);

/* base/cleanup.h: what is taken is not freed, what is left is. */
static void ownership(void **state)
{
	char here;
	struct thing *taken;
	int fds[2];

	(void)state;
	{
		_cleanup_(thing_freep) struct thing *a = (struct thing *)(void *)&here;
		_cleanup_(thing_freep) struct thing *b = (struct thing *)(void *)&here;
		_cleanup_fd_ int none = -1;
		_cleanup_fd_ int left = -1;
		_cleanup_fd_ int kept = -1;

		taken = SL_TAKE_PTR(b);
		assert_null(b);
		assert_non_null(a);
		assert_int_equal(none, -1);
		assert_int_equal(pipe(fds), 0);
		left = fds[0];
		kept = fds[1];
		assert_int_equal(SL_TAKE_FD(kept), fds[1]);
		assert_int_equal(kept, -1);
		assert_int_equal(left, fds[0]);
	}
	assert_ptr_equal(taken, &here);
	assert_int_equal(n_freed, 1);
	assert_int_equal(close(fds[0]), -1);
	assert_int_equal(close(fds[1]), 0);
}

static void random_numbers(void **state)
{
	unsigned hits[10] = { 0 };
	struct sl_rand r;

	(void)state;
	sl_rand_seed(&r, 0); /* would never leave 0 */
	assert_true(sl_rand_next(&r) != sl_rand_next(&r));
	for (int i = 0; i < 10000; i++)
		hits[sl_rand_below(&r, 10)]++;
	for (int i = 0; i < 10; i++)
		assert_in_range(hits[i], 850, 1150);
	assert_int_equal(sl_rand_below(&r, 0), 0);
	assert_int_equal(sl_rand_below(&r, 1), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(add_and_remove),       cmocka_unit_test(splice),
		cmocka_unit_test(remove_while_walking), cmocka_unit_test(ownership),
		cmocka_unit_test(random_numbers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
