/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "daemon/cert_store.h"
#include "daemon/file_watch.h"
#include "daemon/state.h"
#include "daemon/ticket_keys.h"
#include "tls/material.h"

static void on_look(void *arg, bool is_regular);

int sl_secrets_init(struct sl_supervisor *s)
{
	return sl_file_watch_new(s->loop, on_look, s, &s->cert_watch);
}

void sl_secrets_done(struct sl_supervisor *s)
{
	sl_timer_stop(&s->tickets_turn);
	sl_file_watch_free(s->cert_watch);
	s->cert_watch = NULL;
	sl_closep(&s->tickets_fd);
}

/* Until the program ends: what was freed is wiped, but who would swear to all of it. */
static int hide_keys(const struct sl_conf *conf)
{
	int r = sl_cert_store_has_keys(conf) ? sl_privs_hide_memory() : 0;

	return r < 0 ? sl_err(r, "cannot keep keys out of core files") : 0;
}

/* ---- files of a configuration ---- */

int sl_secrets_read(const struct sl_supervisor *s, const struct sl_conf_sources *sources,
		    struct sl_setup *setup, struct sl_str *report)
{
	_cleanup_(sl_diags_done) struct sl_diags diags = { 0 };
	const struct sl_cert_ask ask = {
		.conf = setup->conf,
		.sources = sources,
		.before = setup == &s->now ? NULL : s->now.certs,
		.conf_before = s->job_what == SL_CTL_CHANGE ? s->now.conf : NULL,
		.now_s = (int64_t)time(NULL),
	};
	int r = hide_keys(setup->conf);

	if (r == 0)
		r = sl_cert_store_read(&ask, &setup->certs, &diags);
	sl_str_add(report, sl_str_text(&diags.text), diags.text.len);
	if (r < 0 && diags.n_errors == 0)
		sl_str_addf(report, "error: cannot read certificates: %s\n",
			    r == -E2BIG ? "more than 256 MiB together" : strerrordesc_np(-r));
	return r;
}

/* ---- to proxies ---- */

static bool can_use(const struct sl_child *c)
{
	return c->state == SL_CHILD_STARTING || c->state == SL_CHILD_RUNNING;
}

static void send_to_all(struct sl_supervisor *s, enum sl_msg_type type, int fd)
{
	const struct sl_msg msg = { .type = type, .flag = 1 };
	struct sl_list *pos;

	sl_list_for_each (pos, &s->children) {
		struct sl_child *c = SL_CONTAINER_OF(pos, struct sl_child, node);

		if (can_use(c))
			sl_child_send_copy(c, &msg, fd);
	}
}

void sl_secrets_send(const struct sl_supervisor *s, struct sl_child *c)
{
	const struct sl_msg tickets = { .type = SL_MSG_TICKETS };
	const struct sl_msg materials = { .type = SL_MSG_MATERIALS };

	if (s->tickets_fd >= 0)
		sl_child_send_copy(c, &tickets, s->tickets_fd);
	if (s->now.certs)
		sl_child_send_copy(c, &materials, s->now.certs->fd);
}

/* That no route needs any is told, too, so that the proxy wipes those it has. */
static void send_none(struct sl_child *c, const struct sl_msg *msg)
{
	const struct sl_materials none = { 0 };
	char *block = NULL;
	size_t n = 0;
	int fd = -1;

	if (sl_materials_pack(&none, &block, &n) == 0 &&
	    sl_memfd_new("sluice-certs", block, n, &fd) == 0)
		sl_child_send_owned(c, msg, fd);
	free(block);
}

void sl_secrets_send_next(const struct sl_supervisor *s)
{
	const struct sl_msg msg = { .type = SL_MSG_MATERIALS };
	const struct sl_cert_store *next = s->next.certs;

	if (next && !(s->now.certs && next->is_same))
		sl_child_send_copy(s->current, &msg, next->fd);
	else if (!next && s->now.certs)
		send_none(s->current, &msg);
}

/* ---- keys of tickets ---- */

static void on_turn(struct sl_timer *timer);

static void wait_turn(struct sl_supervisor *s, uint64_t wait_ms)
{
	sl_timer_start(s->loop, &s->tickets_turn, sl_loop_now_ms(s->loop) + wait_ms, on_turn);
}

/* On failure those in use go on; sessions of the last hours can be resumed, only longer. */
static void turn(struct sl_supervisor *s)
{
	int fd = -1;
	int r = s->tickets_fd < 0 ? sl_ticket_keys_new(&fd)
				  : sl_ticket_keys_turn(s->tickets_fd, &fd);

	wait_turn(s, SL_TICKET_KEYS_TURN_MS);
	if (r < 0) {
		(void)sl_err(r, "cannot make keys for session tickets, trying again in an hour");
		return;
	}
	sl_closep(&s->tickets_fd);
	s->tickets_fd = fd;
	send_to_all(s, SL_MSG_TICKETS, fd);
}

static void on_turn(struct sl_timer *timer)
{
	turn(SL_CONTAINER_OF(timer, struct sl_supervisor, tickets_turn));
}

