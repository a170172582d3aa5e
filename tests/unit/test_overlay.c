/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Changes made at run time: on the way to the supervisor, as a list, in bundles and on disk. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ctl/changes.h"
#include "daemon/bundle.h"
#include "daemon/overlay.h"

static struct sl_ctl_change change(enum sl_source_kind kind, const char *subject, const char *text)
{
	return (struct sl_ctl_change){ .kind = kind,
				       .subject = subject,
				       .text = { text, strlen(text) } };
}

/* ---- on the way ---- */

static void what_is_packed_is_unpacked(void **state)
{
	const struct sl_ctl_change cases[] = {
		change(SL_SOURCE_ROUTE, "shop", "match: { ports: 443 }\nforward: x:1\n"),
		change(SL_SOURCE_REMOVE, "a", ""),
		change(SL_SOURCE_ENABLE, "a.b_c-1", ""),
		change(SL_SOURCE_DISABLE, "0", ""),
		change(SL_SOURCE_DRAIN, "", "10.0.0.1:80"),
		change(SL_SOURCE_DRAIN, "shop", "[2001:db8::1]:80"),
		change(SL_SOURCE_FILE, "", ""),
		change(SL_SOURCE_FILE, "shop", ""),
		{ .kind = SL_SOURCE_DRAIN, .undo = true, .subject = "", .text = { "x:1", 3 } },
		{ .kind = SL_SOURCE_REMOVE, .keep = true, .subject = "x" },
	};

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(cases); i++) {
		_cleanup_(sl_overlay_change_done) struct sl_overlay_change got = { 0 };
		_cleanup_fd_ int fd = -1;

		assert_int_equal(sl_overlay_pack(&cases[i], &fd), 0);
		assert_int_equal(sl_overlay_unpack(fd, &got), 0);
		assert_int_equal(got.kind, cases[i].kind);
		assert_int_equal(got.undo, cases[i].undo);
		assert_int_equal(got.keep, cases[i].keep);
		assert_string_equal(got.subject, cases[i].subject);
		assert_int_equal(got.len, cases[i].text.n);
		assert_memory_equal(got.text, cases[i].text.p ? cases[i].text.p : "", got.len);
		assert_int_equal(got.text[got.len], 0);
	}
}

static int decode(const struct sl_str *s, size_t n)
{
	_cleanup_(sl_overlay_change_done) struct sl_overlay_change got = { 0 };
	_cleanup_free_ char *exact = malloc(n + !n); /* so that a sanitizer sees what is read */

	assert_non_null(exact);
	memcpy(exact, s->p, n);
	return sl_overlay_decode(exact, n, &got);
}

static void every_cut_and_every_addition_is_refused(void **state)
{
	const struct sl_ctl_change c = change(SL_SOURCE_ROUTE, "shop", "match: {}");
	_cleanup_(sl_str_done) struct sl_str s = { 0 };

	(void)state;
	sl_overlay_encode(&c, &s);
	for (size_t n = 0; n < s.len; n++)
		assert_int_equal(decode(&s, n), -EBADMSG);
	assert_int_equal(decode(&s, s.len), 0);
	sl_str_addc(&s, 'x');
	assert_int_equal(decode(&s, s.len), -EBADMSG);
}

static void what_does_not_fit_together_is_refused(void **state)
{
	_cleanup_free_ char *long_text = calloc(1, SL_CHANGE_TEXT_MAX + 2);
	char long_name[SL_ROUTE_NAME_MAX + 2] = "";
	const struct sl_ctl_change cases[] = {
		change(SL_SOURCE_ROUTE, "", "match: {}"),
		change(SL_SOURCE_ROUTE, "shop", ""),
		change(SL_SOURCE_ROUTE, "sh op", "match: {}"),
		change(SL_SOURCE_ROUTE, "../x", "match: {}"),
		change(SL_SOURCE_ROUTE, long_name, "match: {}"),
		change(SL_SOURCE_ROUTE, "shop", long_text),
		change(SL_SOURCE_REMOVE, "", ""),
		change(SL_SOURCE_REMOVE, "shop", "x"),
		change(SL_SOURCE_ENABLE, "", ""),
		change(SL_SOURCE_DRAIN, "shop", ""),
		change(SL_SOURCE_DRAIN, "a/b", "x:1"),
		change(SL_SOURCE_FILE, "shop", "x"),
		change(SL_SOURCE_FILE, "/", ""),
		change(SL_SOURCE_KIND_COUNT_, "shop", ""),
		{ .kind = SL_SOURCE_FILE, .keep = true, .subject = "" },
		{ .kind = SL_SOURCE_REMOVE, .undo = true, .subject = "x" },
		{ .kind = SL_SOURCE_DRAIN, .undo = true, .keep = true, .text = { "x:1", 3 } },
		{ .kind = SL_SOURCE_DRAIN, .keep = true, .text = { "x:1\0y", 5 } },
	};

	(void)state;
	assert_non_null(long_text);
	memset(long_text, 'x', SL_CHANGE_TEXT_MAX + 1);
	memset(long_name, 'x', sizeof(long_name) - 1);
	for (size_t i = 0; i < SL_ARRAY_LEN(cases); i++) {
		_cleanup_(sl_str_done) struct sl_str s = { 0 };
		struct sl_ctl_change c = cases[i];

		if (c.text.p == long_text)
			c.text.n = SL_CHANGE_TEXT_MAX + 1;
		sl_overlay_encode(&c, &s);
		if (decode(&s, s.len) != -EBADMSG)
			fail_msg("case %zu was taken", i);
	}
}

