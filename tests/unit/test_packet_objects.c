/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Maps, programs, links and pins of the packet engine; needs root, runs in a network namespace and
 * on a bpf file system of its own.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <cmocka.h>

#include "accel/compat.h"
#include "accel/packet_impl.h"
#include "netns.h"

#define PORTS "/proc/sys/net/ipv4/ip_local_reserved_ports"

static const char *why_skipped;
static char root[] = "/tmp/sl_packet.XXXXXX"; /* the bpf file system */
static char dir[64];
static bool kernel_has_tcx;
static bool has_tcx; /* of this test: what it is tried with */
static unsigned lo;
static unsigned veth;

static const struct sl_packet_options usual = {
	.dir = dir, .max_flows = 4096, .port_from = 40000, .port_to = 41000
};

/* ---- surroundings ---- */

static void command(const char *text)
{
	if (system(text) != 0)
		fail_msg("%s", text);
}

/* A program of somebody else that lets everything pass. */
static int other_program(void)
{
	const struct bpf_insn insns[] = {
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = -1 },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	int fd = bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, "other", "GPL", insns, 2, NULL);

	assert_true(fd >= 0);
	return fd;
}

static int set_up(void **state)
{
	int prog;

	(void)state;
	if (geteuid() != 0) {
		why_skipped = "not root";
		return 0;
	}
	if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    enter_netns() < 0) {
		why_skipped = "no namespaces of its own";
		return 0;
	}
	if (!mkdtemp(root) || mount("bpf", root, "bpf", 0, "mode=0700") < 0) {
		why_skipped = "no bpf file system";
		return 0;
	}
	(void)snprintf(dir, sizeof(dir), "%s/sluice", root);
	command("ip link add sl0 type veth peer name sl1 && ip link set sl0 up && "
		"ip link set sl1 up");
	lo = if_nametoindex("lo");
	veth = if_nametoindex("sl0");
	prog = other_program();
	kernel_has_tcx = sl_packet_can_tcx(prog);
	(void)close(prog);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	if (why_skipped)
		return 0;
	(void)umount(root);
	(void)rmdir(root);
	return 0;
}

static void need_kernel(void)
{
	if (why_skipped) {
		print_message("skipped: %s\n", why_skipped);
		skip();
	}
}

static void need_tcx(void)
{
	need_kernel();
	if (!has_tcx) {
		print_message("skipped: no tcx\n");
		skip();
	}
}

static char *in_dir(const char *name)
{
	static char path[4][128];
	static unsigned i;

	i = (i + 1) % 4;
	(void)snprintf(path[i], sizeof(path[i]), "%s/%s", dir, name);
	return path[i];
}

static bool is_there(const char *name)
{
	struct stat st;

	return lstat(in_dir(name), &st) == 0;
}

/* Names in the directory, in order. */
static const char *listing(void)
{
	static char text[512];
	struct dirent **names = NULL;
	int n = scandir(dir, &names, NULL, alphasort);

	text[0] = '\0';
	for (int i = 0; i < n; i++) {
		if (names[i]->d_name[0] != '.') {
			(void)strcat(text, names[i]->d_name);
			(void)strcat(text, " ");
		}
		free(names[i]);
	}
	free(names);
	return text;
}

#define MAPS "counters events flows meta ports "
#define PROGS "prog_control prog_freeze prog_tc "

static struct sl_packet *open_with(const struct sl_packet_options *o, bool use_tcx,
				   struct sl_packet_found *found)
{
	struct sl_packet *p = NULL;
	struct sl_str report = { 0 };
	int r = sl_packet_open_as(o, use_tcx, found, &report, &p);

	if (r < 0)
		fail_msg("open: %d %s", r, sl_str_text(&report));
	assert_string_equal(sl_str_text(&report), "");
	sl_str_done(&report);
	return p;
}

static struct sl_packet *open_usual(struct sl_packet_found *found)
{
	return open_with(&usual, has_tcx, found);
}

static int purge(struct sl_str *report)
{
	struct sl_str unread = { 0 };
	int r = sl_packet_purge(dir, report ? report : &unread);

	sl_str_done(&unread);
	return r;
}

static int clean(void **state)
{
	(void)state;
	has_tcx = kernel_has_tcx;
	if (why_skipped)
		return 0;
	return purge(NULL) == 0 && access(dir, F_OK) < 0 ? 0 : -1;
}

static int tear_down_clsact(void **state)
{
	int r = clean(state);

	if (!why_skipped) /* those that some tests leave without a filter */
		command("for i in sl0 lo; do tc qdisc del dev $i clsact 2>/dev/null; done; true");
	return r;
}

/* What a kernel without tcx does, on every kernel. */
static int clean_clsact(void **state)
{
	int r = clean(state);

	has_tcx = false;
	return r;
}

/* ---- the kernel's view ---- */

static int get_pin(const char *name)
{
	int fd = bpf_obj_get(in_dir(name));

	if (fd < 0)
		fail_msg("no pin %s", name);
	return fd;
}

/* Programs at the ingress of an interface: by tcx those of whomever, on clsact ours alone. */
static unsigned n_attached(unsigned ifindex)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)ifindex, .attach_point = BPF_TC_INGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = 0x736c, .priority = 0x736c);
	uint32_t ids[64];
	uint32_t n = SL_ARRAY_LEN(ids);

	if (!has_tcx)
		return bpf_tc_query(&hook, &opts) == 0;
	assert_int_equal(bpf_prog_query((int)ifindex, SL_BPF_TCX_INGRESS, 0, NULL, ids, &n), 0);
	return n;
}

static struct bpf_link_info link_info(const char *name)
{
	struct bpf_link_info info = { 0 };
	uint32_t size = sizeof(info);
	int fd = get_pin(name);

	assert_int_equal(bpf_obj_get_info_by_fd(fd, &info, &size), 0);
	(void)close(fd);
	return info;
}

static const char *pin_of(unsigned ifindex, bool is_xdp)
{
	static char name[32];

	return sl_packet_link_pin(ifindex, is_xdp, name);
}

struct hooked {
	uint32_t link_id; /* 0 on clsact, which has none */
	uint32_t prog_id;
};

/* Our program at the ingress of an interface. */
static struct hooked hooked_at(unsigned ifindex)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)ifindex, .attach_point = BPF_TC_INGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = 0x736c, .priority = 0x736c);
	struct bpf_link_info info;

	if (has_tcx) {
		info = link_info(pin_of(ifindex, false));
		return (struct hooked){ info.id, info.prog_id };
	}
	assert_int_equal(bpf_tc_query(&hook, &opts), 0);
	return (struct hooked){ 0, opts.prog_id };
}

static int other_map(uint32_t key_size, uint32_t value_size)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = BPF_F_NO_PREALLOC);
	int fd = bpf_map_create(BPF_MAP_TYPE_HASH, "other", key_size, value_size, 64, &opts);

	assert_true(fd >= 0);
	return fd;
}

/* ---- flows by hand ---- */

static void put_flow(unsigned i, enum sl_packet_side from, uint32_t route_id)
{
	struct sl_packet_key key = { .saddr = { 1 }, .daddr = { 2 }, .sport = 1000, .dport = 80 };
	struct sl_packet_flow flow = { .new_saddr = { 3 },
				       .new_daddr = { 4 },
				       .new_sport = 40000,
				       .new_dport = 81,
				       .route_id = route_id,
				       .state = SL_PACKET_ACTIVE,
				       .from = from,
				       .conn_id = i + 1 };
	struct sl_packet_key partner;
	int fd = get_pin("flows");

	memcpy(key.saddr + 12, &i, sizeof(i));
	memcpy(flow.new_daddr + 12, &i, sizeof(i));
	if (from == SL_PACKET_BACKEND) {
		sl_packet_partner(&flow, &partner);
		memcpy(flow.new_saddr, key.daddr, 16);
		memcpy(flow.new_daddr, key.saddr, 16);
		flow.new_sport = key.dport;
		flow.new_dport = key.sport;
		key = partner;
	}
	assert_int_equal(bpf_map_update_elem(fd, &key, &flow, BPF_ANY), 0);
	(void)close(fd);
}

