/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BASE_JSON_H
#define SL_BASE_JSON_H

#include <stdbool.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/str.h"

/*
 * Streaming JSON writer: commas and escaping are its business, balance of
 * begin and end is the caller's. `key` is NULL inside arrays and for the
 * outermost value. Text that is not valid UTF-8 has its bad bytes replaced by
 * U+FFFD, so that the output always is.
 */
struct sl_json {
	struct sl_str *out; /* borrowed */
	unsigned depth;
	uint64_t has_items; /* bit per depth: a comma is due */
};

static inline struct sl_json sl_json_on(struct sl_str *out)
{
	return (struct sl_json){ .out = out };
}

void sl_json_obj(struct sl_json *j, const char *key); /* { */
void sl_json_obj_end(struct sl_json *j);
void sl_json_arr(struct sl_json *j, const char *key); /* [ */
void sl_json_arr_end(struct sl_json *j);
void sl_json_str(struct sl_json *j, const char *key, const char *value); /* NULL: null */
void sl_json_strn(struct sl_json *j, const char *key, const void *value, size_t n);
void sl_json_u64(struct sl_json *j, const char *key, uint64_t value);
void sl_json_i64(struct sl_json *j, const char *key, int64_t value);
void sl_json_f64(struct sl_json *j, const char *key, double value); /* not finite: null */
void sl_json_bool(struct sl_json *j, const char *key, bool value);
void sl_json_addr(struct sl_json *j, const char *key, const struct sl_addr *a); /* none: null */
void sl_json_null(struct sl_json *j, const char *key);

#endif
