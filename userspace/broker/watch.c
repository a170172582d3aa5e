/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "broker/watch.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/state.h"

/* Of a link that another program has detached, and of pins. */
#define CHECK_MS 1000
/* A host with more is served on those it had first. */
#define MAX_INTERFACES 65536

static struct sl_watched *find(const struct sl_watch *w, unsigned ifindex)
{
	for (size_t i = 0; i < w->n; i++)
		if (w->item[i].ifindex == ifindex)
			return &w->item[i];
	return NULL;
}

static bool is_wanted(const struct sl_broker *b, const char *name)
{
	const struct sl_policy *policy = sl_broker_policy(b);

	if (policy->is_off)
		return false;
	for (uint32_t i = 0; i < policy->n_interfaces; i++)
		if (strncmp(policy->interfaces[i], name, sizeof(policy->interfaces[i])) == 0)
			return true;
	return policy->n_interfaces == 0;
}

static struct sl_watched *add(struct sl_watch *w, unsigned ifindex)
{
	struct sl_watched *item;

	if (w->n >= MAX_INTERFACES)
		return NULL;
	if (w->n == w->cap) {
		size_t cap = w->cap ? 2 * w->cap : 16;

		item = realloc(w->item, cap * sizeof(*item));
		if (!item)
			return NULL;
		w->item = item;
		w->cap = cap;
	}
	item = &w->item[w->n++];
	*item = (struct sl_watched){ .ifindex = ifindex };
	return item;
}

static void forget(struct sl_broker *b, struct sl_watched *item)
{
	struct sl_watch *w = &b->watch;

	sl_packet_detach(b->packet, item->ifindex);
	*item = w->item[--w->n];
	sl_broker_touch(b);
}

/* ---- attaching ---- */

static void say_failure(struct sl_watched *item, int err)
{
	if (item->was_said)
		return;
	item->was_said = true;
	if (err == -EOPNOTSUPP)
		sl_info("packet: %s cannot run XDP in driver mode, TC is used there", item->name);
	else
		(void)sl_warn(err, "packet: cannot attach to %s, trying again", item->name);
}

static void attach(struct sl_broker *b, struct sl_watched *item)
{
	int r = sl_packet_attach(b->packet, item->ifindex);
	bool was_attached = item->is_attached;

	if (r == -ENODEV) /* it has just gone; that is told, too */
		return;
	if (r < 0)
		say_failure(item, r);
	item->is_attached = r == 0 || r == -EOPNOTSUPP;
	if (item->is_attached != was_attached)
		sl_broker_touch(b);
}

/* A program that flows may still need stays. */
static void settle(struct sl_broker *b, struct sl_watched *item)
{
	item->is_wanted = is_wanted(b, item->name);
	if (item->is_wanted && !item->is_attached) {
		attach(b, item);
	} else if (!item->is_wanted && item->is_attached && b->table.n == 0) {
		sl_packet_detach(b->packet, item->ifindex);
		item->is_attached = false;
		sl_broker_touch(b);
	}
}

static void on_here(struct sl_broker *b, unsigned ifindex)
{
	struct sl_watched *item = find(&b->watch, ifindex);
	char name[16];

	if (sl_routes_name(&b->routes, ifindex, name) < 0)
		return; /* gone again */
	if (!item)
		item = add(&b->watch, ifindex);
	if (!item)
		return;
	item->is_here = true;
	memcpy(item->name, name, sizeof(item->name)); /* it may have a new one */
	/* Flows of an earlier configuration may need it, and its old program is not ours to keep.
	 */
	if (!item->is_attached && b->table.n)
		attach(b, item);
	settle(b, item);
}

static void drop_lost(struct sl_broker *b)
{
	struct sl_watch *w = &b->watch;

	for (size_t i = w->n; i-- > 0;)
		if (!w->item[i].is_here)
			forget(b, &w->item[i]);
}

static void on_interface(void *arg, enum sl_ifwatch_event event, unsigned ifindex)
{
	struct sl_broker *b = arg;
	struct sl_watch *w = &b->watch;
	struct sl_watched *item;

	switch (event) {
	case SL_IF_HERE:
		on_here(b, ifindex);
		break;
	case SL_IF_GONE:
		item = find(w, ifindex);
		if (item)
			forget(b, item);
		break;
	case SL_IF_LOST:
		for (size_t i = 0; i < w->n; i++)
			w->item[i].is_here = false;
		break;
	case SL_IF_SETTLED:
		drop_lost(b);
		break;
	}
}

