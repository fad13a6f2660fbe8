/* SPDX-License-Identifier: Apache-2.0 */
/*
 * step.c - a step's batch, its upload, tickets and waiting.
 *
 * The batch is checked and copied, laid out in one pinned slot and sent by one transfer. Slots are
 * used in turn and wait for the ticket of the step that used them last. The arrays' places in device
 * memory follow from the number of rows alone, so that few rows are few bytes, and steps of equal rows
 * equal launches; the block table comes last.
 *
 * A ticket is a number that the device writes into pinned memory when it gets there (wk_mark): to see
 * whether it is done costs a load. If it does not come, the driver is asked now and then whether
 * something has failed.
 */
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <time.h>

#include "kernels/cuda/cuda.h"

#define ASK_NS	    1000000u /* between two questions to the driver */
#define SPINS	    2000
#define FIRST_TABLE (1u << 15) /* 64 sequences of 8,192; growing waits for the device */

static size_t place(size_t *at, size_t bytes)
{
	size_t here = *at;

	*at += (bytes + 255) / 256 * 256;
	return here;
}

/* For so many rows and entries of the block table. Gives the bytes of all. */
static size_t lay_out(struct wk_backend *be, uint32_t rows, uint32_t entries)
{
	struct cuda_layout *at = &be->at;
	size_t n = 0;

	at->tokens = place(&n, rows * sizeof(uint32_t));
	at->out_rows = place(&n, rows * sizeof(uint32_t));
	at->row_seq = place(&n, rows * sizeof(struct ka_seq));
	at->seqs = place(&n, rows * sizeof(struct ka_seq));
	at->chunks = place(&n, rows * sizeof(struct ka_chunk));
	at->table = n;
	return n + entries * sizeof(uint32_t);
}

/* Room for any batch with so many entries in its block table. */
static int reserve_arrays(struct wk_backend *be, uint32_t entries)
{
	size_t bytes = lay_out(be, WK_MOST_ROWS, entries);
	int r = cuda_reserve(be, &be->arrays, bytes);

	for (int i = 0; !r && i < CUDA_SLOTS; i++)
		r = cuda_shared_reserve(be, &be->slots[i].batch, bytes);
	if (!r)
		be->table_room = entries;
	return r;
}

int cuda_step_init(struct wk_backend *be)
{
	int r = reserve_arrays(be, FIRST_TABLE);

	r = r ? r : cuda_reserve(be, &be->drawn, WK_MAX_DRAWS * sizeof(uint32_t));
	return r ? r : cuda_shared_reserve(be, &be->done, sizeof(uint64_t));
}

void cuda_step_fini(struct wk_backend *be)
{
	struct wk_buf *const bufs[] = {be->arrays, be->units, be->part,	   be->part_ml,
				       be->glu,	   be->s,     be->samples, be->scratch,
				       be->drawn,  be->tiles};

	for (size_t i = 0; i < sizeof(bufs) / sizeof(*bufs); i++)
		cuda_buf_free(be, bufs[i]);
	for (int i = 0; i < CUDA_SLOTS; i++) {
		cuda_shared_free(be, &be->slots[i].batch);
		cuda_shared_free(be, &be->slots[i].units);
		cuda_shared_free(be, &be->slots[i].samples);
	}
	for (int i = 0; i < 2; i++) {
		cuda_shared_free(be, &be->staging[i]);
		if (be->staged[i])
			be->cu.event_free(be->staged[i]);
	}
	cuda_shared_free(be, &be->results);
	cuda_shared_free(be, &be->done);
}

/* --- tickets -----------------------------------------------------------------------------------------*/

uint64_t cuda_done(const struct wk_backend *be)
{
	/* C1: pairs with C2 in wk_mark */
	return __atomic_load_n((const uint64_t *)be->done.host, __ATOMIC_ACQUIRE);
}

/* Whether something has failed meanwhile: by the driver's word, or because all is done but the mark. */
static int ask(struct wk_backend *be, uint64_t ticket)
{
	cu_result r = be->cu.stream_query(be->stream);

	if (r == CU_NOT_READY)
		return 0;
	if (!r && cuda_done(be) < ticket)
		cuda_stick(be, EIO, "the device is idle, and step %llu has not ended",
			   (unsigned long long)ticket);
	return cuda_check(be, r, "stream_query", "a step on the device");
}

