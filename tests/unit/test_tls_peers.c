/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Who may speak with whom: names, authorities, client certificates, protocols, sessions. */
#include "tls_pair.h"

#include <pthread.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "daemon/sandbox.h"

/* Looks under the cover, to play peers that no library would be. */
#include "tls/stream_ssl.h"

static struct ident root, middle, ec, rsa, wild, client, stranger, expired_client;
static struct sl_cert_set *certs;
static struct sl_tls_trust *trust;

static int set_up(void **state)
{
	struct sl_cert_source s[3];

	(void)state;
	assert_int_equal(sl_tls_init(), 0);
	root = make_ident((struct wish){ .cn = "root", .is_ca = true });
	middle = make_ident((struct wish){ .cn = "middle", .is_ca = true, .issuer = &root });
	ec = make_ident((struct wish){
		.cn = "ec", .names = "DNS:x.example,IP:10.0.0.1", .issuer = &middle });
	rsa = make_ident((struct wish){
		.cn = "rsa", .names = "DNS:x.example", .issuer = &middle, .kind = "rsa" });
	wild = make_ident(
		(struct wish){ .cn = "wild", .names = "DNS:*.w.example", .issuer = &middle });
	client = make_ident(
		(struct wish){ .cn = "client \"one\"", .issuer = &root, .usage = "clientAuth" });
	expired_client = make_ident((struct wish){ .cn = "old",
						   .issuer = &root,
						   .usage = "clientAuth",
						   .from_s = -2 * DAY,
						   .to_s = -DAY });
	stranger = make_ident((struct wish){ .cn = "stranger", .names = "DNS:x.example" });
	append_pem(&ec, &middle);
	append_pem(&rsa, &middle);
	append_pem(&wild, &middle);
	s[0] = source_of("ec", &ec);
	s[1] = source_of("rsa", &rsa);
	s[2] = source_of("wild", &wild);
	certs = set_of(s, 3);
	assert_int_equal(sl_tls_trust_new(root.pem, strlen(root.pem), &trust), 0);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	sl_cert_set_unref(certs);
	sl_tls_trust_unref(trust);
	drop_ident(&root);
	drop_ident(&middle);
	drop_ident(&ec);
	drop_ident(&rsa);
	drop_ident(&wild);
	drop_ident(&client);
	drop_ident(&expired_client);
	drop_ident(&stranger);
	return 0;
}

/* One meeting of both; what came of it is left in the pair. */
static void meet(struct pair *p, const struct sl_tls_server_conf *sc, struct sl_cert_set *set,
		 const struct sl_tls_backend_conf *bc, const char *name, int *ret_c, int *ret_s)
{
	struct sl_tls_server *server = server_of(sc);
	struct sl_tls_backend *backend = backend_of(bc);
	struct sl_tls_target *target = target_of(backend, name);

	open_pair(p, server, set, NULL, target, 0);
	shake(p, ret_c, ret_s);
	sl_tls_target_unref(target); /* streams hold what they need */
	sl_tls_backend_unref(backend);
	sl_tls_server_unref(server);
}

