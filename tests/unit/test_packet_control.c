/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The control and freeze programs of the packet engine on real TCP connections of a loopback
 * device; needs root, runs in a network namespace of its own. Segments out of order and an urgent
 * mark that outlives its octet cannot be made by sockets alone and are left to the end-to-end
 * tests.
 */
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "packet_lab.h"

static struct lab lab;
static unsigned lo;

static int set_up(void **state)
{
	(void)state;
	lo = 1;
	return lab_open(&lab);
}

static int tear_down(void **state)
{
	(void)state;
	lab_close(&lab);
	return 0;
}

static void begin(void)
{
	if (lab.why_skipped) {
		print_message("skipped: %s\n", lab.why_skipped);
		skip();
	}
}

/* ---- two connections ---- */

/* client - front, back - server; front and back are the proxy's. */
struct flow {
	int client;
	int front;
	int back;
	int server;
};

static void make_address(unsigned family, const char *text, uint16_t port,
			 struct sockaddr_storage *ss, socklen_t *len)
{
	memset(ss, 0, sizeof(*ss));
	if (family == 4) {
		struct sockaddr_in *sin = (struct sockaddr_in *)ss;

		*sin = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(port) };
		assert_int_equal(inet_pton(AF_INET, text, &sin->sin_addr), 1);
		*len = sizeof(*sin);
	} else {
		struct sockaddr_in6 *sin6 = (struct sockaddr_in6 *)ss;

		*sin6 = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_port = htons(port) };
		assert_int_equal(inet_pton(AF_INET6, text, &sin6->sin6_addr), 1);
		*len = sizeof(*sin6);
	}
}

static void connect_pair(unsigned family, uint16_t port, bool has_md5, int *ret_active,
			 int *ret_passive)
{
	struct sockaddr_storage ss;
	socklen_t len;
	const struct timeval most = { .tv_sec = 5 };
	const int one = 1, mss = 1400;
	int listener;

	make_address(family, family == 4 ? "127.0.0.1" : "::1", port, &ss, &len);
	listener = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	*ret_active = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(listener >= 0 && *ret_active >= 0);
	assert_int_equal(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)), 0);
	assert_int_equal(setsockopt(listener, SOL_TCP, TCP_MAXSEG, &mss, sizeof(mss)), 0);
	assert_int_equal(bind(listener, (struct sockaddr *)&ss, len), 0);
	assert_int_equal(listen(listener, 4), 0);
	if (has_md5) {
		struct tcp_md5sig md5 = { .tcpm_keylen = 3, .tcpm_key = "key" };

		memcpy(&md5.tcpm_addr, &ss, len);
		if (setsockopt(listener, SOL_TCP, TCP_MD5SIG, &md5, sizeof(md5)) < 0 ||
		    setsockopt(*ret_active, SOL_TCP, TCP_MD5SIG, &md5, sizeof(md5)) < 0) {
			print_message("skipped: no TCP_MD5SIG\n");
			skip();
		}
	}
	assert_int_equal(connect(*ret_active, (struct sockaddr *)&ss, len), 0);
	*ret_passive = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	assert_true(*ret_passive >= 0);
	/* What never comes is an error, not a test that hangs. */
	assert_int_equal(setsockopt(*ret_active, SOL_SOCKET, SO_RCVTIMEO, &most, sizeof(most)), 0);
	assert_int_equal(setsockopt(*ret_passive, SOL_SOCKET, SO_RCVTIMEO, &most, sizeof(most)), 0);
	assert_int_equal(close(listener), 0);
}

static struct flow open_flow(unsigned family)
{
	struct flow f;

	connect_pair(family, 4430, false, &f.client, &f.front);
	connect_pair(family, 8080, false, &f.back, &f.server);
	return f;
}

/* A proxy's socket ends without a word. */
static void close_silently(int *fd)
{
	const int on = 1;

	if (*fd < 0)
		return;
	assert_int_equal(setsockopt(*fd, SOL_TCP, TCP_REPAIR, &on, sizeof(on)), 0);
	assert_int_equal(close(*fd), 0);
	*fd = -1;
}

static void close_flow(struct flow *f)
{
	close_silently(&f->front);
	close_silently(&f->back);
	close_silently(&f->client);
	close_silently(&f->server);
}

static void put_end(const struct sockaddr_storage *ss, uint8_t ip[16], uint16_t *port)
{
	if (ss->ss_family == AF_INET) {
		const struct sockaddr_in *sin = (const struct sockaddr_in *)ss;

		set_ip(ip, "0.0.0.0");
		memcpy(ip + 12, &sin->sin_addr, 4);
		*port = ntohs(sin->sin_port);
	} else {
		const struct sockaddr_in6 *sin6 = (const struct sockaddr_in6 *)ss;

		memcpy(ip, &sin6->sin6_addr, 16);
		*port = ntohs(sin6->sin6_port);
	}
}

/* Of what arrives at this socket. */
static struct sl_packet_key key_at(int fd)
{
	struct sl_packet_key key = { .sport = 0 };
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);

	assert_int_equal(getpeername(fd, (struct sockaddr *)&ss, &len), 0);
	put_end(&ss, key.saddr, &key.sport);
	len = sizeof(ss);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&ss, &len), 0);
	put_end(&ss, key.daddr, &key.dport);
	return key;
}

static uint64_t cookie_of(int fd)
{
	uint64_t cookie = 0;
	socklen_t len = sizeof(cookie);

	assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len), 0);
	return cookie;
}

static uint32_t clock_of(int fd)
{
	uint32_t now = 0;
	socklen_t len = sizeof(now);

	assert_int_equal(getsockopt(fd, SOL_TCP, TCP_TIMESTAMP, &now, &len), 0);
	return now;
}

