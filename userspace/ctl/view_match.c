/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "ctl/view_match.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "base/num.h"
#include "core/tls_hello.h"

/* Of a set: more are counted only. */
#define MAX_SHOWN 256

const char *sl_view_tls(uint32_t versions, char buf[SL_TLS_TEXT])
{
	static const struct {
		uint32_t bit;
		const char *text;
	} words[] = { { SL_TLS_1_3, "1.3" },
		      { SL_TLS_1_2, "1.2" },
		      { SL_TLS_1_1, "1.1" },
		      { SL_TLS_1_0, "1.0" } };
	size_t n = 0;

	for (size_t i = 0; i < SL_ARRAY_LEN(words); i++)
		if (versions & words[i].bit)
			n += (size_t)snprintf(buf + n, SL_TLS_TEXT - n, "%s%s", n ? "," : "",
					      words[i].text);
	return n ? buf : NULL;
}

size_t sl_view_set_size(const struct sl_ip_set *set)
{
	return set->n4 + set->n6 + set->n_globs;
}

/* ---- sets of addresses ---- */

struct prefix_count {
	unsigned n;
	unsigned bits; /* of the first */
};

static int count_prefix(void *arg, const uint8_t *ip, unsigned bits)
{
	struct prefix_count *c = arg;

	(void)ip;
	if (c->n++ == 0)
		c->bits = bits;
	return c->n > 1; /* ends it */
}

/* "10.0.0.0/8", "10.0.0.1", or "10.0.0.1-10.0.0.9" for what is no prefix. */
static void add_range(struct sl_json *j, int family, const void *from, const void *to,
		      struct prefix_count prefixes)
{
	char text[2 * INET6_ADDRSTRLEN + 8];
	char first[INET6_ADDRSTRLEN] = "";
	char last[INET6_ADDRSTRLEN] = "";
	unsigned all = family == AF_INET ? 32 : 128;

	(void)inet_ntop(family, from, first, sizeof(first));
	(void)inet_ntop(family, to, last, sizeof(last));
	if (prefixes.n > 1)
		(void)snprintf(text, sizeof(text), "%s-%s", first, last);
	else if (prefixes.bits < all)
		(void)snprintf(text, sizeof(text), "%s/%u", first, prefixes.bits);
	else
		(void)snprintf(text, sizeof(text), "%s", first);
	sl_json_str(j, NULL, text);
}

static void add_range4(struct sl_json *j, const struct sl_ip4_range *r)
{
	struct prefix_count prefixes = { 0 };
	uint32_t from = htonl(r->from);
	uint32_t to = htonl(r->to);

	(void)sl_ip4_prefixes(r, count_prefix, &prefixes);
	add_range(j, AF_INET, &from, &to, prefixes);
}

static void add_range6(struct sl_json *j, const struct sl_ip6_range *r)
{
	struct prefix_count prefixes = { 0 };

	(void)sl_ip6_prefixes(r, count_prefix, &prefixes);
	add_range(j, AF_INET6, r->from, r->to, prefixes);
}

/* "*", "7", or "[1,3,10-19]". */
static void add_octet(struct sl_str *s, const uint64_t octet[4])
{
	unsigned n = 0;
	size_t start = s->len;

	for (unsigned v = 0; v < 256; v++) {
		unsigned from = v;

		if (!sl_ip_octet_has(octet, v))
			continue;
		while (v < 255 && sl_ip_octet_has(octet, v + 1))
			v++;
		if (from == 0 && v == 255) {
			sl_str_addc(s, '*');
			return;
		}
		sl_str_addf(s, n ? ",%u" : "[%u", from);
		if (v > from)
			sl_str_addf(s, "-%u", v);
		n += v - from + 1;
	}
	if (n == 1 && s->p) { /* without the bracket */
		memmove(s->p + start, s->p + start + 1, s->len - start);
		s->len--;
	} else {
		sl_str_addc(s, ']');
	}
}

static void add_glob(struct sl_json *j, const struct sl_ip4_glob *g)
{
	_cleanup_(sl_str_done) struct sl_str text = { 0 };

	for (int i = 0; i < 4; i++) {
		if (i)
			sl_str_addc(&text, '.');
		add_octet(&text, g->octet[i]);
	}
	sl_json_strn(j, NULL, sl_str_text(&text), text.len);
}

