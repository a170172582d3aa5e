/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "proxy/explain.h"

#include <errno.h>
#include <string.h>

#include "proxy/choose.h"
#include "proxy/pick.h"

/* What the question would show of itself in its first bytes. */
struct first_bytes {
	char name[SL_NAME_MAX + 1];
	char alpn[256];
	size_t alpn_len;
};

/* "h2,http/1.1" as a ClientHello has it; what does not fit is left out. */
static void encode_alpn(const char *list, struct first_bytes *b)
{
	while (list && *list) {
		size_t n = strcspn(list, ",");

		if (n > 0 && n < 256 && b->alpn_len + 1 + n <= sizeof(b->alpn)) {
			b->alpn[b->alpn_len++] = (char)n;
			memcpy(b->alpn + b->alpn_len, list, n);
			b->alpn_len += n;
		}
		list += n + (list[n] == ',');
	}
}

static void make_facts(const struct sl_question *q, struct first_bytes *b,
		       struct sl_match_facts *facts, const char **ret_name_error)
{
	size_t len = 0;

	*facts = (struct sl_match_facts){
		.local = q->local, .port = q->port, .client = q->client, .known = SL_MATCH_NOT_TLS
	};
	encode_alpn(q->alpn, b);
	if (q->name || q->tls_versions || b->alpn_len) {
		facts->known = SL_MATCH_HELLO;
		facts->tls_versions = q->tls_versions ? q->tls_versions : SL_TLS_1_2 | SL_TLS_1_3;
	}
	if (q->name && sl_name_normalize(sl_slice_of(q->name), true, b->name, &len) < 0)
		*ret_name_error = "not a host name: letters, digits, '-', '_' and single dots";
	else if (q->name)
		facts->name = (struct sl_slice){ .p = b->name, .n = len };
	if (b->alpn_len)
		facts->alpn = (struct sl_slice){ .p = b->alpn, .n = b->alpn_len };
	if (q->path)
		facts->path = sl_slice_of(q->path);
}

static bool has_port(const struct sl_conf_route *r, uint16_t port)
{
	for (size_t i = 0; i < r->n_ports; i++)
		if (port >= r->ports[i].from && port <= r->ports[i].to)
			return true;
	return false;
}

/* Matching routes before those that do not match, each group in file order. */
static int list_candidates(const struct sl_generation *g, const struct sl_match_facts *facts,
			   uint32_t winner, struct sl_explanation *x)
{
	size_t n = g->conf->n_routes;

	x->candidates = calloc(n + 1, sizeof(*x->candidates));
	if (!x->candidates)
		return -ENOMEM;
	for (int group = 0; group < 3; group++)
		for (size_t i = 0; i < n; i++) {
			enum sl_match_verdict v =
				sl_matcher_judge(g->matcher, facts, winner, (uint32_t)i);
			int its_group = v == SL_MATCH_WON ? 0 : v == SL_MATCH_OUTRANKED ? 1 : 2;

			if (!g->rules[i].enabled && g->conf->routes[i].enabled)
				continue; /* not the daemon's */
			if (v == SL_MATCH_PORT || its_group != group ||
			    (v == SL_MATCH_DISABLED && !has_port(&g->conf->routes[i], facts->port)))
				continue;
			x->candidates[x->n_candidates++] =
				(struct sl_explained_route){ .conf = g->routes[i].conf,
							     .verdict = v };
		}
	return 0;
}

static int choose_target(const struct sl_gen_route *gr, const struct sl_question *q,
			 uint64_t now_ms, struct sl_explanation *x)
{
	const struct sl_pick pick = { .route = gr,
				      .client = &q->client,
				      .turn = __atomic_load_n(&gr->route->next_target,
							      __ATOMIC_RELAXED),
				      .now_ms = now_ms };
	_cleanup_free_ struct sl_candidate *choices = calloc(gr->conf->n_targets, sizeof(*choices));
	size_t i;

	if (!choices)
		return -ENOMEM;
	i = sl_pick_target(&pick, choices, &x->target_why);
	if (i == SL_NO_CHOICE) {
		if (x->verdict == SL_REASON_NONE)
			x->verdict = SL_REASON_BACKEND_DOWN;
		x->target_why = "no target has an address, weight and good health";
	} else {
		int family = sl_addr_family(&gr->conf->targets[i].addr); /* of a name: unknown */
		int client = sl_addr_family(&q->client);

		x->target = gr->targets[i]->address;
		x->mixes_families = family && client && family != client;
	}
	return 0;
}

