/* SPDX-License-Identifier: Apache-2.0 */
/*
 * probe.h - what this machine can do, measured now: the limits that benchmarks are judged by.
 *
 * A probe holds compute threads and a buffer larger than the caches. Bandwidth of shared machines
 * swings, so a benchmark should take a probe before every repetition and look at the ratios of
 * the pairs. Each measurement takes about 20 ms.
 */
#ifndef WEFT_KERNELS_PROBE_H
#define WEFT_KERNELS_PROBE_H

#include <stddef.h>
#include <stdint.h>

#define WK_PROBE_STREAM_BYTES ((size_t)256 << 20) /* beyond any cache it may share */

struct wk_probe;

/* n_threads: the caller's included. 0 or -errno. */
int wk_probe_new(uint32_t n_threads, size_t stream_bytes, struct wk_probe **ret);
void wk_probe_free(struct wk_probe *probe); /* NULL allowed */

/* Operations (a multiplication and an addition are two) per second of all threads, from registers
 * alone, with the instruction of a path: "avx512bf16", "avx512", "avx2". Only ask for a path that
 * the CPU has. -1: no such path. */
double wk_probe_peak_of(struct wk_probe *probe, const char *path);
/* Bytes per second read by all threads from the buffer. */
double wk_probe_stream_of(struct wk_probe *probe);

/* The same at once, for a single look; -1 also without memory or threads. */
double wk_probe_peak(uint32_t n_threads, const char *path);
double wk_probe_stream(uint32_t n_threads, size_t bytes);

/* Seconds of CLOCK_MONOTONIC. */
double wk_seconds(void);

#endif
