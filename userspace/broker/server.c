/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "broker/server.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "broker/life.h"
#include "broker/state.h"

/* Statuses are not told more often. */
#define STATUS_MS 200
/* Flows killed or removed in one turn, and buckets looked into for them. */
#define FLUSH_FLOWS 128
#define FLUSH_BUCKETS 4096
/* RSTs go out within it. */
#define ANSWER_MS 200
#define STOP_MS 300

const struct sl_policy *sl_broker_generation(const struct sl_broker *b, uint64_t generation)
{
	for (size_t i = 0; i < SL_BROKER_GENERATIONS; i++)
		if (b->policy[i] && b->policy[i]->generation == generation)
			return b->policy[i];
	return NULL;
}

bool sl_broker_is_on(const struct sl_broker *b)
{
	return b->packet && sl_broker_policy(b) && !sl_broker_policy(b)->is_off;
}

int sl_broker_run(struct sl_broker *b)
{
	int r = sl_packet_run(b->packet);

	return r < 0 ? r : (int)sl_packet_request(b->packet)->result;
}

int sl_broker_order(struct sl_broker *b, enum sl_packet_op op, uint64_t conn_id,
		    const struct sl_packet_key key[2])
{
	struct sl_packet_request *q;

	if (!b->packet)
		return -ENODEV;
	q = sl_packet_request(b->packet);
	*q = (struct sl_packet_request){ .op = op, .conn_id = conn_id };
	memcpy(q->key, key, sizeof(q->key));
	return sl_broker_run(b);
}

bool sl_broker_may_warn(struct sl_broker *b)
{
	return sl_log_allowed(&b->log_limit, sl_loop_now_ms(b->loop), 5, 10000);
}

/* ---- status ---- */

static void describe(const struct sl_broker *b, const struct sl_broker_status *s, unsigned missing,
		     char ret[120])
{
	char more[48] = "";

	if (missing)
		(void)snprintf(more, sizeof(more), ", %u named in packet.interfaces missing",
			       missing);
	if (!b->packet)
		(void)snprintf(ret, 120, "off: %s",
			       b->off_text[0] ? b->off_text : "no configuration yet");
	else if (!sl_broker_is_on(b))
		(void)snprintf(ret, 120, "off: packet.hook is off");
	else
		(void)snprintf(ret, 120, "%s on %" PRIu32 " interface%s%s",
			       sl_packet_hook_text(b->packet), s->n_interfaces,
			       s->n_interfaces == 1 ? "" : "s", more);
}

static void fill_status(const struct sl_broker *b, struct sl_broker_status *ret)
{
	const struct sl_policy *policy = sl_broker_policy(b);
	unsigned missing;
	struct sl_broker_status s = {
		.is_on = sl_broker_is_on(b),
		.why = sl_broker_is_on(b) ? SL_WHY_NONE
		       : b->why_off       ? b->why_off
					  : SL_WHY_NO_PRIVILEGE,
		.n_flows = (uint32_t)b->table.n,
		.n_live = (uint32_t)(b->table.n - b->table.n_over),
		.n_held = (uint32_t)b->table.n_over,
		.max_flows = (uint32_t)b->table.max,
		.adopted = b->n_adopted,
		.dropped = b->n_dropped,
		.repaired = b->n_repaired,
		.orphans = (uint32_t)b->table.n_orphans,
		.port_from = policy ? policy->port_from : 0,
		.port_to = policy ? policy->port_to : 0,
	};

	sl_watch_count(b, &s.n_interfaces, &s.n_failed, &missing);
	sl_watch_names(b, s.interfaces, sizeof(s.interfaces));
	s.n_failed += missing;
	describe(b, &s, missing, s.text);
	*ret = s;
}

