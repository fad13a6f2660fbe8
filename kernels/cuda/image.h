/* SPDX-License-Identifier: Apache-2.0 */
/* image.h - the compiled kernels that the module carries: one image for each .cu. */
#ifndef WEFT_KERNELS_CUDA_IMAGE_H
#define WEFT_KERNELS_CUDA_IMAGE_H

enum cuda_image {
	CUDA_IMAGE_basic,
	CUDA_IMAGE_gemm,
	CUDA_IMAGE_attention,
	CUDA_IMAGE_flash,
	CUDA_IMAGE_lora,
	CUDA_IMAGE_sample,
	CUDA_IMAGES
};

const void *cuda_image(enum cuda_image i);
/* What is wrong with the images, or NULL. */
const char *cuda_image_missing(void);
/* The release of the compiler that made them: 12, 13. */
int cuda_image_release(void);

#endif
