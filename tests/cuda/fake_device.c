/* SPDX-License-Identifier: Apache-2.0 */
/* fake_device.c - see fake_device.h. */
#include "tests/cuda/fake_device.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/tap.h"

static bool name_file(const char *variable, const char *file)
{
	const char *build = getenv("WEFT_BUILD");
	char path[512];

	snprintf(path, sizeof(path), "%s/tests/cuda/%s", build ? build : "build", file);
	setenv(variable, path, 1);
	return !access(path, R_OK);
}

bool fake_device(void)
{
	setenv("WEFT_CUBLASLT", "", 1);
	/* Engines that ran every kind of pass first would take minutes. */
	setenv("WEFT_TEST_COLD", "1", 1);
	setenv("WEFT_CUDA_FLASH", "0", 0); /* checked at every open */
	return name_file("WEFT_CUDA_MODULE", "weft-cuda.so") &&
	       name_file("WEFT_CUDA_DRIVER", "libcuda.so.1");
}

static void *symbol_of(const char *variable, const char *function)
{
	void *library = dlopen(getenv(variable), RTLD_NOW | RTLD_LOCAL);
	void *symbol = library ? dlsym(library, function) : NULL;

	if (!symbol)
		bail_out("an emulated library does not tell");
	return symbol;
}

long (*fake_device_number(const char *function))(void)
{
	return fake_device_number_of("WEFT_CUDA_DRIVER", function);
}

long (*fake_device_number_of(const char *variable, const char *function))(void)
{
	void *symbol = symbol_of(variable, function);
	long (*number)(void);

	memcpy(&number, &symbol, sizeof(symbol));
	return number;
}

long fake_device_runs(const char *kernel)
{
	void *symbol = symbol_of("WEFT_CUDA_DRIVER", "fake_cuda_runs");
	long (*runs)(const char *kernel);

	memcpy(&runs, &symbol, sizeof(symbol));
	return runs(kernel);
}
