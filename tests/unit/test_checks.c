/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Active checks against real sockets on the loopback interface. */
#include "tls_server.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "base/log.h"
#include "proxy/health.h"

#define MAX_TARGETS 400

/* A server on the loop of the checks; what it does is a matter of its fields. */
struct server {
	struct sl_loop *loop;
	struct sl_io io;
	uint16_t port;
	const char *banner; /* sent at once */
	const char *answer; /* to a request; NULL: none */
	size_t filler;      /* bytes after the answer */
	bool bytewise;      /* the answer comes byte by byte */
	bool hangs_up;      /* instead of an answer */
	bool holds;         /* does not close when the other side has */
	struct accepted *held[64];
	size_t n_held;
	unsigned n_accepted;
	unsigned n_open;
	unsigned most_open;
	unsigned n_closed; /* ended by FIN */
	unsigned n_resets;
	char request[512]; /* of the last one */
};

struct accepted {
	struct server *server;
	struct sl_io io;
	struct sl_task end;
	char request[512];
	size_t n;
};

struct lab {
	struct sl_loop *loop;
	struct sl_checks *checks;
	struct sl_generation *gen;
	uint32_t next_scope;
	uint64_t number;
	int log_fd;
	int n_fds;
	char told[256];               /* what became of targets: "+" up, "-" down */
	struct sl_health_conf health; /* of the next generation */
	struct server server;
};

/* ---- the server ---- */

static void free_accepted(struct sl_task *task)
{
	free(SL_CONTAINER_OF(task, struct accepted, end));
}

static void drop(struct accepted *a)
{
	sl_io_stop(&a->io);
	(void)close(a->io.fd);
	a->server->n_open--;
	sl_loop_defer(a->server->loop, &a->end, free_accepted);
}

static void answer(struct accepted *a)
{
	const struct server *s = a->server;
	size_t step = s->bytewise ? 1 : strlen(s->answer);
	char *filler = calloc(1, s->filler + 1);

	assert_non_null(filler);
	for (const char *p = s->answer; *p; p += step)
		assert_int_equal(send(a->io.fd, p, step, MSG_NOSIGNAL), step);
	if (s->filler)
		assert_true(send(a->io.fd, filler, s->filler, MSG_NOSIGNAL) > 0);
	free(filler);
	assert_int_equal(shutdown(a->io.fd, SHUT_WR), 0);
}

static void on_accepted(struct sl_io *io, uint32_t events)
{
	struct accepted *a = SL_CONTAINER_OF(io, struct accepted, io);
	struct server *s = a->server;
	ssize_t n = recv(io->fd, a->request + a->n, sizeof(a->request) - 1 - a->n, 0);

	(void)events;
	if (n == 0 && s->holds) {
		sl_io_stop(io);
		assert_true(s->n_held < 64);
		s->held[s->n_held++] = a; /* until the end of the test */
		return;
	}
	if (n <= 0) {
		s->n_closed += n == 0;
		s->n_resets += n < 0;
		drop(a);
		return;
	}
	a->n += (size_t)n;
	memcpy(s->request, a->request, sizeof(s->request));
	if (!strstr(a->request, "\r\n\r\n"))
		return;
	if (s->hangs_up)
		drop(a);
	else if (s->answer)
		answer(a);
}

