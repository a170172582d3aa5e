/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CTL_TABLE_H
#define SL_CTL_TABLE_H

#include <stdint.h>
#include <stdio.h>

#include "base/str.h"

/* Aligned columns for a terminal. Numbers stand to the right, names to the left. */
#define SL_TABLE_MAX_COLUMNS 16

struct sl_table_column {
	const char *title;
	bool to_right;
};

struct sl_table {
	const struct sl_table_column *column;
	size_t n_columns;
	char **cell;  /* row by row; owned */
	int *colours; /* one per cell; 0: none */
	size_t n_cells;
	size_t cap;
	bool oom;
};

/* `column` is borrowed; at most SL_TABLE_MAX_COLUMNS. */
void sl_table_init(struct sl_table *t, const struct sl_table_column *column, size_t n_columns);
void sl_table_done(struct sl_table *t);
/* The next cell of the current row; bytes that would upset a terminal become "?". */
void sl_table_add(struct sl_table *t, const char *text);
/* The cell added last, in a colour of terminals (31: red) where such are printed. */
void sl_table_colour(struct sl_table *t, int colour);
void sl_table_addf(struct sl_table *t, const char *fmt, ...) SL_PRINTF(2, 3);
/* Titles in bold when `colour`; nothing of the last column is padded. */
void sl_table_print(const struct sl_table *t, FILE *to, bool colour);

/* "0 B", "1023 B", "1.5 KiB", "12 MiB". */
const char *sl_table_bytes(uint64_t bytes, char buf[32]);
/* "0.3s", "59s", "1m 02s", "3h 04m", "2d 03h". */
const char *sl_table_seconds(double seconds, char buf[32]);

#endif
