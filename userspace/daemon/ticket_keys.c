/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "daemon/ticket_keys.h"

#include <errno.h>
#include <string.h>

#include "base/memfd.h"

#define KEYS 3

/* In the order of tls/tickets.h: the first one seals. */
struct keys {
	struct sl_tls_ticket_key key[KEYS]; /* in use, next, last */
	size_t n;                           /* 2 in the first hour */
};

static void wipe(struct keys *k)
{
	explicit_bzero(k, sizeof(*k));
}

static int pack(const struct keys *k, int *ret_fd)
{
	return sl_memfd_new("sluice-tickets", k->key, k->n * sizeof(k->key[0]), ret_fd);
}

static int read_keys(int fd, struct keys *ret)
{
	char *bytes = NULL;
	size_t n = 0;
	int r = sl_memfd_read(fd, sizeof(ret->key), &bytes, &n);

	if (r < 0)
		return r == -EFBIG ? -EBADMSG : r;
	ret->n = n / sizeof(ret->key[0]);
	if (n % sizeof(ret->key[0]) != 0 || ret->n < 2)
		r = -EBADMSG;
	else
		memcpy(ret->key, bytes, n);
	explicit_bzero(bytes, n);
	free(bytes);
	return r;
}

int sl_ticket_keys_new(int *ret_fd)
{
	_cleanup_(wipe) struct keys k = { .n = 2 };
	int r = sl_tls_ticket_key_make(&k.key[0]);

	if (r == 0)
		r = sl_tls_ticket_key_make(&k.key[1]);
	return r < 0 ? r : pack(&k, ret_fd);
}

int sl_ticket_keys_turn(int fd, int *ret_fd)
{
	_cleanup_(wipe) struct keys old = { 0 };
	_cleanup_(wipe) struct keys k = { .n = KEYS };
	int r = read_keys(fd, &old);

	if (r == 0)
		r = sl_tls_ticket_key_make(&k.key[1]);
	if (r < 0)
		return r;
	k.key[0] = old.key[1];
	k.key[2] = old.key[0];
	return pack(&k, ret_fd);
}

int sl_ticket_keys_unpack(int fd, struct sl_tls_tickets **ret)
{
	_cleanup_(wipe) struct keys k = { 0 };
	int r = read_keys(fd, &k);

	return r < 0 ? r : sl_tls_tickets_new(k.key, k.n, ret);
}
