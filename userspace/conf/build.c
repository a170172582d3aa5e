/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "conf/build.h"

#include <errno.h>
#include <string.h>

static const struct sl_path root_path = { 0 };

static const struct sl_key *keys_of(const char *section)
{
	const struct sl_key *k = sl_key_find(sl_key_root.keys, section);

	return k->type == SL_KEY_LIST ? k->item->keys : k->keys;
}

/* Including null: written is written. */
static const struct sl_node *find_raw(const struct sl_node *mapping, const char *key)
{
	if (!mapping || mapping->kind != SL_NODE_MAPPING)
		return NULL;
	for (const struct sl_node *n = mapping->first; n; n = n->next)
		if (!n->key_bad && strcmp(n->key, key) == 0)
			return n;
	return NULL;
}

static const struct sl_node *find_in(const struct sl_node *mapping, const char *key)
{
	return mapping ? sl_node_find(mapping, key) : NULL;
}

/* The items of a value that is one or a list. */
static const struct sl_node *first_of(const struct sl_node *n)
{
	return n && n->kind == SL_NODE_LIST ? n->first : n;
}

static const struct sl_node *next_of(const struct sl_node *whole, const struct sl_node *n)
{
	return whole->kind == SL_NODE_LIST ? n->next : NULL;
}

static size_t count_of(const struct sl_node *n)
{
	if (!n)
		return 0;
	return n->kind == SL_NODE_LIST ? n->n : 1;
}

/* ---- routes ---- */

static int build_ports(const struct sl_node *ports, struct sl_port_spec **ret, size_t *ret_n)
{
	size_t cap = count_of(ports), n = 0;
	struct sl_port_spec *specs;
	char why[SL_WHY_LEN];

	if (cap == 0)
		return 0;
	specs = calloc(cap, sizeof(*specs));
	if (!specs)
		return -ENOMEM;
	for (const struct sl_node *p = first_of(ports); p; p = next_of(ports, p)) {
		if (p->bad || p->kind != SL_NODE_SCALAR)
			continue;
		specs[n].mark = p->at;
		if (sl_ports_parse(p->text, &specs[n], why) == 0)
			n++;
	}
	*ret = specs;
	*ret_n = n;
	return 0;
}

/* -EINVAL after a report. */
static int build_target(struct sl_build *b, const struct sl_node *n, bool preserve,
			const struct sl_path *path, struct sl_conf_target *t)
{
	struct sl_target_parts parts;
	char why[SL_WHY_LEN], buf[SL_QUOTE_LEN];

	if (sl_target_parse(n->text, &parts, why) < 0)
		return -EINVAL;
	if (!preserve && parts.port == 0) {
		bool v6 = sl_addr_family(&parts.addr) == AF_INET6;

		sl_report_error(&b->report, n->at, path,
				"%s has no port: write %s%.253s%s, or 'port: preserve' beside "
				"'targets' to keep the port the client connected to",
				sl_quote(n->text, buf), v6 ? "\"[" : "", parts.host,
				v6 ? "]:PORT\"" : ":PORT");
		return -EINVAL;
	}
	if (preserve && parts.port)
		sl_report_warning(&b->report, n->at, path,
				  "the port of %s is not used, because of 'port: preserve'",
				  sl_quote(n->text, buf));
	t->mark = n->at;
	t->addr = parts.addr;
	t->port = preserve ? 0 : parts.port;
	sl_addr_set_port(&t->addr, t->port);
	t->address = strdup(n->text);
	if (sl_addr_family(&t->addr) == AF_UNSPEC)
		t->host = strdup(parts.host);
	return t->address && (t->host || sl_addr_family(&t->addr) != AF_UNSPEC) ? 0 : -ENOMEM;
}

static bool keeps_port(const struct sl_node *forward, const struct sl_node *defaults)
{
	const struct sl_node *port = find_raw(forward, "port");

	if (!port)
		port = find_raw(find_in(defaults, "forward"), "port");
	return port && !port->bad && port->kind == SL_NODE_SCALAR &&
	       strcmp(port->text, "preserve") == 0;
}

