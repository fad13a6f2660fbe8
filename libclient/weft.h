/* SPDX-License-Identifier: Apache-2.0 */
/*
 * weft.h - talk to weft: tokens in, tokens out, through shared memory.
 *
 * A `struct weft` is a session with the daemon: two shared regions and a control socket. A
 * `struct weft_request` is one prompt being generated from. Tokens appear in read-only memory as
 * the engine makes them; weft_tokens() returns a pointer to them, nothing is copied.
 *
 * Threads: every function may be called from any thread at any time; one request should have one
 * waiting thread. After fork() the child has no session: every call on it returns -EOWNERDEAD and
 * the parent's session is untouched (open a new one in the child).
 *
 * Errors: functions return >= 0, or a negative errno. Control calls (open, submit, models) take a
 * last, nullable struct weft_error that is written on failure only, with one line of text.
 *
 * Engine restarts are invisible. If the daemon itself goes away, libweft reconnects and submits
 * again from the tokens already delivered, unless WEFT_NO_RESUBMIT is set.
 */
#ifndef WEFT_H
#define WEFT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define WEFT_API __attribute__((visibility("default")))
#else
#define WEFT_API
#endif

struct weft;
struct weft_request;

#define WEFT_MAX_LOGPROBS 20
#define WEFT_MAX_SAMPLES  16

struct weft_error {
	int code;	   /* negative errno */
	char message[256]; /* what was being done, to what, why it failed, what to do */
};

/* --- session --------------------------------------------------------------------------------------*/

struct weft_open_options {
	size_t size;		/* sizeof this struct */
	const char *socket;	/* NULL: $WEFT_SOCKET, else /run/weft/weftd.sock */
	const char *model;	/* NULL: the daemon's only model */
	uint32_t slots;		/* concurrent requests wanted; 0: default 64 */
	uint64_t prompt_bytes;	/* room for prompts in flight; 0: default */
	uint64_t result_bytes;	/* room for results not yet freed; 0: default */
	uint32_t wait_ready_ms; /* wait so long for the daemon's answer and the model's loading; 0:
				 * 30 s, and 120 s in all */
	uint32_t reconnect_ms;	/* try so long to reach a daemon that went away; 0: 60 s */
	uint32_t flags;		/* WEFT_POLL_ALWAYS */
};

#define WEFT_POLL_ALWAYS 1u /* waiting spins; for dedicated cores. Default: adaptive */

/* Options of all defaults: `struct weft_open_options o = WEFT_OPEN_OPTIONS_INIT;` */
#define WEFT_OPEN_OPTIONS_INIT                                                 \
	{                                                                      \
		sizeof(struct weft_open_options), NULL, NULL, 0, 0, 0, 0, 0, 0 \
	}

WEFT_API int weft_open(struct weft **ret, const struct weft_open_options *options,
		       struct weft_error *error);
/* Cancels and frees what is left; pointers from weft_tokens() end here. NULL allowed. */
WEFT_API void weft_close(struct weft *w);

struct weft_model {
	char name[64];
	char type[32];
	uint32_t vocab;
	uint32_t max_positions;
	uint32_t n_eos;
	uint32_t eos[16];
	uint32_t bos; /* UINT32_MAX: none */
	uint32_t ready;
	uint32_t failed; /* it cannot be served; weft_open() says why */
	uint64_t weight_bytes;
};

/* The session's own model. */
WEFT_API int weft_model_info(struct weft *w, struct weft_model *ret);
/* All models of a daemon: the number of them; up to max are written. No session needed. */
WEFT_API int weft_models(const char *socket, struct weft_model *ret, uint32_t max,
			 struct weft_error *error);

/*
 * A text file of the session's model, as the daemon read it when it loaded the model: "tokenizer.json",
 * "tokenizer_config.json", "special_tokens_map.json", "generation_config.json" or
 * "chat_template.jinja". The bytes are read-only and stay until weft_close(); a zero follows them that
 * is not counted. The daemon is asked once in a session, and waited for if it is away. 0; -ENOENT: the model has no such file;
 * -EOPNOTSUPP: a daemon that does not hand files out; -ECONNRESET, -ETIMEDOUT, -EOWNERDEAD.
 */
WEFT_API int weft_model_file(struct weft *w, const char *name, const char **ret, size_t *ret_bytes,
			     struct weft_error *error);

/* --- requests -------------------------------------------------------------------------------------*/

struct weft_bias {
	uint32_t token;
	float value; /* added to the token's logit; -INFINITY forbids it */
};

struct weft_sequence {
	const uint32_t *tokens;
	uint32_t n_tokens;
};

#define WEFT_NO_LOGPROBS UINT32_MAX

