/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Clients for the benchmarks of TLS; the other end is `loadgen serve`. Every run is bounded in
 * time, prints one line of KEY=VALUE pairs and exits 0, or says on standard error why it could not.
 *
 *   tls_load [-2] hands   ADDRESS PORT CLIENTS SECONDS [PID...]
 *       connect, full handshake, request, reply, close_notify, close
 *   tls_load [-2] resumed ADDRESS PORT CLIENTS SECONDS [PID...]
 *       the same with sessions resumed
 *   tls_load [-2] down|up ADDRESS PORT STREAMS SECONDS [PID...]
 *       bulk
 *   tls_load [-2] idle ADDRESS PORT COUNT
 *       opens and uses each once, says "ready", waits for EOF
 *   tls_load [-c] [-h] -p PORT flood ADDRESS PORT CLIENTS SECONDS [PID...]
 *       round trips on kept connections to the PORT of -p (-c: without TLS), first alone, then
 *       beside full handshakes at the other port (-h: half ones, whose clients leave when the
 *       server's signature has come, and cost next to nothing)
 *
 * -2: TLS 1.2. The client offers one cipher (AES-128-GCM) and X25519 before P-256, sees to it that
 * every proxy takes X25519, and verifies no chain. What came down is decrypted at the start of a
 * stream, then thrown away inside the kernel, so that the receiver is not what is measured. PIDs:
 * as in loadgen.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "../lib/usage.h"

enum {
	MSG_SIZE = 64,
	CHUNK = 64 * 1024,
	UP_BUFFER = 256 * 1024, /* ciphertext written at once */
	DECRYPTED = 256 * 1024, /* of each stream down */
	MAX_CLIENTS = 256,
	MAX_SAMPLES = 1 << 18, /* per thread */
	MAX_ERRORS = 1000,
	HAND_THREADS = 2,
	PING_FLOWS = 8,
	PING_EVERY_NS = 5000000, /* of each flow, or as soon as the last one is over */
	WARM_UP_MS = 400,
	QUIET_MS = 700, /* round trips without a flood */
	SOCKET_TIMEOUT_S = 10,
};

/* Before a flood round trips are measured, too. */
enum phase { PHASE_WARM_UP, PHASE_QUIET, PHASE_MEASURE, PHASE_STOP };

struct samples {
	uint32_t *ns;
	uint32_t n;
};

struct run {
	struct sockaddr_in to;
	unsigned n_clients;
	uint64_t measure_ms;
	int version;
	bool is_resumed;
	bool is_up;
	bool is_half;  /* handshakes, up to the server's answer */
	bool is_clear; /* the round trips beside a flood */
	uint16_t ping_port;
	char *const *pids;
	int n_pids;
	_Atomic int phase; /* of handshakes and bulk */
	_Atomic int ping_phase;
};

/* One thread that makes handshakes, with some of the clients. */
struct hands {
	struct run *run;
	pthread_t thread;
	SSL_CTX *ctx;
	int epoll_fd;
	unsigned n_clients;
	char hello[1024]; /* of half a handshake */
	size_t hello_len;
	_Atomic uint64_t done;
	_Atomic uint64_t resumed;
	_Atomic unsigned n_warm; /* clients that have done it once */
	uint64_t errors;
	struct samples took;
};

enum stage { STAGE_SHAKE, STAGE_ASK, STAGE_HEAR };

struct hand {
	struct hands *of;
	int fd;
	SSL *ssl;
	SSL_SESSION *session; /* the last one, to resume */
	enum stage stage;
	bool is_warm;
	size_t heard;
	uint64_t begin_ns;
	int phase; /* at the begin */
};

/* A thread with one connection: a stream, or round trips. */
struct flow {
	struct run *run;
	pthread_t thread;
	SSL_CTX *ctx;
	int fd;
	SSL *ssl; /* NULL: clear */
	unsigned number;
	_Atomic uint64_t done; /* bytes */
	uint64_t errors;
	struct samples quiet, took;
};

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

static void sleep_until(uint64_t ns)
{
	struct timespec t = { .tv_sec = (time_t)(ns / 1000000000U),
			      .tv_nsec = (long)(ns % 1000000000U) };

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
		;
}

static void sleep_ms(uint64_t ms)
{
	sleep_until(now_ns() + ms * 1000000U);
}

static void raise_fd_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &limit);
}

/* ---- latencies ---------------------------------------------------------- */

