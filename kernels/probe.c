/* SPDX-License-Identifier: Apache-2.0 */
/*
 * probe.c - measures arithmetic peak and streaming bandwidth with the backend's own threads.
 *
 * The arithmetic loops are assembly, so that no compiler can thin them out or spill, and need no
 * compiler flags. Work is handed out in pieces like any other operation, because a thread that
 * loses its core for a moment would otherwise decide the result.
 */
#include "kernels/probe.h"
#include "kernels/cpu/cpu.h"

#include <emmintrin.h>
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#define PEAK_TURNS  4000u /* of a loop of 24 instructions: about 12 us */
#define PEAK_CHUNKS 1200u /* for each thread: about 20 ms */
#define PIECE	    ((size_t)1 << 20)

struct wk_probe {
	struct wk_pool *pool; /* owned */
	char *buffer;	      /* owned */
	size_t bytes;
	uint32_t n_threads;
};

double wk_seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* --- arithmetic ----------------------------------------------------------------------------------*/

/*
 * Independent sums enough to hide any latency: with 12 chains VDPBF16PS falls 8 % short of two a
 * cycle on Zen 5, with 24 it does not. Registers 16 and up exist for zmm only, and code for the
 * baseline never holds anything there, so they need not be named as clobbered.
 * Both factors are zero: sums that grew to infinity or denormals would slow some CPUs down.
 */
/* clang-format off */
#define OP(i, r, n) i " %%" r "15, %%" r "14, %%" r #n "\n\t"
#define LOW(i, r) \
	OP(i, r, 0) OP(i, r, 1) OP(i, r, 2) OP(i, r, 3) OP(i, r, 4) OP(i, r, 5) \
	OP(i, r, 6) OP(i, r, 7) OP(i, r, 8) OP(i, r, 9) OP(i, r, 10) OP(i, r, 11)
#define HIGH(i, r) \
	OP(i, r, 16) OP(i, r, 17) OP(i, r, 18) OP(i, r, 19) OP(i, r, 20) OP(i, r, 21) \
	OP(i, r, 22) OP(i, r, 23) OP(i, r, 24) OP(i, r, 25) OP(i, r, 26) OP(i, r, 27)
#define LOOP(ops) \
	uint64_t n = PEAK_TURNS; \
	__asm__ volatile("vxorps %%xmm14, %%xmm14, %%xmm14\n\tvxorps %%xmm15, %%xmm15, %%xmm15\n\t" \
			 "1:\n\t" ops "dec %0\n\tjnz 1b\n\tvzeroupper" \
			 : "+r"(n) : \
			 : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", \
			   "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "cc")
/* clang-format on */

static void peak_avx512bf16(void *arg, uint32_t chunk, uint32_t thread)
{
	LOOP(LOW("vdpbf16ps", "zmm") HIGH("vdpbf16ps", "zmm"));
}

static void peak_avx512(void *arg, uint32_t chunk, uint32_t thread)
{
	LOOP(LOW("vfmadd231ps", "zmm") HIGH("vfmadd231ps", "zmm"));
}

static void peak_avx2(void *arg, uint32_t chunk, uint32_t thread)
{
	LOOP(LOW("vfmadd231ps", "ymm") LOW("vfmadd231ps", "ymm"));
}

static const struct {
	const char *path;
	wk_chunk_fn fn;
	double ops; /* of one instruction */
} peaks[] = {
	{"avx512bf16", peak_avx512bf16, 64},
	{"avx512", peak_avx512, 32},
	{"avx2", peak_avx2, 16},
};

double wk_probe_peak_of(struct wk_probe *p, const char *path)
{
	uint32_t chunks = PEAK_CHUNKS * p->n_threads;
	double start;

	for (size_t i = 0; i < sizeof(peaks) / sizeof(*peaks); i++) {
		if (strcmp(path, peaks[i].path))
			continue;
		start = wk_seconds();
		wk_pool_run(p->pool, peaks[i].fn, NULL, chunks);
		return 24.0 * PEAK_TURNS * chunks * peaks[i].ops / (wk_seconds() - start);
	}
	return -1;
}

/* --- memory --------------------------------------------------------------------------------------*/

/* A page ahead is where prefetching paid most; it is worth 5 % over the hardware's own. */
#define AHEAD 4096

static void read_piece(void *arg, uint32_t chunk, uint32_t thread)
{
	const struct wk_probe *p = arg;
	const char *at = p->buffer + chunk * PIECE, *end = at + PIECE;
	__m128i a = _mm_setzero_si128(), b = a, c = a, d = a;

	for (; at < end; at += 64) {
		_mm_prefetch(at + AHEAD, _MM_HINT_T0);
		a = _mm_or_si128(a, _mm_load_si128((const void *)at));
		b = _mm_or_si128(b, _mm_load_si128((const void *)(at + 16)));
		c = _mm_or_si128(c, _mm_load_si128((const void *)(at + 32)));
		d = _mm_or_si128(d, _mm_load_si128((const void *)(at + 48)));
	}
	a = _mm_or_si128(_mm_or_si128(a, b), _mm_or_si128(c, d));
	__asm__ volatile("" : : "x"(a));
}

double wk_probe_stream_of(struct wk_probe *p)
{
	double start = wk_seconds();

	wk_pool_run(p->pool, read_piece, p, (uint32_t)(p->bytes / PIECE));
	return (double)p->bytes / (wk_seconds() - start);
}

/* --- life ----------------------------------------------------------------------------------------*/

int wk_probe_new(uint32_t n_threads, size_t stream_bytes, struct wk_probe **ret)
{
	struct wk_probe *p = calloc(1, sizeof(*p));
	int err;

	if (!p)
		return -ENOMEM;
	p->n_threads = n_threads;
	p->bytes = stream_bytes / PIECE * PIECE;
	p->buffer = wk_cpu_alloc(p->bytes);
	err = p->buffer ? wk_pool_new(n_threads, false, &p->pool) : -ENOMEM;
	if (err) {
		wk_probe_free(p);
		return err;
	}
	/* Pages that were never written may all be one page of zeros. */
	memset(p->buffer, 1, p->bytes);
	*ret = p;
	return 0;
}

void wk_probe_free(struct wk_probe *p)
{
	if (!p)
		return;
	wk_pool_free(p->pool);
	wk_cpu_release(p->buffer, p->bytes);
	free(p);
}

double wk_probe_peak(uint32_t n_threads, const char *path)
{
	struct wk_probe *p;
	double rate;

	if (wk_probe_new(n_threads, PIECE, &p))
		return -1;
	rate = wk_probe_peak_of(p, path);
	wk_probe_free(p);
	return rate;
}

double wk_probe_stream(uint32_t n_threads, size_t bytes)
{
	struct wk_probe *p;
	double rate;

	if (wk_probe_new(n_threads, bytes, &p))
		return -1;
	rate = wk_probe_stream_of(p);
	wk_probe_free(p);
	return rate;
}
