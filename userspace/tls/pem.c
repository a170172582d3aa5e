/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "tls/pem.h"

#include <errno.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdbool.h>
#include <string.h>

#include "tls/library.h"

/* More than any store of a system has. */
#define TRUSTED_MAX 4096

void sl_x509s_free(STACK_OF(X509) * certs)
{
	sk_X509_pop_free(certs, X509_free);
}

/* The end of the bytes is an error to the library; what is really wrong is another. */
static int why_none(void)
{
	unsigned long e = ERR_peek_last_error();

	ERR_clear_error();
	if (ERR_GET_REASON(e) == ERR_R_MALLOC_FAILURE)
		return -ENOMEM;
	return ERR_GET_LIB(e) == ERR_LIB_PEM && ERR_GET_REASON(e) == PEM_R_NO_START_LINE ? -ENOENT
											 : -EBADMSG;
}

static int open_bytes(const void *bytes, size_t n, BIO **ret)
{
	if (n == 0)
		return -ENOENT;
	if (n > INT_MAX)
		return -E2BIG;
	ERR_clear_error();
	*ret = BIO_new_mem_buf(bytes, (int)n);
	return *ret ? 0 : -ENOMEM;
}

int sl_pem_certs(const void *bytes, size_t n, int max, STACK_OF(X509) * *ret)
{
	_cleanup_(BIO_free_allp) BIO *in = NULL;
	_cleanup_(sl_x509s_freep) STACK_OF(X509) *certs = sk_X509_new_null();
	int r = open_bytes(bytes, n, &in);
	X509 *x;

	if (r < 0)
		return r;
	if (!certs)
		return -ENOMEM;
	while ((x = PEM_read_bio_X509(in, NULL, NULL, NULL))) {
		if (sk_X509_num(certs) >= max) {
			X509_free(x);
			return -E2BIG;
		}
		if (!sk_X509_push(certs, x)) {
			X509_free(x);
			return -ENOMEM;
		}
	}
	r = why_none();
	if (r != -ENOENT || sk_X509_num(certs) == 0)
		return r;
	*ret = SL_TAKE_PTR(certs);
	return 0;
}

/* Without this the library would ask at the terminal. */
static int no_passphrase(char *buf, int size, int is_write, void *was_asked)
{
	(void)buf;
	(void)size;
	(void)is_write;
	*(bool *)was_asked = true;
	return -1;
}

int sl_pem_key(const void *bytes, size_t n, EVP_PKEY **ret)
{
	_cleanup_(BIO_free_allp) BIO *in = NULL;
	bool was_asked = false;
	EVP_PKEY *key;
	int r = open_bytes(bytes, n, &in);

	if (r < 0)
		return r;
	sl_tls_wipe_what_is_freed(true);
	key = PEM_read_bio_PrivateKey(in, NULL, no_passphrase, &was_asked);
	sl_tls_wipe_what_is_freed(false);
	if (key) {
		ERR_clear_error();
		*ret = key;
		return 0;
	}
	r = why_none();
	if (was_asked)
		return -EACCES;
	/* The decoders say "unsupported" of bytes without a key, too. */
	return r == -EBADMSG && !memmem(bytes, n, "PRIVATE KEY-----", 16) ? -ENOENT : r;
}

int sl_pem_store(const void *bytes, size_t n, X509_STORE **ret)
{
	_cleanup_(sl_x509s_freep) STACK_OF(X509) *certs = NULL;
	_cleanup_(X509_STORE_freep) X509_STORE *store = NULL;
	int r = sl_pem_certs(bytes, n, TRUSTED_MAX, &certs);

	if (r < 0)
		return r;
	store = X509_STORE_new();
	if (!store)
		return -ENOMEM;
	for (int i = 0; i < sk_X509_num(certs); i++)
		if (!X509_STORE_add_cert(store, sk_X509_value(certs, i)))
			return -ENOMEM;
	/* Whoever names an intermediate authority trusts that one, and not all of its root's. */
	if (!X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN | X509_V_FLAG_TRUSTED_FIRST))
		return -ENOMEM;
	*ret = SL_TAKE_PTR(store);
	return 0;
}
