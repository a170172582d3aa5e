/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "conf/keys.h"

#include <stdio.h>
#include <string.h>

/* What is on the way from the root to the value being checked. */
struct scope {
	struct sl_report *report;
	bool in_later;                /* inside something that is refused as a whole */
	const struct sl_key *mapping; /* what the value might be instead of one word; NULL: none */
};

static void check_value(struct scope *s, const struct sl_key *key, struct sl_node *node,
			const struct sl_path *path);

static const char *kind_name(const struct sl_node *n)
{
	if (n->kind == SL_NODE_LIST)
		return "a list";
	if (n->kind == SL_NODE_MAPPING)
		return "a mapping";
	return "a single value";
}

static void refuse_kind(struct scope *s, const struct sl_key *key, struct sl_node *node,
			const struct sl_path *path)
{
	const char *want = "a single value";

	if (key->type == SL_KEY_OBJECT && key->item && key->item->type == SL_KEY_ONE_OR_LIST)
		want = "one value, a list or a mapping";
	else if (key->type == SL_KEY_OBJECT && key->item)
		want = "a single value or a mapping";
	else if (key->type == SL_KEY_OBJECT || key->type == SL_KEY_MAP)
		want = "a mapping ('key: value' lines, indented)";
	else if (key->type == SL_KEY_LIST)
		want = "a list ('- item' lines, or [item, item])";
	else if (key->type == SL_KEY_ONE_OR_LIST)
		want = "one value or a list";
	sl_report_error(s->report, node->at, path, "%s expected, not %s", want, kind_name(node));
	node->bad = true;
}

/* ---- keys of later builds ---- */

/* The same value as the default, however it is written. */
static bool is_same_scalar(const struct sl_key *key, const char *text)
{
	struct sl_value a, b;
	char why[SL_WHY_LEN];

	if (!key->def)
		return false;
	if (strcmp(text, key->def) == 0)
		return true;
	if (key->type == SL_KEY_TEXT || key->type == SL_KEY_ONE_OR_LIST)
		return false;
	return sl_value_parse(key, text, &a, why) == 0 &&
	       sl_value_parse(key, key->def, &b, why) == 0 && a.n == b.n;
}

static bool is_default(const struct sl_key *key, const struct sl_node *n)
{
	if (sl_node_is_null(n))
		return true;
	if (n->kind != SL_NODE_SCALAR)
		return n->n == 0;
	return is_same_scalar(key, n->text);
}

static void refuse_later(struct scope *s, const struct sl_node *node, const char *name,
			 const struct sl_path *path)
{
	sl_report_error(s->report, node->key ? node->key_at : node->at, path,
			"'%s' is not supported by this build", name);
}

/* ---- unknown keys ---- */

/* "match.ports" for `ports` below `match`; depth first, shallow trees only. */
static bool find_below(const struct sl_key *keys, const char *name, unsigned levels,
		       struct sl_str *where)
{
	size_t len = where->len;

	for (; keys && keys->name && levels; keys++) {
		const struct sl_key *below = keys->keys;

		if (!below && keys->item && keys->item->type == SL_KEY_OBJECT)
			below = keys->item->keys;
		if (!below)
			continue;
		sl_str_addf(where, "%s%s%s", len ? "." : "", keys->name,
			    keys->type == SL_KEY_LIST ? "[]" : "");
		if (sl_key_find(below, name)) {
			sl_str_addf(where, ".%s", name);
			return true;
		}
		if (find_below(below, name, levels - 1, where))
			return true;
		where->len = len;
		if (where->p)
			where->p[len] = '\0';
	}
	return false;
}

static void list_keys(const struct sl_key *keys, struct sl_str *out)
{
	for (size_t i = 0; keys[i].name; i++)
		sl_str_addf(out, "%s%s", i ? ", " : "", keys[i].name);
}

static void refuse_unknown(struct scope *s, const struct sl_key *key, struct sl_node *node,
			   const struct sl_path *path)
{
	_cleanup_(sl_str_done) struct sl_str where = { 0 };
	_cleanup_(sl_str_done) struct sl_str known = { 0 };
	struct sl_nearest best = { 0 };
	char buf[SL_QUOTE_LEN];

	sl_quote(node->key, buf);
	for (const struct sl_key *k = key->keys; k->name; k++)
		sl_nearest_offer(&best, node->key, k->name);
	node->key_bad = true;
	if (s->report->n >= SL_REPORT_KEEP) /* nobody will read the hint */
		sl_report_error(s->report, node->key_at, path, "unknown key %s", buf);
	else if (best.word && best.distance == 1 && strlen(best.word) > 3) /* a slip of the pen */
		sl_report_error(s->report, node->key_at, path, "unknown key %s, did you mean '%s'?",
				buf, best.word);
	else if (find_below(key->keys, node->key, 2, &where))
		sl_report_error(s->report, node->key_at, path,
				"unknown key %s; it belongs further in: %s", buf, where.p);
	else if (best.word)
		sl_report_error(s->report, node->key_at, path, "unknown key %s, did you mean '%s'?",
				buf, best.word);
	else if (sl_key_find(sl_key_root.keys, node->key))
		sl_report_error(s->report, node->key_at, path,
				"unknown key %s; it belongs to the outermost level of the file",
				buf);
	else if (find_below(sl_key_root.keys, node->key, 4, &where))
		sl_report_error(s->report, node->key_at, path, "unknown key %s; is %s meant?", buf,
				where.p);
	else {
		list_keys(key->keys, &known);
		sl_report_error(s->report, node->key_at, path, "unknown key %s; known here: %s",
				buf, sl_str_text(&known));
	}
	if (where.oom || known.oom)
		s->report->oom = true;
}

