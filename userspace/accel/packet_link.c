/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Where the programs are attached: a pinned tcx link per interface, or a filter of ours on clsact
 * where the kernel has no tcx (before 6.6), and a pinned XDP link beside it where asked for.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>

#include "accel/compat.h"
#include "accel/packet_impl.h"

/*
 * What makes a filter ours. "sl", in both; the priority is above those the kernel gives out itself
 * (from 49152 down), so that filters of others that are asked for by number come first, as with
 * tcx.
 */
#define TC_HANDLE 0x736c
#define TC_PRIORITY 0x736c

#define MAX_IFACES 4096 /* each has a descriptor or two */

#define PROG_NAME "sl_packet_tc"

/* ---- links ---- */

/* 0: of another kind, or without a device any more. */
static unsigned link_ifindex(int fd, bool is_xdp, uint32_t *ret_prog_id)
{
	struct bpf_link_info info = { 0 };
	uint32_t size = sizeof(info);

	if (bpf_obj_get_info_by_fd(fd, &info, &size) < 0)
		return 0;
	if (ret_prog_id)
		*ret_prog_id = info.prog_id;
	if (is_xdp)
		return info.type == BPF_LINK_TYPE_XDP ? info.xdp.ifindex : 0;
	return info.type == SL_BPF_LINK_TYPE_TCX ? sl_compat_tcx_ifindex(&info) : 0;
}

static int get_link(const char *dir, const char *name, bool is_xdp, int *ret_fd)
{
	struct bpf_link_info info = { 0 };
	uint32_t size = sizeof(info);
	_cleanup_fd_ int fd = -1;
	int r = sl_packet_get_pin(dir, name, SL_KIND_LINK, &fd);

	if (r < 0)
		return r;
	if (bpf_obj_get_info_by_fd(fd, &info, &size) < 0)
		return -errno;
	if (info.type != (is_xdp ? BPF_LINK_TYPE_XDP : SL_BPF_LINK_TYPE_TCX))
		return -EINVAL;
	*ret_fd = SL_TAKE_FD(fd);
	return 0;
}

int sl_packet_end_link(const char *dir, const char *name)
{
	struct sl_packet_link_name link;
	_cleanup_fd_ int fd = -1;
	int r;

	if (!sl_packet_parse_link(name, &link))
		return -EINVAL;
	r = get_link(dir, name, link.is_xdp, &fd);
	if (r < 0)
		return r;
	/* Somebody else may hold it; one without a device is detached already. */
	(void)bpf_link_detach(fd);
	sl_packet_remove_pin(dir, name);
	return 0;
}

bool sl_packet_can_tcx(int prog_fd)
{
	/* There is no interface 0; a kernel without tcx does not get as far as looking for it. */
	int fd = sl_compat_tcx_attach(prog_fd, 0);

	if (fd >= 0) {
		(void)close(fd);
		return true;
	}
	return errno == ENODEV;
}

/* ---- interfaces of ours ---- */

static struct sl_packet_iface *find(const struct sl_packet *p, unsigned ifindex)
{
	for (size_t i = 0; i < p->n_ifaces; i++)
		if (p->ifaces[i].ifindex == ifindex)
			return &p->ifaces[i];
	return NULL;
}

static int add(struct sl_packet *p, unsigned ifindex, struct sl_packet_iface **ret)
{
	struct sl_packet_iface *ifaces;

	*ret = find(p, ifindex);
	if (*ret)
		return 0;
	if (p->n_ifaces == MAX_IFACES)
		return -E2BIG;
	ifaces = realloc(p->ifaces, (p->n_ifaces + 1) * sizeof(*ifaces));
	if (!ifaces)
		return -ENOMEM;
	p->ifaces = ifaces;
	*ret = &ifaces[p->n_ifaces++];
	**ret = (struct sl_packet_iface){ ifindex, -1, -1 };
	return 0;
}

static void forget(struct sl_packet *p, struct sl_packet_iface *iface)
{
	sl_closep(&iface->tcx_fd);
	sl_closep(&iface->xdp_fd);
	*iface = p->ifaces[--p->n_ifaces];
}

void sl_packet_close_links(struct sl_packet *p)
{
	while (p->n_ifaces > 0)
		forget(p, p->ifaces);
	free(p->ifaces);
	p->ifaces = NULL;
}

/* ---- clsact ---- */

/* The program of the filter that has our handle and priority; 0: there is none. */
static uint32_t filter_prog(unsigned ifindex)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)ifindex, .attach_point = BPF_TC_INGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = TC_HANDLE, .priority = TC_PRIORITY);

	return bpf_tc_query(&hook, &opts) < 0 ? 0 : opts.prog_id;
}

