#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Those of conformance.t with a stream that does nothing until it is asked.
export WEFT_FAKE_CUDA_LATE=1
exec "$(dirname "$0")/conformance.t"
