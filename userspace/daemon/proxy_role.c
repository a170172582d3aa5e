/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "daemon/proxy_role.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "abi.h"
#include "accel/guard.h"
#include "accel/packet.h"
#include "base/log.h"
#include "ctl/changes.h"
#include "ctl/ctl.h"
#include "daemon/bundle.h"
#include "daemon/channel.h"
#include "daemon/deny_set.h"
#include "daemon/overlay.h"
#include "daemon/privs.h"
#include "daemon/resume.h"
#include "daemon/role.h"
#include "daemon/sandbox.h"
#include "daemon/ticket_keys.h"
#include "proxy/proxy.h"
#include "tls/ktls.h"
#include "tls/library.h"
#include "tls/material.h"

#define MAX_REQUESTS 512 /* more than the control interface has clients */
/* After a drain: long enough for the last replies of the control interface to leave. */
#define LINGER_MS 50
#define LINGER_MAX_MS 3000

/* What CONFIG opened and COMMIT or ABORT ends. */
struct change {
	bool is_open;
	bool is_prepared;
	uint64_t generation;
	bool same_files; /* of the system, as the last one's */
	struct sl_bundle bundle;
	struct sl_conf *conf;
	struct sl_proxy_listener *added;
	size_t n_added;
	uint64_t *removed;
	size_t n_removed;
	bool has_http;
	int http_fd;
	bool has_deny;
	int deny_error; /* the list could not be read */
	struct sl_ip_set deny;
	bool has_materials;
	int materials_error; /* they could not be read */
	struct sl_materials materials;
};

struct request {
	uint64_t id; /* 0: free */
	enum sl_ctl_request what;
	sl_ctl_reply_fn reply;
	void *arg;
};

struct role {
	struct sl_loop *loop;
	struct sl_channel *channel;
	struct sl_msg_options options;
	struct sl_proxy *proxy;         /* NULL before the first generation */
	struct sl_tls_tickets *tickets; /* until there is a proxy */
	struct sl_ctl *ctl;
	struct sl_ctl_facts facts;
	char steering[sizeof(((struct sl_msg_facts *)0)->steering)];
	char guard[sizeof(((struct sl_msg_facts *)0)->guard)];
	char no_broker[sizeof(((struct sl_msg *)0)->text)];
	unsigned n_applying; /* parts of a change that are not in force yet */
	char *config_path;
	struct sl_conf_sources changes; /* made at run time, of the generation in force */
	struct change change;
	int control_fd;
	int access_fd;
	struct request requests[MAX_REQUESTS];
	uint64_t last_request;
	struct sl_timer linger;
	uint64_t linger_until_ms;
	int exit_code;
};

static void change_done(struct change *c)
{
	sl_bundle_done(&c->bundle);
	sl_conf_free(c->conf);
	for (size_t i = 0; i < c->n_added; i++)
		sl_closep(&c->added[i].fd);
	free(c->added);
	free(c->removed);
	sl_closep(&c->http_fd);
	sl_ip_list_done(&c->deny);
	sl_materials_done(&c->materials);
	*c = (struct change){ .http_fd = -1 };
}

static void say(struct role *role, enum sl_msg_type type)
{
	struct sl_msg msg = { .type = type };

	if (type == SL_MSG_READY) {
		msg.ready.state_version = SL_STATE_VERSION;
		(void)snprintf(msg.ready.version, sizeof(msg.ready.version), "%s", SL_VERSION);
	}
	(void)sl_channel_send(role->channel, &msg, -1); /* its end is reported to us anyway */
}

static void say_failed(struct role *role, int err, const char *text)
{
	struct sl_msg msg = { .type = SL_MSG_FAILED };
	char name[128];

	(void)snprintf(msg.text, sizeof(msg.text), "%s%s%s", text, err ? ": " : "",
		       err ? strerror_r(-err, name, sizeof(name)) : "");
	(void)sl_channel_send(role->channel, &msg, -1);
	change_done(&role->change);
}

/* ---- requests to the supervisor ---- */

static int send_request(struct role *role, enum sl_ctl_request what,
			const struct sl_ctl_change *change, uint64_t id)
{
	const struct sl_msg msg = { .type = change ? SL_MSG_CHANGE : SL_MSG_REQUEST,
				    .flag = what,
				    .id = id };
	int fd = -1;
	int r = change ? sl_overlay_pack(change, &fd) : 0;

	return r < 0 ? r : sl_channel_send_owned(role->channel, &msg, fd);
}

