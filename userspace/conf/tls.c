/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <errno.h>
#include <string.h>

#include "conf/build.h"

/*
 * `tls` and `forward.tls`. Each key that a route leaves out is that of `defaults`, with one
 * exception: a certificate comes with its key and its response, or none of the three would fit. In
 * `defaults` a `tls` without a certificate says how, not whether: routes that write none pass TLS
 * on.
 */
#define CERTS_MAX 4096
#define ALPN_MAX 32

static bool is_usable(const struct sl_node *n)
{
	return n && !n->bad && n->kind == SL_NODE_SCALAR;
}

static bool is_word(const struct sl_node *n, const char *word)
{
	return is_usable(n) && strcmp(n->text, word) == 0;
}

static const struct sl_node *mapping_of(const struct sl_node *n)
{
	return n && !n->bad && n->kind == SL_NODE_MAPPING ? n : NULL;
}

/* One of the two mappings, as a route or `defaults` has it. */
struct subject {
	const struct sl_node *own;       /* NULL: not written */
	const struct sl_node *inherited; /* a mapping of `defaults`; NULL: none, or this is it */
	const struct sl_path *path;      /* of the mapping */
	bool is_defaults;
};

static struct subject subject_of(const struct sl_build *b, const struct sl_node *node,
				 const struct sl_node *below, const struct sl_node *defaults,
				 const struct sl_path *path)
{
	struct subject s = { .path = path, .is_defaults = node && node == b->defaults };

	s.own = sl_node_find(below, "tls");
	if (!s.is_defaults)
		s.inherited = mapping_of(sl_node_find(defaults, "tls"));
	return s;
}

static struct subject client_side(const struct sl_build *b, const struct sl_node *node,
				  const struct sl_path *path)
{
	return subject_of(b, node, node, b->defaults, path);
}

static struct subject target_side(const struct sl_build *b, const struct sl_node *node,
				  const struct sl_path *path)
{
	return subject_of(b, node, sl_node_find(node, "forward"),
			  sl_node_find(b->defaults, "forward"), path);
}

static const struct sl_node *pick(const struct subject *s, const char *key)
{
	const struct sl_node *n = sl_node_find(s->own, key);

	return n ? n : sl_node_find(s->inherited, key);
}

/* The mapping whose certificate counts; NULL: neither has one. */
static const struct sl_node *cert_holder(const struct subject *s)
{
	if (sl_node_find(s->own, "cert"))
		return s->own;
	return sl_node_find(s->inherited, "cert") ? s->inherited : NULL;
}

static int store(const struct sl_key *key, const struct subject *s, void *record)
{
	int r = sl_key_store_defaults(key->keys, record);

	if (r == 0 && s->inherited)
		r = sl_key_store_node(key->keys, s->inherited, record);
	if (r == 0 && s->own)
		r = sl_key_store_node(key->keys, s->own, record);
	return r;
}

/* ---- with clients: certificates ---- */

static const struct sl_node *item_at(const struct sl_node *list, size_t i)
{
	const struct sl_node *n = sl_node_items(list);

	while (n && i-- > 0)
		n = sl_node_next(list, n);
	return n;
}

/* Of a list that is there, `i` is in it, or has been refused. */
static int copy_file(const struct sl_node *n, char **ret)
{
	if (!is_usable(n) || sl_node_is_null(n))
		return 0;
	*ret = strdup(n->text);
	return *ret ? 0 : -ENOMEM;
}

static int build_certs(const struct sl_node *holder, struct sl_conf_tls *tls)
{
	const struct sl_node *certs = sl_node_find(holder, "cert");
	const struct sl_node *keys = sl_node_find(holder, "key");
	const struct sl_node *staples = sl_node_find(holder, "ocsp");
	const struct sl_node *key = sl_node_items(keys), *staple = sl_node_items(staples);
	size_t cap = sl_node_count(certs);
	int r = 0;

	if (cap == 0 || cap > CERTS_MAX || certs->bad)
		return 0; /* reported */
	tls->certs = calloc(cap, sizeof(*tls->certs));
	if (!tls->certs)
		return -ENOMEM;
	for (const struct sl_node *n = sl_node_items(certs); r == 0 && n;
	     n = sl_node_next(certs, n)) {
		/* counted before it is complete, so that what it has is freed with it */
		struct sl_conf_cert *c = &tls->certs[tls->n_certs++];

		c->mark = n->at;
		r = copy_file(n, &c->chain);
		if (r == 0)
			r = copy_file(key, &c->key);
		if (r == 0)
			r = copy_file(staple, &c->staple);
		key = key ? sl_node_next(keys, key) : NULL;
		staple = staple ? sl_node_next(staples, staple) : NULL;
	}
	return r;
}

