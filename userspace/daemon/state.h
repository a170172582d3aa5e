/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_DAEMON_STATE_H
#define SL_DAEMON_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/list.h"
#include "base/str.h"
#include "broker/nat_plan.h"
#include "conf/conf.h"
#include "ctl/ctl.h"
#include "daemon/backoff.h"
#include "daemon/bundle.h"
#include "daemon/cert_store.h"
#include "daemon/child.h"
#include "daemon/deny.h"
#include "daemon/file_watch.h"
#include "daemon/guard.h"
#include "daemon/listeners.h"
#include "daemon/overlay.h"
#include "daemon/privs.h"
#include "daemon/runtime.h"
#include "daemon/supervisor.h"
#include "io/loop.h"

/*
 * The supervisor's state, shared by the files that are its parts: supervisor.c (start,
 * signals, children, stop), reload.c, upgrade.c, resume.c. One thread, one loop.
 */

/* What is in force: everything a new proxy process is given. */
struct sl_setup {
	struct sl_conf *conf;
	int bundle_fd; /* the sources of `conf` */
	struct sl_listeners listeners;
	int http_fd; /* -1: off */
	uint64_t generation;
	struct sl_cert_store *certs; /* NULL: no route has TLS */
};
void sl_setup_done(struct sl_setup *setup);

/* Who waits for the answer to a request. */
struct sl_waiter {
	uint64_t child; /* serial; 0: a signal, answered by the log alone */
	uint64_t request;
};

struct sl_waiters {
	struct sl_waiter item[64];
	size_t n;
};

/* A change asked for at run time, in the order in which they came. */
struct sl_pending {
	struct sl_list node;
	struct sl_waiter waiter;
	struct sl_overlay_change change;
	bool is_new;               /* adds a route; once it is under way */
	enum sl_ctl_result result; /* why it failed, as far as known */
};
#define SL_PENDING_MAX 256

/* Reloads, changes and upgrades happen one at a time; what comes meanwhile waits. */
enum sl_job {
	SL_JOB_NONE = 0,
	SL_JOB_PREPARE, /* reload, change: the proxy looks at it */
	SL_JOB_COMMIT,  /* reload, change: the proxy changes over */
	SL_JOB_NAT,     /* all three: then the kernel's NAT does, if it has not yet */
	SL_JOB_DENY,    /* deny_file alone: the proxy takes it */
	SL_JOB_UPGRADE, /* a proxy of the installed program gets ready */
	SL_JOB_EXEC,    /* the last messages leave, then this program is replaced */
};

/* The broker as the supervisor sees it. */
struct sl_brokering {
	struct sl_child_events events;
	struct sl_child
		*child;   /* NULL: none runs; one that was replaced is in it until it has ended */
	bool is_replaced; /* it was told to end, and the next one starts then */
	bool is_off;      /* it runs, but cannot hand over */
	bool was_started; /* the kernel may hold objects of ours */
	const char *exe;  /* program of the next one; borrowed; NULL: this one */
	struct sl_backoff backoff;
	struct sl_timer restart;
	char why_not[160]; /* there is none; "": there is */
	/* what the kernel's NAT is to do, as last sent, or as it would have been */
	uint64_t nat_id;
	bool has_nat_routes;
	bool is_nat_told; /* the broker has said of it whether */
	bool is_nat_on;   /* it is in force */
	char nat_text[240];
	char nat_table[SL_NAT_TABLE]; /* which is its table, */
	char old_table[SL_NAT_TABLE]; /* and was, until a reload; empty once it is gone for sure */
};

enum sl_stopping {
	SL_NOT_STOPPING = 0,
	SL_STOP_DRAIN,
	SL_STOP_NOW,
};

