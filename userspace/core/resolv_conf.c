/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "core/resolv_conf.h"

#include <errno.h>
#include <string.h>

#include "base/num.h"
#include "core/words.h"

static void add_server(struct sl_resolv_conf *conf, const struct sl_words *word)
{
	char ip[SL_ADDR_TEXT];
	struct sl_addr a;

	if (conf->n_servers == SL_RESOLV_SERVERS || !sl_words_copy(word, ip, sizeof(ip)) ||
	    sl_addr_parse_ip(ip, &a) < 0)
		return;
	for (size_t i = 0; i < conf->n_servers; i++)
		if (sl_addr_same_ip(&conf->server[i], &a))
			return;
	conf->server[conf->n_servers++] = a;
}

static bool is_name_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '-' || c == '_' || c == '.';
}

static void add_domain(struct sl_resolv_conf *conf, struct sl_words word)
{
	if (word.p[word.n - 1] == '.')
		word.n--;
	for (size_t i = 0; i < word.n; i++)
		if (!is_name_char(word.p[i]))
			return;
	if (word.n > 0 && conf->n_domains < SL_RESOLV_DOMAINS &&
	    sl_words_copy(&word, conf->domain[conf->n_domains], SL_RESOLV_NAME))
		conf->n_domains++;
}

/* "name:number", clamped to [min, max]. */
static void set_option(const struct sl_words *word, const char *name, unsigned min, unsigned max,
		       unsigned *ret)
{
	size_t len = strlen(name);
	uint64_t v;
	int r;

	if (word->n <= len || memcmp(word->p, name, len) != 0)
		return;
	r = sl_num_parsen(word->p + len, word->n - len, 0, max, &v);
	if (r == -ERANGE)
		v = max;
	else if (r < 0)
		return;
	*ret = v < min ? min : (unsigned)v;
}

static void parse_line(struct sl_resolv_conf *conf, struct sl_words line)
{
	struct sl_words key;
	struct sl_words word;

	if (line.n > 0 && (line.p[0] == '#' || line.p[0] == ';'))
		return;
	if (!sl_words_next(&line, &key))
		return;
	if (sl_words_is(&key, "nameserver")) {
		if (sl_words_next(&line, &word))
			add_server(conf, &word);
	} else if (sl_words_is(&key, "search") || sl_words_is(&key, "domain")) {
		conf->n_domains = 0; /* the last of these lines counts */
		while (sl_words_next(&line, &word))
			add_domain(conf, word);
	} else if (sl_words_is(&key, "options")) {
		while (sl_words_next(&line, &word)) {
			set_option(&word, "ndots:", 0, 15, &conf->ndots);
			set_option(&word, "timeout:", 1, 30, &conf->timeout_s);
			set_option(&word, "attempts:", 1, 5, &conf->attempts);
		}
	}
}

void sl_resolv_conf_parse(const char *text, size_t len, struct sl_resolv_conf *ret)
{
	struct sl_words rest = { .p = text, .n = len };
	struct sl_words line;

	*ret = (struct sl_resolv_conf){ .ndots = 1, .timeout_s = 5, .attempts = 2 };
	while (sl_words_next_line(&rest, &line))
		parse_line(ret, line);
}
