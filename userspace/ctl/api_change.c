/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <string.h>

#include "base/json.h"
#include "ctl/api.h"
#include "ctl/changes.h"
#include "ctl/params.h"

/* What a request says when it failed; the details are the supervisor's text. */
struct words {
	const char *failed;
	const char *hint;
};

static unsigned status_of(enum sl_ctl_result result, bool is_config)
{
	switch (result) {
	case SL_CTL_DONE:
		return 200;
	case SL_CTL_CREATED:
		return 201;
	case SL_CTL_REFUSED:
		return 422;
	case SL_CTL_NOT_FOUND:
		return 404;
	case SL_CTL_BUSY:
		return 503;
	case SL_CTL_FAILED:
		break;
	}
	return is_config ? 422 : 500;
}

static const char *reason_of(unsigned status)
{
	switch (status) {
	case 404:
		return "not_found";
	case 422:
		return "config";
	case 503:
		return "busy";
	default:
		return "failed";
	}
}

static void answer(struct sl_wait *w, enum sl_ctl_result result, const char *text,
		   const struct words *words)
{
	bool ok = result == SL_CTL_DONE || result == SL_CTL_CREATED;
	unsigned status = status_of(result, strstr(text, ": error: ") != NULL);
	struct sl_str body = { 0 };
	struct sl_json j = sl_json_on(&body);

	sl_json_obj(&j, NULL);
	sl_json_bool(&j, "ok", ok);
	if (!ok) {
		sl_json_str(&j, "error", words->failed);
		sl_json_str(&j, "hint", words->hint);
		sl_json_str(&j, "reason", reason_of(status));
	}
	sl_json_str(&j, "text", text);
	if (w->ctl)
		sl_json_u64(&j, "generation", sl_proxy_generation(w->ctl->options.proxy));
	sl_json_obj_end(&j);
	sl_str_addc(&body, '\n');
	sl_call_reply(w->call, status, SL_TYPE_JSON, &body);
	sl_wait_end(w);
}

static void ask(struct sl_ctl *ctl, struct sl_call *call, enum sl_ctl_request what,
		const struct sl_ctl_change *change, sl_ctl_reply_fn reply)
{
	struct sl_wait *w = sl_wait_start(ctl, call);

	if (w)
		ctl->options.request(ctl->options.request_arg, what, change, reply, w);
}

/* ---- reload and upgrade ---- */

static void on_reloaded(void *arg, enum sl_ctl_result result, const char *text)
{
	static const struct words words = {
		"the configuration was not reloaded; the one in use stays",
		"'sluice check' shows the same without a reload",
	};

	answer(arg, result, text ? text : "", &words);
}

static void on_deny_file(void *arg, enum sl_ctl_result result, const char *text)
{
	static const struct words words = {
		"global.security.deny_file was not reloaded; what was read before stays",
		NULL,
	};

	answer(arg, result, text ? text : "", &words);
}

static void on_certs(void *arg, enum sl_ctl_result result, const char *text)
{
	static const struct words words = {
		"not all certificates were read; what cannot be used leaves the last good one in "
		"use",
		"'sluice cert list' shows which are in use",
	};

	answer(arg, result, text ? text : "", &words);
}

static void on_upgraded(void *arg, enum sl_ctl_result result, const char *text)
{
	static const struct words words = {
		"the new program did not take over; the running one goes on",
		"the log of the new program says why",
	};

	answer(arg, result, text ? text : "", &words);
}

void sl_api_reload(struct sl_ctl *ctl, struct sl_call *call)
{
	char what[SL_PARAM_MAX];

	if (!sl_param(call, "what", what))
		return;
	if (!what[0] || strcmp(what, "config") == 0)
		ask(ctl, call, SL_CTL_RELOAD, NULL, on_reloaded);
	else if (strcmp(what, "deny_file") == 0)
		ask(ctl, call, SL_CTL_RELOAD_DENY_FILE, NULL, on_deny_file);
	else
		sl_call_fail(call, 400, "config (or nothing), or deny_file",
			     "the parameter 'what' names nothing that can be reloaded");
}

