/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image.c - the kernels as nvcc compiled them, taken into the module byte by byte. WEFT_FATBIN is the
 * folder that they are in, and WEFT_NVCC that compiler's release (rules.mk).
 */
#include "kernels/cuda/image.h"

#include <stddef.h>

#define IMAGE(name)                                                         \
	extern const char cuda_fatbin_##name[];                             \
	__asm__(".section .rodata\n.balign 64\n.global cuda_fatbin_" #name  \
		"\n.hidden cuda_fatbin_" #name "\ncuda_fatbin_" #name ":\n" \
		".incbin \"" WEFT_FATBIN "/" #name ".fatbin\"\n.previous\n")

IMAGE(basic);
IMAGE(gemm);
IMAGE(attention);
IMAGE(flash);
IMAGE(lora);
IMAGE(sample);

const void *cuda_image(enum cuda_image i)
{
	static const void *const images[CUDA_IMAGES] = {
		cuda_fatbin_basic, cuda_fatbin_gemm, cuda_fatbin_attention,
		cuda_fatbin_flash, cuda_fatbin_lora, cuda_fatbin_sample,
	};

	return images[i];
}

int cuda_image_release(void)
{
	return WEFT_NVCC;
}

const char *cuda_image_missing(void)
{
	return NULL;
}
