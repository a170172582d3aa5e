/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "ctl/metrics.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/flows.h"
#include "ctl/view_kernel.h"

/* Of certificates; of more names those stay that end first. */
#define MAX_NAMES 10000

/*
 * Samples of one metric must stand together, but the routes are visited once:
 * so each metric collects its own text.
 */
#define METRICS(X)                                                                                 \
	X(BUILD_INFO, "sluice_build_info", "gauge", "Always 1; the label tells the version.")      \
	X(UPTIME, "sluice_uptime_seconds", "gauge", "Time since the daemon started.")              \
	X(READY, "sluice_ready", "gauge", "1 when serving, 0 while starting or draining.")         \
	X(GENERATION, "sluice_config_generation", "gauge", "Number of the configuration in use.")  \
	X(RELOAD_OK, "sluice_config_last_reload_successful", "gauge",                              \
	  "0 when the last reload was refused and the older configuration stays.")                 \
	X(ACTIVE, "sluice_connections_active", "gauge", "Open connections.")                       \
	X(TOTAL, "sluice_connections_total", "counter", "Connections an engine was started for.")  \
	X(ACCEPTED, "sluice_connections_accepted_total", "counter",                                \
	  "Connections accepted, those refused afterwards included.")                              \
	X(REJECTED, "sluice_connections_rejected_total", "counter",                                \
	  "Connections refused by a limit, a list or for lack of a route.")                        \
	X(ENDS, "sluice_terminations_total", "counter", "Ends of connections by side and reason.") \
	X(BYTES, "sluice_bytes_total", "counter",                                                  \
	  "Bytes delivered; up is from the client to the backend.")                                \
	X(CONNECT, "sluice_connect_duration_seconds", "histogram",                                 \
	  "Time until the backend had accepted.")                                                  \
	X(DURATION, "sluice_connection_duration_seconds", "histogram",                             \
	  "Lifetime of connections that have ended.")                                              \
	X(STATE, "sluice_state_duration_seconds", "histogram",                                     \
	  "Time connections spent in a state they have left.")                                     \
	X(AGE, "sluice_connection_age_seconds", "histogram", "Age of the open connections.")       \
	X(CHOICE, "sluice_engine_choice_total", "counter", "Engines chosen, and why.")             \
	X(MOVES, "sluice_engine_moves_total", "counter",                                           \
	  "Open connections that went from one engine to another, and why to that.")               \
	X(HANDOVER, "sluice_handover_total", "counter",                                            \
	  "Attempts to give a flow to a kernel engine: done, or why not.")                         \
	X(HANDOVER_TIME, "sluice_handover_duration_seconds", "histogram",                          \
	  "Time from asking for a hand-over to its answer.")                                       \
	X(ENGINE, "sluice_engine_available", "gauge",                                              \
	  "1 when connections can be given to the engine.")                                        \
	X(KERNEL_FLOWS, "sluice_kernel_flows", "gauge", "Flows the kernel carries now.")           \
	X(KERNEL_HELD, "sluice_kernel_flows_held", "gauge",                                        \
	  "Flows that are over, whose entries wait for late packets.")                             \
	X(OUTCOMES, "sluice_packet_outcomes_total", "counter",                                     \
	  "What the packet programs did, by outcome; packets unless the name says else.")          \
	X(JOINED_OUTCOMES, "sluice_sockmap_outcomes_total", "counter",                             \
	  "What the sockmap program did, by outcome; packets unless the name says else.")          \
	X(DRIFT, "sluice_drift_total", "counter",                                                  \
	  "Differences between kernel and records that were found.")                               \
	X(NFT_REPAIRS, "sluice_nftables_repairs_total", "counter",                                 \
	  "Times that somebody else's changes to our nftables table were put right.")              \
	X(NFT_RESYNCS, "sluice_nftables_resyncs_total", "counter",                                 \
	  "Times that flows were read anew after events of connection tracking were lost.")        \
	X(CT_ENTRIES, "sluice_conntrack_entries", "gauge",                                         \
	  "Entries of connection tracking, also those of others.")                                 \
	X(CT_LIMIT, "sluice_conntrack_limit", "gauge",                                             \
	  "Entries that fit; more connections than that get nowhere.")                             \
	X(TARGET_UP, "sluice_target_up", "gauge", "1 when the target can be used.")                \
	X(TARGET_ACTIVE, "sluice_target_connections_active", "gauge",                              \
	  "Open connections to the target.")                                                       \
	X(TARGET_FAILED, "sluice_target_connect_failures_total", "counter",                        \
	  "Attempts to connect to the target that failed.")                                        \
	X(TARGET_CHECKS, "sluice_health_checks_total", "counter",                                  \
	  "Health checks of the target by result, ok or failed.")                                  \
	X(HANDSHAKES, "sluice_tls_handshakes_total", "counter",                                    \
	  "TLS handshakes with clients that are over, by what was agreed and how it ended.")       \
	X(BACKEND_HANDSHAKES, "sluice_tls_backend_handshakes_total", "counter",                    \
	  "The same with targets.")                                                                \
	X(HANDSHAKING, "sluice_tls_handshakes_active", "gauge", "TLS handshakes under way.")       \
	X(HANDSHAKES_WAITING, "sluice_tls_handshakes_waiting", "gauge",                            \
	  "Connections whose TLS handshake waits for its turn to begin.")                          \
	X(NOT_AFTER, "sluice_certificate_not_after_seconds", "gauge",                              \
	  "When the certificate in use for the name ends, since 1970; the first one of several.")  \
	X(CHANGES, "sluice_config_runtime_changes", "gauge",                                       \
	  "Changes made at run time that lie over the files.")                                     \
	X(DENIED, "sluice_denied_syns_total", "counter",                                           \
	  "Connection attempts of denied sources that the kernel dropped before accept.")          \
	X(OVERLOADED, "sluice_overloaded", "gauge", "1 while the circuit breaker refuses.")        \
	X(DNS_QUERIES, "sluice_dns_queries_total", "counter", "Questions asked of name servers.")  \
	X(DNS_FAILURES, "sluice_dns_failures_total", "counter", "Questions without an answer.")    \
	X(ACCEPT_ERRORS, "sluice_accept_errors_total", "counter",                                  \
	  "Failures of accept for lack of descriptors or memory.")                                 \
	X(ACCESS_DROPPED, "sluice_access_log_dropped_bytes_total", "counter",                      \
	  "Bytes of the access log that were not written, because its reader was too slow.")       \
	X(BUGS, "sluice_fsm_bugs_total", "counter",                                                \
	  "Impossible events; anything but 0 is a defect.")

