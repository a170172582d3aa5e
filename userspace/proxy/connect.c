/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "proxy/connect.h"

#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/log.h"
#include "core/proxy_header.h"
#include "io/sock.h"
#include "proxy/conn.h"
#include "proxy/handover.h"
#include "proxy/listener.h"
#include "proxy/pick.h"
#include "proxy/source.h"
#include "proxy/tls.h"
#include "proxy/worker.h"

#ifndef IP_LOCAL_PORT_RANGE
#define IP_LOCAL_PORT_RANGE 51 /* linux/in.h since 6.3 */
#endif

/* How many source ports are tried before the kernel is asked to choose. */
#define PORT_TRIES 8

bool sl_connect_can_retry(const struct sl_conn *c)
{
	return c->route && c->attempts < c->route->conf->n_targets &&
	       c->attempts <= c->route->conf->retries && c->flow[SL_UP].bytes == 0;
}

/* The target's share in this connection's life is over, whether it was connected or not. */
void sl_connect_leave_target(struct sl_conn *c)
{
	if (c->target_active)
		__atomic_fetch_sub(&c->target->active, 1, __ATOMIC_RELAXED);
	if (c->target_connecting)
		__atomic_fetch_sub(&c->target->connecting, 1, __ATOMIC_RELAXED);
	c->target_active = false;
	c->target_connecting = false;
	sl_target_unref(c->target);
	c->target = NULL;
}

/* A retry goes on from where this connection began, without what it has tried. */
static bool pick_target(struct sl_conn *c)
{
	const struct sl_gen_route *route = c->route;
	struct sl_worker *w = c->worker;
	const struct sl_pick pick = { .route = route,
				      .client = &c->client,
				      .turn = c->turn,
				      .random = sl_rand_next(&w->rand),
				      .now_ms = sl_loop_now_ms(w->loop),
				      .tried = c->tried,
				      .n_tried = c->attempts };
	size_t i = sl_pick_target(&pick, w->choices, NULL);

	/* A name can lose its addresses only between the two looks; the next connection sees it. */
	if (i == SL_NO_CHOICE || !sl_target_pick_addr(route->targets[i], c->port, &c->backend))
		return false;
	sl_connect_leave_target(c);
	c->target = sl_target_ref(route->targets[i]);
	__atomic_fetch_add(&c->target->connecting, 1, __ATOMIC_RELAXED);
	c->target_connecting = true;
	c->tried[c->attempts++] = (uint16_t)i;
	return true;
}

static int set_int(int fd, int level, int option, int value)
{
	return setsockopt(fd, level, option, &value, sizeof(value));
}

/*
 * A backend socket with the options of every connection. Delayed
 * acknowledgement saves two packets when the request is already in hand: the
 * handshake's ACK rides on it and the answer's ACK on the next segment.
 */
static int open_socket(const struct sl_conn *c, int *ret_fd)
{
	int fd = socket(sl_addr_family(&c->backend), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	/* None of these can fail on a fresh TCP socket; if one did, TCP would still work. */
	(void)set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	(void)set_int(fd, SOL_SOCKET, SO_OOBINLINE, 1);
	(void)set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	if (c->route->conf->keep_alive != SL_KEEP_ALIVE_STANDARD) {
		/* Idle for long or for ever: a peer that vanished must be found by probes. */
		(void)set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, 60);
		(void)set_int(fd, IPPROTO_TCP, TCP_KEEPINTVL, 15);
		(void)set_int(fd, IPPROTO_TCP, TCP_KEEPCNT, 5);
	}
	if (c->early_len || c->flow[SL_UP].held)
		(void)set_int(fd, IPPROTO_TCP, TCP_QUICKACK, 0);
	*ret_fd = fd;
	return 0;
}

static uint32_t next_source_port(struct sl_worker *w)
{
	uint32_t port = w->next_port;

	w->next_port += w->port_step;
	if (w->next_port > w->port_max)
		w->next_port = w->port_min + w->index;
	return port;
}

/*
 * connect() with a source port of our own choice. Left alone, the kernel walks
 * all ports of one parity when half of the range is in TIME_WAIT: 800 us a
 * call, measured, against 30. A range of one port costs one setsockopt; unlike
 * bind() it leaves automatic choice of other sockets unharmed. Linux 6.3; older
 * kernels choose themselves.
 */
