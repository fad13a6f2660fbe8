/* SPDX-License-Identifier: Apache-2.0 */
/* plain.h - text of others (a file's, a model's) made harmless for a terminal and fit for JSON. */
#ifndef WEFT_COMMON_PLAIN_H
#define WEFT_COMMON_PLAIN_H

#include <stddef.h>

/* In place: '?' for each control character, the two-byte ones too, and for each byte that is no UTF-8. */
void plain_text(char *s, size_t bytes);

#endif
