/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "accel/packet.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "accel/packet_impl.h"
#include "base/clock.h"
#include "base/log.h"
#include "packet.skel.h"
#include "packet_xdp.skel.h"

#define MAX_FLOWS (1u << 24)

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

void sl_packet_hook_messages(void)
{
	(void)libbpf_set_print(print_libbpf);
}

/* ---- what is pinned ---- */

/* What an earlier daemon has left. */
struct pinned {
	int fds[SL_PACKET_MAP_COUNT_]; /* -1: missing, or does not fit */
	bool is_any;                   /* whatever of ours is there */
	bool is_fit;                   /* flows and meta may be used */
	struct sl_packet_meta meta;    /* zeros where there is none */
	struct sl_packet_ports added;  /* to the reserved ones */
	struct sl_packet_used routes;  /* of the flows */
};

static void pinned_done(struct pinned *o)
{
	for (int i = 0; i < SL_PACKET_MAP_COUNT_; i++)
		sl_closep(&o->fds[i]);
	free(o->routes.ids);
}

SL_PRINTF(2, 3)
static void say(struct sl_packet_found *found, const char *fmt, ...)
{
	size_t n = strlen(found->why);
	va_list ap;

	if (n > 0 && n + 2 < sizeof(found->why)) {
		memcpy(found->why + n, "; ", 3);
		n += 2;
	}
	va_start(ap, fmt);
	(void)vsnprintf(found->why + n, sizeof(found->why) - n, fmt, ap);
	va_end(ap);
}

static struct bpf_map *map_of(const struct sl_packet *p, enum sl_packet_map map)
{
	return bpf_object__find_map_by_name(p->skel->obj, sl_packet_map_name(map));
}

static int note_any(void *arg, const char *name)
{
	struct pinned *o = arg;

	(void)name;
	o->is_any = true;
	return 0;
}

static void look_at_map(const struct sl_packet *p, enum sl_packet_map map, struct pinned *o,
			struct sl_packet_found *found)
{
	const char *name = sl_packet_map_name(map);
	int r = sl_packet_get_pin(p->dir, name, SL_KIND_MAP, &o->fds[map]);

	if (r == -ENOENT)
		say(found, "%s is not pinned", name);
	else if (r < 0)
		say(found, "%s is something else", name);
	else if (!sl_packet_is_shape(o->fds[map], map_of(p, map)))
		say(found, "%s has another shape", name);
	else
		return;
	sl_closep(&o->fds[map]);
}

static int look_at_pins(const struct sl_packet *p, struct pinned *o, struct sl_packet_found *found)
{
	int r = sl_packet_each_pin(p->dir, note_any, o);

	if (r < 0 || !o->is_any)
		return r;
	(void)sl_packet_read_pinned_meta(p->dir, &o->meta);
	sl_packet_read_pinned_ports(p->dir, &o->meta, &o->added);
	for (int i = 0; i < SL_PACKET_MAP_COUNT_; i++)
		look_at_map(p, (enum sl_packet_map)i, o, found);
	if (o->fds[SL_MAP_META] >= 0 && o->meta.layout != SL_PACKET_LAYOUT) {
		say(found, "layout %u instead of %u", o->meta.layout, SL_PACKET_LAYOUT);
		return 0;
	}
	/* The others can begin anew without a flow that would miss them. */
	o->is_fit = o->fds[SL_MAP_FLOWS] >= 0 && o->fds[SL_MAP_META] >= 0;
	return 0;
}

#define BATCH 512

struct flow_batch {
	struct sl_packet_key keys[BATCH];
	struct sl_packet_flow flows[BATCH];
};

/* The routes that are in use, and by how many entries. */
static int find_routes(struct pinned *o, size_t *ret_entries)
{
	_cleanup_free_ struct flow_batch *b = malloc(sizeof(*b));
	int fd = o->fds[SL_MAP_FLOWS];
	struct sl_packet_cursor cursor = { 0 };
	size_t n_entries = 0;
	int r = 0;

	if (!b)
		return -ENOMEM;
	while (r == 0) {
		size_t n = 0;

		r = sl_packet_batch(fd, &cursor, BATCH, b->keys, b->flows, &n);
		for (size_t i = 0; r >= 0 && i < n; i++) {
			int r_used = sl_packet_add_used(&o->routes, b->flows[i].route_id);

			if (r_used < 0)
				r = r_used;
		}
		n_entries += n;
	}
	if (r < 0)
		return r;
	*ret_entries = n_entries;
	return 0;
}

