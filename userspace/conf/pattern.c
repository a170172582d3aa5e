/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/num.h"
#include "conf/keys.h"

/* ---- domains ---- */

static bool is_ascii(const char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text >= 0x80)
			return false;
	return true;
}

/* The usual slips, each with the way out. */
static int refuse_slip(const char *text, char why[SL_WHY_LEN])
{
	const char *colon = strchr(text, ':');
	char buf[SL_QUOTE_LEN], quoted[SL_QUOTE_LEN], name[SL_NAME_MAX + 1];

	if (!is_ascii(text))
		return sl_refuse(why,
				 "%s is not ASCII: write the name's A-label, which begins with "
				 "xn-- (as `idn2 NAME` prints it)",
				 sl_quote(text, buf));
	if (strstr(text, "://") || strchr(text, '/'))
		return sl_refuse(why, "%s is more than a domain: write the host name alone",
				 sl_quote(text, buf));
	if (!colon || colon == text || colon - text > SL_NAME_MAX || !colon[1] ||
	    colon[1 + strspn(colon + 1, "0123456789")] != '\0')
		return 0;
	(void)snprintf(name, sizeof(name), "%.*s", (int)(colon - text), text);
	return sl_refuse(why, "%s: a domain has no port: write %s here and the port in match.ports",
			 sl_quote(text, buf), sl_quote(name, quoted));
}

int sl_domain_parse(const char *text, char ret[SL_NAME_MAX + 1], char why[SL_WHY_LEN])
{
	char name[SL_NAME_MAX + 1], buf[SL_QUOTE_LEN];
	size_t n = strlen(text);
	const char *problem;
	int r = refuse_slip(text, why);

	if (r < 0)
		return r;
	if (n > 1 && text[n - 1] == '.')
		n--;
	if (n > SL_NAME_MAX)
		return sl_refuse(why, "%s is longer than a name can be (%d characters)",
				 sl_quote(text, buf), SL_NAME_MAX);
	for (size_t i = 0; i < n; i++)
		name[i] = (char)tolower((unsigned char)text[i]);
	name[n] = '\0';
	problem = sl_domain_pattern_check(name);
	if (problem)
		return sl_refuse(
			why, "%s is not a domain like shop.example.com or \"*.example.com\": %s",
			sl_quote(text, buf), problem);
	memcpy(ret, name, n + 1);
	return 0;
}

/* ---- client addresses ---- */

int sl_network_parse(const char *text, struct sl_ip_pattern *ret, char why[SL_WHY_LEN])
{
	const char *problem = "not readable";
	char buf[SL_QUOTE_LEN];

	if (sl_ip_pattern_parse(sl_slice_of(text), ret, &problem) == 0)
		return 0;
	return sl_refuse(why,
			 "%s is not an address or a network like 10.0.0.0/8, a range or a "
			 "pattern: %s",
			 sl_quote(text, buf), problem);
}

static void format_start(const struct sl_ip_pattern *p, char ret[SL_ADDR_TEXT])
{
	struct sl_addr a = { 0 };

	if (p->kind == SL_IP_RANGE4) {
		a.v4.sin_family = AF_INET;
		a.v4.sin_addr.s_addr = htonl(p->v4.from);
	} else {
		a.v6.sin6_family = AF_INET6;
		memcpy(&a.v6.sin6_addr, p->v6.from, sizeof(p->v6.from));
	}
	(void)sl_addr_format_ip(&a, ret);
}

bool sl_network_has_host_bits(const char *text, char ret[SL_NETWORK_TEXT])
{
	const char *slash = strchr(text, '/');
	struct sl_ip_pattern whole, alone;
	const char *problem;
	char start[SL_ADDR_TEXT];
	uint64_t bits;

	if (!slash || sl_ip_pattern_parse(sl_slice_of(text), &whole, &problem) < 0 ||
	    sl_ip_pattern_parse((struct sl_slice){ text, (size_t)(slash - text) }, &alone,
				&problem) < 0 ||
	    whole.kind != alone.kind)
		return false;
	if (whole.kind == SL_IP_RANGE4 && whole.v4.from == alone.v4.from)
		return false;
	if (whole.kind == SL_IP_RANGE6 &&
	    memcmp(whole.v6.from, alone.v6.from, sizeof(whole.v6.from)) == 0)
		return false;
	if (sl_num_parse(slash + 1, 0, 128, &bits) < 0)
		return false;
	if (whole.kind == SL_IP_RANGE4 && strchr(text, ':'))
		bits -= 96; /* mapped, and shown as IPv4 */
	format_start(&whole, start);
	(void)snprintf(ret, SL_NETWORK_TEXT, "%s/%u", start, (unsigned)bits & 0xff);
	return true;
}
