/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "proxy/proxy.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/count.h"
#include "base/log.h"
#include "broker/client.h"
#include "proxy/access.h"
#include "proxy/agree.h"
#include "proxy/certs.h"
#include "proxy/explain.h"
#include "proxy/generation.h"
#include "proxy/health.h"
#include "proxy/limits.h"
#include "proxy/listener.h"
#include "proxy/survey.h"
#include "proxy/worker.h"

/* How long a new generation waits for the first answers of its names. */
#define RESOLVE_WAIT_MS 2000
#define RESOLVE_POLL_MS 10
/* Whether broker and records agree is looked at so often. */
#define AGREE_MS 1000
/* A look takes the broker less than that, or it does not work. */
#define DIFF_MS 15000

struct sl_proxy {
	struct sl_loop *control; /* borrowed */
	struct sl_limits *limits;
	struct sl_access *access;
	struct sl_dns *dns;
	struct sl_certs certs;
	struct sl_worker **workers;
	unsigned n_workers;
	struct sl_checks *checks;
	struct sl_deny *deny;      /* reference; NULL: no deny_file */
	struct sl_generation *gen; /* reference to the current one */
	struct sl_listen_socket **sockets;
	size_t n_sockets;
	uint32_t next_scope;
	struct round *pending; /* the generation that waits for its names; NULL: none */
	bool draining;
	bool hands_on;
	struct sl_broker_client *broker;
	bool broker_expected; /* whether there is one is not known yet */
	struct sl_broker_status status;
	struct sl_broker_sockmap_status sockmap_status; /* of this channel, */
	bool has_sockmap;                               /* if it was told */
	struct sl_broker_nat_status nat_status;         /* of this channel; zeros: not told */
	bool nat_stays;    /* what an earlier broker had put into the kernel */
	char *nat_worries; /* of this channel; NULL: none */
	sl_proxy_fn flushed;
	void *flushed_arg;
	struct sl_list diffs;             /* of struct diff_wait */
	uint64_t drift[SL_DRIFT_COUNT_];  /* of earlier brokers, and of records */
	struct sl_broker_drift drift_now; /* of this one */
	struct sl_agree agree[SL_ENGINE_COUNT_];
	struct sl_timer agree_timer;
};

/* Who waits for what a look finds. */
struct diff_wait {
	struct sl_list node;
	bool is_asked; /* else the look under way began before */
	uint64_t until_ms;
	sl_diff_fn fn;
	void *arg;
};

/* Something every worker does once; the last one reports to the control loop. */
struct round {
	struct sl_proxy *proxy;
	void (*fn)(struct sl_worker *w, struct round *r);
	sl_proxy_fn done;
	void *arg;
	struct sl_task report;
	struct sl_timer timer; /* of the control loop, before the round begins */
	uint64_t give_up_ms;
	unsigned n_waiting; /* atomic */

	struct sl_deny *deny;            /* reference; of a round that changes it */
	struct sl_generation *gen;       /* reference */
	struct sl_listen_socket **added; /* references */
	size_t n_added;
	uint64_t *removed;
	size_t n_removed;
	struct round_part {
		struct round *round;
		struct sl_worker *worker;
		struct sl_task task;
	} parts[];
};

/* ---- rounds ---- */

static void free_round(struct round *r)
{
	for (size_t i = 0; r->added && i < r->n_added; i++)
		sl_listen_socket_unref(r->added[i]);
	free(r->added);
	free(r->removed);
	sl_generation_unref(r->gen);
	sl_deny_unref(r->deny);
	free(r);
}

static void report_round(struct sl_task *task)
{
	struct round *r = SL_CONTAINER_OF(task, struct round, report);
	sl_proxy_fn done = r->done;
	void *arg = r->arg;

	free_round(r);
	if (done)
		done(arg);
}

static void part_done(struct round *r)
{
	if (__atomic_sub_fetch(&r->n_waiting, 1, __ATOMIC_ACQ_REL) == 0)
		(void)sl_loop_post(r->proxy->control, &r->report, report_round);
}

static struct round *new_round(struct sl_proxy *p, void (*fn)(struct sl_worker *, struct round *),
			       sl_proxy_fn done, void *arg)
{
	struct round *r = calloc(1, sizeof(*r) + p->n_workers * sizeof(r->parts[0]));

	if (!r)
		return NULL;
	r->proxy = p;
	r->fn = fn;
	r->done = done;
	r->arg = arg;
	r->n_waiting = p->n_workers;
	return r;
}

static void run_part(struct sl_task *task)
{
	struct round_part *part = SL_CONTAINER_OF(task, struct round_part, task);

	part->round->fn(part->worker, part->round);
}

static void start_round(struct round *r)
{
	for (unsigned i = 0; i < r->proxy->n_workers; i++) {
		r->parts[i].round = r;
		r->parts[i].worker = r->proxy->workers[i];
		if (!sl_loop_post(r->proxy->workers[i]->loop, &r->parts[i].task, run_part))
			part_done(r);
	}
}

/* ---- start and end ---- */

/* The range the kernel takes source ports from, while /proc can still be read. */
static void read_port_range(uint32_t *ret_min, uint32_t *ret_max)
{
	FILE *f = fopen("/proc/sys/net/ipv4/ip_local_port_range", "re");
	unsigned min = 0;
	unsigned max = 0;

	if (f && fscanf(f, "%u %u", &min, &max) == 2 && min > 0 && max > min && max < 65536) {
		*ret_min = min;
		*ret_max = max;
	}
	if (f)
		(void)fclose(f);
}

