/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <errno.h>
#include <string.h>

#include "base/num.h"
#include "conf/build.h"
#include "conf/ip_list.h"

/* ---- lists ---- */

int sl_build_ports(const struct sl_node *ports, struct sl_port_spec **ret, size_t *ret_n)
{
	size_t cap = sl_node_count(ports), n = 0;
	struct sl_port_spec *specs;
	char why[SL_WHY_LEN];

	if (cap == 0)
		return 0;
	specs = calloc(cap, sizeof(*specs));
	if (!specs)
		return -ENOMEM;
	for (const struct sl_node *p = sl_node_items(ports); p; p = sl_node_next(ports, p)) {
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

static bool is_usable(const struct sl_node *n)
{
	return !n->bad && n->kind == SL_NODE_SCALAR;
}

int sl_build_networks(struct sl_build *b, const struct sl_node *list, const struct sl_path *path,
		      struct sl_ip_set *ret)
{
	char buf[SL_QUOTE_LEN], meant[SL_NETWORK_TEXT], why[SL_WHY_LEN];
	struct sl_ip_counts counts = { 0 };
	struct sl_ip_pattern pattern;
	struct sl_ip_set set;
	int r;

	for (const struct sl_node *n = sl_node_items(list); n; n = sl_node_next(list, n)) {
		if (!is_usable(n) || sl_network_parse(n->text, &pattern, why) < 0)
			continue;
		sl_ip_list_count(&counts, &pattern);
		if (sl_network_has_host_bits(n->text, meant))
			sl_report_warning(&b->report, n->at, path,
					  "%s has bits beyond its prefix: it means %s",
					  sl_quote(n->text, buf), meant);
	}
	r = sl_ip_list_alloc(&counts, &set);
	if (r < 0)
		return r;
	for (const struct sl_node *n = sl_node_items(list); n; n = sl_node_next(list, n))
		if (is_usable(n) && sl_network_parse(n->text, &pattern, why) == 0)
			sl_ip_set_put(&set, &pattern);
	sl_ip_set_build(&set, NULL);
	*ret = set;
	return 0;
}

/* A list that is written replaces what is there, which belongs to conf->default_access. */
int sl_build_access(struct sl_build *b, const struct sl_node *security, const struct sl_path *path,
		    struct sl_access_lists *access)
{
	struct sl_path allow_path = { .up = path, .name = "allow" };
	struct sl_path deny_path = { .up = path, .name = "deny" };
	const struct sl_node *allow = sl_node_find(security, "allow");
	const struct sl_node *deny = sl_node_find(security, "deny");
	int r = 0;

	if (allow && !allow->bad)
		r = sl_build_networks(b, allow, &allow_path, &access->allow);
	if (r == 0 && deny && !deny->bad)
		r = sl_build_networks(b, deny, &deny_path, &access->deny);
	return r;
}

int sl_build_texts(const struct sl_node *list, int (*parse)(const char *, char *, char *),
		   char ***ret, size_t *ret_n)
{
	char made[SL_NAME_MAX + 1], why[SL_WHY_LEN];

	if (sl_node_count(list) == 0 || list->bad)
		return 0;
	*ret = calloc(sl_node_count(list), sizeof(**ret));
	if (!*ret)
		return -ENOMEM;
	for (const struct sl_node *n = sl_node_items(list); n; n = sl_node_next(list, n)) {
		if (!is_usable(n) || (parse && parse(n->text, made, why) < 0))
			continue;
		(*ret)[*ret_n] = strdup(parse ? made : n->text);
		if (!(*ret)[*ret_n])
			return -ENOMEM;
		(*ret_n)++;
	}
	return 0;
}

void sl_build_texts_done(char **texts, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(texts[i]);
	free(texts);
}

/* ---- match ---- */

static uint32_t build_versions(const struct sl_node *list)
{
	const struct sl_key *key = sl_key_at("routes", "match", "tls", "versions", NULL);
	char why[SL_WHY_LEN];
	struct sl_value v;
	uint32_t all = 0;

	for (const struct sl_node *n = sl_node_items(list); n; n = sl_node_next(list, n))
		if (is_usable(n) && sl_value_parse(key->item, n->text, &v, why) == 0)
			all |= (uint32_t)v.n;
	return all;
}

static int build_match(struct sl_build *b, const struct sl_node *match, const struct sl_path *path,
		       struct sl_conf_route *route)
{
	struct sl_path clients_path = { .up = path, .name = "clients" };
	const struct sl_node *clients = sl_node_find(match, "clients");
	const struct sl_node *tls = sl_node_find(match, "tls");
	const struct sl_node *http_path = sl_node_find(match, "path");
	struct sl_path path_path = { .up = path, .name = "path" };
	int r;

	r = sl_build_ports(sl_node_find(match, "ports"), &route->ports, &route->n_ports);
	if (r == 0)
		r = sl_build_texts(sl_node_find(match, "domains"), sl_domain_parse, &route->domains,
				   &route->n_domains);
	if (r == 0 && sl_node_count(clients) && !clients->bad) {
		r = sl_build_networks(b, clients, &clients_path, &route->clients);
		route->has_clients = r == 0;
	}
	if (r == 0)
		r = sl_build_texts(sl_node_find(tls, "alpn"), NULL, &route->alpn, &route->n_alpn);
	route->tls_versions = build_versions(sl_node_find(tls, "versions"));
	if (http_path && !http_path->bad)
		sl_report_warning(&b->report, http_path->at, &path_path,
				  "this build reads no HTTP requests: the route matches no "
				  "connection");
	return r;
}

/* ---- targets ---- */

/* -EINVAL after a report. */
static int build_address(struct sl_build *b, const struct sl_node *n, bool preserve,
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
	const struct sl_node *port = sl_node_find_raw(forward, "port");

	if (!port)
		port = sl_node_find_raw(sl_node_find(defaults, "forward"), "port");
	return port && is_usable(port) && strcmp(port->text, "preserve") == 0;
}

static int build_target(struct sl_build *b, const struct sl_node *node, bool preserve,
			const struct sl_path *path, struct sl_conf_target *t)
{
	const struct sl_key *keys = sl_key_at("routes", "forward", "targets", NULL)->item->keys;
	const struct sl_node *address = node;
	int r = sl_key_store_defaults(keys, t);

	if (node->kind == SL_NODE_MAPPING) {
		address = sl_node_find(node, "address");
		if (r == 0)
			r = sl_key_store_node(keys, node, t);
	}
	if (r == 0 && (!address || !is_usable(address)))
		r = -EINVAL;
	return r < 0 ? r : build_address(b, address, preserve, path, t);
}

static int build_targets(struct sl_build *b, const struct sl_node *forward,
			 const struct sl_path *path, struct sl_conf_route *route)
{
	bool is_mapping = forward->kind == SL_NODE_MAPPING;
	const struct sl_node *targets = is_mapping ? sl_node_find(forward, "targets") : forward;
	struct sl_path below = { .up = path, .name = "targets" };
	bool preserve = keeps_port(forward, b->defaults);
	size_t cap = sl_node_count(targets);
	int r;

	if (cap == 0)
		return 0;
	cap = cap < SL_TARGETS_MAX ? cap : SL_TARGETS_MAX;
	route->targets = calloc(cap, sizeof(*route->targets));
	if (!route->targets)
		return -ENOMEM;
	for (const struct sl_node *t = sl_node_items(targets); t; t = sl_node_next(targets, t)) {
		if (route->n_targets == cap) {
			sl_report_error(&b->report, t->at, is_mapping ? &below : path,
					"more than %d targets", SL_TARGETS_MAX);
			break;
		}
		/* counted before it is complete, so that what it has is freed with it */
		r = build_target(b, t, preserve, is_mapping ? &below : path,
				 &route->targets[route->n_targets++]);
		if (r == -ENOMEM)
			return r;
	}
	return 0;
}

/* ---- what excludes each other ---- */

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

/* What only version 2 of the PROXY protocol can carry. */
static void check_tlvs(struct sl_build *b, const struct sl_node *send, const struct sl_path *path)
{
	const struct sl_node *version = sl_node_find(send, "version");
	char place[SL_PLACE_LEN];

	if (!version || !is_usable(version) || strcmp(version->text, "v1") != 0)
		return;
	for (const struct sl_node *n = send->first; n; n = n->next)
		if (!n->key_bad && n != version && is_usable(n) && strcmp(n->text, "true") == 0)
			sl_report_error(&b->report, n->key_at, path,
					"'%s' needs version v2: v1 (at %s) has no room for it",
					n->key, sl_report_place(&b->report, version->at, place));
}

/* The value of a route or, when it has none, of `defaults`. */
static const struct sl_node *own_or_default(const struct sl_node *own,
					    const struct sl_node *inherited, const char *key)
{
	const struct sl_node *n = sl_node_find(own, key);

	return n ? n : sl_node_find(inherited, key);
}

static bool is_timeout_written(const struct sl_build *b, const struct sl_node *health)
{
	const struct sl_node *inherited = sl_node_find(b->defaults, "forward");

	return own_or_default(health, sl_node_find(inherited, "health"), "timeout");
}

static void check_health(struct sl_build *b, const struct sl_node *health,
			 const struct sl_health_conf *made, const struct sl_path *path)
{
	const struct sl_node *every = sl_node_find(health, "every");
	const struct sl_node *timeout = sl_node_find(health, "timeout");
	const struct sl_node *at = timeout ? timeout : every, *other = timeout ? every : NULL;
	char place[SL_PLACE_LEN], one[32], two[32];

	/* see shorten_timeout() */
	if (!at || at->bad || made->timeout <= made->every || !is_timeout_written(b, health))
		return;
	sl_report_warning(
		&b->report, at->at, path,
		"the timeout of a check (%s%s) is longer than the time between two (%s%s%s)",
		sl_num_format_duration(made->timeout, one), timeout ? "" : ", not given here",
		sl_num_format_duration(made->every, two), other ? ", at " : "",
		other ? sl_report_place(&b->report, other->at, place) : "");
}

/* Also for `defaults`, whose `made` is what routes begin with. */
void sl_build_check_forward(struct sl_build *b, const struct sl_node *node,
			    const struct sl_path *path, const struct sl_conf_route *made)
{
	const struct sl_node *forward = sl_node_find(node, "forward");
	struct sl_path forward_path = { .up = path, .name = "forward" };
	struct sl_path send_path = { .up = &forward_path, .name = "send_proxy" };
	struct sl_path health_path = { .up = &forward_path, .name = "health" };

	check_tlvs(b, sl_node_find(forward, "send_proxy"), &send_path);
	sl_build_check_packet(b, node, path);
	sl_build_check_nftables(b, node, path, made);
	sl_build_check_tls(b, node, path, made);
	check_health(b, sl_node_find(forward, "health"), &made->health, &health_path);
}

/* ---- a route ---- */

/* Where nobody wrote a timeout, checks that come more often than the default's have less. */
static void shorten_timeout(const struct sl_build *b, const struct sl_node *forward,
			    struct sl_conf_route *route)
{
	if (!is_timeout_written(b, sl_node_find(forward, "health")) &&
	    route->health.timeout > route->health.every)
		route->health.timeout = route->health.every;
}

int sl_build_route(struct sl_build *b, const struct sl_node *node, const struct sl_path *path,
		   struct sl_conf_route *route)
{
	struct sl_path forward_path = { .up = path, .name = "forward" };
	struct sl_path match_path = { .up = path, .name = "match" };
	struct sl_path security_path = { .up = path, .name = "security" };
	const struct sl_node *match = sl_node_find(node, "match");
	const struct sl_node *forward = sl_node_find(node, "forward");
	const struct sl_node *name = sl_node_find(node, "name");
	int r;

	*route = b->fresh;
	route->health.path = NULL;
	route->tls = NULL;
	route->backend_tls = NULL;
	route->mark = name ? name->at : node->at;
	check_action(b, node, path);
	if (b->fresh.health.path) {
		route->health.path = strdup(b->fresh.health.path);
		if (!route->health.path)
			return -ENOMEM;
	}
	r = sl_key_store_node(sl_key_at("routes", NULL)->item->keys, node, route);
	if (r == 0 && match)
		r = build_match(b, match, &match_path, route);
	if (r == 0 && forward && !forward->bad)
		r = build_targets(b, forward, &forward_path, route);
	if (r == 0)
		r = sl_build_access(b, sl_node_find(node, "security"), &security_path,
				    &route->access);
	if (r == 0)
		r = sl_build_tls(b, node, path, route);
	shorten_timeout(b, forward, route);
	sl_build_check_forward(b, node, path, route);
	return r;
}

/* What a route has inherited is the configuration's. */
static void own_list_done(struct sl_ip_set *set, const struct sl_ip_set *inherited)
{
	if (set->v4 == inherited->v4)
		set->v4 = NULL;
	if (set->v6 == inherited->v6)
		set->v6 = NULL;
	if (set->globs == inherited->globs)
		set->globs = NULL;
	sl_ip_list_done(set);
}

void sl_build_route_done(struct sl_conf_route *r, const struct sl_access_lists *inherited)
{
	for (size_t i = 0; i < r->n_targets; i++) {
		free(r->targets[i].address);
		free(r->targets[i].host);
	}
	free(r->targets);
	free(r->ports);
	free(r->name);
	free(r->path);
	free(r->health.path);
	sl_build_tls_done(r);
	sl_build_texts_done(r->domains, r->n_domains);
	sl_build_texts_done(r->alpn, r->n_alpn);
	sl_ip_list_done(&r->clients);
	own_list_done(&r->access.allow, &inherited->allow);
	own_list_done(&r->access.deny, &inherited->deny);
}