static void refused_certificates_are_told_in_words(void **state)
{
	struct ident old = make_ident((struct wish){ .cn = "x",
						     .names = "DNS:x.example",
						     .issuer = &root,
						     .from_s = -2 * DAY,
						     .to_s = -DAY });
	struct ident early = make_ident((struct wish){
		.cn = "x", .names = "DNS:x.example", .issuer = &root, .from_s = DAY });
	struct ident orphan =
		make_ident((struct wish){ .cn = "x", .names = "DNS:x.example", .issuer = &middle });
	struct ident for_clients = make_ident((struct wish){
		.cn = "x", .names = "DNS:x.example", .issuer = &root, .usage = "clientAuth" });
	const struct {
		const struct ident *id;
		const char *name;
		const char *error;
		const char *at_server;
	} cases[] = {
		{ &old, "x.example", "certificate: expired",
		  "alert received: certificate expired" },
		{ &early, "x.example", "certificate: not valid yet",
		  "alert received: bad certificate" },
		{ &stranger, "x.example", "certificate: self-signed",
		  "alert received: unknown CA" },
		{ &orphan, "x.example", "certificate: unknown issuer",
		  "alert received: unknown CA" },
		{ &for_clients, "x.example", "certificate: not made for this purpose",
		  "alert received: unsupported certificate" },
		{ &ec, "y.example", "certificate: wrong name, it is not for y.example",
		  "alert received: bad certificate" },
		{ &ec, "10.0.0.2", "certificate: wrong name, it is not for 10.0.0.2",
		  "alert received: bad certificate" },
		{ &wild, "a.b.w.example", "certificate: wrong name, it is not for a.b.w.example",
		  "alert received: bad certificate" },
	};
	unsigned char buf[16];
	struct pair p;
	size_t n;
	int c, s;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct sl_cert_set *set = set_of_one(cases[i].id);

		meet(&p, &(struct sl_tls_server_conf){ 0 }, set,
		     &(struct sl_tls_backend_conf){ .trust = trust }, cases[i].name, &c, &s);
		assert_int_equal(c, -EPROTO);
		assert_string_equal(sl_tls_stream_error(p.client.s), cases[i].error);
		if (s == 0)
			s = sl_tls_stream_read(p.server.s, &p.scratch, buf, sizeof(buf), &n);
		assert_int_equal(s, -EPROTO);
		assert_string_equal(sl_tls_stream_error(p.server.s), cases[i].at_server);
		close_pair(&p);
		sl_cert_set_unref(set);
	}
	drop_ident(&old);
	drop_ident(&early);
	drop_ident(&orphan);
	drop_ident(&for_clients);
}

static void good_names_are_accepted(void **state)
{
	static const char *const names[] = { "x.example", "10.0.0.1", "a.w.example", "X.EXAMPLE" };
	struct sl_tls_facts f;
	struct pair p;
	int c, s;

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		meet(&p, &(struct sl_tls_server_conf){ 0 }, certs,
		     &(struct sl_tls_backend_conf){ .trust = trust }, names[i], &c, &s);
		if (c < 0)
			print_message("%s: %s\n", names[i], sl_tls_stream_error(p.client.s));
		assert_true(c == 0 && s == 0);
		sl_tls_stream_facts(p.client.s, &f);
		assert_true(f.has_peer_cert && f.is_verified);
		assert_string_equal(f.peer_name, i == 2 ? "wild" : "ec");
		assert_string_equal(f.version, "TLSv1.3");
		assert_int_equal(strlen(f.peer_fingerprint), 64);
		sl_tls_stream_facts(p.server.s, &f);
		assert_false(f.has_peer_cert || f.is_verified || f.is_resumed);
		assert_string_equal(f.sni, i == 1 ? "" : names[i]); /* addresses are no SNI */
		close_pair(&p);
	}
	meet(&p, &(struct sl_tls_server_conf){ 0 }, certs, &(struct sl_tls_backend_conf){ 0 }, NULL,
	     &c, &s);
	assert_true(c == 0 && s == 0);
	sl_tls_stream_facts(p.client.s, &f);
	assert_true(f.has_peer_cert && !f.is_verified);
	close_pair(&p);
}

static void verifying_needs_a_name(void **state)
{
	struct sl_tls_backend *backend =
		backend_of(&(struct sl_tls_backend_conf){ .trust = trust });
	struct sl_tls_target *target = NULL;

	(void)state;
	assert_int_equal(sl_tls_target_new(backend, NULL, &target), -EINVAL);
	assert_int_equal(sl_tls_target_new(backend, "", &target), -EINVAL);
	assert_null(target);
	sl_tls_backend_unref(backend);
}

