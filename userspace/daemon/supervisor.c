/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "daemon/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "daemon/bind.h"
#include "daemon/notify.h"
#include "daemon/resume.h"
#include "daemon/state.h"

#define DRAIN_SLACK_MS 5000
#define STOP_NOW_MS 2000
#define START_WAIT_MS 30000
/* Connection ids count from the seconds since this moment, so that no two proxies share one. */
#define ID_EPOCH 1767225600u /* 2026-01-01 */
#define ID_SHIFT 20

static struct sl_child *child_of(struct sl_list *node)
{
	return SL_CONTAINER_OF(node, struct sl_child, node);
}

/* ---- what a proxy is given ---- */

static uint64_t next_conn_id(struct sl_supervisor *s)
{
	uint64_t step = UINT64_C(1) << ID_SHIFT;
	time_t now = time(NULL);
	uint64_t id = now > ID_EPOCH ? ((uint64_t)now - ID_EPOCH) << ID_SHIFT : step;

	if (id < s->last_conn_id + step)
		id = s->last_conn_id + step;
	s->last_conn_id = id;
	return id;
}

static unsigned n_workers(const struct sl_conf *conf)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);

	if (conf->global.workers)
		return conf->global.workers;
	return n > 0 ? (unsigned)n : 1;
}

/* Above what connections will use, and no higher than the table of descriptors should grow. */
static uint32_t channel_number(const struct sl_conf *conf)
{
	const uint64_t max = 1u << 20;
	uint64_t wanted = sl_privs_files_needed(conf->global.max_connections, conf->n_listens);
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return 0;
	if (wanted > limit.rlim_cur)
		wanted = limit.rlim_cur;
	return (uint32_t)(wanted < max ? wanted : max) - 1;
}

void sl_supervisor_send_options(struct sl_supervisor *s, struct sl_child *c)
{
	bool is_proxy = c->role == SL_ROLE_PROXY;
	const struct sl_msg msg = {
		.type = SL_MSG_OPTIONS,
		.options = { .protocol = SL_PROTOCOL,
			     .supervisor = getpid(),
			     .n_workers = c->n_workers,
			     .uid = s->identity.uid,
			     .gid = s->identity.gid,
			     .is_single = s->options->is_single,
			     .channel_fd = is_proxy ? channel_number(s->now.conf) : 0,
			     .log_level = (uint16_t)s->now.conf->global.log_level,
			     .log_json = s->now.conf->global.log_json,
			     .first_conn_id = is_proxy ? next_conn_id(s) : 0,
			     .started_ms = s->started_ms }
	};

	sl_child_send(c, &msg, -1);
}

static void send_facts(const struct sl_supervisor *s, struct sl_child *c)
{
	const struct sl_child *broker = s->brokering.child;
	struct sl_msg msg = { .type = SL_MSG_FACTS,
			      .id = broker ? (uint64_t)broker->pid : 0,
			      .facts = { .last_reload_unix = s->last_reload_unix,
					 .last_reload_ok = s->last_reload_ok,
					 .guard_ranges = sl_guarding_n_ranges(s->guarding),
					 .guard_interfaces =
						 sl_guarding_n_interfaces(s->guarding) } };

	(void)snprintf(msg.facts.steering, sizeof(msg.facts.steering), "%.*s",
		       (int)sizeof(msg.facts.steering) - 1,
		       s->steering.text[0] ? s->steering.text : "not needed");
	(void)snprintf(msg.facts.guard, sizeof(msg.facts.guard), "%s",
		       sl_guarding_text(s->guarding));
	if (s->deny)
		msg.facts.deny_patterns = (uint32_t)s->deny->n_patterns;
	sl_child_send(c, &msg, -1);
}

void sl_supervisor_send_facts(struct sl_supervisor *s)
{
	if (s->current)
		send_facts(s, s->current);
}

static void send_access(const struct sl_supervisor *s, struct sl_child *c)
{
	const struct sl_msg msg = { .type = s->access_fd >= 0 ? SL_MSG_ACCESS : SL_MSG_NO_ACCESS };

	sl_child_send(c, &msg, s->access_fd);
}

