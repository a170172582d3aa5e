/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "proxy/survey.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "proxy/conn.h"
#include "proxy/engine.h"
#include "proxy/handover.h"
#include "proxy/sockmap.h"
#include "proxy/worker.h"

/* Records looked at in one turn. */
#define SLICE 256

struct survey;

/* One worker's part; touched by that worker only, until it reports. */
struct part {
	struct survey *survey;
	struct sl_worker *worker;
	struct sl_task task;
	struct sl_conn cursor; /* only node and is_cursor are used */
	uint64_t last_id;      /* connections opened later are not looked at, so that it ends */
	struct sl_conn_row *rows;
	size_t n_rows;
	size_t cap;
	size_t n_matching;
	struct sl_hist age;
};

struct survey {
	struct sl_loop *control;
	struct sl_conn_filter filter; /* its texts are those below */
	char *route;
	char *target;
	struct sl_ip_pattern client;
	struct sl_ip_set clients; /* of `client` alone */
	sl_survey_fn fn;
	void *arg;
	struct sl_task report;
	unsigned n_waiting; /* atomic */
	unsigned n_parts;
	struct part parts[];
};

static void free_survey(struct survey *s)
{
	for (unsigned i = 0; i < s->n_parts; i++)
		free(s->parts[i].rows);
	free(s->route);
	free(s->target);
	free(s);
}

static void fill_hello(struct sl_conn_row *row, const struct sl_hello_facts *hello)
{
	struct sl_slice protocols = sl_hello_facts_alpn(hello);
	struct sl_slice first;

	row->tls_versions = hello->versions;
	memcpy(row->sni, hello->text, hello->name_len + 1u);
	if (sl_hello_next_alpn(&protocols, &first))
		(void)snprintf(row->alpn, sizeof(row->alpn), "%.*s", (int)first.n, first.p);
}

static void fill_row(struct sl_conn_row *row, const struct sl_conn *c, uint64_t now_us)
{
	uint64_t now_ms = now_us / 1000;

	*row = (struct sl_conn_row){
		.id = c->id,
		.state = c->state,
		.engine = c->engine_id,
		.engine_reason = c->engine_reason,
		.client = c->client,
		.client_via = c->via,
		.backend = c->backend,
		.age_ms = (now_us - c->accepted_us) / 1000,
		.idle_ms = now_ms > c->active_ms ? now_ms - c->active_ms : 0,
		.bytes_up = c->flow[SL_UP].bytes,
		.bytes_down = c->flow[SL_DOWN].bytes,
		.connect_us = c->connect_us,
		.moves = c->moves,
		.now_us = now_us,
	};
	if (c->route)
		(void)snprintf(row->route, sizeof(row->route), "%s", c->route->conf->name);
	if (c->hello)
		fill_hello(row, c->hello);
	for (int i = 0; c->tls && i < SL_SIDE_COUNT_; i++)
		sl_tls_row(c, (enum sl_side)i, &row->tls[i]);
}

/* A set of the one pattern, which must outlive it. */
static struct sl_ip_set set_of(struct sl_ip_pattern *p)
{
	struct sl_ip_set set = { 0 };

	switch (p->kind) {
	case SL_IP_RANGE4:
		set.v4 = &p->v4;
		set.n4 = 1;
		break;
	case SL_IP_RANGE6:
		set.v6 = &p->v6;
		set.n6 = 1;
		break;
	case SL_IP_GLOB4:
		set.globs = &p->glob;
		set.n_globs = 1;
		break;
	}
	return set;
}

/* A flow that an earlier process led to a target that is in the configuration no more has none. */
static bool leads_to(const struct sl_conn *c, const char *target)
{
	char text[SL_ADDR_TEXT];

	if (c->target)
		return strcmp(c->target->address, target) == 0;
	return sl_addr_family(&c->backend) &&
	       strcmp(sl_addr_format(&c->backend, text), target) == 0;
}

static bool matches(const struct survey *s, const struct sl_conn *c)
{
	const struct sl_conn_filter *f = &s->filter;

	if (sl_conn_is_ending(c))
		return false;
	if (f->id != 0 && c->id != f->id)
		return false;
	if (f->is_joined && !(c->handover && sl_handover_joint(c)->is_joined))
		return false;
	if (f->route && !(c->route && strcmp(c->route->conf->name, f->route) == 0))
		return false;
	if (f->target && !leads_to(c, f->target))
		return false;
	return !f->client || sl_ip_set_has(&s->clients, &c->client);
}

/* A row lost to lack of memory still counts as matching. */
static void add_row(struct part *p, const struct sl_conn *c)
{
	const struct survey *s = p->survey;

	if (s->filter.max_rows != 0 && p->n_rows >= s->filter.max_rows)
		return;
	if (p->n_rows == p->cap) {
		size_t cap = p->cap ? 2 * p->cap : 64;
		struct sl_conn_row *rows = realloc(p->rows, cap * sizeof(*rows));

		if (!rows)
			return;
		p->rows = rows;
		p->cap = cap;
	}
	fill_row(&p->rows[p->n_rows++], c, sl_loop_now_us(p->worker->loop));
}

