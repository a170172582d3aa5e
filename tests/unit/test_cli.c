/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The command line as a whole, in a child process, against a control interface in this one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define main sluice_main
#include "../../tools/sluice.c"
#undef main

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "ctl/ctl.h"
#include "fake_flows.h"
#include "fake_joined.h"
#include "fake_proxy.h"

#define PATIENCE_MS 10000
#define MAX_ARGS 16

struct lab {
	struct sl_loop *loop;
	struct sl_proxy proxy;
	struct sl_ctl *ctl;
	struct sl_ctl_facts facts;
	char dir[64];
	char socket[96];
	char config[96];
	enum sl_ctl_result reply_result;
	const char *reply_text;
	/* of the last request to the supervisor */
	enum sl_ctl_request asked;
	struct sl_ctl_change change; /* its texts are those below */
	char subject[128];
	char text[128];
	/* of the last command */
	int code;
	char *out;
	char *err;
};

static void on_request(void *arg, enum sl_ctl_request what, const struct sl_ctl_change *change,
		       sl_ctl_reply_fn reply, void *reply_arg)
{
	struct lab *lab = arg;

	lab->asked = what;
	if (change) {
		lab->change = *change;
		(void)snprintf(lab->subject, sizeof(lab->subject), "%s", change->subject);
		(void)snprintf(lab->text, sizeof(lab->text), "%.*s", (int)change->text.n,
			       change->text.n ? change->text.p : "");
	}
	reply(reply_arg, lab->reply_result, lab->reply_text);
}

static int listen_at(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	strcpy(addr.sun_path, path);
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(fd, 16), 0);
	return fd;
}

/* `more`: of global, ending in a comma. */
static void write_config_with(struct lab *lab, const char *more, const char *routes)
{
	FILE *f = fopen(lab->config, "w");

	assert_non_null(f);
	(void)fprintf(f, "version: 1\nglobal: { %s runtime_dir: %s }\n%s", more, lab->dir, routes);
	assert_int_equal(fclose(f), 0);
}

static void write_config(struct lab *lab, const char *routes)
{
	write_config_with(lab, "", routes);
}

#define GOOD_ROUTES "routes:\n  - { name: a, match: { ports: 8080 }, forward: \"127.0.0.1:80\" }\n"

static int setup(void **state)
{
	struct lab *lab = calloc(1, sizeof(*lab));
	struct sl_ctl_options options;

	assert_non_null(lab);
	assert_int_equal(sl_loop_new(&lab->loop), 0);
	fake_init(&lab->proxy, lab->loop);
	strcpy(lab->dir, "/tmp/sluice-test-XXXXXX");
	assert_non_null(mkdtemp(lab->dir));
	(void)snprintf(lab->socket, sizeof(lab->socket), "%s/control.sock", lab->dir);
	(void)snprintf(lab->config, sizeof(lab->config), "%s/sluice.yaml", lab->dir);
	write_config(lab, GOOD_ROUTES);
	lab->facts = (struct sl_ctl_facts){ .pid = 4711,
					    .started_ms = sl_clock_ms() - 125000,
					    .config_path = "/etc/sluice/sluice.yaml",
					    .last_reload_ok = true,
					    .ready = true };
	options = (struct sl_ctl_options){ .loop = lab->loop,
					   .proxy = &lab->proxy,
					   .control_fd = listen_at(lab->socket),
					   .http_fd = -1,
					   .facts = &lab->facts,
					   .request = on_request,
					   .request_arg = lab };
	assert_int_equal(sl_ctl_new(&options, &lab->ctl), 0);
	*state = lab;
	return 0;
}

static int teardown(void **state)
{
	struct lab *lab = *state;

	sl_ctl_free(lab->ctl);
	(void)sl_loop_turn(lab->loop, 0);
	sl_loop_free(lab->loop);
	(void)unlink(lab->socket);
	(void)unlink(lab->config);
	assert_int_equal(rmdir(lab->dir), 0);
	free(lab->out);
	free(lab->err);
	free(lab);
	return 0;
}

static char *slurp(FILE *f)
{
	struct sl_str text = { 0 };
	char chunk[4096];
	size_t n;

	rewind(f);
	while ((n = fread(chunk, 1, sizeof(chunk), f)) > 0)
		sl_str_add(&text, chunk, n);
	(void)fclose(f);
	return sl_str_take(&text);
}

/* Runs "sluice ARGS..." in a child while this process is the daemon. */
static void run_args(struct lab *lab, char **argv)
{
	uint64_t until = sl_clock_ms() + PATIENCE_MS;
	FILE *out = tmpfile();
	FILE *err = tmpfile();
	int status;
	pid_t pid;

	assert_true(out && err);
	(void)fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		(void)dup2(fileno(out), STDOUT_FILENO);
		(void)dup2(fileno(err), STDERR_FILENO);
		exit(sluice_main(0, argv));
	}
	while (waitpid(pid, &status, WNOHANG) == 0) {
		assert_int_equal(sl_loop_turn(lab->loop, 1), 0);
		if (sl_clock_ms() > until) {
			(void)kill(pid, SIGKILL);
			(void)waitpid(pid, &status, 0);
			fail_msg("the command did not end");
		}
	}
	assert_true(WIFEXITED(status));
	lab->code = WEXITSTATUS(status);
	free(lab->out);
	free(lab->err);
	lab->out = slurp(out);
	lab->err = slurp(err);
}

#define RUN(lab, ...)                                                                    \
	run_args((lab), (char *[]){ (char *)"sluice", (char *)"--socket", (lab)->socket, \
				    __VA_ARGS__, NULL })

static void expect(struct lab *lab, int code, const char *in_out, const char *in_err)
{
	if (lab->code != code || (in_out && !strstr(lab->out, in_out)) ||
	    (in_err && !strstr(lab->err, in_err)))
		fail_msg("expected %d, '%s', '%s'; got %d\n--- out\n%s--- err\n%s", code,
			 in_out ? in_out : "", in_err ? in_err : "", lab->code, lab->out, lab->err);
	assert_null(strchr(lab->out, '\033')); /* not a terminal */
}

static json_t *out_json(const struct lab *lab)
{
	json_error_t error;
	json_t *doc = json_loads(lab->out, 0, &error);

	if (!doc)
		fail_msg("not JSON: %s", lab->out);
	return doc;
}

/* ---- looking ---- */

static void status_is_an_overview(void **state)
{
	struct lab *lab = *state;

	RUN(lab, "status");
	expect(lab, 0, "running, pid 4711", "");
	assert_non_null(strstr(lab->out, "up 2m 0"));
	assert_non_null(strstr(lab->out, "generation 3"));
	assert_non_null(strstr(lab->out, "3 active, 10 accepted, 2 rejected"));
	assert_non_null(strstr(lab->out, "normal 4, econnreset 1"));
	assert_non_null(strstr(lab->out, "10.0.1.11:443 up (2)"));
	assert_non_null(strstr(lab->out, "4.0 KiB"));
	assert_string_equal(lab->err, "");
}

