/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "tls/cert_set.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>

#include "base/str.h"
#include "core/tls_hello.h"
#include "tls/cert_check.h"
#include "tls/cert_set_ssl.h"
#include "tls/pem.h"

#define CHAIN_MAX 16
/* More names than any authority certifies at once. */
#define NAMES_MAX 1024
#define SUBJECT_MAX 256

struct cert {
	X509 *leaf;
	EVP_PKEY *key;
	STACK_OF(X509) * chain;
	unsigned char *staple;
	size_t staple_len;
	char *label;
	char *subject;
	char *issuer;
	char **names;
	struct sl_cert_facts facts;
};

/* The certificates of a name. */
struct slot {
	const char *name; /* a certificate's */
	size_t cert[SL_CERT_KIND_COUNT_];
};

struct sl_cert_set {
	unsigned n_refs; /* atomic */
	size_t n;
	struct cert *certs;
	size_t n_slots; /* sorted by name */
	struct slot *slots;
	struct slot fallback;
};

const char *sl_cert_finding_name(enum sl_cert_finding_kind kind)
{
	static const char *const names[] = {
#define X(id, name) [SL_CERT_##id] = name,
		SL_CERT_FINDINGS(X)
#undef X
	};

	return names[kind];
}

static const struct slot no_slot = { .cert = { SIZE_MAX, SIZE_MAX, SIZE_MAX } };

/* ---- one certificate ---- */

static void cert_done(struct cert *c)
{
	X509_free(c->leaf);
	EVP_PKEY_free(c->key); /* the library wipes it */
	sl_x509s_free(c->chain);
	free(c->staple);
	free(c->label);
	free(c->subject);
	free(c->issuer);
	for (size_t i = 0; i < c->facts.n_names; i++)
		free(c->names[i]);
	free(c->names);
}

/* Lower case; false: nothing that could be asked for. */
static bool read_name(const char *p, size_t n, char *ret)
{
	size_t len;
	size_t star = n > 2 && p[0] == '*' && p[1] == '.' ? 2 : 0;

	if (sl_name_normalize((struct sl_slice){ .p = p + star, .n = n - star }, false, ret + star,
			      &len) < 0)
		return false;
	memcpy(ret, "*.", star);
	return true;
}

static int add_name(struct cert *c, const ASN1_STRING *text)
{
	char name[SL_NAME_MAX + 3];
	char **names;

	if (c->facts.n_names >= NAMES_MAX || !read_name((const char *)ASN1_STRING_get0_data(text),
							(size_t)ASN1_STRING_length(text), name))
		return 0;
	names = realloc(c->names, (c->facts.n_names + 1) * sizeof(*names));
	if (!names)
		return -ENOMEM;
	c->names = names;
	c->facts.names = (const char *const *)names;
	names[c->facts.n_names] = strdup(name);
	if (!names[c->facts.n_names])
		return -ENOMEM;
	c->facts.n_names++;
	return 0;
}

/* The common name counts only where the certificate has no other way to say (RFC 6125). */
static int add_common_name(struct cert *c)
{
	const X509_NAME *subject = X509_get_subject_name(c->leaf);
	int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);

	return at < 0 ? 0 : add_name(c, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
}

static int read_names(struct cert *c)
{
	GENERAL_NAMES *alt = X509_get_ext_d2i(c->leaf, NID_subject_alt_name, NULL, NULL);
	bool has_dns = false;
	int r = 0;

	for (int i = 0; r == 0 && i < sk_GENERAL_NAME_num(alt); i++) {
		const GENERAL_NAME *name = sk_GENERAL_NAME_value(alt, i);

		if (name->type != GEN_DNS)
			continue;
		has_dns = true;
		r = add_name(c, name->d.dNSName);
	}
	GENERAL_NAMES_free(alt);
	ERR_clear_error();
	return r < 0 || has_dns ? r : add_common_name(c);
}

