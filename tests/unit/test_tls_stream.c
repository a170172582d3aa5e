/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Streams of TLS: whole conversations over wires that cut anywhere, and what ends them. */
#include "tls_pair.h"

#include <malloc.h>
#include <sys/socket.h>

/* Looks under the cover, to play a peer that no library would be. */
#include "tls/stream_ssl.h"

static struct ident id;
static struct sl_cert_set *certs;
static struct sl_tls_tickets *tickets;

static int set_up(void **state)
{
	struct sl_tls_ticket_key key;

	(void)state;
	assert_int_equal(sl_tls_init(), 0);
	id = make_ident((struct wish){ .cn = "x", .names = "DNS:x.example" });
	certs = set_of_one(&id);
	assert_int_equal(sl_tls_ticket_key_make(&key), 0);
	assert_int_equal(sl_tls_tickets_new(&key, 1, &tickets), 0);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	sl_cert_set_unref(certs);
	sl_tls_tickets_unref(tickets);
	drop_ident(&id);
	return 0;
}

struct ends {
	struct sl_tls_server *server;
	struct sl_tls_backend *backend;
	struct sl_tls_target *target;
};

/* A server, and a client that trusts it; `suites` decides the version, too. */
static struct ends make_ends(bool is_1_3)
{
	struct sl_tls_trust *trust = NULL;
	struct ends e;

	assert_int_equal(sl_tls_trust_new(id.pem, strlen(id.pem), &trust), 0);
	e.server = server_of(&(struct sl_tls_server_conf){ .scope = "r" });
	e.backend = backend_of(&(struct sl_tls_backend_conf){
		.trust = trust, .min_version = is_1_3 ? SL_TLS_MIN_1_3 : SL_TLS_MIN_1_2 });
	sl_tls_trust_unref(trust);
	e.target = target_of(e.backend, "x.example");
	return e;
}

static void drop_ends(struct ends *e)
{
	sl_tls_target_unref(e->target);
	sl_tls_backend_unref(e->backend);
	sl_tls_server_unref(e->server);
}

static void use_1_2(struct pair *p)
{
	assert_true(SSL_set_max_proto_version(p->client.s->ssl, TLS1_2_VERSION));
}

/* ---- transfers ---- */

struct flow {
	struct end *from, *to;
	size_t total, sent, got;
	size_t shut_after; /* reads go on */
	bool said_end, has_end;
	uint64_t key;
};

static unsigned char byte_at(uint64_t key, size_t i)
{
	uint64_t x = (i + key) * 0x9e3779b97f4a7c15;

	return (unsigned char)(x >> 56);
}

static void send_some(struct pair *p, struct flow *f)
{
	static unsigned char buf[70000];
	size_t n = 1 + sl_rand_below(&p->rand, chance(&p->rand, 3) ? sizeof(buf) : 300);
	size_t took;
	int r;

	if (f->said_end) {
		(void)sl_tls_stream_flush(f->from->s);
		return;
	}
	if (f->sent == f->total) {
		r = sl_tls_stream_end(f->from->s, &p->scratch);
		assert_true(r == SL_TLS_GO || r == SL_TLS_OUT);
		f->said_end = true;
		return;
	}
	n = n < f->total - f->sent ? n : f->total - f->sent;
	for (size_t i = 0; i < n; i++)
		buf[i] = byte_at(f->key, f->sent + i);
	p->now_ms += chance(&p->rand, 20) ? 2000 : 1;
	r = sl_tls_stream_write(f->from->s, &p->scratch, p->now_ms, buf, n, &took);
	assert_true(r == SL_TLS_GO || r == SL_TLS_OUT);
	assert_true(took <= n && (r == SL_TLS_OUT || took == n));
	assert_int_equal(r == SL_TLS_OUT, sl_tls_stream_held(f->from->s) > 0);
	assert_true(sl_tls_stream_held(f->from->s) <= 96 << 10);
	memset(buf, 0xee, n); /* what was taken need not be kept */
	f->sent += took;
}