static void on_request(void *arg, enum sl_ctl_request what, const struct sl_ctl_change *change,
		       sl_ctl_reply_fn reply, void *reply_arg)
{
	struct role *role = arg;

	for (size_t i = 0; i < MAX_REQUESTS; i++) {
		struct request *slot = &role->requests[i];
		uint64_t id;

		if (slot->id)
			continue;
		id = ++role->last_request;
		if (send_request(role, what, change, id) < 0) {
			reply(reply_arg, SL_CTL_FAILED, "the supervisor cannot be asked\n");
			return;
		}
		*slot = (struct request){
			.id = id, .what = what, .reply = reply, .arg = reply_arg
		};
		return;
	}
	reply(reply_arg, SL_CTL_BUSY, "too many requests are waiting, try again later\n");
}

static void on_reply(struct role *role, const struct sl_msg *msg, int fd)
{
	_cleanup_free_ char *text = NULL;
	size_t len;

	if (sl_memfd_read(fd, SL_TEXT_MAX, &text, &len) < 0)
		text = NULL;
	for (size_t i = 0; i < MAX_REQUESTS; i++) {
		struct request hit = role->requests[i];

		if (hit.id != msg->id)
			continue;
		role->requests[i] = (struct request){ 0 };
		/* Whoever asks after this answer must be answered by the new generation. */
		if (hit.what == SL_CTL_UPGRADE && msg->flag)
			sl_ctl_stop_accepting(role->ctl);
		hit.reply(hit.arg, (enum sl_ctl_result)msg->flag, text ? text : "");
		return;
	}
}

/* ---- configuration ---- */

static void open_change(struct role *role, const struct sl_msg *msg, int fd)
{
	int r;

	change_done(&role->change);
	role->change.generation = msg->id;
	role->change.same_files = msg->flag;
	r = sl_bundle_unpack(fd, &role->change.bundle);
	role->change.is_open = r == 0;
	if (r < 0)
		sl_warn(r, "cannot read the configuration the supervisor sent");
}

static void add_listener(struct role *role, const struct sl_msg *msg, int fd)
{
	struct change *c = &role->change;
	struct sl_proxy_listener *added = NULL;

	if (c->is_open)
		added = realloc(c->added, (c->n_added + 1) * sizeof(*added));
	if (!added) {
		/* Noticed at the end: the counts do not fit. */
		c->is_open = false;
		sl_closep(&fd);
		return;
	}
	c->added = added;
	added[c->n_added++] = (struct sl_proxy_listener){ .id = msg->id,
							  .ip = msg->listener.ip,
							  .from = msg->listener.from,
							  .to = msg->listener.to,
							  .fd = fd };
}

static void add_removed(struct role *role, uint64_t id)
{
	struct change *c = &role->change;
	uint64_t *removed = NULL;

	if (c->is_open)
		removed = realloc(c->removed, (c->n_removed + 1) * sizeof(*removed));
	if (!removed) {
		c->is_open = false;
		return;
	}
	c->removed = removed;
	removed[c->n_removed++] = id;
}

static void set_http(struct role *role, int fd)
{
	sl_closep(&role->change.http_fd);
	role->change.has_http = true;
	role->change.http_fd = fd;
}

/* The supervisor has found no error in the same bytes, so there is none to show in detail. */
static int prepare(struct role *role)
{
	struct change *c = &role->change;
	struct sl_diags diags = { 0 };
	int r;

	if (!c->is_open)
		return -ENOMEM;
	if (c->is_prepared)
		return 0;
	if (c->deny_error)
		return c->deny_error;
	if (c->materials_error)
		return c->materials_error;
	r = sl_conf_build(&c->bundle.sources, &c->conf, &diags);
	if (r < 0)
		sl_log(SL_LOG_ERROR, "the proxy refuses what the supervisor accepted:\n%s",
		       sl_str_text(&diags.text));
	sl_diags_done(&diags);
	c->is_prepared = r == 0;
	return r;
}

static struct sl_dns_files dns_files(const struct sl_bundle *b)
{
	return (struct sl_dns_files){ .resolv_conf = b->resolv_conf,
				      .resolv_conf_len = b->resolv_conf_len,
				      .hosts = b->hosts,
				      .hosts_len = b->hosts_len };
}

