/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_chat.c - `weft chat`: a conversation with a model and its adapters.
 *
 * A line is a message, or a command if it begins with "/". Which adapter answers can change with every
 * message; all of them, and the base model, go on from the same tokens (chat_talk.h), so each finds
 * what the others have left in the cache. An interrupt ends an answer, which is kept as far as it came,
 * or gives up the line that is being written; it does not end the program. One thread.
 */
#include "tools/chat_lines.h"
#include "tools/chat_talk.h"
#include "tools/patience.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_STOPS 16

static struct {
	struct weft_open_options open;
	struct weft_submit_options submit;
	const char *adapter_name, *system, *history;
	const char *stops[MAX_STOPS + 2];
	uint32_t n_stops;
	int stats, json;
	struct weft *w;
	struct weft_model info;
	struct text_model model;
	struct chat_talk talk;
	struct chat_lines *lines;
	struct weft_adapter adapter; /* name "": the base model */
	struct text system_text;
} chat;

static volatile sig_atomic_t interrupted;

static void on_interrupt(int sig)
{
	(void)sig;
	interrupted = 1;
}

static int set_seed(void *value, const char *text)
{
	chat.submit.has_seed = 1;
	return cli_set_u64(value, text);
}

static int set_stop(void *value, const char *text)
{
	(void)value;
	if (chat.n_stops == MAX_STOPS || !*text)
		return -1;
	chat.stops[chat.n_stops++] = text;
	return 0;
}

/* clang-format off */
static const struct cli_option options[] = {
	{"socket", 0, "PATH", cli_set_str, &chat.open.socket, "the daemon's socket"},
	{"model", 'm', "NAME", cli_set_str, &chat.open.model, "which model; default: the only one"},
	{"adapter", 'a', "NAME", cli_set_str, &chat.adapter_name, "who answers first; default: the base model"},
	{"system", 'S', "TEXT", cli_set_str, &chat.system, "the system message"},
	{"max-tokens", 't', "N", cli_set_u32, &chat.submit.max_tokens, "of each answer; default 1024"},
	{"temperature", 'T', "X", cli_set_float, &chat.submit.temperature, "default 0: the likeliest token"},
	{"top-k", 'k', "N", cli_set_u32, &chat.submit.top_k, "draw from the N likeliest; 0: all"},
	{"top-p", 'p', "X", cli_set_float, &chat.submit.top_p, "draw from the likeliest of sum X"},
	{"min-p", 0, "X", cli_set_float, &chat.submit.min_p, "draw from those >= X times the likeliest"},
	{"repetition-penalty", 0, "X", cli_set_float, &chat.submit.repetition_penalty, "default 1: none"},
	{"seed", 's', "N", set_seed, &chat.submit.seed, "same seed, same answers"},
	{"stop", 0, "TEXT", set_stop, NULL, "end answers before this text; may be repeated"},
	{"ignore-eos", 0, NULL, NULL, &chat.submit.ignore_eos, "do not end at the model's end token"},
	{"stats", 0, NULL, NULL, &chat.stats, "after each answer what was cached, and times, on stderr"},
	{"history", 0, "FILE", cli_set_str, &chat.history, "keep the lines written; default: nowhere"},
	{"json", 'j', NULL, NULL, &chat.json, "an object for each answer, a line each"},
};
/* clang-format on */

static const struct cli_command command = {
	"chat",
	"",
	"Talk with a model: each line is a message, and /help lists what else a line can be.",
	options,
	sizeof(options) / sizeof(*options),
	0,
};

/* --- answers -------------------------------------------------------------------------------------*/

static bool has_adapter(void)
{
	return chat.adapter.name[0];
}

static double ms(uint64_t from, uint64_t to)
{
	return to > from ? (to - from) / 1e6 : 0;
}

static void print_json(const struct weft_result *res, const struct text *text, uint32_t n)
{
	printf("{\"adapter\":");
	if (has_adapter())
		cli_json_string(chat.adapter.name, strlen(chat.adapter.name));
	else
		fputs("null", stdout);
	printf(",\"text\":");
	cli_json_string(text->p, text->n);
	printf(",\"tokens\":%u,\"prompt_tokens\":%u,\"cached_tokens\":%u,\"activation\":", n,
	       res->prompt_tokens, res->cached_tokens);
	cli_json_activation(res->activation);
	printf(",\"first_token_ms\":%.6f,\"total_ms\":%.6f}\n",
	       ms(res->arrival_ns, res->first_token_ns), ms(res->arrival_ns, res->end_ns));
	fflush(stdout);
}

