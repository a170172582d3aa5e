/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "nft/rules.h"

#include <linux/netfilter.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_nat.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "nft/expr.h"
#include "nft/form.h"

/* Registers are words of 4 bytes; the kernel calls those on a boundary of 16 by their old names. */
#define R(word) ((word) % 4 ? NFT_REG32_00 + (uint32_t)(word) : NFT_REG_1 + (uint32_t)(word) / 4)

/* IPCT_NEW and IPCT_DESTROY (net/netfilter/nf_conntrack_common.h, not exported) as bits. */
#define EVENTS_NEW_DESTROY 0x5
/* NF_CT_STATE_BIT(IP_CT_ESTABLISHED) of the same header */
#define STATE_ESTABLISHED 0x2

/* A rule being written: expressions are appended, then it goes into its chain. */
struct rule {
	struct sl_nft_ruleset *rs;
	struct sl_nft_chain *chain;
	uint32_t comment;
	struct sl_str code;
};

static void put(struct rule *r, const struct sl_nft_expr *e)
{
	sl_nft_expr_put(&r->code, e);
}

static void put_values(struct rule *r, enum sl_nft_expr_kind kind, unsigned n,
		       const uint32_t *values, const char *name)
{
	struct sl_nft_expr e = { .kind = kind, .n_values = n };

	memcpy(e.value, values, n * sizeof(*values));
	snprintf(e.name, sizeof(e.name), "%s", name);
	put(r, &e);
}

#define PUT(r, kind, name, ...)                                                           \
	put_values(r, kind, sizeof((const uint32_t[]){ __VA_ARGS__ }) / sizeof(uint32_t), \
		   (const uint32_t[]){ __VA_ARGS__ }, name)

static void end_rule(struct rule *r)
{
	struct sl_nft_rule rule = { .comment = r->comment };

	if (r->code.oom)
		r->rs->oom = true;
	rule.n_code = (uint32_t)r->code.len;
	rule.code = sl_nft_put_bytes(r->rs, r->code.p, r->code.len);
	sl_nft_put_rule(r->rs, r->chain, &rule);
	sl_str_clear(&r->code);
}

static void verdict(struct rule *r, int32_t code, const char *chain)
{
	PUT(r, SL_NFT_VERDICT, chain, (uint32_t)code);
	end_rule(r);
}

static void go_to(struct rule *r, const char *chain)
{
	verdict(r, NFT_GOTO, chain);
}

static void compare(struct rule *r, uint32_t op, const void *data, size_t n)
{
	struct sl_nft_expr e = { .kind = SL_NFT_CMP, .n_values = 2, .value = { R(0), op } };

	e.n_data = (uint8_t)n;
	memcpy(e.data, data, n);
	put(r, &e);
}

static void compare_u8(struct rule *r, uint32_t op, uint8_t value)
{
	compare(r, op, &value, sizeof(value));
}

static void is_family(struct rule *r, bool is_ip6)
{
	PUT(r, SL_NFT_META, "", NFT_META_NFPROTO, R(0));
	compare_u8(r, NFT_CMP_EQ, is_ip6 ? NFPROTO_IPV6 : NFPROTO_IPV4);
}

static void is_protocol(struct rule *r, uint8_t protocol)
{
	PUT(r, SL_NFT_META, "", NFT_META_L4PROTO, R(0));
	compare_u8(r, NFT_CMP_EQ, protocol);
}

/* The address as a whole: source or destination, to register `reg`. */
static void load_address(struct rule *r, bool is_ip6, bool is_source, uint32_t reg)
{
	if (is_ip6)
		PUT(r, SL_NFT_PAYLOAD, "", NFT_PAYLOAD_NETWORK_HEADER, is_source ? 8 : 24, 16, reg);
	else
		PUT(r, SL_NFT_PAYLOAD, "", NFT_PAYLOAD_NETWORK_HEADER, is_source ? 12 : 16, 4, reg);
}

