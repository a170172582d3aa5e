/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_ACCEL_SOCKMAP_H
#define SL_ACCEL_SOCKMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "abi.h"
#include "base/cleanup.h"
#include "base/str.h"

/*
 * The kernel objects of the sockmap engine (bpf/sockmap.bpf.c), pinned in the directory of the
 * packet engine's: sockmap_flows, sockmap_slots, sockmap_orders, sockmap_targets, sockmap_sources,
 * sockmap_events, sockmap_counters, sockmap_meta, sockmap_prog. One process at a time owns them:
 * the broker. Opening needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, what follows needs none of
 * them.
 *
 * A socket leaves targets and sources by itself when it is closed, its entry of sockmap_flows does
 * not: sl_sockmap_leave().
 */
struct sl_sockmap;

struct sl_sockmap_options {
	const char *dir; /* exists where `has_lock` */
	bool has_lock;   /* this process has locked it already: the packet engine is open */
};

struct sl_sockmap_found {
	bool is_adopted;  /* maps of an earlier daemon are in use */
	uint32_t n_pairs; /* connections in them */
	char why[160];    /* why what was pinned is not used; "": nothing to say */
};

/*
 * Creates or adopts the maps, loads the program and attaches it to sockmap_sources, pins
 * everything. Errors as of sl_packet_open(); -ENOTSUP also for a kernel before 6.12, because of
 * what was repaired until then.
 */
SL_MUST_CHECK int sl_sockmap_open(const struct sl_sockmap_options *options,
				  struct sl_sockmap_found *found, struct sl_str *report,
				  struct sl_sockmap **ret);
/* Leaves everything pinned. Accepts NULL. */
void sl_sockmap_close(struct sl_sockmap *s);
SL_DEFINE_CLEANUP(struct sl_sockmap, sl_sockmap_close);

/*
 * The start-up test, on the loopback interface, with sockets of its own: redirecting, data that was
 * queued before, a half-close, the limit and the way back from it. 0, or -errno with a line in
 * `report` that says which step failed and how. Takes some 50 ms, 2 s at most.
 */
SL_MUST_CHECK int sl_sockmap_check(struct sl_sockmap *s, struct sl_str *report);

/* Removes what is pinned of this engine in `dir`, whoever made it; as sl_packet_purge(). */
SL_MUST_CHECK int sl_sockmap_purge(const char *dir, struct sl_str *report);
bool sl_sockmap_is_pinned(const char *dir);
/*
 * Pins that are missing are made again, the program is attached again where it is not. Their names,
 * each followed by a blank, go to `names`, unless that is NULL; SL_SOCKMAP_ATTACHED for the latter.
 */
#define SL_SOCKMAP_ATTACHED "program"
SL_MUST_CHECK int sl_sockmap_repin(struct sl_sockmap *s, unsigned *ret_repaired,
				   struct sl_str *names);

/*
 * The program is where it has to be; 1: it was not, and is again. What becomes a source without one
 * is never read.
 */
SL_MUST_CHECK int sl_sockmap_ensure_program(struct sl_sockmap *s);

/* ---- connections ---- */

/* Index of arrays: enum sl_sockmap_side. */
struct sl_sockmap_pair {
	uint64_t conn_id;
	int fd[2];          /* borrowed during the call */
	uint64_t cookie[2]; /* SO_COOKIE */
	uint32_t limit;     /* bytes */
};

/*
 * Both sockets become targets, then sources. The caller has seen to it that nothing of a socket's
 * receive queue has been read in part and that nobody writes to them meanwhile. *ret: the pair; its
 * slots are 2 * pair and 2 * pair + 1. A socket that can be a target but no source (its FIN has
 * come meanwhile) is SPILLED from the start (SL_SOCKMAP_NO_SOURCE). -ENOSPC: all slots are in use;
 * -EOPNOTSUPP: not established any more; -EEXIST: the connection is in already; other -errno of the
 * kernel. With an error everything is as before.
 */
SL_MUST_CHECK int sl_sockmap_join(struct sl_sockmap *s, const struct sl_sockmap_pair *p,
				  uint32_t *ret);
