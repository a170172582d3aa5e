/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "broker/linger.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "broker/life.h"
#include "broker/state.h"

/*
 * Longer than a packet is under way between the hook and a socket of this host, and shorter than
 * the sockets hold back acknowledgements.
 */
#define LINGER_MS 30
#define MAX_PAIRS 8192
/* Descriptors for everything else. */
#define SPARE_FDS 256

int sl_linger_init(struct sl_linger *l)
{
	struct rlimit limit;
	size_t max = MAX_PAIRS;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < SPARE_FDS + 2 * MAX_PAIRS)
		max = limit.rlim_cur > SPARE_FDS + 2 ? (limit.rlim_cur - SPARE_FDS) / 2 : 1;
	*l = (struct sl_linger){ .ring = calloc(max, sizeof(*l->ring)), .max = max };
	return l->ring ? 0 : -ENOMEM;
}

/*
 * In repair mode whatever became of it meanwhile: a close is silent then, and waits for nobody. Its
 * sender can give it SO_LINGER at any moment, but only we can take it out of that mode.
 */
static void close_one(int *fd)
{
	const int on = 1;

	if (*fd >= 0)
		(void)setsockopt(*fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on));
	sl_closep(fd);
}

static void close_pair(struct sl_linger_pair *pair)
{
	close_one(&pair->fd[0]);
	close_one(&pair->fd[1]);
}

static struct sl_linger_pair take_first(struct sl_linger *l)
{
	struct sl_linger_pair pair = l->ring[l->first];

	l->first = (l->first + 1) % l->max;
	l->n--;
	return pair;
}

void sl_linger_done(struct sl_linger *l)
{
	sl_timer_stop(&l->timer);
	while (l->n) {
		struct sl_linger_pair pair = take_first(l);

		close_pair(&pair);
	}
	free(l->ring);
	*l = (struct sl_linger){ 0 };
}

static bool is_ahead(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) > 0;
}

static int look(struct sl_broker *b, const struct sl_linger_pair *pair)
{
	struct sl_packet_request *q = sl_packet_request(b->packet);

	*q = (struct sl_packet_request){ .op = SL_PACKET_OP_LOOK, .conn_id = pair->conn_id };
	memcpy(q->cookie, pair->cookie, sizeof(q->cookie));
	memcpy(q->key, pair->key, sizeof(q->key));
	return sl_broker_run(b);
}

/*
 * Acknowledged by us, and never seen by the other side: only a reset is honest now. What is not
 * acknowledged comes again, and goes past us then.
 */
static bool has_late_data(const struct sl_broker *b, const struct sl_linger_pair *pair)
{
	const struct sl_packet_request *q = sl_packet_request(b->packet);

	return is_ahead(q->sock[0].rcv_wup, pair->rcv_nxt[0]) ||
	       is_ahead(q->sock[1].rcv_wup, pair->rcv_nxt[1]);
}

/* A RST, unlike all else that misses the hook, does not come again. */
static bool is_reset(int fd)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);

	return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0 &&
	       info.tcpi_state == TCP_CLOSE;
}

static void check_late(struct sl_broker *b, struct sl_kflow *f, const struct sl_linger_pair *pair)
{
	int r = look(b, pair);

	if (r < 0 || (r == SL_PACKET_DONE && has_late_data(b, pair))) {
		if (sl_broker_may_warn(b))
			sl_log_conn(SL_LOG_WARN, pair->conn_id,
				    "packet: data arrived behind the hand-over, both sides are "
				    "reset");
		sl_life_kill(f, SL_BROKER_END_LATE);
	} else if (r == SL_PACKET_DONE) {
		return;
	} else if (is_reset(pair->fd[SL_PACKET_CLIENT])) {
		sl_life_kill(f, SL_BROKER_END_RST_CLIENT);
	} else if (is_reset(pair->fd[SL_PACKET_BACKEND])) {
		sl_life_kill(f, SL_BROKER_END_RST_BACKEND);
	}
	/* Else someone has left repair mode, and answers for what follows. */
}

/* Of our own two connections, which are over; the flow goes past them. */
static void forget_tracked(struct sl_broker *b, const struct sl_linger_pair *pair)
{
	if (sl_conntrack_is_idle(&b->conntrack))
		return;
	for (int i = 0; i < 2; i++) {
		struct sl_addr local;
		struct sl_addr peer;

		sl_packet_addr(pair->key[i].daddr, pair->key[i].dport, &local);
		sl_packet_addr(pair->key[i].saddr, pair->key[i].sport, &peer);
		sl_conntrack_delete(&b->conntrack, i == SL_PACKET_CLIENT, &local, &peer);
	}
}

static void finish(struct sl_broker *b, struct sl_linger_pair *pair)
{
	struct sl_kflow *f;

	if (pair->fd[SL_PACKET_CLIENT] < 0) /* the tuple may be another connection's by now */
		return;
	f = sl_flow_find(&b->table, pair->conn_id);
	if (f)
		f->is_lingering = false;
	if (b->packet && f && f->stage != SL_KFLOW_OVER)
		check_late(b, f, pair);
	close_pair(pair);
	forget_tracked(b, pair);
}

static void on_timer(struct sl_timer *timer)
{
	struct sl_broker *b = SL_CONTAINER_OF(timer, struct sl_broker, linger.timer);
	struct sl_linger *l = &b->linger;
	uint64_t now = sl_loop_now_ms(b->loop);

	while (l->n && l->ring[l->first].at_ms <= now) {
		struct sl_linger_pair pair = take_first(l);

		finish(b, &pair);
	}
	if (l->n)
		sl_timer_start(b->loop, timer, l->ring[l->first].at_ms, on_timer);
}

void sl_linger_end(struct sl_kflow *f)
{
	struct sl_broker *b = f->broker;
	struct sl_linger *l = &b->linger;

	if (!f->is_lingering)
		return;
	f->is_lingering = false;
	for (size_t i = 0; i < l->n; i++) {
		struct sl_linger_pair *pair = &l->ring[(l->first + i) % l->max];

		if (pair->conn_id != f->conn_id || pair->fd[SL_PACKET_CLIENT] < 0)
			continue;
		close_pair(pair);
		forget_tracked(b, pair);
	}
}

void sl_linger_add(struct sl_broker *b, const struct sl_linger_pair *pair)
{
	struct sl_linger *l = &b->linger;
	struct sl_linger_pair *at = &l->ring[(l->first + l->n++) % l->max];
	struct sl_kflow *f = sl_flow_find(&b->table, pair->conn_id);

	*at = *pair;
	if (f)
		f->is_lingering = true;
	/* Of the clock, not of the turn, which may be long in a storm. */
	at->at_ms = sl_loop_now_us(b->loop) / 1000 + LINGER_MS;
	if (!sl_timer_is_armed(&l->timer))
		sl_timer_start(b->loop, &l->timer, l->ring[l->first].at_ms, on_timer);
}
