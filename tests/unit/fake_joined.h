/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_TESTS_FAKE_JOINED_H
#define SL_TESTS_FAKE_JOINED_H

#include <bpf/bpf.h>
#include <stdlib.h>

#include "accel/sockmap.h"

/* Maps as the sockmap engine has them, with no program on them: needs root. */
struct fake_joined {
	int slots_fd;
	int flows_fd;
	struct sl_sockmap_view *view;
};

static inline void fake_joined_close(struct fake_joined *m)
{
	sl_closep(&m->slots_fd);
	sl_closep(&m->flows_fd);
	sl_sockmap_view_unref(m->view);
}

static inline bool fake_joined_open(struct fake_joined *m, uint32_t n_pairs)
{
	LIBBPF_OPTS(bpf_map_create_opts, mapped, .map_flags = BPF_F_MMAPABLE);
	int orders_fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, "orders", 4,
				       sizeof(struct sl_sockmap_order), 2 * n_pairs, &mapped);
	int counters_fd = bpf_map_create(BPF_MAP_TYPE_PERCPU_ARRAY, "counters", 4,
					 sizeof(struct sl_sockmap_counts), 1, NULL);

	m->slots_fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, "slots", 4, sizeof(struct sl_sockmap_slot),
				     2 * n_pairs, &mapped);
	m->flows_fd = bpf_map_create(BPF_MAP_TYPE_HASH, "flows", 8, sizeof(struct sl_sockmap_flow),
				     2 * n_pairs, NULL);
	if (sl_sockmap_view_new(dup(m->slots_fd), orders_fd, dup(m->flows_fd), counters_fd,
				&m->view) == 0)
		return true;
	fake_joined_close(m);
	return false;
}

/* What each side has sent, its client's first; their cookies are 2 * conn_id and one more. */
static inline void fake_join(const struct fake_joined *m, uint32_t pair,
			     const struct sl_sockmap_slot slot[2])
{
	for (uint32_t side = 0; side < 2; side++) {
		struct sl_sockmap_slot s = slot[side];
		uint32_t number = 2 * pair + side;

		s.cookie = 2 * s.conn_id + side;
		if (bpf_map_update_elem(m->slots_fd, &number, &s, BPF_ANY) < 0)
			abort();
	}
}

static inline void fake_joined_entry(const struct fake_joined *m, uint64_t conn_id, uint32_t side)
{
	const struct sl_sockmap_flow flow = { .conn_id = conn_id };
	uint64_t cookie = 2 * conn_id + side;

	if (bpf_map_update_elem(m->flows_fd, &cookie, &flow, BPF_ANY) < 0)
		abort();
}

#endif
