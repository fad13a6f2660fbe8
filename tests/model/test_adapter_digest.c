/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_adapter_digest.c - what makes two adapters the same: all that changes a result, and nothing
 * else.
 */
#include "tests/model/adapter_box.h"
#include "tests/tap.h"

#include <stdlib.h>

static struct model ref, cpu;
static uint64_t first[2]; /* the unchanged one's */

static bool open_digest(struct adapter_box *b, const struct model *m, const char *name,
			uint64_t ret[2])
{
	struct weft_err err;
	struct adapter *a;

	if (box_open(b, m, name, &a, &err))
		bail_out(err.message);
	memcpy(ret, adapter_instance(a)->digest, 16);
	adapter_close(a);
	box_free(b);
	return !memcmp(ret, first, 16);
}

static void set(struct adapter_box *b, const char *key, const char *value)
{
	json_object_set_new(b->config, key, json_loads(value, JSON_DECODE_ANY, NULL));
}

/* One key of the configuration: does the digest stay? */
static void test_key(const char *key, const char *value, bool stays)
{
	struct adapter_box b;
	uint64_t d[2];

	box_read(&b, "llama-alora");
	set(&b, key, value);
	ok(open_digest(&b, &ref, "x", d) == stays, "%s %s: %s", key, value,
	   stays ? "the same" : "another");
	ok(d[0], "and its low half is not 0");
}

static void test_settings(void)
{
	static const uint16_t half = 0x3f00;
	struct adapter_box b;
	uint64_t d[2], e[2];

	box_read(&b, "llama-alora");
	ok(open_digest(&b, &ref, "another/name", d), "another folder: the same");
	box_read(&b, "llama-alora");
	ok(open_digest(&b, &cpu, "x", d), "another backend: the same");
	box_read(&b, "llama-alora");
	b.on_missing = WSHM_MISSING_BASE;
	ok(open_digest(&b, &ref, "x", d), "what to do without the invocation: the same");
	box_read(&b, "llama-alora");
	b.offset = 1;
	ok(!open_digest(&b, &ref, "x", d), "an offset: another");
	box_read(&b, "llama-alora");
	b.offset = -1;
	ok(!open_digest(&b, &ref, "x", e) && memcmp(d, e, 16), "the opposite offset: yet another");
	box_read(&b, "llama-alora");
	memcpy(box_data(&b, BOX_B), &half, 2);
	ok(!open_digest(&b, &ref, "x", d), "one weight: another");
	box_read(&b, "llama-alora");
	box_data(&b, BOX_A)[0] ^= 1;
	ok(!open_digest(&b, &ref, "x", d), "one bit: another");
}

/* A plain LoRA has no offset; and it is not the aLoRA of the same weights. */
static void test_lora(void)
{
	struct adapter_box b;
	uint64_t d[2], e[2];

	box_read(&b, "llama-alora");
	set(&b, "alora_invocation_tokens", "null");
	ok(!open_digest(&b, &ref, "x", d), "as a LoRA: another");
	box_read(&b, "llama-alora");
	set(&b, "alora_invocation_tokens", "null");
	b.offset = 5;
	open_digest(&b, &ref, "x", e);
	ok(!memcmp(d, e, 16), "a LoRA's offset says nothing");
}

static void test_same_weights_elsewhere(void)
{
	struct adapter_box b;
	json_t *a, *other;
	uint64_t d[2];

	/* Two linears of one shape exchange their tensors. */
	box_read(&b, "llama-alora");
	a = json_object_get(b.header, BOX_A);
	other = json_object_get(b.header,
				"base_model.model.model.layers.1.mlp.gate_proj.lora_A.weight");
	json_incref(a);
	json_incref(other);
	json_object_set_new(b.header, BOX_A, other);
	json_object_set_new(b.header, "base_model.model.model.layers.1.mlp.gate_proj.lora_A.weight",
			    a);
	ok(!open_digest(&b, &ref, "x", d), "two linears exchanged: another");
}

int main(void)
{
	struct adapter_box b;

	box_model_open(&ref, &wk_ref_ops, "llama");
	box_model_open(&cpu, &wk_cpu_ops, "llama");
	box_read(&b, "llama-alora");
	open_digest(&b, &ref, "x", first);
	test_settings();
	test_key("lora_alpha", "16.0", true);
	test_key("lora_alpha", "17", false);
	test_key("alpha_pattern", "{\"_proj\": 3, \"[a-z]+_proj\": 16}", true);
	test_key("alpha_pattern", "{\"layers.1.mlp.up_proj\": 15}", false);
	test_key("use_rslora", "true", false);
	test_key("lora_dropout", "0.5", true);
	test_key("base_model_name_or_path", "\"x\"", true);
	test_key("alora_invocation_tokens", "[11, 12]", false);
	test_key("alora_invocation_tokens", "[11, 12, 14]", false);
	test_key("alora_invocation_tokens", "[11, 12, 13, 0]", false);
	test_lora();
	test_same_weights_elsewhere();
	box_model_close(&ref);
	box_model_close(&cpu);
	return tap_done();
}
