/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "proxy/secure.h"

#include <errno.h>
#include <string.h>

#include "base/siphash.h"

/* ---- what it is made of, in short ---- */

/* Nobody aims at these: the bytes are the operator's own. */
static const uint8_t digest_key[2][16] = { "one of the two", "and the other" };

struct digest {
	uint64_t half[2];
};

static void digest_add(struct digest *d, const void *bytes, size_t n)
{
	for (int i = 0; i < 2; i++) {
		const uint64_t both[2] = { d->half[i], sl_siphash(bytes, n, digest_key[i]) };

		d->half[i] = sl_siphash(both, sizeof(both), digest_key[i]);
	}
}

static void digest_text(struct digest *d, const char *text)
{
	digest_add(d, text ? text : "", text ? strlen(text) + 1 : 0);
}

static void digest_cert(struct digest *d, const struct sl_cert_source *c)
{
	digest_text(d, c->label);
	digest_add(d, c->chain, c->chain_len);
	digest_add(d, c->key, c->key_len);
	digest_add(d, c->staple, c->staple_len);
}

static void digest_conf(struct digest *d, const struct sl_conf_route *route)
{
	const struct sl_conf_backend_tls *b = route->backend_tls;
	const struct sl_conf_tls *t = route->tls;

	digest_text(d, route->name);
	if (t) {
		const uint32_t words[] = { t->client_auth, t->only_1_3 };

		digest_add(d, words, sizeof(words));
		digest_text(d, t->ciphers);
		digest_text(d, t->suites);
		for (size_t i = 0; i < t->n_alpn; i++)
			digest_text(d, t->alpn[i]);
	}
	if (b) {
		const uint32_t words[] = { b->verify };

		digest_add(d, words, sizeof(words));
		digest_text(d, b->server_name); /* of targets, which are kept with it */
	}
}

static uint64_t system_digest(struct sl_materials *all)
{
	if (all->system_digest == 0)
		all->system_digest =
			sl_siphash(all->system_ca, all->system_ca_len, digest_key[0]) | 1;
	return all->system_digest;
}

static struct digest digest_of(const struct sl_conf_route *route, const struct sl_material *m,
			       struct sl_materials *all)
{
	struct digest d = { { 0 } };

	digest_conf(&d, route);
	if (route->backend_tls && route->backend_tls->verify == SL_VERIFY_CHOICE_SYSTEM) {
		const uint64_t system = system_digest(all);

		digest_add(&d, &system, sizeof(system));
	}
	for (size_t i = 0; m && i < m->n_certs; i++)
		digest_cert(&d, &m->certs[i]);
	if (!m)
		return d;
	digest_add(&d, m->client_ca, m->client_ca_len);
	digest_add(&d, m->backend_ca, m->backend_ca_len);
	if (m->backend_cert)
		digest_cert(&d, m->backend_cert);
	digest_text(&d, m->problem);
	return d;
}

/* ---- making one ---- */

struct making {
	const struct sl_conf_route *route;
	const struct sl_material *material; /* NULL: there is none */
	struct sl_materials *all;
	int64_t now_s;
	sl_cert_found_fn found;
	void *owner;
	struct sl_str *why;
};

static enum sl_tls_client_auth auth_of(const struct sl_conf_tls *t)
{
	switch (t->client_auth) {
	case SL_CLIENT_AUTH_CHOICE_OPTIONAL:
		return SL_TLS_CLIENT_AUTH_OPTIONAL;
	case SL_CLIENT_AUTH_CHOICE_REQUIRED:
		return SL_TLS_CLIENT_AUTH_REQUIRED;
	case SL_CLIENT_AUTH_CHOICE_NONE:
		break;
	}
	return SL_TLS_CLIENT_AUTH_NONE;
}

static int make_server(const struct making *m, struct sl_secure *s)
{
	const struct sl_conf_tls *t = m->route->tls;
	struct sl_tls_server_conf conf;
	int r;

	if (!m->material || m->material->n_certs == 0) {
		sl_str_adds(m->why, "there is no certificate");
		return -ENOENT;
	}
	conf = (struct sl_tls_server_conf){
		.min_version = t->only_1_3 ? SL_TLS_MIN_1_3 : SL_TLS_MIN_1_2,
		.ciphers = t->ciphers,
		.suites = t->suites,
		.alpn = (const char *const *)t->alpn,
		.n_alpn = t->n_alpn,
		.client_auth = auth_of(t),
		.client_ca = m->material->client_ca,
		.client_ca_len = m->material->client_ca_len,
		.client_ca_label = t->client_ca,
		.scope = m->route->name,
	};
	r = sl_cert_set_new(m->material->certs, m->material->n_certs, m->now_s, m->found, m->owner,
			    &s->certs);
	return r < 0 ? r : sl_tls_server_new(&conf, m->why, &s->server);
}

static int read_trust(const struct making *m, const char *what, const void *pem, size_t n,
		      struct sl_tls_trust **ret)
{
	int r = sl_tls_trust_new(pem, n, ret);

	if (r < 0)
		sl_str_addf(m->why, "%s: %s", what,
			    r == -ENOENT    ? "there is no certificate in it"
			    : r == -EBADMSG ? "a certificate in it cannot be read"
			    : r == -E2BIG   ? "there are too many certificates in it"
					    : strerror(-r));
	return r;
}