static void sample(struct samples *s, uint64_t took)
{
	if (s->ns && s->n < MAX_SAMPLES)
		s->ns[s->n++] = took > UINT32_MAX ? UINT32_MAX : (uint32_t)took;
}

static int samples_init(struct samples *s)
{
	s->ns = malloc(MAX_SAMPLES * sizeof(uint32_t));
	return s->ns ? 0 : -ENOMEM;
}

static int compare_u32(const void *a, const void *b)
{
	uint32_t x, y;

	memcpy(&x, a, sizeof(x));
	memcpy(&y, b, sizeof(y));
	return (x > y) - (x < y);
}

static void append(struct samples *to, struct samples *from)
{
	uint32_t *p = realloc(to->ns, (to->n + from->n + 1) * sizeof(uint32_t));

	if (p) {
		to->ns = p;
		memcpy(to->ns + to->n, from->ns, from->n * sizeof(uint32_t));
		to->n += from->n;
	}
	free(from->ns);
	from->ns = NULL;
}

/* Prints and frees them. */
static void print_samples(struct samples *s, const char *prefix)
{
	if (s->n > 0) {
		qsort(s->ns, s->n, sizeof(uint32_t), compare_u32);
		printf("%sp50_us=%.1f %sp99_us=%.1f %smax_us=%.1f ", prefix, s->ns[s->n / 2] / 1e3,
		       prefix, s->ns[(uint64_t)s->n * 99 / 100] / 1e3, prefix,
		       s->ns[s->n - 1] / 1e3);
	}
	free(s->ns);
}

/* ---- TLS ---------------------------------------------------------------- */

static SSL_CTX *new_ctx(const struct run *r)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

	if (!ctx || !SSL_CTX_set_min_proto_version(ctx, r->version) ||
	    !SSL_CTX_set_max_proto_version(ctx, r->version) ||
	    !SSL_CTX_set_ciphersuites(ctx, "TLS_AES_128_GCM_SHA256") ||
	    !SSL_CTX_set_cipher_list(ctx, "ECDHE+AES128+AESGCM") ||
	    !SSL_CTX_set1_groups_list(ctx, "X25519:P-256")) {
		SSL_CTX_free(ctx);
		return NULL;
	}
	SSL_CTX_set_verify(ctx, SSL_VERIFY_NONE, NULL);
	(void)SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE |
					    SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
					    SSL_MODE_AUTO_RETRY);
	return ctx;
}

static int open_socket(int flags)
{
	struct timeval limit = { .tv_sec = SOCKET_TIMEOUT_S };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
	int one = 1;

	if (fd < 0)
		return -errno;
	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) != 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) != 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) != 0) {
		int err = -errno;

		close(fd);
		return err;
	}
	return fd;
}

/* ---- handshakes --------------------------------------------------------- */

/* OpenSSL's callback for a session that can be resumed; we take the reference. */
static int keep_session(SSL *ssl, SSL_SESSION *session)
{
	struct hand *h = SSL_get_app_data(ssl);

	SSL_SESSION_free(h->session);
	h->session = session;
	return 1;
}

/* One ClientHello, which every half handshake begins with. */
static int make_hello(struct hands *t)
{
	SSL *ssl = SSL_new(t->ctx);
	BIO *in = BIO_new(BIO_s_mem());
	BIO *out = BIO_new(BIO_s_mem());
	int n;

	if (!ssl || !in || !out)
		return -ENOMEM;
	SSL_set_bio(ssl, in, out);
	(void)SSL_connect(ssl);
	ERR_clear_error();
	n = BIO_read(out, t->hello, sizeof(t->hello));
	t->hello_len = n > 0 ? (size_t)n : 0;
	SSL_free(ssl);
	return n > 0 ? 0 : -ECOMM;
}

static int hand_open_ssl(struct hand *h)
{
	h->ssl = SSL_new(h->of->ctx);
	if (!h->ssl || !SSL_set_fd(h->ssl, h->fd))
		return -ENOMEM;
	SSL_set_app_data(h->ssl, h);
	if (h->of->run->is_resumed && h->session && !SSL_set_session(h->ssl, h->session))
		return -EINVAL;
	SSL_set_connect_state(h->ssl);
	return 0;
}

