/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CONF_TEXT_H
#define CONF_TEXT_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "conf/build.h"

/* Everything that is said of a text must be in its row, in this order. */
struct row {
	const char *text;
	const char *want[6]; /* "LINE:COLUMN: error: beginning of the message" */
};

/* What a configuration calls the ways to choose a target. */
static const struct {
	const char *word;
	enum sl_balance value;
} balance_words[] = {
	{ "round_robin", SL_BALANCE_ROUND_ROBIN }, { "least_conn", SL_BALANCE_LEAST_CONN },
	{ "random", SL_BALANCE_RANDOM },           { "source_hash", SL_BALANCE_SOURCE_HASH },
	{ "maglev", SL_BALANCE_MAGLEV },
};

/* The result of one configuration given as text. */
struct built {
	int r;
	struct sl_conf *conf;
	struct sl_diags diags;
};

/* `second` is a file of conf.d; NULL: none. */
static inline struct built build_two(const char *text, size_t len, const char *second)
{
	struct sl_conf_source item[2] = { { .name = (char *)"a.yaml", .len = len },
					  { .name = (char *)"conf.d/b.yaml" } };
	struct sl_conf_sources sources = { item, second ? 2 : 1 };
	struct built b = { 0 };

	/* on the exact heap size, so that reading beyond is seen */
	item[0].text = malloc(len + 1);
	memcpy(item[0].text, text, len);
	item[0].text[len] = '\0';
	item[1].text = second ? strdup(second) : NULL;
	item[1].len = second ? strlen(second) : 0;
	b.r = sl_conf_build(&sources, &b.conf, &b.diags);
	free(item[0].text);
	free(item[1].text);
	if ((b.r == 0) != (b.conf != NULL) || (b.r == 0) != (b.diags.n_errors == 0))
		fail_msg("result %d, %zu errors", b.r, b.diags.n_errors);
	return b;
}

/* A change made at run time; the last has no kind. */
struct change {
	enum sl_source_kind kind;
	const char *subject;
	const char *text; /* NULL: none */
};

static inline struct built build_changed(const char *text, const struct change *changes)
{
	struct sl_conf_sources sources = { .n = 1 };
	struct built b = { 0 };

	while (changes[sources.n - 1].kind)
		sources.n++;
	sources.item = calloc(sources.n, sizeof(*sources.item));
	sources.item[0] = (struct sl_conf_source){ .name = strdup("a.yaml"),
						   .text = strdup(text),
						   .len = strlen(text) };
	for (size_t i = 1; i < sources.n; i++) {
		const struct change *c = &changes[i - 1];
		struct sl_conf_source *item = &sources.item[i];

		item->name = malloc(80);
		(void)snprintf(item->name, 80, "runtime:%s", c->subject);
		item->kind = c->kind;
		item->subject = strdup(c->subject);
		item->text = c->text ? strdup(c->text) : NULL;
		item->len = c->text ? strlen(c->text) : 0;
	}
	b.r = sl_conf_build(&sources, &b.conf, &b.diags);
	sl_conf_sources_done(&sources);
	if ((b.r == 0) != (b.conf != NULL) || (b.r == 0) != (b.diags.n_errors == 0))
		fail_msg("result %d, %zu errors", b.r, b.diags.n_errors);
	return b;
}

static inline struct built build_text(const char *text)
{
	return build_two(text, strlen(text), NULL);
}

static inline void built_done(struct built *b)
{
	sl_conf_free(b->conf);
	sl_diags_done(&b->diags);
}

static inline size_t count_messages(const char *text)
{
	size_t n = 0;

	for (const char *p = text; (p = strstr(p, "a.yaml:")) != NULL; p++)
		n += p == text || p[-1] == '\n';
	return n;
}

static inline void check_rows(struct built (*build)(const char *text), const struct row *rows,
			      size_t n)
{
	for (size_t i = 0; i < n; i++) {
		_cleanup_(built_done) struct built b = build(rows[i].text);
		const char *got = sl_str_text(&b.diags.text), *p = got;
		size_t wanted = 0;

		for (; wanted < 6 && rows[i].want[wanted]; wanted++) {
			char want[400];

			(void)snprintf(want, sizeof(want), "a.yaml:%s", rows[i].want[wanted]);
			p = strstr(p, want);
			if (!p)
				fail_msg("row %zu:\n%s\nwant %s\ngot:\n%s", i, rows[i].text, want,
					 got);
			p++;
		}
		if (count_messages(got) != wanted)
			fail_msg("row %zu:\n%s\nwant %zu messages, got:\n%s", i, rows[i].text,
				 wanted, got);
	}
}

#define good_conf(name, content)                                           \
	_cleanup_(built_done) struct built name##_b = build_text(content); \
	if (name##_b.r < 0)                                                \
		fail_msg("%s", sl_str_text(&name##_b.diags.text));         \
	const struct sl_conf *name = name##_b.conf

#endif
