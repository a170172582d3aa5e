/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/clock.h"
#include "base/str.h"
#include "ctl/ctl.h"
#include "ctl/server.h"
#include "fake_flows.h"
#include "fake_joined.h"
#include "fake_proxy.h"

#define PATIENCE_MS 5000

/* A control interface with sockets of its own and a data path that is a record. */
struct lab {
	struct sl_loop *loop;
	struct sl_proxy proxy;
	struct sl_ctl *ctl;
	struct sl_ctl_facts facts;
	struct sockaddr_un unix_addr; /* abstract: no file to clean up */
	socklen_t unix_len;
	struct sockaddr_in tcp_addr;
	/* what reached `request` */
	unsigned n_requests;
	enum sl_ctl_request requested;
	struct sl_ctl_change change; /* its texts are those below */
	char subject[512];
	char text[512];
	sl_ctl_reply_fn reply;
	void *reply_arg;
};

static void on_request(void *arg, enum sl_ctl_request what, const struct sl_ctl_change *change,
		       sl_ctl_reply_fn reply, void *reply_arg)
{
	struct lab *lab = arg;

	assert_int_equal(change != NULL, what == SL_CTL_CHANGE);
	if (change) {
		lab->change = *change;
		lab->change.subject = strcpy(lab->subject, change->subject);
		assert_true(change->text.n < sizeof(lab->text));
		(void)snprintf(lab->text, sizeof(lab->text), "%.*s", (int)change->text.n,
			       change->text.n ? change->text.p : "");
	}
	lab->n_requests++;
	lab->requested = what;
	lab->reply = reply;
	lab->reply_arg = reply_arg;
}

static int listen_unix(struct lab *lab)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	lab->unix_addr = (struct sockaddr_un){ .sun_family = AF_UNIX };
	lab->unix_len = sizeof(sa_family_t); /* the kernel picks an abstract name */
	assert_int_equal(bind(fd, (struct sockaddr *)&lab->unix_addr, lab->unix_len), 0);
	lab->unix_len = sizeof(lab->unix_addr);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&lab->unix_addr, &lab->unix_len), 0);
	assert_int_equal(listen(fd, 512), 0);
	return fd;
}

static int listen_tcp(struct lab *lab)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(lab->tcp_addr);

	assert_true(fd >= 0);
	lab->tcp_addr = (struct sockaddr_in){ .sin_family = AF_INET };
	lab->tcp_addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(fd, (struct sockaddr *)&lab->tcp_addr, len), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&lab->tcp_addr, &len), 0);
	assert_int_equal(listen(fd, 16), 0);
	return fd;
}

static int setup(void **state)
{
	struct lab *lab = calloc(1, sizeof(*lab));
	struct sl_ctl_options options;

	assert_non_null(lab);
	assert_int_equal(sl_loop_new(&lab->loop), 0);
	fake_init(&lab->proxy, lab->loop);
	lab->facts = (struct sl_ctl_facts){ .pid = 4711,
					    .started_ms = sl_clock_ms() - 1500,
					    .config_path = "/etc/sluice/sluice.yaml",
					    .last_reload_ok = true,
					    .ready = true,
					    .steering = "sk_lookup" };
	options = (struct sl_ctl_options){ .loop = lab->loop,
					   .proxy = &lab->proxy,
					   .control_fd = listen_unix(lab),
					   .http_fd = listen_tcp(lab),
					   .facts = &lab->facts,
					   .request = on_request,
					   .request_arg = lab };
	assert_int_equal(sl_ctl_new(&options, &lab->ctl), 0);
	*state = lab;
	return 0;
}

static int teardown(void **state)
{
	struct lab *lab = *state;

	sl_ctl_free(lab->ctl);
	(void)sl_loop_turn(lab->loop, 0);
	sl_loop_free(lab->loop);
	free(lab);
	return 0;
}

static int dial(struct lab *lab)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&lab->unix_addr, lab->unix_len), 0);
	assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
	return fd;
}

static int dial_tcp(struct lab *lab)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&lab->tcp_addr, sizeof(lab->tcp_addr)), 0);
	assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
	return fd;
}

static void turn(struct lab *lab)
{
	assert_int_equal(sl_loop_turn(lab->loop, 1), 0);
}

/* Sends everything while the loop runs; false when the server closed before it was through. */
static bool put(struct lab *lab, int fd, const void *bytes, size_t n)
{
	uint64_t until = sl_clock_ms() + PATIENCE_MS;
	size_t sent = 0;

	while (sent < n) {
		ssize_t r = send(fd, (const char *)bytes + sent, n - sent, MSG_NOSIGNAL);

		if (r > 0)
			sent += (size_t)r;
		else if (errno == EPIPE || errno == ECONNRESET)
			return false;
		turn(lab);
		assert_true(sl_clock_ms() < until);
	}
	return true;
}

static void puts_to(struct lab *lab, int fd, const char *text)
{
	assert_true(put(lab, fd, text, strlen(text)));
}

/* Where the first answer in `got` ends, or 0 when it is not complete. */
static size_t answer_len(const struct sl_str *got, bool head_only)
{
	const char *end = strstr(sl_str_text(got), "\r\n\r\n");
	const char *len = strstr(sl_str_text(got), "Content-Length: ");
	size_t n;

	if (!end || !len)
		return 0;
	n = (size_t)(end + 4 - got->p) + (head_only ? 0 : strtoul(len + 16, NULL, 10));
	return n <= got->len ? n : 0;
}

/* True at the end of the stream. */
static bool pull(struct lab *lab, int fd, struct sl_str *got)
{
	char chunk[65536];
	ssize_t n;

	turn(lab);
	n = recv(fd, chunk, sizeof(chunk), 0);
	if (n > 0)
		sl_str_add(got, chunk, (size_t)n);
	return n == 0 || (n < 0 && errno == ECONNRESET);
}

/* One answer as text; what follows it stays in `got`. */
static char *take_answer(struct lab *lab, int fd, struct sl_str *got, bool head_only)
{
	uint64_t until = sl_clock_ms() + PATIENCE_MS;
	char *text;
	size_t n;

	while (!(n = answer_len(got, head_only))) {
		assert_false(pull(lab, fd, got));
		assert_true(sl_clock_ms() < until);
	}
	text = strndup(got->p, n);
	assert_non_null(text);
	memmove(got->p, got->p + n, got->len - n + 1);
	got->len -= n;
	return text;
}

static char *ask(struct lab *lab, int fd, const char *method, const char *target)
{
	_cleanup_(sl_str_done) struct sl_str got = { 0 };
	char request[1024];
	char *text;

	(void)snprintf(request, sizeof(request), "%s %s HTTP/1.1\r\nHost: x\r\n\r\n", method,
		       target);
	puts_to(lab, fd, request);
	text = take_answer(lab, fd, &got, strcmp(method, "HEAD") == 0);
	assert_int_equal(got.len, 0);
	return text;
}

static unsigned status_of(const char *answer)
{
	unsigned status = 0;

	assert_int_equal(sscanf(answer, "HTTP/1.1 %u ", &status), 1);
	return status;
}

/* The parsed body of an answer with that status; every body on this socket is JSON or fails here.
 */
static json_t *body_of(const char *answer, unsigned status)
{
	const char *body = strstr(answer, "\r\n\r\n");
	json_error_t error;
	json_t *j;

	if (status_of(answer) != status)
		fail_msg("expected %u, got: %s", status, answer);
	j = json_loads(body + 4, 0, &error);
	if (!j)
		fail_msg("not JSON (%s): %s", error.text, body);
	return j;
}

static json_t *ask_json(struct lab *lab, const char *method, const char *target, unsigned status)
{
	_cleanup_fd_ int fd = dial(lab);
	_cleanup_free_ char *answer = ask(lab, fd, method, target);

	return body_of(answer, status);
}

static const char *text_at(const json_t *j, const char *key)
{
	const char *text = json_string_value(json_object_get(j, key));

	return text ? text : "(none)";
}

static json_int_t number_at(const json_t *j, const char *key)
{
	assert_true(json_is_number(json_object_get(j, key)));
	return (json_int_t)json_number_value(json_object_get(j, key));
}

static bool reads_eof(struct lab *lab, int fd)
{
	_cleanup_(sl_str_done) struct sl_str got = { 0 };
	uint64_t until = sl_clock_ms() + PATIENCE_MS;

	while (!pull(lab, fd, &got))
		if (sl_clock_ms() > until)
			return false;
	return true;
}

/* ---- documents ---- */

static void status_has_the_promised_fields(void **state)
{
	struct lab *lab = *state;
	json_t *j = ask_json(lab, "GET", "/v1/status", 200);
	json_t *route = json_array_get(json_object_get(j, "routes"), 0);
	json_t *target = json_array_get(json_object_get(route, "targets"), 0);
	json_t *tls;
	static const char *const engines[] = { "relay", "packet", "sockmap", "nftables" };
	static const char *const kernel[] = { "packet_flows", "sockmap_sockets", "nft_flows",
					      "orphans",      "missing",         "adopted" };

	assert_string_equal(text_at(j, "version"), SL_VERSION);
	assert_string_equal(text_at(j, "state"), "running");
	assert_int_equal(number_at(j, "pid"), 4711);
	assert_true(json_is_null(json_object_get(json_object_get(j, "processes"), "broker")));
	assert_int_equal(number_at(j, "uptime_s"), 1);
	assert_int_equal(number_at(j, "generation"), 3);
	assert_int_equal(number_at(json_object_get(j, "connections"), "active"), 3);
	assert_int_equal(number_at(json_object_get(j, "connections"), "total"), 10);
	assert_int_equal(number_at(json_object_get(j, "connections"), "rejected"), 2);
	for (size_t i = 0; i < SL_ARRAY_LEN(engines); i++) {
		json_t *e = json_object_get(json_object_get(j, "engines"), engines[i]);

		assert_int_equal(number_at(e, "active"), i == 0 ? 3 : 0);
		assert_int_equal(number_at(e, "total"), i == 0 ? 8 : 0);
	}
	for (size_t i = 0; i < SL_ARRAY_LEN(kernel); i++)
		assert_int_equal(number_at(json_object_get(j, "kernel"), kernel[i]), 0);
	assert_string_equal(text_at(route, "name"), "shop");
	assert_string_equal(text_at(route, "engine"), "auto");
	assert_int_equal(number_at(route, "bytes_down"), 4096);
	assert_string_equal(text_at(target, "address"), "10.0.1.11:443");
	assert_string_equal(text_at(target, "state"), "up");
	assert_int_equal(number_at(target, "active"), 2);
	route = json_object_get(json_object_get(j, "terminations"), "client");
	assert_int_equal(number_at(route, "normal"), 4);
	assert_int_equal(number_at(route, "econnreset"), 1);
	assert_int_equal(json_object_size(route), 2);
	assert_int_equal(number_at(json_object_get(j, "dns"), "failures"), 1);
	assert_true(json_is_false(json_object_get(j, "overloaded")));
	assert_true(json_is_true(json_object_get(json_object_get(j, "last_reload"), "ok")));
	assert_true(json_is_null(json_object_get(json_object_get(j, "last_reload"), "unix")));
	assert_string_equal(text_at(j, "steering"), "sk_lookup");
	tls = json_object_get(j, "tls");
	assert_int_equal(number_at(tls, "certificates"), 0);
	assert_int_equal(
		number_at(json_object_get(json_object_get(tls, "handshakes"), "client"), "ok"), 0);
	assert_true(json_is_true(json_object_get(json_object_get(tls, "ktls"), "available")));
	json_decref(j);
}

