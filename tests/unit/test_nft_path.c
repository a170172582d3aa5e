/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The ruleset is right only when packets take the way: client - proxy - backend, three network
 * namespaces, with sockets of this process in each.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include "nft/table.h"

#include "nft_routes.h"

enum place {
	CLIENT = 0,
	PROXY,
	BACKEND,
	N_PLACES,
};

static int places[N_PLACES] = { -1, -1, -1 };
static int home = -1;
static char lab[24];
static struct sl_nft_table *table;
static struct test_routes routes;

static int run(const char *fmt, ...) SL_PRINTF(1, 2);
static int run(const char *fmt, ...)
{
	char command[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(command, sizeof(command), fmt, ap);
	va_end(ap);
	return system(command);
}

static void enter(enum place place)
{
	assert_int_equal(setns(places[place], CLONE_NEWNET), 0);
}

static int drop_namespaces(void)
{
	return run("for n in c p b; do ip netns del %s$n; done", lab);
}

static int build_lab(void)
{
	static const char letters[] = "cpb";

	snprintf(lab, sizeof(lab), "slnp%d", (int)getpid());
	home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	for (int i = 0; i < N_PLACES; i++) {
		char path[64];

		if (run("n=%s%c; ip netns add $n && ip -n $n link set dev lo up && ip netns exec "
			"$n "
			"sysctl -qw net.ipv6.conf.default.accept_dad=0 "
			"net.ipv6.conf.all.accept_dad=0",
			lab, letters[i]) != 0)
			return -1;
		snprintf(path, sizeof(path), "/run/netns/%s%c", lab, letters[i]);
		places[i] = open(path, O_RDONLY | O_CLOEXEC);
	}
	if (run("l=%s; set -e; ip -n ${l}p link add name c type veth peer name p netns ${l}c\n"
		"ip -n ${l}p link add name b type veth peer name p netns ${l}b\n"
		"ip -n ${l}p addr add 10.91.0.1/24 dev c; ip -n ${l}p addr add 10.92.0.1/24 dev b\n"
		"ip -n ${l}p addr add fd91::1/64 dev c nodad; ip -n ${l}p addr add fd92::1/64 dev "
		"b nodad\n"
		"for i in 2 3 4 5 6 7 8 9; do ip -n ${l}c addr add 10.91.0.$i/24 dev p; done\n"
		"ip -n ${l}b addr add 10.92.0.2/24 dev p; ip -n ${l}b addr add 10.92.0.3/24 dev p\n"
		"ip -n ${l}c addr add fd91::2/64 dev p nodad; ip -n ${l}b addr add fd92::2/64 dev "
		"p nodad\n"
		"for d in c b; do ip -n ${l}p link set dev $d up; ip -n ${l}$d link set dev p up; "
		"done\n"
		"ip -n ${l}c route add default via 10.91.0.1; ip -n ${l}b route add default via "
		"10.92.0.1\n"
		"ip -n ${l}c -6 route add default via fd91::1; ip -n ${l}b -6 route add default "
		"via fd92::1\n"
		"ip netns exec ${l}p sysctl -qw net.ipv4.ip_forward=1 "
		"net.ipv6.conf.all.forwarding=1"
		" net.ipv4.conf.all.route_localnet=1",
		lab) != 0)
		return -1;
	enter(PROXY);
	return sl_nft_table_open("sluice", &table);
}

static int make_lab(void **state)
{
	(void)state;
	if (geteuid() != 0 || build_lab() == 0)
		return 0;
	(void)drop_namespaces();
	return -1;
}

static int drop_lab(void **state)
{
	(void)state;
	if (geteuid() != 0)
		return 0;
	sl_nft_table_close(table);
	if (setns(home, CLONE_NEWNET) < 0)
		return -1;
	for (int i = 0; i < N_PLACES; i++)
		close(places[i]);
	return drop_namespaces();
}

static int set_up(void **state)
{
	(void)state;
	test_routes_init(&routes, 8);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	test_routes_done(&routes);
	return 0;
}

#define NEEDS_ROOT()                \
	do {                        \
		if (geteuid() != 0) \
			skip();     \
	} while (0)

static void apply(void)
{
	struct sl_nft_ruleset *wanted = test_build(&routes);
	struct sl_nft_report report;

	if (sl_nft_table_apply(table, &wanted, &report) < 0)
		fail_msg("%s", report.text);
}

static struct sl_addr address(const char *ip, uint16_t port)
{
	struct sl_addr a;

	assert_int_equal(sl_addr_parse_ip(ip, &a), 0);
	sl_addr_set_port(&a, port);
	return a;
}

static int bound(enum place place, const char *ip, uint16_t port, int type)
{
	struct sl_addr a = address(ip, port);
	const int on = 1;
	int fd;

	enter(place);
	fd = socket(sl_addr_family(&a), type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	assert_true(fd >= 0);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)), 0);
	assert_int_equal(bind(fd, &a.sa, sl_addr_len(&a)), 0);
	if (type == SOCK_STREAM && port)
		assert_int_equal(listen(fd, 16), 0);
	return fd;
}

