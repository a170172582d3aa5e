/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "proxy/nat.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/count.h"
#include "base/list.h"
#include "base/log.h"
#include "base/siphash.h"
#include "proxy/conn.h"
#include "proxy/engine.h"
#include "proxy/handover.h"
#include "proxy/worker.h"

#define FIRST_BUCKETS 256
/* A broker takes up a configuration a moment before the workers do, which wait for names, too. */
#define WAIT_MS 5000
/* When a flow ended is told by a timeout in whole seconds. */
#define END_NS UINT64_C(1500000000)
/* A kill that nobody followed is said again. */
#define KILL_AGAIN_MS 5000
/* Of those in doubt, ended in one turn. */
#define DOUBT_SLICE 512

/* By so much the clock may have been set back between the begin of a flow and when it was read. */
#define CLOCK_SLACK_NS UINT64_C(10000000)

/* What stays the same as long as the flow lives, whatever broker tells of it. */
struct name {
	uint8_t ip[3][16]; /* client, front, backend */
	uint16_t port[3];
	uint8_t is_udp;
	uint8_t is_v6;
};
_Static_assert(sizeof(struct name) == 56, "without holes: it is hashed and compared as bytes");

struct sl_nat_record {
	struct sl_list in_bucket;
	struct sl_list node;    /* in `told` or `doubted` */
	struct sl_list waiting; /* in `waiting` or `strays` */
	struct sl_nat_flows *owner;
	struct name name;
	uint64_t hash;
	uint64_t serial;
	uint64_t start_ns;
	struct sl_conn *conn;              /* NULL: killed, or waiting */
	struct sl_broker_nat_flow *latest; /* owned; while it waits */
	uint64_t since_ms;                 /* it waits, or was killed */
	bool is_in_doubt;                  /* the broker that told of it is no more */
	bool is_rough;                     /* start_ns */
	bool is_over;
	bool is_stray; /* its route has not come */
};

struct sl_nat_flows {
	struct sl_worker *worker;
	struct sl_generation *before; /* reference to the one before the worker's; or NULL */
	struct sl_list *bucket;
	size_t n_buckets; /* a power of two */
	size_t n;
	uint8_t key[16];
	struct sl_list told;
	struct sl_list doubted;
	struct sl_list waiting; /* for a route; oldest first */
	struct sl_list strays;  /* in vain */
	struct sl_timer doubt_timer;
	struct sl_timer wait_timer;
	uint64_t since_ns;  /* realtime: flows begun later have been counted by nobody */
	uint64_t left_ns;   /* realtime: the broker before went; 0: there was none */
	uint64_t linked_ms; /* since when all there is to know has come */
	uint64_t drain_ms;  /* 0: not draining */
	bool go_on;
	bool is_stopped; /* nothing more is told */
	struct sl_log_limit log;
};

static uint64_t now_ms(const struct sl_nat_flows *n)
{
	return sl_loop_now_ms(n->worker->loop);
}

/* As the loop counts; what the clock says is to come is now. */
static uint64_t loop_us(const struct sl_nat_flows *n, uint64_t at_ns)
{
	uint64_t now_us = sl_loop_now_us(n->worker->loop);
	uint64_t real = sl_clock_real_ns();
	uint64_t ago_us = real > at_ns ? (real - at_ns) / 1000 : 0;

	return ago_us < now_us ? now_us - ago_us : 1;
}

/* ---- by name ---- */

static void name_of(const struct sl_broker_nat_flow *f, struct name *ret)
{
	const struct sl_addr *const addrs[] = { &f->client, &f->front, &f->backend };

	memset(ret, 0, sizeof(*ret));
	for (size_t i = 0; i < SL_ARRAY_LEN(addrs); i++) {
		(void)sl_addr_ip_bytes(addrs[i], ret->ip[i]);
		ret->port[i] = sl_addr_port(addrs[i]);
	}
	ret->is_udp = f->is_udp;
	ret->is_v6 = sl_addr_family(&f->client) == AF_INET6;
}

