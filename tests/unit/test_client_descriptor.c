/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What libweft packs is what the engine's own decoder reads: random descriptors there and back, the
 * largest that fits, and the first that does not. The two are written independently: msgpack-c
 * packs, shm/desc.c decodes.
 */
#include "libclient/private.h"
#include "tests/tap.h"

#include <errno.h>
#include <math.h>

static uint64_t state = 1181783497276652981u;

static uint32_t rnd(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)(state >> 16);
}

/* Small and large values, so that every length of integer occurs. */
static uint32_t any(void)
{
	return rnd() >> (rnd() % 32);
}

static float real(float lo, float hi)
{
	return lo + (hi - lo) * (float)(rnd() % 10001) / 10000;
}

static void fill_lists(struct wshm_desc *d)
{
	d->n_stop_tokens = rnd() % 2 ? rnd() % (WSHM_MAX_STOP_TOKENS + 1) : 0;
	for (uint32_t i = 0; i < d->n_stop_tokens; i++)
		d->stop_tokens[i] = any();
	d->n_stop_seqs = rnd() % 2 ? rnd() % 5 : 0;
	for (uint32_t i = 0; i < d->n_stop_seqs; i++) {
		d->stop_seqs[i].n = 1 + rnd() % WSHM_MAX_STOP_SEQ;
		for (uint32_t k = 0; k < d->stop_seqs[i].n; k++)
			d->stop_seqs[i].tokens[k] = any();
	}
	d->n_bias = rnd() % 2 ? rnd() % 100 : 0;
	for (uint32_t i = 0; i < d->n_bias; i++) {
		d->bias[i].token = any();
		d->bias[i].value = rnd() % 9 ? real(-100, 100) : -INFINITY;
	}
}

static void fill(struct wshm_desc *d)
{
	wshm_desc_init(d);
	if (rnd() % 3 == 0)
		snprintf(d->adapter, sizeof(d->adapter), "adapter-%u", any());
	d->prompt = (struct wshm_span){(uint64_t)any() * 4, 1 + any() % 100000};
	d->n = 1 + rnd() % WSHM_MAX_SAMPLES;
	d->max_tokens = 1 + any() % 1000000;
	d->min_tokens = rnd() % 2 ? any() % (d->max_tokens + 1) : 0;
	if (rnd() % 3 == 0) {
		d->n_resume = d->n;
		for (uint32_t i = 0; i < d->n; i++)
			d->resume[i] = (struct wshm_span){(uint64_t)any() * 4,
							  any() % (d->max_tokens + 1)};
	}
	d->temperature = rnd() % 2 ? real(0, 100) : d->temperature;
	d->top_k = rnd() % 2 ? any() : 0;
	d->top_p = rnd() % 2 ? real(0.001f, 1) : d->top_p;
	d->min_p = rnd() % 2 ? real(0, 1) : d->min_p;
	d->repetition = rnd() % 2 ? real(0.01f, 10) : d->repetition;
	d->presence = rnd() % 2 ? real(-10, 10) : d->presence;
	d->frequency = rnd() % 2 ? real(-10, 10) : d->frequency;
	d->has_seed = rnd() % 2;
	d->seed = d->has_seed ? ((uint64_t)any() << 32 | any()) >> (rnd() % 40) : 0;
	d->ignore_eos = rnd() % 2;
	d->logprobs = rnd() % 2 ? rnd() % 21 : WSHM_NO_LOGPROBS;
	d->prompt_logprobs = rnd() % 2 ? rnd() % 21 : WSHM_NO_LOGPROBS;
	d->priority = rnd() % 2 ? (int)(rnd() % 201) - 100 : 0;
	d->timeout_ms = rnd() % 2 ? any() : 0;
	fill_lists(d);
}

int main(void)
{
	uint8_t buf[WSHM_MAX_DESC];
	struct wshm_desc d, back;
	int unreadable = 0, other = 0, large = 0, n_fit = 0;
	uint32_t key = 0;

	for (int i = 0; i < 20000; i++) {
		int bytes;

		fill(&d);
		bytes = wc_desc_pack(&d, buf, sizeof(buf));
		large += bytes > 1000;
		if (bytes == -E2BIG)
			continue;
		n_fit++;
		memset(&back, 0xa5, sizeof(back));
		if (wshm_desc_decode(&back, buf, (uint32_t)bytes, &key)) {
			if (!unreadable++)
				diag("key %u", key);
			continue;
		}
		/* Packing what was read must give the same bytes: nothing was lost on the way. */
		uint8_t again[WSHM_MAX_DESC];
		int bytes2 = wc_desc_pack(&back, again, sizeof(again));

		other += bytes2 != bytes || memcmp(buf, again, bytes) || back.n != d.n ||
			 back.max_tokens != d.max_tokens || back.top_p != d.top_p ||
			 back.n_bias != d.n_bias || back.seed != d.seed ||
			 back.priority != d.priority || back.n_resume != d.n_resume ||
			 back.prompt.off != d.prompt.off || strcmp(back.adapter, d.adapter);
	}
	ok(n_fit > 15000, "%d of 20000 descriptors fit", n_fit);
	is_int(unreadable, 0, "the engine reads every one");
	is_int(other, 0, "and reads what was meant");
	ok(large > 500, "large ones among them (%d)", large);
	wshm_desc_init(&d);
	d.prompt.tokens = 1;
	d.n_bias = WSHM_MAX_BIAS;
	for (uint32_t i = 0; i < d.n_bias; i++) {
		d.bias[i].token = UINT32_MAX - i;
		d.bias[i].value = 1;
	}
	d.n_stop_seqs = WSHM_MAX_STOP_SEQS;
	for (uint32_t i = 0; i < d.n_stop_seqs; i++) {
		d.stop_seqs[i].n = WSHM_MAX_STOP_SEQ;
		memset(d.stop_seqs[i].tokens, 0xff, sizeof(d.stop_seqs[i].tokens));
	}
	is_int(wc_desc_pack(&d, buf, sizeof(buf)), -E2BIG, "all lists full of large ids: too big");
	d.n_stop_seqs = 0;
	ok(wc_desc_pack(&d, buf, sizeof(buf)) > 2560, "256 bias entries fit");
	return tap_done();
}
