/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_TLS_CERT_CHECK_H
#define SL_TLS_CERT_CHECK_H

/* Within tls/ only: what makes a certificate fit for use, looked at when a set is made. */

#include <openssl/x509.h>

#include "tls/cert_set.h"

/* Where findings of one source go. */
struct sl_cert_report {
	sl_cert_found_fn found; /* may be NULL */
	void *owner;
	size_t source;
	const char *label;
	bool is_fatal; /* a finding so far was */
};
void sl_cert_report(struct sl_cert_report *report, enum sl_cert_finding_kind kind, const char *fmt,
		    ...) SL_PRINTF(3, 4);

/* Seconds since 1970; INT64_MAX for what cannot be read. */
int64_t sl_asn1_seconds(const ASN1_TIME *t);

/* Kind and name of a key; false: one that TLS here has no use for. */
bool sl_cert_key_kind(EVP_PKEY *key, enum sl_cert_kind *ret, char name[24]);
void sl_cert_check_key(struct sl_cert_report *report, X509 *leaf, STACK_OF(X509) * chain,
		       EVP_PKEY *key);
void sl_cert_check_times(struct sl_cert_report *report, X509 *leaf, STACK_OF(X509) * chain,
			 int64_t now_s);
/*
 * Brings the chain into the order in which each issues the one before; what does not belong to it
 * is dropped.
 */
void sl_cert_order_chain(struct sl_cert_report *report, X509 *leaf, STACK_OF(X509) * chain);
/* A root at the end need not be sent: clients have it, or do not trust it. */
void sl_cert_drop_root(STACK_OF(X509) * chain);
/* Whether the response can be sent with the leaf; then `ret_until_s` is the end of its time. */
bool sl_cert_check_staple(struct sl_cert_report *report, const void *bytes, size_t n, X509 *leaf,
			  STACK_OF(X509) * chain, int64_t now_s, int64_t *ret_until_s);

#endif
