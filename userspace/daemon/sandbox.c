/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "daemon/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"

#ifndef IP_LOCAL_PORT_RANGE
#define IP_LOCAL_PORT_RANGE 51
#endif
#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#endif

#ifndef SL_SANITIZED
typedef int (*rule_fn)(scmp_filter_ctx ctx);

/* Calls that are harmless with any argument once all descriptors are sockets, pipes and memfds. */
static const int plain[] = {
	SCMP_SYS(accept),
	SCMP_SYS(accept4),
	SCMP_SYS(bind),
	SCMP_SYS(brk),
	SCMP_SYS(clock_getres),
	SCMP_SYS(clock_gettime),
	SCMP_SYS(clock_nanosleep),
	SCMP_SYS(close),
	SCMP_SYS(close_range),
	SCMP_SYS(connect),
	SCMP_SYS(dup),
	SCMP_SYS(dup3),
	SCMP_SYS(epoll_create1),
	SCMP_SYS(epoll_ctl),
	SCMP_SYS(epoll_pwait),
	SCMP_SYS(epoll_pwait2),
	SCMP_SYS(epoll_wait),
	SCMP_SYS(eventfd2),
	SCMP_SYS(exit),
	SCMP_SYS(exit_group),
	SCMP_SYS(fstat),
	SCMP_SYS(futex),
	SCMP_SYS(getegid),
	SCMP_SYS(geteuid),
	SCMP_SYS(getgid),
	SCMP_SYS(getpeername),
	SCMP_SYS(getpid),
	SCMP_SYS(getppid),
	SCMP_SYS(getrandom),
	SCMP_SYS(getrusage),
	SCMP_SYS(getsockname),
	SCMP_SYS(getsockopt),
	SCMP_SYS(gettid),
	SCMP_SYS(gettimeofday),
	SCMP_SYS(getuid),
	SCMP_SYS(lseek),
	SCMP_SYS(madvise),
	SCMP_SYS(membarrier),
	SCMP_SYS(memfd_create), /* long requests to the supervisor */
	SCMP_SYS(mremap),
	SCMP_SYS(munmap),
	SCMP_SYS(nanosleep),
	SCMP_SYS(pipe2),
	SCMP_SYS(poll),
	SCMP_SYS(ppoll),
	SCMP_SYS(pread64),
	SCMP_SYS(read),
	SCMP_SYS(readv),
	SCMP_SYS(recvfrom),
	SCMP_SYS(recvmmsg),
	SCMP_SYS(recvmsg),
	SCMP_SYS(restart_syscall),
	SCMP_SYS(rseq),
	SCMP_SYS(rt_sigaction),
	SCMP_SYS(rt_sigprocmask),
	SCMP_SYS(rt_sigreturn),
	SCMP_SYS(sched_getaffinity),
	SCMP_SYS(sched_yield),
	SCMP_SYS(sendmmsg),
	SCMP_SYS(sendmsg),
	SCMP_SYS(sendto),
	SCMP_SYS(set_robust_list),
	SCMP_SYS(shutdown),
	SCMP_SYS(sigaltstack),
	SCMP_SYS(splice),
	SCMP_SYS(sysinfo),
	SCMP_SYS(tee),
	SCMP_SYS(time),
	SCMP_SYS(timerfd_create),
	SCMP_SYS(timerfd_settime),
	SCMP_SYS(uname),
	SCMP_SYS(write),
	SCMP_SYS(writev),
};

/* Libraries look for files at odd moments and take "there is none" for an answer. */
static const int no_files[] = {
	SCMP_SYS(access), SCMP_SYS(faccessat), SCMP_SYS(faccessat2), SCMP_SYS(open),
	SCMP_SYS(openat), SCMP_SYS(openat2),   SCMP_SYS(readlink),   SCMP_SYS(readlinkat),
	SCMP_SYS(stat),   SCMP_SYS(lstat),     SCMP_SYS(statx),      SCMP_SYS(getcwd),
};

