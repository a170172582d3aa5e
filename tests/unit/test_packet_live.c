/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Frames over real (virtual) devices with the packet programs attached: tags, checksums left to
 * the device, GSO packets, the way out. Needs root, runs in a network namespace of its own. The
 * frames are sent into cli1 or srv1 and caught behind the other pair of devices.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/ethernet.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "packet_lab.h"

#define WAIT_MS 3000

static struct lab lab;

/* The far ends: raw sockets that speak of checksums and segmentation. */
static struct {
	int cli1;
	int srv1;
	int links[2];
} wire = { -1, -1, { -1, -1 } };

static int open_wire(const char *device)
{
	const int on = 1;
	struct sockaddr_ll ll = { .sll_family = AF_PACKET,
				  .sll_protocol = htons(ETH_P_ALL),
				  .sll_ifindex = (int)if_nametoindex(device) };
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);

	if (fd < 0 || setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)) < 0 ||
	    setsockopt(fd, SOL_PACKET, PACKET_AUXDATA, &on, sizeof(on)) < 0 ||
	    bind(fd, (struct sockaddr *)&ll, sizeof(ll)) < 0)
		return -errno;
	return fd;
}

static int set_up(void **state)
{
	int r = lab_open(&lab);

	(void)state;
	if (r < 0 || lab.why_skipped)
		return r;
	wire.cli1 = open_wire("cli1");
	wire.srv1 = open_wire("srv1");
	if (wire.cli1 < 0 || wire.srv1 < 0)
		return -EIO;
	r = lab_attach(&lab, lab.cli, &wire.links[0]);
	if (r == 0)
		r = lab_attach(&lab, lab.srv, &wire.links[1]);
	if (r < 0)
		return r;
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 2; i++)
		if (wire.links[i] >= 0)
			(void)close(wire.links[i]);
	lab_close(&lab);
	return 0;
}

static void shell(const char *command)
{
	assert_int_equal(system(command), 0);
}

/* ---- sending and catching ---- */

struct caught {
	struct virtio_net_hdr how;
	struct frame f;
};

static void transmit(int fd, const struct frame *f, const struct virtio_net_hdr *how)
{
	static const struct virtio_net_hdr plain;
	uint8_t all[sizeof(plain) + sizeof(f->p)];

	memcpy(all, how ? how : &plain, sizeof(plain));
	memcpy(all + sizeof(plain), f->p, f->n);
	assert_int_equal(send(fd, all, sizeof(plain) + f->n, 0), sizeof(plain) + f->n);
}

/* The tag the kernel has taken out of the frame, or -1. */
static int tag_of(struct msghdr *m)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		struct tpacket_auxdata aux;

		if (c->cmsg_level != SOL_PACKET || c->cmsg_type != PACKET_AUXDATA)
			continue;
		memcpy(&aux, CMSG_DATA(c), sizeof(aux));
		return aux.tp_status & TP_STATUS_VLAN_VALID ? aux.tp_vlan_tci : -1;
	}
	return -1;
}

/* The next TCP or ICMP frame that arrives; neighbour discovery and the like are not ours. */
static bool is_ours(const struct frame *f)
{
	const unsigned type = get16(f->p + 12);

	if (type == 0x0800)
		return f->p[23] == 6 || f->p[23] == 1;
	return type == 0x86dd && (f->p[20] == 6 || (f->p[20] == 58 && f->p[54] < 128));
}

static bool catch_frame(int fd, int wait_ms, struct caught *c, int *ret_tag)
{
	for (;;) {
		uint8_t control[256];
		struct sockaddr_ll from;
		struct iovec iov[2] = { { &c->how, sizeof(c->how) }, { c->f.p, sizeof(c->f.p) } };
		struct msghdr m = { .msg_name = &from,
				    .msg_namelen = sizeof(from),
				    .msg_iov = iov,
				    .msg_iovlen = 2,
				    .msg_control = control,
				    .msg_controllen = sizeof(control) };
		ssize_t n;

		if (poll(&(struct pollfd){ fd, POLLIN, 0 }, 1, wait_ms) != 1)
			return false;
		n = recvmsg(fd, &m, 0);
		assert_true(n > (ssize_t)sizeof(c->how));
		c->f.n = (size_t)n - sizeof(c->how);
		if (from.sll_pkttype == PACKET_OUTGOING || !is_ours(&c->f))
			continue;
		if (ret_tag)
			*ret_tag = tag_of(&m);
		return true;
	}
}