static char *say_dn(const X509_NAME *name)
{
	_cleanup_(sl_str_done) struct sl_str s = { 0 };
	_cleanup_(BIO_free_allp) BIO *out = BIO_new(BIO_s_mem());
	char *text;
	long n;

	if (!out || X509_NAME_print_ex(out, name, 0, XN_FLAG_RFC2253 & ~ASN1_STRFLGS_ESC_MSB) < 0)
		return NULL;
	n = BIO_get_mem_data(out, &text);
	sl_str_add(&s, "", 0);
	sl_str_add_escaped(&s, text, n > 0 ? (size_t)n : 0, SUBJECT_MAX);
	return sl_str_take(&s);
}

static int read_facts(struct cert *c)
{
	struct sl_cert_facts *f = &c->facts;
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned n = 0;

	c->subject = say_dn(X509_get_subject_name(c->leaf));
	c->issuer = say_dn(X509_get_issuer_name(c->leaf));
	if (!c->subject || !c->issuer || !X509_digest(c->leaf, EVP_sha256(), digest, &n))
		return -ENOMEM;
	for (unsigned i = 0; i < n && i < 32; i++)
		(void)snprintf(f->fingerprint + 2 * i, 3, "%02x", digest[i]);
	f->label = c->label;
	f->subject = c->subject;
	f->issuer = c->issuer;
	f->not_before_s = sl_asn1_seconds(X509_get0_notBefore(c->leaf));
	f->not_after_s = sl_asn1_seconds(X509_get0_notAfter(c->leaf));
	f->n_chain = (size_t)sk_X509_num(c->chain);
	return read_names(c);
}

static bool holds(const void *bytes, size_t n, const char *text)
{
	return n > 0 && memmem(bytes, n, text, strlen(text));
}

/* There is none: what is there instead, as far as it can be told. */
static const char *say_no_cert(const struct sl_cert_source *s)
{
	const unsigned char *p = s->chain;

	if (holds(p, s->chain_len, "PRIVATE KEY-----"))
		return "there is no certificate in it, but a private key";
	if (s->chain_len > 1 && p[0] == 0x30 && p[1] >= 0x80)
		return "there is no certificate in it: it is DER or PKCS #12, and not PEM";
	return "there is no certificate in it";
}

/* `*ret`: the certificate and its chain; a finding where there is none. */
static int read_chain(struct cert *c, const struct sl_cert_source *s, struct sl_cert_report *report)
{
	int r = sl_pem_certs(s->chain, s->chain_len, CHAIN_MAX, &c->chain);

	if (r == -ENOMEM)
		return r;
	if (r < 0) {
		sl_cert_report(report, SL_CERT_UNREADABLE, "%s",
			       r == -ENOENT  ? say_no_cert(s)
			       : r == -E2BIG ? "there are more than 16 certificates in it"
					     : "a certificate in it cannot be read");
		return 0;
	}
	c->leaf = sk_X509_shift(c->chain);
	return 0;
}

static int read_key(struct cert *c, const struct sl_cert_source *s, struct sl_cert_report *report)
{
	int r = sl_pem_key(s->key ? s->key : s->chain, s->key ? s->key_len : s->chain_len, &c->key);

	if (r == -ENOMEM || r == 0)
		return r;
	sl_cert_report(report, SL_CERT_NO_KEY, "%s",
		       r == -ENOENT && s->key && holds(s->key, s->key_len, "CERTIFICATE-----")
			       ? "there is no private key, but a certificate"
		       : r == -ENOENT ? "there is no private key"
		       : r == -EACCES ? "the key is protected by a passphrase"
				      : "the key cannot be read");
	return 0;
}

static int add_staple(struct cert *c, const struct sl_cert_source *s, struct sl_cert_report *report,
		      int64_t now_s)
{
	int64_t until_s = 0;

	if (!s->staple || !sl_cert_check_staple(report, s->staple, s->staple_len, c->leaf, c->chain,
						now_s, &until_s))
		return 0;
	c->staple = malloc(s->staple_len);
	if (!c->staple)
		return -ENOMEM;
	memcpy(c->staple, s->staple, s->staple_len);
	c->staple_len = s->staple_len;
	c->facts.staple_until_s = until_s;
	return 0;
}

