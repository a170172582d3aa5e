/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Sets of certificates: what is refused and in which words, who gets which, what is left behind. */
#include "tls_pki.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/core_names.h>
#include <openssl/ocsp.h>
#include <unistd.h>

#include "tls/library.h"

struct found {
	size_t n;
	struct sl_cert_finding at[16];
};

static void on_found(void *owner, const struct sl_cert_finding *finding)
{
	struct found *f = owner;

	assert_true(f->n < 16);
	f->at[f->n++] = *finding;
}

static int make(const struct sl_cert_source *s, size_t n, struct found *f, struct sl_cert_set **ret)
{
	memset(f, 0, sizeof(*f));
	*ret = NULL;
	return sl_cert_set_new(s, n, time(NULL), on_found, f, ret);
}

/* Exactly one finding, of that kind and with those words. */
static void only(const struct found *f, enum sl_cert_finding_kind kind, const char *text)
{
	if (f->n != 1 || f->at[0].kind != kind || strcmp(f->at[0].text, text) != 0)
		for (size_t i = 0; i < f->n; i++)
			print_message("%s: %s\n", sl_cert_finding_name(f->at[i].kind),
				      f->at[i].text);
	assert_int_equal(f->n, 1);
	assert_int_equal(f->at[0].kind, kind);
	assert_string_equal(f->at[0].text, text);
}

static struct ident root, middle;

static int make_authorities(void **state)
{
	(void)state;
	assert_int_equal(sl_tls_init(), 0);
	root = make_ident((struct wish){ .cn = "root", .is_ca = true });
	middle = make_ident((struct wish){ .cn = "middle", .is_ca = true, .issuer = &root });
	return 0;
}

static int drop_authorities(void **state)
{
	(void)state;
	drop_ident(&root);
	drop_ident(&middle);
	return 0;
}

static void facts_are_those_of_the_certificate(void **state)
{
	struct ident id = make_ident((struct wish){ .cn = "a \"quoted\" name",
						    .names = "DNS:Shop.Example,DNS:*.Shop.example,"
							     "IP:10.0.0.1",
						    .issuer = &middle });
	struct sl_cert_set *set;
	const struct sl_cert_facts *f;
	struct sl_cert_source s;
	struct found found;

	(void)state;
	append_pem(&id, &middle);
	s = source_of("shop.pem", &id);
	assert_int_equal(make(&s, 1, &found, &set), 0);
	assert_int_equal(found.n, 0);
	assert_int_equal(sl_cert_set_count(set), 1);
	f = sl_cert_set_facts(set, 0);
	assert_string_equal(f->label, "shop.pem");
	assert_null(strchr(f->subject, '"'));
	assert_string_equal(f->issuer, "CN=middle");
	assert_int_equal(f->n_names, 2);
	assert_string_equal(f->names[0], "shop.example");
	assert_string_equal(f->names[1], "*.shop.example");
	assert_string_equal(f->key, "ec-256");
	assert_int_equal(f->kind, SL_CERT_EC);
	assert_int_equal(strlen(f->fingerprint), 64);
	assert_int_equal(f->n_chain, 1);
	assert_true(f->is_default);
	assert_int_equal(f->staple_until_s, 0);
	assert_true(f->not_before_s <= time(NULL) - 3599 && f->not_before_s > time(NULL) - 3700);
	assert_true(f->not_after_s > time(NULL) + 9 * DAY);
	sl_cert_set_unref(set);
	drop_ident(&id);
}

static void key_and_chain_may_share_a_file(void **state)
{
	struct ident id = make_ident((struct wish){ .cn = "x", .names = "DNS:x.example" });
	struct sl_cert_source s = source_of("both.pem", &id);
	struct sl_cert_set *set;
	struct found found;
	char both[8192];

	(void)state;
	for (int key_first = 0; key_first < 2; key_first++) {
		(void)snprintf(both, sizeof(both), "comment\n%s\n%s",
			       key_first ? id.key_pem : id.pem, key_first ? id.pem : id.key_pem);
		s.chain = both;
		s.chain_len = strlen(both);
		s.key = NULL;
		s.key_len = 0;
		assert_int_equal(make(&s, 1, &found, &set), 0);
		assert_int_equal(found.n, 0);
		sl_cert_set_unref(set);
	}
	drop_ident(&id);
}

