/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "broker/policy.h"

#include <errno.h>
#include <string.h>

#include "base/memfd.h"

#define MAGIC UINT64_C(0x31796c6f70006c73)
#define POLICY_MAX (256u << 20)

/* Followed by the arrays in this order; both processes are of one host. */
struct packed {
	uint64_t magic;
	uint64_t generation;
	uint32_t is_off;
	uint32_t wants_xdp;
	uint32_t wants_sockmap;
	uint32_t sockmap_limit;
	uint32_t port_from;
	uint32_t port_to;
	uint32_t max_flows;
	uint32_t n_listens;
	uint32_t n_routes;
	uint32_t n_targets;
	uint32_t n_interfaces;
	uint32_t pad;
	char bpf_dir[SL_BPF_DIR];
};
_Static_assert(sizeof(((struct sl_policy *)NULL)->bpf_dir) == SL_BPF_DIR, "one size");
_Static_assert(sizeof(*((struct sl_policy *)NULL)->interfaces) == SL_INTERFACE_NAME, "one size");

void sl_policy_free(struct sl_policy *p)
{
	if (!p)
		return;
	free(p->listens);
	free(p->routes);
	free(p->targets);
	free(p->interfaces);
	free(p);
}
SL_DEFINE_CLEANUP(struct sl_policy, sl_policy_free);

/* ---- packing ---- */

static int copy_name(const char *from, char *to, size_t size)
{
	size_t n = strlen(from);

	if (n >= size)
		return -ENAMETOOLONG;
	memcpy(to, from, n + 1);
	return 0;
}

static void add_targets(struct sl_policy *p, const struct sl_conf_route *r)
{
	for (size_t i = 0; i < r->n_targets; i++) {
		struct sl_policy_target *t = &p->targets[p->n_targets++];

		t->ip = r->targets[i].addr;
		sl_addr_set_port(&t->ip, 0);
		t->port = r->targets[i].port;
	}
}

static int add_route(struct sl_policy *p, const struct sl_conf_global *g,
		     const struct sl_conf_route *r)
{
	struct sl_policy_route *out = &p->routes[p->n_routes++];

	out->first_target = p->n_targets;
	out->n_targets = (uint32_t)r->n_targets;
	out->min_port = r->ports[0].from;
	out->may_packet = r->enabled && sl_conf_may_packet(g, r);
	out->may_sockmap = r->enabled && sl_conf_may_sockmap(r);
	p->wants_sockmap |= out->may_sockmap;
	for (size_t i = 0; i < r->n_ports; i++) {
		if (r->ports[i].from < out->min_port)
			out->min_port = r->ports[i].from;
		if (r->ports[i].to > out->max_port)
			out->max_port = r->ports[i].to;
	}
	add_targets(p, r);
	return copy_name(r->name, out->name, sizeof(out->name));
}

static int add_interfaces(struct sl_policy *p, const struct sl_conf_packet *conf)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < conf->n_interfaces; i++)
		r = copy_name(conf->interfaces[i], p->interfaces[p->n_interfaces++],
			      SL_INTERFACE_NAME);
	return r;
}

/* Zeroed, so that nothing of this process's memory travels between the fields. */
static int allocate(struct sl_policy *p, size_t listens, size_t routes, size_t targets,
		    size_t interfaces)
{
	p->listens = calloc(listens + 1, sizeof(*p->listens));
	p->routes = calloc(routes + 1, sizeof(*p->routes));
	p->targets = calloc(targets + 1, sizeof(*p->targets));
	p->interfaces = calloc(interfaces + 1, sizeof(*p->interfaces));
	return p->listens && p->routes && p->targets && p->interfaces ? 0 : -ENOMEM;
}

static int make(const struct sl_conf *conf, uint64_t generation, struct sl_policy *p)
{
	const struct sl_conf_packet *packet = &conf->global.packet;
	size_t n_targets = 0;
	int r;

	for (size_t i = 0; i < conf->n_routes; i++)
		n_targets += conf->routes[i].n_targets;
	r = allocate(p, conf->n_listens, conf->n_routes, n_targets, packet->n_interfaces);
	if (r < 0)
		return r;
	p->generation = generation;
	p->is_off = packet->hook == SL_HOOK_CHOICE_OFF;
	p->wants_xdp = packet->hook == SL_HOOK_CHOICE_XDP;
	p->port_from = packet->port_from;
	p->port_to = packet->port_to;
	p->max_flows = packet->max_flows;
	p->sockmap_limit = (uint32_t)conf->global.sockmap.backlog;
	for (size_t i = 0; i < conf->n_listens; i++) {
		struct sl_policy_listen *l = &p->listens[p->n_listens++];

		l->ip = conf->listens[i].ip;
		l->from = conf->listens[i].from;
		l->to = conf->listens[i].to;
	}
	for (size_t i = 0; r == 0 && i < conf->n_routes; i++)
		r = add_route(p, &conf->global, &conf->routes[i]);
	if (r == 0)
		r = add_interfaces(p, packet);
	if (r == 0)
		r = copy_name(conf->global.bpf_dir, p->bpf_dir, sizeof(p->bpf_dir));
	return r;
}