static int start_workers(struct sl_proxy *p, const struct sl_proxy_options *options)
{
	struct sl_worker_options wo = { .n_workers = options->n_workers,
					.first_conn_id = options->first_conn_id,
					.limits = p->limits,
					.access = p->access,
					.tickets = &p->certs.tickets,
					.no_ktls = options->no_ktls };
	int r = 0;

	read_port_range(&wo.port_min, &wo.port_max);
	p->workers = calloc(options->n_workers, sizeof(struct sl_worker *));
	if (!p->workers)
		return -ENOMEM;
	for (; p->n_workers < options->n_workers && r == 0; p->n_workers++) {
		wo.index = p->n_workers;
		r = sl_worker_new(&wo, &p->workers[p->n_workers]);
	}
	for (unsigned i = 0; i < p->n_workers && r == 0; i++)
		r = sl_worker_start(p->workers[i]);
	return r;
}

/* ---- the broker ---- */

/* Workers look at it for every connection. */
static void set_reason(struct sl_proxy *p, enum sl_engine_reason why)
{
	for (unsigned i = 0; i < p->n_workers; i++)
		__atomic_store_n(&p->workers[i]->packet_reason, (uint32_t)why, __ATOMIC_RELAXED);
}

/*
 * So that the first connection can be handed over already: no client is told of longer segments
 * than the ways to the targets carry. Those of names are learnt with their first connection.
 */
static void fit_listeners(const struct sl_proxy *p, const struct sl_conf_route *route)
{
	for (size_t t = 0; t < route->n_targets; t++) {
		const struct sl_conf_target *target = &route->targets[t];
		uint32_t mss = target->host ? 0 : sl_source_mss(&target->addr);

		for (size_t i = 0; mss && i < p->n_sockets * route->n_ports; i++) {
			struct sl_listen_socket *s = p->sockets[i / route->n_ports];
			const struct sl_port_spec *ports = &route->ports[i % route->n_ports];

			if (ports->from <= s->conf.to && ports->to >= s->conf.from)
				sl_listen_socket_clamp(s, mss);
		}
	}
}

static void fit_all(const struct sl_proxy *p)
{
	const struct sl_conf *conf = p->gen->conf;

	if (sl_worker_packet_reason(p->workers[0]) != SL_WHY_ELIGIBLE)
		return;
	for (size_t i = 0; i < conf->n_routes; i++)
		if (sl_conf_may_packet(&conf->global, &conf->routes[i]))
			fit_listeners(p, &conf->routes[i]);
}

static void on_status(void *arg, const struct sl_broker_status *status)
{
	struct sl_proxy *p = arg;
	bool was_on = p->n_workers && sl_worker_packet_reason(p->workers[0]) == SL_WHY_ELIGIBLE;

	p->status = *status;
	p->broker_expected = false;
	set_reason(p, status->is_on ? SL_WHY_ELIGIBLE : (enum sl_engine_reason)status->why);
	if (status->is_on && !was_on && p->gen && !p->pending)
		fit_all(p);
}

/* ---- the sockmap engine ---- */

static void set_sockmap_reason(struct sl_proxy *p, enum sl_engine_reason why)
{
	for (unsigned i = 0; i < p->n_workers; i++)
		__atomic_store_n(&p->workers[i]->sockmap_reason, (uint32_t)why, __ATOMIC_RELAXED);
}

static void on_sockmap_status(void *arg, const struct sl_broker_sockmap_status *status)
{
	struct sl_proxy *p = arg;

	p->sockmap_status = *status;
	p->has_sockmap = true;
	set_sockmap_reason(p, status->is_on ? SL_WHY_ELIGIBLE : (enum sl_engine_reason)status->why);
}

static void on_broker_down(void *arg)
{
	struct sl_proxy *p = arg;

	p->broker_expected = false;
	set_reason(p, SL_WHY_NO_PRIVILEGE);
	if (p->flushed) /* it may not have read that: the next one is asked */
		sl_broker_tell(p->broker, SL_BROKER_FLUSH, 0, 0);
}

static void on_flushed(void *arg)
{
	struct sl_proxy *p = arg;
	sl_proxy_fn done = p->flushed;

	p->flushed = NULL;
	if (done)
		done(p->flushed_arg);
}

/* ---- the kernel's NAT ---- */

/* The broker knows the routes of NAT, and passes over the others. */
static void on_health(void *arg, const char *route, const char *target, bool is_down)
{
	const struct sl_proxy *p = arg;
	struct sl_broker_nat_target t = { 0 };

	/* While it drains, the next process checks; without a channel, on_linked() tells. */
	if (p->draining || !sl_broker_client_is_linked(p->broker) ||
	    strlen(route) >= sizeof(t.route) || strlen(target) >= sizeof(t.target))
		return; /* no address is that long */
	memcpy(t.route, route, strlen(route));
	memcpy(t.target, target, strlen(target));
	sl_broker_nat_target(p->broker, &t, is_down);
}

static void on_linked(void *arg)
{
	struct sl_proxy *p = arg;

	sl_checks_tell_down(p->checks);
}

/* ---- what kernel and records differ in ---- */