static int build_targets(struct sl_build *b, const struct sl_node *forward,
			 const struct sl_node *defaults, const struct sl_path *path,
			 struct sl_conf_route *route)
{
	bool is_mapping = forward->kind == SL_NODE_MAPPING;
	const struct sl_node *targets = is_mapping ? sl_node_find(forward, "targets") : forward;
	struct sl_path below = { .up = path, .name = "targets" };
	bool preserve = keeps_port(forward, defaults);
	int r;

	if (count_of(targets) == 0)
		return 0;
	route->targets = calloc(count_of(targets), sizeof(*route->targets));
	if (!route->targets)
		return -ENOMEM;
	for (const struct sl_node *t = first_of(targets); t; t = next_of(targets, t)) {
		const struct sl_node *n = t;

		if (t->kind == SL_NODE_MAPPING)
			n = sl_node_find(t, "address");
		if (!n || n->bad || n->kind != SL_NODE_SCALAR)
			continue;
		/* counted before it is complete, so that what it has is freed with it */
		r = build_target(b, n, preserve, is_mapping ? &below : path,
				 &route->targets[route->n_targets++]);
		if (r == -ENOMEM)
			return r;
	}
	return 0;
}

static void check_action(struct sl_build *b, const struct sl_node *node, const struct sl_path *path)
{
	static const char *const actions[] = { "forward", "redirect", "respond", "reject", "http" };
	const struct sl_node *found = NULL, *n;
	char place[SL_PLACE_LEN];
	bool misspelt = false;

	for (size_t i = 0; i < SL_ARRAY_LEN(actions); i++) {
		n = sl_node_find(node, actions[i]);
		if (n && found) {
			bool swap = n->key_at.line < found->key_at.line;
			const struct sl_node *first = swap ? n : found;
			const struct sl_node *second = swap ? found : n;

			sl_report_error(
				&b->report, second->key_at, path,
				"'%s' and '%s' (at %s) exclude each other: a route has exactly "
				"one of forward, redirect, respond, reject, http",
				second->key, first->key,
				sl_report_place(&b->report, first->key_at, place));
		}
		if (n && !found)
			found = n;
	}
	for (n = node->first; n; n = n->next) {
		struct sl_nearest best = { 0 };

		for (size_t i = 0; n->key_bad && i < SL_ARRAY_LEN(actions); i++)
			sl_nearest_offer(&best, n->key, actions[i]);
		misspelt = misspelt || best.word;
	}
	if (!found && !misspelt && !node->partial)
		sl_report_error(&b->report, node->at, path,
				"required key 'forward' is missing, as in 'forward: 10.0.0.5:80'");
}

static int build_route(struct sl_build *b, const struct sl_node *node,
		       const struct sl_node *defaults, const struct sl_path *path,
		       struct sl_conf_route *route)
{
	struct sl_path forward_path = { .up = path, .name = "forward" };
	const struct sl_node *match = sl_node_find(node, "match");
	const struct sl_node *forward = sl_node_find(node, "forward");
	const struct sl_node *name = sl_node_find(node, "name");
	int r;

	route->mark = name ? name->at : node->at;
	check_action(b, node, path);
	r = sl_key_store_node(keys_of("routes"), node, route);
	if (r == 0 && match)
		r = build_ports(find_in(match, "ports"), &route->ports, &route->n_ports);
	if (r == 0 && forward && !forward->bad)
		r = build_targets(b, forward, defaults, &forward_path, route);
	return r;
}

