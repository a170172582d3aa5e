/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "daemon/cert_store.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/memfd.h"
#include "conf/diag.h"
#include "daemon/cert_route.h"
#include "proxy/secure.h"
#include "tls/library.h"

/* Where distributions keep whom they trust; the first that is there. */
static const char *const system_paths[] = {
	"/etc/ssl/certs/ca-certificates.crt",
	"/etc/pki/tls/certs/ca-bundle.crt",
	"/etc/ssl/ca-bundle.pem",
	"/etc/ssl/cert.pem",
};

/* Behind so much text the source is not shown any more: each place is looked for from the begin. */
#define EXCERPTS_UNTIL 65536

/* ---- what is kept ---- */

static void seen_done(struct sl_cert_seen *s)
{
	free(s->path);
	*s = (struct sl_cert_seen){ 0 };
}

static void seen_route_done(struct sl_cert_seen_route *r)
{
	for (size_t i = 0; i < r->n; i++)
		seen_done(&r->file[i]);
	free(r->file);
	free(r->name);
	*r = (struct sl_cert_seen_route){ 0 };
}

void sl_cert_store_free(struct sl_cert_store *store)
{
	if (!store)
		return;
	for (size_t i = 0; i < store->n; i++)
		seen_route_done(&store->route[i]);
	free(store->route);
	seen_done(&store->system);
	sl_closep(&store->fd);
	free(store);
}

static struct sl_cert_seen_route *find_seen(const struct sl_cert_store *store, const char *name)
{
	for (size_t i = 0; store && i < store->n; i++)
		if (strcmp(store->route[i].name, name) == 0)
			return &store->route[i];
	return NULL;
}

/* The paths of a route, none looked at yet. */
static int seen_route_init(struct sl_cert_seen_route *seen, const struct sl_conf_route *route)
{
	size_t n = sl_cert_route_files(route, NULL, 0);
	_cleanup_free_ struct sl_cert_wanted *wanted = calloc(n + 1, sizeof(*wanted));

	seen->name = strdup(route->name);
	seen->file = calloc(n + 1, sizeof(*seen->file));
	if (!wanted || !seen->name || !seen->file)
		return -ENOMEM;
	(void)sl_cert_route_files(route, wanted, n);
	for (; seen->n < n; seen->n++) {
		seen->file[seen->n].path = strdup(wanted[seen->n].path);
		if (!seen->file[seen->n].path)
			return -ENOMEM;
	}
	return 0;
}

static bool verifies_by_system(const struct sl_conf_route *route)
{
	return sl_conf_needs_secure(route) && route->backend_tls &&
	       route->backend_tls->verify == SL_VERIFY_CHOICE_SYSTEM;
}

static int store_new(const struct sl_conf *conf, struct sl_cert_store **ret)
{
	_cleanup_(sl_cert_store_freep) struct sl_cert_store *store = calloc(1, sizeof(*store));
	int r = 0;

	if (!store)
		return -ENOMEM;
	store->fd = -1;
	store->route = calloc(conf->n_routes + 1, sizeof(*store->route));
	if (!store->route)
		return -ENOMEM;
	for (size_t i = 0; r == 0 && i < conf->n_routes; i++)
		if (sl_conf_needs_secure(&conf->routes[i]))
			r = seen_route_init(&store->route[store->n++], &conf->routes[i]);
	if (r == 0)
		*ret = SL_TAKE_PTR(store);
	return r;
}

bool sl_cert_store_has_keys(const struct sl_conf *conf)
{
	for (size_t i = 0; i < conf->n_routes; i++) {
		const struct sl_conf_route *r = &conf->routes[i];

		if (r->enabled && (r->tls || (r->backend_tls && r->backend_tls->cert)))
			return true;
	}
	return false;
}

bool sl_cert_store_has_servers(const struct sl_conf *conf)
{
	for (size_t i = 0; i < conf->n_routes; i++)
		if (conf->routes[i].enabled && conf->routes[i].tls)
			return true;
	return false;
}

static bool is_needed(const struct sl_conf *conf)
{
	for (size_t i = 0; i < conf->n_routes; i++)
		if (sl_conf_needs_secure(&conf->routes[i]))
			return true;
	return false;
}

