/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "daemon/resume.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "daemon/bundle.h"
#include "daemon/state.h"

/* Mostly changes that wait: SL_PENDING_MAX texts of at most 1 MiB each. */
#define STATE_MAX (320u << 20)

struct saved_child {
	uint64_t serial;
	uint64_t deadline_ms; /* from the moment of saving; 0: none */
	uint32_t state;
	int32_t pid;
	int32_t pidfd;
	int32_t channel_fd;
	uint32_t n_workers;
	uint32_t
		flag; /* of a proxy: the current one; of the broker: the next one takes its place */
};

/*
 * The layout is SL_STATE_VERSION's: a header, then listeners, then children, then links of
 * interfaces, then changes that wait. Both programs are of the same host, so byte order and
 * alignment are no question.
 */
struct saved_header {
	uint32_t version; /* first, in every version */
	uint32_t size;    /* of this header */
	uint64_t started_ms;
	uint64_t generation;
	uint64_t next_listener_id;
	uint64_t last_serial;
	uint64_t last_conn_id;
	double last_reload_unix;
	uint32_t last_reload_ok;
	int32_t pid_fd;
	int32_t control_fd;
	int32_t http_fd;   /* -1: none */
	int32_t access_fd; /* -1: none */
	int32_t bundle_fd;
	int32_t steering_fd[SL_SKLOOKUP_FDS];
	uint32_t has_steering;
	int32_t deny_fd;  /* -1: there was no deny_file yet */
	int32_t count_fd; /* -1: nothing was counted in the kernel */
	uint64_t deny_patterns;
	uint64_t deny_ranges;
	int32_t certs_fd;   /* -1: no route has TLS */
	int32_t tickets_fd; /* -1: there are no keys of tickets */
	uint64_t tickets_left_ms;
	uint32_t uid;
	uint32_t gid;
	uint32_t socket_gid;
	uint32_t n_listeners;
	uint32_t n_children;
	uint32_t n_pending;
	uint32_t n_links;
	struct saved_child broker; /* pid 0: there is none */
	uint32_t wants[SL_CTL_REQUEST_COUNT_];
	struct sl_waiters waiting[SL_CTL_REQUEST_COUNT_];
	char steering[160];
	char runtime_dir[4096];
	char changes_path[4096];
	char exe[4096];
};

/* Followed by `len` bytes of sl_overlay_encode(). */
struct saved_pending {
	struct sl_waiter waiter;
	uint64_t len;
};

/* ---- saving ---- */

static int copy_path(char *to, size_t size, const char *from)
{
	size_t n = strlen(from);

	if (n >= size)
		return -ENAMETOOLONG;
	memcpy(to, from, n + 1);
	return 0;
}

static uint32_t count_children(const struct sl_supervisor *s)
{
	const struct sl_list *pos;
	uint32_t n = 0;

	sl_list_for_each (pos, &s->children)
		n++;
	return n;
}

static struct saved_child save_child(const struct sl_supervisor *s, const struct sl_child *c,
				     bool flag)
{
	uint64_t now_ms = sl_loop_now_ms(s->loop);
	struct saved_child saved = { .serial = c->serial,
				     .state = c->state,
				     .pid = c->pid,
				     .pidfd = c->pidfd,
				     .channel_fd = sl_channel_fd(c->channel),
				     .n_workers = c->n_workers,
				     .flag = flag };

	if (sl_timer_is_armed(&c->deadline))
		saved.deadline_ms = c->deadline.at_ms > now_ms ? c->deadline.at_ms - now_ms : 1;
	return saved;
}