static void read_some(struct pair *p, struct flow *f)
{
	static unsigned char buf[70000];
	size_t room = 1 + sl_rand_below(&p->rand, chance(&p->rand, 3) ? sizeof(buf) : 300);
	size_t n;
	int r = sl_tls_stream_read(f->to->s, &p->scratch, buf, room, &n);

	assert_true(r >= 0 && r != SL_TLS_CUT);
	assert_true(n <= room && (r != SL_TLS_GO || n > 0));
	for (size_t i = 0; i < n; i++)
		if (buf[i] != byte_at(f->key, f->got + i))
			fail_msg("byte %zu is wrong", f->got + i);
	f->got += n;
	if (r == SL_TLS_END) {
		assert_int_equal(f->got, f->total);
		f->has_end = true;
	}
	assert_int_equal(p->scratch.len, 0);
}

static void maybe_rekey(struct pair *p, struct flow *f, bool is_1_3)
{
	int r;

	if (!chance(&p->rand, 40) || f->said_end || sl_tls_stream_held(f->from->s) > 0)
		return;
	r = sl_tls_stream_rekey(f->from->s, &p->scratch, chance(&p->rand, 2));
	assert_true(is_1_3 ? r == SL_TLS_GO || r == SL_TLS_OUT : r == -EOPNOTSUPP);
}

/* Returns the waits for writing, which must occur. */
static unsigned transfer(struct ends *e, uint64_t seed, bool is_1_3)
{
	struct pair p;
	struct flow up, down;
	unsigned waits;

	open_pair(&p, e->server, certs, tickets, e->target, seed);
	if (!is_1_3)
		use_1_2(&p);
	shake_well(&p);
	waits = p.client.n_out + p.server.n_out;
	up = (struct flow){ .from = &p.client, .to = &p.server, .key = seed };
	down = (struct flow){ .from = &p.server, .to = &p.client, .key = ~seed };
	up.total = sl_rand_below(&p.rand, chance(&p.rand, 4) ? 400000 : 3000);
	down.total = sl_rand_below(&p.rand, chance(&p.rand, 4) ? 400000 : 3000);
	for (int i = 0; i < 1000000 && !(up.has_end && down.has_end); i++) {
		struct flow *f = chance(&p.rand, 2) ? &up : &down;

		maybe_rekey(&p, f, is_1_3);
		if (chance(&p.rand, 2))
			send_some(&p, f);
		else
			read_some(&p, f);
	}
	assert_true(up.has_end && down.has_end);
	assert_int_equal(sl_tls_stream_held(p.client.s), 0);
	assert_int_equal(sl_tls_stream_held(p.server.s), 0);
	close_pair(&p);
	return waits;
}

static void transfers_are_whole_whatever_the_wire_does(void **state)
{
	struct ends e = make_ends(false);
	unsigned waits = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= 120; seed++)
		waits += transfer(&e, seed, seed % 3 != 0);
	assert_true(waits > 0);
	drop_ends(&e);
}

static void large_records_only_when_streaming(void **state)
{
	struct ends e = make_ends(true);
	struct pair p;
	static char buf[65536];
	size_t n;

	(void)state;
	open_pair(&p, e.server, certs, NULL, e.target, 0);
	shake_well(&p);
	(void)drain(&p, &p.client, (unsigned char *)buf, sizeof(buf), &n);
	assert_int_equal(p.down.len, 0);
	for (int pause = 0; pause < 2; pause++) {
		p.now_ms += 5000;
		assert_int_equal(
			sl_tls_stream_write(p.server.s, &p.scratch, p.now_ms, buf, 4000, &n), 0);
		/* three records: 1360, 1360, 1280, each with 5 + 1 + 16 more */
		assert_int_equal(p.down.len, 4000 + 3 * 22);
		assert_int_equal(p.down.b[p.down.at + 3] << 8 | p.down.b[p.down.at + 4], 1360 + 17);
		(void)drain(&p, &p.client, (unsigned char *)buf, sizeof(buf), &n);
		assert_int_equal(n, 4000);
		for (int i = 0; i < 4; i++) {
			assert_int_equal(sl_tls_stream_write(p.server.s, &p.scratch, p.now_ms, buf,
							     4096, &n),
					 0);
			(void)drain(&p, &p.client, (unsigned char *)buf, sizeof(buf), &n);
		}
		assert_int_equal(
			sl_tls_stream_write(p.server.s, &p.scratch, p.now_ms, buf, 16384, &n), 0);
		assert_int_equal(p.down.len, 16384 + 22);
		(void)drain(&p, &p.client, (unsigned char *)buf, sizeof(buf), &n);
	}
	close_pair(&p);
	drop_ends(&e);
}

