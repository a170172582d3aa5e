/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "daemon/cert_route.h"

#include <errno.h>
#include <string.h>

#include "proxy/secure.h"

/* ---- which files ---- */

struct list {
	struct sl_cert_wanted *item;
	size_t n;
	size_t max;
};

static void want(struct list *l, enum sl_cert_part part, size_t cert, const char *path, bool is_key)
{
	if (!path)
		return;
	if (l->n < l->max)
		l->item[l->n] = (struct sl_cert_wanted){
			.path = path, .part = part, .cert = cert, .is_key = is_key
		};
	l->n++;
}

size_t sl_cert_route_files(const struct sl_conf_route *route, struct sl_cert_wanted *ret,
			   size_t max)
{
	const struct sl_conf_backend_tls *b = route->backend_tls;
	const struct sl_conf_tls *t = route->tls;
	struct list l = { .item = ret, .max = max };

	for (size_t i = 0; t && i < t->n_certs; i++) {
		want(&l, SL_CERT_PART_CHAIN, i, t->certs[i].chain, !t->certs[i].key);
		want(&l, SL_CERT_PART_KEY, i, t->certs[i].key, true);
		want(&l, SL_CERT_PART_STAPLE, i, t->certs[i].staple, false);
	}
	if (t)
		want(&l, SL_CERT_PART_CLIENT_CA, 0, t->client_ca, false);
	if (b && b->verify == SL_VERIFY_CHOICE_FILE)
		want(&l, SL_CERT_PART_BACKEND_CA, 0, b->ca, false);
	if (b && b->cert) {
		want(&l, SL_CERT_PART_BACKEND_CHAIN, 0, b->cert, !b->key);
		want(&l, SL_CERT_PART_BACKEND_KEY, 0, b->key, true);
	}
	return l.n;
}

static bool is_same_text(const char *a, const char *b)
{
	return (!a && !b) || (a && b && strcmp(a, b) == 0);
}

static bool is_same_server(const struct sl_conf_tls *a, const struct sl_conf_tls *b)
{
	bool is = a->n_certs == b->n_certs && a->n_alpn == b->n_alpn &&
		  a->client_auth == b->client_auth && a->only_1_3 == b->only_1_3 &&
		  is_same_text(a->client_ca, b->client_ca) &&
		  is_same_text(a->ciphers, b->ciphers) && is_same_text(a->suites, b->suites);

	for (size_t i = 0; is && i < a->n_certs; i++)
		is = is_same_text(a->certs[i].chain, b->certs[i].chain) &&
		     is_same_text(a->certs[i].key, b->certs[i].key) &&
		     is_same_text(a->certs[i].staple, b->certs[i].staple);
	for (size_t i = 0; is && i < a->n_alpn; i++)
		is = is_same_text(a->alpn[i], b->alpn[i]);
	return is;
}

static bool is_same_backend(const struct sl_conf_backend_tls *a,
			    const struct sl_conf_backend_tls *b)
{
	return a->verify == b->verify && is_same_text(a->ca, b->ca) &&
	       is_same_text(a->server_name, b->server_name) && is_same_text(a->cert, b->cert) &&
	       is_same_text(a->key, b->key);
}

bool sl_cert_route_is_same(const struct sl_conf_route *a, const struct sl_conf_route *b)
{
	if (!a->tls != !b->tls || !a->backend_tls != !b->backend_tls)
		return false;
	return (!a->tls || is_same_server(a->tls, b->tls)) &&
	       (!a->backend_tls || is_same_backend(a->backend_tls, b->backend_tls));
}

/* ---- reading ---- */

void sl_cert_findings_done(struct sl_cert_findings *f)
{
	sl_str_done(&f->errors);
	sl_str_done(&f->forbidden);
	sl_str_done(&f->warnings);
}

void sl_cert_reading_done(struct sl_cert_reading *r)
{
	for (size_t i = 0; i < r->n; i++)
		sl_cert_file_done(&r->file[i]);
	free(r->file);
	free(r->wanted);
	free((void *)(uintptr_t)r->item.certs);
	free((void *)(uintptr_t)r->item.backend_cert);
	*r = (struct sl_cert_reading){ 0 };
}

