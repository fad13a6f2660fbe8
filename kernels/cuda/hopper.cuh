/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hopper.cuh - instructions of compute capability 9.0 only (sm_90a): products of a warpgroup, copies
 * in bulk, and the barriers that they end at.
 *
 * A warpgroup is four warps, the first of them a multiple of four. Its products are asynchronous:
 * between the call and the wait that covers it nothing may touch the numbers that it adds to, the
 * registers or the shared memory that it reads. WK_HOPPER is defined where these can be compiled;
 * tests/cuda/fake/hopper.cuh is what they mean elsewhere.
 *
 * Shared memory that a product reads lies in rows of 128 bytes, eight of them a unit of 1,024 aligned
 * to as much; 16-byte piece c of row r is at place c ^ (r % 8) of its row (wk_swizzled()).
 */
#ifndef WEFT_KERNELS_CUDA_HOPPER_CUH
#define WEFT_KERNELS_CUDA_HOPPER_CUH

#include "kernels/cuda/device.cuh"

#ifdef __CUDACC__
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define WK_HOPPER 1
#endif

WK_DEVICE uint32_t wk_shared_address(const void *p)
{
	return (uint32_t)__cvta_generic_to_shared(p);
}

/* --- barriers in shared memory ----------------------------------------------------------------------*/

/* A phase ends with `arrivals` of them and all the bytes that were announced. */
WK_DEVICE void wk_barrier_init(uint64_t *b, uint32_t arrivals)
{
	asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(wk_shared_address(b)),
		     "r"(arrivals)
		     : "memory");
}

/* By the thread that has made barriers, before __syncthreads() lets others use them. */
WK_DEVICE void wk_barriers_made(void)
{
	asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
	asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

WK_DEVICE void wk_barrier_arrive(uint64_t *b)
{
	asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(wk_shared_address(b))
		     : "memory");
}

/* Arrive, and announce bytes that wk_copy_bulk() brings. */
WK_DEVICE void wk_barrier_expect(uint64_t *b, uint32_t bytes)
{
	asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(
			     wk_shared_address(b)),
		     "r"(bytes)
		     : "memory");
}

WK_DEVICE bool wk_barrier_try(uint64_t *b, uint32_t parity)
{
	uint32_t done;

	asm volatile("{\n"
		     ".reg .pred p;\n"
		     "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
		     "selp.u32 %0, 1, 0, p;\n"
		     "}"
		     : "=r"(done)
		     : "r"(wk_shared_address(b)), "r"(parity)
		     : "memory");
	return done;
}

#define WK_PATIENCE_NS 10000000000ull /* nothing that goes on as it should takes so long */

WK_DEVICE uint64_t wk_clock_ns(void)
{
	uint64_t ns;

	asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(ns));
	return ns;
}

/* Ends the kernel with an error. Not __trap(): before it CUDA 12 gives a warpgroup no more registers
 * than the kernel was launched with. */
WK_DEVICE void wk_fail(void)
{
	asm volatile("st.volatile.global.u32 [%0], %1;" ::"l"((uint64_t)0), "r"(0) : "memory");
}

/* Until the phase of this parity is over. A kernel that stands still ends with an error, so that
 * whoever waits for it hears of it. */
WK_DEVICE void wk_barrier_wait(uint64_t *b, uint32_t parity)
{
	uint64_t since;

	if (wk_barrier_try(b, parity))
		return;
	since = wk_clock_ns();
	while (!wk_barrier_try(b, parity))
		if (wk_clock_ns() - since > WK_PATIENCE_NS)
			wk_fail();
}

/* All threads of a warpgroup; id from 1 up, one for each group. */
WK_DEVICE void wk_group_sync(uint32_t id)
{
	asm volatile("bar.sync %0, 128;" ::"r"(id) : "memory");
}

/* --- copies -----------------------------------------------------------------------------------------*/

/* By the thread that copies, once: what launches before this one stored is seen by its copies too. */
WK_DEVICE void wk_copies_begin(void)
{
	asm volatile("fence.proxy.async.global;" ::: "memory");
}

/* Contiguous bytes, a multiple of 16, to shared memory; done when the barrier's phase is. */
WK_DEVICE void wk_copy_bulk(void *to, const void *from, uint32_t bytes, uint64_t *b)
{
	asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
		     "[%0], [%1], %2, [%3];" ::"r"(wk_shared_address(to)),
		     "l"(from), "r"(bytes), "r"(wk_shared_address(b))
		     : "memory");
}

/* A store to shared memory that products will read, after wk_stored_for_products(). */
WK_DEVICE void wk_store_for_products(void *to, uint4 v)
{
	*(uint4 *)to = v;
}

