#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The conformance suite (tests/kernels) on the CUDA backend: host code as it is, kernels by emulation of
# their own text. Each program once; those of one step's transfers also with a stream that is late.
here=$(dirname "$0")
. "$here/fake_env.sh"
if [ -n "${WEFT_FAKE_CUDA_LATE:-}" ]; then
	set -- "linear: kernels/test_linear" "refusals: kernels/test_lora_refuse" \
		"adapters: kernels/test_lora" "copies of blocks: kernels/test_copies" \
		"two steps queued: kernels/test_queued" "passes of all rows: kernels/test_rows"
else
	set -- "linear: kernels/test_linear" "refusals: kernels/test_lora_refuse" \
		"sampling: kernels/test_sample" "adapters: kernels/test_lora" \
		"attention: kernels/test_attention" \
		"attention, many rows and few: kernels/test_attention_mixed" \
		"copies of blocks: kernels/test_copies" "two steps queued: kernels/test_queued" \
		"passes of all rows: kernels/test_rows"
fi
exec "$here/run_suite.sh" "$@"