struct weft_submit_options {
	size_t size;		/* sizeof this struct */
	const uint32_t *prompt; /* copied during the call */
	uint32_t n_prompt;
	const char *adapter;	  /* NULL: base model */
	uint32_t n;		  /* answers, sharing the prompt's KV; default 1 */
	uint32_t max_tokens;	  /* of each answer; default 256 */
	uint32_t min_tokens;	  /* no end before so many */
	float temperature;	  /* default 0: greedy */
	uint32_t top_k;		  /* 0: off */
	float top_p;		  /* default 1: off */
	float min_p;		  /* 0: off */
	float repetition_penalty; /* default 1: off */
	float presence_penalty;
	float frequency_penalty;
	uint64_t seed;		     /* used if has_seed */
	int has_seed;		     /* 0: the engine draws one */
	const uint32_t *stop_tokens; /* an answer ends with any of these... */
	uint32_t n_stop_tokens;
	const struct weft_sequence *stop_sequences; /* ...or these; what ended it stays in it */
	uint32_t n_stop_sequences;
	const struct weft_bias *bias;
	uint32_t n_bias;
	int ignore_eos;
	uint32_t logprobs;	  /* default WEFT_NO_LOGPROBS; k: with k alternatives, 0..20 */
	uint32_t prompt_logprobs; /* likewise, for the prompt */
	int priority;		  /* -100..100, higher first; default 0 */
	uint32_t timeout_ms;	  /* 0: none */
	uint32_t flags;		  /* WEFT_NO_RESUBMIT, WEFT_NO_CACHE */
};

#define WEFT_NO_RESUBMIT 1u /* a daemon restart ends the request with WEFT_LOST */
#define WEFT_NO_CACHE	 2u /* neither take KV from the cache nor leave any there */

/* Set every field to its default. */
WEFT_API void weft_submit_options_init(struct weft_submit_options *options);

/*
 * Submit a request. 0 and *ret; -EAGAIN when all slots or all prompt room is in use (free a
 * request first), -EINVAL for options out of range, -ECONNRESET when the session is gone. Refusals
 * by the engine (quota, model limits) arrive as the request's status.
 */
WEFT_API int weft_submit(struct weft *w, struct weft_request **ret,
			 const struct weft_submit_options *options, struct weft_error *error);

/* The tokens of answer `sample` so far: valid and growing until weft_free() (after a daemon restart
 * the next call may return another pointer; the old one stays readable). No system call. */
WEFT_API const uint32_t *weft_tokens(struct weft_request *r, uint32_t sample, uint32_t *ret_count);

/*
 * Wait until answer `sample` has more than `have` tokens or has ended. Returns the number of tokens
 * now there (== have: no more will come), -ETIMEDOUT, -EINTR or another -errno. When the last answer
 * of a request has ended, weft_result() says so. timeout_ms < 0: no limit.
 */
WEFT_API int64_t weft_wait(struct weft_request *r, uint32_t sample, uint32_t have, int timeout_ms);

/*
 * Wait until any request of the session has news. Fills up to max handles, returns how many, or
 * -ETIMEDOUT. A request is listed once per piece of news; its counts say what the news is.
 */
WEFT_API int weft_wait_any(struct weft *w, struct weft_request **ret, uint32_t max, int timeout_ms);

/* For event loops: a descriptor that is readable when weft_wait_any() may have news. Call
 * weft_event_arm() before each poll(); it returns 1 if there is news already. */
WEFT_API int weft_event_fd(struct weft *w);
WEFT_API int weft_event_arm(struct weft *w);

/* Ask the engine to stop; the request ends soon with WEFT_CANCELLED. */
WEFT_API int weft_cancel(struct weft_request *r);
/* Give the request back, cancelling it if need be. NULL allowed. */
WEFT_API void weft_free(struct weft_request *r);

enum weft_status {
	WEFT_RUNNING = -1,
	WEFT_OK = 0,
	WEFT_CANCELLED = 1,
	WEFT_DEADLINE = 2,
	WEFT_BAD_DESCRIPTOR = 3,
	WEFT_BAD_VALUE = 4,
	WEFT_BAD_TOKEN = 5,
	WEFT_TOO_LONG = 6,
	WEFT_TOO_BIG = 7,
	WEFT_NO_MODEL = 8,
	WEFT_NO_ADAPTER = 9,
	WEFT_QUOTA_REQUESTS = 10,
	WEFT_QUOTA_TOKENS = 11,
	WEFT_QUOTA_RATE = 12,
	WEFT_ENGINE_FAULT = 13,
	WEFT_NAN = 14,
	WEFT_SHUTDOWN = 15,
	WEFT_PROTOCOL = 16,
	WEFT_LOST = 17,
	WEFT_NO_INVOCATION = 18,
	WEFT_UNLOADED = 19
};

