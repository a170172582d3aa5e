/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The packet programs pass the verifier of the running kernel, well below its limits. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <cmocka.h>

#include "abi.h"
#include "packet.skel.h"
#include "packet_xdp.skel.h"

#define MAX_FLOWS 64
/* The kernel gives up at a million; what is near to that now is beyond it on another kernel. */
#define MAX_VERIFIED 250000

static const char *why_skipped;

/* Messages of libbpf belong to the failure they explain. */
static int to_messages(enum libbpf_print_level level, const char *format, va_list args)
{
	if (level <= LIBBPF_WARN)
		vprint_message(format, args);
	return 0;
}

static int set_up(void **state)
{
	(void)state;
	if (geteuid() != 0)
		why_skipped = "not root";
	(void)libbpf_set_print(to_messages);
	return 0;
}

static void need_kernel(void)
{
	if (why_skipped) {
		print_message("skipped: %s\n", why_skipped);
		skip();
	}
}

static void check_program(const struct bpf_program *p, enum bpf_prog_type type)
{
	struct bpf_prog_info info = { 0 };
	uint32_t n = sizeof(info);

	assert_int_equal(bpf_obj_get_info_by_fd(bpf_program__fd(p), &info, &n), 0);
	print_message("%-18s %7u verified, %5u instructions, %5u octets of machine code\n",
		      bpf_program__name(p), info.verified_insns, info.xlated_prog_len / 8,
		      info.jited_prog_len);
	assert_int_equal(info.type, type);
	assert_in_range(info.verified_insns, 1, MAX_VERIFIED);
}

static void check_map(const struct bpf_map *m, enum bpf_map_type type, uint32_t flags, size_t key,
		      size_t value)
{
	struct bpf_map_info info = { 0 };
	uint32_t n = sizeof(info);

	assert_int_equal(bpf_obj_get_info_by_fd(bpf_map__fd(m), &info, &n), 0);
	assert_int_equal(info.type, type);
	assert_int_equal(info.map_flags, flags);
	assert_int_equal(info.key_size, key);
	assert_int_equal(info.value_size, value);
	assert_string_equal(info.name, bpf_map__name(m));
	/* Only with types can a dump name the fields. */
	assert_true(type == BPF_MAP_TYPE_RINGBUF || info.btf_value_type_id != 0);
}

static struct sl_packet_bpf *load(void)
{
	struct sl_packet_bpf *o = sl_packet_bpf__open();

	assert_non_null(o);
	assert_int_equal(bpf_map__set_max_entries(o->maps.flows, 2 * MAX_FLOWS), 0);
	assert_int_equal(sl_packet_bpf__load(o), 0);
	return o;
}

static void test_programs(void **state)
{
	struct sl_packet_bpf *o;

	(void)state;
	need_kernel();
	o = load();
	check_program(o->progs.sl_packet_tc, BPF_PROG_TYPE_SCHED_CLS);
	check_program(o->progs.sl_packet_control, BPF_PROG_TYPE_SCHED_CLS);
	check_program(o->progs.sl_packet_freeze, BPF_PROG_TYPE_SOCKET_FILTER);
	sl_packet_bpf__destroy(o);
}

static void test_maps(void **state)
{
	struct sl_packet_bpf *o;

	(void)state;
	need_kernel();
	o = load();
	check_map(o->maps.flows, BPF_MAP_TYPE_HASH, BPF_F_NO_PREALLOC, sizeof(struct sl_packet_key),
		  sizeof(struct sl_packet_flow));
	check_map(o->maps.events, BPF_MAP_TYPE_RINGBUF, 0, 0, 0);
	check_map(o->maps.counters, BPF_MAP_TYPE_PERCPU_ARRAY, 0, sizeof(uint32_t),
		  sizeof(struct sl_packet_counts));
	check_map(o->maps.routes, BPF_MAP_TYPE_HASH, BPF_F_NO_PREALLOC, sizeof(uint32_t),
		  sizeof(struct sl_packet_route));
	check_map(o->maps.meta, BPF_MAP_TYPE_ARRAY, 0, sizeof(uint32_t),
		  sizeof(struct sl_packet_meta));
	check_map(o->maps.ports, BPF_MAP_TYPE_ARRAY, 0, sizeof(uint32_t),
		  sizeof(struct sl_packet_ports));
	check_map(o->maps.packet_request, BPF_MAP_TYPE_ARRAY, BPF_F_MMAPABLE, sizeof(uint32_t),
		  sizeof(struct sl_packet_request));
	sl_packet_bpf__destroy(o);
}

/* The XDP program works on the tables of the other one. */
static void test_xdp(void **state)
{
	struct sl_packet_xdp_bpf *x;
	struct sl_packet_bpf *o;

	(void)state;
	need_kernel();
	o = load();
	x = sl_packet_xdp_bpf__open();
	assert_non_null(x);
	assert_int_equal(bpf_map__reuse_fd(x->maps.flows, bpf_map__fd(o->maps.flows)), 0);
	assert_int_equal(bpf_map__reuse_fd(x->maps.counters, bpf_map__fd(o->maps.counters)), 0);
	assert_int_equal(sl_packet_xdp_bpf__load(x), 0);
	check_program(x->progs.sl_packet_xdp, BPF_PROG_TYPE_XDP);
	sl_packet_xdp_bpf__destroy(x);
	sl_packet_bpf__destroy(o);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_programs),
		cmocka_unit_test(test_maps),
		cmocka_unit_test(test_xdp),
	};

	return cmocka_run_group_tests(tests, set_up, NULL);
}
