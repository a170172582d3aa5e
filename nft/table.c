/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "nft/table.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "nft/attr.h"
#include "nft/decode.h"
#include "nft/diff.h"
#include "nft/encode.h"
#include "nft/say.h"
#include "nft/socket.h"

#define NAME_SIZE 65
#define TRIES 16
#define WATCH_BUFFER (1 << 20)
/* Chains whose rules changed are asked for handles one by one; more, and all is read next time. */
#define HANDLES_MAX 32

/* Linux 6.9; not in the headers of older systems. */
#define TABLE_F_PERSIST 0x4
#define TABLE_FLAGS (NFT_TABLE_F_OWNER | TABLE_F_PERSIST)

struct sl_nft_table {
	char name[NAME_SIZE];
	struct sl_nft_socket socket;
	struct mnl_socket *watch;
	bool is_probed;                   /* `cannot_own` is known */
	bool cannot_own;                  /* the kernel knows no TABLE_F_PERSIST */
	struct sl_nft_ruleset *installed; /* what the kernel held at `generation`; NULL: no table */
	bool is_known;                    /* `installed` and `generation` are */
	uint32_t generation;
	struct sl_nft_changes *changes; /* borrowed; NULL: nobody asks for them */
};

static int open_watch(struct sl_nft_table *t)
{
	const int size = WATCH_BUFFER;

	t->watch = mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (!t->watch || mnl_socket_bind(t->watch, 0, MNL_SOCKET_AUTOPID) < 0)
		return -errno;
	(void)setsockopt(mnl_socket_get_fd(t->watch), SOL_SOCKET, SO_RCVBUFFORCE, &size,
			 sizeof(size));
	return 0;
}

/*
 * What a transaction of ours says would fill the watch, and costs the kernel time. Whoever comes
 * between is found by the generation.
 */
static int watch(struct sl_nft_table *t, bool on)
{
	int group = NFNLGRP_NFTABLES;

	return mnl_socket_setsockopt(t->watch,
				     on ? NETLINK_ADD_MEMBERSHIP : NETLINK_DROP_MEMBERSHIP, &group,
				     sizeof(group)) < 0
		       ? -errno
		       : 0;
}

/* The kernel answers -EINVAL, or not at all, where nfnetlink has no nf_tables. */
static int probe(struct sl_nft_table *t)
{
	uint32_t generation;
	int r = sl_nft_socket_generation(&t->socket, &generation);

	return r == -EINVAL || r == -ENOENT ? -EOPNOTSUPP : r;
}

int sl_nft_table_open(const char *name, struct sl_nft_table **ret)
{
	_cleanup_(sl_nft_table_closep) struct sl_nft_table *t = NULL;
	int r;

	if (!*name || strlen(name) >= NAME_SIZE)
		return -EINVAL;
	t = calloc(1, sizeof(*t));
	if (!t)
		return -ENOMEM;
	snprintf(t->name, sizeof(t->name), "%s", name);
	r = sl_nft_socket_open(&t->socket);
	if (r == 0)
		r = open_watch(t);
	if (r == 0)
		r = probe(t);
	if (r == 0)
		r = watch(t, true);
	if (r < 0)
		return r == -EPROTONOSUPPORT ? -EOPNOTSUPP : r;
	*ret = SL_TAKE_PTR(t);
	return 0;
}

void sl_nft_table_close(struct sl_nft_table *t)
{
	if (!t)
		return;
	if (t->watch)
		(void)mnl_socket_close(t->watch);
	sl_nft_socket_done(&t->socket);
	sl_nft_ruleset_free(t->installed);
	free(t);
}

void sl_nft_table_forget(struct sl_nft_table *t)
{
	sl_nft_ruleset_free(SL_TAKE_PTR(t->installed));
	t->is_known = false;
}

/*
 * A hash that a worker of the kernel resizes while it is dumped (nft_rhash_walk() in
 * net/netfilter/nft_set_hash.c) shows as many elements twice as it leaves out, and says nothing.
 */