static void status_tells_a_degraded_daemon_by_exit_code(void **state)
{
	struct lab *lab = *state;

	lab->proxy.draining = true;
	RUN(lab, "status");
	expect(lab, EXIT_DEGRADED, "draining", NULL);
	lab->proxy.draining = false;
	lab->facts.ready = false;
	RUN(lab, "status");
	expect(lab, EXIT_DEGRADED, "starting", NULL);
	lab->facts.broker_pid = 4712;
	RUN(lab, "status");
	expect(lab, EXIT_DEGRADED, ", broker 4712), up ", NULL);
	lab->facts.broker_pid = 0;
	lab->facts.ready = true;
	lab->facts.last_reload_unix = 1.7e9;
	lab->facts.last_reload_ok = false;
	RUN(lab, "--json", "status");
	expect(lab, EXIT_DEGRADED, "\"ok\":false", NULL);
	RUN(lab, "status");
	expect(lab, EXIT_DEGRADED, "the last reload was refused", NULL);
}

/* What may come down to relay is no fault; a route that names the engine asked for it. */
static void status_is_degraded_only_where_the_engine_was_asked_for(void **state)
{
	struct lab *lab = *state;

	lab->facts.no_broker = "off: not started as root";
	RUN(lab, "status");
	expect(lab, 0, "packet           off: not started as root\n", "");
	assert_non_null(strstr(lab->out, "\n                 the kernel carries no new connections "
					 "here: all go by relay\n"));
	lab->proxy.route[1].engine = SL_CHOICE_PACKET;
	RUN(lab, "status");
	expect(lab, EXIT_DEGRADED, "relayed instead: 1 route has named this engine\n", "");
	lab->proxy.route[1].enabled = false;
	RUN(lab, "status");
	expect(lab, 0, "mail   packet, disabled ", "");
	lab->proxy.route[1].enabled = true;
	fake_packet_on(&lab->proxy);
	RUN(lab, "status");
	assert_null(strstr(lab->out, "all go by relay"));
	expect(lab, 0,
	       "packet           tcx on 3 interfaces; 3 of 262144 flows, 2 just over, "
	       "4 adopted\n",
	       "");
	RUN(lab, "engines");
	expect(lab, 0, "packet    yes             3      0  tcx on 3 interfaces\n", "");
	strcpy(lab->proxy.kernel.status.interfaces, "eth0 eth1 ");
	RUN(lab, "engines");
	expect(lab, 0, "  tcx on 3 interfaces (eth0, eth1 and 1 more)\n", "");
	lab->proxy.kernel.status.n_interfaces = 2;
	RUN(lab, "status");
	expect(lab, 0, "tcx on 3 interfaces (eth0, eth1); 3 of 262144 flows", "");
	lab->proxy.kernel.status.interfaces[0] = '\0';
	/* What is there goes on, and has to be seen. */
	lab->proxy.route[1].engine = SL_CHOICE_AUTO;
	lab->proxy.conf->global.packet.hook = SL_HOOK_CHOICE_OFF;
	RUN(lab, "status");
	expect(lab, 0,
	       "packet           off: packet.hook is off, 3 still in the kernel, "
	       "2 just over, 4 adopted\n",
	       "");
	lab->proxy.conf->global.packet.hook = SL_HOOK_CHOICE_AUTO;
}

static void routes_of_sockmap_are_seen_to(void **state)
{
	struct lab *lab = *state;

	RUN(lab, "status");
	assert_null(strstr(lab->out, "\nsockmap  "));
	lab->proxy.route[1].engine = SL_CHOICE_SOCKMAP;
	RUN(lab, "status");
	expect(lab, EXIT_DEGRADED,
	       "sockmap          off: the broker process is being started\n"
	       "                 relayed instead: 1 route has named this engine\n",
	       "");
	lab->proxy.kernel.has_sockmap = true;
	lab->proxy.kernel.sockmap =
		(struct sl_broker_sockmap_status){ .why = SL_WHY_NO_PRIVILEGE,
						   .text = "off: needs CAP_BPF and CAP_NET_ADMIN" };
	RUN(lab, "engines");
	expect(lab, 0, "off: needs CAP_BPF and CAP_NET_ADMIN\n", "");
	expect(lab, 0, "\nsockmap: 'sluice reload' tries again when that is mended; a missing ",
	       "");
	lab->proxy.kernel.sockmap = (struct sl_broker_sockmap_status){
		.is_on = 1, .n_sockets = 2, .n_orphans = 1, .text = "on, room for 64 sockets"
	};
	RUN(lab, "status");
	expect(lab, 0, "\nsockmap          on, room for 64 sockets; 2 joined, 1 without a record\n",
	       "");
	assert_null(strstr(lab->out, "all go by relay"));
}

static void routes_of_nat_are_seen_to(void **state)
{
	struct lab *lab = *state;

	RUN(lab, "engines");
	expect(lab, 0, "nftables  no              0      0  off: no enabled route has engine: nft",
	       "");
	RUN(lab, "status");
	assert_null(strstr(lab->out, "\nnftables  "));
	lab->proxy.route[1].engine = SL_CHOICE_NFTABLES;
	RUN(lab, "status");
	expect(lab, EXIT_DEGRADED,
	       "nftables         off: the broker process is being started\n"
	       "                 not forwarded: 1 route needs this engine\n",
	       "");
	lab->proxy.kernel.nat_stays = true;
	RUN(lab, "status");
	expect(lab, EXIT_DEGRADED, "rules and connections stay meanwhile\n", "");
	assert_null(strstr(lab->out, "not forwarded"));
	lab->proxy.kernel.nat_stays = false;
	lab->facts.no_broker = "off: not started as root";
	RUN(lab, "status");
	expect(lab, EXIT_DEGRADED, "nftables         off: not started as root\n", "");
	lab->proxy.kernel.is_linked = true;
	strcpy(lab->proxy.kernel.nat.text, "off: table inet sluice belongs to another program");
	RUN(lab, "engines");
	expect(lab, 0, "off: table inet sluice belongs to another program\n", "");
	expect(lab, 0, "\nnftables: until that is mended nobody forwards its routes\n", "");
	fake_nat_on(&lab->proxy);
	RUN(lab, "status");
	expect(lab, 0,
	       "nftables         1 route in table inet sluice; 12 flows, 2 adopted, 3 times "
	       "repaired, 4 times resynced; conntrack 500 of 65536\n",
	       "");
	lab->proxy.kernel.nat_worries = "chain a drops it: do this\nanother: do that\n";
	RUN(lab, "status");
	expect(lab, 0,
	       "conntrack 500 of 65536\n"
	       "                 in the way: chain a drops it: do this\n"
	       "                 in the way: another: do that\n",
	       "");
	RUN(lab, "flows");
	expect(lab, 0, "0 flows in the kernel; ", "");
	assert_non_null(strstr(lab->out, "\nand 11 by its NAT, which 'sluice conns' lists\n"));
	RUN(lab, "engines");
	expect(lab, 0, "nftables  yes            11      0  1 route in table inet sluice\n", "");
	RUN(lab, "explain", "53", "--protocol", "udp");
	expect(lab, 0, "connection to    port 53 (UDP)", "");
	assert_true(lab->proxy.asked.is_udp);
	RUN(lab, "explain", "53", "--protocol", "icmp");
	expect(lab, EXIT_FAILED, "", "is no protocol");
}

