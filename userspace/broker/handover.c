/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "broker/handover.h"

#include <errno.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

#include "broker/life.h"
#include "broker/state.h"

/* linux/tcp.h; the C library's header has only TCP_REPAIR itself */
#define REPAIR_ON 1
#define REPAIR_OFF_NO_WP (-1)

/* One request; index of arrays: enum sl_packet_side. */
struct attempt {
	struct sl_broker *b;
	const struct sl_broker_msg *msg;
	int *fd;
	const struct sl_policy *policy;
	struct sl_sock_facts sock[2];
	struct sl_packet_key key[2];
	uint32_t ifindex[2]; /* towards each side; 0: the cached route's */
	uint32_t rcv_nxt[2]; /* at the commit */
	uint32_t route_id;
	bool has_holes;
	bool is_translated;
	bool owes_ack[2]; /* to the peer of each side */
};

static bool is_final(enum sl_engine_reason why)
{
	static const bool final[SL_WHY_COUNT_] = {
		[SL_WHY_NEEDS_TLS] = true,
		[SL_WHY_NOT_LINUX_SUPPORTED] = true,
		[SL_WHY_NO_PRIVILEGE] = true,
		[SL_WHY_TIMESTAMPS_ONE_SIDED] = true,
		[SL_WHY_SACK_ONE_SIDED] = true,
		[SL_WHY_MSS_MISMATCH] = true,
		[SL_WHY_MPTCP] = true,
		[SL_WHY_MD5] = true,
		[SL_WHY_HALF_CLOSED] = true,
		[SL_WHY_PORT_RANGE_FULL] = true, /* its port is what it is */
		[SL_WHY_SELF_TEST_FAILED] = true,
	};

	return final[why];
}

static enum sl_engine_reason why_of(int result)
{
	static const enum sl_engine_reason why[] = {
		[SL_PACKET_DONE] = SL_WHY_ELIGIBLE,
		[SL_PACKET_NO_REQUEST] = SL_WHY_NOT_LINUX_SUPPORTED,
		[SL_PACKET_NO_SOCKET] = SL_WHY_HALF_CLOSED,
		[SL_PACKET_NOT_ESTABLISHED] = SL_WHY_HALF_CLOSED,
		[SL_PACKET_NOT_QUIET] = SL_WHY_NOT_QUIESCENT,
		[SL_PACKET_URGENT] = SL_WHY_URGENT_DATA,
		[SL_PACKET_MD5] = SL_WHY_MD5,
		[SL_PACKET_NO_DEVICE] = SL_WHY_NO_ROUTE,
		[SL_PACKET_MAP_FULL] = SL_WHY_MAP_FULL,
		[SL_PACKET_TAKEN] = SL_WHY_PORT_RANGE_FULL,
	};

	if (result < 0 || (size_t)result >= SL_ARRAY_LEN(why))
		return SL_WHY_NOT_LINUX_SUPPORTED;
	return why[result];
}

/* ---- what userspace can tell ---- */

static enum sl_engine_reason check_room(const struct attempt *a, struct sl_peer *p)
{
	const struct sl_broker *b = a->b;

	if (!sl_broker_is_on(b))
		return b->why_off ? b->why_off : SL_WHY_NO_PRIVILEGE;
	if (!sl_peer_take_token(p) || sl_linger_is_full(&b->linger) ||
	    b->flush.stage != SL_FLUSH_NONE)
		return SL_WHY_RATE_LIMITED;
	if (b->table.n >= b->table.max)
		return SL_WHY_MAP_FULL;
	return SL_WHY_NONE;
}

static enum sl_engine_reason check_socks(struct attempt *a)
{
	for (int i = 0; i < 2; i++) {
		struct sl_sock_facts *s = &a->sock[i];
		enum sl_engine_reason why = sl_validate_sock(&a->b->validator, a->fd[i], s);

		if (why != SL_WHY_NONE)
			return why;
		sl_packet_key_of(&s->peer, &s->local, &a->key[i]);
	}
	a->policy = sl_broker_generation(a->b, a->msg->handover.generation);
	if (!a->policy) /* a newer one is on its way from the supervisor, perhaps */
		return a->msg->handover.generation > sl_broker_policy(a->b)->generation
			       ? SL_WHY_RATE_LIMITED
			       : SL_WHY_NO_PRIVILEGE;
	return sl_validate_pair(a->policy, a->msg->handover.route, false,
				&a->sock[SL_PACKET_CLIENT], &a->sock[SL_PACKET_BACKEND]);
}