void sl_supervisor_send_access(struct sl_supervisor *s)
{
	struct sl_list *pos;

	sl_list_for_each (pos, &s->children)
		send_access(s, child_of(pos));
}

static void send_setup(struct sl_supervisor *s, struct sl_child *c)
{
	const struct sl_msg control = { .type = SL_MSG_CONTROL };
	const struct sl_msg config = { .type = SL_MSG_CONFIG, .id = s->now.generation };
	const struct sl_msg commit = { .type = SL_MSG_COMMIT };

	sl_supervisor_send_options(s, c);
	send_facts(s, c);
	send_access(s, c);
	sl_child_send(c, &control, s->control_fd);
	sl_child_send(c, &config, s->now.bundle_fd);
	sl_denied_send(s, c);
	sl_secrets_send(s, c);
	for (size_t i = 0; i < s->now.listeners.n; i++)
		sl_send_listener(c, &s->now.listeners.item[i]);
	sl_send_http(c, s->now.http_fd);
	sl_child_send(c, &commit, -1);
}

int sl_supervisor_start_proxy(struct sl_supervisor *s, const char *exe, struct sl_child **ret)
{
	struct sl_child *c = NULL;
	int r = sl_child_spawn(s->loop, SL_ROLE_PROXY, s->options->is_single ? NULL : exe,
			       &s->events, &c);

	if (r < 0)
		return r;
	c->serial = ++s->last_serial;
	c->n_workers = n_workers(s->now.conf);
	sl_list_add(&s->children, &c->node);
	*ret = c; /* before the first message, whose failure is reported as an end */
	send_setup(s, c);
	return 0;
}

/* ---- the current proxy ---- */

static void start_current(struct sl_supervisor *s);

static void on_restart(struct sl_timer *timer)
{
	start_current(SL_CONTAINER_OF(timer, struct sl_supervisor, restart));
}

static void on_start_deadline(struct sl_timer *timer)
{
	struct sl_child *c = SL_CONTAINER_OF(timer, struct sl_child, deadline);

	sl_log(SL_LOG_ERROR, "proxy process %d is not ready after %d s, killing it", (int)c->pid,
	       START_WAIT_MS / 1000);
	sl_child_kill(c);
}

static void wait_restart(struct sl_supervisor *s, uint64_t wait_ms)
{
	sl_log(SL_LOG_ERROR,
	       "the proxy process keeps failing, next start in %" PRIu64
	       " s; connections wait in the queues of the listeners",
	       wait_ms / 1000);
	sl_timer_start(s->loop, &s->restart, sl_loop_now_ms(s->loop) + wait_ms, on_restart);
}

static void start_current(struct sl_supervisor *s)
{
	int r = sl_supervisor_start_proxy(s, "/proc/self/exe", &s->current);

	sl_backoff_started(&s->backoff, sl_loop_now_ms(s->loop));
	if (r < 0) {
		(void)sl_err(r, "cannot start a proxy process");
		wait_restart(s, sl_backoff_failed(&s->backoff));
		return;
	}
	sl_brokering_connect(s, s->current);
	sl_timer_start(s->loop, &s->current->deadline, sl_loop_now_ms(s->loop) + START_WAIT_MS,
		       on_start_deadline);
}

/* Whatever is left of the process: the next one starts now, with the same sockets. */
static void replace_current(struct sl_supervisor *s)
{
	uint64_t wait_ms = sl_backoff_died(&s->backoff, sl_loop_now_ms(s->loop));

	s->current = NULL;
	if (s->job == SL_JOB_PREPARE || s->job == SL_JOB_COMMIT)
		sl_reload_on_death(s);
	else if (s->job == SL_JOB_DENY)
		sl_denied_on_death(s);
	if (wait_ms > 0)
		wait_restart(s, wait_ms);
	else
		start_current(s);
}

static void log_death(const struct sl_child *c, const struct sl_child_end *end)
{
	sl_log(SL_LOG_ERROR, "proxy process %d %s; the connections it relayed are lost",
	       (int)c->pid, end->text);
}