static bool ask_diff(struct sl_proxy *p)
{
	bool is_any = false;
	struct sl_list *i;

	sl_list_for_each (i, &p->diffs) {
		SL_CONTAINER_OF(i, struct diff_wait, node)->is_asked = true;
		is_any = true;
	}
	if (is_any)
		sl_broker_diff(p->broker);
	return is_any;
}

/* Those that were asked; `lines` NULL: all, there is no broker. */
static void answer_diffs(struct sl_proxy *p, const char *lines)
{
	struct sl_list *i;
	struct sl_list *tmp;

	sl_list_for_each_safe (i, tmp, &p->diffs) {
		struct diff_wait *w = SL_CONTAINER_OF(i, struct diff_wait, node);

		if (lines && !w->is_asked)
			continue;
		sl_list_remove(&w->node);
		w->fn(w->arg, lines);
		free(w);
	}
}

static void give_up_diffs(struct sl_proxy *p)
{
	const struct diff_wait *first = SL_CONTAINER_OF(p->diffs.next, struct diff_wait, node);

	if (!sl_list_is_empty(&p->diffs) && sl_loop_now_ms(p->control) >= first->until_ms)
		answer_diffs(p, NULL);
}

static void on_diff(void *arg, const char *lines)
{
	struct sl_proxy *p = arg;

	answer_diffs(p, lines);
	(void)ask_diff(p);
}

static void on_drift(void *arg, const struct sl_broker_drift *drift)
{
	struct sl_proxy *p = arg;

	p->drift_now = *drift;
}

int sl_proxy_diff(struct sl_proxy *p, sl_diff_fn fn, void *arg)
{
	bool is_idle = sl_list_is_empty(&p->diffs);
	struct diff_wait *w;

	if (!sl_broker_client_is_linked(p->broker)) {
		fn(arg, NULL);
		return 0;
	}
	w = calloc(1, sizeof(*w));
	if (!w)
		return -ENOMEM;
	*w = (struct diff_wait){ .fn = fn,
				 .arg = arg,
				 .until_ms = sl_loop_now_ms(p->control) + DIFF_MS };
	sl_list_add(&p->diffs, &w->node);
	if (is_idle)
		(void)ask_diff(p);
	return 0;
}

static void look_at_engine(struct sl_proxy *p, const struct sl_proxy_totals *t,
			   enum sl_engine_id engine, uint64_t known, unsigned looks)
{
	uint64_t active = t->engine_active[engine];
	uint64_t ended = t->engine_total[engine] - active;
	struct sl_agree *a = &p->agree[engine];
	bool was_off = a->is_off;

	if (sl_agree_look(a, active, known, t->engine_total[engine] + ended, looks)) {
		p->drift[SL_DRIFT_RECORDS]++;
		sl_log(SL_LOG_WARN,
		       "%s: there are records of %" PRIu64
		       " connections, and the broker knows of %" PRIu64
		       "; 'sluice diff' tells more",
		       sl_engine_name(engine), active, known);
	} else if (was_off && !a->is_off) {
		sl_info("%s: records and broker agree again on %" PRIu64 " connections",
			sl_engine_name(engine), active);
	}
}

static void on_agree(struct sl_timer *timer)
{
	struct sl_proxy *p = SL_CONTAINER_OF(timer, struct sl_proxy, agree_timer);
	const struct sl_broker_status *s = &p->status;
	const struct sl_broker_nat_status *nat = &p->nat_status;
	struct sl_proxy_totals t;

	sl_timer_start(p->control, timer, sl_loop_now_ms(p->control) + AGREE_MS, on_agree);
	give_up_diffs(p);
	sl_proxy_totals(p, &t);
	/* While it drains they belong to another process, too. */
	if (!p->draining && s->is_on && sl_broker_client_is_up(p->broker))
		look_at_engine(p, &t, SL_ENGINE_PACKET, s->n_live - s->orphans, SL_AGREE_LOOKS);
	else
		sl_agree_forget(&p->agree[SL_ENGINE_PACKET]);
	if (!p->draining && nat->is_on)
		look_at_engine(p, &t, SL_ENGINE_NFTABLES, nat->n_flows,
			       SL_AGREE_LOOKS + nat->lag_ms / AGREE_MS);
	else
		sl_agree_forget(&p->agree[SL_ENGINE_NFTABLES]);
}

static void fill_drift(const struct sl_proxy *p, struct sl_kernel_view *ret)
{
	for (int i = 0; i < SL_DRIFT_COUNT_; i++)
		ret->drift[i] = p->drift[i] + p->drift_now.count[i];
	for (unsigned i = 0; i < p->n_workers; i++) {
		const struct sl_worker_counts *c = &p->workers[i]->counts;

		ret->drift[SL_DRIFT_PACKET_DROPPED] += sl_count_get(&c->lost);
		ret->drift[SL_DRIFT_PACKET_LOST] += sl_count_get(&c->missing);
	}
	for (int e = 0; e < SL_ENGINE_COUNT_; e++) {
		const struct sl_agree *a = &p->agree[e];

		if (a->is_off)
			ret->disagreement[ret->n_disagreements++] =
				(struct sl_disagreement){ (enum sl_engine_id)e, a->records,
							  a->known };
	}
}

/* ---- channels come and go ---- */

