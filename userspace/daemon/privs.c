/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "daemon/privs.h"

#include <cap-ng.h>
#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#define DEFAULT_ACCOUNT "sluice"

/* Per connection: two sockets and, while bulk flows, two pipes. Logs, loops and names: the rest. */
#define FILES_PER_CONN 2
#define FILES_BESIDE 1024

static int find_account(const char *name, struct passwd *pw, char *buf, size_t size, bool *ret)
{
	struct passwd *hit = NULL;
	int r = getpwnam_r(name, pw, buf, size, &hit);

	if (r != 0 && r != ENOENT && r != ESRCH)
		return -r;
	*ret = hit != NULL;
	return 0;
}

static gid_t group_of(const char *name)
{
	char buf[16384];
	struct group group;
	struct group *hit = NULL;

	if (getgrnam_r(name, &group, buf, sizeof(buf), &hit) != 0 || !hit)
		return (gid_t)-1;
	return hit->gr_gid;
}

int sl_privs_find(const char *user, struct sl_identity *ret, struct sl_str *note)
{
	const char *name = user ? user : DEFAULT_ACCOUNT;
	struct sl_identity id = { (uid_t)-1, (gid_t)-1, (gid_t)-1 };
	char buf[16384];
	struct passwd pw;
	bool found = false;
	int r;

	if (geteuid() != 0) {
		if (user)
			sl_str_addf(note, "not started as root: keeping the identity, not '%s'",
				    user);
		*ret = id;
		return 0;
	}
	r = find_account(name, &pw, buf, sizeof(buf), &found);
	if (r < 0)
		return r;
	if (!found && user)
		return -ENOENT;
	id.socket_gid = group_of(DEFAULT_ACCOUNT);
	if (found) {
		id.uid = pw.pw_uid;
		id.gid = pw.pw_gid;
	} else {
		sl_str_adds(note, "there is no account '" DEFAULT_ACCOUNT
				  "': the proxy process stays root, without capabilities");
	}
	*ret = id;
	return 0;
}

uint64_t sl_privs_files_needed(uint64_t max_connections, uint64_t n_listeners)
{
	return max_connections * FILES_PER_CONN + n_listeners + FILES_BESIDE;
}

uint64_t sl_privs_raise_files(uint64_t max_connections, uint64_t n_listeners, uint64_t *ret_needed)
{
	uint64_t needed = sl_privs_files_needed(max_connections, n_listeners);
	struct rlimit limit;
	struct rlimit wanted;

	*ret_needed = needed;
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return 0;
	if (limit.rlim_max < needed) {
		wanted = (struct rlimit){ needed, needed };
		if (setrlimit(RLIMIT_NOFILE, &wanted) == 0)
			return needed;
	}
	wanted = (struct rlimit){ limit.rlim_max, limit.rlim_max };
	if (setrlimit(RLIMIT_NOFILE, &wanted) == 0)
		return limit.rlim_max;
	return limit.rlim_cur;
}

/* What a container has not got cannot be kept either. */
static int keep_only(const unsigned *keep, size_t n, capng_select_t sets)
{
	capng_get_caps_process();
	for (unsigned cap = 0; cap <= CAP_LAST_CAP; cap++) {
		bool is_kept = false;

		for (size_t i = 0; i < n; i++)
			is_kept = is_kept || keep[i] == cap;
		if (!is_kept)
			(void)capng_update(CAPNG_DROP,
					   (capng_type_t)(CAPNG_EFFECTIVE | CAPNG_PERMITTED |
							  CAPNG_INHERITABLE | CAPNG_BOUNDING_SET),
					   cap);
	}
	return capng_apply(sets) == 0 ? 0 : -EPERM;
}

/*
 * NET_BIND_SERVICE, CHOWN: sockets. SETUID, SETGID, SETPCAP, KILL: to start and stop
 * proxies of another identity, with an empty bounding set. DAC_OVERRIDE: configuration and
 * log files may belong to others. NET_ADMIN, BPF: port ranges that a reload brings. PERFMON,
 * NET_RAW: for the brokers to come, whose programs read the kernel's sockets, and which tell peers
 * of NAT. SYS_RESOURCE: the limit of open files of proxies to come.
 */
int sl_privs_trim_supervisor(void)
{
	static const unsigned keep[] = { CAP_NET_BIND_SERVICE, CAP_CHOWN,     CAP_SETUID,
					 CAP_SETGID,           CAP_SETPCAP,   CAP_KILL,
					 CAP_DAC_OVERRIDE,     CAP_NET_ADMIN, CAP_BPF,
					 CAP_SYS_RESOURCE,     CAP_PERFMON,   CAP_NET_RAW };

	return geteuid() == 0 ? keep_only(keep, SL_ARRAY_LEN(keep), CAPNG_SELECT_BOTH) : 0;
}

static int change_identity(uid_t uid, gid_t gid)
{
	if (gid != (gid_t)-1 && (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0))
		return -errno;
	if (uid != (uid_t)-1 && setresuid(uid, uid, uid) < 0)
		return -errno;
	return 0;
}

static int drop_bounding_set(void)
{
	for (unsigned long cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
			return -errno;
	return 0;
}

static bool has_setpcap(void)
{
	capng_get_caps_process();
	return capng_have_capability(CAPNG_EFFECTIVE, CAP_SETPCAP);
}

int sl_privs_hide_memory(void)
{
#ifdef SL_SANITIZED
	return prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) < 0 ? -errno : 0;
#else
	struct rlimit core;

	/* a pipe of core_pattern is asked by the former alone, a file by both */
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 || getrlimit(RLIMIT_CORE, &core) < 0)
		return -errno;
	core.rlim_cur = 0;
	return setrlimit(RLIMIT_CORE, &core) < 0 ? -errno : 0;
#endif
}

/* The right to gain any by exec, core dumps, being traced; and it dies with the supervisor. */
static int seal(pid_t supervisor)
{
	const struct rlimit no_core = { 0, 0 };

	(void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || setrlimit(RLIMIT_CORE, &no_core) < 0)
		return -errno;
	/* exec() made the process dumpable again, and setresuid() cleared the death signal. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 || sl_privs_hide_memory() < 0)
		return -errno;
	return getppid() == supervisor ? 0 : -ESRCH;
}

int sl_privs_drop(uid_t uid, gid_t gid, pid_t supervisor)
{
	int r;

	/* The bounding set goes while SETPCAP is there; not being root, there is nothing to bound.
	 */
	r = has_setpcap() ? drop_bounding_set() : 0;
	if (r == 0)
		r = change_identity(uid, gid);
	if (r < 0)
		return r;
	capng_clear(CAPNG_SELECT_CAPS);
	if (capng_apply(CAPNG_SELECT_CAPS) != 0)
		return -EPERM;
	return seal(supervisor);
}

int sl_privs_enter_broker(pid_t supervisor)
{
	static const unsigned keep[] = { CAP_NET_ADMIN, CAP_BPF, CAP_PERFMON, CAP_NET_RAW };
	int r = has_setpcap() ? drop_bounding_set() : 0;

	if (r == 0)
		r = keep_only(keep, SL_ARRAY_LEN(keep), CAPNG_SELECT_CAPS);
	return r < 0 ? r : seal(supervisor);
}

int sl_privs_end_loading(void)
{
	static const unsigned keep[] = { CAP_NET_ADMIN };

	return keep_only(keep, SL_ARRAY_LEN(keep), CAPNG_SELECT_CAPS);
}