static bool shows_some_twice(const struct sl_nft_ruleset *rs)
{
	for (size_t i = 0; i < rs->n_sets; i++)
		if (sl_nft_set_find_repeated(&rs->sets[i]))
			return true;
	return false;
}

/* Reads all of it, as of one generation. `*ret` NULL: there is no table. */
static int read_consistently(struct sl_nft_table *t, struct sl_nft_ruleset **ret,
			     uint32_t *ret_generation)
{
	for (int i = 0; i < TRIES; i++) {
		_cleanup_(sl_nft_ruleset_freep) struct sl_nft_ruleset *rs = NULL;
		uint32_t before, after;
		int r = sl_nft_socket_generation(&t->socket, &before);

		if (r < 0)
			return r;
		r = sl_nft_decode(&t->socket, t->name, &rs);
		if (r < 0 && r != -ENOENT && r != -EINTR)
			return r;
		if (r == -EINTR)
			continue;
		r = sl_nft_socket_generation(&t->socket, &after);
		if (r < 0)
			return r;
		if (before != after || (rs && shows_some_twice(rs)))
			continue;
		*ret = SL_TAKE_PTR(rs);
		*ret_generation = after;
		return 0;
	}
	return -EAGAIN;
}

int sl_nft_table_read(struct sl_nft_table *t, struct sl_nft_ruleset **ret)
{
	struct sl_nft_ruleset *rs = NULL;
	uint32_t generation;
	int r = read_consistently(t, &rs, &generation);

	if (r < 0)
		return r;
	if (!rs)
		return -ENOENT;
	*ret = rs;
	return 0;
}

/* The death of an owner, who lets go of the table or takes it along, is no new generation. */
static bool may_lose_owner(const struct sl_nft_table *t)
{
	return t->installed && t->installed->owner && t->installed->owner != t->socket.port;
}

/* `installed` is what the kernel holds now. */
static int refresh(struct sl_nft_table *t)
{
	uint32_t now;
	int r;

	if (t->is_known && !may_lose_owner(t)) {
		r = sl_nft_socket_generation(&t->socket, &now);
		if (r < 0 || now == t->generation)
			return r;
	}
	sl_nft_table_forget(t);
	r = read_consistently(t, &t->installed, &t->generation);
	t->is_known = r == 0;
	return r;
}

/* One that we may change: of this program, and of nobody else. */
static int look_at_owner(const struct sl_nft_table *t, struct sl_nft_report *report)
{
	const struct sl_nft_ruleset *rs = t->installed;

	if (!rs)
		return 0;
	if (!sl_nft_ruleset_is_ours(rs)) {
		snprintf(report->text, sizeof(report->text),
			 "table inet %s is there and not of this program", t->name);
		return -EEXIST;
	}
	if (rs->owner && rs->owner != t->socket.port) {
		snprintf(report->text, sizeof(report->text),
			 "table inet %s belongs to another process (netlink port %u); each daemon "
			 "needs a global.nft_table of its own",
			 t->name, rs->owner);
		return -EBUSY;
	}
	return 0;
}

/* An owner that ends makes no new generation: who it is is read anew the next time. */
static int check_owner(struct sl_nft_table *t, struct sl_nft_report *report)
{
	int r = look_at_owner(t, report);

	if (r < 0)
		sl_nft_table_forget(t);
	return r;
}

/* Those of a route have its name in every rule; the comments of the others are about themselves. */
static const char *route_of_chain(const struct sl_nft_ruleset *rs, const struct sl_nft_chain *chain)
{
	return chain->n ? sl_nft_text(rs, chain->rules[0].comment) : "";
}

static const char *describe_chain(const struct sl_nft_ruleset *rs, const struct sl_nft_op *op,
				  struct sl_nft_report *report)
{
	const struct sl_nft_chain *chain = &rs->chains[op->object];
	bool is_rule = op->kind == SL_NFT_ADD_RULE || op->kind == SL_NFT_DEL_RULE;

