/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fake_daemon.h - a daemon and an engine in two threads of the test, for what a real one cannot be
 * made to do on demand: stall at a token, refuse, send bad regions, vanish between two tokens.
 *
 * It uses the real regions and the real engine end of the rings. Its "model" is a function of
 * prompt, sample and position, fake_token(), so the right answer to every request is known. Its
 * indexes hold what the test puts there.
 */
#ifndef WEFT_TESTS_FAKE_DAEMON_H
#define WEFT_TESTS_FAKE_DAEMON_H

#include "shm/wshm.h"
#include "shm/wshm_idx.h"

#include <stdatomic.h>
#include <stdbool.h>

#define FAKE_VOCAB 32000u
#define FAKE_SEED  UINT64_C(0x5eed) /* what the engine draws when the client gives none */

struct fake;

enum fake_fault {
	FAKE_OK,
	FAKE_REFUSE,   /* WCTL_REFUSED with a text */
	FAKE_NO_SEALS, /* regions of the right size, not sealed */
	FAKE_SHORT_RX, /* rx smaller than agreed */
	FAKE_FEW_FDS,
	FAKE_WRONG_MAJOR,
	FAKE_GARBAGE,	  /* a message of an unknown type */
	FAKE_SILENT,	  /* never answers the hello */
	FAKE_NEVER_READY, /* welcome, but the engine stays STARTING */
	FAKE_BAD_INDEX,	  /* an index that is not sealed */
};

struct fake_options {
	const char *path;
	enum fake_fault fault;
	uint32_t slots;				 /* 0: 64, or what the client asks for */
	uint64_t tx_arena_bytes, rx_arena_bytes; /* 0: 1 MiB, 4 MiB */
	int late_index; /* 1: the welcome's index is nobody's, the true one comes before the engine runs;
			 * 2: when the client asks for the models, which are not known before */
	int files_fd; /* borrowed; sealed text files of its model to be handed out; 0: none */
};

/* What the tests turn and read while it runs. */
struct fake_controls {
	_Atomic uint32_t stall_at; /* no request gets more tokens than this */
	_Atomic uint32_t admit;	   /* 0: submissions stay in the ring */
	_Atomic uint32_t gap_us;   /* between steps */
	_Atomic uint32_t reclaim;  /* 0: released slots are not taken back */
	_Atomic uint32_t admitted, complaints, wakes;
	_Atomic uint32_t busy;	      /* 1: the engine never says that it sleeps */
	_Atomic uint32_t new_index;   /* set to 1: an open session gets another, empty; then 0 */
	_Atomic uint32_t bye;	      /* set to 1: sends BYE (protocol) to the session */
	_Atomic uint32_t loading;     /* 1: the engine of an open session loads again, until 0 */
	_Atomic uint32_t loads;	      /* 1 while it does */
	_Atomic uint32_t files_asked; /* WCTL_FILES received */
	_Atomic uint32_t hold_files;  /* 1: they are answered once it is 0 again */
	_Atomic uint32_t hellos;      /* received */
	_Atomic uint32_t hold_hellos; /* 1: they are answered once it is 0 again */
	/* what the slots of requests admitted from now on say */
	_Atomic uint32_t cached_tokens, invocation;
	_Atomic uint64_t activation, adapter_instance; /* activation UINT64_MAX from the start */
};

struct fake *fake_start(const struct fake_options *o);
struct fake_controls *fake_controls_of(struct fake *f);
/* As kill -9 of daemon and engine would look to a client. */
void fake_kill(struct fake *f);
/* The descriptor admitted last (valid after `admitted` has counted it). */
struct wshm_desc fake_last_desc(struct fake *f);
/* The n tokens of resumed sample 0 of that descriptor, as fetched. */
uint32_t fake_last_resume(struct fake *f, uint32_t *tokens, uint32_t max);

/* The secrets and roots of its two indexes. */
extern const uint8_t fake_secret[2][WSHM_SECRET_BYTES];
extern const struct wshm_root fake_root;
/* The writer of its domain's index (0) or of the public one (1); for one thread of the test. */
struct wshm_idx_writer *fake_index(struct fake *f, int is_public);

uint32_t fake_token(const uint32_t *prompt, uint32_t n_prompt, uint32_t sample, uint32_t position);
/* A path for a socket, in a temporary directory that is removed at exit. */
const char *fake_path(void);

#endif
