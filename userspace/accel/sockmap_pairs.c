/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Connections of the sockmap engine. The slots say which pairs are in use: written before anything
 * else of a pair, cleared behind everything else, so that whatever a daemon that died has left of a
 * pair can be found. Nothing but rows of maps is read and written.
 */
#include <bpf/bpf.h>
#include <errno.h>
#include <string.h>

#include "accel/sockmap_impl.h"

/* A limit beyond this would be negative to the program. */
#define MAX_LIMIT INT32_MAX

/* ---- which are in use ---- */

static bool is_used(const struct sl_sockmap *s, uint32_t pair)
{
	return s->used[pair / 64] >> (pair % 64) & 1;
}

static void mark(struct sl_sockmap *s, uint32_t pair, bool used)
{
	const uint64_t bit = UINT64_C(1) << (pair % 64);

	if (is_used(s, pair) == used)
		return;
	s->used[pair / 64] ^= bit;
	s->n_used = used ? s->n_used + 1 : s->n_used - 1;
}

static uint64_t conn_id_of(const struct sl_sockmap *s, uint32_t pair)
{
	uint64_t id = s->slots[2 * pair].conn_id;

	return id ? id : s->slots[2 * pair + 1].conn_id;
}

/* One that was freed is used again as late as possible: a packet may still be on its way to it. */
int sl_sockmap_take_pair(struct sl_sockmap *s, uint32_t *ret)
{
	if (s->n_used == s->n_pairs)
		return -ENOSPC;
	while (is_used(s, s->next))
		s->next = (s->next + 1) % s->n_pairs;
	*ret = s->next;
	s->next = (s->next + 1) % s->n_pairs;
	return 0;
}

size_t sl_sockmap_n_pairs(const struct sl_sockmap *s)
{
	return s->n_used;
}

bool sl_sockmap_next(const struct sl_sockmap *s, uint32_t *pair)
{
	for (uint32_t i = *pair + 1; i < s->n_pairs; i++) {
		if (is_used(s, i)) {
			*pair = i;
			return true;
		}
	}
	return false;
}

const struct sl_sockmap_slot *sl_sockmap_slots(const struct sl_sockmap *s)
{
	return s->slots;
}

static struct sl_sockmap_slot *slot_at(const struct sl_sockmap *s, uint32_t pair, int side)
{
	return &s->slots[2 * pair + (uint32_t)side];
}

/* ---- rows ---- */

static bool get_flow(const struct sl_sockmap *s, uint64_t cookie, struct sl_sockmap_flow *ret)
{
	return bpf_map_lookup_elem(s->maps[SL_SOCKMAP_FLOWS], &cookie, ret) == 0;
}

static struct sl_sockmap_flow flow_of(uint32_t pair, uint64_t conn_id, const uint64_t cookie[2],
				      int side)
{
	return (struct sl_sockmap_flow){ .conn_id = conn_id,
					 .peer = cookie[!side],
					 .slot = 2 * pair + (uint32_t)side,
					 .side = (enum sl_sockmap_side)side };
}

static int put_flow(struct sl_sockmap *s, uint32_t pair, uint64_t conn_id, const uint64_t cookie[2],
		    int side, uint64_t flags)
{
	struct sl_sockmap_flow flow = flow_of(pair, conn_id, cookie, side);

	if (bpf_map_update_elem(s->maps[SL_SOCKMAP_FLOWS], &cookie[side], &flow, flags) == 0)
		return 0;
	return errno == E2BIG ? -ENOSPC : -errno; /* stale entries fill it */
}

/* Another connection's is left. */
static void delete_flow(struct sl_sockmap *s, uint64_t conn_id, uint64_t cookie)
{
	struct sl_sockmap_flow flow;

	if (get_flow(s, cookie, &flow) && flow.conn_id == conn_id)
		(void)bpf_map_delete_elem(s->maps[SL_SOCKMAP_FLOWS], &cookie);
}

static bool is_in(const struct sl_sockmap *s, enum sl_sockmap_map map, uint64_t cookie)
{
	uint64_t found;

	return bpf_map_lookup_elem(s->maps[map], &cookie, &found) == 0 && found == cookie;
}

static int put_socket(struct sl_sockmap *s, enum sl_sockmap_map map, uint64_t cookie, int fd)
{
	uint64_t value = (uint64_t)(uint32_t)fd;

	if (bpf_map_update_elem(s->maps[map], &cookie, &value, BPF_NOEXIST) == 0)
		return 0;
	return errno == E2BIG ? -ENOSPC : -errno;
}

