/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CORE_CONN_FSM_H
#define SL_CORE_CONN_FSM_H

#include <stdbool.h>

/*
 * The life of a connection as a pure step function. The shell in proxy/conn.c
 * is the only caller that stores the result.
 */
enum sl_conn_state {
	SL_CONN_ACCEPTED = 0,
	SL_CONN_CLASSIFYING, /* first bytes awaited, because routing needs them */
	SL_CONN_CONNECTING,
	SL_CONN_HANDSHAKING, /* TLS towards either side */
	SL_CONN_ESTABLISHED, /* an engine carries it */
	SL_CONN_CLOSING,     /* one side has finished, the other may go on */
	SL_CONN_CLOSED,
	SL_CONN_STATE_COUNT_,
};
const char *sl_conn_state_name(enum sl_conn_state state);

enum sl_conn_event {
	SL_EV_BYTES_NEEDED = 0, /* routing must read before it can decide */
	SL_EV_ROUTED,
	SL_EV_CONNECTED,
	SL_EV_CONNECT_FAILED,
	SL_EV_TLS_NEEDED, /* with the client once it is routed, with the backend once connected */
	SL_EV_CLIENT_SECURED, /* TLS with the client is done, the backend comes next */
	SL_EV_SECURED,        /* TLS with the backend is done */
	SL_EV_ADOPTED,        /* a flow of the kernel, from a process that is no more */
	SL_EV_ONE_FINISHED,   /* a FIN was received and passed on */
	SL_EV_BOTH_FINISHED,
	SL_EV_ABORT, /* refusal, error, deadline, kill: whatever ends it at once */
	SL_CONN_EVENT_COUNT_,
};

enum sl_conn_action {
	SL_ACT_NONE = 0,
	SL_ACT_READ_FIRST_BYTES,
	SL_ACT_CONNECT, /* to the next target */
	SL_ACT_HANDSHAKE,
	SL_ACT_START_ENGINE,
	SL_ACT_RELEASE,
	SL_ACT_BUG, /* an event that cannot happen here: count it, then release */
	SL_CONN_ACTION_COUNT_,
};

struct sl_conn_step {
	enum sl_conn_state next;
	enum sl_conn_action action;
};

/* `targets_left`: another target may be tried after a failed connect. */
struct sl_conn_step sl_conn_fsm_step(enum sl_conn_state state, enum sl_conn_event event,
				     bool targets_left);

#endif
