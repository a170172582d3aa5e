/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_BASE_SIPHASH_H
#define SL_BASE_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

/* SipHash-2-4 (Aumasson, Bernstein 2012): keyed, so that peers cannot aim at one bucket. */
uint64_t sl_siphash(const void *bytes, size_t n, const uint8_t key[16]);

#endif