/* A full wire: what is written waits in the stream, bounded, and leaves in order. */
static void a_full_wire_holds_what_was_taken(void **state)
{
	struct ends e = make_ends(true);
	static unsigned char buf[200000];
	struct pair p;
	size_t n, took;

	(void)state;
	open_pair(&p, e.server, certs, NULL, e.target, 0);
	shake_well(&p);
	p.down.room = 1000;
	for (size_t i = 0; i < sizeof(buf); i++)
		buf[i] = byte_at(7, i);
	assert_int_equal(sl_tls_stream_write(p.server.s, &p.scratch, 1, buf, sizeof(buf), &took),
			 SL_TLS_OUT);
	assert_true(took > 0 && took < sizeof(buf));
	assert_true(sl_tls_stream_held(p.server.s) <= 96 << 10);
	assert_int_equal(sl_tls_stream_write(p.server.s, &p.scratch, 1, buf, 1, &n), SL_TLS_OUT);
	assert_int_equal(n, 0);
	assert_int_equal(sl_tls_stream_end(p.server.s, &p.scratch), SL_TLS_OUT);
	for (size_t got = 0; got < took; got += n) {
		static unsigned char back[4096];

		(void)sl_tls_stream_read(p.client.s, &p.scratch, back, sizeof(back), &n);
		for (size_t i = 0; i < n; i++)
			assert_int_equal(back[i], buf[got + i]);
		if (n == 0 && p.down.len == 0)
			assert_true(sl_tls_stream_flush(p.server.s) >= 0 && p.down.len > 0);
	}
	(void)sl_tls_stream_flush(p.server.s);
	assert_int_equal(sl_tls_stream_held(p.server.s), 0);
	assert_int_equal(drain(&p, &p.client, buf, sizeof(buf), &n), SL_TLS_END);
	assert_int_equal(n, 0);
	close_pair(&p);
	drop_ends(&e);
}

/* ---- ends ---- */

static void each_direction_ends_by_itself(void **state)
{
	struct ends e = make_ends(false);
	unsigned char buf[100];
	struct pair p;
	size_t n;

	(void)state;
	for (int i = 0; i < 2; i++) {
		open_pair(&p, e.server, certs, NULL, e.target, 0);
		if (i)
			use_1_2(&p);
		shake_well(&p);
		say(&p, &p.client, &p.server, "request");
		assert_int_equal(sl_tls_stream_end(p.client.s, &p.scratch), SL_TLS_GO);
		assert_int_equal(sl_tls_stream_end(p.client.s, &p.scratch), SL_TLS_GO);
		assert_int_equal(sl_tls_stream_write(p.client.s, &p.scratch, 1, "x", 1, &n),
				 -EINVAL);
		assert_int_equal(drain(&p, &p.server, buf, sizeof(buf), &n), SL_TLS_END);
		assert_int_equal(n, 0);
		say(&p, &p.server, &p.client, "answer");
		assert_int_equal(sl_tls_stream_read(p.server.s, &p.scratch, buf, 10, &n),
				 SL_TLS_END);
		assert_int_equal(sl_tls_stream_end(p.server.s, &p.scratch), SL_TLS_GO);
		assert_int_equal(drain(&p, &p.client, buf, sizeof(buf), &n), SL_TLS_END);
		close_pair(&p);
	}
	drop_ends(&e);
}