/* ---- objects ---- */

static int compare_keys(const void *a, const void *b)
{
	const struct sl_node *x = *(const struct sl_node *const *)a;
	const struct sl_node *y = *(const struct sl_node *const *)b;
	int c = strcmp(x->key, y->key);

	if (c)
		return c;
	if (x->key_at.line != y->key_at.line)
		return x->key_at.line < y->key_at.line ? -1 : 1;
	return (x->key_at.column > y->key_at.column) - (x->key_at.column < y->key_at.column);
}

static void refuse_duplicates(struct scope *s, const struct sl_node *mapping,
			      const struct sl_path *path)
{
	_cleanup_free_ struct sl_node **sorted = NULL;
	char place[SL_PLACE_LEN], key[SL_QUOTE_LEN];
	size_t n = 0, first = 0;

	if (mapping->n < 2)
		return;
	sorted = calloc(mapping->n, sizeof(struct sl_node *));
	if (!sorted) {
		s->report->oom = true;
		return;
	}
	for (struct sl_node *c = mapping->first; c; c = c->next)
		if (!c->key_bad)
			sorted[n++] = c;
	qsort(sorted, n, sizeof(struct sl_node *), compare_keys);
	for (size_t i = 1; i < n; i++) {
		if (strcmp(sorted[first]->key, sorted[i]->key) != 0) {
			first = i;
			continue;
		}
		sl_report_error(s->report, sorted[i]->key_at, path,
				"duplicate key %s, first given at %s",
				sl_quote(sorted[first]->key, key),
				sl_report_place(s->report, sorted[first]->key_at, place));
		sorted[i]->key_bad = true;
	}
}

static bool was_misspelt(const struct sl_node *mapping, const char *name)
{
	for (const struct sl_node *n = mapping->first; n; n = n->next) {
		struct sl_nearest best = { 0 };

		if (n->key_bad)
			sl_nearest_offer(&best, n->key, name);
		if (best.word)
			return true;
	}
	return false;
}

static bool has_key(const struct sl_node *mapping, const char *name)
{
	for (const struct sl_node *n = mapping->first; n; n = n->next)
		if (strcmp(n->key, name) == 0 && !sl_node_is_null(n))
			return true;
	return false;
}

static void check_required(struct scope *s, const struct sl_key *key, struct sl_node *node,
			   const struct sl_path *path)
{
	if (node->partial)
		return;
	for (const struct sl_key *k = key->keys; k->name; k++) {
		if (!(k->flags & SL_KEY_REQUIRED) || has_key(node, k->name) ||
		    was_misspelt(node, k->name))
			continue;
		sl_report_error(s->report, node->at, path, "required key '%s' is missing%s",
				k->name,
				k->type == SL_KEY_ONE_OR_LIST && k->item->type == SL_KEY_PORTS
					? ", as in 'ports: 443' or 'ports: [80, 8000-8100]'"
					: "");
	}
}

static void check_member(struct scope *s, const struct sl_key *key, struct sl_node *node,
			 const struct sl_path *path)
{
	bool outer = s->in_later, later = key->flags & SL_KEY_LATER;
	size_t errors = s->report->n_errors;

	s->in_later = outer || later;
	check_value(s, key, node, path);
	s->in_later = outer;
	if (later && !outer && !node->bad && errors == s->report->n_errors &&
	    !is_default(key, node)) {
		refuse_later(s, node, key->name, path->up);
		node->bad = true;
	}
}

static void check_object(struct scope *s, const struct sl_key *key, struct sl_node *node,
			 const struct sl_path *path)
{
	refuse_duplicates(s, node, path);
	for (struct sl_node *n = node->first; n; n = n->next) {
		struct sl_path here = { .up = path, .name = n->key };
		const struct sl_key *k;

		if (n->key_bad)
			continue;
		k = sl_key_find(key->keys, n->key);
		if (k)
			check_member(s, k, n, &here);
		else
			refuse_unknown(s, key, n, path);
	}
	check_required(s, key, node, path);
}

