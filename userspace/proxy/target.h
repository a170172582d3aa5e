/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_PROXY_TARGET_H
#define SL_PROXY_TARGET_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/addr.h"
#include "conf/conf.h"
#include "core/health.h"
#include "io/dns.h"

/*
 * The run-time side of a target: what its name stands for now, and how many
 * connections use it. Kept across reloads while its route keeps the address;
 * referenced by generations and connections, from any thread.
 */
struct sl_target {
	uint32_t refs;       /* atomic */
	uint32_t active;     /* atomic */
	uint32_t connecting; /* atomic: connects on their way */
	uint64_t n_total;    /* atomic: connections established */
	uint64_t n_failed;   /* atomic: connect attempts that failed */
	char *address;       /* as written */
	uint64_t name;       /* sl_balance_name() of it */
	uint16_t port;       /* 0: the port the client connected to */
	bool is_name;
	pthread_mutex_t lock; /* guards what follows where `is_name`; else immutable */
	struct sl_addr addrs[SL_DNS_MAX_ADDRS];
	size_t n_addrs;       /* 0: never resolved; also read without the lock, atomically */
	uint32_t next_addr;   /* rotates through addrs */
	char last_error[128]; /* of the resolver */
	/* what checks and traffic have shown; atomic, written by the thread named */
	uint32_t is_down;         /* control: by active checks */
	uint64_t up_since_ms;     /* control: went up by a check; 0: never was down */
	uint64_t n_checks_ok;     /* control */
	uint64_t n_checks_failed; /* control */
	uint32_t failures;        /* any: connects failed in a row */
	uint64_t held_until_ms;   /* any: passive marking, see core/health.h */
	/* control thread only: */
	struct sl_dns_name *watch;
	struct sl_check *check; /* of proxy/health.c; NULL: not checked */
	bool is_stale;          /* mark of proxy/generation.c */
	struct sl_health health;
	char check_error[96]; /* "": the last check was good, or there was none */
};

SL_MUST_CHECK int sl_target_new(const struct sl_conf_target *conf, struct sl_target **ret);
struct sl_target *sl_target_ref(struct sl_target *t);
void sl_target_unref(struct sl_target *t); /* accepts NULL */

/* Control thread: begins and ends the resolution of a name; no-ops for literals. */
SL_MUST_CHECK int sl_target_watch(struct sl_target *t, struct sl_dns *dns, const char *host);
void sl_target_unwatch(struct sl_target *t);

/*
 * An address to connect to, port included; names with several are used in
 * turn. False while the name has never been resolved.
 */
bool sl_target_pick_addr(struct sl_target *t, uint16_t listener_port, struct sl_addr *ret);
/* The resolver has answered at least once, or never will be asked. */
bool sl_target_has_answer(struct sl_target *t);

/*
 * What the target is worth to a new connection now: 0 (also without any address), or its weight in
 * SL_SHARE_ONE, less during slow start. Any thread. `passive`: targets held back after failed
 * connects count as 0, too.
 */
uint32_t sl_target_share(struct sl_target *t, const struct sl_conf_target *conf,
			 uint64_t slow_start_ms, bool passive, uint64_t now_ms);
/* A worker's connect succeeded or failed. Returns true when this failure begins a hold. */
bool sl_target_count_connect(struct sl_target *t, bool ok, uint64_t now_ms);

size_t sl_target_addrs(struct sl_target *t, struct sl_addr ret[SL_DNS_MAX_ADDRS]);

#endif