static int connect_from_own_port(struct sl_worker *w, int fd, const struct sl_addr *to)
{
	for (int i = 0; w->port_min != 0 && i < PORT_TRIES; i++) {
		uint32_t port = next_source_port(w);
		uint32_t range = port << 16 | port;

		if (setsockopt(fd, IPPROTO_IP, IP_LOCAL_PORT_RANGE, &range, sizeof(range)) < 0) {
			w->port_min = 0;
			break;
		}
		if (connect(fd, &to->sa, sl_addr_len(to)) == 0)
			return 0;
		if (errno != EADDRNOTAVAIL)
			return -errno;
	}
	if (w->port_min != 0) {
		const uint32_t any = 0;

		(void)setsockopt(fd, IPPROTO_IP, IP_LOCAL_PORT_RANGE, &any, sizeof(any));
	}
	return connect(fd, &to->sa, sl_addr_len(to)) == 0 ? 0 : -errno;
}

/* ---- the first bytes to the backend ---- */

/* What the client connected to: the PROXY header's word, or the socket's. */
static void find_local(struct sl_conn *c)
{
	if (sl_addr_family(&c->local) == AF_UNSPEC)
		(void)sl_sock_local(c->side[SL_CLIENT].io.fd, &c->local); /* stays unknown */
}

/* What TLS with the client has come to, where it ends here. The texts live as long as its stream.
 */
static void add_tls(const struct sl_conn *c, struct sl_ph_out *out, struct sl_tls_facts *f)
{
	const struct sl_conf_send_proxy *conf = &c->route->conf->send_proxy;

	sl_tls_stream_facts(c->tls->stream[SL_CLIENT], f);
	if (conf->alpn)
		out->alpn = (struct sl_slice){ .p = f->alpn, .n = f->alpn_len };
	out->has_ssl = conf->ssl;
	out->ssl_client = SL_PH_SSL | (f->has_peer_cert ? SL_PH_SSL_CERT_SESS : 0) |
			  (f->has_peer_cert && !f->is_resumed ? SL_PH_SSL_CERT_CONN : 0);
	out->ssl_verify = f->is_verified ? 0 : 1;
	out->ssl_version = (struct sl_slice){ .p = f->version, .n = strlen(f->version) };
	out->ssl_cipher = (struct sl_slice){ .p = f->cipher, .n = strlen(f->cipher) };
	out->ssl_cn = (struct sl_slice){ .p = f->peer_name, .n = strlen(f->peer_name) };
}

static size_t write_header(struct sl_conn *c, uint8_t buf[SL_PH_OUT_MAX])
{
	const struct sl_conf_send_proxy *conf = &c->route->conf->send_proxy;
	struct sl_ph_out out = { .version = conf->version,
				 .src = c->client,
				 .crc32c = conf->crc32c };
	struct sl_slice protocols = { 0 };
	struct sl_tls_facts facts;
	char id[24];

	find_local(c);
	out.dst = c->local;
	if (conf->unique_id)
		out.unique_id = (struct sl_slice){
			.p = id, .n = (size_t)snprintf(id, sizeof(id), "%" PRIu64, c->id)
		};
	if (c->hello && conf->authority && c->hello->name_len)
		out.authority = (struct sl_slice){ .p = c->hello->text, .n = c->hello->name_len };
	if (c->hello && conf->alpn)
		protocols = sl_hello_facts_alpn(c->hello);
	(void)sl_hello_next_alpn(&protocols, &out.alpn);
	if (sl_tls_is(c->tls, SL_CLIENT))
		add_tls(c, &out, &facts);
	return sl_proxy_header_write(&out, buf, SL_PH_OUT_MAX);
}

/*
 * Sends the PROXY header, if the target wants one, and what the client has sent so far, in
 * one go and without waiting for writability: on short paths the handshake is complete when
 * connect() returns. 1: sent, so the backend is connected; 0: not connected yet, or nothing to
 * send; negative: -errno. A header always fits into the empty queue of a new socket.
 */