static void bytes_of_the_head_are_checked(void **state)
{
	const struct sl_ctl_change c = change(SL_SOURCE_REMOVE, "shop", "");
	/* offset, value: the magic; a kind; unknown flags; lengths that overflow */
	static const uint8_t pokes[][2] = { { 0, 0 },    { 4, 77 },  { 5, 1 },    { 8, 4 },
					    { 11, 128 }, { 12, 5 },  { 15, 255 }, { 16, 1 },
					    { 19, 255 }, { 12, 255 } };
	_cleanup_(sl_str_done) struct sl_str s = { 0 };

	(void)state;
	sl_overlay_encode(&c, &s);
	for (size_t i = 0; i < SL_ARRAY_LEN(pokes); i++) {
		char before = s.p[pokes[i][0]];

		s.p[pokes[i][0]] = (char)pokes[i][1];
		assert_int_equal(decode(&s, s.len), -EBADMSG);
		s.p[pokes[i][0]] = before;
	}
	s.p[SL_OVERLAY_HEAD + 1] = '\0'; /* inside the name */
	assert_int_equal(decode(&s, s.len), -EBADMSG);
}

static void only_sealed_memory_of_a_bounded_size_is_read(void **state)
{
	const struct sl_ctl_change c = change(SL_SOURCE_REMOVE, "shop", "");
	_cleanup_(sl_overlay_change_done) struct sl_overlay_change got = { 0 };
	_cleanup_(sl_str_done) struct sl_str s = { 0 };
	_cleanup_fd_ int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	(void)state;
	sl_overlay_encode(&c, &s);
	assert_int_equal(write(fd, s.p, s.len), s.len);
	assert_int_equal(sl_overlay_unpack(fd, &got), -EPERM);
	assert_int_equal(ftruncate(fd, 64 << 20), 0);
	assert_int_equal(
		fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE),
		0);
	assert_int_equal(sl_overlay_unpack(fd, &got), -EFBIG);
}

/* ---- the list ---- */

/* "route:a remove:b! drain:*=x:1": "!" is kept. */
static void show(const struct sl_conf_sources *s, struct sl_str *out)
{
	for (size_t i = 0; i < s->n; i++) {
		const struct sl_conf_source *c = &s->item[i];

		if (c->kind == SL_SOURCE_FILE)
			continue;
		sl_str_addf(out, "%s%s:%s%s", out->len ? " " : "", sl_changes_word(c->kind),
			    c->subject[0] ? c->subject : "*", c->keep ? "!" : "");
		if (c->len)
			sl_str_addf(out, "=%s", c->text);
	}
}

static void make(struct sl_conf_sources *s, enum sl_source_kind kind, const char *subject,
		 const char *text, bool keep)
{
	const struct sl_overlay_change c = { .kind = kind,
					     .keep = keep,
					     .subject = (char *)subject,
					     .text = (char *)text,
					     .len = strlen(text) };
	size_t at;

	(void)sl_overlay_drop(s, &c, &at);
	assert_int_equal(sl_overlay_put(s, &c, at), 0);
}

static size_t drop(struct sl_conf_sources *s, enum sl_source_kind kind, const char *subject,
		   const char *text)
{
	const struct sl_overlay_change c = {
		.kind = kind, .subject = (char *)subject, .text = (char *)text, .len = strlen(text)
	};
	size_t at;

	return sl_overlay_drop(s, &c, &at);
}

