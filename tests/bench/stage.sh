#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Put all that on_device.sh needs into one folder: stage.sh BUILD SOURCE DESTINATION MODULE. Programs
# without their debugging information, the libraries that are not the C library's, fixtures.
set -eu

build=$1 src=$2 dest=$3 module=$4
tests='kernels/test_linear kernels/test_lora_refuse kernels/test_sample kernels/test_lora
kernels/test_attention kernels/test_attention_mixed kernels/test_copies kernels/test_queued kernels/test_lora_invariance
kernels/test_attention_invariance
model/test_oracle model/test_adapter_oracle model/test_chunks model/test_adapter_mix'

rm -rf "$dest"
mkdir -p "$dest/bin" "$dest/lib" "$dest/tests/kernels" "$dest/tests/model" "$dest/src/tests/data"
cp "$build/weft" "$build/weftd" "$build/weft-engine" "$build/tests/bench/device-bench" "$dest/bin"
cp "$module" "$dest/bin/weft-cuda.so"
for t in $tests; do cp "$build/tests/$t" "$dest/tests/$t"; done
for f in "$dest"/bin/* "$dest"/tests/*/*; do strip "$f" 2>/dev/null || true; done
ldd "$dest"/bin/* "$dest"/tests/*/* 2>/dev/null | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | sort -u |
	grep -Ev '/(ld-linux.*|libc|libm|libdl|libpthread|librt|libresolv)\.so' | while read -r lib; do
	cp -L "$lib" "$dest/lib"
done
cp -R "$src/tests/data/models" "$src/tests/data/adapters" "$dest/src/tests/data"
cp "$src/tests/bench/on_device.sh" "$dest"
chmod +x "$dest"/*.sh
