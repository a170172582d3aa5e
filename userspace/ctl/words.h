/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SL_CTL_WORDS_H
#define SL_CTL_WORDS_H

#include "base/str.h"

/* Names and meanings of all termination and engine reasons, as one JSON document; needs no daemon.
 */
void sl_words_reasons(struct sl_str *out);

#endif
