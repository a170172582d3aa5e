/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "proxy/listener.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "base/count.h"
#include "base/log.h"
#include "io/sock.h"
#include "proxy/conn.h"
#include "proxy/worker.h"

/*
 * Connections taken per event: the accept that finds nothing costs more than
 * another wait, so one is enough unless the queue is known to be longer.
 */
#define ACCEPT_BATCH 4
/* How long to leave the queue alone when descriptors or memory have run out. */
#define ACCEPT_PAUSE_MS 100
/* More than any backlog: ends the emptying of a queue that is being refilled. */
#define DRAIN_ACCEPTS 65536

/* One worker's watch on a listening socket. */
struct sl_listener {
	struct sl_io io;
	struct sl_list node;
	struct sl_worker *worker;
	struct sl_listen_socket *socket; /* reference */
	struct sl_task reap;
	bool was_busy; /* the last event left the queue unfinished */
};

int sl_listen_socket_new(const struct sl_proxy_listener *conf, struct sl_listen_socket **ret)
{
	struct sl_listen_socket *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->refs = 1;
	s->conf = *conf;
	*ret = s;
	return 0;
}

struct sl_listen_socket *sl_listen_socket_ref(struct sl_listen_socket *s)
{
	__atomic_add_fetch(&s->refs, 1, __ATOMIC_RELAXED);
	return s;
}

void sl_listen_socket_unref(struct sl_listen_socket *s)
{
	if (!s || __atomic_sub_fetch(&s->refs, 1, __ATOMIC_ACQ_REL) != 0)
		return;
	sl_closep(&s->conf.fd);
	free(s);
}

static int watch(struct sl_listener *l);

void sl_listen_socket_clamp(struct sl_listen_socket *s, uint32_t mss)
{
	uint32_t now = __atomic_load_n(&s->mss, __ATOMIC_RELAXED);
	int value = (int)mss;

	if (now != 0 && now <= mss)
		return;
	if (setsockopt(s->conf.fd, IPPROTO_TCP, TCP_MAXSEG, &value, sizeof(value)) == 0)
		__atomic_store_n(&s->mss, mss, __ATOMIC_RELAXED);
}

void sl_listener_clamp(struct sl_worker *w, uint16_t port, uint32_t mss)
{
	struct sl_list *pos;

	sl_list_for_each (pos, &w->listeners) {
		struct sl_listen_socket *s = SL_CONTAINER_OF(pos, struct sl_listener, node)->socket;

		if (port >= s->conf.from && port <= s->conf.to)
			sl_listen_socket_clamp(s, mss);
	}
}

static void on_pause_over(struct sl_timer *timer);

static void rest(struct sl_worker *w)
{
	w->accept_paused = true;
	sl_timer_start(w->loop, &w->accept_pause, sl_loop_now_ms(w->loop) + ACCEPT_PAUSE_MS,
		       on_pause_over);
}

/* Watches what is not watched; what cannot be for want of memory is tried again. */
static void on_pause_over(struct sl_timer *timer)
{
	struct sl_worker *w = SL_CONTAINER_OF(timer, struct sl_worker, accept_pause);
	struct sl_list *pos;
	int failed = 0;

	w->accept_paused = false;
	sl_list_for_each (pos, &w->listeners) {
		struct sl_listener *l = SL_CONTAINER_OF(pos, struct sl_listener, node);
		int r = l->io.fn ? 0 : watch(l);

		if (r < 0)
			failed = r;
	}
	if (failed == 0)
		return;
	if (sl_log_allowed(&w->accept_log, sl_loop_now_ms(w->loop), 1, 10000))
		(void)sl_err(failed, "cannot watch a listener, trying again every %d ms",
			     ACCEPT_PAUSE_MS);
	rest(w);
}

/* A level-triggered listener that cannot accept would spin. */
void sl_listener_pause(struct sl_worker *w, int err)
{
	struct sl_list *pos;

	if (w->accept_paused)
		return;
	sl_count_add(&w->counts.accept_errors, 1);
	if (sl_log_allowed(&w->accept_log, sl_loop_now_ms(w->loop), 1, 10000))
		(void)sl_warn(err,
			      "cannot accept connections now, trying again every %d ms "
			      "(raise the limit of open files, or lower max_connections)",
			      ACCEPT_PAUSE_MS);
	sl_list_for_each (pos, &w->listeners)
		sl_io_stop(&SL_CONTAINER_OF(pos, struct sl_listener, node)->io);
	rest(w);
}

