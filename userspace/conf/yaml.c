/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "conf/yaml.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <yaml.h>

#include "conf/utf8.h"

#define MAX_DEPTH 32
/* Repairs are followed by a new start; this bounds what a hostile file can cost. */
#define MAX_REPAIRS 20
#define MAX_REPAIR_BYTES ((size_t)64 << 20)

#define MAX_SPOTS 64

/* A word of the private copy that was changed so that reading could go on. */
struct repair {
	struct sl_mark at;
	struct sl_str why; /* reported after the last start */
};

struct frame {
	struct sl_node *node;
	struct sl_node *key; /* of a mapping whose value comes next */
};

struct reader {
	struct sl_arena *arena;
	struct sl_report *report;
	struct sl_report fresh; /* the report's counts before this file was read */
	uint32_t source;
	struct sl_str text; /* the private copy that libyaml reads */
	struct repair repairs[MAX_REPAIRS];
	size_t n_repairs;
	struct sl_mark spots[MAX_SPOTS]; /* of changes: values that hold one say nothing more */
	size_t n_spots;
	size_t bytes_left;
	size_t seen; /* at_mark()'s last answer: places are asked for in their order, mostly */
	struct sl_mark seen_at;
	bool again; /* a repair was made: start anew */
	struct frame stack[MAX_DEPTH];
	size_t depth;
	struct sl_node *root;
};

bool sl_node_is_null(const struct sl_node *n)
{
	return n->kind == SL_NODE_SCALAR && !n->quoted && !n->bad &&
	       (strcmp(n->text, "") == 0 || strcmp(n->text, "~") == 0 ||
		strcmp(n->text, "null") == 0);
}

struct sl_node *sl_node_find(const struct sl_node *mapping, const char *key)
{
	if (!mapping || mapping->kind != SL_NODE_MAPPING)
		return NULL;
	for (struct sl_node *n = mapping->first; n; n = n->next)
		if (!n->key_bad && strcmp(n->key, key) == 0)
			return sl_node_is_null(n) ? NULL : n;
	return NULL;
}

const struct sl_node *sl_node_find_raw(const struct sl_node *mapping, const char *key)
{
	if (!mapping || mapping->kind != SL_NODE_MAPPING)
		return NULL;
	for (const struct sl_node *n = mapping->first; n; n = n->next)
		if (!n->key_bad && strcmp(n->key, key) == 0)
			return n;
	return NULL;
}

static struct sl_mark mark_of(const struct reader *rd, const yaml_mark_t *m)
{
	return (struct sl_mark){ .source = rd->source,
				 .line = (uint32_t)m->line + 1,
				 .column = (uint32_t)m->column + 1 };
}

/* ---- the private copy ---- */

static void add_spot(struct reader *rd, struct sl_mark m)
{
	if (rd->n_spots < MAX_SPOTS)
		rd->spots[rd->n_spots++] = m;
}

/* Copies the source; what no YAML text may hold is reported and replaced, one for one. */
static void copy_text(struct reader *rd)
{
	const struct sl_conf_source *s = &rd->report->sources->item[rd->source];
	struct sl_mark at = { rd->source, 1, 1 };
	size_t i = 0, len;
	uint32_t c;

	if (s->len >= 3 && memcmp(s->text, "\xef\xbb\xbf", 3) == 0)
		i = 3;
	for (; i < s->len; i += len) {
		len = sl_utf8_break(s->text + i, s->len - i);
		if (len) {
			sl_str_add(&rd->text, s->text + i, len);
			at.line++;
			at.column = 1;
			continue;
		}
		len = sl_utf8_decode(s->text + i, s->len - i, &c);
		if (c != UINT32_MAX && sl_utf8_is_printable(c)) {
			sl_str_add(&rd->text, s->text + i, len);
		} else {
			if (c == UINT32_MAX)
				sl_report_error(
					rd->report, at, NULL, "byte 0x%02x is not valid UTF-8%s",
					(unsigned char)s->text[i],
					i < 2 ? " (save the file as UTF-8, not UTF-16)" : "");
			else if (c == 0)
				sl_report_error(rd->report, at, NULL, "a NUL byte in the text");
			else
				sl_report_error(rd->report, at, NULL,
						"control character U+%04X in the text", c);
			sl_str_addc(&rd->text, '?');
			add_spot(rd, at);
		}
		at.column++;
	}
}