static void expect_caught(const char *what, int fd, const struct pkt *want, const struct frame *in)
{
	struct caught c = { .f = { .n = 0 } };
	struct frame f;
	int tag = 0;

	build(want, &f);
	if (!catch_frame(fd, WAIT_MS, &c, &tag))
		fail_msg("%s: nothing arrived", what);
	assert_int_equal(c.how.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM, 0);
	assert_int_equal(c.how.gso_type, VIRTIO_NET_HDR_GSO_NONE);
	assert_int_equal(tag, -1);
	if (!same_frame(what, in, &c.f, &f))
		fail_msg("%s", what);
}

static void begin(void)
{
	struct caught c;

	if (lab.why_skipped) {
		print_message("skipped: %s\n", lab.why_skipped);
		skip();
	}
	while (catch_frame(wire.cli1, 0, &c, NULL) || catch_frame(wire.srv1, 0, &c, NULL))
		; /* what a failed test has left */
}

/* The headers redirect_neigh writes. */
static struct pkt on_the_wire(const struct pkt *k, const struct pair *p, unsigned side)
{
	struct pkt out = rewritten(k, &p->flow[side], &p->flow[!side]);

	memcpy(out.eth_dst, side == 0 ? SERVER_MAC : CLIENT_MAC, 6);
	memcpy(out.eth_src, side == 0 ? SRV0_MAC : CLI0_MAC, 6);
	out.n_tags = 0;
	return out;
}

static int near_wire(unsigned side)
{
	return side == 0 ? wire.cli1 : wire.srv1;
}

static int far_wire(unsigned side)
{
	return side == 0 ? wire.srv1 : wire.cli1;
}

static struct pair installed(unsigned family)
{
	struct pair p = new_pair(&lab, family);

	lab_put(&lab, &p);
	return p;
}

/* A packet that is sure to be forwarded: what had not arrived before it never will. */
static void expect_nothing_but(const char *what, const struct pair *p, unsigned side)
{
	struct pkt k = plain_packet(p, side), out;
	struct frame f;

	k.id = 0x7777;
	k.n_payload = 77;
	out = on_the_wire(&k, p, side);
	build(&k, &f);
	transmit(near_wire(side), &f, NULL);
	expect_caught(what, far_wire(side), &out, &f);
}

/* ---- tests ---- */

static void test_forwarded(void **state)
{
	(void)state;
	begin();
	for (unsigned i = 0; i < 8; i++) {
		const unsigned side = i % 2;
		struct pair p = installed(i % 4 < 2 ? 4 : 6);
		struct pkt k = plain_packet(&p, side), out;
		struct frame f;

		k.n_payload = i * 100;
		if (i >= 4)
			opt_aligned_ts(&k, 1, 2);
		out = on_the_wire(&k, &p, side);
		build(&k, &f);
		transmit(near_wire(side), &f, NULL);
		expect_caught("forwarded", far_wire(side), &out, &f);
		lab_remove(&lab, &p);
	}
}

/* Tags: a priority alone is no VLAN; another VLAN is none of this device's business. */
static void test_tags(void **state)
{
	(void)state;
	begin();
	for (unsigned i = 0; i < 8; i++) {
		struct pair p = installed(i % 2 ? 6 : 4);
		struct sl_packet_counts before = lab_counts(&lab), n;
		struct pkt k = plain_packet(&p, 0), out;
		struct frame f;

		static const struct {
			unsigned n;
			uint16_t tag[2];
			bool is_forwarded;
		} cases[] = { { 1, { 0, 0 }, true },
			      { 1, { 0xe000, 0 }, true },
			      { 1, { 100, 0 }, false },
			      { 2, { 10, 100 }, false } };

		k.n_payload = 50;
		opt_aligned_ts(&k, 3, 4);
		k.n_tags = cases[i / 2].n;
		memcpy(k.tag, cases[i / 2].tag, sizeof(k.tag));
		out = on_the_wire(&k, &p, 0);
		build(&k, &f);
		transmit(wire.cli1, &f, NULL);
		if (cases[i / 2].is_forwarded)
			expect_caught("priority", wire.srv1, &out, &f);
		expect_nothing_but("tagged", &p, 0);
		n = counts_since(lab_counts(&lab), before);
		assert_int_equal(n.vlan_popped, cases[i / 2].is_forwarded);
		if (k.n_tags == 1)
			assert_int_equal(n.vlan_passed, !cases[i / 2].is_forwarded);
		assert_int_equal(n.forwarded_tc, cases[i / 2].is_forwarded ? 2 : 1);
		lab_remove(&lab, &p);
	}
}

