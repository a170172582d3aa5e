/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "ctl/params.h"

#include <errno.h>
#include <string.h>

#include "base/num.h"
#include "core/tls_hello.h"
#include "core/url.h"
#include "ctl/changes.h"

bool sl_param(struct sl_call *call, const char *name, char ret[SL_PARAM_MAX])
{
	int r = sl_url_query(sl_call_head(call)->query, name, ret, SL_PARAM_MAX);

	if (r == 1 && !ret[0])
		r = -ENODATA; /* in a script, a variable that was never set */
	if (r >= 0)
		return true;
	sl_call_fail(call, 400, NULL, "the parameter '%s' %s", name,
		     r == -EEXIST    ? "is given twice"
		     : r == -ENODATA ? "is empty"
		     : r == -ENOSPC  ? "is too long"
				     : "is not properly encoded");
	return false;
}

bool sl_param_number(struct sl_call *call, const char *name, uint64_t min, uint64_t max,
		     uint64_t absent, uint64_t *ret)
{
	char text[SL_PARAM_MAX];
	uint64_t v = absent;

	if (!sl_param(call, name, text))
		return false;
	if (text[0] && sl_num_parse(text, min, max, &v) < 0) {
		sl_call_fail(call, 400, NULL,
			     "the parameter '%s' is not a number from %llu to %llu: '%s'", name,
			     (unsigned long long)min, (unsigned long long)max, text);
		return false;
	}
	*ret = v;
	return true;
}

bool sl_param_addr(struct sl_call *call, const char *name, struct sl_addr *ret)
{
	char text[SL_PARAM_MAX];
	struct sl_addr a = { 0 };

	if (!sl_param(call, name, text))
		return false;
	if (text[0] && sl_addr_parse_ip(text, &a) < 0 && sl_addr_parse(text, &a) < 0) {
		sl_call_fail(call, 400, "give an IPv4 or IPv6 address, with or without a port",
			     "the parameter '%s' is not an address: '%s'", name, text);
		return false;
	}
	*ret = a;
	return true;
}

bool sl_param_client(struct sl_call *call, const char *name, struct sl_ip_pattern *ret, bool *given)
{
	struct sl_ip_pattern pattern;
	char text[SL_PARAM_MAX];
	const char *why = "";

	if (!sl_param(call, name, text))
		return false;
	if (text[0] && sl_ip_pattern_parse(sl_slice_of(text), &pattern, &why) < 0) {
		sl_call_fail(call, 400, "for example 10.0.0.1, 10.0.0.0/8, 10.0.0.1-10.0.0.9, 10.*",
			     "the parameter '%s' is no pattern of addresses, '%s': %s", name, text,
			     why);
		return false;
	}
	*given = text[0] != '\0';
	if (*given)
		*ret = pattern;
	return true;
}

bool sl_param_protocol(struct sl_call *call, const char *name, bool *ret_is_udp)
{
	char text[SL_PARAM_MAX];

	if (!sl_param(call, name, text))
		return false;
	if (text[0] && strcmp(text, "tcp") != 0 && strcmp(text, "udp") != 0) {
		sl_call_fail(call, 400, "tcp or udp", "the parameter '%s' is no protocol", name);
		return false;
	}
	*ret_is_udp = strcmp(text, "udp") == 0;
	return true;
}

/* "1.2,1.3" */
bool sl_param_tls(struct sl_call *call, const char *name, uint32_t *ret)
{
	static const struct {
		const char *word;
		uint32_t bit;
	} words[] = { { "1.0", SL_TLS_1_0 },
		      { "1.1", SL_TLS_1_1 },
		      { "1.2", SL_TLS_1_2 },
		      { "1.3", SL_TLS_1_3 } };
	char text[SL_PARAM_MAX];
	uint32_t all = 0;

	if (!sl_param(call, name, text))
		return false;
	for (const char *p = text; *p;) {
		struct sl_slice word = { p, strcspn(p, ",") };
		uint32_t bit = 0;

		for (size_t i = 0; i < SL_ARRAY_LEN(words); i++)
			if (sl_slice_is(word, words[i].word))
				bit = words[i].bit;
		if (!bit) {
			sl_call_fail(call, 400, "for example 1.2,1.3",
				     "the parameter '%s' holds no list of TLS versions", name);
			return false;
		}
		all |= bit;
		p += word.n + (p[word.n] == ',');
	}
	*ret = all;
	return true;
}

bool sl_param_path_name(struct sl_call *call, char ret[SL_PARAM_MAX])
{
	static const char prefix[] = "/v1/routes/";
	struct sl_slice path = sl_call_head(call)->path;
	struct sl_slice name = { path.p + sizeof(prefix) - 1, path.n - (sizeof(prefix) - 1) };
	const char *slash = memchr(name.p, '/', name.n);

	if (slash)
		name.n = (size_t)(slash - name.p);
	if (sl_url_decode(name, false, ret, SL_PARAM_MAX) == 0 && sl_changes_is_name(ret))
		return true;
	sl_call_fail(call, 400, "1 to 64 letters, digits, '.', '_' and '-'",
		     "this is no name of a route");
	return false;
}

bool sl_param_route(struct sl_call *call, const char *name, char ret[SL_PARAM_MAX])
{
	if (!sl_param(call, name, ret))
		return false;
	if (!ret[0] || sl_changes_is_name(ret))
		return true;
	sl_call_fail(call, 400, "1 to 64 letters, digits, '.', '_' and '-'",
		     "the parameter '%s' is no name of a route", name);
	return false;
}