/* What is to be done stands in it, however long the path is. */
static void an_engine_that_is_off_says_what_to_do(void **state)
{
	struct lab *lab = *state;

	strcpy(lab->proxy.kernel.status.text, "off: /sys/fs/bpf/sluice is not on a bpf file system "
					      "(mount -t bpf bpf /sys/fs/bpf)");
	RUN(lab, "status");
	expect(lab, 0, "(mount -t bpf bpf /sys/fs/bpf)\n", "");
	RUN(lab, "engines");
	expect(lab, 0, "(mount -t bpf bpf /sys/fs/bpf)\n", "");
	expect(lab, 0, "\npacket: 'sluice reload' tries again ", NULL);
	lab->proxy.kernel.off = SL_WHY_SELF_TEST_FAILED;
	RUN(lab, "engines");
	expect(lab, 0, "\npacket: the log says which test failed", NULL);
	lab->facts.no_broker = "off: not started as root";
	RUN(lab, "engines");
	expect(lab, 0, "\npacket: started as root, ", NULL);
	lab->facts.no_broker = "";
	RUN(lab, "flows");
	expect(lab, 0, "0 flows in the kernel; off: /sys", "");
}

static void flows_are_a_table(void **state)
{
	static const struct fake_tuple tuple = { "192.0.2.7:50122", "10.0.0.1:443",
						 "10.0.0.1:41000", "10.0.0.11:8443" };
	_cleanup_(fake_flows_close) struct fake_flows maps = { -1, -1, -1 };
	struct sl_packet_counts counts = { .killed_answered = 1 };
	struct sl_packet_flow f[2] = { { .conn_id = 71, .route_id = 3, .packets = 12 } };
	struct lab *lab = *state;

	if (!fake_flows_open(&maps, 64))
		skip();
	fake_packet_on(&lab->proxy);
	lab->proxy.kernel.flows_fd = maps.flows_fd;
	lab->proxy.kernel.routes_fd = maps.routes_fd;
	lab->proxy.kernel.counters_fd = maps.counters_fd;
	RUN(lab, "flows");
	expect(lab, 0, "0 flows in the kernel\n", "");
	fake_route(&maps, 3, "shop");
	fake_counts(&maps, &counts);
	f[0].state = SL_PACKET_ACTIVE;
	f[0].bytes = 4096;
	f[1] = f[0];
	f[1].packets = 34;
	f[1].drops = 5;
	fake_flow(&maps, &tuple, FAKE_BOTH, f);
	RUN(lab, "flows");
	expect(lab, 0, "71  shop   active  -       10.0.0.1:443  10.0.0.1:41000  10.0.0.11:8443",
	       "");
	expect(lab, 0, "4.0 KiB  4.0 KiB       12         34      5\n1 flow in the kernel\n", "");
	expect(lab, 0, "outcomes: killed_answered ", "");
	f[0].conn_id = f[1].conn_id = 72;
	fake_flow(&maps, &tuple, FAKE_UP, f);
	RUN(lab, "flows");
	expect(lab, 0, "active (half)", "");
	expect(lab, 0, "2 flows in the kernel\n", "");
	RUN(lab, "flows", "--limit", "1");
	expect(lab, 0, "only 1 of the flows in the kernel; --limit N shows N of them, 0 all\n", "");
	f[0].conn_id = f[1].conn_id = 72;
	f[0].state = f[1].state = SL_PACKET_KILLED;
	fake_flow(&maps, &tuple, FAKE_UP, f);
	RUN(lab, "flows");
	expect(lab, 0, "2 flows in the kernel, 1 of them just over\n", "");
	RUN(lab, "flows", "--limit", "x");
	expect(lab, EXIT_USAGE, "", "is no limit");
}

static void joined_connections_are_another_table(void **state)
{
	struct sl_sockmap_slot s[2] = {
		{ .conn_id = 8, .state = SL_SOCKMAP_FAST, .redirected = 4096, .max_waiting = 100 },
		{ .conn_id = 8,
		  .state = SL_SOCKMAP_SPILLED,
		  .passed = 2048,
		  .spills = 3,
		  .max_waiting = 10240 }
	};
	_cleanup_(fake_joined_close) struct fake_joined maps = { -1, -1, NULL };
	struct lab *lab = *state;

	if (!fake_joined_open(&maps, 16))
		skip();
	fake_packet_on(&lab->proxy);
	lab->proxy.kernel.sockmap_maps = maps.view;
	lab->proxy.row[1].engine = SL_ENGINE_SOCKMAP;
	fake_join(&maps, 3, s);
	fake_joined_entry(&maps, 8, 0);
	RUN(lab, "flows");
	expect(lab, 0, "TO DAEMON  SPILLS  MOST WAITING\n", "");
	expect(lab, 0, "8  shop   spilled down (half)  192.0.2.200:50000  10.0.1.12:443  1m", "");
	expect(lab, 0,
	       "4.0 KiB   0 B    2.0 KiB       3        10 KiB\n1 flow in the kernel, 1 of "
	       "them of the engine sockmap\n",
	       "");
	s[0].conn_id = s[1].conn_id = 99;
	s[0].state = SL_SOCKMAP_SPILLED;
	fake_join(&maps, 1, s);
	RUN(lab, "flows");
	expect(lab, 0, "99  -      spilled both ways (half)  -", "");
	lab->proxy.kernel.off = SL_WHY_NO_PRIVILEGE;
	lab->proxy.kernel.status.is_on = 0;
	strcpy(lab->proxy.kernel.status.text, "off: nothing to be had");
	RUN(lab, "flows");
	expect(lab, 0,
	       "2 flows in the kernel, 2 of them of the engine sockmap; the engine packet is "
	       "off: nothing to be had\n",
	       "");
}

/* Of what is just over, too. */
static void flows_are_in_the_order_of_ids(void **state)
{
	static const unsigned ids[] = { 905, 77, 4100, 78, 12, 3000, 906, 79 };
	_cleanup_(fake_flows_close) struct fake_flows maps = { -1, -1, -1 };
	struct sl_packet_flow f[2] = { { .state = SL_PACKET_ACTIVE } };
	unsigned long long before = 0;
	struct lab *lab = *state;
	char client[32];
	size_t n = 0;

	if (!fake_flows_open(&maps, 64))
		skip();
	fake_packet_on(&lab->proxy);
	lab->proxy.kernel.flows_fd = maps.flows_fd;
	lab->proxy.kernel.routes_fd = maps.routes_fd;
	for (size_t i = 0; i < SL_ARRAY_LEN(ids); i++) {
		const struct fake_tuple t = { client, "10.0.0.1:443", "10.0.0.1:41000",
					      "10.0.0.11:8443" };

		(void)snprintf(client, sizeof(client), "192.0.2.7:%u", 50000 + ids[i]);
		f[0].conn_id = ids[i];
		f[1] = f[0];
		fake_flow(&maps, &t, FAKE_UP, f);
	}
	RUN(lab, "flows");
	expect(lab, 0, "8 flows in the kernel\n", "");
	for (const char *at = strchr(lab->out, '\n') + 1; strstr(at, " (half)");
	     at = strchr(at, '\n') + 1, n++) {
		assert_true(strtoull(at, NULL, 10) > before);
		before = strtoull(at, NULL, 10);
	}
	assert_int_equal(n, 8);

	/* of one that is over the record is, but not the row */
	RUN(lab, "kill", "3000");
	expect(lab, EXIT_FAILED, "", "no connection has the id 3000");
	f[0].state = SL_PACKET_KILLED;
	f[0].conn_id = 3000;
	fake_flow(&maps,
		  &(struct fake_tuple){ "192.0.2.7:53000", "10.0.0.1:443", "10.0.0.1:41000",
					"10.0.0.11:8443" },
		  FAKE_UP, f);
	RUN(lab, "kill", "3000");
	expect(lab, EXIT_FAILED, "", "connection 3000 is over already (killed)");
	RUN(lab, "kill", "3000", "--client", "10.9.9.9");
	expect(lab, EXIT_FAILED, "", "no connection has the id 3000 and fits the filters");
}

