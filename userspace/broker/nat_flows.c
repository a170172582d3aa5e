/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "broker/nat_flows.h"

#include <errno.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "broker/drift.h"
#include "broker/nat_state.h"
#include "nft/ct_sysctl.h"

#define DUMP_MS 2000
/* Marks of routes: above every base there can be (SL_MARK_BASE_MAX) there is room for so many. */
#define N_MARKS (UINT32_C(1) << 20)
#define MIN_RECORDS 65536
#define MAX_RECORDS (1u << 23)
#define EVENTS_BYTES (32u << 20)
/* Changes told in one turn. */
#define PER_TURN 512
#define PURGE_WAIT_MS 5000
/* The supervisor waits 2 s for the end of the broker. */
#define DELETE_MS 800
/* A request of its own for each entry takes the kernel as long as to look at so many. */
#define ENTRIES_PER_REQUEST 16

uint64_t sl_nat_dumps(const struct sl_nat *n)
{
	struct sl_ct_stream_counts c = { 0 };

	if (n->stream)
		sl_ct_stream_get_counts(n->stream, &c);
	return c.dumps;
}

uint64_t sl_nat_n_flows(const struct sl_nat *n)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < n->routes.n; i++)
		sum += n->routes.item[i].n_flows;
	return sum;
}

/* ---- what is told ---- */

static bool has_both_spoken(const struct sl_ct_flow *f)
{
	if (f->protocol == IPPROTO_UDP)
		return f->status & IPS_SEEN_REPLY;
	return f->tcp >= SL_CT_TCP_ESTABLISHED && f->tcp <= SL_CT_TCP_TIME_WAIT;
}

static void fill_flow(const struct sl_ct_change *c, const struct sl_nat_route *route,
		      struct sl_broker_nat_flow *ret)
{
	/* whose begin was told before, perhaps to somebody who is no more */
	bool is_told_again =
		(c->what & (SL_CT_TELL_AGAIN | SL_CT_TELL_ENDED)) && !(c->what & SL_CT_TELL_NEW);

	*ret = (struct sl_broker_nat_flow){
		.client = c->flow.tuple[SL_CT_ORIG].src,
		.front = c->flow.tuple[SL_CT_ORIG].dst,
		.backend = c->flow.tuple[SL_CT_REPLY].src,
		.start_ns = c->start_ns,
		.is_udp = c->flow.protocol == IPPROTO_UDP,
		.is_over = !!(c->what & SL_CT_TELL_ENDED),
		.is_adopted = c->is_adopted || is_told_again,
		.is_established = has_both_spoken(&c->flow),
		.is_rough = c->flow.start_ns == 0,
	};
	if (ret->is_over) {
		ret->end_ns = c->end_ns;
		ret->reason = (uint8_t)c->reason;
	}
	ret->bytes[SL_CLIENT] = c->flow.count[SL_CT_ORIG].bytes;
	ret->bytes[SL_BACKEND] = c->flow.count[SL_CT_REPLY].bytes;
	(void)snprintf(ret->route, sizeof(ret->route), "%s", route->name);
}

/* Of those that a dump shows many are only new: events come a little later. */
static bool has_lost_events(struct sl_nat *n)
{
	struct sl_ct_stream_counts c;

	sl_ct_stream_get_counts(n->stream, &c);
	if (c.overruns != n->n_overruns) {
		n->n_overruns = c.overruns;
		n->overrun_until = c.dumps + 2;
	}
	return c.dumps <= n->overrun_until && n->n_overruns;
}

static void note_resync(struct sl_nat *n, const struct sl_ct_change *c)
{
	bool is_end = c->is_resynced && c->what & SL_CT_TELL_ENDED;
	const struct sl_nat_route *route;
	char client[SL_ADDR_TEXT], front[SL_ADDR_TEXT], text[2 * SL_ADDR_TEXT + 96];

	if (!is_end &&
	    !(c->is_adopted && c->what & SL_CT_TELL_NEW && n->is_told && has_lost_events(n)))
		return;
	route = sl_nat_routes_find(&n->routes, c->flow.mark);
	if (!route)
		return;
	(void)sl_addr_format(&c->flow.tuple[SL_CT_ORIG].src, client);
	(void)sl_addr_format(&c->flow.tuple[SL_CT_ORIG].dst, front);
	(void)snprintf(text, sizeof(text), "flow %s > %s of %.60s", client, front, route->name);
	if (is_end)
		sl_drift_note(n->options.drift, SL_DRIFT_NFT_FLOW, SL_DRIFT_ENDED, text, NULL,
			      "its end was not heard of; a dump did not show it");
	else
		sl_drift_note(n->options.drift, SL_DRIFT_NFT_FLOW, SL_DRIFT_ADOPTED, NULL, text,
			      "its begin was not heard of; a dump showed it");
}

