/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <string.h>

#include "base/json.h"
#include "base/num.h"
#include "conf/keys.h"

static void add_type(struct sl_json *j, const struct sl_key *key);

/* ---- JSON Schema ---- */

/* A number as YAML and JSON have it, or a text. */
static void add_scalar_number(struct sl_json *j, const char *key, const char *text)
{
	uint64_t n;

	if (sl_num_parse(text, 0, INT64_MAX, &n) == 0)
		sl_json_u64(j, key, n);
	else if (strcmp(text, "true") == 0 || strcmp(text, "false") == 0)
		sl_json_bool(j, key, *text == 't');
	else if (strcmp(text, "null") == 0)
		sl_json_null(j, key);
	else
		sl_json_str(j, key, text);
}

static bool is_optional_null(const struct sl_key *key)
{
	return !(key->flags & SL_KEY_REQUIRED) &&
	       (key->type <= SL_KEY_ONE_OR_LIST || !key->def || strcmp(key->def, "null") == 0);
}

/* "1.2", which YAML readers take for a number unless it is quoted. */
static bool is_decimal(const char *text)
{
	return text[0] >= '0' && text[0] <= '9' && text[1] == '.' && text[2] >= '0' &&
	       text[2] <= '9' && text[3] == '\0';
}

/* Only words this build supports. */
static void add_words(struct sl_json *j, const struct sl_key *key)
{
	sl_json_arr(j, "enum");
	for (const struct sl_word *w = key->words; w->name; w++) {
		if (w->later)
			continue;
		add_scalar_number(j, NULL, w->name);
		if (is_decimal(w->name))
			sl_json_f64(j, NULL, (w->name[0] - '0') + (w->name[2] - '0') / 10.0);
		if (strcmp(w->name, "off") == 0)
			sl_json_bool(j, NULL, false); /* as readers of YAML 1.1 take it */
	}
	if (!key->def && !(key->flags & SL_KEY_REQUIRED) && key->name)
		sl_json_null(j, NULL);
	sl_json_arr_end(j);
}

/* "type": one name, or a list when null is allowed as well. */
static void add_type_names(struct sl_json *j, const struct sl_key *key, const char *first,
			   const char *second)
{
	sl_json_arr(j, "type");
	sl_json_str(j, NULL, first);
	if (second)
		sl_json_str(j, NULL, second);
	if (is_optional_null(key))
		sl_json_str(j, NULL, "null");
	sl_json_arr_end(j);
}

/* 0 may be written as a number; everything else has a unit and is a text. */
static void add_text_or_zero(struct sl_json *j, const struct sl_key *key, const char *pattern)
{
	add_type_names(j, key, "string", "integer");
	sl_json_str(j, "pattern", pattern);
	sl_json_u64(j, "minimum", 0);
	sl_json_u64(j, "maximum", 0);
}

static void add_int(struct sl_json *j, const struct sl_key *key)
{
	if (key->words) {
		sl_json_arr(j, "anyOf");
		sl_json_obj(j, NULL);
		add_words(j, key);
		sl_json_obj_end(j);
		sl_json_obj(j, NULL);
	}
	sl_json_str(j, "type", "integer");
	sl_json_u64(j, "minimum", key->min);
	sl_json_u64(j, "maximum", key->max);
	if (key->words) {
		sl_json_obj_end(j);
		sl_json_arr_end(j);
	}
}

static void add_object(struct sl_json *j, const struct sl_key *key)
{
	add_type_names(j, key, "object", NULL);
	sl_json_bool(j, "additionalProperties", false);
	sl_json_obj(j, "properties");
	for (const struct sl_key *k = key->keys; k->name; k++) {
		sl_json_obj(j, k->name);
		add_type(j, k);
		sl_json_obj_end(j);
	}
	sl_json_obj_end(j);
	sl_json_arr(j, "required");
	for (const struct sl_key *k = key->keys; k->name; k++)
		if (k->flags & SL_KEY_REQUIRED)
			sl_json_str(j, NULL, k->name);
	sl_json_arr_end(j);
}

static void add_alternatives(struct sl_json *j, const struct sl_key *key)
{
	struct sl_key mapping = *key;

	mapping.item = NULL;
	mapping.help = NULL;
	mapping.def = NULL;
	sl_json_arr(j, "anyOf");
	sl_json_obj(j, NULL);
	add_type(j, key->item);
	sl_json_obj_end(j);
	sl_json_obj(j, NULL);
	add_type(j, &mapping);
	sl_json_obj_end(j);
	sl_json_arr_end(j);
}

static void add_list(struct sl_json *j, const struct sl_key *key)
{
	if (key->type == SL_KEY_ONE_OR_LIST) {
		sl_json_arr(j, "anyOf");
		sl_json_obj(j, NULL);
		add_type(j, key->item);
		sl_json_obj_end(j);
		sl_json_obj(j, NULL);
	}
	add_type_names(j, key, "array", NULL);
	if ((key->flags & SL_KEY_REQUIRED) || (key->type == SL_KEY_ONE_OR_LIST && key->def))
		sl_json_u64(j, "minItems", 1); /* no items would not be the default */
	sl_json_obj(j, "items");
	add_type(j, key->item);
	sl_json_obj_end(j);
	if (key->type == SL_KEY_ONE_OR_LIST) {
		sl_json_obj_end(j);
		sl_json_arr_end(j);
	}
}