static void flows_can_be_flushed(void **state)
{
	struct lab *lab = *state;

	RUN(lab, "flows", "--flush");
	expect(lab, EXIT_FAILED, "", "no broker process");
	fake_packet_on(&lab->proxy);
	RUN(lab, "flows", "--flush");
	expect(lab, 0, "3 flows in the kernel were reset and all entries removed\n", "");
	RUN(lab, "--json", "flows", "--flush");
	expect(lab, 0, "\"ok\":true,\"flows\":3,", "");
	assert_null(strstr(lab->out, "\\n"));
	assert_int_equal(lab->proxy.n_flushes, 2);
	RUN(lab, "flows", "--flush", "--limit", "1");
	expect(lab, EXIT_USAGE, "", "flows [--limit N] | --flush");
	RUN(lab, "conns", "--flush");
	expect(lab, EXIT_USAGE, "", NULL);
	assert_int_equal(lab->proxy.n_flushes, 2);
}

static void json_is_what_the_daemon_said(void **state)
{
	static const char *const verb[] = { "status",  "routes",  "conns",  "flows",
					    "engines", "reasons", "version" };
	/* NULL: a list */
	static const char *const key[] = { "state",   NULL,           NULL,     "flows",
					   "engines", "terminations", "version" };
	struct lab *lab = *state;

	for (size_t i = 0; i < SL_ARRAY_LEN(verb); i++) {
		json_t *doc;

		RUN(lab, (char *)verb[i], "--json");
		expect(lab, 0, NULL, NULL);
		doc = out_json(lab);
		if (key[i])
			assert_non_null(json_object_get(doc, key[i]));
		else
			assert_true(json_is_array(doc));
		json_decref(doc);
		assert_string_equal(lab->err, "");
	}
}

static void connections_are_a_table(void **state)
{
	struct lab *lab = *state;

	RUN(lab, "conns");
	expect(lab, 0, "ID  ROUTE  STATE", NULL);
	assert_non_null(strstr(lab->out, " 7  shop   established  relay   short_lived"));
	assert_non_null(strstr(lab->out, "1m 01s"));
	assert_non_null(strstr(lab->out, " 9  -      accepted     -       -"));
	assert_int_equal(lab->proxy.survey[0].filter.max_rows, 1001);
	RUN(lab, "conns", "--json");
	assert_int_equal(lab->proxy.survey[1].filter.max_rows, 0);
	RUN(lab, "conns", "--route", "shop", "--limit=1");
	expect(lab, 0, "only the first 1;", NULL);
	RUN(lab, "conns", "8");
	assert_null(strstr(lab->out, " 7  shop"));
	RUN(lab, "conns", "x");
	expect(lab, EXIT_FAILED, "", "'id' is not a number");
	/* an id is meant, a filter may find nobody */
	RUN(lab, "conns", "99");
	expect(lab, EXIT_FAILED, "", "no connection has the id 99\n");
	assert_string_equal(lab->out, "");
	RUN(lab, "conns", "99", "--json");
	expect(lab, EXIT_FAILED, "[]\n", "no connection has the id 99\n");
	RUN(lab, "conns", "--id", "7", "--route", "mail");
	expect(lab, EXIT_FAILED, "", "no connection has the id 7 and fits the filters\n");
	RUN(lab, "conns", "--route", "mail");
	expect(lab, 0, "no open connections\n", "");
}

/* Of one connection alone: a list has no room for them. */
static void a_connection_shows_its_moves(void **state)
{
	struct lab *lab = *state;

	RUN(lab, "conns", "7");
	expect(lab, 0,
	       "\nmoved from packet to relay 40s ago: half_closed\n"
	       "moved from relay to packet 30s ago: eligible\n"
	       "moved from packet to relay 20s ago: half_closed\n"
	       "moved from relay to packet 10s ago: eligible\n"
	       "these are the last of 5 moves\n",
	       "");
	RUN(lab, "conns", "8");
	assert_null(strstr(lab->out, "move"));
	RUN(lab, "conns");
	assert_null(strstr(lab->out, "move"));
}

/* Whose word it is, and whom the kernel may choose. */
static void explain_tells_who_decides(void **state)
{
	struct lab *lab = *state;
	struct sl_explanation *x = &lab->proxy.explanation;
	const char *usable[] = { "10.0.1.11:443", "10.0.1.12:443" };

	x->engine_reason = SL_WHY_CONFIGURED;
	lab->proxy.conf->global.packet.hook = SL_HOOK_CHOICE_OFF;
	RUN(lab, "explain", "443");
	expect(lab, 0,
	       "relay, configured: the route has 'engine: auto', and global.packet.hook is off\n",
	       "");
	lab->proxy.conf->global.packet.hook = SL_HOOK_CHOICE_AUTO;
	lab->proxy.route[0].engine = SL_CHOICE_RELAY;
	RUN(lab, "explain", "443");
	expect(lab, 0, "relay, configured: the route has 'engine: relay'\n", "");
	lab->proxy.route[0].engine = SL_CHOICE_NFTABLES;
	x->engine = SL_ENGINE_NFTABLES;
	x->target = NULL;
	x->target_why = "the kernel chooses: by turns";
	x->usable = usable;
	x->n_usable = 2;
	RUN(lab, "explain", "443");
	expect(lab, 0, "nftables, configured: the route has 'engine: nftables'\n", "");
	assert_non_null(strstr(
		lab->out, "one of 10.0.1.11:443, 10.0.1.12:443 (the kernel chooses: by turns)\n"));
	assert_null(strstr(lab->out, "in the kernel"));
	x->is_listening = false;
	x->n_usable = 0;
	x->verdict = SL_REASON_BACKEND_DOWN;
	x->target_why = "no target has weight and good health";
	RUN(lab, "explain", "443");
	expect(lab, 0, "port 443 (the rules are not in the kernel: 'sluice engines')\n", "");
	assert_non_null(strstr(lab->out, "none: no target has weight and good health\n"));
	*x = (struct sl_explanation){ .verdict = SL_REASON_NO_ROUTE,
				      .engine = SL_ENGINE_NONE,
				      .hint = "ask with --protocol udp" };
	RUN(lab, "explain", "443");
	expect(lab, 0, "ask with --protocol udp\n", "");
}