static bool is_before(struct sl_mark a, struct sl_mark b)
{
	return a.line < b.line || (a.line == b.line && a.column < b.column);
}

/* The copy's bytes at a place; NULL at its end. Linear in the file for places in their order. */
static char *at_mark(struct reader *rd, struct sl_mark m)
{
	char *p = rd->text.p;
	size_t n = rd->text.len, i, len;
	struct sl_mark at;
	uint32_t c;

	if (rd->seen_at.line == 0 || is_before(m, rd->seen_at)) {
		rd->seen = 0;
		rd->seen_at = (struct sl_mark){ .line = 1, .column = 1 };
	}
	at = rd->seen_at;
	for (i = rd->seen; i < n && is_before(at, m); i += len) {
		len = sl_utf8_break(p + i, n - i);
		if (len && at.line == m.line)
			break;
		if (len) {
			at.line++;
			at.column = 1;
		} else {
			len = sl_utf8_decode(p + i, n - i, &c);
			at.column++;
		}
	}
	rd->seen = i;
	rd->seen_at = at;
	return i < n ? p + i : NULL;
}

/* How far a word that wants quotes reaches. */
static size_t word_len(const char *p)
{
	return strcspn(p, " \t\r\n,]}#\"'");
}

/*
 * Replaces `n` ASCII bytes at `m` by something harmless and has the file read again.
 * False when too much was repaired already.
 */
static bool SL_PRINTF(5, 6)
	repair(struct reader *rd, struct sl_mark m, char *p, size_t n, const char *fmt, ...)
{
	va_list ap;

	if (rd->n_repairs == MAX_REPAIRS || rd->bytes_left < rd->text.len)
		return false;
	rd->bytes_left -= rd->text.len;
	rd->repairs[rd->n_repairs].at = m;
	va_start(ap, fmt);
	sl_str_addv(&rd->repairs[rd->n_repairs].why, fmt, ap);
	va_end(ap);
	memset(p, 'x', n); /* may be what the text was made of */
	add_spot(rd, m);
	rd->n_repairs++;
	rd->again = true;
	return true;
}

static bool has_spot(const struct reader *rd, struct sl_mark from, struct sl_mark to)
{
	for (size_t i = 0; i < rd->n_spots; i++)
		if (!is_before(rd->spots[i], from) && is_before(rd->spots[i], to))
			return true;
	return false;
}

/* ---- hints ---- */

/* "[::1]:80" without quotes: a list to YAML. Bytes of it, 0 when this is something else. */
static size_t bracketed_address(const char *p)
{
	size_t in = 1 + strspn(p + 1, "0123456789abcdefABCDEF:.");
	size_t colons = 0, n;

	if (p[in] != ']')
		return 0;
	for (size_t i = 1; i < in; i++)
		colons += p[i] == ':';
	n = in + 1;
	if (p[n] == ':' && isdigit((unsigned char)p[n + 1]))
		return colons >= 2 ? n + 1 + strspn(p + n + 1, "0123456789-") : 0;
	return colons >= 2 && p[1] == ':' ? n : 0;
}

/* A word that YAML gives a meaning of its own: say so, hide it, go on. */
static bool repair_word(struct reader *rd, struct sl_mark m)
{
	char *p = at_mark(rd, m), buf[SL_QUOTE_LEN], word[64];
	static const char special[] = "*&!@`%|>";
	size_t n;

	if (!p)
		return false;
	if (*p == '[') {
		n = bracketed_address(p);
		return n && n < sizeof(word) &&
		       repair(rd, m, p, n,
			      "an address in brackets must be in quotes, because [ begins a list: "
			      "write \"%.*s\"",
			      (int)n, p);
	}
	if (!strchr(special, *p))
		return false;
	n = word_len(p);
	(void)snprintf(word, sizeof(word), "%.*s", (int)(n < 48 ? n : 48), p);
	return repair(rd, m, p, 1,
		      "%s must be in quotes, because YAML gives a leading %c a meaning of its own: "
		      "write \"%s%s\"",
		      sl_quote(word, buf), *p, word, n < 48 ? "" : "...");
}

/* ---- building the tree ---- */

