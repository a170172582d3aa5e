/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The control interface as a client meets it: bytes on a socket, in two
 * pieces. Documents are stubs; server, dispatch and parameters are real.
 */
#include <assert.h>
#include <fcntl.h>
#include <sys/un.h>

/* The parts share one translation unit here, and some of their static names. */
#include "../../userspace/io/wheel.c"
#define dispatch loop_dispatch
#include "../../userspace/io/loop.c"
#undef dispatch
#include "../../userspace/ctl/server.c"
#include "../../userspace/ctl/words.c"
#undef X
#include "../../userspace/ctl/changes.c"
#include "../../userspace/ctl/params.c"
#undef VERSION
#define words api_change_words
#include "../../userspace/ctl/api_change.c"
#undef words
#include "../../userspace/ctl/api.c"
#include "../unit/fake_proxy.h"

const char *sl_view_state(const struct sl_proxy *proxy, const struct sl_ctl_facts *facts)
{
	(void)proxy;
	(void)facts;
	return "running";
}

void sl_view_status(struct sl_str *out, struct sl_proxy *proxy, const struct sl_ctl_facts *facts,
		    uint64_t now_ms)
{
	(void)proxy;
	(void)facts;
	(void)now_ms;
	sl_str_adds(out, "{}\n");
}

void sl_view_routes(struct sl_str *out, struct sl_proxy *proxy)
{
	(void)proxy;
	sl_str_adds(out, "{}\n");
}

bool sl_view_route(struct sl_str *out, struct sl_proxy *proxy, const char *name)
{
	(void)proxy;
	assert(sl_changes_is_name(name));
	sl_str_adds(out, "{}\n");
	return name[0] != 'x';
}

void sl_view_conns(struct sl_str *out, const struct sl_conn_survey *survey)
{
	sl_str_addf(out, "%zu\n", survey->n_matching);
}

uint64_t sl_view_packet_flows(const struct sl_proxy_totals *t, const struct sl_kernel_view *k)
{
	(void)t;
	(void)k;
	return 1;
}

void sl_view_flows_start(struct sl_flows_view *v, size_t max)
{
	*v = (struct sl_flows_view){ 0 };
	assert(max > 0);
}

int sl_view_flows_step(struct sl_flows_view *v, const struct sl_proxy *proxy)
{
	(void)v;
	(void)proxy;
	return 1;
}

bool sl_view_flows_wants_records(const struct sl_flows_view *v)
{
	return v->id % 2 == 1;
}

void sl_view_flows_end(struct sl_flows_view *v, const struct sl_proxy *proxy,
		       const struct sl_ctl_facts *facts, const struct sl_conn_survey *records)
{
	(void)proxy;
	(void)facts;
	(void)records;
	sl_str_adds(&v->out, "{}\n");
}

void sl_view_flows_done(struct sl_flows_view *v)
{
	(void)v;
}

void sl_view_diff(struct sl_str *out, const struct sl_proxy *proxy,
		  const struct sl_ctl_facts *facts, const char *lines)
{
	(void)proxy;
	(void)facts;
	sl_str_addf(out, "%s\n", lines ? lines : "");
}

void sl_view_engines(struct sl_str *out, const struct sl_proxy *proxy,
		     const struct sl_ctl_facts *facts)
{
	(void)proxy;
	(void)facts;
	sl_str_adds(out, "{}\n");
}

void sl_view_certs(struct sl_str *out, struct sl_proxy *proxy)
{
	(void)proxy;
	sl_str_adds(out, "{}\n");
}

bool sl_view_cert(struct sl_str *out, struct sl_proxy *proxy, const char *name)
{
	(void)proxy;
	assert(name[0] && strlen(name) < SL_PARAM_MAX);
	sl_str_adds(out, "{}\n");
	return name[0] != 'x';
}

void sl_view_version(struct sl_str *out, const struct sl_ctl_facts *facts)
{
	(void)facts;
	sl_str_adds(out, "{}\n");
}

void sl_view_explain(struct sl_str *out, struct sl_proxy *proxy, const struct sl_question *q)
{
	(void)proxy;
	assert(q->port > 0);
	sl_str_addf(out, "%s %s\n", q->name ? q->name : "", q->path ? q->path : "");
}