static struct sl_list *bucket_of(const struct sl_nat_flows *n, uint64_t hash)
{
	return &n->bucket[hash & (n->n_buckets - 1)];
}

static struct sl_list *new_buckets(size_t n)
{
	struct sl_list *b = calloc(n, sizeof(*b));

	for (size_t i = 0; b && i < n; i++)
		sl_list_init(&b[i]);
	return b;
}

/* Without memory for more buckets they fill up, no more. */
static void grow(struct sl_nat_flows *n)
{
	struct sl_list *before = n->bucket;
	size_t n_before = n->n_buckets;
	struct sl_list *fresh = new_buckets(2 * n_before);

	if (!fresh)
		return;
	n->bucket = fresh;
	n->n_buckets = 2 * n_before;
	for (size_t i = 0; i < n_before; i++)
		while (!sl_list_is_empty(&before[i])) {
			struct sl_nat_record *r =
				SL_CONTAINER_OF(before[i].next, struct sl_nat_record, in_bucket);

			sl_list_remove(&r->in_bucket);
			sl_list_add(bucket_of(n, r->hash), &r->in_bucket);
		}
	free(before);
}

/*
 * The same names may be in use again, so they alone say little. A rough begin is when the broker
 * before heard of the flow, however late, so the flow began before that; and a broker that does not
 * know better either cannot have heard of its begin.
 */
static bool is_of(const struct sl_nat_record *r, uint64_t serial,
		  const struct sl_broker_nat_flow *f)
{
	if (r->serial == serial)
		return true;
	if (!r->is_in_doubt)
		return false;
	if (r->start_ns == f->start_ns)
		return true;
	if (f->is_rough)
		return r->is_rough && f->is_adopted;
	return r->is_rough && f->start_ns < r->start_ns + CLOCK_SLACK_NS;
}

static struct sl_nat_record *find(const struct sl_nat_flows *n, const struct name *name,
				  uint64_t hash, uint64_t serial,
				  const struct sl_broker_nat_flow *f)
{
	struct sl_list *pos;

	sl_list_for_each (pos, bucket_of(n, hash)) {
		struct sl_nat_record *r = SL_CONTAINER_OF(pos, struct sl_nat_record, in_bucket);

		if (r->hash == hash && memcmp(&r->name, name, sizeof(*name)) == 0 &&
		    is_of(r, serial, f))
			return r;
	}
	return NULL;
}

static struct sl_nat_record *add(struct sl_nat_flows *n, const struct name *name, uint64_t hash)
{
	struct sl_nat_record *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	if (n->n >= 2 * n->n_buckets)
		grow(n);
	r->owner = n;
	r->name = *name;
	r->hash = hash;
	sl_list_add(bucket_of(n, hash), &r->in_bucket);
	sl_list_init(&r->node);
	sl_list_init(&r->waiting);
	n->n++;
	return r;
}

static void forget(struct sl_nat_record *r)
{
	r->owner->n--;
	sl_list_remove(&r->in_bucket);
	sl_list_remove(&r->node);
	sl_list_remove(&r->waiting);
	free(r->latest);
	free(r);
}

/* ---- what a record says ---- */

static struct sl_broker_client *client_of(const struct sl_nat_flows *n)
{
	return sl_handovers_client(n->worker->handovers);
}

/* Of one begun earlier, another process may have counted what it knew. */
static bool is_ours_alone(const struct sl_nat_flows *n, const struct sl_broker_nat_flow *f)
{
	return !f->is_adopted || f->start_ns >= n->since_ns;
}