static uint64_t clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* It is not done: ask, unless that was done just now. True if the driver was asked. */
static bool ask_again(struct wk_backend *be, uint64_t ticket)
{
	uint64_t now = clock_ns();

	if (now - be->asked_ns < ASK_NS)
		return false;
	be->asked_ns = now;
	ask(be, ticket); /* what it says sticks */
	return true;
}

static int await(struct wk_backend *be, uint64_t ticket)
{
	for (uint32_t i = 1; !be->sticky && cuda_done(be) < ticket; i++)
		if (i % SPINS == 0 && ask_again(be, ticket))
			sched_yield();
	return be->sticky;
}

uint64_t cuda_record(struct wk_backend *be)
{
	struct ka_mark mark = {(uint64_t *)(uintptr_t)be->done.device, ++be->ticket};

	cuda_flush(be);
	be->queue.open = false;
	cuda_launch(be, K_wk_mark, 1, 1, 1, 0, &mark, sizeof(mark));
	return be->ticket;
}

/* Results of calls of sample go to where they were asked for. */
static void hand_out(struct wk_backend *be, uint64_t ticket)
{
	const struct wk_sampled *from = be->results.host;
	uint32_t n = 0;

	for (; n < be->n_calls && be->calls[n].ticket <= ticket; n++) {
		const struct cuda_results *c = &be->calls[n];

		for (uint32_t i = 0; i < c->n; i++)
			c->out[i] = from[(c->first + i) % CUDA_RESULTS];
		be->n_results -= c->n;
	}
	be->n_calls -= n;
	memmove(be->calls, be->calls + n, be->n_calls * sizeof(*be->calls));
}

int cuda_query(struct wk_backend *be, uint64_t ticket)
{
	if (be->sticky)
		return be->sticky;
	if (cuda_done(be) >= ticket)
		return 1;
	if (ticket > be->ticket)
		return cuda_fail(be, EINVAL, "a ticket that was never given out");
	ask_again(be, ticket);
	return be->sticky ? be->sticky : cuda_done(be) >= ticket;
}

int cuda_wait(struct wk_backend *be, uint64_t ticket)
{
	int r;

	if (ticket > be->ticket)
		return cuda_fail(be, EINVAL, "waiting for a ticket that was never given out");
	r = await(be, ticket);
	if (!r)
		hand_out(be, ticket);
	return r;
}

int cuda_drain(struct wk_backend *be)
{
	if (be->sticky)
		return be->sticky;
	cuda_flush(be);
	return cu_ok(be, stream_wait, "waiting for the device", be->stream);
}

/* --- the batch ---------------------------------------------------------------------------------------*/

static const char *batch_wrong(const struct wk_backend *be, const struct wk_batch *b)
{
	uint32_t row = 0;

	if (!b->n_rows || b->n_rows > WK_MOST_ROWS)
		return "the number of rows is 0 or over the limit";
	if (b->n_seqs > b->n_rows || b->n_out > b->n_rows)
		return "more sequences or outputs than rows";
	if (!wk_drawn_known(b, be->n_drawn))
		return "a token of a row that the last sample() did not have";
	for (uint32_t i = 0; i < b->n_table; i++)
		if (b->block_table[i] >= be->n_blocks)
			return "a block number is past the KV pool";
	for (uint32_t s = 0; s < b->n_seqs; s++) {
		const struct wk_seq *q = &b->seqs[s];
		uint64_t blocks =
			((uint64_t)q->pos + q->n_rows + WK_BLOCK_TOKENS - 1) / WK_BLOCK_TOKENS;

		if (q->row != row || !q->n_rows || q->n_rows > b->n_rows - row)
			return "the sequences leave a gap";
		if (q->table > b->n_table || blocks > b->n_table - q->table)
			return "a sequence's block table is too short";
		row += q->n_rows;
	}
	for (uint32_t i = 0; i < b->n_out; i++)
		if (b->out_rows[i] >= b->n_rows || (i && b->out_rows[i] <= b->out_rows[i - 1]))
			return "out_rows is not ascending, or past the rows";
	if (row != b->n_rows)
		return "rows that belong to no sequence";
	return wk_segments_wrong(b);
}

static int grow_table(struct wk_backend *be, uint32_t n)
{
	uint32_t room = be->table_room;
	int r;

	if (n <= room)
		return 0;
	while (room < n)
		room *= 2;
	r = reserve_arrays(be, room);
	if (r) /* the old ones are gone */
		cuda_stick_last(be, r);
	return r;
}