static void on_accept(struct sl_io *io, uint32_t events)
{
	struct server *s = SL_CONTAINER_OF(io, struct server, io);
	struct accepted *a;
	int on = 1;
	int fd;

	(void)events;
	while ((fd = accept4(io->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
		a = calloc(1, sizeof(*a));
		assert_non_null(a);
		assert_int_equal(setsockopt(fd, IPPROTO_TCP, 1 /* TCP_NODELAY */, &on, 4), 0);
		a->server = s;
		s->n_accepted++;
		if (++s->n_open > s->most_open)
			s->most_open = s->n_open;
		assert_int_equal(sl_io_start(s->loop, &a->io, fd, SL_IO_IN, on_accepted), 0);
		if (s->banner)
			assert_true(send(fd, s->banner, strlen(s->banner), MSG_NOSIGNAL) > 0);
	}
}

/* Until server_up() connects are refused. */
static void make_server(struct lab *lab, struct server *s)
{
	int fd = listen_on_loopback(0, -1);

	*s = (struct server){ .loop = lab->loop, .port = port_of(fd), .io.fd = fd };
	assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
}

static void server_up(struct server *s)
{
	assert_int_equal(listen(s->io.fd, 1024), 0);
	assert_int_equal(sl_io_start(s->loop, &s->io, s->io.fd, SL_IO_IN, on_accept), 0);
}

/* The same port refuses again. */
static void server_down(struct lab *lab, struct server *s)
{
	sl_io_stop(&s->io);
	assert_int_equal(close(s->io.fd), 0);
	s->io.fd = listen_on_loopback(s->port, -1);
	assert_int_equal(fcntl(s->io.fd, F_SETFL, O_NONBLOCK), 0);
	(void)lab;
}

static void server_done(struct server *s)
{
	sl_io_stop(&s->io);
	assert_int_equal(close(s->io.fd), 0);
}

/* ---- the laboratory ---- */

static int count_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	assert_int_equal(closedir(d), 0);
	return n;
}

static void on_changed(void *arg, const char *route, const char *target_name, bool is_down)
{
	struct lab *lab = arg;
	size_t n = strlen(lab->told);

	(void)snprintf(lab->told + n, sizeof(lab->told) - n, "%c%s/%s ", is_down ? '-' : '+', route,
		       target_name);
}

static int set_up(void **state)
{
	struct lab *lab = calloc(1, sizeof(*lab));

	assert_non_null(lab);
	lab->log_fd = memfd_create("log", MFD_CLOEXEC);
	assert_true(lab->log_fd >= 0);
	sl_log_setup(SL_LOG_INFO, false, lab->log_fd);
	lab->n_fds = count_fds();
	assert_int_equal(sl_loop_new(&lab->loop), 0);
	assert_int_equal(sl_checks_new(lab->loop, on_changed, lab, &lab->checks), 0);
	lab->next_scope = 1;
	lab->health = (struct sl_health_conf){
		.enabled = true, .every = 20, .timeout = 1000, .fall = 3, .rise = 2
	};
	make_server(lab, &lab->server);
	*state = lab;
	return 0;
}

/* Whatever was under way: nothing is left. */
static int tear_down(void **state)
{
	struct lab *lab = *state;

	sl_checks_free(lab->checks);
	sl_generation_unref(lab->gen);
	while (lab->server.n_held > 0)
		drop(lab->server.held[--lab->server.n_held]);
	lab->server.holds = false;
	for (uint64_t end = sl_clock_ms() + 5000; lab->server.n_open > 0 && sl_clock_ms() < end;)
		assert_int_equal(sl_loop_turn(lab->loop, 10), 0);
	server_done(&lab->server);
	sl_loop_free(lab->loop);
	assert_int_equal(lab->server.n_open, 0);
	assert_int_equal(count_fds(), lab->n_fds);
	sl_log_setup(SL_LOG_INFO, false, STDERR_FILENO);
	assert_int_equal(close(lab->log_fd), 0);
	free(lab);
	return 0;
}

/* A target for each port; 0 takes the port of the route, which is that of the server. */
static struct sl_conf *make_conf(const struct lab *lab, const char *route, const uint16_t *ports,
				 size_t n)
{
	struct sl_conf *conf = calloc(1, sizeof(*conf));
	struct sl_conf_route *r = calloc(1, sizeof(*r));

	assert_true(conf && r);
	conf->routes = r;
	conf->n_routes = 1;
	r->name = strdup(route);
	r->enabled = true;
	r->ports = calloc(1, sizeof(*r->ports));
	assert_non_null(r->ports);
	r->ports[0].from = lab->server.port;
	r->ports[0].to = lab->server.port;
	r->n_ports = 1;
	r->health = lab->health;
	r->health.path = lab->health.path ? strdup(lab->health.path) : NULL;
	r->targets = calloc(n, sizeof(*r->targets));
	assert_non_null(r->targets);
	r->n_targets = n;
	for (size_t i = 0; i < n; i++) {
		struct sl_conf_target *t = &r->targets[i];

		assert_true(asprintf(&t->address, "127.0.0.1:%u", ports[i]) > 0);
		assert_int_equal(sl_addr_parse_ip("127.0.0.1", &t->addr), 0);
		t->port = ports[i];
		t->weight = 1;
	}
	return conf;
}

/* As a reload does. */
static void use_conf(struct lab *lab, struct sl_conf *conf)
{
	struct sl_generation *g = NULL;

	assert_int_equal(sl_generation_new(conf, ++lab->number, 1, lab->gen, &lab->next_scope, &g),
			 0);
	assert_int_equal(sl_checks_use(lab->checks, g), 0);
	sl_generation_unref(lab->gen);
	lab->gen = g;
}

static void use_ports(struct lab *lab, const uint16_t *ports, size_t n)
{
	use_conf(lab, make_conf(lab, "shop", ports, n));
}

static void use_server(struct lab *lab)
{
	use_ports(lab, &lab->server.port, 1);
}

static struct sl_target *target(struct lab *lab, size_t i)
{
	return lab->gen->routes[0].targets[i];
}

#define run_until(lab, cond)                                                    \
	for (uint64_t end_ = sl_clock_ms() + 20000; !(cond);) {                 \
		if (sl_clock_ms() > end_)                                       \
			fail_msg("timed out: %s; '%s', %d good, %d bad", #cond, \
				 target((lab), 0)->check_error,                 \
				 (int)target((lab), 0)->n_checks_ok,            \
				 (int)target((lab), 0)->n_checks_failed);       \
		assert_int_equal(sl_loop_turn((lab)->loop, 5), 0);              \
	}

static void run_for(struct lab *lab, uint64_t ms)
{
	for (uint64_t end = sl_clock_ms() + ms; sl_clock_ms() < end;)
		assert_int_equal(sl_loop_turn(lab->loop, 1), 0);
}

static size_t count_in_log(const struct lab *lab, const char *text)
{
	char log[65536];
	ssize_t n = pread(lab->log_fd, log, sizeof(log) - 1, 0);
	size_t found = 0;

	assert_true(n >= 0);
	log[n] = '\0';
	for (const char *p = log; (p = strstr(p, text)); p++)
		found++;
	return found;
}

static void assert_fails_with(struct lab *lab, const char *error)
{
	uint64_t before = target(lab, 0)->n_checks_failed;

	run_until(lab, target(lab, 0)->n_checks_failed >= before + 2);
	assert_string_equal(target(lab, 0)->check_error, error);
	assert_int_equal(target(lab, 0)->n_checks_ok, 0);
}

/* ---- connects ---- */

static void a_server_that_listens_is_up(void **state)
{
	struct lab *lab = *state;
	struct sl_target *t;

	server_up(&lab->server);
	use_server(lab);
	t = target(lab, 0);
	run_until(lab, t->n_checks_ok >= 5 && lab->server.n_open == 0);
	assert_int_equal(t->n_checks_failed, 0);
	assert_int_equal(t->is_down, 0);
	assert_int_equal(t->up_since_ms, 0);
	assert_string_equal(t->check_error, "");
	assert_int_equal(lab->server.n_accepted, t->n_checks_ok);
	assert_int_equal(lab->server.n_closed, t->n_checks_ok);
	assert_int_equal(lab->server.n_resets, 0);
	assert_int_equal(count_in_log(lab, "target"), 0);
}

static void fall_and_rise(void **state)
{
	struct lab *lab = *state;
	struct sl_target *t;
	char text[128];

	use_server(lab);
	t = target(lab, 0);
	for (int round = 1; round <= 2; round++) {
		uint64_t failed = t->n_checks_failed;
		uint64_t ok;

		run_until(lab, t->is_down);
		assert_int_equal(t->n_checks_failed - failed, 3);
		assert_string_equal(t->check_error, "connect: Connection refused");
		run_until(lab, t->n_checks_failed - failed >= 6);
		assert_int_equal(t->is_down, 1);
		(void)snprintf(text, sizeof(text),
			       "target 127.0.0.1:%u of route shop is down: connect: Connection "
			       "refused, after 3 checks\n",
			       lab->server.port);
		assert_int_equal(count_in_log(lab, text), round);
		assert_int_equal(count_in_log(lab, "is down"), round);
		ok = t->n_checks_ok;
		server_up(&lab->server);
		run_until(lab, !t->is_down);
		assert_int_equal(t->n_checks_ok - ok, 2);
		assert_true(t->up_since_ms != 0 && t->up_since_ms <= sl_clock_ms());
		assert_string_equal(t->check_error, "");
		run_until(lab, t->n_checks_ok - ok >= 5);
		(void)snprintf(text, sizeof(text), "target 127.0.0.1:%u of route shop is up again",
			       lab->server.port);
		assert_int_equal(count_in_log(lab, text), round);
		server_down(lab, &lab->server);
	}
	assert_int_equal(lab->server.n_resets, 0);
}

/* Fewer failures than `fall` in a row change nothing. */
static void a_flapping_server_costs_one_connect_per_check(void **state)
{
	struct lab *lab = *state;
	struct sl_target *t;
	uint64_t start = sl_clock_ms();
	uint64_t passed;
	uint64_t n;

	lab->health.every = 50;
	lab->health.fall = 2;
	use_server(lab);
	t = target(lab, 0);
	while (sl_clock_ms() - start < 1500) {
		server_up(&lab->server);
		run_for(lab, 50);
		server_down(lab, &lab->server);
		run_for(lab, 50);
	}
	passed = sl_clock_ms() - start;
	n = t->n_checks_ok + t->n_checks_failed;
	assert_in_range(n, passed / 55 / 2, passed / 45 + 1);
	assert_true(t->n_checks_ok >= lab->server.n_accepted);
	assert_true(t->n_checks_failed > 0 && t->n_checks_ok > 0);
	server_up(&lab->server);
}

static void server_first_protocols_see_no_reset(void **state)
{
	struct lab *lab = *state;

	lab->server.banner = "220 mail.example ESMTP\r\n";
	server_up(&lab->server);
	use_server(lab);
	run_until(lab, target(lab, 0)->n_checks_ok >= 5 && lab->server.n_open == 0);
	assert_int_equal(lab->server.n_resets, 0);
}

static int socket_error(int fd)
{
	int err = 0;
	socklen_t len = sizeof(err);

	assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len), 0);
	return err;
}

