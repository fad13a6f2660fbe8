/* SPDX-License-Identifier: Apache-2.0 */
/* svg.h - plots as a picture: lines or grouped bars over linear or logarithmic axes. */
#ifndef WEFT_TOOLS_SVG_H
#define WEFT_TOOLS_SVG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* One line or one colour of bars; everything is borrowed. A value that is not finite, or not
 * positive on a logarithmic axis, is left out. */
struct svg_series {
	const char *name;
	uint32_t color;	       /* which of the palette; series of one meaning share it */
	const double *x, *y;   /* of bars: x is the group's index */
	const double *lo, *hi; /* the spread, drawn as a whisker; NULL: none */
	uint32_t n;
};

struct svg_plot {
	const char *title, *x_label, *y_label;
	bool x_log, y_log;
	const struct svg_series *series;
	uint32_t n_series;
	const char *const *groups; /* not NULL: bars in n_groups groups instead of lines */
	uint32_t n_groups;
};

/* A whole document: the plots in rows of `columns`. 0 or -1 when writing failed. */
int svg_write(FILE *out, const char *title, const struct svg_plot *plots, uint32_t n,
	      uint32_t columns);

#endif