/* An IPv4 flow of its own client port, and the FIN of its client through the pinned program. */
static void send_fin(uint16_t sport)
{
	uint8_t frame[64] =
		"\0\0\0\0\0\0\0\0\0\0\0\0\x08\0"                               /* Ethernet */
		"\x45\0\0\x28\0\0\0\0\x40\x06\0\0\xc0\0\x02\x01\xc0\0\x02\x02" /* IPv4 */
		"\0\0\0\x50\0\0\0\0\0\0\0\0\x50\x11\xff\xff";
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = frame, .data_size_in = sizeof(frame));
	struct sl_packet_flow flow = { .new_sport = 40000,
				       .new_dport = 81,
				       .family = 4,
				       .ifindex = lo,
				       .peer_ifindex = lo,
				       .conn_id = sport,
				       .state = SL_PACKET_ACTIVE,
				       .from = SL_PACKET_CLIENT };
	struct sl_packet_key keys[2];
	struct sl_addr client;
	struct sl_addr us;
	int flows = get_pin("flows");
	int prog = get_pin("prog_tc");

	frame[34] = (uint8_t)(sport >> 8);
	frame[35] = (uint8_t)sport;
	assert_int_equal(sl_addr_parse_ip("192.0.2.1", &client), 0);
	assert_int_equal(sl_addr_parse("192.0.2.2:80", &us), 0);
	sl_addr_set_port(&client, sport);
	sl_packet_key_of(&client, &us, &keys[0]);
	sl_packet_ip(&us, flow.new_saddr);
	sl_packet_ip(&client, flow.new_daddr);
	sl_packet_partner(&flow, &keys[1]);
	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(bpf_map_update_elem(flows, &keys[i], &flow, BPF_ANY), 0);
		flow.from = SL_PACKET_BACKEND;
		flow.new_sport = 80;
		flow.new_dport = sport;
	}
	assert_int_equal(bpf_prog_test_run_opts(prog, &opts), 0);
	(void)close(flows);
	(void)close(prog);
}

static void put_pair(unsigned i, uint32_t route_id)
{
	put_flow(i, SL_PACKET_CLIENT, route_id);
	put_flow(i, SL_PACKET_BACKEND, route_id);
}

/* Of `flows`: a flow has two. */
static size_t n_entries(const struct sl_packet *p)
{
	struct sl_packet_key keys[16];
	struct sl_packet_flow flows[16];
	struct sl_packet_cursor cursor = { 0 };
	_cleanup_fd_ int fd = -1;
	size_t n = 0;

	assert_int_equal(sl_packet_readonly_fd(p, "flows", &fd), 0);
	assert_int_equal(sl_packet_batch(fd, &cursor, 16, keys, flows, &n), 1);
	return n;
}

/* ---- opening ---- */

