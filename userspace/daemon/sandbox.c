/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "daemon/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/landlock.h>
#include <linux/netlink.h>
#include <linux/sockios.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"

#ifndef IP_LOCAL_PORT_RANGE
#define IP_LOCAL_PORT_RANGE 51
#endif
#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#endif

#ifndef SO_DETACH_BPF
#define SO_DETACH_BPF SO_DETACH_FILTER
#endif
/* Linux 5.19 and 6.2, in newer headers than Debian 12's. */
#ifndef LANDLOCK_ACCESS_FS_REFER
#define LANDLOCK_ACCESS_FS_REFER (1ULL << 13)
#endif
#ifndef LANDLOCK_ACCESS_FS_TRUNCATE
#define LANDLOCK_ACCESS_FS_TRUNCATE (1ULL << 14)
#endif

#ifndef SL_SANITIZED
/* Of a role; lists end by their lengths. */
struct option {
	int level;
	int name;
};

struct rules {
	const int *plain;
	size_t n_plain;
	const struct option *sockopts;
	size_t n_sockopts;
	const uint32_t *bpf; /* commands */
	size_t n_bpf;
	int (*more)(scmp_filter_ctx ctx);
	void (*on_sigsys)(int sig, siginfo_t *si, void *context);
};

/* ---- the proxy ---- */

/* Calls that are harmless with any argument once all descriptors are sockets, pipes and memfds. */
static const int proxy_plain[] = {
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
	SCMP_SYS(setpriority), /* lower, for signers */
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

static const struct option proxy_sockopts[] = {
	{ SOL_SOCKET, SO_ATTACH_BPF }, /* the broker's program: it can load none itself */
	{ SOL_SOCKET, SO_DETACH_BPF },
	{ SOL_SOCKET, SO_PASSCRED }, /* to empty a channel */
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
	{ IPPROTO_TCP, TCP_ULP },
	{ SOL_TLS, TLS_TX }, /* the connection's own keys, to the kernel: tls/ktls.c */
	{ SOL_TLS, TLS_RX },
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

static int allow_sockopts(scmp_filter_ctx ctx, const struct option *options, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		int r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(setsockopt), 2,
					 arg_is(1, (scmp_datum_t)options[i].level),
					 arg_is(2, (scmp_datum_t)options[i].name));
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
	return r == 0 ? seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(prlimit64), 1, arg_is(2, 0))
		      : r;
}

static int refuse_files(scmp_filter_ctx ctx)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < SL_ARRAY_LEN(no_files); i++)
		r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOENT), no_files[i], 0);
	if (r == 0) /* fstat() of newer C libraries */
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(newfstatat), 1,
				     arg_masked(3, AT_EMPTY_PATH, AT_EMPTY_PATH));
	return r == 0 ? seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOENT), SCMP_SYS(newfstatat), 1,
					 arg_masked(3, AT_EMPTY_PATH, 0))
		      : r;
}

static int more_for_proxy(scmp_filter_ctx ctx)
{
	static int (*const parts[])(scmp_filter_ctx) = { refuse_files, allow_sockets,
							 allow_fcntl_ioctl, allow_threads };
	int r = 0;

	for (size_t i = 0; r == 0 && i < SL_ARRAY_LEN(parts); i++)
		r = parts[i](ctx);
	return r;
}

/* Only async-signal-safe calls; what the default filter would have killed silently. */
static void report_sigsys(const char *who, const siginfo_t *si)
{
	char text[] = "system call 0000 is not in the filter\n";
	char *digits = strchr(text, '0');
	unsigned n = (unsigned)si->si_syscall;

	for (int i = 3; i >= 0; i--, n /= 10)
		digits[i] = (char)('0' + n % 10);
	if (write(STDERR_FILENO, who, strlen(who)) < 0 ||
	    write(STDERR_FILENO, text, sizeof(text) - 1) < 0)
		_exit(159);
	_exit(159);
}

static void on_proxy_sigsys(int sig, siginfo_t *si, void *context)
{
	(void)sig;
	(void)context;
	report_sigsys("sluiced: proxy: ", si);
}

/* Reading maps it was given read-only descriptors of. */
static const uint32_t proxy_bpf[] = { BPF_MAP_LOOKUP_ELEM, BPF_MAP_LOOKUP_BATCH,
				      BPF_OBJ_GET_INFO_BY_FD };

static const struct rules proxy_rules = {
	.plain = proxy_plain,
	.n_plain = SL_ARRAY_LEN(proxy_plain),
	.sockopts = proxy_sockopts,
	.n_sockopts = SL_ARRAY_LEN(proxy_sockopts),
	.bpf = proxy_bpf,
	.n_bpf = SL_ARRAY_LEN(proxy_bpf),
	.more = more_for_proxy,
	.on_sigsys = on_proxy_sigsys,
};