static void load_mark(struct rule *r)
{
	PUT(r, SL_NFT_CT, "", NFT_CT_MARK, R(0), SL_NFT_NO_REG);
}

static void lookup(struct rule *r, enum sl_nft_form form, uint32_t mark, uint32_t dreg,
		   uint32_t flags)
{
	char name[SL_NFT_NAME];

	sl_nft_form_name(form, mark, name);
	PUT(r, SL_NFT_LOOKUP, name, R(0), dreg, flags);
}

/* ct mark vmap @form */
static void vmap(struct rule *r, enum sl_nft_form form)
{
	load_mark(r);
	lookup(r, form, 0, NFT_REG_VERDICT, 0);
	end_rule(r);
}

/* ct mark @form */
static void has_mark_in(struct rule *r, enum sl_nft_form form)
{
	load_mark(r);
	lookup(r, form, 0, SL_NFT_NO_REG, 0);
}

/* ip daddr 127.0.0.0/8, or saddr: nft compares what is left of a prefix of whole bytes. */
static void is_loopback4(struct rule *r, bool is_source)
{
	is_family(r, false);
	PUT(r, SL_NFT_PAYLOAD, "", NFT_PAYLOAD_NETWORK_HEADER, is_source ? 12 : 16, 1, R(0));
	compare_u8(r, NFT_CMP_EQ, IN_LOOPBACKNET);
}

static void is_not_lo(struct rule *r, uint32_t key)
{
	static const char lo[IFNAMSIZ] = "lo";

	PUT(r, SL_NFT_META, "", key, R(0));
	compare(r, NFT_CMP_NEQ, lo, sizeof(lo));
}

/* ct `key` with one of `mask` set */
static void ct_has(struct rule *r, uint32_t key, uint32_t mask)
{
	struct sl_nft_expr e = {
		.kind = SL_NFT_BITWISE, .n_values = 3, .value = { R(0), R(0), 4 }, .n_data = 8
	};
	const uint32_t none = 0;

	PUT(r, SL_NFT_CT, "", key, R(0), SL_NFT_NO_REG);
	memcpy(e.data, &mask, sizeof(mask));
	put(r, &e);
	compare(r, NFT_CMP_NEQ, &none, sizeof(none));
}

/* ct status dnat */
static void is_dnat(struct rule *r)
{
	ct_has(r, NFT_CT_STATUS, IPS_DST_NAT);
}

/* `op` NFT_CMP_EQ: for local destinations; NFT_CMP_NEQ: for others */
static void local_returns(struct rule *r, uint32_t op)
{
	const uint32_t local = RTN_LOCAL;

	PUT(r, SL_NFT_FIB, "", R(0), NFT_FIB_RESULT_ADDRTYPE, NFTA_FIB_F_DADDR);
	compare(r, op, &local, sizeof(local));
	verdict(r, NFT_RETURN, "");
}

/* ct mark set [ip daddr .] meta l4proto . th dport map @form; what follows is for hits only */
static void find_route(struct rule *r, enum sl_nft_form form, bool is_ip6, bool has_address)
{
	unsigned word = has_address ? is_ip6 ? 4 : 1 : 0;

	is_family(r, is_ip6);
	if (has_address)
		load_address(r, is_ip6, false, R(0));
	PUT(r, SL_NFT_META, "", NFT_META_L4PROTO, R(word));
	PUT(r, SL_NFT_PAYLOAD, "", NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, R(word + 1));
	lookup(r, form, 0, R(0), 0);
	PUT(r, SL_NFT_CT, "", NFT_CT_MARK, SL_NFT_NO_REG, R(0));
}

static void reject(struct rule *r, uint32_t type, uint32_t code)
{
	PUT(r, SL_NFT_REJECT, "", type, code);
	end_rule(r);
}

