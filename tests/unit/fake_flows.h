/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_TESTS_FAKE_FLOWS_H
#define SL_TESTS_FAKE_FLOWS_H

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <stdlib.h>
#include <string.h>

#include "accel/packet.h"
#include "base/addr.h"

/* Maps as the packet engine has them, with no program on them: needs root. */
struct fake_flows {
	int flows_fd;
	int counters_fd;
	int routes_fd;
};

static inline void fake_flows_close(struct fake_flows *m)
{
	sl_closep(&m->flows_fd);
	sl_closep(&m->counters_fd);
	sl_closep(&m->routes_fd);
}

static inline bool fake_flows_open(struct fake_flows *m, uint32_t max)
{
	m->flows_fd = bpf_map_create(BPF_MAP_TYPE_HASH, "flows", sizeof(struct sl_packet_key),
				     sizeof(struct sl_packet_flow), max, NULL);
	m->counters_fd = bpf_map_create(BPF_MAP_TYPE_PERCPU_ARRAY, "counters", 4,
					sizeof(struct sl_packet_counts), 1, NULL);
	m->routes_fd = bpf_map_create(BPF_MAP_TYPE_HASH, "routes", 4,
				      sizeof(struct sl_packet_route), 16, NULL);
	if (m->flows_fd >= 0 && m->counters_fd >= 0 && m->routes_fd >= 0)
		return true;
	fake_flows_close(m);
	return false;
}

static inline struct sl_addr fake_addr(const char *text)
{
	struct sl_addr a;

	if (sl_addr_parse(text, &a) < 0)
		abort();
	return a;
}

static inline void fake_put(const struct fake_flows *m, const struct sl_addr *from,
			    const struct sl_addr *to, const struct sl_packet_flow *f)
{
	struct sl_packet_key key;

	sl_packet_key_of(from, to, &key);
	if (bpf_map_update_elem(m->flows_fd, &key, f, BPF_ANY) < 0)
		abort();
}

struct fake_tuple {
	const char *client;
	const char *front;
	const char *back;
	const char *backend;
};

enum fake_halves {
	FAKE_UP = 1,
	FAKE_DOWN = 2,
	FAKE_BOTH = 3,
};

/* `flow`: of both directions, sides, addresses and what must differ excepted; by sending side. */
static inline void fake_flow(const struct fake_flows *m, const struct fake_tuple *t,
			     enum fake_halves which, const struct sl_packet_flow flow[2])
{
	struct sl_addr client = fake_addr(t->client);
	struct sl_addr front = fake_addr(t->front);
	struct sl_addr back = fake_addr(t->back);
	struct sl_addr backend = fake_addr(t->backend);
	struct sl_packet_flow up = flow[0];
	struct sl_packet_flow down = flow[1];

	up.from = SL_PACKET_CLIENT;
	sl_packet_ip(&back, up.new_saddr);
	sl_packet_ip(&backend, up.new_daddr);
	up.new_sport = sl_addr_port(&back);
	up.new_dport = sl_addr_port(&backend);
	down.from = SL_PACKET_BACKEND;
	sl_packet_ip(&front, down.new_saddr);
	sl_packet_ip(&client, down.new_daddr);
	down.new_sport = sl_addr_port(&front);
	down.new_dport = sl_addr_port(&client);
	if (which & FAKE_UP)
		fake_put(m, &client, &front, &up);
	if (which & FAKE_DOWN)
		fake_put(m, &backend, &back, &down);
}

static inline void fake_route(const struct fake_flows *m, uint32_t id, const char *name)
{
	struct sl_packet_route route = { 0 };

	strcpy(route.name, name);
	if (bpf_map_update_elem(m->routes_fd, &id, &route, BPF_ANY) < 0)
		abort();
}

/* On each CPU. */
static inline void fake_counts(const struct fake_flows *m, const struct sl_packet_counts *counts)
{
	int n = libbpf_num_possible_cpus();
	struct sl_packet_counts *rows = calloc((size_t)n, sizeof(*rows));
	uint32_t zero = 0;

	for (int i = 0; i < n; i++)
		rows[i] = *counts;
	if (bpf_map_update_elem(m->counters_fd, &zero, rows, BPF_ANY) < 0)
		abort();
	free(rows);
}

#endif