/*
 * Of a broker that died in sl_sockmap_join(): finishes it, or takes it back where no byte can have
 * passed yet. 0: it is in, *ret as above; -ENOENT: it is not.
 */
SL_MUST_CHECK int sl_sockmap_resolve(struct sl_sockmap *s, const struct sl_sockmap_pair *p,
				     uint32_t *ret);
/* The connection is over, or is to be: its entries go, its slots are free. Nothing of it: 0. */
void sl_sockmap_leave(struct sl_sockmap *s, uint32_t pair, uint64_t conn_id);

/* Its sockets are in the maps no more, what was queued to them is lost. Its slots stay. */
void sl_sockmap_take_out(struct sl_sockmap *s, uint32_t pair);

/* What there is of a pair. */
struct sl_sockmap_facts {
	uint64_t conn_id; /* 0: the pair is free */
	uint64_t cookie[2];
	bool has_flow[2];  /* an entry of sockmap_flows that is right */
	bool is_target[2]; /* in sockmap_targets */
	bool is_source[2];
};
size_t sl_sockmap_n_pairs(const struct sl_sockmap *s); /* in use */
/* The next pair in use behind `pair` (UINT32_MAX: the first one); false: there is none. */
bool sl_sockmap_next(const struct sl_sockmap *s, uint32_t *pair);
void sl_sockmap_look(const struct sl_sockmap *s, uint32_t pair, struct sl_sockmap_facts *ret);
/* Entries of sockmap_flows that were deleted are made again; 1: something was, 0: nothing. */
SL_MUST_CHECK int sl_sockmap_restore(struct sl_sockmap *s, uint32_t pair);
/* Entries of sockmap_flows that no pair explains: removed; their number. */
size_t sl_sockmap_sweep(struct sl_sockmap *s);
const struct sl_sockmap_slot *sl_sockmap_slots(const struct sl_sockmap *s); /* all; mapped */

/* ---- events ---- */

int sl_sockmap_events_fd(const struct sl_sockmap *s); /* to poll for input; borrowed */
/* At most `max` events; their number or -errno. `fn` must not close `s`. */
SL_MUST_CHECK int sl_sockmap_events(struct sl_sockmap *s, size_t max,
				    void (*fn)(void *arg, const struct sl_sockmap_event *e),
				    void *arg);

/* ---- for a proxy ---- */

/*
 * Descriptors for a proxy, owned by the caller: slots and orders to be mapped, flows and counters
 * for reading. The proxy maps slots for reading, but could do otherwise: the kernel maps no
 * descriptor that is for reading alone.
 */
SL_MUST_CHECK int sl_sockmap_give(const struct sl_sockmap *s, int *ret_slots_fd, int *ret_orders_fd,
				  int *ret_flows_fd, int *ret_counters_fd);

/*
 * The maps as a proxy has them; its flows hold references, because another broker may bring others.
 */
struct sl_sockmap_view;
/* Takes the descriptors, also on failure. */
SL_MUST_CHECK int sl_sockmap_view_new(int slots_fd, int orders_fd, int flows_fd, int counters_fd,
				      struct sl_sockmap_view **ret);
struct sl_sockmap_view *sl_sockmap_view_ref(struct sl_sockmap_view *v);
void sl_sockmap_view_unref(struct sl_sockmap_view *v); /* NULL is fine */
/* Of the same maps. */
bool sl_sockmap_view_is_same(const struct sl_sockmap_view *a, const struct sl_sockmap_view *b);
/* NULL: no such slot. The kernel writes it: read each field once, with __atomic_load_n(). */
const struct sl_sockmap_slot *sl_sockmap_view_slot(const struct sl_sockmap_view *v, uint32_t slot);
struct sl_sockmap_order *sl_sockmap_view_order(const struct sl_sockmap_view *v, uint32_t slot);
/* Whether a broker has begun with the socket. */
bool sl_sockmap_view_has(const struct sl_sockmap_view *v, uint64_t cookie);
SL_MUST_CHECK int sl_sockmap_view_counts(const struct sl_sockmap_view *v,
					 struct sl_sockmap_counts *ret);

#endif
