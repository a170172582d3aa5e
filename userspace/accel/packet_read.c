/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What needs a descriptor of a map and no privilege: no object of libbpf, no file but one. */
#include "accel/packet.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <string.h>

#include "accel/rows.h"

/* ---- maps ---- */

int sl_packet_read_flow(int flows_fd, const struct sl_packet_key *key, struct sl_packet_flow *ret)
{
	struct sl_packet_flow flow;

	if (bpf_map_lookup_elem(flows_fd, key, &flow) < 0)
		return -errno;
	*ret = flow;
	return 0;
}

void sl_packet_read_init(void)
{
	(void)libbpf_num_possible_cpus();
}

int sl_packet_read_counts(int counters_fd, struct sl_packet_counts *ret)
{
	_Static_assert(sizeof(*ret) % sizeof(uint64_t) == 0, "all of it are counters");

	return sl_rows_sum(counters_fd, (uint64_t *)ret, sizeof(*ret) / sizeof(uint64_t));
}

int sl_packet_route_name(int routes_fd, uint32_t id, char ret[72])
{
	struct sl_packet_route route;

	if (bpf_map_lookup_elem(routes_fd, &id, &route) < 0)
		return -errno;
	route.name[sizeof(route.name) - 1] = '\0';
	memcpy(ret, route.name, sizeof(route.name));
	return 0;
}

/* ---- walking ---- */

#define MAX_BUCKET 65536

struct batch {
	struct sl_packet_key *keys;
	struct sl_packet_flow *flows;
	uint32_t n;
	uint32_t next; /* bucket */
	bool is_last;
};

/* -ENOSPC: the bucket has more than b->n entries. */
static int look_up(int fd, uint32_t bucket, struct batch *b)
{
	LIBBPF_OPTS(bpf_map_batch_opts, opts);

	b->is_last = false;
	if (bpf_map_lookup_batch(fd, &bucket, &b->next, b->keys, b->flows, &b->n, &opts) == 0)
		return 0;
	if (errno != ENOENT)
		return -errno;
	b->is_last = true;
	return 0;
}

/* A bucket that is larger than the caller's arrays is read whole and handed out in pieces. */
static int read_whole(int fd, uint32_t bucket, struct batch *ret)
{
	int r = -ENOSPC;

	for (uint32_t size = 64; r == -ENOSPC && size <= MAX_BUCKET; size *= 2) {
		_cleanup_free_ struct sl_packet_key *keys = calloc(size, sizeof(*keys));
		_cleanup_free_ struct sl_packet_flow *flows = calloc(size, sizeof(*flows));
		struct batch b = { keys, flows, size, 0, false };

		if (!keys || !flows)
			return -ENOMEM;
		r = look_up(fd, bucket, &b);
		if (r < 0)
			continue;
		keys = NULL;
		flows = NULL;
		*ret = b;
	}
	return r;
}

static int hand_out(int fd, struct sl_packet_cursor *c, size_t n, struct sl_packet_key *keys,
		    struct sl_packet_flow *flows, size_t *ret_n)
{
	struct batch b = { 0 };
	size_t at;
	size_t left;
	int r = read_whole(fd, c->bucket, &b);

	if (r < 0)
		return r;
	at = c->skip < b.n ? c->skip : b.n; /* it may have become smaller */
	left = b.n - at;
	*ret_n = left < n ? left : n;
	memcpy(keys, b.keys + at, *ret_n * sizeof(*keys));
	memcpy(flows, b.flows + at, *ret_n * sizeof(*flows));
	free(b.keys);
	free(b.flows);
	if (left > n) {
		c->skip += (uint32_t)n;
		return 0;
	}
	*c = (struct sl_packet_cursor){ .bucket = b.next };
	return b.is_last;
}

int sl_packet_batch(int flows_fd, struct sl_packet_cursor *cursor, size_t n,
		    struct sl_packet_key *keys, struct sl_packet_flow *flows, size_t *ret_n)
{
	struct batch b = { keys, flows, (uint32_t)n, 0, false };
	int r = -ENOSPC;

	if (n == 0 || n > UINT32_MAX)
		return -EINVAL;
	if (cursor->skip == 0)
		r = look_up(flows_fd, cursor->bucket, &b);
	if (r == -ENOSPC) {
		r = hand_out(flows_fd, cursor, n, keys, flows, ret_n);
	} else if (r == 0) {
		*ret_n = b.n;
		cursor->bucket = b.next;
		r = b.is_last;
	}
	return r;
}

/* ---- addresses ---- */

static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

void sl_packet_ip(const struct sl_addr *addr, uint8_t ret[16])
{
	memset(ret, 0, 16);
	if (sl_addr_family(addr) == AF_INET) {
		memcpy(ret, mapped, sizeof(mapped));
		memcpy(ret + sizeof(mapped), &addr->v4.sin_addr, 4);
	} else if (sl_addr_family(addr) == AF_INET6) {
		memcpy(ret, &addr->v6.sin6_addr, 16);
	}
}

void sl_packet_addr(const uint8_t ip[16], uint16_t port, struct sl_addr *ret)
{
	static const uint8_t none[16];
	struct sl_addr a = { 0 };

	if (memcmp(ip, mapped, sizeof(mapped)) == 0) {
		a.v4.sin_family = AF_INET;
		memcpy(&a.v4.sin_addr, ip + sizeof(mapped), 4);
	} else if (memcmp(ip, none, sizeof(none)) != 0) {
		a.v6.sin6_family = AF_INET6;
		memcpy(&a.v6.sin6_addr, ip, 16);
	}
	if (sl_addr_family(&a) != AF_UNSPEC)
		sl_addr_set_port(&a, port);
	*ret = a;
}

void sl_packet_key_of(const struct sl_addr *from, const struct sl_addr *to,
		      struct sl_packet_key *ret)
{
	sl_packet_ip(from, ret->saddr);
	sl_packet_ip(to, ret->daddr);
	ret->sport = sl_addr_port(from);
	ret->dport = sl_addr_port(to);
}

/* The other side answers to where it saw the packet come from. */
void sl_packet_partner(const struct sl_packet_flow *flow, struct sl_packet_key *ret)
{
	memcpy(ret->saddr, flow->new_daddr, sizeof(ret->saddr));
	memcpy(ret->daddr, flow->new_saddr, sizeof(ret->daddr));
	ret->sport = flow->new_dport;
	ret->dport = flow->new_sport;
}

void sl_packet_keys(const struct sl_packet_key *key, const struct sl_packet_flow *flow,
		    struct sl_packet_key ret[2])
{
	const bool is_client = flow->from == SL_PACKET_CLIENT;

	ret[is_client ? SL_PACKET_CLIENT : SL_PACKET_BACKEND] = *key;
	sl_packet_partner(flow, &ret[is_client ? SL_PACKET_BACKEND : SL_PACKET_CLIENT]);
}