/* ---- with clients: everything else ---- */

/* The names of TLS 1.3 and the others, each kind with ':' between them. */
static int split_ciphers(const char *text, struct sl_conf_tls *tls)
{
	_cleanup_(sl_str_done) struct sl_str suites = { 0 };
	_cleanup_(sl_str_done) struct sl_str ciphers = { 0 };

	while (*text) {
		size_t n = strcspn(text, ":");
		struct sl_str *to = strncmp(text, "TLS_", 4) == 0 ? &suites : &ciphers;

		sl_str_addf(to, "%s%.*s", to->len ? ":" : "", (int)n, text);
		text += n + (text[n] == ':');
	}
	if (suites.oom || ciphers.oom)
		return -ENOMEM;
	if (suites.len)
		tls->suites = sl_str_take(&suites);
	if (ciphers.len)
		tls->ciphers = sl_str_take(&ciphers);
	return 0;
}

static int fill_tls(const struct subject *s, struct sl_conf_tls *tls)
{
	const struct sl_node *ciphers = pick(s, "ciphers"), *holder = cert_holder(s);
	int r = store(sl_key_at("routes", "tls", NULL), s, tls);

	if (r == 0 && holder)
		r = build_certs(holder, tls);
	if (r == 0)
		r = sl_build_texts(pick(s, "alpn"), NULL, &tls->alpn, &tls->n_alpn);
	if (r == 0 && is_usable(ciphers))
		r = split_ciphers(ciphers->text, tls);
	if (!tls->client_ca)
		tls->client_auth = SL_CLIENT_AUTH_CHOICE_NONE;
	else if (!pick(s, "client_auth"))
		tls->client_auth = SL_CLIENT_AUTH_CHOICE_REQUIRED;
	return r;
}

static int build_tls(const struct subject *s, struct sl_conf_tls **ret)
{
	if (s->own ? !mapping_of(s->own) : !cert_holder(s))
		return 0;
	if (s->is_defaults && !cert_holder(s))
		return 0;
	*ret = calloc(1, sizeof(**ret));
	if (!*ret)
		return -ENOMEM;
	(*ret)->mark = s->own ? s->own->key_at : s->inherited->key_at;
	return fill_tls(s, *ret);
}

static void tls_done(struct sl_conf_tls *tls)
{
	if (!tls)
		return;
	for (size_t i = 0; i < tls->n_certs; i++) {
		free(tls->certs[i].chain);
		free(tls->certs[i].key);
		free(tls->certs[i].staple);
	}
	free(tls->certs);
	free(tls->client_ca);
	sl_build_texts_done(tls->alpn, tls->n_alpn);
	free(tls->ciphers);
	free(tls->suites);
	free(tls);
}

/* ---- with targets ---- */

static int fill_backend(const struct subject *s, struct sl_conf_backend_tls *tls)
{
	const struct sl_node *verify = pick(s, "verify");
	int r = store(sl_key_at("routes", "forward", "tls", NULL), s, tls);
	size_t n;

	if (sl_node_find(s->own, "cert") && !sl_node_find(s->own, "key")) {
		free(tls->key); /* that of another certificate */
		tls->key = NULL;
	}
	n = tls->server_name ? strlen(tls->server_name) : 0;
	if (n > 1 && tls->server_name[n - 1] == '.')
		tls->server_name[n - 1] = '\0'; /* as certificates have it */
	if (is_word(verify, "none")) {
		tls->verify = SL_VERIFY_CHOICE_NONE;
	} else if (r == 0 && is_usable(verify) && !is_word(verify, "system")) {
		tls->verify = SL_VERIFY_CHOICE_FILE;
		r = copy_file(verify, &tls->ca);
	}
	return r;
}

