/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "nft/ct_table.h"

#include <assert.h>
#include <errno.h>
#include <linux/netfilter/nf_conntrack_common.h>

#define NS_PER_S UINT64_C(1000000000)
#define CLOCK_SLACK_NS (NS_PER_S / 100) /* our clock may be set back a little */

enum stage {
	LIVE = 0,
	OVER, /* its end is told; the kernel may still have an entry */
	GONE, /* the entry is gone; kept while a dump runs that may have met it earlier */
};

struct sl_ct_record {
	struct sl_ct_record *next;      /* in its bucket */
	struct sl_ct_record *next_live; /* in that of its serial, while LIVE */
	struct sl_list all;
	struct sl_list todo;
	struct sl_ct_flow flow;
	uint64_t serial;
	uint64_t start_ns;
	uint64_t end_ns;
	uint64_t active_ns; /* it certainly had packets until then */
	uint64_t before_ns; /* the one before of its key began then; 0: none, or unknown */
	enum stage stage;
	enum sl_reason reason;
	uint32_t round; /* the last dump that it was in, or was made during */
	uint8_t tell;
	bool had_new;
	bool is_adopted;
	bool is_resynced;
	bool is_filed; /* in a bucket; otherwise only what is to be told keeps it */
};

/* ---- times and reasons ---- */

void sl_ct_timeouts_default(struct sl_ct_timeouts *t)
{
	/* tcp_timeouts of nf_conntrack_proto_tcp.c, udp_timeouts of nf_conntrack_proto_udp.c */
	*t = (struct sl_ct_timeouts){
		.tcp_s = {
			[SL_CT_TCP_SYN_SENT] = 120,
			[SL_CT_TCP_SYN_RECV] = 60,
			[SL_CT_TCP_ESTABLISHED] = 432000,
			[SL_CT_TCP_FIN_WAIT] = 120,
			[SL_CT_TCP_CLOSE_WAIT] = 60,
			[SL_CT_TCP_LAST_ACK] = 30,
			[SL_CT_TCP_TIME_WAIT] = 120,
			[SL_CT_TCP_CLOSE] = 10,
			[SL_CT_TCP_SYN_SENT2] = 120,
		},
		.udp_s = 30,
		.udp_stream_s = 120,
	};
}

static uint32_t timeout_of(const struct sl_ct_table *t, const struct sl_ct_flow *f)
{
	if (f->protocol == IPPROTO_TCP)
		return t->timeouts.tcp_s[f->tcp];
	return f->status & IPS_ASSURED ? t->timeouts.udp_stream_s : t->timeouts.udp_s;
}

/* Until its last packet or until it was taken out, `now_ns` being when the entry was as `f` says.
 */
static uint64_t end_of(const struct sl_ct_table *t, const struct sl_ct_record *r, uint64_t now_ns)
{
	const struct sl_ct_flow *f = &r->flow;
	uint64_t end_ns = f->stop_ns ? f->stop_ns : now_ns;
	uint32_t timeout_s = timeout_of(t, f);
	uint32_t left_s = f->has_timeout ? f->timeout_s : 0;
	uint64_t silent_ns = timeout_s > left_s ? (timeout_s - left_s) * NS_PER_S : 0;

	if (r->reason != SL_REASON_NFTABLES_CLOSED)
		end_ns = silent_ns < end_ns ? end_ns - silent_ns : 0;
	/* the kernel shortens a timeout now and then: after retransmissions, for one */
	return end_ns > r->active_ns ? end_ns : r->active_ns;
}

static enum sl_reason reason_of_close(const struct sl_ct_flow *f)
{
	/* a RST as the only answer; one from the client leaves no packet in the other direction */
	bool is_refused = !(f->status & IPS_SEEN_REPLY) && f->count[SL_CT_REPLY].packets > 0;

	return is_refused ? SL_REASON_ECONNREFUSED : SL_REASON_ECONNRESET;
}

