/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/hosts.h"

#define MAX 5

#define require(x)                        \
	do {                              \
		if (!(x))                 \
			__builtin_trap(); \
	} while (0)

/* The first line is the name asked for, the rest the file. */
int LLVMFuzzerTestOneInput(const uint8_t *input, size_t n)
{
	const uint8_t *end = n ? memchr(input, '\n', n) : NULL;
	size_t name_len = end ? (size_t)(end - input) : n;
	const char *text = (const char *)input + name_len;
	struct sl_addr few[MAX];
	struct sl_addr many[64];
	char *name = malloc(name_len + 1);
	size_t n_few;
	size_t n_many;

	require(name != NULL);
	if (name_len)
		memcpy(name, input, name_len);
	name[name_len] = '\0';
	n_few = sl_hosts_find(text, n - name_len, name, few, MAX);
	n_many = sl_hosts_find(text, n - name_len, name, many, 64);
	require(n_few <= MAX && n_many <= 64);
	require(n_few == (n_many < MAX ? n_many : MAX));
	for (size_t i = 0; i < n_many; i++) {
		require(sl_addr_port(&many[i]) == 0);
		require(i >= n_few || sl_addr_is_equal(&few[i], &many[i]));
		for (size_t k = 0; k < i; k++)
			require(!sl_addr_same_ip(&many[i], &many[k]));
	}
	/* Case and a final dot make no difference. */
	for (size_t i = 0; i < name_len; i++)
		if (name[i] >= 'a' && name[i] <= 'z')
			name[i] = (char)(name[i] - 'a' + 'A');
	require(sl_hosts_find(text, n - name_len, name, many, 64) == n_many);
	free(name);
	return 0;
}
