/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "conf/build.h"

#define require(x)                        \
	do {                              \
		if (!(x))                 \
			__builtin_trap(); \
	} while (0)

static void check_set(const struct sl_ip_set *s)
{
	for (size_t i = 0; i < s->n4; i++)
		require(s->v4[i].from <= s->v4[i].to &&
			(i == 0 || s->v4[i - 1].to < s->v4[i].from));
	for (size_t i = 0; i < s->n6; i++)
		require(memcmp(s->v6[i].from, s->v6[i].to, 16) <= 0 &&
			(i == 0 || memcmp(s->v6[i - 1].to, s->v6[i].from, 16) < 0));
}

static void check_match(const struct sl_conf_route *r)
{
	require(r->priority <= 1000000 && r->tls_versions <= 15);
	require(!r->path || r->path[0] == '/');
	require(r->has_clients == !sl_ip_set_is_empty(&r->clients));
	for (size_t i = 0; i < r->n_domains; i++) {
		const char *d = r->domains[i];

		require(*d && d[strlen(d) - 1] != '.' && strlen(d) <= 253);
		for (; *d; d++)
			require(strchr("abcdefghijklmnopqrstuvwxyz0123456789-_.*", *d));
	}
	for (size_t i = 0; i < r->n_alpn; i++)
		require(*r->alpn[i] && strlen(r->alpn[i]) <= 255);
	check_set(&r->clients);
	check_set(&r->access.allow);
	check_set(&r->access.deny);
}

static void check_forward(const struct sl_conf_route *r)
{
	const struct sl_health_conf *h = &r->health;
	const struct sl_conf_send_proxy *p = &r->send_proxy;

	require(r->balance <= SL_BALANCE_MAGLEV && p->version <= SL_PH_SEND_V2);
	require(p->version == SL_PH_SEND_V2 ||
		!(p->crc32c || p->alpn || p->authority || p->unique_id || p->ssl));
	require(h->every >= 10 && h->timeout >= 10 && h->fall >= 1 && h->rise >= 1);
	require(!h->path || h->path[0] == '/');
	require(r->n_targets >= 1 && r->n_targets <= SL_TARGETS_MAX);
	for (size_t i = 0; i < r->n_targets; i++) {
		const struct sl_conf_target *t = &r->targets[i];

		require(t->address && *t->address && t->weight <= 1000);
		require((t->host != NULL) == (sl_addr_family(&t->addr) == AF_UNSPEC));
		require(t->host || sl_addr_port(&t->addr) == t->port);
	}
}

static bool is_file(const char *path)
{
	return path && path[0] == '/';
}

static void check_tls(const struct sl_conf_tls *tls)
{
	require(tls->n_certs >= 1);
	for (size_t i = 0; i < tls->n_certs; i++) {
		const struct sl_conf_cert *c = &tls->certs[i];

		require(is_file(c->chain) && (!c->key || is_file(c->key)));
		require(!c->staple || is_file(c->staple));
	}
	require(!tls->client_ca || is_file(tls->client_ca));
	require(tls->client_auth <= SL_CLIENT_AUTH_CHOICE_REQUIRED);
	require(tls->client_ca || tls->client_auth == SL_CLIENT_AUTH_CHOICE_NONE);
	require(tls->n_alpn <= 32);
	for (size_t i = 0; i < tls->n_alpn; i++)
		require(*tls->alpn[i] && strlen(tls->alpn[i]) <= 255);
	require(!tls->suites || strncmp(tls->suites, "TLS_", 4) == 0);
	require(!tls->ciphers || (*tls->ciphers && !strstr(tls->ciphers, ":TLS_")));
}

static void check_backend_tls(const struct sl_conf_backend_tls *tls)
{
	require(tls->verify <= SL_VERIFY_CHOICE_NONE);
	require((tls->verify == SL_VERIFY_CHOICE_FILE) == is_file(tls->ca));
	require(!tls->server_name || *tls->server_name);
	require(!tls->cert || is_file(tls->cert));
	require(!tls->key || (is_file(tls->key) && tls->cert));
}

