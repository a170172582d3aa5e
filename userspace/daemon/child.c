/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "daemon/child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "daemon/broker_role.h"
#include "daemon/proxy_role.h"
#include "daemon/role.h"

#define EXIT_NOT_EXECUTED 127

/* What a child is, by its role. */
static const struct {
	const char *argv0;
	int (*run)(int channel_fd);
} kinds[SL_ROLE_COUNT_] = {
	[SL_ROLE_PROXY] = { SL_PROXY_ARGV0, sl_proxy_role_run },
	[SL_ROLE_BROKER] = { SL_BROKER_ARGV0, sl_broker_role_run },
};

static void report_end(struct sl_child *c, const struct sl_child_end *end)
{
	sl_io_stop(&c->pid_io);
	sl_timer_stop(&c->deadline);
	c->events->ended(c->events->arg, c, end);
}

static void describe(const siginfo_t *si, struct sl_child_end *ret)
{
	*ret = (struct sl_child_end){ 0 };
	if (si->si_code == CLD_EXITED && si->si_status == 0) {
		ret->is_clean = true;
		(void)snprintf(ret->text, sizeof(ret->text), "ended");
	} else if (si->si_code == CLD_EXITED && si->si_status == EXIT_NOT_EXECUTED) {
		(void)snprintf(ret->text, sizeof(ret->text), "could not be executed");
	} else if (si->si_code == CLD_EXITED) {
		(void)snprintf(ret->text, sizeof(ret->text), "exited with code %d", si->si_status);
	} else {
		(void)snprintf(ret->text, sizeof(ret->text), "was killed by signal %d (%s)%s",
			       si->si_status, sigdescr_np(si->si_status),
			       si->si_status == SIGSYS ? ", a system call outside its filter" : "");
	}
}

static void on_pidfd(struct sl_io *io, uint32_t events)
{
	struct sl_child *c = SL_CONTAINER_OF(io, struct sl_child, pid_io);
	struct sl_child_end end;
	siginfo_t si = { 0 };

	(void)events;
	if (waitid(P_PIDFD, (id_t)c->pidfd, &si, WEXITED | WNOHANG) < 0 || si.si_pid == 0)
		return;
	describe(&si, &end);
	report_end(c, &end);
}

static void end_thread(struct sl_child *c)
{
	struct sl_child_end end = { 0 };

	(void)pthread_join(c->thread, NULL);
	end.is_clean = c->thread_code == 0;
	(void)snprintf(end.text, sizeof(end.text), end.is_clean ? "ended" : "failed");
	report_end(c, &end);
}

/* The text of a process that may be under foreign control ends up in logs and on terminals. */
static void make_printable(char *text)
{
	for (; *text; text++)
		if (*text < ' ' || *text > '~')
			*text = '?';
}

static void deliver(struct sl_child *c, const struct sl_msg *msg, int fd)
{
	struct sl_msg clean = *msg;

	if (clean.type == SL_MSG_FAILED || c->role == SL_ROLE_BROKER) {
		make_printable(clean.text);
	} else if (clean.type == SL_MSG_READY) {
		clean.ready.version[sizeof(clean.ready.version) - 1] = '\0';
		make_printable(clean.ready.version);
	}
	c->events->message(c->events->arg, c, &clean, fd);
}

static void on_channel(void *arg, int err, const struct sl_msg *msg, int fd)
{
	struct sl_child *c = arg;

	if (!err) {
		deliver(c, msg, fd);
		sl_closep(&fd);
		return;
	}
	if (c->pid == 0) {
		end_thread(c);
		return;
	}
	if (err != -EPIPE)
		sl_err(err, "%s process %d sent what no %s sends, killing it",
		       sl_role_name(c->role), (int)c->pid, sl_role_name(c->role));
	else if (c->state == SL_CHILD_DRAINING)
		return;
	sl_child_kill(c); /* nobody can talk to it any more */
	c->state = SL_CHILD_LOST;
	c->events->lost(c->events->arg, c);
}

static int child_new(struct sl_loop *loop, enum sl_role role, const struct sl_child_events *events,
		     int channel_fd, struct sl_child **ret)
{
	_cleanup_fd_ int fd = channel_fd;
	_cleanup_free_ struct sl_child *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return -ENOMEM;
	*c = (struct sl_child){
		.role = role, .loop = loop, .events = events, .pidfd = -1, .thread_fd = -1
	};
	sl_list_init(&c->node);
	r = sl_channel_new(loop, SL_TAKE_FD(fd), role, on_channel, c, &c->channel);
	if (r < 0)
		return r;
	*ret = SL_TAKE_PTR(c);
	return 0;
}

