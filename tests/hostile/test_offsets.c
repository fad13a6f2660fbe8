/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Offsets and lengths at every boundary: of the descriptor in its record, of the prompt in the
 * descriptor. A record that points outside ends the session; a descriptor that is wrong ends the
 * request, with the key at fault; whatever just fits is served.
 */
#include "tests/hostile/raw.h"
#include "tests/hostile/world.h"
#include "tests/tap.h"

static struct world *w;
static struct raw r;
static uint32_t generation;

static void reopen(void)
{
	raw_close(&r);
	if (raw_open(&r, world_socket(w), world_attacker(), 2))
		bail_out("a raw client is refused");
	generation = 0;
}

/* Where does a record lead that points to bytes [off, off + n)? */
static void record(uint64_t off, uint32_t n, bool inside)
{
	generation++;
	raw_prepare(&r, 0, generation, 1, 4, 2);
	atomic_store(&r.req[0].desc_off, off);
	atomic_store(&r.req[0].desc_bytes, n);
	raw_push(&r, 0, generation);
	if (inside) {
		ok(raw_wait_state(&r, 0, generation, WSHM_SLOT_ENDED, RAW_PATIENCE_MS),
		   "descriptor of %u bytes at %llu is looked at", n, (unsigned long long)off);
		is_int(atomic_load(&r.slot[0].status), WSHM_BAD_DESCRIPTOR, "and refused");
		raw_release(&r, 0, generation);
		return;
	}
	ok(raw_ended(&r, RAW_PATIENCE_MS), "descriptor of %u bytes at %llu ends the session", n,
	   (unsigned long long)off);
	reopen();
}

static void records(void)
{
	const uint64_t size = raw_arena_bytes(2);
	const uint64_t huge[] = {UINT64_C(1) << 31, UINT64_C(1) << 32,	  (UINT64_C(1) << 32) + 1,
				 UINT64_C(1) << 63, UINT64_MAX - 4095,	  UINT64_MAX - 1,
				 UINT64_MAX,	    UINT64_MAX - size + 1};

	/* The last page is zeros: as a descriptor, the number 0 and rubbish after it. */
	memset(r.tx_arena + size - 8192, 0, 8192);
	record(size - 1, 1, true);
	record(size - 4096, 4096, true);
	record(size - 4095, 4095, true);
	record(size - 4095, 4096, false);
	record(size - 1, 2, false);
	record(size, 0, false);
	record(size, 1, false);
	record(size + 1, 1, false);
	record(0, 0, false);
	record(0, 4097, false);
	record(0, 0x80000000, false);
	record(0, 0xffffffff, false);
	for (size_t i = 0; i < sizeof(huge) / sizeof(*huge); i++) {
		record(huge[i], 1, false);
		record(huge[i], 4096, false);
	}
}

/* A prompt that lies there: the status that the request must end with. */
static void prompt(uint64_t off, uint64_t tokens, int status, const char *what)
{
	uint32_t bytes;

	generation++;
	raw_prepare(&r, 0, generation, 1, 4, 2);
	bytes = raw_desc(r.tx_arena + raw_desc_off(0), off, tokens, 0, 2);
	atomic_store(&r.req[0].desc_bytes, bytes);
	raw_push(&r, 0, generation);
	ok(raw_wait_state(&r, 0, generation, WSHM_SLOT_ENDED, RAW_PATIENCE_MS), "%s: it ends",
	   what);
	if ((int)atomic_load(&r.slot[0].status) != status)
		diag("key %u", atomic_load(&r.slot[0].detail));
	is_int(atomic_load(&r.slot[0].status), status, "%s: %llu tokens at %llu", what,
	       (unsigned long long)tokens, (unsigned long long)off);
	raw_release(&r, 0, generation);
}

static void prompts(void)
{
	const uint64_t size = raw_arena_bytes(2), max = r.welcome.model.max_positions;
	const uint64_t at[] = {UINT64_C(1) << 32, (UINT64_C(1) << 32) + 4, UINT64_C(1) << 63,
			       UINT64_MAX - 3, UINT64_MAX - size + 1};

	memset(r.tx_arena + size - 8192, 0, 8192);
	prompt(size - 4, 1, WSHM_OK, "the arena's last token");
	prompt(size - 64, 16, WSHM_OK, "the arena's last sixteen");
	prompt(size - 4, 2, WSHM_BAD_VALUE, "half outside");
	prompt(size, 1, WSHM_BAD_VALUE, "just outside");
	prompt(size + 4, 1, WSHM_BAD_VALUE, "further outside");
	prompt(size - 60, 16, WSHM_BAD_VALUE, "one token outside");
	for (uint64_t odd = 1; odd < 4; odd++)
		prompt(odd, 4, WSHM_BAD_VALUE, "misaligned");
	prompt(UINT64_MAX, 1, WSHM_BAD_VALUE, "2^64 - 1");
	for (size_t i = 0; i < sizeof(at) / sizeof(*at); i++)
		prompt(at[i], 4, WSHM_BAD_VALUE, "far outside");
	prompt(0, 0, WSHM_BAD_VALUE, "an empty prompt");
	prompt(0, max - 1, WSHM_TOO_LONG, "one position too many");
	prompt(0, max, WSHM_TOO_LONG, "as many as positions");
	prompt(0, UINT32_MAX, WSHM_TOO_LONG, "2^32 - 1 tokens");
	prompt(0, UINT64_C(1) << 32, WSHM_BAD_VALUE, "2^32 tokens");
	prompt(0, UINT64_MAX, WSHM_BAD_VALUE, "2^64 - 1 tokens");
}

static void tokens(void)
{
	uint32_t *p = (uint32_t *)(r.tx_arena + raw_prompt_off(0)), vocab = r.welcome.model.vocab;
	const uint32_t bad[] = {vocab, vocab + 1, 0x7fffffff, 0x80000000, 0xffffffff};

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		generation++;
		raw_prepare(&r, 0, generation, 1, 9, 2);
		p[i * 2] = bad[i];
		raw_push(&r, 0, generation);
		raw_wait_state(&r, 0, generation, WSHM_SLOT_ENDED, RAW_PATIENCE_MS);
		is_int(atomic_load(&r.slot[0].status), WSHM_BAD_TOKEN, "token %u", bad[i]);
		is_int(atomic_load(&r.slot[0].detail), i * 2, "at its place");
		raw_release(&r, 0, generation);
	}
	generation++;
	raw_prepare(&r, 0, generation, 1, 9, 2);
	p[8] = vocab - 1;
	raw_push(&r, 0, generation);
	raw_wait_state(&r, 0, generation, WSHM_SLOT_ENDED, RAW_PATIENCE_MS);
	is_int(atomic_load(&r.slot[0].status), WSHM_OK, "the vocabulary's last token");
	raw_release(&r, 0, generation);
}

int main(void)
{
	struct neighbours *n;

	w = world_start(NULL);
	n = neighbours_start(w, 1);
	reopen();
	records();
	prompts();
	tokens();
	raw_close(&r);
	neighbours_stop(n);
	world_same(w);
	world_given_back(w);
	world_stop(w);
	return tap_done();
}
