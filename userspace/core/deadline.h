/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CORE_DEADLINE_H
#define SL_CORE_DEADLINE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/conn_fsm.h"
#include "core/reason.h"

/* Milliseconds; 0 switches a limit off. Defaults are in the configuration's key table. */
struct sl_timeouts {
	uint64_t proxy_header;
	uint64_t first_data;
	uint64_t handshake;
	uint64_t connect;
	uint64_t idle;
	uint64_t max_lifetime;
	uint64_t close_grace;
	uint64_t half_closed;
	uint64_t half_closed_idle;
	uint64_t drain;
	uint64_t request_header;
	uint64_t request_body;
	uint64_t http_keep_alive;
};

enum sl_keep_alive {
	SL_KEEP_ALIVE_STANDARD = 0,
	SL_KEEP_ALIVE_EXTENDED, /* idle limit times SL_EXTENDED_FACTOR */
	SL_KEEP_ALIVE_IMMORTAL, /* no idle limit */
};
#define SL_EXTENDED_FACTOR 6

/*
 * A side that ended without close_notify is most often gone as a whole, and what it would have to
 * be told cannot be said: the other direction may go on as long as it does not pause.
 */
#define SL_CUT_SILENCE_MS 250

#define SL_NEVER UINT64_MAX

/* What a deadline depends on; all times are monotonic milliseconds. */
struct sl_deadline_facts {
	enum sl_conn_state state;
	enum sl_keep_alive keep_alive;
	bool half_open;
	bool client_finished; /* the client's FIN has been read */
	bool is_cut;          /* one side has ended without close_notify */
	uint64_t accepted_ms;
	uint64_t attempt_ms; /* the running connect attempt began; 0: none yet */
	uint64_t entered_ms; /* the state was entered */
	uint64_t active_ms;  /* the last byte in either direction */
};

struct sl_deadline {
	uint64_t at_ms; /* SL_NEVER: no deadline in this state */
	enum sl_reason reason;
};

/*
 * The one deadline that is next. Reasons blame the connection as a whole,
 * except CONNECTION_TIMEOUT, which is the backend's, and those of the first
 * bytes, which are the client's.
 */
struct sl_deadline sl_deadline_next(const struct sl_timeouts *t, const struct sl_deadline_facts *f);

#endif
