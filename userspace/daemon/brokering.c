/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "accel/packet.h"
#include "accel/sockmap.h"
#include "base/clock.h"
#include "base/log.h"
#include "broker/nat.h"
#include "broker/nat_plan.h"
#include "broker/policy.h"
#include "daemon/deny_set.h"
#include "daemon/state.h"
#include "proxy/handover.h"

/* Loading takes the kernel's verifier a fraction of a second. */
#define START_WAIT_MS 20000
#define STOP_WAIT_MS 2000
/* Relays are stopped for connections it is asked about. */
#define END_WAIT_MS 500
_Static_assert(SL_HANDOVER_DOUBT_MS > SL_BACKOFF_MAX_MS + START_WAIT_MS,
	       "connections in doubt wait for the next broker, however late it is started");
#define OWN_EXE "/proc/self/exe"

static void start(struct sl_supervisor *s);

static struct sl_child *proxy_of(struct sl_list *node)
{
	return SL_CONTAINER_OF(node, struct sl_child, node);
}

/* It listens, or will: what it is sent now is read in order. */
static bool is_there(const struct sl_brokering *b)
{
	return b->child &&
	       (b->child->state == SL_CHILD_STARTING || b->child->state == SL_CHILD_RUNNING);
}

/* ---- what proxies are told ---- */

static void tell_why_not(const struct sl_brokering *b, struct sl_child *proxy)
{
	struct sl_msg msg = { .type = SL_MSG_NO_BROKER };

	(void)snprintf(msg.text, sizeof(msg.text), "%s", b->why_not);
	sl_child_send(proxy, &msg, -1);
}

static void set_why_not(struct sl_supervisor *s, const char *text)
{
	struct sl_list *pos;

	(void)snprintf(s->brokering.why_not, sizeof(s->brokering.why_not), "%s", text);
	sl_list_for_each (pos, &s->children)
		if (proxy_of(pos)->has_commit)
			tell_why_not(&s->brokering, proxy_of(pos));
}

/* One channel between a worker and the broker. */
static int connect_worker(struct sl_supervisor *s, struct sl_child *proxy, unsigned worker)
{
	const struct sl_msg to_proxy = { .type = SL_MSG_BROKER,
					 .id = worker,
					 .flag = proxy->n_workers };
	const struct sl_msg to_broker = { .type = SL_MSG_WORKER,
					  .id = proxy->serial,
					  .flag = SL_MSG_WORKER_FLAG(worker, proxy->n_workers) };
	int pair[2];
	int r = sl_channel_pair(pair);

	if (r < 0)
		return r;
	sl_child_send_owned(s->brokering.child, &to_broker, pair[0]);
	sl_child_send_owned(proxy, &to_proxy, pair[1]);
	return 0;
}

static void connect_all(struct sl_supervisor *s, struct sl_child *proxy)
{
	int r = 0;

	for (unsigned i = 0; r == 0 && i <= proxy->n_workers; i++)
		r = connect_worker(s, proxy, i);
	if (r < 0)
		(void)sl_warn(r,
			      "cannot connect proxy process %d to the broker, it goes on without",
			      (int)proxy->pid);
}

void sl_brokering_connect(struct sl_supervisor *s, struct sl_child *proxy)
{
	proxy->has_commit = true;
	if (is_there(&s->brokering))
		connect_all(s, proxy);
	else if (s->brokering.why_not[0])
		tell_why_not(&s->brokering, proxy);
}

/* ---- what the broker is told ---- */

static void kill_broker(struct sl_brokering *b, int err, const char *what)
{
	(void)sl_err(err, "%s, replacing the broker process %d", what, (int)b->child->pid);
	sl_child_kill(b->child);
}

static int pack_nat(const struct sl_conf *conf, const struct sl_deny_list *deny, bool is_draining,
		    int *ret_fd, struct sl_str *why)
{
	_cleanup_(sl_ip_list_done) struct sl_ip_set denied = { 0 };
	int r = 0;

	if (deny && sl_nat_plan_has_routes(conf))
		r = sl_deny_set_unpack(deny->fd, &denied);
	if (r < 0)
		return r;
	return sl_nat_plan_pack(conf, &denied, is_draining, ret_fd, why);
}

