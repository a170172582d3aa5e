/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Maps, program and pins of the sockmap engine. */
#include "accel/sockmap.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/utsname.h>

#include "accel/packet_impl.h"
#include "accel/sockmap_impl.h"
#include "base/clock.h"
#include "sockmap.skel.h"

#define PROG_PIN "sockmap_prog"

/* ---- names ---- */

const char *sl_sockmap_map_name(enum sl_sockmap_map map)
{
	static const char *const names[] = {
		[SL_SOCKMAP_FLOWS] = "sockmap_flows",
		[SL_SOCKMAP_SLOT_MAP] = "sockmap_slots",
		[SL_SOCKMAP_ORDERS] = "sockmap_orders",
		[SL_SOCKMAP_TARGETS] = "sockmap_targets",
		[SL_SOCKMAP_SOURCES] = "sockmap_sources",
		[SL_SOCKMAP_META] = "sockmap_meta",
		[SL_SOCKMAP_EVENTS] = "sockmap_events",
		[SL_SOCKMAP_COUNTERS] = "sockmap_counters",
	};
	_Static_assert(SL_ARRAY_LEN(names) == SL_SOCKMAP_MAP_COUNT_, "all named");

	return names[map];
}

/* ---- what is pinned ---- */

/* What an earlier daemon has left. */
struct pinned {
	int fds[SL_SOCKMAP_MAP_COUNT_]; /* -1: missing, or does not fit */
	bool is_any;
};

static void pinned_done(struct pinned *o)
{
	for (int i = 0; i < SL_SOCKMAP_MAP_COUNT_; i++)
		sl_closep(&o->fds[i]);
}

SL_PRINTF(2, 3)
static void say(struct sl_sockmap_found *found, const char *fmt, ...)
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

static struct bpf_map *map_of(const struct sl_sockmap *s, enum sl_sockmap_map map)
{
	return bpf_object__find_map_by_name(s->skel->obj, sl_sockmap_map_name(map));
}

static bool is_fit(const struct sl_sockmap *s, enum sl_sockmap_map map, int fd)
{
	const struct bpf_map *ours = map_of(s, map);

	return sl_packet_is_shape(fd, ours) &&
	       sl_packet_max_entries(fd) == bpf_map__max_entries(ours);
}

/* -ENOENT, -EINVAL: not to be used. */
static int look_at_map(const struct sl_sockmap *s, enum sl_sockmap_map map, struct pinned *o,
		       struct sl_sockmap_found *found)
{
	const char *name = sl_sockmap_map_name(map);
	_cleanup_fd_ int fd = -1;
	int r = sl_packet_get_pin(s->dir, name, SL_KIND_MAP, &fd);

	if (r == -ENOENT) {
		say(found, "%s is not pinned", name);
		return r;
	}
	o->is_any = true;
	if (r == 0 && is_fit(s, map, fd)) {
		o->fds[map] = SL_TAKE_FD(fd);
		return 0;
	}
	say(found, "%s %s", name, r < 0 ? "is something else" : "has another shape");
	return -EINVAL;
}

static bool is_any_pinned(const char *dir)
{
	_cleanup_fd_ int fd = -1;

	for (int i = 0; i < SL_SOCKMAP_MAP_COUNT_; i++) {
		const char *name = sl_sockmap_map_name((enum sl_sockmap_map)i);

		if (sl_packet_get_pin(dir, name, SL_KIND_MAP, &fd) != -ENOENT)
			return true;
	}
	return sl_packet_get_pin(dir, PROG_PIN, SL_KIND_PROG, &fd) != -ENOENT;
}

