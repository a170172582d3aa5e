/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "nft/expr.h"

#include <string.h>

void sl_nft_expr_put(struct sl_str *code, const struct sl_nft_expr *e)
{
	size_t n_name = strlen(e->name);

	sl_str_addc(code, (char)e->kind);
	sl_str_addc(code, (char)e->n_values);
	sl_str_add(code, e->value, e->n_values * sizeof(e->value[0]));
	sl_str_addc(code, (char)n_name);
	sl_str_add(code, e->name, n_name);
	sl_str_addc(code, (char)e->n_data);
	sl_str_add(code, e->data, e->n_data);
}

/* `len` bytes of what is left, or NULL. */
static const uint8_t *take(const uint8_t *code, size_t n, size_t *at, size_t len)
{
	const uint8_t *p = code + *at;

	if (len > n - *at)
		return NULL;
	*at += len;
	return p;
}

bool sl_nft_expr_next(const uint8_t *code, size_t n, size_t *at, struct sl_nft_expr *ret)
{
	struct sl_nft_expr e = { 0 };
	size_t pos = *at;
	const uint8_t *head = take(code, n, &pos, 2);
	const uint8_t *values, *len, *p;

	if (!head || head[1] > SL_NFT_VALUES)
		return false;
	e.kind = (enum sl_nft_expr_kind)head[0];
	e.n_values = head[1];
	values = take(code, n, &pos, e.n_values * sizeof(e.value[0]));
	len = values ? take(code, n, &pos, 1) : NULL;
	p = len && *len < sizeof(e.name) ? take(code, n, &pos, *len) : NULL;
	if (!p)
		return false;
	memcpy(e.value, values, e.n_values * sizeof(e.value[0]));
	memcpy(e.name, p, *len);
	len = take(code, n, &pos, 1);
	p = len && *len <= sizeof(e.data) ? take(code, n, &pos, *len) : NULL;
	if (!p)
		return false;
	e.n_data = *len;
	memcpy(e.data, p, e.n_data);
	*at = pos;
	*ret = e;
	return true;
}
