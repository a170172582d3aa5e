/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_PROXY_PROXY_H
#define SL_PROXY_PROXY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "broker/wire.h"
#include "conf/conf.h"
#include "core/access_rule.h"
#include "core/choice.h"
#include "core/conn_fsm.h"
#include "core/drift_kind.h"
#include "core/hist.h"
#include "core/matcher.h"
#include "core/reason.h"
#include "core/tls_hello.h"
#include "io/dns.h"
#include "io/loop.h"
#include "proxy/moves.h"

/*
 * The data path as the daemon and the control interface see it: workers that
 * accept and carry connections, and one configuration generation at a time.
 * Everything here is called on the control loop's thread, answers come back on
 * it, and nothing blocks.
 */
struct sl_proxy;
struct sl_sockmap_view;

struct sl_proxy_options {
	struct sl_loop *control; /* borrowed */
	unsigned n_workers;      /* at least 1 */
	uint64_t first_conn_id;  /* ids count up from here; never reused */
	int access_fd;           /* ownership passes, also on failure; -1: no access log */
	struct sl_dns_files dns; /* borrowed during the call */
	/* The first generation waits until a broker has answered, or sl_proxy_no_broker(), at most
	 * 2 s. */
	bool expects_broker;
	const char *no_ktls; /* why TLS cannot be left to the kernel; static; NULL: it can */
};

int sl_proxy_new(const struct sl_proxy_options *options, struct sl_proxy **ret);
/* After sl_proxy_drain() has reported the end; joins the workers. */
void sl_proxy_free(struct sl_proxy *proxy);
SL_DEFINE_CLEANUP(struct sl_proxy, sl_proxy_free);

/* A listening socket the supervisor bound for us; several may have the same range. */
struct sl_proxy_listener {
	uint64_t id;       /* the supervisor's, unchanged across reloads */
	struct sl_addr ip; /* AF_UNSPEC: every address */
	uint16_t from;     /* from < to: connections for any of these ports arrive here */
	uint16_t to;
	int fd; /* non-blocking; ownership passes to the proxy */
};

/*
 * Makes `conf` (ownership passes, also on failure) the current generation. `added` are new
 * listeners, `removed` ids of those to give up after their queues are
 * accepted empty. `done` runs when every worker uses the new generation, names are
 * resolved or 2 s have passed, and removed listeners are closed.
 */
typedef void (*sl_proxy_fn)(void *arg);
int sl_proxy_apply(struct sl_proxy *proxy, struct sl_conf *conf, uint64_t generation,
		   const struct sl_proxy_listener *added, size_t n_added, const uint64_t *removed,
		   size_t n_removed, sl_proxy_fn done, void *arg);

void sl_proxy_set_access_fd(struct sl_proxy *proxy, int fd); /* ownership passes; old one closed */
int sl_proxy_set_dns_files(struct sl_proxy *proxy, const struct sl_dns_files *files);

/*
 * Stops accepting for good: listeners are given up after their queues are
 * accepted empty, also at an upgrade, where a wake-up only this process got
 * would else be lost. Then waits for the connections: the silent ones are
 * closed one by one over the second half of timeouts.drain, the rest when it
 * ends. `done` runs when none is left. `hands_on`: another process goes on with the kernel's flows,
 * which leave this one at once and untouched.
 */
void sl_proxy_drain(struct sl_proxy *proxy, bool hands_on, sl_proxy_fn done, void *arg);
bool sl_proxy_is_draining(const struct sl_proxy *proxy);
/* As when the drain deadline had passed now. */
void sl_proxy_stop_now(struct sl_proxy *proxy);

/*
 * A channel to the broker (ownership passes) for worker `worker`, or, with the number of workers,
 * for the control loop. In place of the one before.
 */
void sl_proxy_connect_broker(struct sl_proxy *proxy, unsigned worker, int fd);

void sl_proxy_no_broker(struct sl_proxy *proxy); /* there will be none for now */

/* Resets every flow in the kernel and removes what is left of them; -EAGAIN: no broker, or one is
 * under way. */
SL_MUST_CHECK int sl_proxy_flush(struct sl_proxy *proxy, sl_proxy_fn done, void *arg);

/*
 * Has the broker look at everything and heal what differs; `fn` runs once, perhaps at once, with
 * the lines of broker/diff.h, or NULL: there is no broker (any more), or it
 * does not answer. -ENOMEM: not asked.
 */
typedef void (*sl_diff_fn)(void *arg, const char *lines);
SL_MUST_CHECK int sl_proxy_diff(struct sl_proxy *proxy, sl_diff_fn fn, void *arg);

