/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "broker/client.h"

#include <errno.h>
#include <linux/sockios.h>
#include <string.h>
#include <sys/ioctl.h>

#include "accel/packet.h"
#include "base/list.h"
#include "base/log.h"
#include "base/str.h"

#define MAX_PER_TURN 64

/* The descriptors of HELLO, in this order. */
enum {
	FD_FLOWS = 0,
	FD_COUNTERS,
	FD_ROUTES,
	FD_FREEZE,
};

/* A message without descriptors that waits for a broker. */
struct kept {
	enum sl_broker_type type;
	uint32_t flag;
	uint64_t conn_id;
};

/* About the kernel's NAT, the sockmap engine, or a look: for this channel, or for none. */
struct kept_msg {
	struct sl_list node;
	struct sl_broker_msg msg;
};

/* From first on, n of them. */
struct queue {
	struct kept *item;
	size_t first;
	size_t n;
	size_t cap;
};

struct sl_broker_client {
	struct sl_io io;
	struct sl_loop *loop;
	struct sl_broker_client_fns fns; /* all NULL once it is freed */
	void *arg;
	int fd;         /* -1: no channel */
	uint32_t epoch; /* of the channel: callbacks may replace it */
	bool is_up;
	bool is_waiting; /* for the channel to take more */
	bool is_freed;   /* by a callback, perhaps; the memory stays until the turn ends */
	int maps[SL_BROKER_MAX_FDS];
	struct queue queue;
	struct queue unread;             /* in the channel: for the next broker, if this one dies */
	struct sl_list linked;           /* of struct kept_msg */
	struct sl_sockmap_view *sockmap; /* of this channel; NULL: none has come */
	struct sl_str worries;           /* as far as they have come */
	struct sl_str diff;              /* likewise */
	struct sl_task free_task;
};

/* ---- what must not be lost ---- */

static bool make_room(struct queue *q)
{
	size_t cap = q->cap ? 2 * q->cap : 16;
	struct kept *fresh;

	if (q->first > 0) {
		memmove(q->item, q->item + q->first, q->n * sizeof(*q->item));
		q->first = 0;
	}
	if (q->n < q->cap)
		return true;
	fresh = reallocarray(q->item, cap, sizeof(*fresh));
	if (!fresh)
		return false;
	q->item = fresh;
	q->cap = cap;
	return true;
}

static void keep(struct queue *q, struct kept k)
{
	if (q->first + q->n == q->cap && !make_room(q)) {
		sl_log_conn(SL_LOG_ERROR, k.conn_id,
			    "broker: no memory to keep a message (type %u); the flow is found "
			    "without a record later",
			    (unsigned)k.type);
		return;
	}
	q->item[q->first + q->n++] = k;
}

static void clear(struct queue *q)
{
	free(SL_TAKE_PTR(q->item));
	*q = (struct queue){ 0 };
}

static struct sl_broker_msg message_of(const struct kept *k)
{
	return (struct sl_broker_msg){ .type = (uint32_t)k->type,
				       .flag = k->flag,
				       .conn_id = k->conn_id };
}

static bool is_all_read(const struct sl_broker_client *cl)
{
	int unread = 0;

	return ioctl(cl->fd, SIOCOUTQ, &unread) == 0 && unread == 0;
}

/*
 * A flow whose kill was lost with its broker would live on under a new record, and the end of one
 * that was let go would be nobody's; said twice is said once. The others are said again by what
 * they are about.
 */
static bool must_be_read(enum sl_broker_type type)
{
	return type == SL_BROKER_KILL || type == SL_BROKER_RELEASE;
}

static int send_kept(struct sl_broker_client *cl, const struct kept *k)
{
	const struct sl_broker_msg msg = message_of(k);
	int r;

	if (cl->unread.n > 0 && is_all_read(cl))
		cl->unread.first = cl->unread.n = 0;
	r = sl_broker_send(cl->fd, &msg, NULL, 0);
	if (r == 0 && must_be_read(k->type))
		keep(&cl->unread, *k);
	return r;
}

static void keep_unread(struct sl_broker_client *cl)
{
	struct queue *q = &cl->unread;

	for (; q->n > 0; q->first++, q->n--)
		keep(&cl->queue, q->item[q->first]);
	q->first = 0;
}

