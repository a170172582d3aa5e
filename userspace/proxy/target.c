/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "proxy/target.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/count.h"
#include "base/log.h"
#include "core/balance.h"

SL_DEFINE_CLEANUP(struct sl_target, sl_target_unref);

int sl_target_new(const struct sl_conf_target *conf, struct sl_target **ret)
{
	_cleanup_(sl_target_unrefp) struct sl_target *t = NULL;

	t = calloc(1, sizeof(*t));
	if (!t)
		return -ENOMEM;
	t->refs = 1;
	(void)pthread_mutex_init(&t->lock, NULL);
	t->port = conf->port;
	t->is_name = conf->host != NULL;
	if (!t->is_name) {
		t->addrs[0] = conf->addr;
		t->n_addrs = 1;
	}
	t->address = strdup(conf->address);
	if (!t->address)
		return -ENOMEM;
	t->name = sl_balance_name(t->address);
	*ret = SL_TAKE_PTR(t);
	return 0;
}

struct sl_target *sl_target_ref(struct sl_target *t)
{
	__atomic_add_fetch(&t->refs, 1, __ATOMIC_RELAXED);
	return t;
}

void sl_target_unref(struct sl_target *t)
{
	if (!t || __atomic_sub_fetch(&t->refs, 1, __ATOMIC_ACQ_REL) != 0)
		return;
	(void)pthread_mutex_destroy(&t->lock);
	free(t->address);
	free(t);
}

/* The last good answer stays in use when a question fails. */
static void on_resolved(void *arg, const struct sl_addr *addrs, size_t n, const char *err)
{
	struct sl_target *t = arg;
	bool was_failing;

	(void)pthread_mutex_lock(&t->lock);
	was_failing = t->last_error[0] != '\0';
	if (n > 0) {
		memcpy(t->addrs, addrs, n * sizeof(*addrs));
		__atomic_store_n(&t->n_addrs, n, __ATOMIC_RELAXED);
		t->last_error[0] = '\0';
	} else {
		(void)snprintf(t->last_error, sizeof(t->last_error), "%s", err);
	}
	(void)pthread_mutex_unlock(&t->lock);
	if (n == 0 && !was_failing)
		sl_log(SL_LOG_WARN, "target %s: cannot resolve its name: %s; %s", t->address, err,
		       t->n_addrs ? "keeping the last good addresses" : "it stays unusable");
	else if (n > 0 && was_failing)
		sl_info("target %s: its name resolves again", t->address);
}

int sl_target_watch(struct sl_target *t, struct sl_dns *dns, const char *host)
{
	if (!t->is_name || t->watch)
		return 0;
	return sl_dns_watch(dns, host, on_resolved, t, &t->watch);
}

void sl_target_unwatch(struct sl_target *t)
{
	sl_dns_unwatch(t->watch);
	t->watch = NULL;
}

bool sl_target_pick_addr(struct sl_target *t, uint16_t listener_port, struct sl_addr *ret)
{
	bool has_addr;

	if (t->is_name)
		(void)pthread_mutex_lock(&t->lock);
	has_addr = t->n_addrs > 0;
	if (has_addr)
		*ret = t->addrs[t->is_name ? t->next_addr++ % t->n_addrs : 0];
	if (t->is_name)
		(void)pthread_mutex_unlock(&t->lock);
	if (has_addr)
		sl_addr_set_port(ret, t->port ? t->port : listener_port);
	return has_addr;
}

size_t sl_target_addrs(struct sl_target *t, struct sl_addr ret[SL_DNS_MAX_ADDRS])
{
	size_t n;

	(void)pthread_mutex_lock(&t->lock);
	n = t->n_addrs;
	memcpy(ret, t->addrs, n * sizeof(*ret));
	(void)pthread_mutex_unlock(&t->lock);
	for (size_t i = 0; i < n; i++)
		sl_addr_set_port(&ret[i], t->port);
	return n;
}

bool sl_target_has_answer(struct sl_target *t)
{
	bool has;

	(void)pthread_mutex_lock(&t->lock);
	has = t->n_addrs > 0 || t->last_error[0] != '\0';
	(void)pthread_mutex_unlock(&t->lock);
	return has;
}

uint32_t sl_target_share(struct sl_target *t, const struct sl_conf_target *conf,
			 uint64_t slow_start_ms, bool passive, uint64_t now_ms)
{
	uint32_t share = SL_SHARE_ONE;
	uint64_t up_since_ms;

	if (conf->drained ||
	    __atomic_load_n(&t->is_down, __ATOMIC_ACQUIRE) || /* with up_since_ms */
	    __atomic_load_n(&t->n_addrs, __ATOMIC_RELAXED) == 0)
		return 0;
	if (passive && now_ms < sl_count_get(&t->held_until_ms))
		return 0;
	up_since_ms = sl_count_get(&t->up_since_ms);
	/* A worker's turn may have begun before the control loop's. */
	if (up_since_ms != 0)
		share = sl_slow_start_share(now_ms > up_since_ms ? now_ms - up_since_ms : 0,
					    slow_start_ms);
	return conf->weight * share;
}

bool sl_target_count_connect(struct sl_target *t, bool ok, uint64_t now_ms)
{
	uint64_t held_until_ms = sl_count_get(&t->held_until_ms);
	uint64_t hold_ms;

	if (ok) {
		/* Written only when it changes: every connection of every worker passes here. */
		if (__atomic_load_n(&t->failures, __ATOMIC_RELAXED) != 0) {
			__atomic_store_n(&t->failures, 0, __ATOMIC_RELAXED);
			__atomic_store_n(&t->held_until_ms, 0, __ATOMIC_RELAXED);
		}
		return false;
	}
	/* Connects begun before the hold say nothing that is not known. */
	if (now_ms < held_until_ms)
		return false;
	hold_ms = sl_passive_hold_ms(__atomic_add_fetch(&t->failures, 1, __ATOMIC_RELAXED));
	return hold_ms != 0 &&
	       __atomic_compare_exchange_n(&t->held_until_ms, &held_until_ms, now_ms + hold_ms,
					   false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}
