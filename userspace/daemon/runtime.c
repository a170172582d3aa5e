/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "daemon/runtime.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/str.h"

static char *path_in(const char *dir, const char *name)
{
	struct sl_str s = { 0 };

	sl_str_addf(&s, "%s/%s", dir, name);
	return sl_str_take(&s);
}

static int make_one(const char *path)
{
	if (mkdir(path, 0755) == 0 || errno == EEXIST)
		return 0;
	return -errno;
}

/* With all its parents. */
static int make_dir(const char *path)
{
	_cleanup_free_ char *part = strdup(path);
	int r = 0;

	if (!part)
		return -ENOMEM;
	for (char *p = strchr(part + 1, '/'); r == 0 && p; p = strchr(p + 1, '/')) {
		*p = '\0';
		r = make_one(part);
		*p = '/';
	}
	return r < 0 ? r : make_one(path);
}

static int fill(const char *dir, struct sl_runtime *ret)
{
	struct sl_runtime rt = { .pid_fd = -1 };

	rt.dir = strdup(dir);
	rt.pid_path = path_in(dir, "sluiced.pid");
	rt.control_path = path_in(dir, "control.sock");
	if (!rt.dir || !rt.pid_path || !rt.control_path) {
		sl_runtime_done(&rt);
		return -ENOMEM;
	}
	*ret = rt;
	return 0;
}

/* -EAGAIN: the file was replaced between open and lock; -EWOULDBLOCK is the same number. */
static int lock_pid_file(const char *path, int *ret_fd, bool *ret_busy)
{
	_cleanup_fd_ int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
	struct stat ours;
	struct stat there;

	*ret_busy = false;
	if (fd < 0)
		return -errno;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK)
			return -errno;
		*ret_busy = true;
		*ret_fd = SL_TAKE_FD(fd);
		return 0;
	}
	if (fstat(fd, &ours) < 0)
		return -errno;
	if (stat(path, &there) < 0 || ours.st_ino != there.st_ino || ours.st_dev != there.st_dev)
		return -EAGAIN;
	*ret_fd = SL_TAKE_FD(fd);
	return 0;
}

static int report_busy(const char *dir, int fd, const char *what_else)
{
	char text[32] = "";
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

	text[n > 0 ? strspn(text, "0123456789") : 0] = '\0';
	sl_log(SL_LOG_ERROR,
	       "another sluiced (pid %s) uses the runtime directory %s; stop it, or %s",
	       text[0] ? text : "unknown", dir, what_else);
	return -EBUSY;
}

static int take_lock(struct sl_runtime *rt)
{
	int r = -EAGAIN;

	for (int i = 0; i < 100 && r == -EAGAIN; i++) {
		_cleanup_fd_ int fd = -1;
		bool is_busy = false;

		r = lock_pid_file(rt->pid_path, &fd, &is_busy);
		if (r == 0 && is_busy)
			return report_busy(rt->dir, fd,
					   "set global.runtime_dir to another directory for this "
					   "one");
		if (r == 0)
			rt->pid_fd = SL_TAKE_FD(fd);
	}
	return r < 0 ? sl_err(r, "cannot lock the pid file %s", rt->pid_path) : 0;
}

static int write_pid(const struct sl_runtime *rt)
{
	char text[32];
	int n = snprintf(text, sizeof(text), "%d\n", (int)getpid());

	if (ftruncate(rt->pid_fd, 0) < 0 || pwrite(rt->pid_fd, text, (size_t)n, 0) != n)
		return sl_err(-errno, "cannot write the pid file %s", rt->pid_path);
	return 0;
}

int sl_runtime_enter(const char *dir, const char *state_dir, struct sl_runtime *ret)
{
	_cleanup_(sl_runtime_done) struct sl_runtime rt = { .pid_fd = -1 };
	int r = make_dir(dir);

	if (r < 0)
		return sl_err(r,
			      "cannot create the runtime directory %s; create it for this user or "
			      "set global.runtime_dir",
			      dir);
	r = make_dir(state_dir);
	if (r < 0)
		(void)sl_warn(r, "cannot create the state directory %s, continuing without",
			      state_dir);
	r = fill(dir, &rt);
	if (r == 0)
		r = take_lock(&rt);
	if (r == 0)
		r = write_pid(&rt);
	if (r < 0)
		return r;
	*ret = rt;
	rt = (struct sl_runtime){ .pid_fd = -1 };
	return 0;
}

int sl_runtime_lock(const char *dir, int *ret_fd)
{
	_cleanup_free_ char *path = path_in(dir, "sluiced.pid");
	_cleanup_fd_ int fd = path ? open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW) : -1;

	if (!path)
		return -ENOMEM;
	if (fd < 0 && errno != ENOENT && errno != ENOTDIR)
		return sl_err(-errno, "cannot open %s%s", path,
			      errno == EACCES ? ", which only root may: start this as root" : "");
	if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0)
		return errno == EWOULDBLOCK
			       ? report_busy(dir, fd, "end its flows with 'sluice flows --flush'")
			       : sl_err(-errno, "cannot lock %s", path);
	*ret_fd = SL_TAKE_FD(fd);
	return 0;
}

int sl_runtime_resume(const char *dir, int pid_fd, struct sl_runtime *ret)
{
	_cleanup_fd_ int owned = pid_fd;
	struct sl_runtime rt;
	int r = fill(dir, &rt);

	if (r < 0)
		return r;
	rt.pid_fd = SL_TAKE_FD(owned);
	*ret = rt;
	return 0;
}

void sl_runtime_leave(struct sl_runtime *rt)
{
	if (rt->pid_fd >= 0) {
		(void)unlink(rt->control_path);
		(void)unlink(rt->pid_path);
	}
	sl_runtime_done(rt);
}

void sl_runtime_done(struct sl_runtime *rt)
{
	free(rt->dir);
	free(rt->pid_path);
	free(rt->control_path);
	sl_closep(&rt->pid_fd);
	*rt = (struct sl_runtime){ .pid_fd = -1 };
}