	report->is_offload = strcmp(chain->name, SL_NFT_OFFER) == 0;

	if (is_rule)
		snprintf(report->object, sizeof(report->object), "rule %u of chain '%s'",
			 op->index + 1, chain->name);
	else
		snprintf(report->object, sizeof(report->object), "chain '%s'", chain->name);
	return is_rule ? sl_nft_text(rs, chain->rules[op->index].comment)
		       : route_of_chain(rs, chain);
}

/* Fills `object`; returns the comment of it, which is the name of its route where it has one. */
static const char *describe(const struct sl_nft_table *t, const struct sl_nft_ruleset *wanted,
			    const struct sl_nft_op *op, struct sl_nft_report *report)
{
	const struct sl_nft_ruleset *old = t->installed, *rs = wanted;
	const struct sl_nft_set *set;
	const char *comment;

	switch (op->kind) {
	case SL_NFT_DEL_TABLE:
	case SL_NFT_ADD_TABLE:
		snprintf(report->object, sizeof(report->object), "table '%s'", t->name);
		return "";
	case SL_NFT_DEL_SET:
	case SL_NFT_ADD_SET:
		set = &(op->kind == SL_NFT_ADD_SET ? wanted : old)->sets[op->object];
		snprintf(report->object, sizeof(report->object), "set '%s'", set->name);
		return "";
	case SL_NFT_DEL_ELEM:
	case SL_NFT_ADD_ELEM:
		rs = op->kind == SL_NFT_ADD_ELEM ? wanted : old;
		set = &rs->sets[op->object];
		snprintf(report->object, sizeof(report->object), "element of '%s'", set->name);
		comment = sl_nft_text(rs, set->elems[op->index].comment);
		return *comment ? comment : sl_nft_text(rs, set->comment);
	case SL_NFT_DEL_COUNTER:
	case SL_NFT_ADD_COUNTER:
		rs = op->kind == SL_NFT_ADD_COUNTER ? wanted : old;
		snprintf(report->object, sizeof(report->object), "counter '%s'",
			 rs->counters[op->object].name);
		return sl_nft_text(rs, rs->counters[op->object].comment);
	case SL_NFT_ADD_FLOWTABLE:
	case SL_NFT_CUT_FLOWTABLE:
	case SL_NFT_DEL_FLOWTABLE:
		snprintf(report->object, sizeof(report->object), "flow table '%s'",
			 SL_NFT_FLOWTABLE);
		report->is_offload = true;
		return "";
	case SL_NFT_ADD_CHAIN:
	case SL_NFT_ADD_RULE:
		return describe_chain(wanted, op, report);
	case SL_NFT_DEL_CHAIN:
	case SL_NFT_DEL_RULE:
		return describe_chain(old, op, report);
	}
	return "";
}

/* Appends to the text what fits into it: the kernel's words are as long as they are. */
static void say(struct sl_nft_report *report, const char *fmt, ...) SL_PRINTF(2, 3);
static void say(struct sl_nft_report *report, const char *fmt, ...)
{
	size_t n = strlen(report->text);
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(report->text + n, sizeof(report->text) - n, fmt, ap);
	va_end(ap);
}

/* `op` NULL: the kernel did not say which. */
static void report_fault(const struct sl_nft_table *t, const struct sl_nft_ruleset *wanted,
			 const struct sl_nft_op *op, const struct sl_nft_fault *fault, int error,
			 struct sl_nft_report *report)
{
	const char *route = op ? describe(t, wanted, op, report) : "";

	snprintf(report->route, sizeof(report->route), "%s", route);
	*report->text = '\0';
	say(report, "table inet %s: %s", t->name, op ? report->object : "the transaction");
	if (*report->route)
		say(report, " of route '%s'", report->route);
	say(report, " was refused: %s", strerror(-error));
	if (*fault->text)
		say(report, " (%s)", fault->text);
	if (fault->n_faults > 1)
		say(report, ", and %zu more after it", fault->n_faults - 1);
}

