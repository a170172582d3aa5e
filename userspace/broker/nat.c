/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "broker/nat.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "broker/nat_routes.h"
#include "broker/nft_routes.h"
#include "nft/ct_stream.h"
#include "nft/ct_sysctl.h"
#include "nft/table.h"

#define TICK_MS 1000
#define DUMP_MS 2000
/* What others do to the table comes in many messages; and they may do it again and again. */
#define REPAIR_MS 50
#define REPAIR_AGAIN_MS 1000
#define RETRY_MIN_MS 100
#define RETRY_MAX_MS 5000
/* Marks of routes: above every base there can be (SL_MARK_BASE_MAX) there is room for so many. */
#define N_MARKS (UINT32_C(1) << 20)
#define MIN_RECORDS 65536
#define MAX_RECORDS (1u << 23)
#define EVENTS_BYTES (32u << 20)
/* Changes told in one turn. */
#define BATCH 64
#define PER_TURN 512
/* Packets of flows that are cut meet the rule that resets them. */
#define KILL_WAIT_US 50000
#define PURGE_WAIT_MS 5000

/* What was changed of the host, to be put back; kept in the table, as names of counters. */
struct settings {
	struct sl_ct_sysctls ct;
	int localnet; /* -1: left alone */
};

struct sl_nat {
	struct sl_nat_options options;
	struct sl_loop *loop;
	char name[SL_NAT_TABLE];
	uint32_t mark_base;
	uint64_t started_ns; /* since 1970 */

	struct sl_nft_table *table;  /* NULL: not open, nothing is done */
	struct sl_ct_stream *stream; /* NULL: no route, no flow */
	struct sl_nat_routes routes;
	struct sl_nat_plan *plan; /* NULL: none yet */
	bool *is_down;            /* by target of the plan */
	struct sl_nft_target *settled;
	struct sl_ct_timeouts timeouts;
	struct settings was;
	bool is_set; /* the settings are as records need them */

	bool is_installed; /* the kernel has, or may have, something of ours */
	bool is_applied;   /* and it is what the plan wants */
	char why_off[190];
	uint64_t retry_ms;
	uint64_t repaired_ms;
	uint64_t udp_until; /* so many dumps: entries of targets that are gone may come to light */
	struct sl_io watch_io;
	struct sl_io stream_io;
	struct sl_task apply_task;
	struct sl_timer retry;
	struct sl_timer repair;
	struct sl_timer tick;

	struct sl_ct_change batch[BATCH]; /* taken, yet to be told from `batch_at` on */
	size_t batch_n;
	size_t batch_at;
	bool is_blocked; /* until sl_nat_resume() */

	struct sl_broker_nat_status status; /* as last told */
	uint32_t n_adopted;
	uint32_t n_repairs;
	uint64_t n_resyncs; /* of earlier streams */
};

static uint64_t real_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static uint64_t n_dumps(const struct sl_nat *n)
{
	struct sl_ct_stream_counts c = { 0 };

	if (n->stream)
		sl_ct_stream_get_counts(n->stream, &c);
	return c.dumps;
}

/* ---- status ---- */

static uint64_t n_flows(const struct sl_nat *n)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < n->routes.n; i++)
		sum += n->routes.item[i].n_flows;
	return sum;
}

static void describe(const struct sl_nat *n, size_t n_routes, size_t n_gone, char *ret, size_t size)
{
	char more[64] = "";

	if (n_gone)
		(void)snprintf(more, sizeof(more), ", %zu that %s gone still with flows", n_gone,
			       n_gone == 1 ? "is" : "are");
	if (n->is_applied && n->routes.n)
		(void)snprintf(ret, size, "%zu route%s in table inet %s%s", n_routes,
			       n_routes == 1 ? "" : "s", n->name, more);
	else
		(void)snprintf(ret, size, "off: %s",
			       n->why_off[0] ? n->why_off : "no route has this engine");
}

