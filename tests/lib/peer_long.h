/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_TESTS_PEER_LONG_H
#define SL_TESTS_PEER_LONG_H

#include "peer.h"

/*
 * Transfers of gigabytes, both ways at once: every byte is compared with what must come, cheaply
 * (a block of random bytes, again and again), and a running hash of what was sent at one end is
 * compared with that of what came at the other. The client's FIN ends the upload; the server then
 * ends the download with a trailer that tells what it has seen.
 */

#define LONG_MAGIC 0x534c4c47u

enum {
	LONG_PERIOD = 1048573, /* a prime: no buffer or window is a multiple of it */
	LONG_PIECE = 262144,
};

struct long_trailer {
	uint64_t got, hash_in;
	uint64_t sent, hash_out;
	uint64_t gap; /* longest silence the server saw, us */
};

struct long_flow {
	/* len_up: bytes/s or 0; len_down: at least so many bytes; shape: XFER_UP, XFER_DOWN: one
	   way alone, else both */
	struct xfer_header header;
	bool server;
	bool finish; /* no more is to be sent */
	bool eof, fin_sent;
	uint64_t sent, got;
	uint64_t began, last_in, last_out, gap;
	struct hash out, in;
	struct long_trailer trailer; /* server: to send; client: received */
	size_t trailer_sent, held;
	uint8_t hold[sizeof(struct long_trailer)]; /* client: may be the trailer */
};

static uint8_t long_block[LONG_PERIOD + LONG_PIECE];
static uint8_t long_buf[sizeof(struct long_trailer) + LONG_PIECE];

static inline struct long_flow *long_new(bool server)
{
	struct long_flow *f = calloc(1, sizeof(*f));

	if (!f)
		die("no memory");
	f->server = server;
	return f;
}

static inline void long_setup(struct long_flow *f)
{
	f->out.value = f->in.value = HASH_START;
	f->began = f->last_in = f->last_out = now_us();
	stream_bytes(42, 0, long_block, LONG_PERIOD);
	memcpy(long_block + LONG_PERIOD, long_block, LONG_PIECE);
}

/* Whether this end sends nothing but its end, and the trailer. */
static inline bool long_is_mute(const struct long_flow *f, bool server)
{
	return f->header.shape == (server ? XFER_UP : XFER_DOWN);
}

static inline const uint8_t *long_bytes(uint64_t seed, uint64_t off)
{
	return long_block + (seed % LONG_PERIOD + off) % LONG_PERIOD;
}

static inline bool long_check(struct long_flow *f, const uint8_t *p, size_t n)
{
	uint64_t seed = f->server ? f->header.seed_up : f->header.seed_down;

	while (n) {
		size_t k = n < LONG_PIECE ? n : LONG_PIECE;

		if (memcmp(p, long_bytes(seed, f->got), k) != 0)
			return false;
		hash_add(&f->in, p, k);
		f->got += k;
		p += k;
		n -= k;
	}
	return true;
}

static inline void long_gap(struct long_flow *f, uint64_t *last, uint64_t now)
{
	if (now - *last > f->gap)
		f->gap = now - *last;
	*last = now;
}

/* The client keeps back what may be the trailer. */
static inline enum xfer_result long_read(struct conn *c, struct long_flow *f, uint64_t now,
					 const char **why)
{
	for (int burst = 0; burst < 16 && !f->eof; burst++) {
		size_t keep = f->server ? 0 : sizeof(f->hold);
		ssize_t r = recv(c->fd, long_buf + f->held, LONG_PIECE, 0);
		size_t n, left;

		if (r < 0 && errno == EAGAIN)
			break;
		if (r < 0) {
			*why = strerror(errno);
			return XFER_BAD;
		}
		if (long_is_mute(f, !f->server)) /* its first bytes are the last */
			f->last_in = now;
		long_gap(f, &f->last_in, now);
		if (r == 0) {
			f->eof = true;
			break;
		}
		memcpy(long_buf, f->hold, f->held);
		n = f->held + (size_t)r;
		left = n < keep ? n : keep;
		if (!long_check(f, long_buf, n - left)) {
			*why = "wrong bytes";
			return XFER_BAD;
		}
		memcpy(f->hold, long_buf + n - left, left);
		f->held = left;
	}
	return XFER_RUNNING;
}

