/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "broker/drift.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "accel/packet.h"

#define TELL_MS 200
/* Whatever waits or was left is said again as long as it is there, mostly once a second. */
#define OPEN_MS 5000

int sl_drift_init(struct sl_drift *d, struct sl_loop *loop, void (*changed)(void *arg), void *arg)
{
	*d = (struct sl_drift){ .loop = loop, .changed = changed, .arg = arg };
	sl_list_init(&d->all);
	d->entry = calloc(SL_DRIFT_ENTRIES, sizeof(*d->entry));
	return d->entry ? 0 : -ENOMEM;
}

void sl_drift_done(struct sl_drift *d)
{
	sl_timer_stop(&d->timer);
	free(d->entry);
	*d = (struct sl_drift){ 0 };
}

/* ---- noting ---- */

static void on_timer(struct sl_timer *timer)
{
	struct sl_drift *d = SL_CONTAINER_OF(timer, struct sl_drift, timer);

	d->told_ms = sl_loop_now_ms(d->loop);
	d->changed(d->arg);
}

static void touch(struct sl_drift *d)
{
	if (d->changed && !sl_timer_is_armed(&d->timer))
		sl_timer_start(d->loop, &d->timer, d->told_ms + TELL_MS, on_timer);
}

/* FNV-1a (Fowler, Noll, Vo) */
static uint32_t mix(uint32_t hash, const char *text)
{
	for (; *text; text++)
		hash = (hash ^ (uint8_t)*text) * UINT32_C(16777619);
	return (hash ^ 0xff) * UINT32_C(16777619);
}

static void copy(char *to, size_t size, const char *text)
{
	(void)snprintf(to, size, "%s", text ? text : "");
	for (; *to; to++)
		if ((uint8_t)*to < ' ' || *to == 0x7f)
			*to = '?';
}

static bool is_open(enum sl_drift_done done)
{
	return done == SL_DRIFT_WAITS || done == SL_DRIFT_LEFT;
}

static struct sl_drift_entry *find(struct sl_drift *d, const struct sl_drift_entry *like)
{
	for (size_t i = 0; i < d->n; i++) {
		struct sl_drift_entry *e = &d->entry[i];

		if (e->hash == like->hash && e->kind == like->kind &&
		    strcmp(e->wanted, like->wanted) == 0 && strcmp(e->found, like->found) == 0)
			return e;
	}
	return NULL;
}

static bool is_recent(const struct sl_drift *d, uint64_t at_ms)
{
	return sl_loop_now_ms(d->loop) - at_ms < SL_DRIFT_WINDOW_MS;
}

static void add_unlisted(struct sl_drift *d, uint64_t n, uint64_t at_ms)
{
	if (!is_recent(d, d->unlisted_ms))
		d->n_unlisted = 0;
	d->n_unlisted += n;
	d->unlisted_ms = at_ms;
}

static struct sl_drift_entry *take_slot(struct sl_drift *d)
{
	struct sl_drift_entry *e;

	if (d->n < SL_DRIFT_ENTRIES)
		return &d->entry[d->n++];
	e = SL_CONTAINER_OF(d->all.next, struct sl_drift_entry, node);
	sl_list_remove(&e->node);
	if (is_recent(d, e->at_ms))
		add_unlisted(d, e->times, e->at_ms);
	return e;
}

/* False: it is known already. */
static bool add(struct sl_drift *d, const struct sl_drift_entry *fresh)
{
	struct sl_drift_entry *e = find(d, fresh);
	bool is_same = e && is_open(e->done);
	uint32_t times = 1;

	if (e) {
		times = e->times + !is_same;
		/* what is told is the last time, and how often within the window */
		if (!is_same && !is_recent(d, e->at_ms))
			times = 1;
		sl_list_remove(&e->node);
	} else {
		e = take_slot(d);
	}
	*e = *fresh;
	e->times = times;
	sl_list_add(&d->all, &e->node);
	d->count[e->kind] += !is_same;
	return !is_same;
}

void sl_drift_note(struct sl_drift *d, enum sl_drift_kind kind, enum sl_drift_done done,
		   const char *wanted, const char *found, const char *fmt, ...)
{
	struct sl_drift_entry e = { .kind = kind, .done = done };
	char how[sizeof(e.how)];
	va_list ap;

	if (!d || !d->entry)
		return;
	va_start(ap, fmt);
	(void)vsnprintf(how, sizeof(how), fmt, ap);
	va_end(ap);
	e.at_ms = sl_loop_now_ms(d->loop);
	copy(e.wanted, sizeof(e.wanted), wanted);
	copy(e.found, sizeof(e.found), found);
	copy(e.how, sizeof(e.how), how);
	e.hash = mix(mix(UINT32_C(2166136261), e.wanted), e.found);
	if (add(d, &e))
		touch(d);
}

void sl_drift_more(struct sl_drift *d, enum sl_drift_kind kind, uint64_t n)
{
	if (!d || !d->entry || n == 0)
		return;
	d->count[kind] += n;
	add_unlisted(d, n, sl_loop_now_ms(d->loop));
	touch(d);
}

/* ---- words ---- */

const char *sl_drift_entry_text(const struct sl_packet_key *key, uint64_t conn_id, bool is_client,
				char ret[SL_DRIFT_TEXT])
{
	char from[SL_ADDR_TEXT], to[SL_ADDR_TEXT];
	struct sl_addr addr;

	sl_packet_addr(key->saddr, key->sport, &addr);
	(void)sl_addr_format(&addr, from);
	sl_packet_addr(key->daddr, key->dport, &addr);
	(void)sl_addr_format(&addr, to);
	(void)snprintf(ret, SL_DRIFT_TEXT, "entry %s > %s of connection %" PRIu64 ", %s direction",
		       from, to, conn_id, is_client ? "client's" : "backend's");
	return ret;
}

static void add_text(struct sl_str *to, char mark, const char *text)
{
	if (text && *text)
		sl_str_addf(to, "%c %s\n", mark, text);
}

void sl_drift_write_line(struct sl_str *to, const struct sl_drift_line *line)
{
	sl_str_addf(to, "d %s %s %d %" PRIu32 " %" PRIu64 "\n", sl_drift_kind_name(line->kind),
		    sl_drift_done_name(line->done), line->is_new, line->times, line->age_ms);
	add_text(to, '-', line->wanted);
	add_text(to, '+', line->found);
	add_text(to, '.', line->how);
}

void sl_drift_write(const struct sl_drift *d, uint64_t since_ms, struct sl_str *to)
{
	uint64_t now_ms = sl_loop_now_ms(d->loop);
	const struct sl_list *i;

	for (i = d->all.next; i != &d->all; i = i->next) {
		const struct sl_drift_entry *e =
			SL_CONTAINER_OF(i, const struct sl_drift_entry, node);
		const struct sl_drift_line line = { .kind = e->kind,
						    .done = e->done,
						    .is_new = e->at_ms >= since_ms,
						    .times = e->times,
						    .age_ms = now_ms - e->at_ms,
						    .wanted = e->wanted,
						    .found = e->found,
						    .how = e->how };

		if (line.age_ms < (is_open(e->done) ? OPEN_MS : SL_DRIFT_WINDOW_MS))
			sl_drift_write_line(to, &line);
	}
	if (d->n_unlisted && is_recent(d, d->unlisted_ms))
		sl_str_addf(to, "m %" PRIu64 "\n", d->n_unlisted);
}
