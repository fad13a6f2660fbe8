/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_engine_nan.c - logits that are not numbers end the request that has them, and no other.
 *
 * The model is the granite fixture with one weight changed: the first element of one token's
 * embedding is 1.2e38, which is finite, as the loader demands, but not after the embedding multiplier
 * of 3. Whoever has this token in its prompt computes with an infinity; the others forbid it by
 * bias, because the head is tied and would favour it.
 */
#include "tests/e2e/engine_harness.h"
#include "tests/tap.h"

#include <jansson.h>
#include <math.h>
#include <unistd.h>

#define BAD 77u

static char dir[64] = "/tmp/weft-nan-XXXXXX";

static void *slurp(const char *name, size_t *ret_bytes)
{
	char path[600];
	void *data;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", eh_model_dir("granite"), name);
	f = fopen(path, "rb");
	if (!f)
		bail_out("the granite fixture is missing");
	fseek(f, 0, SEEK_END);
	*ret_bytes = (size_t)ftell(f);
	rewind(f);
	data = malloc(*ret_bytes);
	if (fread(data, 1, *ret_bytes, f) != *ret_bytes)
		bail_out("the granite fixture cannot be read");
	fclose(f);
	return data;
}

static void spill(const char *name, const void *data, size_t bytes)
{
	char path[600];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "wb");
	if (!f || fwrite(data, 1, bytes, f) != bytes || fclose(f))
		bail_out("the changed model cannot be written");
}

static void make_model(void)
{
	static const char *const names[] = {"config.json", "generation_config.json"};
	const uint16_t huge = 0x7eb5; /* 1.2e38 in bf16 */
	uint64_t header, begin, row;
	json_t *root, *tensor;
	size_t bytes;
	uint8_t *data;

	if (!mkdtemp(dir))
		bail_out("no temporary folder");
	for (int i = 0; i < 2; i++) {
		data = slurp(names[i], &bytes);
		spill(names[i], data, bytes);
		free(data);
	}
	data = slurp("model.safetensors", &bytes);
	memcpy(&header, data, 8);
	root = json_loadb((const char *)data + 8, header, 0, NULL);
	tensor = json_object_get(root, "model.embed_tokens.weight");
	begin = (uint64_t)json_integer_value(
		json_array_get(json_object_get(tensor, "data_offsets"), 0));
	row = 2 * (uint64_t)json_integer_value(json_array_get(json_object_get(tensor, "shape"), 1));
	memcpy(data + 8 + header + begin + BAD * row, &huge, sizeof(huge));
	json_decref(root);
	spill("model.safetensors", data, bytes);
	free(data);
}

static void remove_model(void)
{
	static const char *const names[] = {"config.json", "generation_config.json",
					    "model.safetensors"};
	char path[600];

	for (int i = 0; i < 3; i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		unlink(path);
	}
	rmdir(dir);
}

int main(void)
{
	uint32_t good[20], bad[20];
	struct eh_result alone, got;
	struct eh_session *s;
	struct eh_req r[9];
	struct wshm_desc d;
	bool same = true;
	struct eh h;

	make_model();
	for (uint32_t i = 0; i < 20; i++) {
		good[i] = i * 3;
		bad[i] = i == 12 ? BAD : i * 3;
	}
	eh_init(&h, dir);
	eh_arg(&h, "--threads");
	eh_arg(&h, "1");
	eh_start(&h);
	s = eh_open(&h, 0, 16, 1 << 20);
	eh_desc(&d);
	d.n_bias = 1;
	d.bias[0].token = BAD;
	d.bias[0].value = -INFINITY;
	eh_submit(s, &d, good, 20, NULL, &r[0]);
	eh_wait(&r[0]);
	eh_result_take(&alone, &r[0]);
	is_int(alone.status, WSHM_OK, "a request without the token ends well");
	eh_release(&r[0]);
	for (int i = 0; i < 9; i++)
		eh_submit(s, &d, i % 3 == 1 ? bad : good, 20, NULL, &r[i]);
	for (int i = 0; i < 9; i++) {
		eh_wait(&r[i]);
		if (i % 3 == 1) {
			is_int(eh_status(&r[i]), WSHM_NAN, "one with it ends as NaN");
			is_int(eh_count(&r[i], 0), 0, "without tokens");
			continue;
		}
		eh_result_take(&got, &r[i]);
		same = eh_result_same(&got, &alone) && same;
		eh_result_free(&got);
	}
	ok(same, "those beside it have what they have alone");
	/* Its blocks held NaN; now others get them. */
	for (int i = 0; i < 9; i++)
		eh_release(&r[i]);
	for (int i = 0; i < 9; i++)
		eh_submit(s, &d, good, 20, NULL, &r[i]);
	for (int i = 0; i < 9; i++) {
		eh_wait(&r[i]);
		eh_result_take(&got, &r[i]);
		same = eh_result_same(&got, &alone) && same;
		eh_result_free(&got);
	}
	ok(same, "and so have those that use its blocks again");
	eh_result_free(&alone);
	eh_stop(&h);
	remove_model();
	return tap_done();
}