/* Looking at a program by its id needs CAP_SYS_ADMIN; else the two numbers must do. */
static bool is_ours(uint32_t prog_id)
{
	struct bpf_prog_info info = { 0 };
	uint32_t size = sizeof(info);
	_cleanup_fd_ int fd = bpf_prog_get_fd_by_id(prog_id);

	if (fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &size) < 0)
		return true;
	return strcmp(info.name, PROG_NAME) == 0;
}

static int attach_filter(const struct sl_packet *p, unsigned ifindex)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)ifindex, .attach_point = BPF_TC_INGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = TC_HANDLE, .priority = TC_PRIORITY,
		    .prog_fd = p->progs[SL_PROG_TC]);
	uint32_t there = filter_prog(ifindex);
	int r;

	if (there == p->ids[SL_PROG_TC])
		return 0;
	if (there && !is_ours(there))
		return -EBUSY;
	/* The qdisc stays when our filter goes: others may have come to use it. */
	r = bpf_tc_hook_create(&hook);
	if (r < 0 && r != -EEXIST)
		return r;
	if (there)
		opts.flags = BPF_TC_F_REPLACE;
	return bpf_tc_attach(&hook, &opts);
}

static bool detach_filter(unsigned ifindex)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)ifindex, .attach_point = BPF_TC_INGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = TC_HANDLE, .priority = TC_PRIORITY);
	uint32_t there = filter_prog(ifindex);

	return there && is_ours(there) && bpf_tc_detach(&hook, &opts) == 0;
}

static void each_filter(bool (*wanted)(void *arg, unsigned ifindex), void *arg,
			struct sl_str *report)
{
	struct if_nameindex *names = if_nameindex();

	for (struct if_nameindex *i = names; i && i->if_index; i++) {
		if (wanted && wanted(arg, i->if_index))
			continue;
		if (detach_filter(i->if_index) && report)
			sl_str_addf(report, "removed the filter of %s\n", i->if_name);
	}
	if_freenameindex(names);
}

void sl_packet_remove_filters(struct sl_str *report)
{
	each_filter(NULL, NULL, report);
}

/* ---- attaching ---- */

struct spot {
	const struct sl_packet *p;
	unsigned ifindex;
	bool is_xdp;
	enum sl_packet_prog prog;
	char pin[32];
};

static struct spot spot_of(const struct sl_packet *p, unsigned ifindex, bool is_xdp)
{
	struct spot s = { p, ifindex, is_xdp, is_xdp ? SL_PROG_XDP : SL_PROG_TC, "" };

	(void)sl_packet_link_pin(ifindex, is_xdp, s.pin);
	return s;
}

/* In the place of the program that is on the link: no packet meets none. */
static int take_over(const struct spot *s, int fd)
{
	uint32_t prog_id = 0;

	if (link_ifindex(fd, s->is_xdp, &prog_id) != s->ifindex)
		return -ENOLINK;
	if (prog_id == s->p->ids[s->prog])
		return 0;
	return bpf_link_update(fd, s->p->progs[s->prog], NULL) < 0 ? -errno : 0;
}

/*
 * Whether it is in this namespace: a daemon that has moved to another one finds links with the
 * numbers of interfaces it has, too.
 */
static bool is_here(const struct spot *s)
{
	uint32_t ids[64]; /* BPF_MPROG_MAX */
	uint32_t n = SL_ARRAY_LEN(ids);
	uint32_t ours = s->p->ids[s->prog];

	if (s->is_xdp)
		return bpf_xdp_query_id((int)s->ifindex, XDP_FLAGS_DRV_MODE, ids) == 0 &&
		       ids[0] == ours;
	if (bpf_prog_query((int)s->ifindex, SL_BPF_TCX_INGRESS, 0, NULL, ids, &n) < 0)
		return false;
	for (uint32_t i = 0; i < n && i < SL_ARRAY_LEN(ids); i++)
		if (ids[i] == ours)
			return true;
	return false;
}

static int create(const struct spot *s)
{
	LIBBPF_OPTS(bpf_link_create_opts, opts, .flags = XDP_FLAGS_DRV_MODE);
	int prog = s->p->progs[s->prog];

	return s->is_xdp ? bpf_link_create(prog, (int)s->ifindex, BPF_XDP, &opts)
			 : sl_compat_tcx_attach(prog, (int)s->ifindex);
}

static int attach_new(const struct spot *s, int *fd)
{
	int new_fd = create(s);

	if (new_fd < 0)
		return -errno;
	/* It works without a pin, and sl_packet_repin() makes those that are missing. */
	(void)sl_packet_put_pin(s->p->dir, s->pin, new_fd);
	*fd = new_fd;
	return 0;
}

