/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CORE_URL_H
#define SL_CORE_URL_H

#include <stdbool.h>
#include <stddef.h>

#include "base/cleanup.h"
#include "core/slice.h"

/*
 * Percent decoding (RFC 3986 section 2.1) into the caller's buffer, ended with
 * NUL. `plus_is_blank`: as in a query. -EINVAL for a broken escape or one that
 * means NUL, -ENOSPC when it does not fit; `buf` is undefined then.
 */
SL_MUST_CHECK int sl_url_decode(struct sl_slice in, bool plus_is_blank, char *buf, size_t size);

/*
 * Cuts the next "name=value" off the front of `query`; value is absent without
 * a "=". Empty pairs ("a=1&&b=2") are skipped. False at the end.
 */
bool sl_url_next_pair(struct sl_slice *query, struct sl_slice *ret_name,
		      struct sl_slice *ret_value);

/*
 * Decodes the value of the parameter `name` into `buf`. 1 when found, 0 when not ("" in
 * `buf`), -EEXIST when it is given twice, else as sl_url_decode(). A parameter
 * without "=" has the value "".
 */
SL_MUST_CHECK int sl_url_query(struct sl_slice query, const char *name, char *buf, size_t size);

#endif