static void put_file(const struct sl_cert_wanted *w, const struct sl_cert_file *file,
		     struct sl_cert_source *certs, struct sl_cert_source *backend,
		     struct sl_material *item)
{
	struct sl_cert_source *c =
		w->part >= SL_CERT_PART_BACKEND_CHAIN ? backend : &certs[w->cert];

	switch (w->part) {
	case SL_CERT_PART_CHAIN:
	case SL_CERT_PART_BACKEND_CHAIN:
		c->label = w->path;
		c->chain = file->bytes;
		c->chain_len = file->len;
		break;
	case SL_CERT_PART_KEY:
	case SL_CERT_PART_BACKEND_KEY:
		c->key = file->bytes;
		c->key_len = file->len;
		break;
	case SL_CERT_PART_STAPLE:
		c->staple = file->bytes;
		c->staple_len = file->len;
		break;
	case SL_CERT_PART_CLIENT_CA:
		item->client_ca = file->bytes;
		item->client_ca_len = file->len;
		break;
	case SL_CERT_PART_BACKEND_CA:
		item->backend_ca = file->bytes;
		item->backend_ca_len = file->len;
		break;
	}
}

static int put_together(struct sl_cert_reading *r)
{
	size_t n_certs = r->route->tls ? r->route->tls->n_certs : 0;
	bool has_backend = r->route->backend_tls && r->route->backend_tls->cert;
	struct sl_cert_source *certs = calloc(n_certs + 1, sizeof(*certs));
	struct sl_cert_source *backend = calloc(1, sizeof(*backend));

	/* sl_cert_reading_done() frees both, also when there are none */
	r->item = (struct sl_material){ .route = r->route->name,
					.certs = certs,
					.n_certs = n_certs,
					.backend_cert = backend,
					.problem = "" };
	if (!certs || !backend)
		return -ENOMEM;
	for (size_t i = 0; i < r->n; i++)
		put_file(&r->wanted[i], &r->file[i], certs, backend, &r->item);
	if (!has_backend) {
		free(backend);
		r->item.backend_cert = NULL;
	}
	return 0;
}

static int read_all(struct sl_cert_reading *r, size_t max, struct sl_cert_findings *found)
{
	size_t total = 0;
	int first = 0;

	for (size_t i = 0; i < r->n; i++) {
		const struct sl_cert_wanted *w = &r->wanted[i];
		_cleanup_(sl_str_done) struct sl_str why = { 0 };
		int e = sl_cert_file_read(w->path, w->is_key, &r->file[i], &why);

		total += r->file[i].len;
		if (e == 0 && total > max)
			return -E2BIG;
		if (e == 0)
			continue;
		first = first ? first : e;
		sl_str_addf(e == -EACCES ? &found->forbidden : &found->errors, "%s: %s\n", w->path,
			    sl_str_text(&why));
	}
	return first == -ENOMEM ? first : first ? -EINVAL : 0;
}

int sl_cert_route_read(const struct sl_conf_route *route, size_t max, struct sl_cert_reading *ret,
		       struct sl_cert_findings *found)
{
	int r;

	*ret = (struct sl_cert_reading){ .route = route };
	ret->n = sl_cert_route_files(route, NULL, 0);
	ret->wanted = calloc(ret->n + 1, sizeof(*ret->wanted));
	ret->file = calloc(ret->n + 1, sizeof(*ret->file));
	if (!ret->wanted || !ret->file) {
		ret->n = 0;
		return -ENOMEM;
	}
	(void)sl_cert_route_files(route, ret->wanted, ret->n);
	r = read_all(ret, max, found);
	return r < 0 ? r : put_together(ret);
}

static bool is_same_bytes(const void *a, size_t a_len, const void *b, size_t b_len)
{
	return !a == !b && a_len == b_len && (a_len == 0 || memcmp(a, b, a_len) == 0);
}

