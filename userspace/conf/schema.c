/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "base/json.h"
#include "conf/keys.h"

void sl_conf_schema(struct sl_str *out)
{
	sl_str_adds(out, "{}");
}

void sl_conf_reference(struct sl_str *out)
{
	sl_str_adds(out, "");
}