/* What the kernel itself tells in repair mode: { sent, received }. */
static void sequences_of(int fd, uint32_t seq[2])
{
	const int on = 1, off = -1;

	assert_int_equal(setsockopt(fd, SOL_TCP, TCP_REPAIR, &on, sizeof(on)), 0);
	for (int i = 0; i < 2; i++) {
		const int queue = i == 0 ? TCP_SEND_QUEUE : TCP_RECV_QUEUE;
		socklen_t len = sizeof(seq[i]);

		assert_int_equal(setsockopt(fd, SOL_TCP, TCP_REPAIR_QUEUE, &queue, sizeof(queue)),
				 0);
		assert_int_equal(getsockopt(fd, SOL_TCP, TCP_QUEUE_SEQ, &seq[i], &len), 0);
	}
	/* Without the probe that an ordinary end of the mode sends. */
	assert_int_equal(setsockopt(fd, SOL_TCP, TCP_REPAIR, &off, sizeof(off)), 0);
}

/* ---- requests ---- */

/* The frame is what injected packets are made of; its type says of which family they are. */
static enum sl_packet_result control(struct sl_packet_request *req)
{
	uint8_t frame[128] = { 0 };
	LIBBPF_OPTS(bpf_test_run_opts, o, .data_in = frame, .data_size_in = sizeof(frame));
	const int map = bpf_map__fd(lab.tc->maps.packet_request);
	uint32_t zero = 0;

	set16(frame + 12, req->key[0].saddr[10] == 0xff ? 0x0800 : 0x86dd);
	req->result = SL_PACKET_NO_REQUEST;
	assert_int_equal(bpf_map_update_elem(map, &zero, req, BPF_ANY), 0);
	assert_int_equal(
		bpf_prog_test_run_opts(bpf_program__fd(lab.tc->progs.sl_packet_control), &o), 0);
	assert_int_equal(bpf_map_lookup_elem(map, &zero, req), 0);
	return req->result;
}

static struct sl_packet_request request(enum sl_packet_op op, const struct flow *f)
{
	struct sl_packet_request req = { .op = op, .conn_id = 77 };
	const int ours[2] = { f->front, f->back };

	for (int i = 0; i < 2; i++) {
		struct sl_packet_flow *flow = &req.flow[i];

		req.cookie[i] = cookie_of(ours[i]);
		req.ts_now[i] = clock_of(ours[i]);
		req.key[i] = key_at(ours[i]);
		flow->from = i == 0 ? SL_PACKET_CLIENT : SL_PACKET_BACKEND;
		flow->has_timestamps = 1;
		flow->conn_id = 77;
		flow->route_id = 5;
		flow->target_hash = 0xabcdef01;
		set_ip(flow->client, "203.0.113.9");
		flow->client_port = 999;
		flow->connect_us = 12;
		flow->accepted_ns = 34;
		flow->relayed_bytes = 1000 + (uint64_t)i;
	}
	for (int i = 0; i < 2; i++) {
		const struct sl_packet_key *out = &req.key[!i];

		/* 127.0.0.1 and ::1 both end in 1; the mapped prefix tells */
		req.flow[i].family = req.key[i].saddr[10] == 0xff ? 4 : 6;
		memcpy(req.flow[i].new_saddr, out->daddr, 16);
		memcpy(req.flow[i].new_daddr, out->saddr, 16);
		req.flow[i].new_sport = out->dport;
		req.flow[i].new_dport = out->sport;
	}
	return req;
}

static struct pair pair_of(const struct sl_packet_request *req)
{
	struct pair p;

	memcpy(p.key, req->key, sizeof(p.key));
	memcpy(p.flow, req->flow, sizeof(p.flow));
	return p;
}

static unsigned count_entries(const struct sl_packet_request *req)
{
	struct pair p = pair_of(req);
	struct sl_packet_flow flow[2];

	return lab_get(&lab, &p, flow);
}

/* Both sides have said something and all of it was read and acknowledged. */
static void exchange(int a, int b)
{
	char got[16];
	int left;

	for (int i = 0; i < 3; i++) {
		assert_int_equal(send(a, "0123456789", 10, MSG_NOSIGNAL), 10);
		assert_int_equal(recv(b, got, 10, MSG_WAITALL), 10);
		assert_int_equal(send(b, "abcdefg", 7, MSG_NOSIGNAL), 7);
		assert_int_equal(recv(a, got, 7, MSG_WAITALL), 7);
	}
	/* The last acknowledgement comes within the delay of one. */
	for (int tries = 0; tries < 400; tries++) {
		assert_int_equal(ioctl(b, SIOCOUTQ, &left), 0);
		if (left == 0)
			return;
		(void)poll(NULL, 0, 5);
	}
	fail_msg("not acknowledged");
}

static struct flow open_quiet_flow(unsigned family)
{
	struct flow f = open_flow(family);

	exchange(f.client, f.front);
	exchange(f.server, f.back);
	exchange(f.front, f.client);
	exchange(f.back, f.server);
	return f;
}

/* ---- looking, committing ---- */

static void check_sock(const struct sl_packet_sock *s, int fd, int peer)
{
	uint32_t seq[2], theirs[2];

	sequences_of(fd, seq);
	sequences_of(peer, theirs);
	assert_int_equal(s->cookie, cookie_of(fd));
	assert_int_equal(s->state, 1);
	assert_int_equal(s->rcv_nxt, seq[1]);
	assert_int_equal(s->copied_seq, seq[1]);
	assert_int_equal(s->write_seq, seq[0]);
	assert_int_equal(s->snd_nxt, seq[0]);
	assert_int_equal(s->snd_una, seq[0]);
	assert_int_equal(theirs[0], seq[1]);
	assert_int_equal(theirs[1], seq[0]);
	/* The peer's clock at its last packet, in milliseconds or microseconds. */
	assert_in_range(clock_of(peer) - s->ts_recent, 0, 10000000);
	assert_int_equal(s->out_ifindex, lo);
	assert_int_equal(s->out_of_order | s->backlog | s->urgent | s->md5, 0);
}

