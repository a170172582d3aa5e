/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "ctl/view_diff.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/num.h"
#include "broker/drift.h"

struct view {
	struct sl_json j;
	uint64_t n;       /* differences, with repeats */
	uint64_t left;    /* that are not healed, */
	uint64_t waiting; /* or not yet */
};

/* ---- the broker's lines ---- */

/* The next line of `*at`, without its end; false: there is none. */
static bool next_line(const char **at, struct sl_slice *ret)
{
	size_t n = strcspn(*at, "\n");

	if (!**at)
		return false;
	*ret = (struct sl_slice){ *at, n };
	*at += (*at)[n] ? n + 1 : n;
	return true;
}

/* The next word of `*line`, behind which it goes on. */
static struct sl_slice next_word(struct sl_slice *line)
{
	const char *blank = line->n ? memchr(line->p, ' ', line->n) : NULL;
	size_t n = blank ? (size_t)(blank - line->p) : line->n;
	struct sl_slice word = { line->p, n };

	n += blank != NULL;
	line->p += n;
	line->n -= n;
	return word;
}

static uint64_t number_of(struct sl_slice word)
{
	char text[24];
	uint64_t n = 0;

	(void)snprintf(text, sizeof(text), "%.*s", (int)(word.n < 23 ? word.n : 23), word.p);
	return sl_num_parse(text, 0, UINT64_MAX, &n) < 0 ? 0 : n;
}

static bool find_kind(struct sl_slice word, enum sl_drift_kind *ret)
{
	for (int i = 0; i < SL_DRIFT_COUNT_; i++)
		if (sl_slice_is(word, sl_drift_kind_name((enum sl_drift_kind)i))) {
			*ret = (enum sl_drift_kind)i;
			return true;
		}
	return false;
}

/* ---- one difference ---- */

static void add_engine(struct sl_json *j, enum sl_engine_id engine)
{
	sl_json_str(j, "engine", engine == SL_ENGINE_NONE ? NULL : sl_engine_name(engine));
}

/* What follows the head, up to the next one. */
static void add_words(struct view *v, const char **at)
{
	static const struct {
		char mark;
		const char *key;
	} words[] = { { '-', "wanted" }, { '+', "found" }, { '.', "how" } };

	for (size_t i = 0; i < SL_ARRAY_LEN(words); i++) {
		struct sl_slice line;

		if ((*at)[0] == words[i].mark && (*at)[1] == ' ' && next_line(at, &line))
			sl_json_strn(&v->j, words[i].key, line.p + 2, line.n - 2);
		else
			sl_json_null(&v->j, words[i].key);
	}
}

static void count(struct view *v, const char *done, uint64_t times)
{
	v->n += times;
	v->left += strcmp(done, sl_drift_done_name(SL_DRIFT_LEFT)) == 0;
	v->waiting += strcmp(done, sl_drift_done_name(SL_DRIFT_WAITS)) == 0;
}

/* "KIND DONE NEW TIMES AGE_MS" */
static void add_difference(struct view *v, struct sl_slice line, const char **at)
{
	struct sl_slice kind_word = next_word(&line), done_word = next_word(&line);
	bool is_new = number_of(next_word(&line));
	uint64_t times = number_of(next_word(&line));
	enum sl_drift_kind kind;
	char done[16];

	if (!find_kind(kind_word, &kind)) /* of a newer broker */
		return;
	(void)snprintf(done, sizeof(done), "%.*s", (int)done_word.n, done_word.p);
	count(v, done, times);
	sl_json_obj(&v->j, NULL);
	sl_json_str(&v->j, "kind", sl_drift_kind_name(kind));
	add_engine(&v->j, sl_drift_kind_engine(kind));
	sl_json_str(&v->j, "place", sl_drift_kind_place(kind));
	sl_json_str(&v->j, "result", done);
	sl_json_bool(&v->j, "new", is_new);
	sl_json_u64(&v->j, "times", times);
	sl_json_f64(&v->j, "age_s", (double)number_of(next_word(&line)) / 1000);
	add_words(v, at);
	sl_json_obj_end(&v->j);
}

