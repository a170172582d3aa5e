/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "tls/library.h"

#include <errno.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>

/* The library's own lock makes this safe from any thread and cheap when repeated. */
int sl_tls_init(void)
{
	unsigned char byte;

	if (!OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_LOAD_SSL_STRINGS |
				      OPENSSL_INIT_LOAD_CRYPTO_STRINGS,
			      NULL))
		return -EIO;
	/* Opens its sources now, should they be files. */
	return RAND_bytes(&byte, 1) == 1 ? 0 : -EIO;
}