static void test_look(void **state)
{
	(void)state;
	begin();
	for (unsigned family = 4; family <= 6; family += 2) {
		struct flow f = open_quiet_flow(family);
		struct sl_packet_request req = request(SL_PACKET_OP_LOOK, &f);

		assert_int_equal(control(&req), SL_PACKET_DONE);
		check_sock(&req.sock[0], f.front, f.client);
		check_sock(&req.sock[1], f.back, f.server);
		assert_int_equal(count_entries(&req), 0);
		/* With something unread the numbers part. */
		assert_int_equal(send(f.client, "xyz", 3, 0), 3);
		assert_int_equal(poll(&(struct pollfd){ f.front, POLLIN, 0 }, 1, 2000), 1);
		assert_int_equal(control(&req), SL_PACKET_DONE);
		assert_int_equal(req.sock[0].rcv_nxt - req.sock[0].copied_seq, 3);
		close_flow(&f);
		assert_int_equal(control(&req), SL_PACKET_NO_SOCKET);
	}
}

/* In octets, from the last acknowledgement on; tcpi_snd_wnd of linux/tcp.h. */
static uint32_t window_it_sees(int fd)
{
	uint8_t info[232] = { 0 };
	socklen_t len = sizeof(info);
	uint32_t window;

	assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, &len), 0);
	assert_int_equal(len, sizeof(info));
	memcpy(&window, info + 228, sizeof(window));
	return window;
}

static void check_committed(const struct sl_packet_request *req, const struct flow *f)
{
	struct pair p = pair_of(req);
	struct sl_packet_flow flow[2];
	uint32_t front[2], back[2]; /* sent, received */

	sequences_of(f->front, front);
	sequences_of(f->back, back);
	assert_int_equal(lab_get(&lab, &p, flow), 2);
	assert_int_equal(flow[0].seq_delta, back[0] - front[1]);
	assert_int_equal(flow[0].ack_delta, back[1] - front[0]);
	assert_int_equal(flow[1].seq_delta, front[0] - back[1]);
	assert_int_equal(flow[1].ack_delta, front[1] - back[0]);
	assert_int_equal(flow[0].max_seq, front[1]);
	assert_int_equal(flow[0].max_ack, front[0]);
	assert_int_equal(flow[1].max_seq, back[1]);
	assert_int_equal(flow[1].max_ack, back[0]);
	/* What the other end may send, by what our socket has told it. */
	assert_int_equal(flow[0].promised - flow[0].max_ack, window_it_sees(f->server));
	assert_int_equal(flow[1].promised - flow[1].max_ack, window_it_sees(f->client));
	for (int i = 0; i < 2; i++) {
		assert_int_equal(flow[i].is_promised, 1);
		assert_int_equal(flow[i].offered, flow[i].max_ack);
		assert_int_equal(flow[i].may_overrun, 1);
		assert_int_equal(flow[i].within, flow[i].max_seq + flow[i].seq_delta);
		/* The peer's clock becomes ours at this moment, at most a little ahead. */
		assert_in_range(flow[i].tsval_delta + req->sock[i].ts_recent - req->ts_now[!i], 0,
				100);
		assert_int_equal(flow[i].tsecr_delta, -flow[!i].tsval_delta);
		assert_int_equal(flow[i].state, SL_PACKET_ACTIVE);
		assert_int_equal(flow[i].ifindex, lo);
		assert_int_equal(flow[i].peer_ifindex, lo);
		assert_int_equal(req->ifindex[i], lo);
		assert_int_equal(flow[i].packets | flow[i].bytes | flow[i].drops, 0);
		assert_int_equal(
			flow[i].fin | flow[i].peer_fin | flow[i].rst | flow[i].peer_fin_acked, 0);
		assert_memory_equal(flow[i].new_saddr, req->key[!i].daddr, 16);
		assert_memory_equal(flow[i].new_daddr, req->key[!i].saddr, 16);
		assert_int_equal(flow[i].new_sport, req->key[!i].dport);
		assert_int_equal(flow[i].new_dport, req->key[!i].sport);
		assert_int_equal(flow[i].from, i);
		assert_int_equal(flow[i].conn_id, 77);
		assert_int_equal(flow[i].route_id, 5);
		assert_int_equal(flow[i].target_hash, 0xabcdef01);
		assert_int_equal(flow[i].client_port, 999);
		assert_int_equal(flow[i].accepted_ns, 34);
		assert_int_equal(flow[i].relayed_bytes, 1000 + i);
		/* Idle begins with the hand-over. */
		assert_true(lab_now() - flow[i].last_ns < 1000000000);
	}
}

static void test_commit(void **state)
{
	(void)state;
	begin();
	for (unsigned family = 4; family <= 6; family += 2) {
		struct flow f = open_quiet_flow(family);
		struct sl_packet_request req = request(SL_PACKET_OP_COMMIT, &f);
		struct pair p = pair_of(&req);

		assert_int_equal(control(&req), SL_PACKET_DONE);
		check_committed(&req, &f);
		check_sock(&req.sock[0], f.front, f.client);
		check_sock(&req.sock[1], f.back, f.server);
		assert_true(req.took_ns > 0 && req.took_ns < 1000000000);
		lab_remove(&lab, &p);
		/* A device that is given is used: [0] is the client's. */
		req = request(SL_PACKET_OP_COMMIT, &f);
		req.ifindex[0] = lab.cli;
		req.ifindex[1] = lab.srv;
		assert_int_equal(control(&req), SL_PACKET_DONE);
		assert_int_equal(lab_get(&lab, &p, p.flow), 2);
		assert_int_equal(p.flow[0].ifindex, lab.srv);
		assert_int_equal(p.flow[0].peer_ifindex, lab.cli);
		assert_int_equal(p.flow[1].ifindex, lab.cli);
		assert_int_equal(p.flow[1].peer_ifindex, lab.srv);
		lab_remove(&lab, &p);
		close_flow(&f);
	}
}