static void test_fresh(void **state)
{
	struct sl_packet_found found;
	struct sl_packet_meta meta;
	struct stat st;
	struct sl_packet *p;

	(void)state;
	need_kernel();
	p = open_usual(&found);
	assert_false(found.is_adopted);
	assert_int_equal(n_entries(p), 0);
	assert_int_equal(found.n_dropped, 0);
	assert_string_equal(found.why, "");
	assert_string_equal(listing(), MAPS PROGS "routes ");
	assert_int_equal(stat(dir, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	assert_int_equal(sl_packet_get_meta(p, &meta), 0);
	assert_int_equal(meta.layout, SL_PACKET_LAYOUT);
	assert_int_equal(meta.max_flows, usual.max_flows);
	assert_int_equal(meta.port_from, usual.port_from);
	assert_int_equal(meta.port_to, usual.port_to);
	assert_int_equal(meta.ports_added, 0);
	assert_int_equal(meta.owner_pid, getpid());
	assert_string_equal(meta.version, SL_VERSION);
	assert_true(meta.started_ns > 0);
	assert_string_equal(sl_packet_hook_text(p), has_tcx ? "tcx" : "clsact");
	assert_true(sl_packet_freeze_fd(p) >= 0);
	sl_packet_close(p);
	assert_string_equal(listing(), MAPS PROGS "routes ");
}

static void test_run(void **state)
{
	struct sl_packet_found found;
	struct sl_packet *p;

	(void)state;
	need_kernel();
	p = open_usual(&found);
	*sl_packet_request(p) = (struct sl_packet_request){ .op = SL_PACKET_OP_KILL };
	assert_int_equal(sl_packet_run(p), 0);
	assert_int_equal(sl_packet_request(p)->result, SL_PACKET_NO_FLOW);
	sl_packet_close(p);
}

static void expect_refusal(const char *where, int err, const char *text)
{
	struct sl_packet_options o = usual;
	struct sl_packet_found found = { .n_dropped = 77 };
	struct sl_packet *p = NULL;
	struct sl_str report = { 0 };

	o.dir = where;
	assert_int_equal(sl_packet_open(&o, &found, &report, &p), err);
	assert_null(p);
	assert_int_equal(found.n_dropped, 77);
	assert_non_null(strstr(sl_str_text(&report), text));
	assert_null(strchr(sl_str_text(&report), '\n'));
	sl_str_done(&report);
}

static void test_not_bpffs(void **state)
{
	char plain[] = "/tmp/sl_plain.XXXXXX";
	char below[64];
	char missing[96];

	(void)state;
	need_kernel();
	assert_non_null(mkdtemp(plain));
	(void)snprintf(below, sizeof(below), "%s/sluice", plain);
	expect_refusal(plain, -ENODEV, "not on a bpf file system");
	expect_refusal(below, -ENODEV, "not on a bpf file system");
	assert_int_equal(access(below, F_OK), -1);
	expect_refusal("/nowhere/at/all", -ENOENT, "the directory /nowhere/at is missing");
	(void)snprintf(below, sizeof(below), "%s/a/b/", root);
	(void)snprintf(missing, sizeof(missing), "the directory %s/a is missing", root);
	expect_refusal(below, -ENOENT, missing);
	assert_int_equal(rmdir(plain), 0);
}

static void test_foreign_directory(void **state)
{
	(void)state;
	need_kernel();
	assert_int_equal(mkdir(dir, 0700), 0);
	assert_int_equal(chown(dir, 12345, 12345), 0);
	expect_refusal(dir, -EPERM, "belongs to another user");
	assert_string_equal(listing(), "");
	assert_int_equal(chown(dir, 0, 0), 0);
}

/* Runs `fn` in a child with no capability but those of `caps` (NULL: all); its exit code. */
static int in_child(const uint32_t *caps, int (*fn)(struct sl_packet *p), struct sl_packet *p)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { 0 };
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		data[0].effective = data[0].permitted = caps ? *caps : 0;
		_exit(caps && syscall(SYS_capset, &head, data) < 0 ? 99 : fn(p));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static const uint32_t no_cap = 0;
static const uint32_t net_admin = 1u << CAP_NET_ADMIN;

static int try_open(struct sl_packet *unused)
{
	struct sl_packet_found found;
	struct sl_packet *p = NULL;
	struct sl_str report = { 0 };
	int r = sl_packet_open(&usual, &found, &report, &p);

	(void)unused;
	return r == -EPERM && strstr(sl_str_text(&report), "CAP_BPF") ? 0 : 1;
}

static void test_no_privilege(void **state)
{
	(void)state;
	need_kernel();
	assert_int_equal(in_child(&no_cap, try_open, NULL), 0);
	assert_int_equal(in_child(&net_admin, try_open, NULL), 0);
	assert_int_equal(access(dir, F_OK), -1);
}

/* What goes on after opening; the number of the first step that failed. */
static int work(struct sl_packet *p)
{
	unsigned repaired = 0;
	uint32_t id = 0;
	int fd = -1;
	struct sl_packet_counts counts;

	if (sl_packet_attach(p, lo) != 0 || !sl_packet_is_attached(p, lo))
		return 1;
	if (sl_packet_run(p) != 0)
		return 2;
	if (unlink(in_dir("counters")) < 0 || sl_packet_repin(p, &repaired, NULL) != 0 ||
	    repaired != 1)
		return 3;
	if (sl_packet_route_id(p, "shop", &id) != 0)
		return 4;
	if (sl_packet_readonly_fd(p, "counters", &fd) != 0 || sl_packet_read_counts(fd, &counts))
		return 5;
	if (sl_packet_reserve_ports(p, 40000, 41000) != 0)
		return 6;
	sl_packet_detach(p, lo);
	return n_attached(lo) == 0 ? 0 : 7;
}

static void test_net_admin_alone(void **state)
{
	struct sl_packet_found found;
	struct sl_packet *p;

	(void)state;
	need_kernel();
	p = open_usual(&found);
	assert_int_equal(in_child(&net_admin, work, p), 0);
	sl_packet_close(p);
}

/* ---- adopting ---- */

static void test_adopt(void **state)
{
	struct sl_packet_found found;
	struct sl_packet *p;
	struct hooked before;
	struct hooked after;
	uint32_t kept;
	uint32_t unused;
	uint32_t id = 0;
	int routes = -1;
	char name[72];

	(void)state;
	need_kernel();
	p = open_usual(&found);
	assert_int_equal(sl_packet_attach(p, lo), 0);
	assert_int_equal(sl_packet_route_id(p, "kept", &kept), 0);
	assert_int_equal(sl_packet_route_id(p, "unused", &unused), 0);
	assert_int_not_equal(kept, unused);
	sl_packet_close(p);
	before = hooked_at(lo);
	put_pair(1, kept);
	put_pair(2, kept);
	put_flow(3, SL_PACKET_CLIENT, kept);
	put_flow(4, SL_PACKET_BACKEND, kept);

	p = open_usual(&found);
	assert_true(found.is_adopted);
	assert_int_equal(n_entries(p), 6); /* two are alone */
	assert_int_equal(found.n_dropped, 0);
	assert_string_equal(found.why, "");
	/* The old program goes on until it is replaced, on the same link, if any. */
	after = hooked_at(lo);
	assert_int_equal(after.link_id, before.link_id);
	assert_int_equal(after.prog_id, before.prog_id);
	assert_false(sl_packet_is_attached(p, lo));
	assert_int_equal(sl_packet_attach(p, lo), 0);
	assert_true(sl_packet_is_attached(p, lo));
	after = hooked_at(lo);
	assert_int_equal(after.link_id, before.link_id);
	assert_int_not_equal(after.prog_id, before.prog_id);
	assert_int_equal(n_attached(lo), 1);
	/* Names of routes with flows stay, ids are not given again. */
	assert_int_equal(sl_packet_readonly_fd(p, "routes", &routes), 0);
	assert_int_equal(sl_packet_route_name(routes, kept, name), 0);
	assert_string_equal(name, "kept");
	assert_int_equal(sl_packet_route_name(routes, unused, name), -ENOENT);
	assert_int_equal(sl_packet_route_id(p, "kept", &id), 0);
	assert_int_equal(id, kept);
	assert_int_equal(sl_packet_route_id(p, "unused", &id), 0);
	assert_true(id > unused);
	(void)close(routes);
	sl_packet_close(p);
}

static void test_route_ids(void **state)
{
	struct sl_packet_found found;
	struct sl_packet *p;
	char name[80] = "";
	uint32_t last = 0;
	uint32_t id = 0;

	(void)state;
	need_kernel();
	p = open_usual(&found);
	for (unsigned i = 0; i < 2000; i++) {
		(void)snprintf(name, sizeof(name), "route-%u", i);
		assert_int_equal(sl_packet_route_id(p, name, &id), 0);
		assert_true(id > last);
		last = id;
	}
	assert_int_equal(sl_packet_route_id(p, "route-1999", &id), 0);
	assert_int_equal(id, last);
	memset(name, 'x', 72);
	assert_int_equal(sl_packet_route_id(p, name, &id), -ENAMETOOLONG);
	name[71] = '\0';
	assert_int_equal(sl_packet_route_id(p, name, &id), 0);
	assert_int_equal(sl_packet_route_id(p, "", &id), -EINVAL);
	sl_packet_close(p);
}

static void expect_anew(uint32_t n_dropped, const char *why)
{
	struct sl_packet_found found;
	struct sl_packet *p = open_usual(&found);
	int flows = get_pin("flows");
	struct sl_packet_key key;

	assert_false(found.is_adopted);
	assert_int_equal(n_entries(p), 0);
	assert_int_equal(found.n_dropped, n_dropped);
	if (!strstr(found.why, why))
		fail_msg("\"%s\" lacks \"%s\"", found.why, why);
	assert_string_equal(listing(), MAPS PROGS "routes ");
	assert_int_equal(bpf_map_get_next_key(flows, NULL, &key), -ENOENT);
	assert_int_equal(n_attached(lo), 0);
	(void)close(flows);
	sl_packet_close(p);
}

static void leave_behind(unsigned n_pairs)
{
	struct sl_packet_found found;
	struct sl_packet *p = open_usual(&found);

	assert_int_equal(sl_packet_attach(p, lo), 0);
	sl_packet_close(p);
	for (unsigned i = 0; i < n_pairs; i++)
		put_pair(i, 0);
}

static void test_other_layout(void **state)
{
	struct sl_packet_meta meta;
	uint32_t zero = 0;
	int fd;

	(void)state;
	need_kernel();
	leave_behind(3);
	fd = get_pin("meta");
	assert_int_equal(bpf_map_lookup_elem(fd, &zero, &meta), 0);
	meta.layout = SL_PACKET_LAYOUT + 6;
	assert_int_equal(bpf_map_update_elem(fd, &zero, &meta, BPF_ANY), 0);
	(void)close(fd);
	expect_anew(6, "layout 7 instead of 1");
}

static void replace_pin(const char *name, int fd)
{
	(void)unlink(in_dir(name));
	assert_int_equal(bpf_obj_pin(fd, in_dir(name)), 0);
	(void)close(fd);
}

static void test_other_shapes(void **state)
{
	(void)state;
	need_kernel();
	leave_behind(1);
	replace_pin("flows", other_map(sizeof(struct sl_packet_key), 8));
	expect_anew(0, "flows has another shape");
	leave_behind(1);
	assert_int_equal(unlink(in_dir("flows")), 0);
	expect_anew(0, "flows is not pinned");
	leave_behind(2);
	assert_int_equal(unlink(in_dir("meta")), 0);
	expect_anew(4, "meta is not pinned");
}

/* A map that no flow needs begins anew beside the others. */
static void test_adopt_without_some(void **state)
{
	struct sl_packet_found found;
	struct sl_packet *p;

	(void)state;
	need_kernel();
	leave_behind(1);
	assert_int_equal(unlink(in_dir("events")), 0);
	replace_pin("counters", other_map(4, 8));
	p = open_usual(&found);
	assert_true(found.is_adopted);
	assert_int_equal(n_entries(p), 2);
	assert_non_null(strstr(found.why, "events is not pinned"));
	assert_non_null(strstr(found.why, "counters has another shape"));
	assert_int_equal(sl_packet_attach(p, lo), 0);
	assert_true(sl_packet_is_attached(p, lo));
	sl_packet_close(p);
}

/* The name is ours, so its pin is replaced; what it was stays with whoever holds it. */
static void test_something_else(void **state)
{
	struct sl_packet_found found;
	struct sl_packet *p;

	(void)state;
	need_kernel();
	leave_behind(0);
	replace_pin("flows", other_program());
	p = open_usual(&found);
	assert_false(found.is_adopted);
	assert_non_null(strstr(found.why, "flows is something else"));
	assert_string_equal(listing(), MAPS PROGS "routes ");
	sl_packet_close(p);
}

static void test_max_flows(void **state)
{
	struct sl_packet_options o = usual;
	struct sl_packet_found found;
	struct sl_packet_meta meta;
	struct sl_packet *p;

	(void)state;
	need_kernel();
	p = open_usual(&found);
	sl_packet_close(p);
	o.max_flows = 64;
	p = open_with(&o, has_tcx, &found);
	assert_true(found.is_adopted);
	assert_string_equal(found.why, "max_flows is 64 now, it was 4096");
	assert_int_equal(sl_packet_get_meta(p, &meta), 0);
	assert_int_equal(meta.max_flows, 64);
	sl_packet_close(p);
	put_pair(1, 0);
	o.max_flows = 128;
	p = open_with(&o, has_tcx, &found);
	assert_int_equal(n_entries(p), 2);
	assert_string_equal(found.why, "max_flows stays 64 while there are flows");
	assert_int_equal(sl_packet_get_meta(p, &meta), 0);
	assert_int_equal(meta.max_flows, 64);
	sl_packet_close(p);
}

/* Pins that were exchanged by hand: what is attached works on another map. */
static void test_strays(void **state)
{
	struct sl_packet_options o = usual;
	struct sl_packet_found found;
	struct sl_packet *p;

	(void)state;
	need_tcx();
	leave_behind(0);
	o.max_flows = 64; /* another map, and the old program still on the link */
	p = open_with(&o, has_tcx, &found);
	sl_packet_close(p);
	p = open_with(&o, has_tcx, &found);
	assert_true(found.is_adopted);
	assert_string_equal(found.why, "1 attached program used another map");
	assert_int_equal(sl_packet_attach(p, lo), 0);
	sl_packet_close(p);
	p = open_with(&o, has_tcx, &found);
	assert_string_equal(found.why, "");
	sl_packet_close(p);
}

/* ---- interfaces ---- */

static void test_attach(void **state)
{
	struct sl_packet_found found;
	struct sl_packet *p;

	(void)state;
	need_kernel();
	p = open_usual(&found);
	assert_false(sl_packet_is_attached(p, lo));
	assert_int_equal(sl_packet_attach(p, lo), 0);
	assert_int_equal(sl_packet_attach(p, veth), 0);
	assert_int_equal(sl_packet_attach(p, veth), 0);
	assert_true(sl_packet_is_attached(p, lo));
	assert_true(sl_packet_is_attached(p, veth));
	assert_int_equal(n_attached(lo), 1);
	assert_int_equal(n_attached(veth), 1);
	assert_int_equal(is_there(pin_of(veth, false)), has_tcx);
	sl_packet_detach(p, veth);
	assert_false(sl_packet_is_attached(p, veth));
	assert_int_equal(n_attached(veth), 0);
	assert_false(is_there(pin_of(veth, false)));
	assert_int_equal(sl_packet_attach(p, 99999), -ENODEV);
	assert_false(sl_packet_is_attached(p, 99999));
	sl_packet_close(p);
	assert_int_equal(n_attached(lo), 1);
}

static void test_foreign_detach(void **state)
{
	struct sl_packet_found found;
	struct sl_packet *p;
	int link;
	int prog;

	(void)state;
	need_tcx();
	p = open_usual(&found);
	assert_int_equal(sl_packet_attach(p, veth), 0);
	link = get_pin(pin_of(veth, false));
	assert_int_equal(bpf_link_detach(link), 0);
	(void)close(link);
	assert_false(sl_packet_is_attached(p, veth));
	assert_int_equal(sl_packet_attach(p, veth), 0);
	assert_true(sl_packet_is_attached(p, veth));
	assert_int_equal(n_attached(veth), 1);
	/* Another program on our link. */
	link = get_pin(pin_of(veth, false));
	prog = other_program();
	assert_int_equal(bpf_link_update(link, prog, NULL), 0);
	(void)close(prog);
	(void)close(link);
	assert_false(sl_packet_is_attached(p, veth));
	assert_int_equal(sl_packet_attach(p, veth), 0);
	assert_true(sl_packet_is_attached(p, veth));
	assert_int_equal(n_attached(veth), 1);
	sl_packet_close(p);
}

static bool only(void *arg, unsigned ifindex)
{
	return ifindex == *(const unsigned *)arg;
}

static void test_sweep(void **state)
{
	struct sl_packet_found found;
	struct sl_packet *p;
	unsigned gone;

	(void)state;
	need_tcx();
	command("ip link add sl2 type veth peer name sl3 && ip link set sl2 up");
	gone = if_nametoindex("sl2");
	p = open_usual(&found);
	assert_int_equal(sl_packet_attach(p, lo), 0);
	assert_int_equal(sl_packet_attach(p, veth), 0);
	assert_int_equal(sl_packet_attach(p, gone), 0);
	sl_packet_close(p);
	/* Without being attached anew: the pins alone are there. */
	p = open_usual(&found);
	assert_int_equal(sl_packet_attach(p, gone), 0);
	command("ip link del sl2");
	assert_false(sl_packet_is_attached(p, gone));
	assert_int_equal(sl_packet_attach(p, gone), -ENODEV);
	sl_packet_sweep_links(p, only, &lo);
	assert_false(is_there(pin_of(gone, false)));
	assert_false(is_there(pin_of(veth, false)));
	assert_true(is_there(pin_of(lo, false)));
	assert_int_equal(n_attached(veth), 0);
	assert_int_equal(n_attached(lo), 1);
	assert_int_equal(sl_packet_attach(p, lo), 0);
	sl_packet_sweep_links(p, only, &lo);
	assert_true(sl_packet_is_attached(p, lo));
	sl_packet_sweep_links(p, only, &veth);
	assert_false(sl_packet_is_attached(p, lo));
	assert_int_equal(n_attached(lo), 0);
	sl_packet_close(p);
}

/* A daemon that has moved: the pinned link is on another device with the same number. */
static int attach_elsewhere(struct sl_packet *unused)
{
	struct sl_packet_found found;
	struct sl_packet *p = NULL;
	struct sl_str report = { 0 };

	(void)unused;
	if (enter_netns() < 0 || sl_packet_open(&usual, &found, &report, &p) != 0)
		return 1;
	if (!found.is_adopted || sl_packet_attach(p, lo) != 0 || !sl_packet_is_attached(p, lo))
		return 2;
	return n_attached(lo) == 1 ? 0 : 3;
}

static void test_other_namespace(void **state)
{
	(void)state;
	need_tcx();
	leave_behind(1);
	assert_int_equal(n_attached(lo), 1);
	assert_int_equal(in_child(NULL, attach_elsewhere, NULL), 0);
	assert_int_equal(n_attached(lo), 0);
}

static void test_coexists(void **state)
{
	struct sl_packet_found found;
	struct sl_packet *p;
	int prog;
	int other;

	(void)state;
	need_tcx();
	prog = other_program();
	other = sl_compat_tcx_attach(prog, (int)veth);
	assert_true(other >= 0);
	p = open_usual(&found);
	assert_int_equal(sl_packet_attach(p, veth), 0);
	assert_int_equal(n_attached(veth), 2);
	assert_true(sl_packet_is_attached(p, veth));
	sl_packet_close(p);
	assert_int_equal(purge(NULL), 0);
	assert_int_equal(n_attached(veth), 1);
	(void)close(other);
	(void)close(prog);
}

static void test_xdp(void **state)
{
	struct sl_packet_options o = usual;
	struct sl_packet_found found;
	struct sl_packet *p;
	int link;

	(void)state;
	need_kernel();
	o.hook = SL_HOOK_XDP;
	p = open_with(&o, has_tcx, &found);
	assert_string_equal(sl_packet_hook_text(p), has_tcx ? "xdp+tcx" : "xdp+clsact");
	assert_int_equal(sl_packet_attach(p, lo), -EOPNOTSUPP);
	assert_true(sl_packet_is_attached(p, lo));
	assert_int_equal(sl_packet_attach(p, veth), 0);
	assert_true(sl_packet_is_attached(p, veth));
	assert_int_equal(link_info(pin_of(veth, true)).xdp.ifindex, veth);
	link = get_pin(pin_of(veth, true));
	assert_int_equal(bpf_link_detach(link), 0);
	(void)close(link);
	assert_false(sl_packet_is_attached(p, veth));
	assert_int_equal(n_attached(veth), 1);
	assert_int_equal(sl_packet_attach(p, veth), 0);
	assert_true(sl_packet_is_attached(p, veth));
	sl_packet_close(p);
	/* The next one replaces it, one that wants TC alone takes it away. */
	p = open_with(&o, has_tcx, &found);
	assert_int_equal(sl_packet_attach(p, veth), 0);
	assert_true(sl_packet_is_attached(p, veth));
	sl_packet_close(p);
	p = open_usual(&found);
	assert_false(is_there("prog_xdp"));
	assert_int_equal(sl_packet_attach(p, veth), 0);
	assert_false(is_there(pin_of(veth, true)));
	assert_true(sl_packet_is_attached(p, veth));
	sl_packet_close(p);
}

/* ---- clsact ---- */

static bool attach_other_filter(unsigned ifindex, int prog)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)ifindex, .attach_point = BPF_TC_INGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = 1, .priority = 7, .prog_fd = prog);

	return bpf_tc_hook_create(&hook) == 0 && bpf_tc_attach(&hook, &opts) == 0;
}

