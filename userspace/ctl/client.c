/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "ctl/client.h"

#include <errno.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include "base/num.h"

#define MAX_REPLY (UINT64_C(1) << 30)

void sl_client_reply_done(struct sl_client_reply *r)
{
	sl_str_done(&r->body);
	r->status = 0;
}

static void add_escaped(struct sl_str *s, const char *text, const char *also_plain)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				    "0123456789-._~";

	for (; *text; text++) {
		if (strchr(plain, *text) || strchr(also_plain, *text))
			sl_str_addc(s, *text);
		else
			sl_str_addf(s, "%%%02X", (unsigned char)*text);
	}
}

void sl_client_add_escaped(struct sl_str *target, const char *text)
{
	add_escaped(target, text, "");
}

void sl_client_add_param(struct sl_str *target, const char *name, const char *value)
{
	bool is_first = !strchr(sl_str_text(target), '?');

	sl_str_addf(target, "%c%s=", is_first ? '?' : '&', name);
	add_escaped(target, value, ":/");
}

static int dial(const char *path, unsigned timeout_s)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	const struct timeval limit = { .tv_sec = timeout_s };
	_cleanup_fd_ int fd = -1;

	if (strlen(path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	memcpy(addr.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0)
		return errno == EAGAIN ? -ETIMEDOUT : -errno; /* its queue stayed full */
	return SL_TAKE_FD(fd);
}

static int send_all(int fd, const struct sl_str *text)
{
	size_t sent = 0;

	while (sent < text->len) {
		ssize_t n = send(fd, text->p + sent, text->len - sent, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EPIPE || errno == ECONNRESET))
			return 0; /* an early answer may already be there */
		if (n < 0)
			return errno == EAGAIN ? -ETIMEDOUT : -errno;
		sent += (size_t)n;
	}
	return 0;
}

static int receive_all(int fd, struct sl_str *text)
{
	char chunk[65536];

	while (text->len < MAX_REPLY) {
		ssize_t n = read(fd, chunk, sizeof(chunk));

		if (n == 0)
			return text->oom ? -ENOMEM : 0;
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN       ? -ETIMEDOUT
			       : errno == ECONNRESET ? -EPROTO
						     : -errno;
		sl_str_add(text, chunk, (size_t)n);
	}
	return -EPROTO;
}

/* The value of Content-Length in the head that ends at `end`. */
static int content_length(const char *head, const char *end, uint64_t *ret)
{
	static const char name[] = "\r\ncontent-length: ";
	const size_t n = sizeof(name) - 1;

	for (const char *p = head; p + n < end; p++)
		if (strncasecmp(p, name, n) == 0)
			return sl_num_parsen(p + n, strcspn(p + n, "\r"), 0, MAX_REPLY, ret);
	return -EPROTO;
}

static int split_reply(struct sl_str *text, struct sl_client_reply *ret)
{
	const char *end = strstr(sl_str_text(text), "\r\n\r\n");
	struct sl_str body = { 0 };
	uint64_t status;
	uint64_t len;
	size_t at;

	if (!end || strncmp(text->p, "HTTP/1.", 7) != 0 || text->len < 12)
		return -EPROTO;
	if (sl_num_parsen(text->p + 9, 3, 100, 599, &status) < 0 ||
	    content_length(text->p, end, &len) < 0)
		return -EPROTO;
	at = (size_t)(end + 4 - text->p);
	if (text->len - at != len)
		return -EPROTO;
	sl_str_add(&body, text->p + at, (size_t)len);
	if (body.oom) {
		sl_str_done(&body);
		return -ENOMEM;
	}
	ret->status = (unsigned)status;
	ret->body = body;
	return 0;
}

int sl_client_send(const char *socket_path, const char *method, const char *target,
		   const struct sl_str *body, unsigned timeout_s, struct sl_client_reply *ret)
{
	_cleanup_(sl_str_done) struct sl_str text = { 0 };
	_cleanup_fd_ int fd = dial(socket_path, timeout_s);
	int r;

	if (fd < 0)
		return fd;
	sl_str_addf(&text, "%s %s HTTP/1.1\r\nHost: sluice\r\nConnection: close\r\n", method,
		    target);
	if (body)
		sl_str_addf(&text, "Content-Length: %zu\r\n", body->len);
	sl_str_adds(&text, "\r\n");
	if (body)
		sl_str_add(&text, sl_str_text(body), body->len);
	if (text.oom)
		return -ENOMEM;
	r = send_all(fd, &text);
	sl_str_clear(&text);
	if (r == 0)
		r = receive_all(fd, &text);
	return r < 0 ? r : split_reply(&text, ret);
}

int sl_client_ask(const char *socket_path, const char *method, const char *target,
		  unsigned timeout_s, struct sl_client_reply *ret)
{
	return sl_client_send(socket_path, method, target, NULL, timeout_s, ret);
}