/* COMMIT says why not and leaves nothing behind. */
static void expect_refused(const char *what, const struct flow *f, enum sl_packet_result result)
{
	struct sl_packet_request req = request(SL_PACKET_OP_COMMIT, f);

	if (control(&req) != result)
		fail_msg("%s: result %d, want %d", what, req.result, result);
	assert_int_equal(count_entries(&req), 0);
}

static void wait_readable(int fd)
{
	assert_int_equal(poll(&(struct pollfd){ fd, POLLIN, 0 }, 1, 2000), 1);
}

static void test_not_quiet(void **state)
{
	static const char zeros[65536];

	(void)state;
	begin();
	for (unsigned family = 4; family <= 6; family += 2) {
		struct flow f = open_quiet_flow(family);
		char c;

		assert_int_equal(send(f.client, "x", 1, 0), 1);
		wait_readable(f.front);
		expect_refused("unread from the client", &f, SL_PACKET_NOT_QUIET);
		assert_int_equal(recv(f.front, &c, 1, MSG_PEEK), 1);
		expect_refused("looked at only", &f, SL_PACKET_NOT_QUIET);
		assert_int_equal(recv(f.front, &c, 1, 0), 1);
		assert_int_equal(send(f.server, "x", 1, 0), 1);
		wait_readable(f.back);
		expect_refused("unread from the server", &f, SL_PACKET_NOT_QUIET);
		assert_int_equal(recv(f.back, &c, 1, 0), 1);
		/* A reader that does not read: what is written stays with us. */
		while (send(f.back, zeros, sizeof(zeros), MSG_DONTWAIT) > 0)
			;
		expect_refused("not sent to the server", &f, SL_PACKET_NOT_QUIET);
		close_flow(&f);
		f = open_quiet_flow(family);
		while (send(f.front, zeros, sizeof(zeros), MSG_DONTWAIT) > 0)
			;
		expect_refused("not sent to the client", &f, SL_PACKET_NOT_QUIET);
		close_flow(&f);
	}
}

/* All is sent, but the client has not acknowledged it: its own filter takes the payload away. */
static void test_not_acknowledged(void **state)
{
	const int filter_fd = lab.tc ? bpf_program__fd(lab.tc->progs.sl_packet_freeze) : -1;

	(void)state;
	begin();
	for (unsigned i = 0; i < 4; i++) {
		struct flow f = open_quiet_flow(i & 1 ? 6 : 4);
		const int deaf = i & 2 ? f.client : f.server, ours = i & 2 ? f.front : f.back;
		int left;

		assert_int_equal(
			setsockopt(deaf, SOL_SOCKET, SO_ATTACH_BPF, &filter_fd, sizeof(filter_fd)),
			0);
		assert_int_equal(send(ours, "x", 1, 0), 1);
		assert_int_equal(ioctl(ours, SIOCOUTQNSD, &left), 0);
		assert_int_equal(left, 0);
		expect_refused("not acknowledged", &f, SL_PACKET_NOT_QUIET);
		close_flow(&f);
	}
}

static void test_not_established(void **state)
{
	(void)state;
	begin();
	for (unsigned family = 4; family <= 6; family += 2) {
		struct flow f = open_quiet_flow(family);
		char c;

		assert_int_equal(shutdown(f.client, SHUT_WR), 0);
		wait_readable(f.front);
		assert_int_equal(recv(f.front, &c, 1, 0), 0);
		expect_refused("the client has ended", &f, SL_PACKET_NOT_ESTABLISHED);
		close_flow(&f);
		f = open_quiet_flow(family);
		assert_int_equal(shutdown(f.back, SHUT_WR), 0);
		wait_readable(f.server);
		expect_refused("we have ended", &f, SL_PACKET_NOT_ESTABLISHED);
		close_flow(&f);
	}
}

static void expect_result(const char *what, struct sl_packet_request *req,
			  enum sl_packet_result result, unsigned entries)
{
	if (control(req) != result)
		fail_msg("%s: result %d, want %d", what, req->result, result);
	assert_int_equal(count_entries(req), entries);
}

static void test_no_socket(void **state)
{
	(void)state;
	begin();
	for (unsigned family = 4; family <= 6; family += 2) {
		struct flow f = open_quiet_flow(family);
		struct sl_packet_request req = request(SL_PACKET_OP_COMMIT, &f), good = req;

		req.cookie[0]++;
		expect_result("another cookie", &req, SL_PACKET_NO_SOCKET, 0);
		req = good;
		req.cookie[1] = req.cookie[0];
		expect_result("the other's cookie", &req, SL_PACKET_NO_SOCKET, 0);
		req = good;
		req.cookie[1] = 0;
		expect_result("no cookie", &req, SL_PACKET_NO_SOCKET, 0);
		req = good;
		req.key[0].sport ^= 1;
		expect_result("another port", &req, SL_PACKET_NO_SOCKET, 0);
		req = good;
		/* A listener is no connection: nothing but the port is the same. */
		req.key[1].saddr[15] ^= 2;
		expect_result("another address", &req, SL_PACKET_NO_SOCKET, 0);
		close_silently(&f.back);
		req = good;
		expect_result("closed", &req, SL_PACKET_NO_SOCKET, 0);
		close_flow(&f);
	}
}

