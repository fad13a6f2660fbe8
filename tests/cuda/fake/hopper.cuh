/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hopper.cuh - what kernels/cuda/hopper.cuh means, for emulate.cuh: each thing as late as it may be.
 *
 * A product is computed when its warpgroup waits for it: its operands are read then, out of shared
 * memory and of its threads' registers, and until then what it adds to is NaN. A copy in bulk lands when
 * someone waits for its barrier, and until then its place is full of 0xff; so is that of a store
 * for products until it is said to be stored. So a wait that is missing, and an operand that is changed
 * too early, give NaN or wrong numbers. Products and copies that nobody waits for, arrivals of which a
 * barrier has enough, and places that no product can read end the program, with the kernel's name.
 */
#ifndef WEFT_TESTS_CUDA_HOPPER_CUH
#define WEFT_TESTS_CUDA_HOPPER_CUH

#define WK_HOPPER 1

/* hopper.cc */
uint32_t emu_shared_address(const void *p);
void emu_barrier_init(uint64_t *b, uint32_t arrivals);
void emu_barrier_arrive(uint64_t *b, uint32_t bytes);
void emu_barrier_wait(uint64_t *b, uint32_t parity);
void emu_copy_bulk(void *to, const void *from, uint32_t bytes, uint64_t *b);
void emu_store_for_products(void *to, const void *from);
void emu_stored_for_products(void);
void emu_product_begin(void);
/* a NULL: the rows are at a_place. */
void emu_product(float *d, uint32_t columns, const uint32_t *a, uint64_t a_place, uint64_t b_place,
		 bool add);
void emu_product_commit(void);
void emu_product_wait(uint32_t left);
/* emulate.cc */
void emu_sync_group(uint32_t id);

WK_DEVICE uint32_t wk_shared_address(const void *p)
{
	return emu_shared_address(p);
}

WK_DEVICE void wk_barrier_init(uint64_t *b, uint32_t arrivals)
{
	emu_barrier_init(b, arrivals);
}

WK_DEVICE void wk_barriers_made(void)
{
}

WK_DEVICE void wk_barrier_arrive(uint64_t *b)
{
	emu_barrier_arrive(b, 0);
}

WK_DEVICE void wk_barrier_expect(uint64_t *b, uint32_t bytes)
{
	emu_barrier_arrive(b, bytes);
}

WK_DEVICE void wk_barrier_wait(uint64_t *b, uint32_t parity)
{
	emu_barrier_wait(b, parity);
}

WK_DEVICE void wk_group_sync(uint32_t id)
{
	emu_sync_group(id);
}

WK_DEVICE void wk_copies_begin(void)
{
}

WK_DEVICE void wk_copy_bulk(void *to, const void *from, uint32_t bytes, uint64_t *b)
{
	emu_copy_bulk(to, from, bytes, b);
}

WK_DEVICE void wk_store_for_products(void *to, uint4 v)
{
	emu_store_for_products(to, &v);
}

WK_DEVICE void wk_stored_for_products(void)
{
	emu_stored_for_products();
}

template <int N> WK_DEVICE void wk_registers_fewer(void)
{
	static_assert(N % 8 == 0 && N >= 24 && N <= 256, "registers");
}

template <int N> WK_DEVICE void wk_registers_more(void)
{
	static_assert(N % 8 == 0 && N >= 24 && N <= 256, "registers");
}

WK_DEVICE uint64_t wk_product_place(const void *p)
{
	return (uint64_t)(emu_shared_address(p) >> 4) | (uint64_t)64 << 32 | (uint64_t)1 << 62;
}

WK_DEVICE void wk_product_begin(void)
{
	emu_product_begin();
}

WK_DEVICE void wk_product_commit(void)
{
	emu_product_commit();
}

template <int LEFT> WK_DEVICE void wk_product_wait(void)
{
	emu_product_wait(LEFT);
}

template <class T> WK_DEVICE void wk_hold(T &)
{
}

WK_DEVICE void wk_done_here(float)
{
}

WK_DEVICE void wk_product(float (&d)[64], uint64_t a, uint64_t b, bool add)
{
	emu_product(d, 128, nullptr, a, b, add);
}

WK_DEVICE void wk_product(float (&d)[64], const uint32_t (&a)[4], uint64_t b)
{
	emu_product(d, 128, a, 0, b, true);
}

WK_DEVICE void wk_product(float (&d)[32], const uint32_t (&a)[4], uint64_t b)
{
	emu_product(d, 64, a, 0, b, true);
}

#endif
