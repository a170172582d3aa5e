/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "core/ip_ledger.h"

#include <string.h>

#include "base/siphash.h"

/*
 * Entries keep to a window of this many slots from their hash, so that a lookup is bounded and
 * removal needs no shifting: a free slot in between ends nothing.
 */
#define WINDOW 16

struct key {
	uint8_t bytes[20];
	uint8_t ip[16];
	uint8_t ip_len;
};

/* Only the first `ip_len` bytes of `ip` differ from 0. */
static struct key key_of(uint32_t scope, const uint8_t ip[16], uint8_t ip_len)
{
	struct key k = { .ip_len = ip_len };

	memcpy(k.ip, ip, sizeof(k.ip));
	memcpy(k.bytes, &scope, sizeof(scope));
	memcpy(k.bytes + sizeof(scope), k.ip, sizeof(k.ip));
	return k;
}

static struct key make_key(uint32_t scope, const struct sl_addr *client)
{
	uint8_t ip[16] = { 0 };
	uint8_t ip_len = (uint8_t)sl_addr_ip_bytes(client, ip);

	return key_of(scope, ip, ip_len);
}

static bool is_same(const struct sl_ip_entry *e, uint32_t scope, const struct key *k)
{
	return e->scope == scope && e->ip_len == k->ip_len && memcmp(e->ip, k->ip, k->ip_len) == 0;
}

static bool is_forgotten(const struct sl_ip_entry *e, uint64_t now_us)
{
	return e->active == 0 && e->next_us <= now_us;
}

static void forget(struct sl_ip_ledger *l, struct sl_ip_entry *e)
{
	*e = (struct sl_ip_entry){ 0 };
	l->n_used--;
}

/* The entry of the key; else, when `make`, a fresh one; else NULL. */
static struct sl_ip_entry *find(struct sl_ip_ledger *l, uint32_t scope, const struct key *k,
				bool make, uint64_t now_us)
{
	uint64_t hash = sl_siphash(k->bytes, sizeof(k->bytes), l->key);
	struct sl_ip_entry *room = NULL;

	for (size_t i = 0; i < WINDOW; i++) {
		struct sl_ip_entry *e = &l->slots[(hash + i) & (l->n_slots - 1)];

		if (e->scope != 0 && is_same(e, scope, k))
			return e;
		if (e->scope != 0 && is_forgotten(e, now_us))
			forget(l, e);
		if (e->scope == 0 && !room)
			room = e;
	}
	if (!make || !room)
		return NULL;
	*room = (struct sl_ip_entry){ .scope = scope, .ip_len = k->ip_len };
	memcpy(room->ip, k->ip, sizeof(room->ip));
	l->n_used++;
	return room;
}

/* False: too fast. `next_us` is moved only when the connection is admitted. */
static bool spend_rate(struct sl_ip_entry *e, const struct sl_ip_limits *limits, uint64_t now_us)
{
	uint64_t spacing_us;
	uint64_t ahead_us;

	if (limits->rate_per_minute == 0)
		return true;
	spacing_us = UINT64_C(60000000) / limits->rate_per_minute;
	if (spacing_us == 0)
		spacing_us = 1;
	ahead_us = spacing_us * ((limits->burst ? limits->burst : 1) - 1);
	if (e->next_us > now_us + ahead_us)
		return false;
	e->next_us = (e->next_us > now_us ? e->next_us : now_us) + spacing_us;
	return true;
}

enum sl_ip_verdict sl_ip_ledger_open(struct sl_ip_ledger *l, uint32_t scope,
				     const struct sl_addr *client,
				     const struct sl_ip_limits *limits, uint64_t now_us)
{
	struct key k = make_key(scope, client);
	struct sl_ip_entry *e = find(l, scope, &k, true, now_us);

	if (!e) {
		l->untracked++;
		return SL_IP_OK_UNTRACKED;
	}
	if (limits->max_active != 0 && e->active >= limits->max_active)
		return SL_IP_TOO_MANY;
	if (!spend_rate(e, limits, now_us))
		return SL_IP_TOO_FAST;
	e->active++;
	return SL_IP_OK;
}

void sl_ip_ledger_close(struct sl_ip_ledger *l, uint32_t scope, const struct sl_addr *client,
			uint64_t now_us)
{
	struct key k = make_key(scope, client);
	struct sl_ip_entry *e = find(l, scope, &k, false, now_us);

	if (!e || e->active == 0)
		return;
	e->active--;
	if (is_forgotten(e, now_us))
		forget(l, e);
}

struct sl_ip_entry *sl_ip_ledger_move(struct sl_ip_ledger *l, struct sl_ip_entry *slots,
				      size_t n_slots)
{
	struct sl_ip_entry *old = l->slots;
	size_t n_old = l->n_slots;

	l->slots = slots;
	l->n_slots = n_slots;
	l->n_used = 0;
	for (size_t i = 0; i < n_old; i++) {
		struct key k = key_of(old[i].scope, old[i].ip, old[i].ip_len);
		struct sl_ip_entry *e;

		if (old[i].scope == 0)
			continue;
		e = find(l, old[i].scope, &k, true, 0);
		if (e)
			*e = old[i];
	}
	return old;
}