/* Once for each change that was taken. */
static void count_change(struct sl_nat *n, const struct sl_ct_change *c)
{
	bool is_new = c->what & SL_CT_TELL_NEW;

	note_resync(n, c);
	if (sl_nat_routes_count(&n->routes, c->flow.mark, c->serial, is_new,
				c->what & SL_CT_TELL_ENDED) &&
	    is_new)
		/* an entry that waits for its end is no flow any more */
		n->n_adopted += c->is_adopted && c->start_ns < n->started_ns &&
				!(c->what & SL_CT_TELL_ENDED);
}

/* False: nobody had room. A mark that is no route's is somebody else's. */
static bool tell(struct sl_nat *n, const struct sl_ct_change *c)
{
	const struct sl_nat_route *route = sl_nat_routes_find(&n->routes, c->flow.mark);
	struct sl_broker_nat_flow flow;

	if (!route || !n->options.tell)
		return true;
	fill_flow(c, route, &flow);
	return n->options.tell(n->options.arg, c->serial, &flow);
}

/* True: everything that was taken is told. */
static bool tell_batch(struct sl_nat *n)
{
	while (n->batch_at < n->batch_n && tell(n, &n->batch[n->batch_at]))
		n->batch_at++;
	return n->batch_at == n->batch_n;
}

static void take_changes(struct sl_nat *n)
{
	for (int left = PER_TURN; left > 0 && tell_batch(n); left -= SL_NAT_BATCH) {
		n->batch_at = 0;
		n->batch_n = sl_ct_stream_take(n->stream, n->batch, SL_NAT_BATCH);
		if (n->batch_n == 0)
			break;
		for (size_t i = 0; i < n->batch_n; i++)
			count_change(n, &n->batch[i]);
	}
	n->is_blocked = !tell_batch(n);
	/* what comes meanwhile is kept by the stream, each flow once */
	(void)sl_io_change(&n->stream_io, n->is_blocked ? 0 : SL_IO_IN);
}

static void on_stream(struct sl_io *io, uint32_t events)
{
	struct sl_nat *n = SL_CONTAINER_OF(io, struct sl_nat, stream_io);

	(void)events;
	if (!n->is_blocked)
		take_changes(n);
}

void sl_nat_resume(struct sl_nat *n)
{
	if (n->stream && n->is_blocked)
		take_changes(n);
}

bool sl_nat_is_all_told(const struct sl_nat *n)
{
	struct pollfd p = { .fd = sl_ct_stream_fd(n->stream), .events = POLLIN };

	return n->batch_at == n->batch_n && poll(&p, 1, 0) == 0;
}

/* What found no room for its record may be one of them. */
void sl_nat_say_told(struct sl_nat *n)
{
	struct sl_ct_stream_counts c;

	if (n->is_told || !n->options.told)
		return;
	sl_ct_stream_get_counts(n->stream, &c);
	if (c.dumps > 0 && c.table.not_taken == 0 && sl_nat_is_all_told(n))
		n->is_told = n->options.told(n->options.arg);
}

void sl_nat_tell_all(struct sl_nat *n)
{
	if (n->stream)
		sl_ct_stream_retell(n->stream);
}

static int cut(struct sl_nat *n, const struct sl_ct_flow *flow)
{
	int r = sl_ct_stream_delete_flow(n->stream, flow);

	if (r == 0)
		sl_nat_probe_flow(&n->probe, flow);
	return r;
}

/*
 * Without its entry a packet of the flow is none of a connection: the client's meets `stray` and
 * the stack, the target's the stack or the client, all of which answer by RST.
 */
void sl_nat_kill(struct sl_nat *n, uint64_t serial)
{
	struct sl_ct_flow flow;
	int r;

	if (!n->stream || !sl_ct_stream_find(n->stream, serial, &flow) ||
	    !sl_nat_routes_find(&n->routes, flow.mark))
		return;
	r = cut(n, &flow);
	if (r < 0 && r != -ENOENT)
		(void)sl_warn(r, "nftables: cannot end a flow");
}

