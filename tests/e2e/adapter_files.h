/* SPDX-License-Identifier: Apache-2.0 */
/* adapter_files.h - PEFT folders with random weights, written on the spot, for tests of serving. */
#ifndef WEFT_TESTS_ADAPTER_FILES_H
#define WEFT_TESTS_ADAPTER_FILES_H

#include <stdbool.h>
#include <stdint.h>

#define AF_MAX_INVOCATION 8

/* Linears as bits, in PEFT's order. */
enum af_linear { AF_Q = 1, AF_K = 2, AF_V = 4, AF_O = 8, AF_GATE = 16, AF_UP = 32, AF_DOWN = 64 };
#define AF_ALL 127u

struct af_adapter {
	uint32_t linears; /* enum af_linear */
	uint32_t rank;
	float alpha;
	bool rslora;
	bool bf16; /* else F32 */
	uint64_t seed;
	uint32_t n_invocation; /* 0: a plain LoRA */
	uint32_t invocation[AF_MAX_INVOCATION];
	float poison; /* nonzero: every element of B is this */
};

/* Write (or overwrite) adapter_config.json and adapter_model.safetensors for the model of model_dir
 * into dir, which is made if need be. Ends the program when that cannot be done. */
void af_write(const char *dir, const char *model_dir, const struct af_adapter *a);
/* The two files and the folder. */
void af_remove(const char *dir);

#endif
