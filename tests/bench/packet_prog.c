/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What a packet costs in the programs of the packet engine, and how large they are; needs root.
 *
 * BPF_PROG_TEST_RUN repeats a program on the same bytes, which the program rewrites. So the entry
 * rewrites a packet into itself: all is done that is done for any other, but for the TTL nothing
 * changes, and 250 times is what a TTL allows. The figure includes what the loop of the kernel
 * costs: see the rows of packets that are passed. Cases take turns, so that whatever else the
 * machine does meets all alike; the best and the median are shown. A real GSO packet cannot be
 * made; its sizes can be told.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../unit/packet_load.h"

#define ROUNDS 51 /* each change of an XDP program takes the kernel milliseconds */
#define REPEAT 250

enum form {
	NO_OPTIONS,
	TIMES,
	TIMES_SACK,
	SACK_ODD, /* timestamps and blocks at odd offsets */
	PARTIAL_GSO,
	ICMP_ERROR,
	IN_FRAGMENTS,
	UNKNOWN,
	OTHER_PROTOCOL,
	FORM_COUNT,
};

static const char *const form_names[] = {
	[NO_OPTIONS] = "data, no options",
	[TIMES] = "data, timestamps",
	[TIMES_SACK] = "ACK, timestamps, 3 SACK blocks",
	[SACK_ODD] = "ACK, the same, not aligned",
	[PARTIAL_GSO] = "data, timestamps, told to be GSO",
	[ICMP_ERROR] = "ICMP error, translated",
	[IN_FRAGMENTS] = "first fragment, dropped",
	[UNKNOWN] = "data of no entry, passed",
	[OTHER_PROTOCOL] = "UDP, passed",
};

struct row {
	enum form form;
	unsigned family;
	enum hook hook;
	struct frame in;
	int verdict;
	uint32_t ns[ROUNDS];
};

static void die(const char *what)
{
	perror(what);
	exit(1);
}

/* Seen by XDP's route lookup, the packet goes from the client's to the server's network. */
static struct pair mirror_pair(const struct lab *l, unsigned family)
{
	struct pair p = new_pair(l, family);
	struct sl_packet_flow *f = &p.flow[0];

	memcpy(p.key[0].daddr, f->new_daddr, 16);
	p.key[0].dport = f->new_dport;
	memcpy(f->new_saddr, p.key[0].saddr, 16);
	f->new_sport = p.key[0].sport;
	f->seq_delta = f->ack_delta = f->tsval_delta = f->tsecr_delta = 0;
	return p;
}

static void make_icmp(const struct pkt *k, struct frame *f)
{
	struct icmp e = { .family = k->family,
			  .ttl = 255,
			  .type = k->family == 4 ? 3 : 2,
			  .code = k->family == 4 ? 4 : 0,
			  .rest = 1400,
			  .inner = *k };

	memcpy(e.eth_dst, k->eth_dst, 6);
	memcpy(e.eth_src, k->eth_src, 6);
	memcpy(e.src, k->src, 16);
	memcpy(e.dst, k->dst, 16);
	memcpy(e.inner.src, k->dst, 16);
	memcpy(e.inner.dst, k->src, 16);
	e.inner.sport = k->dport;
	e.inner.dport = k->sport;
	e.quoted = 500;
	build_icmp(&e, f);
}

static void make_frame(const struct pair *p, enum form form, struct frame *f)
{
	struct pkt k = plain_packet(p, 0);

	k.ttl = 255;
	k.n_payload = form == TIMES_SACK || form == SACK_ODD ? 0 : 1400;
	if (form == SACK_ODD)
		opt_nop(&k, 1);
	if (form == SACK_ODD)
		opt_ts(&k, 100, 200);
	else if (form != NO_OPTIONS)
		opt_aligned_ts(&k, 100, 200);
	if (form == TIMES_SACK)
		opt_nop(&k, 2);
	if (form == TIMES_SACK || form == SACK_ODD)
		opt_sack(&k, k.ack + 1000, 3);
	opt_pad(&k, 1);
	k.sport ^= form == UNKNOWN;
	k.proto = form == OTHER_PROTOCOL ? 17 : 0;
	if (form == PARTIAL_GSO)
		k.n_payload = 2800;
	if (form == IN_FRAGMENTS && k.family == 4) {
		k.frag = FRAG_MF;
	} else if (form == IN_FRAGMENTS) {
		k.first_next = 44;
		k.n_ext = 8;
		memcpy(k.ext, (uint8_t[8]){ 6, 0, 0, 1 }, 8);
	}
	if (form == ICMP_ERROR)
		make_icmp(&k, f);
	else
		build(&k, f);
}

