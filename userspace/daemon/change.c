/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/log.h"
#include "ctl/changes.h"
#include "daemon/state.h"

/*
 * Changes of routes at run time: each is a job as a reload is, but on the sources in
 * force instead of the files.
 */

static void free_pending(struct sl_pending *p)
{
	if (!p)
		return;
	sl_overlay_change_done(&p->change);
	free(p);
}

static struct sl_pending *take_first(struct sl_supervisor *s)
{
	struct sl_pending *p = SL_CONTAINER_OF(s->pending.next, struct sl_pending, node);

	sl_list_remove(&p->node);
	s->n_pending--;
	return p;
}

void sl_changes_done(struct sl_supervisor *s)
{
	while (!sl_list_is_empty(&s->pending))
		free_pending(take_first(s));
	free_pending(SL_TAKE_PTR(s->changing));
}

int sl_change_append(struct sl_supervisor *s, const struct sl_waiter *waiter,
		     struct sl_overlay_change *change)
{
	struct sl_pending *p = calloc(1, sizeof(*p));

	if (!p)
		return -ENOMEM;
	p->waiter = *waiter;
	p->change = *change;
	*change = (struct sl_overlay_change){ 0 };
	sl_list_add(&s->pending, &p->node);
	s->n_pending++;
	return 0;
}

void sl_changes_cancel(struct sl_supervisor *s)
{
	struct sl_list *pos;

	if (s->changing)
		sl_supervisor_refuse(s, &s->changing->waiter, SL_CTL_FAILED, SL_STOPPING_TEXT);
	sl_list_for_each (pos, &s->pending)
		sl_supervisor_refuse(s, &SL_CONTAINER_OF(pos, struct sl_pending, node)->waiter,
				     SL_CTL_FAILED, SL_STOPPING_TEXT);
	sl_changes_done(s);
}

int sl_change_take(struct sl_supervisor *s, const struct sl_waiter *waiter, int fd)
{
	_cleanup_(sl_overlay_change_done) struct sl_overlay_change change = { 0 };
	int r;

	if (s->stopping) {
		sl_supervisor_refuse(s, waiter, SL_CTL_FAILED, SL_STOPPING_TEXT);
		return 0;
	}
	if (s->n_pending >= SL_PENDING_MAX) {
		sl_supervisor_refuse(s, waiter, SL_CTL_BUSY,
				     "error: 256 changes are waiting already, try again later\n");
		return 0;
	}
	r = sl_overlay_unpack(fd, &change);
	if (r == 0)
		r = sl_change_append(s, waiter, &change);
	if (r == -ENOMEM) {
		sl_supervisor_refuse(s, waiter, SL_CTL_FAILED, "error: out of memory\n");
		return 0;
	}
	return r;
}

/* ---- what is asked for ---- */

static const struct sl_conf_route *find_route(const struct sl_conf *conf, const char *name)
{
	for (size_t i = 0; i < conf->n_routes; i++)
		if (strcmp(conf->routes[i].name, name) == 0)
			return &conf->routes[i];
	return NULL;
}

static bool has_target(const struct sl_conf_route *r, const char *address)
{
	for (size_t i = 0; i < r->n_targets; i++)
		if (strcmp(r->targets[i].address, address) == 0)
			return true;
	return false;
}

static bool is_target(const struct sl_conf *conf, const struct sl_overlay_change *c)
{
	for (size_t i = 0; i < conf->n_routes; i++)
		if ((!c->subject[0] || strcmp(conf->routes[i].name, c->subject) == 0) &&
		    has_target(&conf->routes[i], c->text))
			return true;
	return false;
}

/* -ENOENT, reported: there is nothing the change could be made to. */
static int look_for_object(const struct sl_conf *conf, const struct sl_overlay_change *c,
			   struct sl_str *report)
{
	if (c->kind == SL_SOURCE_FILE || c->kind == SL_SOURCE_ROUTE || c->undo)
		return 0;
	if (c->subject[0] && !find_route(conf, c->subject)) {
		sl_str_addf(report, "error: there is no route '%s'\n", c->subject);
		return -ENOENT;
	}
	if (c->kind != SL_SOURCE_DRAIN || is_target(conf, c))
		return 0;
	if (c->subject[0])
		sl_str_addf(report, "error: the route '%s' has no target '%s'\n", c->subject,
			    c->text);
	else
		sl_str_addf(report, "error: no route has a target '%s'\n", c->text);
	sl_str_adds(report, "note: targets are named as the configuration writes them\n");
	return -ENOENT;
}