static int build_backend(const struct subject *s, struct sl_conf_backend_tls **ret)
{
	if (s->own ? !mapping_of(s->own) : !s->inherited)
		return 0;
	*ret = calloc(1, sizeof(**ret));
	if (!*ret)
		return -ENOMEM;
	(*ret)->mark = s->own ? s->own->key_at : s->inherited->key_at;
	return fill_backend(s, *ret);
}

static void backend_done(struct sl_conf_backend_tls *tls)
{
	if (!tls)
		return;
	free(tls->ca);
	free(tls->server_name);
	free(tls->cert);
	free(tls->key);
	free(tls);
}

/* ---- either ---- */

int sl_build_tls(struct sl_build *b, const struct sl_node *node, const struct sl_path *path,
		 struct sl_conf_route *route)
{
	struct subject clients = client_side(b, node, path);
	struct subject targets = target_side(b, node, path);
	int r = build_tls(&clients, &route->tls);

	return r < 0 ? r : build_backend(&targets, &route->backend_tls);
}

void sl_build_tls_done(struct sl_conf_route *route)
{
	tls_done(SL_TAKE_PTR(route->tls));
	backend_done(SL_TAKE_PTR(route->backend_tls));
}

/* ---- checks: certificates ---- */

static bool has_bad_key(const struct sl_node *mapping)
{
	for (const struct sl_node *n = mapping->first; n; n = n->next)
		if (n->key_bad)
			return true;
	return false;
}

static void check_companion(struct sl_build *b, const struct subject *s, const char *name)
{
	const struct sl_node *n = sl_node_find(s->own, name), *cert = sl_node_find(s->own, "cert");
	struct sl_path path = { .up = s->path, .name = name };
	size_t count = sl_node_count(n), want = sl_node_count(cert);
	char place[SL_PLACE_LEN];

	if (count == 0 || n->bad || (cert && cert->bad))
		return;
	if (!cert && !sl_node_find_raw(s->own, "cert") && !has_bad_key(s->own))
		sl_report_error(&b->report, n->key_at, s->path,
				"'%s' needs the 'cert' it belongs to beside it", name);
	else if (cert && count != want)
		sl_report_error(&b->report, n->at, &path,
				"%zu of %zu certificates (at %s): each has one, or null", count,
				want, sl_report_place(&b->report, cert->at, place));
}

static void check_certs(struct sl_build *b, const struct subject *s)
{
	const struct sl_node *acme = sl_node_find(s->own, "acme");
	const struct sl_node *cert = sl_node_find(s->own, "cert");
	struct sl_path path = { .up = s->path, .name = "cert" };

	check_companion(b, s, "key");
	check_companion(b, s, "ocsp");
	/* one with keys of its own has been refused already */
	if (acme && acme->kind == SL_NODE_MAPPING && acme->n == 0)
		sl_report_error(&b->report, acme->key_at, s->path,
				"'acme' is not supported by this build");
	if (cert && !cert->bad && sl_node_count(cert) == 0)
		sl_report_error(&b->report, cert->at, &path, "at least one is needed");
	else if (sl_node_count(cert) > CERTS_MAX)
		sl_report_error(&b->report, item_at(cert, CERTS_MAX)->at, &path,
				"more than %d certificates", CERTS_MAX);
	if (s->is_defaults || cert_holder(s) || s->own->partial || has_bad_key(s->own) ||
	    sl_node_find(s->own, "key") || sl_node_find(s->own, "ocsp") || acme)
		return; /* there is one, or something else has been said */
	sl_report_error(&b->report, s->own->key_at, s->path->up,
			"'tls' needs a certificate, as in 'tls: { cert: /etc/ssl/a.pem, key: "
			"/etc/ssl/a.key }'");
}

/* ---- checks: how ---- */

static void check_client_auth(struct sl_build *b, const struct subject *s)
{
	const struct sl_node *auth = sl_node_find(s->own, "client_auth");
	const struct sl_node *ca = sl_node_find_raw(s->own, "client_ca");

	if (!is_usable(auth) || is_word(auth, "none") || s->is_defaults || pick(s, "client_ca") ||
	    (ca && ca->bad))
		return;
	sl_report_error(&b->report, auth->key_at, s->path,
			"'client_auth' needs 'client_ca': the authorities of the certificates that "
			"are good");
}

