/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "broker/worries.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "broker/wire.h"
#include "nft/trouble.h"

#define POLL_MS 1000
#define LOOK_MS 30000
/* Others may have tens of thousands of rules; they are not read more than so often of the time. */
#define SHARE 50
/* Logged in ten minutes; they may come and go. */
#define LINES 30
#define LINES_MS 600000

struct sl_worries {
	struct sl_worries_options options;
	struct sl_nft_trouble *trouble; /* NULL: not open */
	struct sl_str text;
	struct sl_timer timer;
	uint64_t due_ms;
	uint64_t not_before_ms;
	uint32_t generation; /* of the kernel's rules, when last looked at */
	uint32_t settings;   /* of the host, likewise */
	int failed;          /* as last logged; 0: it works */
	struct sl_log_limit log;
};

/* ---- their text ---- */

static void add_line(struct sl_str *to, const char *line, size_t n)
{
	static const char gap[] = " ... ";
	const size_t half = (SL_BROKER_WORRY_MAX - sizeof(gap)) / 2;
	size_t from = to->len;

	if (n <= SL_BROKER_WORRY_MAX) {
		sl_str_add(to, line, n);
	} else {
		sl_str_add(to, line, half);
		sl_str_adds(to, gap);
		sl_str_add(to, line + n - half, half);
	}
	for (size_t i = from; !to->oom && i < to->len; i++)
		if ((uint8_t)to->p[i] < ' ' || to->p[i] == 0x7f)
			to->p[i] = '?';
	sl_str_addc(to, '\n');
}

static size_t n_lines(const char *text)
{
	size_t n = 0;

	while ((text = strchr(text, '\n'))) {
		text++;
		n++;
	}
	return n;
}

void sl_worries_bound(const char *from, struct sl_str *to)
{
	size_t left = n_lines(from);
	/* of several too many the last line says so */
	size_t most = left > SL_BROKER_WORRIES ? SL_BROKER_WORRIES - 1 : left;

	for (; most > 0; most--, left--) {
		size_t n = strcspn(from, "\n");

		add_line(to, from, n);
		from += n + 1;
	}
	if (left)
		sl_str_addf(to, "%zu more of the kind, of other tables: nft list ruleset\n", left);
}

static bool has_line(const char *text, const char *line, size_t n)
{
	while (*text) {
		size_t k = strcspn(text, "\n");

		if (k == n && memcmp(text, line, n) == 0)
			return true;
		text += k + 1;
	}
	return false;
}

/* Those of `lines` that `others` has not. */
static void log_new(struct sl_worries *w, const char *lines, const char *others, bool is_over)
{
	uint64_t now_ms = sl_loop_now_ms(w->options.loop);

	while (*lines) {
		size_t n = strcspn(lines, "\n");

		if (!has_line(others, lines, n) && sl_log_allowed(&w->log, now_ms, LINES, LINES_MS))
			sl_log(is_over ? SL_LOG_INFO : SL_LOG_WARN, "nftables: %s%.*s",
			       is_over ? "no longer: " : "", (int)n, lines);
		lines += n + 1;
	}
}

/* Takes over `text`. */
static void set_text(struct sl_worries *w, struct sl_str *text)
{
	const char *now = sl_str_text(text), *before = sl_str_text(&w->text);

	if (text->oom || strcmp(now, before) == 0)
		return;
	log_new(w, before, now, true);
	log_new(w, now, before, false);
	sl_str_done(&w->text);
	w->text = *text;
	*text = (struct sl_str){ 0 };
	w->options.changed(w->options.arg);
}

/* ---- looking ---- */

struct flows {
	struct sl_nft_trouble_flow *item;
	size_t n;
	size_t cap;
};

