/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "tls/library.h"

#include <errno.h>
#include <malloc.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <string.h>

/*
 * The library's readers of keys leave decoded copies in memory they free, and offer no way to have
 * them wiped. So while a thread reads a key, whatever it frees is.
 */
static _Thread_local bool is_wiping;

void sl_tls_wipe_what_is_freed(bool on)
{
	is_wiping = on;
}

static void *on_malloc(size_t n, const char *file, int line)
{
	(void)file;
	(void)line;
	return n > 0 ? malloc(n) : NULL;
}

static void on_free(void *p, const char *file, int line)
{
	(void)file;
	(void)line;
	if (is_wiping && p)
		OPENSSL_cleanse(p, malloc_usable_size(p));
	free(p);
}

static void *on_realloc(void *p, size_t n, const char *file, int line)
{
	size_t had;
	void *moved;

	if (n == 0) {
		on_free(p, file, line);
		return NULL;
	}
	if (!is_wiping || !p)
		return realloc(p, n);
	had = malloc_usable_size(p);
	moved = malloc(n);
	if (!moved)
		return NULL;
	memcpy(moved, p, had < n ? had : n);
	on_free(p, file, line);
	return moved;
}

/* The library's own lock makes this safe from any thread and cheap when repeated. */
int sl_tls_init(void)
{
	unsigned char byte;

	/* refused once the library has allocated something, which is each time but the first */
	(void)CRYPTO_set_mem_functions(on_malloc, on_realloc, on_free);
	if (!OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_LOAD_SSL_STRINGS |
				      OPENSSL_INIT_LOAD_CRYPTO_STRINGS,
			      NULL))
		return -EIO;
	/* Opens its sources now, should they be files. */
	return RAND_bytes(&byte, 1) == 1 ? 0 : -EIO;
}
