/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "ctl/changes.h"
#include "daemon/bind.h"
#include "daemon/state.h"

/* The proxy answers PREPARE at once and COMMIT within 2 s of waiting for names. */
#define RELOAD_WAIT_MS 15000
/*
 * The kernel's NAT follows in milliseconds, unless a broker is being started, or something is in
 * its way, which may go away.
 */
#define NAT_WAIT_MS 10000
#define NAT_TRY_MS 1000
#define HTTP_BACKLOG 128

void sl_setup_done(struct sl_setup *setup)
{
	sl_conf_free(setup->conf);
	sl_cert_store_free(setup->certs);
	sl_closep(&setup->bundle_fd);
	sl_listeners_done(&setup->listeners);
	sl_closep(&setup->http_fd);
	*setup = (struct sl_setup){ .bundle_fd = -1, .http_fd = -1 };
}

int sl_setup_read(const char *path, const struct sl_conf_sources *changes, struct sl_bundle *ret,
		  struct sl_conf **ret_conf, struct sl_str *report)
{
	_cleanup_(sl_bundle_done) struct sl_bundle b = { 0 };
	_cleanup_(sl_diags_done) struct sl_diags diags = { 0 };
	int r = sl_conf_sources_load(path, &b.sources, &diags);

	if (r == 0 && changes)
		r = sl_changes_copy(changes, &b.sources);
	if (r == 0)
		r = sl_conf_build(&b.sources, ret_conf, &diags);
	sl_str_add(report, sl_str_text(&diags.text), diags.text.len);
	if (r < 0)
		return r;
	b.resolv_conf = sl_bundle_read_file("/etc/resolv.conf", &b.resolv_conf_len);
	b.hosts = sl_bundle_read_file("/etc/hosts", &b.hosts_len);
	*ret = b;
	b = (struct sl_bundle){ 0 };
	return 0;
}

/* ---- binding ---- */

static bool is_same_http(const struct sl_conf_global *a, const struct sl_conf_global *b)
{
	return a->http_enabled == b->http_enabled &&
	       (!a->http_enabled || sl_addr_is_equal(&a->http, &b->http));
}

/* Beside the one it replaces, which may hold the same port on another address. */
static int open_http(const struct sl_conf_global *g, int old_fd, int *ret_fd)
{
	uint16_t port = sl_addr_port(&g->http);
	int r = sl_bind_tcp(&g->http, port, HTTP_BACKLOG, false, ret_fd);

	if (r != -EADDRINUSE || old_fd < 0 || sl_bind_share(old_fd, true) < 0)
		return r;
	r = sl_bind_tcp(&g->http, port, HTTP_BACKLOG, true, ret_fd);
	(void)sl_bind_share(old_fd, false);
	if (r == 0)
		(void)sl_bind_share(*ret_fd, false);
	return r;
}

/* A range takes all of its ports, also one that global.http could still bind to. */
static bool is_in_range(const struct sl_listeners *l, uint16_t port)
{
	for (size_t i = 0; i < l->n; i++)
		if (l->item[i].from < port && port <= l->item[i].to)
			return true;
	return false;
}

static int bind_http(const struct sl_setup *setup, int old_fd, int *ret_fd, struct sl_str *report)
{
	const struct sl_conf_global *g = &setup->conf->global;
	uint16_t port = sl_addr_port(&g->http);
	char name[SL_ADDR_TEXT];
	int r;

	if (!g->http_enabled)
		return 0;
	r = is_in_range(&setup->listeners, port) ? -EADDRINUSE : open_http(g, old_fd, ret_fd);
	if (r == 0)
		return 0;
	sl_str_addf(report, "%s: global.http: cannot listen on %s: ",
		    g->http_is_explicit ? "error" : "warning", sl_addr_format(&g->http, name));
	sl_bind_explain(report, r, port);
	sl_str_adds(report, g->http_is_explicit ? "\n" : "; going on without /metrics\n");
	return g->http_is_explicit ? r : 0;
}