/* There is no route_localnet for IPv6: a client on ::1 would reach nobody. */
static void loopback6_returns(struct rule *r)
{
	is_family(r, true);
	load_address(r, true, false, R(0));
	compare(r, NFT_CMP_EQ, &in6addr_loopback, sizeof(in6addr_loopback));
	verdict(r, NFT_RETURN, "");
}

/* Sets the chain that rules are written to; base chains have a type. */
static void begin_chain(struct rule *r, const char *name, const char *comment, const char *type,
			uint32_t hook, int32_t priority)
{
	struct sl_nft_chain chain = { .is_base = *type, .hook = hook, .priority = priority };

	snprintf(chain.name, sizeof(chain.name), "%s", name);
	snprintf(chain.type, sizeof(chain.type), "%s", type);
	chain.comment = sl_nft_put_text(r->rs, comment);
	r->chain = sl_nft_put_chain(r->rs, &chain);
}

/* tcp flags & mask == value, or != */
static void tcp_flags(struct rule *r, uint32_t op, uint8_t mask, uint8_t value)
{
	is_protocol(r, IPPROTO_TCP);
	PUT(r, SL_NFT_PAYLOAD, "", NFT_PAYLOAD_TRANSPORT_HEADER, 13, 1, R(0));
	put(r, &(struct sl_nft_expr){ .kind = SL_NFT_BITWISE,
				      .n_values = 3,
				      .value = { R(0), R(0), 1 },
				      .n_data = 2,
				      .data = { mask, 0 } });
	compare_u8(r, op, value);
}

/* Those of one address before those of all. */
static void put_dispatch_chain(struct rule *r)
{
	begin_chain(r, "dispatch", "new flows of listeners", "", 0, 0);
	tcp_flags(r, NFT_CMP_NEQ, 0x17, 0x02); /* of fin, syn, rst, ack */
	go_to(r, "stray");
	for (int form = SL_NFT_LISTEN4; form <= SL_NFT_ANY6_RANGE; form++) {
		if (form == SL_NFT_ANY4) {
			local_returns(r, NFT_CMP_NEQ);
			loopback6_returns(r);
		}
		find_route(r, (enum sl_nft_form)form, form % 2, form < SL_NFT_ANY4);
		go_to(r, "routed");
	}
}

/*
 * Segments that begin no flow are never translated: their flow has lost its entry, or had none,
 * because a socket of this host carries it since before conntrack. Local destinations are left
 * to the stack, which knows its sockets, and answers by RST for the others.
 */
static void put_stray_chain(struct rule *r)
{
	begin_chain(r, "stray", "segments that begin no flow", "", 0, 0);
	local_returns(r, NFT_CMP_EQ);
	for (int form = SL_NFT_LISTEN4; form < SL_NFT_ANY4; form++) {
		is_protocol(r, IPPROTO_TCP); /* nft would add it to the rejection */
		find_route(r, (enum sl_nft_form)form, form % 2, true);
		reject(r, NFT_REJECT_TCP_RST, 0);
	}
}

static void put_port(struct rule *r, uint32_t reg, uint16_t port)
{
	struct sl_nft_expr e = { .kind = SL_NFT_VALUE, .n_values = 1, .value = { reg } };
	uint16_t wire = htons(port);

	e.n_data = sizeof(wire);
	memcpy(e.data, &wire, sizeof(wire));
	put(r, &e);
}

/* `ports` NULL: any */
static void masquerade(struct rule *r, const struct sl_nft_ports *ports)
{
	if (ports) {
		is_protocol(r, IPPROTO_TCP); /* nft reads ports only behind it */
		put_port(r, R(0), ports->from);
		put_port(r, R(4), ports->to);
		PUT(r, SL_NFT_MASQUERADE, "", NF_NAT_RANGE_PROTO_SPECIFIED, R(0), R(4));
	} else {
		PUT(r, SL_NFT_MASQUERADE, "", 0, SL_NFT_NO_REG, SL_NFT_NO_REG);
	}
	end_rule(r);
}

