/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_template_limits.c - hostile templates and contexts end with one line and the code of the limit
 * that they met; errors name their line; a folder's template is found where it may be; and threads
 * render one template at once.
 */
#include "libclient/text/weft_text.h"
#include "tests/tap.h"

#include <errno.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#define SMALL "{\"n\": 7, \"s\": \"abc\", \"l\": [1, 2, 3]}"

static int render(const char *source, size_t bytes, const char *context, char **text,
		  struct weft_error *e)
{
	struct weft_template *t;
	size_t n;
	int r = weft_template_new(&t, source, bytes, e);

	if (r)
		return r;
	r = weft_template_render(t, context, strlen(context), text, &n, e);
	weft_template_free(t);
	return r;
}

static void refused(const char *what, const char *source, const char *context, int code,
		    const char *words)
{
	struct weft_error e = {0};
	char *text = NULL;
	int r = render(source, strlen(source), context, &text, &e);

	if (!ok(r == code && e.code == r && strstr(e.message, words), "%s: %s", what, words))
		diag("%d %s", r, e.message);
	weft_text_free(text);
}

/* n times `many` between two ends. */
static char *repeated(const char *before, const char *many, size_t n, const char *behind)
{
	size_t a = strlen(before), b = strlen(many);
	char *p = malloc(a + b * n + strlen(behind) + 1);

	if (!p)
		bail_out("memory");
	strcpy(p, before);
	for (size_t i = 0; i < n; i++)
		memcpy(p + a + i * b, many, b);
	strcpy(p + a + n * b, behind);
	return p;
}