static void a_connection_has_exactly_the_promised_fields(void **state)
{
	static const char *const fields[] = {
		"id",
		"route",
		"state",
		"engine",
		"engine_reason",
		"client",
		"client_via",
		"backend",
		"sni",
		"alpn",
		"tls",
		"tls_cipher",
		"tls_resumed",
		"tls_ktls",
		"tls_ktls_why",
		"client_cert",
		"backend_tls",
		"backend_tls_cipher",
		"backend_tls_resumed",
		"backend_tls_ktls",
		"backend_tls_ktls_why",
		"backend_alpn",
		"backend_cert",
		"backend_verified",
		"age_s",
		"idle_s",
		"bytes_up",
		"bytes_down",
		"connect_ms",
		"moves",
		"moves_total",
	};
	struct lab *lab = *state;
	json_t *j = ask_json(lab, "GET", "/v1/conns", 200);
	json_t *c = json_array_get(j, 0);

	assert_int_equal(json_array_size(j), 3);
	assert_int_equal(json_object_size(c), SL_ARRAY_LEN(fields));
	for (size_t i = 0; i < SL_ARRAY_LEN(fields); i++)
		assert_non_null(json_object_get(c, fields[i]));
	assert_string_equal(text_at(c, "client"), "192.0.2.1:40000");
	assert_true(json_is_null(json_object_get(c, "client_via")));
	assert_true(json_is_null(json_object_get(c, "sni")));
	assert_int_equal(json_real_value(json_object_get(c, "connect_ms")) * 10, 15);
	c = json_array_get(j, 2); /* nothing is known of it yet */
	assert_true(json_is_null(json_object_get(c, "route")));
	assert_true(json_is_null(json_object_get(c, "engine")));
	assert_true(json_is_null(json_object_get(c, "backend")));
	assert_true(json_is_null(json_object_get(c, "connect_ms")));
	json_decref(j);
}

static void a_connection_tells_its_last_moves(void **state)
{
	static const char *const fields[] = { "from", "to", "reason", "age_s" };
	struct lab *lab = *state;
	json_t *j = ask_json(lab, "GET", "/v1/conns", 200);
	json_t *moves = json_object_get(json_array_get(j, 0), "moves");
	json_t *m = json_array_get(moves, 0);

	assert_int_equal(number_at(json_array_get(j, 0), "moves_total"), SL_MOVES_KEPT + 1);
	assert_int_equal(json_array_size(moves), SL_MOVES_KEPT);
	assert_int_equal(json_object_size(m), SL_ARRAY_LEN(fields));
	for (size_t i = 0; i < SL_ARRAY_LEN(fields); i++)
		assert_non_null(json_object_get(m, fields[i]));
	/* The oldest of those kept is the second one. */
	assert_string_equal(text_at(m, "from"), "packet");
	assert_string_equal(text_at(m, "to"), "relay");
	assert_string_equal(text_at(m, "reason"), "half_closed");
	assert_int_equal(json_number_value(json_object_get(m, "age_s")), 40);
	m = json_array_get(moves, SL_MOVES_KEPT - 1);
	assert_string_equal(text_at(m, "to"), "packet");
	assert_int_equal(json_number_value(json_object_get(m, "age_s")), 10);
	assert_int_equal(json_array_size(json_object_get(json_array_get(j, 1), "moves")), 0);
	assert_int_equal(number_at(json_array_get(j, 1), "moves_total"), 0);
	json_decref(j);
}

static void connections_are_filtered(void **state)
{
	struct lab *lab = *state;
	json_t *j = ask_json(lab, "GET", "/v1/conns?route=shop&limit=1", 200);

	assert_int_equal(json_array_size(j), 1);
	json_decref(j);
	j = ask_json(lab, "GET", "/v1/conns?id=9", 200);
	assert_int_equal(json_array_size(j), 1);
	assert_int_equal(number_at(json_array_get(j, 0), "id"), 9);
	json_decref(j);
}

static void the_other_documents_are_there(void **state)
{
	struct lab *lab = *state;
	json_t *j = ask_json(lab, "GET", "/v1/routes", 200);
	json_t *route = json_array_get(j, 0);

	assert_string_equal(json_string_value(json_array_get(json_object_get(route, "ports"), 0)),
			    "443");
	assert_string_equal(json_string_value(json_array_get(json_object_get(route, "ports"), 1)),
			    "[::1]:8000-8100");
	assert_int_equal(number_at(json_object_get(route, "rejected"), "limit_ip"), 1);
	json_decref(j);

	j = ask_json(lab, "GET", "/v1/engines", 200);
	route = json_object_get(j, "engines");
	assert_true(json_is_true(json_object_get(json_object_get(route, "relay"), "available")));
	assert_string_equal(text_at(json_object_get(route, "sockmap"), "reason"),
			    "off: no enabled route has engine: sockmap");
	assert_string_equal(text_at(json_object_get(route, "packet"), "reason_name"),
			    "no_privilege");
	json_decref(j);

	j = ask_json(lab, "GET", "/v1/certs", 200);
	assert_int_equal(json_array_size(json_object_get(j, "certificates")), 0);
	json_decref(j);
	json_decref(ask_json(lab, "GET", "/v1/certs?name=nothing.example.com", 404));
	json_decref(ask_json(lab, "GET", "/v1/certs?name=", 400));

	j = ask_json(lab, "GET", "/v1/flows", 200);
	assert_int_equal(json_array_size(json_object_get(j, "flows")), 0);
	assert_true(json_is_string(json_object_get(j, "reason")));
	json_decref(j);

	j = ask_json(lab, "GET", "/v1/reasons", 200);
	assert_int_equal(json_array_size(json_object_get(j, "terminations")), SL_REASON_COUNT_ - 1);
	assert_int_equal(json_array_size(json_object_get(j, "engines")), SL_WHY_COUNT_ - 1);
	json_decref(j);

	j = ask_json(lab, "GET", "/v1/version", 200);
	assert_string_equal(text_at(j, "version"), SL_VERSION);
	json_decref(j);
	j = ask_json(lab, "GET", "/v1", 200);
	assert_true(json_array_size(json_object_get(j, "endpoints")) > 10);
	json_decref(j);
}

/* ---- the kernel's side ---- */

static void status_says_what_the_broker_says(void **state)
{
	struct lab *lab = *state;
	json_t *j, *kernel, *packet, *names;

	fake_packet_on(&lab->proxy);
	lab->proxy.kernel.status.orphans = 6;
	lab->proxy.kernel.status.dropped = 7;
	lab->proxy.kernel.status.repaired = 8;
	lab->proxy.kernel.status.n_failed = 1;
	strcpy(lab->proxy.kernel.status.interfaces, "eth0 ve\"1 ");
	j = ask_json(lab, "GET", "/v1/status", 200);
	kernel = json_object_get(j, "kernel");
	packet = json_object_get(j, "packet");
	assert_int_equal(number_at(kernel, "packet_flows"), 3);
	assert_int_equal(number_at(kernel, "orphans"), 6);
	assert_int_equal(number_at(kernel, "adopted"), 4);
	assert_int_equal(number_at(kernel, "dropped"), 7);
	assert_int_equal(number_at(kernel, "repaired"), 8);
	assert_true(json_is_true(json_object_get(packet, "available")));
	assert_string_equal(text_at(packet, "reason"), "tcx on 3 interfaces");
	assert_true(json_is_null(json_object_get(packet, "reason_name")));
	assert_int_equal(number_at(packet, "interfaces"), 3);
	names = json_object_get(packet, "interface_names");
	assert_int_equal(json_array_size(names), 2); /* of which there was room to tell */
	assert_string_equal(json_string_value(json_array_get(names, 0)), "eth0");
	assert_string_equal(json_string_value(json_array_get(names, 1)), "ve\"1");
	assert_int_equal(number_at(packet, "interfaces_failed"), 1);
	assert_int_equal(number_at(packet, "flows"), 3);
	assert_int_equal(number_at(packet, "held"), 2);
	assert_int_equal(number_at(packet, "max_flows"), 262144);
	assert_string_equal(text_at(packet, "ports"), "40000-59999");
	json_decref(j);
}

static json_int_t packet_flows(struct lab *lab)
{
	json_t *j = ask_json(lab, "GET", "/v1/status", 200);
	json_int_t n = number_at(json_object_get(j, "kernel"), "packet_flows");

	assert_int_equal(number_at(json_object_get(j, "packet"), "flows"), n);
	json_decref(j);
	return n;
}

/* What the broker says is a moment old; what has no record yet it knows alone. */
static void flows_are_counted_up_to_the_moment(void **state)
{
	struct lab *lab = *state;

	fake_packet_on(&lab->proxy);
	lab->proxy.kernel.status.n_live = 5;
	lab->proxy.in_kernel = 6;
	assert_int_equal(packet_flows(lab), 6);
	lab->proxy.in_kernel = 2;
	assert_int_equal(packet_flows(lab), 2);
	lab->proxy.kernel.status.orphans = 3;
	assert_int_equal(packet_flows(lab), 5);
	lab->proxy.in_kernel = 7;
	assert_int_equal(packet_flows(lab), 7);
}

static void is_off(struct lab *lab, const char *name, const char *text)
{
	json_t *j = ask_json(lab, "GET", "/v1/engines", 200);
	json_t *packet = json_object_get(json_object_get(j, "engines"), "packet");

	assert_true(json_is_false(json_object_get(packet, "available")));
	assert_string_equal(text_at(packet, "reason_name"), name);
	assert_string_equal(text_at(packet, "reason"), text);
	json_decref(j);
	j = ask_json(lab, "GET", "/v1/flows", 200);
	assert_string_equal(text_at(j, "reason"), text);
	json_decref(j);
}

