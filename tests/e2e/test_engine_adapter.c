/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_engine_adapter.c - adapters through the running engine: all of one model's at once give the
 * tokens that peft gave, whatever is in the cache of others; names, instances, invocations that
 * are missing; unloading while in use; another content under an old name; leaving the pool and
 * coming back; a restart in the middle.
 */
#include "tests/e2e/engine_harness.h"
#include "tests/e2e/engine_oracle.h"
#include "tests/tap.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define N_ADAPTERS 6

static const char *const names[N_ADAPTERS] = {"llama-all",   "llama-alora",    "llama-qv",
					      "llama-regex", "llama-patterns", "llama-rslora"};
static struct engine_oracle oracle[N_ADAPTERS], base;
static struct wlink_adapter_reply loaded[N_ADAPTERS];

static void load_all(struct eh *h)
{
	uint32_t good = 0;

	for (uint32_t i = 0; i < N_ADAPTERS; i++)
		good += !eh_adapter_load(h, eh_adapter_dir(names[i]), names[i], 0,
					 WSHM_MISSING_ERROR, &loaded[i]);
	is_int(good, N_ADAPTERS, "all adapters of the model load");
}

/* Prompt k of an oracle with an adapter (NULL: none). */
#define POSITIONS 256u /* of the fixture's model */

static void submit_for(struct eh_session *s, const char *adapter, const struct engine_oracle *o,
		       uint32_t k, uint32_t max_tokens, struct eh_req *ret)
{
	struct wshm_desc d;

	eh_desc(&d);
	d.max_tokens = max_tokens;
	if (adapter)
		snprintf(d.adapter, sizeof(d.adapter), "%s", adapter);
	eh_submit(s, &d, o->prompt[k], o->n_prompt[k], NULL, ret);
}

static void submit(struct eh_session *s, const char *adapter, const struct engine_oracle *o,
		   uint32_t k, struct eh_req *ret)
{
	submit_for(s, adapter, o, k, o->n_greedy[k], ret);
}

/* Did it end well, with so many tokens, of which the first are the oracle's? */
static bool goes_on_from(struct eh_req *r, const struct engine_oracle *o, uint32_t k,
			 uint32_t max_tokens)
{
	bool good = eh_wait(r) && eh_status(r) == WSHM_OK && eh_count(r, 0) == max_tokens &&
		    !memcmp(eh_tokens(r, 0), o->greedy[k], o->n_greedy[k] * sizeof(uint32_t));

	if (!good)
		printf("# prompt %u: status %u, %u tokens\n", k, eh_status(r), eh_count(r, 0));
	return good;
}

static bool as_expected(struct eh_req *r, const struct engine_oracle *o, uint32_t k)
{
	return goes_on_from(r, o, k, o->n_greedy[k]);
}

/* --- peft's tokens -------------------------------------------------------------------------------*/

/* Slots of requests in flight at once. */
struct flight {
	struct eh_req r[64];
	uint32_t adapter[64], prompt[64], n;
};

static void all_at_once(struct eh_session *s, const char *what)
{
	struct flight f = {.n = 0};
	uint32_t good = 0, places = 0;

	for (uint32_t i = 0; i < N_ADAPTERS; i++)
		for (uint32_t k = 0; k < oracle[i].n; k++) {
			if (oracle[i].activation[k] < 0)
				continue;
			f.adapter[f.n] = i;
			f.prompt[f.n] = k;
			submit(s, names[i], &oracle[i], k, &f.r[f.n++]);
		}
	for (uint32_t j = 0; j < f.n; j++) {
		uint32_t i = f.adapter[j], k = f.prompt[j];
		const struct wshm_slot *w = eh_slot(&f.r[j]);
		bool activated = loaded[i].instance.activated;

		good += as_expected(&f.r[j], &oracle[i], k);
		places +=
			w->activation == (uint64_t)oracle[i].activation[k] &&
			w->adapter_instance == loaded[i].instance.digest[0] &&
			w->invocation == (activated ? WSHM_INVOCATION_FOUND : WSHM_INVOCATION_NONE);
		eh_release(&f.r[j]);
	}
	is_int(good, f.n, "%s: every request has peft's tokens", what);
	is_int(places, f.n, "%s: and its slot says which adapter, and from where", what);
}

