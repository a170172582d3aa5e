/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "core/reason.h"

#include <errno.h>

struct word {
	const char *name;
	const char *text;
};

static const struct word reasons[SL_REASON_COUNT_] = { [SL_REASON_NONE] = { "-", "not ended" },
#define X(id, name, text) [SL_REASON_##id] = { name, text },
						       SL_REASONS(X)
#undef X
};

static const struct word engine_reasons[SL_WHY_COUNT_] = { [SL_WHY_NONE] = { "-", "no engine yet" },
#define X(id, name, text) [SL_WHY_##id] = { name, text },
							   SL_ENGINE_REASONS(X)
#undef X
};

static const char *const engines[SL_ENGINE_COUNT_ + 1] = {
	[SL_ENGINE_RELAY] = "relay",     [SL_ENGINE_PACKET] = "packet",
	[SL_ENGINE_SOCKMAP] = "sockmap", [SL_ENGINE_NFTABLES] = "nftables",
	[SL_ENGINE_NONE] = "-",
};

const char *sl_reason_name(enum sl_reason reason)
{
	return reasons[reason].name;
}

const char *sl_reason_text(enum sl_reason reason)
{
	return reasons[reason].text;
}

enum sl_reason sl_reason_from_errno(int err)
{
	switch (err) {
	case ECONNRESET:
		return SL_REASON_ECONNRESET;
	case ETIMEDOUT:
		return SL_REASON_ETIMEDOUT;
	case ECONNREFUSED:
		return SL_REASON_ECONNREFUSED;
	case EHOSTUNREACH:
	case EHOSTDOWN:
		return SL_REASON_EHOSTUNREACH;
	case ENETUNREACH:
	case ENETDOWN:
		return SL_REASON_ENETUNREACH;
	case EPIPE:
		return SL_REASON_EPIPE;
	default:
		return SL_REASON_ERROR;
	}
}

const char *sl_side_name(enum sl_side side)
{
	return side == SL_CLIENT ? "client" : "backend";
}

const char *sl_engine_name(enum sl_engine_id engine)
{
	return engines[engine];
}

const char *sl_engine_reason_name(enum sl_engine_reason why)
{
	return engine_reasons[why].name;
}

const char *sl_engine_reason_text(enum sl_engine_reason why)
{
	return engine_reasons[why].text;
}