/* The layout comes first: its line is the one that explains the others. */
static bool is_layout(const struct sl_sockmap *s, struct sl_sockmap_found *found)
{
	_cleanup_fd_ int fd = -1;
	struct sl_sockmap_meta meta = { 0 };
	uint32_t zero = 0;

	if (sl_packet_get_pin(s->dir, "sockmap_meta", SL_KIND_MAP, &fd) < 0 ||
	    !is_fit(s, SL_SOCKMAP_META, fd) || bpf_map_lookup_elem(fd, &zero, &meta) < 0)
		return true; /* look_at_map() says so */
	if (meta.layout == SL_SOCKMAP_LAYOUT)
		return true;
	say(found, "layout %u instead of %u", meta.layout, SL_SOCKMAP_LAYOUT);
	return false;
}

/* Maps that fit together are used again, the two that hold nothing begin anew where they do not. */
static void look_back(const struct sl_sockmap *s, struct pinned *o, struct sl_sockmap_found *found)
{
	bool is_whole;

	o->is_any = is_any_pinned(s->dir);
	if (!o->is_any)
		return;
	is_whole = is_layout(s, found);
	for (int i = 0; is_whole && i < SL_SOCKMAP_MAP_COUNT_; i++)
		if (look_at_map(s, (enum sl_sockmap_map)i, o, found) < 0 && i < SL_SOCKMAP_ADOPTED)
			is_whole = false;
	found->is_adopted = is_whole;
	if (!is_whole)
		pinned_done(o);
}

/* ---- loading ---- */

static int check_release(const char *release, struct sl_str *report)
{
	unsigned major = 0;
	unsigned minor = 0;

	if (sscanf(release, "%u.%u", &major, &minor) == 2 &&
	    (major > 6 || (major == 6 && minor >= 12)))
		return 0;
	sl_str_addf(report,
		    "needs Linux 6.12, this is %s: older ones lose data between two sockets",
		    release);
	return -ENOTSUP;
}

static int load_failed(int err, struct sl_str *report)
{
	if (err == -ENOMEM)
		sl_str_adds(report, "no memory for the maps");
	else if (err == -EPERM)
		sl_str_adds(report, "the kernel does not let us load the program: needs CAP_BPF, "
				    "CAP_NET_ADMIN and CAP_PERFMON");
	else
		sl_str_addf(report,
			    "the kernel does not take the program (%s): log level debug shows why",
			    strerror(-err));
	return err == -ENOMEM || err == -EPERM ? err : -ENOTSUP;
}

static int size_maps(struct sl_sockmap *s)
{
	static const enum sl_sockmap_map sized[] = { SL_SOCKMAP_FLOWS, SL_SOCKMAP_SLOT_MAP,
						     SL_SOCKMAP_ORDERS, SL_SOCKMAP_TARGETS,
						     SL_SOCKMAP_SOURCES };
	int r = 0;

	for (size_t i = 0; r == 0 && i < SL_ARRAY_LEN(sized); i++)
		r = bpf_map__set_max_entries(map_of(s, sized[i]), 2 * s->n_pairs);
	return r;
}

static int load(struct sl_sockmap *s, const struct pinned *o, struct sl_str *report)
{
	int r = 0;

	for (int i = 0; r == 0 && i < SL_SOCKMAP_MAP_COUNT_; i++)
		if (o->fds[i] >= 0 &&
		    bpf_map__reuse_fd(map_of(s, (enum sl_sockmap_map)i), o->fds[i]) < 0)
			r = -errno;
	if (r == 0 && sl_sockmap_bpf__load(s->skel) < 0)
		r = -errno;
	if (r < 0)
		return load_failed(r, report);
	for (int i = 0; i < SL_SOCKMAP_MAP_COUNT_; i++)
		s->maps[i] = bpf_map__fd(map_of(s, (enum sl_sockmap_map)i));
	s->prog = bpf_program__fd(s->skel->progs.sl_sockmap_verdict);
	s->prog_id = sl_packet_prog_id(s->prog);
	return 0;
}

/* ---- events ---- */

static void on_row(void *arg, const void *row)
{
	struct sl_sockmap *s = arg;

	s->on_event(s->event_arg, row);
}

