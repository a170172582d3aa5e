/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_TESTS_FAKE_PROXY_H
#define SL_TESTS_FAKE_PROXY_H

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "proxy/proxy.h"

/*
 * A data path that carries nothing: what the control interface asks is
 * answered from this record, surveys in a later turn of the loop or, when
 * `hold` is set, at fake_release().
 */
#define FAKE_SURVEYS 512

struct fake_survey {
	struct sl_task task;
	struct sl_proxy *proxy;
	struct sl_conn_filter filter; /* its texts are those below */
	char route[512];
	char target[512];
	struct sl_ip_pattern client;
	sl_survey_fn fn;
	void *arg;
};

struct sl_proxy {
	struct sl_loop *loop;
	bool draining;
	bool hold;
	bool no_memory;
	uint64_t generation;
	struct sl_conf *conf; /* NULL: none applied */
	struct sl_conf_route route[2];
	struct sl_port_spec port[3];
	char *domain[2];
	struct sl_ip4_range range[3];
	struct sl_conn_row row[3];
	struct sl_explanation explanation;
	struct sl_question asked; /* its texts are those below */
	char asked_name[512];
	char asked_alpn[512];
	struct sl_explained_route candidate[2];
	struct fake_survey survey[FAKE_SURVEYS];
	size_t n_surveys;
	size_t n_answered;
	unsigned killed;
	struct sl_kernel_view kernel;
	uint64_t in_kernel; /* records of flows there */
	uint64_t in_nat;    /* and of the kernel's NAT */
	struct sl_task flush_task;
	sl_proxy_fn flushed; /* who waits for it; NULL: nobody */
	void *flushed_arg;
	unsigned n_flushes;
	const char *diff; /* what a broker's look has found; NULL: there is none */
	uint64_t active;  /* of the first target of each route */
	bool counts_down; /* each time it is looked at */
	struct sl_cert_view cert[8];
	size_t n_certs;
	struct sl_conf_cert conf_cert[2];
	struct sl_conf_tls tls;
	struct sl_conf_backend_tls backend_tls;
	struct sl_tls_totals tls_totals;
};

