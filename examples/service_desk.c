/* SPDX-License-Identifier: Apache-2.0 */
/*
 * service_desk.c - what sharing one cache is worth, with the demo model family and libweft alone.
 *
 *	service_desk CONVERSATION [REPEATS]
 *
 * The base model answers a customer. Then five activated adapters judge the conversation, all at once,
 * and the base model answers an operator's question about it. All of that is done with the prefix cache
 * and without, in turns, REPEATS times; answers have to be the same, and times are medians. So that the
 * cache is cold each time, the price list at the beginning of the conversation is turned by a sentence.
 *
 * CONVERSATION is a file of lines "role: text", the first of them the price list ("system").
 * One thread; everything is freed by the process' end.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <weft.h>
#include <weft_text.h>

#define MAX_MESSAGES 32
#define N_ADAPTERS   5
#define N_CALLS	     (N_ADAPTERS + 2) /* the base model's answer, the adapters', the operator's */
#define MAX_REPEATS  51
#define LAST	     (N_CALLS - 1)

static const char *const tasks[N_ADAPTERS] = {"topic", "urgency", "answerable", "extract",
					      "rewrite"};
static const char question[] = "What was offered?";

struct call {
	struct weft_request *request;
	struct weft_result result;
	char *text; /* owner: the answer */
};

/* One way through all calls. */
struct round {
	struct call calls[N_CALLS];
	double adapters_ms, all_ms;
};

static struct weft *w;
static struct weft_tokenizer *tokenizer;
static struct weft_template *template;
static struct weft_message messages[MAX_MESSAGES];
static size_t n_messages;

static void die(const char *what, const char *why)
{
	fprintf(stderr, "service_desk: %s: %s\n", what, why);
	exit(1);
}

static double now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1e3 + ts.tv_nsec * 1e-6;
}

/* --- the conversation ----------------------------------------------------------------------------*/

static void set_message(size_t i, const char *role, const char *content)
{
	messages[i] = (struct weft_message){role, content, strlen(content)};
}

static void read_conversation(const char *path)
{
	FILE *f = fopen(path, "r");
	char *line = NULL, *text;
	size_t room = 0;

	if (!f)
		die(path, strerror(errno));
	while (getline(&line, &room, f) > 0) {
		line[strcspn(line, "\n")] = 0;
		text = strstr(line, ": ");
		/* Room for the answer and for the operator's question is left. */
		if (!text || n_messages == MAX_MESSAGES - 2)
			die(path, "not a conversation");
		*text = 0;
		set_message(n_messages++, strdup(line), strdup(text + 2));
	}
	free(line);
	fclose(f);
	if (n_messages < 2 || strcmp(messages[0].role, "system"))
		die(path, "the first line is not the price list");
}

/* The price list's first sentence goes to its end. */
static void turn_prices(void)
{
	const char *old = messages[0].content, *rest = strstr(old, ". ");
	char *new;

	if (!rest)
		die("the price list", "it has one sentence only");
	if (asprintf(&new, "%s %.*s.", rest + 2, (int)(rest - old), old) < 0)
		die("the price list", "out of memory");
	set_message(0, messages[0].role, new);
}

static void print_wrapped(const char *who, const char *text)
{
	size_t column = 0;

	printf("  %-11s", who);
	while (*text) {
		size_t n = strcspn(text, " ");

		if (column && column + 1 + n > 84)
			column = (size_t)printf("\n  %-11s", "") * 0;
		column += (size_t)printf("%s%.*s", column ? " " : "", (int)n, text);
		text += n + (text[n] == ' ');
	}
	putchar('\n');
}

static void print_conversation(uint32_t n_tokens)
{
	size_t prices = 0;

	for (const char *p = messages[0].content; (p = strstr(p, "euros.")); p++)
		prices++;
	printf("\nThe conversation: a price list of %zu lines, and\n\n", prices);
	for (size_t i = 1; i < n_messages; i++)
		print_wrapped(strcmp(messages[i].role, "user") ? messages[i].role : "customer",
			      messages[i].content);
	printf("\n  %u tokens in all.\n", n_tokens);
}

/* --- calls ---------------------------------------------------------------------------------------*/