static uint32_t run(const struct lab *l, const struct row *row, int repeat, int *ret_verdict)
{
	static struct frame out;
	const bool is_gso = row->form == PARTIAL_GSO && row->hook == HOOK_TC;
	struct __sk_buff skb = { .ifindex = l->cli,
				 .ingress_ifindex = l->cli,
				 .gso_size = is_gso ? 1400 : 0,
				 .gso_segs = is_gso ? 2 : 0 };
	struct xdp_md xdp = { .data_end = (uint32_t)row->in.n, .ingress_ifindex = l->cli };
	LIBBPF_OPTS(bpf_test_run_opts, o, .data_in = row->in.p, .data_size_in = (uint32_t)row->in.n,
		    .data_out = out.p, .data_size_out = sizeof(out.p), .repeat = repeat);

	if (row->hook == HOOK_TC) {
		o.ctx_in = &skb;
		o.ctx_size_in = sizeof(skb);
	} else {
		o.ctx_in = &xdp;
		o.ctx_size_in = sizeof(xdp);
	}
	if (bpf_prog_test_run_opts(bpf_program__fd(row->hook == HOOK_TC
							   ? l->tc->progs.sl_packet_tc
							   : l->xdp->progs.sl_packet_xdp),
				   &o) < 0)
		die("test run");
	*ret_verdict = (int)o.retval;
	return o.duration;
}

static int by_value(const void *a, const void *b)
{
	const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static const char *verdict_text(const struct row *row)
{
	if (row->hook == HOOK_TC)
		return row->verdict == TC_SENT ? "sent" : row->verdict == TC_DROP ? "drop" : "pass";
	return row->verdict == XDP_REDIRECT ? "sent" : row->verdict == XDP_DROP ? "drop" : "pass";
}

static void show_program(const struct bpf_program *prog)
{
	struct bpf_prog_info info = { 0 };
	uint32_t size = sizeof(info);

	if (bpf_obj_get_info_by_fd(bpf_program__fd(prog), &info, &size) < 0)
		die("program info");
	printf("%-20s %10u %12u %10u\n", bpf_program__name(prog), info.verified_insns,
	       info.xlated_prog_len / 8, info.jited_prog_len);
}

static void show_programs(const struct lab *l)
{
	printf("%-20s %10s %12s %10s\n", "program", "verified", "instructions", "code bytes");
	show_program(l->tc->progs.sl_packet_tc);
	show_program(l->xdp->progs.sl_packet_xdp);
	show_program(l->tc->progs.sl_packet_control);
	show_program(l->tc->progs.sl_packet_freeze);
}

static void install(const struct lab *l, const struct pair *p)
{
	/* The other direction has another tuple, and nothing comes from there. */
	if (bpf_map_update_elem(bpf_map__fd(l->tc->maps.flows), &p->key[0], &p->flow[0], BPF_ANY) <
	    0)
		die("entry");
}

static size_t make_rows(const struct lab *l, struct row *rows)
{
	size_t n = 0;

	for (unsigned family = 4; family <= 6; family += 2) {
		const struct pair p = mirror_pair(l, family);

		install(l, &p);
		for (int hook = HOOK_TC; hook <= HOOK_XDP; hook++) {
			for (int form = 0; form < FORM_COUNT; form++) {
				if (hook == HOOK_XDP && form == PARTIAL_GSO)
					continue;
				rows[n].form = (enum form)form;
				rows[n].family = family;
				rows[n].hook = (enum hook)hook;
				make_frame(&p, (enum form)form, &rows[n].in);
				n++;
			}
		}
	}
	return n;
}

int main(void)
{
	static struct row rows[4 * FORM_COUNT];
	struct lab l;
	size_t n;

	if (lab_open(&l) < 0)
		die("set-up");
	if (l.why_skipped) {
		fprintf(stderr, "skipped: %s\n", l.why_skipped);
		return 77;
	}
	if (system("ip link set srv0 mtu 9000") != 0)
		die("mtu");
	show_programs(&l);
	n = make_rows(&l, rows);
	for (size_t i = 0; i < n; i++)
		(void)run(&l, &rows[i], 1, &rows[i].verdict);
	for (unsigned round = 0; round < ROUNDS; round++) {
		for (size_t i = 0; i < n; i++) {
			int verdict;

			rows[i].ns[round] = run(&l, &rows[i], REPEAT, &verdict);
			/* Another one in the end would be another path. */
			if (verdict != rows[i].verdict) {
				fprintf(stderr, "%s: verdict %d, then %d\n",
					form_names[rows[i].form], rows[i].verdict, verdict);
				return 1;
			}
		}
	}
	printf("\n%-34s %-5s %-5s %-5s %8s %8s\n", "ns per packet", "hook", "IP", "", "best",
	       "median");
	for (size_t i = 0; i < n; i++) {
		qsort(rows[i].ns, ROUNDS, sizeof(rows[i].ns[0]), by_value);
		printf("%-34s %-5s %-5s %-5s %8u %8u\n", form_names[rows[i].form],
		       rows[i].hook == HOOK_TC ? "tc" : "xdp", rows[i].family == 4 ? "v4" : "v6",
		       verdict_text(&rows[i]), rows[i].ns[0], rows[i].ns[ROUNDS / 2]);
	}
	lab_close(&l);
	return 0;
}