static void the_other_views_are_readable(void **state)
{
	struct lab *lab = *state;

	RUN(lab, "routes");
	expect(lab, 0, "443, [::1]:8000-8100", NULL);
	assert_non_null(strstr(lab->out, "limit_ip 1"));
	RUN(lab, "engines");
	expect(lab, 0, "sockmap   no              0      0  off: no enabled route has engine: sock",
	       NULL);
	assert_non_null(strstr(lab->out, "\nthe kernel carries no new connections here: all go by "
					 "relay\n"));
	RUN(lab, "flows");
	expect(lab, 0, "0 flows in the kernel; off: ", NULL);
	RUN(lab, "reasons");
	expect(lab, 0, "connection_timeout", NULL);
	assert_non_null(strstr(lab->out, "needs_tls"));
	RUN(lab, "explain", "443", "a.b", "/x", "--client", "192.0.2.9");
	expect(lab, 0, "shop", NULL);
	assert_non_null(strstr(lab->out, "\n  in this order  packet no (no_privilege), "
					 "relay yes (no_privilege)\n"));
	assert_non_null(strstr(lab->out, "accepted"));
	assert_int_equal(lab->proxy.asked.port, 443);
	assert_string_equal(lab->proxy.asked.name, "a.b");
	RUN(lab, "explain", "443", "", "/x", "--tls", "1.2", "--alpn", "h2", "--address", "::1");
	expect(lab, 0, "port 443 of ::1, path /x, ALPN h2, TLS 1.2", "");
	assert_null(lab->proxy.asked.name);
	assert_int_equal(lab->proxy.asked.tls_versions, SL_TLS_1_2);
	RUN(lab, "explain", "443", "--client", "nobody");
	expect(lab, EXIT_FAILED, "", "not an address");
}

/* ---- acting ---- */

static void kill_says_how_many(void **state)
{
	struct lab *lab = *state;

	RUN(lab, "kill", "7", "8");
	expect(lab, 0, "2 connections closed", NULL);
	RUN(lab, "kill", "7", "99");
	expect(lab, EXIT_FAILED, "1 connection closed", "no connection has the id 99");
	RUN(lab, "kill", "--route", "shop", "--json");
	expect(lab, 0, "{\"killed\":2}", NULL);
	RUN(lab, "kill", "--all");
	expect(lab, 0, "3 connections closed", NULL);
	assert_int_equal(lab->proxy.killed, 8);
	RUN(lab, "kill");
	expect(lab, EXIT_USAGE, "", "kill [ID...] [");
	RUN(lab, "kill", "7", "--all");
	expect(lab, EXIT_USAGE, "", "kill [ID...] [");
	assert_int_equal(lab->proxy.killed, 8);
}

static void reload_prints_diagnostics_as_they_are(void **state)
{
	static const char diagnostics[] = "a.yaml:3:1: error: unknown key 'x'\n    3 | x: 1\n";
	struct lab *lab = *state;

	lab->reply_result = SL_CTL_DONE;
	lab->reply_text = "";
	RUN(lab, "reload");
	expect(lab, 0, "done, generation 3", "");
	lab->reply_result = SL_CTL_FAILED;
	lab->reply_text = diagnostics;
	RUN(lab, "reload");
	expect(lab, EXIT_BAD_CONFIG, "", diagnostics);
	RUN(lab, "reload", "--json");
	expect(lab, EXIT_BAD_CONFIG, "\"reason\":\"config\"", diagnostics);
	lab->reply_text = "no new process could be started";
	RUN(lab, "upgrade");
	expect(lab, EXIT_FAILED, "", "no new process could be started\n");
}

static void certificates_are_listed_shown_and_read_again(void **state)
{
	struct lab *lab = *state;
	json_t *doc;

	RUN(lab, "cert");
	expect(lab, 0, "no certificates: ", "");
	RUN(lab, "status");
	assert_null(strstr(lab->out, "\ncertificates "));
	fake_tls_on(&lab->proxy);
	RUN(lab, "cert", "list");
	expect(lab, 0, "shop   shop.example.com +1 ", "");
	RUN(lab, "cert", "list", "--json");
	doc = out_json(lab);
	assert_int_equal(json_array_size(json_object_get(doc, "certificates")), 4);
	json_decref(doc);
	RUN(lab, "cert", "show", "shop.example.com");
	expect(lab, 0, "\nwho asks for shop.example.com is given\n", "");
	assert_non_null(strstr(lab->out, "/etc/sluice/shop-rsa.pem\n  route "));
	RUN(lab, "cert", "show", "nothing");
	expect(lab, EXIT_FAILED, "", "there is no certificate of 'nothing' ('sluice cert list' ");
	lab->reply_result = SL_CTL_DONE;
	lab->reply_text = "shop: 2 certificates replaced\n";
	RUN(lab, "cert", "reload");
	expect(lab, 0, "shop: 2 certificates replaced\n", "");
	assert_int_equal(lab->asked, SL_CTL_CERT_RELOAD);
	lab->reply_result = SL_CTL_FAILED;
	lab->reply_text = "shop: /etc/sluice/shop.pem: there is no key";
	RUN(lab, "cert", "reload");
	expect(lab, EXIT_FAILED, "",
	       "shop: /etc/sluice/shop.pem: there is no key\n"
	       "sluice: not all certificates were read; what cannot be used leaves the last good "
	       "one in use ('sluice cert list' shows which are in use)\n");
	RUN(lab, "cert", "show");
	expect(lab, EXIT_USAGE, "", "usage: sluice cert [list | show NAME | reload]");
	RUN(lab, "cert", "list", "all");
	expect(lab, EXIT_USAGE, "", "usage: ");
}

static void status_is_degraded_by_certificates(void **state)
{
	struct lab *lab = *state;

	fake_tls_on(&lab->proxy);
	RUN(lab, "status");
	expect(lab, 0, "\ncertificates     4 in use; the next one ends in 43 days: ", "");
	lab->proxy.cert[0].not_after_s = time(NULL) - 3600;
	RUN(lab, "status");
	expect(lab, EXIT_DEGRADED,
	       "\n                 route shop: /etc/sluice/shop.pem has expired\n", "");
	lab->proxy.cert[0].not_after_s = time(NULL) + 3600;
	RUN(lab, "--json", "status");
	expect(lab, 0, "\"expires_soon\":1", "");
	lab->proxy.cert[3].problem = "/etc/sluice/client.pem: has expired";
	RUN(lab, "--json", "status");
	expect(lab, EXIT_DEGRADED, "\"problems\":1", "");
}

static void tls_of_a_connection_is_shown(void **state)
{
	struct lab *lab = *state;

	lab->facts.no_ktls = "the kernel has no TLS";
	RUN(lab, "engines");
	expect(lab, 0,
	       "\nktls: unavailable (the kernel has no TLS): modprobe tls, and 'sluice upgrade'\n",
	       "");
	fake_tls_row(&lab->proxy.row[1]);
	RUN(lab, "conns", "8");
	expect(lab, 0, "\nTLS with the client: TLSv1.3 TLS_AES_128_GCM_SHA256, resumed, ", "");
	fake_tls_on(&lab->proxy);
	RUN(lab, "routes", "show", "shop");
	expect(lab, 0, "\n  TLS ends here  1.2 and later\n", "");
	RUN(lab, "explain", "443", "api.example.com");
	expect(lab, 0,
	       "\nTLS ends here    1.2 and later\n"
	       "  certificate    /etc/sluice/shop.pem (ec-256), by its name\n"
	       "TLS to target    verified by the authorities of the system, ",
	       "");
}