static bool is_ready(int fd, short events, int ms)
{
	struct pollfd p = { .fd = fd, .events = events };

	return poll(&p, 1, ms) == 1;
}

static int error_of(int fd)
{
	socklen_t len = sizeof(int);
	int error = 0;

	assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len), 0);
	return error;
}

/* A connection from `own`; the socket, or -errno, -EAGAIN where nothing happens for `ms`. */
static int connection(enum place place, const char *own, const char *ip, uint16_t port, int type,
		      int ms)
{
	struct sl_addr to = address(ip, port);
	int fd = bound(place, own, 0, type), error;

	if (connect(fd, &to.sa, sl_addr_len(&to)) == 0)
		return fd;
	error = errno;
	if (error == EINPROGRESS)
		error = is_ready(fd, POLLOUT, ms) ? error_of(fd) : EAGAIN;
	if (error == 0)
		return fd;
	close(fd);
	return -error;
}

/*
 * One exchange, both ways: client to `ip`, `port`; `server` gets it and sees `source`. The two
 * ends stay open where `ret` wants them.
 */
static void exchange_tcp(enum place place, const char *own, const char *ip, uint16_t port,
			 int server, const char *source, int ret[2])
{
	struct sl_addr from, expected = address(source, 0);
	socklen_t len = sizeof(from);
	int client = connection(place, own, ip, port, SOCK_STREAM, 2000), other;
	char c;

	if (client < 0)
		fail_msg("%s port %u: %s", ip, port, strerror(-client));
	assert_true(is_ready(server, POLLIN, 2000));
	other = accept(server, &from.sa, &len);
	assert_true(other >= 0);
	assert_true(sl_addr_same_ip(&from, &expected));
	assert_int_equal(send(client, "a", 1, 0), 1);
	assert_true(is_ready(other, POLLIN, 2000));
	assert_int_equal(recv(other, &c, 1, 0), 1);
	assert_int_equal(send(other, "b", 1, 0), 1);
	assert_true(is_ready(client, POLLIN, 2000));
	assert_int_equal(recv(client, &c, 1, 0), 1);
	assert_int_equal(c, 'b');
	if (ret) {
		ret[0] = client;
		ret[1] = other;
	} else {
		close(client);
		close(other);
	}
}

static void exchange_udp(enum place place, const char *own, const char *ip, uint16_t port,
			 int server, const char *source)
{
	struct sl_addr from, expected = address(source, 0);
	socklen_t len = sizeof(from);
	int client = connection(place, own, ip, port, SOCK_DGRAM, 0);
	char c;

	assert_true(client >= 0);
	assert_int_equal(send(client, "a", 1, 0), 1);
	assert_true(is_ready(server, POLLIN, 2000));
	assert_int_equal(recvfrom(server, &c, 1, 0, &from.sa, &len), 1);
	assert_true(sl_addr_same_ip(&from, &expected));
	assert_int_equal(sendto(server, "b", 1, 0, &from.sa, len), 1);
	assert_true(is_ready(client, POLLIN, 2000));
	assert_int_equal(recv(client, &c, 1, 0), 1);
	assert_int_equal(c, 'b');
	close(client);
}

static int refused(const char *own, uint16_t port)
{
	int fd = connection(CLIENT, own, "10.91.0.1", port, SOCK_STREAM, 2000);

	if (fd >= 0)
		close(fd);
	return fd;
}

static void one_target(void **state)
{
	struct sl_nft_route *r;
	int tcp4, tcp6, udp4, udp6;

	NEEDS_ROOT();
	(void)state;
	r = test_route(&routes, "a");
	r->protocols = SL_NFT_TCP | SL_NFT_UDP;
	test_listen(r, NULL, 80, 80);
	test_target(r, "10.92.0.2", 8080, 1);
	test_target(r, "fd92::2", 8080, 1);
	apply();
	tcp4 = bound(BACKEND, "10.92.0.2", 8080, SOCK_STREAM);
	tcp6 = bound(BACKEND, "fd92::2", 8080, SOCK_STREAM);
	udp4 = bound(BACKEND, "10.92.0.2", 8080, SOCK_DGRAM);
	udp6 = bound(BACKEND, "fd92::2", 8080, SOCK_DGRAM);
	exchange_tcp(CLIENT, "10.91.0.2", "10.91.0.1", 80, tcp4, "10.91.0.2", NULL);
	exchange_tcp(CLIENT, "fd91::2", "fd91::1", 80, tcp6, "fd91::2", NULL);
	exchange_udp(CLIENT, "10.91.0.2", "10.91.0.1", 80, udp4, "10.91.0.2");
	exchange_udp(CLIENT, "fd91::2", "fd91::1", 80, udp6, "fd91::2");
	/* another local address is listened on, too; what is not local is nobody's */
	exchange_tcp(CLIENT, "10.91.0.2", "10.92.0.1", 80, tcp4, "10.91.0.2", NULL);
	assert_int_equal(connection(CLIENT, "10.91.0.2", "10.92.0.3", 80, SOCK_STREAM, 2000),
			 -ECONNREFUSED);
	assert_int_equal(refused("10.91.0.2", 81), -ECONNREFUSED);
	close(tcp4);
	close(tcp6);
	close(udp4);
	close(udp6);
}

