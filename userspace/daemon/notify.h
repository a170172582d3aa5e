/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_DAEMON_NOTIFY_H
#define SL_DAEMON_NOTIFY_H

/* Tells the service manager (sd_notify protocol); nothing happens when there is none. */
void sl_notify(const char *state); /* "READY=1", "STOPPING=1", ... */
void sl_notify_reloading(void);    /* followed by sl_notify("READY=1") when done */

#endif