static void expect(const struct sl_conf_sources *s, const char *want)
{
	_cleanup_(sl_str_done) struct sl_str got = { 0 };

	show(s, &got);
	assert_string_equal(sl_str_text(&got), want);
}

static void add_file(struct sl_conf_sources *s, const char *name)
{
	s->item = realloc(s->item, (s->n + 1) * sizeof(*s->item));
	assert_non_null(s->item);
	s->item[s->n++] = (struct sl_conf_source){ .name = strdup(name),
						   .text = strdup("version: 1\n"),
						   .len = 11 };
}

static void a_change_replaces_the_one_before_it(void **state)
{
	_cleanup_(sl_conf_sources_done) struct sl_conf_sources s = { 0 };

	(void)state;
	add_file(&s, "a.yaml");
	make(&s, SL_SOURCE_ROUTE, "a", "1", true);
	make(&s, SL_SOURCE_ROUTE, "b", "2", false);
	make(&s, SL_SOURCE_DISABLE, "a", "", false);
	make(&s, SL_SOURCE_DRAIN, "a", "x:1", false);
	make(&s, SL_SOURCE_DRAIN, "", "y:1", true);
	expect(&s, "route:a!=1 route:b=2 disable:a drain:a=x:1 drain:*!=y:1");
	make(&s, SL_SOURCE_ROUTE, "a", "3", false); /* in its place; its switch goes */
	expect(&s, "route:a=3 route:b=2 drain:a=x:1 drain:*!=y:1");
	make(&s, SL_SOURCE_ENABLE, "b", "", true);
	make(&s, SL_SOURCE_DISABLE, "b", "", false);
	expect(&s, "route:a=3 route:b=2 drain:a=x:1 drain:*!=y:1 disable:b");
	make(&s, SL_SOURCE_DRAIN, "a", "x:1", true);
	make(&s, SL_SOURCE_DRAIN, "a", "y:1", false); /* beside that of every route */
	expect(&s, "route:a=3 route:b=2 drain:*!=y:1 disable:b drain:a!=x:1 drain:a=y:1");
	make(&s, SL_SOURCE_REMOVE, "a", "", false);
	expect(&s, "route:b=2 drain:*!=y:1 disable:b remove:a");
	make(&s, SL_SOURCE_ROUTE, "a", "4", false);
	expect(&s, "route:b=2 drain:*!=y:1 disable:b route:a=4");
	assert_int_equal(s.item[0].kind, SL_SOURCE_FILE);
	assert_string_equal(s.item[1].name, "runtime:b");
	assert_string_equal(s.item[2].name, "runtime:*");
}

static void what_is_undone_is_gone(void **state)
{
	_cleanup_(sl_conf_sources_done) struct sl_conf_sources s = { 0 };

	(void)state;
	add_file(&s, "a.yaml");
	make(&s, SL_SOURCE_ROUTE, "a", "1", true);
	make(&s, SL_SOURCE_DRAIN, "a", "x:1", false);
	make(&s, SL_SOURCE_DRAIN, "", "y:1", false);
	make(&s, SL_SOURCE_DRAIN, "b", "y:1", false);
	make(&s, SL_SOURCE_DISABLE, "b", "", false);
	assert_int_equal(drop(&s, SL_SOURCE_DRAIN, "b", "x:1"), 0);
	assert_int_equal(drop(&s, SL_SOURCE_DRAIN, "b", "y:1"), 1);
	make(&s, SL_SOURCE_DRAIN, "b", "y:1", false);
	assert_int_equal(drop(&s, SL_SOURCE_DRAIN, "", "y:1"), 2); /* everywhere */
	expect(&s, "route:a!=1 drain:a=x:1 disable:b");
	assert_int_equal(drop(&s, SL_SOURCE_FILE, "a", ""), 2);
	expect(&s, "disable:b");
	make(&s, SL_SOURCE_ROUTE, "a", "1", true);
	assert_int_equal(drop(&s, SL_SOURCE_FILE, "", ""), 2);
	assert_int_equal(drop(&s, SL_SOURCE_FILE, "", ""), 0);
	assert_int_equal(s.n, 1);
}

