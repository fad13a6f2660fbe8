/* SPDX-License-Identifier: Apache-2.0 */
/* text.c - see text.h. */
#include "tools/text.h"
#include "tools/cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* --- in ------------------------------------------------------------------------------------------*/

int text_append(struct text *t, const char *p, size_t n)
{
	char *more = t->n + n > WEFT_TEXT_MAX_BYTES ? NULL : realloc(t->p, t->n + n + 1);

	if (!more)
		return cli_fail("the text is longer than %u bytes", WEFT_TEXT_MAX_BYTES);
	t->p = more;
	if (n)
		memcpy(t->p + t->n, p, n);
	t->n += n;
	t->p[t->n] = 0;
	return 0;
}

static int read_stream(struct text *t, FILE *f, const char *name)
{
	char part[16384];
	size_t got;
	int err = 0;

	while (!err && (got = fread(part, 1, sizeof(part), f)))
		err = text_append(t, part, got);
	if (!err && ferror(f))
		err = cli_fail("read %s: %s", name, strerror(errno));
	return err;
}

bool text_is_piped(int n, char **argv)
{
	return !n || (n == 1 && !strcmp(argv[1], "-"));
}

void text_drop_newline(struct text *t)
{
	if (!t->n || t->p[t->n - 1] != '\n')
		return;
	t->n--;
	if (t->n && t->p[t->n - 1] == '\r')
		t->n--;
	t->p[t->n] = 0;
}

int text_read(struct text *t, int n, char **argv, const char *file)
{
	bool named = file && strcmp(file, "-");
	FILE *f = named ? fopen(file, "rb") : stdin;
	bool from_stdin = text_is_piped(n, argv);
	int err = 0;

	if (!f)
		return cli_fail("open %s: %s", file, strerror(errno));
	if (n && file)
		err = cli_fail("a text is given both as arguments and as a file");
	else if (file || from_stdin)
		err = read_stream(t, f, named ? file : "standard input");
	if (named)
		fclose(f);
	for (int i = 1; i <= n && !from_stdin && !err; i++) {
		err = i > 1 ? text_append(t, " ", 1) : 0;
		err = err ? err : text_append(t, argv[i], strlen(argv[i]));
	}
	return err ? err : text_append(t, "", 0);
}

/* --- the model -----------------------------------------------------------------------------------*/

int text_model_open(struct text_model *m, struct weft *w)
{
	struct weft_tokenizer_info info = {.size = sizeof(info)};
	struct weft_error e;
	int err;

	*m = (struct text_model){0};
	err = weft_tokenizer_open_served(&m->tokenizer, w, &e);
	if (err == -ENOENT)
		return cli_fail("%s, so it takes token ids only (weft run --tokens)", e.message);
	if (err)
		return cli_fail("%s", e.message);
	err = weft_template_open_served(&m->template, w, &e);
	if (err && err != -ENOENT) {
		text_model_close(m);
		return cli_fail("chat template: %s", e.message);
	}
	weft_tokenizer_info(m->tokenizer, &info);
	m->eos = info.eos;
	return 0;
}

int text_tokenizer_open(struct weft_tokenizer **ret, const char *folder, struct weft *w)
{
	struct weft_error e;
	int err = folder ? weft_tokenizer_open(ret, folder, &e)
			 : weft_tokenizer_open_served(ret, w, &e);

	if (err == -ENOENT && !folder)
		return cli_fail("%s: say which (--tokenizer DIR)", e.message);
	return err ? cli_fail("%s", e.message) : 0;
}

void text_model_close(struct text_model *m)
{
	weft_template_free(m->template);
	weft_tokenizer_close(m->tokenizer);
	*m = (struct text_model){0};
}

bool text_adapter(struct weft *w, const char *name, struct weft_adapter *ret)
{
	int n = weft_adapters(w, NULL, 0), room = n > 0 ? n + 16 : 0;
	struct weft_adapter *all = room ? calloc((size_t)room, sizeof(*all)) : NULL;
	bool found = false;

	if (all)
		n = weft_adapters(w, all, (uint32_t)room);
	for (int i = 0; all && i < n && i < room && !found; i++) {
		found = !strcmp(all[i].name, name);
		if (found)
			*ret = all[i];
	}
	free(all);
	return found;
}

#define MOST_NAMED 20 /* a line is to be read */

int text_no_adapter(struct weft *w, const char *name)
{
	struct weft_adapter all[MOST_NAMED];
	int n = weft_adapters(w, all, MOST_NAMED);
	char names[MOST_NAMED * (sizeof(all->name) + 2)];
	size_t used = 0;

	if (n <= 0)
		return cli_fail("no adapter %s is loaded; none is", name);
	for (int i = 0; i < n && i < MOST_NAMED; i++)
		used += (size_t)snprintf(names + used, sizeof(names) - used, "%s%s", i ? ", " : "",
					 all[i].name);
	return cli_fail("no adapter %s is loaded; there %s %s%s", name, n > 1 ? "are" : "is", names,
			n > MOST_NAMED ? ", and more (weft adapter list)" : "");
}