static int start_proxy(struct role *role)
{
	const struct change *c = &role->change;
	const struct sl_proxy_options options = { .control = role->loop,
						  .n_workers = role->options.n_workers,
						  .first_conn_id = role->options.first_conn_id,
						  .access_fd = -1,
						  .expects_broker = true,
						  .no_ktls = role->facts.no_ktls,
						  .dns = dns_files(&c->bundle) };
	int r = sl_proxy_new(&options, &role->proxy);

	if (r < 0)
		return r;
	if (role->access_fd >= 0)
		sl_proxy_set_access_fd(role->proxy, SL_TAKE_FD(role->access_fd));
	if (role->tickets)
		sl_proxy_set_tickets(role->proxy, role->tickets);
	if (c->bundle.sources.n > 0)
		role->config_path = strdup(c->bundle.sources.item[0].name);
	role->facts.config_path = role->config_path ? role->config_path : "";
	return 0;
}

static int start_ctl(struct role *role)
{
	struct sl_ctl_options options = { .loop = role->loop,
					  .proxy = role->proxy,
					  .facts = &role->facts,
					  .request = on_request,
					  .request_arg = role };

	options.control_fd = SL_TAKE_FD(role->control_fd);
	options.http_fd = SL_TAKE_FD(role->change.http_fd);
	role->change.has_http = false;
	return sl_ctl_new(&options, &role->ctl);
}

static void set_log(const struct sl_conf *conf)
{
	sl_log_setup(conf->global.log_level, conf->global.log_json, STDERR_FILENO);
}

static void on_applied(void *arg)
{
	struct role *role = arg;
	bool is_first = !role->facts.ready;

	if (--role->n_applying > 0)
		return;
	role->facts.ready = true;
	say(role, is_first ? SL_MSG_READY : SL_MSG_APPLIED);
}

/* What GET /v1/changes shows; without memory for it the last ones stay. */
static void show_changes(struct role *role, const struct sl_conf_sources *sources)
{
	struct sl_conf_sources changes = { 0 };

	if (sl_changes_copy(sources, &changes) < 0) {
		sl_conf_sources_done(&changes);
		return;
	}
	sl_conf_sources_done(&role->changes);
	role->changes = changes;
	role->facts.changes = &role->changes;
}

/* Workers do what they are told in order: the list is in force before new listeners are. */
static int apply_deny(struct role *role, struct sl_ip_set *set)
{
	int r = sl_proxy_set_deny_file(role->proxy, set, on_applied, role);

	role->n_applying += r == 0; /* on_applied() runs later */
	return r;
}

static int apply(struct role *role)
{
	struct change *c = &role->change;
	struct sl_dns_files files = dns_files(&c->bundle);
	size_t n_added = c->n_added;
	int r = c->has_deny ? apply_deny(role, &c->deny) : 0;

	if (r < 0)
		return r;
	/* what the generation in force cannot use of them is no matter: it is about to go */
	if (c->has_materials && sl_proxy_set_materials(role->proxy, &c->materials) < 0)
		sl_debug("the last configuration keeps the certificates it has");
	if (role->facts.ready && !c->same_files)
		(void)sl_proxy_set_dns_files(role->proxy,
					     &files); /* on failure the old ones stay */
	if (c->has_http)
		sl_ctl_set_http_fd(role->ctl, SL_TAKE_FD(c->http_fd));
	set_log(c->conf);
	show_changes(role, &c->bundle.sources);
	c->n_added = 0; /* the descriptors belong to the proxy now */
	r = sl_proxy_apply(role->proxy, SL_TAKE_PTR(c->conf), c->generation, c->added, n_added,
			   c->removed, c->n_removed, on_applied, role);
	role->n_applying += r == 0;
	return r;
}

static void commit(struct role *role)
{
	const char *what = "cannot build the configuration";
	int r = prepare(role);

	if (r == 0 && !role->proxy) {
		what = "cannot start the workers";
		r = start_proxy(role);
	}
	if (r == 0 && !role->ctl) {
		what = "cannot start the control interface";
		r = start_ctl(role);
	}
	if (r == 0) {
		what = "cannot apply the configuration";
		r = apply(role);
	}
	if (r < 0)
		say_failed(role, r, what);
	change_done(&role->change);
}

/* ---- denied sources ---- */