/* Of a map that is given up, whatever its keys are. */
static uint32_t count_keys(const char *dir)
{
	_cleanup_fd_ int fd = -1;
	_cleanup_free_ void *key = NULL;
	struct bpf_map_info info = { 0 };
	uint32_t size = sizeof(info);
	uint32_t n = 0;

	if (sl_packet_get_pin(dir, sl_packet_map_name(SL_MAP_FLOWS), SL_KIND_MAP, &fd) < 0 ||
	    bpf_obj_get_info_by_fd(fd, &info, &size) < 0 || info.type != BPF_MAP_TYPE_HASH)
		return 0;
	key = calloc(1, info.key_size);
	if (!key)
		return 0;
	while (n < info.max_entries && bpf_map_get_next_key(fd, n == 0 ? NULL : key, key) == 0)
		n++;
	return n;
}

/* ---- adopting ---- */

/* In both objects: what the XDP program has in common with the others has the same name. */
static int reuse(struct bpf_object *obj, enum sl_packet_map map, int fd)
{
	struct bpf_map *m = bpf_object__find_map_by_name(obj, sl_packet_map_name(map));

	if (!m || fd < 0)
		return 0;
	return bpf_map__reuse_fd(m, fd) < 0 ? -errno : 0;
}

static int adopt(struct sl_packet *p, const struct sl_packet_options *options, struct pinned *o,
		 struct sl_packet_found *found)
{
	uint32_t n_max = sl_packet_max_entries(o->fds[SL_MAP_FLOWS]) / 2;
	size_t n_strays = sl_packet_count_strays(p->dir, sl_packet_map_id(o->fds[SL_MAP_FLOWS]));
	size_t n_entries = 0;
	int r = find_routes(o, &n_entries);

	found->n_strays = (uint32_t)n_strays;
	if (n_strays > 0)
		say(found, "%zu attached program%s used another map", n_strays,
		    n_strays == 1 ? "" : "s");
	if (r == 0 && n_max != options->max_flows) {
		if (n_entries > 0)
			say(found, "max_flows stays %u while there are flows", n_max);
		else
			say(found, "max_flows is %u now, it was %u", options->max_flows, n_max);
		if (n_entries == 0)
			sl_closep(&o->fds[SL_MAP_FLOWS]);
	}
	for (int i = 0; r == 0 && i < SL_PACKET_MAP_COUNT_; i++)
		r = reuse(p->skel->obj, (enum sl_packet_map)i, o->fds[i]);
	if (r == 0)
		found->is_adopted = true;
	return r;
}

static int look_back(struct sl_packet *p, const struct sl_packet_options *options, struct pinned *o,
		     struct sl_packet_found *found)
{
	int r = look_at_pins(p, o, found);

	if (r < 0)
		return r;
	if (o->is_fit)
		return adopt(p, options, o, found);
	if (o->is_any)
		found->n_dropped = count_keys(p->dir);
	return 0;
}

/* ---- loading ---- */

static int load_failed(int err, const char *what, struct sl_str *report)
{
	if (err == -ENOMEM)
		sl_str_adds(report, "no memory for the maps: lower max_flows");
	else if (err == -EPERM)
		sl_str_addf(report,
			    "the kernel does not let us load %s: needs CAP_BPF, "
			    "CAP_NET_ADMIN and CAP_PERFMON",
			    what);
	else
		sl_str_addf(report, "the kernel does not take %s (%s): log level debug shows why",
			    what, strerror(-err));
	return err == -ENOMEM || err == -EPERM ? err : -ENOTSUP;
}