static void delete_socket(struct sl_sockmap *s, enum sl_sockmap_map map, uint64_t cookie)
{
	(void)bpf_map_delete_elem(s->maps[map], &cookie);
}

/* ---- slots ---- */

static void fill_slots(struct sl_sockmap *s, uint32_t pair, const struct sl_sockmap_pair *p)
{
	for (int side = 0; side < 2; side++) {
		struct sl_sockmap_slot *slot = slot_at(s, pair, side);

		s->orders[2 * pair + (uint32_t)side] = (struct sl_sockmap_order){ 0 };
		*slot = (struct sl_sockmap_slot){ .cookie = p->cookie[side],
						  .state = SL_SOCKMAP_FAST,
						  .limit = p->limit };
		__atomic_store_n(&slot->conn_id, p->conn_id, __ATOMIC_RELEASE);
	}
	mark(s, pair, true);
}

static void clear_slots(struct sl_sockmap *s, uint32_t pair)
{
	for (int side = 0; side < 2; side++) {
		*slot_at(s, pair, side) = (struct sl_sockmap_slot){ 0 };
		s->orders[2 * pair + (uint32_t)side] = (struct sl_sockmap_order){ 0 };
	}
	mark(s, pair, false);
}

/* It has no program: what it receives is read from the socket as ever. */
static void no_source(struct sl_sockmap *s, uint32_t pair, int side)
{
	struct sl_sockmap_slot *slot = slot_at(s, pair, side);

	slot->why = SL_SOCKMAP_NO_SOURCE;
	__atomic_store_n(&slot->state, SL_SOCKMAP_SPILLED, __ATOMIC_RELEASE);
}

/*
 * A broker that died has only begun with it, or was about to end. Nobody is in doubt about such a
 * pair, and its sockets may be in another one by the time somebody looks at it.
 */
static bool is_remnant(const struct sl_sockmap *s, uint32_t pair)
{
	for (uint32_t slot = 2 * pair; slot < 2 * pair + 2; slot++) {
		uint64_t cookie = s->slots[slot].cookie;
		struct sl_sockmap_flow flow;

		if ((get_flow(s, cookie, &flow) && flow.slot == slot) ||
		    is_in(s, SL_SOCKMAP_TARGETS, cookie))
			return false;
	}
	return true;
}

int sl_sockmap_find_pairs(struct sl_sockmap *s)
{
	s->used = calloc((s->n_pairs + 63) / 64, sizeof(*s->used));
	if (!s->used)
		return -ENOMEM;
	for (uint32_t pair = 0; pair < s->n_pairs; pair++) {
		if (conn_id_of(s, pair) == 0)
			continue;
		mark(s, pair, true);
		if (is_remnant(s, pair))
			clear_slots(s, pair);
	}
	return 0;
}

/* ---- joining ---- */

int sl_sockmap_do_step(struct sl_sockmap *s, enum sl_sockmap_step step, uint32_t pair,
		       const struct sl_sockmap_pair *p)
{
	int side;

	if (step == SL_SOCKMAP_STEP_SLOTS) {
		fill_slots(s, pair, p);
		return 0;
	}
	side = (step - SL_SOCKMAP_STEP_FLOW) % 2;
	if (step < SL_SOCKMAP_STEP_TARGET)
		return put_flow(s, pair, p->conn_id, p->cookie, side, BPF_NOEXIST);
	return put_socket(s,
			  step < SL_SOCKMAP_STEP_SOURCE ? SL_SOCKMAP_TARGETS : SL_SOCKMAP_SOURCES,
			  p->cookie[side], p->fd[side]);
}

/* The steps before `done`, in the other order. */
static void undo(struct sl_sockmap *s, int done, uint32_t pair, const struct sl_sockmap_pair *p)
{
	for (int step = done - 1; step >= 0; step--) {
		int side = (step - SL_SOCKMAP_STEP_FLOW) % 2;

		if (step == SL_SOCKMAP_STEP_SLOTS)
			clear_slots(s, pair);
		else if (step < SL_SOCKMAP_STEP_TARGET)
			delete_flow(s, p->conn_id, p->cookie[side]);
		else
			delete_socket(s,
				      step < SL_SOCKMAP_STEP_SOURCE ? SL_SOCKMAP_TARGETS
								    : SL_SOCKMAP_SOURCES,
				      p->cookie[side]);
	}
}