static int send_first(struct sl_conn *c)
{
	struct sl_slice bytes =
		sl_tls_wants_backend(c) ? (struct sl_slice){ 0 } : sl_conn_in_hand(c);
	uint8_t header[SL_PH_OUT_MAX];
	size_t header_len = c->header_due ? write_header(c, header) : 0;
	struct iovec iov[2] = { { .iov_base = header, .iov_len = header_len },
				{ .iov_base = (void *)(uintptr_t)bytes.p, .iov_len = bytes.n } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };
	ssize_t n;

	if (header_len + bytes.n == 0)
		return c->header_due ? -EMSGSIZE : 0;
	if (header_len == 0) /* the common case, and the cheaper call */
		n = send(c->side[SL_BACKEND].io.fd, bytes.p, bytes.n, MSG_NOSIGNAL);
	else
		n = sendmsg(c->side[SL_BACKEND].io.fd, &msg, MSG_NOSIGNAL);
	if (n < 0 && (errno == EAGAIN || errno == ENOTCONN))
		return 0;
	if (n < 0)
		return -errno;
	if ((size_t)n < header_len)
		return -ENOBUFS;
	c->header_due = false;
	n -= (ssize_t)header_len;
	sl_conn_consume(c, (size_t)n);
	if (n > 0)
		sl_conn_moved(c, SL_UP, (uint64_t)n);
	return 1;
}

static void connected(struct sl_conn *c)
{
	int sent = c->header_due ? send_first(c) : 1;

	if (sent <= 0) {
		sl_connect_failed(c, sl_reason_from_errno(sent < 0 ? -sent : EPIPE));
		return;
	}
	c->connect_us = sl_loop_now_us(c->worker->loop) - c->attempt_us;
	if (c->connect_us == 0)
		c->connect_us = 1; /* 0 means: not connected */
	c->active_ms = sl_loop_now_ms(c->worker->loop);
	__atomic_fetch_add(&c->target->n_total, 1, __ATOMIC_RELAXED);
	__atomic_fetch_add(&c->target->active, 1, __ATOMIC_RELAXED);
	__atomic_fetch_sub(&c->target->connecting, 1, __ATOMIC_RELAXED);
	c->target_active = true;
	c->target_connecting = false;
	if (sl_tls_wants_backend(c)) { /* all is well when that is */
		sl_conn_event(c, SL_EV_TLS_NEEDED);
		return;
	}
	(void)sl_target_count_connect(c->target, true, c->active_ms);
	sl_conn_event(c, SL_EV_CONNECTED);
}

/* packet.ports are kept from everybody else. */
static bool has_own_ports(const struct sl_conn *c)
{
	return sl_worker_packet_reason(c->worker) == SL_WHY_ELIGIBLE;
}

/* Whether the kernel may carry it one day: then its source port must be one of ours. */
static bool wants_own_port(const struct sl_conn *c)
{
	const struct sl_addr *peer = sl_addr_family(&c->via) ? &c->via : &c->client;

	return sl_conf_may_packet(&c->gen->conf->global, c->route->conf) && has_own_ports(c) &&
	       sl_addr_family(peer) == sl_addr_family(&c->backend);
}

/* Leaves a fresh socket when the port is in use by our own stack, most often in TIME_WAIT. */
static int connect_from_packet_port(struct sl_conn *c, bool may_move)
{
	int *fd = &c->side[SL_BACKEND].io.fd;
	int r;

	if (!sl_source_bind(c, *fd, may_move))
		return -EADDRNOTAVAIL;
	r = connect(*fd, &c->backend.sa, sl_addr_len(&c->backend)) == 0 ? 0 : -errno;
	c->has_own_port = r == 0 || r == -EINPROGRESS;
	return r;
}

static int reopen(struct sl_conn *c)
{
	sl_closep(&c->side[SL_BACKEND].io.fd);
	return open_socket(c, &c->side[SL_BACKEND].io.fd);
}

/* -EADDRNOTAVAIL: none of those that were tried is free; the socket is a fresh one. */
static int try_packet_ports(struct sl_conn *c, bool may_move)
{
	for (int i = 0; i < PORT_TRIES; i++) {
		int r = connect_from_packet_port(c, may_move);

		if (r != -EADDRNOTAVAIL)
			return r;
		r = reopen(c);
		if (r < 0)
			return r;
	}
	return -EADDRNOTAVAIL;
}

