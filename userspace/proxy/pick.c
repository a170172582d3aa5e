/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "proxy/pick.h"

#include <stdbool.h>

static bool is_tried(const struct sl_pick *p, size_t i)
{
	for (size_t k = 0; k < p->n_tried; k++)
		if (p->tried[k] == i)
			return true;
	return false;
}

/* What each target of one group is worth now; the others are worth nothing. */
static void weigh(const struct sl_pick *p, struct sl_candidate *choices, bool backups, bool passive)
{
	const struct sl_conf_route *conf = p->route->conf;

	for (size_t i = 0; i < conf->n_targets; i++) {
		struct sl_target *t = p->route->targets[i];
		bool is_member = conf->targets[i].backup == backups && !is_tried(p, i);

		choices[i] = (struct sl_candidate){ 0 };
		if (!is_member)
			continue;
		choices[i].share = sl_target_share(t, &conf->targets[i], conf->health.slow_start,
						   passive, p->now_ms);
		choices[i].active = __atomic_load_n(&t->active, __ATOMIC_RELAXED) +
				    __atomic_load_n(&t->connecting, __ATOMIC_RELAXED);
		choices[i].name = t->name;
	}
}

static const char *why_of(enum sl_balance how)
{
	switch (how) {
	case SL_BALANCE_ROUND_ROBIN:
		return "its turn by round robin";
	case SL_BALANCE_LEAST_CONN:
		return "fewest connections for its weight";
	case SL_BALANCE_RANDOM:
		return "the less loaded of two chosen at random";
	case SL_BALANCE_SOURCE_HASH:
		return "the hash of the client's address";
	case SL_BALANCE_MAGLEV:
		return "the client's slot in the Maglev table";
	}
	return "";
}

size_t sl_pick_target(const struct sl_pick *p, struct sl_candidate *choices, const char **ret_why)
{
	static const struct {
		bool backups;
		bool passive;
		const char *why; /* NULL: the algorithm's */
	} groups[] = {
		{ false, true, NULL },
		{ true, true, "a backup: no other target is in good health" },
		{ false, false, "its connects fail, but no other target is left" },
		{ true, false, "a backup whose connects fail, but no other target is left" },
	};
	const struct sl_conf_route *conf = p->route->conf;
	struct sl_ticket ticket = { .turn = p->turn,
				    .random = p->random,
				    .slots = p->route->slots ? p->route->slots->slot : NULL,
				    .n_slots = p->route->slots ? p->route->slots->n : 0 };

	if (conf->balance == SL_BALANCE_SOURCE_HASH || conf->balance == SL_BALANCE_MAGLEV)
		ticket.client = sl_balance_hash(p->client);
	for (size_t g = 0; g < SL_ARRAY_LEN(groups); g++) {
		enum sl_balance how = conf->balance;
		size_t i;

		/* The table has no slots for backups. */
		if (how == SL_BALANCE_MAGLEV && groups[g].backups)
			how = SL_BALANCE_SOURCE_HASH;
		weigh(p, choices, groups[g].backups, groups[g].passive);
		i = sl_balance_pick(how, choices, conf->n_targets, &ticket);
		if (i == SL_NO_CHOICE)
			continue;
		if (ret_why)
			*ret_why = groups[g].why ? groups[g].why : why_of(how);
		return i;
	}
	return SL_NO_CHOICE;
}
