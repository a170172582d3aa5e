/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CORE_REASON_H
#define SL_CORE_REASON_H

#include <stddef.h>

/*
 * The words that logs, metrics, JSON and the command line share. Each enum has
 * one table of names; the names are part of the external contract and are
 * never changed, only added to.
 */

/* Why one side of a connection ended. */
#define SL_REASONS(X)                                                                          \
	X(NORMAL, "normal", "the side closed, and everything it sent was delivered")           \
	X(ECONNRESET, "econnreset", "the side sent a RST")                                     \
	X(ETIMEDOUT, "etimedout", "the kernel gave up retransmitting or probing")              \
	X(ECONNREFUSED, "econnrefused", "the target refused the connection")                   \
	X(EHOSTUNREACH, "ehostunreach", "no host answers at the target's address")             \
	X(ENETUNREACH, "enetunreach", "no network route to the target's address")              \
	X(EPIPE, "epipe", "the side closed for reading while bytes were on their way to it")   \
	X(ERROR, "error", "another socket error; the log line has its name")                   \
	X(CONNECTION_TIMEOUT, "connection_timeout", "timeouts.connect passed")                 \
	X(FIRST_DATA_TIMEOUT, "first_data_timeout", "timeouts.first_data passed")              \
	X(PROXY_HEADER_TIMEOUT, "proxy_header_timeout", "timeouts.proxy_header passed")        \
	X(HANDSHAKE_TIMEOUT, "handshake_timeout", "timeouts.handshake passed")                 \
	X(INACTIVITY, "inactivity", "no byte in either direction for timeouts.idle")           \
	X(MAX_LIFETIME, "max_lifetime", "open for timeouts.max_lifetime")                      \
	X(PARITY_CHECK, "parity_check", "half-open for timeouts.half_closed, then silent")     \
	X(CLOSE_GRACE, "close_grace", "silent for timeouts.close_grace after one side closed") \
	X(CLOSED_BEFORE_DATA, "closed_before_data", "the client left without sending a byte")  \
	X(CLOSED_DURING_CONNECT, "closed_during_connect", "the client left during connecting") \
	X(ROUTE_IP_BLOCKED, "route_ip_blocked", "an allow or deny list refused the client")    \
	X(NO_ROUTE, "no_route", "no route matches")                                            \
	X(LIMIT_GLOBAL, "limit_global", "global.max_connections reached")                      \
	X(LIMIT_ROUTE, "limit_route", "security.max_connections of the route reached")         \
	X(LIMIT_IP, "limit_ip", "security.max_connections_per_ip reached")                     \
	X(RATE_IP, "rate_ip", "security.new_connections_per_ip exceeded")                      \
	X(OVERLOAD, "overload", "the circuit breaker is open (global.overload)")               \
	X(PROXY_PROTOCOL_ERROR, "proxy_protocol_error", "malformed or missing PROXY header")   \
	X(PROXY_PROTOCOL_UNTRUSTED, "proxy_protocol_untrusted", "PROXY source not trusted")    \
	X(TLS_ERROR, "tls_error", "TLS failed; the log line says which check")                 \
	X(HTTP_ERROR, "http_error", "HTTP could not be parsed or served")                      \
	X(KILLED, "killed", "closed by 'sluice kill'")                                         \
	X(DRAINED, "drained", "closed early while its route, target or the daemon drained")    \
	X(BACKEND_DOWN, "backend_down", "no target of the route is usable")                    \
	X(NFTABLES_CLOSED, "nftables_closed", "the kernel's NAT entry ended")                  \
	X(FORCE_CLEANUP, "force_cleanup", "the sweep found a record whose sockets were gone")  \
	X(SHUTDOWN, "shutdown", "still open when timeouts.drain ended at a stop")              \
	X(CRASH_RECOVERED, "crash_recovered",                                                  \
	  "it was over, or its route gone, when the next process took over")

enum sl_reason {
	SL_REASON_NONE = 0, /* the side has not ended, or never existed */
#define X(id, name, text) SL_REASON_##id,
	SL_REASONS(X)
#undef X
		SL_REASON_COUNT_,
};

const char *sl_reason_name(enum sl_reason reason); /* "-" for NONE */
const char *sl_reason_text(enum sl_reason reason); /* one line for people */

/* The reason of a socket error (positive errno). */
enum sl_reason sl_reason_from_errno(int err);

enum sl_side {
	SL_CLIENT = 0,
	SL_BACKEND,
	SL_SIDE_COUNT_,
};
const char *sl_side_name(enum sl_side side);

enum sl_engine_id {
	SL_ENGINE_RELAY = 0,
	SL_ENGINE_PACKET,
	SL_ENGINE_SOCKMAP,
	SL_ENGINE_NFTABLES,
	SL_ENGINE_COUNT_,
	SL_ENGINE_NONE = SL_ENGINE_COUNT_, /* not chosen yet */
};
const char *sl_engine_name(enum sl_engine_id engine); /* "-" for NONE */

/* Why a connection is carried by its engine. */
#define SL_ENGINE_REASONS(X)                                                               \
	X(CONFIGURED, "configured", "the route's engine, or packet.hook, says so")         \
	X(ELIGIBLE, "eligible", "auto: the best engine for it here")                       \
	X(NEEDS_TLS, "needs_tls", "the daemon terminates or originates TLS")               \
	X(NEEDS_HTTP, "needs_http", "the daemon reads HTTP")                               \
	X(NOT_LINUX_SUPPORTED, "not_linux_supported",                                      \
	  "this kernel lacks what is needed, or only one of client and target has IPv6")   \
	X(NO_PRIVILEGE, "no_privilege", "the daemon may not use the kernel's engine")      \
	X(TIMESTAMPS_ONE_SIDED, "timestamps_one_sided", "TCP timestamps on one side only") \
	X(SACK_ONE_SIDED, "sack_one_sided", "SACK on one side only")                       \
	X(MSS_MISMATCH, "mss_mismatch", "the segment sizes of the sides do not fit")       \
	X(MPTCP, "mptcp", "the client speaks Multipath TCP")                               \
	X(MD5, "md5", "TCP MD5 signatures are in use")                                     \
	X(URGENT_DATA, "urgent_data", "urgent data is pending")                            \
	X(HALF_CLOSED, "half_closed", "one side has closed")                               \
	X(NOT_QUIESCENT, "not_quiescent", "the flow was never quiet enough to move")       \
	X(MAP_FULL, "map_full", "the kernel's flow table is full")                         \
	X(PORT_RANGE_FULL, "port_range_full", "no source port is free")                    \
	X(NO_ROUTE, "no_route", "the kernel has no route for the rewritten packets")       \
	X(INTERFACE_NOT_ATTACHED, "interface_not_attached", "no program on the interface") \
	X(RATE_LIMITED, "rate_limited", "too many hand-overs at once")                     \
	X(SHORT_LIVED, "short_lived", "too young or too small to be worth moving")         \
	X(SELF_TEST_FAILED, "self_test_failed", "the engine's start-up test failed")       \
	X(TAKEN_OUT, "taken_out", "somebody took its sockets out of the kernel's maps")    \
	X(MOVED, "moved", "'sluice move' asked for it")

enum sl_engine_reason {
	SL_WHY_NONE = 0,
#define X(id, name, text) SL_WHY_##id,
	SL_ENGINE_REASONS(X)
#undef X
		SL_WHY_COUNT_,
};
const char *sl_engine_reason_name(enum sl_engine_reason why); /* "-" for NONE */
const char *sl_engine_reason_text(enum sl_engine_reason why);

#endif
