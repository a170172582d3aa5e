/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The system call filters of proxy and broker: each case in a process of its own. */
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/landlock.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/sandbox.h"
#include "nft/ct_stream.h"
#include "nft/table.h"

#define SKIPPED 77

/* Exit code of the case, or 1000 + the signal that killed it. */
static int run(enum sl_role role, int (*fn)(void))
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0) {
		bool on = false;

		if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || sl_sandbox_enter(role, &on) < 0)
			_exit(100);
		_exit(on ? fn() : SKIPPED);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? 1000 + WTERMSIG(status) : WEXITSTATUS(status);
}

static void *thread_main(void *arg)
{
	return prctl(PR_SET_NAME, "thread", 0, 0, 0) == 0 ? arg : NULL;
}

static int case_threads(void)
{
	int mark;
	void *ret = NULL;
	pthread_t t;

	if (pthread_create(&t, NULL, thread_main, &mark) != 0)
		return 1;
	if (pthread_join(t, &ret) != 0)
		return 2;
	return ret == &mark ? 0 : 3;
}

static int case_sockets(void)
{
	int one = 1;
	int s = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int u = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int n;

	if (s < 0)
		return 1;
	if (u < 0 && errno != EAFNOSUPPORT)
		return 2;
	if (setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) < 0)
		return 3;
	if (ioctl(s, FIONREAD, &n) < 0 && errno != EINVAL)
		return 4;
	return socket(AF_UNIX, SOCK_STREAM, 0) < 0 && errno == EAFNOSUPPORT ? 0 : 5;
}

static int case_pipes(void)
{
	int a[2], b[2];

	if (pipe2(a, O_CLOEXEC | O_NONBLOCK) < 0 || pipe2(b, O_CLOEXEC | O_NONBLOCK) < 0)
		return 1;
	if (fcntl(a[1], F_SETPIPE_SZ, 65536) < 65536)
		return 2;
	if (write(a[1], "x", 1) != 1)
		return 3;
	return splice(a[0], NULL, b[1], NULL, 1, SPLICE_F_NONBLOCK) == 1 ? 0 : 4;
}

static int case_loop(void)
{
	struct epoll_event ev = { .events = EPOLLIN };
	int ep = epoll_create1(EPOLL_CLOEXEC);
	int fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);

	if (ep < 0 || fd < 0 || epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) < 0)
		return 1;
	return epoll_wait(ep, &ev, 1, 1000) == 1 ? 0 : 2;
}

static int case_memory(void)
{
	char *p = malloc(64 << 20);
	struct rlimit limit;

	if (!p)
		return 1;
	memset(p, 1, 64 << 20);
	p = realloc(p, 128 << 20);
	if (!p)
		return 2;
	free(p);
	return getrlimit(RLIMIT_NOFILE, &limit) == 0 ? 0 : 3;
}

/* Libraries that look for a file get an answer, not death. */
static int case_no_files(void)
{
	struct stat st;

	if (open("/etc/passwd", O_RDONLY) != -1 || errno != ENOENT)
		return 1;
	if (access("/etc/passwd", R_OK) != -1 || errno != ENOENT)
		return 2;
	return stat("/etc/passwd", &st) == -1 && errno == ENOENT ? 0 : 3;
}

static int case_abort(void)
{
	abort();
}

static int case_exec(void)
{
	char *argv[] = { (char *)"/bin/true", NULL };

	(void)execv(argv[0], argv);
	return 0;
}

static int case_fork(void)
{
	return fork() < 0;
}

static int case_kill(void)
{
	return kill(getppid(), 0);
}

static int case_ptrace(void)
{
	return (int)ptrace(PTRACE_TRACEME, 0, NULL, NULL);
}

static int case_bpf(void)
{
	return (int)syscall(SYS_bpf, 0, NULL, 0);
}

static int case_io_uring(void)
{
	return (int)syscall(SYS_io_uring_setup, 1, NULL);
}

static int case_listen(void)
{
	return listen(0, 1);
}

static int case_netlink(void)
{
	return socket(AF_NETLINK, SOCK_RAW, 0);
}

static int case_raw(void)
{
	return socket(AF_INET, SOCK_RAW, IPPROTO_TCP);
}