/* Their packets on the wire would not be those of the keys. */
static bool is_translated(const struct attempt *a)
{
	if (sl_conntrack_is_idle(&a->b->conntrack))
		return false;
	for (int i = 0; i < 2; i++)
		if (sl_conntrack_is_translated(&a->b->conntrack, i == SL_PACKET_CLIENT,
					       &a->sock[i].local, &a->sock[i].peer))
			return true;
	return false;
}

static enum sl_engine_reason check_pair(struct attempt *a)
{
	const struct sl_policy_route *route;
	enum sl_engine_reason why;
	int r;

	why = sl_packet_eligible(&a->sock[SL_PACKET_CLIENT].tcp, &a->sock[SL_PACKET_BACKEND].tcp);
	if (why != SL_WHY_ELIGIBLE)
		return why;
	/* Its port may be somebody else's by now. */
	if (!a->b->has_old_ports && sl_flow_is_elsewhere(a->b, a->key))
		return SL_WHY_PORT_RANGE_FULL;
	/* An id is of one connection; an honest worker asks no more once it was told yes. */
	if (sl_flow_find(&a->b->table, a->msg->conn_id))
		return SL_WHY_NO_PRIVILEGE;
	a->is_translated = is_translated(a);
	if (a->is_translated)
		return SL_WHY_NO_ROUTE;
	route = &a->policy->routes[a->msg->handover.route];
	r = sl_packet_route_id(a->b->packet, route->name, &a->route_id);
	return r < 0 ? SL_WHY_MAP_FULL : SL_WHY_NONE;
}

/* ---- what the kernel tells ---- */

static struct sl_packet_request *new_request(const struct attempt *a, enum sl_packet_op op)
{
	struct sl_packet_request *q = sl_packet_request(a->b->packet);

	*q = (struct sl_packet_request){ .op = op, .conn_id = a->msg->conn_id };
	for (int i = 0; i < 2; i++) {
		q->cookie[i] = a->sock[i].cookie;
		q->key[i] = a->key[i];
		q->ifindex[i] = a->ifindex[i];
	}
	return q;
}

static int run(const struct attempt *a)
{
	int r = sl_broker_run(a->b);

	if (r < 0 && sl_broker_may_warn(a->b))
		sl_log_conn(SL_LOG_WARN, a->msg->conn_id,
			    "packet: the control program cannot be run: %s", strerror(-r));
	return r;
}

static bool has_holes(const struct sl_packet_request *q)
{
	return q->sock[0].out_of_order || q->sock[1].out_of_order;
}

/* Packets of the flow come in where those of the connections do. */
static enum sl_engine_reason check_interfaces(struct attempt *a, const struct sl_packet_sock *s)
{
	for (int i = 0; i < 2; i++) {
		uint32_t in = s[i].in_ifindex;
		uint32_t out = s[i].out_ifindex;

		if (out == 0)
			out = sl_routes_ask(&a->b->routes, &a->sock[i].local, &a->sock[i].peer);
		if (out == 0)
			return SL_WHY_NO_ROUTE;
		if (!sl_watch_has(&a->b->watch, in ? in : out))
			return SL_WHY_INTERFACE_NOT_ATTACHED;
		a->ifindex[i] = s[i].out_ifindex ? 0 : out;
	}
	return SL_WHY_NONE;
}

/* Changes nothing, so that a flow that is not quiet is not disturbed. */
static enum sl_engine_reason look(struct attempt *a)
{
	const struct sl_packet_request *q = new_request(a, SL_PACKET_OP_LOOK);
	struct sl_packet_sock sock[2];
	int r = run(a);

	if (r != SL_PACKET_DONE)
		return why_of(r);
	a->has_holes = has_holes(q);
	if (!sl_packet_is_quiet(&q->sock[0]) || !sl_packet_is_quiet(&q->sock[1]))
		return SL_WHY_NOT_QUIESCENT;
	memcpy(sock, q->sock, sizeof(sock));
	for (int i = 0; i < 2; i++)
		a->owes_ack[i] = sock[i].rcv_wup != sock[i].rcv_nxt;
	return check_interfaces(a, sock);
}

/* ---- commit ---- */

