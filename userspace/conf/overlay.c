/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <errno.h>
#include <string.h>

#include "conf/build.h"

/*
 * The routes of all files with the changes made at run time on top. Names are
 * sorted once, so that neither 10 000 routes nor hundreds of changes cost more than that.
 */
static const struct sl_path root_path = { 0 };

/* A route of a file, or one change; what is left of them afterwards is built in this order. */
struct entry {
	enum sl_source_kind kind;
	uint32_t source;
	const char *name;             /* NULL: not usable, and reported */
	struct sl_node *node;         /* NULL: nothing to build */
	struct sl_mark mark;          /* of the name */
	size_t index;                 /* in the list of its file; unused for changes */
	const struct entry *switched; /* the change that has the last word about `enabled` */
};

struct entries {
	struct entry *item;
	size_t n;
	struct entry **sorted; /* those with a name, by name and order */
	size_t n_sorted;
};

static void entries_done(struct entries *e)
{
	free(e->item);
	free(e->sorted);
}

static bool is_change(enum sl_source_kind kind)
{
	return kind == SL_SOURCE_ROUTE || kind == SL_SOURCE_REMOVE || kind == SL_SOURCE_ENABLE ||
	       kind == SL_SOURCE_DISABLE;
}

static const char *subject_of(const struct sl_conf_source *s)
{
	return s->subject ? s->subject : "";
}

/* ---- collecting ---- */

static void add_file(struct entries *e, uint32_t source, const struct sl_node *list)
{
	size_t index = 0;

	for (struct sl_node *n = list && list->kind == SL_NODE_LIST ? list->first : NULL; n;
	     n = n->next, index++) {
		const struct sl_node *name = sl_node_find(n, "name");
		bool is_named = name && !name->bad && name->kind == SL_NODE_SCALAR;

		if (n->bad || n->kind != SL_NODE_MAPPING)
			continue;
		e->item[e->n++] = (struct entry){
			.kind = SL_SOURCE_FILE,
			.source = source,
			.name = is_named ? name->text : NULL,
			.node = n,
			.mark = name ? name->at : n->at,
			.index = index,
		};
	}
}

static int compare_entries(const void *a, const void *b)
{
	const struct entry *x = *(struct entry *const *)a, *y = *(struct entry *const *)b;
	int c = strcmp(x->name, y->name);

	return c ? c : (x > y) - (x < y); /* one array: files first, then changes in their order */
}

static int collect(struct sl_build *b, struct sl_node *const *roots, struct entries *e)
{
	const struct sl_conf_sources *s = b->report.sources;
	size_t cap = 1;

	for (size_t i = 0; i < s->n; i++)
		cap += 1 + sl_node_count(sl_node_find(roots[i], "routes"));
	e->item = calloc(cap, sizeof(*e->item));
	e->sorted = calloc(cap, sizeof(*e->sorted));
	if (!e->item || !e->sorted)
		return -ENOMEM;
	for (size_t i = 0; i < s->n; i++)
		add_file(e, (uint32_t)i, sl_node_find(roots[i], "routes"));
	for (size_t i = 0; i < s->n; i++)
		if (is_change(s->item[i].kind))
			e->item[e->n++] = (struct entry){
				.kind = s->item[i].kind,
				.source = (uint32_t)i,
				.name = subject_of(&s->item[i]),
				.mark = { (uint32_t)i, 1, 1 },
			};
	for (size_t i = 0; i < e->n; i++)
		if (e->item[i].name)
			e->sorted[e->n_sorted++] = &e->item[i];
	if (e->n_sorted > 1)
		qsort(e->sorted, e->n_sorted, sizeof(*e->sorted), compare_entries);
	return 0;
}

/* ---- one change ---- */

