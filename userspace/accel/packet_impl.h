/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_ACCEL_PACKET_IMPL_H
#define SL_ACCEL_PACKET_IMPL_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "abi.h"
#include "accel/packet.h"
#include "accel/rows.h"
#include "base/cleanup.h"
#include "base/str.h"

/*
 * What the parts of the packet engine's owner share, and the sockmap engine's with them: the
 * directory of pins. Nobody else includes it, but their tests.
 */

struct bpf_map;
struct sl_packet_bpf;
struct sl_packet_xdp_bpf;
struct sl_packet_names;

enum sl_packet_map {
	SL_MAP_FLOWS = 0,
	SL_MAP_EVENTS,
	SL_MAP_COUNTERS,
	SL_MAP_ROUTES,
	SL_MAP_META,
	SL_MAP_PORTS,
	SL_PACKET_MAP_COUNT_,
};

enum sl_packet_prog {
	SL_PROG_TC = 0,
	SL_PROG_XDP,
	SL_PROG_CONTROL,
	SL_PROG_FREEZE,
	SL_PACKET_PROG_COUNT_,
};

/* One interface of ours; -1: no such link. With clsact there is a filter instead of `tcx_fd`. */
struct sl_packet_iface {
	unsigned ifindex;
	int tcx_fd;
	int xdp_fd;
};

struct sl_packet {
	char *dir;
	int lock_fd; /* of the directory: one process at a time owns what is pinned there */
	enum sl_packet_hook hook;
	bool has_tcx;
	struct sl_packet_bpf *skel;
	struct sl_packet_xdp_bpf *xdp;       /* NULL: not asked for */
	int maps[SL_PACKET_MAP_COUNT_];      /* the skeleton's */
	int progs[SL_PACKET_PROG_COUNT_];    /* likewise; -1: not loaded */
	uint32_t ids[SL_PACKET_PROG_COUNT_]; /* of the programs */
	struct sl_packet_request *request;   /* mapped */
	struct sl_packet_names *names;       /* of `routes` */
	struct sl_packet_iface *ifaces;
	size_t n_ifaces;
	struct sl_rows events;
	/* of the sl_packet_events() that is running */
	void (*on_event)(void *arg, const struct sl_packet_event *e);
	void *event_arg;
};

/* sl_packet_open(), and with `use_tcx` false as a kernel without tcx would have it. */
SL_MUST_CHECK int sl_packet_open_as(const struct sl_packet_options *options, bool use_tcx,
				    struct sl_packet_found *found, struct sl_str *report,
				    struct sl_packet **ret);

/* libbpf's messages become debug lines. */
void sl_packet_hook_messages(void);
/* -EPERM, and what is missing in `report`. */
SL_MUST_CHECK int sl_packet_check_caps(struct sl_str *report);

/* ---- pins (packet_pins.c) ---- */

enum sl_packet_kind {
	SL_KIND_OTHER = 0,
	SL_KIND_MAP,
	SL_KIND_PROG,
	SL_KIND_LINK,
};

const char *sl_packet_map_name(enum sl_packet_map map);
const char *sl_packet_prog_pin(enum sl_packet_prog prog);
/* Of a link of ours, by its name: "link_tcx_3". */
struct sl_packet_link_name {
	unsigned ifindex;
	bool is_xdp;
};
const char *sl_packet_link_pin(unsigned ifindex, bool is_xdp, char buf[32]);
bool sl_packet_parse_link(const char *name, struct sl_packet_link_name *ret);

/* 0 where the object is of another kind, or gone. */
uint32_t sl_packet_map_id(int fd);
uint32_t sl_packet_prog_id(int fd);
/* Type and sizes of a row are those of the skeleton's map. */
bool sl_packet_is_shape(int fd, const struct bpf_map *map);
uint32_t sl_packet_max_entries(int fd); /* 0: not readable */

/* -EBUSY: another process has it. Held as long as the descriptor is open. */
SL_MUST_CHECK int sl_packet_lock_dir(const char *dir, struct sl_str *report, int *ret_fd);
/*
 * Makes `dir` (mode 0700) where it is missing. -ENODEV: not on a bpf file system; -ENOENT: its
 * parent is missing; -EPERM: somebody else's. `report` may be NULL.
 */
