/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "broker/nat_plan.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/memfd.h"
#include "broker/nft_routes.h"
#include "core/ip_set.h"

#define MAGIC UINT64_C(0x3374616e00006c73)
#define PLAN_MAX (1u << 30)
#define NAME_SIZE 72
#define TARGET_NAME_SIZE 160
#define WEIGHT_MAX 1000

/* Followed by the arrays in this order; both processes are of one host. */
struct packed {
	uint64_t magic;
	uint32_t mark_base;
	uint32_t keep_on_exit;
	uint32_t is_draining;
	uint32_t n_routes;
	uint32_t n_listeners;
	uint32_t n_targets;
	uint32_t n_sets;
	uint32_t n4; /* ranges of all sets */
	uint32_t n6;
	uint32_t n_devices;
	uint32_t allow; /* for all routes; index of the set plus 1; 0: none */
	uint32_t deny;
	struct sl_nft_ports masquerade;
	char table[SL_NAT_TABLE];
};

struct packed_route {
	char name[NAME_SIZE];
	uint32_t protocols;
	uint32_t n_listeners; /* the next ones of the array */
	uint32_t n_targets;
	uint32_t balance;
	uint32_t masquerade;
	uint32_t allow; /* as above */
	uint32_t deny;
	uint32_t max_connections;
	uint32_t max_per_client;
	struct sl_nft_rate connections;
	struct sl_nft_rate per_client;
	struct sl_nft_rate packets;
	uint32_t refusal;
};

struct packed_target {
	struct sl_addr addr;
	uint32_t weight;
	uint32_t is_backup;
	char name[TARGET_NAME_SIZE];
};

struct packed_set {
	uint32_t n4; /* the next ones of the array */
	uint32_t n6;
};

/* They are used where they lie, one behind the other. */
_Static_assert(sizeof(struct packed) % 4 == 0 && sizeof(struct packed_route) % 4 == 0 &&
		       sizeof(struct sl_nft_listener) % 4 == 0 &&
		       sizeof(struct packed_target) % 4 == 0 &&
		       _Alignof(struct sl_nft_listener) <= 4 &&
		       _Alignof(struct packed_target) <= 4 && _Alignof(struct sl_ip4_range) <= 4,
	       "each array is aligned behind the one before");

/* Where the arrays are in `bytes`. */
struct arrays {
	struct packed_route *routes;
	struct sl_nft_listener *listeners;
	struct packed_target *targets;
	struct packed_set *sets;
	struct sl_ip4_range *v4;
	struct sl_ip6_range *v6;
	char (*devices)[SL_NFT_DEVICE];
};

/* sl_nat_plan.memory */
struct store {
	char *bytes; /* as they came: names, listeners, ranges */
	struct sl_nft_target *targets;
	struct sl_ip_set *sets;
};

static uint64_t size_of(const struct packed *h)
{
	return sizeof(*h) + h->n_routes * (uint64_t)sizeof(struct packed_route) +
	       h->n_listeners * (uint64_t)sizeof(struct sl_nft_listener) +
	       h->n_targets * (uint64_t)sizeof(struct packed_target) +
	       h->n_sets * (uint64_t)sizeof(struct packed_set) +
	       h->n4 * (uint64_t)sizeof(struct sl_ip4_range) +
	       h->n6 * (uint64_t)sizeof(struct sl_ip6_range) +
	       h->n_devices * (uint64_t)SL_NFT_DEVICE;
}

static struct arrays find_arrays(const struct packed *h, char *bytes)
{
	struct arrays a;

	a.routes = (void *)(bytes + sizeof(*h));
	a.listeners = (void *)(a.routes + h->n_routes);
	a.targets = (void *)(a.listeners + h->n_listeners);
	a.sets = (void *)(a.targets + h->n_targets);
	a.v4 = (void *)(a.sets + h->n_sets);
	a.v6 = (void *)(a.v4 + h->n4);
	a.devices = (void *)(a.v6 + h->n6);
	return a;
}

void sl_nat_plan_free(struct sl_nat_plan *p)
{
	struct store *store;

	if (!p)
		return;
	store = p->memory;
	if (store) {
		free(store->bytes);
		free(store->targets);
		free(store->sets);
	}
	free(store);
	free(p->routes);
	free(p->is_backup);
	free(p);
}