/* Those of the system are read once for all routes. */
static int make_trust(const struct making *m, struct sl_tls_trust **ret)
{
	struct sl_materials *all = m->all;
	int r = 0;

	if (m->route->backend_tls->verify == SL_VERIFY_CHOICE_FILE)
		return read_trust(m, m->route->backend_tls->ca, m->material->backend_ca,
				  m->material->backend_ca_len, ret);
	if (!all->system_trust)
		r = read_trust(m, "the system's authorities", all->system_ca, all->system_ca_len,
			       &all->system_trust);
	if (r == 0)
		*ret = sl_tls_trust_ref(all->system_trust);
	return r;
}

static int make_backend(const struct making *m, struct sl_secure *s)
{
	_cleanup_(sl_tls_trust_unrefp) struct sl_tls_trust *trust = NULL;
	struct sl_tls_backend_conf conf = { .min_version = SL_TLS_MIN_1_2 };
	bool verifies = m->route->backend_tls->verify != SL_VERIFY_CHOICE_NONE;
	bool needs_files = m->route->backend_tls->verify == SL_VERIFY_CHOICE_FILE ||
			   m->route->backend_tls->cert;
	int r = 0;

	if (!m->material && needs_files) {
		sl_str_adds(m->why, "its files have not been read");
		return -ENOENT;
	}
	if (verifies)
		r = make_trust(m, &trust);
	if (r == 0 && m->material && m->material->backend_cert)
		r = sl_cert_set_new(m->material->backend_cert, 1, m->now_s, m->found, m->owner,
				    &s->backend_cert);
	conf.trust = trust;
	conf.cert = s->backend_cert;
	return r < 0 ? r : sl_tls_backend_new(&conf, m->why, &s->backend);
}

int sl_secure_new(const struct sl_conf_route *route, struct sl_materials *all,
		  struct sl_secure *before, int64_t now_s, sl_cert_found_fn found, void *owner,
		  struct sl_str *why, struct sl_secure **ret)
{
	_cleanup_(sl_secure_unrefp) struct sl_secure *s = NULL;
	const struct making m = { .route = route,
				  .material = sl_materials_find(all, route->name),
				  .all = all,
				  .now_s = now_s,
				  .found = found,
				  .owner = owner,
				  .why = why };
	const struct digest digest = digest_of(route, m.material, all);
	int r = 0;

	if (before && memcmp(before->digest, digest.half, sizeof(digest.half)) == 0) {
		*ret = sl_secure_ref(before);
		return 0;
	}
	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->refs = 1;
	memcpy(s->digest, digest.half, sizeof(digest.half));
	s->route = strdup(route->name);
	if (!s->route)
		return -ENOMEM;
	if (m.material && m.material->problem[0]) {
		s->problem = strdup(m.material->problem);
		r = s->problem ? 0 : -ENOMEM;
	}
	if (r == 0 && route->tls)
		r = make_server(&m, s);
	if (r == 0 && route->backend_tls)
		r = make_backend(&m, s);
	if (r < 0)
		return r;
	*ret = SL_TAKE_PTR(s);
	return 0;
}

struct sl_secure *sl_secure_ref(struct sl_secure *s)
{
	__atomic_add_fetch(&s->refs, 1, __ATOMIC_RELAXED);
	return s;
}

void sl_secure_unref(struct sl_secure *s)
{
	if (!s || __atomic_sub_fetch(&s->refs, 1, __ATOMIC_ACQ_REL) != 0)
		return;
	sl_tls_server_unref(s->server);
	sl_cert_set_unref(s->certs);
	sl_tls_backend_unref(s->backend);
	sl_cert_set_unref(s->backend_cert);
	free(s->problem);
	free(s->route);
	free(s);
}

/* ---- where it is found ---- */

int sl_secure_box_new(struct sl_secure_box **ret)
{
	struct sl_secure_box *box = calloc(1, sizeof(*box));

	if (!box)
		return -ENOMEM;
	box->refs = 1;
	(void)pthread_mutex_init(&box->lock, NULL);
	*ret = box;
	return 0;
}

struct sl_secure_box *sl_secure_box_ref(struct sl_secure_box *box)
{
	__atomic_add_fetch(&box->refs, 1, __ATOMIC_RELAXED);
	return box;
}

void sl_secure_box_unref(struct sl_secure_box *box)
{
	if (!box || __atomic_sub_fetch(&box->refs, 1, __ATOMIC_ACQ_REL) != 0)
		return;
	sl_secure_unref(box->now);
	(void)pthread_mutex_destroy(&box->lock);
	free(box);
}

struct sl_secure *sl_secure_box_get(struct sl_secure_box *box)
{
	struct sl_secure *s;

	(void)pthread_mutex_lock(&box->lock);
	s = box->now ? sl_secure_ref(box->now) : NULL;
	(void)pthread_mutex_unlock(&box->lock);
	return s;
}

void sl_secure_box_set(struct sl_secure_box *box, struct sl_secure *fresh)
{
	struct sl_secure *old;

	(void)pthread_mutex_lock(&box->lock);
	old = box->now;
	box->now = fresh;
	(void)pthread_mutex_unlock(&box->lock);
	sl_secure_unref(old);
}
