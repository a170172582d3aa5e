/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BASE_LOG_H
#define SL_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"

/*
 * error: the operator must act. warn: degraded, continuing. info: life cycle.
 * debug: decisions. One write(2) per line, so that lines of several threads
 * and processes do not mix. A line says what was being tried, on which object,
 * and what happens next.
 */
enum sl_log_level {
	SL_LOG_ERROR = 0,
	SL_LOG_WARN,
	SL_LOG_INFO,
	SL_LOG_DEBUG,
	SL_LOG_LEVEL_COUNT_,
};

const char *sl_log_level_name(enum sl_log_level level);

/* The whole of the mutable state of logging; set at start-up and by a reload. */
void sl_log_setup(enum sl_log_level max_level, bool json, int fd);
/* "supervisor", "proxy", ...: the role printed with each line; static text. */
void sl_log_set_role(const char *role);

void sl_log(enum sl_log_level level, const char *fmt, ...) SL_PRINTF(2, 3);

/* As sl_log(), with the connection's id in the line. */
void sl_log_conn(enum sl_log_level level, uint64_t conn_id, const char *fmt, ...) SL_PRINTF(3, 4);

/*
 * Logs the text followed by ": " and the name of the error, and returns
 * `err` (a negative errno), so that callers can `return sl_err(r, ...)`.
 */
int sl_log_errno(enum sl_log_level level, int err, const char *fmt, ...) SL_PRINTF(3, 4);

#define sl_err(err, ...) sl_log_errno(SL_LOG_ERROR, (err), __VA_ARGS__)
#define sl_warn(err, ...) sl_log_errno(SL_LOG_WARN, (err), __VA_ARGS__)
#define sl_info(...) sl_log(SL_LOG_INFO, __VA_ARGS__)
#define sl_debug(...) sl_log(SL_LOG_DEBUG, __VA_ARGS__)

/*
 * True at most `burst` times in each `period_ms`, for lines that a peer can
 * provoke. The state lives with the object the line is about; zeroed is fresh.
 */
struct sl_log_limit {
	uint64_t window_start_ms;
	uint32_t used;
};
bool sl_log_allowed(struct sl_log_limit *limit, uint64_t now_ms, uint32_t burst,
		    uint64_t period_ms);

#endif
