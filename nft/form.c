/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "nft/form.h"

#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"

/* Data types of nft (its include/datatype.h): not the kernel's business, but part of its API. */
enum {
	NONE = 0,
	INTEGER = 4,
	ADDR4 = 7,
	ADDR6 = 8,
	PROTO = 12,
	PORT = 13,
	MARK = 19,
	TYPE_BITS = 6,
};

#define VERDICT NFT_DATA_VERDICT

/*
 * Clients a route knows at one time: spoofed addresses must not eat the kernel's memory. Whoever
 * finds no room is not limited, or others could be locked out.
 */
#define CLIENTS 65536
/* After that the bucket of a client is full again, however it was: rates are per minute at most. */
#define FORGET_MS 60000

static const struct form {
	const char *name;
	const char *comment;
	uint32_t flags; /* beside those that follow from the fields */
	uint8_t key[3];
	uint8_t data[2];
	uint32_t size;
	uint32_t timeout_ms;
	bool has_verdicts;
	bool has_counters;
} forms[] = {
	[SL_NFT_LISTEN4] = { .name = "listen4",
			     .comment = "listeners of one address: route",
			     .flags = NFT_SET_MAP,
			     .key = { ADDR4, PROTO, PORT },
			     .data = { MARK } },
	[SL_NFT_LISTEN6] = { .name = "listen6",
			     .comment = "listeners of one address: route",
			     .flags = NFT_SET_MAP,
			     .key = { ADDR6, PROTO, PORT },
			     .data = { MARK } },
	[SL_NFT_LISTEN4_RANGE] = { .name = "listen4_range",
				   .comment = "port ranges of one address: route",
				   .flags = NFT_SET_MAP | NFT_SET_INTERVAL,
				   .key = { ADDR4, PROTO, PORT },
				   .data = { MARK } },
	[SL_NFT_LISTEN6_RANGE] = { .name = "listen6_range",
				   .comment = "port ranges of one address: route",
				   .flags = NFT_SET_MAP | NFT_SET_INTERVAL,
				   .key = { ADDR6, PROTO, PORT },
				   .data = { MARK } },
	[SL_NFT_ANY4] = { .name = "any4",
			  .comment = "listeners of every local address: route",
			  .flags = NFT_SET_MAP,
			  .key = { PROTO, PORT },
			  .data = { MARK } },
	[SL_NFT_ANY6] = { .name = "any6",
			  .comment = "listeners of every local address: route",
			  .flags = NFT_SET_MAP,
			  .key = { PROTO, PORT },
			  .data = { MARK } },
	[SL_NFT_ANY4_RANGE] = { .name = "any4_range",
				.comment = "port ranges of every local address: route",
				.flags = NFT_SET_MAP | NFT_SET_INTERVAL,
				.key = { PROTO, PORT },
				.data = { MARK } },
	[SL_NFT_ANY6_RANGE] = { .name = "any6_range",
				.comment = "port ranges of every local address: route",
				.flags = NFT_SET_MAP | NFT_SET_INTERVAL,
				.key = { PROTO, PORT },
				.data = { MARK } },
	[SL_NFT_TO4] = { .name = "to4",
			 .comment = "route: target",
			 .flags = NFT_SET_MAP,
			 .key = { MARK },
			 .data = { ADDR4, PORT } },
	[SL_NFT_TO6] = { .name = "to6",
			 .comment = "route: target",
			 .flags = NFT_SET_MAP,
			 .key = { MARK },
			 .data = { ADDR6, PORT } },
	[SL_NFT_TO4_ADDRESS] = { .name = "to4_address",
				 .comment = "route: target, on the same port",
				 .flags = NFT_SET_MAP,
				 .key = { MARK },
				 .data = { ADDR4 } },
	[SL_NFT_TO6_ADDRESS] = { .name = "to6_address",
				 .comment = "route: target, on the same port",
				 .flags = NFT_SET_MAP,
				 .key = { MARK },
				 .data = { ADDR6 } },
	[SL_NFT_ROUTE_COUNTER] = { .name = "route_counter",
				   .comment = "route: flows it was given",
				   .key = { MARK },
				   .has_counters = true },
	[SL_NFT_ROUTE_POLICY] = { .name = "route_policy",
				  .comment = "route: lists and limits",
				  .flags = NFT_SET_MAP,
				  .key = { MARK },
				  .has_verdicts = true },
	[SL_NFT_ROUTE_SLOTS] = { .name = "route_slots",
				 .comment = "route: several targets",
				 .flags = NFT_SET_MAP,
				 .key = { MARK },
				 .has_verdicts = true },
	[SL_NFT_ROUTE_REFUSE] = { .name = "route_refuse",
				  .comment = "route: how it refuses",
				  .flags = NFT_SET_MAP,
				  .key = { MARK },
				  .has_verdicts = true },
	[SL_NFT_ROUTE_PACKETS] = { .name = "route_packets",
				   .comment = "route: limit of packets",
				   .flags = NFT_SET_MAP,
				   .key = { MARK },
				   .has_verdicts = true },
	[SL_NFT_MASQ] = { .name = "masq",
			  .comment = "routes whose targets see our address",
			  .key = { MARK } },
	[SL_NFT_KILL] = { .name = "kill",
			  .comment = "routes whose flows are cut",
			  .key = { MARK } },
	[SL_NFT_HAIRPIN4] = { .name = "hairpin4",
			      .comment = "targets that are their own clients",
			      .key = { ADDR4, ADDR4 } },
	[SL_NFT_HAIRPIN6] = { .name = "hairpin6",
			      .comment = "targets that are their own clients",
			      .key = { ADDR6, ADDR6 } },
	[SL_NFT_ALLOW4] = { .name = "allow4",
			    .comment = "clients of all routes",
			    .flags = NFT_SET_INTERVAL,
			    .key = { ADDR4 } },
	[SL_NFT_ALLOW6] = { .name = "allow6",
			    .comment = "clients of all routes",
			    .flags = NFT_SET_INTERVAL,
			    .key = { ADDR6 } },
	[SL_NFT_DENY4] = { .name = "deny4",
			   .comment = "clients that every route refuses",
			   .flags = NFT_SET_INTERVAL,
			   .key = { ADDR4 } },
	[SL_NFT_DENY6] = { .name = "deny6",
			   .comment = "clients that every route refuses",
			   .flags = NFT_SET_INTERVAL,
			   .key = { ADDR6 } },
	[SL_NFT_SLOTS4] = { .name = "slots4",
			    .flags = NFT_SET_MAP,
			    .key = { INTEGER },
			    .data = { ADDR4, PORT } },
	[SL_NFT_SLOTS6] = { .name = "slots6",
			    .flags = NFT_SET_MAP,
			    .key = { INTEGER },
			    .data = { ADDR6, PORT } },
	[SL_NFT_SLOTS4_ADDRESS] = { .name = "slots4_address",
				    .flags = NFT_SET_MAP,
				    .key = { INTEGER },
				    .data = { ADDR4 } },
	[SL_NFT_SLOTS6_ADDRESS] = { .name = "slots6_address",
				    .flags = NFT_SET_MAP,
				    .key = { INTEGER },
				    .data = { ADDR6 } },
	[SL_NFT_CLIENTS4] = { .name = "clients4",
			      .flags = NFT_SET_EVAL,
			      .key = { ADDR4 },
			      .size = CLIENTS },
	[SL_NFT_CLIENTS6] = { .name = "clients6",
			      .flags = NFT_SET_EVAL,
			      .key = { ADDR6 },
			      .size = CLIENTS },
	[SL_NFT_NEW4] = { .name = "new4",
			  .flags = NFT_SET_EVAL | NFT_SET_TIMEOUT,
			  .key = { ADDR4 },
			  .size = CLIENTS,
			  .timeout_ms = FORGET_MS },
	[SL_NFT_NEW6] = { .name = "new6",
			  .flags = NFT_SET_EVAL | NFT_SET_TIMEOUT,
			  .key = { ADDR6 },
			  .size = CLIENTS,
			  .timeout_ms = FORGET_MS },
	[SL_NFT_OFFLOADS] = { .name = "offloads",
			      .comment = "routes whose flows may pass by the flow table",
			      .key = { MARK } },
};
_Static_assert(SL_ARRAY_LEN(forms) == SL_NFT_FORM_COUNT_, "a form has no description");

