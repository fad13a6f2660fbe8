/* SPDX-License-Identifier: Apache-2.0 */
/* adapter_box.h - an adapter's two files in memory, to be changed and given to the loader. */
#ifndef WEFT_TESTS_MODEL_ADAPTER_BOX_H
#define WEFT_TESTS_MODEL_ADAPTER_BOX_H

#include "tests/model/adapted.h"

struct adapter_box {
	json_t *config;
	char *config_text; /* instead of config, if set; owner */
	size_t config_bytes;
	json_t *header;
	uint8_t *data;
	size_t data_bytes;
	uint64_t claimed_header; /* instead of the header's length, if not 0 */
	size_t keep;		 /* the weights' file is cut to this, if not 0 */
	int32_t offset;
	enum wshm_missing on_missing;
};

/* The tensor that the cases break, and one beside it. */
#define BOX_A "base_model.model.model.layers.1.mlp.up_proj.lora_A.weight"
#define BOX_B "base_model.model.model.layers.1.mlp.up_proj.lora_B.weight"

/* Read a folder of tests/data/adapters; what fails ends the test. */
void box_read(struct adapter_box *b, const char *fixture);
void box_free(struct adapter_box *b);
/* Where the data of a tensor begins. */
uint8_t *box_data(struct adapter_box *b, const char *tensor);

/* A model that has a configuration and a backend, which is all that the loader needs. */
void box_model_open(struct model *ret, const struct wk_ops *ops, const char *fixture);
void box_model_close(struct model *m);

/* Open the box as `name` through two sealed memfds. 0 or -errno. */
int box_open(const struct adapter_box *b, const struct model *m, const char *name,
	     struct adapter **ret, struct weft_err *err);

#endif
