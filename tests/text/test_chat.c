/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Conversations to ids against transformers' apply_chat_template() (tests/oracle/make_chat.py): whole
 * ones, what follows an answer, and messages that try to be special tokens. And invocations that a text
 * holds, or seems to hold.
 */
#include "libclient/text/weft_text.h"
#include "tests/tap.h"

#include <errno.h>
#include <jansson.h>
#include <stdbool.h>
#include <unistd.h>

static struct weft_tokenizer *tokenizer;
static struct weft_template *template;

static const char *data(const char *name)
{
	static char path[400];
	const char *src = getenv("WEFT_SRC");

	snprintf(path, sizeof(path), "%s/tests/data/chat%s", src ? src : ".", name);
	return path;
}

static char *read_all(const char *name, size_t *ret)
{
	FILE *f = fopen(data(name), "rb");
	char *p = malloc(1 << 20);

	if (!f || !p)
		skip_all("no fixture of a chat model");
	*ret = fread(p, 1, 1 << 20, f);
	fclose(f);
	return p;
}

static size_t messages_of(json_t *list, struct weft_message *m)
{
	json_t *item;
	size_t i;

	json_array_foreach(list, i, item)
	{
		json_t *content = json_object_get(item, "content");

		m[i].role = json_string_value(json_object_get(item, "role"));
		m[i].content = json_string_value(content);
		m[i].content_bytes = json_string_length(content);
	}
	return json_array_size(list);
}

static bool same(const uint32_t *ids, size_t n, json_t *want)
{
	bool same = n == json_array_size(want);

	for (size_t i = 0; same && i < n; i++)
		same = ids[i] == json_integer_value(json_array_get(want, i));
	return same;
}

/* Encode every conversation of the oracle's list and compare. */
static void compare(json_t *root, const char *list, uint32_t flags)
{
	struct weft_message m[16];
	struct weft_error e = {0};
	json_t *item;
	size_t i;

	json_array_foreach(json_object_get(root, list), i, item)
	{
		json_t *answer = json_object_get(item, "answer");
		uint32_t f = flags | (json_is_false(answer) ? 0 : WEFT_CHAT_ANSWER), *ids = NULL;
		size_t n = messages_of(json_object_get(item, "messages"), m), n_ids = 0;
		int r = weft_chat_encode(tokenizer, template, m, n, f, &ids, &n_ids, &e);

		ok(!r && same(ids, n_ids, json_object_get(item, "ids")), "%s %zu: %zu ids %s", list,
		   i, n_ids, r ? e.message : "");
		weft_text_free(ids);
	}
	ok(i > 1, "there are such conversations");
}

/* What one message's content becomes: its ids between "<|im_start|>user\n" and "<|im_end|>". */
static uint32_t specials_in(const char *content, size_t bytes, uint32_t flags)
{
	struct weft_message m = {"user", content, bytes};
	uint32_t *ids, found = 0;
	size_t n;

	if (weft_chat_encode(tokenizer, template, &m, 1, flags, &ids, &n, NULL))
		return UINT32_MAX;
	for (size_t i = 0; i < n; i++)
		found += weft_token_is_special(tokenizer, ids[i]);
	weft_text_free(ids);
	return found;
}

/* Whatever is put together of pieces of special tokens, the template's two stay the only ones. */
static void random_attacks(void)
{
	static const char *const pieces[] = {"<",	 "|",	       "im",	 "_",
					     "start",	 "end",	       "|>",	 ">",
					     "<|",	 "note",       "pad",	 "\n",
					     " ",	 "<|im_start", "im_end", "<|im_end|>",
					     "<|note|>", "\ufdd0",     "a",	 "\ufdd1"};
	uint32_t wrong = 0, state = 7;
	char text[256];

	for (int i = 0; i < 3000; i++) {
		text[0] = 0;
		for (uint32_t k = 0; k < 1 + (state >> 8) % 12; k++) {
			state = state * 1664525 + 1013904223;
			strcat(text, pieces[(state >> 16) % (sizeof(pieces) / sizeof(*pieces))]);
		}
		state = state * 1664525 + 1013904223;
		wrong += specials_in(text, strlen(text), 0) != 2;
	}
	is_int(wrong, 0, "3000 texts of pieces of special tokens make none");
	is_int(specials_in("<|im_end|>", 10, WEFT_CHAT_PARSE_SPECIAL), 3, "unless it is asked for");
	is_int(specials_in("a\xff<|im_\x80"
			   "end|>",
			   13, 0),
	       2, "ill-formed text is text");
	is_int(specials_in(NULL, 0, 0), 2, "and so is none");
}

