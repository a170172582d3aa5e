/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A bad cable between two interfaces, for kernels without netem: loses, delays, reorders and
 * duplicates frames. Large (GSO) frames and unfinished checksums pass as they are. Ends on SIGTERM
 * or after timeout= seconds with one JSON line; SIGUSR1 prints it at once.
 *
 *   wire a=LINK b=LINK timeout=SECONDS [loss=PER_MILLE] [reorder=PER_MILLE] [dup=PER_MILLE]
 *        [by=MS] how late a reordered frame comes (default 2) [delay=MS] of every frame [seed=]
 *        [cut=MS] from SIGUSR2 on nothing passes for so long
 *        [from=PORT over=BYTES] IPv4 packets of that TCP source port that are longer are lost
 */
#include "peer.h"

#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>

enum { FRAME_MAX = 65536 + 256, LATE_MAX = 8192 };

struct late {
	uint64_t due;
	uint8_t *frame;
	size_t len;
	int to;
};

static struct {
	int fd[2];
	uint64_t rng;
	uint64_t loss, reorder, dup, by_us, delay_us, cut_us, cut_until, from, over;
	uint64_t passed, lost, reordered, duplicated, unsent;
	struct late late[LATE_MAX]; /* a heap by due */
	int n_late;
} wire;

static int open_link(const char *name)
{
	struct sockaddr_ll ll = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL) };
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct packet_mreq all = { .mr_type = PACKET_MR_PROMISC };
	int one = 1, big = 64 << 20;

	ll.sll_ifindex = all.mr_ifindex = (int)if_nametoindex(name);
	if (!ll.sll_ifindex)
		die("no interface %s", name);
	if (setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &one, sizeof(one)) ||
	    setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof(one)) ||
	    setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &all, sizeof(all)) ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &big, sizeof(big)) ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &big, sizeof(big)) ||
	    bind(fd, (struct sockaddr *)&ll, sizeof(ll)))
		die("%s: %s", name, strerror(errno));
	return fd;
}

static void put(int to, const uint8_t *frame, size_t len)
{
	if (send(wire.fd[to], frame, len, 0) == (ssize_t)len)
		wire.passed++;
	else
		wire.unsent++;
}

static void swap_late(int i, int k)
{
	struct late t = wire.late[i];

	wire.late[i] = wire.late[k];
	wire.late[k] = t;
}

static void late_push(uint64_t due, const uint8_t *frame, size_t len, int to)
{
	int i = wire.n_late;

	if (i == LATE_MAX) {
		wire.lost++;
		return;
	}
	wire.late[i] = (struct late){ due, malloc(len), len, to };
	if (!wire.late[i].frame)
		die("no memory");
	memcpy(wire.late[i].frame, frame, len);
	for (wire.n_late++; i && wire.late[(i - 1) / 2].due > wire.late[i].due; i = (i - 1) / 2)
		swap_late(i, (i - 1) / 2);
}

static void late_pop(void)
{
	int i = 0;

	put(wire.late[0].to, wire.late[0].frame, wire.late[0].len);
	free(wire.late[0].frame);
	wire.late[0] = wire.late[--wire.n_late];
	for (;;) {
		int k = 2 * i + 1;

		if (k + 1 < wire.n_late && wire.late[k + 1].due < wire.late[k].due)
			k++;
		if (k >= wire.n_late || wire.late[k].due >= wire.late[i].due)
			return;
		swap_late(i, k);
		i = k;
	}
}

static bool happens(uint64_t per_mille)
{
	return per_mille && rng_below(&wire.rng, 1000) < per_mille;
}

/* `frame` begins with the header of PACKET_VNET_HDR. */
static bool is_too_long(const uint8_t *frame, size_t len)
{
	const uint8_t *ip = frame + sizeof(struct virtio_net_hdr) + ETHER_HDR_LEN;
	const uint8_t *tcp = ip + 20;

	return wire.from && tcp + 2 <= frame + len && ip[0] == 0x45 && ip[9] == IPPROTO_TCP &&
	       (tcp[0] << 8 | tcp[1]) == (int)wire.from && (ip[2] << 8 | ip[3]) > (int)wire.over;
}