/* May end it, so that there is nothing left to be shown. */
static void move(struct part *p, struct sl_conn *c)
{
	size_t at = p->n_rows;
	enum sl_move_result result;

	add_row(p, c);
	result = sl_handover_move(c, p->survey->filter.to);
	if (p->n_rows > at)
		p->rows[at].move = result;
}

static void look_at(struct part *p, struct sl_conn *c)
{
	if (c->engine && c->engine->refresh)
		c->engine->refresh(c);
	sl_hist_add(&p->age, sl_loop_now_us(p->worker->loop) - c->accepted_us);
	if (!matches(p->survey, c))
		return;
	p->n_matching++;
	if (p->survey->filter.move) {
		move(p, c);
		return;
	}
	add_row(p, c);
	if (p->survey->filter.kill)
		sl_conn_end(c, SL_REASON_KILLED, true);
}

static int by_id(const void *a, const void *b)
{
	const struct sl_conn_row *x = a;
	const struct sl_conn_row *y = b;

	return x->id < y->id ? -1 : x->id > y->id;
}

static void report(struct sl_task *task)
{
	struct survey *s = SL_CONTAINER_OF(task, struct survey, report);
	struct sl_conn_survey result = { 0 };
	struct sl_conn_row *rows;
	size_t n = 0;

	for (unsigned i = 0; i < s->n_parts; i++)
		n += s->parts[i].n_rows;
	rows = calloc(n + 1, sizeof(*rows));
	for (unsigned i = 0; i < s->n_parts; i++) {
		struct part *p = &s->parts[i];

		if (rows && p->n_rows)
			memcpy(rows + result.n_rows, p->rows, p->n_rows * sizeof(*rows));
		result.n_rows += rows ? p->n_rows : 0;
		result.n_matching += p->n_matching;
		sl_hist_merge(&result.age, &p->age);
	}
	if (rows)
		qsort(rows, result.n_rows, sizeof(*rows), by_id);
	if (s->filter.max_rows != 0 && result.n_rows > s->filter.max_rows)
		result.n_rows = s->filter.max_rows;
	result.rows = rows;
	s->fn(s->arg, &result);
	free(rows);
	free_survey(s);
}

static void part_done(struct part *p)
{
	struct survey *s = p->survey;

	if (__atomic_sub_fetch(&s->n_waiting, 1, __ATOMIC_ACQ_REL) == 0)
		(void)sl_loop_post(s->control, &s->report, report);
}

/* Walks on from the cursor; the records behind it may come and go meanwhile. */
static void walk(struct sl_task *task)
{
	struct part *p = SL_CONTAINER_OF(task, struct part, task);
	struct sl_list *head = &p->worker->conns;
	bool at_end = false;

	for (int i = 0; i < SLICE && !at_end; i++) {
		struct sl_list *next = p->cursor.node.next;
		struct sl_conn *c = SL_CONTAINER_OF(next, struct sl_conn, node);

		at_end = next == head || (!c->is_cursor && c->id > p->last_id);
		if (at_end)
			break;
		sl_list_remove(&p->cursor.node);
		sl_list_insert_after(next, &p->cursor.node);
		if (!c->is_cursor)
			look_at(p, c);
	}
	if (!at_end) {
		sl_loop_again(p->worker->loop, &p->task, walk);
		return;
	}
	sl_list_remove(&p->cursor.node);
	part_done(p);
}

static void begin(struct sl_task *task)
{
	struct part *p = SL_CONTAINER_OF(task, struct part, task);

	p->cursor.is_cursor = true;
	p->last_id = p->worker->next_id - p->worker->id_step;
	sl_list_insert_after(&p->worker->conns, &p->cursor.node);
	walk(task);
}

static int copy_filter(struct survey *s, const struct sl_conn_filter *filter)
{
	s->filter = *filter;
	if (filter->route && !(s->filter.route = s->route = strdup(filter->route)))
		return -ENOMEM;
	if (filter->target && !(s->filter.target = s->target = strdup(filter->target)))
		return -ENOMEM;
	if (filter->client) {
		s->client = *filter->client;
		s->filter.client = &s->client;
		s->clients = set_of(&s->client);
	}
	return 0;
}

int sl_survey_start(struct sl_loop *control, struct sl_worker **workers, unsigned n_workers,
		    const struct sl_conn_filter *filter, sl_survey_fn fn, void *arg)
{
	struct survey *s = calloc(1, sizeof(*s) + n_workers * sizeof(s->parts[0]));

	if (!s)
		return -ENOMEM;
	s->control = control;
	s->fn = fn;
	s->arg = arg;
	s->n_waiting = n_workers;
	if (copy_filter(s, filter) < 0) {
		free_survey(s);
		return -ENOMEM;
	}
	s->n_parts = n_workers;
	for (unsigned i = 0; i < n_workers; i++) {
		s->parts[i].survey = s;
		s->parts[i].worker = workers[i];
		if (!sl_loop_post(workers[i]->loop, &s->parts[i].task, begin))
			part_done(&s->parts[i]);
	}
	return 0;
}
