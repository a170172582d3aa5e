/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "core/drift_kind.h"

#include "base/cleanup.h"

static const struct {
	const char *name;
	enum sl_engine_id engine;
	const char *place;
} kinds[] = {
	[SL_DRIFT_PACKET_ORPHAN] = { "packet_orphan", SL_ENGINE_PACKET, "flows" },
	[SL_DRIFT_PACKET_HALF] = { "packet_half", SL_ENGINE_PACKET, "flows" },
	[SL_DRIFT_PACKET_LOST] = { "packet_lost", SL_ENGINE_PACKET, "flows" },
	[SL_DRIFT_PACKET_STRAY] = { "packet_stray", SL_ENGINE_PACKET, "flows" },
	[SL_DRIFT_PACKET_DROPPED] = { "packet_dropped", SL_ENGINE_PACKET, "flows" },
	[SL_DRIFT_PACKET_LINK] = { "packet_link", SL_ENGINE_PACKET, "links" },
	[SL_DRIFT_PACKET_PIN] = { "packet_pin", SL_ENGINE_PACKET, "pins" },
	[SL_DRIFT_PACKET_PROGRAM] = { "packet_program", SL_ENGINE_PACKET, "programs" },
	[SL_DRIFT_NFT_TABLE] = { "nft_table", SL_ENGINE_NFTABLES, "table" },
	[SL_DRIFT_NFT_FLOW] = { "nft_flow", SL_ENGINE_NFTABLES, "connection tracking" },
	[SL_DRIFT_NFT_SETTING] = { "nft_setting", SL_ENGINE_NFTABLES, "settings" },
	[SL_DRIFT_SOCKMAP_ENTRY] = { "sockmap_entry", SL_ENGINE_SOCKMAP, "flows" },
	[SL_DRIFT_SOCKMAP_ORPHAN] = { "sockmap_orphan", SL_ENGINE_SOCKMAP, "flows" },
	[SL_DRIFT_SOCKMAP_PIN] = { "sockmap_pin", SL_ENGINE_SOCKMAP, "pins" },
	[SL_DRIFT_SOCKMAP_PROGRAM] = { "sockmap_program", SL_ENGINE_SOCKMAP, "programs" },
	[SL_DRIFT_RECORDS] = { "records", SL_ENGINE_NONE, "connections" },
	[SL_DRIFT_PACKET_SETTING] = { "packet_setting", SL_ENGINE_PACKET, "settings" },
};
_Static_assert(SL_ARRAY_LEN(kinds) == SL_DRIFT_COUNT_, "all named");

const char *sl_drift_kind_name(enum sl_drift_kind kind)
{
	return kinds[kind].name;
}

enum sl_engine_id sl_drift_kind_engine(enum sl_drift_kind kind)
{
	return kinds[kind].engine;
}

const char *sl_drift_kind_place(enum sl_drift_kind kind)
{
	return kinds[kind].place;
}

const char *sl_drift_done_name(enum sl_drift_done done)
{
	static const char *const names[] = {
		[SL_DRIFT_REPAIRED] = "repaired", [SL_DRIFT_REMOVED] = "removed",
		[SL_DRIFT_ADOPTED] = "adopted",   [SL_DRIFT_ENDED] = "ended",
		[SL_DRIFT_WAITS] = "waits",       [SL_DRIFT_LEFT] = "left",
	};
	_Static_assert(SL_ARRAY_LEN(names) == SL_DRIFT_DONE_COUNT_, "all named");

	return names[done];
}