static enum sl_reason reason_of_tcp(const struct sl_ct_flow *f)
{
	switch (f->tcp) {
	case SL_CT_TCP_SYN_SENT:
	case SL_CT_TCP_SYN_SENT2:
	case SL_CT_TCP_SYN_RECV:
		return SL_REASON_CONNECTION_TIMEOUT;
	case SL_CT_TCP_ESTABLISHED:
		return SL_REASON_INACTIVITY;
	case SL_CT_TCP_FIN_WAIT:
	case SL_CT_TCP_CLOSE_WAIT:
	case SL_CT_TCP_LAST_ACK:
	case SL_CT_TCP_TIME_WAIT:
		return SL_REASON_NORMAL;
	case SL_CT_TCP_CLOSE:
		return reason_of_close(f);
	case SL_CT_TCP_NONE:
	case SL_CT_TCP_COUNT_:
		break;
	}
	return SL_REASON_NFTABLES_CLOSED;
}

enum sl_reason sl_ct_reason(const struct sl_ct_flow *f, bool is_cut)
{
	bool is_early = is_cut || (f->kind == SL_CT_DESTROY && f->has_timeout && f->timeout_s > 0);
	bool is_finished = f->tcp == SL_CT_TCP_LAST_ACK || f->tcp == SL_CT_TCP_TIME_WAIT ||
			   f->tcp == SL_CT_TCP_CLOSE;

	if (is_early && !is_finished)
		return SL_REASON_NFTABLES_CLOSED;
	if (f->protocol == IPPROTO_TCP)
		return reason_of_tcp(f);
	return f->status & IPS_SEEN_REPLY ? SL_REASON_INACTIVITY : SL_REASON_CONNECTION_TIMEOUT;
}

/* The entry stays for retransmissions, but both sides are done. */
static bool is_finished_entry(const struct sl_ct_flow *f)
{
	return f->tcp == SL_CT_TCP_TIME_WAIT || f->tcp == SL_CT_TCP_CLOSE;
}

/* ---- records ---- */

/* The id comes out of a keyed hash, so nobody can aim at one bucket; older kernels give addresses.
 */
