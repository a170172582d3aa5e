/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "tls/material.h"

#include <errno.h>
#include <string.h>

#include "tls/backend.h"

/*
 * The block: a head, the store of the system, then routes, each with its certificates. Texts and
 * bytes are { length, bytes, NUL }; both processes are of one host, so byte order is no question.
 */
#define MAGIC UINT64_C(0x317374616d006c73)
#define ABSENT UINT32_MAX /* a length: NULL, which differs from empty */
/* What an item takes at least, so that a count cannot ask for more memory than the block has. */
#define ROUTE_MIN (6 * sizeof(uint32_t))
#define CERT_MIN (4 * sizeof(uint32_t))

void sl_materials_done(struct sl_materials *m)
{
	for (size_t i = 0; i < m->n; i++) {
		free((void *)(uintptr_t)m->item[i].certs);
		free((void *)(uintptr_t)m->item[i].backend_cert);
	}
	free(m->item);
	sl_tls_trust_unref(m->system_trust);
	if (m->block)
		explicit_bzero(m->block, m->block_len);
	free(m->block);
	*m = (struct sl_materials){ 0 };
}

const struct sl_material *sl_materials_find(const struct sl_materials *m, const char *route)
{
	size_t from = 0;
	size_t to = m->n;

	while (from < to) {
		size_t middle = from + (to - from) / 2;
		int c = strcmp(route, m->item[middle].route);

		if (c == 0)
			return &m->item[middle];
		if (c < 0)
			to = middle;
		else
			from = middle + 1;
	}
	return NULL;
}

/* ---- packing: once to measure, once to fill, so that no copy is left behind by growing ---- */

struct sink {
	char *p; /* NULL: only measures */
	size_t n;
	bool is_over; /* a length that the block cannot say */
};

static void put(struct sink *s, const void *bytes, size_t n)
{
	if (s->p && n > 0)
		memcpy(s->p + s->n, bytes, n);
	s->n += n;
}

static void put_count(struct sink *s, size_t n)
{
	uint32_t count = (uint32_t)n;

	s->is_over = s->is_over || n >= ABSENT;
	put(s, &count, sizeof(count));
}

static void put_bytes(struct sink *s, const void *bytes, size_t n)
{
	if (!bytes) {
		const uint32_t absent = ABSENT;

		put(s, &absent, sizeof(absent));
		return;
	}
	put_count(s, n);
	put(s, bytes, n);
	put(s, "", 1);
}

static void put_text(struct sink *s, const char *text)
{
	put_bytes(s, text ? text : "", text ? strlen(text) : 0);
}

static void put_cert(struct sink *s, const struct sl_cert_source *c)
{
	put_text(s, c->label);
	put_bytes(s, c->chain, c->chain_len);
	put_bytes(s, c->key, c->key_len);
	put_bytes(s, c->staple, c->staple_len);
}

static void put_route(struct sink *s, const struct sl_material *m)
{
	put_text(s, m->route);
	put_text(s, m->problem);
	put_bytes(s, m->client_ca, m->client_ca_len);
	put_bytes(s, m->backend_ca, m->backend_ca_len);
	put_count(s, m->n_certs);
	for (size_t i = 0; i < m->n_certs; i++)
		put_cert(s, &m->certs[i]);
	put_count(s, m->backend_cert != NULL);
	if (m->backend_cert)
		put_cert(s, m->backend_cert);
}

static void put_all(struct sink *s, const struct sl_materials *m)
{
	const uint64_t magic = MAGIC;

	put(s, &magic, sizeof(magic));
	put_bytes(s, m->system_ca, m->system_ca_len);
	put_count(s, m->n);
	for (size_t i = 0; i < m->n; i++)
		put_route(s, &m->item[i]);
}

int sl_materials_pack(const struct sl_materials *m, char **ret, size_t *ret_len)
{
	struct sink s = { 0 };

	put_all(&s, m);
	if (s.is_over || s.n > SL_MATERIALS_MAX)
		return -E2BIG;
	s.p = malloc(s.n);
	if (!s.p)
		return -ENOMEM;
	s.n = 0;
	put_all(&s, m);
	*ret = s.p;
	*ret_len = s.n;
	return 0;
}