/* One that does not close when we have: the next check comes in time all the same. */
static void servers_that_stay_do_not_delay_checks(void **state)
{
	struct lab *lab = *state;
	uint64_t start = sl_clock_ms();

	lab->server.holds = true;
	server_up(&lab->server);
	use_server(lab);
	run_until(lab, target(lab, 0)->n_checks_ok >= 10);
	assert_in_range(sl_clock_ms() - start, 9 * 18, 2000);
}

/* What it says when several later checks are over meets a socket all the same. */
static void late_words_see_no_reset(void **state)
{
	struct lab *lab = *state;
	struct server *s = &lab->server;

	s->holds = true;
	server_up(s);
	use_server(lab);
	run_until(lab, s->n_held >= 6);
	for (size_t i = 0; i < 3; i++) {
		assert_int_equal(send(s->held[i]->io.fd, "late", 4, MSG_NOSIGNAL), 4);
		assert_int_equal(send(s->held[i]->io.fd, "later", 5, MSG_NOSIGNAL), 5);
	}
	run_for(lab, 50);
	for (size_t i = 0; i < 3; i++)
		assert_int_equal(socket_error(s->held[i]->io.fd), 0);
}

static void a_full_backlog_is_a_timeout(void **state)
{
	struct lab *lab = *state;
	int filler[3];

	assert_int_equal(listen(lab->server.io.fd, 0), 0);
	for (size_t i = 0; i < 3; i++) {
		struct sockaddr_in a = { .sin_family = AF_INET,
					 .sin_port = htons(lab->server.port),
					 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

		filler[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		(void)connect(filler[i], (struct sockaddr *)&a, sizeof(a));
	}
	lab->health.timeout = 60;
	use_server(lab);
	assert_fails_with(lab, "connect: timed out after 60ms");
	for (size_t i = 0; i < 3; i++)
		(void)close(filler[i]);
}

/* forward.port: preserve. */
static void without_a_port_the_route_has_one(void **state)
{
	struct lab *lab = *state;
	const uint16_t preserve = 0;

	server_up(&lab->server);
	use_ports(lab, &preserve, 1);
	run_until(lab, target(lab, 0)->n_checks_ok >= 1);
	assert_true(lab->server.n_accepted >= 1);
}

/* Named targets: no result while unresolved; then the name goes into Host and SNI. */
static struct sl_conf *named_conf(struct lab *lab, uint16_t port)
{
	struct sl_conf *conf = make_conf(lab, "shop", &port, 1);

	conf->routes[0].targets[0].host = strdup("shop.example");
	return conf;
}

static void resolve(struct lab *lab)
{
	struct sl_target *t = target(lab, 0);

	assert_int_equal(sl_addr_parse_ip("127.0.0.1", &t->addrs[0]), 0);
	t->n_addrs = 1;
}

static void unresolved_names_have_no_result(void **state)
{
	struct lab *lab = *state;

	server_up(&lab->server);
	use_conf(lab, named_conf(lab, lab->server.port));
	run_for(lab, 200);
	assert_int_equal(target(lab, 0)->n_checks_ok + target(lab, 0)->n_checks_failed, 0);
	resolve(lab);
	run_until(lab, target(lab, 0)->n_checks_ok >= 1);
}

/* ---- HTTP ---- */

static char path[] = "/healthy?a=b";

static void good_answers(void **state)
{
	static const char *const answers[] = {
		"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.0 204 No Content\r\n\r\n",
		"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n",
	};
	struct lab *lab = *state;

	lab->health.path = path;
	server_up(&lab->server);
	lab->server.answer = answers[0];
	use_server(lab);
	for (size_t i = 0; i < 6; i++) {
		uint64_t before = target(lab, 0)->n_checks_ok;

		lab->server.answer = answers[i % 3];
		lab->server.bytewise = i >= 3;
		run_until(lab, target(lab, 0)->n_checks_ok >= before + 2);
	}
	assert_int_equal(target(lab, 0)->n_checks_failed, 0);
	run_until(lab, lab->server.n_open == 0);
	assert_int_equal(lab->server.n_resets, 0);
	assert_string_equal(lab->server.request, "GET /healthy?a=b HTTP/1.1\r\n"
						 "Host: 127.0.0.1\r\n"
						 "User-Agent: sluice-check\r\n"
						 "Accept: */*\r\n"
						 "Connection: close\r\n\r\n");
}

static void the_name_is_the_host(void **state)
{
	struct lab *lab = *state;

	lab->health.path = path;
	lab->server.answer = "HTTP/1.1 200 OK\r\n\r\n";
	server_up(&lab->server);
	use_conf(lab, named_conf(lab, lab->server.port));
	resolve(lab);
	run_until(lab, target(lab, 0)->n_checks_ok >= 1);
	assert_non_null(strstr(lab->server.request, "\r\nHost: shop.example\r\n"));
}

static void assert_answer_fails(struct lab *lab, const char *text, const char *error)
{
	lab->health.path = path;
	lab->server.answer = text;
	server_up(&lab->server);
	use_server(lab);
	assert_fails_with(lab, error);
	run_until(lab, lab->server.n_open == 0);
	assert_int_equal(lab->server.n_resets, 0);
}

static void bad_status(void **state)
{
	assert_answer_fails(*state, "HTTP/1.1 503 Busy\r\nContent-Length: 5\r\n\r\nbusy\n",
			    "HTTP: status 503");
}

static void no_http(void **state)
{
	assert_answer_fails(*state, "SSH-2.0-\x01\r\n", "HTTP: no answer of HTTP/1: SSH-2.0-...");
}

static void cut_answer(void **state)
{
	assert_answer_fails(*state, "HTTP/1.1", "HTTP: connection closed before the answer");
}

static void silence_is_a_timeout(void **state)
{
	struct lab *lab = *state;

	lab->health.timeout = 40;
	assert_answer_fails(lab, NULL, "HTTP: timed out after 40ms");
}

static void a_hang_up_is_told(void **state)
{
	struct lab *lab = *state;

	lab->server.hangs_up = true;
	assert_answer_fails(lab, NULL, "HTTP: connection closed before the answer");
}

/* The rest of the answer is read, so that the server's close is clean. */
static void large_answers_see_no_reset(void **state)
{
	struct lab *lab = *state;

	lab->health.path = path;
	lab->health.every = 100;
	lab->server.answer = "HTTP/1.1 200 OK\r\n\r\n";
	lab->server.filler = 100000;
	server_up(&lab->server);
	use_server(lab);
	run_until(lab, target(lab, 0)->n_checks_ok >= 3 && lab->server.n_open == 0);
	assert_int_equal(lab->server.n_resets, 0);
	assert_int_equal(lab->server.n_closed, lab->server.n_accepted);
}

/* ---- TLS ---- */

static void tls_handshakes(void **state)
{
	struct lab *lab = *state;
	struct tls_server s;

	lab->health.tls = true;
	start_tls_server(&s, NULL);
	use_conf(lab, named_conf(lab, s.port));
	resolve(lab);
	run_until(lab, target(lab, 0)->n_checks_ok >= 3);
	assert_int_equal(target(lab, 0)->n_checks_failed, 0);
	assert_int_equal(sl_checks_use(lab->checks, NULL), 0);
	stop_tls_server(&s);
	assert_in_range(s.n_handshakes, 3, 100);
	assert_int_equal(s.n_resets, 0);
	assert_string_equal(s.name, "shop.example");
}

static void http_inside_tls(void **state)
{
	struct lab *lab = *state;
	struct tls_server s;

	lab->health.tls = true;
	lab->health.path = path;
	start_tls_server(&s, "HTTP/1.1 200 OK\r\n\r\nbody");
	use_ports(lab, &s.port, 1);
	run_until(lab, target(lab, 0)->n_checks_ok >= 3);
	assert_int_equal(target(lab, 0)->n_checks_failed, 0);
	assert_int_equal(sl_checks_use(lab->checks, NULL), 0);
	stop_tls_server(&s);
	assert_int_equal(s.n_resets, 0);
	assert_non_null(strstr(s.request, "Host: 127.0.0.1\r\n"));
	assert_string_equal(s.name, ""); /* addresses are no server names */
}

static void bad_status_inside_tls(void **state)
{
	struct lab *lab = *state;
	struct tls_server s;

	lab->health.tls = true;
	lab->health.path = path;
	start_tls_server(&s, "HTTP/1.1 404 Not Found\r\n\r\n");
	use_ports(lab, &s.port, 1);
	assert_fails_with(lab, "HTTP: status 404");
	assert_int_equal(sl_checks_use(lab->checks, NULL), 0);
	stop_tls_server(&s);
}

static void plain_servers_speak_no_tls(void **state)
{
	struct lab *lab = *state;

	lab->health.tls = true;
	lab->server.banner = "220 mail.example ESMTP\r\n";
	server_up(&lab->server);
	use_server(lab);
	assert_fails_with(lab, "TLS handshake: wrong version number");
}

static void silent_handshakes_end(void **state)
{
	struct lab *lab = *state;

	lab->health.tls = true;
	lab->health.timeout = 50;
	server_up(&lab->server);
	use_server(lab);
	assert_fails_with(lab, "TLS handshake: timed out after 50ms");
}

/* ---- reload ---- */

static void a_reload_keeps_state_and_schedule(void **state)
{
	struct lab *lab = *state;
	struct sl_target *t;
	uint64_t start;
	uint64_t n;

	use_server(lab);
	t = target(lab, 0);
	run_until(lab, t->is_down);
	/* from here on one check in 10 minutes, but many reloads */
	lab->health.every = 600000;
	n = t->n_checks_failed;
	use_server(lab);
	assert_ptr_equal(target(lab, 0), t);
	run_until(lab, t->n_checks_failed > n); /* the one that was due */
	n = t->n_checks_failed;
	start = sl_clock_ms();
	while (sl_clock_ms() - start < 200) {
		use_server(lab);
		run_for(lab, 5);
	}
	assert_int_equal(t->is_down, 1);
	assert_int_equal(t->n_checks_failed, n);
	assert_string_equal(t->check_error, "connect: Connection refused");
	assert_int_equal(count_in_log(lab, "is down"), 1);
	/* shorter again: nobody waits for 10 minutes */
	lab->health.every = 20;
	use_server(lab);
	run_until(lab, t->n_checks_failed > n);
}

static void new_settings_hold_from_the_next_check_on(void **state)
{
	struct lab *lab = *state;
	struct sl_target *t;

	server_up(&lab->server);
	use_server(lab);
	t = target(lab, 0);
	run_until(lab, t->n_checks_ok > 0);
	lab->health.path = path;
	lab->health.fall = 1;
	lab->server.answer = "HTTP/1.1 500 No\r\n\r\n";
	use_server(lab);
	run_until(lab, t->is_down);
	assert_int_equal(t->n_checks_failed, 1);
	lab->health.path = NULL;
	lab->health.rise = 1;
	use_server(lab);
	run_until(lab, !t->is_down);
}

static void what_is_no_longer_checked_is_up(void **state)
{
	struct lab *lab = *state;
	const uint16_t ports[2] = { lab->server.port, 1 };
	struct sl_target *gone;
	struct sl_target *t;
	uint64_t n;

	use_ports(lab, ports, 2);
	t = target(lab, 0);
	gone = sl_target_ref(target(lab, 1)); /* as a connection does */
	run_until(lab, t->is_down && gone->is_down);
	use_ports(lab, ports, 1); /* one target leaves */
	assert_int_equal(gone->is_down, 0);
	assert_null(gone->check);
	assert_string_equal(gone->check_error, "");
	assert_int_equal(t->is_down, 1);
	sl_target_unref(gone);
	lab->health.enabled = false; /* the checks leave */
	use_ports(lab, ports, 1);
	assert_int_equal(t->is_down, 0);
	assert_int_equal(t->health.streak, 0);
	n = t->n_checks_failed;
	run_for(lab, 100);
	assert_int_equal(t->n_checks_failed, n);
	lab->health.enabled = true;
	use_ports(lab, ports, 1);
	run_until(lab, t->is_down);
	assert_int_equal(t->n_checks_failed, n + 3);
}

static void changes_are_told(void **state)
{
	struct lab *lab = *state;
	const uint16_t ports[1] = { 1 };
	char up[64], down[64];

	use_server(lab);
	(void)snprintf(down, sizeof(down), "-shop/127.0.0.1:%u ", lab->server.port);
	(void)snprintf(up, sizeof(up), "+shop/127.0.0.1:%u ", lab->server.port);
	run_until(lab, target(lab, 0)->is_down);
	assert_string_equal(lab->told, down);
	sl_checks_tell_down(lab->checks); /* to somebody who has not heard */
	assert_string_equal(lab->told + strlen(down), down);
	lab->told[0] = '\0';
	server_up(&lab->server);
	run_until(lab, !target(lab, 0)->is_down);
	assert_string_equal(lab->told, up);
	sl_checks_tell_down(lab->checks);
	assert_string_equal(lab->told, up);
	lab->told[0] = '\0';
	use_ports(lab, ports, 1);
	assert_string_equal(lab->told, ""); /* the one that left was up */
	run_until(lab, target(lab, 0)->is_down);
	assert_string_equal(lab->told, "-shop/127.0.0.1:1 ");
	lab->told[0] = '\0';
	use_server(lab); /* whatever is checked no longer is up */
	assert_string_equal(lab->told, "+shop/127.0.0.1:1 ");
}

static void drained_targets_are_checked(void **state)
{
	struct lab *lab = *state;
	struct sl_conf *conf = make_conf(lab, "shop", &lab->server.port, 1);

	conf->routes[0].targets[0].drained = true;
	conf->routes[0].targets[0].weight = 0;
	use_conf(lab, conf);
	run_until(lab, target(lab, 0)->is_down);
}

static void disabled_routes_are_not(void **state)
{
	struct lab *lab = *state;
	struct sl_conf *conf = make_conf(lab, "shop", &lab->server.port, 1);

	conf->routes[0].enabled = false;
	use_conf(lab, conf);
	run_for(lab, 100);
	assert_int_equal(target(lab, 0)->n_checks_failed, 0);
}

/* ---- many, and what runs out ---- */

static void many_take_turns(void **state)
{
	struct lab *lab = *state;
	uint16_t ports[MAX_TARGETS];
	size_t n_done = 0;

	for (size_t i = 0; i < MAX_TARGETS; i++)
		ports[i] = lab->server.port;
	lab->health.path = path; /* which is never answered */
	lab->health.timeout = 300;
	lab->health.every = 30;
	server_up(&lab->server);
	use_ports(lab, ports, MAX_TARGETS);
	run_until(lab, lab->server.n_open >= 256);
	run_for(lab, 100);
	assert_int_equal(lab->server.most_open, 256);
	/* each of them, with the reload in between that leaves all but 100 */
	for (uint64_t end = sl_clock_ms() + 20000; n_done < MAX_TARGETS && sl_clock_ms() < end;) {
		assert_int_equal(sl_loop_turn(lab->loop, 5), 0);
		n_done = 0;
		for (size_t i = 0; i < MAX_TARGETS; i++)
			n_done += target(lab, i)->n_checks_failed > 0;
	}
	assert_int_equal(n_done, MAX_TARGETS);
	assert_in_range(lab->server.most_open, 256, 512); /* and as many that are parting */
	use_ports(lab, ports, 100);
	run_until(lab, target(lab, 99)->n_checks_failed >= 4);
}

/* Our own lack of descriptors is nobody's failure. */
static void lack_of_descriptors_has_no_result(void **state)
{
	struct lab *lab = *state;
	struct rlimit before;

	use_server(lab);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &(struct rlimit){ 3, before.rlim_max }), 0);
	run_for(lab, 200);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	assert_int_equal(target(lab, 0)->n_checks_failed, 0);
	assert_string_equal(target(lab, 0)->check_error, "not checked: Too many open files");
	assert_int_equal(count_in_log(lab, "cannot check target"), 1);
	run_until(lab, target(lab, 0)->is_down);
}

