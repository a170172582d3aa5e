/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "proxy/health.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "base/count.h"
#include "base/log.h"
#include "base/num.h"
#include "base/rand.h"
#include "base/str.h"
#include "core/health.h"
#include "core/proxy_header.h"
#include "io/parting.h"
#include "tls/client.h"

/* Checks at the same time; others wait their turn. Each has one socket. */
#define MAX_BUSY 256
#define AGAIN_MS 10000

/* In the order they are passed; what a check does not need is skipped. */
enum stage {
	STAGE_IDLE = 0, /* the timer waits for the next check */
	STAGE_WAITING,  /* for a place among MAX_BUSY */
	STAGE_CONNECTING,
	STAGE_HANDSHAKING,
	STAGE_SENDING,
	STAGE_READING,
	STAGE_DONE, /* the result is known */
};

static const char *const stage_names[] = {
	[STAGE_CONNECTING] = "connect",
	[STAGE_HANDSHAKING] = "TLS handshake",
	[STAGE_SENDING] = "HTTP",
	[STAGE_READING] = "HTTP",
};

/* The checks of one target; freed at the end of the turn in which they are retired. */
struct sl_check {
	struct sl_list node;  /* of sl_checks.all */
	struct sl_list place; /* of sl_checks.waiting */
	struct sl_checks *owner;
	struct sl_target *target; /* reference */
	/* of the owner's generation */
	const struct sl_conf_route *route;
	const struct sl_conf_target *conf;
	bool is_stale; /* mark of sl_checks_use() */
	enum stage stage;
	struct sl_timer timer; /* next check, deadline of this one */
	uint64_t next_ms;      /* when the next check is due */
	uint64_t told_ms;      /* `changed` was called; 0: never */
	struct sl_task end;

	/* the check under way, with the settings it began with */
	struct sl_io io; /* fd -1: none */
	struct sl_tls_conn *tls;
	bool wants_tls;
	uint32_t fall;
	uint32_t rise;
	uint64_t timeout_ms;
	struct sl_str request; /* empty: none */
	size_t sent;
	char answer[16]; /* more than the decision needs */
	size_t n_answer;
	char why[64]; /* it failed, beside the stage; "": nothing more than an errno */
};

struct sl_checks {
	struct sl_loop *loop; /* borrowed */
	sl_checks_fn changed;
	void *arg;
	struct sl_generation *gen; /* reference; NULL: nothing is checked */
	struct sl_list all;
	struct sl_list waiting;
	size_t n_busy;
	struct sl_task admit;
	struct sl_parting *parting; /* owned: the sockets of checks that are done */
	struct sl_tls_client *tls;  /* made when first needed */
	struct sl_rand rand;
	struct sl_log_limit log;
};

static void on_due(struct sl_timer *timer);
static void on_deadline(struct sl_timer *timer);
static void on_socket(struct sl_io *io, uint32_t events);
static void begin(struct sl_check *k);

static uint64_t now(const struct sl_check *k)
{
	return sl_loop_now_ms(k->owner->loop);
}

/* ---- places ---- */

static void admit(struct sl_task *task)
{
	struct sl_checks *c = SL_CONTAINER_OF(task, struct sl_checks, admit);

	/* Ends: each begins once, and is due later if it ends at once. */
	while (c->n_busy < MAX_BUSY && !sl_list_is_empty(&c->waiting)) {
		struct sl_check *k = SL_CONTAINER_OF(c->waiting.next, struct sl_check, place);

		sl_list_remove(&k->place);
		begin(k);
	}
}

static bool is_busy(const struct sl_check *k)
{
	return k->stage > STAGE_WAITING;
}

/* Gives back all that a check has; the result is recorded, or nobody wants it. */
static void rest(struct sl_check *k)
{
	struct sl_checks *c = k->owner;

	sl_tls_conn_free(SL_TAKE_PTR(k->tls));
	sl_io_stop(&k->io);
	sl_closep(&k->io.fd);
	sl_str_done(&k->request);
	sl_timer_stop(&k->timer);
	sl_list_remove(&k->place);
	if (is_busy(k))
		c->n_busy--;
	k->stage = STAGE_IDLE;
	if (!sl_list_is_empty(&c->waiting))
		sl_loop_defer(c->loop, &c->admit, admit);
}

static void rest_until_next(struct sl_check *k)
{
	rest(k);
	sl_timer_start(k->owner->loop, &k->timer, k->next_ms, on_due);
}

/* ---- the end of a check ---- */

