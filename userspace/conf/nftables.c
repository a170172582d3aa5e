/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "conf/build.h"

/*
 * What global.nftables says, and what routes ask of the kernel's NAT: it rewrites addresses of
 * packets and reads none of their content, so whatever needs a byte, a name or a second attempt
 * is refused, with the place of both sides. What merely has no effect is warned of.
 */

static const struct sl_path root_path = { 0 };

static bool is_usable(const struct sl_node *n)
{
	return n && !n->bad && n->kind == SL_NODE_SCALAR;
}

static bool is_word(const struct sl_node *n, const char *word)
{
	return is_usable(n) && strcmp(n->text, word) == 0;
}

/* ---- global.nftables ---- */

static bool has_interface(const struct sl_conf_nftables *n, const char *name)
{
	for (size_t i = 0; i < n->n_flow_offload; i++)
		if (strcmp(n->flow_offload[i], name) == 0)
			return true;
	return false;
}

/* As many as the kernel has been asked for at once; hosts have some. */
#define OFFLOAD_MAX 64

static int refuse_interface(struct sl_build *b, const struct sl_node *node)
{
	struct sl_path global = { .up = &root_path, .name = "global" };
	struct sl_path nftables = { .up = &global, .name = "nftables" };
	struct sl_path path = { .up = &nftables, .name = "flow_offload" };

	sl_report_error(&b->report, node->at, &path, "more than %d interfaces", OFFLOAD_MAX);
	return 0;
}

int sl_build_nftables(struct sl_build *b, const struct sl_node *node)
{
	struct sl_conf_nftables *n = &b->conf->global.nftables;
	const struct sl_node *list = sl_node_find(node, "flow_offload");
	size_t count = sl_node_count(list);

	if (count && !list->bad) {
		n->flow_offload = calloc(count, sizeof(*n->flow_offload));
		if (!n->flow_offload)
			return -ENOMEM;
		for (const struct sl_node *i = sl_node_items(list); i; i = sl_node_next(list, i)) {
			if (!is_usable(i) || has_interface(n, i->text))
				continue;
			if (n->n_flow_offload == OFFLOAD_MAX)
				return refuse_interface(b, i);
			n->flow_offload[n->n_flow_offload] = strdup(i->text);
			if (!n->flow_offload[n->n_flow_offload])
				return -ENOMEM;
			n->n_flow_offload++;
		}
	}
	return 0;
}

/* ---- keys that do not go together with NAT ---- */

struct unfit {
	const char *key[3];  /* from the route down; NULL ends it */
	const char *neutral; /* the value that asks for nothing; NULL: none does */
	const char *why;
};

#define UNREAD "the kernel's NAT reads nothing of what clients send"

static const struct unfit forbidden[] = {
	{ { "match", "domains" }, NULL, UNREAD },
	{ { "match", "path" }, NULL, UNREAD },
	{ { "match", "headers" }, NULL, UNREAD },
	{ { "match", "tls" }, NULL, UNREAD },
	{ { "match", "clients" },
	  NULL,
	  "the kernel's NAT chooses routes by port and address alone; 'security.allow' lets only "
	  "some clients in" },
	{ { "tls" }, "passthrough", UNREAD },
	{ { "http" }, NULL, UNREAD },
	{ { "redirect" }, NULL, UNREAD },
	{ { "respond" }, NULL, UNREAD },
	{ { "reject" }, NULL, "the kernel's NAT only forwards" },
	{ { "forward", "send_proxy" },
	  "none",
	  "the kernel's NAT can put nothing before what clients send" },
	{ { "forward", "tls" }, NULL, "the kernel's NAT changes nothing of what clients send" },
	{ { "forward", "health", "path" }, NULL, "its targets are checked by connecting only" },
	{ { "forward", "health", "tls" }, "false", "its targets are checked by connecting only" },
	{ { "security", "basic_auth" }, NULL, UNREAD },
};