static void add_bytes(struct sl_conn *c, enum sl_side from, uint64_t bytes)
{
	struct sl_route_counts *counts = &c->route->route->counts[c->worker->index];
	uint64_t n;

	if (bytes <= c->flow[from].bytes)
		return;
	n = bytes - c->flow[from].bytes;
	c->flow[from].bytes = bytes;
	c->active_ms = sl_loop_now_ms(c->worker->loop);
	c->warned = false;
	c->got_data = true;
	sl_count_add(from == SL_UP ? &counts->bytes_up[SL_ENGINE_NFTABLES]
				   : &counts->bytes_down[SL_ENGINE_NFTABLES],
		     n);
}

/* A target without a port of its own has that of the listener: 1:1. */
static bool leads_to(const struct sl_conf_target *t, const struct sl_broker_nat_flow *f)
{
	uint16_t port = t->port ? t->port : sl_addr_port(&f->front);

	return sl_addr_same_ip(&t->addr, &f->backend) && sl_addr_port(&f->backend) == port;
}

static void find_target(struct sl_conn *c, const struct sl_broker_nat_flow *f)
{
	for (size_t i = 0; i < c->route->conf->n_targets; i++) {
		if (!leads_to(&c->route->conf->targets[i], f))
			continue;
		c->target = sl_target_ref(c->route->targets[i]);
		__atomic_fetch_add(&c->target->active, 1, __ATOMIC_RELAXED);
		c->target_active = true;
		return;
	}
}

static struct sl_conn *new_conn(struct sl_nat_flows *n, struct sl_generation *gen,
				const struct sl_broker_nat_flow *f)
{
	struct sl_conn *c = sl_worker_new_conn(n->worker);

	if (!c)
		return NULL;
	c->gen = sl_generation_ref(gen);
	c->client = f->client;
	c->local = f->front;
	c->port = sl_addr_port(&f->front);
	c->backend = f->backend;
	c->accepted_us = loop_us(n, f->start_ns);
	c->entered_us = sl_loop_now_us(n->worker->loop);
	c->active_ms = now_ms(n);
	return c;
}

static void begin(struct sl_nat_record *r, struct sl_conn *c, const struct sl_broker_nat_flow *f)
{
	struct sl_nat_flows *n = r->owner;

	sl_limits_count(n->worker->limits, c->route->route);
	c->counted = true;
	c->counted_route = true;
	find_target(c, f);
	if (is_ours_alone(n, f)) {
		sl_count_add(&n->worker->counts.accepted, 1);
		if (c->target)
			__atomic_fetch_add(&c->target->n_total, 1, __ATOMIC_RELAXED);
	} else {
		for (int i = 0; i < SL_SIDE_COUNT_; i++)
			c->flow[i].bytes = f->bytes[i];
	}
	r->conn = c;
	c->nat = r;
	sl_conn_use_engine(c, &sl_engine_nat, SL_WHY_CONFIGURED);
	sl_conn_adopted(c);
	c->entered_us = c->accepted_us;
}

/* A side that never answered is the target's failure. */
static bool is_unanswered(const struct sl_broker_nat_flow *f)
{
	return !f->is_udp &&
	       (f->reason == SL_REASON_CONNECTION_TIMEOUT || f->reason == SL_REASON_ECONNREFUSED);
}

static void set_end(struct sl_conn *c, const struct sl_nat_flows *n, uint64_t end_ns)
{
	uint64_t end_us = loop_us(n, end_ns);

	c->ended_us = end_us > c->accepted_us ? end_us : c->accepted_us;
}

/* The last call about the connection. */
static void end(struct sl_nat_record *r, const struct sl_broker_nat_flow *f)
{
	struct sl_conn *c = r->conn;

	r->is_over = true;
	set_end(c, r->owner, f->end_ns);
	if (c->target && is_unanswered(f))
		__atomic_fetch_add(&c->target->n_failed, 1, __ATOMIC_RELAXED);
	sl_conn_end(c, f->reason ? (enum sl_reason)f->reason : SL_REASON_NFTABLES_CLOSED, false);
}

