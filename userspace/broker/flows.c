/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "broker/flows.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "accel/packet.h"

#define BATCH 1024

struct batch {
	struct sl_packet_key key[BATCH];
	struct sl_packet_flow flow[BATCH];
};

struct walk {
	int flows_fd;
	int routes_fd;
	uint64_t now_ns;
	size_t max;
	void (*fn)(void *arg, const struct sl_flow_row *row);
	void *arg;
	size_t n;
	bool more;
};

static const char *state_of(const struct sl_packet_flow *a, const struct sl_packet_flow *b)
{
	bool both = a->peer_fin_acked && b->peer_fin_acked;

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
	if (both)
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

/* From either direction: what one says of the tuple, the other says the other way round. */
static void add_tuple(struct sl_flow_row *row, const struct sl_packet_key *key,
		      const struct sl_packet_flow *f)
{
	struct sl_addr here;
	struct sl_addr from;
	struct sl_addr new_from;
	struct sl_addr new_to;

	sl_packet_addr(key->saddr, key->sport, &from);
	sl_packet_addr(key->daddr, key->dport, &here);
	sl_packet_addr(f->new_saddr, f->new_sport, &new_from);
	sl_packet_addr(f->new_daddr, f->new_dport, &new_to);
	if (f->from == SL_PACKET_CLIENT)
		row->tuple = (struct sl_broker_flow){
			.client = from, .front = here, .back = new_from, .backend = new_to
		};
	else
		row->tuple = (struct sl_broker_flow){
			.client = new_to, .front = new_from, .back = here, .backend = from
		};
}

static uint64_t ms_since(uint64_t now_ns, uint64_t then_ns)
{
	return now_ns > then_ns ? (now_ns - then_ns) / 1000000 : 0;
}

static void show(struct walk *w, const struct sl_packet_key *key, const struct sl_packet_flow *f)
{
	struct sl_flow_row row = { .conn_id = f->conn_id };
	struct sl_packet_flow other = { 0 };
	struct sl_packet_key partner;

	sl_packet_partner(f, &partner);
	row.has_partner = sl_packet_read_flow(w->flows_fd, &partner, &other) == 0 &&
			  other.conn_id == f->conn_id;
	/* Each pair once: by the client's half, or by the only one there is. */
	if (f->from != SL_PACKET_CLIENT && row.has_partner)
		return;
	if (w->n == w->max) {
		w->more = true;
		return;
	}
	if (sl_packet_route_name(w->routes_fd, f->route_id, row.route) < 0)
		row.route[0] = '\0';
	row.state = state_of(f, row.has_partner ? &other : f);
	add_tuple(&row, key, f);
	sl_packet_addr(f->client, f->client_port, &row.client);
	sl_packet_addr(f->via, f->via_port, &row.via);
	add_half(&row, f);
	if (row.has_partner)
		add_half(&row, &other);
	row.idle_ms = ms_since(w->now_ns, other.last_data_ns > f->last_data_ns ? other.last_data_ns
									       : f->last_data_ns);
	row.age_ms = ms_since(w->now_ns, f->accepted_ns);
	w->fn(w->arg, &row);
	w->n++;
}

int sl_flows_walk(int flows_fd, int routes_fd, uint64_t now_ns, size_t max,
		  void (*fn)(void *arg, const struct sl_flow_row *row), void *arg, size_t *ret_n,
		  bool *ret_more)
{
	struct walk w = { .flows_fd = flows_fd,
			  .routes_fd = routes_fd,
			  .now_ns = now_ns,
			  .max = max,
			  .fn = fn,
			  .arg = arg };
	_cleanup_free_ struct batch *b = malloc(sizeof(*b));
	struct sl_packet_cursor cursor = { { 0 } };
	int r = 0;

	if (!b)
		return -ENOMEM;
	while (r == 0 && !w.more) {
		size_t n = 0;

		r = sl_packet_batch(flows_fd, &cursor, BATCH, b->key, b->flow, &n);
		if (r < 0)
			return r;
		for (size_t i = 0; i < n; i++)
			show(&w, &b->key[i], &b->flow[i]);
	}
	*ret_n = w.n;
	*ret_more = w.more;
	return 0;
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