/* The state of one sl_nft_table_apply(). */
struct apply {
	struct sl_nft_table *t;
	const struct sl_nft_ruleset *wanted;
	struct sl_nft_ops ops;
	struct sl_nft_report *report;
};

static bool is_orphan(const struct sl_nft_table *t)
{
	return t->installed && !t->cannot_own && !t->installed->owner &&
	       (t->installed->flags & TABLE_FLAGS) == TABLE_F_PERSIST;
}

static int commit(struct apply *a, const struct sl_nft_batch *b, struct sl_nft_fault *fault)
{
	uint64_t start_us = sl_clock_us();
	int r = sl_nft_socket_commit(&a->t->socket, b, fault);

	a->report->kernel_us += sl_clock_us() - start_us;
	a->report->n_batches++;
	return r;
}

/*
 * Before 6.9 a table cannot outlive its owner, and then none is better. Asked apart from what is
 * to be loaded, all of which would be refused with the table.
 */
static int probe_owner(struct apply *a)
{
	struct sl_nft_table *t = a->t;
	_cleanup_(sl_nft_batch_done) struct sl_nft_batch b = { 0 };
	struct sl_nft_fault fault;
	int r;

	if (t->is_probed || !a->ops.n || a->ops.op[0].kind > SL_NFT_ADD_TABLE)
		return 0; /* no table is made */
	r = sl_nft_encode_probe(TABLE_FLAGS, t->generation, sl_nft_socket_seq(&t->socket), &b);
	if (r < 0)
		return r;
	r = sl_nft_socket_commit(&t->socket, &b, &fault);
	if (r == -ERESTART || fault.message == SIZE_MAX || (fault.message == 0 && r != -EOPNOTSUPP))
		return r;
	t->cannot_own = fault.message == 0;
	t->is_probed = true;
	return 0;
}

/*
 * Becomes the owner of a table whose owner has gone. In a batch of its own: behind a change of the
 * table's flags the kernel takes no base chain in the same one (6.9 and later).
 */
static int adopt(struct apply *a)
{
	struct sl_nft_table *t = a->t;
	_cleanup_(sl_nft_batch_done) struct sl_nft_batch b = { 0 };
	const struct sl_nft_op op = { .kind = SL_NFT_ADD_TABLE };
	const struct sl_nft_encode e = { .table = t->name,
					 .wanted = a->wanted,
					 .ops = &a->ops,
					 .table_flags = TABLE_FLAGS,
					 .generation = t->generation,
					 .adopts = true };
	struct sl_nft_fault fault;
	int r;

	if (!is_orphan(t) || (a->ops.n && a->ops.op[0].kind == SL_NFT_DEL_TABLE))
		return 0; /* or another one takes its place */
	r = sl_nft_encode(&e, 0, 0, sl_nft_socket_seq(&t->socket), &b);
	if (r == 0)
		r = commit(a, &b, &fault);
	if (r < 0) {
		if (r != -ERESTART && r != -ENOMEM)
			report_fault(t, a->wanted, &op, &fault, r, a->report);
		return r;
	}
	a->report->is_adopted = true;
	t->installed->flags = TABLE_FLAGS;
	t->installed->owner = t->socket.port;
	t->generation++;
	return 0;
}

static int send_ops(struct apply *a, size_t from, size_t to)
{
	struct sl_nft_table *t = a->t;
	_cleanup_(sl_nft_batch_done) struct sl_nft_batch b = { 0 };
	const struct sl_nft_encode e = { .table = t->name,
					 .installed = t->installed,
					 .wanted = a->wanted,
					 .ops = &a->ops,
					 .table_flags = t->cannot_own ? 0 : TABLE_FLAGS,
					 .generation = t->generation };
	struct sl_nft_fault fault;
	const struct sl_nft_op *op = NULL;
	int r;

	r = sl_nft_encode(&e, from, to, sl_nft_socket_seq(&t->socket), &b);
	if (r < 0)
		return r;
	r = commit(a, &b, &fault);
	if (r == 0) {
		t->generation++;
		return 0;
	}
	if (fault.message < b.n) {
		const struct sl_nft_message *m = &b.messages[fault.message];
		size_t at = sl_nft_batch_op_at(&b, m, fault.offset);

		if (at < a->ops.n)
			op = &a->ops.op[at];
	}
	if (r != -ERESTART)
		report_fault(t, a->wanted, op, &fault, r, a->report);
	return r;
}