static const struct {
	int level;
	int name;
} sockopts[] = {
	{ SOL_SOCKET, SO_KEEPALIVE },
	{ SOL_SOCKET, SO_LINGER },
	{ SOL_SOCKET, SO_RCVBUF },
	{ SOL_SOCKET, SO_SNDBUF },
	{ SOL_SOCKET, SO_RCVLOWAT },
	{ SOL_SOCKET, SO_REUSEADDR },
	{ SOL_SOCKET, SO_OOBINLINE },
	{ SOL_SOCKET, SO_BUSY_POLL },
	{ SOL_SOCKET, SO_INCOMING_CPU },
	{ IPPROTO_TCP, TCP_NODELAY },
	{ IPPROTO_TCP, TCP_CORK },
	{ IPPROTO_TCP, TCP_QUICKACK },
	{ IPPROTO_TCP, TCP_KEEPIDLE },
	{ IPPROTO_TCP, TCP_KEEPINTVL },
	{ IPPROTO_TCP, TCP_KEEPCNT },
	{ IPPROTO_TCP, TCP_USER_TIMEOUT },
	{ IPPROTO_TCP, TCP_SYNCNT },
	{ IPPROTO_TCP, TCP_NOTSENT_LOWAT },
	{ IPPROTO_TCP, TCP_LINGER2 },
	{ IPPROTO_TCP, TCP_WINDOW_CLAMP },
	{ IPPROTO_TCP, TCP_MAXSEG },
	{ IPPROTO_TCP, TCP_DEFER_ACCEPT },
	{ IPPROTO_TCP, TCP_FASTOPEN_CONNECT },
	{ IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT },
	{ IPPROTO_IP, IP_LOCAL_PORT_RANGE },
	{ IPPROTO_IP, IP_TOS },
	{ IPPROTO_IPV6, IPV6_V6ONLY },
	{ IPPROTO_IPV6, IPV6_TCLASS },
};

/* The macros of the library leave a field out, which compilers warn about. */
static struct scmp_arg_cmp arg_is(unsigned arg, scmp_datum_t value)
{
	return (struct scmp_arg_cmp){ .arg = arg, .op = SCMP_CMP_EQ, .datum_a = value };
}

static struct scmp_arg_cmp arg_masked(unsigned arg, scmp_datum_t mask, scmp_datum_t value)
{
	return (struct scmp_arg_cmp){
		.arg = arg, .op = SCMP_CMP_MASKED_EQ, .datum_a = mask, .datum_b = value
	};
}

static int allow_sockopts(scmp_filter_ctx ctx)
{
	for (size_t i = 0; i < SL_ARRAY_LEN(sockopts); i++) {
		int r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(setsockopt), 2,
					 arg_is(1, (scmp_datum_t)sockopts[i].level),
					 arg_is(2, (scmp_datum_t)sockopts[i].name));
		if (r < 0)
			return r;
	}
	return 0;
}

/* TCP and UDP, whatever flags; everything else does not exist. */
static int allow_sockets(scmp_filter_ctx ctx)
{
	static const uint32_t families[] = { AF_INET, AF_INET6 };
	static const uint32_t types[] = { SOCK_STREAM, SOCK_DGRAM };

	for (size_t i = 0; i < 4; i++) {
		int r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(socket), 2,
					 arg_is(0, families[i / 2]),
					 arg_masked(1, 0xf, types[i % 2]));
		if (r < 0)
			return r;
	}
	/* Name services and logs of libraries. */
	return seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EAFNOSUPPORT), SCMP_SYS(socket), 1,
				arg_is(0, AF_UNIX));
}

static int allow_values(scmp_filter_ctx ctx, int call, unsigned arg, const uint32_t *values,
			size_t n)
{
	for (size_t i = 0; i < n; i++) {
		int r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, call, 1, arg_is(arg, values[i]));
		if (r < 0)
			return r;
	}
	return 0;
}

static int allow_fcntl_ioctl(scmp_filter_ctx ctx)
{
	static const uint32_t fcntls[] = { F_GETFD,         F_SETFD,      F_GETFL,
					   F_SETFL,         F_SETPIPE_SZ, F_GETPIPE_SZ,
					   F_DUPFD_CLOEXEC, F_GET_SEALS,  F_ADD_SEALS };
	static const uint32_t ioctls[] = { FIONREAD, FIONBIO, SIOCOUTQ, SIOCOUTQNSD };
	int r = allow_values(ctx, SCMP_SYS(fcntl), 1, fcntls, SL_ARRAY_LEN(fcntls));

	return r < 0 ? r : allow_values(ctx, SCMP_SYS(ioctl), 1, ioctls, SL_ARRAY_LEN(ioctls));
}