static int hand_open(struct hand *h)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = h };
	const struct sockaddr_in *to = &h->of->run->to;

	h->begin_ns = now_ns();
	h->phase = h->of->run->phase;
	h->stage = STAGE_SHAKE;
	h->heard = 0;
	h->fd = open_socket(SOCK_NONBLOCK);
	if (h->fd < 0 || (!h->of->run->is_half && hand_open_ssl(h) != 0))
		return -ENOMEM;
	if (connect(h->fd, (const struct sockaddr *)to, sizeof(*to)) != 0 && errno != EINPROGRESS)
		return -errno;
	return epoll_ctl(h->of->epoll_fd, EPOLL_CTL_ADD, h->fd, &ev) == 0 ? 0 : -errno;
}

/* With close_notify where the reply has come: without, OpenSSL forgets the session. */
static void hand_close(struct hand *h, bool is_good)
{
	struct linger reset = { .l_onoff = 1 };

	ERR_clear_error();
	if (h->ssl && is_good)
		(void)SSL_shutdown(h->ssl);
	SSL_free(h->ssl);
	h->ssl = NULL;
	if (h->fd >= 0 && h->of->run->is_half)
		(void)setsockopt(h->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	if (h->fd >= 0)
		close(h->fd);
	h->fd = -1;
}

/* The result of a call of the library: 1 done, 0 to be called again later, or negative. */
static int outcome(const struct hand *h, int r)
{
	int why;

	if (r > 0)
		return 1;
	why = SSL_get_error(h->ssl, r);
	return why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? 0 : -ECOMM;
}

/* The server answers with all it has to say, signature included. */
static int half_step(struct hand *h)
{
	const struct hands *t = h->of;
	char buf[4096];
	ssize_t n;

	if (h->stage == STAGE_SHAKE) {
		n = send(h->fd, t->hello, t->hello_len, MSG_NOSIGNAL);
		if (n != (ssize_t)t->hello_len)
			return n < 0 && errno == EAGAIN ? 0 : -ECOMM;
		h->stage = STAGE_HEAR;
	}
	n = recv(h->fd, buf, sizeof(buf), 0);
	if (n < 0 && errno == EAGAIN)
		return 0;
	return n > 0 ? 1 : -ECOMM;
}

/* As far as it goes now; 1: the reply is complete. */
static int hand_step(struct hand *h)
{
	char buf[MSG_SIZE];
	int r = 1;

	ERR_clear_error();
	if (h->stage == STAGE_SHAKE) {
		r = outcome(h, SSL_do_handshake(h->ssl));
		if (r > 0)
			h->stage = STAGE_ASK;
	}
	if (r > 0 && h->stage == STAGE_ASK) {
		memset(buf, 'R', sizeof(buf));
		r = outcome(h, SSL_write(h->ssl, buf, sizeof(buf)));
		if (r > 0)
			h->stage = STAGE_HEAR;
	}
	while (r > 0 && h->heard < MSG_SIZE) {
		int n = SSL_read(h->ssl, buf, (int)(MSG_SIZE - h->heard));

		r = outcome(h, n);
		h->heard += n > 0 ? (size_t)n : 0;
	}
	return r;
}

/* What was agreed must be what the others agree on, or nothing can be compared. */
static bool is_x25519(SSL *ssl)
{
	EVP_PKEY *key = NULL;
	bool is_it;

	if (!SSL_get_peer_tmp_key(ssl, &key))
		return SSL_session_reused(ssl); /* with TLS 1.2 nothing is exchanged */
	is_it = EVP_PKEY_get_id(key) == EVP_PKEY_X25519;
	EVP_PKEY_free(key);
	return is_it;
}

static void hand_done(struct hand *h)
{
	struct hands *t = h->of;

	if (h->phase == PHASE_MEASURE)
		sample(&t->took, now_ns() - h->begin_ns);
	else if (h->ssl && !is_x25519(h->ssl))
		t->errors++;
	t->n_warm += !h->is_warm;
	h->is_warm = true;
	if (h->ssl && SSL_session_reused(h->ssl))
		atomic_fetch_add_explicit(&t->resumed, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&t->done, 1, memory_order_relaxed);
}

static void hand_event(struct hand *h)
{
	int r = h->of->run->is_half ? half_step(h) : hand_step(h);

	if (r == 0)
		return;
	if (r > 0)
		hand_done(h);
	else
		h->of->errors++;
	hand_close(h, r > 0);
	while (hand_open(h) != 0 && ++h->of->errors < MAX_ERRORS)
		hand_close(h, false);
}

static void *hands_thread(void *arg)
{
	struct hands *t = arg;
	struct hand *hand = calloc(t->n_clients, sizeof(*hand));

	for (unsigned i = 0; hand && i < t->n_clients; i++) {
		hand[i] = (struct hand){ .of = t, .fd = -1 };
		t->errors += hand_open(&hand[i]) != 0;
	}
	while (hand && t->run->phase != PHASE_STOP && t->errors < MAX_ERRORS) {
		struct epoll_event ev[64];
		int n = epoll_wait(t->epoll_fd, ev, 64, 100);

		for (int i = 0; i < n && t->errors < MAX_ERRORS; i++)
			hand_event(ev[i].data.ptr);
	}
	for (unsigned i = 0; hand && i < t->n_clients; i++) {
		hand_close(&hand[i], false);
		SSL_SESSION_free(hand[i].session);
	}
	free(hand);
	return NULL;
}

static int hands_start(struct run *r, struct hands *t, unsigned n_clients)
{
	*t = (struct hands){ .run = r, .n_clients = n_clients, .ctx = new_ctx(r) };
	t->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (!t->ctx || t->epoll_fd < 0 || samples_init(&t->took) != 0)
		return -ENOMEM;
	if (r->is_half && make_hello(t) != 0)
		return -ECOMM;
	if (r->is_resumed) {
		(void)SSL_CTX_set_session_cache_mode(t->ctx, SSL_SESS_CACHE_CLIENT |
								     SSL_SESS_CACHE_NO_INTERNAL);
		SSL_CTX_sess_set_new_cb(t->ctx, keep_session);
	}
	return -pthread_create(&t->thread, NULL, hands_thread, t);
}

static int hands_start_all(struct run *r, struct hands *all)
{
	for (unsigned i = 0; i < HAND_THREADS; i++) {
		int err = hands_start(r, &all[i], (r->n_clients + i) / HAND_THREADS);

		if (err)
			return err;
	}
	return 0;
}

struct count {
	uint64_t done, resumed;
};

static struct count hands_count(const struct hands *all)
{
	struct count sum = { 0 };

	for (unsigned i = 0; i < HAND_THREADS; i++) {
		sum.done += all[i].done;
		sum.resumed += all[i].resumed;
	}
	return sum;
}

/* Until every client has a session to resume, for a bounded time. */
static void hands_warm_up(const struct run *r, const struct hands *all)
{
	sleep_ms(WARM_UP_MS);
	for (unsigned i = 0; i < SOCKET_TIMEOUT_S * 100; i++) {
		unsigned n = 0;

		for (unsigned k = 0; k < HAND_THREADS; k++)
			n += all[k].n_warm;
		if (n == r->n_clients)
			return;
		sleep_ms(10);
	}
}

static uint64_t hands_join(struct hands *all, struct samples *ret)
{
	uint64_t errors = 0;

	for (unsigned i = 0; i < HAND_THREADS; i++) {
		pthread_join(all[i].thread, NULL);
		errors += all[i].errors;
		append(ret, &all[i].took);
		SSL_CTX_free(all[i].ctx);
		close(all[i].epoll_fd);
	}
	return errors;
}

static int run_hands(struct run *r)
{
	struct hands all[HAND_THREADS];
	struct samples took = { 0 };
	struct usage before, after;
	struct count from, to;
	uint64_t begin, end;
	uint64_t errors;
	double n;

	if (hands_start_all(r, all) != 0)
		return -ENOMEM;
	hands_warm_up(r, all);
	read_usage(r->pids, r->n_pids, &before);
	from = hands_count(all);
	begin = now_ns();
	r->phase = PHASE_MEASURE;
	sleep_ms(r->measure_ms);
	to = hands_count(all);
	end = now_ns();
	read_usage(r->pids, r->n_pids, &after);
	r->phase = PHASE_STOP;
	errors = hands_join(all, &took);
	n = (double)(to.done - from.done);
	if (n == 0)
		return -ECOMM;
	printf("rate=%.1f proxy_us=%.2f system_us=%.2f resumed=%.4f ",
	       n * 1e9 / (double)(end - begin),
	       (double)(after.proxy_ns - before.proxy_ns) / n / 1e3,
	       (double)(after.system_ns - before.system_ns) / n / 1e3,
	       (double)(to.resumed - from.resumed) / n);
	print_samples(&took, "");
	printf("steal_s=%.2f errors=%llu\n", (double)(after.steal_ns - before.steal_ns) / 1e9,
	       (unsigned long long)errors);
	return 0;
}

/* ---- streams and round trips -------------------------------------------- */

/* Many records leave in one write. */
static int buffer_writes(SSL *ssl)
{
	BIO *buffer = BIO_new(BIO_f_buffer());
	BIO *in = SSL_get_rbio(ssl);

	if (!buffer || BIO_set_write_buffer_size(buffer, UP_BUFFER) <= 0) {
		BIO_free(buffer);
		return -ENOMEM;
	}
	/* one more reference: one BIO for each direction */
	if (!BIO_up_ref(in))
		return -EINVAL;
	SSL_set0_wbio(ssl, BIO_push(buffer, in));
	return 0;
}

static int flow_open(struct flow *f, const struct sockaddr_in *to, bool is_clear)
{
	f->fd = open_socket(0);
	if (f->fd < 0)
		return f->fd;
	if (connect(f->fd, (const struct sockaddr *)to, sizeof(*to)) != 0)
		return -errno;
	if (is_clear)
		return 0;
	f->ssl = SSL_new(f->ctx);
	if (!f->ssl || !SSL_set_fd(f->ssl, f->fd))
		return -ENOMEM;
	if (f->run->is_up && buffer_writes(f->ssl) != 0)
		return -ENOMEM;
	return SSL_connect(f->ssl) == 1 ? 0 : -ECOMM;
}

static void flow_close(struct flow *f)
{
	SSL_free(f->ssl);
	if (f->fd >= 0)
		close(f->fd);
	SSL_CTX_free(f->ctx);
	free(f->quiet.ns);
	free(f->took.ns);
}

static ssize_t flow_send(struct flow *f, const void *buf, size_t n)
{
	return f->ssl ? SSL_write(f->ssl, buf, (int)n) : send(f->fd, buf, n, MSG_NOSIGNAL);
}

static ssize_t flow_recv(struct flow *f, void *buf, size_t n)
{
	return f->ssl ? SSL_read(f->ssl, buf, (int)n) : recv(f->fd, buf, n, 0);
}

static int exchange(struct flow *f)
{
	char buf[MSG_SIZE];
	size_t got = 0;

	memset(buf, 'R', sizeof(buf));
	if (flow_send(f, buf, sizeof(buf)) != sizeof(buf))
		return -EPIPE;
	while (got < sizeof(buf)) {
		ssize_t n = flow_recv(f, buf, sizeof(buf) - got);

		if (n <= 0)
			return -EPIPE;
		got += (size_t)n;
	}
	return 0;
}

static ssize_t bulk_some(struct flow *f, char *buf)
{
	if (f->run->is_up)
		return SSL_write(f->ssl, buf, CHUNK);
	if (f->done < DECRYPTED)
		return SSL_read(f->ssl, buf, CHUNK);
	return recv(f->fd, buf, CHUNK * 4, MSG_TRUNC);
}

static void *bulk_thread(void *arg)
{
	struct flow *f = arg;
	char *buf = calloc(4, CHUNK);
	char wish = f->run->is_up ? 'U' : 'D';

	if (!buf || flow_open(f, &f->run->to, false) != 0 || flow_send(f, &wish, 1) != 1) {
		f->errors++;
		free(buf);
		return NULL;
	}
	while (f->run->phase != PHASE_STOP) {
		ssize_t n = bulk_some(f, buf);

		if (n <= 0) {
			f->errors++;
			break;
		}
		atomic_fetch_add_explicit(&f->done, (uint64_t)n, memory_order_relaxed);
	}
	free(buf);
	return NULL;
}

static uint64_t flows_sum(const struct flow *f, unsigned n)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < n; i++)
		sum += f[i].done;
	return sum;
}