/* A template that leaves off in the middle of what could become a token. */
static void straddling(void)
{
	static const char source[] = "{{ '<|im_' + messages[0]['content'] | trim + '_end|>' }}";
	static const char *const texts[] = {"start|>",	  " end|> x", "x <|im",
					    "x\n<|im \n", "ok",	      ""};
	static const char inside[] = "{{ '<|' + messages[0]['content'] + '|>' }}";
	struct weft_template *before = template;
	struct weft_error e = {0};
	uint32_t wrong = 0;

	if (weft_template_new(&template, source, strlen(source), &e))
		bail_out(e.message);
	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++)
		wrong += specials_in(texts[i], strlen(texts[i]), 0) != 0;
	is_int(wrong, 0, "no token begins in the template and ends in a message, or the reverse");
	ok(specials_in(texts[0], strlen(texts[0]), WEFT_CHAT_PARSE_SPECIAL) == 1,
	   "which would happen without care");
	weft_template_free(template);
	if (weft_template_new(&template, inside, strlen(inside), &e))
		bail_out(e.message);
	is_int(specials_in("note", 4, 0), 0, "nor around one");
	weft_template_free(template);
	template = before;
}

static void all_noncharacters(void)
{
	struct weft_message m = {"user", NULL, 0};
	struct weft_error e = {0};
	char text[200];
	uint32_t *ids;
	size_t n = 0;

	for (uint32_t c = 0xfdd0; c < 0xfdf0; c++) {
		text[n++] = (char)0xef;
		text[n++] = (char)(0x80 | (c >> 6 & 0x3f));
		text[n++] = (char)(0x80 | (c & 0x3f));
	}
	m.content = text;
	m.content_bytes = n;
	is_int(weft_chat_encode(tokenizer, template, &m, 1, 0, &ids, &n, &e), -EINVAL, "%s",
	       e.message);
}

static void wrong_use(void)
{
	struct weft_message m = {"user", "x", 1};
	struct weft_error e = {0};
	struct weft_template *t;
	static const char drops[] =
		"{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}"
		"{% endif %}{% endfor %}";
	struct weft_message two[] = {{"user", "x", 1}, {"assistant", "y", 1}};
	uint32_t *ids;
	size_t n;

	is_int(weft_chat_encode(tokenizer, template, &m, 1, 64, &ids, &n, &e), -EINVAL, "%s",
	       e.message);
	is_int(weft_chat_encode(tokenizer, template, &m, 1, WEFT_CHAT_AFTER, &ids, &n, &e), -EINVAL,
	       "%s", e.message);
	if (weft_template_new(&t, drops, strlen(drops), &e))
		bail_out(e.message);
	is_int(weft_chat_encode(tokenizer, t, two, 2, WEFT_CHAT_AFTER, &ids, &n, &e), -EOPNOTSUPP,
	       "%s", e.message);
	weft_template_free(t);
}

/* flags: of weft_encode(). */
static int find(const char *text, uint32_t flags, const uint32_t *invocation, size_t n_invocation,
		struct weft_error *e)
{
	uint32_t *ids;
	size_t n;
	int r;

	if (weft_encode(tokenizer, text, strlen(text), flags, &ids, &n, e))
		bail_out("encode");
	r = weft_find_invocation(tokenizer, text, strlen(text), ids, n, invocation, n_invocation,
				 e);
	weft_text_free(ids);
	return r;
}

static void invocations(void)
{
	struct weft_error e = {0};
	uint32_t note = weft_token_id(tokenizer, "<|note|>"), *word;
	size_t n;

	is_int(find("say <|note|> now", WEFT_PARSE_SPECIAL, &note, 1, &e), 1, "a special token");
	is_int(find("say something", WEFT_PARSE_SPECIAL, &note, 1, &e), 0, "none");
	is_int(find("say <|note|> now", 0, &note, 1, &e), -EILSEQ, "%s", e.message);
	ok(strstr(e.message, "special"), "it says why");
	/* "print" as a text of its own; in "The printer" it is merged with the blank before it. */
	if (weft_encode(tokenizer, "print", 5, 0, &word, &n, &e))
		bail_out("encode");
	is_int(find("print", 0, word, n, &e), 1, "a word");
	is_int(find("The printer", 0, word, n, &e), -EILSEQ, "%s", e.message);
	ok(strstr(e.message, "merged") && strstr(e.message, "\"print\""), "it says why");
	is_int(find("nothing", 0, word, n, &e), 0, "no word");
	is_int(find("nothing", 0, word, 0, &e), 0, "no invocation at all");
	weft_text_free(word);
}

int main(void)
{
	struct weft_error e = {0};
	json_t *root;
	char *config;
	size_t n;

	config = read_all("/tokenizer_config.json", &n);
	root = json_load_file(data("/oracle.json"), 0, NULL);
	if (weft_tokenizer_open(&tokenizer, data(""), &e) ||
	    weft_template_new_from(&template, NULL, 0, config, n, &e))
		bail_out(e.message);
	compare(root, "chat", 0);
	compare(root, "after", WEFT_CHAT_AFTER);
	compare(root, "hostile", 0);
	random_attacks();
	straddling();
	all_noncharacters();
	wrong_use();
	invocations();
	is_int(weft_template_new_from(&(struct weft_template *){0}, NULL, 0, "{}", 2, &e), -ENOENT,
	       "%s", e.message);
	weft_template_free(template);
	weft_tokenizer_close(tokenizer);
	json_decref(root);
	free(config);
	return tap_done();
}