static char *put(char *to, const void *from, size_t n)
{
	memcpy(to, from, n);
	return to + n;
}

static uint64_t size_of(const struct packed *h)
{
	return sizeof(*h) + h->n_listens * (uint64_t)sizeof(struct sl_policy_listen) +
	       h->n_routes * (uint64_t)sizeof(struct sl_policy_route) +
	       h->n_targets * (uint64_t)sizeof(struct sl_policy_target) +
	       h->n_interfaces * (uint64_t)SL_INTERFACE_NAME;
}

static int pack(const struct sl_policy *p, int *ret_fd)
{
	struct packed head = {
		.magic = MAGIC,
		.generation = p->generation,
		.is_off = p->is_off,
		.wants_xdp = p->wants_xdp,
		.wants_sockmap = p->wants_sockmap,
		.sockmap_limit = p->sockmap_limit,
		.port_from = p->port_from,
		.port_to = p->port_to,
		.max_flows = p->max_flows,
		.n_listens = p->n_listens,
		.n_routes = p->n_routes,
		.n_targets = p->n_targets,
		.n_interfaces = p->n_interfaces,
	};
	_cleanup_free_ char *bytes = NULL;
	char *at;

	memcpy(head.bpf_dir, p->bpf_dir, sizeof(head.bpf_dir));
	if (size_of(&head) > POLICY_MAX)
		return -EFBIG;
	bytes = malloc(size_of(&head));
	if (!bytes)
		return -ENOMEM;
	at = put(bytes, &head, sizeof(head));
	at = put(at, p->listens, p->n_listens * sizeof(*p->listens));
	at = put(at, p->routes, p->n_routes * sizeof(*p->routes));
	at = put(at, p->targets, p->n_targets * sizeof(*p->targets));
	at = put(at, p->interfaces, p->n_interfaces * sizeof(*p->interfaces));
	return sl_memfd_new("sluice-policy", bytes, (size_t)(at - bytes), ret_fd);
}

int sl_policy_pack(const struct sl_conf *conf, uint64_t generation, int *ret_fd)
{
	_cleanup_(sl_policy_freep) struct sl_policy *p = calloc(1, sizeof(*p));
	int r;

	if (!p)
		return -ENOMEM;
	r = make(conf, generation, p);
	return r < 0 ? r : pack(p, ret_fd);
}

/* ---- unpacking ---- */

static bool is_range(uint32_t from, uint32_t to)
{
	return from >= 1 && from <= to && to <= UINT16_MAX;
}

static bool is_text(const char *text, size_t size)
{
	return text[0] && memchr(text, '\0', size);
}

static bool is_ip_or_none(const struct sl_addr *a)
{
	return sl_addr_family(a) == AF_UNSPEC || sl_addr_family(a) == AF_INET ||
	       sl_addr_family(a) == AF_INET6;
}

/* A bool that is neither 0 nor 1 must not even be looked at as one. */
static bool is_bool(const bool *b)
{
	uint8_t byte;

	memcpy(&byte, b, sizeof(byte));
	return byte <= 1;
}

static bool is_head(const struct packed *h)
{
	return h->magic == MAGIC && h->is_off <= 1 && h->wants_xdp <= 1 && h->wants_sockmap <= 1 &&
	       h->sockmap_limit > 0 && is_range(h->port_from, h->port_to) && h->max_flows >= 1 &&
	       h->bpf_dir[0] == '/' && is_text(h->bpf_dir, sizeof(h->bpf_dir));
}

static bool is_route(const struct sl_policy_route *r, uint32_t n_targets)
{
	return is_text(r->name, sizeof(r->name)) && is_range(r->min_port, r->max_port) &&
	       is_bool(&r->may_packet) && is_bool(&r->may_sockmap) &&
	       r->first_target <= n_targets && r->n_targets <= n_targets - r->first_target;
}

static bool is_good(const struct sl_policy *p)
{
	bool good = true;

	for (uint32_t i = 0; good && i < p->n_listens; i++)
		good = is_ip_or_none(&p->listens[i].ip) &&
		       is_range(p->listens[i].from, p->listens[i].to);
	for (uint32_t i = 0; good && i < p->n_routes; i++)
		good = is_route(&p->routes[i], p->n_targets);
	for (uint32_t i = 0; good && i < p->n_targets; i++)
		good = is_ip_or_none(&p->targets[i].ip);
	for (uint32_t i = 0; good && i < p->n_interfaces; i++)
		good = is_text(p->interfaces[i], SL_INTERFACE_NAME) &&
		       !strchr(p->interfaces[i], '/');
	return good;
}