static void test_listener_is_no_connection(void **state)
{
	struct sockaddr_storage ss;
	struct sl_packet_request req;
	struct flow f;
	socklen_t len;
	int listener;

	(void)state;
	begin();
	f = open_quiet_flow(4);
	req = request(SL_PACKET_OP_COMMIT, &f);
	make_address(4, "127.0.0.1", 4999, &ss, &len);
	listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(listener, (struct sockaddr *)&ss, len), 0);
	assert_int_equal(listen(listener, 1), 0);
	req.key[0].dport = 4999;
	req.cookie[0] = cookie_of(listener);
	assert_true(control(&req) == SL_PACKET_NO_SOCKET ||
		    req.result == SL_PACKET_NOT_ESTABLISHED);
	assert_int_equal(count_entries(&req), 0);
	assert_int_equal(close(listener), 0);
	close_flow(&f);
}

static void test_urgent(void **state)
{
	struct flow f;
	char c;

	(void)state;
	begin();
	f = open_quiet_flow(4);
	assert_int_equal(send(f.client, "!", 1, MSG_OOB), 1);
	assert_int_equal(poll(&(struct pollfd){ f.front, POLLPRI, 0 }, 1, 2000), 1);
	{
		struct sl_packet_request req = request(SL_PACKET_OP_COMMIT, &f);

		assert_true(control(&req) == SL_PACKET_URGENT || req.result == SL_PACKET_NOT_QUIET);
		assert_int_equal(req.sock[0].urgent, 1);
		assert_int_equal(count_entries(&req), 0);
	}
	assert_int_equal(recv(f.front, &c, 1, MSG_OOB), 1);
	close_flow(&f);
}

static void test_md5(void **state)
{
	struct flow f;

	(void)state;
	begin();
	connect_pair(4, 4430, true, &f.client, &f.front);
	connect_pair(4, 8080, false, &f.back, &f.server);
	exchange(f.client, f.front);
	exchange(f.server, f.back);
	expect_refused("signed", &f, SL_PACKET_MD5);
	close_flow(&f);
}

static void test_taken_and_full(void **state)
{
	struct sl_packet_request req, good;
	struct sl_packet_flow other = { .conn_id = 1, .state = SL_PACKET_ACTIVE }, got;
	struct sl_packet_key key = { .sport = 1 };
	struct flow f;

	(void)state;
	begin();
	f = open_quiet_flow(4);
	good = request(SL_PACKET_OP_COMMIT, &f);
	for (int i = 0; i < 2; i++) {
		req = good;
		assert_int_equal(bpf_map_update_elem(lab_flows(&lab), &req.key[i], &other, 0), 0);
		expect_result("taken", &req, SL_PACKET_TAKEN, 1);
		assert_int_equal(bpf_map_lookup_elem(lab_flows(&lab), &good.key[i], &got), 0);
		assert_memory_equal(&got, &other, sizeof(got));
		assert_int_equal(bpf_map_delete_elem(lab_flows(&lab), &good.key[i]), 0);
	}
	/* Room for none, then for one. */
	while (bpf_map_update_elem(lab_flows(&lab), &key, &other, BPF_NOEXIST) == 0)
		key.sport++;
	assert_int_equal(errno, E2BIG);
	req = good;
	expect_result("full", &req, SL_PACKET_MAP_FULL, 0);
	key.sport = 1;
	assert_int_equal(bpf_map_delete_elem(lab_flows(&lab), &key), 0);
	req = good;
	expect_result("room for one", &req, SL_PACKET_MAP_FULL, 0);
	while (bpf_map_get_next_key(lab_flows(&lab), NULL, &key) == 0)
		assert_int_equal(bpf_map_delete_elem(lab_flows(&lab), &key), 0);
	req = good;
	expect_result("room again", &req, SL_PACKET_DONE, 2);
	req.op = SL_PACKET_OP_REMOVE;
	expect_result("removed", &req, SL_PACKET_DONE, 0);
	close_flow(&f);
}

/* ---- entries by hand ---- */

static struct sl_packet_request request_for(enum sl_packet_op op, const struct pair *p)
{
	struct sl_packet_request req = { .op = op, .conn_id = p->flow[0].conn_id };

	memcpy(req.key, p->key, sizeof(req.key));
	return req;
}

static void test_remove(void **state)
{
	(void)state;
	begin();
	for (unsigned family = 4; family <= 6; family += 2) {
		struct pair p = new_pair(&lab, family);
		struct sl_packet_request req = request_for(SL_PACKET_OP_REMOVE, &p);

		lab_put(&lab, &p);
		req.conn_id++;
		assert_true(control(&req) != SL_PACKET_DONE);
		assert_int_equal(count_entries(&req), 2);
		req.conn_id = p.flow[0].conn_id;
		expect_result("removed", &req, SL_PACKET_DONE, 0);
		expect_result("nothing to remove", &req, SL_PACKET_DONE, 0);
		for (int i = 0; i < 2; i++) {
			lab_put(&lab, &p);
			assert_int_equal(bpf_map_delete_elem(lab_flows(&lab), &p.key[i]), 0);
			expect_result("one was left", &req, SL_PACKET_DONE, 0);
		}
		/* The other entry is of another connection: neither goes. */
		p.flow[1].conn_id++;
		lab_put(&lab, &p);
		assert_true(control(&req) != SL_PACKET_DONE);
		assert_int_equal(count_entries(&req), 2);
		lab_remove(&lab, &p);
	}
}

