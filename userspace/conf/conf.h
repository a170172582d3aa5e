/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CONF_CONF_H
#define SL_CONF_CONF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/log.h"
#include "base/str.h"
#include "core/access_rule.h"
#include "core/balance.h"
#include "core/deadline.h"
#include "core/health.h"
#include "core/ip_set.h"
#include "core/matcher.h"
#include "core/proxy_header.h"

/*
 * The configuration as plain, immutable data: built completely from the text
 * of all files or not at all, then shared by reference (see proxy/generation.h).
 * Everything hangs from struct sl_conf and is freed with it.
 */

/* Where a thing stands in the sources; 1-based, columns count characters. */
struct sl_mark {
	uint32_t source; /* index into sl_conf_sources.item */
	uint32_t line;
	uint32_t column;
};

/*
 * Where a piece of configuration comes from. Beside files there are changes made at run time,
 * which take effect on top of the files, in the order given: each replaces, adds,
 * removes, enables or disables one route, or drains one target.
 */
enum sl_source_kind {
	SL_SOURCE_FILE = 0,
	SL_SOURCE_ROUTE,   /* text: the route `subject`, a mapping as in a list of routes; its
			      `name` may be left out, and must else be the subject. Takes the place
			      of a route of that name, or comes last */
	SL_SOURCE_REMOVE,  /* the route `subject` is gone */
	SL_SOURCE_ENABLE,  /* as if it said `enabled: true` */
	SL_SOURCE_DISABLE, /* as if it said `enabled: false` */
	SL_SOURCE_DRAIN,   /* text: an address, as written, of a target of `subject` ("" as
			      subject: of every route): no new connections */
	SL_SOURCE_KIND_COUNT_,
};

/* One text, as read once by the only process that may read it. */
struct sl_conf_source {
	char *name; /* as shown in messages: a path, or "runtime:NAME" */
	char *text; /* NUL-terminated; may hold NUL bytes that the reader reports */
	size_t len;
	enum sl_source_kind kind;
	char *subject; /* name of a route; NULL for files */
	bool keep;     /* written to state_dir, so that it outlives the supervisor */
};

struct sl_conf_sources {
	/* the main file, conf.d/ files in name order, then what was changed at run time */
	struct sl_conf_source *item;
	size_t n;
};
void sl_conf_sources_done(struct sl_conf_sources *s);

/*
 * Messages for the operator, collected, sorted by place and printed in one pass:
 *   FILE:LINE:COLUMN: error: routes[0].match.ports: '70000' is not ...
 *       5 |       ports: [80, 443, 70000]
 *         |                        ^
 */
struct sl_diags {
	struct sl_str text; /* what has been reported, ready to print */
	size_t n_errors;
	size_t n_warnings;
};
void sl_diags_done(struct sl_diags *d);

/*
 * Reads FILE and, beside it, conf.d/ files ending in .yaml in name order (a directory that is
 * not there is not an error). On failure reports to `diags` and returns
 * -errno. Limits: 16 MiB a file, 1024 files.
 */
SL_MUST_CHECK int sl_conf_sources_load(const char *path, struct sl_conf_sources *ret,
				       struct sl_diags *diags);

#define SL_TARGETS_MAX 4096

enum sl_engine_choice {
	SL_CHOICE_AUTO = 0,
	SL_CHOICE_RELAY,
	SL_CHOICE_PACKET,
	SL_CHOICE_SOCKMAP,
	SL_CHOICE_NFTABLES,
};

/* "443", "8000-8100", "10.0.0.1:443", "[::1]:8000-8100". */
struct sl_port_spec {
	/* AF_UNSPEC: every local address; 0.0.0.0 or ::, if written: every one of that family */
	struct sl_addr ip;
	uint16_t from;
	uint16_t to; /* inclusive */
	struct sl_mark mark;
};

struct sl_conf_target {
	char *address; /* as written; identifies the target in output and across reloads */
	char *host;    /* a name to resolve; NULL when `addr` is literal */
	struct sl_addr addr;
	uint16_t port;   /* 0: the port the client connected to (forward.port: preserve) */
	uint32_t weight; /* 0 to 1000; 0: no new connections */
	bool backup;     /* used when no other target is left */
	bool drained;    /* by an operator at run time: no new connections */
	struct sl_mark mark;
};

struct sl_conf_send_proxy {
	enum sl_ph_choice version;
	bool crc32c; /* TLVs of version 2 */
	bool alpn;
	bool authority;
	bool unique_id;
	bool ssl; /* what is known of the client's TLS */
};

/* "N/s" or "N/m" as the key table stores it; both 0: no limit. */
struct sl_conf_rate {
	uint64_t per_minute;
	uint64_t burst; /* N: so many may come at once before the rate applies */
};