static void keep_tickets(struct sl_supervisor *s)
{
	bool needed = sl_cert_store_has_servers(s->now.conf);

	if (needed && s->tickets_fd < 0) {
		turn(s);
	} else if (!needed) {
		sl_timer_stop(&s->tickets_turn);
		sl_closep(&s->tickets_fd);
	}
}

uint64_t sl_secrets_tickets_left_ms(const struct sl_supervisor *s)
{
	uint64_t now_ms = sl_loop_now_ms(s->loop);

	return s->tickets_turn.at_ms > now_ms ? s->tickets_turn.at_ms - now_ms : 1;
}

/* ---- watching ---- */

static size_t list_paths(const struct sl_cert_store *store, const char **ret)
{
	size_t n = 0;

	for (size_t i = 0; i < store->n; i++)
		for (size_t k = 0; k < store->route[i].n; k++, n++)
			if (ret)
				ret[n] = store->route[i].file[k].path;
	if (store->system.path && ret)
		ret[n] = store->system.path;
	return n + (store->system.path != NULL);
}

static void watch(struct sl_supervisor *s)
{
	const struct sl_cert_store *store = s->now.certs;
	size_t n = store ? list_paths(store, NULL) : 0;
	_cleanup_free_ const char **paths = calloc(n + 1, sizeof(*paths));
	int r = paths ? 0 : -ENOMEM;

	if (r == 0 && store)
		(void)list_paths(store, paths);
	if (r == 0)
		r = sl_file_watch_set(s->cert_watch, paths, n);
	if (r < 0)
		(void)sl_warn(r, "cannot watch the files of certificates");
	sl_file_watch_ask(s->cert_watch); /* they may have changed since they were read */
}

void sl_secrets_commit(struct sl_supervisor *s)
{
	keep_tickets(s);
	watch(s);
}

static enum sl_log_level level_of(const char *line)
{
	if (strncmp(line, "error: ", 7) == 0)
		return SL_LOG_ERROR;
	return strncmp(line, "warning: ", 9) == 0 ? SL_LOG_WARN : SL_LOG_INFO;
}

static void log_lines(const struct sl_str *text)
{
	const char *p = sl_str_text(text);

	while (*p) {
		enum sl_log_level level = level_of(p);
		size_t n = strcspn(p, "\n");
		const char *from = level == SL_LOG_INFO ? p : strchr(p, ' ') + 1;

		sl_log(level, "%.*s", (int)(n - (size_t)(from - p)), from);
		p += n + (p[n] == '\n');
	}
}

static int look(struct sl_supervisor *s, enum sl_cert_look which, struct sl_cert_news *news)
{
	struct sl_cert_store *store = s->now.certs;
	int r = sl_cert_store_look(store, s->now.conf, (int64_t)time(NULL), which, news);

	if (r == 0 && news->is_changed)
		send_to_all(s, SL_MSG_MATERIALS, store->fd);
	return r;
}

static void on_look(void *arg, bool is_regular)
{
	_cleanup_(sl_cert_news_done) struct sl_cert_news news = { 0 };
	struct sl_supervisor *s = arg;
	int r;

	if (s->stopping || !s->now.certs)
		return;
	if (s->job != SL_JOB_NONE) {
		sl_file_watch_ask(s->cert_watch); /* when that is over */
		return;
	}
	r = look(s, is_regular ? SL_CERT_LOOK_PROBLEMS : SL_CERT_LOOK_CHANGED, &news);
	if (r < 0)
		(void)sl_err(r, "cannot read the files of certificates, trying again in a minute");
	else
		log_lines(&news.text);
}

/* ---- when asked to ---- */

void sl_secrets_start(struct sl_supervisor *s)
{
	_cleanup_(sl_cert_news_done) struct sl_cert_news news = { 0 };
	int r;

	if (!s->now.certs) {
		sl_str_adds(&s->report, "no route has certificates\n");
		sl_supervisor_finish_job(s, SL_CTL_CERT_RELOAD, true);
		return;
	}
	r = look(s, SL_CERT_LOOK_ALL, &news);
	sl_str_add(&s->report, sl_str_text(&news.text), news.text.len);
	if (r < 0)
		sl_str_addf(&s->report, "error: cannot read the files: %s\n", strerrordesc_np(-r));
	else
		sl_str_addf(&s->report,
			    "%zu route%s read, %zu with new certificates, %zu problem%s\n",
			    news.n_looked, news.n_looked == 1 ? "" : "s", news.n_replaced,
			    news.n_bad, news.n_bad == 1 ? "" : "s");
	sl_supervisor_finish_job(s, SL_CTL_CERT_RELOAD, r == 0 && news.n_bad == 0);
}

/* ---- after an exec ---- */

int sl_secrets_adopt(struct sl_supervisor *s, int certs_fd, int tickets_fd,
		     uint64_t tickets_left_ms)
{
	int r = hide_keys(s->now.conf);

	s->tickets_fd = tickets_fd;
	if (tickets_fd >= 0)
		wait_turn(s, tickets_left_ms < SL_TICKET_KEYS_TURN_MS ? tickets_left_ms
								      : SL_TICKET_KEYS_TURN_MS);
	if (certs_fd < 0)
		return r;
	if (r == 0)
		r = sl_cert_store_adopt(s->now.conf, certs_fd, &s->now.certs);
	else
		(void)close(certs_fd);
	return r;
}