static int save_header(const struct sl_supervisor *s, struct saved_header *h)
{
	int r = copy_path(h->runtime_dir, sizeof(h->runtime_dir), s->runtime.dir);

	if (r == 0)
		r = copy_path(h->changes_path, sizeof(h->changes_path), s->changes_path);
	if (r == 0)
		r = copy_path(h->exe, sizeof(h->exe), s->exe);
	if (r == 0)
		r = copy_path(h->steering, sizeof(h->steering), s->steering.text);
	h->version = SL_STATE_VERSION;
	h->size = sizeof(*h);
	h->started_ms = s->started_ms;
	h->generation = s->now.generation;
	h->next_listener_id = s->next_listener_id;
	h->last_serial = s->last_serial;
	h->last_conn_id = s->last_conn_id;
	h->last_reload_unix = s->last_reload_unix;
	h->last_reload_ok = s->last_reload_ok;
	h->pid_fd = s->runtime.pid_fd;
	h->control_fd = s->control_fd;
	h->http_fd = s->now.http_fd;
	h->access_fd = s->access_fd;
	h->bundle_fd = s->now.bundle_fd;
	h->has_steering = s->steering.sklookup != NULL;
	if (h->has_steering)
		sl_sklookup_fds(s->steering.sklookup, h->steering_fd);
	h->deny_fd = s->deny ? s->deny->fd : -1;
	h->deny_patterns = s->deny ? s->deny->n_patterns : 0;
	h->deny_ranges = s->deny ? s->deny->n_ranges : 0;
	h->certs_fd = s->now.certs ? s->now.certs->fd : -1;
	h->tickets_fd = s->tickets_fd;
	h->tickets_left_ms = sl_secrets_tickets_left_ms(s);
	h->count_fd = sl_guarding_count_fd(s->guarding);
	h->n_links = (uint32_t)sl_guarding_n_links(s->guarding);
	h->uid = s->identity.uid;
	h->gid = s->identity.gid;
	h->socket_gid = s->identity.socket_gid;
	h->n_listeners = (uint32_t)s->now.listeners.n;
	h->n_children = count_children(s);
	h->n_pending = (uint32_t)s->n_pending;
	if (s->brokering.child)
		h->broker = save_child(s, s->brokering.child, s->brokering.is_replaced);
	for (int i = 0; i < SL_CTL_REQUEST_COUNT_; i++) {
		h->wants[i] = s->wants[i];
		h->waiting[i] = s->waiting[i];
	}
	return r;
}

static void save_pending(const struct sl_pending *p, struct sl_str *out)
{
	_cleanup_(sl_str_done) struct sl_str encoded = { 0 };
	const struct sl_ctl_change change = { .kind = p->change.kind,
					      .undo = p->change.undo,
					      .keep = p->change.keep,
					      .subject = p->change.subject,
					      .text = { p->change.text, p->change.len } };
	struct saved_pending saved = { .waiter = p->waiter };

	sl_overlay_encode(&change, &encoded);
	saved.len = encoded.len;
	sl_str_add(out, &saved, sizeof(saved));
	sl_str_add(out, encoded.p, encoded.len);
	out->oom = out->oom || encoded.oom;
}

static int save(const struct sl_supervisor *s, int *ret_fd)
{
	_cleanup_(sl_str_done) struct sl_str out = { 0 };
	_cleanup_free_ struct saved_header *h = calloc(1, sizeof(*h));
	const struct sl_list *pos;
	int r;

	if (!h)
		return -ENOMEM;
	r = save_header(s, h);
	if (r < 0)
		return r;
	sl_str_add(&out, h, sizeof(*h));
	sl_str_add(&out, s->now.listeners.item, s->now.listeners.n * sizeof(struct sl_listener));
	sl_list_for_each (pos, &s->children) {
		const struct sl_child *child = SL_CONTAINER_OF(pos, struct sl_child, node);
		struct saved_child c = save_child(s, child, child == s->current);

		sl_str_add(&out, &c, sizeof(c));
	}
	for (size_t i = 0; i < h->n_links; i++) {
		int32_t link = sl_guarding_link_fd(s->guarding, i);

		sl_str_add(&out, &link, sizeof(link));
	}
	sl_list_for_each (pos, &s->pending)
		save_pending(SL_CONTAINER_OF(pos, struct sl_pending, node), &out);
	return out.oom ? -ENOMEM : sl_memfd_new("sluice-state", out.p, out.len, ret_fd);
}

/* ---- descriptors ---- */

static void inherit(int fd, bool on)
{
	if (fd >= 0)
		(void)fcntl(fd, F_SETFD, on ? 0 : FD_CLOEXEC);
}

static void inherit_child(const struct sl_child *c, bool on)
{
	inherit(c->pidfd, on);
	inherit(sl_channel_fd(c->channel), on);
}