int sl_sockmap_events(struct sl_sockmap *s, size_t max,
		      void (*fn)(void *arg, const struct sl_sockmap_event *e), void *arg)
{
	s->on_event = fn;
	s->event_arg = arg;
	return sl_rows_read(&s->events, max, on_row, s);
}

/* The map itself can be polled, and needs no descriptor beside it. */
int sl_sockmap_events_fd(const struct sl_sockmap *s)
{
	return s->maps[SL_SOCKMAP_EVENTS];
}

/* ---- opening ---- */

static int map_things(struct sl_sockmap *s)
{
	const size_t n = 2 * (size_t)s->n_pairs;
	void *at = mmap(NULL, n * sizeof(*s->slots), PROT_READ | PROT_WRITE, MAP_SHARED,
			s->maps[SL_SOCKMAP_SLOT_MAP], 0);

	if (at == MAP_FAILED)
		return -errno;
	s->slots = at;
	at = mmap(NULL, n * sizeof(*s->orders), PROT_READ | PROT_WRITE, MAP_SHARED,
		  s->maps[SL_SOCKMAP_ORDERS], 0);
	if (at == MAP_FAILED)
		return -errno;
	s->orders = at;
	return sl_rows_open(&s->events, s->maps[SL_SOCKMAP_EVENTS],
			    sizeof(struct sl_sockmap_event));
}

static int write_meta(struct sl_sockmap *s)
{
	struct sl_sockmap_meta meta = {
		.layout = SL_SOCKMAP_LAYOUT,
		.owner_pid = (uint32_t)getpid(),
		.version = SL_VERSION,
		.started_ns = sl_clock_us() * 1000,
	};
	uint32_t zero = 0;

	return bpf_map_update_elem(s->maps[SL_SOCKMAP_META], &zero, &meta, BPF_ANY) < 0 ? -errno
											: 0;
}

static int remove_pins(const char *dir, struct sl_str *report);

static int prepare(struct sl_sockmap *s, const struct pinned *o, struct sl_sockmap_found *found,
		   struct sl_str *report)
{
	int r = map_things(s);

	if (r == 0)
		r = sl_sockmap_find_pairs(s);
	if (r == 0 && o->is_any && !found->is_adopted)
		r = remove_pins(s->dir, NULL);
	if (r == 0)
		r = write_meta(s);
	if (r == 0)
		r = sl_sockmap_repin(s, &(unsigned){ 0 }, NULL);
	if (r < 0)
		sl_str_addf(report, "cannot set up the objects in %s: %s", s->dir, strerror(-r));
	found->n_pairs = s->n_used;
	return r;
}

static int open_objects(struct sl_sockmap *s, struct sl_sockmap_found *found, struct sl_str *report)
{
	_cleanup_(pinned_done) struct pinned o = { .fds = { -1, -1, -1, -1, -1, -1, -1, -1 } };
	int r;

	_Static_assert(SL_SOCKMAP_MAP_COUNT_ == 8, "all -1 at first");
	s->skel = sl_sockmap_bpf__open();
	if (!s->skel)
		return load_failed(-errno, report);
	r = size_maps(s);
	if (r < 0)
		return r;
	look_back(s, &o, found);
	r = load(s, &o, report);
	return r < 0 ? r : prepare(s, &o, found, report);
}

static struct sl_sockmap *new_sockmap(const char *dir, uint32_t n_pairs)
{
	struct sl_sockmap *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->lock_fd = -1;
	s->prog = -1;
	s->n_pairs = n_pairs;
	for (int i = 0; i < SL_SOCKMAP_MAP_COUNT_; i++)
		s->maps[i] = -1;
	s->dir = strdup(dir);
	if (!s->dir) {
		free(s);
		return NULL;
	}
	return s;
}

