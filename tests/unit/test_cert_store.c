/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The supervisor's store of certificates: what of a configuration is read, what is refused with
 * which words, and that the last good files of a route stay whatever lies there now.
 */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memfd.h"
#include "conf_text.h"
#include "daemon/cert_store.h"
#include "tls/material.h"
#include "tls_pki.h"

#define T0 1800000000 /* no clock is read */

static char dir[] = "/tmp/sluice-certs.XXXXXX";

struct pki {
	struct ident ca;
	struct ident a;     /* a.example */
	struct ident again; /* a.example, renewed */
	struct ident old;   /* a.example, expired */
	struct ident early; /* a.example, not valid yet */
	struct ident b;     /* b.example, rsa */
};
static struct pki pki;

static int set_up(void **state)
{
	long from_t0 = (long)(T0 - time(NULL));
	long day = from_t0 + DAY;

	(void)state;
	pki.ca = make_ident((struct wish){ .cn = "authority", .is_ca = true, .to_s = 10 * day });
	pki.a = make_ident((struct wish){ .cn = "a", .names = "DNS:a.example", .to_s = day });
	pki.again = make_ident((struct wish){ .cn = "a2", .names = "DNS:a.example", .to_s = day });
	pki.old = make_ident(
		(struct wish){ .cn = "old", .names = "DNS:a.example", .to_s = from_t0 - DAY });
	pki.early = make_ident((struct wish){ .cn = "early",
					      .names = "DNS:a.example",

					      .from_s = day,
					      .to_s = day + DAY });
	pki.b = make_ident((struct wish){ .cn = "b",
					  .names = "DNS:b.example",

					  .to_s = day,
					  .kind = "rsa" });
	return mkdtemp(dir) && chdir(dir) == 0 ? 0 : -1;
}

static int tear_down(void **state)
{
	char command[64];

	(void)state;
	drop_ident(&pki.ca);
	drop_ident(&pki.a);
	drop_ident(&pki.again);
	drop_ident(&pki.old);
	drop_ident(&pki.early);
	drop_ident(&pki.b);
	(void)snprintf(command, sizeof(command), "rm -r %s", dir);
	return system(command);
}

