/* SPDX-License-Identifier: Apache-2.0 */
/* twin.c - see twin.h. */
#include "tests/e2e/twin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void __attribute__((noreturn)) bail(const char *what, const char *why)
{
	printf("Bail out! twin: %s %s\n", what, why);
	exit(255);
}

static void start(struct twin *t, const char *const *args)
{
	eh_init(&t->h, t->model_dir);
	eh_arg(&t->h, "--threads");
	eh_arg(&t->h, "1");
	for (; *args; args++)
		eh_arg(&t->h, *args);
	eh_start(&t->h);
	for (uint32_t i = 0; i < TWIN_TENANTS; i++)
		eh_domain(&t->h, i);
	eh_domain(&t->h, EH_PUBLIC);
	for (uint32_t i = 0; i < TWIN_TENANTS; i++)
		t->s[i] = eh_open(&t->h, i, 64, 4 << 20);
}

void twin_open(struct twin *t, const char *model_dir, const char *const *args)
{
	memset(t, 0, sizeof(*t));
	t->x = 88172645463325252ull;
	snprintf(t->model_dir, sizeof(t->model_dir), "%s", model_dir);
	snprintf(t->base, sizeof(t->base), "/tmp/weft-twin-XXXXXX");
	if (!mkdtemp(t->base))
		bail("no temporary folder", "");
	t->plain = plain_new(t->model_dir);
	start(t, args);
}

void twin_again(struct twin *t, const char *const *args)
{
	eh_stop(&t->h);
	t->fresh = 0;
	start(t, args);
	for (uint32_t i = 1; i <= t->n_adapters; i++)
		if (t->adapters[i].loaded)
			twin_load(t, i);
}

void twin_close(struct twin *t)
{
	eh_stop(&t->h);
	plain_free(t->plain);
	for (uint32_t i = 1; i <= t->n_adapters; i++)
		af_remove(t->adapters[i].dir);
	rmdir(t->base);
}

void twin_load(struct twin *t, uint32_t adapter)
{
	struct twin_adapter *a = &t->adapters[adapter];
	const struct wshm_instance *want = plain_instance(t->plain, a->plain);
	struct wlink_adapter_reply reply;

	if (eh_adapter_load(&t->h, a->dir, a->name, a->offset, WSHM_MISSING_ERROR, &reply))
		bail(a->dir, reply.text);
	if (memcmp(reply.instance.digest, want->digest, sizeof(want->digest)))
		bail(a->dir, "is another one for the engine");
	a->loaded = true;
}

void twin_unload(struct twin *t, uint32_t adapter)
{
	struct wlink_adapter_reply reply;

	if (eh_adapter_unload(&t->h, t->adapters[adapter].name, false, &reply))
		bail(t->adapters[adapter].name, reply.text);
	t->adapters[adapter].loaded = false;
}

uint32_t twin_adapter(struct twin *t, const char *name, const struct af_adapter *spec,
		      int32_t offset)
{
	uint32_t i = ++t->n_adapters;
	struct twin_adapter *a = &t->adapters[i];

	if (i > TWIN_MAX_ADAPTERS)
		bail("too many adapters", name);
	snprintf(a->name, sizeof(a->name), "%s", name);
	snprintf(a->dir, sizeof(a->dir), "%s/%u", t->base, i);
	a->offset = offset;
	af_write(a->dir, t->model_dir, spec);
	a->plain = plain_adapter(t->plain, a->dir, offset);
	return i;
}

/* --- texts ----------------------------------------------------------------------------------------*/

void text_add(struct text *x, const uint32_t *tokens, uint32_t n)
{
	if (x->n + n > TWIN_MAX_TEXT)
		bail("text", "too long");
	memcpy(x->tokens + x->n, tokens, n * sizeof(*tokens));
	x->n += n;
}

void text_random(struct twin *t, struct text *x, uint32_t n)
{
	while (n--) {
		uint32_t token = x->n ? eh_random(&t->x) % 150 : t->fresh++ % 150;

		text_add(x, &token, 1);
	}
}

/* --- asking ---------------------------------------------------------------------------------------*/

static void describe(const struct twin *t, struct wshm_desc *d, uint32_t adapter,
		     uint32_t max_tokens)
{
	eh_desc(d);
	d->max_tokens = max_tokens;
	d->logprobs = 1;
	d->has_seed = true;
	if (adapter)
		memcpy(d->adapter, t->adapters[adapter].name,
		       strlen(t->adapters[adapter].name) + 1);
}

void twin_ask(struct twin *t, uint32_t tenant, uint32_t adapter, const struct text *prompt,
	      uint32_t max_tokens, struct eh_req *ret)
{
	struct wshm_desc d;

	describe(t, &d, adapter, max_tokens);
	eh_submit(t->s[tenant], &d, prompt->tokens, prompt->n, NULL, ret);
}

uint32_t twin_take(struct twin *t, uint32_t adapter, const struct text *prompt, uint32_t max_tokens,
		   const struct eh_req *r, struct text *grow)
{
	const struct plain_result *want;
	uint32_t cached;
	struct wshm_desc d;
	bool same;

	describe(t, &d, adapter, max_tokens);
	want = plain_run(t->plain, &d, t->adapters[adapter].plain, prompt->tokens, prompt->n);
	same = eh_wait(r) && plain_same(r, want, prompt->n, false);
	t->wrong += !same;
	cached = ord_load(&eh_slot(r)->cached_tokens);
	eh_release(r);
	if (grow) {
		struct text x = *prompt;

		text_add(&x, want->tokens, want->count[0]);
		*grow = x;
	}
	return same ? cached : UINT32_MAX;
}

uint32_t twin_run(struct twin *t, uint32_t tenant, uint32_t adapter, const struct text *prompt,
		  uint32_t max_tokens, struct text *grow)
{
	struct eh_req r;

	twin_ask(t, tenant, adapter, prompt, max_tokens, &r);
	return twin_take(t, adapter, prompt, max_tokens, &r, grow);
}

uint64_t twin_status(struct twin *t, const char *key)
{
	const char *text = eh_report(&t->h), *at;
	char quoted[64];

	snprintf(quoted, sizeof(quoted), "\"%s\":", key);
	at = strstr(text, quoted);
	return at ? strtoull(at + strlen(quoted), NULL, 10) : 0;
}