static bool has_other_filter(unsigned ifindex)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)ifindex, .attach_point = BPF_TC_INGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = 1, .priority = 7);

	return bpf_tc_query(&hook, &opts) == 0;
}

static void test_clsact(void **state)
{
	struct sl_packet_found found;
	struct sl_packet *p;
	int prog;

	(void)state;
	need_kernel();
	prog = other_program();
	assert_true(attach_other_filter(veth, prog));
	p = open_with(&usual, false, &found);
	assert_string_equal(sl_packet_hook_text(p), "clsact");
	assert_false(sl_packet_is_attached(p, veth));
	assert_int_equal(sl_packet_attach(p, veth), 0);
	assert_int_equal(sl_packet_attach(p, lo), 0);
	assert_int_equal(sl_packet_attach(p, lo), 0);
	assert_true(sl_packet_is_attached(p, veth));
	assert_true(sl_packet_is_attached(p, lo));
	if (has_tcx)
		assert_int_equal(n_attached(veth), 0);
	assert_int_equal(sl_packet_attach(p, 99999), -ENODEV);
	sl_packet_close(p);
	/* A later daemon takes the filter over. */
	p = open_with(&usual, false, &found);
	assert_true(found.is_adopted);
	assert_int_equal(sl_packet_attach(p, veth), 0);
	assert_true(sl_packet_is_attached(p, veth));
	/* Somebody's `tc filter del`, and `tc qdisc del`. */
	command("tc filter del dev sl0 ingress prio 29548");
	assert_false(sl_packet_is_attached(p, veth));
	assert_int_equal(sl_packet_attach(p, veth), 0);
	command("tc qdisc del dev sl0 clsact");
	assert_false(sl_packet_is_attached(p, veth));
	assert_true(attach_other_filter(veth, prog));
	assert_int_equal(sl_packet_attach(p, veth), 0);
	assert_true(sl_packet_is_attached(p, veth));
	sl_packet_sweep_links(p, only, &veth);
	assert_int_equal(sl_packet_attach(p, veth), 0);
	assert_int_equal(system("tc filter show dev lo ingress | grep -q ."), 256);
	sl_packet_close(p);
	assert_int_equal(purge(NULL), 0);
	assert_int_equal(system("tc filter show dev sl0 ingress | grep -q 'pref 29548 '"), 256);
	assert_true(has_other_filter(veth));
	command("tc qdisc del dev sl0 clsact && tc qdisc del dev lo clsact");
	(void)close(prog);
}

