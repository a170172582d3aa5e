/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "nft/trouble.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>

#include "nft/attr.h"
#include "nft/ct_sysctl.h"
#include "nft/others.h"
#include "nft/socket.h"
#include "nft/walk.h"

#define NAT_PRIORITY (-105) /* of our chains that translate */
#define TRIES 5
/* That connection tracking is full is said from here on, until there is some room again. */
#define FULL_PERCENT 90
#define ROOM_PERCENT 80

struct sl_nft_trouble {
	struct sl_nft_socket nft;
	struct mnl_socket *routes;
	uint32_t seq;
	bool is_full;
};

/* A flow that is tried, and where its target is. */
struct probe {
	const struct sl_nft_trouble_flow *flow;
	struct sl_nft_packet packet;
	enum {
		ELSEWHERE = 0,
		ON_THIS_HOST,
		NOWHERE, /* there is no route to it */
	} place;
};

struct report {
	struct sl_str *lines;
	struct probe probes[SL_NFT_TROUBLE_FLOWS];
	size_t n;
};

/* What is said of one base chain: about which flow, and how many more. */
struct finding {
	const struct probe *first;
	const struct sl_nft_others_chain *chain;
	size_t n;
	bool is_sure;
};

enum kind {
	DROPS = 0,
	MARKS,
	COPIES,
	ASKS,
	N_KINDS,
};

int sl_nft_trouble_open(struct sl_nft_trouble **ret)
{
	const struct timeval wait = { .tv_sec = 1 };
	_cleanup_(sl_nft_trouble_closep) struct sl_nft_trouble *t = calloc(1, sizeof(*t));
	int r;

	if (!t)
		return -ENOMEM;
	r = sl_nft_socket_open(&t->nft);
	if (r < 0)
		return r;
	t->routes = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
	if (!t->routes || mnl_socket_bind(t->routes, 0, MNL_SOCKET_AUTOPID) < 0 ||
	    setsockopt(mnl_socket_get_fd(t->routes), SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)) <
		    0)
		return -errno;
	*ret = SL_TAKE_PTR(t);
	return 0;
}

void sl_nft_trouble_close(struct sl_nft_trouble *t)
{
	if (!t)
		return;
	sl_nft_socket_done(&t->nft);
	if (t->routes)
		(void)mnl_socket_close(t->routes);
	free(t);
}

int sl_nft_trouble_generation(struct sl_nft_trouble *t, uint32_t *ret)
{
	return sl_nft_socket_generation(&t->nft, ret);
}

/* ---- where targets are ---- */

/* The type of the route to an address (RTN_*), or -errno, as -ENETUNREACH. */
static int route_type(struct sl_nft_trouble *t, const struct sl_addr *addr)
{
	_Alignas(4) uint8_t buf[8192];
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	struct rtmsg *rt;
	uint8_t ip[16];
	size_t len = sl_addr_ip_bytes(addr, ip);

	nlh->nlmsg_type = RTM_GETROUTE;
	nlh->nlmsg_flags = NLM_F_REQUEST;
	nlh->nlmsg_seq = ++t->seq;
	rt = mnl_nlmsg_put_extra_header(nlh, sizeof(*rt));
	rt->rtm_family = (uint8_t)sl_addr_family(addr);
	rt->rtm_dst_len = (uint8_t)(len * 8);
	mnl_attr_put(nlh, RTA_DST, len, ip);
	if (mnl_socket_sendto(t->routes, nlh, nlh->nlmsg_len) < 0)
		return -errno;
	for (;;) {
		ssize_t n = mnl_socket_recvfrom(t->routes, buf, sizeof(buf));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n < (ssize_t)sizeof(*nlh) || nlh->nlmsg_seq != t->seq)
			continue;
		if (nlh->nlmsg_type == NLMSG_ERROR)
			return ((const struct nlmsgerr *)mnl_nlmsg_get_payload(nlh))->error;
		return ((const struct rtmsg *)mnl_nlmsg_get_payload(nlh))->rtm_type;
	}
}

