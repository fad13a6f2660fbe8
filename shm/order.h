/* SPDX-License-Identifier: Apache-2.0 */
/*
 * order.h - the memory-order primitives of the shared regions, and the only place that names them.
 *
 * Every use of an acquire, release or sequentially consistent primitive carries a label in a
 * comment and names its partner (scripts/check-labels.py fails on one without). There are no
 * fences: the handshakes use sequentially consistent operations instead, because two such
 * store-then-load pairs are ordered by the language itself, and because thread sanitizers see
 * operations but not fences. On x86-64 a seq load is a plain load and a seq store an xchg.
 *
 *   ord_load           no order; also what makes a fetch a single load
 *   ord_load_acquire   reads what another side released
 *   ord_load_seq       the load of a store-then-load handshake (acquire as well)
 *   ord_store          no order
 *   ord_store_release  publishes everything written before it
 *   ord_store_seq      the store of a store-then-load handshake (release as well)
 *   ord_add            no order, read-modify-write
 *   ord_add_seq        as ord_store_seq, for words with several writing threads
 *   ord_expect_read    a line that will be read soon; no order, no effect but time
 *   ord_expect_write   a line that will be written soon, likewise
 *
 * The last two make transfers of lines between cores overlap. They matter because each ordered
 * store waits for every store before it, and what follows waits for it.
 */
#ifndef WEFT_SHM_ORDER_H
#define WEFT_SHM_ORDER_H

#include <stdatomic.h>

#define ord_load(p)		atomic_load_explicit(p, memory_order_relaxed)
#define ord_load_acquire(p)	atomic_load_explicit(p, memory_order_acquire)
#define ord_load_seq(p)		atomic_load_explicit(p, memory_order_seq_cst)
#define ord_store(p, v)		atomic_store_explicit(p, v, memory_order_relaxed)
#define ord_store_release(p, v) atomic_store_explicit(p, v, memory_order_release)
#define ord_store_seq(p, v)	atomic_store_explicit(p, v, memory_order_seq_cst)
#define ord_add(p, v)		atomic_fetch_add_explicit(p, v, memory_order_relaxed)
#define ord_add_seq(p, v)	atomic_fetch_add_explicit(p, v, memory_order_seq_cst)

#define ord_expect_read(p) __builtin_prefetch((const void *)(p), 0)
#if defined(__x86_64__)
/* By hand: for the baseline instruction set, compilers turn a write prefetch into a read one, though
 * every x86-64 takes prefetchw (as nothing, if it is old). */
#define ord_expect_write(p) __asm__ volatile("prefetchw %0" : : "m"(*(const char *)(p)))
#else
#define ord_expect_write(p) __builtin_prefetch((const void *)(p), 1)
#endif

#endif