/* By each thread that stored, before the barrier that lets the products begin. */
WK_DEVICE void wk_stored_for_products(void)
{
	asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/* --- registers --------------------------------------------------------------------------------------*/

template <int N> WK_DEVICE void wk_registers_fewer(void)
{
	asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

template <int N> WK_DEVICE void wk_registers_more(void)
{
	asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}

/* --- products ---------------------------------------------------------------------------------------*/

/* Where a product finds rows that wk_swizzled() placed: eight rows on are 1,024 bytes on. A product takes
 * 32 bytes of each row: the next 32 are at `place` + 2, up to 128. */
WK_DEVICE uint64_t wk_product_place(const void *p)
{
	const uint64_t eight_rows = 1024 >> 4, unused = 1, swizzle_128 = 1;

	return (uint64_t)((wk_shared_address(p) & 0x3ffff) >> 4) | unused << 16 | eight_rows << 32 |
	       swizzle_128 << 62;
}

/* Before the first product after anything else wrote what it adds to or its registers. */
WK_DEVICE void wk_product_begin(void)
{
	asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

/* The products up to here are a group. */
WK_DEVICE void wk_product_commit(void)
{
	asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/* Until all but the last LEFT groups are done. */
template <int LEFT> WK_DEVICE void wk_product_wait(void)
{
	asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory");
}

/* The compiler takes a product for done when it is called: what it may have moved over the wait is
 * held here, at no cost. */
template <int N> WK_DEVICE void wk_hold(float (&v)[N])
{
#pragma unroll
	for (int i = 0; i < N; i++)
		asm volatile("" : "+f"(v[i])::"memory");
}

template <int N> WK_DEVICE void wk_hold(uint32_t (&v)[N][4])
{
#pragma unroll
	for (int i = 0; i < N; i++)
		asm volatile(""
			     : "+r"(v[i][0]), "+r"(v[i][1]), "+r"(v[i][2]),
			       "+r"(v[i][3])::"memory");
}

/* Work that does not depend on a wait may be put behind it by the compiler, however it is written: then
 * it is not done while products are. A branch that depends on the work's result comes before what is
 * written after it. v is not below zero. */
WK_DEVICE void wk_done_here(float v)
{
	while (v < 0)
		wk_fail();
}

#define WK_NUMBERS_8(d, i)                                                          \
	"+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), \
		"+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define WK_NUMBERS_32(d, i) \
	WK_NUMBERS_8(d, i), WK_NUMBERS_8(d, i + 8), WK_NUMBERS_8(d, i + 16), WK_NUMBERS_8(d, i + 24)
#define WK_NAMES_32                                                          \
	"%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18," \
	"%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define WK_NAMES_64                                                             \
	WK_NAMES_32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45," \
		    "%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,"  \
		    "%60,%61,%62,%63"

/*
 * d = a b, or with `add` d += a b: a 64x16 (rows), b 16xN (columns), bf16; d fp32, N / 2 of a thread.
 * Thread 32w + l has in d[4j + 2h + i] row 16w + l / 4 + 8h, column 8j + l % 4 * 2 + i.
 */
WK_DEVICE void wk_product(float (&d)[64], uint64_t a, uint64_t b, bool add)
{
	asm volatile("{\n"
		     ".reg .pred p;\n"
		     "setp.ne.b32 p, %66, 0;\n"
		     "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" WK_NAMES_64
		     "}, %64, %65, p, 1, 1, 0, 0;\n"
		     "}"
		     : WK_NUMBERS_32(d, 0), WK_NUMBERS_32(d, 32)
		     : "l"(a), "l"(b), "r"((uint32_t)add));
}

/* d += a b, with a in registers: those of wk_mma(), of the rows that the thread's d are of. */
WK_DEVICE void wk_product(float (&d)[64], const uint32_t (&a)[4], uint64_t b)
{
	asm volatile("{\n"
		     ".reg .pred p;\n"
		     "setp.ne.b32 p, 1, 0;\n"
		     "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" WK_NAMES_64
		     "}, {%64,%65,%66,%67}, %68, p, 1, 1, 0;\n"
		     "}"
		     : WK_NUMBERS_32(d, 0), WK_NUMBERS_32(d, 32)
		     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

WK_DEVICE void wk_product(float (&d)[32], const uint32_t (&a)[4], uint64_t b)
{
	asm volatile("{\n"
		     ".reg .pred p;\n"
		     "setp.ne.b32 p, 1, 0;\n"
		     "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" WK_NAMES_32
		     "}, {%32,%33,%34,%35}, %36, p, 1, 1, 0;\n"
		     "}"
		     : WK_NUMBERS_32(d, 0)
		     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
#endif

/* Where byte 16 * piece of a row of 128 bytes is. */
WK_DEVICE uint32_t wk_swizzled(uint32_t row, uint32_t piece)
{
	return row * 128 + ((piece ^ row % 8) * 16);
}

#endif