static void the_clients_offer_chooses_the_kind_of_key(void **state)
{
	static const struct {
		const char *ciphers; /* of TLS 1.2 */
		const char *got;
	} cases[] = { { "ECDHE+aECDSA", "ec" }, { "ECDHE+aRSA", "rsa" } };
	struct sl_tls_facts f;
	struct pair p;
	int c, s;

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		struct sl_tls_server *server = server_of(&(struct sl_tls_server_conf){ 0 });
		struct sl_tls_backend *backend = backend_of(&(struct sl_tls_backend_conf){
			.trust = trust, .ciphers = cases[i].ciphers });
		struct sl_tls_target *target = target_of(backend, "x.example");

		open_pair(&p, server, certs, NULL, target, 0);
		assert_true(SSL_set_max_proto_version(p.client.s->ssl, TLS1_2_VERSION));
		shake(&p, &c, &s);
		assert_true(c == 0 && s == 0);
		sl_tls_stream_facts(p.client.s, &f);
		assert_string_equal(f.peer_name, cases[i].got);
		assert_string_equal(f.version, "TLSv1.2");
		close_pair(&p);
		sl_tls_target_unref(target);
		sl_tls_backend_unref(backend);
		sl_tls_server_unref(server);
	}
}

static void versions_below_the_least_are_refused(void **state)
{
	struct pair p;
	int c, s;

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct sl_tls_server *server = server_of(&(struct sl_tls_server_conf){
			.min_version = i ? SL_TLS_MIN_1_3 : SL_TLS_MIN_1_2 });
		struct sl_tls_backend *backend = backend_of(&(struct sl_tls_backend_conf){ 0 });
		struct sl_tls_target *target = target_of(backend, "x.example");

		open_pair(&p, server, certs, NULL, target, 0);
		SSL_set_security_level(p.client.s->ssl, 0);
		assert_true(SSL_set_min_proto_version(p.client.s->ssl, TLS1_VERSION));
		assert_true(SSL_set_max_proto_version(p.client.s->ssl,
						      i ? TLS1_2_VERSION : TLS1_1_VERSION));
		assert_true(SSL_set_cipher_list(p.client.s->ssl, "ALL:@SECLEVEL=0"));
		shake(&p, &c, &s);
		assert_int_equal(s, -EPROTO);
		assert_string_equal(sl_tls_stream_error(p.server.s), "no TLS version in common");
		assert_string_equal(sl_tls_stream_error(p.client.s),
				    "alert received: protocol version");
		close_pair(&p);
		sl_tls_target_unref(target);
		sl_tls_backend_unref(backend);
		sl_tls_server_unref(server);
	}
}

static void protocols_are_negotiated(void **state)
{
	static const char *const h2_h1[] = { "h2", "http/1.1" };
	static const char *const h1_h2[] = { "http/1.1", "h2" };
	static const char *const other[] = { "ftp" };
	struct sl_tls_facts f;
	struct pair p;
	int c, s;

	(void)state;
	meet(&p, &(struct sl_tls_server_conf){ .alpn = h2_h1, .n_alpn = 2 }, certs,
	     &(struct sl_tls_backend_conf){ .alpn = h1_h2, .n_alpn = 2 }, NULL, &c, &s);
	assert_true(c == 0 && s == 0);
	for (int i = 0; i < 2; i++) { /* the server's order */
		sl_tls_stream_facts(i ? p.client.s : p.server.s, &f);
		assert_int_equal(f.alpn_len, 2);
		assert_memory_equal(f.alpn, "h2", 2);
	}
	close_pair(&p);
	meet(&p, &(struct sl_tls_server_conf){ .alpn = h2_h1, .n_alpn = 2 }, certs,
	     &(struct sl_tls_backend_conf){ .alpn = other, .n_alpn = 1 }, NULL, &c, &s);
	assert_int_equal(s, -EPROTO);
	assert_string_equal(sl_tls_stream_error(p.server.s), "no ALPN protocol in common");
	assert_string_equal(sl_tls_stream_error(p.client.s),
			    "alert received: no application protocol");
	close_pair(&p);
	for (int i = 0; i < 2; i++) { /* one side without */
		meet(&p, &(struct sl_tls_server_conf){ .alpn = h2_h1, .n_alpn = i ? 0 : 2 }, certs,
		     &(struct sl_tls_backend_conf){ .alpn = h1_h2, .n_alpn = i ? 2 : 0 }, NULL, &c,
		     &s);
		assert_true(c == 0 && s == 0);
		sl_tls_stream_facts(p.server.s, &f);
		assert_int_equal(f.alpn_len, 0);
		close_pair(&p);
	}
}