static void clients_on_this_host(void **state)
{
	struct sl_nft_route *r;
	int remote, local, remote6;

	NEEDS_ROOT();
	(void)state;
	r = test_route(&routes, "a");
	test_listen(r, NULL, 80, 80);
	test_target(r, "10.92.0.2", 8080, 1);
	test_target(r, "fd92::2", 8080, 1);
	r = test_route(&routes, "b");
	test_listen(r, NULL, 81, 81);
	test_target(r, "127.0.0.1", 8081, 1);
	apply();
	remote = bound(BACKEND, "10.92.0.2", 8080, SOCK_STREAM);
	remote6 = bound(BACKEND, "fd92::2", 8080, SOCK_STREAM);
	local = bound(PROXY, "127.0.0.1", 8081, SOCK_STREAM);
	exchange_tcp(PROXY, "10.91.0.1", "10.91.0.1", 80, remote, "10.91.0.1", NULL);
	exchange_tcp(PROXY, "127.0.0.1", "127.0.0.1", 80, remote, "10.92.0.1", NULL);
	exchange_tcp(PROXY, "fd91::1", "fd91::1", 80, remote6, "fd91::1", NULL);
	assert_int_equal(connection(PROXY, "::1", "::1", 80, SOCK_STREAM, 2000), -ECONNREFUSED);
	exchange_tcp(CLIENT, "10.91.0.2", "10.91.0.1", 81, local, "10.91.0.2", NULL);
	exchange_tcp(PROXY, "127.0.0.1", "127.0.0.1", 81, local, "127.0.0.1", NULL);
	close(remote);
	close(remote6);
	close(local);
}

static void ranges(void **state)
{
	struct sl_nft_route *r;
	int same, one;

	NEEDS_ROOT();
	(void)state;
	r = test_route(&routes, "same");
	test_listen(r, NULL, 9000, 9099);
	test_target(r, "10.92.0.2", 0, 1);
	r = test_route(&routes, "one");
	test_listen(r, "10.91.0.1", 9200, 9299);
	test_target(r, "10.92.0.2", 7000, 1);
	apply();
	same = bound(BACKEND, "10.92.0.2", 9042, SOCK_STREAM);
	one = bound(BACKEND, "10.92.0.2", 7000, SOCK_STREAM);
	exchange_tcp(CLIENT, "10.91.0.2", "10.91.0.1", 9042, same, "10.91.0.2", NULL);
	exchange_tcp(CLIENT, "10.91.0.2", "10.91.0.1", 9200, one, "10.91.0.2", NULL);
	exchange_tcp(CLIENT, "10.91.0.2", "10.91.0.1", 9299, one, "10.91.0.2", NULL);
	assert_int_equal(refused("10.91.0.2", 9100), -ECONNREFUSED);
	assert_int_equal(refused("10.91.0.2", 9300), -ECONNREFUSED);
	assert_int_equal(connection(CLIENT, "10.91.0.2", "10.92.0.1", 9200, SOCK_STREAM, 2000),
			 -ECONNREFUSED);
	close(same);
	close(one);
}

/* Which of two servers the connection reaches. */
static int reached(const char *own, uint16_t port, const int servers[2])
{
	struct pollfd p[2] = { { .fd = servers[0], .events = POLLIN },
			       { .fd = servers[1], .events = POLLIN } };
	int fd = connection(CLIENT, own, "10.91.0.1", port, SOCK_STREAM, 2000), which;

	assert_true(fd >= 0);
	assert_int_equal(poll(p, 2, 2000), 1);
	which = p[0].revents ? 0 : 1;
	close(accept(servers[which], NULL, NULL));
	close(fd);
	return which;
}