static struct sl_node *new_node(struct reader *rd, enum sl_node_kind kind, const yaml_event_t *e)
{
	struct sl_node *n = sl_arena_alloc(rd->arena, sizeof(*n));

	if (!n) {
		rd->report->oom = true;
		return NULL;
	}
	n->kind = kind;
	n->at = mark_of(rd, &e->start_mark);
	n->text = "";
	return n;
}

static void add_child(struct sl_node *parent, struct sl_node *child)
{
	if (parent->last)
		parent->last->next = child;
	else
		parent->first = child;
	parent->last = child;
	parent->n++;
}

static void check_key(struct reader *rd, struct sl_node *mapping, struct sl_node *key)
{
	if (mapping->bad) {
		key->bad = true; /* all of it has been reported */
	} else if (key->kind != SL_NODE_SCALAR) {
		const char *p = at_mark(rd, key->at);
		bool inner = p && p > rd->text.p && p[-1] == '{' && *p == '{';

		sl_report_error(
			rd->report, key->at, NULL, "%s",
			inner || (p && strncmp(p, "{{", 2) == 0)
				? "this looks like a template that was not filled in: put text "
				  "with braces in quotes"
				: "a key must be plain text, as in 'name: value'");
		mapping->bad = inner;
		key->bad = true;
	} else if (!key->quoted && strcmp(key->text, "<<") == 0) {
		sl_report_error(rd->report, key->at, NULL,
				"merge keys (<<) are not read: write the keys out");
		key->bad = true;
	}
}

/* Puts a finished scalar or an opened list or mapping where it belongs. */
static void place(struct reader *rd, struct sl_node *n)
{
	struct frame *f = rd->depth ? &rd->stack[rd->depth - 1] : NULL;

	if (!f) {
		rd->root = n;
	} else if (f->node->kind == SL_NODE_LIST) {
		add_child(f->node, n);
	} else if (!f->key) {
		check_key(rd, f->node, n);
		f->key = n;
	} else {
		n->key = f->key->text;
		n->key_at = f->key->at;
		n->key_bad = f->key->bad;
		add_child(f->node, n);
		f->key = NULL;
	}
}

static void refuse_decoration(struct reader *rd, const yaml_event_t *e, const yaml_char_t *anchor,
			      const yaml_char_t *tag)
{
	char buf[SL_QUOTE_LEN];

	if (anchor)
		sl_report_error(rd->report, mark_of(rd, &e->start_mark), NULL,
				"anchors (%s) are not read: write the value out where it is needed",
				sl_quote((const char *)anchor, buf));
	if (tag)
		sl_report_error(rd->report, mark_of(rd, &e->start_mark), NULL,
				"tags (%s) are not read: remove it",
				sl_quote((const char *)tag, buf));
}

static bool add_scalar(struct reader *rd, const yaml_event_t *e)
{
	const char *value = (const char *)e->data.scalar.value;
	struct sl_node *n = new_node(rd, SL_NODE_SCALAR, e);

	if (!n)
		return false;
	refuse_decoration(rd, e, e->data.scalar.anchor, e->data.scalar.tag);
	n->quoted = e->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
	n->text = sl_arena_copy(rd->arena, value, e->data.scalar.length);
	if (!n->text) {
		rd->report->oom = true;
		return false;
	}
	if (strlen(value) != e->data.scalar.length) {
		sl_report_error(rd->report, n->at, NULL, "a NUL byte in the text");
		n->bad = true;
	}
	if (has_spot(rd, n->at, mark_of(rd, &e->end_mark)))
		n->bad = true;
	place(rd, n);
	return true;
}

static bool add_alias(struct reader *rd, const yaml_event_t *e)
{
	struct sl_mark at = mark_of(rd, &e->start_mark);
	const char *name = (const char *)e->data.alias.anchor;
	const struct frame *f = rd->depth ? &rd->stack[rd->depth - 1] : NULL;
	struct sl_node *n = new_node(rd, SL_NODE_SCALAR, e);
	char buf[SL_QUOTE_LEN];

	if (!n)
		return false;
	if (!f || !f->key || !f->key->bad)
		sl_report_error(
			rd->report, at, NULL,
			"aliases (%s) are not read: write the value out, or put it in quotes "
			"if this text is meant",
			sl_quote(name, buf));
	n->bad = true;
	place(rd, n);
	return true;
}

