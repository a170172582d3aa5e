/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CTL_SERVER_H
#define SL_CTL_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"
#include "core/http_head.h"
#include "io/loop.h"

/*
 * A small HTTP/1.1 server on one listening socket, for few and mostly friendly
 * clients: one request of a client at a time, the whole answer in memory. Every
 * resource a client can hold is bounded, whatever it sends or leaves unread.
 */
#define SL_SERVER_MAX_HEAD (UINT32_C(16) << 10)
#define SL_SERVER_MAX_BODY (UINT32_C(1) << 20)
#define SL_SERVER_MAX_CLIENTS 256
#define SL_SERVER_MAX_UNREAD (UINT64_C(64) << 20) /* answers of all clients together */

struct sl_server;
struct sl_call; /* one request and the duty to answer it */

struct sl_server_options {
	struct sl_loop *loop; /* borrowed */
	int fd;               /* listening, non-blocking; ownership passes, also on failure */
	/* Must lead to exactly one sl_call_reply() or sl_call_fail(), now or later. */
	void (*handle)(void *arg, struct sl_call *call);
	void *arg;
	uint64_t idle_ms;     /* 0: 30 s; also for bodies and unread answers without progress */
	uint64_t head_ms;     /* 0: 10 s for a head once its first byte is there */
	unsigned max_clients; /* 0: SL_SERVER_MAX_CLIENTS */
};

int sl_server_new(const struct sl_server_options *options, struct sl_server **ret);
/* Closes every client. Calls that are still unanswered stay valid until they are answered. */
void sl_server_free(struct sl_server *server);
/* Closes the listening socket; clients stay. Idempotent. */
void sl_server_stop_accepting(struct sl_server *server);
unsigned sl_server_n_clients(const struct sl_server *server);

/* The request; its slices are valid until the handler returns. */
const struct sl_http_head *sl_call_head(const struct sl_call *call);
struct sl_slice sl_call_body(const struct sl_call *call);

/* False when nobody will see the answer: the client left or the server was freed. */
bool sl_call_is_wanted(const struct sl_call *call);

/* Adds a header line to the answer; both are plain text without control characters. */
void sl_call_add_header(struct sl_call *call, const char *name, const char *value);

/*
 * Answers and ends the call; it must not be used afterwards. The text moves out of `body`.
 * A client that has left makes this a no-op.
 */
void sl_call_reply(struct sl_call *call, unsigned status, const char *type, struct sl_str *body);

/* Answers {"error": ..., "hint": ...}; `hint` may be NULL. */
void sl_call_fail(struct sl_call *call, unsigned status, const char *hint, const char *fmt, ...)
	SL_PRINTF(4, 5);

#define SL_TYPE_JSON "application/json"
#define SL_TYPE_TEXT "text/plain; charset=utf-8"

#endif