static void set_probe(struct sl_nft_trouble *t, const struct sl_nft_trouble_flow *flow,
		      struct probe *ret)
{
	int type = route_type(t, &flow->target);

	*ret = (struct probe){ .flow = flow };
	ret->packet = (struct sl_nft_packet){
		.family = sl_addr_family(&flow->target) == AF_INET ? NFPROTO_IPV4 : NFPROTO_IPV6,
		.protocol = flow->protocol,
		.mark = flow->mark,
		.port = sl_addr_port(&flow->target),
	};
	(void)sl_addr_ip_bytes(&flow->target, ret->packet.target);
	if (type == RTN_LOCAL)
		ret->place = ON_THIS_HOST;
	else if (type == -ENETUNREACH || type == -EHOSTUNREACH || type == RTN_UNREACHABLE ||
		 type == RTN_BLACKHOLE || type == RTN_PROHIBIT)
		ret->place = NOWHERE;
}

/* ---- words ---- */

static const char *family_name(uint8_t family)
{
	return family == NFPROTO_IPV4 ? "ip" : family == NFPROTO_IPV6 ? "ip6" : "inet";
}

/* Made by iptables-nft, whose users would not write nft's rules into its tables. */
static bool is_iptables(const struct sl_nft_others_table *t)
{
	static const char *const tables[] = { "filter", "mangle", "nat", "raw", "security" };
	static const char *const chains[] = { "INPUT", "FORWARD", "OUTPUT", "PREROUTING",
					      "POSTROUTING" };

	if (t->family == NFPROTO_INET)
		return false;
	for (size_t i = 0; i < SL_ARRAY_LEN(tables); i++) {
		if (strcmp(t->name, tables[i]) != 0)
			continue;
		for (size_t k = 0; k < SL_ARRAY_LEN(chains); k++)
			if (sl_nft_others_find_chain(t, chains[k]))
				return true;
	}
	return false;
}

/* The command that puts a rule for translated flows before all others of a chain. */
static void put_rule(struct sl_str *s, const struct sl_nft_others_table *t, const char *chain,
		     const char *verdict, const char *target)
{
	if (is_iptables(t)) {
		sl_str_addf(s, "%s ", t->family == NFPROTO_IPV4 ? "iptables" : "ip6tables");
		if (strcmp(t->name, "filter") != 0)
			sl_str_addf(s, "-t %s ", t->name);
		sl_str_addf(s, "-I %s -m conntrack --ctstate DNAT -j %s", chain, target);
	} else {
		sl_str_addf(s, "nft insert rule %s %s %s ct status dnat %s", family_name(t->family),
			    t->name, chain, verdict);
	}
}

static void put_flow(struct sl_str *s, const struct finding *f)
{
	char addr[SL_ADDR_TEXT];

	sl_str_addf(s, "route '%s' to %s", f->first->flow->route,
		    sl_addr_port(&f->first->flow->target)
			    ? sl_addr_format(&f->first->flow->target, addr)
			    : sl_addr_format_ip(&f->first->flow->target, addr));
	if (f->n > 1)
		sl_str_addf(s, " and %zu more", f->n - 1);
}

static void say_drops(struct sl_str *s, const struct sl_nft_others_table *t,
		      const struct sl_nft_others_chain *base, const struct finding *f)
{
	const char *chain = base->name;
	bool is_policy = f->chain->is_base && f->chain->drops;

	sl_str_addf(s, "table %s %s, chain %s: ", family_name(t->family), t->name, f->chain->name);
	if (is_policy)
		sl_str_adds(s, f->is_sure ? "what it does not accept is dropped, drops flows of "
					  : "what it does not accept is dropped, unless another of "
					    "its rules accepts them it drops flows of ");
	else
		sl_str_adds(s, f->is_sure ? "a rule drops flows of "
					  : "a rule drops, unless another of its rules accepts "
					    "them, flows of ");
	put_flow(s, f);
	sl_str_adds(s, ", whatever our table says; let them through: ");
	if (strcmp(t->name, "firewalld") == 0) {
		sl_str_adds(s, "sed -i 's/^StrictForwardPorts=.*/StrictForwardPorts=no/' "
			       "/etc/firewalld/firewalld.conf && firewall-cmd --reload");
	} else {
		if (base->hook == NF_INET_FORWARD && sl_nft_others_find_chain(t, "DOCKER-USER"))
			chain = "DOCKER-USER"; /* the one that Docker leaves alone */
		put_rule(s, t, chain, "accept", "ACCEPT");
	}
	sl_str_addc(s, '\n');
}