static void wait_for_room(struct sl_broker_client *cl, bool wanted)
{
	if (cl->is_waiting == wanted)
		return;
	cl->is_waiting = wanted;
	(void)sl_io_change(&cl->io, SL_IO_IN | (wanted ? SL_IO_OUT : 0u));
}

/* -EAGAIN: there is more; another error: the channel is gone, the next broker gets the rest. */
static int flush_queue(struct sl_broker_client *cl)
{
	struct queue *q = &cl->queue;

	while (q->n > 0) {
		int r = send_kept(cl, &q->item[q->first]);

		if (r < 0)
			return r;
		q->first++;
		q->n--;
	}
	q->first = 0;
	return 0;
}

static void drop_linked(struct kept_msg *k)
{
	sl_list_remove(&k->node);
	free(k);
}

static int flush_linked(struct sl_broker_client *cl)
{
	while (!sl_list_is_empty(&cl->linked)) {
		struct kept_msg *k = SL_CONTAINER_OF(cl->linked.next, struct kept_msg, node);
		int r = sl_broker_send(cl->fd, &k->msg, NULL, 0);

		if (r < 0)
			return r;
		drop_linked(k);
	}
	return 0;
}

static void forget_linked(struct sl_broker_client *cl)
{
	while (!sl_list_is_empty(&cl->linked))
		drop_linked(SL_CONTAINER_OF(cl->linked.next, struct kept_msg, node));
}

static void flush(struct sl_broker_client *cl)
{
	int r = cl->is_up ? flush_queue(cl) : 0;

	if (r == 0)
		r = flush_linked(cl);
	wait_for_room(cl, r == -EAGAIN); /* another error: the reader sees it */
}

/* ---- the channel ---- */

static void close_maps(struct sl_broker_client *cl)
{
	for (size_t i = 0; i < SL_BROKER_MAX_FDS; i++)
		sl_closep(&cl->maps[i]);
}

static void disconnect(struct sl_broker_client *cl)
{
	bool was_up = cl->is_up;

	if (cl->fd < 0)
		return;
	sl_io_stop(&cl->io);
	sl_closep(&cl->fd);
	cl->epoch++;
	cl->is_up = false;
	cl->is_waiting = false;
	keep_unread(cl);
	forget_linked(cl);
	sl_str_done(&cl->worries);
	sl_sockmap_view_unref(SL_TAKE_PTR(cl->sockmap));
	sl_str_done(&cl->diff);
	if (cl->fns.unlinked)
		cl->fns.unlinked(cl->arg);
	if (was_up && cl->fns.down)
		cl->fns.down(cl->arg);
}

/*
 * First on each channel, and again when the broker had to make the maps anew. Flows are read
 * through the newest, which are those that later hand-overs go to.
 */
static void take_hello(struct sl_broker_client *cl, int fds[SL_BROKER_MAX_FDS])
{
	bool was_up = cl->is_up;

	close_maps(cl);
	for (size_t i = 0; i < SL_BROKER_MAX_FDS; i++)
		cl->maps[i] = SL_TAKE_FD(fds[i]);
	cl->is_up = true;
	flush(cl); /* what has waited goes first: nothing is asked past it */
	if (!was_up && cl->fns.up)
		cl->fns.up(cl->arg);
}

static void take_sockmap(struct sl_broker_client *cl, int fds[SL_BROKER_MAX_FDS])
{
	int taken[SL_BROKER_MAX_FDS];
	int r;

	for (size_t i = 0; i < SL_BROKER_MAX_FDS; i++)
		taken[i] = SL_TAKE_FD(fds[i]);
	sl_sockmap_view_unref(SL_TAKE_PTR(cl->sockmap));
	r = sl_sockmap_view_new(taken[0], taken[1], taken[2], taken[3], &cl->sockmap);
	if (r < 0)
		(void)sl_err(r,
			     "broker: the maps of the sockmap engine cannot be used, connections "
			     "stay on relay");
	else if (cl->fns.sockmap_up)
		cl->fns.sockmap_up(cl->arg);
}

/* Parts that do not follow on each other are of a text that another one has replaced. */
static void take_part(struct sl_broker_client *cl, const struct sl_broker_msg *msg,
		      struct sl_str *so_far, void (*fn)(void *arg, const char *text))
{
	const struct sl_broker_part *w = &msg->nat_worries;
	struct sl_str whole;