static int nothing_to_undo(const struct sl_overlay_change *c, struct sl_str *report)
{
	if (c->kind == SL_SOURCE_FILE && c->subject[0])
		sl_str_addf(report, "error: no change of the route '%s' is in force\n", c->subject);
	else if (c->kind == SL_SOURCE_FILE)
		return 0; /* there was nothing to forget, and nothing is left */
	else if (c->subject[0])
		sl_str_addf(report,
			    "error: the target '%s' is not drained for the route '%s' alone\n",
			    c->text, c->subject);
	else
		sl_str_addf(report, "error: the target '%s' is not drained\n", c->text);
	return -ENOENT;
}

/*
 * Builds without the change and what it replaces. 1: that is all it takes: the files have it
 * so, and the list stays short.
 */
static int try_without(const struct sl_conf_sources *sources, const struct sl_overlay_change *c,
		       struct sl_conf **ret)
{
	_cleanup_(sl_diags_done) struct sl_diags ignored = { 0 };
	_cleanup_(sl_conf_freep) struct sl_conf *conf = NULL;
	int r;

	if (c->kind != SL_SOURCE_REMOVE && c->kind != SL_SOURCE_ENABLE &&
	    c->kind != SL_SOURCE_DISABLE)
		return 0;
	r = sl_conf_build(sources, &conf, &ignored);
	if (r == -ENOMEM)
		return r;
	if (r < 0 || !sl_overlay_is_done(conf, c))
		return 0;
	*ret = SL_TAKE_PTR(conf);
	return 1;
}

static int put(struct sl_conf_sources *sources, const struct sl_overlay_change *c, size_t at,
	       struct sl_str *report)
{
	int r = sl_overlay_put(sources, c, at);

	if (r == -ENOSPC)
		sl_str_addf(
			report,
			"error: at most %d changes with %zu MiB of text can be in force; write "
			"them into the files, then 'sluice reload' and 'sluice routes forget'\n",
			SL_CHANGES_MAX, SL_CHANGES_BYTES >> 20);
	return r;
}

/* Of warnings, those about what was changed; the others have been told before. */
static void add_own_warnings(const struct sl_diags *diags, struct sl_str *report)
{
	const char *p = sl_str_text(&diags->text);
	bool is_own = false;

	while (*p) {
		size_t n = strcspn(p, "\n");

		n += p[n] == '\n';
		if (*p != ' ')
			is_own = strncmp(p, "runtime:", 8) == 0;
		if (is_own)
			sl_str_add(report, p, n);
		p += n;
	}
}

/* Changes the list in `bundle` and builds. */
static int make(const struct sl_conf *now, const struct sl_overlay_change *c,
		struct sl_bundle *bundle, struct sl_conf **ret, struct sl_str *report)
{
	_cleanup_(sl_diags_done) struct sl_diags diags = { 0 };
	size_t dropped;
	size_t at;
	int r = look_for_object(now, c, report);

	if (r < 0)
		return r;
	dropped = sl_overlay_drop(&bundle->sources, c, &at);
	if (c->kind == SL_SOURCE_FILE || c->undo) {
		r = dropped ? 0 : nothing_to_undo(c, report);
	} else {
		r = try_without(&bundle->sources, c, ret);
		if (r > 0)
			return 0;
		if (r == 0)
			r = put(&bundle->sources, c, at, report);
	}
	if (r < 0)
		return r;
	r = sl_conf_build(&bundle->sources, ret, &diags);
	if (r < 0)
		sl_str_add(report, sl_str_text(&diags.text), diags.text.len);
	else
		add_own_warnings(&diags, report);
	return r;
}

/* ---- the job ---- */

