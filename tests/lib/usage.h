/* SPDX-License-Identifier: GPL-3.0-or-later */
/* For generators of load: the CPU time of the proxy's processes and of the whole machine. */
#ifndef SL_TESTS_USAGE_H
#define SL_TESTS_USAGE_H

#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct usage {
	uint64_t proxy_ns;
	uint64_t system_ns;
	uint64_t steal_ns;
};

static inline uint64_t process_cpu_ns(const char *pid)
{
	uint64_t sum = 0;
	char path[300];
	struct dirent *e;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%.20s/task", pid);
	dir = opendir(path);
	while (dir && (e = readdir(dir))) {
		unsigned long long ns;
		FILE *f;

		snprintf(path, sizeof(path), "/proc/%.20s/task/%.20s/schedstat", pid, e->d_name);
		f = e->d_name[0] == '.' ? NULL : fopen(path, "re");
		if (f && fscanf(f, "%llu", &ns) == 1)
			sum += ns;
		if (f)
			fclose(f);
	}
	if (dir)
		closedir(dir);
	return sum;
}

static inline void read_usage(char *const *pids, int n_pids, struct usage *ret)
{
	unsigned long long user, nice, system, idle, iowait, irq, softirq, steal;
	uint64_t tick_ns = 1000000000U / (uint64_t)sysconf(_SC_CLK_TCK);
	FILE *f = fopen("/proc/stat", "re");

	memset(ret, 0, sizeof(*ret));
	if (f && fscanf(f, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &user, &nice, &system,
			&idle, &iowait, &irq, &softirq, &steal) == 8) {
		ret->system_ns = (user + nice + system + irq + softirq) * tick_ns;
		ret->steal_ns = steal * tick_ns;
	}
	if (f)
		fclose(f);
	for (int i = 0; i < n_pids; i++)
		ret->proxy_ns += process_cpu_ns(pids[i]);
}

#endif