/* ---- one go at all routes ---- */

/* What there will be of a route. */
struct outcome {
	const struct sl_conf_route *route;
	struct sl_cert_reading reading;
	struct sl_material item; /* its bytes are those of `reading` or of the block in use */
	char *problem;           /* owned */
	bool is_left_out;        /* there is nothing good of it */
	bool is_same;            /* as in the block in use */
};

struct work {
	const struct sl_conf *conf;
	int64_t now_s;
	struct sl_materials old;    /* the block in use; zeros: none */
	struct sl_cert_file system; /* zeros: not read */
	const void *system_ca;      /* of `system` or of `old` */
	size_t system_ca_len;
	struct sl_cert_store *store; /* what was seen goes there */
	struct outcome *outcome;     /* of each route of the store */
	size_t total;                /* bytes read */
};

static void work_done(struct work *w)
{
	for (size_t i = 0; w->outcome && i < w->store->n; i++) {
		sl_cert_reading_done(&w->outcome[i].reading);
		free(w->outcome[i].problem);
	}
	free(w->outcome);
	sl_cert_file_done(&w->system);
	sl_materials_done(&w->old);
}

/* `w->store` is set. */
static int work_init(struct work *w, int fd)
{
	char *block = NULL;
	size_t n = 0;
	size_t at = 0;
	int r;

	w->outcome = calloc(w->store->n + 1, sizeof(*w->outcome));
	if (!w->outcome)
		return -ENOMEM;
	for (size_t i = 0; i < w->conf->n_routes; i++)
		if (sl_conf_needs_secure(&w->conf->routes[i]))
			w->outcome[at++].route = &w->conf->routes[i];
	r = sl_tls_init();
	if (r < 0 || fd < 0)
		return r;
	r = sl_memfd_read(fd, SL_MATERIALS_MAX, &block, &n);
	if (r == 0)
		r = sl_materials_unpack(block, n, &w->old);
	w->system_ca = w->old.system_ca;
	w->system_ca_len = w->old.system_ca_len;
	return r;
}

static int compare_items(const void *a, const void *b)
{
	return strcmp(((const struct sl_material *)a)->route,
		      ((const struct sl_material *)b)->route);
}

/* A block of all outcomes. */
static int pack(const struct work *w, int *ret_fd)
{
	_cleanup_free_ struct sl_material *item = calloc(w->store->n + 1, sizeof(*item));
	struct sl_materials all = { .item = item,
				    .system_ca = w->system_ca,
				    .system_ca_len = w->system_ca_len };
	char *block = NULL;
	size_t len = 0;
	int r;

	if (!item)
		return -ENOMEM;
	for (size_t i = 0; i < w->store->n; i++)
		if (!w->outcome[i].is_left_out)
			item[all.n++] = w->outcome[i].item;
	qsort(item, all.n, sizeof(*item), compare_items);
	r = sl_materials_pack(&all, &block, &len);
	if (r < 0)
		return r;
	r = sl_memfd_new("sluice-certs", block, len, ret_fd);
	explicit_bzero(block, len);
	free(block);
	return r;
}

/* ---- whom the system trusts ---- */

static int find_system(struct sl_cert_file *ret, const char **ret_path, struct sl_str *why)
{
	for (size_t i = 0; i < SL_ARRAY_LEN(system_paths); i++) {
		*ret_path = system_paths[i];
		if (access(system_paths[i], F_OK) == 0)
			return sl_cert_file_read(system_paths[i], false, ret, why);
	}
	*ret_path = system_paths[0];
	sl_str_adds(why, "there is no such file, nor one where other systems have it: install "
			 "ca-certificates, or name a file by `verify`");
	return -ENOENT;
}

/* Reads and checks; what is in use stays on failure, of which `why` has a line. */
static int read_system(struct work *w, struct sl_str *why)
{
	_cleanup_(sl_str_done) struct sl_str text = { 0 };
	struct sl_cert_file file = { 0 };
	struct sl_tls_trust *trust = NULL;
	const char *path = NULL;
	int r = find_system(&file, &path, &text);

	w->store->system.id = file.id;
	free(w->store->system.path);
	w->store->system.path = strdup(path);
	if (r == 0) {
		r = sl_tls_trust_new(file.bytes, file.len, &trust);
		if (r < 0)
			sl_str_adds(&text, "no list of certificates that can be read");
	}
	sl_tls_trust_unref(trust);
	if (r < 0) {
		sl_str_addf(why, "%s: %s\n", path, sl_str_text(&text));
		sl_cert_file_done(&file);
		return r;
	}
	w->system = file;
	w->system_ca = file.bytes;
	w->system_ca_len = file.len;
	return 0;
}

