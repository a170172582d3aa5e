/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_TLS_LIBRARY_H
#define SL_TLS_LIBRARY_H

#include <stdbool.h>

#include "base/cleanup.h"

/*
 * Sets the TLS library up for the whole process: its tables, its source of randomness, no
 * configuration file of its own. Must be called before the process gives up opening files;
 * nothing in tls/ opens one afterwards. Again is harmless. -ENOMEM, or -EIO when it cannot start.
 */
SL_MUST_CHECK int sl_tls_init(void);

/*
 * Within tls/ only: what the library frees in this thread meanwhile is wiped, for it may have been
 * a key. Only where sl_tls_init() was the first to use the library.
 */
void sl_tls_wipe_what_is_freed(bool on);

#endif
