/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What became of a handshake, in words for people. */
#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/str.h"
#include "tls/backend_ssl.h"
#include "tls/stream_ssl.h"

#define ERROR_MAX 192

void sl_tls_set_error(struct sl_tls_stream *s, const char *fmt, ...)
{
	char text[ERROR_MAX];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	free(s->error);
	s->error = strdup(text);
}

const char *sl_tls_stream_error(const struct sl_tls_stream *s)
{
	if (s->error)
		return s->error;
	return s->failed < 0 ? "out of memory" : "";
}

/* Which check of the peer's certificate failed. */
static void explain_certificate(struct sl_tls_stream *s)
{
	const char *whose = SSL_is_server(s->ssl) ? "client certificate" : "certificate";
	long why = SSL_get_verify_result(s->ssl);

	switch (why) {
	case X509_V_ERR_CERT_HAS_EXPIRED:
		sl_tls_set_error(s, "%s: expired", whose);
		break;
	case X509_V_ERR_CERT_NOT_YET_VALID:
		sl_tls_set_error(s, "%s: not valid yet", whose);
		break;
	case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
		sl_tls_set_error(s, "%s: self-signed", whose);
		break;
	case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
	case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
		sl_tls_set_error(s, "%s: unknown issuer", whose);
		break;
	case X509_V_ERR_HOSTNAME_MISMATCH:
	case X509_V_ERR_IP_ADDRESS_MISMATCH:
		sl_tls_set_error(s, "%s: wrong name, it is not for %s", whose,
				 s->target ? sl_tls_target_name(s->target) : "us");
		break;
	case X509_V_ERR_INVALID_PURPOSE:
		sl_tls_set_error(s, "%s: not made for this purpose", whose);
		break;
	case X509_V_ERR_EE_KEY_TOO_SMALL:
	case X509_V_ERR_CA_KEY_TOO_SMALL:
		sl_tls_set_error(s, "%s: key too short", whose);
		break;
	default:
		sl_tls_set_error(s, "%s: %s", whose, X509_verify_cert_error_string(why));
	}
}

/* NULL: the library's own words are as good. */
static const char *words_of(int reason)
{
	switch (reason) {
	case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
		return "no client certificate";
	case SSL_R_HTTP_REQUEST:
	case SSL_R_HTTPS_PROXY_REQUEST:
		return "plain HTTP instead of TLS";
	case SSL_R_WRONG_VERSION_NUMBER:
	case SSL_R_PACKET_LENGTH_TOO_LONG:
	case SSL_R_RECORD_TOO_SMALL:
		return "not TLS";
	case SSL_R_UNSUPPORTED_PROTOCOL:
	case SSL_R_VERSION_TOO_LOW:
		return "no TLS version in common";
	case SSL_R_NO_SHARED_CIPHER:
		return "no cipher in common, or none that fits the certificate";
	case SSL_R_NO_SUITABLE_KEY_SHARE:
	case SSL_R_NO_SUITABLE_GROUPS:
		return "no group in common";
	case SSL_R_NO_APPLICATION_PROTOCOL:
		return "no ALPN protocol in common";
	case SSL_R_CALLBACK_FAILED:
	case SSL_R_CERT_CB_ERROR:
		return "no certificate for this name";
	case SSL_R_DECRYPTION_FAILED_OR_BAD_RECORD_MAC:
		return "a record was changed on its way";
	default:
		return NULL;
	}
}

/* The first of the library's own errors says what happened, others where that led. */
static unsigned long first_error(void)
{
	unsigned long first = ERR_get_error();
	unsigned long e = first;

	while (e && ERR_GET_LIB(e) != ERR_LIB_SSL && ERR_GET_REASON(e) != ERR_R_MALLOC_FAILURE)
		e = ERR_get_error();
	return e ? e : first;
}