static void on_current_death(struct sl_supervisor *s, const struct sl_child *c,
			     const struct sl_child_end *end)
{
	if (s->stopping) {
		s->current = NULL;
		sl_info("proxy process %d %s", (int)c->pid, end->text);
		return;
	}
	log_death(c, end);
	if (!s->has_been_ready || s->options->is_single) {
		s->current = NULL;
		s->exit_code = 1;
		sl_loop_quit(s->loop);
		return;
	}
	replace_current(s);
}

/* A process with many connections takes long to die; clients need not wait for that. */
static void on_lost(void *arg, struct sl_child *c)
{
	struct sl_supervisor *s = arg;

	if (c == s->current && s->has_been_ready && !s->stopping)
		replace_current(s);
}

static void on_ready(struct sl_supervisor *s, struct sl_child *c)
{
	if (c->state != SL_CHILD_STARTING)
		return;
	sl_timer_stop(&c->deadline);
	c->state = SL_CHILD_RUNNING;
	sl_info("ready: proxy process %d, generation %" PRIu64 ", %zu listener%s", (int)c->pid,
		s->now.generation, s->now.listeners.n, s->now.listeners.n == 1 ? "" : "s");
	if (!s->has_been_ready)
		sl_notify("READY=1");
	s->has_been_ready = true;
	sl_supervisor_next_job(s);
}

/* ---- requests ---- */

void sl_supervisor_reply(struct sl_supervisor *s, const struct sl_waiter *waiter,
			 enum sl_ctl_result result)
{
	const struct sl_msg msg = { .type = SL_MSG_REPLY, .flag = result, .id = waiter->request };
	struct sl_list *pos;
	int fd = -1;

	sl_list_for_each (pos, &s->children) {
		struct sl_child *c = child_of(pos);

		if (c->serial != waiter->child)
			continue;
		if (sl_memfd_new("sluice-reply", sl_str_text(&s->report), s->report.len, &fd) == 0)
			sl_child_send_owned(c, &msg, fd);
		return;
	}
}

void sl_supervisor_refuse(struct sl_supervisor *s, const struct sl_waiter *waiter,
			  enum sl_ctl_result result, const char *text)
{
	/* The report is that of a job under way, which goes on. */
	struct sl_str report = s->report;

	s->report = (struct sl_str){ 0 };
	sl_str_adds(&s->report, text);
	sl_supervisor_reply(s, waiter, result);
	sl_str_done(&s->report);
	s->report = report;
}

static void ask(struct sl_supervisor *s, enum sl_ctl_request what, struct sl_waiter waiter)
{
	struct sl_waiters *waiting = &s->waiting[what];

	if (s->stopping) {
		sl_supervisor_refuse(s, &waiter, SL_CTL_FAILED, SL_STOPPING_TEXT);
		return;
	}
	s->wants[what] = true;
	if (waiting->n < SL_ARRAY_LEN(waiting->item))
		waiting->item[waiting->n++] = waiter;
	else
		sl_supervisor_refuse(s, &waiter, SL_CTL_BUSY,
				     "error: 64 requests for this are waiting already, try again "
				     "later\n");
	sl_supervisor_next_job(s);
}

static void log_report(const struct sl_supervisor *s, enum sl_ctl_request what, bool ok)
{
	static const char *const verbs[SL_CTL_REQUEST_COUNT_] = {
		[SL_CTL_RELOAD] = "reload",
		[SL_CTL_UPGRADE] = "upgrade",
		[SL_CTL_RELOAD_DENY_FILE] = "reload of deny_file",
		[SL_CTL_CHANGE] = "change",
		[SL_CTL_CERT_RELOAD] = "reload of certificates",
	};
	size_t len = s->report.len;

	while (len > 0 && s->report.p[len - 1] == '\n')
		len--;
	/* Errors have a line for the place and one for the caret: they begin on a line of their
	 * own. */
	sl_log(ok ? SL_LOG_INFO : SL_LOG_ERROR, "%s %s:%c%.*s", verbs[what],
	       ok ? "done" : "refused", memchr(sl_str_text(&s->report), '\n', len) ? '\n' : ' ',
	       (int)len, sl_str_text(&s->report));
}