static void every_defect_has_its_words(void **state)
{
	struct ident good = make_ident((struct wish){ .cn = "x", .names = "DNS:x.example" });
	struct ident other = make_ident((struct wish){ .cn = "y", .names = "DNS:x.example" });
	struct ident rsa = make_ident((struct wish){ .cn = "y", .names = "DNS:y", .kind = "rsa" });
	struct ident shorty =
		make_ident((struct wish){ .cn = "y", .names = "DNS:y", .kind = "rsa1024" });
	struct ident sha1 = make_ident(
		(struct wish){ .cn = "y", .names = "DNS:y", .issuer = &root, .is_sha1 = true });
	struct sl_cert_source s = source_of("f", &good);
	struct sl_cert_set *set;
	struct found found;
	char cut[2048];
	BIO *out = BIO_new(BIO_s_mem());
	char *locked;

	(void)state;
	s.key = other.key_pem;
	s.key_len = strlen(other.key_pem);
	assert_int_equal(make(&s, 1, &found, &set), -EINVAL);
	only(&found, SL_CERT_KEY_MISMATCH, "f: the key does not belong to the certificate");
	s.key = rsa.key_pem;
	s.key_len = strlen(rsa.key_pem);
	assert_int_equal(make(&s, 1, &found, &set), -EINVAL);
	only(&found, SL_CERT_KEY_MISMATCH, "f: the key does not belong to the certificate");
	s.key = s.chain;
	s.key_len = s.chain_len;
	assert_int_equal(make(&s, 1, &found, &set), -EINVAL);
	only(&found, SL_CERT_NO_KEY, "f: there is no private key, but a certificate");
	s.key = NULL;
	assert_int_equal(make(&s, 1, &found, &set), -EINVAL);
	only(&found, SL_CERT_NO_KEY, "f: there is no private key");
	(void)snprintf(cut, sizeof(cut), "%.80s\n-----END PRIVATE KEY-----\n", good.key_pem);
	s.key = cut;
	s.key_len = strlen(cut);
	assert_int_equal(make(&s, 1, &found, &set), -EINVAL);
	only(&found, SL_CERT_NO_KEY, "f: the key cannot be read");
	assert_true(PEM_write_bio_PrivateKey(out, good.key, EVP_aes_128_cbc(),
					     (const unsigned char *)"pw", 2, NULL, NULL));
	locked = take_text(out);
	s.key = locked;
	s.key_len = strlen(locked);
	assert_int_equal(make(&s, 1, &found, &set), -EINVAL);
	only(&found, SL_CERT_NO_KEY, "f: the key is protected by a passphrase");
	free(locked);

	s = source_of("f", &good);
	s.chain = good.key_pem;
	s.chain_len = strlen(good.key_pem);
	assert_int_equal(make(&s, 1, &found, &set), -EINVAL);
	only(&found, SL_CERT_UNREADABLE, "f: there is no certificate in it, but a private key");
	s.chain = "0\x82\x01";
	s.chain_len = 3;
	assert_int_equal(make(&s, 1, &found, &set), -EINVAL);
	only(&found, SL_CERT_UNREADABLE,
	     "f: there is no certificate in it: it is DER or PKCS #12, and not PEM");
	s.chain_len = 0;
	assert_int_equal(make(&s, 1, &found, &set), -EINVAL);
	only(&found, SL_CERT_UNREADABLE, "f: there is no certificate in it");
	(void)snprintf(cut, sizeof(cut), "%.120s\n-----END CERTIFICATE-----\n", good.pem);
	s.chain = cut;
	s.chain_len = strlen(cut);
	assert_int_equal(make(&s, 1, &found, &set), -EINVAL);
	only(&found, SL_CERT_UNREADABLE, "f: a certificate in it cannot be read");

	s = source_of("f", &shorty);
	assert_int_equal(make(&s, 1, &found, &set), -EINVAL);
	only(&found, SL_CERT_WEAK, "f: the key (rsa-1024) is too short");
	s = source_of("f", &sha1);
	assert_int_equal(make(&s, 1, &found, &set), -EINVAL);
	only(&found, SL_CERT_WEAK, "f: signed with SHA1, which clients refuse");
	assert_null(set);
	drop_ident(&good);
	drop_ident(&other);
	drop_ident(&rsa);
	drop_ident(&shorty);
	drop_ident(&sha1);
}