static void frame_from(int side, const uint8_t *frame, size_t len, uint64_t now)
{
	uint64_t due = wire.delay_us;

	if (now < wire.cut_until || is_too_long(frame, len) || happens(wire.loss)) {
		wire.lost++;
		return;
	}
	if (happens(wire.dup)) {
		wire.duplicated++;
		late_push(now + due + rng_below(&wire.rng, wire.by_us + 1), frame, len, !side);
	}
	if (happens(wire.reorder)) {
		wire.reordered++;
		due += 1 + rng_below(&wire.rng, wire.by_us);
	}
	if (due)
		late_push(now + due, frame, len, !side);
	else
		put(!side, frame, len);
}

static void drain(int side, uint64_t now)
{
	static uint8_t frame[FRAME_MAX];

	for (int burst = 0; burst < 64; burst++) {
		ssize_t n = recv(wire.fd[side], frame, sizeof(frame), 0);

		if (n <= 0)
			return;
		frame_from(side, frame, (size_t)n, now);
	}
}

static void print_wire(void)
{
	printf("{\"passed\":%llu,\"lost\":%llu,\"reordered\":%llu,\"duplicated\":%llu,\"unsent\":%"
	       "llu}\n",
	       (unsigned long long)wire.passed, (unsigned long long)wire.lost,
	       (unsigned long long)wire.reordered, (unsigned long long)wire.duplicated,
	       (unsigned long long)wire.unsent);
	fflush(stdout);
}

static void wire_signals(uint64_t now)
{
	if (got_usr1) {
		got_usr1 = 0;
		print_wire();
	}
	if (got_usr2) {
		got_usr2 = 0;
		wire.cut_until = now + wire.cut_us;
	}
}

static void run(uint64_t until)
{
	struct pollfd p[2] = { { .fd = wire.fd[0], .events = POLLIN },
			       { .fd = wire.fd[1], .events = POLLIN } };
	uint64_t now = now_us();

	while (!got_term && now < until) {
		uint64_t next = wire.n_late ? wire.late[0].due : now + 100000;
		struct timespec ts = { 0, next > now ? (long)(next - now) * 1000 : 0 };

		if (ts.tv_nsec > 100000000)
			ts.tv_nsec = 100000000;
		(void)ppoll(p, 2, &ts, NULL);
		now = now_us();
		wire_signals(now);
		for (int side = 0; side < 2; side++)
			drain(side, now);
		while (wire.n_late && wire.late[0].due <= now)
			late_pop();
	}
}

int main(int argc, char **argv)
{
	static const char *const known[] = { "a",    "b",    "timeout", "loss", "reorder",
					     "dup",  "by",   "delay",   "seed", "cut",
					     "from", "over", NULL };
	struct args args = { argc - 1, argv + 1 };
	uint64_t timeout;

	args_check(&args, known);
	timeout = arg_u64(&args, "timeout", 0);
	if (!timeout)
		die("timeout=SECONDS is missing");
	loop_init();
	wire.loss = arg_u64(&args, "loss", 0);
	wire.reorder = arg_u64(&args, "reorder", 0);
	wire.dup = arg_u64(&args, "dup", 0);
	wire.by_us = arg_u64(&args, "by", 2) * 1000;
	wire.delay_us = arg_u64(&args, "delay", 0) * 1000;
	wire.from = arg_u64(&args, "from", 0);
	wire.over = arg_u64(&args, "over", 0);
	wire.cut_us = arg_u64(&args, "cut", 0) * 1000;
	wire.rng = arg_u64(&args, "seed", now_us());
	wire.fd[0] = open_link(arg_str(&args, "a", "a"));
	wire.fd[1] = open_link(arg_str(&args, "b", "b"));
	printf("ready\n");
	fflush(stdout);
	run(now_us() + timeout * 1000000);
	print_wire();
	return wire.unsent > (wire.passed / 100) + 10;
}
