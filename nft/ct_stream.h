/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_NFT_CT_STREAM_H
#define SL_NFT_CT_STREAM_H

#include "nft/ct_request.h"
#include "nft/ct_table.h"

/*
 * A thread that follows the flows with our marks in the connection tracking of the network
 * namespace it was started in, and keeps their records (nft/ct_table.h). Its owner waits for
 * sl_ct_stream_fd() and takes what is new. Events are read together, 10 ms after those before
 * at the soonest, unless a dump needs them. However slow the owner is, the thread goes on reading;
 * when the kernel had to drop events all the same (ENOBUFS), a dump sets things right.
 *
 * The kernel's answer to a dump goes through the whole table: about 2 ms for 1000 entries, whose
 * marks do not matter. Dumps are at least `dump_ms` apart, and further when they would take more
 * than a twentieth of a processor.
 */

struct sl_ct_stream_conf {
	uint32_t mark_base; /* ours are mark_base to mark_base + n_marks - 1, but never 0 */
	uint32_t n_marks;
	size_t max_records; /* at least nf_conntrack_max, or some are missed before that is reached
			     */
	unsigned dump_ms;   /* ends of TCP connections are told at most this and a dump late */
	size_t rcvbuf;      /* bytes for events not yet read; 32 MiB held 44,000 flows a second */
	struct sl_ct_timeouts timeouts;
	uint64_t first_serial; /* of records; greater than any of an earlier stream */
};

struct sl_ct_stream_counts {
	struct sl_ct_counts table;
	uint64_t records;      /* kept now */
	uint64_t live;         /* of these: not ended */
	uint64_t foreign;      /* messages with other marks */
	uint64_t overruns;     /* times that the kernel dropped events */
	uint64_t dumps;        /* whole ones */
	uint64_t dumps_failed; /* refused or broken off */
	uint64_t last_dump_us; /* processor time it took */
	uint64_t apart_us;     /* the next one comes that long after it, unless in a hurry */
};

struct sl_ct_stream;

/*
 * -EPERM (no CAP_NET_ADMIN), -EPROTONOSUPPORT (no nfnetlink, or nothing of connection tracking in
 * it), ...; `ret_what` says what was being tried. What the kernel has as modules is loaded when
 * this returns, so every flow that begins afterwards is heard of. The thread needs no right
 * afterwards, and these system calls: poll, recvmmsg, recvmsg, sendto, read, write, clock_gettime,
 * futex, madvise, exit, and what malloc() uses. It blocks all signals.
 */
SL_MUST_CHECK int sl_ct_stream_start(const struct sl_ct_stream_conf *conf,
				     struct sl_ct_stream **ret, const char **ret_what);
/* Ends the thread, waits for it, and forgets all records. NULL is fine. */
void sl_ct_stream_stop(struct sl_ct_stream *s);

/* Readable while there is something to take. Nobody else reads it. */
int sl_ct_stream_fd(const struct sl_ct_stream *s);

/* Takes up to `n` changes, oldest first; returns how many. Waits for the thread a millisecond or
 * two at most. */
size_t sl_ct_stream_take(struct sl_ct_stream *s, struct sl_ct_change *ret, size_t n);

void sl_ct_stream_get_counts(struct sl_ct_stream *s, struct sl_ct_stream_counts *ret);

/* Asks for a dump now, say after a change of the rules. */
void sl_ct_stream_dump_soon(struct sl_ct_stream *s);

/* Of the table, for the owner: what is live is to be taken again; what is live. */
void sl_ct_stream_retell(struct sl_ct_stream *s);
/* More room than there was; less is ignored. */
void sl_ct_stream_grow(struct sl_ct_stream *s, size_t max_records);
bool sl_ct_stream_find(struct sl_ct_stream *s, uint64_t serial, struct sl_ct_flow *ret);
/* `fn` must not call this stream. */
void sl_ct_stream_each(struct sl_ct_stream *s, sl_ct_flow_fn fn, void *arg);

/*
 * Delete entries; their records end as `nftables_closed` when the DESTROY comes. Waits for the
 * kernel, about 1 ms for 1000 entries. From any thread. -EINVAL: not marks of ours alone; -ENOENT:
 * that flow is gone already; otherwise what the kernel said.
 */
SL_MUST_CHECK int sl_ct_stream_delete_marks(struct sl_ct_stream *s, struct sl_ct_marks marks);
SL_MUST_CHECK int sl_ct_stream_delete_flow(struct sl_ct_stream *s, const struct sl_ct_flow *f);

SL_DEFINE_CLEANUP(struct sl_ct_stream, sl_ct_stream_stop);

#endif