/*
 * From the first source on bytes may have gone: what fails then is a side without a program. One
 * that was found to be so stays so: its queue may have been read in part since.
 */
static int add_sources(struct sl_sockmap *s, uint32_t pair, const struct sl_sockmap_pair *p)
{
	int r[2] = { 0, 0 };

	for (int side = 0; side < 2; side++) {
		if (slot_at(s, pair, side)->why == SL_SOCKMAP_NO_SOURCE ||
		    is_in(s, SL_SOCKMAP_SOURCES, p->cookie[side]))
			continue;
		r[side] = put_socket(s, SL_SOCKMAP_SOURCES, p->cookie[side], p->fd[side]);
		if (r[side] < 0)
			no_source(s, pair, side);
	}
	return r[0] < 0 && r[1] < 0 ? r[0] : 0;
}

static bool is_sound(const struct sl_sockmap_pair *p)
{
	return p->conn_id && p->cookie[0] && p->cookie[1] && p->cookie[0] != p->cookie[1] &&
	       p->limit <= MAX_LIMIT;
}

int sl_sockmap_join(struct sl_sockmap *s, const struct sl_sockmap_pair *p, uint32_t *ret)
{
	uint32_t pair = 0;
	int step;
	int r = is_sound(p) ? sl_sockmap_take_pair(s, &pair) : -EINVAL;

	if (r < 0)
		return r;
	for (step = 0; step < SL_SOCKMAP_STEP_SOURCE; step++) {
		r = sl_sockmap_do_step(s, (enum sl_sockmap_step)step, pair, p);
		if (r < 0)
			break;
	}
	if (r == 0)
		r = add_sources(s, pair, p);
	if (r < 0) {
		undo(s, step, pair, p);
		return r;
	}
	*ret = pair;
	return 0;
}

void sl_sockmap_take_out(struct sl_sockmap *s, uint32_t pair)
{
	for (uint32_t slot = 2 * pair; slot < 2 * pair + 2; slot++)
		delete_socket(s, SL_SOCKMAP_SOURCES, s->slots[slot].cookie);
	for (uint32_t slot = 2 * pair; slot < 2 * pair + 2; slot++)
		delete_socket(s, SL_SOCKMAP_TARGETS, s->slots[slot].cookie);
}

void sl_sockmap_leave(struct sl_sockmap *s, uint32_t pair, uint64_t conn_id)
{
	uint64_t cookie[2];

	if (pair >= s->n_pairs || conn_id == 0 || conn_id_of(s, pair) != conn_id)
		return;
	for (int side = 0; side < 2; side++)
		cookie[side] = slot_at(s, pair, side)->cookie;
	sl_sockmap_take_out(s, pair);
	for (int side = 0; side < 2; side++)
		delete_flow(s, conn_id, cookie[side]);
	clear_slots(s, pair);
}

/* ---- what a broker that died has left ---- */

/* The slots are the first to be there: they are looked through where no flow tells. */
static bool find(const struct sl_sockmap *s, const struct sl_sockmap_pair *p, uint32_t *ret)
{
	struct sl_sockmap_flow flow;
	uint32_t pair = UINT32_MAX;

	for (int side = 0; side < 2; side++) {
		if (get_flow(s, p->cookie[side], &flow) && flow.conn_id == p->conn_id &&
		    flow.slot / 2 < s->n_pairs && conn_id_of(s, flow.slot / 2) == p->conn_id) {
			*ret = flow.slot / 2;
			return true;
		}
	}
	while (sl_sockmap_next(s, &pair)) {
		if (conn_id_of(s, pair) == p->conn_id) {
			*ret = pair;
			return true;
		}
	}
	return false;
}

/* Both slots are written, and of these sockets. */
static bool is_whole(const struct sl_sockmap *s, uint32_t pair, const struct sl_sockmap_pair *p)
{
	for (int side = 0; side < 2; side++) {
		const struct sl_sockmap_slot *slot = slot_at(s, pair, side);

		if (slot->conn_id != p->conn_id || slot->cookie != p->cookie[side])
			return false;
	}
	return true;
}

