/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Streams of TLS against whatever a peer may send and a wire may do. The input is a program: it
 * says which calls are made, what each wire takes and gives, and which bytes are put
 * in between. Either one stream meets invented bytes alone, or two real ones talk and what is
 * on its way is harmed. What one reads is always a beginning of what the other wrote.
 */
#include <assert.h>
#include <errno.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdint.h>
#include <string.h>

#include "tls/backend.h"
#include "tls/library.h"
#include "tls/server.h"

#define LINE_ROOM (128 << 10)
#define HELD_MAX (96 << 10)
#define STEPS_MAX 4000

struct program {
	const uint8_t *p;
	size_t n;
};

struct line {
	unsigned char b[LINE_ROOM];
	size_t len;
	int has_ended;
};

struct end {
	struct line *in, *out;
	struct program *program;
	struct sl_tls_stream *s;
	uint64_t wrote, read; /* bytes of the pattern */
	int failed;
	int has_end; /* END or CUT was told */
};

static struct sl_tls_server *server;
static struct sl_tls_backend *backend;
static struct sl_cert_set *certs;
static struct sl_tls_tickets *tickets;
static struct sl_tls_scratch scratch;
static struct line up, down;

static uint8_t next(struct program *p)
{
	if (p->n == 0)
		return 0;
	p->n--;
	return *p->p++;
}

/* 0: nothing now; else so many of `n`. */
static size_t some(struct program *p, size_t n)
{
	uint8_t how = next(p);

	if (p->n == 0 || how > 200)
		return n;
	return how == 0 ? 0 : n < (size_t)how * how ? n : (size_t)how * how;
}

static ssize_t line_recv(void *owner, void *buf, size_t n)
{
	struct end *e = owner;
	size_t k = some(e->program, n < e->in->len ? n : e->in->len);

	if (k == 0)
		return e->in->len == 0 && e->in->has_ended ? 0 : -EAGAIN;
	memcpy(buf, e->in->b, k);
	memmove(e->in->b, e->in->b + k, e->in->len - k);
	e->in->len -= k;
	return (ssize_t)k;
}

static ssize_t line_send(void *owner, const void *bytes, size_t n)
{
	struct end *e = owner;
	size_t room = LINE_ROOM - e->out->len;
	size_t k = some(e->program, n < room ? n : room);

	if (k == 0)
		return -EAGAIN;
	memcpy(e->out->b + e->out->len, bytes, k);
	e->out->len += k;
	return (ssize_t)k;
}

static const struct sl_tls_wire wire = { .recv = line_recv, .send = line_send };

static char *text_of(BIO *b, size_t *ret_n)
{
	char *p;
	long n = BIO_get_mem_data(b, &p);

	assert(n > 0);
	*ret_n = (size_t)n;
	return p;
}

static void make_certs(void)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *x = X509_new();
	BIO *chain = BIO_new(BIO_s_mem());
	BIO *secret = BIO_new(BIO_s_mem());
	struct sl_cert_source s = { .label = "x" };

	assert(key && x && chain && secret);
	assert(X509_gmtime_adj(X509_getm_notBefore(x), -3600));
	assert(X509_gmtime_adj(X509_getm_notAfter(x), 36000));
	assert(X509_set_pubkey(x, key) && X509_sign(x, key, EVP_sha256()) > 0);
	assert(PEM_write_bio_X509(chain, x));
	assert(PEM_write_bio_PrivateKey(secret, key, NULL, NULL, 0, NULL, NULL));
	s.chain = text_of(chain, &s.chain_len);
	s.key = text_of(secret, &s.key_len);
	assert(sl_cert_set_new(&s, 1, 0, NULL, NULL, &certs) == 0);
	BIO_free(chain);
	BIO_free(secret);
	X509_free(x);
	EVP_PKEY_free(key);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	static const char *const alpn[] = { "h2", "http/1.1" };
	struct sl_tls_ticket_key key;
	struct sl_str why = { 0 };

	(void)argc;
	(void)argv;
	assert(sl_tls_init() == 0);
	make_certs();
	assert(sl_tls_server_new(&(struct sl_tls_server_conf){ .alpn = alpn, .n_alpn = 2 }, &why,
				 &server) == 0);
	assert(sl_tls_backend_new(&(struct sl_tls_backend_conf){ 0 }, &why, &backend) == 0);
	assert(sl_tls_ticket_key_make(&key) == 0);
	assert(sl_tls_tickets_new(&key, 1, &tickets) == 0);
	assert(sl_tls_scratch_init(&scratch) == 0);
	return 0;
}

static uint8_t pattern(uint64_t i)
{
	return (uint8_t)(i * 167 + (i >> 8));
}

/* What every answer has to be like. */
static void check(struct end *e, int r)
{
	assert(scratch.len == 0);
	assert(sl_tls_stream_held(e->s) <= HELD_MAX);
	assert(r >= SL_TLS_GO ? r <= SL_TLS_CUT : 1);
	if (e->failed < 0)
		assert(r == e->failed || r == -EINVAL);
	if (r < 0 && r != -EINVAL && r != -EOPNOTSUPP) {
		assert(*sl_tls_stream_error(e->s));
		e->failed = r;
	}
}

