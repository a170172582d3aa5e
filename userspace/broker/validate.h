/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BROKER_VALIDATE_H
#define SL_BROKER_VALIDATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/cleanup.h"
#include "broker/policy.h"
#include "core/eligible.h"
#include "core/reason.h"

/* Whose sockets are taken. */
struct sl_validator {
	uint64_t netns_cookie;
	uint32_t proxy_uid; /* UINT32_MAX: anyone's */
};

/* What a passed descriptor says of itself. */
struct sl_sock_facts {
	uint64_t cookie;
	struct sl_addr local;
	struct sl_addr peer;
	struct sl_tcp_facts tcp;
};

SL_MUST_CHECK int sl_validator_init(struct sl_validator *v, uint32_t proxy_uid);

/*
 * NONE: it is a TCP socket of the proxy in our namespace; its state is in the facts. NO_PRIVILEGE:
 * it is something that an honest proxy would not have sent.
 */
enum sl_engine_reason sl_validate_sock(const struct sl_validator *v, int fd,
				       struct sl_sock_facts *ret);

/* NONE: the policy allows to join the two for that route, by that engine. */
enum sl_engine_reason sl_validate_pair(const struct sl_policy *policy, uint32_t route,
				       bool to_sockmap, const struct sl_sock_facts *client,
				       const struct sl_sock_facts *backend);

#endif
