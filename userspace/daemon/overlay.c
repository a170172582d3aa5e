/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "daemon/overlay.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ctl/changes.h"
#include "daemon/bundle.h"

#define MAGIC 0x534c4f56u /* "SLOV" */
#define FLAG_UNDO 1u
#define FLAG_KEEP 2u
#define ENCODED_MAX (SL_OVERLAY_HEAD + SL_ROUTE_NAME_MAX + SL_CHANGE_TEXT_MAX)
/* Texts in JSON grow, at worst six times. */
#define FILE_MAX (8 * SL_CHANGES_BYTES)

struct head {
	uint32_t magic;
	uint32_t kind;
	uint32_t flags;
	uint32_t subject_len;
	uint32_t text_len;
};
_Static_assert(sizeof(struct head) == SL_OVERLAY_HEAD, "no padding");

void sl_overlay_change_done(struct sl_overlay_change *c)
{
	free(c->subject);
	free(c->text);
	*c = (struct sl_overlay_change){ 0 };
}

/* ---- on the way ---- */

void sl_overlay_encode(const struct sl_ctl_change *change, struct sl_str *out)
{
	const char *subject = change->subject ? change->subject : "";
	const struct head head = { .magic = MAGIC,
				   .kind = change->kind,
				   .flags = (change->undo ? FLAG_UNDO : 0) |
					    (change->keep ? FLAG_KEEP : 0),
				   .subject_len = (uint32_t)strlen(subject),
				   .text_len = (uint32_t)change->text.n };

	sl_str_add(out, &head, sizeof(head));
	sl_str_adds(out, subject);
	sl_str_add(out, change->text.p, change->text.n);
}

static char *copy(const char *p, size_t n)
{
	char *c = malloc(n + 1);

	if (!c)
		return NULL;
	memcpy(c, p, n);
	c[n] = '\0';
	return c;
}

static bool is_sound(const struct head *h, const struct sl_overlay_change *c)
{
	if (strlen(c->subject) != h->subject_len || (h->flags & ~(FLAG_UNDO | FLAG_KEEP)))
		return false;
	if (c->undo && (c->kind != SL_SOURCE_DRAIN || c->keep))
		return false;
	/* It would fit a target by its beginning, and then could not be read from the disk. */
	if (c->kind == SL_SOURCE_DRAIN && strlen(c->text) != c->len)
		return false;
	if (c->kind == SL_SOURCE_FILE)
		return !c->keep && c->len == 0 &&
		       (!c->subject[0] || sl_changes_is_name(c->subject));
	return sl_changes_fit(c->kind, c->subject, c->len);
}

int sl_overlay_decode(const void *bytes, size_t n, struct sl_overlay_change *ret)
{
	_cleanup_(sl_overlay_change_done) struct sl_overlay_change c = { 0 };
	const char *p = (const char *)bytes + SL_OVERLAY_HEAD;
	struct head h;

	if (n < sizeof(h))
		return -EBADMSG;
	memcpy(&h, bytes, sizeof(h));
	if (h.magic != MAGIC || h.kind >= SL_SOURCE_KIND_COUNT_ ||
	    h.subject_len > SL_ROUTE_NAME_MAX || h.text_len > SL_CHANGE_TEXT_MAX ||
	    n != sizeof(h) + h.subject_len + h.text_len)
		return -EBADMSG;
	c.kind = (enum sl_source_kind)h.kind;
	c.undo = h.flags & FLAG_UNDO;
	c.keep = h.flags & FLAG_KEEP;
	c.subject = copy(p, h.subject_len);
	c.text = copy(p + h.subject_len, h.text_len);
	c.len = h.text_len;
	if (!c.subject || !c.text)
		return -ENOMEM;
	if (!is_sound(&h, &c))
		return -EBADMSG;
	*ret = c;
	c = (struct sl_overlay_change){ 0 };
	return 0;
}

int sl_overlay_pack(const struct sl_ctl_change *change, int *ret_fd)
{
	_cleanup_(sl_str_done) struct sl_str out = { 0 };

	sl_overlay_encode(change, &out);
	return out.oom ? -ENOMEM : sl_memfd_new("sluice-change", out.p, out.len, ret_fd);
}

int sl_overlay_unpack(int fd, struct sl_overlay_change *ret)
{
	_cleanup_free_ char *p = NULL;
	size_t n;
	int r = sl_memfd_read(fd, ENCODED_MAX, &p, &n);

	return r < 0 ? r : sl_overlay_decode(p, n, ret);
}

/* ---- the list ---- */

static bool is_switch(enum sl_source_kind kind)
{
	return kind == SL_SOURCE_ENABLE || kind == SL_SOURCE_DISABLE;
}

static bool is_same_target(const struct sl_conf_source *old, const struct sl_overlay_change *c)
{
	return old->kind == SL_SOURCE_DRAIN && old->len == c->len &&
	       memcmp(old->text, c->text, c->len) == 0;
}

static bool replaces(const struct sl_overlay_change *c, const struct sl_conf_source *old)
{
	bool same = old->kind != SL_SOURCE_FILE && strcmp(old->subject, c->subject) == 0;

	if (old->kind == SL_SOURCE_FILE)
		return false;
	switch (c->kind) {
	case SL_SOURCE_FILE: /* back to the files */
		return same || !c->subject[0];
	case SL_SOURCE_ROUTE: /* its targets may be the same ones: DRAIN stays */
		return same && old->kind != SL_SOURCE_DRAIN;
	case SL_SOURCE_REMOVE:
		return same;
	case SL_SOURCE_ENABLE:
	case SL_SOURCE_DISABLE:
		return same && is_switch(old->kind);
	case SL_SOURCE_DRAIN:
		/* undone or done for every route, it is so for each */
		return is_same_target(old, c) && (same || !c->subject[0]);
	case SL_SOURCE_KIND_COUNT_:
		break;
	}
	return false;
}