enum metric {
#define X(id, name, type, help) METRIC_##id,
	METRICS(X)
#undef X
		METRIC_COUNT_,
};

static const struct {
	const char *name;
	const char *type;
	const char *help;
} metrics[METRIC_COUNT_] = {
#define X(id, name, type, help) { name, type, help },
	METRICS(X)
#undef X
};

struct page {
	struct sl_str text[METRIC_COUNT_];
};

static void page_done(struct page *p)
{
	for (int i = 0; i < METRIC_COUNT_; i++)
		sl_str_done(&p->text[i]);
}

struct label {
	const char *name;
	const char *value;
};

static void add_escaped(struct sl_str *s, const char *value)
{
	for (; *value; value++) {
		if (*value == '\n') {
			sl_str_adds(s, "\\n");
			continue;
		}
		if (*value == '\\' || *value == '"')
			sl_str_addc(s, '\\');
		sl_str_addc(s, *value);
	}
}

/* name + suffix + {labels}; labels end with a NULL name. */
static void add_series(struct sl_str *s, const char *name, const char *suffix,
		       const struct label *labels)
{
	sl_str_adds(s, name);
	sl_str_adds(s, suffix);
	if (!labels || !labels->name)
		return;
	for (char before = '{'; labels->name; labels++, before = ',') {
		sl_str_addc(s, before);
		sl_str_adds(s, labels->name);
		sl_str_adds(s, "=\"");
		add_escaped(s, labels->value);
		sl_str_addc(s, '"');
	}
	sl_str_addc(s, '}');
}

static void add(struct page *p, enum metric m, const struct label *labels, uint64_t value)
{
	add_series(&p->text[m], metrics[m].name, "", labels);
	sl_str_addf(&p->text[m], " %" PRIu64 "\n", value);
}

#define LABELS(...) ((const struct label[]){ __VA_ARGS__, { NULL, NULL } })

