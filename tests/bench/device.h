/* SPDX-License-Identifier: Apache-2.0 */
/*
 * device.h - measuring the CUDA backend: figures, the device's own limits, passes of a model.
 *
 * Every figure is written to the stage's file as soon as it is there: a stage that is stopped leaves
 * what it has measured. Nothing is shared between threads: there is one.
 */
#ifndef WEFT_TESTS_BENCH_DEVICE_H
#define WEFT_TESTS_BENCH_DEVICE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "kernels/cuda/driver.h"

#define DEVICE_MAX_SAMPLES 32

enum figure_goal { FIGURE_NONE, FIGURE_AT_LEAST, FIGURE_AT_MOST };

/* --- figures -----------------------------------------------------------------------------------*/

struct figures {
	json_t *root, *list; /* owner; list is in root */
	const char *path;    /* borrowed: the file, or NULL */
	bool small;	     /* tiny shapes: nothing is compared with a target */
};

int figures_open(struct figures *f, const char *path, const char *stage, bool small);
void figures_close(struct figures *f);
/* A fact about the run ("device", "driver_version"). */
void figures_fact(struct figures *f, const char *name, json_t *value);
/* The median of n samples, sorted in place, and their extremes. target 0: none. */
void figures_add(struct figures *f, const char *name, const char *unit, double *samples, uint32_t n,
		 enum figure_goal goal, double target);
/* A figure that could not be had, and why. */
void figures_missing(struct figures *f, const char *name, const char *why);

/* Figures from which the report makes others; the second is on_device.sh's. */
#define FIGURE_QUEUED "host: a step of that batch queued, the engine's own part not in it"
#define FIGURE_OWN    "engine: own work of a step, the batch, p50 and p99"

/* All files of a run as one table on stdout and one document, with what follows from several of them;
 * 0 or -1 with a message. */
int report(int n, char **files, const char *out);

/* --- the device's limits -----------------------------------------------------------------------*/

struct limits {
	struct cu_driver cu;
	cu_device device;
	cu_context context;
	cu_stream stream;
	cu_ptr from, to; /* owner; of a copy */
	size_t bytes;
	int (*copy)(cu_ptr to, cu_ptr from, size_t bytes, cu_stream s);
};

/* 0 or -1 with a message on stderr. bytes: of a copy, much more than the device caches. */
int limits_open(struct limits *l, size_t bytes);
void limits_close(struct limits *l);
/* Bytes read plus bytes written a second, by the driver's own copy; negative: it failed. */
double limits_bandwidth(struct limits *l);

int stage_limits(struct figures *f);

/* --- products of one row -----------------------------------------------------------------------*/

int stage_products(struct figures *f);

/* --- a model -----------------------------------------------------------------------------------*/

struct model_stage {
	const char *dir; /* with config.json alone */
	bool deterministic;
	const char *without; /* only decoding of one row, with this variable set to 0; or NULL */
	bool small;
};

/* In the order of importance; what fails ends the stage with what there is. */
int stage_model(struct figures *f, const struct model_stage *o);

#endif
