/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "ctl/metrics.h"
#include "fake_flows.h"
#include "fake_proxy.h"

static char *render_with(const struct sl_ctl_facts *facts, const struct fake_flows *maps)
{
	_cleanup_(sl_str_done) struct sl_str out = { 0 };
	static struct sl_proxy proxy;
	struct sl_hist age = { 0 };

	fake_init(&proxy, NULL);
	if (maps) {
		fake_packet_on(&proxy);
		proxy.kernel.drift[SL_DRIFT_PACKET_HALF] = 9;
		proxy.kernel.counters_fd = maps->counters_fd;
	}
	sl_hist_add(&age, 700);
	sl_hist_add(&age, 90001 * UINT64_C(1000000));
	sl_metrics_render(&out, &proxy, facts, &age, 5000);
	return sl_str_take(&out);
}

static char *render(const struct sl_ctl_facts *facts)
{
	return render_with(facts, NULL);
}

static const struct sl_ctl_facts facts = { .started_ms = 2000, .ready = true };

static void has_line(const char *text, const char *line)
{
	char needle[256];

	(void)snprintf(needle, sizeof(needle), "\n%s\n", line);
	if (!strstr(text, needle))
		fail_msg("no line '%s' in:\n%s", line, text);
}

static void check_with_promtool(const char *text)
{
	FILE *f;

	if (system("command -v promtool >/dev/null 2>&1") != 0)
		skip();
	f = popen("promtool check metrics >&2", "w");
	assert_non_null(f);
	assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
	assert_int_equal(pclose(f), 0);
}

static void promtool_accepts_the_page(void **state)
{
	_cleanup_free_ char *text = render(&facts);

	(void)state;
	check_with_promtool(text);
}

static void values_stand_under_their_names(void **state)
{
	static const char *const lines[] = {
		"sluice_build_info{version=\"" SL_VERSION "\"} 1",
		"sluice_uptime_seconds 3",
		"sluice_ready 1",
		"sluice_config_generation 3",
		"sluice_config_last_reload_successful 1",
		"sluice_connections_active{route=\"shop\",engine=\"relay\"} 2",
		"sluice_connections_total{route=\"mail\",engine=\"relay\"} 7",
		"sluice_connections_accepted_total 10",
		"sluice_connections_rejected_total{route=\"shop\",reason=\"limit_ip\"} 1",
		"sluice_connections_rejected_total{route=\"-\",reason=\"limit_global\"} 2",
		"sluice_terminations_total{route=\"shop\",engine=\"relay\",side=\"client\","
		"reason=\"econnreset\"} 1",
		"sluice_terminations_total{route=\"shop\",engine=\"relay\",side=\"backend\","
		"reason=\"normal\"} 0",
		"sluice_bytes_total{route=\"shop\",engine=\"relay\",direction=\"down\"} 4096",
		"sluice_engine_choice_total{engine=\"relay\",reason=\"short_lived\"} 8",
		"sluice_target_up{route=\"shop\",target=\"10.0.1.11:443\"} 1",
		"sluice_target_up{route=\"shop\",target=\"odd\\\"na\\\\me:80\"} 0",
		"sluice_health_checks_total{route=\"shop\",target=\"10.0.1.11:443\",result=\"ok\"} "
		"40",
		"sluice_health_checks_total{route=\"shop\",target=\"10.0.1.11:443\","
		"result=\"failed\"} 3",
		"sluice_config_runtime_changes 0",
		"sluice_dns_queries_total 6",
		"sluice_dns_failures_total 1",
		"sluice_accept_errors_total 0",
		"sluice_fsm_bugs_total 0",
		"sluice_engine_moves_total{from=\"relay\",to=\"packet\",reason=\"eligible\"} 6",
		"sluice_engine_moves_total{from=\"sockmap\",to=\"relay\",reason=\"map_full\"} 1",
		"sluice_handover_total{engine=\"packet\",result=\"done\"} 6",
		"sluice_handover_total{engine=\"packet\",result=\"not_quiescent\"} 2",
		"sluice_handover_duration_seconds_count 1",
		"sluice_handover_duration_seconds_sum 0.000025",
		"sluice_engine_available{engine=\"packet\"} 0",
		"sluice_kernel_flows{engine=\"packet\"} 0",
		"sluice_engine_available{engine=\"sockmap\"} 0",
		"sluice_kernel_flows{engine=\"sockmap\"} 0",
		"sluice_drift_total{kind=\"packet_half\"} 0",
		"sluice_drift_total{kind=\"nft_table\"} 0",
		"sluice_drift_total{kind=\"sockmap_pin\"} 0",
		"sluice_drift_total{kind=\"records\"} 0",
	};
	_cleanup_free_ char *text = render(&facts);

	(void)state;
	for (size_t i = 0; i < SL_ARRAY_LEN(lines); i++)
		has_line(text, lines[i]);
}