/* What a client of the kernel's NAT meets that is not let in. */
enum sl_refuse_choice {
	SL_REFUSE_CHOICE_RESET = 0,
	SL_REFUSE_CHOICE_ICMP,
	SL_REFUSE_CHOICE_DROP,
};

/* One certificate of a route, by its files; nothing here is read when a configuration is built. */
struct sl_conf_cert {
	char *chain;  /* PEM: the certificate, then those of its issuers */
	char *key;    /* PEM; NULL: in `chain`, too */
	char *staple; /* an OCSP response, DER; NULL: none */
	struct sl_mark mark;
};

enum sl_client_auth_choice {
	SL_CLIENT_AUTH_CHOICE_NONE = 0,
	SL_CLIENT_AUTH_CHOICE_OPTIONAL, /* one that is shown must be good */
	SL_CLIENT_AUTH_CHOICE_REQUIRED,
};

/* TLS with the clients of a route ends here. */
struct sl_conf_tls {
	struct sl_conf_cert *certs; /* the first one is the default */
	size_t n_certs;             /* at least 1 */
	char *client_ca;            /* PEM; NULL: clients are not asked */
	enum sl_client_auth_choice client_auth;
	bool only_1_3; /* min_version */
	char **alpn;
	size_t n_alpn;
	char *ciphers; /* of TLS 1.2, in the library's words; NULL: the defaults */
	char *suites;  /* of TLS 1.3, likewise */
	struct sl_mark mark;
};

enum sl_verify_choice {
	SL_VERIFY_CHOICE_SYSTEM = 0,
	SL_VERIFY_CHOICE_FILE,
	SL_VERIFY_CHOICE_NONE,
};

/* Connections to the targets of a route are encrypted. */
struct sl_conf_backend_tls {
	enum sl_verify_choice verify;
	char *ca;          /* PEM, with FILE */
	char *server_name; /* asked for and verified; NULL: the host of the target's address */
	char *cert;        /* shown when asked for; NULL: none */
	char *key;         /* NULL: in `cert`, too */
	struct sl_mark mark;
};

struct sl_conf_route {
	char *name;
	bool enabled;
	struct sl_port_spec *ports;
	size_t n_ports;
	bool is_udp; /* with SL_CHOICE_NFTABLES only, as is preserve_source */
	uint32_t priority;
	char **domains; /* patterns, lower case, owned */
	size_t n_domains;
	char *path; /* pattern; NULL: any */
	struct sl_ip_set clients;
	bool has_clients;
	uint32_t tls_versions; /* SL_TLS_*; 0: any */
	char **alpn;
	size_t n_alpn;
	struct sl_access_lists access; /* built and owned */
	enum sl_balance balance;
	struct sl_health_conf health;
	struct sl_conf_send_proxy send_proxy;
	enum sl_engine_choice engine;
	bool preserve_source;
	struct sl_conf_target *targets;
	size_t n_targets;                /* at least 1, at most SL_TARGETS_MAX */
	unsigned retries;                /* further connect attempts after the first */
	uint64_t max_connections;        /* 0: no limit */
	uint64_t max_connections_per_ip; /* 0: no limit */
	uint64_t new_per_ip_per_minute;  /* 0: no limit */
	/* how many may come at once before the rate applies: N of "N/s" or "N/m" */
	uint64_t new_per_ip_burst;
	/* these three with SL_CHOICE_NFTABLES only, else as if nothing was written */
	struct sl_conf_rate new_connections; /* of the whole route */
	struct sl_conf_rate packets; /* of its clients, not counting the first of each flow */
	enum sl_refuse_choice refuse;
	enum sl_keep_alive keep_alive;
	bool half_open;
	struct sl_timeouts timeouts;
	struct sl_conf_tls *tls;                 /* owned; NULL: passthrough */
	struct sl_conf_backend_tls *backend_tls; /* owned; NULL: as the client's bytes are */
	struct sl_mark mark;
};

/*
 * What must be listening for the enabled routes that the daemon accepts for: sorted, without
 * overlaps. A port that any route wants on every address appears once, with AF_UNSPEC; routes of
 * that port with an address of their own are told apart by the address the client connected to.
 */
struct sl_listen_spec {
	struct sl_addr ip; /* AF_UNSPEC: every local address, IPv4 and IPv6 */
	uint16_t from;
	uint16_t to;
	int backlog;
	struct sl_mark mark; /* of the first route that wants it, for errors of bind() */
};

/* Ports where connections begin with a PROXY header; a port is in at most one of these. */
struct sl_conf_accept_proxy {
	struct sl_port_spec ports;
	struct sl_ip_set from; /* owned: each entry has its own copy */
	bool required;
};

