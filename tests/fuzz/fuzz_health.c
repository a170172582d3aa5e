/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The answer to a check: decided once, by a prefix, and never differently by more bytes. */
#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/health.h"

/* On the exact heap size, so that reading beyond is seen. */
static int read_prefix(const uint8_t *bytes, size_t n)
{
	char *exact = malloc(n ? n : 1);
	int r;

	assert(exact);
	if (n)
		memcpy(exact, bytes, n);
	r = sl_health_read_status(exact, n);
	free(exact);
	return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
	int decided = 0;

	for (size_t i = 0; i <= n && i <= 32; i++) {
		int r = read_prefix(bytes, i);

		assert(r == 0 || r == 1 || r == -EPROTO);
		assert(decided == 0 || r == decided);
		assert(r != 0 || i < 13); /* enough to decide */
		assert(r != 1 ||
		       (memcmp(bytes, "HTTP/1.", 7) == 0 && (bytes[9] == '2' || bytes[9] == '3')));
		decided = r;
	}
	return 0;
}