static bool open_node(struct reader *rd, const yaml_event_t *e, enum sl_node_kind kind)
{
	struct sl_node *n = new_node(rd, kind, e);

	if (!n)
		return false;
	if (kind == SL_NODE_LIST) {
		if (repair_word(rd, n->at))
			return false;
		refuse_decoration(rd, e, e->data.sequence_start.anchor, e->data.sequence_start.tag);
	} else {
		refuse_decoration(rd, e, e->data.mapping_start.anchor, e->data.mapping_start.tag);
	}
	place(rd, n);
	if (rd->depth == MAX_DEPTH) {
		sl_report_error(rd->report, n->at, NULL, "more than %d levels deep", MAX_DEPTH);
		n->bad = true;
		return false;
	}
	rd->stack[rd->depth++] = (struct frame){ .node = n };
	return true;
}

/* True to go on. */
static bool on_event(struct reader *rd, const yaml_event_t *e)
{
	switch (e->type) {
	case YAML_SCALAR_EVENT:
		return add_scalar(rd, e);
	case YAML_ALIAS_EVENT:
		return add_alias(rd, e);
	case YAML_SEQUENCE_START_EVENT:
		return open_node(rd, e, SL_NODE_LIST);
	case YAML_MAPPING_START_EVENT:
		return open_node(rd, e, SL_NODE_MAPPING);
	case YAML_SEQUENCE_END_EVENT:
	case YAML_MAPPING_END_EVENT:
		rd->depth--;
		return true;
	case YAML_DOCUMENT_START_EVENT:
		if (!rd->root)
			return true;
		sl_report_error(
			rd->report, mark_of(rd, &e->start_mark), NULL,
			"a second document (---): one file holds one configuration; files in "
			"conf.d/ are added to it");
		return false;
	case YAML_STREAM_END_EVENT:
		return false;
	case YAML_NO_EVENT:
	case YAML_STREAM_START_EVENT:
	case YAML_DOCUMENT_END_EVENT:
		return true;
	}
	return true;
}

/* ---- syntax errors ---- */

struct phrase {
	const char *libyaml;
	const char *ours;
	bool names_context; /* add where the enclosing thing began */
};

static const struct phrase phrases[] = {
	{ "mapping values are not allowed in this context",
	  "a ':' cannot stand here: indent the keys of one mapping equally, and put text that "
	  "holds "
	  "': ' in quotes",
	  false },
	{ "did not find expected key",
	  "this does not fit the mapping around it: check the indentation, quotes and commas",
	  true },
	{ "could not find expected ':'", "a key needs ':' and a value, as in 'name: value'",
	  false },
	{ "did not find expected ',' or ']'", "',' or ']' expected", true },
	{ "did not find expected ',' or '}'", "',' or '}' expected", true },
	{ "did not find expected '-' indicator",
	  "this does not fit the list around it: check the indentation and the '-'", true },
	{ "block sequence entries are not allowed in this context",
	  "a list item ('- ') cannot stand here: put the list on lines of its own below the key",
	  false },
	{ "block mapping entries are not allowed in this context",
	  "a mapping cannot stand here: check the indentation", false },
	{ "did not find expected <document start>",
	  "this does not fit what is above it: check the indentation", false },
	{ "found unknown escape character",
	  "unknown escape in double quotes: write \\\\ for a backslash, or use single quotes",
	  false },
	{ "did not find expected node content", "a value is missing here", false },
	{ "found a tab character that violates indentation",
	  "a tab cannot indent: use spaces (JSON may use tabs)", false },
};

static const struct phrase *find_phrase(const char *problem)
{
	for (size_t i = 0; i < SL_ARRAY_LEN(phrases); i++)
		if (strcmp(phrases[i].libyaml, problem) == 0)
			return &phrases[i];
	return NULL;
}