enum sl_hook_choice {
	SL_HOOK_CHOICE_AUTO = 0,
	SL_HOOK_CHOICE_TC,
	SL_HOOK_CHOICE_XDP,
	SL_HOOK_CHOICE_OFF, /* every connection stays with the daemon */
};

#define SL_INTERFACE_NAME 16 /* IFNAMSIZ: with the NUL */
#define SL_BPF_DIR 256       /* likewise */
/* Fewer ports than this would be used up by the connections just over. */
#define SL_PACKET_PORTS_MIN 64

struct sl_conf_packet {
	enum sl_hook_choice hook;
	char **interfaces;   /* names; owned */
	size_t n_interfaces; /* 0: every one */
	uint16_t port_from; /* of our connections to targets, SL_PACKET_PORTS_MIN or more of them */
	uint16_t port_to;
	uint32_t max_flows;
	/* handed over after so many bytes, or so much time; 0 of either: at once */
	uint64_t after_bytes;
	uint64_t after_age_ms;
};

struct sl_conf_sockmap {
	uint64_t backlog; /* bytes that may wait in the kernel for a slow receiver; fits 32 bits */
	/* as of sl_conf_packet */
	uint64_t after_bytes;
	uint64_t after_age_ms;
};

/* Room for the marks of far more routes than can be had. */
#define SL_MARK_BASE_MAX UINT64_C(0xfff00000)

struct sl_conf_nftables {
	bool keep_on_exit;
	uint32_t mark_base;  /* marks of routes are greater */
	char **flow_offload; /* names of interfaces; owned */
	size_t n_flow_offload;
};

struct sl_conf_global {
	unsigned workers; /* 0: one per online CPU */
	char *user;       /* NULL: auto */
	uint64_t max_connections;
	unsigned refuse_above_percent; /* overload breaker; 100: never opens before the limit */
	unsigned resume_below_percent;
	char *runtime_dir;
	char *state_dir;
	char *bpf_dir;
	char *nft_table;
	bool http_enabled;
	bool http_is_explicit; /* false: the default address, whose absence is no error */
	struct sl_addr http;
	enum sl_log_level log_level;
	bool log_json;
	char *access_log;              /* NULL: none; "stderr"; else an absolute path */
	struct sl_access_lists access; /* built and owned */
	char *deny_file;               /* NULL: none */
	bool enforce_in_kernel;        /* where possible; same result without */
	struct sl_conf_packet packet;
	struct sl_conf_sockmap sockmap;
	struct sl_conf_nftables nftables;
};

/*
 * The packet engine may carry its connections, as far as that is configured. `send_proxy` is no
 * obstacle: the header has gone before the hand-over.
 */
static inline bool sl_conf_may_packet(const struct sl_conf_global *g, const struct sl_conf_route *r)
{
	return g->packet.hook != SL_HOOK_CHOICE_OFF && !r->tls && !r->backend_tls &&
	       (r->engine == SL_CHOICE_AUTO || r->engine == SL_CHOICE_PACKET);
}

/* Chosen by name alone. */
static inline bool sl_conf_may_sockmap(const struct sl_conf_route *r)
{
	return r->engine == SL_CHOICE_SOCKMAP && !r->tls && !r->backend_tls;
}

struct sl_conf {
	struct sl_conf_global global;
	struct sl_conf_route *routes; /* in file order */
	size_t n_routes;
	struct sl_listen_spec *listens;
	size_t n_listens;
	struct sl_conf_accept_proxy *accept_proxies;
	size_t n_accept_proxies;
	struct sl_timeouts timeouts; /* of defaults: before a route is known */
	/* of defaults: routes without lists of their own share this memory */
	struct sl_access_lists default_access;
};

/*
 * Parses and checks everything, reports all errors and warnings in one pass.
 * Returns 0 with an owned configuration when there is no error, else -EINVAL
 * (or -ENOMEM) with `*ret` untouched. Touches no file, socket or clock, so any process
 * may run it on the same sources and gets the same answer.
 */
SL_MUST_CHECK int sl_conf_build(const struct sl_conf_sources *sources, struct sl_conf **ret,
				struct sl_diags *diags);
/*
 * The runtime directory that sources name, whatever else is wrong with them: a daemon may run on an
 * older version of them. -EINVAL when it cannot be told; sl_conf_build() reports why.
 */
SL_MUST_CHECK int sl_conf_runtime_dir(const struct sl_conf_sources *sources, struct sl_str *ret);
void sl_conf_free(struct sl_conf *conf);
SL_DEFINE_CLEANUP(struct sl_conf, sl_conf_free);

/* The JSON Schema (2020-12) and the reference text of the same key table. */
void sl_conf_schema(struct sl_str *out);
void sl_conf_reference(struct sl_str *out); /* scdoc-like text: key, type, default, meaning */

#endif