void sl_nft_form_name(enum sl_nft_form form, uint32_t mark, char ret[SL_NFT_NAME])
{
	if (form < SL_NFT_FIXED_COUNT_ || form == SL_NFT_OFFLOADS || mark == 0)
		snprintf(ret, SL_NFT_NAME, "%s", forms[form].name);
	else
		snprintf(ret, SL_NFT_NAME, "%s_%u", forms[form].name, mark);
}

const char *sl_nft_form_comment(enum sl_nft_form form)
{
	return forms[form].comment;
}

static uint8_t type_len(uint8_t type)
{
	switch (type) {
	case ADDR6:
		return 16;
	case PROTO:
		return 1;
	case PORT:
		return 2;
	case NONE:
		return 0;
	default:
		return 4;
	}
}

/* A single field has its own length; concatenated ones are padded to words of 4 bytes. */
static void describe(const uint8_t *types, size_t max, uint32_t *ret_type, uint32_t *ret_len,
		     size_t *ret_n)
{
	uint32_t type = 0, len = 0;
	size_t n = 0;

	while (n < max && types[n]) {
		type = type << TYPE_BITS | types[n];
		len += (type_len(types[n]) + 3u) / 4 * 4;
		n++;
	}
	*ret_type = type;
	*ret_len = n == 1 ? type_len(types[0]) : len;
	*ret_n = n;
}

