/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "proxy/worker.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>

#include "base/clock.h"
#include "base/log.h"
#include "proxy/listener.h"

/* Closed records kept for reuse: the malloc of a record is cheap, its page faults are not. */
#define MAX_SPARE 256
#define MAX_IDLE_PIPES 64

SL_DEFINE_CLEANUP(struct sl_worker, sl_worker_free);

int sl_worker_new(const struct sl_worker_options *options, struct sl_worker **ret)
{
	_cleanup_(sl_worker_freep) struct sl_worker *w = NULL;
	int r;

	w = calloc(1, sizeof(*w));
	if (!w)
		return -ENOMEM;
	w->index = options->index;
	w->limits = options->limits;
	w->access = options->access;
	/* so that id % n_workers is the worker's index: see sl_broker_add_channel() */
	w->next_id = (options->first_conn_id + options->n_workers - 1) / options->n_workers *
			     options->n_workers +
		     options->index;
	w->id_step = options->n_workers;
	w->port_min = options->port_min;
	w->port_max = options->port_max;
	w->port_step = options->n_workers;
	sl_list_init(&w->conns);
	sl_list_init(&w->spare);
	sl_list_init(&w->listeners);
	sl_rand_seed(&w->rand, sl_clock_us() * (options->index + 1));
	w->next_port = w->port_min + w->index;
	if (w->port_max > w->port_min)
		w->next_port += w->port_step *
				(uint32_t)sl_rand_below(&w->rand,
							(w->port_max - w->port_min) / w->port_step);
	w->scratch = malloc(SL_SCRATCH_SIZE);
	if (!w->scratch)
		return -ENOMEM;
	w->packet_reason = SL_WHY_NO_PRIVILEGE;
	w->sockmap_reason = SL_WHY_NO_PRIVILEGE;
	sl_packet_flows_init(&w->packet_flows, w);
	r = sl_loop_new(&w->loop);
	if (r == 0)
		r = sl_pipe_pool_new(MAX_IDLE_PIPES, &w->pipes);
	if (r == 0)
		r = sl_parting_new(w->loop, &w->parting);
	if (r == 0)
		r = sl_tls_work_init(&w->tls, options->tickets, options->no_ktls);
	if (r == 0)
		r = sl_sources_new(&w->sources);
	if (r == 0)
		r = sl_nat_flows_new(w, &w->nat_flows);
	if (r == 0)
		r = sl_handovers_new(w, &w->handovers);
	if (r < 0)
		return r;
	*ret = SL_TAKE_PTR(w);
	return 0;
}

static void *run(void *arg)
{
	struct sl_worker *w = arg;
	char name[16];
	int r;

	(void)snprintf(name, sizeof(name), "worker %u", w->index);
	(void)prctl(PR_SET_NAME, name);
	r = sl_loop_run(w->loop);
	if (r < 0)
		(void)sl_err(r, "worker %u: waiting for events failed, it stops", w->index);
	return NULL;
}

int sl_worker_start(struct sl_worker *w)
{
	sigset_t all;
	sigset_t before;
	int r;

	/* Signals are the control thread's business. */
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before);
	r = pthread_create(&w->thread, NULL, run, w);
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r != 0)
		return -r;
	w->is_running = true;
	return 0;
}

static void end_all(struct sl_worker *w)
{
	struct sl_list *pos;
	struct sl_list *tmp;

	sl_listener_remove_all(w, false);
	sl_list_for_each_safe (pos, tmp, &w->conns) {
		struct sl_conn *c = SL_CONTAINER_OF(pos, struct sl_conn, node);

		if (!c->is_cursor)
			sl_conn_end(c, SL_REASON_SHUTDOWN, false);
	}
}

static void flush_access(struct sl_task *task);

void sl_worker_free(struct sl_worker *w)
{
	if (!w)
		return;
	if (w->is_running) {
		sl_loop_quit(w->loop);
		(void)pthread_join(w->thread, NULL);
	}
	if (w->loop) {
		sl_tls_work_stop(&w->tls);
		sl_nat_flows_stop(w->nat_flows);
		sl_packet_flows_stop(&w->packet_flows);
		end_all(w);
		sl_timer_stop(&w->accept_pause);
		sl_handovers_free(w->handovers);
		sl_nat_flows_free(w->nat_flows);
		flush_access(&w->access_flush);
		sl_tls_work_done(&w->tls);
		sl_parting_free(w->parting);
	}
	sl_loop_free(w->loop); /* runs what is deferred: records come back */
	while (!sl_list_is_empty(&w->spare)) {
		struct sl_conn *c = SL_CONTAINER_OF(w->spare.next, struct sl_conn, node);

		sl_list_remove(&c->node);
		free(c);
	}
	sl_generation_unref(w->gen);
	sl_deny_unref(w->deny);
	sl_sources_free(w->sources);
	free(w->choices);
	sl_pipe_pool_free(w->pipes);
	sl_str_done(&w->access_lines);
	free(w->scratch);
	free(w);
}

