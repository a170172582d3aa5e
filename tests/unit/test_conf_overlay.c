/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "conf_text.h"

#include <time.h>

#define ROUTE SL_SOURCE_ROUTE
#define REMOVE SL_SOURCE_REMOVE
#define ENABLE SL_SOURCE_ENABLE
#define DISABLE SL_SOURCE_DISABLE
#define DRAIN SL_SOURCE_DRAIN
#define FILE_TEXT                                                                     \
	"version: 1\ndefaults: { half_open: true }\nroutes:\n"                        \
	"  - { name: a, match: { ports: 1 }, forward: [h:1, i:1] }\n"                 \
	"  - { name: b, enabled: false, match: { ports: 2 }, forward: [h:1, j:1] }\n" \
	"  - { name: c, match: { ports: 3 }, forward: k:1 }\n"
#define TEXT(port) "match: { ports: " port " }\nforward: x:1\n"

/* "NAME:PORT", "-" in front when disabled, "!" and the addresses of drained targets after it. */
static void describe(const struct sl_conf *c, struct sl_str *out)
{
	for (size_t i = 0; i < c->n_routes; i++) {
		const struct sl_conf_route *r = &c->routes[i];

		sl_str_addf(out, "%s%s%s:%u", i ? " " : "", r->enabled ? "" : "-", r->name,
			    r->ports[0].from);
		for (size_t k = 0; k < r->n_targets; k++)
			if (r->targets[k].drained)
				sl_str_addf(out, "!%s", r->targets[k].address);
	}
}

static const struct {
	struct change changes[8];
	const char *want;
	const char *warning; /* NULL: none */
} rows[] = {
	{ { { 0 } }, "a:1 -b:2 c:3", NULL },
	{ { { ROUTE, "b", TEXT("9") } }, "a:1 b:9 c:3", NULL },
	{ { { ROUTE, "b", "name: b\nenabled: false\n" TEXT("9") } }, "a:1 -b:9 c:3", NULL },
	{ { { ROUTE, "b",
	      "{\"name\": \"b\", \"match\": {\"ports\": [9]}, \"forward\": \"h:1\"}" } },
	  "a:1 b:9 c:3",
	  NULL },
	{ { { ROUTE, "b", "name:\n" TEXT("9") } }, "a:1 b:9 c:3", NULL },
	{ { { ROUTE, "z", TEXT("9") }, { ROUTE, "y", TEXT("8") } }, "a:1 -b:2 c:3 z:9 y:8", NULL },
	{ { { ROUTE, "z", TEXT("9") }, { ROUTE, "z", TEXT("8") } }, "a:1 -b:2 c:3 z:8", NULL },
	{ { { REMOVE, "a", NULL } }, "-b:2 c:3", NULL },
	{ { { REMOVE, "a", NULL }, { REMOVE, "b", NULL }, { REMOVE, "c", NULL } },
	  "",
	  "a.yaml:1:1: warning: there is no route: nothing will be forwarded" },
	{ { { ENABLE, "b", NULL } }, "a:1 b:2 c:3", NULL },
	{ { { DISABLE, "a", NULL }, { ENABLE, "a", NULL } }, "a:1 -b:2 c:3", NULL },
	{ { { DISABLE, "a", "" } }, "-a:1 -b:2 c:3", NULL },
	{ { { ROUTE, "a", TEXT("9") }, { DISABLE, "a", NULL } }, "-a:9 -b:2 c:3", NULL },
	{ { { DISABLE, "a", NULL }, { ROUTE, "a", TEXT("9") } }, "a:9 -b:2 c:3", NULL },
	{ { { ROUTE, "a", "not a route" }, { ROUTE, "a", TEXT("9") } }, "a:9 -b:2 c:3", NULL },
	{ { { ROUTE, "a", "not a route" }, { REMOVE, "a", NULL } }, "-b:2 c:3", NULL },
	{ { { REMOVE, "a", NULL }, { ROUTE, "a", TEXT("9") } }, "a:9 -b:2 c:3", NULL },
	{ { { ROUTE, "z", TEXT("9") }, { REMOVE, "z", NULL } }, "a:1 -b:2 c:3", NULL },
	{ { { REMOVE, "z", NULL } },
	  "a:1 -b:2 c:3",
	  "runtime:z:1:1: warning: there is no route 'z' to remove\n"
	  "    1 |\n"
	  "      | ^\n" },
	{ { { ENABLE, "z", "" } }, "a:1 -b:2 c:3", "there is no route 'z' to enable" },
	{ { { REMOVE, "a", NULL }, { DISABLE, "a", NULL } },
	  "-b:2 c:3",
	  "runtime:a:1:1: warning: there is no route 'a' to disable" },
	{ { { ENABLE, "z", NULL }, { ROUTE, "z", TEXT("9") } }, "a:1 -b:2 c:3 z:9", NULL },
	{ { { DRAIN, "a", "i:1" } }, "a:1!i:1 -b:2 c:3", NULL },
	{ { { DRAIN, "", "h:1" } }, "a:1!h:1 -b:2!h:1 c:3", NULL },
	{ { { DRAIN, "", "h:1" },
	    { DRAIN, "a", "h:1" },
	    { DRAIN, "c", "k:1" },
	    { DRAIN, "", "h:1" } },
	  "a:1!h:1 -b:2!h:1 c:3!k:1",
	  NULL },
	{ { { DRAIN, "z", "x:1" }, { ROUTE, "z", TEXT("9") } }, "a:1 -b:2 c:3 z:9!x:1", NULL },
	{ { { DRAIN, "c", "h:1" } },
	  "a:1 -b:2 c:3",
	  "runtime:c:1:1: warning: there is no target 'h:1' of a route 'c' to drain\n"
	  "    1 | h:1\n"
	  "      | ^\n" },
	{ { { DRAIN, "", "q:1" } },
	  "a:1 -b:2 c:3",
	  "runtime::1:1: warning: there is no target 'q:1' to drain" },
	{ { { DRAIN, "z", NULL } },
	  "a:1 -b:2 c:3",
	  "there is no target '' of a route 'z' to drain" },
};