static void times_are_told_and_do_not_refuse(void **state)
{
	struct ident old = make_ident(
		(struct wish){ .cn = "x", .names = "DNS:x", .from_s = -2 * DAY, .to_s = -DAY });
	struct ident early =
		make_ident((struct wish){ .cn = "x", .names = "DNS:x", .from_s = DAY });
	struct sl_cert_source s = source_of("f", &old);
	struct sl_cert_set *set;
	struct found found;

	(void)state;
	assert_int_equal(make(&s, 1, &found, &set), 0);
	assert_int_equal(found.n, 1);
	assert_int_equal(found.at[0].kind, SL_CERT_EXPIRED);
	assert_non_null(strstr(found.at[0].text, "f: the certificate expired at 20"));
	sl_cert_set_unref(set);
	s = source_of("f", &early);
	assert_int_equal(make(&s, 1, &found, &set), 0);
	assert_int_equal(found.n, 1);
	assert_int_equal(found.at[0].kind, SL_CERT_NOT_YET_VALID);
	sl_cert_set_unref(set);
	drop_ident(&old);
	drop_ident(&early);
}

static void chains_are_put_in_order(void **state)
{
	struct ident id = make_ident((struct wish){ .cn = "x",
						    .names = "DNS:x",
						    .issuer = &middle,
						    .info = "caIssuers;URI:http://ca.example/m" });
	struct ident by_root =
		make_ident((struct wish){ .cn = "y", .names = "DNS:y", .issuer = &root });
	struct ident alien = make_ident((struct wish){ .cn = "alien", .is_ca = true });
	struct sl_cert_source s = source_of("f", &id);
	struct sl_cert_set *set;
	struct found found;

	(void)state;
	assert_int_equal(make(&s, 1, &found, &set), 0);
	only(&found, SL_CERT_CHAIN, "f: no certificate of its issuer: clients may not find one");
	sl_cert_set_unref(set);
	s = source_of("r", &by_root);
	assert_int_equal(make(&s, 1, &found, &set), 0);
	assert_int_equal(found.n, 0);
	sl_cert_set_unref(set);
	drop_ident(&by_root);
	append_pem(&id, &root);
	append_pem(&id, &middle);
	s = source_of("f", &id);
	assert_int_equal(make(&s, 1, &found, &set), 0);
	only(&found, SL_CERT_CHAIN, "f: the chain is out of order; put right");
	assert_int_equal(sl_cert_set_facts(set, 0)->n_chain, 1); /* the root is not sent */
	sl_cert_set_unref(set);
	drop_ident(&id);

	id = make_ident((struct wish){ .cn = "x", .names = "DNS:x", .issuer = &middle });
	append_pem(&id, &middle);
	append_pem(&id, &alien);
	s = source_of("f", &id);
	assert_int_equal(make(&s, 1, &found, &set), 0);
	only(&found, SL_CERT_CHAIN, "f: 1 certificate does not belong to the chain; left out");
	assert_int_equal(sl_cert_set_facts(set, 0)->n_chain, 1);
	sl_cert_set_unref(set);
	append_pem(&id, &alien);
	s = source_of("f", &id);
	assert_int_equal(make(&s, 1, &found, &set), 0);
	only(&found, SL_CERT_CHAIN, "f: 2 certificates do not belong to the chain; left out");
	sl_cert_set_unref(set);
	s = source_of("f", &alien);
	append_pem(&alien, &id);
	s.chain = alien.pem;
	s.chain_len = strlen(alien.pem);
	s.key = id.key_pem;
	s.key_len = strlen(id.key_pem);
	assert_int_equal(make(&s, 1, &found, &set), -EINVAL);
	only(&found, SL_CERT_NOT_FIRST,
	     "f: the certificate of the key has to be the first one in the file");
	drop_ident(&id);
	drop_ident(&alien);
}

