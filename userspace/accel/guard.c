/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "accel/guard.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "abi.h"
#include "accel/compat.h"
#include "guard.skel.h"

_Static_assert(SL_GUARD_MAX_RANGES == SL_GUARD_RANGES - 1, "one limit");
_Static_assert(SL_GUARD_MAX_ADDRS == SL_GUARD_ADDRS, "one limit");

#define COUNTS_MAPPED 4096 /* less than a page is mapped as one */

struct sl_guard {
	struct sl_guard_bpf *skel;
	uint32_t *ports;             /* the table itself, mapped */
	struct sl_guard_addr *addrs; /* what is in guard_addrs, sorted */
	size_t n_addrs;
};

static size_t ports_size(void)
{
	return SL_GUARD_PORTS * sizeof(uint64_t); /* the kernel rounds elements up to 8 */
}

/* ---- life ---- */

/* Whether the counters of an earlier guard are used. */
static bool reuse_counts(struct sl_guard_bpf *skel, int count_fd)
{
	struct bpf_map_info info = { 0 };
	uint32_t size = sizeof(info);

	if (count_fd < 0 || bpf_obj_get_info_by_fd(count_fd, &info, &size) < 0)
		return false;
	return info.type == BPF_MAP_TYPE_ARRAY && info.max_entries == 1 &&
	       info.value_size == sizeof(struct sl_guard_counts) &&
	       bpf_map__reuse_fd(skel->maps.guard_count, count_fd) == 0;
}

int sl_guard_new(int count_fd, struct sl_guard **ret)
{
	_cleanup_fd_ int counts = count_fd;
	_cleanup_(sl_guard_freep) struct sl_guard *g = calloc(1, sizeof(*g));
	bool is_frozen;
	void *ports;

	if (!g)
		return -ENOMEM;
	g->skel = sl_guard_bpf__open();
	if (!g->skel)
		return -errno;
	is_frozen = reuse_counts(g->skel, counts);
	if (sl_guard_bpf__load(g->skel) < 0)
		return -errno;
	/* For user space alone; the program goes on writing. */
	if (!is_frozen && bpf_map_freeze(sl_guard_count_fd(g)) < 0)
		return -errno;
	ports = mmap(NULL, ports_size(), PROT_READ | PROT_WRITE, MAP_SHARED,
		     bpf_map__fd(g->skel->maps.guard_ports), 0);
	if (ports == MAP_FAILED)
		return -errno;
	g->ports = ports;
	*ret = SL_TAKE_PTR(g);
	return 0;
}

void sl_guard_free(struct sl_guard *g)
{
	if (!g)
		return;
	if (g->ports)
		(void)munmap(g->ports, ports_size());
	sl_guard_bpf__destroy(g->skel);
	free(g->addrs);
	free(g);
}

int sl_guard_count_fd(const struct sl_guard *g)
{
	return bpf_map__fd(g->skel->maps.guard_count);
}

int sl_guard_program_fd(const struct sl_guard *g)
{
	return bpf_program__fd(g->skel->progs.sl_guard);
}

/* ---- denied sources ---- */

struct table {
	const char *name;
	const char *value_type;
	uint32_t value_size;
	size_t n;
	const struct bpf_map *outer;
};

/* Typed, so that a dump shows addresses. */
static int new_table(const struct sl_guard *g, const struct table *t, int *ret_fd)
{
	const struct btf *btf = bpf_object__btf(g->skel->obj);
	int key_type = btf__find_by_name_kind(btf, "__u32", BTF_KIND_TYPEDEF);
	int value_type = btf__find_by_name_kind(btf, t->value_type, BTF_KIND_STRUCT);
	LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = BPF_F_INNER_MAP | BPF_F_MMAPABLE);
	int fd;

	if (key_type > 0 && value_type > 0) {
		opts.btf_fd = (uint32_t)bpf_object__btf_fd(g->skel->obj);
		opts.btf_key_type_id = (uint32_t)key_type;
		opts.btf_value_type_id = (uint32_t)value_type;
	}
	fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, t->name, sizeof(uint32_t), t->value_size,
			    (uint32_t)t->n, &opts);
	if (fd < 0)
		return -errno;
	*ret_fd = fd;
	return 0;
}

