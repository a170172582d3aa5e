/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <assert.h>
#include <sanitizer/asan_interface.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/tls_hello.h"

/* Larger inputs add time, not ways through the reader; the unit test has them. */
#define MAX_INPUT 8192
#define EVERY_PREFIX 256

static uint8_t joined[SL_HELLO_MAX];

struct answer {
	enum sl_hello_result r;
	struct sl_hello hello;
	const char *why;
	char name[SL_NAME_MAX];
	uint8_t alpn[MAX_INPUT];
};

static void lies_inside(struct sl_slice s, const uint8_t *bytes, size_t n)
{
	const char *in = (const char *)bytes;
	const char *scratch = (const char *)joined;

	assert(!s.p || (s.p >= in && s.p + s.n <= in + n) ||
	       (s.p >= scratch && s.p + s.n <= scratch + sizeof(joined)));
}

static void check_name(struct sl_slice name)
{
	char buf[SL_NAME_MAX + 1];
	size_t n;

	assert(name.n >= 1 && name.n <= SL_NAME_MAX);
	assert(sl_name_normalize(name, false, buf, &n) == 0);
	assert(n == name.n && memcmp(buf, name.p, n) == 0 && buf[n] == '\0');
}

static void check_alpn(struct sl_slice rest)
{
	struct sl_slice protocol;

	assert(rest.n >= 2);
	while (sl_hello_next_alpn(&rest, &protocol))
		assert(protocol.n >= 1 && protocol.n <= 255);
	assert(rest.n == 0);
}

/* The reader's answer with what it points to copied, since its scratch is used again. */
static void ask(struct sl_hello_reader *reader, const uint8_t *bytes, size_t n, struct answer *a)
{
	a->hello = (struct sl_hello){ 0 };
	a->why = NULL;
	a->r = sl_hello_read(reader, bytes, n, joined, &a->hello, &a->why);
	assert((a->why != NULL) == (a->r == SL_HELLO_BAD));
	if (a->r != SL_HELLO_OK) {
		assert(a->hello.len == 0 && !a->hello.name.p && !a->hello.alpn.p);
		return;
	}
	assert(a->hello.len >= 5 + 45 && a->hello.len <= n);
	assert(a->hello.versions <= 15);
	lies_inside(a->hello.name, bytes, a->hello.len);
	lies_inside(a->hello.alpn, bytes, a->hello.len);
	if (a->hello.name.p) {
		check_name(a->hello.name);
		memcpy(a->name, a->hello.name.p, a->hello.name.n);
	}
	if (a->hello.alpn.p) {
		check_alpn(a->hello.alpn);
		memcpy(a->alpn, a->hello.alpn.p, a->hello.alpn.n);
	}
}

/* Equal but for where it ends. */
static void is_same(const struct answer *a, const struct answer *b)
{
	assert(a->r == b->r);
	if (a->r == SL_HELLO_BAD)
		assert(a->why == b->why);
	if (a->r != SL_HELLO_OK)
		return;
	assert(a->hello.versions == b->hello.versions && a->hello.has_ech == b->hello.has_ech);
	assert(!a->hello.name.p == !b->hello.name.p && a->hello.name.n == b->hello.name.n);
	assert(memcmp(a->name, b->name, a->hello.name.n) == 0);
	assert(!a->hello.alpn.p == !b->hello.alpn.p && a->hello.alpn.n == b->hello.alpn.n);
	assert(memcmp(a->alpn, b->alpn, a->hello.alpn.n) == 0);
}

/*
 * One reader fed byte by byte, the bytes not there yet poisoned. It decides once, at the first
 * byte that shows it: the hello's last one when the whole is fine.
 */
static size_t feed_bytewise(uint8_t *bytes, size_t n, const struct answer *whole)
{
	static struct answer a;
	struct sl_hello_reader reader = { 0 };
	size_t decided = SIZE_MAX;

	ASAN_POISON_MEMORY_REGION(bytes, n);
	for (size_t i = 0; i <= n; i++) {
		if (i > 0)
			ASAN_UNPOISON_MEMORY_REGION(bytes + ((i - 1) & ~(size_t)7),
						    ((i - 1) & 7) + 1);
		ask(&reader, bytes, i, &a);
		if (a.r == SL_HELLO_MORE) {
			assert(decided == SIZE_MAX);
			continue;
		}
		is_same(&a, whole);
		if (decided == SIZE_MAX)
			decided = i;
		if (a.r == SL_HELLO_OK)
			assert(a.hello.len == decided && a.hello.len == whole->hello.len);
		if (i - decided >= 16) /* it stays so; the rest is told by `whole` */
			break;
	}
	ASAN_UNPOISON_MEMORY_REGION(bytes, n);
	return decided;
}