static void nat_is_counted_where_it_is_used(void **state)
{
	static const char *const lines[] = {
		"sluice_engine_available{engine=\"nftables\"} 1",
		"sluice_kernel_flows{engine=\"nftables\"} 11",
		"sluice_nftables_repairs_total 3",
		"sluice_nftables_resyncs_total 4",
		"sluice_conntrack_entries 500",
		"sluice_conntrack_limit 65536",
	};
	_cleanup_free_ char *without = render(&facts);
	_cleanup_(sl_str_done) struct sl_str out = { 0 };
	struct sl_hist age = { 0 };
	struct sl_proxy proxy;

	(void)state;
	has_line(without, "sluice_engine_available{engine=\"nftables\"} 0");
	has_line(without, "sluice_kernel_flows{engine=\"nftables\"} 0");
	assert_null(strstr(without, "sluice_nftables_"));
	assert_null(strstr(without, "sluice_conntrack_"));
	fake_init(&proxy, NULL);
	fake_nat_on(&proxy);
	sl_metrics_render(&out, &proxy, &facts, &age, 5000);
	for (size_t i = 0; i < SL_ARRAY_LEN(lines); i++)
		has_line(sl_str_text(&out), lines[i]);
	check_with_promtool(sl_str_text(&out));
}

static size_t n_lines(const char *text, const char *beginning)
{
	size_t n = 0;

	for (const char *p = text; (p = strstr(p, beginning)) != NULL; p++)
		n += p[-1] == '\n';
	return n;
}

static char *render_tls(struct sl_proxy *proxy)
{
	_cleanup_(sl_str_done) struct sl_str out = { 0 };
	struct sl_hist age = { 0 };

	sl_metrics_render(&out, proxy, &facts, &age, 5000);
	return sl_str_take(&out);
}

static void handshakes_are_counted(void **state)
{
	static const char *const lines[] = {
		"sluice_tls_handshakes_total{version=\"TLSv1.3\",resumed=\"false\",result=\"ok\"} "
		"20",
		"sluice_tls_handshakes_total{version=\"TLSv1.3\",resumed=\"false\","
		"result=\"failed\"} 21",
		"sluice_tls_handshakes_total{version=\"TLSv1.2\",resumed=\"true\",result=\"ok\"} 5",
		"sluice_tls_handshakes_total{version=\"-\",resumed=\"false\",result=\"timeout\"} 0",
		"sluice_tls_backend_handshakes_total{version=\"-\",resumed=\"false\","
		"result=\"timeout\"} 7",
		"sluice_tls_handshakes_active 2",
		"sluice_tls_handshakes_waiting 1",
	};
	_cleanup_free_ char *without = render(&facts);
	_cleanup_free_ char *text = NULL;
	static struct sl_proxy proxy;

	(void)state;
	/* so that rates exist from the first handshake on */
	assert_int_equal(n_lines(without, "sluice_tls_handshakes_total{"), 4);
	has_line(without, "sluice_tls_handshakes_total{version=\"TLSv1.2\",resumed=\"false\","
			  "result=\"ok\"} 0");
	assert_null(strstr(without, "sluice_certificate_"));
	fake_init(&proxy, NULL);
	fake_tls_on(&proxy);
	text = render_tls(&proxy);
	for (size_t i = 0; i < SL_ARRAY_LEN(lines); i++)
		has_line(text, lines[i]);
	check_with_promtool(text);
}

static void a_name_has_its_earliest_expiry(void **state)
{
	_cleanup_free_ char *text = NULL;
	static struct sl_proxy proxy;

	(void)state;
	fake_init(&proxy, NULL);
	fake_tls_on(&proxy);
	proxy.cert[0].not_after_s = 1900000002;
	proxy.cert[1].not_after_s = 1900000001;
	proxy.cert[2].not_after_s = 1900000003;
	proxy.cert[3].not_after_s = 1900000004;
	proxy.cert[4] = (struct sl_cert_view){ .route = "mail", .problem = "gone", .label = "" };
	proxy.n_certs = 5;
	text = render_tls(&proxy);
	assert_int_equal(n_lines(text, "sluice_certificate_not_after_seconds{"), 4);
	has_line(text, "sluice_certificate_not_after_seconds{domain=\"shop.example.com\"} "
		       "1900000001");
	has_line(text, "sluice_certificate_not_after_seconds{domain=\"api.example.com\"} "
		       "1900000002");
	has_line(text, "sluice_certificate_not_after_seconds{domain=\"*.shop.example.com\"} "
		       "1900000003");
	/* one without a name must not be forgotten, either */
	has_line(text, "sluice_certificate_not_after_seconds{domain=\"-\"} 1900000004");
	check_with_promtool(text);
}