static void check_alpn(struct sl_build *b, const struct subject *s)
{
	const struct sl_node *list = sl_node_find(s->own, "alpn");
	struct sl_path path = { .up = s->path, .name = "alpn" };
	char buf[SL_QUOTE_LEN], place[SL_PLACE_LEN];
	size_t i = 0;

	for (const struct sl_node *n = sl_node_items(list); n; n = sl_node_next(list, n), i++) {
		if (i == ALPN_MAX) {
			sl_report_error(&b->report, n->at, &path, "more than %d protocols",
					ALPN_MAX);
			return;
		}
		for (const struct sl_node *o = sl_node_items(list); o != n;
		     o = sl_node_next(list, o)) {
			if (!is_usable(n) || !is_word(o, n->text))
				continue;
			sl_report_error(&b->report, n->at, &path,
					"%s is in the list already (at %s)", sl_quote(n->text, buf),
					sl_report_place(&b->report, o->at, place));
			break;
		}
	}
}

static void check_ciphers(struct sl_build *b, const struct subject *s,
			  const struct sl_conf_tls *made)
{
	const struct sl_node *ciphers = pick(s, "ciphers"), *version = pick(s, "min_version");
	const struct sl_node *own = sl_node_find(s->own, "ciphers");
	char place[SL_PLACE_LEN];

	if (!made || !made->only_1_3 || !made->ciphers || !ciphers || !version)
		return;
	if (!own && !sl_node_find(s->own, "min_version"))
		return; /* said in `defaults` */
	sl_report_warning(&b->report, own ? ciphers->key_at : version->key_at, s->path,
			  "'%s' (%sat %s): those of TLS 1.2 have no effect",
			  own ? "ciphers" : "min_version",
			  own ? "with min_version " : "with ciphers ",
			  sl_report_place(&b->report, own ? version->at : ciphers->at, place));
}

/* ---- checks: targets ---- */

static void check_backend(struct sl_build *b, const struct subject *s)
{
	const struct sl_node *verify = sl_node_find(s->own, "verify");
	const struct sl_node *key = sl_node_find(s->own, "key");
	struct sl_path path = { .up = s->path, .name = "verify" };

	if (is_word(verify, "none"))
		sl_report_warning(&b->report, verify->at, &path,
				  "whoever answers at a target's address, or is on the way to it, "
				  "can read and change everything: name the file of its authority "
				  "instead");
	if (is_usable(key) && !sl_node_find_raw(s->own, "cert") && !has_bad_key(s->own))
		sl_report_error(&b->report, key->key_at, s->path,
				"'key' needs the 'cert' it belongs to beside it");
}

/* Of what does not end here, the header could only say that there is none. */
static void warn_of_ssl(struct sl_build *b, const struct sl_node *node, const struct sl_path *path,
			const struct sl_conf_route *made)
{
	const struct sl_node *send = sl_node_find(sl_node_find(node, "forward"), "send_proxy");
	const struct sl_node *ssl = sl_node_find(send, "ssl");

	if (made->send_proxy.ssl && !made->tls && ssl)
		sl_report_warning(&b->report, ssl->key_at, path,
				  "'send_proxy.ssl' has no effect: the TLS of this route's clients "
				  "does not end here ('tls: { cert: ... }')");
}

