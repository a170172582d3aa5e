/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "conf/conf.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define MAX_FILE ((size_t)16 << 20)
#define MAX_FILES 1024
#define READ_STEP ((size_t)64 << 10)

static void SL_PRINTF(3, 4) complain(struct sl_diags *d, const char *path, const char *fmt, ...)
{
	va_list ap;

	sl_str_addf(&d->text, "%s: error: ", path);
	va_start(ap, fmt);
	sl_str_addv(&d->text, fmt, ap);
	va_end(ap);
	sl_str_addc(&d->text, '\n');
	d->n_errors++;
}

static int cannot_read(struct sl_diags *d, const char *path, int err)
{
	static const struct {
		int err;
		const char *text;
	} plain[] = {
		{ ENOENT, "there is no such file" },
		{ EACCES, "no permission to read it" },
		{ EISDIR, "this is a directory, a file is expected" },
		{ ENXIO, "this is a socket or a device, a file is expected" },
	};

	for (size_t i = 0; i < SL_ARRAY_LEN(plain); i++) {
		if (plain[i].err == err) {
			complain(d, path, "%s", plain[i].text);
			return -err;
		}
	}
	complain(d, path, "cannot be read: %s", strerrordesc_np(err));
	return -err;
}

/* Everything up to the end; also from a pipe. */
static int read_all(int fd, struct sl_str *text)
{
	_cleanup_free_ char *step = malloc(READ_STEP);
	ssize_t n;

	if (!step)
		return -ENOMEM;
	while ((n = read(fd, step, READ_STEP)) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		sl_str_add(text, step, (size_t)n);
		if (text->oom)
			return -ENOMEM;
		if (text->len > MAX_FILE)
			return -EFBIG;
	}
	sl_str_add(text, "", 0);
	return text->oom ? -ENOMEM : 0;
}

static int read_file(const char *path, struct sl_str *text)
{
	_cleanup_fd_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (S_ISDIR(st.st_mode))
		return -EISDIR;
	if (S_ISREG(st.st_mode) && st.st_size > (off_t)MAX_FILE)
		return -EFBIG;
	return read_all(fd, text);
}

static int add_file(struct sl_conf_sources *s, const char *path, struct sl_diags *diags)
{
	_cleanup_(sl_str_done) struct sl_str text = { 0 };
	_cleanup_free_ char *name = strdup(path);
	struct sl_conf_source *item;
	int r;

	item = reallocarray(s->item, s->n + 1, sizeof(*item));
	if (item)
		s->item = item;
	if (!item || !name)
		return cannot_read(diags, path, ENOMEM);
	r = read_file(path, &text);
	if (r == -EFBIG)
		complain(diags, path, "larger than %zu MiB", MAX_FILE >> 20);
	else if (r < 0)
		return cannot_read(diags, path, -r);
	if (r < 0)
		return r;
	item = &s->item[s->n++];
	*item = (struct sl_conf_source){ .name = SL_TAKE_PTR(name), .len = text.len };
	item->text = sl_str_take(&text); /* empties `text` */
	return 0;
}

/* Files that begin with a dot are editors' and package managers' business. */
static int is_wanted(const struct dirent *d)
{
	size_t n = strlen(d->d_name);

	return d->d_name[0] != '.' && n > 5 && strcmp(d->d_name + n - 5, ".yaml") == 0;
}

static int compare_names(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

/* The main file may be a pipe; one that lies in the directory would only block. */
static int add_neighbour(struct sl_conf_sources *s, const char *path, struct sl_diags *diags)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return cannot_read(diags, path, errno);
	if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
		return cannot_read(diags, path, ENXIO);
	return add_file(s, path, diags);
}

/* All of them are tried, so that every unreadable one is named. */
static int add_found(struct sl_conf_sources *s, const char *dir, struct dirent **found, int n,
		     struct sl_diags *diags)
{
	int r = 0, one;

	for (int i = 0; i < n; i++) {
		_cleanup_(sl_str_done) struct sl_str path = { 0 };

		sl_str_addf(&path, "%s/%s", dir, found[i]->d_name);
		one = path.oom ? cannot_read(diags, dir, ENOMEM) : add_neighbour(s, path.p, diags);
		if (one < 0 && r == 0)
			r = one;
	}
	return r;
}

static int add_directory(struct sl_conf_sources *s, const char *dir, struct sl_diags *diags)
{
	struct dirent **found = NULL;
	int n = scandir(dir, &found, is_wanted, compare_names);
	int r;

	if (n < 0 && errno == ENOENT)
		return 0;
	if (n < 0)
		return cannot_read(diags, dir, errno);
	if (n >= MAX_FILES) {
		complain(diags, dir, "more than %d files", MAX_FILES - 1);
		r = -E2BIG;
	} else {
		r = add_found(s, dir, found, n, diags);
	}
	for (int i = 0; i < n; i++)
		free(found[i]);
	free(found);
	return r;
}

/* A descriptor that was passed in has no neighbours. */
static bool has_directory(const char *path)
{
	static const char *const without[] = { "/dev/", "/proc/" };

	for (size_t i = 0; i < SL_ARRAY_LEN(without); i++)
		if (strncmp(path, without[i], strlen(without[i])) == 0)
			return false;
	return true;
}

static int load(const char *path, struct sl_conf_sources *s, struct sl_diags *diags)
{
	_cleanup_(sl_str_done) struct sl_str dir = { 0 };
	const char *slash = strrchr(path, '/');
	int r = add_file(s, path, diags), more;

	if (!has_directory(path))
		return r;
	sl_str_addf(&dir, "%.*sconf.d", slash ? (int)(slash + 1 - path) : 0, path);
	if (dir.oom)
		return cannot_read(diags, path, ENOMEM);
	more = add_directory(s, dir.p, diags);
	return r < 0 ? r : more;
}

int sl_conf_sources_load(const char *path, struct sl_conf_sources *ret, struct sl_diags *diags)
{
	_cleanup_(sl_conf_sources_done) struct sl_conf_sources s = { 0 };
	int r = load(path, &s, diags);

	if (r < 0)
		return r;
	*ret = s;
	s = (struct sl_conf_sources){ 0 };
	return 0;
}

void sl_conf_sources_done(struct sl_conf_sources *s)
{
	for (size_t i = 0; i < s->n; i++) {
		free(s->item[i].name);
		free(s->item[i].text);
		free(s->item[i].subject);
	}
	free(s->item);
	*s = (struct sl_conf_sources){ 0 };
}