/* The target may have more to say; the next check does not wait for that. */
static void part(struct sl_check *k)
{
	if (k->io.fd < 0)
		return;
	if (k->tls)
		sl_tls_say_end(k->tls);
	sl_tls_conn_free(SL_TAKE_PTR(k->tls));
	sl_io_stop(&k->io);
	sl_parting_take(k->owner->parting, k->io.fd);
	k->io.fd = -1;
}

static void log_change(const struct sl_check *k, enum sl_health_change change)
{
	const struct sl_target *t = k->target;

	switch (change) {
	case SL_HEALTH_WENT_DOWN:
		sl_log(SL_LOG_WARN, "target %s of route %s is down: %s, after %u check%s",
		       t->address, k->route->name, t->check_error, k->fall,
		       k->fall == 1 ? "" : "s");
		break;
	case SL_HEALTH_WENT_UP:
		sl_info("target %s of route %s is up again", t->address, k->route->name);
		break;
	case SL_HEALTH_SAME:
		break;
	}
}

static void tell(struct sl_check *k, bool is_down)
{
	k->told_ms = now(k);
	k->owner->changed(k->owner->arg, k->route->name, k->target->address, is_down);
}

/*
 * Who acts on it far away may have heard another thing of a process before this one, or have known
 * nothing of the target when it went down.
 */
static bool is_news(const struct sl_check *k)
{
	if (k->route->engine != SL_CHOICE_NFTABLES)
		return false;
	return k->told_ms == 0 || (k->target->health.is_down && now(k) >= k->told_ms + AGAIN_MS);
}

static void record(struct sl_check *k, bool ok)
{
	struct sl_target *t = k->target;
	enum sl_health_change change = sl_health_step(&t->health, ok, k->fall, k->rise);

	t->check_error[0] = '\0';
	if (!ok)
		(void)snprintf(t->check_error, sizeof(t->check_error), "%s: %s",
			       stage_names[k->stage], k->why);
	sl_count_add(ok ? &t->n_checks_ok : &t->n_checks_failed, 1);
	if (change == SL_HEALTH_WENT_UP)
		sl_count_set(&t->up_since_ms, now(k));
	__atomic_store_n(&t->is_down, t->health.is_down, __ATOMIC_RELEASE); /* after up_since_ms */
	log_change(k, change);
	if (change != SL_HEALTH_SAME || (ok != t->health.is_down && is_news(k)))
		tell(k, t->health.is_down);
}

static void succeed(struct sl_check *k)
{
	record(k, true);
	part(k);
	rest_until_next(k);
}

static void fail(struct sl_check *k)
{
	record(k, false);
	if (k->stage != STAGE_CONNECTING)
		part(k);
	rest_until_next(k);
}

/* Our own trouble says nothing about the target. */
static void skip(struct sl_check *k, int err)
{
	char name[64];

	(void)snprintf(k->target->check_error, sizeof(k->target->check_error), "not checked: %s",
		       strerror_r(-err, name, sizeof(name)));
	if (sl_log_allowed(&k->owner->log, now(k), 1, 10000))
		(void)sl_warn(err, "cannot check target %s of route %s, trying again later",
			      k->target->address, k->route->name);
	rest_until_next(k);
}

static bool is_our_own(int err)
{
	return err == -EMFILE || err == -ENFILE || err == -ENOBUFS || err == -ENOMEM ||
	       err == -EADDRNOTAVAIL;
}

static void fail_errno(struct sl_check *k, int err)
{
	char name[64];

	if (is_our_own(err)) {
		skip(k, err);
		return;
	}
	if (k->why[0] == '\0' && k->tls)
		(void)snprintf(k->why, sizeof(k->why), "%s", sl_tls_conn_error(k->tls));
	if (k->why[0] == '\0')
		(void)snprintf(k->why, sizeof(k->why), "%s", strerror_r(-err, name, sizeof(name)));
	fail(k);
}

static void on_deadline(struct sl_timer *timer)
{
	struct sl_check *k = SL_CONTAINER_OF(timer, struct sl_check, timer);
	char duration[32];

	(void)snprintf(k->why, sizeof(k->why), "timed out after %s",
		       sl_num_format_duration(k->timeout_ms, duration));
	fail(k);
}

/* ---- its stages: enum sl_tls_want, or -errno with the words in k->why where it has some ---- */

/*
 * A target that gets PROXY headers expects one from checks, too: it says that the sender speaks
 * for itself. It fits into the empty queue of a new socket.
 */