static inline void fake_init(struct sl_proxy *p, struct sl_loop *loop)
{
	static struct sl_conf conf;

	*p = (struct sl_proxy){ .loop = loop, .generation = 3, .conf = &conf, .active = 2 };
	conf.routes = p->route;
	conf.n_routes = 2;
	p->kernel = (struct sl_kernel_view){
		.off = SL_WHY_NO_PRIVILEGE, .flows_fd = -1, .counters_fd = -1, .routes_fd = -1
	};
	p->route[0] = (struct sl_conf_route){
		.name = (char *)"shop", .enabled = true, .ports = &p->port[0], .n_ports = 2
	};
	p->route[1] = (struct sl_conf_route){ .name = (char *)"mail",
					      .enabled = true,
					      .ports = &p->port[2],
					      .n_ports = 1,
					      .engine = SL_CHOICE_RELAY };
	p->route[0].domains = p->domain;
	p->route[0].n_domains = 2;
	p->domain[0] = (char *)"shop.example.com";
	p->domain[1] = (char *)"*.shop.example.com";
	p->route[0].health = (struct sl_health_conf){
		.enabled = true, .every = 2000, .timeout = 1000, .fall = 3, .rise = 2
	};
	p->route[0].clients.v4 = p->range;
	p->route[0].clients.n4 = 3;
	p->route[0].has_clients = true;
	p->range[0] = (struct sl_ip4_range){ 0x0a000000, 0x0affffff };
	p->range[1] = (struct sl_ip4_range){ 0xc0000201, 0xc0000201 };
	p->range[2] = (struct sl_ip4_range){ 0xc0000210, 0xc0000219 };
	p->port[0] = (struct sl_port_spec){ .from = 443, .to = 443 };
	p->port[1] = (struct sl_port_spec){ .from = 8000, .to = 8100 };
	p->port[2] = (struct sl_port_spec){ .from = 993, .to = 993 };
	(void)!sl_addr_parse_ip("::1", &p->port[1].ip);
	for (int i = 0; i < 3; i++) {
		struct sl_conn_row *r = &p->row[i];

		r->id = (uint64_t)i + 7;
		strcpy(r->route, i < 2 ? "shop" : "");
		r->state = i < 2 ? SL_CONN_ESTABLISHED : SL_CONN_ACCEPTED;
		r->engine = i < 2 ? SL_ENGINE_RELAY : SL_ENGINE_NONE;
		r->engine_reason = i < 2 ? SL_WHY_SHORT_LIVED : SL_WHY_NONE;
		(void)!sl_addr_parse("192.0.2.1:40000", &r->client);
		if (i < 2)
			(void)!sl_addr_parse("10.0.1.11:443", &r->backend);
		r->age_ms = 61500;
		r->idle_ms = 250;
		r->bytes_up = 100;
		r->bytes_down = 2048;
		r->connect_us = i < 2 ? 1500 : 0;
	}
	strcpy(p->row[1].sni, "shop.example.com");
	strcpy(p->row[1].alpn, "h2");
	p->row[1].tls_versions = SL_TLS_1_2 | SL_TLS_1_3;
	(void)!sl_addr_parse("192.0.2.200:50000", &p->row[1].client);
	(void)!sl_addr_parse("198.51.100.7:1234", &p->row[1].client_via);
	(void)!sl_addr_parse("10.0.1.12:443", &p->row[1].backend);
	/* Twice to the packet engine and back, and once more than is kept. */
	p->row[0].now_us = 60000000;
	for (unsigned i = 0; i < SL_MOVES_KEPT + 1; i++) {
		bool back = i % 2 == 1;

		sl_moves_add(&p->row[0].moves,
			     (struct sl_move){ .from = back ? SL_ENGINE_PACKET : SL_ENGINE_RELAY,
					       .to = back ? SL_ENGINE_RELAY : SL_ENGINE_PACKET,
					       .why = back ? SL_WHY_HALF_CLOSED : SL_WHY_ELIGIBLE,
					       .at_us = (i + 1) * 10000000 });
	}
	p->explanation = (struct sl_explanation){
		.route = &p->route[0],
		.engine = SL_ENGINE_RELAY,
		.engine_reason = SL_WHY_NO_PRIVILEGE,
		.choice = { .n = 2,
			    .item = { { SL_ENGINE_PACKET, SL_WHY_NO_PRIVILEGE, false },
				      { SL_ENGINE_RELAY, SL_WHY_NO_PRIVILEGE, true } } },
		.target = "10.0.1.11:443",
		.target_why = "round robin: its turn is next",
		.is_listening = true
	};
	p->candidate[0] = (struct sl_explained_route){ &p->route[0], SL_MATCH_WON };
	p->candidate[1] = (struct sl_explained_route){ &p->route[1], SL_MATCH_CLIENT };
}

static inline bool fake_matches(const struct fake_survey *s, const struct sl_conn_row *r)
{
	if (s->filter.id && s->filter.id != r->id)
		return false;
	if (s->filter.route && strcmp(s->filter.route, r->route) != 0)
		return false;
	if (s->filter.target) {
		char text[SL_ADDR_TEXT];

		if (strcmp(s->filter.target, sl_addr_format(&r->backend, text)) != 0)
			return false;
	}
	if (s->filter.client) {
		uint32_t ip = ntohl(r->client.v4.sin_addr.s_addr);

		return s->client.kind == SL_IP_RANGE4 && ip >= s->client.v4.from &&
		       ip <= s->client.v4.to;
	}
	return true;
}

static inline void fake_answer(struct sl_task *task)
{
	struct fake_survey *s = SL_CONTAINER_OF(task, struct fake_survey, task);
	struct sl_conn_row rows[3];
	struct sl_conn_survey survey = { .rows = rows };

	for (size_t i = 0; i < 3; i++) {
		const struct sl_conn_row *r = &s->proxy->row[i];

		sl_hist_add(&survey.age, r->age_ms * 1000);
		if (!fake_matches(s, r))
			continue;
		survey.n_matching++;
		if (!s->filter.max_rows || survey.n_rows < s->filter.max_rows)
			rows[survey.n_rows++] = *r;
		s->proxy->killed += s->filter.kill;
	}
	s->proxy->n_answered++;
	s->fn(s->arg, &survey);
}

