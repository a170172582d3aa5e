/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "proxy/access_line.h"

#include <inttypes.h>
#include <time.h>

#include "base/json.h"
#include "proxy/conn.h"
#include "proxy/tls.h"
#include "proxy/worker.h"

struct facts {
	char client[SL_ADDR_TEXT];
	char via[SL_ADDR_TEXT];
	char backend[SL_ADDR_TEXT];
	const char *route;
	const char *sni;                       /* NULL: none */
	struct sl_tls_row tls[SL_SIDE_COUNT_]; /* of TLS that ended or began here */
	uint64_t duration_us;
};

static void add_time(struct sl_str *s)
{
	struct timespec ts;
	struct tm tm;

	(void)clock_gettime(CLOCK_REALTIME, &ts);
	(void)gmtime_r(&ts.tv_sec, &tm);
	sl_str_addf(s, "%04d-%02d-%02dT%02d:%02d:%02d.%03ldZ", tm.tm_year + 1900, tm.tm_mon + 1,
		    tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, ts.tv_nsec / 1000000);
}

/* Subjects come escaped. */
static void add_text_tls(struct sl_str *s, const struct facts *f)
{
	const struct sl_tls_row *front = &f->tls[SL_CLIENT];
	const struct sl_tls_row *back = &f->tls[SL_BACKEND];

	if (front->version[0])
		sl_str_addf(s, " tls=%s/%s", front->version, front->cipher);
	if (front->peer[0])
		sl_str_addf(s, " client_cert=\"%s\"", front->peer);
	if (back->version[0])
		sl_str_addf(s, " backend_tls=%s", back->version);
}

static void add_text(struct sl_str *s, const struct sl_conn *c, const struct facts *f)
{
	add_time(s);
	sl_str_addf(
		s,
		" access: id=%" PRIu64 " client=%s via=%s route=%s engine=%s/%s backend=%s sni=%s",
		c->id, f->client, f->via, f->route ? f->route : "-", sl_engine_name(c->engine_id),
		sl_engine_reason_name(c->engine_reason), f->backend, f->sni ? f->sni : "-");
	add_text_tls(s, f);
	sl_str_addf(s, " duration=%.3fs", (double)f->duration_us / 1e6);
	if (c->connect_us)
		sl_str_addf(s, " connect=%.3fms", (double)c->connect_us / 1e3);
	else
		sl_str_adds(s, " connect=-");
	if (c->moves.n)
		sl_str_addf(s, " moves=%" PRIu32, c->moves.n);
	sl_str_addf(s, " up=%" PRIu64 " down=%" PRIu64 " client_reason=%s backend_reason=%s\n",
		    c->flow[SL_UP].bytes, c->flow[SL_DOWN].bytes,
		    sl_reason_name(c->side[SL_CLIENT].reason),
		    sl_reason_name(c->side[SL_BACKEND].reason));
}

static void add_reason(struct sl_json *j, const char *key, enum sl_reason reason)
{
	sl_json_str(j, key, reason == SL_REASON_NONE ? NULL : sl_reason_name(reason));
}

static void add_json_tls(struct sl_json *j, const struct facts *f)
{
	const struct sl_tls_row *front = &f->tls[SL_CLIENT];
	const struct sl_tls_row *back = &f->tls[SL_BACKEND];

	if (front->version[0]) {
		sl_json_str(j, "tls", front->version);
		sl_json_str(j, "tls_cipher", front->cipher);
		sl_json_bool(j, "tls_resumed", front->is_resumed);
		sl_json_str(j, "alpn", front->alpn[0] ? front->alpn : NULL);
	}
	if (front->peer[0])
		sl_json_str(j, "client_cert", front->peer);
	if (back->version[0])
		sl_json_str(j, "backend_tls", back->version);
}

static void add_json(struct sl_str *s, const struct sl_conn *c, const struct facts *f)
{
	struct sl_json j = sl_json_on(s);
	_cleanup_(sl_str_done) struct sl_str when = { 0 };

	add_time(&when);
	sl_json_obj(&j, NULL);
	sl_json_str(&j, "time", sl_str_text(&when));
	sl_json_str(&j, "level", "access");
	sl_json_u64(&j, "id", c->id);
	sl_json_str(&j, "client", f->client);
	sl_json_str(&j, "client_via", sl_addr_family(&c->via) ? f->via : NULL);
	sl_json_str(&j, "route", f->route);
	sl_json_str(&j, "engine",
		    c->engine_id == SL_ENGINE_NONE ? NULL : sl_engine_name(c->engine_id));
	sl_json_str(&j, "engine_reason",
		    c->engine_reason == SL_WHY_NONE ? NULL
						    : sl_engine_reason_name(c->engine_reason));
	sl_json_u64(&j, "moves", c->moves.n);
	sl_json_str(&j, "backend", sl_addr_family(&c->backend) ? f->backend : NULL);
	sl_json_str(&j, "sni", f->sni);
	add_json_tls(&j, f);
	sl_json_f64(&j, "duration_s", (double)f->duration_us / 1e6);
	if (c->connect_us)
		sl_json_f64(&j, "connect_ms", (double)c->connect_us / 1e3);
	else
		sl_json_null(&j, "connect_ms");
	sl_json_u64(&j, "bytes_up", c->flow[SL_UP].bytes);
	sl_json_u64(&j, "bytes_down", c->flow[SL_DOWN].bytes);
	add_reason(&j, "client_reason", c->side[SL_CLIENT].reason);
	add_reason(&j, "backend_reason", c->side[SL_BACKEND].reason);
	sl_json_obj_end(&j);
	sl_str_addc(s, '\n');
}

void sl_access_line(const struct sl_conn *c, const char *route)
{
	struct sl_worker *w = c->worker;
	struct facts f = { .route = route,
			   .sni = c->hello && c->hello->name_len ? c->hello->text : NULL };
	bool was_empty = w->access_lines.len == 0;

	if (!sl_access_is_on(w->access))
		return;
	(void)sl_addr_format(&c->client, f.client);
	(void)sl_addr_format(&c->via, f.via);
	(void)sl_addr_format(&c->backend, f.backend);
	f.duration_us = sl_conn_age_us(c);
	for (int i = 0; i < SL_SIDE_COUNT_; i++)
		sl_tls_row(c, (enum sl_side)i, &f.tls[i]);
	if (w->gen->conf->global.log_json)
		add_json(&w->access_lines, c, &f);
	else
		add_text(&w->access_lines, c, &f);
	if (was_empty)
		sl_worker_flush_access_later(w);
}
