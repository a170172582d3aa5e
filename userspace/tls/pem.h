/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_TLS_PEM_H
#define SL_TLS_PEM_H

/* Within tls/ only: PEM bytes to what the library works with. */

#include <openssl/x509.h>
#include <stddef.h>

#include "base/cleanup.h"

SL_DEFINE_CLEANUP(BIO, BIO_free_all);
SL_DEFINE_CLEANUP(X509, X509_free);
SL_DEFINE_CLEANUP(EVP_PKEY, EVP_PKEY_free);
SL_DEFINE_CLEANUP(X509_STORE, X509_STORE_free);

void sl_x509s_free(STACK_OF(X509) * certs); /* accepts NULL */

static inline void sl_x509s_freep(STACK_OF(X509) * *p)
{
	sl_x509s_free(*p);
}

/*
 * All certificates in the bytes, in their order; what else is there is skipped. -ENOENT: there is
 * none; -EBADMSG: one cannot be read; -E2BIG: more than `max`.
 */
SL_MUST_CHECK int sl_pem_certs(const void *bytes, size_t n, int max, STACK_OF(X509) * *ret);
/*
 * The first private key. -ENOENT: there is none; -EACCES: it is protected by a passphrase, which
 * nobody is asked for; -EBADMSG: it cannot be read.
 */
SL_MUST_CHECK int sl_pem_key(const void *bytes, size_t n, EVP_PKEY **ret);
/* What is trusted: certificates as above. */
SL_MUST_CHECK int sl_pem_store(const void *bytes, size_t n, X509_STORE **ret);

#endif
