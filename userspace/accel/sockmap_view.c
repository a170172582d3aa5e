/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What a proxy does with the maps of the sockmap engine: needs no privilege, opens no file. */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <sys/mman.h>

#include "accel/rows.h"
#include "accel/sockmap.h"

struct sl_sockmap_view {
	unsigned refs; /* workers are threads */
	uint32_t n_slots;
	uint32_t slots_id; /* of the map */
	const struct sl_sockmap_slot *slots;
	struct sl_sockmap_order *orders;
	int flows_fd;
	int counters_fd;
};

/* What the kernel says of it, because the sender's word would be read past the end. */
static int n_rows(int fd, size_t row_size, uint32_t *ret, uint32_t *ret_id)
{
	struct bpf_map_info info = { 0 };
	uint32_t size = sizeof(info);

	if (bpf_obj_get_info_by_fd(fd, &info, &size) < 0)
		return -errno;
	if (info.type != BPF_MAP_TYPE_ARRAY || info.value_size != row_size ||
	    !(info.map_flags & BPF_F_MMAPABLE))
		return -EINVAL;
	*ret = info.max_entries;
	*ret_id = info.id;
	return 0;
}

static int map_rows(struct sl_sockmap_view *v, int slots_fd, int orders_fd)
{
	uint32_t n_orders = 0;
	uint32_t orders_id;
	void *at;
	int r = n_rows(slots_fd, sizeof(*v->slots), &v->n_slots, &v->slots_id);

	if (r == 0)
		r = n_rows(orders_fd, sizeof(*v->orders), &n_orders, &orders_id);
	if (r < 0 || n_orders != v->n_slots)
		return r < 0 ? r : -EINVAL;
	at = mmap(NULL, v->n_slots * sizeof(*v->slots), PROT_READ, MAP_SHARED, slots_fd, 0);
	if (at == MAP_FAILED)
		return -errno;
	v->slots = at;
	at = mmap(NULL, v->n_slots * sizeof(*v->orders), PROT_READ | PROT_WRITE, MAP_SHARED,
		  orders_fd, 0);
	if (at == MAP_FAILED)
		return -errno;
	v->orders = at;
	return 0;
}

int sl_sockmap_view_new(int slots_fd, int orders_fd, int flows_fd, int counters_fd,
			struct sl_sockmap_view **ret)
{
	_cleanup_fd_ int slots = slots_fd;
	_cleanup_fd_ int orders = orders_fd;
	_cleanup_fd_ int flows = flows_fd;
	_cleanup_fd_ int counters = counters_fd;
	struct sl_sockmap_view *v = calloc(1, sizeof(*v));
	int r;

	if (!v)
		return -ENOMEM;
	v->refs = 1;
	v->flows_fd = SL_TAKE_FD(flows);
	v->counters_fd = SL_TAKE_FD(counters);
	r = map_rows(v, slots, orders);
	if (r < 0) {
		sl_sockmap_view_unref(v);
		return r;
	}
	*ret = v;
	return 0;
}

struct sl_sockmap_view *sl_sockmap_view_ref(struct sl_sockmap_view *v)
{
	(void)__atomic_add_fetch(&v->refs, 1, __ATOMIC_RELAXED);
	return v;
}

void sl_sockmap_view_unref(struct sl_sockmap_view *v)
{
	if (!v || __atomic_sub_fetch(&v->refs, 1, __ATOMIC_ACQ_REL) > 0)
		return;
	if (v->slots)
		(void)munmap((void *)(uintptr_t)v->slots, v->n_slots * sizeof(*v->slots));
	if (v->orders)
		(void)munmap(v->orders, v->n_slots * sizeof(*v->orders));
	sl_closep(&v->flows_fd);
	sl_closep(&v->counters_fd);
	free(v);
}

bool sl_sockmap_view_is_same(const struct sl_sockmap_view *a, const struct sl_sockmap_view *b)
{
	return a->slots_id == b->slots_id;
}

const struct sl_sockmap_slot *sl_sockmap_view_slot(const struct sl_sockmap_view *v, uint32_t slot)
{
	return slot < v->n_slots ? &v->slots[slot] : NULL;
}

struct sl_sockmap_order *sl_sockmap_view_order(const struct sl_sockmap_view *v, uint32_t slot)
{
	return slot < v->n_slots ? &v->orders[slot] : NULL;
}

bool sl_sockmap_view_has(const struct sl_sockmap_view *v, uint64_t cookie)
{
	struct sl_sockmap_flow flow;

	return bpf_map_lookup_elem(v->flows_fd, &cookie, &flow) == 0;
}

int sl_sockmap_view_counts(const struct sl_sockmap_view *v, struct sl_sockmap_counts *ret)
{
	_Static_assert(sizeof(*ret) % sizeof(uint64_t) == 0, "all of it are counters");

	return sl_rows_sum(v->counters_fd, (uint64_t *)ret, sizeof(*ret) / sizeof(uint64_t));
}
