/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/http_head.h"

#define MAX_HEAD 16384

/* Parses a copy of exactly that size, so that a sanitizer sees any overread. */
static enum sl_http_result parse(const char *text, size_t n, size_t max, struct sl_http_head *head,
				 struct sl_http_fault *fault, char **ret_copy)
{
	char *copy = malloc(n ? n : 1);
	enum sl_http_result r;

	assert_non_null(copy);
	memcpy(copy, text, n);
	r = sl_http_head_parse(copy, n, max, head, fault);
	if (ret_copy)
		*ret_copy = copy;
	else
		free(copy);
	return r;
}

static const char *const valid[] = {
	"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
	"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET /v1/conns?id=7&route=a%20b HTTP/1.1\r\nhost: localhost\r\nAccept: */*\r\n\r\n",
	"POST /kill?all=1 HTTP/1.1\r\nHost:x\r\nContent-Length: 12\r\nExpect: 100-continue\r\n\r\n",
	"HEAD /metrics HTTP/1.0\r\n\r\n",
	"GET http://example.com:80/a?b HTTP/1.1\r\nHost: other\r\nConnection: close\r\n\r\n",
	"GET https://example.com?q HTTP/1.1\r\nHost: \r\n\r\n",
	"OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
	"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\n",
	"PUT /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nX: \t caf\xc3\xa9 \t\r\nEmpty:\r\n\r\n",
	"GET / HTTP/1.0\r\nConnection: foo , keep-alive\r\n\r\n",
};

static void every_strict_prefix_asks_for_more(void **state)
{
	(void)state;
	for (size_t v = 0; v < SL_ARRAY_LEN(valid); v++) {
		size_t len = strlen(valid[v]);
		struct sl_http_head head;
		struct sl_http_fault fault = { 0 };

		for (size_t n = 0; n < len; n++)
			assert_int_equal(parse(valid[v], n, MAX_HEAD, &head, &fault, NULL),
					 SL_HTTP_MORE);
		assert_int_equal(parse(valid[v], len, MAX_HEAD, &head, &fault, NULL), SL_HTTP_OK);
		assert_int_equal(head.len, len);
		assert_null(fault.why);
	}
}

/* What follows the head changes nothing: bodies and pipelined requests do. */
static void bytes_after_the_head_do_not_matter(void **state)
{
	(void)state;
	for (size_t v = 0; v < SL_ARRAY_LEN(valid); v++) {
		char longer[1024];
		struct sl_http_head head;
		struct sl_http_fault fault;
		int n = snprintf(longer, sizeof(longer), "%s\nGARBAGE\x01", valid[v]);

		assert_int_equal(parse(longer, (size_t)n, MAX_HEAD, &head, &fault, NULL),
				 SL_HTTP_OK);
		assert_int_equal(head.len, strlen(valid[v]));
	}
}

static void fields_are_found(void **state)
{
	struct sl_http_head head;
	struct sl_http_fault fault;
	char *copy;

	(void)state;
	assert_int_equal(parse(valid[2], strlen(valid[2]), MAX_HEAD, &head, &fault, &copy),
			 SL_HTTP_OK);
	assert_true(sl_slice_is(head.method, "GET"));
	assert_true(sl_slice_is(head.path, "/v1/conns"));
	assert_true(sl_slice_is(head.query, "id=7&route=a%20b"));
	assert_true(sl_slice_is(head.target, "/v1/conns?id=7&route=a%20b"));
	assert_true(sl_slice_is(head.host, "localhost"));
	assert_int_equal(head.minor, 1);
	assert_int_equal(head.n_headers, 2);
	assert_true(head.keep_alive);
	assert_false(head.has_content_length);
	assert_true(sl_slice_is(sl_http_head_find(&head, "ACCEPT")->value, "*/*"));
	assert_null(sl_http_head_find(&head, "accep"));
	free(copy);

	assert_int_equal(parse(valid[3], strlen(valid[3]), MAX_HEAD, &head, &fault, &copy),
			 SL_HTTP_OK);
	assert_true(head.has_content_length);
	assert_int_equal(head.content_length, 12);
	assert_true(head.expect_continue);
	free(copy);

	assert_int_equal(parse(valid[4], strlen(valid[4]), MAX_HEAD, &head, &fault, &copy),
			 SL_HTTP_OK);
	assert_int_equal(head.minor, 0);
	assert_false(head.keep_alive);
	assert_null(head.host.p);
	assert_null(head.query.p);
	free(copy);
}