SL_MUST_CHECK int sl_packet_make_dir(const char *dir, struct sl_str *report);
/* A directory made anew is not the one that is locked, and somebody else may have made it. */
SL_MUST_CHECK int sl_packet_keep_lock(const char *dir, int *lock_fd);
/* To empty it: checks whose it is, locks it. -ENOENT, without a word: there is none. */
SL_MUST_CHECK int sl_packet_enter_dir(const char *dir, struct sl_str *report, int *ret_lock);
/* Where it is empty. `is_shared`: pins of the other engine are no cause for a word. */
SL_MUST_CHECK int sl_packet_remove_dir(const char *dir, bool is_shared, struct sl_str *report);
/* -ENOENT; -EINVAL: of another kind. */
SL_MUST_CHECK int sl_packet_get_pin(const char *dir, const char *name, enum sl_packet_kind kind,
				    int *ret_fd);
/* In the place of what has the name. */
int sl_packet_put_pin(const char *dir, const char *name, int fd);
/*
 * The name stands for this map or program (-1: none), or is made to; counts in *n if so, and the
 * name, followed by a blank, goes to `names` (NULL: nowhere).
 */
SL_MUST_CHECK int sl_packet_keep_pin(const char *dir, const char *name, enum sl_packet_kind kind,
				     int fd, unsigned *n, struct sl_str *names);
void sl_packet_remove_pin(const char *dir, const char *name);
/* Calls `fn` for each name in `dir` that is one of ours; it may remove it. The first error. */
int sl_packet_each_pin(const char *dir, int (*fn)(void *arg, const char *name), void *arg);
/* Links are detached, whoever holds them; a line in `report` for each thing, NULL: none. */
SL_MUST_CHECK int sl_packet_remove_all(const char *dir, struct sl_str *report);
/* `meta`, also of another layout: the fields up to ports_added are where they are in all of them.
 * -ENOENT: none, or not readable as such. */
int sl_packet_read_pinned_meta(const char *dir, struct sl_packet_meta *ret);

/* What had been added to the reserved ports: as `ports` says, or else `meta`. None: all zeros. */
void sl_packet_read_pinned_ports(const char *dir, const struct sl_packet_meta *meta,
				 struct sl_packet_ports *ret);

/* ---- links (packet_link.c) ---- */

bool sl_packet_can_tcx(int prog_fd);
void sl_packet_close_links(struct sl_packet *p);
/* Links that lack their pin; their number, or -errno. */
SL_MUST_CHECK int sl_packet_repin_links(struct sl_packet *p, struct sl_str *names);
/* Pinned links whose program does not work on this `flows`. */
size_t sl_packet_count_strays(const char *dir, uint32_t flows_id);
void sl_packet_remove_filters(struct sl_str *report);
/* Detached, and the pin taken away. -EINVAL: not a link of this kind, and left. */
int sl_packet_end_link(const char *dir, const char *name);

/* ---- routes (packet_routes.c) ---- */

/* Ids of routes; may hold one more than once. */
struct sl_packet_used {
	uint32_t *ids;
	size_t n;
	size_t cap;
};
SL_MUST_CHECK int sl_packet_add_used(struct sl_packet_used *used, uint32_t id);

/*
 * Reads the names; sorts `used`. Those of no id in it are removed, so that a map of bounded size
 * does for any number of reloads.
 */
SL_MUST_CHECK int sl_packet_load_names(struct sl_packet *p, struct sl_packet_used *used);
void sl_packet_free_names(struct sl_packet_names *names);

/* ---- ports (packet_ports.c) ---- */

/* "1,5-7\n", as the kernel writes it. -EINVAL: something else. */
SL_MUST_CHECK int sl_packet_ports_parse(const char *text, size_t n, struct sl_packet_ports *ret);
void sl_packet_ports_format(const struct sl_packet_ports *ports, struct sl_str *ret);
void sl_packet_ports_set(struct sl_packet_ports *ports, uint16_t from, uint16_t to,
			 bool is_reserved);
bool sl_packet_ports_is_empty(const struct sl_packet_ports *ports);
/* Takes those of `ports` out of the reserved ones of this network namespace; 0: none was in. */
SL_MUST_CHECK int sl_packet_free_ports(const struct sl_packet_ports *ports);

#endif