static void an_end_without_notice_is_told_apart(void **state)
{
	struct ends e = make_ends(true);
	unsigned char buf[100];
	struct pair p;
	size_t n;

	(void)state;
	open_pair(&p, e.server, certs, NULL, e.target, 0);
	shake_well(&p);
	assert_int_equal(sl_tls_stream_write(p.client.s, &p.scratch, 1, "last", 4, &n), SL_TLS_GO);
	p.up.has_ended = true;
	sl_tls_stream_read_to_end(p.server.s);
	assert_int_equal(drain(&p, &p.server, buf, sizeof(buf), &n), SL_TLS_CUT);
	assert_int_equal(n, 4);
	say(&p, &p.server, &p.client, "still possible");
	assert_int_equal(sl_tls_stream_read(p.server.s, &p.scratch, buf, 10, &n), SL_TLS_CUT);
	close_pair(&p);

	/* in the middle of a record */
	open_pair(&p, e.server, certs, NULL, e.target, 0);
	shake_well(&p);
	p.up.cut_at = p.up.total + 9;
	assert_int_equal(sl_tls_stream_write(p.client.s, &p.scratch, 1, "last", 4, &n), SL_TLS_GO);
	sl_tls_stream_read_to_end(p.server.s);
	assert_int_equal(drain(&p, &p.server, buf, sizeof(buf), &n), SL_TLS_CUT);
	assert_int_equal(n, 0);
	close_pair(&p);
	drop_ends(&e);
}

static void errors_of_the_wire_are_its_own(void **state)
{
	struct ends e = make_ends(true);
	struct pair p;
	size_t n;

	(void)state;
	open_pair(&p, e.server, certs, NULL, e.target, 0);
	shake_well(&p);
	p.up.error = -ECONNRESET;
	assert_int_equal(sl_tls_stream_write(p.client.s, &p.scratch, 1, "x", 1, &n), -ECONNRESET);
	assert_int_equal(n, 0);
	assert_string_equal(sl_tls_stream_error(p.client.s), "Connection reset by peer");
	p.up.error = 0;
	assert_int_equal(sl_tls_stream_write(p.client.s, &p.scratch, 1, "x", 1, &n), -ECONNRESET);
	assert_int_equal(sl_tls_stream_flush(p.client.s), -ECONNRESET);
	close_pair(&p);
	drop_ends(&e);
}

/* Every byte of both sides' handshake is the last one once: nothing is left, and it is told. */
static void aborts_at_every_byte_leave_nothing(void **state)
{
	struct ends e = make_ends(false);
	struct pair p;
	uint64_t up, down;

	(void)state;
	for (int is_1_2 = 0; is_1_2 < 2; is_1_2++) {
		open_pair(&p, e.server, certs, tickets, e.target, 0);
		if (is_1_2)
			use_1_2(&p);
		shake_well(&p);
		up = p.up.total;
		down = p.down.total;
		close_pair(&p);
		for (uint64_t i = 0; i<up + down; i += i> 64 && i < up + down - 64 ? 5 : 1) {
			struct line *line = i < up ? &p.up : &p.down;
			int c, s;

			open_pair(&p, e.server, certs, tickets, e.target, 0);
			if (is_1_2)
				use_1_2(&p);
			line->cut_at = i < up ? i : i - up;
			shake(&p, &c, &s);
			if (i < up) {
				/* resumed sessions may need less than the first one did */
				assert_true(s == -EPIPE || s == 0);
				assert_true(s == 0 || *sl_tls_stream_error(p.server.s));
			} else {
				assert_true(c == -EPIPE || c == 0);
			}
			assert_true(c <= 0 && s <= 0);
			close_pair(&p);
		}
	}
	drop_ends(&e);
}

static void half_done_streams_can_be_dropped(void **state)
{
	struct ends e = make_ends(false);
	struct pair p;

	(void)state;
	for (int steps = 0; steps < 8; steps++) {
		open_pair(&p, e.server, certs, tickets, e.target, 0);
		for (int i = 0; i < steps; i++)
			(void)step(&p, i % 2 ? &p.server : &p.client);
		close_pair(&p);
	}
	drop_ends(&e);
}

