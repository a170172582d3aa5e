/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_IO_DNS_H
#define SL_IO_DNS_H

#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "io/loop.h"

/*
 * Keeps names resolved in the background: asks again when the TTL of the last
 * answer ends, keeps the last good answer when a question fails (then asks
 * again after 1 s, doubling to 30 s). Lives on one loop (the control loop, never
 * a worker's) and reports there. Opens no file: the contents of resolv.conf and hosts come as
 * bytes from the process that may read them.
 */
struct sl_dns;
struct sl_dns_name;

#define SL_DNS_MAX_ADDRS 16

/*
 * A new set of addresses (ports 0), or n = 0 with err != NULL when the name cannot be
 * resolved now; the receiver keeps what it had. Called for every change and every failure,
 * and at least once.
 */
typedef void (*sl_dns_fn)(void *arg, const struct sl_addr *addrs, size_t n, const char *err);

struct sl_dns_files {
	const char *resolv_conf; /* text; NULL: nameserver 127.0.0.1 */
	size_t resolv_conf_len;
	const char *hosts;
	size_t hosts_len;
};

/*
 * Must be called before the process gives up opening files: the resolver library
 * seeds its query ids from /dev/urandom here, and only here.
 */
int sl_dns_new(struct sl_loop *loop, const struct sl_dns_files *files, struct sl_dns **ret);
void sl_dns_free(struct sl_dns *dns); /* before the loop; frees the names still watched */
/*
 * New contents of the files; names that are watched are asked again. The time
 * and number of tries of a single server stay those of sl_dns_new().
 */
int sl_dns_set_files(struct sl_dns *dns, const struct sl_dns_files *files);

int sl_dns_watch(struct sl_dns *dns, const char *host, sl_dns_fn fn, void *arg,
		 struct sl_dns_name **ret);
void sl_dns_unwatch(struct sl_dns_name *name); /* accepts NULL; `fn` is not called again */

struct sl_dns_stats {
	uint64_t queries;
	uint64_t failures;
};
struct sl_dns_stats sl_dns_stats(const struct sl_dns *dns);

#endif