/* Each kind of connection has its ports, and those of the other kind when there are no more. */
static int connect_socket(struct sl_conn *c)
{
	bool may_move = wants_own_port(c);
	int r = -EADDRNOTAVAIL;

	c->has_own_port = false;
	if (may_move)
		r = try_packet_ports(c, true);
	if (r != -EADDRNOTAVAIL)
		return r;
	r = connect_from_own_port(c->worker, c->side[SL_BACKEND].io.fd, &c->backend);
	if (r != -EADDRNOTAVAIL || may_move || !has_own_ports(c))
		return r;
	r = reopen(c);
	return r < 0 ? r : try_packet_ports(c, false);
}

/* Both sockets are watched from here on: a client that leaves must cancel the connect. */
static int watch_both(struct sl_conn *c, bool want_out)
{
	int r = sl_conn_watch(c, SL_BACKEND, want_out);

	if (r == 0 && c->side[SL_CLIENT].io.fn == NULL)
		r = sl_conn_watch(c, SL_CLIENT, false);
	return r;
}

static int begin(struct sl_conn *c, bool *ret_connected)
{
	int sent;
	int r;

	r = open_socket(c, &c->side[SL_BACKEND].io.fd);
	if (r < 0)
		return r;
	c->attempt_us = sl_loop_now_us(c->worker->loop);
	c->header_due = c->route->conf->send_proxy.version != SL_PH_SEND_NONE;
	r = connect_socket(c);
	if (r < 0 && r != -EINPROGRESS)
		return r;
	sent = send_first(c);
	if (sent < 0)
		return sent;
	*ret_connected = r == 0 || sent > 0;
	return watch_both(c, !*ret_connected || sl_conn_in_hand(c).n > 0);
}

static void failed(struct sl_conn *c, enum sl_reason reason, int err);

void sl_connect_next(struct sl_conn *c)
{
	bool is_connected = false;
	int r;

	if (c->attempts == 0)
		c->turn = __atomic_fetch_add(&c->route->route->next_target, 1, __ATOMIC_RELAXED);
	if (!pick_target(c)) {
		if (c->attempts > 0)
			sl_conn_fail(c, SL_BACKEND, c->last_failure);
		else
			sl_conn_end(c, SL_REASON_BACKEND_DOWN, true);
		return;
	}
	r = begin(c, &is_connected);
	if (!sl_conn_keep(c)) { /* no other target could be sent them */
		sl_listener_pause(c->worker, -ENOMEM);
		sl_conn_end(c, SL_REASON_ERROR, true);
		return;
	}
	if (r == -EMFILE || r == -ENFILE || r == -ENOBUFS || r == -ENOMEM)
		sl_listener_pause(c->worker, r); /* what is queued waits for better times */
	if (r < 0) {
		failed(c, sl_reason_from_errno(-r), -r);
	} else if (is_connected) {
		connected(c);
	} else {
		sl_conn_rearm(c); /* each attempt has the whole of timeouts.connect */
	}
}

/* `err` 0: it has none. */
static const char *text_of(enum sl_reason reason, int err)
{
	if (reason != SL_REASON_ERROR || err == 0)
		return sl_reason_text(reason);
	return err == EADDRNOTAVAIL ? "no source port is free towards it: "
				      "net.ipv4.ip_local_port_range"
				    : strerror(err);
}

static void log_failure(struct sl_conn *c, enum sl_reason reason, int err)
{
	char address[SL_ADDR_TEXT];
	struct sl_worker *w = c->worker;

	if (!sl_log_allowed(&w->connect_log, sl_loop_now_ms(w->loop), 5, 10000))
		return;
	if (reason == SL_REASON_CONNECTION_TIMEOUT)
		sl_log_conn(SL_LOG_WARN, c->id,
			    "route %s: connection timeout after %" PRIu64 " ms to %s",
			    c->route->conf->name, c->route->conf->timeouts.connect,
			    sl_addr_format(&c->backend, address));
	else
		sl_log_conn(SL_LOG_WARN, c->id, "route %s: cannot connect to %s: %s (%s)",
			    c->route->conf->name, sl_addr_format(&c->backend, address),
			    sl_reason_name(reason), text_of(reason, err));
}