static uint64_t flows_join(struct flow *f, unsigned n)
{
	uint64_t errors = 0;

	for (unsigned i = 0; i < n; i++) {
		pthread_join(f[i].thread, NULL);
		errors += f[i].errors;
	}
	return errors;
}

static void flows_close(struct flow *f, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		flow_close(&f[i]);
}

static int flows_start(struct run *r, struct flow *f, unsigned n, void *(*thread)(void *))
{
	for (unsigned i = 0; i < n; i++) {
		f[i] = (struct flow){ .run = r, .number = i, .fd = -1, .ctx = new_ctx(r) };
		if (!f[i].ctx || samples_init(&f[i].took) != 0 || samples_init(&f[i].quiet) != 0 ||
		    pthread_create(&f[i].thread, NULL, thread, &f[i]) != 0)
			return -ENOMEM;
	}
	return 0;
}

static int run_bulk(struct run *r)
{
	static struct flow flow[MAX_CLIENTS];
	struct usage before, after;
	uint64_t begin, end, done, errors;
	double gb;

	if (flows_start(r, flow, r->n_clients, bulk_thread) != 0)
		return -ENOMEM;
	sleep_ms(WARM_UP_MS);
	read_usage(r->pids, r->n_pids, &before);
	done = flows_sum(flow, r->n_clients);
	begin = now_ns();
	sleep_ms(r->measure_ms);
	done = flows_sum(flow, r->n_clients) - done;
	end = now_ns();
	read_usage(r->pids, r->n_pids, &after);
	r->phase = PHASE_STOP;
	errors = flows_join(flow, r->n_clients);
	flows_close(flow, r->n_clients);
	if (done == 0)
		return -ECOMM;
	gb = (double)done / 1e9;
	printf("gbit_s=%.3f proxy_s_gb=%.4f system_s_gb=%.4f steal_s=%.2f errors=%llu\n",
	       gb * 8e9 / (double)(end - begin),
	       (double)(after.proxy_ns - before.proxy_ns) / 1e9 / gb,
	       (double)(after.system_ns - before.system_ns) / 1e9 / gb,
	       (double)(after.steal_ns - before.steal_ns) / 1e9, (unsigned long long)errors);
	return 0;
}