/* Who is masqueraded. */
static void put_masquerades(struct rule *r, const struct sl_nft_ports *ports)
{
	is_dnat(r);
	has_mark_in(r, SL_NFT_MASQ);
	masquerade(r, ports);
	/* a client on 127.0.0.1 whose target is elsewhere */
	is_dnat(r);
	is_loopback4(r, true);
	is_not_lo(r, NFT_META_OIFNAME);
	masquerade(r, ports);
	for (int is_ip6 = 0; is_ip6 <= 1; is_ip6++) {
		is_dnat(r);
		is_family(r, is_ip6);
		load_address(r, is_ip6, true, R(0));
		load_address(r, is_ip6, false, is_ip6 ? R(4) : R(1));
		lookup(r, is_ip6 ? SL_NFT_HAIRPIN6 : SL_NFT_HAIRPIN4, 0, SL_NFT_NO_REG, 0);
		masquerade(r, ports);
	}
}

static void put_nat_chains(struct rule *r, const struct sl_nft_ports *ports)
{
	/* 5 before the standard priorities: the first decision about NAT is the one that holds */
	begin_chain(r, "pre", "", "nat", NF_INET_PRE_ROUTING, -105);
	verdict(r, NFT_JUMP, "dispatch");
	begin_chain(r, "out", "", "nat", NF_INET_LOCAL_OUT, -105);
	verdict(r, NFT_JUMP, "dispatch");

	begin_chain(r, "post", "", "nat", NF_INET_POST_ROUTING, 95);
	if (ports->from)
		put_masquerades(r, ports); /* TCP: the rules behind are for the others */
	put_masquerades(r, NULL);
}

static void refuse_listed(struct rule *r, enum sl_nft_form form, uint32_t mark, uint32_t flags,
			  const char *chain)
{
	bool is_ip6 = form == SL_NFT_ALLOW6 || form == SL_NFT_DENY6;

	is_family(r, is_ip6);
	load_address(r, is_ip6, true, R(0));
	lookup(r, form, mark, SL_NFT_NO_REG, flags);
	go_to(r, chain);
}

/* `mark`: of the route whose lists they are; 0: of all */
static void ask_lists(struct rule *r, const struct sl_nft_lists *lists, uint32_t mark,
		      const char *chain)
{
	if (lists->deny) {
		refuse_listed(r, SL_NFT_DENY4, mark, 0, chain);
		refuse_listed(r, SL_NFT_DENY6, mark, 0, chain);
	}
	if (lists->allow) {
		refuse_listed(r, SL_NFT_ALLOW4, mark, NFT_LOOKUP_F_INV, chain);
		refuse_listed(r, SL_NFT_ALLOW6, mark, NFT_LOOKUP_F_INV, chain);
	}
}

static void put_refuse_chains(struct rule *r)
{
	begin_chain(r, "refused", "as its route says", "", 0, 0);
	vmap(r, SL_NFT_ROUTE_REFUSE);
	go_to(r, "refuse_reset");
	begin_chain(r, "refuse_reset", "", "", 0, 0);
	is_protocol(r, IPPROTO_TCP);
	reject(r, NFT_REJECT_TCP_RST, 0);
	reject(r, NFT_REJECT_ICMPX_UNREACH, NFT_REJECT_ICMPX_PORT_UNREACH);
	begin_chain(r, "refuse_icmp", "", "", 0, 0);
	reject(r, NFT_REJECT_ICMPX_UNREACH, NFT_REJECT_ICMPX_ADMIN_PROHIBITED);
	begin_chain(r, "refuse_drop", "", "", 0, 0);
	verdict(r, NF_DROP, "");
}

/* ... to the target in R(0), with its port behind it unless `keeps_port`. */
static void nat(struct rule *r, bool is_ip6, bool keeps_port)
{
	uint32_t port = keeps_port ? SL_NFT_NO_REG : is_ip6 ? R(4) : R(1);

	PUT(r, SL_NFT_NAT, "", NFT_NAT_DNAT, is_ip6 ? NFPROTO_IPV6 : NFPROTO_IPV4, R(0), port);
	end_rule(r);
}