/* Every prompt with every other adapter and with none, so that their KV is there to be mistaken for
 * one's own; then as it should be. */
static void crosswise(struct eh_session *s)
{
	uint32_t good = 0, n = 0, right = 0;
	struct eh_req r;

	for (uint32_t i = 0; i < N_ADAPTERS; i++) {
		for (uint32_t j = 0; j <= N_ADAPTERS; j++) {
			if (j == i)
				continue;
			submit(s, j < N_ADAPTERS ? names[j] : NULL, &oracle[i], 0, &r);
			eh_wait(&r);
			eh_release(&r);
		}
		submit(s, names[i], &oracle[i], 0, &r);
		good += as_expected(&r, &oracle[i], 0);
		n++;
		eh_release(&r);
	}
	is_int(good, n, "KV of other adapters for the same prompts is not taken");
	for (uint32_t k = 0; k < base.n; k++) {
		for (uint32_t j = 0; j < N_ADAPTERS; j++) {
			submit(s, names[j], &base, k, &r);
			eh_wait(&r);
			eh_release(&r);
		}
		submit(s, NULL, &base, k, &r);
		right += as_expected(&r, &base, k);
		eh_release(&r);
	}
	is_int(right, base.n, "nor by the base model");
}

/* --- names, instances, invocations ----------------------------------------------------------------*/

static uint32_t status_of(struct eh_session *s, const char *adapter, uint64_t instance,
			  const struct engine_oracle *o, uint32_t k)
{
	struct wshm_desc d;
	struct eh_req r;
	uint32_t status;

	eh_desc(&d);
	snprintf(d.adapter, sizeof(d.adapter), "%s", adapter);
	d.instance = instance;
	d.max_tokens = 2;
	eh_submit(s, &d, o->prompt[k], o->n_prompt[k], NULL, &r);
	status = eh_wait(&r) ? eh_status(&r) : UINT32_MAX;
	eh_release(&r);
	return status;
}

static void test_names(struct eh *h, struct eh_session *s)
{
	uint64_t own = loaded[0].instance.digest[0];
	struct wlink_adapter_reply refused;

	is_int(status_of(s, "nobody", 0, &oracle[0], 0), WSHM_NO_ADAPTER, "a name unknown");
	is_int(status_of(s, names[0], own, &oracle[0], 0), WSHM_OK, "a name and its instance");
	is_int(status_of(s, names[0], own + 1, &oracle[0], 0), WSHM_NO_ADAPTER,
	       "a name and another instance");
	ok(eh_adapter_load(h, eh_adapter_dir("llama-tied-bias-all"), "other", 0, WSHM_MISSING_ERROR,
			   &refused) < 0 &&
		   strlen(refused.text) > 10,
	   "another model's adapter is refused (%s)", refused.text);
}