static void fill4(void *to, const struct sl_ip_set *set)
{
	struct sl_guard_range4 *r = to;

	for (size_t i = 0; i < set->n4; i++) {
		uint32_t range[2] = { htonl(set->v4[i].from), htonl(set->v4[i].to) };

		memcpy(&r[i], range, sizeof(range));
	}
}

static void fill6(void *to, const struct sl_ip_set *set)
{
	_Static_assert(sizeof(struct sl_ip6_range) == sizeof(struct sl_guard_range6), "layout");
	memcpy(to, set->v6, set->n6 * sizeof(*set->v6));
}

static int fill(int fd, const struct table *t, void (*fn)(void *, const struct sl_ip_set *),
		const struct sl_ip_set *set)
{
	size_t size = t->n * t->value_size;
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (p == MAP_FAILED)
		return -errno;
	fn(p, set);
	(void)munmap(p, size);
	return 0;
}

/* Built beside the table in use, which the kernel frees after its last reader. */
static int replace(const struct sl_guard *g, const struct table *t,
		   void (*fn)(void *, const struct sl_ip_set *), const struct sl_ip_set *set)
{
	_cleanup_fd_ int fd = -1;
	uint32_t zero = 0;
	int r;

	if (t->n == 0) {
		r = bpf_map_delete_elem(bpf_map__fd(t->outer), &zero);
		return r < 0 && errno != ENOENT ? -errno : 0;
	}
	r = new_table(g, t, &fd);
	if (r == 0)
		r = fill(fd, t, fn, set);
	if (r < 0)
		return r;
	return bpf_map_update_elem(bpf_map__fd(t->outer), &zero, &fd, BPF_ANY) < 0 ? -errno : 0;
}

int sl_guard_set_denied(struct sl_guard *g, const struct sl_ip_set *denied)
{
	const struct table v4 = { "guard_set4", "sl_guard_range4", sizeof(struct sl_guard_range4),
				  denied->n4, g->skel->maps.guard_deny4 };
	const struct table v6 = { "guard_set6", "sl_guard_range6", sizeof(struct sl_guard_range6),
				  denied->n6, g->skel->maps.guard_deny6 };
	int r;

	if (denied->n4 > SL_GUARD_MAX_RANGES || denied->n6 > SL_GUARD_MAX_RANGES)
		return -E2BIG;
	r = replace(g, &v4, fill4, denied);
	return r < 0 ? r : replace(g, &v6, fill6, denied);
}

/* ---- ports ---- */

struct ports {
	uint32_t bits[SL_GUARD_PORTS];
	struct sl_guard_addr *addrs;
	size_t n;
	size_t n_left;
};

static int compare_addrs(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct sl_guard_addr));
}

static void add_listen(struct ports *p, const struct sl_guard_listen *l)
{
	bool is4 = sl_addr_family(&l->ip) == AF_INET;
	struct sl_guard_addr addr = { .family = sl_addr_family(&l->ip) };
	bool is_any = addr.family == AF_UNSPEC || sl_addr_is_any(&l->ip);
	uint32_t bits = is4 ? SL_GUARD_ANY4 : SL_GUARD_ANY6;

	if (addr.family == AF_UNSPEC)
		bits = SL_GUARD_ANY4 | SL_GUARD_ANY6;
	else if (!is_any)
		bits = is4 ? SL_GUARD_SOME4 : SL_GUARD_SOME6;
	if (!is_any)
		(void)sl_addr_ip_bytes(&l->ip, addr.ip);
	for (unsigned port = l->from; port <= l->to; port++) {
		if (!is_any && p->n == SL_GUARD_ADDRS) {
			p->n_left += l->to - port + 1u;
			return;
		}
		p->bits[port] |= bits;
		addr.port = (uint16_t)port;
		if (!is_any)
			p->addrs[p->n++] = addr;
	}
}

static bool has_addr(const struct sl_guard_addr *sorted, size_t n, const struct sl_guard_addr *addr)
{
	return n > 0 && bsearch(addr, sorted, n, sizeof(*addr), compare_addrs);
}