static const struct unfit ineffective[] = {
	{ { "priority" }, "0", "its ports belong to it alone" },
	{ { "half_open" }, "false", "the kernel's connection tracking has times of its own" },
	{ { "forward", "retries" }, "0", "the kernel's NAT does not try again" },
	{ { "forward", "health", "slow_start" },
	  "0s",
	  "a target that comes back gets its share at once" },
};

/* What only NAT can do. */
static const struct unfit exclusive[] = {
	{ { "forward", "preserve_source" }, "false", NULL },
	{ { "security", "new_connections" }, "0", NULL },
	{ { "security", "packets" }, "0", NULL },
	{ { "security", "refuse" }, "reset", NULL },
};

/* A list or mapping with anything in it, or a value that is not the neutral one. */
static bool asks(const struct sl_node *n, const char *neutral)
{
	if (!n || n->bad)
		return false;
	if (n->kind != SL_NODE_SCALAR)
		return n->n > 0;
	if (neutral && strcmp(neutral, "0s") == 0 && strcmp(n->text, "0") == 0)
		return false;
	if (neutral && strcmp(neutral, "0") == 0 && strncmp(n->text, "0/", 2) == 0)
		return false;
	return !neutral || strcmp(n->text, neutral) != 0;
}

static const struct sl_node *find_below(const struct sl_node *node, const struct unfit *u)
{
	for (size_t i = 0; node && i < SL_ARRAY_LEN(u->key) && u->key[i]; i++)
		node = sl_node_find(node, u->key[i]);
	return node;
}

static const char *join(const struct unfit *u, char ret[64])
{
	(void)snprintf(ret, 64, "%s%s%s%s%s", u->key[0], u->key[1] ? "." : "",
		       u->key[1] ? u->key[1] : "", u->key[1] && u->key[2] ? "." : "",
		       u->key[1] && u->key[2] ? u->key[2] : "");
	return ret;
}

static bool is_about_health(const struct unfit *u)
{
	return u->key[1] && strcmp(u->key[1], "health") == 0;
}

/* A mapping asks for it also when it is empty, and one in `defaults` perhaps of no route. */
static bool asks_for_tls(const struct unfit *u, const struct sl_conf_route *made, bool *ret)
{
	bool is_forward = strcmp(u->key[0], "forward") == 0;

	if (strcmp(u->key[is_forward ? 1 : 0], "tls") != 0)
		return false;
	*ret = is_forward ? made->backend_tls != NULL : made->tls != NULL;
	return true;
}

/* What is being checked: a route, or `defaults`. */
struct subject {
	const struct sl_node *node;
	const struct sl_node *inherited; /* NULL: none, or this is `defaults` itself */
	const struct sl_node *own_engine;
	const struct sl_node *engine; /* as it holds; NULL: not written anywhere */
	const struct sl_path *path;
};

static void forbid(struct sl_build *b, const struct subject *s, const struct unfit *u,
		   const struct sl_conf_route *made)
{
	const struct sl_node *own = find_below(s->node, u);
	const struct sl_node *n = own ? own : find_below(s->inherited, u);
	char place[SL_PLACE_LEN], name[64];
	bool is_asked;

	if (!asks_for_tls(u, made, &is_asked))
		is_asked = asks(n, u->neutral);
	if (!n || !is_asked || (!own && !s->own_engine))
		return; /* what both come from `defaults` is said there */
	if (own)
		sl_report_error(&b->report, n->key_at, s->path,
				"'%s' cannot be had with 'engine: nftables' (at %s): %s",
				join(u, name), sl_report_place(&b->report, s->engine->at, place),
				u->why);
	else
		sl_report_error(&b->report, s->engine->at, s->path,
				"'engine: nftables' cannot be had with '%s' (at %s): %s",
				join(u, name), sl_report_place(&b->report, n->key_at, place),
				u->why);
}

