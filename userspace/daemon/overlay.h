/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_DAEMON_OVERLAY_H
#define SL_DAEMON_OVERLAY_H

#include <stdbool.h>
#include <stddef.h>

#include "base/str.h"
#include "conf/conf.h"
#include "ctl/ctl.h"

/*
 * What was changed at run time lies over the files: the items of the sources after them, in
 * the order of their effect (conf/conf.h). The list is compact: of each route at most one
 * of ROUTE and REMOVE and one of ENABLE and DISABLE, of each target of a route at most one DRAIN;
 * a change replaces the one before it, kept or not.
 */

/* One request for a change, with texts of its own. */
struct sl_overlay_change {
	enum sl_source_kind kind; /* FILE: back to the files */
	bool undo;                /* of DRAIN */
	bool keep;
	char *subject; /* never NULL */
	char *text;    /* NUL-terminated; "" where the kind has none */
	size_t len;
};
void sl_overlay_change_done(struct sl_overlay_change *c);

/* ---- on the way from the proxy (SL_MSG_CHANGE), and over an upgrade ---- */

/* { magic, kind, flags, length of subject, length of text } of 4 bytes each, subject, text. */
#define SL_OVERLAY_HEAD 20

void sl_overlay_encode(const struct sl_ctl_change *change, struct sl_str *out);
/* Exactly `n` bytes; -EBADMSG: not a change, or its parts do not fit together. */
SL_MUST_CHECK int sl_overlay_decode(const void *bytes, size_t n, struct sl_overlay_change *ret);
/* The same in a sealed memfd. */
SL_MUST_CHECK int sl_overlay_pack(const struct sl_ctl_change *change, int *ret_fd);
SL_MUST_CHECK int sl_overlay_unpack(int fd, struct sl_overlay_change *ret);

/* ---- the list ---- */

/*
 * Takes out what the change replaces; returns how many. `ret_at`: where another ROUTE
 * stood before this one, else SIZE_MAX.
 */
size_t sl_overlay_drop(struct sl_conf_sources *s, const struct sl_overlay_change *c,
		       size_t *ret_at);
/* Puts the change in, at `at` as from sl_overlay_drop(). -ENOSPC: too many, or too long. */
SL_MUST_CHECK int sl_overlay_put(struct sl_conf_sources *s, const struct sl_overlay_change *c,
				 size_t at);

/*
 * Whether the configuration already is as the change (REMOVE, ENABLE, DISABLE) wants it; a route
 * that is not there is removed and can be neither enabled nor disabled.
 */
bool sl_overlay_is_done(const struct sl_conf *conf, const struct sl_overlay_change *c);

/* ---- state_dir/changes ---- */

/*
 * Appends the kept changes to `s`. A file that is not there is no error. Else says in `report`
 * what is wrong with it and what to do.
 */
SL_MUST_CHECK int sl_overlay_load(const char *path, struct sl_conf_sources *s,
				  struct sl_str *report);
/*
 * Replaces the file in one step and durably, or removes it when `s` keeps nothing; -errno: it is
 * as before.
 */
SL_MUST_CHECK int sl_overlay_save(const char *path, const struct sl_conf_sources *s);
/* Whether both keep the same. */
bool sl_overlay_keeps_same(const struct sl_conf_sources *a, const struct sl_conf_sources *b);

#endif
