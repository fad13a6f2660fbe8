/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_run.c - `weft run`: one request, its answer printed as it comes.
 *
 * The prompt is text, unless --tokens says that it is ids: never guessed from how it looks, since
 * "12 7" is a text too. Text goes through the model's chat template as a user's message if the model
 * has one; --raw hands it to the model as it stands. The answer is of the prompt's kind.
 *
 * With one answer it is streamed; with several, or with log-probabilities, each answer has lines of
 * its own. --json prints one object at the end. An interrupt cancels the request and prints what
 * there is.
 */
#include "tools/cli.h"
#include "tools/patience.h"
#include "tools/text.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_SEQUENCES 16
#define MAX_BIAS      256
#define MAX_STOPS     16
/* A prompt has at most a token for each byte, of the template too, which is about as long. */
#define TEMPLATE_BYTES 65536

static struct {
	struct weft_open_options open;
	struct weft_submit_options submit;
	struct cli_tokens prompt, stop_tokens;
	struct weft_sequence sequences[MAX_SEQUENCES];
	struct weft_bias bias[MAX_BIAS];
	int json, stats, poll_always, no_resubmit, no_cache;
	int tokens, chat, raw, bare, special;
	const char *system;
	const char *stops[MAX_STOPS];
	uint32_t n_stops;
	struct text text;	 /* the prompt, unless it is tokens */
	struct text_model model; /* likewise */
	struct text_out out[WEFT_MAX_SAMPLES];
	bool cancelled; /* because a stop string came */
} run;

static volatile sig_atomic_t interrupted;

static int set_seed(void *value, const char *text)
{
	run.submit.has_seed = 1;
	return cli_set_u64(value, text);
}

static int set_sequence(void *value, const char *text)
{
	struct cli_tokens t = {0};

	(void)value;
	if (run.submit.n_stop_sequences == MAX_SEQUENCES || cli_set_tokens(&t, text))
		return -1;
	run.sequences[run.submit.n_stop_sequences++] = (struct weft_sequence){t.tokens, t.n};
	return 0;
}

static int set_stop(void *value, const char *text)
{
	(void)value;
	if (run.n_stops == MAX_STOPS || !*text)
		return -1;
	run.stops[run.n_stops++] = text;
	return 0;
}

/* TOKEN:VALUE,... */
static int set_bias(void *value, const char *text)
{
	char *copy = strdup(text), *at = copy, *word;
	int err = copy ? 0 : -1;

	(void)value;
	while (!err && (word = strsep(&at, ","))) {
		struct weft_bias *b = &run.bias[run.submit.n_bias];
		char *colon = strchr(word, ':');

		if (!colon || run.submit.n_bias == MAX_BIAS) {
			err = -1;
			break;
		}
		*colon = 0;
		err = cli_set_u32(&b->token, word) || cli_set_float(&b->value, colon + 1);
		run.submit.n_bias += !err;
	}
	free(copy);
	return err;
}

