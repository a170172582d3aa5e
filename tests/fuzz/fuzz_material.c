/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The block of certificates and keys that a proxy is sent. What is accepted comes out the same
 * after another round, every pointer of it is within the block, and no part of a block is one.
 */
#include <assert.h>
#include <errno.h>

#include "../../userspace/tls/material.c"
#include "tls/backend.h"

/* No block has one: it is made of what is in it, elsewhere. */
void sl_tls_trust_unref(struct sl_tls_trust *trust)
{
	assert(!trust);
}

static void check_bytes(const struct sl_materials *m, const void *bytes, size_t n)
{
	const char *p = bytes;

	if (!p)
		return;
	assert(p > m->block && p + n < m->block + m->block_len && p[n] == '\0');
}

static void check_text(const struct sl_materials *m, const char *text)
{
	assert(text);
	check_bytes(m, text, strlen(text));
}

static void check_cert(const struct sl_materials *m, const struct sl_cert_source *c)
{
	check_text(m, c->label);
	assert(c->chain);
	check_bytes(m, c->chain, c->chain_len);
	check_bytes(m, c->key, c->key_len);
	check_bytes(m, c->staple, c->staple_len);
}

static void check(const struct sl_materials *m)
{
	check_bytes(m, m->system_ca, m->system_ca_len);
	for (size_t i = 0; i < m->n; i++) {
		const struct sl_material *item = &m->item[i];

		check_text(m, item->route);
		check_text(m, item->problem);
		check_bytes(m, item->client_ca, item->client_ca_len);
		check_bytes(m, item->backend_ca, item->backend_ca_len);
		for (size_t c = 0; c < item->n_certs; c++)
			check_cert(m, &item->certs[c]);
		if (item->backend_cert)
			check_cert(m, item->backend_cert);
		assert(sl_materials_find(m, item->route) == item);
	}
}

/* Of exactly that size, so that a byte too far is seen. */
static int unpack(const void *bytes, size_t n, struct sl_materials *ret)
{
	char *block = malloc(n);

	assert(block || n == 0);
	if (n > 0)
		memcpy(block, bytes, n);
	return sl_materials_unpack(block, n, ret);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
	struct sl_materials m = { 0 };
	char *again = NULL;
	size_t len;

	if (unpack(bytes, n, &m) < 0)
		return 0;
	check(&m);
	assert(sl_materials_pack(&m, &again, &len) == 0);
	assert(len == n && memcmp(again, bytes, n) == 0);
	free(again);
	sl_materials_done(&m);
	for (size_t cut = 0; cut < n && cut < 200; cut++)
		assert(unpack(bytes, cut, &m) == -EBADMSG);
	return 0;
}
