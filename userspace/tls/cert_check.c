/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "tls/cert_check.h"

#include <errno.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/ocsp.h>
#include <openssl/x509v3.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "tls/pem.h"

SL_DEFINE_CLEANUP(OCSP_RESPONSE, OCSP_RESPONSE_free);
SL_DEFINE_CLEANUP(OCSP_BASICRESP, OCSP_BASICRESP_free);
SL_DEFINE_CLEANUP(OCSP_CERTID, OCSP_CERTID_free);

/* What level 2 of the library asks for: RSA 2048, P-224, SHA-224. */
#define STRENGTH_BITS 112
/* Clocks differ a little. */
#define STAPLE_SLACK_S 300

void sl_cert_report(struct sl_cert_report *report, enum sl_cert_finding_kind kind, const char *fmt,
		    ...)
{
	struct sl_cert_finding f = { .kind = kind, .source = report->source };
	int n = snprintf(f.text, sizeof(f.text), "%s: ", report->label);
	va_list ap;

	report->is_fatal = report->is_fatal || sl_cert_finding_is_fatal(kind);
	if (!report->found)
		return;
	va_start(ap, fmt);
	if (n > 0 && (size_t)n < sizeof(f.text))
		(void)vsnprintf(f.text + n, sizeof(f.text) - (size_t)n, fmt, ap);
	va_end(ap);
	report->found(report->owner, &f);
}

int64_t sl_asn1_seconds(const ASN1_TIME *t)
{
	struct tm tm = { 0 };

	if (!t || !ASN1_TIME_to_tm(t, &tm)) {
		ERR_clear_error();
		return INT64_MAX;
	}
	return timegm(&tm);
}

bool sl_cert_key_kind(EVP_PKEY *key, enum sl_cert_kind *ret, char name[24])
{
	switch (EVP_PKEY_get_base_id(key)) {
	case EVP_PKEY_EC:
		*ret = SL_CERT_EC;
		(void)snprintf(name, 24, "ec-%d", EVP_PKEY_get_bits(key));
		return true;
	case EVP_PKEY_RSA:
		*ret = SL_CERT_RSA;
		(void)snprintf(name, 24, "rsa-%d", EVP_PKEY_get_bits(key));
		return true;
	case EVP_PKEY_ED25519:
		*ret = SL_CERT_ED;
		(void)snprintf(name, 24, "ed25519");
		return true;
	default:
		return false;
	}
}

static void check_signature(struct sl_cert_report *report, X509 *x)
{
	int digest = 0;
	int bits = 0;

	/* nobody checks the signature of what is trusted by itself */
	if (X509_get_extension_flags(x) & EXFLAG_SS)
		return;
	if (!X509_get_signature_info(x, &digest, NULL, &bits, NULL)) {
		ERR_clear_error();
		return;
	}
	if (bits < STRENGTH_BITS)
		sl_cert_report(report, SL_CERT_WEAK, "signed with %s, which clients refuse",
			       OBJ_nid2sn(digest));
}

static bool is_of_another(STACK_OF(X509) * chain, EVP_PKEY *key)
{
	for (int i = 0; i < sk_X509_num(chain); i++) {
		EVP_PKEY *public = X509_get0_pubkey(sk_X509_value(chain, i));

		if (public && EVP_PKEY_eq(public, key) == 1)
			return true;
	}
	return false;
}

void sl_cert_check_key(struct sl_cert_report *report, X509 *leaf, STACK_OF(X509) * chain,
		       EVP_PKEY *key)
{
	EVP_PKEY *public = X509_get0_pubkey(leaf);
	enum sl_cert_kind kind;
	char name[24] = "";

	if (!public) {
		ERR_clear_error();
		sl_cert_report(report, SL_CERT_UNREADABLE, "the certificate's key cannot be read");
		return;
	}
	if (!sl_cert_key_kind(public, &kind, name))
		sl_cert_report(report, SL_CERT_WEAK,
			       "its kind of key is not one of ECDSA, RSA, Ed25519");
	else if (EVP_PKEY_get_security_bits(public) < STRENGTH_BITS)
		sl_cert_report(report, SL_CERT_WEAK, "the key (%s) is too short", name);
	check_signature(report, leaf);
	if (key && EVP_PKEY_eq(public, key) != 1 && is_of_another(chain, key))
		sl_cert_report(report, SL_CERT_NOT_FIRST,
			       "the certificate of the key has to be the first one in the file");
	else if (key && EVP_PKEY_eq(public, key) != 1)
		sl_cert_report(report, SL_CERT_KEY_MISMATCH,
			       "the key does not belong to the certificate");
	ERR_clear_error();
}