int sl_child_adopt(struct sl_loop *loop, enum sl_role role, pid_t pid, int pidfd, int channel_fd,
		   const struct sl_child_events *events, struct sl_child **ret)
{
	_cleanup_fd_ int owned = pidfd;
	struct sl_child *c = NULL;
	int r = child_new(loop, role, events, channel_fd, &c);

	if (r < 0)
		return r;
	c->pid = pid;
	c->pidfd = SL_TAKE_FD(owned);
	r = sl_io_start(loop, &c->pid_io, c->pidfd, SL_IO_IN, on_pidfd);
	if (r < 0) {
		sl_child_free(c);
		return r;
	}
	*ret = c;
	return 0;
}

/* Between fork and exec: only what is safe there. */
static void become(enum sl_role role, const char *exe, int fd)
{
	char *argv[] = { (char *)(uintptr_t)kinds[role].argv0, NULL };
	sigset_t none;

	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	if (fd == SL_ROLE_CHANNEL_FD ? fcntl(fd, F_SETFD, 0) < 0 : dup2(fd, SL_ROLE_CHANNEL_FD) < 0)
		_exit(EXIT_NOT_EXECUTED);
	(void)execv(exe, argv);
	_exit(EXIT_NOT_EXECUTED);
}

static int spawn_process(struct sl_loop *loop, enum sl_role role, const char *exe,
			 const struct sl_child_events *events, const int pair[2],
			 struct sl_child **ret)
{
	_cleanup_fd_ int ours = pair[0];
	_cleanup_fd_ int theirs = pair[1];
	_cleanup_fd_ int pidfd = -1;
	pid_t pid = fork();
	int r;

	if (pid < 0)
		return -errno;
	if (pid == 0)
		become(role, exe, theirs);
	pidfd = pidfd_open(pid, 0);
	r = pidfd < 0 ? -errno
		      : sl_child_adopt(loop, role, pid, SL_TAKE_FD(pidfd), SL_TAKE_FD(ours), events,
				       ret);
	if (r < 0) {
		(void)kill(pid, SIGKILL);
		(void)waitpid(pid, NULL, 0);
	}
	return r;
}

static void *run_thread(void *arg)
{
	struct sl_child *c = arg;

	c->thread_code = kinds[c->role].run(SL_TAKE_FD(c->thread_fd));
	return NULL;
}

static int spawn_thread(struct sl_loop *loop, enum sl_role role,
			const struct sl_child_events *events, const int pair[2],
			struct sl_child **ret)
{
	_cleanup_fd_ int theirs = pair[1];
	struct sl_child *c = NULL;
	int r = child_new(loop, role, events, pair[0], &c);

	if (r < 0)
		return r;
	c->thread_fd = SL_TAKE_FD(theirs);
	r = -pthread_create(&c->thread, NULL, run_thread, c);
	if (r < 0) {
		sl_closep(&c->thread_fd);
		sl_child_free(c);
		return r;
	}
	*ret = c;
	return 0;
}

int sl_child_spawn(struct sl_loop *loop, enum sl_role role, const char *exe,
		   const struct sl_child_events *events, struct sl_child **ret)
{
	int pair[2];
	int r = sl_channel_pair(pair);

	if (r < 0)
		return r;
	return exe ? spawn_process(loop, role, exe, events, pair, ret)
		   : spawn_thread(loop, role, events, pair, ret);
}

void sl_child_send(struct sl_child *c, const struct sl_msg *msg, int fd)
{
	int r = sl_channel_send(c->channel, msg, fd);

	/* Its end is reported by other means; a message lost for want of memory cannot be. */
	if (r < 0 && r != -EPIPE) {
		sl_err(r, "cannot talk to %s process %d, killing it", sl_role_name(c->role),
		       (int)c->pid);
		sl_child_kill(c);
	}
}

void sl_child_send_owned(struct sl_child *c, const struct sl_msg *msg, int fd)
{
	int r = sl_channel_send_owned(c->channel, msg, fd);

	if (r < 0 && r != -EPIPE) {
		sl_err(r, "cannot talk to %s process %d, killing it", sl_role_name(c->role),
		       (int)c->pid);
		sl_child_kill(c);
	}
}

void sl_child_send_copy(struct sl_child *c, const struct sl_msg *msg, int fd)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);

	if (copy >= 0) {
		sl_child_send_owned(c, msg, copy);
		return;
	}
	sl_err(-errno, "cannot talk to %s process %d, killing it", sl_role_name(c->role),
	       (int)c->pid);
	sl_child_kill(c);
}

void sl_child_kill(struct sl_child *c)
{
	if (c->pid > 0)
		(void)pidfd_send_signal(c->pidfd, SIGKILL, NULL, 0);
}

static void free_late(struct sl_task *task)
{
	free(SL_CONTAINER_OF(task, struct sl_child, free_task));
}

void sl_child_free(struct sl_child *c)
{
	if (!c)
		return;
	sl_list_remove(&c->node);
	sl_timer_stop(&c->deadline);
	sl_io_stop(&c->pid_io);
	sl_channel_free(c->channel);
	c->channel = NULL;
	sl_closep(&c->pidfd);
	sl_loop_defer(c->loop, &c->free_task, free_late);
}