/* A filter of somebody else that happens to have our numbers. */
static void test_clsact_taken(void **state)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)veth, .attach_point = BPF_TC_INGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = 0x736c, .priority = 0x736c);
	struct sl_packet_found found;
	struct sl_packet *p;
	uint32_t id;

	(void)state;
	need_kernel();
	opts.prog_fd = other_program();
	assert_int_equal(bpf_tc_hook_create(&hook), 0);
	assert_int_equal(bpf_tc_attach(&hook, &opts), 0);
	(void)close(opts.prog_fd);
	id = opts.prog_id;
	p = open_with(&usual, false, &found);
	assert_int_equal(sl_packet_attach(p, veth), -EBUSY);
	assert_false(sl_packet_is_attached(p, veth));
	sl_packet_close(p);
	assert_int_equal(purge(NULL), 0);
	opts.prog_fd = 0;
	opts.prog_id = 0;
	opts.flags = 0;
	assert_int_equal(bpf_tc_query(&hook, &opts), 0);
	assert_int_equal(opts.prog_id, id);
	command("tc qdisc del dev sl0 clsact");
}

/* ---- pins ---- */

static void test_repin(void **state)
{
	struct sl_packet_found found;
	struct sl_packet *p;
	unsigned n = 77;
	unsigned none = 77;
	int lock;
	struct hooked before;
	char all[512];

	(void)state;
	need_kernel();
	p = open_usual(&found);
	assert_int_equal(sl_packet_attach(p, lo), 0);
	(void)snprintf(all, sizeof(all), "%s", listing());
	assert_int_equal(sl_packet_repin(p, &n, NULL), 0);
	assert_int_equal(n, 0);
	before = hooked_at(lo);
	assert_int_equal(unlink(in_dir("flows")), 0);
	assert_int_equal(unlink(in_dir("prog_freeze")), 0);
	if (has_tcx)
		assert_int_equal(unlink(in_dir(pin_of(lo, false))), 0);
	replace_pin("events", other_map(4, 4));
	assert_int_equal(sl_packet_repin(p, &n, NULL), 0);
	assert_int_equal(n, has_tcx ? 4 : 3);
	assert_string_equal(listing(), all);
	assert_int_equal(hooked_at(lo).link_id, before.link_id);
	assert_int_equal(hooked_at(lo).prog_id, before.prog_id);
	assert_true(sl_packet_is_attached(p, lo));
	/* The whole directory. */
	command("rm -r /tmp/sl_packet.*/sluice");
	n = 77;
	assert_int_equal(mkdir(dir, 0700), 0);
	lock = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(flock(lock, LOCK_EX | LOCK_NB), 0); /* another daemon's */
	assert_int_equal(sl_packet_repin(p, &n, NULL), -EBUSY);
	assert_int_equal(n, 77);
	assert_string_equal(listing(), "");
	(void)close(lock);
	assert_int_equal(rmdir(dir), 0);
	assert_int_equal(sl_packet_repin(p, &n, NULL), 0);
	/* It is locked as the one before was. */
	assert_int_equal(purge(NULL), -EBUSY);
	assert_int_equal(sl_packet_repin(p, &none, NULL), 0);
	assert_int_equal(none, 0);
	assert_int_equal(n, has_tcx ? 10 : 9);
	assert_string_equal(listing(), all);
	/* The file system, which we keep busy. */
	assert_int_equal(umount2(root, MNT_DETACH), 0);
	assert_int_equal(sl_packet_repin(p, &n, NULL), -ENOENT);
	assert_int_equal(mount("bpf", root, "bpf", 0, "mode=0700"), 0);
	assert_int_equal(sl_packet_repin(p, &n, NULL), 0);
	assert_int_equal(n, has_tcx ? 10 : 9);
	sl_packet_close(p);
	p = open_usual(&found);
	assert_true(found.is_adopted);
	assert_string_equal(found.why, "");
	sl_packet_close(p);
}

