#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Two steps queued, beyond conformance.t: on a device that has done no more than a wait has asked for, and
# with launches sent one by one.
here=$(dirname "$0")
. "$here/fake_env.sh"
export WEFT_TEST_BACKEND=cuda

n=0
for how in WEFT_FAKE_CUDA_LATE=2 "WEFT_FAKE_CUDA_LATE=1 WEFT_CUDA_GRAPHS=0"; do
	n=$((n + 1))
	if out=$(env $how "$build/tests/kernels/test_queued" 2>&1); then
		echo "ok $n - $how: $(echo "$out" | grep -c '^ok') checks"
	else
		echo "$out" | grep -v '^ok' | sed 's/^/# /'
		echo "not ok $n - $how"
	fi
done
echo "1..$n"
