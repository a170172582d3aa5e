/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "broker/nat_settings.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "broker/drift.h"
#include "broker/nat_state.h"

static const struct sl_nat_settings untouched = { .ct = { -1, -1, -1 }, .localnet = -1 };

void sl_nat_settings_init(struct sl_nat_settings *s)
{
	*s = untouched;
}

#define N_SETTINGS 4
static const struct {
	const char *counter; /* and the value behind it */
	const char *sysctl;
} kept[N_SETTINGS] = {
	{ "was_acct_", "net.netfilter.nf_conntrack_acct" },
	{ "was_timestamp_", "net.netfilter.nf_conntrack_timestamp" },
	{ "was_events_", "net.netfilter.nf_conntrack_events" },
	{ "was_localnet_", "net.ipv4.conf.all.route_localnet" },
};

static int *setting(struct sl_nat_settings *s, size_t i)
{
	int *const fields[N_SETTINGS] = { &s->ct.acct, &s->ct.timestamp, &s->ct.events,
					  &s->localnet };

	return fields[i];
}

void sl_nat_read_kept(const struct sl_nft_ruleset *rs, struct sl_nat_settings *ret)
{
	for (size_t i = 0; i < rs->n_counters; i++) {
		const char *name = rs->counters[i].name;

		for (size_t k = 0; k < N_SETTINGS; k++) {
			size_t len = strlen(kept[k].counter);

			/* none has a value of two digits */
			if (strncmp(name, kept[k].counter, len) == 0 && name[len] >= '0' &&
			    name[len] <= '9' && !name[len + 1])
				*setting(ret, k) = name[len] - '0';
		}
	}
}

int sl_nat_put_kept(struct sl_nat *n, struct sl_nft_ruleset *rs)
{
	for (size_t i = 0; i < N_SETTINGS; i++) {
		int value = *setting(&n->was, i);
		struct sl_nft_counter c = { 0 };

		if (value < 0 || value > 9)
			continue;
		(void)snprintf(c.name, sizeof(c.name), "%s%d", kept[i].counter, value);
		c.comment = sl_nft_put_text(rs, kept[i].sysctl);
		sl_nft_put_counter(rs, &c);
	}
	if (n->was.localnet >= 0) {
		int r = sl_nft_put_guard(rs);

		if (r < 0)
			return r;
	}
	return sl_nft_ruleset_sort(rs);
}

static bool needs_localnet(const struct sl_nat *n)
{
	for (size_t i = 0; i < n->plan->n_routes; i++)
		if (sl_nft_needs_localnet(&n->plan->routes[i]))
			return true;
	return false;
}

/* What is known from before stays known. */
static void note_what_was(struct sl_nat *n, struct sl_nat_settings *now)
{
	for (size_t i = 0; i < N_SETTINGS; i++)
		if (*setting(&n->was, i) < 0)
			*setting(&n->was, i) = *setting(now, i);
}

/* Those that are changed already are known, whatever others do to them since. */
void sl_nat_look_at_settings(struct sl_nat *n)
{
	struct sl_nat_settings now = untouched;
	const char *what = NULL;
	int r = n->is_set ? 0 : sl_ct_sysctl_look(&now.ct, &what);

	if (r < 0)
		(void)sl_warn(r, "nftables: cannot read net/%s, records may lack bytes and times",
			      what);
	if (needs_localnet(n) && sl_nat_sysctl_localnet() == 0)
		now.localnet = 0;
	note_what_was(n, &now);
}

void sl_nat_change_settings(struct sl_nat *n)
{
	struct sl_ct_sysctls old;
	const char *what = NULL;
	int r = n->is_set ? 0 : sl_ct_sysctl_set(&old, &what);

	if (r < 0)
		(void)sl_warn(r, "nftables: cannot set net/%s to 1, records lack bytes and times",
			      what);
	if (!n->is_set)
		n->cannot_set = r < 0;
	n->is_set = true;
	if (!needs_localnet(n) || sl_nat_sysctl_localnet() != 0)
		return;
	r = sl_nat_sysctl_set_localnet(true);
	if (r < 0 && !n->has_lacked_localnet)
		(void)sl_warn(r, "nftables: cannot set net.ipv4.conf.all.route_localnet to 1, "
				 "targets on 127.0.0.1 are reached from this host only");
	n->has_lacked_localnet = r < 0;
}

/* What is not as we left it is somebody else's by now. */
static void keep_what_others_set(struct sl_nat_settings *was)
{
	struct sl_nat_settings now = untouched;
	const char *what;

	if (sl_ct_sysctl_look(&now.ct, &what) < 0)
		return;
	for (size_t i = 0; i < N_SETTINGS; i++)
		if (*setting(&now, i) >= 0)
			*setting(was, i) = -1;
}

/* Not what we could not set either. */
static bool has_changed_conntrack(const struct sl_nat *n)
{
	struct sl_nat_settings now = untouched;
	const char *what;

	return !n->cannot_set && sl_ct_sysctl_look(&now.ct, &what) == 0 &&
	       (now.ct.acct >= 0 || now.ct.timestamp >= 0 || now.ct.events >= 0);
}

/* As at the start: the table says what was before they are changed. */
bool sl_nat_must_set_again(struct sl_nat *n)
{
	bool is_conntrack, is_localnet;

	if (!n->is_set)
		return false;
	is_conntrack = has_changed_conntrack(n);
	is_localnet = needs_localnet(n) && !n->has_lacked_localnet && sl_nat_sysctl_localnet() == 0;
	/* another instance that ends, or a reload of sysctl.conf */
	if (is_conntrack || is_localnet)
		sl_drift_note(n->options.drift, SL_DRIFT_NFT_SETTING, SL_DRIFT_REPAIRED,
			      is_conntrack
				      ? "net.netfilter.nf_conntrack_acct, _timestamp, _events: 1"
				      : "net.ipv4.conf.all.route_localnet: 1",
			      "another value", "set again");
	if (is_conntrack)
		sl_log(SL_LOG_WARN, "nftables: somebody has changed net.netfilter.nf_conntrack_"
				    "acct, _timestamp or _events, put back");
	if (is_localnet)
		sl_log(SL_LOG_WARN,
		       "nftables: somebody has changed net.ipv4.conf.all.route_localnet, put back");
	n->is_set = !is_conntrack && !is_localnet;
	return !n->is_set;
}

void sl_nat_restore_settings(struct sl_nat_settings *was)
{
	int r, localnet = 0;

	keep_what_others_set(was);
	r = sl_ct_sysctl_restore(&was->ct);
	if (was->localnet == 0 && sl_nat_sysctl_localnet() > 0)
		localnet = sl_nat_sysctl_set_localnet(false);
	if (r == 0)
		r = localnet;
	if (r < 0)
		(void)sl_warn(r, "nftables: cannot put back settings of the host");
	*was = untouched;
}