/*
 * The list has been checked once; each route is with its first certificate alone, because a
 * system trusts 150 of them, and a configuration has many routes.
 */
static size_t first_of_system(const struct work *w)
{
	static const char end[] = "-----END CERTIFICATE-----";
	const char *p =
		w->system_ca ? memmem(w->system_ca, w->system_ca_len, end, strlen(end)) : NULL;

	return p ? (size_t)(p - (const char *)w->system_ca) + strlen(end) : w->system_ca_len;
}

static struct sl_cert_check check_of(const struct work *w, const struct sl_conf_route *route)
{
	return (struct sl_cert_check){ .now_s = w->now_s,
				       .in_use = sl_materials_find(&w->old, route->name),
				       .system_ca = w->system_ca,
				       .system_ca_len = first_of_system(w) };
}

/* ---- a route ---- */

/* Reads, compares, checks. 1: the files are those in use; -EINVAL: `found` says why. */
static int read_route(struct work *w, size_t at, struct sl_cert_findings *found)
{
	struct sl_cert_seen_route *seen = &w->store->route[at];
	struct outcome *o = &w->outcome[at];
	const struct sl_cert_check check = check_of(w, o->route);
	size_t left = w->total < SL_MATERIALS_MAX ? SL_MATERIALS_MAX - w->total : 0;
	int r;

	sl_cert_reading_done(&o->reading);
	r = sl_cert_route_read(o->route, left, &o->reading, found);
	for (size_t i = 0; i < o->reading.n; i++) {
		w->total += o->reading.file[i].len;
		if (i < seen->n)
			seen->file[i].id = o->reading.file[i].id;
	}
	if (r == -E2BIG) {
		sl_str_adds(&found->errors,
			    "the certificates of all routes are more than 256 MiB together\n");
		return -EINVAL;
	}
	if (r < 0)
		return r;
	o->item = o->reading.item;
	if (check.in_use && sl_cert_material_is_same(&o->item, check.in_use))
		return 1;
	return sl_cert_route_check(o->route, &o->item, &check, found);
}

/* ---- all of a configuration ---- */

static const struct sl_mark *place_of(const struct sl_conf_route *route)
{
	const struct sl_mark *at = route->tls ? &route->tls->mark : &route->backend_tls->mark;

	return at->line ? at : &route->mark;
}

/* The lines, each with its place before it, `more` behind it, and the source below it. */
static size_t tell(const struct sl_cert_ask *ask, const struct sl_conf_route *route,
		   const char *kind, const struct sl_str *lines, const char *more,
		   struct sl_str *out)
{
	const struct sl_mark *at = place_of(route);
	bool has_place = ask->sources && at->source < ask->sources->n;
	const char *p = sl_str_text(lines);
	size_t count = 0;

	for (; *p; p += *p == '\n', count++) {
		size_t n = strcspn(p, "\n");

		if (has_place)
			sl_str_addf(out, "%s:%u:%u: ", ask->sources->item[at->source].name,
				    at->line, at->column);
		sl_str_addf(out, "%s: route '%s': ", kind, route->name);
		sl_str_add(out, p, n);
		sl_str_addf(out, "%s\n", more);
		if (has_place && out->len < EXCERPTS_UNTIL)
			sl_report_excerpt(ask->sources, *at, out);
		p += n;
	}
	return count;
}

static void tell_found(const struct sl_cert_ask *ask, const struct sl_conf_route *route,
		       const struct sl_cert_findings *found, struct sl_diags *diags)
{
	diags->n_errors += tell(ask, route, "error", &found->errors, "", &diags->text);
	if (ask->is_check)
		diags->n_warnings +=
			tell(ask, route, "warning", &found->forbidden,
			     ": it cannot be checked without more rights", &diags->text);
	else
		diags->n_errors += tell(ask, route, "error", &found->forbidden, "", &diags->text);
	diags->n_warnings += tell(ask, route, "warning", &found->warnings, "", &diags->text);
}