static int cert_init(struct cert *c, const struct sl_cert_source *s, struct sl_cert_report *report,
		     int64_t now_s)
{
	int r;

	c->label = strdup(s->label);
	r = c->label ? read_chain(c, s, report) : -ENOMEM;
	if (r == 0)
		r = read_key(c, s, report);
	if (r < 0 || !c->leaf)
		return r;
	sl_cert_check_key(report, c->leaf, c->chain, c->key);
	if (report->is_fatal)
		return 0;
	(void)sl_cert_key_kind(c->key, &c->facts.kind, c->facts.key);
	sl_cert_order_chain(report, c->leaf, c->chain);
	sl_cert_check_times(report, c->leaf, c->chain, now_s);
	r = add_staple(c, s, report, now_s);
	sl_cert_drop_root(c->chain);
	if (r == 0)
		r = read_facts(c);
	if (r == 0 && c->facts.n_names == 0)
		sl_cert_report(report, SL_CERT_NO_NAME, "the certificate names no host");
	return r;
}

/* ---- names ---- */

static int compare_slots(const void *a, const void *b)
{
	return strcmp(((const struct slot *)a)->name, ((const struct slot *)b)->name);
}

static const struct slot *find_slot(const struct sl_cert_set *set, const char *name)
{
	struct slot key = { .name = name };

	return bsearch(&key, set->slots, set->n_slots, sizeof(key), compare_slots);
}

/* By name, and of one name in the order of the sources, so that the earlier one counts. */
struct claim {
	const char *name;
	size_t cert;
};

static int compare_claims(const void *a, const void *b)
{
	const struct claim *x = a;
	const struct claim *y = b;
	int r = strcmp(x->name, y->name);

	return r ? r : (x->cert > y->cert) - (x->cert < y->cert);
}

static void put_claim(struct sl_cert_set *set, const struct claim *claim,
		      struct sl_cert_report *report)
{
	const struct sl_cert_facts *f = &set->certs[claim->cert].facts;
	struct slot *last = set->n_slots ? &set->slots[set->n_slots - 1] : NULL;

	if (!last || strcmp(last->name, claim->name) != 0) {
		last = &set->slots[set->n_slots++];
		*last = no_slot;
		last->name = claim->name;
	}
	if (last->cert[f->kind] == SIZE_MAX) {
		last->cert[f->kind] = claim->cert;
		return;
	}
	if (last->cert[f->kind] == claim->cert)
		return; /* a certificate may name it twice */
	report->source = claim->cert;
	report->label = f->label;
	sl_cert_report(report, SL_CERT_DUPLICATE, "%s has such a certificate for %s already",
		       set->certs[last->cert[f->kind]].label, claim->name);
}

static int make_slots(struct sl_cert_set *set, struct sl_cert_report *report)
{
	_cleanup_free_ struct claim *claims = NULL;
	size_t n = 0;

	for (size_t i = 0; i < set->n; i++)
		n += set->certs[i].facts.n_names;
	claims = calloc(n + 1, sizeof(*claims));
	set->slots = calloc(n + 1, sizeof(*set->slots));
	if (!claims || !set->slots)
		return -ENOMEM;
	n = 0;
	for (size_t i = 0; i < set->n; i++)
		for (size_t k = 0; k < set->certs[i].facts.n_names; k++)
			claims[n++] = (struct claim){ set->certs[i].names[k], i };
	qsort(claims, n, sizeof(*claims), compare_claims);
	for (size_t i = 0; i < n; i++)
		put_claim(set, &claims[i], report);
	return 0;
}

static void choose_default(struct sl_cert_set *set)
{
	const struct cert *first = &set->certs[0];

	set->fallback = no_slot;
	if (first->facts.n_names > 0)
		set->fallback = *find_slot(set, first->names[0]);
	set->fallback.cert[first->facts.kind] = 0;
	for (int k = 0; k < SL_CERT_KIND_COUNT_; k++)
		if (set->fallback.cert[k] != SIZE_MAX)
			set->certs[set->fallback.cert[k]].facts.is_default = true;
}