/* A socket that somebody has taken out of the map has its counts still. */
static bool may_have_passed(const struct sl_sockmap *s, uint32_t pair,
			    const struct sl_sockmap_pair *p)
{
	for (int side = 0; side < 2; side++)
		if (is_in(s, SL_SOCKMAP_SOURCES, p->cookie[side]) ||
		    __atomic_load_n(&slot_at(s, pair, side)->packets, __ATOMIC_RELAXED))
			return true;
	return false;
}

int sl_sockmap_resolve(struct sl_sockmap *s, const struct sl_sockmap_pair *p, uint32_t *ret)
{
	uint32_t pair;

	if (!is_sound(p))
		return -EINVAL;
	if (!find(s, p, &pair))
		return -ENOENT;
	if (!is_whole(s, pair, p) || !may_have_passed(s, pair, p)) {
		undo(s, SL_SOCKMAP_STEP_SOURCE, pair, p);
		return -ENOENT;
	}
	/* Both were targets before the first was a source. */
	(void)add_sources(s, pair, p);
	*ret = pair;
	return 0;
}

/* ---- looking ---- */

void sl_sockmap_look(const struct sl_sockmap *s, uint32_t pair, struct sl_sockmap_facts *ret)
{
	struct sl_sockmap_facts facts = { 0 };

	if (pair < s->n_pairs && is_used(s, pair)) {
		facts.conn_id = conn_id_of(s, pair);
		for (int side = 0; side < 2; side++)
			facts.cookie[side] = slot_at(s, pair, side)->cookie;
	}
	for (int side = 0; facts.conn_id && side < 2; side++) {
		struct sl_sockmap_flow want = flow_of(pair, facts.conn_id, facts.cookie, side);
		struct sl_sockmap_flow flow;

		facts.has_flow[side] = get_flow(s, facts.cookie[side], &flow) &&
				       memcmp(&flow, &want, sizeof(flow)) == 0;
		facts.is_target[side] = is_in(s, SL_SOCKMAP_TARGETS, facts.cookie[side]);
		facts.is_source[side] = is_in(s, SL_SOCKMAP_SOURCES, facts.cookie[side]);
	}
	*ret = facts;
}

/* What the daemon has ordered before does not count: `passed` knows nothing of what has come. */
static void spill(struct sl_sockmap_slot *slot)
{
	if (slot->why != SL_SOCKMAP_NO_SOURCE)
		__atomic_store_n(&slot->why, SL_SOCKMAP_NO_ENTRY, __ATOMIC_RELAXED);
	__atomic_store_n(&slot->spills, slot->spills + 1, __ATOMIC_RELAXED);
	__atomic_store_n(&slot->state, SL_SOCKMAP_SPILLED, __ATOMIC_RELEASE);
}

int sl_sockmap_restore(struct sl_sockmap *s, uint32_t pair)
{
	struct sl_sockmap_facts facts;
	int n = 0;

	sl_sockmap_look(s, pair, &facts);
	for (int side = 0; facts.conn_id && side < 2; side++) {
		int r;

		if (facts.has_flow[side] || !facts.cookie[side])
			continue;
		/*
		 * What came meanwhile was passed to the daemon: what comes next must not overtake
		 * it. Without the entry no program writes to the slot.
		 */
		spill(slot_at(s, pair, side));
		r = put_flow(s, pair, facts.conn_id, facts.cookie, side, BPF_ANY);
		if (r < 0)
			return r;
		n = 1;
	}
	return n;
}

/* ---- sweeping ---- */

static bool is_explained(const struct sl_sockmap *s, uint64_t cookie,
			 const struct sl_sockmap_flow *flow)
{
	return flow->slot < 2 * s->n_pairs && s->slots[flow->slot].cookie == cookie &&
	       s->slots[flow->slot].conn_id == flow->conn_id;
}

/* The next key is asked for before one is deleted; a walk that begins anew ends all the same. */
size_t sl_sockmap_sweep(struct sl_sockmap *s)
{
	const int fd = s->maps[SL_SOCKMAP_FLOWS];
	struct sl_sockmap_flow flow;
	uint64_t next;
	uint64_t key;
	size_t n = 0;
	bool is_more = bpf_map_get_next_key(fd, NULL, &key) == 0;

	for (uint64_t i = 0; is_more && i < 4 * (uint64_t)s->n_pairs; i++) {
		is_more = bpf_map_get_next_key(fd, &key, &next) == 0;
		if (get_flow(s, key, &flow) && !is_explained(s, key, &flow) &&
		    bpf_map_delete_elem(fd, &key) == 0)
			n++;
		key = next;
	}
	return n;
}
