/* SPDX-License-Identifier: Apache-2.0 */
/* chat_talk.c - see chat_talk.h. One thread. */
#include "tools/chat_talk.h"

#include <stdlib.h>
#include <string.h>

/* Without a template a conversation is written down as a play is. */
static const char *const plain_stops[] = {"\nUser:", "\nAssistant:"};

uint32_t chat_talk_stops(const struct chat_talk *t, const char *const **ret)
{
	*ret = plain_stops;
	return t->model->template ? 0 : 2;
}

void chat_talk_init(struct chat_talk *t, const struct text_model *model)
{
	*t = (struct chat_talk){.model = model};
}

static void drop_message(struct chat_talk *t)
{
	free(t->messages[--t->n_messages].text.p);
}

/* The new message, or NULL after cli_fail(). */
static struct chat_message *add_message(struct chat_talk *t, const char *role)
{
	struct chat_message *m;

	if (t->n_messages == t->room) {
		size_t room = t->room ? 2 * t->room : 16;

		m = reallocarray(t->messages, room, sizeof(*m));
		if (!m) {
			cli_fail("out of memory");
			return NULL;
		}
		t->messages = m;
		t->room = room;
	}
	m = &t->messages[t->n_messages++];
	*m = (struct chat_message){.role = role};
	return m;
}

int chat_talk_reset(struct chat_talk *t, const char *system)
{
	struct chat_message *m;

	while (t->n_messages)
		drop_message(t);
	t->tokens.n = t->prompt.n = t->n_answer = 0;
	if (!system || !*system)
		return 0;
	m = add_message(t, "system");
	return m ? text_append(&m->text, system, strlen(system)) : 1;
}

void chat_talk_fini(struct chat_talk *t)
{
	while (t->n_messages)
		drop_message(t);
	free(t->messages);
	free(t->tokens.tokens);
	free(t->prompt.tokens);
}

static int add_ids(struct cli_tokens *to, const uint32_t *ids, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (cli_tokens_add(to, ids[i]))
			return cli_fail("out of memory");
	return 0;
}

/* --- asking --------------------------------------------------------------------------------------*/

/* What comes after the tokens so far, by the template. */
static int by_template(struct chat_talk *t, const struct weft_adapter *a, uint32_t **ids, size_t *n)
{
	struct weft_message *m = calloc(t->n_messages, sizeof(*m));
	int err;

	if (!m)
		return cli_fail("out of memory");
	for (size_t i = 0; i < t->n_messages; i++)
		m[i] = (struct weft_message){t->messages[i].role, t->messages[i].text.p,
					     t->messages[i].text.n};
	err = text_prompt(t->model, m, t->n_messages, t->tokens.n ? WEFT_CHAT_AFTER : 0, a, ids, n);
	free(m);
	return err;
}

static int plainly(struct chat_talk *t, const struct weft_adapter *a, uint32_t **ids, size_t *n)
{
	const struct chat_message *last = &t->messages[t->n_messages - 1];
	uint32_t flags = t->tokens.n ? 0 : WEFT_ADD_SPECIAL;
	struct text text = {0};
	struct weft_error e;
	int err = 0;

	if (t->tokens.n)
		err = text_append(&text, "\n", 1);
	else if (t->n_messages > 1)
		err = text_append(&text, t->messages[0].text.p, t->messages[0].text.n) ||
		      text_append(&text, "\n\n", 2);
	err = err || text_append(&text, "User: ", 6) ||
	      text_append(&text, last->text.p, last->text.n) || text_append(&text, "\n", 1);
	/* An activated adapter answers after its invocation. */
	if (!a || !a->n_invocation)
		err = err || text_append(&text, "Assistant:", 10);
	if (!err && weft_encode(t->model->tokenizer, text.p, text.n, flags, ids, n, &e))
		err = cli_fail("%s", e.message);
	free(text.p);
	return err;
}

/*
 * The answer's last token may be what the template ends an answer with: then it is there already. If
 * it is another end, the template's own takes its place (it has no KV yet: nothing is lost).
 */
static void join(struct chat_talk *t, const uint32_t **ids, size_t *n)
{
	uint32_t last = t->prompt.n ? t->prompt.tokens[t->prompt.n - 1] : WEFT_NO_TOKEN;

	if (!t->n_answer || !t->model->template ||
	    !weft_token_is_special(t->model->tokenizer, last) || !*n)
		return;
	if (last == (*ids)[0]) {
		++*ids;
		--*n;
	} else if (weft_token_is_special(t->model->tokenizer, (*ids)[0])) {
		t->prompt.n--;
	}
}

int chat_talk_ask(struct chat_talk *t, const char *text, const struct weft_adapter *a)
{
	struct chat_message *m = add_message(t, "user");
	uint32_t *ids = NULL;
	const uint32_t *part;
	size_t n = 0;
	int err = m ? text_append(&m->text, text, strlen(text)) : 1;

	if (!err)
		err = t->model->template ? by_template(t, a, &ids, &n) : plainly(t, a, &ids, &n);
	t->prompt.n = 0;
	err = err || add_ids(&t->prompt, t->tokens.tokens, t->tokens.n);
	if (!err) {
		part = ids;
		join(t, &part, &n);
		err = add_ids(&t->prompt, part, n);
	}
	if (!err && !t->model->template && a && a->n_invocation)
		err = add_ids(&t->prompt, a->invocation, a->n_invocation);
	weft_text_free(ids);
	if (err && m)
		drop_message(t);
	return err;
}

void chat_talk_unask(struct chat_talk *t)
{
	drop_message(t);
}

/* --- answers -------------------------------------------------------------------------------------*/

/* How many of the tokens are wholly within the first `bytes` of their text. */
static uint32_t within(const struct chat_talk *t, const uint32_t *ids, uint32_t n, size_t bytes)
{
	uint32_t low = 0, high = n;

	while (low < high) {
		uint32_t mid = low + (high - low + 1) / 2;
		char *text;
		size_t len;

		if (weft_decode(t->model->tokenizer, ids, mid, WEFT_SKIP_SPECIAL, &text, &len,
				NULL))
			return low;
		weft_text_free(text);
		if (len <= bytes)
			low = mid;
		else
			high = mid - 1;
	}
	return low;
}

int chat_talk_answer(struct chat_talk *t, const uint32_t *ids, uint32_t n, struct text *text,
		     bool stopped, const char *adapter)
{
	struct chat_message *m = add_message(t, "assistant");

	if (!m)
		return 1;
	m->text = *text;
	*text = (struct text){0};
	snprintf(m->adapter, sizeof(m->adapter), "%s", adapter ? adapter : "");
	if (stopped)
		n = within(t, ids, n, m->text.n);
	t->tokens.n = 0;
	t->n_answer = n;
	return add_ids(&t->tokens, t->prompt.tokens, t->prompt.n) || add_ids(&t->tokens, ids, n);
}