int sl_brokering_check(const struct sl_supervisor *s, const struct sl_conf *conf,
		       struct sl_str *report)
{
	_cleanup_(sl_str_done) struct sl_str why = { 0 };
	_cleanup_fd_ int fd = -1;
	int r;

	if (!sl_nat_plan_has_routes(conf))
		return 0;
	r = pack_nat(conf, s->next_deny ? s->next_deny : s->deny, false, &fd, &why);
	if (r < 0)
		sl_str_addf(report, "error: %s\n", why.len ? sl_str_text(&why) : strerror(-r));
	return r;
}

/* The broker leaves a table that is not asked for any more, unless it dies before it has. */
static void note_table(struct sl_supervisor *s)
{
	struct sl_brokering *b = &s->brokering;
	const char *now = s->now.conf->global.nft_table;

	if (b->nat_table[0] && strcmp(b->nat_table, now) != 0)
		memcpy(b->old_table, b->nat_table, sizeof(b->old_table));
	if (strcmp(b->old_table, now) == 0)
		b->old_table[0] = '\0';
	(void)snprintf(b->nat_table, sizeof(b->nat_table), "%s", now);
}

/* There is no broker. */
static void purge_old_table(struct sl_brokering *b)
{
	_cleanup_(sl_str_done) struct sl_str report = { 0 };

	if (!b->old_table[0])
		return;
	if (sl_nat_purge(b->old_table, &report) < 0)
		sl_log(SL_LOG_WARN, "cannot remove table inet %s of the configuration before: %s",
		       b->old_table, sl_str_text(&report));
	else if (report.len > 0)
		sl_info("without the broker: %s", sl_str_text(&report));
	b->old_table[0] = '\0';
}

/* What was asked before is of no interest; without routes only what takes away earlier ones. */
static void begin_plan(struct sl_supervisor *s)
{
	struct sl_brokering *b = &s->brokering;
	bool has_routes = sl_nat_plan_has_routes(s->now.conf);

	note_table(s);
	b->nat_id = sl_clock_us() > b->nat_id ? sl_clock_us() : b->nat_id + 1;
	b->is_nat_told = !has_routes && !b->has_nat_routes;
	b->is_nat_on = b->is_nat_told;
	b->has_nat_routes = has_routes;
}

/* At the end of the daemon no new flows, unless the kernel is to go on without it; those there are
 * go on until the proxy, which has their deadlines, ends them. */
static void send_nat(struct sl_supervisor *s)
{
	bool is_end = s->stopping && !s->now.conf->global.nftables.keep_on_exit;
	const struct sl_msg msg = { .type = SL_MSG_NAT, .id = s->brokering.nat_id };
	_cleanup_(sl_str_done) struct sl_str why = { 0 };
	int fd = -1;
	int r = pack_nat(s->now.conf, s->deny, is_end, &fd, &why);

	if (r < 0)
		(void)sl_err(r, "cannot pack what the kernel's NAT is to do, it stays as it is");
	else
		sl_child_send_owned(s->brokering.child, &msg, fd);
}

static void send_policy(struct sl_supervisor *s, bool may_retry)
{
	const struct sl_msg msg = { .type = SL_MSG_POLICY,
				    .id = s->now.generation,
				    .flag = may_retry };
	int fd = -1;
	int r = sl_policy_pack(s->now.conf, s->now.generation, &fd);

	if (r < 0)
		kill_broker(&s->brokering, r, "cannot pack the policy of the packet engine");
	else
		sl_child_send_owned(s->brokering.child, &msg, fd);
}

/* ---- start ---- */

static void on_restart(struct sl_timer *timer)
{
	start(SL_CONTAINER_OF(timer, struct sl_supervisor, brokering.restart));
}

static void on_start_deadline(struct sl_timer *timer)
{
	struct sl_child *c = SL_CONTAINER_OF(timer, struct sl_child, deadline);

	sl_log(SL_LOG_ERROR, "broker process %d is not ready after %d s, killing it", (int)c->pid,
	       START_WAIT_MS / 1000);
	sl_child_kill(c);
}