static void print_stats(const struct weft_result *res, uint32_t n)
{
	double decode_ms = ms(res->first_token_ns, res->end_ns);

	fprintf(stderr, "[%s: %u of %u prompt tokens cached, first token %.1f ms, %u tokens",
		has_adapter() ? chat.adapter.name : "base", res->cached_tokens, res->prompt_tokens,
		ms(res->arrival_ns, res->first_token_ns), n);
	if (n > 1 && decode_ms > 0)
		fprintf(stderr, ", %.1f tokens/s", (n - 1) / decode_ms * 1e3);
	fputs("]\n", stderr);
}

/* The answer as it comes. 0; -errno of waiting; 1 after cli_fail(). */
static int follow(struct weft_request *r, struct text_out *o)
{
	struct patience patience = PATIENCE_INIT(chat.open.socket);
	uint32_t have = 0;

	patience_news(&patience);
	for (;;) {
		/* Not for ever: an interrupt may come just before it. */
		int64_t n = weft_wait(r, 0, have, 200);
		const uint32_t *t;
		uint32_t there;

		if (interrupted)
			weft_cancel(r);
		if (n == -EINTR || n == -ETIMEDOUT) {
			patience_none(&patience);
			continue;
		}
		if (n < 0 || n == have)
			return (int)(n < 0 ? n : 0);
		patience_news(&patience);
		t = weft_tokens(r, 0, &there);
		switch (text_out_push(o, t + have, (uint32_t)n - have)) {
		case 1:
			weft_cancel(r);
			break;
		case -1:
			return 1;
		}
		have = (uint32_t)n;
	}
}

/* The request has ended: what was made becomes part of the conversation. */
static int take_answer(struct weft_request *r, struct text_out *o)
{
	struct weft_result res = {.size = sizeof(res)};
	char why[256];
	const uint32_t *t;
	uint32_t n;

	weft_result(r, &res);
	t = weft_tokens(r, 0, &n);
	if (res.status != WEFT_OK && res.status != WEFT_CANCELLED) {
		weft_status_text(&res, why, sizeof(why));
		chat_talk_unask(&chat.talk);
		return cli_fail("%s", why);
	}
	if (chat.json)
		print_json(&res, &o->text, n);
	if (chat.stats)
		print_stats(&res, n);
	return chat_talk_answer(&chat.talk, t, n, &o->text, o->stopped, chat.adapter.name);
}

static int stream(struct weft_request *r)
{
	struct text_out o;
	int err;

	if (text_out_begin(&o, &chat.model, chat.json ? NULL : stdout, chat.stops, chat.n_stops)) {
		chat_talk_unask(&chat.talk);
		return 1;
	}
	err = follow(r, &o);
	text_out_end(&o);
	if (!chat.json && (!o.text.n || o.text.p[o.text.n - 1] != '\n'))
		putchar('\n');
	fflush(stdout);
	if (err) {
		chat_talk_unask(&chat.talk);
		if (err < 0)
			cli_fail("wait for tokens: %s", strerror(-err));
	}
	err = err ? 1 : take_answer(r, &o);
	text_out_fini(&o);
	return err;
}

/* How many tokens an answer may have, within what the model can hold; 0: it is full. */
static uint32_t room_for_answer(void)
{
	uint32_t prompt = chat.talk.prompt.n, all = chat.info.max_positions;
	uint32_t room = prompt < all ? all - prompt : 0;

	return room < chat.submit.max_tokens ? room : chat.submit.max_tokens;
}

/* weft_submit() would wait for a weftd that is gone, silently, and heed no interrupt. */
static int submit(struct weft_request **ret, const struct weft_submit_options *o)
{
	struct patience patience = PATIENCE_INIT(chat.open.socket);
	struct weft_error e;

	if (patience_daemon(&patience, &interrupted))
		return cli_fail("the message was not sent");
	return weft_submit(chat.w, ret, o, &e) < 0 ? cli_fail("%s", e.message) : 0;
}