/* ---- packing ---- */

struct packer {
	const struct sl_conf_nftables *conf;
	const struct sl_nft_routes *routes;
	const struct sl_ip_set **sets; /* each once, however many routes share it */
	struct packed head;
};

static int copy_text(const char *from, char *to, size_t size)
{
	size_t n = strlen(from);

	if (n >= size)
		return -ENAMETOOLONG;
	memcpy(to, from, n + 1);
	return 0;
}

/* The fields alone: nothing of this process's memory travels between them. */
static struct sl_addr clean_addr(const struct sl_addr *from)
{
	struct sl_addr a = { .v6 = { 0 } };

	if (sl_addr_family(from) == AF_INET) {
		a.v4.sin_family = AF_INET;
		a.v4.sin_addr = from->v4.sin_addr;
	} else if (sl_addr_family(from) == AF_INET6) {
		a.v6.sin6_family = AF_INET6;
		a.v6.sin6_addr = from->v6.sin6_addr;
	}
	if (sl_addr_family(from) != AF_UNSPEC)
		sl_addr_set_port(&a, sl_addr_port(from));
	return a;
}

/* A list that was not written in the route has the memory of the one in `defaults`. */
static bool is_same_list(const struct sl_ip_set *a, const struct sl_ip_set *b)
{
	return a->v4 == b->v4 && a->v6 == b->v6;
}

/* Index plus 1; 0: no set. Those of `defaults` are shared, so the last ones are looked at first. */
static uint32_t index_of(struct packer *p, const struct sl_ip_set *set)
{
	if (!set)
		return 0;
	for (uint32_t i = p->head.n_sets; i > 0; i--)
		if (is_same_list(p->sets[i - 1], set))
			return i;
	p->sets[p->head.n_sets++] = set;
	return p->head.n_sets;
}

static int collect_sets(struct packer *p)
{
	const struct sl_nft_routes *r = p->routes;
	uint64_t n4 = 0, n6 = 0;

	p->sets = calloc(2 * r->n + 2, sizeof(*p->sets));
	if (!p->sets)
		return -ENOMEM;
	p->head.allow = index_of(p, r->common.lists.allow);
	p->head.deny = index_of(p, r->common.lists.deny);
	for (size_t i = 0; i < r->n; i++) {
		(void)index_of(p, r->item[i].allow);
		(void)index_of(p, r->item[i].deny);
	}
	for (uint32_t i = 0; i < p->head.n_sets; i++) {
		n4 += p->sets[i]->n4;
		n6 += p->sets[i]->n6;
	}
	if (n4 > PLAN_MAX || n6 > PLAN_MAX)
		return -EFBIG;
	p->head.n4 = (uint32_t)n4;
	p->head.n6 = (uint32_t)n6;
	return 0;
}

static int put_route(struct packer *p, const struct sl_nft_route *r, struct packed_route *to)
{
	*to = (struct packed_route){
		.protocols = r->protocols,
		.n_listeners = (uint32_t)r->n_listeners,
		.n_targets = (uint32_t)r->n_targets,
		.balance = r->balance,
		.masquerade = r->masquerade,
		.allow = index_of(p, r->allow),
		.deny = index_of(p, r->deny),
		.max_connections = r->max_connections,
		.max_per_client = r->max_per_client,
		.connections = r->connections,
		.per_client = r->per_client,
		.packets = r->packets,
		.refusal = r->refusal,
	};
	return copy_text(r->name, to->name, sizeof(to->name));
}

static int put_routes(struct packer *p, struct arrays *a)
{
	const struct sl_nft_routes *r = p->routes;
	int res = 0;

	for (size_t i = 0; res == 0 && i < r->n; i++)
		res = put_route(p, &r->item[i], &a->routes[i]);
	for (size_t i = 0; i < r->n_listeners; i++) {
		a->listeners[i].ip = clean_addr(&r->listeners[i].ip);
		a->listeners[i].from = r->listeners[i].from;
		a->listeners[i].to = r->listeners[i].to;
	}
	for (size_t i = 0; res == 0 && i < r->n_targets; i++) {
		a->targets[i].addr = clean_addr(&r->targets[i].addr);
		a->targets[i].weight = r->targets[i].weight;
		a->targets[i].is_backup = r->is_backup[i];
		res = copy_text(r->targets[i].name, a->targets[i].name, TARGET_NAME_SIZE);
	}
	return res;
}

