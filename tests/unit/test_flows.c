/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What is shown of the kernel's table of flows, on maps of this test's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>

#include "broker/flows.h"
#include "fake_flows.h"

#define NOW_NS (UINT64_C(100) * 1000000000)
#define ROWS 1024

struct lab {
	struct fake_flows maps;
	struct sl_flow_row row[ROWS];
	size_t n;
	unsigned steps;
};

static int setup(void **state)
{
	struct lab *lab = calloc(1, sizeof(*lab));

	assert_non_null(lab);
	*state = lab;
	if (fake_flows_open(&lab->maps, 4096))
		return 0;
	(void)printf("no maps can be made: root is needed\n");
	lab->maps = (struct fake_flows){ -1, -1, -1 };
	return 0;
}

static int teardown(void **state)
{
	struct lab *lab = *state;

	fake_flows_close(&lab->maps);
	free(lab);
	return 0;
}

#define NEEDS_MAPS(lab)                       \
	do {                                  \
		if ((lab)->maps.flows_fd < 0) \
			skip();               \
	} while (0)

static void keep(void *arg, const struct sl_flow_row *row)
{
	struct lab *lab = arg;

	assert_true(lab->n < ROWS);
	lab->row[lab->n++] = *row;
}

static struct sl_flows_walk walk(struct lab *lab, size_t max)
{
	struct sl_flows_walk w = { .max = max };
	int r = 0;

	lab->n = 0;
	for (lab->steps = 0; r == 0; lab->steps++) {
		assert_true(lab->steps < 1000);
		r = sl_flows_step(&w, lab->maps.flows_fd, lab->maps.routes_fd, NOW_NS, keep, lab);
	}
	assert_int_equal(r, 1);
	assert_int_equal(w.n, lab->n);
	return w;
}

static const struct fake_tuple tuple = { "192.0.2.7:50122", "10.0.0.1:443", "10.0.0.1:41000",
					 "10.0.0.11:8443" };

/* Two halves of connection 71 that have carried something. */
static void both_halves(struct sl_packet_flow f[2])
{
	struct sl_addr client = fake_addr("203.0.113.9:1234");
	struct sl_addr via = fake_addr(tuple.client);

	f[0] = (struct sl_packet_flow){ .conn_id = 71,
					.route_id = 3,
					.state = SL_PACKET_ACTIVE,
					.client_port = 1234,
					.via_port = 50122,
					.accepted_ns = NOW_NS - 60 * UINT64_C(1000000000),
					.last_ns = NOW_NS - 1 };
	sl_packet_ip(&client, f[0].client);
	sl_packet_ip(&via, f[0].via);
	f[1] = f[0];
	f[0].bytes = 1000;
	f[0].packets = 10;
	f[0].relayed_bytes = 5;
	f[0].drops = 1;
	f[0].ifindex = 4;
	f[0].last_data_ns = NOW_NS - 3 * UINT64_C(1000000000);
	f[1].bytes = 2000;
	f[1].packets = 20;
	f[1].relayed_bytes = 6;
	f[1].drops = 2;
	f[1].ifindex = 5;
	f[1].last_data_ns = NOW_NS - 2 * UINT64_C(1000000000);
}

static void is_addr(const struct sl_addr *a, const char *text)
{
	char got[SL_ADDR_TEXT];

	assert_string_equal(sl_addr_format(a, got), text);
}

static void is_tuple(const struct sl_broker_flow *t)
{
	is_addr(&t->client, tuple.client);
	is_addr(&t->front, tuple.front);
	is_addr(&t->back, tuple.back);
	is_addr(&t->backend, tuple.backend);
}

static void a_flow_is_one_row(void **state)
{
	struct lab *lab = *state;
	const struct sl_flow_row *row = &lab->row[0];
	struct sl_packet_flow f[2];

	NEEDS_MAPS(lab);
	both_halves(f);
	fake_flow(&lab->maps, &tuple, FAKE_BOTH, f);
	fake_route(&lab->maps, 3, "shop");
	assert_false(walk(lab, 10).more);
	assert_int_equal(lab->n, 1);
	assert_int_equal(row->conn_id, 71);
	assert_string_equal(row->route, "shop");
	assert_string_equal(row->state, "active");
	assert_true(row->has_partner);
	is_tuple(&row->tuple);
	is_addr(&row->client, "203.0.113.9:1234");
	is_addr(&row->via, tuple.client);
	assert_int_equal(row->bytes[SL_CLIENT], 1000);
	assert_int_equal(row->bytes[SL_BACKEND], 2000);
	assert_int_equal(row->packets[SL_CLIENT], 10);
	assert_int_equal(row->packets[SL_BACKEND], 20);
	assert_int_equal(row->relayed[SL_CLIENT], 5);
	assert_int_equal(row->relayed[SL_BACKEND], 6);
	assert_int_equal(row->drops[SL_CLIENT], 1);
	assert_int_equal(row->drops[SL_BACKEND], 2);
	assert_int_equal(row->ifindex[SL_CLIENT], 4);
	assert_int_equal(row->ifindex[SL_BACKEND], 5);
	assert_int_equal(row->idle_ms, 2000);
	assert_int_equal(row->age_ms, 60000);
}