/* A route that says the same as before, whose files are in use, is no business of a change. */
static bool take_over(const struct sl_cert_ask *ask, struct work *w, size_t at)
{
	struct outcome *o = &w->outcome[at];
	const struct sl_material *in_use = sl_materials_find(&w->old, o->route->name);
	struct sl_cert_seen_route *seen = find_seen(ask->before, o->route->name);
	const struct sl_conf_route *old = NULL;

	for (size_t i = 0; ask->conf_before && !old && i < ask->conf_before->n_routes; i++)
		if (strcmp(ask->conf_before->routes[i].name, o->route->name) == 0)
			old = &ask->conf_before->routes[i];
	if (!old || !in_use || !seen || !sl_conf_needs_secure(old) ||
	    !sl_cert_route_is_same(old, o->route))
		return false;
	o->item = *in_use;
	o->is_same = true;
	for (size_t i = 0; i < w->store->route[at].n && i < seen->n; i++)
		w->store->route[at].file[i].id = seen->file[i].id;
	w->store->route[at].has_problem = seen->has_problem;
	return true;
}

static int read_one(const struct sl_cert_ask *ask, struct work *w, size_t at,
		    struct sl_diags *diags)
{
	_cleanup_(sl_cert_findings_done) struct sl_cert_findings found = { 0 };
	int r;

	if (take_over(ask, w, at))
		return 0;
	r = read_route(w, at, &found);
	tell_found(ask, w->outcome[at].route, &found, diags);
	if (r == -EINVAL && ask->is_check && found.forbidden.len > 0 && found.errors.len == 0)
		return 0;
	w->outcome[at].is_same =
		r > 0 && !sl_materials_find(&w->old, w->store->route[at].name)->problem[0];
	return r > 0 ? 0 : r;
}

static int read_system_for(const struct sl_cert_ask *ask, struct work *w, struct sl_diags *diags)
{
	_cleanup_(sl_str_done) struct sl_str why = { 0 };

	for (size_t i = 0; i < w->store->n; i++) {
		const struct sl_conf_route *route = w->outcome[i].route;
		int r;

		if (!verifies_by_system(route))
			continue;
		/* a change has no need of others than those in use */
		if (ask->conf_before && w->system_ca) {
			w->store->system.path =
				strdup(ask->before->system.path ? ask->before->system.path
								: system_paths[0]);
			w->store->system.id = ask->before->system.id;
			return 0;
		}
		r = read_system(w, &why);
		if (r < 0)
			diags->n_errors += tell(ask, route, "error", &why, "", &diags->text);
		return r;
	}
	w->system_ca = NULL;
	w->system_ca_len = 0;
	return 0;
}

/* Nothing has to be sent anew. */
static bool is_as_before(const struct work *w)
{
	bool is = w->old.n == w->store->n && !w->system_ca == !w->old.system_ca &&
		  w->system_ca_len == w->old.system_ca_len;

	if (is && w->system_ca && w->system_ca != w->old.system_ca)
		is = memcmp(w->system_ca, w->old.system_ca, w->system_ca_len) == 0;
	for (size_t i = 0; is && i < w->store->n; i++)
		is = w->outcome[i].is_same;
	return is;
}

static int read_store(const struct sl_cert_ask *ask, struct work *w, struct sl_diags *diags)
{
	int r = work_init(w, ask->before ? ask->before->fd : -1);
	int first;

	if (r < 0)
		return r;
	first = read_system_for(ask, w, diags);
	for (size_t i = 0; i < w->store->n; i++) {
		/* one reason for all of them is enough */
		if (first < 0 && !w->system_ca && verifies_by_system(w->outcome[i].route))
			continue;
		r = read_one(ask, w, i, diags);
		if (r == -ENOMEM)
			return r;
		first = first ? first : r;
		if (ask->is_check)
			sl_cert_reading_done(&w->outcome[i].reading);
	}
	if (first < 0)
		return -EINVAL;
	if (ask->is_check)
		return 0;
	w->store->is_same = is_as_before(w);
	if (!w->store->is_same)
		return pack(w, &w->store->fd);
	w->store->fd = fcntl(ask->before->fd, F_DUPFD_CLOEXEC, 3);
	return w->store->fd < 0 ? -errno : 0;
}