void sl_nat_get_status(const struct sl_nat *n, struct sl_broker_nat_status *ret)
{
	size_t n_gone = sl_nat_routes_n_gone(&n->routes);
	struct sl_ct_stream_counts c = { 0 };
	struct sl_broker_nat_status s = {
		.is_on = n->is_applied && n->routes.n,
		.n_routes = (uint32_t)(n->routes.n - n_gone),
		.n_flows = (uint32_t)n_flows(n),
		.adopted = n->n_adopted,
		.repairs = n->n_repairs,
	};

	if (n->stream)
		sl_ct_stream_get_counts(n->stream, &c);
	s.resyncs = (uint32_t)(n->n_resyncs + c.overruns);
	/* two dumps are that far apart, and the second may take as long as the first */
	s.lag_ms = (uint32_t)((c.apart_us * 3 / 2 + c.last_dump_us) / 100000 * 100 + 100);
	if (n->stream && sl_ct_fill(&s.ct_count, &s.ct_max) < 0)
		s.ct_count = s.ct_max = 0;
	describe(n, s.n_routes, n_gone, s.text, sizeof(s.text));
	*ret = s;
}

static void refresh(struct sl_nat *n)
{
	struct sl_broker_nat_status now;

	sl_nat_get_status(n, &now);
	if (memcmp(&now, &n->status, sizeof(now)) == 0)
		return;
	n->status = now;
	if (n->options.changed)
		n->options.changed(n->options.arg, &now);
}

static void say_off(struct sl_nat *n, const char *text)
{
	if (strncmp(n->why_off, text, sizeof(n->why_off) - 1) == 0)
		return;
	(void)snprintf(n->why_off, sizeof(n->why_off), "%.*s", (int)sizeof(n->why_off) - 1, text);
	sl_log(SL_LOG_WARN, "nftables: %s", text);
}

/* ---- flows ---- */

static bool has_both_spoken(const struct sl_ct_flow *f)
{
	/* IPS_SEEN_REPLY of linux/netfilter/nf_conntrack_common.h */
	const uint32_t seen_reply = 1 << 1;

	if (f->protocol == IPPROTO_UDP)
		return f->status & seen_reply;
	return f->tcp >= SL_CT_TCP_ESTABLISHED && f->tcp <= SL_CT_TCP_TIME_WAIT;
}

