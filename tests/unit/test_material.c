/* SPDX-License-Identifier: GPL-3.0-or-later */
/* WRAP: free */
/* The bytes of certificates and keys as one block: what goes in comes out, and nothing else does.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tls/material.h"

static const struct sl_cert_source two[] = {
	{ .label = "/a.pem", .chain = "chain a", .chain_len = 7, .key = "key a", .key_len = 5 },
	{ .label = "/b.pem", .chain = "b\0b", .chain_len = 3, .staple = "", .staple_len = 0 },
};
static const struct sl_cert_source one = { .label = "/c.pem", .chain = "c", .chain_len = 1 };

static struct sl_material items[] = {
	{ .route = "api", .certs = two, .n_certs = 2, .client_ca = "ca", .client_ca_len = 2 },
	{ .route = "shop",
	  .backend_ca = "authority",
	  .backend_ca_len = 9,
	  .backend_cert = &one,
	  .problem = "/c.pem: a problem" },
	{ .route = "web", .problem = "" },
};
static const struct sl_materials sample = {
	.item = items, .n = 3, .system_ca = "system", .system_ca_len = 6
};

static const char *watched; /* a block, */
static size_t watched_len;
static size_t n_wiped; /* that was given back empty so often */

void __real_free(void *p);
void __wrap_free(void *p);
void __wrap_free(void *p)
{
	bool is_empty = p && p == watched;

	for (size_t i = 0; is_empty && i < watched_len; i++)
		is_empty = watched[i] == '\0';
	n_wiped += is_empty;
	__real_free(p);
}

static char *pack(const struct sl_materials *m, size_t *n)
{
	char *block = NULL;

	assert_int_equal(sl_materials_pack(m, &block, n), 0);
	return block;
}

/* A copy of exactly these bytes. */
static int unpack(const char *bytes, size_t n, struct sl_materials *ret)
{
	char *copy = malloc(n ? n : 1);

	assert_non_null(copy);
	memcpy(copy, bytes, n);
	return sl_materials_unpack(copy, n, ret);
}

static void assert_bytes(const void *got, size_t n, const void *want, size_t want_n)
{
	assert_int_equal(got == NULL, want == NULL);
	assert_int_equal(n, want_n);
	if (n > 0)
		assert_memory_equal(got, want, n);
}

static void assert_cert(const struct sl_cert_source *got, const struct sl_cert_source *want)
{
	assert_string_equal(got->label, want->label);
	assert_bytes(got->chain, got->chain_len, want->chain, want->chain_len);
	assert_bytes(got->key, got->key_len, want->key, want->key_len);
	assert_bytes(got->staple, got->staple_len, want->staple, want->staple_len);
}

static void test_round_trip(void **state)
{
	struct sl_materials m = { 0 };
	size_t n;
	char *block = pack(&sample, &n);

	(void)state;
	assert_int_equal(sl_materials_unpack(block, n, &m), 0);
	assert_int_equal(m.n, 3);
	assert_bytes(m.system_ca, m.system_ca_len, "system", 6);
	for (size_t i = 0; i < m.n; i++) {
		const struct sl_material *got = &m.item[i];

		assert_string_equal(got->route, items[i].route);
		assert_string_equal(got->problem, items[i].problem ? items[i].problem : "");
		assert_bytes(got->client_ca, got->client_ca_len, items[i].client_ca,
			     items[i].client_ca_len);
		assert_bytes(got->backend_ca, got->backend_ca_len, items[i].backend_ca,
			     items[i].backend_ca_len);
		assert_int_equal(got->n_certs, items[i].n_certs);
		for (size_t c = 0; c < got->n_certs; c++)
			assert_cert(&got->certs[c], &items[i].certs[c]);
		assert_int_equal(got->backend_cert != NULL, items[i].backend_cert != NULL);
		if (got->backend_cert)
			assert_cert(got->backend_cert, items[i].backend_cert);
		assert_ptr_equal(sl_materials_find(&m, items[i].route), got);
	}
	assert_null(sl_materials_find(&m, ""));
	assert_null(sl_materials_find(&m, "apia"));
	assert_null(sl_materials_find(&m, "zoo"));
	sl_materials_done(&m);
	assert_null(m.block);
	sl_materials_done(&m);
}

