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

static const struct form {
	const char *name;
	const char *comment;
	uint32_t flags; /* beside those that follow from the fields */
	uint8_t key[3];
	uint8_t data[2];
	bool has_verdicts;
	bool has_counters;
} forms[] = {
	[SL_NFT_LISTEN4] = { "listen4",
			     "listeners of one address: route",
			     NFT_SET_MAP,
			     { ADDR4, PROTO, PORT },
			     { MARK },
			     false,
			     false },
	[SL_NFT_LISTEN6] = { "listen6",
			     "listeners of one address: route",
			     NFT_SET_MAP,
			     { ADDR6, PROTO, PORT },
			     { MARK },
			     false,
			     false },
	[SL_NFT_LISTEN4_RANGE] = { "listen4_range",
				   "port ranges of one address: route",
				   NFT_SET_MAP | NFT_SET_INTERVAL,
				   { ADDR4, PROTO, PORT },
				   { MARK },
				   false,
				   false },
	[SL_NFT_LISTEN6_RANGE] = { "listen6_range",
				   "port ranges of one address: route",
				   NFT_SET_MAP | NFT_SET_INTERVAL,
				   { ADDR6, PROTO, PORT },
				   { MARK },
				   false,
				   false },
	[SL_NFT_ANY4] = { "any4",
			  "listeners of every local address: route",
			  NFT_SET_MAP,
			  { PROTO, PORT },
			  { MARK },
			  false,
			  false },
	[SL_NFT_ANY6] = { "any6",
			  "listeners of every local address: route",
			  NFT_SET_MAP,
			  { PROTO, PORT },
			  { MARK },
			  false,
			  false },
	[SL_NFT_ANY4_RANGE] = { "any4_range",
				"port ranges of every local address: route",
				NFT_SET_MAP | NFT_SET_INTERVAL,
				{ PROTO, PORT },
				{ MARK },
				false,
				false },
	[SL_NFT_ANY6_RANGE] = { "any6_range",
				"port ranges of every local address: route",
				NFT_SET_MAP | NFT_SET_INTERVAL,
				{ PROTO, PORT },
				{ MARK },
				false,
				false },
	[SL_NFT_TO4] = { "to4",
			 "route: target",
			 NFT_SET_MAP,
			 { MARK },
			 { ADDR4, PORT },
			 false,
			 false },
	[SL_NFT_TO6] = { "to6",
			 "route: target",
			 NFT_SET_MAP,
			 { MARK },
			 { ADDR6, PORT },
			 false,
			 false },
	[SL_NFT_TO4_ADDRESS] = { "to4_address",
				 "route: target, on the same port",
				 NFT_SET_MAP,
				 { MARK },
				 { ADDR4 },
				 false,
				 false },
	[SL_NFT_TO6_ADDRESS] = { "to6_address",
				 "route: target, on the same port",
				 NFT_SET_MAP,
				 { MARK },
				 { ADDR6 },
				 false,
				 false },
	[SL_NFT_ROUTE_COUNTER] = { "route_counter",
				   "route: flows it was given",
				   0,
				   { MARK },
				   { NONE },
				   false,
				   true },
	[SL_NFT_ROUTE_POLICY] = { "route_policy",
				  "route: lists and limits",
				  NFT_SET_MAP,
				  { MARK },
				  { NONE },
				  true,
				  false },
	[SL_NFT_ROUTE_SLOTS] = { "route_slots",
				 "route: several targets",
				 NFT_SET_MAP,
				 { MARK },
				 { NONE },
				 true,
				 false },
	[SL_NFT_ROUTE_REFUSE] = { "route_refuse",
				  "route: how it refuses",
				  NFT_SET_MAP,
				  { MARK },
				  { NONE },
				  true,
				  false },
	[SL_NFT_ROUTE_PACKETS] = { "route_packets",
				   "route: limit of packets",
				   NFT_SET_MAP,
				   { MARK },
				   { NONE },
				   true,
				   false },
	[SL_NFT_MASQ] = { "masq",
			  "routes whose targets see our address",
			  0,
			  { MARK },
			  { NONE },
			  false,
			  false },
	[SL_NFT_KILL] = { "kill",
			  "routes whose flows are cut",
			  0,
			  { MARK },
			  { NONE },
			  false,
			  false },
	[SL_NFT_HAIRPIN4] = { "hairpin4",
			      "targets that are their own clients",
			      0,
			      { ADDR4, ADDR4 },
			      { NONE },
			      false,
			      false },
	[SL_NFT_HAIRPIN6] = { "hairpin6",
			      "targets that are their own clients",
			      0,
			      { ADDR6, ADDR6 },
			      { NONE },
			      false,
			      false },
	[SL_NFT_ALLOW4] = { "allow4", NULL, NFT_SET_INTERVAL, { ADDR4 }, { NONE }, false, false },
	[SL_NFT_ALLOW6] = { "allow6", NULL, NFT_SET_INTERVAL, { ADDR6 }, { NONE }, false, false },
	[SL_NFT_DENY4] = { "deny4", NULL, NFT_SET_INTERVAL, { ADDR4 }, { NONE }, false, false },
	[SL_NFT_DENY6] = { "deny6", NULL, NFT_SET_INTERVAL, { ADDR6 }, { NONE }, false, false },
	[SL_NFT_SLOTS4] = { "slots4",
			    NULL,
			    NFT_SET_MAP,
			    { INTEGER },
			    { ADDR4, PORT },
			    false,
			    false },
	[SL_NFT_SLOTS6] = { "slots6",
			    NULL,
			    NFT_SET_MAP,
			    { INTEGER },
			    { ADDR6, PORT },
			    false,
			    false },
	[SL_NFT_SLOTS4_ADDRESS] = { "slots4_address",
				    NULL,
				    NFT_SET_MAP,
				    { INTEGER },
				    { ADDR4 },
				    false,
				    false },
	[SL_NFT_SLOTS6_ADDRESS] = { "slots6_address",
				    NULL,
				    NFT_SET_MAP,
				    { INTEGER },
				    { ADDR6 },
				    false,
				    false },
};
_Static_assert(SL_ARRAY_LEN(forms) == SL_NFT_FORM_COUNT_, "a form has no description");

void sl_nft_form_name(enum sl_nft_form form, uint32_t mark, char ret[SL_NFT_NAME])
{
	if (form < SL_NFT_FIXED_COUNT_)
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
	struct sl_nft_set set = { .flags = f->flags };
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
