/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <errno.h>
#include <string.h>

#include "conf/build.h"

/* What global.packet says, and what routes ask of that engine. */

static bool is_usable(const struct sl_node *n)
{
	return n && !n->bad && n->kind == SL_NODE_SCALAR;
}

static bool has(const struct sl_conf_packet *p, const char *interface)
{
	for (size_t i = 0; i < p->n_interfaces; i++)
		if (strcmp(p->interfaces[i], interface) == 0)
			return true;
	return false;
}

static int build_interfaces(struct sl_build *b, const struct sl_node *list)
{
	struct sl_conf_packet *p = &b->conf->global.packet;
	size_t n = sl_node_count(list);

	if (list && !list->bad && list->kind == SL_NODE_LIST && n == 0)
		sl_report_error(&b->report, list->at, NULL,
				"global.packet.interfaces: an empty list; 'auto' means all, and "
				"'hook: off' none");
	if (n == 0 || list->bad)
		return 0;
	p->interfaces = calloc(n, sizeof(*p->interfaces));
	if (!p->interfaces)
		return -ENOMEM;
	for (const struct sl_node *i = sl_node_items(list); i; i = sl_node_next(list, i)) {
		if (!is_usable(i) || has(p, i->text))
			continue;
		if (strcmp(i->text, "auto") == 0) {
			if (list->kind == SL_NODE_LIST)
				sl_report_error(&b->report, i->at, NULL,
						"global.packet.interfaces: 'auto' stands alone, "
						"not in a list of names");
			continue;
		}
		p->interfaces[p->n_interfaces] = strdup(i->text);
		if (!p->interfaces[p->n_interfaces])
			return -ENOMEM;
		p->n_interfaces++;
	}
	return 0;
}

int sl_build_packet(struct sl_build *b, const struct sl_node *node)
{
	const struct sl_key *key = sl_key_at("global", "packet", "ports", NULL);
	struct sl_conf_packet *p = &b->conf->global.packet;
	const struct sl_node *ports = sl_node_find(node, "ports");
	const struct sl_node *hook = sl_node_find(node, "hook");
	struct sl_port_spec spec = { 0 };
	char why[SL_WHY_LEN];
	int r;

	r = sl_ports_parse(is_usable(ports) ? ports->text : key->def, &spec, why);
	if (r < 0)
		return r;
	p->port_from = spec.from;
	p->port_to = spec.to;
	if (ports)
		b->packet_ports_at = ports->at;
	if (hook)
		b->hook_at = hook->at;
	return build_interfaces(b, sl_node_find(node, "interfaces"));
}

void sl_build_check_packet(struct sl_build *b, const struct sl_node *node,
			   const struct sl_path *path)
{
	const struct sl_node *own = sl_node_find(node, "engine");
	const struct sl_node *engine = own ? own : sl_node_find(b->defaults, "engine");
	const struct sl_node *http_path = sl_node_find(sl_node_find(node, "match"), "path");
	char place[SL_PLACE_LEN];
	bool is_packet;

	if (!is_usable(engine))
		return;
	is_packet = strcmp(engine->text, "packet") == 0;
	if (!is_packet && strcmp(engine->text, "sockmap") != 0)
		return;
	if (own && is_packet && b->conf->global.packet.hook == SL_HOOK_CHOICE_OFF)
		sl_report_error(&b->report, own->at, path,
				"'engine: packet' cannot be had with 'hook: off' of global.packet "
				"(at %s)",
				sl_report_place(&b->report, b->hook_at, place));
	if (is_usable(http_path))
		sl_report_error(&b->report, http_path->key_at, path,
				"'match.path' cannot be had with 'engine: %s' (at %s): the "
				"daemon would have to read every request",
				engine->text, sl_report_place(&b->report, engine->at, place));
}

void sl_conf_check_packet(struct sl_build *b)
{
	const struct sl_conf_packet *p = &b->conf->global.packet;
	const char *at = b->packet_ports_at.line ? ", at " : "";
	char place[SL_PLACE_LEN] = "";

	if (p->hook == SL_HOOK_CHOICE_OFF)
		return;
	if (*at)
		(void)sl_report_place(&b->report, b->packet_ports_at, place);
	for (size_t i = 0; i < b->conf->n_routes; i++) {
		const struct sl_conf_route *r = &b->conf->routes[i];

		for (size_t j = 0; r->enabled && j < r->n_ports; j++) {
			if (r->ports[j].to < p->port_from || r->ports[j].from > p->port_to)
				continue;
			sl_report_warning(&b->report, r->ports[j].mark, NULL,
					  "a port of these is in global.packet.ports (%u-%u%s%s), "
					  "from which connections to targets leave: keep the two "
					  "apart",
					  p->port_from, p->port_to, at, place);
			return;
		}
	}
}