/* ---- established flows in a flood --------------------------------------- */

/* Ahead of everything else on the machine, as if it were on another one. */
static void *ping_thread(void *arg)
{
	struct flow *f = arg;
	struct run *r = f->run;
	struct sockaddr_in to = r->to;
	uint64_t due = now_ns() + PING_EVERY_NS / PING_FLOWS * f->number;

	to.sin_port = htons(r->ping_port);
	if (flow_open(f, &to, r->is_clear) != 0 || exchange(f) != 0) {
		f->errors++;
		return NULL;
	}
	while (r->ping_phase != PHASE_STOP) {
		int phase = r->ping_phase;
		uint64_t begin, end;

		sleep_until(due);
		begin = now_ns();
		if (exchange(f) != 0) {
			f->errors++;
			break;
		}
		end = now_ns();
		if (phase == PHASE_MEASURE)
			sample(&f->took, end - begin);
		else if (phase == PHASE_QUIET && r->ping_phase == phase)
			sample(&f->quiet, end - begin);
		due = due + PING_EVERY_NS > end ? due + PING_EVERY_NS : end;
	}
	return NULL;
}

static int pings_start(struct run *r, struct flow *flow)
{
	struct sched_param urgent = { .sched_priority = 1 };
	int err = flows_start(r, flow, PING_FLOWS, ping_thread);

	for (unsigned i = 0; !err && i < PING_FLOWS; i++)
		err = -pthread_setschedparam(flow[i].thread, SCHED_FIFO, &urgent);
	return err;
}

