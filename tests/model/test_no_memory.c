/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_no_memory.c - a backend that refuses its n-th request, for every n there is.
 *
 * Opening must fail with the backend's code and a line, leave *ret alone and give everything back:
 * what is still held is counted here, and SAN=address sees the rest. The first run that is not
 * refused anything must open.
 */
#include "tests/model/fixture.h"
#include "tests/tap.h"

#include <errno.h>

static struct wk_ops ops;    /* the reference backend's, with the calls below in between */
static int calls_until_no;   /* requests that still succeed */
static int weights, buffers; /* held */
static bool no_buffer;	     /* what was refused last */
static int buffers_refused;  /* with a message that says so */

#define NO_BUFFER "no memory for a buffer" /* as the backends begin that line */

static bool refuse(void)
{
	no_buffer = false;
	return calls_until_no-- <= 0;
}

static int buf_new(struct wk_backend *be, size_t bytes, struct wk_buf **ret)
{
	bool no = refuse();
	int r = no ? -ENOMEM : wk_ref_ops.buf_new(be, bytes, ret);

	no_buffer = no;
	buffers += !r;
	return r;
}

static const char *last_error(const struct wk_backend *be)
{
	return no_buffer ? NO_BUFFER " of so many bytes" : wk_ref_ops.last_error(be);
}

/* The backend's line is the message, once. */
static bool message_sound(const char *message)
{
	const char *first = strstr(message, NO_BUFFER);

	buffers_refused += first != NULL;
	return *message && (!first || !strstr(first + 1, NO_BUFFER));
}

static void buf_free(struct wk_backend *be, struct wk_buf *buf)
{
	buffers -= buf != NULL;
	wk_ref_ops.buf_free(be, buf);
}

static int buf_write(struct wk_backend *be, struct wk_buf *buf, size_t off, const void *src,
		     size_t bytes)
{
	return refuse() ? -EIO : wk_ref_ops.buf_write(be, buf, off, src, bytes);
}

static int weight_new(struct wk_backend *be, const struct wk_weight_part *parts, uint32_t n_parts,
		      uint32_t k, enum wk_pack pack, struct wk_weight **ret)
{
	int r = refuse() ? -ENOMEM : wk_ref_ops.weight_new(be, parts, n_parts, k, pack, ret);

	weights += !r;
	return r;
}

static void weight_free(struct wk_backend *be, struct wk_weight *w)
{
	weights -= w != NULL;
	wk_ref_ops.weight_free(be, w);
}

static int kv_bind(struct wk_backend *be, const struct wk_kv_shape *shape, struct wk_buf *pool,
		   uint32_t n_blocks)
{
	return refuse() ? -ENOMEM : wk_ref_ops.kv_bind(be, shape, pool, n_blocks);
}

/* Whether it opened, after n requests that succeed; *ret_sound is what must hold either way. */
static bool try_open(const char *dir, int n, bool *ret_sound)
{
	struct weft_err err = {0};
	struct runner r;
	int e;

	calls_until_no = n;
	e = runner_open(&r, &ops, NULL, 1, dir, NULL, &err);
	if (!e)
		runner_close(&r);
	*ret_sound = !weights && !buffers &&
		     (!e || ((e == -ENOMEM || e == -EIO) && message_sound(err.message)));
	if (!*ret_sound)
		diag("refusing request %d: code %d, \"%s\", %d weights and %d buffers held", n, e,
		     err.message, weights, buffers);
	return !e;
}

int main(void)
{
	static const char *const names[] = {"llama", "qwen2-window-yarn", "qwen3"};

	ops = wk_ref_ops;
	ops.buf_new = buf_new;
	ops.buf_free = buf_free;
	ops.last_error = last_error;
	ops.buf_write = buf_write;
	ops.weight_new = weight_new;
	ops.weight_free = weight_free;
	ops.kv_bind = kv_bind;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		bool sound = true, all = true;
		struct fixture f;
		int n = 0;

		fixture_read(names[i], &f);
		while (n < 1000 && !try_open(f.dir, n, &sound)) {
			all = all && sound;
			n++;
		}
		ok(n > 20 && n < 1000, "%s: opens once nothing is refused, after %d", names[i], n);
		ok(all && sound, "%s: each refusal is an error and nothing is kept", names[i]);
		fixture_free(&f);
	}
	ok(buffers_refused > 3, "a buffer that there is no memory for is named once (%d were)",
	   buffers_refused);
	return tap_done();
}