static void fill_sockmap_status(const struct sl_broker *b, struct sl_broker_sockmap_status *ret)
{
	const struct sl_sockmap_keeper *k = &b->sockmap;
	struct sl_broker_sockmap_status s = {
		.is_on = k->maps != NULL,
		.why = k->maps      ? SL_WHY_NONE
		       : k->why_off ? k->why_off
				    : SL_WHY_CONFIGURED,
		.n_sockets = k->maps ? 2 * (uint32_t)sl_sockmap_n_pairs(k->maps) : 0,
		.n_orphans = k->n_orphans,
		.repaired = k->n_repaired,
		.dropped = k->n_dropped,
	};

	if (k->maps)
		(void)snprintf(s.text, sizeof(s.text), "on, room for %d sockets", SL_SOCKMAP_SLOTS);
	else
		(void)snprintf(s.text, sizeof(s.text), "off: %s",
			       k->off_text[0] ? k->off_text
					      : "no enabled route has engine: sockmap");
	*ret = s;
}

/* To the control threads. */
static void refresh_sockmap(struct sl_broker *b)
{
	struct sl_broker_sockmap_status now;
	struct sl_list *i;

	fill_sockmap_status(b, &now);
	if (memcmp(&now, &b->sockmap.status, sizeof(now)) == 0)
		return;
	b->sockmap.status = now;
	b->status_at_ms = sl_loop_now_ms(b->loop);
	sl_list_for_each (i, &b->peers) {
		struct sl_peer *p = SL_CONTAINER_OF(i, struct sl_peer, node);

		p->wants_sockmap_status = p->worker == p->n_workers;
		if (p->wants_sockmap_status)
			sl_peer_flush_later(p);
	}
}

void sl_broker_refresh(struct sl_broker *b)
{
	struct sl_broker_status now;
	struct sl_list *i;

	refresh_sockmap(b);
	fill_status(b, &now);
	if (memcmp(&now, &b->status, sizeof(now)) == 0)
		return;
	b->status = now;
	b->status_at_ms = sl_loop_now_ms(b->loop);
	sl_list_for_each (i, &b->peers) {
		struct sl_peer *p = SL_CONTAINER_OF(i, struct sl_peer, node);

		p->wants_status = p->worker == p->n_workers;
		if (p->wants_status)
			sl_peer_flush_later(p);
	}
	if (b->options.changed)
		b->options.changed(b->options.arg, &now);
}

static void on_status(struct sl_timer *timer)
{
	sl_broker_refresh(SL_CONTAINER_OF(timer, struct sl_broker, status_timer));
}

void sl_broker_touch(struct sl_broker *b)
{
	if (!sl_timer_is_armed(&b->status_timer))
		sl_timer_start(b->loop, &b->status_timer, b->status_at_ms + STATUS_MS, on_status);
}

/* ---- on and off ---- */

static enum sl_engine_reason reason_of(int err)
{
	return err == -EPERM || err == -EACCES ? SL_WHY_NO_PRIVILEGE : SL_WHY_NOT_LINUX_SUPPORTED;
}

static void turn_off(struct sl_broker *b)
{
	sl_io_stop(&b->events_io);
	sl_watch_stop(b);
	sl_routes_stop(b);
	sl_sweep_stop(b);
	sl_timer_stop(&b->flush.timer);
	sl_task_cancel(&b->flush.task);
	b->flush.stage = SL_FLUSH_NONE;
	sl_closep(&b->flows_fd);
	sl_packet_close(b->packet);
	b->packet = NULL;
}

static void say_why_off(struct sl_broker *b, enum sl_engine_reason why, const char *text)
{
	b->why_off = why;
	(void)snprintf(b->off_text, sizeof(b->off_text), "%s", text);
	sl_log(SL_LOG_WARN, "packet: off (%s), connections stay on relay", text);
	sl_broker_touch(b);
}

static int fail(struct sl_broker *b, int err, const char *what)
{
	char text[sizeof(b->off_text)];

	turn_off(b);
	(void)snprintf(text, sizeof(text), "%s: %s", what, strerror(-err));
	say_why_off(b, reason_of(err), text);
	return err;
}

static void on_events(struct sl_io *io, uint32_t events)
{
	(void)events;
	sl_sweep_events(SL_CONTAINER_OF(io, struct sl_broker, events_io));
}