static void check_route(const struct sl_conf_route *r)
{
	require(r->name && strlen(r->name) >= 1 && strlen(r->name) <= 64);
	require(r->n_ports >= 1);
	require(r->engine <= SL_CHOICE_NFTABLES);
	require(r->retries <= 10);
	require(r->timeouts.connect >= 1);
	require((r->new_per_ip_per_minute == 0) == (r->new_per_ip_burst == 0));
	require((r->new_connections.per_minute == 0) == (r->new_connections.burst == 0));
	require((r->packets.per_minute == 0) == (r->packets.burst == 0));
	for (size_t i = 0; i < r->n_ports; i++)
		require(r->ports[i].from >= 1 && r->ports[i].from <= r->ports[i].to);
	check_match(r);
	check_forward(r);
	if (r->tls)
		check_tls(r->tls);
	if (r->backend_tls)
		check_backend_tls(r->backend_tls);
	require((!r->tls && !r->backend_tls) || (!r->is_udp && r->engine <= SL_CHOICE_RELAY));
}

/* A port is in at most one of them. */
static void check_accepts(const struct sl_conf *conf)
{
	for (size_t i = 0; i < conf->n_accept_proxies; i++) {
		const struct sl_port_spec *p = &conf->accept_proxies[i].ports;

		require(p->from >= 1 && p->from <= p->to);
		require(!sl_ip_set_is_empty(&conf->accept_proxies[i].from));
		check_set(&conf->accept_proxies[i].from);
		for (size_t k = 0; k < i; k++) {
			const struct sl_port_spec *q = &conf->accept_proxies[k].ports;
			bool v4 = sl_addr_family(&p->ip) == AF_INET;
			bool v6 = sl_addr_family(&p->ip) == AF_INET6;
			bool meet =
				sl_addr_same_ip(&p->ip, &q->ip) ||
				sl_addr_family(&p->ip) == AF_UNSPEC ||
				sl_addr_family(&q->ip) == AF_UNSPEC ||
				((v4 || v6) && sl_addr_family(&p->ip) == sl_addr_family(&q->ip) &&
				 (sl_addr_is_any(&p->ip) || sl_addr_is_any(&q->ip)));

			require(!meet || p->to < q->from || q->to < p->from);
		}
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

		if (r->engine == SL_CHOICE_NFTABLES)
			continue;
		for (size_t k = 0; r->enabled && k < r->n_ports; k++)
			require(is_listened_to(conf, &r->ports[k], r->ports[k].from) &&
				is_listened_to(conf, &r->ports[k], r->ports[k].to));
	}
}

static void check_packet(const struct sl_conf *conf)
{
	const struct sl_conf_packet *p = &conf->global.packet;

	require(p->hook <= SL_HOOK_CHOICE_OFF && p->port_from >= 1024 && p->max_flows >= 1);
	require(p->port_to - p->port_from + 1 >= SL_PACKET_PORTS_MIN);
	require(strlen(conf->global.bpf_dir) < SL_BPF_DIR);
	for (size_t i = 0; i < p->n_interfaces; i++) {
		require(*p->interfaces[i] && strlen(p->interfaces[i]) < SL_INTERFACE_NAME);
		require(!strpbrk(p->interfaces[i], "/: ") && strcmp(p->interfaces[i], "auto"));
	}
	for (size_t i = 0; i < conf->n_routes; i++)
		require(p->hook != SL_HOOK_CHOICE_OFF ||
			conf->routes[i].engine != SL_CHOICE_PACKET);
}

static bool do_meet(const struct sl_port_spec *p, const struct sl_port_spec *q)
{
	bool is_same_family = sl_addr_family(&p->ip) == sl_addr_family(&q->ip);

	if (p->to < q->from || q->to < p->from)
		return false;
	return sl_addr_same_ip(&p->ip, &q->ip) || sl_addr_family(&p->ip) == AF_UNSPEC ||
	       sl_addr_family(&q->ip) == AF_UNSPEC ||
	       (is_same_family && (sl_addr_is_any(&p->ip) || sl_addr_is_any(&q->ip)));
}

/* Nobody else waits for a connection where NAT takes it. */
static void check_shared(const struct sl_conf *conf, const struct sl_port_spec *p)
{
	for (size_t i = 0; i < conf->n_routes; i++) {
		const struct sl_conf_route *r = &conf->routes[i];

		if (r->enabled && r->engine != SL_CHOICE_NFTABLES)
			for (size_t k = 0; k < r->n_ports; k++)
				require(!do_meet(p, &r->ports[k]));
	}
	for (size_t i = 0; i < conf->n_accept_proxies; i++)
		require(!do_meet(p, &conf->accept_proxies[i].ports));
}