static void test_route(void **state)
{
	struct sl_packet_flow flow[2];

	(void)state;
	begin();
	for (unsigned family = 4; family <= 6; family += 2) {
		struct pair p = new_pair(&lab, family), want = p;
		struct sl_packet_request req = request_for(SL_PACKET_OP_ROUTE, &p);

		lab_put(&lab, &p);
		req.ifindex[0] = want.flow[1].ifindex = want.flow[0].peer_ifindex = 1001;
		req.ifindex[1] = want.flow[0].ifindex = want.flow[1].peer_ifindex = 1002;
		assert_int_equal(control(&req), SL_PACKET_DONE);
		assert_int_equal(lab_get(&lab, &p, flow), 2);
		assert_true(same_flow("route", 0, &flow[0], &want.flow[0]));
		assert_true(same_flow("route", 1, &flow[1], &want.flow[1]));
		req.conn_id++;
		req.ifindex[0] = 1003;
		assert_true(control(&req) != SL_PACKET_DONE);
		req.conn_id = 0;
		req.ifindex[0] = want.flow[1].ifindex = want.flow[0].peer_ifindex = 1004;
		assert_int_equal(control(&req), SL_PACKET_DONE);
		assert_int_equal(lab_get(&lab, &p, flow), 2);
		assert_true(same_flow("whoever's", 0, &flow[0], &want.flow[0]));
		assert_true(same_flow("whoever's", 1, &flow[1], &want.flow[1]));
		lab_remove(&lab, &p);
		assert_int_equal(control(&req), SL_PACKET_NO_FLOW);
	}
}

static void test_told(void **state)
{
	(void)state;
	begin();
	for (unsigned family = 4; family <= 6; family += 2) {
		struct pair p = new_pair(&lab, family), want = p;
		struct sl_packet_request req = request_for(SL_PACKET_OP_TOLD, &p);
		struct sl_packet_flow flow[2];

		assert_int_equal(control(&req), SL_PACKET_NO_FLOW);
		lab_put(&lab, &p);
		req.conn_id++;
		assert_int_equal(control(&req), SL_PACKET_NO_FLOW);
		req.conn_id--;
		assert_int_equal(control(&req), SL_PACKET_DONE);
		assert_int_equal(lab_get(&lab, &p, flow), 2);
		want.flow[0].told = want.flow[1].told = 1;
		assert_true(same_flow("told", 0, &flow[0], &want.flow[0]));
		assert_true(same_flow("told", 1, &flow[1], &want.flow[1]));
		lab_remove(&lab, &p);
	}
}

/* Without what only the lost entry knew: its counts and times. */
static void forget_counts(struct sl_packet_flow *f)
{
	f->packets = 0;
	f->bytes = 0;
	f->relayed_bytes = 0;
	f->drops = 0;
	f->restarts = 0;
	f->last_ns = 0;
	f->last_data_ns = 0;
	f->last_tsval = 0;
	f->last_tsecr = 0;
	f->rst = 0;
	f->fin_seq = f->fin ? f->fin_seq : 0;
	f->peer_fin_seq = f->peer_fin ? f->peer_fin_seq : 0;
}

static void test_restore(void **state)
{
	(void)state;
	begin();
	for (unsigned i = 0; i < 16; i++) {
		const unsigned lost = i & 1;
		struct pair p = new_pair(&lab, i & 2 ? 6 : 4);
		struct sl_packet_flow *mine = &p.flow[lost], *other = &p.flow[!lost];
		struct sl_packet_request req;
		struct sl_packet_flow got;

		mine->window_shift = other->peer_window_shift = -3;
		other->window_shift = mine->peer_window_shift = 5;
		p.flow[0].clear_ecn = p.flow[1].clear_ecn = i & 1;
		for (unsigned k = 0; k < 2; k++) {
			set_ip(p.flow[k].client, "203.0.113.1");
			set_ip(p.flow[k].via, "203.0.113.2");
			p.flow[k].client_port = 11;
			p.flow[k].via_port = 12;
			p.flow[k].connect_us = 13;
			p.flow[k].accepted_ns = 14;
			p.flow[k].target_hash = 15;
		}
		if (i & 4) { /* the side whose entry is lost has ended, unacknowledged */
			mine->fin = other->peer_fin = 1;
			mine->fin_seq = mine->max_seq;
			other->peer_fin_seq = mine->fin_seq + mine->seq_delta;
			mine->max_seq = mine->fin_seq;
		}
		if (i & 8)
			p.flow[0].state = p.flow[1].state = SL_PACKET_KILLED;
		lab_put(&lab, &p);
		req = request_for(SL_PACKET_OP_RESTORE, &p);
		if (lost == 0) { /* key[0] is the one that is there */
			req.key[0] = p.key[1];
			req.key[1] = p.key[0];
		}
		assert_int_equal(bpf_map_delete_elem(lab_flows(&lab), &p.key[lost]), 0);
		assert_int_equal(control(&req), SL_PACKET_DONE);
		assert_int_equal(bpf_map_lookup_elem(lab_flows(&lab), &p.key[lost], &got), 0);
		forget_counts(&got);
		forget_counts(mine);
		assert_true(same_flow("restored", lost, &got, mine));
		assert_int_equal(bpf_map_lookup_elem(lab_flows(&lab), &p.key[!lost], &got), 0);
		assert_true(same_flow("untouched", !lost, &got, other));
		lab_remove(&lab, &p);
		assert_int_equal(control(&req), SL_PACKET_NO_FLOW);
	}
}

/* ---- the whole way ---- */

/* Committed, and our sockets are gone. */
static struct flow hand_over(unsigned family, struct sl_packet_request *req)
{
	const int on = 1;
	struct flow f = open_quiet_flow(family);

	assert_int_equal(setsockopt(f.front, SOL_TCP, TCP_REPAIR, &on, sizeof(on)), 0);
	assert_int_equal(setsockopt(f.back, SOL_TCP, TCP_REPAIR, &on, sizeof(on)), 0);
	*req = request(SL_PACKET_OP_COMMIT, &f);
	assert_int_equal(control(req), SL_PACKET_DONE);
	close_silently(&f.front);
	close_silently(&f.back);
	return f;
}