static inline void fake_release(struct sl_proxy *p)
{
	p->hold = false;
	for (size_t i = p->n_answered; i < p->n_surveys; i++)
		sl_loop_again(p->loop, &p->survey[i].task, fake_answer);
}

int sl_proxy_survey(struct sl_proxy *p, const struct sl_conn_filter *filter, sl_survey_fn fn,
		    void *arg)
{
	struct fake_survey *s = &p->survey[p->n_surveys];

	if (p->no_memory || p->n_surveys == FAKE_SURVEYS)
		return -12;
	p->n_surveys++;
	*s = (struct fake_survey){ .proxy = p, .filter = *filter, .fn = fn, .arg = arg };
	if (filter->route)
		s->filter.route = strcpy(s->route, filter->route);
	if (filter->target)
		s->filter.target = strcpy(s->target, filter->target);
	if (filter->client) {
		s->client = *filter->client;
		s->filter.client = &s->client;
	}
	if (!p->hold)
		sl_loop_again(p->loop, &s->task, fake_answer);
	return 0;
}

void sl_proxy_kernel(const struct sl_proxy *p, struct sl_kernel_view *ret)
{
	*ret = p->kernel;
}

/* A broker that can do something. */
static inline void fake_packet_on(struct sl_proxy *p)
{
	p->in_kernel = 3;
	p->kernel.has_broker = true;
	p->kernel.off = SL_WHY_ELIGIBLE;
	p->kernel.status = (struct sl_broker_status){ .is_on = 1,
						      .n_flows = 5,
						      .n_live = 3,
						      .n_held = 2,
						      .max_flows = 262144,
						      .adopted = 4,
						      .n_interfaces = 3,
						      .port_from = 40000,
						      .port_to = 59999,
						      .text = "tcx on 3 interfaces" };
}

/* Rules that are in the kernel. */
static inline void fake_nat_on(struct sl_proxy *p)
{
	p->in_nat = 11;
	p->kernel.is_linked = true;
	p->kernel.nat = (struct sl_broker_nat_status){ .is_on = 1,
						       .n_routes = 1,
						       .n_flows = 12,
						       .adopted = 2,
						       .repairs = 3,
						       .resyncs = 4,
						       .ct_count = 500,
						       .ct_max = 65536,
						       .text = "1 route in table inet sluice" };
}

/* Certificates that end in `days` and a half. */
static inline struct sl_cert_view fake_cert(const char *route, const char *file, int days)
{
	return (struct sl_cert_view){ .route = route,
				      .problem = "",
				      .label = file,
				      .subject = "CN=shop.example.com",
				      .issuer = "CN=Example CA",
				      .not_before_s = time(NULL) - 86400,
				      .not_after_s = time(NULL) + days * 86400 + 43200,
				      .key = "ec-256",
				      .fingerprint = "00ff",
				      .n_chain = 1 };
}

/*
 * The route "shop" terminates TLS with certificates of two kinds of key and one for a wildcard, and
 * shows one to its targets; "mail" has no certificate it could use.
 */