/*
 * Until the kernel said when it began, that was the time it was heard of. The difference is of one
 * clock, however it was set since; of two that are rough the first one is better.
 */
static void correct_begin(const struct sl_nat_record *r, const struct sl_broker_nat_flow *f)
{
	struct sl_conn *c = r->conn;
	uint64_t earlier_us = (r->start_ns - f->start_ns) / 1000;

	if (!c || !r->is_rough || f->is_rough || f->start_ns >= r->start_ns)
		return;
	c->accepted_us = earlier_us < c->accepted_us ? c->accepted_us - earlier_us : 1;
}

static void update(struct sl_nat_record *r, const struct sl_broker_nat_flow *f)
{
	for (int i = 0; i < SL_SIDE_COUNT_; i++)
		add_bytes(r->conn, (enum sl_side)i, f->bytes[i]);
	if (f->is_over)
		end(r, f);
}

/* ---- flows of routes that are not known here ---- */

/* Over, and never had a route: neither limits nor targets nor timeouts of it are known. */
static void lose(struct sl_nat_flows *n, const struct sl_broker_nat_flow *f)
{
	struct sl_conn *c = new_conn(n, n->worker->gen, f);

	if (!c)
		return;
	c->engine_id = SL_ENGINE_NFTABLES;
	c->engine_reason = SL_WHY_CONFIGURED;
	set_end(c, n, f->end_ns);
	for (int i = 0; i < SL_SIDE_COUNT_; i++) {
		c->flow[i].bytes = f->bytes[i];
		c->side[i].reason = (enum sl_reason)f->reason;
	}
	sl_conn_lost(c, f->route);
}

static void say_unknown(struct sl_nat_flows *n, const struct sl_broker_nat_flow *f)
{
	if (sl_log_allowed(&n->log, now_ms(n), 1, 60000))
		sl_log(SL_LOG_WARN,
		       "nftables: flows of the route '%s', which the configuration has no more, go "
		       "on in the kernel; they are in no list until their access lines",
		       f->route);
}

/* Those that are over: this process may be, too, before their time has come. */
static void lose_waiting(struct sl_nat_flows *n)
{
	struct sl_list *pos;
	struct sl_list *tmp;

	sl_list_for_each_safe (pos, tmp, &n->waiting) {
		struct sl_nat_record *r = SL_CONTAINER_OF(pos, struct sl_nat_record, waiting);

		if (!r->is_over)
			continue;
		lose(n, r->latest);
		forget(r);
	}
}

static void on_waited(struct sl_timer *timer)
{
	struct sl_nat_flows *n = SL_CONTAINER_OF(timer, struct sl_nat_flows, wait_timer);
	uint64_t now = now_ms(n);
	struct sl_list *pos;
	struct sl_list *tmp;

	sl_list_for_each_safe (pos, tmp, &n->waiting) {
		struct sl_nat_record *r = SL_CONTAINER_OF(pos, struct sl_nat_record, waiting);

		if (now < r->since_ms + WAIT_MS) {
			sl_timer_start(n->worker->loop, timer, r->since_ms + WAIT_MS, on_waited);
			return;
		}
		if (r->is_over) {
			lose(n, r->latest);
			forget(r);
		} else {
			say_unknown(n, r->latest);
			r->is_stray = true; /* until it is over, or its route comes */
			sl_list_remove(&r->waiting);
			sl_list_add(&n->strays, &r->waiting);
		}
	}
}

static void wait_for_route(struct sl_nat_record *r, const struct sl_broker_nat_flow *f)
{
	struct sl_nat_flows *n = r->owner;
	bool is_first = !r->latest;

	if (is_first)
		r->latest = malloc(sizeof(*r->latest));
	if (!r->latest) {
		forget(r);
		return;
	}
	*r->latest = *f;
	r->is_over = f->is_over;
	if (is_first) {
		r->since_ms = now_ms(n);
		sl_list_add(&n->waiting, &r->waiting);
		if (!sl_timer_is_armed(&n->wait_timer))
			sl_timer_start(n->worker->loop, &n->wait_timer, r->since_ms + WAIT_MS,
				       on_waited);
	}
	if (r->is_over && (r->is_stray || n->drain_ms)) {
		lose(n, f);
		forget(r);
	}
}