/* The target's fault or its network's, not a lack of ours. */
static bool is_of_target(enum sl_reason reason)
{
	return reason == SL_REASON_ECONNREFUSED || reason == SL_REASON_ECONNRESET ||
	       reason == SL_REASON_ETIMEDOUT || reason == SL_REASON_CONNECTION_TIMEOUT ||
	       reason == SL_REASON_EHOSTUNREACH || reason == SL_REASON_ENETUNREACH ||
	       reason == SL_REASON_TLS_ERROR || reason == SL_REASON_HANDSHAKE_TIMEOUT;
}

static void failed(struct sl_conn *c, enum sl_reason reason, int err)
{
	struct sl_side_io *backend = &c->side[SL_BACKEND];

	uint64_t now_ms = sl_loop_now_ms(c->worker->loop);

	__atomic_fetch_add(&c->target->n_failed, 1, __ATOMIC_RELAXED);
	if (c->state == SL_CONN_CONNECTING) /* else proxy/tls.c has said more */
		log_failure(c, reason, err);
	if (is_of_target(reason) && sl_target_count_connect(c->target, false, now_ms))
		sl_log(SL_LOG_WARN, "route %s: connects to %s fail, leaving it out for a while",
		       c->route->conf->name, c->target->address);
	c->last_failure = reason;
	if (!sl_connect_can_retry(c)) {
		sl_conn_fail(c, SL_BACKEND, reason);
		return;
	}
	c->connect_us = 0; /* of a target that was reached and failed in TLS */
	sl_tls_drop_backend(c);
	sl_io_forget(&backend->io);
	sl_closep(&backend->io.fd);
	*backend = (struct sl_side_io){ .io.fd = -1 };
	sl_conn_event(c, SL_EV_CONNECT_FAILED);
}

void sl_connect_failed(struct sl_conn *c, enum sl_reason reason)
{
	failed(c, reason, 0);
}

static void on_backend(struct sl_conn *c, uint32_t events)
{
	socklen_t len = sizeof(int);
	int err = 0;

	if (!(events & (SL_IO_OUT | SL_IO_ERR | SL_IO_HUP)))
		return;
	(void)getsockopt(c->side[SL_BACKEND].io.fd, SOL_SOCKET, SO_ERROR, &err, &len);
	if (err != 0)
		failed(c, sl_reason_from_errno(err), err);
	else
		connected(c);
}

static ssize_t read_client(struct sl_conn *c)
{
	ssize_t n;

	if (sl_tls_is(c->tls, SL_CLIENT))
		return sl_tls_recv(c, SL_CLIENT, c->worker->scratch, SL_READ_SIZE);
	n = recv(c->side[SL_CLIENT].io.fd, c->worker->scratch, SL_READ_SIZE, 0);
	return n < 0 ? -errno : n;
}

/*
 * Reads at most once, so that a client cannot fill memory while its backend is
 * not connected; what comes later waits in the kernel. False: the connection has ended.
 */
static bool read_meanwhile(struct sl_conn *c)
{
	ssize_t n = read_client(c);

	if (n == -EPROTO) {
		sl_tls_fail(c, SL_CLIENT, -EPROTO);
		return false;
	}
	if ((n == 0 || n == -ECONNABORTED) && !c->got_data && !c->route->conf->half_open) {
		sl_conn_end(c, SL_REASON_CLOSED_DURING_CONNECT, true);
		return false;
	}
	if (n <= 0)
		return true;
	c->got_data = true;
	if (sl_conn_hold(c, SL_UP, c->worker->scratch, (size_t)n))
		return true;
	sl_conn_end(c, SL_REASON_ERROR, true);
	return false;
}

static void on_client(struct sl_conn *c, uint32_t events)
{
	if (events & (SL_IO_ERR | SL_IO_HUP)) {
		sl_conn_end(c, SL_REASON_CLOSED_DURING_CONNECT, true);
		return;
	}
	if (!c->flow[SL_UP].held && !read_meanwhile(c))
		return;
	if (events & SL_IO_RDHUP) { /* shortens the wait: see core/deadline.c */
		c->active_ms = sl_loop_now_ms(c->worker->loop);
		sl_conn_rearm(c);
	}
}

void sl_connect_on_socket(struct sl_conn *c, enum sl_side side, uint32_t events)
{
	if (side == SL_BACKEND)
		on_backend(c, events);
	else
		on_client(c, events);
}