static void several_targets(void **state)
{
	static const enum sl_balance hows[] = { SL_BALANCE_ROUND_ROBIN, SL_BALANCE_RANDOM,
						SL_BALANCE_SOURCE_HASH, SL_BALANCE_MAGLEV };
	int servers[2], n[4][2] = { 0 };

	NEEDS_ROOT();
	(void)state;
	for (uint16_t i = 0; i < 4; i++) {
		static const char *const names[] = { "turn", "random", "hash", "maglev" };
		struct sl_nft_route *r = test_route(&routes, names[i]);

		r->balance = hows[i];
		test_listen(r, NULL, (uint16_t)(100 + i), (uint16_t)(100 + i));
		test_target(r, "10.92.0.2", 8080, 2);
		test_target(r, "10.92.0.3", 8080, 1);
	}
	apply();
	servers[0] = bound(BACKEND, "10.92.0.2", 8080, SOCK_STREAM);
	servers[1] = bound(BACKEND, "10.92.0.3", 8080, SOCK_STREAM);
	for (int i = 0; i < 6; i++)
		n[0][reached("10.91.0.2", 100, servers)]++;
	assert_int_equal(n[0][0], 4);
	assert_int_equal(n[0][1], 2);
	for (int i = 0; i < 40; i++)
		n[1][reached("10.91.0.2", 101, servers)]++;
	assert_in_range(n[1][0], 10, 39); /* 27 expected; less than 10 in 1e8 runs */
	for (uint16_t port = 102; port <= 103; port++) {
		for (int i = 2; i <= 9; i++) {
			char own[16];
			int first;

			snprintf(own, sizeof(own), "10.91.0.%d", i);
			first = reached(own, port, servers);
			assert_int_equal(reached(own, port, servers), first);
			n[port - 100][first]++;
		}
		assert_int_not_equal(n[port - 100][0], 0);
		assert_int_not_equal(n[port - 100][1], 0);
	}
	close(servers[0]);
	close(servers[1]);
}

static void sources(void **state)
{
	struct sl_nft_route *r;
	int server, server6;

	NEEDS_ROOT();
	(void)state;
	r = test_route(&routes, "masqueraded");
	r->masquerade = true;
	test_listen(r, NULL, 80, 80);
	test_target(r, "10.92.0.2", 8080, 1);
	test_target(r, "fd92::2", 8080, 1);
	r = test_route(&routes, "kept");
	test_listen(r, NULL, 81, 81);
	test_target(r, "10.92.0.2", 8080, 1);
	test_target(r, "fd92::2", 8080, 1);
	apply();
	server = bound(BACKEND, "10.92.0.2", 8080, SOCK_STREAM);
	server6 = bound(BACKEND, "fd92::2", 8080, SOCK_STREAM);
	exchange_tcp(CLIENT, "10.91.0.2", "10.91.0.1", 80, server, "10.92.0.1", NULL);
	exchange_tcp(CLIENT, "fd91::2", "fd91::1", 80, server6, "fd92::1", NULL);
	/* a target that is its own client */
	exchange_tcp(BACKEND, "10.92.0.2", "10.92.0.1", 81, server, "10.92.0.1", NULL);
	exchange_tcp(BACKEND, "fd92::2", "fd92::1", 81, server6, "fd92::1", NULL);
	close(server);
	close(server6);
}

static void refusals(void **state)
{
	struct sl_nft_route *r;
	int udp;

	NEEDS_ROOT();
	(void)state;
	r = test_route(&routes, "reset");
	r->protocols = SL_NFT_TCP | SL_NFT_UDP;
	test_listen(r, NULL, 80, 80);
	test_target(r, "10.92.0.2", 8080, 1)->is_down = true;
	r = test_route(&routes, "icmp");
	r->refusal = SL_NFT_REFUSE_ICMP;
	test_listen(r, NULL, 81, 81);
	r = test_route(&routes, "drop");
	r->refusal = SL_NFT_REFUSE_DROP;
	test_listen(r, NULL, 82, 82);
	apply();
	assert_int_equal(refused("10.91.0.2", 80), -ECONNREFUSED);
	assert_int_equal(refused("10.91.0.2", 81), -EHOSTUNREACH);
	assert_int_equal(connection(CLIENT, "10.91.0.2", "10.91.0.1", 82, SOCK_STREAM, 300),
			 -EAGAIN);
	udp = connection(CLIENT, "10.91.0.2", "10.91.0.1", 80, SOCK_DGRAM, 0);
	assert_int_equal(send(udp, "a", 1, 0), 1);
	assert_true(is_ready(udp, POLLERR, 2000));
	assert_int_equal(error_of(udp), ECONNREFUSED);
	close(udp);
}