/* No socket has such a key: the answer is known, and that there is one shows that it runs. */
static bool is_working(struct sl_broker *b)
{
	static const struct sl_packet_key none[2];

	return sl_broker_order(b, SL_PACKET_OP_LOOK, 0, none) == SL_PACKET_NO_SOCKET;
}

static int open_packet(struct sl_broker *b, struct sl_packet_found *found)
{
	const struct sl_policy *policy = sl_broker_policy(b);
	const struct sl_packet_options options = {
		.dir = policy->bpf_dir,
		.max_flows = policy->max_flows,
		.hook = policy->wants_xdp ? SL_HOOK_XDP : SL_HOOK_TC,
		.port_from = policy->port_from,
		.port_to = policy->port_to,
	};
	_cleanup_(sl_str_done) struct sl_str report = { 0 };
	int r = sl_packet_open(&options, found, &report, &b->packet);

	b->open_error = r;
	if (r < 0)
		say_why_off(b, reason_of(r), report.len ? sl_str_text(&report) : strerror(-r));
	return r;
}

/*
 * A port of an earlier range is given to nobody else as long as a flow has it: packets of another
 * connection with it would be taken for the flow's.
 */
static void release_ports(struct sl_broker *b)
{
	int r;

	if (!b->has_old_ports || b->table.n_elsewhere)
		return;
	r = sl_packet_release_ports(b->packet);
	b->has_old_ports = r < 0;
	if (r > 0)
		sl_info("packet: the ports of an earlier packet.ports are no longer reserved");
	else if (r < 0 && sl_broker_may_warn(b))
		(void)sl_warn(r, "packet: cannot give back the ports of an earlier packet.ports, "
				 "trying again");
}

static void say_held_ports(const struct sl_broker *b)
{
	size_t n = b->table.n_elsewhere;

	if (n)
		sl_info("packet: %zu flow%s a port of an earlier packet.ports, which stays "
			"reserved as long",
			n, n == 1 ? " has" : "s have");
}

static void reserve_ports(struct sl_broker *b)
{
	const struct sl_policy *policy = sl_broker_policy(b);
	int r = sl_packet_reserve_ports(b->packet, policy->port_from, policy->port_to);

	b->has_ports = r == 0;
	b->has_old_ports = true;
	if (r < 0)
		(void)sl_warn(r,
			      "packet: cannot reserve ports %u-%u, other programs may be given "
			      "them (net.ipv4.ip_local_reserved_ports)",
			      policy->port_from, policy->port_to);
}

/* The table outlives being off: records of flows are still there. */
static int init_table(struct sl_broker *b)
{
	struct sl_packet_meta meta;
	int r = sl_packet_get_meta(b->packet, &meta);

	if (r < 0 || b->table.bucket)
		return r;
	return sl_flow_table_init(&b->table, meta.max_flows);
}

static int start_parts(struct sl_broker *b)
{
	int r = init_table(b);

	if (r == 0)
		r = sl_packet_readonly_fd(b->packet, "flows", &b->flows_fd);
	if (r == 0)
		r = sl_routes_start(b);
	if (r < 0)
		return r;
	sl_sweep_start(b); /* which knows what the interfaces are needed for */
	r = sl_watch_start(b);
	return r < 0 ? r
		     : sl_io_start(b->loop, &b->events_io, sl_packet_events_fd(b->packet), SL_IO_IN,
				   on_events);
}

bool sl_broker_has_programs(const struct sl_broker *b)
{
	return b->packet;
}

bool sl_broker_is_off_for_now(const struct sl_broker *b)
{
	return !b->packet && b->open_error < 0 && b->open_error != -ENOTSUP;
}

bool sl_broker_has_sockmap(const struct sl_broker *b)
{
	return b->sockmap.maps;
}

bool sl_broker_is_sockmap_off_for_now(const struct sl_broker *b)
{
	return sl_sockmap_keeper_is_off_for_now(b);
}

/* They came before there was something to say. */
static void greet_peers(struct sl_broker *b)
{
	struct sl_list *i;

	sl_list_for_each (i, &b->peers)
		sl_peer_flush_later(SL_CONTAINER_OF(i, struct sl_peer, node));
}