/* Freed in the middle of everything: tear_down() counts descriptors and the server connections. */
static void free_under_way(void **state)
{
	struct lab *lab = *state;
	uint16_t ports[MAX_TARGETS];

	for (size_t i = 0; i < MAX_TARGETS; i++)
		ports[i] = lab->server.port;
	lab->health.path = path;
	lab->health.tls = true;
	lab->server.banner = "x";
	server_up(&lab->server);
	use_ports(lab, ports, MAX_TARGETS);
	run_until(lab, lab->server.n_accepted >= 100);
	assert_true(lab->server.n_open > 0);
}

#define in_lab(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		in_lab(a_server_that_listens_is_up),
		in_lab(fall_and_rise),
		in_lab(a_flapping_server_costs_one_connect_per_check),
		in_lab(server_first_protocols_see_no_reset),
		in_lab(servers_that_stay_do_not_delay_checks),
		in_lab(late_words_see_no_reset),
		in_lab(a_full_backlog_is_a_timeout),
		in_lab(without_a_port_the_route_has_one),
		in_lab(unresolved_names_have_no_result),
		in_lab(good_answers),
		in_lab(the_name_is_the_host),
		in_lab(bad_status),
		in_lab(no_http),
		in_lab(cut_answer),
		in_lab(silence_is_a_timeout),
		in_lab(a_hang_up_is_told),
		in_lab(large_answers_see_no_reset),
		in_lab(tls_handshakes),
		in_lab(http_inside_tls),
		in_lab(bad_status_inside_tls),
		in_lab(plain_servers_speak_no_tls),
		in_lab(silent_handshakes_end),
		in_lab(a_reload_keeps_state_and_schedule),
		in_lab(new_settings_hold_from_the_next_check_on),
		in_lab(what_is_no_longer_checked_is_up),
		in_lab(changes_are_told),
		in_lab(drained_targets_are_checked),
		in_lab(disabled_routes_are_not),
		in_lab(many_take_turns),
		in_lab(lack_of_descriptors_has_no_result),
		in_lab(free_under_way),
	};

	(void)signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
