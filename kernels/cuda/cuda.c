/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cuda.c - the CUDA backend as an instance: device, kernels, and its table of operations.
 *
 * The kernels travel in the module (image.c), as machine code for some devices and as PTX for later
 * ones. All of them are looked up when a backend is opened: one that is missing is an error then,
 * by its name, and never in the middle of a step.
 *
 * Environment, for measuring and for tests: WEFT_CUDA_DRIVER and WEFT_CUBLASLT name the two libraries
 * (an empty WEFT_CUBLASLT: own kernels only; not set: blas_libraries), WEFT_CUDA_DEVICE the device's
 * number; WEFT_CUDA_GRAPHS=0 sends every launch by itself, WEFT_CUDA_BATCH=0 every copy of blocks (1:
 * the older of the driver's two calls for many); WEFT_CUDA_OVERLAP=0 begins no launch before the one
 * before it has ended; WEFT_CUDA_SMALL=0 leaves products of few rows to cuBLASLt, too; WEFT_CUDA_FETCH
 * is how many percent of the device's cache their weights may come into early; WEFT_CUDA_FLASH=0 leaves
 * long prompts to the attention that decoding has.
 */
#include "kernels/cuda/cuda.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/image.h"
#include "kernels/module.h"

#define BLAS_WORKSPACE ((size_t)32 << 20) /* what the vendor advises for Hopper */
#define OLDEST_DRIVER  12000
#define SHORT_ROWS     256 /* weights take as long to read as the arithmetic of about 200 rows */
#define OVERLAP_FROM   90  /* capability */
#define FETCH_PERCENT  40  /* of the device's cache: see linear.c */

/* The name without a version comes with the vendor's development packages only. */
static const char *const blas_libraries[] = {
	"libcublasLt.so.13",
	"libcublasLt.so.12",
	"libcublasLt.so",
	NULL,
};

/* --- errors ------------------------------------------------------------------------------------------*/

/* Of a failed open, when there is no backend to hold it. */
static _Thread_local char open_error[256];

int cuda_fail(struct wk_backend *be, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(be ? be->error : open_error, sizeof(open_error), fmt, ap);
	va_end(ap);
	return -err;
}

void cuda_stick(struct wk_backend *be, int err, const char *fmt, ...)
{
	va_list ap;

	if (be->sticky)
		return;
	va_start(ap, fmt);
	vsnprintf(be->error, sizeof(be->error), fmt, ap);
	va_end(ap);
	be->sticky = -err;
}

void cuda_stick_last(struct wk_backend *be, int r)
{
	if (!be->sticky)
		be->sticky = r;
}

int cuda_check(struct wk_backend *be, cu_result r, const char *call, const char *what)
{
	const char *name = "an unknown error";
	char text[200];

	if (!r)
		return 0;
	if (be->sticky)
		return be->sticky;
	if (be->cu.error_name(r, &name) || !name)
		name = "an unknown error";
	snprintf(text, sizeof(text), "%s (%s): %s, %d", what, call, name, r);
	if (r == CU_OUT_OF_MEMORY)
		return cuda_fail(be, ENOMEM, "%s", text);
	/* Whatever else: the context cannot be trusted any more. */
	cuda_stick(be, EIO, "%s", text);
	return be->sticky;
}

/* This thread's; NULL: none, or it is not known. */
static _Thread_local cu_context current;

void cuda_enter(const struct wk_backend *be)
{
	if (current == be->context)
		return;
	current = be->context;
	be->cu.context_set(current);
}

static const char *last_error(const struct wk_backend *be)
{
	return be ? be->error : open_error;
}

/* --- open --------------------------------------------------------------------------------------------*/

static const char *const kernel_names[] = {
#define CUDA_KERNEL(name, file) #name,
	CUDA_KERNELS(CUDA_KERNEL)
#undef CUDA_KERNEL
};

static const enum cuda_image kernel_images[] = {
#define CUDA_KERNEL(name, file) CUDA_IMAGE_##file,
	CUDA_KERNELS(CUDA_KERNEL)
#undef CUDA_KERNEL
};

static int choose_device(struct wk_backend *be)
{
	const char *want = getenv("WEFT_CUDA_DEVICE");
	int n = 0, ordinal = want ? atoi(want) : 0, version = 0, major = 0, minor = 0, vmm = 0,
	    shared = 0, r;

	r = cu_ok(be, init, "starting the CUDA driver", 0);
	r = r ? r : cu_ok(be, driver_version, "the driver's version", &version);
	r = r ? r : cu_ok(be, device_count, "counting devices", &n);
	if (r)
		return r;
	if (version < OLDEST_DRIVER)
		return cuda_fail(be, ENOSYS, "the CUDA driver is of version %d, older than %d",
				 version, OLDEST_DRIVER);
	if (ordinal < 0 || ordinal >= n)
		return cuda_fail(be, ENODEV, "no CUDA device %d: there are %d", ordinal, n);
	r = cu_ok(be, device_get, "the device", &be->device, ordinal);
	r = r ? r
	      : cu_ok(be, device_name, "the device's name", be->device_name,
		      sizeof(be->device_name), be->device);
	r = r ? r
	      : cu_ok(be, device_attribute, "the device's kind", &major, CU_CAPABILITY_MAJOR,
		      be->device);
	r = r ? r
	      : cu_ok(be, device_attribute, "the device's kind", &minor, CU_CAPABILITY_MINOR,
		      be->device);
	r = r ? r
	      : cu_ok(be, device_attribute, "the device's size", &be->multiprocessors,
		      CU_MULTIPROCESSORS, be->device);
	r = r ? r
	      : cu_ok(be, device_attribute, "the device's memory", &vmm, CU_VIRTUAL_MEMORY,
		      be->device);
	r = r ? r
	      : cu_ok(be, device_attribute, "the device's shared memory", &shared,
		      CU_SHARED_BYTES_OPTIN, be->device);
	be->shared_bytes = (uint32_t)shared;
	be->capability = 10 * major + minor;
	if (!r && (be->capability < 80 || !vmm))
		return cuda_fail(be, ENOSYS,
				 "device %d, %s, of compute capability %d.%d: 8.0 is the least",
				 ordinal, be->device_name, major, minor);
	return r;
}

static int load_kernels(struct wk_backend *be)
{
	const char *why = cuda_image_missing();
	int version = 0, r;
	char what[96];

	_Static_assert(sizeof(be->modules) / sizeof(*be->modules) == CUDA_IMAGES, "modules");
	if (why)
		return cuda_fail(be, ENOSYS, "%s", why);
	r = cu_ok(be, driver_version, "the driver's version", &version);
	/* An older driver refuses what a newer compiler made, and does not say that this is why. */
	snprintf(what, sizeof(what), "kernels compiled by nvcc %d, on a driver of CUDA %d.%d",
		 cuda_image_release(), version / 1000, version % 1000 / 10);
	for (int i = 0; !r && i < CUDA_IMAGES; i++)
		r = cu_ok(be, module_load, what, &be->modules[i], cuda_image((enum cuda_image)i));
	if (r)
		return r;
	for (int i = 0; i < K_COUNT; i++) {
		snprintf(what, sizeof(what), "kernel %s", kernel_names[i]);
		r = cu_ok(be, function_get, what, &be->functions[i], be->modules[kernel_images[i]],
			  kernel_names[i]);
		/* These have tiles of more than the 48 KB that everyone may have. */
		if (!r && (kernel_images[i] == CUDA_IMAGE_gemm ||
			   (kernel_images[i] == CUDA_IMAGE_attention && i != K_wk_attn_merge) ||
			   (kernel_images[i] == CUDA_IMAGE_flash && i != K_wk_flash_gather)))
			r = cu_ok(be, function_set, what, be->functions[i],
				  CU_FUNCTION_SHARED_BYTES, (int)be->shared_bytes);
		/* A multiprocessor parts its memory anew only when nothing runs on it. So all kernels want
		 * the same, or one could not begin beside the one before it. */
		r = r ? r
		      : cu_ok(be, function_set, what, be->functions[i], CU_FUNCTION_SHARED_PART,
			      100);
		if (r)
			return r;
	}
	return 0;
}

/* Whether the driver can, and every kernel was compiled with the instruction to wait: those that it made from
 * PTX for an older device have none. */
static int choose_overlap(struct wk_backend *be)
{
	const char *given = getenv("WEFT_CUDA_OVERLAP");
	int version = OVERLAP_FROM, r = 0;

	be->overlap = be->capability >= OVERLAP_FROM && be->cu.launch_ex &&
		      !(given && !strcmp(given, "0"));
	for (int i = 0; !r && be->overlap && i < K_COUNT; i++) {
		r = cu_ok(be, function_is, kernel_names[i], &version, CU_FUNCTION_PTX_VERSION,
			  be->functions[i]);
		be->overlap = version >= OVERLAP_FROM;
	}
	return r;
}

/* How much of the cache a launch may fill before the one before it has ended. */
static int choose_fetch(struct wk_backend *be)
{
	const char *fetch = getenv("WEFT_CUDA_FETCH");
	int cache = 0, percent, r;

	if (!be->overlap)
		return 0;
	r = cu_ok(be, device_attribute, "the device's cache", &cache, CU_CACHE_BYTES, be->device);
	percent = fetch && *fetch ? atoi(fetch) : FETCH_PERCENT;
	if (percent > 0 && percent <= 100)
		be->fetch_bytes = (uint32_t)((uint64_t)cache * (uint32_t)percent / 100);
	return r;
}

/* The first library that opens; if none does, be->error has what each of them said. */
static void first_blas(struct wk_backend *be, const char *const *libraries)
{
	size_t at = 0;

	for (; *libraries && !be->blas; libraries++) {
		char why[128] = "out of memory";

		be->blas =
			blas_open(*libraries, be->blas_space->at, BLAS_WORKSPACE, why, sizeof(why));
		if (!be->blas && at < sizeof(be->error))
			at += (size_t)snprintf(be->error + at, sizeof(be->error) - at, "%s%s",
					       at ? "; " : "", why);
	}
	if (be->blas)
		be->error[0] = 0;
}

static int open_blas(struct wk_backend *be, const struct wk_open_options *opt)
{
	const char *given[] = {getenv("WEFT_CUBLASLT"), NULL};
	bool own = be->deterministic || (opt->path && !strcmp(opt->path, "own"));
	int r;

	if (own || (given[0] && !*given[0]))
		return 0;
	r = cuda_buf_new(be, BLAS_WORKSPACE, &be->blas_space);
	if (r)
		return r;
	first_blas(be, given[0] ? given : blas_libraries);
	if (be->blas)
		return 0;
	cuda_buf_free(be, be->blas_space);
	be->blas_space = NULL;
	return opt->path && !strcmp(opt->path, "cublaslt") ? -ENOENT : 0;
}

static void cuda_close(struct wk_backend *be)
{
	if (!be)
		return;
	if (be->stream)
		be->cu.stream_wait(be->stream);
	cuda_copies_fini(be);
	cuda_queue_fini(be);
	blas_close(be->blas);
	cuda_buf_free(be, be->blas_space);
	cuda_step_fini(be);
	for (int i = 0; i < CUDA_IMAGES; i++)
		if (be->modules[i])
			be->cu.module_free(be->modules[i]);
	if (be->stream)
		be->cu.stream_free(be->stream);
	if (be->context)
		be->cu.context_release(be->device);
	current = NULL; /* another may have the same name */
	cu_driver_close(&be->cu);
	free(be);
}

static int start(struct wk_backend *be, const struct wk_open_options *opt)
{
	int r = cu_driver_open(&be->cu, be->error, sizeof(be->error));

	r = r ? r : choose_device(be);
	r = r ? r : cu_ok(be, context_retain, "making a context", &be->context, be->device);
	r = r ? r : cu_ok(be, stream_new, "making a stream", &be->stream, CU_STREAM_ASYNC);
	r = r ? r : cuda_copies_init(be);
	r = r ? r : load_kernels(be);
	r = r ? r : choose_overlap(be);
	r = r ? r : choose_fetch(be);
	r = r ? r : cuda_step_init(be);
	/* Before a library holds on to the context: if the check harms it, it is left. */
	r = r ? r : cuda_flash_open(be);
	return r ? r : open_blas(be, opt);
}

static struct wk_backend *backend_new(const struct wk_open_options *opt, bool flash)
{
	const char *graphs = getenv("WEFT_CUDA_GRAPHS"), *small = getenv("WEFT_CUDA_SMALL");
	const char *given = getenv("WEFT_CUDA_FLASH");
	struct wk_backend *be = calloc(1, sizeof(*be));

	if (!be)
		return NULL;
	be->deterministic = opt->deterministic;
	be->small = !small || strcmp(small, "0");
	be->graphs_on = !graphs || strcmp(graphs, "0");
	be->flash = flash;
	be->flash_all = given && !strcmp(given, "2");
	return be;
}

static int cuda_open(const struct wk_open_options *opt, struct wk_backend **ret)
{
	const char *flash = getenv("WEFT_CUDA_FLASH");
	struct wk_backend *be;
	int r;

	if (opt->path && strcmp(opt->path, "own") && strcmp(opt->path, "cublaslt"))
		return cuda_fail(NULL, EINVAL, "CUDA path %s: know only own and cublaslt",
				 opt->path);
	be = backend_new(opt, !flash || strcmp(flash, "0"));
	r = be ? start(be, opt) : -ENOMEM;
	if (be && be->flash_checking) {
		/* Its kernels end with an error: once more without them, in a new context. */
		memcpy(open_error, be->error, sizeof(open_error));
		cuda_close(be);
		be = backend_new(opt, false);
		r = be ? start(be, opt) : -ENOMEM;
		if (!r && !*be->error)
			snprintf(be->error, sizeof(be->error), "attention with wgmma: %.200s",
				 open_error);
		/* What harms a context may harm all that this process can have. */
		if (r && be) {
			setenv("WEFT_CUDA_FLASH", "0", 1);
			r = cuda_fail(be, EAGAIN, "attention with wgmma: %.200s", open_error);
		}
	}
	if (!be)
		return cuda_fail(NULL, ENOMEM, "no memory for a backend");
	if (!r) {
		*ret = be;
		return 0;
	}
	memcpy(open_error, be->error, sizeof(open_error));
	cuda_close(be);
	return r;
}

/* Results depend on the device's kind and size (by which cuBLASLt chooses, and goes_whole()), the
 * library, the mode, who does products of few rows and attention of long prompts; identity says all of it. */
static uint64_t arith_rev(const struct wk_backend *be)
{
	uint64_t blas = be->blas ? blas_version(be->blas) : 0;

	return (uint64_t)'g' << 56 | (uint64_t)WK_CUDA_REV << 48 | (uint64_t)be->capability << 40 |
	       (uint64_t)be->deterministic << 39 | (uint64_t)be->flash << 38 |
	       (uint64_t)(be->multiprocessors & 0x7fff) << 23 |
	       (uint64_t)(be->blas && be->small) << 22 | (blas & 0x3fffff);
}

static void cuda_info(const struct wk_backend *be, struct wk_info *ret)
{
	size_t free_bytes = 0, total;

	*ret = (struct wk_info){
		.arith_rev = arith_rev(be),
		.x_bytes = sizeof(uint16_t),
		.align_bytes = WK_CUDA_ALIGN,
		.n_threads = 1,
		.max_rows = WK_MOST_ROWS,
		.short_rows = SHORT_ROWS,
		.queues = true,
	};
	/* Never 0, which says that the host's memory is used: not of a full device, nor of one that
	 * does not answer. */
	if (be->cu.memory_info(&free_bytes, &total) || !free_bytes)
		free_bytes = 1;
	ret->device_bytes_free = free_bytes;
	snprintf(ret->name, sizeof(ret->name), "cuda");
	snprintf(ret->path, sizeof(ret->path), "sm_%d%s%s", be->capability,
		 be->blas ? "+cublaslt" : "",
		 be->deterministic ? "+deterministic"
		 : be->flash	   ? "+wgmma"
				   : "");
}

static void *buf_host(struct wk_buf *buf)
{
	return NULL;
}

static void cuda_idle(struct wk_backend *be, bool idle)
{
}

static const struct wk_ops cuda_ops = {
	.abi = WK_ABI,
	.name = "cuda",
	.open = cuda_open,
	.close = cuda_close,
	.info = cuda_info,
	.last_error = last_error,
	.buf_new = cuda_buf_new,
	.buf_free = cuda_buf_free,
	.buf_write = cuda_buf_write,
	.buf_read = cuda_buf_read,
	.buf_host = buf_host,
	.weight_new = cuda_weight_new,
	.weight_free = cuda_weight_free,
	.weight_bytes = cuda_weight_bytes,
	.kv_block_bytes = cuda_kv_block_bytes,
	.kv_bind = cuda_kv_bind,
	.kv_zero = cuda_kv_zero,
	.kv_copy_rows = cuda_kv_copy_rows,
	.host_new = cuda_host_new,
	.host_free = cuda_host_free,
	.kv_copy_out = cuda_kv_copy_out,
	.kv_copy_in = cuda_kv_copy_in,
	.copy_query = cuda_copy_query,
	.copy_wait = cuda_copy_wait,
	.lora_piece_bytes = cuda_lora_piece_bytes,
	.lora_pack = cuda_lora_pack,
	.lora_new = cuda_lora_new,
	.lora_free = cuda_lora_free,
	.batch_set = cuda_batch_set,
	.embed = cuda_embed,
	.norm = cuda_norm,
	.matmul = cuda_matmul,
	.rope_append = cuda_rope_append,
	.attention = cuda_attention,
	.sample = cuda_sample,
	.record = cuda_record,
	.query = cuda_query,
	.wait = cuda_wait,
	.idle = cuda_idle,
};

__attribute__((visibility("default"))) const struct wk_ops *wk_module_ops(uint32_t abi)
{
	return abi == WK_ABI ? &cuda_ops : NULL;
}
