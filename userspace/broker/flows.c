/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "broker/flows.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "accel/packet.h"

#define BATCH 256

struct batch {
	struct sl_packet_key key[BATCH];
	struct sl_packet_flow flow[BATCH];
};

struct slice {
	struct sl_flows_walk *walk;
	int flows_fd;
	int routes_fd;
	uint64_t now_ns;
	void (*fn)(void *arg, const struct sl_flow_row *row);
	void *arg;
};

_Static_assert(sizeof(struct sl_packet_cursor) == sizeof(((struct sl_flows_walk *)0)->cursor),
	       "a walk holds a cursor");

static const char *state_of(const struct sl_packet_flow *a, const struct sl_packet_flow *b)
{
	switch (a->state) {
	case SL_PACKET_STARTING:
		return "starting";
	case SL_PACKET_KILLED:
		return "killed";
	case SL_PACKET_ACTIVE:
		break;
	}
	if (a->rst || b->rst)
		return "reset";
	if (a->peer_fin_acked && b->peer_fin_acked)
		return "closed";
	return a->fin || b->fin ? "half_closed" : "active";
}

static void add_half(struct sl_flow_row *row, const struct sl_packet_flow *f)
{
	enum sl_side side = f->from == SL_PACKET_CLIENT ? SL_CLIENT : SL_BACKEND;

	row->bytes[side] = f->bytes;
	row->packets[side] = f->packets;
	row->relayed[side] = f->relayed_bytes;
	row->drops[side] = f->drops;
	row->ifindex[side] = f->ifindex;
}

void sl_flows_tuple(const struct sl_packet_key *keys, struct sl_broker_flow *ret)
{
	const struct sl_packet_key *c = &keys[SL_PACKET_CLIENT];
	const struct sl_packet_key *b = &keys[SL_PACKET_BACKEND];

	sl_packet_addr(c->saddr, c->sport, &ret->client);
	sl_packet_addr(c->daddr, c->dport, &ret->front);
	sl_packet_addr(b->daddr, b->dport, &ret->back);
	sl_packet_addr(b->saddr, b->sport, &ret->backend);
}

static uint64_t ms_since(uint64_t now_ns, uint64_t then_ns)
{
	return now_ns > then_ns ? (now_ns - then_ns) / 1000000 : 0;
}

/* Of the connection's other direction; zeros, and false, where there is none. */
static bool read_partner(int flows_fd, const struct sl_packet_flow *f, struct sl_packet_flow *ret)
{
	struct sl_packet_flow other;
	struct sl_packet_key key;

	sl_packet_partner(f, &key);
	*ret = (struct sl_packet_flow){ 0 };
	if (sl_packet_read_flow(flows_fd, &key, &other) < 0 || other.conn_id != f->conn_id ||
	    other.from == f->from)
		return false;
	*ret = other;
	return true;
}

/* Since payload; before the first in the kernel, since the connection began. */
static uint64_t idle_ms(uint64_t now_ns, const struct sl_packet_flow *a,
			const struct sl_packet_flow *b)
{
	uint64_t last = a->accepted_ns;

	if (a->last_data_ns > last)
		last = a->last_data_ns;
	if (b->last_data_ns > last)
		last = b->last_data_ns;
	return ms_since(now_ns, last);
}

static void describe(const struct slice *s, const struct sl_packet_key *key,
		     const struct sl_packet_flow *f, const struct sl_packet_flow *other,
		     bool has_partner)
{
	struct sl_flow_row row = { .conn_id = f->conn_id, .has_partner = has_partner };
	struct sl_packet_key keys[2];

	if (sl_packet_route_name(s->routes_fd, f->route_id, row.route) < 0)
		row.route[0] = '\0';
	row.state = state_of(f, has_partner ? other : f);
	sl_packet_keys(key, f, keys);
	sl_flows_tuple(keys, &row.tuple);
	sl_packet_addr(f->client, f->client_port, &row.client);
	sl_packet_addr(f->via, f->via_port, &row.via);
	add_half(&row, f);
	if (has_partner)
		add_half(&row, other);
	row.idle_ms = idle_ms(s->now_ns, f, other);
	row.age_ms = ms_since(s->now_ns, f->accepted_ns);
	s->fn(s->arg, &row);
}

static void show(const struct slice *s, const struct sl_packet_key *key,
		 const struct sl_packet_flow *f)
{
	struct sl_packet_flow other;
	bool has_partner = read_partner(s->flows_fd, f, &other);

	/* Each pair once: by the client's half, or by the only one there is. */
	if (f->from != SL_PACKET_CLIENT && has_partner)
		return;
	if (s->walk->n == s->walk->max) {
		s->walk->more = true;
		return;
	}
	describe(s, key, f, &other, has_partner);
	s->walk->n++;
}

int sl_flows_step(struct sl_flows_walk *walk, int flows_fd, int routes_fd, uint64_t now_ns,
		  void (*fn)(void *arg, const struct sl_flow_row *row), void *arg)
{
	const struct slice s = { walk, flows_fd, routes_fd, now_ns, fn, arg };
	_cleanup_free_ struct batch *b = malloc(sizeof(*b));
	struct sl_packet_cursor cursor;
	size_t n = 0;
	int r;

	if (!b)
		return -ENOMEM;
	memcpy(&cursor, walk->cursor, sizeof(cursor));
	r = sl_packet_batch(flows_fd, &cursor, BATCH, b->key, b->flow, &n);
	if (r < 0)
		return r;
	memcpy(walk->cursor, &cursor, sizeof(cursor));
	for (size_t i = 0; i < n && !walk->more; i++)
		show(&s, &b->key[i], &b->flow[i]);
	return walk->more || r;
}

#define OUTCOMES(X)          \
	X(forwarded_tc)      \
	X(forwarded_xdp)     \
	X(options_walked)    \
	X(starting_passed)   \
	X(starting_dropped)  \
	X(fragment_dropped)  \
	X(extension_dropped) \
	X(malformed_dropped) \
	X(ttl_dropped)       \
	X(vlan_passed)       \
	X(vlan_popped)       \
	X(icmp_translated)   \
	X(icmp_dropped)      \
	X(mtu_answered)      \
	X(mtu_failed)        \
	X(killed_answered)   \
	X(killed_dropped)    \
	X(reused)            \
	X(rst_ignored)       \
	X(events_lost)       \
	X(xdp_passed)

#define X(name) +1
_Static_assert(sizeof(struct sl_packet_counts) == (0 OUTCOMES(X)) * sizeof(uint64_t),
	       "every counter has its name here");
#undef X

int sl_flows_outcomes(int counters_fd, void (*fn)(void *arg, const char *name, uint64_t value),
		      void *arg)
{
	struct sl_packet_counts counts;
	int r = sl_packet_read_counts(counters_fd, &counts);

	if (r < 0)
		return r;
#define X(name) fn(arg, #name, counts.name);
	OUTCOMES(X)
#undef X
	return 0;
}
