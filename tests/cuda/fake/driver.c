/* SPDX-License-Identifier: Apache-2.0 */
/*
 * driver.c - a libcuda.so.1 without a device, for the tests: the entry points that the CUDA backend
 * uses, over host memory. Kernels are run by emulation of their own text (emulate.cuh). Here: the device, its
 * context, and calls that fail. memory.c and stream.c have the rest.
 *
 * WEFT_FAKE_CUDA_FAIL="cuLaunchKernel:40:700" makes the 40th call of an entry point fail with 700;
 * with ":/a/file" behind it only while that file exists, and takes it away: once, whatever starts again. With 0
 * it does not return. Errors but 1 (invalid), 2 (out of memory), 801 (not supported) and a capture's own (9..)
 * stay, as a real context's do: every later call fails with them, as long as the process lives.
 * fake_cuda_live() is how many things were made and not given back.
 *
 * One thread at a time, as the backend calls it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/cuda/fake/fake.h"

/* --- what was made and not given back ----------------------------------------------------------------*/

long fake_live;

EXPORT long fake_cuda_live(void);
EXPORT long fake_cuda_live(void)
{
	return fake_live;
}

/* --- failures ----------------------------------------------------------------------------------------*/

static cu_result sticky;

cu_result fake_fate(const char *call)
{
	static unsigned long count;
	static char counted[128]; /* the plan that count is of */
	const char *plan = getenv("WEFT_FAKE_CUDA_FAIL"), *once;
	char name[64];
	unsigned long nth;
	int code, at = 0;

	if (sticky)
		return sticky;
	if (!plan || strncmp(plan, counted, sizeof(counted) - 1)) {
		snprintf(counted, sizeof(counted), "%s", plan ? plan : "");
		count = 0;
	}
	if (!plan || sscanf(plan, "%63[^:]:%lu:%d%n", name, &nth, &code, &at) < 3 ||
	    strcmp(name, call) || ++count != nth)
		return 0;
	once = plan[at] == ':' ? plan + at + 1 : NULL;
	if (once && unlink(once))
		return 0;
	while (!code)
		pause();
	if (code != CU_OUT_OF_MEMORY && code != CU_NOT_SUPPORTED && code != INVALID &&
	    code < 900) /* those of a capture */
		sticky = code;
	return code;
}

/* --- the driver --------------------------------------------------------------------------------------*/

EXPORT cu_result cuInit(unsigned flags)
{
	(void)flags;
	CALL(cuInit);
	return 0;
}

EXPORT cu_result cuDriverGetVersion(int *ret)
{
	CALL(cuDriverGetVersion);
	*ret = 13000;
	return 0;
}

EXPORT cu_result cuGetErrorName(cu_result r, const char **ret)
{
	static const struct {
		cu_result r;
		const char *name;
	} names[] = {
		{1, "CUDA_ERROR_INVALID_VALUE"},       {2, "CUDA_ERROR_OUT_OF_MEMORY"},
		{46, "CUDA_ERROR_DEVICE_UNAVAILABLE"}, {100, "CUDA_ERROR_NO_DEVICE"},
		{500, "CUDA_ERROR_NOT_FOUND"},	       {700, "CUDA_ERROR_ILLEGAL_ADDRESS"},
		{719, "CUDA_ERROR_LAUNCH_FAILED"},     {999, "CUDA_ERROR_UNKNOWN"},
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		if (names[i].r == r) {
			*ret = names[i].name;
			return 0;
		}
	*ret = NULL;
	return INVALID;
}

EXPORT cu_result cuDeviceGetCount(int *ret)
{
	CALL(cuDeviceGetCount);
	*ret = 1;
	return 0;
}

EXPORT cu_result cuDeviceGet(cu_device *ret, int ordinal)
{
	CALL(cuDeviceGet);
	*ret = ordinal;
	return ordinal ? INVALID : 0;
}

EXPORT cu_result cuDeviceGetName(char *ret, int bytes, cu_device dev)
{
	(void)dev;
	CALL(cuDeviceGetName);
	snprintf(ret, (size_t)bytes, "fake device");
	return 0;
}

EXPORT cu_result cuDeviceGetAttribute(int *ret, int attribute, cu_device dev)
{
	(void)dev;
	CALL(cuDeviceGetAttribute);
	switch (attribute) {
	case CU_MULTIPROCESSORS:
		*ret = 3;
		return 0;
	case CU_CACHE_BYTES:
		*ret = 1 << 20;
		return 0;
	case CU_CAPABILITY_MAJOR:
		*ret = 9;
		return 0;
	case CU_CAPABILITY_MINOR:
		*ret = 0;
		return 0;
	case CU_SHARED_BYTES_OPTIN:
		*ret = SHARED_LIMIT;
		return 0;
	case CU_VIRTUAL_MEMORY:
		*ret = 1;
		return 0;
	}
	return INVALID;
}

EXPORT cu_result cuDevicePrimaryCtxRetain(cu_context *ret, cu_device dev)
{
	static int context;

	(void)dev;
	CALL(cuDevicePrimaryCtxRetain);
	*ret = (cu_context)(void *)&context;
	fake_live++;
	return 0;
}

EXPORT cu_result cuDevicePrimaryCtxRelease_v2(cu_device dev)
{
	(void)dev;
	fake_live--;
	return 0;
}

EXPORT cu_result cuCtxSetCurrent(cu_context ctx)
{
	(void)ctx;
	CALL(cuCtxSetCurrent);
	return 0;
}