static void names_are_bounded(void **state)
{
	enum { N = 10500 };
	static char text[N][24];
	static const char *names[N];
	_cleanup_free_ char *page = NULL;
	static struct sl_proxy proxy;

	(void)state;
	for (size_t i = 0; i < N; i++) {
		(void)snprintf(text[i], sizeof(text[i]), "h%zu.example.com", i);
		names[i] = text[i];
	}
	fake_init(&proxy, NULL);
	fake_tls_on(&proxy);
	proxy.cert[0].names = names;
	proxy.cert[0].n_names = N;
	/* who ends first is never left out, whatever its name */
	proxy.cert[2].names = (const char *const[]){ "z.example.com" };
	proxy.cert[2].not_after_s = proxy.cert[0].not_after_s - 1;
	page = render_tls(&proxy);
	assert_int_equal(n_lines(page, "sluice_certificate_not_after_seconds{"), 10000);
	assert_non_null(strstr(page, "_seconds{domain=\"z.example.com\"} "));
}

static void the_kernel_is_counted_where_it_carries(void **state)
{
	struct sl_packet_counts counts = { .forwarded_tc = 100, .killed_answered = 1 };
	_cleanup_(fake_flows_close) struct fake_flows maps = { -1, -1, -1 };
	_cleanup_free_ char *without = render(&facts);
	_cleanup_free_ char *text = NULL;
	char line[128];

	(void)state;
	assert_null(strstr(without, "sluice_packet_outcomes_total"));
	if (!fake_flows_open(&maps, 1))
		skip();
	fake_counts(&maps, &counts);
	text = render_with(&facts, &maps);
	has_line(text, "sluice_engine_available{engine=\"packet\"} 1");
	has_line(text, "sluice_kernel_flows{engine=\"packet\"} 3");
	has_line(text, "sluice_kernel_flows_held{engine=\"packet\"} 2");
	has_line(text, "sluice_drift_total{kind=\"packet_half\"} 9");
	has_line(text, "sluice_packet_outcomes_total{outcome=\"ttl_dropped\"} 0");
	(void)snprintf(line, sizeof(line),
		       "sluice_packet_outcomes_total{outcome=\"forwarded_tc\"} %d",
		       100 * libbpf_num_possible_cpus());
	has_line(text, line);
	check_with_promtool(text);
}

static void histograms_are_cumulative(void **state)
{
	_cleanup_free_ char *text = render(&facts);

	(void)state;
	has_line(text, "sluice_connection_age_seconds_bucket{le=\"0.0005\"} 0");
	has_line(text, "sluice_connection_age_seconds_bucket{le=\"0.001\"} 1");
	has_line(text, "sluice_connection_age_seconds_bucket{le=\"86400\"} 1");
	has_line(text, "sluice_connection_age_seconds_bucket{le=\"+Inf\"} 2");
	has_line(text, "sluice_connection_age_seconds_count 2");
	has_line(text, "sluice_connection_age_seconds_sum 90001.000700");
	has_line(text, "sluice_state_duration_seconds_bucket{state=\"connecting\",le=\"0.005\"} 1");
	has_line(text, "sluice_state_duration_seconds_count{state=\"established\"} 0");
	has_line(text, "sluice_connection_duration_seconds_bucket{le=\"300\"} 1");
	has_line(text, "sluice_connect_duration_seconds_sum 0.001500");
}

static void what_is_not_checked_has_no_checks(void **state)
{
	_cleanup_free_ char *text = render(&facts);

	(void)state;
	assert_non_null(strstr(text, "sluice_health_checks_total{route=\"shop\""));
	assert_null(strstr(text, "sluice_health_checks_total{route=\"mail\""));
}

/* The format wants the samples of a name in one block; each name is announced once. */
static void every_name_is_announced_once(void **state)
{
	_cleanup_free_ char *text = render(&facts);
	unsigned n = 0;

	(void)state;
	for (char *p = text; (p = strstr(p, "# TYPE ")) != NULL; n++) {
		char line[256];

		assert_int_equal(sscanf(p, "%255[^\n]", line), 1);
		p += strlen(line);
		assert_null(strstr(p, line));
	}
	assert_true(n > 20);
}

static void a_refused_reload_shows(void **state)
{
	struct sl_ctl_facts refused = { .last_reload_ok = false, .last_reload_unix = 1.7e9 };
	_cleanup_free_ char *text = render(&refused);

	(void)state;
	has_line(text, "sluice_config_last_reload_successful 0");
	has_line(text, "sluice_ready 0");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(promtool_accepts_the_page),
		cmocka_unit_test(values_stand_under_their_names),
		cmocka_unit_test(handshakes_are_counted),
		cmocka_unit_test(a_name_has_its_earliest_expiry),
		cmocka_unit_test(names_are_bounded),
		cmocka_unit_test(the_kernel_is_counted_where_it_carries),
		cmocka_unit_test(nat_is_counted_where_it_is_used),
		cmocka_unit_test(histograms_are_cumulative),
		cmocka_unit_test(what_is_not_checked_has_no_checks),
		cmocka_unit_test(every_name_is_announced_once),
		cmocka_unit_test(a_refused_reload_shows),
	};

	return cmocka_run_group_tests_name("metrics", tests, NULL, NULL);
}
