/* SPDX-License-Identifier: GPL-3.0-or-later */
/* WRAP: malloc calloc realloc reallocarray strdup */
#include "conf_text.h"

/* The n-th allocation from now on fails, once; 0: none does. */
static size_t fail_at;

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__real_reallocarray(void *p, size_t n, size_t size);
char *__real_strdup(const char *s);

static bool is_failing(void)
{
	return fail_at && --fail_at == 0;
}

void *__wrap_malloc(size_t n)
{
	return is_failing() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
	return is_failing() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
	return is_failing() ? NULL : __real_realloc(p, n);
}

void *__wrap_reallocarray(void *p, size_t n, size_t size)
{
	return is_failing() ? NULL : __real_reallocarray(p, n, size);
}

char *__wrap_strdup(const char *s)
{
	return is_failing() ? NULL : __real_strdup(s);
}

static const char good[] =
	"version: 1\nglobal: { user: me, http: none, log: { access: /a } }\n"
	"listeners: [ { ports: [80, 81], backlog: 3 } ]\ndefaults: { half_open: true }\nroutes:\n"
	"  - { name: a, match: { ports: [80, 90-95, \"10.0.0.1:92-99\"] }, forward: [h:1, i:1] }\n"
	"  - { name: b, match: { ports: 81 }, forward: { targets: [10.0.0.1:1] } }\n";
static const char bad[] =
	"version: 1\nglobal: { usr: me, htp: none, workers: x }\n"
	"routes:\n  - { name: a, name: b, ports: 1, forward: *.x }\n"
	"  - { name: a, match: { ports: 80 }, forward: h }\n  - { nam: \"\xff\" }\n";

static void check(const char *text, int want)
{
	struct sl_conf_source item = { .name = (char *)"a.yaml",
				       .text = (char *)(uintptr_t)text,
				       .len = strlen(text) };
	struct sl_conf_sources sources = { &item, 1 };
	int r = -ENOMEM;
	size_t n;

	for (n = 1; r == -ENOMEM && n < 100000; n++) {
		struct sl_diags diags = { 0 };
		struct sl_conf *conf = NULL;

		fail_at = n;
		r = sl_conf_build(&sources, &conf, &diags);
		if (fail_at)
			assert_int_equal(r, want);
		fail_at = 0;
		if (r < 0)
			assert_null(conf);
		sl_conf_free(conf);
		sl_diags_done(&diags);
	}
	assert_int_equal(r, want);
	assert_true(n > 20);
}

static void a_good_file(void **state)
{
	(void)state;
	check(good, 0);
}

static void a_bad_file(void **state)
{
	(void)state;
	check(bad, -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_good_file),
		cmocka_unit_test(a_bad_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