static void note_found(struct sl_broker *b, const struct sl_packet_found *found)
{
	char text[64];

	if (found->n_strays) {
		(void)snprintf(text, sizeof(text), "%" PRIu32 " attached with other maps",
			       found->n_strays);
		sl_drift_note(&b->drift, SL_DRIFT_PACKET_PROGRAM, SL_DRIFT_REPAIRED,
			      "programs that work on flows", text, "replaced");
	}
	if (found->n_dropped == 0)
		return;
	(void)snprintf(text, sizeof(text), "%" PRIu32 " entries of an earlier daemon",
		       found->n_dropped);
	sl_drift_note(&b->drift, SL_DRIFT_PACKET_DROPPED, SL_DRIFT_REMOVED, NULL, text, "%s",
		      found->why);
	sl_drift_more(&b->drift, SL_DRIFT_PACKET_DROPPED, found->n_dropped - 1);
}

static int turn_on(struct sl_broker *b)
{
	struct sl_packet_found found = { 0 };
	struct sl_broker_status status;
	int r = open_packet(b, &found);

	if (r < 0)
		return r;
	if (!is_working(b)) {
		turn_off(b);
		say_why_off(b, SL_WHY_SELF_TEST_FAILED, "the control program does not work");
		return -ENOTSUP;
	}
	reserve_ports(b);
	r = start_parts(b);
	if (r < 0)
		return fail(b, r, "cannot start");
	sl_flow_table_count_ports(b);
	say_held_ports(b);
	release_ports(b);
	b->why_off = SL_WHY_NONE;
	b->n_adopted = (uint32_t)b->table.n_orphans; /* the others are held, and no more */
	b->n_dropped = found.n_dropped;
	note_found(b, &found);
	fill_status(b, &status);
	sl_info("packet: %s, adopted %" PRIu32 " flow%s, dropped %" PRIu32 "%s%s%s", status.text,
		b->n_adopted, b->n_adopted == 1 ? "" : "s", found.n_dropped,
		found.why[0] ? " (" : "", found.why, found.why[0] ? ")" : "");
	greet_peers(b);
	sl_broker_touch(b);
	return 0;
}

/* ---- policies ---- */

static void remember(struct sl_broker *b, struct sl_policy *policy)
{
	const size_t last = SL_BROKER_GENERATIONS - 1;

	sl_policy_free(b->policy[last]);
	memmove(&b->policy[1], &b->policy[0], last * sizeof(b->policy[0]));
	b->policy[0] = policy;
}

/* Also of what fits no flow, which keeps the next process from making another table, too. */
static bool is_table_empty(struct sl_broker *b)
{
	struct sl_packet_cursor cursor = { 0 };
	size_t n = 0;

	return b->table.n == 0 &&
	       sl_packet_batch(b->flows_fd, &cursor, SL_SWEEP_SLICE, b->sweep.keys, b->sweep.flows,
			       &n) == 1 &&
	       n == 0;
}

static void check_size(struct sl_broker *b)
{
	uint32_t wanted = sl_broker_policy(b)->max_flows;

	if (!b->options.outgrown || wanted == b->table.max) {
		b->size_said = 0;
	} else if (is_table_empty(b)) {
		sl_info("packet: max_flows is changed from %zu to %" PRIu32 ", no flow is left",
			b->table.max, wanted);
		b->options.outgrown(b->options.arg);
	} else if (b->size_said != wanted) {
		b->size_said = wanted;
		sl_info("packet: max_flows stays %zu until no flow is left, then it is %" PRIu32,
			b->table.max, wanted);
	}
}

static void apply(struct sl_broker *b)
{
	const struct sl_policy *now = b->policy[0];
	const struct sl_policy *before = b->policy[1];

	if (!before || before->port_from != now->port_from || before->port_to != now->port_to) {
		sl_flow_table_count_ports(b);
		reserve_ports(b);
		say_held_ports(b);
		release_ports(b);
	}
	sl_watch_policy(b);
	check_size(b);
}

