/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_FUZZ_PROXY_FUZZ_H
#define SL_FUZZ_PROXY_FUZZ_H

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>

#include "core/proxy_header.h"

/* What the targets of both versions of the PROXY header assert of every input. */

static void lies_inside(struct sl_slice s, const uint8_t *bytes, size_t n)
{
	const char *from = (const char *)bytes;

	assert(s.p ? s.p >= from && s.n <= n && s.p <= from + n - s.n : s.n == 0);
}

static void check_fields(const struct sl_proxy_header *h, const uint8_t *bytes)
{
	const size_t n = h->len;

	assert((sl_addr_family(&h->src) != AF_UNSPEC) == h->has_addrs);
	assert((sl_addr_family(&h->dst) != AF_UNSPEC) == h->has_addrs);
	assert(!(h->is_local && h->has_addrs));
	lies_inside(h->alpn, bytes, n);
	lies_inside(h->authority, bytes, n);
	lies_inside(h->unique_id, bytes, n);
	lies_inside(h->netns, bytes, n);
	lies_inside(h->ssl_version, bytes, n);
	lies_inside(h->ssl_cn, bytes, n);
	lies_inside(h->ssl_cipher, bytes, n);
	lies_inside(h->ssl_sig_alg, bytes, n);
	lies_inside(h->ssl_key_alg, bytes, n);
	assert(h->unique_id.n <= SL_PH_UNIQUE_ID_MAX);
	assert(h->has_ssl || (!h->ssl_version.p && !h->ssl_cn.p && !h->ssl_cipher.p &&
			      !h->ssl_sig_alg.p && !h->ssl_key_alg.p));
}

static int is_same(struct sl_slice a, struct sl_slice b)
{
	return (a.p != NULL) == (b.p != NULL) && a.n == b.n && (!a.p || memcmp(a.p, b.p, a.n) == 0);
}

/* What is written from what was read reads the same, in either version. */
static void check_writing(const struct sl_proxy_header *h, enum sl_ph_choice version)
{
	static uint8_t buf[SL_PH_V2_MAX];
	struct sl_ph_out out = {
		.version = version,
		.src = h->src,
		.dst = h->dst,
		.alpn = h->alpn,
		.authority = h->authority,
		.unique_id = h->unique_id,
		.crc32c = h->has_crc32c,
		.has_ssl = h->has_ssl,
		.ssl_client = h->ssl_client,
		.ssl_verify = h->ssl_verify,
		.ssl_version = h->ssl_version,
		.ssl_cn = h->ssl_cn,
		.ssl_cipher = h->ssl_cipher,
		.ssl_sig_alg = h->ssl_sig_alg,
		.ssl_key_alg = h->ssl_key_alg,
	};
	struct sl_proxy_header again = { 0 };
	const char *why = NULL;
	size_t n = sl_proxy_header_write(&out, buf, sizeof(buf));

	/* a written header has nothing a read one has not, unless its addresses grew to IPv6 */
	assert(n > 0 || h->len + 24 > SL_PH_V2_MAX);
	if (n == 0)
		return;
	assert(sl_proxy_header_read(buf, n - 1, &again, &why) == SL_PH_MORE);
	assert(sl_proxy_header_read(buf, n, &again, &why) == SL_PH_OK && again.len == n);
	assert(again.has_addrs == h->has_addrs);
	assert(sl_addr_is_equal(&again.src, &h->src) && sl_addr_is_equal(&again.dst, &h->dst));
	if (version == SL_PH_SEND_V1 || !h->has_addrs)
		return;
	assert(is_same(again.alpn, h->alpn) && is_same(again.authority, h->authority));
	assert(is_same(again.unique_id, h->unique_id) && again.has_crc32c == h->has_crc32c);
	assert(again.has_ssl == h->has_ssl && again.ssl_client == h->ssl_client);
	assert(again.ssl_verify == h->ssl_verify && is_same(again.ssl_version, h->ssl_version));
	assert(is_same(again.ssl_cn, h->ssl_cn) && is_same(again.ssl_cipher, h->ssl_cipher));
	assert(is_same(again.ssl_sig_alg, h->ssl_sig_alg));
	assert(is_same(again.ssl_key_alg, h->ssl_key_alg));
}

/* Reads a copy of exactly that size, so that a sanitizer sees any overread. */
static enum sl_ph_result read_part(const uint8_t *bytes, size_t n, size_t *ret_len)
{
	struct sl_proxy_header h = { 0 };
	const char *why = NULL;
	uint8_t *copy = malloc(n ? n : 1);
	enum sl_ph_result r;

	assert(copy);
	if (n > 0)
		memcpy(copy, bytes, n);
	r = sl_proxy_header_read(copy, n, &h, &why);
	assert((why != NULL) == (r == SL_PH_BAD));
	assert((h.version != 0) == (r == SL_PH_OK));
	*ret_len = h.len;
	free(copy);
	return r;
}

/* A verdict on a prefix is never contradicted by more bytes. */
static enum sl_ph_result check_prefix(const uint8_t *bytes, size_t part, enum sl_ph_result whole,
				      size_t len)
{
	size_t got_len;
	enum sl_ph_result r = read_part(bytes, part, &got_len);

	if (whole == SL_PH_OK)
		assert(r == (part >= len ? SL_PH_OK : SL_PH_MORE) && (r || got_len == len));
	else
		assert(r == SL_PH_MORE || r == whole);
	return r;
}

/* Around the byte that decides, found by halving, and at some more. */
static void check_prefixes(const uint8_t *bytes, size_t n, enum sl_ph_result whole, size_t len)
{
	size_t more = 0; /* so many say "more" */
	size_t enough = n;

	for (size_t i = 1; i < 8; i++)
		(void)check_prefix(bytes, n * i / 8, whole, len);
	while (whole != SL_PH_MORE && enough - more > 1) {
		size_t mid = more + (enough - more) / 2;

		if (check_prefix(bytes, mid, whole, len) == SL_PH_MORE)
			more = mid;
		else
			enough = mid;
	}
}

/* Returns the verdict on the whole. */
static enum sl_ph_result check_header(const uint8_t *bytes, size_t n, struct sl_proxy_header *h)
{
	const char *why = NULL;
	enum sl_ph_result r = sl_proxy_header_read(bytes, n, h, &why);

	if (r == SL_PH_OK) {
		assert(h->len <= n);
		check_fields(h, bytes);
		check_writing(h, SL_PH_SEND_V1);
		check_writing(h, SL_PH_SEND_V2);
	}
	check_prefixes(bytes, n, r, h->len);
	return r;
}

#endif
