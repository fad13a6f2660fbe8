#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds and runs the libFuzzer targets of tests/fuzz for FUZZ_SECONDS each; called by `make fuzz`.
#
#   fuzz.sh OUT "TARGET..." "SHARED SOURCES..." "CFLAGS" "LIBS"
#
# New inputs and crashes go to OUT/TARGET; the seeds in tests/fuzz/corpus/TARGET are only read.
# Without clang or its runtime there is nothing to run: says so and succeeds.
set -eu

out=$1 targets=$2 shared=$3 cflags=$4 libs=$5

if ! command -v "${FUZZ_CC%% *}" >/dev/null 2>&1; then
	echo "fuzz: skipped, no $FUZZ_CC (Debian: clang)"
	exit 0
fi
mkdir -p "$out"
echo 'int LLVMFuzzerTestOneInput(const char *d, unsigned long n) { return !d && n; }' >"$out/probe.c"
if ! $FUZZ_CC $FUZZ_FLAGS -o "$out/probe" "$out/probe.c" 2>/dev/null; then
	echo "fuzz: skipped, $FUZZ_CC has no fuzzer runtime (Debian 12: libclang-rt-14-dev)"
	exit 0
fi

for t in $targets; do
	mkdir -p "$out/$t"
	echo "fuzz: $t for $FUZZ_SECONDS s"
	# shellcheck disable=SC2086
	$FUZZ_CC $cflags -MF "$out/$t.d" $FUZZ_FLAGS -o "$out/fuzz_$t" \
		"tests/fuzz/fuzz_$t.c" $shared $libs
	"$out/fuzz_$t" -max_total_time="$FUZZ_SECONDS" -max_len=4200 -print_final_stats=1 \
		-timeout=10 -rss_limit_mb=2048 -artifact_prefix="$out/$t-" \
		"$out/$t" "tests/fuzz/corpus/$t" >"$out/$t.log" 2>&1 || {
		tail -n 40 "$out/$t.log"
		echo "fuzz: $t FAILED; the input is beside $out/$t.log"
		exit 1
	}
	sed -n 's/^stat::number_of_executed_units: */fuzz: runs: /p' "$out/$t.log"
done
