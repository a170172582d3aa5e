/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BROKER_POLICY_H
#define SL_BROKER_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "conf/conf.h"

/*
 * What the broker allows: the listeners, routes and targets of one configuration, as flat structs
 * the supervisor makes of it. The broker parses no file.
 */
struct sl_policy_listen {
	struct sl_addr ip; /* AF_UNSPEC: every address */
	uint16_t from;
	uint16_t to;
};

struct sl_policy_target {
	struct sl_addr ip; /* AF_UNSPEC: a name; the proxy resolves it, so any unicast address is
			      allowed */
	uint16_t port;     /* 0: that of the listener ("preserve") */
};

struct sl_policy_route {
	char name[72];
	uint32_t first_target; /* in targets */
	uint32_t n_targets;
	uint16_t min_port; /* the listening ports lie in min_port..max_port */
	uint16_t max_port;
	bool may_packet; /* the engine may be used for it */
	bool may_sockmap;
};

struct sl_policy {
	uint64_t generation;
	bool is_off;        /* packet.hook: off */
	bool wants_sockmap; /* of some route */
	bool wants_xdp;
	uint16_t port_from; /* packet.ports */
	uint16_t port_to;
	uint32_t max_flows;
	uint32_t sockmap_limit; /* bytes */
	uint32_t n_listens;
	uint32_t n_routes;
	uint32_t n_targets;
	uint32_t n_interfaces; /* packet.interfaces; 0: auto, all */
	struct sl_policy_listen *listens;
	struct sl_policy_route *routes;
	struct sl_policy_target *targets;
	char (*interfaces)[16];
	char bpf_dir[256];
};

/* Packs what matters of `conf` into a sealed memfd. */
SL_MUST_CHECK int sl_policy_pack(const struct sl_conf *conf, uint64_t generation, int *ret_fd);
/* Checks every number in it before it is used. */
SL_MUST_CHECK int sl_policy_unpack(int fd, struct sl_policy **ret);
void sl_policy_free(struct sl_policy *p); /* NULL is fine */

/* `to_sockmap`: by that engine, else by the packet engine. Whether connections that came to `front`
 * may be joined to `backend` for that route. */
bool sl_policy_allows(const struct sl_policy *p, uint32_t route, bool to_sockmap,
		      const struct sl_addr *front, const struct sl_addr *backend);

#endif