/* Over sockets, where a short read says that there is no more. */
static void sockets_carry_it_as_well(void **state)
{
	struct ends e = make_ends(true);
	static unsigned char buf[1 << 20];
	static unsigned char back[100000];
	struct sl_tls_scratch scratch;
	struct sl_tls_stream *c, *s;
	size_t sent = 0;
	size_t got = 0;
	int fd[2];
	int r = SL_TLS_IN;
	int q = SL_TLS_IN;
	size_t n;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
	assert_int_equal(sl_tls_scratch_init(&scratch), 0);
	assert_int_equal(
		sl_tls_accept(e.server, certs, tickets, &sl_tls_socket, sl_tls_fd(fd[0]), &s), 0);
	assert_int_equal(sl_tls_target_connect(e.target, &sl_tls_socket, sl_tls_fd(fd[1]), &c), 0);
	for (int i = 0; i < 100 && (r > 0 || q > 0); i++) {
		r = r > 0 ? sl_tls_stream_handshake(c, &scratch) : r;
		q = q > 0 ? sl_tls_stream_handshake(s, &scratch) : q;
	}
	assert_true(r == 0 && q == 0);
	for (size_t i = 0; i < sizeof(buf); i++)
		buf[i] = byte_at(3, i);
	for (int i = 0; i < 10000 && got < sizeof(buf); i++) {
		r = sl_tls_stream_write(s, &scratch, 1, buf + sent, sizeof(buf) - sent, &n);
		assert_true(r == SL_TLS_GO || r == SL_TLS_OUT);
		sent += n;
		do {
			q = sl_tls_stream_read(c, &scratch, back, sizeof(back), &n);
			assert_true(q == SL_TLS_GO || q == SL_TLS_IN);
			assert_memory_equal(back, buf + got, n);
			got += n;
		} while (q == SL_TLS_GO);
	}
	assert_int_equal(got, sizeof(buf));
	assert_int_equal(sl_tls_stream_end(s, &scratch), SL_TLS_GO);
	assert_int_equal(sl_tls_stream_read(c, &scratch, back, sizeof(back), &n), SL_TLS_END);
	assert_int_equal(sl_tls_stream_write(c, &scratch, 1, "last", 4, &n), SL_TLS_GO);
	assert_int_equal(shutdown(fd[1], SHUT_WR), 0);
	sl_tls_stream_read_to_end(s);
	assert_int_equal(sl_tls_stream_read(s, &scratch, back, sizeof(back), &n), SL_TLS_CUT);
	assert_int_equal(n, 4);
	(void)close(fd[1]);
	assert_int_equal(sl_tls_stream_rekey(s, &scratch, false), -EINVAL); /* has said its end */
	sl_tls_stream_free(c);
	sl_tls_stream_free(s);
	sl_tls_scratch_done(&scratch);
	(void)close(fd[0]);
	drop_ends(&e);
}

/* ---- what peers must not do ---- */

static void not_tls_is_called_so(void **state)
{
	static const struct {
		const char *bytes;
		const char *error;
	} cases[] = {
		{ "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "plain HTTP instead of TLS" },
		{ "SSH-2.0-OpenSSH_9.2\r\n", "not TLS" },
		{ "\x16\x03\x01\xff\xff\x01\x00\x00", "not TLS" },
	};
	struct ends e = make_ends(true);
	struct pair p;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		open_pair(&p, e.server, certs, NULL, NULL, 0);
		assert_int_equal(sl_tls_stream_unread(p.server.s, cases[i].bytes,
						      strlen(cases[i].bytes) + (i == 2 ? 2 : 0)),
				 0);
		assert_int_equal(sl_tls_stream_handshake(p.server.s, &p.scratch), -EPROTO);
		assert_string_equal(sl_tls_stream_error(p.server.s), cases[i].error);
		assert_int_equal(sl_tls_stream_handshake(p.server.s, &p.scratch), -EPROTO);
		close_pair(&p);
	}
	drop_ends(&e);
}

static void bytes_read_before_come_first(void **state)
{
	struct ends e = make_ends(true);
	struct pair p;

	(void)state;
	open_pair(&p, e.server, certs, NULL, e.target, 0);
	assert_int_equal(step(&p, &p.client), SL_TLS_IN);
	assert_int_equal(sl_tls_stream_unread(p.server.s, p.up.b, 100), 0);
	assert_int_equal(sl_tls_stream_unread(p.server.s, p.up.b, 100), -EBUSY);
	assert_true(sl_tls_stream_has_pending(p.server.s));
	p.up.at = 100;
	p.up.len -= 100;
	shake_well(&p);
	assert_false(sl_tls_stream_has_pending(p.server.s));
	say(&p, &p.client, &p.server, "hello");
	close_pair(&p);
	drop_ends(&e);
}

