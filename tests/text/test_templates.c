/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_templates.c - chat templates against jinja2 with transformers' settings: templates in the
 * shapes of published ones over many conversations, several hundred pieces of the language and
 * random programs, byte for byte. What Jinja has and this library does not is refused by name.
 *
 * A file of cases can be given as an argument, such as make_templates.py --random writes.
 */
#include "libclient/text/weft_text.h"
#include "tests/tap.h"

#include <errno.h>
#include <jansson.h>

static char *slurp(const char *path, size_t *ret_n)
{
	FILE *f = fopen(path, "rb");
	char *p = malloc(1 << 20);

	if (!f || !p)
		bail_out(path);
	*ret_n = fread(p, 1, 1 << 20, f);
	fclose(f);
	return p;
}

static const char *folder(void)
{
	static char path[400];
	const char *src = getenv("WEFT_SRC");

	snprintf(path, sizeof(path), "%s/tests/data/templates", src ? src : ".");
	return path;
}

static json_t *load(const char *name)
{
	char path[500];
	json_error_t e;
	json_t *o;

	snprintf(path, sizeof(path), "%s/%s", strchr(name, '/') ? "" : folder(), name);
	o = json_load_file(strchr(name, '/') ? name : path, JSON_ALLOW_NUL, &e);
	if (!o)
		bail_out(e.text);
	return o;
}

/* What came of a render: a text or an error. */
struct outcome {
	char *text;
	size_t bytes;
	int code;
	struct weft_error error;
};

static void render(const char *source, size_t bytes, json_t *context, json_t *time,
		   struct outcome *ret)
{
	json_t *with = json_copy(context);
	struct weft_template *t = NULL;
	char *text;

	*ret = (struct outcome){0};
	json_object_set(with, "strftime_now", time);
	text = json_dumps(with, 0);
	json_decref(with);
	ret->code = weft_template_new(&t, source, bytes, &ret->error);
	if (!ret->code)
		ret->code = weft_template_render(t, text, strlen(text), &ret->text, &ret->bytes,
						 &ret->error);
	weft_template_free(t);
	free(text);
}

/* Is it what the oracle says? Refusing is no answer, but for an error. */
static int agrees(const struct outcome *o, json_t *want, const char *source)
{
	json_t *raised = json_object_get(want, "raised");
	const char *words = json_string_value(raised);

	if (json_is_string(want))
		return !o->code && o->bytes == json_string_length(want) &&
		       !memcmp(o->text, json_string_value(want), o->bytes);
	if (words)
		return o->code == -EBADMSG && strstr(o->error.message, words) != NULL;
	return o->code == -EINVAL || o->code == -EOPNOTSUPP || o->code == -E2BIG;
}

static void explain(const char *source, const struct outcome *o, json_t *want)
{
	char *w = json_dumps(want, JSON_ENCODE_ANY);

	diag("source: %s", source);
	diag("want: %s", w);
	diag("got: %d %s%.*s", o->code, o->code ? o->error.message : "",
	     (int)(o->bytes > 1500 ? 1500 : o->bytes), o->text ? o->text : "");
	free(w);
}

static void test_shapes(void)
{
	json_t *root = load("shapes.json"), *item;
	json_t *conversations = json_object_get(root, "conversations");
	json_t *extras = json_object_get(root, "extras");
	size_t i, n = 0;

	json_array_foreach(json_object_get(root, "cases"), i, item)
	{
		const char *name = json_string_value(json_array_get(item, 0));
		json_t *which = json_array_get(item, 1), *context;
		const char *c = json_string_value(json_array_get(which, 0));
		const char *x = json_string_value(json_array_get(which, 1));
		struct outcome o;
		char path[500];
		size_t bytes;
		char *source;

		snprintf(path, sizeof(path), "%s/%s", folder(), name);
		source = slurp(path, &bytes);
		context = json_copy(json_object_get(extras, x));
		json_object_set(context, "messages", json_object_get(conversations, c));
		render(source, bytes, context, json_object_get(root, "time"), &o);
		if (agrees(&o, json_array_get(item, 2), source))
			n++;
		else
			explain(path, &o, json_array_get(item, 2)), diag("%s, %s", c, x);
		json_decref(context);
		weft_text_free(o.text);
		free(source);
	}
	is_int(n, json_array_size(json_object_get(root, "cases")),
	       "templates of published shapes give jinja2's text");
	ok(n > 300, "%zu of them", n);
	json_decref(root);
}

static void test_snippets(const char *file, size_t least)
{
	json_t *root = load(file), *item;
	size_t i, n = 0, refused = 0;

	json_array_foreach(json_object_get(root, "cases"), i, item)
	{
		json_t *source = json_array_get(item, 0), *want = json_array_get(item, 2);
		struct outcome o;

		render(json_string_value(source), json_string_length(source),
		       json_object_get(root, "common"), json_object_get(root, "time"), &o);
		if (agrees(&o, want, json_string_value(source)))
			n++;
		/* Random programs meet what is refused; it must be said, and seldom. */
		else if (o.code == -EOPNOTSUPP && strstr(o.error.message, "not supported"))
			refused++;
		else
			explain(json_string_value(source), &o, want);
		if (o.code == -EOPNOTSUPP && json_is_string(want) && getenv("SHOW_REFUSED"))
			explain(json_string_value(source), &o, want);
		weft_text_free(o.text);
	}
	is_int(n + refused, json_array_size(json_object_get(root, "cases")),
	       "%s: the language gives jinja2's text, or is refused", file);
	ok(n >= least && refused * 50 <= n, "%s: %zu agree, %zu are refused", file, n, refused);
	json_decref(root);
}

static void test_refused(void)
{
	json_t *root = load("refused.json"), *item;
	size_t i, n = 0;

	json_array_foreach(json_object_get(root, "cases"), i, item)
	{
		json_t *source = json_array_get(item, 0);
		struct outcome o;

		render(json_string_value(source), json_string_length(source),
		       json_object_get(root, "common"), json_object_get(root, "time"), &o);
		if (o.code == -EOPNOTSUPP && o.error.code == o.code &&
		    strstr(o.error.message, json_string_value(json_array_get(item, 1))) &&
		    strstr(o.error.message, "line 1"))
			n++;
		else
			explain(json_string_value(source), &o, json_array_get(item, 1));
		weft_text_free(o.text);
	}
	is_int(n, json_array_size(json_object_get(root, "cases")),
	       "what is not known is refused by name, with its line");
	json_decref(root);
}

int main(int argc, char **argv)
{
	if (argc > 1) {
		test_snippets(argv[1], 0);
		return tap_done();
	}
	test_shapes();
	test_snippets("snippets.json", 1000);
	test_refused();
	return tap_done();
}