static void changes_are_applied(void **state)
{
	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(rows); i++) {
		_cleanup_(built_done) struct built b = build_changed(FILE_TEXT, rows[i].changes);
		_cleanup_(sl_str_done) struct sl_str got = { 0 };
		const char *said = sl_str_text(&b.diags.text);

		if (b.r < 0)
			fail_msg("row %zu: %s", i, said);
		describe(b.conf, &got);
		if (strcmp(sl_str_text(&got), rows[i].want) != 0)
			fail_msg("row %zu: want %s, got %s", i, rows[i].want, sl_str_text(&got));
		if (b.diags.n_warnings != (rows[i].warning != NULL) ||
		    (rows[i].warning && !strstr(said, rows[i].warning)))
			fail_msg("row %zu: want %s, got %s", i,
				 rows[i].warning ? rows[i].warning : "no warning", said);
		for (size_t k = 0; k < b.conf->n_routes; k++)
			assert_true(b.conf->routes[k].half_open);
	}
}

static const struct {
	struct change changes[4];
	const char *want[3];
} bad[] = {
	{ { { ROUTE, "z", "match: { ports: 0 }\nforward: h:1\n" } },
	  { "runtime:z:1:17: error: match.ports: '0' is not a port" } },
	{ { { ROUTE, "z", "mach: { ports: 1 }\nforward: h:1\n" } },
	  { "runtime:z:1:1: error: unknown key 'mach', did you mean 'match'?" } },
	{ { { ROUTE, "z", "forward: h:1\n" } },
	  { "runtime:z:1:1: error: required key 'match' is missing" } },
	{ { { ROUTE, "z", "match: { ports: 1 }\n" } },
	  { "runtime:z:1:1: error: required key 'forward' is missing" } },
	{ { { ROUTE, "z", "{}" } },
	  { "runtime:z:1:1: error: required key 'match'",
	    "runtime:z:1:1: error: required key 'forward'" } },
	{ { { ROUTE, "z", "name: y\n" TEXT("1") } },
	  { "runtime:z:1:7: error: name: 'y' is not 'z', the route this is about\n"
	    "    1 | name: y\n"
	    "      |       ^\n" } },
	{ { { ROUTE, "z z", TEXT("1") } },
	  { "runtime:z z:1:1: error: name: 'z z' is not a name of 1 to 64" } },
	{ { { ROUTE, "z", "" } }, { "runtime:z:1:1: error: the route is empty" } },
	{ { { ROUTE, "z", NULL } }, { "runtime:z:1:1: error: the route is empty" } },
	{ { { ROUTE, "z", "null" } }, { "runtime:z:1:1: error: a value is missing" } },
	{ { { ROUTE, "z", "[1]" } }, { "runtime:z:1:1: error: a mapping" } },
	{ { { ROUTE, "z", "routes: []" } },
	  { "runtime:z:1:1: error: unknown key 'routes'",
	    "runtime:z:1:1: error: required key 'match'",
	    "runtime:z:1:1: error: required key 'forward'" } },
	{ { { ROUTE, "z", "match: { ports: [1\n" } }, { "runtime:z:1:17: error: " } },
	{ { { ROUTE, "a", TEXT("1") "security: { deny: x }\n" } },
	  { "runtime:a:3:19: error: security.deny: 'x' is not an address" } },
	{ { { ROUTE, "a", "match: { ports: 0 }\nforward: h:1\n" }, { ROUTE, "z", "{" } },
	  { "runtime:a:1:17: error: match.ports: '0'", "runtime:z:1:1: error: " } },
	{ { { ROUTE, "z", TEXT("1") "forward: y:1\n" } },
	  { "runtime:z:3:1: error: duplicate key 'forward', first given at runtime:z:2:1" } },
	{ { { ROUTE, "z",
	      "match: { ports: 1 }\nforward: { targets: h:1, send_proxy: { version: v1, "
	      "alpn: true } }\n" } },
	  { "runtime:z:2:53: error: forward.send_proxy: 'alpn' needs version v2: v1 (at "
	    "runtime:z:2:49)" } },
	{ { { ROUTE, "z", "match: { ports: 1 }\nforward: [h:1, h:1]\n" } },
	  { "runtime:z:2:16: error: the target 'h:1' is already in this route, at "
	    "runtime:z:2:11" } },
};

