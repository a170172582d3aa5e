/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "base/num.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define MAX_DURATION_MS (UINT64_C(100) * 366 * 86400 * 1000)

struct unit {
	const char *name;
	uint64_t factor;
};

int sl_num_parsen(const char *text, size_t n, uint64_t min, uint64_t max, uint64_t *ret)
{
	uint64_t v = 0;

	if (n == 0)
		return -EINVAL;
	for (size_t i = 0; i < n; i++)
		if (text[i] < '0' || text[i] > '9')
			return -EINVAL;
	for (size_t i = 0; i < n; i++) {
		unsigned digit = (unsigned)(text[i] - '0');

		if (v > (UINT64_MAX - digit) / 10)
			return -ERANGE;
		v = v * 10 + digit;
	}
	if (v < min || v > max)
		return -ERANGE;
	*ret = v;
	return 0;
}

int sl_num_parse(const char *text, uint64_t min, uint64_t max, uint64_t *ret)
{
	return sl_num_parsen(text, strlen(text), min, max, ret);
}

/* A number followed by exactly one of the units. */
static int parse_with_unit(const char *text, const struct unit *units, uint64_t max, uint64_t *ret)
{
	size_t digits = strspn(text, "0123456789");
	uint64_t v;
	int r;

	for (; units->name; units++) {
		if (strcmp(text + digits, units->name) != 0)
			continue;
		r = sl_num_parsen(text, digits, 0, UINT64_MAX, &v);
		if (r < 0)
			return r;
		if (v > max / units->factor)
			return -ERANGE;
		*ret = v * units->factor;
		return 0;
	}
	return -EINVAL;
}

int sl_num_parse_duration(const char *text, uint64_t *ret_ms)
{
	static const struct unit units[] = {
		{ "ms", 1 },          { "s", 1000 },         { "m", 60 * 1000 },
		{ "h", 3600 * 1000 }, { "d", 86400 * 1000 }, { NULL, 0 },
	};

	if (strcmp(text, "0") == 0) {
		*ret_ms = 0;
		return 0;
	}
	return parse_with_unit(text, units, MAX_DURATION_MS, ret_ms);
}

int sl_num_parse_size(const char *text, uint64_t *ret_bytes)
{
	static const struct unit units[] = {
		{ "", 1 }, { "KiB", 1 << 10 }, { "MiB", 1 << 20 }, { "GiB", 1 << 30 }, { NULL, 0 },
	};

	return parse_with_unit(text, units, INT64_MAX, ret_bytes);
}

int sl_num_parse_rate(const char *text, uint64_t *ret_per_minute)
{
	static const struct unit units[] = { { "/s", 60 }, { "/m", 1 }, { NULL, 0 } };

	if (strcmp(text, "0") == 0) {
		*ret_per_minute = 0;
		return 0;
	}
	return parse_with_unit(text, units, UINT32_MAX, ret_per_minute);
}

int sl_num_parse_percent(const char *text, uint64_t *ret_percent)
{
	static const struct unit units[] = { { "%", 1 }, { NULL, 0 } };

	return parse_with_unit(text, units, 100, ret_percent);
}

const char *sl_num_format_duration(uint64_t ms, char buf[32])
{
	static const struct unit units[] = {
		{ "d", 86400 * 1000 }, { "h", 3600 * 1000 }, { "m", 60 * 1000 },
		{ "s", 1000 },         { "ms", 1 },
	};

	if (ms == 0) {
		(void)snprintf(buf, 32, "0");
		return buf;
	}
	for (size_t i = 0; i < SL_ARRAY_LEN(units); i++) {
		if (ms % units[i].factor == 0) {
			(void)snprintf(buf, 32, "%" PRIu64 "%s", ms / units[i].factor,
				       units[i].name);
			break;
		}
	}
	return buf;
}
