/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BPF_ABI_H
#define SL_BPF_ABI_H

#include <linux/types.h>

/*
 * The layout shared by the kernel programs and the daemon: fixed widths,
 * explicit padding, sizes asserted.
 */

/* ---- sklookup: many ports, one listening socket ---- */

#define SL_STEER_RANGES 256
#define SL_STEER_SLOTS (2 * SL_STEER_RANGES) /* two banks; one is live, one is written */

/* Connections to `ip` (family 0: any address) and a port of from..to go to the slot's socket. */
struct sl_steer_range {
	__u32 ip[4];  /* network order; IPv4 in ip[0] */
	__u32 family; /* AF_INET, AF_INET6 or 0 */
	__u16 from;
	__u16 to;
};
_Static_assert(sizeof(struct sl_steer_range) == 24, "layout");

/* Written as one word, so that a reader sees one bank or the other. */
struct sl_steer_active {
	__u32 bank_and_count; /* bank << 16 | number of ranges */
};
_Static_assert(sizeof(struct sl_steer_active) == 4, "layout");

enum sl_steer_outcome {
	SL_STEER_PASSED = 0, /* no range has this address and port */
	SL_STEER_STEERED,    /* given to the range's socket */
	SL_STEER_NO_SOCKET,  /* the range's socket is closed; looked up as if there were no range */
	SL_STEER_NOT_ASSIGNED, /* the kernel refused the socket; likewise */
	SL_STEER_OUTCOME_COUNT_,
};

/* ---- guard: SYNs of denied sources end before accept ---- */

/* Steps of a search halve this; a table holds one range less. */
#define SL_GUARD_RANGES (1 << 22)
#define SL_GUARD_PORTS 65536
#define SL_GUARD_ADDRS 65536

/* Inclusive, network order; a table is sorted and its ranges are disjoint. */
struct sl_guard_range4 {
	__u8 from[4];
	__u8 to[4];
} __attribute__((aligned(8)));
_Static_assert(sizeof(struct sl_guard_range4) == 8, "layout");

struct sl_guard_range6 {
	__u8 from[16];
	__u8 to[16];
} __attribute__((aligned(8)));
_Static_assert(sizeof(struct sl_guard_range6) == 32, "layout");

/* Where the daemon listens on a port: on every address of a family, or on those in guard_addrs. */
enum sl_guard_port {
	SL_GUARD_ANY4 = 1,
	SL_GUARD_ANY6 = 2,
	SL_GUARD_SOME4 = 4,
	SL_GUARD_SOME6 = 8,
};

struct sl_guard_addr {
	__u8 ip[16];  /* network order; IPv4 in the first four, zeros behind */
	__u16 family; /* AF_INET or AF_INET6 */
	__u16 port;   /* host order */
};
_Static_assert(sizeof(struct sl_guard_addr) == 20, "layout");

/* One row, so that a dump names each outcome. Later versions may append fields only. */
struct sl_guard_counts {
	__u64 passed4; /* SYN for a port of ours from a source that is not denied */
	__u64 passed6;
	__u64 dropped4; /* from a denied one */
	__u64 dropped6;
	__u64 forwarded; /* from a denied one, but for another host */
	__u64 unread;    /* TCP in fragments or behind odd headers: left to the daemon */
};
_Static_assert(sizeof(struct sl_guard_counts) == 48, "layout");

/* ---- packet: two established TCP connections rewritten into each other ---- */

/* What is pinned is adopted by a later daemon only if it has this number. */
#define SL_PACKET_LAYOUT 1

/*
 * A packet as it arrives. Addresses in network order, IPv4 as ::ffff:a.b.c.d; ports in host order,
 * because a dump is read by people.
 */
struct sl_packet_key {
	__u8 saddr[16];
	__u8 daddr[16];
	__u16 sport;
	__u16 dport;
} __attribute__((aligned(4)));
_Static_assert(sizeof(struct sl_packet_key) == 36, "layout");