static void on_unlinked(void *arg)
{
	struct sl_proxy *p = arg;

	p->has_sockmap = false;
	set_sockmap_reason(p, SL_WHY_NO_PRIVILEGE);
	for (int i = 0; i < SL_DRIFT_COUNT_; i++)
		p->drift[i] += p->drift_now.count[i];
	p->drift_now = (struct sl_broker_drift){ 0 };
	answer_diffs(p, NULL);
	p->nat_stays |= p->nat_status.is_on;
	p->nat_status = (struct sl_broker_nat_status){ 0 };
	free(SL_TAKE_PTR(p->nat_worries));
}

static void on_nat_worries(void *arg, const char *lines)
{
	struct sl_proxy *p = arg;

	free(p->nat_worries);
	p->nat_worries = *lines ? strdup(lines) : NULL;
}

static void on_nat_status(void *arg, const struct sl_broker_nat_status *status)
{
	struct sl_proxy *p = arg;
	bool was_on = p->nat_status.is_on;

	p->nat_status = *status;
	if (status->is_on || status->text[0])
		p->nat_stays = false; /* it says how it is */
	for (unsigned i = 0; i < p->n_workers; i++)
		__atomic_store_n(&p->workers[i]->nat_lag_ms, status->lag_ms, __ATOMIC_RELAXED);
	if (status->is_on && !was_on) /* it may not have known the targets before */
		sl_checks_tell_down(p->checks);
}

static int start_broker_client(struct sl_proxy *p)
{
	static const struct sl_broker_client_fns fns = { .down = on_broker_down,
							 .status = on_status,
							 .flushed = on_flushed,
							 .linked = on_linked,
							 .unlinked = on_unlinked,
							 .nat_status = on_nat_status,
							 .sockmap_status = on_sockmap_status,
							 .nat_worries = on_nat_worries,
							 .diff = on_diff,
							 .drift = on_drift };

	return sl_broker_client_new(p->control, &fns, p, &p->broker);
}

int sl_proxy_new(const struct sl_proxy_options *options, struct sl_proxy **ret)
{
	_cleanup_(sl_proxy_freep) struct sl_proxy *p = NULL;
	int r;

	p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	p->control = options->control;
	p->broker_expected = options->expects_broker;
	p->next_scope = 1;
	sl_list_init(&p->diffs);
	sl_certs_init(&p->certs);
	r = sl_access_new(options->access_fd, &p->access);
	if (r == 0)
		r = sl_limits_new(&p->limits);
	if (r == 0)
		r = sl_dns_new(p->control, &options->dns, &p->dns);
	if (r == 0)
		r = sl_checks_new(p->control, on_health, p, &p->checks);
	if (r == 0)
		r = start_broker_client(p);
	if (r == 0)
		r = start_workers(p, options);
	if (r < 0)
		return r;
	sl_timer_start(p->control, &p->agree_timer, sl_loop_now_ms(p->control) + AGREE_MS,
		       on_agree);
	*ret = SL_TAKE_PTR(p);
	return 0;
}

void sl_proxy_free(struct sl_proxy *p)
{
	if (!p)
		return;
	if (p->pending) {
		sl_timer_stop(&p->pending->timer);
		free_round(p->pending);
	}
	for (unsigned i = 0; i < p->n_workers; i++)
		sl_worker_free(p->workers[i]);
	free(p->workers);
	sl_timer_stop(&p->agree_timer);
	answer_diffs(p, NULL);
	sl_broker_client_free(p->broker);
	free(p->nat_worries);
	for (size_t i = 0; i < p->n_sockets; i++)
		sl_listen_socket_unref(p->sockets[i]);
	free(p->sockets);
	sl_checks_free(p->checks);
	sl_certs_done(&p->certs);
	sl_deny_unref(p->deny);
	sl_generation_unwatch(p->gen);
	sl_generation_unref(p->gen);
	sl_dns_free(p->dns);
	sl_access_free(p->access);
	sl_limits_free(p->limits);
	free(p);
}

/* ---- a new generation ---- */

static void apply_to_worker(struct sl_worker *w, struct round *r)
{
	int e;

	/* Connections queued on a listener that goes belong to the generation that had it. */
	for (size_t i = 0; i < r->n_removed; i++)
		sl_listener_remove(w, r->removed[i], true);
	e = sl_worker_use_generation(w, r->gen);
	if (e < 0)
		(void)sl_err(e, "worker %u: cannot use the new generation, keeping the old one",
			     w->index);
	for (size_t i = 0; i < r->n_added; i++) {
		e = sl_listener_add(w, r->added[i]);
		if (e < 0)
			(void)sl_err(e,
				     "worker %u: cannot watch the listener of port %u, others do",
				     w->index, r->added[i]->conf.from);
	}
	part_done(r);
}

static bool is_resolved(const struct sl_generation *g)
{
	for (size_t i = 0; i < g->conf->n_routes; i++)
		for (size_t t = 0; t < g->conf->routes[i].n_targets; t++)
			if (!sl_target_has_answer(g->routes[i].targets[t]))
				return false;
	return true;
}

/* What comes next must find it on its way: workers take rounds in the order they begin. */
static void start_pending(struct sl_proxy *p)
{
	struct round *r = p->pending;

	if (!r)
		return;
	p->pending = NULL;
	sl_timer_stop(&r->timer);
	fit_all(p);
	start_round(r);
}

