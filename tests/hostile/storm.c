/* SPDX-License-Identifier: Apache-2.0 */
/* storm.c - see storm.h. The descriptors are packed here, with no help from libweft's packer. */
#include "tests/hostile/storm.h"

#include <math.h>
#include <string.h>

/* Per slot in the tx arena: the descriptor, the prompt, one resumed span. */
#define DESC_ROOM  4096u
#define PROMPT_MAX 600u
#define RESUME_MAX 40u
#define SLOT_ROOM  (DESC_ROOM + (PROMPT_MAX + RESUME_MAX) * 4)

struct pack {
	uint8_t *at;
	uint32_t keys;
};

static uint32_t rnd(struct storm *s, uint32_t n)
{
	s->x ^= s->x << 13;
	s->x ^= s->x >> 17;
	s->x ^= s->x << 5;
	return n ? s->x % n : s->x;
}

static void put_uint(struct pack *p, uint64_t v)
{
	int bytes = v < 128 ? 0 : v < 256 ? 1 : v < 65536 ? 2 : v <= UINT32_MAX ? 4 : 8;

	if (!bytes) {
		*p->at++ = (uint8_t)v;
		return;
	}
	*p->at++ = bytes == 1 ? 0xcc : bytes == 2 ? 0xcd : bytes == 4 ? 0xce : 0xcf;
	while (bytes--)
		*p->at++ = (uint8_t)(v >> (8 * bytes));
}

static void put_int(struct pack *p, int32_t v)
{
	if (v >= 0) {
		put_uint(p, (uint64_t)v);
	} else if (v >= -32) {
		*p->at++ = (uint8_t)v;
	} else {
		*p->at++ = 0xd0;
		*p->at++ = (uint8_t)v;
	}
}

static void put_float(struct pack *p, float f)
{
	uint32_t v;

	memcpy(&v, &f, sizeof(v));
	*p->at++ = 0xca;
	for (int i = 24; i >= 0; i -= 8)
		*p->at++ = (uint8_t)(v >> i);
}

static void put_array(struct pack *p, uint32_t n)
{
	if (n < 16) {
		*p->at++ = (uint8_t)(0x90 | n);
	} else {
		*p->at++ = 0xdc;
		*p->at++ = (uint8_t)(n >> 8);
		*p->at++ = (uint8_t)n;
	}
}

static void key(struct pack *p, enum wshm_desc_key k)
{
	put_uint(p, (uint64_t)k);
	p->keys++;
}

static void number(struct pack *p, enum wshm_desc_key k, uint64_t v)
{
	key(p, k);
	put_uint(p, v);
}

static void real(struct pack *p, enum wshm_desc_key k, float v)
{
	key(p, k);
	put_float(p, v);
}

/* Mostly a token of the model's, seldom one beyond. */
static uint32_t token(struct storm *s)
{
	return rnd(s, 400) ? rnd(s, s->r->welcome.model.vocab - 1) : rnd(s, 0);
}

static void put_span(struct pack *p, uint64_t off, uint32_t n)
{
	put_array(p, 2);
	put_uint(p, off);
	put_uint(p, n);
}

static void sampling(struct storm *s, struct pack *p)
{
	static const float heat[] = {0, 0.01f, 1, 2, 100}, mass[] = {1e-6f, 0.1f, 0.9f, 1},
			   penalty[] = {0.01f, 0.5f, 1, 1.3f, 10}, shift[] = {-10, -1, 0, 0.3f, 10};

	if (rnd(s, 2))
		real(p, WSHM_KEY_TEMPERATURE, heat[rnd(s, 5)]);
	if (!rnd(s, 3))
		number(p, WSHM_KEY_TOP_K, rnd(s, 4) ? rnd(s, 250) : rnd(s, 0));
	if (!rnd(s, 3))
		real(p, WSHM_KEY_TOP_P, mass[rnd(s, 4)]);
	if (!rnd(s, 4))
		real(p, WSHM_KEY_MIN_P, rnd(s, 2) ? 0.05f : 1);
	if (!rnd(s, 4))
		real(p, WSHM_KEY_REPETITION, penalty[rnd(s, 5)]);
	if (!rnd(s, 4))
		real(p, WSHM_KEY_PRESENCE, shift[rnd(s, 5)]);
	if (!rnd(s, 4))
		real(p, WSHM_KEY_FREQUENCY, shift[rnd(s, 5)]);
	if (rnd(s, 2))
		number(p, WSHM_KEY_SEED, (uint64_t)rnd(s, 0) << 32 | rnd(s, 0));
}

