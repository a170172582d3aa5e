/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "core/health.h"

#include <errno.h>

#include "core/balance.h"

/* Doubles from the first to the last hold. */
#define HOLD_MIN_MS 1000
#define HOLD_MAX_MS 30000

enum sl_health_change sl_health_step(struct sl_health *h, bool ok, uint32_t fall, uint32_t rise)
{
	if (ok != h->is_down) {
		h->streak = 0;
		return SL_HEALTH_SAME;
	}
	h->streak++;
	if (h->streak < (ok ? rise : fall))
		return SL_HEALTH_SAME;
	*h = (struct sl_health){ .is_down = !ok };
	return ok ? SL_HEALTH_WENT_UP : SL_HEALTH_WENT_DOWN;
}

uint64_t sl_health_delay(uint64_t every_ms, uint64_t random)
{
	uint64_t tenth = every_ms / 10;

	return every_ms - tenth + random % (2 * tenth + 1);
}

uint32_t sl_slow_start_share(uint64_t up_for_ms, uint64_t slow_start_ms)
{
	const uint64_t least = SL_SHARE_ONE / 10;

	if (up_for_ms >= slow_start_ms)
		return SL_SHARE_ONE;
	return (uint32_t)(least + (SL_SHARE_ONE - least) * up_for_ms / slow_start_ms);
}

uint64_t sl_passive_hold_ms(uint32_t failures_in_a_row)
{
	uint64_t hold = HOLD_MIN_MS;

	if (failures_in_a_row < SL_PASSIVE_FALL)
		return 0;
	for (uint32_t i = SL_PASSIVE_FALL; i < failures_in_a_row && hold < HOLD_MAX_MS; i++)
		hold *= 2;
	return hold < HOLD_MAX_MS ? hold : HOLD_MAX_MS;
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* RFC 9112 section 4: "HTTP/1.x", a space, three digits, and a space or the line's end. */
int sl_health_read_status(const char *bytes, size_t n)
{
	static const char form[] = "HTTP/1.# ###_";

	for (size_t i = 0; i < n && i < sizeof(form) - 1; i++) {
		bool fits = bytes[i] == form[i];

		if (form[i] == '#')
			fits = is_digit(bytes[i]);
		else if (form[i] == '_')
			fits = bytes[i] == ' ' || bytes[i] == '\r' || bytes[i] == '\n';
		if (!fits || (i == 9 && bytes[i] != '2' && bytes[i] != '3'))
			return -EPROTO;
	}
	return n >= sizeof(form) - 1;
}
