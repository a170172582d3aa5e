/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CORE_HEALTH_H
#define SL_CORE_HEALTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Whether a target may get connections, from the results of checks and of traffic. Pure. */

/* What an operator asks of active checks; milliseconds. */
struct sl_health_conf {
	bool enabled; /* a `health` mapping is there */
	uint64_t every;
	uint64_t timeout;
	uint32_t fall; /* failures in a row until down */
	uint32_t rise; /* successes in a row until up */
	char *path;    /* HTTP; NULL: connect (and TLS handshake) only */
	bool tls;
	uint64_t slow_start;
};

struct sl_health {
	bool is_down;
	uint32_t streak; /* results in a row that contradict the state */
};

enum sl_health_change {
	SL_HEALTH_SAME = 0,
	SL_HEALTH_WENT_UP,
	SL_HEALTH_WENT_DOWN,
};
enum sl_health_change sl_health_step(struct sl_health *h, bool ok, uint32_t fall, uint32_t rise);

/* `every` give or take a tenth: checks of many targets must not march in step. */
uint64_t sl_health_delay(uint64_t every_ms, uint64_t random);

/* Of SL_SHARE_ONE: grows from a tenth to all of it during slow_start. */
uint32_t sl_slow_start_share(uint64_t up_for_ms, uint64_t slow_start_ms);

/*
 * Passive marking: a target whose connects fail SL_PASSIVE_FALL times in a row is left out, for
 * 1 s at first and twice as long each time up to 30 s, while any other target is left; one success
 * ends it.
 */
#define SL_PASSIVE_FALL 3
uint64_t sl_passive_hold_ms(uint32_t failures_in_a_row);

/*
 * The status line of an HTTP/1 answer to a check, as far as it has come: 1 healthy
 * (200 to 399), 0 more bytes needed, -EPROTO anything else.
 */
int sl_health_read_status(const char *bytes, size_t n);

#endif
