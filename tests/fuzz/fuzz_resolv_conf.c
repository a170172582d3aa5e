/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <stdint.h>
#include <string.h>

#include "core/resolv_conf.h"

#define require(x)                        \
	do {                              \
		if (!(x))                 \
			__builtin_trap(); \
	} while (0)

int LLVMFuzzerTestOneInput(const uint8_t *text, size_t n)
{
	struct sl_resolv_conf conf;

	sl_resolv_conf_parse((const char *)text, n, &conf);
	require(conf.n_servers <= SL_RESOLV_SERVERS);
	for (size_t i = 0; i < conf.n_servers; i++) {
		require(sl_addr_family(&conf.server[i]) == AF_INET ||
			sl_addr_family(&conf.server[i]) == AF_INET6);
		require(sl_addr_port(&conf.server[i]) == 0);
		for (size_t k = 0; k < i; k++)
			require(!sl_addr_same_ip(&conf.server[i], &conf.server[k]));
	}
	require(conf.n_domains <= SL_RESOLV_DOMAINS);
	for (size_t i = 0; i < conf.n_domains; i++) {
		size_t len = strnlen(conf.domain[i], SL_RESOLV_NAME);

		require(len > 0 && len < SL_RESOLV_NAME);
		require(strspn(conf.domain[i],
			       "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
			       "0123456789-_.") == len);
	}
	require(conf.ndots <= 15);
	require(conf.timeout_s >= 1 && conf.timeout_s <= 30);
	require(conf.attempts >= 1 && conf.attempts <= 5);
	return 0;
}