/* A new reader says the same of any prefix: MORE before the deciding byte, the verdict after. */
static void check_prefix(const uint8_t *bytes, size_t part, size_t decided,
			 const struct answer *whole)
{
	static struct answer a;
	struct sl_hello_reader reader = { 0 };
	uint8_t *copy = malloc(part ? part : 1);

	assert(copy);
	memcpy(copy, bytes, part);
	ask(&reader, copy, part, &a);
	if (part < decided)
		assert(a.r == SL_HELLO_MORE);
	else
		is_same(&a, whole);
	free(copy);
}

static size_t message_of(const uint8_t *bytes, size_t len, uint8_t *msg)
{
	size_t n = 0;

	for (size_t at = 0; at < len;) {
		size_t record = (size_t)bytes[at + 3] << 8 | bytes[at + 4];

		memcpy(msg + n, bytes + at + 5, record);
		n += record;
		at += 5 + record;
	}
	return n;
}

static void refragment(const uint8_t *bytes, size_t size, const struct answer *whole)
{
	static struct answer a;
	static uint8_t msg[MAX_INPUT];
	static uint8_t cut[MAX_INPUT * 6];
	struct sl_hello_reader reader = { 0 };
	size_t n = message_of(bytes, whole->hello.len, msg);
	size_t to = 0;

	for (size_t at = 0; at < n;) {
		size_t part = n - at < size ? n - at : size;

		memcpy(cut + to, (uint8_t[5]){ 22, 3, 3, (uint8_t)(part >> 8), (uint8_t)part }, 5);
		memcpy(cut + to + 5, msg + at, part);
		to += 5 + part;
		at += part;
	}
	ask(&reader, cut, to, &a);
	is_same(&a, whole);
	assert(a.hello.len == to);
	reader = (struct sl_hello_reader){ 0 };
	ask(&reader, cut, to / 2, &a);
	assert(a.r == SL_HELLO_MORE);
	ask(&reader, cut, to, &a);
	is_same(&a, whole);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t n)
{
	static struct answer whole;
	struct sl_hello_reader reader = { 0 };
	size_t step = n / 16 + 1;
	size_t decided;
	uint8_t *bytes;

	if (n > MAX_INPUT)
		return -1;
	bytes = malloc(n ? n : 1);
	assert(bytes);
	memcpy(bytes, input, n);
	ask(&reader, bytes, n, &whole);
	decided = feed_bytewise(bytes, n, &whole);
	assert((decided == SIZE_MAX) == (whole.r == SL_HELLO_MORE));
	if (n <= EVERY_PREFIX && whole.r == SL_HELLO_OK)
		step = 1;
	for (size_t part = 0; part < n; part += step)
		check_prefix(bytes, part, decided, &whole);
	if (decided != SIZE_MAX && decided > 0)
		check_prefix(bytes, decided - 1, decided, &whole);
	if (whole.r == SL_HELLO_OK) {
		refragment(bytes, 1 + n % 7, &whole);
		refragment(bytes, 1 + bytes[n - 1], &whole);
		refragment(bytes, 16384, &whole);
	}
	assert(memcmp(bytes, input, n) == 0);
	free(bytes);
	return 0;
}

size_t LLVMFuzzerMutate(uint8_t *bytes, size_t n, size_t max);

static void put16(uint8_t *at, size_t v)
{
	at[0] = (uint8_t)(v >> 8);
	at[1] = (uint8_t)v;
}

/* The lengths around a message in one record made to fit, or else hardly any change gets inside. */
static void repair(uint8_t *bytes, size_t n)
{
	size_t at = 5 + 4 + 34;

	if (n < at + 1 || n - 5 > 16384)
		return;
	memcpy(bytes, (uint8_t[3]){ 22, 3, 1 }, 3);
	put16(bytes + 3, n - 5);
	memcpy(bytes + 5, (uint8_t[2]){ 1, 0 }, 2);
	put16(bytes + 7, n - 9);
	at += 1 + bytes[at]; /* session id */
	if (at + 2 >= n)
		return;
	at += 2 + ((size_t)bytes[at] << 8 | bytes[at + 1]); /* cipher suites */
	if (at >= n)
		return;
	at += 1 + (size_t)bytes[at]; /* compression */
	if (at + 2 <= n)
		put16(bytes + at, n - at - 2);
}

size_t LLVMFuzzerCustomMutator(uint8_t *bytes, size_t n, size_t max, unsigned seed)
{
	n = LLVMFuzzerMutate(bytes, n, max);
	if (seed % 2)
		repair(bytes, n);
	return n;
}