static void add_set(struct sl_json *j, const char *key, const struct sl_ip_set *set)
{
	size_t room = MAX_SHOWN;

	sl_json_arr(j, key);
	for (size_t i = 0; i < set->n4 && room; i++, room--)
		add_range4(j, &set->v4[i]);
	for (size_t i = 0; i < set->n6 && room; i++, room--)
		add_range6(j, &set->v6[i]);
	for (size_t i = 0; i < set->n_globs && room; i++, room--)
		add_glob(j, &set->globs[i]);
	sl_json_arr_end(j);
}

/* ---- the route ---- */

void sl_view_port(struct sl_json *j, const char *key, const struct sl_port_spec *p)
{
	char ip[SL_ADDR_TEXT];
	char text[SL_ADDR_TEXT + 32];
	int n = 0;

	if (sl_addr_family(&p->ip))
		n = snprintf(text, sizeof(text),
			     sl_addr_family(&p->ip) == AF_INET6 ? "[%s]:" : "%s:",
			     sl_addr_format_ip(&p->ip, ip));
	n += snprintf(text + n, sizeof(text) - (size_t)n, "%u", p->from);
	if (p->to != p->from)
		(void)snprintf(text + n, sizeof(text) - (size_t)n, "-%u", p->to);
	sl_json_str(j, key, text);
}

static void add_texts(struct sl_json *j, const char *key, char *const *texts, size_t n)
{
	sl_json_arr(j, key);
	for (size_t i = 0; i < n; i++)
		sl_json_str(j, NULL, texts[i]);
	sl_json_arr_end(j);
}

static const char *balance_name(enum sl_balance balance)
{
	switch (balance) {
	case SL_BALANCE_ROUND_ROBIN:
		return "round_robin";
	case SL_BALANCE_LEAST_CONN:
		return "least_conn";
	case SL_BALANCE_RANDOM:
		return "random";
	case SL_BALANCE_SOURCE_HASH:
		return "source_hash";
	case SL_BALANCE_MAGLEV:
		return "maglev";
	}
	return "-";
}

static const char *send_proxy_name(enum sl_ph_choice version)
{
	switch (version) {
	case SL_PH_SEND_NONE:
		return "none";
	case SL_PH_SEND_V1:
		return "v1";
	case SL_PH_SEND_V2:
		return "v2";
	}
	return "-";
}

static void add_health(struct sl_json *j, const struct sl_health_conf *h)
{
	char text[32];

	if (!h->enabled) {
		sl_json_null(j, "health");
		return;
	}
	sl_json_obj(j, "health");
	sl_json_str(j, "every", sl_num_format_duration(h->every, text));
	sl_json_str(j, "timeout", sl_num_format_duration(h->timeout, text));
	sl_json_u64(j, "fall", h->fall);
	sl_json_u64(j, "rise", h->rise);
	sl_json_str(j, "path", h->path);
	sl_json_bool(j, "tls", h->tls);
	sl_json_str(j, "slow_start", sl_num_format_duration(h->slow_start, text));
	sl_json_obj_end(j);
}

void sl_view_match(struct sl_json *j, const struct sl_conf_route *r)
{
	char tls[SL_TLS_TEXT];

	sl_json_arr(j, "ports");
	for (size_t i = 0; i < r->n_ports; i++)
		sl_view_port(j, NULL, &r->ports[i]);
	sl_json_arr_end(j);
	sl_json_str(j, "protocol", r->is_udp ? "udp" : "tcp");
	sl_json_u64(j, "priority", r->priority);
	add_texts(j, "domains", r->domains, r->n_domains);
	sl_json_str(j, "path", r->path);
	if (r->has_clients)
		add_set(j, "clients", &r->clients);
	else
		sl_json_null(j, "clients");
	sl_json_str(j, "tls_versions", sl_view_tls(r->tls_versions, tls));
	add_texts(j, "alpn", r->alpn, r->n_alpn);
	sl_json_str(j, "balance", balance_name(r->balance));
	sl_json_bool(j, "preserve_source", r->preserve_source);
	sl_json_str(j, "send_proxy", send_proxy_name(r->send_proxy.version));
	add_health(j, &r->health);
	sl_json_obj(j, "security");
	sl_json_u64(j, "allow", sl_view_set_size(&r->access.allow));
	sl_json_u64(j, "deny", sl_view_set_size(&r->access.deny));
	sl_json_obj_end(j);
}
