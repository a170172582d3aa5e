/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "daemon/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "accel/guard.h"
#include "base/log.h"
#include "base/siphash.h"
#include "daemon/deny_set.h"
#include "io/ifwatch.h"

/* Each has a descriptor; sources behind more interfaces meet the daemon's own check. */
#define MAX_LINKS 4096

struct link {
	unsigned ifindex;
	int fd;
};

struct sl_guarding {
	struct sl_loop *loop;
	void (*changed)(void *arg);
	void *arg;
	struct sl_guard *guard; /* NULL: not in use */
	struct sl_ifwatch *watch;
	int count_fd;
	unsigned n_loads;
	struct link *links;
	size_t n_links;
	size_t n_failed; /* interfaces it could not be attached to */
	int attach_error;
	int *old_links; /* of the program before an exec */
	size_t n_old_links;
	uint64_t denied_hash; /* of what the tables were filled from */
	uint32_t n_ranges;
	size_t n_globs_left; /* patterns that only the daemon applies */
	size_t n_ports_left; /* ports of single addresses, likewise */
	char text[112];
};

/* ---- interfaces ---- */

static void close_links(struct sl_guarding *g)
{
	for (size_t i = 0; i < g->n_links; i++)
		sl_closep(&g->links[i].fd);
	free(g->links);
	g->links = NULL;
	g->n_links = 0;
	g->n_failed = 0;
	g->attach_error = 0;
}

static void close_old_links(struct sl_guarding *g)
{
	for (size_t i = 0; i < g->n_old_links; i++)
		sl_closep(&g->old_links[i]);
	free(g->old_links);
	g->old_links = NULL;
	g->n_old_links = 0;
}

static void forget(struct sl_guarding *g, size_t i)
{
	sl_closep(&g->links[i].fd);
	g->links[i] = g->links[--g->n_links];
}

static void on_gone(struct sl_guarding *g, unsigned ifindex)
{
	for (size_t i = 0; i < g->n_links; i++) {
		if (g->links[i].ifindex != ifindex)
			continue;
		forget(g, i);
		return;
	}
}

static int add_link(struct sl_guarding *g, unsigned ifindex)
{
	struct link *links = realloc(g->links, (g->n_links + 1) * sizeof(*links));
	int fd = -1;
	int r;

	if (!links)
		return -ENOMEM;
	g->links = links;
	if (g->n_links == MAX_LINKS)
		return -E2BIG;
	r = sl_guard_attach(g->guard, ifindex, &fd);
	if (r < 0)
		return r;
	links[g->n_links++] = (struct link){ ifindex, fd };
	return 0;
}

static void on_here(struct sl_guarding *g, unsigned ifindex)
{
	int r;

	for (size_t i = 0; i < g->n_links; i++) {
		if (g->links[i].ifindex != ifindex)
			continue;
		if (sl_guard_is_attached(g->links[i].fd, ifindex))
			return;
		forget(g, i); /* another one with the old one's number */
		break;
	}
	r = add_link(g, ifindex);
	if (r == 0 || r == -ENODEV)
		return;
	g->n_failed++;
	g->attach_error = r;
	sl_debug("guard: cannot attach to interface %u: %s", ifindex, strerror(-r));
}

/* Events about those that are gone may be among the lost ones. */
static void on_lost(struct sl_guarding *g)
{
	g->n_failed = 0;
	for (size_t i = g->n_links; i-- > 0;)
		if (!sl_guard_is_attached(g->links[i].fd, g->links[i].ifindex))
			forget(g, i);
}

/* ---- what it says ---- */

/* Whether it is another one. */
static bool set_text(struct sl_guarding *g, const char *text)
{
	if (strncmp(g->text, text, sizeof(g->text) - 1) == 0)
		return false;
	(void)snprintf(g->text, sizeof(g->text), "%s", text);
	sl_info("denied sources: %s", g->text);
	return true;
}

static bool describe(struct sl_guarding *g)
{
	_cleanup_(sl_str_done) struct sl_str s = { 0 };

	sl_str_addf(&s, "tcx on %zu", g->n_links);
	if (g->n_failed)
		sl_str_addf(&s, " of %zu", g->n_links + g->n_failed);
	sl_str_addf(&s, " interface%s", g->n_links + g->n_failed == 1 ? "" : "s");
	if (g->n_failed)
		sl_str_addf(&s, " (%s)", strerror(-g->attach_error));
	sl_str_addf(&s, ", %" PRIu32 " range%s", g->n_ranges, g->n_ranges == 1 ? "" : "s");
	if (g->n_globs_left)
		sl_str_addf(&s, ", %zu patterns in userspace", g->n_globs_left);
	if (g->n_ports_left)
		sl_str_addf(&s, ", %zu ports in userspace", g->n_ports_left);
	return set_text(g, sl_str_text(&s));
}