static int answer(const char *message)
{
	struct weft_submit_options o = chat.submit;
	struct weft_request *r;
	int err;

	/* Loaded anew under the same name it may be another: ask each time. */
	if (has_adapter() && !text_adapter(chat.w, chat.adapter.name, &chat.adapter))
		return cli_fail("adapter %s is no longer loaded (/adapters)", chat.adapter.name);
	if (chat_talk_ask(&chat.talk, message, has_adapter() ? &chat.adapter : NULL))
		return 1;
	o.prompt = chat.talk.prompt.tokens;
	o.n_prompt = chat.talk.prompt.n;
	o.adapter = has_adapter() ? chat.adapter.name : NULL;
	o.max_tokens = room_for_answer();
	if (!o.max_tokens) {
		chat_talk_unask(&chat.talk);
		return cli_fail(
			"the conversation fills the model's %u positions: /reset begins anew",
			chat.info.max_positions);
	}
	if (submit(&r, &o)) {
		chat_talk_unask(&chat.talk);
		interrupted = 0;
		return 1;
	}
	err = stream(r);
	weft_free(r);
	interrupted = 0;
	return err;
}

/* --- commands ------------------------------------------------------------------------------------*/

/* Each gets the rest of its line. 0; 1 after cli_fail(); -1 to end. */
typedef int (*command_fn)(const char *rest);

static int on_adapter(const char *rest)
{
	struct weft_adapter a = {.name = ""};

	if (!*rest) {
		fprintf(stderr, "%s answers\n",
			has_adapter() ? chat.adapter.name : "the base model");
		return 0;
	}
	if (strcmp(rest, "none") && !text_adapter(chat.w, rest, &a))
		return text_no_adapter(chat.w, rest);
	chat.adapter = a;
	return 0;
}

static int on_adapters(const char *rest)
{
	struct weft_adapter *all = calloc(256, sizeof(*all));
	int n = all ? weft_adapters(chat.w, all, 256) : -ENOMEM;

	for (int i = 0; i < n && i < 256; i++)
		cli_printf(stderr, "%c %-32s %s, rank %u\n",
			   strcmp(all[i].name, chat.adapter.name) ? ' ' : '*', all[i].name,
			   all[i].activated ? "aLoRA" : "LoRA", all[i].rank);
	if (!n)
		fputs("no adapters are loaded\n", stderr);
	free(all);
	return n < 0 ? cli_fail("adapters: %s", strerror(-n)) : 0;
}

static int on_stats(const char *rest)
{
	if (*rest && strcmp(rest, "on") && strcmp(rest, "off"))
		return cli_fail("/stats on, or /stats off");
	chat.stats = *rest ? !strcmp(rest, "on") : !chat.stats;
	fprintf(stderr, "stats are %s\n", chat.stats ? "on" : "off");
	return 0;
}

static int on_reset(const char *rest)
{
	return chat_talk_reset(&chat.talk, chat.system_text.p);
}

/* It stands before everything else, so a new one begins a new conversation. */
static int on_system(const char *rest)
{
	chat.system_text.n = 0;
	if (text_append(&chat.system_text, rest, strlen(rest)))
		return 1;
	return on_reset("");
}

static void save_to(FILE *f)
{
	const struct chat_talk *t = &chat.talk;

	for (size_t i = 0; i < t->n_messages; i++) {
		const struct chat_message *m = &t->messages[i];

		fprintf(f, "%s%s%s%s:\n", m->role, *m->adapter ? " (" : "", m->adapter,
			*m->adapter ? ")" : "");
		if (m->text.n)
			fwrite(m->text.p, 1, m->text.n, f);
		fputs("\n\n", f);
	}
}

static int on_save(const char *rest)
{
	int fd = *rest ? open(rest, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600) : -1;
	FILE *f = fd < 0 ? NULL : fdopen(fd, "w");
	int err;

	if (!*rest)
		return cli_fail("/save FILE");
	if (!f) {
		err = errno;
		if (fd >= 0)
			close(fd);
		return cli_fail("save to %s: %s", rest, strerror(err));
	}
	save_to(f);
	err = ferror(f);
	return fclose(f) || err ? cli_fail("save to %s: %s", rest, strerror(errno)) : 0;
}

static int on_quit(const char *rest)
{
	return -1;
}

static int on_help(const char *rest);