static const char *take(void *to, const char *from, size_t n)
{
	memcpy(to, from, n);
	return from + n;
}

static int unpack(const struct packed *h, const char *arrays, struct sl_policy *p)
{
	int r = allocate(p, h->n_listens, h->n_routes, h->n_targets, h->n_interfaces);

	if (r < 0)
		return r;
	p->generation = h->generation;
	p->is_off = h->is_off;
	p->wants_xdp = h->wants_xdp;
	p->wants_sockmap = h->wants_sockmap;
	p->sockmap_limit = h->sockmap_limit;
	p->port_from = (uint16_t)h->port_from;
	p->port_to = (uint16_t)h->port_to;
	p->max_flows = h->max_flows;
	p->n_listens = h->n_listens;
	p->n_routes = h->n_routes;
	p->n_targets = h->n_targets;
	p->n_interfaces = h->n_interfaces;
	memcpy(p->bpf_dir, h->bpf_dir, sizeof(p->bpf_dir));
	arrays = take(p->listens, arrays, p->n_listens * sizeof(*p->listens));
	arrays = take(p->routes, arrays, p->n_routes * sizeof(*p->routes));
	arrays = take(p->targets, arrays, p->n_targets * sizeof(*p->targets));
	(void)take(p->interfaces, arrays, p->n_interfaces * sizeof(*p->interfaces));
	return is_good(p) ? 0 : -EBADMSG;
}

int sl_policy_unpack(int fd, struct sl_policy **ret)
{
	_cleanup_(sl_policy_freep) struct sl_policy *p = NULL;
	_cleanup_free_ char *bytes = NULL;
	struct packed head;
	size_t n;
	int r = sl_memfd_read(fd, POLICY_MAX, &bytes, &n);

	if (r < 0)
		return r;
	if (n < sizeof(head))
		return -EBADMSG;
	memcpy(&head, bytes, sizeof(head));
	if (!is_head(&head) || size_of(&head) != n)
		return -EBADMSG;
	p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	r = unpack(&head, bytes + sizeof(head), p);
	if (r < 0)
		return r;
	*ret = SL_TAKE_PTR(p);
	return 0;
}

/* ---- what is allowed ---- */

/* An address of one host: a name can stand for any of these. */
static bool is_unicast(const struct sl_addr *a)
{
	if (sl_addr_family(a) == AF_INET) {
		uint32_t ip = ntohl(a->v4.sin_addr.s_addr);

		/* not 0/8 ("this network"), multicast 224/4, reserved and broadcast 240/4 */
		return ip >> 24 >= 1 && ip >> 24 <= 223;
	}
	return sl_addr_family(a) == AF_INET6 && !sl_addr_is_any(a) &&
	       !IN6_IS_ADDR_MULTICAST(&a->v6.sin6_addr) && !IN6_IS_ADDR_V4MAPPED(&a->v6.sin6_addr);
}

static bool is_listened_to(const struct sl_policy *p, const struct sl_addr *front)
{
	uint16_t port = sl_addr_port(front);

	for (uint32_t i = 0; i < p->n_listens; i++) {
		const struct sl_policy_listen *l = &p->listens[i];

		if (port < l->from || port > l->to)
			continue;
		if (sl_addr_family(&l->ip) == AF_UNSPEC || sl_addr_same_ip(&l->ip, front) ||
		    (sl_addr_is_any(&l->ip) && sl_addr_family(&l->ip) == sl_addr_family(front)))
			return true;
	}
	return false;
}

static bool is_target(const struct sl_policy_target *t, const struct sl_addr *front,
		      const struct sl_addr *backend)
{
	if (sl_addr_port(backend) != (t->port ? t->port : sl_addr_port(front)))
		return false;
	return sl_addr_family(&t->ip) == AF_UNSPEC ? is_unicast(backend)
						   : sl_addr_same_ip(&t->ip, backend);
}

static bool may_use(const struct sl_policy *p, uint32_t route, bool to_sockmap)
{
	if (route >= p->n_routes)
		return false;
	return to_sockmap ? p->routes[route].may_sockmap
			  : !p->is_off && p->routes[route].may_packet;
}

bool sl_policy_allows(const struct sl_policy *p, uint32_t route, bool to_sockmap,
		      const struct sl_addr *front, const struct sl_addr *backend)
{
	uint16_t port = sl_addr_port(front);
	const struct sl_policy_route *r;

	if (!may_use(p, route, to_sockmap))
		return false;
	r = &p->routes[route];
	if (port < r->min_port || port > r->max_port || !is_listened_to(p, front))
		return false;
	for (uint32_t i = 0; i < r->n_targets; i++)
		if (is_target(&p->targets[r->first_target + i], front, backend))
			return true;
	return false;
}