/* Whichever it is, the row tells the same tuple. */
static void half_a_flow_is_a_row_too(void **state)
{
	struct lab *lab = *state;
	struct sl_packet_flow f[2];

	NEEDS_MAPS(lab);
	both_halves(f);
	fake_flow(&lab->maps, &tuple, FAKE_DOWN, f);
	(void)walk(lab, 10);
	assert_int_equal(lab->n, 1);
	assert_false(lab->row[0].has_partner);
	is_tuple(&lab->row[0].tuple);
	assert_string_equal(lab->row[0].route, ""); /* nobody has told its name */
	assert_int_equal(lab->row[0].bytes[SL_CLIENT], 0);
	assert_int_equal(lab->row[0].bytes[SL_BACKEND], 2000);
	/* The other half is there, but of another connection, which was busy just now. */
	f[0].conn_id = 72;
	f[0].last_data_ns = NOW_NS;
	fake_flow(&lab->maps, &tuple, FAKE_UP, f);
	(void)walk(lab, 10);
	assert_int_equal(lab->n, 2);
	for (int i = 0; i < 2; i++) {
		bool is_71 = lab->row[i].conn_id == 71;

		assert_false(lab->row[i].has_partner);
		is_tuple(&lab->row[i].tuple);
		assert_int_equal(lab->row[i].bytes[SL_CLIENT], is_71 ? 0 : 1000);
		assert_int_equal(lab->row[i].bytes[SL_BACKEND], is_71 ? 2000 : 0);
		assert_int_equal(lab->row[i].idle_ms, is_71 ? 2000 : 0);
	}
}

static void before_any_payload_the_age_is_the_silence(void **state)
{
	struct lab *lab = *state;
	struct sl_packet_flow f[2];

	NEEDS_MAPS(lab);
	both_halves(f);
	f[0].last_data_ns = f[1].last_data_ns = 0;
	fake_flow(&lab->maps, &tuple, FAKE_BOTH, f);
	(void)walk(lab, 10);
	assert_int_equal(lab->row[0].idle_ms, 60000);
}

static void addresses_of_both_families(void **state)
{
	static const struct fake_tuple six = { "[2001:db8::7]:50122", "[2001:db8::1]:443",
					       "[2001:db8:1::1]:41000", "[2001:db8:1::2]:8443" };
	struct lab *lab = *state;
	struct sl_packet_flow f[2];

	NEEDS_MAPS(lab);
	both_halves(f);
	memset(f[0].via, 0, sizeof(f[0].via));
	f[0].via_port = 0;
	fake_flow(&lab->maps, &six, FAKE_BOTH, f);
	(void)walk(lab, 10);
	assert_int_equal(lab->n, 1);
	is_addr(&lab->row[0].tuple.client, six.client);
	is_addr(&lab->row[0].tuple.front, six.front);
	is_addr(&lab->row[0].tuple.back, six.back);
	is_addr(&lab->row[0].tuple.backend, six.backend);
	assert_int_equal(sl_addr_family(&lab->row[0].via), AF_UNSPEC);
}

static void states_have_names(void **state)
{
	struct lab *lab = *state;
	static const struct {
		struct sl_packet_flow half[2];
		const char *name;
	} cases[] = {
		{ { { .state = SL_PACKET_STARTING }, { .state = SL_PACKET_STARTING } },
		  "starting" },
		{ { { .state = SL_PACKET_ACTIVE }, { .state = SL_PACKET_ACTIVE } }, "active" },
		{ { { .state = SL_PACKET_ACTIVE, .fin = 1 },
		    { .state = SL_PACKET_ACTIVE, .peer_fin = 1, .peer_fin_acked = 1 } },
		  "half_closed" },
		{ { { .state = SL_PACKET_ACTIVE, .peer_fin = 1 },
		    { .state = SL_PACKET_ACTIVE, .fin = 1 } },
		  "half_closed" },
		{ { { .state = SL_PACKET_ACTIVE, .fin = 1, .peer_fin_acked = 1 },
		    { .state = SL_PACKET_ACTIVE, .fin = 1, .peer_fin_acked = 1 } },
		  "closed" },
		{ { { .state = SL_PACKET_ACTIVE, .fin = 1 },
		    { .state = SL_PACKET_ACTIVE, .rst = 1 } },
		  "reset" },
		{ { { .state = SL_PACKET_KILLED, .rst = 1 }, { .state = SL_PACKET_KILLED } },
		  "killed" },
	};

	NEEDS_MAPS(lab);
	for (size_t i = 0; i < SL_ARRAY_LEN(cases); i++) {
		fake_flow(&lab->maps, &tuple, FAKE_BOTH, cases[i].half);
		(void)walk(lab, 10);
		assert_int_equal(lab->n, 1);
		assert_string_equal(lab->row[0].state, cases[i].name);
	}
}

