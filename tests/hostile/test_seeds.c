/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Seeds that the engine draws are shown to those whose requests they are for. They say nothing of
 * others: how far the generator has gone from one seed to the next is the same whether or not
 * another session has asked meanwhile.
 *
 * The generator is splitmix64, whose output leads back to its state.
 */
#include "tests/hostile/raw.h"
#include "tests/hostile/world.h"
#include "tests/tap.h"

static struct world *w;

/* Of an odd number, modulo 2^64: each round doubles the bits that are right. */
static uint64_t inverse(uint64_t a)
{
	uint64_t x = a;

	for (int i = 0; i < 6; i++)
		x *= 2 - a * x;
	return x;
}

static uint64_t unshift(uint64_t z, int by)
{
	uint64_t x = z;

	for (int i = 0; i < 64 / by; i++)
		x = z ^ (x >> by);
	return x;
}

static uint64_t state_of(uint64_t seed)
{
	uint64_t z = unshift(seed, 31) * inverse(UINT64_C(0x94D049BB133111EB));

	z = unshift(z, 27) * inverse(UINT64_C(0xBF58476D1CE4E5B9));
	return unshift(z, 30);
}

static uint64_t seed_of_request(struct raw *r, uint32_t generation)
{
	uint64_t seed;

	raw_submit(r, 0, generation, 1, 4, 1);
	if (!raw_wait_state(r, 0, generation, WSHM_SLOT_ENDED, 60000))
		bail_out("a request does not end");
	seed = r->slot[0].seed;
	raw_release(r, 0, generation);
	return seed;
}

int main(void)
{
	uint64_t a[3], others = 0;
	struct raw mine, other;

	w = world_start(NULL);
	if (raw_open(&mine, world_socket(w), RAW_ANY_UID, 2) ||
	    raw_open(&other, world_socket(w), world_attacker(), 2))
		bail_out("a raw client is refused");
	a[0] = state_of(seed_of_request(&mine, 1));
	a[1] = state_of(seed_of_request(&mine, 2));
	for (uint32_t g = 1; g <= 3; g++)
		others |= state_of(seed_of_request(&other, g)) == a[1] + g * (a[1] - a[0]);
	a[2] = state_of(seed_of_request(&mine, 3));
	ok(a[1] != a[0], "seeds differ");
	ok(a[2] - a[1] == a[1] - a[0], "a session's next seed does not tell who else has asked");
	ok(!others, "and none of another's seeds follows from it");
	raw_close(&mine);
	raw_close(&other);
	world_same(w);
	world_given_back(w);
	world_stop(w);
	return tap_done();
}
