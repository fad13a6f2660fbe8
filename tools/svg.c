/* SPDX-License-Identifier: Apache-2.0 */
/*
 * svg.c - a small plotter; see svg.h.
 *
 * A plot is a fixed frame with its axes scaled to what is in the series. A linear axis begins at 0
 * and has steps of 1, 2 or 5; a logarithmic one has a line at each decade, with 2 and 5 between
 * when there are few decades, and ends a little beyond the data. The horizontal axis of lines has
 * its ticks where the points are: they were chosen by somebody. Everything is stateless but the
 * stream.
 */
#include "tools/svg.h"

#include <math.h>
#include <string.h>

#define PLOT_W 430
#define PLOT_H 300
#define LEFT   66 /* of the frame within its plot */
#define RIGHT  14
#define TOP    34
#define BOTTOM 74
#define HEAD   34 /* the document's title */

struct axis {
	double min, max; /* as values */
	bool log;
	double from, to; /* pixels */
};

static const char *const palette[] = {"#0868ac", "#7bccc4", "#d7301f", "#fc8d59",
				      "#636363", "#8856a7", "#31a354", "#000000"};

static const char *color(uint32_t i)
{
	return palette[i % (sizeof(palette) / sizeof(*palette))];
}

static void put_text(FILE *f, const char *s)
{
	for (; *s; s++) {
		if (*s == '<')
			fputs("&lt;", f);
		else if (*s == '>')
			fputs("&gt;", f);
		else if (*s == '&')
			fputs("&amp;", f);
		else if ((unsigned char)*s >= 0x20)
			putc(*s, f);
	}
}

/* anchor: start, middle, end */
static void text_at(FILE *f, double x, double y, const char *anchor, const char *more,
		    const char *s)
{
	fprintf(f, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\"%s>", x, y, anchor, more);
	put_text(f, s);
	fputs("</text>\n", f);
}

static void line(FILE *f, double x1, double y1, double x2, double y2, const char *stroke)
{
	fprintf(f, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\"/>\n", x1,
		y1, x2, y2, stroke);
}

/* --- axes ----------------------------------------------------------------------------------------*/

static bool shown(const struct axis *a, double v)
{
	return isfinite(v) && (!a->log || v > 0);
}

static double place(const struct axis *a, double v)
{
	double t;

	if (a->log)
		t = (log(v) - log(a->min)) / (log(a->max) - log(a->min));
	else
		t = (v - a->min) / (a->max - a->min);
	return a->from + (t < 0 ? 0 : t > 1 ? 1 : t) * (a->to - a->from);
}

static void widen(struct axis *a, const double *v, uint32_t n)
{
	for (uint32_t i = 0; v && i < n; i++) {
		if (!shown(a, v[i]))
			continue;
		a->min = v[i] < a->min ? v[i] : a->min;
		a->max = v[i] > a->max ? v[i] : a->max;
	}
}

/* The largest of 1, 2, 5 times a power of ten that is not above v > 0. */
static double round_down(double v)
{
	double p = pow(10, floor(log10(v)));

	return v >= 5 * p ? 5 * p : v >= 2 * p ? 2 * p : p;
}

static void finish_axis(struct axis *a, bool margin)
{
	if (!(a->min <= a->max)) { /* nothing to show */
		a->min = a->log ? 1 : 0;
		a->max = 10;
	}
	if (a->log) {
		a->min = margin ? round_down(a->min * 0.8) : a->min / 1.15;
		a->max = margin ? a->max * 1.6 : a->max * 1.15;
	} else {
		a->min = a->min < 0 ? a->min : 0;
		a->max = a->max > a->min ? a->max + 0.06 * (a->max - a->min) : a->min + 1;
	}
}

/* Values worth a label between min and max; returns how many. */
static uint32_t ticks(const struct axis *a, double *ret, uint32_t max)
{
	static const double parts[] = {1, 2, 5};
	uint32_t n = 0;

	if (!a->log) {
		double step = round_down((a->max - a->min) / 4);

		for (double v = ceil(a->min / step) * step; v <= a->max && n < max; v += step)
			ret[n++] = fabs(v) < step / 1e6 ? 0 : v;
		return n;
	}
	for (double p = pow(10, floor(log10(a->min))); p <= a->max && n < max; p *= 10)
		for (int i = 0; i < (a->max / a->min < 300 ? 3 : 1) && n < max; i++)
			if (parts[i] * p >= a->min * 0.999 && parts[i] * p <= a->max)
				ret[n++] = parts[i] * p;
	return n;
}

static void y_axis(FILE *f, const struct axis *a, double left, double right, const char *label)
{
	double t[24], mid = (a->from + a->to) / 2;
	uint32_t n = ticks(a, t, 24);
	char s[128];

	for (uint32_t i = 0; i < n; i++) {
		double y = place(a, t[i]);

		line(f, left, y, right, y, "#e4e4e4");
		snprintf(s, sizeof(s), "%.10g", t[i]);
		text_at(f, left - 6, y + 4, "end", "", s);
	}
	snprintf(s, sizeof(s), " transform=\"rotate(-90 %.1f %.1f)\"", left - 50, mid);
	text_at(f, left - 50, mid, "middle", s, label);
}