static bool holds(const uint32_t *ids, size_t n, const struct weft_adapter *a)
{
	for (size_t i = 0; a->n_invocation <= n && i <= n - a->n_invocation; i++)
		if (!memcmp(ids + i, a->invocation, a->n_invocation * sizeof(*ids)))
			return true;
	return false;
}

/* The conversation without the template's words before an answer, and the invocation behind it. */
static int append_invocation(uint32_t **ids, size_t *n, const struct weft_adapter *a)
{
	uint32_t *more = reallocarray(*ids, *n + a->n_invocation, sizeof(**ids));

	if (!more)
		return cli_fail("out of memory");
	memcpy(more + *n, a->invocation, a->n_invocation * sizeof(*more));
	*ids = more;
	*n += a->n_invocation;
	return 0;
}

int text_prompt(const struct text_model *m, const struct weft_message *messages, size_t n,
		uint32_t flags, const struct weft_adapter *a, uint32_t **ret_ids, size_t *ret_n)
{
	struct weft_error e;
	uint32_t *ids;
	size_t n_ids;

	if (weft_chat_encode(m->tokenizer, m->template, messages, n, flags | WEFT_CHAT_ANSWER, &ids,
			     &n_ids, &e))
		return cli_fail("%s", e.message);
	if (a && a->n_invocation && !holds(ids, n_ids, a)) {
		weft_text_free(ids);
		if (weft_chat_encode(m->tokenizer, m->template, messages, n, flags, &ids, &n_ids,
				     &e))
			return cli_fail("%s", e.message);
		if (append_invocation(&ids, &n_ids, a)) {
			weft_text_free(ids);
			return 1;
		}
	}
	*ret_ids = ids;
	*ret_n = n_ids;
	return 0;
}

/* --- out -----------------------------------------------------------------------------------------*/

int text_out_begin(struct text_out *o, const struct text_model *m, FILE *to,
		   const char *const *stops, uint32_t n_stops)
{
	*o = (struct text_out){.to = to, .stops = stops, .n_stops = n_stops};
	if (weft_stream_new(&o->stream, m->tokenizer, WEFT_SKIP_SPECIAL))
		return cli_fail("out of memory");
	return text_append(&o->text, "", 0);
}

static void print_to(struct text_out *o, size_t end)
{
	if (end <= o->printed)
		return;
	if (o->to) {
		cli_print(o->to, o->text.p + o->printed, end - o->printed);
		fflush(o->to);
	}
	o->printed = end;
}

/* The first stop string at or after `from`, or NULL. */
static const char *find_stop(const struct text_out *o, size_t from)
{
	const char *first = NULL;

	for (uint32_t i = 0; i < o->n_stops; i++) {
		const char *p = memmem(o->text.p + from, o->text.n - from, o->stops[i],
				       strlen(o->stops[i]));

		if (p && (!first || p < first))
			first = p;
	}
	return first;
}

/* Where the longest end of the text begins that may become a stop string. */
static size_t held_from(const struct text_out *o)
{
	size_t from = o->text.n;

	for (uint32_t i = 0; i < o->n_stops; i++) {
		size_t len = strlen(o->stops[i]);

		for (size_t k = len < o->text.n ? len : o->text.n; k > 0; k--)
			if (!memcmp(o->text.p + o->text.n - k, o->stops[i], k)) {
				from = o->text.n - k < from ? o->text.n - k : from;
				break;
			}
	}
	return from;
}

/* More text has come. */
static int take(struct text_out *o, const char *p, size_t n)
{
	const char *stop;

	if (text_append(&o->text, p, n))
		return -1;
	/* What is printed can be no part of one. */
	stop = find_stop(o, o->printed);
	if (stop) {
		o->stopped = true;
		o->text.n = (size_t)(stop - o->text.p);
		o->text.p[o->text.n] = 0;
		print_to(o, o->text.n);
		return 1;
	}
	print_to(o, held_from(o));
	return 0;
}

int text_out_push(struct text_out *o, const uint32_t *ids, uint32_t n)
{
	int r = o->stopped;

	for (uint32_t i = 0; i < n && !r; i++) {
		const char *p;
		size_t bytes;

		if (weft_stream_push(o->stream, ids[i], &p, &bytes)) {
			cli_fail("out of memory");
			return -1;
		}
		r = bytes ? take(o, p, bytes) : 0;
	}
	return r;
}

int text_out_end(struct text_out *o)
{
	const char *p;
	size_t bytes;
	int r = 0;

	if (!o->stopped && !weft_stream_end(o->stream, &p, &bytes) && bytes)
		r = take(o, p, bytes);
	print_to(o, o->text.n);
	return r < 0 ? -1 : 0;
}

void text_out_fini(struct text_out *o)
{
	weft_stream_free(o->stream);
	free(o->text.p);
	*o = (struct text_out){0};
}
