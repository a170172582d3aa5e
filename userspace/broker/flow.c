/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "broker/flow.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/siphash.h"
#include "broker/state.h"

int sl_flow_table_init(struct sl_flow_table *t, size_t max)
{
	size_t n = 1024;

	while (n < max)
		n *= 2;
	*t = (struct sl_flow_table){ .n_buckets = n, .max = max };
	sl_list_init(&t->seen);
	if (getrandom(t->key, sizeof(t->key), GRND_NONBLOCK) != sizeof(t->key))
		return -EIO;
	t->bucket = calloc(n, sizeof(struct sl_kflow *));
	return t->bucket ? 0 : -ENOMEM;
}

void sl_flow_table_done(struct sl_flow_table *t)
{
	for (size_t i = 0; t->bucket && i < t->n_buckets; i++)
		while (t->bucket[i])
			sl_flow_drop(t->bucket[i]);
	free(t->bucket);
	*t = (struct sl_flow_table){ 0 };
}

static struct sl_kflow **bucket_of(const struct sl_flow_table *t, uint64_t conn_id)
{
	return &t->bucket[sl_siphash(&conn_id, sizeof(conn_id), t->key) & (t->n_buckets - 1)];
}

struct sl_kflow *sl_flow_find(const struct sl_flow_table *t, uint64_t conn_id)
{
	struct sl_kflow *f = t->bucket ? *bucket_of(t, conn_id) : NULL;

	while (f && f->conn_id != conn_id)
		f = f->next;
	return f;
}

bool sl_flow_is_elsewhere(const struct sl_broker *b, const struct sl_packet_key key[2])
{
	const struct sl_policy *policy = sl_broker_policy(b);
	uint16_t port = key[SL_PACKET_BACKEND].dport;

	return policy && (port < policy->port_from || port > policy->port_to);
}

void sl_flow_table_count_ports(struct sl_broker *b)
{
	struct sl_list *i;

	if (!b->table.bucket)
		return;
	b->table.n_elsewhere = 0;
	sl_list_for_each (i, &b->table.seen) {
		struct sl_kflow *f = SL_CONTAINER_OF(i, struct sl_kflow, seen);

		f->is_elsewhere = sl_flow_is_elsewhere(b, f->key);
		b->table.n_elsewhere += f->is_elsewhere;
	}
}

int sl_flow_add(struct sl_broker *b, uint64_t conn_id, const struct sl_packet_key key[2],
		struct sl_kflow **ret)
{
	struct sl_flow_table *t = &b->table;
	struct sl_kflow **bucket;
	struct sl_kflow *f;

	if (t->n >= t->max)
		return -ENOSPC;
	if (sl_flow_find(t, conn_id))
		return -EEXIST;
	f = calloc(1, sizeof(*f));
	if (!f)
		return -ENOMEM;
	bucket = bucket_of(t, conn_id);
	*f = (struct sl_kflow){ .next = *bucket, .broker = b, .conn_id = conn_id };
	memcpy(f->key, key, sizeof(f->key));
	f->is_elsewhere = sl_flow_is_elsewhere(b, key);
	for (int i = 0; i < 2; i++)
		f->half[i].round = b->sweep.round;
	sl_list_init(&f->own);
	sl_list_init(&f->todo);
	sl_list_init(&f->seen);
	sl_list_add(&t->seen, &f->seen);
	*bucket = f;
	t->n++;
	t->n_elsewhere += f->is_elsewhere;
	sl_broker_touch(b);
	*ret = f;
	return 0;
}

void sl_flow_drop(struct sl_kflow *f)
{
	struct sl_broker *b = f->broker;
	struct sl_kflow **at = bucket_of(&b->table, f->conn_id);

	while (*at != f)
		at = &(*at)->next;
	*at = f->next;
	b->table.n--;
	b->table.n_over -= f->stage == SL_KFLOW_OVER;
	b->table.n_orphans -= f->is_orphan;
	b->table.n_elsewhere -= f->is_elsewhere;
	sl_timer_stop(&f->timer);
	sl_list_remove(&f->own);
	sl_list_remove(&f->todo);
	sl_list_remove(&f->seen);
	free(f);
	sl_broker_touch(b);
}

static void set_owner(struct sl_kflow *f, struct sl_peer *peer, bool is_orphan)
{
	struct sl_broker *b = f->broker;

	b->table.n_orphans += is_orphan;
	b->table.n_orphans -= f->is_orphan;
	f->owner = peer;
	f->is_orphan = is_orphan;
	sl_list_remove(&f->own);
	sl_list_remove(&f->todo);
	sl_broker_touch(b);
}

void sl_flow_give(struct sl_kflow *f, struct sl_peer *peer)
{
	set_owner(f, peer, false);
	sl_list_add(&peer->flows, &f->own);
}

void sl_flow_orphan(struct sl_kflow *f)
{
	set_owner(f, NULL, true);
	f->tell &= SL_TELL_ENDED; /* the rest the next owner sees by itself */
	sl_list_add(&f->broker->orphans, &f->own);
	sl_peers_announce(f->broker);
}

void sl_flow_disown(struct sl_kflow *f)
{
	set_owner(f, NULL, false);
	f->tell = 0;
}

/* Packets that are dropped while others get through are noise, not a flow that is stuck. */
static void note_drops(struct sl_kflow *f, const struct sl_packet_flow *entry)
{
	struct sl_kflow_half *half = &f->half[entry->from];
	uint64_t now = sl_loop_now_ms(f->broker->loop);

	if (!half->is_here || entry->packets != half->packets)
		half->stuck_ms = 0;
	else if (entry->drops != half->drops && half->stuck_ms == 0)
		half->stuck_ms = now;
	else if (entry->drops != half->drops)
		half->is_broken = now - half->stuck_ms >= f->broker->times.broken_ms;
}

void sl_flow_note(struct sl_kflow *f, const struct sl_packet_flow *entry, uint32_t round)
{
	struct sl_kflow_half *half = &f->half[entry->from];

	note_drops(f, entry);
	*half = (struct sl_kflow_half){
		.bytes = entry->bytes,
		.packets = entry->packets,
		.last_ns = entry->last_ns,
		.last_data_ns = entry->last_data_ns,
		.stuck_ms = half->stuck_ms,
		.drops = entry->drops,
		.round = round,
		.is_here = true,
		.is_broken = half->is_broken,
		.fin = entry->fin,
		.peer_fin_acked = entry->peer_fin_acked,
		.rst = entry->rst,
	};
	if (entry->state == SL_PACKET_KILLED && f->killed_ns == 0)
		f->killed_ns = entry->killed_ns ? entry->killed_ns : 1;
	if (f->half[SL_PACKET_CLIENT].round == round && f->half[SL_PACKET_BACKEND].round == round) {
		sl_list_remove(&f->seen);
		sl_list_add(&f->broker->table.seen, &f->seen);
	}
}
