/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "broker/nat_offload.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"

/* Making an interface takes several messages. */
#define SETTLE_MS 100

void sl_nat_shorten(const char *text, char *ret, size_t size)
{
	static const char cut[] = " ...";

	(void)snprintf(ret, size, "%s", text);
	if (strlen(text) >= size && size > sizeof(cut))
		memcpy(ret + size - sizeof(cut), cut, sizeof(cut));
}

static void say(struct sl_nat_offload *o, const char *text)
{
	char now[sizeof(o->text)];

	sl_nat_shorten(text, now, sizeof(now));
	if (strcmp(o->text, now) == 0)
		return;
	memcpy(o->text, now, sizeof(now));
	if (*text)
		sl_log(SL_LOG_WARN, "nftables: %s", text);
}

static void on_timer(struct sl_timer *timer)
{
	struct sl_nat_offload *o = SL_CONTAINER_OF(timer, struct sl_nat_offload, timer);

	o->is_refused = false;
	o->changed(o->arg);
}

static void on_links(struct sl_io *io, uint32_t events)
{
	struct sl_nat_offload *o = SL_CONTAINER_OF(io, struct sl_nat_offload, io);

	(void)events;
	if (sl_nft_links_read(o->links, o->wanted, o->n_wanted) && !sl_timer_is_armed(&o->timer))
		sl_timer_start(o->loop, &o->timer, sl_loop_now_ms(o->loop) + SETTLE_MS, on_timer);
}

void sl_nat_offload_plan(struct sl_nat_offload *o, const struct sl_nat_plan *plan)
{
	o->wanted = plan->devices;
	o->n_wanted = plan->n_routes ? plan->n_devices : 0;
	o->is_refused = false;
}

static int watch(struct sl_nat_offload *o)
{
	int r;

	if (o->links)
		return 0;
	r = sl_nft_links_open(&o->links);
	if (r == 0)
		r = sl_io_start(o->loop, &o->io, sl_nft_links_fd(o->links), SL_IO_IN, on_links);
	if (r < 0) {
		sl_nft_links_close(o->links);
		o->links = NULL;
	}
	return r;
}

/* The kernel's answer stays as it is. */
static bool try(struct sl_nat_offload *o, struct sl_nft_table *table)
{
	_cleanup_(sl_str_done) struct sl_str why = { 0 };
	char text[400];
	int r = 0;

	if (o->was_tried)
		return !o->is_lacking;
	r = sl_nft_table_try_offload(table, &why);
	if (r < 0 && r != -EOPNOTSUPP)
		return false; /* what comes behind it fails, too, and says why */
	o->was_tried = true;
	o->is_lacking = r < 0;
	(void)snprintf(text, sizeof(text), "flow_offload: this kernel has no flow tables (%s)",
		       sl_str_text(&why));
	if (o->is_lacking)
		say(o, text);
	return !o->is_lacking;
}

static void choose(struct sl_nat_offload *o)
{
	_cleanup_(sl_str_done) struct sl_str missing = { 0 };
	size_t len;
	int r = watch(o);

	sl_str_adds(&missing, "flow_offload: ");
	len = missing.len;
	for (size_t i = 0; r == 0 && i < o->n_wanted; i++) {
		int has = sl_nft_links_has(o->links, o->wanted[i]);

		if (has > 0)
			memcpy(o->device[o->n++], o->wanted[i], SL_NFT_DEVICE);
		else if (has == 0)
			sl_str_addf(&missing, "%s%s", missing.len > len ? ", " : "", o->wanted[i]);
		else
			r = has;
	}
	if (r < 0) {
		o->n = 0;
		say(o, "flow_offload: cannot read the interfaces");
	} else if (missing.len > len) {
		sl_str_adds(&missing, " not there yet");
		say(o, sl_str_text(&missing));
	} else {
		say(o, "");
	}
}

void sl_nat_offload_look(struct sl_nat_offload *o, struct sl_nft_table *table)
{
	o->n = 0;
	if (o->n_wanted == 0)
		say(o, "");
	else if (!o->is_refused && try(o, table))
		choose(o);
}

void sl_nat_offload_refused(struct sl_nat_offload *o, const char *why)
{
	char text[440];

	(void)snprintf(text, sizeof(text), "flow_offload: %s", why);
	o->is_refused = true;
	o->n = 0;
	say(o, text);
}

void sl_nat_offload_done(struct sl_nat_offload *o)
{
	if (o->links)
		sl_io_stop(&o->io);
	sl_timer_stop(&o->timer);
	sl_nft_links_close(o->links);
	o->links = NULL;
	o->n_wanted = o->n = 0;
}
