/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BPF_PACKET_CLOSE_H
#define SL_BPF_PACKET_CLOSE_H

/*
 * How connections end, as far as packets tell. Nothing is deleted here except when a new
 * connection needs the tuple: a segment that comes late must still find its entry.
 */
#include "packet.h"

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} events SEC(".maps");

static __always_inline void emit(const struct sl_packet_flow *f, enum sl_packet_event_kind kind)
{
	struct sl_packet_event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);

	if (!e) {
		COUNT(events_lost);
		return;
	}
	e->conn_id = f->conn_id;
	e->kind = kind;
	e->from = f->from;
	bpf_ringbuf_submit(e, 0);
}

/* What the other side has acknowledged of `f`, in the numbers of f's sender. */
static __always_inline __u32 acknowledged(const struct sl_packet_flow *other)
{
	return other->max_ack + other->ack_delta;
}

/*
 * A FIN alone proves nothing, as it may lie behind a hole; the other side's acknowledgement
 * does. So its number is left where that side's packets are looked up. One outside of what
 * is open between the two is not theirs: max_seq has not followed it, or it is long past.
 */
static __always_inline void note_fin(struct sl_packet_flow *f, struct sl_packet_flow *other,
				     const struct segment *s)
{
	__u32 end = s->seq + s->payload + 1;

	if (f->fin || distance(end, f->max_seq) < 0)
		return;
	if (other) {
		if (distance(acknowledged(other), end) < 0)
			return;
		other->peer_fin_seq = end + f->seq_delta;
		asm volatile("" ::: "memory");
		other->peer_fin = 1;
	}
	f->fin_seq = end;
	f->fin = 1;
	emit(f, SL_PACKET_EV_FIN);
}

/*
 * Anybody can send a RST. One within what the receiver may take for the next octet is a mark;
 * whether the receiver took it is not known (RFC 5961 section 3 asks for the exact number), so
 * the mark is taken back when its sender goes on. One ahead of all that was seen may be that of
 * a sender whose last octets were lost; it is for userspace to ask him.
 */
static __always_inline void note_rst(struct sl_packet_flow *f, const struct sl_packet_flow *other,
				     const struct segment *s)
{
	__u32 ahead = s->seq - f->max_seq;

	if (!other || distance(acknowledged(other), s->seq) < 0 || distance(0, ahead) > 0) {
		COUNT(rst_ignored);
		if (other && ahead - 1 < MAX_HOLE)
			emit(f, SL_PACKET_EV_RST_AHEAD);
		return;
	}
	if (f->rst)
		return;
	f->rst = 1;
	emit(f, SL_PACKET_EV_RST);
}

/* For segments that concern a close; after note(). */
static __noinline void follow_close(struct sl_packet_flow *f, const struct segment *s)
{
	struct sl_packet_flow *other;
	struct sl_packet_key key;

	if (s->flags & (TCP_FIN | TCP_RST)) {
		reverse_key(f, &key);
		other = bpf_map_lookup_elem(&flows, &key);
		if (s->flags & TCP_RST) {
			note_rst(f, other, s);
			return;
		}
		note_fin(f, other, s);
	}
	if (f->rst && s->payload) {
		f->rst = 0;
		__sync_fetch_and_add(&f->restarts, 1);
	}
	if (f->peer_fin && !f->peer_fin_acked && s->flags & TCP_ACK &&
	    distance(f->peer_fin_seq, s->ack) >= 0) {
		f->peer_fin_acked = 1;
		emit(f, SL_PACKET_EV_FIN_ACKED);
	}
}

/* Without a partner, which is another connection's or gone, this direction has to do. */
static __always_inline int is_finished(const struct sl_packet_flow *f,
				       const struct sl_packet_flow *partner)
{
	if (!partner || partner->conn_id != f->conn_id)
		return f->rst || f->peer_fin_acked;
	return f->rst || partner->rst || (f->peer_fin_acked && partner->peer_fin_acked);
}

/*
 * A SYN on a finished tuple is a new connection of a host that has reused its port: 1, and
 * both entries are gone. On a live one it is forwarded like anything else, and answered by
 * its receiver (RFC 5961 section 4).
 */
static __noinline int give_up_finished(struct sl_packet_flow *f, const struct sl_packet_key *key)
{
	struct sl_packet_key reverse;
	struct sl_packet_flow *partner;

	reverse_key(f, &reverse);
	partner = bpf_map_lookup_elem(&flows, &reverse);
	if (!is_finished(f, partner))
		return 0;
	emit(f, SL_PACKET_EV_REUSED);
	if (partner && partner->conn_id == f->conn_id)
		bpf_map_delete_elem(&flows, &reverse);
	bpf_map_delete_elem(&flows, key);
	COUNT(reused);
	return 1;
}

#endif