static void lists_and_limits(void **state)
{
	static struct sl_ip4_range denied = { 0x0a5b0003, 0x0a5b0003 };
	static struct sl_ip4_range allowed = { 0x0a5b0002, 0x0a5b0004 };
	static const struct sl_ip_set deny = { .v4 = &denied, .n4 = 1 };
	static const struct sl_ip_set allow = { .v4 = &allowed, .n4 = 1 };
	struct sl_nft_route *r;
	int server, ends[2][2];

	NEEDS_ROOT();
	(void)state;
	r = test_route(&routes, "lists");
	r->allow = &allow;
	r->deny = &deny;
	test_listen(r, NULL, 80, 80);
	test_target(r, "10.92.0.2", 8080, 1);
	r = test_route(&routes, "count");
	r->max_connections = 2;
	test_listen(r, NULL, 81, 81);
	test_target(r, "10.92.0.2", 8080, 1);
	r = test_route(&routes, "rate");
	r->connections = (struct sl_nft_rate){ 1, 3600, 2 };
	test_listen(r, NULL, 82, 82);
	test_target(r, "10.92.0.2", 8080, 1);
	apply();
	server = bound(BACKEND, "10.92.0.2", 8080, SOCK_STREAM);
	exchange_tcp(CLIENT, "10.91.0.2", "10.91.0.1", 80, server, "10.91.0.2", NULL);
	assert_int_equal(refused("10.91.0.3", 80), -ECONNREFUSED);
	exchange_tcp(CLIENT, "10.91.0.4", "10.91.0.1", 80, server, "10.91.0.4", NULL);
	assert_int_equal(refused("10.91.0.5", 80), -ECONNREFUSED);
	assert_int_equal(connection(CLIENT, "fd91::2", "fd91::1", 80, SOCK_STREAM, 2000),
			 -ECONNREFUSED);
	for (int i = 0; i < 2; i++)
		exchange_tcp(CLIENT, "10.91.0.2", "10.91.0.1", 81, server, "10.91.0.2", ends[i]);
	assert_int_equal(refused("10.91.0.2", 81), -ECONNREFUSED);
	/* the limit goes on counting what there is when other routes change */
	routes.route[0].deny = NULL;
	apply();
	assert_int_equal(refused("10.91.0.2", 81), -ECONNREFUSED);
	exchange_tcp(CLIENT, "10.91.0.3", "10.91.0.1", 80, server, "10.91.0.3", NULL);
	for (int i = 0; i < 2; i++)
		exchange_tcp(CLIENT, "10.91.0.2", "10.91.0.1", 82, server, "10.91.0.2", NULL);
	assert_int_equal(refused("10.91.0.2", 82), -ECONNREFUSED);
	for (int i = 0; i < 2; i++) {
		close(ends[i][0]);
		close(ends[i][1]);
	}
	close(server);
}

/* One that is let in, over UDP; else -errno of the answer. */
static int sent(const char *own, const char *ip, uint16_t port, int server)
{
	int fd = connection(CLIENT, own, ip, port, SOCK_DGRAM, 0), r;
	char c;

	assert_true(fd >= 0);
	assert_int_equal(send(fd, "a", 1, 0), 1);
	/* by the server, or as an error of the socket */
	while (!is_ready(server, POLLIN, 10) && !is_ready(fd, POLLIN, 10))
		;
	r = recv(server, &c, 1, 0) == 1 ? 0 : -error_of(fd);
	close(fd);
	return r;
}

static void each_client_has_a_limit(void **state)
{
	struct sl_nft_route *r;
	int server, server6, ends[2][2], other[2], fd;

	NEEDS_ROOT();
	(void)state;
	r = test_route(&routes, "each");
	r->max_per_client = 2;
	test_listen(r, NULL, 80, 80);
	test_target(r, "10.92.0.2", 8080, 1);
	test_target(r, "fd92::2", 8080, 1);
	apply();
	server = bound(BACKEND, "10.92.0.2", 8080, SOCK_STREAM);
	server6 = bound(BACKEND, "fd92::2", 8080, SOCK_STREAM);
	for (int i = 0; i < 2; i++)
		exchange_tcp(CLIENT, "10.91.0.2", "10.91.0.1", 80, server, "10.91.0.2", ends[i]);
	assert_int_equal(refused("10.91.0.2", 80), -ECONNREFUSED);
	/* others have theirs, in each family */
	exchange_tcp(CLIENT, "10.91.0.3", "10.91.0.1", 80, server, "10.91.0.3", other);
	for (int i = 0; i < 3; i++) {
		fd = connection(CLIENT, "fd91::2", "fd91::1", 80, SOCK_STREAM, 2000);
		assert_int_equal(fd < 0 ? fd : 0, i < 2 ? 0 : -ECONNREFUSED);
	}
	/* what the clients have put in is no difference, and is read by nft as it shows it */
	enter(PROXY);
	assert_int_equal(run("nft list set inet sluice clients4_1_2 | grep -q '10.91.0.3 ct count "
			     "over 2'"),
			 0);
	assert_int_equal(run("nft list set inet sluice clients4_1_2 | sed 's/inet sluice/inet "
			     "again/' | nft -f - && nft delete table inet again"),
			 0);
	apply();
	assert_int_equal(refused("10.91.0.2", 80), -ECONNREFUSED);
	/* who leaves may come again */
	close(ends[0][0]);
	close(ends[0][1]);
	for (int i = 0; (fd = refused("10.91.0.2", 80)) == -ECONNREFUSED && i < 200; i++)
		usleep(20000);
	assert_true(fd >= 0);
	assert_true(is_ready(server, POLLIN, 2000));
	close(accept(server, NULL, NULL));
	/* another limit holds for those who come from now on */
	routes.route[0].max_per_client = 1;
	apply();
	exchange_tcp(CLIENT, "10.91.0.4", "10.91.0.1", 80, server, "10.91.0.4", ends[0]);
	assert_int_equal(refused("10.91.0.4", 80), -ECONNREFUSED);
	for (int i = 0; i < 2; i++) {
		close(ends[i][0]);
		close(ends[i][1]);
	}
	close(other[0]);
	close(other[1]);
	close(server6);
	close(server);
}