/* ---- unpacking ---- */

/* What is left of the block. Once bad always bad: nothing is taken any more. */
struct source {
	const char *p;
	size_t n;
	int err;
};

static bool take(struct source *s, void *to, size_t n)
{
	if (s->err == 0 && n > s->n)
		s->err = -EBADMSG;
	if (s->err < 0)
		return false;
	memcpy(to, s->p, n);
	s->p += n;
	s->n -= n;
	return true;
}

static const void *take_bytes(struct source *s, size_t *ret_len)
{
	const char *bytes;
	uint32_t n;

	*ret_len = 0;
	if (!take(s, &n, sizeof(n)) || n == ABSENT)
		return NULL;
	if (n >= s->n || s->p[n] != '\0') {
		s->err = -EBADMSG;
		return NULL;
	}
	bytes = s->p;
	s->p += (size_t)n + 1;
	s->n -= (size_t)n + 1;
	*ret_len = n;
	return bytes;
}

static const char *take_text(struct source *s)
{
	size_t n;
	const char *text = take_bytes(s, &n);

	if (!text || strlen(text) != n) {
		s->err = s->err ? s->err : -EBADMSG;
		return "";
	}
	return text;
}

/* An array for as many as there say to be; `min`: what each of them takes at least. */
static void *take_array(struct source *s, size_t max, size_t min, size_t size, size_t *ret_n)
{
	void *array;
	uint32_t n;

	*ret_n = 0;
	if (!take(s, &n, sizeof(n)) || n == 0)
		return NULL;
	if (n > max || n > s->n / min) {
		s->err = -EBADMSG;
		return NULL;
	}
	array = calloc(n, size);
	if (!array) {
		s->err = -ENOMEM;
		return NULL;
	}
	*ret_n = n;
	return array;
}

static struct sl_cert_source *take_certs(struct source *s, size_t max, size_t *ret_n)
{
	struct sl_cert_source *certs = take_array(s, max, CERT_MIN, sizeof(*certs), ret_n);

	for (size_t i = 0; i < *ret_n; i++) {
		certs[i].label = take_text(s);
		certs[i].chain = take_bytes(s, &certs[i].chain_len);
		certs[i].key = take_bytes(s, &certs[i].key_len);
		certs[i].staple = take_bytes(s, &certs[i].staple_len);
		if (s->err == 0 && !certs[i].chain)
			s->err = -EBADMSG;
	}
	return certs;
}

static void take_route(struct source *s, struct sl_material *m)
{
	size_t n;

	m->route = take_text(s);
	m->problem = take_text(s);
	m->client_ca = take_bytes(s, &m->client_ca_len);
	m->backend_ca = take_bytes(s, &m->backend_ca_len);
	m->certs = take_certs(s, SIZE_MAX, &m->n_certs);
	m->backend_cert = take_certs(s, 1, &n);
}

static int take_all(struct source *s, struct sl_materials *m)
{
	uint64_t magic;

	if (take(s, &magic, sizeof(magic)) && magic != MAGIC)
		s->err = -EBADMSG;
	m->system_ca = take_bytes(s, &m->system_ca_len);
	m->item = take_array(s, SIZE_MAX, ROUTE_MIN, sizeof(*m->item), &m->n);
	for (size_t i = 0; s->err == 0 && i < m->n; i++) {
		take_route(s, &m->item[i]);
		/* sorted, and each once: they are searched by halving */
		if (s->err == 0 && i > 0 && strcmp(m->item[i - 1].route, m->item[i].route) >= 0)
			s->err = -EBADMSG;
	}
	return s->err == 0 && s->n > 0 ? -EBADMSG : s->err;
}

int sl_materials_unpack(char *block, size_t n, struct sl_materials *ret)
{
	struct sl_materials m = { .block = block, .block_len = n };
	struct source s = { .p = block, .n = n };
	int r = n <= SL_MATERIALS_MAX ? take_all(&s, &m) : -EBADMSG;

	if (r < 0) {
		sl_materials_done(&m);
		return r;
	}
	*ret = m;
	return 0;
}