static void set_deny(struct role *role, bool alone, int fd)
{
	struct change *c = &role->change;
	struct sl_ip_set set = { 0 };
	int r = sl_deny_set_unpack(fd, &set);

	if (!alone) {
		sl_ip_list_done(&c->deny);
		c->deny = set;
		c->has_deny = true;
		c->deny_error = r;
		return;
	}
	if (r == 0 && !role->proxy)
		r = -EPROTO;
	if (r == 0)
		r = apply_deny(role, &set);
	sl_ip_list_done(&set); /* empty where the proxy took it */
	if (r < 0)
		say_failed(role, r, "cannot take the deny_file");
}

static void read_guarded(const void *arg, struct sl_ctl_guarded *ret)
{
	const struct sl_guard_counts *counts = arg;

	*ret = (struct sl_ctl_guarded){
		.passed4 = __atomic_load_n(&counts->passed4, __ATOMIC_RELAXED),
		.passed6 = __atomic_load_n(&counts->passed6, __ATOMIC_RELAXED),
		.dropped4 = __atomic_load_n(&counts->dropped4, __ATOMIC_RELAXED),
		.dropped6 = __atomic_load_n(&counts->dropped6, __ATOMIC_RELAXED)
	};
}

/* What the kernel drops before it is accepted; it counts on in the same page. */
static void set_counters(struct role *role, int fd)
{
	const struct sl_guard_counts *counts = NULL;
	int r = sl_guard_map_counts(fd, &counts);

	if (r < 0) {
		(void)sl_warn(r, "cannot read the counters of denied sources");
		return;
	}
	sl_guard_unmap_counts(role->facts.read_guarded_arg);
	role->facts.read_guarded = read_guarded;
	role->facts.read_guarded_arg = counts;
}

/* ---- certificates and keys of tickets ---- */

static int read_materials(int fd, struct sl_materials *ret)
{
	char *block = NULL;
	size_t n = 0;
	int r = sl_memfd_read(fd, SL_MATERIALS_MAX, &block, &n);

	return r < 0 ? r : sl_materials_unpack(block, n, ret);
}

static void set_materials(struct role *role, bool alone, int fd)
{
	struct change *c = &role->change;
	struct sl_materials m = { 0 };
	int r = read_materials(fd, &m);

	if (!alone) {
		sl_materials_done(&c->materials);
		c->materials = m;
		c->has_materials = true;
		c->materials_error = r;
		return;
	}
	if (r == 0 && !role->proxy)
		r = -EPROTO;
	if (r == 0)
		r = sl_proxy_set_materials(role->proxy, &m);
	sl_materials_done(&m); /* empty where the proxy took them */
	if (r < 0)
		(void)sl_err(r, "cannot take all of the new certificates, going on with the last");
}

static void set_tickets(struct role *role, int fd)
{
	struct sl_tls_tickets *tickets = NULL;
	int r = sl_ticket_keys_unpack(fd, &tickets);

	if (r < 0) {
		(void)sl_err(r, "cannot take the new keys of session tickets");
		return;
	}
	sl_tls_tickets_unref(role->tickets);
	role->tickets = tickets;
	if (role->proxy)
		sl_proxy_set_tickets(role->proxy, tickets);
}

/* ---- the end ---- */

/* Changes wait for those before them, at an upgrade for the next program, too. */
static bool waits_for_change(const struct role *role)
{
	for (size_t i = 0; i < MAX_REQUESTS; i++)
		if (role->requests[i].id && role->requests[i].what == SL_CTL_CHANGE)
			return true;
	return false;
}

static void on_linger(struct sl_timer *timer)
{
	struct role *role = SL_CONTAINER_OF(timer, struct role, linger);
	uint64_t now_ms = sl_loop_now_ms(role->loop);

	if (waits_for_change(role) && now_ms < role->linger_until_ms)
		sl_timer_start(role->loop, timer, now_ms + LINGER_MS, on_linger);
	else
		sl_loop_quit(role->loop);
}

static void on_drained(void *arg)
{
	struct role *role = arg;

	role->linger_until_ms = sl_loop_now_ms(role->loop) + LINGER_MAX_MS;
	sl_timer_start(role->loop, &role->linger, sl_loop_now_ms(role->loop) + LINGER_MS,
		       on_linger);
}

