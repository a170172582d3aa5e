/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_DAEMON_DENY_H
#define SL_DAEMON_DENY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/str.h"

/*
 * global.security.deny_file: read by the supervisor, which keeps the addresses as one sealed
 * memfd (daemon/deny_set.h) that each proxy and the kernel's tables are filled from.
 */
#define SL_DENY_FILE_MAX (64u << 20)
#define SL_DENY_PATTERNS_MAX 4000000u
/* Patterns that are no ranges ("*.*.*.1") cost each new connection a step. */
#define SL_DENY_GLOBS_MAX 1024u

/* Which file it was, so that it is read again only when it has changed. */
struct sl_deny_stamp {
	uint64_t device;
	uint64_t inode;
	uint64_t size;
	uint64_t modified_ns;
	uint64_t changed_ns;
};

struct sl_deny_list {
	int fd;        /* the sealed set */
	char *path;    /* NULL: there is no file */
	uint64_t id;   /* differs for every list this process has read */
	bool is_fixed; /* false: may have been written to while, or right after, it was read */
	struct sl_deny_stamp stamp;
	uint64_t n_patterns; /* as written */
	uint64_t n_ranges;   /* disjoint ones after merging, and globs that are none */
};

/*
 * Reads the file; `path` NULL gives the empty list. Bad lines are reported as "FILE:LINE: error:
 * ...", what else is wrong as "FILE: error: ...", and nothing is returned.
 */
SL_MUST_CHECK int sl_deny_list_read(const char *path, struct sl_deny_list **ret,
				    struct sl_str *report);
void sl_deny_list_free(struct sl_deny_list *list);
SL_DEFINE_CLEANUP(struct sl_deny_list, sl_deny_list_free);

/* Whether reading `path` would give the same. `list` NULL: there has been no file. */
bool sl_deny_list_is_current(const struct sl_deny_list *list, const char *path);

/* After an exec: the list of the program before; takes over the descriptor, also on failure. */
SL_MUST_CHECK int sl_deny_list_adopt(int fd, const char *path, uint64_t n_patterns,
				     uint64_t n_ranges, struct sl_deny_list **ret);

#endif