static size_t who(const struct sl_cert_set *set, const char *sni, enum sl_cert_kind kind)
{
	size_t at[SL_CERT_KIND_COUNT_];

	(void)sl_cert_set_find(set, sni, at);
	return at[kind];
}

static void names_choose(void **state)
{
	static const struct {
		const char *names;
		const char *kind;
	} wishes[] = {
		{ "DNS:default.example", "ec" },     { "DNS:default.example", "rsa" },
		{ "DNS:*.wild.example", "ec" },      { "DNS:exact.wild.example", "ec" },
		{ "DNS:exact.wild.example", "rsa" }, { "DNS:exact.wild.example", "ed" },
		{ "DNS:exact.wild.example", "rsa" }, { NULL, "ec" },
	};
	struct ident id[8];
	struct sl_cert_source s[8];
	struct sl_cert_set *set;
	struct found found;
	size_t at[SL_CERT_KIND_COUNT_];

	(void)state;
	for (size_t i = 0; i < 8; i++) {
		id[i] = make_ident((struct wish){
			.cn = "common.example", .names = wishes[i].names, .kind = wishes[i].kind });
		s[i] = source_of(i == 4 ? "earlier" : "f", &id[i]);
	}
	assert_int_equal(make(s, 8, &found, &set), 0);
	only(&found, SL_CERT_DUPLICATE,
	     "f: earlier has such a certificate for exact.wild.example already");
	assert_int_equal(found.at[0].source, 6);
	assert_int_equal(who(set, "default.example", SL_CERT_EC), 0);
	assert_int_equal(who(set, "default.example", SL_CERT_RSA), 1);
	assert_int_equal(who(set, "a.wild.example", SL_CERT_EC), 2);
	assert_int_equal(who(set, "a.wild.example", SL_CERT_RSA), SIZE_MAX);
	assert_int_equal(who(set, "EXACT.wild.example.", SL_CERT_EC), 3);
	assert_int_equal(who(set, "exact.wild.example", SL_CERT_RSA), 4);
	assert_int_equal(who(set, "exact.wild.example", SL_CERT_ED), 5);
	assert_int_equal(who(set, "common.example", SL_CERT_EC), 7);
	assert_false(sl_cert_set_find(set, "a.b.wild.example", at)); /* one label only */
	assert_int_equal(at[SL_CERT_EC], 0);
	assert_int_equal(at[SL_CERT_RSA], 1);
	assert_false(sl_cert_set_find(set, "wild.example", at));
	assert_false(sl_cert_set_find(set, NULL, at));
	assert_false(sl_cert_set_find(set, "no name\n", at));
	assert_int_equal(at[SL_CERT_EC], 0);
	assert_true(sl_cert_set_find(set, "b.wild.example", at));
	assert_true(sl_cert_set_facts(set, 0)->is_default);
	assert_true(sl_cert_set_facts(set, 1)->is_default);
	assert_false(sl_cert_set_facts(set, 3)->is_default);
	sl_cert_set_unref(set);
	for (size_t i = 0; i < 8; i++)
		drop_ident(&id[i]);
}