/* The last prompt of the aLoRA fixture lacks the invocation: peft then runs the base model. */
static void test_missing(struct eh *h, struct eh_session *s)
{
	const char *dir = eh_adapter_dir("llama-alora");
	const struct engine_oracle *o = &oracle[1];
	uint32_t k = o->n - 1, longer[EO_MAX], n = o->n_prompt[k];
	struct wlink_adapter_reply in;
	struct eh_result a, b;
	struct wshm_desc d;
	struct eh_req r;

	is_int(status_of(s, names[1], 0, o, k), WSHM_NO_INVOCATION, "no invocation: an error");
	is_int(eh_adapter_load(h, dir, "lenient", 0, WSHM_MISSING_BASE, NULL), 0,
	       "the same content under a second name");
	submit(s, "lenient", o, k, &r);
	ok(as_expected(&r, o, k), "no invocation, base: peft's tokens");
	is_int(eh_slot(&r)->invocation, WSHM_INVOCATION_BASE, "as the slot says");
	ok(eh_slot(&r)->activation == UINT64_MAX && !eh_slot(&r)->adapter_instance,
	   "with no activation");
	eh_release(&r);
	eh_adapter_load(h, dir, "eager", 0, WSHM_MISSING_APPEND, &in);
	eh_desc(&d);
	d.logprobs = 2;
	d.prompt_logprobs = 1;
	snprintf(d.adapter, sizeof(d.adapter), "eager");
	eh_submit(s, &d, o->prompt[k], n, NULL, &r);
	eh_wait(&r);
	is_int(eh_slot(&r)->invocation, WSHM_INVOCATION_APPENDED, "no invocation, append");
	is_int((long)eh_slot(&r)->activation, n, "it is active from the end of the prompt");
	is_int(wshm_slot_prompt_count(eh_slot(&r)), n, "the client's own tokens have entries");
	eh_result_take(&a, &r);
	eh_release(&r);
	memcpy(longer, o->prompt[k], n * sizeof(*longer));
	memcpy(longer + n, in.instance.invocation, in.instance.n_invocation * sizeof(*longer));
	d.prompt_logprobs = WSHM_NO_LOGPROBS;
	eh_submit(s, &d, longer, n + in.instance.n_invocation, NULL, &r);
	eh_wait(&r);
	is_int(eh_slot(&r)->invocation, WSHM_INVOCATION_FOUND, "with it written out: found");
	eh_result_take(&b, &r);
	eh_release(&r);
	a.prompt_bytes = 0; /* only one of them has any */
	ok(eh_result_same(&a, &b), "and the same answer");
	eh_result_free(&a);
	eh_result_free(&b);
	eh_adapter_unload(h, "lenient", false, NULL);
	eh_adapter_unload(h, "eager", false, NULL);
	submit(s, names[1], o, 0, &r);
	ok(as_expected(&r, o, 0), "the first name still serves");
	eh_release(&r);
}

/* --- unloading -----------------------------------------------------------------------------------*/

static void test_unload(struct eh *h, struct eh_session *s)
{
	struct wlink_adapter_reply reply;
	struct wshm_desc d;
	struct eh_req r, q;

	eh_desc(&d);
	d.max_tokens = 240; /* with sixteen answers, long enough to be found at it */
	d.n = 16;
	snprintf(d.adapter, sizeof(d.adapter), "%s", names[0]);
	eh_submit(s, &d, oracle[0].prompt[0], oracle[0].n_prompt[0], NULL, &r);
	eh_wait_tokens(&r, 0, 2);
	is_int(eh_adapter_unload(h, names[0], false, &reply), -EBUSY, "in use: not unloaded");
	is_int(reply.in_use, 1, "by one request");
	submit(s, names[1], &oracle[1], 0, &q);
	is_int(eh_adapter_unload(h, names[0], true, NULL), 0, "by force");
	ok(eh_wait(&r), "the request ends");
	is_int(eh_status(&r), WSHM_UNLOADED, "and is told why");
	ok(eh_count(&r, 0) >= 2 && !memcmp(eh_tokens(&r, 0), oracle[0].greedy[0], 8),
	   "it keeps its tokens");
	ok(as_expected(&q, &oracle[1], 0), "another adapter's goes on");
	eh_release(&r);
	eh_release(&q);
	is_int(status_of(s, names[0], 0, &oracle[0], 0), WSHM_NO_ADAPTER, "the name is gone");
}

/* Another content under the old name, with the other's KV in the cache: mistake 1 of others. */
static void test_reload(struct eh *h, struct eh_session *s)
{
	struct eh_req r;
	uint32_t good = 0;

	eh_adapter_load(h, eh_adapter_dir("llama-all"), "x", 0, WSHM_MISSING_ERROR, NULL);
	for (uint32_t k = 0; k < oracle[5].n; k++) {
		submit(s, "x", &oracle[5], k, &r);
		eh_wait(&r);
		eh_release(&r);
	}
	is_int(eh_adapter_unload(h, "x", false, NULL), 0, "unloaded");
	eh_adapter_unload(h, names[5], false, NULL);
	eh_adapter_load(h, eh_adapter_dir("llama-rslora"), "x", 0, WSHM_MISSING_ERROR, NULL);
	for (uint32_t k = 0; k < oracle[5].n; k++) {
		submit(s, "x", &oracle[5], k, &r);
		is_int(k || ord_load(&eh_slot(&r)->cached_tokens) == 0, 1, "nothing is reused");
		good += as_expected(&r, &oracle[5], k);
		eh_release(&r);
	}
	is_int(good, oracle[5].n, "a new content under an old name answers for itself");
	eh_adapter_unload(h, "x", false, NULL);
}

