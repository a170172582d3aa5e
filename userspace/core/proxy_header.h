/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CORE_PROXY_HEADER_H
#define SL_CORE_PROXY_HEADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "core/slice.h"

/*
 * The PROXY protocol, versions 1 and 2 (haproxy.org/download/2.9/doc/proxy-protocol.txt), read
 * strictly and written. A header is told from other first bytes as early as its signature allows:
 * "PROXY " for version 1, the twelve bytes of version 2. Where the specification leaves a choice:
 * a datagram protocol in a PROXY command is BAD, for it cannot be about this connection; unix
 * addresses are skipped but TLVs after them are read; of LOCAL, UNKNOWN and UNSPEC everything is
 * skipped unread. A TLV that says what only one can say may come once.
 */
#define SL_PH_V1_MAX 107                    /* with CR LF */
#define SL_PH_V2_MAX (16 + UINT32_C(65535)) /* signature, fixed part and the longest rest */
#define SL_PH_UNIQUE_ID_MAX 128
/* 64 characters are the most a certificate may have as common name, but nobody enforces it. */
#define SL_PH_CN_MAX 256

enum sl_ph_result {
	SL_PH_OK = 0,
	SL_PH_MORE, /* a strict prefix of a possible header; in v1 known exactly, at any byte */
	SL_PH_NONE, /* not a header: the signature does not fit */
	SL_PH_BAD,  /* begins like a header and is malformed */
};

/* What the SSL TLV says of a client; PP2_CLIENT_* in the specification. */
enum sl_ph_ssl {
	SL_PH_SSL = 1,           /* it speaks TLS with who writes the header */
	SL_PH_SSL_CERT_CONN = 2, /* and has shown a certificate in this connection */
	SL_PH_SSL_CERT_SESS = 4, /* or at the latest in the one whose session it resumed */
};

/* Slices point into the bytes read. */
struct sl_proxy_header {
	int version;        /* 1 or 2 */
	bool is_local;      /* v2 LOCAL: the sender speaks for itself */
	bool has_addrs;     /* false for LOCAL, UNKNOWN, UNSPEC and unix: the socket's are used */
	struct sl_addr src; /* AF_UNSPEC unless has_addrs */
	struct sl_addr dst;
	struct sl_slice alpn; /* TLVs; absent when not given */
	struct sl_slice authority;
	struct sl_slice unique_id;
	struct sl_slice netns;
	bool has_crc32c; /* and it was right */
	bool has_ssl;
	uint8_t ssl_client;          /* SL_PH_SSL_* */
	uint32_t ssl_verify;         /* 0: the client's certificate was verified */
	struct sl_slice ssl_version; /* sub-TLVs of PP2_TYPE_SSL; absent when not given */
	struct sl_slice ssl_cn;
	struct sl_slice ssl_cipher;
	struct sl_slice ssl_sig_alg;
	struct sl_slice ssl_key_alg;
	size_t len; /* bytes of the header; payload begins here */
};

/* `ret` is written on OK only, `ret_why` (static text) on BAD only. Keeps no state. */
enum sl_ph_result sl_proxy_header_read(const void *bytes, size_t n, struct sl_proxy_header *ret,
				       const char **ret_why);

/* Whether bytes of which the answer was MORE have shown a whole signature: no payload, but a cut
 * header. */
bool sl_proxy_header_is_begun(const void *bytes, size_t n);

enum sl_ph_choice {
	SL_PH_SEND_NONE = 0,
	SL_PH_SEND_V1,
	SL_PH_SEND_V2,
};

struct sl_ph_out {
	enum sl_ph_choice version; /* V1 or V2 */
	struct sl_addr src;        /* AF_UNSPEC: UNKNOWN (v1) or LOCAL (v2) */
	struct sl_addr dst;        /* of another family than src: both as IPv6, IPv4 mapped;
				      AF_UNSPEC: zeros */
	struct sl_slice alpn;      /* v2 only, as all below; absent: no TLV */
	struct sl_slice authority;
	struct sl_slice unique_id; /* at most SL_PH_UNIQUE_ID_MAX */
	bool crc32c;
	/* as of struct sl_proxy_header, and none of it without has_ssl */
	bool has_ssl;
	uint8_t ssl_client;
	uint32_t ssl_verify;         /* other than 0 also when no certificate was shown */
	struct sl_slice ssl_version; /* "TLSv1.3" */
	struct sl_slice ssl_cn;      /* of the client's certificate, UTF-8, at most SL_PH_CN_MAX */
	struct sl_slice ssl_cipher;  /* "TLS_AES_128_GCM_SHA256" */
	struct sl_slice ssl_sig_alg; /* of the certificate the client was shown: "SHA256" */
	struct sl_slice ssl_key_alg; /* likewise: "RSA2048" */
};
/*
 * Room for a header with all of it: IPv6, one protocol, a name, unique id and common name of full
 * length, checksum, and 64 bytes for each of the other four.
 */
#define SL_PH_OUT_MAX 1280

/* Returns the length, or 0 when it does not fit into `size` or a value into its TLV. */
size_t sl_proxy_header_write(const struct sl_ph_out *out, uint8_t *buf, size_t size);

/*
 * CRC32c (Castagnoli, RFC 3720 appendix B.4), as the v2 checksum TLV has it. Starts with `crc` 0;
 * the result of one piece is the `crc` of the next.
 */
uint32_t sl_crc32c(uint32_t crc, const void *bytes, size_t n);

#endif