struct sl_conn *sl_worker_new_conn(struct sl_worker *w)
{
	struct sl_conn *c;

	if (sl_list_is_empty(&w->spare)) {
		c = malloc(sizeof(*c));
		if (!c)
			return NULL;
	} else {
		c = SL_CONTAINER_OF(w->spare.next, struct sl_conn, node);
		sl_list_remove(&c->node);
		w->n_spare--;
	}
	*c = (struct sl_conn){ .worker = w,
			       .id = w->next_id,
			       .engine_id = SL_ENGINE_NONE,
			       .handover_after = UINT64_MAX,
			       .handover_to = SL_ENGINE_NONE,
			       .drain_at_ms = SL_NEVER,
			       .drain_final_ms = SL_NEVER };
	for (int i = 0; i < SL_SIDE_COUNT_; i++) {
		c->side[i].io.fd = -1;
		c->flow[i].pipe = SL_PIPE_NONE;
	}
	sl_list_init(&c->young);
	w->next_id += w->id_step;
	sl_list_add(&w->conns, &c->node);
	w->n_conns++;
	return c;
}

void sl_worker_rename_conn(struct sl_worker *w, struct sl_conn *c, uint64_t id)
{
	c->id = id;
	/*
	 * Ids begin with the time, which may have been set back since that one was given: none is
	 * given twice, and what surveys take for opened later is.
	 */
	if (w->next_id <= id)
		w->next_id = id + w->id_step;
	/* The registry is in the order of ids as far as they are new: see proxy/survey.c. */
	sl_list_remove(&c->node);
	sl_list_insert_after(&w->conns, &c->node);
}

enum sl_engine_reason sl_worker_packet_reason(const struct sl_worker *w)
{
	return (enum sl_engine_reason)__atomic_load_n(&w->packet_reason, __ATOMIC_RELAXED);
}

enum sl_engine_reason sl_worker_sockmap_reason(const struct sl_worker *w)
{
	return (enum sl_engine_reason)__atomic_load_n(&w->sockmap_reason, __ATOMIC_RELAXED);
}

static void reap(struct sl_task *task)
{
	struct sl_conn *c = SL_CONTAINER_OF(task, struct sl_conn, reap);
	struct sl_worker *w = c->worker;

	if (w->n_spare >= MAX_SPARE) {
		free(c);
		return;
	}
	sl_list_add(&w->spare, &c->node);
	w->n_spare++;
}

void sl_worker_retire_conn(struct sl_worker *w, struct sl_conn *c)
{
	sl_list_remove(&c->node);
	w->n_conns--;
	sl_loop_defer(w->loop, &c->reap, reap);
	if (w->draining && w->n_conns == 0)
		sl_loop_defer(w->loop, &w->empty_task, w->on_empty);
}

/* Scratch for the route with most targets; it never shrinks. */
static int grow_choices(struct sl_worker *w, const struct sl_conf *conf)
{
	struct sl_candidate *choices;
	size_t n = 1;

	for (size_t i = 0; i < conf->n_routes; i++)
		if (conf->routes[i].n_targets > n)
			n = conf->routes[i].n_targets;
	if (n <= w->n_choices)
		return 0;
	choices = reallocarray(w->choices, n, sizeof(*choices));
	if (!choices)
		return -ENOMEM;
	w->choices = choices;
	w->n_choices = n;
	return 0;
}

int sl_worker_use_generation(struct sl_worker *w, struct sl_generation *gen)
{
	struct sl_generation *before = w->gen;
	int r = grow_choices(w, gen->conf);

	if (r < 0)
		return r;
	w->gen = sl_generation_ref(gen);
	if (!before)
		sl_handovers_start(w->handovers);
	else
		sl_nat_flows_use_generation(w->nat_flows, before);
	sl_generation_unref(before);
	sl_tls_work_prune(w);
	return 0;
}

static void flush_access(struct sl_task *task)
{
	struct sl_worker *w = SL_CONTAINER_OF(task, struct sl_worker, access_flush);

	if (w->access_lines.len > 0 && !w->access_lines.oom)
		sl_access_add(w->access, &w->access_lines);
	sl_str_clear(&w->access_lines);
}

void sl_worker_flush_access_later(struct sl_worker *w)
{
	sl_loop_defer(w->loop, &w->access_flush, flush_access);
}
