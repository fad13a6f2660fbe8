/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a request says about its adapter and the cache, and what its result says: through the
 * descriptor, the slot, a structure of any size, and a change of daemons.
 */
#include "tests/e2e/client_util.h"
#include "tests/e2e/fake_daemon.h"
#include "tests/tap.h"

#include <errno.h>

static struct fake *start(uint32_t stall_at)
{
	struct fake_options o = {.path = fake_path()};
	struct fake *f = fake_start(&o);

	atomic_store(&fake_controls_of(f)->stall_at, stall_at);
	return f;
}

static void slots_say(struct fake *f, uint32_t invocation, uint64_t activation, uint64_t instance,
		      uint32_t cached)
{
	struct fake_controls *c = fake_controls_of(f);

	atomic_store(&c->invocation, invocation);
	atomic_store(&c->activation, activation);
	atomic_store(&c->adapter_instance, instance);
	atomic_store(&c->cached_tokens, cached);
}

static void test_result(struct fake *f, struct weft *w)
{
	struct weft_result res = {.size = sizeof(res)}, shorter;
	struct weft_submit_options o;
	struct weft_request *r;

	cu_options(&o, 5);
	r = cu_submit(w, &o);
	is_int(cu_wait_end(r, 0), 5, "a request of the base model");
	weft_result(r, &res);
	ok(res.invocation == WEFT_INVOCATION_NONE && res.activation == UINT32_MAX,
	   "no invocation, no activation");
	ok(!fake_last_desc(f).no_cache && !fake_last_desc(f).instance, "nothing special is asked");
	weft_free(r);

	slots_say(f, WSHM_INVOCATION_APPENDED, 7, 99, 6);
	o.adapter = "an adapter";
	o.flags = WEFT_NO_CACHE;
	r = cu_submit(w, &o);
	is_int(cu_wait_end(r, 0), 5, "one with an adapter, without the cache");
	ok(fake_last_desc(f).no_cache && !strcmp(fake_last_desc(f).adapter, "an adapter"),
	   "asked for so");
	weft_result(r, &res);
	ok(res.invocation == WEFT_INVOCATION_APPENDED && res.activation == 7 &&
		   res.cached_tokens == 6,
	   "the result says what the slot says");
	memset(&shorter, 0x55, sizeof(shorter));
	shorter.size = offsetof(struct weft_result, invocation);
	is_int(weft_result(r, &shorter), 0, "a caller of a shorter structure");
	ok(shorter.cached_tokens == 6 && shorter.activation == 0x55555555,
	   "gets its fields and no more");
	weft_free(r);
	o.flags = 4;
	is_int(weft_submit(w, &r, &o, NULL), -EINVAL, "a flag that nobody knows");
}

/* A stream that has begun under one adapter's weights, or has fallen back to the base model. */
static void test_moves(uint32_t invocation, uint64_t instance)
{
	struct fake *f = start(3);
	struct weft_result res = {.size = sizeof(res)};
	struct weft *w = cu_open(NULL);
	struct weft_submit_options o;
	struct weft_request *r;
	struct wshm_desc d;

	slots_say(f, invocation, instance ? 4 : UINT64_MAX, instance, 2);
	cu_options(&o, 20);
	o.adapter = "a";
	o.flags = WEFT_NO_CACHE;
	r = cu_submit(w, &o);
	is_int(weft_wait(r, 0, 2, 60000), 3, "three tokens");
	is_int(fake_last_desc(f).instance, 0, "at first any instance of that name will do");
	atomic_store(&fake_controls_of(f)->admit, 0);
	fake_kill(f);
	f = start(UINT32_MAX);
	is_int(cu_wait_end(r, 0), 20, "another daemon goes on");
	d = fake_last_desc(f);
	ok(d.instance == instance, "with that very instance");
	is_str(d.adapter, instance ? "a" : "", "of the adapter, or with the base model");
	ok(d.no_cache, "and as asked");
	weft_result(r, &res);
	ok(res.resubmitted == 1 && res.invocation == (enum weft_invocation)invocation &&
		   res.activation == (instance ? 4 : UINT32_MAX) && res.cached_tokens == 2,
	   "the result is about the first admission");
	weft_free(r);
	weft_close(w);
	fake_kill(f);
}

int main(void)
{
	struct fake *f = start(UINT32_MAX);
	struct weft *w = cu_open(NULL);

	test_result(f, w);
	weft_close(w);
	fake_kill(f);
	test_moves(WSHM_INVOCATION_FOUND, UINT64_C(0xfedcba9876543210));
	test_moves(WSHM_INVOCATION_BASE, 0);
	return tap_done();
}