static void say_day(int64_t s, char ret[32])
{
	time_t t = (time_t)s;
	struct tm tm;

	if (!gmtime_r(&t, &tm) || strftime(ret, 32, "%Y-%m-%d %H:%M:%S UTC", &tm) == 0)
		(void)snprintf(ret, 32, "an unreadable time");
}

static void check_time(struct sl_cert_report *report, X509 *x, const char *which, int64_t now_s)
{
	int64_t from = sl_asn1_seconds(X509_get0_notBefore(x));
	int64_t to = sl_asn1_seconds(X509_get0_notAfter(x));
	char day[32];

	if (to < now_s) {
		say_day(to, day);
		sl_cert_report(report, SL_CERT_EXPIRED, "%s expired at %s", which, day);
	}
	if (from > now_s) {
		say_day(from, day);
		sl_cert_report(report, SL_CERT_NOT_YET_VALID, "%s is not valid before %s", which,
			       day);
	}
}

void sl_cert_check_times(struct sl_cert_report *report, X509 *leaf, STACK_OF(X509) * chain,
			 int64_t now_s)
{
	check_time(report, leaf, "the certificate", now_s);
	for (int i = 0; i < sk_X509_num(chain); i++)
		check_time(report, sk_X509_value(chain, i), "a certificate of its chain", now_s);
}

static bool is_issuer(X509 *issuer, X509 *of)
{
	bool is = X509_check_issued(issuer, of) == X509_V_OK;

	ERR_clear_error();
	return is;
}

static bool is_root(X509 *x)
{
	return is_issuer(x, x);
}

/* Moves the issuer of `of` to place `at`, from behind it; false: nobody there is. */
static bool bring_issuer(STACK_OF(X509) * chain, int at, X509 *of, bool *moved)
{
	for (int i = at; i < sk_X509_num(chain); i++) {
		X509 *x = sk_X509_value(chain, i);

		if (!is_issuer(x, of))
			continue;
		if (i != at) {
			(void)sk_X509_set(chain, i, sk_X509_value(chain, at));
			(void)sk_X509_set(chain, at, x);
			*moved = true;
		}
		return true;
	}
	return false;
}

/*
 * Where to fetch the issuer's certificate (RFC 5280 section 4.2.2.1): said where clients have only
 * the issuer's issuer. One that a root has signed itself mostly does not say it, and needs no
 * chain.
 */
static bool names_its_issuer(X509 *leaf)
{
	AUTHORITY_INFO_ACCESS *all = X509_get_ext_d2i(leaf, NID_info_access, NULL, NULL);
	bool hit = false;

	for (int i = 0; all && i < sk_ACCESS_DESCRIPTION_num(all); i++)
		hit = hit ||
		      OBJ_obj2nid(sk_ACCESS_DESCRIPTION_value(all, i)->method) == NID_ad_ca_issuers;
	AUTHORITY_INFO_ACCESS_free(all);
	return hit;
}