struct sl_materials;
struct sl_tls_tickets;
/*
 * The files of certificates and keys, in force for handshakes that begin from now on; taken over,
 * also on failure. Before sl_proxy_apply() of a generation whose routes need others, and at any
 * time when files have changed. What cannot be used leaves the route's last good ones in force and
 * is logged.
 */
SL_MUST_CHECK int sl_proxy_set_materials(struct sl_proxy *proxy, struct sl_materials *m);
/* The keys of session tickets from now on; takes a reference. */
void sl_proxy_set_tickets(struct sl_proxy *proxy, struct sl_tls_tickets *tickets);

/* ---- views ---- */

/* A certificate in use; the texts are valid during the call. */
struct sl_cert_view {
	const char *route;
	bool is_backend;     /* shown to targets, not to clients */
	const char *problem; /* why newer files of the route are not in use; "": they are */
	const char *label;   /* its file */
	const char *subject;
	const char *issuer;
	const char *const *names;
	size_t n_names;
	int64_t not_before_s; /* seconds since 1970 */
	int64_t not_after_s;
	int64_t staple_until_s; /* 0: none */
	const char *key;        /* "ec-256" */
	const char *fingerprint;
	size_t n_chain;
	bool is_default;
};
/* Those of the current generation, by route in file order. Also routes with a problem and no
 * certificate (label ""). */
typedef void (*sl_cert_fn)(void *arg, const struct sl_cert_view *cert);
void sl_proxy_each_cert(struct sl_proxy *proxy, sl_cert_fn fn, void *arg);

/* Handshakes that are over, as they are counted. */
enum sl_tls_count_version {
	SL_TLS_COUNT_NONE = 0, /* it failed before one was agreed */
	SL_TLS_COUNT_1_2,
	SL_TLS_COUNT_1_3,
	SL_TLS_COUNT_VERSIONS_,
};
/* "", "TLSv1.2", "TLSv1.3" */
const char *sl_tls_count_version_name(enum sl_tls_count_version version);
enum sl_tls_count_result {
	SL_TLS_COUNT_OK = 0,
	SL_TLS_COUNT_FAILED,  /* tls_error, or the peer has gone */
	SL_TLS_COUNT_TIMEOUT, /* handshake_timeout */
	SL_TLS_COUNT_RESULTS_,
};
const char *
sl_tls_count_result_name(enum sl_tls_count_result result); /* "ok", "failed", "timeout" */
struct sl_tls_totals {
	/* by side, version, resumed, result */
	uint64_t handshakes[SL_SIDE_COUNT_][SL_TLS_COUNT_VERSIONS_][2][SL_TLS_COUNT_RESULTS_];
	uint64_t handshaking; /* now */
	uint64_t waiting;     /* now: for their turn to begin */
};

/* Broker and records count different numbers of connections, and go on to. */
struct sl_disagreement {
	enum sl_engine_id engine;
	uint64_t records;
	uint64_t known; /* to the broker */
};

/* The kernel's side of the engines, as the broker and the programs tell it. */
struct sl_kernel_view {
	bool has_broker;
	struct sl_broker_status status;  /* the last one; zeros before the first */
	bool is_linked;                  /* there is a channel */
	struct sl_broker_nat_status nat; /* the last one of this channel; zeros before the first */
	bool nat_stays; /* not told, but the broker that has died had rules in the kernel */
	const char *nat_worries;                 /* lines, borrowed; NULL: none */
	enum sl_engine_reason off;               /* SL_WHY_ELIGIBLE: hand-overs are possible */
	struct sl_broker_sockmap_status sockmap; /* the last one of this channel */
	bool has_sockmap;                        /* there was one */
	uint64_t sockmap_backlog; /* bytes that wait in the kernel at most; 0: not known */
	struct sl_sockmap_view *sockmap_maps; /* borrowed; NULL: there are none */
	/* read-only descriptors of the maps, borrowed; -1: there are none */
	int flows_fd;
	int counters_fd;
	int routes_fd;
	/* since the start of this process, over all brokers, by enum sl_drift_kind */
	uint64_t drift[SL_DRIFT_COUNT_];
	struct sl_disagreement disagreement[SL_ENGINE_COUNT_]; /* now */
	size_t n_disagreements;
};
void sl_proxy_kernel(const struct sl_proxy *proxy, struct sl_kernel_view *ret);

/* What `move` of a filter has come to; the move itself takes a moment more. */
enum sl_move_result {
	SL_MOVE_NOT_ASKED = 0,
	SL_MOVE_BEGUN,
	SL_MOVE_IS_THERE,   /* that engine has it */
	SL_MOVE_NO_WAY_OUT, /* the kernel has it without sockets, and cannot give it back */
	SL_MOVE_NOT_OPEN,   /* it is not established, or one side has closed */
	SL_MOVE_NOT_ITS,    /* its route, or its sides, do not allow that engine */
};

