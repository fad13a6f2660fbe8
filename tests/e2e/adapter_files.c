/* SPDX-License-Identifier: Apache-2.0 */
/*
 * adapter_files.c - see adapter_files.h.
 *
 * Both matrices are uniform in [-1/4, 1/4): next to the fixtures' weights that is much, so that rows
 * computed with an adapter, or with another one, differ in nearly every bit.
 */
#include "tests/e2e/adapter_files.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define N_LINEARS 7

static const char *const names[N_LINEARS] = {
	"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
	"mlp.gate_proj",    "mlp.up_proj",	"mlp.down_proj",
};

struct shape {
	uint32_t layers, n[N_LINEARS], k[N_LINEARS];
};

static void __attribute__((noreturn)) bail(const char *what, const char *path)
{
	printf("Bail out! adapter files: %s %s\n", what, path);
	exit(255);
}

static uint32_t number(const json_t *root, const char *key)
{
	return (uint32_t)json_integer_value(json_object_get(root, key));
}

static void read_shape(struct shape *ret, const char *model_dir)
{
	uint32_t hidden, ffn, head, q, kv;
	char path[600];
	json_t *root;

	snprintf(path, sizeof(path), "%s/config.json", model_dir);
	root = json_load_file(path, 0, NULL);
	if (!root)
		bail("cannot read", path);
	hidden = number(root, "hidden_size");
	ffn = number(root, "intermediate_size");
	head = number(root, "head_dim");
	if (!head)
		head = hidden / number(root, "num_attention_heads");
	q = head * number(root, "num_attention_heads");
	kv = head * number(root, "num_key_value_heads");
	*ret = (struct shape){
		.layers = number(root, "num_hidden_layers"),
		.n = {q, kv, kv, hidden, ffn, ffn, hidden},
		.k = {hidden, hidden, hidden, q, hidden, hidden, ffn},
	};
	json_decref(root);
}

static float uniform(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return (float)(uint32_t)(*state >> 40) * 0x1p-25f - 0.25f;
}

static void write_config(const char *dir, const struct af_adapter *a)
{
	json_t *root = json_object(), *targets = json_array(), *invocation = json_array();
	char path[600];

	for (int i = 0; i < N_LINEARS; i++)
		if (a->linears & (1u << i))
			json_array_append_new(targets, json_string(strchr(names[i], '.') + 1));
	for (uint32_t i = 0; i < a->n_invocation; i++)
		json_array_append_new(invocation, json_integer(a->invocation[i]));
	json_object_set_new(root, "peft_type", json_string("LORA"));
	json_object_set_new(root, "task_type", json_string("CAUSAL_LM"));
	json_object_set_new(root, "r", json_integer(a->rank));
	json_object_set_new(root, "lora_alpha", json_real((double)a->alpha));
	json_object_set_new(root, "use_rslora", json_boolean(a->rslora));
	json_object_set_new(root, "bias", json_string("none"));
	json_object_set_new(root, "target_modules", targets);
	if (a->n_invocation)
		json_object_set(root, "alora_invocation_tokens", invocation);
	json_decref(invocation);
	snprintf(path, sizeof(path), "%s/adapter_config.json", dir);
	if (json_dump_file(root, path, JSON_INDENT(1)))
		bail("cannot write", path);
	json_decref(root);
}

/* The tensors in order: of each layer and linear A, then B. */
static json_t *header(const struct shape *s, const struct af_adapter *a, size_t element)
{
	json_t *root = json_object();
	size_t at = 0;

	for (uint32_t layer = 0; layer < s->layers; layer++)
		for (int i = 0; i < N_LINEARS; i++)
			for (int m = 0; m < 2 && (a->linears & (1u << i)); m++) {
				uint32_t rows = m ? s->n[i] : a->rank, cols = m ? a->rank : s->k[i];
				size_t end = at + (size_t)rows * cols * element;
				char name[160];

				snprintf(name, sizeof(name),
					 "base_model.model.model.layers.%u.%s.lora_%c.weight",
					 layer, names[i], m ? 'B' : 'A');
				json_object_set_new(root, name,
						    json_pack("{s:s, s:[ii], s:[II]}", "dtype",
							      a->bf16 ? "BF16" : "F32", "shape",
							      (int)rows, (int)cols, "data_offsets",
							      (json_int_t)at, (json_int_t)end));
				at = end;
			}
	return root;
}

static void write_matrix(FILE *f, size_t elements, bool bf16, uint64_t *state, float value)
{
	for (size_t i = 0; i < elements; i++) {
		float x = value != 0 ? value : uniform(state);
		uint32_t bits;

		memcpy(&bits, &x, sizeof(bits));
		if (bf16)
			bits >>= 16;
		fwrite(&bits, bf16 ? 2 : 4, 1, f);
	}
}

static void write_weights(const char *dir, const struct shape *s, const struct af_adapter *a)
{
	json_t *root = header(s, a, a->bf16 ? 2 : 4);
	char path[600], *text = json_dumps(root, JSON_COMPACT);
	uint64_t bytes = strlen(text), state = a->seed * 2 + 1;
	FILE *f;

	snprintf(path, sizeof(path), "%s/adapter_model.safetensors", dir);
	f = fopen(path, "wb");
	if (!f)
		bail("cannot write", path);
	for (int i = 0; i < 20; i++)
		uniform(&state); /* small seeds begin alike */
	fwrite(&bytes, sizeof(bytes), 1, f);
	fwrite(text, 1, bytes, f);
	for (uint32_t layer = 0; layer < s->layers; layer++)
		for (int i = 0; i < N_LINEARS; i++) {
			if (!(a->linears & (1u << i)))
				continue;
			write_matrix(f, (size_t)a->rank * s->k[i], a->bf16, &state, 0);
			write_matrix(f, (size_t)a->rank * s->n[i], a->bf16, &state, a->poison);
		}
	if (fclose(f))
		bail("cannot write", path);
	free(text);
	json_decref(root);
}

void af_write(const char *dir, const char *model_dir, const struct af_adapter *a)
{
	struct shape s;

	if (mkdir(dir, 0700) && errno != EEXIST)
		bail("cannot make", dir);
	read_shape(&s, model_dir);
	write_config(dir, a);
	write_weights(dir, &s, a);
}

void af_remove(const char *dir)
{
	char path[600];

	snprintf(path, sizeof(path), "%s/adapter_config.json", dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s/adapter_model.safetensors", dir);
	unlink(path);
	rmdir(dir);
}