static void test_purge(void **state)
{
	struct sl_packet_options o = usual;
	struct sl_packet_found found;
	struct sl_packet *p;
	struct sl_packet *other = NULL;
	struct sl_str report = { 0 };
	int map;

	(void)state;
	need_kernel();
	o.hook = SL_HOOK_XDP;
	p = open_with(&o, has_tcx, &found);
	assert_int_equal(sl_packet_attach(p, veth), 0);
	assert_int_equal(sl_packet_attach(p, lo), -EOPNOTSUPP);
	/* What is not ours by its name, or not what its name says. */
	map = other_map(4, 4);
	assert_int_equal(bpf_obj_pin(map, in_dir("mine")), 0);
	assert_int_equal(bpf_obj_pin(map, in_dir("link_tcx_777")), 0);
	assert_int_equal(bpf_obj_pin(map, in_dir("link_tcx_7x")), 0);
	/* Not while somebody uses it: neither emptied nor opened. */
	assert_int_equal(purge(&report), -EBUSY);
	assert_non_null(strstr(sl_str_text(&report), "in use by another daemon"));
	assert_int_equal(sl_packet_open(&usual, &found, &report, &other), -EBUSY);
	assert_true(n_attached(veth) > 0);
	sl_str_clear(&report);
	sl_packet_close(p);
	assert_int_equal(purge(&report), 0);
	assert_string_equal(listing(), "link_tcx_777 link_tcx_7x mine ");
	assert_int_equal(n_attached(veth), 0);
	assert_int_equal(n_attached(lo), 0);
	assert_int_equal(system("ip link show sl0 | grep -q xdp"), 256);
	assert_non_null(strstr(sl_str_text(&report), "/flows\n"));
	assert_non_null(strstr(sl_str_text(&report), "link_tcx_777: not ours\n"));
	assert_non_null(strstr(sl_str_text(&report), "it holds other things\n"));
	assert_null(strstr(sl_str_text(&report), "mine"));
	sl_str_clear(&report);
	assert_int_equal(unlink(in_dir("mine")), 0);
	assert_int_equal(unlink(in_dir("link_tcx_777")), 0);
	assert_int_equal(unlink(in_dir("link_tcx_7x")), 0);
	assert_int_equal(purge(&report), 0);
	assert_int_equal(access(dir, F_OK), -1);
	/* Where there is nothing. */
	sl_str_clear(&report);
	assert_int_equal(purge(&report), 0);
	assert_string_equal(sl_str_text(&report), "");
	sl_str_done(&report);
	(void)close(map);
}

/* ---- reading ---- */

static void walk(size_t n, unsigned n_pairs)
{
	_cleanup_free_ uint8_t *seen = calloc(n_pairs, 2);
	_cleanup_free_ struct sl_packet_key *keys = calloc(n, sizeof(*keys));
	_cleanup_free_ struct sl_packet_flow *flows = calloc(n, sizeof(*flows));
	struct sl_packet_cursor cursor = { 0 };
	int fd = get_pin("flows");
	size_t sum = 0;
	int r = 0;

	for (unsigned turns = 0; r == 0; turns++) {
		size_t got = 0;

		assert_true(turns <= 4 * n_pairs + 4);
		r = sl_packet_batch(fd, &cursor, n, keys, flows, &got);
		assert_true(r >= 0);
		assert_true(got <= n);
		for (size_t i = 0; i < got; i++) {
			size_t at = 2 * (flows[i].conn_id - 1) + (size_t)flows[i].from;

			assert_true(at < 2 * n_pairs);
			seen[at]++;
			assert_int_equal(seen[at], 1);
		}
		sum += got;
	}
	assert_int_equal(r, 1);
	assert_int_equal(sum, 2 * n_pairs);
	(void)close(fd);
}

static void test_batch(void **state)
{
	struct sl_packet_found found;
	struct sl_packet *p;
	struct sl_packet_cursor cursor = { 0 };
	size_t n = 0;

	(void)state;
	need_kernel();
	p = open_usual(&found);
	walk(16, 0);
	for (unsigned i = 0; i < 3000; i++)
		put_pair(i, 0);
	/* One at a time: buckets of several entries are more than a batch. */
	walk(1, 3000);
	walk(3, 3000);
	walk(512, 3000);
	walk(10000, 3000);
	assert_int_equal(sl_packet_batch(-1, &cursor, 1, NULL, NULL, &n), -EBADF);
	assert_int_equal(sl_packet_batch(0, &cursor, 0, NULL, NULL, &n), -EINVAL);
	sl_packet_close(p);
}

static int read_fds[3];

static int read_only(struct sl_packet *unused)
{
	struct sl_packet_key key;
	struct sl_packet_flow flow;
	struct sl_packet_counts counts;
	struct sl_packet_cursor cursor = { 0 };
	size_t n = 0;
	char name[72];

	(void)unused;
	if (sl_packet_batch(read_fds[0], &cursor, 1, &key, &flow, &n) < 0)
		return 1;
	if (bpf_map_get_next_key(read_fds[0], NULL, &key) < 0 ||
	    sl_packet_read_flow(read_fds[0], &key, &flow) != 0)
		return 2;
	if (bpf_map_update_elem(read_fds[0], &key, &flow, BPF_ANY) == 0 || errno != EPERM)
		return 3;
	if (bpf_map_delete_elem(read_fds[0], &key) == 0 || errno != EPERM)
		return 4;
	if (sl_packet_read_counts(read_fds[1], &counts) != 0)
		return 5;
	if (sl_packet_route_name(read_fds[2], 1, name) != 0 || strcmp(name, "shop") != 0)
		return 6;
	key.sport++;
	return sl_packet_read_flow(read_fds[0], &key, &flow) == -ENOENT ? 0 : 7;
}

static void test_read_only(void **state)
{
	struct sl_packet_found found;
	struct sl_packet *p;
	uint32_t id = 0;
	int fd = -1;

	(void)state;
	need_kernel();
	p = open_usual(&found);
	put_pair(5, 1);
	assert_int_equal(sl_packet_route_id(p, "shop", &id), 0);
	assert_int_equal(id, 1);
	assert_int_equal(sl_packet_readonly_fd(p, "flows", &read_fds[0]), 0);
	assert_int_equal(sl_packet_readonly_fd(p, "counters", &read_fds[1]), 0);
	assert_int_equal(sl_packet_readonly_fd(p, "routes", &read_fds[2]), 0);
	assert_int_equal(sl_packet_readonly_fd(p, "meta", &fd), -EINVAL);
	assert_int_equal(in_child(&no_cap, read_only, NULL), 0);
	for (size_t i = 0; i < SL_ARRAY_LEN(read_fds); i++)
		(void)close(read_fds[i]);
	replace_pin("flows", other_map(4, 4));
	assert_int_equal(sl_packet_readonly_fd(p, "flows", &fd), -ESTALE);
	assert_int_equal(unlink(in_dir("flows")), 0);
	assert_int_equal(sl_packet_readonly_fd(p, "flows", &fd), -ENOENT);
	assert_int_equal(fd, -1);
	sl_packet_close(p);
}

static void test_counts(void **state)
{
	struct sl_packet_found found;
	struct sl_packet_counts counts;
	struct sl_packet *p;
	int n_cpus = libbpf_num_possible_cpus();
	_cleanup_free_ struct sl_packet_counts *rows = NULL;
	uint32_t zero = 0;
	int fd = -1;

	(void)state;
	need_kernel();
	p = open_usual(&found);
	rows = calloc((size_t)n_cpus, sizeof(*rows));
	for (int i = 0; i < n_cpus; i++) {
		rows[i].forwarded_tc = 100;
		rows[i].xdp_passed = (uint64_t)i + 1;
	}
	assert_int_equal(bpf_map_update_elem(p->maps[SL_MAP_COUNTERS], &zero, rows, BPF_ANY), 0);
	assert_int_equal(sl_packet_readonly_fd(p, "counters", &fd), 0);
	assert_int_equal(sl_packet_read_counts(fd, &counts), 0);
	assert_int_equal(counts.forwarded_tc, 100 * n_cpus);
	assert_int_equal(counts.xdp_passed, n_cpus * (n_cpus + 1) / 2);
	assert_int_equal(counts.ttl_dropped, 0);
	(void)close(fd);
	sl_packet_close(p);
}

