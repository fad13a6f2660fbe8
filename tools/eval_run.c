/* SPDX-License-Identifier: Apache-2.0 */
/*
 * eval_run.c - put every case to the daemon, many at once, and score the answers.
 *
 * All of it belongs to the calling thread. The base model's cases come first, so that in the cold
 * pass activated adapters find the conversations in the cache; then item after item with all its
 * adapters, so that a batch holds many of them. Slots are filled as they become free.
 */
#include "libclient/text/weft_text.h"
#include "tools/cli.h"
#include "tools/eval.h"
#include "tools/progress.h"
#include "tools/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define WAIT_MS 600000 /* a request that brings nothing for so long is given up */

struct flight {
	struct weft_request *request; /* NULL: free */
	struct eval_case *c;
};

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec * 1e-9;
}

const char *eval_adapter(const struct eval *e, uint32_t arm, uint32_t set, char name[EVAL_MAX_NAME])
{
	const char *pattern = e->arms[arm], *star;

	if (!pattern)
		return NULL;
	star = strchr(pattern, '*');
	if (!star)
		snprintf(name, EVAL_MAX_NAME, "%s", pattern);
	else
		snprintf(name, EVAL_MAX_NAME, "%.*s%s%s", (int)(star - pattern), pattern,
			 e->sets[set].task, star + 1);
	return name;
}

/* --- cases ---------------------------------------------------------------------------------------*/

static int make_prompt(struct eval *e, struct weft_tokenizer *t, struct eval_case *c)
{
	const struct eval_set *set = &e->sets[c->set];
	const struct eval_item *it = &set->items[c->item];
	struct weft_error err;
	uint32_t *ids;
	size_t n;
	char *text;

	if (asprintf(&text, "%s%s", it->text, e->arms[c->arm] ? set->invocation : it->plain) < 0)
		return cli_fail("out of memory");
	if (weft_encode(t, text, strlen(text), WEFT_PARSE_SPECIAL, &ids, &n, &err)) {
		free(text);
		return cli_fail("item %u of %s: %s", c->item, set->task, err.message);
	}
	free(text);
	c->prompt = malloc((n + 1) * sizeof(*ids));
	if (c->prompt)
		memcpy(c->prompt, ids, n * sizeof(*ids));
	c->n_prompt = (uint32_t)n;
	weft_text_free(ids);
	return c->prompt ? 0 : cli_fail("out of memory");
}

/* Base model first, then item after item. */
static int before(const void *a, const void *b)
{
	const struct eval_case *x = a, *y = b;
	int64_t d = (int64_t) !!x->arm - !!y->arm;

	d = d ? d : (int64_t)x->item - y->item;
	d = d ? d : (int64_t)x->arm - y->arm;
	d = d ? d : (int64_t)x->set - y->set;
	return d < 0 ? -1 : d > 0;
}

int eval_prepare(struct eval *e, struct weft_tokenizer *t)
{
	uint64_t n = 0;
	int err = 0;

	for (uint32_t s = 0; s < e->n_sets; s++)
		n += (uint64_t)e->sets[s].n * e->n_arms;
	e->cases = n <= UINT32_MAX ? calloc(n, sizeof(*e->cases)) : NULL;
	if (!e->cases)
		return cli_fail("out of memory");
	for (uint32_t s = 0; s < e->n_sets; s++)
		for (uint32_t i = 0; i < e->sets[s].n; i++)
			for (uint32_t a = 0; a < e->n_arms; a++)
				e->cases[e->n_cases++] =
					(struct eval_case){.set = s, .item = i, .arm = a};
	qsort(e->cases, e->n_cases, sizeof(*e->cases), before);
	for (uint32_t i = 0; i < e->n_cases && !err; i++)
		err = make_prompt(e, t, &e->cases[i]);
	return err;
}

/* --- a pass --------------------------------------------------------------------------------------*/

static int submit(struct eval *e, struct weft *w, enum eval_pass pass, struct flight *f)
{
	struct weft_submit_options so;
	struct eval_case *c = f->c;
	char name[EVAL_MAX_NAME];
	struct weft_error err;

	weft_submit_options_init(&so);
	so.prompt = c->prompt;
	so.n_prompt = c->n_prompt;
	so.max_tokens = e->sets[c->set].max_tokens;
	so.adapter = eval_adapter(e, c->arm, c->set, name);
	so.flags = pass == EVAL_OFF ? WEFT_NO_CACHE : 0;
	if (weft_submit(w, &f->request, &so, &err) < 0) {
		f->request = NULL;
		return cli_fail("%s", err.message);
	}
	return 0;
}