size_t sl_overlay_drop(struct sl_conf_sources *s, const struct sl_overlay_change *c, size_t *ret_at)
{
	size_t dropped = 0;
	size_t at = SIZE_MAX;

	for (size_t i = 0; i < s->n;) {
		if (!replaces(c, &s->item[i])) {
			i++;
			continue;
		}
		if (c->kind == SL_SOURCE_ROUTE && s->item[i].kind == SL_SOURCE_ROUTE)
			at = i;
		sl_changes_remove(s, i);
		dropped++;
	}
	*ret_at = at;
	return dropped;
}

int sl_overlay_put(struct sl_conf_sources *s, const struct sl_overlay_change *c, size_t at)
{
	if (!sl_changes_has_room(s, c->len))
		return -ENOSPC;
	return sl_changes_insert(s, at, c->kind, c->keep, c->subject,
				 (struct sl_slice){ c->text, c->len });
}

bool sl_overlay_is_done(const struct sl_conf *conf, const struct sl_overlay_change *c)
{
	for (size_t i = 0; i < conf->n_routes; i++) {
		const struct sl_conf_route *r = &conf->routes[i];

		if (strcmp(r->name, c->subject) == 0)
			return (c->kind == SL_SOURCE_ENABLE && r->enabled) ||
			       (c->kind == SL_SOURCE_DISABLE && !r->enabled);
	}
	return c->kind == SL_SOURCE_REMOVE;
}

/* ---- state_dir/changes ---- */

static int read_all(int fd, struct sl_str *text)
{
	char chunk[65536];
	ssize_t n;

	while ((n = read(fd, chunk, sizeof(chunk))) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		sl_str_add(text, chunk, (size_t)n);
		if (text->len > FILE_MAX)
			return -EFBIG;
	}
	return text->oom ? -ENOMEM : 0;
}

static int read_file(const char *path, struct sl_str *text)
{
	_cleanup_fd_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	return read_all(fd, text);
}

int sl_overlay_load(const char *path, struct sl_conf_sources *s, struct sl_str *report)
{
	_cleanup_(sl_str_done) struct sl_str text = { 0 };
	_cleanup_(sl_str_done) struct sl_str why = { 0 };
	int r = read_file(path, &text);

	if (r == -ENOENT || r == -ENOTDIR)
		return 0;
	if (r == 0)
		r = sl_changes_read((struct sl_slice){ sl_str_text(&text), text.len }, s, &why);
	if (r < 0)
		sl_str_addf(report,
			    "%s: error: the changes made at run time cannot be read: %s\n"
			    "  Repair the file, or move it away to start without them.\n",
			    path, why.len ? sl_str_text(&why) : strerror(-r));
	return r;
}

/* What a rename or unlink did survives a power failure only when the directory is written, too. */
static int sync_dir(const char *path)
{
	_cleanup_free_ char *dir = strdup(path);
	_cleanup_fd_ int fd = -1;
	char *slash = dir ? strrchr(dir, '/') : NULL;

	if (!slash)
		return dir ? 0 : -ENOMEM;
	*slash = '\0';
	fd = open(dir[0] ? dir : "/", O_RDONLY | O_CLOEXEC | O_DIRECTORY);
	return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

static bool keeps_any(const struct sl_conf_sources *s)
{
	for (size_t i = 0; i < s->n; i++)
		if (s->item[i].kind != SL_SOURCE_FILE && s->item[i].keep)
			return true;
	return false;
}

static int write_new(const char *path, const struct sl_str *text)
{
	_cleanup_fd_ int fd =
		open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	int r = fd < 0 ? -errno : sl_write_all(fd, text->p, text->len);

	return r == 0 && fsync(fd) < 0 ? -errno : r;
}

int sl_overlay_save(const char *path, const struct sl_conf_sources *s)
{
	_cleanup_(sl_str_done) struct sl_str text = { 0 };
	_cleanup_(sl_str_done) struct sl_str temporary = { 0 };
	int r;

	if (!keeps_any(s)) {
		if (unlink(path) < 0)
			return errno == ENOENT ? 0 : -errno;
		(void)sync_dir(path);
		return 0;
	}
	sl_changes_write(&text, s, true);
	sl_str_addf(&temporary, "%s.new", path);
	if (text.oom || temporary.oom)
		return -ENOMEM;
	r = write_new(temporary.p, &text);
	if (r == 0 && rename(temporary.p, path) < 0)
		r = -errno;
	if (r < 0) {
		(void)unlink(temporary.p);
		return r;
	}
	(void)sync_dir(path); /* it is there, whatever becomes of the disk */
	return 0;
}

static const struct sl_conf_source *next_kept(const struct sl_conf_sources *s, size_t *i)
{
	while (*i < s->n) {
		const struct sl_conf_source *c = &s->item[(*i)++];

		if (c->kind != SL_SOURCE_FILE && c->keep)
			return c;
	}
	return NULL;
}

bool sl_overlay_keeps_same(const struct sl_conf_sources *a, const struct sl_conf_sources *b)
{
	size_t i = 0;
	size_t k = 0;
	const struct sl_conf_source *x;

	while ((x = next_kept(a, &i)) != NULL) {
		const struct sl_conf_source *y = next_kept(b, &k);

		if (!y || x->kind != y->kind || x->len != y->len ||
		    strcmp(x->subject, y->subject) != 0 || memcmp(x->text, y->text, x->len) != 0)
			return false;
	}
	return next_kept(b, &k) == NULL;
}