/* A response as an authority gives it, DER; freed by the caller. */
static unsigned char *make_staple(const struct ident *of, const struct ident *issuer,
				  const struct ident *signer, int status, long to_s, int *ret_n)
{
	OCSP_BASICRESP *basic = OCSP_BASICRESP_new();
	OCSP_CERTID *id = OCSP_cert_to_id(NULL, of->x, issuer->x);
	ASN1_TIME *from = X509_gmtime_adj(NULL, -3600);
	ASN1_TIME *to = X509_gmtime_adj(NULL, to_s);
	ASN1_TIME *revoked = X509_gmtime_adj(NULL, -1800);
	OCSP_RESPONSE *response;
	unsigned char *der = NULL;

	assert_non_null(OCSP_basic_add1_status(basic, id, status, 0,
					       status == V_OCSP_CERTSTATUS_REVOKED ? revoked : NULL,
					       from, to));
	assert_true(OCSP_basic_sign(basic, signer->x, signer->key, EVP_sha256(), NULL, 0));
	response = OCSP_response_create(OCSP_RESPONSE_STATUS_SUCCESSFUL, basic);
	*ret_n = i2d_OCSP_RESPONSE(response, &der);
	assert_true(*ret_n > 0);
	OCSP_RESPONSE_free(response);
	OCSP_BASICRESP_free(basic);
	OCSP_CERTID_free(id);
	ASN1_TIME_free(from);
	ASN1_TIME_free(to);
	ASN1_TIME_free(revoked);
	return der;
}

static void staples_are_checked(void **state)
{
	struct ident id =
		make_ident((struct wish){ .cn = "x", .names = "DNS:x", .issuer = &middle });
	struct ident other =
		make_ident((struct wish){ .cn = "y", .names = "DNS:x", .issuer = &middle });
	const struct {
		const struct ident *of;
		const struct ident *signer;
		int status;
		long to_s;
		const char *text; /* NULL: good */
	} cases[] = {
		{ &id, &middle, V_OCSP_CERTSTATUS_GOOD, DAY, NULL },
		{ &other, &middle, V_OCSP_CERTSTATUS_GOOD, DAY,
		  "f: the OCSP response is not of this certificate" },
		{ &id, &root, V_OCSP_CERTSTATUS_GOOD, DAY,
		  "f: the OCSP response is not signed by the issuer" },
		{ &id, &middle, V_OCSP_CERTSTATUS_REVOKED, DAY, "f: the certificate is revoked" },
		{ &id, &middle, V_OCSP_CERTSTATUS_GOOD, -60, "f: the OCSP response has expired" },
	};
	struct sl_cert_source s;
	struct sl_cert_set *set;
	struct found found;

	(void)state;
	append_pem(&id, &middle);
	s = source_of("f", &id);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int n;
		unsigned char *der = make_staple(cases[i].of, &middle, cases[i].signer,
						 cases[i].status, cases[i].to_s, &n);

		s.staple = der;
		s.staple_len = (size_t)n;
		assert_int_equal(make(&s, 1, &found, &set), 0);
		if (cases[i].text)
			only(&found, SL_CERT_STAPLE, cases[i].text);
		else
			assert_int_equal(found.n, 0);
		assert_int_equal(sl_cert_set_facts(set, 0)->staple_until_s > 0, !cases[i].text);
		sl_cert_set_unref(set);
		OPENSSL_free(der);
	}
	s.staple = "nonsense";
	s.staple_len = 8;
	assert_int_equal(make(&s, 1, &found, &set), 0);
	only(&found, SL_CERT_STAPLE, "f: the OCSP response cannot be read");
	sl_cert_set_unref(set);
	drop_ident(&id);
	drop_ident(&other);
}

static void any_prefix_of_a_file_is_survived(void **state)
{
	struct ident id = make_ident((struct wish){ .cn = "x", .names = "DNS:x" });
	struct sl_cert_source s = source_of("f", &id);
	struct sl_cert_set *set;
	struct found found;

	(void)state;
	for (size_t n = 0; n < strlen(id.pem); n += 7) {
		char *exact = malloc(n + 1);

		assert_non_null(exact);
		memcpy(exact, id.pem, n);
		s.chain = exact;
		s.chain_len = n;
		assert_int_equal(make(&s, 1, &found, &set), -EINVAL);
		free(exact);
	}
	s = source_of("f", &id);
	for (size_t n = 1; n < strlen(id.key_pem) - 1; n += 5) {
		char *exact = malloc(n);

		assert_non_null(exact);
		memcpy(exact, id.key_pem, n);
		s.key = exact;
		s.key_len = n;
		assert_int_equal(make(&s, 1, &found, &set), -EINVAL);
		free(exact);
	}
	drop_ident(&id);
}