	if (w->at == 0)
		sl_str_clear(so_far);
	if (w->at != so_far->len)
		return;
	sl_str_add(so_far, w->text, strnlen(w->text, sizeof(w->text)));
	if (so_far->len < msg->flag && !so_far->oom)
		return;
	whole = *so_far;
	*so_far = (struct sl_str){ 0 };
	if (!whole.oom && fn)
		fn(cl->arg, sl_str_text(&whole));
	sl_str_done(&whole);
}

static void take_reply(struct sl_broker_client *cl, const struct sl_broker_msg *msg)
{
	const struct sl_broker_client_fns *fns = &cl->fns;

	if (msg->type == SL_BROKER_RESULT && fns->result)
		fns->result(cl->arg, msg->conn_id, &msg->result);
	else if (msg->type == SL_BROKER_CHANGED && fns->changed)
		fns->changed(cl->arg, msg->conn_id, msg->flag);
	else if (msg->type == SL_BROKER_ENDED && fns->ended)
		fns->ended(cl->arg, msg->conn_id, &msg->ended);
	else if (msg->type == SL_BROKER_ADOPT && fns->adopt)
		fns->adopt(cl->arg, msg->conn_id, &msg->flow);
	else if (msg->type == SL_BROKER_STATUS && fns->status)
		fns->status(cl->arg, &msg->status);
	else if (msg->type == SL_BROKER_SOCKMAP_STATUS && fns->sockmap_status)
		fns->sockmap_status(cl->arg, &msg->sockmap_status);
	else if (msg->type == SL_BROKER_FLUSHED && fns->flushed)
		fns->flushed(cl->arg);
	else if (msg->type == SL_BROKER_NAT_FLOW && fns->nat_flow)
		fns->nat_flow(cl->arg, msg->conn_id, &msg->nat_flow);
	else if (msg->type == SL_BROKER_NAT_TOLD && fns->nat_told)
		fns->nat_told(cl->arg);
	else if (msg->type == SL_BROKER_NAT_STATUS && fns->nat_status)
		fns->nat_status(cl->arg, &msg->nat_status);
	else if (msg->type == SL_BROKER_NAT_WORRIES)
		take_part(cl, msg, &cl->worries, fns->nat_worries);
	else if (msg->type == SL_BROKER_DIFF_TEXT)
		take_part(cl, msg, &cl->diff, fns->diff);
	else if (msg->type == SL_BROKER_DRIFT && fns->drift)
		fns->drift(cl->arg, &msg->drift);
}

static void receive(struct sl_broker_client *cl)
{
	const uint32_t epoch = cl->epoch;

	for (int i = 0; cl->epoch == epoch && i < MAX_PER_TURN; i++) {
		int fds[SL_BROKER_MAX_FDS];
		struct sl_broker_msg msg;
		int r = sl_broker_recv(cl->fd, false, &msg, fds);

		if (r == -EAGAIN)
			return;
		if (r < 0) {
			if (r != -EPIPE)
				(void)sl_err(r, "broker: its message cannot be used, the channel "
						"is closed until there is another broker");
			disconnect(cl);
			return;
		}
		if (msg.type == SL_BROKER_HELLO)
			take_hello(cl, fds);
		else if (msg.type == SL_BROKER_SOCKMAP_HELLO)
			take_sockmap(cl, fds);
		else
			take_reply(cl, &msg);
	}
}

static void on_ready(struct sl_io *io, uint32_t events)
{
	struct sl_broker_client *cl = SL_CONTAINER_OF(io, struct sl_broker_client, io);

	if (events & SL_IO_OUT)
		flush(cl);
	if (events & (SL_IO_IN | SL_IO_HUP | SL_IO_ERR))
		receive(cl);
}

int sl_broker_client_new(struct sl_loop *loop, const struct sl_broker_client_fns *fns, void *arg,
			 struct sl_broker_client **ret)
{
	struct sl_broker_client *cl = calloc(1, sizeof(*cl));

	if (!cl)
		return -ENOMEM;
	*cl = (struct sl_broker_client){
		.loop = loop, .fns = *fns, .arg = arg, .fd = -1, .maps = { -1, -1, -1, -1 }
	};
	sl_list_init(&cl->linked);
	*ret = cl;
	return 0;
}

static void free_late(struct sl_task *task)
{
	free(SL_CONTAINER_OF(task, struct sl_broker_client, free_task));
}

