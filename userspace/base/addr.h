/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BASE_ADDR_H
#define SL_BASE_ADDR_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/cleanup.h"

/* An IPv4 or IPv6 address with a port; family AF_UNSPEC (0) is "none". */
struct sl_addr {
	union {
		struct sockaddr sa;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	};
};

/* "[" 45 characters "%" interface "]:" 5 digits and NUL, rounded up. */
#define SL_ADDR_TEXT 80

static inline sa_family_t sl_addr_family(const struct sl_addr *a)
{
	return a->sa.sa_family;
}

socklen_t sl_addr_len(const struct sl_addr *a); /* for bind() and connect() */

/*
 * Copies what accept4(), getsockname() or a resolver wrote. An IPv4-mapped
 * IPv6 address becomes plain IPv4, so that limits, logs and lists see one form.
 */
void sl_addr_set(struct sl_addr *a, const struct sockaddr *sa);

uint16_t sl_addr_port(const struct sl_addr *a); /* host order; 0 for AF_UNSPEC */
void sl_addr_set_port(struct sl_addr *a, uint16_t port);

/* Literal address without a port: "192.0.2.1", "2001:db8::1" (no brackets). -EINVAL otherwise. */
SL_MUST_CHECK int sl_addr_parse_ip(const char *text, struct sl_addr *ret);

/* "192.0.2.1:80" or "[2001:db8::1]:80"; -EINVAL for anything else, names included. */
SL_MUST_CHECK int sl_addr_parse(const char *text, struct sl_addr *ret);

/* "192.0.2.1:80", "[2001:db8::1]:80", "-" for none. Returns `buf`. */
const char *sl_addr_format(const struct sl_addr *a, char buf[SL_ADDR_TEXT]);
const char *sl_addr_format_ip(const struct sl_addr *a, char buf[SL_ADDR_TEXT]);

bool sl_addr_is_any(const struct sl_addr *a);      /* 0.0.0.0 or :: */
bool sl_addr_is_many(const struct sl_addr *a);     /* multicast, or 255.255.255.255 */
bool sl_addr_is_loopback(const struct sl_addr *a); /* 127.0.0.0/8 or ::1 */
bool sl_addr_same_ip(const struct sl_addr *a, const struct sl_addr *b);
bool sl_addr_is_equal(const struct sl_addr *a, const struct sl_addr *b); /* address and port */

/* The address alone as bytes for hashing: 4 or 16 of them. */
size_t sl_addr_ip_bytes(const struct sl_addr *a, uint8_t ret[16]);

#endif
