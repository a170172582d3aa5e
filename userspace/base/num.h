/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BASE_NUM_H
#define SL_BASE_NUM_H

#include <stdint.h>

#include "base/cleanup.h"

/*
 * Strict readers of numbers in configuration, command lines and protocols:
 * decimal digits only, no sign, no blanks, nothing after them. -EINVAL when
 * the text is something else, -ERANGE when the value does not fit.
 */
SL_MUST_CHECK int sl_num_parse(const char *text, uint64_t min, uint64_t max, uint64_t *ret);
SL_MUST_CHECK int sl_num_parsen(const char *text, size_t n, uint64_t min, uint64_t max,
				uint64_t *ret);

/* "250ms", "30s", "5m", "4h", "30d", or "0"; up to 100 years. A bare number other than 0 is
 * -EINVAL. */
SL_MUST_CHECK int sl_num_parse_duration(const char *text, uint64_t *ret_ms);

/* "65536", "64KiB", "1MiB", "2GiB". */
SL_MUST_CHECK int sl_num_parse_size(const char *text, uint64_t *ret_bytes);

/* "50/s", "600/m" as events per minute, or "0" for no limit. */
SL_MUST_CHECK int sl_num_parse_rate(const char *text, uint64_t *ret_per_minute);

/* "95%": 0 to 100. */
SL_MUST_CHECK int sl_num_parse_percent(const char *text, uint64_t *ret_percent);

/* The shortest exact form: "1500ms", "90s", "4h", "0". */
const char *sl_num_format_duration(uint64_t ms, char buf[32]);

#endif
