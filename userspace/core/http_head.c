/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "core/http_head.h"

#include "base/num.h"

/* Where reading stands. A fault or the end of the bytes ends every step above it. */
struct cursor {
	const char *p;
	size_t i;
	size_t n;
	struct sl_http_fault fault;
};

static enum sl_http_result bad(struct cursor *c, unsigned status, const char *why)
{
	c->fault = (struct sl_http_fault){ .status = status, .why = why };
	return SL_HTTP_BAD;
}

static enum sl_http_result too_big(struct cursor *c, unsigned status, const char *why)
{
	c->fault = (struct sl_http_fault){ .status = status, .why = why };
	return SL_HTTP_TOO_BIG;
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool is_alnum(char c)
{
	return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_one_of(char c, const char *set)
{
	return c != '\0' && strchr(set, c) != NULL;
}

/* RFC 9110 section 5.6.2 */
static bool is_token(char c)
{
	return is_alnum(c) || is_one_of(c, "!#$%&'*+-.^_`|~");
}

/*
 * Visible ASCII without what no target may hold. Braces, bar, caret and
 * backquote are not URI characters either, but browsers send them in queries.
 */
static bool is_target(char c)
{
	return c > 0x20 && c < 0x7f && !is_one_of(c, "#\"<>\\");
}

/* RFC 3986 section 3.2.2 with a port; userinfo ("@") is not allowed here (RFC 9110 section 4.2.4).
 */
static bool is_host(char c)
{
	return is_alnum(c) || is_one_of(c, "-._~%!$&'()*+,;=:[]");
}

/* RFC 9110 section 5.5: blanks, visible characters and bytes above ASCII. */
static bool is_value(char c)
{
	unsigned char u = (unsigned char)c;

	return u == '\t' || (u >= 0x20 && u != 0x7f);
}

static bool all(struct sl_slice s, bool (*is)(char c))
{
	for (size_t i = 0; i < s.n; i++)
		if (!is(s.p[i]))
			return false;
	return true;
}

/* The longest run of `is`, which at least one more byte must follow. */
static enum sl_http_result take_while(struct cursor *c, bool (*is)(char c), struct sl_slice *ret)
{
	size_t from = c->i;

	while (c->i < c->n && is(c->p[c->i]))
		c->i++;
	if (c->i == c->n)
		return SL_HTTP_MORE;
	*ret = (struct sl_slice){ .p = c->p + from, .n = c->i - from };
	return SL_HTTP_OK;
}

static enum sl_http_result take_text(struct cursor *c, const char *text, unsigned status,
				     const char *why)
{
	for (; *text; text++, c->i++) {
		if (c->i == c->n)
			return SL_HTTP_MORE;
		if (c->p[c->i] != *text)
			return bad(c, status, why);
	}
	return SL_HTTP_OK;
}

static enum sl_http_result take_line_end(struct cursor *c)
{
	if (c->i < c->n && c->p[c->i] == '\n')
		return bad(c, 400, "a line ends with LF alone");
	return take_text(c, "\r\n", 400, "a character that may not stand here");
}

static enum sl_http_result take_method(struct cursor *c, struct sl_http_head *head)
{
	size_t from = c->i;
	enum sl_http_result r = take_while(c, is_token, &head->method);

	if (c->i - from > SL_HTTP_MAX_METHOD)
		return bad(c, 400, "the method is too long");
	if (r != SL_HTTP_OK)
		return r;
	if (head->method.n == 0)
		return bad(c, 400, "no method at the start");
	return take_text(c, " ", 400, "a bad character in the method");
}

/* "http://host[:port]" of a target in absolute form; leaves the rest in `s`. */
static bool cut_authority(struct sl_slice *s, struct sl_slice *ret)
{
	static const char *const schemes[] = { "http://", "https://" };

	for (size_t i = 0; i < SL_ARRAY_LEN(schemes); i++) {
		size_t n = strlen(schemes[i]);
		size_t end = n;

		if (s->n < n || !sl_slice_is_nocase((struct sl_slice){ s->p, n }, schemes[i]))
			continue;
		while (end < s->n && s->p[end] != '/' && s->p[end] != '?')
			end++;
		*ret = (struct sl_slice){ .p = s->p + n, .n = end - n };
		*s = (struct sl_slice){ .p = s->p + end, .n = s->n - end };
		return ret->n > 0 && all(*ret, is_host);
	}
	return false;
}

/* RFC 9112 section 3.2: origin, absolute, authority or asterisk form. */
static bool split_target(struct sl_http_head *head)
{
	struct sl_slice rest = head->target;
	const char *mark;

	if (sl_slice_is(head->method, "CONNECT")) {
		head->host = rest;
		head->path = sl_slice_of("/");
		return rest.n > 0 && all(rest, is_host);
	}
	if (sl_slice_is(rest, "*")) {
		head->path = rest;
		return sl_slice_is(head->method, "OPTIONS");
	}
	if (rest.n == 0 || (rest.p[0] != '/' && !cut_authority(&rest, &head->host)))
		return false;
	mark = rest.n ? memchr(rest.p, '?', rest.n) : NULL;
	if (mark) {
		head->query.p = mark + 1;
		head->query.n = rest.n - (size_t)(mark + 1 - rest.p);
		rest.n = (size_t)(mark - rest.p);
	}
	head->path = rest.n ? rest : sl_slice_of("/");
	return true;
}

static enum sl_http_result take_target(struct cursor *c, struct sl_http_head *head)
{
	enum sl_http_result r = take_while(c, is_target, &head->target);

	if (r == SL_HTTP_OK)
		r = take_text(c, " ", 400, "a bad character in the request target");
	if (r == SL_HTTP_OK && !split_target(head))
		r = bad(c, 400, "the request target has none of the forms HTTP knows");
	return r;
}

static enum sl_http_result take_version(struct cursor *c, struct sl_http_head *head)
{
	enum sl_http_result r = take_text(c, "HTTP/", 400, "no HTTP version after the target");

	if (r == SL_HTTP_OK)
		r = take_text(c, "1.", 505, "only HTTP/1.0 and HTTP/1.1 are spoken here");
	if (r != SL_HTTP_OK)
		return r;
	if (c->i == c->n)
		return SL_HTTP_MORE;
	if (c->p[c->i] != '0' && c->p[c->i] != '1')
		return bad(c, 505, "only HTTP/1.0 and HTTP/1.1 are spoken here");
	head->minor = (unsigned)(c->p[c->i++] - '0');
	head->keep_alive = head->minor > 0;
	return take_line_end(c);
}

static enum sl_http_result take_request_line(struct cursor *c, struct sl_http_head *head)
{
	enum sl_http_result r;

	if (c->n > 0 && c->p[0] == '\r') {
		r = take_line_end(c);
		if (r != SL_HTTP_OK)
			return r;
	}
	r = take_method(c, head);
	if (r == SL_HTTP_OK)
		r = take_target(c, head);
	if (r == SL_HTTP_OK)
		r = take_version(c, head);
	return r;
}

static enum sl_http_result set_content_length(struct cursor *c, struct sl_http_head *head,
					      struct sl_slice v)
{
	if (head->has_content_length)
		return bad(c, 400, "Content-Length is given twice");
	if (head->is_chunked)
		return bad(c, 400, "both Content-Length and Transfer-Encoding are given");
	if (sl_num_parsen(v.p, v.n, 0, INT64_MAX, &head->content_length) < 0)
		return bad(c, 400, "Content-Length is not a number");
	head->has_content_length = true;
	return SL_HTTP_OK;
}

static enum sl_http_result set_transfer_encoding(struct cursor *c, struct sl_http_head *head,
						 struct sl_slice v)
{
	if (head->has_content_length)
		return bad(c, 400, "both Content-Length and Transfer-Encoding are given");
	if (head->minor == 0)
		return bad(c, 400, "Transfer-Encoding in an HTTP/1.0 request");
	if (head->is_chunked)
		return bad(c, 400, "Transfer-Encoding is given twice");
	if (!sl_slice_is_nocase(v, "chunked"))
		return bad(c, 501, "the only transfer coding known is chunked");
	head->is_chunked = true;
	return SL_HTTP_OK;
}

static enum sl_http_result set_host(struct cursor *c, struct sl_http_head *head, struct sl_slice v,
				    bool *has_host)
{
	if (*has_host)
		return bad(c, 400, "Host is given twice");
	if (!all(v, is_host))
		return bad(c, 400, "a bad character in Host");
	*has_host = true;
	if (!head->host.p) /* an absolute target wins: RFC 9112 section 3.2.2 */
		head->host = v;
	return SL_HTTP_OK;
}

/* "close" wins over "keep-alive", wherever they stand in the list. */
static void set_connection(struct sl_http_head *head, struct sl_slice v, bool *close)
{
	while (v.n > 0) {
		const char *comma = memchr(v.p, ',', v.n);
		struct sl_slice item = { v.p, comma ? (size_t)(comma - v.p) : v.n };
		size_t used = item.n + (comma ? 1 : 0);

		while (item.n && is_one_of(item.p[0], " \t"))
			item.p++, item.n--;
		while (item.n && is_one_of(item.p[item.n - 1], " \t"))
			item.n--;
		if (sl_slice_is_nocase(item, "close"))
			*close = true;
		else if (sl_slice_is_nocase(item, "keep-alive"))
			head->keep_alive = true;
		v.p += used;
		v.n -= used;
	}
	if (*close)
		head->keep_alive = false;
}

struct once {
	bool host;
	bool close;
};

static enum sl_http_result understand(struct cursor *c, struct sl_http_head *head,
				      const struct sl_http_header *h, struct once *once)
{
	if (sl_slice_is_nocase(h->name, "content-length"))
		return set_content_length(c, head, h->value);
	if (sl_slice_is_nocase(h->name, "transfer-encoding"))
		return set_transfer_encoding(c, head, h->value);
	if (sl_slice_is_nocase(h->name, "host"))
		return set_host(c, head, h->value, &once->host);
	if (sl_slice_is_nocase(h->name, "connection")) {
		set_connection(head, h->value, &once->close);
	} else if (sl_slice_is_nocase(h->name, "expect") && head->minor > 0) {
		if (!sl_slice_is_nocase(h->value, "100-continue"))
			return bad(c, 417, "the only expectation known is 100-continue");
		head->expect_continue = true;
	}
	return SL_HTTP_OK;
}

static enum sl_http_result take_header(struct cursor *c, struct sl_http_header *ret)
{
	enum sl_http_result r;

	if (is_one_of(c->p[c->i], " \t"))
		return bad(c, 400, "a header line begins with a blank");
	r = take_while(c, is_token, &ret->name);
	if (r != SL_HTTP_OK)
		return r;
	if (ret->name.n == 0 || c->p[c->i] != ':')
		return bad(c, 400, "a header line is not 'Name: value'");
	c->i++;
	r = take_while(c, is_value, &ret->value);
	if (r == SL_HTTP_OK)
		r = take_line_end(c);
	while (ret->value.n && is_one_of(ret->value.p[0], " \t"))
		ret->value.p++, ret->value.n--;
	while (ret->value.n && is_one_of(ret->value.p[ret->value.n - 1], " \t"))
		ret->value.n--;
	return r;
}

static enum sl_http_result take_headers(struct cursor *c, struct sl_http_head *head)
{
	struct once once = { 0 };
	enum sl_http_result r;

	for (;;) {
		struct sl_http_header h = { 0 };

		if (c->i == c->n)
			return SL_HTTP_MORE;
		if (is_one_of(c->p[c->i], "\r\n")) {
			r = take_line_end(c);
			break;
		}
		if (head->n_headers == SL_HTTP_MAX_HEADERS)
			return too_big(c, 431, "too many header lines");
		r = take_header(c, &h);
		if (r == SL_HTTP_OK)
			r = understand(c, head, &h, &once);
		if (r != SL_HTTP_OK)
			return r;
		head->header[head->n_headers++] = h;
	}
	if (r == SL_HTTP_OK && head->minor > 0 && !once.host)
		return bad(c, 400, "an HTTP/1.1 request without Host");
	return r;
}

enum sl_http_result sl_http_head_parse(const void *bytes, size_t n, size_t max,
				       struct sl_http_head *ret, struct sl_http_fault *ret_fault)
{
	struct cursor c = { .p = bytes, .n = n < max ? n : max };
	struct sl_http_head head;
	bool in_headers = false;
	enum sl_http_result r;

	/* Not the whole of it: the table of headers is filled as far as n_headers. */
	memset(&head, 0, offsetof(struct sl_http_head, header));
	memset(&head.n_headers, 0, sizeof(head) - offsetof(struct sl_http_head, n_headers));

	r = take_request_line(&c, &head);
	if (r == SL_HTTP_OK) {
		in_headers = true;
		r = take_headers(&c, &head);
	}
	if (r == SL_HTTP_MORE && n >= max)
		r = in_headers ? too_big(&c, 431, "the request head is too long")
			       : too_big(&c, 414, "the request line is too long");
	if (r == SL_HTTP_BAD || r == SL_HTTP_TOO_BIG)
		*ret_fault = c.fault;
	if (r != SL_HTTP_OK)
		return r;
	head.len = c.i;
	*ret = head;
	return SL_HTTP_OK;
}

const struct sl_http_header *sl_http_head_find(const struct sl_http_head *head, const char *name)
{
	for (size_t i = 0; i < head->n_headers; i++)
		if (sl_slice_is_nocase(head->header[i].name, name))
			return &head->header[i];
	return NULL;
}
