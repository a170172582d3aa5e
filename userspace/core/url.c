/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "core/url.h"

#include <errno.h>

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

int sl_url_decode(struct sl_slice in, bool plus_is_blank, char *buf, size_t size)
{
	size_t out = 0;

	for (size_t i = 0; i < in.n; i++) {
		char c = in.p[i];

		if (c == '%') {
			int hi = in.n - i > 2 ? hex_value(in.p[i + 1]) : -1;
			int lo = in.n - i > 2 ? hex_value(in.p[i + 2]) : -1;

			if (hi < 0 || lo < 0)
				return -EINVAL;
			c = (char)(hi * 16 + lo);
			i += 2;
		} else if (c == '+' && plus_is_blank) {
			c = ' ';
		}
		if (c == '\0')
			return -EINVAL;
		if (out + 1 >= size)
			return -ENOSPC;
		buf[out++] = c;
	}
	if (size == 0)
		return -ENOSPC;
	buf[out] = '\0';
	return 0;
}

bool sl_url_next_pair(struct sl_slice *query, struct sl_slice *ret_name, struct sl_slice *ret_value)
{
	while (query->n > 0) {
		const char *amp = memchr(query->p, '&', query->n);
		struct sl_slice pair = { query->p, amp ? (size_t)(amp - query->p) : query->n };
		const char *eq = pair.n ? memchr(pair.p, '=', pair.n) : NULL;

		query->p += pair.n + (amp ? 1 : 0);
		query->n -= pair.n + (amp ? 1 : 0);
		if (pair.n == 0)
			continue;
		*ret_name = (struct sl_slice){ pair.p, eq ? (size_t)(eq - pair.p) : pair.n };
		*ret_value = (struct sl_slice){ 0 };
		if (eq)
			*ret_value =
				(struct sl_slice){ eq + 1, pair.n - (size_t)(eq + 1 - pair.p) };
		return true;
	}
	return false;
}

int sl_url_query(struct sl_slice query, const char *name, char *buf, size_t size)
{
	struct sl_slice key;
	struct sl_slice value;
	int found = 0;
	int r;

	if (size == 0)
		return -ENOSPC;
	buf[0] = '\0';
	while (sl_url_next_pair(&query, &key, &value)) {
		if (!sl_slice_is(key, name))
			continue;
		if (found)
			return -EEXIST;
		r = sl_url_decode(value, true, buf, size);
		if (r < 0)
			return r;
		found = 1;
	}
	return found;
}