static void filters_of_kill_combine(void **state)
{
	struct lab *lab = *state;

	RUN(lab, "kill", "--client", "192.0.2.0/25", "--route", "shop");
	expect(lab, 0, "1 connection closed", "");
	RUN(lab, "kill", "--target", "10.0.1.12:443");
	expect(lab, 0, "1 connection closed", "");
	RUN(lab, "kill", "--id", "8", "--client", "192.0.2.200");
	expect(lab, 0, "1 connection closed", "");
	RUN(lab, "kill", "8", "--client", "192.0.2.1");
	expect(lab, EXIT_FAILED, "0 connections closed", "id 8 and fits the filters");
	RUN(lab, "kill", "--client", "10.0.0.0/99");
	expect(lab, EXIT_FAILED, "", "no pattern of addresses");
	assert_int_equal(lab->proxy.killed, 3);
	RUN(lab, "conns", "--client", "192.0.2.200", "--json");
	expect(lab, 0, "\"id\":8", "");
	assert_null(strstr(lab->out, "\"id\":7"));
}

/* ---- routes ---- */

static void write_file(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	(void)fputs(text, f);
	assert_int_equal(fclose(f), 0);
}

static void a_route_is_set_from_a_file(void **state)
{
	struct lab *lab = *state;
	char path[96];

	(void)snprintf(path, sizeof(path), "%s/route", lab->dir);
	write_file(path, "match: { ports: 1 }\n");
	lab->reply_result = SL_CTL_CREATED;
	lab->reply_text = "route new added, generation 4 is in force\n";
	RUN(lab, "routes", "set", "new", path, "--keep");
	expect(lab, 0, "route new added, generation 4", "");
	assert_int_equal(lab->asked, SL_CTL_CHANGE);
	assert_int_equal(lab->change.kind, SL_SOURCE_ROUTE);
	assert_true(lab->change.keep);
	assert_string_equal(lab->subject, "new");
	assert_string_equal(lab->text, "match: { ports: 1 }\n");
	lab->reply_result = SL_CTL_REFUSED;
	lab->reply_text = "runtime:new:1:3: error: no\n    1 | match\n      |   ^\n";
	RUN(lab, "routes", "set", "new", path);
	expect(lab, EXIT_BAD_CONFIG, "", lab->reply_text);
	assert_false(lab->change.keep);
	RUN(lab, "--json", "routes", "set", "new", path);
	expect(lab, EXIT_BAD_CONFIG, "\"reason\":\"config\"", lab->reply_text);
	RUN(lab, "routes", "set", "a/b", path);
	expect(lab, EXIT_FAILED, "", "no name of a route");
	assert_int_equal(unlink(path), 0);
	RUN(lab, "routes", "set", "new", path);
	expect(lab, EXIT_FAILED, "", "No such file");
}

static void routes_have_verbs(void **state)
{
	static const struct {
		const char *args[3];
		enum sl_source_kind kind;
		bool keep;
		const char *subject;
	} cases[] = {
		{ { "remove", "a" }, SL_SOURCE_REMOVE, false, "a" },
		{ { "remove", "a", "--keep" }, SL_SOURCE_REMOVE, true, "a" },
		{ { "enable", "a" }, SL_SOURCE_ENABLE, false, "a" },
		{ { "disable", "a", "--keep" }, SL_SOURCE_DISABLE, true, "a" },
		{ { "forget", "a" }, SL_SOURCE_FILE, false, "a" },
		{ { "forget" }, SL_SOURCE_FILE, false, "" },
	};
	struct lab *lab = *state;

	lab->reply_result = SL_CTL_DONE;
	lab->reply_text = "as you wish\n";
	for (size_t i = 0; i < SL_ARRAY_LEN(cases); i++) {
		RUN(lab, "routes", (char *)cases[i].args[0], (char *)cases[i].args[1],
		    (char *)cases[i].args[2]);
		expect(lab, 0, "as you wish\n", "");
		assert_int_equal(lab->change.kind, cases[i].kind);
		assert_int_equal(lab->change.keep, cases[i].keep);
		assert_string_equal(lab->subject, cases[i].subject);
	}
	lab->reply_result = SL_CTL_NOT_FOUND;
	lab->reply_text = "error: there is no route 'a'\n";
	RUN(lab, "routes", "remove", "a");
	expect(lab, EXIT_FAILED, "", "there is no route 'a'\n");
}

static void routes_and_changes_are_shown(void **state)
{
	struct sl_conf_source item = { .kind = SL_SOURCE_DRAIN,
				       .subject = (char *)"",
				       .text = (char *)"10.0.0.1:80",
				       .len = 11,
				       .keep = true };
	const struct sl_conf_sources changes = { .item = &item, .n = 1 };
	struct lab *lab = *state;

	RUN(lab, "routes", "show", "shop");
	expect(lab, 0, "shop.example.com, *.shop.example.com", "");
	assert_non_null(strstr(lab->out, "every 2s, down after 3, up after 2"));
	assert_non_null(strstr(lab->out, "weight 2, checks 40 good 3 failed"));
	assert_non_null(strstr(lab->out, "(connection refused)"));
	assert_null(strstr(lab->out, "mail"));
	RUN(lab, "routes", "show", "nosuch");
	expect(lab, EXIT_FAILED, "", "there is no route 'nosuch'");
	RUN(lab, "routes", "changes");
	expect(lab, 0, "nothing was changed", "");
	lab->facts.changes = &changes;
	RUN(lab, "routes", "changes");
	expect(lab, 0, "drain   (all)  yes   10.0.0.1:80\n", "");
	RUN(lab, "status");
	expect(lab, 0, "runtime changes  1; ", "");
	RUN(lab, "routes", "changes", "--json");
	expect(lab, 0, "\"target\":\"10.0.0.1:80\"", "");
}

static void a_drain_can_be_waited_for(void **state)
{
	struct lab *lab = *state;

	lab->reply_result = SL_CTL_DONE;
	lab->reply_text = "target drained\n";
	RUN(lab, "drain", "10.0.1.11:443", "--route", "shop", "--keep");
	expect(lab, 0, "target drained\n", "");
	assert_int_equal(lab->change.kind, SL_SOURCE_DRAIN);
	assert_true(lab->change.keep && !lab->change.undo);
	assert_string_equal(lab->subject, "shop");
	assert_string_equal(lab->text, "10.0.1.11:443");
	lab->proxy.counts_down = true;
	RUN(lab, "drain", "10.0.1.11:443", "--wait"); /* of both routes */
	expect(lab, 0, "target drained\n4 connections\n2 connections\n0 connections\n", "");
	lab->proxy.active = 1;
	lab->proxy.counts_down = false;
	RUN(lab, "drain", "10.0.1.11:443", "--wait", "--route", "mail", "--timeout", "1ms");
	expect(lab, EXIT_FAILED, "target drained\n1 connection\n", "1 still open");
	RUN(lab, "undrain", "10.0.1.11:443");
	expect(lab, 0, "target drained\n", "");
	assert_true(lab->change.undo);
	RUN(lab, "reload", "--deny-file");
	assert_int_equal(lab->asked, SL_CTL_RELOAD_DENY_FILE);
}

/* ---- arguments ---- */