static int case_repair(void)
{
	int one = 1;

	return setsockopt(0, IPPROTO_TCP, TCP_REPAIR, &one, sizeof(one));
}

static int case_filter(void)
{
	return setsockopt(0, SOL_SOCKET, SO_ATTACH_FILTER, NULL, 0);
}

static int case_exec_memory(void)
{
	return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
	       MAP_FAILED;
}

static int case_setrlimit(void)
{
	const struct rlimit limit = { 100, 100 };

	return setrlimit(RLIMIT_NOFILE, &limit);
}

static int case_dumpable(void)
{
	return prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
}

static int case_setuid(void)
{
	return setuid(1);
}

static int case_unshare(void)
{
	return (int)syscall(SYS_unshare, 0);
}

static int case_vm(void)
{
	return (int)process_vm_readv(getppid(), NULL, 0, NULL, 0, 0);
}

/* ---- bpf(2) and what only the broker may ---- */

static int bpf_errno(int command)
{
	union bpf_attr attr = { 0 };

	return syscall(SYS_bpf, command, &attr, sizeof(attr)) < 0 ? errno : 0;
}

/* No descriptor here is a map: the kernel was asked, and said so. */
static int case_read_map(void)
{
	return bpf_errno(BPF_MAP_LOOKUP_ELEM) != 0 && bpf_errno(BPF_MAP_LOOKUP_BATCH) != 0 ? 0 : 1;
}

static int case_write_map(void)
{
	return bpf_errno(BPF_MAP_UPDATE_ELEM);
}

static int case_load(void)
{
	return bpf_errno(BPF_PROG_LOAD);
}

static int case_attach_link(void)
{
	return bpf_errno(BPF_LINK_CREATE);
}

/* The socket is not one that filters can be attached to, but the call is let through. */
static int case_freeze(void)
{
	int fd = -1;
	int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (setsockopt(s, SOL_SOCKET, SO_ATTACH_BPF, &fd, sizeof(fd)) == 0 || errno != EBADF)
		return 1;
	return setsockopt(s, SOL_SOCKET, SO_DETACH_BPF, &fd, sizeof(fd)) < 0 && errno == ENOENT ? 0
												: 2;
}

static int case_broker_maps(void)
{
	static const int commands[] = { BPF_MAP_LOOKUP_ELEM, BPF_MAP_UPDATE_ELEM,
					BPF_MAP_DELETE_ELEM, BPF_PROG_TEST_RUN,
					BPF_LINK_CREATE,     BPF_LINK_UPDATE };

	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		if (bpf_errno(commands[i]) == 0)
			return (int)i + 1;
	return 0;
}

/* Libraries probe for it: refused, not killed, and refused by the filter even for root. */
static int case_broker_load(void)
{
	return bpf_errno(BPF_PROG_LOAD) == EPERM && bpf_errno(BPF_MAP_CREATE) == EPERM &&
			       bpf_errno(BPF_BTF_LOAD) == EPERM
		       ? 0
		       : 1;
}

static int case_broker_netlink(void)
{
	struct sockaddr_nl nl = { .nl_family = AF_NETLINK };
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

	return fd >= 0 && bind(fd, (struct sockaddr *)&nl, sizeof(nl)) == 0 ? 0 : 1;
}

/* What it needs while it runs; without the right to, it is refused, but not killed. */
static int case_broker_nat(void)
{
	const struct sl_ct_stream_conf conf = {
		.n_marks = 1, .mark_base = 1, .max_records = 1, .dump_ms = 1000, .rcvbuf = 65536
	};
	struct sl_nft_table *table = NULL;
	struct sl_ct_stream *stream = NULL;
	const char *what;
	int r = sl_nft_table_open("sluice-sandbox", &table);

	if (r < 0)
		return r == -EPERM || r == -EOPNOTSUPP ? 0 : 1;
	sl_nft_table_close(table);
	r = sl_ct_stream_start(&conf, &stream, &what);
	if (r < 0)
		return r == -EPERM || r == -EPROTONOSUPPORT ? 0 : 2;
	sl_ct_stream_dump_soon(stream);
	for (int i = 0; i < 1000; i++) {
		struct sl_ct_stream_counts c;

		sl_ct_stream_get_counts(stream, &c);
		if (c.dumps > 0) {
			sl_ct_stream_stop(stream);
			return 0;
		}
		(void)usleep(1000);
	}
	return 3;
}