static int attach_link(const struct spot *s, int *fd)
{
	_cleanup_fd_ int pinned = -1;

	if (*fd >= 0 && take_over(s, *fd) == 0)
		return 0;
	sl_closep(fd);
	if (get_link(s->p->dir, s->pin, s->is_xdp, &pinned) == 0) {
		if (take_over(s, pinned) == 0 && is_here(s)) {
			*fd = SL_TAKE_FD(pinned);
			return 0;
		}
		(void)bpf_link_detach(pinned);
		sl_packet_remove_pin(s->p->dir, s->pin);
	}
	return attach_new(s, fd);
}

static int attach_xdp(const struct sl_packet *p, unsigned ifindex, int *fd)
{
	struct spot s = spot_of(p, ifindex, true);
	int r;

	if (p->hook != SL_HOOK_XDP) {
		(void)sl_packet_end_link(p->dir, s.pin);
		return 0;
	}
	r = attach_link(&s, fd);
	if (r == -ENODEV || r == -ENOMEM || r == -EPERM || r == 0)
		return r;
	return -EOPNOTSUPP; /* drivers refuse with many numbers */
}

int sl_packet_attach(struct sl_packet *p, unsigned ifindex)
{
	struct spot s = spot_of(p, ifindex, false);
	struct sl_packet_iface *iface = NULL;
	int r = add(p, ifindex, &iface);

	if (r < 0)
		return r;
	r = p->has_tcx ? attach_link(&s, &iface->tcx_fd) : attach_filter(p, ifindex);
	if (r < 0) {
		sl_packet_detach(p, ifindex);
		return r;
	}
	return attach_xdp(p, ifindex, &iface->xdp_fd);
}

static void end(const char *dir, const char *pin, int *fd)
{
	if (*fd < 0)
		return;
	(void)bpf_link_detach(*fd);
	sl_packet_remove_pin(dir, pin);
	sl_closep(fd);
}

void sl_packet_detach(struct sl_packet *p, unsigned ifindex)
{
	struct sl_packet_iface *iface = find(p, ifindex);
	char pin[32];

	if (!iface)
		return;
	end(p->dir, sl_packet_link_pin(ifindex, true, pin), &iface->xdp_fd);
	end(p->dir, sl_packet_link_pin(ifindex, false, pin), &iface->tcx_fd);
	if (!p->has_tcx)
		(void)detach_filter(ifindex);
	forget(p, iface);
}

static bool is_on(const struct sl_packet *p, int fd, bool is_xdp, unsigned ifindex)
{
	uint32_t prog_id = 0;

	return link_ifindex(fd, is_xdp, &prog_id) == ifindex &&
	       prog_id == p->ids[is_xdp ? SL_PROG_XDP : SL_PROG_TC];
}

bool sl_packet_is_attached(const struct sl_packet *p, unsigned ifindex)
{
	const struct sl_packet_iface *iface = find(p, ifindex);

	if (!iface)
		return false;
	if (iface->xdp_fd >= 0 && !is_on(p, iface->xdp_fd, true, ifindex))
		return false;
	if (!p->has_tcx)
		return filter_prog(ifindex) == p->ids[SL_PROG_TC];
	return iface->tcx_fd >= 0 && is_on(p, iface->tcx_fd, false, ifindex);
}

const char *sl_packet_hook_text(const struct sl_packet *p)
{
	if (p->hook == SL_HOOK_XDP)
		return p->has_tcx ? "xdp+tcx" : "xdp+clsact";
	return p->has_tcx ? "tcx" : "clsact";
}

/* ---- sweeping ---- */

struct sweep {
	const struct sl_packet *p;
	bool (*wanted)(void *arg, unsigned ifindex);
	void *arg;
};

/* A link of an earlier daemon whose interface was not attached anew. */
static int sweep_pin(void *arg, const char *name)
{
	const struct sweep *s = arg;
	struct sl_packet_link_name link;
	_cleanup_fd_ int fd = -1;

	if (!sl_packet_parse_link(name, &link) || find(s->p, link.ifindex))
		return 0;
	if (get_link(s->p->dir, name, link.is_xdp, &fd) < 0)
		return 0;
	if (link_ifindex(fd, link.is_xdp, NULL) == link.ifindex && s->wanted(s->arg, link.ifindex))
		return 0;
	return sl_packet_end_link(s->p->dir, name);
}

static void end_dead(const struct sl_packet *p, unsigned ifindex, bool is_xdp, int *fd)
{
	char pin[32];

	if (*fd >= 0 && link_ifindex(*fd, is_xdp, NULL) != ifindex)
		end(p->dir, sl_packet_link_pin(ifindex, is_xdp, pin), fd);
}