/* One that is far away. */
static uint32_t other_base(uint32_t mark)
{
	uint32_t high = (mark & 0xff000000u) + 0x01000000u;

	return high > 0 && high < 0xff000000u ? high : 0;
}

static void say_mark(struct sl_str *s, const struct sl_nft_others_table *t, enum kind kind,
		     const struct finding *f)
{
	static const char *const words[N_KINDS] = {
		[MARKS] = "a rule sets the conntrack mark, by which we know the flows of ",
		[COPIES] = "a rule makes the conntrack mark the packet's, for which 'ip rule' may "
			   "have a meaning, also for flows of ",
		[ASKS] = "a rule takes the conntrack mark for one of its own, of flows of ",
	};

	sl_str_addf(s, "table %s %s, chain %s: %s", family_name(t->family), t->name, f->chain->name,
		    words[kind]);
	put_flow(s, f);
	if (kind == ASKS) {
		sl_str_addf(s,
			    " (mark %u); give ours other numbers by the configuration: global: { "
			    "nftables: { mark_base: %u } }",
			    f->first->flow->mark, other_base(f->first->flow->mark));
	} else {
		sl_str_adds(s, "; leave them alone: ");
		put_rule(s, t, f->chain->name, "return", "RETURN");
	}
	sl_str_addc(s, '\n');
}

/* ---- rules of others ---- */

static void note(struct finding *f, const struct probe *p, const struct sl_nft_others_chain *chain,
		 bool is_sure)
{
	if (!chain)
		return;
	if (!f->first || (is_sure && !f->is_sure)) {
		f->first = p;
		f->chain = chain;
		f->is_sure = is_sure;
	}
	f->n++;
}

/* Does the hook see this flow, with the address of its target? */
static bool passes(const struct probe *p, const struct sl_nft_others_chain *base, bool *has_target)
{
	*has_target = true;
	switch (base->hook) {
	case NF_INET_LOCAL_IN:
		return p->place == ON_THIS_HOST;
	case NF_INET_FORWARD:
		return p->place == ELSEWHERE;
	case NF_INET_POST_ROUTING:
		return true;
	case NF_INET_PRE_ROUTING:
	case NF_INET_LOCAL_OUT:
		*has_target = base->priority > NAT_PRIORITY;
		return true;
	default:
		return false;
	}
}

/*
 * Drops count only where they are for what is forwarded, comes in or leaves: hooks before see
 * packets from anywhere, and are for other purposes.
 */
static bool is_gate(const struct sl_nft_others_chain *base, const struct probe *p)
{
	return base->hook == NF_INET_FORWARD || base->hook == NF_INET_LOCAL_IN ||
	       (base->hook == NF_INET_POST_ROUTING && p->place == ELSEWHERE);
}

/* Of the first packet what happens before it is translated does not matter: our mark comes then. */
static void try_packet(const struct sl_nft_others_table *t, const struct sl_nft_others_chain *base,
		       const struct probe *p, bool is_new, struct finding found[N_KINDS])
{
	struct sl_nft_packet packet = p->packet;
	struct sl_nft_walk walk;

	packet.is_new = is_new;
	if (!passes(p, base, &packet.has_target) || (is_new && !packet.has_target))
		return;
	sl_nft_walk(t, base, &packet, &walk);
	if (walk.is_too_long)
		return;
	if (is_new && walk.way == SL_NFT_WAY_DROPPED && is_gate(base, p))
		note(&found[DROPS], p, walk.dropped_in, !walk.may_be_accepted);
	note(&found[MARKS], p, walk.marked_in, true);
	note(&found[COPIES], p, walk.copied_in, true);
	note(&found[ASKS], p, walk.asked_in, true);
}

