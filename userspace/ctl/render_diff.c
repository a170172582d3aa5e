/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <inttypes.h>
#include <jansson.h>
#include <string.h>

#include "base/str.h"
#include "ctl/render.h"
#include "ctl/table.h"

static const char *text_at(const json_t *j, const char *key, const char *otherwise)
{
	const char *text = json_string_value(json_object_get(j, key));

	return text ? text : otherwise;
}

static uint64_t count_at(const json_t *j, const char *key)
{
	json_int_t n = json_integer_value(json_object_get(j, key));

	return n > 0 ? (uint64_t)n : 0;
}

static void put(const struct sl_render *r, int colour, const char *fmt, ...) SL_PRINTF(3, 4);
static void put(const struct sl_render *r, int colour, const char *fmt, ...)
{
	_cleanup_(sl_str_done) struct sl_str text = { 0 };
	va_list ap;

	va_start(ap, fmt);
	sl_str_addv(&text, fmt, ap);
	va_end(ap);
	if (r->colour && colour)
		(void)fprintf(r->to, "\033[%dm%s\033[0m\n", colour, sl_str_text(&text));
	else
		(void)fprintf(r->to, "%s\n", sl_str_text(&text));
}

enum {
	RED = 31,
	GREEN = 32,
	CYAN = 36,
};

/* "repaired: made again from the other direction (3 times, last 0.8s ago)" */
static void put_result(const struct sl_render *r, const json_t *d)
{
	const char *result = text_at(d, "result", "-");
	uint64_t times = count_at(d, "times");
	char age[32], often[48] = "";

	if (strcmp(result, "left") == 0)
		result = "left as it is";
	if (times > 1)
		(void)snprintf(often, sizeof(often), "%" PRIu64 " times, last ", times);
	put(r, 0, " %s: %s (%s%s ago)", result, text_at(d, "how", "-"), often,
	    sl_table_seconds(json_number_value(json_object_get(d, "age_s")), age));
}

static void put_differences(const struct sl_render *r, const json_t *all)
{
	char before[64] = "";

	if (json_array_size(all) == 0)
		return;
	put(r, 0, "--- records");
	put(r, 0, "+++ kernel");
	for (size_t i = 0; i < json_array_size(all); i++) {
		const json_t *d = json_array_get(all, i);
		char place[64];

		(void)snprintf(place, sizeof(place), "%.20s: %.30s", text_at(d, "engine", "-"),
			       text_at(d, "place", "-"));
		if (strcmp(place, before) != 0)
			put(r, CYAN, "@@ %s @@", place);
		memcpy(before, place, sizeof(before));
		put(r, RED, "-%s", text_at(d, "wanted", "nothing"));
		put(r, GREEN, "+%s", text_at(d, "found", "missing"));
		put_result(r, d);
	}
}

static void put_looks(const struct sl_render *r, const json_t *engines)
{
	for (size_t i = 0; i < json_array_size(engines); i++) {
		const json_t *e = json_array_get(engines, i);
		const char *name = text_at(e, "engine", "-");

		if (json_is_true(json_object_get(e, "compared")))
			put(r, 0,
			    "%s: %" PRIu64 " connections in the records, %" PRIu64
			    " known to the broker; compared: %s",
			    name, count_at(e, "records"), count_at(e, "known"),
			    text_at(e, "text", "-"));
		else
			put(r, 0, "%s: %s", name, text_at(e, "text", "-"));
	}
}

static void add_totals(struct sl_str *s, json_t *totals)
{
	size_t before = s->len;
	const char *name;
	json_t *v;

	json_object_foreach(totals, name, v) if (json_integer_value(v) > 0)
		sl_str_addf(s, "%s%s %" PRIu64, s->len > before ? ", " : "", name,
			    (uint64_t)json_integer_value(v));
	if (s->len == before)
		sl_str_adds(s, "none");
}

static void put_sum(const struct sl_render *r, const json_t *doc)
{
	_cleanup_(sl_str_done) struct sl_str s = { 0 };
	uint64_t n = count_at(doc, "found"), left = count_at(doc, "left");
	uint64_t waiting = count_at(doc, "waiting"), unlisted = count_at(doc, "unlisted");

	if (n == 0)
		sl_str_adds(&s, "no difference");
	else
		sl_str_addf(&s, "%" PRIu64 " difference%s", n, n == 1 ? "" : "s");
	sl_str_addf(&s, " in the last %" PRIu64 " minutes", count_at(doc, "window_s") / 60);
	if (unlisted)
		sl_str_addf(&s, " (%" PRIu64 " of them not listed)", unlisted);
	if (left)
		sl_str_addf(&s, ", %" PRIu64 " not healed", left);
	if (waiting)
		sl_str_addf(&s, ", %" PRIu64 " to be healed", waiting);
	if (n && !left && !waiting)
		sl_str_adds(&s, ", all healed");
	sl_str_adds(&s, "; totals since start: ");
	add_totals(&s, json_object_get(doc, "totals"));
	put(r, 0, "%s", sl_str_text(&s));
}

void sl_render_diff(const struct sl_render *r, const json_t *doc)
{
	put_differences(r, json_object_get(doc, "differences"));
	if (!json_is_true(json_object_get(doc, "compared")))
		put(r, 0, "there is no state of the kernel to compare: %s",
		    text_at(doc, "reason", "-"));
	put_looks(r, json_object_get(doc, "engines"));
	put_sum(r, doc);
}

bool sl_render_is_drifting(const json_t *doc)
{
	return count_at(doc, "left") > 0;
}