static int load_xdp(struct sl_packet *p, struct sl_str *report)
{
	int r = 0;

	p->xdp = sl_packet_xdp_bpf__open();
	if (!p->xdp)
		return load_failed(-errno, "the XDP program", report);
	for (int i = 0; r == 0 && i < SL_PACKET_MAP_COUNT_; i++)
		r = reuse(p->xdp->obj, (enum sl_packet_map)i, p->maps[i]);
	if (r == 0 && sl_packet_xdp_bpf__load(p->xdp) < 0)
		r = -errno;
	if (r < 0)
		return load_failed(r, "the XDP program", report);
	p->progs[SL_PROG_XDP] = bpf_program__fd(p->xdp->progs.sl_packet_xdp);
	return 0;
}

static int load(struct sl_packet *p, struct sl_str *report)
{
	int r = 0;

	if (sl_packet_bpf__load(p->skel) < 0)
		return load_failed(-errno, "the programs", report);
	for (int i = 0; i < SL_PACKET_MAP_COUNT_; i++)
		p->maps[i] = bpf_map__fd(map_of(p, (enum sl_packet_map)i));
	p->progs[SL_PROG_TC] = bpf_program__fd(p->skel->progs.sl_packet_tc);
	p->progs[SL_PROG_CONTROL] = bpf_program__fd(p->skel->progs.sl_packet_control);
	p->progs[SL_PROG_FREEZE] = bpf_program__fd(p->skel->progs.sl_packet_freeze);
	if (p->hook == SL_HOOK_XDP)
		r = load_xdp(p, report);
	for (int i = 0; i < SL_PACKET_PROG_COUNT_; i++)
		p->ids[i] = p->progs[i] < 0 ? 0 : sl_packet_prog_id(p->progs[i]);
	return r;
}

/* ---- events ---- */

static void on_row(void *arg, const void *row)
{
	struct sl_packet *p = arg;

	p->on_event(p->event_arg, row);
}

int sl_packet_events(struct sl_packet *p, size_t max,
		     void (*fn)(void *arg, const struct sl_packet_event *e), void *arg)
{
	p->on_event = fn;
	p->event_arg = arg;
	return sl_rows_read(&p->events, max, on_row, p);
}

/* The map itself can be polled, and needs no descriptor beside it. */
int sl_packet_events_fd(const struct sl_packet *p)
{
	return p->maps[SL_MAP_EVENTS];
}

/* ---- opening ---- */

static int map_things(struct sl_packet *p)
{
	int fd = bpf_map__fd(p->skel->maps.packet_request);
	void *request = mmap(NULL, sizeof(struct sl_packet_request), PROT_READ | PROT_WRITE,
			     MAP_SHARED, fd, 0);

	if (request == MAP_FAILED)
		return -errno;
	p->request = request;
	return sl_rows_open(&p->events, p->maps[SL_MAP_EVENTS], sizeof(struct sl_packet_event));
}

/* What the new daemon is. Ports that were added stay noted until sl_packet_release_ports(). */
static int write_meta(struct sl_packet *p, const struct sl_packet_options *options,
		      const struct pinned *o)
{
	struct sl_packet_meta meta = {
		.layout = SL_PACKET_LAYOUT,
		.max_flows = sl_packet_max_entries(p->maps[SL_MAP_FLOWS]) / 2,
		.port_from = options->port_from,
		.port_to = options->port_to,
		.ports_added = !sl_packet_ports_is_empty(&o->added),
		.last_route_id = o->is_fit ? o->meta.last_route_id : 0,
		.owner_pid = (uint32_t)getpid(),
		.version = SL_VERSION,
		.started_ns = sl_clock_us() * 1000,
	};
	uint32_t zero = 0;

	if (bpf_map_update_elem(p->maps[SL_MAP_PORTS], &zero, &o->added, BPF_ANY) < 0)
		return -errno;
	return sl_packet_set_meta(p, &meta);
}

static int prepare(struct sl_packet *p, const struct sl_packet_options *options, struct pinned *o,
		   struct sl_str *report)
{
	int r = map_things(p);