struct sl_supervisor {
	const struct sl_daemon_options *options;
	struct sl_loop *loop;
	char *exe; /* path of the installed program */
	uint64_t started_ms;
	struct sl_runtime runtime;
	struct sl_identity identity;
	struct sl_setup now;
	struct sl_steering steering;
	struct sl_deny_list *deny; /* deny_file as in force; NULL: there was none yet */
	struct sl_guarding *guarding;
	struct sl_file_watch *cert_watch;
	int tickets_fd; /* daemon/ticket_keys.h; -1: no route needs them */
	struct sl_timer tickets_turn;
	int control_fd;
	int access_fd; /* -1: none */

	int signal_fd;
	struct sl_io signal_io;

	struct sl_child_events events;
	struct sl_list children;
	struct sl_child *current;   /* gets new connections; NULL between death and restart */
	struct sl_child *candidate; /* of an upgrade */
	uint64_t last_serial;
	uint64_t next_listener_id;
	uint64_t last_conn_id; /* where the last proxy's connection ids began */

	struct sl_backoff backoff;
	struct sl_timer restart;
	struct sl_brokering brokering;

	enum sl_job job;
	enum sl_ctl_request job_what; /* RELOAD, CHANGE or RELOAD_DENY_FILE, of PREPARE to DENY */
	struct sl_timer job_deadline;
	uint64_t exec_until_ms;
	struct sl_setup next; /* of a reload under way */
	bool http_changes;
	struct sl_deny_list *next_deny; /* of the job under way; NULL: stays as it is */
	uint64_t deny_started_us;
	struct sl_str report;                             /* of the job under way */
	struct sl_waiters asked[SL_CTL_REQUEST_COUNT_];   /* for the job under way */
	struct sl_waiters waiting[SL_CTL_REQUEST_COUNT_]; /* for the next one */
	bool wants[SL_CTL_REQUEST_COUNT_];
	struct sl_list pending; /* struct sl_pending; the job under way is not in it any more */
	size_t n_pending;
	struct sl_pending *changing; /* the job under way; NULL: none, or no change */
	bool saves_changes;          /* what is kept differs: at COMMIT the file is written */
	char *changes_path;          /* state_dir/changes */
	bool last_reload_ok;
	double last_reload_unix;
	bool has_been_ready;
	struct sl_task job_task;

	enum sl_stopping stopping;
	struct sl_timer stop_deadline;
	int exit_code;
};

/* ---- supervisor.c ---- */

/* Everything between fork() and READY; the child is in s->children. */
SL_MUST_CHECK int sl_supervisor_start_proxy(struct sl_supervisor *s, const char *exe,
					    struct sl_child **ret);
void sl_supervisor_send_options(struct sl_supervisor *s, struct sl_child *child);
void sl_supervisor_broker_gone(struct sl_supervisor *s); /* at the end: nothing is in the kernel */
void sl_supervisor_drain(struct sl_supervisor *s, struct sl_child *child, bool accept_queued);
void sl_supervisor_set_drain_deadline(struct sl_supervisor *s, struct sl_child *child,
				      uint64_t wait_ms);
void sl_supervisor_send_facts(struct sl_supervisor *s);
/* Starts what is wanted, at the end of this turn and if nothing else is going on. */
void sl_supervisor_next_job(struct sl_supervisor *s);
/* Sends s->report. */
void sl_supervisor_reply(struct sl_supervisor *s, const struct sl_waiter *waiter,
			 enum sl_ctl_result result);
#define SL_STOPPING_TEXT "error: the daemon is stopping\n"
/* Sends `text` to who need not wait for the job under way. */
void sl_supervisor_refuse(struct sl_supervisor *s, const struct sl_waiter *waiter,
			  enum sl_ctl_result result, const char *text);
/* Ends the job: answers who asked with s->report. The next one starts at the end of the turn. */
void sl_supervisor_finish_job(struct sl_supervisor *s, enum sl_ctl_request what, bool ok);
/* (Re)opens the access log of the configuration; on failure the old one stays in use. */
int sl_supervisor_open_access(struct sl_supervisor *s, const struct sl_conf *conf);
void sl_supervisor_send_access(struct sl_supervisor *s);
void sl_supervisor_set_log(const struct sl_conf *conf);

