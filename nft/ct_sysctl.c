/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "nft/ct_sysctl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/num.h"

#define DIR "/proc/sys/net/"
#define CONNTRACK "netfilter/nf_conntrack_"
#define LOCALNET "ipv4/conf/all/route_localnet"

static const char *const names[] = { CONNTRACK "acct", CONNTRACK "timestamp", CONNTRACK "events" };

static int open_setting(const char *name, int flags)
{
	char path[128];
	int fd;

	(void)snprintf(path, sizeof(path), DIR "%s", name);
	fd = open(path, flags | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int read_setting(const char *name, uint32_t *ret)
{
	_cleanup_fd_ int fd = open_setting(name, O_RDONLY);
	uint64_t value;
	char text[32];
	ssize_t n;
	int r;

	if (fd < 0)
		return fd;
	n = read(fd, text, sizeof(text));
	if (n < 0)
		return -errno;
	while (n > 0 && text[n - 1] == '\n')
		n--;
	r = sl_num_parsen(text, (size_t)n, 0, UINT32_MAX, &value);
	if (r < 0)
		return r;
	*ret = (uint32_t)value;
	return 0;
}

static int write_setting(const char *name, int value)
{
	_cleanup_fd_ int fd = open_setting(name, O_WRONLY);
	char text[16];
	int n;

	if (fd < 0)
		return fd == -EACCES ? -EPERM : fd;
	n = snprintf(text, sizeof(text), "%d\n", value);
	return write(fd, text, (size_t)n) == n ? 0 : -errno;
}

int sl_ct_sysctl_look(struct sl_ct_sysctls *ret_old, const char **ret_what)
{
	int *old[] = { &ret_old->acct, &ret_old->timestamp, &ret_old->events };

	*ret_old = (struct sl_ct_sysctls){ .acct = -1, .timestamp = -1, .events = -1 };
	for (size_t i = 0; i < SL_ARRAY_LEN(names); i++) {
		uint32_t value;
		int r = read_setting(names[i], &value);

		if (r < 0) {
			*ret_what = names[i];
			return r;
		}
		if (value != 1)
			*old[i] = (int)value;
	}
	return 0;
}

int sl_ct_sysctl_set(struct sl_ct_sysctls *ret_old, const char **ret_what)
{
	struct sl_ct_sysctls was;
	int r = sl_ct_sysctl_look(&was, ret_what);
	const int values[] = { was.acct, was.timestamp, was.events };
	int *old[] = { &ret_old->acct, &ret_old->timestamp, &ret_old->events };

	*ret_old = (struct sl_ct_sysctls){ .acct = -1, .timestamp = -1, .events = -1 };
	for (size_t i = 0; r == 0 && i < SL_ARRAY_LEN(names); i++) {
		if (values[i] < 0)
			continue;
		r = write_setting(names[i], 1);
		if (r == 0)
			*old[i] = values[i];
		else
			*ret_what = names[i];
	}
	return r;
}

int sl_ct_sysctl_restore(const struct sl_ct_sysctls *old)
{
	const int values[] = { old->acct, old->timestamp, old->events };
	int first = 0;

	for (size_t i = 0; i < SL_ARRAY_LEN(names); i++) {
		int r = values[i] >= 0 ? write_setting(names[i], values[i]) : 0;

		if (r < 0 && first == 0)
			first = r;
	}
	return first;
}

int sl_nat_sysctl_localnet(void)
{
	uint32_t value;
	int r = read_setting(LOCALNET, &value);

	return r < 0 ? r : value != 0;
}

int sl_nat_sysctl_set_localnet(bool on)
{
	return write_setting(LOCALNET, on);
}

void sl_ct_timeouts_read(struct sl_ct_timeouts *t)
{
	static const char *const tcp[SL_CT_TCP_COUNT_] = {
		[SL_CT_TCP_SYN_SENT] = CONNTRACK "tcp_timeout_syn_sent",
		[SL_CT_TCP_SYN_RECV] = CONNTRACK "tcp_timeout_syn_recv",
		[SL_CT_TCP_ESTABLISHED] = CONNTRACK "tcp_timeout_established",
		[SL_CT_TCP_FIN_WAIT] = CONNTRACK "tcp_timeout_fin_wait",
		[SL_CT_TCP_CLOSE_WAIT] = CONNTRACK "tcp_timeout_close_wait",
		[SL_CT_TCP_LAST_ACK] = CONNTRACK "tcp_timeout_last_ack",
		[SL_CT_TCP_TIME_WAIT] = CONNTRACK "tcp_timeout_time_wait",
		[SL_CT_TCP_CLOSE] = CONNTRACK "tcp_timeout_close",
		[SL_CT_TCP_SYN_SENT2] = CONNTRACK "tcp_timeout_syn_sent",
	};

	for (size_t i = 0; i < SL_ARRAY_LEN(tcp); i++) {
		if (tcp[i])
			(void)read_setting(tcp[i], &t->tcp_s[i]);
	}
	(void)read_setting(CONNTRACK "udp_timeout", &t->udp_s);
	(void)read_setting(CONNTRACK "udp_timeout_stream", &t->udp_stream_s);
}

int sl_ct_fill(uint32_t *ret_count, uint32_t *ret_max)
{
	uint32_t count;
	uint32_t max;
	int r = read_setting(CONNTRACK "count", &count);

	if (r == 0)
		r = read_setting(CONNTRACK "max", &max);
	if (r < 0)
		return r;
	*ret_count = count;
	*ret_max = max;
	return 0;
}