	if (r == 0)
		r = sl_packet_load_names(p, &o->routes);
	if (r == 0 && o->is_any && !o->is_fit)
		r = sl_packet_remove_all(p->dir, NULL);
	if (r == 0)
		r = write_meta(p, options, o);
	/* A program of an earlier daemon that is not wanted any more. */
	if (r == 0 && p->hook != SL_HOOK_XDP)
		sl_packet_remove_pin(p->dir, sl_packet_prog_pin(SL_PROG_XDP));
	if (r == 0)
		r = sl_packet_repin(p, &(unsigned){ 0 }, NULL);
	if (r < 0)
		sl_str_addf(report, "cannot set up the objects in %s: %s", p->dir, strerror(-r));
	return r;
}

static int open_objects(struct sl_packet *p, const struct sl_packet_options *options,
			struct sl_packet_found *found, struct sl_str *report)
{
	_cleanup_(pinned_done) struct pinned o = { .fds = { -1, -1, -1, -1, -1, -1 } };
	int r;

	_Static_assert(SL_PACKET_MAP_COUNT_ == 6, "all -1 at first");
	p->skel = sl_packet_bpf__open();
	if (!p->skel)
		return load_failed(-errno, "the programs", report);
	if (bpf_map__set_max_entries(p->skel->maps.flows, 2 * options->max_flows) < 0)
		return -errno;
	r = look_back(p, options, &o, found);
	if (r < 0) {
		sl_str_addf(report, "cannot read what is pinned in %s: %s", p->dir, strerror(-r));
		return r;
	}
	r = load(p, report);
	return r < 0 ? r : prepare(p, options, &o, report);
}

static struct sl_packet *new_packet(const struct sl_packet_options *options)
{
	struct sl_packet *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->hook = options->hook;
	p->lock_fd = -1;
	for (int i = 0; i < SL_PACKET_MAP_COUNT_; i++)
		p->maps[i] = -1;
	for (int i = 0; i < SL_PACKET_PROG_COUNT_; i++)
		p->progs[i] = -1;
	p->dir = strdup(options->dir);
	if (!p->dir) {
		free(p);
		return NULL;
	}
	return p;
}

int sl_packet_open_as(const struct sl_packet_options *options, bool use_tcx,
		      struct sl_packet_found *found, struct sl_str *report, struct sl_packet **ret)
{
	_cleanup_(sl_packet_closep) struct sl_packet *p = NULL;
	struct sl_packet_found what = { 0 };
	int r;

	if (options->max_flows == 0 || options->max_flows > MAX_FLOWS)
		return -EINVAL;
	sl_packet_hook_messages();
	r = sl_packet_check_caps(report);
	if (r == 0)
		r = sl_packet_make_dir(options->dir, report);
	if (r < 0)
		return r;
	p = new_packet(options);
	if (!p)
		return -ENOMEM;
	r = sl_packet_lock_dir(options->dir, report, &p->lock_fd);
	if (r < 0)
		return r;
	r = open_objects(p, options, &what, report);
	if (r < 0)
		return r;
	p->has_tcx = use_tcx && sl_packet_can_tcx(p->progs[SL_PROG_TC]);
	*found = what;
	*ret = SL_TAKE_PTR(p);
	return 0;
}

int sl_packet_open(const struct sl_packet_options *options, struct sl_packet_found *found,
		   struct sl_str *report, struct sl_packet **ret)
{
	return sl_packet_open_as(options, true, found, report, ret);
}

void sl_packet_close(struct sl_packet *p)
{
	if (!p)
		return;
	sl_packet_close_links(p);
	sl_rows_close(&p->events);
	if (p->request)
		(void)munmap(p->request, sizeof(*p->request));
	sl_packet_xdp_bpf__destroy(p->xdp);
	sl_packet_bpf__destroy(p->skel);
	sl_packet_free_names(p->names);
	sl_closep(&p->lock_fd);
	free(p->dir);
	free(p);
}

/* ---- pins ---- */

/* How many, or -errno. */
static int repin_objects(const struct sl_packet *p, struct sl_str *names)
{
	unsigned n = 0;
	int r = 0;

	for (int i = 0; r == 0 && i < SL_PACKET_MAP_COUNT_; i++)
		r = sl_packet_keep_pin(p->dir, sl_packet_map_name((enum sl_packet_map)i),
				       SL_KIND_MAP, p->maps[i], &n, names);
	for (int i = 0; r == 0 && i < SL_PACKET_PROG_COUNT_; i++)
		r = sl_packet_keep_pin(p->dir, sl_packet_prog_pin((enum sl_packet_prog)i),
				       SL_KIND_PROG, p->progs[i], &n, names);
	return r < 0 ? r : (int)n;
}