static void sockmap_is(struct lab *lab, bool available, const char *reason, const char *name)
{
	json_t *engines = ask_json(lab, "GET", "/v1/engines", 200);
	json_t *status = ask_json(lab, "GET", "/v1/status", 200);
	json_t *j = json_object_get(json_object_get(engines, "engines"), "sockmap");

	assert_int_equal(json_is_true(json_object_get(j, "available")), available);
	assert_string_equal(text_at(j, "reason"), reason);
	if (name)
		assert_string_equal(text_at(j, "reason_name"), name);
	else
		assert_true(json_is_null(json_object_get(j, "reason_name")));
	/* The status says the same, but for what the engine has carried. */
	(void)json_object_del(j, "name");
	(void)json_object_del(j, "active");
	(void)json_object_del(j, "total");
	assert_true(json_equal(j, json_object_get(status, "sockmap")));
	json_decref(engines);
	json_decref(status);
}

static void status_says_what_sockmap_does(void **state)
{
	static const char *const fields[] = { "available", "reason",  "reason_name",
					      "hint",      "sockets", "orphans",
					      "repaired",  "dropped", "backlog" };
	struct lab *lab = *state;
	struct sl_kernel_view *k = &lab->proxy.kernel;
	json_t *j;
	json_t *s;

	sockmap_is(lab, false, "off: no enabled route has engine: sockmap", "configured");
	lab->proxy.route[1].engine = SL_CHOICE_SOCKMAP;
	sockmap_is(lab, false, "off: the broker process is being started", "no_privilege");
	lab->facts.no_broker = "off: not started as root";
	sockmap_is(lab, false, "off: not started as root", "no_privilege");
	lab->facts.no_broker = "";
	k->has_sockmap = true;
	k->sockmap = (struct sl_broker_sockmap_status){ .why = SL_WHY_SELF_TEST_FAILED,
							.text = "off: the half-close test" };
	sockmap_is(lab, false, "off: the half-close test", "self_test_failed");
	k->sockmap = (struct sl_broker_sockmap_status){ .is_on = 1,
							.n_sockets = 6,
							.n_orphans = 2,
							.repaired = 3,
							.dropped = 1,
							.text = "on, 6 sockets" };
	k->sockmap_backlog = 1048576;
	sockmap_is(lab, true, "on, 6 sockets", NULL);
	j = ask_json(lab, "GET", "/v1/status", 200);
	s = json_object_get(j, "sockmap");
	assert_int_equal(json_object_size(s), SL_ARRAY_LEN(fields));
	for (size_t i = 0; i < SL_ARRAY_LEN(fields); i++)
		assert_non_null(json_object_get(s, fields[i]));
	assert_int_equal(number_at(s, "sockets"), 6);
	assert_int_equal(number_at(s, "orphans"), 2);
	assert_int_equal(number_at(s, "repaired"), 3);
	assert_int_equal(number_at(s, "dropped"), 1);
	assert_int_equal(number_at(s, "backlog"), 1048576);
	assert_true(json_is_null(json_object_get(s, "hint")));
	assert_int_equal(number_at(json_object_get(j, "kernel"), "sockmap_sockets"), 6);
	json_decref(j);
	/* A route that is not enabled wants nothing, whatever is in the kernel. */
	lab->proxy.route[1].enabled = false;
	sockmap_is(lab, false, "off: no enabled route has engine: sockmap", "configured");
}

/* Who knows it says it: the configuration, the broker, the supervisor that has none. */
static void status_says_what_nat_does(void **state)
{
	struct lab *lab = *state;
	json_t *j, *nat;

	lab->proxy.route[0].engine = SL_CHOICE_NFTABLES;
	lab->proxy.route[0].is_udp = true;
	j = ask_json(lab, "GET", "/v1/status", 200);
	nat = json_object_get(j, "nftables");
	assert_true(json_is_false(json_object_get(nat, "available")));
	assert_string_equal(text_at(nat, "reason"), "off: the broker process is being started");
	assert_true(json_is_string(json_object_get(nat, "hint")));
	assert_true(json_is_false(json_object_get(nat, "forwarding")));
	json_decref(j);
	lab->proxy.kernel.nat_stays = true; /* a broker was there, and had put the rules into it */
	j = ask_json(lab, "GET", "/v1/status", 200);
	nat = json_object_get(j, "nftables");
	assert_true(json_is_false(json_object_get(nat, "available")));
	assert_true(json_is_true(json_object_get(nat, "forwarding")));
	assert_non_null(strstr(text_at(nat, "reason"), "rules and connections stay"));
	json_decref(j);
	lab->proxy.kernel.nat_stays = false;
	fake_nat_on(&lab->proxy);
	j = ask_json(lab, "GET", "/v1/status", 200);
	nat = json_object_get(j, "nftables");
	assert_int_equal(number_at(json_object_get(j, "kernel"), "nft_flows"), 11);
	assert_true(json_is_true(json_object_get(nat, "available")));
	assert_true(json_is_true(json_object_get(nat, "forwarding")));
	assert_string_equal(text_at(nat, "reason"), "1 route in table inet sluice");
	assert_true(json_is_null(json_object_get(nat, "hint")));
	assert_int_equal(number_at(nat, "routes"), 1);
	assert_int_equal(number_at(nat, "flows"), 12);
	assert_int_equal(number_at(nat, "adopted"), 2);
	assert_int_equal(number_at(nat, "repairs"), 3);
	assert_int_equal(number_at(nat, "resyncs"), 4);
	assert_int_equal(number_at(nat, "conntrack_entries"), 500);
	assert_int_equal(number_at(nat, "conntrack_limit"), 65536);
	assert_int_equal(json_array_size(json_object_get(nat, "worries")), 0);
	json_decref(j);
	lab->proxy.kernel.nat_worries = "chain a drops \"it\": do this\nanother: do that\n";
	j = ask_json(lab, "GET", "/v1/status", 200);
	nat = json_object_get(json_object_get(j, "nftables"), "worries");
	assert_int_equal(json_array_size(nat), 2);
	assert_string_equal(json_string_value(json_array_get(nat, 0)),
			    "chain a drops \"it\": do this");
	assert_string_equal(json_string_value(json_array_get(nat, 1)), "another: do that");
	json_decref(j);
	j = ask_json(lab, "GET", "/v1/routes", 200);
	assert_string_equal(text_at(json_array_get(j, 0), "protocol"), "udp");
	assert_string_equal(text_at(json_array_get(j, 0), "engine"), "nftables");
	assert_string_equal(text_at(json_array_get(j, 1), "protocol"), "tcp");
	json_decref(j);
}

static void an_engine_that_is_off_says_why(void **state)
{
	struct lab *lab = *state;
	struct sl_kernel_view *k = &lab->proxy.kernel;

	is_off(lab, "no_privilege", "off: the broker process is being started");
	lab->facts.no_broker = "off: not started as root";
	is_off(lab, "no_privilege", "off: not started as root");
	lab->facts.no_broker = "";
	k->off = SL_WHY_NOT_LINUX_SUPPORTED;
	strcpy(k->status.text, "off: the kernel does not take the programs");
	is_off(lab, "not_linux_supported", "off: the kernel does not take the programs");
	/* What a broker said that is no more is not repeated. */
	k->off = SL_WHY_NO_PRIVILEGE;
	k->status.is_on = 1;
	strcpy(k->status.text, "tcx on 3 interfaces");
	is_off(lab, "no_privilege", "off: the broker process is being started");
	fake_packet_on(&lab->proxy);
	lab->proxy.conf->global.packet.hook = SL_HOOK_CHOICE_OFF;
	is_off(lab, "configured", "off: packet.hook is off");
	lab->proxy.conf->global.packet.hook = SL_HOOK_CHOICE_AUTO;
}

static const struct fake_tuple tuple = { "192.0.2.7:50122", "10.0.0.1:443", "10.0.0.1:41000",
					 "10.0.0.11:8443" };

static bool with_flows(struct lab *lab, struct fake_flows *maps)
{
	struct sl_packet_counts counts = { .forwarded_tc = 30 };

	if (!fake_flows_open(maps, 4096))
		return false;
	fake_packet_on(&lab->proxy);
	fake_route(maps, 3, "shop");
	fake_counts(maps, &counts);
	lab->proxy.kernel.flows_fd = maps->flows_fd;
	lab->proxy.kernel.routes_fd = maps->routes_fd;
	lab->proxy.kernel.counters_fd = maps->counters_fd;
	return true;
}

/* So many, each of its own client and source port. */
static void put_flows(const struct fake_flows *maps, unsigned n)
{
	struct sl_packet_flow f[2] = { { .route_id = 3, .state = SL_PACKET_ACTIVE } };
	char client[32];
	char back[32];

	for (unsigned i = 0; i < n; i++) {
		const struct fake_tuple t = { client, tuple.front, back, tuple.backend };

		f[0].conn_id = 71 + i;
		f[1] = f[0];
		f[0].bytes = 1000;
		f[1].bytes = 2000;
		f[1].packets = 20;
		f[1].relayed_bytes = 6;
		f[1].drops = 2;
		f[1].ifindex = 5;
		(void)snprintf(client, sizeof(client), "192.0.2.7:%u", 50122 + i);
		(void)snprintf(back, sizeof(back), "10.0.0.1:%u", 41000 + i);
		fake_flow(maps, &t, FAKE_BOTH, f);
	}
}

