/* SPDX-License-Identifier: Apache-2.0 */
/* adapted.c - see adapted.h. */
#include "tests/model/adapted.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_SEQS 8

const char *const adapted_names[] = {
	"llama-all",   "llama-qv",     "llama-rslora",	      "llama-patterns",
	"llama-regex", "llama3-layer", "llama-tied-bias-all", "mistral-window-all",
	"qwen2-all",   "qwen3-all",    "granite-all",	      "llama-alora",
	"qwen2-alora", "qwen3-alora",  "granite-alora",
};
const uint32_t n_adapted = sizeof(adapted_names) / sizeof(adapted_names[0]);

static void __attribute__((noreturn)) give_up(const char *what, const char *why)
{
	printf("Bail out! %s: %s\n", what, why);
	exit(255);
}

/* --- fixtures ------------------------------------------------------------------------------------*/

static uint32_t read_list(json_t *list, uint32_t *ret, uint32_t max)
{
	json_t *v;
	size_t i;

	if (!json_array_size(list) || json_array_size(list) > max)
		give_up("oracle.json", "a list is missing or too long");
	json_array_foreach(list, i, v) ret[i] = (uint32_t)json_integer_value(v);
	return (uint32_t)json_array_size(list);
}

static void read_prompt(json_t *root, uint32_t i, FILE *file, uint32_t vocab,
			struct adapted_prompt *p)
{
	json_t *a = json_array_get(json_object_get(root, "activation"), i);
	size_t n;

	p->n_prompt = read_list(json_array_get(json_object_get(root, "prompts"), i), p->tokens,
				FIXTURE_MAX_LEN - ADAPTED_GREEDY);
	if (read_list(json_array_get(json_object_get(root, "greedy"), i), p->tokens + p->n_prompt,
		      ADAPTED_GREEDY) != ADAPTED_GREEDY)
		give_up("greedy", "not 32 tokens");
	p->n_tokens = p->n_prompt + ADAPTED_GREEDY;
	p->activation = json_is_integer(a) ? (uint32_t)json_integer_value(a) : WSHM_NO_ACTIVATION;
	p->n_rows = read_list(json_array_get(json_object_get(root, "rows"), i), p->rows,
			      FIXTURE_MAX_LEN);
	n = (size_t)p->n_rows * vocab;
	p->logits = malloc(n * sizeof(float));
	if (!p->logits || fread(p->logits, sizeof(float), n, file) != n)
		give_up("logits.f32", "too short");
}

void adapted_read(const char *name, uint32_t vocab, struct adapted_fixture *f)
{
	const char *src = getenv("WEFT_SRC");
	char path[PATH_MAX];
	json_error_t je;
	json_t *root;
	FILE *file;

	memset(f, 0, sizeof(*f));
	src = src ? src : ".";
	snprintf(f->dir, sizeof(f->dir), "%s/tests/data/adapters/%s", src, name);
	snprintf(path, sizeof(path), "%.4000s/oracle.json", f->dir);
	root = json_load_file(path, 0, &je);
	snprintf(path, sizeof(path), "%.4000s/logits.f32", f->dir);
	file = fopen(path, "rb");
	if (!root || !file)
		give_up(path, "cannot read");
	snprintf(f->model, sizeof(f->model), "%s/tests/data/models/%s", src,
		 json_string_value(json_object_get(root, "model")));
	f->n_prompts = (uint32_t)json_array_size(json_object_get(root, "prompts"));
	if (!f->n_prompts || f->n_prompts > ADAPTED_PROMPTS)
		give_up(path, "not 1 to 5 prompts");
	for (uint32_t i = 0; i < f->n_prompts; i++)
		read_prompt(root, i, file, vocab, &f->prompts[i]);
	if (fgetc(file) != EOF)
		give_up("logits.f32", "too long");
	fclose(file);
	json_decref(root);
}

void adapted_free(struct adapted_fixture *f)
{
	for (uint32_t i = 0; i < f->n_prompts; i++) {
		free(f->prompts[i].logits);
		f->prompts[i].logits = NULL;
	}
}

