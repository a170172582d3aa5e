/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The directory of pins: only names of ours that hold objects of their kind are ever touched. */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

#include "accel/packet_impl.h"
#include "accel/sockmap.h"
#include "base/num.h"

/* ---- names ---- */

const char *sl_packet_map_name(enum sl_packet_map map)
{
	static const char *const names[] = {
		[SL_MAP_FLOWS] = "flows",       [SL_MAP_EVENTS] = "events",
		[SL_MAP_COUNTERS] = "counters", [SL_MAP_ROUTES] = "routes",
		[SL_MAP_META] = "meta",         [SL_MAP_PORTS] = "ports",
	};
	_Static_assert(SL_ARRAY_LEN(names) == SL_PACKET_MAP_COUNT_, "all named");

	return names[map];
}

const char *sl_packet_prog_pin(enum sl_packet_prog prog)
{
	static const char *const names[] = {
		[SL_PROG_TC] = "prog_tc",
		[SL_PROG_XDP] = "prog_xdp",
		[SL_PROG_CONTROL] = "prog_control",
		[SL_PROG_FREEZE] = "prog_freeze",
	};
	_Static_assert(SL_ARRAY_LEN(names) == SL_PACKET_PROG_COUNT_, "all named");

	return names[prog];
}

const char *sl_packet_link_pin(unsigned ifindex, bool is_xdp, char buf[32])
{
	(void)snprintf(buf, 32, "link_%s_%u", is_xdp ? "xdp" : "tcx", ifindex);
	return buf;
}

bool sl_packet_parse_link(const char *name, struct sl_packet_link_name *ret)
{
	bool is_xdp = strncmp(name, "link_xdp_", 9) == 0;
	uint64_t ifindex;

	if (!is_xdp && strncmp(name, "link_tcx_", 9) != 0)
		return false;
	if (sl_num_parse(name + 9, 1, INT_MAX, &ifindex) < 0)
		return false;
	*ret = (struct sl_packet_link_name){ (unsigned)ifindex, is_xdp };
	return true;
}

static enum sl_packet_kind kind_of_name(const char *name)
{
	struct sl_packet_link_name link;

	for (int i = 0; i < SL_PACKET_MAP_COUNT_; i++)
		if (strcmp(name, sl_packet_map_name((enum sl_packet_map)i)) == 0)
			return SL_KIND_MAP;
	for (int i = 0; i < SL_PACKET_PROG_COUNT_; i++)
		if (strcmp(name, sl_packet_prog_pin((enum sl_packet_prog)i)) == 0)
			return SL_KIND_PROG;
	return sl_packet_parse_link(name, &link) ? SL_KIND_LINK : SL_KIND_OTHER;
}

/* ---- objects ---- */

/* The kernel tells the kinds apart only by the name of what a descriptor stands for. */
static enum sl_packet_kind kind_of_fd(int fd)
{
	char path[40];
	char to[64];
	ssize_t n;

	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, to, sizeof(to) - 1);
	if (n < 0)
		return SL_KIND_OTHER;
	to[n] = '\0';
	if (strstr(to, "bpf-map"))
		return SL_KIND_MAP;
	if (strstr(to, "bpf-prog"))
		return SL_KIND_PROG;
	return strstr(to, "bpf_link") || strstr(to, "bpf-link") ? SL_KIND_LINK : SL_KIND_OTHER;
}

uint32_t sl_packet_map_id(int fd)
{
	struct bpf_map_info info = { 0 };
	uint32_t size = sizeof(info);

	if (kind_of_fd(fd) != SL_KIND_MAP || bpf_obj_get_info_by_fd(fd, &info, &size) < 0)
		return 0;
	return info.id;
}

uint32_t sl_packet_prog_id(int fd)
{
	struct bpf_prog_info info = { 0 };
	uint32_t size = sizeof(info);

	if (kind_of_fd(fd) != SL_KIND_PROG || bpf_obj_get_info_by_fd(fd, &info, &size) < 0)
		return 0;
	return info.id;
}

bool sl_packet_is_shape(int fd, const struct bpf_map *map)
{
	struct bpf_map_info info = { 0 };
	uint32_t size = sizeof(info);

	return bpf_obj_get_info_by_fd(fd, &info, &size) == 0 && info.type == bpf_map__type(map) &&
	       info.key_size == bpf_map__key_size(map) &&
	       info.value_size == bpf_map__value_size(map);
}

uint32_t sl_packet_max_entries(int fd)
{
	struct bpf_map_info info = { 0 };
	uint32_t size = sizeof(info);

	return bpf_obj_get_info_by_fd(fd, &info, &size) < 0 ? 0 : info.max_entries;
}

