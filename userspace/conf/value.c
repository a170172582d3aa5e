/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "conf/keys.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/num.h"

int sl_refuse(char why[SL_WHY_LEN], const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(why, SL_WHY_LEN, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

/* ---- the nearest word ---- */

#define MAX_WORD 40

static char folded(char c)
{
	return c == '-' ? '_' : (char)tolower((unsigned char)c);
}

static size_t least(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* Insertions, deletions, replacements and swapped neighbours; case and '-' do not count. */
static size_t distance(const char *a, size_t na, const char *b, size_t nb)
{
	size_t row[3][MAX_WORD + 1];
	size_t *before = row[0], *last = row[1], *now = row[2], *spare;

	for (size_t j = 0; j <= nb; j++)
		last[j] = before[j] = j;
	for (size_t i = 1; i <= na; i++) {
		now[0] = i;
		for (size_t j = 1; j <= nb; j++) {
			size_t cost = folded(a[i - 1]) != folded(b[j - 1]);

			now[j] = least(least(last[j] + 1, now[j - 1] + 1), last[j - 1] + cost);
			if (i > 1 && j > 1 && folded(a[i - 1]) == folded(b[j - 2]) &&
			    folded(a[i - 2]) == folded(b[j - 1]))
				now[j] = least(now[j], before[j - 2] + 1);
		}
		spare = before;
		before = last;
		last = now;
		now = spare;
	}
	return last[nb];
}

void sl_nearest_offer(struct sl_nearest *best, const char *given, const char *word)
{
	size_t n = strlen(given), m = strlen(word), d, limit;

	if (n == 0 || n > MAX_WORD || m > MAX_WORD)
		return;
	limit = least(n, m) <= 3 ? 1 : least(n, m) <= 7 ? 2 : 3;
	d = distance(given, n, word, m);
	if (d > limit || (best->word && d >= best->distance))
		return;
	best->word = word;
	best->distance = d;
}

/* ---- ports ---- */

static int parse_port_range(const char *given, const char *text, struct sl_port_spec *p,
			    char why[SL_WHY_LEN])
{
	size_t n = strspn(text, "0123456789");
	char buf[SL_QUOTE_LEN];
	uint64_t from, to;

	if (n > 0 && text[n] == '/')
		return sl_refuse(why,
				 "%s: ports stand alone; 'protocol: udp' beside 'ports:' makes a "
				 "route for UDP, and both protocols take a route each",
				 sl_quote(given, buf));
	if (n == 0 || (text[n] != '\0' && text[n] != '-') ||
	    sl_num_parsen(text, n, 1, 65535, &from) < 0)
		goto bad;
	to = from;
	if (text[n] == '-' && sl_num_parse(text + n + 1, 1, 65535, &to) < 0)
		goto bad;
	if (to < from)
		return sl_refuse(why, "%s is the wrong way round: write %" PRIu64 "-%" PRIu64,
				 sl_quote(given, buf), to, from);
	p->from = (uint16_t)from;
	p->to = (uint16_t)to;
	return 0;
bad:
	return sl_refuse(
		why,
		"%s is not a port (1-65535) or a range like 8000-8100; where a listener is meant, "
		"an address may stand before it, like 10.0.0.1:443 or \"[::1]:443\"",
		sl_quote(given, buf));
}

static int parse_listen_ip(const char *given, const char *text, size_t n, struct sl_addr *ret,
			   char why[SL_WHY_LEN])
{
	char ip[SL_ADDR_TEXT], buf[SL_QUOTE_LEN];
	bool brackets = n >= 2 && text[0] == '[' && text[n - 1] == ']';
	struct sl_addr a;

	if (brackets) {
		text++;
		n -= 2;
	}
	(void)snprintf(ip, sizeof(ip), "%.*s", (int)least(n, sizeof(ip)), text);
	if (n == 1 && *ip == '*')
		return sl_refuse(why, "%s: for every address write the port alone, like %s",
				 sl_quote(given, buf), text + 2);
	if (n >= sizeof(ip) || sl_addr_parse_ip(ip, &a) < 0)
		return sl_refuse(
			why,
			"%s does not begin with an address of this host such as 10.0.0.1 or "
			"[::1] (names are not possible here)",
			sl_quote(given, buf));
	if ((sl_addr_family(&a) == AF_INET6) != brackets)
		return sl_refuse(why,
				 brackets ? "%s: only an IPv6 address stands in brackets"
					  : "%s: put the IPv6 address in brackets, like "
					    "\"[2001:db8::1]:443\"",
				 sl_quote(given, buf));
	sl_addr_set(ret, &a.sa);
	return 0;
}

int sl_ports_parse(const char *text, struct sl_port_spec *ret, char why[SL_WHY_LEN])
{
	const char *colon = strrchr(text, ':');
	struct sl_port_spec p = { 0 };
	int r;

	r = parse_port_range(text, colon ? colon + 1 : text, &p, why);
	if (r == 0 && colon)
		r = parse_listen_ip(text, text, (size_t)(colon - text), &p.ip, why);
	if (r < 0)
		return r;
	p.mark = ret->mark;
	*ret = p;
	return 0;
}

/* ---- targets ---- */

/* RFC 1123 with underscores, which real zones have; a dot at the end is allowed. */
static bool is_host_name(const char *host)
{
	size_t n = strlen(host), label = 0;

	if (n == 0 || n > 253)
		return false;
	for (size_t i = 0; i < n; i++) {
		char c = host[i];

		if (c == '.') {
			if (label == 0 || host[i - 1] == '-')
				return false;
			label = 0;
			continue;
		}
		if (!isalnum((unsigned char)c) && c != '-' && c != '_')
			return false;
		if ((c == '-' && label == 0) || ++label > 63)
			return false;
	}
	return host[n - 1] != '-';
}

/* No name ends in a number: such a text is meant to be an address (WHATWG URL says the same). */
static bool looks_like_ipv4(const char *host)
{
	const char *dot = strrchr(host, '.');
	const char *last = dot ? dot + 1 : host;

	return *last && last[strspn(last, "0123456789")] == '\0';
}

static int parse_host(const char *given, struct sl_target_parts *t, bool brackets,
		      char why[SL_WHY_LEN])
{
	char buf[SL_QUOTE_LEN], host[SL_QUOTE_LEN];
	struct sl_addr a;

	if (sl_addr_parse_ip(t->host, &a) == 0) {
		if (sl_addr_family(&a) == AF_INET && brackets)
			return sl_refuse(why, "%s: only an IPv6 address stands in brackets",
					 sl_quote(given, buf));
		if (sl_addr_is_any(&a) || sl_addr_is_many(&a))
			return sl_refuse(why,
					 "%s is no address to connect to: write the target's own, "
					 "like 127.0.0.1:8080",
					 sl_quote(given, buf));
		sl_addr_set(&t->addr, &a.sa);
		return 0;
	}
	if (brackets)
		return sl_refuse(
			why, "%s is not an IPv6 address in brackets such as \"[2001:db8::1]:80\"",
			sl_quote(given, buf));
	if (looks_like_ipv4(t->host))
		return sl_refuse(why, "%s is not an IPv4 address (four numbers from 0 to 255)",
				 sl_quote(t->host, host));
	if (!is_host_name(t->host))
		return sl_refuse(
			why,
			"%s is not a target: write host:port with a host name or an address, "
			"like backend.example.com:8080, 10.0.0.5:80 or \"[2001:db8::1]:80\"",
			sl_quote(given, buf));
	return 0;
}

int sl_target_parse(const char *text, struct sl_target_parts *ret, char why[SL_WHY_LEN])
{
	const char *colon = strrchr(text, ':'), *first = strchr(text, ':');
	size_t n = strlen(text);
	struct sl_target_parts t = { 0 };
	char buf[SL_QUOTE_LEN];
	bool brackets = *text == '[';
	struct sl_addr a;
	uint64_t port;
	int r;

	if (brackets && text[n - 1] == ']')
		colon = NULL;
	if (!brackets && first != colon) {
		if (sl_addr_parse_ip(text, &a) < 0 || sl_addr_family(&a) != AF_INET6)
			return sl_refuse(why,
					 "%s is not a target: write host:port, an IPv6 address in "
					 "brackets, like \"[2001:db8::1]:80\"",
					 sl_quote(text, buf));
		colon = NULL;
	}
	if (colon) {
		if (sl_num_parse(colon + 1, 1, 65535, &port) < 0)
			return sl_refuse(why, "%s does not end in a port from 1 to 65535, like %s",
					 sl_quote(text, buf), "10.0.0.5:80");
		t.port = (uint16_t)port;
		n = (size_t)(colon - text);
	}
	if (brackets) {
		if (n < 2 || text[n - 1] != ']')
			return sl_refuse(why, "%s: the closing bracket is missing",
					 sl_quote(text, buf));
		text++;
		n -= 2;
	}
	if (n >= sizeof(t.host))
		return sl_refuse(why, "%s is longer than a host name can be (253 characters)",
				 sl_quote(text, buf));
	memcpy(t.host, text, n);
	r = parse_host(brackets ? text - 1 : text, &t, brackets, why);
	if (r == 0)
		*ret = t;
	return r;
}

/* ---- scalars ---- */

static void list_words(const struct sl_word *words, bool all, char buf[SL_WHY_LEN])
{
	size_t used = 0;

	buf[0] = '\0';
	for (; words->name; words++) {
		if (words->later && !all)
			continue;
		used += (size_t)snprintf(buf + used, SL_WHY_LEN - used, "%s%s", used ? ", " : "",
					 words->name);
	}
}

static bool find_word(const struct sl_word *words, const char *text, const struct sl_word **ret)
{
	for (; words && words->name; words++) {
		if (strcmp(words->name, text) == 0) {
			*ret = words;
			return true;
		}
	}
	return false;
}

static int refuse_word(const struct sl_key *key, const char *text, char why[SL_WHY_LEN])
{
	struct sl_nearest best = { 0 };
	char words[SL_WHY_LEN], buf[SL_QUOTE_LEN];

	for (const struct sl_word *w = key->words; w->name; w++)
		sl_nearest_offer(&best, text, w->name);
	list_words(key->words, true, words);
	if (best.word && strlen(best.word) > 3) /* of "v1" and "1.2" every other word is near */
		return sl_refuse(why, "%s is not one of: %.400s; did you mean '%s'?",
				 sl_quote(text, buf), words, best.word);
	return sl_refuse(why, "%s is not one of: %.400s", sl_quote(text, buf), words);
}

static int parse_enum(const struct sl_key *key, const char *text, struct sl_value *v,
		      char why[SL_WHY_LEN])
{
	const struct sl_word *w;

	if (!find_word(key->words, text, &w))
		return refuse_word(key, text, why);
	v->n = w->value;
	v->is_later = w->later;
	if (w->later) {
		char words[SL_WHY_LEN], buf[SL_QUOTE_LEN];

		list_words(key->words, false, words);
		(void)sl_refuse(why, "%s is not supported by this build; supported: %.400s",
				sl_quote(text, buf), words);
	}
	return 0;
}

static int parse_bool(const char *text, struct sl_value *v, char why[SL_WHY_LEN])
{
	char buf[SL_QUOTE_LEN];

	if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
		return sl_refuse(why, "%s is neither true nor false", sl_quote(text, buf));
	v->n = *text == 't';
	return 0;
}

static int parse_int(const struct sl_key *key, const char *text, struct sl_value *v,
		     char why[SL_WHY_LEN])
{
	const struct sl_word *w;
	char buf[SL_QUOTE_LEN];

	if (find_word(key->words, text, &w)) {
		v->n = w->value;
		return 0;
	}
	if (sl_num_parse(text, key->min, key->max, &v->n) == 0)
		return 0;
	if (key->min == key->max)
		return sl_refuse(why, "%s is not supported: the only value is %" PRIu64,
				 sl_quote(text, buf), key->min);
	return sl_refuse(why, "%s is not a whole number from %" PRIu64 " to %" PRIu64 "%s%s",
			 sl_quote(text, buf), key->min, key->max, key->words ? ", or " : "",
			 key->words ? key->words->name : "");
}

static int parse_duration(const struct sl_key *key, const char *text, struct sl_value *v,
			  char why[SL_WHY_LEN])
{
	char buf[SL_QUOTE_LEN], lo[32], hi[32];
	int r = sl_num_parse_duration(text, &v->n);

	if (r == -EINVAL && *text && text[strspn(text, "0123456789")] == '\0')
		return sl_refuse(why, "%s has no unit: write %.20ss for seconds (ms, s, m, h, d)",
				 sl_quote(text, buf), text);
	if (r == -EINVAL)
		return sl_refuse(
			why,
			"%s is not a duration: write a whole number and one of ms, s, m, h, d, "
			"like 250ms or 30s",
			sl_quote(text, buf));
	if (r == 0 && v->n == 0 && (key->flags & SL_KEY_OFF_IS_ZERO))
		return 0;
	if (r < 0 || v->n < key->min || v->n > key->max)
		return sl_refuse(why, "%s is out of range: %s to %s%s", sl_quote(text, buf),
				 sl_num_format_duration(key->min, lo),
				 sl_num_format_duration(key->max, hi),
				 key->flags & SL_KEY_OFF_IS_ZERO ? ", or 0 for off" : "");
	return 0;
}

static int parse_size(const struct sl_key *key, const char *text, struct sl_value *v,
		      char why[SL_WHY_LEN])
{
	char buf[SL_QUOTE_LEN];
	int r = sl_num_parse_size(text, &v->n);

	if (r == -EINVAL)
		return sl_refuse(why, "%s is not a size such as 65536, 64KiB, 1MiB or 2GiB",
				 sl_quote(text, buf));
	if (r < 0 || v->n < key->min || v->n > key->max)
		return sl_refuse(why, "%s is out of range: %" PRIu64 " to %" PRIu64 " bytes",
				 sl_quote(text, buf), key->min, key->max);
	return 0;
}

static int parse_rate(const char *text, struct sl_value *v, char why[SL_WHY_LEN])
{
	char buf[SL_QUOTE_LEN];
	int r = sl_num_parse_rate(text, &v->n);

	if (r == -ERANGE)
		return sl_refuse(why, "%s is out of range", sl_quote(text, buf));
	if (r < 0)
		return sl_refuse(why, "%s is not a rate: write 50/s, 600/m, or 0 for no limit",
				 sl_quote(text, buf));
	if (v->n && sl_num_parsen(text, strcspn(text, "/"), 1, UINT32_MAX, &v->burst) < 0)
		return sl_refuse(why, "%s is out of range", sl_quote(text, buf));
	return 0;
}

static int parse_percent(const struct sl_key *key, const char *text, struct sl_value *v,
			 char why[SL_WHY_LEN])
{
	char buf[SL_QUOTE_LEN];

	if (sl_num_parse_percent(text, &v->n) < 0 || v->n < key->min || v->n > key->max)
		return sl_refuse(why, "%s is not a percentage from %" PRIu64 "%% to %" PRIu64 "%%",
				 sl_quote(text, buf), key->min, key->max);
	return 0;
}

static int parse_text(const struct sl_key *key, const char *text, struct sl_value *v,
		      char why[SL_WHY_LEN])
{
	const struct sl_word *w;
	char buf[SL_QUOTE_LEN];

	v->text = NULL;
	if (find_word(key->words, text, &w))
		return 0;
	if (key->format->explain && key->format->explain(text, why) < 0)
		return -EINVAL;
	if (key->format->is_valid && !key->format->is_valid(text))
		return sl_refuse(why, "%s is not %s, like %s", sl_quote(text, buf),
				 key->format->what, key->format->example);
	v->text = text;
	return 0;
}

static int parse_addr(const struct sl_key *key, const char *text, struct sl_value *v,
		      char why[SL_WHY_LEN])
{
	const struct sl_word *w;
	char buf[SL_QUOTE_LEN];

	if (find_word(key->words, text, &w))
		return 0;
	if (sl_addr_parse(text, &v->addr) < 0)
		return sl_refuse(why,
				 "%s is not an address with a port, like 127.0.0.1:9180 or "
				 "\"[::1]:9180\"%s%s",
				 sl_quote(text, buf), key->words ? ", or " : "",
				 key->words ? key->words->name : "");
	return 0;
}

int sl_value_parse(const struct sl_key *key, const char *text, struct sl_value *ret,
		   char why[SL_WHY_LEN])
{
	struct sl_target_parts target;
	struct sl_port_spec ports = { 0 };
	struct sl_value v = { 0 };
	int r = -EINVAL;

	switch (key->type) {
	case SL_KEY_BOOL:
		r = parse_bool(text, &v, why);
		break;
	case SL_KEY_INT:
		r = parse_int(key, text, &v, why);
		break;
	case SL_KEY_DURATION:
		r = parse_duration(key, text, &v, why);
		break;
	case SL_KEY_SIZE:
		r = parse_size(key, text, &v, why);
		break;
	case SL_KEY_RATE:
		r = parse_rate(text, &v, why);
		break;
	case SL_KEY_PERCENT:
		r = parse_percent(key, text, &v, why);
		break;
	case SL_KEY_ENUM:
		r = parse_enum(key, text, &v, why);
		break;
	case SL_KEY_TEXT:
		r = parse_text(key, text, &v, why);
		break;
	case SL_KEY_ADDR:
		r = parse_addr(key, text, &v, why);
		break;
	case SL_KEY_PORTS:
		r = sl_ports_parse(text, &ports, why);
		break;
	case SL_KEY_TARGET:
		r = sl_target_parse(text, &target, why);
		break;
	case SL_KEY_OBJECT:
	case SL_KEY_MAP:
	case SL_KEY_LIST:
	case SL_KEY_ONE_OR_LIST:
		r = sl_refuse(why, "not a single value");
		break;
	}
	if (r == 0)
		*ret = v;
	return r;
}

/* ---- storing ---- */

static void store_number(uint64_t n, size_t size, void *to)
{
	uint8_t one = (uint8_t)n;
	uint32_t four = (uint32_t)n;

	if (size == sizeof(one))
		memcpy(to, &one, sizeof(one));
	else if (size == sizeof(four))
		memcpy(to, &four, sizeof(four));
	else
		memcpy(to, &n, sizeof(n));
}

static int store_text(const char *text, char **to)
{
	char *copy = text ? strdup(text) : NULL;

	if (text && !copy)
		return -ENOMEM;
	free(*to);
	*to = copy;
	return 0;
}

int sl_key_store(const struct sl_key *key, const char *text, void *record)
{
	void *to = (char *)record + key->offset;
	struct sl_value v;
	char why[SL_WHY_LEN];
	int r;

	if (key->size == 0)
		return 0;
	r = sl_value_parse(key, text, &v, why);
	if (r < 0)
		return r;
	if (key->type == SL_KEY_TEXT)
		return store_text(v.text, to);
	if (key->type == SL_KEY_ADDR)
		memcpy(to, &v.addr, sizeof(v.addr));
	else
		store_number(v.n, key->type == SL_KEY_RATE ? sizeof(v.n) : key->size, to);
	if (key->type == SL_KEY_RATE)
		memcpy((char *)to + sizeof(v.n), &v.burst, sizeof(v.burst));
	return 0;
}

int sl_key_store_defaults(const struct sl_key *keys, void *record)
{
	int r = 0;

	for (; r == 0 && keys->name; keys++) {
		if (keys->flags & SL_KEY_APART)
			continue;
		if (keys->type == SL_KEY_OBJECT)
			r = sl_key_store_defaults(keys->keys, record);
		else if (keys->def)
			r = sl_key_store(keys, keys->def, record);
	}
	return r;
}

/* A mapping, or the short form that stands for one. */
static int store_object(const struct sl_key *key, const struct sl_node *n, void *record)
{
	int r = 0;

	if (key->flags & SL_KEY_WHOLE)
		r = sl_key_store_defaults(key->keys, record);
	if (r < 0)
		return r;
	if (n->kind == SL_NODE_SCALAR && key->item)
		return sl_key_store(key->item, n->text, record);
	if (n->kind == SL_NODE_MAPPING && key->size)
		store_number(1, key->size, (char *)record + key->offset);
	return sl_key_store_node(key->keys, n, record);
}

int sl_key_store_node(const struct sl_key *keys, const struct sl_node *node, void *record)
{
	int r = 0;

	if (node->kind != SL_NODE_MAPPING)
		return 0;
	for (const struct sl_node *n = node->first; r == 0 && n; n = n->next) {
		const struct sl_key *key = n->key_bad ? NULL : sl_key_find(keys, n->key);

		if (!key || n->bad || sl_node_is_null(n) || (key->flags & SL_KEY_APART))
			continue;
		if (key->type == SL_KEY_OBJECT)
			r = store_object(key, n, record);
		else if (n->kind == SL_NODE_SCALAR)
			r = sl_key_store(key, n->text, record);
	}
	return r;
}