void sl_supervisor_finish_job(struct sl_supervisor *s, enum sl_ctl_request what, bool ok)
{
	log_report(s, what, ok);
	for (size_t i = 0; i < s->asked[what].n; i++)
		sl_supervisor_reply(s, &s->asked[what].item[i], ok ? SL_CTL_DONE : SL_CTL_FAILED);
	s->asked[what].n = 0;
	sl_str_done(&s->report);
	s->job = SL_JOB_NONE;
	if (what == SL_CTL_RELOAD)
		sl_notify("READY=1");
	sl_supervisor_next_job(s);
}

static void begin_job(struct sl_supervisor *s, enum sl_ctl_request what)
{
	s->wants[what] = false;
	s->asked[what] = s->waiting[what];
	s->waiting[what].n = 0;
	if (what == SL_CTL_RELOAD) {
		sl_notify_reloading();
		sl_reload_start(s);
	} else if (what == SL_CTL_RELOAD_DENY_FILE) {
		sl_denied_start(s);
	} else if (what == SL_CTL_CERT_RELOAD) {
		sl_secrets_start(s);
	} else {
		sl_upgrade_start(s);
	}
}

static void on_job_task(struct sl_task *task)
{
	struct sl_supervisor *s = SL_CONTAINER_OF(task, struct sl_supervisor, job_task);

	if (s->job != SL_JOB_NONE || s->stopping || !s->current ||
	    s->current->state != SL_CHILD_RUNNING)
		return;
	if (s->wants[SL_CTL_RELOAD])
		begin_job(s, SL_CTL_RELOAD);
	else if (s->wants[SL_CTL_UPGRADE])
		begin_job(s, SL_CTL_UPGRADE);
	else if (s->wants[SL_CTL_RELOAD_DENY_FILE])
		begin_job(s, SL_CTL_RELOAD_DENY_FILE);
	else if (s->wants[SL_CTL_CERT_RELOAD])
		begin_job(s, SL_CTL_CERT_RELOAD);
	else if (!sl_list_is_empty(&s->pending))
		sl_change_start(s);
}

void sl_supervisor_next_job(struct sl_supervisor *s)
{
	sl_loop_again(s->loop, &s->job_task, on_job_task);
}

static void on_request(struct sl_supervisor *s, const struct sl_child *c, const struct sl_msg *msg)
{
	if (msg->flag < SL_CTL_REQUEST_COUNT_ && msg->flag != SL_CTL_CHANGE)
		ask(s, (enum sl_ctl_request)msg->flag,
		    (struct sl_waiter){ .child = c->serial, .request = msg->id });
}

static void on_change(struct sl_supervisor *s, struct sl_child *c, const struct sl_msg *msg, int fd)
{
	const struct sl_waiter waiter = { .child = c->serial, .request = msg->id };
	int r = sl_change_take(s, &waiter, fd);

	if (r < 0) {
		(void)sl_err(r, "proxy process %d sent what no proxy sends, killing it",
			     (int)c->pid);
		sl_child_kill(c);
		return;
	}
	sl_supervisor_next_job(s);
}

static void on_message(void *arg, struct sl_child *c, const struct sl_msg *msg, int fd)
{
	struct sl_supervisor *s = arg;

	if (msg->type == SL_MSG_REQUEST) {
		on_request(s, c, msg);
	} else if (msg->type == SL_MSG_CHANGE) {
		on_change(s, c, msg, fd);
	} else if (c == s->candidate) {
		sl_upgrade_on_message(s, msg);
	} else if (c == s->current && msg->type == SL_MSG_READY) {
		on_ready(s, c);
	} else if (c == s->current && s->job == SL_JOB_DENY) {
		sl_denied_on_message(s, msg);
	} else if (c == s->current && s->job != SL_JOB_NONE && s->job != SL_JOB_NAT) {
		sl_reload_on_message(s, msg);
	} else if (c == s->current && msg->type == SL_MSG_FAILED) {
		sl_log(SL_LOG_ERROR, "proxy process %d cannot start: %s", (int)c->pid, msg->text);
		sl_child_kill(c);
	}
}

/* ---- access log ---- */

