/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_DAEMON_TICKET_KEYS_H
#define SL_DAEMON_TICKET_KEYS_H

#include "base/cleanup.h"
#include "tls/tickets.h"

/*
 * The keys of session tickets as the supervisor keeps and sends them: a sealed memfd, and no copy
 * elsewhere. In it are the one in use, the one that will be next, and the one before, so that a
 * ticket is opened whichever process or worker made it, and by a proxy that is told of a change
 * a moment later than another. Each is the next one, the one in use, the last one for an hour
 * each.
 */
#define SL_TICKET_KEYS_TURN_MS 3600000u

/* Two of them: nothing was before. -EIO, -ENOMEM, what memfds fail with. */
SL_MUST_CHECK int sl_ticket_keys_new(int *ret_fd);
/* The next hour's, of those in `fd`, which stays. As above, or -EBADMSG: they are none. */
SL_MUST_CHECK int sl_ticket_keys_turn(int fd, int *ret_fd);
SL_MUST_CHECK int sl_ticket_keys_unpack(int fd, struct sl_tls_tickets **ret);

#endif
