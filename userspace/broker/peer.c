/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "broker/peer.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "broker/flows.h"
#include "broker/handover.h"
#include "broker/life.h"
#include "broker/state.h"

/* Requests of one channel in one turn, so that none starves the others. */
#define PER_TURN 64
#define TOKEN 1000000

static void on_ready(struct sl_io *io, uint32_t events);

/* ---- sending ---- */

static int send_now(struct sl_peer *p, const struct sl_broker_msg *msg, const int *fds, size_t n)
{
	int r = sl_broker_send(p->fd, msg, fds, n);

	p->is_blocked = r == -EAGAIN;
	if (r < 0 && r != -EAGAIN && r != -EPIPE)
		(void)sl_warn(r, "packet: cannot answer worker %u of a proxy", p->worker);
	return r == -EAGAIN ? r : 0; /* one that is gone needs no answer; reading finds that out */
}

static int send_hello(struct sl_peer *p)
{
	const struct sl_broker_msg msg = { .type = SL_BROKER_HELLO };
	const char *maps[] = { "flows", "counters", "routes" };
	struct sl_packet *packet = p->broker->packet;
	int fds[SL_BROKER_MAX_FDS] = { -1, -1, -1, -1 };
	int r = 0;

	for (size_t i = 0; r == 0 && i < SL_ARRAY_LEN(maps); i++)
		r = sl_packet_readonly_fd(packet, maps[i], &fds[i]);
	if (r < 0)
		(void)sl_warn(r, "packet: cannot give a proxy the maps to read, it stays without");
	fds[3] = sl_packet_freeze_fd(packet);
	if (r == 0)
		r = send_now(p, &msg, fds, SL_ARRAY_LEN(fds));
	for (size_t i = 0; i < SL_ARRAY_LEN(maps); i++)
		sl_closep(&fds[i]);
	if (r == 0) {
		p->has_hello = true;
		sl_peers_announce(p->broker);
	}
	return r;
}

static int send_sockmap_hello(struct sl_peer *p)
{
	const struct sl_broker_msg msg = { .type = SL_BROKER_SOCKMAP_HELLO };
	int fds[SL_BROKER_MAX_FDS] = { -1, -1, -1, -1 };
	int r = sl_sockmap_give(p->broker->sockmap.maps, &fds[0], &fds[1], &fds[2], &fds[3]);

	if (r < 0)
		(void)sl_warn(r, "sockmap: cannot give a proxy the maps, it stays without");
	else
		r = send_now(p, &msg, fds, SL_ARRAY_LEN(fds));
	for (size_t i = 0; i < SL_ARRAY_LEN(fds); i++)
		sl_closep(&fds[i]);
	p->has_sockmap_hello = r == 0;
	return r == -EAGAIN ? r : 0;
}

static int send_sockmap_status(struct sl_peer *p)
{
	const struct sl_broker_msg msg = { .type = SL_BROKER_SOCKMAP_STATUS,
					   .sockmap_status = p->broker->sockmap.status };
	int r = send_now(p, &msg, NULL, 0);

	if (r == 0)
		p->wants_sockmap_status = false;
	return r;
}

static void fill_ended(const struct sl_kflow *f, struct sl_broker_ended *ret)
{
	const struct sl_kflow_half *c = &f->half[SL_PACKET_CLIENT];
	const struct sl_kflow_half *b = &f->half[SL_PACKET_BACKEND];

	ret->how = f->how;
	ret->bytes[SL_CLIENT] = c->bytes;
	ret->bytes[SL_BACKEND] = b->bytes;
	ret->last_data_ns = c->last_data_ns > b->last_data_ns ? c->last_data_ns : b->last_data_ns;
}

static int send_flow(struct sl_peer *p, const struct sl_kflow *f, enum sl_broker_type type)
{
	struct sl_broker_msg msg = { .type = type, .conn_id = f->conn_id };

	if (type == SL_BROKER_ADOPT)
		sl_flows_tuple(f->key, &msg.flow);
	else if (type == SL_BROKER_ENDED)
		fill_ended(f, &msg.ended);
	return send_now(p, &msg, NULL, 0);
}

