#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The conformance suite (tests/kernels) on the CUDA backend: host code as it is, kernels by emulation of
# their own text. Each program once; those of one step's transfers also with a stream that is late.
build=${WEFT_BUILD:-build}
fake=$build/tests/cuda

if [ ! -e "$fake/libcuda.so.1" ] || [ ! -e "$fake/weft-cuda.so" ]; then
	echo "1..0 # SKIP no C++ compiler for the emulated device, or a sanitizer that knows no fibers"
	exit 0
fi
export WEFT_TEST_BACKEND=cuda WEFT_CUDA_MODULE="$fake/weft-cuda.so"
export WEFT_CUDA_DRIVER="$fake/libcuda.so.1" WEFT_CUBLASLT=

n=0
run() { # name, program
	n=$((n + 1))
	if out=$("$build/tests/kernels/$2" 2>&1); then
		echo "ok $n - $1: $(echo "$out" | grep -c '^ok') checks"
	else
		echo "$out" | grep -v '^ok' | sed 's/^/# /'
		echo "not ok $n - $1"
	fi
}

run "linear" test_linear
run "refusals" test_lora_refuse
run "sampling" test_sample
run "adapters" test_lora
run "attention" test_attention
export WEFT_FAKE_CUDA_LATE=1
run "linear, late" test_linear
run "refusals, late" test_lora_refuse
run "adapters, late" test_lora
echo "1..$n"
