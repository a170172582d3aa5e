/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Names of routes in the kernel, by ids that are given once; found here by the name. */
#include <bpf/bpf.h>
#include <errno.h>
#include <string.h>

#include "accel/packet_impl.h"
#include "base/siphash.h"

#define N_CHAINS 1024

struct name {
	struct name *next;
	uint32_t id;
	struct sl_packet_route route;
};

struct sl_packet_names {
	struct name *chains[N_CHAINS];
};

static struct name **chain_of(struct sl_packet_names *names, const char *name)
{
	static const uint8_t key[16] = "names of routes";

	return &names->chains[sl_siphash(name, strlen(name), key) % N_CHAINS];
}

static int add(struct sl_packet_names *names, uint32_t id, const struct sl_packet_route *route)
{
	struct name *n = calloc(1, sizeof(*n));
	struct name **chain = chain_of(names, route->name);

	if (!n)
		return -ENOMEM;
	*n = (struct name){ *chain, id, *route };
	*chain = n;
	return 0;
}

void sl_packet_free_names(struct sl_packet_names *names)
{
	if (!names)
		return;
	for (size_t i = 0; i < N_CHAINS; i++) {
		while (names->chains[i]) {
			struct name *n = names->chains[i];

			names->chains[i] = n->next;
			free(n);
		}
	}
	free(names);
}
SL_DEFINE_CLEANUP(struct sl_packet_names, sl_packet_free_names);

/* ---- what is there already ---- */

static int compare_ids(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a;
	uint32_t y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

int sl_packet_add_used(struct sl_packet_used *used, uint32_t id)
{
	size_t cap = used->cap ? 2 * used->cap : 256;
	uint32_t *ids;

	if (used->n > 0 && used->ids[used->n - 1] == id)
		return 0;
	if (used->n == used->cap) {
		ids = realloc(used->ids, cap * sizeof(*ids));
		if (!ids)
			return -ENOMEM;
		used->ids = ids;
		used->cap = cap;
	}
	used->ids[used->n++] = id;
	return 0;
}

static int collect(int fd, struct sl_packet_used *ret)
{
	struct bpf_map_info info = { 0 };
	uint32_t size = sizeof(info);
	uint32_t key = 0;
	bool is_first = true;
	int r = 0;

	if (bpf_obj_get_info_by_fd(fd, &info, &size) < 0)
		return -errno;
	while (r == 0 && ret->n < info.max_entries &&
	       bpf_map_get_next_key(fd, is_first ? NULL : &key, &key) == 0) {
		is_first = false;
		r = sl_packet_add_used(ret, key);
	}
	return r;
}

static int load_name(int fd, struct sl_packet_names *names, uint32_t id,
		     const struct sl_packet_used *used)
{
	struct sl_packet_route route = { 0 };

	if (used->n == 0 || !bsearch(&id, used->ids, used->n, sizeof(id), compare_ids)) {
		(void)bpf_map_delete_elem(fd, &id);
		return 0;
	}
	if (sl_packet_route_name(fd, id, route.name) < 0)
		return 0;
	return add(names, id, &route);
}

int sl_packet_load_names(struct sl_packet *p, struct sl_packet_used *used)
{
	_cleanup_(sl_packet_free_namesp) struct sl_packet_names *names = calloc(1, sizeof(*names));
	struct sl_packet_used there = { 0 };
	int fd = p->maps[SL_MAP_ROUTES];
	int r;

	if (!names)
		return -ENOMEM;
	r = collect(fd, &there);
	if (used->n > 0)
		qsort(used->ids, used->n, sizeof(*used->ids), compare_ids);
	for (size_t i = 0; r == 0 && i < there.n; i++)
		r = load_name(fd, names, there.ids[i], used);
	free(there.ids);
	if (r < 0)
		return r;
	sl_packet_free_names(p->names);
	p->names = SL_TAKE_PTR(names);
	return 0;
}

/* ---- new ones ---- */

static int give_id(struct sl_packet *p, const struct sl_packet_route *route, uint32_t *ret)
{
	struct sl_packet_meta meta;
	int r = sl_packet_get_meta(p, &meta);

	if (r < 0)
		return r;
	meta.last_route_id++;
	/* First, so that no id is given twice whatever happens next. */
	r = sl_packet_set_meta(p, &meta);
	if (r < 0)
		return r;
	if (bpf_map_update_elem(p->maps[SL_MAP_ROUTES], &meta.last_route_id, route, BPF_ANY) < 0)
		return -errno;
	r = add(p->names, meta.last_route_id, route);
	if (r < 0) {
		(void)bpf_map_delete_elem(p->maps[SL_MAP_ROUTES], &meta.last_route_id);
		return r;
	}
	*ret = meta.last_route_id;
	return 0;
}

int sl_packet_route_id(struct sl_packet *p, const char *name, uint32_t *ret)
{
	struct sl_packet_route route = { 0 };
	size_t n = strlen(name);

	if (n == 0)
		return -EINVAL;
	if (n >= sizeof(route.name))
		return -ENAMETOOLONG;
	memcpy(route.name, name, n);
	for (const struct name *i = *chain_of(p->names, name); i; i = i->next) {
		if (strcmp(i->route.name, name) != 0)
			continue;
		*ret = i->id;
		return 0;
	}
	return give_id(p, &route, ret);
}