static void warn(struct sl_build *b, const struct subject *s, const struct sl_node *n,
		 const char *name, const char *why)
{
	char place[SL_PLACE_LEN];

	sl_report_warning(&b->report, n->key_at, s->path,
			  "'%s' has no effect with 'engine: nftables' (at %s): %s", name,
			  sl_report_place(&b->report, s->engine->at, place), why);
}

/* The daemon sees how old and how silent a flow is, and can end it; the rest is the kernel's. */
static bool is_watched(const char *timeout)
{
	return strcmp(timeout, "idle") == 0 || strcmp(timeout, "max_lifetime") == 0 ||
	       strcmp(timeout, "drain") == 0;
}

/* Only of what the route says itself: `defaults` are for all engines. */
static void warn_of_ineffective(struct sl_build *b, const struct subject *s)
{
	const struct sl_node *forward = sl_node_find(s->node, "forward");
	const struct sl_node *times = sl_node_find(s->node, "timeouts");
	const struct sl_node *balance = sl_node_find(forward, "balance");
	char name[64];

	for (size_t i = 0; i < SL_ARRAY_LEN(ineffective); i++) {
		const struct sl_node *n = find_below(s->node, &ineffective[i]);

		if (asks(n, ineffective[i].neutral))
			warn(b, s, n, join(&ineffective[i], name), ineffective[i].why);
	}
	if (is_word(balance, "least_conn"))
		warn(b, s, balance, "balance: least_conn",
		     "the kernel does not compare targets, and takes them in turn");
	for (const struct sl_node *n = times && times->kind == SL_NODE_MAPPING ? times->first
									       : NULL;
	     n; n = n->next) {
		if (n->key_bad || n->bad || is_watched(n->key))
			continue;
		(void)snprintf(name, sizeof(name), "timeouts.%.40s", n->key);
		warn(b, s, n, name, "the kernel's connection tracking has times of its own");
	}
}

/* ---- lists of clients ---- */

static bool is_glob(const struct sl_node *n)
{
	char why[SL_WHY_LEN];
	struct sl_ip_pattern p;

	return is_usable(n) && sl_network_parse(n->text, &p, why) == 0 && p.kind == SL_IP_GLOB4;
}

static void forbid_globs(struct sl_build *b, const struct subject *s, const char *name)
{
	const struct sl_node *own = sl_node_find(sl_node_find(s->node, "security"), name);
	const struct sl_node *list =
		own ? own : sl_node_find(sl_node_find(s->inherited, "security"), name);
	char place[SL_PLACE_LEN], buf[SL_QUOTE_LEN];

	if (!own && !s->own_engine)
		return;
	for (const struct sl_node *n = sl_node_items(list); n; n = sl_node_next(list, n)) {
		if (!is_glob(n))
			continue;
		if (own) {
			sl_report_error(&b->report, n->at, s->path,
					"%s cannot be had with 'engine: nftables' (at %s): it is "
					"not a range of addresses",
					sl_quote(n->text, buf),
					sl_report_place(&b->report, s->engine->at, place));
			continue;
		}
		sl_report_error(&b->report, s->engine->at, s->path,
				"'engine: nftables' cannot be had with %s of 'security.%s' (at "
				"%s): it is not a range of addresses",
				sl_quote(n->text, buf), name,
				sl_report_place(&b->report, n->at, place));
		return;
	}
}

static void forbid_global_globs(struct sl_build *b, struct sl_mark route)
{
	static const char *const names[] = { "allow", "deny" };
	const struct sl_node *security = sl_node_find(b->global, "security");
	struct sl_path global = { .up = &root_path, .name = "global" };
	struct sl_path path = { .up = &global, .name = "security" };
	char place[SL_PLACE_LEN], buf[SL_QUOTE_LEN];

	for (size_t i = 0; i < SL_ARRAY_LEN(names); i++) {
		const struct sl_node *list = sl_node_find(security, names[i]);

		for (const struct sl_node *n = sl_node_items(list); n; n = sl_node_next(list, n))
			if (is_glob(n))
				sl_report_error(&b->report, n->at, &path,
						"%s is not a range of addresses, which the route "
						"at %s needs for 'engine: nftables'",
						sl_quote(n->text, buf),
						sl_report_place(&b->report, route, place));
	}
}