static void submit(struct call *c, const char *adapter, const uint32_t *ids, size_t n,
		   uint32_t flags)
{
	struct weft_submit_options o;
	struct weft_error e;

	weft_submit_options_init(&o);
	o.prompt = ids;
	o.n_prompt = (uint32_t)n;
	o.adapter = adapter;
	o.max_tokens = 40;
	o.flags = flags;
	if (weft_submit(w, &c->request, &o, &e) < 0)
		die("submit", e.message);
}

/* Wait for the end of a call's answer; its ids stay the request's. */
static const uint32_t *finish(struct call *c, uint32_t *ret_n)
{
	const uint32_t *ids;
	struct weft_error e;
	char why[256];
	size_t bytes;
	uint32_t n;

	while (c->result.size = sizeof(c->result), weft_result(c->request, &c->result),
	       c->result.status == WEFT_RUNNING) {
		weft_tokens(c->request, 0, &n);
		weft_wait(c->request, 0, n, 1000);
	}
	if (c->result.status != WEFT_OK) {
		weft_status_text(&c->result, why, sizeof(why));
		die("an answer", why);
	}
	ids = weft_tokens(c->request, 0, ret_n);
	if (weft_decode(tokenizer, ids, *ret_n, WEFT_SKIP_SPECIAL, &c->text, &bytes, &e))
		die("an answer", e.message);
	return ids;
}

static size_t encode(size_t n, uint32_t flags, uint32_t **ret)
{
	struct weft_error e;
	size_t n_ids;

	if (weft_chat_encode(tokenizer, template, messages, n, flags, ret, &n_ids, &e))
		die("the conversation", e.message);
	return n_ids;
}

/* The first n ids and more behind them. */
static uint32_t *joined(const uint32_t *a, size_t n_a, const uint32_t *b, size_t n_b)
{
	uint32_t *ids = malloc((n_a + n_b) * sizeof(*ids));

	if (!ids)
		die("a prompt", "out of memory");
	memcpy(ids, a, n_a * sizeof(*ids));
	memcpy(ids + n_a, b, n_b * sizeof(*ids));
	return ids;
}

/* The five adapters at once: each one's prompt is the conversation and what wakes it. */
static void ask_adapters(struct call *calls, uint32_t flags)
{
	static struct weft_adapter all[64];
	int n_all = weft_adapters(w, all, 64);
	uint32_t *talk, *ids, n_answer;
	size_t n = encode(n_messages, 0, &talk);
	char name[64];

	for (int i = 0; i < N_ADAPTERS; i++) {
		int a = 0;

		snprintf(name, sizeof(name), "alora-%s", tasks[i]);
		while (a < n_all && strcmp(all[a].name, name))
			a++;
		if (a == n_all)
			die(name, "no such adapter is loaded");
		ids = joined(talk, n, all[a].invocation, all[a].n_invocation);
		submit(&calls[i], name, ids, n + all[a].n_invocation, flags);
		free(ids);
	}
	for (int i = 0; i < N_ADAPTERS; i++)
		finish(&calls[i], &n_answer);
	weft_text_free(talk);
}

/* What the model has said is kept as its ids; only what follows is encoded. */
static void ask_operator(struct call *c, const uint32_t *prompt, size_t n_prompt,
			 const struct call *first, uint32_t flags)
{
	const uint32_t *answer;
	uint32_t *after, *so_far, *ids, n_answer;
	size_t n_after;

	set_message(n_messages, "assistant", first->text);
	set_message(n_messages + 1, "operator", question);
	n_after = encode(n_messages + 2, WEFT_CHAT_ANSWER | WEFT_CHAT_AFTER, &after);
	answer = weft_tokens(first->request, 0, &n_answer);
	/* The token that ends an answer is the template's to say. */
	if (n_answer && n_after && answer[n_answer - 1] == after[0])
		n_answer--;
	so_far = joined(prompt, n_prompt, answer, n_answer);
	ids = joined(so_far, n_prompt + n_answer, after, n_after);
	submit(c, NULL, ids, n_prompt + n_answer + n_after, flags);
	finish(c, &n_answer);
	free(so_far);
	free(ids);
	weft_text_free(after);
}