/*
 * A priority tag in a priority tag: the stack takes off both and would find no connection, so
 * the program has to see into it. No reset goes back; another VLAN inside is another's.
 */
static void test_nested_priority_tags(void **state)
{
	(void)state;
	begin();
	for (unsigned i = 0; i < 4; i++) {
		struct pair p = installed(i % 2 ? 6 : 4);
		struct pkt k = plain_packet(&p, 0), out;
		struct frame f;
		struct caught c;

		k.n_payload = 50;
		k.n_tags = 2;
		k.tag[1] = i < 2 ? 0x2000 : 100;
		out = on_the_wire(&k, &p, 0);
		build(&k, &f);
		transmit(wire.cli1, &f, NULL);
		if (i < 2)
			expect_caught("nested priorities", wire.srv1, &out, &f);
		expect_nothing_but("nested", &p, 0);
		/* The other way, so that an answer would have come, too. */
		expect_nothing_but("nested", &p, 1);
		if (catch_frame(wire.cli1, 0, &c, NULL))
			fail_msg("an answer");
		lab_remove(&lab, &p);
	}
}

static struct virtio_net_hdr partial(const struct pkt *k, unsigned gso_size)
{
	const uint16_t l4 = k->family == 4 ? 34 : 54;
	struct virtio_net_hdr h = { .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
				    .csum_start = l4,
				    .csum_offset = 16 };

	if (gso_size) {
		h.gso_type = k->family == 4 ? VIRTIO_NET_HDR_GSO_TCPV4 : VIRTIO_NET_HDR_GSO_TCPV6;
		h.gso_size = (uint16_t)gso_size;
		h.hdr_len = (uint16_t)(l4 + tcp_header_len(k));
	}
	return h;
}

/* The checksum field holds the sum of the pseudo header alone; the device completes it. */
static void leave_checksum(struct pkt *k)
{
	k->has_sum = true;
	k->sum = (uint16_t)fold_sum(
		sum_pseudo(k->family, k->src, k->dst, tcp_header_len(k) + k->n_payload, 6));
}

static void expect_partial(const char *what, int fd, struct pkt want, unsigned gso_size,
			   const struct frame *in)
{
	struct virtio_net_hdr how = partial(&want, gso_size);
	struct caught c;
	struct frame f;

	leave_checksum(&want);
	build(&want, &f);
	if (!catch_frame(fd, WAIT_MS, &c, NULL))
		fail_msg("%s: nothing arrived", what);
	assert_int_equal(c.how.flags, how.flags);
	assert_int_equal(c.how.csum_start, how.csum_start);
	assert_int_equal(c.how.csum_offset, how.csum_offset);
	assert_int_equal(c.how.gso_type, how.gso_type);
	assert_int_equal(c.how.gso_size, how.gso_size);
	if (!same_frame(what, in, &c.f, &f))
		fail_msg("%s", what);
}

static struct pkt with_options(const struct pair *p, unsigned side, unsigned kind)
{
	struct pkt k = plain_packet(p, side);

	if (kind > 0)
		opt_aligned_ts(&k, 100, 200);
	if (kind > 1) {
		opt_nop(&k, 2);
		opt_sack(&k, k.ack + 5000, 3);
	}
	return k;
}

static void test_partial(void **state)
{
	(void)state;
	begin();
	for (unsigned i = 0; i < 12; i++) {
		const unsigned side = i % 2;
		struct pair p = installed(i % 4 < 2 ? 4 : 6);
		struct pkt k = with_options(&p, side, i / 4), out;
		struct virtio_net_hdr how = partial(&k, 0);
		struct frame f;

		k.n_payload = 123 * i;
		out = on_the_wire(&k, &p, side);
		leave_checksum(&k);
		build(&k, &f);
		transmit(near_wire(side), &f, &how);
		expect_partial("checksum left to the device", far_wire(side), out, 0, &f);
		lab_remove(&lab, &p);
	}
}

