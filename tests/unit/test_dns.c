/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <errno.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <seccomp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "base/clock.h"
#include "io/dns.h"

/*
 * The names are answered by a thread of this program on 127.0.0.1:53 of a
 * network namespace of its own.
 */
#define MAX_RECORDS 8
#define TYPE_A 1
#define TYPE_CNAME 5
#define TYPE_AAAA 28

struct record {
	const char *name;
	int rcode;
	bool is_silent;
	const char *alias; /* answered as CNAME with `alias_ttl` first */
	uint32_t alias_ttl;
	uint32_t ttl;
	const char *addrs[20];
};

struct server {
	pthread_t thread;
	int fd;
	int stop[2];
	pthread_mutex_t lock; /* guards the rest */
	struct record record[MAX_RECORDS];
	size_t n;
	unsigned asked; /* questions of type A */
	bool rotate;
};

static bool has_namespace;

static bool make_namespace(void)
{
	struct ifreq lo = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
	_cleanup_fd_ int fd = -1;

	if (unshare(CLONE_NEWNET) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0)
		return false;
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	return fd >= 0 && ioctl(fd, SIOCSIFFLAGS, &lo) == 0;
}

static void put(uint8_t **p, const void *bytes, size_t n)
{
	memcpy(*p, bytes, n);
	*p += n;
}

static void put16(uint8_t **p, unsigned v)
{
	put(p, (uint8_t[]){ (uint8_t)(v >> 8), (uint8_t)v }, 2);
}

static void put_name(uint8_t **p, const char *name)
{
	while (*name) {
		size_t n = strcspn(name, ".");

		put(p, &(uint8_t){ (uint8_t)n }, 1);
		put(p, name, n);
		name += n + (name[n] == '.');
	}
	put(p, "", 1);
}

static void put_record(uint8_t **p, const char *name, unsigned type, uint32_t ttl)
{
	put_name(p, name);
	put16(p, type);
	put16(p, 1);
	put16(p, ttl >> 16);
	put16(p, ttl & 0xffff);
}

static unsigned put_addrs(uint8_t **p, const struct record *r, unsigned type, unsigned first)
{
	unsigned total = 0;
	unsigned n = 0;

	while (total < 20 && r->addrs[total])
		total++;
	for (unsigned i = 0; i < total; i++) {
		uint8_t ip[16];
		struct sl_addr a;
		size_t len;

		if (sl_addr_parse_ip(r->addrs[(i + first) % total], &a) < 0)
			abort();
		len = sl_addr_ip_bytes(&a, ip);
		if (len != (type == TYPE_A ? 4 : 16))
			continue;
		put_record(p, r->alias ? r->alias : r->name, type, r->ttl);
		put16(p, (unsigned)len);
		put(p, ip, len);
		n++;
	}
	return n;
}

static const struct record *find(const struct server *s, const char *name)
{
	static const struct record missing = { .rcode = 3 };

	for (size_t i = 0; i < s->n; i++)
		if (strcasecmp(s->record[i].name, name) == 0)
			return &s->record[i];
	return &missing;
}

/* Length of the answer to the `n` bytes in `buf`, written over them; 0: none. */
static size_t answer(struct server *s, uint8_t *buf, size_t n)
{
	const struct record *r;
	unsigned n_answers = 0;
	char name[256] = "";
	uint8_t *p = buf + 12;
	unsigned type;

	while (p < buf + n && *p) {
		if (name[0])
			strcat(name, ".");
		strncat(name, (const char *)p + 1, *p);
		p += 1 + *p;
	}
	type = (unsigned)(p[1] << 8 | p[2]);
	p += 5;
	r = find(s, name);
	if (type == TYPE_A)
		s->asked++;
	if (r->is_silent)
		return 0;
	if (r->rcode == 0 && r->alias) {
		uint8_t *len;

		put_record(&p, r->name, TYPE_CNAME, r->alias_ttl);
		len = p;
		p += 2;
		put_name(&p, r->alias);
		put16(&len, (unsigned)(p - len - 2));
		n_answers++;
	}
	if (r->rcode == 0)
		n_answers += put_addrs(&p, r, type, s->rotate ? s->asked : 0);
	buf[2] = 0x81;
	buf[3] = (uint8_t)(0x80 | r->rcode);
	buf[6] = 0;
	buf[7] = (uint8_t)n_answers;
	memset(buf + 8, 0, 4);
	return (size_t)(p - buf);
}