int sl_tls_explain(struct sl_tls_stream *s)
{
	unsigned long e = first_error();
	int reason = ERR_GET_REASON(e);
	const char *words = NULL;

	ERR_clear_error();
	if (reason == ERR_R_MALLOC_FAILURE)
		return -ENOMEM;
	if (ERR_GET_LIB(e) != ERR_LIB_SSL) {
		words = ERR_reason_error_string(e);
	} else if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED) {
		explain_certificate(s);
		return -EPROTO;
	} else if (reason >= SSL_AD_REASON_OFFSET && reason < SSL_AD_REASON_OFFSET + 256) {
		sl_tls_set_error(s, "alert received: %s",
				 SSL_alert_desc_string_long(reason - SSL_AD_REASON_OFFSET));
		return -EPROTO;
	} else {
		words = words_of(reason);
		words = words ? words : ERR_reason_error_string(e);
	}
	sl_tls_set_error(s, "%s", words ? words : "protocol error");
	return -EPROTO;
}

/* ---- facts ---- */

static void copy_escaped(char *ret, size_t room, const char *p, size_t n)
{
	_cleanup_(sl_str_done) struct sl_str s = { 0 };

	sl_str_add_escaped(&s, p, n, room / 4);
	(void)snprintf(ret, room, "%s", sl_str_text(&s));
}

static void copy_subject(const X509 *x, char *ret, size_t room)
{
	BIO *out = BIO_new(BIO_s_mem());
	char *text;
	long n;

	if (out && X509_NAME_print_ex(out, X509_get_subject_name(x), 0,
				      XN_FLAG_RFC2253 & ~ASN1_STRFLGS_ESC_MSB) >= 0) {
		n = BIO_get_mem_data(out, &text);
		copy_escaped(ret, room, text, n > 0 ? (size_t)n : 0);
	}
	BIO_free(out);
}

static void copy_common_name(const X509 *x, char *ret, size_t room)
{
	const X509_NAME *name = X509_get_subject_name(x);
	int at = X509_NAME_get_index_by_NID(name, NID_commonName, -1);
	const ASN1_STRING *text;

	if (at < 0)
		return;
	text = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at));
	copy_escaped(ret, room, (const char *)ASN1_STRING_get0_data(text),
		     (size_t)ASN1_STRING_length(text));
}

static void describe_peer(const X509 *x, struct sl_tls_facts *ret)
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned n = 0;

	copy_subject(x, ret->peer_subject, sizeof(ret->peer_subject));
	copy_common_name(x, ret->peer_name, sizeof(ret->peer_name));
	if (!X509_digest(x, EVP_sha256(), digest, &n))
		return;
	for (unsigned i = 0; i < n && i < 32; i++)
		(void)snprintf(ret->peer_fingerprint + 2 * i, 3, "%02x", digest[i]);
}

static const char *group_of(SSL *ssl)
{
	int id = (int)SSL_get_negotiated_group(ssl);
	const char *name = id > 0 ? SSL_group_to_name(ssl, id) : NULL;

	return name ? name : "";
}

void sl_tls_stream_facts(const struct sl_tls_stream *s, struct sl_tls_facts *ret)
{
	const X509 *x = SSL_get0_peer_certificate(s->ssl);
	const char *sni = SSL_get_servername(s->ssl, TLSEXT_NAMETYPE_host_name);
	const unsigned char *alpn = NULL;
	unsigned n = 0;

	SSL_get0_alpn_selected(s->ssl, &alpn, &n);
	*ret = (struct sl_tls_facts){
		.version = SSL_get_version(s->ssl),
		.cipher = SSL_get_cipher_name(s->ssl),
		.group = group_of(s->ssl),
		.sni = sni ? sni : "",
		.alpn = (const char *)alpn,
		.alpn_len = n,
		.is_resumed = SSL_session_reused(s->ssl),
		.has_peer_cert = x != NULL,
		.is_verified = x && (SSL_get_verify_mode(s->ssl) & SSL_VERIFY_PEER) &&
			       SSL_get_verify_result(s->ssl) == X509_V_OK,
	};
	if (x)
		describe_peer(x, ret);
	ERR_clear_error();
}