static void a_flow_has_exactly_the_promised_fields(void **state)
{
	static const char *const fields[] = {
		"id",    "route",  "engine",  "state", "complete", "client", "client_via", "peer",
		"front", "source", "backend", "age_s", "idle_s",   "up",     "down",
	};
	static const char *const half[] = { "bytes", "packets", "relayed_bytes", "drops",
					    "ifindex" };
	struct lab *lab = *state;
	_cleanup_(fake_flows_close) struct fake_flows maps = { -1, -1, -1 };
	json_t *j, *f;

	if (!with_flows(lab, &maps))
		skip();
	put_flows(&maps, 1);
	lab->proxy.in_nat = 9;
	j = ask_json(lab, "GET", "/v1/flows", 200);
	assert_int_equal(json_array_size(json_object_get(j, "flows")), 1);
	assert_true(json_is_null(json_object_get(j, "reason")));
	assert_int_equal(number_at(j, "nft_flows"), 9);
	assert_true(json_is_false(json_object_get(j, "more")));
	assert_int_equal(number_at(json_object_get(j, "outcomes"), "forwarded_tc"),
			 30 * libbpf_num_possible_cpus());
	assert_int_equal(number_at(json_object_get(j, "outcomes"), "mtu_failed"), 0);
	f = json_array_get(json_object_get(j, "flows"), 0);
	assert_int_equal(json_object_size(f), SL_ARRAY_LEN(fields));
	for (size_t i = 0; i < SL_ARRAY_LEN(fields); i++)
		assert_non_null(json_object_get(f, fields[i]));
	assert_int_equal(number_at(f, "id"), 71);
	assert_string_equal(text_at(f, "route"), "shop");
	assert_string_equal(text_at(f, "engine"), "packet");
	assert_string_equal(text_at(f, "state"), "active");
	assert_true(json_is_true(json_object_get(f, "complete")));
	assert_true(json_is_null(json_object_get(f, "client")));
	assert_string_equal(text_at(f, "peer"), tuple.client);
	assert_string_equal(text_at(f, "front"), tuple.front);
	assert_string_equal(text_at(f, "source"), tuple.back);
	assert_string_equal(text_at(f, "backend"), tuple.backend);
	assert_int_equal(number_at(json_object_get(f, "up"), "bytes"), 1000);
	f = json_object_get(f, "down");
	assert_int_equal(json_object_size(f), SL_ARRAY_LEN(half));
	for (size_t i = 0; i < SL_ARRAY_LEN(half); i++)
		assert_int_equal(number_at(f, half[i]), ((int[]){ 2000, 20, 6, 2, 5 })[i]);
	json_decref(j);
}

/* Pair 2 is on, 4500 given back, 4501 has no record and half its entries, 4502 is being freed. */
static bool with_joined(struct lab *lab, struct fake_joined *maps)
{
	struct sl_sockmap_slot s[2] = { { .state = SL_SOCKMAP_FAST,
					  .redirected = 100,
					  .packets = 3,
					  .max_waiting = 60,
					  .limit = 4096 },
					{ .state = SL_SOCKMAP_SPILLED,
					  .why = SL_SOCKMAP_LIMIT,
					  .redirected = 200,
					  .passed = 50,
					  .packets = 4,
					  .spills = 2,
					  .max_waiting = 5000,
					  .limit = 4096 } };

	if (!fake_joined_open(maps, 5000))
		return false;
	lab->proxy.kernel.sockmap_maps = maps->view;
	lab->proxy.row[1].engine = SL_ENGINE_SOCKMAP;
	for (uint64_t id = 7; id < 10; id++)
		for (uint32_t side = 0; side < 2; side++)
			if (id < 9 || side == 0)
				fake_joined_entry(maps, id == 9 ? 99 : id, side);
	s[0].conn_id = s[1].conn_id = 8;
	fake_join(maps, 2, s);
	s[0].conn_id = s[1].conn_id = 7;
	fake_join(maps, 4500, s);
	s[0].conn_id = s[1].conn_id = 99;
	s[0].last_ns = s[1].last_ns = 1;
	fake_join(maps, 4501, s);
	s[0].state = SL_SOCKMAP_FREE;
	fake_join(maps, 4502, s);
	return true;
}

static void a_joined_connection_has_exactly_the_promised_fields(void **state)
{
	static const char *const fields[] = {
		"id",         "route",   "engine", "state",  "complete", "client",
		"client_via", "backend", "age_s",  "idle_s", "up",       "down",
	};
	static const char *const half[] = {
		"bytes", "packets",     "passed_bytes", "spills",
		"limit", "max_waiting", "spilled",      "spill_reason"
	};
	struct lab *lab = *state;
	_cleanup_(fake_joined_close) struct fake_joined maps = { -1, -1, NULL };
	json_t *j, *flows, *f, *down;

	if (!with_joined(lab, &maps))
		skip();
	j = ask_json(lab, "GET", "/v1/flows", 200);
	flows = json_object_get(j, "flows");
	assert_int_equal(json_array_size(flows), 3);
	assert_string_equal(text_at(j, "sockmap_reason"),
			    "off: no enabled route has engine: sockmap");
	assert_int_equal(number_at(json_object_get(j, "sockmap_outcomes"), "trim_failed"), 0);
	f = json_array_get(flows, 0);
	assert_int_equal(json_object_size(f), SL_ARRAY_LEN(fields));
	for (size_t i = 0; i < SL_ARRAY_LEN(fields); i++)
		assert_non_null(json_object_get(f, fields[i]));
	assert_int_equal(number_at(f, "id"), 8);
	assert_string_equal(text_at(f, "route"), "shop");
	assert_string_equal(text_at(f, "engine"), "sockmap");
	assert_string_equal(text_at(f, "state"), "spilled");
	assert_true(json_is_true(json_object_get(f, "complete")));
	assert_string_equal(text_at(f, "client"), "192.0.2.200:50000");
	assert_string_equal(text_at(f, "client_via"), "198.51.100.7:1234");
	assert_string_equal(text_at(f, "backend"), "10.0.1.12:443");
	assert_int_equal((int)(json_number_value(json_object_get(f, "idle_s")) * 1000), 250);
	down = json_object_get(f, "down");
	assert_int_equal(json_object_size(down), SL_ARRAY_LEN(half));
	for (size_t i = 0; i < 6; i++)
		assert_int_equal(number_at(down, half[i]),
				 ((int[]){ 200, 4, 50, 2, 4096, 5000 })[i]);
	assert_true(json_is_true(json_object_get(down, "spilled")));
	assert_string_equal(text_at(down, "spill_reason"), "limit");
	assert_true(json_is_null(json_object_get(json_object_get(f, "up"), "spill_reason")));
	assert_string_equal(text_at(json_array_get(flows, 1), "state"), "given_back");
	f = json_array_get(flows, 2);
	assert_int_equal(number_at(f, "id"), 99);
	assert_string_equal(text_at(f, "state"), "spilled");
	assert_true(json_is_false(json_object_get(f, "complete")));
	assert_true(json_is_null(json_object_get(f, "route")));
	assert_true(json_is_null(json_object_get(f, "client")));
	assert_true(json_is_null(json_object_get(f, "age_s")));
	assert_true(json_number_value(json_object_get(f, "idle_s")) > 1);
	json_decref(j);
}

static json_int_t n_flows(struct lab *lab, const char *target, bool more)
{
	json_t *j = ask_json(lab, "GET", target, 200);
	json_int_t n = (json_int_t)json_array_size(json_object_get(j, "flows"));

	assert_int_equal(json_is_true(json_object_get(j, "more")), more);
	json_decref(j);
	return n;
}

static void joined_connections_without_an_answer_of_the_records(void **state)
{
	struct lab *lab = *state;
	_cleanup_(fake_joined_close) struct fake_joined maps = { -1, -1, NULL };
	size_t n = lab->proxy.n_surveys;

	if (!with_joined(lab, &maps))
		skip();
	/* Where nothing is joined nobody is asked. */
	assert_int_equal(n_flows(lab, "/v1/flows?id=5", false), 0);
	assert_int_equal(lab->proxy.n_surveys, n);
	assert_int_equal(n_flows(lab, "/v1/flows?id=99", false), 1);
	assert_int_equal(lab->proxy.survey[n].filter.id, 99);
	assert_true(lab->proxy.survey[n].filter.is_joined);
	assert_int_equal(n_flows(lab, "/v1/flows?limit=2", true), 2);
	assert_int_equal(n_flows(lab, "/v1/flows?limit=3", false), 3);
	assert_int_equal(n_flows(lab, "/v1/flows?limit=0", false), 3);
	lab->proxy.no_memory = true;
	json_decref(ask_json(lab, "GET", "/v1/flows", 500));
	lab->proxy.no_memory = false;
}

static void flows_are_listed_as_far_as_asked(void **state)
{
	struct lab *lab = *state;
	_cleanup_(fake_flows_close) struct fake_flows maps = { -1, -1, -1 };
	json_t *j;

	if (!with_flows(lab, &maps))
		skip();
	put_flows(&maps, 700); /* several slices */
	j = ask_json(lab, "GET", "/v1/flows?limit=0", 200);
	assert_int_equal(json_array_size(json_object_get(j, "flows")), 700);
	assert_true(json_is_false(json_object_get(j, "more")));
	json_decref(j);
	j = ask_json(lab, "GET", "/v1/flows?limit=9", 200);
	assert_int_equal(json_array_size(json_object_get(j, "flows")), 9);
	assert_true(json_is_true(json_object_get(j, "more")));
	json_decref(j);
	j = ask_json(lab, "GET", "/v1/flows?id=500&limit=1", 200);
	assert_int_equal(json_array_size(json_object_get(j, "flows")), 1);
	assert_int_equal(number_at(json_array_get(json_object_get(j, "flows"), 0), "id"), 500);
	json_decref(j);
	j = ask_json(lab, "GET", "/v1/flows?id=771", 200);
	assert_int_equal(json_array_size(json_object_get(j, "flows")), 0);
	json_decref(j);
	j = ask_json(lab, "GET", "/v1/flows?limit=x", 400);
	json_decref(j);
	/* A table that cannot be read is not an empty one. */
	lab->proxy.kernel.flows_fd = STDIN_FILENO;
	j = ask_json(lab, "GET", "/v1/flows", 500);
	assert_non_null(strstr(text_at(j, "error"), "cannot be read"));
	json_decref(j);
}

static void never(void *arg)
{
	(void)arg;
	fail();
}

static void flows_are_flushed_by_the_broker(void **state)
{
	struct lab *lab = *state;
	json_t *j = ask_json(lab, "DELETE", "/v1/flows", 503);

	assert_non_null(strstr(text_at(j, "error"), "no broker"));
	json_decref(j);
	lab->proxy.kernel.is_linked = true;
	j = ask_json(lab, "DELETE", "/v1/flows", 503);
	assert_string_equal(text_at(j, "error"), "the packet engine is off, and has no table");
	json_decref(j);
	fake_packet_on(&lab->proxy);
	j = ask_json(lab, "DELETE", "/v1/flows", 200);
	assert_true(json_is_true(json_object_get(j, "ok")));
	assert_int_equal(number_at(j, "flows"), 3);
	assert_null(strchr(text_at(j, "text"), '\n'));
	assert_int_equal(lab->proxy.n_flushes, 1);
	json_decref(j);
	lab->proxy.flushed = never; /* another one's, not answered yet */
	j = ask_json(lab, "DELETE", "/v1/flows", 503);
	assert_non_null(strstr(text_at(j, "error"), "already"));
	json_decref(j);
}