static void the_list_is_bounded(void **state)
{
	_cleanup_(sl_conf_sources_done) struct sl_conf_sources s = { 0 };
	const struct sl_overlay_change c = { .kind = SL_SOURCE_REMOVE,
					     .subject = (char *)"one-more",
					     .text = (char *)"" };
	struct sl_overlay_change big = { .kind = SL_SOURCE_ROUTE, .subject = (char *)"big" };
	char name[16];

	(void)state;
	for (int i = 0; i < SL_CHANGES_MAX; i++) {
		(void)snprintf(name, sizeof(name), "r%d", i);
		assert_int_equal(sl_changes_insert(&s, SIZE_MAX, SL_SOURCE_REMOVE, false, name,
						   (struct sl_slice){ "", 0 }),
				 0);
	}
	assert_int_equal(sl_overlay_put(&s, &c, SIZE_MAX), -ENOSPC);
	assert_int_equal(drop(&s, SL_SOURCE_FILE, "r7", ""), 1);
	assert_int_equal(sl_overlay_put(&s, &c, SIZE_MAX), 0);
	assert_int_equal(drop(&s, SL_SOURCE_FILE, "", ""), SL_CHANGES_MAX);
	big.len = SL_CHANGE_TEXT_MAX;
	big.text = calloc(1, big.len + 1);
	assert_non_null(big.text);
	for (size_t i = 0; i < SL_CHANGES_BYTES / SL_CHANGE_TEXT_MAX; i++)
		assert_int_equal(sl_overlay_put(&s, &big, SIZE_MAX), 0);
	assert_int_equal(sl_overlay_put(&s, &big, SIZE_MAX), -ENOSPC);
	free(big.text);
}

static void what_is_done_already_is_known(void **state)
{
	struct sl_conf_route routes[] = { { .name = (char *)"on", .enabled = true },
					  { .name = (char *)"off" } };
	const struct sl_conf conf = { .routes = routes, .n_routes = 2 };
	const struct {
		enum sl_source_kind kind;
		const char *subject;
		bool done;
	} cases[] = {
		{ SL_SOURCE_ENABLE, "on", true },    { SL_SOURCE_ENABLE, "off", false },
		{ SL_SOURCE_DISABLE, "on", false },  { SL_SOURCE_DISABLE, "off", true },
		{ SL_SOURCE_REMOVE, "on", false },   { SL_SOURCE_REMOVE, "gone", true },
		{ SL_SOURCE_ENABLE, "gone", false }, { SL_SOURCE_DISABLE, "gone", false },
	};

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(cases); i++) {
		const struct sl_overlay_change c = { .kind = cases[i].kind,
						     .subject = (char *)cases[i].subject };

		assert_int_equal(sl_overlay_is_done(&conf, &c), cases[i].done);
	}
}

/* ---- bundles ---- */

static void a_bundle_carries_changes(void **state)
{
	_cleanup_(sl_bundle_done) struct sl_bundle b = { 0 };
	_cleanup_(sl_bundle_done) struct sl_bundle got = { 0 };
	_cleanup_fd_ int fd = -1;

	(void)state;
	add_file(&b.sources, "/etc/a.yaml");
	add_file(&b.sources, "/etc/conf.d/b.yaml");
	make(&b.sources, SL_SOURCE_ROUTE, "a", "match: {}", true);
	make(&b.sources, SL_SOURCE_REMOVE, "b", "", false);
	make(&b.sources, SL_SOURCE_DRAIN, "", "x:1", true);
	b.hosts = strdup("127.0.0.1 x\n");
	b.hosts_len = strlen(b.hosts);
	assert_int_equal(sl_bundle_pack(&b, &fd), 0);
	assert_int_equal(sl_bundle_unpack(fd, &got), 0);
	expect(&got.sources, "route:a!=match: {} remove:b drain:*!=x:1");
	assert_int_equal(got.sources.n, 5);
	for (size_t i = 0; i < 5; i++) {
		assert_string_equal(got.sources.item[i].name, b.sources.item[i].name);
		assert_int_equal(got.sources.item[i].len, b.sources.item[i].len);
	}
	assert_null(got.resolv_conf);
	assert_string_equal(got.hosts, b.hosts);
}

static int unpack(const uint64_t head[3], const char *texts, size_t n)
{
	_cleanup_(sl_str_done) struct sl_str s = { 0 };
	_cleanup_(sl_bundle_done) struct sl_bundle got = { 0 };
	_cleanup_fd_ int fd = -1;

	sl_str_add(&s, head, 3 * sizeof(*head));
	sl_str_add(&s, texts, n);
	assert_int_equal(sl_memfd_new("test", s.p, s.len, &fd), 0);
	return sl_bundle_unpack(fd, &got);
}

