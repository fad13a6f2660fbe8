#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Attention with wgmma, on the emulated device: what the suite has of attention.
export WEFT_CUDA_FLASH=2 WEFT_TEST_EXPECT=+wgmma
here=$(dirname "$0")
. "$here/fake_env.sh"
exec "$here/run_suite.sh" "attention: kernels/test_attention" \
	"many rows and few: kernels/test_attention_mixed"
