/* SPDX-License-Identifier: Apache-2.0 */
/*
 * device.c - device-bench: one stage of measuring the CUDA backend, or the report over all of them.
 * on_device.sh calls it stage by stage, each under a time limit of its own.
 *
 *   device-bench limits|products FILE [small]
 *   device-bench model FILE DIR [small]		DIR: config.json of the shape, no weights
 *   device-bench deterministic FILE DIR [small]
 *   device-bench without-overlap|without-small FILE DIR [small]
 *   device-bench report FILE STAGE-FILE...
 */
#include <stdio.h>
#include <string.h>

#include "tests/bench/device.h"

static int usage(void)
{
	fprintf(stderr, "usage: device-bench limits|products FILE [small]\n"
			"       device-bench model|deterministic FILE DIR [small]\n"
			"       device-bench without-overlap|without-small FILE DIR [small]\n"
			"       device-bench report FILE STAGE-FILE...\n");
	return 2;
}

int main(int argc, char **argv)
{
	bool small = argc > 3 && !strcmp(argv[argc - 1], "small");
	struct model_stage o = {.small = small};
	struct figures f;
	int r;

	if (argc < 3)
		return usage();
	if (!strcmp(argv[1], "report"))
		return report(argc - 3, argv + 3, argv[2]) ? 1 : 0;
	if (figures_open(&f, argv[2], argv[1], small))
		return 1;
	if (!strcmp(argv[1], "limits")) {
		r = stage_limits(&f);
	} else if (!strcmp(argv[1], "products")) {
		r = stage_products(&f);
	} else if (argc > 3 && !strncmp(argv[1], "without-", 8)) {
		o.dir = argv[3];
		o.without =
			strcmp(argv[1], "without-small") ? "WEFT_CUDA_OVERLAP" : "WEFT_CUDA_SMALL";
		r = stage_model(&f, &o);
	} else if (argc > 3 && (!strcmp(argv[1], "model") || !strcmp(argv[1], "deterministic"))) {
		o.dir = argv[3];
		o.deterministic = *argv[1] == 'd';
		r = stage_model(&f, &o);
	} else {
		return usage();
	}
	figures_close(&f);
	return r ? 1 : 0;
}
