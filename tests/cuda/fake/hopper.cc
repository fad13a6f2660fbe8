/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hopper.cc - products of warpgroups, copies in bulk and their barriers (see hopper.cuh).
 *
 * WEFT_FAKE_CUDA_SWIZZLE=0 in the environment makes a device whose products read their rows as they
 * lie, so that all they give is wrong: for tests of who finds that out.
 */
#include "tests/cuda/fake/emulate.cuh"

#include <cstdio>
#include <cstdlib>

#include "tests/cuda/fake/emulate_block.h"

#define MAX_COPIES   64
#define MAX_PRODUCTS 64
#define MAX_STORES   64
#define GROUPS	     (EMU_MAX_THREADS / 128)
#define SUMS	     2 /* accumulators that a thread has in products at a time */

static void die(const char *what)
{
	fprintf(stderr, "kernel %s: %s\n", emu_kernel_name(), what);
	abort();
}

uint32_t emu_shared_address(const void *p)
{
	return (uint32_t)((const uint8_t *)p - emu_window);
}

/* --- barriers and copies -----------------------------------------------------------------------------*/

struct barrier {
	uint16_t arrivals; /* of a phase */
	uint16_t left : 15, phase : 1;
	int32_t bytes; /* announced and not here */
};

static struct copy {
	void *to;
	const void *from;
	uint32_t bytes;
	uint64_t *barrier;
} copies[MAX_COPIES];
static uint32_t n_copies;

static struct barrier *barrier_of(uint64_t *b)
{
	static_assert(sizeof(struct barrier) == sizeof(*b), "a barrier's size");
	struct barrier *r = (struct barrier *)b;

	if ((uintptr_t)b % 8 || r->arrivals == 0xffff)
		die("a barrier that nobody has made");
	return r;
}

static void phase_end(struct barrier *b)
{
	if (b->left || b->bytes)
		return;
	b->left = b->arrivals;
	b->phase ^= 1;
	emu_went_on();
}

void emu_barrier_init(uint64_t *b, uint32_t arrivals)
{
	struct barrier made = {};

	made.arrivals = (uint16_t)arrivals;
	made.left = (uint16_t)arrivals & 0x7fff;
	memcpy(b, &made, sizeof(made));
}

void emu_barrier_arrive(uint64_t *at, uint32_t bytes)
{
	struct barrier *b = barrier_of(at);

	if (!b->left)
		die("a barrier has more arrivals than it waits for");
	b->bytes += (int32_t)bytes;
	b->left--;
	phase_end(b);
}

static void land(uint64_t *b)
{
	for (uint32_t i = 0; i < n_copies;)
		if (copies[i].barrier == b) {
			memcpy(copies[i].to, copies[i].from, copies[i].bytes);
			barrier_of(b)->bytes -= (int32_t)copies[i].bytes;
			copies[i] = copies[--n_copies];
			phase_end(barrier_of(b));
		} else {
			i++;
		}
}

void emu_barrier_wait(uint64_t *at, uint32_t parity)
{
	struct barrier *b = barrier_of(at);

	for (;;) {
		land(at);
		if (b->phase != parity)
			return;
		emu_yield();
	}
}

void emu_copy_bulk(void *to, const void *from, uint32_t bytes, uint64_t *b)
{
	if ((uintptr_t)to % 16 || (uintptr_t)from % 16 || bytes % 16 || n_copies == MAX_COPIES)
		die("a copy in bulk that is not of whole pieces of 16 bytes, or one too many");
	memset(to, 0xff, bytes);
	copies[n_copies++] = {to, from, bytes, b};
}

/* --- products ----------------------------------------------------------------------------------------*/

struct product {
	float *d;
	const uint32_t *a;
	uint64_t a_place, b_place;
	uint32_t columns, group;
	bool add;
};

struct sum {
	float *d; /* NULL: free */
	uint32_t columns;
	float v[64];
};

static struct thread {
	struct product products[MAX_PRODUCTS]; /* not computed, oldest first */
	uint32_t n, groups;		       /* groups: closed, in all */
	struct sum sums[SUMS];
	bool begun;
	struct {
		void *to;
		uint8_t bytes[16];
	} stores[MAX_STORES];
	uint32_t n_stores;
} * threads;

static struct thread *me(void)
{
	return &threads[threadIdx.x];
}

void emu_store_for_products(void *to, const void *from)
{
	struct thread *t = me();

	if (t->n_stores == MAX_STORES || (uintptr_t)to % 16)
		die("a store for products that is not aligned, or one too many");
	memset(to, 0xff, 16);
	t->stores[t->n_stores].to = to;
	memcpy(t->stores[t->n_stores++].bytes, from, 16);
}

void emu_stored_for_products(void)
{
	struct thread *t = me();

	for (uint32_t i = 0; i < t->n_stores; i++)
		memcpy(t->stores[i].to, t->stores[i].bytes, 16);
	t->n_stores = 0;
}

void emu_product_begin(void)
{
	me()->begun = true;
}

static struct sum *sum_of(struct thread *t, const float *d)
{
	for (uint32_t i = 0; i < SUMS; i++)
		if (t->sums[i].d == d)
			return &t->sums[i];
	return nullptr;
}

void emu_product(float *d, uint32_t columns, const uint32_t *a, uint64_t a_place, uint64_t b_place,
		 bool add)
{
	struct thread *t = me();
	struct sum *s = sum_of(t, d);

	if (!t->begun || t->n == MAX_PRODUCTS)
		die("a product that was not begun, or one too many");
	if (!s) {
		s = sum_of(t, nullptr);
		if (!s)
			die("products into too many accumulators");
		s->d = d;
		s->columns = columns;
		memcpy(s->v, d, columns / 2 * sizeof(float));
		memset(d, 0xff, columns / 2 * sizeof(float));
	}
	t->products[t->n++] = {d, a, a_place, b_place, columns, t->groups, add};
}