/* A route, and what does not know that its targets speak TLS. */
static void warn_of_plain(struct sl_build *b, const struct sl_node *node,
			  const struct sl_path *path, const struct sl_conf_route *made)
{
	const struct sl_node *match = sl_node_find(node, "match");
	const struct sl_node *domains = sl_node_find(match, "domains");
	const struct sl_node *tls = sl_node_find(match, "tls");
	const struct sl_node *health = sl_node_find(sl_node_find(node, "forward"), "health");
	const struct sl_node *http = sl_node_find(health, "path");
	char place[SL_PLACE_LEN];

	if (is_usable(http) && made->health.enabled && !made->health.tls)
		sl_report_warning(
			&b->report, http->key_at, path,
			"targets are asked for this path without TLS, which connections to "
			"them have (at %s): 'tls: true' beside it checks through TLS",
			sl_report_place(&b->report, made->backend_tls->mark, place));
	if (!made->tls && (sl_node_count(domains) || sl_node_count(tls)))
		sl_report_warning(
			&b->report, made->backend_tls->mark, path,
			"'forward.tls': the clients of this route speak TLS (match at %s), "
			"which is encrypted once more as long as it does not end here "
			"('tls: { cert: ... }')",
			sl_report_place(&b->report, (domains ? domains : tls)->key_at, place));
}

/* ---- checks: engines ---- */

struct conflict {
	const char *name;
	const struct sl_node *tls; /* as it holds */
	bool is_own;
};

static void forbid_engine(struct sl_build *b, const struct sl_node *node,
			  const struct sl_path *path, const struct conflict *c)
{
	const struct sl_node *own = sl_node_find(node, "engine");
	const struct sl_node *engine = own ? own : sl_node_find(b->defaults, "engine");
	char place[SL_PLACE_LEN];

	if (!is_word(engine, "packet") && !is_word(engine, "sockmap"))
		return; /* as to nftables: conf/nftables.c */
	if (c->is_own)
		sl_report_error(&b->report, c->tls->key_at, path,
				"'%s' cannot be had with 'engine: %s' (at %s): only the daemon "
				"encrypts, so write 'engine: relay', or auto",
				c->name, engine->text,
				sl_report_place(&b->report, engine->at, place));
	else if (own)
		sl_report_error(&b->report, engine->at, path,
				"'engine: %s' cannot be had with '%s' (at %s): only the daemon "
				"encrypts, so write 'engine: relay', or auto",
				engine->text, c->name,
				sl_report_place(&b->report, c->tls->key_at, place));
}

/* With NAT, which alone carries UDP, conf/nftables.c has said it. */
static void forbid_udp(struct sl_build *b, const struct sl_node *node, const struct sl_path *path,
		       const struct sl_conf_route *made, const struct conflict *c)
{
	const struct sl_node *protocol = sl_node_find(sl_node_find(node, "match"), "protocol");
	char place[SL_PLACE_LEN];

	if (!made->is_udp || !c->is_own || made->engine == SL_CHOICE_NFTABLES || !protocol)
		return;
	sl_report_error(&b->report, c->tls->key_at, path,
			"'%s' cannot be had with 'protocol: udp' (at %s): TLS needs TCP", c->name,
			sl_report_place(&b->report, protocol->at, place));
}

static void check_conflicts(struct sl_build *b, const struct sl_node *node,
			    const struct sl_path *path, const struct sl_conf_route *made,
			    const struct subject *s, const char *name)
{
	struct conflict c = { .name = name,
			      .tls = s->own ? s->own : s->inherited,
			      .is_own = s->own };

	forbid_engine(b, node, path, &c);
	forbid_udp(b, node, path, made, &c);
}

void sl_build_check_tls(struct sl_build *b, const struct sl_node *node, const struct sl_path *path,
			const struct sl_conf_route *made)
{
	struct sl_path tls_path = { .up = path, .name = "tls" };
	struct sl_path forward_path = { .up = path, .name = "forward" };
	struct sl_path backend_path = { .up = &forward_path, .name = "tls" };
	struct subject clients = client_side(b, node, &tls_path);
	struct subject targets = target_side(b, node, &backend_path);

	if (mapping_of(clients.own)) {
		check_certs(b, &clients);
		check_client_auth(b, &clients);
		check_alpn(b, &clients);
		check_ciphers(b, &clients, made->tls);
	}
	if (mapping_of(targets.own))
		check_backend(b, &targets);
	if (made->tls)
		check_conflicts(b, node, path, made, &clients, "tls");
	if (made->backend_tls)
		check_conflicts(b, node, path, made, &targets, "forward.tls");
	if (targets.is_defaults)
		return;
	warn_of_ssl(b, node, path, made);
	if (made->backend_tls)
		warn_of_plain(b, node, path, made);
}