static void fill_flow(const struct sl_ct_change *c, const struct sl_nat_route *route,
		      struct sl_broker_nat_flow *ret)
{
	bool is_told_again = (c->what & SL_CT_TELL_AGAIN) && !(c->what & SL_CT_TELL_NEW);

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

/* Once for each change that was taken. */
static void count_change(struct sl_nat *n, const struct sl_ct_change *c)
{
	struct sl_nat_route *route = sl_nat_routes_find(&n->routes, c->flow.mark);

	if (!route)
		return;
	if (c->what & SL_CT_TELL_NEW) {
		route->n_flows++;
		n->n_adopted += c->is_adopted && c->start_ns < n->started_ns;
	}
	if (c->what & SL_CT_TELL_ENDED)
		route->n_flows--;
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
	for (int left = PER_TURN; left > 0 && tell_batch(n); left -= BATCH) {
		n->batch_at = 0;
		n->batch_n = sl_ct_stream_take(n->stream, n->batch, BATCH);
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

void sl_nat_tell_all(struct sl_nat *n)
{
	if (n->stream)
		sl_ct_stream_retell(n->stream);
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
	r = sl_ct_stream_delete_flow(n->stream, &flow);
	if (r < 0 && r != -ENOENT)
		(void)sl_warn(r, "nftables: cannot end a flow");
}

/* ---- flows that must go ---- */

struct flow_list {
	const struct sl_nat *nat;
	bool (*wants)(const struct sl_nat *n, const struct sl_ct_flow *f);
	struct sl_ct_flow *item;
	size_t n;
	size_t cap;
};

static void list_flow(void *arg, const struct sl_ct_flow *f)
{
	struct flow_list *l = arg;

	if (!l->wants(l->nat, f))
		return;
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

/* How many were deleted. */
static size_t delete_flows(struct sl_nat *n,
			   bool (*wants)(const struct sl_nat *n, const struct sl_ct_flow *f))
{
	struct flow_list l = { .nat = n, .wants = wants };
	size_t deleted = 0;

	sl_ct_stream_each(n->stream, list_flow, &l);
	for (size_t i = 0; i < l.n; i++)
		deleted += sl_ct_stream_delete_flow(n->stream, &l.item[i]) == 0;
	free(l.item);
	return deleted;
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

/*
 * A busy client keeps an entry of UDP alive for ever: it goes with its route or target, or when its
 * target is down and another is not.
 */
static bool is_stale_udp(const struct sl_nat *n, const struct sl_ct_flow *f)
{
	const struct sl_nat_route *route = sl_nat_routes_find(&n->routes, f->mark);

	if (f->protocol != IPPROTO_UDP || !route)
		return false;
	for (size_t i = 0; route->plan && i < route->plan->n_targets; i++) {
		const struct sl_nft_target *t = &route->plan->targets[i];

		if (!is_at(t, f) || t->weight == 0)
			continue;
		if (!n->is_down[route->first_target + i] || !has_better(n, route, i))
			return false;
	}
	return true;
}

static void clean_udp(struct sl_nat *n)
{
	size_t deleted = n->stream ? delete_flows(n, is_stale_udp) : 0;

	if (deleted)
		sl_info("nftables: %zu UDP flow%s of targets that are gone deleted", deleted,
			deleted == 1 ? "" : "s");
}

static bool is_ours(const struct sl_nat *n, const struct sl_ct_flow *f)
{
	return sl_nat_routes_find(&n->routes, f->mark);
}

/* ---- settings of the host ---- */

static const struct settings untouched = { .ct = { -1, -1, -1 }, .localnet = -1 };

#define N_SETTINGS 4
static const struct {
	const char *counter; /* and the value behind it */
	const char *sysctl;
} kept[N_SETTINGS] = {
	{ "was_acct_", "net.netfilter.nf_conntrack_acct" },
	{ "was_timestamp_", "net.netfilter.nf_conntrack_timestamp" },
	{ "was_events_", "net.netfilter.nf_conntrack_events" },
	{ "was_localnet_", "net.ipv4.conf.all.route_localnet" },
};

static int *setting(struct settings *s, size_t i)
{
	int *const fields[N_SETTINGS] = { &s->ct.acct, &s->ct.timestamp, &s->ct.events,
					  &s->localnet };

	return fields[i];
}

/* What an earlier broker has changed and this one would put back. */
static void read_kept(const struct sl_nft_ruleset *rs, struct settings *ret)
{
	for (size_t i = 0; i < rs->n_counters; i++) {
		const char *name = rs->counters[i].name;

		for (size_t k = 0; k < N_SETTINGS; k++) {
			size_t len = strlen(kept[k].counter);

			/* none has a value of two digits */
			if (strncmp(name, kept[k].counter, len) == 0 && name[len] >= '0' &&
			    name[len] <= '9' && !name[len + 1])
				*setting(ret, k) = name[len] - '0';
		}
	}
}

/* The kernel is told before they are changed, so that whoever comes after us knows. */
static int put_kept(struct sl_nat *n, struct sl_nft_ruleset *rs)
{
	for (size_t i = 0; i < N_SETTINGS; i++) {
		int value = *setting(&n->was, i);
		struct sl_nft_counter c = { 0 };

		if (value < 0 || value > 9)
			continue;
		(void)snprintf(c.name, sizeof(c.name), "%s%d", kept[i].counter, value);
		c.comment = sl_nft_put_text(rs, kept[i].sysctl);
		sl_nft_put_counter(rs, &c);
	}
	return sl_nft_ruleset_sort(rs);
}

static bool is_loopback(const struct sl_addr *a)
{
	return sl_addr_family(a) == AF_INET && ntohl(a->v4.sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
}

static bool has_target(const struct sl_nat *n, bool local)
{
	for (size_t i = 0; i < n->plan->n_routes; i++)
		for (size_t k = 0; k < n->plan->routes[i].n_targets; k++)
			if (is_loopback(&n->plan->routes[i].targets[k].addr) == local)
				return true;
	return false;
}

/* What of them will have to be changed; those known from before stay known. */
static void look_at_settings(struct sl_nat *n)
{
	struct settings now = untouched;
	const char *what = NULL;
	int r = sl_ct_sysctl_look(&now.ct, &what);

	if (r < 0)
		(void)sl_warn(r, "nftables: cannot read net/%s, records may lack bytes and times",
			      what);
	if (has_target(n, true) && sl_nat_sysctl_localnet() == 0)
		now.localnet = 0;
	for (size_t i = 0; i < N_SETTINGS; i++)
		if (*setting(&n->was, i) < 0)
			*setting(&n->was, i) = *setting(&now, i);
}

static void change_settings(struct sl_nat *n)
{
	struct sl_ct_sysctls old;
	const char *what = NULL;
	int r = n->is_set ? 0 : sl_ct_sysctl_set(&old, &what);

	if (r < 0)
		(void)sl_warn(r, "nftables: cannot set net/%s to 1, records lack bytes and times",
			      what);
	if (!n->is_set && has_target(n, false) && sl_nat_sysctl_forwards(AF_INET) == 0)
		sl_log(SL_LOG_WARN, "nftables: this host does not forward, so targets on other "
				    "hosts are not reached: sysctl -w net.ipv4.ip_forward=1");
	n->is_set = true;
	if (!has_target(n, true) || sl_nat_sysctl_localnet() != 0)
		return;
	r = sl_nat_sysctl_set_localnet(true);
	if (r < 0)
		(void)sl_warn(r, "nftables: cannot set net.ipv4.conf.all.route_localnet to 1, "
				 "targets on 127.0.0.1 are reached from this host only");
}

static void restore_settings(struct settings *was)
{
	int r = sl_ct_sysctl_restore(&was->ct);

	if (r == 0 && was->localnet == 0)
		r = sl_nat_sysctl_set_localnet(false);
	if (r < 0)
		(void)sl_warn(r, "nftables: cannot put back settings of the host");
	*was = untouched;
}

/* ---- what the kernel is to hold ---- */

static void fill_route(const struct sl_nat *n, const struct sl_nat_route *from,
		       enum sl_nft_state state, struct sl_nft_route *to)
{
	*to = (struct sl_nft_route){ .protocols = SL_NFT_TCP };
	if (from->plan) {
		*to = *from->plan;
		to->targets = n->settled + from->first_target;
	}
	to->name = from->name;
	to->mark = from->mark;
	to->state = state == SL_NFT_ON && !from->plan ? SL_NFT_DRAINING : state;
}

static void settle(struct sl_nat *n)
{
	for (size_t i = 0; i < n->routes.n; i++) {
		const struct sl_nat_route *r = &n->routes.item[i];

		if (r->plan)
			sl_nft_settle_targets(r->plan, n->plan->is_backup + r->first_target,
					      n->is_down + r->first_target,
					      n->settled + r->first_target);
	}
}

/* `state`: of those of the plan. */
static int build(struct sl_nat *n, enum sl_nft_state state, struct sl_nft_ruleset **ret,
		 struct sl_str *why)
{
	_cleanup_(sl_nft_ruleset_freep) struct sl_nft_ruleset *rs = NULL;
	_cleanup_free_ struct sl_nft_route *routes = calloc(n->routes.n + 1, sizeof(*routes));
	int r;

	if (!routes)
		return -ENOMEM;
	settle(n);
	for (size_t i = 0; i < n->routes.n; i++)
		fill_route(n, &n->routes.item[i], state, &routes[i]);
	r = sl_nft_build(routes, n->routes.n, &rs, why);
	if (r == 0)
		r = put_kept(n, rs);
	if (r < 0)
		return r;
	*ret = SL_TAKE_PTR(rs);
	return 0;
}

static int install(struct sl_nat *n, enum sl_nft_state state, struct sl_nft_report *report)
{
	_cleanup_(sl_nft_ruleset_freep) struct sl_nft_ruleset *rs = NULL;
	_cleanup_(sl_str_done) struct sl_str why = { 0 };
	int r = build(n, state, &rs, &why);

	*report = (struct sl_nft_report){ 0 };
	if (r < 0) {
		(void)snprintf(report->text, sizeof(report->text), "%s",
			       why.len ? sl_str_text(&why) : strerror(-r));
		return r;
	}
	r = sl_nft_table_apply(n->table, &rs, report);
	n->is_installed |= r == 0;
	return r;
}

/* No route is left, nor a flow of one. */
static int uninstall(struct sl_nat *n, struct sl_nft_report *report)
{
	int r;

	*report = (struct sl_nft_report){ 0 };
	if (!n->is_installed)
		return 0;
	r = sl_nft_table_remove(n->table, report);
	if (r < 0)
		return r;
	restore_settings(&n->was);
	n->is_set = false;
	n->is_installed = false;
	sl_info("nftables: table inet %s is removed, no route has this engine", n->name);
	return 0;
}

/* ---- the stream of flows ---- */

static size_t records_wanted(void)
{
	uint32_t count = 0, max = 0;

	if (sl_ct_fill(&count, &max) < 0 || max < MIN_RECORDS)
		return MIN_RECORDS;
	return max < MAX_RECORDS ? max : MAX_RECORDS;
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

static int start_stream(struct sl_nat *n)
{
	struct sl_ct_stream_conf conf = { .max_records = records_wanted(),
					  .dump_ms = DUMP_MS,
					  .rcvbuf = EVENTS_BYTES,
					  .first_serial = real_ns() };
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
		say_off(n, text);
	}
	return r;
}

static void stop_stream(struct sl_nat *n)
{
	struct sl_ct_stream_counts c;

	if (!n->stream)
		return;
	sl_ct_stream_get_counts(n->stream, &c);
	n->n_resyncs += c.overruns;
	sl_io_stop(&n->stream_io);
	sl_ct_stream_stop(SL_TAKE_PTR(n->stream));
	n->batch_n = n->batch_at = 0;
	n->is_blocked = false;
}

/* ---- applying ---- */

static void on_retry(struct sl_timer *timer);

static void say_applied(const struct sl_nat *n, const struct sl_nft_report *report)
{
	if (report->n_added + report->n_removed == 0 && !report->is_adopted)
		return;
	sl_info("nftables: %zu route%s in table inet %s%s, %zu added, %zu removed, "
		"%" PRIu64 " us in the kernel",
		n->routes.n, n->routes.n == 1 ? "" : "s", n->name,
		report->is_replaced  ? " (replaced)"
		: report->is_adopted ? " (adopted)"
				     : "",
		report->n_added, report->n_removed, report->kernel_us);
}

static int apply(struct sl_nat *n, struct sl_nft_report *report)
{
	int r;

	if (n->routes.n == 0) {
		r = uninstall(n, report);
		if (r == 0)
			stop_stream(n);
		return r;
	}
	*report = (struct sl_nft_report){ 0 };
	r = start_stream(n);
	if (r < 0)
		return r;
	look_at_settings(n);
	r = install(n, SL_NFT_ON, report);
	if (r == 0) {
		change_settings(n);
		say_applied(n, report);
	}
	return r;
}

/* Until it works: what is in the way may go away. */
static int attempt(struct sl_nat *n, struct sl_nft_report *report)
{
	int r = apply(n, report);

	sl_task_cancel(&n->apply_task);
	if (r < 0) {
		n->is_applied = false;
		if (report->text[0])
			say_off(n, report->text);
		n->retry_ms = n->retry_ms ? n->retry_ms * 2 : RETRY_MIN_MS;
		if (n->retry_ms > RETRY_MAX_MS)
			n->retry_ms = RETRY_MAX_MS;
		sl_timer_start(n->loop, &n->retry, sl_loop_now_ms(n->loop) + n->retry_ms, on_retry);
	} else {
		n->is_applied = true;
		n->why_off[0] = '\0';
		n->retry_ms = 0;
		sl_timer_stop(&n->retry);
		n->udp_until = n_dumps(n) + 2;
		clean_udp(n);
	}
	refresh(n);
	return r;
}

static void on_retry(struct sl_timer *timer)
{
	struct sl_nat *n = SL_CONTAINER_OF(timer, struct sl_nat, retry);
	struct sl_nft_report report;

	(void)attempt(n, &report);
}

static void on_apply(struct sl_task *task)
{
	struct sl_nat *n = SL_CONTAINER_OF(task, struct sl_nat, apply_task);
	struct sl_nft_report report;

	(void)attempt(n, &report);
}

/* ---- what others do ---- */

static void on_repair(struct sl_timer *timer)
{
	struct sl_nat *n = SL_CONTAINER_OF(timer, struct sl_nat, repair);
	bool was_applied = n->is_applied && !n->apply_task.is_queued;
	struct sl_nft_report report;

	if (attempt(n, &report) < 0 || !was_applied || report.n_added + report.n_removed == 0)
		return;
	n->n_repairs++;
	n->repaired_ms = sl_loop_now_ms(n->loop);
	sl_log(SL_LOG_WARN,
	       "nftables: somebody has changed table inet %s: %zu put back, %zu taken out", n->name,
	       report.n_added, report.n_removed);
	refresh(n);
}

static void on_watch(struct sl_io *io, uint32_t events)
{
	struct sl_nat *n = SL_CONTAINER_OF(io, struct sl_nat, watch_io);
	uint64_t at_ms = sl_loop_now_ms(n->loop) + REPAIR_MS;
	int r = sl_nft_table_watch_read(n->table);

	(void)events;
	if (r < 0)
		(void)sl_warn(r, "nftables: cannot watch table inet %s", n->name);
	if (r == 0 || !n->plan || sl_timer_is_armed(&n->repair))
		return;
	if (n->repaired_ms && at_ms < n->repaired_ms + REPAIR_AGAIN_MS)
		at_ms = n->repaired_ms + REPAIR_AGAIN_MS;
	sl_timer_start(n->loop, &n->repair, at_ms, on_repair);
}

/* ---- once a second ---- */

static void drop_gone(struct sl_nat *n, uint64_t dumps)
{
	struct sl_nft_report report;

	if (n->batch_at < n->batch_n || sl_nat_routes_n_gone(&n->routes) == 0 ||
	    sl_nat_routes_drop(&n->routes, dumps) == 0)
		return;
	(void)attempt(n, &report);
}

static void on_tick(struct sl_timer *timer)
{
	struct sl_nat *n = SL_CONTAINER_OF(timer, struct sl_nat, tick);
	uint64_t dumps = n_dumps(n);

	sl_timer_start(n->loop, timer, sl_loop_now_ms(n->loop) + TICK_MS, on_tick);
	if (!n->plan || !n->stream)
		return;
	if (dumps < n->udp_until)
		clean_udp(n);
	drop_gone(n, dumps);
	refresh(n);
}

/* ---- plans ---- */

/* What is down stays down where the plan has it still. */
static void carry_down(const struct sl_nat *n, const struct sl_nat_route *old,
		       const struct sl_nat_route *now, bool *is_down)
{
	if (!old || !old->plan)
		return;
	for (size_t i = 0; i < now->plan->n_targets; i++)
		for (size_t k = 0; k < old->plan->n_targets; k++)
			if (n->is_down[old->first_target + k] &&
			    strcmp(old->plan->targets[k].name, now->plan->targets[i].name) == 0)
				is_down[now->first_target + i] = true;
}

static int take_plan(struct sl_nat *n, struct sl_nat_plan *plan)
{
	_cleanup_free_ bool *is_down = calloc(plan->n_targets + 1, sizeof(*is_down));
	_cleanup_free_ struct sl_nft_target *settled =
		calloc(plan->n_targets + 1, sizeof(*settled));
	_cleanup_free_ struct sl_nat_route *old = calloc(n->routes.n + 1, sizeof(*old));
	_cleanup_free_ uint32_t *by_name = calloc(n->routes.n + 1, sizeof(*by_name));
	struct sl_nat_routes before = { old, n->routes.n, by_name };
	int r;

	if (!is_down || !settled || !old || !by_name)
		return -ENOMEM;
	if (before.n) {
		memcpy(old, n->routes.item, before.n * sizeof(*old));
		memcpy(by_name, n->routes.by_name, before.n * sizeof(*by_name));
	}
	r = sl_nat_routes_plan(&n->routes, plan, n_dumps(n) + 2);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n->routes.n; i++)
		if (n->routes.item[i].plan)
			carry_down(n, sl_nat_routes_named(&before, n->routes.item[i].name),
				   &n->routes.item[i], is_down);
	free(n->is_down);
	n->is_down = SL_TAKE_PTR(is_down);
	free(n->settled);
	n->settled = SL_TAKE_PTR(settled);
	sl_nat_plan_free(n->plan);
	n->plan = plan;
	return 0;
}

void sl_nat_set_plan(struct sl_nat *n, struct sl_nat_plan *plan)
{
	struct sl_nft_report report;
	int r;

	if (!n->table) {
		sl_nat_plan_free(plan);
		refresh(n);
		return;
	}
	r = take_plan(n, plan);
	if (r < 0) {
		sl_nat_plan_free(plan);
		(void)sl_err(r, "nftables: cannot take the new configuration, the old one stays");
		return;
	}
	(void)attempt(n, &report);
	if (n->stream && sl_nat_routes_n_gone(&n->routes))
		sl_ct_stream_dump_soon(n->stream);
	if (!sl_timer_is_armed(&n->tick))
		sl_timer_start(n->loop, &n->tick, sl_loop_now_ms(n->loop) + TICK_MS, on_tick);
}

bool sl_nat_can_take(const struct sl_nat *n, const struct sl_nat_plan *plan)
{
	if (!n->table)
		return plan->n_routes == 0;
	return strcmp(n->name, plan->table) == 0 && n->mark_base == plan->mark_base;
}

void sl_nat_each_route(const struct sl_nat *n,
		       void (*fn)(void *arg, const struct sl_nft_route *route), void *arg)
{
	for (size_t i = 0; i < n->routes.n; i++) {
		const struct sl_nat_route *r = &n->routes.item[i];
		struct sl_nft_route route;

		if (!r->plan)
			continue;
		route = *r->plan;
		route.mark = r->mark;
		fn(arg, &route);
	}
}

const char *sl_nat_table(const struct sl_nat *n)
{
	return n->name;
}

void sl_nat_set_target(struct sl_nat *n, const struct sl_broker_nat_target *target, bool is_down)
{
	const struct sl_nat_route *route = sl_nat_routes_named(&n->routes, target->route);

	for (size_t i = 0; route && route->plan && i < route->plan->n_targets; i++) {
		bool *down = &n->is_down[route->first_target + i];

		if (*down == is_down || strcmp(route->plan->targets[i].name, target->target) != 0)
			continue;
		*down = is_down;
		sl_loop_defer(n->loop, &n->apply_task, on_apply); /* many may come at once */
	}
}

/* ---- life ---- */

static void off_because(struct sl_nat *n, int err)
{
	char text[128];

	if (err == -EPERM)
		say_off(n, "no right to change the kernel's rules (CAP_NET_ADMIN)");
	else if (err == -EOPNOTSUPP)
		say_off(n, "this kernel has no nf_tables");
	else {
		(void)snprintf(text, sizeof(text), "cannot read the kernel's rules: %s",
			       strerror(-err));
		say_off(n, text);
	}
}

static bool is_of_this_program(const struct sl_nft_ruleset *rs)
{
	const char *stem = SL_NFT_TABLE_COMMENT_STEM;

	return strncmp(sl_nft_text(rs, rs->comment), stem, strlen(stem)) == 0;
}

/* The module comes with whoever asks first; before that its settings are not there. */
static void load_conntrack(const struct sl_nat *n)
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

/* `table` stays NULL where there is nothing to do, or nothing can be done. */
static int open_table(struct sl_nat *n, bool is_wanted)
{
	_cleanup_(sl_nft_table_closep) struct sl_nft_table *t = NULL;
	_cleanup_(sl_nft_ruleset_freep) struct sl_nft_ruleset *rs = NULL;
	int r = sl_nft_table_open(n->name, &t);

	if (r == 0)
		r = sl_nft_table_read(t, &rs);
	if (r < 0 && r != -ENOENT) {
		if (is_wanted)
			off_because(n, r);
		return 0;
	}
	if (rs && is_of_this_program(rs)) {
		r = sl_nat_routes_adopt(&n->routes, rs);
		if (r < 0)
			return r;
		n->is_installed = true;
		read_kept(rs, &n->was);
	} else if (!is_wanted) {
		return 0;
	}
	r = sl_io_start(n->loop, &n->watch_io, sl_nft_table_watch_fd(t), SL_IO_IN, on_watch);
	if (r < 0)
		return r;
	n->table = SL_TAKE_PTR(t);
	load_conntrack(n);
	sl_ct_timeouts_read(&n->timeouts);
	return 0;
}

int sl_nat_new(const struct sl_nat_options *options, const struct sl_nat_plan *plan,
	       struct sl_nat **ret)
{
	struct sl_nat *n = calloc(1, sizeof(*n));
	int r;

	if (!n)
		return -ENOMEM;
	n->options = *options;
	n->loop = options->loop;
	n->mark_base = plan->mark_base;
	n->started_ns = real_ns();
	n->was = untouched;
	sl_ct_timeouts_default(&n->timeouts);
	memcpy(n->name, plan->table, sizeof(n->name));
	r = open_table(n, plan->n_routes > 0);
	if (r < 0) {
		sl_nat_free(n);
		return r;
	}
	*ret = n;
	return 0;
}

static void close_all(struct sl_nat *n)
{
	stop_stream(n);
	sl_task_cancel(&n->apply_task);
	sl_timer_stop(&n->retry);
	sl_timer_stop(&n->repair);
	sl_timer_stop(&n->tick);
	sl_io_stop(&n->watch_io);
	sl_nft_table_close(SL_TAKE_PTR(n->table));
}

void sl_nat_free(struct sl_nat *n)
{
	if (!n)
		return;
	close_all(n);
	sl_nat_routes_done(&n->routes);
	sl_nat_plan_free(n->plan);
	free(n->is_down);
	free(n->settled);
	free(n);
}

void sl_nat_stop(struct sl_nat *n)
{
	struct sl_nft_report report;
	size_t cut = 0;
	int r = 0;

	if (!n->table || !n->plan || n->plan->keep_on_exit || !n->is_installed)
		return;
	if (n->stream && n_flows(n)) {
		r = install(n, SL_NFT_KILLED, &report);
		(void)usleep(KILL_WAIT_US);
		cut = delete_flows(n, is_ours);
	}
	if (r == 0)
		r = sl_nft_table_remove(n->table, &report);
	if (r < 0) {
		(void)sl_warn(r, "nftables: cannot remove table inet %s; try sluiced --purge: %s",
			      n->name, report.text);
	} else {
		restore_settings(&n->was);
		sl_info("nftables: table inet %s is removed, %zu flow%s cut", n->name, cut,
			cut == 1 ? "" : "s");
	}
	close_all(n);
	sl_nat_routes_done(&n->routes);
	n->is_installed = n->is_applied = false;
	(void)snprintf(n->why_off, sizeof(n->why_off), "stopped");
	refresh(n);
}

/* ---- without a broker ---- */

bool sl_nat_is_there(const char *table)
{
	_cleanup_(sl_nft_table_closep) struct sl_nft_table *t = NULL;
	_cleanup_(sl_nft_ruleset_freep) struct sl_nft_ruleset *rs = NULL;

	return sl_nft_table_open(table, &t) == 0 && sl_nft_table_read(t, &rs) == 0 &&
	       is_of_this_program(rs);
}

/* What flows there are is known after a dump. */
static void wait_dump(struct sl_nat *n)
{
	uint64_t until_ms = sl_clock_ms() + PURGE_WAIT_MS;

	while (n_dumps(n) == 0 && sl_clock_ms() < until_ms)
		(void)usleep(5000);
}

static int purge(struct sl_nat *n, struct sl_str *report)
{
	struct sl_ct_stream_conf conf = { .max_records = records_wanted(),
					  .dump_ms = DUMP_MS,
					  .rcvbuf = EVENTS_BYTES };
	struct sl_nft_report removed;
	size_t n_routes = n->routes.n, cut = 0;
	const char *what;
	int r = sl_nft_table_remove(n->table, &removed);

	if (r < 0) {
		sl_str_addf(report, "%s\n", removed.text[0] ? removed.text : strerror(-r));
		return r;
	}
	set_marks(n, &conf);
	sl_ct_timeouts_default(&conf.timeouts);
	if (n_routes && sl_ct_stream_start(&conf, &n->stream, &what) == 0) {
		wait_dump(n);
		cut = delete_flows(n, is_ours);
		sl_ct_stream_stop(SL_TAKE_PTR(n->stream));
	}
	restore_settings(&n->was);
	sl_str_addf(report, "removed table inet %s with %zu route%s, cut %zu flow%s\n", n->name,
		    n_routes, n_routes == 1 ? "" : "s", cut, cut == 1 ? "" : "s");
	return 0;
}

int sl_nat_purge(const char *table, struct sl_str *report)
{
	_cleanup_(sl_nft_ruleset_freep) struct sl_nft_ruleset *rs = NULL;
	struct sl_nat n = { .was = untouched };
	int r = sl_nft_table_open(table, &n.table);

	if (r == -EOPNOTSUPP)
		return 0;
	if (r == 0)
		r = sl_nft_table_read(n.table, &rs);
	if (r == 0 && !is_of_this_program(rs)) {
		sl_str_addf(report, "table inet %s is not of this program, it stays\n", table);
	} else if (r == 0) {
		(void)snprintf(n.name, sizeof(n.name), "%s", table);
		r = sl_nat_routes_adopt(&n.routes, rs);
		if (r == 0) {
			read_kept(rs, &n.was);
			r = purge(&n, report);
		}
	} else if (r == -ENOENT) {
		r = 0;
	}
	sl_nft_table_close(n.table);
	sl_nat_routes_done(&n.routes);
	return r;
}