static void misuse_is_refused_with_code_2(void **state)
{
	static char *const cases[][4] = {
		{ "nosuch" },
		{ "status", "extra" },
		{ "--nosuch", "status" },
		{ "status", "--route", "x" },
		{ "status", "-x" },
		{ "explain" },
		{ "conns", "--limit" },
		{ "conns", "--limit=" },
		{ "status", "-c" },
		{ "reload", "--all" },
		{ "help", "nosuch" },
		{ "forward", "8080" },
		{ "routes", "nosuch" },
		{ "routes", "set" },
		{ "routes", "remove" },
		{ "routes", "list", "--keep" },
		{ "routes", "show" },
		{ "routes", "--keep" },
		{ "drain" },
		{ "drain", "x:1", "--timeout=1s" },
		{ "undrain", "x:1", "--wait" },
		{ "kill", "--all", "--client=x" },
		{ "conns", "7", "--id=8" },
		{ "reload", "--keep" },
	};
	struct lab *lab = *state;

	for (size_t i = 0; i < SL_ARRAY_LEN(cases); i++) {
		RUN(lab, cases[i][0], cases[i][1], cases[i][2]);
		expect(lab, EXIT_USAGE, "", "sluice: ");
	}
	run_args(lab, (char *[]){ (char *)"sluice", NULL });
	expect(lab, EXIT_USAGE, "", "usage: sluice");
	assert_int_equal(lab->proxy.killed, 0);
}

static void verbs_of_later_builds_say_so(void **state)
{
	static const char *const verb[] = { "top" };
	struct lab *lab = *state;

	for (size_t i = 0; i < SL_ARRAY_LEN(verb); i++) {
		RUN(lab, (char *)verb[i], "anything");
		expect(lab, EXIT_FAILED, "", "not supported by this build");
	}
	RUN(lab, "demo");
	expect(lab, EXIT_FAILED, "", "make demo");
	RUN(lab, "bench");
	expect(lab, EXIT_FAILED, "", "make bench");
}

static void help_and_version_need_no_daemon(void **state)
{
	struct lab *lab = *state;

	run_args(lab, (char *[]){ (char *)"sluice", (char *)"-h", NULL });
	expect(lab, 0, "exit codes", "");
	run_args(lab, (char *[]){ (char *)"sluice", (char *)"kill", (char *)"--help", NULL });
	expect(lab, 0, "--route NAME", "");
	run_args(lab, (char *[]){ (char *)"sluice", (char *)"help", (char *)"top", NULL });
	expect(lab, 0, "not supported", "");
	run_args(lab, (char *[]){ (char *)"sluice", (char *)"version", NULL });
	expect(lab, 0, "sluice " SL_VERSION "\n", "");
	run_args(lab, (char *[]){ (char *)"sluice", (char *)"schema", NULL });
	expect(lab, 0, "$schema", "");
}

/* ---- diff ---- */

static void diff_without_a_broker_says_why(void **state)
{
	struct lab *lab = *state;

	RUN(lab, "diff");
	expect(lab, 0, "no state of the kernel to compare: ", "");
	expect(lab, 0, "no difference in the last 10 minutes; totals since start: none\n", "");
	assert_null(strstr(lab->out, "---"));
}

static void diff_reads_as_one(void **state)
{
	struct lab *lab = *state;

	fake_packet_on(&lab->proxy);
	lab->proxy.kernel.drift[SL_DRIFT_PACKET_HALF] = 7;
	lab->proxy.diff =
		"l packet 3 3 flows with their entries, 2 interfaces, pins\n"
		"x nftables off: no route has this engine\n"
		"d packet_half repaired 1 2 800\n"
		"- entry 10.0.0.1:4711 > 10.0.0.2:80 of connection 42, client's direction\n"
		". made again from the other direction\n"
		"d packet_stray waits 1 1 0\n"
		"+ entry 10.0.0.1:4712 > 10.0.0.2:80 of connection 43, client's direction\n"
		". it belongs to no connection\n"
		"d of_a_newer_broker repaired 1 1 0\n"
		"- x\n";
	RUN(lab, "diff");
	expect(lab, 0,
	       "--- records\n"
	       "+++ kernel\n"
	       "@@ packet: flows @@\n"
	       "-entry 10.0.0.1:4711 > 10.0.0.2:80 of connection 42, client's direction\n"
	       "+missing\n"
	       " repaired: made again from the other direction (2 times, last 0.8s ago)\n"
	       "-nothing\n"
	       "+entry 10.0.0.1:4712 > 10.0.0.2:80 of connection 43, client's direction\n"
	       " waits: it belongs to no connection (0.0s ago)\n"
	       "packet: 3 connections in the records, 3 known to the broker; compared: 3 flows "
	       "with their entries, 2 interfaces, pins\n"
	       "nftables: off: no route has this engine\n"
	       "3 differences in the last 10 minutes, 1 to be healed; totals since start: "
	       "packet_half 7\n",
	       "");
}

static void what_is_not_healed_is_exit_code_4(void **state)
{
	struct lab *lab = *state;

	fake_packet_on(&lab->proxy);
	lab->proxy.diff = "d packet_link left 1 1 0\n- link of eth0 (tcx)\n. cannot attach\n"
			  "m 12\n";
	RUN(lab, "diff");
	expect(lab, EXIT_DEGRADED, " left as it is: cannot attach (0.0s ago)\n", "");
	expect(lab, EXIT_DEGRADED,
	       "13 differences in the last 10 minutes (12 of them not listed), 1 not healed", "");
	lab->proxy.diff = "";
	lab->proxy.kernel.n_disagreements = 1;
	lab->proxy.kernel.disagreement[0] = (struct sl_disagreement){ SL_ENGINE_PACKET, 5, 4 };
	RUN(lab, "diff", "--json");
	expect(lab, EXIT_DEGRADED, "\"wanted\":\"5 connections in the records\"", "");
	expect(lab, EXIT_DEGRADED, "\"left\":1", "");
}

/* ---- the socket ---- */

static void the_socket_is_found_through_the_configuration(void **state)
{
	struct lab *lab = *state;

	run_args(lab,
		 (char *[]){ (char *)"sluice", (char *)"-c", lab->config, (char *)"status", NULL });
	expect(lab, 0, "pid 4711", "");
	run_args(lab,
		 (char *[]){ (char *)"sluice", (char *)"status", (char *)"-c", lab->config, NULL });
	expect(lab, 0, "pid 4711", "");
}

/* The text before and after the runtime directory. */
struct around {
	const char *before;
	const char *after;
};

static void run_with(struct lab *lab, const struct around *text, char *verb, char *option)
{
	FILE *f = fopen(lab->config, "w");

	assert_non_null(f);
	(void)fprintf(f, "version: 1\n%s%s%s\n", text->before, lab->dir, text->after);
	assert_int_equal(fclose(f), 0);
	run_args(lab,
		 (char *[]){ (char *)"sluice", (char *)"-c", lab->config, verb, option, NULL });
}

/* Another daemon than the one that is meant must never be asked: it might be told to kill. */
static void a_wrong_file_tells_the_socket_or_is_refused(void **state)
{
	static const struct around telling[] = {
		{ "global: { runtime_dir: ", ", nonsense: 1 }" },
		{ "global: { packet: { hook: off }, runtime_dir: ",
		  " }\ndefaults: { engine: packet }" },
		{ "global: { runtime_dir: ", " }\nroutes: [{" },
	};
	static const struct around silent[] = {
		{ "global: { runtimedir: ", " }" },    { "global: { runtime_dir: .", " }" },
		{ "globol: { runtime_dir: ", " }" },   { "routes: [{ name: ", "" },
		{ "global: { runtime_dir: [", "] }" },
	};
	struct lab *lab = *state;

	for (size_t i = 0; i < SL_ARRAY_LEN(telling); i++) {
		run_with(lab, &telling[i], (char *)"status", NULL);
		expect(lab, 0, "pid 4711", "");
	}
	for (size_t i = 0; i < SL_ARRAY_LEN(silent); i++) {
		run_with(lab, &silent[i], (char *)"kill", (char *)"--all");
		expect(lab, EXIT_BAD_CONFIG, "", "does not tell where the daemon's socket is");
		assert_non_null(strstr(lab->err, ": error: "));
	}
	run_args(lab, (char *[]){ (char *)"sluice", (char *)"-c", (char *)"/nonexistent.yaml",
				  (char *)"status", NULL });
	expect(lab, EXIT_BAD_CONFIG, "", "/nonexistent.yaml: error: there is no such file");
}