/* ---- privileges ---- */

static bool has_cap(const struct __user_cap_data_struct caps[2], unsigned cap)
{
	return caps[cap / 32].effective >> (cap % 32) & 1;
}

int sl_packet_check_caps(struct sl_str *report)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct caps[2] = { 0 };
	bool is_admin;

	if (syscall(SYS_capget, &head, caps) < 0)
		return -errno;
	is_admin = has_cap(caps, CAP_SYS_ADMIN);
	if (has_cap(caps, CAP_NET_ADMIN) &&
	    (is_admin || (has_cap(caps, CAP_BPF) && has_cap(caps, CAP_PERFMON))))
		return 0;
	sl_str_adds(report, "needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON");
	return -EPERM;
}

/* ---- the directory ---- */

static bool is_bpffs(const char *path)
{
	struct statfs fs;

	return statfs(path, &fs) == 0 && fs.f_type == BPF_FS_MAGIC;
}

static int parent_of(const char *dir, char **ret)
{
	_cleanup_free_ char *parent = strdup(dir);
	char *slash = parent ? strrchr(parent, '/') : NULL;

	if (!parent)
		return -ENOMEM;
	while (slash && slash > parent && slash[1] == '\0') { /* "dir/" */
		*slash = '\0';
		slash = strrchr(parent, '/');
	}
	if (slash)
		slash[slash == parent] = '\0';
	*ret = slash ? SL_TAKE_PTR(parent) : strdup(".");
	return *ret ? 0 : -ENOMEM;
}