static void add_ports(struct sl_json *j)
{
	sl_json_str(j, "pattern",
		    "^(([0-9.]+|\\[[0-9A-Fa-f:.]+\\]):)?[1-9][0-9]{0,4}(-[1-9][0-9]{0,4})?$");
	sl_json_arr(j, "type");
	sl_json_str(j, NULL, "integer");
	sl_json_str(j, NULL, "string");
	sl_json_arr_end(j);
	sl_json_u64(j, "minimum", 1);
	sl_json_u64(j, "maximum", 65535);
}

static void add_text(struct sl_json *j, const struct sl_key *key)
{
	if (!key->words) {
		add_type_names(j, key, "string", NULL);
		sl_json_str(j, "pattern", key->format->pattern);
		return;
	}
	sl_json_arr(j, "anyOf");
	sl_json_obj(j, NULL);
	add_words(j, key);
	sl_json_obj_end(j);
	sl_json_obj(j, NULL);
	add_type_names(j, key, "string", NULL);
	sl_json_str(j, "pattern", key->format->pattern);
	sl_json_obj_end(j);
	sl_json_arr_end(j);
}

/* What this build does not support may only have its default. */
static void add_later(struct sl_json *j, const struct sl_key *key)
{
	if (key->type <= SL_KEY_ONE_OR_LIST && !key->def) {
		sl_json_arr(j, "type");
		sl_json_str(j, NULL, "array");
		sl_json_str(j, NULL, "object");
		sl_json_str(j, NULL, "null");
		sl_json_arr_end(j);
		sl_json_u64(j, "maxItems", 0);
		sl_json_u64(j, "maxProperties", 0);
		return;
	}
	sl_json_arr(j, "enum");
	sl_json_null(j, NULL);
	if (key->def)
		add_scalar_number(j, NULL, key->def);
	sl_json_arr_end(j);
}

static void add_scalar(struct sl_json *j, const struct sl_key *key)
{
	switch (key->type) {
	case SL_KEY_BOOL:
		sl_json_str(j, "type", "boolean");
		break;
	case SL_KEY_INT:
		add_int(j, key);
		break;
	case SL_KEY_DURATION:
		add_text_or_zero(j, key, "^(0|[0-9]+(ms|s|m|h|d))$");
		break;
	case SL_KEY_SIZE:
		add_type_names(j, key, "string", "integer");
		sl_json_str(j, "pattern", "^[0-9]+([KMG]iB)?$");
		break;
	case SL_KEY_RATE:
		add_text_or_zero(j, key, "^(0|[0-9]+/[sm])$");
		break;
	case SL_KEY_PERCENT:
		sl_json_str(j, "type", "string");
		sl_json_str(j, "pattern", "^[0-9]{1,3}%$");
		break;
	case SL_KEY_ENUM:
		add_words(j, key);
		break;
	case SL_KEY_TEXT:
		add_text(j, key);
		break;
	case SL_KEY_ADDR:
		sl_json_str(j, "type", "string");
		sl_json_str(j, "pattern", "^(none|[0-9.]+:[0-9]+|\\[[0-9A-Fa-f:.]+\\]:[0-9]+)$");
		break;
	case SL_KEY_PORTS:
		add_ports(j);
		break;
	case SL_KEY_TARGET:
		sl_json_str(j, "type", "string");
		sl_json_str(j, "pattern",
			    "^([A-Za-z0-9._-]+|\\[[0-9A-Fa-f:.]+\\]|[0-9A-Fa-f:.]+)(:[1-9][0-9]{0,"
			    "4})?$");
		break;
	case SL_KEY_OBJECT:
	case SL_KEY_MAP:
	case SL_KEY_LIST:
	case SL_KEY_ONE_OR_LIST:
		break;
	}
}

static void add_type(struct sl_json *j, const struct sl_key *key)
{
	_cleanup_(sl_str_done) struct sl_str help = { 0 };

	sl_str_addf(&help, "%s%s", key->help ? key->help : "",
		    key->flags & SL_KEY_LATER ? " Not supported by this build." : "");
	if (help.len)
		sl_json_str(j, "description", help.p);
	if (help.oom)
		j->out->oom = true;
	if (key->def)
		add_scalar_number(j, "default", key->def);
	if (key->flags & SL_KEY_LATER) {
		add_later(j, key);
	} else if (key->type == SL_KEY_OBJECT && key->item) {
		add_alternatives(j, key);
	} else if (key->type == SL_KEY_OBJECT) {
		add_object(j, key);
	} else if (key->type == SL_KEY_LIST || key->type == SL_KEY_ONE_OR_LIST) {
		add_list(j, key);
	} else if (key->type == SL_KEY_MAP) {
		sl_json_str(j, "type", "object");
		sl_json_obj(j, "additionalProperties");
		add_type(j, key->item);
		sl_json_obj_end(j);
	} else {
		add_scalar(j, key);
	}
}