static void test_gso(void **state)
{
	(void)state;
	begin();
	for (unsigned i = 0; i < 12; i++) {
		const unsigned side = i % 2;
		struct pair p = installed(i % 4 < 2 ? 4 : 6);
		struct pkt k = with_options(&p, side, i / 4), out;
		struct virtio_net_hdr how = partial(&k, 1000);
		struct sl_packet_flow flow[2];
		struct frame f;

		k.n_payload = 3500;
		out = on_the_wire(&k, &p, side);
		leave_checksum(&k);
		build(&k, &f);
		transmit(near_wire(side), &f, &how);
		expect_partial("GSO", far_wire(side), out, 1000, &f);
		assert_int_equal(lab_get(&lab, &p, flow), 2);
		assert_int_equal(flow[side].packets, 4);
		assert_int_equal(flow[side].bytes, 3500);
		lab_remove(&lab, &p);
	}
}

/* The kernel cuts and completes what the program has rewritten: each segment is right. */
static void test_gso_cut(void **state)
{
	(void)state;
	begin();
	shell("ethtool -K srv0 tx off tso off gso off >/dev/null && "
	      "ethtool -K cli0 tx off tso off gso off >/dev/null");
	for (unsigned i = 0; i < 12; i++) {
		const unsigned side = i % 2;
		struct pair p = installed(i % 4 < 2 ? 4 : 6);
		struct pkt k = with_options(&p, side, i / 4), segment;
		struct virtio_net_hdr how = partial(&k, 1001);
		struct frame f;

		k.flags |= TH_PSH_;
		k.n_payload = 3500;
		segment = on_the_wire(&k, &p, side);
		leave_checksum(&k);
		build(&k, &f);
		transmit(near_wire(side), &f, &how);
		for (size_t at = 0; at < 3500; at += 1001) {
			struct pkt out = segment;

			out.seq += (uint32_t)at;
			out.id = (uint16_t)(out.id + at / 1001);
			out.fill = (uint8_t)(out.fill + at * 7);
			out.n_payload = at + 1001 < 3500 ? 1001 : 3500 - at;
			if (at + 1001 < 3500)
				out.flags &= (uint8_t)~TH_PSH_;
			expect_caught("a segment", far_wire(side), &out, &f);
		}
		/* And one that is not cut, but completed. */
		k = with_options(&p, side, i / 4);
		k.n_payload = 77;
		segment = on_the_wire(&k, &p, side);
		how = partial(&k, 0);
		leave_checksum(&k);
		build(&k, &f);
		transmit(near_wire(side), &f, &how);
		expect_caught("completed", far_wire(side), &segment, &f);
		lab_remove(&lab, &p);
	}
	shell("ethtool -K srv0 tx on tso on gso on >/dev/null && "
	      "ethtool -K cli0 tx on tso on gso on >/dev/null");
}

/* ---- answers ---- */

/* What a device would do to a frame whose checksum was left to it. */
static void complete(struct caught *c)
{
	const size_t start = c->how.csum_start;

	if (!(c->how.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM))
		return;
	assert_true(start + c->how.csum_offset + 2 <= c->f.n);
	set16(c->f.p + start + c->how.csum_offset,
	      ~fold_sum(sum_bytes(0, c->f.p + start, c->f.n - start)) & 0xffff);
}

static void check_icmp_sums(const struct caught *c, unsigned family)
{
	const uint8_t *ip = c->f.p + ETH_LEN;
	const size_t ip_len = family == 4 ? 20 : 40;
	const size_t n = c->f.n - ETH_LEN - ip_len;
	uint64_t sum = 0;

	if (family == 4) {
		assert_int_equal(fold_sum(sum_bytes(0, ip, 20)), 0xffff);
		assert_int_equal(get16(ip + 2), 20 + n);
	} else {
		assert_int_equal(get16(ip + 4), n);
		sum = sum_pseudo(6, ip + 8, ip + 24, n, 58);
	}
	assert_int_equal(fold_sum(sum_bytes(sum, ip + ip_len, n)), 0xffff);
}