static void renegotiation_is_refused(void **state)
{
	struct ends e = make_ends(false);
	unsigned char buf[64];
	struct pair p;
	size_t n;
	int r;

	(void)state;
	open_pair(&p, e.server, certs, NULL, e.target, 0);
	use_1_2(&p);
	shake_well(&p);
	(void)SSL_clear_options(p.client.s->ssl, SSL_OP_NO_RENEGOTIATION);
	p.client.s->scratch = &p.scratch;
	assert_int_equal(SSL_renegotiate(p.client.s->ssl), 1);
	assert_true(SSL_do_handshake(p.client.s->ssl) <= 0);
	ERR_clear_error();
	p.client.s->scratch = NULL;
	p.up.len = 0; /* put together below: the scratch was not sent */
	memcpy(p.up.b, p.scratch.p, p.scratch.len);
	p.up.at = 0;
	p.up.len = p.scratch.len;
	assert_true(p.up.len > 100);
	p.scratch.len = 0;
	r = sl_tls_stream_read(p.server.s, &p.scratch, buf, sizeof(buf), &n);
	assert_int_equal(r, SL_TLS_IN); /* a warning goes out, the connection goes on */
	assert_int_equal(n, 0);
	assert_true(p.down.len > 0 && p.down.len < 40);
	assert_int_equal(sl_tls_stream_write(p.server.s, &p.scratch, 1, "x", 1, &n), SL_TLS_GO);
	close_pair(&p);
	drop_ends(&e);
}

static void floods_of_key_updates_end_the_connection(void **state)
{
	struct ends e = make_ends(true);
	unsigned char buf[64];
	struct pair p;
	size_t n;
	int r = 0;
	int i;

	(void)state;
	open_pair(&p, e.server, certs, NULL, e.target, 0);
	shake_well(&p);
	for (i = 0; i < 40; i++) { /* a few are fine */
		assert_int_equal(sl_tls_stream_rekey(p.client.s, &p.scratch, true), SL_TLS_GO);
		assert_int_equal(sl_tls_stream_read(p.server.s, &p.scratch, buf, 64, &n),
				 SL_TLS_IN);
		assert_int_equal(sl_tls_stream_read(p.client.s, &p.scratch, buf, 64, &n),
				 SL_TLS_IN);
	}
	say(&p, &p.client, &p.server, "well");
	say(&p, &p.server, &p.client, "well");
	for (i = 0; i < 500; i++)
		assert_int_equal(sl_tls_stream_rekey(p.client.s, &p.scratch, false), SL_TLS_GO);
	r = sl_tls_stream_read(p.server.s, &p.scratch, buf, 64, &n);
	assert_int_equal(r, -EPROTO);
	assert_string_equal(sl_tls_stream_error(p.server.s), "too many key updates");
	assert_true(p.server.s->n_updates < 80); /* it stopped at once */
	close_pair(&p);
	drop_ends(&e);
}

/* A peer that asks for answers and does not take them: they wait, few, and go out in order. */
static void unread_answers_wait(void **state)
{
	struct ends e = make_ends(true);
	unsigned char buf[64];
	struct pair p;
	size_t n;

	(void)state;
	open_pair(&p, e.server, certs, NULL, e.target, 0);
	shake_well(&p);
	p.down.room = p.down.at + p.down.len; /* takes no more */
	for (int i = 0; i < 60; i++) {
		assert_int_equal(sl_tls_stream_rekey(p.client.s, &p.scratch, true), SL_TLS_GO);
		assert_int_equal(sl_tls_stream_read(p.server.s, &p.scratch, buf, 64, &n),
				 SL_TLS_IN);
	}
	assert_true(sl_tls_stream_held(p.server.s) > 0);
	assert_true(sl_tls_stream_held(p.server.s) < 8 << 10);
	assert_int_equal(sl_tls_stream_write(p.server.s, &p.scratch, 1, "x", 1, &n), SL_TLS_OUT);
	assert_int_equal(n, 0);
	p.down.room = 256 << 10;
	assert_int_equal(sl_tls_stream_flush(p.server.s), SL_TLS_GO);
	say(&p, &p.server, &p.client, "in order");
	say(&p, &p.client, &p.server, "in order");
	close_pair(&p);
	drop_ends(&e);
}