/* What neither the keys nor the sockets tell the control program. */
static void fill_direction(const struct attempt *a, enum sl_packet_side from,
			   struct sl_packet_flow *f)
{
	const struct sl_broker_handover *h = &a->msg->handover;
	const struct sl_sock_facts *us = &a->sock[from];
	const struct sl_sock_facts *out = &a->sock[1 - from];

	*f = (struct sl_packet_flow){
		.window_shift = (__s8)sl_packet_window_shift(&us->tcp, &out->tcp),
		.window_scale = out->tcp.has_wscale ? out->tcp.rcv_wscale : 0,
		.clear_ecn = us->tcp.has_ecn != out->tcp.has_ecn,
		.has_timestamps = us->tcp.has_timestamps,
		.route_id = a->route_id,
		.target_hash = h->target_hash,
		.client_port = sl_addr_port(&h->client),
		.via_port = sl_addr_port(&h->via),
		.connect_us = h->connect_us,
		.accepted_ns = h->accepted_us * 1000,
		.relayed_bytes = h->relayed[from == SL_PACKET_CLIENT ? SL_CLIENT : SL_BACKEND],
	};
	sl_packet_ip(&h->client, f->client);
	sl_packet_ip(&h->via, f->via);
}

static int set_repair(int fd, int how)
{
	return setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &how, sizeof(how)) < 0 ? -errno : 0;
}

static bool is_in_repair(int fd)
{
	int on = 0;
	socklen_t len = sizeof(on);

	return getsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &on, &len) == 0 && on != 0;
}

/* Without a window probe; SO_REUSEADDR, which that clears, is on both sides' sockets. */
static void leave_repair(int fd)
{
	const int reuse = 1;

	(void)set_repair(fd, REPAIR_OFF_NO_WP);
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof(reuse));
}

static void unfreeze(int fd)
{
	int unused = 0;

	(void)setsockopt(fd, SOL_SOCKET, SO_DETACH_BPF, &unused, sizeof(unused));
}

static int freeze(const struct attempt *a)
{
	int filter = sl_packet_freeze_fd(a->b->packet);
	int r = 0;

	for (int i = 0; r == 0 && i < 2; i++)
		if (setsockopt(a->fd[i], SOL_SOCKET, SO_ATTACH_BPF, &filter, sizeof(filter)) < 0)
			r = -errno;
	for (int i = 0; r == 0 && i < 2; i++)
		r = set_repair(a->fd[i], REPAIR_ON);
	return r;
}

/*
 * An acknowledgement held back would leave later than the clock is read, and look old then: now.
 * From here on they are held back, for TCP_DELACK_MIN (40 ms, net/tcp.h) at least. A processor may
 * be between the filter and the socket with a packet for as long as a hypervisor stops it; nothing
 * is lost by one that arrives behind the commit as long as its sender does not hear of it.
 */
static void acknowledge_now_or_late(int fd, bool owes_ack)
{
	const int now = 1;
	const int later = 0;

	if (owes_ack)
		(void)setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &now, sizeof(now));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &later, sizeof(later));
}

/* More than one segment at once would be acknowledged all the same, if there were room for more. */
static void leave_no_room(int fd)
{
	const int least = 0;

	(void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &least, sizeof(least));
}

/*
 * For the relay, which has it again: as long as a socket holds acknowledgements back, what is read
 * from it is acknowledged 40 ms later, and a sender of small pieces waits for that (Nagle).
 */
static void acknowledge_as_usual(int fd)
{
	const int now = 1;

	(void)setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &now, sizeof(now));
}

static void thaw_one(const struct attempt *a, int side)
{
	leave_repair(a->fd[side]);
	acknowledge_as_usual(a->fd[side]);
	if (!a->msg->handover.is_frozen)
		unfreeze(a->fd[side]);
}

static void thaw(const struct attempt *a)
{
	thaw_one(a, SL_PACKET_CLIENT);
	thaw_one(a, SL_PACKET_BACKEND);
}

static int get_clock(int fd, uint32_t *ret)
{
	socklen_t len = sizeof(*ret);

	return getsockopt(fd, IPPROTO_TCP, TCP_TIMESTAMP, ret, &len) < 0 ? -errno : 0;
}

