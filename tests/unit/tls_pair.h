/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef TLS_PAIR_H
#define TLS_PAIR_H

/* Both ends of a TLS connection in memory, over wires that cut and delay as they like. */

#include <errno.h>

#include "base/clock.h"
#include "base/rand.h"
#include "tls/backend.h"
#include "tls/library.h"
#include "tls/server.h"
#include "tls_pki.h"

/* One direction. */
struct line {
	unsigned char *b;
	size_t at, len, room;
	uint64_t total;  /* bytes ever sent */
	uint64_t cut_at; /* bytes from there on are lost and the line ends; UINT64_MAX: never */
	bool has_ended;
	int error; /* -errno for whoever sends */
};

struct end {
	struct line *in, *out;
	struct sl_rand *rand; /* NULL: neither cuts nor delays */
	struct sl_tls_stream *s;
	unsigned n_in, n_out; /* waits asked for */
};

struct pair {
	struct line up, down; /* from the client, from the server */
	struct end client, server;
	struct sl_rand rand;
	struct sl_tls_scratch scratch;
	uint64_t now_ms;
};

static inline bool chance(struct sl_rand *r, unsigned one_in)
{
	return r && sl_rand_below(r, one_in) == 0;
}

static inline ssize_t line_recv(void *owner, void *buf, size_t n)
{
	struct end *e = owner;
	struct line *l = e->in;

	if (l->len == 0 || chance(e->rand, 3))
		return l->len == 0 && l->has_ended ? 0 : -EAGAIN;
	n = n < l->len ? n : l->len;
	if (e->rand)
		n = 1 + sl_rand_below(e->rand, chance(e->rand, 2) ? n : n < 9 ? n : 9);
	memcpy(buf, l->b + l->at, n);
	l->at += n;
	l->len -= n;
	if (l->len == 0)
		l->at = 0;
	return (ssize_t)n;
}

static inline ssize_t line_send(void *owner, const void *bytes, size_t n)
{
	struct end *e = owner;
	struct line *l = e->out;

	if (l->error)
		return l->error;
	if (l->at > 0) {
		memmove(l->b, l->b + l->at, l->len);
		l->at = 0;
	}
	n = n < l->room - l->len ? n : l->room - l->len;
	if (n == 0 || chance(e->rand, 3))
		return -EAGAIN;
	if (e->rand)
		n = 1 + sl_rand_below(e->rand, n);
	l->total += n;
	if (l->total > l->cut_at) { /* what is lost is taken all the same */
		size_t lost = (size_t)(l->total - l->cut_at);

		l->has_ended = true;
		memcpy(l->b + l->len, bytes, lost < n ? n - lost : 0);
		l->len += lost < n ? n - lost : 0;
		return (ssize_t)n;
	}
	memcpy(l->b + l->len, bytes, n);
	l->len += n;
	return (ssize_t)n;
}

static const struct sl_tls_wire memory_wire = { .recv = line_recv, .send = line_send };

static inline void open_line(struct line *l, size_t room)
{
	*l = (struct line){ .b = malloc(room), .room = room, .cut_at = UINT64_MAX };
	assert_non_null(l->b);
}

/* `seed` 0: bytes travel whole and at once. */
static inline void open_pair(struct pair *p, struct sl_tls_server *server,
			     struct sl_cert_set *certs, struct sl_tls_tickets *tickets,
			     struct sl_tls_target *target, uint64_t seed)
{
	*p = (struct pair){ .now_ms = 1 };
	sl_rand_seed(&p->rand, seed);
	open_line(&p->up, 256 << 10);
	open_line(&p->down, 256 << 10);
	p->client = (struct end){ .in = &p->down, .out = &p->up, .rand = seed ? &p->rand : NULL };
	p->server = (struct end){ .in = &p->up, .out = &p->down, .rand = seed ? &p->rand : NULL };
	assert_int_equal(sl_tls_scratch_init(&p->scratch), 0);
	assert_int_equal(
		sl_tls_accept(server, certs, tickets, &memory_wire, &p->server, &p->server.s), 0);
	if (target)
		assert_int_equal(
			sl_tls_target_connect(target, &memory_wire, &p->client, &p->client.s), 0);
}

