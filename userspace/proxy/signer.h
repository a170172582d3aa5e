/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_PROXY_SIGNER_H
#define SL_PROXY_SIGNER_H

#include <stdbool.h>

#include "base/cleanup.h"
#include "base/list.h"
#include "io/loop.h"

struct sl_tls_stream;

/*
 * A thread that makes steps of handshakes for one worker, while that has established flows to
 * serve: a signature takes up to half a millisecond in one piece. It runs at a lower priority than
 * the worker, so that bytes that have come are carried at once also where processors are few.
 */
struct sl_signer;

/* A step given away: the stream is the signer's until `done` runs in the worker's loop. */
struct sl_signer_job {
	struct sl_list node;
	struct sl_task done;
	sl_task_fn on_done;
	struct sl_tls_stream *stream;
	bool is_void; /* atomic: nobody waits for it any more */
	int result;   /* of sl_tls_stream_handshake() */
};

/* -errno: there is none, and the worker makes all steps itself. */
SL_MUST_CHECK int sl_signer_new(struct sl_loop *loop, unsigned index, struct sl_signer **ret);
/* Once the loop has ended: the step under way is made, those in line are not. */
void sl_signer_free(struct sl_signer *signer); /* accepts NULL */
void sl_signer_give(struct sl_signer *signer, struct sl_signer_job *job);

#endif