static int build_routes(struct sl_build *b, const struct sl_node *list,
			const struct sl_node *defaults, const struct sl_conf_route *fresh)
{
	struct sl_path routes = { .up = &root_path, .name = "routes" };
	struct sl_path path = { .up = &routes };
	int r = 0;

	for (const struct sl_node *n = first_of(list); r == 0 && n;
	     n = next_of(list, n), path.index++) {
		struct sl_conf_route *route;

		if (n->bad || n->kind != SL_NODE_MAPPING)
			continue;
		route = &b->conf->routes[b->conf->n_routes++];
		*route = *fresh;
		r = build_route(b, n, defaults, &path, route);
	}
	return r;
}

/* ---- listeners ---- */

static int add_listener(struct sl_build *b, const struct sl_node *node)
{
	const struct sl_key *key = sl_key_find(keys_of("listeners"), "backlog");
	const struct sl_node *backlog = sl_node_find(node, "backlog");
	_cleanup_free_ struct sl_port_spec *specs = NULL;
	struct sl_listener_entry *more;
	char why[SL_WHY_LEN];
	struct sl_value v;
	size_t n = 0;
	int r;

	r = build_ports(sl_node_find(node, "ports"), &specs, &n);
	if (r < 0 || n == 0)
		return r;
	if (!backlog || sl_value_parse(key, backlog->text, &v, why) < 0)
		r = sl_value_parse(key, key->def, &v, why);
	more = reallocarray(b->listeners, b->n_listeners + n, sizeof(*more));
	if (!more)
		return -ENOMEM;
	b->listeners = more;
	for (size_t i = 0; i < n; i++)
		more[b->n_listeners++] =
			(struct sl_listener_entry){ .ports = specs[i], .backlog = (int)v.n };
	return r;
}

static int build_listeners(struct sl_build *b, const struct sl_node *list)
{
	int r = 0;

	for (const struct sl_node *n = first_of(list); r == 0 && n; n = next_of(list, n))
		if (!n->bad && n->kind == SL_NODE_MAPPING)
			r = add_listener(b, n);
	return r;
}

/* ---- all files together ---- */

static int build_global(struct sl_build *b, const struct sl_node *node)
{
	struct sl_conf_global *g = &b->conf->global;
	const struct sl_node *http = find_in(node, "http"), *overload = find_in(node, "overload");
	const struct sl_node *resume = find_in(overload, "resume_below");
	int r = sl_key_store_defaults(keys_of("global"), g);

	if (r == 0 && node)
		r = sl_key_store_node(keys_of("global"), node, g);
	g->http_enabled = sl_addr_family(&g->http) != AF_UNSPEC;
	g->http_is_explicit = http && !http->bad;
	if (http)
		b->http_at = http->at;
	if (resume || overload)
		b->overload_at = resume ? resume->at : overload->at;
	return r;
}

/* The section of whichever file has it; a second one is an error. */
static const struct sl_node *find_single(struct sl_build *b, struct sl_node *const *roots, size_t n,
					 const char *section)
{
	const struct sl_node *found = NULL;
	char place[SL_PLACE_LEN];

	for (size_t i = 0; i < n; i++) {
		const struct sl_node *s = roots[i] ? sl_node_find(roots[i], section) : NULL;

		if (s && found)
			sl_report_error(&b->report, s->key_at, NULL,
					"'%s' is already given at %s: it belongs in one file",
					section, sl_report_place(&b->report, found->key_at, place));
		if (s && !found)
			found = s;
	}
	return found;
}

static int build_all(struct sl_build *b, struct sl_node *const *roots, size_t n)
{
	const struct sl_node *global = find_single(b, roots, n, "global");
	const struct sl_node *defaults = find_single(b, roots, n, "defaults");
	struct sl_conf_route fresh = { 0 };
	size_t n_routes = 0;
	int r;

	(void)find_single(b, roots, n, "acme");
	for (size_t i = 0; i < n; i++)
		n_routes += roots[i] ? count_of(sl_node_find(roots[i], "routes")) : 0;
	b->conf->routes = calloc(n_routes + 1, sizeof(*b->conf->routes));
	if (!b->conf->routes)
		return -ENOMEM;
	r = build_global(b, global);
	if (r == 0)
		r = sl_key_store_defaults(keys_of("routes"), &fresh);
	if (r == 0 && defaults)
		r = sl_key_store_node(keys_of("defaults"), defaults, &fresh);
	for (size_t i = 0; r == 0 && i < n; i++) {
		if (!roots[i])
			continue;
		r = build_routes(b, sl_node_find(roots[i], "routes"), defaults, &fresh);
		if (r == 0)
			r = build_listeners(b, sl_node_find(roots[i], "listeners"));
	}
	return r;
}