/* Of what was refused, too. */
static void test_wiped(void **state)
{
	struct sl_materials m = { 0 };
	size_t n;
	char *block = pack(&sample, &n);

	(void)state;
	n_wiped = 0;
	watched = block;
	watched_len = n;
	assert_int_equal(sl_materials_unpack(block, n, &m), 0);
	assert_int_equal(n_wiped, 0);
	sl_materials_done(&m);
	assert_int_equal(n_wiped, 1);
	block = pack(&sample, &n);
	watched = block;
	block[0] ^= 1;
	assert_int_equal(sl_materials_unpack(block, n, &m), -EBADMSG);
	assert_int_equal(n_wiped, 2);
	watched = NULL;
}

static void test_empty(void **state)
{
	const struct sl_materials none = { 0 };
	struct sl_materials m = { 0 };
	size_t n;
	char *block = pack(&none, &n);

	(void)state;
	assert_int_equal(sl_materials_unpack(block, n, &m), 0);
	assert_int_equal(m.n, 0);
	assert_null(m.system_ca);
	assert_null(sl_materials_find(&m, "web"));
	sl_materials_done(&m);
	assert_int_equal(unpack("", 0, &m), -EBADMSG);
}

static void test_cut_short_or_long(void **state)
{
	struct sl_materials m = { 0 };
	size_t n;
	char *block = pack(&sample, &n);
	char *more = malloc(n + 1);

	(void)state;
	for (size_t cut = 0; cut < n; cut++)
		assert_int_equal(unpack(block, cut, &m), -EBADMSG);
	assert_non_null(more);
	memcpy(more, block, n);
	more[n] = '\0';
	assert_int_equal(sl_materials_unpack(more, n + 1, &m), -EBADMSG);
	free(block);
}

/* Each byte made another: refused, or a block of which everything is within its bytes. */
static void test_every_byte_changed(void **state)
{
	size_t n;
	char *block = pack(&sample, &n);
	size_t n_bad = 0;

	(void)state;
	for (size_t at = 0; at < n; at++) {
		for (unsigned flip = 1; flip < 256; flip <<= 1) {
			struct sl_materials m = { 0 };
			char *again = NULL;
			size_t len;

			block[at] = (char)(block[at] ^ flip);
			if (unpack(block, n, &m) < 0) {
				n_bad++;
			} else {
				again = pack(&m, &len);
				assert_int_equal(len, n);
				assert_memory_equal(again, block, n);
			}
			free(again);
			sl_materials_done(&m);
			block[at] = (char)(block[at] ^ flip);
		}
	}
	assert_true(n_bad > n); /* most of the lengths, terminators, counts */
	free(block);
}

static void expect_refusal(const struct sl_materials *m)
{
	struct sl_materials got = { 0 };
	size_t n;
	char *block = pack(m, &n);

	assert_int_equal(sl_materials_unpack(block, n, &got), -EBADMSG);
}

static void test_order_and_names(void **state)
{
	struct sl_material twice[] = { { .route = "web" }, { .route = "web" } };
	struct sl_material wrong[] = { { .route = "web" }, { .route = "api" } };
	const struct sl_cert_source no_chain = { .label = "/a.pem", .key = "k", .key_len = 1 };
	struct sl_material bare[] = { { .route = "web", .certs = &no_chain, .n_certs = 1 } };

	(void)state;
	expect_refusal(&(struct sl_materials){ .item = twice, .n = 2 });
	expect_refusal(&(struct sl_materials){ .item = wrong, .n = 2 });
	expect_refusal(&(struct sl_materials){ .item = bare, .n = 1 });
}

static void test_too_much(void **state)
{
	const struct sl_materials m = { .system_ca = "x", .system_ca_len = SL_MATERIALS_MAX };
	const struct sl_materials huge = { .system_ca = "x", .system_ca_len = SIZE_MAX / 2 };
	char *block = NULL;
	size_t n = 0;

	(void)state;
	assert_int_equal(sl_materials_pack(&m, &block, &n), -E2BIG);
	assert_int_equal(sl_materials_pack(&huge, &block, &n), -E2BIG);
	assert_null(block);
	assert_int_equal(n, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_wiped),
		cmocka_unit_test(test_empty),
		cmocka_unit_test(test_cut_short_or_long),
		cmocka_unit_test(test_every_byte_changed),
		cmocka_unit_test(test_order_and_names),
		cmocka_unit_test(test_too_much),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