int sl_setup_bind(struct sl_supervisor *s, const struct sl_setup *old,
		  const struct sl_conf_sources *sources, struct sl_setup *setup,
		  struct sl_str *report)
{
	const struct sl_listen_plan plan = { .conf = setup->conf,
					     .sources = sources,
					     .old = &old->listeners,
					     .steering = &s->steering,
					     .next_id = &s->next_listener_id };
	int r = sl_listeners_build(&plan, &setup->listeners, report);

	if (r < 0)
		return r;
	/* Asked again at each reload when it is off because its address was taken. */
	s->http_changes = !old->conf || !is_same_http(&old->conf->global, &setup->conf->global) ||
			  (setup->conf->global.http_enabled && old->http_fd < 0);
	s->http_changes = s->http_changes && s->job_what != SL_CTL_CHANGE;
	if (s->http_changes)
		r = bind_http(setup, old->http_fd, &setup->http_fd, report);
	if (r < 0)
		sl_listeners_cancel(&setup->listeners, &old->listeners);
	return r;
}

/* ---- messages ---- */

void sl_send_listener(struct sl_child *child, const struct sl_listener *l)
{
	const struct sl_msg msg = { .type = SL_MSG_LISTENER,
				    .id = l->id,
				    .listener = { .ip = l->ip, .from = l->from, .to = l->to } };

	sl_child_send(child, &msg, l->fd);
}

void sl_send_http(struct sl_child *child, int fd)
{
	const struct sl_msg msg = { .type = fd >= 0 ? SL_MSG_HTTP : SL_MSG_NO_HTTP };

	sl_child_send(child, &msg, fd);
}

static void send_change(struct sl_supervisor *s)
{
	const struct sl_msg config = { .type = SL_MSG_CONFIG,
				       .id = s->next.generation,
				       .flag = s->job_what == SL_CTL_CHANGE };
	const struct sl_msg prepare = { .type = SL_MSG_PREPARE };
	const struct sl_listeners *old = &s->now.listeners;
	const struct sl_listeners *fresh = &s->next.listeners;

	sl_child_send(s->current, &config, s->next.bundle_fd);
	sl_denied_send_next(s, 0);
	sl_secrets_send_next(s);
	for (size_t i = 0; i < fresh->n; i++)
		if (!sl_listeners_find(old, &fresh->item[i]))
			sl_send_listener(s->current, &fresh->item[i]);
	for (size_t i = 0; i < old->n; i++) {
		const struct sl_msg remove = { .type = SL_MSG_REMOVE, .id = old->item[i].id };

		if (!sl_listeners_find(fresh, &old->item[i]))
			sl_child_send(s->current, &remove, -1);
	}
	if (s->http_changes)
		sl_send_http(s->current, s->next.http_fd);
	sl_child_send(s->current, &prepare, -1);
}

/* ---- the reload ---- */