void sl_broker_client_free(struct sl_broker_client *cl)
{
	if (!cl)
		return;
	cl->is_freed = true;
	cl->fns = (struct sl_broker_client_fns){ 0 };
	disconnect(cl);
	close_maps(cl);
	clear(&cl->queue);
	clear(&cl->unread);
	sl_loop_defer(cl->loop, &cl->free_task, free_late);
}

void sl_broker_client_connect(struct sl_broker_client *cl, int fd)
{
	_cleanup_fd_ int owned = fd;
	int r;

	while (cl->fd >= 0) /* down() may have connected another one */
		disconnect(cl);
	if (fd < 0 || cl->is_freed)
		return;
	r = sl_io_start(cl->loop, &cl->io, fd, SL_IO_IN, on_ready);
	if (r < 0) {
		(void)sl_err(r,
			     "broker: cannot watch its channel, connections stay with the proxy");
		return;
	}
	cl->fd = SL_TAKE_FD(owned);
	if (cl->fns.linked)
		cl->fns.linked(cl->arg);
}

/* ---- what a worker asks ---- */

bool sl_broker_client_is_up(const struct sl_broker_client *cl)
{
	return cl->is_up;
}

int sl_broker_client_freeze_fd(const struct sl_broker_client *cl)
{
	return cl->is_up ? cl->maps[FD_FREEZE] : -1;
}

int sl_broker_client_flows_fd(const struct sl_broker_client *cl)
{
	return cl->maps[FD_FLOWS];
}

int sl_broker_client_counters_fd(const struct sl_broker_client *cl)
{
	return cl->maps[FD_COUNTERS];
}

int sl_broker_client_routes_fd(const struct sl_broker_client *cl)
{
	return cl->maps[FD_ROUTES];
}

static int ask(struct sl_broker_client *cl, enum sl_broker_type type, uint64_t conn_id,
	       const struct sl_broker_handover *handover, int client_fd, int backend_fd)
{
	const int fds[SL_SIDE_COUNT_] = { [SL_CLIENT] = client_fd, [SL_BACKEND] = backend_fd };
	const struct sl_broker_msg msg = { .type = (uint32_t)type,
					   .conn_id = conn_id,
					   .handover = *handover };
	int r;

	if (handover->to_sockmap ? !cl->sockmap : !cl->is_up)
		return -EAGAIN;
	/* what is kept goes first, or a busy broker would never get it */
	if (cl->is_up && cl->queue.n > 0)
		return -EAGAIN;
	r = sl_broker_send(cl->fd, &msg, fds, SL_ARRAY_LEN(fds));
	return r == -EPIPE ? -EAGAIN : r; /* gone: the reader sees it, after what was sent before */
}

int sl_broker_ask(struct sl_broker_client *cl, uint64_t conn_id,
		  const struct sl_broker_handover *handover, int client_fd, int backend_fd)
{
	return ask(cl, SL_BROKER_HANDOVER, conn_id, handover, client_fd, backend_fd);
}

int sl_broker_resolve(struct sl_broker_client *cl, uint64_t conn_id,
		      const struct sl_broker_handover *handover, int client_fd, int backend_fd)
{
	return ask(cl, SL_BROKER_RESOLVE, conn_id, handover, client_fd, backend_fd);
}

void sl_broker_tell(struct sl_broker_client *cl, enum sl_broker_type type, uint64_t conn_id,
		    uint32_t flag)
{
	const struct kept k = { .type = type, .flag = flag, .conn_id = conn_id };
	const struct sl_broker_msg msg = message_of(&k);
	int r = -EAGAIN;

	if (sl_broker_check_request(&msg, sizeof(msg), 0) < 0) {
		sl_log_conn(SL_LOG_ERROR, conn_id, "broker: message %u with %u is not one to send",
			    (unsigned)type, flag);
		return;
	}
	if (cl->is_up && cl->queue.n == 0)
		r = send_kept(cl, &k);
	if (r == 0 || type == SL_BROKER_PROBE)
		return;
	keep(&cl->queue, k);
	if (cl->is_up && r == -EAGAIN)
		wait_for_room(cl, true);
}

/* ---- flows of the kernel's NAT ---- */

bool sl_broker_client_is_linked(const struct sl_broker_client *cl)
{
	return cl->fd >= 0;
}