static void bad_changes_are_explained(void **state)
{
	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(bad); i++) {
		_cleanup_(built_done) struct built b = build_changed(FILE_TEXT, bad[i].changes);
		const char *got = sl_str_text(&b.diags.text), *p = got;
		size_t n = 0;

		for (; n < SL_ARRAY_LEN(bad[i].want) && bad[i].want[n]; n++) {
			p = strstr(p, bad[i].want[n]);
			if (!p)
				fail_msg("row %zu: want %s, got:\n%s", i, bad[i].want[n], got);
			p++;
		}
		if (b.diags.n_errors != n)
			fail_msg("row %zu: want %zu errors, got:\n%s", i, n, got);
	}
}

/* Whatever is changed at run time, the file stays as it is and is judged as before. */
static void the_file_is_still_checked(void **state)
{
	static const struct change changes[] = { { REMOVE, "a", NULL }, { 0 } };
	_cleanup_(built_done) struct built twice = build_changed(
		"version: 1\nroutes:\n  - { name: a, match: { ports: 1 }, forward: h:1 }\n"
		"  - { name: a, match: { ports: 2 }, forward: h:1 }\n",
		changes);
	_cleanup_(built_done) struct built wrong = build_changed(
		"version: 1\nroutes:\n  - { name: a, match: { ports: 0 }, forward: h:1 }\n",
		changes);

	(void)state;
	assert_non_null(strstr(twice.diags.text.p,
			       "a.yaml:4:13: error: the name 'a' is already used "
			       "by the route at a.yaml:3:13"));
	assert_non_null(
		strstr(wrong.diags.text.p, "a.yaml:3:32: error: routes[0].match.ports: '0'"));
}

static void marks_name_the_change(void **state)
{
	static const struct change changes[] = { { ROUTE, "b",
						   "match:\n  ports: 9\nforward: x:1\n" },
						 { ROUTE, "z", TEXT("1") },
						 { 0 } };
	_cleanup_(built_done) struct built b = build_changed(FILE_TEXT, changes);

	(void)state;
	assert_int_equal(b.r, 0);
	assert_int_equal(b.conf->routes[1].mark.source, 1);
	assert_int_equal(b.conf->routes[1].ports[0].mark.source, 1);
	assert_int_equal(b.conf->routes[1].ports[0].mark.line, 2);
	assert_int_equal(b.conf->routes[1].ports[0].mark.column, 10);
	/* what comes last is hidden by what the file has */
	assert_non_null(strstr(sl_str_text(&b.diags.text),
			       "runtime:z:1:17: warning: the route 'z' can never match: the route "
			       "'a' at a.yaml:4:13"));
}

static void many_changes_are_quick(void **state)
{
	static char texts[600][64], names[600][16];
	static struct change changes[601];
	_cleanup_(sl_str_done) struct sl_str text = { 0 };
	struct timespec a, b;

	(void)state;
	sl_str_adds(&text, "version: 1\nroutes:\n");
	for (unsigned i = 0; i < 10000; i++)
		sl_str_addf(&text,
			    "  - name: r%u\n    match: { ports: 443, domains: [d%u.example.com, "
			    "\"*.d%u.example.com\"] }\n    forward: [h%u.example.com:80, "
			    "10.0.0.1:81]\n",
			    i, i, i, i);
	for (unsigned i = 0; i < 600; i++) {
		(void)snprintf(names[i], sizeof(names[i]), "r%u", i * 16 + 3);
		(void)snprintf(texts[i], sizeof(texts[i]),
			       i % 3 == 2 ? "h%u.example.com:80" : TEXT("%u"), i * 16 + 3);
		changes[i] = (struct change){ i % 3 == 0   ? ROUTE
					      : i % 3 == 1 ? DISABLE
							   : DRAIN,
					      names[i], i % 3 == 1 ? NULL : texts[i] };
	}
	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
	_cleanup_(built_done) struct built built = build_changed(text.p, changes);
	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
	print_message("10 000 routes, 600 changes: %ld ms\n",
		      (long)(b.tv_sec - a.tv_sec) * 1000 + (b.tv_nsec - a.tv_nsec) / 1000000);
	if (built.r < 0)
		fail_msg("%s", sl_str_text(&built.diags.text));
	if (built.diags.n_warnings)
		fail_msg("%s", sl_str_text(&built.diags.text));
	assert_int_equal(built.conf->n_routes, 10000);
	assert_int_equal(built.conf->routes[3].ports[0].from, 3);
	assert_false(built.conf->routes[19].enabled);
	assert_true(built.conf->routes[35].targets[0].drained);
	assert_int_equal(built.conf->routes[9999].n_domains, 2);
	assert_string_equal(built.conf->routes[9999].domains[1], "*.d9999.example.com");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(changes_are_applied),
		cmocka_unit_test(bad_changes_are_explained),
		cmocka_unit_test(the_file_is_still_checked),
		cmocka_unit_test(marks_name_the_change),
		cmocka_unit_test(many_changes_are_quick),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