static int run_flood(struct run *r)
{
	static struct flow flow[PING_FLOWS];
	struct hands all[HAND_THREADS];
	struct samples quiet = { 0 };
	struct samples took = { 0 };
	struct samples shakes = { 0 };
	struct usage before, after;
	struct count from, to;
	uint64_t errors;
	double n;
	int err;

	err = pings_start(r, flow);
	if (err)
		return err;
	sleep_ms(WARM_UP_MS);
	r->ping_phase = PHASE_QUIET;
	sleep_ms(QUIET_MS);
	r->ping_phase = PHASE_WARM_UP;
	if (hands_start_all(r, all) != 0)
		return -ENOMEM;
	hands_warm_up(r, all);
	read_usage(r->pids, r->n_pids, &before);
	from = hands_count(all);
	r->ping_phase = PHASE_MEASURE;
	sleep_ms(r->measure_ms);
	r->ping_phase = PHASE_STOP;
	to = hands_count(all);
	read_usage(r->pids, r->n_pids, &after);
	r->phase = PHASE_STOP;
	errors = hands_join(all, &shakes) + flows_join(flow, PING_FLOWS);
	for (unsigned i = 0; i < PING_FLOWS; i++) {
		append(&quiet, &flow[i].quiet);
		append(&took, &flow[i].took);
	}
	flows_close(flow, PING_FLOWS);
	free(shakes.ns);
	n = (double)(to.done - from.done);
	if (n == 0 || took.n == 0)
		return -ECOMM;
	printf("rate=%.1f proxy_us=%.2f trips=%u ", n * 1e3 / (double)r->measure_ms,
	       (double)(after.proxy_ns - before.proxy_ns) / n / 1e3, took.n);
	print_samples(&quiet, "quiet_");
	print_samples(&took, "");
	printf("steal_s=%.2f errors=%llu\n", (double)(after.steal_ns - before.steal_ns) / 1e9,
	       (unsigned long long)errors);
	return 0;
}