static void stops(struct storm *s, struct pack *p)
{
	uint32_t n;

	if (!rnd(s, 4)) {
		n = rnd(s, 8) ? rnd(s, 4) : 64;
		key(p, WSHM_KEY_STOP_TOKENS);
		put_array(p, n);
		while (n--)
			put_uint(p, token(s));
	}
	if (!rnd(s, 4)) {
		n = rnd(s, 8) ? rnd(s, 3) : 16;
		key(p, WSHM_KEY_STOP_SEQS);
		put_array(p, n);
		while (n--) {
			uint32_t m = 1 + (rnd(s, 6) ? rnd(s, 3) : rnd(s, 32));

			put_array(p, m);
			while (m--)
				put_uint(p, token(s));
		}
	}
	if (!rnd(s, 4)) {
		n = rnd(s, 8) ? rnd(s, 5) : 200;
		key(p, WSHM_KEY_BIAS);
		put_array(p, 2 * n);
		while (n--) {
			put_uint(p, token(s));
			put_float(p, rnd(s, 4) ? (float)rnd(s, 40) - 20 : -INFINITY);
		}
	}
	if (!rnd(s, 4)) {
		key(p, WSHM_KEY_IGNORE_EOS);
		*p->at++ = 0xc3;
	}
}

static uint32_t make_desc(struct storm *s, uint8_t *room, uint64_t prompt_off)
{
	struct pack p = {.at = room + 3};
	uint32_t n = rnd(s, 3) ? 1 : 1 + rnd(s, WSHM_MAX_SAMPLES), max_tokens;
	uint32_t prompt = rnd(s, 4) ? 1 + rnd(s, 60) : 1 + rnd(s, PROMPT_MAX);

	max_tokens = rnd(s, 5) ? 1 + rnd(s, 60) : 1 + rnd(s, 400);
	key(&p, WSHM_KEY_PROMPT);
	put_span(&p, prompt_off, prompt);
	if (n > 1)
		number(&p, WSHM_KEY_N, n);
	if (!rnd(s, 4)) {
		key(&p, WSHM_KEY_RESUME);
		put_array(&p, n);
		for (uint32_t i = 0; i < n; i++) {
			uint32_t most = max_tokens < RESUME_MAX ? max_tokens : RESUME_MAX;

			put_span(&p, prompt_off + PROMPT_MAX * 4, rnd(s, most + 1));
		}
	}
	number(&p, WSHM_KEY_MAX_TOKENS, max_tokens);
	if (!rnd(s, 4))
		number(&p, WSHM_KEY_MIN_TOKENS, rnd(s, max_tokens + 1));
	sampling(s, &p);
	stops(s, &p);
	if (!rnd(s, 2))
		number(&p, WSHM_KEY_LOGPROBS, rnd(s, 21));
	if (!rnd(s, 4))
		number(&p, WSHM_KEY_PROMPT_LOGPROBS, rnd(s, 21));
	if (!rnd(s, 3)) {
		key(&p, WSHM_KEY_PRIORITY);
		put_int(&p, (int32_t)rnd(s, 201) - 100);
	}
	if (!rnd(s, 4))
		number(&p, WSHM_KEY_TIMEOUT_MS, rnd(s, 3) ? 1 + rnd(s, 2000) : 1);
	if (!rnd(s, 4)) {
		key(&p, WSHM_KEY_NO_CACHE);
		*p.at++ = rnd(s, 2) ? 0xc3 : 0xc2;
	}
	if (!rnd(s, 8))
		number(&p, WSHM_KEY_INSTANCE, (uint64_t)rnd(s, 0) << 32 | rnd(s, 0));
	/* The map's head last, in its shortest form, right before the first key. */
	if (p.keys < 16) {
		room[2] = (uint8_t)(0x80 | p.keys);
		memmove(room, room + 2, (size_t)(p.at - room) - 2);
		return (uint32_t)(p.at - room) - 2;
	}
	room[0] = 0xde;
	room[1] = 0;
	room[2] = (uint8_t)p.keys;
	return (uint32_t)(p.at - room);
}