/*
 * "Too big" goes back to the sender with a checksum that is right, also if the packet it is made
 * of had left its own to the device, and also if that device then completes it.
 */
static void test_too_big(void **state)
{
	(void)state;
	begin();
	shell("ip link set srv0 mtu 1300");
	for (unsigned i = 0; i < 24; i++) {
		const unsigned family = i & 1 ? 6 : 4, l4 = family == 4 ? 34 : 54;
		const unsigned gso = i & 2 ? 1400 : 0;
		struct pair p = installed(family);
		struct pkt k = with_options(&p, 0, i / 8);
		struct virtio_net_hdr how = partial(&k, gso);
		struct caught c;
		struct frame f;

		if (i % 8 == 4)
			shell("ethtool -K cli0 tx off >/dev/null");
		k.n_payload = gso ? 3000 : 1350 + i;
		if (i & 2 || i & 4)
			leave_checksum(&k);
		else
			how = (struct virtio_net_hdr){ 0 };
		build(&k, &f);
		transmit(wire.cli1, &f, &how);
		if (!catch_frame(wire.cli1, WAIT_MS, &c, NULL))
			fail_msg("no answer");
		complete(&c);
		check_icmp_sums(&c, family);
		assert_memory_equal(c.f.p, CLIENT_MAC, 6);
		assert_memory_equal(c.f.p + 6, CLI0_MAC, 6);
		assert_int_equal(c.f.p[l4], family == 4 ? 3 : 2);
		assert_int_equal(c.f.p[l4 + 1], family == 4 ? 4 : 0);
		assert_int_equal(get32(c.f.p + l4 + 4), 1300);
		/* The quoted packet up to its checksum, which nobody can verify. */
		assert_memory_equal(c.f.p + l4 + 8, f.p + ETH_LEN, l4 - ETH_LEN + 16);
		lab_remove(&lab, &p);
		if (i % 8 == 7)
			shell("ethtool -K cli0 tx on >/dev/null");
	}
	shell("ip link set srv0 mtu 1500");
}

/* A killed pair: what comes draws its reset, whatever checksum or size it has. */
static void test_killed(void **state)
{
	(void)state;
	begin();
	for (unsigned i = 0; i < 12; i++) {
		const unsigned family = i & 1 ? 6 : 4, side = i >> 1 & 1;
		const size_t ip_len = family == 4 ? 20 : 40;
		struct pair p = new_pair(&lab, family);
		struct pkt k = with_options(&p, side, 1), want = reset_answer(&k);
		struct virtio_net_hdr how = partial(&k, i >= 8 ? 1000 : 0);
		struct caught c;
		struct frame f;

		p.flow[0].state = p.flow[1].state = SL_PACKET_KILLED;
		lab_put(&lab, &p);
		k.n_payload = i >= 8 ? 3000 : 100;
		if (i >= 4)
			leave_checksum(&k);
		else
			how = (struct virtio_net_hdr){ 0 };
		build(&k, &f);
		transmit(near_wire(side), &f, &how);
		if (!catch_frame(near_wire(side), WAIT_MS, &c, NULL))
			fail_msg("no answer");
		complete(&c);
		assert_int_equal(c.how.gso_type, VIRTIO_NET_HDR_GSO_NONE);
		memcpy(want.eth_dst, side == 0 ? CLIENT_MAC : SERVER_MAC, 6);
		memcpy(want.eth_src, side == 0 ? CLI0_MAC : SRV0_MAC, 6);
		want.ttl = c.f.p[family == 4 ? 22 : 21];
		want.window = (uint16_t)get16(c.f.p + ETH_LEN + ip_len + 14);
		if (family == 4) {
			want.id = (uint16_t)get16(c.f.p + 18);
			want.frag = get16(c.f.p + 20) & FRAG_DF;
		}
		build(&want, &f);
		if (!same_frame("reset", &f, &c.f, &f))
			fail_msg("reset");
		lab_remove(&lab, &p);
	}
}