static const struct slot *slot_of(const struct sl_cert_set *set, const char *sni, bool *ret_own)
{
	char name[SL_NAME_MAX + 1];
	char wild[SL_NAME_MAX + 3];
	const struct slot *slot = NULL;
	const char *dot;
	size_t len;

	if (sni && sl_name_normalize(sl_slice_of(sni), false, name, &len) == 0) {
		slot = find_slot(set, name);
		dot = strchr(name, '.');
		if (!slot && dot) {
			(void)snprintf(wild, sizeof(wild), "*%s", dot);
			slot = find_slot(set, wild);
		}
	}
	*ret_own = slot != NULL;
	return slot ? slot : &set->fallback;
}

bool sl_cert_set_find(const struct sl_cert_set *set, const char *sni,
		      size_t ret[SL_CERT_KIND_COUNT_])
{
	bool is_own;

	memcpy(ret, slot_of(set, sni, &is_own)->cert, sizeof(size_t[SL_CERT_KIND_COUNT_]));
	return is_own;
}

/* ---- the set ---- */

int sl_cert_set_new(const struct sl_cert_source *sources, size_t n, int64_t now_s,
		    sl_cert_found_fn found, void *owner, struct sl_cert_set **ret)
{
	_cleanup_(sl_cert_set_unrefp) struct sl_cert_set *set = NULL;
	struct sl_cert_report report = { .found = found, .owner = owner };
	bool is_fatal = false;
	int r;

	if (n == 0)
		return -EINVAL;
	set = calloc(1, sizeof(*set));
	if (!set)
		return -ENOMEM;
	set->n_refs = 1;
	set->certs = calloc(n, sizeof(*set->certs));
	if (!set->certs)
		return -ENOMEM;
	set->n = n;
	for (size_t i = 0; i < n; i++) {
		report.source = i;
		report.label = sources[i].label;
		report.is_fatal = false;
		r = cert_init(&set->certs[i], &sources[i], &report, now_s);
		if (r < 0)
			return r;
		is_fatal = is_fatal || report.is_fatal;
	}
	if (is_fatal)
		return -EINVAL;
	r = make_slots(set, &report);
	if (r < 0)
		return r;
	choose_default(set);
	*ret = SL_TAKE_PTR(set);
	return 0;
}

struct sl_cert_set *sl_cert_set_ref(struct sl_cert_set *set)
{
	(void)__atomic_add_fetch(&set->n_refs, 1, __ATOMIC_RELAXED);
	return set;
}

void sl_cert_set_unref(struct sl_cert_set *set)
{
	if (!set || __atomic_sub_fetch(&set->n_refs, 1, __ATOMIC_ACQ_REL) > 0)
		return;
	for (size_t i = 0; i < set->n; i++)
		cert_done(&set->certs[i]);
	free(set->certs);
	free(set->slots);
	free(set);
}

size_t sl_cert_set_count(const struct sl_cert_set *set)
{
	return set->n;
}

const struct sl_cert_facts *sl_cert_set_facts(const struct sl_cert_set *set, size_t i)
{
	return &set->certs[i].facts;
}

/* ---- towards the library ---- */

int sl_cert_set_install(const struct sl_cert_set *set, const char *sni, SSL *ssl)
{
	bool is_own;
	const struct slot *slot = slot_of(set, sni, &is_own);

	for (int k = 0; k < SL_CERT_KIND_COUNT_; k++) {
		const struct cert *c;

		if (slot->cert[k] == SIZE_MAX)
			continue;
		c = &set->certs[slot->cert[k]];
		if (!SSL_use_cert_and_key(ssl, c->leaf, c->key, c->chain, 1))
			return -EINVAL;
	}
	return 0;
}

int sl_cert_set_install_first(const struct sl_cert_set *set, SSL_CTX *ctx)
{
	const struct cert *c = &set->certs[0];

	return SSL_CTX_use_cert_and_key(ctx, c->leaf, c->key, c->chain, 1) ? 0 : -EINVAL;
}

bool sl_cert_set_staple(const struct sl_cert_set *set, SSL *ssl, const unsigned char **ret,
			size_t *ret_len)
{
	const X509 *leaf = SSL_get_certificate(ssl);

	for (size_t i = 0; leaf && i < set->n; i++) {
		const struct cert *c = &set->certs[i];

		if (c->leaf != leaf || !c->staple)
			continue;
		*ret = c->staple;
		*ret_len = c->staple_len;
		return true;
	}
	return false;
}
