/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "ctl/words.h"

#include "base/json.h"
#include "core/reason.h"

static void add_word(struct sl_json *j, const char *name, const char *text)
{
	sl_json_obj(j, NULL);
	sl_json_str(j, "name", name);
	sl_json_str(j, "text", text);
	sl_json_obj_end(j);
}

void sl_words_reasons(struct sl_str *out)
{
	struct sl_json j = sl_json_on(out);

	sl_json_obj(&j, NULL);
	sl_json_arr(&j, "terminations");
	for (int i = SL_REASON_NONE + 1; i < SL_REASON_COUNT_; i++)
		add_word(&j, sl_reason_name((enum sl_reason)i), sl_reason_text((enum sl_reason)i));
	sl_json_arr_end(&j);
	sl_json_arr(&j, "engines");
	for (int i = SL_WHY_NONE + 1; i < SL_WHY_COUNT_; i++)
		add_word(&j, sl_engine_reason_name((enum sl_engine_reason)i),
			 sl_engine_reason_text((enum sl_engine_reason)i));
	sl_json_arr_end(&j);
	sl_json_obj_end(&j);
	sl_str_addc(out, '\n');
}