static void explain_passes_the_question_on(void **state)
{
	struct lab *lab = *state;
	json_t *j = ask_json(lab, "GET", "/v1/explain?port=443&client=198.51.100.7&name=a.b", 200);
	char text[SL_ADDR_TEXT];

	assert_string_equal(sl_addr_format(&lab->proxy.asked.local, text), "-");
	assert_int_equal(lab->proxy.asked.port, 443);
	assert_string_equal(sl_addr_format_ip(&lab->proxy.asked.client, text), "198.51.100.7");
	assert_string_equal(text_at(j, "route"), "shop");
	assert_string_equal(text_at(j, "verdict"), "accepted");
	assert_string_equal(text_at(j, "engine"), "relay");
	assert_string_equal(text_at(j, "engine_reason"), "no_privilege");
	assert_string_equal(text_at(j, "target"), "10.0.1.11:443");
	assert_true(json_is_true(json_object_get(j, "listening")));
	json_decref(j);

	lab->proxy.explanation =
		(struct sl_explanation){ .verdict = SL_REASON_NO_ROUTE, .engine = SL_ENGINE_NONE };
	j = ask_json(lab, "GET", "/v1/explain?port=1&address=::1", 200);
	assert_string_equal(sl_addr_format(&lab->proxy.asked.local, text), "[::1]:0");
	assert_int_equal(lab->proxy.asked.port, 1);
	assert_string_equal(text_at(j, "verdict"), "no_route");
	assert_true(json_is_null(json_object_get(j, "route")));
	json_decref(j);
	lab->proxy.conf = NULL;
	json_decref(ask_json(lab, "GET", "/v1/explain?port=1", 503));
}

/* No connection begins in the kernel. */
static void explain_says_when_it_moves(void **state)
{
	struct lab *lab = *state;
	struct sl_conf_packet *conf = &lab->proxy.conf->global.packet;
	json_t *j;

	lab->proxy.explanation.engine = SL_ENGINE_PACKET;
	lab->proxy.explanation.engine_reason = SL_WHY_ELIGIBLE;
	conf->after_bytes = 65536;
	conf->after_age_ms = 1500;
	j = ask_json(lab, "GET", "/v1/explain?port=443", 200);
	assert_non_null(strstr(text_at(j, "engine_text"),
			       "; it begins on relay and moves after 65536 bytes "
			       "(packet.after_bytes) or 1.5 s (after_age)"));
	json_decref(j);
	conf->after_bytes = 0;
	j = ask_json(lab, "GET", "/v1/explain?port=443", 200);
	assert_non_null(strstr(text_at(j, "engine_text"), "moves at the first quiet moment"));
	json_decref(j);
	conf->after_age_ms = 0;
}

static void explain_lists_the_engines(void **state)
{
	struct lab *lab = *state;
	json_t *j = ask_json(lab, "GET", "/v1/explain?port=443", 200);
	json_t *e;

	assert_int_equal(json_array_size(json_object_get(j, "engines")), 2);
	e = json_array_get(json_object_get(j, "engines"), 0);
	assert_int_equal(json_object_size(e), 3);
	assert_string_equal(text_at(e, "engine"), "packet");
	assert_true(json_is_false(json_object_get(e, "can_carry")));
	assert_string_equal(text_at(e, "reason"), "no_privilege");
	e = json_array_get(json_object_get(j, "engines"), 1);
	assert_string_equal(text_at(e, "engine"), text_at(j, "engine"));
	assert_true(json_is_true(json_object_get(e, "can_carry")));
	assert_string_equal(text_at(e, "reason"), text_at(j, "engine_reason"));
	json_decref(j);
	lab->proxy.explanation.choice.n = 0; /* refused: there is none */
	j = ask_json(lab, "GET", "/v1/explain?port=443", 200);
	assert_int_equal(json_array_size(json_object_get(j, "engines")), 0);
	json_decref(j);
}

static void explain_shows_who_lost_and_why(void **state)
{
	struct lab *lab = *state;
	const json_t *c;
	json_t *j;

	lab->proxy.explanation.access = SL_ACCESS_ROUTE_DENY;
	lab->proxy.explanation.verdict = SL_REASON_ROUTE_IP_BLOCKED;
	lab->proxy.explanation.needs_hello = true;
	lab->proxy.explanation.name_error = "a label is empty";
	j = ask_json(lab, "GET", "/v1/explain?port=443&name=a..b&tls=1.3,1.2&alpn=h2,http/1.1",
		     200);
	assert_string_equal(lab->proxy.asked.name, "a..b");
	assert_string_equal(lab->proxy.asked.alpn, "h2,http/1.1");
	assert_int_equal(lab->proxy.asked.tls_versions, SL_TLS_1_2 | SL_TLS_1_3);
	assert_string_equal(text_at(j, "tls"), "1.3,1.2");
	assert_string_equal(text_at(j, "note"), "a label is empty");
	assert_string_equal(text_at(j, "target_why"), "round robin: its turn is next");
	assert_true(json_is_true(json_object_get(j, "needs_hello")));
	assert_true(json_is_false(json_object_get(j, "accept_proxy")));
	assert_string_equal(text_at(json_object_get(j, "security"), "verdict"), "denied");
	assert_string_equal(text_at(json_object_get(j, "security"), "rule"), "route_deny");
	c = json_array_get(json_object_get(j, "candidates"), 0);
	assert_string_equal(text_at(c, "route"), "shop");
	assert_string_equal(text_at(c, "result"), "won");
	c = json_array_get(json_object_get(j, "candidates"), 1);
	assert_string_equal(text_at(c, "route"), "mail");
	assert_string_equal(text_at(c, "result"), "lost");
	assert_string_equal(text_at(c, "why"), sl_match_verdict_name(SL_MATCH_CLIENT));
	json_decref(j);
}

static void one_route_is_shown_alone(void **state)
{
	struct lab *lab = *state;
	json_t *j = ask_json(lab, "GET", "/v1/routes/shop", 200);
	const json_t *t = json_array_get(json_object_get(j, "targets"), 0);
	const json_t *clients = json_object_get(j, "clients");

	assert_string_equal(text_at(j, "name"), "shop");
	assert_string_equal(json_string_value(json_array_get(json_object_get(j, "domains"), 1)),
			    "*.shop.example.com");
	assert_string_equal(json_string_value(json_array_get(clients, 0)), "10.0.0.0/8");
	assert_string_equal(json_string_value(json_array_get(clients, 1)), "192.0.2.1");
	assert_string_equal(json_string_value(json_array_get(clients, 2)), "192.0.2.16-192.0.2.25");
	assert_string_equal(text_at(json_object_get(j, "health"), "every"), "2s");
	assert_int_equal(json_integer_value(json_object_get(t, "weight")), 2);
	t = json_array_get(json_object_get(j, "targets"), 1);
	assert_true(json_is_true(json_object_get(t, "backup")));
	assert_string_equal(text_at(t, "last_error"), "connection refused");
	json_decref(j);
	j = ask_json(lab, "GET", "/v1/routes/mail", 200);
	assert_string_equal(text_at(j, "name"), "mail");
	assert_true(json_is_null(json_object_get(j, "clients")));
	assert_true(json_is_null(json_object_get(j, "health")));
	json_decref(j);
	json_decref(ask_json(lab, "GET", "/v1/routes/nosuch", 404));
	json_decref(ask_json(lab, "GET", "/v1/routes/no%20such", 400));
	json_decref(ask_json(lab, "GET", "/v1/routes/", 404));
	json_decref(ask_json(lab, "GET", "/v1/routes/shop/nosuch", 404));
}

static void conns_show_what_the_hello_said(void **state)
{
	struct lab *lab = *state;
	json_t *j = ask_json(lab, "GET", "/v1/conns", 200);
	const json_t *c = json_array_get(j, 0);

	assert_true(json_is_null(json_object_get(c, "sni")));
	assert_true(json_is_null(json_object_get(c, "alpn")));
	assert_true(json_is_null(json_object_get(c, "tls")));
	assert_true(json_is_null(json_object_get(c, "client_via")));
	c = json_array_get(j, 1);
	assert_string_equal(text_at(c, "sni"), "shop.example.com");
	assert_string_equal(text_at(c, "alpn"), "h2");
	assert_string_equal(text_at(c, "tls"), "1.3,1.2");
	assert_string_equal(text_at(c, "client_via"), "198.51.100.7:1234");
	json_decref(j);
}

static size_t n_conns(struct lab *lab, const char *target)
{
	json_t *j = ask_json(lab, "GET", target, 200);
	size_t n = json_array_size(j);

	json_decref(j);
	return n;
}

static void filters_combine(void **state)
{
	struct lab *lab = *state;

	assert_int_equal(n_conns(lab, "/v1/conns?client=192.0.2.0/25"), 2);
	assert_int_equal(n_conns(lab, "/v1/conns?client=192.0.2.0/25&route=shop"), 1);
	assert_int_equal(n_conns(lab, "/v1/conns?target=10.0.1.12:443"), 1);
	assert_int_equal(n_conns(lab, "/v1/conns?target=10.0.1.12:443&client=192.0.2.1"), 0);
	assert_int_equal(n_conns(lab, "/v1/conns?client=192.0.2.100-192.0.2.220&id=8"), 1);
	json_decref(ask_json(lab, "POST", "/v1/kill?client=192.0.2.200", 200));
	assert_int_equal(lab->proxy.killed, 1);
	json_decref(ask_json(lab, "POST", "/v1/kill?target=10.0.1.11:443&route=shop", 200));
	assert_int_equal(lab->proxy.killed, 2);
	json_decref(ask_json(lab, "POST", "/v1/kill?all=1&route=shop", 400));
	json_decref(ask_json(lab, "POST", "/v1/kill?all=0", 400));
	json_decref(ask_json(lab, "POST", "/v1/kill?client=", 400));
	assert_int_equal(lab->proxy.killed, 2);
}

/* ---- changes ---- */

/* Sends a request that the supervisor has to answer, and answers it. */
static json_t *ask_change(struct lab *lab, const char *method, const char *target, const char *body,
			  enum sl_ctl_result result, const char *text, unsigned want_status)
{
	_cleanup_fd_ int fd = dial(lab);
	_cleanup_(sl_str_done) struct sl_str request = { 0 };
	_cleanup_(sl_str_done) struct sl_str got = { 0 };
	unsigned before = lab->n_requests;
	uint64_t until = sl_clock_ms() + PATIENCE_MS;
	_cleanup_free_ char *answer = NULL;
	json_error_t error;
	json_t *j;

