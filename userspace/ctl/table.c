/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "ctl/table.h"

#include <assert.h>
#include <string.h>

void sl_table_init(struct sl_table *t, const struct sl_table_column *column, size_t n_columns)
{
	assert(n_columns > 0 && n_columns <= SL_TABLE_MAX_COLUMNS);
	*t = (struct sl_table){ .column = column, .n_columns = n_columns };
}

void sl_table_done(struct sl_table *t)
{
	for (size_t i = 0; i < t->n_cells; i++)
		free(t->cell[i]);
	free(t->cell);
	free(t->colours);
	*t = (struct sl_table){ 0 };
}

void sl_table_add(struct sl_table *t, const char *text)
{
	char *copy;

	if (t->oom)
		return;
	if (t->n_cells == t->cap) {
		size_t cap = t->cap ? t->cap * 2 : 64;
		char **cell = reallocarray(t->cell, cap, sizeof(*cell));
		int *colours;

		if (cell)
			t->cell = cell;
		colours = cell ? reallocarray(t->colours, cap, sizeof(*colours)) : NULL;
		if (!colours) {
			t->oom = true;
			return;
		}
		t->colours = colours;
		t->cap = cap;
	}
	copy = strdup(text);
	if (!copy) {
		t->oom = true;
		return;
	}
	for (char *p = copy; *p; p++)
		if ((unsigned char)*p < 0x20 || (unsigned char)*p >= 0x7f)
			*p = '?';
	t->colours[t->n_cells] = 0;
	t->cell[t->n_cells++] = copy;
}

void sl_table_colour(struct sl_table *t, int colour)
{
	if (!t->oom && t->n_cells)
		t->colours[t->n_cells - 1] = colour;
}

void sl_table_addf(struct sl_table *t, const char *fmt, ...)
{
	_cleanup_(sl_str_done) struct sl_str text = { 0 };
	va_list ap;

	va_start(ap, fmt);
	sl_str_addv(&text, fmt, ap);
	va_end(ap);
	sl_table_add(t, sl_str_text(&text));
}

static void print_cell(const struct sl_table *t, FILE *to, size_t col, const char *text,
		       const int *width, int colour)
{
	bool is_last = col + 1 == t->n_columns;

	if (colour)
		(void)fprintf(to, "\033[%dm", colour);
	if (t->column[col].to_right)
		(void)fprintf(to, "%*s", width[col], text);
	else
		(void)fprintf(to, "%-*s", is_last ? 0 : width[col], text);
	if (colour)
		(void)fputs("\033[0m", to);
	(void)fputs(is_last ? "\n" : "  ", to);
}

void sl_table_print(const struct sl_table *t, FILE *to, bool colour)
{
	int width[SL_TABLE_MAX_COLUMNS] = { 0 };

	for (size_t c = 0; c < t->n_columns; c++)
		width[c] = (int)strlen(t->column[c].title);
	for (size_t i = 0; i < t->n_cells; i++) {
		int n = (int)strlen(t->cell[i]);

		if (n > width[i % t->n_columns])
			width[i % t->n_columns] = n;
	}
	if (colour)
		(void)fputs("\033[1m", to);
	for (size_t c = 0; c < t->n_columns; c++)
		print_cell(t, to, c, t->column[c].title, width, 0);
	if (colour)
		(void)fputs("\033[0m", to);
	for (size_t i = 0; i < t->n_cells; i++)
		print_cell(t, to, i % t->n_columns, t->cell[i], width, colour ? t->colours[i] : 0);
}

const char *sl_table_bytes(uint64_t bytes, char buf[32])
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	double v = (double)bytes;
	size_t u = 0;

	/* Not 1024: what would be printed as "1024" belongs to the next unit. */
	while (v >= 1023.5 && u + 1 < SL_ARRAY_LEN(units)) {
		v /= 1024;
		u++;
	}
	(void)snprintf(buf, 32, u > 0 && v < 9.95 ? "%.1f %s" : "%.0f %s", v, units[u]);
	return buf;
}

const char *sl_table_seconds(double seconds, char buf[32])
{
	uint64_t s = seconds > 0 ? (uint64_t)seconds : 0;

	if (seconds < 9.95)
		(void)snprintf(buf, 32, "%.1fs", seconds > 0 ? seconds : 0);
	else if (s < 60)
		(void)snprintf(buf, 32, "%us", (unsigned)s);
	else if (s < 3600)
		(void)snprintf(buf, 32, "%um %02us", (unsigned)(s / 60), (unsigned)(s % 60));
	else if (s < 86400)
		(void)snprintf(buf, 32, "%uh %02um", (unsigned)(s / 3600), (unsigned)(s / 60 % 60));
	else
		(void)snprintf(buf, 32, "%llud %02uh", (unsigned long long)(s / 86400),
			       (unsigned)(s / 3600 % 24));
	return buf;
}
