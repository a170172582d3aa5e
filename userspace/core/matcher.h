/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CORE_MATCHER_H
#define SL_CORE_MATCHER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "core/ip_set.h"
#include "core/slice.h"

/*
 * From what is known of a connection to its route. The cost does not grow with the number of
 * routes: names are looked up by hash of the whole, of each suffix after a dot and of each prefix
 * before one, and globs by the literal text before their first or after their last star, or by
 * a label without stars, whichever is rarest. Within a name, ports are found by their
 * leading bits, so that memory is linear in the ports and names configured. What is left is tried
 * in order: routes that differ only in clients, address or path; globs that have no such
 * text ("*x*"); and, before the first bytes, routes that are ruled out by their clients.
 *
 * Order: higher priority; exact domain, then wildcard (more literal characters first), then none;
 * longer path pattern (literal characters); listening address, then family, then neither; more
 * criteria (clients, tls.versions, tls.alpn count one each); file order.
 *
 * Patterns of names: "*" stands for any run of characters, dots included: "*.x" matches a.x and
 * a.b.x, not x; "x.*" and "api-*.example.*" accordingly; "*" alone matches every name, but not its
 * absence.
 *
 * Immutable once filled; borrows the rules and what they point to, and one block of memory.
 */
struct sl_match_ports {
	struct sl_addr ip; /* AF_UNSPEC: every local address; 0.0.0.0 or ::, all of the family */
	uint16_t from;
	uint16_t to; /* inclusive */
};

/* What one route asks for. Everything is borrowed. */
struct sl_match_rule {
	bool enabled; /* false: takes no part */
	const struct sl_match_ports *ports;
	size_t n_ports;
	uint32_t priority;
	const char *const *domains;      /* patterns in lower case; any of them */
	size_t n_domains;                /* 0: any name, or none */
	const char *path;                /* pattern; NULL: any path, or none */
	const struct sl_ip_set *clients; /* NULL: any */
	uint32_t tls_versions;           /* SL_TLS_*; any of them must be offered; 0: any */
	const char *const *alpn;         /* any of them must be offered */
	size_t n_alpn;                   /* 0: any */
};

/* What the first bytes have shown. */
enum sl_match_known {
	SL_MATCH_NO_BYTES = 0, /* not looked at yet */
	SL_MATCH_NOT_TLS,      /* no ClientHello */
	SL_MATCH_HELLO,        /* name, alpn and versions are those of the ClientHello */
};

struct sl_match_facts {
	struct sl_addr local; /* an address only where sl_matcher_needs_ip(); the port is `port` */
	uint16_t port;
	struct sl_addr client; /* AF_UNSPEC: in no list */
	enum sl_match_known known;
	struct sl_slice name;  /* normalized (sl_name_normalize); absent: none */
	struct sl_slice alpn;  /* as sl_hello.alpn; absent: none */
	uint32_t tls_versions; /* SL_TLS_* */
	struct sl_slice path;  /* of a request; absent: not known */
};

#define SL_NO_ROUTE UINT32_MAX         /* nothing matches */
#define SL_NEED_BYTES (UINT32_MAX - 1) /* NO_BYTES, and the first bytes could decide otherwise */

struct sl_matcher; /* inside the block */

/* Bytes of the block for these rules; 0 when the numbers do not fit (2^32 entries). */
size_t sl_matcher_size(const struct sl_match_rule *rules, size_t n);
/* `block` has that many bytes, aligned for any type. The result is the block's start. */
struct sl_matcher *sl_matcher_fill(void *block, const struct sl_match_rule *rules, size_t n);

/*
 * The route's index, SL_NO_ROUTE or, only with SL_MATCH_NO_BYTES, SL_NEED_BYTES: some rule that
 * depends on the bytes and may still match precedes the best of those that do not.
 */
uint32_t sl_matcher_find(const struct sl_matcher *m, const struct sl_match_facts *facts);

/* Whether routes of that port differ by the local address. */
bool sl_matcher_needs_ip(const struct sl_matcher *m, uint16_t port);

/* Why a route is not the one; for people, by the same predicates as the search. */
enum sl_match_verdict {
	SL_MATCH_WON = 0,
	SL_MATCH_OUTRANKED, /* it matches, another precedes it */
	SL_MATCH_DISABLED,
	SL_MATCH_PORT,     /* another port */
	SL_MATCH_ADDRESS,  /* another listening address */
	SL_MATCH_NO_HELLO, /* needs a ClientHello, there is none */
	SL_MATCH_NO_NAME,  /* has domains, the client names none */
	SL_MATCH_DOMAIN,
	SL_MATCH_PATH, /* has a path, and the request's differs or is not known */
	SL_MATCH_CLIENT,
	SL_MATCH_TLS_VERSION,
	SL_MATCH_ALPN,
	SL_MATCH_VERDICT_COUNT_,
};
const char *sl_match_verdict_name(enum sl_match_verdict v); /* "outranked", "port", ... */
const char *sl_match_verdict_text(enum sl_match_verdict v); /* one line for people */
/* `winner`: what sl_matcher_find() said for the same facts. */
enum sl_match_verdict sl_matcher_judge(const struct sl_matcher *m,
				       const struct sl_match_facts *facts, uint32_t winner,
				       uint32_t route);

/*
 * Linear time in the length of both, whatever the number of stars, each of which stands for any
 * run of characters, also an empty one. An absent text matches nothing.
 */
bool sl_glob_match(const char *pattern, struct sl_slice text);

/*
 * Paths: literal segments, ":name" for one non-empty segment, "*" for one inside ("/a/" "*" "/b"),
 * or as the last segment for the rest, which may be empty ("/a/" "*" matches "/a/", not "/a").
 * A path without a final star matches whole.
 * Compared as given (percent-encoding is the caller's business), case-sensitive.
 */
#define SL_PATH_MAX_PARAMS 16
#define SL_PATH_PATTERN_MAX 4096
struct sl_path_match {
	/*
	 * The part that literal segments and parameters cover, and what the final star stands
	 * for (absent without one): together the path. "/api/" "*" splits "/api/a/b" into
	 * "/api/" and "a/b".
	 */
	struct sl_slice match;
	struct sl_slice remainder;
	size_t n_params;
	struct {
		struct sl_slice name;
		struct sl_slice value;
	} params[SL_PATH_MAX_PARAMS];
};
/* `ret` may be NULL and is written when it matches. */
bool sl_path_match(const char *pattern, struct sl_slice path, struct sl_path_match *ret);

/* NULL when the pattern is good, else static text saying what is wrong. */
const char *sl_path_pattern_check(const char *pattern);
const char *sl_domain_pattern_check(const char *pattern);

#endif