static void add_hist(struct page *p, enum metric m, struct label label, const struct sl_hist *h)
{
	struct sl_str *s = &p->text[m];
	uint64_t count = 0;

	for (size_t i = 0; i <= SL_HIST_BUCKETS; i++) {
		struct label with_le[3] = { label, { 0 }, { 0 } };
		char le[32] = "+Inf";

		if (i < SL_HIST_BUCKETS)
			(void)snprintf(le, sizeof(le), "%g", (double)sl_hist_bound_us[i] / 1e6);
		with_le[label.name ? 1 : 0] = (struct label){ "le", le };
		count += h->bucket[i];
		add_series(s, metrics[m].name, "_bucket", with_le);
		sl_str_addf(s, " %" PRIu64 "\n", count);
	}
	add_series(s, metrics[m].name, "_sum", LABELS(label));
	sl_str_addf(s, " %.6f\n", (double)h->sum_us / 1e6);
	add_series(s, metrics[m].name, "_count", LABELS(label));
	sl_str_addf(s, " %" PRIu64 "\n", count);
}

static void add_target(struct page *p, const char *route, bool checked,
		       const struct sl_target_view *t)
{
	struct label labels[] = { { "route", route }, { "target", t->address }, { 0 } };

	add(p, METRIC_TARGET_UP, labels, t->state == SL_TARGET_UP);
	add(p, METRIC_TARGET_ACTIVE, labels, t->active);
	add(p, METRIC_TARGET_FAILED, labels, t->failed);
	if (!checked)
		return;
	add(p, METRIC_TARGET_CHECKS,
	    LABELS({ "route", route }, { "target", t->address }, { "result", "ok" }), t->checks_ok);
	add(p, METRIC_TARGET_CHECKS,
	    LABELS({ "route", route }, { "target", t->address }, { "result", "failed" }),
	    t->checks_failed);
}

static void add_route_engine(struct page *p, const struct sl_route_view *r, enum sl_engine_id e)
{
	struct label route = { "route", r->conf->name };
	struct label engine = { "engine", sl_engine_name(e) };

	/* An engine that never carried anything here would only add noise. */
	if (e != SL_ENGINE_RELAY && r->engine_total[e] == 0)
		return;
	add(p, METRIC_ACTIVE, LABELS(route, engine), r->engine_active[e]);
	add(p, METRIC_TOTAL, LABELS(route, engine), r->engine_total[e]);
	add(p, METRIC_BYTES, LABELS(route, engine, { "direction", "up" }), r->engine_bytes_up[e]);
	add(p, METRIC_BYTES, LABELS(route, engine, { "direction", "down" }),
	    r->engine_bytes_down[e]);
	for (int s = 0; s < SL_SIDE_COUNT_; s++)
		for (int i = SL_REASON_NONE + 1; i < SL_REASON_COUNT_; i++)
			if (r->ended[e][s][i] || i == SL_REASON_NORMAL)
				add(p, METRIC_ENDS,
				    LABELS(route, engine, { "side", sl_side_name((enum sl_side)s) },
					   { "reason", sl_reason_name((enum sl_reason)i) }),
				    r->ended[e][s][i]);
}

static void add_route(void *arg, const struct sl_route_view *r)
{
	struct page *p = arg;

	for (int e = 0; e < SL_ENGINE_COUNT_; e++)
		add_route_engine(p, r, (enum sl_engine_id)e);
	for (int i = SL_REASON_NONE + 1; i < SL_REASON_COUNT_; i++)
		if (r->rejected[i])
			add(p, METRIC_REJECTED,
			    LABELS({ "route", r->conf->name },
				   { "reason", sl_reason_name((enum sl_reason)i) }),
			    r->rejected[i]);
	for (size_t i = 0; i < r->n_targets; i++)
		add_target(p, r->conf->name, r->conf->health.enabled, &r->targets[i]);
}

static void add_moves(struct page *p, enum sl_engine_id from, enum sl_engine_id to,
		      const uint64_t moves[SL_WHY_COUNT_])
{
	for (int i = SL_WHY_NONE + 1; i < SL_WHY_COUNT_; i++)
		if (moves[i])
			add(p, METRIC_MOVES,
			    LABELS({ "from", sl_engine_name(from) }, { "to", sl_engine_name(to) },
				   { "reason", sl_engine_reason_name((enum sl_engine_reason)i) }),
			    moves[i]);
}

