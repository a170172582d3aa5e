/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_TLS_KTLS_H
#define SL_TLS_KTLS_H

/*
 * Why TLS cannot be left to the kernel on this host, static text; NULL: it can. Asks by a socket,
 * so before the process gives up options of sockets; a module is loaded only for CAP_NET_ADMIN.
 */
const char *sl_tls_ktls_missing(void);

#endif
