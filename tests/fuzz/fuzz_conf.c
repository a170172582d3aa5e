/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "conf/conf.h"

#define require(x)                        \
	do {                              \
		if (!(x))                 \
			__builtin_trap(); \
	} while (0)

static void check_route(const struct sl_conf_route *r)
{
	require(r->name && strlen(r->name) >= 1 && strlen(r->name) <= 64);
	require(r->n_ports >= 1 && r->n_targets >= 1);
	require(r->engine <= SL_CHOICE_RELAY && r->retries <= 10);
	require(r->timeouts.connect >= 1);
	require((r->new_per_ip_per_minute == 0) == (r->new_per_ip_burst == 0));
	for (size_t i = 0; i < r->n_ports; i++)
		require(r->ports[i].from >= 1 && r->ports[i].from <= r->ports[i].to);
	for (size_t i = 0; i < r->n_targets; i++) {
		const struct sl_conf_target *t = &r->targets[i];

		require(t->address && *t->address);
		require((t->host != NULL) == (sl_addr_family(&t->addr) == AF_UNSPEC));
		require(t->host || sl_addr_port(&t->addr) == t->port);
	}
}

static bool is_listened_to(const struct sl_conf *conf, const struct sl_port_spec *p, uint16_t port)
{
	for (size_t i = 0; i < conf->n_listens; i++) {
		const struct sl_listen_spec *l = &conf->listens[i];

		if (port >= l->from && port <= l->to &&
		    (sl_addr_family(&l->ip) == AF_UNSPEC || sl_addr_same_ip(&l->ip, &p->ip) ||
		     (sl_addr_is_any(&l->ip) && sl_addr_family(&l->ip) == sl_addr_family(&p->ip))))
			return true;
	}
	return false;
}

static void check_listens(const struct sl_conf *conf)
{
	for (size_t i = 0; i < conf->n_listens; i++) {
		const struct sl_listen_spec *l = &conf->listens[i];

		require(l->from >= 1 && l->from <= l->to && l->backlog >= 1);
		for (size_t k = 0; k < i; k++)
			require(!sl_addr_same_ip(&l->ip, &conf->listens[k].ip) ||
				conf->listens[k].to < l->from);
	}
	for (size_t i = 0; i < conf->n_routes; i++) {
		const struct sl_conf_route *r = &conf->routes[i];

		for (size_t k = 0; r->enabled && k < r->n_ports; k++)
			require(is_listened_to(conf, &r->ports[k], r->ports[k].from) &&
				is_listened_to(conf, &r->ports[k], r->ports[k].to));
	}
}

/* A line "%%%" separates the main file from one of conf.d. */
int LLVMFuzzerTestOneInput(const uint8_t *input, size_t n)
{
	const uint8_t *cut = memmem(input, n, "\n%%%\n", 5);
	size_t first = cut ? (size_t)(cut - input) + 1 : n;
	size_t rest = cut ? first + 4 : n;
	struct sl_conf_source item[2] = { { "main.yaml", NULL, first },
					  { "b.yaml", NULL, n - rest } };
	struct sl_conf_sources sources = { item, cut ? 2 : 1 };
	struct sl_diags diags = { 0 };
	struct sl_conf *conf = NULL;
	int r;

	for (size_t i = 0; i < 2; i++) {
		item[i].text = calloc(1, item[i].len + 1);
		require(item[i].text != NULL);
	}
	if (first)
		memcpy(item[0].text, input, first);
	if (n > rest)
		memcpy(item[1].text, input + rest, n - rest);
	r = sl_conf_build(&sources, &conf, &diags);
	require(r == 0 || r == -EINVAL);
	require((r == 0) == (diags.n_errors == 0) && (r == 0) == (conf != NULL));
	require((diags.n_errors + diags.n_warnings == 0) == (diags.text.len == 0));
	for (size_t i = 0; i < diags.text.len; i++)
		require((unsigned char)diags.text.p[i] >= ' ' || diags.text.p[i] == '\n');
	for (size_t i = 0; conf && i < conf->n_routes; i++)
		check_route(&conf->routes[i]);
	if (conf)
		check_listens(conf);
	sl_conf_free(conf);
	sl_diags_done(&diags);
	free(item[0].text);
	free(item[1].text);
	return 0;
}
