/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_DAEMON_SUPERVISOR_H
#define SL_DAEMON_SUPERVISOR_H

#include <stdbool.h>

#include "base/str.h"
#include "conf/conf.h"

#define SL_EXIT_CONFIG 78

struct sl_daemon_options {
	const char *config_path;
	bool is_single;      /* all roles in this process */
	int resume_fd;       /* state of the program this one replaced; -1: a fresh start */
	const char *program; /* argv[0] */
};

/* Runs until the daemon has ended; returns the exit code. Errors are logged. */
int sl_supervisor_run(const struct sl_daemon_options *options);

#endif
