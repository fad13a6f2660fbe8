/* SPDX-License-Identifier: Apache-2.0 */
/*
 * emulate.cuh - what CUDA C++ the kernels use, for a host compiler: the kernels' own text runs under
 * it, thread by thread, with barriers, warp operations and matrix instructions in their meaning.
 *
 * Each thread of a block is a fiber; blocks run one after another. A barrier or warp operation
 * switches to the next fiber until all have arrived; if none can go on, the kernel has a barrier that
 * not all of its threads reach, and the program ends with its name. So shared memory may be static:
 * there is one block at a time. emulate.cc has the other half.
 *
 * A kernel that ends without having waited for the launch before it, or that copies before it has waited by
 * other than wk_early_*(), ends the program with its name. What it reads early goes into a digest, by
 * which the driver sees whether a launch before it has changed any of that.
 */
#ifndef WEFT_TESTS_CUDA_EMULATE_CUH
#define WEFT_TESTS_CUDA_EMULATE_CUH

#include <cmath>
#include <cstdint>
#include <cstring>

struct emu_dim {
	uint32_t x, y, z;
};

extern struct emu_dim threadIdx, blockIdx, blockDim, gridDim;
extern uint8_t *emu_shared_bytes;

void emu_sync_block(void);
void emu_sync_warp(void);
/* Every lane of the warp puts `bytes` (at most 32) and then sees what all have put, 32 bytes each. */
const uint8_t *emu_exchange(const void *mine, uint32_t bytes);

/* A thread waits for the launch before; must have done so; reads something without having done so. */
void emu_waits(void);
void emu_need_not_wait(void);
void emu_must_have_waited(void);
void emu_reads_early(const void *from, uint32_t bytes);

typedef void (*emu_body_fn)(const void *args);

struct emu_kernel {
	const char *name;
	uint32_t arg_bytes, max_threads;
	bool early;
	emu_body_fn body;
	struct emu_kernel *next;
	mutable long runs;
};

struct emu_registrar {
	explicit emu_registrar(struct emu_kernel *k);
};

/* The bounds are (threads) or (threads, blocks). */
static inline constexpr uint32_t emu_bounds(uint32_t threads, uint32_t = 0)
{
	return threads;
}

#define EMU_KERNEL(name, bounds, type, early)                                               \
	static void name##_body(const type &a);                                             \
	static struct emu_kernel name##_kernel = {#name,                                    \
						  sizeof(type),                             \
						  emu_bounds bounds,                        \
						  early,                                    \
						  [](const void *args) {                    \
							  name##_body(*(const type *)args); \
						  },                                        \
						  nullptr,                                  \
						  0};                                       \
	static struct emu_registrar name##_registrar(&name##_kernel);                       \
	static void name##_body(const type &a)
#define WK_KERNEL_EARLY(name, bounds, type) EMU_KERNEL(name, bounds, type, true)
#define WK_KERNEL(name, bounds, type)           \
	static void name##_text(const type &a); \
	EMU_KERNEL(name, bounds, type, false)   \
	{                                       \
		wk_let_next();                  \
		wk_await_previous();            \
		name##_text(a);                 \
	}                                       \
	static void name##_text(const type &a)
#define WK_SHARED_BYTES(name)  uint8_t *name = emu_shared_bytes
#define WK_DEVICE	       static inline
#define __shared__	       static
#define __syncthreads	       emu_sync_block
#define __syncwarp	       emu_sync_warp
#define __threadfence_system() ((void)0)

struct float2 {
	float x, y;
};
struct alignas(16) float4 {
	float x, y, z, w;
};
struct uint2 {
	uint32_t x, y;
};
struct alignas(16) uint4 {
	uint32_t x, y, z, w;
};

WK_DEVICE float2 make_float2(float x, float y)
{
	return {x, y};
}
WK_DEVICE uint2 make_uint2(uint32_t x, uint32_t y)
{
	return {x, y};
}
WK_DEVICE uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w)
{
	return {x, y, z, w};
}

