/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>

#include "core/http_head.h"

#define MAX_HEAD 4096

static void lies_inside(struct sl_slice s, const uint8_t *bytes, size_t n)
{
	const char *from = (const char *)bytes;

	assert(!s.p || (s.p >= from && s.p + s.n <= from + n));
}

static void check_head(const struct sl_http_head *head, const uint8_t *bytes, size_t n)
{
	assert(head->len <= n && head->len <= MAX_HEAD && head->len >= 16);
	assert(bytes[head->len - 1] == '\n' && bytes[head->len - 2] == '\r');
	assert(head->n_headers <= SL_HTTP_MAX_HEADERS && head->minor <= 1);
	assert(head->method.n > 0 && head->method.n <= SL_HTTP_MAX_METHOD);
	assert(head->target.n > 0 && head->path.n > 0);
	assert(!(head->is_chunked && head->has_content_length));
	assert(head->minor == 0 || head->host.p);
	lies_inside(head->method, bytes, head->len);
	lies_inside(head->target, bytes, head->len);
	lies_inside(head->query, bytes, head->len);
	lies_inside(head->host, bytes, head->len);
	for (size_t i = 0; i < head->n_headers; i++) {
		struct sl_slice v = head->header[i].value;

		assert(head->header[i].name.n > 0);
		lies_inside(head->header[i].name, bytes, head->len);
		lies_inside(v, bytes, head->len);
		for (size_t k = 0; k < v.n; k++)
			assert(v.p[k] != '\r' && v.p[k] != '\n' && v.p[k] != '\0');
	}
}

/* A verdict on a prefix is never contradicted by more bytes. */
static void check_prefix(const uint8_t *bytes, size_t n, size_t part, enum sl_http_result whole,
			 size_t len)
{
	struct sl_http_fault fault;
	struct sl_http_head head;
	uint8_t *copy = malloc(part ? part : 1);
	enum sl_http_result r;

	assert(copy && part <= n);
	memcpy(copy, bytes, part);
	r = sl_http_head_parse(copy, part, MAX_HEAD, &head, &fault);
	if (r != SL_HTTP_MORE)
		assert(r == whole);
	if (r == SL_HTTP_OK)
		assert(head.len == len);
	if (whole == SL_HTTP_OK)
		assert((r == SL_HTTP_OK) == (part >= len));
	free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
	struct sl_http_head head = { 0 };
	struct sl_http_fault fault = { 0 };
	enum sl_http_result r = sl_http_head_parse(bytes, n, MAX_HEAD, &head, &fault);

	if (r == SL_HTTP_OK)
		check_head(&head, bytes, n);
	else
		assert(head.len == 0 && head.n_headers == 0);
	assert((fault.why != NULL) == (r == SL_HTTP_BAD || r == SL_HTTP_TOO_BIG));
	for (unsigned i = 0; n > 0 && i < 4; i++)
		check_prefix(bytes, n, n * i / 4, r, head.len);
	if (r == SL_HTTP_OK)
		check_prefix(bytes, n, head.len - 1, r, head.len);
	return 0;
}
