/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An adapter's invocation as text: its ids are the tokenizers package's (tests/data/chat/oracle.json),
 * they agree with the ids that are given or the adapter is refused, and a tokenizer is needed only
 * where there are no ids.
 */
#include "daemon/common/err.h"
#include "daemon/engine/model/adapter_private.h"
#include "tests/tap.h"

#include <errno.h>
#include <unistd.h>

#define PLAIN "\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":8,\"target_modules\":[\"q_proj\"]"

static struct adapter_config config;
static struct weft_err err;

static const char *data(const char *name)
{
	static char path[400];
	const char *src = getenv("WEFT_SRC");

	snprintf(path, sizeof(path), "%s/tests/data/%s", src ? src : ".", name);
	return path;
}

/* Parse a configuration with these members; the caller ends it after success. */
static int parse(const char *members, const char *dir, uint32_t vocab)
{
	struct model_config model = {.vocab = vocab, .n_layers = 2};
	char text[4096];
	json_t *root;

	snprintf(text, sizeof(text), "{" PLAIN "%s%s}", *members ? "," : "", members);
	root = json_loads(text, 0, NULL);
	if (!root)
		bail_out("the test's own JSON");
	err = (struct weft_err){0};
	return adapter_config_parse("here", root, &model, dir ? data(dir) : NULL, &config, &err);
}

static void is_refused(const char *members, const char *dir, uint32_t vocab, const char *part)
{
	int r = parse(members, dir, vocab);

	ok(r < 0 && strstr(err.message, part), "refused: %.200s", r ? err.message : "NOT");
	if (!r)
		adapter_config_fini(&config);
}

static void gives(const char *members, const char *dir, json_t *want, const char *what)
{
	int r = parse(members, dir, 512);
	bool same = !r && config.n_invocation == json_array_size(want);

	for (size_t i = 0; same && i < config.n_invocation; i++)
		same = config.invocation[i] == json_integer_value(json_array_get(want, i));
	ok(same && config.activated == (json_array_size(want) > 0), "%s %s", what,
	   r ? err.message : "");
	if (!r)
		adapter_config_fini(&config);
}

int main(void)
{
	json_t *root = json_load_file(data("chat/oracle.json"), 0, NULL);
	json_t *item = json_array_get(json_object_get(root, "encode"), 1), *ids, *note, *none;
	char both[1000], text[500], *list, longer[1500];

	if (!item)
		skip_all("no fixture of a chat model");
	ids = json_array_get(item, 1);
	note = json_pack("[i]", 511);
	none = json_array();
	list = json_dumps(ids, JSON_COMPACT);
	snprintf(text, sizeof(text), "\"invocation_string\":\"%s\"",
		 json_string_value(json_array_get(item, 0)));
	snprintf(both, sizeof(both), "%s,\"alora_invocation_tokens\":%s", text, list);

	gives("", "chat", none, "neither: a plain LoRA");
	gives("\"invocation_string\":null", "chat", none, "null is neither");
	gives(text, "chat", ids, "text alone: the tokenizer's ids");
	gives("\"invocation_string\":\"<|note|>\"", "chat", note, "a special token is one");
	gives(both, "chat", ids, "both, which agree");
	gives(both, "models/llama", ids, "both, and no tokenizer: the ids");
	gives(both, NULL, ids, "both, and no folder");

	is_refused("\"invocation_string\":\"<|note|>\",\"alora_invocation_tokens\":[511,3]", "chat",
		   512, "is 511 by the model's tokenizer, and alora_invocation_tokens says 511 3");
	is_refused("\"invocation_string\":\"<|note|>\",\"alora_invocation_tokens\":[510]", "chat",
		   512, "says 510");
	is_refused(text, "models/llama", 512, "needs the ids");
	is_refused(text, NULL, 512, "needs the ids");
	is_refused("\"invocation_string\":\"<|note|>\"", "chat", 192, "another model's");
	is_refused("\"invocation_string\":7", "chat", 512, "must be a text");
	is_refused("\"invocation_string\":\"\"", "chat", 512, "must be a text");
	is_refused("\"invocation_string\":\"<|note|>\",\"alora_invocation_tokens\":[]", "chat", 512,
		   "must be a list");
	memset(longer, 0, sizeof(longer));
	strcpy(longer, "\"invocation_string\":\"");
	for (int i = 0; i < 70; i++)
		strcat(longer, "<|note|>");
	strcat(longer, "\"");
	is_refused(longer, "chat", 512, "has 70 tokens");

	free(list);
	json_decref(note);
	json_decref(none);
	json_decref(root);
	return tap_done();
}