static void stop_with(struct sl_guarding *g, const char *text)
{
	sl_ifwatch_free(g->watch);
	g->watch = NULL;
	close_links(g);
	close_old_links(g);
	sl_guard_free(g->guard);
	g->guard = NULL;
	g->denied_hash = 0;
	g->n_ranges = 0;
	g->n_globs_left = 0;
	g->n_ports_left = 0;
	(void)set_text(g, text);
}

static void fail(struct sl_guarding *g, const char *what, int err)
{
	char text[sizeof(g->text)];

	(void)snprintf(text, sizeof(text), "userspace: %s (%s)", what, strerror(-err));
	stop_with(g, text);
}

static void on_interface(void *arg, enum sl_ifwatch_event event, unsigned ifindex)
{
	struct sl_guarding *g = arg;

	switch (event) {
	case SL_IF_HERE:
		on_here(g, ifindex);
		break;
	case SL_IF_GONE:
		on_gone(g, ifindex);
		break;
	case SL_IF_LOST:
		on_lost(g);
		break;
	case SL_IF_SETTLED:
		/* The first time it is not ours yet. */
		if (g->watch && describe(g))
			g->changed(g->arg);
		break;
	}
}

/* ---- the rules ---- */

/*
 * Behind accept_proxy the client is known only after its header, and who connects may well be
 * denied: such ports are the daemon's.
 */
static void mark_closed(const struct sl_conf *conf, bool *closed)
{
	for (size_t i = 0; i < conf->n_accept_proxies; i++) {
		const struct sl_port_spec *p = &conf->accept_proxies[i].ports;

		for (unsigned port = p->from; port <= p->to; port++)
			closed[port] = true;
	}
}

/* The runs of other ports; their number, and themselves where there is room for them. */
static size_t add_runs(const struct sl_listen_spec *spec, const bool *closed,
		       struct sl_guard_listen *ret)
{
	bool in_run = false;
	size_t n = 0;

	for (unsigned port = spec->from; port <= spec->to; port++) {
		if (!closed[port] && !in_run && ret)
			ret[n] = (struct sl_guard_listen){ .ip = spec->ip, .from = (uint16_t)port };
		n += !closed[port] && !in_run;
		in_run = !closed[port];
		if (in_run && ret)
			ret[n - 1].to = (uint16_t)port;
	}
	return n;
}

static int set_listens(struct sl_guarding *g, const struct sl_conf *conf)
{
	_cleanup_free_ bool *closed = calloc(UINT16_MAX + 1u, sizeof(*closed));
	_cleanup_free_ struct sl_guard_listen *listens = NULL;
	size_t n = 0;
	size_t at = 0;

	if (!closed)
		return -ENOMEM;
	mark_closed(conf, closed);
	for (size_t i = 0; i < conf->n_listens; i++)
		n += add_runs(&conf->listens[i], closed, NULL);
	listens = calloc(n + 1, sizeof(*listens));
	if (!listens)
		return -ENOMEM;
	for (size_t i = 0; i < conf->n_listens; i++)
		at += add_runs(&conf->listens[i], closed, listens + at);
	return sl_guard_set_listens(g->guard, listens, n, &g->n_ports_left);
}

static uint64_t hash_of(const struct sl_ip_set *set, const struct sl_deny_list *list)
{
	static const uint8_t key[16] = "denied sources";
	const uint64_t parts[] = {
		list ? list->id : 0,
		sl_siphash(set->v4, set->n4 * sizeof(*set->v4), key),
		sl_siphash(set->v6, set->n6 * sizeof(*set->v6), key),
		sl_siphash(set->globs, set->n_globs * sizeof(*set->globs), key),
	};

	return sl_siphash(parts, sizeof(parts), key) | 1; /* 0: nothing yet */
}

/* Both lists in one, with as few globs as possible. */
static int merge(const struct sl_ip_set *deny, const struct sl_deny_list *list,
		 struct sl_ip_set *ret)
{
	_cleanup_(sl_ip_list_done) struct sl_ip_set set = { 0 };
	int r = list ? sl_deny_set_unpack(list->fd, &set) : 0;

	if (r == 0)
		r = sl_deny_set_append(&set, deny);
	if (r == 0)
		r = sl_deny_set_expand(&set);
	if (r < 0)
		return r;
	sl_deny_set_build(&set);
	*ret = set;
	set = (struct sl_ip_set){ 0 };
	return 0;
}

/* Filling a million takes longer than everything else in a change of routes, so not without need.
 */
