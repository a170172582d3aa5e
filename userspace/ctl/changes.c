/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "ctl/changes.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

#include "base/json.h"

#define VERSION 1

static const char *const words[SL_SOURCE_KIND_COUNT_] = {
	[SL_SOURCE_ROUTE] = "route",   [SL_SOURCE_REMOVE] = "remove",
	[SL_SOURCE_ENABLE] = "enable", [SL_SOURCE_DISABLE] = "disable",
	[SL_SOURCE_DRAIN] = "drain",
};

const char *sl_changes_word(enum sl_source_kind kind)
{
	return kind < SL_SOURCE_KIND_COUNT_ ? words[kind] : NULL;
}

bool sl_changes_is_name(const char *text)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789._-";
	size_t n = strlen(text);

	return n > 0 && n <= SL_ROUTE_NAME_MAX && strspn(text, letters) == n;
}

bool sl_changes_fit(enum sl_source_kind kind, const char *subject, size_t len)
{
	switch (kind) {
	case SL_SOURCE_ROUTE:
		return sl_changes_is_name(subject) && len > 0 && len <= SL_CHANGE_TEXT_MAX;
	case SL_SOURCE_REMOVE:
	case SL_SOURCE_ENABLE:
	case SL_SOURCE_DISABLE:
		return sl_changes_is_name(subject) && len == 0;
	case SL_SOURCE_DRAIN:
		return (!subject[0] || sl_changes_is_name(subject)) && len > 0 &&
		       len <= SL_TARGET_TEXT_MAX;
	case SL_SOURCE_FILE:
	case SL_SOURCE_KIND_COUNT_:
		break;
	}
	return false;
}

/* ---- the list ---- */

static void done(struct sl_conf_source *item)
{
	free(item->name);
	free(item->text);
	free(item->subject);
}

static int fill(struct sl_conf_source *item, const char *subject, struct sl_slice text)
{
	struct sl_str name = { 0 };
	struct sl_str copy = { 0 };

	sl_str_addf(&name, "runtime:%s", subject[0] ? subject : "*");
	sl_str_adds(&copy, "");
	sl_str_add(&copy, text.p, text.n);
	item->name = sl_str_take(&name);
	item->len = text.n;
	item->text = sl_str_take(&copy);
	item->subject = strdup(subject);
	return item->name && item->text && item->subject ? 0 : -ENOMEM;
}

bool sl_changes_has_room(const struct sl_conf_sources *s, size_t more)
{
	size_t n = 1;

	for (size_t i = 0; i < s->n; i++) {
		if (s->item[i].kind == SL_SOURCE_FILE)
			continue;
		n++;
		more += s->item[i].len;
	}
	return n <= SL_CHANGES_MAX && more <= SL_CHANGES_BYTES;
}

int sl_changes_insert(struct sl_conf_sources *s, size_t at, enum sl_source_kind kind, bool keep,
		      const char *subject, struct sl_slice text)
{
	struct sl_conf_source item = { .kind = kind, .keep = keep };
	struct sl_conf_source *all;
	int r;

	all = reallocarray(s->item, s->n + 1, sizeof(*all));
	if (!all)
		return -ENOMEM;
	s->item = all;
	r = fill(&item, subject, text);
	if (r < 0) {
		done(&item);
		return r;
	}
	if (at > s->n)
		at = s->n;
	memmove(all + at + 1, all + at, (s->n - at) * sizeof(*all));
	all[at] = item;
	s->n++;
	return 0;
}

void sl_changes_remove(struct sl_conf_sources *s, size_t at)
{
	done(&s->item[at]);
	s->n--;
	memmove(s->item + at, s->item + at + 1, (s->n - at) * sizeof(*s->item));
}

int sl_changes_copy(const struct sl_conf_sources *from, struct sl_conf_sources *to)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < from->n; i++) {
		const struct sl_conf_source *c = &from->item[i];

		if (c->kind != SL_SOURCE_FILE)
			r = sl_changes_insert(to, SIZE_MAX, c->kind, c->keep, c->subject,
					      (struct sl_slice){ c->text, c->len });
	}
	return r;
}

/* ---- writing ---- */