/* ---- flows that must go ---- */

struct flow_list {
	struct sl_nat *nat;
	bool (*wants)(const struct sl_nat *n, const struct sl_ct_flow *f);
	struct sl_ct_flow *item;
	size_t n;
	size_t cap;
};

static void list_flow(void *arg, const struct sl_ct_flow *f)
{
	struct flow_list *l = arg;

	if (!l->wants(l->nat, f)) {
		struct sl_nat_route *route = sl_nat_routes_find(&l->nat->routes, f->mark);

		if (route)
			route->has_stayers = true;
		return;
	}
	if (l->n == l->cap) {
		size_t cap = l->cap ? l->cap * 2 : 64;
		struct sl_ct_flow *item = reallocarray(l->item, cap, sizeof(*item));

		if (!item)
			return; /* it is found the next time */
		l->item = item;
		l->cap = cap;
	}
	l->item[l->n++] = *f;
}

static int by_mark(const void *a, const void *b)
{
	const struct sl_ct_flow *x = a, *y = b;

	return (x->mark > y->mark) - (x->mark < y->mark);
}

/* By mark. */
static void list_flows(struct flow_list *l)
{
	for (size_t i = 0; i < l->nat->routes.n; i++)
		l->nat->routes.item[i].has_stayers = false;
	sl_ct_stream_each(l->nat->stream, list_flow, l);
	if (l->n)
		qsort(l->item, l->n, sizeof(*l->item), by_mark);
}

static size_t delete_each(struct sl_nat *n, const struct sl_ct_flow *flows, size_t n_flows)
{
	size_t deleted = 0;

	for (size_t i = 0; i < n_flows; i++)
		deleted += sl_ct_stream_delete_flow(n->stream, &flows[i]) == 0;
	return deleted;
}

/*
 * Entries of flows with marks of the block, all of them. The kernel goes through all entries of
 * everybody to find those of some marks, which costs less than a request for each if they are not
 * too few.
 */
static size_t delete_block(struct sl_nat *n, struct sl_ct_marks marks,
			   const struct sl_ct_flow *flows, size_t n_flows)
{
	uint32_t count = 0, max = 0;

	if (sl_ct_fill(&count, &max) == 0 && n_flows > count / ENTRIES_PER_REQUEST &&
	    sl_ct_stream_delete_marks(n->stream, marks) == 0)
		return n_flows;
	return delete_each(n, flows, n_flows);
}

static bool is_at(const struct sl_nft_target *t, const struct sl_ct_flow *f)
{
	const struct sl_addr *at = &f->tuple[SL_CT_REPLY].src;
	uint16_t port = sl_addr_port(&t->addr);

	if (port == 0)
		port = sl_addr_port(&f->tuple[SL_CT_ORIG].dst);
	return sl_addr_same_ip(&t->addr, at) && port == sl_addr_port(at);
}

/* Whether somebody else of its family could have it. */
static bool has_better(const struct sl_nat *n, const struct sl_nat_route *route, size_t target)
{
	const struct sl_nft_target *settled = n->settled + route->first_target;
	sa_family_t family = sl_addr_family(&settled[target].addr);

	for (size_t i = 0; i < route->plan->n_targets; i++)
		if (sl_addr_family(&settled[i].addr) == family && settled[i].weight &&
		    !settled[i].is_down)
			return true;
	return false;
}

static bool is_heard(const struct sl_nft_route *route, const struct sl_addr *front)
{
	uint16_t port = sl_addr_port(front);

	for (size_t i = 0; i < route->n_listeners; i++) {
		const struct sl_nft_listener *l = &route->listeners[i];
		sa_family_t family = sl_addr_family(&l->ip);

		if (port < l->from || port > l->to)
			continue;
		if (family == AF_UNSPEC || sl_addr_same_ip(&l->ip, front) ||
		    (sl_addr_is_any(&l->ip) && family == sl_addr_family(front)))
			return true;
	}
	return false;
}

/*
 * A busy client keeps an entry of UDP alive for ever: it goes with its route, listener or target,
 * or when its target is down and another is not.
 */