static void put_routed_chain(struct rule *r, const struct sl_nft_lists *lists)
{
	struct sl_nft_expr events = {
		.kind = SL_NFT_VALUE, .n_values = 1, .value = { R(0) }, .n_data = 4
	};
	const uint32_t mask = EVENTS_NEW_DESTROY;

	begin_chain(r, "routed", "the route is known; what reaches the end has no target", "", 0,
		    0);
	memcpy(events.data, &mask, sizeof(mask));
	put(r, &events);
	PUT(r, SL_NFT_CT, "", NFT_CT_EVENTMASK, SL_NFT_NO_REG, R(0));
	end_rule(r);
	ask_lists(r, lists, 0, "refused");
	vmap(r, SL_NFT_ROUTE_POLICY);
	load_mark(r);
	PUT(r, SL_NFT_COUNTER_MAP, "route_counter", R(0));
	end_rule(r);
	vmap(r, SL_NFT_ROUTE_SLOTS);
	for (int is_ip6 = 0; is_ip6 <= 1; is_ip6++) {
		/* nft reads such a rule only behind the protocol */
		for (int i = 0; i <= 1; i++) {
			is_protocol(r, i ? IPPROTO_UDP : IPPROTO_TCP);
			load_mark(r);
			lookup(r, is_ip6 ? SL_NFT_TO6 : SL_NFT_TO4, 0, R(0), 0);
			nat(r, is_ip6, false);
		}
		load_mark(r);
		lookup(r, is_ip6 ? SL_NFT_TO6_ADDRESS : SL_NFT_TO4_ADDRESS, 0, R(0), 0);
		nat(r, is_ip6, true);
	}
	go_to(r, "refused");
}

void sl_nft_put_fixed_chains(struct sl_nft_ruleset *rs, const struct sl_nft_common *common)
{
	struct rule r = { .rs = rs };

	put_nat_chains(&r, &common->masquerade);
	put_dispatch_chain(&r);
	put_stray_chain(&r);
	put_routed_chain(&r, &common->lists);
	put_refuse_chains(&r);
	sl_str_done(&r.code);
}

void sl_nft_put_guard_chain(struct sl_nft_ruleset *rs)
{
	struct rule r = { .rs = rs };

	begin_chain(&r, SL_NFT_GUARD, "route_localnet must not open loopback to the network",
		    "filter", NF_INET_PRE_ROUTING, -300);
	is_not_lo(&r, NFT_META_IIFNAME);
	is_loopback4(&r, false);
	verdict(&r, NF_DROP, "");
	sl_str_done(&r.code);
}

void sl_nft_put_killer_chains(struct sl_nft_ruleset *rs)
{
	struct rule r = { .rs = rs };

	/* behind conntrack (-200), before NAT */
	begin_chain(&r, "killer_in", "flows that are to be cut", "filter", NF_INET_PRE_ROUTING,
		    -140);
	has_mark_in(&r, SL_NFT_KILL);
	go_to(&r, "killed");
	begin_chain(&r, "killer_out", "flows of this host that are to be cut", "filter",
		    NF_INET_LOCAL_OUT, -140);
	has_mark_in(&r, SL_NFT_KILL);
	go_to(&r, "killed");
	begin_chain(&r, "killed", "", "", 0, 0);
	/* what ends a flow may pass, the RST of the rule behind this one among it */
	tcp_flags(&r, NFT_CMP_NEQ, 0x04, 0);
	verdict(&r, NF_ACCEPT, "");
	is_protocol(&r, IPPROTO_TCP);
	reject(&r, NFT_REJECT_TCP_RST, 0);
	verdict(&r, NF_DROP, "");
	sl_str_done(&r.code);
}