/* The end of `f` when its owner knows that it is over. */
static int tell_flow(struct sl_peer *p, struct sl_kflow *f)
{
	if (f->tell & SL_TELL_ADOPT) {
		if (send_flow(p, f, SL_BROKER_ADOPT) < 0)
			return -EAGAIN;
		f->tell &= (uint8_t)~SL_TELL_ADOPT;
	}
	if (f->is_orphan) { /* its answer comes first */
		sl_list_remove(&f->todo);
		return 0;
	}
	if (f->tell & SL_TELL_ENDED) {
		if (send_flow(p, f, SL_BROKER_ENDED) < 0)
			return -EAGAIN;
		sl_life_told(f);
		return 0;
	}
	if ((f->tell & SL_TELL_CHANGED) && send_flow(p, f, SL_BROKER_CHANGED) < 0)
		return -EAGAIN;
	f->tell = 0;
	sl_list_remove(&f->todo);
	return 0;
}

static int send_status(struct sl_peer *p)
{
	const struct sl_broker_msg msg = { .type = SL_BROKER_STATUS, .status = p->broker->status };
	int r = send_now(p, &msg, NULL, 0);

	if (r == 0)
		p->wants_status = false;
	return r;
}

static int send_nat_status(struct sl_peer *p)
{
	const struct sl_broker_msg msg = { .type = SL_BROKER_NAT_STATUS,
					   .nat_status = p->broker->nat_status };
	int r = send_now(p, &msg, NULL, 0);

	if (r == 0)
		p->wants_nat_status = false;
	return r;
}

static int send_nat_told(struct sl_peer *p)
{
	const struct sl_broker_msg msg = { .type = SL_BROKER_NAT_TOLD };
	int r = send_now(p, &msg, NULL, 0);

	if (r == 0)
		p->wants_nat_told = false;
	return r;
}

/* The text stays the same until it is sent, or begins anew. */
static int send_text(struct sl_peer *p, enum sl_broker_type type, const char *text, uint32_t *at)
{
	size_t size = strlen(text);
	int r;

	do {
		struct sl_broker_msg msg = { .type = (uint32_t)type,
					     .flag = (uint32_t)size,
					     .nat_worries.at = *at };
		size_t n = size - *at;

		if (n > sizeof(msg.nat_worries.text))
			n = sizeof(msg.nat_worries.text);
		memcpy(msg.nat_worries.text, text + *at, n);
		r = send_now(p, &msg, NULL, 0);
		if (r < 0)
			return r;
		*at += (uint32_t)n;
	} while (*at < size);
	return 0;
}

static int send_worries(struct sl_peer *p)
{
	int r = send_text(p, SL_BROKER_NAT_WORRIES, sl_worries_text(p->broker->worries),
			  &p->worries_at);

	if (r == 0)
		p->wants_worries = false;
	return r;
}

void sl_peer_tell_worries(struct sl_peer *p)
{
	p->wants_worries = p->worker == p->n_workers;
	p->worries_at = 0;
	if (p->wants_worries)
		sl_peer_flush_later(p);
}

static int send_drift(struct sl_peer *p)
{
	struct sl_broker_msg msg = { .type = SL_BROKER_DRIFT };
	int r;

	_Static_assert(SL_DRIFT_COUNT_ <= SL_BROKER_DRIFT_KINDS, "all are told");
	memcpy(msg.drift.count, p->broker->drift.count, sizeof(p->broker->drift.count));
	r = send_now(p, &msg, NULL, 0);
	if (r == 0)
		p->wants_drift = false;
	return r;
}

static int send_diff(struct sl_peer *p)
{
	int r = send_text(p, SL_BROKER_DIFF_TEXT, sl_diff_text(p->broker), &p->diff_at);

	if (r == 0)
		p->wants_diff = false;
	return r;
}

static int send_flushed(struct sl_peer *p)
{
	const struct sl_broker_msg msg = { .type = SL_BROKER_FLUSHED };
	int r = send_now(p, &msg, NULL, 0);

	if (r == 0)
		p->wants_flushed = false;
	return r;
}

static void watch_what_matters(struct sl_peer *p)
{
	if (p->is_blocked != p->awaits_out)
		(void)sl_io_change(&p->io, p->is_blocked ? SL_IO_OUT : SL_IO_IN);
	p->awaits_out = p->is_blocked;
}