static void clients_show_their_certificates(void **state)
{
	static const struct {
		const struct ident *id;
		enum sl_tls_client_auth auth;
		const char *error; /* NULL: accepted */
	} cases[] = {
		{ &client, SL_TLS_CLIENT_AUTH_REQUIRED, NULL },
		{ &client, SL_TLS_CLIENT_AUTH_OPTIONAL, NULL },
		{ NULL, SL_TLS_CLIENT_AUTH_OPTIONAL, NULL },
		{ &client, SL_TLS_CLIENT_AUTH_NONE, NULL },
		{ NULL, SL_TLS_CLIENT_AUTH_REQUIRED, "no client certificate" },
		{ &stranger, SL_TLS_CLIENT_AUTH_REQUIRED, "client certificate: self-signed" },
		{ &stranger, SL_TLS_CLIENT_AUTH_OPTIONAL, "client certificate: self-signed" },
		{ &expired_client, SL_TLS_CLIENT_AUTH_REQUIRED, "client certificate: expired" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct sl_cert_set *own = cases[i].id ? set_of_one(cases[i].id) : NULL;
		struct sl_tls_facts f;
		struct pair p;
		bool shown;
		int c, s;

		meet(&p,
		     &(struct sl_tls_server_conf){ .client_auth = cases[i].auth,
						   .client_ca = root.pem,
						   .client_ca_len = strlen(root.pem) },
		     certs, &(struct sl_tls_backend_conf){ .trust = trust, .cert = own },
		     "x.example", &c, &s);
		if (cases[i].error) {
			assert_int_equal(s, -EPROTO);
			assert_string_equal(sl_tls_stream_error(p.server.s), cases[i].error);
		} else {
			assert_int_equal(s, 0);
			sl_tls_stream_facts(p.server.s, &f);
			shown = cases[i].id && cases[i].auth != SL_TLS_CLIENT_AUTH_NONE;
			assert_int_equal(f.has_peer_cert, shown);
			assert_int_equal(f.is_verified, shown);
			assert_string_equal(f.peer_subject,
					    shown ? "CN=client \\x5c\\x22one\\x5c\\x22" : "");
			assert_string_equal(f.peer_name, shown ? "client \\x22one\\x22" : "");
		}
		close_pair(&p);
		sl_cert_set_unref(own);
	}
}

static void bad_policies_are_refused_in_words(void **state)
{
	static const char *const empty[] = { "" };
	const struct {
		struct sl_tls_server_conf conf;
		const char *why;
	} cases[] = {
		{ { .ciphers = "NONSENSE" }, "no cipher of the library is meant by 'NONSENSE'" },
		{ { .suites = "TLS_X" },
		  "'TLS_X' has a cipher suite that the library does not know" },
		{ { .groups = "P-1" }, "'P-1' has a group that the library does not know" },
		{ { .alpn = empty, .n_alpn = 1 }, "'' cannot be an ALPN protocol" },
		{ { .client_auth = SL_TLS_CLIENT_AUTH_REQUIRED,
		    .client_ca = "x",
		    .client_ca_len = 1 },
		  "client_ca: there is no certificate in it" },
		{ { .client_auth = SL_TLS_CLIENT_AUTH_OPTIONAL,
		    .client_ca = "x",
		    .client_ca_len = 1,
		    .client_ca_label = "/a/ca.pem" },
		  "/a/ca.pem: there is no certificate in it" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct sl_tls_server *server = NULL;
		struct sl_str why = { 0 };

		assert_int_equal(sl_tls_server_new(&cases[i].conf, &why, &server), -EINVAL);
		assert_string_equal(sl_str_text(&why), cases[i].why);
		assert_null(server);
		sl_str_done(&why);
	}
}

/* ---- sessions ---- */

struct sides {
	struct sl_tls_server *server;
	struct sl_tls_backend *backend;
	struct sl_tls_target *target;
};

static void use_1_2(struct pair *p)
{
	assert_true(SSL_set_max_proto_version(p->client.s->ssl, TLS1_2_VERSION));
}

/* A whole connection; whether it was resumed. */
static bool visit(struct sides *e, struct sl_tls_tickets *tickets, bool is_1_2)
{
	struct sl_tls_facts at_client, at_server;
	unsigned char buf[16];
	struct pair p;
	size_t n;

	open_pair(&p, e->server, certs, tickets, e->target, 0);
	if (is_1_2)
		use_1_2(&p);
	shake_well(&p);
	say(&p, &p.client, &p.server, "hello");
	say(&p, &p.server, &p.client, "hello");
	(void)drain(&p, &p.client, buf, sizeof(buf), &n);
	sl_tls_stream_facts(p.client.s, &at_client);
	sl_tls_stream_facts(p.server.s, &at_server);
	assert_int_equal(at_client.is_resumed, at_server.is_resumed);
	assert_true(at_client.is_verified);
	close_pair(&p);
	return at_server.is_resumed;
}

static struct sides make_sides(const struct sl_tls_server_conf *conf)
{
	struct sides e = { .server = server_of(conf),
			   .backend = backend_of(&(struct sl_tls_backend_conf){ .trust = trust }) };

	e.target = target_of(e.backend, "x.example");
	return e;
}

static void drop_sides(struct sides *e)
{
	sl_tls_target_unref(e->target);
	sl_tls_backend_unref(e->backend);
	sl_tls_server_unref(e->server);
}

static struct sl_tls_tickets *tickets_of(const struct sl_tls_ticket_key *keys, size_t n)
{
	struct sl_tls_tickets *t = NULL;

	assert_int_equal(sl_tls_tickets_new(keys, n, &t), 0);
	return t;
}

static void sessions_outlive_a_rotation_of_keys(void **state)
{
	struct sl_tls_ticket_key k[3];
	struct sl_tls_tickets *first, *both, *second, *third, *none = NULL;

	(void)state;
	for (int i = 0; i < 3; i++)
		assert_int_equal(sl_tls_ticket_key_make(&k[i]), 0);
	first = tickets_of(&k[0], 1);
	both = tickets_of((struct sl_tls_ticket_key[]){ k[1], k[0] }, 2);
	second = tickets_of(&k[1], 1);
	third = tickets_of(&k[2], 1);
	assert_int_equal(sl_tls_tickets_new(k, 0, &none), -EINVAL);
	assert_int_equal(sl_tls_tickets_new(k, SL_TLS_TICKET_KEYS_MAX + 1, &none), -EINVAL);
	for (int is_1_2 = 0; is_1_2 < 2; is_1_2++) {
		struct sides e = make_sides(&(struct sl_tls_server_conf){ .scope = "r" });

		assert_false(visit(&e, first, is_1_2));
		assert_true(sl_tls_target_sessions(e.target) > 0);
		for (int i = 0; i < 2 * SL_TLS_SESSIONS_MAX; i++) /* each leaves another */
			assert_true(visit(&e, first, is_1_2));
		assert_true(visit(&e, both, is_1_2)); /* opened by the old key, sealed by the new */
		/* the newest ticket is used first */
		assert_true(visit(&e, second, is_1_2));
		assert_false(visit(&e, third, is_1_2)); /* nobody knows the key: no harm */
		assert_true(visit(&e, third, is_1_2));
		assert_true(sl_tls_target_sessions(e.target) <= SL_TLS_SESSIONS_MAX);
		drop_sides(&e);

		e = make_sides(&(struct sl_tls_server_conf){ .scope = "r" });
		assert_false(visit(&e, NULL, is_1_2)); /* none are given out */
		assert_int_equal(sl_tls_target_sessions(e.target), 0);
		assert_false(visit(&e, NULL, is_1_2));
		drop_sides(&e);
	}
	sl_tls_tickets_unref(first);
	sl_tls_tickets_unref(both);
	sl_tls_tickets_unref(second);
	sl_tls_tickets_unref(third);
}

/* A session of a route that asks nobody for a certificate must not open one that does. */
static void sessions_stay_in_their_scope(void **state)
{
	struct sl_tls_ticket_key k;
	struct sl_tls_tickets *tickets;

	(void)state;
	assert_int_equal(sl_tls_ticket_key_make(&k), 0);
	tickets = tickets_of(&k, 1);
	for (int i = 0; i < 4; i++) {
		struct sides e = make_sides(&(struct sl_tls_server_conf){ .scope = "a" });
		struct sl_tls_server *other = server_of(&(struct sl_tls_server_conf){
			.scope = i < 2 ? "b" : "a",
			.client_auth =
				i < 2 ? SL_TLS_CLIENT_AUTH_NONE : SL_TLS_CLIENT_AUTH_OPTIONAL,
			.client_ca = root.pem,
			.client_ca_len = strlen(root.pem) });

		assert_false(visit(&e, tickets, i % 2));
		assert_true(visit(&e, tickets, i % 2));
		sl_tls_server_unref(e.server);
		e.server = other;
		assert_false(visit(&e, tickets, i % 2));
		assert_true(visit(&e, tickets, i % 2));
		drop_sides(&e);
	}
	sl_tls_tickets_unref(tickets);
}

/* A client that sends data with its first flight is not answered from it. */
static void early_data_is_refused(void **state)
{
	struct sides e = make_sides(&(struct sl_tls_server_conf){ .scope = "r" });
	struct sl_tls_ticket_key k;
	struct sl_tls_tickets *tickets;
	SSL_CTX *lenient = SSL_CTX_new(TLS_server_method());
	unsigned char buf[64];
	struct pair p;
	size_t n = 0;

	(void)state;
	assert_int_equal(sl_tls_ticket_key_make(&k), 0);
	tickets = tickets_of(&k, 1);
	assert_false(visit(&e, tickets, false));
	open_pair(&p, e.server, certs, tickets, e.target, 0);
	/* what we gave out does not allow it */
	assert_int_equal(SSL_SESSION_get_max_early_data(SSL_get0_session(p.client.s->ssl)), 0);
	SSL_SESSION_set_max_early_data(SSL_get0_session(p.client.s->ssl), 1000);
	p.client.s->scratch = &p.scratch;
	assert_int_equal(SSL_write_early_data(p.client.s->ssl, "early", 5, &n), 1);
	p.client.s->scratch = NULL;
	memcpy(p.up.b, p.scratch.p, p.scratch.len);
	p.up.len = p.scratch.len;
	p.scratch.len = 0;
	shake_well(&p);
	assert_int_equal(SSL_get_early_data_status(p.client.s->ssl), SSL_EARLY_DATA_REJECTED);
	assert_int_equal(drain(&p, &p.server, buf, sizeof(buf), &n), SL_TLS_IN);
	assert_int_equal(n, 0);
	say(&p, &p.client, &p.server, "late");
	close_pair(&p);
	SSL_CTX_free(lenient);
	sl_tls_tickets_unref(tickets);
	drop_sides(&e);
}

static void at_most_so_many_sessions_are_kept(void **state)
{
	struct sides e = make_sides(&(struct sl_tls_server_conf){ .scope = "r" });
	enum { N = 8 };
	struct sl_tls_ticket_key k;
	struct sl_tls_tickets *tickets;
	static struct pair p[N];
	unsigned char buf[16];
	size_t n;

	(void)state;
	assert_int_equal(sl_tls_ticket_key_make(&k), 0);
	tickets = tickets_of(&k, 1);
	for (int i = 0; i < N; i++)
		open_pair(&p[i], e.server, certs, tickets, e.target, 0);
	for (int i = 0; i < N; i++) {
		shake_well(&p[i]);
		(void)drain(&p[i], &p[i].client, buf, sizeof(buf), &n);
	}
	assert_int_equal(sl_tls_target_sessions(e.target), SL_TLS_SESSIONS_MAX);
	for (int i = 0; i < N; i++)
		close_pair(&p[i]);
	assert_true(visit(&e, tickets, false)); /* closing them did no harm */
	sl_tls_tickets_unref(tickets);
	drop_sides(&e);
}

/* ---- swaps ---- */

struct swap {
	struct sl_tls_server *server;
	struct sl_cert_set *set; /* under the lock */
	pthread_mutex_t lock;
	bool stop;              /* atomic */
	unsigned n_good, n_bad; /* atomic */
};

static struct sl_cert_set *current(struct swap *w)
{
	struct sl_cert_set *set;

	(void)pthread_mutex_lock(&w->lock);
	set = sl_cert_set_ref(w->set);
	(void)pthread_mutex_unlock(&w->lock);
	return set;
}

static void *keep_shaking(void *arg)
{
	struct swap *w = arg;
	struct sl_tls_backend *backend =
		backend_of(&(struct sl_tls_backend_conf){ .trust = trust });
	uint64_t seed = 1;

	while (!__atomic_load_n(&w->stop, __ATOMIC_ACQUIRE)) {
		struct sl_tls_target *target = target_of(backend, "x.example");
		struct sl_cert_set *set = current(w);
		struct pair p;
		int c, s;

		open_pair(&p, w->server, set, NULL, target, seed++);
		sl_cert_set_unref(set);
		shake(&p, &c, &s);
		__atomic_add_fetch(c == 0 && s == 0 ? &w->n_good : &w->n_bad, 1, __ATOMIC_RELEASE);
		close_pair(&p);
		sl_tls_target_unref(target);
	}
	sl_tls_backend_unref(backend);
	return NULL;
}

static void sets_are_swapped_under_load(void **state)
{
	struct swap w = { .lock = PTHREAD_MUTEX_INITIALIZER };
	struct sl_cert_source s[2] = { source_of("ec", &ec), source_of("rsa", &rsa) };
	struct sl_cert_set *wrong = NULL;
	pthread_t threads[2];
	unsigned before = 0;

	(void)state;
	w.server = server_of(&(struct sl_tls_server_conf){ .scope = "r" });
	w.set = set_of(s, 1);
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, keep_shaking, &w), 0);
	for (int i = 0; i < 50; i++) {
		struct sl_cert_set *next = set_of(s + i % 2, 1);

		(void)pthread_mutex_lock(&w.lock);
		sl_cert_set_unref(w.set);
		w.set = next;
		(void)pthread_mutex_unlock(&w.lock);
		s[0].key = rsa.key_pem; /* a wrong file leaves the set that is in use alone */
		s[0].key_len = strlen(rsa.key_pem);
		assert_int_equal(sl_cert_set_new(s, 1, time(NULL), NULL, NULL, &wrong), -EINVAL);
		s[0] = source_of("ec", &ec);
		while (__atomic_load_n(&w.n_good, __ATOMIC_ACQUIRE) < before + 4 &&
		       __atomic_load_n(&w.n_bad, __ATOMIC_ACQUIRE) == 0)
			(void)sched_yield();
		before = __atomic_load_n(&w.n_good, __ATOMIC_ACQUIRE);
	}
	__atomic_store_n(&w.stop, true, __ATOMIC_RELEASE);
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	assert_int_equal(w.n_bad, 0);
	assert_true(w.n_good >= 200);
	sl_cert_set_unref(w.set);
	sl_tls_server_unref(w.server);
}

