/* SPDX-License-Identifier: Apache-2.0 */
/* client_util.c - see client_util.h. */
#include "tests/e2e/client_util.h"
#include "tests/e2e/fake_daemon.h"

#include <dirent.h>
#include <stdio.h>

const uint32_t cu_prompt[CU_PROMPT] = {3, 1, 4, 1, 5, 9, 2, 6};

struct weft *cu_open(const struct weft_open_options *o)
{
	struct weft_open_options with = WEFT_OPEN_OPTIONS_INIT;
	struct weft_error e = {0};
	struct weft *w = NULL;

	if (o)
		with = *o;
	with.socket = fake_path();
	if (weft_open(&w, &with, &e) < 0)
		printf("# open: %d %s\n", e.code, e.message);
	return w;
}

void cu_options(struct weft_submit_options *o, uint32_t max_tokens)
{
	weft_submit_options_init(o);
	o->prompt = cu_prompt;
	o->n_prompt = CU_PROMPT;
	o->max_tokens = max_tokens;
}

struct weft_request *cu_submit(struct weft *w, const struct weft_submit_options *o)
{
	struct weft_request *r = NULL;
	struct weft_error e;

	if (weft_submit(w, &r, o, &e) < 0)
		printf("# submit: %s\n", e.message);
	return r;
}

int64_t cu_wait_end(struct weft_request *r, uint32_t sample)
{
	int64_t n, have = 0;

	while ((n = weft_wait(r, sample, (uint32_t)have, 60000)) > have)
		have = n;
	return n;
}

int cu_right(struct weft_request *r, uint32_t sample, uint32_t want)
{
	uint32_t n;
	const uint32_t *t = weft_tokens(r, sample, &n);

	if (n != want)
		return 0;
	for (uint32_t i = 0; i < n; i++)
		if (t[i] != fake_token(cu_prompt, CU_PROMPT, sample, i))
			return 0;
	return 1;
}

enum weft_status cu_status(struct weft_request *r)
{
	struct weft_result res = {.size = sizeof(res)};

	return weft_result(r, &res) < 0 ? WEFT_LOST : res.status;
}

int cu_open_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}