static void do_read(struct end *e, size_t room)
{
	static uint8_t buf[70000];
	size_t n = 0;
	int r = sl_tls_stream_read(e->s, &scratch, buf, room, &n);

	check(e, r);
	assert(n <= room && (r >= 0 || n == 0));
	for (size_t i = 0; i < n; i++)
		assert(buf[i] == pattern(e->read + i));
	e->read += n;
	assert(!e->has_end || (n == 0 && (r < 0 || r == SL_TLS_END || r == SL_TLS_CUT)));
	e->has_end = r == SL_TLS_END;
}

static void do_write(struct end *e, struct program *p)
{
	static uint8_t buf[70000];
	size_t n = (size_t)next(p) * (next(p) % 2 ? 270 : 1);
	size_t took = 0;
	int r;

	for (size_t i = 0; i < n; i++)
		buf[i] = pattern(e->wrote + i);
	r = sl_tls_stream_write(e->s, &scratch, next(p) * UINT64_C(100), buf, n, &took);
	check(e, r);
	assert(took <= n && (r >= 0 || took == 0));
	assert(r != SL_TLS_GO || (took == n && sl_tls_stream_held(e->s) == 0));
	e->wrote += took;
}

/* Bytes on their way are changed, lost, or come from nowhere. */
static void harm(struct line *l, struct program *p)
{
	size_t at = next(p) | (size_t)next(p) << 8;

	switch (next(p) % 4) {
	case 0:
		if (l->len > 0)
			l->b[at % l->len] ^= next(p) | 1;
		break;
	case 1:
		l->len = l->len > 0 ? at % l->len : 0;
		break;
	case 2:
		l->has_ended = 1;
		break;
	default:
		for (size_t n = next(p); n > 0 && l->len < LINE_ROOM && p->n > 0; n--)
			l->b[l->len++] = next(p);
	}
}

static void do_one(struct end *e, struct program *p)
{
	struct sl_tls_facts facts;

	switch (next(p) % 12) {
	case 0:
	case 1:
	case 2:
	case 3:
		do_read(e, 1 + (size_t)next(p) * (next(p) % 2 ? 270 : 1));
		break;
	case 4:
	case 5:
	case 6:
		do_write(e, p);
		break;
	case 7:
		check(e, sl_tls_stream_flush(e->s));
		break;
	case 8:
		check(e, sl_tls_stream_rekey(e->s, &scratch, next(p) % 2));
		break;
	case 9:
		check(e, sl_tls_stream_end(e->s, &scratch));
		break;
	case 10:
		sl_tls_stream_facts(e->s, &facts);
		sl_tls_stream_read_to_end(e->s);
		(void)sl_tls_stream_has_pending(e->s);
		break;
	default:
		harm(e->in, p);
	}
}

static void shake(struct end *e)
{
	int r = sl_tls_stream_handshake(e->s, &scratch);

	check(e, r);
	assert(r != SL_TLS_END && r != SL_TLS_CUT);
	assert(r != SL_TLS_GO || sl_tls_stream_is_ready(e->s));
}

static void run(struct end *ends, size_t n_ends, struct program *p)
{
	for (int i = 0; i < STEPS_MAX && p->n > 0; i++) {
		struct end *e = &ends[(size_t)i % n_ends];

		if (!sl_tls_stream_is_ready(e->s) || next(p) % 16 == 0)
			shake(e);
		else
			do_one(e, p);
	}
	for (size_t i = 0; i < n_ends; i++)
		if (n_ends == 2)
			assert(ends[i].read <= ends[1 - i].wrote);
}

/* The wire of a handshake that is to succeed is left alone. */
static void shake_well(struct end ends[2])
{
	struct program calm = { 0 };
	struct program *p = ends[0].program;

	ends[0].program = ends[1].program = &calm;
	for (int i = 0; i < 20; i++)
		shake(&ends[i % 2]);
	assert(sl_tls_stream_is_ready(ends[0].s) && sl_tls_stream_is_ready(ends[1].s));
	ends[0].program = ends[1].program = p;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
	struct program p = { bytes, n };
	uint8_t mode = next(&p);
	struct end ends[2] = { { .in = &up, .out = &down, .program = &p },
			       { .in = &down, .out = &up, .program = &p } };
	struct sl_tls_target *target = NULL;

	up.len = down.len = 0;
	up.has_ended = down.has_ended = 0;
	assert(sl_tls_target_new(backend, "x.example", &target) == 0);
	assert(sl_tls_accept(server, certs, mode & 8 ? NULL : tickets, &wire, &ends[0],
			     &ends[0].s) == 0);
	assert(sl_tls_target_connect(target, &wire, &ends[1], &ends[1].s) == 0);
	if (mode & 1) { /* one alone; all that is left is what the peer sends */
		struct end *e = &ends[mode >> 1 & 1];
		size_t early = next(&p) % 64;

		early = early < p.n ? early : p.n;
		assert(sl_tls_stream_unread(e->s, p.p, early) == 0);
		p.p += early;
		p.n -= early;
		e->in->len = p.n / 2 < LINE_ROOM ? p.n / 2 : LINE_ROOM;
		memcpy(e->in->b, p.p, e->in->len);
		p.p += e->in->len;
		p.n -= e->in->len;
		e->in->has_ended = mode & 4;
		run(e, 1, &p);
	} else {
		if (mode & 2)
			shake_well(ends);
		run(ends, 2, &p);
	}
	sl_tls_stream_free(ends[0].s);
	sl_tls_stream_free(ends[1].s);
	sl_tls_target_unref(target);
	return 0;
}