/* ---- what is told ---- */

static void out_of_memory(struct sl_nat_flows *n)
{
	if (sl_log_allowed(&n->log, now_ms(n), 1, 60000))
		(void)sl_err(-ENOMEM, "nftables: a flow has no record until it is told of again");
}

/* It has been killed here; another broker (`is_other`) has not heard of that. */
static void on_killed(struct sl_nat_record *r, bool is_other, const struct sl_broker_nat_flow *f)
{
	struct sl_nat_flows *n = r->owner;

	if (f->is_over) {
		forget(r);
	} else if (is_other || now_ms(n) >= r->since_ms + KILL_AGAIN_MS) {
		r->since_ms = now_ms(n);
		sl_broker_nat_kill(client_of(n), r->serial);
	}
}

/* Nothing is known of it but what is told now. */
static void on_unknown(struct sl_nat_record *r, const struct sl_broker_nat_flow *f)
{
	struct sl_nat_flows *n = r->owner;
	struct sl_generation *gen = n->worker->gen;
	const struct sl_gen_route *route = sl_generation_find_route(gen, f->route);
	struct sl_conn *c;

	/* The kernel may let flows in for a moment after the workers have lost the route. */
	if (!route && n->before) {
		gen = n->before;
		route = sl_generation_find_route(gen, f->route);
	}
	if (!route) {
		wait_for_route(r, f);
		return;
	}
	c = new_conn(n, gen, f);
	if (!c) {
		out_of_memory(n);
		forget(r);
		return;
	}
	sl_list_remove(&r->waiting);
	free(SL_TAKE_PTR(r->latest));
	c->route = route;
	begin(r, c, f);
	if (n->drain_ms && !f->is_over)
		sl_conn_drain(c, n->drain_ms);
	if (c->state != SL_CONN_CLOSED)
		update(r, f);
}

/*
 * Connection tracking keeps TCP's entries for minutes after the end, and a new broker tells of
 * them all. What began while the one before was there has had a record, and if that is no more it
 * is over since then. Serials count from the nanosecond in which their broker began. Of one whose
 * begin is unknown only the end can tell.
 */
static bool is_old_news(const struct sl_nat_flows *n, uint64_t serial,
			const struct sl_broker_nat_flow *f)
{
	uint64_t known_ns = n->left_ns ? n->left_ns : serial;

	if (!f->is_adopted || !f->is_over)
		return false;
	if (f->is_rough)
		return f->end_ns < known_ns + END_NS;
	return f->start_ns < known_ns && f->end_ns < serial + END_NS;
}

void sl_nat_flows_told(struct sl_nat_flows *n, uint64_t serial, const struct sl_broker_nat_flow *f)
{
	struct sl_nat_record *r;
	struct name name;
	uint64_t hash;
	bool is_other;
	bool is_new;

	/* the next process hears of all that live, but of an end only whoever it was told to */
	if (n->go_on && !f->is_over)
		return;
	name_of(f, &name);
	hash = sl_siphash(&name, sizeof(name), n->key);
	r = find(n, &name, hash, serial, f);
	is_new = !r;
	if (is_new && is_old_news(n, serial, f))
		return;
	if (is_new)
		r = add(n, &name, hash);
	if (!r) {
		out_of_memory(n);
		return;
	}
	is_other = r->serial != serial;
	r->serial = serial;
	r->is_in_doubt = false;
	correct_begin(r, f);
	r->is_rough = f->is_rough;
	r->start_ns = f->start_ns;
	sl_list_remove(&r->node);
	sl_list_add(&n->told, &r->node);
	if (r->conn) {
		if (is_other && r->conn->ending) /* the one that was asked is no more */
			sl_broker_nat_kill(client_of(n), serial);
		update(r, f);
	} else if (is_new || r->latest) {
		on_unknown(r, f);
	} else {
		on_killed(r, is_other, f);
	}
}