void sl_nft_put_police_chain(struct sl_nft_ruleset *rs)
{
	struct rule r = { .rs = rs };

	begin_chain(&r, "police", "limits of packets", "filter", NF_INET_PRE_ROUTING, -139);
	PUT(&r, SL_NFT_CT, "", NFT_CT_DIRECTION, R(0), SL_NFT_NO_REG);
	compare_u8(&r, NFT_CMP_EQ, 0);
	vmap(&r, SL_NFT_ROUTE_PACKETS);
	sl_str_done(&r.code);
}

void sl_nft_put_offer_chain(struct sl_nft_ruleset *rs)
{
	struct rule r = { .rs = rs };

	begin_chain(&r, SL_NFT_OFFER, "established flows, to the flow table", "filter",
		    NF_INET_FORWARD, 0);
	ct_has(&r, NFT_CT_STATE, STATE_ESTABLISHED);
	has_mark_in(&r, SL_NFT_OFFLOADS);
	put(&r, &(struct sl_nft_expr){ .kind = SL_NFT_FLOW, .name = SL_NFT_FLOWTABLE });
	end_rule(&r);
	sl_str_done(&r.code);
}

const char *sl_nft_refuse_chain(enum sl_nft_refusal refusal)
{
	switch (refusal) {
	case SL_NFT_REFUSE_ICMP:
		return "refuse_icmp";
	case SL_NFT_REFUSE_DROP:
		return "refuse_drop";
	case SL_NFT_REFUSE_RESET:
		break;
	}
	return "refuse_reset";
}

static void begin_route_chain(struct rule *r, const char *name, uint32_t comment)
{
	begin_chain(r, name, "", "", 0, 0);
	if (r->chain)
		r->chain->comment = comment;
	r->comment = comment;
}

static void over_rate(struct rule *r, const struct sl_nft_rate *rate)
{
	PUT(r, SL_NFT_LIMIT, "", rate->rate, rate->seconds, rate->burst, NFT_LIMIT_PKTS,
	    NFT_LIMIT_F_INV);
}

/*
 * The limit is part of it: each element has a copy of the one it was made with, so another
 * limit takes another set.
 */
void sl_nft_client_set_name(const struct sl_nft_route *route, enum sl_nft_form form,
			    char ret[SL_NFT_NAME])
{
	char stem[SL_NFT_NAME];

	sl_nft_form_name(form, route->mark, stem);
	if (form == SL_NFT_CLIENTS4 || form == SL_NFT_CLIENTS6)
		snprintf(ret, SL_NFT_NAME, "%.25s_%u", stem, route->max_per_client);
	else
		snprintf(ret, SL_NFT_NAME, "%.20s_%u_%us", stem, route->per_client.rate,
			 route->per_client.seconds);
}

/* add, or update, @set { ip saddr limit } goto refuse */
static void refuse_client(struct rule *r, const struct sl_nft_route *route, int form4, bool is_ip6)
{
	const struct sl_nft_rate *rate = &route->per_client;
	enum sl_nft_form form = (enum sl_nft_form)(form4 + is_ip6);
	char name[SL_NFT_NAME];

	sl_nft_client_set_name(route, form, name);
	is_family(r, is_ip6);
	load_address(r, is_ip6, true, R(0));
	/* whoever comes again is not forgotten; the others stay as long as they are connected */
	if (form == SL_NFT_NEW4 || form == SL_NFT_NEW6)
		PUT(r, SL_NFT_DYNSET, name, R(0), NFT_DYNSET_OP_UPDATE, SL_NFT_LIMIT, rate->rate,
		    rate->seconds, rate->rate, NFT_LIMIT_PKTS, NFT_LIMIT_F_INV);
	else
		PUT(r, SL_NFT_DYNSET, name, R(0), NFT_DYNSET_OP_ADD, SL_NFT_CONNLIMIT,
		    route->max_per_client, NFT_CONNLIMIT_F_INV);
	go_to(r, sl_nft_refuse_chain(route->refusal));
}

static void refuse_clients(struct rule *r, const struct sl_nft_route *route, int form)
{
	refuse_client(r, route, form, false);
	refuse_client(r, route, form, true);
}