/* What was agreed with one side; all "" where that side speaks no TLS, or not yet. */
struct sl_tls_row {
	char version[8]; /* "TLSv1.3" */
	char cipher[40]; /* the library's name */
	char alpn[64];   /* agreed; cut when longer */
	char peer[128];  /* subject of its certificate */
	bool is_resumed;
	bool is_verified;     /* its certificate is good */
	char ktls[8];         /* "tx+rx": the kernel encrypts and decrypts; "off" */
	const char *ktls_why; /* why it never will; static text; NULL: it does, or may yet */
};

struct sl_conn_row {
	uint64_t id;
	char route[64]; /* "" before routing; cut when longer */
	enum sl_conn_state state;
	enum sl_engine_id engine;
	enum sl_engine_reason engine_reason;
	struct sl_addr client;
	struct sl_addr client_via; /* AF_UNSPEC: the client connected itself */
	struct sl_addr backend;    /* AF_UNSPEC: none chosen yet */
	uint64_t age_ms;
	uint64_t idle_ms;
	uint64_t bytes_up; /* from the client, delivered to the backend's socket */
	uint64_t bytes_down;
	uint64_t connect_us;       /* 0: not connected yet */
	char sni[SL_NAME_MAX + 1]; /* "": none seen */
	char alpn[64];             /* first protocol offered; cut when longer; "": none */
	uint32_t tls_versions;     /* offered: SL_TLS_*; 0: no ClientHello seen */
	struct sl_tls_row tls[SL_SIDE_COUNT_]; /* of TLS that ends or begins here */
	struct sl_moves moves;
	uint64_t now_us; /* as moves have it */
	enum sl_move_result move;
};

struct sl_conn_filter {
	uint64_t id;                        /* 0: any */
	const char *route;                  /* NULL: any; copied */
	const char *target;                 /* as written in the configuration; NULL: any; copied */
	const struct sl_ip_pattern *client; /* NULL: any; copied */
	bool is_joined;                     /* its sockets are in the maps of the sockmap engine */
	size_t max_rows;                    /* 0: no limit */
	bool kill;                          /* close what matches (reason killed, RST to both) */
	bool move;                          /* move what matches to the engine `to` */
	enum sl_engine_id to;
};

struct sl_conn_survey {
	const struct sl_conn_row *rows; /* valid during the call only; sorted by id */
	size_t n_rows;
	size_t n_matching;  /* may exceed n_rows */
	struct sl_hist age; /* of all open connections */
};
typedef void (*sl_survey_fn)(void *arg, const struct sl_conn_survey *survey);

/*
 * Asks every worker; they answer in slices between their other work. `fn` runs exactly
 * once, later, on the control loop. -ENOMEM: not asked.
 */
int sl_proxy_survey(struct sl_proxy *proxy, const struct sl_conn_filter *filter, sl_survey_fn fn,
		    void *arg);

struct sl_proxy_totals {
	uint64_t active;
	uint64_t accepted; /* every accepted connection, also those refused afterwards */
	uint64_t rejected;
	uint64_t engine_active[SL_ENGINE_COUNT_];
	uint64_t engine_total[SL_ENGINE_COUNT_];
	uint64_t engine_why[SL_ENGINE_COUNT_][SL_WHY_COUNT_]; /* choices and their reasons */
	/* from, to, and the reason of the latter */
	uint64_t engine_moves[SL_ENGINE_COUNT_][SL_ENGINE_COUNT_][SL_WHY_COUNT_];
	uint64_t ended[SL_SIDE_COUNT_][SL_REASON_COUNT_];
	uint64_t no_route_rejected[SL_REASON_COUNT_]; /* refused before a route was known */
	uint64_t no_route_ended[SL_REASON_COUNT_];    /* ended then, also those refused */
	/* the broker's answers; ELIGIBLE: done */
	uint64_t handover[SL_ENGINE_COUNT_][SL_WHY_COUNT_];
	struct sl_hist handover_time; /* from asking to the answer */
	uint64_t accept_errors;       /* EMFILE, ENFILE, ENOMEM, ENOBUFS */
	uint64_t fsm_bugs;            /* impossible events; anything but 0 is a defect */
	uint64_t access_dropped;      /* bytes of the access log nobody took in time */
	bool overloaded;              /* the circuit breaker is open */
	struct sl_hist connect;
	struct sl_hist duration;
	struct sl_hist in_state[SL_CONN_STATE_COUNT_];
	struct sl_dns_stats dns;
	struct sl_tls_totals tls;
};
void sl_proxy_totals(const struct sl_proxy *proxy, struct sl_proxy_totals *ret);

