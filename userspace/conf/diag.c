/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "conf/diag.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "conf/utf8.h"

#define QUOTE_CHARS 60
#define TAB 8
#define PATH_PART 100
/* Lines whose caret stands beyond the first are shown from a little before the caret on. */
#define WINDOW_FROM 90
#define WINDOW_BEFORE 60
#define WINDOW_CHARS 110

/* One character as a terminal may show it; the columns it takes. */
static unsigned add_char(struct sl_str *s, const char *p, size_t len, uint32_t c)
{
	size_t before = s->len;

	if (c == UINT32_MAX)
		sl_str_addf(s, "\\x%02x", (unsigned char)*p);
	else if (c < 0x80 && sl_utf8_is_unsafe(c))
		sl_str_addf(s, "\\x%02x", c);
	else if (sl_utf8_is_unsafe(c))
		sl_str_addf(s, "\\u%04x", c);
	else {
		sl_str_add(s, p, len);
		return sl_utf8_width(c);
	}
	return (unsigned)(s->len - before);
}

/* Names come from the file where a mapping may have any keys. */
static void add_path(struct sl_str *s, const struct sl_path *path)
{
	size_t n, len;
	uint32_t c;

	if (!path || !path->up)
		return;
	add_path(s, path->up);
	if (!path->name) {
		sl_str_addf(s, "[%zu]", path->index);
		return;
	}
	sl_str_adds(s, path->up->up ? "." : "");
	n = strnlen(path->name, PATH_PART);
	for (size_t i = 0; i < n; i += len) {
		len = sl_utf8_decode(path->name + i, n - i, &c);
		(void)add_char(s, path->name + i, len, c);
	}
}

const char *sl_quote(const char *text, char buf[SL_QUOTE_LEN])
{
	size_t n = strlen(text), used = 1, count = 0;
	uint32_t c;

	buf[0] = '\'';
	for (size_t i = 0, len; i < n; i += len) {
		char *to = buf + used;
		size_t room = SL_QUOTE_LEN - used;

		if (count++ == QUOTE_CHARS) {
			used += (size_t)snprintf(to, room, "...");
			break;
		}
		len = sl_utf8_decode(text + i, n - i, &c);
		if (c == UINT32_MAX || (c < 0x80 && sl_utf8_is_unsafe(c)))
			used += (size_t)snprintf(to, room, "\\x%02x", (unsigned char)text[i]);
		else if (sl_utf8_is_unsafe(c))
			used += (size_t)snprintf(to, room, "\\u%04x", c);
		else
			used += (size_t)snprintf(to, room, "%.*s", (int)len, text + i);
	}
	(void)snprintf(buf + used, SL_QUOTE_LEN - used, "'");
	return buf;
}

const char *sl_report_place(const struct sl_report *r, struct sl_mark at, char buf[SL_PLACE_LEN])
{
	(void)snprintf(buf, SL_PLACE_LEN, "%.280s:%" PRIu32 ":%" PRIu32,
		       r->sources->item[at.source].name, at.line, at.column);
	return buf;
}

static void keep(struct sl_report *r, struct sl_mark at, bool is_warning, char *text)
{
	if (!text) {
		r->oom = true;
		return;
	}
	if (r->n == r->cap) {
		size_t cap = r->cap ? r->cap * 2 : 16;
		struct sl_diag *items = reallocarray(r->items, cap, sizeof(*items));

		if (!items) {
			free(text);
			r->oom = true;
			return;
		}
		r->items = items;
		r->cap = cap;
	}
	r->items[r->n] =
		(struct sl_diag){ .at = at, .order = r->n, .is_warning = is_warning, .text = text };
	r->n++;
}

static void report(struct sl_report *r, struct sl_mark at, const struct sl_path *path,
		   bool is_warning, const char *fmt, va_list ap)
{
	struct sl_str s = { 0 };

	if (is_warning)
		r->n_warnings++;
	else
		r->n_errors++;
	if (r->n >= SL_REPORT_KEEP)
		return;
	add_path(&s, path);
	if (s.len)
		sl_str_adds(&s, ": ");
	sl_str_addv(&s, fmt, ap);
	keep(r, at, is_warning, sl_str_take(&s));
}

void sl_report_error(struct sl_report *r, struct sl_mark at, const struct sl_path *path,
		     const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	report(r, at, path, false, fmt, ap);
	va_end(ap);
}

void sl_report_warning(struct sl_report *r, struct sl_mark at, const struct sl_path *path,
		       const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	report(r, at, path, true, fmt, ap);
	va_end(ap);
}

void sl_report_rewind(struct sl_report *r, const struct sl_report *earlier)
{
	while (r->n > earlier->n)
		free(r->items[--r->n].text);
	r->n_errors = earlier->n_errors;
	r->n_warnings = earlier->n_warnings;
}

static int compare_u32(uint32_t a, uint32_t b)
{
	return (a > b) - (a < b);
}