/* ---- one route ---- */

/* In `defaults` it is for those routes that can do it. */
static void require_nat(struct sl_build *b, const struct subject *s, const struct unfit *u)
{
	const struct sl_node *own = find_below(s->node, u);
	const struct sl_node *n = own ? own : find_below(s->inherited, u);
	const struct sl_node *name = sl_node_find(s->node, "name");
	char place[SL_PLACE_LEN];

	if (!asks(n, u->neutral) || !name)
		return;
	if (own)
		sl_report_error(&b->report, own->key_at, s->path, "'%s' needs 'engine: nftables'",
				u->key[1]);
	else
		sl_report_error(&b->report, s->own_engine ? s->own_engine->at : name->at, s->path,
				"'%s' (at %s) needs 'engine: nftables'", u->key[1],
				sl_report_place(&b->report, n->key_at, place));
}

/* What only NAT can do, asked of another engine. */
static void check_other(struct sl_build *b, const struct subject *s)
{
	const struct sl_node *protocol = sl_node_find(sl_node_find(s->node, "match"), "protocol");
	char place[SL_PLACE_LEN];

	if (is_word(protocol, "udp") && s->engine)
		sl_report_error(&b->report, protocol->at, s->path,
				"'protocol: udp' needs 'engine: nftables', not '%s' (at %s)",
				s->engine->text, sl_report_place(&b->report, s->engine->at, place));
	else if (is_word(protocol, "udp"))
		sl_report_error(&b->report, protocol->at, s->path,
				"'protocol: udp' needs 'engine: nftables'");
	for (size_t i = 0; i < SL_ARRAY_LEN(exclusive); i++)
		require_nat(b, s, &exclusive[i]);
}

void sl_build_check_nftables(struct sl_build *b, const struct sl_node *node,
			     const struct sl_path *path, const struct sl_conf_route *made)
{
	struct subject s = { .node = node, .path = path };
	const struct sl_node *protocol = sl_node_find(sl_node_find(node, "match"), "protocol");

	s.inherited = node == b->defaults ? NULL : b->defaults;
	s.own_engine = sl_node_find(node, "engine");
	s.engine = s.own_engine ? s.own_engine : sl_node_find(s.inherited, "engine");
	if (s.engine && !is_usable(s.engine))
		return;
	if (!is_word(s.engine, "nftables")) {
		check_other(b, &s);
		return;
	}
	for (size_t i = 0; i < SL_ARRAY_LEN(forbidden); i++)
		if (made->health.enabled || !is_about_health(&forbidden[i]))
			forbid(b, &s, &forbidden[i], made);
	forbid_globs(b, &s, "allow");
	forbid_globs(b, &s, "deny");
	if (node != b->defaults)
		warn_of_ineffective(b, &s);
	if (made->is_udp && made->health.enabled && protocol)
		sl_report_warning(
			&b->report, protocol->at, path,
			"targets are checked by connecting with TCP: one that answers UDP "
			"alone counts as down");
}

/* ---- targets ---- */

#define FAMILY4 1U
#define FAMILY6 2U

static unsigned families_of(const struct sl_addr *a)
{
	if (sl_addr_family(a) == AF_UNSPEC)
		return FAMILY4 | FAMILY6;
	return sl_addr_family(a) == AF_INET6 ? FAMILY6 : FAMILY4;
}

static const char *family_name(unsigned family)
{
	return family == FAMILY6 ? "IPv6" : "IPv4";
}