void sl_change_start(struct sl_supervisor *s)
{
	_cleanup_(sl_bundle_done) struct sl_bundle bundle = { 0 };
	_cleanup_(sl_bundle_done) struct sl_bundle old = { 0 };
	struct sl_pending *p = take_first(s);
	int r;

	s->changing = p;
	s->job_what = SL_CTL_CHANGE;
	s->saves_changes = false;
	s->next = (struct sl_setup){ .bundle_fd = -1,
				     .http_fd = -1,
				     .generation = s->now.generation + 1 };
	p->result = SL_CTL_FAILED;
	r = sl_bundle_unpack(s->now.bundle_fd, &old);
	if (r == 0)
		r = sl_bundle_unpack(s->now.bundle_fd, &bundle);
	if (r == 0)
		r = make(s->now.conf, &p->change, &bundle, &s->next.conf, &s->report);
	if (r == -ENOENT)
		p->result = SL_CTL_NOT_FOUND;
	if (r == 0)
		s->saves_changes = !sl_overlay_keeps_same(&old.sources, &bundle.sources);
	p->is_new =
		p->change.kind == SL_SOURCE_ROUTE && !find_route(s->now.conf, p->change.subject);
	sl_reload_switch(s, &bundle, r);
}

int sl_change_save(struct sl_supervisor *s)
{
	_cleanup_(sl_bundle_done) struct sl_bundle bundle = { 0 };
	int r;

	if (s->job_what != SL_CTL_CHANGE || !s->saves_changes)
		return 0;
	r = sl_bundle_unpack(s->next.bundle_fd, &bundle);
	if (r == 0)
		r = sl_overlay_save(s->changes_path, &bundle.sources);
	if (r < 0)
		sl_str_addf(&s->report, "error: the change cannot be kept in %s: %s\n",
			    s->changes_path, strerror(-r));
	return r;
}

static void describe(const struct sl_pending *p, struct sl_str *out)
{
	const struct sl_overlay_change *c = &p->change;
	static const char *const done[SL_SOURCE_KIND_COUNT_] = {
		[SL_SOURCE_REMOVE] = "removed",
		[SL_SOURCE_ENABLE] = "enabled",
		[SL_SOURCE_DISABLE] = "disabled",
	};

	if (c->kind == SL_SOURCE_DRAIN)
		sl_str_addf(out, "target %s %s", c->text, c->undo ? "undrained" : "drained");
	else if (c->kind == SL_SOURCE_FILE && !c->subject[0])
		sl_str_adds(out, "all changes forgotten");
	else if (c->kind == SL_SOURCE_FILE)
		sl_str_addf(out, "changes of the route %s forgotten", c->subject);
	else if (c->kind == SL_SOURCE_ROUTE)
		sl_str_addf(out, "route %s %s", c->subject, p->is_new ? "added" : "replaced");
	else
		sl_str_addf(out, "route %s %s", c->subject, done[c->kind]);
}

static enum sl_ctl_result result_of(const struct sl_pending *p, const struct sl_str *report,
				    bool ok)
{
	if (ok)
		return p->is_new ? SL_CTL_CREATED : SL_CTL_DONE;
	if (p->result == SL_CTL_FAILED && strstr(sl_str_text(report), ": error: "))
		return SL_CTL_REFUSED;
	return p->result;
}

void sl_change_finish(struct sl_supervisor *s, bool ok)
{
	struct sl_pending *p = SL_TAKE_PTR(s->changing);
	_cleanup_(sl_str_done) struct sl_str what = { 0 };
	size_t len = s->report.len;

	while (len > 0 && s->report.p[len - 1] == '\n')
		len--;
	if (ok) {
		describe(p, &what);
		sl_info("%s, generation %" PRIu64, sl_str_text(&what), s->now.generation);
	} else {
		sl_log(SL_LOG_WARN, "change refused (%s%s %s):\n%.*s", p->change.undo ? "un" : "",
		       p->change.kind == SL_SOURCE_FILE ? "forget"
							: sl_changes_word(p->change.kind),
		       p->change.subject, (int)len, sl_str_text(&s->report));
	}
	if (ok)
		sl_str_addf(&s->report, "%s, generation %" PRIu64 " is in force\n",
			    sl_str_text(&what), s->now.generation);
	sl_supervisor_reply(s, &p->waiter, result_of(p, &s->report, ok));
	sl_str_done(&s->report);
	free_pending(p);
	s->job = SL_JOB_NONE;
	sl_supervisor_next_job(s);
}