static int add_addrs(const struct sl_guard *g, const struct ports *p)
{
	uint32_t one = 1;

	for (size_t i = 0; i < p->n; i++)
		if (!has_addr(g->addrs, g->n_addrs, &p->addrs[i]) &&
		    bpf_map_update_elem(bpf_map__fd(g->skel->maps.guard_addrs), &p->addrs[i], &one,
					BPF_ANY) < 0)
			return -errno;
	return 0;
}

static void remove_addrs(const struct sl_guard *g, const struct ports *p)
{
	for (size_t i = 0; i < g->n_addrs; i++)
		if (!has_addr(p->addrs, p->n, &g->addrs[i]))
			(void)bpf_map_delete_elem(bpf_map__fd(g->skel->maps.guard_addrs),
						  &g->addrs[i]);
}

/* Elements lie 8 bytes apart; each is written as one word, so that a packet sees old or new. */
static void write_bits(struct sl_guard *g, const uint32_t *bits)
{
	for (size_t port = 0; port < SL_GUARD_PORTS; port++) {
		uint32_t *at = &g->ports[2 * port];

		if (__atomic_load_n(at, __ATOMIC_RELAXED) != bits[port])
			__atomic_store_n(at, bits[port], __ATOMIC_RELAXED);
	}
}

static size_t count_single(const struct sl_guard_listen *listens, size_t n)
{
	size_t single = 0;

	for (size_t i = 0; i < n && single < SL_GUARD_ADDRS; i++)
		if (sl_addr_family(&listens[i].ip) != AF_UNSPEC && !sl_addr_is_any(&listens[i].ip))
			single += listens[i].to - listens[i].from + 1u;
	return single < SL_GUARD_ADDRS ? single : SL_GUARD_ADDRS;
}

int sl_guard_set_listens(struct sl_guard *g, const struct sl_guard_listen *listens, size_t n,
			 size_t *ret_left)
{
	_cleanup_free_ struct ports *p = calloc(1, sizeof(*p));
	_cleanup_free_ struct sl_guard_addr *addrs =
		calloc(count_single(listens, n) + 1, sizeof(*addrs));
	int r;

	if (!p || !addrs)
		return -ENOMEM;
	p->addrs = addrs;
	for (size_t i = 0; i < n; i++)
		add_listen(p, &listens[i]);
	qsort(addrs, p->n, sizeof(*addrs), compare_addrs);
	/* The table is full for a moment where almost all changes: then old ones go first. */
	if (p->n + g->n_addrs > SL_GUARD_ADDRS)
		remove_addrs(g, p);
	r = add_addrs(g, p);
	if (r < 0)
		return r;
	write_bits(g, p->bits);
	remove_addrs(g, p);
	free(g->addrs);
	g->addrs = SL_TAKE_PTR(addrs);
	g->n_addrs = p->n;
	*ret_left = p->n_left;
	return 0;
}

/* ---- interfaces ---- */

int sl_guard_attach(const struct sl_guard *g, unsigned ifindex, int *ret_link_fd)
{
	int fd = sl_compat_tcx_attach(sl_guard_program_fd(g), (int)ifindex);

	if (fd < 0)
		return -errno;
	*ret_link_fd = fd;
	return 0;
}

bool sl_guard_is_attached(int link_fd, unsigned ifindex)
{
	struct bpf_link_info info = { 0 };
	uint32_t size = sizeof(info);

	return bpf_obj_get_info_by_fd(link_fd, &info, &size) == 0 &&
	       sl_compat_tcx_ifindex(&info) == ifindex;
}

/* ---- counters ---- */

int sl_guard_map_counts(int count_fd, const struct sl_guard_counts **ret)
{
	void *p = mmap(NULL, COUNTS_MAPPED, PROT_READ, MAP_SHARED, count_fd, 0);

	if (p == MAP_FAILED)
		return -errno;
	*ret = p;
	return 0;
}

void sl_guard_unmap_counts(const struct sl_guard_counts *counts)
{
	if (counts)
		(void)munmap((void *)(uintptr_t)counts, COUNTS_MAPPED);
}
