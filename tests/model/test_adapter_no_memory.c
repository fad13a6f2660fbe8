/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_adapter_no_memory.c - every allocation and every request to the backend fails in turn, once
 * or from then on.
 *
 * Opening must fail with a line, leave *ret alone and give everything back; placing must leave the
 * adapter without a place, and it can be placed later. malloc() and its like are this program's
 * own, over glibc's, so that they can refuse and what is still held can be counted; jansson keeps
 * glibc's, since it ends the process on some of its own (an assertion in its reading of strings).
 */
#include "tests/model/adapter_box.h"
#include "tests/tap.h"

#include <errno.h>
#include <stdlib.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define OWN_MALLOC 0
#elif defined(__has_feature)
#define OWN_MALLOC (!__has_feature(address_sanitizer) && !__has_feature(thread_sanitizer))
#else
#define OWN_MALLOC 1
#endif

static long calls_until_no = -1; /* requests that still succeed; -1: all do */
static bool for_ever;		 /* after the first that is refused, all are */
static long held;		 /* allocations */

static bool refuse(void)
{
	if (calls_until_no < 0)
		return false;
	if (calls_until_no)
		return !calls_until_no--;
	if (!for_ever)
		calls_until_no = -1;
	return true;
}

#if OWN_MALLOC
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t n, size_t bytes);
void *__libc_realloc(void *p, size_t bytes);
void *__libc_memalign(size_t align, size_t bytes);
void __libc_free(void *p);

static void *glibc_malloc(size_t bytes)
{
	return __libc_malloc(bytes);
}

static void glibc_free(void *p)
{
	__libc_free(p);
}

__attribute__((visibility("default"))) void *malloc(size_t bytes)
{
	void *p = refuse() ? NULL : __libc_malloc(bytes);

	held += p != NULL;
	if (!p)
		errno = ENOMEM;
	return p;
}

__attribute__((visibility("default"))) void *calloc(size_t n, size_t bytes)
{
	void *p = refuse() ? NULL : __libc_calloc(n, bytes);

	held += p != NULL;
	if (!p)
		errno = ENOMEM;
	return p;
}

__attribute__((visibility("default"))) void *realloc(void *old, size_t bytes)
{
	void *p = refuse() ? NULL : __libc_realloc(old, bytes);

	held += p && !old;
	if (!p)
		errno = ENOMEM;
	return p;
}

__attribute__((visibility("default"))) void *aligned_alloc(size_t align, size_t bytes)
{
	void *p = refuse() ? NULL : __libc_memalign(align, bytes);

	held += p != NULL;
	if (!p)
		errno = ENOMEM;
	return p;
}

__attribute__((visibility("default"))) void free(void *p)
{
	held -= p != NULL;
	__libc_free(p);
}
#else
static void *(*const glibc_malloc)(size_t bytes) = malloc;
static void (*const glibc_free)(void *p) = free;
#endif

/* --- opening -------------------------------------------------------------------------------------*/

/* Open with request n refused: whether it opened; *ret_sound is what must hold either way. */
static bool try_open(const struct model *m, size_t block_bytes, const char *dir, long n,
		     bool *ret_sound)
{
	struct adapter *a = NULL;
	struct weft_err err = {0};
	long before = held;
	int r;

	calls_until_no = n;
	r = adapter_open_dir(m, block_bytes, dir, NULL, &a, &err);
	calls_until_no = -1;
	*ret_sound = r ? !a && r == err.code && *err.message : a != NULL;
	adapter_close(a);
	*ret_sound = *ret_sound && held == before;
	if (!*ret_sound)
		diag("refusing request %ld: code %d, \"%s\", %ld more held", n, r, err.message,
		     held - before);
	return !r;
}

static void test_open(const char *name, const char *model)
{
	struct adapted_fixture f;
	struct model m;
	size_t bytes;

	box_model_open(&m, &wk_ref_ops, model);
	bytes = adapter_piece_bytes(m.ops, m.be, &m.config);
	adapted_read(name, m.config.vocab, &f);
	for (int mode = 0; mode < 2; mode++) {
		bool sound = true, all = true;
		long n = 0;

		for_ever = mode;
		while (n < 5000 && !try_open(&m, bytes, f.dir, n, &sound)) {
			all = all && sound;
			n++;
		}
		ok(n > 20 && n < 5000, "%s: opens once nothing is refused, after %ld", name, n);
		ok(all && sound, "%s: refused %s: an error, and nothing is kept", name,
		   mode ? "for ever" : "once");
	}
	adapted_free(&f);
	box_model_close(&m);
}

/* --- placing -------------------------------------------------------------------------------------*/

static struct wk_ops ops; /* the reference backend's, with the calls below in between */
static long loras;	  /* held */

static int buf_write(struct wk_backend *be, struct wk_buf *buf, size_t off, const void *src,
		     size_t bytes)
{
	return refuse() ? -EIO : wk_ref_ops.buf_write(be, buf, off, src, bytes);
}

static int lora_new(struct wk_backend *be, const struct wk_lora_part *parts, uint32_t n_parts,
		    struct wk_lora **ret)
{
	int r = refuse() ? -ENOMEM : wk_ref_ops.lora_new(be, parts, n_parts, ret);

	loras += !r;
	return r;
}

static void lora_free(struct wk_backend *be, struct wk_lora *lora)
{
	loras -= lora != NULL;
	wk_ref_ops.lora_free(be, lora);
}

static void test_place(void)
{
	uint32_t blocks[FIXTURE_SPARE];
	struct adapted_fixture f;
	struct weft_err err = {0};
	struct adapter *a;
	struct runner r;
	bool all = true;
	long n = 0;
	int e;

	ops = wk_ref_ops;
	ops.buf_write = buf_write;
	ops.lora_new = lora_new;
	ops.lora_free = lora_free;
	for_ever = false;
	adapted_read("llama-all", 192, &f);
	if (runner_open(&r, &ops, NULL, 1, f.model, NULL, &err) ||
	    adapter_open_dir(r.m, model_block_bytes(r.m), f.dir, NULL, &a, &err))
		bail_out(err.message);
	for (uint32_t i = 0; i < FIXTURE_SPARE; i++)
		blocks[i] = r.first_spare + i;
	for (;; n++) {
		long before = held;

		calls_until_no = n;
		e = adapter_place(a, r.m, r.pool, blocks);
		calls_until_no = -1;
		if (!e)
			break;
		all = all && !adapter_lora(a) && !loras && (e == -EIO || e == -ENOMEM) &&
		      held == before;
	}
	ok(n > 3 && adapter_lora(a), "placed once nothing is refused, after %ld", n);
	ok(all, "and before without a place, nothing kept");
	ok(!adapter_place(a, r.m, r.pool, blocks + 1) && loras == 1, "moved: one place, not two");
	adapter_remove(a, r.m);
	ok(!loras && !adapter_lora(a), "removed");
	adapter_remove(a, r.m);
	ok(!loras, "once more: nothing happens");
	adapter_close(a);
	runner_close(&r);
	adapted_free(&f);
}

int main(void)
{
	adapter_close(NULL);
	if (OWN_MALLOC) {
		json_set_alloc_funcs(glibc_malloc, glibc_free);
		test_open("llama-patterns", "llama");
		test_open("granite-alora", "granite");
	} else {
		skip(8, "the sanitizer has malloc");
	}
	test_place();
	return tap_done();
}