static bool is_stale_udp(const struct sl_nat *n, const struct sl_ct_flow *f)
{
	const struct sl_nat_route *route = sl_nat_routes_find(&n->routes, f->mark);

	if (f->protocol != IPPROTO_UDP || !route)
		return false;
	if (!route->plan || !(route->plan->protocols & SL_NFT_UDP) ||
	    !is_heard(route->plan, &f->tuple[SL_CT_ORIG].dst))
		return true;
	for (size_t i = 0; i < route->plan->n_targets; i++) {
		const struct sl_nft_target *t = &route->plan->targets[i];

		if (!is_at(t, f) || t->weight == 0)
			continue;
		if (!n->is_down[route->first_target + i] || !has_better(n, route, i))
			return false;
	}
	return true;
}

/* Of one mark. A route that has gone gets no new ones, so what has its mark can go at once. */
static size_t delete_stale(struct sl_nat *n, const struct sl_ct_flow *flows, size_t n_flows)
{
	const struct sl_nat_route *route = sl_nat_routes_find(&n->routes, flows[0].mark);
	const struct sl_ct_marks mark = { .mark = flows[0].mark, .mask = UINT32_MAX };

	return route && !route->plan && !route->has_stayers ? delete_block(n, mark, flows, n_flows)
							    : delete_each(n, flows, n_flows);
}

void sl_nat_clean_udp(struct sl_nat *n)
{
	struct flow_list l = { .nat = n, .wants = is_stale_udp };
	size_t deleted = 0;

	if (!n->stream)
		return;
	list_flows(&l);
	for (size_t i = 0, end; i < l.n; i = end) {
		for (end = i + 1; end < l.n && l.item[end].mark == l.item[i].mark;)
			end++;
		deleted += delete_stale(n, l.item + i, end - i);
	}
	free(l.item);
	if (deleted)
		sl_info("nftables: %zu UDP flow%s of targets that are gone deleted", deleted,
			deleted == 1 ? "" : "s");
}

static bool is_ours(const struct sl_nat *n, const struct sl_ct_flow *f)
{
	return sl_nat_routes_find(&n->routes, f->mark);
}

/*
 * The largest block of marks from that of route `i` on that are all of routes, and can be asked for
 * at once; returns how many.
 */
static size_t block_from(const struct sl_nat_routes *routes, size_t i, struct sl_ct_marks *ret)
{
	uint32_t mark = routes->item[i].mark;
	size_t n = 1;

	while (n <= (routes->n - i) / 2 && (mark & (2 * n - 1)) == 0 &&
	       routes->item[i + 2 * n - 1].mark == mark + 2 * n - 1)
		n *= 2;
	*ret = (struct sl_ct_marks){ .mark = mark, .mask = ~(uint32_t)(n - 1) };
	return n;
}

/* Peers that are not told before that hear of it with their next packet. */
static void probe_until(struct sl_nat *n, uint64_t until_ms, const struct sl_ct_flow *flows,
			size_t n_flows)
{
	for (size_t i = 0; i < n_flows; i++) {
		if (i % 64 == 0 && sl_clock_ms() >= until_ms)
			return;
		sl_nat_probe_flow(&n->probe, &flows[i]);
	}
}

size_t sl_nat_delete_flows(struct sl_nat *n)
{
	struct flow_list l = { .nat = n, .wants = is_ours };
	uint64_t until_ms = sl_clock_ms() + DELETE_MS;
	size_t deleted = 0, at = 0;

	list_flows(&l);
	for (size_t i = 0, n_marks = 0; i < n->routes.n && at < l.n; i += n_marks) {
		struct sl_ct_marks marks;
		size_t from = at;

		n_marks = block_from(&n->routes, i, &marks);
		while (at < l.n && (l.item[at].mark & marks.mask) == marks.mark)
			at++;
		if (at > from)
			deleted += delete_block(n, marks, l.item + from, at - from);
	}
	probe_until(n, until_ms, l.item, l.n);
	free(l.item);
	return deleted;
}

/* ---- the thread that follows them ---- */

static size_t records_wanted(void)
{
	uint32_t count = 0, max = 0;

	if (sl_ct_fill(&count, &max) < 0 || max < MIN_RECORDS)
		return MIN_RECORDS;
	return max < MAX_RECORDS ? max : MAX_RECORDS;
}