static void drain(struct role *role, bool accept_queued)
{
	if (!role->proxy) {
		sl_loop_quit(role->loop);
		return;
	}
	if (sl_proxy_is_draining(role->proxy))
		return;
	/* At an upgrade the next generation answers new control clients. */
	if (!accept_queued && role->ctl)
		sl_ctl_stop_accepting(role->ctl);
	sl_proxy_drain(role->proxy, !accept_queued, on_drained, role);
}

static void stop(struct role *role)
{
	drain(role, false);
	if (role->proxy)
		sl_proxy_stop_now(role->proxy);
}

/* ---- the channel ---- */

static void set_facts(struct role *role, const struct sl_msg_facts *facts, uint64_t broker_pid)
{
	role->facts.broker_pid = (pid_t)broker_pid;
	role->facts.last_reload_ok = facts->last_reload_ok;
	role->facts.last_reload_unix = facts->last_reload_unix;
	(void)snprintf(role->steering, sizeof(role->steering), "%.*s",
		       (int)sizeof(facts->steering) - 1, facts->steering);
	role->facts.steering = role->steering;
	(void)snprintf(role->guard, sizeof(role->guard), "%.*s", (int)sizeof(facts->guard) - 1,
		       facts->guard);
	role->facts.guard = role->guard;
	role->facts.deny_patterns = facts->deny_patterns;
	role->facts.guard_ranges = facts->guard_ranges;
	role->facts.guard_interfaces = facts->guard_interfaces;
}

static void connect_broker(struct role *role, const struct sl_msg *msg, int fd)
{
	if (!role->proxy || msg->flag != role->options.n_workers || msg->id > msg->flag) {
		sl_closep(&fd);
		return;
	}
	role->no_broker[0] = '\0';
	sl_proxy_connect_broker(role->proxy, (unsigned)msg->id, fd);
}

static void set_access(struct role *role, int fd)
{
	if (role->proxy) {
		sl_proxy_set_access_fd(role->proxy, fd);
		return;
	}
	sl_closep(&role->access_fd);
	role->access_fd = fd;
}

static void on_prepare(struct role *role)
{
	int r = prepare(role);

	if (r < 0)
		say_failed(role, r, "cannot build the configuration");
	else
		say(role, SL_MSG_PREPARED);
}

/* Takes `*fd` where the message has one. */
static void dispatch(struct role *role, const struct sl_msg *msg, int *fd)
{
	switch ((enum sl_msg_type)msg->type) {
	case SL_MSG_FACTS:
		set_facts(role, &msg->facts, msg->id);
		break;
	case SL_MSG_CONFIG:
		open_change(role, msg, *fd);
		break;
	case SL_MSG_LISTENER:
		add_listener(role, msg, SL_TAKE_FD(*fd));
		break;
	case SL_MSG_REMOVE:
		add_removed(role, msg->id);
		break;
	case SL_MSG_HTTP:
	case SL_MSG_NO_HTTP:
		set_http(role, SL_TAKE_FD(*fd));
		break;
	case SL_MSG_CONTROL:
		sl_closep(&role->control_fd);
		role->control_fd = SL_TAKE_FD(*fd);
		break;
	case SL_MSG_ACCESS:
	case SL_MSG_NO_ACCESS:
		set_access(role, SL_TAKE_FD(*fd));
		break;
	case SL_MSG_PREPARE:
		on_prepare(role);
		break;
	case SL_MSG_ABORT:
		change_done(&role->change);
		break;
	case SL_MSG_COMMIT:
		commit(role);
		break;
	case SL_MSG_DENY:
		set_deny(role, msg->flag, *fd);
		break;
	case SL_MSG_MATERIALS:
		set_materials(role, msg->flag, *fd);
		break;
	case SL_MSG_TICKETS:
		set_tickets(role, *fd);
		break;
	case SL_MSG_DENIED:
		set_counters(role, *fd);
		break;
	case SL_MSG_REPLY:
		on_reply(role, msg, *fd);
		break;
	case SL_MSG_DRAIN:
		drain(role, msg->flag);
		break;
	case SL_MSG_STOP:
		stop(role);
		break;
	case SL_MSG_BROKER:
		connect_broker(role, msg, SL_TAKE_FD(*fd));
		break;
	case SL_MSG_NO_BROKER:
		(void)snprintf(role->no_broker, sizeof(role->no_broker), "%s", msg->text);
		if (role->proxy)
			sl_proxy_no_broker(role->proxy);
		break;
	case SL_MSG_POLICY:
	case SL_MSG_NAT:
	case SL_MSG_WORKER:
	case SL_MSG_OPTIONS:
	case SL_MSG_READY:
	case SL_MSG_PREPARED:
	case SL_MSG_APPLIED:
	case SL_MSG_FAILED:
	case SL_MSG_REQUEST:
	case SL_MSG_CHANGE:
	case SL_MSG_NAT_STATE:
	case SL_MSG_COUNT_:
		break;
	}
}