/* An error of a router behind the proxy reaches the client, with the sums a client checks. */
static void test_icmp(void **state)
{
	(void)state;
	begin();
	for (unsigned family = 4; family <= 6; family += 2) {
		struct pair p = installed(family);
		struct pkt theirs = plain_packet(&p, 0);
		struct icmp e = { .family = (uint8_t)family,
				  .ttl = 60,
				  .type = family == 4 ? 3 : 2,
				  .code = family == 4 ? 4 : 0,
				  .rest = 1280 };
		struct frame in, want;
		struct caught c;

		theirs.n_payload = 400;
		e.inner = rewritten(&theirs, &p.flow[0], &p.flow[1]);
		memcpy(e.eth_dst, SRV0_MAC, 6);
		memcpy(e.eth_src, SERVER_MAC, 6);
		set_ip(e.src, family == 4 ? "198.51.100.99" : "2001:db8:2::99");
		memcpy(e.dst, p.key[1].daddr, 16);
		build_icmp(&e, &in);
		e = translated(&e, &p.flow[1]);
		memcpy(e.eth_dst, CLIENT_MAC, 6);
		memcpy(e.eth_src, CLI0_MAC, 6);
		build_icmp(&e, &want);
		transmit(wire.srv1, &in, NULL);
		if (!catch_frame(wire.cli1, WAIT_MS, &c, NULL))
			fail_msg("nothing arrived");
		assert_true(same_frame("translated", &in, &c.f, &want));
		lab_remove(&lab, &p);
	}
}

/* ---- a device without Ethernet headers ---- */

static int open_tun(unsigned *ret_ifindex)
{
	struct ifreq ifr = { .ifr_name = "tun7", .ifr_flags = IFF_TUN | IFF_NO_PI };
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

	if (fd < 0 || ioctl(fd, TUNSETIFF, &ifr) < 0) {
		print_message("skipped: no tun device\n");
		skip();
	}
	shell("ip link set tun7 up && ip route add 192.0.2.77/32 dev tun7 && "
	      "ip route add 2001:db8:1::77/128 dev tun7");
	*ret_ifindex = if_nametoindex("tun7");
	return fd;
}

static void transmit_tun(int fd, const struct frame *f)
{
	assert_int_equal(write(fd, f->p + ETH_LEN, f->n - ETH_LEN), f->n - ETH_LEN);
}

/* As a frame, with an Ethernet header of zeros but for the type. */
static void catch_tun(const char *what, int fd, struct frame *f)
{
	memset(f->p, 0, ETH_LEN);
	do {
		ssize_t n;

		if (poll(&(struct pollfd){ fd, POLLIN, 0 }, 1, WAIT_MS) != 1)
			fail_msg("%s: nothing arrived", what);
		n = read(fd, f->p + ETH_LEN, sizeof(f->p) - ETH_LEN);
		assert_true(n > 20);
		f->n = ETH_LEN + (size_t)n;
		set16(f->p + 12, f->p[ETH_LEN] >> 4 == 4 ? 0x0800 : 0x86dd);
	} while (!is_ours(f));
}

static struct pkt without_ethernet(const struct pkt *k)
{
	struct pkt out = *k;

	memset(out.eth_dst, 0, 6);
	memset(out.eth_src, 0, 6);
	return out;
}

static void tun_forwards(int tun, const struct pair *p, unsigned kind)
{
	struct pkt k = with_options(p, 0, kind), out;
	struct frame f, got, want;

	k.n_payload = 200;
	build(&k, &f);
	out = on_the_wire(&k, p, 0);
	transmit_tun(tun, &f);
	expect_caught("from a tunnel", wire.srv1, &out, &f);
	k = with_options(p, 1, kind);
	k.n_payload = 300;
	build(&k, &f);
	out = rewritten(&k, &p->flow[1], &p->flow[0]);
	out = without_ethernet(&out);
	build(&out, &want);
	transmit(wire.srv1, &f, NULL);
	catch_tun("into a tunnel", tun, &got);
	if (!same_frame("into a tunnel", &f, &got, &want))
		fail_msg("into a tunnel");
}

