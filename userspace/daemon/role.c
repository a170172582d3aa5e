/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "daemon/role.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"

#define OPTIONS_WAIT_MS 10000

int sl_role_wait_options(int fd, struct sl_msg_options *ret)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	_cleanup_fd_ int none = -1;
	struct sl_msg msg;
	int r;

	do
		r = poll(&p, 1, OPTIONS_WAIT_MS);
	while (r < 0 && errno == EINTR);
	if (r <= 0)
		return r < 0 ? -errno : -ETIMEDOUT;
	r = sl_msg_recv(fd, &msg, &none);
	if (r < 0)
		return r;
	if (msg.type != SL_MSG_OPTIONS)
		return -EBADMSG;
	*ret = msg.options;
	if (ret->log_level < SL_LOG_LEVEL_COUNT_)
		sl_log_setup((enum sl_log_level)ret->log_level, ret->log_json, STDERR_FILENO);
	return 0;
}

void sl_role_begin(enum sl_role role, const char *argv0)
{
	static const int ignored[] = {
		SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGPIPE
	};

	(void)prctl(PR_SET_NAME, argv0, 0, 0, 0);
	sl_log_set_role(sl_role_name(role));
	for (size_t i = 0; i < SL_ARRAY_LEN(ignored); i++)
		(void)signal(ignored[i], SIG_IGN);
}
