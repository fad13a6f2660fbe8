/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_lora_invariance.c - an adapted row has the same bits in any company.
 *
 * For every path of cpu: each row alone, under each adapter and under none, by one thread. Then in
 * batches of 1 to 512 rows with any neighbours in any order, cut into chunks around the row where an
 * adapter begins, in column tiles, by one, two and three threads: the same bits each time. And with
 * one adapter's weights full of NaN: the others' rows do not change.
 */
#include <math.h>
#include <stdlib.h>

#include "tests/kernels/lora_case.h"
#include "tests/tap.h"

#define ROWS	   48u
#define N_ADAPTERS 5u

static const struct shape {
	uint32_t n_parts, part_n[LC_MAX_PARTS], k;
	enum wk_epilogue epilogue;
	bool bias;
} shapes[] = {
	{3, {130, 64, 70}, 701, WK_EPI_STORE, true},
	{1, {190}, 1027, WK_EPI_ADD, false},
	{2, {150, 150}, 576, WK_EPI_SWIGLU, false},
	{2, {64, 64}, 64, WK_EPI_SWIGLU, false},
};

static const uint32_t ranks[N_ADAPTERS] = {16, 8, 17, 64, 100};

static void make_data(struct lc_data *d, const struct shape *s)
{
	*d = (struct lc_data){.n_parts = s->n_parts,
			      .k = s->k,
			      .rows = ROWS,
			      .n_adapters = N_ADAPTERS,
			      .epilogue = s->epilogue,
			      .bias = s->bias};
	memcpy(d->part_n, s->part_n, sizeof(s->part_n));
	lc_data_init(d);
	for (uint32_t a = 0; a < N_ADAPTERS; a++)
		for (uint32_t p = 0; p < d->n_parts; p++)
			if (a != 2 || p != 1) /* one adapter has a part less */
				lc_pair_init(d, a, p, ranks[(a + p) % N_ADAPTERS], WK_BF16);
}

/* Each row alone: [N_ADAPTERS + 1][ROWS][n_out]; the last: under no adapter. */
static float *alone(struct lc_rig *r)
{
	uint32_t n = lc_n_out(r->d);
	float *want = kt_alloc((size_t)(N_ADAPTERS + 1) * ROWS * n, sizeof(*want)), *at = want;

	for (uint32_t a = 0; a <= N_ADAPTERS; a++)
		for (uint32_t i = 0; i < ROWS; i++, at += n) {
			uint32_t adapter = a < N_ADAPTERS ? a : LC_BASE;

			if (!lc_run(r, &i, &adapter, 1, 0, 0, at))
				bail_out("a row alone touches what is not its own");
		}
	return want;
}

/* Run a batch and compare each row but those under `except`. */
static bool same(struct lc_rig *r, const float *want, const uint32_t *rows,
		 const uint32_t *adapters, uint32_t m, uint32_t col, uint32_t except)
{
	uint32_t n_out = lc_n_out(r->d), n = n_out - col;
	float *got = kt_alloc((size_t)m * n, sizeof(*got));
	bool good = lc_run(r, rows, adapters, m, col, 0, got);

	for (uint32_t i = 0; i < m; i++) {
		uint32_t a = adapters[i] == LC_BASE ? N_ADAPTERS : adapters[i];
		const float *w = want + ((size_t)a * ROWS + rows[i]) * n_out + col;

		if (adapters[i] == except || !memcmp(got + (size_t)i * n, w, n * sizeof(*got)))
			continue;
		diag("row %u of %u, adapter %u, column %u", i, m, a, col);
		good = false;
		break;
	}
	free(got);
	return good;
}

static void random_batch(uint32_t *rows, uint32_t *adapters, uint32_t m, uint32_t longest)
{
	uint32_t left = 0, now = LC_BASE;

	for (uint32_t i = 0; i < m; i++, left--) {
		if (!left) {
			left = 1 + kt_random(longest);
			now = kt_random(N_ADAPTERS + 1);
			now = now == N_ADAPTERS ? LC_BASE : now;
		}
		rows[i] = kt_random(ROWS);
		adapters[i] = now;
	}
}

static bool random_batches(struct lc_rig *r, const float *want)
{
	uint32_t rows[WK_MAX_ROWS], adapters[WK_MAX_ROWS], n_out = lc_n_out(r->d);
	bool good = true;

	for (uint32_t i = 0; i < 60; i++) {
		uint32_t m = i == 59 ? WK_MAX_ROWS : i == 58 ? 200 : 1 + i;
		uint32_t col = n_out > 64 && i % 3 == 2 ? 64 : 0;

		random_batch(rows, adapters, m, i % 2 ? 2 : 30);
		good = same(r, want, rows, adapters, m, col, N_ADAPTERS) && good;
	}
	return good;
}