/* enum sl_packet_result or -errno. From the first line to the last nothing may wait. */
static int commit(struct attempt *a)
{
	struct sl_packet_request *q = new_request(a, SL_PACKET_OP_COMMIT);
	int r;

	fill_direction(a, SL_PACKET_CLIENT, &q->flow[SL_PACKET_CLIENT]);
	fill_direction(a, SL_PACKET_BACKEND, &q->flow[SL_PACKET_BACKEND]);
	r = freeze(a);
	for (int i = 0; r == 0 && i < 2; i++) {
		acknowledge_now_or_late(a->fd[i], a->owes_ack[i]);
		r = get_clock(a->fd[i], &q->ts_now[i]);
	}
	if (r == 0)
		r = run(a);
	if (r != SL_PACKET_DONE) {
		thaw(a);
		a->has_holes = r > 0 && has_holes(q);
		return r;
	}
	for (int i = 0; i < 2; i++)
		a->rcv_nxt[i] = q->sock[i].rcv_nxt;
	return r;
}

/*
 * Both sides' windows and acknowledgements are news to the other side. Of a quiet flow nothing
 * waits for them, so that it is spared two packets each way; a frozen one may be short of both.
 */
static void kick(struct attempt *a)
{
	(void)new_request(a, SL_PACKET_OP_PROBE);
	(void)run(a);
}

/* The sockets stay for a moment, the flow is in the table. */
static void keep(struct attempt *a)
{
	struct sl_linger_pair pair = { .conn_id = a->msg->conn_id };

	for (int i = 0; i < 2; i++) {
		leave_no_room(a->fd[i]);
		pair.cookie[i] = a->sock[i].cookie;
		pair.rcv_nxt[i] = a->rcv_nxt[i];
		pair.key[i] = a->key[i];
		pair.fd[i] = SL_TAKE_FD(a->fd[i]);
	}
	sl_linger_add(a->b, &pair);
}

static enum sl_engine_reason try(struct attempt *a, struct sl_peer *p)
{
	struct sl_kflow *f = NULL;
	enum sl_engine_reason why = check_room(a, p);
	int r;

	if (why == SL_WHY_NONE)
		why = check_socks(a);
	if (why == SL_WHY_NONE)
		why = check_pair(a);
	if (why == SL_WHY_NONE)
		why = look(a);
	if (why != SL_WHY_NONE)
		return why;
	/* Before the commit, after which nothing may fail. */
	if (sl_flow_add(a->b, a->msg->conn_id, a->key, &f) < 0)
		return SL_WHY_MAP_FULL;
	r = commit(a);
	if (r != SL_PACKET_DONE) {
		sl_flow_drop(f);
		return why_of(r);
	}
	sl_flow_give(f, p);
	keep(a);
	return SL_WHY_ELIGIBLE;
}

static void say_full(struct sl_broker *b)
{
	if (sl_log_allowed(&b->full_limit, sl_loop_now_ms(b->loop), 1, 60000))
		sl_log(SL_LOG_WARN,
		       "packet: all %zu flows of packet.max_flows are in use, further connections "
		       "stay with the proxy (map_full); raise it where that lasts",
		       b->table.max);
}

static void reply(struct sl_peer *p, const struct attempt *a, enum sl_engine_reason why)
{
	const struct sl_broker_msg msg = {
		.type = SL_BROKER_RESULT,
		.conn_id = a->msg->conn_id,
		.result = { .why = why,
			    .is_final = is_final(why) || a->is_translated,
			    .has_holes = why == SL_WHY_NOT_QUIESCENT && a->has_holes },
	};

	if (why == SL_WHY_NO_PRIVILEGE && sl_broker_is_on(p->broker) &&
	    sl_broker_may_warn(p->broker))
		sl_log_conn(SL_LOG_WARN, a->msg->conn_id,
			    "packet: refused a hand-over that the configuration does not allow");
	if (why == SL_WHY_MAP_FULL && p->broker->table.n >= p->broker->table.max)
		say_full(p->broker);
	sl_peer_reply(p, &msg);
}

void sl_handover(struct sl_peer *p, const struct sl_broker_msg *msg, int fds[SL_BROKER_MAX_FDS])
{
	struct attempt a = { .b = p->broker, .msg = msg, .fd = fds };
	enum sl_engine_reason why = try(&a, p);

	reply(p, &a, why);
	if (why == SL_WHY_ELIGIBLE && msg->handover.is_frozen)
		kick(&a);
}

/* ---- after a broker has died ---- */