static void test_addresses(void **state)
{
	struct sl_addr v4;
	struct sl_addr v6;
	struct sl_addr got;
	struct sl_packet_key key;
	struct sl_packet_key partner;
	struct sl_packet_key back;
	struct sl_packet_flow flow = { 0 };
	const uint8_t none[16] = { 0 };
	const struct sl_addr unset = { 0 };

	(void)state;
	assert_int_equal(sl_addr_parse("192.0.2.1:8080", &v4), 0);
	assert_int_equal(sl_addr_parse("[2001:db8::7]:443", &v6), 0);
	sl_packet_key_of(&v4, &v6, &key);
	assert_memory_equal(key.saddr, "\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\0\x02\x01", 16);
	assert_memory_equal(key.daddr, "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07", 16);
	assert_int_equal(key.sport, 8080);
	assert_int_equal(key.dport, 443);
	sl_packet_addr(key.saddr, key.sport, &got);
	assert_true(sl_addr_is_equal(&got, &v4));
	sl_packet_addr(key.daddr, key.dport, &got);
	assert_true(sl_addr_is_equal(&got, &v6));
	sl_packet_addr(none, 0, &got);
	assert_int_equal(sl_addr_family(&got), AF_UNSPEC);
	memset(key.saddr, 1, 16);
	sl_packet_ip(&unset, key.saddr);
	assert_memory_equal(key.saddr, none, 16);

	/* The partner of the partner is where it began. */
	sl_packet_key_of(&v4, &v6, &key);
	flow = (struct sl_packet_flow){
		.new_saddr = { 5 }, .new_daddr = { 6 }, .new_sport = 5, .new_dport = 6
	};
	sl_packet_partner(&flow, &partner);
	assert_int_equal(partner.saddr[0], 6);
	assert_int_equal(partner.daddr[0], 5);
	assert_int_equal(partner.sport, 6);
	assert_int_equal(partner.dport, 5);
	memcpy(flow.new_saddr, key.daddr, 16);
	memcpy(flow.new_daddr, key.saddr, 16);
	flow.new_sport = key.dport;
	flow.new_dport = key.sport;
	sl_packet_partner(&flow, &back);
	assert_memory_equal(&back, &key, sizeof(key));
}

/* ---- reserved ports ---- */

static void write_reserved(const char *text)
{
	int fd = open(PORTS, O_WRONLY);

	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	(void)close(fd);
}

static const char *reserved(void)
{
	static char text[65536];
	int fd = open(PORTS, O_RDONLY);
	ssize_t n = read(fd, text, sizeof(text) - 1);

	(void)close(fd);
	assert_true(n >= 0);
	text[n] = '\0';
	text[strcspn(text, "\n")] = '\0';
	return text;
}

static void test_ports(void **state)
{
	struct sl_packet_found found;
	struct sl_packet_meta meta;
	struct sl_packet *p;

	(void)state;
	need_kernel();
	write_reserved("80,1000-1002\n");
	p = open_usual(&found);
	assert_int_equal(sl_packet_reserve_ports(p, 40000, 41000), 0);
	assert_int_equal(sl_packet_reserve_ports(p, 40000, 41000), 0);
	assert_string_equal(reserved(), "80,1000-1002,40000-41000");
	assert_int_equal(sl_packet_get_meta(p, &meta), 0);
	assert_int_equal(meta.ports_added, 1);
	sl_packet_close(p);
	/* Of another range by a later one: the first stays until it is given back. */
	p = open_usual(&found);
	assert_int_equal(sl_packet_reserve_ports(p, 40500, 42000), 0);
	assert_string_equal(reserved(), "80,1000-1002,40000-42000");
	assert_int_equal(sl_packet_get_meta(p, &meta), 0);
	assert_int_equal(meta.port_from, 40500);
	assert_int_equal(meta.port_to, 42000);
	sl_packet_close(p);
	p = open_usual(&found);
	assert_int_equal(sl_packet_reserve_ports(p, 40500, 42000), 0);
	assert_int_equal(sl_packet_release_ports(p), 1);
	assert_string_equal(reserved(), "80,1000-1002,40500-42000");
	assert_int_equal(sl_packet_release_ports(p), 0);
	sl_packet_close(p);
	assert_int_equal(purge(NULL), 0);
	assert_string_equal(reserved(), "80,1000-1002");
	write_reserved("\n");
}

/* Somebody else writes the setting as it should be without us. */
static void test_ports_taken_out(void **state)
{
	struct sl_packet_found found;
	struct sl_str missing = { 0 };
	struct sl_packet *p;

	(void)state;
	need_kernel();
	write_reserved("80,40990-41005\n");
	p = open_usual(&found);
	assert_int_equal(sl_packet_reserve_ports(p, 40000, 41000), 0);
	assert_int_equal(sl_packet_keep_ports(p, &missing), 0);
	assert_int_equal(missing.len, 0);
	write_reserved("80,40500\n");
	assert_int_equal(sl_packet_keep_ports(p, &missing), 1);
	assert_string_equal(sl_str_text(&missing), "40000-40499,40501-41000");
	assert_string_equal(reserved(), "80,40000-41000");
	assert_int_equal(sl_packet_keep_ports(p, &missing), 0);
	/* Those of a range before that flows may have, too; what they had reserved is ours now. */
	assert_int_equal(sl_packet_reserve_ports(p, 42000, 42001), 0);
	write_reserved("80\n");
	assert_int_equal(sl_packet_keep_ports(p, &missing), 1);
	assert_string_equal(reserved(), "80,40000-41000,42000-42001");
	assert_int_equal(sl_packet_release_ports(p), 1);
	assert_int_equal(sl_packet_keep_ports(p, &missing), 0);
	assert_string_equal(reserved(), "80,42000-42001");
	sl_packet_close(p);
	assert_int_equal(purge(NULL), 0);
	assert_string_equal(reserved(), "80");
	sl_str_done(&missing);
	write_reserved("\n");
}

/* What of it was somebody's is left, and no more, also after a death and another range. */
static void test_ports_of_others(void **state)
{
	struct sl_packet_found found;
	struct sl_packet_meta meta;
	struct sl_str report = { 0 };
	struct sl_packet *p;

	(void)state;
	need_kernel();
	write_reserved("80,40999-41005\n");
	p = open_usual(&found);
	assert_int_equal(sl_packet_reserve_ports(p, 40000, 41000), 0);
	assert_string_equal(reserved(), "80,40000-41005");
	assert_int_equal(sl_packet_get_meta(p, &meta), 0);
	assert_int_equal(meta.ports_added, 1);
	assert_int_equal(sl_packet_reserve_ports(p, 0, 5), -EINVAL);
	assert_int_equal(sl_packet_reserve_ports(p, 6, 5), -EINVAL);
	sl_packet_close(p);
	p = open_usual(&found);
	assert_int_equal(sl_packet_reserve_ports(p, 41004, 41010), 0);
	assert_int_equal(sl_packet_release_ports(p), 1);
	assert_string_equal(reserved(), "80,40999-41010");
	assert_int_equal(sl_packet_reserve_ports(p, 40990, 41000), 0);
	assert_int_equal(sl_packet_release_ports(p), 1);
	assert_string_equal(reserved(), "80,40990-41005");
	sl_packet_close(p);
	assert_int_equal(purge(&report), 0);
	assert_string_equal(reserved(), "80,40999-41005");
	assert_non_null(strstr(sl_str_text(&report), "ports 40990-40998 are no longer reserved\n"));
	sl_str_done(&report);
	/* Somebody has taken them out, or this is not the namespace of the daemon. */
	p = open_usual(&found);
	assert_int_equal(sl_packet_reserve_ports(p, 40990, 40998), 0);
	sl_packet_close(p);
	write_reserved("80,40999-41005\n");
	report = (struct sl_str){ 0 };
	assert_int_equal(purge(&report), 0);
	assert_string_equal(reserved(), "80,40999-41005");
	assert_non_null(strstr(sl_str_text(&report), "ports 40990-40998 were not reserved here; "));
	sl_str_done(&report);
	/* All of it: nothing to give back. */
	p = open_usual(&found);
	assert_int_equal(sl_packet_reserve_ports(p, 40999, 41005), 0);
	assert_int_equal(sl_packet_get_meta(p, &meta), 0);
	assert_int_equal(meta.ports_added, 0);
	sl_packet_close(p);
	assert_int_equal(purge(NULL), 0);
	assert_string_equal(reserved(), "80,40999-41005");
	write_reserved("\n");
}