static inline void fake_tls_on(struct sl_proxy *p)
{
	static const char *const names[] = { "shop.example.com", "api.example.com" };
	static const char *const wild[] = { "*.shop.example.com" };

	p->cert[0] = fake_cert("shop", "/etc/sluice/shop.pem", 43);
	p->cert[1] = fake_cert("shop", "/etc/sluice/shop-rsa.pem", 44);
	p->cert[2] = fake_cert("shop", "/etc/sluice/wild.pem", 45);
	p->cert[3] = fake_cert("shop", "/etc/sluice/client.pem", 46);
	for (int i = 0; i < 2; i++) {
		p->cert[i].names = names;
		p->cert[i].n_names = i ? 1 : 2;
		p->cert[i].is_default = true;
	}
	p->cert[1].key = "rsa-2048";
	p->cert[2].names = wild;
	p->cert[2].n_names = 1;
	p->cert[3].is_backend = true;
	p->cert[3].subject = "CN=Sluice 7";
	p->n_certs = 4;
	p->conf_cert[0] = (struct sl_conf_cert){ .chain = (char *)"/etc/sluice/shop.pem",
						 .staple = (char *)"/etc/sluice/shop.ocsp" };
	p->conf_cert[1] = (struct sl_conf_cert){ .chain = (char *)"/etc/sluice/shop-rsa.pem",
						 .key = (char *)"/etc/sluice/shop-rsa.key" };
	p->tls = (struct sl_conf_tls){ .certs = p->conf_cert, .n_certs = 2 };
	p->backend_tls = (struct sl_conf_backend_tls){ .cert = (char *)"/etc/sluice/client.pem" };
	p->route[0].tls = &p->tls;
	p->route[0].backend_tls = &p->backend_tls;
	for (int r = 0; r < SL_TLS_COUNT_RESULTS_; r++)
		p->tls_totals.handshakes[SL_CLIENT][SL_TLS_COUNT_1_3][0][r] = 20 + (unsigned)r;
	p->tls_totals.handshakes[SL_CLIENT][SL_TLS_COUNT_1_2][1][SL_TLS_COUNT_OK] = 5;
	p->tls_totals.handshakes[SL_BACKEND][SL_TLS_COUNT_NONE][0][SL_TLS_COUNT_TIMEOUT] = 7;
	p->tls_totals.handshaking = 2;
	p->tls_totals.waiting = 1;
}

/* `row` as when TLS ends and begins here. */
static inline void fake_tls_row(struct sl_conn_row *row)
{
	row->tls[SL_CLIENT] = (struct sl_tls_row){ .version = "TLSv1.3",
						   .cipher = "TLS_AES_128_GCM_SHA256",
						   .alpn = "http/1.1",
						   .peer = "CN=somebody",
						   .is_resumed = true,
						   .is_verified = true,
						   .ktls = "off",
						   .ktls_why = "a key update would break it" };
	row->tls[SL_BACKEND] = (struct sl_tls_row){ .version = "TLSv1.2",
						    .cipher = "ECDHE-ECDSA-AES128-GCM-SHA256",
						    .peer = "CN=target",
						    .is_verified = true,
						    .ktls = "tx+rx" };
}

void sl_proxy_each_cert(struct sl_proxy *p, sl_cert_fn fn, void *arg)
{
	for (size_t i = 0; i < p->n_certs; i++)
		fn(arg, &p->cert[i]);
}

const char *sl_tls_count_version_name(enum sl_tls_count_version version)
{
	static const char *const names[] = { "", "TLSv1.2", "TLSv1.3" };

	return names[version];
}

const char *sl_tls_count_result_name(enum sl_tls_count_result result)
{
	static const char *const names[] = { "ok", "failed", "timeout" };

	return names[result];
}

static inline void fake_flushed(struct sl_task *task)
{
	struct sl_proxy *p = SL_CONTAINER_OF(task, struct sl_proxy, flush_task);
	sl_proxy_fn done = p->flushed;

	p->flushed = NULL;
	p->n_flushes++;
	done(p->flushed_arg);
}

int sl_proxy_flush(struct sl_proxy *p, sl_proxy_fn done, void *arg)
{
	if (p->flushed || !p->kernel.has_broker)
		return -11;
	p->flushed = done;
	p->flushed_arg = arg;
	if (!p->hold)
		sl_loop_again(p->loop, &p->flush_task, fake_flushed);
	return 0;
}

int sl_proxy_diff(struct sl_proxy *p, sl_diff_fn fn, void *arg)
{
	fn(arg, p->diff);
	return 0;
}

