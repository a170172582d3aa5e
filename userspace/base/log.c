/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "base/log.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>

#include "base/json.h"

static struct {
	enum sl_log_level max_level;
	bool json;
	int fd;
	const char *role;
} sink = { .max_level = SL_LOG_INFO, .fd = 2, .role = "sluiced" };

static const char *const level_names[] = {
	[SL_LOG_ERROR] = "error",
	[SL_LOG_WARN] = "warn",
	[SL_LOG_INFO] = "info",
	[SL_LOG_DEBUG] = "debug",
};
_Static_assert(SL_ARRAY_LEN(level_names) == SL_LOG_LEVEL_COUNT_, "a name per level");

const char *sl_log_level_name(enum sl_log_level level)
{
	return level_names[level];
}

void sl_log_setup(enum sl_log_level max_level, bool json, int fd)
{
	__atomic_store_n(&sink.max_level, max_level, __ATOMIC_RELAXED);
	__atomic_store_n(&sink.json, json, __ATOMIC_RELAXED);
	__atomic_store_n(&sink.fd, fd, __ATOMIC_RELAXED);
}

void sl_log_set_role(const char *role)
{
	sink.role = role;
}

static void add_time(struct sl_str *s)
{
	struct timespec ts;
	struct tm tm;

	(void)clock_gettime(CLOCK_REALTIME, &ts);
	(void)gmtime_r(&ts.tv_sec, &tm); /* UTC: needs no file once the sandbox is up */
	sl_str_addf(s, "%04d-%02d-%02dT%02d:%02d:%02d.%03ldZ", tm.tm_year + 1900, tm.tm_mon + 1,
		    tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, ts.tv_nsec / 1000000);
}

static void add_json_line(struct sl_str *out, enum sl_log_level level, uint64_t conn_id,
			  const struct sl_str *msg)
{
	_cleanup_(sl_str_done) struct sl_str when = { 0 };
	struct sl_json j = sl_json_on(out);

	add_time(&when);
	sl_json_obj(&j, NULL);
	sl_json_str(&j, "time", sl_str_text(&when));
	sl_json_str(&j, "level", level_names[level]);
	sl_json_str(&j, "role", sink.role);
	if (conn_id)
		sl_json_u64(&j, "id", conn_id);
	sl_json_strn(&j, "msg", sl_str_text(msg), msg->len);
	sl_json_obj_end(&j);
}

static void emit(enum sl_log_level level, uint64_t conn_id, int err, const char *fmt, va_list ap)
{
	_cleanup_(sl_str_done) struct sl_str msg = { 0 };
	_cleanup_(sl_str_done) struct sl_str line = { 0 };
	char name[128];

	if (level > __atomic_load_n(&sink.max_level, __ATOMIC_RELAXED))
		return;
	sl_str_addv(&msg, fmt, ap);
	if (err)
		sl_str_addf(&msg, ": %s", strerror_r(err < 0 ? -err : err, name, sizeof(name)));
	if (__atomic_load_n(&sink.json, __ATOMIC_RELAXED)) {
		add_json_line(&line, level, conn_id, &msg);
	} else {
		add_time(&line);
		sl_str_addf(&line, " %-5s %s: ", level_names[level], sink.role);
		if (conn_id)
			sl_str_addf(&line, "id=%" PRIu64 " ", conn_id);
		sl_str_add(&line, sl_str_text(&msg), msg.len);
	}
	sl_str_addc(&line, '\n');
	/* A log that cannot be written has nowhere to complain. */
	if (!line.oom && write(__atomic_load_n(&sink.fd, __ATOMIC_RELAXED), line.p, line.len) < 0)
		return;
}

void sl_log(enum sl_log_level level, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	emit(level, 0, 0, fmt, ap);
	va_end(ap);
}

void sl_log_conn(enum sl_log_level level, uint64_t conn_id, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	emit(level, conn_id, 0, fmt, ap);
	va_end(ap);
}

int sl_log_errno(enum sl_log_level level, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	emit(level, 0, err, fmt, ap);
	va_end(ap);
	return err;
}

bool sl_log_allowed(struct sl_log_limit *limit, uint64_t now_ms, uint32_t burst, uint64_t period_ms)
{
	if (limit->used == 0 || now_ms - limit->window_start_ms >= period_ms) {
		limit->window_start_ms = now_ms;
		limit->used = 0;
	}
	if (limit->used >= burst)
		return false;
	limit->used++;
	return true;
}