static int announce(struct sl_check *k)
{
	const struct sl_ph_out header = { .version = k->route->send_proxy.version,
					  .crc32c = k->route->send_proxy.crc32c };
	uint8_t bytes[SL_PH_OUT_MAX];
	size_t n;
	ssize_t sent;

	if (header.version == SL_PH_SEND_NONE)
		return 0;
	n = sl_proxy_header_write(&header, bytes, sizeof(bytes));
	sent = send(k->io.fd, bytes, n, MSG_NOSIGNAL);
	if (sent < 0)
		return -errno;
	return (size_t)sent == n ? 0 : -ENOBUFS;
}

static int finish_connect(struct sl_check *k)
{
	socklen_t len = sizeof(int);
	int err = 0;

	if (getsockopt(k->io.fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0)
		return -errno;
	return err ? -err : announce(k);
}

static int handshake(struct sl_check *k)
{
	int r = k->tls ? 0 : sl_tls_connect(k->owner->tls, k->io.fd, k->conf->host, &k->tls);

	return r < 0 ? r : sl_tls_handshake(k->tls);
}

static int send_some(struct sl_check *k, size_t *ret_n)
{
	ssize_t n;

	if (k->tls)
		return sl_tls_write(k->tls, k->request.p + k->sent, k->request.len - k->sent,
				    ret_n);
	n = send(k->io.fd, k->request.p + k->sent, k->request.len - k->sent, MSG_NOSIGNAL);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? SL_TLS_WANT_WRITE : -errno;
	*ret_n = (size_t)n;
	return SL_TLS_DONE;
}

static int send_request(struct sl_check *k)
{
	while (k->sent < k->request.len) {
		size_t n = 0;
		int r = send_some(k, &n);

		if (r != SL_TLS_DONE)
			return r;
		k->sent += n;
	}
	return SL_TLS_DONE;
}

static int read_some(struct sl_check *k, size_t *ret_n)
{
	char *to = k->answer + k->n_answer;
	size_t room = sizeof(k->answer) - k->n_answer;
	ssize_t n;

	if (k->tls)
		return sl_tls_read(k->tls, to, room, ret_n);
	n = recv(k->io.fd, to, room, 0);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? SL_TLS_WANT_READ : -errno;
	*ret_n = (size_t)n;
	return SL_TLS_DONE;
}

static void describe_answer(struct sl_check *k)
{
	_cleanup_(sl_str_done) struct sl_str text = { 0 };
	bool is_http = k->n_answer >= 12 && memcmp(k->answer, "HTTP/1.", 7) == 0;

	sl_str_adds(&text, is_http ? "status " : "no answer of HTTP/1: ");
	if (is_http)
		sl_str_add_escaped(&text, k->answer + 9, 3, 3);
	else
		sl_str_add_escaped(&text, k->answer, k->n_answer, 8);
	(void)snprintf(k->why, sizeof(k->why), "%s", sl_str_text(&text));
}

static int read_answer(struct sl_check *k)
{
	for (;;) {
		size_t n = 0;
		int r = read_some(k, &n);

		if (r != SL_TLS_DONE)
			return r;
		if (n == 0) {
			(void)snprintf(k->why, sizeof(k->why),
				       "connection closed before the answer");
			return -EPIPE;
		}
		k->n_answer += n;
		r = sl_health_read_status(k->answer, k->n_answer);
		if (r > 0)
			return SL_TLS_DONE;
		if (r < 0) {
			describe_answer(k);
			return r;
		}
	}
}

static int step(struct sl_check *k)
{
	switch (k->stage) {
	case STAGE_CONNECTING:
		return finish_connect(k);
	case STAGE_HANDSHAKING:
		return handshake(k);
	case STAGE_SENDING:
		return send_request(k);
	case STAGE_READING:
		return read_answer(k);
	case STAGE_IDLE:
	case STAGE_WAITING:
	case STAGE_DONE:
		break;
	}
	return -EINVAL;
}

static enum stage stage_after(const struct sl_check *k)
{
	if (k->stage == STAGE_CONNECTING && k->wants_tls)
		return STAGE_HANDSHAKING;
	if (k->stage < STAGE_SENDING)
		return k->request.len ? STAGE_SENDING : STAGE_DONE;
	return k->stage == STAGE_SENDING ? STAGE_READING : STAGE_DONE;
}

static void advance(struct sl_check *k)
{
	int r = step(k);

	while (r == SL_TLS_DONE) {
		enum stage next = stage_after(k);

		if (next == STAGE_DONE) {
			succeed(k);
			return;
		}
		k->stage = next;
		r = step(k);
	}
	if (r > 0)
		r = sl_io_change(&k->io, r == SL_TLS_WANT_READ ? SL_IO_IN : SL_IO_OUT);
	if (r < 0)
		fail_errno(k, r);
}

static void on_socket(struct sl_io *io, uint32_t events)
{
	struct sl_check *k = SL_CONTAINER_OF(io, struct sl_check, io);

	(void)events;
	advance(k);
}

/* ---- its begin ---- */

static void build_request(struct sl_check *k)
{
	char ip[SL_ADDR_TEXT];
	const char *host = k->conf->host;
	const char *form = "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: sluice-check\r\n"
			   "Accept: */*\r\nConnection: close\r\n\r\n";

	sl_str_clear(&k->request);
	if (!k->route->health.path)
		return;
	if (!host && sl_addr_family(&k->conf->addr) == AF_INET6)
		form = "GET %s HTTP/1.1\r\nHost: [%s]\r\nUser-Agent: sluice-check\r\n"
		       "Accept: */*\r\nConnection: close\r\n\r\n";
	if (!host)
		host = sl_addr_format_ip(&k->conf->addr, ip);
	sl_str_addf(&k->request, form, k->route->health.path, host);
}

static int prepare(struct sl_check *k)
{
	const struct sl_health_conf *conf = &k->route->health;

	k->wants_tls = conf->tls;
	k->fall = conf->fall;
	k->rise = conf->rise;
	k->timeout_ms = conf->timeout;
	k->sent = 0;
	k->n_answer = 0;
	k->why[0] = '\0';
	build_request(k);
	if (k->request.oom)
		return -ENOMEM;
	if (conf->tls && !k->owner->tls)
		return sl_tls_client_new_unverified(&k->owner->tls);
	return 0;
}

static int open_socket(struct sl_check *k, const struct sl_addr *to)
{
	const int on = 1;
	int fd = socket(sl_addr_family(to), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	k->io.fd = fd;
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (connect(fd, &to->sa, sl_addr_len(to)) < 0 && errno != EINPROGRESS)
		return -errno;
	return sl_io_start(k->owner->loop, &k->io, fd, SL_IO_OUT, on_socket);
}

static void begin(struct sl_check *k)
{
	struct sl_checks *c = k->owner;
	struct sl_addr to;
	int r;

	c->n_busy++;
	k->stage = STAGE_CONNECTING;
	k->next_ms = now(k) + sl_health_delay(k->route->health.every, sl_rand_next(&c->rand));
	/* A name that has never been resolved gets no connections anyway. */
	if (!sl_target_pick_addr(k->target, k->route->ports[0].from, &to)) {
		rest_until_next(k);
		return;
	}
	r = prepare(k);
	if (r == 0)
		sl_timer_start(c->loop, &k->timer, now(k) + k->timeout_ms, on_deadline);
	if (r == 0)
		r = open_socket(k, &to);
	if (r < 0)
		fail_errno(k, r);
}

static void on_due(struct sl_timer *timer)
{
	struct sl_check *k = SL_CONTAINER_OF(timer, struct sl_check, timer);

	if (k->owner->n_busy < MAX_BUSY) {
		begin(k);
		return;
	}
	k->stage = STAGE_WAITING;
	sl_list_add(&k->owner->waiting, &k->place);
}

/* ---- which targets are checked ---- */

static int add_check(struct sl_checks *c, struct sl_target *t)
{
	struct sl_check *k = calloc(1, sizeof(*k));

	if (!k)
		return -ENOMEM;
	k->owner = c;
	k->target = sl_target_ref(t);
	k->io.fd = -1;
	k->is_stale = true;
	sl_list_init(&k->place);
	sl_list_add(&c->all, &k->node);
	t->check = k;
	return 0;
}

static void free_check(struct sl_task *task)
{
	struct sl_check *k = SL_CONTAINER_OF(task, struct sl_check, end);

	sl_target_unref(k->target);
	free(k);
}

/* A target that nobody checks is taken for good. */
static void retire(struct sl_check *k)
{
	struct sl_target *t = k->target;

	if (t->health.is_down)
		tell(k, false);
	part(k);
	rest(k);
	sl_list_remove(&k->node);
	t->check = NULL;
	t->health = (struct sl_health){ 0 };
	t->check_error[0] = '\0';
	sl_count_set(&t->up_since_ms, 0);
	__atomic_store_n(&t->is_down, 0, __ATOMIC_RELEASE);
	sl_loop_defer(k->owner->loop, &k->end, free_check);
}

static void retire_stale(struct sl_checks *c)
{
	struct sl_list *pos;
	struct sl_list *tmp;

	sl_list_for_each_safe (pos, tmp, &c->all) {
		struct sl_check *k = SL_CONTAINER_OF(pos, struct sl_check, node);

		if (k->is_stale)
			retire(k);
	}
}

static bool is_checked(const struct sl_gen_route *gr)
{
	return gr->conf->enabled && gr->conf->health.enabled;
}

static int add_missing(struct sl_checks *c, const struct sl_generation *g)
{
	for (size_t i = 0; i < g->conf->n_routes; i++) {
		const struct sl_gen_route *gr = &g->routes[i];

		for (size_t t = 0; is_checked(gr) && t < gr->conf->n_targets; t++)
			if (!gr->targets[t]->check && add_check(c, gr->targets[t]) < 0)
				return -ENOMEM;
	}
	return 0;
}

/* Those that are new or would wait longer than they now should begin some time within `every`. */
static void use_settings(struct sl_check *k, const struct sl_gen_route *gr, size_t target)
{
	uint64_t every = gr->conf->health.every;
	uint64_t latest_ms = now(k) + every + every / 10;

	k->is_stale = false;
	k->route = gr->conf;
	k->conf = &gr->conf->targets[target];
	if ((k->stage != STAGE_IDLE || sl_timer_is_armed(&k->timer)) && k->next_ms <= latest_ms)
		return;
	k->next_ms = now(k) + sl_rand_below(&k->owner->rand, every);
	if (k->stage == STAGE_IDLE)
		sl_timer_start(k->owner->loop, &k->timer, k->next_ms, on_due);
}

static void mark_all_stale(struct sl_checks *c)
{
	struct sl_list *pos;

	sl_list_for_each (pos, &c->all)
		SL_CONTAINER_OF(pos, struct sl_check, node)->is_stale = true;
}

static void use_routes(const struct sl_generation *g)
{
	for (size_t i = 0; i < g->conf->n_routes; i++) {
		const struct sl_gen_route *gr = &g->routes[i];

		/* The first of several entries of one address gives the settings. */
		for (size_t t = 0; is_checked(gr) && t < gr->conf->n_targets; t++)
			if (gr->targets[t]->check->is_stale)
				use_settings(gr->targets[t]->check, gr, t);
	}
}

/* As it was before sl_checks_use() began: those without a route are its own. */
static void drop_new(struct sl_checks *c)
{
	struct sl_list *pos;

	sl_list_for_each (pos, &c->all) {
		struct sl_check *k = SL_CONTAINER_OF(pos, struct sl_check, node);

		k->is_stale = k->route == NULL;
	}
	retire_stale(c);
}

/* `g`: every target has its check. */
static void use(struct sl_checks *c, struct sl_generation *g)
{
	mark_all_stale(c);
	if (g)
		use_routes(sl_generation_ref(g));
	retire_stale(c);
	sl_generation_unref(c->gen);
	c->gen = g;
}

int sl_checks_use(struct sl_checks *c, struct sl_generation *g)
{
	if (g && add_missing(c, g) < 0) {
		drop_new(c);
		return -ENOMEM;
	}
	use(c, g);
	return 0;
}

void sl_checks_tell_down(struct sl_checks *c)
{
	struct sl_list *pos;

	sl_list_for_each (pos, &c->all) {
		struct sl_check *k = SL_CONTAINER_OF(pos, struct sl_check, node);

		if (k->target->health.is_down)
			tell(k, true);
	}
}

int sl_checks_new(struct sl_loop *control, sl_checks_fn changed, void *arg, struct sl_checks **ret)
{
	struct sl_checks *c = calloc(1, sizeof(*c));
	uint64_t seed = 0;

	if (!c || sl_parting_new(control, &c->parting) < 0) {
		free(c);
		return -ENOMEM;
	}
	c->loop = control;
	c->changed = changed;
	c->arg = arg;
	sl_list_init(&c->all);
	sl_list_init(&c->waiting);
	/* Without it several instances would check in step, no more. */
	(void)!getrandom(&seed, sizeof(seed), GRND_NONBLOCK);
	sl_rand_seed(&c->rand, seed);
	*ret = c;
	return 0;
}

void sl_checks_free(struct sl_checks *c)
{
	if (!c)
		return;
	use(c, NULL);
	sl_task_cancel(&c->admit);
	sl_parting_free(c->parting);
	sl_tls_client_free(c->tls);
	free(c);
}