void emu_product_commit(void)
{
	me()->groups++;
}

static bool swizzles(void)
{
	const char *e = getenv("WEFT_FAKE_CUDA_SWIZZLE");

	return !e || strcmp(e, "0");
}

/* 16 numbers of each of `rows` rows, as a product finds them. */
static void read_rows(uint64_t place, uint32_t rows, float (*to)[16])
{
	uint32_t at = (uint32_t)(place & 0x3fff) << 4, step = (uint32_t)(place >> 32 & 0x3fff) << 4;
	bool swizzled = swizzles();

	if (place >> 62 != 1 || place >> 49 & 7 || step != 1024 || (at & ~127u) % 1024)
		die("a product of rows that do not lie as hopper.cuh has it");
	for (uint32_t r = 0; r < rows; r++)
		for (uint32_t i = 0; i < 16; i++) {
			uint32_t from = at + r / 8 * step + r % 8 * 128 + i * 2;
			uint16_t v;

			if (swizzled)
				from ^= (from >> 7 & 7) << 4;
			if (from + 2 > emu_window_bytes())
				die("a product reads past the shared memory");
			memcpy(&v, emu_window + from, 2);
			to[r][i] = __uint_as_float((uint32_t)v << 16);
		}
}

static void registers_of(const struct thread *group, uint32_t product, float (*to)[16])
{
	for (uint32_t t = 0; t < 128; t++) {
		const uint32_t *a = group[t].products[product].a;
		uint32_t row = t / 32 * 16 + t % 32 / 4, k = t % 4 * 2;

		for (uint32_t i = 0; i < 4; i++)
			for (uint32_t h = 0; h < 2; h++)
				to[row + i % 2 * 8][k + i / 2 * 8 + h] = emu_half(a[i], h);
	}
}

/* Each element in order of k, as double and rounded once: finer than the device's. */
static void compute(struct thread *group, uint32_t product)
{
	const struct product p = group[0].products[product];
	static float a[64][16], b[128][16];
	static double turned[16][128], row[128];

	if (p.a)
		registers_of(group, product, a);
	else
		read_rows(p.a_place, 64, a);
	read_rows(p.b_place, p.columns, b);
	for (uint32_t k = 0; k < 16; k++)
		for (uint32_t c = 0; c < p.columns; c++)
			turned[k][c] = b[c][k];
	for (uint32_t r = 0; r < 64; r++) {
		for (uint32_t c = 0; c < p.columns; c++)
			row[c] = 0;
		for (uint32_t k = 0; k < 16; k++)
			for (uint32_t c = 0; c < p.columns; c++)
				row[c] += (double)a[r][k] * turned[k][c];
		for (uint32_t c = 0; c < p.columns; c++) {
			struct thread *t = &group[r / 16 * 32 + r % 8 * 4 + c % 8 / 2];
			float *v = &sum_of(t, t->products[product].d)
					    ->v[c / 8 * 4 + r % 16 / 8 * 2 + c % 2];

			*v = (float)(row[c] + (p.add ? *v : 0));
		}
	}
}

static bool same(const struct product *p, const struct product *q)
{
	return !p->a == !q->a && p->a_place == q->a_place && p->b_place == q->b_place &&
	       p->columns == q->columns && p->group == q->group && p->add == q->add;
}

/* Give back the accumulators that no product is left for. */
static void give_back(struct thread *t)
{
	for (uint32_t i = 0; i < SUMS; i++) {
		struct sum *s = &t->sums[i];
		bool busy = !s->d;

		for (uint32_t j = 0; j < t->n; j++)
			busy = busy || t->products[j].d == s->d;
		if (busy)
			continue;
		memcpy(s->d, s->v, s->columns / 2 * sizeof(float));
		s->d = nullptr;
	}
}

static uint32_t left_over; /* of the wait that all have come to */

static void products_of_group(uint32_t number)
{
	struct thread *group = threads + number * 128;
	uint32_t n = 0;

	while (n < group[0].n && group[0].products[n].group + left_over < group[0].groups)
		n++;
	for (uint32_t t = 0; t < 128; t++)
		for (uint32_t i = 0; i < group[0].n; i++)
			if (group[t].n != group[0].n ||
			    !same(&group[t].products[i], &group[0].products[i]))
				die("the threads of a warpgroup do not make the same products");
	for (uint32_t i = 0; i < n; i++)
		compute(group, i);
	for (uint32_t t = 0; t < 128; t++) {
		memmove(group[t].products, group[t].products + n,
			(group[t].n - n) * sizeof(*group[t].products));
		group[t].n -= n;
		give_back(&group[t]);
	}
}

void emu_product_wait(uint32_t left)
{
	me()->begun = false;
	left_over = left;
	emu_meet(threadIdx.x / 128, products_of_group);
}

/* --- blocks ------------------------------------------------------------------------------------------*/

void emu_hopper_begin(void)
{
	if (!threads)
		threads = (struct thread *)calloc(EMU_MAX_THREADS, sizeof(*threads));
	for (uint32_t i = 0; i < EMU_MAX_THREADS; i++)
		threads[i].begun = false;
}

void emu_hopper_thread_end(void)
{
	const struct thread *t = me();

	if (t->n || t->n_stores)
		die("a thread ends with products that it has not waited for, or stores");
}

void emu_hopper_end(void)
{
	if (n_copies)
		die("a block ends with copies that nobody has waited for");
}