/* --- pressure and restart -------------------------------------------------------------------------*/

/* A pool that cannot hold them all: who comes pushes out who waits. */
static void test_pressure(const char *dir)
{
	static char bytes[32];
	double block, weights = 0;
	struct eh_session *s;
	struct eh h;

	eh_init(&h, dir);
	eh_arg(&h, "--threads");
	eh_arg(&h, "1");
	eh_start(&h);
	load_all(&h);
	block = eh_number(&h, "block_bytes");
	for (uint32_t i = 0; i < N_ADAPTERS; i++)
		weights += (double)loaded[i].weight_bytes;
	eh_stop(&h);

	eh_init(&h, dir);
	eh_arg(&h, "--backend");
	eh_arg(&h, "ref");
	eh_arg(&h, "--kv-bytes");
	snprintf(bytes, sizeof(bytes), "%.0f", weights / block / 2 * 2 * block);
	eh_arg(&h, bytes);
	eh_start(&h);
	load_all(&h);
	s = eh_open(&h, 0, 64, 1 << 20);
	for (int i = 0; i < 3; i++)
		all_at_once(s, "under pressure");
	ok(eh_number(&h, "adapters_evicted") > 0, "adapters have left the pool (%g times)",
	   eh_number(&h, "adapters_evicted"));
	ok(eh_number(&h, "adapters_placed") > N_ADAPTERS, "and come back");
	eh_stop(&h);
}

static void test_restart(struct eh *h, struct eh_session *s)
{
	struct eh_req r[4];
	uint32_t good = 0;

	for (uint32_t i = 0; i < 4; i++)
		submit(s, names[1], &oracle[1], i, &r[i]);
	eh_wait_tokens(&r[3], 0, 3);
	eh_kill(h);
	eh_restart(h);
	for (uint32_t i = 0; i < 4; i++) {
		good += as_expected(&r[i], &oracle[1], i);
		eh_release(&r[i]);
	}
	is_int(good, 4, "requests with an adapter go on in another engine");
}

/* The next engine has other adapters under the names, or not the one that was asked for. */
static void test_restart_renamed(const char *dir)
{
	struct eh_adapter other;
	struct eh_session *s;
	struct eh_req r, q;
	struct eh h;

	eh_init(&h, dir);
	eh_arg(&h, "--backend");
	eh_arg(&h, "ref");
	eh_start(&h);
	eh_adapter_load(&h, eh_adapter_dir(names[0]), "x", 0, WSHM_MISSING_ERROR, NULL);
	eh_adapter_load(&h, eh_adapter_dir(names[5]), "y", 0, WSHM_MISSING_ERROR, NULL);
	s = eh_open(&h, 0, 8, 1 << 20);
	/* As long as the model allows: neither may have ended when the kill comes. */
	submit_for(s, "x", &oracle[0], 0, POSITIONS - oracle[0].n_prompt[0], &r);
	submit_for(s, "y", &oracle[5], 0, POSITIONS - oracle[5].n_prompt[0], &q);
	eh_wait_tokens(&r, 0, 2);
	eh_wait_tokens(&q, 0, oracle[5].n_greedy[0]);
	eh_kill(&h);
	ok(eh_state(&r) != WSHM_SLOT_ENDED && eh_state(&q) != WSHM_SLOT_ENDED,
	   "killed in the middle");
	/* x's content is now called y, and y's is not loaded again. */
	snprintf(h.adapters[0].msg.name, sizeof(h.adapters[0].msg.name), "y");
	other = h.adapters[1];
	h.n_adapters = 1;
	eh_restart(&h);
	ok(goes_on_from(&r, &oracle[0], 0, POSITIONS - oracle[0].n_prompt[0]),
	   "a request goes on with what it had, whatever its name");
	ok(eh_wait(&q), "one whose adapter is gone ends");
	is_int(eh_status(&q), WSHM_UNLOADED, "as unloaded, and does not take another of its name");
	ok(eh_count(&q, 0) >= 2 && !memcmp(eh_tokens(&q, 0), oracle[5].greedy[0], 8),
	   "it keeps its tokens");
	eh_release(&r);
	eh_release(&q);
	is_int(status_of(s, "x", 0, &oracle[0], 0), WSHM_NO_ADAPTER, "new ones go by the name");
	close(other.fds[0]);
	close(other.fds[1]);
	eh_stop(&h);
}

