/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_complete.c - reuse is complete: random conversations, one request after another, in a pool in
 * which nothing is evicted; every request finds exactly the longest prefix that the definition says
 * is reusable (reuse_model.h), not a row less, not a row more. Three tenants, one after another too.
 *
 * Single rows inside a block are looked for among a bounded number of branches: where there are more,
 * whole blocks must have been found all the same.
 *
 * Not asked here: what a request finds that runs beside others (test_reuse.c), and what is left after
 * evictions (test_property.c).
 */
#include "tests/e2e/engine_harness.h"
#include "tests/e2e/reuse_model.h"
#include "tests/e2e/traffic.h"
#include "tests/tap.h"

#include <unistd.h>

#define N_REQUESTS 1500
#define SCANNED	   60 /* branches among which single rows are certainly found */

static struct tr_world world;
static struct tr_source source;
static struct reuse *reuse;

struct tally {
	uint32_t asked, wrong, less, more, beyond;
	uint64_t tokens, cached;
};

static void remember(const struct reuse_seq *head, const struct plain_result *r)
{
	for (uint32_t k = 0; k < r->n; k++) {
		uint32_t tokens[TR_MAX_PROMPT + 8 + TR_MAX_TOKENS];
		struct reuse_seq s = *head;

		memcpy(tokens, head->tokens, head->n * sizeof(*tokens));
		memcpy(tokens + head->n, r->tokens + (size_t)k * r->max_tokens,
		       r->count[k] * sizeof(*tokens));
		s.tokens = tokens;
		s.n = head->n + r->count[k] - 1;
		reuse_add(reuse, &s);
	}
}

static void compare(const struct eh_req *r, const struct reuse_seq *seq, const struct tr_request *q,
		    struct tally *sum)
{
	uint32_t got = ord_load(&eh_slot(r)->cached_tokens);
	uint32_t want = reuse_longest(reuse, seq, seq->n - 1);

	if (q->d.no_cache || q->d.prompt_logprobs != WSHM_NO_LOGPROBS)
		want = 0;
	want = want < q->n ? want : q->n; /* what was appended is not the client's */
	sum->tokens += seq->n;
	sum->cached += got;
	sum->more += got > want;
	if (got < want && got >= want / 16 * 16 &&
	    reuse_branches(reuse, seq, want / 16 * 16) > SCANNED) {
		sum->beyond++;
		return;
	}
	sum->less += got < want;
	if (got != want && sum->less + sum->more < 6)
		diag("request %u, name %d, prompt %u, activation %lld: reused %u, not %u",
		     sum->asked, q->name, seq->n, (long long)seq->activation, got, want);
}

static void ask(struct eh_session *s, struct tally *sum)
{
	const struct plain_result *want;
	struct tr_meaning m;
	struct tr_request q;
	struct eh_req r;

	tr_next(&source, &q);
	q.d.adapter[0] = 0;
	if (q.name >= 0)
		snprintf(q.d.adapter, sizeof(q.d.adapter), "%s", world.names[q.name].name);
	tr_meaning(&world, &q, 0, &m);
	eh_submit(s, &q.d, q.prompt, q.n, NULL, &r);
	if (!eh_wait(&r))
		bail_out("a request does not end");
	sum->asked++;
	if (m.status) {
		sum->wrong += eh_status(&r) != m.status;
	} else {
		struct reuse_seq seq = {.domain = s->tenant, .tokens = m.prompt, .n = m.n};

		want = plain_run(world.plain, &q.d, m.adapter, m.prompt, m.n);
		seq.adapter = want->instance;
		seq.activation = want->activation;
		seq.owner = sum->asked;
		sum->wrong += !plain_same(&r, want, q.n, false);
		compare(&r, &seq, &q, sum);
		if (!q.d.no_cache)
			remember(&seq, want);
		tr_answered(&source, &q, want->tokens, want->count[0]);
	}
	eh_release(&r);
}

int main(void)
{
	const char *given = getenv("WEFT_SEED");
	uint64_t seed = given ? strtoull(given, NULL, 10) : eh_now_ns() / 1000 % 1000000000;
	char base[] = "/tmp/weft-complete-XXXXXX", bytes[24];
	struct eh_session *s[3];
	struct tally sum = {0};
	struct eh h;

	if (!mkdtemp(base))
		bail_out("no temporary folder");
	tr_world_init(&world, "llama", base);
	tr_source_init(&source, &world, seed);
	reuse = reuse_new();
	diag("WEFT_SEED=%llu", (unsigned long long)seed);
	eh_init(&h, world.model_dir);
	snprintf(bytes, sizeof(bytes), "%llu",
		 (unsigned long long)(20000 * plain_block_bytes(world.plain)));
	eh_arg(&h, "--kv-bytes");
	eh_arg(&h, bytes);
	eh_arg(&h, "--threads");
	eh_arg(&h, "1");
	eh_start(&h);
	for (int i = 0; i < TR_NAMES; i++) {
		const struct tr_name *n = &world.names[i];
		struct wlink_adapter_reply reply;

		if (eh_adapter_load(&h, n->dir[0], n->name, n->offset[0], n->missing, &reply))
			bail_out(reply.text);
	}
	for (uint32_t i = 0; i < 3; i++)
		eh_domain(&h, i);
	for (uint32_t i = 0; i < 3; i++)
		s[i] = eh_open(&h, i, 4, 1 << 20);
	for (uint32_t i = 0; i < N_REQUESTS; i++)
		ask(s[tr_below(&source, 3)], &sum);
	is_int(sum.wrong, 0, "%u requests answered as without a cache", sum.asked);
	if (WSHM_KEY_BITS == 128)
		is_int(sum.less, 0, "none found less than there was");
	is_int(sum.more, 0, "none found more");
	diag("%u found their blocks, but not their last rows among too many branches", sum.beyond);
	ok(sum.cached * (WSHM_KEY_BITS == 128 ? 5 : 100) > sum.tokens,
	   "%llu of %llu positions were reused", (unsigned long long)sum.cached,
	   (unsigned long long)sum.tokens);
	eh_stop(&h);
	reuse_free(reuse);
	tr_world_fini(&world);
	rmdir(base);
	return tap_done();
}