/* Who gets it, and from whom it would be refused. */
static void judge(const struct sl_generation *g, const struct sl_deny *deny,
		  const struct sl_question *q, const struct sl_gen_route *gr,
		  struct sl_explanation *x)
{
	x->route = gr->conf;
	x->access = sl_access_check(&g->conf->global.access, deny ? &deny->set : NULL,
				    &gr->conf->access, &q->client);
	x->verdict = sl_access_is_denied(x->access) ? SL_REASON_ROUTE_IP_BLOCKED : SL_REASON_NONE;
}

/* ---- the kernel's NAT ---- */

/* Whom the client could be given, as broker/nft_routes.c settles it: each family for itself. */
struct nat_targets {
	const struct sl_gen_route *route;
	int family; /* of the client; 0: not asked about */
	uint64_t now_ms;
};

static bool is_usable(const struct nat_targets *n, size_t i)
{
	return sl_target_share(n->route->targets[i], &n->route->conf->targets[i], 0, false,
			       n->now_ms) > 0;
}

static bool has_better(const struct nat_targets *n, int family)
{
	const struct sl_conf_route *conf = n->route->conf;

	for (size_t i = 0; i < conf->n_targets; i++)
		if (!conf->targets[i].backup && is_usable(n, i) &&
		    sl_addr_family(&conf->targets[i].addr) == family)
			return true;
	return false;
}

static bool may_get(const struct nat_targets *n, size_t i)
{
	const struct sl_conf_target *t = &n->route->conf->targets[i];
	int family = sl_addr_family(&t->addr);

	return (!n->family || n->family == family) && is_usable(n, i) &&
	       (!t->backup || !has_better(n, family));
}

static const char *nat_why(const struct sl_conf_route *conf)
{
	switch (conf->balance) {
	case SL_BALANCE_ROUND_ROBIN:
		return "the kernel chooses: by turns";
	case SL_BALANCE_LEAST_CONN: /* which is none of its choices */
	case SL_BALANCE_RANDOM:
		return "the kernel chooses: at random";
	case SL_BALANCE_SOURCE_HASH:
		return "the kernel chooses: by the hash of the client's address";
	case SL_BALANCE_MAGLEV:
		return "the kernel chooses: by the client's slot in the Maglev table";
	}
	return "the kernel chooses";
}

static void nobody(const struct nat_targets *n, struct sl_explanation *x)
{
	struct nat_targets any = { .route = n->route, .now_ms = n->now_ms };

	if (x->verdict == SL_REASON_NONE)
		x->verdict = SL_REASON_BACKEND_DOWN;
	x->target_why = "no target has weight and good health";
	for (size_t i = 0; i < n->route->conf->n_targets; i++)
		if (may_get(&any, i))
			x->target_why = "no usable target is of the client's family, and NAT "
					"does not lead from one to the other";
}

static int choose_nat_target(const struct nat_targets *n, struct sl_explanation *x)
{
	const struct sl_conf_route *conf = n->route->conf;
	size_t last = 0;

	x->usable = calloc(conf->n_targets + 1, sizeof(*x->usable));
	if (!x->usable)
		return -ENOMEM;
	x->target = NULL;
	for (size_t i = 0; i < conf->n_targets; i++)
		if (may_get(n, i)) {
			x->usable[x->n_usable++] = conf->targets[i].address;
			last = i;
		}
	if (x->n_usable == 0) {
		nobody(n, x);
	} else if (x->n_usable > 1) {
		x->target_why = nat_why(conf);
	} else {
		x->target = conf->targets[last].address;
		x->target_why = conf->n_targets == 1 ? "the only one"
				: conf->targets[last].backup
					? "a backup: no other target is in good health"
					: "the only one that it could be now";
	}
	return 0;
}

