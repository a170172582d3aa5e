/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "io/dns.h"

#include <ares.h>
#include <errno.h>
#include <string.h>
#include <strings.h>

#include "base/list.h"
#include "base/str.h"
#include "core/hosts.h"
#include "core/resolv_conf.h"

#define MIN_TTL_MS 1000
#define MAX_TTL_MS (24 * 3600 * 1000)
#define MIN_RETRY_MS 1000
#define MAX_RETRY_MS 30000
#define MAX_DEADLINE_MS 30000
#define MAX_GATHERED 64 /* sorted before the first SL_DNS_MAX_ADDRS are kept */

/*
 * One channel for the whole life: making one reads /dev/urandom (c-ares 1.18),
 * which a sandboxed process cannot do later, and without it query ids would be
 * guessable. New files therefore only change its servers; the search list and
 * the deadline are applied here.
 */
struct sl_dns {
	struct sl_loop *loop;
	ares_channel channel;
	struct sl_timer timer; /* of the channel */
	struct sl_list socks;
	struct sl_list names;
	struct sl_resolv_conf conf;
	char *hosts;
	size_t hosts_len;
	struct sl_dns_stats stats;
};

/* A socket of the channel. */
struct sock {
	struct sl_list node;
	struct sl_io io;
	struct sl_task release;
	struct sl_dns *dns;
};

/* Outlives the name when that is not interested any more: c-ares answers in any case. */
struct question {
	struct sl_dns_name *name; /* NULL: nobody waits */
};

struct sl_dns_name {
	struct sl_list node;
	struct sl_dns *dns;
	sl_dns_fn fn;
	void *arg;
	struct sl_timer timer; /* asking: the deadline; otherwise: when to ask again */
	struct sl_task report; /* keeps the callback out of c-ares */
	struct question *question;
	size_t candidate; /* of the search list */
	uint64_t retry_ms;
	const char *err;       /* static; NULL while the last question was answered */
	const char *first_err; /* of the running question: other than "no such name" */
	bool has_good;
	size_t n;
	struct sl_addr addrs[SL_DNS_MAX_ADDRS]; /* the last good answer, sorted */
	char host[SL_RESOLV_NAME];
};

static void on_name_timer(struct sl_timer *timer);

static void on_channel_timer(struct sl_timer *timer);

static void arm_channel(struct sl_dns *dns)
{
	struct timeval tv;

	if (ares_timeout(dns->channel, NULL, &tv))
		sl_timer_start(dns->loop, &dns->timer,
			       sl_loop_now_us(dns->loop) / 1000 + (uint64_t)tv.tv_sec * 1000 +
				       (uint64_t)tv.tv_usec / 1000 + 1,
			       on_channel_timer);
	else
		sl_timer_stop(&dns->timer);
}