/* The largest token that one may be. */
static uint32_t most_of(const struct wk_backend *be, uint32_t token)
{
	return token & WK_DRAWN ? be->drawn_most[token & ~WK_DRAWN] : token;
}

static void copy_batch(struct wk_backend *be, const struct wk_batch *b)
{
	memcpy(be->tokens, b->tokens, b->n_rows * sizeof(*be->tokens));
	memcpy(be->seqs, b->seqs, b->n_seqs * sizeof(*be->seqs));
	if (b->n_loras)
		memcpy(be->loras, b->loras, b->n_loras * sizeof(*be->loras));
	be->max_token = 0;
	for (uint32_t i = 0; i < b->n_rows; i++) {
		uint32_t most = most_of(be, b->tokens[i]);

		be->max_token = most > be->max_token ? most : be->max_token;
	}
	be->batch = *b;
	be->batch.tokens = be->tokens;
	be->batch.seqs = be->seqs;
	be->batch.loras = be->loras;
	be->batch.block_table = NULL;
	be->batch.out_rows = NULL;
	be->batch.segments = NULL;
}

static void fill_chunks(struct wk_backend *be, const struct wk_batch *b, struct ka_chunk *chunks)
{
	be->n_chunks = be->max_cuts = 0;
	for (uint32_t i = 0; i < b->n_segments; i++) {
		const struct wk_segment *s = &b->segments[i];
		const struct wk_lora *lora = b->loras[s->lora];

		if (lora->max_cuts > be->max_cuts)
			be->max_cuts = lora->max_cuts;
		for (uint32_t r = 0; r < s->n_rows; r += KA_CHUNK)
			chunks[be->n_chunks++] = (struct ka_chunk){
				.lora = (const struct ka_lora *)(uintptr_t)lora->device->at,
				.row = s->row + r,
				.n_rows = s->n_rows - r < KA_CHUNK ? s->n_rows - r : KA_CHUNK};
	}
}

static void fill_rows(const struct wk_batch *b, struct ka_seq *rows)
{
	for (uint32_t s = 0; s < b->n_seqs; s++)
		for (uint32_t i = 0; i < b->seqs[s].n_rows; i++) {
			const struct wk_seq *q = &b->seqs[s];

			rows[q->row + i] = (struct ka_seq){q->row + i, 1, q->pos + i, q->table};
		}
}

static int upload_batch(struct wk_backend *be, const struct wk_batch *b)
{
	char *to = be->slots[be->slot].batch.host;
	size_t bytes = lay_out(be, b->n_rows, b->n_table);

	_Static_assert(sizeof(struct ka_seq) == sizeof(struct wk_seq), "the same");
	memcpy(to + be->at.tokens, b->tokens, b->n_rows * sizeof(*b->tokens));
	memcpy(to + be->at.seqs, b->seqs, b->n_seqs * sizeof(*b->seqs));
	if (b->n_out)
		memcpy(to + be->at.out_rows, b->out_rows, b->n_out * sizeof(*b->out_rows));
	if (b->n_table)
		memcpy(to + be->at.table, b->block_table, b->n_table * sizeof(*b->block_table));
	fill_rows(b, (struct ka_seq *)(to + be->at.row_seq));
	fill_chunks(be, b, (struct ka_chunk *)(to + be->at.chunks));
	return cu_ok(be, copy_to, "uploading a batch", be->arrays->at, to, bytes, be->stream);
}

int cuda_batch_set(struct wk_backend *be, const struct wk_batch *b)
{
	const char *wrong = batch_wrong(be, b);
	int r = be->sticky;

	if (r)
		return r;
	if (wrong)
		return cuda_fail(be, EINVAL, "batch of %u rows: %s", b->n_rows, wrong);
	cuda_flush(be);
	be->slot = (be->slot + 1) % CUDA_SLOTS;
	r = be->slots[be->slot].ticket > be->ticket ? cuda_drain(be) : /* its step had no end */
		    await(be, be->slots[be->slot].ticket);
	r = r ? r : grow_table(be, b->n_table);
	r = r ? r : upload_batch(be, b);
	if (r)
		return r;
	copy_batch(be, b);
	/* Until its end is recorded the slot is in use. */
	be->slots[be->slot].ticket = be->ticket + 1;
	be->group = 0;
	be->queue.open = true;
	return 0;
}