/* clang-format off */
static const struct cli_option options[] = {
	{"socket", 0, "PATH", cli_set_str, &run.open.socket, "the daemon's socket"},
	{"model", 'm', "NAME", cli_set_str, &run.open.model, "which model; default: the only one"},
	{"adapter", 'a', "NAME", cli_set_str, &run.submit.adapter, "which adapter; default: none"},
	{"tokens", 0, NULL, NULL, &run.tokens, "the prompt is token ids, and so is the answer"},
	{"chat", 0, NULL, NULL, &run.chat, "a user's message, by the chat template; default if there is one"},
	{"system", 'S', "TEXT", cli_set_str, &run.system, "the system message before it"},
	{"raw", 'r', NULL, NULL, &run.raw, "go on with the text as it stands, without the template"},
	{"bare", 'b', NULL, NULL, &run.bare, "with --raw: nor the tokens that the model expects around a text"},
	{"special", 0, NULL, NULL, &run.special, "take special tokens' texts in the prompt for special tokens"},
	{"stop", 0, "TEXT", set_stop, NULL, "end before this text; may be repeated"},
	{"n", 'n', "N", cli_set_u32, &run.submit.n, "so many answers, 1 to 16"},
	{"max-tokens", 't', "N", cli_set_u32, &run.submit.max_tokens, "of each answer; default 256"},
	{"min-tokens", 0, "N", cli_set_u32, &run.submit.min_tokens, "no end before so many"},
	{"temperature", 'T', "X", cli_set_float, &run.submit.temperature, "default 0: the likeliest token"},
	{"top-k", 'k', "N", cli_set_u32, &run.submit.top_k, "draw from the N likeliest; 0: all"},
	{"top-p", 'p', "X", cli_set_float, &run.submit.top_p, "draw from the likeliest of sum X"},
	{"min-p", 0, "X", cli_set_float, &run.submit.min_p, "draw from those >= X times the likeliest"},
	{"repetition-penalty", 0, "X", cli_set_float, &run.submit.repetition_penalty, "default 1: none"},
	{"presence-penalty", 0, "X", cli_set_float, &run.submit.presence_penalty, "default 0"},
	{"frequency-penalty", 0, "X", cli_set_float, &run.submit.frequency_penalty, "default 0"},
	{"logit-bias", 0, "TOKEN:X,...", set_bias, NULL, "add X to a token's logit; -inf forbids it"},
	{"seed", 's', "N", set_seed, &run.submit.seed, "same seed, same answer"},
	{"stop-token", 0, "TOKEN,...", cli_set_tokens, &run.stop_tokens, "end at any of these"},
	{"stop-sequence", 0, "TOKEN,...", set_sequence, NULL, "end at these in a row; may be repeated"},
	{"ignore-eos", 0, NULL, NULL, &run.submit.ignore_eos, "do not end at the model's end token"},
	{"logprobs", 'l', "K", cli_set_u32, &run.submit.logprobs, "log-probabilities, with K alternatives"},
	{"prompt-logprobs", 0, "K", cli_set_u32, &run.submit.prompt_logprobs, "likewise for the prompt"},
	{"priority", 0, "N", cli_set_i32, &run.submit.priority, "-100 to 100, higher first"},
	{"timeout-ms", 0, "N", cli_set_u32, &run.submit.timeout_ms, "the engine ends it after so long"},
	{"no-resubmit", 0, NULL, NULL, &run.no_resubmit, "fail if the daemon restarts"},
	{"no-cache", 0, NULL, NULL, &run.no_cache, "neither use the prefix cache nor add to it"},
	{"poll-always", 0, NULL, NULL, &run.poll_always, "spin instead of sleeping"},
	{"stats", 0, NULL, NULL, &run.stats, "times and counts, on stderr"},
	{"json", 'j', NULL, NULL, &run.json, "one JSON object at the end"},
};
/* clang-format on */

static const struct cli_command command = {
	"run",
	"[TEXT...]",
	"Answer a text: the arguments joined by blanks, or standard input without any. Prints the\n"
	"answer as it comes. With --tokens both are token ids.",
	options,
	sizeof(options) / sizeof(*options),
	-1,
};

static void on_interrupt(int sig)
{
	(void)sig;
	interrupted = 1;
}

/* --- printing ------------------------------------------------------------------------------------*/

static void print_entries(const struct weft_logprob *lp, int n)
{
	printf("%u\t%.6f", lp[0].token, lp[0].logprob);
	for (int i = 1; i < n; i++)
		printf("\t%u:%.6f", lp[i].token, lp[i].logprob);
	putchar('\n');
}

/* Is the answer to be printed as text? */
static bool as_text(void)
{
	return !run.tokens && run.submit.logprobs == WEFT_NO_LOGPROBS;
}

