/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "tls/ktls.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "tls/ktls_ssl.h"

#define MASTER_SIZE 48
#define RANDOM_SIZE 32
#define SALT_SIZE TLS_CIPHER_AES_GCM_128_SALT_SIZE
#define KEY_MAX 32
#define IV_MAX 12
#define RECORD_HEADER 5
#define CHANGE_CIPHER_SPEC 20

/* ---- the host ---- */

const char *sl_ktls_refusal(int error)
{
	switch (error) {
	case ENOENT:
	case ENOPROTOOPT:
		return "the kernel has no TLS";
	case ENOTCONN:
		return "the peer has ended already";
	case EEXIST:
		return "the socket has another protocol on it";
	case EPERM:
	case EACCES:
		return "the process may not ask for it";
	case ENOMEM:
	case ENOBUFS:
		return "out of memory";
	default:
		return "the kernel refuses it";
	}
}

const char *sl_tls_ktls_missing(void)
{
	_cleanup_fd_ int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return "no socket to ask with";
	/* a socket that is not connected is refused only after the protocol was found */
	if (setsockopt(fd, IPPROTO_TCP, TCP_ULP, "tls", sizeof("tls")) == 0 || errno == ENOTCONN)
		return NULL;
	return sl_ktls_refusal(errno);
}

/* ---- records ---- */

void sl_ktls_count(struct sl_ktls_count *c, const void *bytes, size_t n)
{
	const unsigned char *p = bytes;

	while (n > 0) {
		size_t k = 1;

		if (c->at < RECORD_HEADER || (c->at < SL_KTLS_HEAD && c->at < c->len))
			c->head[c->at] = *p;
		else
			k = n < c->len - c->at ? n : c->len - c->at;
		c->at += k;
		p += k;
		n -= k;
		if (c->at == RECORD_HEADER)
			c->len = RECORD_HEADER + ((size_t)c->head[3] << 8 | c->head[4]);
		if (c->at < RECORD_HEADER || c->at < c->len)
			continue;
		c->n += c->is_secret;
		c->is_secret |= c->head[0] == CHANGE_CIPHER_SPEC;
		c->at = 0;
	}
}

/* ---- keys ---- */

struct suite {
	int nid;
	uint16_t kernel_type;
	socklen_t len;
	size_t key_len, iv_len;
};

static const struct suite suites[] = {
	{ NID_aes_128_gcm, TLS_CIPHER_AES_GCM_128, sizeof(struct tls12_crypto_info_aes_gcm_128), 16,
	  SALT_SIZE },
	{ NID_aes_256_gcm, TLS_CIPHER_AES_GCM_256, sizeof(struct tls12_crypto_info_aes_gcm_256), 32,
	  SALT_SIZE },
	{ NID_chacha20_poly1305, TLS_CIPHER_CHACHA20_POLY1305,
	  sizeof(struct tls12_crypto_info_chacha20_poly1305), 32, IV_MAX },
};

static const struct suite *suite_of(const SSL *ssl)
{
	const SSL_CIPHER *cipher = SSL_get_current_cipher(ssl);

	for (size_t i = 0; cipher && i < sizeof(suites) / sizeof(suites[0]); i++)
		if (suites[i].nid == SSL_CIPHER_get_cipher_nid(cipher))
			return &suites[i];
	return NULL;
}

bool sl_ktls_has_cipher(const SSL *ssl)
{
	return suite_of(ssl) != NULL;
}

