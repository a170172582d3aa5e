/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "core/deadline.h"

static struct sl_deadline after(uint64_t from_ms, uint64_t limit_ms, enum sl_reason reason)
{
	struct sl_deadline d = { .at_ms = SL_NEVER, .reason = SL_REASON_NONE };

	if (limit_ms != 0 && limit_ms < SL_NEVER - from_ms)
		d = (struct sl_deadline){ .at_ms = from_ms + limit_ms, .reason = reason };
	return d;
}

static struct sl_deadline earlier(struct sl_deadline a, struct sl_deadline b)
{
	return b.at_ms < a.at_ms ? b : a;
}

static uint64_t later_ms(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static uint64_t idle_limit(const struct sl_timeouts *t, enum sl_keep_alive keep_alive)
{
	switch (keep_alive) {
	case SL_KEEP_ALIVE_STANDARD:
		return t->idle;
	case SL_KEEP_ALIVE_EXTENDED:
		return t->idle * SL_EXTENDED_FACTOR;
	case SL_KEEP_ALIVE_IMMORTAL:
		return 0;
	}
	return t->idle;
}

/*
 * One side has finished. Half-open: both the age of the FIN and the silence
 * must have passed. Otherwise the other direction may go on as long as it is
 * not silent for close_grace, so that a streaming answer is never cut.
 */
static struct sl_deadline closing(const struct sl_timeouts *t, const struct sl_deadline_facts *f)
{
	struct sl_deadline age;
	struct sl_deadline silence;

	if (f->is_cut)
		return after(later_ms(f->entered_ms, f->active_ms), SL_CUT_SILENCE_MS,
			     SL_REASON_TLS_ERROR);
	if (!f->half_open)
		return after(later_ms(f->entered_ms, f->active_ms), t->close_grace,
			     SL_REASON_CLOSE_GRACE);
	if (t->half_closed == 0)
		return after(0, 0, SL_REASON_NONE);
	age = after(f->entered_ms, t->half_closed, SL_REASON_PARITY_CHECK);
	silence = after(later_ms(f->entered_ms, f->active_ms), t->half_closed_idle,
			SL_REASON_PARITY_CHECK);
	return silence.at_ms != SL_NEVER && silence.at_ms > age.at_ms ? silence : age;
}

/*
 * A client that sent its request and its FIN may still want the answer, so the
 * attempt goes on, but no longer than the silence an established connection
 * would be granted.
 */
static struct sl_deadline attempting(const struct sl_timeouts *t, const struct sl_deadline_facts *f,
				     struct sl_deadline d)
{
	if (!f->client_finished || f->half_open)
		return d;
	return earlier(d, after(f->active_ms, t->close_grace, SL_REASON_CLOSED_DURING_CONNECT));
}

static struct sl_deadline connecting(const struct sl_timeouts *t, const struct sl_deadline_facts *f)
{
	return attempting(t, f, after(f->attempt_ms, t->connect, SL_REASON_CONNECTION_TIMEOUT));
}

/* With the target once it has been connected, before that with the client. */
static struct sl_deadline handshaking(const struct sl_timeouts *t,
				      const struct sl_deadline_facts *f)
{
	struct sl_deadline d = after(f->entered_ms, t->handshake, SL_REASON_HANDSHAKE_TIMEOUT);

	return f->attempt_ms ? attempting(t, f, d) : d;
}

struct sl_deadline sl_deadline_next(const struct sl_timeouts *t, const struct sl_deadline_facts *f)
{
	struct sl_deadline life = after(f->accepted_ms, t->max_lifetime, SL_REASON_MAX_LIFETIME);

	switch (f->state) {
	case SL_CONN_ACCEPTED:
		return earlier(life, after(f->entered_ms, t->proxy_header,
					   SL_REASON_PROXY_HEADER_TIMEOUT));
	case SL_CONN_CLASSIFYING:
		return earlier(life,
			       after(f->entered_ms, t->first_data, SL_REASON_FIRST_DATA_TIMEOUT));
	case SL_CONN_CONNECTING:
		return earlier(life, connecting(t, f));
	case SL_CONN_HANDSHAKING:
		return earlier(life, handshaking(t, f));
	case SL_CONN_ESTABLISHED:
		return earlier(life, after(f->active_ms, idle_limit(t, f->keep_alive),
					   SL_REASON_INACTIVITY));
	case SL_CONN_CLOSING:
		return earlier(life, closing(t, f));
	case SL_CONN_CLOSED:
	case SL_CONN_STATE_COUNT_:
		break;
	}
	return after(0, 0, SL_REASON_NONE);
}