static int case_broker_loop(void)
{
	return case_loop() == 0 && case_memory() == 0 ? 0 : 1;
}

static int case_tcp(void)
{
	return socket(AF_INET, SOCK_STREAM, 0);
}

static int case_unix(void)
{
	return socket(AF_UNIX, SOCK_STREAM, 0);
}

static int case_accept(void)
{
	return accept(0, NULL, NULL);
}

static int case_thread(void)
{
	pthread_t t;

	return pthread_create(&t, NULL, thread_main, NULL);
}

static int case_map_by_id(void)
{
	return bpf_errno(BPF_MAP_GET_NEXT_ID);
}

struct row {
	const char *why;
	int (*fn)(void);
};

static void run_rows(enum sl_role role, const struct row *rows, size_t n, int expected)
{
	for (size_t i = 0; i < n; i++) {
		int got = run(role, rows[i].fn);

		if (got == SKIPPED) {
			print_message("skipped: built without the filter\n");
			skip();
		}
		if (got != expected)
			fail_msg("%s: %d, not %d", rows[i].why, got, expected);
	}
}

static void test_allowed(void **state)
{
	static const struct row rows[] = {
		{ "threads", case_threads }, { "sockets", case_sockets },
		{ "pipes", case_pipes },     { "loop", case_loop },
		{ "memory", case_memory },   { "files are not there", case_no_files },
		{ "freeze", case_freeze },   { "reading maps", case_read_map },
	};

	(void)state;
	run_rows(SL_ROLE_PROXY, rows, sizeof(rows) / sizeof(rows[0]), 0);
}

static void test_abort_is_abort(void **state)
{
	static const struct row row = { "abort", case_abort };

	(void)state;
	run_rows(SL_ROLE_PROXY, &row, 1, 1000 + SIGABRT);
}

static const struct row forbidden[] = {
	{ "exec", case_exec },
	{ "fork", case_fork },
	{ "kill", case_kill },
	{ "ptrace", case_ptrace },
	{ "bpf", case_bpf },
	{ "writing maps", case_write_map },
	{ "loading programs", case_load },
	{ "attaching programs", case_attach_link },
	{ "io_uring", case_io_uring },
	{ "listen", case_listen },
	{ "netlink", case_netlink },
	{ "raw socket", case_raw },
	{ "TCP_REPAIR", case_repair },
	{ "SO_ATTACH_FILTER", case_filter },
	{ "executable memory", case_exec_memory },
	{ "setrlimit", case_setrlimit },
	{ "dumpable again", case_dumpable },
	{ "setuid", case_setuid },
	{ "unshare", case_unshare },
	{ "memory of others", case_vm },
};

static void test_forbidden_kills(void **state)
{
	(void)state;
	run_rows(SL_ROLE_PROXY, forbidden, sizeof(forbidden) / sizeof(forbidden[0]), 1000 + SIGSYS);
}

/* ---- the broker ---- */

static void test_broker_allowed(void **state)
{
	static const struct row rows[] = {
		{ "loop, memory", case_broker_loop },
		{ "maps, links", case_broker_maps },
		{ "loading is refused", case_broker_load },
		{ "netlink", case_broker_netlink },
		{ "a thread", case_thread },
		{ "the kernel's NAT", case_broker_nat },
	};

	(void)state;
	run_rows(SL_ROLE_BROKER, rows, sizeof(rows) / sizeof(rows[0]), 0);
}

static const struct row broker_forbidden[] = {
	{ "exec", case_exec },
	{ "fork", case_fork },
	{ "kill", case_kill },
	{ "ptrace", case_ptrace },
	{ "io_uring", case_io_uring },
	{ "TCP", case_tcp },
	{ "a Unix socket", case_unix },
	{ "a raw socket", case_raw },
	{ "listen", case_listen },
	{ "accept", case_accept },
	{ "SO_ATTACH_FILTER", case_filter },
	{ "executable memory", case_exec_memory },
	{ "setrlimit", case_setrlimit },
	{ "dumpable again", case_dumpable },
	{ "setuid", case_setuid },
	{ "unshare", case_unshare },
	{ "maps of others", case_map_by_id },
};

