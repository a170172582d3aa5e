/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CONF_DIAG_H
#define SL_CONF_DIAG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "conf/conf.h"

/* What the operator is told about the sources; collected in any order, printed by place. */
struct sl_diag {
	struct sl_mark at;
	size_t order;
	bool is_warning;
	char *text; /* owned; with the path in front */
};

struct sl_report {
	const struct sl_conf_sources *sources; /* borrowed */
	struct sl_diag *items;
	size_t n; /* at most SL_REPORT_KEEP; more are only counted */
	size_t cap;
	size_t n_errors;
	size_t n_warnings;
	bool oom; /* sticky; what is in the report is incomplete */
};
#define SL_REPORT_KEEP 2000
#define SL_REPORT_SHOW 100

/* Where a value stands in the tree of keys; links live on the callers' stacks. */
struct sl_path {
	const struct sl_path *up; /* NULL: the root, which has no name */
	const char *name;         /* NULL: an item of a list */
	size_t index;
};

void sl_report_error(struct sl_report *r, struct sl_mark at, const struct sl_path *path,
		     const char *fmt, ...) SL_PRINTF(4, 5);
void sl_report_warning(struct sl_report *r, struct sl_mark at, const struct sl_path *path,
		       const char *fmt, ...) SL_PRINTF(4, 5);

/* Takes everything back that came after `n` and the two counts were read. */
void sl_report_rewind(struct sl_report *r, const struct sl_report *earlier);

/* Sorts, and appends all of it to `out`. -ENOMEM when anything was lost for want of memory. */
SL_MUST_CHECK int sl_report_print(struct sl_report *r, struct sl_diags *out);
void sl_report_done(struct sl_report *r);

/* 'text' with quotes, unsafe characters escaped, cut when long; for use in messages. */
#define SL_QUOTE_LEN 400
const char *sl_quote(const char *text, char buf[SL_QUOTE_LEN]);

/* The source line of `at` and its caret, for who finds out after everything has been printed. */
void sl_report_excerpt(const struct sl_conf_sources *sources, struct sl_mark at,
		       struct sl_str *out);

/* "FILE:LINE:COLUMN" of another place, for messages that name two. */
#define SL_PLACE_LEN 320
const char *sl_report_place(const struct sl_report *r, struct sl_mark at, char buf[SL_PLACE_LEN]);

#endif