/*
 * Of several batches the last makes the table take effect. Where one of them is refused, what
 * those before it left leads nowhere; the next attempt removes or completes it.
 */
static int send_chunks(struct apply *a)
{
	size_t n = a->ops.n, from = 0;
	bool is_new = n && a->ops.op[0].kind == SL_NFT_ADD_TABLE;

	while (is_new && n > SL_NFT_BATCH_OPS && from < a->ops.n_silent) {
		size_t left = a->ops.n_silent - from;
		size_t to = left > SL_NFT_BATCH_OPS ? from + SL_NFT_BATCH_OPS : a->ops.n_silent;
		int r = send_ops(a, from, to);

		if (r < 0)
			return r;
		from = to;
	}
	return from < n ? send_ops(a, from, n) : 0;
}

/* Handles of rules that stayed, and those of new ones. False: they have to be read. */
static bool carry_handles(struct sl_nft_table *t, struct sl_nft_ruleset *wanted, bool is_replaced)
{
	size_t n_asked = 0;

	for (size_t i = 0; i < wanted->n_chains; i++) {
		struct sl_nft_chain *chain = &wanted->chains[i];
		const struct sl_nft_chain *old =
			t->installed && !is_replaced ? sl_nft_find_chain(t->installed, chain->name)
						     : NULL;
		bool is_same = old && old->n == chain->n;

		for (size_t j = 0; is_same && j < chain->n; j++) {
			is_same = sl_nft_rule_is_same(t->installed, &old->rules[j], wanted,
						      &chain->rules[j]);
			chain->rules[j].handle = old->rules[j].handle;
		}
		if (is_same || chain->n == 0)
			continue;
		if (n_asked++ == HANDLES_MAX ||
		    sl_nft_decode_handles(&t->socket, t->name, chain) < 0)
			return false;
	}
	return true;
}

/* `*wanted` is what the kernel holds now. */
static void take_over(struct sl_nft_table *t, struct sl_nft_ruleset **wanted, bool is_replaced)
{
	struct sl_nft_ruleset *rs = SL_TAKE_PTR(*wanted);

	t->is_known = carry_handles(t, rs, is_replaced);
	rs->flags = t->cannot_own ? 0 : TABLE_FLAGS;
	if (t->installed && !is_replaced) {
		rs->flags = t->installed->flags;
		rs->owner = t->installed->owner;
	}
	if ((rs->flags & TABLE_FLAGS) == TABLE_FLAGS)
		rs->owner = t->socket.port;
	sl_nft_ruleset_free(t->installed);
	t->installed = rs;
	if (!t->is_known)
		sl_nft_table_forget(t);
}

static void count_ops(const struct sl_nft_ops *ops, struct sl_nft_report *report)
{
	for (size_t i = 0; i < ops->n; i++) {
		switch (ops->op[i].kind) {
		case SL_NFT_ADD_TABLE:
		case SL_NFT_ADD_SET:
		case SL_NFT_ADD_COUNTER:
		case SL_NFT_ADD_FLOWTABLE:
		case SL_NFT_ADD_CHAIN:
		case SL_NFT_ADD_ELEM:
		case SL_NFT_ADD_RULE:
			report->n_added++;
			break;
		case SL_NFT_DEL_TABLE:
		case SL_NFT_CUT_FLOWTABLE:
		case SL_NFT_DEL_FLOWTABLE:
		case SL_NFT_DEL_ELEM:
		case SL_NFT_DEL_RULE:
		case SL_NFT_DEL_SET:
		case SL_NFT_DEL_CHAIN:
		case SL_NFT_DEL_COUNTER:
			report->n_removed++;
			break;
		}
	}
}