	sl_str_addf(&request, "%s %s HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n%s", method,
		    target, strlen(body), body);
	assert_true(put(lab, fd, request.p, request.len));
	while (lab->n_requests == before) {
		turn(lab);
		assert_true(sl_clock_ms() < until);
	}
	assert_int_equal(lab->requested, SL_CTL_CHANGE);
	lab->reply(lab->reply_arg, result, text);
	answer = take_answer(lab, fd, &got, false);
	assert_int_equal(atoi(answer + 9), want_status);
	j = json_loads(strstr(answer, "\r\n\r\n") + 4, 0, &error);
	assert_non_null(j);
	return j;
}

static void a_route_is_put(void **state)
{
	struct lab *lab = *state;
	json_t *j = ask_change(lab, "PUT", "/v1/routes/new", "match: { ports: 1 }", SL_CTL_CREATED,
			       "route new added\n", 201);

	assert_int_equal(lab->change.kind, SL_SOURCE_ROUTE);
	assert_false(lab->change.keep);
	assert_string_equal(lab->subject, "new");
	assert_string_equal(lab->text, "match: { ports: 1 }");
	assert_true(json_is_true(json_object_get(j, "ok")));
	assert_string_equal(text_at(j, "text"), "route new added\n");
	json_decref(j);
	json_decref(ask_change(lab, "PUT", "/v1/routes/n%65w?keep=1", "{}", SL_CTL_DONE, "", 200));
	assert_string_equal(lab->subject, "new");
	assert_true(lab->change.keep);
	json_decref(ask_json(lab, "PUT", "/v1/routes/new", 400)); /* no body */
	json_decref(ask_json(lab, "PUT", "/v1/routes/new?keep=2", 400));
	json_decref(ask_json(lab, "PUT", "/v1/routes/new?kep=1", 400));
	json_decref(ask_json(lab, "PUT", "/v1/routes/a%2fb", 400));
	json_decref(ask_json(lab, "PUT", "/v1/routes/%00", 400));
	assert_int_equal(lab->n_requests, 2);
}

static void refusals_have_a_status_of_their_own(void **state)
{
	static const struct {
		enum sl_ctl_result result;
		unsigned status;
		const char *reason;
	} cases[] = {
		{ SL_CTL_FAILED, 500, "failed" },
		{ SL_CTL_REFUSED, 422, "config" },
		{ SL_CTL_NOT_FOUND, 404, "not_found" },
		{ SL_CTL_BUSY, 503, "busy" },
	};
	struct lab *lab = *state;

	for (size_t i = 0; i < SL_ARRAY_LEN(cases); i++) {
		json_t *j = ask_change(lab, "DELETE", "/v1/routes/shop", "", cases[i].result,
				       "why\n", cases[i].status);

		assert_int_equal(lab->change.kind, SL_SOURCE_REMOVE);
		assert_true(json_is_false(json_object_get(j, "ok")));
		assert_string_equal(text_at(j, "reason"), cases[i].reason);
		assert_string_equal(text_at(j, "text"), "why\n");
		assert_true(json_is_string(json_object_get(j, "error")));
		json_decref(j);
	}
}

static void every_change_has_its_endpoint(void **state)
{
	static const struct {
		const char *method;
		const char *target;
		enum sl_source_kind kind;
		bool undo;
		bool keep;
		const char *subject;
		const char *text;
	} cases[] = {
		{ "POST", "/v1/routes/a/enable", SL_SOURCE_ENABLE, false, false, "a", "" },
		{ "POST", "/v1/routes/a/disable?keep=1", SL_SOURCE_DISABLE, false, true, "a", "" },
		{ "DELETE", "/v1/routes/a?keep=1", SL_SOURCE_REMOVE, false, true, "a", "" },
		{ "POST", "/v1/drain?target=10.0.0.1:80", SL_SOURCE_DRAIN, false, false, "",
		  "10.0.0.1:80" },
		{ "POST", "/v1/drain?target=%5B::1%5D:80&route=a&keep=1", SL_SOURCE_DRAIN, false,
		  true, "a", "[::1]:80" },
		{ "POST", "/v1/undrain?target=x:1&route=a", SL_SOURCE_DRAIN, true, false, "a",
		  "x:1" },
		{ "DELETE", "/v1/changes", SL_SOURCE_FILE, false, false, "", "" },
		{ "DELETE", "/v1/changes?route=a", SL_SOURCE_FILE, false, false, "a", "" },
	};
	struct lab *lab = *state;

	for (size_t i = 0; i < SL_ARRAY_LEN(cases); i++) {
		json_decref(ask_change(lab, cases[i].method, cases[i].target, "", SL_CTL_DONE,
				       "done", 200));
		assert_int_equal(lab->change.kind, cases[i].kind);
		assert_int_equal(lab->change.undo, cases[i].undo);
		assert_int_equal(lab->change.keep, cases[i].keep);
		assert_string_equal(lab->subject, cases[i].subject);
		assert_string_equal(lab->text, cases[i].text);
	}
	json_decref(ask_json(lab, "POST", "/v1/drain", 400));
	json_decref(ask_json(lab, "POST", "/v1/drain?target=", 400));
	json_decref(ask_json(lab, "POST", "/v1/drain?target=x:1&route=a+b", 400));
	json_decref(ask_json(lab, "POST", "/v1/undrain?target=x:1&keep=1", 400));
	json_decref(ask_json(lab, "DELETE", "/v1/changes?route=%2f", 400));
	json_decref(ask_json(lab, "POST", "/v1/reload?what=nosuch", 400));
	assert_int_equal(lab->n_requests, SL_ARRAY_LEN(cases));
}

static void methods_of_a_path_are_told(void **state)
{
	struct lab *lab = *state;
	_cleanup_fd_ int fd = dial(lab);
	_cleanup_(sl_str_done) struct sl_str got = { 0 };
	_cleanup_free_ char *answer = NULL;

	puts_to(lab, fd, "POST /v1/routes/shop HTTP/1.1\r\nHost: x\r\n\r\n");
	answer = take_answer(lab, fd, &got, false);
	assert_non_null(strstr(answer, " 405 "));
	assert_non_null(strstr(answer, "\r\nAllow: GET, HEAD, PUT, DELETE\r\n"));
	json_decref(ask_json(lab, "GET", "/v1/routes/shop/enable", 405));
	json_decref(ask_json(lab, "PUT", "/v1/changes", 405));
}

static void changes_in_force_are_listed(void **state)
{
	struct lab *lab = *state;
	struct sl_conf_source item[] = {
		{ .kind = SL_SOURCE_ROUTE,
		  .subject = (char *)"a",
		  .text = (char *)"match: {}",
		  .len = 9,
		  .keep = true },
		{ .kind = SL_SOURCE_DRAIN, .subject = (char *)"", .text = (char *)"x:1", .len = 3 },
	};
	const struct sl_conf_sources changes = { .item = item, .n = 2 };
	json_t *j = ask_json(lab, "GET", "/v1/changes", 200);
	const json_t *c;

	assert_int_equal(json_array_size(json_object_get(j, "changes")), 0);
	json_decref(j);
	lab->facts.changes = &changes;
	j = ask_json(lab, "GET", "/v1/changes", 200);
	c = json_array_get(json_object_get(j, "changes"), 0);
	assert_string_equal(text_at(c, "change"), "route");
	assert_string_equal(text_at(c, "route"), "a");
	assert_string_equal(text_at(c, "text"), "match: {}");
	assert_true(json_is_true(json_object_get(c, "keep")));
	c = json_array_get(json_object_get(j, "changes"), 1);
	assert_string_equal(text_at(c, "change"), "drain");
	assert_true(json_is_null(json_object_get(c, "route")));
	assert_string_equal(text_at(c, "target"), "x:1");
	json_decref(j);
	j = ask_json(lab, "GET", "/v1/status", 200);
	assert_int_equal(json_integer_value(json_object_get(j, "runtime_changes")), 2);
	json_decref(j);
	lab->facts.deny_patterns = 1000;
	j = ask_json(lab, "GET", "/v1/status", 200);
	assert_int_equal(json_integer_value(json_object_get(json_object_get(j, "security"),
							    "deny_file_entries")),
			 1000);
	json_decref(j);
}

/* ---- actions ---- */

static void kill_needs_a_filter(void **state)
{
	struct lab *lab = *state;
	json_t *j = ask_json(lab, "POST", "/v1/kill", 400);

	assert_true(json_is_string(json_object_get(j, "error")));
	assert_true(json_is_string(json_object_get(j, "hint")));
	json_decref(j);
	json_decref(ask_json(lab, "POST", "/v1/kill?all=0", 400));
	json_decref(ask_json(lab, "POST", "/v1/kill?ruote=shop&all=1", 400));
	assert_int_equal(lab->proxy.killed, 0);

	j = ask_json(lab, "POST", "/v1/kill?id=8", 200);
	assert_int_equal(number_at(j, "killed"), 1);
	json_decref(j);
	j = ask_json(lab, "POST", "/v1/kill?route=shop", 200);
	assert_int_equal(number_at(j, "killed"), 2);
	json_decref(j);
	j = ask_json(lab, "POST", "/v1/kill?all=1", 200);
	assert_int_equal(number_at(j, "killed"), 3);
	json_decref(j);
	assert_int_equal(lab->proxy.killed, 6);
}

/* Starts a request whose answer is the supervisor's. */
static int start_post(struct lab *lab, const char *target)
{
	unsigned before = lab->n_requests;
	uint64_t until = sl_clock_ms() + PATIENCE_MS;
	char request[256];
	int fd = dial(lab);

	(void)snprintf(request, sizeof(request), "POST %s HTTP/1.1\r\nHost: x\r\n\r\n", target);
	puts_to(lab, fd, request);
	while (lab->n_requests == before) {
		turn(lab);
		assert_true(sl_clock_ms() < until);
	}
	return fd;
}

