/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "ctl/view_kernel.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "broker/nat_plan.h"
#include "ctl/view_joined.h"

/* Of one answer; about 90000 flows. */
#define MAX_TEXT (UINT32_C(60) << 20)

static bool is_hook_off(const struct sl_proxy *proxy)
{
	const struct sl_conf *conf = sl_proxy_conf(proxy);

	return conf && conf->global.packet.hook == SL_HOOK_CHOICE_OFF;
}

/* Why no flow can be handed over; NULL: they can be. */
static const char *off_text(const struct sl_proxy *proxy, const struct sl_ctl_facts *facts,
			    const struct sl_kernel_view *k)
{
	if (is_hook_off(proxy))
		return "off: packet.hook is off";
	if (k->off == SL_WHY_ELIGIBLE)
		return NULL;
	if (facts->no_broker && facts->no_broker[0])
		return facts->no_broker;
	/* A broker that is off has no maps to give, so has_broker is false of it. */
	if (k->status.text[0] && !k->status.is_on)
		return k->status.text;
	return "off: the broker process is being started";
}

/* Where the broker is there, and has said why the engine is off. */
static const char *broker_hint(enum sl_engine_reason why)
{
	if (why == SL_WHY_SELF_TEST_FAILED)
		return "the log says which test failed, which is worth a report with 'uname -a'; "
		       "'sluice reload' tries again";
	if (why == SL_WHY_NO_PRIVILEGE)
		return "'sluice reload' tries again when that is mended; a missing capability "
		       "takes a new start that has it (CapabilityBoundingSet= of the unit, "
		       "--cap-add of the container)";
	return "'sluice reload' tries again when that is mended";
}

/* What to do about it, where the reason does not say so itself. */
static const char *hint(const struct sl_proxy *proxy, const struct sl_ctl_facts *facts,
			const struct sl_kernel_view *k)
{
	if (is_hook_off(proxy))
		return "global.packet.hook: auto, and 'sluice reload'";
	if (k->off == SL_WHY_ELIGIBLE)
		return NULL;
	if (facts->no_broker && facts->no_broker[0])
		return "started as root, sluiced has a broker process; the log says why one ends";
	if (!k->status.text[0] || k->status.is_on)
		return "ask again in a second; the log says why if it stays so";
	return broker_hint(k->off);
}

static const char *off_name(const struct sl_proxy *proxy, const struct sl_kernel_view *k)
{
	if (is_hook_off(proxy))
		return sl_engine_reason_name(SL_WHY_CONFIGURED);
	return sl_engine_reason_name(k->off);
}

bool sl_view_packet_is_on(const struct sl_proxy *proxy)
{
	struct sl_kernel_view k;

	sl_proxy_kernel(proxy, &k);
	return k.off == SL_WHY_ELIGIBLE && !is_hook_off(proxy);
}

uint64_t sl_view_packet_flows(const struct sl_proxy_totals *t, const struct sl_kernel_view *k)
{
	uint64_t records = t->engine_active[SL_ENGINE_PACKET];

	return k->status.orphans && k->status.n_live > records ? k->status.n_live : records;
}

static void add_ports(struct sl_json *j, const struct sl_broker_status *s)
{
	char text[32];

	(void)snprintf(text, sizeof(text), "%u-%u", s->port_from, s->port_to);
	sl_json_str(j, "ports", s->port_to ? text : NULL);
}

/* Each is followed by a blank. */
static void add_names(struct sl_json *j, const char *names, size_t size)
{
	const char *end = names + strnlen(names, size);

	sl_json_arr(j, "interface_names");
	for (const char *blank; (blank = memchr(names, ' ', (size_t)(end - names)));
	     names = blank + 1)
		sl_json_strn(j, NULL, names, (size_t)(blank - names));
	sl_json_arr_end(j);
}

