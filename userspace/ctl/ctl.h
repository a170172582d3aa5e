/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CTL_CTL_H
#define SL_CTL_CTL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "io/loop.h"
#include "proxy/proxy.h"

/*
 * The control interface: HTTP/1.1 with JSON on a Unix socket for the command line,
 * and /metrics, /healthz, /readyz on a TCP port for monitoring. Runs on
 * the control loop of the unprivileged process; whatever needs the supervisor
 * goes through `request`.
 */
struct sl_ctl;

enum sl_ctl_request {
	SL_CTL_RELOAD = 0,
	SL_CTL_UPGRADE,
	SL_CTL_RELOAD_DENY_FILE, /* global.security.deny_file alone */
	SL_CTL_CHANGE,           /* one change at run time: see struct sl_ctl_change */
	/* the files of certificates and keys are read again, now; a line per route that has other
	 * ones, or whose files cannot be used: FAILED */
	SL_CTL_CERT_RELOAD,
	SL_CTL_REQUEST_COUNT_,
};

/* A change of the configuration at run time; everything is borrowed during the call. */
struct sl_ctl_change {
	enum sl_source_kind kind; /* FILE: back to the files, earlier changes are forgotten */
	bool undo;                /* DRAIN only: undrain. */
	bool keep;                /* over restarts of the supervisor */
	const char *subject;      /* the route; DRAIN and FILE: "" for every route */
	struct sl_slice text;     /* ROUTE: the route; DRAIN: the target's address */
};

enum sl_ctl_result {
	SL_CTL_FAILED = 0,
	SL_CTL_DONE,
	SL_CTL_CREATED,   /* CHANGE: a route that was not there */
	SL_CTL_REFUSED,   /* CHANGE: by the configuration; the text is its diagnostics */
	SL_CTL_NOT_FOUND, /* CHANGE: no such route or target, or nothing to undo */
	SL_CTL_BUSY,      /* too much is waiting */
};

/*
 * `text`: what to print; valid during the call. A configuration that is refused at a reload
 * (FAILED) is told from other failures by its diagnostics, which hold ": error: " as conf/conf.h
 * says.
 */
typedef void (*sl_ctl_reply_fn)(void *arg, enum sl_ctl_result result, const char *text);

/* Connection attempts the kernel has looked at, by family of the address. */
struct sl_ctl_guarded {
	uint64_t passed4; /* not denied */
	uint64_t passed6;
	uint64_t dropped4; /* denied: dropped before accept */
	uint64_t dropped6;
};

/* What the daemon knows and the control interface shows; owned by the daemon, read on the loop. */
struct sl_ctl_facts {
	pid_t pid;           /* the supervisor's: the one to send signals to */
	pid_t broker_pid;    /* 0: there is none, or it is a thread */
	uint64_t started_ms; /* of the supervisor, monotonic */
	const char *config_path;
	bool last_reload_ok;
	double last_reload_unix; /* seconds; 0: never reloaded */
	bool ready;              /* first generation applied */
	bool sandboxed;          /* system call filter on */
	bool privileged_uid;     /* runs as uid 0 (no account to change to) */
	const char *steering;    /* port ranges: "sk_lookup", or why not */
	const char *guard;       /* denied sources: "tcx on 3 interfaces, 9 ranges"; "none"; or
				    "userspace: " and why */
	const char *no_broker;   /* why there is no broker: "off: not started as root"; "": there is
				    one, which says itself what it can do */
	const char *no_ktls;     /* why the kernel cannot encrypt: "the kernel has no TLS"; NULL: it
				    can */
	uint32_t deny_patterns;  /* of global.security.deny_file, as written */
	uint32_t guard_ranges;   /* 0 where the kernel does not enforce */
	uint32_t guard_interfaces;
	/* what the kernel has done so far with SYNs for our ports; NULL: it does nothing */
	void (*read_guarded)(const void *arg, struct sl_ctl_guarded *ret);
	const void *read_guarded_arg;
	/* the changes made at run time that are in force, in their order; NULL: none */
	const struct sl_conf_sources *changes;
};

struct sl_ctl_options {
	struct sl_loop *loop;   /* borrowed */
	struct sl_proxy *proxy; /* borrowed */
	int control_fd;         /* listening Unix socket, non-blocking; ownership passes */
	int http_fd;            /* listening TCP socket or -1; ownership passes */
	const struct sl_ctl_facts *facts; /* borrowed */
	/* Asks the supervisor; `reply` runs once, later, on the loop. `change`: NULL except for
	 * SL_CTL_CHANGE. */
	void (*request)(void *arg, enum sl_ctl_request what, const struct sl_ctl_change *change,
			sl_ctl_reply_fn reply, void *reply_arg);
	void *request_arg;
};

/* Both sockets become sl_ctl's, also on failure. */
int sl_ctl_new(const struct sl_ctl_options *options, struct sl_ctl **ret);
void sl_ctl_free(struct sl_ctl *ctl); /* closes every client */
/* A reload changed global.http: the new listening socket, or -1 for none; ownership passes. */
void sl_ctl_set_http_fd(struct sl_ctl *ctl, int fd);
/*
 * For an upgrade: gives up the listening sockets, so that only the next generation
 * accepts clients; those that are connected are answered.
 */
void sl_ctl_stop_accepting(struct sl_ctl *ctl);

#endif