static void a_reload_reports_what_the_supervisor_says(void **state)
{
	static const struct {
		bool ok;
		const char *text;
		unsigned status;
		const char *reason;
		const char *path;
		enum sl_ctl_request what;
	} cases[] = {
		{ true, "2 routes", 200, "(none)", "/v1/reload", SL_CTL_RELOAD },
		{ false, "a.yaml:3:1: error: unknown key 'x'\n", 422, "config", "/v1/reload",
		  SL_CTL_RELOAD },
		{ false, "the supervisor is busy", 500, "failed", "/v1/reload", SL_CTL_RELOAD },
		{ true, "shop: 2 certificates", 200, "(none)", "/v1/certs/reload",
		  SL_CTL_CERT_RELOAD },
		{ false, "shop: /etc/shop.pem: no key\n", 500, "failed", "/v1/certs/reload",
		  SL_CTL_CERT_RELOAD },
	};
	struct lab *lab = *state;

	for (size_t i = 0; i < SL_ARRAY_LEN(cases); i++) {
		_cleanup_(sl_str_done) struct sl_str got = { 0 };
		_cleanup_fd_ int fd = start_post(lab, cases[i].path);
		_cleanup_free_ char *answer = NULL;
		json_t *j;

		assert_int_equal(lab->requested, cases[i].what);
		lab->reply(lab->reply_arg, cases[i].ok, cases[i].text);
		answer = take_answer(lab, fd, &got, false);
		j = body_of(answer, cases[i].status);
		assert_string_equal(text_at(j, "text"), cases[i].text);
		assert_string_equal(text_at(j, "reason"), cases[i].reason);
		assert_int_equal(json_is_true(json_object_get(j, "ok")), cases[i].ok);
		assert_int_equal(json_is_string(json_object_get(j, "error")), !cases[i].ok);
		json_decref(j);
	}
}

static void an_answer_survives_its_client_and_the_control_interface(void **state)
{
	struct lab *lab = *state;
	sl_ctl_reply_fn reply;
	void *arg;
	int fd = start_post(lab, "/v1/upgrade");

	assert_int_equal(lab->requested, SL_CTL_UPGRADE);
	(void)close(fd);
	for (int i = 0; i < 5; i++)
		turn(lab);
	lab->reply(lab->reply_arg, true, "late");

	fd = start_post(lab, "/v1/reload");
	reply = lab->reply;
	arg = lab->reply_arg;
	sl_ctl_free(lab->ctl);
	lab->ctl = NULL;
	turn(lab);
	assert_true(reads_eof(lab, fd));
	reply(arg, true, "later");
	(void)close(fd);
}

static void a_survey_survives_its_client_and_the_control_interface(void **state)
{
	static const char *const targets[] = { "GET /v1/conns", "GET /metrics",
					       "POST /v1/kill?all=1" };
	struct lab *lab = *state;
	char request[128];
	int left = dial(lab);
	int stays[3];

	lab->proxy.hold = true;
	puts_to(lab, left, "GET /v1/conns HTTP/1.1\r\nHost: x\r\n\r\n");
	for (int i = 0; i < 3; i++) {
		stays[i] = dial(lab);
		(void)snprintf(request, sizeof(request), "%s HTTP/1.1\r\nHost: x\r\n\r\n",
			       targets[i]);
		puts_to(lab, stays[i], request);
	}
	for (int i = 0; i < 10; i++)
		turn(lab);
	assert_int_equal(lab->proxy.n_surveys, 4);
	(void)close(left);
	turn(lab);
	sl_ctl_free(lab->ctl);
	lab->ctl = NULL;
	fake_release(&lab->proxy);
	for (int i = 0; i < 5; i++)
		turn(lab);
	assert_int_equal(lab->proxy.n_answered, 4);
	for (int i = 0; i < 3; i++)
		(void)close(stays[i]);
}

static void a_survey_that_cannot_start_is_an_error(void **state)
{
	struct lab *lab = *state;

	lab->proxy.no_memory = true;
	json_decref(ask_json(lab, "GET", "/v1/conns", 500));
	json_decref(ask_json(lab, "POST", "/v1/kill?all=1", 500));
}

/* ---- the TCP port ---- */

static void tcp_serves_monitoring_only(void **state)
{
	static const struct {
		const char *method;
		const char *target;
		unsigned status;
	} cases[] = {
		{ "GET", "/healthz", 200 },   { "GET", "/readyz", 200 },
		{ "GET", "/metrics", 200 },   { "GET", "/", 200 },
		{ "GET", "/v1/status", 404 }, { "POST", "/v1/kill?all=1", 404 },
		{ "POST", "/metrics", 405 },  { "DELETE", "/", 405 },
	};
	struct lab *lab = *state;
	_cleanup_fd_ int fd = dial_tcp(lab);

	for (size_t i = 0; i < SL_ARRAY_LEN(cases); i++) {
		_cleanup_free_ char *answer = ask(lab, fd, cases[i].method, cases[i].target);

		assert_int_equal(status_of(answer), cases[i].status);
	}
	assert_int_equal(lab->proxy.killed, 0);
}

static void readiness_follows_the_life_of_the_daemon(void **state)
{
	struct lab *lab = *state;
	_cleanup_fd_ int fd = dial_tcp(lab);
	_cleanup_free_ char *starting = NULL;
	_cleanup_free_ char *draining = NULL;
	_cleanup_free_ char *healthy = NULL;

	lab->facts.ready = false;
	starting = ask(lab, fd, "GET", "/readyz");
	assert_int_equal(status_of(starting), 503);
	assert_non_null(strstr(starting, "starting"));
	lab->facts.ready = true;
	lab->proxy.draining = true;
	draining = ask(lab, fd, "GET", "/readyz");
	assert_int_equal(status_of(draining), 503);
	assert_non_null(strstr(draining, "draining"));
	healthy = ask(lab, fd, "GET", "/healthz");
	assert_int_equal(status_of(healthy), 200);
}

static void the_tcp_port_can_be_replaced(void **state)
{
	struct lab *lab = *state;
	_cleanup_fd_ int before = dial_tcp(lab);
	_cleanup_free_ char *answer = ask(lab, before, "GET", "/healthz");

	assert_int_equal(status_of(answer), 200);
	sl_ctl_set_http_fd(lab->ctl, listen_tcp(lab));
	assert_true(reads_eof(lab, before));
	{
		_cleanup_fd_ int after = dial_tcp(lab);
		_cleanup_free_ char *again = ask(lab, after, "GET", "/healthz");

		assert_int_equal(status_of(again), 200);
	}
	sl_ctl_set_http_fd(lab->ctl, -1);
	turn(lab);
}

static void after_stop_accepting_clients_are_answered_and_none_comes(void **state)
{
	struct lab *lab = *state;
	_cleanup_fd_ int fd = dial(lab);
	_cleanup_fd_ int late = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	_cleanup_free_ char *before = ask(lab, fd, "GET", "/healthz");
	_cleanup_free_ char *answer = NULL;

	assert_int_equal(status_of(before), 200);
	sl_ctl_stop_accepting(lab->ctl);
	sl_ctl_stop_accepting(lab->ctl);
	answer = ask(lab, fd, "GET", "/healthz");
	assert_int_equal(status_of(answer), 200);
	assert_int_equal(connect(late, (struct sockaddr *)&lab->unix_addr, lab->unix_len), -1);
}

/* ---- HTTP ---- */

static void head_has_the_length_but_no_body(void **state)
{
	struct lab *lab = *state;
	_cleanup_fd_ int fd = dial(lab);
	_cleanup_free_ char *head = ask(lab, fd, "HEAD", "/healthz");
	_cleanup_free_ char *deferred = ask(lab, fd, "HEAD", "/v1/conns");
	_cleanup_free_ char *get = ask(lab, fd, "GET", "/healthz");

	assert_non_null(strstr(head, "Content-Length: 3\r\n"));
	assert_null(strstr(head, "ok"));
	assert_int_equal(status_of(deferred), 200);
	assert_non_null(strstr(get, "\r\n\r\nok\n"));
}

static void wrong_methods_and_paths_say_what_is_right(void **state)
{
	struct lab *lab = *state;
	_cleanup_fd_ int fd = dial(lab);
	_cleanup_free_ char *get = ask(lab, fd, "GET", "/v1/kill?all=1");
	_cleanup_free_ char *post = ask(lab, fd, "POST", "/v1/status");
	_cleanup_free_ char *nothing = ask(lab, fd, "GET", "/v1/nothing\x7b");
	json_t *j = body_of(get, 405);

	assert_non_null(strstr(get, "\r\nAllow: POST\r\n"));
	json_decref(j);
	json_decref(body_of(post, 405));
	assert_non_null(strstr(post, "\r\nAllow: GET, HEAD\r\n"));
	j = body_of(nothing, 404);
	assert_true(json_array_size(json_object_get(j, "endpoints")) > 10);
	json_decref(j);
	assert_int_equal(lab->proxy.killed, 0);
}

static void bad_parameters_are_refused(void **state)
{
	static const char *const targets[] = {
		"/v1/conns?id=0",
		"/v1/conns?id=x",
		"/v1/conns?id=1&id=2",
		"/v1/conns?route=%zz",
		"/v1/conns?nosuch=1",
		"/v1/conns?limit=-1",
		"/v1/status?x",
		"/v1/explain",
		"/v1/explain?port=0",
		"/v1/explain?port=65536",
		"/v1/explain?port=1&client=host.name",
		"/v1/explain?port=1&protocol=icmp",
		"/v1/conns?route=%00",
		"/v1/explain?port=1&address=1.2.3",
		"/v1/explain?port=1&tls=1.4",
		"/v1/explain?port=1&tls=1.2;1.3",
		"/v1/conns?client=10.0.0.0/33",
		"/v1/conns?target=", /* the variable of a script that was never set */
	};
	struct lab *lab = *state;
	char target[700];

	for (size_t i = 0; i < SL_ARRAY_LEN(targets); i++) {
		json_t *j = ask_json(lab, "GET", targets[i], 400);

		assert_true(json_is_string(json_object_get(j, "error")));
		json_decref(j);
	}
	(void)snprintf(target, sizeof(target), "/v1/conns?route=%0600d", 7);
	json_decref(ask_json(lab, "GET", target, 400));
	assert_int_equal(lab->proxy.n_surveys, 0);
}

static void pipelined_requests_are_answered_in_order(void **state)
{
	struct lab *lab = *state;
	_cleanup_fd_ int fd = dial(lab);
	_cleanup_(sl_str_done) struct sl_str request = { 0 };
	_cleanup_(sl_str_done) struct sl_str got = { 0 };

	for (int i = 0; i < 100; i++)
		sl_str_addf(&request,
			    "GET /v1/conns?id=%d HTTP/1.1\r\nHost: x\r\n\r\n"
			    "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
			    7 + i % 3);
	assert_true(put(lab, fd, request.p, request.len));
	for (int i = 0; i < 100; i++) {
		_cleanup_free_ char *conns = take_answer(lab, fd, &got, false);
		_cleanup_free_ char *health = take_answer(lab, fd, &got, false);
		char id[32];

		(void)snprintf(id, sizeof(id), "\"id\":%d,", 7 + i % 3);
		assert_non_null(strstr(conns, id));
		assert_non_null(strstr(health, "\r\n\r\nok\n"));
	}
}

