/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client changes its request between the engine's death and the next engine's look at it:
 * weftd is stopped, the engine killed, tx rewritten, weftd continued. Whatever does not match what
 * was admitted ends the session; the engine lives, the neighbours get what they get alone.
 */
#include "tests/hostile/raw.h"
#include "tests/hostile/world.h"
#include "tests/tap.h"

#include <signal.h>
#include <unistd.h>

#define LENGTH 2000u

static struct world *w;

enum outcome { ENDED, GOES_ON, GIVEN_BACK };

static void raise_max_tokens(struct raw *r)
{
	atomic_store(&r->req[0].desc_bytes,
		     raw_desc(r->tx_arena + raw_desc_off(0), raw_prompt_off(0), 20, 0, LENGTH + 1));
}

static void lower_max_tokens(struct raw *r)
{
	atomic_store(&r->req[0].desc_bytes,
		     raw_desc(r->tx_arena + raw_desc_off(0), raw_prompt_off(0), 20, 0, 1));
}

static void more_answers(struct raw *r)
{
	atomic_store(&r->req[0].desc_bytes,
		     raw_desc(r->tx_arena + raw_desc_off(0), raw_prompt_off(0), 20, 16, LENGTH));
}

static void change_prompt(struct raw *r)
{
	((uint32_t *)(r->tx_arena + raw_prompt_off(0)))[19] ^= 1;
}

static void bad_token(struct raw *r)
{
	((uint32_t *)(r->tx_arena + raw_prompt_off(0)))[0] = UINT32_MAX;
}

static void lengthen_prompt(struct raw *r)
{
	atomic_store(&r->req[0].desc_bytes,
		     raw_desc(r->tx_arena + raw_desc_off(0), raw_prompt_off(0), 21, 0, LENGTH));
}

static void rubbish(struct raw *r)
{
	memset(r->tx_arena + raw_desc_off(0), 0xc1, 64);
}

static void far_away(struct raw *r)
{
	atomic_store(&r->req[0].desc_off, UINT64_MAX - 8);
}

static void no_bytes(struct raw *r)
{
	atomic_store(&r->req[0].desc_bytes, 0);
}

static void all_zero(struct raw *r)
{
	memset(r->tx, 0, r->tx_bytes);
}

static void move_it(struct raw *r)
{
	/* The very same bytes elsewhere are the same request. */
	memcpy(r->tx_arena + raw_desc_off(1), r->tx_arena + raw_desc_off(0), 64);
	atomic_store(&r->req[0].desc_off, raw_desc_off(1));
}

static void release_it(struct raw *r)
{
	atomic_store(&r->req[0].released, 1);
}

static void another_generation(struct raw *r)
{
	atomic_store(&r->req[0].generation, 77);
}

static void nothing(struct raw *r)
{
}

static const struct {
	const char *name;
	void (*change)(struct raw *);
	enum outcome outcome;
} cases[] = {
	{"nothing changed", nothing, GOES_ON},
	{"max_tokens raised", raise_max_tokens, ENDED},
	{"max_tokens lowered", lower_max_tokens, ENDED},
	{"sixteen answers instead of one", more_answers, ENDED},
	{"a token of the prompt changed", change_prompt, ENDED},
	{"a token outside the vocabulary", bad_token, ENDED},
	{"the prompt lengthened", lengthen_prompt, ENDED},
	{"rubbish for a descriptor", rubbish, ENDED},
	{"a descriptor far away", far_away, ENDED},
	{"a descriptor of no bytes", no_bytes, ENDED},
	{"the descriptor moved unchanged", move_it, GOES_ON},
	{"released meanwhile", release_it, GIVEN_BACK},
	{"another generation in the record", another_generation, GIVEN_BACK},
	{"all of tx zeroed", all_zero, ENDED},
};

/* A session whose request ran when the engine was killed, of which weftd, stopped, knows nothing yet. */
static bool killed_while_it_ran(struct raw *r, pid_t engine)
{
	if (raw_open(r, world_socket(w), world_attacker(), 4))
		bail_out("a raw client is refused");
	raw_submit(r, 0, 1, 3, 20, LENGTH);
	raw_wait_count(r, 0, 1, 3, RAW_PATIENCE_MS);
	kill(world_daemon(w), SIGSTOP);
	kill(engine, SIGKILL);
	raw_pause_us(20000); /* it dies */
	if (atomic_load(&r->slot[0].state) == WSHM_SLOT_RUNNING)
		return true;
	/* This process was held up until all was done. */
	kill(world_daemon(w), SIGCONT);
	world_wait_engine(w, engine, RAW_PATIENCE_MS * (int)world_slowness());
	raw_close(r);
	return false;
}

static void run(size_t i)
{
	pid_t engine = world_engine(w), now;
	bool right = false, ran;
	struct raw r;

	for (int tries = 0; !(ran = killed_while_it_ran(&r, engine)) && tries < 10; tries++)
		engine = world_engine(w);
	ok(ran, "%s: killed while it ran", cases[i].name);
	cases[i].change(&r);
	kill(world_daemon(w), SIGCONT);
	now = world_wait_engine(w, engine, RAW_PATIENCE_MS * (int)world_slowness());
	switch (cases[i].outcome) {
	case ENDED:
		right = raw_ended(&r, RAW_PATIENCE_MS);
		break;
	case GOES_ON:
		right = raw_wait_state(&r, 0, 1, WSHM_SLOT_ENDED, 5 * RAW_PATIENCE_MS) &&
			atomic_load(&r.slot[0].count[0]) == LENGTH &&
			atomic_load(&r.slot[0].status) == WSHM_OK;
		break;
	case GIVEN_BACK:
		right = raw_alive(&r, 1, 1) && !raw_ended(&r, 50);
		break;
	}
	ok(right, "%s: %s", cases[i].name,
	   cases[i].outcome == ENDED	 ? "the session is ended"
	   : cases[i].outcome == GOES_ON ? "it goes on to its end"
					 : "the slot is free");
	ok(now > 0 && world_engine(w) == now, "and the new engine lives");
	raw_close(&r);
}

int main(void)
{
	struct neighbours *n;

	/* Slow enough that a request is still running when the engine is killed. */
	w = world_start(&(struct world_options){.model = "kv_bytes = 16M\nbackend = ref"});
	n = neighbours_start(w, 1);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		run(i);
	neighbours_stop(n);
	world_given_back(w);
	world_stop(w);
	return tap_done();
}