/* More than a slice; each flow once, whatever the table's order. */
static void a_large_table_is_walked_in_slices(void **state)
{
	struct lab *lab = *state;
	struct sl_packet_flow f[2];
	bool seen[ROWS] = { false };
	char client[32];
	char back[32];

	NEEDS_MAPS(lab);
	for (unsigned i = 0; i < 900; i++) {
		const struct fake_tuple t = { client, tuple.front, back, tuple.backend };

		both_halves(f);
		f[0].conn_id = f[1].conn_id = i + 1;
		(void)snprintf(client, sizeof(client), "192.0.2.7:%u", 20000 + i);
		(void)snprintf(back, sizeof(back), "10.0.0.1:%u", 40000 + i);
		fake_flow(&lab->maps, &t, FAKE_BOTH, f);
	}
	assert_false(walk(lab, SIZE_MAX).more);
	assert_int_equal(lab->n, 900);
	assert_true(lab->steps > 3);
	for (size_t i = 0; i < lab->n; i++) {
		assert_true(lab->row[i].conn_id <= 900);
		assert_false(seen[lab->row[i].conn_id]);
		seen[lab->row[i].conn_id] = true;
	}
	assert_true(walk(lab, 899).more);
	assert_int_equal(lab->n, 899);
	assert_false(walk(lab, 900).more);
	/* As far as needed, and no further. */
	assert_true(walk(lab, 1).more);
	assert_int_equal(lab->n, 1);
	assert_int_equal(lab->steps, 1);
	assert_true(walk(lab, 0).more);
}

static void an_empty_table_has_no_rows(void **state)
{
	struct lab *lab = *state;
	struct sl_flows_walk w = { .max = 1 };

	NEEDS_MAPS(lab);
	assert_false(walk(lab, 0).more);
	assert_int_equal(lab->n, 0);
	assert_int_equal(sl_flows_step(&w, -1, -1, NOW_NS, keep, lab), -EBADF);
}

struct outcomes {
	unsigned n;
	uint64_t sum;
	uint64_t of_forwarded_tc;
	uint64_t of_xdp_passed;
};

static void add_outcome(void *arg, const char *name, uint64_t value)
{
	struct outcomes *o = arg;

	o->n++;
	o->sum += value;
	if (strcmp(name, "forwarded_tc") == 0)
		o->of_forwarded_tc = value;
	if (strcmp(name, "xdp_passed") == 0)
		o->of_xdp_passed = value;
}

static void outcomes_are_summed_over_the_processors(void **state)
{
	struct lab *lab = *state;
	uint64_t n_cpus = (uint64_t)libbpf_num_possible_cpus();
	struct sl_packet_counts counts = { .forwarded_tc = 100, .xdp_passed = 7 };
	struct outcomes o = { 0 };

	NEEDS_MAPS(lab);
	fake_counts(&lab->maps, &counts);
	assert_int_equal(sl_flows_outcomes(lab->maps.counters_fd, add_outcome, &o), 0);
	assert_int_equal(o.n, sizeof(counts) / sizeof(uint64_t));
	assert_int_equal(o.of_forwarded_tc, 100 * n_cpus);
	assert_int_equal(o.of_xdp_passed, 7 * n_cpus);
	assert_int_equal(o.sum, 107 * n_cpus);
	assert_int_equal(sl_flows_outcomes(-1, add_outcome, &o), -EBADF);
	assert_int_equal(o.n, sizeof(counts) / sizeof(uint64_t));
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(a_flow_is_one_row),
		T(half_a_flow_is_a_row_too),
		T(before_any_payload_the_age_is_the_silence),
		T(addresses_of_both_families),
		T(states_have_names),
		T(a_large_table_is_walked_in_slices),
		T(an_empty_table_has_no_rows),
		T(outcomes_are_summed_over_the_processors),
	};

	return cmocka_run_group_tests_name("flows", tests, NULL, NULL);
}