static void try_again(struct sl_list *list)
{
	struct sl_list *pos;
	struct sl_list *tmp;

	sl_list_for_each_safe (pos, tmp, list) {
		struct sl_nat_record *r = SL_CONTAINER_OF(pos, struct sl_nat_record, waiting);
		const struct sl_broker_nat_flow f = *r->latest;

		on_unknown(r, &f);
	}
}

void sl_nat_flows_use_generation(struct sl_nat_flows *n, struct sl_generation *before)
{
	sl_generation_unref(n->before);
	n->before = sl_generation_ref(before);
	try_again(&n->waiting);
	try_again(&n->strays);
}

/* ---- brokers that die ---- */

static void end_in_doubt(struct sl_nat_record *r)
{
	if (!r->conn) {
		forget(r);
		return;
	}
	/* what it has carried is counted, should another broker find it all the same */
	r->owner->since_ns = r->owner->left_ns;
	r->is_over = true; /* its serial means nothing to anybody */
	sl_conn_end(r->conn, SL_REASON_CRASH_RECOVERED, false);
}

static void on_doubt(struct sl_timer *timer)
{
	struct sl_nat_flows *n = SL_CONTAINER_OF(timer, struct sl_nat_flows, doubt_timer);

	for (int i = 0; i < DOUBT_SLICE && !sl_list_is_empty(&n->doubted); i++)
		end_in_doubt(SL_CONTAINER_OF(n->doubted.next, struct sl_nat_record, node));
	if (!sl_list_is_empty(&n->doubted))
		sl_timer_start(n->worker->loop, timer, now_ms(n), on_doubt);
}

void sl_nat_flows_all_told(struct sl_nat_flows *n)
{
	if (!sl_list_is_empty(&n->doubted))
		sl_timer_start(n->worker->loop, &n->doubt_timer, now_ms(n), on_doubt);
}

void sl_nat_flows_linked(struct sl_nat_flows *n)
{
	n->linked_ms = now_ms(n);
}

void sl_nat_flows_unlinked(struct sl_nat_flows *n)
{
	struct sl_list *pos;

	n->left_ns = sl_clock_real_ns();
	sl_list_for_each (pos, &n->told)
		SL_CONTAINER_OF(pos, struct sl_nat_record, node)->is_in_doubt = true;
	sl_list_splice(&n->doubted, &n->told);
	if (!sl_list_is_empty(&n->doubted))
		sl_timer_start(n->worker->loop, &n->doubt_timer, now_ms(n) + SL_HANDOVER_DOUBT_MS,
			       on_doubt);
}

/* ---- life ---- */

int sl_nat_flows_new(struct sl_worker *w, struct sl_nat_flows **ret)
{
	struct sl_nat_flows *n = calloc(1, sizeof(*n));

	if (!n)
		return -ENOMEM;
	n->bucket = new_buckets(FIRST_BUCKETS);
	if (!n->bucket) {
		free(n);
		return -ENOMEM;
	}
	n->worker = w;
	n->n_buckets = FIRST_BUCKETS;
	n->since_ns = sl_clock_real_ns();
	sl_list_init(&n->told);
	sl_list_init(&n->doubted);
	sl_list_init(&n->waiting);
	sl_list_init(&n->strays);
	/* Without it clients might aim at one bucket, no more. */
	(void)!getrandom(n->key, sizeof(n->key), GRND_NONBLOCK);
	*ret = n;
	return 0;
}

