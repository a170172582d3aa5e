/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CTL_RENDER_H
#define SL_CTL_RENDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/*
 * The documents of the control interface for people. A field that is missing
 * is printed as "-": the daemon may be older or newer than the command.
 */
struct json_t;

struct sl_render {
	FILE *to;
	bool colour;
	size_t max_rows; /* of a table of connections */
};

void sl_render_status(const struct sl_render *r, const struct json_t *doc);
void sl_render_routes(const struct sl_render *r, const struct json_t *doc);
void sl_render_route(const struct sl_render *r, const struct json_t *doc);
void sl_render_changes(const struct sl_render *r, const struct json_t *doc);
void sl_render_conns(const struct sl_render *r, const struct json_t *doc);
/* Of the rows that one id gives: TLS and the moves as well. Nothing where there is none. */
void sl_render_conn(const struct sl_render *r, const struct json_t *doc);
void sl_render_flows(const struct sl_render *r, const struct json_t *doc);
void sl_render_engines(const struct sl_render *r, const struct json_t *doc);
void sl_render_reasons(const struct sl_render *r, const struct json_t *doc);
void sl_render_explain(const struct sl_render *r, const struct json_t *doc);

void sl_render_certs(const struct sl_render *r, const struct json_t *doc);
/* Those of one name, with all that is known. */
void sl_render_cert(const struct sl_render *r, const struct json_t *doc);

void sl_render_diff(const struct sl_render *r, const struct json_t *doc);

/* Something differs that could not be healed: exit code 4. */
bool sl_render_is_drifting(const struct json_t *diff);
/* A daemon that runs, but not as its operator wants: exit code 4. */
bool sl_render_is_degraded(const struct json_t *status);

#endif
