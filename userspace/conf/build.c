/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "conf/build.h"

#include <errno.h>
#include <string.h>

#include "conf/ip_list.h"

static const struct sl_path root_path = { 0 };

/* ---- sections ---- */

static int build_defaults(struct sl_build *b)
{
	struct sl_path path = { .up = &root_path, .name = "defaults" };
	struct sl_path security = { .up = &path, .name = "security" };
	int r = sl_key_store_defaults(sl_key_at("routes", NULL)->item->keys, &b->fresh);

	if (r == 0 && b->defaults) {
		r = sl_key_store_node(sl_key_at("defaults", NULL)->keys, b->defaults, &b->fresh);
		if (r == 0)
			r = sl_build_tls(b, b->defaults, &path, &b->fresh);
		sl_build_check_forward(b, b->defaults, &path, &b->fresh);
	}
	if (r == 0)
		r = sl_build_access(b, sl_node_find(b->defaults, "security"), &security,
				    &b->conf->default_access);
	b->fresh.access = b->conf->default_access;
	b->conf->timeouts = b->fresh.timeouts;
	return r;
}

/* ---- listeners ---- */

static int build_accept_proxy(struct sl_build *b, const struct sl_node *node,
			      const struct sl_path *path, const struct sl_proxy_setting **ret)
{
	struct sl_path here = { .up = path, .name = "accept_proxy" };
	struct sl_path from_path = { .up = &here, .name = "from" };
	const struct sl_node *required = sl_node_find(node, "required");
	const struct sl_node *from = sl_node_find(node, "from");
	struct sl_proxy_setting *s;

	if (!node || node->bad || !from || from->bad)
		return 0;
	s = sl_arena_alloc(&b->arena, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->next = b->settings;
	b->settings = s;
	s->mark = node->key_at;
	s->required = !required || strcmp(required->text, "false") != 0;
	*ret = s;
	return sl_build_networks(b, from, &from_path, &s->from);
}

static int add_listener(struct sl_build *b, const struct sl_node *node, const struct sl_path *path)
{
	const struct sl_key *key = sl_key_at("listeners", "backlog", NULL);
	const struct sl_node *backlog = sl_node_find(node, "backlog");
	_cleanup_free_ struct sl_port_spec *specs = NULL;
	const struct sl_proxy_setting *proxy = NULL;
	struct sl_listener_entry *more;
	char why[SL_WHY_LEN];
	struct sl_value v;
	size_t n = 0;
	int r;

	r = sl_build_ports(sl_node_find(node, "ports"), &specs, &n);
	if (r == 0)
		r = build_accept_proxy(b, sl_node_find(node, "accept_proxy"), path, &proxy);
	if (r < 0 || n == 0)
		return r;
	if (!backlog || sl_value_parse(key, backlog->text, &v, why) < 0)
		r = sl_value_parse(key, key->def, &v, why);
	more = reallocarray(b->listeners, b->n_listeners + n, sizeof(*more));
	if (!more)
		return -ENOMEM;
	b->listeners = more;
	for (size_t i = 0; i < n; i++)
		more[b->n_listeners++] = (struct sl_listener_entry){ .ports = specs[i],
								     .backlog = (int)v.n,
								     .proxy = proxy };
	return r;
}

static int build_listeners(struct sl_build *b, const struct sl_node *list)
{
	struct sl_path listeners = { .up = &root_path, .name = "listeners" };
	struct sl_path path = { .up = &listeners };
	int r = 0;

	for (const struct sl_node *n = sl_node_items(list); r == 0 && n;
	     n = sl_node_next(list, n), path.index++)
		if (!n->bad && n->kind == SL_NODE_MAPPING)
			r = add_listener(b, n, &path);
	return r;
}

/* ---- all files together ---- */

static int build_global(struct sl_build *b, const struct sl_node *node)
{
	struct sl_conf_global *g = &b->conf->global;
	const struct sl_node *http = sl_node_find(node, "http");
	const struct sl_node *overload = sl_node_find(node, "overload");
	const struct sl_node *resume = sl_node_find(overload, "resume_below");
	struct sl_path path = { .up = &root_path, .name = "global" };
	struct sl_path security = { .up = &path, .name = "security" };
	const struct sl_key *keys = sl_key_at("global", NULL)->keys;
	int r = sl_key_store_defaults(keys, g);

	if (r == 0 && node)
		r = sl_key_store_node(keys, node, g);
	if (r == 0)
		r = sl_build_access(b, sl_node_find(node, "security"), &security, &g->access);
	if (r == 0)
		r = sl_build_packet(b, sl_node_find(node, "packet"));
	if (r == 0)
		r = sl_build_nftables(b, sl_node_find(node, "nftables"));
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
		const struct sl_node *s = sl_node_find(roots[i], section);

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
	int r;

	b->global = global;
	b->defaults = find_single(b, roots, n, "defaults");
	(void)find_single(b, roots, n, "acme");
	r = build_global(b, global);
	if (r == 0)
		r = build_defaults(b);
	if (r == 0)
		r = sl_build_routes(b, roots);
	if (r == 0)
		r = sl_build_drain(b);
	for (size_t i = 0; r == 0 && i < n; i++)
		r = build_listeners(b, sl_node_find(roots[i], "listeners"));
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
	    sl_node_find_raw(root, "version"))
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
		if (sources->item[i].kind != SL_SOURCE_FILE)
			continue; /* see overlay.c */
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

static bool has_bad_key(const struct sl_node *mapping)
{
	for (const struct sl_node *n = mapping ? mapping->first : NULL; n; n = n->next)
		if (n->key_bad)
			return true;
	return false;
}

/* No `runtime_dir` is written, and none was meant by what could not be read. */
static bool has_default_runtime_dir(struct sl_node *const *roots, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct sl_node *root = roots[i];
		const struct sl_node *global = root ? sl_node_find_raw(root, "global") : NULL;

		if (!root) {
			if (i == 0)
				return false;
			continue;
		}
		if (root->bad || root->partial || has_bad_key(root))
			return false;
		if (global && (global->bad || global->partial || has_bad_key(global) ||
			       (sl_node_find_raw(global, "runtime_dir") &&
				!sl_node_is_null(sl_node_find_raw(global, "runtime_dir")))))
			return false;
	}
	return true;
}