/* While both rulesets are there. */
static void tell_changes(const struct sl_nft_table *t, const struct sl_nft_ruleset *wanted,
			 const struct sl_nft_ops *ops)
{
	if (t->changes)
		sl_nft_say_ops(t->name, t->installed, wanted, ops, t->changes);
}

void sl_nft_table_tell_changes(struct sl_nft_table *t, struct sl_nft_changes *to)
{
	t->changes = to;
}

/* True: somebody came between, so what we know is not what there is. */
static bool was_disturbed(struct sl_nft_table *t)
{
	uint32_t now;

	return watch(t, true) < 0 || sl_nft_socket_generation(&t->socket, &now) < 0 ||
	       now != t->generation;
}

/* What the first of several batches put in, when a later one was refused. */
static void remove_half(struct sl_nft_table *t)
{
	struct sl_nft_report unused;
	int r = sl_nft_table_remove(t, &unused);

	(void)r; /* what is left leads nowhere, and the next attempt finds it */
}

/* One attempt; -ERESTART: another may succeed. */
static int try(struct sl_nft_table *t, struct sl_nft_ruleset **wanted, struct sl_nft_report *report)
{
	struct apply a = { .t = t, .wanted = *wanted, .report = report };
	unsigned n_batches = report->n_batches;
	bool is_replaced, is_changed, is_disturbed = false, had_none;
	int r = refresh(t);

	if (r == 0)
		r = check_owner(t, report);
	if (r == 0)
		r = sl_nft_diff(t->installed, *wanted, &a.ops);
	if (r < 0)
		return r;
	had_none = !t->installed;
	is_replaced = a.ops.n && a.ops.op[0].kind == SL_NFT_DEL_TABLE;
	is_changed = a.ops.n || is_orphan(t);
	if (is_changed) {
		(void)watch(t, false);
		r = probe_owner(&a);
		if (r == 0)
			r = adopt(&a);
		if (r == 0)
			r = send_chunks(&a);
		is_disturbed = was_disturbed(t);
	}
	if (r == 0) {
		count_ops(&a.ops, report);
		tell_changes(t, *wanted, &a.ops);
	}
	sl_nft_ops_done(&a.ops);
	if (r < 0) {
		sl_nft_table_forget(t);
		if (had_none && report->n_batches > n_batches + 1)
			remove_half(t);
		return r;
	}
	report->is_replaced |= is_replaced;
	if (is_changed && is_disturbed) {
		sl_nft_table_forget(t);
		return -ERESTART;
	}
	if (is_changed)
		take_over(t, wanted, is_replaced);
	else
		sl_nft_ruleset_free(SL_TAKE_PTR(*wanted));
	return 0;
}

int sl_nft_table_apply(struct sl_nft_table *t, struct sl_nft_ruleset **wanted,
		       struct sl_nft_report *report)
{
	int r = -ERESTART;

	*report = (struct sl_nft_report){ 0 };
	for (int i = 0; i < TRIES && r == -ERESTART; i++) {
		report->n_retries += i > 0;
		r = try(t, wanted, report);
	}
	if (r == -ERESTART)
		r = -EAGAIN;
	if (r < 0 && !*report->text)
		snprintf(report->text, sizeof(report->text), "table inet %s: %s", t->name,
			 strerror(-r));
	report->is_owned = r == 0 && t->installed && t->installed->owner == t->socket.port;
	return r;
}