int sl_sockmap_open_as(const struct sl_sockmap_options *options, uint32_t n_pairs,
		       const char *release, struct sl_sockmap_found *found, struct sl_str *report,
		       struct sl_sockmap **ret)
{
	_cleanup_(sl_sockmap_closep) struct sl_sockmap *s = NULL;
	struct sl_sockmap_found what = { 0 };
	int r;

	sl_packet_hook_messages();
	r = check_release(release, report);
	if (r == 0)
		r = sl_packet_check_caps(report);
	if (r == 0)
		r = sl_packet_make_dir(options->dir, report);
	if (r < 0)
		return r;
	s = new_sockmap(options->dir, n_pairs);
	if (!s)
		return -ENOMEM;
	if (!options->has_lock)
		r = sl_packet_lock_dir(options->dir, report, &s->lock_fd);
	if (r == 0)
		r = open_objects(s, &what, report);
	if (r < 0)
		return r;
	*found = what;
	*ret = SL_TAKE_PTR(s);
	return 0;
}

int sl_sockmap_open(const struct sl_sockmap_options *options, struct sl_sockmap_found *found,
		    struct sl_str *report, struct sl_sockmap **ret)
{
	struct utsname name;

	if (uname(&name) < 0)
		return -errno;
	return sl_sockmap_open_as(options, SL_SOCKMAP_SLOTS / 2, name.release, found, report, ret);
}

void sl_sockmap_close(struct sl_sockmap *s)
{
	if (!s)
		return;
	sl_rows_close(&s->events);
	if (s->slots)
		(void)munmap(s->slots, 2 * (size_t)s->n_pairs * sizeof(*s->slots));
	if (s->orders)
		(void)munmap(s->orders, 2 * (size_t)s->n_pairs * sizeof(*s->orders));
	sl_sockmap_bpf__destroy(s->skel);
	sl_closep(&s->lock_fd);
	free(s->used);
	free(s->dir);
	free(s);
}

/* ---- pins ---- */

/* Sockets that are sources already keep the program they have; it works on the same maps. */
static int attach(struct sl_sockmap *s, unsigned *n)
{
	const int sources = s->maps[SL_SOCKMAP_SOURCES];
	uint32_t id = 0;
	uint32_t n_ids = 1;

	if (bpf_prog_query(sources, BPF_SK_SKB_STREAM_VERDICT, 0, NULL, &id, &n_ids) == 0 &&
	    n_ids == 1 && id == s->prog_id)
		return 0;
	if (bpf_prog_attach(s->prog, sources, BPF_SK_SKB_STREAM_VERDICT, 0) < 0)
		return -errno;
	(*n)++;
	return 0;
}

int sl_sockmap_ensure_program(struct sl_sockmap *s)
{
	unsigned n = 0;
	int r = attach(s, &n);

	return r < 0 ? r : (int)n;
}

int sl_sockmap_repin(struct sl_sockmap *s, unsigned *ret_repaired, struct sl_str *names)
{
	unsigned n = 0;
	int r = sl_packet_make_dir(s->dir, NULL);

	if (r < 0)
		return -ENOENT;
	if (s->lock_fd >= 0)
		r = sl_packet_keep_lock(s->dir, &s->lock_fd);
	if (r == 0)
		r = attach(s, &n);
	if (n > 0 && names)
		sl_str_adds(names, SL_SOCKMAP_ATTACHED " ");
	for (int i = 0; r == 0 && i < SL_SOCKMAP_MAP_COUNT_; i++)
		r = sl_packet_keep_pin(s->dir, sl_sockmap_map_name((enum sl_sockmap_map)i),
				       SL_KIND_MAP, s->maps[i], &n, names);
	if (r == 0)
		r = sl_packet_keep_pin(s->dir, PROG_PIN, SL_KIND_PROG, s->prog, &n, names);
	if (r < 0)
		return r;
	*ret_repaired = n;
	return 0;
}