static void put_sets(const struct packer *p, struct arrays *a)
{
	struct sl_ip4_range *v4 = a->v4;
	struct sl_ip6_range *v6 = a->v6;

	for (uint32_t i = 0; i < p->head.n_sets; i++) {
		const struct sl_ip_set *set = p->sets[i];

		a->sets[i] = (struct packed_set){ (uint32_t)set->n4, (uint32_t)set->n6 };
		if (set->n4)
			memcpy(v4, set->v4, set->n4 * sizeof(*v4));
		if (set->n6)
			memcpy(v6, set->v6, set->n6 * sizeof(*v6));
		v4 += set->n4;
		v6 += set->n6;
	}
}

static int pack(struct packer *p, int *ret_fd)
{
	_cleanup_free_ char *bytes = NULL;
	struct arrays a;
	int r = collect_sets(p);

	if (r < 0)
		return r;
	if (size_of(&p->head) > PLAN_MAX)
		return -EFBIG;
	bytes = calloc(1, size_of(&p->head));
	if (!bytes)
		return -ENOMEM;
	memcpy(bytes, &p->head, sizeof(p->head));
	a = find_arrays(&p->head, bytes);
	r = put_routes(p, &a);
	if (r < 0)
		return r;
	put_sets(p, &a);
	for (size_t i = 0; r == 0 && i < p->head.n_devices; i++)
		r = copy_text(p->conf->flow_offload[i], a.devices[i], SL_NFT_DEVICE);
	if (r < 0)
		return r;
	return sl_memfd_new("sluice-nat", bytes, size_of(&p->head), ret_fd);
}

int sl_nat_plan_pack(const struct sl_conf *conf, const struct sl_ip_set *deny_file,
		     bool is_draining, int *ret_fd, struct sl_str *why)
{
	_cleanup_(sl_nft_routes_done) struct sl_nft_routes routes = { 0 };
	struct packer p = { .conf = &conf->global.nftables, .routes = &routes };
	int r = sl_nft_routes_make(conf, deny_file, &routes, why);

	if (r < 0)
		return r;
	p.head = (struct packed){
		.magic = MAGIC,
		.mark_base = conf->global.nftables.mark_base,
		.keep_on_exit = conf->global.nftables.keep_on_exit,
		.is_draining = is_draining,
		.n_routes = (uint32_t)routes.n,
		.n_listeners = (uint32_t)routes.n_listeners,
		.n_targets = (uint32_t)routes.n_targets,
		.n_devices = (uint32_t)conf->global.nftables.n_flow_offload,
		.masquerade = routes.common.masquerade,
	};
	r = copy_text(conf->global.nft_table, p.head.table, sizeof(p.head.table));
	if (r == 0)
		r = pack(&p, ret_fd);
	free(p.sets);
	return r;
}

bool sl_nat_plan_has_routes(const struct sl_conf *conf)
{
	for (size_t i = 0; i < conf->n_routes; i++)
		if (sl_nft_is_carried(&conf->routes[i]))
			return true;
	return false;
}

/* ---- unpacking ---- */

static bool is_text(const char *text, size_t size)
{
	return text[0] && memchr(text, '\0', size);
}

/* A whole range, or none. */
static bool is_ports(const struct sl_nft_ports *p)
{
	return p->from <= p->to && (p->from > 0 || p->to == 0);
}

static bool is_head(const struct packed *h)
{
	return h->magic == MAGIC && h->keep_on_exit <= 1 && h->is_draining <= 1 &&
	       h->mark_base <= SL_MARK_BASE_MAX && h->allow <= h->n_sets && h->deny <= h->n_sets &&
	       is_ports(&h->masquerade) && is_text(h->table, sizeof(h->table)) &&
	       !strchr(h->table, '/');
}

