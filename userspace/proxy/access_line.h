/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_PROXY_ACCESS_LINE_H
#define SL_PROXY_ACCESS_LINE_H

struct sl_conn;

/* Writes the one line about a connection that is just being released; `route`: its name, or NULL.
 */
void sl_access_line(const struct sl_conn *c, const char *route);

#endif
