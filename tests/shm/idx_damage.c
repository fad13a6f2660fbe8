/* SPDX-License-Identifier: Apache-2.0 */
/* idx_damage.c - see idx_damage.h. */
#include "tests/shm/idx_damage.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define GUARD  (UINT64_C(1) << 20)
#define N_KEYS 40u

uint8_t *damage_region(void)
{
	uint8_t *p = mmap(NULL, WSHM_IDX_BYTES + 2 * GUARD, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED || mprotect(p + GUARD, WSHM_IDX_BYTES, PROT_READ | PROT_WRITE))
		abort();
	return p + GUARD;
}

static void require(int cond, const char *what)
{
	if (cond)
		return;
	fprintf(stderr, "out of range: %s\n", what);
	abort();
}

struct wshm_key damage_key(uint64_t seed, uint32_t n)
{
	return (struct wshm_key){seed * UINT64_C(0x9e3779b97f4a7c15) + n, ~seed << 8 | n};
}

static void read_instance(const struct wshm_instance *in)
{
	require(strnlen(in->name, sizeof(in->name)) < sizeof(in->name), "name");
	require(in->n_invocation <= WSHM_MAX_INVOCATION, "invocation");
	require(in->on_missing <= WSHM_MISSING_APPEND, "on_missing");
}

void damage_read(const uint8_t *region, uint64_t seed)
{
	const struct wshm_idx_reader r = {.base = region};
	struct wshm_key keys[N_KEYS];
	uint8_t tiers[N_KEYS + 1], secret[WSHM_SECRET_BYTES];
	struct wshm_identity id = {{seed % 3, 0}, (uint32_t)(seed % 17)};
	uint32_t tokens[WSHM_BLOCK_TOKENS];
	struct wshm_instance in;
	struct wshm_root root;

	for (uint32_t i = 0; i < N_KEYS; i++)
		keys[i] = damage_key(seed, i);
	tiers[N_KEYS] = 0xee;
	wshm_idx_lookup(&r, keys, N_KEYS, tiers);
	for (uint32_t i = 0; i < N_KEYS; i++)
		require(tiers[i] <= WSHM_N_TIERS, "tier");
	require(tiers[N_KEYS] == 0xee, "one tier too many");
	for (uint32_t i = 0; i < WSHM_BLOCK_TOKENS; i++)
		tokens[i] = (uint32_t)(seed >> i);
	for (uint32_t i = 0; i < 4; i++)
		require(wshm_idx_tail_rows(&r, &keys[i], &id, tokens, WSHM_BLOCK_TOKENS) <=
				WSHM_IDX_TAIL_ROWS,
			"rows");
	(void)wshm_idx_secret(&r, secret, &root);
	if (!wshm_idx_at(&r, (uint32_t)(seed % 1030), &in))
		read_instance(&in);
	if (!wshm_idx_at(&r, 0, &in))
		read_instance(&in);
	if (!wshm_idx_find(&r, in.name[0] ? in.name : "x", &in))
		read_instance(&in);
}
