#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The one command for a machine with a device, on the emulated one with tiny shapes: every stage runs to
# its end, and its report has every figure that it is for.
here=$(cd "$(dirname "$0")" && pwd)
. "$here/fake_env.sh"
src=${WEFT_SRC:-$here/../..}
tmp=$(mktemp -d "${TMPDIR:-/tmp}/weft-on-device.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM

n=0 failed=0
ok() { # what, command...
	n=$((n + 1)) what=$1
	shift
	if "$@"; then
		echo "ok $n - $what"
	else
		echo "not ok $n - $what"
		failed=1
	fi
}
has() { grep -q "^$1.* [0-9.e+-]* [a-zA-Z]" "$tmp/out/table.txt"; }

ok "all that it needs goes into one folder" \
	"$src/tests/bench/stage.sh" "$build" "$src" "$tmp/bundle" "$WEFT_CUDA_MODULE"
unset WEFT_CUDA_MODULE WEFT_BUILD WEFT_SRC
ok "every stage runs to its end" \
	sh -c '"$1/bundle/on_device.sh" --out "$1/out" --small --seconds 900 > "$1/said" 2>&1' sh "$tmp"
for figure in 'limit: copy on the device' 'limit: device to pinned memory' 'decode attention, 3 x 64' \
	'decode, batch 1' 'decode, the batch' 'host: a step' 'prefill 64' 'decode on 2 adapters' \
	'decode of base, adapters loaded and unused' 'blocks to pageable memory' 'weftd and engine started' \
	'pipeline: base-adapter, prompt 64, lora-cold against alora: TTFT' 'deterministic: decode, the batch'; do
	ok "it has $figure" has "$figure"
done
ok "no two adapters have the same weights" \
	grep -Eq '^adapters whose weights no other has +2 adapters' "$tmp/out/table.txt"
ok "the tests' results are in it" grep -q '^ok  *refusals' "$tmp/out/table.txt"
ok "and all of it is in the document" sh -c 'grep -c "\"value\": [0-9]" "$1/out/report.json" |
	awk "{ exit \$1 < 40 }"' sh "$tmp"
[ $failed = 0 ] || sed 's/^/# /' "$tmp/said" "$tmp/out/log.txt"
echo "1..$n"
