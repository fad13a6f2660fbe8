/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config.h - what weftd.conf says, as plain data (man/weftd.conf.5 documents the file).
 *
 * A configuration is read whole and checked whole before any of it is used: unknown sections and
 * keys, duplicates, values out of range, uids that two tenants claim are all refused, each with
 * file and line. It holds no pointers, so it can be copied and compared.
 */
#ifndef WEFT_SUPERVISOR_CONFIG_H
#define WEFT_SUPERVISOR_CONFIG_H

#include "shm/wshm_control.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#define CONFIG_MAX_TENANTS  64u
#define CONFIG_MAX_ADAPTERS 256u
#define CONFIG_MAX_RANGES   32u	 /* of uids, and of gids, of one tenant */
#define CONFIG_TEXT_BYTES   200u /* inih's line; a longer line is refused */
#define CONFIG_DEFAULT	    "/etc/weft/weftd.conf"
#define RUNTIME_DIR_DEFAULT "/run/weft"
#define STATE_DIR_DEFAULT   "/var/lib/weft" /* for that runtime directory */

struct config_origin {
	char file[CONFIG_TEXT_BYTES];
	int line;
};

struct config_daemon {
	char runtime_dir[80]; /* sun_path has 108 bytes */
	uint32_t socket_mode;
	uint32_t drain_seconds;
	uint32_t hello_seconds;
	uint32_t load_seconds; /* without READY or progress */
	uint32_t step_seconds; /* for a step that states no budget of its own */
	uint32_t max_sessions;
	uint64_t max_region_bytes;
	uint32_t max_adapters;				/* loaded at once, in all engines */
	uint64_t max_adapter_bytes, max_adapters_bytes; /* of one's weights; of all files */
	char engine[CONFIG_TEXT_BYTES]; /* "": found beside weftd or in libexecdir */
	char engine_user[33];
	char admin_group[33];
	char state_dir[CONFIG_TEXT_BYTES]; /* "": follows from the runtime directory */
};

struct config_model {
	char name[WCTL_NAME_BYTES];
	char path[CONFIG_TEXT_BYTES];
	char deterministic[16], dummy_weights[16];
	char backend[16]; /* "": the engine's default; so for all that follow, 0 */
	char poll[16];
	uint32_t threads;
	uint32_t max_batch_tokens;
	uint32_t max_seqs;
	uint32_t prefill_chunk;
	uint64_t kv_bytes;
};

struct config_adapter {
	char name[WCTL_NAME_BYTES];
	char model[WCTL_NAME_BYTES]; /* once read, never "" */
	char path[CONFIG_TEXT_BYTES];
	int32_t activation_offset;
	uint32_t on_missing; /* enum wshm_missing */
};

struct config_range {
	uint32_t first, last; /* inclusive */
};

struct config_ranges {
	uint32_t n;
	struct config_range range[CONFIG_MAX_RANGES];
};

struct config_tenant {
	char name[WCTL_NAME_BYTES];
	struct config_ranges uids, gids;
	bool is_default;
	uint32_t max_sessions;
	uint64_t max_region_bytes; /* of each uid */
	struct wlink_quota quota;
};

struct config {
	struct config_daemon daemon;
	uint32_t n_models;
	struct config_model models[WCTL_MAX_MODELS];
	uint32_t n_adapters;
	struct config_adapter adapters[CONFIG_MAX_ADAPTERS];
	uint32_t n_tenants; /* at least one: without a section, `default` takes everybody */
	struct config_tenant tenants[CONFIG_MAX_TENANTS];
};

/* All that is wrong, a line each: FILE:LINE: text. */
struct config_report {
	uint32_t errors;
	size_t bytes;
	char text[8192];
};

/*
 * Read path and conf.d/<any>.conf beside it, in the order of their names. 0 and *ret filled; or
 * -EINVAL with *ret untouched and everything that was found in *report; -ENOMEM.
 */
int config_load(struct config *ret, const char *path, struct config_report *report);

/*
 * Are the folders and files of its models and adapters there, and can the calling user read them? A line
 * for each fault; the number of them.
 */
uint32_t config_look(const struct config *c, FILE *to);

/*
 * The tenant of a peer: by uid first, then by group, then the default. Its index in tenants, or
 * -ENOENT.
 */
int config_tenant_of(const struct config *c, uid_t uid, const gid_t *gids, uint32_t n_gids);

/* --- values, used by the file's tables and by the command line ------------------------------------*/

/* Whole decimal number within min..max. 0 or -EINVAL. */
int config_u64(const char *text, uint64_t min, uint64_t max, uint64_t *ret);
/* The same, with an optional suffix K, M, G or T (powers of 1024). */
int config_bytes(const char *text, uint64_t min, uint64_t max, uint64_t *ret);
/* Whole decimal number with an optional sign, within -limit..limit. */
int config_i32(const char *text, int32_t limit, int32_t *ret);
/* Is it what the name of a model, tenant or adapter may be? */
bool config_name_ok(const char *s);
/* "error", "base", "append" to enum wshm_missing, and back. -EINVAL. */
int config_on_missing(const char *text, uint32_t *ret);
const char *config_on_missing_name(uint32_t on_missing);
#define CONFIG_MAX_OFFSET 65536 /* of an activation, either way */
/*
 * A list of ids, ranges (1000-1999) and names, separated by commas; `groups` chooses whose names.
 * 0, -EINVAL malformed, -ENOENT a name that is not known, -E2BIG too many.
 */
int config_ranges(const char *text, bool groups, struct config_ranges *ret);

#endif