void sl_metrics_render(struct sl_str *out, struct sl_proxy *proxy, const struct sl_ctl_facts *facts,
		       const struct sl_hist *age, uint64_t now_ms)
{
	(void)proxy;
	(void)facts;
	(void)age;
	(void)now_ms;
	sl_str_adds(out, "metric 1\n");
}

/* Whatever came, the supervisor is asked for nothing that does not fit together. */
static void check_change(const struct sl_ctl_change *c)
{
	assert(c->kind < SL_SOURCE_KIND_COUNT_);
	assert(c->subject && (!c->subject[0] || sl_changes_is_name(c->subject)));
	if (c->kind == SL_SOURCE_FILE)
		assert(c->text.n == 0 && !c->keep && !c->undo);
	else
		assert(sl_changes_fit(c->kind, c->subject, c->text.n));
	assert(!c->undo || (c->kind == SL_SOURCE_DRAIN && !c->keep));
}

static void on_fuzz_request(void *arg, enum sl_ctl_request what, const struct sl_ctl_change *change,
			    sl_ctl_reply_fn reply, void *reply_arg)
{
	static unsigned n;

	(void)arg;
	assert((what == SL_CTL_CHANGE) == (change != NULL));
	if (change)
		check_change(change);
	reply(reply_arg, (enum sl_ctl_result)(n++ % (SL_CTL_BUSY + 1)), "text");
}

struct lab {
	struct sl_loop *loop;
	struct sl_proxy proxy;
	struct sl_ctl *ctl;
	struct sl_ctl_facts facts;
	struct sockaddr_un addr;
	socklen_t len;
};

static struct lab *start_lab(void)
{
	struct lab *lab = calloc(1, sizeof(*lab));
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct sl_ctl_options options;

	assert(lab && fd >= 0);
	lab->addr.sun_family = AF_UNIX;
	lab->len = sizeof(lab->addr);
	assert(bind(fd, (struct sockaddr *)&lab->addr, sizeof(sa_family_t)) == 0);
	assert(getsockname(fd, (struct sockaddr *)&lab->addr, &lab->len) == 0);
	assert(listen(fd, 16) == 0 && sl_loop_new(&lab->loop) == 0);
	fake_init(&lab->proxy, lab->loop);
	lab->facts.ready = true;
	options = (struct sl_ctl_options){ .loop = lab->loop,
					   .proxy = &lab->proxy,
					   .control_fd = fd,
					   .http_fd = -1,
					   .facts = &lab->facts,
					   .request = on_fuzz_request };
	assert(sl_ctl_new(&options, &lab->ctl) == 0);
	return lab;
}

static void pull_answer(struct lab *lab, int fd, bool *is_over)
{
	char chunk[65536];
	ssize_t n;

	assert(sl_loop_turn(lab->loop, 0) == 0);
	n = recv(fd, chunk, sizeof(chunk), MSG_DONTWAIT);
	*is_over = n == 0 || (n < 0 && errno != EAGAIN);
}

static void put_piece(struct lab *lab, int fd, const uint8_t *bytes, size_t n)
{
	bool is_over = false;

	for (size_t done = 0; done < n && !is_over;) {
		ssize_t r = send(fd, bytes + done, n - done, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (r > 0)
			done += (size_t)r;
		else if (errno != EAGAIN)
			return;
		pull_answer(lab, fd, &is_over);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
	static struct lab *lab;
	bool is_over = false;
	unsigned turns = 0;
	int fd;

	if (!lab)
		lab = start_lab();
	lab->proxy.n_surveys = lab->proxy.n_answered = 0;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert(fd >= 0 && connect(fd, (struct sockaddr *)&lab->addr, lab->len) == 0);
	put_piece(lab, fd, bytes, n / 2);
	put_piece(lab, fd, bytes + n / 2, n - n / 2);
	(void)shutdown(fd, SHUT_WR);
	/* Whatever came, the end of the input is the end of the connection. */
	while (!is_over) {
		pull_answer(lab, fd, &is_over);
		assert(++turns < 100000);
	}
	(void)close(fd);
	for (int i = 0; i < 4; i++)
		assert(sl_loop_turn(lab->loop, 0) == 0);
	assert(sl_server_n_clients(lab->ctl->control) == 0);
	assert(sl_list_is_empty(&lab->ctl->control->calls));
	assert(sl_list_is_empty(&lab->ctl->waiting));
	assert(lab->ctl->control->unread == 0);
	return 0;
}