static void wait_for_names(struct sl_timer *timer)
{
	struct round *r = SL_CONTAINER_OF(timer, struct round, timer);
	uint64_t now_ms = sl_loop_now_ms(r->proxy->control);

	if (now_ms >= r->give_up_ms || (is_resolved(r->gen) && !r->proxy->broker_expected))
		start_pending(r->proxy);
	else
		sl_timer_start(r->proxy->control, timer, now_ms + RESOLVE_POLL_MS, wait_for_names);
}

static void forget_sockets(struct sl_proxy *p, const uint64_t *ids, size_t n)
{
	size_t kept = 0;

	for (size_t i = 0; i < p->n_sockets; i++) {
		bool goes = false;

		for (size_t k = 0; k < n; k++)
			goes = goes || p->sockets[i]->conf.id == ids[k];
		if (goes)
			sl_listen_socket_unref(p->sockets[i]);
		else
			p->sockets[kept++] = p->sockets[i];
	}
	p->n_sockets = kept;
}

/* Every descriptor of `added` has an owner afterwards, or is closed. */
static int add_sockets(struct sl_proxy *p, struct round *r, const struct sl_proxy_listener *added,
		       size_t n)
{
	struct sl_listen_socket **all =
		reallocarray(p->sockets, p->n_sockets + n + 1, sizeof(struct sl_listen_socket *));

	if (all)
		p->sockets = all;
	r->added = calloc(n + 1, sizeof(struct sl_listen_socket *));
	for (size_t i = 0; i < n; i++) {
		struct sl_listen_socket *s = NULL;

		if (!all || !r->added || sl_listen_socket_new(&added[i], &s) < 0) {
			(void)close(added[i].fd);
			continue;
		}
		p->sockets[p->n_sockets++] = s;
		r->added[r->n_added++] = sl_listen_socket_ref(s);
	}
	return r->n_added == n ? 0 : -ENOMEM;
}

static int prepare_round(struct sl_proxy *p, struct round *r, struct sl_generation *g,
			 const struct sl_proxy_listener *added, size_t n_added,
			 const uint64_t *removed, size_t n_removed)
{
	int e = add_sockets(p, r, added, n_added);

	if (e < 0)
		return e;
	r->removed = calloc(n_removed + 1, sizeof(*removed));
	if (!r->removed)
		return -ENOMEM;
	if (n_removed)
		memcpy(r->removed, removed, n_removed * sizeof(*removed));
	r->n_removed = n_removed;
	r->gen = sl_generation_ref(g);
	e = sl_limits_configure(p->limits, &g->conf->global);
	if (e < 0)
		return e;
	e = sl_generation_watch(g, p->gen, p->dns);
	if (e < 0)
		return e;
	e = sl_checks_use(p->checks, g);
	if (e < 0)
		(void)sl_err(e, "cannot check the new generation's targets, checking the old ones");
	return 0;
}

static void close_all(const struct sl_proxy_listener *added, size_t n)
{
	for (size_t i = 0; i < n; i++)
		(void)close(added[i].fd);
}

int sl_proxy_apply(struct sl_proxy *p, struct sl_conf *conf, uint64_t generation,
		   const struct sl_proxy_listener *added, size_t n_added, const uint64_t *removed,
		   size_t n_removed, sl_proxy_fn done, void *arg)
{
	_cleanup_(sl_generation_unrefp) struct sl_generation *g = NULL;
	struct round *r;
	bool changed;
	int e;

	if (p->draining) { /* for good: see sl_proxy_drain() */
		close_all(added, n_added);
		sl_conf_free(conf);
		return -ECANCELED;
	}
	start_pending(p);
	e = sl_generation_new(conf, generation, p->n_workers, p->gen, &p->next_scope, &g);
	if (e == 0)
		e = sl_generation_secure(g, p->gen, &p->certs.materials, &changed);
	r = e < 0 ? NULL : new_round(p, apply_to_worker, done, arg);
	if (!r) {
		close_all(added, n_added);
		return e < 0 ? e : -ENOMEM;
	}
	e = prepare_round(p, r, g, added, n_added, removed, n_removed);
	if (e < 0) {
		for (size_t i = 0; i < r->n_added; i++)
			sl_listen_socket_unref(p->sockets[--p->n_sockets]);
		free_round(r);
		return e;
	}
	forget_sockets(p, removed, n_removed);
	sl_generation_unref(p->gen);
	p->gen = SL_TAKE_PTR(g);
	r->give_up_ms = sl_loop_now_ms(p->control) + RESOLVE_WAIT_MS;
	p->pending = r;
	wait_for_names(&r->timer);
	return 0;
}

/* ---- certificates ---- */

static void prune_worker(struct sl_worker *w, struct round *r)
{
	sl_tls_work_prune(w);
	part_done(r);
}

int sl_proxy_set_materials(struct sl_proxy *p, struct sl_materials *m)
{
	struct round *r = NULL;
	bool changed = false;
	int e = 0;

	sl_certs_set_materials(&p->certs, m);
	if (p->gen)
		e = sl_generation_secure(p->gen, p->gen, &p->certs.materials, &changed);
	if (changed)
		r = new_round(p, prune_worker, NULL, NULL);
	if (r)
		start_round(r);
	return e;
}

void sl_proxy_set_tickets(struct sl_proxy *p, struct sl_tls_tickets *tickets)
{
	sl_certs_set_tickets(&p->certs, tickets);
}

void sl_proxy_each_cert(struct sl_proxy *p, sl_cert_fn fn, void *arg)
{
	if (p->gen)
		sl_certs_each(p->gen, fn, arg);
}