void sl_broker_check(struct sl_broker *b)
{
	release_ports(b);
	check_size(b);
}

void sl_broker_set_policy(struct sl_broker *b, struct sl_policy *policy)
{
	remember(b, policy);
	if (b->packet)
		apply(b);
	else if (!policy->is_off || sl_packet_is_pinned(policy->bpf_dir))
		(void)turn_on(b);
	else
		(void)snprintf(b->off_text, sizeof(b->off_text), "packet.hook is off");
	sl_sockmap_keeper_policy(b);
	sl_broker_touch(b);
}

/* ---- the kernel's NAT ---- */

static bool on_nat_flow(void *arg, uint64_t serial, const struct sl_broker_nat_flow *flow)
{
	return sl_peers_tell_nat(arg, serial, flow);
}

static bool on_nat_told(void *arg)
{
	return sl_peers_tell_nat_is_all(arg);
}

/* Somebody who has it looked at knows the limits better. */
static bool is_nearly_full(const struct sl_broker_nat_status *s)
{
	return s->ct_count / 9 >= s->ct_max / 10 && s->ct_max > 0;
}

static void on_worries(void *arg)
{
	struct sl_broker *b = arg;
	struct sl_list *i;

	sl_list_for_each (i, &b->peers)
		sl_peer_tell_worries(SL_CONTAINER_OF(i, struct sl_peer, node));
}

static void on_nat_status(void *arg, const struct sl_broker_nat_status *status)
{
	struct sl_broker *b = arg;
	struct sl_list *i;

	if (is_nearly_full(status) && !is_nearly_full(&b->nat_status))
		sl_worries_look(b->worries);
	b->nat_status = *status;
	if (b->options.nat_changed)
		b->options.nat_changed(b->options.arg);
	sl_list_for_each (i, &b->peers) {
		struct sl_peer *p = SL_CONTAINER_OF(i, struct sl_peer, node);

		p->wants_nat_status = p->worker == p->n_workers;
		if (p->wants_nat_status)
			sl_peer_flush_later(p);
	}
}

int sl_broker_open_nat(struct sl_broker *b, const struct sl_nat_plan *plan)
{
	const struct sl_nat_options options = { .loop = b->loop,
						.tell = on_nat_flow,
						.told = on_nat_told,
						.changed = on_nat_status,
						.drift = &b->drift,
						.arg = b };
	struct sl_worries_options worries = { .loop = b->loop, .changed = on_worries, .arg = b };
	int r = sl_nat_new(&options, plan, &b->nat);

	worries.nat = b->nat;
	if (r == 0)
		r = sl_worries_new(&worries, &b->worries);
	if (r == 0)
		sl_nat_get_status(b->nat, &b->nat_status);
	return r;
}

bool sl_broker_can_take_nat(const struct sl_broker *b, const struct sl_nat_plan *plan)
{
	return b->nat && sl_nat_can_take(b->nat, plan);
}

void sl_broker_set_nat_plan(struct sl_broker *b, struct sl_nat_plan *plan)
{
	if (!b->nat) {
		sl_nat_plan_free(plan);
		return;
	}
	sl_nat_set_plan(b->nat, plan);
	sl_worries_look(b->worries);
}

bool sl_broker_is_nat_in_force(const struct sl_broker *b, const char **ret_text)
{
	*ret_text = b->nat_status.text;
	return b->nat && sl_nat_is_in_force(b->nat);
}

void sl_broker_stop_nat(struct sl_broker *b)
{
	if (b->nat)
		sl_nat_stop(b->nat);
}

void sl_broker_leave_nat(struct sl_broker *b, const char *table)
{
	if (b->nat && strcmp(sl_nat_table(b->nat), table) != 0)
		sl_nat_leave(b->nat);
}

/* ---- flush ---- */

static void on_flush_task(struct sl_task *task);

static void flushed(struct sl_broker *b)
{
	struct sl_list *i;

	b->flush.stage = SL_FLUSH_NONE;
	sl_list_for_each (i, &b->peers) {
		struct sl_peer *p = SL_CONTAINER_OF(i, struct sl_peer, node);

		p->wants_flushed |= p->is_flushing;
		p->is_flushing = false;
		if (p->wants_flushed)
			sl_peer_flush_later(p);
	}
}