static void write_one(struct sl_json *j, const struct sl_conf_source *c)
{
	bool is_drain = c->kind == SL_SOURCE_DRAIN;

	sl_json_obj(j, NULL);
	sl_json_str(j, "change", words[c->kind]);
	sl_json_str(j, "route", c->subject[0] ? c->subject : NULL);
	if (is_drain)
		sl_json_strn(j, "target", c->text, c->len);
	else
		sl_json_null(j, "target");
	sl_json_bool(j, "keep", c->keep);
	if (c->kind == SL_SOURCE_ROUTE)
		sl_json_strn(j, "text", c->text, c->len);
	else
		sl_json_null(j, "text");
	sl_json_obj_end(j);
}

void sl_changes_write(struct sl_str *out, const struct sl_conf_sources *s, bool only_kept)
{
	struct sl_json j = sl_json_on(out);

	sl_json_obj(&j, NULL);
	sl_json_u64(&j, "version", VERSION);
	sl_json_arr(&j, "changes");
	for (size_t i = 0; s && i < s->n; i++)
		if (s->item[i].kind != SL_SOURCE_FILE && (s->item[i].keep || !only_kept))
			write_one(&j, &s->item[i]);
	sl_json_arr_end(&j);
	sl_json_obj_end(&j);
	sl_str_addc(out, '\n');
}

/* ---- reading ---- */

static void json_decrefp_(json_t **j)
{
	json_decref(*j);
}

/* "" for null and for a key that is not there; NULL for what is not text. */
static const char *text_at(const json_t *j, const char *key)
{
	const json_t *v = json_object_get(j, key);

	return !v || json_is_null(v) ? "" : json_string_value(v);
}

static bool kind_of(const char *word, enum sl_source_kind *ret)
{
	for (int k = 0; word && k < SL_SOURCE_KIND_COUNT_; k++) {
		if (words[k] && strcmp(words[k], word) == 0) {
			*ret = (enum sl_source_kind)k;
			return true;
		}
	}
	return false;
}

static int read_one(const json_t *j, struct sl_conf_sources *s, const char **ret_why)
{
	const char *route = text_at(j, "route");
	enum sl_source_kind kind;
	const char *text;

	*ret_why = "has a 'change' that is not known";
	if (!kind_of(text_at(j, "change"), &kind))
		return -EINVAL;
	*ret_why = "has a 'route', 'target' or 'text' that does not fit its 'change'";
	text = text_at(j, kind == SL_SOURCE_DRAIN ? "target" : "text");
	if (!route || !text || !sl_changes_fit(kind, route, strlen(text)))
		return -EINVAL;
	*ret_why = "has a 'keep' that is neither true nor false";
	if (!json_is_boolean(json_object_get(j, "keep")))
		return -EINVAL;
	if (!sl_changes_has_room(s, strlen(text)))
		return -ENOSPC;
	return sl_changes_insert(s, SIZE_MAX, kind, json_is_true(json_object_get(j, "keep")), route,
				 sl_slice_of(text));
}

int sl_changes_read(struct sl_slice document, struct sl_conf_sources *s, struct sl_str *ret_why)
{
	json_error_t error = { 0 };
	__attribute__((cleanup(json_decrefp_))) json_t *doc =
		json_loadb(document.p, document.n, JSON_REJECT_DUPLICATES, &error);
	const json_t *list = json_object_get(doc, "changes");
	const char *why = "";
	int r = 0;

	if (!doc) {
		sl_str_addf(ret_why, "line %d, column %d: %s", error.line, error.column,
			    error.text);
		return -EINVAL;
	}
	if (json_integer_value(json_object_get(doc, "version")) != VERSION ||
	    !json_is_array(list)) {
		sl_str_addf(ret_why, "not a list of changes of version %d", VERSION);
		return -EINVAL;
	}
	for (size_t i = 0; r == 0 && i < json_array_size(list); i++) {
		r = read_one(json_array_get(list, i), s, &why);
		if (r == -EINVAL)
			sl_str_addf(ret_why, "number %zu of its changes %s", i + 1, why);
		else if (r == -ENOSPC)
			sl_str_addf(ret_why, "more than %d changes, or too much text",
				    SL_CHANGES_MAX);
	}
	return r == -ENOSPC ? -EINVAL : r;
}