/* No memory is ever writable or mappable as code. */
static int allow_memory(scmp_filter_ctx ctx)
{
	static const int calls[] = { SCMP_SYS(mmap), SCMP_SYS(mprotect) };

	for (size_t i = 0; i < SL_ARRAY_LEN(calls); i++) {
		int r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, calls[i], 1,
					 arg_masked(2, PROT_EXEC, 0));
		if (r < 0)
			return r;
	}
	return 0;
}

/* Threads yes, processes and namespaces no. clone3() hides its flags, so glibc is sent to clone().
 */
static int allow_threads(scmp_filter_ctx ctx)
{
	const scmp_datum_t must = CLONE_THREAD | CLONE_VM | CLONE_SIGHAND;
	const scmp_datum_t never = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER |
				   CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWCGROUP;
	int r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
				 arg_masked(0, must | never, must));

	if (r < 0)
		return r;
	return seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
}

/* Signals to itself only (abort()), names of threads and mappings, limits for reading. */
static int allow_self(scmp_filter_ctx ctx)
{
	static const uint32_t prctls[] = { PR_SET_NAME, PR_SET_VMA };
	int r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1,
				 arg_is(0, (scmp_datum_t)getpid()));

	if (r == 0)
		r = allow_values(ctx, SCMP_SYS(prctl), 0, prctls, SL_ARRAY_LEN(prctls));
	if (r == 0)
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(prlimit64), 1, arg_is(2, 0));
	if (r == 0) /* fstat() of newer C libraries */
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(newfstatat), 1,
				     arg_masked(3, AT_EMPTY_PATH, AT_EMPTY_PATH));
	return r == 0 ? seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOENT), SCMP_SYS(newfstatat), 1,
					 arg_masked(3, AT_EMPTY_PATH, 0))
		      : r;
}

static int add_lists(scmp_filter_ctx ctx)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < SL_ARRAY_LEN(plain); i++)
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, plain[i], 0);
	for (size_t i = 0; r == 0 && i < SL_ARRAY_LEN(no_files); i++)
		r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOENT), no_files[i], 0);
	return r;
}

static int build(scmp_filter_ctx ctx)
{
	static const rule_fn rules[] = { add_lists,         allow_sockopts, allow_sockets,
					 allow_fcntl_ioctl, allow_memory,   allow_threads,
					 allow_self };
	int r = 0;

	for (size_t i = 0; r == 0 && i < SL_ARRAY_LEN(rules); i++)
		r = rules[i](ctx);
	if (r == 0)
		r = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1);
	/* A chain of comparisons would cost each call three times as much. */
	if (r == 0)
		r = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	return r;
}

/* Only async-signal-safe calls; what the default filter would have killed silently. */
static void on_sigsys(int sig, siginfo_t *si, void *context)
{
	char text[] = "sluiced: proxy: system call 0000 is not in the filter\n";
	char *digits = strchr(text, '0');
	unsigned n = (unsigned)si->si_syscall;

	(void)sig;
	(void)context;
	for (int i = 3; i >= 0; i--, n /= 10)
		digits[i] = (char)('0' + n % 10);
	if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0)
		_exit(159);
	_exit(159);
}

static bool wants_trap(void)
{
	const char *mode = getenv("SLUICE_SECCOMP");

	return mode && strcmp(mode, "trap") == 0;
}

static int catch_sigsys(void)
{
	struct sigaction sa = { .sa_flags = SA_SIGINFO };

	sa.sa_sigaction = on_sigsys;
	return sigaction(SIGSYS, &sa, NULL) < 0 ? -errno : 0;
}

int sl_sandbox_enter(bool *ret_on)
{
	bool is_trap = wants_trap();
	scmp_filter_ctx ctx = seccomp_init(is_trap ? SCMP_ACT_TRAP : SCMP_ACT_KILL_PROCESS);
	int r;

	if (!ctx)
		return -ENOMEM;
	r = is_trap ? catch_sigsys() : 0;
	if (r == 0)
		r = build(ctx);
	if (r == 0)
		r = seccomp_load(ctx);
	seccomp_release(ctx);
	if (r == -ENOSYS || r == -EINVAL) {
		(void)sl_warn(r, "this kernel has no system call filter, continuing without");
		*ret_on = false;
		return 0;
	}
	if (r == 0)
		*ret_on = true;
	return r;
}

#else

int sl_sandbox_enter(bool *ret_on)
{
	sl_log(SL_LOG_WARN, "built with a sanitizer: no system call filter");
	*ret_on = false;
	return 0;
}
#endif