/* ---- what is left of a key ---- */

/* Places in writable memory that hold these bytes (kept masked, so that the search is not one). */
static size_t places_of(const unsigned char *masked, size_t n)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	int mem = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	static unsigned char page[1 << 16];
	char line[512];
	size_t found = 0;

	assert_true(maps && mem >= 0);
	while (fgets(line, sizeof(line), maps)) {
		unsigned long from, to;
		char mode[5];

		if (sscanf(line, "%lx-%lx %4s", &from, &to, mode) != 3 || mode[1] != 'w')
			continue;
		for (unsigned long at = from; at < to; at += sizeof(page) - 64) {
			ssize_t got;

			if ((uintptr_t)page >= at && (uintptr_t)page < at + sizeof(page))
				continue;
			got = pread(mem, page, to - at < sizeof(page) ? to - at : sizeof(page),
				    (off_t)at);
			for (ssize_t i = 0; i + (ssize_t)n <= got; i++) {
				size_t k = 0;

				while (k < n && (page[i + (ssize_t)k] ^ 0x5a) == masked[k])
					k++;
				if (k == n)
					found++;
			}
		}
	}
	memset(page, 0, sizeof(page));
	(void)fclose(maps);
	(void)close(mem);
	return found;
}

static void keys_are_wiped(void **state)
{
	struct ident id = make_ident((struct wish){ .cn = "x", .names = "DNS:x" });
	struct sl_cert_source s = source_of("f", &id);
	unsigned char big[32];
	unsigned char little[32];
	unsigned char base64[24]; /* of the file, within one line */
	BIGNUM *secret = NULL;
	struct sl_cert_set *set;
	size_t by_writing; /* the library's own way to write the file leaves copies */

	(void)state;
#ifdef SL_SANITIZED
	drop_ident(&id);
	skip(); /* freed memory is kept aside, unwiped by others */
#endif
	assert_true(EVP_PKEY_get_bn_param(id.key, OSSL_PKEY_PARAM_PRIV_KEY, &secret));
	assert_int_equal(BN_bn2binpad(secret, big, 32), 32);
	BN_clear_free(secret);
	for (int i = 0; i < 32; i++)
		little[i] = big[31 - i] ^ 0x5a;
	for (int i = 0; i < 32; i++)
		big[i] ^= 0x5a;
	/* the second line of the file has the middle of the secret */
	for (int i = 0; i < 24; i++)
		base64[i] = (unsigned char)id.key_pem[28 + 65 + 2 + i] ^ 0x5a;
	by_writing = places_of(big, 32);
	set = set_of(&s, 1);
	assert_true(places_of(little, 32) >= 2);
	assert_true(places_of(base64, 24) >= 1);
	OPENSSL_cleanse(id.key_pem, strlen(id.key_pem));
	drop_ident(&id);
	assert_true(places_of(little, 32) >= 1); /* the set's */
	sl_cert_set_unref(set);
	print_message("left of a key: %zu scalars, %zu encoded (%zu by writing it), %zu lines\n",
		      places_of(little, 32), places_of(big, 32), by_writing, places_of(base64, 24));
	assert_int_equal(places_of(little, 32), 0);
	assert_int_equal(places_of(big, 32), 0);
	assert_int_equal(places_of(base64, 24), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keys_are_wiped),
		cmocka_unit_test(facts_are_those_of_the_certificate),
		cmocka_unit_test(key_and_chain_may_share_a_file),
		cmocka_unit_test(every_defect_has_its_words),
		cmocka_unit_test(times_are_told_and_do_not_refuse),
		cmocka_unit_test(chains_are_put_in_order),
		cmocka_unit_test(names_choose),
		cmocka_unit_test(staples_are_checked),
		cmocka_unit_test(any_prefix_of_a_file_is_survived),
	};

	return cmocka_run_group_tests(tests, make_authorities, drop_authorities);
}
