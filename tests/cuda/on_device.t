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
	'decode, batch 1' 'decode, the batch' 'host: a step' 'prefill 64' 'attention of prompts, 64 rows at 64' 'decode on 2 adapters' \
	'decode of base, adapters loaded and unused' 'blocks to pinned memory' \
	'blocks from pinned memory to the device' 'blocks to pinned memory, decode of the batch beside' \
	'decode of the batch, blocks copied out' 'decode of the batch, [0-9]* blocks copied in' \
	'weftd and engine started, no file of weights' 'weftd and engine started, weights in page cache' \
	'engine: own work of a step, the batch' 'engine: tokens of a step in that run' \
	'host: a step of the batch, queued and the engine' \
	'deterministic, times as long: decode, the batch' 'deterministic, times as long: prefill 32' \
	'product of 1 row, 192 x 64' 'products and norms of 2 layers, 1 row' \
	'WEFT_CUDA_SMALL=0: product of 1 row, 128 x 64' 'WEFT_CUDA_OVERLAP=0: products and norms of 2 layers' \
	'WEFT_CUDA_FETCH=80: products and norms of 2 layers' \
	'WEFT_CUDA_OVERLAP=0: decode, batch 1' 'WEFT_CUDA_SMALL=0: decode, batch 1' \
	'pipeline: base-adapter, prompt 64, lora-cold against alora: TTFT' 'deterministic: decode, the batch'; do
	ok "it has $figure" has "$figure"
done
ok "no two adapters have the same weights" \
	grep -Eq '^adapters whose weights no other has +2 adapters' "$tmp/out/table.txt"
ok "every block that was copied came back as it was" \
	grep -Eq '^blocks that came back as they were +1 of all' "$tmp/out/table.txt"
ok "the tests' results are in it" grep -q '^ok  *refusals' "$tmp/out/table.txt"
ok "and all of it is in the document" sh -c 'grep -c "\"value\": [0-9]" "$1/out/report.json" |
	awk "{ exit \$1 < 40 }"' sh "$tmp"

# What follows from several stages, from figures of which it is known.
cat > "$tmp/model.json" << 'END'
{"stage": "model", "figures": [{"name": "decode, the batch", "value": 900, "unit": "tokens/s",
"lowest": 800, "highest": 1000}, {"name": "decode, batch 1", "value": 4, "unit": "ms a token"},
{"name": "host: a step of that batch queued, the engine's own part not in it", "value": 35, "unit": "us",
"target": 50}]}
END
cat > "$tmp/deterministic.json" << 'END'
{"stage": "deterministic", "figures": [{"name": "deterministic: decode, the batch", "value": 600,
"unit": "tokens/s", "lowest": 500, "highest": 640}, {"name": "deterministic: decode, batch 1", "value": 5,
"unit": "ms a token"}]}
END
cat > "$tmp/steps.json" << 'END'
{"stage": "steps", "figures": [{"name": "engine: own work of a step, the batch, p50 and p99", "value": 25,
"unit": "us"}]}
END
cat > "$tmp/pipeline.json" << 'END'
[{"name": "pipeline: base-adapter, prompt 65536, lora-cold against alora: TTFT", "value": 250, "unit": "x",
"target": null, "spread": [240, 260], "pass": true},
{"name": "pipeline: base-adapter, prompt 65536, alora: E2E", "value": 220, "unit": "ms", "target": null,
"spread": [200, 240], "pass": true}]
END
"$tmp/bundle/bin/device-bench" report "$tmp/derived.json" "$tmp/model.json" "$tmp/pipeline.json" \
	"$tmp/steps.json" "$tmp/deterministic.json" > "$tmp/derived"
reads() { # name, the rest of its row
	sed -n "s/^$1 *//p" "$tmp/derived" | tr -s ' ' | sed 's/ $//' | grep -qx -- "$2"
}
ok "a price of a rate is how many times as long it takes" \
	reads 'deterministic, times as long: decode, the batch' '1.5 x 1.25 ... 2'
ok "a price of a time too" reads 'deterministic, times as long: decode, batch 1' '1.25 x 1.25 ... 1.25'
ok "the host's two parts of a step have one target, missed" \
	reads 'host: a step of the batch.*medians' '60 us <= 50 0.833 60 ... 60 MISSED'
ok "TTFT at 65536 has a target, reached" reads '.*against alora: TTFT' '250 x >= 100 2.500 240 ... 260'
ok "E2E has one, missed" reads '.*, alora: E2E' '220 ms <= 110 0.500 200 ... 240 MISSED'
[ $failed = 0 ] || sed 's/^/# /' "$tmp/said" "$tmp/out/log.txt"
echo "1..$n"