static void flush(struct sl_peer *p)
{
	int r = 0;

	if (!p->has_hello && p->broker->packet)
		r = send_hello(p);
	if (r == 0 && !p->has_sockmap_hello && p->broker->sockmap.maps)
		r = send_sockmap_hello(p);
	if (r == 0 && p->has_out) {
		r = send_now(p, &p->out, NULL, 0);
		p->has_out = r < 0;
	}
	while (r == 0 && !sl_list_is_empty(&p->todo))
		r = tell_flow(p, SL_CONTAINER_OF(p->todo.next, struct sl_kflow, todo));
	if (r == 0 && p->wants_flushed)
		r = send_flushed(p);
	if (r == 0 && p->wants_status)
		r = send_status(p);
	if (r == 0 && p->wants_sockmap_status)
		r = send_sockmap_status(p);
	if (r == 0 && p->wants_nat_status)
		r = send_nat_status(p);
	if (r == 0 && p->wants_nat_told)
		r = send_nat_told(p);
	if (r == 0 && p->wants_worries)
		r = send_worries(p);
	if (r == 0 && p->wants_drift)
		r = send_drift(p);
	if (r == 0 && p->wants_diff)
		r = send_diff(p);
	if (r == 0 && p->broker->nat && p->worker < p->n_workers)
		sl_nat_resume(p->broker->nat);
	watch_what_matters(p);
}

static void on_flush(struct sl_task *task)
{
	struct sl_peer *p = SL_CONTAINER_OF(task, struct sl_peer, flush_task);

	if (p->fd >= 0 && !p->is_blocked)
		flush(p);
}

void sl_peer_flush_later(struct sl_peer *p)
{
	sl_loop_defer(p->broker->loop, &p->flush_task, on_flush);
}

/* Workers read at once: a channel that is full has room again within moments. */
void sl_peers_flush_now(struct sl_broker *b, uint64_t until_us)
{
	struct sl_list *i;

	sl_list_for_each (i, &b->peers) {
		struct sl_peer *p = SL_CONTAINER_OF(i, struct sl_peer, node);

		for (;;) {
			p->is_blocked = false;
			flush(p);
			if (!p->is_blocked || sl_loop_now_us(b->loop) >= until_us)
				break;
			(void)usleep(1000);
		}
	}
}

void sl_peer_reply(struct sl_peer *p, const struct sl_broker_msg *msg)
{
	if (!p->is_blocked && send_now(p, msg, NULL, 0) == 0)
		return;
	p->out = *msg;
	p->has_out = true;
}

bool sl_peer_hint(struct sl_peer *p, const struct sl_broker_msg *msg)
{
	bool is_sent = !p->is_blocked && p->fd >= 0 && send_now(p, msg, NULL, 0) == 0;

	watch_what_matters(p);
	return is_sent;
}

void sl_peer_tell(struct sl_kflow *f, uint8_t what)
{
	f->tell |= what;
	if (!f->owner)
		return;
	if (sl_list_is_empty(&f->todo))
		sl_list_add(&f->owner->todo, &f->todo);
	sl_peer_flush_later(f->owner);
}

/* ---- orphans ---- */

static const struct sl_peer *newest(const struct sl_broker *b)
{
	for (const struct sl_list *i = b->peers.prev; i != &b->peers; i = i->prev) {
		const struct sl_peer *p = SL_CONTAINER_OF(i, struct sl_peer, node);

		if (!p->is_leaving && p->worker < p->n_workers)
			return p;
	}
	return NULL;
}

static struct sl_peer *find(const struct sl_broker *b, uint64_t proxy, unsigned worker)
{
	struct sl_list *i;

	sl_list_for_each (i, &b->peers) {
		struct sl_peer *p = SL_CONTAINER_OF(i, struct sl_peer, node);

		if (p->proxy == proxy && p->worker == worker)
			return p->has_hello && !p->is_leaving ? p : NULL;
	}
	return NULL;
}

static void announce(struct sl_kflow *f, struct sl_peer *p)
{
	f->owner = p;
	sl_list_remove(&f->own);
	sl_list_add(&p->flows, &f->own);
	sl_peer_tell(f, SL_TELL_ADOPT);
}

static void on_announce(struct sl_task *task)
{
	struct sl_broker *b = SL_CONTAINER_OF(task, struct sl_broker, announce_task);
	const struct sl_peer *to = newest(b);
	struct sl_list *i;
	struct sl_list *tmp;

	if (!to)
		return;
	sl_list_for_each_safe (i, tmp, &b->orphans) {
		struct sl_kflow *f = SL_CONTAINER_OF(i, struct sl_kflow, own);
		struct sl_peer *p = find(b, to->proxy, (unsigned)(f->conn_id % to->n_workers));

		if (p)
			announce(f, p);
	}
}