static void each_client_has_a_rate(void **state)
{
	struct sl_nft_route *r;
	int server, server6;

	NEEDS_ROOT();
	(void)state;
	r = test_route(&routes, "udp");
	r->protocols = SL_NFT_UDP;
	r->per_client = (struct sl_nft_rate){ 2, 60, 2 };
	test_listen(r, NULL, 80, 80);
	test_target(r, "10.92.0.2", 8080, 1);
	test_target(r, "fd92::2", 8080, 1);
	apply();
	server = bound(BACKEND, "10.92.0.2", 8080, SOCK_DGRAM);
	server6 = bound(BACKEND, "fd92::2", 8080, SOCK_DGRAM);
	for (int i = 0; i < 2; i++)
		assert_int_equal(sent("10.91.0.2", "10.91.0.1", 80, server), 0);
	assert_int_equal(sent("10.91.0.2", "10.91.0.1", 80, server), -ECONNREFUSED);
	assert_int_equal(sent("10.91.0.3", "10.91.0.1", 80, server), 0);
	for (int i = 0; i < 2; i++)
		assert_int_equal(sent("fd91::2", "fd91::1", 80, server6), 0);
	assert_int_equal(sent("fd91::2", "fd91::1", 80, server6), -ECONNREFUSED);
	apply();
	assert_int_equal(sent("10.91.0.2", "10.91.0.1", 80, server), -ECONNREFUSED);
	close(server6);
	close(server);
}

static void packets_have_a_limit(void **state)
{
	struct sl_nft_route *r;
	int server, client, n = 0;
	char c;

	NEEDS_ROOT();
	(void)state;
	r = test_route(&routes, "packets");
	r->protocols = SL_NFT_UDP;
	r->packets = (struct sl_nft_rate){ 1, 3600, 4 };
	test_listen(r, NULL, 80, 80);
	test_target(r, "10.92.0.2", 8080, 1);
	apply();
	server = bound(BACKEND, "10.92.0.2", 8080, SOCK_DGRAM);
	client = connection(CLIENT, "10.91.0.2", "10.91.0.1", 80, SOCK_DGRAM, 0);
	for (int i = 0; i < 20; i++)
		assert_int_equal(send(client, "a", 1, 0), 1);
	while (is_ready(server, POLLIN, 200) && recv(server, &c, 1, 0) == 1)
		n++;
	assert_int_equal(n, 5); /* the first of the flow is not counted */
	close(client);
	close(server);
}

/* Whether conntrack's entry of that client has what the kernel calls OFFLOAD, and so many bytes. */
static bool takes_short_way(uint16_t client_port, uint64_t min_bytes)
{
	enter(PROXY);
	return run("conntrack -L -p tcp --orig-port-src %u 2>/dev/null | grep OFFLOAD | grep -oE "
		   "'bytes=[0-9]+' | awk -F= '{ n += $2 } END { exit n < %llu }'",
		   client_port, (unsigned long long)min_bytes) == 0;
}

static void apply_offload(char (*devices)[SL_NFT_DEVICE], size_t n)
{
	struct sl_nft_ruleset *wanted = test_build(&routes), *again = test_build(&routes);
	struct sl_nft_report report;

	assert_int_equal(sl_nft_put_offload(wanted, routes.route, routes.n, devices, n), 0);
	assert_int_equal(sl_nft_put_offload(again, routes.route, routes.n, devices, n), 0);
	if (sl_nft_table_apply(table, &wanted, &report) < 0)
		fail_msg("%s", report.text);
	assert_false(report.is_replaced);
	/* nothing is missing, read anew, too */
	sl_nft_table_forget(table);
	assert_int_equal(sl_nft_table_apply(table, &again, &report), 0);
	assert_int_equal(report.n_added + report.n_removed, 0);
}

static bool has_flow_tables(void)
{
	_cleanup_(sl_str_done) struct sl_str why = { 0 };
	int r = sl_nft_table_try_offload(table, &why);

	enter(PROXY);
	assert_int_equal(run("nft list tables | grep -q trial"), 256);
	assert_int_equal(r, r == 0 ? 0 : -EOPNOTSUPP);
	assert_true(r == 0 || why.len > 0);
	return r == 0;
}