void sl_view_packet_engine(struct sl_json *j, const struct sl_proxy *proxy,
			   const struct sl_ctl_facts *facts)
{
	struct sl_proxy_totals totals;
	struct sl_kernel_view k;
	const char *off;

	sl_proxy_totals(proxy, &totals);
	sl_proxy_kernel(proxy, &k);
	off = off_text(proxy, facts, &k);
	sl_json_bool(j, "available", !off);
	sl_json_str(j, "reason", off ? off : k.status.text);
	sl_json_str(j, "reason_name", off ? off_name(proxy, &k) : NULL);
	sl_json_str(j, "hint", off ? hint(proxy, facts, &k) : NULL);
	sl_json_u64(j, "interfaces", k.status.n_interfaces);
	add_names(j, k.status.interfaces, sizeof(k.status.interfaces));
	sl_json_u64(j, "interfaces_failed", k.status.n_failed);
	sl_json_u64(j, "flows", sl_view_packet_flows(&totals, &k));
	sl_json_u64(j, "held", k.status.n_held);
	sl_json_u64(j, "max_flows", k.status.max_flows);
	add_ports(j, &k.status);
}

/* ---- the sockets that the kernel has joined ---- */

static bool has_sockmap_routes(const struct sl_proxy *proxy)
{
	const struct sl_conf *conf = sl_proxy_conf(proxy);

	for (size_t i = 0; conf && i < conf->n_routes; i++)
		if (conf->routes[i].enabled && conf->routes[i].engine == SL_CHOICE_SOCKMAP)
			return true;
	return false;
}

struct off {
	const char *text; /* NULL: it is on */
	enum sl_engine_reason why;
	const char *hint; /* what to do about it; NULL: nothing, or the text says it */
};

/* Why none can be given to it. */
static struct off sockmap_off(const struct sl_proxy *proxy, const struct sl_ctl_facts *facts,
			      const struct sl_kernel_view *k)
{
	bool is_told = k->has_sockmap && k->sockmap.text[0];

	if (!has_sockmap_routes(proxy))
		return (struct off){ "off: no enabled route has engine: sockmap", SL_WHY_CONFIGURED,
				     NULL };
	if (is_told && k->sockmap.is_on)
		return (struct off){ 0 };
	if (is_told)
		return (struct off){ k->sockmap.text, (enum sl_engine_reason)k->sockmap.why,
				     broker_hint((enum sl_engine_reason)k->sockmap.why) };
	if (facts->no_broker && facts->no_broker[0])
		return (struct off){ facts->no_broker, SL_WHY_NO_PRIVILEGE,
				     "started as root, sluiced has a broker process; the log says "
				     "why one ends" };
	return (struct off){ "off: the broker process is being started", SL_WHY_NO_PRIVILEGE,
			     "ask again in a second; the log says why if it stays so" };
}

bool sl_view_sockmap_is_on(const struct sl_proxy *proxy)
{
	struct sl_kernel_view k;

	sl_proxy_kernel(proxy, &k);
	return has_sockmap_routes(proxy) && k.has_sockmap && k.sockmap.is_on;
}

void sl_view_sockmap_engine(struct sl_json *j, const struct sl_proxy *proxy,
			    const struct sl_ctl_facts *facts)
{
	struct sl_kernel_view k;
	struct off off;

	sl_proxy_kernel(proxy, &k);
	off = sockmap_off(proxy, facts, &k);
	sl_json_bool(j, "available", !off.text);
	sl_json_str(j, "reason", off.text ? off.text : k.sockmap.text);
	sl_json_str(j, "reason_name", off.text ? sl_engine_reason_name(off.why) : NULL);
	sl_json_str(j, "hint", off.hint);
	sl_json_u64(j, "sockets", k.sockmap.n_sockets);
	sl_json_u64(j, "orphans", k.sockmap.n_orphans);
	sl_json_u64(j, "repaired", k.sockmap.repaired);
	sl_json_u64(j, "dropped", k.sockmap.dropped);
	if (k.sockmap_backlog)
		sl_json_u64(j, "backlog", k.sockmap_backlog);
	else
		sl_json_null(j, "backlog");
}

/* ---- the kernel's NAT ---- */

static bool has_nat_routes(const struct sl_proxy *proxy)
{
	const struct sl_conf *conf = sl_proxy_conf(proxy);

	return conf && sl_nat_plan_has_routes(conf);
}

