/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <string.h>

#include "core/matcher.h"

/* The segment that begins at `p`. */
static struct sl_slice segment_at(const char *p, const char *end)
{
	const char *slash = p < end ? memchr(p, '/', (size_t)(end - p)) : NULL;

	return (struct sl_slice){ .p = p, .n = (size_t)((slash ? slash : end) - p) };
}

static bool is_star(struct sl_slice segment)
{
	return segment.n == 1 && segment.p[0] == '*';
}

static bool is_param(struct sl_slice segment)
{
	return segment.n > 1 && segment.p[0] == ':';
}

/* One segment that is not the final star. */
static bool segment_fits(struct sl_slice want, struct sl_slice got, struct sl_path_match *m)
{
	if (is_star(want))
		return got.n > 0;
	if (!is_param(want))
		return want.n == got.n && memcmp(want.p, got.p, got.n) == 0;
	if (!got.n || m->n_params == SL_PATH_MAX_PARAMS)
		return false;
	m->params[m->n_params].name = (struct sl_slice){ .p = want.p + 1, .n = want.n - 1 };
	m->params[m->n_params++].value = got;
	return true;
}

bool sl_path_match(const char *pattern, struct sl_slice path, struct sl_path_match *ret)
{
	const char *pattern_end = pattern + strlen(pattern);
	const char *path_end;
	const char *at = path.p;
	struct sl_path_match m;

	if (!path.n || *at != '/' || *pattern != '/')
		return false;
	path_end = at + path.n;
	m.n_params = 0;
	for (;;) {
		struct sl_slice want = segment_at(++pattern, pattern_end);
		struct sl_slice got = segment_at(++at, path_end);

		pattern += want.n;
		if (is_star(want) && pattern == pattern_end) {
			m.match = (struct sl_slice){ .p = path.p, .n = (size_t)(at - path.p) };
			m.remainder = (struct sl_slice){ .p = at, .n = (size_t)(path_end - at) };
			break;
		}
		at += got.n;
		if (!segment_fits(want, got, &m) || (at == path_end) != (pattern == pattern_end))
			return false;
		if (at == path_end) {
			m.match = path;
			m.remainder = (struct sl_slice){ 0 };
			break;
		}
	}
	if (ret) {
		ret->match = m.match;
		ret->remainder = m.remainder;
		ret->n_params = m.n_params;
		memcpy(ret->params, m.params, m.n_params * sizeof(m.params[0]));
	}
	return true;
}

static bool is_name_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '_' || c == '-';
}

static const char *check_param(struct sl_slice name, const struct sl_slice *before, size_t n)
{
	if (!name.n)
		return "':' is missing the parameter's name";
	for (size_t i = 0; i < name.n; i++)
		if (!is_name_char(name.p[i]))
			return "a parameter's name has letters, digits, '_' and '-'";
	for (size_t i = 0; i < n; i++)
		if (before[i].n == name.n && memcmp(before[i].p, name.p, name.n) == 0)
			return "two parameters have the same name";
	return n == SL_PATH_MAX_PARAMS ? "a path has at most 16 parameters" : NULL;
}

static const char *check_literal(struct sl_slice segment)
{
	for (size_t i = 0; i < segment.n; i++) {
		char c = segment.p[i];

		if (c == '*')
			return "'*' stands for a whole segment, as in /a/*/b or /a/*";
		if (c == '?' || c == '#')
			return "a path ends before '?' and '#'";
		if (c <= ' ' || c > '~')
			return "a path is printable ASCII, everything else percent-encoded";
	}
	return NULL;
}

const char *sl_path_pattern_check(const char *pattern)
{
	const char *end = pattern + strlen(pattern);
	struct sl_slice names[SL_PATH_MAX_PARAMS];
	size_t n_names = 0;

	if (*pattern != '/')
		return "a path begins with '/'";
	/* Far below what ranks of patterns can tell apart, and what any server takes. */
	if (end - pattern > SL_PATH_PATTERN_MAX)
		return "a path has at most 4096 characters";
	while (pattern < end) {
		struct sl_slice segment = segment_at(pattern + 1, end);
		const char *why;

		if (segment.n && segment.p[0] == ':') {
			struct sl_slice name = { .p = segment.p + 1, .n = segment.n - 1 };

			why = check_param(name, names, n_names);
			if (!why)
				names[n_names++] = name;
		} else {
			why = is_star(segment) ? NULL : check_literal(segment);
		}
		if (why)
			return why;
		pattern = segment.p + segment.n;
	}
	return NULL;
}