/* ---- watching ---- */

static void note_link(struct sl_broker *b, const struct sl_watched *item, enum sl_drift_done done,
		      const char *how)
{
	char text[64];

	(void)snprintf(text, sizeof(text), "link of %.16s (%s)", item->name,
		       sl_packet_hook_text(b->packet));
	sl_drift_note(&b->drift, SL_DRIFT_PACKET_LINK, done, text, NULL, "%s", how);
}

static void note_pins(struct sl_broker *b, const char *names)
{
	while (*names) {
		size_t n = strcspn(names, " ");
		char text[64];

		(void)snprintf(text, sizeof(text), "pin %.*s", (int)n, names);
		sl_drift_note(&b->drift, SL_DRIFT_PACKET_PIN, SL_DRIFT_REPAIRED, text, NULL,
			      "pinned again");
		names += names[n] ? n + 1 : n;
	}
}

static void check_link(struct sl_broker *b, struct sl_watched *item)
{
	if (item->is_attached && !sl_packet_is_attached(b->packet, item->ifindex)) {
		item->is_attached = false;
		attach(b, item);
		if (item->is_attached) {
			b->n_repaired++;
			note_link(b, item, SL_DRIFT_REPAIRED, "attached again");
			sl_log(SL_LOG_WARN,
			       "packet: something else had detached our program from %s, it is "
			       "attached again",
			       item->name);
		}
	}
	settle(b, item);
	if (item->is_wanted && !item->is_attached && item->was_said)
		note_link(b, item, SL_DRIFT_LEFT, "it cannot be attached; the log says why");
}

static void check_pins(struct sl_broker *b)
{
	const char *dir = sl_broker_policy(b)->bpf_dir;
	_cleanup_(sl_str_done) struct sl_str names = { 0 };
	unsigned repaired = 0;
	int r = sl_packet_repin(b->packet, &repaired, &names);

	note_pins(b, sl_str_text(&names));
	if (r < 0)
		sl_drift_note(&b->drift, SL_DRIFT_PACKET_PIN, SL_DRIFT_LEFT, "pins", NULL,
			      "cannot pin in %.60s: %s; trying again", dir, strerror(-r));
	if (r < 0 && !b->watch.had_no_dir)
		(void)sl_warn(r,
			      "packet: cannot pin in %s, flows will not outlive this daemon; "
			      "trying again",
			      dir);
	b->watch.had_no_dir = r < 0;
	if (repaired) {
		b->n_repaired += repaired;
		sl_log(SL_LOG_WARN, "packet: missing pins in %s, made again: %u", dir, repaired);
		sl_broker_touch(b);
	}
}

/*
 * A reload of sysctl.conf takes them out, or another instance that had reserved them and ends: a
 * connection that is given the port of a flow would get its packets.
 */
static void check_ports(struct sl_broker *b)
{
	_cleanup_(sl_str_done) struct sl_str missing = { 0 };
	char text[128];
	int r;

	if (!b->has_ports)
		return;
	r = sl_packet_keep_ports(b->packet, &missing);
	(void)snprintf(text, sizeof(text), "ports %.64s of net.ipv4.ip_local_reserved_ports",
		       sl_str_text(&missing));
	if (r < 0)
		sl_drift_note(&b->drift, SL_DRIFT_PACKET_SETTING, SL_DRIFT_LEFT,
			      "net.ipv4.ip_local_reserved_ports with packet.ports", "unknown",
			      "cannot look after it: %s; trying again", strerror(-r));
	if (r < 0 && !b->watch.had_no_ports)
		(void)sl_warn(r, "packet: cannot look after net.ipv4.ip_local_reserved_ports, "
				 "other programs may be given ports of flows; trying again");
	b->watch.had_no_ports = r < 0;
	if (r <= 0)
		return;
	b->n_repaired++;
	sl_drift_note(&b->drift, SL_DRIFT_PACKET_SETTING, SL_DRIFT_REPAIRED, text, NULL,
		      "reserved again");
	sl_log(SL_LOG_WARN, "packet: somebody had taken out %s, put back", text);
	sl_broker_touch(b);
}

