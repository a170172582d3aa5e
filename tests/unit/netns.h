/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_TESTS_NETNS_H
#define SL_TESTS_NETNS_H

#include <errno.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static inline int bring_up_loopback(void)
{
	struct ifreq ifr = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int r;

	if (fd < 0)
		return -errno;
	r = ioctl(fd, SIOCSIFFLAGS, &ifr) < 0 ? -errno : 0;
	(void)close(fd);
	return r;
}

/* A network namespace of this process alone, with nothing but its loopback device. */
static inline int enter_netns(void)
{
	return unshare(CLONE_NEWNET) < 0 ? -errno : bring_up_loopback();
}

#endif