enum sl_packet_state {
	/* Inserted, not yet in force: segments with data, FIN or SYN are dropped, others go up. */
	SL_PACKET_STARTING = 1,
	SL_PACKET_ACTIVE,
	/* To be ended: what arrives is answered with a RST, nothing is forwarded. */
	SL_PACKET_KILLED,
};

enum sl_packet_side {
	SL_PACKET_CLIENT = 0, /* sent by the client, forwarded to the backend */
	SL_PACKET_BACKEND,
};

/* One direction of a flow. Sequence numbers are the sender's. */
struct sl_packet_flow {
	/* what becomes of a packet */
	__u8 new_saddr[16];
	__u8 new_daddr[16];
	__u16 new_sport;
	__u16 new_dport;
	__u32 ifindex;   /* leaves through */
	__u32 seq_delta; /* added, modulo 2^32 */
	__u32 ack_delta; /* and to SACK blocks */
	__u32 tsval_delta;
	__u32 tsecr_delta; /* an echo of 0 stays 0 */
	__s8 window_shift; /* > 0: the field is shifted left, at most to 65535; < 0: right */
	__u8 clear_ecn;    /* one side only has negotiated ECN: no packet is marked */
	__u8 has_timestamps;
	__u8 family; /* 4 or 6 */
	enum sl_packet_state state;
	enum sl_packet_side from;
	/* seen so far, each 0 or 1 */
	__u8 fin;            /* of this sender; fin_seq is valid */
	__u8 peer_fin;       /* of the other side; peer_fin_seq is valid */
	__u8 peer_fin_acked; /* by this sender */
	__u8 rst;            /* of this sender, within what the other side may have acknowledged */
	__u32 max_seq;       /* behind the last octet forwarded, a FIN counted */
	__u32 max_ack;       /* highest acknowledgement forwarded */
	__u32 fin_seq;       /* behind the FIN */
	__u32 peer_fin_seq;  /* what acknowledges the other side's FIN */
	__u32 last_tsval;    /* of the last packet with timestamps */
	__u32 last_tsecr;
	__u32 drops;    /* packets of this direction that could not be forwarded, any cause */
	__u32 restarts; /* RST marks taken back because data followed */
	/*
	 * The window our own socket had opened to the receiver of these packets: acknowledgement
	 * and window never say less than this number of the acknowledgements, as long as it is
	 * ahead.
	 */
	__u32 promised;
	__u32 offered;     /* while it is: what the sender of these packets itself offers now */
	__u32 within;      /* a forwarded number that the receiver's own window reaches for good */
	__u8 is_promised;  /* 0: the sender's own window has passed it */
	__u8 may_overrun;  /* 1: the sender may be past the receiver's own window */
	__u8 window_scale; /* of the field as it is forwarded */
	__u8 pad2;
	__u16 closed_at; /* the sender's own window is closed since: 2^30 ns, never 0; 0: open */
	__u16 pad3[3];
	__u64 packets; /* forwarded; of a GSO packet each segment */
	__u64 bytes;   /* payload; an octet sent again is counted once */
	/* CLOCK_MONOTONIC, of the tick */
	__u64 last_ns;      /* any packet */
	__u64 last_data_ns; /* payload, FIN */
	__u64 killed_ns;    /* 0: not killed */
	/* the other direction's, so that it can be made again from this one */
	__u32 peer_ifindex;
	__s8 peer_window_shift;
	__u8 told; /* its end has been reported: a later daemon need not do that again */
	__u8 pad[2];
	/* whose it is: the same in both directions */
	__u64 conn_id;
	__u32 route_id; /* key in `routes` */
	__u32 target_hash;
	__u8 client[16]; /* the real client, of a PROXY header where there was one */
	__u8 via[16];    /* who connected then; else zeros */
	__u16 client_port;
	__u16 via_port;
	__u32 connect_us;
	__u64 accepted_ns;   /* CLOCK_MONOTONIC */
	__u64 relayed_bytes; /* in this direction, before the hand-over */
};
_Static_assert(sizeof(struct sl_packet_flow) == 248, "layout");