/* The name stands in the request; where it is in the text as well, it must be the same. */
static int name_route(struct sl_build *b, struct sl_node *root, const char *subject)
{
	struct sl_path path = { .up = &root_path, .name = "name" };
	char given[SL_QUOTE_LEN], want[SL_QUOTE_LEN];
	struct sl_node *name = root->first;

	while (name && (name->key_bad || strcmp(name->key, "name") != 0))
		name = name->next;
	if (name && !sl_node_is_null(name)) {
		if (!name->bad && name->kind == SL_NODE_SCALAR && strcmp(name->text, subject) != 0)
			sl_report_error(&b->report, name->at, &path,
					"%s is not %s, the route this is about",
					sl_quote(name->text, given), sl_quote(subject, want));
		return 0;
	}
	if (!name) {
		name = sl_arena_alloc(&b->arena, sizeof(*name));
		if (!name)
			return -ENOMEM;
		*name = (struct sl_node){ .at = root->at, .key = "name", .key_at = root->at };
		if (root->last)
			root->last->next = name;
		else
			root->first = name;
		root->last = name;
		root->n++;
	}
	name->text = subject;
	name->quoted = true;
	return 0;
}

static int parse_route(struct sl_build *b, struct entry *e)
{
	struct sl_node *root = NULL;
	int r = sl_yaml_parse(&b->arena, &b->report, e->source, &root);

	if (r < 0)
		return r;
	if (!root) {
		sl_report_error(&b->report, e->mark, NULL,
				"the route is empty; the least is 'match' and 'forward'");
		return 0;
	}
	if (root->kind == SL_NODE_MAPPING)
		r = name_route(b, root, e->name);
	if (r < 0)
		return r;
	sl_key_validate(&b->report, sl_key_at("routes", NULL)->item, root, &root_path);
	if (!root->bad && root->kind == SL_NODE_MAPPING)
		e->node = root;
	return 0;
}

static void warn_of_missing(struct sl_build *b, const struct entry *e)
{
	const char *verb = "enable";
	char name[SL_QUOTE_LEN];

	if (e->kind == SL_SOURCE_REMOVE)
		verb = "remove";
	else if (e->kind == SL_SOURCE_DISABLE)
		verb = "disable";
	sl_report_warning(&b->report, e->mark, NULL, "there is no route %s to %s",
			  sl_quote(e->name, name), verb);
}

/* ---- all of one name ---- */

static void refuse_duplicate(struct sl_build *b, const struct entry *e, const struct entry *first)
{
	char name[SL_QUOTE_LEN], place[SL_PLACE_LEN];

	sl_report_error(&b->report, e->mark, NULL, "the name %s is already used by the route at %s",
			sl_quote(first->name, name),
			sl_report_place(&b->report, first->mark, place));
}

/* The last change that says what the route is, or that it is not; NULL: the file says it. */
static struct entry *find_decision(struct entry **group, size_t n, size_t *ret_next)
{
	for (size_t i = n; i-- > 0;) {
		if (group[i]->kind != SL_SOURCE_ROUTE && group[i]->kind != SL_SOURCE_REMOVE)
			continue;
		*ret_next = i + 1;
		return group[i];
	}
	*ret_next = 0;
	return NULL;
}

/*
 * `base` is the file's route or NULL, `group` the changes. What decides is put into the
 * file's place when there is one, else stays in its own.
 */
static int settle(struct sl_build *b, struct entry *base, struct entry **group, size_t n)
{
	struct entry *route = base, *decision;
	bool existed = base;
	size_t next;
	int r = 0;

	decision = find_decision(group, n, &next);
	for (size_t i = 0; decision && i + 1 < next; i++)
		existed = existed || group[i]->kind == SL_SOURCE_ROUTE;
	if (decision && decision->kind == SL_SOURCE_REMOVE) {
		if (!existed)
			warn_of_missing(b, decision);
		if (base)
			base->node = NULL;
		route = NULL;
	} else if (decision) {
		r = parse_route(b, decision);
		route = decision;
		if (base) {
			*base = *decision;
			decision->node = NULL;
			route = base;
		}
	}
	for (size_t i = next; i < n; i++) {
		if (route)
			route->switched = group[i];
		else
			warn_of_missing(b, group[i]);
	}
	return r;
}