/* Rows 0.. in chunks of `step`, the adapter beginning at row `a`. */
static bool chunks(struct lc_rig *r, const float *want)
{
	static const uint32_t steps[] = {1, 15, 16, 17, ROWS}, begins[] = {0, 1, 15, 16, 17, 31};
	uint32_t rows[ROWS], adapters[ROWS];
	bool good = true;

	for (uint32_t s = 0; s < sizeof(steps) / sizeof(*steps); s++)
		for (uint32_t b = 0; b < sizeof(begins) / sizeof(*begins); b++) {
			for (uint32_t i = 0; i < ROWS; i++) {
				rows[i] = i;
				adapters[i] = i < begins[b] ? LC_BASE : s % N_ADAPTERS;
			}
			for (uint32_t i = 0; i < ROWS; i += steps[s]) {
				uint32_t m = ROWS - i < steps[s] ? ROWS - i : steps[s];

				good = same(r, want, rows + i, adapters + i, m, 0, N_ADAPTERS) &&
				       good;
			}
		}
	return good;
}

/* All rows under an adapter whose weights are NaN give NaN in an output of its first part. */
static bool all_nan(struct lc_rig *r, uint32_t adapter)
{
	uint32_t rows[ROWS], adapters[ROWS], n = lc_n_out(r->d);
	float *got = kt_alloc((size_t)ROWS * n, sizeof(*got));
	bool good = true;

	for (uint32_t i = 0; i < ROWS; i++) {
		rows[i] = i;
		adapters[i] = adapter;
	}
	good = lc_run(r, rows, adapters, ROWS, 0, 0, got);
	for (uint32_t i = 0; i < ROWS; i++)
		good = good && isnan(got[(size_t)i * n]);
	free(got);
	return good;
}

static void poison(struct lc_rig *r, uint32_t adapter, uint32_t n_parts)
{
	for (uint32_t p = 0; p < n_parts; p++) {
		size_t n = r->t->ops->lora_piece_bytes(r->t->be, r->d->part_n[p], r->d->k);
		char *bytes = kt_alloc(n, 1);

		memset(bytes, 0xff, n);
		for (uint32_t c = 0; c * WK_LORA_CUT < r->d->pairs[adapter][p].rank; c++)
			kt_write_bytes(r->t, r->pool, r->pieces[adapter][p][c], bytes, n);
		free(bytes);
	}
}

/* One part of NaN: the outputs of the adapter's other parts are as ever, side by side with it. */
static bool other_outputs(struct lc_rig *r, const float *want, uint32_t adapter)
{
	uint32_t n = lc_n_out(r->d), from = r->d->part_n[0];
	float *got = kt_alloc(n, sizeof(*got));
	bool good = true;

	for (uint32_t i = 0; i < ROWS; i++) {
		good = good && lc_run(r, &i, &adapter, 1, 0, 0, got) && isnan(got[from - 1]);
		good = good && !memcmp(got + from, want + ((size_t)adapter * ROWS + i) * n + from,
				       (n - from) * sizeof(*got));
	}
	free(got);
	return good;
}

static bool neighbours_of_nan(struct lc_rig *r, const float *want)
{
	uint32_t rows[WK_MAX_ROWS], adapters[WK_MAX_ROWS];
	bool good = true;

	for (uint32_t i = 1; i < 40; i++) {
		random_batch(rows, adapters, i, i % 2 ? 2 : 10);
		good = same(r, want, rows, adapters, i, 0, 1) && good;
	}
	return good;
}

static const char *backend;

static void test_shape(const char *path, const struct shape *s)
{
	struct lc_data d;
	float *want = NULL;

	kt_seed(3);
	make_data(&d, s);
	for (uint32_t threads = 1; threads <= 3; threads++) {
		struct lc_rig r;
		struct kt t;

		if (!kt_open(&t, backend, path, threads))
			bail_out("no backend");
		lc_open(&r, &t, &d);
		if (!want)
			want = alone(&r);
		ok(random_batches(&r, want), "%s, %u parts, k %u: any batch", t.label, s->n_parts,
		   s->k);
		ok(chunks(&r, want), "%s, %u parts, k %u: any chunks", t.label, s->n_parts, s->k);
		poison(&r, 1, 1);
		if (s->epilogue == WK_EPI_STORE)
			ok(other_outputs(&r, want, 1),
			   "%s, %u parts, k %u: NaN in one part stays there", t.label, s->n_parts,
			   s->k);
		poison(&r, 1, s->n_parts);
		ok(all_nan(&r, 1), "%s, %u parts, k %u: NaN weights give NaN", t.label, s->n_parts,
		   s->k);
		ok(neighbours_of_nan(&r, want), "%s, %u parts, k %u: and reach no other row",
		   t.label, s->n_parts, s->k);
		lc_close(&r);
		kt_close(&t);
	}
	free(want);
	lc_data_fini(&d);
}

int main(void)
{
	const char *const *paths;

	backend = kt_fast(&paths);
	for (uint32_t i = 0; paths[i]; i++) {
		struct kt t;

		if (!kt_open(&t, backend, paths[i], 1)) {
			skip(1, "no such instructions here");
			continue;
		}
		kt_close(&t);
		for (uint32_t s = 0; s < sizeof(shapes) / sizeof(*shapes); s += kt_every())
			test_shape(paths[i], &shapes[s]);
	}
	return tap_done();
}