static int try_remove(struct sl_nft_table *t, struct sl_nft_report *report)
{
	_cleanup_(sl_nft_batch_done) struct sl_nft_batch b = { 0 };
	struct apply a = { .t = t, .report = report };
	struct sl_nft_op op = { .kind = SL_NFT_DEL_TABLE };
	struct sl_nft_fault fault;
	int r = refresh(t);

	if (r == 0)
		r = check_owner(t, report);
	if (r < 0 || !t->installed)
		return r;
	r = sl_nft_encode_removal(t->name, t->generation, sl_nft_socket_seq(&t->socket), &b);
	if (r < 0)
		return r;
	(void)watch(t, false);
	r = commit(&a, &b, &fault);
	(void)watch(t, true);
	if (r < 0 && r != -ERESTART)
		report_fault(t, NULL, &op, &fault, r, report);
	sl_nft_table_forget(t);
	return r;
}

int sl_nft_table_remove(struct sl_nft_table *t, struct sl_nft_report *report)
{
	int r = -ERESTART;

	*report = (struct sl_nft_report){ 0 };
	for (int i = 0; i < TRIES && r == -ERESTART; i++)
		r = try_remove(t, report);
	return r == -ERESTART ? -EAGAIN : r;
}

int sl_nft_table_try_offload(struct sl_nft_table *t, struct sl_str *why)
{
	_cleanup_(sl_nft_ruleset_freep) struct sl_nft_ruleset *rs = NULL;
	int r = sl_nft_ruleset_new(&rs);

	if (r == 0)
		r = sl_nft_put_offload(rs, NULL, 0, NULL, 0);
	for (int i = 0; r == 0 && i < TRIES; i++) {
		_cleanup_(sl_nft_batch_done) struct sl_nft_batch b = { 0 };
		struct sl_nft_fault fault;
		uint32_t generation;

		r = sl_nft_socket_generation(&t->socket, &generation);
		if (r == 0)
			r = sl_nft_encode_trial(rs, generation, sl_nft_socket_seq(&t->socket), &b);
		if (r < 0)
			return r;
		r = sl_nft_socket_commit(&t->socket, &b, &fault);
		if (r == -ERESTART) {
			r = 0;
			continue;
		}
		if (r == 0 || fault.message == b.n - 1)
			return 0;
		sl_str_adds(why, *fault.text ? fault.text : strerror(-r));
		return fault.message < b.n ? -EOPNOTSUPP : r;
	}
	return r < 0 ? r : -EAGAIN;
}

int sl_nft_table_watch_fd(const struct sl_nft_table *t)
{
	return mnl_socket_get_fd(t->watch);
}

/* Of our table, and not by us. The name of the table is attribute 1 in every message. */
static bool is_foreign(const struct sl_nft_table *t, const struct nlmsghdr *nlh)
{
	const struct nfgenmsg *nfg = mnl_nlmsg_get_payload(nlh);
	struct sl_attrs attrs;
	const struct nlattr *a;

	if (nlh->nlmsg_type >> 8 != NFNL_SUBSYS_NFTABLES || nlh->nlmsg_len < NLMSG_LENGTH(4) ||
	    nlh->nlmsg_pid == t->socket.port || nfg->nfgen_family != NFPROTO_INET ||
	    (nlh->nlmsg_type & 0xff) == NFT_MSG_NEWGEN)
		return false;
	attrs = sl_attrs_of(nlh, sizeof(*nfg));
	while ((a = sl_attrs_next(&attrs)))
		if (mnl_attr_get_type(a) == NFTA_TABLE_NAME)
			return strcmp(mnl_attr_get_str(a), t->name) == 0;
	return false;
}

int sl_nft_table_watch_read(struct sl_nft_table *t)
{
	uint8_t buf[1 << 15];
	int res = 0;

	for (;;) {
		ssize_t n = recv(mnl_socket_get_fd(t->watch), buf, sizeof(buf), 0);
		const struct nlmsghdr *nlh = (const void *)buf;
		int left = (int)n;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == ENOBUFS) {
			res = 1; /* some are lost */
			continue;
		}
		if (n < 0)
			return errno == EAGAIN ? res : -errno;
		for (; mnl_nlmsg_ok(nlh, left); nlh = mnl_nlmsg_next(nlh, &left))
			if (is_foreign(t, nlh))
				res = 1;
	}
}