static void run_round(struct round *r, uint32_t flags)
{
	double start = now_ms(), middle;
	uint32_t *prompt, n_answer;
	size_t n = encode(n_messages, WEFT_CHAT_ANSWER, &prompt);

	memset(r, 0, sizeof(*r));
	submit(&r->calls[0], NULL, prompt, n, flags);
	finish(&r->calls[0], &n_answer);
	middle = now_ms();
	ask_adapters(r->calls + 1, flags);
	r->adapters_ms = now_ms() - middle;
	ask_operator(&r->calls[LAST], prompt, n, &r->calls[0], flags);
	r->all_ms = now_ms() - start;
	weft_text_free(prompt);
	for (int i = 0; i < N_CALLS; i++) {
		weft_free(r->calls[i].request);
		r->calls[i].request = NULL;
	}
}

/* --- what came of it -----------------------------------------------------------------------------*/

static double first_ms(const struct call *c)
{
	return (double)(c->result.first_token_ns - c->result.arrival_ns) / 1e6;
}

static void print_call(const char *who, const struct call *c)
{
	printf("  %-10s  %-62s %6.2f ms  %4u of %u\n", who, c->text, first_ms(c),
	       c->result.cached_tokens, c->result.prompt_tokens);
}

static void print_round(const struct round *r)
{
	printf("\n%-76s %9s  %s\n\n", "The answers", "1st token", "from the cache");
	print_call("base", &r->calls[0]);
	putchar('\n');
	for (int i = 0; i < N_ADAPTERS; i++)
		print_call(tasks[i], &r->calls[1 + i]);
	printf("\n  %-10s  %s\n", "operator", question);
	print_call("base", &r->calls[LAST]);
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(const double *values, int n)
{
	double sorted[MAX_REPEATS];

	memcpy(sorted, values, (size_t)n * sizeof(*values));
	qsort(sorted, (size_t)n, sizeof(*sorted), ascending);
	return sorted[n / 2];
}

static void check_same(const struct round *a, const struct round *b)
{
	for (int i = 0; i < N_CALLS; i++)
		if (strcmp(a->calls[i].text, b->calls[i].text))
			die("an answer is another with the cache", b->calls[i].text);
}

static void print_row(const char *what, const double *without, const double *with, int n)
{
	double a = median(without, n), b = median(with, n);

	printf("  %-36s %10.1f ms %10.1f ms %8.1f times\n", what, a, b, a / b);
}

int main(int argc, char **argv)
{
	double adapters[2][MAX_REPEATS], all[2][MAX_REPEATS], first[2][MAX_REPEATS];
	int repeats = argc > 2 ? atoi(argv[2]) : 5;
	static struct round rounds[2];
	struct weft_error e;

	if (argc < 2 || repeats < 1 || repeats > MAX_REPEATS)
		die("usage", "service_desk CONVERSATION [REPEATS, at most 51]");
	read_conversation(argv[1]);
	if (weft_open(&w, NULL, &e) || weft_tokenizer_open_served(&tokenizer, w, &e) ||
	    weft_template_open_served(&template, w, &e))
		die("open", e.message);
	/* Not counted: adapters are brought into memory by their first call. */
	run_round(&rounds[0], WEFT_NO_CACHE);
	print_conversation(rounds[0].calls[0].result.prompt_tokens);
	for (int i = 0; i < repeats; i++) {
		if (i)
			turn_prices();
		for (int c = 0; c < 2; c++) {
			run_round(&rounds[c], c ? 0 : WEFT_NO_CACHE);
			adapters[c][i] = rounds[c].adapters_ms;
			all[c][i] = rounds[c].all_ms;
			first[c][i] = first_ms(&rounds[c].calls[LAST]);
		}
		check_same(&rounds[0], &rounds[1]);
		if (!i)
			print_round(&rounds[1]);
	}
	printf("\nThe same answers, without the cache and with it (medians of %d)\n\n", repeats);
	printf("  %-36s %13s %13s\n", "", "without", "with");
	print_row("five adapters at once", adapters[0], adapters[1], repeats);
	print_row("first token of the base model's last", first[0], first[1], repeats);
	print_row("everything above", all[0], all[1], repeats);
	printf("\n  Saved: %.1f ms of %.1f.\n", median(all[0], repeats) - median(all[1], repeats),
	       median(all[0], repeats));
	weft_template_free(template);
	weft_tokenizer_close(tokenizer);
	weft_close(w);
	return 0;
}