/* --- adapters in a runner's pool -----------------------------------------------------------------*/

struct adapter *adapted_open(struct runner *r, const char *dir, uint32_t first)
{
	uint32_t blocks[FIXTURE_SPARE], n;
	struct weft_err err = {0};
	struct adapter *a;

	if (adapter_open_dir(r->m, model_block_bytes(r->m), dir, NULL, &a, &err))
		give_up(dir, err.message);
	n = adapter_blocks(a);
	if (first + n > FIXTURE_SPARE)
		give_up(dir, "more blocks than there are spare ones");
	for (uint32_t i = 0; i < n; i++)
		blocks[i] = r->first_spare + first + n - 1 - i;
	if (adapter_place(a, r->m, r->pool, blocks))
		give_up(dir, r->ops->last_error(r->be));
	return a;
}

void adapted_close(struct runner *r, struct adapter *a)
{
	adapter_remove(a, r->m);
	adapter_close(a);
}

/* --- passes --------------------------------------------------------------------------------------*/

struct pass {
	struct wk_seq seqs[MAX_SEQS];
	struct wk_segment segments[MAX_SEQS];
	const struct wk_lora *loras[MAX_SEQS];
	uint32_t tokens[WK_MAX_ROWS], table[MAX_SEQS * (FIXTURE_MAX_LEN / WK_BLOCK_TOKENS + 1)];
	struct wk_batch b;
};

static void add_seq(struct pass *p, const struct adapted_seq *s)
{
	struct wk_batch *b = &p->b;
	const uint32_t rows = s->to - s->from, row = b->n_rows;
	const uint32_t first = s->activation > s->from ? s->activation : s->from;
	const uint32_t blocks = (s->to + WK_BLOCK_TOKENS - 1) / WK_BLOCK_TOKENS;

	p->seqs[b->n_seqs++] =
		(struct wk_seq){.row = row, .n_rows = rows, .pos = s->from, .table = b->n_table};
	memcpy(p->table + b->n_table, s->table, blocks * sizeof(*s->table));
	memcpy(p->tokens + row, s->tokens + s->from, rows * sizeof(*s->tokens));
	b->n_table += blocks;
	b->n_rows += rows;
	if (!s->adapter || first >= s->to)
		return;
	/* An entry each, even if two name the same adapter. */
	p->loras[b->n_loras] = adapter_lora(s->adapter);
	p->segments[b->n_segments++] = (struct wk_segment){
		.row = row + (first - s->from), .n_rows = s->to - first, .lora = b->n_loras++};
}

/* The logits of a sequence's rows, WK_MAX_OUT at a time. */
static int read_out(struct runner *r, uint32_t row, uint32_t n, float *out)
{
	uint32_t rows[WK_MAX_OUT], stride;
	int e = 0;

	for (uint32_t at = 0; !e && at < n;) {
		uint32_t some = n - at < WK_MAX_OUT ? n - at : WK_MAX_OUT;

		for (uint32_t i = 0; i < some; i++)
			rows[i] = row + at + i;
		e = model_logits_of(r->m, rows, some);
		for (uint32_t i = 0; !e && i < some; i++)
			e = r->ops->buf_read(r->be, model_logits(r->m, &stride),
					     (size_t)i * r->m->logits_stride * sizeof(float),
					     out + (size_t)(at + i) * r->vocab,
					     r->vocab * sizeof(float));
		at += some;
	}
	return e;
}

int adapted_pass(struct runner *r, const struct adapted_seq *seqs, uint32_t n)
{
	struct pass p = {0};
	int e;

	for (uint32_t i = 0; i < n; i++)
		add_seq(&p, &seqs[i]);
	p.b.tokens = p.tokens;
	p.b.seqs = p.seqs;
	p.b.block_table = p.table;
	p.b.segments = p.segments;
	p.b.loras = p.loras;
	e = model_forward(r->m, r->pool, &p.b);
	for (uint32_t i = 0; !e && i < n; i++)
		e = read_out(r, p.seqs[i].row, p.seqs[i].n_rows, seqs[i].out);
	return e ? e : r->ops->wait(r->be, r->ops->record(r->be));
}