/* Of what was killed the end is still to be told, and is no news then. */
static void forget_strays(struct sl_nat_flows *n)
{
	while (!sl_list_is_empty(&n->waiting))
		forget(SL_CONTAINER_OF(n->waiting.next, struct sl_nat_record, waiting));
	while (!sl_list_is_empty(&n->strays))
		forget(SL_CONTAINER_OF(n->strays.next, struct sl_nat_record, waiting));
}

static void forget_unused(struct sl_nat_flows *n)
{
	for (size_t i = 0; i < n->n_buckets; i++) {
		struct sl_list *pos;
		struct sl_list *tmp;

		sl_list_for_each_safe (pos, tmp, &n->bucket[i]) {
			struct sl_nat_record *r =
				SL_CONTAINER_OF(pos, struct sl_nat_record, in_bucket);

			if (!r->conn)
				forget(r);
		}
	}
}

void sl_nat_flows_free(struct sl_nat_flows *n)
{
	if (!n)
		return;
	sl_timer_stop(&n->doubt_timer);
	sl_timer_stop(&n->wait_timer);
	forget_unused(n);
	sl_generation_unref(n->before);
	free(n->bucket);
	free(n);
}

void sl_nat_flows_drain(struct sl_nat_flows *n)
{
	const struct sl_worker *w = n->worker;

	n->drain_ms = now_ms(n);
	lose_waiting(n);
	n->go_on = w->hands_on || (w->gen && w->gen->conf->global.nftables.keep_on_exit);
	if (n->go_on)
		forget_strays(n);
}

void sl_nat_flows_stop(struct sl_nat_flows *n)
{
	if (n)
		n->is_stopped = true;
}

bool sl_nat_flows_go_on(const struct sl_nat_flows *n)
{
	return n->go_on;
}

/* ---- the engine ---- */

static int start(struct sl_conn *c)
{
	(void)c;
	return 0;
}

static void on_socket(struct sl_conn *c, enum sl_side side, uint32_t events)
{
	(void)c;
	(void)side;
	(void)events;
}

/* Bytes are told of late, and not at all while there is no broker. */
static uint64_t active_ms(const struct sl_conn *c)
{
	const struct sl_nat_flows *n = c->worker->nat_flows;
	uint64_t known_ms = c->active_ms > n->linked_ms ? c->active_ms : n->linked_ms;
	uint32_t lag_ms = __atomic_load_n(&c->worker->nat_lag_ms, __ATOMIC_RELAXED);

	/* where connection tracking has very many entries the broker looks at them less often */
	return (c->nat && c->nat->is_in_doubt ? now_ms(n) : known_ms) +
	       (lag_ms > SL_NAT_LAG_MS ? lag_ms : SL_NAT_LAG_MS);
}

/* Conntrack's last counts come with the end of the entry. */
static bool ask_end(struct sl_conn *c)
{
	const struct sl_nat_record *r = c->nat;
	const struct sl_nat_flows *n = c->worker->nat_flows;

	if (!r || r->is_over || r->is_in_doubt || n->is_stopped ||
	    !sl_broker_client_is_linked(client_of(n)))
		return false;
	sl_broker_nat_kill(client_of(n), r->serial);
	return true;
}

/* What is not over is reset on both sides, and noted until it is. */
static void stop(struct sl_conn *c)
{
	struct sl_nat_record *r = SL_TAKE_PTR(c->nat);

	if (!r)
		return;
	r->conn = NULL;
	if (r->is_over || c->let_go) {
		forget(r);
		return;
	}
	r->since_ms = now_ms(r->owner);
	if (!r->is_in_doubt && c->ending == SL_REASON_NONE) /* else it has been asked */
		sl_broker_nat_kill(client_of(r->owner), r->serial);
}

const struct sl_engine sl_engine_nat = {
	.id = SL_ENGINE_NFTABLES,
	.is_in_kernel = true,
	.start = start,
	.on_socket = on_socket,
	.active_ms = active_ms,
	.ask_end = ask_end,
	.stop = stop,
};