static void targets_are_split(void **state)
{
	struct sl_http_head head;
	struct sl_http_fault fault;
	char *copy;

	(void)state;
	assert_int_equal(parse(valid[5], strlen(valid[5]), MAX_HEAD, &head, &fault, &copy),
			 SL_HTTP_OK);
	assert_true(sl_slice_is(head.host, "example.com:80")); /* the target wins over Host */
	assert_true(sl_slice_is(head.path, "/a"));
	assert_true(sl_slice_is(head.query, "b"));
	assert_false(head.keep_alive);
	free(copy);

	assert_int_equal(parse(valid[6], strlen(valid[6]), MAX_HEAD, &head, &fault, &copy),
			 SL_HTTP_OK);
	assert_true(sl_slice_is(head.host, "example.com"));
	assert_true(sl_slice_is(head.path, "/"));
	assert_true(sl_slice_is(head.query, "q"));
	free(copy);

	assert_int_equal(parse(valid[8], strlen(valid[8]), MAX_HEAD, &head, &fault, &copy),
			 SL_HTTP_OK);
	assert_true(sl_slice_is(head.host, "example.com:443"));
	free(copy);

	assert_int_equal(parse(valid[9], strlen(valid[9]), MAX_HEAD, &head, &fault, &copy),
			 SL_HTTP_OK);
	assert_true(head.is_chunked);
	free(copy);

	assert_int_equal(parse(valid[10], strlen(valid[10]), MAX_HEAD, &head, &fault, &copy),
			 SL_HTTP_OK);
	assert_true(sl_slice_is(sl_http_head_find(&head, "x")->value, "caf\xc3\xa9"));
	assert_int_equal(sl_http_head_find(&head, "empty")->value.n, 0);
	free(copy);

	assert_int_equal(parse(valid[11], strlen(valid[11]), MAX_HEAD, &head, &fault, &copy),
			 SL_HTTP_OK);
	assert_true(head.keep_alive);
	free(copy);
}