static void *serve(void *arg)
{
	struct server *s = arg;
	struct pollfd fds[2] = { { .fd = s->fd, .events = POLLIN },
				 { .fd = s->stop[0], .events = POLLIN } };

	while (poll(fds, 2, -1) > 0 && !fds[1].revents) {
		uint8_t buf[4096] = { 0 };
		struct sockaddr_in from;
		socklen_t len = sizeof(from);
		ssize_t n = recvfrom(s->fd, buf, 512, 0, (struct sockaddr *)&from, &len);

		if (n < 17)
			continue;
		(void)pthread_mutex_lock(&s->lock);
		n = (ssize_t)answer(s, buf, (size_t)n);
		(void)pthread_mutex_unlock(&s->lock);
		if (n > 0)
			(void)sendto(s->fd, buf, (size_t)n, 0, (struct sockaddr *)&from, len);
	}
	return NULL;
}

struct fixture {
	struct sl_loop *loop;
	struct sl_dns *dns;
	struct server server;
	struct sl_dns_files files;
};

static void use_files(struct fixture *f, const char *resolv_conf, const char *hosts)
{
	f->files = (struct sl_dns_files){ .resolv_conf = resolv_conf,
					  .resolv_conf_len = strlen(resolv_conf),
					  .hosts = hosts,
					  .hosts_len = hosts ? strlen(hosts) : 0 };
}

