/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_TLS_LIBRARY_H
#define SL_TLS_LIBRARY_H

#include "base/cleanup.h"

/*
 * Sets the TLS library up for the whole process: its tables, its source of randomness, no
 * configuration file of its own. Must be called before the process gives up opening files;
 * nothing in tls/ opens one afterwards. Again is harmless. -ENOMEM, or -EIO when it cannot start.
 */
SL_MUST_CHECK int sl_tls_init(void);

#endif