#define H "GET / HTTP/1.1\r\nHost: a\r\n"
static const struct {
	const char *why;
	const char *text;
	unsigned status;
} refused[] = {
	{ "two empty lines before the request", "\r\n\r\nGET / HTTP/1.1\r\n", 400 },
	{ "an empty line of LF alone", "\nGET / HTTP/1.1\r\n", 400 },
	{ "CR without LF in front", "\rGET", 400 },
	{ "a TLS ClientHello", "\x16\x03\x01\x02", 400 },
	{ "no method", " / HTTP/1.1\r\n", 400 },
	{ "a method that never ends", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", 400 },
	{ "a bad character in the method", "GE(T / HTTP/1.1\r\n", 400 },
	{ "a tab after the method", "GET\t/ HTTP/1.1\r\n", 400 },
	{ "two blanks after the method", "GET  / HTTP/1.1\r\n", 400 },
	{ "no target form", "GET foo HTTP/1.1\r\n", 400 },
	{ "asterisk only for OPTIONS", "GET * HTTP/1.1\r\n", 400 },
	{ "CONNECT wants an authority", "CONNECT / HTTP/1.1\r\n", 400 },
	{ "user information in an absolute target", "GET http://u@h/ HTTP/1.1\r\n", 400 },
	{ "an absolute target without a host", "GET http:///x HTTP/1.1\r\n", 400 },
	{ "another scheme", "GET ftp://h/ HTTP/1.1\r\n", 400 },
	{ "a fragment", "GET /#x HTTP/1.1\r\n", 400 },
	{ "a byte above ASCII in the target", "GET /\xc3\xa9 HTTP/1.1\r\n", 400 },
	{ "a control character in the target", "GET /\x01 HTTP/1.1\r\n", 400 },
	{ "two blanks before the version", "GET /  HTTP/1.1\r\n", 400 },
	{ "HTTP/0.9", "GET /\r\n", 400 },
	{ "lower-case version", "GET / http/1.1\r\n", 400 },
	{ "HTTP/2", "GET / HTTP/2.0\r\n", 505 },
	{ "HTTP/1.2", "GET / HTTP/1.2\r\n", 505 },
	{ "something after the version", "GET / HTTP/1.1 x\r\n", 400 },
	{ "LF alone ends the request line", "GET / HTTP/1.1\nHost: a\r\n", 400 },
	{ "LF alone ends a header", H "A: b\nC: d\r\n", 400 },
	{ "LF alone ends the head", H "\n", 400 },
	{ "a folded header", H "A: b\r\n c\r\n", 400 },
	{ "a blank before the first header", "GET / HTTP/1.1\r\n Host: a\r\n", 400 },
	{ "a blank before the colon", H "A : b\r\n", 400 },
	{ "no header name", H ": b\r\n", 400 },
	{ "no colon", H "Abc\r\n", 400 },
	{ "a bad character in a name", H "A(b: c\r\n", 400 },
	{ "a control character in a value", H "A: b\x01\r\n", 400 },
	{ "DEL in a value", H "A: b\x7f\r\n", 400 },
	{ "CR in a value", H "A: b\rc\r\n", 400 },
	{ "Host twice", H "HOST: a\r\n", 400 },
	{ "a path in Host", "GET / HTTP/1.1\r\nHost: a/b\r\n", 400 },
	{ "user information in Host", "GET / HTTP/1.1\r\nHost: u@b\r\n", 400 },
	{ "no Host in HTTP/1.1", "GET / HTTP/1.1\r\nA: b\r\n\r\n", 400 },
	{ "Content-Length twice", H "Content-Length: 1\r\nContent-Length: 1\r\n", 400 },
	{ "Content-Length as a list", H "Content-Length: 1, 1\r\n", 400 },
	{ "Content-Length with a sign", H "Content-Length: +1\r\n", 400 },
	{ "Content-Length negative", H "Content-Length: -1\r\n", 400 },
	{ "Content-Length in hex", H "Content-Length: 0x1\r\n", 400 },
	{ "Content-Length empty", H "Content-Length:\r\n", 400 },
	{ "Content-Length beyond 64 bits", H "Content-Length: 99999999999999999999\r\n", 400 },
	{ "length and chunks", H "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", 400 },
	{ "chunks and length", H "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n", 400 },
	{ "chunks twice", H "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400 },
	{ "chunks in HTTP/1.0", "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n", 400 },
	{ "another transfer coding", H "Transfer-Encoding: gzip, chunked\r\n", 501 },
	{ "another expectation", H "Expect: wonders\r\n", 417 },
};

static void ambiguous_and_broken_heads_are_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(refused); i++) {
		struct sl_http_head head;
		struct sl_http_fault fault = { 0 };
		enum sl_http_result r = parse(refused[i].text, strlen(refused[i].text), MAX_HEAD,
					      &head, &fault, NULL);

		if (r != SL_HTTP_BAD || fault.status != refused[i].status)
			fail_msg("%s: result %d, status %u", refused[i].why, r, fault.status);
		assert_non_null(fault.why);
	}
}

static void a_nul_byte_is_refused_anywhere(void **state)
{
	const char *text = valid[3];
	size_t len = strlen(text);

	(void)state;
	for (size_t i = 0; i < len; i++) {
		char copy[256];
		struct sl_http_head head;
		struct sl_http_fault fault;

		memcpy(copy, text, len);
		copy[i] = '\0';
		assert_int_equal(parse(copy, len, MAX_HEAD, &head, &fault, NULL), SL_HTTP_BAD);
	}
}

static void close_wins_over_keep_alive(void **state)
{
	static const char *const closing[] = {
		H "Connection: close\r\n\r\n",
		H "Connection: keep-alive, CLOSE\r\n\r\n",
		H "Connection: close,keep-alive\r\n\r\n",
		H "Connection: close\r\nConnection: keep-alive\r\n\r\n",
		H "Connection: ,, \t close \r\n\r\n",
	};

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(closing); i++) {
		struct sl_http_head head;
		struct sl_http_fault fault;

		assert_int_equal(
			parse(closing[i], strlen(closing[i]), MAX_HEAD, &head, &fault, NULL),
			SL_HTTP_OK);
		assert_false(head.keep_alive);
	}
}