enum sl_target_state {
	SL_TARGET_UP = 0,
	SL_TARGET_UNRESOLVED, /* a name that has never been resolved */
	SL_TARGET_DOWN,       /* by health checks */
	SL_TARGET_DRAINED,    /* by an operator: no new connections */
	SL_TARGET_FAILING,    /* connects fail: left out for a while where others are left */
};
const char *sl_target_state_name(enum sl_target_state state);

struct sl_target_view {
	const char *address; /* as written in the configuration */
	enum sl_target_state state;
	uint64_t active;
	uint64_t total;
	uint64_t failed; /* connect attempts that failed */
	uint64_t checks_ok;
	uint64_t checks_failed;
	char check_error[96]; /* of the last check; "": it was good, or there was none */
	uint32_t weight;
	bool is_backup;
	struct sl_addr addrs[SL_DNS_MAX_ADDRS]; /* what the name stands for now; port set */
	size_t n_addrs;
};

struct sl_route_view {
	const struct sl_conf_route *conf;
	uint64_t active;
	uint64_t total;
	uint64_t bytes_up;
	uint64_t bytes_down;
	uint64_t engine_active[SL_ENGINE_COUNT_];
	uint64_t engine_total[SL_ENGINE_COUNT_];
	uint64_t engine_bytes_up[SL_ENGINE_COUNT_];
	uint64_t engine_bytes_down[SL_ENGINE_COUNT_];
	uint64_t rejected[SL_REASON_COUNT_];
	uint64_t ended[SL_ENGINE_COUNT_][SL_SIDE_COUNT_][SL_REASON_COUNT_];
	struct sl_target_view *targets; /* in file order */
	size_t n_targets;
};
/* Every route of the current generation in file order; the view is valid during the call. */
typedef void (*sl_route_fn)(void *arg, const struct sl_route_view *route);
void sl_proxy_each_route(struct sl_proxy *proxy, sl_route_fn fn, void *arg);

/* The current configuration; valid until the next sl_proxy_apply(). NULL before the first. */
const struct sl_conf *sl_proxy_conf(const struct sl_proxy *proxy);
uint64_t sl_proxy_generation(const struct sl_proxy *proxy);

/*
 * The deny_file's addresses, read by the supervisor; ownership of the set's arrays passes, also on
 * failure. They are in force when `done` runs; until the first call nothing is denied by file.
 */
SL_MUST_CHECK int sl_proxy_set_deny_file(struct sl_proxy *proxy, struct sl_ip_set *set,
					 sl_proxy_fn done, void *arg);

/* What would happen to a connection; the answer is found by the code that real ones go through. */
struct sl_question {
	struct sl_addr local; /* AF_UNSPEC: any */
	uint16_t port;
	bool is_udp;           /* what only the kernel's NAT can forward */
	struct sl_addr client; /* AF_UNSPEC: in no list */
	const char *name;      /* SNI, as typed; NULL: none, and not TLS */
	const char *path;      /* NULL: none */
	uint32_t tls_versions; /* SL_TLS_*; 0 with a name: 1.2 and 1.3 */
	const char *alpn;      /* comma-separated; NULL: none */
};

struct sl_explained_route {
	const struct sl_conf_route *conf;
	enum sl_match_verdict verdict;
};

struct sl_explanation {
	const struct sl_conf_route *route; /* NULL: refused, see `verdict` */
	enum sl_reason verdict;            /* SL_REASON_NONE: accepted */
	enum sl_access_rule access;
	const char *name_error;   /* the name is not one; static text; NULL: it is */
	enum sl_engine_id engine; /* that ends up with it, if its sockets allow */
	enum sl_engine_reason engine_reason;
	struct sl_choice choice; /* all that it may have, the best one first */
	const char *target;      /* as written; NULL: none is usable */
	const char *target_why;  /* static text: how it was chosen */
	const char *
		*usable; /* where the kernel chooses: among these, as written; NULL: it does not */
	size_t n_usable;
	const char *hint;    /* static text: what else to ask; NULL: nothing */
	bool is_listening;   /* a listener for that port is open, or the kernel has the rules */
	bool needs_hello;    /* the decision waits for a ClientHello */
	bool wants_proxy;    /* the port has accept_proxy */
	bool mixes_families; /* of client and target one is IPv4, the other IPv6 */
	/* routes that listen on the port, the winner first, then in order of precedence;
	 * sl_explanation_done() frees it */
	struct sl_explained_route *candidates;
	size_t n_candidates;
};
/* -EAGAIN before the first configuration. */
SL_MUST_CHECK int sl_proxy_explain(struct sl_proxy *proxy, const struct sl_question *question,
				   struct sl_explanation *ret);
void sl_explanation_done(struct sl_explanation *x);

#endif