static int settle_all(struct sl_build *b, struct entries *e)
{
	int r = 0;

	for (size_t i = 0, j, k; r == 0 && i < e->n_sorted; i = k) {
		struct entry *base = e->sorted[i]->kind == SL_SOURCE_FILE ? e->sorted[i] : NULL;

		j = i;
		while (j < e->n_sorted && e->sorted[j]->kind == SL_SOURCE_FILE &&
		       strcmp(e->sorted[j]->name, e->sorted[i]->name) == 0) {
			if (j > i)
				refuse_duplicate(b, e->sorted[j], base);
			j++;
		}
		k = j;
		while (k < e->n_sorted && e->sorted[k]->kind != SL_SOURCE_FILE &&
		       strcmp(e->sorted[k]->name, e->sorted[i]->name) == 0)
			k++;
		r = settle(b, base, e->sorted + j, k - j);
	}
	return r;
}

static int build_left(struct sl_build *b, const struct entries *e)
{
	struct sl_path routes = { .up = &root_path, .name = "routes" };
	struct sl_path in_file = { .up = &routes };
	int r = 0;

	b->conf->routes = calloc(e->n + 1, sizeof(*b->conf->routes));
	if (!b->conf->routes)
		return -ENOMEM;
	for (size_t i = 0; r == 0 && i < e->n; i++) {
		const struct entry *one = &e->item[i];
		struct sl_conf_route *route = &b->conf->routes[b->conf->n_routes];

		if (!one->node)
			continue;
		b->conf->n_routes++;
		in_file.index = one->index;
		r = sl_build_route(b, one->node,
				   one->kind == SL_SOURCE_FILE ? &in_file : &root_path, route);
		if (one->switched)
			route->enabled = one->switched->kind == SL_SOURCE_ENABLE;
	}
	return r;
}

int sl_build_routes(struct sl_build *b, struct sl_node *const *roots)
{
	_cleanup_(entries_done) struct entries e = { 0 };
	int r = collect(b, roots, &e);

	if (r == 0)
		r = settle_all(b, &e);
	if (r == 0)
		r = build_left(b, &e);
	return r;
}

/* ---- drained targets ---- */

struct drain {
	const char *route; /* "": every route */
	const char *address;
	uint32_t source;
	bool is_used;
};

static int compare_drains(const void *a, const void *b)
{
	const struct drain *x = a, *y = b;
	int c = strcmp(x->route, y->route);

	return c ? c : strcmp(x->address, y->address);
}

static void drain_target(struct drain *drains, size_t n, const char *route,
			 struct sl_conf_target *t)
{
	struct drain key = { .route = route, .address = t->address };
	size_t lo = 0, hi = n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (compare_drains(&drains[mid], &key) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	for (; lo < n && compare_drains(&drains[lo], &key) == 0; lo++) {
		drains[lo].is_used = true;
		t->drained = true;
	}
}

static void warn_of_unused(struct sl_build *b, const struct drain *d)
{
	struct sl_mark at = { d->source, 1, 1 };
	char address[SL_QUOTE_LEN], name[SL_QUOTE_LEN];

	if (*d->route)
		sl_report_warning(&b->report, at, NULL,
				  "there is no target %s of a route %s to drain",
				  sl_quote(d->address, address), sl_quote(d->route, name));
	else
		sl_report_warning(&b->report, at, NULL, "there is no target %s to drain",
				  sl_quote(d->address, address));
}

int sl_build_drain(struct sl_build *b)
{
	const struct sl_conf_sources *s = b->report.sources;
	_cleanup_free_ struct drain *drains = calloc(s->n + 1, sizeof(*drains));
	size_t n = 0;

	if (!drains)
		return -ENOMEM;
	for (size_t i = 0; i < s->n; i++)
		if (s->item[i].kind == SL_SOURCE_DRAIN)
			drains[n++] = (struct drain){ subject_of(&s->item[i]),
						      s->item[i].text ? s->item[i].text : "",
						      (uint32_t)i, false };
	if (n == 0)
		return 0;
	qsort(drains, n, sizeof(*drains), compare_drains);
	for (size_t i = 0; i < b->conf->n_routes; i++) {
		struct sl_conf_route *r = &b->conf->routes[i];

		for (size_t k = 0; k < r->n_targets; k++) {
			if (!r->targets[k].address)
				continue;
			drain_target(drains, n, "", &r->targets[k]);
			if (r->name && *r->name)
				drain_target(drains, n, r->name, &r->targets[k]);
		}
	}
	for (size_t i = 0; i < n; i++)
		if (!drains[i].is_used)
			warn_of_unused(b, &drains[i]);
	return 0;
}