static void on_channel_timer(struct sl_timer *timer)
{
	struct sl_dns *dns = SL_CONTAINER_OF(timer, struct sl_dns, timer);

	ares_process_fd(dns->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
	arm_channel(dns);
}

static void on_sock(struct sl_io *io, uint32_t events)
{
	struct sl_dns *dns = SL_CONTAINER_OF(io, struct sock, io)->dns;
	bool has_failed = events & (SL_IO_ERR | SL_IO_HUP);
	int fd = io->fd;

	ares_process_fd(dns->channel, has_failed || (events & SL_IO_IN) ? fd : ARES_SOCKET_BAD,
			has_failed || (events & SL_IO_OUT) ? fd : ARES_SOCKET_BAD);
	arm_channel(dns);
}

static void free_sock(struct sl_task *task)
{
	free(SL_CONTAINER_OF(task, struct sock, release));
}

static struct sock *find_sock(const struct sl_dns *dns, int fd)
{
	struct sl_list *pos;

	sl_list_for_each (pos, &dns->socks) {
		struct sock *s = SL_CONTAINER_OF(pos, struct sock, node);

		if (s->io.fd == fd)
			return s;
	}
	return NULL;
}

/* c-ares says what it waits for; nothing means that it is about to close the socket. */
static void on_sock_state(void *arg, ares_socket_t fd, int readable, int writable)
{
	struct sl_dns *dns = arg;
	struct sock *s = find_sock(dns, fd);
	uint32_t events = (readable ? SL_IO_IN : 0u) | (writable ? SL_IO_OUT : 0u);

	if (s && events) {
		(void)sl_io_change(&s->io, events);
	} else if (s) {
		sl_io_stop(&s->io);
		sl_list_remove(&s->node);
		sl_loop_defer(dns->loop, &s->release, free_sock);
	} else if (events) {
		s = calloc(1, sizeof(*s));
		/* Without a watch the question ends at its deadline. */
		if (!s || sl_io_start(dns->loop, &s->io, fd, events, on_sock) < 0) {
			free(s);
			return;
		}
		s->dns = dns;
		sl_list_add(&dns->socks, &s->node);
	}
}

static void on_report(struct sl_task *task)
{
	struct sl_dns_name *name = SL_CONTAINER_OF(task, struct sl_dns_name, report);
	struct sl_addr addrs[SL_DNS_MAX_ADDRS];

	/* A copy, because the receiver may unwatch the name. */
	memcpy(addrs, name->addrs, sizeof(addrs));
	if (name->err)
		name->fn(name->arg, NULL, 0, name->err);
	else
		name->fn(name->arg, addrs, name->n, NULL);
}

static void fail(struct sl_dns_name *name, const char *err)
{
	struct sl_dns *dns = name->dns;

	name->retry_ms = name->retry_ms ? name->retry_ms * 2 : MIN_RETRY_MS;
	if (name->retry_ms > MAX_RETRY_MS)
		name->retry_ms = MAX_RETRY_MS;
	name->err = err;
	dns->stats.failures++;
	sl_timer_start(dns->loop, &name->timer, sl_loop_now_ms(dns->loop) + name->retry_ms,
		       on_name_timer);
	sl_loop_defer(dns->loop, &name->report, on_report);
}

static int compare(const void *left, const void *right)
{
	const struct sl_addr *a = left;
	const struct sl_addr *b = right;
	uint8_t x[16];
	uint8_t y[16];
	size_t n;

	if (sl_addr_family(a) != sl_addr_family(b))
		return sl_addr_family(a) == AF_INET ? -1 : 1;
	n = sl_addr_ip_bytes(a, x);
	(void)sl_addr_ip_bytes(b, y);
	return memcmp(x, y, n);
}

/* Sorted, so that servers which rotate their answers do not look like news. */
static size_t sort_unique(struct sl_addr *addrs, size_t n)
{
	size_t kept = 0;

	qsort(addrs, n, sizeof(addrs[0]), compare);
	for (size_t i = 0; i < n; i++)
		if (kept == 0 || !sl_addr_same_ip(&addrs[kept - 1], &addrs[i]))
			addrs[kept++] = addrs[i];
	return kept < SL_DNS_MAX_ADDRS ? kept : SL_DNS_MAX_ADDRS;
}

static bool is_same(const struct sl_dns_name *name, const struct sl_addr *addrs, size_t n)
{
	if (name->n != n)
		return false;
	for (size_t i = 0; i < n; i++)
		if (!sl_addr_same_ip(&name->addrs[i], &addrs[i]))
			return false;
	return true;
}

/* `ttl_ms` 0: does not expire. */
static void accept_answer(struct sl_dns_name *name, struct sl_addr *addrs, size_t n,
			  uint64_t ttl_ms)
{
	struct sl_loop *loop = name->dns->loop;
	bool is_news;

	n = sort_unique(addrs, n);
	is_news = !name->has_good || name->err || !is_same(name, addrs, n);
	name->has_good = true;
	name->err = NULL;
	name->retry_ms = 0;
	name->n = n;
	memcpy(name->addrs, addrs, n * sizeof(addrs[0]));
	if (ttl_ms)
		sl_timer_start(loop, &name->timer, sl_loop_now_ms(loop) + ttl_ms, on_name_timer);
	else
		sl_timer_stop(&name->timer);
	if (is_news)
		sl_loop_defer(loop, &name->report, on_report);
}

/* The addresses of an answer and the time it may be kept: the smallest TTL on the way. */
static size_t read_answer(const struct ares_addrinfo *answer, struct sl_addr *addrs, size_t max,
			  uint64_t *ret_ttl_ms)
{
	int64_t ttl_ms = MAX_TTL_MS;
	size_t n = 0;

	for (const struct ares_addrinfo_cname *c = answer->cnames; c; c = c->next)
		if ((int64_t)c->ttl * 1000 < ttl_ms)
			ttl_ms = (int64_t)c->ttl * 1000;
	for (const struct ares_addrinfo_node *a = answer->nodes; a; a = a->ai_next) {
		if (a->ai_family != AF_INET && a->ai_family != AF_INET6)
			continue;
		if ((int64_t)a->ai_ttl * 1000 < ttl_ms)
			ttl_ms = (int64_t)a->ai_ttl * 1000;
		if (n < max) {
			sl_addr_set(&addrs[n], a->ai_addr);
			sl_addr_set_port(&addrs[n], 0);
			n++;
		}
	}
	*ret_ttl_ms = (uint64_t)(ttl_ms < MIN_TTL_MS ? MIN_TTL_MS : ttl_ms);
	return n;
}

/* Nobody waits for the running question any more. */
static void detach(struct sl_dns_name *name)
{
	if (name->question)
		name->question->name = NULL;
	name->question = NULL;
}

static size_t count_dots(const char *text)
{
	size_t n = 0;

	for (; *text; text++)
		n += *text == '.';
	return n;
}

/*
 * The names to ask for, as resolv.conf(5) has it: with enough dots the name as
 * it is and then the search list, otherwise the other way round. Written with a
 * final dot, so that c-ares does not search too. False when there is none left.
 */
static bool write_candidate(const struct sl_dns_name *name, size_t i, struct sl_str *text)
{
	const struct sl_resolv_conf *conf = &name->dns->conf;
	size_t len = strlen(name->host);
	size_t as_is;

	if (name->host[len - 1] == '.') {
		sl_str_adds(text, name->host);
		return i == 0;
	}
	as_is = count_dots(name->host) >= conf->ndots ? 0 : conf->n_domains;
	if (i > conf->n_domains)
		return false;
	sl_str_addf(text, "%s.", name->host);
	if (i != as_is)
		sl_str_addf(text, "%s.", conf->domain[i < as_is ? i : i - 1]);
	return true;
}

static void on_answer(void *arg, int status, int timeouts, struct ares_addrinfo *answer);

static void ask_candidate(struct sl_dns_name *name)
{
	static const struct ares_addrinfo_hints hints = { .ai_flags = ARES_AI_NOSORT,
							  .ai_family = AF_UNSPEC,
							  .ai_socktype = SOCK_STREAM };
	_cleanup_(sl_str_done) struct sl_str text = { 0 };
	struct sl_dns *dns = name->dns;
	struct question *q;

	if (!write_candidate(name, name->candidate, &text)) {
		fail(name, name->first_err ? name->first_err : ares_strerror(ARES_ENOTFOUND));
		return;
	}
	q = text.oom ? NULL : calloc(1, sizeof(*q));
	if (!q) {
		fail(name, ares_strerror(ARES_ENOMEM));
		return;
	}
	q->name = name;
	name->question = q;
	dns->stats.queries++;
	ares_getaddrinfo(dns->channel, sl_str_text(&text), NULL, &hints, on_answer, q);
	arm_channel(dns);
}

/* May be called from within ares_getaddrinfo(). */
static void on_answer(void *arg, int status, int timeouts, struct ares_addrinfo *answer)
{
	struct question *q = arg;
	struct sl_dns_name *name = q->name;
	struct sl_addr addrs[MAX_GATHERED];
	uint64_t ttl_ms;
	size_t n = 0;

	(void)timeouts;
	free(q);
	if (name) {
		name->question = NULL;
		if (status == ARES_SUCCESS)
			n = read_answer(answer, addrs, MAX_GATHERED, &ttl_ms);
		if (n > 0) {
			accept_answer(name, addrs, n, ttl_ms);
		} else {
			if (status != ARES_SUCCESS && status != ARES_ENOTFOUND &&
			    status != ARES_ENODATA && !name->first_err)
				name->first_err = ares_strerror(status);
			name->candidate++;
			ask_candidate(name);
		}
	}
	if (answer)
		ares_freeaddrinfo(answer);
}

/* What needs no server. */
static size_t find_local(const struct sl_dns_name *name, struct sl_addr *addrs, size_t max)
{
	size_t n;

	if (sl_addr_parse_ip(name->host, &addrs[0]) == 0)
		return 1;
	n = sl_hosts_find(name->dns->hosts, name->dns->hosts_len, name->host, addrs, max);
	if (n == 0 && (strcasecmp(name->host, "localhost") == 0 ||
		       strcasecmp(name->host, "localhost.") == 0)) {
		addrs[0] = (struct sl_addr){ .v4 = { .sin_family = AF_INET } };
		addrs[0].v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		addrs[1] = (struct sl_addr){ .v6 = { .sin6_family = AF_INET6,
						     .sin6_addr = in6addr_loopback } };
		n = 2;
	}
	return n;
}

/* Time enough for every server to be tried as often as the file says, within reason. */
static uint64_t deadline_ms(const struct sl_resolv_conf *conf)
{
	uint64_t ms = (uint64_t)conf->timeout_s * 1000 * conf->attempts *
		      (conf->n_servers ? conf->n_servers : 1);

	return ms < MAX_DEADLINE_MS ? ms : MAX_DEADLINE_MS;
}

static void ask(struct sl_dns_name *name)
{
	struct sl_addr addrs[MAX_GATHERED];
	struct sl_loop *loop = name->dns->loop;
	size_t n = find_local(name, addrs, MAX_GATHERED);

	if (n > 0) {
		accept_answer(name, addrs, n, 0);
		return;
	}
	name->candidate = 0;
	name->first_err = NULL;
	sl_timer_start(loop, &name->timer, sl_loop_now_ms(loop) + deadline_ms(&name->dns->conf),
		       on_name_timer);
	ask_candidate(name);
}

static void on_name_timer(struct sl_timer *timer)
{
	struct sl_dns_name *name = SL_CONTAINER_OF(timer, struct sl_dns_name, timer);

	if (name->question) {
		detach(name);
		fail(name, ares_strerror(ARES_ETIMEOUT));
	} else {
		ask(name);
	}
}

static int set_servers(struct sl_dns *dns, const struct sl_resolv_conf *conf)
{
	_cleanup_(sl_str_done) struct sl_str csv = { 0 };
	char ip[SL_ADDR_TEXT];

	for (size_t i = 0; i < conf->n_servers; i++) {
		bool is_v6 = sl_addr_family(&conf->server[i]) == AF_INET6;

		sl_str_addf(&csv, is_v6 ? "%s[%s]:53" : "%s%s:53", i ? "," : "",
			    sl_addr_format_ip(&conf->server[i], ip));
	}
	if (conf->n_servers == 0)
		sl_str_adds(&csv, "127.0.0.1:53");
	if (csv.oom || ares_set_servers_csv(dns->channel, csv.p) != ARES_SUCCESS)
		return -ENOMEM;
	return 0;
}

/* Every option that c-ares would otherwise look for in a file is given. */
static int open_channel(struct sl_dns *dns, const struct sl_resolv_conf *conf)
{
	char lookups[] = "b"; /* DNS only: the hosts file is ours */
	struct in_addr server = { .s_addr = htonl(INADDR_LOOPBACK) };
	struct ares_options options = {
		.flags = ARES_FLAG_NOALIASES | ARES_FLAG_NOSEARCH,
		.timeout = (int)conf->timeout_s * 1000,
		.tries = (int)conf->attempts,
		.ndots = 0,
		.servers = &server,
		.nservers = 1,
		.lookups = lookups,
		.sock_state_cb = on_sock_state,
		.sock_state_cb_data = dns,
	};
	int mask = ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_NDOTS |
		   ARES_OPT_SERVERS | ARES_OPT_DOMAINS | ARES_OPT_LOOKUPS | ARES_OPT_SORTLIST |
		   ARES_OPT_NOROTATE | ARES_OPT_SOCK_STATE_CB;

#ifdef ARES_OPT_QUERY_CACHE
	mask |= ARES_OPT_QUERY_CACHE; /* with a maximal TTL of 0: off */
#endif
	if (ares_init_options(&dns->channel, &options, mask) != ARES_SUCCESS) {
		dns->channel = NULL;
		return -ENOMEM;
	}
	return 0;
}

static int load_files(struct sl_dns *dns, const struct sl_dns_files *files)
{
	_cleanup_free_ char *hosts = NULL;
	struct sl_resolv_conf conf;
	size_t len = files->hosts ? files->hosts_len : 0;
	int r = 0;

	hosts = malloc(len + 1);
	if (!hosts)
		return -ENOMEM;
	if (len)
		memcpy(hosts, files->hosts, len);
	sl_resolv_conf_parse(files->resolv_conf ? files->resolv_conf : "",
			     files->resolv_conf ? files->resolv_conf_len : 0, &conf);
	if (!dns->channel)
		r = open_channel(dns, &conf);
	if (r == 0)
		r = set_servers(dns, &conf);
	if (r < 0)
		return r;
	free(dns->hosts);
	dns->hosts = SL_TAKE_PTR(hosts);
	dns->hosts_len = len;
	dns->conf = conf;
	return 0;
}

int sl_dns_new(struct sl_loop *loop, const struct sl_dns_files *files, struct sl_dns **ret)
{
	struct sl_dns *dns = calloc(1, sizeof(*dns));
	int r;

	if (!dns)
		return -ENOMEM;
	dns->loop = loop;
	sl_list_init(&dns->socks);
	sl_list_init(&dns->names);
	r = load_files(dns, files);
	if (r < 0) {
		sl_dns_free(dns);
		return r;
	}
	*ret = dns;
	return 0;
}

void sl_dns_free(struct sl_dns *dns)
{
	if (!dns)
		return;
	while (!sl_list_is_empty(&dns->names))
		sl_dns_unwatch(SL_CONTAINER_OF(dns->names.next, struct sl_dns_name, node));
	if (dns->channel)
		ares_destroy(dns->channel);
	sl_timer_stop(&dns->timer);
	free(dns->hosts);
	free(dns);
}

int sl_dns_set_files(struct sl_dns *dns, const struct sl_dns_files *files)
{
	struct sl_list *pos;
	int r;

	/* c-ares refuses new servers while it waits for the old. */
	sl_list_for_each (pos, &dns->names)
		detach(SL_CONTAINER_OF(pos, struct sl_dns_name, node));
	ares_cancel(dns->channel);
	r = load_files(dns, files);
	sl_list_for_each (pos, &dns->names) {
		struct sl_dns_name *name = SL_CONTAINER_OF(pos, struct sl_dns_name, node);

		name->retry_ms = 0;
		sl_timer_start(dns->loop, &name->timer, 0, on_name_timer);
	}
	arm_channel(dns);
	return r;
}

int sl_dns_watch(struct sl_dns *dns, const char *host, sl_dns_fn fn, void *arg,
		 struct sl_dns_name **ret)
{
	struct sl_dns_name *name;
	size_t len = strlen(host);

	if (len == 0 || len >= sizeof(name->host))
		return -EINVAL;
	name = calloc(1, sizeof(*name));
	if (!name)
		return -ENOMEM;
	memcpy(name->host, host, len + 1);
	name->dns = dns;
	name->fn = fn;
	name->arg = arg;
	sl_list_add(&dns->names, &name->node);
	sl_timer_start(dns->loop, &name->timer, 0, on_name_timer);
	*ret = name;
	return 0;
}

void sl_dns_unwatch(struct sl_dns_name *name)
{
	if (!name)
		return;
	detach(name);
	sl_timer_stop(&name->timer);
	sl_task_cancel(&name->report);
	sl_list_remove(&name->node);
	free(name);
}

struct sl_dns_stats sl_dns_stats(const struct sl_dns *dns)
{
	return dns->stats;
}
