/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "proxy/limits.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/random.h>

#include "base/cleanup.h"
#include "core/breaker.h"
#include "core/ip_ledger.h"

#define N_SHARDS 16
/* Slots beyond those that open connections can fill, for rates that are not forgotten yet. */
#define RATE_SLOTS 65536

struct shard {
	pthread_mutex_t lock;
	struct sl_ip_ledger ledger;
};

struct sl_limits {
	uint64_t active;     /* atomic */
	uint64_t max_active; /* atomic, as all below: changed by a reload under the workers */
	unsigned refuse_above;
	unsigned resume_below;
	bool overloaded;
	struct shard shards[N_SHARDS];
};

SL_DEFINE_CLEANUP(struct sl_limits, sl_limits_free);

int sl_limits_new(struct sl_limits **ret)
{
	_cleanup_(sl_limits_freep) struct sl_limits *l = NULL;
	uint8_t key[16];

	l = calloc(1, sizeof(*l));
	if (!l)
		return -ENOMEM;
	if (getrandom(key, sizeof(key), 0) != sizeof(key))
		return -EIO;
	for (int i = 0; i < N_SHARDS; i++) {
		(void)pthread_mutex_init(&l->shards[i].lock, NULL);
		memcpy(l->shards[i].ledger.key, key, sizeof(key));
	}
	*ret = SL_TAKE_PTR(l);
	return 0;
}

void sl_limits_free(struct sl_limits *l)
{
	if (!l)
		return;
	for (int i = 0; i < N_SHARDS; i++) {
		(void)pthread_mutex_destroy(&l->shards[i].lock);
		free(l->shards[i].ledger.slots);
	}
	free(l);
}

/* Moves the entries over when the table must grow; it never shrinks. */
static int grow(struct shard *shard, size_t n_slots)
{
	struct sl_ip_ledger *ledger = &shard->ledger;
	struct sl_ip_entry *slots;

	if (n_slots <= ledger->n_slots)
		return 0;
	slots = calloc(n_slots, sizeof(*slots));
	if (!slots)
		return -ENOMEM;
	(void)pthread_mutex_lock(&shard->lock);
	slots = sl_ip_ledger_move(ledger, slots, n_slots);
	(void)pthread_mutex_unlock(&shard->lock);
	free(slots);
	return 0;
}

int sl_limits_configure(struct sl_limits *l, const struct sl_conf_global *conf)
{
	size_t n_slots = 1024;
	int r = 0;

	/* At most half full when every connection has an address of its own. */
	while (n_slots < 2 * (conf->max_connections + RATE_SLOTS) / N_SHARDS)
		n_slots *= 2;
	for (int i = 0; i < N_SHARDS && r == 0; i++)
		r = grow(&l->shards[i], n_slots);
	if (r < 0)
		return r;
	__atomic_store_n(&l->max_active, conf->max_connections, __ATOMIC_RELAXED);
	__atomic_store_n(&l->refuse_above, conf->refuse_above_percent, __ATOMIC_RELAXED);
	__atomic_store_n(&l->resume_below, conf->resume_below_percent, __ATOMIC_RELAXED);
	return 0;
}

static bool step_breaker(struct sl_limits *l, uint64_t active, uint64_t max)
{
	bool was_open = __atomic_load_n(&l->overloaded, __ATOMIC_RELAXED);
	bool is_open = sl_breaker_step(was_open, active, max,
				       __atomic_load_n(&l->refuse_above, __ATOMIC_RELAXED),
				       __atomic_load_n(&l->resume_below, __ATOMIC_RELAXED));

	if (is_open != was_open) {
		__atomic_store_n(&l->overloaded, is_open, __ATOMIC_RELAXED);
		sl_log(SL_LOG_WARN, "overload: %llu of %llu connections in use, %s",
		       (unsigned long long)active, (unsigned long long)max,
		       is_open ? "new ones are refused" : "new ones are accepted again");
	}
	return is_open;
}

enum sl_reason sl_limits_enter(struct sl_limits *l)
{
	uint64_t max = __atomic_load_n(&l->max_active, __ATOMIC_RELAXED);
	uint64_t before = __atomic_fetch_add(&l->active, 1, __ATOMIC_RELAXED);
	enum sl_reason why = SL_REASON_NONE;

