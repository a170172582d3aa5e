/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "proxy/route.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/count.h"

SL_DEFINE_CLEANUP(struct sl_route, sl_route_unref);

int sl_route_new(const char *name, uint32_t scope, unsigned n_workers, struct sl_route **ret)
{
	_cleanup_(sl_route_unrefp) struct sl_route *r = NULL;

	r = calloc(1, sizeof(*r));
	if (!r)
		return -ENOMEM;
	r->refs = 1;
	r->scope = scope;
	r->name = strdup(name);
	r->counts = calloc(n_workers, sizeof(*r->counts));
	if (!r->name || !r->counts)
		return -ENOMEM;
	r->n_workers = n_workers;
	*ret = SL_TAKE_PTR(r);
	return 0;
}

struct sl_route *sl_route_ref(struct sl_route *r)
{
	__atomic_add_fetch(&r->refs, 1, __ATOMIC_RELAXED);
	return r;
}

void sl_route_unref(struct sl_route *r)
{
	if (!r || __atomic_sub_fetch(&r->refs, 1, __ATOMIC_ACQ_REL) != 0)
		return;
	for (unsigned w = 0; w < r->n_workers; w++)
		for (int e = 0; e < SL_ENGINE_COUNT_; e++)
			free(r->counts[w].ended[e]);
	free(r->counts);
	free(r->name);
	free(r);
}

void sl_route_count_end(struct sl_route *r, unsigned worker, enum sl_engine_id engine,
			enum sl_side side, enum sl_reason reason)
{
	struct sl_ended **slot = &r->counts[worker].ended[engine];
	struct sl_ended *ended = __atomic_load_n(slot, __ATOMIC_RELAXED);

	if (!ended) {
		ended = calloc(1, sizeof(*ended));
		if (!ended)
			return;
		__atomic_store_n(slot, ended, __ATOMIC_RELEASE);
	}
	sl_count_add(&ended->n[side][reason], 1);
}
