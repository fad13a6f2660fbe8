/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image.c - stands where the compiled kernels are, in a module that only the fake driver loads: that
 * one runs the kernels' text. So the tests need no nvcc.
 */
#include "kernels/cuda/image.h"

#include <stddef.h>

const void *cuda_image(enum cuda_image i)
{
	static const char images[CUDA_IMAGES][16] = {"basic", "gemm", "attention",
						     "flash", "lora", "sample"};

	return images[i];
}

int cuda_image_release(void)
{
	return 13;
}

const char *cuda_image_missing(void)
{
	return NULL;
}
