/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "proxy/agree.h"

void sl_agree_forget(struct sl_agree *a)
{
	a->n = 0;
	a->is_off = false;
}

bool sl_agree_look(struct sl_agree *a, uint64_t records, uint64_t known, uint64_t moved,
		   unsigned looks)
{
	uint64_t by = records > known ? records - known : known - records;
	bool was_more = a->records > a->known;
	bool is_busy = by <= moved - a->moved;

	if (by == 0 || (a->n && was_more != (records > known)))
		sl_agree_forget(a);
	a->records = records;
	a->known = known;
	a->moved = moved;
	if (by == 0 || is_busy || a->is_off)
		return false;
	a->is_off = ++a->n >= looks;
	return a->is_off;
}