WK_DEVICE uint32_t __float_as_uint(float f)
{
	uint32_t u;

	memcpy(&u, &f, 4);
	return u;
}

WK_DEVICE float __uint_as_float(uint32_t u)
{
	float f;

	memcpy(&f, &u, 4);
	return f;
}

WK_DEVICE int __ffs(uint32_t v)
{
	return __builtin_ffs((int)v);
}

template <class T> WK_DEVICE T emu_lane(const uint8_t *all, uint32_t lane)
{
	T v;

	memcpy(&v, all + lane % 32 * 32, sizeof(v));
	return v;
}

template <class T> WK_DEVICE T __shfl_xor_sync(uint32_t, T v, int mask)
{
	uint32_t lane = threadIdx.x % 32;

	return emu_lane<T>(emu_exchange(&v, sizeof(v)), lane ^ (uint32_t)mask);
}

template <class T> WK_DEVICE T __shfl_up_sync(uint32_t, T v, uint32_t by)
{
	uint32_t lane = threadIdx.x % 32;

	return emu_lane<T>(emu_exchange(&v, sizeof(v)), lane < by ? lane : lane - by);
}

template <class T> WK_DEVICE T __shfl_sync(uint32_t, T v, uint32_t from)
{
	return emu_lane<T>(emu_exchange(&v, sizeof(v)), from);
}

WK_DEVICE uint32_t __ballot_sync(uint32_t, bool v)
{
	const uint8_t *all = emu_exchange(&v, sizeof(v));
	uint32_t bits = 0;

	for (uint32_t i = 0; i < 32; i++)
		bits |= (uint32_t)emu_lane<bool>(all, i) << i;
	return bits;
}

template <class T> WK_DEVICE T atomicAdd(T *p, T v)
{
	T old = *p;

	*p += v;
	return old;
}

/* --- device.cuh's instructions ---------------------------------------------------------------------*/

struct wk_frag4 {
	uint32_t r[4];
};

/* Row i of matrix j is at the address of lane 8j + i. */
WK_DEVICE const uint8_t *emu_row(const uint8_t *all, uint32_t matrix, uint32_t row)
{
	return emu_lane<const uint8_t *>(all, matrix * 8 + row);
}

WK_DEVICE void wk_ldmatrix(struct wk_frag4 *f, const void *row)
{
	uint32_t lane = threadIdx.x % 32;
	const uint8_t *all = emu_exchange(&row, sizeof(row));

	for (uint32_t j = 0; j < 4; j++)
		memcpy(&f->r[j], emu_row(all, j, lane / 4) + lane % 4 * 4, 4);
}

WK_DEVICE void wk_ldmatrix_trans(struct wk_frag4 *f, const void *row)
{
	uint32_t lane = threadIdx.x % 32;
	const uint8_t *all = emu_exchange(&row, sizeof(row));

	for (uint32_t j = 0; j < 4; j++) {
		uint16_t lo, hi;

		memcpy(&lo, emu_row(all, j, lane % 4 * 2) + lane / 4 * 2, 2);
		memcpy(&hi, emu_row(all, j, lane % 4 * 2 + 1) + lane / 4 * 2, 2);
		f->r[j] = lo | (uint32_t)hi << 16;
	}
}

WK_DEVICE float emu_half(uint32_t word, uint32_t which)
{
	return __uint_as_float(which ? word & 0xffff0000 : word << 16);
}

/* Lane 4g + t has a[0..3]: rows g, g + 8 of columns 2t, 2t + 1, then of eight columns more; b likewise
 * by column g. Products and sums as double, rounded once: finer than the device's. */