static void size_is_bounded(void **state)
{
	static char big[70000];
	struct sl_http_head head;
	struct sl_http_fault fault = { 0 };
	size_t n;

	(void)state;
	memset(big, 'a', sizeof(big));
	memcpy(big, "GET /", 5);
	assert_int_equal(parse(big, MAX_HEAD - 1, MAX_HEAD, &head, &fault, NULL), SL_HTTP_MORE);
	assert_int_equal(parse(big, MAX_HEAD, MAX_HEAD, &head, &fault, NULL), SL_HTTP_TOO_BIG);
	assert_int_equal(fault.status, 414);

	memcpy(big, H "X: ", strlen(H "X: "));
	assert_int_equal(parse(big, sizeof(big), MAX_HEAD, &head, &fault, NULL), SL_HTTP_TOO_BIG);
	assert_int_equal(fault.status, 431);

	n = strlen(valid[0]);
	assert_int_equal(parse(valid[0], n, n, &head, &fault, NULL), SL_HTTP_OK);
	assert_int_equal(parse(valid[0], n, n - 1, &head, &fault, NULL), SL_HTTP_TOO_BIG);
	assert_int_equal(fault.status, 431);
}

static void number_of_headers_is_bounded(void **state)
{
	struct sl_http_head head;
	struct sl_http_fault fault = { 0 };
	char text[8192];
	size_t n = (size_t)snprintf(text, sizeof(text), "%s", H);

	(void)state;
	for (int i = 1; i < SL_HTTP_MAX_HEADERS; i++)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "A%d: b\r\n", i);
	(void)snprintf(text + n, sizeof(text) - n, "\r\n");
	assert_int_equal(parse(text, n + 2, MAX_HEAD, &head, &fault, NULL), SL_HTTP_OK);
	assert_int_equal(head.n_headers, SL_HTTP_MAX_HEADERS);
	(void)snprintf(text + n, sizeof(text) - n, "One: more\r\n\r\n");
	assert_int_equal(parse(text, strlen(text), MAX_HEAD, &head, &fault, NULL), SL_HTTP_TOO_BIG);
	assert_int_equal(fault.status, 431);
}

/*
 * Every byte of every valid head replaced by every value: the parser ends,
 * reads nothing outside, and its verdict on a prefix never contradicts that on
 * the whole (BAD stays BAD, OK keeps its length).
 */
static void verdicts_are_stable_under_mutation(void **state)
{
	(void)state;
	for (size_t v = 0; v < SL_ARRAY_LEN(valid); v++) {
		size_t len = strlen(valid[v]);

		for (size_t at = 0; at < len; at++) {
			for (int byte = 0; byte < 256; byte++) {
				char text[512];
				struct sl_http_head head;
				struct sl_http_fault fault;
				enum sl_http_result whole;
				size_t half = at + (len - at) / 2;
				enum sl_http_result part;

				memcpy(text, valid[v], len);
				text[at] = (char)byte;
				whole = parse(text, len, MAX_HEAD, &head, &fault, NULL);
				part = parse(text, half, MAX_HEAD, &head, &fault, NULL);
				if (part == SL_HTTP_BAD)
					assert_int_equal(whole, SL_HTTP_BAD);
				else if (part == SL_HTTP_OK)
					assert_int_equal(whole, SL_HTTP_OK);
				assert_int_not_equal(whole, SL_HTTP_TOO_BIG);
			}
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_strict_prefix_asks_for_more),
		cmocka_unit_test(bytes_after_the_head_do_not_matter),
		cmocka_unit_test(fields_are_found),
		cmocka_unit_test(targets_are_split),
		cmocka_unit_test(ambiguous_and_broken_heads_are_refused),
		cmocka_unit_test(a_nul_byte_is_refused_anywhere),
		cmocka_unit_test(close_wins_over_keep_alive),
		cmocka_unit_test(size_is_bounded),
		cmocka_unit_test(number_of_headers_is_bounded),
		cmocka_unit_test(verdicts_are_stable_under_mutation),
	};

	return cmocka_run_group_tests_name("http_head", tests, NULL, NULL);
}
