/* SPDX-License-Identifier: Apache-2.0 */
/*
 * eval_sets.c - the files of `weft eval`: test sets, and answers to compare with.
 *
 * A set is a file of JSON lines. The first says how to ask, {"task", "invocation", "max_tokens"};
 * each other one is an item, {"text", "plain", "answer"}. What is read is the struct eval's.
 */
#include "tools/cli.h"
#include "tools/eval.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_MAX_TOKENS 4096

/* One line as an object; NULL with *end set at the end, NULL after cli_fail() otherwise. */
static json_t *read_line(FILE *f, const char *path, uint32_t line, int *end)
{
	json_error_t e;
	size_t room = 0;
	char *text = NULL;
	json_t *o;

	*end = getline(&text, &room, f) < 0;
	if (*end) {
		free(text);
		if (ferror(f)) {
			*end = 0;
			cli_fail("read %s: %s", path, strerror(errno));
		}
		return NULL;
	}
	o = json_loads(text, JSON_REJECT_DUPLICATES, &e);
	free(text);
	if (!o)
		cli_fail("%s, line %u: %s", path, line, e.text);
	else if (!json_is_object(o))
		cli_fail("%s, line %u: not an object", path, line);
	else
		return o;
	json_decref(o);
	return NULL;
}

/* A copy of a string of an object, or NULL after cli_fail(). */
static char *copy_of(const json_t *o, const char *key, const char *path, uint32_t line)
{
	const char *s = json_string_value(json_object_get(o, key));
	char *copy = s ? strdup(s) : NULL;

	if (!copy)
		cli_fail("%s, line %u: %s", path, line, s ? "out of memory" : "a text is missing");
	return copy;
}

static int read_head(struct eval_set *set, const json_t *o, const char *path)
{
	json_t *max = json_object_get(o, "max_tokens");

	set->task = copy_of(o, "task", path, 1);
	set->invocation = set->task ? copy_of(o, "invocation", path, 1) : NULL;
	if (!set->invocation)
		return 1;
	if (!json_is_integer(max) || json_integer_value(max) < 1 ||
	    json_integer_value(max) > MAX_MAX_TOKENS)
		return cli_fail("%s, line 1: max_tokens is not in 1 to %d", path, MAX_MAX_TOKENS);
	set->max_tokens = (uint32_t)json_integer_value(max);
	return 0;
}

static int read_item(struct eval_set *set, const json_t *o, const char *path, uint32_t line)
{
	struct eval_item *more = realloc(set->items, (set->n + 1) * sizeof(*more)), *it;

	if (!more)
		return cli_fail("out of memory");
	set->items = more;
	it = &set->items[set->n++];
	memset(it, 0, sizeof(*it));
	it->text = copy_of(o, "text", path, line);
	it->plain = it->text ? copy_of(o, "plain", path, line) : NULL;
	it->answer = it->plain ? copy_of(o, "answer", path, line) : NULL;
	return it->answer ? 0 : 1;
}

int eval_read_set(struct eval *e, const char *path)
{
	struct eval_set *more = realloc(e->sets, (e->n_sets + 1) * sizeof(*more)), *set;
	FILE *f = fopen(path, "r");
	uint32_t line = 0;
	int end = 0, err = 0;

	if (!f || !more) {
		e->sets = more ? more : e->sets;
		if (f)
			fclose(f);
		return cli_fail("open %s: %s", path, strerror(errno));
	}
	e->sets = more;
	set = &e->sets[e->n_sets++];
	memset(set, 0, sizeof(*set));
	while (!err && (!line || !e->max_items || set->n < e->max_items)) {
		json_t *o = read_line(f, path, ++line, &end);

		if (!o) {
			err = !end;
			break;
		}
		err = line == 1 ? read_head(set, o, path) : read_item(set, o, path, line);
		json_decref(o);
	}
	fclose(f);
	if (!err && !set->n)
		err = cli_fail("%s: no items", path);
	return err;
}

/* The case that a line of answers is about; NULL: it is not among those that were run. */
static const struct eval_case *find_case(const struct eval *e, const json_t *o)
{
	const char *adapter = json_string_value(json_object_get(o, "adapter"));
	const char *task = json_string_value(json_object_get(o, "task"));
	json_int_t item = json_integer_value(json_object_get(o, "item"));
	char name[EVAL_MAX_NAME];

	for (uint32_t i = 0; task && i < e->n_cases; i++) {
		const struct eval_case *c = &e->cases[i];
		const char *a;

		if (c->item != item || strcmp(task, e->sets[c->set].task))
			continue;
		a = eval_adapter(e, c->arm, c->set, name);
		if (adapter ? a && !strcmp(a, adapter) : !a)
			return c;
	}
	return NULL;
}

int eval_compare(const struct eval *e, const char *path, uint32_t *ret_n, uint32_t *ret_different)
{
	FILE *f = fopen(path, "r");
	uint32_t line = 0, n = 0, different = 0;
	int end = 0;
	json_t *o;

	if (!f)
		return cli_fail("open %s: %s", path, strerror(errno));
	while ((o = read_line(f, path, ++line, &end))) {
		const char *answer = json_string_value(json_object_get(o, "answer"));
		const struct eval_case *c = answer ? find_case(e, o) : NULL;
		int same = c && !strcmp(answer, c->text);

		n += !!c;
		different += c && !same;
		if (c && !same)
			fprintf(stderr, "%s, line %u: \"%s\", and here \"%s\"\n", path, line,
				answer, c->text);
		json_decref(o);
	}
	fclose(f);
	if (!end)
		return 1;
	if (!n)
		return cli_fail("%s: no answer to any of these items", path);
	*ret_n = n;
	*ret_different = different;
	return 0;
}

void eval_free(struct eval *e)
{
	for (uint32_t s = 0; s < e->n_sets; s++) {
		struct eval_set *set = &e->sets[s];

		for (uint32_t i = 0; i < set->n; i++) {
			free(set->items[i].text);
			free(set->items[i].plain);
			free(set->items[i].answer);
		}
		free(set->items);
		free(set->task);
		free(set->invocation);
	}
	for (uint32_t i = 0; i < e->n_cases; i++) {
		for (int p = 0; p < EVAL_PASSES; p++)
			free(e->cases[i].answers[p].ids);
		free(e->cases[i].prompt);
		free(e->cases[i].text);
	}
	free(e->sets);
	free(e->cases);
	memset(e, 0, sizeof(*e));
}