static double unix_now(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_REALTIME, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void finish(struct sl_supervisor *s, bool ok)
{
	if (s->job_what == SL_CTL_RELOAD) {
		s->last_reload_ok = ok;
		s->last_reload_unix = unix_now();
	}
	sl_supervisor_send_facts(s);
	if (s->job_what == SL_CTL_CHANGE)
		sl_change_finish(s, ok);
	else
		sl_supervisor_finish_job(s, SL_CTL_RELOAD, ok);
}

static void finish_refused(struct sl_supervisor *s)
{
	sl_listeners_cancel(&s->next.listeners, &s->now.listeners);
	sl_steering_trim(&s->steering, &s->now.listeners);
	sl_setup_done(&s->next);
	sl_denied_cancel(s);
	if (s->job_what == SL_CTL_RELOAD)
		sl_str_adds(&s->report,
			    "nothing has changed, the old configuration stays in force\n");
	finish(s, false);
}

static void on_deadline(struct sl_timer *timer)
{
	struct sl_supervisor *s = SL_CONTAINER_OF(timer, struct sl_supervisor, job_deadline);

	sl_log(SL_LOG_ERROR, "the proxy process does not answer a reload or change, replacing it");
	if (s->current)
		sl_child_kill(s->current); /* its death ends the job */
}

static bool is_same_text(const char *a, const char *b)
{
	return (!a && !b) || (a && b && strcmp(a, b) == 0);
}

/* What takes more than a reload is said, not ignored. */
static void note_fixed(const struct sl_conf_global *old, const struct sl_conf_global *now,
		       struct sl_str *report)
{
	if (!is_same_text(old->runtime_dir, now->runtime_dir))
		sl_str_adds(report, "note: global.runtime_dir changes with a restart only\n");
	if (!is_same_text(old->state_dir, now->state_dir))
		sl_str_adds(report, "note: global.state_dir changes with a restart only\n");
	if (!is_same_text(old->user, now->user))
		sl_str_adds(report, "note: global.user changes with a restart only\n");
	if (old->workers != now->workers)
		sl_str_adds(report,
			    "note: global.workers changes with `sluice upgrade` or a restart\n");
	if (now->max_connections > old->max_connections)
		sl_str_adds(report, "note: the limit of open files for a greater "
				    "global.max_connections is raised by a restart only\n");
}

void sl_reload_switch(struct sl_supervisor *s, const struct sl_bundle *bundle, int r)
{
	if (r == 0 && s->job_what == SL_CTL_RELOAD)
		r = sl_denied_read(s, s->next.conf);
	if (r == 0)
		r = sl_brokering_check(s, s->next.conf, &s->report);
	if (r == 0)
		r = sl_secrets_read(s, &bundle->sources, &s->next, &s->report);
	if (r == 0)
		r = sl_setup_bind(s, &s->now, &bundle->sources, &s->next, &s->report);
	if (r == 0)
		r = sl_bundle_pack(bundle, &s->next.bundle_fd);
	if (r < 0) {
		if (s->report.len == 0)
			sl_str_addf(&s->report, "error: %s\n", strerror(-r));
		finish_refused(s);
		return;
	}
	s->job = SL_JOB_PREPARE;
	sl_timer_start(s->loop, &s->job_deadline, sl_loop_now_ms(s->loop) + RELOAD_WAIT_MS,
		       on_deadline);
	send_change(s);
}

void sl_reload_start(struct sl_supervisor *s)
{
	_cleanup_(sl_bundle_done) struct sl_bundle bundle = { 0 };
	_cleanup_(sl_bundle_done) struct sl_bundle old = { 0 };
	int r;

	s->job_what = SL_CTL_RELOAD;
	s->next = (struct sl_setup){ .bundle_fd = -1,
				     .http_fd = -1,
				     .generation = s->now.generation + 1 };
	r = sl_bundle_unpack(s->now.bundle_fd, &old);
	if (r == 0)
		r = sl_setup_read(s->options->config_path, &old.sources, &bundle, &s->next.conf,
				  &s->report);
	if (r < 0 && strstr(sl_str_text(&s->report), "runtime:"))
		sl_str_adds(&s->report,
			    "note: changes made at run time lie over the files; 'sluice routes "
			    "changes' lists them, 'sluice routes forget NAME' drops them\n");
	sl_reload_switch(s, &bundle, r);
}

/*
 * From here on the new configuration is in force whatever happens. Our copies of removed
 * listeners go before the proxy's: it accepts their queues empty, and a connection that
 * came later would wait in a queue nobody reads.
 */
static void commit(struct sl_supervisor *s)
{
	const struct sl_msg msg = { .type = SL_MSG_COMMIT };
	bool new_access =
		!is_same_text(s->now.conf->global.access_log, s->next.conf->global.access_log);

	note_fixed(&s->now.conf->global, &s->next.conf->global, &s->report);
	sl_listeners_replace(&s->now.listeners, &s->next.listeners);
	if (!s->http_changes)
		s->next.http_fd = SL_TAKE_FD(s->now.http_fd);
	sl_setup_done(&s->now);
	s->now = s->next;
	s->next = (struct sl_setup){ .bundle_fd = -1, .http_fd = -1 };
	sl_steering_trim(&s->steering, &s->now.listeners);
	sl_supervisor_set_log(s->now.conf);
	s->job = SL_JOB_COMMIT;
	sl_denied_commit(s);
	sl_secrets_commit(s);
	if (new_access && sl_supervisor_open_access(s, s->now.conf) == 0)
		sl_supervisor_send_access(s);
	/* Before the proxy asks by it. */
	sl_brokering_update(s, s->job_what == SL_CTL_RELOAD);
	sl_child_send(s->current, &msg, -1);
}

static void on_prepared(struct sl_supervisor *s)
{
	const struct sl_msg abort = { .type = SL_MSG_ABORT };
	int r = sl_steering_set(&s->steering, &s->next.listeners);

	if (r < 0) {
		sl_str_addf(&s->report, "error: cannot steer port ranges: %s\n", strerror(-r));
	} else {
		r = sl_change_save(s);
		if (r < 0 && sl_steering_set(&s->steering, &s->now.listeners) < 0)
			sl_log(SL_LOG_ERROR, "cannot steer port ranges as before");
	}
	if (r == 0) {
		commit(s);
		return;
	}
	sl_child_send(s->current, &abort, -1);
	sl_timer_stop(&s->job_deadline);
	finish_refused(s);
}

static void finish_applied(struct sl_supervisor *s)
{
	const char *text;
	enum sl_nat_state state = sl_brokering_nat(s, &text);

	sl_timer_stop(&s->job_deadline);
	if (state == SL_NAT_UNKNOWN)
		sl_str_addf(&s->report,
			    "warning: nftables: the broker process has not said within %d s "
			    "whether the kernel has the routes, see 'sluice status'\n",
			    NAT_WAIT_MS / 1000);
	else if (state != SL_NAT_IN_FORCE)
		sl_str_addf(&s->report, "warning: nftables: %s\n", text);
	if (s->job_what == SL_CTL_RELOAD)
		sl_str_addf(&s->report, "generation %" PRIu64 " is in force\n", s->now.generation);
	if (s->job_what == SL_CTL_RELOAD_DENY_FILE)
		sl_denied_finish(s);
	else
		finish(s, true);
}

static void on_nat_deadline(struct sl_timer *timer)
{
	finish_applied(SL_CONTAINER_OF(timer, struct sl_supervisor, job_deadline));
}

static void wait_for_nat(struct sl_supervisor *s, uint64_t wait_ms)
{
	sl_timer_start(s->loop, &s->job_deadline, sl_loop_now_ms(s->loop) + wait_ms,
		       on_nat_deadline);
}

void sl_reload_on_nat(struct sl_supervisor *s)
{
	const char *text;
	enum sl_nat_state state = sl_brokering_nat(s, &text);

	if (s->job != SL_JOB_NAT)
		return;
	if (state == SL_NAT_NOT_YET)
		wait_for_nat(s, NAT_TRY_MS);
	else if (state != SL_NAT_UNKNOWN)
		finish_applied(s);
}

void sl_reload_await_nat(struct sl_supervisor *s)
{
	s->job = SL_JOB_NAT;
	wait_for_nat(s, NAT_WAIT_MS);
	sl_reload_on_nat(s);
}

static void on_failed(struct sl_supervisor *s, const char *text)
{
	sl_timer_stop(&s->job_deadline);
	if (s->job == SL_JOB_PREPARE) {
		sl_str_addf(&s->report, "error: the proxy process refused it: %s\n", text);
		finish_refused(s);
		return;
	}
	sl_log(SL_LOG_ERROR,
	       "the proxy process cannot apply generation %" PRIu64 " (%s), replacing it",
	       s->now.generation, text);
	sl_child_kill(s->current);
}

void sl_reload_on_message(struct sl_supervisor *s, const struct sl_msg *msg)
{
	if (msg->type == SL_MSG_PREPARED && s->job == SL_JOB_PREPARE)
		on_prepared(s);
	else if (msg->type == SL_MSG_APPLIED && s->job == SL_JOB_COMMIT)
		sl_reload_await_nat(s);
	else if (msg->type == SL_MSG_FAILED)
		on_failed(s, msg->text);
}

void sl_reload_on_death(struct sl_supervisor *s)
{
	sl_timer_stop(&s->job_deadline);
	if (s->job == SL_JOB_COMMIT) {
		/* The next proxy starts with what was to be applied. */
		sl_reload_await_nat(s);
		return;
	}
	sl_str_adds(&s->report, "error: the proxy process died while it looked at it\n");
	finish_refused(s);
}