/* Tokens [from, to) of an answer. */
static void print_tokens(struct weft_request *r, uint32_t sample, uint32_t from, uint32_t to)
{
	uint32_t n;
	const uint32_t *t = weft_tokens(r, sample, &n);
	const struct weft_logprob *lp;

	for (uint32_t i = from; i < to; i++) {
		int k = weft_logprobs(r, sample, i, &lp);

		if (k > 0)
			print_entries(lp, k);
		else
			printf("%s%u", i ? " " : "", t[i]);
	}
	fflush(stdout);
}

static void print_prompt_logprobs(struct weft_request *r)
{
	const struct weft_logprob *lp;

	for (uint32_t i = 1; i < run.prompt.n; i++) {
		int k = weft_prompt_logprobs(r, i, &lp);

		if (k > 0) {
			fputs("prompt\t", stdout);
			print_entries(lp, k);
		}
	}
}

static const char *finish_name(enum weft_finish f)
{
	static const char *const names[] = {"none", "eos", "stop-token", "stop-sequence", "length"};

	return (unsigned)f < 5 ? names[f] : "unknown";
}

static const char *finish_of(const struct weft_result *res, uint32_t sample)
{
	return run.out[sample].stopped ? "stop-string" : finish_name(res->finish[sample]);
}

static double ms(uint64_t from, uint64_t to)
{
	return to > from ? (to - from) / 1e6 : 0;
}

static uint32_t total_tokens(struct weft_request *r)
{
	uint32_t total = 0;

	for (uint32_t s = 0; s < run.submit.n; s++) {
		uint32_t n;

		weft_tokens(r, s, &n);
		total += n;
	}
	return total;
}

static void print_stats(struct weft_request *r, const struct weft_result *res)
{
	uint32_t n = total_tokens(r);
	double decode_ms = ms(res->first_token_ns, res->end_ns);

	fprintf(stderr,
		"prompt %u tokens (%u cached), %u generated, seed %" PRIu64 "\n"
		"queued %.3f ms, first token %.3f ms (forward %.3f ms), total %.3f ms",
		res->prompt_tokens, res->cached_tokens, n, res->seed,
		ms(res->arrival_ns, res->start_ns), ms(res->arrival_ns, res->first_token_ns),
		res->forward_ns / 1e6, ms(res->arrival_ns, res->end_ns));
	if (n > res->n && decode_ms > 0)
		fprintf(stderr, ", %.1f tokens/s after the first", (n - res->n) / decode_ms * 1e3);
	if (res->activation != UINT32_MAX)
		fprintf(stderr, ", adapter from position %u", res->activation);
	if (res->invocation > WEFT_INVOCATION_FOUND)
		fprintf(stderr, ", invocation missing: %s", cli_invocation_name(res->invocation));
	if (res->resubmitted)
		fprintf(stderr, ", %u daemon restarts bridged", res->resubmitted);
	fputc('\n', stderr);
}

static void json_entries(const struct weft_logprob *lp, int n)
{
	printf("[");
	for (int i = 0; i < n; i++)
		printf("%s[%u,%.9g]", i ? "," : "", lp[i].token, lp[i].logprob);
	printf("]");
}

static void json_answer(struct weft_request *r, const struct weft_result *res, uint32_t sample)
{
	uint32_t n;
	const uint32_t *t = weft_tokens(r, sample, &n);
	const struct weft_logprob *lp;

	printf("{\"finish\":\"%s\",", finish_of(res, sample));
	if (!run.tokens) {
		printf("\"text\":");
		cli_json_string(run.out[sample].text.p, run.out[sample].text.n);
		putchar(',');
	}
	printf("\"tokens\":[");
	for (uint32_t i = 0; i < n; i++)
		printf("%s%u", i ? "," : "", t[i]);
	printf("]");
	if (run.submit.logprobs != WEFT_NO_LOGPROBS) {
		printf(",\"logprobs\":[");
		for (uint32_t i = 0; i < n; i++) {
			int k = weft_logprobs(r, sample, i, &lp);

			if (i)
				putchar(',');
			if (k > 0)
				json_entries(lp, k);
			else
				fputs("null", stdout);
		}
		printf("]");
	}
	printf("}");
}

