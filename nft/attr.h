/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_NFT_ATTR_H
#define SL_NFT_ATTR_H

#include <libmnl/libmnl.h>
#include <stddef.h>
#include <stdint.h>

/* Walking through attributes; libmnl's macros do not survive our warnings. */
struct sl_attrs {
	const struct nlattr *at;
	const uint8_t *end;
};

/* Those of a message behind `head` bytes of its own, and those inside of another. */
static inline struct sl_attrs sl_attrs_of(const struct nlmsghdr *nlh, size_t head)
{
	return (struct sl_attrs){ mnl_nlmsg_get_payload_offset(nlh, head),
				  mnl_nlmsg_get_payload_tail(nlh) };
}

static inline struct sl_attrs sl_attrs_in(const struct nlattr *nest)
{
	const uint8_t *p = mnl_attr_get_payload(nest);

	return (struct sl_attrs){ (const void *)p, p + mnl_attr_get_payload_len(nest) };
}

/* The next, or NULL at the end. */
static inline const struct nlattr *sl_attrs_next(struct sl_attrs *a)
{
	const struct nlattr *attr = a->at;

	if ((const uint8_t *)attr >= a->end ||
	    !mnl_attr_ok(attr, (int)(a->end - (const uint8_t *)attr)))
		return NULL;
	a->at = mnl_attr_next(attr);
	return attr;
}

#endif