static void test_flow_and_kill(void **state)
{
	int link = -1;

	(void)state;
	begin();
	assert_int_equal(lab_attach(&lab, lo, &link), 0);
	for (unsigned i = 0; i < 4; i++) {
		struct sl_packet_request req;
		struct flow f = hand_over(i % 2 ? 6 : 4, &req);
		struct pair p = pair_of(&req);
		struct sl_packet_flow flow[2];
		uint64_t before;
		char c;

		exchange(f.client, f.server);
		exchange(f.server, f.client);
		assert_int_equal(lab_get(&lab, &p, flow), 2);
		assert_int_equal(flow[0].bytes, 51);
		assert_int_equal(flow[1].bytes, 51);
		if (i >= 2) /* something on the way at that moment */
			assert_int_equal(send(f.client, "x", 1, 0), 1);
		before = lab_now();
		req.op = SL_PACKET_OP_KILL;
		req.conn_id = i % 2 ? 0 : 77;
		assert_int_equal(control(&req), SL_PACKET_DONE);
		wait_readable(f.client);
		assert_int_equal(recv(f.client, &c, 1, 0), -1);
		assert_int_equal(errno, ECONNRESET);
		wait_readable(f.server);
		if (recv(f.server, &c, 1, 0) == 1)
			assert_int_equal(recv(f.server, &c, 1, 0), -1);
		assert_int_equal(errno, ECONNRESET);
		assert_int_equal(lab_get(&lab, &p, flow), 2);
		for (int k = 0; k < 2; k++) {
			assert_int_equal(flow[k].state, SL_PACKET_KILLED);
			assert_in_range(flow[k].killed_ns, before, lab_now() + 20000000);
		}
		/* Once more harms nobody. */
		assert_int_equal(control(&req), SL_PACKET_DONE);
		req.op = SL_PACKET_OP_REMOVE;
		req.conn_id = 77;
		assert_int_equal(control(&req), SL_PACKET_DONE);
		close_flow(&f);
	}
	assert_int_equal(lab_detach(lo, link), 0);
}

/*
 * The client has acknowledged more than we have seen: it takes no RST at what we know. Asked
 * again, a keep-alive makes it say where it is.
 */
static void test_kill_again(void **state)
{
	int link = -1;

	(void)state;
	begin();
	assert_int_equal(lab_attach(&lab, lo, &link), 0);
	for (unsigned family = 4; family <= 6; family += 2) {
		struct sl_packet_request req;
		struct flow f = hand_over(family, &req);
		struct pair p = pair_of(&req);
		char c;

		exchange(f.client, f.server);
		assert_int_equal(lab_get(&lab, &p, p.flow), 2);
		p.flow[0].max_ack -= 5;
		lab_put(&lab, &p);
		req.op = SL_PACKET_OP_KILL;
		assert_int_equal(control(&req), SL_PACKET_DONE);
		wait_readable(f.server);
		assert_int_equal(recv(f.server, &c, 1, 0), -1);
		assert_int_equal(errno, ECONNRESET);
		assert_int_equal(poll(&(struct pollfd){ f.client, POLLIN, 0 }, 1, 100), 0);
		assert_int_equal(control(&req), SL_PACKET_DONE);
		wait_readable(f.client);
		assert_int_equal(recv(f.client, &c, 1, 0), -1);
		assert_int_equal(errno, ECONNRESET);
		req.op = SL_PACKET_OP_REMOVE;
		assert_int_equal(control(&req), SL_PACKET_DONE);
		close_flow(&f);
	}
	assert_int_equal(lab_detach(lo, link), 0);
}

static void test_kill_of_nobody(void **state)
{
	struct pair p;
	struct sl_packet_request req;

	(void)state;
	begin();
	p = new_pair(&lab, 4);
	req = request_for(SL_PACKET_OP_KILL, &p);
	assert_int_equal(control(&req), SL_PACKET_NO_FLOW);
	req.op = SL_PACKET_OP_PROBE;
	assert_int_equal(control(&req), SL_PACKET_NO_FLOW);
	lab_put(&lab, &p);
	req.op = SL_PACKET_OP_KILL;
	req.conn_id++;
	assert_true(control(&req) != SL_PACKET_DONE);
	assert_int_equal(lab_get(&lab, &p, p.flow), 2);
	assert_int_equal(p.flow[0].state, SL_PACKET_ACTIVE);
	assert_int_equal(p.flow[1].state, SL_PACKET_ACTIVE);
	/* Devices that are no more: marked all the same. */
	p.flow[0].ifindex = p.flow[0].peer_ifindex = 9999;
	p.flow[1].ifindex = p.flow[1].peer_ifindex = 9999;
	lab_put(&lab, &p);
	req.conn_id = p.flow[0].conn_id;
	assert_int_equal(control(&req), SL_PACKET_NOT_SENT);
	assert_int_equal(lab_get(&lab, &p, p.flow), 2);
	assert_int_equal(p.flow[0].state, SL_PACKET_KILLED);
	assert_int_equal(p.flow[1].state, SL_PACKET_KILLED);
	lab_remove(&lab, &p);
}