static bool is_rate(const struct sl_nft_rate *r)
{
	/* the kernel takes a burst of 0 for another */
	return r->rate == 0 ||
	       (r->burst > 0 && (r->seconds == 1 || r->seconds == 60 || r->seconds == 3600));
}

static bool is_route(const struct packed_route *r, uint32_t n_sets)
{
	return is_text(r->name, sizeof(r->name)) && strlen(r->name) <= SL_NFT_ROUTE_NAME &&
	       r->protocols >= 1 && r->protocols <= (SL_NFT_TCP | SL_NFT_UDP) &&
	       r->balance <= SL_BALANCE_MAGLEV && r->masquerade <= 1 && r->allow <= n_sets &&
	       r->deny <= n_sets && is_rate(&r->connections) && is_rate(&r->per_client) &&
	       is_rate(&r->packets) && r->refusal <= SL_NFT_REFUSE_DROP &&
	       r->n_targets <= SL_TARGETS_MAX;
}

static bool is_listener(const struct sl_nft_listener *l)
{
	sa_family_t family = sl_addr_family(&l->ip);

	return l->from >= 1 && l->from <= l->to && sl_addr_port(&l->ip) == 0 &&
	       (family == AF_UNSPEC || family == AF_INET || family == AF_INET6);
}

static bool is_target(const struct packed_target *t)
{
	sa_family_t family = sl_addr_family(&t->addr);

	return (family == AF_INET || family == AF_INET6) && !sl_addr_is_any(&t->addr) &&
	       t->weight <= WEIGHT_MAX && t->is_backup <= 1 && is_text(t->name, sizeof(t->name));
}

static bool is_built(const struct sl_ip_set *set)
{
	for (size_t i = 0; i < set->n4; i++)
		if (set->v4[i].from > set->v4[i].to ||
		    (i > 0 && set->v4[i].from <= set->v4[i - 1].to))
			return false;
	for (size_t i = 0; i < set->n6; i++)
		if (memcmp(set->v6[i].from, set->v6[i].to, 16) > 0 ||
		    (i > 0 && memcmp(set->v6[i].from, set->v6[i - 1].to, 16) <= 0))
			return false;
	return true;
}

static bool take_sets(const struct packed *h, const struct arrays *a, struct sl_ip_set *sets)
{
	uint32_t at4 = 0, at6 = 0;

	for (uint32_t i = 0; i < h->n_sets; i++) {
		const struct packed_set *s = &a->sets[i];

		if (s->n4 > h->n4 - at4 || s->n6 > h->n6 - at6)
			return false;
		sets[i].v4 = a->v4 + at4;
		sets[i].n4 = s->n4;
		sets[i].v6 = a->v6 + at6;
		sets[i].n6 = s->n6;
		if (!is_built(&sets[i]))
			return false;
		at4 += s->n4;
		at6 += s->n6;
	}
	return at4 == h->n4 && at6 == h->n6;
}

static bool take_targets(const struct packed *h, const struct arrays *a, struct sl_nat_plan *p,
			 struct sl_nft_target *to)
{
	for (uint32_t i = 0; i < h->n_targets; i++) {
		const struct packed_target *t = &a->targets[i];

		if (!is_target(t))
			return false;
		to[i] = (struct sl_nft_target){ .name = t->name,
						.addr = t->addr,
						.weight = t->weight };
		p->is_backup[i] = t->is_backup;
	}
	p->n_targets = h->n_targets;
	return true;
}

/* `index` of the set plus 1 */
static const struct sl_ip_set *set_of(const struct store *store, uint32_t index)
{
	return index ? &store->sets[index - 1] : NULL;
}

static void take_route(const struct packed_route *r, const struct store *store,
		       struct sl_nft_route *to)
{
	*to = (struct sl_nft_route){
		.name = r->name,
		.protocols = r->protocols,
		.n_listeners = r->n_listeners,
		.n_targets = r->n_targets,
		.balance = (enum sl_balance)r->balance,
		.masquerade = r->masquerade,
		.allow = set_of(store, r->allow),
		.deny = set_of(store, r->deny),
		.max_connections = r->max_connections,
		.max_per_client = r->max_per_client,
		.connections = r->connections,
		.per_client = r->per_client,
		.packets = r->packets,
		.refusal = (enum sl_nft_refusal)r->refusal,
	};
}