void sl_peers_announce(struct sl_broker *b)
{
	if (!sl_list_is_empty(&b->orphans) && newest(b))
		sl_loop_defer(b->loop, &b->announce_task, on_announce);
}

/* ---- flows of the kernel's NAT ---- */

/* The newest of which the control thread is there, whose channel is the last to come. */
static const struct sl_peer *newest_whole(const struct sl_broker *b)
{
	for (const struct sl_list *i = b->peers.prev; i != &b->peers; i = i->prev) {
		const struct sl_peer *p = SL_CONTAINER_OF(i, struct sl_peer, node);

		if (p->worker == p->n_workers)
			return p;
	}
	return NULL;
}

static void on_nat_task(struct sl_task *task)
{
	struct sl_broker *b = SL_CONTAINER_OF(task, struct sl_broker, nat_task);
	const struct sl_peer *p = newest_whole(b);
	bool is_same = p && b->has_nat_proxy && b->nat_proxy == p->proxy;

	b->has_nat_proxy = p;
	if (!p || !b->nat)
		return;
	b->nat_proxy = p->proxy;
	if (!is_same)
		sl_nat_tell_all(b->nat);
	sl_nat_resume(b->nat); /* whoever had no room may be the one that is no more */
}

static void choose_nat_proxy(struct sl_broker *b)
{
	sl_loop_defer(b->loop, &b->nat_task, on_nat_task);
}

static struct sl_peer *nat_peer(const struct sl_broker *b, const struct sl_broker_nat_flow *flow)
{
	struct sl_list *i;

	sl_list_for_each (i, &b->peers) {
		struct sl_peer *p = SL_CONTAINER_OF(i, struct sl_peer, node);

		if (p->proxy == b->nat_proxy &&
		    p->worker == sl_broker_nat_worker(flow, p->n_workers))
			return p;
	}
	return NULL;
}

/*
 * What happens while there is no proxy is for the next one: of what has begun and ended by then it
 * would never hear otherwise. A worker that is gone alone misses what its flows do.
 */
bool sl_peers_tell_nat(struct sl_broker *b, uint64_t serial, const struct sl_broker_nat_flow *flow)
{
	const struct sl_broker_msg msg = { .type = SL_BROKER_NAT_FLOW,
					   .conn_id = serial,
					   .nat_flow = *flow };
	struct sl_peer *p;
	int r;

	if (!b->has_nat_proxy)
		return false;
	p = nat_peer(b, flow);
	if (!p)
		return true;
	if (p->is_blocked)
		return false;
	r = send_now(p, &msg, NULL, 0);
	watch_what_matters(p);
	return r == 0;
}

bool sl_peers_tell_nat_is_all(struct sl_broker *b)
{
	struct sl_list *i;

	if (!b->has_nat_proxy)
		return false;
	sl_list_for_each (i, &b->peers) {
		struct sl_peer *p = SL_CONTAINER_OF(i, struct sl_peer, node);

		p->wants_nat_told = p->proxy == b->nat_proxy && p->worker < p->n_workers;
		if (p->wants_nat_told)
			sl_peer_flush_later(p);
	}
	return true;
}

static int on_nat_target(const struct sl_peer *p, const struct sl_broker_msg *msg)
{
	if (p->worker != p->n_workers)
		return -EBADMSG;
	if (p->broker->nat)
		sl_nat_set_target(p->broker->nat, &msg->nat_target, msg->flag);
	return 0;
}

static void on_nat_kill(const struct sl_peer *p, const struct sl_broker_msg *msg)
{
	if (p->broker->nat)
		sl_nat_kill(p->broker->nat, msg->conn_id);
}

/* ---- requests about flows ---- */

bool sl_peer_take_token(struct sl_peer *p)
{
	uint64_t now = sl_loop_now_us(p->broker->loop);

	p->tokens += (now - p->tokens_at_us) * SL_PEER_RATE;
	p->tokens_at_us = now;
	if (p->tokens > (uint64_t)SL_PEER_BURST * TOKEN)
		p->tokens = (uint64_t)SL_PEER_BURST * TOKEN;
	if (p->tokens < TOKEN)
		return false;
	p->tokens -= TOKEN;
	return true;
}

/* A flow of another proxy is none of its business. */
static struct sl_kflow *flow_of(const struct sl_peer *p, uint64_t conn_id)
{
	struct sl_kflow *f = sl_flow_find(&p->broker->table, conn_id);

	return f && (!f->owner || f->owner->proxy == p->proxy) ? f : NULL;
}

