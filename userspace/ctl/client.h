/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CTL_CLIENT_H
#define SL_CTL_CLIENT_H

#include "base/str.h"

/* One request to the control socket, blocking: what the command line needs. */
struct sl_client_reply {
	unsigned status;
	struct sl_str body;
};
void sl_client_reply_done(struct sl_client_reply *r);

/*
 * -errno of connect() when nobody listens, -ETIMEDOUT after `timeout_s` of silence,
 * -EPROTO when the answer is not HTTP or cut short, -ENAMETOOLONG, -ENOMEM.
 */
SL_MUST_CHECK int sl_client_ask(const char *socket_path, const char *method, const char *target,
				unsigned timeout_s, struct sl_client_reply *ret);
/* With a body; NULL: none. */
SL_MUST_CHECK int sl_client_send(const char *socket_path, const char *method, const char *target,
				 const struct sl_str *body, unsigned timeout_s,
				 struct sl_client_reply *ret);

/* Appends text that is one part of a path or query, encoded. */
void sl_client_add_escaped(struct sl_str *target, const char *text);
/* Appends "?name=value" or "&name=value", encoded. */
void sl_client_add_param(struct sl_str *target, const char *name, const char *value);

#endif
