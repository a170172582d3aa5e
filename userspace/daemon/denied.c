/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "daemon/state.h"

/* The proxy copies a list of millions in a fraction of a second. */
#define DENY_WAIT_MS 15000

static void on_interfaces(void *arg)
{
	sl_supervisor_send_facts(arg);
}

int sl_denied_init(struct sl_supervisor *s)
{
	return sl_guarding_new(s->loop, on_interfaces, s, &s->guarding);
}

int sl_denied_read(struct sl_supervisor *s, const struct sl_conf *conf)
{
	int r;

	sl_denied_cancel(s);
	if (!conf->global.deny_file && !s->deny)
		return 0;
	r = sl_deny_list_read(conf->global.deny_file, &s->next_deny, &s->report);
	if (r < 0 && s->report.len == 0)
		sl_str_addf(&s->report, "error: global.security.deny_file: %s\n", strerror(-r));
	return r;
}

void sl_denied_cancel(struct sl_supervisor *s)
{
	sl_deny_list_free(s->next_deny);
	s->next_deny = NULL;
}

static void send_copy(struct sl_child *c, enum sl_msg_type type, uint32_t flag, int fd)
{
	const struct sl_msg msg = { .type = type, .flag = flag };

	sl_child_send_copy(c, &msg, fd);
}

static void send_counters(const struct sl_supervisor *s, struct sl_child *c)
{
	int fd = sl_guarding_count_fd(s->guarding);

	if (fd >= 0)
		send_copy(c, SL_MSG_DENIED, 0, fd);
}

void sl_denied_send(const struct sl_supervisor *s, struct sl_child *c)
{
	if (s->deny)
		send_copy(c, SL_MSG_DENY, 0, s->deny->fd);
	send_counters(s, c);
}

void sl_denied_send_next(struct sl_supervisor *s, uint32_t alone)
{
	if (s->next_deny)
		send_copy(s->current, SL_MSG_DENY, alone, s->next_deny->fd);
}

void sl_denied_commit(struct sl_supervisor *s)
{
	unsigned loads = sl_guarding_n_loads(s->guarding);

	if (s->next_deny) {
		sl_deny_list_free(s->deny);
		s->deny = SL_TAKE_PTR(s->next_deny);
	}
	sl_guarding_set(s->guarding, s->now.conf, s->deny);
	if (s->current && sl_guarding_n_loads(s->guarding) != loads)
		send_counters(s, s->current);
}

/* ---- the file alone ---- */

static void finish(struct sl_supervisor *s, bool ok)
{
	sl_timer_stop(&s->job_deadline);
	sl_denied_cancel(s);
	sl_supervisor_send_facts(s);
	sl_supervisor_finish_job(s, SL_CTL_RELOAD_DENY_FILE, ok);
}

static void on_deadline(struct sl_timer *timer)
{
	struct sl_supervisor *s = SL_CONTAINER_OF(timer, struct sl_supervisor, job_deadline);

	sl_log(SL_LOG_ERROR, "the proxy process does not take the deny_file, replacing it");
	if (s->current)
		sl_child_kill(s->current); /* its death ends the job */
}

void sl_denied_start(struct sl_supervisor *s)
{
	s->job_what = SL_CTL_RELOAD_DENY_FILE;
	s->deny_started_us = sl_clock_us();
	if (!s->now.conf->global.deny_file) {
		sl_str_adds(&s->report, "there is no global.security.deny_file\n");
		finish(s, false);
		return;
	}
	if (sl_denied_read(s, s->now.conf) < 0 ||
	    sl_brokering_check(s, s->now.conf, &s->report) < 0) {
		sl_str_adds(&s->report, "nothing has changed, the old addresses stay in force\n");
		finish(s, false);
		return;
	}
	s->job = SL_JOB_DENY;
	sl_timer_start(s->loop, &s->job_deadline, sl_loop_now_ms(s->loop) + DENY_WAIT_MS,
		       on_deadline);
	sl_denied_send_next(s, 1);
}

static void on_applied(struct sl_supervisor *s)
{
	sl_denied_commit(s);
	sl_brokering_deny(s);
	sl_reload_await_nat(s);
}

void sl_denied_finish(struct sl_supervisor *s)
{
	sl_str_addf(&s->report,
		    "deny_file: %" PRIu64 " patterns in force (%" PRIu64 " ranges), %.2f s\n",
		    s->deny->n_patterns, s->deny->n_ranges,
		    (double)(sl_clock_us() - s->deny_started_us) / 1e6);
	finish(s, true);
}

void sl_denied_on_message(struct sl_supervisor *s, const struct sl_msg *msg)
{
	if (msg->type == SL_MSG_APPLIED) {
		on_applied(s);
	} else if (msg->type == SL_MSG_FAILED) {
		sl_str_addf(&s->report, "error: the proxy process refused it: %s\n", msg->text);
		finish(s, false);
	}
}

/* The next one starts with it. */
void sl_denied_on_death(struct sl_supervisor *s)
{
	on_applied(s);
}