/* Everything the state names, and nothing else, passes the exec. */
static void inherit_all(const struct sl_supervisor *s, bool on)
{
	const struct sl_list *pos;
	int steering[SL_SKLOOKUP_FDS];

	inherit(s->runtime.pid_fd, on);
	inherit(s->control_fd, on);
	inherit(s->now.http_fd, on);
	inherit(s->access_fd, on);
	inherit(s->now.bundle_fd, on);
	for (size_t i = 0; i < s->now.listeners.n; i++)
		inherit(s->now.listeners.item[i].fd, on);
	sl_list_for_each (pos, &s->children)
		inherit_child(SL_CONTAINER_OF(pos, struct sl_child, node), on);
	if (s->brokering.child)
		inherit_child(s->brokering.child, on);
	if (s->deny)
		inherit(s->deny->fd, on);
	if (s->now.certs)
		inherit(s->now.certs->fd, on);
	inherit(s->tickets_fd, on);
	inherit(sl_guarding_count_fd(s->guarding), on);
	for (size_t i = 0; i < sl_guarding_n_links(s->guarding); i++)
		inherit(sl_guarding_link_fd(s->guarding, i), on);
	if (!s->steering.sklookup)
		return;
	sl_sklookup_fds(s->steering.sklookup, steering);
	for (size_t i = 0; i < SL_ARRAY_LEN(steering); i++)
		inherit(steering[i], on);
}

int sl_resume_exec(struct sl_supervisor *s)
{
	_cleanup_fd_ int fd = -1;
	char number[16];
	char *argv[6];
	int r = save(s, &fd);

	if (r < 0)
		return r;
	(void)snprintf(number, sizeof(number), "%d", fd);
	argv[0] = (char *)(uintptr_t)s->options->program;
	argv[1] = (char *)(uintptr_t) "-c";
	argv[2] = (char *)(uintptr_t)s->options->config_path;
	argv[3] = (char *)(uintptr_t) "--resume";
	argv[4] = number;
	argv[5] = NULL;
	inherit(fd, true);
	inherit_all(s, true);
	(void)execv(s->exe, argv);
	r = -errno;
	inherit_all(s, false);
	return r;
}

/* ---- loading ---- */

static int load_steering(struct sl_supervisor *s, const struct saved_header *h)
{
	(void)snprintf(s->steering.text, sizeof(s->steering.text), "%.*s",
		       (int)sizeof(h->steering) - 1, h->steering);
	if (!h->has_steering)
		return 0;
	return sl_sklookup_adopt(h->steering_fd, &s->steering.sklookup);
}

/* What was denied stays so; the program that drops its SYNs is replaced when all is loaded. */
static int load_denied(struct sl_supervisor *s, const struct saved_header *h, const int32_t *links)
{
	int r = sl_guarding_adopt(s->guarding, h->count_fd, links, h->n_links);

	inherit(h->deny_fd, false);
	for (uint32_t i = 0; i < h->n_links; i++)
		inherit(links[i], false);
	if (r == 0 && h->deny_fd >= 0)
		r = sl_deny_list_adopt(h->deny_fd, h->deny_patterns, h->deny_ranges, &s->deny);
	return r;
}

static int load_conf(struct sl_supervisor *s)
{
	_cleanup_(sl_bundle_done) struct sl_bundle bundle = { 0 };
	_cleanup_(sl_diags_done) struct sl_diags diags = { 0 };
	int r = sl_bundle_unpack(s->now.bundle_fd, &bundle);

	if (r == 0)
		r = sl_conf_build(&bundle.sources, &s->now.conf, &diags);
	if (r == 0)
		sl_supervisor_set_log(s->now.conf);
	return r;
}

static int load_header(struct sl_supervisor *s, const struct saved_header *h)
{
	int r;

	s->started_ms = h->started_ms;
	s->next_listener_id = h->next_listener_id;
	s->last_serial = h->last_serial;
	s->last_conn_id = h->last_conn_id;
	s->last_reload_unix = h->last_reload_unix;
	s->last_reload_ok = h->last_reload_ok;
	s->has_been_ready = true;
	s->control_fd = h->control_fd;
	s->access_fd = h->access_fd;
	s->now.generation = h->generation;
	s->now.http_fd = h->http_fd;
	s->now.bundle_fd = h->bundle_fd;
	s->identity = (struct sl_identity){ h->uid, h->gid, h->socket_gid };
	for (int i = 0; i < SL_CTL_REQUEST_COUNT_; i++) {
		s->wants[i] = h->wants[i];
		s->waiting[i] = h->waiting[i];
	}
	free(s->exe);
	s->exe = strndup(h->exe, sizeof(h->exe));
	s->changes_path = strndup(h->changes_path, sizeof(h->changes_path));
	r = s->exe && s->changes_path ? sl_runtime_resume(h->runtime_dir, h->pid_fd, &s->runtime)
				      : -ENOMEM;
	if (r == 0)
		r = load_steering(s, h);
	return r < 0 ? r : load_conf(s);
}