/* Whether the entries are there and in force; what its sockets had received at the commit. */
static bool is_in_kernel(struct attempt *a)
{
	struct sl_packet_flow entry;
	uint32_t seq_delta[2];
	const struct sl_packet_request *q;

	for (int i = 0; i < 2; i++) {
		if (sl_packet_look_up(a->b->packet, &a->key[i], &entry) < 0 ||
		    entry.conn_id != a->msg->conn_id || entry.state == SL_PACKET_STARTING)
			return false;
		seq_delta[i] = entry.seq_delta;
	}
	q = new_request(a, SL_PACKET_OP_LOOK);
	if (run(a) != SL_PACKET_DONE)
		return true;
	/* The delta was made of what one socket had received and the other had sent. */
	for (int i = 0; i < 2; i++)
		a->rcv_nxt[i] = q->sock[1 - i].snd_nxt - seq_delta[i];
	return true;
}

static void give(struct sl_kflow *f, struct sl_peer *p)
{
	sl_flow_give(f, p);
	f->told_marks = 0; /* what was told of them came before this answer */
	if (f->stage == SL_KFLOW_OVER)
		sl_peer_tell(f, SL_TELL_ENDED);
}

/*
 * It is in the kernel, so the sockets go, whoever has its record: another proxy may have been told
 * of it first. One that is not in the table is found by the sweep.
 */
static void adopt(struct attempt *a, struct sl_peer *p)
{
	struct sl_kflow *f = sl_flow_find(&a->b->table, a->msg->conn_id);
	bool is_anothers = f && f->owner && f->owner->proxy != p->proxy;

	(void)set_repair(a->fd[SL_PACKET_CLIENT], REPAIR_ON);
	(void)set_repair(a->fd[SL_PACKET_BACKEND], REPAIR_ON);
	if (!is_anothers && (f || sl_flow_add(a->b, a->msg->conn_id, a->key, &f) == 0))
		give(f, p);
	if (!sl_linger_is_full(&a->b->linger))
		keep(a);
}

static void remove_entries(const struct attempt *a)
{
	(void)new_request(a, SL_PACKET_OP_REMOVE);
	(void)run(a);
}

static enum sl_engine_reason resolve(struct attempt *a, struct sl_peer *p)
{
	enum sl_engine_reason why = SL_WHY_NONE;
	enum sl_engine_reason each[2];

	for (int i = 0; i < 2; i++) {
		each[i] = sl_validate_sock(&a->b->validator, a->fd[i], &a->sock[i]);
		if (each[i] == SL_WHY_NONE)
			sl_packet_key_of(&a->sock[i].peer, &a->sock[i].local, &a->key[i]);
		else
			why = each[i];
	}
	if (why == SL_WHY_NONE && a->b->packet && is_in_kernel(a)) {
		adopt(a, p);
		return SL_WHY_ELIGIBLE;
	}
	if (why == SL_WHY_NONE && a->b->packet && !sl_flow_find(&a->b->table, a->msg->conn_id))
		remove_entries(a);
	/* Also the one whose other has been reset; never one that no broker has begun with. */
	for (int i = 0; i < 2; i++)
		if (each[i] == SL_WHY_NONE ||
		    (each[i] == SL_WHY_HALF_CLOSED && is_in_repair(a->fd[i])))
			thaw_one(a, i);
	return why == SL_WHY_NONE ? SL_WHY_NOT_QUIESCENT : why;
}

void sl_handover_resolve(struct sl_peer *p, const struct sl_broker_msg *msg,
			 int fds[SL_BROKER_MAX_FDS])
{
	struct attempt a = { .b = p->broker, .msg = msg, .fd = fds };
	enum sl_engine_reason why = resolve(&a, p);

	reply(p, &a, why);
}

/* ---- with no room for the sockets ---- */

/*
 * What is in the kernel needs none. Of what is not, the sockets may be in repair mode: nobody can
 * take them out of it without having them, and an answer would say that they are as they were.
 */
static bool is_resolved(struct sl_peer *p, const struct sl_broker_msg *msg)
{
	struct sl_kflow *f = sl_flow_find(&p->broker->table, msg->conn_id);

	if (!f)
		return false;
	if (!f->owner || f->owner->proxy == p->proxy)
		give(f, p);
	return true;
}

void sl_handover_without(struct sl_peer *p, const struct sl_broker_msg *msg)
{
	struct attempt a = { .b = p->broker, .msg = msg };

	if (msg->type == SL_BROKER_HANDOVER)
		reply(p, &a, SL_WHY_RATE_LIMITED);
	else if (is_resolved(p, msg))
		reply(p, &a, SL_WHY_ELIGIBLE);
}
