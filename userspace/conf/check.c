/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "conf/build.h"

#include <errno.h>
#include <string.h>

/* ---- targets ---- */

static int compare_targets(const void *a, const void *b)
{
	const struct sl_conf_target *x = *(const struct sl_conf_target *const *)a;
	const struct sl_conf_target *y = *(const struct sl_conf_target *const *)b;
	int c = strcmp(x->address, y->address);

	return c ? c : (x > y) - (x < y);
}

static int check_targets(struct sl_build *b, const struct sl_conf_route *route)
{
	_cleanup_free_ const struct sl_conf_target **sorted = NULL;
	char address[SL_QUOTE_LEN], place[SL_PLACE_LEN];
	size_t n = 0;

	if (route->n_targets < 2)
		return 0;
	sorted = calloc(route->n_targets, sizeof(struct sl_conf_target *));
	if (!sorted)
		return -ENOMEM;
	for (size_t i = 0; i < route->n_targets; i++)
		if (route->targets[i].address)
			sorted[n++] = &route->targets[i];
	if (n > 1)
		qsort(sorted, n, sizeof(struct sl_conf_target *), compare_targets);
	for (size_t i = 1; i < n; i++) {
		if (strcmp(sorted[i - 1]->address, sorted[i]->address) != 0)
			continue;
		sl_report_error(&b->report, sorted[i]->mark, NULL,
				"the target %s is already in this route, at %s",
				sl_quote(sorted[i]->address, address),
				sl_report_place(&b->report, sorted[i - 1]->mark, place));
	}
	return 0;
}

/* Routes whose connections could only be refused, or that would always use what is kept back. */
static void check_shares(struct sl_build *b, const struct sl_conf_route *route)
{
	uint64_t share = 0, reserve = 0;
	size_t n_backups = 0;

	for (size_t i = 0; i < route->n_targets; i++) {
		const struct sl_conf_target *t = &route->targets[i];

		*(t->backup ? &reserve : &share) += t->weight;
		n_backups += t->backup;
	}
	if (route->n_targets == 0 || share)
		return;
	sl_report_warning(&b->report, route->targets[0].mark, NULL, "%s: %s",
			  n_backups == route->n_targets ? "every target of this route is a backup"
			  : n_backups ? "every target but the backups has the weight 0"
				      : "every target of this route has the weight 0",
			  reserve ? "the backups get all connections"
				  : "no connection will get through");
}

/* ---- the daemon as a whole ---- */

static void check_overload(struct sl_build *b)
{
	const struct sl_conf_global *g = &b->conf->global;

	if (g->resume_below_percent > g->refuse_above_percent)
		sl_report_error(
			&b->report, b->overload_at, NULL,
			"global.overload.resume_below (%u%%) must not be above refuse_above "
			"(%u%%)",
			g->resume_below_percent, g->refuse_above_percent);
}

/* Whether listening on both would fail or take the other's connections. */
static bool is_same_socket(const struct sl_addr *http, const struct sl_port_spec *p)
{
	if (sl_addr_port(http) < p->from || sl_addr_port(http) > p->to)
		return false;
	if (sl_addr_family(&p->ip) == AF_UNSPEC)
		return true;
	return sl_addr_family(&p->ip) == sl_addr_family(http) &&
	       (sl_addr_is_any(&p->ip) || sl_addr_is_any(http) || sl_addr_same_ip(&p->ip, http));
}

static void check_http(struct sl_build *b)
{
	const struct sl_conf_global *g = &b->conf->global;
	char place[SL_PLACE_LEN], addr[SL_ADDR_TEXT];

	for (size_t i = 0; g->http_enabled && i < b->conf->n_routes; i++) {
		const struct sl_conf_route *r = &b->conf->routes[i];

		for (size_t j = 0; r->enabled && !r->is_udp && j < r->n_ports; j++) {
			if (!is_same_socket(&g->http, &r->ports[j]))
				continue;
			if (g->http_is_explicit)
				sl_report_error(&b->report, r->ports[j].mark, NULL,
						"this port is taken by global.http (at %s)",
						sl_report_place(&b->report, b->http_at, place));
			else
				sl_report_warning(
					&b->report, r->ports[j].mark, NULL,
					"this port is the default of global.http (%s), which "
					"will not be served: set global.http to another address "
					"or to none",
					sl_addr_format(&g->http, addr));
			return;
		}
	}
}

static void check_any_route(struct sl_build *b)
{
	struct sl_mark start = { .source = 0, .line = 1, .column = 1 };

	for (size_t i = 0; i < b->conf->n_routes; i++)
		if (b->conf->routes[i].enabled)
			return;
	if (b->report.n_errors == 0)
		sl_report_warning(&b->report, start, NULL, "%s: nothing will be forwarded",
				  b->conf->n_routes ? "every route is disabled"
						    : "there is no route");
}

int sl_conf_check(struct sl_build *b)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < b->conf->n_routes; i++)
		r = check_targets(b, &b->conf->routes[i]);
	/* with errors elsewhere, what routes match is not known completely */
	for (size_t i = 0; b->report.n_errors == 0 && i < b->conf->n_routes; i++)
		check_shares(b, &b->conf->routes[i]);
	if (r == 0 && b->report.n_errors == 0)
		r = sl_conf_check_reachable(b);
	if (r == 0)
		r = sl_conf_check_nftables(b);
	check_overload(b);
	check_http(b);
	sl_conf_check_packet(b);
	check_any_route(b);
	return r;
}
