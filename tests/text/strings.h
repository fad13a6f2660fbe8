/* SPDX-License-Identifier: Apache-2.0 */
/* strings.h - the strings of tests/oracle/make_tokenizers.py, made again here. */
#ifndef WEFT_TESTS_TEXT_STRINGS_H
#define WEFT_TESTS_TEXT_STRINGS_H

#include <stddef.h>
#include <stdint.h>

/* tests/data/tokenizers/NAME, in a buffer of its own that is overwritten by the next call. */
const char *tokenizer_path(const char *name);
/* A file whole, with a zero after it; ends the program where it cannot be read. */
char *read_file(const char *path, size_t *ret_bytes);

/* String `seed` of the generator, in a buffer that the next call overwrites. */
const char *test_string(uint64_t seed, size_t *ret_bytes);
uint32_t fnv(uint32_t h, const void *p, size_t n);
#define FNV_START 0x811c9dc5u

#endif