/* ---- the deny_file ---- */

static void deny_in_worker(struct sl_worker *w, struct round *r)
{
	sl_deny_unref(w->deny);
	w->deny = sl_deny_ref(r->deny);
	part_done(r);
}

int sl_proxy_set_deny_file(struct sl_proxy *p, struct sl_ip_set *set, sl_proxy_fn done, void *arg)
{
	struct sl_deny *d = NULL;
	struct round *r;
	int e = sl_deny_new(set, &d);

	if (e < 0)
		return e;
	r = new_round(p, deny_in_worker, done, arg);
	if (!r) {
		sl_deny_unref(d);
		return -ENOMEM;
	}
	r->deny = sl_deny_ref(d);
	sl_deny_unref(p->deny);
	p->deny = d;
	start_round(r);
	return 0;
}

void sl_proxy_set_access_fd(struct sl_proxy *p, int fd)
{
	sl_access_set_fd(p->access, fd);
}

int sl_proxy_set_dns_files(struct sl_proxy *p, const struct sl_dns_files *files)
{
	return sl_dns_set_files(p->dns, files);
}

/* ---- channels to the broker ---- */

struct connecting {
	struct sl_task task;
	struct sl_worker *worker;
	int fd;
};

static void connect_worker(struct sl_task *task)
{
	struct connecting *t = SL_CONTAINER_OF(task, struct connecting, task);

	sl_handovers_connect(t->worker->handovers, t->fd);
	free(t);
}

void sl_proxy_connect_broker(struct sl_proxy *p, unsigned worker, int fd)
{
	struct connecting *t;

	if (worker == p->n_workers) {
		sl_broker_client_connect(p->broker, fd);
		return;
	}
	t = worker < p->n_workers ? calloc(1, sizeof(*t)) : NULL;
	if (!t) {
		(void)close(fd);
		return;
	}
	*t = (struct connecting){ .worker = p->workers[worker], .fd = fd };
	if (!sl_loop_post(t->worker->loop, &t->task, connect_worker)) {
		(void)close(fd);
		free(t);
	}
}

void sl_proxy_no_broker(struct sl_proxy *p)
{
	p->broker_expected = false;
}

int sl_proxy_flush(struct sl_proxy *p, sl_proxy_fn done, void *arg)
{
	if (p->flushed || !sl_broker_client_is_up(p->broker))
		return -EAGAIN;
	p->flushed = done;
	p->flushed_arg = arg;
	sl_broker_tell(p->broker, SL_BROKER_FLUSH, 0, 0);
	return 0;
}

void sl_proxy_kernel(const struct sl_proxy *p, struct sl_kernel_view *ret)
{
	*ret = (struct sl_kernel_view){
		.has_broker = sl_broker_client_is_up(p->broker),
		.status = p->status,
		.is_linked = sl_broker_client_is_linked(p->broker),
		.sockmap = p->sockmap_status,
		.has_sockmap = p->has_sockmap,
		.sockmap_maps = sl_broker_client_sockmap(p->broker),
		.sockmap_backlog = p->gen ? p->gen->conf->global.sockmap.backlog : 0,
		.nat = p->nat_status,
		.nat_stays = p->nat_stays,
		.nat_worries = p->nat_worries,
		.off = p->n_workers ? sl_worker_packet_reason(p->workers[0]) : SL_WHY_NO_PRIVILEGE,
		.flows_fd = sl_broker_client_flows_fd(p->broker),
		.counters_fd = sl_broker_client_counters_fd(p->broker),
		.routes_fd = sl_broker_client_routes_fd(p->broker)
	};
	fill_drift(p, ret);
	/* Routes are the proxy's business: what it could not take over is known here alone. */
	for (unsigned i = 0; i < p->n_workers; i++)
		ret->status.dropped += (uint32_t)sl_count_get(&p->workers[i]->counts.lost);
}

/* ---- drain ---- */

static void drained(struct sl_task *task)
{
	struct sl_worker *w = SL_CONTAINER_OF(task, struct sl_worker, empty_task);

	w->draining = false; /* reports once */
	part_done(w->on_empty_arg);
}

static void drain_worker(struct sl_worker *w, struct round *r)
{
	uint64_t now_ms = sl_loop_now_ms(w->loop);
	struct sl_list *pos;
	struct sl_list *tmp;

	w->hands_on = r->proxy->hands_on;
	sl_nat_flows_drain(w->nat_flows);
	sl_listener_remove_all(w, true);
	sl_list_for_each_safe (pos, tmp, &w->conns) {
		struct sl_conn *c = SL_CONTAINER_OF(pos, struct sl_conn, node);

		if (!c->is_cursor)
			sl_conn_drain(c, now_ms);
	}
	w->draining = true;
	w->on_empty = drained;
	w->on_empty_arg = r;
	if (w->n_conns == 0)
		sl_loop_defer(w->loop, &w->empty_task, drained);
}

void sl_proxy_drain(struct sl_proxy *p, bool hands_on, sl_proxy_fn done, void *arg)
{
	struct round *r;

	if (p->draining)
		return;
	r = new_round(p, drain_worker, done, arg);
	if (!r) {
		(void)sl_err(-ENOMEM, "cannot drain, stopping at once");
		done(arg);
		return;
	}
	start_pending(p);
	p->draining = true;
	p->hands_on = hands_on;
	start_round(r);
	/* Each worker still has its own reference; the last one closes the socket. */
	for (size_t i = 0; i < p->n_sockets; i++)
		sl_listen_socket_unref(p->sockets[i]);
	p->n_sockets = 0;
}