static bool take_routes(const struct packed *h, const struct arrays *a, struct sl_nat_plan *p)
{
	const struct store *store = p->memory;
	uint32_t listener = 0, target = 0;

	for (uint32_t i = 0; i < h->n_routes; i++) {
		const struct packed_route *r = &a->routes[i];

		if (!is_route(r, h->n_sets) || r->n_listeners > h->n_listeners - listener ||
		    r->n_targets > h->n_targets - target)
			return false;
		take_route(r, store, &p->routes[i]);
		p->routes[i].listeners = a->listeners + listener;
		p->routes[i].targets = store->targets + target;
		listener += r->n_listeners;
		target += r->n_targets;
	}
	for (uint32_t i = 0; i < h->n_listeners; i++)
		if (!is_listener(&a->listeners[i]))
			return false;
	p->n_routes = h->n_routes;
	return listener == h->n_listeners && target == h->n_targets;
}

static int by_name(const void *a, const void *b)
{
	const char *const *x = a, *const *y = b;

	return strcmp(*x, *y);
}

/* A name is what tells routes apart over time. */
static int check_names(const struct sl_nat_plan *p)
{
	_cleanup_free_ const char **names = calloc(p->n_routes + 1, sizeof(*names));

	if (!names)
		return -ENOMEM;
	for (size_t i = 0; i < p->n_routes; i++)
		names[i] = p->routes[i].name;
	qsort(names, p->n_routes, sizeof(*names), by_name);
	for (size_t i = 1; i < p->n_routes; i++)
		if (strcmp(names[i - 1], names[i]) == 0)
			return -EBADMSG;
	return 0;
}

static int allocate(const struct packed *h, struct sl_nat_plan *p)
{
	struct store *store = calloc(1, sizeof(*store));

	p->memory = store;
	p->routes = calloc((size_t)h->n_routes + 1, sizeof(*p->routes));
	p->is_backup = calloc((size_t)h->n_targets + 1, sizeof(*p->is_backup));
	if (!store || !p->routes || !p->is_backup)
		return -ENOMEM;
	store->targets = calloc((size_t)h->n_targets + 1, sizeof(*store->targets));
	store->sets = calloc((size_t)h->n_sets + 1, sizeof(*store->sets));
	return store->targets && store->sets ? 0 : -ENOMEM;
}

static bool take_devices(const struct packed *h, const struct arrays *a)
{
	for (uint32_t i = 0; i < h->n_devices; i++)
		if (!is_text(a->devices[i], SL_NFT_DEVICE))
			return false;
	return h->n_devices <= SL_NFT_DEVICES;
}

/* `store->bytes` are as long as the head says. */
static int unpack(const struct packed *h, struct sl_nat_plan *p)
{
	struct store *store = p->memory;
	struct arrays a = find_arrays(h, store->bytes);

	memcpy(p->table, h->table, sizeof(p->table));
	p->mark_base = h->mark_base;
	p->keep_on_exit = h->keep_on_exit;
	p->is_draining = h->is_draining;
	p->common.masquerade = h->masquerade;
	p->common.lists.allow = set_of(store, h->allow);
	p->common.lists.deny = set_of(store, h->deny);
	if (!take_sets(h, &a, store->sets) || !take_targets(h, &a, p, store->targets) ||
	    !take_routes(h, &a, p))
		return -EBADMSG;
	if (!take_devices(h, &a))
		return -EBADMSG;
	p->devices = a.devices;
	p->n_devices = h->n_devices;
	return check_names(p);
}

int sl_nat_plan_unpack(int fd, struct sl_nat_plan **ret)
{
	_cleanup_(sl_nat_plan_freep) struct sl_nat_plan *p = NULL;
	_cleanup_free_ char *bytes = NULL;
	struct packed head;
	size_t n;
	int r = sl_memfd_read(fd, PLAN_MAX, &bytes, &n);

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
	r = allocate(&head, p);
	if (r < 0)
		return r;
	((struct store *)p->memory)->bytes = SL_TAKE_PTR(bytes);
	r = unpack(&head, p);
	if (r < 0)
		return r;
	*ret = SL_TAKE_PTR(p);
	return 0;
}
