/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_abi.c - the layout is the committed one.
 *
 * Every struct's size and every field's offset and size are printed and compared with abi.txt
 * beside this file. The fields of a struct must fill it without a gap, so none can be forgotten
 * here. After a wanted change (with a new major or minor): test_abi --dump > tests/shm/abi.txt
 */
#include "shm/wshm.h"
#include "shm/wshm_idx.h"
#include "shm/wshm_idx_abi.h"
#include "tests/tap.h"

static char text[16384];
static size_t used;
static size_t next_off;
static int gaps;

static void __attribute__((format(printf, 1, 2))) line(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	used += vsnprintf(text + used, sizeof(text) - used, fmt, ap);
	va_end(ap);
	if (used >= sizeof(text))
		bail_out("the dump is too long");
}

static void field(const char *name, size_t off, size_t bytes)
{
	gaps += off != next_off;
	next_off = off + bytes;
	line("  %5zu %5zu %s\n", off, bytes, name);
}

static void end_struct(size_t bytes)
{
	gaps += next_off != bytes;
}

#define STRUCT(s)                                       \
	do {                                            \
		next_off = 0;                           \
		line("%s %zu\n", #s, sizeof(struct s)); \
	} while (0)
#define FIELD(s, f) field(#f, offsetof(struct s, f), sizeof(((struct s *)0)->f))
#define END(s)	    end_struct(sizeof(struct s))
#define VALUE(v)    line("%s 0x%llx\n", #v, (unsigned long long)(v))

static void dump_header(void)
{
	STRUCT(wshm_section);
	FIELD(wshm_section, id);
	FIELD(wshm_section, entries);
	FIELD(wshm_section, off);
	FIELD(wshm_section, bytes);
	END(wshm_section);
	STRUCT(wshm_hdr);
	FIELD(wshm_hdr, magic);
	FIELD(wshm_hdr, major);
	FIELD(wshm_hdr, minor);
	FIELD(wshm_hdr, hdr_bytes);
	FIELD(wshm_hdr, total_bytes);
	FIELD(wshm_hdr, features);
	FIELD(wshm_hdr, session_id);
	FIELD(wshm_hdr, n_sections);
	FIELD(wshm_hdr, reserved0);
	FIELD(wshm_hdr, sections);
	FIELD(wshm_hdr, reserved);
	END(wshm_hdr);
}

static void dump_tx(void)
{
	STRUCT(wshm_tx_ctl);
	FIELD(wshm_tx_ctl, sq_tail);
	FIELD(wshm_tx_ctl, pad0);
	FIELD(wshm_tx_ctl, cq_head);
	FIELD(wshm_tx_ctl, pad1);
	FIELD(wshm_tx_ctl, any_waiters);
	FIELD(wshm_tx_ctl, bell_armed);
	FIELD(wshm_tx_ctl, pad2);
	FIELD(wshm_tx_ctl, reader_epoch);
	END(wshm_tx_ctl);
	STRUCT(wshm_req);
	FIELD(wshm_req, generation);
	FIELD(wshm_req, desc_bytes);
	FIELD(wshm_req, desc_off);
	FIELD(wshm_req, reserved);
	FIELD(wshm_req, cancel);
	FIELD(wshm_req, released);
	FIELD(wshm_req, waiters);
	FIELD(wshm_req, reserved1);
	END(wshm_req);
}

static void dump_rx(void)
{
	STRUCT(wshm_rx_ctl);
	FIELD(wshm_rx_ctl, sq_head);
	FIELD(wshm_rx_ctl, pad0);
	FIELD(wshm_rx_ctl, need_wake);
	FIELD(wshm_rx_ctl, pad1);
	FIELD(wshm_rx_ctl, cq_tail);
	FIELD(wshm_rx_ctl, pad2);
	FIELD(wshm_rx_ctl, engine_state);
	FIELD(wshm_rx_ctl, end_status);
	FIELD(wshm_rx_ctl, instance_id);
	FIELD(wshm_rx_ctl, pad3);
	END(wshm_rx_ctl);
	STRUCT(wshm_slot);
	FIELD(wshm_slot, generation);
	FIELD(wshm_slot, state);
	FIELD(wshm_slot, progress);
	FIELD(wshm_slot, status);
	FIELD(wshm_slot, detail);
	FIELD(wshm_slot, n_samples);
	FIELD(wshm_slot, prompt_count);
	FIELD(wshm_slot, reserved0);
	FIELD(wshm_slot, count);
	FIELD(wshm_slot, finish);
	FIELD(wshm_slot, reserved1);
	FIELD(wshm_slot, slab_off);
	FIELD(wshm_slot, slab_bytes);
	FIELD(wshm_slot, sample_bytes);
	FIELD(wshm_slot, logprob_off);
	FIELD(wshm_slot, prompt_logprob_off);
	FIELD(wshm_slot, logprob_bytes);
	FIELD(wshm_slot, prompt_logprob_bytes);
	FIELD(wshm_slot, max_tokens);
	FIELD(wshm_slot, prompt_tokens);
	FIELD(wshm_slot, cached_tokens);
	FIELD(wshm_slot, invocation);
	FIELD(wshm_slot, t_arrival_ns);
	FIELD(wshm_slot, t_start_ns);
	FIELD(wshm_slot, t_first_ns);
	FIELD(wshm_slot, t_end_ns);
	FIELD(wshm_slot, forward_ns);
	FIELD(wshm_slot, reserved3);
	FIELD(wshm_slot, seed);
	FIELD(wshm_slot, digest);
	FIELD(wshm_slot, deadline_ns);
	FIELD(wshm_slot, activation);
	FIELD(wshm_slot, adapter_instance);
	FIELD(wshm_slot, desc_bytes);
	FIELD(wshm_slot, restarts);
	FIELD(wshm_slot, resumed_tokens);
	FIELD(wshm_slot, reserved4);
	END(wshm_slot);
	STRUCT(wshm_logprob);
	FIELD(wshm_logprob, token);
	FIELD(wshm_logprob, logprob);
	END(wshm_logprob);
}

static void dump_idx(void)
{
	STRUCT(wshm_idx_ctl);
	FIELD(wshm_idx_ctl, table);
	FIELD(wshm_idx_ctl, engine);
	FIELD(wshm_idx_ctl, n_instances);
	FIELD(wshm_idx_ctl, pad0);
	FIELD(wshm_idx_ctl, root);
	FIELD(wshm_idx_ctl, secret);
	FIELD(wshm_idx_ctl, pad1);
	END(wshm_idx_ctl);
	STRUCT(wshm_idx_bucket);
	FIELD(wshm_idx_bucket, entry);
	END(wshm_idx_bucket);
	STRUCT(wshm_idx_instance);
	FIELD(wshm_idx_instance, version);
	FIELD(wshm_idx_instance, present);
	FIELD(wshm_idx_instance, words);
	FIELD(wshm_idx_instance, reserved);
	END(wshm_idx_instance);
	STRUCT(wshm_idx_tail);
	FIELD(wshm_idx_tail, version);
	FIELD(wshm_idx_tail, rows);
	FIELD(wshm_idx_tail, parent);
	FIELD(wshm_idx_tail, adapter);
	FIELD(wshm_idx_tail, unadapted);
	FIELD(wshm_idx_tail, next);
	FIELD(wshm_idx_tail, tokens);
	FIELD(wshm_idx_tail, reserved);
	END(wshm_idx_tail);
	STRUCT(wshm_instance);
	FIELD(wshm_instance, name);
	FIELD(wshm_instance, digest);
	FIELD(wshm_instance, activated);
	FIELD(wshm_instance, rank);
	FIELD(wshm_instance, offset);
	FIELD(wshm_instance, on_missing);
	FIELD(wshm_instance, n_invocation);
	FIELD(wshm_instance, invocation);
	FIELD(wshm_instance, reserved);
	END(wshm_instance);
}

static void dump_idx_values(void)
{
	VALUE(WSHM_MAGIC_IDX);
	VALUE(WSHM_SEC_INSTANCES);
	VALUE(WSHM_SEC_HEADS);
	VALUE(WSHM_SEC_TAILS);
	VALUE(WSHM_SEC_TABLES);
	VALUE(WSHM_MAX_INSTANCES);
	VALUE(WSHM_MAX_INVOCATION);
	VALUE(WSHM_INSTANCE_NAME);
	VALUE(WSHM_SECRET_BYTES);
	VALUE(WSHM_BLOCK_TOKENS);
	VALUE(WSHM_IDX_LOG2_MIN);
	VALUE(WSHM_IDX_LOG2_MAX);
	VALUE(WSHM_IDX_ENTRIES);
	VALUE(WSHM_IDX_HEADS);
	VALUE(WSHM_IDX_TAILS);
	VALUE(WSHM_IDX_TAIL_ROWS);
	VALUE(WSHM_IDX_OFF_CTL);
	VALUE(WSHM_IDX_OFF_INSTANCES);
	VALUE(WSHM_IDX_OFF_HEADS);
	VALUE(WSHM_IDX_OFF_TAILS);
	VALUE(WSHM_IDX_OFF_TABLES);
	VALUE(WSHM_IDX_BYTES);
	VALUE(WSHM_TIER_DEVICE);
	VALUE(WSHM_TIER_HOST);
	VALUE(WSHM_TIER_DISK);
	VALUE(WSHM_MISSING_ERROR);
	VALUE(WSHM_MISSING_BASE);
	VALUE(WSHM_MISSING_APPEND);
}

static void dump_values(void)
{
	VALUE(WSHM_MAJOR);
	VALUE(WSHM_MINOR);
	VALUE(WSHM_MAGIC_TX);
	VALUE(WSHM_MAGIC_RX);
	VALUE(WSHM_MAX_SLOTS);
	VALUE(WSHM_MAX_SAMPLES);
	VALUE(WSHM_MAX_DESC);
	VALUE(WSHM_MAX_LOGPROBS);
	VALUE(WSHM_MAX_ARENA);
	VALUE(WSHM_FEATURES);
	VALUE(WSHM_SEC_CTL);
	VALUE(WSHM_SEC_RING);
	VALUE(WSHM_SEC_TABLE);
	VALUE(WSHM_SEC_ARENA);
	VALUE(WSHM_ENGINE_STARTING);
	VALUE(WSHM_ENGINE_RUNNING);
	VALUE(WSHM_ENGINE_DRAINING);
	VALUE(WSHM_ENGINE_ENDED);
	VALUE(WSHM_ENGINE_ORPHANED);
	VALUE(WSHM_SLOT_FREE);
	VALUE(WSHM_SLOT_QUEUED);
	VALUE(WSHM_SLOT_RUNNING);
	VALUE(WSHM_SLOT_ENDED);
	VALUE(WSHM_OK);
	VALUE(WSHM_CANCELLED);
	VALUE(WSHM_DEADLINE);
	VALUE(WSHM_BAD_DESCRIPTOR);
	VALUE(WSHM_BAD_VALUE);
	VALUE(WSHM_BAD_TOKEN);
	VALUE(WSHM_TOO_LONG);
	VALUE(WSHM_TOO_BIG);
	VALUE(WSHM_NO_MODEL);
	VALUE(WSHM_NO_ADAPTER);
	VALUE(WSHM_QUOTA_REQUESTS);
	VALUE(WSHM_QUOTA_TOKENS);
	VALUE(WSHM_QUOTA_RATE);
	VALUE(WSHM_ENGINE_FAULT);
	VALUE(WSHM_NAN);
	VALUE(WSHM_SHUTDOWN);
	VALUE(WSHM_PROTOCOL);
	VALUE(WSHM_LOST);
	VALUE(WSHM_NO_INVOCATION);
	VALUE(WSHM_UNLOADED);
	VALUE(WSHM_FINISH_NONE);
	VALUE(WSHM_FINISH_EOS);
	VALUE(WSHM_FINISH_STOP_TOKEN);
	VALUE(WSHM_FINISH_STOP_SEQUENCE);
	VALUE(WSHM_FINISH_LENGTH);
}

static void compare(void)
{
	const char *root = getenv("WEFT_SRC");
	char path[4096], want[sizeof(text)];
	size_t n, at, start = 0;
	FILE *f;

	snprintf(path, sizeof(path), "%s/tests/shm/abi.txt", root ? root : ".");
	f = fopen(path, "r");
	if (!f)
		bail_out("cannot open tests/shm/abi.txt (run from the source folder, or set "
			 "WEFT_SRC)");
	n = fread(want, 1, sizeof(want) - 1, f);
	fclose(f);
	want[n] = '\0';
	for (at = 0; text[at] && text[at] == want[at]; at++)
		if (text[at] == '\n')
			start = at + 1;
	if (!ok(text[at] == want[at], "the layout is the committed one")) {
		diag("now:       %.*s", (int)strcspn(text + start, "\n"), text + start);
		diag("committed: %.*s", (int)strcspn(want + start, "\n"), want + start);
	}
}

int main(int argc, char **argv)
{
	dump_values();
	dump_header();
	dump_tx();
	dump_rx();
	dump_idx_values();
	dump_idx();
	if (argc > 1 && !strcmp(argv[1], "--dump")) {
		fputs(text, stdout);
		return 0;
	}
	is_int(gaps, 0, "every byte of every struct belongs to a named field");
	compare();
	return tap_done();
}