bool sl_proxy_is_draining(const struct sl_proxy *p)
{
	return p->draining;
}

static void stop_worker(struct sl_worker *w, struct round *r)
{
	struct sl_list *pos;
	struct sl_list *tmp;

	w->in_haste = true;
	sl_list_for_each_safe (pos, tmp, &w->conns) {
		struct sl_conn *c = SL_CONTAINER_OF(pos, struct sl_conn, node);

		if (!c->is_cursor)
			sl_conn_end(c, SL_REASON_SHUTDOWN, false);
	}
	part_done(r);
}

void sl_proxy_stop_now(struct sl_proxy *p)
{
	struct round *r = new_round(p, stop_worker, NULL, NULL);

	if (r)
		start_round(r);
}

/* ---- views ---- */

int sl_proxy_survey(struct sl_proxy *p, const struct sl_conn_filter *filter, sl_survey_fn fn,
		    void *arg)
{
	return sl_survey_start(p->control, p->workers, p->n_workers, filter, fn, arg);
}

static void add_all(uint64_t *to, const uint64_t *from, size_t n)
{
	for (size_t i = 0; i < n; i++)
		to[i] += sl_count_get(&from[i]);
}

static void add_tls(struct sl_tls_totals *t, const struct sl_tls_work *work)
{
	for (int s = 0; s < SL_SIDE_COUNT_; s++)
		for (int v = 0; v < SL_TLS_COUNT_VERSIONS_; v++)
			for (int resumed = 0; resumed < 2; resumed++)
				add_all(t->handshakes[s][v][resumed],
					work->handshakes[s][v][resumed], SL_TLS_COUNT_RESULTS_);
	t->handshaking += sl_count_get(&work->n_open);
	t->waiting += sl_count_get(&work->n_waiting);
}

static void add_worker(struct sl_proxy_totals *t, const struct sl_worker *w)
{
	const struct sl_worker_counts *c = &w->counts;

	t->accepted += sl_count_get(&c->accepted);
	t->rejected += sl_count_get(&c->rejected);
	t->accept_errors += sl_count_get(&c->accept_errors);
	t->fsm_bugs += sl_count_get(&c->fsm_bugs);
	for (size_t e = 0; e < SL_ENGINE_COUNT_; e++)
		add_all(t->handover[e], c->handover[e], SL_WHY_COUNT_);
	sl_hist_merge(&t->handover_time, &c->handover_time);
	add_all(t->engine_active, c->engine_active, SL_ENGINE_COUNT_);
	add_all(t->engine_total, c->engine_total, SL_ENGINE_COUNT_);
	add_all(t->no_route_rejected, c->no_route_rejected, SL_REASON_COUNT_);
	add_all(t->no_route_ended, c->no_route_ended, SL_REASON_COUNT_);
	for (int e = 0; e < SL_ENGINE_COUNT_; e++)
		add_all(t->engine_why[e], c->engine_why[e], SL_WHY_COUNT_);
	for (int from = 0; from < SL_ENGINE_COUNT_; from++)
		for (int to = 0; to < SL_ENGINE_COUNT_; to++)
			add_all(t->engine_moves[from][to], c->engine_moves[from][to],
				SL_WHY_COUNT_);
	for (int s = 0; s < SL_SIDE_COUNT_; s++)
		add_all(t->ended[s], c->ended[s], SL_REASON_COUNT_);
	add_tls(&t->tls, &w->tls);
	sl_hist_merge(&t->connect, &c->connect);
	sl_hist_merge(&t->duration, &c->duration);
	for (int s = 0; s < SL_CONN_STATE_COUNT_; s++)
		sl_hist_merge(&t->in_state[s], &c->in_state[s]);
}

void sl_proxy_totals(const struct sl_proxy *p, struct sl_proxy_totals *ret)
{
	*ret = (struct sl_proxy_totals){ .active = sl_limits_active(p->limits),
					 .overloaded = sl_limits_is_overloaded(p->limits),
					 .access_dropped = sl_access_dropped(p->access),
					 .dns = sl_dns_stats(p->dns) };
	for (unsigned i = 0; i < p->n_workers; i++)
		add_worker(ret, p->workers[i]);
}

const char *sl_target_state_name(enum sl_target_state state)
{
	switch (state) {
	case SL_TARGET_UP:
		return "up";
	case SL_TARGET_UNRESOLVED:
		return "unresolved";
	case SL_TARGET_DOWN:
		return "down";
	case SL_TARGET_DRAINED:
		return "drained";
	case SL_TARGET_FAILING:
		return "failing";
	}
	return "";
}

static enum sl_target_state state_of(const struct sl_target *t, const struct sl_conf_target *conf,
				     size_t n_addrs, uint64_t now_ms)
{
	if (conf->drained)
		return SL_TARGET_DRAINED;
	if (n_addrs == 0)
		return SL_TARGET_UNRESOLVED;
	if (__atomic_load_n(&t->is_down, __ATOMIC_RELAXED))
		return SL_TARGET_DOWN;
	if (__atomic_load_n(&t->held_until_ms, __ATOMIC_RELAXED) > now_ms)
		return SL_TARGET_FAILING;
	return SL_TARGET_UP;
}