int sl_cert_store_read(const struct sl_cert_ask *ask, struct sl_cert_store **ret,
		       struct sl_diags *diags)
{
	_cleanup_(sl_cert_store_freep) struct sl_cert_store *store = NULL;
	struct work w = { .conf = ask->conf, .now_s = ask->now_s };
	int r;

	if (!is_needed(ask->conf))
		return 0;
	r = store_new(ask->conf, &store);
	if (r < 0)
		return r;
	w.store = store;
	r = read_store(ask, &w, diags);
	work_done(&w);
	if (r < 0 || ask->is_check)
		return r;
	*ret = SL_TAKE_PTR(store);
	return 0;
}

int sl_cert_store_check(const struct sl_conf *conf, const struct sl_conf_sources *sources,
			struct sl_diags *diags)
{
	const struct sl_cert_ask ask = {
		.conf = conf, .sources = sources, .now_s = (int64_t)time(NULL), .is_check = true
	};
	struct sl_cert_store *none = NULL;

	return sl_cert_store_read(&ask, &none, diags);
}

int sl_cert_store_adopt(const struct sl_conf *conf, int fd, struct sl_cert_store **ret)
{
	_cleanup_fd_ int owned = fd;
	struct sl_cert_store *store = NULL;
	int r = store_new(conf, &store);

	if (r < 0)
		return r;
	store->fd = SL_TAKE_FD(owned);
	for (size_t i = 0; i < conf->n_routes && !store->system.path; i++)
		if (verifies_by_system(&conf->routes[i]))
			store->system.path = strdup(system_paths[0]);
	*ret = store;
	return 0;
}

/* ---- looking again ---- */

void sl_cert_news_done(struct sl_cert_news *news)
{
	sl_str_done(&news->text);
}

static bool has_changed(const struct sl_cert_seen_route *seen, enum sl_cert_look which)
{
	if (which == SL_CERT_LOOK_ALL || (which == SL_CERT_LOOK_PROBLEMS && seen->has_problem))
		return true;
	for (size_t i = 0; i < seen->n; i++) {
		struct sl_cert_file_id id = sl_cert_file_look(seen->file[i].path);

		if (!sl_cert_file_is_same(&id, &seen->file[i].id))
			return true;
	}
	return false;
}

static bool system_has_changed(const struct sl_cert_store *store, enum sl_cert_look which)
{
	struct sl_cert_file_id id;

	if (!store->system.path)
		return false;
	id = sl_cert_file_look(store->system.path);
	return which == SL_CERT_LOOK_ALL || !sl_cert_file_is_same(&id, &store->system.id);
}

/* The first of the lines that say why; the others follow from it, or are of other files. */
static char *first_line(const struct sl_cert_findings *found)
{
	const char *p = sl_str_text(found->errors.len ? &found->errors : &found->forbidden);

	return strndup(p, strcspn(p, "\n"));
}

static void tell_look(const struct outcome *o, const struct sl_cert_findings *found, bool is_bad,
		      struct sl_cert_news *news)
{
	const struct sl_cert_ask nowhere = { 0 };

	static const char stays[] = "; the last good one stays in use";

	if (is_bad) {
		(void)tell(&nowhere, o->route, "error", &found->errors, stays, &news->text);
		(void)tell(&nowhere, o->route, "error", &found->forbidden, stays, &news->text);
		return;
	}
	sl_str_addf(&news->text, "route '%s': new certificates are in use\n", o->route->name);
	(void)tell(&nowhere, o->route, "warning", &found->warnings, "", &news->text);
}

/* The last good files of the route go on, with the reason why newer ones are not taken. */
static int keep_last(struct outcome *o, const struct sl_material *in_use,
		     const struct sl_cert_findings *found, struct sl_cert_news *news)
{
	bool is_told;

	o->problem = first_line(found);
	if (!o->problem)
		return -ENOMEM;
	is_told = in_use && strcmp(in_use->problem, o->problem) == 0;
	o->is_left_out = !in_use;
	if (in_use)
		o->item = *in_use;
	o->item.problem = o->problem;
	news->n_bad++;
	news->is_changed = news->is_changed || (in_use && !is_told);
	return is_told;
}