/* How nft prints integers: 1 as the host does, 2 big endian, 0 for what it knows by the type. */
static uint8_t byte_order(const uint8_t *types, size_t n)
{
	if (n != 1)
		return 0;
	return types[0] == MARK || types[0] == INTEGER ? 1 : 2;
}

static void add(struct sl_nft_set *set, const void *bytes, size_t n)
{
	memcpy(set->layout + set->n_layout, bytes, n);
	set->n_layout = (uint8_t)(set->n_layout + n);
}

/*
 * nft has no name for the type "integer": maps with such keys are declared by an expression of
 * that type, here "numgen inc mod 65536", and then the data must be declared so, too: "ip daddr .
 * th dport". The bytes are those nft 1.0.6 writes: type, length, value, nested.
 */
static void add_typeof(struct sl_nft_set *set, bool is_ip6, bool has_port)
{
	static const uint8_t key[] = { 3, 26, 0, 4, 0x17, 0, 0, 0, 1, 18, 0, 4, 0, 0,
				       0, 0,  1, 4, 0,    0, 1, 0, 2, 4,  0, 0, 0, 0 };
	static const uint8_t port[] = { 1, 20, 0, 4, 7, 0, 0, 0, 1, 12, 0,
					4, 11, 0, 0, 0, 1, 4, 2, 0, 0,  0 };
	const uint8_t protocol = is_ip6 ? 13 : 12, field = is_ip6 ? 9 : 12;
	const uint8_t address[] = { 0,        4, 7, 0, 0, 0, 1,     12, 0, 4,
				    protocol, 0, 0, 0, 1, 4, field, 0,  0, 0 };

	add(set, key, sizeof(key));
	if (has_port) {
		add(set, (const uint8_t[]){ 4, 52, 0, 4, 13, 0, 0, 0, 1, 44, 0, 20 }, 12);
		add(set, address, sizeof(address));
		add(set, port, sizeof(port));
	} else {
		add(set, (const uint8_t[]){ 4, 20 }, 2);
		add(set, address, sizeof(address));
	}
}

void sl_nft_form_set(enum sl_nft_form form, uint32_t mark, struct sl_nft_set *ret)
{
	const struct form *f = &forms[form];
	struct sl_nft_set set = { .flags = f->flags, .size = f->size, .timeout_ms = f->timeout_ms };
	size_t n_key, n_data;
	uint8_t order;

	sl_nft_form_name(form, mark, set.name);
	describe(f->key, SL_ARRAY_LEN(f->key), &set.key_type, &set.key_len, &n_key);
	describe(f->data, SL_ARRAY_LEN(f->data), &set.data_type, &set.data_len, &n_data);
	if (f->flags & NFT_SET_INTERVAL && n_key > 1) {
		set.flags |= NFT_SET_CONCAT;
		for (size_t i = 0; i < n_key; i++)
			set.field[set.n_fields++] = type_len(f->key[i]);
	}
	if (f->has_verdicts)
		set.data_type = VERDICT;
	if (f->has_counters) {
		set.flags |= NFT_SET_OBJECT;
		set.object_type = NFT_OBJECT_COUNTER;
	}
	order = byte_order(f->key, n_key);
	add(&set, (const uint8_t[]){ 0, 4, order, 0, 0, 0 }, 6);
	if (set.flags & NFT_SET_MAP) {
		order = f->has_verdicts ? 0 : byte_order(f->data, n_data);
		add(&set, (const uint8_t[]){ 1, 4, order, 0, 0, 0 }, 6);
	}
	if (f->key[0] == INTEGER)
		add_typeof(&set, f->data[0] == ADDR6, n_data == 2);
	*ret = set;
}