static void view_target(struct sl_target_view *v, struct sl_target *t,
			const struct sl_conf_target *conf, uint64_t now_ms)
{
	v->address = t->address;
	v->active = __atomic_load_n(&t->active, __ATOMIC_RELAXED);
	v->total = __atomic_load_n(&t->n_total, __ATOMIC_RELAXED);
	v->failed = __atomic_load_n(&t->n_failed, __ATOMIC_RELAXED);
	v->n_addrs = sl_target_addrs(t, v->addrs);
	v->state = state_of(t, conf, v->n_addrs, now_ms);
	v->weight = conf->weight;
	v->is_backup = conf->backup;
	v->checks_ok = __atomic_load_n(&t->n_checks_ok, __ATOMIC_RELAXED);
	v->checks_failed = __atomic_load_n(&t->n_checks_failed, __ATOMIC_RELAXED);
	memcpy(v->check_error, t->check_error, sizeof(v->check_error));
}

static void view_counts(struct sl_route_view *v, const struct sl_route_counts *c)
{
	v->total -= sl_count_get(&c->moved);
	add_all(v->engine_active, c->active, SL_ENGINE_COUNT_);
	add_all(v->engine_total, c->total, SL_ENGINE_COUNT_);
	add_all(v->engine_bytes_up, c->bytes_up, SL_ENGINE_COUNT_);
	add_all(v->engine_bytes_down, c->bytes_down, SL_ENGINE_COUNT_);
	add_all(v->rejected, c->rejected, SL_REASON_COUNT_);
	for (int e = 0; e < SL_ENGINE_COUNT_; e++) {
		const struct sl_ended *ended = __atomic_load_n(&c->ended[e], __ATOMIC_ACQUIRE);

		for (int s = 0; ended && s < SL_SIDE_COUNT_; s++)
			add_all(v->ended[e][s], ended->n[s], SL_REASON_COUNT_);
	}
}

static void view_route(const struct sl_gen_route *gr, struct sl_target_view *targets,
		       uint64_t now_ms, sl_route_fn fn, void *arg)
{
	struct sl_route_view v = { .conf = gr->conf,
				   .targets = targets,
				   .n_targets = gr->conf->n_targets,
				   .active =
					   __atomic_load_n(&gr->route->active, __ATOMIC_RELAXED) };

	for (unsigned i = 0; i < gr->route->n_workers; i++)
		view_counts(&v, &gr->route->counts[i]);
	for (int e = 0; e < SL_ENGINE_COUNT_; e++) {
		v.total += v.engine_total[e];
		v.bytes_up += v.engine_bytes_up[e];
		v.bytes_down += v.engine_bytes_down[e];
	}
	for (size_t i = 0; i < v.n_targets; i++)
		view_target(&targets[i], gr->targets[i], &gr->conf->targets[i], now_ms);
	fn(arg, &v);
}

void sl_proxy_each_route(struct sl_proxy *p, sl_route_fn fn, void *arg)
{
	for (size_t i = 0; p->gen && i < p->gen->conf->n_routes; i++) {
		const struct sl_gen_route *gr = &p->gen->routes[i];
		_cleanup_free_ struct sl_target_view *targets =
			calloc(gr->conf->n_targets, sizeof(*targets));

		if (!targets)
			return;
		view_route(gr, targets, sl_loop_now_ms(p->control), fn, arg);
	}
}

const struct sl_conf *sl_proxy_conf(const struct sl_proxy *p)
{
	return p->gen ? p->gen->conf : NULL;
}

uint64_t sl_proxy_generation(const struct sl_proxy *p)
{
	return p->gen ? p->gen->number : 0;
}

static bool is_listening(const struct sl_proxy *p, const struct sl_addr *local, uint16_t port)
{
	for (size_t i = 0; i < p->n_sockets; i++) {
		const struct sl_proxy_listener *l = &p->sockets[i]->conf;

		if (port >= l->from && port <= l->to &&
		    (sl_addr_family(&l->ip) == AF_UNSPEC || sl_addr_is_any(&l->ip) ||
		     sl_addr_family(local) == AF_UNSPEC || sl_addr_same_ip(&l->ip, local)))
			return true;
	}
	return false;
}

/* Why no connection can be given to the engine; ELIGIBLE: they can. */
static enum sl_engine_reason sockmap_reason(const struct sl_proxy *p)
{
	return p->n_workers ? sl_worker_sockmap_reason(p->workers[0]) : SL_WHY_NO_PRIVILEGE;
}

static void choose_engine(const struct sl_proxy *p, struct sl_explanation *x)
{
	struct sl_kernel_view kernel;

	sl_proxy_kernel(p, &kernel);
	sl_explain_engine(p->gen, kernel.off, sockmap_reason(p), x);
}

int sl_proxy_explain(struct sl_proxy *p, const struct sl_question *q, struct sl_explanation *ret)
{
	struct sl_explanation x;
	int r = -EAGAIN;

	if (p->gen)
		r = sl_explain(p->gen, p->deny, q, sl_loop_now_ms(p->control), &x);
	if (r < 0)
		return r;
	choose_engine(p, &x);
	x.is_listening = x.engine == SL_ENGINE_NFTABLES
				 ? p->nat_status.is_on
				 : !q->is_udp && is_listening(p, &q->local, q->port);
	*ret = x;
	return 0;
}