/* ---- the broker ---- */

/*
 * A thread, one more that follows the kernel's NAT, sockets that others made, objects of the kernel
 * by their descriptors, and files: pins, where sl_sandbox_confine_files() lets it.
 */
static const int broker_plain[] = {
	SCMP_SYS(access),
	SCMP_SYS(brk),
	SCMP_SYS(chmod), /* its directory is 0700, whatever somebody made of it */
	SCMP_SYS(clock_getres),
	SCMP_SYS(clock_gettime),
	SCMP_SYS(clock_nanosleep),
	SCMP_SYS(close),
	SCMP_SYS(epoll_create1),
	SCMP_SYS(epoll_ctl),
	SCMP_SYS(epoll_pwait),
	SCMP_SYS(epoll_pwait2),
	SCMP_SYS(epoll_wait),
	SCMP_SYS(eventfd2),
	SCMP_SYS(exit),
	SCMP_SYS(exit_group),
	SCMP_SYS(faccessat),
	SCMP_SYS(faccessat2),
	SCMP_SYS(fchmodat),
	SCMP_SYS(flock), /* of bpf_dir, when it is emptied */
	SCMP_SYS(fstat),
	SCMP_SYS(fstatfs),
	SCMP_SYS(futex),
	SCMP_SYS(getdents64),
	SCMP_SYS(getegid),
	SCMP_SYS(geteuid),
	SCMP_SYS(getgid),
	SCMP_SYS(getpeername),
	SCMP_SYS(getpid),
	SCMP_SYS(getppid),
	SCMP_SYS(getrandom),
	SCMP_SYS(getsockname),
	SCMP_SYS(getsockopt),
	SCMP_SYS(gettid),
	SCMP_SYS(gettimeofday),
	SCMP_SYS(getuid),
	SCMP_SYS(lseek),
	SCMP_SYS(lstat),
	SCMP_SYS(madvise),
	SCMP_SYS(membarrier),
	SCMP_SYS(mkdir),
	SCMP_SYS(mkdirat),
	SCMP_SYS(mremap),
	SCMP_SYS(munmap),
	SCMP_SYS(nanosleep),
	SCMP_SYS(newfstatat),
	SCMP_SYS(open),
	SCMP_SYS(openat),
	SCMP_SYS(poll),
	SCMP_SYS(ppoll),
	SCMP_SYS(pread64),
	SCMP_SYS(pwrite64),
	SCMP_SYS(read),
	SCMP_SYS(readlink),
	SCMP_SYS(readlinkat),
	SCMP_SYS(readv),
	SCMP_SYS(recvfrom),
	SCMP_SYS(recvmmsg),
	SCMP_SYS(recvmsg),
	SCMP_SYS(restart_syscall),
	SCMP_SYS(rmdir),
	SCMP_SYS(rseq),
	SCMP_SYS(rt_sigaction),
	SCMP_SYS(rt_sigprocmask),
	SCMP_SYS(rt_sigreturn),
	SCMP_SYS(sched_yield),
	SCMP_SYS(sendmsg),
	SCMP_SYS(sendto),
	SCMP_SYS(set_robust_list),
	SCMP_SYS(shutdown),
	SCMP_SYS(sigaltstack),
	SCMP_SYS(stat),
	SCMP_SYS(statfs),
	SCMP_SYS(statx),
	SCMP_SYS(sysinfo),
	SCMP_SYS(time),
	SCMP_SYS(timerfd_create),
	SCMP_SYS(timerfd_settime),
	SCMP_SYS(uname),
	SCMP_SYS(unlink),
	SCMP_SYS(unlinkat),
	SCMP_SYS(write),
	SCMP_SYS(writev),
};

static const struct option broker_sockopts[] = {
	{ IPPROTO_TCP, TCP_REPAIR },
	{ IPPROTO_TCP, TCP_QUICKACK },
	{ SOL_SOCKET, SO_ATTACH_BPF },
	{ SOL_SOCKET, SO_DETACH_BPF },
	{ SOL_SOCKET, SO_LINGER },
	{ SOL_SOCKET, SO_RCVBUF },
	{ SOL_SOCKET, SO_REUSEADDR },
	{ SOL_SOCKET, SO_PASSCRED },
	{ SOL_SOCKET, SO_SNDBUF }, /* transactions of nf_tables, events of conntrack */
	{ SOL_SOCKET, SO_SNDBUFFORCE },
	{ SOL_SOCKET, SO_RCVBUFFORCE },
	{ SOL_SOCKET, SO_RCVTIMEO },
	{ SOL_SOCKET, SO_SNDTIMEO },
	{ SOL_NETLINK, NETLINK_EXT_ACK }, /* libbpf, for clsact */
	{ SOL_NETLINK, NETLINK_ADD_MEMBERSHIP },
	{ SOL_NETLINK, NETLINK_DROP_MEMBERSHIP },
	{ SOL_NETLINK, NETLINK_CAP_ACK },
};