static void add_disagreement(struct view *v, const struct sl_disagreement *d)
{
	char wanted[64], found[64];

	(void)snprintf(wanted, sizeof(wanted), "%" PRIu64 " connections in the records",
		       d->records);
	(void)snprintf(found, sizeof(found), "%" PRIu64 " connections known to the broker",
		       d->known);
	count(v, sl_drift_done_name(SL_DRIFT_LEFT), 1);
	sl_json_obj(&v->j, NULL);
	sl_json_str(&v->j, "kind", sl_drift_kind_name(SL_DRIFT_RECORDS));
	add_engine(&v->j, d->engine);
	sl_json_str(&v->j, "place", sl_drift_kind_place(SL_DRIFT_RECORDS));
	sl_json_str(&v->j, "result", sl_drift_done_name(SL_DRIFT_LEFT));
	sl_json_bool(&v->j, "new", true);
	sl_json_u64(&v->j, "times", 1);
	sl_json_f64(&v->j, "age_s", 0);
	sl_json_str(&v->j, "wanted", wanted);
	sl_json_str(&v->j, "found", found);
	sl_json_str(&v->j, "how", "it stays so; 'sluice conns' and 'sluice flows' list both");
	sl_json_obj_end(&v->j);
}

static uint64_t add_differences(struct view *v, const struct sl_kernel_view *k, const char *lines)
{
	struct sl_slice line;
	uint64_t unlisted = 0;

	sl_json_arr(&v->j, "differences");
	while (next_line(&lines, &line)) {
		struct sl_slice mark = next_word(&line);

		if (sl_slice_is(mark, "d"))
			add_difference(v, line, &lines);
		else if (sl_slice_is(mark, "m"))
			unlisted += number_of(next_word(&line));
	}
	for (size_t i = 0; i < k->n_disagreements; i++)
		add_disagreement(v, &k->disagreement[i]);
	sl_json_arr_end(&v->j);
	return unlisted;
}

/* ---- the whole ---- */

/* "l ENGINE N WHAT", "x ENGINE WHY" */
static void add_look(struct sl_json *j, struct sl_slice line, bool is_looked_at,
		     const struct sl_proxy_totals *t)
{
	struct sl_slice engine = next_word(&line);

	sl_json_obj(j, NULL);
	sl_json_strn(j, "engine", engine.p, engine.n);
	sl_json_bool(j, "compared", is_looked_at);
	for (int e = 0; e < SL_ENGINE_COUNT_; e++)
		if (sl_slice_is(engine, sl_engine_name((enum sl_engine_id)e)))
			sl_json_u64(j, "records", t->engine_active[e]);
	if (is_looked_at)
		sl_json_u64(j, "known", number_of(next_word(&line)));
	sl_json_strn(j, "text", line.p, line.n);
	sl_json_obj_end(j);
}

static void add_looks(struct sl_json *j, const struct sl_proxy *proxy, const char *lines)
{
	struct sl_proxy_totals totals = { 0 };
	struct sl_slice line;

	sl_proxy_totals(proxy, &totals);
	sl_json_arr(j, "engines");
	while (next_line(&lines, &line)) {
		struct sl_slice mark = next_word(&line);

		if (sl_slice_is(mark, "l") || sl_slice_is(mark, "x"))
			add_look(j, line, sl_slice_is(mark, "l"), &totals);
	}
	sl_json_arr_end(j);
}

static void add_totals(struct sl_json *j, const struct sl_kernel_view *k)
{
	sl_json_obj(j, "totals");
	for (int i = 0; i < SL_DRIFT_COUNT_; i++)
		sl_json_u64(j, sl_drift_kind_name((enum sl_drift_kind)i), k->drift[i]);
	sl_json_obj_end(j);
}

static const char *why_none(const struct sl_ctl_facts *facts)
{
	if (facts->no_broker && facts->no_broker[0])
		return facts->no_broker;
	return "the broker process is being started";
}

void sl_view_diff(struct sl_str *out, const struct sl_proxy *proxy,
		  const struct sl_ctl_facts *facts, const char *lines)
{
	struct view v = { .j = sl_json_on(out) };
	struct sl_kernel_view k;
	uint64_t unlisted;

	sl_proxy_kernel(proxy, &k);
	sl_json_obj(&v.j, NULL);
	sl_json_bool(&v.j, "compared", lines);
	sl_json_str(&v.j, "reason", lines ? NULL : why_none(facts));
	add_looks(&v.j, proxy, lines ? lines : "");
	unlisted = add_differences(&v, &k, lines ? lines : "");
	sl_json_u64(&v.j, "found", v.n + unlisted);
	sl_json_u64(&v.j, "unlisted", unlisted);
	sl_json_u64(&v.j, "left", v.left);
	sl_json_u64(&v.j, "waiting", v.waiting);
	sl_json_u64(&v.j, "window_s", SL_DRIFT_WINDOW_MS / 1000);
	add_totals(&v.j, &k);
	sl_json_obj_end(&v.j);
	sl_str_addc(out, '\n');
}