/* Take a request's answer if it has ended: 1, 0 if it has not, -1 after cli_fail(). */
static int collect(struct eval *e, struct weft *w, enum eval_pass pass, struct flight *f)
{
	struct weft_result res = {.size = sizeof(res)};
	struct eval_answer *a = &f->c->answers[pass];
	struct eval_figures *fig = &e->passes[pass];
	char text[256], name[EVAL_MAX_NAME];
	const uint32_t *ids;
	uint32_t n;

	weft_result(f->request, &res);
	if (res.status == WEFT_RUNNING)
		return 0;
	if (res.status != WEFT_OK) {
		weft_status_text(&res, text, sizeof(text));
		if (res.status == WEFT_NO_ADAPTER)
			text_no_adapter(w, eval_adapter(e, f->c->arm, f->c->set, name));
		else
			cli_fail("item %u of %s: %s", f->c->item, e->sets[f->c->set].task, text);
		return -1;
	}
	ids = weft_tokens(f->request, 0, &n);
	a->ids = malloc((n + 1) * sizeof(*ids));
	if (!a->ids) {
		cli_fail("out of memory");
		return -1;
	}
	memcpy(a->ids, ids, n * sizeof(*ids));
	a->n = n;
	fig->prompt_tokens[f->c->arm] += res.prompt_tokens;
	fig->cached_tokens[f->c->arm] += res.cached_tokens;
	weft_free(f->request);
	f->request = NULL;
	return 1;
}

/* All cases, in_flight of them at once. */
static int run_all(struct eval *e, struct weft *w, enum eval_pass pass, struct flight *flights)
{
	struct weft_request *news[64];
	uint32_t next = 0, done = 0;

	while (done < e->n_cases) {
		int n;

		for (uint32_t i = 0; i < e->in_flight && next < e->n_cases; i++) {
			if (flights[i].request)
				continue;
			flights[i].c = &e->cases[next++];
			if (submit(e, w, pass, &flights[i]))
				return 1;
		}
		n = weft_wait_any(w, news, 64, WAIT_MS);
		if (n < 0)
			return cli_fail("wait for answers: %s", strerror(-n));
		for (uint32_t i = 0; i < e->in_flight; i++) {
			int r = flights[i].request ? collect(e, w, pass, &flights[i]) : 0;

			if (r < 0)
				return 1;
			done += (uint32_t)r;
		}
		progress_at((uint64_t)pass * e->n_cases + done);
	}
	return 0;
}

/* The answer as text; right is what is the expected answer exactly. */
static int score(struct eval *e, struct weft_tokenizer *t, struct eval_case *c)
{
	const char *answer = e->sets[c->set].items[c->item].answer;
	const struct eval_answer *a = &c->answers[EVAL_OFF];
	struct weft_error err;
	char *text;
	size_t bytes;

	if (weft_decode(t, a->ids, a->n, WEFT_SKIP_SPECIAL, &text, &bytes, &err))
		return cli_fail("%s", err.message);
	c->text = strdup(text);
	/* A text can hold a zero: then it is longer than what it is compared with. */
	c->right = bytes == strlen(answer) && !memcmp(text, answer, bytes);
	weft_text_free(text);
	return c->text ? 0 : cli_fail("out of memory");
}

uint32_t eval_count_different(const struct eval *e, enum eval_pass pass)
{
	uint32_t different = 0;

	for (uint32_t i = 0; i < e->n_cases; i++) {
		const struct eval_answer *a = &e->cases[i].answers[EVAL_OFF];
		const struct eval_answer *b = &e->cases[i].answers[pass];

		different += a->n != b->n || (a->n && memcmp(a->ids, b->ids, a->n * 4));
	}
	return different;
}

int eval_run(struct eval *e, struct weft *w, struct weft_tokenizer *t, enum eval_pass pass)
{
	struct flight *flights = calloc(e->in_flight, sizeof(*flights));
	struct eval_figures *fig = &e->passes[pass];
	double start = now_s();
	int err = flights ? run_all(e, w, pass, flights) : cli_fail("out of memory");

	for (uint32_t i = 0; flights && i < e->in_flight; i++)
		weft_free(flights[i].request);
	free(flights);
	fig->seconds = now_s() - start;
	for (uint32_t i = 0; i < e->n_cases && !err && pass == EVAL_OFF; i++)
		err = score(e, t, &e->cases[i]);
	fig->different = eval_count_different(e, pass);
	return err;
}

double eval_accuracy(const struct eval *e, uint32_t arm, uint32_t set)
{
	uint32_t n = 0, right = 0;

	for (uint32_t i = 0; i < e->n_cases; i++)
		if (e->cases[i].arm == arm && e->cases[i].set == set) {
			n++;
			right += (uint32_t)e->cases[i].right;
		}
	return n ? 100.0 * right / n : 0;
}
