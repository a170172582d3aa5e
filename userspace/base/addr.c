/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "base/addr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/num.h"

socklen_t sl_addr_len(const struct sl_addr *a)
{
	return sl_addr_family(a) == AF_INET6 ? sizeof(a->v6) : sizeof(a->v4);
}

void sl_addr_set(struct sl_addr *a, const struct sockaddr *sa)
{
	struct sl_addr got = { 0 };

	if (sa->sa_family == AF_INET) {
		memcpy(&got.v4, sa, sizeof(got.v4));
	} else if (sa->sa_family == AF_INET6) {
		memcpy(&got.v6, sa, sizeof(got.v6));
		if (IN6_IS_ADDR_V4MAPPED(&got.v6.sin6_addr)) {
			struct sockaddr_in v4 = { .sin_family = AF_INET,
						  .sin_port = got.v6.sin6_port };

			memcpy(&v4.sin_addr, &got.v6.sin6_addr.s6_addr[12], 4);
			got = (struct sl_addr){ 0 };
			got.v4 = v4;
		}
	}
	*a = got;
}

uint16_t sl_addr_port(const struct sl_addr *a)
{
	if (sl_addr_family(a) == AF_INET)
		return ntohs(a->v4.sin_port);
	return sl_addr_family(a) == AF_INET6 ? ntohs(a->v6.sin6_port) : 0;
}

void sl_addr_set_port(struct sl_addr *a, uint16_t port)
{
	if (sl_addr_family(a) == AF_INET)
		a->v4.sin_port = htons(port);
	else if (sl_addr_family(a) == AF_INET6)
		a->v6.sin6_port = htons(port);
}

int sl_addr_parse_ip(const char *text, struct sl_addr *ret)
{
	struct sl_addr a = { 0 };

	if (inet_pton(AF_INET, text, &a.v4.sin_addr) == 1) {
		a.v4.sin_family = AF_INET;
	} else if (inet_pton(AF_INET6, text, &a.v6.sin6_addr) == 1) {
		a.v6.sin6_family = AF_INET6;
	} else {
		return -EINVAL;
	}
	*ret = a;
	return 0;
}

int sl_addr_parse(const char *text, struct sl_addr *ret)
{
	const char *colon = strrchr(text, ':');
	char ip[SL_ADDR_TEXT];
	struct sl_addr a;
	uint64_t port;
	bool brackets;
	size_t n;

	if (!colon || (size_t)(colon - text) >= sizeof(ip))
		return -EINVAL;
	n = (size_t)(colon - text);
	brackets = n >= 2 && text[0] == '[' && text[n - 1] == ']';
	if (brackets) {
		text++;
		n -= 2;
	}
	memcpy(ip, text, n);
	ip[n] = '\0';
	if (sl_addr_parse_ip(ip, &a) < 0 || sl_num_parse(colon + 1, 1, 65535, &port) < 0)
		return -EINVAL;
	if ((sl_addr_family(&a) == AF_INET6) != brackets)
		return -EINVAL; /* without brackets the port could belong to the address */
	sl_addr_set_port(&a, (uint16_t)port);
	*ret = a;
	return 0;
}

const char *sl_addr_format_ip(const struct sl_addr *a, char buf[SL_ADDR_TEXT])
{
	const void *ip = sl_addr_family(a) == AF_INET ? (const void *)&a->v4.sin_addr
						      : (const void *)&a->v6.sin6_addr;

	if (sl_addr_family(a) != AF_INET && sl_addr_family(a) != AF_INET6)
		(void)snprintf(buf, SL_ADDR_TEXT, "-");
	else
		(void)inet_ntop(sl_addr_family(a), ip, buf, SL_ADDR_TEXT);
	return buf;
}

const char *sl_addr_format(const struct sl_addr *a, char buf[SL_ADDR_TEXT])
{
	char ip[SL_ADDR_TEXT];

	(void)sl_addr_format_ip(a, ip);
	if (sl_addr_family(a) == AF_INET)
		(void)snprintf(buf, SL_ADDR_TEXT, "%.46s:%u", ip, sl_addr_port(a));
	else if (sl_addr_family(a) == AF_INET6)
		(void)snprintf(buf, SL_ADDR_TEXT, "[%.46s]:%u", ip, sl_addr_port(a));
	else
		(void)snprintf(buf, SL_ADDR_TEXT, "-");
	return buf;
}

bool sl_addr_is_any(const struct sl_addr *a)
{
	if (sl_addr_family(a) == AF_INET)
		return a->v4.sin_addr.s_addr == htonl(INADDR_ANY);
	return sl_addr_family(a) == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&a->v6.sin6_addr);
}

bool sl_addr_is_many(const struct sl_addr *a)
{
	uint32_t ip4 = sl_addr_family(a) == AF_INET ? ntohl(a->v4.sin_addr.s_addr) : 0;

	if (sl_addr_family(a) == AF_INET6)
		return IN6_IS_ADDR_MULTICAST(&a->v6.sin6_addr);
	return IN_MULTICAST(ip4) || ip4 == INADDR_BROADCAST;
}

bool sl_addr_is_loopback(const struct sl_addr *a)
{
	if (sl_addr_family(a) == AF_INET)
		return ntohl(a->v4.sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
	return sl_addr_family(a) == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&a->v6.sin6_addr);
}

size_t sl_addr_ip_bytes(const struct sl_addr *a, uint8_t ret[16])
{
	if (sl_addr_family(a) == AF_INET) {
		memcpy(ret, &a->v4.sin_addr, 4);
		return 4;
	}
	memcpy(ret, &a->v6.sin6_addr, 16);
	return 16;
}

bool sl_addr_same_ip(const struct sl_addr *a, const struct sl_addr *b)
{
	if (sl_addr_family(a) != sl_addr_family(b))
		return false;
	if (sl_addr_family(a) == AF_INET)
		return a->v4.sin_addr.s_addr == b->v4.sin_addr.s_addr;
	return sl_addr_family(a) != AF_INET6 ||
	       memcmp(&a->v6.sin6_addr, &b->v6.sin6_addr, sizeof(a->v6.sin6_addr)) == 0;
}

bool sl_addr_is_equal(const struct sl_addr *a, const struct sl_addr *b)
{
	return sl_addr_same_ip(a, b) && sl_addr_port(a) == sl_addr_port(b);
}