/* The same lists and states of targets are in the kernel's rules, the choice itself is not here. */
static int judge_nat(const struct sl_generation *g, const struct sl_deny *deny,
		     const struct sl_question *q, uint64_t now_ms, const struct sl_gen_route *gr,
		     struct sl_explanation *x)
{
	const struct nat_targets n = { .route = gr,
				       .family = sl_addr_family(&q->client),
				       .now_ms = now_ms };

	x->candidates = calloc(1, sizeof(*x->candidates));
	if (!x->candidates)
		return -ENOMEM;
	x->candidates[x->n_candidates++] =
		(struct sl_explained_route){ .conf = gr->conf, .verdict = SL_MATCH_WON };
	judge(g, deny, q, gr, x);
	return choose_nat_target(&n, x);
}

static int match(const struct sl_generation *g, const struct sl_deny *deny,
		 const struct sl_question *q, uint64_t now_ms, struct sl_match_facts *facts,
		 struct sl_explanation *x)
{
	uint32_t winner = sl_matcher_find(g->matcher, facts);
	int r = list_candidates(g, facts, winner, x);

	if (r < 0)
		return r;
	facts->known = SL_MATCH_NO_BYTES;
	x->needs_hello = sl_matcher_find(g->matcher, facts) == SL_NEED_BYTES;
	x->wants_proxy = sl_generation_accept_proxy(g, &q->local, q->port) != NULL;
	if (winner == SL_NO_ROUTE)
		return 0;
	judge(g, deny, q, &g->routes[winner], x);
	/* A denied client's target is shown, too: what would be without the list. */
	return choose_target(&g->routes[winner], q, now_ms, x);
}

static const char *other_protocol(const struct sl_generation *g, const struct sl_question *q)
{
	if (!q->is_udp)
		return sl_generation_find_nat(g, &q->local, q->port, true)
			       ? "a route of UDP has that port: ask with --protocol udp"
			       : NULL;
	for (size_t i = 0; i < g->conf->n_routes; i++)
		if (g->conf->routes[i].enabled && !g->conf->routes[i].is_udp &&
		    has_port(&g->conf->routes[i], q->port))
			return "a route of TCP has that port: ask with --protocol tcp";
	return NULL;
}

int sl_explain(const struct sl_generation *g, const struct sl_deny *deny,
	       const struct sl_question *q, uint64_t now_ms, struct sl_explanation *ret)
{
	struct sl_explanation x = { .engine = SL_ENGINE_NONE };
	struct first_bytes bytes = { 0 };
	struct sl_match_facts facts;
	const struct sl_gen_route *nat = sl_generation_find_nat(g, &q->local, q->port, q->is_udp);
	int r = 0;

	make_facts(q, &bytes, &facts, &x.name_error);
	x.verdict = SL_REASON_NO_ROUTE;
	if (nat)
		r = judge_nat(g, deny, q, now_ms, nat, &x);
	else if (!q->is_udp)
		r = match(g, deny, q, now_ms, &facts, &x);
	if (r < 0) {
		sl_explanation_done(&x);
		return r;
	}
	if (!x.route)
		x.hint = other_protocol(g, q);
	*ret = x;
	return 0;
}

/*
 * Of a connection that has come as far as it takes: connected from a port of ours, and due. What is
 * full now need not be then, and is tried again.
 */
void sl_explain_engine(const struct sl_generation *g, enum sl_engine_reason packet,
		       enum sl_engine_reason sockmap, struct sl_explanation *x)
{
	const struct sl_choice_item *now;
	struct sl_choice_facts facts;

	if (!x->route)
		return;
	facts = sl_choose_facts(&g->conf->global, x->route, packet, sockmap);
	facts.is_connected = true;
	facts.has_own_port = true;
	/* With a PROXY header it is the sender's address that counts, which was not asked about. */
	facts.mixes_families = x->mixes_families && !x->wants_proxy;
	facts.packet_due = facts.sockmap_due = (struct sl_choice_due){ 0 };
	x->choice = sl_choose(&facts);
	now = sl_choice_now(&x->choice);
	x->engine = now->engine;
	x->engine_reason = now->why;
}

void sl_explanation_done(struct sl_explanation *x)
{
	free(x->candidates);
	free(x->usable);
	x->candidates = NULL;
	x->n_candidates = 0;
	x->usable = NULL;
	x->n_usable = 0;
}