/* To userspace, as it happens; a full ring loses them and the sweep finds the same in `flows`. */
enum sl_packet_event_kind {
	SL_PACKET_EV_FIN = 1,   /* seen for the first time */
	SL_PACKET_EV_FIN_ACKED, /* by the side in `from` */
	SL_PACKET_EV_RST,
	SL_PACKET_EV_REUSED,    /* a new SYN on a finished tuple: both entries are gone */
	SL_PACKET_EV_RST_AHEAD, /* behind octets that were not seen: perhaps the sender's */
};
struct sl_packet_event {
	__u64 conn_id;
	enum sl_packet_event_kind kind;
	enum sl_packet_side from;
};
_Static_assert(sizeof(struct sl_packet_event) == 16, "layout");

/* Outcomes of the programs, per CPU; the one row of `counters`. Later versions append only. */
struct sl_packet_counts {
	__u64 forwarded_tc; /* packets */
	__u64 forwarded_xdp;
	__u64 options_walked;  /* TCP options other than one aligned timestamp */
	__u64 starting_passed; /* to our own stack, before activation */
	__u64 starting_dropped;
	__u64 fragment_dropped;  /* of a known tuple */
	__u64 extension_dropped; /* IP options or extension headers, of a known tuple */
	__u64 malformed_dropped; /* of a known tuple */
	__u64 ttl_dropped;
	__u64 vlan_passed; /* tagged: belongs to a VLAN device, which has the program itself */
	__u64 vlan_popped; /* priority tag alone */
	__u64 icmp_translated;
	__u64 icmp_dropped; /* of a known tuple, not translatable */
	__u64 mtu_answered; /* with "fragmentation needed" or "packet too big" */
	__u64 mtu_failed;
	__u64 killed_answered; /* with RST */
	__u64 killed_dropped;
	__u64 reused;      /* SYN on a finished tuple */
	__u64 rst_ignored; /* RST outside of what the other side may have acknowledged: forwarded,
			      not noted */
	__u64 events_lost; /* the ring was full */
	__u64 xdp_passed;  /* of a known tuple, left to TC */
};
_Static_assert(sizeof(struct sl_packet_counts) == 168, "layout");

struct sl_packet_route {
	char name[72]; /* NUL-terminated */
};

/* In every layout the fields up to ports_added are where they are here. */
struct sl_packet_meta {
	__u32 layout; /* SL_PACKET_LAYOUT */
	__u32 max_flows;
	__u16 port_from; /* reserved source ports */
	__u16 port_to;
	__u8 ports_added; /* to net.ipv4.ip_local_reserved_ports by us: those in `ports`, or, where
			     that is missing, these */
	__u8 pad[3];
	__u32 last_route_id;
	__u32 owner_pid;  /* of the daemon that uses it, or used it last */
	char version[32]; /* of that daemon */
	__u64 started_ns; /* CLOCK_MONOTONIC; when that one started */
};
_Static_assert(sizeof(struct sl_packet_meta) == 64, "layout");

/*
 * What we have added to net.ipv4.ip_local_reserved_ports, to be taken out at the end: bit n % 64 of
 * word n / 64 is port n. Ports somebody else had reserved before are not among them.
 */
struct sl_packet_ports {
	__u64 bits[1024];
};
_Static_assert(sizeof(struct sl_packet_ports) == 8192, "layout");

/*
 * The control program, run by BPF_PROG_TEST_RUN in the namespace of the devices: the only one
 * beside the packet programs that changes `flows`. Its request lies in the one row of a mapped
 * array.
 */
enum sl_packet_op {
	SL_PACKET_OP_LOOK = 1, /* fill sock[] from the sockets of key[]; changes nothing */
	SL_PACKET_OP_COMMIT, /* insert both entries, and activate them if both sockets are quiet */
	SL_PACKET_OP_KILL,  /* state KILLED, one injected packet per side draws the RSTs; repeatable
			     */
	SL_PACKET_OP_PROBE, /* one injected keep-alive per side: live peers answer */
	SL_PACKET_OP_REMOVE,  /* delete both entries, if both are of conn_id or absent */
	SL_PACKET_OP_ROUTE,   /* the devices are ifindex[] now; 0: as it was */
	SL_PACKET_OP_RESTORE, /* key[0]'s entry is there, its partner is not: make it again */
	SL_PACKET_OP_TOLD,    /* mark both entries so */
};