void sl_watch_look(struct sl_broker *b)
{
	/* Not a name, and not a link, is looked at twice in a turn. */
	for (size_t i = 0; i < b->watch.n; i++)
		check_link(b, &b->watch.item[i]);
	check_pins(b);
	check_ports(b);
}

static void on_timer(struct sl_timer *timer)
{
	struct sl_broker *b = SL_CONTAINER_OF(timer, struct sl_broker, watch.timer);

	sl_watch_look(b);
	sl_conntrack_check(&b->conntrack);
	sl_broker_check(b);
	sl_timer_start(b->loop, timer, sl_loop_now_ms(b->loop) + CHECK_MS, on_timer);
}

/* Links on interfaces that are there are judged by settle(). */
static bool is_known(void *arg, unsigned ifindex)
{
	const struct sl_broker *b = arg;
	const struct sl_watched *item = find(&b->watch, ifindex);

	return item && item->is_attached;
}

static bool is_named(const struct sl_watch *w, const char name[16])
{
	for (size_t i = 0; i < w->n; i++)
		if (strncmp(w->item[i].name, name, sizeof(w->item[i].name)) == 0)
			return true;
	return false;
}

static unsigned count_missing(const struct sl_broker *b)
{
	const struct sl_policy *policy = sl_broker_policy(b);
	unsigned n = 0;

	for (uint32_t i = 0; !policy->is_off && i < policy->n_interfaces; i++)
		n += !is_named(&b->watch, policy->interfaces[i]);
	return n;
}

static void say_missing(const struct sl_broker *b)
{
	const struct sl_policy *policy = sl_broker_policy(b);

	for (uint32_t i = 0; !policy->is_off && i < policy->n_interfaces; i++)
		if (!is_named(&b->watch, policy->interfaces[i]))
			sl_log(SL_LOG_WARN,
			       "packet: %.16s: no such interface yet; it is attached to when it "
			       "appears",
			       policy->interfaces[i]);
}

int sl_watch_start(struct sl_broker *b)
{
	int r;

	b->watch = (struct sl_watch){ 0 };
	r = sl_ifwatch_new(b->loop, on_interface, b, &b->watch.ifwatch);
	if (r < 0)
		return r;
	sl_packet_sweep_links(b->packet, is_known, b);
	say_missing(b);
	sl_timer_start(b->loop, &b->watch.timer, sl_loop_now_ms(b->loop) + CHECK_MS, on_timer);
	return 0;
}

void sl_watch_stop(struct sl_broker *b)
{
	struct sl_watch *w = &b->watch;

	sl_ifwatch_free(w->ifwatch);
	sl_timer_stop(&w->timer);
	free(w->item);
	w->ifwatch = NULL;
	w->item = NULL;
	w->n = 0;
	w->cap = 0;
}

void sl_watch_policy(struct sl_broker *b)
{
	for (size_t i = 0; i < b->watch.n; i++)
		settle(b, &b->watch.item[i]);
	say_missing(b);
}

bool sl_watch_has(const struct sl_watch *w, unsigned ifindex)
{
	const struct sl_watched *item = find(w, ifindex);

	return item && item->is_wanted && item->is_attached;
}

void sl_watch_count(const struct sl_broker *b, unsigned *ret_attached, unsigned *ret_failed,
		    unsigned *ret_missing)
{
	const struct sl_watch *w = &b->watch;
	unsigned attached = 0;
	unsigned failed = 0;

	for (size_t i = 0; i < w->n; i++) {
		attached += w->item[i].is_attached;
		failed += w->item[i].is_wanted && !w->item[i].is_attached;
	}
	*ret_attached = attached;
	*ret_failed = failed;
	*ret_missing = sl_broker_policy(b) ? count_missing(b) : 0;
}

void sl_watch_names(const struct sl_broker *b, char *ret, size_t size)
{
	const struct sl_watch *w = &b->watch;
	size_t at = 0;

	memset(ret, 0, size);
	for (size_t i = 0; i < w->n; i++) {
		size_t n = strnlen(w->item[i].name, sizeof(w->item[i].name));

		if (!w->item[i].is_attached || n + 1 >= size - at)
			continue;
		memcpy(ret + at, w->item[i].name, n);
		ret[at + n] = ' ';
		at += n + 1;
	}
}
