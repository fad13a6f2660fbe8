#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Whole models on the CUDA backend, on the emulated device: the oracle's fixtures, and a prompt cut in
# all ways, to the bit. `make check-cuda-emulated` runs more of the same.
here=$(dirname "$0")
. "$here/fake_env.sh"
exec "$here/run_suite.sh" "oracle: model/test_oracle" "chunks of one model: model/test_chunks 6"