/* The note of the ports outlives a change of the layout. */
static void test_ports_other_layout(void **state)
{
	struct sl_packet_found found;
	struct sl_packet_meta meta;
	struct sl_packet *p;

	(void)state;
	need_kernel();
	p = open_usual(&found);
	assert_int_equal(sl_packet_reserve_ports(p, 40000, 41000), 0);
	assert_int_equal(sl_packet_get_meta(p, &meta), 0);
	meta.layout = 99;
	assert_int_equal(sl_packet_set_meta(p, &meta), 0);
	sl_packet_close(p);
	p = open_usual(&found);
	assert_false(found.is_adopted);
	assert_int_equal(sl_packet_get_meta(p, &meta), 0);
	assert_int_equal(meta.ports_added, 1);
	sl_packet_close(p);
	/* By one that has no list of them. */
	assert_int_equal(unlink(in_dir("ports")), 0);
	p = open_usual(&found);
	assert_int_equal(sl_packet_get_meta(p, &meta), 0);
	assert_int_equal(meta.ports_added, 1);
	sl_packet_close(p);
	assert_int_equal(purge(NULL), 0);
	assert_string_equal(reserved(), "");
}

static void test_long_list(void **state)
{
	_cleanup_(sl_str_done) struct sl_str s = { 0 };
	_cleanup_free_ char *before = NULL;
	struct sl_packet_found found;
	struct sl_packet *p;

	(void)state;
	need_kernel();
	for (unsigned port = 1024; port < 9000; port += 2)
		sl_str_addf(&s, "%s%u", port == 1024 ? "" : ",", port);
	assert_true(s.len > 4 * 4096);
	p = open_usual(&found);
	for (size_t at = 0; at < s.len;) {
		int fd = open(PORTS, O_WRONLY);
		ssize_t n;

		assert_int_equal(lseek(fd, (off_t)at, SEEK_SET), at);
		n = write(fd, s.p + at, s.len - at);
		assert_true(n > 0);
		at += (size_t)n;
		(void)close(fd);
	}
	before = strdup(reserved());
	assert_string_equal(before, sl_str_text(&s));
	assert_int_equal(sl_packet_reserve_ports(p, 40000, 41000), 0);
	sl_str_adds(&s, ",40000-41000");
	assert_string_equal(reserved(), sl_str_text(&s));
	sl_packet_close(p);
	assert_int_equal(purge(NULL), 0);
	assert_string_equal(reserved(), before);
	write_reserved("\n");
}

static void test_port_lists(void **state)
{
	static const struct {
		const char *text;
		const char *want; /* NULL: refused */
		const char *why;
	} rows[] = {
		{ "", "", "nothing" },
		{ "\n", "", "nothing, as the kernel writes it" },
		{ "80", "80", "one" },
		{ "0,65535\n", "0,65535", "the ends" },
		{ "0-65535\n", "0-65535", "all" },
		{ "5-7,6-9,10", "5-10", "joined" },
		{ "9,5", "5,9", "not in order" },
		{ "7-5", NULL, "backwards" },
		{ "65536", NULL, "too large" },
		{ "1,", NULL, "comma at the end" },
		{ ",1", NULL, "comma at the start" },
		{ "1,,2", NULL, "nothing between" },
		{ "1-", NULL, "no end" },
		{ "-1", NULL, "no start" },
		{ "1-2-3", NULL, "two dashes" },
		{ "1 2", NULL, "blank" },
		{ "80\n\n", NULL, "two lines" },
		{ "99999999999999999999", NULL, "beyond 64 bits" },
	};

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(rows); i++) {
		_cleanup_(sl_str_done) struct sl_str s = { 0 };
		struct sl_packet_ports ports;
		int r = sl_packet_ports_parse(rows[i].text, strlen(rows[i].text), &ports);

		if (r != (rows[i].want ? 0 : -EINVAL))
			fail_msg("%s: %d", rows[i].why, r);
		if (r < 0)
			continue;
		sl_packet_ports_format(&ports, &s);
		assert_string_equal(sl_str_text(&s), rows[i].want);
	}
}

/* ---- events ---- */

struct heard {
	size_t n;
	struct sl_packet_event events[16];
};

static void hear(void *arg, const struct sl_packet_event *e)
{
	struct heard *h = arg;

	assert_true(h->n < SL_ARRAY_LEN(h->events));
	h->events[h->n++] = *e;
}

static bool has_input(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, 0) == 1;
}

static void test_events(void **state)
{
	struct sl_packet_found found;
	struct heard h = { 0 };
	struct sl_packet *p;

	(void)state;
	need_kernel();
	p = open_usual(&found);
	assert_false(has_input(sl_packet_events_fd(p)));
	assert_int_equal(sl_packet_events(p, 8, hear, &h), 0);
	for (uint16_t i = 0; i < 5; i++)
		send_fin((uint16_t)(1000 + i));
	assert_true(has_input(sl_packet_events_fd(p)));
	assert_int_equal(sl_packet_events(p, 0, hear, &h), 0);
	assert_int_equal(sl_packet_events(p, 2, hear, &h), 2);
	assert_true(has_input(sl_packet_events_fd(p)));
	/* A later daemon reads what this one has left. */
	sl_packet_close(p);
	p = open_usual(&found);
	assert_true(has_input(sl_packet_events_fd(p)));
	assert_int_equal(sl_packet_events(p, 8, hear, &h), 3);
	assert_false(has_input(sl_packet_events_fd(p)));
	assert_int_equal(sl_packet_events(p, 8, hear, &h), 0);
	for (size_t i = 0; i < 5; i++) {
		assert_int_equal(h.events[i].conn_id, 1000 + i);
		assert_int_equal(h.events[i].kind, SL_PACKET_EV_FIN);
		assert_int_equal(h.events[i].from, SL_PACKET_CLIENT);
	}
	send_fin(2000);
	assert_int_equal(sl_packet_events(p, 1, hear, &h), 1);
	assert_int_equal(sl_packet_events(p, 1, hear, &h), 0);
	sl_packet_close(p);
}

/* ---- all ---- */

#define OBJECTS(test) cmocka_unit_test_setup_teardown(test, clean, clean)
#define CLSACT(test)                                                          \
	{                                                                     \
#test " (clsact)", test, clean_clsact, tear_down_clsact, NULL \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_addresses),
		cmocka_unit_test(test_port_lists),
		OBJECTS(test_fresh),
		CLSACT(test_fresh),
		OBJECTS(test_run),
		OBJECTS(test_not_bpffs),
		OBJECTS(test_foreign_directory),
		OBJECTS(test_no_privilege),
		OBJECTS(test_net_admin_alone),
		CLSACT(test_net_admin_alone),
		OBJECTS(test_adopt),
		CLSACT(test_adopt),
		OBJECTS(test_route_ids),
		OBJECTS(test_other_layout),
		CLSACT(test_other_layout),
		OBJECTS(test_other_shapes),
		CLSACT(test_other_shapes),
		OBJECTS(test_adopt_without_some),
		CLSACT(test_adopt_without_some),
		OBJECTS(test_something_else),
		CLSACT(test_something_else),
		OBJECTS(test_max_flows),
		OBJECTS(test_strays),
		OBJECTS(test_attach),
		CLSACT(test_attach),
		OBJECTS(test_foreign_detach),
		OBJECTS(test_sweep),
		OBJECTS(test_other_namespace),
		OBJECTS(test_coexists),
		OBJECTS(test_xdp),
		CLSACT(test_xdp),
		OBJECTS(test_clsact),
		OBJECTS(test_clsact_taken),
		OBJECTS(test_repin),
		CLSACT(test_repin),
		OBJECTS(test_purge),
		CLSACT(test_purge),
		OBJECTS(test_batch),
		OBJECTS(test_read_only),
		OBJECTS(test_counts),
		OBJECTS(test_events),
		OBJECTS(test_ports),
		OBJECTS(test_ports_taken_out),
		OBJECTS(test_ports_of_others),
		OBJECTS(test_ports_other_layout),
		OBJECTS(test_long_list),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