static void test_nesting(void)
{
	static const struct {
		const char *before, *many, *behind;
	} cases[] = {
		{"{{ ", "(", "n }}"},
		{"{{ ", "[", "n }}"},
		{"{{ ", "{1:", "n }}"},
		{"{{ ", "not ", "n }}"},
		{"{{ ", "- ", "n }}"},
		{"{{ ", "n if n else ", "n }}"},
		{"{{ n", ".x", " }}"},
		{"{{ n", "|string", " }}"},
		{"{{ n", "[0]", " }}"},
		{"{{ n", " + n", " }}"},
		{"{{ n", " or n", " }}"},
		{"{{ n", "()", " }}"},
		{"{{ n", " is defined is defined", " }}"},
		{"", "{% if n %}", ""},
		{"", "{% for x in l %}", ""},
		{"", "{% set x %}", ""},
		{"", "{% macro m() %}", ""},
		{"{% for ", "(", "x"},
		{"{% set x ", "| upper", " %}{% endset %}"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		char *source = repeated(cases[i].before, cases[i].many, 40000, cases[i].behind);
		struct weft_error e = {0};
		char *text = NULL;
		int r = render(source, strlen(source), SMALL, &text, &e);

		if (!ok(r == -ELOOP || (r == -EINVAL && strstr(e.message, "chained")),
			"40,000 deep: %s", cases[i].many))
			diag("%d %s", r, e.message);
		weft_text_free(text);
		free(source);
	}
}

static void test_running(void)
{
	refused("recursion", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", SMALL, -ELOOP,
		"line 1: nested more than");
	refused("mutual recursion",
		"{% macro a() %}{% if n %}{{ b() }}{% endif %}{% endmacro %}\n"
		"{% macro b() %}{{ [a()] }}{% endmacro %}{{ a() }}",
		SMALL, -ELOOP, "nested more than");
	refused("nested loops",
		"{% set r = range(100000) %}{% for a in r %}{% for b in r %}{% endfor %}{% endfor "
		"%}",
		SMALL, -E2BIG, "steps");
	refused("a range", "{{ range(10 ** 9) | list }}", SMALL, -EINVAL, "100000 items");
	refused("a long text", "{{ 'a' * 10 ** 9 }}", SMALL, -E2BIG, "MiB");
	refused("a longer text", "{{ 'ab' * 10 ** 18 }}", SMALL, -E2BIG, "MiB");
	refused("a long list", "{{ ([0] * 10 ** 9) | length }}", SMALL, -E2BIG, "MiB");
	refused("doubling",
		"{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x "
		"%}{% endfor %}",
		SMALL, -E2BIG, "MiB");
	refused("doubling with +",
		"{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x "
		"%}{% endfor %}",
		SMALL, -E2BIG, "MiB");
	refused("doubling a list",
		"{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x "
		"%}{% endfor %}",
		SMALL, -E2BIG, "");
	refused("output", "{% set x = 'a' * 1000000 %}{% for i in range(999) %}{{ x }}{% endfor %}",
		SMALL, -E2BIG, "64 MiB");
	refused("replace", "{{ ('a' * 100000) | replace('a', 'b' * 100000) }}", SMALL, -E2BIG, "");
	refused("replace between", "{{ ('a' * 100000).replace('', 'b' * 100000) }}", SMALL, -E2BIG,
		"");
	refused("join", "{{ range(100000) | join('b' * 100000) }}", SMALL, -E2BIG, "");
	refused("indent", "{{ ('a\\n' * 10000) | indent(100000) }}", SMALL, -E2BIG, "");
	refused("a wide indent", "{{ 'a\\nb' | indent(10 ** 12) }}", SMALL, -E2BIG, "");
	refused("json", "{{ {'a': [1]} | tojson(indent=10 ** 12) }}", SMALL, -E2BIG, "");
	refused("a width", "{{ '%999999999d' % 1 }}", SMALL, -E2BIG, "width");
	refused("a precision", "{{ '%.999999999f' % 1 }}", SMALL, -E2BIG, "width");
	refused("many strips",
		"{% for i in range(9999) %}{{ ('a' * 9999).strip('ba') }}{% endfor %}", SMALL,
		-E2BIG, "");
	refused("comparisons",
		"{% set x = 'a' * 999999 %}{% set y = x ~ 'b' %}{% set x = x ~ 'c' %}"
		"{% for i in range(99999) %}{% if x < y %}{% endif %}{% endfor %}",
		SMALL, -E2BIG, "steps");
	refused("searches",
		"{% set x = 'a' * 999999 %}{% for i in range(99999) %}{% if 'b' in x %}{% endif %}"
		"{% endfor %}",
		SMALL, -E2BIG, "steps");
	refused("a power", "{{ 10 ** 10 ** 10 }}", SMALL, -EOPNOTSUPP, "64 bits");
}

/* A list in a list in a list .. that the template builds. */
#define NESTED                                                                                \
	"{% set ns = namespace(x=[]) %}{% for i in range(99999) %}{% set ns.x = [ns.x] %}{% " \
	"endfor %}"

static void test_values(void)
{
	refused("printed", NESTED "{{ ns.x }}", SMALL, -ELOOP, "nested more than");
	refused("as json", NESTED "{{ ns.x | tojson }}", SMALL, -ELOOP, "nested more than");
	refused("compared", NESTED "{% set a = ns.x %}" NESTED "{{ a == ns.x }}", SMALL, -ELOOP,
		"nested more than");
	refused("ordered", NESTED "{% set a = ns.x %}" NESTED "{{ a < ns.x }}", SMALL, -ELOOP,
		"nested more than");
	refused("hashed",
		"{% set ns = namespace(x=()) %}{% for i in range(99999) %}{% set ns.x = (ns.x,) %}"
		"{% endfor %}{{ {ns.x: 1} }}",
		SMALL, -ELOOP, "nested more than");
	refused("generators",
		"{% set ns = namespace(x=l) %}{% for i in range(99999) %}{% set ns.x = ns.x | "
		"map('string') %}{% endfor %}{{ ns.x | list }}",
		SMALL, -ELOOP, "nested more than");
}

static void test_contexts(void)
{
	char *deep = repeated("{\"n\": ", "[", 1000, "1"), *closed;
	struct weft_error e = {0};
	struct weft_template *t;
	char *text = NULL;
	size_t n;

	closed = repeated(deep, "]", 1000, "}");
	refused("a deep context", "{{ n }}", closed, -ELOOP, "the context is nested");
	free(deep);
	free(closed);
	deep = repeated("{\"n\": \"", "a", WEFT_TEMPLATE_MAX_CONTEXT, "\"}");
	refused("a long context", "{{ n }}", deep, -E2BIG, "a context of");
	free(deep);
	refused("no object", "{{ n }}", "[1]", -EINVAL, "must be a JSON object");
	refused("no JSON", "{{ n }}", "{\"n\": ", -EINVAL, "not valid JSON");
	refused("a key twice", "{{ n }}", "{\"n\": 1, \"n\": 2}", -EINVAL, "not valid JSON");
	refused("half a pair", "{{ n }}", "{\"n\": \"\\ud800\"}", -EINVAL, "not valid JSON");
	refused("a time out of range", "{{ n }}", "{\"strftime_now\": 1e30}", -EINVAL, "time");
	deep = repeated("", "a", WEFT_TEMPLATE_MAX_SOURCE + 1, "");
	refused("a long template", deep, SMALL, -E2BIG, "at most");
	free(deep);
	refused("invalid UTF-8", "\xff", SMALL, -EINVAL, "UTF-8");
	/* A zero is a character like others. */
	is_int(weft_template_new(&t, "a\0{{ n }}", 9, &e), 0, "a template with a zero in it");
	is_int(weft_template_render(t, "{\"n\": \"\\u0000\"}", 15, &text, &n, &e), 0,
	       "a context, too");
	ok(n == 3 && !memcmp(text, "a\0\0", 4), "both are in the text");
	weft_text_free(text);
	weft_template_free(t);
}

static void test_lines(void)
{
	refused("a syntax error", "a\nb\n{{ n + }}", SMALL, -EINVAL, "chat template, line 3: ");
	refused("an error", "{% if n %}\n\n{{ nope.x }}{% endif %}", SMALL, -EINVAL,
		"line 3: 'nope' is undefined");
	refused("a member", "{{ n }}\n{{ s.x.y }}", SMALL, -EINVAL,
		"line 2: there is no member 'x'");
	refused("behind a strip", "{{ n }}\n\n  {%- if n %}\n{{ 1 // 0 }}{% endif %}", SMALL,
		-EINVAL, "line 4: division by zero");
	refused("in a macro", "{% macro m(x) %}\n{{ x + 1 }}\n{% endmacro %}\n\n{{ m('a') }}",
		SMALL, -EINVAL, "line 2: '+' is not defined between str and int");
	refused("its own", "\n{{ raise_exception('not\nso') }}", SMALL, -EBADMSG, "line 2: not?so");
	refused("no such filter", "\n{{ n | nosuch }}", SMALL, -EOPNOTSUPP,
		"line 2: the filter 'nosuch' is not supported");
	refused("no such test", "\n{{ n is nosuch }}", SMALL, -EOPNOTSUPP,
		"line 2: the test 'nosuch' is not supported");
	refused("no such statement", "{% include 'x' %}", SMALL, -EOPNOTSUPP,
		"line 1: the statement 'include' is not supported");
	refused("a great float as an integer", "{{ '%d' % 1e20 }}", SMALL, -EOPNOTSUPP,
		"'%d': a number of more than 64 bits is not supported");
	refused("a count from a place on", "{{ 'aa'.count('a', 1) }}", SMALL, -EOPNOTSUPP,
		"count: a start is not supported");
	refused("a method", "{{ s.translate() }}", SMALL, -EOPNOTSUPP, "str's member 'translate'");
}

/* --- folders -------------------------------------------------------------------------------------*/

static void put(const char *dir, const char *name, const char *text)
{
	char path[300];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	if (!text) {
		unlink(path);
		return;
	}
	f = fopen(path, "w");
	if (!f || fputs(text, f) < 0 || fclose(f))
		bail_out(path);
}

static void opens(const char *dir, const char *want, const char *what)
{
	struct weft_error e = {0};
	struct weft_template *t = NULL;
	char *text = NULL;
	size_t n;

	if (weft_template_open(&t, dir, &e) ||
	    weft_template_render(t, SMALL, strlen(SMALL), &text, &n, &e))
		diag("%s", e.message);
	is_str(text, want, "%s", what);
	weft_text_free(text);
	weft_template_free(t);
}

static void test_folders(void)
{
	char dir[] = "/tmp/weft-template-XXXXXX";
	struct weft_error e = {0};
	struct weft_template *t = NULL;

	if (!mkdtemp(dir))
		bail_out("mkdtemp");
	is_int(weft_template_open(&t, dir, &e), -ENOENT, "an empty folder");
	put(dir, "tokenizer_config.json", "{\"eos_token\": \"x\"}");
	is_int(weft_template_open(&t, dir, &e), -ENOENT, "a configuration without a template");
	ok(strstr(e.message, "no chat template"), "and that is what is said");
	put(dir, "tokenizer_config.json", "{\"chat_template\": \"one {{ n }}\"}");
	opens(dir, "one 7", "a template in the configuration");
	put(dir, "tokenizer_config.json",
	    "{\"chat_template\": [{\"name\": \"tool_use\", \"template\": \"no\"}, "
	    "{\"name\": \"default\", \"template\": \"two {{ n }}\"}]}");
	opens(dir, "two 7", "the default of several");
	put(dir, "chat_template.jinja", "three {{ n }}\n");
	opens(dir, "three 7", "a file of its own comes first");
	put(dir, "chat_template.jinja", "{{ n");
	is_int(weft_template_open(&t, dir, &e), -EINVAL, "a broken one is an error");
	ok(strstr(e.message, dir) && strstr(e.message, "line 1"), "that names folder and line");
	put(dir, "chat_template.jinja", NULL);
	put(dir, "tokenizer_config.json",
	    "{\"chat_template\": [{\"name\": \"rag\", \"template\": \"\"}]}");
	is_int(weft_template_open(&t, dir, &e), -ENOENT, "several without a default");
	put(dir, "tokenizer_config.json", NULL);
	rmdir(dir);
}

/* --- threads -------------------------------------------------------------------------------------*/

#define THREADS 4

static void *many(void *arg)
{
	const struct weft_template *t = arg;
	long wrong = 0;

	for (int i = 0; i < 300; i++) {
		char context[100], want[100], *text = NULL;
		size_t n;

		snprintf(context, sizeof(context), "{\"n\": %d, \"l\": [1, 2, 3]}", i);
		snprintf(want, sizeof(want), "1:%d,2:%d,3:%d,%d", i, i, i, 3 * i);
		if (weft_template_render(t, context, strlen(context), &text, &n, NULL) ||
		    strcmp(text, want))
			wrong++;
		weft_text_free(text);
	}
	return (void *)wrong;
}

static void test_threads(void)
{
	static const char source[] =
		"{% macro m(x) %}{{ x }}:{{ n }},{% endmacro %}{% set ns = namespace(k=0) %}"
		"{% for x in l %}{{ m(x) }}{% set ns.k = ns.k + n %}{% endfor %}{{ ns.k }}";
	struct weft_template *t;
	pthread_t threads[THREADS];
	void *wrong;
	long all = 0;

	if (weft_template_new(&t, source, sizeof(source) - 1, NULL))
		bail_out("template");
	for (int i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, many, t))
			bail_out("thread");
	for (int i = 0; i < THREADS; i++) {
		pthread_join(threads[i], &wrong);
		all += (long)wrong;
	}
	is_int(all, 0, "%d threads render one template", THREADS);
	weft_template_free(t);
	weft_template_free(NULL);
}

int main(void)
{
	test_nesting();
	test_running();
	test_values();
	test_contexts();
	test_lines();
	test_folders();
	test_threads();
	return tap_done();
}