int sl_conf_runtime_dir(const struct sl_conf_sources *sources, struct sl_str *ret)
{
	struct sl_build b = { .report.sources = sources };
	struct sl_node **roots = sl_arena_alloc(&b.arena, sources->n * sizeof(struct sl_node *));
	const struct sl_node *dir = NULL;
	int r = roots ? parse_all(&b, sources, roots) : -ENOMEM;

	for (size_t i = 0; r == 0 && !dir && i < sources->n; i++)
		dir = sl_node_find(sl_node_find(roots[i], "global"), "runtime_dir");
	if (dir && dir->text && dir->text[0] == '/')
		sl_str_adds(ret, dir->text);
	else if (r == 0 && has_default_runtime_dir(roots, sources->n))
		sl_str_adds(ret, sl_key_at("global", "runtime_dir", NULL)->def);
	else if (r == 0)
		r = -EINVAL;
	sl_report_done(&b.report);
	sl_arena_done(&b.arena);
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
	free(b.fresh.health.path);
	sl_build_tls_done(&b.fresh);
	for (struct sl_proxy_setting *s = b.settings; s; s = s->next)
		sl_ip_list_done(&s->from);
	sl_report_done(&b.report);
	sl_arena_done(&b.arena);
	return r;
}

static void access_done(struct sl_access_lists *access)
{
	sl_ip_list_done(&access->allow);
	sl_ip_list_done(&access->deny);
}

void sl_conf_free(struct sl_conf *conf)
{
	if (!conf)
		return;
	for (size_t i = 0; i < conf->n_routes; i++)
		sl_build_route_done(&conf->routes[i], &conf->default_access);
	free(conf->routes);
	free(conf->listens);
	for (size_t i = 0; i < conf->n_accept_proxies; i++)
		sl_ip_list_done(&conf->accept_proxies[i].from);
	free(conf->accept_proxies);
	access_done(&conf->default_access);
	access_done(&conf->global.access);
	for (size_t i = 0; i < conf->global.packet.n_interfaces; i++)
		free(conf->global.packet.interfaces[i]);
	free(conf->global.packet.interfaces);
	for (size_t i = 0; i < conf->global.nftables.n_flow_offload; i++)
		free(conf->global.nftables.flow_offload[i]);
	free(conf->global.nftables.flow_offload);
	free(conf->global.deny_file);
	free(conf->global.user);
	free(conf->global.runtime_dir);
	free(conf->global.state_dir);
	free(conf->global.bpf_dir);
	free(conf->global.nft_table);
	free(conf->global.access_log);
	free(conf);
}