bool sl_sockmap_is_pinned(const char *dir)
{
	char path[PATH_MAX];
	int n = snprintf(path, sizeof(path), "%s/sockmap_flows", dir);

	return n > 0 && n < PATH_MAX && access(path, F_OK) == 0;
}

/* ---- the end ---- */

static int remove_one(const char *dir, const char *name, enum sl_packet_kind kind,
		      struct sl_str *report)
{
	_cleanup_fd_ int fd = -1;
	int r = sl_packet_get_pin(dir, name, kind, &fd);

	if (r == -ENOENT)
		return 0;
	if (r == 0)
		sl_packet_remove_pin(dir, name);
	if (report && r == 0)
		sl_str_addf(report, "removed %s/%s\n", dir, name);
	else if (report)
		sl_str_addf(report, "left %s/%s: %s\n", dir, name,
			    r == -EINVAL ? "not ours" : strerror(-r));
	return r == -EINVAL ? 0 : r;
}

static int remove_pins(const char *dir, struct sl_str *report)
{
	int first = remove_one(dir, PROG_PIN, SL_KIND_PROG, report);

	for (int i = 0; i < SL_SOCKMAP_MAP_COUNT_; i++) {
		int r = remove_one(dir, sl_sockmap_map_name((enum sl_sockmap_map)i), SL_KIND_MAP,
				   report);

		if (first == 0)
			first = r;
	}
	return first;
}

int sl_sockmap_purge(const char *dir, struct sl_str *report)
{
	_cleanup_fd_ int lock = -1;
	int r_dir;
	int r;

	sl_packet_hook_messages();
	r = sl_packet_enter_dir(dir, report, &lock);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	r = remove_pins(dir, report);
	r_dir = sl_packet_remove_dir(dir, sl_packet_is_pinned(dir), report);
	return r < 0 ? r : r_dir;
}

/* ---- for a proxy ---- */

/* The pin is the only way to a descriptor that cannot write. */
static int readonly_fd(const struct sl_sockmap *s, enum sl_sockmap_map map, int *ret_fd)
{
	LIBBPF_OPTS(bpf_obj_get_opts, opts, .file_flags = BPF_F_RDONLY);
	_cleanup_fd_ int fd = -1;
	char path[PATH_MAX];

	if (snprintf(path, sizeof(path), "%s/%s", s->dir, sl_sockmap_map_name(map)) >=
	    (int)sizeof(path))
		return -ENAMETOOLONG;
	fd = bpf_obj_get_opts(path, &opts);
	if (fd < 0)
		return -errno;
	if (sl_packet_map_id(fd) != sl_packet_map_id(s->maps[map]))
		return -ESTALE;
	*ret_fd = SL_TAKE_FD(fd);
	return 0;
}

int sl_sockmap_give(const struct sl_sockmap *s, int *ret_slots_fd, int *ret_orders_fd,
		    int *ret_flows_fd, int *ret_counters_fd)
{
	/* The kernel maps no descriptor that is for reading alone (bpf_map_mmap() wants VM_SHARED).
	 */
	_cleanup_fd_ int slots = fcntl(s->maps[SL_SOCKMAP_SLOT_MAP], F_DUPFD_CLOEXEC, 0);
	_cleanup_fd_ int orders = fcntl(s->maps[SL_SOCKMAP_ORDERS], F_DUPFD_CLOEXEC, 0);
	_cleanup_fd_ int flows = -1;
	_cleanup_fd_ int counters = -1;
	int r = slots < 0 || orders < 0 ? -errno : readonly_fd(s, SL_SOCKMAP_FLOWS, &flows);

	if (r == 0)
		r = readonly_fd(s, SL_SOCKMAP_COUNTERS, &counters);
	if (r < 0)
		return r;
	*ret_slots_fd = SL_TAKE_FD(slots);
	*ret_orders_fd = SL_TAKE_FD(orders);
	*ret_flows_fd = SL_TAKE_FD(flows);
	*ret_counters_fd = SL_TAKE_FD(counters);
	return 0;
}