/* Why the rules are not in the kernel; NULL: they are. */
static const char *nat_off_text(const struct sl_proxy *proxy, const struct sl_ctl_facts *facts,
				const struct sl_kernel_view *k)
{
	if (k->nat.is_on)
		return NULL;
	if (!has_nat_routes(proxy))
		return "off: no enabled route has engine: nftables";
	if (k->nat.text[0])
		return k->nat.text;
	if (!k->is_linked && facts->no_broker && facts->no_broker[0])
		return facts->no_broker;
	if (k->nat_stays)
		return "the broker process is being started; rules and connections stay meanwhile";
	return "off: the broker process is being started";
}

static const char *nat_hint(const struct sl_proxy *proxy, const struct sl_ctl_facts *facts,
			    const struct sl_kernel_view *k)
{
	if (k->nat.is_on || !has_nat_routes(proxy))
		return NULL;
	if (k->nat.text[0])
		return "until that is mended nobody forwards its routes";
	if (!k->is_linked && facts->no_broker && facts->no_broker[0])
		return "started as root, sluiced has a broker process; the log says why one ends";
	return "ask again in a second; the log says why if it stays so";
}

static void add_worries(struct sl_json *j, const char *lines)
{
	sl_json_arr(j, "worries");
	while (lines && *lines) {
		size_t n = strcspn(lines, "\n");

		sl_json_strn(j, NULL, lines, n);
		lines += lines[n] ? n + 1 : n;
	}
	sl_json_arr_end(j);
}

void sl_view_nft_engine(struct sl_json *j, const struct sl_proxy *proxy,
			const struct sl_ctl_facts *facts)
{
	struct sl_kernel_view k;
	const char *off;

	sl_proxy_kernel(proxy, &k);
	off = nat_off_text(proxy, facts, &k);
	sl_json_bool(j, "available", !off);
	sl_json_str(j, "reason", off ? off : k.nat.text);
	sl_json_str(j, "hint", nat_hint(proxy, facts, &k));
	sl_json_bool(j, "forwarding", k.nat.is_on || (off && k.nat_stays));
	sl_json_u64(j, "routes", k.nat.n_routes);
	sl_json_u64(j, "flows", k.nat.n_flows);
	sl_json_u64(j, "adopted", k.nat.adopted);
	sl_json_u64(j, "repairs", k.nat.repairs);
	sl_json_u64(j, "resyncs", k.nat.resyncs);
	sl_json_u64(j, "conntrack_entries", k.nat.ct_count);
	sl_json_u64(j, "conntrack_limit", k.nat.ct_max);
	add_worries(j, k.nat_worries);
}

void sl_view_kernel(struct sl_json *j, const struct sl_proxy *proxy,
		    const struct sl_ctl_facts *facts)
{
	struct sl_proxy_totals totals;
	struct sl_kernel_view k;

	sl_proxy_totals(proxy, &totals);
	sl_proxy_kernel(proxy, &k);
	sl_json_obj(j, "kernel");
	sl_json_u64(j, "packet_flows", sl_view_packet_flows(&totals, &k));
	sl_json_u64(j, "sockmap_sockets", k.sockmap.n_sockets);
	sl_json_u64(j, "nft_flows", totals.engine_active[SL_ENGINE_NFTABLES]);
	sl_json_u64(j, "orphans", k.status.orphans);
	sl_json_u64(j, "missing", 0);
	sl_json_u64(j, "adopted", k.status.adopted);
	sl_json_u64(j, "dropped", k.status.dropped);
	sl_json_u64(j, "repaired", k.status.repaired);
	sl_json_obj_end(j);
	sl_json_obj(j, "packet");
	sl_view_packet_engine(j, proxy, facts);
	sl_json_obj_end(j);
	sl_json_obj(j, "sockmap");
	sl_view_sockmap_engine(j, proxy, facts);
	sl_json_obj_end(j);
	sl_json_obj(j, "nftables");
	sl_view_nft_engine(j, proxy, facts);
	sl_json_obj_end(j);
}

static void add_half(struct sl_json *j, const char *key, const struct sl_flow_row *f,
		     enum sl_side from)
{
	sl_json_obj(j, key);
	sl_json_u64(j, "bytes", f->bytes[from]);
	sl_json_u64(j, "packets", f->packets[from]);
	sl_json_u64(j, "relayed_bytes", f->relayed[from]);
	sl_json_u64(j, "drops", f->drops[from]);
	sl_json_u64(j, "ifindex", f->ifindex[from]);
	sl_json_obj_end(j);
}

