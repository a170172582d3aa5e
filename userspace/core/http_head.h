/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CORE_HTTP_HEAD_H
#define SL_CORE_HTTP_HEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "core/slice.h"

/*
 * The head of an HTTP/1 request (RFC 9112), read strictly: whatever two
 * programs could read in two ways is refused, because this one stands in front
 * of others.
 */
#define SL_HTTP_MAX_HEADERS 100
#define SL_HTTP_MAX_METHOD 32

struct sl_http_header {
	struct sl_slice name;
	struct sl_slice value; /* without the blanks around it */
};

/* Slices point into the parsed bytes, except `path` where the comment says so. */
struct sl_http_head {
	struct sl_slice method;
	struct sl_slice target;
	struct sl_slice path;  /* still percent-encoded; "/" (static) when the target has none */
	struct sl_slice query; /* after the "?"; absent without one */
	struct sl_slice host;  /* of an absolute target, else of the Host header; may be absent */
	unsigned minor;        /* HTTP/1.0 or HTTP/1.1 */
	struct sl_http_header header[SL_HTTP_MAX_HEADERS];
	size_t n_headers;
	bool has_content_length;
	uint64_t content_length;
	bool is_chunked;
	bool keep_alive; /* what version and Connection header ask for */
	bool expect_continue;
	size_t len; /* bytes of the head, blank line included; the body begins here */
};

enum sl_http_result {
	SL_HTTP_OK = 0,
	SL_HTTP_MORE,    /* a prefix that may become valid; call again with more bytes */
	SL_HTTP_BAD,     /* nothing that could follow makes it valid */
	SL_HTTP_TOO_BIG, /* longer than `max`, or too many headers */
};

struct sl_http_fault {
	unsigned status; /* the answer it deserves: 400, 414, 417, 431, 501 or 505 */
	const char *why; /* static text */
};

/*
 * Parses the head at the start of a byte stream, keeping no state between
 * calls. At most one empty line may precede it (RFC 9112 section 2.2). `ret`
 * is written only on OK, `ret_fault` only on BAD and TOO_BIG. The answer depends on
 * the stream alone, not on how much of what follows the head has arrived.
 */
enum sl_http_result sl_http_head_parse(const void *bytes, size_t n, size_t max,
				       struct sl_http_head *ret, struct sl_http_fault *ret_fault);

/* The first header of that name (without case); NULL when there is none. */
const struct sl_http_header *sl_http_head_find(const struct sl_http_head *head, const char *name);

#endif