void sl_packet_sweep_links(struct sl_packet *p, bool (*wanted)(void *arg, unsigned ifindex),
			   void *arg)
{
	struct sweep s = { p, wanted, arg };

	for (size_t i = p->n_ifaces; i-- > 0;) {
		struct sl_packet_iface *iface = &p->ifaces[i];

		end_dead(p, iface->ifindex, true, &iface->xdp_fd);
		end_dead(p, iface->ifindex, false, &iface->tcx_fd);
		if (!wanted(arg, iface->ifindex))
			sl_packet_detach(p, iface->ifindex);
	}
	(void)sl_packet_each_pin(p->dir, sweep_pin, &s);
	if (!p->has_tcx)
		each_filter(wanted, arg, NULL);
}

/* ---- pins ---- */

static int repin(const struct sl_packet *p, unsigned ifindex, bool is_xdp, int fd,
		 struct sl_str *names)
{
	char name[32];
	_cleanup_fd_ int pinned = -1;
	struct bpf_link_info ours = { 0 };
	struct bpf_link_info there = { 0 };
	uint32_t n_ours = sizeof(ours);
	uint32_t n_there = sizeof(there);
	int r;

	if (fd < 0 || bpf_obj_get_info_by_fd(fd, &ours, &n_ours) < 0)
		return 0;
	(void)sl_packet_link_pin(ifindex, is_xdp, name);
	if (get_link(p->dir, name, is_xdp, &pinned) == 0 &&
	    bpf_obj_get_info_by_fd(pinned, &there, &n_there) == 0 && there.id == ours.id)
		return 0;
	r = sl_packet_put_pin(p->dir, name, fd);
	if (r < 0)
		return r;
	if (names)
		sl_str_addf(names, "%s ", name);
	return 1;
}

int sl_packet_repin_links(struct sl_packet *p, struct sl_str *names)
{
	int n = 0;

	for (size_t i = 0; i < p->n_ifaces; i++) {
		const struct sl_packet_iface *iface = &p->ifaces[i];
		int r_tcx = repin(p, iface->ifindex, false, iface->tcx_fd, names);
		int r_xdp = repin(p, iface->ifindex, true, iface->xdp_fd, names);

		if (r_tcx < 0 || r_xdp < 0)
			return r_tcx < 0 ? r_tcx : r_xdp;
		n += r_tcx + r_xdp;
	}
	return n;
}

/* ---- programs of an earlier daemon ---- */

struct strays {
	const char *dir;
	uint32_t flows_id;
	size_t n;
};

/* By the pin where it is that program's, because an id alone opens it only for CAP_SYS_ADMIN. */
static int open_prog(const struct strays *s, uint32_t prog_id, bool is_xdp)
{
	_cleanup_fd_ int fd = -1;

	if (sl_packet_get_pin(s->dir, sl_packet_prog_pin(is_xdp ? SL_PROG_XDP : SL_PROG_TC),
			      SL_KIND_PROG, &fd) == 0 &&
	    sl_packet_prog_id(fd) == prog_id)
		return SL_TAKE_FD(fd);
	return bpf_prog_get_fd_by_id(prog_id);
}

/* What cannot be looked at counts as fitting. */
static bool uses_map(int prog_fd, uint32_t map_id)
{
	uint32_t ids[64] = { 0 };
	struct bpf_prog_info info = { .nr_map_ids = SL_ARRAY_LEN(ids),
				      .map_ids = (uint64_t)(uintptr_t)ids };
	uint32_t size = sizeof(info);

	if (prog_fd < 0 || bpf_obj_get_info_by_fd(prog_fd, &info, &size) < 0)
		return true;
	for (size_t i = 0; i < info.nr_map_ids && i < SL_ARRAY_LEN(ids); i++)
		if (ids[i] == map_id)
			return true;
	return false;
}

static int look_for_stray(void *arg, const char *name)
{
	struct strays *s = arg;
	struct sl_packet_link_name link;
	_cleanup_fd_ int link_fd = -1;
	_cleanup_fd_ int prog_fd = -1;
	uint32_t prog_id = 0;

	if (!sl_packet_parse_link(name, &link) ||
	    get_link(s->dir, name, link.is_xdp, &link_fd) < 0 ||
	    link_ifindex(link_fd, link.is_xdp, &prog_id) == 0)
		return 0;
	prog_fd = open_prog(s, prog_id, link.is_xdp);
	s->n += !uses_map(prog_fd, s->flows_id);
	return 0;
}

size_t sl_packet_count_strays(const char *dir, uint32_t flows_id)
{
	struct strays s = { dir, flows_id, 0 };

	(void)sl_packet_each_pin(dir, look_for_stray, &s);
	return s.n;
}
