/* SPDX-License-Identifier: Apache-2.0 */
/* names.c - what ends requests and answers, in a word, for programs and administrators alike. */
#include "shm/wshm.h"

static const char *const statuses[WSHM_N_STATUS] = {
	[WSHM_OK] = "ok",
	[WSHM_CANCELLED] = "cancelled",
	[WSHM_DEADLINE] = "deadline",
	[WSHM_BAD_DESCRIPTOR] = "bad-descriptor",
	[WSHM_BAD_VALUE] = "bad-value",
	[WSHM_BAD_TOKEN] = "bad-token",
	[WSHM_TOO_LONG] = "too-long",
	[WSHM_TOO_BIG] = "too-big",
	[WSHM_NO_MODEL] = "no-model",
	[WSHM_NO_ADAPTER] = "no-adapter",
	[WSHM_QUOTA_REQUESTS] = "quota-requests",
	[WSHM_QUOTA_TOKENS] = "quota-tokens",
	[WSHM_QUOTA_RATE] = "quota-rate",
	[WSHM_ENGINE_FAULT] = "engine-fault",
	[WSHM_NAN] = "nan",
	[WSHM_SHUTDOWN] = "shutdown",
	[WSHM_PROTOCOL] = "protocol",
	[WSHM_LOST] = "lost",
	[WSHM_NO_INVOCATION] = "no-invocation",
	[WSHM_UNLOADED] = "unloaded",
};

static const char *const finishes[WSHM_N_FINISH] = {
	[WSHM_FINISH_NONE] = "none",
	[WSHM_FINISH_EOS] = "eos",
	[WSHM_FINISH_STOP_TOKEN] = "stop-token",
	[WSHM_FINISH_STOP_SEQUENCE] = "stop-sequence",
	[WSHM_FINISH_LENGTH] = "length",
};

const char *wshm_status_name(uint32_t status)
{
	return status < WSHM_N_STATUS ? statuses[status] : "unknown";
}

const char *wshm_finish_name(uint32_t finish)
{
	return finish < WSHM_N_FINISH ? finishes[finish] : "unknown";
}