static inline void close_pair(struct pair *p)
{
	sl_tls_stream_free(p->client.s);
	sl_tls_stream_free(p->server.s);
	sl_tls_scratch_done(&p->scratch);
	free(p->up.b);
	free(p->down.b);
}

static inline int step(struct pair *p, struct end *e)
{
	int r = sl_tls_stream_handshake(e->s, &p->scratch);

	assert_int_equal(p->scratch.len, 0);
	e->n_in += r == SL_TLS_IN;
	e->n_out += r == SL_TLS_OUT;
	assert_true(r != SL_TLS_END && r != SL_TLS_CUT);
	return r;
}

/* Both results as they end; 0: done. A side that failed has ended its line. */
static inline void shake(struct pair *p, int *ret_client, int *ret_server)
{
	int c = SL_TLS_IN;
	int s = SL_TLS_IN;

	for (int i = 0; i < 20000 && (c > 0 || s > 0); i++) {
		if (c > 0)
			c = step(p, &p->client);
		if (c < 0)
			p->up.has_ended = true;
		if (s > 0)
			s = step(p, &p->server);
		if (s < 0)
			p->down.has_ended = true;
	}
	*ret_client = c;
	*ret_server = s;
}

static inline void shake_well(struct pair *p)
{
	int c, s;

	shake(p, &c, &s);
	if (c || s)
		print_message("client %d %s, server %d %s\n", c, sl_tls_stream_error(p->client.s),
			      s, sl_tls_stream_error(p->server.s));
	assert_int_equal(c, 0);
	assert_int_equal(s, 0);
}

/* All that comes until nothing does; the last result. */
static inline int drain(struct pair *p, struct end *e, unsigned char *buf, size_t room,
			size_t *ret_n)
{
	int r = SL_TLS_GO;
	size_t n;

	*ret_n = 0;
	for (int i = 0; i < 5000 && *ret_n < room && r >= 0 && r != SL_TLS_END && r != SL_TLS_CUT;
	     i++) {
		r = sl_tls_stream_read(e->s, &p->scratch, buf + *ret_n, room - *ret_n, &n);
		*ret_n += n;
		if (r == SL_TLS_IN && e->in->len == 0 && !e->in->has_ended)
			break;
	}
	return r;
}

/* One message each way, the short way. */
static inline void say(struct pair *p, struct end *from, struct end *to, const char *text)
{
	unsigned char buf[256];
	size_t n = 0;
	size_t done = 0;
	int r = SL_TLS_OUT;

	for (int i = 0; i < 5000 && r == SL_TLS_OUT; i++) {
		r = n == 0 ? sl_tls_stream_write(from->s, &p->scratch, p->now_ms, text,
						 strlen(text), &n)
			   : sl_tls_stream_flush(from->s);
	}
	assert_int_equal(r, SL_TLS_GO);
	assert_int_equal(n, strlen(text));
	for (int i = 0; i < 5000 && done < n; i++) {
		size_t k;

		r = sl_tls_stream_read(to->s, &p->scratch, buf + done, sizeof(buf) - done, &k);
		assert_true(r >= 0);
		done += k;
	}
	assert_int_equal(done, n);
	assert_memory_equal(buf, text, n);
}

static inline struct sl_tls_server *server_of(const struct sl_tls_server_conf *conf)
{
	struct sl_tls_server *server = NULL;
	struct sl_str why = { 0 };

	if (sl_tls_server_new(conf, &why, &server) < 0)
		print_message("%s\n", sl_str_text(&why));
	assert_non_null(server);
	sl_str_done(&why);
	return server;
}

static inline struct sl_tls_backend *backend_of(const struct sl_tls_backend_conf *conf)
{
	struct sl_tls_backend *backend = NULL;
	struct sl_str why = { 0 };

	if (sl_tls_backend_new(conf, &why, &backend) < 0)
		print_message("%s\n", sl_str_text(&why));
	assert_non_null(backend);
	sl_str_done(&why);
	return backend;
}

static inline struct sl_tls_target *target_of(struct sl_tls_backend *backend, const char *name)
{
	struct sl_tls_target *target = NULL;

	assert_int_equal(sl_tls_target_new(backend, name, &target), 0);
	return target;
}

#endif
