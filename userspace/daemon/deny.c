/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "daemon/deny.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "daemon/deny_set.h"

#define SHOWN_LINES 20
#define SHOWN_BYTES 80
#define RAW_GLOBS_MAX 65536u /* before small ones are turned into ranges */

struct reader {
	const char *path;
	struct sl_str *report;
	struct sl_ip_set set;
	size_t cap4;
	size_t cap6;
	size_t cap_globs;
	size_t n_patterns;
	size_t n_bad;
};

static void reader_done(struct reader *r)
{
	sl_ip_list_done(&r->set);
}

void sl_deny_list_free(struct sl_deny_list *list)
{
	if (!list)
		return;
	sl_closep(&list->fd);
	free(list);
}

/* ---- the file ---- */

static int fail(struct reader *r, int err, const char *why)
{
	sl_str_addf(r->report, "%s: error: global.security.deny_file: %s\n", r->path,
		    why ? why : strerror(-err));
	return err;
}

static int read_text(struct reader *r, int fd, char **ret, size_t *ret_len)
{
	_cleanup_free_ char *p = malloc(SL_DENY_FILE_MAX + 1ul);
	size_t len = 0;

	if (!p)
		return fail(r, -ENOMEM, NULL);
	while (len <= SL_DENY_FILE_MAX) {
		ssize_t n = read(fd, p + len, SL_DENY_FILE_MAX + 1ul - len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return fail(r, -errno, NULL);
		if (n == 0)
			break;
		len += (size_t)n;
	}
	if (len > SL_DENY_FILE_MAX)
		return fail(r, -EFBIG, "longer than 64 MiB");
	*ret = SL_TAKE_PTR(p);
	*ret_len = len;
	return 0;
}

static int load(struct reader *r, char **ret, size_t *ret_len)
{
	_cleanup_fd_ int fd = open(r->path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return fail(r, -errno, NULL);
	if (!S_ISREG(st.st_mode))
		return fail(r, -EINVAL, "not a file");
	return read_text(r, fd, ret, ret_len);
}

/* ---- its lines ---- */

static void report_line(struct reader *r, size_t line, struct sl_slice text, const char *why)
{
	if (r->n_bad++ >= SHOWN_LINES)
		return;
	sl_str_addf(r->report, "%s:%zu: error: '", r->path, line);
	sl_str_add_escaped(r->report, text.p, text.n, SHOWN_BYTES);
	sl_str_addf(r->report, "': %s\n", why);
}

static int grow(void *slot, size_t n, size_t *cap, size_t size)
{
	size_t wanted = *cap ? *cap * 2 : 1024;
	void *old;
	void *fresh;

	if (n < *cap)
		return 0;
	memcpy(&old, slot, sizeof(old));
	fresh = realloc(old, wanted * size);
	if (!fresh)
		return -ENOMEM;
	memcpy(slot, &fresh, sizeof(fresh));
	*cap = wanted;
	return 0;
}

static int add(struct reader *r, const struct sl_ip_pattern *p)
{
	int e = 0;

	switch (p->kind) {
	case SL_IP_RANGE4:
		e = grow(&r->set.v4, r->set.n4, &r->cap4, sizeof(*r->set.v4));
		break;
	case SL_IP_RANGE6:
		e = grow(&r->set.v6, r->set.n6, &r->cap6, sizeof(*r->set.v6));
		break;
	case SL_IP_GLOB4:
		if (r->set.n_globs == RAW_GLOBS_MAX)
			return fail(r, -E2BIG, "more than 65536 patterns that are no ranges");
		e = grow(&r->set.globs, r->set.n_globs, &r->cap_globs, sizeof(*r->set.globs));
		break;
	}
	if (e < 0)
		return fail(r, e, NULL);
	sl_ip_set_put(&r->set, p);
	return 0;
}

static int parse(struct reader *r, struct sl_slice rest)
{
	struct sl_slice text;
	size_t line = 0;
	int e = 0;

	while (e == 0 && sl_ip_file_next(&rest, &line, &text)) {
		struct sl_ip_pattern p;
		const char *why = NULL;

		if (++r->n_patterns > SL_DENY_PATTERNS_MAX)
			return fail(r, -E2BIG, "more than 4 million patterns");
		if (sl_ip_pattern_parse(text, &p, &why) < 0)
			report_line(r, line, text, why);
		else
			e = add(r, &p);
	}
	if (r->n_bad > SHOWN_LINES)
		sl_str_addf(r->report, "%s: %zu more bad lines\n", r->path, r->n_bad - SHOWN_LINES);
	return e == 0 && r->n_bad ? -EINVAL : e;
}

static int read_file(struct reader *r)
{
	_cleanup_free_ char *text = NULL;
	size_t len = 0;
	int e = load(r, &text, &len);

	if (e == 0)
		e = parse(r, (struct sl_slice){ .p = text, .n = len });
	if (e < 0)
		return e;
	e = sl_deny_set_expand(&r->set);
	if (e < 0)
		return fail(r, e, e == -E2BIG ? "more than 8 million ranges" : NULL);
	if (r->set.n_globs > SL_DENY_GLOBS_MAX)
		return fail(r, -E2BIG,
			    "more than 1024 patterns that are no ranges, as \"*.*.*.1\" is none");
	sl_deny_set_build(&r->set);
	return 0;
}

/* ---- lists ---- */

static int list_new(struct sl_deny_list **ret)
{
	struct sl_deny_list *list = calloc(1, sizeof(*list));

	if (!list)
		return -ENOMEM;
	list->fd = -1;
	list->id = sl_clock_us();
	*ret = list;
	return 0;
}

static int read_list(const char *path, struct sl_deny_list **ret, struct sl_str *report)
{
	_cleanup_(sl_deny_list_freep) struct sl_deny_list *list = NULL;
	_cleanup_(reader_done) struct reader r = { .path = path ? path : "", .report = report };
	int e = list_new(&list);

	if (e == 0 && path)
		e = read_file(&r);
	if (e < 0)
		return e;
	e = sl_deny_set_pack(&r.set, &list->fd);
	if (e < 0)
		return fail(&r, e, NULL);
	list->n_patterns = r.n_patterns;
	list->n_ranges = r.set.n4 + r.set.n6 + r.set.n_globs;
	*ret = SL_TAKE_PTR(list);
	return 0;
}

int sl_deny_list_read(const char *path, struct sl_deny_list **ret, struct sl_str *report)
{
	int r = read_list(path, ret, report);

	/* The text and arrays of a long list would else stay with the allocator until the next. */
	if (path)
		(void)malloc_trim(0);
	return r;
}

int sl_deny_list_check(const char *path, struct sl_diags *diags)
{
	_cleanup_(sl_deny_list_freep) struct sl_deny_list *list = NULL;
	int r = path ? sl_deny_list_read(path, &list, &diags->text) : 0;

	diags->n_errors += r < 0;
	return r;
}

int sl_deny_list_adopt(int fd, uint64_t n_patterns, uint64_t n_ranges, struct sl_deny_list **ret)
{
	_cleanup_fd_ int owned = fd;
	struct sl_deny_list *list = NULL;
	int r = list_new(&list);

	if (r < 0)
		return r;
	list->fd = SL_TAKE_FD(owned);
	list->n_patterns = n_patterns;
	list->n_ranges = n_ranges;
	*ret = list;
	return 0;
}
