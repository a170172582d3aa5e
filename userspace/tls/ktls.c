/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "tls/ktls.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/opensslconf.h>
#include <sys/socket.h>

#include "base/cleanup.h"

const char *sl_tls_ktls_missing(void)
{
#ifdef OPENSSL_NO_KTLS
	return "OpenSSL was built without it";
#else
	_cleanup_fd_ int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return "no socket to ask with";
	/* a socket that is not connected is refused only after the protocol was found */
	if (setsockopt(fd, IPPROTO_TCP, TCP_ULP, "tls", sizeof("tls")) == 0 || errno == ENOTCONN)
		return NULL;
	return errno == ENOENT ? "the kernel has no TLS" : "the kernel refuses it";
#endif
}