static void an_absent_daemon_is_explained(void **state)
{
	struct lab *lab = *state;

	run_args(lab, (char *[]){ (char *)"sluice", (char *)"--socket=/nonexistent/s",
				  (char *)"status", NULL });
	expect(lab, EXIT_UNREACHABLE, "", "/nonexistent/s: No such file or directory");
	assert_non_null(strstr(lab->err, "is sluiced running?"));
	sl_ctl_stop_accepting(lab->ctl);
	RUN(lab, "kill", "--all");
	expect(lab, EXIT_UNREACHABLE, "", "Connection refused");
	assert_int_equal(lab->proxy.killed, 0);
}

/* Something else listens there. */
static void an_answer_that_is_not_http_is_explained(void **state)
{
	static const char *const answers[] = {
		"",
		"hello\r\n\r\n",
		"HTTP/1.1 200 OK\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
		"HTTP/1.1 abc\r\nContent-Length: 0\r\n\r\n",
	};
	struct lab *lab = *state;
	char other[128];

	(void)snprintf(other, sizeof(other), "%s/other.sock", lab->dir);
	for (size_t i = 0; i < SL_ARRAY_LEN(answers); i++) {
		int fd = listen_at(other);
		pid_t pid = fork();
		int status;

		assert_true(pid >= 0);
		if (pid == 0) {
			char request[1024];
			int peer;

			(void)fcntl(fd, F_SETFL, 0);
			peer = accept(fd, NULL, NULL);
			_exit(peer < 0 || read(peer, request, sizeof(request)) <= 0 ||
			      write(peer, answers[i], strlen(answers[i])) < 0);
		}
		(void)close(fd);
		run_args(lab, (char *[]){ (char *)"sluice", (char *)"--socket", other,
					  (char *)"status", NULL });
		expect(lab, EXIT_UNREACHABLE, "", "no proper answer");
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(status, 0);
		assert_int_equal(unlink(other), 0);
	}
}

/* ---- configuration ---- */

static void check_tells_good_from_bad(void **state)
{
	struct lab *lab = *state;
	char line[128];
	json_t *doc;

	(void)snprintf(line, sizeof(line), "%s: ok (1 route, 1 listener)\n", lab->config);
	run_args(lab,
		 (char *[]){ (char *)"sluice", (char *)"check", (char *)"-c", lab->config, NULL });
	expect(lab, 0, line, NULL);
	run_args(lab, (char *[]){ (char *)"sluice", (char *)"check", lab->config, (char *)"--json",
				  NULL });
	expect(lab, 0, NULL, NULL);
	doc = out_json(lab);
	assert_true(json_is_true(json_object_get(doc, "ok")));
	json_decref(doc);

	write_config_with(lab, "packet: { interfaces: [lo, nonsuch] },", GOOD_ROUTES);
	run_args(lab,
		 (char *[]){ (char *)"sluice", (char *)"check", (char *)"-c", lab->config, NULL });
	expect(lab, 0, line,
	       ": warning: global.packet.interfaces: this host has no interface 'nonsuch' (yet)\n");
	assert_null(strstr(lab->err, "'lo'"));
	run_args(lab, (char *[]){ (char *)"sluice", (char *)"check", (char *)"--json", lab->config,
				  NULL });
	expect(lab, 0, "\"warnings\":1,", NULL);

	write_config(lab, "nonsense: 1\n");
	run_args(lab,
		 (char *[]){ (char *)"sluice", (char *)"check", (char *)"-c", lab->config, NULL });
	expect(lab, EXIT_BAD_CONFIG, "", ": error: ");
	run_args(lab, (char *[]){ (char *)"sluice", (char *)"check", (char *)"--json", lab->config,
				  NULL });
	expect(lab, EXIT_BAD_CONFIG, NULL, NULL);
	doc = out_json(lab);
	assert_true(json_is_false(json_object_get(doc, "ok")));
	assert_true(json_integer_value(json_object_get(doc, "errors")) > 0);
	json_decref(doc);
	run_args(lab, (char *[]){ (char *)"sluice", (char *)"check", (char *)"/nonexistent.yaml",
				  NULL });
	expect(lab, EXIT_BAD_CONFIG, "", "/nonexistent.yaml");
}

static void forward_refuses_bad_arguments_itself(void **state)
{
	struct lab *lab = *state;

	RUN(lab, "forward", "80x", "127.0.0.1:80");
	expect(lab, EXIT_BAD_CONFIG, "", ": error: ");
	RUN(lab, "forward", "8080", "127.0.0.1");
	expect(lab, EXIT_BAD_CONFIG, "", ": error: ");
	RUN(lab, "forward", "8080", "127.0.0.1:80\"\n  evil: \"1");
	expect(lab, EXIT_BAD_CONFIG, "", ": error: ");
	RUN(lab, "forward", "8080", "127.0.0.1:80", "--engine", "warp");
	expect(lab, EXIT_BAD_CONFIG, "", ": error: ");
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(status_is_an_overview),
		T(status_tells_a_degraded_daemon_by_exit_code),
		T(status_is_degraded_only_where_the_engine_was_asked_for),
		T(routes_of_sockmap_are_seen_to),
		T(routes_of_nat_are_seen_to),
		T(an_engine_that_is_off_says_what_to_do),
		T(flows_are_a_table),
		T(joined_connections_are_another_table),
		T(flows_can_be_flushed),
		T(flows_are_in_the_order_of_ids),
		T(json_is_what_the_daemon_said),
		T(connections_are_a_table),
		T(a_connection_shows_its_moves),
		T(explain_tells_who_decides),
		T(the_other_views_are_readable),
		T(kill_says_how_many),
		T(reload_prints_diagnostics_as_they_are),
		T(certificates_are_listed_shown_and_read_again),
		T(status_is_degraded_by_certificates),
		T(tls_of_a_connection_is_shown),
		T(filters_of_kill_combine),
		T(a_route_is_set_from_a_file),
		T(routes_have_verbs),
		T(routes_and_changes_are_shown),
		T(a_drain_can_be_waited_for),
		T(misuse_is_refused_with_code_2),
		T(verbs_of_later_builds_say_so),
		T(diff_without_a_broker_says_why),
		T(diff_reads_as_one),
		T(what_is_not_healed_is_exit_code_4),
		T(help_and_version_need_no_daemon),
		T(the_socket_is_found_through_the_configuration),
		T(a_wrong_file_tells_the_socket_or_is_refused),
		T(an_absent_daemon_is_explained),
		T(an_answer_that_is_not_http_is_explained),
		T(check_tells_good_from_bad),
		T(forward_refuses_bad_arguments_itself),
	};

	return cmocka_run_group_tests_name("cli", tests, NULL, NULL);
}