static void malformed_changes_make_no_bundle(void **state)
{
	const uint64_t change_of = 4;
	const uint64_t cases[][3] = {
		{ change_of | SL_SOURCE_FILE << 8, 1, 0 },
		{ change_of | SL_SOURCE_KIND_COUNT_ << 8, 1, 0 },
		{ change_of | 200 << 8, 1, 0 },
		{ change_of | SL_SOURCE_REMOVE << 8 | 1 << 17, 1, 0 },
		{ change_of | UINT64_C(1) << 40, 1, 0 },
		{ change_of | SL_SOURCE_REMOVE << 8, 0, 1 },
		{ change_of | SL_SOURCE_REMOVE << 8, 1, 1 },
		{ change_of | SL_SOURCE_ROUTE << 8, 1, 0 },
		{ change_of | SL_SOURCE_REMOVE << 8, UINT64_MAX, 2 },
		{ change_of | SL_SOURCE_REMOVE << 8, 1, UINT64_MAX },
		{ 5, 1, 0 },
	};

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(cases); i++)
		if (unpack(cases[i], "a", 1) != -EBADMSG)
			fail_msg("case %zu was taken", i);
	assert_int_equal(unpack((uint64_t[]){ change_of | SL_SOURCE_REMOVE << 8, 2, 0 }, "a\0", 2),
			 -EBADMSG);
	assert_int_equal(unpack((uint64_t[]){ change_of | SL_SOURCE_REMOVE << 8, 1, 0 }, "a", 1),
			 0);
}

/* ---- on disk ---- */

struct disk {
	char dir[64];
	char path[96];
};

static int disk_setup(void **state)
{
	struct disk *d = calloc(1, sizeof(*d));

	assert_non_null(d);
	strcpy(d->dir, "/tmp/sluice-test-XXXXXX");
	assert_non_null(mkdtemp(d->dir));
	(void)snprintf(d->path, sizeof(d->path), "%s/changes", d->dir);
	*state = d;
	return 0;
}

static int disk_teardown(void **state)
{
	struct disk *d = *state;

	(void)unlink(d->path);
	assert_int_equal(rmdir(d->dir), 0); /* nothing else is left */
	free(d);
	return 0;
}