/* ---- reload.c ---- */

/*
 * Reads and builds, with the changes of `changes` (NULL: none) on top; diagnostics and
 * warnings go to `report`.
 */
SL_MUST_CHECK int sl_setup_read(const char *path, const struct sl_conf_sources *changes,
				struct sl_bundle *ret, struct sl_conf **ret_conf,
				struct sl_str *report);
/* Binds listeners and global.http beside those of `old`; on failure nothing is left. */
SL_MUST_CHECK int sl_setup_bind(struct sl_supervisor *s, const struct sl_setup *old,
				const struct sl_conf_sources *sources, struct sl_setup *setup,
				struct sl_str *report);
void sl_send_listener(struct sl_child *child, const struct sl_listener *l);
void sl_send_http(struct sl_child *child, int fd);

void sl_reload_start(struct sl_supervisor *s);
/*
 * s->next, whose configuration is built from `bundle`, is to be in force: binds, asks the proxy.
 * `r` below 0: it could not be built, s->report says why.
 */
void sl_reload_switch(struct sl_supervisor *s, const struct sl_bundle *bundle, int r);
void sl_reload_on_message(struct sl_supervisor *s, const struct sl_msg *msg);
void sl_reload_on_death(struct sl_supervisor *s); /* of the current proxy */
/* The job ends when the kernel's NAT has what is in force now, so that it is there when the answer
 * is read; or, after 10 s, without. */
void sl_reload_await_nat(struct sl_supervisor *s);
void sl_reload_on_nat(struct sl_supervisor *s); /* the broker has said something of it */

/* ---- change.c ---- */

/* Takes the request of a proxy; -EBADMSG: no proxy sends such a thing. */
SL_MUST_CHECK int sl_change_take(struct sl_supervisor *s, const struct sl_waiter *waiter, int fd);
void sl_change_start(struct sl_supervisor *s); /* the first of s->pending, which is not empty */
/* Before COMMIT: what is kept is on the disk first. On failure, reported, nothing has changed. */
SL_MUST_CHECK int sl_change_save(struct sl_supervisor *s);
void sl_change_finish(struct sl_supervisor *s, bool ok);
/* Appends one to s->pending; `change` is emptied. */
SL_MUST_CHECK int sl_change_append(struct sl_supervisor *s, const struct sl_waiter *waiter,
				   struct sl_overlay_change *change);
void sl_changes_cancel(struct sl_supervisor *s); /* the daemon stops: answers all that wait */
void sl_changes_done(struct sl_supervisor *s);   /* forgets what is pending */

/* ---- denied.c: deny_file, and what is denied in the kernel ---- */

/* Reads the file of `conf`, if it has one, to s->next_deny; what is wrong goes to s->report. */
SL_MUST_CHECK int sl_denied_read(struct sl_supervisor *s, const struct sl_conf *conf);
/* s->next_deny to the proxy, as part of a change or (flag 1) alone. */
void sl_denied_send_next(struct sl_supervisor *s, uint32_t alone);
/* What a new proxy is given, between CONFIG and COMMIT. */
void sl_denied_send(const struct sl_supervisor *s, struct sl_child *child);
/* s->next_deny, if any, is in force, and so is s->now: the kernel gets its share. */
void sl_denied_commit(struct sl_supervisor *s);
void sl_denied_cancel(struct sl_supervisor *s); /* forgets s->next_deny */
/* Makes s->guarding. */
SL_MUST_CHECK int sl_denied_init(struct sl_supervisor *s);

void sl_denied_start(struct sl_supervisor *s);  /* the job */
void sl_denied_finish(struct sl_supervisor *s); /* the kernel's NAT has it, too */
void sl_denied_on_message(struct sl_supervisor *s, const struct sl_msg *msg);
void sl_denied_on_death(struct sl_supervisor *s); /* of the current proxy */