static void look_at_chain(struct report *rep, const struct sl_nft_others_table *t,
			  const struct sl_nft_others_chain *base)
{
	struct finding found[N_KINDS] = { 0 };

	for (size_t i = 0; i < rep->n; i++) {
		const struct probe *p = &rep->probes[i];
		size_t before[N_KINDS];

		if (t->family != NFPROTO_INET && t->family != p->packet.family)
			continue;
		for (int k = 0; k < N_KINDS; k++)
			before[k] = found[k].n;
		try_packet(t, base, p, true, found);
		if (!base->is_nat) /* which only meets the first packet */
			try_packet(t, base, p, false, found);
		for (int k = 0; k < N_KINDS; k++)
			if (found[k].n > before[k] + 1)
				found[k].n = before[k] + 1;
	}
	if (found[DROPS].n)
		say_drops(rep->lines, t, base, &found[DROPS]);
	for (int k = MARKS; k < N_KINDS; k++)
		if (found[k].n)
			say_mark(rep->lines, t, (enum kind)k, &found[k]);
}

static int look_at_others(struct sl_nft_trouble *t, const char *ours, struct report *rep)
{
	_cleanup_(sl_nft_others_freep) struct sl_nft_others *o = NULL;
	int r = -EINTR;

	for (int i = 0; i < TRIES && r == -EINTR; i++)
		r = sl_nft_others_read(&t->nft, ours, &o);
	if (r < 0)
		return r == -EINTR ? -EAGAIN : r;
	for (size_t i = 0; i < o->n; i++) {
		const struct sl_nft_others_table *table = &o->tables[i];

		for (size_t k = 0; k < table->n && !table->is_dormant; k++)
			if (table->chains[k].is_base)
				look_at_chain(rep, table, &table->chains[k]);
	}
	return 0;
}

/* ---- settings ---- */

/* 0 also where it cannot be read: what is not known is no trouble. */
static bool is_off(const char *setting)
{
	char path[384], value = '1';
	_cleanup_fd_ int fd = -1;

	snprintf(path, sizeof(path), "/proc/sys/net/%s", setting);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd >= 0 && read(fd, &value, 1) == 1 && value == '0';
}

/* One interface that allows it is the operator's choice of interfaces. */
static bool no_route_localnet(void)
{
	bool is_none = is_off("ipv4/conf/all/route_localnet");
	const struct dirent *e;
	DIR *dir;

	if (!is_none)
		return false;
	dir = opendir("/proc/sys/net/ipv4/conf");
	while (dir && is_none && (e = readdir(dir))) {
		char setting[64 + sizeof(e->d_name)];

		if (e->d_name[0] == '.' || strcmp(e->d_name, "lo") == 0 ||
		    strcmp(e->d_name, "default") == 0)
			continue;
		snprintf(setting, sizeof(setting), "ipv4/conf/%s/route_localnet", e->d_name);
		is_none = is_off(setting);
	}
	if (dir)
		(void)closedir(dir);
	return is_none;
}

static bool is_loopback4(const struct probe *p)
{
	return p->packet.family == NFPROTO_IPV4 && p->packet.target[0] == 127;
}
static bool is_forwarded4(const struct probe *p)
{
	return p->packet.family == NFPROTO_IPV4 && p->place == ELSEWHERE;
}
static bool is_forwarded6(const struct probe *p)
{
	return p->packet.family == NFPROTO_IPV6 && p->place == ELSEWHERE;
}
static bool is_nowhere(const struct probe *p)
{
	return p->place == NOWHERE;
}