static void report_syntax(struct reader *rd, const yaml_parser_t *p, struct sl_mark at)
{
	const char *problem = p->problem ? p->problem : "not readable as YAML";
	const struct phrase *ph = find_phrase(problem);
	struct sl_mark around = mark_of(rd, &p->context_mark);
	char place_buf[SL_PLACE_LEN];
	const char *c = at_mark(rd, at);

	if (p->error == YAML_SCANNER_ERROR && p->context &&
	    strcmp(p->context, "while scanning a quoted scalar") == 0 &&
	    strncmp(problem, "found unexpected", 16) == 0)
		sl_report_error(rd->report, around, NULL, "the closing quote is missing");
	else if (!c && rd->depth && p->error == YAML_PARSER_ERROR)
		sl_report_error(rd->report, rd->stack[rd->depth - 1].node->at, NULL,
				"the end of this %s is missing",
				rd->stack[rd->depth - 1].node->kind == SL_NODE_LIST
					? "list (])"
					: "mapping (})");
	else if (strcmp(problem, "found character that cannot start any token") == 0 && c)
		sl_report_error(rd->report, at, NULL, "%s",
				*c == '\t' ? "a tab cannot indent: use spaces (JSON may use tabs)"
					   : "this character cannot begin a value: put the text in "
					     "quotes");
	else if (ph && ph->names_context && p->context)
		sl_report_error(rd->report, at, NULL, "%s (it began at %s)", ph->ours,
				sl_report_place(rd->report, around, place_buf));
	else if (ph)
		sl_report_error(rd->report, at, NULL, "%s", ph->ours);
	else
		sl_report_error(rd->report, at, NULL, "not readable as YAML: %s%s%s", problem,
				p->context ? " " : "", p->context ? p->context : "");
}

static void on_syntax_error(struct reader *rd, const yaml_parser_t *p)
{
	struct sl_mark at = mark_of(rd, &p->problem_mark);
	struct sl_mark word = p->context ? mark_of(rd, &p->context_mark) : at;

	if (p->error == YAML_MEMORY_ERROR) {
		rd->report->oom = true;
		return;
	}
	if (p->error == YAML_SCANNER_ERROR && (repair_word(rd, word) || repair_word(rd, at)))
		return;
	report_syntax(rd, p, at);
}

/* ---- one file ---- */

/* Whatever was open or had just ended when reading stopped may have been meant to go on. */
static void mark_partial(struct reader *rd)
{
	for (struct sl_node *n = rd->root; n; n = n->last)
		n->partial = true;
	while (rd->depth)
		rd->stack[--rd->depth].node->partial = true;
}

static int read_once(struct reader *rd)
{
	yaml_parser_t parser;
	yaml_event_t event;
	bool complete = false, more = true;

	if (!yaml_parser_initialize(&parser))
		return -ENOMEM;
	yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&parser, (const unsigned char *)sl_str_text(&rd->text),
				     rd->text.len);
	rd->again = false;
	rd->root = NULL;
	rd->depth = 0;
	while (more) {
		if (!yaml_parser_parse(&parser, &event)) {
			on_syntax_error(rd, &parser);
			break;
		}
		more = on_event(rd, &event);
		complete = event.type == YAML_STREAM_END_EVENT;
		yaml_event_delete(&event);
	}
	yaml_parser_delete(&parser);
	if (!complete)
		mark_partial(rd);
	return rd->report->oom ? -ENOMEM : 0;
}

static int read_repairing(struct reader *rd)
{
	int r;

	do {
		sl_report_rewind(rd->report, &rd->fresh);
		r = read_once(rd);
	} while (r == 0 && rd->again);
	for (size_t i = 0; i < rd->n_repairs; i++)
		sl_report_error(rd->report, rd->repairs[i].at, NULL, "%s",
				sl_str_text(&rd->repairs[i].why));
	return r;
}

int sl_yaml_parse(struct sl_arena *arena, struct sl_report *report, uint32_t source,
		  struct sl_node **ret)
{
	struct reader rd = {
		.arena = arena, .report = report, .source = source, .bytes_left = MAX_REPAIR_BYTES
	};
	int r;

	copy_text(&rd);
	rd.fresh = *report;
	r = rd.text.oom ? -ENOMEM : read_repairing(&rd);
	for (size_t i = 0; i < rd.n_repairs; i++) {
		if (rd.repairs[i].why.oom)
			r = -ENOMEM;
		sl_str_done(&rd.repairs[i].why);
	}
	sl_str_done(&rd.text);
	if (r == 0)
		*ret = rd.root;
	return r;
}