static int load_listeners(struct sl_supervisor *s, const char *p, size_t n)
{
	if (n == 0)
		return 0;
	s->now.listeners.item = calloc(n, sizeof(struct sl_listener));
	if (!s->now.listeners.item)
		return -ENOMEM;
	memcpy(s->now.listeners.item, p, n * sizeof(struct sl_listener));
	s->now.listeners.n = n;
	return 0;
}

static int adopt(struct sl_supervisor *s, enum sl_role role, const struct saved_child *saved,
		 const struct sl_child_events *events, struct sl_child **ret)
{
	int r = sl_child_adopt(s->loop, role, saved->pid, saved->pidfd, saved->channel_fd, events,
			       ret);

	if (r < 0)
		return r;
	(*ret)->serial = saved->serial;
	(*ret)->state = (enum sl_child_state)saved->state;
	(*ret)->n_workers = saved->n_workers;
	return 0;
}

static int load_child(struct sl_supervisor *s, const struct saved_child *saved)
{
	struct sl_child *c = NULL;
	int r = adopt(s, SL_ROLE_PROXY, saved, &s->events, &c);

	if (r < 0)
		return r;
	c->has_commit = true;
	sl_list_add(&s->children, &c->node);
	if (saved->flag)
		s->current = c;
	if (saved->deadline_ms)
		sl_supervisor_set_drain_deadline(s, c, saved->deadline_ms);
	return 0;
}

static int load_broker(struct sl_supervisor *s, const struct saved_child *saved)
{
	struct sl_child *c = NULL;
	int r = saved->pid ? adopt(s, SL_ROLE_BROKER, saved, &s->brokering.events, &c) : 0;

	if (c)
		sl_brokering_adopt(s, c, saved->flag);
	return r;
}

/* Up to the end of the state. */
static int load_pending(struct sl_supervisor *s, const char *p, const char *end, uint32_t n)
{
	for (; n > 0; n--) {
		_cleanup_(sl_overlay_change_done) struct sl_overlay_change change = { 0 };
		struct saved_pending saved;
		int r;

		if ((size_t)(end - p) < sizeof(saved))
			return -EPROTO;
		memcpy(&saved, p, sizeof(saved));
		p += sizeof(saved);
		if (saved.len > (uint64_t)(end - p))
			return -EPROTO;
		r = sl_overlay_decode(p, saved.len, &change);
		if (r == 0)
			r = sl_change_append(s, &saved.waiter, &change);
		if (r < 0)
			return r;
		p += saved.len;
	}
	return p == end ? 0 : -EPROTO;
}

static int load_all(struct sl_supervisor *s, const char *p, size_t len)
{
	const struct saved_header *h = (const void *)p;
	const char *listeners = p + sizeof(*h);
	const char *children;
	const char *links;
	const char *pending;
	int r;

	if (len < sizeof(*h) || h->version != SL_STATE_VERSION || h->size != sizeof(*h))
		return -EPROTO;
	children = listeners + h->n_listeners * sizeof(struct sl_listener);
	links = children + h->n_children * sizeof(struct saved_child);
	pending = links + h->n_links * sizeof(int32_t);
	if (pending > p + len)
		return -EPROTO;
	r = load_header(s, h);
	if (r == 0)
		r = load_listeners(s, listeners, h->n_listeners);
	for (uint32_t i = 0; r == 0 && i < h->n_children; i++) {
		struct saved_child c;

		memcpy(&c, children + i * sizeof(c), sizeof(c));
		r = load_child(s, &c);
	}
	if (r == 0)
		r = load_broker(s, &h->broker);
	if (r == 0)
		r = load_denied(s, h, (const void *)links);
	if (r == 0)
		r = sl_secrets_adopt(s, h->certs_fd, h->tickets_fd, h->tickets_left_ms);
	return r < 0 ? r : load_pending(s, pending, p + len, h->n_pending);
}

int sl_resume_load(struct sl_supervisor *s, int state_fd)
{
	_cleanup_fd_ int fd = state_fd;
	_cleanup_free_ char *p = NULL;
	size_t len;
	int r = sl_memfd_read(fd, STATE_MAX, &p, &len);

	if (r == 0)
		r = load_all(s, p, len);
	if (r < 0)
		return sl_err(r, "cannot take over from the program before this one");
	inherit_all(s, false);
	sl_denied_commit(s);
	sl_secrets_commit(s);
	sl_supervisor_send_facts(s);
	if (!s->brokering.child)
		sl_brokering_start(s);
	sl_info("upgrade: the supervisor is version " SL_VERSION " now");
	sl_supervisor_next_job(s);
	return 0;
}