static struct finding find_probes(const struct report *rep, bool (*fits)(const struct probe *p))
{
	struct finding f = { 0 };

	for (size_t i = 0; i < rep->n; i++)
		if (fits(&rep->probes[i]))
			f = (struct finding){ .first = f.first ? f.first : &rep->probes[i],
					      .n = f.n + 1 };
	return f;
}

static void look_at_settings(struct report *rep)
{
	static const struct {
		bool (*fits)(const struct probe *p);
		const char *setting;
		const char *what;
		const char *todo;
	} rows[] = {
		{ is_forwarded4, "ipv4/ip_forward",
		  "this host does not forward: ", "sysctl -w net.ipv4.ip_forward=1" },
		{ is_forwarded6, "ipv6/conf/all/forwarding",
		  "this host does not forward IPv6: ", "sysctl -w net.ipv6.conf.all.forwarding=1" },
		{ is_loopback4, NULL, "the kernel leads nobody else to 127.0.0.0/8: ",
		  "sysctl -w net.ipv4.conf.all.route_localnet=1" },
	};
	struct finding f = find_probes(rep, is_nowhere);

	if (f.n) {
		sl_str_adds(rep->lines, "there is no route from this host to a target: ");
		put_flow(rep->lines, &f);
		sl_str_adds(rep->lines, " cannot be reached: ip route add ...\n");
	}
	for (size_t i = 0; i < SL_ARRAY_LEN(rows); i++) {
		f = find_probes(rep, rows[i].fits);
		if (f.n == 0 || !(rows[i].setting ? is_off(rows[i].setting) : no_route_localnet()))
			continue;
		sl_str_adds(rep->lines, rows[i].what);
		put_flow(rep->lines, &f);
		sl_str_addf(rep->lines, " cannot be reached: %s\n", rows[i].todo);
	}
}

static void look_at_conntrack(struct sl_nft_trouble *t, struct report *rep)
{
	uint32_t count, max;

	if (sl_ct_fill(&count, &max) < 0 || max == 0) {
		t->is_full = false;
		return;
	}
	t->is_full =
		(uint64_t)count * 100 >= (uint64_t)max * (t->is_full ? ROOM_PERCENT : FULL_PERCENT);
	if (t->is_full)
		sl_str_addf(rep->lines,
			    "connection tracking is nearly full, of at most %u entries, and new "
			    "flows of anybody will be dropped: sysctl -w "
			    "net.netfilter.nf_conntrack_max=%u\n",
			    max, max < UINT32_MAX / 2 ? max * 2 : max);
}

uint32_t sl_nft_trouble_settings(void)
{
	uint32_t count, max;
	bool is_full = sl_ct_fill(&count, &max) == 0 && max > 0 &&
		       (uint64_t)count * 100 >= (uint64_t)max * FULL_PERCENT;

	return (uint32_t)is_off("ipv4/ip_forward") |
	       (uint32_t)is_off("ipv6/conf/all/forwarding") << 1 |
	       (uint32_t)is_off("ipv4/conf/all/route_localnet") << 2 | (uint32_t)is_full << 3;
}

int sl_nft_trouble_look(struct sl_nft_trouble *t, const char *ours,
			const struct sl_nft_trouble_flow *flows, size_t n, struct sl_str *lines)
{
	struct report rep = { .lines = lines };
	int r;

	rep.n = n < SL_NFT_TROUBLE_FLOWS ? n : SL_NFT_TROUBLE_FLOWS;
	for (size_t i = 0; i < rep.n; i++)
		set_probe(t, &flows[i * n / rep.n], &rep.probes[i]);
	r = look_at_others(t, ours, &rep);
	if (r == -E2BIG)
		sl_str_addf(lines,
			    "other tables have more than %d rules, which are not looked at: "
			    "nft list ruleset\n",
			    SL_NFT_OTHERS_RULES);
	else if (r < 0)
		return r;
	look_at_settings(&rep);
	look_at_conntrack(t, &rep);
	return lines->oom ? -ENOMEM : 0;
}
