/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "conf_text.h"

/* Ports of routes and listeners, and what must be listened to: "ADDRESS from-to backlog@line". */
static const struct {
	const char *routes[4]; /* one route each, from line 3 on */
	const char *listeners;
	const char *want;
} rows[] = {
	{ { "80" }, NULL, "- 80-80 4096@3" },
	{ { "80-90" }, NULL, "- 80-90 4096@3" },
	{ { "443", "80" }, NULL, "- 80-80 4096@4, - 443-443 4096@3" },
	{ { "81", "80" }, NULL, "- 80-81 4096@3" },
	{ { "80-90", "85-95", "96" }, NULL, "- 80-96 4096@3" },
	{ { "[90, 80, 85-95]" }, NULL, "- 80-80 4096@3, - 85-95 4096@3" },
	{ { "\"10.0.0.2:80\"", "\"10.0.0.1:80\"" },
	  NULL,
	  "10.0.0.1 80-80 4096@4, 10.0.0.2 80-80 4096@3" },
	{ { "\"[::1]:80\"", "\"10.0.0.1:80\"", "90" },
	  NULL,
	  "- 90-90 4096@5, 10.0.0.1 80-80 4096@4, ::1 80-80 4096@3" },
	{ { "\"10.0.0.1:80\"", "80" }, NULL, "- 80-80 4096@4" },
	{ { "\"10.0.0.1:70-90\"", "80-82" },
	  NULL,
	  "- 80-82 4096@4, 10.0.0.1 70-79 4096@3, 10.0.0.1 83-90 4096@3" },
	{ { "\"10.0.0.1:70-90\"", "[70, 75, 90]" },
	  NULL,
	  "- 70-70 4096@4, - 75-75 4096@4, - 90-90 4096@4, 10.0.0.1 71-74 4096@3, "
	  "10.0.0.1 76-89 4096@3" },
	{ { "\"10.0.0.1:70-90\"", "60-100" }, NULL, "- 60-100 4096@4" },
	{ { "\"0.0.0.0:80\"", "\"10.0.0.1:80-81\"", "\"[::1]:80\"" },
	  NULL,
	  "0.0.0.0 80-80 4096@3, 10.0.0.1 81-81 4096@4, ::1 80-80 4096@5" },
	{ { "\"[::]:80\"", "\"[::1]:80\"", "\"0.0.0.0:80\"" },
	  NULL,
	  "0.0.0.0 80-80 4096@5, :: 80-80 4096@3" },
	{ { "\"0.0.0.0:80\"", "\"[::]:80\"", "80" }, NULL, "- 80-80 4096@5" },
	{ { "\"[::ffff:10.0.0.1]:80\"", "\"10.0.0.1:80\"" }, NULL, "10.0.0.1 80-80 4096@3" },
	{ { "80-90" }, "{ ports: 85, backlog: 7 }", "- 80-84 4096@3, - 85-85 7@3, - 86-90 4096@3" },
	{ { "80-90" }, "{ ports: 70-100, backlog: 7 }", "- 80-90 7@3" },
	{ { "80-90" }, "{ ports: [80-82, 83-85], backlog: 7 }", "- 80-85 7@3, - 86-90 4096@3" },
	{ { "80" }, "{ ports: 80 }", "- 80-80 4096@3" },
	{ { "\"10.0.0.1:80-82\"" },
	  "{ ports: 80, backlog: 7 }, { ports: \"10.0.0.1:80\", backlog: 8 }, "
	  "{ ports: 82, backlog: 9 }",
	  "10.0.0.1 80-80 8@3, 10.0.0.1 81-81 4096@3, 10.0.0.1 82-82 9@3" },
	{ { "1-65535" },
	  "{ ports: [1, 65535], backlog: 1 }",
	  "- 1-1 1@3, - 2-65534 4096@3, - 65535-65535 1@3" },
	{ { "65535", "65534" }, NULL, "- 65534-65535 4096@3" },
};

static void describe(const struct sl_conf *c, struct sl_str *out)
{
	char ip[SL_ADDR_TEXT];

	for (size_t i = 0; i < c->n_listens; i++)
		sl_str_addf(out, "%s%s %u-%u %d@%u", i ? ", " : "",
			    sl_addr_format_ip(&c->listens[i].ip, ip), c->listens[i].from,
			    c->listens[i].to, c->listens[i].backlog, c->listens[i].mark.line);
}

static void listen_sets(void **state)
{
	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(rows); i++) {
		_cleanup_(sl_str_done) struct sl_str text = { 0 };
		_cleanup_(sl_str_done) struct sl_str got = { 0 };

		sl_str_adds(&text, "version: 1\nroutes:\n");
		for (size_t k = 0; k < 4 && rows[i].routes[k]; k++)
			sl_str_addf(&text,
				    "  - { name: r%zu, match: { ports: %s }, forward: h:1 }\n", k,
				    rows[i].routes[k]);
		if (rows[i].listeners)
			sl_str_addf(&text, "listeners: [ %s ]\n", rows[i].listeners);
		good_conf(c, text.p);
		describe(c, &got);
		if (strcmp(sl_str_text(&got), rows[i].want) != 0)
			fail_msg("%s\nwant %s\ngot  %s", text.p, rows[i].want, sl_str_text(&got));
	}
}

static void disabled_routes_do_not_listen(void **state)
{
	good_conf(c, "version: 1\nroutes:\n"
		     "  - { name: a, enabled: false, match: { ports: 80 }, forward: h:1 }\n"
		     "  - { name: b, match: { ports: 81 }, forward: h:1 }\n");

	(void)state;
	assert_int_equal(c->n_listens, 1);
	assert_int_equal(c->listens[0].from, 81);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(listen_sets),
		cmocka_unit_test(disabled_routes_do_not_listen),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