static void print_json(struct weft_request *r, const struct weft_result *res)
{
	const struct weft_logprob *lp;

	printf("{\"status\":\"%s\",\"answers\":[", weft_status_name(res->status));
	for (uint32_t s = 0; s < res->n; s++) {
		if (s)
			putchar(',');
		json_answer(r, res, s);
	}
	printf("]");
	if (run.submit.prompt_logprobs != WEFT_NO_LOGPROBS) {
		printf(",\"prompt_logprobs\":[null");
		for (uint32_t i = 1; i < run.prompt.n; i++) {
			int k = weft_prompt_logprobs(r, i, &lp);

			putchar(',');
			if (k > 0)
				json_entries(lp, k);
			else
				fputs("null", stdout);
		}
		printf("]");
	}
	printf(",\"invocation\":\"%s\",\"activation\":", cli_invocation_name(res->invocation));
	cli_json_activation(res->activation);
	printf(",\"prompt_tokens\":%u,\"cached_tokens\":%u,\"seed\":%" PRIu64
	       ",\"queued_ms\":%.6f,\"first_token_ms\":%.6f,\"forward_ms\":%.6f,\"total_ms\":%.6f"
	       ",\"restarts_bridged\":%u}\n",
	       res->prompt_tokens, res->cached_tokens, res->seed,
	       ms(res->arrival_ns, res->start_ns), ms(res->arrival_ns, res->first_token_ns),
	       res->forward_ns / 1e6, ms(res->arrival_ns, res->end_ns), res->resubmitted);
}

/* --- waiting -------------------------------------------------------------------------------------*/

/* More of an answer: tokens [from, to). 1: a stop string has come; -1: after cli_fail(). */
static int take(struct weft_request *r, uint32_t sample, uint32_t from, uint32_t to)
{
	uint32_t n;
	const uint32_t *t = weft_tokens(r, sample, &n);

	if (!run.json && !as_text())
		print_tokens(r, sample, from, to);
	return run.tokens ? 0 : text_out_push(&run.out[sample], t + from, to - from);
}

/* Until the answer has ended; prints as it goes. 0 or -errno. */
static int64_t follow(struct weft_request *r, uint32_t sample)
{
	struct patience patience = PATIENCE_INIT(run.open.socket);
	bool told = false; /* the engine, of an interrupt */
	uint32_t have = 0;
	int stop;

	patience_news(&patience);
	for (;;) {
		/* Not for ever: an interrupt may come just before it, and ends no spinning. */
		int64_t n = weft_wait(r, sample, have, 200);

		if (interrupted && !told) {
			weft_cancel(r);
			told = true;
		}
		if (n == -EINTR || n == -ETIMEDOUT) {
			patience_none(&patience);
			continue;
		}
		if (n < 0)
			return n;
		if (n == have)
			return 0;
		patience_news(&patience);
		stop = take(r, sample, have, (uint32_t)n);
		if (stop < 0)
			return -ENOMEM;
		/* Of several answers each goes on to its own end: a request is cancelled whole. */
		if (stop && run.submit.n == 1 && !run.cancelled) {
			weft_cancel(r);
			run.cancelled = true;
		}
		have = (uint32_t)n;
	}
}

/* One answer, with what goes before and after it. */
static int64_t show_answer(struct weft_request *r, uint32_t sample)
{
	struct text_out *o = &run.out[sample];
	struct weft_result res = {.size = sizeof(res)};
	uint32_t count;
	FILE *to = !run.json && as_text() ? stdout : NULL;
	int64_t err;

	if (!run.json && run.submit.n > 1)
		printf(run.tokens && run.submit.logprobs == WEFT_NO_LOGPROBS ? "%u: "
									     : "answer %u:\n",
		       sample);
	if (!run.tokens && text_out_begin(o, &run.model, to, run.stops, run.n_stops))
		return -ENOMEM;
	err = follow(r, sample);
	if (!run.tokens)
		text_out_end(o);
	weft_result(r, &res);
	weft_tokens(r, sample, &count);
	if (res.status != WEFT_OK && !count)
		return err; /* refused */
	/* A text that ends its last line gets no second end. */
	if (!run.json && run.submit.logprobs == WEFT_NO_LOGPROBS &&
	    (run.tokens || !o->text.n || o->text.p[o->text.n - 1] != '\n'))
		putchar('\n');
	return err;
}

