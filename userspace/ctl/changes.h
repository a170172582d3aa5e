/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CTL_CHANGES_H
#define SL_CTL_CHANGES_H

#include <stdbool.h>
#include <stddef.h>

#include "base/str.h"
#include "conf/conf.h"

/*
 * Changes of the configuration at run time, as the control interface shows them and as
 * `state_dir`/changes keeps them. One document for both:
 *   { "version": 1,
 *     "changes": [
 *       { "change": "route", "route": "shop", "target": null, "keep": true, "text": "match: ..." },
 *       { "change": "remove|enable|disable", "route": "old", "target": null, "keep": true,
 *         "text": null },
 *       { "change": "drain", "route": null, "target": "10.0.0.1:80", "keep": true, "text": null }
 *     ] }
 * `route` null with `drain`: of every route. The order is that of their effect.
 */
#define SL_CHANGES_MAX 4096                    /* in force at a time */
#define SL_CHANGES_BYTES ((size_t)64 << 20)    /* of all their texts together */
#define SL_CHANGE_TEXT_MAX (((size_t)1 << 20)) /* of one */
#define SL_ROUTE_NAME_MAX 64
#define SL_TARGET_TEXT_MAX 300 /* "[", a name of 253 characters, "]:65535" and some more */

/* What the configuration accepts as `name` of a route: [A-Za-z0-9._-]{1,64}. */
bool sl_changes_is_name(const char *text);

/* "route", "remove", ...; NULL for files. */
const char *sl_changes_word(enum sl_source_kind kind);

/* Whether kind, subject and length of the text can stand together in a change. */
bool sl_changes_fit(enum sl_source_kind kind, const char *subject, size_t len);

/* One more change with so much text keeps the limits above. */
bool sl_changes_has_room(const struct sl_conf_sources *s, size_t more);

/*
 * Puts a change with copies of its texts at `at` of the list, or at its end (SIZE_MAX). -ENOMEM:
 * the list is as before.
 */
SL_MUST_CHECK int sl_changes_insert(struct sl_conf_sources *s, size_t at, enum sl_source_kind kind,
				    bool keep, const char *subject, struct sl_slice text);
void sl_changes_remove(struct sl_conf_sources *s, size_t at);
/* Appends copies of the changes, but not the files, of `from`. */
SL_MUST_CHECK int sl_changes_copy(const struct sl_conf_sources *from, struct sl_conf_sources *to);

/* Appends the document; `only_kept`: those with `keep`. */
void sl_changes_write(struct sl_str *out, const struct sl_conf_sources *s, bool only_kept);
/* Appends what a document holds. -EINVAL with a sentence without a final dot in `ret_why`. */
SL_MUST_CHECK int sl_changes_read(struct sl_slice document, struct sl_conf_sources *s,
				  struct sl_str *ret_why);

#endif