static void disown(const struct sl_peer *p, uint64_t conn_id)
{
	struct sl_kflow *f = flow_of(p, conn_id);

	if (f)
		sl_life_disown(f);
}

static void on_kill(const struct sl_peer *p, const struct sl_broker_msg *msg)
{
	struct sl_kflow *f = flow_of(p, msg->conn_id);

	if (msg->flag == 1 && f && f->owner)
		sl_life_end(f);
	else
		disown(p, msg->conn_id);
}

static void on_probe(const struct sl_peer *p, const struct sl_broker_msg *msg)
{
	const struct sl_kflow *f = flow_of(p, msg->conn_id);

	if (f && f->stage != SL_KFLOW_OVER)
		(void)sl_broker_order(p->broker, SL_PACKET_OP_PROBE, f->conn_id, f->key);
}

/* For the next one, unless nothing is left that it could see. */
static void leave_behind(struct sl_kflow *f)
{
	if (f->is_gone)
		sl_flow_drop(f);
	else
		sl_flow_orphan(f);
}

static void on_release(struct sl_peer *p, const struct sl_broker_msg *msg)
{
	struct sl_kflow *f = sl_flow_find(&p->broker->table, msg->conn_id);

	p->is_leaving = true;
	if (f && f->owner == p) {
		leave_behind(f);
	} else if (f && !f->owner && !f->is_orphan && f->stage == SL_KFLOW_OVER) {
		/* Told of its end when it had let go: that is for the next one. */
		sl_flow_orphan(f);
		sl_peer_tell(f, SL_TELL_ENDED);
	}
}

static void on_adopted(struct sl_peer *p, const struct sl_broker_msg *msg)
{
	struct sl_kflow *f = sl_flow_find(&p->broker->table, msg->conn_id);

	if (!f || f->owner != p || !f->is_orphan)
		return;
	if (msg->flag == 1) {
		uint8_t tell = f->tell;

		sl_flow_give(f, p);
		f->told_marks = 0;
		if (tell)
			sl_peer_tell(f, tell);
		return;
	}
	disown(p, msg->conn_id);
}

static int on_flush_request(struct sl_peer *p)
{
	if (p->worker != p->n_workers)
		return -EBADMSG;
	p->is_flushing = true;
	sl_broker_flush(p->broker);
	return 0;
}

static int on_diff_request(struct sl_peer *p)
{
	if (p->worker != p->n_workers)
		return -EBADMSG;
	sl_diff_ask(p);
	return 0;
}

/* Takes the descriptors. -EBADMSG: not from an honest proxy. */
static int serve(struct sl_peer *p, const struct sl_broker_msg *msg, int fds[SL_BROKER_MAX_FDS])
{
	switch ((enum sl_broker_type)msg->type) {
	case SL_BROKER_HANDOVER:
		if (msg->handover.to_sockmap)
			sl_sockmap_serve(p, msg, fds);
		else
			sl_handover(p, msg, fds);
		return 0;
	case SL_BROKER_RESOLVE:
		if (msg->handover.to_sockmap)
			sl_sockmap_serve(p, msg, fds);
		else
			sl_handover_resolve(p, msg, fds);
		return 0;
	case SL_BROKER_SOCKMAP_LEAVE:
		sl_sockmap_left(p, msg);
		return 0;
	case SL_BROKER_SOCKMAP_HELD:
		sl_sockmap_held(p, msg);
		return 0;
	case SL_BROKER_KILL:
		on_kill(p, msg);
		return 0;
	case SL_BROKER_PROBE:
		on_probe(p, msg);
		return 0;
	case SL_BROKER_RELEASE:
		on_release(p, msg);
		return 0;
	case SL_BROKER_ADOPTED:
		on_adopted(p, msg);
		return 0;
	case SL_BROKER_FLUSH:
		return on_flush_request(p);
	case SL_BROKER_NAT_KILL:
		on_nat_kill(p, msg);
		return 0;
	case SL_BROKER_NAT_TARGET:
		return on_nat_target(p, msg);
	case SL_BROKER_DIFF:
		return on_diff_request(p);
	case SL_BROKER_HELLO:
	case SL_BROKER_RESULT:
	case SL_BROKER_CHANGED:
	case SL_BROKER_ENDED:
	case SL_BROKER_ADOPT:
	case SL_BROKER_FLUSHED:
	case SL_BROKER_STATUS:
	case SL_BROKER_NAT_FLOW:
	case SL_BROKER_NAT_STATUS:
	case SL_BROKER_NAT_WORRIES:
	case SL_BROKER_NAT_TOLD:
	case SL_BROKER_SOCKMAP_HELLO:
	case SL_BROKER_SOCKMAP_STATUS:
	case SL_BROKER_DIFF_TEXT:
	case SL_BROKER_DRIFT:
	case SL_BROKER_TYPE_COUNT_:
		break;
	}
	return -EBADMSG;
}