void sl_conf_schema(struct sl_str *out)
{
	struct sl_json j = sl_json_on(out);

	sl_json_obj(&j, NULL);
	sl_json_str(&j, "$schema", "https://json-schema.org/draft/2020-12/schema");
	sl_json_str(&j, "title", "Configuration of sluiced");
	add_type(&j, &sl_key_root);
	sl_json_obj_end(&j);
	sl_str_addc(out, '\n');
}

/* ---- reference ---- */

static void add_range(struct sl_str *out, const struct sl_key *key)
{
	char lo[32], hi[32];

	switch (key->type) {
	case SL_KEY_BOOL:
		sl_str_adds(out, "true or false");
		break;
	case SL_KEY_INT:
		if (key->min == key->max)
			sl_str_addf(out, "%lu", (unsigned long)key->min);
		else
			sl_str_addf(out, "%lu to %lu", (unsigned long)key->min,
				    (unsigned long)key->max);
		break;
	case SL_KEY_DURATION:
		sl_str_addf(out, "duration, %s to %s%s", sl_num_format_duration(key->min, lo),
			    sl_num_format_duration(key->max, hi),
			    key->flags & SL_KEY_OFF_IS_ZERO ? ", 0: off" : "");
		break;
	case SL_KEY_SIZE:
		sl_str_adds(out, "size");
		break;
	case SL_KEY_RATE:
		sl_str_adds(out, "rate");
		break;
	case SL_KEY_PERCENT:
		sl_str_addf(out, "%lu%% to %lu%%", (unsigned long)key->min,
			    (unsigned long)key->max);
		break;
	case SL_KEY_TEXT:
		sl_str_adds(out, key->format->what);
		break;
	case SL_KEY_ADDR:
		sl_str_adds(out, "address:port");
		break;
	case SL_KEY_PORTS:
		sl_str_adds(out, "port, range, address:port or address:range");
		break;
	case SL_KEY_TARGET:
		sl_str_adds(out, "host:port");
		break;
	case SL_KEY_ENUM:
	case SL_KEY_OBJECT:
	case SL_KEY_MAP:
	case SL_KEY_LIST:
	case SL_KEY_ONE_OR_LIST:
		break;
	}
}

static void add_choice(struct sl_str *out, const struct sl_key *key)
{
	size_t before = out->len;

	add_range(out, key);
	for (const struct sl_word *w = key->words; w && w->name; w++)
		sl_str_addf(out, "%s%s%s", out->len > before ? " | " : "", w->name,
			    w->later ? " (not supported by this build)" : "");
}

static void add_kind(struct sl_str *out, const struct sl_key *key)
{
	switch (key->type) {
	case SL_KEY_OBJECT:
		if (key->item) {
			add_kind(out, key->item);
			sl_str_adds(out, ", or a mapping");
		} else {
			sl_str_adds(out, "mapping");
		}
		break;
	case SL_KEY_MAP:
		sl_str_adds(out, "mapping of names to texts");
		break;
	case SL_KEY_LIST:
		sl_str_adds(out, "list of: ");
		add_kind(out, key->item);
		break;
	case SL_KEY_ONE_OR_LIST:
		add_kind(out, key->item);
		sl_str_adds(out, ", or a list");
		break;
	case SL_KEY_BOOL:
	case SL_KEY_INT:
	case SL_KEY_DURATION:
	case SL_KEY_SIZE:
	case SL_KEY_RATE:
	case SL_KEY_PERCENT:
	case SL_KEY_ENUM:
	case SL_KEY_TEXT:
	case SL_KEY_ADDR:
	case SL_KEY_PORTS:
	case SL_KEY_TARGET:
		add_choice(out, key);
		break;
	}
}

/* The keys below one, with the path so far; `in_later` leaves what needs no repeating unsaid. */
static void add_keys(struct sl_str *out, const struct sl_key *keys, const char *path, bool in_later)
{
	for (; keys->name; keys++) {
		_cleanup_(sl_str_done) struct sl_str here = { 0 };
		const struct sl_key *below = keys->keys;
		bool later = keys->flags & SL_KEY_LATER;
		bool is_list = keys->type == SL_KEY_LIST || keys->type == SL_KEY_ONE_OR_LIST;

		sl_str_addf(&here, "%s%s%s", path, *path ? "." : "", keys->name);
		sl_str_addf(out, "*%s*: ", sl_str_text(&here));
		add_kind(out, keys);
		if (keys->def)
			sl_str_addf(out, "; default %s", keys->def);
		if (keys->flags & SL_KEY_REQUIRED)
			sl_str_adds(out, "; required");
		sl_str_addf(out, "\n\t%s%s\n\n", keys->help ? keys->help : "",
			    later && !in_later ? " Not supported by this build." : "");
		if (is_list && keys->item->type == SL_KEY_OBJECT) {
			below = keys->item->keys;
			sl_str_adds(&here, "[]");
		}
		if (below)
			add_keys(out, below, sl_str_text(&here), in_later || later);
		if (here.oom)
			out->oom = true;
	}
}

void sl_conf_reference(struct sl_str *out)
{
	add_keys(out, sl_key_root.keys, "", false);
}