/*
 * The core thread forbids itself every system call once it has made a token: base model and two
 * adapters then decode to their ends, with a mirror to publish to. This client never sleeps on a
 * futex, so that nobody is to be woken.
 */
static void __attribute__((unused)) test_no_system_calls(const char *dir)
{
	struct eh_session *s;
	uint32_t ended = 0;
	struct eh_req r[3];
	struct eh h;

	eh_init(&h, dir);
	eh_arg(&h, "--threads");
	eh_arg(&h, "1");
	eh_arg(&h, "--poll");
	eh_arg(&h, "always");
	eh_domain(&h, 0);
	setenv("WEFT_TEST_SECCOMP", "1", 1);
	eh_start(&h);
	unsetenv("WEFT_TEST_SECCOMP");
	for (int i = 0; i < 2; i++)
		eh_adapter_load(&h, eh_adapter_dir(names[i]), names[i], 0, WSHM_MISSING_ERROR,
				&loaded[i]);
	s = eh_open(&h, 0, 8, 1 << 20);
	kill(h.pid, SIGSTOP); /* it may not be done with the first before it has the last */
	for (int i = 0; i < 3; i++) {
		struct wshm_desc d;
		uint32_t k = i < 2 ? (uint32_t)i : 0;

		eh_desc(&d);
		d.max_tokens = 180;
		if (i < 2)
			snprintf(d.adapter, sizeof(d.adapter), "%s", names[i]);
		eh_submit(s, &d, oracle[k].prompt[0], oracle[k].n_prompt[0], NULL, &r[i]);
	}
	kill(h.pid, SIGCONT);
	for (uint64_t until = eh_now_ns() + EH_WAIT_MS * UINT64_C(1000000);
	     ended < 3 && eh_now_ns() < until;) {
		ended = 0;
		for (int i = 0; i < 3; i++)
			ended += eh_state(&r[i]) == WSHM_SLOT_ENDED && eh_count(&r[i], 0) == 180;
	}
	is_int(ended, 3, "tokens of adapters flow without a system call");
	for (uint64_t until = eh_now_ns() + EH_WAIT_MS * UINT64_C(1000000);
	     eh_now_ns() < until && !h.exit_status;)
		if (waitpid(h.pid, (int *)&h.exit_status, WNOHANG) == h.pid)
			h.pid = -1;
	ok(WIFSIGNALED(h.exit_status) && WTERMSIG(h.exit_status) == SIGSYS,
	   "and the filter was there: the engine dies when it wants to sleep");
	eh_stop(&h);
}

int main(void)
{
	const char *dir = eh_model_dir("llama");
	char model[512];
	struct eh_session *s;
	struct eh h;

	snprintf(model, sizeof(model), "%s", dir);
	engine_oracle_read(&base, model, 192);
	for (uint32_t i = 0; i < N_ADAPTERS; i++)
		engine_oracle_read(&oracle[i], eh_adapter_dir(names[i]), 192);
	eh_init(&h, model);
	eh_arg(&h, "--backend");
	eh_arg(&h, "ref");
	eh_arg(&h, "--threads");
	eh_arg(&h, "1");
	for (uint32_t i = 0; i < 2; i++)
		eh_domain(&h, i);
	eh_start(&h);
	load_all(&h);
	s = eh_open(&h, 0, 64, 1 << 20);
	all_at_once(s, "first");
	all_at_once(s, "again, from the cache");
	crosswise(s);
	test_names(&h, s);
	test_missing(&h, s);
	test_restart(&h, s);
	test_unload(&h, s);
	test_reload(&h, s);
	eh_stop(&h);
	is_int(h.exit_status, 0, "the engine ends well");
	test_restart_renamed(model);
	test_pressure(model);
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	skip(2, "sanitizers make system calls of their own");
#else
	test_no_system_calls(model);
#endif
	for (uint32_t i = 0; i < N_ADAPTERS; i++)
		engine_oracle_free(&oracle[i]);
	engine_oracle_free(&base);
	return tap_done();
}
