/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_ACCEL_PACKET_H
#define SL_ACCEL_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "abi.h"
#include "base/addr.h"
#include "base/cleanup.h"
#include "base/str.h"

/*
 * The kernel objects of the packet engine (bpf/packet.bpf.c): maps, programs and links, pinned in a
 * directory of a bpf file system so that they work on without a daemon. One process at a time owns
 * them: the broker. Opening needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON; what follows needs
 * CAP_NET_ADMIN alone. Nothing here loads or compiles a program per connection.
 *
 * Pinned in `dir`: flows, events, counters, routes, meta (names are a contract), ports, the
 * programs as prog_tc, prog_xdp, prog_control, prog_freeze, and the links as link_tcx_IFINDEX,
 * link_xdp_IFINDEX.
 */
struct sl_packet;

enum sl_packet_hook {
	SL_HOOK_TC = 0, /* tcx where the kernel has it, else clsact */
	SL_HOOK_XDP, /* in driver mode, TC beside it for what XDP leaves; asked for by name only */
};

struct sl_packet_options {
	const char *dir;
	uint32_t max_flows;
	enum sl_packet_hook hook;
	uint16_t port_from; /* reserved source ports, written to meta */
	uint16_t port_to;
};

/* What was found pinned. */
struct sl_packet_found {
	bool is_adopted;    /* maps of an earlier daemon are in use */
	uint32_t n_dropped; /* entries given up */
	uint32_t n_strays;  /* attached programs that used other maps */
	char why[160]; /* why maps or entries were dropped, or max_flows differs; "": nothing to say
			*/
};

/*
 * Creates or adopts the maps, loads the programs on them, pins everything. Programs of an earlier
 * daemon go on working on their links until sl_packet_attach() has replaced them without a gap.
 * What is pinned with another layout, or by something else, is given up with its links, and said in
 * `found`. Adopted maps keep their size: `max_flows` of a running host changes when no flow is
 * left. Names of routes that no flow uses are forgotten. Errors: -EPERM (privileges, or `dir` is
 * somebody else's), -ENOTSUP (the kernel), -EBUSY: another daemon uses `dir`; -ENODEV: it is not on
 * a bpf file system; -ENOENT: the directory to make it in is missing; `report` gets what failed and
 * what to do, in one line. Ports that an earlier daemon has added stay reserved, and noted, until
 * sl_packet_release_ports().
 */
SL_MUST_CHECK int sl_packet_open(const struct sl_packet_options *options,
				 struct sl_packet_found *found, struct sl_str *report,
				 struct sl_packet **ret);
/* Leaves everything pinned. Accepts NULL. */
void sl_packet_close(struct sl_packet *p);
SL_DEFINE_CLEANUP(struct sl_packet, sl_packet_close);

/*
 * Removes links, filters, programs and maps of ours in `dir`, whoever made them, and the empty
 * directory; ports we had added to the reserved ones are taken out again. Needs no sl_packet;
 * refuses nothing else in the directory but leaves it. A clsact qdisc stays, because others may
 * have come to use it. `report`: what was removed or left, one line each. 0 where there is nothing;
 * -ENODEV, -EPERM as above.
 */
SL_MUST_CHECK int sl_packet_purge(const char *dir, struct sl_str *report);

/* There is a bpf file system for `dir`, which opening needs first of all. Needs no sl_packet. */
bool sl_packet_has_place(const char *dir);

/* Flows of an earlier daemon may be there. Needs no sl_packet. */
bool sl_packet_is_pinned(const char *dir);

/* ---- interfaces ---- */

/*
 * Attaches at the ingress of an interface of this namespace, or replaces what an earlier daemon
 * attached, in one step. Idempotent. -EOPNOTSUPP: XDP in driver mode is not possible there (TC is
 * attached). -ENODEV: no such interface. -EBUSY: somebody else's clsact filter has our numbers.
 */
SL_MUST_CHECK int sl_packet_attach(struct sl_packet *p, unsigned ifindex);
void sl_packet_detach(struct sl_packet *p, unsigned ifindex);
/* Asks the kernel: our program, on our maps, is on that interface. */
bool sl_packet_is_attached(const struct sl_packet *p, unsigned ifindex);
/* Links and filters of interfaces that are no more, or not wanted any more: calls `wanted`. */
void sl_packet_sweep_links(struct sl_packet *p, bool (*wanted)(void *arg, unsigned ifindex),
			   void *arg);
const char *sl_packet_hook_text(const struct sl_packet *p); /* "tcx", "clsact", "xdp+tcx" */

/*
 * Pins that are missing are made again, how many and, unless NULL, their names, each followed by a
 * blank, also where it then fails; -ENOENT: the directory itself is gone and could not be made;
 * -EBUSY: another daemon has made it anew and uses it.
 */
SL_MUST_CHECK int sl_packet_repin(struct sl_packet *p, unsigned *ret_repaired,
				  struct sl_str *names);

/* ---- flows ---- */

