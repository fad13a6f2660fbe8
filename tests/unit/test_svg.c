/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The plotter: what it writes is well-formed XML whatever the labels are, every point that can be
 * shown is there once and in its place, and what cannot be shown is left out.
 */
#include "tests/tap.h"
#include "tools/svg.h"

#include <ctype.h>
#include <math.h>

/* --- a strict reader of the little of XML that a plot needs --------------------------------------*/

struct reader {
	const char *at, *error;
	char open[32][32];
	int depth;
};

static int fail(struct reader *r, const char *why)
{
	r->error = r->error ? r->error : why;
	return 0;
}

static int name(struct reader *r, char *ret)
{
	int n = 0;

	while ((isalnum((unsigned char)*r->at) || strchr("-_:", *r->at)) && *r->at && n < 31)
		ret[n++] = *r->at++;
	ret[n] = 0;
	return n ? 1 : fail(r, "a name is missing");
}

/* Text up to `stop`; entities must be known ones. */
static int text(struct reader *r, char stop)
{
	static const char *const known[] = {"&lt;", "&gt;", "&amp;", "&quot;"};

	while (*r->at && *r->at != stop) {
		int ok_entity = 0;

		if (*r->at == '<')
			return fail(r, "a bare < in text");
		if (*r->at == '&') {
			for (int i = 0; i < 4; i++)
				ok_entity |= !strncmp(r->at, known[i], strlen(known[i]));
			if (!ok_entity)
				return fail(r, "a bare & in text");
		}
		r->at++;
	}
	return *r->at == stop ? 1 : fail(r, "the text ends in the middle");
}

static int attributes(struct reader *r)
{
	char seen[512] = " ", n[32], word[40];

	while (*r->at == ' ') {
		r->at++;
		if (!name(r, n))
			return 0;
		snprintf(word, sizeof(word), " %s ", n);
		if (strstr(seen, word))
			return fail(r, "an attribute stands twice");
		strncat(seen, word + 1, sizeof(seen) - strlen(seen) - 1);
		if (strncmp(r->at, "=\"", 2))
			return fail(r, "an attribute without a value");
		r->at += 2;
		if (!text(r, '"'))
			return 0;
		r->at++;
	}
	return 1;
}

static int element(struct reader *r)
{
	char n[32];

	r->at++;
	if (*r->at == '/') {
		r->at++;
		if (!name(r, n) || !r->depth || strcmp(n, r->open[--r->depth]) || *r->at++ != '>')
			return fail(r, "an end tag without its start");
		return 1;
	}
	if (!name(r, n) || !attributes(r))
		return 0;
	if (!strncmp(r->at, "/>", 2)) {
		r->at += 2;
		return 1;
	}
	if (*r->at++ != '>' || r->depth == 32)
		return fail(r, "a tag does not end");
	strcpy(r->open[r->depth++], n);
	return 1;
}

/* NULL: well-formed. */
static const char *malformed(const char *s)
{
	struct reader r = {.at = s};
	const char *head = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";

	if (strncmp(s, head, strlen(head)))
		return "no XML declaration";
	r.at += strlen(head);
	do {
		if (*r.at == '<' ? !element(&r) : !text(&r, '<'))
			return r.error;
	} while (r.depth);
	return strcmp(r.at, "\n") ? "something follows the root" : NULL;
}

static int count(const char *s, const char *what)
{
	int n = 0;

	for (; (s = strstr(s, what)); s++)
		n++;
	return n;
}

/* --- the plots -----------------------------------------------------------------------------------*/

static char out[1 << 16];

static void draw(const struct svg_plot *plots, uint32_t n, const char *title)
{
	FILE *f = fmemopen(out, sizeof(out), "w");

	is_int(svg_write(f, title, plots, n, 2), 0, "%s: written", title);
	fclose(f);
	ok(!malformed(out), "%s: well-formed (%s)", title, malformed(out) ? malformed(out) : "yes");
}

static double attribute(const char *at, const char *key)
{
	const char *v = at ? strstr(at, key) : NULL;

	return v ? atof(v + strlen(key)) : NAN;
}