void sl_nft_put_policy_chain(struct sl_nft_ruleset *rs, const struct sl_nft_route *route,
			     const char *name, uint32_t comment)
{
	struct rule r = { .rs = rs };

	begin_route_chain(&r, name, comment);
	ask_lists(&r, &(struct sl_nft_lists){ route->allow, route->deny }, route->mark,
		  sl_nft_refuse_chain(route->refusal));
	if (route->per_client.rate)
		refuse_clients(&r, route, SL_NFT_NEW4);
	/* NAT chains see the first packet of a flow only: packets are connections */
	if (route->connections.rate) {
		over_rate(&r, &route->connections);
		go_to(&r, sl_nft_refuse_chain(route->refusal));
	}
	/* last, because they count whom they let pass */
	if (route->max_per_client)
		refuse_clients(&r, route, SL_NFT_CLIENTS4);
	if (route->max_connections) {
		PUT(&r, SL_NFT_CONNLIMIT, "", route->max_connections, NFT_CONNLIMIT_F_INV);
		go_to(&r, sl_nft_refuse_chain(route->refusal));
	}
	sl_str_done(&r.code);
}

void sl_nft_put_packets_chain(struct sl_nft_ruleset *rs, const struct sl_nft_route *route,
			      const char *name, uint32_t comment)
{
	struct rule r = { .rs = rs };

	begin_route_chain(&r, name, comment);
	over_rate(&r, &route->packets);
	verdict(&r, NF_DROP, "");
	sl_str_done(&r.code);
}

/* A number below `n` in R(0). The seed is fixed: a client stays with its target over restarts. */
static void choose(struct rule *r, enum sl_balance how, bool is_ip6, uint32_t n)
{
	if (how == SL_BALANCE_SOURCE_HASH || how == SL_BALANCE_MAGLEV) {
		load_address(r, is_ip6, true, R(4));
		PUT(r, SL_NFT_HASH, "", R(4), R(0), is_ip6 ? 16 : 4, n, 0x51c0de, NFT_HASH_JENKINS,
		    0);
	} else {
		PUT(r, SL_NFT_NUMGEN, "", R(0), n,
		    how == SL_BALANCE_RANDOM ? NFT_NG_RANDOM : NFT_NG_INCREMENTAL, 0);
	}
}

static void choose_target(struct rule *r, const struct sl_nft_route *route, bool is_ip6,
			  uint32_t n_slots, bool keeps_port)
{
	enum sl_nft_form form = keeps_port ? SL_NFT_SLOTS4_ADDRESS : SL_NFT_SLOTS4;

	choose(r, route->balance, is_ip6, n_slots);
	lookup(r, is_ip6 ? form + 1 : form, route->mark, R(0), 0);
	nat(r, is_ip6, keeps_port);
}

void sl_nft_put_slots_chain(struct sl_nft_ruleset *rs, const struct sl_nft_route *route,
			    const char *name, uint32_t comment,
			    const struct sl_nft_slots_chain *slots)
{
	struct rule r = { .rs = rs };

	begin_route_chain(&r, name, comment);
	for (int is_ip6 = 0; is_ip6 <= 1; is_ip6++) {
		uint32_t n = slots->family[is_ip6].n_slots;

		if (n && slots->family[is_ip6].keeps_port) {
			is_family(&r, is_ip6);
			choose_target(&r, route, is_ip6, n, true);
			continue;
		}
		if (n && route->protocols & SL_NFT_TCP) {
			is_family(&r, is_ip6);
			is_protocol(&r, IPPROTO_TCP);
			choose_target(&r, route, is_ip6, n, false);
		}
		if (n && route->protocols & SL_NFT_UDP) {
			is_family(&r, is_ip6);
			is_protocol(&r, IPPROTO_UDP);
			choose_target(&r, route, is_ip6, n, false);
		}
	}
	sl_str_done(&r.code);
}
