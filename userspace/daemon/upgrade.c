/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "daemon/resume.h"
#include "daemon/state.h"

#define READY_WAIT_MS 10000
#define FLUSH_WAIT_MS 2000
#define FLUSH_STEP_MS 2

static void fail(struct sl_supervisor *s)
{
	sl_timer_stop(&s->job_deadline);
	sl_str_adds(&s->report, "nothing has changed, the running program goes on\n");
	sl_supervisor_finish_job(s, SL_CTL_UPGRADE, false);
}

static void on_deadline(struct sl_timer *timer)
{
	struct sl_supervisor *s = SL_CONTAINER_OF(timer, struct sl_supervisor, job_deadline);

	sl_str_addf(&s->report, "error: %s was not ready within %d s and has been killed\n", s->exe,
		    READY_WAIT_MS / 1000);
	if (s->candidate) {
		s->candidate->state = SL_CHILD_DRAINING;
		sl_child_kill(s->candidate);
		s->candidate = NULL;
	}
	fail(s);
}

void sl_upgrade_start(struct sl_supervisor *s)
{
	int r;

	if (s->options->is_single) {
		sl_str_adds(&s->report,
			    "error: started with --single, all roles are one process\n");
		fail(s);
		return;
	}
	if (access(s->exe, X_OK) < 0) {
		sl_str_addf(&s->report, "error: cannot execute %s: %s\n", s->exe, strerror(errno));
		fail(s);
		return;
	}
	r = sl_supervisor_start_proxy(s, s->exe, &s->candidate);
	if (r < 0) {
		sl_str_addf(&s->report, "error: cannot start %s: %s\n", s->exe, strerror(-r));
		fail(s);
		return;
	}
	s->job = SL_JOB_UPGRADE;
	sl_brokering_connect(s, s->candidate);
	sl_info("upgrade: started %s as process %d beside the running one", s->exe,
		(int)s->candidate->pid);
	sl_timer_start(s->loop, &s->job_deadline, sl_loop_now_ms(s->loop) + READY_WAIT_MS,
		       on_deadline);
}

static bool is_flushed(const struct sl_supervisor *s)
{
	const struct sl_list *pos;

	sl_list_for_each (pos, &s->children)
		if (!sl_channel_is_flushed(SL_CONTAINER_OF(pos, struct sl_child, node)->channel))
			return false;
	return !s->brokering.child || sl_channel_is_flushed(s->brokering.child->channel);
}

/*
 * The new program takes over this process once nothing is left to send that only this
 * image knows of. A reader that is stuck for long costs the replacement, not the service.
 */
static void try_exec(struct sl_timer *timer)
{
	struct sl_supervisor *s = SL_CONTAINER_OF(timer, struct sl_supervisor, job_deadline);
	uint64_t now_ms = sl_loop_now_ms(s->loop);
	int r = -EBUSY;

	if (!is_flushed(s) && now_ms < s->exec_until_ms) {
		sl_timer_start(s->loop, timer, now_ms + FLUSH_STEP_MS, try_exec);
		return;
	}
	if (is_flushed(s))
		r = sl_resume_exec(s);
	(void)sl_warn(r, "upgrade: the supervisor goes on with its old program");
	s->job = SL_JOB_NONE;
	sl_supervisor_next_job(s);
}

static void on_ready(struct sl_supervisor *s, const struct sl_msg_ready *ready)
{
	struct sl_child *old = s->current;
	bool can_exec = ready->state_version == SL_STATE_VERSION;

	sl_timer_stop(&s->job_deadline);
	s->current = SL_TAKE_PTR(s->candidate);
	s->current->state = SL_CHILD_RUNNING;
	sl_str_addf(&s->report, "upgraded to version %s, process %d\n", ready->version,
		    (int)s->current->pid);
	if (!can_exec)
		sl_str_adds(&s->report,
			    "note: the supervisor keeps its old program, because the "
			    "new one cannot take over its state; restart to replace it\n");
	/* The reply goes through the old proxy, so it must be sent before the old one drains. */
	sl_supervisor_finish_job(s, SL_CTL_UPGRADE, true);
	if (old)
		sl_supervisor_drain(s, old, false);
	/* Both proxies get channels to the next one. */
	sl_brokering_replace(s, s->exe);
	if (!can_exec)
		return;
	s->job = SL_JOB_EXEC;
	s->exec_until_ms = sl_loop_now_ms(s->loop) + FLUSH_WAIT_MS;
	sl_timer_start(s->loop, &s->job_deadline, sl_loop_now_ms(s->loop), try_exec);
}

void sl_upgrade_on_message(struct sl_supervisor *s, const struct sl_msg *msg)
{
	if (msg->type == SL_MSG_READY) {
		on_ready(s, &msg->ready);
	} else if (msg->type == SL_MSG_FAILED) {
		sl_str_addf(&s->report, "error: %s: %s\n", s->exe, msg->text);
		s->candidate->state = SL_CHILD_DRAINING;
		sl_child_kill(s->candidate);
		s->candidate = NULL;
		fail(s);
	}
}

void sl_upgrade_on_death(struct sl_supervisor *s, const struct sl_child_end *end)
{
	sl_str_addf(&s->report, "error: no upgrade to %s: its process %s\n", s->exe, end->text);
	s->candidate = NULL;
	fail(s);
}