/* Everything by descriptors: neither a program nor a map comes after loading. */
static const uint32_t broker_bpf[] = {
	BPF_MAP_LOOKUP_ELEM,  BPF_MAP_UPDATE_ELEM,
	BPF_MAP_DELETE_ELEM,  BPF_MAP_GET_NEXT_KEY,
	BPF_MAP_LOOKUP_BATCH, BPF_OBJ_PIN,
	BPF_OBJ_GET,          BPF_PROG_TEST_RUN,
	BPF_PROG_QUERY,       BPF_OBJ_GET_INFO_BY_FD,
	BPF_LINK_CREATE,      BPF_LINK_UPDATE,
	BPF_LINK_DETACH,      BPF_PROG_ATTACH, /* to sockmap_sources, again */
};

/* What libraries probe the kernel with, and what it would be refused anyway. */
static int refuse_loading(scmp_filter_ctx ctx)
{
	static const uint32_t commands[] = { BPF_MAP_CREATE,       BPF_PROG_LOAD,
					     BPF_BTF_LOAD,         BPF_PROG_GET_FD_BY_ID,
					     BPF_MAP_GET_FD_BY_ID, BPF_LINK_GET_FD_BY_ID,
					     BPF_BTF_GET_FD_BY_ID };
	int r = 0;

	for (size_t i = 0; r == 0 && i < SL_ARRAY_LEN(commands); i++)
		r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(bpf), 1,
				     arg_is(0, commands[i]));
	return r;
}

static int allow_netlink(scmp_filter_ctx ctx)
{
	static const uint32_t protocols[] = { NETLINK_ROUTE, NETLINK_NETFILTER };
	int r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(bind), 1, arg_is(2, 12));

	for (size_t i = 0; r == 0 && i < SL_ARRAY_LEN(protocols); i++)
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(socket), 2,
				     arg_is(0, AF_NETLINK), arg_is(2, protocols[i]));
	return r;
}

static int more_for_broker(scmp_filter_ctx ctx)
{
	static const uint32_t fcntls[] = { F_GETFD,         F_SETFD,     F_GETFL,    F_SETFL,
					   F_DUPFD_CLOEXEC, F_GET_SEALS, F_ADD_SEALS };
	int r = allow_values(ctx, SCMP_SYS(fcntl), 1, fcntls, SL_ARRAY_LEN(fcntls));

	if (r == 0)
		r = allow_values(ctx, SCMP_SYS(ioctl), 1, (const uint32_t[]){ FIONREAD, SIOCOUTQ },
				 2);
	if (r == 0)
		r = refuse_loading(ctx);
	if (r == 0)
		r = allow_threads(ctx);
	return r < 0 ? r : allow_netlink(ctx);
}

static void on_broker_sigsys(int sig, siginfo_t *si, void *context)
{
	(void)sig;
	(void)context;
	report_sigsys("sluiced: broker: ", si);
}

static const struct rules broker_rules = {
	.plain = broker_plain,
	.n_plain = SL_ARRAY_LEN(broker_plain),
	.sockopts = broker_sockopts,
	.n_sockopts = SL_ARRAY_LEN(broker_sockopts),
	.bpf = broker_bpf,
	.n_bpf = SL_ARRAY_LEN(broker_bpf),
	.more = more_for_broker,
	.on_sigsys = on_broker_sigsys,
};

/* ---- files of the broker ---- */

/* Whatever Landlock of Linux 6.2 knows of, as far as this kernel does. */
static uint64_t handled_access(long abi)
{
	uint64_t all = LANDLOCK_ACCESS_FS_MAKE_SYM * 2 - 1;

	if (abi >= 2)
		all |= LANDLOCK_ACCESS_FS_REFER;
	if (abi >= 3)
		all |= LANDLOCK_ACCESS_FS_TRUNCATE;
	return all;
}

static int allow_beneath(int ruleset, const char *path, uint64_t access, bool is_kept)
{
	_cleanup_fd_ int fd = open(path, O_PATH | O_CLOEXEC);
	const struct landlock_path_beneath_attr rule = { .allowed_access = access,
							 .parent_fd = fd };

	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	if (syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) < 0)
		return -errno;
	if (is_kept)
		(void)SL_TAKE_FD(fd);
	return 0;
}

