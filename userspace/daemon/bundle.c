/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "daemon/bundle.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/str.h"
#include "ctl/changes.h"

/*
 * The bundle: records of { kind, name length, text length } name text, each field 8 bytes. The name
 * of a change is its subject; its kind stands above the record's.
 */
enum record_kind {
	RECORD_SOURCE = 1,
	RECORD_RESOLV_CONF,
	RECORD_HOSTS,
	RECORD_CHANGE,
};
#define CHANGE_SHIFT 8
#define CHANGE_KEEP (UINT64_C(1) << 16)

static void add_record(struct sl_str *s, uint64_t kind, const char *name, const char *text,
		       size_t len)
{
	uint64_t head[3] = { kind, strlen(name), len };

	sl_str_add(s, head, sizeof(head));
	sl_str_adds(s, name);
	sl_str_add(s, text, len);
}

static void add_source_record(struct sl_str *s, const struct sl_conf_source *source)
{
	uint64_t kind = RECORD_CHANGE | (uint64_t)source->kind << CHANGE_SHIFT |
			(source->keep ? CHANGE_KEEP : 0);

	if (source->kind == SL_SOURCE_FILE)
		add_record(s, RECORD_SOURCE, source->name, source->text, source->len);
	else
		add_record(s, kind, source->subject, source->text, source->len);
}

int sl_bundle_pack(const struct sl_bundle *b, int *ret_fd)
{
	_cleanup_(sl_str_done) struct sl_str s = { 0 };

	for (size_t i = 0; i < b->sources.n; i++)
		add_source_record(&s, &b->sources.item[i]);
	if (b->resolv_conf)
		add_record(&s, RECORD_RESOLV_CONF, "", b->resolv_conf, b->resolv_conf_len);
	if (b->hosts)
		add_record(&s, RECORD_HOSTS, "", b->hosts, b->hosts_len);
	if (s.oom)
		return -ENOMEM;
	return sl_memfd_new("sluice-config", sl_str_text(&s), s.len, ret_fd);
}

void sl_bundle_done(struct sl_bundle *b)
{
	sl_conf_sources_done(&b->sources);
	free(b->resolv_conf);
	free(b->hosts);
	*b = (struct sl_bundle){ 0 };
}

static char *copy_text(const char *p, size_t n)
{
	char *c = malloc(n + 1);

	if (!c)
		return NULL;
	memcpy(c, p, n);
	c[n] = '\0';
	return c;
}

static int add_source(struct sl_conf_sources *s, const char *name, size_t name_len,
		      const char *text, size_t len)
{
	struct sl_conf_source *item = realloc(s->item, (s->n + 1) * sizeof(*item));

	if (!item)
		return -ENOMEM;
	s->item = item;
	item[s->n] = (struct sl_conf_source){ .name = copy_text(name, name_len),
					      .text = copy_text(text, len),
					      .len = len };
	s->n++;
	return item[s->n - 1].name && item[s->n - 1].text ? 0 : -ENOMEM;
}

static int add_change(struct sl_conf_sources *s, uint64_t head, const char *subject,
		      size_t subject_len, const char *text, size_t len)
{
	uint64_t kind = head >> CHANGE_SHIFT & 0xff;
	_cleanup_free_ char *name = copy_text(subject, subject_len);

	if (!name)
		return -ENOMEM;
	if (kind == SL_SOURCE_FILE || kind >= SL_SOURCE_KIND_COUNT_ || head >= CHANGE_KEEP << 1 ||
	    strlen(name) != subject_len || !sl_changes_fit((enum sl_source_kind)kind, name, len))
		return -EBADMSG;
	return sl_changes_insert(s, SIZE_MAX, (enum sl_source_kind)kind, head & CHANGE_KEEP, name,
				 (struct sl_slice){ text, len });
}

static int take_text(char **slot, size_t *slot_len, const char *text, size_t len)
{
	if (*slot)
		return -EBADMSG;
	*slot = copy_text(text, len);
	*slot_len = len;
	return *slot ? 0 : -ENOMEM;
}

static int unpack_records(const char *p, size_t n, struct sl_bundle *b)
{
	while (n > 0) {
		uint64_t head[3];
		const char *text;
		int r = -EBADMSG;

		if (n < sizeof(head))
			return -EBADMSG;
		memcpy(head, p, sizeof(head));
		p += sizeof(head);
		n -= sizeof(head);
		if (head[1] > n || head[2] > n - head[1])
			return -EBADMSG;
		text = p + head[1];
		if (head[0] == RECORD_SOURCE)
			r = add_source(&b->sources, p, head[1], text, head[2]);
		else if (head[0] == RECORD_RESOLV_CONF)
			r = take_text(&b->resolv_conf, &b->resolv_conf_len, text, head[2]);
		else if (head[0] == RECORD_HOSTS)
			r = take_text(&b->hosts, &b->hosts_len, text, head[2]);
		else if ((head[0] & 0xff) == RECORD_CHANGE)
			r = add_change(&b->sources, head[0], p, head[1], text, head[2]);
		if (r < 0)
			return r;
		p = text + head[2];
		n -= head[1] + head[2];
	}
	return 0;
}

int sl_bundle_unpack(int fd, struct sl_bundle *ret)
{
	_cleanup_(sl_bundle_done) struct sl_bundle b = { 0 };
	_cleanup_free_ char *p = NULL;
	size_t n;
	int r = sl_memfd_read(fd, SL_BUNDLE_MAX, &p, &n);

	if (r < 0)
		return r;
	r = unpack_records(p, n, &b);
	if (r < 0)
		return r;
	*ret = b;
	b = (struct sl_bundle){ 0 };
	return 0;
}

char *sl_bundle_read_file(const char *path, size_t *ret_len)
{
	_cleanup_fd_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	_cleanup_free_ char *p = NULL;
	size_t len = 0;

	if (fd < 0)
		return NULL;
	p = malloc(SL_TEXT_MAX + 1);
	if (!p)
		return NULL;
	while (len <= SL_TEXT_MAX) {
		ssize_t r = read(fd, p + len, SL_TEXT_MAX + 1 - len);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return NULL;
		if (r == 0)
			break;
		len += (size_t)r;
	}
	if (len > SL_TEXT_MAX)
		return NULL;
	*ret_len = len;
	return copy_text(p, len);
}
