/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "proxy/deny.h"

#include <errno.h>
#include <stdlib.h>

#include "conf/ip_list.h"

int sl_deny_new(struct sl_ip_set *set, struct sl_deny **ret)
{
	struct sl_deny *d = calloc(1, sizeof(*d));

	if (!d) {
		sl_ip_list_done(set);
		return -ENOMEM;
	}
	d->refs = 1;
	d->set = *set;
	*set = (struct sl_ip_set){ 0 };
	*ret = d;
	return 0;
}

struct sl_deny *sl_deny_ref(struct sl_deny *d)
{
	__atomic_add_fetch(&d->refs, 1, __ATOMIC_RELAXED);
	return d;
}

void sl_deny_unref(struct sl_deny *d)
{
	if (!d || __atomic_sub_fetch(&d->refs, 1, __ATOMIC_ACQ_REL) != 0)
		return;
	sl_ip_list_done(&d->set);
	free(d);
}
