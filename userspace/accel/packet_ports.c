/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * net.ipv4.ip_local_reserved_ports of this network namespace, for both families: ports that are
 * given to no socket that does not ask for one by number (Documentation/networking/ip-sysctl.rst).
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#include "accel/packet_impl.h"
#include "base/num.h"

#define PATH "/proc/sys/net/ipv4/ip_local_reserved_ports"
/* Every second port alone is the longest list: 32768 times "65535,". */
#define MAX_TEXT (32768 * 6 + 1)

/* ---- sets of ports ---- */

static bool has(const struct sl_ports *ports, unsigned port)
{
	return ports->bits[port / 64] >> (port % 64) & 1;
}

static void set(struct sl_ports *ports, uint16_t from, uint16_t to, bool is_reserved)
{
	for (unsigned port = from; port <= to; port++) {
		uint64_t bit = UINT64_C(1) << (port % 64);

		if (is_reserved)
			ports->bits[port / 64] |= bit;
		else
			ports->bits[port / 64] &= ~bit;
	}
}

static unsigned count(const struct sl_ports *ports, uint16_t from, uint16_t to)
{
	unsigned n = 0;

	for (unsigned port = from; port <= to; port++)
		n += has(ports, port);
	return n;
}

static int parse_range(const char *text, size_t n, struct sl_ports *ports)
{
	const char *dash = memchr(text, '-', n);
	size_t n_from = dash ? (size_t)(dash - text) : n;
	uint64_t from;
	uint64_t to;
	int r = sl_num_parsen(text, n_from, 0, UINT16_MAX, &from);

	if (r < 0)
		return -EINVAL;
	to = from;
	if (dash && sl_num_parsen(dash + 1, n - n_from - 1, from, UINT16_MAX, &to) < 0)
		return -EINVAL;
	set(ports, (uint16_t)from, (uint16_t)to, true);
	return 0;
}

int sl_packet_ports_parse(const char *text, size_t n, struct sl_ports *ret)
{
	struct sl_ports ports = { 0 };

	if (n > 0 && text[n - 1] == '\n')
		n--;
	while (n > 0) {
		const char *comma = memchr(text, ',', n);
		size_t len = comma ? (size_t)(comma - text) : n;
		int r = parse_range(text, len, &ports);

		if (r < 0)
			return r;
		if (comma && len + 1 == n)
			return -EINVAL; /* "1," */
		len += comma ? 1 : 0;
		text += len;
		n -= len;
	}
	*ret = ports;
	return 0;
}

void sl_ports_format(const struct sl_ports *ports, struct sl_str *ret)
{
	const char *comma = "";

	for (unsigned port = 0; port <= UINT16_MAX; port++) {
		unsigned from = port;

		if (!has(ports, port))
			continue;
		while (port < UINT16_MAX && has(ports, port + 1))
			port++;
		sl_str_addf(ret, port == from ? "%s%u" : "%s%u-%u", comma, from, port);
		comma = ",";
	}
	sl_str_addc(ret, '\n');
}

/* ---- the kernel's ---- */

static int read_ports(struct sl_ports *ret)
{
	_cleanup_free_ char *text = malloc(MAX_TEXT);
	_cleanup_fd_ int fd = open(PATH, O_RDONLY | O_CLOEXEC);
	size_t n = 0;

	if (!text)
		return -ENOMEM;
	if (fd < 0)
		return -errno;
	while (n < MAX_TEXT) {
		ssize_t got = read(fd, text + n, MAX_TEXT - n);

		if (got < 0)
			return -errno;
		if (got == 0)
			return sl_packet_ports_parse(text, n, ret);
		n += (size_t)got;
	}
	return -E2BIG;
}

/* Of a long list the kernel takes a page at a time and adds what follows to it. */
static int write_ports(const struct sl_ports *ports)
{
	_cleanup_(sl_str_done) struct sl_str s = { 0 };
	_cleanup_fd_ int fd = open(PATH, O_WRONLY | O_CLOEXEC);
	size_t at = 0;

	if (fd < 0)
		return -errno;
	sl_ports_format(ports, &s);
	if (s.oom)
		return -ENOMEM;
	while (at < s.len) {
		ssize_t n = write(fd, s.p + at, s.len - at);

		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		at += (size_t)n;
	}
	return 0;
}

int sl_packet_free_ports(uint16_t from, uint16_t to)
{
	struct sl_ports ports;
	int r = read_ports(&ports);

	if (r < 0 || count(&ports, from, to) == 0)
		return r;
	set(&ports, from, to, false);
	return write_ports(&ports);
}

/*
 * A range of which somebody else has reserved a part is not ours to give back. The note goes first:
 * a death in between leaves at worst a promise to give back what nobody took.
 */
int sl_packet_reserve_ports(struct sl_packet *p, uint16_t from, uint16_t to)
{
	struct sl_packet_meta meta;
	struct sl_packet_meta old;
	struct sl_ports ports;
	struct sl_ports before;
	int r;

	if (from == 0 || from > to)
		return -EINVAL;
	r = sl_packet_get_meta(p, &meta);
	if (r == 0)
		r = read_ports(&ports);
	if (r < 0)
		return r;
	old = meta;
	before = ports;
	if (meta.ports_added && (meta.port_from != from || meta.port_to != to)) {
		set(&ports, meta.port_from, meta.port_to, false);
		meta.ports_added = 0;
	}
	if (count(&ports, from, to) == 0)
		meta.ports_added = 1;
	meta.port_from = from;
	meta.port_to = to;
	set(&ports, from, to, true);
	r = sl_packet_set_meta(p, &meta);
	if (r < 0 || memcmp(&ports, &before, sizeof(ports)) == 0)
		return r;
	r = write_ports(&ports);
	if (r < 0 && sl_packet_set_meta(p, &old) < 0)
		return -EIO;
	return r;
}