static int show(struct weft *w, struct weft_request *r)
{
	struct weft_result res = {.size = sizeof(res)};
	char text[256];
	int64_t err = 0;

	for (uint32_t s = 0; s < run.submit.n && !err; s++)
		err = show_answer(r, s);
	if (err)
		return cli_fail("wait for tokens: %s", strerror((int)-err));
	weft_result(r, &res);
	if (run.json)
		print_json(r, &res);
	else
		print_prompt_logprobs(r);
	fflush(stdout); /* what follows on stderr belongs below the answers */
	if (run.stats)
		print_stats(r, &res);
	if (interrupted)
		return 130;
	if (res.status == WEFT_OK || (res.status == WEFT_CANCELLED && run.cancelled))
		return 0;
	if (res.status == WEFT_NO_ADAPTER && run.submit.adapter)
		return text_no_adapter(w, run.submit.adapter);
	weft_status_text(&res, text, sizeof(text));
	return cli_fail("%s", text);
}

/* --- the prompt ----------------------------------------------------------------------------------*/

/* What cannot be asked for together, or NULL. */
static const char *conflict(void)
{
	if (run.tokens && (run.chat || run.raw || run.bare || run.special || run.system))
		return "--tokens gives the whole prompt as ids: --chat, --system, --raw, --bare "
		       "and "
		       "--special are about text";
	if (run.tokens && run.n_stops)
		return "--stop is a text; with --tokens say --stop-sequence";
	if (run.raw && (run.chat || run.system))
		return "--raw goes without the chat template: --chat and --system cannot be had";
	if (run.bare && !run.raw)
		return "--bare is about --raw: a chat template says itself what stands around a "
		       "text";
	return NULL;
}

static int raw_prompt(const struct weft_adapter *a, uint32_t **ids, size_t *n)
{
	uint32_t flags = (run.bare ? 0 : WEFT_ADD_SPECIAL) | (run.special ? WEFT_PARSE_SPECIAL : 0);
	struct weft_error e;

	if (weft_encode(run.model.tokenizer, run.text.p, run.text.n, flags, ids, n, &e))
		return cli_fail("%s", e.message);
	/* Without it the adapter's own setting decides; but what looks right and is not gets said. */
	if (a && weft_find_invocation(run.model.tokenizer, run.text.p, run.text.n, *ids, *n,
				      a->invocation, a->n_invocation, &e) < 0)
		return cli_fail("%s", e.message);
	return 0;
}

static int chat_prompt(const struct weft_adapter *a, uint32_t **ids, size_t *n)
{
	struct weft_message m[2];
	size_t n_messages = 0;

	if (run.system)
		m[n_messages++] = (struct weft_message){"system", run.system, strlen(run.system)};
	m[n_messages++] = (struct weft_message){"user", run.text.p, run.text.n};
	return text_prompt(&run.model, m, n_messages, run.special ? WEFT_CHAT_PARSE_SPECIAL : 0, a,
			   ids, n);
}

