/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CORE_DRIFT_KIND_H
#define SL_CORE_DRIFT_KIND_H

#include "core/reason.h"

/*
 * In what kernel and records may differ. The names are what `sluice diff` and
 * sluice_drift_total{kind} say: new ones come at the end.
 */
enum sl_drift_kind {
	SL_DRIFT_PACKET_ORPHAN = 0, /* a flow that this daemon had no record of */
	SL_DRIFT_PACKET_HALF,       /* one of the two entries of a flow was missing */
	SL_DRIFT_PACKET_LOST,       /* both were, of a connection that was not over */
	SL_DRIFT_PACKET_STRAY,      /* an entry that belongs to no connection */
	SL_DRIFT_PACKET_DROPPED,    /* a flow found at a start that cannot be carried on */
	SL_DRIFT_PACKET_LINK,
	SL_DRIFT_PACKET_PIN,
	SL_DRIFT_PACKET_PROGRAM, /* what works on an interface is not what it was */
	SL_DRIFT_NFT_TABLE,      /* an object of our table */
	SL_DRIFT_NFT_FLOW,       /* a record that a dump of connection tracking has set right */
	SL_DRIFT_NFT_SETTING,    /* of the host */
	SL_DRIFT_SOCKMAP_ENTRY,
	SL_DRIFT_SOCKMAP_ORPHAN,
	SL_DRIFT_SOCKMAP_PIN,
	SL_DRIFT_SOCKMAP_PROGRAM,
	SL_DRIFT_RECORDS,        /* broker and proxy count different numbers of connections */
	SL_DRIFT_PACKET_SETTING, /* of the host */
	SL_DRIFT_COUNT_,
};

/* What was done about it. */
enum sl_drift_done {
	SL_DRIFT_REPAIRED = 0, /* the kernel is as the records say again */
	SL_DRIFT_REMOVED,      /* from the kernel */
	SL_DRIFT_ADOPTED,      /* by the records */
	SL_DRIFT_ENDED,        /* the record is over */
	SL_DRIFT_WAITS,        /* for its grace, or the next attempt */
	SL_DRIFT_LEFT,         /* not healed; the words say why */
	SL_DRIFT_DONE_COUNT_,
};

const char *sl_drift_kind_name(enum sl_drift_kind kind);
enum sl_engine_id sl_drift_kind_engine(enum sl_drift_kind kind);
const char *sl_drift_kind_place(enum sl_drift_kind kind); /* "flows", "table", ... */
const char *sl_drift_done_name(enum sl_drift_done done);

#endif