/* ---- idle connections --------------------------------------------------- */

/* The sockets stay open; what the library knows of them is not needed any more. */
static int run_idle(struct run *r)
{
	char buf[16];

	for (unsigned i = 0; i < r->n_clients; i++) {
		struct flow f = { .run = r, .fd = -1, .ctx = new_ctx(r) };

		if (!f.ctx || flow_open(&f, &r->to, false) != 0 || exchange(&f) != 0) {
			fprintf(stderr, "tls_load: connection %u of %u\n", i + 1, r->n_clients);
			return -ECOMM;
		}
		f.fd = -1;
		SSL_set_quiet_shutdown(f.ssl, 1);
		flow_close(&f);
	}
	puts("ready");
	fflush(stdout);
	while (read(STDIN_FILENO, buf, sizeof(buf)) > 0)
		;
	return 0;
}

/* ------------------------------------------------------------------------- */

static int usage(void)
{
	fputs("usage: tls_load [-2] hands|resumed|down|up ADDRESS PORT CLIENTS SECONDS [PID...]\n"
	      "       tls_load [-2] idle ADDRESS PORT COUNT\n"
	      "       tls_load [-c] [-h] -p PORT flood ADDRESS PORT CLIENTS SECONDS [PID...]\n",
	      stderr);
	return 2;
}

static int dispatch(struct run *r, const char *mode)
{
	if (strcmp(mode, "idle") == 0)
		return run_idle(r);
	if (r->measure_ms == 0 || r->n_clients > MAX_CLIENTS)
		return -EINVAL;
	r->is_resumed = strcmp(mode, "resumed") == 0;
	r->is_up = strcmp(mode, "up") == 0;
	if (r->is_resumed || strcmp(mode, "hands") == 0)
		return run_hands(r);
	if (r->is_up || strcmp(mode, "down") == 0)
		return run_bulk(r);
	return strcmp(mode, "flood") == 0 && r->ping_port != 0 ? run_flood(r) : -EINVAL;
}

static int command(int argc, char **argv, struct run *r)
{
	int o;

	while ((o = getopt(argc, argv, "+2chp:")) != -1) {
		switch (o) {
		case '2':
			r->version = TLS1_2_VERSION;
			break;
		case 'c':
			r->is_clear = true;
			break;
		case 'h':
			r->is_half = true;
			break;
		case 'p':
			r->ping_port = (uint16_t)strtoul(optarg, NULL, 10);
			break;
		default:
			return -EINVAL;
		}
	}
	argc -= optind;
	argv += optind;
	if (argc < 4 || inet_pton(AF_INET, argv[1], &r->to.sin_addr) != 1)
		return -EINVAL;
	r->to.sin_family = AF_INET;
	r->to.sin_port = htons((uint16_t)strtoul(argv[2], NULL, 10));
	r->n_clients = (unsigned)strtoul(argv[3], NULL, 10);
	r->measure_ms = argc > 4 ? (uint64_t)(strtod(argv[4], NULL) * 1000) : 0;
	r->pids = argv + 5;
	r->n_pids = argc > 5 ? argc - 5 : 0;
	return r->n_clients > 0 ? dispatch(r, argv[0]) : -EINVAL;
}

int main(int argc, char **argv)
{
	struct run r = { .version = TLS1_3_VERSION };
	int err;

	signal(SIGPIPE, SIG_IGN);
	raise_fd_limit();
	err = command(argc, argv, &r);
	if (err == -EINVAL)
		return usage();
	if (err)
		fprintf(stderr, "tls_load: %s\n", strerror(-err));
	return err ? 1 : 0;
}