static void check_nat(const struct sl_conf *conf, const struct sl_conf_route *r)
{
	require(!r->n_domains && !r->path && !r->has_clients && !r->n_alpn && !r->tls_versions);
	require(r->send_proxy.version == SL_PH_SEND_NONE);
	require(!r->access.allow.n_globs && !r->access.deny.n_globs);
	for (size_t i = 0; i < r->n_targets; i++)
		require(!r->targets[i].host);
	if (!r->enabled)
		return;
	require(!conf->global.access.allow.n_globs && !conf->global.access.deny.n_globs);
	for (size_t i = 0; !r->is_udp && i < r->n_ports; i++)
		check_shared(conf, &r->ports[i]);
}

static void check_nftables(const struct sl_conf *conf)
{
	const struct sl_conf_nftables *n = &conf->global.nftables;

	require(n->mark_base <= SL_MARK_BASE_MAX);
	for (size_t i = 0; i < n->n_flow_offload; i++)
		require(*n->flow_offload[i] && strlen(n->flow_offload[i]) < SL_INTERFACE_NAME);
	for (size_t i = 0; i < conf->n_routes; i++) {
		const struct sl_conf_route *r = &conf->routes[i];
		bool is_nat = r->engine == SL_CHOICE_NFTABLES;

		require(is_nat || (!r->is_udp && !r->preserve_source));
		require(is_nat || (!r->new_connections.burst && !r->packets.burst && !r->refuse));
		if (is_nat)
			check_nat(conf, r);
	}
}

static char *copy_of(const void *bytes, size_t n)
{
	char *p = calloc(1, n + 1);

	require(p != NULL);
	if (n)
		memcpy(p, bytes, n);
	return p;
}

/*
 * A line "%%%" separates the main file from one of conf.d, a line "@@@" from what becomes the
 * route "a" at run time, amid other changes, and "~~~" from a target that is drained.
 */
static size_t split(const uint8_t *input, size_t n, struct sl_conf_source item[6])
{
	static const char *const marks[] = { "\n%%%\n", "\n@@@\n", "\n~~~\n" };
	static const enum sl_source_kind kinds[] = { SL_SOURCE_FILE, SL_SOURCE_ROUTE,
						     SL_SOURCE_DRAIN };
	const uint8_t *cut = NULL;
	size_t kind = 0, rest;

	for (size_t i = 0; !cut && i < 3; i++) {
		cut = memmem(input, n, marks[i], 5);
		kind = i;
	}
	item[0].len = cut ? (size_t)(cut - input) + 1 : n;
	item[0].text = copy_of(input, item[0].len);
	if (!cut)
		return 1;
	rest = item[0].len + 4;
	item[1].len = n - rest;
	item[1].text = copy_of(input + rest, item[1].len);
	item[1].kind = kinds[kind];
	return kind == 1 ? 6 : 2;
}

static void check_build(const struct sl_conf_sources *sources)
{
	struct sl_diags diags = { 0 };
	struct sl_conf *conf = NULL;
	int r = sl_conf_build(sources, &conf, &diags);

	require(r == 0 || r == -EINVAL);
	require((r == 0) == (diags.n_errors == 0) && (r == 0) == (conf != NULL));
	require((diags.n_errors + diags.n_warnings == 0) == (diags.text.len == 0));
	for (size_t i = 0; i < diags.text.len; i++)
		require((unsigned char)diags.text.p[i] >= ' ' || diags.text.p[i] == '\n');
	for (size_t i = 0; conf && i < conf->n_routes; i++) {
		check_route(&conf->routes[i]);
		/* it has been put there, and switched on last */
		require(sources->n < 6 || strcmp(conf->routes[i].name, "a") != 0 ||
			conf->routes[i].enabled);
	}
	if (conf) {
		check_listens(conf);
		check_accepts(conf);
		check_packet(conf);
		check_nftables(conf);
	}
	sl_conf_free(conf);
	sl_diags_done(&diags);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t n)
{
	struct sl_conf_source item[6] = {
		{ .name = (char *)"main.yaml" },
		{ .name = (char *)"b.yaml", .subject = (char *)"a" },
		{ .name = (char *)"runtime:b", .subject = (char *)"b", .kind = SL_SOURCE_REMOVE },
		{ .name = (char *)"runtime:a", .subject = (char *)"a", .kind = SL_SOURCE_DISABLE },
		{ .name = (char *)"runtime:a", .subject = (char *)"a", .kind = SL_SOURCE_ENABLE },
		{ .name = (char *)"runtime:",
		  .subject = (char *)"",
		  .kind = SL_SOURCE_DRAIN,
		  .text = (char *)"h:1",
		  .len = 3 },
	};
	struct sl_conf_sources sources = { item, split(input, n, item) };

	check_build(&sources);
	free(item[0].text);
	free(item[1].text);
	return 0;
}