/* -ENOENT: its parent is missing, too. */
static int make_missing(const char *dir)
{
	_cleanup_free_ char *parent = NULL;
	int r = parent_of(dir, &parent);

	if (r < 0)
		return r;
	if (access(parent, F_OK) < 0)
		return -errno;
	if (!is_bpffs(parent))
		return -ENODEV;
	return mkdir(dir, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

bool sl_packet_has_place(const char *dir)
{
	_cleanup_free_ char *parent = NULL;

	if (access(dir, F_OK) == 0)
		return is_bpffs(dir);
	return parent_of(dir, &parent) == 0 && is_bpffs(parent);
}

/* Where the file system lets everybody make directories, it may be a trap. */
static int check_owner(const char *dir)
{
	struct stat st;

	if (lstat(dir, &st) < 0)
		return -errno;
	if (!S_ISDIR(st.st_mode))
		return -ENOTDIR;
	if (!is_bpffs(dir))
		return -ENODEV;
	if (st.st_uid != geteuid() && st.st_uid != 0)
		return -EPERM;
	if ((st.st_mode & 0777) != 0700 && st.st_uid == geteuid() && chmod(dir, 0700) < 0)
		return -errno;
	return 0;
}

static void explain(struct sl_str *report, const char *dir, int err)
{
	_cleanup_free_ char *parent = NULL;

	if (!report)
		return;
	if (err == -ENOENT && parent_of(dir, &parent) == 0)
		sl_str_addf(report,
			    "the directory %s is missing: bpf_dir is made in it, on a bpf "
			    "file system",
			    parent);
	else if (err == -ENODEV)
		sl_str_addf(report, "%s is not on a bpf file system (mount -t bpf bpf /sys/fs/bpf)",
			    dir);
	else if (err == -EPERM)
		sl_str_addf(report, "%s belongs to another user: remove it, or set bpf_dir", dir);
	else if (err == -EBUSY)
		sl_str_addf(report,
			    "%s is in use by another daemon: give each a bpf_dir of its own", dir);
	else
		sl_str_addf(report, "cannot use the directory %s: %s", dir, strerror(-err));
}

int sl_packet_lock_dir(const char *dir, struct sl_str *report, int *ret_fd)
{
	_cleanup_fd_ int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r = fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0 ? -errno : 0;

	if (r == -EWOULDBLOCK)
		r = -EBUSY;
	if (r < 0)
		explain(report, dir, r);
	else
		*ret_fd = SL_TAKE_FD(fd);
	return r;
}

int sl_packet_make_dir(const char *dir, struct sl_str *report)
{
	struct stat st;
	int r = 0;

	if (lstat(dir, &st) < 0)
		r = errno == ENOENT ? make_missing(dir) : -errno;
	if (r == 0)
		r = check_owner(dir);
	if (r < 0)
		explain(report, dir, r);
	return r;
}

int sl_packet_keep_lock(const char *dir, int *lock_fd)
{
	_cleanup_fd_ int fd = -1;
	struct stat locked;
	struct stat there;
	int r;

	if (fstat(*lock_fd, &locked) < 0 || stat(dir, &there) < 0)
		return -errno;
	if (locked.st_dev == there.st_dev && locked.st_ino == there.st_ino)
		return 0;
	r = sl_packet_lock_dir(dir, NULL, &fd);
	if (r < 0)
		return r;
	sl_closep(lock_fd);
	*lock_fd = SL_TAKE_FD(fd);
	return 0;
}

int sl_packet_enter_dir(const char *dir, struct sl_str *report, int *ret_lock)
{
	struct stat st;
	int r;

	if (lstat(dir, &st) < 0 && errno == ENOENT)
		return -ENOENT;
	r = check_owner(dir);
	if (r < 0) {
		explain(report, dir, r);
		return r;
	}
	return sl_packet_lock_dir(dir, report, ret_lock);
}

int sl_packet_remove_dir(const char *dir, bool is_shared, struct sl_str *report)
{
	if (rmdir(dir) == 0)
		sl_str_addf(report, "removed %s\n", dir);
	else if (errno != ENOTEMPTY && errno != EEXIST)
		return errno == EBUSY ? 0 : -errno; /* a mount point stays */
	else if (!is_shared)
		sl_str_addf(report, "left %s: it holds other things\n", dir);
	return 0;
}

/* ---- pins ---- */

static int join(const char *dir, const char *name, char ret[PATH_MAX])
{
	int n = snprintf(ret, PATH_MAX, "%s/%s", dir, name);

	return n < 0 || n >= PATH_MAX ? -ENAMETOOLONG : 0;
}

bool sl_packet_is_pinned(const char *dir)
{
	char path[PATH_MAX];

	return join(dir, sl_packet_map_name(SL_MAP_FLOWS), path) == 0 && access(path, F_OK) == 0;
}

int sl_packet_get_pin(const char *dir, const char *name, enum sl_packet_kind kind, int *ret_fd)
{
	_cleanup_fd_ int fd = -1;
	char path[PATH_MAX];
	int r = join(dir, name, path);

	if (r < 0)
		return r;
	fd = bpf_obj_get(path);
	if (fd < 0) /* of a file that is no pin: EACCES, of a directory likewise */
		return errno == ENOENT ? -ENOENT : errno == EACCES ? -EINVAL : -errno;
	if (kind_of_fd(fd) != kind)
		return -EINVAL;
	*ret_fd = SL_TAKE_FD(fd);
	return 0;
}

int sl_packet_put_pin(const char *dir, const char *name, int fd)
{
	char path[PATH_MAX];
	int r = join(dir, name, path);

	if (r < 0)
		return r;
	if (bpf_obj_pin(fd, path) == 0)
		return 0;
	if (errno != EEXIST)
		return -errno;
	if (unlink(path) < 0 && errno != ENOENT)
		return -errno;
	return bpf_obj_pin(fd, path) < 0 ? -errno : 0;
}

void sl_packet_remove_pin(const char *dir, const char *name)
{
	char path[PATH_MAX];

	if (join(dir, name, path) == 0)
		(void)unlink(path);
}

int sl_packet_keep_pin(const char *dir, const char *name, enum sl_packet_kind kind, int fd,
		       unsigned *n, struct sl_str *names)
{
	uint32_t (*id_of)(int) = kind == SL_KIND_MAP ? sl_packet_map_id : sl_packet_prog_id;
	_cleanup_fd_ int pinned = -1;
	int r;

	if (fd < 0)
		return 0;
	if (sl_packet_get_pin(dir, name, kind, &pinned) == 0 && id_of(pinned) == id_of(fd))
		return 0;
	r = sl_packet_put_pin(dir, name, fd);
	if (r < 0)
		return r;
	(*n)++;
	if (names)
		sl_str_addf(names, "%s ", name);
	return 0;
}

static int is_our_name(const struct dirent *e)
{
	return kind_of_name(e->d_name) != SL_KIND_OTHER;
}

int sl_packet_each_pin(const char *dir, int (*fn)(void *arg, const char *name), void *arg)
{
	struct dirent **names = NULL;
	int n = scandir(dir, &names, is_our_name, alphasort);
	int first = 0;

	if (n < 0)
		return errno == ENOENT ? 0 : -errno;
	for (int i = 0; i < n; i++) {
		int r = fn(arg, names[i]->d_name);

		if (r < 0 && first == 0)
			first = r;
		free(names[i]);
	}
	free(names);
	return first;
}

int sl_packet_read_pinned_meta(const char *dir, struct sl_packet_meta *ret)
{
	_cleanup_free_ uint8_t *row = NULL;
	_cleanup_fd_ int fd = -1;
	struct bpf_map_info info = { 0 };
	uint32_t size = sizeof(info);
	uint32_t zero = 0;
	int r = sl_packet_get_pin(dir, sl_packet_map_name(SL_MAP_META), SL_KIND_MAP, &fd);

	if (r < 0)
		return -ENOENT;
	if (bpf_obj_get_info_by_fd(fd, &info, &size) < 0 || info.type != BPF_MAP_TYPE_ARRAY ||
	    info.value_size < offsetof(struct sl_packet_meta, pad) || info.value_size > 4096)
		return -ENOENT;
	row = calloc(1, info.value_size + sizeof(uint64_t));
	if (!row)
		return -ENOMEM;
	if (bpf_map_lookup_elem(fd, &zero, row) < 0)
		return -ENOENT;
	*ret = (struct sl_packet_meta){ 0 };
	memcpy(ret, row, info.value_size < sizeof(*ret) ? info.value_size : sizeof(*ret));
	return 0;
}

void sl_packet_read_pinned_ports(const char *dir, const struct sl_packet_meta *meta,
				 struct sl_packet_ports *ret)
{
	_cleanup_fd_ int fd = -1;
	struct bpf_map_info info = { 0 };
	uint32_t size = sizeof(info);
	uint32_t zero = 0;

	*ret = (struct sl_packet_ports){ 0 };
	if (sl_packet_get_pin(dir, sl_packet_map_name(SL_MAP_PORTS), SL_KIND_MAP, &fd) == 0 &&
	    bpf_obj_get_info_by_fd(fd, &info, &size) == 0 && info.type == BPF_MAP_TYPE_ARRAY &&
	    info.value_size == sizeof(*ret) && bpf_map_lookup_elem(fd, &zero, ret) == 0)
		return;
	if (meta->ports_added)
		sl_packet_ports_set(ret, meta->port_from, meta->port_to, true);
}

/* ---- the end ---- */

struct removal {
	const char *dir;
	struct sl_str *report;
};

static int remove_one(void *arg, const char *name)
{
	const struct removal *m = arg;
	enum sl_packet_kind kind = kind_of_name(name);
	_cleanup_fd_ int fd = -1;
	int r;

	if (kind == SL_KIND_LINK) {
		r = sl_packet_end_link(m->dir, name);
	} else {
		r = sl_packet_get_pin(m->dir, name, kind, &fd);
		if (r == 0)
			sl_packet_remove_pin(m->dir, name);
	}
	if (r == -ENOENT)
		return 0;
	if (m->report && r == 0)
		sl_str_addf(m->report, "removed %s/%s\n", m->dir, name);
	else if (m->report)
		sl_str_addf(m->report, "left %s/%s: %s\n", m->dir, name,
			    r == -EINVAL ? "not ours" : strerror(-r));
	return r == -EINVAL ? 0 : r;
}

int sl_packet_remove_all(const char *dir, struct sl_str *report)
{
	struct removal m = { dir, report };

	sl_packet_remove_filters(report);
	return sl_packet_each_pin(dir, remove_one, &m);
}

static int remove_ports(const char *dir, struct sl_str *report)
{
	_cleanup_(sl_str_done) struct sl_str list = { 0 };
	struct sl_packet_meta meta = { 0 };
	struct sl_packet_ports ports;
	int r;

	(void)sl_packet_read_pinned_meta(dir, &meta);
	sl_packet_read_pinned_ports(dir, &meta, &ports);
	if (sl_packet_ports_is_empty(&ports))
		return 0;
	r = sl_packet_free_ports(&ports);
	sl_packet_ports_format(&ports, &list);
	if (r > 0)
		sl_str_addf(report, "ports %s are no longer reserved\n", sl_str_text(&list));
	else if (r == 0)
		sl_str_addf(report,
			    "ports %s were not reserved here; if the daemon ran in another network "
			    "namespace, take them out of net.ipv4.ip_local_reserved_ports there\n",
			    sl_str_text(&list));
	else
		sl_str_addf(report, "ports %s stay reserved: %s\n", sl_str_text(&list),
			    strerror(-r));
	return r < 0 ? r : 0;
}

int sl_packet_purge(const char *dir, struct sl_str *report)
{
	_cleanup_fd_ int lock = -1;
	int r_ports;
	int r_dir;
	int r;

	sl_packet_hook_messages();
	r = sl_packet_enter_dir(dir, report, &lock);
	if (r == -ENOENT) {
		sl_packet_remove_filters(report);
		return 0;
	}
	if (r < 0)
		return r;
	r_ports = remove_ports(dir, report);
	r = sl_packet_remove_all(dir, report);
	r_dir = sl_packet_remove_dir(dir, sl_sockmap_is_pinned(dir), report);
	if (r == 0)
		r = r_dir;
	return r < 0 ? r : r_ports;
}