static const struct {
	const char *name;
	command_fn run;
	const char *help;
} commands[] = {
	{"adapter", on_adapter,
	 "/adapter [NAME|none]  who answers from now on; none: the base model"},
	{"adapters", on_adapters, "/adapters             the adapters that are loaded"},
	{"stats", on_stats, "/stats [on|off]       after each answer what was cached, and times"},
	{"system", on_system, "/system [TEXT]        another system message, or none; begins anew"},
	{"reset", on_reset, "/reset                begin anew"},
	{"save", on_save, "/save FILE            write the conversation to a new file"},
	{"help", on_help, "/help                 this"},
	{"quit", on_quit, "/quit                 end (so does the end of the input)"},
};

static int on_help(const char *rest)
{
	for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++)
		fprintf(stderr, "%s\n", commands[i].help);
	fputs("//TEXT                a message that begins with a slash\n", stderr);
	return 0;
}

static int run_command(const char *line)
{
	size_t n = strcspn(line, " \t");
	const char *rest = line + n + strspn(line + n, " \t");

	for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++)
		if (strlen(commands[i].name) == n && !strncmp(commands[i].name, line, n))
			return commands[i].run(rest);
	return cli_fail("no command /%.*s: /help lists them", (int)n, line);
}

/* --- the conversation ----------------------------------------------------------------------------*/

static const char *prompt(void)
{
	static char text[80];

	snprintf(text, sizeof(text), "%s> ", chat.adapter.name);
	return text;
}

/* Until the end of the input or /quit. The exit status: of a pipe, whether all went well. */
static int talk(void)
{
	bool terminal = chat_lines_terminal(chat.lines);
	int failed = 0, r = 0;

	if (terminal)
		cli_printf(stderr,
			   "Each line is a message to %s; /help lists what else it can be, Ctrl-D "
			   "ends.\n",
			   chat.info.name);
	while (r >= 0) {
		const char *line = chat_lines_next(chat.lines, prompt());

		if (!line && interrupted && terminal) {
			interrupted = 0;
			putchar('\n');
			continue;
		}
		if (!line)
			break;
		if (*line == '/' && line[1] != '/')
			r = run_command(line + 1);
		else if (line[strspn(line, " \t")])
			r = answer(*line == '/' ? line + 1 : line);
		failed |= r > 0;
	}
	if (terminal)
		putchar('\n');
	return interrupted ? 130 : failed && !terminal;
}

static int set_up(void)
{
	/* Waits end all the same. What is being written must not: the rest would be lost. */
	struct sigaction sa = {.sa_handler = on_interrupt, .sa_flags = SA_RESTART};
	const char *const *stops;
	uint32_t n;

	if (chat.history && !chat_lines_may_keep(chat.history))
		return cli_fail("--history %s: neither a file nor a device that can be written",
				chat.history);
	if (patience_open(&chat.w, &chat.open))
		return 1;
	/* Not before: until here an interrupt ends the program. */
	sigaction(SIGINT, &sa, NULL);
	if (weft_model_info(chat.w, &chat.info) || text_model_open(&chat.model, chat.w))
		return 1;
	chat_talk_init(&chat.talk, &chat.model);
	n = chat_talk_stops(&chat.talk, &stops);
	for (uint32_t i = 0; i < n; i++)
		chat.stops[chat.n_stops++] = stops[i];
	if (!chat.submit.ignore_eos && chat.model.eos != WEFT_NO_TOKEN) {
		chat.submit.stop_tokens = &chat.model.eos;
		chat.submit.n_stop_tokens = 1;
	}
	if (chat.adapter_name && !text_adapter(chat.w, chat.adapter_name, &chat.adapter) &&
	    strcmp(chat.adapter_name, "none") && text_no_adapter(chat.w, chat.adapter_name))
		return 1;
	if (chat.system && on_system(chat.system))
		return 1;
	chat.lines = chat_lines_new(chat.history, &interrupted);
	return chat.lines ? 0 : cli_fail("out of memory");
}

int cmd_chat(int argc, char **argv)
{
	int status, err;

	chat.open = (struct weft_open_options)WEFT_OPEN_OPTIONS_INIT;
	chat.open.slots = 4; /* one answer at a time; a slot is given back a moment after it */
	weft_submit_options_init(&chat.submit);
	chat.submit.max_tokens = 1024;
	cli_parse(&command, argc, argv);
	status = set_up();
	if (!status)
		status = talk();
	err = chat_lines_free(chat.lines);
	if (err)
		status = cli_fail("write %s: %s", chat.history, strerror(-err));
	chat_talk_fini(&chat.talk);
	free(chat.system_text.p);
	text_model_close(&chat.model);
	weft_close(chat.w);
	return status;
}