static void lines(void)
{
	const double x[] = {1, 10, 100, 1000}, y[] = {0.001, 0.1, 10, 1000};
	struct svg_series s = {.name = "a line", .x = x, .y = y, .n = 4};
	struct svg_plot p = {.title = "t",
			     .x_label = "x",
			     .y_label = "y",
			     .x_log = true,
			     .y_log = true,
			     .series = &s,
			     .n_series = 1};
	double cx[4], cy[4];
	const char *at = out;

	draw(&p, 1, "equal ratios");
	is_int(count(out, "<circle"), 4, "a mark for every point");
	for (int i = 0; i < 4; i++) {
		at = strstr(at, "<circle") + 1;
		cx[i] = attribute(at, "cx=\"");
		cy[i] = attribute(at, "cy=\"");
	}
	/* Equal ratios are equal distances on a logarithmic axis; larger is to the right and up. */
	ok(fabs((cx[1] - cx[0]) - (cx[3] - cx[2])) < 0.2 && cx[1] - cx[0] > 50, "x is logarithmic");
	ok(fabs((cy[0] - cy[1]) - (cy[2] - cy[3])) < 0.2 && cy[0] - cy[1] > 30, "y is logarithmic");
	p.x_log = p.y_log = false;
	draw(&p, 1, "linear");
	at = strstr(out, "<circle") + 1;
	cx[0] = attribute(at, "cx=\"");
	at = strstr(strstr(at, "<circle") + 1, "<circle") + 1;
	cx[2] = attribute(at, "cx=\"");
	at = strstr(at, "<circle") + 1;
	cx[3] = attribute(at, "cx=\"");
	ok(fabs((cx[2] - cx[0]) / (cx[3] - cx[0]) - 99.0 / 999) < 0.01, "x is linear");
}

static void what_cannot_be_shown(void)
{
	const double x[] = {1, 2, 3, 4}, y[] = {0, NAN, INFINITY, 5}, none[] = {0, 0, 0, NAN};
	struct svg_series s[] = {{.name = "a", .x = x, .y = y, .n = 4},
				 {.name = "b", .x = x, .y = none, .n = 4},
				 {.name = "c", .n = 0}};
	struct svg_plot p = {.title = "t",
			     .x_label = "x",
			     .y_label = "y",
			     .y_log = true,
			     .series = s,
			     .n_series = 3};

	draw(&p, 1, "zero and what is no number");
	is_int(count(out, "<circle"), 1, "only what has a place is marked");
	ok(!strstr(out, "nan") && !strstr(out, "inf"), "no coordinate is not a number");
	p.series = s + 1;
	p.n_series = 2;
	draw(&p, 1, "nothing to show");
	is_int(count(out, "<circle"), 0, "an empty plot");
}

static void bars_and_names(void)
{
	const char *const groups[] = {"<queue>", "pre & fill", "\"decode\"\n"};
	const double x[] = {0, 1, 2}, y[] = {1, 20, 300}, lo[] = {0.5, 10, 200},
		     hi[] = {2, 30, 400};
	struct svg_series s[] = {{.name = "a<b", .x = x, .y = y, .lo = lo, .hi = hi, .n = 3},
				 {.name = "c&d;]]>", .color = 99, .x = x, .y = hi, .n = 3}};
	struct svg_plot p[3];

	for (int i = 0; i < 3; i++)
		p[i] = (struct svg_plot){.title = "<&>",
					 .x_label = "&amp;",
					 .y_label = "</svg>",
					 .y_log = true,
					 .series = s,
					 .n_series = 2,
					 .groups = groups,
					 .n_groups = 3};
	draw(p, 3, "names with < & > in \"quotes\"");
	/* Background; frame, six bars and two legends' marks of each plot. */
	is_int(count(out, "<rect"), 1 + 3 * 9, "bars, frames and legends");
	ok(strstr(out, ">a&lt;b</text>") && strstr(out, ">c&amp;d;]]&gt;</text>"), "escaped names");
}

int main(void)
{
	ok(malformed("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<a><b></a></b>\n") != NULL,
	   "the reader sees a wrong nesting");
	ok(malformed("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<a b=\"1\" b=\"2\"/>\n") != NULL,
	   "and an attribute that stands twice");
	ok(malformed("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<a>&x</a>\n") != NULL,
	   "and a bare ampersand");
	lines();
	what_cannot_be_shown();
	bars_and_names();
	return tap_done();
}