static int look_at_route(struct work *w, size_t at, enum sl_cert_look which, bool is_changed,
			 struct sl_cert_news *news)
{
	_cleanup_(sl_cert_findings_done) struct sl_cert_findings found = { 0 };
	struct sl_cert_seen_route *seen = &w->store->route[at];
	struct outcome *o = &w->outcome[at];
	const struct sl_material *in_use = sl_materials_find(&w->old, o->route->name);
	int r = read_route(w, at, &found);

	if (r == -ENOMEM)
		return r;
	news->n_looked++;
	seen->has_problem = r < 0;
	if (r < 0) {
		int told = keep_last(o, in_use, &found, news);

		/* the same problem of the same files is told when it is asked for only */
		if (told >= 0 && (!told || is_changed || which == SL_CERT_LOOK_ALL))
			tell_look(o, &found, true, news);
		return told < 0 ? told : 0;
	}
	if (r == 0) {
		news->n_replaced++;
		news->is_changed = true;
		tell_look(o, &found, false, news);
	} else if (in_use->problem[0]) {
		news->is_changed = true;
		sl_str_addf(&news->text, "route '%s': its files are those in use again\n",
			    o->route->name);
	}
	return 0;
}

static void look_at_system(struct work *w, struct sl_cert_news *news)
{
	_cleanup_(sl_str_done) struct sl_str why = { 0 };
	const void *old = w->system_ca;
	size_t old_len = w->system_ca_len;

	if (read_system(w, &why) < 0) {
		news->n_bad++;
		sl_str_addf(&news->text, "error: %.*s; the last good one stays in use\n",
			    (int)strcspn(sl_str_text(&why), "\n"), sl_str_text(&why));
		return;
	}
	if (old && old_len == w->system_ca_len && memcmp(old, w->system_ca, old_len) == 0)
		return;
	news->is_changed = true;
	sl_str_addf(&news->text, "%s: new authorities are in use\n", w->store->system.path);
}

static int look(struct work *w, const bool *todo, bool system, enum sl_cert_look which,
		struct sl_cert_news *news)
{
	int r = work_init(w, w->store->fd);

	if (r == 0 && system)
		look_at_system(w, news);
	for (size_t i = 0; r == 0 && i < w->store->n; i++) {
		const struct sl_material *in_use =
			sl_materials_find(&w->old, w->outcome[i].route->name);

		if (todo[i]) {
			bool is_changed = has_changed(&w->store->route[i], SL_CERT_LOOK_CHANGED);

			r = look_at_route(w, i, which, is_changed, news);
		} else if (in_use) {
			w->outcome[i].item = *in_use;
		} else {
			w->outcome[i].is_left_out = true;
		}
	}
	return r;
}

static void forget(struct sl_cert_store *store, const bool *todo)
{
	for (size_t i = 0; i < store->n; i++)
		for (size_t k = 0; todo[i] && k < store->route[i].n; k++)
			store->route[i].file[k].id = (struct sl_cert_file_id){ 0 };
	store->system.id = (struct sl_cert_file_id){ 0 };
}

int sl_cert_store_look(struct sl_cert_store *store, const struct sl_conf *conf, int64_t now_s,
		       enum sl_cert_look which, struct sl_cert_news *news)
{
	_cleanup_free_ bool *todo = calloc(store->n + 1, sizeof(*todo));
	struct work w = { .conf = conf, .now_s = now_s, .store = store };
	bool system = system_has_changed(store, which);
	bool any = system;
	int fd = -1;
	int r;

	if (!todo)
		return -ENOMEM;
	for (size_t i = 0; i < store->n; i++) {
		todo[i] = has_changed(&store->route[i], which);
		any = any || todo[i];
	}
	if (!any)
		return 0;
	r = look(&w, todo, system, which, news);
	if (r == 0 && news->is_changed)
		r = pack(&w, &fd);
	if (r == 0 && fd >= 0) {
		sl_closep(&store->fd);
		store->fd = fd;
	}
	if (r < 0) /* what was seen is to be seen again */
		forget(store, todo);
	work_done(&w);
	return r;
}
