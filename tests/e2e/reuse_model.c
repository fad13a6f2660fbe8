/* SPDX-License-Identifier: Apache-2.0 */
/* reuse_model.c - see reuse_model.h. */
#include "tests/e2e/reuse_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct reuse {
	struct reuse_seq *seqs; /* owned, and their tokens */
	uint32_t n, cap;
};

static void *must(void *memory)
{
	if (memory)
		return memory;
	printf("Bail out! reuse model: out of memory\n");
	exit(255);
}

struct reuse *reuse_new(void)
{
	return must(calloc(1, sizeof(struct reuse)));
}

void reuse_forget(struct reuse *r)
{
	while (r->n)
		free((void *)r->seqs[--r->n].tokens);
}

void reuse_free(struct reuse *r)
{
	reuse_forget(r);
	free(r->seqs);
	free(r);
}

void reuse_add(struct reuse *r, const struct reuse_seq *s)
{
	uint32_t *tokens = must(malloc((s->n + 1) * sizeof(*tokens)));

	if (r->n == r->cap) {
		r->cap = r->cap * 2 + 64;
		r->seqs = must(reallocarray(r->seqs, r->cap, sizeof(*r->seqs)));
	}
	memcpy(tokens, s->tokens, s->n * sizeof(*tokens));
	r->seqs[r->n] = *s;
	r->seqs[r->n++].tokens = tokens;
}

static uint32_t common(const struct reuse_seq *a, const struct reuse_seq *b, uint32_t limit)
{
	uint32_t i = 0;

	while (i < limit && i < a->n && i < b->n && a->tokens[i] == b->tokens[i]) {
		uint64_t x = i >= a->activation ? a->adapter : 0;
		uint64_t y = i >= b->activation ? b->adapter : 0;

		if (x != y)
			break;
		i++;
	}
	return i;
}

uint32_t reuse_longest(const struct reuse *r, const struct reuse_seq *s, uint32_t limit)
{
	uint32_t best = 0;

	for (uint32_t i = 0; i < r->n && best < limit; i++) {
		const struct reuse_seq *t = &r->seqs[i];
		uint32_t n;

		if ((t->domain != s->domain && t->domain != REUSE_PUBLIC) || t->owner == s->owner)
			continue;
		n = common(t, s, limit);
		best = n > best ? n : best;
	}
	return best;
}

uint32_t reuse_branches(const struct reuse *r, const struct reuse_seq *s, uint32_t full)
{
	const struct reuse_seq **seen = must(calloc(r->n + 1, sizeof(*seen)));
	uint32_t n = 0;

	for (uint32_t i = 0; i < r->n; i++) {
		const struct reuse_seq *t = &r->seqs[i];
		uint32_t end = t->n < full + 16 ? t->n : full + 16, k = 0;

		if (t->domain != s->domain || end <= full || common(t, s, full) < full)
			continue;
		while (k < n && (seen[k]->n < end || common(seen[k], t, end) < end))
			k++;
		if (k == n)
			seen[n++] = t;
	}
	free(seen);
	return n;
}