void sl_proxy_totals(const struct sl_proxy *p, struct sl_proxy_totals *t)
{
	*t = (struct sl_proxy_totals){ .active = 3, .accepted = 10, .rejected = 2 };
	t->engine_active[SL_ENGINE_RELAY] = 3;
	t->engine_active[SL_ENGINE_PACKET] = p->in_kernel;
	t->engine_active[SL_ENGINE_NFTABLES] = p->in_nat;
	t->engine_total[SL_ENGINE_RELAY] = 8;
	t->engine_why[SL_ENGINE_RELAY][SL_WHY_SHORT_LIVED] = 8;
	t->engine_moves[SL_ENGINE_RELAY][SL_ENGINE_PACKET][SL_WHY_ELIGIBLE] = 6;
	t->engine_moves[SL_ENGINE_SOCKMAP][SL_ENGINE_RELAY][SL_WHY_MAP_FULL] = 1;
	t->handover[SL_ENGINE_PACKET][SL_WHY_ELIGIBLE] = 6;
	t->handover[SL_ENGINE_PACKET][SL_WHY_NOT_QUIESCENT] = 2;
	sl_hist_add(&t->handover_time, 25);
	t->ended[SL_CLIENT][SL_REASON_NORMAL] = 4;
	t->ended[SL_CLIENT][SL_REASON_ECONNRESET] = 1;
	t->ended[SL_BACKEND][SL_REASON_NORMAL] = 5;
	t->no_route_rejected[SL_REASON_LIMIT_GLOBAL] = 2;
	t->no_route_ended[SL_REASON_LIMIT_GLOBAL] = 2;
	t->dns = (struct sl_dns_stats){ .queries = 6, .failures = 1 };
	sl_hist_add(&t->connect, 1500);
	sl_hist_add(&t->duration, 90000000);
	sl_hist_add(&t->in_state[SL_CONN_CONNECTING], 1500);
	t->tls = p->tls_totals;
}

const char *sl_target_state_name(enum sl_target_state state)
{
	static const char *const names[] = { "up", "unresolved", "down", "drained", "failing" };

	return names[state];
}

void sl_proxy_each_route(struct sl_proxy *p, sl_route_fn fn, void *arg)
{
	for (int i = 0; p->conf && i < 2; i++) {
		struct sl_target_view targets[2] = {
			{ .address = "10.0.1.11:443",
			  .active = p->active,
			  .total = 7,
			  .n_addrs = 1,
			  .weight = 2,
			  .checks_ok = 40,
			  .checks_failed = 3 },
			{ .address = "odd\"na\\me:80",
			  .state = SL_TARGET_UNRESOLVED,
			  .failed = 1,
			  .is_backup = true,
			  .check_error = "connection refused" },
		};
		struct sl_route_view view = { .conf = &p->route[i],
					      .active = 2,
					      .total = 7,
					      .bytes_up = 200,
					      .bytes_down = 4096,
					      .targets = targets,
					      .n_targets = 2 };

		(void)!sl_addr_parse("10.0.1.11:443", &targets[0].addrs[0]);
		view.engine_active[SL_ENGINE_RELAY] = 2;
		view.engine_total[SL_ENGINE_RELAY] = 7;
		view.engine_bytes_up[SL_ENGINE_RELAY] = 200;
		view.engine_bytes_down[SL_ENGINE_RELAY] = 4096;
		view.rejected[SL_REASON_LIMIT_IP] = 1;
		view.ended[SL_ENGINE_RELAY][SL_CLIENT][SL_REASON_NORMAL] = 4;
		view.ended[SL_ENGINE_RELAY][SL_CLIENT][SL_REASON_ECONNRESET] = 1;
		fn(arg, &view);
	}
	if (p->counts_down && p->active)
		p->active--;
}

const struct sl_conf *sl_proxy_conf(const struct sl_proxy *p)
{
	return p->conf;
}

uint64_t sl_proxy_generation(const struct sl_proxy *p)
{
	return p->generation;
}

bool sl_proxy_is_draining(const struct sl_proxy *p)
{
	return p->draining;
}

int sl_proxy_explain(struct sl_proxy *p, const struct sl_question *q, struct sl_explanation *ret)
{
	p->asked = *q;
	if (q->name)
		p->asked.name = strcpy(p->asked_name, q->name);
	if (q->alpn)
		p->asked.alpn = strcpy(p->asked_alpn, q->alpn);
	*ret = p->explanation;
	ret->candidates = malloc(sizeof(p->candidate));
	if (!ret->candidates)
		return -12;
	memcpy(ret->candidates, p->candidate, sizeof(p->candidate));
	ret->n_candidates = 2;
	return 0;
}

void sl_explanation_done(struct sl_explanation *x)
{
	free(x->candidates);
	x->candidates = NULL;
}

#endif