int sl_supervisor_open_access(struct sl_supervisor *s, const struct sl_conf *conf)
{
	const char *path = conf->global.access_log;
	_cleanup_fd_ int fd = -1;

	if (path) {
		if (strcmp(path, "stderr") == 0)
			fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
		else
			/* Non-blocking: a pipe nobody reads must not stop the proxy. */
			fd = open(path,
				  O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK,
				  0640);
		if (fd < 0)
			return sl_err(-errno, "cannot open the access log %s", path);
	}
	sl_closep(&s->access_fd);
	s->access_fd = SL_TAKE_FD(fd);
	return 0;
}

static void reopen_logs(struct sl_supervisor *s)
{
	if (sl_supervisor_open_access(s, s->now.conf) < 0)
		return;
	sl_supervisor_send_access(s);
	sl_info("log files reopened");
}

void sl_supervisor_set_log(const struct sl_conf *conf)
{
	sl_log_setup(conf->global.log_level, conf->global.log_json, STDERR_FILENO);
}

/* ---- the end ---- */

static uint64_t longest_drain_ms(const struct sl_conf *conf)
{
	uint64_t longest = 0;

	for (size_t i = 0; i < conf->n_routes; i++)
		if (conf->routes[i].timeouts.drain > longest)
			longest = conf->routes[i].timeouts.drain;
	return longest;
}

static void on_drain_deadline(struct sl_timer *timer)
{
	struct sl_child *c = SL_CONTAINER_OF(timer, struct sl_child, deadline);

	sl_log(SL_LOG_ERROR, "proxy process %d has not ended after its drain, killing it",
	       (int)c->pid);
	sl_child_kill(c);
}

void sl_supervisor_set_drain_deadline(struct sl_supervisor *s, struct sl_child *c, uint64_t wait_ms)
{
	sl_timer_start(s->loop, &c->deadline, sl_loop_now_ms(s->loop) + wait_ms, on_drain_deadline);
}

void sl_supervisor_drain(struct sl_supervisor *s, struct sl_child *c, bool accept_queued)
{
	const struct sl_msg msg = { .type = SL_MSG_DRAIN, .flag = accept_queued };

	c->state = SL_CHILD_DRAINING;
	sl_supervisor_set_drain_deadline(s, c, longest_drain_ms(s->now.conf) + DRAIN_SLACK_MS);
	sl_child_send(c, &msg, -1);
}

/* The broker goes last: flows may outlive their proxies, but not the daemon. */
static void quit_when_empty(struct sl_supervisor *s)
{
	if (s->stopping && sl_list_is_empty(&s->children) && !sl_brokering_stop(s))
		sl_loop_quit(s->loop);
}

void sl_supervisor_broker_gone(struct sl_supervisor *s)
{
	quit_when_empty(s);
}

static void refuse_all(struct sl_supervisor *s, struct sl_waiters *waiters)
{
	for (size_t i = 0; i < waiters->n; i++)
		sl_supervisor_refuse(s, &waiters->item[i], SL_CTL_FAILED, SL_STOPPING_TEXT);
	waiters->n = 0;
}

static void cancel_job(struct sl_supervisor *s)
{
	for (int what = 0; what < SL_CTL_REQUEST_COUNT_; what++) {
		refuse_all(s, &s->asked[what]);
		refuse_all(s, &s->waiting[what]);
	}
	sl_timer_stop(&s->job_deadline);
	if (s->job == SL_JOB_PREPARE) {
		sl_listeners_cancel(&s->next.listeners, &s->now.listeners);
		sl_setup_done(&s->next);
	}
	sl_denied_cancel(s);
	if (s->candidate) {
		sl_child_kill(s->candidate);
		s->candidate = NULL;
	}
	sl_changes_cancel(s);
	s->job = SL_JOB_NONE;
}

static void stop_drain(struct sl_supervisor *s)
{
	s->stopping = SL_STOP_DRAIN;
	sl_info("stopping: waiting for connections, a second signal ends at once");
	sl_notify("STOPPING=1");
	cancel_job(s);
	sl_timer_stop(&s->restart);
	/* The proxy's copies are the last ones: it accepts what is queued, then closes them. */
	sl_guarding_stop(s->guarding);
	sl_steering_done(&s->steering);
	sl_listeners_done(&s->now.listeners);
	sl_brokering_drain(s);
	if (s->current)
		sl_supervisor_drain(s, s->current, true);
	quit_when_empty(s);
}