static void on_flush_timer(struct sl_timer *timer)
{
	struct sl_broker *b = SL_CONTAINER_OF(timer, struct sl_broker, flush.timer);

	b->flush.stage = SL_FLUSH_REMOVING;
	b->flush.bucket = 0;
	sl_loop_again(b->loop, &b->flush.task, on_flush_task);
}

static size_t flush_bucket(struct sl_broker *b)
{
	struct sl_kflow *next;
	size_t n = 0;

	for (struct sl_kflow *f = b->table.bucket[b->flush.bucket]; f; f = next) {
		next = f->next;
		n++;
		if (f->is_gone)
			continue;
		if (b->flush.stage == SL_FLUSH_REMOVING && f->stage == SL_KFLOW_OVER)
			sl_life_remove(f);
		else if (f->stage != SL_KFLOW_OVER)
			sl_life_kill(f, SL_BROKER_END_KILLED);
	}
	return n;
}

static void on_flush_task(struct sl_task *task)
{
	struct sl_broker *b = SL_CONTAINER_OF(task, struct sl_broker, flush.task);
	size_t flows = 0;
	size_t buckets = 0;

	while (b->flush.bucket < b->table.n_buckets && flows < FLUSH_FLOWS &&
	       buckets++ < FLUSH_BUCKETS) {
		flows += flush_bucket(b);
		b->flush.bucket++;
	}
	if (b->flush.bucket < b->table.n_buckets) {
		sl_loop_again(b->loop, task, on_flush_task);
	} else if (b->flush.stage == SL_FLUSH_KILLING) {
		b->flush.stage = SL_FLUSH_WAITING;
		sl_timer_start(b->loop, &b->flush.timer, sl_loop_now_ms(b->loop) + ANSWER_MS,
			       on_flush_timer);
	} else {
		sl_info("packet: all flows are removed, as asked");
		flushed(b);
	}
}

void sl_broker_flush(struct sl_broker *b)
{
	if (!b->packet) {
		flushed(b);
		return;
	}
	if (b->flush.stage != SL_FLUSH_NONE)
		return;
	b->flush.stage = SL_FLUSH_KILLING;
	b->flush.bucket = 0;
	sl_loop_again(b->loop, &b->flush.task, on_flush_task);
}

/* ---- life ---- */

static void on_drift(void *arg)
{
	struct sl_broker *b = arg;
	struct sl_list *i;

	sl_list_for_each (i, &b->peers) {
		struct sl_peer *p = SL_CONTAINER_OF(i, struct sl_peer, node);

		p->wants_drift = p->worker == p->n_workers;
		if (p->wants_drift)
			sl_peer_flush_later(p);
	}
}

static int init_parts(struct sl_broker *b)
{
	int r = sl_validator_init(&b->validator, b->options.proxy_uid);

	if (r == 0)
		r = sl_drift_init(&b->drift, b->loop, on_drift, b);
	if (r == 0)
		r = sl_linger_init(&b->linger);
	if (r == 0)
		r = sl_sweep_init(b);
	if (r == 0)
		sl_conntrack_init(&b->conntrack);
	return r;
}

int sl_broker_new(const struct sl_broker_options *options, struct sl_broker **ret)
{
	static const struct sl_broker_times usual = { .revival_ms = 200,
						      .closed_ms = 60000,
						      .rst_ms = 10000,
						      .killed_ms = 60000,
						      .broken_ms = 30000,
						      .round_ms = 1000 };
	struct sl_broker *b = calloc(1, sizeof(*b));
	int r;

	if (!b)
		return -ENOMEM;
	b->options = *options;
	b->times = options->times ? *options->times : usual;
	b->loop = options->loop;
	b->flows_fd = -1;
	b->routes.watch_fd = -1;
	b->routes.ask_fd = -1;
	b->conntrack.fd = -1;
	b->conntrack.count_fd = -1;
	sl_list_init(&b->orphans);
	sl_list_init(&b->peers);
	r = init_parts(b);
	if (r < 0) {
		sl_broker_free(b);
		return r;
	}
	*ret = b;
	return 0;
}