void sl_cert_order_chain(struct sl_cert_report *report, X509 *leaf, STACK_OF(X509) * chain)
{
	bool moved = false;
	X509 *of = leaf;
	int at = 0;

	while (!is_root(of) && bring_issuer(chain, at, of, &moved))
		of = sk_X509_value(chain, at++);
	if (moved)
		sl_cert_report(report, SL_CERT_CHAIN, "the chain is out of order; put right");
	if (at < sk_X509_num(chain))
		sl_cert_report(report, SL_CERT_CHAIN,
			       sk_X509_num(chain) - at == 1
				       ? "%d certificate does not belong to the chain; left out"
				       : "%d certificates do not belong to the chain; left out",
			       sk_X509_num(chain) - at);
	while (sk_X509_num(chain) > at)
		X509_free(sk_X509_pop(chain));
	if (!is_root(of) && at == 0 && names_its_issuer(leaf))
		sl_cert_report(report, SL_CERT_CHAIN,
			       "no certificate of its issuer: clients may not find one");
}

void sl_cert_drop_root(STACK_OF(X509) * chain)
{
	int n = sk_X509_num(chain);

	if (n > 0 && is_root(sk_X509_value(chain, n - 1)))
		X509_free(sk_X509_pop(chain));
}

/* Signed by the issuer, or by whom it says may. */
static bool is_signed(OCSP_BASICRESP *basic, X509 *issuer, STACK_OF(X509) * chain, int64_t now_s)
{
	_cleanup_(X509_STORE_freep) X509_STORE *store = X509_STORE_new();

	if (!store || !X509_STORE_add_cert(store, issuer) ||
	    !X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN))
		return false;
	X509_VERIFY_PARAM_set_time(X509_STORE_get0_param(store), (time_t)now_s);
	return OCSP_basic_verify(basic, chain, store, 0) == 1;
}

static const char *look_at_staple(OCSP_RESPONSE *response, X509 *leaf, X509 *issuer,
				  STACK_OF(X509) * chain, int64_t now_s, int64_t *ret_until_s)
{
	_cleanup_(OCSP_BASICRESP_freep) OCSP_BASICRESP *basic = NULL;
	_cleanup_(OCSP_CERTID_freep) OCSP_CERTID *id = NULL;
	ASN1_GENERALIZEDTIME *from = NULL;
	ASN1_GENERALIZEDTIME *to = NULL;
	int status = -1;

	if (OCSP_response_status(response) != OCSP_RESPONSE_STATUS_SUCCESSFUL)
		return "the OCSP response says that there is none";
	basic = OCSP_response_get1_basic(response);
	id = OCSP_cert_to_id(NULL, leaf, issuer);
	if (!basic || !id || !OCSP_resp_find_status(basic, id, &status, NULL, NULL, &from, &to))
		return "the OCSP response is not of this certificate";
	if (status != V_OCSP_CERTSTATUS_GOOD)
		return status == V_OCSP_CERTSTATUS_REVOKED ? "the certificate is revoked"
							   : "the OCSP response knows nothing of "
							     "the certificate";
	if (sl_asn1_seconds(from) > now_s + STAPLE_SLACK_S)
		return "the OCSP response is not valid yet";
	if (to && sl_asn1_seconds(to) < now_s)
		return "the OCSP response has expired";
	if (!is_signed(basic, issuer, chain, now_s))
		return "the OCSP response is not signed by the issuer";
	*ret_until_s = to ? sl_asn1_seconds(to) : INT64_MAX;
	return NULL;
}

bool sl_cert_check_staple(struct sl_cert_report *report, const void *bytes, size_t n, X509 *leaf,
			  STACK_OF(X509) * chain, int64_t now_s, int64_t *ret_until_s)
{
	_cleanup_(OCSP_RESPONSE_freep) OCSP_RESPONSE *response = NULL;
	const unsigned char *p = bytes;
	const char *why = "the OCSP response cannot be checked without the issuer's certificate";

	if (n <= INT_MAX)
		response = d2i_OCSP_RESPONSE(NULL, &p, (long)n);
	if (!response || p != (const unsigned char *)bytes + n)
		why = "the OCSP response cannot be read";
	else if (sk_X509_num(chain) > 0)
		why = look_at_staple(response, leaf, sk_X509_value(chain, 0), chain, now_s,
				     ret_until_s);
	ERR_clear_error();
	if (why)
		sl_cert_report(report, SL_CERT_STAPLE, "%s", why);
	return !why;
}