WK_DEVICE void wk_mma(float *c, const uint32_t *a, uint32_t b0, uint32_t b1)
{
	struct {
		uint32_t a[4], b[2];
	} mine = {{a[0], a[1], a[2], a[3]}, {b0, b1}}, from;
	uint32_t lane = threadIdx.x % 32;
	const uint8_t *all = emu_exchange(&mine, sizeof(mine));
	float av[2][16], bv[2][16];

	for (uint32_t t = 0; t < 4; t++) {
		memcpy(&from, all + (lane / 4 * 4 + t) * 32, sizeof(from));
		for (uint32_t i = 0; i < 4; i++)
			for (uint32_t h = 0; h < 2; h++)
				av[i % 2][i / 2 * 8 + 2 * t + h] = emu_half(from.a[i], h);
		for (uint32_t n = 0; n < 2; n++) {
			memcpy(&from, all + ((lane % 4 * 2 + n) * 4 + t) * 32, sizeof(from));
			for (uint32_t i = 0; i < 2; i++)
				for (uint32_t h = 0; h < 2; h++)
					bv[n][i * 8 + 2 * t + h] = emu_half(from.b[i], h);
		}
	}
	for (uint32_t i = 0; i < 4; i++) {
		double sum = c[i];

		for (uint32_t k = 0; k < 16; k++)
			sum += (double)av[i / 2][k] * bv[i % 2][k];
		c[i] = (float)sum;
	}
}

WK_DEVICE void wk_let_next(void)
{
}

WK_DEVICE void wk_await_previous(void)
{
	emu_waits();
}

WK_DEVICE void emu_aligned(const void *p)
{
	if ((uintptr_t)p % 16)
		__builtin_trap();
}

/* Copies are done at once: nothing shows here if a kernel forgets to wait for them. */
WK_DEVICE void wk_copy16(void *to, const void *from, uint32_t bytes)
{
	emu_must_have_waited();
	emu_aligned(to);
	emu_aligned(from);
	memset(to, 0, 16);
	memcpy(to, from, bytes);
}

WK_DEVICE void wk_early_copy16(void *to, const void *from, uint32_t bytes)
{
	emu_aligned(to);
	emu_aligned(from);
	emu_reads_early(from, bytes);
	memset(to, 0, 16);
	memcpy(to, from, bytes);
}

WK_DEVICE void wk_early_fetch(const void *from, uint32_t bytes)
{
	emu_aligned(from);
	if (!bytes || bytes % 16)
		__builtin_trap();
	/* It must be there, but it may change. */
	(void)*(const volatile uint8_t *)from;
	(void)*((const volatile uint8_t *)from + bytes - 1);
}

WK_DEVICE uint32_t wk_early_word(const uint32_t *from)
{
	emu_reads_early(from, sizeof(*from));
	return *from;
}

/* Another block waits, so this thread need not. */
WK_DEVICE bool wk_may_end_early(void)
{
	if (!blockIdx.x && !blockIdx.y)
		return false;
	emu_need_not_wait();
	return true;
}

WK_DEVICE void wk_copy_commit(void)
{
}

template <int LEFT> WK_DEVICE void wk_copy_wait(void)
{
}

WK_DEVICE float wk_exp2(float x)
{
	float v = exp2f(x);

	return v < 0x1p-126f ? 0 : v;
}

/* To nearest, ties to even; a NaN stays one, of the bits that the device gives it. */
WK_DEVICE uint32_t emu_to_bf16(float f)
{
	uint32_t u = __float_as_uint(f);

	if ((u & 0x7fffffff) > 0x7f800000)
		return 0x7fff;
	return (u + 0x7fff + (u >> 16 & 1)) >> 16;
}

WK_DEVICE uint32_t wk_pack_bf16(float lo, float hi)
{
	return emu_to_bf16(lo) | emu_to_bf16(hi) << 16;
}

WK_DEVICE uint4 wk_load16(const void *p)
{
	emu_aligned(p);
	return *(const uint4 *)p;
}

WK_DEVICE float4 wk_load_floats(const float *p)
{
	emu_aligned(p);
	return *(const float4 *)p;
}

#include "tests/cuda/fake/hopper.cuh"

#endif