/* The directory may have to be made again, so the one it is in. */
static int allow_pins(int ruleset, const char *bpf_dir)
{
	const uint64_t access = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE |
				LANDLOCK_ACCESS_FS_READ_DIR | LANDLOCK_ACCESS_FS_REMOVE_DIR |
				LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_DIR |
				LANDLOCK_ACCESS_FS_MAKE_REG;
	_cleanup_free_ char *parent = strdup(bpf_dir);
	char *end = parent ? parent + strlen(parent) : NULL;

	if (!parent)
		return -ENOMEM;
	while (end > parent + 1 && end[-1] == '/')
		*--end = '\0';
	end = strrchr(parent, '/');
	if (end)
		end[end == parent] = '\0';
	return allow_beneath(ruleset, end ? parent : ".", access, false);
}

/*
 * Settings that the broker changes and puts back, or looks at. Kept open: the kernel makes another
 * inode for it when nobody holds this one.
 */
static int allow_settings(int ruleset, uint64_t handled)
{
	static const struct {
		const char *path; /* below /proc/sys/net/ */
		bool is_written;
	} settings[] = {
		{ "ipv4/ip_local_reserved_ports", true },
		{ "ipv4/ip_forward", false },
		{ "ipv6/conf/all/forwarding", false },
		{ "ipv4/conf/all/route_localnet", true },
		{ "netfilter/nf_conntrack_acct", true },
		{ "netfilter/nf_conntrack_timestamp", true },
		{ "netfilter/nf_conntrack_events", true },
		{ "netfilter/nf_conntrack_count", false },
		{ "netfilter/nf_conntrack_max", false },
	};
	const uint64_t writing =
		handled & (LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_TRUNCATE);
	int r = 0;

	for (size_t i = 0; r == 0 && i < SL_ARRAY_LEN(settings); i++) {
		char path[96];

		(void)snprintf(path, sizeof(path), "/proc/sys/net/%s", settings[i].path);
		r = allow_beneath(ruleset, path,
				  LANDLOCK_ACCESS_FS_READ_FILE |
					  (settings[i].is_written ? writing : 0),
				  true);
	}
	if (r == 0) /* of each interface there is, or will be */
		r = allow_beneath(ruleset, "/proc/sys/net/ipv4/conf",
				  LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR, true);
	return r;
}

int sl_sandbox_confine_files(const char *bpf_dir)
{
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	const struct landlock_ruleset_attr attr = { .handled_access_fs = handled_access(abi) };
	_cleanup_fd_ int ruleset = -1;
	int r;

	if (abi < 1)
		return 0;
	ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);
	if (ruleset < 0)
		return -errno;
	r = allow_pins(ruleset, bpf_dir);
	if (r == 0)
		r = allow_settings(ruleset, attr.handled_access_fs);
	if (r == 0 && syscall(SYS_landlock_restrict_self, ruleset, 0) < 0)
		r = -errno;
	return r;
}

/* ---- both ---- */

static int build(scmp_filter_ctx ctx, const struct rules *rules)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < rules->n_plain; i++)
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, rules->plain[i], 0);
	if (r == 0)
		r = allow_sockopts(ctx, rules->sockopts, rules->n_sockopts);
	if (r == 0)
		r = allow_values(ctx, SCMP_SYS(bpf), 0, rules->bpf, rules->n_bpf);
	if (r == 0)
		r = allow_memory(ctx);
	if (r == 0)
		r = allow_self(ctx);
	if (r == 0)
		r = rules->more(ctx);
	if (r == 0)
		r = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1);
	/* A chain of comparisons would cost each call three times as much. */
	if (r == 0)
		r = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	return r;
}

static bool wants_trap(void)
{
	const char *mode = getenv("SLUICE_SECCOMP");

	return mode && strcmp(mode, "trap") == 0;
}

static int catch_sigsys(const struct rules *rules)
{
	struct sigaction sa = { .sa_flags = SA_SIGINFO };

	sa.sa_sigaction = rules->on_sigsys;
	return sigaction(SIGSYS, &sa, NULL) < 0 ? -errno : 0;
}

int sl_sandbox_enter(enum sl_role role, bool *ret_on)
{
	const struct rules *rules = role == SL_ROLE_BROKER ? &broker_rules : &proxy_rules;
	bool is_trap = wants_trap();
	scmp_filter_ctx ctx = seccomp_init(is_trap ? SCMP_ACT_TRAP : SCMP_ACT_KILL_PROCESS);
	int r;

	if (!ctx)
		return -ENOMEM;
	r = is_trap ? catch_sigsys(rules) : 0;
	if (r == 0)
		r = build(ctx, rules);
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

int sl_sandbox_enter(enum sl_role role, bool *ret_on)
{
	(void)role;
	sl_log(SL_LOG_WARN, "built with a sanitizer: no system call filter");
	*ret_on = false;
	return 0;
}

int sl_sandbox_confine_files(const char *bpf_dir)
{
	(void)bpf_dir;
	return 0;
}
#endif