static int set_up(void **state)
{
	struct sockaddr_in at = { .sin_family = AF_INET,
				  .sin_port = htons(53),
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct fixture *f = calloc(1, sizeof(*f));

	*state = f;
	assert_int_equal(sl_loop_new(&f->loop), 0);
	use_files(f, "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n", NULL);
	assert_int_equal(sl_dns_new(f->loop, &f->files, &f->dns), 0);
	f->server.fd = -1;
	if (!has_namespace)
		return 0;
	assert_int_equal(pthread_mutex_init(&f->server.lock, NULL), 0);
	assert_int_equal(pipe(f->server.stop), 0);
	f->server.fd = socket(AF_INET, SOCK_DGRAM, 0);
	assert_int_equal(bind(f->server.fd, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(pthread_create(&f->server.thread, NULL, serve, &f->server), 0);
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	if (f->server.fd >= 0) {
		assert_int_equal(write(f->server.stop[1], "", 1), 1);
		assert_int_equal(pthread_join(f->server.thread, NULL), 0);
		(void)close(f->server.fd);
		(void)close(f->server.stop[0]);
		(void)close(f->server.stop[1]);
	}
	sl_dns_free(f->dns);
	sl_loop_free(f->loop);
	free(f);
	return 0;
}

static void need_namespace(void)
{
	if (!has_namespace) {
		print_message("no right to make a network namespace\n");
		skip();
	}
}

static void teach(struct fixture *f, struct record r)
{
	struct server *s = &f->server;
	size_t i = 0;

	(void)pthread_mutex_lock(&s->lock);
	while (i < s->n && strcmp(s->record[i].name, r.name) != 0)
		i++;
	assert_true(i < MAX_RECORDS);
	s->record[i] = r;
	if (i == s->n)
		s->n++;
	(void)pthread_mutex_unlock(&s->lock);
}

static unsigned asked(struct fixture *f)
{
	unsigned n;

	(void)pthread_mutex_lock(&f->server.lock);
	n = f->server.asked;
	(void)pthread_mutex_unlock(&f->server.lock);
	return n;
}

struct seen {
	unsigned calls;
	unsigned failures;
	char text[1024]; /* the last set */
	char err[128];
	struct sl_dns_name *unwatch;
};

static void on_names(void *arg, const struct sl_addr *addrs, size_t n, const char *err)
{
	struct seen *s = arg;
	char ip[SL_ADDR_TEXT];

	s->calls++;
	assert_true((n == 0) == (err != NULL));
	s->text[0] = '\0';
	for (size_t i = 0; i < n; i++) {
		assert_int_equal(sl_addr_port(&addrs[i]), 0);
		strcat(s->text, i ? " " : "");
		strcat(s->text, sl_addr_format_ip(&addrs[i], ip));
	}
	if (err) {
		s->failures++;
		(void)snprintf(s->err, sizeof(s->err), "%s", err);
	}
	sl_dns_unwatch(s->unwatch);
	s->unwatch = NULL;
}

#define PATIENCE_MS 10000

/* Turns the loop until `condition` holds; what takes longer than the patience is a failure. */
#define run_until(f, condition)                                                            \
	do {                                                                               \
		uint64_t until_ms_ = sl_clock_ms() + PATIENCE_MS;                          \
		while (!(condition)) {                                                     \
			if (sl_clock_ms() > until_ms_)                                     \
				fail_msg("not within %d ms: %s", PATIENCE_MS, #condition); \
			assert_int_equal(sl_loop_turn((f)->loop, 100), 0);                 \
		}                                                                          \
	} while (0)

static struct sl_dns_name *watch(struct fixture *f, const char *host, struct seen *seen)
{
	struct sl_dns_name *name = NULL;

	assert_int_equal(sl_dns_watch(f->dns, host, on_names, seen, &name), 0);
	return name;
}

static void both_families_sorted(void **state)
{
	struct fixture *f = *state;
	struct seen seen = { 0 };

	need_namespace();
	teach(f, (struct record){ .name = "both.test",
				  .ttl = 60,
				  .addrs = { "2001:db8::1", "192.0.2.9", "192.0.2.1" } });
	(void)watch(f, "both.test", &seen);
	assert_int_equal(seen.calls, 0); /* never from within sl_dns_watch() */
	run_until(f, seen.calls);
	assert_string_equal(seen.text, "192.0.2.1 192.0.2.9 2001:db8::1");
	assert_int_equal(sl_dns_stats(f->dns).queries, 1);
	assert_int_equal(sl_dns_stats(f->dns).failures, 0);
}

static void at_most_sixteen(void **state)
{
	struct fixture *f = *state;
	struct seen seen = { 0 };

	need_namespace();
	teach(f, (struct record){ .name = "many.test",
				  .ttl = 60,
				  .addrs = { "192.0.2.19", "192.0.2.18", "192.0.2.17", "192.0.2.16",
					     "192.0.2.15", "192.0.2.14", "192.0.2.13", "192.0.2.12",
					     "192.0.2.11", "192.0.2.10", "192.0.2.31", "192.0.2.32",
					     "192.0.2.33", "192.0.2.34", "192.0.2.35", "192.0.2.36",
					     "192.0.2.37", "192.0.2.38" } });
	(void)watch(f, "many.test", &seen);
	run_until(f, seen.calls);
	assert_null(strstr(seen.text, "192.0.2.37"));
	assert_non_null(strstr(seen.text, "192.0.2.36"));
}

static void smallest_ttl_decides(void **state)
{
	struct fixture *f = *state;
	struct record r = { .name = "alias.test",
			    .alias = "real.test",
			    .alias_ttl = 1,
			    .ttl = 300,
			    .addrs = { "192.0.2.1" } };
	struct seen seen = { 0 };
	uint64_t start_ms = sl_clock_ms();

	need_namespace();
	teach(f, r);
	(void)watch(f, "alias.test", &seen);
	run_until(f, seen.calls == 1);
	r.addrs[0] = "192.0.2.2";
	teach(f, r);
	run_until(f, seen.calls == 2);
	assert_string_equal(seen.text, "192.0.2.2");
	assert_true(sl_clock_ms() - start_ms >= 1000);
}

static void zero_ttl_is_one_second_and_rotation_is_no_news(void **state)
{
	struct fixture *f = *state;
	struct seen seen = { 0 };
	uint64_t start_ms;

	need_namespace();
	f->server.rotate = true;
	teach(f, (struct record){ .name = "rot.test",
				  .addrs = { "192.0.2.1", "192.0.2.2", "192.0.2.3" } });
	(void)watch(f, "rot.test", &seen);
	run_until(f, seen.calls);
	start_ms = sl_clock_ms();
	run_until(f, asked(f) == 3);
	assert_true(sl_clock_ms() - start_ms >= 1990);
	assert_int_equal(seen.calls, 1);
}

static void last_good_is_left_alone_by_failures(void **state)
{
	static const struct {
		const char *name;
		int rcode;
	} rows[] = { { "servfail.test", 2 }, { "nxdomain.test", 3 }, { "refused.test", 5 } };
	struct seen seen[SL_ARRAY_LEN(rows)] = { 0 };
	struct fixture *f = *state;

	need_namespace();
	for (unsigned step = 0; step < 3; step++) {
		for (size_t i = 0; i < SL_ARRAY_LEN(rows); i++)
			teach(f, (struct record){ .name = rows[i].name,
						  .rcode = step == 1 ? rows[i].rcode : 0,
						  .ttl = 1,
						  .addrs = { "192.0.2.1" } });
		for (size_t i = 0; i < SL_ARRAY_LEN(rows); i++) {
			if (step == 0)
				(void)watch(f, rows[i].name, &seen[i]);
			run_until(f, seen[i].calls > step);
			assert_int_equal(seen[i].failures, step > 0);
			/* Afterwards it is the same set, but the receiver must know. */
			assert_string_equal(seen[i].text, step == 1 ? "" : "192.0.2.1");
			assert_int_equal(seen[i].err[0] != 0, step > 0);
		}
	}
	assert_int_equal(sl_dns_stats(f->dns).failures, SL_ARRAY_LEN(rows));
}

static void silence_ends_at_the_deadline_and_backs_off(void **state)
{
	struct fixture *f = *state;
	struct seen seen = { 0 };
	uint64_t start_ms = sl_clock_ms();
	uint64_t first_ms;

	need_namespace();
	teach(f, (struct record){ .name = "mute.test", .is_silent = true });
	(void)watch(f, "mute.test", &seen);
	run_until(f, seen.failures == 1);
	first_ms = sl_clock_ms() - start_ms;
	assert_true(first_ms >= 900 && first_ms < 2500);
	assert_non_null(strstr(seen.err, "imeout"));
	run_until(f, seen.failures == 2); /* after 1 s of pause and 1 s of question */
	assert_true(sl_clock_ms() - start_ms >= 2900);
}

static void hosts_come_first(void **state)
{
	struct fixture *f = *state;
	struct seen seen = { 0 };
	struct seen local = { 0 };
	struct seen number = { 0 };

	(void)watch(f, "box", &seen);
	(void)watch(f, "LocalHost", &local);
	(void)watch(f, "192.0.2.77", &number);
	use_files(f, "nameserver 127.0.0.1\n", "192.0.2.5 box\n192.0.2.4 BOX # two\n");
	assert_int_equal(sl_dns_set_files(f->dns, &f->files), 0);
	run_until(f, seen.calls && local.calls && number.calls);
	assert_string_equal(seen.text, "192.0.2.4 192.0.2.5");
	assert_string_equal(local.text, "127.0.0.1 ::1");
	assert_string_equal(number.text, "192.0.2.77");
	use_files(f, "nameserver 127.0.0.1\n", "192.0.2.6 box\n127.0.0.9 localhost\n");
	assert_int_equal(sl_dns_set_files(f->dns, &f->files), 0);
	run_until(f, seen.calls == 2 && local.calls == 2);
	assert_string_equal(seen.text, "192.0.2.6");
	assert_string_equal(local.text, "127.0.0.9");
	assert_int_equal(number.calls, 1);
	assert_int_equal(sl_dns_stats(f->dns).queries, 0);
}

static void search_list(void **state)
{
	static const struct {
		const char *options;
		const char *host;
		const char *want; /* "-": not found */
		unsigned asked;
		const char *why;
	} rows[] = {
		{ "options ndots:1", "short", "192.0.2.2", 2, "search first, second domain" },
		{ "options ndots:1", "full.b.test", "192.0.2.3", 1, "enough dots: as it is first" },
		{ "options ndots:1", "deep.er", "192.0.2.4", 2, "then the search list" },
		{ "options ndots:3", "top.test", "192.0.2.5", 3, "few dots: as it is last" },
		{ "options ndots:1", "short.", "-", 1, "a final dot: no search" },
		{ "options ndots:1", "nowhere", "-", 3, "nothing anywhere" },
	};
	struct fixture *f = *state;

	need_namespace();
	teach(f, (struct record){ .name = "short.b.test", .ttl = 9, .addrs = { "192.0.2.2" } });
	teach(f, (struct record){ .name = "full.b.test", .ttl = 9, .addrs = { "192.0.2.3" } });
	teach(f, (struct record){ .name = "deep.er.a.test", .ttl = 9, .addrs = { "192.0.2.4" } });
	teach(f, (struct record){ .name = "top.test", .ttl = 9, .addrs = { "192.0.2.5" } });
	for (size_t i = 0; i < SL_ARRAY_LEN(rows); i++) {
		struct seen seen = { 0 };
		struct sl_dns_name *name;
		char conf[128];
		unsigned before = asked(f);

		print_message("%s\n", rows[i].why);
		(void)snprintf(conf, sizeof(conf), "search a.test b.test\n%s\n", rows[i].options);
		use_files(f, conf, NULL);
		assert_int_equal(sl_dns_set_files(f->dns, &f->files), 0);
		name = watch(f, rows[i].host, &seen);
		run_until(f, seen.calls);
		assert_string_equal(seen.failures ? "-" : seen.text, rows[i].want);
		assert_int_equal(asked(f) - before, rows[i].asked);
		sl_dns_unwatch(name);
	}
}

static void unwatch_at_any_time(void **state)
{
	struct fixture *f = *state;
	struct seen own = { 0 };
	struct seen flying = { 0 };
	struct seen pending = { 0 };
	struct sl_dns_name *name;

	need_namespace();
	teach(f, (struct record){ .name = "good.test", .ttl = 1, .addrs = { "192.0.2.1" } });
	teach(f, (struct record){ .name = "mute.test", .is_silent = true });
	own.unwatch = watch(f, "good.test", &own);
	name = watch(f, "mute.test", &flying);
	run_until(f, own.calls && asked(f) >= 2);
	sl_dns_unwatch(name);
	sl_dns_unwatch(NULL);
	name = watch(f, "good.test", &pending);
	sl_dns_unwatch(name);
	(void)watch(f, "mute.test", &flying); /* left to sl_dns_free() with its question */
	run_until(f, asked(f) >= 3);
	assert_int_equal(own.calls, 1);
	assert_int_equal(flying.calls, 0);
	assert_int_equal(pending.calls, 0);
}

static void new_files_replace_a_silent_server(void **state)
{
	struct fixture *f = *state;
	struct seen seen = { 0 };

	need_namespace();
	use_files(f, "nameserver 192.0.2.53\noptions timeout:30 attempts:5\n", NULL);
	assert_int_equal(sl_dns_set_files(f->dns, &f->files), 0);
	teach(f, (struct record){ .name = "moved.test", .ttl = 9, .addrs = { "192.0.2.1" } });
	(void)watch(f, "moved.test", &seen);
	run_until(f, sl_dns_stats(f->dns).queries == 1);
	use_files(f, "nameserver 127.0.0.1\nnameserver ::1\n", NULL);
	assert_int_equal(sl_dns_set_files(f->dns, &f->files), 0);
	run_until(f, *seen.text);
	assert_string_equal(seen.text, "192.0.2.1");
}

static void bad_names_are_refused(void **state)
{
	struct fixture *f = *state;
	struct sl_dns_name *name = NULL;
	char host[256];

	memset(host, 'a', sizeof(host));
	host[254] = '\0';
	assert_int_equal(sl_dns_watch(f->dns, "", on_names, NULL, &name), -EINVAL);
	assert_int_equal(sl_dns_watch(f->dns, host, on_names, NULL, &name), -EINVAL);
	assert_null(name);
}

/* What the sandbox allows: no file, and sockets of the Internet only. */
static bool forbid_files(void)
{
	static const struct scmp_arg_cmp families[] = {
		{ .arg = 0, .op = SCMP_CMP_EQ, .datum_a = AF_UNIX },
		{ .arg = 0, .op = SCMP_CMP_EQ, .datum_a = AF_NETLINK },
	};
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
	bool ok = filter != NULL;

	ok = ok && seccomp_rule_add(filter, SCMP_ACT_KILL_PROCESS, SCMP_SYS(openat), 0) == 0;
	ok = ok && seccomp_rule_add(filter, SCMP_ACT_KILL_PROCESS, SCMP_SYS(open), 0) == 0;
	for (size_t i = 0; i < SL_ARRAY_LEN(families); i++)
		ok = ok && seccomp_rule_add_array(filter, SCMP_ACT_KILL_PROCESS, SCMP_SYS(socket),
						  1, &families[i]) == 0;
	ok = ok && seccomp_load(filter) == 0;
	seccomp_release(filter);
	return ok;
}

static void resolve_in_a_sandbox(struct fixture *f)
{
	struct seen good = { 0 };
	struct seen bad = { 0 };

	if (!forbid_files())
		_exit(2);
	(void)watch(f, "both.test", &good);
	(void)watch(f, "missing.test", &bad);
	run_until(f, good.calls && bad.calls);
	good.calls = 0;
	if (sl_dns_set_files(f->dns, &f->files) < 0)
		_exit(3);
	(void)watch(f, "both.test", &good);
	run_until(f, good.calls);
	sl_dns_free(f->dns);
	_exit(strcmp(good.text, "192.0.2.1") == 0 && bad.failures > 0 ? 0 : 1);
}

static void no_file_is_opened_after_the_start(void **state)
{
	struct fixture *f = *state;
	int status;
	pid_t pid;

	need_namespace();
	teach(f, (struct record){ .name = "both.test", .ttl = 60, .addrs = { "192.0.2.1" } });
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		resolve_in_a_sandbox(f);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(both_families_sorted),
		TEST(at_most_sixteen),
		TEST(smallest_ttl_decides),
		TEST(zero_ttl_is_one_second_and_rotation_is_no_news),
		TEST(last_good_is_left_alone_by_failures),
		TEST(silence_ends_at_the_deadline_and_backs_off),
		TEST(hosts_come_first),
		TEST(search_list),
		TEST(unwatch_at_any_time),
		TEST(new_files_replace_a_silent_server),
		TEST(bad_names_are_refused),
		TEST(no_file_is_opened_after_the_start),
	};

	has_namespace = make_namespace();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