static size_t bucket_of(const struct sl_ct_table *t, uint32_t id)
{
	return (size_t)((id * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & (t->n_buckets - 1);
}

static bool is_same(const struct sl_ct_flow *a, const struct sl_ct_flow *b)
{
	const struct sl_ct_tuple *x = &a->tuple[SL_CT_ORIG];
	const struct sl_ct_tuple *y = &b->tuple[SL_CT_ORIG];

	return a->id == b->id && a->protocol == b->protocol && a->zone == b->zone &&
	       sl_addr_is_equal(&x->src, &y->src) && sl_addr_is_equal(&x->dst, &y->dst);
}

static struct sl_ct_record *find(const struct sl_ct_table *t, const struct sl_ct_flow *f)
{
	struct sl_ct_record *r = t->bucket[bucket_of(t, f->id)];

	while (r && !is_same(&r->flow, f))
		r = r->next;
	return r;
}

static struct sl_ct_record **live_bucket(const struct sl_ct_table *t, uint64_t serial)
{
	return &t->by_serial[serial & (t->n_buckets - 1)];
}

static void add_live(struct sl_ct_table *t, struct sl_ct_record *r)
{
	struct sl_ct_record **at = live_bucket(t, r->serial);

	r->next_live = *at;
	*at = r;
	t->n_live++;
}

static void remove_live(struct sl_ct_table *t, struct sl_ct_record *r)
{
	struct sl_ct_record **at = live_bucket(t, r->serial);

	while (*at != r)
		at = &(*at)->next_live;
	*at = r->next_live;
	t->n_live--;
}

static void tell(struct sl_ct_table *t, struct sl_ct_record *r, unsigned what)
{
	if (r->tell == 0)
		sl_list_add(&t->todo, &r->todo);
	r->tell |= (uint8_t)what;
}

/* Of what passes by a flow table the kernel does not say it, but only established flows do. */
static enum sl_ct_tcp untold_state(const struct sl_ct_flow *f, enum sl_ct_tcp before)
{
	return f->protocol == IPPROTO_TCP && f->status & IPS_OFFLOAD ? SL_CT_TCP_ESTABLISHED
								     : before;
}

static struct sl_ct_record *add(struct sl_ct_table *t, const struct sl_ct_flow *f, uint64_t now_ns)
{
	struct sl_ct_record **at = &t->bucket[bucket_of(t, f->id)];
	struct sl_ct_record *r = t->n < t->max ? calloc(1, sizeof(*r)) : NULL;

	if (!r) {
		t->counts.not_taken++;
		return NULL;
	}
	r->flow = *f;
	if (f->tcp == SL_CT_TCP_NONE)
		r->flow.tcp = untold_state(f, SL_CT_TCP_NONE);
	r->serial = ++t->last_serial;
	r->had_new = f->kind == SL_CT_NEW;
	r->start_ns = f->start_ns ? f->start_ns : now_ns;
	r->active_ns = f->start_ns || r->had_new ? r->start_ns : 0;
	r->round = t->round;
	r->is_adopted = !r->had_new;
	r->is_filed = true;
	r->next = *at;
	*at = r;
	sl_list_add(&t->all, &r->all);
	sl_list_init(&r->todo);
	tell(t, r, SL_CT_TELL_NEW);
	t->n++;
	t->n_filed++;
	add_live(t, r);
	t->counts.opened++;
	return r;
}

static void drop_if_told(struct sl_ct_table *t, struct sl_ct_record *r)
{
	if (r->is_filed || r->tell != 0)
		return;
	t->n--;
	free(r);
}

/* Out of the buckets; its tuple may come back as another flow. */
static void unfile(struct sl_ct_table *t, struct sl_ct_record *r)
{
	struct sl_ct_record **at = &t->bucket[bucket_of(t, r->flow.id)];

	while (*at != r)
		at = &(*at)->next;
	*at = r->next;
	sl_list_remove(&r->all);
	r->is_filed = false;
	t->n_filed--;
	drop_if_told(t, r);
}

/* A message may say less than what is known: without accounting there are no counts, for one. */
static void merge(struct sl_ct_record *r, const struct sl_ct_flow *f)
{
	struct sl_ct_flow old = r->flow;

	r->flow = *f;
	r->flow.mark = old.mark; /* whose it is does not change, whoever changes the mark */
	if (!f->has_counts) {
		r->flow.has_counts = old.has_counts;
		for (int d = 0; d < SL_CT_DIR_COUNT_; d++)
			r->flow.count[d] = old.count[d];
	}
	if (f->tcp == SL_CT_TCP_NONE)
		r->flow.tcp = untold_state(f, old.tcp);
	if (f->start_ns)
		r->start_ns = f->start_ns;
	else
		r->flow.start_ns = old.start_ns;
}

static void end(struct sl_ct_table *t, struct sl_ct_record *r, enum sl_reason reason,
		uint64_t now_ns)
{
	assert(r->stage == LIVE);
	r->stage = OVER;
	r->reason = reason;
	r->end_ns = end_of(t, r, now_ns);
	if (r->start_ns > r->end_ns)
		r->start_ns = r->end_ns; /* when it was first seen, long after that */
	tell(t, r, SL_CT_TELL_ENDED);
	remove_live(t, r);
}

/* It has been silent, for all we know, for as long as the kernel waits. */
static bool may_have_expired(const struct sl_ct_table *t, const struct sl_ct_record *r,
			     uint64_t now_ns)
{
	uint64_t known_ns = r->active_ns > r->start_ns ? r->active_ns : r->start_ns;

	/* a NEW does not say when, and may have been read long after */
	if (r->flow.protocol == IPPROTO_UDP && !r->flow.has_counts)
		return true;
	return now_ns >= known_ns + timeout_of(t, &r->flow) * NS_PER_S;
}

/*
 * Its DESTROY was lost: somebody else has its place, or the dump did not have it. Most entries go
 * by themselves; only one that had time left was taken out.
 */
static void end_unheard(struct sl_ct_table *t, struct sl_ct_record *r, uint64_t now_ns)
{
	if (r->stage == LIVE) {
		bool is_cut = !may_have_expired(t, r, now_ns);

		r->is_resynced = true;
		t->counts.resynced++;
		r->flow.timeout_s = 0; /* of the last look; none is left by now */
		end(t, r, sl_ct_reason(&r->flow, is_cut), now_ns);
	}
	unfile(t, r);
}

/* ---- messages ---- */

/*
 * Whether the entry of that key is another than that of the record: a kernel gives the same id to
 * the next entry of a tuple when it lies at the same place.
 */
static bool is_successor(const struct sl_ct_record *r, const struct sl_ct_flow *f)
{
	/* one NEW may be late, when a dump was faster, but not later than its own DESTROY */
	if (f->kind == SL_CT_NEW)
		return r->had_new || r->stage == GONE;
	if (r->flow.start_ns)
		return f->start_ns > r->flow.start_ns;
	/* a NEW does not say when; it began before we heard of it */
	return f->start_ns > r->start_ns + CLOCK_SLACK_NS;
}

/* The other way round: the message is of an earlier entry of that key. */
static bool is_outdated(const struct sl_ct_record *r, const struct sl_ct_flow *f)
{
	return f->start_ns && ((r->flow.start_ns && f->start_ns < r->flow.start_ns) ||
			       f->start_ns <= r->before_ns);
}

static bool has_grown(const struct sl_ct_flow *a, const struct sl_ct_flow *b)
{
	return b->has_counts && (a->count[SL_CT_ORIG].packets != b->count[SL_CT_ORIG].packets ||
				 a->count[SL_CT_REPLY].packets != b->count[SL_CT_REPLY].packets);
}

static void refresh(struct sl_ct_table *t, struct sl_ct_record *r, const struct sl_ct_flow *f,
		    uint64_t now_ns)
{
	/* what the first dump shows happened before we knew the flow, perhaps long ago */
	bool had_counts = r->flow.has_counts;
	bool grown = has_grown(&r->flow, f);
	enum sl_ct_tcp before = r->flow.tcp;
	bool changed = grown || r->flow.status != f->status;

	merge(r, f);
	changed |= r->flow.tcp != before;
	if (is_finished_entry(f)) {
		end(t, r, sl_ct_reason(f, false), now_ns);
		return;
	}
	if (grown && had_counts)
		r->active_ns = now_ns;
	if (changed)
		tell(t, r, SL_CT_TELL_CHANGED);
}

static void note_another(struct sl_ct_table *t, const struct sl_ct_flow *f, uint64_t before_ns,
			 uint64_t now_ns)
{
	struct sl_ct_record *r = f->status & IPS_DYING ? NULL : add(t, f, now_ns);

	if (!r)
		return;
	r->before_ns = before_ns;
	if (is_finished_entry(f))
		end(t, r, sl_ct_reason(f, false), now_ns);
}

static void note_alive(struct sl_ct_table *t, const struct sl_ct_flow *f, uint64_t now_ns)
{
	struct sl_ct_record *r = find(t, f);
	uint64_t before_ns = 0;

	if (r && is_successor(r, f)) {
		before_ns = r->flow.start_ns;
		end_unheard(t, r, now_ns);
		r = NULL;
	}
	if (!r) {
		note_another(t, f, before_ns, now_ns);
		return;
	}
	/* an answer to a dump may be older than the DESTROY that was read before it */
	if (r->stage == GONE || is_outdated(r, f))
		return;
	r->round = t->round; /* also of one that dies, whose DESTROY is about to be sent */
	if (f->kind == SL_CT_NEW)
		r->had_new = true; /* a dump was faster, and said more */
	else if (r->stage == LIVE && !(f->status & IPS_DYING))
		refresh(t, r, f, now_ns);
}

static void note_destroyed(struct sl_ct_table *t, const struct sl_ct_flow *f, uint64_t now_ns)
{
	struct sl_ct_record *r = find(t, f);

	if (r && is_successor(r, f)) {
		end_unheard(t, r, now_ns);
		r = NULL;
	}
	if (r && (r->stage == GONE || is_outdated(r, f)))
		return;
	if (!r)
		r = add(t, f, now_ns);
	if (!r)
		return;
	if (r->stage == LIVE) {
		merge(r, f);
		end(t, r, sl_ct_reason(f, false), now_ns);
	}
	r->stage = GONE;
	if (!t->is_dumping)
		unfile(t, r);
}

void sl_ct_table_note(struct sl_ct_table *t, const struct sl_ct_flow *f, uint64_t now_ns)
{
	if (f->kind == SL_CT_DESTROY)
		note_destroyed(t, f, now_ns);
	else
		note_alive(t, f, now_ns);
}

/* ---- dumps ---- */

void sl_ct_table_dump_begin(struct sl_ct_table *t)
{
	assert(!t->is_dumping && t->n_to_sweep == 0);
	t->is_dumping = true;
	t->round++;
}

void sl_ct_table_dump_end(struct sl_ct_table *t, bool is_whole)
{
	assert(t->is_dumping);
	t->is_dumping = false;
	t->sweep_ends_missing = is_whole;
	t->n_to_sweep = t->n_filed;
}

/* From the head of the list to its end, where those are that came meanwhile. */
bool sl_ct_table_sweep(struct sl_ct_table *t, size_t n, uint64_t now_ns)
{
	for (; n > 0 && t->n_to_sweep > 0 && !sl_list_is_empty(&t->all); n--, t->n_to_sweep--) {
		struct sl_ct_record *r = SL_CONTAINER_OF(t->all.next, struct sl_ct_record, all);

		sl_list_remove(&r->all);
		sl_list_add(&t->all, &r->all);
		if (r->stage == GONE)
			unfile(t, r);
		else if (t->sweep_ends_missing && r->round != t->round)
			end_unheard(t, r, now_ns);
	}
	if (sl_list_is_empty(&t->all))
		t->n_to_sweep = 0;
	return t->n_to_sweep > 0;
}

/* ---- telling ---- */

static void describe(const struct sl_ct_record *r, struct sl_ct_change *ret)
{
	*ret = (struct sl_ct_change){
		.serial = r->serial,
		.what = r->tell,
		.is_adopted = r->is_adopted,
		.is_resynced = r->is_resynced,
		.reason = r->reason,
		.start_ns = r->start_ns,
		.end_ns = r->end_ns,
		.flow = r->flow,
	};
}

size_t sl_ct_table_take(struct sl_ct_table *t, struct sl_ct_change *ret, size_t n)
{
	size_t i;

	for (i = 0; i < n && !sl_list_is_empty(&t->todo); i++) {
		struct sl_ct_record *r = SL_CONTAINER_OF(t->todo.next, struct sl_ct_record, todo);

		describe(r, &ret[i]);
		sl_list_remove(&r->todo);
		r->tell = 0;
		drop_if_told(t, r);
	}
	return i;
}

void sl_ct_table_retell(struct sl_ct_table *t)
{
	struct sl_list *node;

	sl_list_for_each (node, &t->all) {
		struct sl_ct_record *r = SL_CONTAINER_OF(node, struct sl_ct_record, all);

		if (r->stage == LIVE)
			tell(t, r, SL_CT_TELL_AGAIN);
	}
}

bool sl_ct_table_find(const struct sl_ct_table *t, uint64_t serial, struct sl_ct_flow *ret)
{
	const struct sl_ct_record *r = *live_bucket(t, serial);

	while (r && r->serial != serial)
		r = r->next_live;
	if (r)
		*ret = r->flow;
	return r;
}

void sl_ct_table_each(const struct sl_ct_table *t, sl_ct_flow_fn fn, void *arg)
{
	struct sl_list *node;

	sl_list_for_each (node, &t->all) {
		const struct sl_ct_record *r = SL_CONTAINER_OF(node, struct sl_ct_record, all);

		if (r->stage == LIVE)
			fn(arg, &r->flow);
	}
}

/* ---- table ---- */

int sl_ct_table_init(struct sl_ct_table *t, size_t max, const struct sl_ct_timeouts *timeouts)
{
	struct sl_ct_record **bucket;
	struct sl_ct_record **by_serial;
	size_t n = 64;

	if (max == 0 || max > UINT32_MAX)
		return -EINVAL;
	while (n < max)
		n <<= 1;
	bucket = calloc(n, sizeof(*bucket));
	by_serial = calloc(n, sizeof(*by_serial));
	if (!bucket || !by_serial) {
		free(bucket);
		free(by_serial);
		return -ENOMEM;
	}
	*t = (struct sl_ct_table){ .bucket = bucket,
				   .by_serial = by_serial,
				   .n_buckets = n,
				   .max = max,
				   .timeouts = *timeouts };
	sl_list_init(&t->all);
	sl_list_init(&t->todo);
	return 0;
}

void sl_ct_table_grow(struct sl_ct_table *t, size_t max)
{
	if (max > t->max && max <= UINT32_MAX)
		t->max = max;
}

void sl_ct_table_done(struct sl_ct_table *t)
{
	struct sl_list *node;
	struct sl_list *tmp;

	if (!t->bucket)
		return;
	sl_list_for_each_safe (node, tmp, &t->all)
		unfile(t, SL_CONTAINER_OF(node, struct sl_ct_record, all));
	sl_list_for_each_safe (node, tmp, &t->todo)
		free(SL_CONTAINER_OF(node, struct sl_ct_record, todo));
	free(t->bucket);
	free(t->by_serial);
	*t = (struct sl_ct_table){ 0 };
}
