/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_fetch_race.c - a client thread rewrites record, descriptor and prompt while the engine
 * fetches them, a million times in all. What the engine uses is its copy: a descriptor that was
 * found valid stays the one that was judged, a span that was checked is the one that is fetched,
 * and a token that was checked is the one that is used. And the copy itself was loaded once per
 * word: no eight bytes are ever a mixture of two states.
 */
#include "tests/shm/pair.h"
#include "tests/tap.h"

#include <errno.h>
#include <pthread.h>

#define TRIES	 250000
#define VOCAB	 1000u
#define PROMPT_N 64u

struct race {
	struct pair pair;
	_Atomic uint32_t stop;
};

/* --- words -------------------------------------------------------------------------------------- */

static void *flip_words(void *arg)
{
	struct race *r = arg;
	_Atomic uint64_t *w = (_Atomic uint64_t *)wshm_client_tx_arena(&r->pair.client);
	uint64_t v = 0;
	uint32_t i;

	while (!ord_load(&r->stop)) {
		v = ~v;
		for (i = 0; i < 64; i++)
			ord_store(&w[i], v);
	}
	return NULL;
}

/* Returns how many words were torn; *ret_mixed: copies that held both states. */
static uint32_t fetch_words(struct race *r, uint32_t *ret_mixed)
{
	uint32_t i, j, torn = 0, mixed = 0;
	uint64_t copy[64], any, all;
	uint64_t stop = pair_now_ns() + UINT64_C(20000000000);

	for (i = 0; i < TRIES || (mixed <= 100 && pair_now_ns() < stop); i++) {
		wshm_engine_fetch(&r->pair.engine, 0, copy, sizeof(copy));
		for (any = 0, all = ~UINT64_C(0), j = 0; j < 64; j++) {
			torn += copy[j] != 0 && copy[j] != ~UINT64_C(0);
			any |= copy[j];
			all &= copy[j];
		}
		mixed += any != all;
	}
	*ret_mixed = mixed;
	return torn;
}

/* --- whole requests ----------------------------------------------------------------------------- */

/* Two descriptors of equal length: a small prompt, and one that lies far outside the arena. */
static const uint8_t good[] = {0x82, 0x03, 0x92, 0xcd, 0x10, 0x00, PROMPT_N, 0x05, 0x01};
static const uint8_t evil[] = {0x82, 0x03, 0x92, 0xcd, 0xff, 0xf8, PROMPT_N, 0x05, 0x0f};

static void *rewrite(void *arg)
{
	struct race *r = arg;
	uint8_t *arena = wshm_client_tx_arena(&r->pair.client);
	struct wshm_req *req = wshm_client_req(&r->pair.client, 0);
	uint64_t rng = 5;
	uint32_t i;

	while (!ord_load(&r->stop)) {
		uint32_t what = pair_random(&rng);
		const uint8_t *from = what & 1 ? good : evil;

		for (i = 0; i < sizeof(good); i++)
			ord_store((_Atomic uint8_t *)&arena[i], from[i]);
		for (i = 0; i < PROMPT_N; i++)
			ord_store((_Atomic uint32_t *)(arena + 4096) + i,
				  what & 2 ? 7 : 0xffff0007);
		ord_store(&req->desc_off, what & 4 ? 0 : UINT64_MAX - 3);
		ord_store(&req->desc_bytes, what & 8 ? sizeof(good) : UINT32_MAX);
		ord_store(&req->generation, what >> 8);
	}
	return NULL;
}

struct outcome {
	uint32_t no_desc, bad_desc, bad_span, bad_token, used, wrong;
};

/* One admission as an engine does it, with what it relies on checked again at the end. */
static void admit(const struct wshm_engine *e, struct outcome *o)
{
	static struct wshm_desc d, again;
	uint32_t prompt[PROMPT_N + 64], i, key;
	uint8_t desc[WSHM_MAX_DESC];
	struct wshm_req_copy r;

	wshm_engine_fetch_req(e, 0, &r);
	if (r.desc_bytes > sizeof(desc) || wshm_engine_fetch(e, r.desc_off, desc, r.desc_bytes)) {
		o->no_desc++;
		return;
	}
	if (wshm_desc_decode(&d, desc, r.desc_bytes, &key)) {
		o->bad_desc++;
		return;
	}
	if (d.prompt.tokens > PROMPT_N + 64 ||
	    wshm_engine_fetch_u32(e, d.prompt.off, prompt, d.prompt.tokens)) {
		o->bad_span++;
		return;
	}
	for (i = 0; i < d.prompt.tokens; i++)
		if (prompt[i] >= VOCAB) {
			o->bad_token++;
			return;
		}
	o->used++;
	o->wrong += wshm_desc_decode(&again, desc, r.desc_bytes, &key) ||
		    memcmp(&d.prompt, &again.prompt, sizeof(d.prompt)) || d.n != again.n;
	o->wrong += d.prompt.off > 65536 || d.prompt.tokens * 4 > 65536 - d.prompt.off;
	for (i = 0; i < d.prompt.tokens; i++)
		o->wrong += prompt[i] >= VOCAB;
}

static bool all_hit(const struct outcome *o)
{
	return o->no_desc > 100 && o->bad_span > 100 && o->bad_token > 100 && o->used > 100;
}

int main(void)
{
	struct outcome o = {0};
	uint32_t i, torn, mixed;
	uint64_t stop;
	struct race r = {0};
	pthread_t t;

	pair_open(&r.pair, 2, 0);
	if (pthread_create(&t, NULL, flip_words, &r))
		bail_out("pthread_create");
	torn = fetch_words(&r, &mixed);
	ord_store(&r.stop, 1);
	pthread_join(t, NULL);
	diag("at least %d fetches of words, %u during a change", TRIES, mixed);
	ok(mixed > 100, "the rewriting did hit the fetches");
	is_int(torn, 0, "no word was loaded twice or in pieces");

	ord_store(&r.stop, 0);
	if (pthread_create(&t, NULL, rewrite, &r))
		bail_out("pthread_create");
	/* On a busy machine the other thread may hardly run at first: go on until it has. */
	stop = pair_now_ns() + UINT64_C(20000000000);
	for (i = 0; i < 3 * TRIES || (!all_hit(&o) && pair_now_ns() < stop); i++)
		admit(&r.pair.engine, &o);
	ord_store(&r.stop, 1);
	pthread_join(t, NULL);
	diag("%u admissions: %u without descriptor, %u bad descriptors, %u bad spans, %u bad "
	     "tokens, "
	     "%u used",
	     i, o.no_desc, o.bad_desc, o.bad_span, o.bad_token, o.used);
	ok(all_hit(&o), "every step was hit");
	is_int(o.wrong, 0, "what was used is what was judged");
	pair_close(&r.pair);
	return tap_done();
}
