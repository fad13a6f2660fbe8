/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A conversation of weft chat, kept as tokens, has the ids that transformers gives for the whole of it
 * (tests/data/chat/oracle.json), however its answer ended.
 */
#include "tests/tap.h"
#include "tools/chat_talk.h"

#include <jansson.h>
#include <stdbool.h>
#include <unistd.h>

static struct text_model model;
static struct chat_talk talk;
static json_t *conversation; /* system, user, assistant, user */
static uint32_t end_id, pad_id;

static const char *data(const char *name)
{
	static char path[400];
	const char *src = getenv("WEFT_SRC");

	snprintf(path, sizeof(path), "%s/tests/data/chat%s", src ? src : ".", name);
	return path;
}

static const char *message(size_t i)
{
	json_t *m = json_array_get(json_object_get(conversation, "messages"), i);

	return json_string_value(json_object_get(m, "content"));
}

static bool prompt_is(json_t *want, size_t n)
{
	bool same = talk.prompt.n == n && n <= json_array_size(want);

	for (size_t i = 0; same && i < n; i++)
		same = talk.prompt.tokens[i] == json_integer_value(json_array_get(want, i));
	return same;
}

/* The conversation of the oracle, with an answer of these ids and what is known of its text. */
static void whole(const uint32_t *ids, uint32_t n, bool stopped, const char *what)
{
	json_t *want = json_object_get(conversation, "ids");
	struct text text = {0};
	int err = chat_talk_reset(&talk, message(0));

	err = err || chat_talk_ask(&talk, message(1), NULL);
	err = err || text_append(&text, message(2), strlen(message(2)));
	err = err || chat_talk_answer(&talk, ids, n, &text, stopped, NULL);
	err = err || chat_talk_ask(&talk, message(3), NULL);
	ok(!err && prompt_is(want, json_array_size(want)), "%s: %u ids", what, talk.prompt.n);
}

static void answers(void)
{
	uint32_t *ids, with[64];
	struct weft_error e;
	size_t n;

	if (weft_encode(model.tokenizer, message(2), strlen(message(2)), 0, &ids, &n, &e) || n > 50)
		bail_out("the answer's ids");
	memcpy(with, ids, n * sizeof(*ids));
	weft_text_free(ids);
	whole(with, (uint32_t)n, false, "an answer that was cut off");
	with[n] = end_id;
	whole(with, (uint32_t)n + 1, false, "one that ends as the template ends it");
	with[n] = pad_id;
	whole(with, (uint32_t)n + 1, false, "one that ends otherwise");
	with[n] = with[0];
	with[n + 1] = with[1];
	whole(with, (uint32_t)n + 2, true, "one that a stop string has ended");
}

/* A message that came to nothing leaves no trace; nor does what was before a reset. */
static void forgotten(void)
{
	json_t *want = json_object_get(conversation, "ids");
	uint32_t first;

	chat_talk_reset(&talk, message(0));
	chat_talk_ask(&talk, message(1), NULL);
	first = talk.prompt.n;
	ok(first && prompt_is(want, first), "a first message: the first %u ids", first);
	chat_talk_unask(&talk);
	chat_talk_ask(&talk, "something else that is said", NULL);
	chat_talk_unask(&talk);
	chat_talk_ask(&talk, message(1), NULL);
	is_int(talk.prompt.n, first, "the same again, after others that came to nothing");
}

/* An activated adapter's invocation stands in the place of the template's words before an answer. */
static void invoked(void)
{
	struct weft_adapter a = {.name = "a", .activated = 1, .n_invocation = 2};
	json_t *want = json_object_get(conversation, "ids");
	uint32_t with_words, start;

	chat_talk_reset(&talk, message(0));
	chat_talk_ask(&talk, message(1), NULL);
	with_words = talk.prompt.n;
	/* "<|im_start|>assistant\n" is what follows the last "<|im_end|>\n". */
	for (start = with_words - 1; talk.prompt.tokens[start] != talk.prompt.tokens[0]; start--)
		;
	chat_talk_unask(&talk);
	a.invocation[0] = pad_id;
	a.invocation[1] = 7;
	chat_talk_ask(&talk, message(1), &a);
	ok(talk.prompt.n == start + 2 && talk.prompt.tokens[start] == pad_id &&
		   talk.prompt.tokens[start + 1] == 7,
	   "an invocation of its own");
	talk.prompt.n = start;
	ok(prompt_is(want, start), "after the same conversation");
	chat_talk_unask(&talk);
	a.invocation[0] = (uint32_t)json_integer_value(json_array_get(want, with_words - 2));
	a.invocation[1] = (uint32_t)json_integer_value(json_array_get(want, with_words - 1));
	chat_talk_ask(&talk, message(1), &a);
	ok(prompt_is(want, with_words), "one that the template's own words hold is not put twice");
}

int main(void)
{
	json_t *root = json_load_file(data("/oracle.json"), 0, NULL);
	struct weft_error e;

	conversation = json_array_get(json_object_get(root, "chat"), 2);
	if (!conversation)
		skip_all("no fixture of a chat model");
	if (weft_tokenizer_open(&model.tokenizer, data(""), &e) ||
	    weft_template_open(&model.template, data(""), &e))
		bail_out(e.message);
	end_id = weft_token_id(model.tokenizer, "<|im_end|>");
	pad_id = weft_token_id(model.tokenizer, "<|pad|>");
	chat_talk_init(&talk, &model);
	answers();
	forgotten();
	invoked();
	chat_talk_fini(&talk);
	text_model_close(&model);
	json_decref(root);
	return tap_done();
}