void sl_api_reload_certs(struct sl_ctl *ctl, struct sl_call *call)
{
	ask(ctl, call, SL_CTL_CERT_RELOAD, NULL, on_certs);
}

void sl_api_upgrade(struct sl_ctl *ctl, struct sl_call *call)
{
	ask(ctl, call, SL_CTL_UPGRADE, NULL, on_upgraded);
}

/* ---- changes ---- */

static void on_changed(void *arg, enum sl_ctl_result result, const char *text)
{
	static const struct words failed = { "nothing has changed", NULL };
	static const struct words refused = { "nothing has changed: the configuration would be bad",
					      NULL };
	static const struct words not_found = {
		"nothing has changed: there is no such thing",
		"'sluice routes' and 'sluice routes changes' list what there is"
	};
	static const struct words busy = { "nothing has changed: too many changes are waiting",
					   "try again later" };

	answer(arg, result, text ? text : "",
	       result == SL_CTL_REFUSED     ? &refused
	       : result == SL_CTL_NOT_FOUND ? &not_found
	       : result == SL_CTL_BUSY      ? &busy
					    : &failed);
}

static bool param_keep(struct sl_call *call, bool *ret)
{
	uint64_t keep;

	if (!sl_param_number(call, "keep", 0, 1, 0, &keep))
		return false;
	*ret = keep;
	return true;
}

static void change_route(struct sl_ctl *ctl, struct sl_call *call, enum sl_source_kind kind)
{
	struct sl_ctl_change change = { .kind = kind };
	char name[SL_PARAM_MAX];

	if (!sl_param_path_name(call, name) || !param_keep(call, &change.keep))
		return;
	change.subject = name;
	if (kind == SL_SOURCE_ROUTE) {
		change.text = sl_call_body(call);
		if (change.text.n == 0) {
			sl_call_fail(call, 400, "send the route as JSON or YAML",
				     "the request has no body");
			return;
		}
	}
	ask(ctl, call, SL_CTL_CHANGE, &change, on_changed);
}

void sl_api_put_route(struct sl_ctl *ctl, struct sl_call *call)
{
	change_route(ctl, call, SL_SOURCE_ROUTE);
}

void sl_api_delete_route(struct sl_ctl *ctl, struct sl_call *call)
{
	change_route(ctl, call, SL_SOURCE_REMOVE);
}

void sl_api_enable_route(struct sl_ctl *ctl, struct sl_call *call)
{
	change_route(ctl, call, SL_SOURCE_ENABLE);
}

void sl_api_disable_route(struct sl_ctl *ctl, struct sl_call *call)
{
	change_route(ctl, call, SL_SOURCE_DISABLE);
}

static void change_target(struct sl_ctl *ctl, struct sl_call *call, bool undo)
{
	struct sl_ctl_change change = { .kind = SL_SOURCE_DRAIN, .undo = undo };
	char target[SL_PARAM_MAX];
	char route[SL_PARAM_MAX];

	if (!sl_param(call, "target", target) || !sl_param_route(call, "route", route) ||
	    (!undo && !param_keep(call, &change.keep)))
		return;
	change.subject = route;
	change.text = sl_slice_of(target);
	if (!sl_changes_fit(change.kind, route, change.text.n)) {
		sl_call_fail(call, 400, "target=ADDRESS as the configuration has it",
			     target[0] ? "the parameter 'target' is too long"
				       : "the parameter 'target' is missing");
		return;
	}
	ask(ctl, call, SL_CTL_CHANGE, &change, on_changed);
}

void sl_api_drain(struct sl_ctl *ctl, struct sl_call *call)
{
	change_target(ctl, call, false);
}

void sl_api_undrain(struct sl_ctl *ctl, struct sl_call *call)
{
	change_target(ctl, call, true);
}

void sl_api_forget(struct sl_ctl *ctl, struct sl_call *call)
{
	struct sl_ctl_change change = { .kind = SL_SOURCE_FILE };
	char route[SL_PARAM_MAX];

	if (!sl_param_route(call, "route", route))
		return;
	change.subject = route;
	ask(ctl, call, SL_CTL_CHANGE, &change, on_changed);
}