/* RFC 5246 section 6.3. */
static int expand(const SSL *ssl, unsigned char *ret, size_t n)
{
	unsigned char master[MASTER_SIZE];
	unsigned char seed[2 * RANDOM_SIZE];
	size_t master_len = SSL_SESSION_get_master_key(SSL_get_session(ssl), master, MASTER_SIZE);
	const EVP_MD *md = SSL_CIPHER_get_handshake_digest(SSL_get_current_cipher(ssl));
	EVP_KDF *kdf = EVP_KDF_fetch(NULL, "TLS1-PRF", NULL);
	EVP_KDF_CTX *ctx = kdf ? EVP_KDF_CTX_new(kdf) : NULL;
	OSSL_PARAM params[5];
	int r = ctx ? -EIO : -ENOMEM;

	EVP_KDF_free(kdf);
	(void)SSL_get_server_random(ssl, seed, RANDOM_SIZE);
	(void)SSL_get_client_random(ssl, seed + RANDOM_SIZE, RANDOM_SIZE);
	if (ctx && md && master_len == MASTER_SIZE) {
		params[0] = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST,
							     (char *)EVP_MD_get0_name(md), 0);
		params[1] = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SECRET, master,
							      MASTER_SIZE);
		params[2] = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SEED, "key expansion",
							      sizeof("key expansion") - 1);
		params[3] =
			OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SEED, seed, sizeof(seed));
		params[4] = OSSL_PARAM_construct_end();
		r = EVP_KDF_derive(ctx, ret, n, params) == 1 ? 0 : -EIO;
	}
	EVP_KDF_CTX_free(ctx);
	explicit_bzero(master, sizeof(master));
	return r;
}

/*
 * The next nonce behind the last one: all the library has used are below it, and no other may
 * come twice. Read by the kernel only when sending.
 */
static void next_nonce(const struct sl_ktls_count *c, unsigned char *ret)
{
	memcpy(ret, c->head + RECORD_HEADER, 8);
	for (int i = 7; i >= 0 && ++ret[i] == 0;)
		i--;
}

static void put_number(unsigned char ret[8], uint64_t n)
{
	for (int i = 7; i >= 0; i--, n >>= 8)
		ret[i] = (unsigned char)n;
}

static void fill(const struct suite *suite, const struct sl_ktls_count *c, const unsigned char *key,
		 const unsigned char *iv, union sl_ktls_key *ret)
{
	ret->info.version = TLS_1_2_VERSION;
	ret->info.cipher_type = suite->kernel_type;
	switch (suite->kernel_type) {
	case TLS_CIPHER_AES_GCM_128:
		memcpy(ret->gcm_128.key, key, sizeof(ret->gcm_128.key));
		memcpy(ret->gcm_128.salt, iv, SALT_SIZE);
		next_nonce(c, ret->gcm_128.iv);
		put_number(ret->gcm_128.rec_seq, c->n);
		break;
	case TLS_CIPHER_AES_GCM_256:
		memcpy(ret->gcm_256.key, key, sizeof(ret->gcm_256.key));
		memcpy(ret->gcm_256.salt, iv, SALT_SIZE);
		next_nonce(c, ret->gcm_256.iv);
		put_number(ret->gcm_256.rec_seq, c->n);
		break;
	default:
		memcpy(ret->chacha20.key, key, sizeof(ret->chacha20.key));
		memcpy(ret->chacha20.iv, iv, sizeof(ret->chacha20.iv));
		put_number(ret->chacha20.rec_seq, c->n);
	}
}

int sl_ktls_derive(const SSL *ssl, const struct sl_ktls_count *in, const struct sl_ktls_count *out,
		   struct sl_ktls_keys *ret)
{
	const struct suite *suite = suite_of(ssl);
	unsigned char block[2 * (KEY_MAX + IV_MAX)];
	const unsigned char *iv = block + 2 * suite->key_len;
	size_t ours = SSL_is_server(ssl) ? 1 : 0; /* the client's come first */
	int r = expand(ssl, block, 2 * (suite->key_len + suite->iv_len));

	*ret = (struct sl_ktls_keys){ .len = suite->len };
	if (r == 0) {
		fill(suite, out, block + ours * suite->key_len, iv + ours * suite->iv_len,
		     &ret->tx);
		fill(suite, in, block + !ours * suite->key_len, iv + !ours * suite->iv_len,
		     &ret->rx);
	}
	explicit_bzero(block, sizeof(block));
	return r;
}