/* What the two ends of `ends` send one another, beginning with the client. */
static void converse(const int ends[2], int n)
{
	char block[1000] = { 0 };

	for (int i = 0; i < n; i++) {
		for (int side = 0; side <= 1; side++) {
			assert_int_equal(send(ends[side], block, sizeof(block), 0), sizeof(block));
			for (size_t got = 0; got < sizeof(block);) {
				ssize_t r;

				assert_true(is_ready(ends[!side], POLLIN, 2000));
				r = recv(ends[!side], block, sizeof(block), 0);
				assert_true(r > 0);
				got += (size_t)r;
			}
		}
	}
}

static bool is_carried(int from, int to);

/* A kernel without flow tables refuses the whole batch: nothing of it is there, all else serves. */
static void is_refused_as_a_whole(char (*devices)[SL_NFT_DEVICE], size_t n)
{
	struct sl_nft_ruleset *wanted = test_build(&routes), *before = test_build(&routes);
	struct sl_nft_report report;
	int server, ends[2];

	assert_int_equal(sl_nft_put_offload(wanted, routes.route, routes.n, devices, n), 0);
	assert_true(sl_nft_table_apply(table, &wanted, &report) < 0);
	assert_true(report.is_offload);
	assert_true(strlen(report.text) > 0);
	sl_nft_ruleset_free(wanted);
	sl_nft_table_forget(table);
	assert_int_equal(sl_nft_table_apply(table, &before, &report), 0);
	assert_int_equal(report.n_added + report.n_removed, 0);
	server = bound(BACKEND, "10.92.0.2", 8080, SOCK_STREAM);
	exchange_tcp(CLIENT, "10.91.0.2", "10.91.0.1", 80, server, "10.91.0.2", ends);
	converse(ends, 10);
	close(ends[0]);
	close(ends[1]);
	close(server);
}

static void the_short_way(void **state)
{
	char devices[3][SL_NFT_DEVICE] = { "c", "b", "later" };
	struct sl_nft_route *r;
	struct sl_addr own;
	socklen_t len = sizeof(own);
	int server, ends[2], other[2];
	bool has_short_way;
	uint16_t port;

	NEEDS_ROOT();
	(void)state;
	has_short_way = has_flow_tables();
	enter(PROXY);
	assert_int_equal(run("sysctl -qw net.netfilter.nf_conntrack_acct=1"), 0);
	r = test_route(&routes, "short");
	test_listen(r, NULL, 80, 80);
	test_target(r, "10.92.0.2", 8080, 1);
	apply();
	if (!has_short_way) {
		is_refused_as_a_whole(devices, 2);
		return;
	}
	apply_offload(devices, 2);
	server = bound(BACKEND, "10.92.0.2", 8080, SOCK_STREAM);
	exchange_tcp(CLIENT, "10.91.0.2", "10.91.0.1", 80, server, "10.91.0.2", ends);
	assert_int_equal(getsockname(ends[0], &own.sa, &len), 0);
	port = sl_addr_port(&own);
	converse(ends, 300);
	/* all of it is in conntrack's counts, and read back by nft */
	for (int i = 0; !takes_short_way(port, 600000) && i < 200; i++)
		usleep(20000);
	assert_true(takes_short_way(port, 600000));
	assert_int_equal(run("nft list table inet sluice | grep -q 'flow add @ft'"), 0);
	/* other interfaces: nobody notices */
	assert_int_equal(run("ip link add later type dummy"), 0);
	apply_offload(devices, 3);
	assert_int_equal(run("nft list flowtables | grep -q 'devices = { b, c, later }'"), 0);
	converse(ends, 10);
	apply_offload(devices + 1, 2);
	assert_int_equal(run("nft list flowtables | grep -q 'devices = { b, later }'"), 0);
	converse(ends, 10);
	assert_int_equal(run("ip link del dev later"), 0);
	sl_nft_table_forget(table);
	apply_offload(devices, 2);
	converse(ends, 300);
	/* one that is cut is cut at its next packet */
	exchange_tcp(CLIENT, "10.91.0.2", "10.91.0.1", 80, server, "10.91.0.2", other);
	enter(PROXY);
	assert_int_equal(run("conntrack -D -p tcp --orig-port-src %u >/dev/null 2>&1", port), 0);
	(void)send(ends[0], "x", 1, MSG_NOSIGNAL);
	assert_true(is_ready(ends[0], POLLIN, 2000));
	assert_int_equal(error_of(ends[0]), ECONNRESET);
	assert_true(is_carried(other[0], other[1]));
	/* and without it the others go on */
	apply();
	assert_int_equal(run("nft list flowtables | grep -q ft"), 256);
	assert_true(is_carried(other[0], other[1]));
	for (int i = 0; i < 2; i++) {
		close(ends[i]);
		close(other[i]);
	}
	close(server);
}