static void add_totals(struct page *p, const struct sl_proxy_totals *t)
{
	static const struct label none = { 0 };

	add(p, METRIC_ACCEPTED, NULL, t->accepted);
	/* Always there, so that a rate exists from the first refusal on. */
	for (int i = SL_REASON_NONE + 1; i < SL_REASON_COUNT_; i++)
		if (t->no_route_rejected[i] || i == SL_REASON_NO_ROUTE)
			add(p, METRIC_REJECTED,
			    LABELS({ "route", "-" },
				   { "reason", sl_reason_name((enum sl_reason)i) }),
			    t->no_route_rejected[i]);
	/* Ended before a route was known: the client side is all there was. */
	for (int i = SL_REASON_NONE + 1; i < SL_REASON_COUNT_; i++)
		if (t->no_route_ended[i])
			add(p, METRIC_ENDS,
			    LABELS({ "route", "-" }, { "engine", "-" }, { "side", "client" },
				   { "reason", sl_reason_name((enum sl_reason)i) }),
			    t->no_route_ended[i]);
	for (int e = 0; e < SL_ENGINE_COUNT_; e++)
		for (int i = SL_WHY_NONE + 1; i < SL_WHY_COUNT_; i++)
			if (t->engine_why[e][i])
				add(p, METRIC_CHOICE,
				    LABELS({ "engine", sl_engine_name((enum sl_engine_id)e) },
					   { "reason",
					     sl_engine_reason_name((enum sl_engine_reason)i) }),
				    t->engine_why[e][i]);
	for (int e = 0; e < SL_ENGINE_COUNT_ * SL_ENGINE_COUNT_; e++)
		add_moves(p, (enum sl_engine_id)(e / SL_ENGINE_COUNT_),
			  (enum sl_engine_id)(e % SL_ENGINE_COUNT_),
			  t->engine_moves[e / SL_ENGINE_COUNT_][e % SL_ENGINE_COUNT_]);
	add_hist(p, METRIC_CONNECT, none, &t->connect);
	add_hist(p, METRIC_DURATION, none, &t->duration);
	for (int i = 0; i < SL_CONN_CLOSED; i++)
		add_hist(p, METRIC_STATE,
			 (struct label){ "state", sl_conn_state_name((enum sl_conn_state)i) },
			 &t->in_state[i]);
	add(p, METRIC_OVERLOADED, NULL, t->overloaded);
	add(p, METRIC_DNS_QUERIES, NULL, t->dns.queries);
	add(p, METRIC_DNS_FAILURES, NULL, t->dns.failures);
	add(p, METRIC_ACCEPT_ERRORS, NULL, t->accept_errors);
	add(p, METRIC_ACCESS_DROPPED, NULL, t->access_dropped);
	add(p, METRIC_BUGS, NULL, t->fsm_bugs);
}

static void add_outcome(void *arg, const char *name, uint64_t value)
{
	add(arg, METRIC_OUTCOMES, LABELS({ "outcome", name }), value);
}

static void add_handovers(struct page *p, enum sl_engine_id engine, const struct sl_proxy_totals *t)
{
	const struct label label = { "engine", sl_engine_name(engine) };

	for (int i = SL_WHY_NONE + 1; i < SL_WHY_COUNT_; i++)
		if (t->handover[engine][i] || i == SL_WHY_ELIGIBLE)
			add(p, METRIC_HANDOVER,
			    LABELS(label, { "result", i == SL_WHY_ELIGIBLE
							      ? "done"
							      : sl_engine_reason_name((
									enum sl_engine_reason)i) }),
			    t->handover[engine][i]);
}

static void add_kernel(struct page *p, const struct sl_proxy *proxy,
		       const struct sl_proxy_totals *t)
{
	const struct label engine = { "engine", sl_engine_name(SL_ENGINE_PACKET) };
	struct sl_kernel_view k;

	sl_proxy_kernel(proxy, &k);
	add_handovers(p, SL_ENGINE_PACKET, t);
	add_handovers(p, SL_ENGINE_SOCKMAP, t);
	add_hist(p, METRIC_HANDOVER_TIME, (struct label){ 0 }, &t->handover_time);
	add(p, METRIC_ENGINE, LABELS(engine), sl_view_packet_is_on(proxy));
	add(p, METRIC_KERNEL_FLOWS, LABELS(engine), sl_view_packet_flows(t, &k));
	add(p, METRIC_KERNEL_HELD, LABELS(engine), k.status.n_held);
	for (int i = 0; i < SL_DRIFT_COUNT_; i++)
		add(p, METRIC_DRIFT, LABELS({ "kind", sl_drift_kind_name((enum sl_drift_kind)i) }),
		    k.drift[i]);
	if (k.counters_fd >= 0)
		(void)sl_flows_outcomes(k.counters_fd, add_outcome, p);
}