enum sl_packet_result {
	SL_PACKET_DONE = 0,
	SL_PACKET_NO_REQUEST, /* the program could not read it: a defect */
	SL_PACKET_NO_SOCKET,  /* or a socket with another cookie */
	SL_PACKET_NOT_ESTABLISHED,
	SL_PACKET_NOT_QUIET, /* see sock[] */
	SL_PACKET_URGENT,
	SL_PACKET_MD5,
	SL_PACKET_NO_DEVICE, /* the kernel has no valid route cached for a socket */
	SL_PACKET_MAP_FULL,
	SL_PACKET_TAKEN, /* an entry of another connection has this key */
	SL_PACKET_NO_FLOW,
	SL_PACKET_NOT_SENT, /* KILL, PROBE: marked, but a packet could not be injected */
};

/* What the kernel knows of a socket. */
struct sl_packet_sock {
	__u64 cookie;
	__u32 state; /* TCP_ESTABLISHED is 1 */
	__u32 rcv_nxt;
	__u32 copied_seq;
	__u32 snd_una;
	__u32 snd_nxt;
	__u32 write_seq;
	__u32 ts_recent;
	__u32 out_ifindex; /* of the cached route; 0: none */
	__u32 in_ifindex;  /* of the last packet; 0: unknown */
	__u32 rcv_wup;     /* of rcv_nxt, what the peer has been told of */
	__u32 rcv_edge;    /* behind the window that was opened to the peer */
	__u8 out_of_order; /* segments are queued behind a hole */
	__u8 backlog;
	__u8 urgent;
	__u8 md5;
};
_Static_assert(sizeof(struct sl_packet_sock) == 56, "layout");

/* All that was received is read, all that was written is acknowledged. */
static inline __attribute__((always_inline)) int sl_packet_is_quiet(const struct sl_packet_sock *s)
{
	return s->rcv_nxt == s->copied_seq && s->snd_una == s->snd_nxt &&
	       s->snd_nxt == s->write_seq && !s->out_of_order && !s->backlog;
}

/*
 * [0]: packets of the client, the client's socket, the device towards it; [1]: the backend's. The
 * frame the program is run with has at least 60 octets and the type of the flow, 0x0800 or 0x86dd.
 */
struct sl_packet_request {
	enum sl_packet_op op;
	enum sl_packet_result result; /* out */
	__u64 conn_id;    /* 0 with KILL, PROBE, ROUTE, RESTORE, TOLD: whoever's it is */
	__u64 cookie[2];  /* SO_COOKIE */
	__u32 ts_now[2];  /* TCP_TIMESTAMP: of our own clock towards each side */
	__u32 ifindex[2]; /* COMMIT: 0 asks for the cached route's; out: the one used */
	struct sl_packet_key key[2];
	struct sl_packet_flow flow[2]; /* COMMIT: what neither keys nor sockets tell */
	struct sl_packet_sock sock[2]; /* out */
	__u64 took_ns;                 /* out */
};

/* ---- sockmap: what one socket receives is queued to another ---- */

/* What is pinned is adopted by a later daemon only if it has this number. */
#define SL_SOCKMAP_LAYOUT 1
/* Sockets; each connection has a pair: 2 * n the client's, 2 * n + 1 the backend's. */
#define SL_SOCKMAP_SLOTS 65536

enum sl_sockmap_state {
	SL_SOCKMAP_FREE = 0,
	SL_SOCKMAP_FAST,    /* what arrives goes to the other socket */
	SL_SOCKMAP_SPILLED, /* it goes to the daemon, until that asks for FAST */
};

enum sl_sockmap_side {
	SL_SOCKMAP_CLIENT = 0, /* the socket towards the client: bytes it has sent */
	SL_SOCKMAP_BACKEND,
};