static void changed_records_are_noticed(void **state)
{
	struct ends e = make_ends(true);
	unsigned char buf[64];
	struct pair p;
	size_t n;

	(void)state;
	open_pair(&p, e.server, certs, NULL, e.target, 0);
	shake_well(&p);
	assert_int_equal(sl_tls_stream_write(p.client.s, &p.scratch, 1, "good", 4, &n), SL_TLS_GO);
	assert_int_equal(sl_tls_stream_write(p.client.s, &p.scratch, 1, "evil", 4, &n), SL_TLS_GO);
	p.up.b[p.up.at + p.up.len - 3] ^= 1;
	assert_int_equal(drain(&p, &p.server, buf, sizeof(buf), &n), -EPROTO);
	assert_int_equal(n, 4); /* what came before counts */
	assert_string_equal(sl_tls_stream_error(p.server.s), "a record was changed on its way");
	assert_int_equal(drain(&p, &p.client, buf, sizeof(buf), &n), -EPROTO);
	assert_string_equal(sl_tls_stream_error(p.client.s), "alert received: bad record mac");
	close_pair(&p);
	drop_ends(&e);
}

/* ---- what it costs ---- */

static size_t heap_in_use(void)
{
	struct mallinfo2 m = mallinfo2();

	return m.uordblks + m.hblkhd;
}

/* Everything a connection keeps, per side, once both have spoken and are silent. */
static void idle_streams_are_small(void **state)
{
	enum { N = 400 };
	static struct pair p[N];
	static char buf[40000];
	struct ends e = make_ends(false);

	(void)state;
#ifdef SL_SANITIZED
	drop_ends(&e);
	skip();
#endif
	for (int is_1_2 = 0; is_1_2 < 2; is_1_2++) {
		size_t before, per_pair, per_client;

		for (int i = 0; i < N + 1; i++) {
			size_t n;

			if (i == 1)
				before = heap_in_use();
			open_pair(&p[i % N], e.server, certs, tickets, e.target, 0);
			if (is_1_2)
				use_1_2(&p[i % N]);
			shake_well(&p[i % N]);
			say(&p[i % N], &p[i % N].client, &p[i % N].server, "request");
			assert_int_equal(sl_tls_stream_write(p[i % N].server.s, &p[i % N].scratch,
							     1, buf, 30000, &n),
					 SL_TLS_GO);
			(void)drain(&p[i % N], &p[i % N].client, (unsigned char *)buf, sizeof(buf),
				    &n);
			assert_int_equal(n, 30000);
			sl_tls_scratch_done(&p[i % N].scratch);
			free(SL_TAKE_PTR(p[i % N].up.b));
			free(SL_TAKE_PTR(p[i % N].down.b));
			if (i == 0)
				close_pair(&p[0]);
		}
		per_pair = (heap_in_use() - before) / N;
		before = heap_in_use();
		for (int i = 0; i < N; i++) {
			sl_tls_stream_free(p[i].client.s);
			p[i].client.s = NULL;
		}
		per_client = (before - heap_in_use()) / N;
		print_message("%s: idle %zu bytes to a client, %zu to a backend\n",
			      is_1_2 ? "TLSv1.2" : "TLSv1.3", per_pair - per_client, per_client);
		assert_true(per_client <= 20 << 10);
		assert_true(per_pair - per_client <= 20 << 10);
		for (int i = 0; i < N; i++)
			close_pair(&p[i]);
	}
	drop_ends(&e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(transfers_are_whole_whatever_the_wire_does),
		cmocka_unit_test(large_records_only_when_streaming),
		cmocka_unit_test(a_full_wire_holds_what_was_taken),
		cmocka_unit_test(each_direction_ends_by_itself),
		cmocka_unit_test(an_end_without_notice_is_told_apart),
		cmocka_unit_test(errors_of_the_wire_are_its_own),
		cmocka_unit_test(aborts_at_every_byte_leave_nothing),
		cmocka_unit_test(half_done_streams_can_be_dropped),
		cmocka_unit_test(sockets_carry_it_as_well),
		cmocka_unit_test(not_tls_is_called_so),
		cmocka_unit_test(bytes_read_before_come_first),
		cmocka_unit_test(renegotiation_is_refused),
		cmocka_unit_test(floods_of_key_updates_end_the_connection),
		cmocka_unit_test(unread_answers_wait),
		cmocka_unit_test(changed_records_are_noticed),
		cmocka_unit_test(idle_streams_are_small),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