static void wait_restart(struct sl_supervisor *s, uint64_t wait_ms)
{
	sl_log(SL_LOG_ERROR,
	       "the broker process keeps failing, next start in %" PRIu64
	       " s; new connections stay with the proxy",
	       wait_ms / 1000);
	set_why_not(s, "off: the broker process keeps failing");
	sl_reload_on_nat(s);
	sl_timer_start(s->loop, &s->brokering.restart, sl_loop_now_ms(s->loop) + wait_ms,
		       on_restart);
}

static void start(struct sl_supervisor *s)
{
	struct sl_brokering *b = &s->brokering;
	const char *exe = b->exe ? b->exe : OWN_EXE;
	struct sl_list *pos;
	int r;

	purge_old_table(b);
	r = sl_child_spawn(s->loop, SL_ROLE_BROKER, s->options->is_single ? NULL : exe, &b->events,
			   &b->child);
	b->exe = NULL;
	b->is_off = false;
	sl_timer_stop(&b->restart);
	sl_backoff_started(&b->backoff, sl_loop_now_ms(s->loop));
	if (r < 0) {
		(void)sl_err(r, "cannot start a broker process");
		wait_restart(s, sl_backoff_failed(&b->backoff));
		return;
	}
	b->why_not[0] = '\0';
	b->was_started = true;
	sl_timer_start(s->loop, &b->child->deadline, sl_loop_now_ms(s->loop) + START_WAIT_MS,
		       on_start_deadline);
	sl_supervisor_send_facts(s);
	sl_supervisor_send_options(s, b->child);
	if (b->nat_id == 0)
		begin_plan(s);
	b->is_nat_told = b->is_nat_told && !b->has_nat_routes; /* it says so itself */
	send_nat(s);
	send_policy(s, false);
	/* The current one last, which is then the one that is told of flows. */
	sl_list_for_each (pos, &s->children)
		if (proxy_of(pos)->has_commit && proxy_of(pos) != s->current)
			connect_all(s, proxy_of(pos));
	if (s->current && s->current->has_commit)
		connect_all(s, s->current);
}

static bool wants_sockmap(const struct sl_conf *conf)
{
	for (size_t i = 0; i < conf->n_routes; i++)
		if (conf->routes[i].enabled && sl_conf_may_sockmap(&conf->routes[i]))
			return true;
	return false;
}

/* Also when it is off now: flows of an earlier configuration go on, and somebody must end them. */
static bool is_needed(const struct sl_conf *conf)
{
	const struct sl_conf_global *g = &conf->global;

	return g->packet.hook != SL_HOOK_CHOICE_OFF || sl_packet_is_pinned(g->bpf_dir) ||
	       wants_sockmap(conf) || sl_sockmap_is_pinned(g->bpf_dir) ||
	       sl_nat_plan_has_routes(conf) || sl_nat_is_there(g->nft_table);
}

/* Once; of routes that nobody serves with each configuration that has some. */
static void say_no_root(const struct sl_supervisor *s)
{
	if (!s->brokering.why_not[0])
		sl_info("not started as root: the kernel carries no connections, all go by relay");
	if (sl_nat_plan_has_routes(s->now.conf))
		sl_log(SL_LOG_WARN, "not started as root: routes with engine: nftables are served "
				    "by nobody");
}

void sl_brokering_start(struct sl_supervisor *s)
{
	if (geteuid() != 0) {
		say_no_root(s);
		set_why_not(s, "off: not started as root");
	} else if (!is_needed(s->now.conf)) {
		set_why_not(s, "off: packet.hook is off");
	} else {
		start(s);
	}
}

/* ---- changes ---- */

static void on_end_deadline(struct sl_timer *timer)
{
	sl_child_kill(SL_CONTAINER_OF(timer, struct sl_child, deadline));
}

/*
 * It answers what it is at and ends, leaving the kernel as it is. The next one starts when it has
 * ended: one at a time has the kernel's objects.
 */
