/* SPDX-License-Identifier: Apache-2.0 */
/*
 * device.cuh - what the kernels are written in: the few instructions that have no name in C.
 *
 * Under nvcc these are PTX. Elsewhere the includer has brought an execution model of its own
 * (tests/cuda/emulate.h): then the kernels' text is compiled for the host and run by the tests, warp
 * operations included. No kernel may rely on fused multiply-add but where it says fmaf(): the
 * device code is compiled with -fmad=false, so that the same expression gives the same bits in every
 * kernel that contains it.
 *
 * Launches that overlap (capability 9.0; queue.c says which). A launch may begin when all blocks of the one
 * before it have begun, or ended where that one is not ours: every kernel lets its successor begin first of
 * all, and then waits until its predecessor has ended and what that has written can be seen. Whoever waits in
 * every block cannot end before its predecessor, so when the wait for the one before is over, all that came
 * earlier are over too, those that they waited for, and the transfers and events before the first of
 * them: after the wait everything is as if launches did not overlap, writes over what an earlier one reads
 * included. Before it a kernel may read only its arguments, its own shared memory, and what no launch
 * or transfer of this stream changes while it is there: base weights, and what the host has sent for this step.
 * The former are written by a transfer that the host waits for before anyone can name them, and freed when
 * the device is idle; the latter is there before the first launch of the step's list begins. (To bring
 * something into the cache that all multiprocessors share is not to read it: it can still be written.)
 *
 * A block that finds early that it has nothing to do may end without having waited, as long as another
 * block of its launch waits: the first one does (wk_may_end_early()).
 *
 * WK_KERNEL waits before its text begins, so that none can forget to. WK_KERNEL_EARLY is for text that
 * does so itself, and that reads before it by wk_early_*() alone. Loads by the path for data that is
 * constant (ld.global.nc) may be moved by the compiler from behind the wait to before it: there are none.
 */
#ifndef WEFT_KERNELS_CUDA_DEVICE_CUH
#define WEFT_KERNELS_CUDA_DEVICE_CUH

#include "kernels/cuda/args.h"

#ifdef __CUDACC__
#define WK_DEVICE static __device__ __forceinline__
#define WK_KERNEL_EARLY(name, bounds, type) \
	extern "C" __global__ void __launch_bounds__ bounds name(const __grid_constant__ type a)
#define WK_KERNEL(name, bounds, type)              \
	WK_DEVICE void name##_text(const type &a); \
	WK_KERNEL_EARLY(name, bounds, type)        \
	{                                          \
		wk_let_next();                     \
		wk_await_previous();               \
		name##_text(a);                    \
	}                                          \
	WK_DEVICE void name##_text(const type &a)
#define WK_SHARED_BYTES(name) extern __shared__ __align__(16) uint8_t name[]

/* The launch after this one may begin once every block has come here, or ended. */
WK_DEVICE void wk_let_next(void)
{
#if __CUDA_ARCH__ >= 900
	asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/* Until the launch before this one has ended. */
WK_DEVICE void wk_await_previous(void)
{
#if __CUDA_ARCH__ >= 900
	asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

struct wk_frag4 {
	uint32_t r[4];
};

/* Four 8x8 matrices of 16-bit elements from shared memory; lane i gives the address of row i. */
WK_DEVICE void wk_ldmatrix(struct wk_frag4 *f, const void *row)
{
	uint32_t at = (uint32_t)__cvta_generic_to_shared(row);

	asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
		     : "=r"(f->r[0]), "=r"(f->r[1]), "=r"(f->r[2]), "=r"(f->r[3])
		     : "r"(at));
}

WK_DEVICE void wk_ldmatrix_trans(struct wk_frag4 *f, const void *row)
{
	uint32_t at = (uint32_t)__cvta_generic_to_shared(row);

	asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
		     : "=r"(f->r[0]), "=r"(f->r[1]), "=r"(f->r[2]), "=r"(f->r[3])
		     : "r"(at));
}

/* c += a b: a 16x16 (rows), b 16x8 (columns), bf16; c fp32. */
WK_DEVICE void wk_mma(float *c, const uint32_t *a, uint32_t b0, uint32_t b1)
{
	asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
		     "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
		     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
		     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* 16 bytes to shared memory, of which `bytes` are read and the rest is zero. */
WK_DEVICE void wk_copy16(void *to, const void *from, uint32_t bytes)
{
	uint32_t at = (uint32_t)__cvta_generic_to_shared(to);

	asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from),
		     "r"(bytes)
		     : "memory");
}

/* The same of what never changes: it may stand before the wait. */
WK_DEVICE void wk_early_copy16(void *to, const void *from, uint32_t bytes)
{
	wk_copy16(to, from, bytes);
}

/* Into the cache that all multiprocessors share: whole 16 bytes, of anything. */
WK_DEVICE void wk_early_fetch(const void *from, uint32_t bytes)
{
#if __CUDA_ARCH__ >= 900
	asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(from), "r"(bytes)
		     : "memory");
#endif
}

/* Past the multiprocessor's own cache, which may still have what was there in the step before. */
WK_DEVICE uint32_t wk_early_word(const uint32_t *from)
{
	uint32_t v;

	asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(from) : "memory");
	return v;
}

WK_DEVICE bool wk_may_end_early(void)
{
	return blockIdx.x || blockIdx.y;
}

WK_DEVICE void wk_copy_commit(void)
{
	asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int LEFT> WK_DEVICE void wk_copy_wait(void)
{
	asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
}

/* 2^x, where a result below the least normal number is zero: one instruction. 2^0 is 1. */
WK_DEVICE float wk_exp2(float x)
{
	float v;

	asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(v) : "f"(x));
	return v;
}

/* Two numbers in a word, each to nearest, ties to even; a NaN stays one. */
WK_DEVICE uint32_t wk_pack_bf16(float lo, float hi)
{
	uint32_t v;

	asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(v) : "f"(hi), "f"(lo));
	return v;
}

WK_DEVICE uint4 wk_load16(const void *p)
{
	return *(const uint4 *)p;
}

WK_DEVICE float4 wk_load_floats(const float *p)
{
	return *(const float4 *)p;
}
#endif

#define WK_ALL 0xffffffffu

WK_DEVICE float wk_from_bf16(uint32_t v)
{
	return __uint_as_float(v << 16);
}

WK_DEVICE uint32_t wk_to_bf16(float f)
{
	return wk_pack_bf16(f, 0) & 0xffff;
}

WK_DEVICE float wk_warp_sum(float v)
{
	for (int i = 16; i; i >>= 1)
		v += __shfl_xor_sync(WK_ALL, v, i);
	return v;
}

#endif