/* True when the other end gets it. */
static bool is_carried(int from, int to)
{
	char c;

	return send(from, "x", 1, MSG_NOSIGNAL) == 1 && is_ready(to, POLLIN, 2000) &&
	       recv(to, &c, 1, 0) == 1;
}

static void drained_flows_go_on_killed_ones_do_not(void **state)
{
	struct sl_nft_route *r;
	int server, ends[2], spared[2];

	NEEDS_ROOT();
	(void)state;
	r = test_route(&routes, "a");
	test_listen(r, NULL, 80, 80);
	test_target(r, "10.92.0.2", 8080, 1);
	r = test_route(&routes, "b");
	test_listen(r, NULL, 81, 81);
	test_target(r, "10.92.0.2", 8080, 1);
	apply();
	server = bound(BACKEND, "10.92.0.2", 8080, SOCK_STREAM);
	exchange_tcp(CLIENT, "10.91.0.2", "10.91.0.1", 80, server, "10.91.0.2", ends);
	exchange_tcp(CLIENT, "10.91.0.2", "10.91.0.1", 81, server, "10.91.0.2", spared);
	routes.route[0].state = SL_NFT_DRAINING;
	apply();
	assert_int_equal(refused("10.91.0.2", 80), -ECONNREFUSED);
	assert_true(is_carried(ends[0], ends[1]));
	assert_true(is_carried(ends[1], ends[0]));
	routes.route[0].state = SL_NFT_KILLED;
	apply();
	assert_false(is_carried(ends[0], ends[1]));
	assert_true(is_ready(ends[0], POLLIN, 2000));
	assert_int_equal(error_of(ends[0]), ECONNRESET);
	assert_true(is_carried(spared[0], spared[1]));
	routes.route[0].state = SL_NFT_ON;
	apply();
	exchange_tcp(CLIENT, "10.91.0.2", "10.91.0.1", 80, server, "10.91.0.2", NULL);
	for (int i = 0; i < 2; i++) {
		close(ends[i]);
		close(spared[i]);
	}
	close(server);
}

/* Without its entry a flow is nobody's: the client hears at once, instead of waiting. */
static void segments_of_lost_flows_are_answered(void **state)
{
	struct sl_nft_route *r;
	int server, ends[2];

	NEEDS_ROOT();
	(void)state;
	if (run("command -v conntrack > /dev/null") != 0)
		skip();
	r = test_route(&routes, "a");
	test_listen(r, NULL, 80, 80);
	test_target(r, "10.92.0.2", 8080, 1);
	apply();
	server = bound(BACKEND, "10.92.0.2", 8080, SOCK_STREAM);
	exchange_tcp(CLIENT, "10.91.0.2", "10.91.0.1", 80, server, "10.91.0.2", ends);
	assert_int_equal(run("ip netns exec %sp conntrack -F > /dev/null 2>&1", lab), 0);
	assert_int_equal(send(ends[0], "x", 1, MSG_NOSIGNAL), 1);
	assert_true(is_ready(ends[0], POLLIN, 2000));
	assert_int_equal(error_of(ends[0]), ECONNRESET);
	close(ends[0]);
	close(ends[1]);
	close(server);
}

/*
 * The table begins conntrack, to which everything that is there already is new: what this host's
 * own sockets carry on the port goes on, and new connections take the other way.
 */
static void connections_of_sockets_go_on(void **state)
{
	struct sl_nft_route *r;
	int own, server, ends[2];

	NEEDS_ROOT();
	(void)state;
	own = bound(PROXY, "0.0.0.0", 80, SOCK_STREAM);
	server = bound(BACKEND, "10.92.0.2", 8080, SOCK_STREAM);
	exchange_tcp(CLIENT, "10.91.0.2", "10.91.0.1", 80, own, "10.91.0.2", ends);
	r = test_route(&routes, "a");
	test_listen(r, NULL, 80, 80);
	test_target(r, "10.92.0.2", 8080, 1);
	apply();
	for (int i = 0; i < 3; i++) {
		assert_true(is_carried(ends[0], ends[1]));
		assert_true(is_carried(ends[1], ends[0]));
	}
	exchange_tcp(CLIENT, "10.91.0.2", "10.91.0.1", 80, server, "10.91.0.2", NULL);
	close(ends[0]);
	close(ends[1]);
	close(own);
	close(server);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(connections_of_sockets_go_on), /* first: without conntrack so far */
		TEST(one_target),
		TEST(clients_on_this_host),
		TEST(ranges),
		TEST(several_targets),
		TEST(sources),
		TEST(refusals),
		TEST(lists_and_limits),
		TEST(each_client_has_a_limit),
		TEST(each_client_has_a_rate),
		TEST(packets_have_a_limit),
		TEST(the_short_way),
		TEST(drained_flows_go_on_killed_ones_do_not),
		TEST(segments_of_lost_flows_are_answered),
	};

	return cmocka_run_group_tests(tests, make_lab, drop_lab);
}
