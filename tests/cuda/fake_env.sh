# SPDX-License-Identifier: Apache-2.0
# Sourced by the tests: the emulated device for whatever runs next, or the end with a skipped test.
build=${WEFT_BUILD:-build}
fake=$build/tests/cuda

if [ ! -e "$fake/libcuda.so.1" ] || [ ! -e "$fake/weft-cuda.so" ]; then
	echo "1..0 # SKIP no C++ compiler for the emulated device, or a sanitizer that knows no fibers"
	exit 0
fi
# Engines that ran every kind of pass first would take minutes.
export WEFT_TEST_COLD=1
export WEFT_CUDA_MODULE="$fake/weft-cuda.so" WEFT_CUDA_DRIVER="$fake/libcuda.so.1" WEFT_CUBLASLT=
# Attention with wgmma where a test wants it: it is checked at every open, and has bits of its own.
export WEFT_CUDA_FLASH="${WEFT_CUDA_FLASH:-0}"
