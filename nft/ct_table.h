/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_NFT_CT_TABLE_H
#define SL_NFT_CT_TABLE_H

#include "base/list.h"
#include "core/reason.h"
#include "nft/ct_msg.h"

/*
 * The flows of the kernel's NAT as we know them: records made of events (NEW, DESTROY) and of
 * dumps, and what is yet to be told about each. No system call and no clock, one thread at a time.
 *
 * Events alone are not enough. They are lost when we are slow, come not at all for flows older
 * than the first listener, and the entry of a closed TCP connection stays for two minutes. So a
 * dump every few seconds is the truth: it brings counts, ends what is over though its entry stays,
 * adds what is missing here, and ends what is missing there.
 *
 * What is told is never queued by copying: a record is once in the list, however often it
 * changed, and stays until it was taken. So a slow reader costs nothing but memory, which `max`
 * bounds; flows that find no room are counted, and found by a later dump if they last.
 */

/* How long an entry stays after its last packet (net.netfilter.nf_conntrack_*_timeout_*). */
struct sl_ct_timeouts {
	uint32_t tcp_s[SL_CT_TCP_COUNT_];
	uint32_t udp_s;
	uint32_t udp_stream_s;
};

/* Those of the kernel when nobody changed them. */
void sl_ct_timeouts_default(struct sl_ct_timeouts *t);

enum {
	SL_CT_TELL_NEW = 1,
	SL_CT_TELL_CHANGED = 2, /* counts, status or TCP state, seen by a dump */
	SL_CT_TELL_ENDED = 4,
	SL_CT_TELL_AGAIN = 8, /* sl_ct_table_retell() */
};

/* What is told of a flow. */
struct sl_ct_change {
	uint64_t serial;  /* of the record; never used twice by a table */
	uint8_t what;     /* SL_CT_TELL_ bits: a short flow is NEW and ENDED at once */
	bool is_adopted;  /* found by a dump, or first heard of at its end */
	bool is_resynced; /* its end was not heard of, only noticed; counts are the last seen */
	enum sl_reason reason; /* with ENDED */
	uint64_t start_ns;     /* since 1970; when first seen, where the kernel did not say */
	uint64_t end_ns;       /* with ENDED: its last packet, as far as that can be told */
	struct sl_ct_flow flow;
};

struct sl_ct_counts {
	uint64_t opened;    /* records made */
	uint64_t resynced;  /* of these: ended without a DESTROY that was heard */
	uint64_t not_taken; /* times that a flow found no room */
};

struct sl_ct_record;

struct sl_ct_table {
	struct sl_ct_record **bucket;
	struct sl_ct_record **by_serial; /* live ones; as many buckets */
	size_t n_buckets;                /* a power of two */
	size_t n;                        /* records, told or not */
	size_t n_filed;                  /* of these: in buckets */
	size_t n_live;
	size_t max;
	uint64_t last_serial;
	struct sl_ct_timeouts timeouts;
	struct sl_list all;  /* those in buckets */
	struct sl_list todo; /* those of which something is to be told */
	uint32_t round;      /* of dumps */
	bool is_dumping;
	size_t n_to_sweep;
	bool sweep_ends_missing;
	struct sl_ct_counts counts;
};

/* Room for `max` records: what nf_conntrack_max allows, or flows are missed before it is full. */
SL_MUST_CHECK int sl_ct_table_init(struct sl_ct_table *t, size_t max,
				   const struct sl_ct_timeouts *timeouts);
/* Room for more than before, or nothing; the buckets stay, so each has more. */
void sl_ct_table_grow(struct sl_ct_table *t, size_t max);
void sl_ct_table_done(struct sl_ct_table *t); /* a zeroed table is fine */

/*
 * What a message said; of ours alone: the caller looks at the mark. `now_ns` since 1970, read
 * after the message was received.
 */
void sl_ct_table_note(struct sl_ct_table *t, const struct sl_ct_flow *f, uint64_t now_ns);

/*
 * Around the messages of one dump. Before each of them what was queued of events when it was
 * received must have been noted: it may show the next entry of a key, and only the DESTROY that is
 * queued says how the one before ended. Events go on being noted meanwhile, and after `end`, up to
 * the last that was queued when the dump ended: the kernel sends an entry's DESTROY before it
 * takes it out of the table, so what neither the dump nor these events showed is gone. Then
 * sweep() until it returns false; begin() must wait for that. A dump that broke off
 * (`is_whole` false) ends nothing.
 */
void sl_ct_table_dump_begin(struct sl_ct_table *t);
void sl_ct_table_dump_end(struct sl_ct_table *t, bool is_whole);
/* Looks at up to `n` records; true: there are more. */
bool sl_ct_table_sweep(struct sl_ct_table *t, size_t n, uint64_t now_ns);

/* Takes up to `n` changes, oldest first; returns how many. */
size_t sl_ct_table_take(struct sl_ct_table *t, struct sl_ct_change *ret, size_t n);

/* All live ones are to be told of, whatever was told: to somebody who knows of none. */
void sl_ct_table_retell(struct sl_ct_table *t);

/* The live flow of that record; false: there is none. */
bool sl_ct_table_find(const struct sl_ct_table *t, uint64_t serial, struct sl_ct_flow *ret);

/* Calls `fn` for each live flow. */
typedef void (*sl_ct_flow_fn)(void *arg, const struct sl_ct_flow *f);
void sl_ct_table_each(const struct sl_ct_table *t, sl_ct_flow_fn fn, void *arg);

/* Why a flow ended: `f` is its DESTROY, or with `is_cut` what was last seen of one taken out. */
enum sl_reason sl_ct_reason(const struct sl_ct_flow *f, bool is_cut);

#endif