static void add_flow(struct flows *f, const struct sl_nft_route *route, uint8_t protocol,
		     const struct sl_nft_target *t)
{
	if (f->n == f->cap) {
		size_t cap = f->cap ? f->cap * 2 : 64;
		struct sl_nft_trouble_flow *item = reallocarray(f->item, cap, sizeof(*item));

		if (!item)
			return; /* the others say enough */
		f->item = item;
		f->cap = cap;
	}
	f->item[f->n++] =
		(struct sl_nft_trouble_flow){ route->name, route->mark, protocol, t->addr };
}

static void add_route(void *arg, const struct sl_nft_route *route)
{
	for (size_t i = 0; i < route->n_targets; i++) {
		if (route->protocols & SL_NFT_TCP)
			add_flow(arg, route, IPPROTO_TCP, &route->targets[i]);
		if (route->protocols & SL_NFT_UDP)
			add_flow(arg, route, IPPROTO_UDP, &route->targets[i]);
	}
}

static int look(struct sl_worries *w, const struct flows *f)
{
	_cleanup_(sl_str_done) struct sl_str lines = { 0 };
	_cleanup_(sl_str_done) struct sl_str text = { 0 };
	int r = sl_nft_trouble_look(w->trouble, sl_nat_table(w->options.nat), f->item, f->n,
				    &lines);

	if (r < 0)
		return r;
	sl_worries_bound(sl_str_text(&lines), &text);
	set_text(w, &text);
	return 0;
}

/* -EAGAIN: others are at it, and it is asked again. */
static void say_failed(struct sl_worries *w, int r)
{
	if (r != -EAGAIN && r != 0 && r != w->failed)
		(void)sl_warn(r, "nftables: cannot look at others' rules, which may drop what is "
				 "forwarded; trying again");
	if (r != -EAGAIN)
		w->failed = r;
}

static int open_and_look(struct sl_worries *w, const struct flows *f)
{
	uint64_t now_ms = sl_loop_now_ms(w->options.loop);
	uint32_t generation = w->generation, settings = sl_nft_trouble_settings();
	uint64_t from_us;
	int r = w->trouble ? 0 : sl_nft_trouble_open(&w->trouble);

	if (r == 0)
		r = sl_nft_trouble_generation(w->trouble, &generation);
	if (r < 0 || now_ms < w->not_before_ms ||
	    (now_ms < w->due_ms && generation == w->generation && settings == w->settings))
		return r;
	from_us = sl_clock_us();
	r = look(w, f);
	w->not_before_ms = now_ms + (sl_clock_us() - from_us) * SHARE / 1000;
	w->due_ms = now_ms + LOOK_MS;
	if (r == 0) {
		w->generation = generation;
		w->settings = settings;
	}
	return r;
}

static void on_timer(struct sl_timer *timer)
{
	struct sl_worries *w = SL_CONTAINER_OF(timer, struct sl_worries, timer);
	struct sl_str none = { 0 };
	struct flows f = { 0 };

	sl_nat_each_route(w->options.nat, add_route, &f);
	if (f.n == 0) {
		set_text(w, &none); /* until routes come */
		return;
	}
	say_failed(w, open_and_look(w, &f));
	free(f.item);
	sl_timer_start(w->options.loop, timer, sl_loop_now_ms(w->options.loop) + POLL_MS, on_timer);
}

void sl_worries_look(struct sl_worries *w)
{
	w->due_ms = 0;
	sl_timer_start(w->options.loop, &w->timer, sl_loop_now_ms(w->options.loop), on_timer);
}

/* ---- life ---- */

int sl_worries_new(const struct sl_worries_options *options, struct sl_worries **ret)
{
	struct sl_worries *w = calloc(1, sizeof(*w));

	if (!w)
		return -ENOMEM;
	w->options = *options;
	*ret = w;
	return 0;
}

void sl_worries_free(struct sl_worries *w)
{
	if (!w)
		return;
	sl_timer_stop(&w->timer);
	sl_nft_trouble_close(w->trouble);
	sl_str_done(&w->text);
	free(w);
}

const char *sl_worries_text(const struct sl_worries *w)
{
	return sl_str_text(&w->text);
}