static void on_stop_deadline(struct sl_timer *timer)
{
	struct sl_supervisor *s = SL_CONTAINER_OF(timer, struct sl_supervisor, stop_deadline);
	struct sl_list *pos;

	sl_list_for_each (pos, &s->children)
		sl_child_kill(child_of(pos));
}

static void stop_now(struct sl_supervisor *s)
{
	const struct sl_msg msg = { .type = SL_MSG_STOP };
	struct sl_list *pos;

	s->stopping = SL_STOP_NOW;
	sl_info("stopping at once");
	sl_list_for_each (pos, &s->children)
		sl_child_send(child_of(pos), &msg, -1);
	sl_timer_start(s->loop, &s->stop_deadline, sl_loop_now_ms(s->loop) + STOP_NOW_MS,
		       on_stop_deadline);
}

static void on_ended(void *arg, struct sl_child *c, const struct sl_child_end *end)
{
	struct sl_supervisor *s = arg;

	if (c == s->current)
		on_current_death(s, c, end);
	else if (c == s->candidate)
		sl_upgrade_on_death(s, end);
	else if (c->state == SL_CHILD_LOST)
		log_death(c, end);
	else
		sl_info("drained proxy process %d %s", (int)c->pid, end->text);
	sl_child_free(c);
	quit_when_empty(s);
}

/* ---- signals ---- */

static void on_signal(struct sl_supervisor *s, uint32_t number)
{
	static const struct sl_waiter nobody = { 0 };

	switch (number) {
	case SIGHUP:
		ask(s, SL_CTL_RELOAD, nobody);
		break;
	case SIGUSR1:
		reopen_logs(s);
		break;
	case SIGTERM:
	case SIGQUIT:
	case SIGINT:
		if (s->stopping == SL_NOT_STOPPING)
			stop_drain(s);
		else if (s->stopping == SL_STOP_DRAIN)
			stop_now(s);
		break;
	default:
		break;
	}
}

static void on_signal_fd(struct sl_io *io, uint32_t events)
{
	struct sl_supervisor *s = SL_CONTAINER_OF(io, struct sl_supervisor, signal_io);
	struct signalfd_siginfo si;

	(void)events;
	while (read(s->signal_fd, &si, sizeof(si)) == sizeof(si))
		on_signal(s, si.ssi_signo);
}

static int take_signals(struct sl_supervisor *s)
{
	static const int taken[] = { SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1 };
	sigset_t set;

	(void)sigemptyset(&set);
	for (size_t i = 0; i < SL_ARRAY_LEN(taken); i++)
		(void)sigaddset(&set, taken[i]);
	(void)signal(SIGPIPE, SIG_IGN);
	/* Threads of --single are started later and inherit the mask. */
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return -errno;
	s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (s->signal_fd < 0)
		return -errno;
	return sl_io_start(s->loop, &s->signal_io, s->signal_fd, SL_IO_IN, on_signal_fd);
}

/* ---- the start ---- */

/* Messages about the configuration are for eyes and editors: as they are, without a log prefix. */
static void print_report(struct sl_str *report)
{
	if (report->len > 0)
		(void)fwrite(report->p, 1, report->len, stderr);
	sl_str_clear(report);
}

static int find_exe(struct sl_supervisor *s)
{
	static const char deleted[] = " (deleted)";
	char path[4096];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);
	size_t tail = sizeof(deleted) - 1;

	if (n < 0)
		return -errno;
	path[n] = '\0';
	if ((size_t)n > tail && strcmp(path + n - tail, deleted) == 0)
		path[(size_t)n - tail] = '\0';
	s->exe = strdup(path);
	return s->exe ? 0 : -ENOMEM;
}

static int find_identity(struct sl_supervisor *s)
{
	_cleanup_(sl_str_done) struct sl_str note = { 0 };
	const char *user = s->now.conf->global.user;
	int r = sl_privs_find(user, &s->identity, &note);

	if (r < 0)
		return sl_err(r, "global.user: there is no account '%s'", user ? user : "");
	if (note.len > 0)
		sl_log(SL_LOG_WARN, "%s", sl_str_text(&note));
	return 0;
}