/* ---- secrets.c: certificates with their keys, and keys of tickets ---- */

/* Makes s->cert_watch. */
SL_MUST_CHECK int sl_secrets_init(struct sl_supervisor *s);
void sl_secrets_done(struct sl_supervisor *s);
/* Reads and checks the files of setup->conf to setup->certs; what is wrong goes to `report`. */
SL_MUST_CHECK int sl_secrets_read(const struct sl_supervisor *s,
				  const struct sl_conf_sources *sources, struct sl_setup *setup,
				  struct sl_str *report);
/* What a new proxy is given, between CONFIG and COMMIT. */
void sl_secrets_send(const struct sl_supervisor *s, struct sl_child *child);
/* Those of s->next, where they differ, as part of a change. */
void sl_secrets_send_next(const struct sl_supervisor *s);
void sl_secrets_commit(struct sl_supervisor *s); /* s->now is another */
void sl_secrets_start(struct sl_supervisor *s);  /* the job: all files are read again, now */
/* What the program before had; takes over the descriptors (-1: none), also on failure. */
SL_MUST_CHECK int sl_secrets_adopt(struct sl_supervisor *s, int certs_fd, int tickets_fd,
				   uint64_t tickets_left_ms);
uint64_t sl_secrets_tickets_left_ms(const struct sl_supervisor *s);

/* ---- brokering.c: the broker, and its channels to proxies ---- */

void sl_brokering_init(struct sl_supervisor *s);
/* Where configuration and rights allow it; what is missing is no failure. */
void sl_brokering_start(struct sl_supervisor *s);
/* New channels between a proxy that has been sent its first COMMIT and the broker, if any. */
void sl_brokering_connect(struct sl_supervisor *s, struct sl_child *proxy);
/* s->now has another generation. `retry`: a broker that is off makes room, if that may help. */
void sl_brokering_update(struct sl_supervisor *s, bool retry);
/* Whether the broker can be told of `conf` with s->next_deny (else s->deny); why not: `report`. */
SL_MUST_CHECK int sl_brokering_check(const struct sl_supervisor *s, const struct sl_conf *conf,
				     struct sl_str *report);
/* Where the kernel's NAT is with the last plan. */
enum sl_nat_state {
	SL_NAT_IN_FORCE = 0, /* or nothing is asked of it */
	SL_NAT_UNKNOWN,      /* the broker has not said yet */
	SL_NAT_NOT_YET,      /* it tries again and again */
	SL_NAT_NO_BROKER,
};
/* `ret_text`: why it is not in force; borrowed. */
enum sl_nat_state sl_brokering_nat(const struct sl_supervisor *s, const char **ret_text);
/* s->deny is another: the kernel's NAT comes before who else would ask it. */
void sl_brokering_deny(struct sl_supervisor *s);
/* s->stopping is set: the kernel's NAT takes no new flows, unless it is to go on. */
void sl_brokering_drain(struct sl_supervisor *s);
/* Ends the broker, leaves the kernel as it is, and starts `exe` (borrowed) as the next one. */
void sl_brokering_replace(struct sl_supervisor *s, const char *exe);
/* Everything is taken out of the kernel. False: it has ended, or there was none. */
bool sl_brokering_stop(struct sl_supervisor *s);
/* A broker from before this process replaced its program. */
void sl_brokering_adopt(struct sl_supervisor *s, struct sl_child *broker, bool is_replaced);
void sl_brokering_done(struct sl_supervisor *s); /* kills it */

/* ---- upgrade.c ---- */

void sl_upgrade_start(struct sl_supervisor *s);
void sl_upgrade_on_message(struct sl_supervisor *s, const struct sl_msg *msg);
void sl_upgrade_on_death(struct sl_supervisor *s, const struct sl_child_end *end);

#endif
