/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "core/conn_fsm.h"

#define STEP(n, a) ((struct sl_conn_step){ .next = SL_CONN_##n, .action = SL_ACT_##a })

static const char *const state_names[SL_CONN_STATE_COUNT_] = {
	[SL_CONN_ACCEPTED] = "accepted",       [SL_CONN_CLASSIFYING] = "classifying",
	[SL_CONN_CONNECTING] = "connecting",   [SL_CONN_HANDSHAKING] = "handshaking",
	[SL_CONN_ESTABLISHED] = "established", [SL_CONN_CLOSING] = "closing",
	[SL_CONN_CLOSED] = "closed",
};

const char *sl_conn_state_name(enum sl_conn_state state)
{
	return state_names[state];
}

struct sl_conn_step sl_conn_fsm_step(enum sl_conn_state state, enum sl_conn_event event,
				     bool targets_left)
{
	if (state == SL_CONN_CLOSED)
		return STEP(CLOSED, NONE); /* late events are normal, not bugs */
	if (event == SL_EV_ABORT || event == SL_EV_BOTH_FINISHED)
		return STEP(CLOSED, RELEASE);

	switch (state) {
	case SL_CONN_ACCEPTED:
		if (event == SL_EV_BYTES_NEEDED)
			return STEP(CLASSIFYING, READ_FIRST_BYTES);
		if (event == SL_EV_ROUTED)
			return STEP(CONNECTING, CONNECT);
		if (event == SL_EV_TLS_NEEDED)
			return STEP(HANDSHAKING, HANDSHAKE);
		if (event == SL_EV_ADOPTED)
			return STEP(ESTABLISHED, NONE);
		break;
	case SL_CONN_CLASSIFYING:
		if (event == SL_EV_ROUTED)
			return STEP(CONNECTING, CONNECT);
		if (event == SL_EV_TLS_NEEDED)
			return STEP(HANDSHAKING, HANDSHAKE);
		break;
	case SL_CONN_CONNECTING:
		if (event == SL_EV_CONNECTED)
			return STEP(ESTABLISHED, START_ENGINE);
		if (event == SL_EV_TLS_NEEDED)
			return STEP(HANDSHAKING, HANDSHAKE);
		if (event == SL_EV_CONNECT_FAILED)
			return targets_left ? STEP(CONNECTING, CONNECT) : STEP(CLOSED, RELEASE);
		break;
	case SL_CONN_HANDSHAKING:
		if (event == SL_EV_CLIENT_SECURED)
			return STEP(CONNECTING, CONNECT);
		if (event == SL_EV_SECURED)
			return STEP(ESTABLISHED, START_ENGINE);
		if (event == SL_EV_CONNECT_FAILED)
			return targets_left ? STEP(CONNECTING, CONNECT) : STEP(CLOSED, RELEASE);
		break;
	case SL_CONN_ESTABLISHED:
		if (event == SL_EV_ONE_FINISHED)
			return STEP(CLOSING, NONE);
		break;
	case SL_CONN_CLOSING:
	case SL_CONN_CLOSED:
	case SL_CONN_STATE_COUNT_:
		break;
	}
	return STEP(CLOSED, BUG); /* the caller counts it, releases, and goes on serving */
}