/* By a rename, as whoever means it well does. */
static void put(const char *name, const char *text, mode_t mode)
{
	int fd = open("new", O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(sl_write_all(fd, text, strlen(text)), 0);
	assert_int_equal(fchmod(fd, mode), 0);
	assert_int_equal(close(fd), 0);
	assert_int_equal(rename("new", name), 0);
}

static void put_ident(const char *name, const struct ident *id)
{
	char path[64];

	(void)snprintf(path, sizeof(path), "%s.pem", name);
	put(path, id->pem, 0644);
	(void)snprintf(path, sizeof(path), "%s.key", name);
	put(path, id->key_pem, 0600);
}

/* Routes by their lines; "@" is the directory. */
static struct built conf_of(const char *routes)
{
	struct sl_str text = { 0 };
	struct built b;

	sl_str_adds(&text, "version: 1\nroutes:\n");
	for (const char *p = routes; *p; p++) {
		if (*p == '@')
			sl_str_adds(&text, dir);
		else
			sl_str_addc(&text, *p);
	}
	b = build_text(text.p);
	if (b.r < 0)
		fail_msg("%s", sl_str_text(&b.diags.text));
	sl_str_done(&text);
	return b;
}

#define WEB "  - { name: web, match: { ports: 443 }, forward: h:1, tls: "
#define WEB_A WEB "{ cert: \"@/a.pem\", key: \"@/a.key\" } }\n"
#define API "  - { name: api, match: { ports: 444 }, forward: h:1, tls: "
#define API_B API "{ cert: \"@/b.pem\", key: \"@/b.key\" } }\n"

static struct sl_conf_source source = { .name = (char *)"a.yaml",
					.text = (char *)"1\n2\nthe third line\n",
					.len = 19 };
static const struct sl_conf_sources sources = { &source, 1 };

static int read_ask(struct sl_cert_ask ask, struct sl_cert_store **ret, struct sl_diags *diags)
{
	ask.sources = &sources;
	ask.now_s = T0;
	return sl_cert_store_read(&ask, ret, diags);
}

static struct sl_cert_store *read_good(const struct sl_conf *conf)
{
	_cleanup_(sl_diags_done) struct sl_diags diags = { 0 };
	struct sl_cert_store *store = NULL;

	if (read_ask((struct sl_cert_ask){ .conf = conf }, &store, &diags) < 0)
		fail_msg("%s", sl_str_text(&diags.text));
	assert_non_null(store);
	assert_int_equal(diags.text.len, 0);
	return store;
}

static void expect_bad(const struct sl_cert_ask *ask, const char *words)
{
	_cleanup_(sl_diags_done) struct sl_diags diags = { 0 };
	struct sl_cert_store *store = NULL;

	assert_int_equal(read_ask(*ask, &store, &diags), -EINVAL);
	assert_null(store);
	assert_true(diags.n_errors > 0);
	if (!strstr(sl_str_text(&diags.text), words))
		fail_msg("'%s' is not in: %s", words, sl_str_text(&diags.text));
}

static void expect_bad_conf(const struct sl_conf *conf, const char *words)
{
	expect_bad(&(struct sl_cert_ask){ .conf = conf }, words);
}

/* What the proxy would be sent. */
static struct sl_materials block_of(const struct sl_cert_store *store)
{
	struct sl_materials m = { 0 };
	char *block = NULL;
	size_t n = 0;

	assert_int_equal(sl_memfd_read(store->fd, SL_MATERIALS_MAX, &block, &n), 0);
	assert_int_equal(sl_materials_unpack(block, n, &m), 0);
	return m;
}

static void expect_item(const struct sl_cert_store *store, const char *route,
			const struct ident *id, const char *problem)
{
	struct sl_materials m = block_of(store);
	const struct sl_material *item = sl_materials_find(&m, route);

	assert_non_null(item);
	assert_int_equal(item->n_certs, 1);
	assert_string_equal(item->certs[0].chain, id->pem);
	assert_string_equal(item->certs[0].key, id->key_pem);
	if (!problem[0])
		assert_string_equal(item->problem, "");
	if (!strstr(item->problem, problem))
		fail_msg("'%s' is not in: %s", problem, item->problem);
	sl_materials_done(&m);
}

struct looked {
	struct sl_cert_news news;
};

static void looked_done(struct looked *l)
{
	sl_cert_news_done(&l->news);
}

static struct looked look_at(struct sl_cert_store *store, const struct sl_conf *conf, int64_t now_s,
			     enum sl_cert_look which)
{
	struct looked l = { 0 };

	assert_int_equal(sl_cert_store_look(store, conf, now_s, which, &l.news), 0);
	return l;
}

/* looked, replaced, bad, whether the block is another. */
static void expect_look(struct sl_cert_store *store, const struct sl_conf *conf,
			enum sl_cert_look which, size_t looked, size_t replaced, size_t bad,
			bool is_changed, const char *words)
{
	_cleanup_(looked_done) struct looked l = look_at(store, conf, T0, which);
	const char *text = sl_str_text(&l.news.text);

	if (l.news.n_looked != looked || l.news.n_replaced != replaced || l.news.n_bad != bad ||
	    l.news.is_changed != is_changed)
		fail_msg("%zu looked at, %zu replaced, %zu bad, changed %d: %s", l.news.n_looked,
			 l.news.n_replaced, l.news.n_bad, l.news.is_changed, text);
	if (!words[0])
		assert_string_equal(text, "");
	if (!strstr(text, words))
		fail_msg("'%s' is not in: %s", words, text);
}

/* ---- reading ---- */

static void test_nothing_needed(void **state)
{
	_cleanup_(built_done) struct built b =
		conf_of("  - { name: web, match: { ports: 443 }, forward: h:1 }\n"
			"  - { name: off, enabled: false, match: { ports: 444 }, forward: h:1,\n"
			"      tls: { cert: /none.pem, key: /none.key } }\n");
	_cleanup_(sl_diags_done) struct sl_diags diags = { 0 };
	struct sl_cert_store *store = NULL;

	(void)state;
	assert_int_equal(read_ask((struct sl_cert_ask){ .conf = b.conf }, &store, &diags), 0);
	assert_null(store);
	assert_false(sl_cert_store_has_keys(b.conf));
	assert_false(sl_cert_store_has_servers(b.conf));
}

static void test_read(void **state)
{
	_cleanup_(built_done) struct built b =
		conf_of(WEB_A API_B
			"  - name: re\n    match: { ports: 445 }\n    forward:\n"
			"      targets: [{ address: h:1 }]\n"
			"      tls: { verify: \"@/ca.pem\", cert: \"@/b.pem\", key: \"@/b.key\" }\n"
			"  - { name: ask, match: { ports: 446 }, forward: h:1,\n"
			"      tls: { cert: \"@/both.pem\", client_ca: \"@/ca.pem\" } }\n");
	struct sl_cert_store *store;
	struct sl_materials m;
	const struct sl_material *item;
	struct sl_str both = { 0 };

	(void)state;
	put_ident("a", &pki.a);
	put_ident("b", &pki.b);
	put("ca.pem", pki.ca.pem, 0644);
	sl_str_addf(&both, "%s%s", pki.a.pem, pki.a.key_pem);
	put("both.pem", both.p, 0600);
	store = read_good(b.conf);
	assert_int_equal(store->n, 4);
	assert_true(sl_cert_store_has_keys(b.conf) && sl_cert_store_has_servers(b.conf));
	expect_item(store, "web", &pki.a, "");
	expect_item(store, "api", &pki.b, "");
	m = block_of(store);
	assert_int_equal(m.n, 4);
	item = sl_materials_find(&m, "re");
	assert_int_equal(item->n_certs, 0);
	assert_string_equal(item->backend_ca, pki.ca.pem);
	assert_string_equal(item->backend_cert->chain, pki.b.pem);
	assert_string_equal(item->backend_cert->key, pki.b.key_pem);
	item = sl_materials_find(&m, "ask");
	assert_string_equal(item->certs[0].chain, both.p);
	assert_null(item->certs[0].key);
	assert_string_equal(item->client_ca, pki.ca.pem);
	assert_null(m.system_ca);
	sl_materials_done(&m);
	sl_cert_store_free(store);
	/* the key is in it, so others may not read that one */
	assert_int_equal(chmod("both.pem", 0644), 0);
	expect_bad_conf(b.conf,
			"both.pem: holds a private key, and others may read it (mode 0644)");
	assert_int_equal(chmod("both.pem", 0640), 0);
	sl_cert_store_free(read_good(b.conf));
	sl_str_done(&both);
}

static void test_refused(void **state)
{
	_cleanup_(built_done) struct built b = conf_of(WEB_A API_B);
	_cleanup_(built_done) struct built staple =
		conf_of(WEB "{ cert: \"@/a.pem\", key: \"@/a.key\", ocsp: \"@/a.ocsp\" } }\n");
	_cleanup_(built_done) struct built ca =
		conf_of(WEB "{ cert: \"@/a.pem\", key: \"@/a.key\", client_ca: \"@/no.pem\" } }\n");
	_cleanup_(built_done) struct built forgotten = conf_of(WEB "{ cert: \"@/a.pem\" } }\n");
	_cleanup_(sl_diags_done) struct sl_diags diags = { 0 };
	struct sl_cert_store *store = NULL;

	(void)state;
	put_ident("a", &pki.a);
	put_ident("b", &pki.b);
	expect_bad_conf(forgotten.conf,
			"a.pem: there is no private key in it: name its file by `key`");
	put("a.key", pki.again.key_pem, 0600);
	expect_bad_conf(b.conf, "a.yaml:3:");
	expect_bad_conf(b.conf, ": error: route 'web': ");
	expect_bad_conf(b.conf, "\n    3 | the third line\n      | "); /* and a caret */
	expect_bad_conf(b.conf, "^\n");
	expect_bad_conf(b.conf, "a.pem: the key does not belong to the certificate (key: ");
	put("a.key", pki.a.pem, 0600);
	expect_bad_conf(b.conf, "a.pem: there is no private key, but a certificate (key: ");
	put("a.key", pki.a.key_pem, 0604);
	expect_bad_conf(b.conf, "a.key: holds a private key");
	put("a.key", pki.a.key_pem, 0600);
	put("a.pem", "nothing", 0644);
	expect_bad_conf(b.conf, "a.pem: there is no certificate in it");
	/* all that is wrong is said at once */
	assert_int_equal(unlink("b.pem"), 0);
	expect_bad_conf(b.conf, "a.pem: there is no certificate in it");
	expect_bad_conf(b.conf, "b.pem: there is no such file");
	put_ident("a", &pki.a);
	expect_bad_conf(ca.conf, "no.pem: there is no such file");
	put("no.pem", "nothing", 0644);
	expect_bad_conf(ca.conf, ": error: route 'web': ");
	expect_bad_conf(ca.conf, "no.pem: there is no certificate in it");
	/* without the response clients are served all the same */
	put("a.ocsp", "nothing", 0644);
	assert_int_equal(read_ask((struct sl_cert_ask){ .conf = staple.conf }, &store, &diags), 0);
	assert_non_null(strstr(sl_str_text(&diags.text), ": warning: route 'web': "));
	assert_non_null(strstr(sl_str_text(&diags.text), "cannot be read (ocsp: "));
	assert_non_null(strstr(sl_str_text(&diags.text), "/a.ocsp)"));
	assert_int_equal(diags.n_warnings > 0 && diags.n_errors == 0, 1);
	sl_cert_store_free(store);
}

/* A route takes clients for names that its certificates do not have. */
static void test_domains(void **state)
{
#define FOR(domains)                                               \
	"  - { name: web, match: { ports: 443, domains: [" domains \
	"] }, forward: h:1, tls: { cert: \"@/a.pem\", key: \"@/a.key\" } }\n"
	static const struct {
		const char *routes;
		const char *words; /* NULL: nothing is said */
	} cases[] = {
		{ FOR("a.example, \"*.example\", \"a*.org\""), NULL },
		{ FOR("a.example, www.a.example"), "a.pem: no certificate is for www.a.example: " },
		{ FOR("\"*.a.example\", b.example, c.example, a.example"),
		  "a.pem: no certificate is for *.a.example and 2 more of the route's domains: " },
	};

	(void)state;
	put_ident("a", &pki.a);
	for (size_t i = 0; i < SL_ARRAY_LEN(cases); i++) {
		_cleanup_(built_done) struct built b = conf_of(cases[i].routes);
		_cleanup_(sl_diags_done) struct sl_diags diags = { 0 };
		struct sl_cert_store *store = NULL;

		assert_int_equal(read_ask((struct sl_cert_ask){ .conf = b.conf }, &store, &diags),
				 0);
		assert_int_equal(diags.n_warnings, cases[i].words ? 1 : 0);
		if (cases[i].words)
			assert_non_null(strstr(sl_str_text(&diags.text), cases[i].words));
		sl_cert_store_free(store);
	}
#undef FOR
}

/* Better than none at all; but a reload does not exchange a good one for it. */
static void test_expired(void **state)
{
	_cleanup_(built_done) struct built b = conf_of(WEB_A);
	_cleanup_(sl_diags_done) struct sl_diags diags = { 0 };
	struct sl_cert_store *store = NULL;
	struct sl_cert_store *next = NULL;

	(void)state;
	put_ident("a", &pki.old);
	assert_int_equal(read_ask((struct sl_cert_ask){ .conf = b.conf }, &store, &diags), 0);
	assert_non_null(strstr(sl_str_text(&diags.text), ": warning: route 'web': "));
	assert_non_null(strstr(sl_str_text(&diags.text), "a.pem: the certificate expired at "));
	/* one that is expired may go for another such */
	expect_look(store, b.conf, SL_CERT_LOOK_ALL, 1, 0, 0, false, "");
	put_ident("a", &pki.early);
	expect_look(store, b.conf, SL_CERT_LOOK_CHANGED, 1, 1, 0, true, "warning: route 'web': ");
	sl_cert_store_free(store);
	put_ident("a", &pki.a);
	store = read_good(b.conf);
	put_ident("a", &pki.old);
	expect_bad(&(struct sl_cert_ask){ .conf = b.conf, .before = store },
		   "a.pem: the certificate expired at ");
	put_ident("a", &pki.early);
	expect_bad(&(struct sl_cert_ask){ .conf = b.conf, .before = store },
		   "a.pem: the certificate is not valid before ");
	put_ident("a", &pki.again);
	assert_int_equal(
		read_ask((struct sl_cert_ask){ .conf = b.conf, .before = store }, &next, &diags),
		0);
	expect_item(next, "web", &pki.again, "");
	assert_false(next->is_same);
	sl_cert_store_free(next);
	sl_cert_store_free(store);
}

/* A change reads what it is about, and nothing else. */
static void test_change(void **state)
{
	_cleanup_(built_done) struct built b = conf_of(WEB_A);
	_cleanup_(built_done) struct built more = conf_of(WEB_A API_B);
	_cleanup_(built_done) struct built other =
		conf_of(WEB "{ cert: \"@/a.pem\", key: \"@/a.key\", min_version: \"1.3\" } }\n");
	_cleanup_(sl_diags_done) struct sl_diags diags = { 0 };
	struct sl_cert_store *store;
	struct sl_cert_store *next = NULL;
	struct sl_cert_ask ask = { .conf = more.conf, .conf_before = b.conf };

	(void)state;
	put_ident("a", &pki.a);
	put_ident("b", &pki.b);
	store = read_good(b.conf);
	put("a.pem", "nothing", 0644);
	ask.before = store;
	assert_int_equal(read_ask(ask, &next, &diags), 0);
	assert_int_equal(diags.text.len, 0);
	assert_false(next->is_same);
	expect_item(next, "web", &pki.a, "");
	expect_item(next, "api", &pki.b, "");
	/* what has not been looked at since is still to be found */
	expect_look(next, more.conf, SL_CERT_LOOK_CHANGED, 1, 0, 1, true,
		    "there is no certificate in it; the last good one stays in use");
	sl_cert_store_free(next);
	next = NULL;
	ask.conf = b.conf;
	assert_int_equal(read_ask(ask, &next, &diags), 0);
	assert_true(next->is_same);
	expect_item(next, "web", &pki.a, "");
	sl_cert_store_free(next);
	next = NULL;
	ask.conf = other.conf;
	expect_bad(&ask, "a.pem: there is no certificate in it");
	/* a reload reads all of it */
	ask.conf = b.conf;
	ask.conf_before = NULL;
	expect_bad(&ask, "a.pem: there is no certificate in it");
	put("a.pem", pki.a.pem, 0644);
	assert_int_equal(read_ask(ask, &next, &diags), 0);
	assert_true(next->is_same);
	sl_cert_store_free(next);
	sl_cert_store_free(store);
}

static void test_system(void **state)
{
	_cleanup_(built_done) struct built b =
		conf_of("  - { name: re, match: { ports: 445 }, forward: { targets: [{ address: "
			"h.example:1 }], tls: {} } }\n");
	struct sl_cert_store *store;
	struct sl_materials m;

	(void)state;
	if (access("/etc/ssl/certs/ca-certificates.crt", R_OK) < 0)
		skip();
	store = read_good(b.conf);
	assert_string_equal(store->system.path, "/etc/ssl/certs/ca-certificates.crt");
	m = block_of(store);
	assert_non_null(strstr(m.system_ca, "-----BEGIN CERTIFICATE-----"));
	sl_materials_done(&m);
	expect_look(store, b.conf, SL_CERT_LOOK_ALL, 1, 0, 0, false, "");
	sl_cert_store_free(store);
}

/* Not root: what cannot be read is no error of a check, but of a start. */
static void test_check_without_rights(void **state)
{
	_cleanup_(built_done) struct built b = conf_of(WEB_A);
	_cleanup_(sl_diags_done) struct sl_diags diags = { 0 };
	struct sl_cert_store *store = NULL;
	struct sl_cert_ask ask = { .conf = b.conf, .is_check = true };

	(void)state;
	put_ident("a", &pki.a);
	assert_int_equal(chmod(dir, 0755), 0);
	if (geteuid() == 0)
		assert_int_equal(seteuid(65534), 0);
	else
		assert_int_equal(chmod("a.key", 0), 0);
	assert_int_equal(read_ask(ask, &store, &diags), 0);
	assert_null(store);
	assert_int_equal(diags.n_warnings, 1);
	assert_non_null(strstr(sl_str_text(&diags.text), "warning: route 'web': "));
	assert_non_null(strstr(sl_str_text(&diags.text),
			       "a.key: no permission to read it: it cannot be checked without"));
	ask.is_check = false;
	expect_bad(&ask, "a.key: no permission to read it");
	if (getuid() == 0)
		assert_int_equal(seteuid(0), 0);
}

/* ---- looking again ---- */

static void test_replaced(void **state)
{
	_cleanup_(built_done) struct built b = conf_of(WEB_A API_B);
	struct sl_cert_store *store;

	(void)state;
	put_ident("a", &pki.a);
	put_ident("b", &pki.b);
	store = read_good(b.conf);
	expect_look(store, b.conf, SL_CERT_LOOK_CHANGED, 0, 0, 0, false, "");
	/* the same bytes in another file are no news */
	put_ident("a", &pki.a);
	expect_look(store, b.conf, SL_CERT_LOOK_CHANGED, 1, 0, 0, false, "");
	put_ident("a", &pki.again);
	expect_look(store, b.conf, SL_CERT_LOOK_CHANGED, 1, 1, 0, true,
		    "route 'web': new certificates are in use");
	expect_item(store, "web", &pki.again, "");
	expect_item(store, "api", &pki.b, "");
	expect_look(store, b.conf, SL_CERT_LOOK_CHANGED, 0, 0, 0, false, "");
	expect_look(store, b.conf, SL_CERT_LOOK_ALL, 2, 0, 0, false, "");
	sl_cert_store_free(store);
}

static void test_last_good_stays(void **state)
{
	_cleanup_(built_done) struct built b = conf_of(WEB_A API_B);
	struct sl_cert_store *store;

	(void)state;
	put_ident("a", &pki.a);
	put_ident("b", &pki.b);
	store = read_good(b.conf);
	put("a.pem", pki.again.pem, 0644); /* half of a replacement */
	expect_look(store, b.conf, SL_CERT_LOOK_CHANGED, 1, 0, 1, true, "error: route 'web': ");
	expect_item(store, "web", &pki.a, "a.pem: the key does not belong to the certificate");
	expect_item(store, "api", &pki.b, "");
	/* told once */
	expect_look(store, b.conf, SL_CERT_LOOK_CHANGED, 0, 0, 0, false, "");
	expect_look(store, b.conf, SL_CERT_LOOK_PROBLEMS, 1, 0, 1, false, "");
	/* but when asked for */
	expect_look(store, b.conf, SL_CERT_LOOK_ALL, 2, 0, 1, false,
		    "; the last good one stays in use");
	put("a.key", pki.again.key_pem, 0644);
	expect_look(store, b.conf, SL_CERT_LOOK_CHANGED, 1, 0, 1, true, "others may read it");
	expect_item(store, "web", &pki.a, "a.key: holds a private key");
	assert_int_equal(unlink("a.key"), 0);
	expect_look(store, b.conf, SL_CERT_LOOK_CHANGED, 1, 0, 1, true, "there is no such file");
	expect_item(store, "web", &pki.a, "a.key: there is no such file");
	put("a.key", pki.again.key_pem, 0600);
	expect_look(store, b.conf, SL_CERT_LOOK_CHANGED, 1, 1, 0, true, "new certificates");
	expect_item(store, "web", &pki.again, "");
	/* back to what is in use: the problem goes, and nothing is replaced */
	put("a.pem", "nothing", 0644);
	expect_look(store, b.conf, SL_CERT_LOOK_CHANGED, 1, 0, 1, true, "no certificate in it");
	put("a.pem", pki.again.pem, 0644);
	expect_look(store, b.conf, SL_CERT_LOOK_CHANGED, 1, 0, 0, true, "in use again");
	expect_item(store, "web", &pki.again, "");
	sl_cert_store_free(store);
}

/* An expired one is not taken while that in use is good; when that is over it is no worse. */
static void test_expired_later(void **state)
{
	_cleanup_(built_done) struct built b = conf_of(WEB_A);
	struct sl_cert_store *store;
	struct looked l;

	(void)state;
	put_ident("a", &pki.a);
	store = read_good(b.conf);
	put_ident("a", &pki.old);
	expect_look(store, b.conf, SL_CERT_LOOK_CHANGED, 1, 0, 1, true,
		    "a.pem: the certificate expired at ");
	expect_item(store, "web", &pki.a, "a.pem: the certificate expired at ");
	l = look_at(store, b.conf, T0 + 20 * DAY, SL_CERT_LOOK_PROBLEMS);
	assert_int_equal(l.news.n_replaced, 1);
	looked_done(&l);
	expect_item(store, "web", &pki.old, "");
	/* one that is not valid yet is taken when it is */
	put_ident("a", &pki.a);
	expect_look(store, b.conf, SL_CERT_LOOK_CHANGED, 1, 1, 0, true, "new certificates");
	put_ident("a", &pki.early);
	expect_look(store, b.conf, SL_CERT_LOOK_CHANGED, 1, 0, 1, true, "is not valid before");
	l = look_at(store, b.conf, T0 + DAY + 3600, SL_CERT_LOOK_PROBLEMS);
	assert_int_equal(l.news.n_replaced, 1);
	looked_done(&l);
	expect_item(store, "web", &pki.early, "");
	sl_cert_store_free(store);
}

/* After an exec nothing is known of the files, but the block is there. */
static void test_adopted(void **state)
{
	_cleanup_(built_done) struct built b = conf_of(WEB_A API_B);
	struct sl_cert_store *store;
	struct sl_cert_store *next = NULL;

	(void)state;
	put_ident("a", &pki.a);
	put_ident("b", &pki.b);
	store = read_good(b.conf);
	put("b.pem", "nothing", 0644);
	expect_look(store, b.conf, SL_CERT_LOOK_CHANGED, 1, 0, 1, true, "no certificate in it");
	assert_int_equal(sl_cert_store_adopt(b.conf, fcntl(store->fd, F_DUPFD_CLOEXEC, 3), &next),
			 0);
	sl_cert_store_free(store);
	expect_item(next, "web", &pki.a, "");
	expect_look(next, b.conf, SL_CERT_LOOK_CHANGED, 2, 0, 1, false, "no certificate in it");
	expect_item(next, "api", &pki.b, "no certificate in it");
	put_ident("a", &pki.again);
	expect_look(next, b.conf, SL_CERT_LOOK_CHANGED, 1, 1, 0, true, "new certificates");
	expect_item(next, "web", &pki.again, "");
	sl_cert_store_free(next);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nothing_needed), cmocka_unit_test(test_read),
		cmocka_unit_test(test_refused),        cmocka_unit_test(test_domains),
		cmocka_unit_test(test_expired),        cmocka_unit_test(test_change),
		cmocka_unit_test(test_system),         cmocka_unit_test(test_check_without_rights),
		cmocka_unit_test(test_replaced),       cmocka_unit_test(test_last_good_stays),
		cmocka_unit_test(test_expired_later),  cmocka_unit_test(test_adopted),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