	if (before >= max)
		why = SL_REASON_LIMIT_GLOBAL;
	else if (step_breaker(l, before, max))
		why = SL_REASON_OVERLOAD;
	if (why != SL_REASON_NONE)
		__atomic_fetch_sub(&l->active, 1, __ATOMIC_RELAXED);
	return why;
}

void sl_limits_leave(struct sl_limits *l)
{
	uint64_t left = __atomic_sub_fetch(&l->active, 1, __ATOMIC_RELAXED);

	if (__atomic_load_n(&l->overloaded, __ATOMIC_RELAXED))
		(void)step_breaker(l, left, __atomic_load_n(&l->max_active, __ATOMIC_RELAXED));
}

static struct shard *shard_of(struct sl_limits *l, const struct sl_addr *client)
{
	uint8_t ip[16] = { 0 };
	size_t n = sl_addr_ip_bytes(client, ip);

	return &l->shards[(ip[n - 1] ^ ip[n - 2] ^ ip[n / 2]) % N_SHARDS];
}

static enum sl_reason enter_ip(struct sl_limits *l, struct sl_route *route,
			       const struct sl_conf_route *conf, const struct sl_addr *client,
			       uint64_t now_us, bool *ret_tracked)
{
	const struct sl_ip_limits limits = { .max_active = conf->max_connections_per_ip,
					     .rate_per_minute = conf->new_per_ip_per_minute,
					     .burst = conf->new_per_ip_burst };
	struct shard *shard = shard_of(l, client);
	enum sl_ip_verdict verdict;

	(void)pthread_mutex_lock(&shard->lock);
	verdict = sl_ip_ledger_open(&shard->ledger, route->scope, client, &limits, now_us);
	(void)pthread_mutex_unlock(&shard->lock);
	*ret_tracked = verdict == SL_IP_OK;
	switch (verdict) {
	case SL_IP_OK:
	case SL_IP_OK_UNTRACKED:
		return SL_REASON_NONE;
	case SL_IP_TOO_MANY:
		return SL_REASON_LIMIT_IP;
	case SL_IP_TOO_FAST:
		return SL_REASON_RATE_IP;
	}
	return SL_REASON_NONE;
}

enum sl_reason sl_limits_enter_route(struct sl_limits *l, struct sl_route *route,
				     const struct sl_conf_route *conf, const struct sl_addr *client,
				     uint64_t now_us, bool *ret_tracked)
{
	uint64_t before = __atomic_fetch_add(&route->active, 1, __ATOMIC_RELAXED);
	enum sl_reason why = SL_REASON_NONE;

	*ret_tracked = false;
	if (conf->max_connections != 0 && before >= conf->max_connections)
		why = SL_REASON_LIMIT_ROUTE;
	else if (conf->max_connections_per_ip != 0 || conf->new_per_ip_per_minute != 0)
		why = enter_ip(l, route, conf, client, now_us, ret_tracked);
	if (why != SL_REASON_NONE)
		__atomic_fetch_sub(&route->active, 1, __ATOMIC_RELAXED);
	return why;
}

void sl_limits_leave_route(struct sl_limits *l, struct sl_route *route,
			   const struct sl_addr *client, bool tracked, uint64_t now_us)
{
	struct shard *shard = shard_of(l, client);

	__atomic_fetch_sub(&route->active, 1, __ATOMIC_RELAXED);
	if (!tracked)
		return;
	(void)pthread_mutex_lock(&shard->lock);
	sl_ip_ledger_close(&shard->ledger, route->scope, client, now_us);
	(void)pthread_mutex_unlock(&shard->lock);
}

void sl_limits_count(struct sl_limits *l, struct sl_route *route)
{
	uint64_t before = __atomic_fetch_add(&l->active, 1, __ATOMIC_RELAXED);

	(void)step_breaker(l, before, __atomic_load_n(&l->max_active, __ATOMIC_RELAXED));
	__atomic_fetch_add(&route->active, 1, __ATOMIC_RELAXED);
}

uint64_t sl_limits_active(const struct sl_limits *l)
{
	return __atomic_load_n(&l->active, __ATOMIC_RELAXED);
}

bool sl_limits_is_overloaded(const struct sl_limits *l)
{
	return __atomic_load_n(&l->overloaded, __ATOMIC_RELAXED);
}