int storm_open(struct raw *r, const char *path, uid_t uid)
{
	struct wctl_hello h;

	raw_hello_init(&h);
	h.slots = STORM_SLOTS;
	h.tx_arena_bytes = STORM_SLOTS * SLOT_ROOM;
	h.rx_arena_bytes = UINT64_C(2) << 20; /* too little for all: some must wait for room */
	return raw_open_hello(r, path, uid, &h);
}

void storm_init(struct storm *s, struct raw *r, uint32_t seed)
{
	*s = (struct storm){.r = r, .x = seed ? seed : 1};
}

static void submit(struct storm *s, uint32_t slot)
{
	uint64_t off = (uint64_t)slot * SLOT_ROOM;
	uint8_t *desc = s->r->tx_arena + off;
	uint32_t *tokens = (uint32_t *)(desc + DESC_ROOM), bytes;

	for (uint32_t i = 0; i < PROMPT_MAX + RESUME_MAX; i++)
		tokens[i] = rnd(s, s->r->welcome.model.vocab - 1);
	if (!rnd(s, 20))
		tokens[rnd(s, PROMPT_MAX + RESUME_MAX)] = rnd(s, 0);
	bytes = make_desc(s, desc, off + DESC_ROOM);
	if (!s->faithful && !rnd(s, 30))
		desc[rnd(s, bytes)] = (uint8_t)rnd(s, 0);
	if (!rnd(s, 40))
		bytes = 1 + rnd(s, bytes);
	atomic_store(&s->r->req[slot].desc_off, off);
	atomic_store(&s->r->req[slot].desc_bytes, bytes);
	atomic_store(&s->r->req[slot].generation, ++s->generation[slot]);
	s->since_ns[slot] = raw_now_ns();
	raw_push(s->r, slot, s->generation[slot]);
	s->submitted++;
}

static bool has_ended(const struct storm *s, uint32_t slot)
{
	const struct wshm_slot *w = &s->r->slot[slot];

	return atomic_load(&w->generation) == s->generation[slot] &&
	       atomic_load(&w->state) == WSHM_SLOT_ENDED;
}

static void judge(struct storm *s, uint32_t slot)
{
	uint32_t status = atomic_load(&s->r->slot[slot].status);
	uint64_t took = raw_now_ns() - s->since_ns[slot];

	s->ended++;
	if (status < WSHM_N_STATUS)
		s->by_status[status]++;
	if (status == WSHM_OK && took > s->slowest_ns)
		s->slowest_ns = took;
}

/* May the slot's bytes be used again? Released, and seen so by the engine. */
static bool is_free(const struct storm *s, uint32_t slot)
{
	uint32_t g = s->generation[slot];

	return !g || (atomic_load(&s->r->req[slot].released) == g &&
		      atomic_load(&s->r->slot[slot].generation) == g &&
		      atomic_load(&s->r->slot[slot].state) == WSHM_SLOT_FREE);
}

void storm_turn(struct storm *s)
{
	uint32_t slot = rnd(s, STORM_SLOTS), g = s->generation[slot];

	if (is_free(s, slot)) {
		submit(s, slot);
	} else if (atomic_load(&s->r->req[slot].released) == g) {
		return; /* the engine will see it */
	} else if (has_ended(s, slot)) {
		judge(s, slot);
		raw_release(s->r, slot, g);
	} else if (!rnd(s, 20000)) {
		atomic_store(&s->r->req[slot].cancel, g);
		raw_wake(s->r);
	} else if (!rnd(s, 40000)) {
		raw_release(s->r, slot, g); /* in mid-stream, or before it was seen */
		s->ended++;
	}
}

bool storm_settle(struct storm *s, int timeout_ms)
{
	uint64_t until = raw_now_ns() + (uint64_t)timeout_ms * 1000000;
	uint32_t left = STORM_SLOTS;

	while (left && raw_now_ns() < until &&
	       atomic_load(&s->r->rx_ctl->engine_state) != WSHM_ENGINE_ENDED) {
		left = 0;
		for (uint32_t i = 0; i < STORM_SLOTS; i++) {
			uint32_t g = s->generation[i];

			if (is_free(s, i))
				continue;
			left++;
			if (atomic_load(&s->r->req[i].released) != g && has_ended(s, i)) {
				judge(s, i);
				raw_release(s->r, i, g);
			}
		}
		raw_pause_us(500);
	}
	return !left;
}