static void add_flow(void *arg, const struct sl_flow_row *f)
{
	struct sl_flows_view *v = arg;
	struct sl_json *j = &v->j;

	if (v->id && f->conn_id != v->id)
		return;
	sl_json_obj(j, NULL);
	sl_json_u64(j, "id", f->conn_id);
	sl_json_str(j, "route", f->route[0] ? f->route : NULL);
	sl_json_str(j, "engine", sl_engine_name(SL_ENGINE_PACKET));
	sl_json_str(j, "state", f->state);
	sl_json_bool(j, "complete", f->has_partner);
	sl_json_addr(j, "client", &f->client);
	sl_json_addr(j, "client_via", &f->via);
	sl_json_addr(j, "peer", &f->tuple.client);
	sl_json_addr(j, "front", &f->tuple.front);
	sl_json_addr(j, "source", &f->tuple.back);
	sl_json_addr(j, "backend", &f->tuple.backend);
	sl_json_f64(j, "age_s", (double)f->age_ms / 1000);
	sl_json_f64(j, "idle_s", (double)f->idle_ms / 1000);
	add_half(j, "up", f, SL_CLIENT);
	add_half(j, "down", f, SL_BACKEND);
	sl_json_obj_end(j);
}

static void add_outcome(void *arg, const char *name, uint64_t value)
{
	sl_json_u64(arg, name, value);
}

void sl_view_flows_start(struct sl_flows_view *v, size_t max)
{
	v->max = max;
	v->walk = (struct sl_flows_walk){ .max = max };
	v->j = sl_json_on(&v->out);
	sl_json_obj(&v->j, NULL);
	sl_json_arr(&v->j, "flows");
}

/* As sl_view_flows_step(), of the packet engine's table. */
static int walk_packet(struct sl_flows_view *v, const struct sl_kernel_view *k)
{
	if (k->flows_fd < 0)
		return 1;
	if (v->out.len > MAX_TEXT) {
		v->walk.more = true;
		return 1;
	}
	return sl_flows_step(&v->walk, k->flows_fd, k->routes_fd, sl_clock_us() * 1000, add_flow,
			     v);
}

int sl_view_flows_step(struct sl_flows_view *v, const struct sl_proxy *proxy)
{
	struct sl_kernel_view k;
	int r;

	/* Asked again each time: another broker brings other descriptors. */
	sl_proxy_kernel(proxy, &k);
	if (v->is_walked)
		return sl_joined_step(&v->joined, k.sockmap_maps, v->max - v->walk.n, v->id);
	r = walk_packet(v, &k);
	v->is_walked = r > 0;
	return r > 0 ? 0 : r;
}

bool sl_view_flows_wants_records(const struct sl_flows_view *v)
{
	return v->joined.n > 0;
}

void sl_view_flows_end(struct sl_flows_view *v, const struct sl_proxy *proxy,
		       const struct sl_ctl_facts *facts, const struct sl_conn_survey *records)
{
	struct sl_proxy_totals totals;
	struct sl_kernel_view k;

	sl_proxy_kernel(proxy, &k);
	sl_view_joined(&v->j, &v->joined, records, sl_clock_us() * 1000);
	sl_json_arr_end(&v->j);
	sl_json_bool(&v->j, "more", v->walk.more || v->joined.more);
	sl_json_obj(&v->j, "outcomes");
	if (k.counters_fd >= 0)
		(void)sl_flows_outcomes(k.counters_fd, add_outcome, &v->j);
	sl_json_obj_end(&v->j);
	sl_json_str(&v->j, "reason", off_text(proxy, facts, &k));
	sl_json_obj(&v->j, "sockmap_outcomes");
	sl_joined_outcomes(k.sockmap_maps, add_outcome, &v->j);
	sl_json_obj_end(&v->j);
	sl_json_str(&v->j, "sockmap_reason", sockmap_off(proxy, facts, &k).text);
	sl_proxy_totals(proxy, &totals);
	sl_json_u64(&v->j, "nft_flows", totals.engine_active[SL_ENGINE_NFTABLES]);
	sl_json_obj_end(&v->j);
	sl_str_addc(&v->out, '\n');
}

void sl_view_flows_done(struct sl_flows_view *v)
{
	sl_joined_done(&v->joined);
}
