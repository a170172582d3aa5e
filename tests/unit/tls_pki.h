/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TLS_PKI_H
#define TLS_PKI_H

/* Authorities and certificates for tests, made on the spot. */

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "tls/cert_set.h"

#define DAY 86400

struct ident {
	X509 *x;
	EVP_PKEY *key;
	char *pem; /* the certificate, then those that were appended */
	char *key_pem;
};

/* What a certificate is to be; zeros are the usual. */
struct wish {
	const char *cn;
	const char *names;          /* "DNS:a.example,DNS:*.b.example"; NULL: none */
	const char *usage;          /* extended; NULL: none */
	const char *info;           /* where its issuer is: NULL: not said */
	const struct ident *issuer; /* NULL: itself */
	long from_s, to_s;          /* from now; 0: an hour ago, and in ten days */
	const char *kind;           /* "ec" (NULL), "rsa", "rsa1024", "ed" */
	bool is_ca;
	bool is_sha1;
};

static inline EVP_PKEY *make_key(const char *kind)
{
	if (!kind || strcmp(kind, "ec") == 0)
		return EVP_EC_gen("P-256");
	if (strcmp(kind, "ed") == 0)
		return EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	return EVP_RSA_gen(strcmp(kind, "rsa1024") == 0 ? 1024 : 2048);
}

static inline void add_extension(X509 *x, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX ctx;
	X509_EXTENSION *e;

	X509V3_set_ctx(&ctx, issuer, x, NULL, NULL, 0);
	e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
	assert_non_null(e);
	assert_true(X509_add_ext(x, e, -1));
	X509_EXTENSION_free(e);
}

static inline char *take_text(BIO *out)
{
	char *p;
	long n = BIO_get_mem_data(out, &p);
	char *text = strndup(p, (size_t)n);

	assert_non_null(text);
	BIO_free(out);
	return text;
}

static inline char *pem_of(X509 *x)
{
	BIO *out = BIO_new(BIO_s_mem());

	assert_true(PEM_write_bio_X509(out, x));
	return take_text(out);
}

static inline struct ident make_ident(struct wish w)
{
	struct ident id = { .x = X509_new(), .key = make_key(w.kind) };
	X509 *issuer = w.issuer ? w.issuer->x : id.x;
	EVP_PKEY *signer = w.issuer ? w.issuer->key : id.key;
	static long serial = 1;
	BIO *out = BIO_new(BIO_s_mem());
	const EVP_MD *md = w.is_sha1 ? EVP_sha1() : EVP_sha256();

	assert_true(id.x && id.key);
	assert_true(X509_set_version(id.x, 2));
	assert_true(ASN1_INTEGER_set(X509_get_serialNumber(id.x), serial++));
	assert_non_null(X509_gmtime_adj(X509_getm_notBefore(id.x), w.from_s ? w.from_s : -3600));
	assert_non_null(X509_gmtime_adj(X509_getm_notAfter(id.x), w.to_s ? w.to_s : 10 * DAY));
	assert_true(X509_set_pubkey(id.x, id.key));
	assert_true(X509_NAME_add_entry_by_txt(X509_get_subject_name(id.x), "CN", MBSTRING_UTF8,
					       (const unsigned char *)w.cn, -1, -1, 0));
	assert_true(X509_set_issuer_name(id.x, X509_get_subject_name(issuer)));
	add_extension(id.x, issuer, NID_basic_constraints,
		      w.is_ca ? "critical,CA:TRUE" : "CA:FALSE");
	add_extension(id.x, issuer, NID_subject_key_identifier, "hash");
	if (w.names)
		add_extension(id.x, issuer, NID_subject_alt_name, w.names);
	if (w.usage)
		add_extension(id.x, issuer, NID_ext_key_usage, w.usage);
	if (w.info)
		add_extension(id.x, issuer, NID_info_access, w.info);
	if (EVP_PKEY_get_base_id(signer) == EVP_PKEY_ED25519)
		md = NULL;
	assert_true(X509_sign(id.x, signer, md) > 0);
	id.pem = pem_of(id.x);
	assert_true(PEM_write_bio_PrivateKey(out, id.key, NULL, NULL, 0, NULL, NULL));
	id.key_pem = take_text(out);
	return id;
}

/* Appends the certificate of another, as chains have it. */
static inline void append_pem(struct ident *id, const struct ident *of)
{
	char *both = NULL;

	assert_true(asprintf(&both, "%s%s", id->pem, of->pem) > 0);
	free(id->pem);
	id->pem = both;
}

static inline void drop_ident(struct ident *id)
{
	X509_free(id->x);
	EVP_PKEY_free(id->key);
	free(id->pem);
	free(id->key_pem);
	*id = (struct ident){ 0 };
}

static inline struct sl_cert_source source_of(const char *label, const struct ident *id)
{
	return (struct sl_cert_source){ .label = label,
					.chain = id->pem,
					.chain_len = strlen(id->pem),
					.key = id->key_pem,
					.key_len = strlen(id->key_pem) };
}

static inline struct sl_cert_set *set_of(const struct sl_cert_source *sources, size_t n)
{
	struct sl_cert_set *set = NULL;

	assert_int_equal(sl_cert_set_new(sources, n, time(NULL), NULL, NULL, &set), 0);
	return set;
}

static inline struct sl_cert_set *set_of_one(const struct ident *id)
{
	struct sl_cert_source s = source_of("one", id);

	return set_of(&s, 1);
}

#endif