/* Live peers answer: both directions move, and nothing is delivered. */
static void test_probe(void **state)
{
	int link = -1;

	(void)state;
	begin();
	assert_int_equal(lab_attach(&lab, lo, &link), 0);
	for (unsigned family = 4; family <= 6; family += 2) {
		struct sl_packet_request req;
		struct flow f = hand_over(family, &req);
		struct pair p = pair_of(&req);
		struct sl_packet_flow before[2], now[2];
		bool answered = false;

		exchange(f.client, f.server);
		assert_int_equal(lab_get(&lab, &p, before), 2);
		req.op = SL_PACKET_OP_PROBE;
		assert_int_equal(control(&req), SL_PACKET_DONE);
		for (int tries = 0; tries < 400 && !answered; tries++) {
			assert_int_equal(lab_get(&lab, &p, now), 2);
			answered = now[0].packets > before[0].packets &&
				   now[1].packets > before[1].packets;
			if (!answered)
				(void)poll(NULL, 0, 5);
		}
		assert_true(answered);
		assert_int_equal(now[0].bytes, before[0].bytes);
		assert_int_equal(now[1].bytes, before[1].bytes);
		assert_int_equal(poll(&(struct pollfd){ f.client, POLLIN, 0 }, 1, 0), 0);
		assert_int_equal(poll(&(struct pollfd){ f.server, POLLIN, 0 }, 1, 0), 0);
		exchange(f.server, f.client);
		req.op = SL_PACKET_OP_REMOVE;
		assert_int_equal(control(&req), SL_PACKET_DONE);
		close_flow(&f);
	}
	assert_int_equal(lab_detach(lo, link), 0);
}

/* ---- the freeze ---- */

/* As a socket filter meets a segment: from its TCP header on. */
static int filter(uint8_t flags, size_t n_payload)
{
	struct frame f = { .n = 0 };
	struct frame out;
	LIBBPF_OPTS(bpf_test_run_opts, o, .data_out = out.p, .data_size_out = sizeof(out.p));

	put(&f, (uint8_t[14]){ [12] = 0x08 }, 14);
	put(&f, (uint8_t[20]){ 1, 2, 3, 4, [12] = 0x50, [13] = flags }, 20);
	for (size_t i = 0; i < n_payload; i++)
		put8(&f, 0xff);
	o.data_in = f.p;
	o.data_size_in = (uint32_t)f.n;
	assert_int_equal(
		bpf_prog_test_run_opts(bpf_program__fd(lab.tc->progs.sl_packet_freeze), &o), 0);
	return (int)o.retval;
}

static void test_freeze(void **state)
{
	(void)state;
	begin();
	for (unsigned flags = 0; flags < 256; flags++) {
		const int want = flags & (TH_FIN_ | TH_SYN_) ? 0 : 1;

		assert_int_equal(filter((uint8_t)flags, 0), want);
		assert_int_equal(filter((uint8_t)flags, 100), want);
	}
}

/*
 * On a socket: acknowledgements arrive, payload and FIN do not and are sent again later. A RST is
 * sent once, and arrives.
 */
static void test_frozen_socket(void **state)
{
	const int filter_fd = lab.tc ? bpf_program__fd(lab.tc->progs.sl_packet_freeze) : -1;
	const struct linger abort = { .l_onoff = 1 };
	struct flow f;
	char got[4];
	int left = 1;

	(void)state;
	begin();
	f = open_quiet_flow(4);
	assert_int_equal(
		setsockopt(f.front, SOL_SOCKET, SO_ATTACH_BPF, &filter_fd, sizeof(filter_fd)), 0);
	assert_int_equal(send(f.front, "ping", 4, 0), 4);
	assert_int_equal(recv(f.client, got, 4, MSG_WAITALL), 4);
	for (int tries = 0; tries < 400 && left; tries++) {
		assert_int_equal(ioctl(f.front, SIOCOUTQ, &left), 0);
		(void)poll(NULL, 0, left ? 5 : 0);
	}
	assert_int_equal(left, 0);
	assert_int_equal(send(f.client, "pong", 4, 0), 4);
	assert_int_equal(shutdown(f.client, SHUT_WR), 0);
	assert_int_equal(poll(&(struct pollfd){ f.front, POLLIN, 0 }, 1, 300), 0);
	assert_int_equal(setsockopt(f.front, SOL_SOCKET, SO_DETACH_BPF, &left, sizeof(left)), 0);
	assert_int_equal(recv(f.front, got, 4, MSG_WAITALL), 4);
	assert_memory_equal(got, "pong", 4);
	assert_int_equal(recv(f.front, got, 1, 0), 0);
	close_flow(&f);

	f = open_quiet_flow(4);
	assert_int_equal(
		setsockopt(f.front, SOL_SOCKET, SO_ATTACH_BPF, &filter_fd, sizeof(filter_fd)), 0);
	assert_int_equal(send(f.client, "pong", 4, 0), 4);
	assert_int_equal(setsockopt(f.client, SOL_SOCKET, SO_LINGER, &abort, sizeof(abort)), 0);
	assert_int_equal(close(f.client), 0);
	f.client = -1;
	assert_int_equal(poll(&(struct pollfd){ f.front, POLLIN, 0 }, 1, 3000), 1);
	assert_int_equal(recv(f.front, got, 1, 0), -1);
	assert_int_equal(errno, ECONNRESET);
	close_flow(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_look),
		cmocka_unit_test(test_commit),
		cmocka_unit_test(test_not_quiet),
		cmocka_unit_test(test_not_acknowledged),
		cmocka_unit_test(test_not_established),
		cmocka_unit_test(test_no_socket),
		cmocka_unit_test(test_listener_is_no_connection),
		cmocka_unit_test(test_urgent),
		cmocka_unit_test(test_md5),
		cmocka_unit_test(test_taken_and_full),
		cmocka_unit_test(test_remove),
		cmocka_unit_test(test_route),
		cmocka_unit_test(test_told),
		cmocka_unit_test(test_restore),
		cmocka_unit_test(test_flow_and_kill),
		cmocka_unit_test(test_kill_again),
		cmocka_unit_test(test_kill_of_nobody),
		cmocka_unit_test(test_probe),
		cmocka_unit_test(test_freeze),
		cmocka_unit_test(test_frozen_socket),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
