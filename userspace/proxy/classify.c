/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "proxy/classify.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/log.h"
#include "core/proxy_header.h"
#include "core/tls_hello.h"
#include "proxy/conn.h"
#include "proxy/tls.h"
#include "proxy/worker.h"

/* Of the list of protocols a client offers, so much is kept for views. */
#define KEPT_ALPN 255
/* Where in the worker's scratch a hello is put together; reads use what is before. */
#define JOINED_AT (2 * SL_READ_SIZE)
_Static_assert(SL_SCRATCH_SIZE >= JOINED_AT + SL_HELLO_MAX, "room for both");

struct sl_first {
	const struct sl_conf_accept_proxy *header; /* awaited; NULL: not, or not any more */
	struct sl_addr dst; /* of the PROXY header; AF_UNSPEC: the socket's */
	struct sl_hello_reader reader;
	bool at_end; /* the client's FIN has been read: no more will come */
};

enum step {
	STEP_MORE = 0,
	STEP_OVER, /* routed, refused or ended */
};

/* ---- bytes ---- */

static bool append(struct sl_conn *c, const char *bytes, size_t n)
{
	struct sl_flow *up = &c->flow[SL_UP];
	char *more = realloc(up->held, up->held_at + up->held_len + n);

	if (!more)
		return false;
	memcpy(more + up->held_at + up->held_len, bytes, n);
	up->held = more;
	up->held_len += (uint32_t)n;
	return true;
}

/* 1: more in hand, or the end is known; 0: nothing there now; negative: the connection has ended.
 */
static int read_more(struct sl_conn *c)
{
	char *scratch = c->worker->scratch;
	ssize_t n;

	if (!sl_conn_keep(c)) {
		sl_conn_end(c, SL_REASON_ERROR, true);
		return -1;
	}
	do
		n = recv(c->side[SL_CLIENT].io.fd, scratch, SL_READ_SIZE, 0);
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno == EAGAIN)
		return 0;
	if (n < 0) {
		sl_conn_fail(c, SL_CLIENT, sl_reason_from_errno(errno));
		return -1;
	}
	if (n == 0 && !c->got_data) {
		sl_conn_end(c, SL_REASON_CLOSED_BEFORE_DATA, false);
		return -1;
	}
	if (n == 0) {
		c->side[SL_CLIENT].hung_up = true;
		c->first->at_end = true;
		return 1;
	}
	c->got_data = true;
	c->active_ms = sl_loop_now_ms(c->worker->loop);
	if (!c->flow[SL_UP].held) {
		c->early = scratch;
		c->early_len = (uint32_t)n;
	} else if (!append(c, scratch, (size_t)n)) {
		sl_conn_end(c, SL_REASON_ERROR, true);
		return -1;
	}
	return 1;
}

/* ---- the route ---- */

static struct sl_match_facts facts_of(const struct sl_conn *c, enum sl_match_known known)
{
	return (struct sl_match_facts){
		.local = c->local, .port = c->port, .client = c->client, .known = known
	};
}

static void routed(struct sl_conn *c, uint32_t route)
{
	c->local = c->first ? c->first->dst : (struct sl_addr){ 0 };
	sl_classify_done(c);
	sl_conn_routed(c, route);
}

/* The header is done with: whatever needs no bytes is decided now. */
static void route_or_wait(struct sl_conn *c)
{
	struct sl_match_facts facts = facts_of(c, SL_MATCH_NO_BYTES);
	uint32_t route = sl_matcher_find(c->gen->matcher, &facts);

	if (route == SL_NEED_BYTES)
		sl_conn_event(c, SL_EV_BYTES_NEEDED);
	else
		routed(c, route);
}

static void log_refusal(struct sl_conn *c, const char *what, const char *why)
{
	char client[SL_ADDR_TEXT];

	if (sl_log_allowed(&c->worker->first_log, sl_loop_now_ms(c->worker->loop), 5, 10000))
		sl_log_conn(SL_LOG_WARN, c->id, "port %u: %s of %s refused: %s", c->port, what,
			    sl_addr_format(&c->client, client), why);
}

/* ---- the PROXY header ---- */

static enum step refuse_header(struct sl_conn *c, const char *why)
{
	log_refusal(c, "PROXY header", why);
	sl_conn_refuse(c, SL_REASON_PROXY_PROTOCOL_ERROR);
	return STEP_OVER;
}

static enum step take_header(struct sl_conn *c, const struct sl_proxy_header *h)
{
	if (h->has_addrs) {
		c->via = c->client;
		c->client = h->src;
		c->first->dst = h->dst;
	}
	sl_conn_consume(c, h->len);
	c->got_data = sl_conn_in_hand(c).n > 0; /* the header is not the client's */
	c->first->header = NULL;
	route_or_wait(c);
	return STEP_OVER;
}

static enum step no_header(struct sl_conn *c)
{
	if (c->first->header->required)
		return refuse_header(c, "there is none, and the listener requires it");
	c->first->header = NULL;
	route_or_wait(c);
	return STEP_OVER;
}

static enum step step_header(struct sl_conn *c)
{
	struct sl_slice bytes = sl_conn_in_hand(c);
	enum sl_ph_result result = SL_PH_MORE;
	struct sl_proxy_header h;
	const char *why = NULL;