int sl_packet_repin(struct sl_packet *p, unsigned *ret_repaired, struct sl_str *names)
{
	int n;
	int r = sl_packet_make_dir(p->dir, NULL);

	if (r < 0)
		return -ENOENT;
	r = sl_packet_keep_lock(p->dir, &p->lock_fd);
	if (r < 0)
		return r;
	n = repin_objects(p, names);
	r = n < 0 ? n : sl_packet_repin_links(p, names);
	if (r < 0)
		return r;
	*ret_repaired = (unsigned)(n + r);
	return 0;
}

int sl_packet_readonly_fd(const struct sl_packet *p, const char *map, int *ret_fd)
{
	static const enum sl_packet_map readable[] = { SL_MAP_FLOWS, SL_MAP_COUNTERS,
						       SL_MAP_ROUTES };
	LIBBPF_OPTS(bpf_obj_get_opts, opts, .file_flags = BPF_F_RDONLY);
	_cleanup_fd_ int fd = -1;
	char path[PATH_MAX];

	for (size_t i = 0; i < SL_ARRAY_LEN(readable); i++) {
		if (strcmp(map, sl_packet_map_name(readable[i])) != 0)
			continue;
		if (snprintf(path, sizeof(path), "%s/%s", p->dir, map) >= (int)sizeof(path))
			return -ENAMETOOLONG;
		fd = bpf_obj_get_opts(path, &opts);
		if (fd < 0)
			return -errno;
		if (sl_packet_map_id(fd) != sl_packet_map_id(p->maps[readable[i]]))
			return -ESTALE;
		*ret_fd = SL_TAKE_FD(fd);
		return 0;
	}
	return -EINVAL;
}

/* ---- flows ---- */

struct sl_packet_request *sl_packet_request(struct sl_packet *p)
{
	return p->request;
}

/* Packets that it injects are made of the frame, whose type has to be the flow's. */
int sl_packet_run(struct sl_packet *p)
{
	struct sl_addr client;
	uint8_t frame[128] = { 0 };
	uint16_t type;
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = frame, .data_size_in = sizeof(frame));

	sl_packet_addr(p->request->key[0].saddr, 0, &client);
	type = htons(sl_addr_family(&client) == AF_INET6 ? ETH_P_IPV6 : ETH_P_IP);
	memcpy(frame + offsetof(struct ethhdr, h_proto), &type, sizeof(type));
	p->request->result = SL_PACKET_NO_REQUEST;
	return bpf_prog_test_run_opts(p->progs[SL_PROG_CONTROL], &opts) < 0 ? -errno : 0;
}

int sl_packet_delete_stray(const struct sl_packet *p, const struct sl_packet_key *key)
{
	return bpf_map_delete_elem(p->maps[SL_MAP_FLOWS], key) < 0 ? -errno : 0;
}

int sl_packet_look_up(const struct sl_packet *p, const struct sl_packet_key *key,
		      struct sl_packet_flow *ret)
{
	return sl_packet_read_flow(p->maps[SL_MAP_FLOWS], key, ret);
}

int sl_packet_freeze_fd(const struct sl_packet *p)
{
	return p->progs[SL_PROG_FREEZE];
}

/* ---- meta ---- */

int sl_packet_get_meta(const struct sl_packet *p, struct sl_packet_meta *ret)
{
	struct sl_packet_meta meta;
	uint32_t zero = 0;

	if (bpf_map_lookup_elem(p->maps[SL_MAP_META], &zero, &meta) < 0)
		return -errno;
	*ret = meta;
	return 0;
}

int sl_packet_set_meta(struct sl_packet *p, const struct sl_packet_meta *meta)
{
	uint32_t zero = 0;

	return bpf_map_update_elem(p->maps[SL_MAP_META], &zero, meta, BPF_ANY) < 0 ? -errno : 0;
}