/* Why a socket was spilled last. */
enum sl_sockmap_spill {
	SL_SOCKMAP_NOT_SPILLED = 0,
	SL_SOCKMAP_LIMIT,     /* more than `limit` waits at the other socket, or it is full */
	SL_SOCKMAP_NO_TARGET, /* the other socket is not in `sockmap_targets` */
	SL_SOCKMAP_REFUSED,   /* the kernel has not taken the redirect */
	SL_SOCKMAP_ASKED,     /* by the daemon */
	SL_SOCKMAP_NO_SOURCE, /* it has no program: could not be made a source */
	SL_SOCKMAP_NO_ENTRY,  /* its entry of `sockmap_flows` was missing for a while */
	SL_SOCKMAP_LOST,      /* a packet could not be taken: what is behind it goes nowhere */
};

/* A socket, by its cookie: `sockmap_flows`. */
struct sl_sockmap_flow {
	__u64 conn_id;
	__u64 peer; /* cookie of the other one, the key in `sockmap_targets` */
	__u32 slot;
	enum sl_sockmap_side side;
};
_Static_assert(sizeof(struct sl_sockmap_flow) == 24, "layout");

/* What one socket has received since the hand-over. Written by the kernel's side alone. */
struct sl_sockmap_slot {
	__u64 conn_id;
	__u64 cookie;
	__u64 redirected; /* bytes queued to the other socket */
	__u64 passed;     /* bytes given to the daemon */
	__u64 packets;
	__u64 last_ns; /* CLOCK_MONOTONIC, of the tick */
	enum sl_sockmap_state state;
	enum sl_sockmap_spill why; /* of the last spill */
	__u32 limit;               /* bytes that may wait at the other socket */
	__u32 base;     /* the other socket's write_seq less `redirected`, both modulo 2^32 */
	__u32 is_based; /* `base` was taken since the last return to FAST */
	__u32 spills;
	__u32 max_waiting; /* most bytes ever seen waiting at the other socket */
	__u32 next_seq;    /* of the sender: behind the last octet that was taken */
	__u32 has_next;    /* that is known */
	__u32 pad;
};
_Static_assert(sizeof(struct sl_sockmap_slot) == 88, "layout");

/* Written by the proxy alone, for the slot of the same number. */
enum sl_sockmap_wish {
	SL_SOCKMAP_AS_IT_IS = 0,
	SL_SOCKMAP_WANTS_FAST,  /* granted to a packet that meets this `spills` and `passed` */
	SL_SOCKMAP_WANTS_SPILL, /* from the next packet on */
};
struct sl_sockmap_order {
	__u64 consumed; /* of `passed`, written to the other socket */
	enum sl_sockmap_wish wish;
	__u32 spills; /* of the slot, as `consumed` was noted: no later one is meant */
};
_Static_assert(sizeof(struct sl_sockmap_order) == 16, "layout");

/* FAST has become SPILLED, or a packet has met no entry of its socket (conn_id 0). */
struct sl_sockmap_event {
	__u64 conn_id;
	__u64 cookie;
	__u32 slot;
	__u32 pad;
};
_Static_assert(sizeof(struct sl_sockmap_event) == 24, "layout");

/* Outcomes, per CPU; the one row of `sockmap_counters`. Later versions append only. */
struct sl_sockmap_counts {
	__u64 redirected; /* packets */
	__u64 passed;     /* to the daemon, while spilled */
	__u64 fins;       /* without payload: dropped, the stack has noted them */
	__u64 spilled_limit;
	__u64 spilled_no_target;
	__u64 spilled_refused;
	__u64 spilled_asked;
	__u64 returned;    /* to FAST */
	__u64 unknown;     /* of a socket without an entry: to the daemon */
	__u64 events_lost; /* the ring was full */
	__u64 trimmed;     /* began with octets that had come before */
	__u64 trim_failed;
};
_Static_assert(sizeof(struct sl_sockmap_counts) == 96, "layout");

struct sl_sockmap_meta {
	__u32 layout; /* SL_SOCKMAP_LAYOUT */
	__u32 owner_pid;
	char version[32];
	__u64 started_ns; /* CLOCK_MONOTONIC */
};
_Static_assert(sizeof(struct sl_sockmap_meta) == 48, "layout");

#endif