/* The limit of the kernel may be raised at any time. */
static void say_not_taken(struct sl_nat *n)
{
	struct sl_ct_stream_counts c;

	sl_ct_stream_get_counts(n->stream, &c);
	if (c.table.not_taken && !n->has_lacked_room)
		sl_log(SL_LOG_WARN, "nftables: there was no room for the records of some flows, "
				    "they are told of when there is");
	n->has_lacked_room |= c.table.not_taken > 0;
}

void sl_nat_look_at_room(struct sl_nat *n)
{
	if (!n->stream)
		return;
	sl_ct_stream_grow(n->stream, records_wanted());
	say_not_taken(n);
}

/* Those of an earlier base keep theirs. */
static void set_marks(const struct sl_nat *n, struct sl_ct_stream_conf *conf)
{
	uint32_t from = n->mark_base + 1, last = n->mark_base + N_MARKS - 1;

	if (last < from)
		last = UINT32_MAX;
	if (n->routes.n && n->routes.item[0].mark < from)
		from = n->routes.item[0].mark;
	if (n->routes.n && n->routes.item[n->routes.n - 1].mark > last)
		last = n->routes.item[n->routes.n - 1].mark;
	conf->mark_base = from;
	conf->n_marks = last - from + 1;
}

int sl_nat_start_stream(struct sl_nat *n)
{
	struct sl_ct_stream_conf conf = { .max_records = records_wanted(),
					  .dump_ms = DUMP_MS,
					  .rcvbuf = EVENTS_BYTES,
					  .first_serial = sl_clock_real_ns() };
	const char *what = NULL;
	char text[160];
	int r;

	if (n->stream)
		return 0;
	set_marks(n, &conf);
	conf.timeouts = n->timeouts;
	r = sl_ct_stream_start(&conf, &n->stream, &what);
	if (r == 0)
		r = sl_io_start(n->loop, &n->stream_io, sl_ct_stream_fd(n->stream), SL_IO_IN,
				on_stream);
	if (r < 0) {
		sl_ct_stream_stop(SL_TAKE_PTR(n->stream));
		(void)snprintf(text, sizeof(text), "%s: %s", what, strerror(-r));
		sl_nat_say_off(n, text);
	}
	return r;
}

void sl_nat_stop_stream(struct sl_nat *n)
{
	struct sl_ct_stream_counts c;

	if (!n->stream)
		return;
	sl_ct_stream_get_counts(n->stream, &c);
	n->n_resyncs += c.overruns;
	n->n_overruns = n->overrun_until = 0;
	sl_io_stop(&n->stream_io);
	sl_ct_stream_stop(SL_TAKE_PTR(n->stream));
	n->batch_n = n->batch_at = 0;
	n->is_blocked = false;
	n->udp_until = 0;          /* the next one's dumps are counted from 0 */
	n->routes.last_serial = 0; /* the next one's are counted from the time of then */
}

void sl_nat_load_conntrack(const struct sl_nat *n)
{
	struct sl_ct_stream_conf conf = { .max_records = 1, .dump_ms = DUMP_MS, .rcvbuf = 1 << 16 };
	struct sl_ct_stream *stream = NULL;
	uint32_t count, max;
	const char *what;

	if (sl_ct_fill(&count, &max) != -ENOENT)
		return;
	set_marks(n, &conf);
	if (sl_ct_stream_start(&conf, &stream, &what) == 0)
		sl_ct_stream_stop(stream);
}

/* What flows there are is known after a dump. */
static void wait_dump(struct sl_nat *n)
{
	uint64_t until_ms = sl_clock_ms() + PURGE_WAIT_MS;

	while (sl_nat_dumps(n) == 0 && sl_clock_ms() < until_ms)
		(void)usleep(5000);
}

size_t sl_nat_find_and_delete(struct sl_nat *n)
{
	struct sl_ct_stream_conf conf = { .max_records = records_wanted(),
					  .dump_ms = DUMP_MS,
					  .rcvbuf = EVENTS_BYTES };
	const char *what;
	size_t n_deleted;

	set_marks(n, &conf);
	sl_ct_timeouts_default(&conf.timeouts);
	if (sl_ct_stream_start(&conf, &n->stream, &what) < 0)
		return 0;
	wait_dump(n);
	n_deleted = sl_nat_delete_flows(n);
	sl_ct_stream_stop(SL_TAKE_PTR(n->stream));
	return n_deleted;
}