static void tun_answers(int tun, struct pair *p)
{
	const unsigned l4 = p->flow[0].family == 4 ? 34 : 54;
	struct caught c = { .f = { .n = 0 } };
	struct pkt k = with_options(p, 0, 1), answer = reset_answer(&k);
	struct frame f, want;

	k.n_payload = 1350;
	build(&k, &f);
	transmit_tun(tun, &f);
	catch_tun("too big", tun, &c.f);
	check_icmp_sums(&c, p->flow[0].family);
	assert_int_equal(get32(c.f.p + l4 + 4), 1300);
	assert_memory_equal(c.f.p + l4 + 8, f.p + ETH_LEN, l4 - ETH_LEN + 16);
	p->flow[0].state = p->flow[1].state = SL_PACKET_KILLED;
	lab_put(&lab, p);
	transmit_tun(tun, &f);
	catch_tun("killed", tun, &c.f);
	answer.ttl = c.f.p[l4 == 34 ? 22 : 21];
	answer.window = (uint16_t)get16(c.f.p + l4 + 14);
	if (l4 == 34) {
		answer.id = (uint16_t)get16(c.f.p + 18);
		answer.frag = get16(c.f.p + 20) & FRAG_DF;
	}
	build(&answer, &want);
	if (!same_frame("killed", &f, &c.f, &want))
		fail_msg("killed");
}

static void test_tunnel(void **state)
{
	unsigned ifindex;
	int tun, link = -1;

	(void)state;
	begin();
	tun = open_tun(&ifindex);
	assert_int_equal(lab_attach(&lab, ifindex, &link), 0);
	shell("ip link set srv0 mtu 1300");
	for (unsigned i = 0; i < 6; i++) {
		struct pair p = new_pair(&lab, i % 2 ? 6 : 4);

		p.flow[1].ifindex = p.flow[0].peer_ifindex = ifindex;
		lab_put(&lab, &p);
		tun_forwards(tun, &p, i / 2);
		tun_answers(tun, &p);
		lab_remove(&lab, &p);
	}
	shell("ip link set srv0 mtu 1500");
	assert_int_equal(lab_detach(ifindex, link), 0);
	assert_int_equal(close(tun), 0);
}

/* In driver mode on both devices; what it leaves is taken by TC. */
static void test_xdp(void **state)
{
	const int fd = lab.xdp ? bpf_program__fd(lab.xdp->progs.sl_packet_xdp) : -1;
	struct sl_packet_counts before, n;

	(void)state;
	begin();
	shell("ethtool -K cli1 gro on >/dev/null && ethtool -K srv1 gro on >/dev/null");
	assert_int_equal(bpf_xdp_attach((int)lab.cli, fd, XDP_FLAGS_DRV_MODE, NULL), 0);
	assert_int_equal(bpf_xdp_attach((int)lab.srv, fd, XDP_FLAGS_DRV_MODE, NULL), 0);
	before = lab_counts(&lab);
	for (unsigned i = 0; i < 12; i++) {
		const unsigned side = i % 2;
		struct pair p = installed(i % 4 < 2 ? 4 : 6);
		struct pkt k = with_options(&p, side, i / 4), out;
		struct frame f;

		k.n_payload = 50 * i;
		out = on_the_wire(&k, &p, side);
		build(&k, &f);
		transmit(near_wire(side), &f, NULL);
		expect_caught("XDP", far_wire(side), &out, &f);
		lab_remove(&lab, &p);
	}
	n = counts_since(lab_counts(&lab), before);
	assert_int_equal(n.forwarded_xdp + n.forwarded_tc, 12);
	assert_int_equal(n.forwarded_tc, n.xdp_passed);
	assert_true(n.forwarded_xdp >= 8);
	assert_int_equal(bpf_xdp_detach((int)lab.cli, XDP_FLAGS_DRV_MODE, NULL), 0);
	assert_int_equal(bpf_xdp_detach((int)lab.srv, XDP_FLAGS_DRV_MODE, NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_forwarded),
		cmocka_unit_test(test_tags),
		cmocka_unit_test(test_nested_priority_tags),
		cmocka_unit_test(test_partial),
		cmocka_unit_test(test_gso),
		cmocka_unit_test(test_gso_cut),
		cmocka_unit_test(test_too_big),
		cmocka_unit_test(test_killed),
		cmocka_unit_test(test_icmp),
		cmocka_unit_test(test_tunnel),
		cmocka_unit_test(test_xdp),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