static int set_denied(struct sl_guarding *g, const struct sl_ip_set *deny,
		      const struct sl_deny_list *list)
{
	_cleanup_(sl_ip_list_done) struct sl_ip_set set = { 0 };
	uint64_t hash = hash_of(deny, list);
	int r;

	if (hash == g->denied_hash)
		return 0;
	r = merge(deny, list, &set);
	if (r == 0)
		r = sl_guard_set_denied(g->guard, &set);
	if (r < 0)
		return r;
	g->denied_hash = hash;
	g->n_ranges = (uint32_t)(set.n4 + set.n6);
	g->n_globs_left = set.n_globs;
	return 0;
}

static int load(struct sl_guarding *g)
{
	int old = g->count_fd >= 0 ? fcntl(g->count_fd, F_DUPFD_CLOEXEC, 3) : -1;
	int fd;
	int r = sl_guard_new(old, &g->guard);

	if (r < 0)
		return r;
	fd = fcntl(sl_guard_count_fd(g->guard), F_DUPFD_CLOEXEC, 3);
	if (fd < 0)
		return -errno;
	sl_closep(&g->count_fd);
	g->count_fd = fd;
	g->n_loads++;
	return 0;
}

static int attach(struct sl_guarding *g)
{
	struct sl_ifwatch *watch = NULL;
	int r;

	if (g->watch)
		return 0;
	r = sl_ifwatch_new(g->loop, on_interface, g, &watch);
	if (r == 0 && g->n_links == 0)
		r = g->attach_error ? g->attach_error : -ENODEV;
	if (r < 0)
		sl_ifwatch_free(watch);
	else
		g->watch = watch;
	return r;
}

static int fill(struct sl_guarding *g, const struct sl_conf *conf, const struct sl_deny_list *list)
{
	int r = set_listens(g, conf);

	return r < 0 ? r : set_denied(g, &conf->global.access.deny, list);
}

static void start(struct sl_guarding *g, const struct sl_conf *conf,
		  const struct sl_deny_list *list)
{
	const char *what = "cannot load the program";
	int r = g->guard ? 0 : load(g);

	if (r == 0) {
		what = "cannot fill its tables";
		r = fill(g, conf, list);
	}
	if (r == 0) {
		what = "no tcx";
		r = attach(g);
	}
	if (r < 0) {
		fail(g, what, r);
		return;
	}
	close_old_links(g);
	(void)describe(g);
}

void sl_guarding_set(struct sl_guarding *g, const struct sl_conf *conf,
		     const struct sl_deny_list *list)
{
	if (sl_ip_set_is_empty(&conf->global.access.deny) && (!list || list->n_ranges == 0))
		stop_with(g, "none");
	else if (!conf->global.enforce_in_kernel)
		stop_with(g, "userspace: configured");
	else
		start(g, conf, list);
}

/* ---- life ---- */

int sl_guarding_new(struct sl_loop *loop, void (*changed)(void *arg), void *arg,
		    struct sl_guarding **ret)
{
	struct sl_guarding *g = calloc(1, sizeof(*g));

	if (!g)
		return -ENOMEM;
	*g = (struct sl_guarding){
		.loop = loop, .changed = changed, .arg = arg, .count_fd = -1, .text = "none"
	};
	*ret = g;
	return 0;
}

void sl_guarding_stop(struct sl_guarding *g)
{
	memcpy(g->text, "none", sizeof("none")); /* no news */
	stop_with(g, "none");
}

void sl_guarding_free(struct sl_guarding *g)
{
	if (!g)
		return;
	sl_guarding_stop(g);
	sl_closep(&g->count_fd);
	free(g);
}

const char *sl_guarding_text(const struct sl_guarding *g)
{
	return g->text;
}

uint32_t sl_guarding_n_interfaces(const struct sl_guarding *g)
{
	return (uint32_t)g->n_links;
}

uint32_t sl_guarding_n_ranges(const struct sl_guarding *g)
{
	return g->n_ranges;
}

unsigned sl_guarding_n_loads(const struct sl_guarding *g)
{
	return g->n_loads;
}

int sl_guarding_count_fd(const struct sl_guarding *g)
{
	return g->count_fd;
}

/* ---- exec ---- */

size_t sl_guarding_n_links(const struct sl_guarding *g)
{
	return g->n_links;
}

int sl_guarding_link_fd(const struct sl_guarding *g, size_t i)
{
	return g->links[i].fd;
}

int sl_guarding_adopt(struct sl_guarding *g, int count_fd, const int *link_fds, size_t n)
{
	int *old = calloc(n + 1, sizeof(*old));

	g->count_fd = count_fd;
	if (!old) {
		for (size_t i = 0; i < n; i++)
			(void)close(link_fds[i]);
		return -ENOMEM;
	}
	memcpy(old, link_fds, n * sizeof(*old));
	g->old_links = old;
	g->n_old_links = n;
	return 0;
}