static void what_is_kept_comes_back(void **state)
{
	static const char odd[] =
		"# \"quoted\" \\ \t\r\n  tab \xc3\xa9 \xf0\x9f\x90\x9f \x7f\nmatch: {}\n";
	_cleanup_(sl_conf_sources_done) struct sl_conf_sources s = { 0 };
	_cleanup_(sl_conf_sources_done) struct sl_conf_sources got = { 0 };
	_cleanup_(sl_str_done) struct sl_str report = { 0 };
	const struct disk *d = *state;
	struct stat st;

	add_file(&s, "a.yaml");
	make(&s, SL_SOURCE_ROUTE, "a", odd, true);
	make(&s, SL_SOURCE_ROUTE, "b", "lost", false);
	make(&s, SL_SOURCE_DISABLE, "c", "", true);
	make(&s, SL_SOURCE_DRAIN, "", "x:1", true);
	assert_int_equal(sl_overlay_save(d->path, &s), 0);
	assert_int_equal(stat(d->path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(sl_overlay_load(d->path, &got, &report), 0);
	assert_int_equal(report.len, 0);
	assert_int_equal(got.n, 3);
	assert_string_equal(got.item[0].text, odd);
	assert_true(sl_overlay_keeps_same(&s, &got));
	assert_int_equal(drop(&got, SL_SOURCE_DRAIN, "", "x:1"), 1);
	assert_false(sl_overlay_keeps_same(&s, &got));
	assert_false(sl_overlay_keeps_same(&got, &s));
	/* with nothing to keep there is no file */
	assert_int_equal(drop(&s, SL_SOURCE_FILE, "", ""), 4);
	assert_int_equal(sl_overlay_save(d->path, &s), 0);
	assert_int_equal(stat(d->path, &st), -1);
	assert_int_equal(sl_overlay_save(d->path, &s), 0);
	assert_int_equal(sl_overlay_load(d->path, &s, &report), 0);
}

static void a_failed_save_leaves_the_file(void **state)
{
	_cleanup_(sl_conf_sources_done) struct sl_conf_sources s = { 0 };
	_cleanup_(sl_conf_sources_done) struct sl_conf_sources got = { 0 };
	_cleanup_(sl_str_done) struct sl_str report = { 0 };
	const struct disk *d = *state;
	char in_the_way[128];

	make(&s, SL_SOURCE_REMOVE, "a", "", true);
	assert_int_equal(sl_overlay_save(d->path, &s), 0);
	(void)snprintf(in_the_way, sizeof(in_the_way), "%s.new", d->path);
	assert_int_equal(mkdir(in_the_way, 0700), 0);
	make(&s, SL_SOURCE_REMOVE, "b", "", true);
	assert_int_equal(sl_overlay_save(d->path, &s), -EISDIR);
	assert_int_equal(rmdir(in_the_way), 0);
	assert_int_equal(sl_overlay_load(d->path, &got, &report), 0);
	expect(&got, "remove:a!");
	assert_int_equal(sl_overlay_save("/nonexistent/changes", &s), -ENOENT);
}

static void a_broken_file_is_explained(void **state)
{
	static const struct {
		const char *text;
		const char *says;
	} cases[] = {
		{ "", "line 1" },
		{ "{", "line 1, column 1" },
		{ "[]", "not a list of changes of version 1" },
		{ "{\"version\":2,\"changes\":[]}", "version 1" },
		{ "{\"version\":1,\"changes\":{}}", "version 1" },
		{ "{\"version\":1,\"version\":1,\"changes\":[]}", "duplicate" },
		{ "{\"version\":1,\"changes\":[7]}", "number 1 of its changes" },
		{ "{\"version\":1,\"changes\":[{\"change\":\"file\",\"keep\":true}]}", "number 1" },
		{ "{\"version\":1,\"changes\":[{\"change\":\"remove\",\"route\":\"a\","
		  "\"keep\":true},{\"change\":\"remove\",\"route\":\"a b\",\"keep\":true}]}",
		  "number 2" },
		{ "{\"version\":1,\"changes\":[{\"change\":\"route\",\"route\":\"a\",\"text\":7,"
		  "\"keep\":true}]}",
		  "'text'" },
		{ "{\"version\":1,\"changes\":[{\"change\":\"remove\",\"route\":\"a\"}]}",
		  "'keep'" },
		{ "{\"version\":1,\"changes\":[{\"change\":\"drain\",\"keep\":true}]}",
		  "'target'" },
	};
	const struct disk *d = *state;

	for (size_t i = 0; i < SL_ARRAY_LEN(cases); i++) {
		_cleanup_(sl_conf_sources_done) struct sl_conf_sources s = { 0 };
		_cleanup_(sl_str_done) struct sl_str report = { 0 };
		FILE *f = fopen(d->path, "w");

		assert_non_null(f);
		(void)fputs(cases[i].text, f);
		assert_int_equal(fclose(f), 0);
		assert_int_equal(sl_overlay_load(d->path, &s, &report), -EINVAL);
		if (!strstr(report.p, cases[i].says) || !strstr(report.p, d->path) ||
		    !strstr(report.p, "move it away"))
			fail_msg("case %zu: %s", i, report.p);
	}
	assert_int_equal(unlink(d->path), 0);
	assert_int_equal(mkdir(d->path, 0700), 0);
	{
		_cleanup_(sl_conf_sources_done) struct sl_conf_sources s = { 0 };
		_cleanup_(sl_str_done) struct sl_str report = { 0 };

		assert_int_equal(sl_overlay_load(d->path, &s, &report), -EINVAL);
	}
	assert_int_equal(rmdir(d->path), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_packed_is_unpacked),
		cmocka_unit_test(every_cut_and_every_addition_is_refused),
		cmocka_unit_test(what_does_not_fit_together_is_refused),
		cmocka_unit_test(bytes_of_the_head_are_checked),
		cmocka_unit_test(only_sealed_memory_of_a_bounded_size_is_read),
		cmocka_unit_test(a_change_replaces_the_one_before_it),
		cmocka_unit_test(what_is_undone_is_gone),
		cmocka_unit_test(the_list_is_bounded),
		cmocka_unit_test(what_is_done_already_is_known),
		cmocka_unit_test(a_bundle_carries_changes),
		cmocka_unit_test(malformed_changes_make_no_bundle),
		cmocka_unit_test_setup_teardown(what_is_kept_comes_back, disk_setup, disk_teardown),
		cmocka_unit_test_setup_teardown(a_failed_save_leaves_the_file, disk_setup,
						disk_teardown),
		cmocka_unit_test_setup_teardown(a_broken_file_is_explained, disk_setup,
						disk_teardown),
	};

	return cmocka_run_group_tests_name("overlay", tests, NULL, NULL);
}
