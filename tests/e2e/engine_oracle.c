/* SPDX-License-Identifier: Apache-2.0 */
/* engine_oracle.c - see engine_oracle.h. */
#include "tests/e2e/engine_oracle.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static void __attribute__((noreturn)) bail(const char *what)
{
	printf("Bail out! oracle: %s\n", what);
	exit(255);
}

static uint32_t list(const json_t *array, uint32_t *ret)
{
	size_t n = json_array_size(array);

	if (n > EO_MAX)
		bail("a list is too long");
	for (size_t i = 0; i < n; i++)
		ret[i] = (uint32_t)json_integer_value(json_array_get(array, i));
	return (uint32_t)n;
}

void engine_oracle_read(struct engine_oracle *ret, const char *dir, uint32_t vocab)
{
	uint32_t total = 0;
	char path[600];
	json_t *root;
	FILE *f;

	snprintf(path, sizeof(path), "%s/oracle.json", dir);
	root = json_load_file(path, 0, NULL);
	if (!root)
		bail(path);
	ret->vocab = vocab;
	ret->n = (uint32_t)json_array_size(json_object_get(root, "prompts"));
	if (!ret->n || ret->n > EO_MAX_PROMPTS)
		bail("number of prompts");
	for (uint32_t i = 0; i < ret->n; i++) {
		json_t *a = json_array_get(json_object_get(root, "activation"), i);

		ret->activation[i] = json_is_integer(a) ? json_integer_value(a) : -1;
		ret->n_prompt[i] =
			list(json_array_get(json_object_get(root, "prompts"), i), ret->prompt[i]);
		ret->n_greedy[i] =
			list(json_array_get(json_object_get(root, "greedy"), i), ret->greedy[i]);
		ret->n_rows[i] =
			list(json_array_get(json_object_get(root, "rows"), i), ret->rows[i]);
		total += ret->n_rows[i];
	}
	json_decref(root);
	snprintf(path, sizeof(path), "%s/logits.f32", dir);
	f = fopen(path, "rb");
	ret->logits = malloc((size_t)total * vocab * sizeof(float));
	if (!f || !ret->logits || fread(ret->logits, vocab * sizeof(float), total, f) != total)
		bail(path);
	fclose(f);
}

void engine_oracle_free(struct engine_oracle *o)
{
	free(o->logits);
	o->logits = NULL;
}

double engine_oracle_logprob(const struct engine_oracle *o, uint32_t row, uint32_t token)
{
	const float *x = o->logits + (size_t)row * o->vocab;
	double max = x[0], sum = 0;

	for (uint32_t i = 1; i < o->vocab; i++)
		max = x[i] > max ? x[i] : max;
	for (uint32_t i = 0; i < o->vocab; i++)
		sum += exp(x[i] - max);
	return x[token] - max - log(sum);
}
