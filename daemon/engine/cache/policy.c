/* SPDX-License-Identifier: Apache-2.0 */
/*
 * policy.c - what a node is worth. Least recently used goes first; a sequence goes from its end,
 * because only leaves go and a parent was used whenever its child was.
 */
#include "daemon/engine/cache/cache.h"

static double lru_value(const struct cache_facts *f)
{
	return (double)f->last_use;
}

const struct cache_policy cache_policy_lru = {.name = "lru", .value = lru_value};