static void end_broker(struct sl_supervisor *s)
{
	const struct sl_msg msg = { .type = SL_MSG_DRAIN };
	struct sl_child *c = s->brokering.child;

	s->brokering.is_replaced = true;
	if (c->state == SL_CHILD_DRAINING)
		return;
	c->state = SL_CHILD_DRAINING;
	sl_timer_start(s->loop, &c->deadline, sl_loop_now_ms(s->loop) + END_WAIT_MS,
		       on_end_deadline);
	sl_child_send(c, &msg, -1);
}

void sl_brokering_replace(struct sl_supervisor *s, const char *exe)
{
	struct sl_brokering *b = &s->brokering;

	b->exe = exe;
	if (b->child)
		end_broker(s);
	else
		sl_brokering_start(s);
}

void sl_brokering_update(struct sl_supervisor *s, bool retry)
{
	struct sl_brokering *b = &s->brokering;

	begin_plan(s);
	if (is_there(b)) {
		send_nat(s);
		send_policy(s, retry && sl_packet_has_place(s->now.conf->global.bpf_dir));
	} else if (!b->child && !sl_timer_is_armed(&b->restart)) {
		purge_old_table(b);
		sl_brokering_start(s);
	}
}

enum sl_nat_state sl_brokering_nat(const struct sl_supervisor *s, const char **ret_text)
{
	const struct sl_brokering *b = &s->brokering;

	*ret_text = b->nat_text;
	if (b->is_nat_told)
		return b->is_nat_on ? SL_NAT_IN_FORCE : SL_NAT_NOT_YET;
	if (b->child)
		return SL_NAT_UNKNOWN;
	*ret_text = b->why_not;
	return b->has_nat_routes ? SL_NAT_NO_BROKER : SL_NAT_IN_FORCE;
}

void sl_brokering_deny(struct sl_supervisor *s)
{
	if (!is_there(&s->brokering) || !sl_nat_plan_has_routes(s->now.conf))
		return;
	begin_plan(s);
	send_nat(s);
}

void sl_brokering_drain(struct sl_supervisor *s)
{
	if (is_there(&s->brokering))
		send_nat(s);
}

void sl_brokering_adopt(struct sl_supervisor *s, struct sl_child *broker, bool is_replaced)
{
	s->brokering.child = broker;
	s->brokering.was_started = true;
	s->brokering.is_replaced = is_replaced;
	s->brokering.has_nat_routes = sl_nat_plan_has_routes(s->now.conf);
	s->brokering.is_nat_told = !s->brokering.has_nat_routes;
	s->brokering.is_nat_on = s->brokering.is_nat_told;
	note_table(s);
	if (is_replaced)
		sl_timer_start(s->loop, &broker->deadline, sl_loop_now_ms(s->loop) + END_WAIT_MS,
			       on_end_deadline);
	else if (broker->state == SL_CHILD_STARTING)
		sl_timer_start(s->loop, &broker->deadline, sl_loop_now_ms(s->loop) + START_WAIT_MS,
			       on_start_deadline);
}

/* ---- the end ---- */

static void on_stop_deadline(struct sl_timer *timer)
{
	struct sl_child *c = SL_CONTAINER_OF(timer, struct sl_child, deadline);

	sl_log(SL_LOG_ERROR, "broker process %d has not cleaned up within %d s, killing it",
	       (int)c->pid, STOP_WAIT_MS / 1000);
	sl_child_kill(c);
}

/* What no broker was there to do, or did not do in time. */
static void purge(struct sl_supervisor *s)
{
	_cleanup_(sl_str_done) struct sl_str report = { 0 };
	int nat = 0;
	int r = 0;

	purge_old_table(&s->brokering);
	if (s->brokering.was_started && !s->now.conf->global.nftables.keep_on_exit)
		nat = sl_nat_purge(s->now.conf->global.nft_table, &report);
	if (s->brokering.was_started)
		r = sl_sockmap_purge(s->now.conf->global.bpf_dir, &report);
	if (s->brokering.was_started && r == 0)
		r = sl_packet_purge(s->now.conf->global.bpf_dir, &report);
	if (r == 0)
		r = nat;
	s->brokering.was_started = false;
	if (r < 0)
		(void)sl_warn(r, "cannot remove everything from the kernel:\n%s",
			      sl_str_text(&report));
	else if (report.len > 0)
		sl_info("removed from the kernel without the broker:\n%s", sl_str_text(&report));
}

