/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "accel/sklookup.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "abi.h"
#include "base/log.h"
#include "sklookup.skel.h"

_Static_assert(SL_SKLOOKUP_MAX_RANGES == SL_STEER_RANGES, "one limit");

/* The order is that of sl_sklookup_fds(); a change needs a new layout of the resumed state. */
enum {
	FD_LINK = 0,
	FD_ACTIVE,
	FD_RANGES,
	FD_SOCKS,
	FD_COUNT,
	FD_NUMBER_,
};
_Static_assert((int)FD_NUMBER_ == SL_SKLOOKUP_FDS, "one number");

struct sl_sklookup {
	int fd[FD_NUMBER_];
};

static int print_libbpf(enum libbpf_print_level level, const char *fmt, va_list ap)
{
	char line[512];
	int n = vsnprintf(line, sizeof(line), fmt, ap);

	(void)level;
	if (n > 0 && (size_t)n < sizeof(line) && line[n - 1] == '\n')
		line[n - 1] = '\0';
	sl_debug("%s", line);
	return 0;
}

int sl_sklookup_adopt(const int fds[SL_SKLOOKUP_FDS], struct sl_sklookup **ret)
{
	struct sl_sklookup *s = calloc(1, sizeof(*s));

	for (int i = 0; i < FD_NUMBER_; i++) {
		if (s)
			s->fd[i] = fds[i];
		else
			(void)close(fds[i]);
	}
	if (!s)
		return -ENOMEM;
	*ret = s;
	return 0;
}

void sl_sklookup_fds(const struct sl_sklookup *s, int ret[SL_SKLOOKUP_FDS])
{
	memcpy(ret, s->fd, sizeof(s->fd));
}

void sl_sklookup_free(struct sl_sklookup *s)
{
	if (!s)
		return;
	for (int i = 0; i < FD_NUMBER_; i++)
		sl_closep(&s->fd[i]);
	free(s);
}

static int copy_fd(int fd, int *ret)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);

	if (copy < 0)
		return -errno;
	*ret = copy;
	return 0;
}

/* The descriptors are all that is needed later, so the skeleton goes and they stay. */
static int keep_fds(struct sl_sklookup *s, const struct sl_sklookup_bpf *skel,
		    const struct bpf_link *link)
{
	const int from[FD_NUMBER_] = {
		[FD_LINK] = bpf_link__fd(link),
		[FD_ACTIVE] = bpf_map__fd(skel->maps.steer_active),
		[FD_RANGES] = bpf_map__fd(skel->maps.steer_ranges),
		[FD_SOCKS] = bpf_map__fd(skel->maps.steer_socks),
		[FD_COUNT] = bpf_map__fd(skel->maps.steer_count),
	};

	for (int i = 0; i < FD_NUMBER_; i++) {
		int r = copy_fd(from[i], &s->fd[i]);

		if (r < 0)
			return r;
	}
	return 0;
}

int sl_sklookup_new(struct sl_sklookup **ret)
{
	static const int none[FD_NUMBER_] = { -1, -1, -1, -1, -1 };
	_cleanup_(sl_sklookup_freep) struct sl_sklookup *s = NULL;
	_cleanup_fd_ int netns = -1;
	struct sl_sklookup_bpf *skel;
	struct bpf_link *link;
	int r;

	(void)libbpf_set_print(print_libbpf);
	r = sl_sklookup_adopt(none, &s);
	if (r < 0)
		return r;
	netns = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	if (netns < 0)
		return -errno;
	skel = sl_sklookup_bpf__open_and_load();
	if (!skel)
		return -errno;
	link = bpf_program__attach_netns(skel->progs.sl_steer, netns);
	r = link ? keep_fds(s, skel, link) : -errno;
	if (link)
		(void)bpf_link__destroy(link); /* our copy of its descriptor keeps it attached */
	sl_sklookup_bpf__destroy(skel);
	if (r < 0)
		return r;
	*ret = SL_TAKE_PTR(s);
	return 0;
}

static struct sl_steer_range range_of(const struct sl_steer *from)
{
	struct sl_steer_range r = { .from = from->from, .to = from->to };

	r.family = sl_addr_family(&from->ip);
	if (r.family == AF_INET)
		memcpy(r.ip, &from->ip.v4.sin_addr, 4);
	else if (r.family == AF_INET6)
		memcpy(r.ip, &from->ip.v6.sin6_addr, 16);
	return r;
}

static int write_bank(struct sl_sklookup *s, uint32_t first, const struct sl_steer *ranges,
		      size_t n)
{
	for (uint32_t i = 0; i < SL_STEER_RANGES; i++) {
		uint32_t slot = first + i;

		if (i < n) {
			struct sl_steer_range r = range_of(&ranges[i]);
			uint64_t fd = (uint64_t)ranges[i].fd;

			if (bpf_map_update_elem(s->fd[FD_RANGES], &slot, &r, BPF_ANY) < 0 ||
			    bpf_map_update_elem(s->fd[FD_SOCKS], &slot, &fd, BPF_ANY) < 0)
				return -errno;
		} else if (bpf_map_delete_elem(s->fd[FD_SOCKS], &slot) < 0 && errno != ENOENT &&
			   errno != EINVAL) {
			/* Deleting what is not there is EINVAL for a sockmap. */
			return -errno;
		}
	}
	return 0;
}

/*
 * The bank that was live keeps its sockets until the next change: a lookup that had read
 * the old word still finds them, and a socket that is closed leaves the map by itself.
 */
int sl_sklookup_set(struct sl_sklookup *s, const struct sl_steer *ranges, size_t n)
{
	struct sl_steer_active active;
	uint32_t key = 0;
	uint32_t bank;
	int r;

	if (n > SL_STEER_RANGES)
		return -E2BIG;
	if (bpf_map_lookup_elem(s->fd[FD_ACTIVE], &key, &active) < 0)
		return -errno;
	bank = active.bank_and_count >> 16 ? 0 : 1;
	r = write_bank(s, bank * SL_STEER_RANGES, ranges, n);
	if (r < 0)
		return r;
	active.bank_and_count = bank << 16 | (uint32_t)n;
	if (bpf_map_update_elem(s->fd[FD_ACTIVE], &key, &active, BPF_ANY) < 0)
		return -errno;
	return 0;
}

static int sum_of(const struct sl_sklookup *s, uint32_t key, uint64_t *ret)
{
	int n_cpus = libbpf_num_possible_cpus();
	_cleanup_free_ uint64_t *each = n_cpus > 0 ? calloc((size_t)n_cpus, sizeof(*each)) : NULL;
	uint64_t sum = 0;

	if (!each)
		return n_cpus < 0 ? n_cpus : -ENOMEM;
	if (bpf_map_lookup_elem(s->fd[FD_COUNT], &key, each) < 0)
		return -errno;
	for (int i = 0; i < n_cpus; i++)
		sum += each[i];
	*ret = sum;
	return 0;
}

int sl_sklookup_counts(const struct sl_sklookup *s, struct sl_steer_counts *ret)
{
	uint64_t n[SL_STEER_OUTCOME_COUNT_];

	for (uint32_t i = 0; i < SL_STEER_OUTCOME_COUNT_; i++) {
		int r = sum_of(s, i, &n[i]);

		if (r < 0)
			return r;
	}
	*ret = (struct sl_steer_counts){ .passed = n[SL_STEER_PASSED],
					 .steered = n[SL_STEER_STEERED],
					 .no_socket = n[SL_STEER_NO_SOCKET],
					 .not_assigned = n[SL_STEER_NOT_ASSIGNED] };
	return 0;
}
