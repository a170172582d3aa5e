/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "daemon/deny_set.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memfd.h"

#define MAGIC UINT64_C(0x3179656e64006c73)
#define GLOBS_MAX 4096u

/* Followed by the arrays in this order; both processes are of one host. */
struct packed {
	uint64_t magic;
	uint64_t n4;
	uint64_t n6;
	uint64_t n_globs;
};

/* ---- memory ---- */

static int grow(void *slot, size_t n, size_t size)
{
	void *old;
	void *fresh;

	memcpy(&old, slot, sizeof(old));
	fresh = realloc(old, n ? n * size : 1);
	if (!fresh)
		return -ENOMEM;
	memcpy(slot, &fresh, sizeof(fresh));
	return 0;
}

int sl_deny_set_append(struct sl_ip_set *set, const struct sl_ip_set *more)
{
	if (grow(&set->v4, set->n4 + more->n4, sizeof(*set->v4)) < 0 ||
	    grow(&set->v6, set->n6 + more->n6, sizeof(*set->v6)) < 0 ||
	    grow(&set->globs, set->n_globs + more->n_globs, sizeof(*set->globs)) < 0)
		return -ENOMEM;
	if (more->n4)
		memcpy(set->v4 + set->n4, more->v4, more->n4 * sizeof(*set->v4));
	if (more->n6)
		memcpy(set->v6 + set->n6, more->v6, more->n6 * sizeof(*set->v6));
	if (more->n_globs)
		memcpy(set->globs + set->n_globs, more->globs, more->n_globs * sizeof(*set->globs));
	set->n4 += more->n4;
	set->n6 += more->n6;
	set->n_globs += more->n_globs;
	return 0;
}

void sl_deny_set_build(struct sl_ip_set *set)
{
	size_t size4 = set->n4 * sizeof(*set->v4);
	size_t size6 = set->n6 * sizeof(*set->v6);
	_cleanup_free_ void *scratch = malloc((size4 > size6 ? size4 : size6) + 1);

	sl_ip_set_build(set, scratch);
}

/* ---- globs ---- */

static size_t n_values(const struct sl_ip4_glob *g, unsigned i)
{
	size_t n = 0;

	for (unsigned w = 0; w < 4; w++)
		n += (size_t)__builtin_popcountll(g->octet[i][w]);
	return n;
}

/* Whether a run of values of the octet begins at this one. */
static bool begins(const struct sl_ip4_glob *g, unsigned i, unsigned octet)
{
	return sl_ip_octet_has(g->octet[i], octet) &&
	       (octet == 0 || !sl_ip_octet_has(g->octet[i], octet - 1));
}

static size_t n_runs(const struct sl_ip4_glob *g, unsigned i)
{
	size_t n = 0;

	for (unsigned octet = 0; octet < 256; octet++)
		n += begins(g, i, octet);
	return n;
}

/* The last octet that is not free: runs of its values are ranges, whatever follows. */
static unsigned last_octet(const struct sl_ip4_glob *g)
{
	unsigned i = 3;

	while (i > 0 && n_values(g, i) == 256)
		i--;
	return i;
}

static size_t n_ranges(const struct sl_ip4_glob *g)
{
	unsigned last = last_octet(g);
	size_t n = n_runs(g, last);

	for (unsigned i = 0; i < last; i++)
		n *= n_values(g, i);
	return n;
}

static void put_runs(struct sl_ip_set *set, const struct sl_ip4_glob *g, unsigned last,
		     uint32_t prefix)
{
	unsigned shift = 24 - 8 * last;
	uint32_t rest = (UINT32_C(1) << shift) - 1;

	for (unsigned octet = 0; octet < 256; octet++) {
		unsigned end = octet;

		if (!begins(g, last, octet))
			continue;
		while (end < 255 && sl_ip_octet_has(g->octet[last], end + 1))
			end++;
		set->v4[set->n4++] =
			(struct sl_ip4_range){ prefix | (uint32_t)octet << shift,
					       prefix | (uint32_t)end << shift | rest };
	}
}

/* Every value of the octets before the last one; at most three deep. */
static void put_values(struct sl_ip_set *set, const struct sl_ip4_glob *g, unsigned last,
		       unsigned i, uint32_t prefix)
{
	if (i == last) {
		put_runs(set, g, last, prefix);
		return;
	}
	for (unsigned octet = 0; octet < 256; octet++)
		if (sl_ip_octet_has(g->octet[i], octet))
			put_values(set, g, last, i + 1, prefix | (uint32_t)octet << (24 - 8 * i));
}