static void test_broker_forbidden_kills(void **state)
{
	(void)state;
	run_rows(SL_ROLE_BROKER, broker_forbidden,
		 sizeof(broker_forbidden) / sizeof(broker_forbidden[0]), 1000 + SIGSYS);
}

/* Beside its pins it reaches no file, whoever it is. */
static int reach_files(const char *root)
{
	char path[128];
	char pins[64];
	int fd;

	(void)snprintf(pins, sizeof(pins), "%s/bpf/sluice", root);
	if (mkdir(pins, 0700) < 0 || sl_sandbox_confine_files(pins) < 0)
		return 1;
	(void)snprintf(path, sizeof(path), "%s/a", pins);
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, "x", 1) != 1 || unlink(path) < 0)
		return 2;
	if (rmdir(pins) < 0 || mkdir(pins, 0700) < 0 || rmdir(pins) < 0)
		return 3;
	(void)snprintf(path, sizeof(path), "%s/other", root);
	if (open(path, O_CREAT | O_WRONLY, 0600) >= 0 || errno != EACCES)
		return 4;
	if (open("/etc/passwd", O_RDONLY) >= 0 || errno != EACCES)
		return 5;
	fd = open("/proc/sys/net/ipv4/ip_local_reserved_ports", O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, path, 1) < 0)
		return 6;
	fd = open("/proc/sys/net/ipv4/ip_forward", O_WRONLY | O_CLOEXEC);
	if (fd >= 0 || errno != EACCES)
		return 8;
	fd = open("/proc/sys/net/ipv4/conf/all/route_localnet", O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, path, 1) != 1)
		return 9;
	fd = open("/proc/sys/net/ipv6/conf/all/forwarding", O_RDONLY | O_CLOEXEC);
	if (fd < 0 && errno != ENOENT)
		return 10;
	fd = open("/proc/sys/net/ipv4/conf", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || openat(fd, "lo/route_localnet", O_RDONLY | O_CLOEXEC) < 0)
		return 11;
	if (openat(fd, "lo/route_localnet", O_WRONLY | O_CLOEXEC) >= 0 || errno != EACCES)
		return 12;
	return open("/proc/sys/net/ipv4/ip_local_port_range", O_RDONLY) < 0 && errno == EACCES ? 0
											       : 7;
}

static void test_broker_files(void **state)
{
	char root[] = "/tmp/sl-sandbox-XXXXXX";
	char path[64];
	int status;
	pid_t pid;

	(void)state;
	if (syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION) < 1)
		skip();
#ifdef SL_SANITIZED
	skip();
#endif
	assert_non_null(mkdtemp(root));
	(void)snprintf(path, sizeof(path), "%s/bpf", root);
	assert_int_equal(mkdir(path, 0700), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? 100 : reach_files(root));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(rmdir(root), 0);
	assert_int_equal(status, 0);
}

static void test_trap_mode_says_so(void **state)
{
	int saved = dup(STDERR_FILENO);
	char line[128] = "";
	int p[2];
	int got;

	(void)state;
	assert_int_equal(pipe(p), 0);
	assert_int_equal(setenv("SLUICE_SECCOMP", "trap", 1), 0);
	assert_true(dup2(p[1], STDERR_FILENO) >= 0);
	got = run(SL_ROLE_PROXY, case_ptrace);
	assert_true(dup2(saved, STDERR_FILENO) >= 0);
	assert_int_equal(unsetenv("SLUICE_SECCOMP"), 0);
	assert_int_equal(close(p[1]), 0);
	if (got != SKIPPED) {
		assert_int_equal(got, 159);
		assert_true(read(p[0], line, sizeof(line) - 1) > 0);
		assert_non_null(strstr(line, "system call 0101"));
	}
	assert_int_equal(close(p[0]), 0);
	assert_int_equal(close(saved), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_allowed),
		cmocka_unit_test(test_abort_is_abort),
		cmocka_unit_test(test_forbidden_kills),
		cmocka_unit_test(test_broker_allowed),
		cmocka_unit_test(test_broker_forbidden_kills),
		cmocka_unit_test(test_broker_files),
		cmocka_unit_test(test_trap_mode_says_so),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
