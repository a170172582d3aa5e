/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/siphash.h"

/* Published by the authors: key 00 01 .. 0f, message 00 01 .. n-1. */
static const uint64_t vectors[] = {
	0x726fdb47dd0e0e31, 0x74f839c593dc67fd, 0x0d6c8009d9a94f5a, 0x85676696d7fb7e2d,
	0xcf2794e0277187b7, 0x18765564cd99a68d, 0xcbc9466e58fee3ce, 0xab0200f58b01d137,
	0x93f5f5799a932462, 0x9e0082df0ba9e4b0, 0x7a5dbbc594ddb9f3, 0xf4b32f46226bada7,
	0x751e8fbc860ee5fb, 0x14ea5627c0843d90, 0xf723ca908e7af2ee, 0xa129ca6149be45e5,
	0x3f2acc7f57c29bdb, 0x699ae9f52cbe4794, 0x4bc1b3f0968dd39c, 0xbb6dc91da77961bd,
	0xbed65cf21aa2ee98, 0xd0f2cbb02e3b67c7, 0x93536795e3a33e88, 0xa80c038ccd5ccec8,
	0xb8ad50c6f649af94, 0xbce192de8a85b8ea, 0x17d835b85bbb15f3, 0x2f2e6163076bcfad,
	0xde4daaaca71dc9a5, 0xa6a2506687956571, 0xad87a3535c49ef28, 0x32d892fad841c342,
	0x7127512f72f27cce,
};

static void published_vectors(void **state)
{
	uint8_t key[16];

	(void)state;
	for (uint8_t i = 0; i < sizeof(key); i++)
		key[i] = i;
	for (size_t n = 0; n < SL_ARRAY_LEN(vectors); n++) {
		/* Exactly its size, so that an overread is seen. */
		uint8_t *message = malloc(n ? n : 1);

		for (size_t i = 0; i < n; i++)
			message[i] = (uint8_t)i;
		if (sl_siphash(message, n, key) != vectors[n])
			fail_msg("%zu bytes", n);
		free(message);
	}
}

static void key_matters(void **state)
{
	uint8_t key[16] = { 0 };
	uint64_t before;

	(void)state;
	for (size_t i = 0; i < sizeof(key); i++) {
		before = sl_siphash("abc", 3, key);
		key[i] = 1;
		assert_true(sl_siphash("abc", 3, key) != before);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(published_vectors),
		cmocka_unit_test(key_matters),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