/* What became of an activated adapter's invocation. */
enum weft_invocation {
	WEFT_INVOCATION_NONE = 0, /* base model, or a plain LoRA */
	WEFT_INVOCATION_FOUND = 1,
	WEFT_INVOCATION_BASE = 2,     /* not in the prompt: the base model answered */
	WEFT_INVOCATION_APPENDED = 3, /* not in the prompt: the engine appended it */
	WEFT_INVOCATION_MISSING = 4   /* weft_probe() only: a request would be refused */
};

enum weft_finish {
	WEFT_FINISH_NONE = 0,
	WEFT_FINISH_EOS = 1,
	WEFT_FINISH_STOP_TOKEN = 2,
	WEFT_FINISH_STOP_SEQUENCE = 3,
	WEFT_FINISH_LENGTH = 4
};

struct weft_result {
	size_t size; /* set by the caller: sizeof this struct */
	enum weft_status status;
	uint32_t detail; /* see weft_status_text() */
	uint32_t n;
	enum weft_finish finish[WEFT_MAX_SAMPLES];
	uint32_t prompt_tokens;
	uint32_t cached_tokens;
	uint64_t seed;
	uint64_t arrival_ns, start_ns, first_token_ns, end_ns; /* CLOCK_MONOTONIC; 0: not yet */
	uint64_t forward_ns;  /* in forward passes up to the first token */
	uint32_t resubmitted; /* times that a daemon restart was bridged */
	enum weft_invocation invocation;
	uint32_t activation; /* first prompt position that the adapter changes; UINT32_MAX: none */
};

/* Status, finish reasons, counts and stage times so far. A program that only ever asks this notices too
 * that the daemon is gone: when there has been nothing new for a second, the session is looked after. */
WEFT_API int weft_result(struct weft_request *r, struct weft_result *ret);
/* One line for people: "the prompt and max_tokens exceed the model's 4096 positions". */
WEFT_API int weft_status_text(const struct weft_result *result, char *buf, size_t bytes);
WEFT_API const char *weft_status_name(enum weft_status status);

struct weft_logprob {
	uint32_t token;
	float logprob;
};

/* Log-probabilities of token `index` of an answer: the token's own entry first, then the asked-for
 * alternatives. Returns the number of entries, *ret points to them in place; -ENOENT if not yet
 * there or not asked for. */
WEFT_API int weft_logprobs(struct weft_request *r, uint32_t sample, uint32_t index,
			   const struct weft_logprob **ret);
/* The same for prompt positions (position 0 has none: -ENOENT). */
WEFT_API int weft_prompt_logprobs(struct weft_request *r, uint32_t index,
				  const struct weft_logprob **ret);

/* --- adapters and the cache --------------------------------------------------------------------------*/

#define WEFT_MAX_INVOCATION 64

struct weft_adapter {
	char name[64];
	uint64_t instance; /* what it is, whatever its name: changes with weights and settings */
	int activated;	   /* aLoRA: changes nothing before its invocation */
	uint32_t rank;	   /* the largest */
	int activation_offset;
	int on_missing; /* 0 error, 1 base model, 2 append: a prompt without the invocation */
	uint32_t n_invocation;
	uint32_t invocation[WEFT_MAX_INVOCATION];
};

/* The adapters that are loaded now: the number of them; up to max are written. No system call. */
WEFT_API int weft_adapters(struct weft *w, struct weft_adapter *ret, uint32_t max);

struct weft_probe {
	size_t size;		/* set by the caller: sizeof this struct */
	uint32_t cached_tokens; /* of the prompt as given: what a request now would find at least */
	uint32_t device_tokens, host_tokens, disk_tokens; /* where they are */
	uint32_t activation; /* first prompt position that the adapter changes; UINT32_MAX: none */
	enum weft_invocation invocation;
};

/*
 * How much of a prompt is cached for a model (adapter NULL) or an adapter. Answered from shared
 * memory, without the daemon and without a system call; a hint: it may be outdated when a request
 * arrives. 0; -ENOENT: no such adapter; -EAGAIN: no engine has published an index yet; -ERANGE: a
 * token is not in the model's vocabulary, -E2BIG: there are more than it has positions (a request would
 * be refused); -ECONNRESET, -EOWNERDEAD. If the invocation is missing, the answer is for what the engine would
 * do: the base model's, or the prompt's with the invocation appended; or
 * WEFT_INVOCATION_MISSING and nothing.
 */
WEFT_API int weft_probe(struct weft *w, const char *adapter, const uint32_t *prompt,
			uint32_t n_prompt, struct weft_probe *ret);

WEFT_API const char *weft_version(void);

#ifdef __cplusplus
}
#endif

#endif
