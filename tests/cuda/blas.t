#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Where there is a cuBLASLt: all products by one that computes what the library's documentation says, on the
# emulated device. (Who does which where nobody says: test_products.)
here=$(dirname "$0")
. "$here/fake_env.sh"
export WEFT_CUBLASLT="$fake/libcublasLt-fake.so" WEFT_CUDA_SMALL=0
exec "$here/run_suite.sh" "linear: kernels/test_linear" "passes of all rows: kernels/test_rows" \
	"two steps queued: kernels/test_queued"