/* The set in use goes while its handshake is under way: the handshake keeps it. */
static void a_handshake_keeps_its_set(void **state)
{
	struct sides e = make_sides(&(struct sl_tls_server_conf){ .scope = "r" });
	struct sl_cert_set *set = set_of_one(&ec);
	struct sl_tls_facts f;
	struct pair p;

	(void)state;
	open_pair(&p, e.server, set, NULL, e.target, 0);
	assert_int_equal(step(&p, &p.client), SL_TLS_IN);
	sl_cert_set_unref(set);
	shake_well(&p);
	assert_null(p.server.s->certs); /* and gives it back after it */
	assert_null(SSL_get_privatekey(p.server.s->ssl));
	sl_tls_stream_facts(p.client.s, &f);
	assert_string_equal(f.peer_name, "ec");
	say(&p, &p.client, &p.server, "hello");
	close_pair(&p);
	drop_sides(&e);
}

/*
 * A process of its own, which has nothing of the library's state: in the proxy's sandbox a file
 * that is opened, or an unknown call, would show. Certificate and key come by standard input.
 */
static int in_sandbox(void)
{
	static char both[16384];
	struct sl_cert_source s = { .label = "both", .chain = both };
	struct sl_tls_ticket_key k;
	struct sl_cert_set *set = NULL;
	struct sides e;
	bool on = false;
	ssize_t n;

	while ((n = read(STDIN_FILENO, both + s.chain_len, sizeof(both) - s.chain_len)) > 0)
		s.chain_len += (size_t)n;
	if (sl_tls_init() < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
	    sl_sandbox_enter(SL_ROLE_PROXY, &on) < 0)
		return 100;
	if (!on)
		return 77;
	if (sl_cert_set_new(&s, 1, time(NULL), NULL, NULL, &set) < 0 ||
	    sl_tls_trust_new(both, s.chain_len, &trust) < 0 || sl_tls_ticket_key_make(&k) < 0)
		return 101;
	certs = set;
	for (int is_1_2 = 0; is_1_2 < 2; is_1_2++) {
		struct sl_tls_tickets *tickets = tickets_of(&k, 1);

		e = make_sides(&(struct sl_tls_server_conf){ .scope = "r" });
		if (visit(&e, tickets, is_1_2) || !visit(&e, tickets, is_1_2))
			return 102;
		drop_sides(&e);
		sl_tls_tickets_unref(tickets);
	}
	return 0;
}