int sl_deny_set_expand(struct sl_ip_set *set)
{
	size_t more = 0;
	size_t left = 0;

	for (size_t i = 0; i < set->n_globs; i++) {
		size_t n = n_ranges(&set->globs[i]);

		more += n <= SL_DENY_EXPAND_MAX ? n : 0;
	}
	if (more == 0)
		return 0;
	if (set->n4 + more > SL_DENY_RANGES_MAX)
		return -E2BIG;
	if (grow(&set->v4, set->n4 + more, sizeof(*set->v4)) < 0)
		return -ENOMEM;
	for (size_t i = 0; i < set->n_globs; i++) {
		if (n_ranges(&set->globs[i]) <= SL_DENY_EXPAND_MAX)
			put_values(set, &set->globs[i], last_octet(&set->globs[i]), 0, 0);
		else
			set->globs[left++] = set->globs[i];
	}
	set->n_globs = left;
	return 0;
}

/* ---- memfd ---- */

int sl_deny_set_pack(const struct sl_ip_set *set, int *ret_fd)
{
	const struct packed head = { MAGIC, set->n4, set->n6, set->n_globs };
	_cleanup_fd_ int fd = memfd_create("sluice-deny", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int r;

	if (fd < 0)
		return -errno;
	r = sl_write_all(fd, &head, sizeof(head));
	if (r == 0)
		r = sl_write_all(fd, set->v4, set->n4 * sizeof(*set->v4));
	if (r == 0)
		r = sl_write_all(fd, set->v6, set->n6 * sizeof(*set->v6));
	if (r == 0)
		r = sl_write_all(fd, set->globs, set->n_globs * sizeof(*set->globs));
	if (r < 0)
		return r;
	if (fcntl(fd, F_ADD_SEALS, SL_SEALS) < 0)
		return -errno;
	*ret_fd = SL_TAKE_FD(fd);
	return 0;
}

static int read_at(int fd, void *to, size_t n, uint64_t *at)
{
	char *p = to;

	while (n > 0) {
		ssize_t got = pread(fd, p, n, (off_t)*at);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			return -EBADMSG;
		p += got;
		n -= (size_t)got;
		*at += (uint64_t)got;
	}
	return 0;
}

/* Sealed, and as long as it says. */
static int read_head(int fd, struct packed *ret, uint64_t *at)
{
	int seals = fcntl(fd, F_GET_SEALS);
	struct stat st;
	int r;

	if (seals < 0 || (seals & SL_SEALS) != SL_SEALS)
		return -EPERM;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (st.st_size < (off_t)sizeof(*ret))
		return -EBADMSG;
	r = read_at(fd, ret, sizeof(*ret), at);
	if (r < 0)
		return r;
	if (ret->magic != MAGIC || ret->n4 > SL_DENY_RANGES_MAX || ret->n6 > SL_DENY_RANGES_MAX ||
	    ret->n_globs > GLOBS_MAX)
		return -EBADMSG;
	return (uint64_t)st.st_size == sizeof(*ret) + ret->n4 * sizeof(struct sl_ip4_range) +
					       ret->n6 * sizeof(struct sl_ip6_range) +
					       ret->n_globs * sizeof(struct sl_ip4_glob)
		       ? 0
		       : -EBADMSG;
}

static bool is_built(const struct sl_ip_set *set)
{
	for (size_t i = 0; i < set->n4; i++)
		if (set->v4[i].from > set->v4[i].to ||
		    (i > 0 && set->v4[i].from <= set->v4[i - 1].to))
			return false;
	for (size_t i = 0; i < set->n6; i++)
		if (memcmp(set->v6[i].from, set->v6[i].to, 16) > 0 ||
		    (i > 0 && memcmp(set->v6[i].from, set->v6[i - 1].to, 16) <= 0))
			return false;
	return true;
}

int sl_deny_set_unpack(int fd, struct sl_ip_set *ret)
{
	_cleanup_(sl_ip_list_done) struct sl_ip_set set = { 0 };
	struct packed head;
	uint64_t at = 0;
	int r = read_head(fd, &head, &at);

	if (r < 0)
		return r;
	if (grow(&set.v4, head.n4, sizeof(*set.v4)) < 0 ||
	    grow(&set.v6, head.n6, sizeof(*set.v6)) < 0 ||
	    grow(&set.globs, head.n_globs, sizeof(*set.globs)) < 0)
		return -ENOMEM;
	r = read_at(fd, set.v4, head.n4 * sizeof(*set.v4), &at);
	if (r == 0)
		r = read_at(fd, set.v6, head.n6 * sizeof(*set.v6), &at);
	if (r == 0)
		r = read_at(fd, set.globs, head.n_globs * sizeof(*set.globs), &at);
	if (r < 0)
		return r;
	set.n4 = head.n4;
	set.n6 = head.n6;
	set.n_globs = head.n_globs;
	if (!is_built(&set))
		return -EBADMSG;
	*ret = set;
	set = (struct sl_ip_set){ 0 };
	return 0;
}