static void add_joined_outcome(void *arg, const char *name, uint64_t value)
{
	add(arg, METRIC_JOINED_OUTCOMES, LABELS({ "outcome", name }), value);
}

static void add_sockmap(struct page *p, const struct sl_proxy *proxy,
			const struct sl_proxy_totals *t)
{
	const struct label engine = { "engine", sl_engine_name(SL_ENGINE_SOCKMAP) };
	struct sl_kernel_view k;

	sl_proxy_kernel(proxy, &k);
	add(p, METRIC_ENGINE, LABELS(engine), sl_view_sockmap_is_on(proxy));
	add(p, METRIC_KERNEL_FLOWS, LABELS(engine), t->engine_active[SL_ENGINE_SOCKMAP]);
	sl_joined_outcomes(k.sockmap_maps, add_joined_outcome, p);
}

/* Connection tracking is looked at where there are routes of this engine. */
static void add_nat(struct page *p, const struct sl_proxy *proxy, const struct sl_proxy_totals *t)
{
	const struct label engine = { "engine", sl_engine_name(SL_ENGINE_NFTABLES) };
	struct sl_kernel_view k;

	sl_proxy_kernel(proxy, &k);
	add(p, METRIC_ENGINE, LABELS(engine), k.nat.is_on);
	add(p, METRIC_KERNEL_FLOWS, LABELS(engine), t->engine_active[SL_ENGINE_NFTABLES]);
	if (!k.nat.text[0])
		return;
	add(p, METRIC_NFT_REPAIRS, NULL, k.nat.repairs);
	add(p, METRIC_NFT_RESYNCS, NULL, k.nat.resyncs);
	if (!k.nat.ct_max)
		return;
	add(p, METRIC_CT_ENTRIES, NULL, k.nat.ct_count);
	add(p, METRIC_CT_LIMIT, NULL, k.nat.ct_max);
}

/* ---- TLS ---- */

/* From the first scrape on, so that rates exist. */
static bool is_always_there(int version, int result)
{
	return (version == SL_TLS_COUNT_NONE) != (result == SL_TLS_COUNT_OK);
}

static void add_handshakes(struct page *p, enum metric m,
			   const uint64_t n[SL_TLS_COUNT_VERSIONS_][2][SL_TLS_COUNT_RESULTS_])
{
	for (int v = 0; v < SL_TLS_COUNT_VERSIONS_; v++)
		for (int resumed = 0; resumed < 2; resumed++)
			for (int r = 0; r < SL_TLS_COUNT_RESULTS_; r++) {
				enum sl_tls_count_version version = (enum sl_tls_count_version)v;
				enum sl_tls_count_result result = (enum sl_tls_count_result)r;
				const char *name = sl_tls_count_version_name(version);

				if (!n[v][resumed][r] && (resumed || !is_always_there(v, r)))
					continue;
				add(p, m,
				    LABELS({ "version", name[0] ? name : "-" },
					   { "resumed", resumed ? "true" : "false" },
					   { "result", sl_tls_count_result_name(result) }),
				    n[v][resumed][r]);
			}
}

struct expiry {
	char *name;
	int64_t at_s;
};

struct expiries {
	struct expiry *item;
	size_t n;
	size_t cap;
	bool oom;
};

static void expiries_done(struct expiries *e)
{
	for (size_t i = 0; i < e->n; i++)
		free(e->item[i].name);
	free(e->item);
}

static void add_expiry(struct expiries *e, const char *name, int64_t at_s)
{
	if (e->n == e->cap) {
		size_t cap = e->cap ? e->cap * 2 : 64;
		struct expiry *item = reallocarray(e->item, cap, sizeof(*item));

		if (!item) {
			e->oom = true;
			return;
		}
		e->item = item;
		e->cap = cap;
	}
	e->item[e->n] = (struct expiry){ strdup(name), at_s };
	if (e->item[e->n].name)
		e->n++;
	else
		e->oom = true;
}

static void collect_expiries(void *arg, const struct sl_cert_view *c)
{
	struct expiries *e = arg;

	if (!c->label[0])
		return;
	for (size_t i = 0; i < c->n_names; i++)
		add_expiry(e, c->names[i], c->not_after_s);
	if (c->n_names == 0)
		add_expiry(e, "-", c->not_after_s);
}

static int by_name(const void *a, const void *b)
{
	const struct expiry *x = a;
	const struct expiry *y = b;
	int r = strcmp(x->name, y->name);

	return r ? r : (x->at_s > y->at_s) - (x->at_s < y->at_s);
}

