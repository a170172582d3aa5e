/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "tls/tickets.h"

#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/params.h>
#include <openssl/rand.h>
#include <string.h>

#include "tls/tickets_ssl.h"

struct sl_tls_tickets {
	unsigned n_refs; /* atomic */
	size_t n;
	struct sl_tls_ticket_key keys[SL_TLS_TICKET_KEYS_MAX];
};

int sl_tls_tickets_new(const struct sl_tls_ticket_key *keys, size_t n, struct sl_tls_tickets **ret)
{
	struct sl_tls_tickets *t;

	if (n == 0 || n > SL_TLS_TICKET_KEYS_MAX)
		return -EINVAL;
	t = calloc(1, sizeof(*t));
	if (!t)
		return -ENOMEM;
	t->n_refs = 1;
	t->n = n;
	memcpy(t->keys, keys, n * sizeof(*keys));
	*ret = t;
	return 0;
}

struct sl_tls_tickets *sl_tls_tickets_ref(struct sl_tls_tickets *tickets)
{
	(void)__atomic_add_fetch(&tickets->n_refs, 1, __ATOMIC_RELAXED);
	return tickets;
}

void sl_tls_tickets_unref(struct sl_tls_tickets *tickets)
{
	if (!tickets || __atomic_sub_fetch(&tickets->n_refs, 1, __ATOMIC_ACQ_REL) > 0)
		return;
	OPENSSL_cleanse(tickets, sizeof(*tickets));
	free(tickets);
}

int sl_tls_ticket_key_make(struct sl_tls_ticket_key *ret)
{
	return RAND_priv_bytes((unsigned char *)ret, sizeof(*ret)) == 1 ? 0 : -EIO;
}

static int find_key(const struct sl_tls_tickets *t, const unsigned char name[16])
{
	for (size_t i = 0; i < t->n; i++)
		if (memcmp(t->keys[i].name, name, 16) == 0)
			return (int)i;
	return -1;
}

int sl_tls_tickets_use(const struct sl_tls_tickets *tickets, unsigned char name[16],
		       unsigned char iv[16], EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, bool seal,
		       bool once)
{
	const struct sl_tls_ticket_key *key;
	OSSL_PARAM params[3];
	int at = 0;

	if (!tickets)
		return seal ? -1 : 0;
	if (!seal)
		at = find_key(tickets, name);
	if (at < 0)
		return 0; /* the handshake goes on without it */
	key = &tickets->keys[at];
	if (seal) {
		memcpy(name, key->name, 16);
		if (RAND_bytes(iv, 16) != 1)
			return -1;
	}
	params[0] = OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, (void *)key->mac,
						      sizeof(key->mac));
	params[1] = OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char *)"sha256", 0);
	params[2] = OSSL_PARAM_construct_end();
	if (!EVP_CipherInit_ex(cipher, EVP_aes_256_cbc(), NULL, key->cipher, iv, seal) ||
	    !EVP_MAC_CTX_set_params(mac, params))
		return -1;
	return seal || (at == 0 && !once) ? 1 : 2;
}