static void a_request_may_come_byte_by_byte(void **state)
{
	static const char text[] =
		"POST /v1/kill?id=7 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello";
	struct lab *lab = *state;
	_cleanup_fd_ int fd = dial(lab);
	_cleanup_(sl_str_done) struct sl_str got = { 0 };
	_cleanup_free_ char *answer = NULL;
	_cleanup_free_ char *next = NULL;

	for (size_t i = 0; i < sizeof(text) - 1; i++)
		assert_true(put(lab, fd, text + i, 1));
	answer = take_answer(lab, fd, &got, false);
	assert_int_equal(status_of(answer), 200);
	next = ask(lab, fd, "GET", "/healthz"); /* the body was not taken for a request */
	assert_int_equal(status_of(next), 200);
}

static void expect_continue_is_honoured(void **state)
{
	struct lab *lab = *state;
	_cleanup_fd_ int fd = dial(lab);
	_cleanup_(sl_str_done) struct sl_str got = { 0 };
	_cleanup_free_ char *answer = NULL;
	uint64_t until = sl_clock_ms() + PATIENCE_MS;

	puts_to(lab, fd,
		"POST /v1/kill?id=7 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
		"Expect: 100-continue\r\n\r\n");
	while (!strstr(sl_str_text(&got), "100 Continue\r\n\r\n")) {
		assert_false(pull(lab, fd, &got));
		assert_true(sl_clock_ms() < until);
	}
	sl_str_clear(&got);
	puts_to(lab, fd, "{}");
	answer = take_answer(lab, fd, &got, false);
	assert_int_equal(status_of(answer), 200);
}

static void connection_close_is_honoured(void **state)
{
	static const char *const requests[] = {
		"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		"GET /healthz HTTP/1.0\r\n\r\n",
	};
	struct lab *lab = *state;

	for (size_t i = 0; i < SL_ARRAY_LEN(requests); i++) {
		_cleanup_fd_ int fd = dial(lab);
		_cleanup_(sl_str_done) struct sl_str got = { 0 };
		_cleanup_free_ char *answer = NULL;

		puts_to(lab, fd, requests[i]);
		answer = take_answer(lab, fd, &got, false);
		assert_non_null(strstr(answer, "Connection: close\r\n"));
		assert_true(reads_eof(lab, fd));
	}
}

/* Sends `text`, may close its own side, expects one error and the end. */
static void expect_refusal(struct lab *lab, const char *text, size_t n, bool finish,
			   unsigned status)
{
	_cleanup_fd_ int fd = dial(lab);
	_cleanup_(sl_str_done) struct sl_str got = { 0 };
	_cleanup_free_ char *answer = NULL;
	json_t *j;

	(void)put(lab, fd, text, n);
	if (finish)
		assert_int_equal(shutdown(fd, SHUT_WR), 0);
	answer = take_answer(lab, fd, &got, false);
	j = body_of(answer, status);
	assert_true(json_is_string(json_object_get(j, "error")));
	json_decref(j);
	assert_non_null(strstr(answer, "Connection: close\r\n"));
	assert_true(reads_eof(lab, fd));
}

static void bad_input_gets_a_clear_error_and_the_end(void **state)
{
	static const struct {
		const char *text;
		bool finish;
		unsigned status;
	} cases[] = {
		{ "GET /v1/status HTT", true, 400 }, /* half a request */
		{ "GET /v1/status HTTP/1.1\r\nHost: x\r\n", true, 400 },
		{ "POST /v1/kill HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc", true, 400 },
		{ "nonsense\r\n\r\n", false, 400 },
		{ "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", false, 400 },
		{ "GET / HTTP/2.0\r\n\r\n", false, 505 },
		{ "GET /v1/status HTTP/1.1\r\n\r\n", false, 400 }, /* no Host */
		{ "POST /v1/kill HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", false,
		  411 },
		{ "POST /v1/kill HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: br\r\n\r\n", false,
		  501 },
		{ "POST /v1/kill HTTP/1.1\r\nHost: x\r\nContent-Length: 1048577\r\n\r\n", false,
		  413 },
		{ "GET / HTTP/1.1\r\nHost: x\r\nExpect: more\r\n\r\n", false, 417 },
	};
	struct lab *lab = *state;

	for (size_t i = 0; i < SL_ARRAY_LEN(cases); i++)
		expect_refusal(lab, cases[i].text, strlen(cases[i].text), cases[i].finish,
			       cases[i].status);
	json_decref(ask_json(lab, "GET", "/v1/status", 200));
}

static void a_line_of_a_megabyte_is_refused(void **state)
{
	struct lab *lab = *state;
	size_t n = 1 << 20;
	_cleanup_free_ char *line = malloc(n);

	assert_non_null(line);
	memset(line, 'a', n);
	memcpy(line, "GET /", 5);
	expect_refusal(lab, line, n, false, 414);
	memcpy(line, "GET / HTTP/1.1\r\nX: ", 19);
	expect_refusal(lab, line, n, false, 431);
	json_decref(ask_json(lab, "GET", "/v1/status", 200));
}

static void a_megabyte_of_body_is_taken(void **state)
{
	struct lab *lab = *state;
	_cleanup_fd_ int fd = dial(lab);
	_cleanup_(sl_str_done) struct sl_str got = { 0 };
	_cleanup_free_ char *body = calloc(1, SL_SERVER_MAX_BODY);
	_cleanup_free_ char *answer = NULL;

	assert_non_null(body);
	puts_to(lab, fd,
		"POST /v1/kill?id=7 HTTP/1.1\r\nHost: x\r\nContent-Length: 1048576\r\n\r\n");
	assert_true(put(lab, fd, body, SL_SERVER_MAX_BODY));
	answer = take_answer(lab, fd, &got, false);
	assert_int_equal(status_of(answer), 200);
}

/* Every byte at every place of a request: an answer or the end, never silence once it is over. */
static void mutated_requests_never_hurt(void **state)
{
	static const char text[] = "GET /v1/conns?id=7 HTTP/1.1\r\nHost: x\r\n\r\n";
	static const unsigned char bytes[] = { 0, '\n', '\r', ' ', ':', '%', '?', 0x80, 0xff };
	struct lab *lab = *state;

	for (size_t at = 0; at < sizeof(text) - 1; at++) {
		for (size_t b = 0; b < sizeof(bytes); b++) {
			_cleanup_fd_ int fd = dial(lab);
			char copy[sizeof(text)];

			memcpy(copy, text, sizeof(text));
			copy[at] = (char)bytes[b];
			(void)put(lab, fd, copy, sizeof(text) - 1);
			assert_int_equal(shutdown(fd, SHUT_WR), 0);
			assert_true(reads_eof(lab, fd));
		}
	}
	json_decref(ask_json(lab, "GET", "/v1/status", 200));
}

static void idle_clients_do_not_shut_out_others(void **state)
{
	struct lab *lab = *state;
	int idle[SL_SERVER_MAX_CLIENTS];
	_cleanup_free_ char *answer = NULL;

	for (int i = 0; i < SL_SERVER_MAX_CLIENTS; i++) {
		idle[i] = dial(lab);
		if (i % 2)
			puts_to(lab, idle[i], "GET /half");
		turn(lab);
	}
	for (int i = 0; i < 20; i++)
		json_decref(ask_json(lab, "GET", "/v1/status", 200));
	assert_true(reads_eof(lab, idle[0])); /* the longest idle one made room */
	answer = ask(lab, idle[SL_SERVER_MAX_CLIENTS - 2], "GET", "/healthz");
	assert_int_equal(status_of(answer), 200);
	for (int i = 0; i < SL_SERVER_MAX_CLIENTS; i++)
		(void)close(idle[i]);
}

/* A client that does not read holds only its own answer. */
static void a_client_that_does_not_read_blocks_nobody(void **state)
{
	struct lab *lab = *state;
	_cleanup_fd_ int fd = dial(lab);

	for (int i = 0; i < 2000; i++) {
		static const char text[] = "GET /v1/routes HTTP/1.1\r\nHost: x\r\n\r\n";

		if (send(fd, text, sizeof(text) - 1, MSG_NOSIGNAL) < 0)
			break;
		turn(lab);
	}
	json_decref(ask_json(lab, "GET", "/v1/status", 200));
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(status_has_the_promised_fields),
		T(a_connection_has_exactly_the_promised_fields),
		T(a_connection_tells_its_last_moves),
		T(connections_are_filtered),
		T(the_other_documents_are_there),
		T(status_says_what_the_broker_says),
		T(flows_are_counted_up_to_the_moment),
		T(status_says_what_sockmap_does),
		T(status_says_what_nat_does),
		T(an_engine_that_is_off_says_why),
		T(a_flow_has_exactly_the_promised_fields),
		T(a_joined_connection_has_exactly_the_promised_fields),
		T(joined_connections_without_an_answer_of_the_records),
		T(flows_are_listed_as_far_as_asked),
		T(flows_are_flushed_by_the_broker),
		T(explain_passes_the_question_on),
		T(kill_needs_a_filter),
		T(a_reload_reports_what_the_supervisor_says),
		T(an_answer_survives_its_client_and_the_control_interface),
		T(a_survey_survives_its_client_and_the_control_interface),
		T(a_survey_that_cannot_start_is_an_error),
		T(tcp_serves_monitoring_only),
		T(readiness_follows_the_life_of_the_daemon),
		T(the_tcp_port_can_be_replaced),
		T(after_stop_accepting_clients_are_answered_and_none_comes),
		T(head_has_the_length_but_no_body),
		T(wrong_methods_and_paths_say_what_is_right),
		T(explain_shows_who_lost_and_why),
		T(explain_says_when_it_moves),
		T(explain_lists_the_engines),
		T(one_route_is_shown_alone),
		T(conns_show_what_the_hello_said),
		T(filters_combine),
		T(a_route_is_put),
		T(refusals_have_a_status_of_their_own),
		T(every_change_has_its_endpoint),
		T(methods_of_a_path_are_told),
		T(changes_in_force_are_listed),
		T(bad_parameters_are_refused),
		T(pipelined_requests_are_answered_in_order),
		T(a_request_may_come_byte_by_byte),
		T(expect_continue_is_honoured),
		T(connection_close_is_honoured),
		T(bad_input_gets_a_clear_error_and_the_end),
		T(a_line_of_a_megabyte_is_refused),
		T(a_megabyte_of_body_is_taken),
		T(mutated_requests_never_hurt),
		T(idle_clients_do_not_shut_out_others),
		T(a_client_that_does_not_read_blocks_nobody),
	};

	return cmocka_run_group_tests_name("ctl", tests, NULL, NULL);
}