static int by_time(const void *a, const void *b)
{
	const struct expiry *x = a;
	const struct expiry *y = b;

	return x->at_s == y->at_s ? strcmp(x->name, y->name) : x->at_s < y->at_s ? -1 : 1;
}

/* The earliest of each name stays. */
static void keep_earliest(struct expiries *e)
{
	size_t n = 0;

	if (e->n == 0)
		return;
	qsort(e->item, e->n, sizeof(*e->item), by_name);
	for (size_t i = 0; i < e->n; i++) {
		if (n && strcmp(e->item[n - 1].name, e->item[i].name) == 0)
			free(e->item[i].name);
		else
			e->item[n++] = e->item[i];
	}
	e->n = n;
}

static void add_certificates(struct page *p, struct sl_proxy *proxy)
{
	_cleanup_(expiries_done) struct expiries e = { 0 };

	sl_proxy_each_cert(proxy, collect_expiries, &e);
	keep_earliest(&e);
	if (e.n > MAX_NAMES)
		qsort(e.item, e.n, sizeof(*e.item), by_time);
	if (e.oom)
		p->text[METRIC_NOT_AFTER].oom = true;
	for (size_t i = 0; i < e.n && i < MAX_NAMES; i++) {
		add_series(&p->text[METRIC_NOT_AFTER], metrics[METRIC_NOT_AFTER].name, "",
			   LABELS({ "domain", e.item[i].name }));
		sl_str_addf(&p->text[METRIC_NOT_AFTER], " %" PRId64 "\n", e.item[i].at_s);
	}
}

static void add_tls(struct page *p, struct sl_proxy *proxy, const struct sl_tls_totals *t)
{
	add_handshakes(p, METRIC_HANDSHAKES, t->handshakes[SL_CLIENT]);
	add_handshakes(p, METRIC_BACKEND_HANDSHAKES, t->handshakes[SL_BACKEND]);
	add(p, METRIC_HANDSHAKING, NULL, t->handshaking);
	add(p, METRIC_HANDSHAKES_WAITING, NULL, t->waiting);
	add_certificates(p, proxy);
}

static void add_denied(struct page *p, const struct sl_ctl_facts *facts)
{
	struct sl_ctl_guarded n = { 0 };

	if (!facts->read_guarded)
		return;
	facts->read_guarded(facts->read_guarded_arg, &n);
	add(p, METRIC_DENIED, LABELS({ "family", "ipv4" }), n.dropped4);
	add(p, METRIC_DENIED, LABELS({ "family", "ipv6" }), n.dropped6);
}

void sl_metrics_render(struct sl_str *out, struct sl_proxy *proxy, const struct sl_ctl_facts *facts,
		       const struct sl_hist *age, uint64_t now_ms)
{
	_cleanup_(page_done) struct page page = { 0 };
	struct sl_proxy_totals totals = { 0 };

	sl_proxy_totals(proxy, &totals);
	add(&page, METRIC_BUILD_INFO, LABELS({ "version", SL_VERSION }), 1);
	add(&page, METRIC_UPTIME, NULL,
	    now_ms > facts->started_ms ? (now_ms - facts->started_ms) / 1000 : 0);
	add(&page, METRIC_READY, NULL, facts->ready && !sl_proxy_is_draining(proxy));
	add(&page, METRIC_GENERATION, NULL, sl_proxy_generation(proxy));
	add(&page, METRIC_RELOAD_OK, NULL, facts->last_reload_unix <= 0 || facts->last_reload_ok);
	add(&page, METRIC_CHANGES, NULL, facts->changes ? facts->changes->n : 0);
	add_denied(&page, facts);
	add_totals(&page, &totals);
	add_kernel(&page, proxy, &totals);
	add_sockmap(&page, proxy, &totals);
	add_nat(&page, proxy, &totals);
	add_tls(&page, proxy, &totals.tls);
	add_hist(&page, METRIC_AGE, (struct label){ 0 }, age);
	sl_proxy_each_route(proxy, add_route, &page);

	for (int i = 0; i < METRIC_COUNT_; i++) {
		const struct sl_str *text = &page.text[i];

		if (text->oom)
			out->oom = true;
		if (text->len == 0)
			continue;
		sl_str_addf(out, "# HELP %s %s\n# TYPE %s %s\n", metrics[i].name, metrics[i].help,
			    metrics[i].name, metrics[i].type);
		sl_str_add(out, text->p, text->len);
	}
}
