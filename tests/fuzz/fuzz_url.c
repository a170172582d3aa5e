/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <assert.h>
#include <errno.h>
#include <stdint.h>

#include "core/url.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
	struct sl_slice in = { (const char *)bytes, n };
	struct sl_slice rest = in;
	struct sl_slice name;
	struct sl_slice value;
	size_t pairs = 0;
	char buf[64];
	int r;

	for (int plus = 0; plus < 2; plus++) {
		memset(buf, 'x', sizeof(buf));
		r = sl_url_decode(in, plus, buf, sizeof(buf));
		assert(r == 0 || r == -EINVAL || r == -ENOSPC);
		if (r == 0)
			assert(strnlen(buf, sizeof(buf)) < sizeof(buf) && strlen(buf) <= n);
		if (r == -ENOSPC)
			assert(n >= sizeof(buf));
	}
	while (sl_url_next_pair(&rest, &name, &value)) {
		assert(name.p >= in.p && name.p + name.n <= in.p + in.n);
		assert(!memchr(name.p, '&', name.n) && !memchr(name.p, '=', name.n));
		if (value.p)
			assert(value.p == name.p + name.n + 1 && value.p + value.n <= in.p + in.n);
		assert(rest.n < n && ++pairs <= n);
	}
	r = sl_url_query(in, "id", buf, sizeof(buf));
	assert(r == 0 || r == 1 || r == -EINVAL || r == -ENOSPC || r == -EEXIST);
	if (r == 0)
		assert(buf[0] == '\0');
	return 0;
}
