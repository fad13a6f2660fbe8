/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Record, descriptor and prompt are rewritten by a second thread while the engine fetches them: a
 * million times, or for twenty seconds. Whatever the engine catches, it must have caught once: what
 * it then does is some request that could have been asked, or a refusal; and if it says OK, it has
 * computed as many tokens as the descriptor that it decoded asked for.
 */
#include "tests/hostile/raw.h"
#include "tests/hostile/world.h"
#include "tests/tap.h"

#include <pthread.h>
#include <unistd.h>

#define SLOTS	8u
#define SECONDS 20u
#define TRIES	1000000u

static struct world *w;

struct writer {
	struct raw *r;
	_Atomic bool stop;
	_Atomic uint64_t writes;
};

static uint32_t next(uint32_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 17;
	return *x ^= *x << 5;
}

/* One write somewhere that a fetch may be reading. */
static void scribble(struct raw *r, uint32_t x)
{
	uint32_t slot = x % SLOTS, how = x >> 28;
	uint8_t *desc = r->tx_arena + raw_desc_off(slot);
	uint32_t *prompt = (uint32_t *)(r->tx_arena + raw_prompt_off(slot));

	if (how < 8) { /* the prompt's span and max_tokens: bytes that are numbers */
		static const uint8_t at[] = {2, 3, 4, 5, 6, 7, 8, 9};

		desc[at[how]] = (uint8_t)(x >> 8);
	} else if (how < 11) { /* a valid other request */
		raw_desc(desc, raw_prompt_off((x >> 8) % SLOTS), 1 + (x >> 12) % 20, how & 1,
			 1 + (x >> 20) % 8);
	} else if (how < 14) {
		prompt[(x >> 8) % 20] = how == 13 ? x : (x >> 12) % r->welcome.model.vocab;
	} else if (how == 14) {
		atomic_store(&r->req[slot].desc_bytes, (x >> 8) % 64 + 1);
	} else {
		atomic_store(&r->req[slot].desc_off, raw_desc_off(slot) + (x >> 8) % 2);
	}
}

static void *write_always(void *arg)
{
	struct writer *a = arg;
	uint32_t x = 2463534242u;

	while (!atomic_load(&a->stop)) {
		scribble(a->r, next(&x));
		atomic_fetch_add(&a->writes, 1);
	}
	return NULL;
}

struct tally {
	uint32_t tries, ok, bad_descriptor, bad_value, bad_token, too_long;
	uint32_t
		unnamed; /* no model or adapter of that name, or a deadline: also just other keys */
	uint32_t other;	 /* what no descriptor can bring about */
	uint32_t torn;	 /* said OK, and is not what any descriptor could have asked for */
	uint32_t sessions;
	uint64_t writes;
};

static void judge(struct tally *t, const struct wshm_slot *s, uint32_t vocab)
{
	uint32_t status = atomic_load(&s->status);

	t->tries++;
	t->ok += status == WSHM_OK;
	t->bad_descriptor += status == WSHM_BAD_DESCRIPTOR;
	t->bad_value += status == WSHM_BAD_VALUE;
	t->bad_token += status == WSHM_BAD_TOKEN;
	t->too_long += status == WSHM_TOO_LONG || status == WSHM_TOO_BIG;
	t->unnamed +=
		status == WSHM_NO_MODEL || status == WSHM_NO_ADAPTER || status == WSHM_DEADLINE;
	t->other += status == WSHM_CANCELLED || status > WSHM_NO_ADAPTER;
	if (status != WSHM_OK)
		return;
	for (uint32_t i = 0; i < s->n_samples && i < WSHM_MAX_SAMPLES; i++) {
		uint32_t finish = atomic_load(&s->finish[i]), count = atomic_load(&s->count[i]);

		t->torn += finish == WSHM_FINISH_LENGTH ? count != s->max_tokens
							: finish == WSHM_FINISH_NONE;
	}
	t->torn += s->n_samples == 0 || s->prompt_tokens == 0 || vocab == 0;
}

static bool take_turn(struct raw *r, uint32_t slot, uint32_t *generation, struct tally *t)
{
	const struct wshm_slot *s = &r->slot[slot];

	if (*generation) {
		if (atomic_load(&s->generation) != *generation ||
		    atomic_load(&s->state) != WSHM_SLOT_ENDED)
			return false;
		judge(t, s, r->welcome.model.vocab);
		atomic_store(&r->req[slot].released, *generation);
	}
	++*generation;
	raw_submit(r, slot, *generation, *generation, 6, 2);
	return true;
}

/* One session, until the engine ends it (a record out of bounds) or time is up. */
static void attack(struct tally *t, uint64_t until)
{
	struct writer a = {0};
	struct raw r;
	uint32_t generation[SLOTS] = {0};
	uint64_t idle_since = raw_now_ns();
	pthread_t thread;

	if (raw_open(&r, world_socket(w), world_attacker(), SLOTS))
		bail_out("a raw client is refused");
	a.r = &r;
	if (pthread_create(&thread, NULL, write_always, &a))
		bail_out("no thread");
	t->sessions++;
	while (raw_now_ns() < until && t->tries < TRIES &&
	       atomic_load(&r.rx_ctl->engine_state) == WSHM_ENGINE_RUNNING) {
		bool any = false;

		for (uint32_t i = 0; i < SLOTS; i++)
			any |= take_turn(&r, i, &generation[i], t);
		if (any)
			idle_since = raw_now_ns();
		else if (raw_now_ns() - idle_since > UINT64_C(20000000000))
			break; /* judged by the caller: tries stand still */
		else
			usleep(20);
	}
	atomic_store(&a.stop, true);
	pthread_join(thread, NULL);
	t->writes += atomic_load(&a.writes);
	raw_close(&r);
}

int main(void)
{
	struct tally t = {0};
	struct neighbours *n;
	uint64_t until;

	w = world_start(NULL);
	n = neighbours_start(w, 1);
	until = raw_now_ns() + SECONDS * UINT64_C(1000000000);
	while (raw_now_ns() < until && t.tries < TRIES)
		attack(&t, until);
	diag("%u fetches in %u sessions under %llu writes: %u ok, %u bad descriptor, %u bad value, "
	     "%u bad token, %u too long, %u other keys",
	     t.tries, t.sessions, (unsigned long long)t.writes, t.ok, t.bad_descriptor, t.bad_value,
	     t.bad_token, t.too_long, t.unnamed);
	ok(t.tries > 1000 / world_slowness(), "requests were fetched while they changed");
	ok(t.ok && t.bad_value + t.bad_descriptor && t.bad_token, "good and bad ones were caught");
	is_int(t.other, 0, "none ended for another reason");
	is_int(t.torn, 0, "what was computed is what one descriptor asked for");
	neighbours_stop(n);
	world_same(w);
	world_given_back(w);
	world_stop(w);
	return tap_done();
}