/* ---- values ---- */

static void refuse_value(struct scope *s, const struct sl_node *node, const struct sl_path *path,
			 const char *why)
{
	_cleanup_(sl_str_done) struct sl_str known = { 0 };

	if (s->mapping)
		list_keys(s->mapping->keys, &known);
	sl_report_error(s->report, node->at, path, "%s%s%s", why,
			known.len ? "; or a mapping of: " : "", sl_str_text(&known));
	s->report->oom |= known.oom;
}

static void check_scalar(struct scope *s, const struct sl_key *key, struct sl_node *node,
			 const struct sl_path *path)
{
	bool is_number = key->type == SL_KEY_INT || key->type == SL_KEY_BOOL;
	char why[SL_WHY_LEN];
	struct sl_value v;

	if (node->kind != SL_NODE_SCALAR) {
		refuse_kind(s, key, node, path);
		return;
	}
	if (sl_value_parse(key, node->text, &v, why) < 0)
		refuse_value(s, node, path, why);
	else if (node->quoted && is_number && strcmp(node->text, "auto") != 0)
		sl_report_error(s->report, node->at, path, "write %s without quotes", node->text);
	else if (v.is_later && !s->in_later)
		sl_report_error(s->report, node->at, path, "%s", why);
	else
		return;
	node->bad = true;
}

static void check_items(struct scope *s, const struct sl_key *key, struct sl_node *node,
			const struct sl_path *path)
{
	size_t i = 0;

	if (node->n == 0 && (key->flags & SL_KEY_REQUIRED))
		sl_report_error(s->report, node->at, path, "at least one is needed");
	for (struct sl_node *n = node->first; n; n = n->next, i++) {
		struct sl_path here = { .up = path, .index = i };
		bool is_plain = n->kind == SL_NODE_SCALAR;

		/* the caret shows which one, where an item is one word */
		check_value(s, key->item, n, is_plain ? path : &here);
	}
}

static void check_map(struct scope *s, const struct sl_key *key, struct sl_node *node,
		      const struct sl_path *path)
{
	refuse_duplicates(s, node, path);
	for (struct sl_node *n = node->first; n; n = n->next) {
		struct sl_path here = { .up = path, .name = n->key };

		if (!n->key_bad)
			check_value(s, key->item, n, &here);
	}
}

/* Nothing at all where something is expected. */
static bool check_null(struct scope *s, const struct sl_key *key, struct sl_node *node,
		       const struct sl_path *path)
{
	bool is_container = key->type <= SL_KEY_ONE_OR_LIST;

	if (!sl_node_is_null(node))
		return false;
	if (key->flags & SL_KEY_REQUIRED)
		return true; /* reported as missing */
	if (key->def && strcmp(key->def, "null") == 0)
		return true;
	if (node->key && (is_container || (key->flags & SL_KEY_LATER) || !key->def))
		return true;
	sl_report_error(s->report, node->at, path, "a value is missing%s%s%s",
			key->def ? " (the default is " : "", key->def ? key->def : "",
			key->def ? ")" : "");
	node->bad = true;
	return true;
}

/* What may stand for a mapping: one word of few, one value or a list. */
static void check_short(struct scope *s, const struct sl_key *key, struct sl_node *node,
			const struct sl_path *path)
{
	s->mapping = key->item->type == SL_KEY_ENUM ? key : NULL;
	check_value(s, key->item, node, path);
	s->mapping = NULL;
}

static void check_value(struct scope *s, const struct sl_key *key, struct sl_node *node,
			const struct sl_path *path)
{
	if (node->bad || check_null(s, key, node, path))
		return;
	if (key->type == SL_KEY_OBJECT && node->kind == SL_NODE_MAPPING)
		check_object(s, key, node, path);
	else if (key->type == SL_KEY_OBJECT && key->item)
		check_short(s, key, node, path);
	else if (key->type == SL_KEY_MAP && node->kind == SL_NODE_MAPPING)
		check_map(s, key, node, path);
	else if ((key->type == SL_KEY_LIST || key->type == SL_KEY_ONE_OR_LIST) &&
		 node->kind == SL_NODE_LIST)
		check_items(s, key, node, path);
	else if (key->type == SL_KEY_ONE_OR_LIST)
		check_value(s, key->item, node, path);
	else if (key->type == SL_KEY_OBJECT || key->type == SL_KEY_MAP || key->type == SL_KEY_LIST)
		refuse_kind(s, key, node, path);
	else
		check_scalar(s, key, node, path);
}

void sl_key_validate(struct sl_report *report, const struct sl_key *key, struct sl_node *node,
		     const struct sl_path *path)
{
	struct scope s = { .report = report };

	check_value(&s, key, node, path);
}