void sl_broker_free(struct sl_broker *b)
{
	if (!b)
		return;
	turn_off(b);
	sl_sockmap_keeper_close(b);
	sl_worries_free(SL_TAKE_PTR(b->worries));
	sl_nat_free(SL_TAKE_PTR(b->nat));
	sl_linger_done(&b->linger);
	sl_flow_table_done(&b->table);
	while (!sl_list_is_empty(&b->peers))
		sl_peer_close(SL_CONTAINER_OF(b->peers.next, struct sl_peer, node));
	sl_task_cancel(&b->nat_task);
	sl_sweep_done(b);
	sl_diff_stop(b);
	sl_drift_done(&b->drift);
	sl_conntrack_done(&b->conntrack);
	sl_timer_stop(&b->status_timer);
	sl_task_cancel(&b->announce_task);
	for (size_t i = 0; i < SL_BROKER_GENERATIONS; i++)
		sl_policy_free(b->policy[i]);
	free(b);
}

int sl_broker_add_channel(struct sl_broker *b, uint64_t proxy, unsigned worker, unsigned n_workers,
			  int fd)
{
	int r = n_workers == 0 || worker > n_workers ? -EINVAL
						     : sl_peer_new(b, proxy, worker, n_workers, fd);

	if (r < 0)
		(void)close(fd);
	return r;
}

/* ---- stop ---- */

static uint64_t n_answered(int counters_fd)
{
	struct sl_packet_counts c;

	return counters_fd >= 0 && sl_packet_read_counts(counters_fd, &c) == 0 ? c.killed_answered
									       : 0;
}

static uint64_t kill_all(struct sl_broker *b)
{
	uint64_t n = 0;

	for (size_t i = 0; i < b->table.n_buckets; i++) {
		for (struct sl_kflow *f = b->table.bucket[i]; f; f = f->next) {
			if (f->stage == SL_KFLOW_OVER)
				continue;
			sl_life_kill(f, SL_BROKER_END_KILLED);
			n++;
		}
	}
	return n;
}

/* The injected packets are answered by the hook itself, within moments. */
static void reset_peers(struct sl_broker *b)
{
	_cleanup_fd_ int counters = -1;
	uint64_t until_us = sl_loop_now_us(b->loop) + STOP_MS * 1000;
	uint64_t before;
	uint64_t n;

	if (sl_packet_readonly_fd(b->packet, "counters", &counters) < 0)
		counters = -1;
	before = n_answered(counters);
	n = kill_all(b);
	while (n && n_answered(counters) - before < 2 * n && sl_loop_now_us(b->loop) < until_us)
		(void)usleep(5000);
}

static void stop_packet(struct sl_broker *b)
{
	_cleanup_(sl_str_done) struct sl_str report = { 0 };
	const char *dir = sl_broker_policy(b)->bpf_dir;
	int r;

	reset_peers(b);
	/* While the flows are still in the table. */
	sl_peers_flush_now(b, sl_loop_now_us(b->loop) + STOP_MS * 1000);
	turn_off(b);
	sl_linger_done(&b->linger);
	sl_flow_table_done(&b->table);
	r = sl_packet_purge(dir, &report);
	if (r < 0)
		(void)sl_warn(r, "packet: cannot remove everything in %s; try sluiced --purge",
			      dir);
	(void)snprintf(b->off_text, sizeof(b->off_text), "stopped");
	b->why_off = SL_WHY_NOT_LINUX_SUPPORTED;
	sl_broker_touch(b);
}

void sl_broker_stop(struct sl_broker *b)
{
	bool has_sockmap = b->sockmap.maps;

	sl_sockmap_keeper_take_out(b);
	sl_sockmap_keeper_close(b);
	if (b->packet)
		stop_packet(b);
	if (has_sockmap)
		sl_sockmap_keeper_remove(b);
}
