/* SPDX-License-Identifier: Apache-2.0 */
/* client_util.h - what the tests of libweft share: open, submit and check against fake_token(). */
#ifndef WEFT_TESTS_CLIENT_UTIL_H
#define WEFT_TESTS_CLIENT_UTIL_H

#include "libclient/weft.h"

#define CU_PROMPT 8u
extern const uint32_t cu_prompt[CU_PROMPT];

/* A session with the fake daemon, or NULL and a TAP remark. */
struct weft *cu_open(const struct weft_open_options *o);
/* Options of a plain request for cu_prompt. */
void cu_options(struct weft_submit_options *o, uint32_t max_tokens);
struct weft_request *cu_submit(struct weft *w, const struct weft_submit_options *o);
/* Wait for the end; the number of tokens or -errno. */
int64_t cu_wait_end(struct weft_request *r, uint32_t sample);
/* Are there exactly `want` tokens, and are they the model's? */
int cu_right(struct weft_request *r, uint32_t sample, uint32_t want);
enum weft_status cu_status(struct weft_request *r);
/* Descriptors of this process, and one more that counts them. */
int cu_open_fds(void);

#endif
