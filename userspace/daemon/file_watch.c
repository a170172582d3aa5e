/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "daemon/file_watch.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "base/log.h"

#define LINKS_MAX 40
#define DIRS_MAX 1024
/* Of the queue in one turn; the rest comes in the next. */
#define READS_PER_TURN 64
/* Not what is only read, nor each write() of a file that is still open. */
#define EVENTS                                                                              \
	(IN_CLOSE_WRITE | IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_ATTRIB | \
	 IN_DELETE_SELF | IN_MOVE_SELF)

struct sl_file_watch {
	struct sl_loop *loop;
	sl_file_watch_fn fn;
	void *arg;
	struct sl_io io;
	int fd; /* -1: the kernel has none for us; only the look of each minute is left */
	struct sl_timer settled;
	struct sl_timer regular;
	uint64_t busy_since_ms; /* while `settled` is armed */
	char **paths;
	size_t n_paths;
	int dirs[DIRS_MAX]; /* watched directories */
	size_t n_dirs;
	bool is_told; /* that some cannot be watched */
	struct sl_task free_task;
};

/* ---- where to look ---- */

static void watch_dir(struct sl_file_watch *w, const char *dir)
{
	int wd;

	if (w->fd < 0)
		return;
	wd = inotify_add_watch(w->fd, dir, EVENTS | IN_ONLYDIR);
	for (size_t i = 0; wd >= 0 && i < w->n_dirs; i++)
		if (w->dirs[i] == wd)
			return;
	if (wd >= 0 && w->n_dirs < DIRS_MAX) {
		w->dirs[w->n_dirs++] = wd;
		return;
	}
	if (!w->is_told)
		(void)sl_warn(wd < 0 ? -errno : -ENOSPC,
			      "cannot watch the directory %s, looking at it each minute", dir);
	w->is_told = true;
}

/* The way to a file, as far as it has been gone. */
struct walk {
	char at[PATH_MAX];   /* a directory, with no link in it and a slash at the end */
	char rest[PATH_MAX]; /* what is to be gone yet */
	int n_links;
};

static void go_up(char *at)
{
	size_t n = strlen(at);

	while (n > 1 && at[n - 2] != '/')
		n--;
	at[n > 1 ? n - 1 : 1] = '\0';
}

/* Takes the next name off the rest; "" at its end. */
static void next_name(struct walk *k, char name[NAME_MAX + 1])
{
	const char *p = k->rest + strspn(k->rest, "/");
	size_t n = strcspn(p, "/");

	if (n > NAME_MAX)
		n = 0; /* there is no such file */
	memcpy(name, p, n);
	name[n] = '\0';
	memmove(k->rest, p + n, strlen(p + n) + 1);
}

/* The target of a link, with the rest behind it, is what is left to be gone. */
static bool turn_to(struct walk *k, const char *target)
{
	char rest[PATH_MAX];
	int n = snprintf(rest, sizeof(rest), "%s/%s", target, k->rest);

	if (n < 0 || (size_t)n >= sizeof(rest) || ++k->n_links > LINKS_MAX)
		return false;
	memcpy(k->rest, rest, (size_t)n + 1);
	if (target[0] == '/')
		(void)strcpy(k->at, "/");
	return true;
}

/* One name further; false: the way ends in k->at. */
static bool step(struct sl_file_watch *w, struct walk *k)
{
	char name[NAME_MAX + 1];
	char target[PATH_MAX];
	char path[PATH_MAX];
	ssize_t n;

	next_name(k, name);
	if (strcmp(name, ".") == 0)
		return true;
	if (strcmp(name, "..") == 0) {
		go_up(k->at);
		return true;
	}
	n = snprintf(path, sizeof(path), "%s%s", k->at, name);
	if (name[0] == '\0' || n >= (ssize_t)sizeof(path) - 1)
		return false;
	n = readlink(path, target, sizeof(target) - 1);
	if (n > 0) {
		watch_dir(w, k->at); /* who has it point elsewhere does it here */
		target[n] = '\0';
		return turn_to(k, target);
	}
	if (k->rest[strspn(k->rest, "/")] == '\0' || access(path, F_OK) < 0)
		return false;
	(void)strcpy(k->at, path);
	(void)strcat(k->at, "/");
	return true;
}

static void watch_path(struct sl_file_watch *w, const char *path)
{
	struct walk k = { .at = "/" };

	if (snprintf(k.rest, sizeof(k.rest), "%s", path) >= (int)sizeof(k.rest))
		return;
	while (step(w, &k))
		;
	watch_dir(w, k.at);
}

/* Links and directories may be others than at the last time. */
static void watch_all(struct sl_file_watch *w)
{
	int old[DIRS_MAX];
	size_t n_old = w->n_dirs;

	memcpy(old, w->dirs, n_old * sizeof(old[0]));
	w->n_dirs = 0;
	for (size_t i = 0; i < w->n_paths; i++)
		watch_path(w, w->paths[i]);
	for (size_t i = 0; i < n_old; i++) {
		bool is_kept = false;

		for (size_t k = 0; k < w->n_dirs; k++)
			is_kept = is_kept || w->dirs[k] == old[i];
		if (!is_kept)
			(void)inotify_rm_watch(w->fd, old[i]); /* the kernel may have done it */
	}
}