static void raise_files(const struct sl_conf *conf)
{
	uint64_t n_listeners = 0;
	uint64_t needed;
	uint64_t got;

	for (size_t i = 0; i < conf->n_listens; i++)
		n_listeners += (uint64_t)conf->listens[i].to - conf->listens[i].from + 1;
	got = sl_privs_raise_files(conf->global.max_connections, n_listeners, &needed);
	if (got < needed)
		sl_log(SL_LOG_WARN,
		       "at most %" PRIu64 " open files, but global.max_connections %" PRIu64
		       " needs %" PRIu64 ": beyond about %" PRIu64
		       " connections clients will have to wait (LimitNOFILE=, ulimit -n)",
		       got, conf->global.max_connections, needed,
		       got > needed - 2 * conf->global.max_connections
			       ? (got - (needed - 2 * conf->global.max_connections)) / 2
			       : 0);
}

static int bind_control(struct sl_supervisor *s)
{
	int r = sl_bind_control(s->runtime.control_path, s->identity.socket_gid, &s->control_fd);

	if (r < 0)
		return sl_err(r, "cannot create the control socket %s", s->runtime.control_path);
	return 0;
}

static int bind_all(struct sl_supervisor *s, const struct sl_conf_sources *sources)
{
	const struct sl_setup nothing = { .bundle_fd = -1, .http_fd = -1 };
	int r = sl_setup_bind(s, &nothing, sources, &s->now, &s->report);

	print_report(&s->report);
	if (r < 0)
		return sl_err(r, "cannot listen, not starting");
	r = sl_steering_set(&s->steering, &s->now.listeners);
	return r < 0 ? sl_err(r, "cannot steer port ranges, not starting") : 0;
}

static int launch(struct sl_supervisor *s, const struct sl_bundle *bundle)
{
	int r = sl_privs_trim_supervisor();

	if (r < 0)
		return sl_err(r, "cannot give up capabilities, not starting");
	sl_brokering_start(s);
	r = sl_bundle_pack(bundle, &s->now.bundle_fd);
	if (r == 0)
		r = sl_supervisor_start_proxy(s, "/proc/self/exe", &s->current);
	if (r < 0)
		return sl_err(r, "cannot start the proxy process");
	sl_brokering_connect(s, s->current);
	sl_timer_start(s->loop, &s->current->deadline, sl_loop_now_ms(s->loop) + START_WAIT_MS,
		       on_start_deadline);
	return 0;
}

/* What was kept of the changes lies over the files; where it is, the files say. */
static int read_changes(struct sl_supervisor *s, struct sl_bundle *bundle)
{
	_cleanup_(sl_diags_done) struct sl_diags diags = { 0 };
	struct sl_str path = { 0 };
	size_t n_files = bundle->sources.n;
	struct sl_conf *conf;
	int r;

	sl_str_addf(&path, "%s/changes", s->now.conf->global.state_dir);
	s->changes_path = sl_str_take(&path);
	if (!s->changes_path)
		return -ENOMEM;
	r = sl_overlay_load(s->changes_path, &bundle->sources, &s->report);
	if (r < 0 || bundle->sources.n == n_files)
		return r;
	r = sl_conf_build(&bundle->sources, &conf, &diags);
	/* Instead of what the files alone gave cause for: that is in it again. */
	sl_str_clear(&s->report);
	sl_str_add(&s->report, sl_str_text(&diags.text), diags.text.len);
	if (r < 0) {
		sl_str_addf(&s->report,
			    "%s: error: the changes made at run time do not fit the files\n"
			    "  Correct the files, or take what does not fit out of that file, or "
			    "move it away.\n",
			    s->changes_path);
		return r;
	}
	sl_conf_free(s->now.conf);
	s->now.conf = conf;
	sl_info("%zu changes made at run time are in force, from %s", bundle->sources.n - n_files,
		s->changes_path);
	return 0;
}