static void on_channel(void *arg, int err, const struct sl_msg *msg, int fd)
{
	struct role *role = arg;

	if (err) {
		sl_log(SL_LOG_ERROR, "lost the supervisor, ending");
		role->exit_code = 1;
		stop(role);
		return;
	}
	dispatch(role, msg, &fd);
	sl_closep(&fd);
}

/* ---- start ---- */

static int become_unprivileged(struct role *role)
{
	const struct sl_msg_options *o = &role->options;
	int r;

	sl_role_begin(SL_ROLE_PROXY, SL_PROXY_ARGV0);
	r = sl_privs_drop(o->uid, o->gid, o->supervisor);
	if (r < 0)
		return r == -ESRCH ? r : sl_err(r, "cannot give up privileges, not starting");
	r = sl_sandbox_enter(SL_ROLE_PROXY, &role->facts.sandboxed);
	return r < 0 ? sl_err(r, "cannot install the system call filter, not starting") : 0;
}

static void role_done(struct role *role)
{
	sl_ctl_free(role->ctl);
	sl_proxy_free(role->proxy);
	change_done(&role->change);
	sl_tls_tickets_unref(role->tickets);
	if (role->loop)
		sl_timer_stop(&role->linger);
	sl_guard_unmap_counts(role->facts.read_guarded_arg);
	sl_channel_free(role->channel);
	sl_loop_free(role->loop);
	sl_closep(&role->control_fd);
	sl_closep(&role->access_fd);
	free(role->config_path);
	sl_conf_sources_done(&role->changes);
}

/*
 * The kernel closes the descriptors of a dead process from the highest to the lowest. On
 * top of thousands of sockets the channel tells the supervisor at once; at 3 it would tell
 * after all of them are closed (measured: 142 ms with 12000 sockets).
 */
static void move_to_top(int *fd, uint32_t to)
{
	int top = to > (uint32_t)*fd ? dup3(*fd, (int)to, O_CLOEXEC) : -1;

	if (top < 0)
		return;
	(void)close(*fd);
	*fd = top;
}

static int start(struct role *role, int channel_fd)
{
	_cleanup_fd_ int fd = channel_fd;
	int r = sl_role_wait_options(fd, &role->options);

	if (r < 0)
		return sl_err(r, "no options from the supervisor");
	r = sl_tls_init(); /* while files can be opened */
	if (r < 0)
		return sl_err(r, "cannot start the TLS library");
	sl_packet_read_init(); /* likewise */
	role->facts.no_ktls = sl_tls_ktls_missing();
	if (!role->options.is_single) {
		move_to_top(&fd, role->options.channel_fd);
		r = become_unprivileged(role);
	}
	if (r == 0)
		r = sl_loop_new(&role->loop);
	if (r == 0)
		r = sl_channel_new(role->loop, SL_TAKE_FD(fd), SL_ROLE_SUPERVISOR, on_channel, role,
				   &role->channel);
	if (r < 0)
		return r;
	role->facts.pid = role->options.supervisor;
	role->facts.started_ms = role->options.started_ms;
	role->facts.privileged_uid = geteuid() == 0;
	if (role->options.protocol != SL_PROTOCOL)
		say_failed(role, 0,
			   "this program speaks another version of the protocol, restart the "
			   "daemon instead");
	return 0;
}

int sl_proxy_role_run(int channel_fd)
{
	struct role role = { .control_fd = -1, .access_fd = -1, .change = { .http_fd = -1 } };
	int r;

	role.facts.steering = role.steering;
	role.facts.guard = role.guard;
	role.facts.no_broker = role.no_broker;
	r = start(&role, channel_fd);
	if (r == 0)
		r = sl_loop_run(role.loop);
	if (r < 0)
		role.exit_code = 1;
	role_done(&role);
	return role.exit_code;
}
