#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Copies of blocks on drivers that can do less: none in batches, or by the older call; the conformance
# suite has the newer.
here=$(dirname "$0")
. "$here/fake_env.sh"
export WEFT_TEST_BACKEND=cuda

n=0
for batch in 0 1; do
	for late in "" WEFT_FAKE_CUDA_LATE=1; do
		n=$((n + 1))
		if out=$(env WEFT_CUDA_BATCH=$batch $late "$build/tests/kernels/test_copies" 2>&1); then
			echo "ok $n - WEFT_CUDA_BATCH=$batch $late: $(echo "$out" | grep -c '^ok') checks"
		else
			echo "$out" | grep -v '^ok' | sed 's/^/# /'
			echo "not ok $n - WEFT_CUDA_BATCH=$batch $late"
		fi
	done
done
echo "1..$n"
