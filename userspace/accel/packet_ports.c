/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * net.ipv4.ip_local_reserved_ports of this network namespace, for both families: ports that are
 * given to no socket that does not ask for one by number (Documentation/networking/ip-sysctl.rst).
 */
#include <bpf/bpf.h>
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

static bool has(const struct sl_packet_ports *ports, unsigned port)
{
	return ports->bits[port / 64] >> (port % 64) & 1;
}

void sl_packet_ports_set(struct sl_packet_ports *ports, uint16_t from, uint16_t to,
			 bool is_reserved)
{
	for (unsigned port = from; port <= to; port++) {
		uint64_t bit = UINT64_C(1) << (port % 64);

		if (is_reserved)
			ports->bits[port / 64] |= bit;
		else
			ports->bits[port / 64] &= ~bit;
	}
}

bool sl_packet_ports_is_empty(const struct sl_packet_ports *ports)
{
	for (size_t i = 0; i < SL_ARRAY_LEN(ports->bits); i++)
		if (ports->bits[i])
			return false;
	return true;
}

static void add(struct sl_packet_ports *to, const struct sl_packet_ports *ports)
{
	for (size_t i = 0; i < SL_ARRAY_LEN(ports->bits); i++)
		to->bits[i] |= ports->bits[i];
}

static void take_out(struct sl_packet_ports *of, const struct sl_packet_ports *ports)
{
	for (size_t i = 0; i < SL_ARRAY_LEN(ports->bits); i++)
		of->bits[i] &= ~ports->bits[i];
}

static int parse_range(const char *text, size_t n, struct sl_packet_ports *ports)
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
	sl_packet_ports_set(ports, (uint16_t)from, (uint16_t)to, true);
	return 0;
}

int sl_packet_ports_parse(const char *text, size_t n, struct sl_packet_ports *ret)
{
	struct sl_packet_ports ports = { 0 };

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

void sl_packet_ports_format(const struct sl_packet_ports *ports, struct sl_str *ret)
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
}

/* ---- the kernel's ---- */

static int read_ports(struct sl_packet_ports *ret)
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
static int write_ports(const struct sl_packet_ports *ports)
{
	_cleanup_(sl_str_done) struct sl_str s = { 0 };
	_cleanup_fd_ int fd = open(PATH, O_WRONLY | O_CLOEXEC);
	size_t at = 0;

	if (fd < 0)
		return -errno;
	sl_packet_ports_format(ports, &s);
	sl_str_addc(&s, '\n');
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

int sl_packet_free_ports(const struct sl_packet_ports *ports)
{
	struct sl_packet_ports now;
	struct sl_packet_ports before;
	int r = read_ports(&now);

	if (r < 0)
		return r;
	before = now;
	take_out(&now, ports);
	if (memcmp(&now, &before, sizeof(now)) == 0)
		return 0;
	r = write_ports(&now);
	return r < 0 ? r : 1;
}

/* ---- ours ---- */

static int get_added(const struct sl_packet *p, struct sl_packet_ports *ret)
{
	uint32_t zero = 0;

	return bpf_map_lookup_elem(p->maps[SL_MAP_PORTS], &zero, ret) < 0 ? -errno : 0;
}

static int set_added(struct sl_packet *p, const struct sl_packet_ports *added, uint16_t from,
		     uint16_t to)
{
	struct sl_packet_meta meta;
	uint32_t zero = 0;
	int r = sl_packet_get_meta(p, &meta);

	if (r < 0)
		return r;
	if (bpf_map_update_elem(p->maps[SL_MAP_PORTS], &zero, added, BPF_ANY) < 0)
		return -errno;
	meta.ports_added = !sl_packet_ports_is_empty(added);
	meta.port_from = from;
	meta.port_to = to;
	return sl_packet_set_meta(p, &meta);
}

/*
 * Ports somebody else has reserved are not ours to give back. The note goes first: a death in
 * between leaves at worst a promise to give back what nobody took.
 */
static int reserve(struct sl_packet *p, const struct sl_packet_ports *wanted, uint16_t from,
		   uint16_t to, struct sl_packet_ports *ret_missing)
{
	struct sl_packet_ports missing = *wanted;
	struct sl_packet_ports added;
	struct sl_packet_ports old;
	struct sl_packet_ports now;
	int r = get_added(p, &old);

	if (r == 0)
		r = read_ports(&now);
	if (r < 0)
		return r;
	take_out(&missing, &now);
	added = old;
	add(&added, &missing);
	add(&now, &missing);
	r = set_added(p, &added, from, to);
	if (r == 0 && !sl_packet_ports_is_empty(&missing)) {
		r = write_ports(&now);
		if (r < 0 && set_added(p, &old, from, to) < 0)
			r = -EIO;
	}
	if (r == 0)
		*ret_missing = missing;
	return r;
}

int sl_packet_reserve_ports(struct sl_packet *p, uint16_t from, uint16_t to)
{
	struct sl_packet_ports wanted = { 0 };
	struct sl_packet_ports missing;

	if (from == 0 || from > to)
		return -EINVAL;
	sl_packet_ports_set(&wanted, from, to, true);
	return reserve(p, &wanted, from, to, &missing);
}

int sl_packet_keep_ports(struct sl_packet *p, struct sl_str *ret_missing)
{
	struct sl_packet_ports missing;
	struct sl_packet_ports wanted;
	struct sl_packet_meta meta;
	int r = sl_packet_get_meta(p, &meta);

	if (r == 0)
		r = get_added(p, &wanted);
	if (r < 0)
		return r;
	sl_packet_ports_set(&wanted, meta.port_from, meta.port_to, true);
	r = reserve(p, &wanted, meta.port_from, meta.port_to, &missing);
	if (r < 0 || sl_packet_ports_is_empty(&missing))
		return r;
	sl_packet_ports_format(&missing, ret_missing);
	return 1;
}

/* Here the note goes last, for the same reason. */
int sl_packet_release_ports(struct sl_packet *p)
{
	struct sl_packet_ports added;
	struct sl_packet_ports old;
	struct sl_packet_meta meta;
	int r = sl_packet_get_meta(p, &meta);

	if (r == 0)
		r = get_added(p, &added);
	if (r < 0)
		return r;
	old = added;
	sl_packet_ports_set(&old, meta.port_from, meta.port_to, false);
	if (sl_packet_ports_is_empty(&old))
		return 0;
	r = sl_packet_free_ports(&old);
	if (r < 0)
		return r;
	take_out(&added, &old);
	r = set_added(p, &added, meta.port_from, meta.port_to);
	return r < 0 ? r : 1;
}
