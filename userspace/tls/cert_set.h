/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_TLS_CERT_SET_H
#define SL_TLS_CERT_SET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

/*
 * The certificates of a listener or route, with their keys: made from bytes, immutable, counted.
 * A new set takes the place of an old one for new handshakes; those under way keep theirs, and
 * the keys are wiped when the last of them is over. No file and no clock: the caller reads the one
 * and says what the other shows.
 *
 * Of a name (SNI) the certificates are those of the exact name, else those of the
 * wildcard for its first label, else the default ones: of the first source, and others of its first
 * name. A name may have one certificate per kind of key; the client's offer decides between them.
 */
struct sl_cert_set;

enum sl_cert_kind {
	SL_CERT_EC = 0,
	SL_CERT_RSA,
	SL_CERT_ED,
	SL_CERT_KIND_COUNT_,
};

/* One certificate. Bytes are borrowed during the call, and the caller wipes those of the key. */
struct sl_cert_source {
	const char
		*label; /* for messages: the file, or what else tells an operator where to look */
	const void *chain; /* PEM: the certificate, then those of its issuers */
	size_t chain_len;
	const void *key; /* PEM; NULL: in `chain`, too */
	size_t key_len;
	const void *staple; /* DER: an OCSP response to be sent along; NULL: none */
	size_t staple_len;
};

/* What is wrong with a source; the first ones make the whole set unusable. */
#define SL_CERT_FINDINGS(X)                                                                     \
	X(UNREADABLE, "unreadable") /* no certificate, or not one that can be read */           \
	X(NO_KEY, "no_key")                                                                     \
	X(KEY_MISMATCH, "key_mismatch")                                                         \
	X(NOT_FIRST, "not_first") /* the key is of another certificate in the file */           \
	X(WEAK, "weak")           /* key or signature: clients and library refuse it */         \
	X(EXPIRED, "expired")     /* from here on the set can be used */                        \
	X(NOT_YET_VALID, "not_yet_valid")                                                       \
	X(CHAIN, "chain")         /* out of order, which is put right, or cannot be followed */ \
	X(NO_NAME, "no_name")     /* can only be the default */                                 \
	X(DUPLICATE, "duplicate") /* an earlier source has the name with this kind of key */    \
	X(STAPLE, "staple")       /* is left out */

enum sl_cert_finding_kind {
#define X(id, name) SL_CERT_##id,
	SL_CERT_FINDINGS(X)
#undef X
		SL_CERT_FINDING_COUNT_,
};
const char *sl_cert_finding_name(enum sl_cert_finding_kind kind);

static inline bool sl_cert_finding_is_fatal(enum sl_cert_finding_kind kind)
{
	return kind < SL_CERT_EXPIRED;
}

struct sl_cert_finding {
	enum sl_cert_finding_kind kind;
	size_t source;
	char text[256]; /* "LABEL: what" */
};
typedef void (*sl_cert_found_fn)(void *owner, const struct sl_cert_finding *finding);

/*
 * `now_s`: seconds since 1970. All findings of all sources are told (`found` may be NULL) before
 * -EINVAL is returned for fatal ones. An expired certificate is a finding and no failure:
 * whether it is better than what is in use is the caller's to say.
 */
SL_MUST_CHECK int sl_cert_set_new(const struct sl_cert_source *sources, size_t n, int64_t now_s,
				  sl_cert_found_fn found, void *owner, struct sl_cert_set **ret);
struct sl_cert_set *sl_cert_set_ref(struct sl_cert_set *set); /* from any thread */
void sl_cert_set_unref(struct sl_cert_set *set);              /* so is this; accepts NULL */
SL_DEFINE_CLEANUP(struct sl_cert_set, sl_cert_set_unref);

/* For people; lives as long as the set. */
struct sl_cert_facts {
	const char *label;
	const char *subject; /* escaped */
	const char *issuer;
	const char *const *names; /* lower case, "*.x" for wildcards */
	size_t n_names;
	int64_t not_before_s; /* seconds since 1970 */
	int64_t not_after_s;
	enum sl_cert_kind kind;
	char key[24];           /* "ec-256", "rsa-2048", "ed25519" */
	char fingerprint[65];   /* SHA-256 of the certificate, hexadecimal */
	size_t n_chain;         /* certificates sent after it */
	int64_t staple_until_s; /* its response is good until then; 0: none is sent */
	bool is_default;
};
size_t sl_cert_set_count(const struct sl_cert_set *set);
const struct sl_cert_facts *sl_cert_set_facts(const struct sl_cert_set *set, size_t i);
/*
 * Which one of each kind a handshake for that name is given; SIZE_MAX: none. NULL or what is no
 * name: the default. Returns false when it is the default's for want of a better.
 */
bool sl_cert_set_find(const struct sl_cert_set *set, const char *sni,
		      size_t ret[SL_CERT_KIND_COUNT_]);

#endif