static int compare_diags(const void *a, const void *b)
{
	const struct sl_diag *x = a, *y = b;
	int c = compare_u32(x->at.source, y->at.source);

	if (c == 0)
		c = compare_u32(x->at.line, y->at.line);
	if (c == 0)
		c = compare_u32(x->at.column, y->at.column);
	return c ? c : (x->order > y->order) - (x->order < y->order);
}

/* A place in a source that only moves forward, so that printing is linear. */
struct cursor {
	const struct sl_conf_source *source;
	size_t at;
	uint32_t line;
	uint32_t column;
};

/* Of changes made at run time that need none it may be NULL. */
static const char *text_of(const struct sl_conf_source *s)
{
	return s->text ? s->text : "";
}

static size_t byte_order_mark(const struct sl_conf_source *s)
{
	return s->len >= 3 && memcmp(s->text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
}

static void advance(struct cursor *c, uint32_t line, uint32_t column)
{
	const char *text = text_of(c->source);
	size_t n = c->source->len, len;
	uint32_t ch;

	while (c->at < n && (c->line < line || (c->line == line && c->column < column))) {
		len = sl_utf8_break(text + c->at, n - c->at);
		if (len && c->line == line)
			return;
		if (len) {
			c->line++;
			c->column = 1;
		} else {
			len = sl_utf8_decode(text + c->at, n - c->at, &ch);
			c->column++;
		}
		c->at += len;
	}
}

/* The part of the source line around the caret, and the caret. */
static void add_excerpt(struct sl_str *s, struct cursor *c, struct sl_mark at)
{
	uint32_t start = at.column > WINDOW_FROM ? at.column - WINDOW_BEFORE : 1;
	const char *text = text_of(c->source);
	size_t i, n = c->source->len, len;
	unsigned width = 0, caret = UINT32_MAX;
	uint32_t column, ch;

	advance(c, at.line, start);
	i = c->at;
	column = c->column;
	sl_str_addf(s, "%5" PRIu32 " | ", at.line);
	if (start > 1) {
		sl_str_adds(s, "...");
		width = 3;
	}
	for (; i < n && c->line == at.line && !sl_utf8_break(text + i, n - i); i += len, column++) {
		if (column == at.column)
			caret = width;
		if (column - start == WINDOW_CHARS) {
			sl_str_adds(s, "...");
			break;
		}
		len = sl_utf8_decode(text + i, n - i, &ch);
		if (ch == '\t') {
			sl_str_addf(s, "%*s", (int)(TAB - width % TAB), "");
			width += TAB - width % TAB;
		} else {
			width += add_char(s, text + i, len, ch);
		}
	}
	if (caret == UINT32_MAX)
		caret = width;
	while (s->len && s->p && s->p[s->len - 1] == ' ')
		s->p[--s->len] = '\0';
	sl_str_addf(s, "\n%5s | %*s^\n", "", (int)caret, "");
}

static void add_diag(struct sl_str *s, struct cursor *c, const struct sl_report *r,
		     const struct sl_diag *d)
{
	const struct sl_conf_source *source = &r->sources->item[d->at.source];
	char place[SL_PLACE_LEN];

	if (c->source != source)
		*c = (struct cursor){ source, byte_order_mark(source), 1, 1 };
	sl_str_addf(s, "%s: %s: %s\n", sl_report_place(r, d->at, place),
		    d->is_warning ? "warning" : "error", d->text);
	add_excerpt(s, c, d->at);
}

void sl_report_excerpt(const struct sl_conf_sources *sources, struct sl_mark at, struct sl_str *out)
{
	const struct sl_conf_source *source = &sources->item[at.source];
	struct cursor c = { source, byte_order_mark(source), 1, 1 };

	add_excerpt(out, &c, at);
}

int sl_report_print(struct sl_report *r, struct sl_diags *out)
{
	size_t shown_errors = 0, shown_warnings = 0;
	struct cursor c = { 0 };

	if (r->n)
		qsort(r->items, r->n, sizeof(*r->items), compare_diags);
	for (size_t i = 0; i < r->n; i++) {
		size_t *shown = r->items[i].is_warning ? &shown_warnings : &shown_errors;

		if (*shown == SL_REPORT_SHOW)
			continue;
		(*shown)++;
		add_diag(&out->text, &c, r, &r->items[i]);
	}
	if (r->n_errors > shown_errors)
		sl_str_addf(&out->text, "... and %zu more %s\n", r->n_errors - shown_errors,
			    r->n_errors - shown_errors == 1 ? "error" : "errors");
	if (r->n_warnings > shown_warnings)
		sl_str_addf(&out->text, "... and %zu more %s\n", r->n_warnings - shown_warnings,
			    r->n_warnings - shown_warnings == 1 ? "warning" : "warnings");
	out->n_errors += r->n_errors;
	out->n_warnings += r->n_warnings;
	return r->oom || out->text.oom ? -ENOMEM : 0;
}

void sl_report_done(struct sl_report *r)
{
	for (size_t i = 0; i < r->n; i++)
		free(r->items[i].text);
	free(r->items);
	*r = (struct sl_report){ 0 };
}

void sl_diags_done(struct sl_diags *d)
{
	sl_str_done(&d->text);
	*d = (struct sl_diags){ 0 };
}