static void works_in_the_sandbox(void **state)
{
	struct ident id = make_ident((struct wish){ .cn = "x", .names = "DNS:x.example" });
	int in[2];
	int status;
	pid_t pid;

	(void)state;
	assert_int_equal(pipe(in), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		(void)close(in[1]);
		(void)dup2(in[0], STDIN_FILENO);
		(void)execl("/proc/self/exe", "test", "sandbox", (char *)NULL);
		_exit(99);
	}
	(void)close(in[0]);
	assert_int_equal(write(in[1], id.pem, strlen(id.pem)), strlen(id.pem));
	assert_int_equal(write(in[1], id.key_pem, strlen(id.key_pem)), strlen(id.key_pem));
	(void)close(in[1]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	drop_ident(&id);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(WEXITSTATUS(status), 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(refused_certificates_are_told_in_words),
		cmocka_unit_test(good_names_are_accepted),
		cmocka_unit_test(verifying_needs_a_name),
		cmocka_unit_test(the_clients_offer_chooses_the_kind_of_key),
		cmocka_unit_test(versions_below_the_least_are_refused),
		cmocka_unit_test(protocols_are_negotiated),
		cmocka_unit_test(clients_show_their_certificates),
		cmocka_unit_test(bad_policies_are_refused_in_words),
		cmocka_unit_test(sessions_outlive_a_rotation_of_keys),
		cmocka_unit_test(sessions_stay_in_their_scope),
		cmocka_unit_test(early_data_is_refused),
		cmocka_unit_test(at_most_so_many_sessions_are_kept),
		cmocka_unit_test(sets_are_swapped_under_load),
		cmocka_unit_test(a_handshake_keeps_its_set),
		cmocka_unit_test(works_in_the_sandbox),
	};

	if (argc == 2 && strcmp(argv[1], "sandbox") == 0)
		return in_sandbox();
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