/* The text as ids, for the model that w serves. */
static int encode_prompt(struct weft *w)
{
	struct weft_adapter a;
	bool activated =
		run.submit.adapter && text_adapter(w, run.submit.adapter, &a) && a.n_invocation;
	uint32_t *ids = NULL;
	size_t n = 0;
	int err;

	if (text_model_open(&run.model, w))
		return 1;
	if ((run.chat || run.system) && !run.model.template)
		return cli_fail("the model has no chat template: say --raw");
	if (run.raw || !run.model.template)
		err = raw_prompt(activated ? &a : NULL, &ids, &n);
	else
		err = chat_prompt(activated ? &a : NULL, &ids, &n);
	for (size_t i = 0; i < n && !err; i++)
		err = cli_tokens_add(&run.prompt, ids[i]) ? cli_fail("out of memory") : 0;
	weft_text_free(ids);
	if (!err && !run.prompt.n)
		err = cli_fail("no prompt: the text has no tokens");
	if (!err && !run.submit.ignore_eos && run.model.eos != WEFT_NO_TOKEN)
		err = cli_tokens_add(&run.stop_tokens, run.model.eos);
	return err;
}

static int submit(struct weft *w)
{
	struct weft_request *r;
	struct weft_error e;

	run.submit.prompt = run.prompt.tokens;
	run.submit.n_prompt = run.prompt.n;
	run.submit.stop_tokens = run.stop_tokens.tokens;
	run.submit.n_stop_tokens = run.stop_tokens.n;
	run.submit.stop_sequences = run.sequences;
	run.submit.bias = run.bias;
	if (weft_submit(w, &r, &run.submit, &e) < 0)
		return cli_fail("%s", e.message);
	return show(w, r);
}

static uint64_t prompt_bytes(void)
{
	uint64_t tokens = run.prompt.n;

	if (!run.tokens)
		tokens = 2 * run.text.n + TEMPLATE_BYTES + (run.system ? strlen(run.system) : 0);
	return (tokens + (uint64_t)run.submit.n * run.submit.max_tokens) * 4 + 65536;
}

static void clean_up(void)
{
	for (uint32_t i = 0; i < WEFT_MAX_SAMPLES; i++)
		text_out_fini(&run.out[i]);
	text_model_close(&run.model);
	free(run.text.p);
	free(run.prompt.tokens);
	free(run.stop_tokens.tokens);
	for (uint32_t i = 0; i < run.submit.n_stop_sequences; i++)
		free((void *)(uintptr_t)run.sequences[i].tokens);
}

int cmd_run(int argc, char **argv)
{
	/* Waits end all the same. What is being written must not: the rest would be lost. Where it
	 * cannot be written, a second interrupt ends the program. */
	struct sigaction sa = {.sa_handler = on_interrupt, .sa_flags = SA_RESTART | SA_RESETHAND};
	struct weft *w;
	int n, status;

	run.open = (struct weft_open_options)WEFT_OPEN_OPTIONS_INIT;
	weft_submit_options_init(&run.submit);
	n = cli_parse(&command, argc, argv);
	if (conflict())
		return cli_fail("%s", conflict());
	if (run.submit.n < 1 || run.submit.n > WEFT_MAX_SAMPLES)
		return cli_fail("n must be 1 to %u", WEFT_MAX_SAMPLES);
	if (run.tokens ? cli_read_prompt(&run.prompt, n, argv, NULL)
		       : text_read(&run.text, n, argv, NULL))
		return 1;
	if (!run.tokens && text_is_piped(n, argv))
		text_drop_newline(&run.text);
	if (!run.tokens && !run.text.n)
		return cli_fail("no prompt: give a text as arguments or on standard input");
	run.open.slots = 1;
	run.open.prompt_bytes = prompt_bytes();
	run.open.flags = run.poll_always ? WEFT_POLL_ALWAYS : 0;
	run.submit.flags =
		(run.no_resubmit ? WEFT_NO_RESUBMIT : 0) | (run.no_cache ? WEFT_NO_CACHE : 0);
	if (patience_open(&w, &run.open))
		return 1;
	/* Not before: there is nothing to cancel while the session is being opened. */
	sigaction(SIGINT, &sa, NULL);
	status = run.tokens ? 0 : encode_prompt(w);
	if (!status)
		status = submit(w);
	weft_close(w);
	clean_up();
	return status;
}