static bool is_same_source(const struct sl_cert_source *a, const struct sl_cert_source *b)
{
	return strcmp(a->label, b->label) == 0 &&
	       is_same_bytes(a->chain, a->chain_len, b->chain, b->chain_len) &&
	       is_same_bytes(a->key, a->key_len, b->key, b->key_len) &&
	       is_same_bytes(a->staple, a->staple_len, b->staple, b->staple_len);
}

bool sl_cert_material_is_same(const struct sl_material *a, const struct sl_material *b)
{
	bool is = a->n_certs == b->n_certs && !a->backend_cert == !b->backend_cert &&
		  is_same_bytes(a->client_ca, a->client_ca_len, b->client_ca, b->client_ca_len) &&
		  is_same_bytes(a->backend_ca, a->backend_ca_len, b->backend_ca, b->backend_ca_len);

	for (size_t i = 0; is && i < a->n_certs; i++)
		is = is_same_source(&a->certs[i], &b->certs[i]);
	return is && (!a->backend_cert || is_same_source(a->backend_cert, b->backend_cert));
}

/* ---- checking ---- */

struct checking {
	const struct sl_conf_route *route;
	const struct sl_cert_check *check;
	struct sl_cert_findings *found;
	bool is_out_of_time; /* something is */
};

static bool begins_with(const char *text, const char *label)
{
	size_t n = strlen(label);

	return strncmp(text, label, n) == 0 && text[n] == ':';
}

/* The finding names the certificate's file; what is wrong may be in the other one. */
static const char *key_of(const struct sl_conf_route *route, const struct sl_cert_finding *f)
{
	const struct sl_conf_backend_tls *b = route->backend_tls;
	const struct sl_conf_tls *t = route->tls;

	if (t && f->source < t->n_certs && begins_with(f->text, t->certs[f->source].chain))
		return t->certs[f->source].key;
	return b && b->cert && begins_with(f->text, b->cert) ? b->key : NULL;
}

static void on_found(void *owner, const struct sl_cert_finding *f)
{
	struct checking *c = owner;
	bool is_fatal = sl_cert_finding_is_fatal(f->kind);
	struct sl_str *out = is_fatal ? &c->found->errors : &c->found->warnings;
	const char *key = NULL;

	if (f->kind == SL_CERT_NO_KEY || f->kind == SL_CERT_KEY_MISMATCH)
		key = key_of(c->route, f);
	if (f->kind == SL_CERT_EXPIRED || f->kind == SL_CERT_NOT_YET_VALID)
		c->is_out_of_time = true;
	sl_str_adds(out, f->text);
	if (key)
		sl_str_addf(out, " (key: %s)", key);
	if (f->kind == SL_CERT_NO_KEY && !key)
		sl_str_adds(out, " in it: name its file by `key`");
	else if (f->kind == SL_CERT_KEY_MISMATCH && c->check->in_use)
		sl_str_adds(out, ": both have to be replaced");
	else if (f->kind == SL_CERT_EXPIRED)
		sl_str_adds(out, ", and clients refuse it: renew it");
	else if (f->kind == SL_CERT_STAPLE)
		sl_str_addf(out, " (ocsp: %s)", c->route->tls->certs[f->source].staple);
	sl_str_addc(out, '\n');
}

static void on_time(void *owner, const struct sl_cert_finding *f)
{
	char *text = owner;

	if (!text[0] && (f->kind == SL_CERT_EXPIRED || f->kind == SL_CERT_NOT_YET_VALID))
		memcpy(text, f->text, sizeof(f->text));
}

/* "": it is valid. */
static void say_time(const struct sl_cert_source *source, int64_t now_s,
		     char ret[sizeof(((struct sl_cert_finding *)0)->text)])
{
	struct sl_cert_set *set = NULL;

	ret[0] = '\0';
	if (sl_cert_set_new(source, 1, now_s, on_time, ret, &set) == 0)
		sl_cert_set_unref(set);
}

static const struct sl_cert_source *find_source(const struct sl_cert_source *sources, size_t n,
						const char *label)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(sources[i].label, label) == 0)
			return &sources[i];
	return NULL;
}