/* ---- when to look ---- */

static void on_regular(struct sl_timer *timer);

static void say(struct sl_file_watch *w, bool is_regular)
{
	watch_all(w);
	sl_timer_start(w->loop, &w->regular, sl_loop_now_ms(w->loop) + SL_FILE_WATCH_EVERY_MS,
		       on_regular);
	w->fn(w->arg, is_regular);
}

static void on_regular(struct sl_timer *timer)
{
	say(SL_CONTAINER_OF(timer, struct sl_file_watch, regular), true);
}

static void on_settled(struct sl_timer *timer)
{
	say(SL_CONTAINER_OF(timer, struct sl_file_watch, settled), false);
}

void sl_file_watch_ask(struct sl_file_watch *w)
{
	uint64_t now_ms = sl_loop_now_ms(w->loop);
	uint64_t at_ms = now_ms + SL_FILE_WATCH_SETTLED_MS;

	if (w->n_paths == 0)
		return;
	if (!sl_timer_is_armed(&w->settled))
		w->busy_since_ms = now_ms;
	if (at_ms > w->busy_since_ms + SL_FILE_WATCH_BUSY_MS)
		at_ms = w->busy_since_ms + SL_FILE_WATCH_BUSY_MS;
	/* started anew each turn it would never be due */
	if (!sl_timer_is_armed(&w->settled) || at_ms > w->settled.at_ms)
		sl_timer_start(w->loop, &w->settled, at_ms, on_settled);
}

/* Whose name it was does not matter: looking is cheap. */
static bool has_happened(const char *events, size_t n)
{
	struct inotify_event e;
	bool has = false;

	for (size_t at = 0; n - at >= sizeof(e); at += sizeof(e) + e.len) {
		memcpy(&e, events + at, sizeof(e));
		has = has || !(e.mask & IN_IGNORED);
	}
	return has;
}

static void on_events(struct sl_io *io, uint32_t events)
{
	struct sl_file_watch *w = SL_CONTAINER_OF(io, struct sl_file_watch, io);
	char buf[4096];
	bool has = false;

	(void)events;
	for (int i = 0; i < READS_PER_TURN; i++) {
		ssize_t n = read(w->fd, buf, sizeof(buf));

		if (n <= 0)
			break;
		has = has_happened(buf, (size_t)n) || has;
	}
	if (has)
		sl_file_watch_ask(w);
}

/* ---- life ---- */

static void start_inotify(struct sl_file_watch *w)
{
	int r;

	w->fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	r = w->fd < 0 ? -errno : sl_io_start(w->loop, &w->io, w->fd, SL_IO_IN, on_events);
	if (r == 0)
		return;
	sl_closep(&w->fd);
	(void)sl_warn(r, "cannot watch directories, looking at files each minute");
}

int sl_file_watch_new(struct sl_loop *loop, sl_file_watch_fn fn, void *arg,
		      struct sl_file_watch **ret)
{
	struct sl_file_watch *w = calloc(1, sizeof(*w));

	if (!w)
		return -ENOMEM;
	*w = (struct sl_file_watch){ .loop = loop, .fn = fn, .arg = arg, .fd = -1 };
	start_inotify(w);
	*ret = w;
	return 0;
}

static void free_paths(char **paths, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(paths[i]);
	free(paths);
}

int sl_file_watch_set(struct sl_file_watch *w, const char *const *paths, size_t n)
{
	char **copy = calloc(n + 1, sizeof(*copy));

	for (size_t i = 0; copy && i < n; i++) {
		copy[i] = strdup(paths[i]);
		if (!copy[i]) {
			free_paths(copy, i);
			copy = NULL;
		}
	}
	if (!copy)
		return -ENOMEM;
	free_paths(w->paths, w->n_paths);
	w->paths = copy;
	w->n_paths = n;
	w->is_told = false;
	watch_all(w);
	if (n > 0) {
		sl_timer_start(w->loop, &w->regular,
			       sl_loop_now_ms(w->loop) + SL_FILE_WATCH_EVERY_MS, on_regular);
		return 0;
	}
	sl_timer_stop(&w->regular);
	sl_timer_stop(&w->settled);
	return 0;
}

static void free_late(struct sl_task *task)
{
	free(SL_CONTAINER_OF(task, struct sl_file_watch, free_task));
}

void sl_file_watch_free(struct sl_file_watch *w)
{
	if (!w)
		return;
	sl_timer_stop(&w->settled);
	sl_timer_stop(&w->regular);
	sl_io_stop(&w->io);
	sl_closep(&w->fd);
	free_paths(w->paths, w->n_paths);
	sl_loop_defer(w->loop, &w->free_task, free_late);
}