bool sl_brokering_stop(struct sl_supervisor *s)
{
	const struct sl_msg msg = { .type = SL_MSG_STOP };
	struct sl_brokering *b = &s->brokering;

	sl_timer_stop(&b->restart);
	if (is_there(b)) {
		b->child->state = SL_CHILD_DRAINING;
		sl_timer_start(s->loop, &b->child->deadline, sl_loop_now_ms(s->loop) + STOP_WAIT_MS,
			       on_stop_deadline);
		sl_child_send(b->child, &msg, -1);
	}
	if (!b->child)
		purge(s);
	return b->child;
}

void sl_brokering_done(struct sl_supervisor *s)
{
	struct sl_brokering *b = &s->brokering;

	sl_timer_stop(&b->restart);
	if (!b->child)
		return;
	sl_child_kill(b->child);
	sl_child_free(b->child);
	b->child = NULL;
}

/* ---- events ---- */

static void on_ready(struct sl_brokering *b, const struct sl_msg *msg)
{
	struct sl_child *c = b->child;

	b->is_off = !msg->flag;
	if (c->state != SL_CHILD_STARTING)
		return;
	sl_timer_stop(&c->deadline);
	c->state = SL_CHILD_RUNNING;
	/* It has said itself what it found, and why it is off. */
	sl_info("ready: broker process %d%s", (int)c->pid, b->is_off ? ", off" : "");
}

static void on_nat_state(struct sl_supervisor *s, const struct sl_msg *msg)
{
	struct sl_brokering *b = &s->brokering;

	if (msg->id != b->nat_id)
		return;
	b->is_nat_told = true;
	b->is_nat_on = msg->flag;
	(void)snprintf(b->nat_text, sizeof(b->nat_text), "%s", msg->text);
	sl_reload_on_nat(s);
}

static void on_message(void *arg, struct sl_child *c, const struct sl_msg *msg, int fd)
{
	struct sl_supervisor *s = arg;

	(void)fd;
	if (msg->type == SL_MSG_READY) {
		on_ready(&s->brokering, msg);
	} else if (msg->type == SL_MSG_NAT_STATE) {
		on_nat_state(s, msg);
	} else if (msg->type == SL_MSG_FAILED && msg->flag) {
		sl_info("broker process %d makes room: %s", (int)c->pid, msg->text);
		end_broker(s);
	} else if (msg->type == SL_MSG_FAILED) {
		sl_log(SL_LOG_ERROR, "broker process %d cannot go on: %s", (int)c->pid, msg->text);
		sl_child_kill(c);
	}
}

/* The end itself follows at once: it has few descriptors to close. */
static void on_lost(void *arg, struct sl_child *c)
{
	(void)arg;
	sl_timer_stop(&c->deadline);
}

static void on_ended(void *arg, struct sl_child *c, const struct sl_child_end *end)
{
	struct sl_supervisor *s = arg;
	struct sl_brokering *b = &s->brokering;
	bool is_meant = b->is_replaced;
	bool is_stopped = !is_meant && end->is_clean;
	uint64_t wait_ms;

	b->child = NULL;
	sl_supervisor_send_facts(s);
	b->is_replaced = false;
	if (s->stopping && sl_list_is_empty(&s->children)) {
		sl_info("broker process %d %s", (int)c->pid, end->text);
		b->was_started = !is_stopped;
		sl_child_free(c);
		sl_supervisor_broker_gone(s);
		return;
	}
	if (!is_meant)
		sl_log(SL_LOG_ERROR,
		       "broker process %d %s; what it has handed to the kernel goes on",
		       (int)c->pid, end->text);
	sl_child_free(c);
	wait_ms = is_meant ? 0 : sl_backoff_died(&b->backoff, sl_loop_now_ms(s->loop));
	if (wait_ms > 0)
		wait_restart(s, wait_ms);
	else
		start(s);
}

void sl_brokering_init(struct sl_supervisor *s)
{
	s->brokering.events = (struct sl_child_events){
		.message = on_message, .lost = on_lost, .ended = on_ended, .arg = s
	};
}