static void tell_linked(struct sl_broker_client *cl, const struct sl_broker_msg *msg)
{
	struct kept_msg *k;
	int r = -EAGAIN;

	if (cl->fd < 0)
		return;
	if (sl_list_is_empty(&cl->linked))
		r = sl_broker_send(cl->fd, msg, NULL, 0);
	if (r == 0 || r == -EPIPE)
		return;
	k = r == -EAGAIN ? malloc(sizeof(*k)) : NULL;
	if (!k) {
		(void)sl_err(r == -EAGAIN ? -ENOMEM : r, "broker: message %u cannot be sent",
			     msg->type);
		return;
	}
	k->msg = *msg;
	sl_list_add(&cl->linked, &k->node);
	wait_for_room(cl, true);
}

struct sl_sockmap_view *sl_broker_client_sockmap(const struct sl_broker_client *cl)
{
	return cl->sockmap;
}

/* A later broker finds out by itself, or is told again. */
void sl_broker_sockmap_tell(struct sl_broker_client *cl, enum sl_broker_type type, uint64_t conn_id,
			    uint32_t pair)
{
	const struct sl_broker_msg msg = { .type = (uint32_t)type,
					   .flag = pair,
					   .conn_id = conn_id };

	tell_linked(cl, &msg);
}

void sl_broker_nat_kill(struct sl_broker_client *cl, uint64_t serial)
{
	const struct sl_broker_msg msg = { .type = SL_BROKER_NAT_KILL, .conn_id = serial };

	tell_linked(cl, &msg);
}

void sl_broker_nat_target(struct sl_broker_client *cl, const struct sl_broker_nat_target *target,
			  bool is_down)
{
	const struct sl_broker_msg msg = { .type = SL_BROKER_NAT_TARGET,
					   .flag = is_down,
					   .nat_target = *target };

	tell_linked(cl, &msg);
}

void sl_broker_diff(struct sl_broker_client *cl)
{
	const struct sl_broker_msg msg = { .type = SL_BROKER_DIFF };

	tell_linked(cl, &msg);
}

/* ---- reading a flow ---- */

static struct sl_flow_half half_of(const struct sl_packet_flow *f,
				   const struct sl_packet_flow *peer)
{
	return (struct sl_flow_half){ .packets = f->packets,
				      .bytes = f->bytes,
				      .relayed = f->relayed_bytes,
				      .fin = f->fin,
				      .fin_acked = peer->peer_fin_acked,
				      .rst = f->rst,
				      .last_ns = f->last_ns };
}

static uint64_t later(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

int sl_broker_read_flow(const struct sl_broker_client *cl, const struct sl_broker_flow *flow,
			bool want_names, struct sl_flow_facts *ret)
{
	struct sl_packet_flow client, backend;
	struct sl_packet_key key;
	struct sl_flow_facts f;
	int r;

	if (cl->maps[FD_FLOWS] < 0)
		return -ENOENT;
	sl_packet_key_of(&flow->client, &flow->front, &key);
	r = sl_packet_read_flow(cl->maps[FD_FLOWS], &key, &client);
	if (r < 0)
		return r;
	sl_packet_key_of(&flow->backend, &flow->back, &key);
	r = sl_packet_read_flow(cl->maps[FD_FLOWS], &key, &backend);
	if (r < 0)
		return r;
	/* The tuple of one side may be in use again already. */
	if (client.conn_id != backend.conn_id)
		return -ENOENT;
	f = (struct sl_flow_facts){
		.conn_id = client.conn_id,
		.half = { [SL_CLIENT] = half_of(&client, &backend),
			  [SL_BACKEND] = half_of(&backend, &client) },
		.last_data_ns = later(client.last_data_ns, backend.last_data_ns),
		.accepted_ns = client.accepted_ns,
		.connect_us = client.connect_us,
		.target_hash = client.target_hash,
	};
	sl_packet_addr(client.client, client.client_port, &f.client);
	sl_packet_addr(client.via, client.via_port, &f.via);
	if (want_names && sl_packet_route_name(cl->maps[FD_ROUTES], client.route_id, f.route) < 0)
		f.route[0] = '\0';
	*ret = f;
	return 0;
}

bool sl_broker_is_free(const struct sl_broker_client *cl, const struct sl_addr *back,
		       const struct sl_addr *backend)
{
	struct sl_packet_flow flow;
	struct sl_packet_key key;

	if (cl->maps[FD_FLOWS] < 0)
		return false; /* unknown: the port is left alone */
	sl_packet_key_of(backend, back, &key);
	return sl_packet_read_flow(cl->maps[FD_FLOWS], &key, &flow) == -ENOENT;
}