static void check_version(struct sl_build *b, const struct sl_node *root)
{
	struct sl_mark start = { .source = 0, .line = 1, .column = 1 };

	if (!root) {
		if (b->report.n_errors == 0)
			sl_report_error(&b->report, start, NULL,
					"the file is empty; the least is 'version: 1'");
		return;
	}
	if (root->kind != SL_NODE_MAPPING || root->bad || root->partial ||
	    find_raw(root, "version"))
		return;
	for (const struct sl_node *n = root->first; n; n = n->next) {
		struct sl_nearest best = { 0 };

		sl_nearest_offer(&best, n->key, "version");
		if (best.word)
			return; /* misspelt, and reported */
	}
	sl_report_error(&b->report, root->at, NULL,
			"required key 'version' is missing: write 'version: 1' first");
}

static int parse_all(struct sl_build *b, const struct sl_conf_sources *sources,
		     struct sl_node **roots)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < sources->n; i++) {
		r = sl_yaml_parse(&b->arena, &b->report, (uint32_t)i, &roots[i]);
		if (r == 0 && roots[i] && i > 0 && sl_node_is_null(roots[i]))
			roots[i] = NULL;
		if (r == 0 && roots[i])
			sl_key_validate(&b->report, &sl_key_root, roots[i], &root_path);
		if (r == 0 && i == 0)
			check_version(b, roots[i]);
	}
	return r;
}

static int build(struct sl_build *b, const struct sl_conf_sources *sources)
{
	struct sl_node **roots = sl_arena_alloc(&b->arena, sources->n * sizeof(struct sl_node *));
	int r;

	b->conf = calloc(1, sizeof(*b->conf));
	if (!roots || !b->conf)
		return -ENOMEM;
	r = parse_all(b, sources, roots);
	if (r == 0)
		r = build_all(b, roots, sources->n);
	if (r == 0)
		r = sl_conf_check(b);
	if (r == 0)
		r = sl_conf_make_listens(b);
	return r;
}

int sl_conf_build(const struct sl_conf_sources *sources, struct sl_conf **ret,
		  struct sl_diags *diags)
{
	struct sl_build b = { .report.sources = sources };
	int r = build(&b, sources), printed = sl_report_print(&b.report, diags);

	if (r == 0)
		r = printed;
	if (r == 0 && b.report.n_errors)
		r = -EINVAL;
	if (r == 0)
		*ret = SL_TAKE_PTR(b.conf);
	sl_conf_free(b.conf);
	free(b.listeners);
	sl_report_done(&b.report);
	sl_arena_done(&b.arena);
	return r;
}

static void route_done(struct sl_conf_route *r)
{
	for (size_t i = 0; i < r->n_targets; i++) {
		free(r->targets[i].address);
		free(r->targets[i].host);
	}
	free(r->targets);
	free(r->ports);
	free(r->name);
}

void sl_conf_free(struct sl_conf *conf)
{
	if (!conf)
		return;
	for (size_t i = 0; i < conf->n_routes; i++)
		route_done(&conf->routes[i]);
	free(conf->routes);
	free(conf->listens);
	free(conf->global.user);
	free(conf->global.runtime_dir);
	free(conf->global.state_dir);
	free(conf->global.bpf_dir);
	free(conf->global.nft_table);
	free(conf->global.access_log);
	free(conf);
}