/* Ticks at the points of the longest line, those left out that would touch the one before. */
static void x_axis_points(FILE *f, const struct axis *a, const struct svg_plot *p, double bottom)
{
	const struct svg_series *longest = NULL;
	double last = -1e9;
	char s[32];

	for (uint32_t i = 0; i < p->n_series; i++)
		if (!longest || p->series[i].n > longest->n)
			longest = &p->series[i];
	for (uint32_t i = 0; longest && i < longest->n; i++) {
		double x;

		if (!shown(a, longest->x[i]))
			continue;
		x = place(a, longest->x[i]);
		line(f, x, bottom, x, bottom + 4, "#444");
		snprintf(s, sizeof(s), "%.10g", longest->x[i]);
		if (x - last > 7.0 * strlen(s)) {
			text_at(f, x, bottom + 16, "middle", "", s);
			last = x;
		}
	}
}

/* --- one plot ------------------------------------------------------------------------------------*/

static void whisker(FILE *f, const struct axis *y, double x, const struct svg_series *s, uint32_t i)
{
	if (s->lo && s->hi && shown(y, s->lo[i]) && shown(y, s->hi[i]))
		line(f, x, place(y, s->lo[i]), x, place(y, s->hi[i]), "#222");
}

static void draw_line(FILE *f, const struct svg_series *s, const struct axis *x,
		      const struct axis *y)
{
	const char *c = color(s->color);

	fprintf(f, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"2\" points=\"", c);
	for (uint32_t i = 0; i < s->n; i++)
		if (shown(x, s->x[i]) && shown(y, s->y[i]))
			fprintf(f, "%.1f,%.1f ", place(x, s->x[i]), place(y, s->y[i]));
	fputs("\"/>\n", f);
	for (uint32_t i = 0; i < s->n; i++) {
		if (!shown(x, s->x[i]) || !shown(y, s->y[i]))
			continue;
		whisker(f, y, place(x, s->x[i]), s, i);
		fprintf(f, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"/>\n",
			place(x, s->x[i]), place(y, s->y[i]), c);
	}
}

static void draw_bars(FILE *f, const struct svg_plot *p, double left, double right,
		      const struct axis *y)
{
	double group = (right - left) / p->n_groups, width = 0.8 * group / p->n_series;

	for (uint32_t k = 0; k < p->n_series; k++) {
		const struct svg_series *s = &p->series[k];

		for (uint32_t i = 0; i < s->n; i++) {
			double x = left + group * (s->x[i] + 0.1) + width * k, top;

			if (!shown(y, s->y[i]))
				continue;
			top = place(y, s->y[i]);
			fprintf(f,
				"<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" "
				"fill=\"%s\"/>\n",
				x, top, width, y->from - top, color(s->color));
			whisker(f, y, x + width / 2, s, i);
		}
	}
	for (uint32_t i = 0; i < p->n_groups; i++)
		text_at(f, left + group * (i + 0.5), y->from + 16, "middle", "", p->groups[i]);
}

static void legend(FILE *f, const struct svg_plot *p, double left, double y)
{
	double x = left;

	for (uint32_t i = 0; i < p->n_series; i++) {
		double width = 24 + 6.2 * strlen(p->series[i].name);

		if (x > left && x + width > left + PLOT_W - LEFT) {
			x = left;
			y += 14;
		}
		fprintf(f, "<rect x=\"%.1f\" y=\"%.1f\" width=\"10\" height=\"10\" fill=\"%s\"/>\n",
			x, y - 9, color(p->series[i].color));
		text_at(f, x + 14, y, "start", "", p->series[i].name);
		x += width;
	}
}

static void draw_plot(FILE *f, const struct svg_plot *p, double x0, double y0)
{
	double left = x0 + LEFT, right = x0 + PLOT_W - RIGHT, top = y0 + TOP,
	       bottom = y0 + PLOT_H - BOTTOM;
	struct axis x = {INFINITY, -INFINITY, p->x_log, left, right};
	struct axis y = {INFINITY, -INFINITY, p->y_log, bottom, top};

	for (uint32_t i = 0; i < p->n_series; i++) {
		const struct svg_series *s = &p->series[i];

		widen(&x, s->x, s->n);
		widen(&y, s->y, s->n);
		widen(&y, s->lo, s->lo ? s->n : 0);
		widen(&y, s->hi, s->hi ? s->n : 0);
	}
	finish_axis(&x, false);
	finish_axis(&y, true);
	text_at(f, left, y0 + 20, "start", " font-weight=\"bold\"", p->title);
	y_axis(f, &y, left, right, p->y_label);
	fprintf(f,
		"<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"none\" "
		"stroke=\"#444\"/>\n",
		left, top, right - left, bottom - top);
	if (p->groups) {
		draw_bars(f, p, left, right, &y);
	} else {
		x_axis_points(f, &x, p, bottom);
		for (uint32_t i = 0; i < p->n_series; i++)
			draw_line(f, &p->series[i], &x, &y);
	}
	text_at(f, (left + right) / 2, bottom + 31, "middle", "", p->x_label);
	legend(f, p, left, bottom + 50);
}

int svg_write(FILE *out, const char *title, const struct svg_plot *plots, uint32_t n,
	      uint32_t columns)
{
	uint32_t rows = (n + columns - 1) / columns;
	uint32_t w = columns * PLOT_W, h = rows * PLOT_H + HEAD;

	fprintf(out,
		"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
		"<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%u\" height=\"%u\" "
		"viewBox=\"0 0 %u %u\" font-family=\"sans-serif\" font-size=\"11\">\n"
		"<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
		w, h, w, h);
	text_at(out, 12, 22, "start", " font-size=\"15\" font-weight=\"bold\"", title);
	for (uint32_t i = 0; i < n; i++)
		draw_plot(out, &plots[i], PLOT_W * (double)(i % columns),
			  HEAD + PLOT_H * (double)(i / columns));
	fputs("</svg>\n", out);
	return fflush(out) || ferror(out) ? -1 : 0;
}