/* ---- channel ---- */

static void say_no_room(struct sl_broker *b)
{
	if (sl_log_allowed(&b->room_limit, sl_loop_now_ms(b->loop), 1, 60000))
		sl_log(SL_LOG_WARN, "packet: no descriptors left (RLIMIT_NOFILE), connections stay "
				    "with the proxy meanwhile");
}

static int read_one(struct sl_peer *p)
{
	struct sl_broker_msg msg;
	int fds[SL_BROKER_MAX_FDS];
	int r = sl_broker_recv(p->fd, true, &msg, fds);

	if (r == -EMFILE) {
		say_no_room(p->broker);
		sl_handover_without(p, &msg);
		return 0;
	}
	if (r < 0)
		return r;
	r = serve(p, &msg, fds);
	sl_broker_close_fds(fds);
	return r;
}

static void on_ready(struct sl_io *io, uint32_t events)
{
	struct sl_peer *p = SL_CONTAINER_OF(io, struct sl_peer, io);
	int r = 0;

	(void)events;
	if (p->is_blocked) {
		p->is_blocked = false;
		flush(p);
	}
	/* What a proxy asked for before it died is done. */
	for (int i = 0; r == 0 && i < PER_TURN && !p->is_blocked; i++)
		r = read_one(p);
	if (r == 0 || r == -EAGAIN) {
		watch_what_matters(p);
		return;
	}
	if (r != -EPIPE && r != -ECONNRESET)
		(void)sl_warn(r, "packet: closing the channel of worker %u, which sent nonsense",
			      p->worker);
	sl_peer_close(p);
}

/* Who has never heard of any needs not hear that there are none. */
static bool has_worries(const struct sl_broker *b)
{
	return b->worries && *sl_worries_text(b->worries);
}

/* Likewise. */
static bool has_drift(const struct sl_broker *b)
{
	uint64_t sum = 0;

	for (int i = 0; i < SL_DRIFT_COUNT_; i++)
		sum += b->drift.count[i];
	return sum;
}

int sl_peer_new(struct sl_broker *b, uint64_t proxy, unsigned worker, unsigned n_workers, int fd)
{
	struct sl_peer *p = calloc(1, sizeof(*p));
	int r;

	if (!p)
		return -ENOMEM;
	*p = (struct sl_peer){ .broker = b,
			       .fd = fd,
			       .proxy = proxy,
			       .worker = worker,
			       .n_workers = n_workers,
			       .tokens = (uint64_t)SL_PEER_BURST * TOKEN,
			       .tokens_at_us = sl_loop_now_us(b->loop),
			       .wants_status = worker == n_workers,
			       .wants_sockmap_status = worker == n_workers,
			       .wants_nat_status = worker == n_workers,
			       .wants_drift = worker == n_workers && has_drift(b),
			       .wants_worries = worker == n_workers && has_worries(b) };
	sl_list_init(&p->flows);
	sl_list_init(&p->todo);
	r = sl_io_start(b->loop, &p->io, fd, SL_IO_IN, on_ready);
	if (r < 0) {
		free(p);
		return r;
	}
	sl_list_add(&b->peers, &p->node);
	if (p->wants_status)
		sl_broker_refresh(b);
	choose_nat_proxy(b);
	flush(p);
	return 0;
}

static void free_late(struct sl_task *task)
{
	free(SL_CONTAINER_OF(task, struct sl_peer, free_task));
}

void sl_peer_close(struct sl_peer *p)
{
	sl_io_stop(&p->io);
	sl_broker_hang_up(p->fd);
	p->fd = -1;
	p->is_leaving = true;
	sl_list_remove(&p->node);
	while (!sl_list_is_empty(&p->flows))
		leave_behind(SL_CONTAINER_OF(p->flows.next, struct sl_kflow, own));
	sl_sockmap_peer_gone(p);
	choose_nat_proxy(p->broker);
	sl_task_cancel(&p->flush_task);
	sl_loop_defer(p->broker->loop, &p->free_task, free_late);
}
