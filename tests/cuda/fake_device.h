/* SPDX-License-Identifier: Apache-2.0 */
/* fake_device.h - a test on the emulated device: this process's backends, and its children's. */
#ifndef WEFT_TESTS_CUDA_FAKE_DEVICE_H
#define WEFT_TESTS_CUDA_FAKE_DEVICE_H

#include <stdbool.h>

/* Name module and driver in the environment, and no cuBLASLt. False: they are not built here. */
bool fake_device(void);
/* A number that the driver of this process keeps: the function of its that tells; ends the program if
 * there is none. */
long (*fake_device_number(const char *function))(void);
/* The same of the library that a variable of the environment names. */
long (*fake_device_number_of(const char *variable, const char *function))(void);

/* How often the emulated device has run a kernel. */
long fake_device_runs(const char *kernel);

#endif