/* One that is good would go for one that is not. */
static bool is_worse(const struct sl_cert_source *fresh, const struct sl_cert_source *in_use,
		     int64_t now_s, struct sl_str *why)
{
	char text[sizeof(((struct sl_cert_finding *)0)->text)];
	char old[sizeof(text)];

	if (!in_use)
		return false;
	say_time(fresh, now_s, text);
	say_time(in_use, now_s, old);
	if (!text[0] || old[0])
		return false;
	sl_str_addf(why, "%s, and the one in use is good\n", text);
	return true;
}

static bool is_any_worse(const struct sl_material *item, const struct sl_cert_check *check,
			 struct sl_str *why)
{
	const struct sl_material *old = check->in_use;
	bool is = false;

	for (size_t i = 0; i < item->n_certs; i++)
		is = is_worse(&item->certs[i],
			      find_source(old->certs, old->n_certs, item->certs[i].label),
			      check->now_s, why) ||
		     is;
	if (item->backend_cert && old->backend_cert)
		is = is_worse(item->backend_cert,
			      find_source(old->backend_cert, 1, item->backend_cert->label),
			      check->now_s, why) ||
		     is;
	return is;
}

static bool ends_with(const char *text, const char *end)
{
	size_t n = strlen(text);
	size_t len = strlen(end);

	return n >= len && strcmp(text + n - len, end) == 0;
}

/* Of a pattern with a wildcard: at least one of the names that it stands for. */
static bool is_named(const struct sl_cert_set *certs, const char *domain)
{
	size_t at[SL_CERT_KIND_COUNT_];

	if (!strchr(domain, '*'))
		return sl_cert_set_find(certs, domain, at);
	if (domain[0] != '*' || domain[1] != '.' || strchr(domain + 1, '*'))
		return true; /* who knows */
	for (size_t i = 0; i < sl_cert_set_count(certs); i++) {
		const struct sl_cert_facts *f = sl_cert_set_facts(certs, i);

		for (size_t k = 0; k < f->n_names; k++)
			if (ends_with(f->names[k], domain + 1))
				return true;
	}
	return false;
}

/* Clients that ask for such a name are given the default, and most refuse it. */
static void check_domains(const struct sl_conf_route *route, const struct sl_cert_set *certs,
			  struct sl_str *warnings)
{
	const char *first = NULL;
	size_t n = 0;

	for (size_t i = 0; i < route->n_domains; i++) {
		if (is_named(certs, route->domains[i]))
			continue;
		first = first ? first : route->domains[i];
		n++;
	}
	if (n == 0)
		return;
	sl_str_addf(warnings, "%s: no certificate is for %s", sl_cert_set_facts(certs, 0)->label,
		    first);
	if (n > 1)
		sl_str_addf(warnings, " and %zu more of the route's domains", n - 1);
	sl_str_adds(warnings, ": clients that ask for it are given this one\n");
}

int sl_cert_route_check(const struct sl_conf_route *route, const struct sl_material *item,
			const struct sl_cert_check *check, struct sl_cert_findings *found)
{
	_cleanup_(sl_str_done) struct sl_str why = { 0 };
	struct checking c = { .route = route, .check = check, .found = found };
	struct sl_material copy = *item;
	struct sl_materials one = { .item = &copy,
				    .n = 1,
				    .system_ca = check->system_ca,
				    .system_ca_len = check->system_ca_len };
	struct sl_secure *secure = NULL;
	int r = sl_secure_new(route, &one, NULL, check->now_s, on_found, &c, &why, &secure);

	if (r == 0 && secure->certs)
		check_domains(route, secure->certs, &found->warnings);
	sl_secure_unref(secure);
	sl_tls_trust_unref(one.system_trust);
	if (r == -ENOMEM)
		return r;
	if (r < 0) {
		if (why.len > 0)
			sl_str_addf(&found->errors, "%s\n", sl_str_text(&why));
		else if (found->errors.len == 0)
			sl_str_addf(&found->errors, "cannot be used: %s\n", strerror(-r));
		return -EINVAL;
	}
	if (c.is_out_of_time && check->in_use && is_any_worse(item, check, &found->errors))
		return -EINVAL;
	return 0;
}