/* -1: error. 0: as much as fits or may be sent now. */
static inline int long_write(struct conn *c, struct long_flow *f, uint64_t now)
{
	uint64_t seed = f->server ? f->header.seed_down : f->header.seed_up;

	if (long_is_mute(f, f->server)) {
		f->last_out = now;
		if (f->server && f->eof)
			f->finish = true;
		return 0;
	}
	for (int burst = 0; burst < 16 && !f->finish; burst++) {
		size_t n = LONG_PIECE;
		const uint8_t *p = long_bytes(seed, f->sent);
		ssize_t r;

		if (f->header.len_up) {
			uint64_t due = (now - f->began) * (f->header.len_up / 1000) / 1000;

			if (due <= f->sent)
				return 0;
			n = due - f->sent < n ? (size_t)(due - f->sent) : n;
		}
		r = send(c->fd, p, n, 0);
		if (r < 0)
			return errno == EAGAIN ? 0 : -1;
		hash_add(&f->out, p, (size_t)r);
		f->sent += (uint64_t)r;
		long_gap(f, &f->last_out, now);
		/* the server ends once it has sent enough, the client at its next step */
		if (f->server && f->eof && f->sent >= f->header.len_down)
			f->finish = true;
	}
	return 0;
}

static inline int long_end(struct conn *c, struct long_flow *f)
{
	ssize_t r;

	if (!f->finish || f->fin_sent)
		return 0;
	if (f->server) {
		if (!f->trailer_sent)
			f->trailer = (struct long_trailer){ f->got, hash_end(&f->in), f->sent,
							    hash_end(&f->out), f->gap };
		r = send(c->fd, (uint8_t *)&f->trailer + f->trailer_sent,
			 sizeof(f->trailer) - f->trailer_sent, 0);
		if (r < 0)
			return errno == EAGAIN ? 0 : -1;
		f->trailer_sent += (size_t)r;
		if (f->trailer_sent < sizeof(f->trailer))
			return 0;
	}
	f->fin_sent = true;
	return shutdown(c->fd, SHUT_WR);
}

/* NULL: both ends have seen the same. */
static inline const char *long_compare(struct long_flow *f)
{
	if (f->held != sizeof(f->trailer))
		return "EOF before the trailer";
	memcpy(&f->trailer, f->hold, sizeof(f->trailer));
	if (f->trailer.got != f->sent || f->trailer.sent != f->got)
		return "the server counts other bytes";
	if (f->trailer.hash_in != hash_end(&f->out) || f->trailer.hash_out != hash_end(&f->in))
		return "the server has other hashes";
	return NULL;
}

static inline enum xfer_result long_step(struct conn *c, uint64_t stall_us, const char **why)
{
	struct long_flow *f = c->lf;
	uint64_t now = now_us();
	bool can_write;
	uint64_t last = f->eof || long_is_mute(f, !f->server) ? f->last_out : f->last_in;

	if (now - last > stall_us) {
		*why = "stalled";
		return XFER_BAD;
	}
	if (long_read(c, f, now, why) == XFER_BAD)
		return XFER_BAD;
	if (long_write(c, f, now) || long_end(c, f)) {
		*why = strerror(errno);
		return XFER_BAD;
	}
	if (f->eof && f->fin_sent)
		return XFER_DONE;
	can_write =
		!f->fin_sent && (f->finish || (!f->header.len_up && !long_is_mute(f, f->server)));
	conn_want(c, (f->eof ? 0 : (uint32_t)EPOLLIN) | (can_write ? (uint32_t)EPOLLOUT : 0));
	conn_wake(c, now + (f->header.len_up && !f->finish ? 4000 : 100000));
	return XFER_RUNNING;
}

#endif