	if (bytes.n > 0)
		result = sl_proxy_header_read(bytes.p, bytes.n, &h, &why);
	switch (result) {
	case SL_PH_OK:
		return take_header(c, &h);
	case SL_PH_NONE:
		return no_header(c);
	case SL_PH_BAD:
		return refuse_header(c, why);
	case SL_PH_MORE:
		break;
	}
	if (!c->first->at_end)
		return STEP_MORE;
	if (c->first->header->required || sl_proxy_header_is_begun(bytes.p, bytes.n))
		return refuse_header(c, "it ends in the middle");
	return no_header(c); /* a few bytes that happen to begin like one */
}

/* ---- the ClientHello ---- */

static void keep_facts(struct sl_conn *c, const struct sl_hello *hello)
{
	struct sl_slice rest = hello->alpn;
	struct sl_slice entry;
	size_t alpn_len = 0;
	struct sl_hello_facts *f;

	while (sl_hello_next_alpn(&rest, &entry) && alpn_len + 1 + entry.n <= KEPT_ALPN)
		alpn_len += 1 + entry.n;
	f = malloc(sizeof(*f) + hello->name.n + 1 + alpn_len);
	if (!f)
		return; /* views and logs go without */
	f->versions = hello->versions;
	f->name_len = (uint16_t)hello->name.n;
	f->alpn_len = (uint16_t)alpn_len;
	if (hello->name.n)
		memcpy(f->text, hello->name.p, hello->name.n);
	f->text[hello->name.n] = '\0';
	if (alpn_len)
		memcpy(f->text + hello->name.n + 1, hello->alpn.p, alpn_len);
	c->hello = f;
}

static enum step take_hello(struct sl_conn *c, const struct sl_hello *hello)
{
	struct sl_match_facts facts = facts_of(c, SL_MATCH_HELLO);

	facts.name = hello->name;
	facts.alpn = hello->alpn;
	facts.tls_versions = hello->versions;
	keep_facts(c, hello);
	if (c->route) { /* it was read for TLS alone, which begins with it */
		sl_classify_done(c);
		sl_tls_got_hello(c);
		return STEP_OVER;
	}
	routed(c, sl_matcher_find(c->gen->matcher, &facts));
	return STEP_OVER;
}

static enum step refuse_hello(struct sl_conn *c, const char *why)
{
	log_refusal(c, "ClientHello", why);
	sl_conn_refuse(c, SL_REASON_TLS_ERROR);
	return STEP_OVER;
}

static enum step step_hello(struct sl_conn *c)
{
	uint8_t *joined = (uint8_t *)c->worker->scratch + JOINED_AT;
	struct sl_slice bytes = sl_conn_in_hand(c);
	enum sl_hello_result result = SL_HELLO_MORE;
	struct sl_match_facts facts;
	struct sl_hello hello;
	const char *why = NULL;

	if (bytes.n > 0)
		result = sl_hello_read(&c->first->reader, bytes.p, bytes.n, joined, &hello, &why);
	switch (result) {
	case SL_HELLO_OK:
		return take_hello(c, &hello);
	case SL_HELLO_NOT_TLS:
		if (c->route)
			return refuse_hello(c, "this is not TLS");
		facts = facts_of(c, SL_MATCH_NOT_TLS);
		routed(c, sl_matcher_find(c->gen->matcher, &facts));
		return STEP_OVER;
	case SL_HELLO_BAD:
		return refuse_hello(c, why);
	case SL_HELLO_MORE:
		break;
	}
	return c->first->at_end ? refuse_hello(c, "it ends in the middle") : STEP_MORE;
}

/* ---- waiting ---- */

/* Nothing more is there: the socket is watched from here on. */
static void wait_for_bytes(struct sl_conn *c)
{
	if (!sl_conn_keep(c) ||
	    (c->side[SL_CLIENT].io.fn == NULL && sl_conn_watch(c, SL_CLIENT, false) < 0))
		sl_conn_end(c, SL_REASON_ERROR, true);
	else
		c->missed_events = true; /* edges will be used up before an engine watches */
}

static void advance(struct sl_conn *c)
{
	int r;

	do {
		enum step step = c->first->header ? step_header(c) : step_hello(c);

		if (step == STEP_OVER)
			return;
		r = read_more(c);
	} while (r > 0);
	if (r == 0)
		wait_for_bytes(c);
}

static bool make_first(struct sl_conn *c)
{
	if (!c->first)
		c->first = calloc(1, sizeof(*c->first));
	if (!c->first)
		sl_conn_end(c, SL_REASON_ERROR, true);
	return c->first != NULL;
}

void sl_classify_start(struct sl_conn *c)
{
	const struct sl_conf_accept_proxy *header =
		sl_generation_accept_proxy(c->gen, &c->local, c->port);
	bool is_trusted = header && sl_ip_set_has(&header->from, &c->client);

	if (header && !is_trusted && header->required) {
		sl_conn_refuse(c, SL_REASON_PROXY_PROTOCOL_UNTRUSTED);
		return;
	}
	if (!is_trusted) {
		route_or_wait(c);
		return;
	}
	if (!make_first(c))
		return;
	c->first->header = header;
	sl_conn_rearm(c);
	advance(c);
}

void sl_classify_read(struct sl_conn *c)
{
	if (make_first(c))
		advance(c);
}

void sl_classify_on_socket(struct sl_conn *c)
{
	advance(c);
}

bool sl_classify_without_header(struct sl_conn *c)
{
	if (!c->first || !c->first->header || c->first->header->required || c->got_data)
		return false;
	(void)no_header(c);
	return true;
}

void sl_classify_done(struct sl_conn *c)
{
	free(c->first);
	c->first = NULL;
}