/* Errors of one connection that is already gone, or of a network going down: accept(2). */
static bool is_transient(int err)
{
	return err == ECONNABORTED || err == EINTR || err == EPROTO || err == ENOPROTOOPT ||
	       err == EHOSTDOWN || err == EHOSTUNREACH || err == ENETDOWN || err == ENETUNREACH ||
	       err == ENONET || err == EOPNOTSUPP || err == EPERM;
}

/* The port, and where routes differ by it the address, that the client connected to. */
static uint16_t where_to(const struct sl_listener *l, int fd, struct sl_addr *ret_local)
{
	const struct sl_proxy_listener *conf = &l->socket->conf;

	*ret_local = conf->ip;
	if (conf->from == conf->to &&
	    ((sl_addr_family(&conf->ip) != AF_UNSPEC && !sl_addr_is_any(&conf->ip)) ||
	     !sl_generation_needs_ip(l->worker->gen, conf->from)))
		return conf->from;
	if (sl_sock_local(fd, ret_local) < 0)
		return 0; /* matches no route */
	return sl_addr_port(ret_local);
}

/* 0: one was taken; -EAGAIN: none is waiting; else another error. */
static int accept_one(struct sl_listener *l)
{
	struct sockaddr_storage peer;
	socklen_t len = sizeof(peer);
	struct sl_addr client;
	struct sl_addr local;
	uint16_t port;
	int fd;

	fd = accept4(l->io.fd, (struct sockaddr *)&peer, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd < 0)
		return -errno;
	sl_addr_set(&client, (const struct sockaddr *)&peer);
	port = where_to(l, fd, &local);
	sl_conn_open(l->worker, fd, &client, port, &local);
	return 0;
}

static void on_listener(struct sl_io *io, uint32_t events)
{
	struct sl_listener *l = SL_CONTAINER_OF(io, struct sl_listener, io);
	int limit = l->was_busy ? ACCEPT_BATCH : 1;
	int n = 0;
	int r = 0;

	(void)events;
	while (n < limit && r == 0) {
		r = accept_one(l);
		if (r < 0 && is_transient(-r))
			r = 0;
		n++;
	}
	l->was_busy = r == 0 && (limit > 1 || sl_loop_is_busy(l->worker->loop));
	if (r < 0 && r != -EAGAIN)
		sl_listener_pause(l->worker, r);
}

static int watch(struct sl_listener *l)
{
	return sl_io_start(l->worker->loop, &l->io, l->socket->conf.fd, SL_IO_IN | SL_IO_EXCLUSIVE,
			   on_listener);
}

int sl_listener_add(struct sl_worker *w, struct sl_listen_socket *s)
{
	struct sl_listener *l = calloc(1, sizeof(*l));
	int r = 0;

	if (!l)
		return -ENOMEM;
	l->worker = w;
	l->socket = sl_listen_socket_ref(s);
	sl_list_add(&w->listeners, &l->node);
	if (!w->accept_paused)
		r = watch(l);
	if (r < 0) {
		(void)sl_err(r, "listener %u: cannot watch it, trying again", s->conf.from);
		rest(w);
	}
	return 0;
}

static void free_listener(struct sl_task *task)
{
	free(SL_CONTAINER_OF(task, struct sl_listener, reap));
}

static void drop(struct sl_listener *l, bool accept_queued)
{
	/*
	 * Not watched any more before the queue is emptied: a wake-up that only
	 * this worker got, and has not looked at yet, would else be lost.
	 */
	sl_io_stop(&l->io);
	l->io.fd = l->socket->conf.fd;
	for (int i = 0; accept_queued && i < DRAIN_ACCEPTS; i++) {
		int r = accept_one(l);

		if (r < 0 && !is_transient(-r))
			break;
	}
	sl_list_remove(&l->node);
	sl_listen_socket_unref(l->socket);
	sl_loop_defer(l->worker->loop, &l->reap, free_listener);
}

void sl_listener_remove(struct sl_worker *w, uint64_t id, bool accept_queued)
{
	struct sl_list *pos;

	sl_list_for_each (pos, &w->listeners) {
		struct sl_listener *l = SL_CONTAINER_OF(pos, struct sl_listener, node);

		if (l->socket->conf.id == id) {
			drop(l, accept_queued);
			return;
		}
	}
}

void sl_listener_remove_all(struct sl_worker *w, bool accept_queued)
{
	struct sl_list *pos;
	struct sl_list *tmp;

	sl_list_for_each_safe (pos, tmp, &w->listeners)
		drop(SL_CONTAINER_OF(pos, struct sl_listener, node), accept_queued);
}