/* In the order that leaves nothing behind when a step fails; each step says what failed. */
static int start_fresh(struct sl_supervisor *s)
{
	_cleanup_(sl_bundle_done) struct sl_bundle bundle = { 0 };
	const struct sl_conf_global *global;
	int r = sl_setup_read(s->options->config_path, NULL, &bundle, &s->now.conf, &s->report);

	if (r == 0)
		r = read_changes(s, &bundle);
	if (r == 0)
		r = sl_denied_read(s, s->now.conf);
	if (r == 0)
		r = sl_brokering_check(s, s->now.conf, &s->report);
	if (r == 0)
		r = sl_secrets_read(s, &bundle.sources, &s->now, &s->report);
	print_report(&s->report);
	if (r < 0) {
		s->exit_code = SL_EXIT_CONFIG;
		return r;
	}
	s->now.generation = 1;
	s->last_reload_ok = true;
	global = &s->now.conf->global;
	sl_supervisor_set_log(s->now.conf);
	r = sl_runtime_enter(global->runtime_dir, global->state_dir, &s->runtime);
	if (r == 0)
		r = find_identity(s);
	if (r < 0)
		return r;
	raise_files(s->now.conf);
	r = bind_all(s, &bundle.sources);
	if (r == 0)
		r = bind_control(s);
	if (r == 0)
		r = sl_supervisor_open_access(s, s->now.conf);
	if (r < 0)
		return r;
	sl_denied_commit(s);
	sl_secrets_commit(s);
	return launch(s, &bundle);
}

static void supervisor_done(struct sl_supervisor *s)
{
	if (!s->loop)
		return;
	sl_timer_stop(&s->restart);
	sl_timer_stop(&s->job_deadline);
	sl_timer_stop(&s->stop_deadline);
	sl_task_cancel(&s->job_task);
	while (!sl_list_is_empty(&s->children)) {
		struct sl_child *c = child_of(s->children.next);

		sl_child_kill(c);
		sl_child_free(c);
	}
	sl_brokering_done(s);
	sl_io_stop(&s->signal_io);
	sl_closep(&s->signal_fd);
	sl_secrets_done(s);
	sl_setup_done(&s->now);
	sl_setup_done(&s->next);
	sl_guarding_free(s->guarding);
	sl_deny_list_free(s->deny);
	sl_denied_cancel(s);
	sl_steering_done(&s->steering);
	sl_closep(&s->control_fd);
	sl_closep(&s->access_fd);
	sl_runtime_leave(&s->runtime);
	sl_changes_done(s);
	free(s->changes_path);
	sl_str_done(&s->report);
	sl_loop_free(s->loop);
	free(s->exe);
}

static int start(struct sl_supervisor *s)
{
	int r = sl_loop_new(&s->loop);

	if (r == 0)
		r = find_exe(s);
	if (r == 0)
		r = take_signals(s);
	if (r == 0)
		r = sl_denied_init(s);
	if (r == 0)
		r = sl_secrets_init(s);
	if (r < 0)
		return sl_err(r, "cannot start");
	if (s->options->resume_fd >= 0)
		return sl_resume_load(s, s->options->resume_fd);
	return start_fresh(s);
}

int sl_supervisor_run(const struct sl_daemon_options *options)
{
	struct sl_supervisor s = { .options = options,
				   .signal_fd = -1,
				   .control_fd = -1,
				   .access_fd = -1,
				   .tickets_fd = -1,
				   .runtime = { .pid_fd = -1 },
				   .now = { .bundle_fd = -1, .http_fd = -1 },
				   .next = { .bundle_fd = -1, .http_fd = -1 },
				   .next_listener_id = 1 };
	int r;

	s.events = (struct sl_child_events){
		.message = on_message, .lost = on_lost, .ended = on_ended, .arg = &s
	};
	sl_brokering_init(&s);
	s.started_ms = sl_clock_ms();
	sl_list_init(&s.children);
	sl_list_init(&s.pending);
	sl_log_set_role(options->is_single ? "single" : "supervisor");
	r = start(&s);
	if (r == 0) {
		r = sl_loop_run(s.loop);
		if (r < 0)
			(void)sl_err(r, "the event loop failed");
	}
	if (r < 0 && s.exit_code == 0)
		s.exit_code = 1;
	if (s.stopping)
		sl_info("stopped");
	supervisor_done(&s);
	return s.exit_code;
}
