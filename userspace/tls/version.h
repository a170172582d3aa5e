/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_TLS_VERSION_H
#define SL_TLS_VERSION_H

/* The least that is accepted. */
enum sl_tls_version {
	SL_TLS_MIN_1_2 = 0,
	SL_TLS_MIN_1_3,
};

/*
 * What is used when nothing else is configured: forward secrecy and authenticated encryption. The
 * names are the library's.
 */
#define SL_TLS_CIPHERS "ECDHE+AESGCM:ECDHE+CHACHA20"
#define SL_TLS_SUITES "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"

#endif
