#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What takes minutes on the emulated device: `make check-cuda-emulated`, with prove.
here=$(dirname "$0")
. "$here/fake_env.sh"
exec "$here/run_suite.sh" "adapters: model/test_adapter_oracle" \
	"mixed batches: model/test_adapter_mix" \
	"chunks: model/test_chunks 2" \
	"invariance of adapters: kernels/test_lora_invariance 3" \
	"invariance of attention: kernels/test_attention_invariance 5"
