/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_DAEMON_DENY_H
#define SL_DAEMON_DENY_H

#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "conf/conf.h"

/*
 * global.security.deny_file: read by the supervisor, which keeps the addresses as one sealed
 * memfd (daemon/deny_set.h) that each proxy and the kernel's tables are filled from.
 */
#define SL_DENY_FILE_MAX (64u << 20)
#define SL_DENY_PATTERNS_MAX 4000000u
/* Patterns that are no ranges ("*.*.*.1") cost each new connection a step. */
#define SL_DENY_GLOBS_MAX 1024u

struct sl_deny_list {
	int fd;              /* the sealed set */
	uint64_t id;         /* differs for every list this process has read */
	uint64_t n_patterns; /* as written */
	uint64_t n_ranges;   /* disjoint ones after merging, and globs that are none */
};

/*
 * Reads the file; `path` NULL gives the empty list. Bad lines are reported as "FILE:LINE: error:
 * ...", what else is wrong as "FILE: error: ...", and nothing is returned.
 */
SL_MUST_CHECK int sl_deny_list_read(const char *path, struct sl_deny_list **ret,
				    struct sl_str *report);
/* Whether it could be read, for those who check files; NULL always can. */
SL_MUST_CHECK int sl_deny_list_check(const char *path, struct sl_diags *diags);
void sl_deny_list_free(struct sl_deny_list *list);
SL_DEFINE_CLEANUP(struct sl_deny_list, sl_deny_list_free);

/* After an exec: the list of the program before; takes over the descriptor, also on failure. */
SL_MUST_CHECK int sl_deny_list_adopt(int fd, uint64_t n_patterns, uint64_t n_ranges,
				     struct sl_deny_list **ret);

#endif
