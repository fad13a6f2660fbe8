/* SPDX-License-Identifier: Apache-2.0 */
/*
 * error.c - one-line errors, and status codes in words. Holds no state.
 */
#include "libclient/private.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

int wc_fail(struct weft_error *error, int code, const char *fmt, ...)
{
	va_list ap;

	if (error) {
		error->code = code;
		va_start(ap, fmt);
		vsnprintf(error->message, sizeof(error->message), fmt, ap);
		va_end(ap);
	}
	return code;
}

const char *weft_version(void)
{
	return WEFT_VERSION;
}

const char *weft_status_name(enum weft_status status)
{
	return status == WEFT_RUNNING ? "running" : wshm_status_name((uint32_t)status);
}

/* The option that a descriptor key stands for, as callers know it. */
static const char *key_name(uint32_t key)
{
	static const char *const names[] = {
		[WSHM_KEY_MODEL] = "model",
		[WSHM_KEY_ADAPTER] = "adapter",
		[WSHM_KEY_PROMPT] = "prompt",
		[WSHM_KEY_RESUME] = "resumed tokens",
		[WSHM_KEY_N] = "n",
		[WSHM_KEY_MAX_TOKENS] = "max_tokens",
		[WSHM_KEY_MIN_TOKENS] = "min_tokens",
		[WSHM_KEY_TEMPERATURE] = "temperature",
		[WSHM_KEY_TOP_K] = "top_k",
		[WSHM_KEY_TOP_P] = "top_p",
		[WSHM_KEY_MIN_P] = "min_p",
		[WSHM_KEY_REPETITION] = "repetition_penalty",
		[WSHM_KEY_PRESENCE] = "presence_penalty",
		[WSHM_KEY_FREQUENCY] = "frequency_penalty",
		[WSHM_KEY_SEED] = "seed",
		[WSHM_KEY_STOP_TOKENS] = "stop_tokens",
		[WSHM_KEY_STOP_SEQS] = "stop_sequences",
		[WSHM_KEY_BIAS] = "bias",
		[WSHM_KEY_IGNORE_EOS] = "ignore_eos",
		[WSHM_KEY_LOGPROBS] = "logprobs",
		[WSHM_KEY_PROMPT_LOGPROBS] = "prompt_logprobs",
		[WSHM_KEY_PRIORITY] = "priority",
		[WSHM_KEY_TIMEOUT_MS] = "timeout_ms",
		[WSHM_KEY_INSTANCE] = "the adapter's instance",
		[WSHM_KEY_NO_CACHE] = "no_cache",
	};

	if (key >= sizeof(names) / sizeof(*names) || !names[key])
		return "the request";
	return names[key];
}

int weft_status_text(const struct weft_result *result, char *buf, size_t bytes)
{
	uint32_t d = result->detail;

	switch (result->status) {
	case WEFT_RUNNING:
		return snprintf(buf, bytes, "the request is running");
	case WEFT_OK:
		return snprintf(buf, bytes, "the request is complete");
	case WEFT_CANCELLED:
		return snprintf(buf, bytes, "the request was cancelled");
	case WEFT_DEADLINE:
		return snprintf(buf, bytes, "the request's time limit passed before it ended");
	case WEFT_BAD_DESCRIPTOR:
		return snprintf(buf, bytes,
				"the engine could not read %s: libweft and weft-engine "
				"differ in version, or the request's memory was overwritten",
				key_name(d));
	case WEFT_BAD_VALUE:
		return snprintf(buf, bytes, "the value of %s is out of range", key_name(d));
	case WEFT_BAD_TOKEN:
		return snprintf(buf, bytes,
				"token %u of the prompt (counted from 0) is not in the "
				"model's vocabulary",
				d);
	case WEFT_TOO_LONG:
		return snprintf(buf, bytes,
				"the prompt's %u tokens and max_tokens exceed the model's %u "
				"positions: shorten the prompt, or lower max_tokens",
				result->prompt_tokens, d);
	case WEFT_TOO_BIG:
		return snprintf(buf, bytes,
				"the request can never fit (limit %u): lower max_tokens, "
				"n or logprobs, or raise the cache or the session's result_bytes",
				d);
	case WEFT_NO_MODEL:
		return snprintf(buf, bytes, "the engine does not serve that model");
	case WEFT_NO_ADAPTER:
		return snprintf(buf, bytes, "no adapter of that name is loaded");
	case WEFT_QUOTA_REQUESTS:
		return snprintf(buf, bytes,
				"the tenant's limit of %u requests at a time is reached: "
				"wait for one to end",
				d);
	case WEFT_QUOTA_TOKENS:
		return snprintf(buf, bytes,
				"the tenant's limit of %u waiting prompt tokens is "
				"reached: wait, or send shorter prompts",
				d);
	case WEFT_QUOTA_RATE:
		return snprintf(buf, bytes,
				"the tenant's limit of %u requests a second is reached: "
				"send them more slowly",
				d);
	case WEFT_ENGINE_FAULT:
		return snprintf(buf, bytes,
				"the engine failed while it ran this request; it was not "
				"tried again");
	case WEFT_NAN:
		return snprintf(buf, bytes,
				"the model produced values that are not numbers: check "
				"its weights");
	case WEFT_SHUTDOWN:
		return snprintf(buf, bytes, "the daemon shut down before the request ended");
	case WEFT_PROTOCOL:
		return snprintf(buf, bytes,
				"the daemon ended the session for breaking the protocol");
	case WEFT_LOST:
		return snprintf(buf, bytes,
				"the daemon went away and the request was not submitted "
				"again");
	case WEFT_NO_INVOCATION:
		return snprintf(buf, bytes,
				"the prompt does not contain the adapter's invocation tokens");
	case WEFT_UNLOADED:
		return snprintf(buf, bytes, "the adapter was unloaded while the request ran");
	}
	return snprintf(buf, bytes, "unknown status %d", (int)result->status);
}
