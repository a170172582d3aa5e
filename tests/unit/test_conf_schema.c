/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "conf_text.h"

#include <jansson.h>

static const json_t *property(const json_t *object, const char *name)
{
	const json_t *p = json_object_get(json_object_get(object, "properties"), name);

	if (!p)
		fail_msg("no property %s", name);
	return p;
}

static void the_schema_is_json(void **state)
{
	_cleanup_(sl_str_done) struct sl_str out = { 0 };
	const json_t *route, *timeouts, *versions;
	json_error_t error;
	json_t *root;

	(void)state;
	sl_conf_schema(&out);
	root = json_loads(sl_str_text(&out), JSON_REJECT_DUPLICATES, &error);
	if (!root)
		fail_msg("%s at line %d, column %d", error.text, error.line, error.column);
	assert_string_equal(json_string_value(json_object_get(root, "$schema")),
			    "https://json-schema.org/draft/2020-12/schema");
	assert_true(json_is_false(json_object_get(root, "additionalProperties")));
	route = json_object_get(property(root, "routes"), "items");
	timeouts = property(route, "timeouts");
	assert_string_equal(
		json_string_value(json_object_get(property(timeouts, "idle"), "default")), "4h");
	assert_int_equal(json_array_size(json_object_get(route, "required")), 2);
	/* what YAML reads as a number is allowed beside the text */
	versions = json_object_get(
		json_array_get(json_object_get(property(property(property(route, "match"), "tls"),
							"versions"),
					       "anyOf"),
			       0),
		"enum");
	assert_string_equal(json_string_value(json_array_get(versions, 4)), "1.2");
	assert_true(json_real_value(json_array_get(versions, 5)) == 1.2);
	json_decref(root);
}

static void the_reference_has_every_key(void **state)
{
	static const char *const lines[] = {
		"*version*: ",
		"*global.log.level*: error | warn | info | debug; default info\n",
		"*routes[].match.ports*: port, range, address:port",
		"*routes[].timeouts.idle*: duration, 1ms to 366d, 0: off; default 4h\n",
		"*routes[].engine*: auto | relay | packet | sockmap | nftables; default auto\n",
		"*global.sockmap.backlog*: ",
		"*global.packet.hook*: auto | tc | xdp | off; default auto\n",
		"*global.packet.ports*: a range of ports; default 40000-59999\n",
		"*global.packet.after_age*: duration, 0 to 1d; default 1s\n",
		"*routes[].http.paths[].forward.targets[].address*: host:port; required\n",
		"*routes[].match.domains*: a domain, also with *, or a list\n",
		"*routes[].match.tls.versions*: 1.0 | 1.1 | 1.2 | 1.3, or a list\n",
		"*routes[].forward.health*: none, or a mapping\n",
		"*routes[].forward.health.path*: a path that begins with '/'",
		"*routes[].forward.send_proxy*: none | v1 | v2, or a mapping; default none\n",
		"*routes[].forward.targets[].weight*: 0 to 1000; default 1\n",
		"*defaults.security.deny*: an address, network, range or pattern, or a list\n"
		"\tClients that may not; wins over allow. Replaces the list of `defaults`.\n",
		"*listeners[].accept_proxy.from*: an address, network, range or pattern, or a "
		"list; "
		"required\n",
		"*routes[].tls*: passthrough | acme (not supported by this build), or a mapping; "
		"default passthrough\n",
		"*routes[].tls.cert*: an absolute path, or a list\n",
		"*routes[].tls.client_auth*: none | optional | required\n",
		"*defaults.tls.min_version*: 1.2 | 1.3; default 1.2\n",
		"*routes[].forward.tls*: none, or a mapping\n",
		"*routes[].forward.tls.verify*: system, none or an absolute path | system | none; "
		"default system\n",
		"*routes[].forward.tls.server_name*: a host name or an address\n",
		"*routes[].forward.send_proxy.ssl*: true or false; default false\n",
		"Not supported by this build.",
	};
	_cleanup_(sl_str_done) struct sl_str out = { 0 };

	(void)state;
	sl_conf_reference(&out);
	for (size_t i = 0; i < SL_ARRAY_LEN(lines); i++)
		if (!strstr(sl_str_text(&out), lines[i]))
			fail_msg("%s is missing", lines[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_schema_is_json),
		cmocka_unit_test(the_reference_has_every_key),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