/* There is no route_localnet of IPv6: ::1 and the world cannot be led to one another. */
static bool check_loopback(struct sl_build *b, const struct sl_conf_route *r,
			   const struct sl_conf_target *t)
{
	char place[SL_PLACE_LEN], buf[SL_QUOTE_LEN];

	for (size_t i = 0; i < r->n_ports; i++) {
		const struct sl_port_spec *p = &r->ports[i];

		if (sl_addr_family(&t->addr) != AF_INET6 || !(families_of(&p->ip) & FAMILY6) ||
		    sl_addr_is_loopback(&p->ip) == sl_addr_is_loopback(&t->addr))
			continue;
		if (sl_addr_is_loopback(&t->addr))
			sl_report_error(&b->report, t->mark, NULL,
					"%s cannot be had with 'engine: nftables': the kernel does "
					"not lead clients of other hosts (port at %s) to ::1",
					sl_quote(t->address, buf),
					sl_report_place(&b->report, p->mark, place));
		else
			sl_report_error(&b->report, t->mark, NULL,
					"%s cannot be had with 'engine: nftables': the kernel does "
					"not lead clients of ::1 (port at %s) to other addresses",
					sl_quote(t->address, buf),
					sl_report_place(&b->report, p->mark, place));
		return false;
	}
	return true;
}

static bool check_target(struct sl_build *b, const struct sl_conf_route *r,
			 const struct sl_conf_target *t, unsigned listening)
{
	unsigned family = families_of(&t->addr);
	char buf[SL_QUOTE_LEN];

	if (sl_addr_family(&t->addr) == AF_UNSPEC) {
		sl_report_error(&b->report, t->mark, NULL,
				"%s: 'engine: nftables' needs an address here, because the kernel "
				"looks no name up",
				sl_quote(t->address, buf));
		return false;
	}
	if (!(family & listening)) {
		sl_report_error(&b->report, t->mark, NULL,
				"%s is an %s address and no port of this route is: the kernel's "
				"NAT does not lead from one family to the other",
				sl_quote(t->address, buf), family_name(family));
		return false;
	}
	if (family == FAMILY6 && IN6_IS_ADDR_LINKLOCAL(&t->addr.v6.sin6_addr)) {
		sl_report_error(&b->report, t->mark, NULL,
				"%s cannot be had with 'engine: nftables': a link-local address "
				"needs an interface, which NAT does not choose",
				sl_quote(t->address, buf));
		return false;
	}
	return check_loopback(b, r, t);
}

static void check_targets(struct sl_build *b, const struct sl_conf_route *r)
{
	unsigned listening = 0, reached = 0;
	bool good = true;

	for (size_t i = 0; i < r->n_ports; i++)
		listening |= families_of(&r->ports[i].ip);
	if (!listening)
		return; /* its ports have been reported */
	for (size_t i = 0; i < r->n_targets; i++) {
		if (!r->targets[i].address)
			continue; /* likewise */
		good = check_target(b, r, &r->targets[i], listening) && good;
		reached |= families_of(&r->targets[i].addr);
	}
	for (size_t i = 0; good && reached && i < r->n_ports; i++)
		if (!(families_of(&r->ports[i].ip) & reached))
			sl_report_error(&b->report, r->ports[i].mark, NULL,
					"this is an %s address and no target of this route is: "
					"the kernel's NAT does not lead from one family to the "
					"other",
					family_name(families_of(&r->ports[i].ip)));
}

int sl_conf_check_nftables(struct sl_build *b)
{
	const struct sl_conf_route *first = NULL;

	for (size_t i = 0; i < b->conf->n_routes; i++) {
		const struct sl_conf_route *r = &b->conf->routes[i];

		if (r->engine != SL_CHOICE_NFTABLES)
			continue;
		check_targets(b, r);
		if (!first && r->enabled)
			first = r;
	}
	if (!first)
		return 0;
	forbid_global_globs(b, first->mark);
	return sl_conf_check_nft_ports(b);
}
