/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CONF_KEYS_H
#define SL_CONF_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "conf/yaml.h"
#include "core/tls_hello.h"

/*
 * The one description of what may stand in a configuration. Validation,
 * defaults, the JSON Schema and the reference are all derived from it.
 */
enum sl_key_type {
	SL_KEY_OBJECT = 0,  /* a mapping of `keys`; with `item`, also that short form */
	SL_KEY_MAP,         /* a mapping of any keys to `item` */
	SL_KEY_LIST,        /* a list of `item` */
	SL_KEY_ONE_OR_LIST, /* `item` or a list of it */
	SL_KEY_BOOL,
	SL_KEY_INT,      /* min..max, or one of `words` */
	SL_KEY_DURATION, /* milliseconds, min..max */
	SL_KEY_SIZE,     /* bytes, min..max */
	SL_KEY_RATE,
	SL_KEY_PERCENT,
	SL_KEY_ENUM, /* one of `words` */
	SL_KEY_TEXT, /* of `format`, or one of `words` (which means "none" when stored) */
	SL_KEY_ADDR, /* address:port, or one of `words` */
	SL_KEY_PORTS,
	SL_KEY_TARGET,
};

enum sl_key_flags {
	SL_KEY_REQUIRED = 1,
	SL_KEY_LATER = 2,       /* known, not supported by this build: only its default */
	SL_KEY_APART = 4,       /* an object whose keys belong to a record of its own */
	SL_KEY_OFF_IS_ZERO = 8, /* 0 is allowed beside min..max and switches it off */
	SL_KEY_WHOLE = 16,      /* replaces what `defaults` has, instead of adding to it */
};

struct sl_word {
	const char *name; /* NULL ends a list */
	uint64_t value;
	bool later; /* not supported by this build */
};

/* What a text must look like. */
struct sl_format {
	const char *what;    /* "an absolute path" */
	const char *example; /* "/run/sluice" */
	const char *pattern; /* for the JSON Schema: at least what `is_valid` accepts */
	bool (*is_valid)(const char *text); /* NULL: `explain` says it all */
	/* -EINVAL with a reason that says more than `what`; NULL: there is no such */
	int (*explain)(const char *text, char *why);
};

struct sl_key {
	const char *name; /* NULL ends a list */
	enum sl_key_type type;
	unsigned flags;
	const char *def; /* as written in a file; NULL: none */
	uint64_t min;
	uint64_t max;
	const struct sl_word *words;
	const struct sl_format *format;
	const struct sl_key *keys;
	const struct sl_key *item;
	const char *help;
	size_t offset; /* in the structure of the enclosing record */
	size_t size;   /* 0: not stored by the table; an object's is set to 1 by its mapping */
};

extern const struct sl_key sl_key_root;

const struct sl_key *sl_key_find(const struct sl_key *keys, const char *name);

/* The key at a path from the root on, through lists; the last name is NULL. */
const struct sl_key *sl_key_at(const char *name, ...) __attribute__((sentinel));

/* A scalar as read. */
struct sl_value {
	uint64_t n;          /* number, word, milliseconds, bytes, events per minute */
	uint64_t burst;      /* of a rate */
	const char *text;    /* borrowed; NULL for a word of SL_KEY_TEXT */
	struct sl_addr addr; /* AF_UNSPEC for a word of SL_KEY_ADDR */
	bool is_later;       /* a word this build does not support */
};

#define SL_WHY_LEN 1024
/* Writes a reason; always -EINVAL. */
int sl_refuse(char why[SL_WHY_LEN], const char *fmt, ...) SL_PRINTF(2, 3);

/* -EINVAL with the reason ("'70000' is not ...") in `why`. */
SL_MUST_CHECK int sl_value_parse(const struct sl_key *key, const char *text, struct sl_value *ret,
				 char why[SL_WHY_LEN]);

/* "443", "8000-8100", "10.0.0.1:443", "[::1]:8000-8100"; the mark is the caller's. */
SL_MUST_CHECK int sl_ports_parse(const char *text, struct sl_port_spec *ret, char why[SL_WHY_LEN]);

/* "host:port", "192.0.2.1:80", "[::1]:80", each also without the port. */
struct sl_target_parts {
	struct sl_addr addr; /* AF_UNSPEC: `host` is a name */
	char host[256];
	uint16_t port; /* 0: none given */
};
SL_MUST_CHECK int sl_target_parse(const char *text, struct sl_target_parts *ret,
				  char why[SL_WHY_LEN]);

/* "*.Example.com." as "*.example.com"; a port or another alphabet is explained. */
SL_MUST_CHECK int sl_domain_parse(const char *text, char ret[SL_NAME_MAX + 1],
				  char why[SL_WHY_LEN]);

/* An address, network, range or glob (core/ip_set.h). */
SL_MUST_CHECK int sl_network_parse(const char *text, struct sl_ip_pattern *ret,
				   char why[SL_WHY_LEN]);
/* The network that "10.0.0.1/8" means, as text; false for a text without bits after its prefix. */
#define SL_NETWORK_TEXT (SL_ADDR_TEXT + 4)
bool sl_network_has_host_bits(const char *text, char ret[SL_NETWORK_TEXT]);

/*
 * Stores a scalar into the record's structure at the key's offset. Texts are
 * copied, an earlier one is freed. The value must be valid. -ENOMEM.
 */
SL_MUST_CHECK int sl_key_store(const struct sl_key *key, const char *text, void *record);
/* Stores every default of `keys` and of the objects below that are of the same record. */
SL_MUST_CHECK int sl_key_store_defaults(const struct sl_key *keys, void *record);
/* Stores every usable value of a mapping and of those objects. */
SL_MUST_CHECK int sl_key_store_node(const struct sl_key *keys, const struct sl_node *node,
				    void *record);

/* Checks a tree against the table: kinds, types, ranges, unknown and required keys. */
void sl_key_validate(struct sl_report *report, const struct sl_key *key, struct sl_node *node,
		     const struct sl_path *path);

/* The nearest of the words that is near enough to be meant; NULL for none. */
struct sl_nearest {
	const char *word;
	size_t distance;
};
void sl_nearest_offer(struct sl_nearest *best, const char *given, const char *word);

#endif