/* The mapped request; valid as long as `p`. */
struct sl_packet_request *sl_packet_request(struct sl_packet *p);
/* Runs the control program on it: 0, and the answer is in the request; else -errno of the run. */
SL_MUST_CHECK int sl_packet_run(struct sl_packet *p);

SL_MUST_CHECK int sl_packet_look_up(const struct sl_packet *p, const struct sl_packet_key *key,
				    struct sl_packet_flow *ret);
/* An entry that is part of no flow; those of flows are sl_packet_control's. */
SL_MUST_CHECK int sl_packet_delete_stray(const struct sl_packet *p,
					 const struct sl_packet_key *key);

/*
 * Walks `flows` in batches: at most `n` entries after `cursor`, which is zeros at the start.
 * The number in *ret_n; 1 when the walk is over, 0 when there may be more. Entries that come and go
 * meanwhile may be missed or met twice.
 */
struct sl_packet_cursor {
	uint32_t bucket; /* of the hash table, as the kernel counts them */
	uint32_t skip;   /* entries of it that were handed out already */
};
SL_MUST_CHECK int sl_packet_batch(int flows_fd, struct sl_packet_cursor *cursor, size_t n,
				  struct sl_packet_key *keys, struct sl_packet_flow *flows,
				  size_t *ret_n);

/* A socket filter that stops payload, FIN and SYN from reaching a socket; borrowed. */
int sl_packet_freeze_fd(const struct sl_packet *p);
/*
 * For other processes: `flows`, `counters`, `routes` for reading alone; owned by the caller. Opened
 * by the pin: -ENOENT, -ESTALE (it is another map's): sl_packet_repin() makes it right.
 */
SL_MUST_CHECK int sl_packet_readonly_fd(const struct sl_packet *p, const char *map, int *ret_fd);

/* ---- events ---- */

int sl_packet_events_fd(const struct sl_packet *p); /* to poll for input; borrowed */
/* At most `max` events; their number or -errno. `fn` must not close `p`. */
SL_MUST_CHECK int sl_packet_events(struct sl_packet *p, size_t max,
				   void (*fn)(void *arg, const struct sl_packet_event *e),
				   void *arg);

/* ---- routes and meta ---- */

/* The id of a route's name, given anew where there is none; ids are never reused. -E2BIG: full. */
SL_MUST_CHECK int sl_packet_route_id(struct sl_packet *p, const char *name, uint32_t *ret);
/* -ENOENT. */
SL_MUST_CHECK int sl_packet_route_name(int routes_fd, uint32_t id, char ret[72]);
SL_MUST_CHECK int sl_packet_get_meta(const struct sl_packet *p, struct sl_packet_meta *ret);
SL_MUST_CHECK int sl_packet_set_meta(struct sl_packet *p, const struct sl_packet_meta *meta);

/* ---- reading, by whoever was given a descriptor; needs no privilege ---- */

/* -ENOENT: there is none. */
SL_MUST_CHECK int sl_packet_read_flow(int flows_fd, const struct sl_packet_key *key,
				      struct sl_packet_flow *ret);
/*
 * Sums over the CPUs. How many there may be is read from /sys/devices/system/cpu/possible once in a
 * process: by sl_packet_read_init() where files cannot be opened later, else by the first call.
 */
void sl_packet_read_init(void);
SL_MUST_CHECK int sl_packet_read_counts(int counters_fd, struct sl_packet_counts *ret);

/* ---- addresses ---- */

void sl_packet_key_of(const struct sl_addr *from, const struct sl_addr *to,
		      struct sl_packet_key *ret);
void sl_packet_addr(const uint8_t ip[16], uint16_t port,
		    struct sl_addr *ret);                       /* zeros: AF_UNSPEC */
void sl_packet_ip(const struct sl_addr *addr, uint8_t ret[16]); /* AF_UNSPEC: zeros */
/* The keys of both directions, from either. */
void sl_packet_keys(const struct sl_packet_key *key, const struct sl_packet_flow *flow,
		    struct sl_packet_key ret[2]);
/* The key of the entry of the other direction. */
void sl_packet_partner(const struct sl_packet_flow *flow, struct sl_packet_key *ret);

/* ---- reserved ports ---- */

/*
 * Takes from..to out of what the kernel gives to others (net.ipv4.ip_local_reserved_ports of this
 * namespace) and notes in `ports` which of them were not reserved before. What was added for
 * another range stays, because flows may have ports of it. -EBUSY is not an error of it: listeners
 * in the range stay.
 */
SL_MUST_CHECK int sl_packet_reserve_ports(struct sl_packet *p, uint16_t from, uint16_t to);
/*
 * Once they are reserved: what somebody has taken out since, of this range or one before it, is
 * reserved again. 1: these ports were missing, which are appended; 0: none.
 */
SL_MUST_CHECK int sl_packet_keep_ports(struct sl_packet *p, struct sl_str *ret_missing);
/* Gives back what was added for other ranges than the last one: 1; 0: there was nothing. */
SL_MUST_CHECK int sl_packet_release_ports(struct sl_packet *p);

#endif
