#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Check and measure the CUDA backend on a machine that has a device, without a network, in one run:
#
#   on_device.sh [--out DIR] [--seconds N] [--small]
#
# It lies in the folder that `make cuda-bundle` makes, with all that it needs. Stages come in this order,
# each under a time limit, all together under N seconds (530): what the device can do at most; whether
# results are right; the figures, the most important first; products of one row; requests through weftd;
# the deterministic mode; a start with weights from a file, where disk and memory hold them; decoding of one
# row with less; compute-sanitizer where it is installed. After each, DIR/report.json and DIR/table.txt have
# everything so far, and DIR/running.json what the stage under way has measured. DIR/log.txt has the
# rest. --small: tiny shapes, in which figures mean nothing: whether all of it runs.
set -u

here=$(cd "$(dirname "$0")" && pwd)
out=$here/out seconds=530 small=
usage() { sed -n '3,16s/^# \{0,1\}//p' "$0" >&2; exit 2; }
while [ $# -gt 0 ]; do
	case $1 in
	--out | --seconds) [ $# -gt 1 ] || usage ;;
	esac
	case $1 in
	--out) out=$2; shift ;;
	--seconds) seconds=$2; shift ;;
	--small) small=small ;;
	*) usage ;;
	esac
	shift
done
mkdir -p "$out" || exit 1
out=$(cd "$out" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/weft-device.XXXXXX")
began=$(date +%s)
daemon=

export LD_LIBRARY_PATH="$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
# The driver and cuBLASLt are the machine's. Where the loader does not look, the first may be mounted, the
# second CUDA's or a Python package's.
for d in /usr/local/nvidia/lib64 /usr/local/nvidia/lib; do
	[ ! -e "$d/libcuda.so.1" ] || LD_LIBRARY_PATH="$LD_LIBRARY_PATH:$d"
done
for d in $(ldconfig -p 2>/dev/null | sed -n 's|.*libcublasLt\.so\.1[23] .*=> \(/.*\)/[^/]*$|\1|p') \
	/usr/local/cuda/lib64 /usr/local/cuda-*/lib64 /usr/local/cuda*/targets/*-linux/lib \
	$(python3 -c 'import sys
for p in sys.path: print(p + "/nvidia/cu13/lib", p + "/nvidia/cublas/lib")' 2>/dev/null); do
	[ -e "$d/libcublasLt.so.13" ] || [ -e "$d/libcublasLt.so.12" ] || continue
	LD_LIBRARY_PATH="$LD_LIBRARY_PATH:$d"
	break
done
export WEFT_BUILD="$here" WEFT_SRC="$here/src"
export WEFT_CUDA_MODULE="${WEFT_CUDA_MODULE:-$here/bin/weft-cuda.so}"
bench=$here/bin/device-bench

stop_daemon() {
	[ -n "$daemon" ] || return 0
	kill -TERM "$daemon" 2>/dev/null
	wait "$daemon" 2>/dev/null
	daemon=
}
clean() {
	stop_daemon
	rm -rf "$work"
}
trap clean EXIT
trap 'exit 130' INT TERM

# What is left of the time, at most $1; with tiny shapes a slow machine may take what it needs.
limit() {
	left=$((began + seconds - $(date +%s)))
	[ -n "$small" ] || [ "$left" -lt "$1" ] || left=$1
	echo $((left > 0 ? left : 0))
}
# A command under both limits; timeout takes 0 for none.
within() { # seconds, command...
	most=$(limit "$1")
	shift
	[ "$most" -gt 0 ] && timeout -k 5 "$most" "$@"
}
say() { echo "$(($(date +%s) - began)) s: $*" | tee -a "$out/log.txt"; }
# Everything that is there, into one document and one table.
merge() {
	set --
	for f in env limits products tests model start pipeline steps deterministic written \
		without-overlap without-small sanitizer; do
		[ ! -s "$work/$f.json" ] || set -- "$@" "$work/$f.json"
	done
	"$bench" report "$out/report.json" "$@" > "$out/table.txt" 2>> "$out/log.txt"
}
# A stage of device-bench: name, limit in seconds, further arguments.
measure() {
	stage=$1 most=$(limit "$2")
	shift 2
	[ "$most" -gt 0 ] || { say "$stage: no time left"; return 0; }
	say "$stage, at most $most s"
	rm -f "$out/running.json"
	timeout -k 5 "$most" "$bench" "$stage" "$out/running.json" "$@" $small >> "$out/log.txt" 2>&1 ||
		{ code=$?; failed=1; say "$stage ended with $code"; }
	[ ! -s "$out/running.json" ] || mv "$out/running.json" "$work/$stage.json"
	merge
}
tests_json() { # file
	printf '{"stage": "%s", "tests": [%s]}\n' "$(basename "$1" .json)" "$results" > "$1"
	merge
}
result() { # name, true|false, seconds
	results="$results${results:+, }{\"name\": \"$1\", \"ok\": $2, \"seconds\": $3}"
}
# A test program on the device: name, limit, program, every, further environment.
check() {
	name=$1 most=$(limit "$2") program=$3 every=$4 ok=false
	shift 4
	[ "$most" -gt 0 ] || { say "$name: no time left"; return 0; }
	t=$(date +%s)
	if env WEFT_TEST_BACKEND=cuda WEFT_TEST_EVERY="$every" "$@" timeout -k 5 "$most" \
		"$here/tests/$program" > "$work/test.log" 2>&1; then
		ok=true
	else
		ok=false failed=1
		say "$name FAILED or took over $most s"
		grep -v '^ok' "$work/test.log" | tail -n 20 >> "$out/log.txt"
	fi
	result "$name" $ok $(($(date +%s) - t))
}

shape() { # folder, layers, hidden, heads, KV heads, head size, ffn, vocabulary
	mkdir -p "$1"
	cat > "$1/config.json" << END
{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
"num_hidden_layers": $2, "hidden_size": $3, "num_attention_heads": $4, "num_key_value_heads": $5,
"head_dim": $6, "intermediate_size": $7, "vocab_size": $8, "max_position_embeddings": 131072,
"rms_norm_eps": 1e-05, "rope_theta": 500000.0, "tie_word_embeddings": false, "bos_token_id": 1,
"eos_token_id": 2, "torch_dtype": "bfloat16"}
END
}

# --- the machine ---------------------------------------------------------------------------------

failed=0 results=
: > "$out/log.txt"
# Without arguments it says how it is used; anything else is the loader's word.
"$bench" > "$work/start.log" 2>&1
if [ $? != 2 ]; then
	cat "$work/start.log" >&2
	echo "the programs of this bundle do not start here: build it on a system as old as this" >&2
	exit 1
fi
smi=$(nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.mem --format=csv,noheader \
	2>/dev/null | head -n 1 | tr -d '"\\')
capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1)
printf '{"stage": "machine", "date": "%s", "nvidia_smi": "%s", "kernel": "%s", "cpus": "%s"}\n' \
	"$(date -u +%Y-%m-%dT%H:%M:%SZ)" "${smi:-not there}" "$(uname -r)" "$(nproc)" > "$work/env.json"
if [ -n "$small" ]; then
	shape "$work/model" 2 64 4 2 16 96 192
else
	shape "$work/model" 32 4096 32 8 128 14336 128256
fi
measure limits 60
if grep -q '"figures": \[\]' "$work/limits.json"; then
	echo "nothing can be measured here: $(sed -n 's/^device-bench: //p' "$out/log.txt" | tail -n 1)" >&2
	exit 1
fi

# --- whether it is right ---------------------------------------------------------------------------

say "results"
if [ -n "$small" ]; then
	check "refusals" 60 kernels/test_lora_refuse 1
	check "copies of blocks" 60 kernels/test_copies 1
	check "two steps queued" 60 kernels/test_queued 1
else
	export WEFT_CUDA_FLASH=0
	check "products" 30 kernels/test_linear 1
	check "products, own" 30 kernels/test_linear 1 WEFT_TEST_PATH=own
	check "attention" 30 kernels/test_attention 1
	check "attention, many rows and few" 20 kernels/test_attention_mixed 1
	# A device that must have it, but has found it wrong, fails.
	wgmma=
	[ "$capability" != 9.0 ] || wgmma=WEFT_TEST_EXPECT=+wgmma
	check "attention with wgmma" 20 kernels/test_attention 1 WEFT_CUDA_FLASH=2 $wgmma
	first=$ok
	check "attention with wgmma, many rows and few" 20 kernels/test_attention_mixed 1 \
		WEFT_CUDA_FLASH=2 $wgmma
	# One that ends with an error leaves a process without the device: everything else is measured.
	if [ $first = true ] && [ $ok = true ]; then
		unset WEFT_CUDA_FLASH
	else
		say "from here on without wgmma"
	fi
	check "adapters" 30 kernels/test_lora 1
	check "refusals" 20 kernels/test_lora_refuse 1
	check "copies of blocks" 20 kernels/test_copies 1
	check "copies of blocks, one by one" 20 kernels/test_copies 1 WEFT_CUDA_BATCH=0
	check "two steps queued" 20 kernels/test_queued 1
	check "two steps queued, cuBLASLt" 20 kernels/test_queued 1 WEFT_TEST_PATH=cublaslt
	check "sampling" 30 kernels/test_sample 1
	check "oracle" 40 model/test_oracle 1
	check "oracle, cuBLASLt" 40 model/test_oracle 1 WEFT_TEST_PATH=cublaslt
	check "adapters of the oracle" 60 model/test_adapter_oracle 1
	check "chunks, deterministic" 40 model/test_chunks 1 WEFT_CUDA_FLASH=0
	check "mixed batches, deterministic" 30 model/test_adapter_mix 1 WEFT_CUDA_FLASH=0
	check "invariance of adapters" 30 kernels/test_lora_invariance 3 WEFT_CUDA_FLASH=0
	check "invariance of attention" 30 kernels/test_attention_invariance 5 WEFT_CUDA_FLASH=0
fi
tests_json "$work/tests.json"

# --- figures ---------------------------------------------------------------------------------------

measure model 240 "$work/model"

measure products 40

# --- through weftd -----------------------------------------------------------------------------------

# One that is measured here: name, value, unit, lowest, highest, at most (nothing: no target).
figure() {
	awk -v n="$1" -v v="$2" -v u="$3" -v lo="$4" -v hi="$5" -v t="${6:-0}" 'BEGIN {
		printf "{\"name\": \"%s\", \"value\": %s, \"unit\": \"%s\"", n, v, u
		printf ", \"lowest\": %s, \"highest\": %s", lo, hi
		if (t > 0 && v > 0)
			printf ", \"target\": %s, \"goal\": \"<=\", \"ratio\": %f, \"pass\": %s",
				t, t / v, v <= t + 0 ? "true" : "false"
		print "}" }'
}
figures_json() { # stage, figures
	printf '{"stage": "%s", "figures": [%s]}\n' "$1" "$2" > "$work/$1.json"
	merge
}
at_most() { [ -n "$small" ] || echo "$1"; }

# weftd with a model m: its folder, further lines of the configuration. $took: seconds to a first token.
start_daemon() {
	rm -rf "$work/run" && mkdir -m 700 "$work/run" || return 1
	{
		# Run by root, the engine stays root: another user could not read this private folder.
		echo "[daemon]"
		[ "$(id -u)" != 0 ] || echo "engine_user = root"
		printf '[model m]\npath = %s\nbackend = cuda\npoll = always\n' "$1"
		[ -z "$small" ] || echo "kv_bytes = 4M"
		shift
		printf '%s\n' "$@"
	} > "$work/weftd.conf"
	export WEFT_SOCKET="$work/run/weftd.sock"
	t=$(date +%s%N)
	"$here/bin/weftd" --foreground --runtime-dir "$work/run" --config "$work/weftd.conf" \
		>> "$out/log.txt" 2>&1 &
	daemon=$!
	i=0
	while [ ! -S "$WEFT_SOCKET" ] && [ $i -lt 1000 ]; do
		i=$((i + 1))
		sleep 0.01
	done
	within 60 "$here/bin/weft" run --tokens --max-tokens 1 1 2 3 >> "$out/log.txt" 2>&1 ||
		return 1
	took=$(awk "BEGIN { print ($(date +%s%N) - $t) / 1e9 }")
}

# Whole numbers of the engine's status; the first of a name is the engine's own.
status() { "$here/bin/weft" status --json 2>> "$out/log.txt" > "$work/status"; }
number() { grep -o "\"$1\": *[0-9]*" "$work/status" | head -n 1 | sed 's/.*: *//'; }

# The engine's own work in steps of full batches: those of the last thousand steps, which are all of this
# run; how many tokens a step of it gave says whether they were full.
own_work() {
	batch=64 tokens=300
	[ -z "$small" ] || batch=3 tokens=16
	status || return 1
	steps=$(number steps) tokens_out=$(number tokens_out)
	within 60 "$here/bin/weft" bench adapters --batch $batch --context 16 --tokens $tokens --prompt 16 \
		--reps 1 --json >> "$out/log.txt" 2>&1 && status || return 1
	mean=$(awk "BEGIN { printf \"%.1f\", ($(number tokens_out) - $tokens_out) / ($(number steps) - $steps) }")
	p50=$(awk "BEGIN { print $(number p50_ns) / 1000 }") p99=$(awk "BEGIN { print $(number p99_ns) / 1000 }")
	figures_json steps "$(figure "engine: own work of a step, the batch, p50 and p99" "$p50" us "$p50" "$p99" \
		"$(at_most 50)"), $(figure "engine: tokens of a step in that run, mean" "$mean" tokens "$mean" "$mean")"
}

serve() {
	long=65536
	[ -z "$small" ] || long=64
	for i in 1 2; do
		"$here/bin/weft" adapter make --model "$work/model" --rank 16 --seed $i \
			--invocation "90,9$i,91" "$work/activated$i" &&
			"$here/bin/weft" adapter make --model "$work/model" --rank 16 --seed 1$i \
				"$work/plain$i" || return 1
	done >> "$out/log.txt" 2>&1
	set --
	for a in activated1 activated2 plain1 plain2; do
		set -- "$@" "[adapter $a]" "path = $work/$a"
	done
	start_daemon "$work/model" "dummy_weights = on" "$@" || return 1
	figures_json start "$(figure "weftd and engine started, no file of weights: made up, to the first token" \
		"$took" s "$took" "$took")"
	within 120 "$here/bin/weft" bench pipeline --pipelines base-adapter \
		--arms alora,lora-cold,base-recompute --prompts $long --generate 16 --tokens 16 --reps 2 --json \
		> "$work/pipeline.json" 2>> "$out/log.txt"
	r=$?
	merge
	own_work && return $r
}
if [ "$(limit 30)" -ge 30 ]; then
	say "requests through weftd"
	serve || { failed=1; say "serving failed"; }
	stop_daemon
	merge
fi

# --- the rest ------------------------------------------------------------------------------------------

measure deterministic 60 "$work/model"

# The same start with a file of weights, read once before: 16 GB of disk and of page cache.
from_file() {
	shape=8b
	[ -z "$small" ] || shape=tiny
	within 70 "$here/bin/weft" model make --shape $shape --quiet "$work/written" \
		>> "$out/log.txt" 2>&1 && cat "$work/written/model.safetensors" > /dev/null &&
		start_daemon "$work/written" &&
		figures_json written "$(figure "weftd and engine started, weights in page cache, to the first token" \
			"$took" s "$took" "$took" "$(at_most 20)")"
}
disk=$(df -Pk "$work" | awk 'END { print int($4 / 1048576) }')
memory=$(awk '/^MemAvailable/ { print int($2 / 1048576) }' /proc/meminfo)
if [ -n "$small" ] || { [ "$(limit 110)" -ge 110 ] && [ "$disk" -ge 20 ] && [ "$memory" -ge 40 ]; }; then
	say "a start with weights from a file"
	from_file || { failed=1; say "a start with weights from a file failed"; }
	stop_daemon
	rm -rf "$work/written"
else
	say "no start with weights from a file: $(limit 530) s, $disk GiB of disk, $memory GiB of memory left"
fi
# Decoding of one row once more, with launches that do not overlap, and with cuBLASLt.
for without in overlap small; do
	if [ -n "$small" ] || [ "$(limit 50)" -ge 40 ]; then
		measure without-$without 50 "$work/model"
	fi
done
sanitize() { # tool
	most=$(limit 60)
	[ "$most" -gt 10 ] || return 0
	say "compute-sanitizer, $1"
	t=$(date +%s)
	timeout -k 5 "$most" compute-sanitizer --tool "$1" --error-exitcode 9 \
		"$bench" model "$work/sane.json" "$work/tiny" small > "$work/sane.log" 2>&1
	r=$?
	tail -n 15 "$work/sane.log" >> "$out/log.txt"
	# On some virtual machines it cannot run at all, which says nothing about the kernels.
	if grep -q 'Device not supported' "$work/sane.log"; then
		say "compute-sanitizer does not know this machine's device"
		return 1
	fi
	case $r in
	0) result "compute-sanitizer $1" true $(($(date +%s) - t)) ;;
	124) say "compute-sanitizer $1: not done in $most s" ;;
	*) failed=1; result "compute-sanitizer $1" false $(($(date +%s) - t)) ;;
	esac
}
if [ -z "$small" ] && command -v compute-sanitizer > /dev/null; then
	results=
	shape "$work/tiny" 2 64 4 2 16 96 192
	export WEFT_CUBLASLT=
	for tool in memcheck racecheck synccheck initcheck; do sanitize $tool || break; done
	tests_json "$work/sanitizer.json"
fi
say "done"
cat "$out/table.txt"
exit $failed
