/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BROKER_FLOW_H
#define SL_BROKER_FLOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "abi.h"
#include "base/list.h"
#include "broker/wire.h"
#include "io/loop.h"

struct sl_broker;
struct sl_peer;

/* What was last seen of one direction; index: enum sl_packet_side, by sender. */
struct sl_kflow_half {
	uint64_t bytes;
	uint64_t packets;
	uint64_t last_ns;
	uint64_t last_data_ns;
	uint64_t stuck_ms; /* packets are dropped and none gets through, since; 0: not so */
	uint32_t drops;
	uint32_t round; /* of the sweep */
	bool is_here;   /* there is an entry */
	bool is_broken; /* stuck for long, and packets still come */
	bool fin;
	bool peer_fin_acked;
	bool rst;
};

enum sl_kflow_stage {
	SL_KFLOW_LIVE = 0,
	SL_KFLOW_RESETTING, /* a RST was seen; data may still show that it was not meant */
	SL_KFLOW_OVER,      /* entries are held for late packets */
};

/* What its owner is to be told. */
enum {
	SL_TELL_ADOPT = 1,
	SL_TELL_CHANGED = 2,
	SL_TELL_ENDED = 4,
};

/* A flow of the kernel, as the broker knows it. Made by handover.c and sweep.c, owned by the table.
 */
struct sl_kflow {
	struct sl_kflow *next; /* in its bucket */
	struct sl_broker *broker;
	uint64_t conn_id;
	struct sl_packet_key key[2];
	struct sl_kflow_half half[2];
	enum sl_kflow_stage stage;
	enum sl_broker_end how;       /* with OVER */
	enum sl_packet_side rst_from; /* with RESETTING */
	uint64_t killed_ns;
	uint64_t asked_ms;             /* when a RST last made us ask; 0: never */
	enum sl_packet_side asked_for; /* who had sent it */
	uint8_t kill_step;             /* repeats so far */
	uint8_t told_marks;            /* FIN marks its owner was told of */
	uint8_t tell;                  /* SL_TELL_ bits */
	bool is_gone;                  /* both entries are */
	bool was_missing;              /* one or both were, and why may be told yet */
	bool is_elsewhere;             /* its port is of an earlier range */
	bool is_lingering;             /* our sockets of it are still there */
	bool is_orphan;                /* nobody is known to have a record of it */
	struct sl_peer *owner;  /* with is_orphan: it was told of the flow, and has not answered */
	struct sl_list own;     /* in the owner's list or the one of orphans without, or alone */
	struct sl_list todo;    /* in the owner's list of what is to be told, or alone */
	struct sl_list closing; /* in the sweep's list, or alone */
	struct sl_list seen;    /* in the table, longest unseen first */
	struct sl_timer timer;  /* RESETTING, or repeats of a kill */
};

struct sl_flow_table {
	struct sl_kflow **bucket;
	size_t n_buckets; /* a power of two */
	size_t n;
	size_t max;
	size_t n_over;
	size_t n_orphans;
	size_t n_elsewhere;
	uint8_t key[16]; /* of the hash: ids come from processes that may mean ill */
	struct sl_list seen;
};

/* `max` flows. */
SL_MUST_CHECK int sl_flow_table_init(struct sl_flow_table *t, size_t max);
/* Frees the flows, too; nothing else may refer to them. */
void sl_flow_table_done(struct sl_flow_table *t);

struct sl_kflow *sl_flow_find(const struct sl_flow_table *t, uint64_t conn_id);
/* -EEXIST; -ENOSPC: full. */
SL_MUST_CHECK int sl_flow_add(struct sl_broker *b, uint64_t conn_id,
			      const struct sl_packet_key key[2], struct sl_kflow **ret);
/* Its port on our side is not of the range of the newest policy. */
bool sl_flow_is_elsewhere(const struct sl_broker *b, const struct sl_packet_key key[2]);
/* The policy has other ports. */
void sl_flow_table_count_ports(struct sl_broker *b);
/* Out of every list. */
void sl_flow_drop(struct sl_kflow *f);

/* Who has the record: a peer, or one that is yet to be found, or nobody needs to. */
void sl_flow_give(struct sl_kflow *f, struct sl_peer *peer);
void sl_flow_orphan(struct sl_kflow *f);
void sl_flow_disown(struct sl_kflow *f);

/* Copies what an entry says; `round`: the sweep's. */
void sl_flow_note(struct sl_kflow *f, const struct sl_packet_flow *entry, uint32_t round);

#endif
