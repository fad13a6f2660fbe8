#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every figure of the project, measured: a table on the terminal and bench.json in the output folder.
# Argument: the folder with the programs. Models are made there once (bench-models/). Each daemon is
# private, without root, and gone afterwards. Nothing else should run meanwhile.
set -eu

bin=$(cd "${1:-build}" && pwd)
models="$bin/bench-models"
tmp=$(mktemp -d "${TMPDIR:-/tmp}/weft-bench.XXXXXX")
rows="$tmp/rows"
daemon= other= run=run

stop_daemon() {
	for pid in $daemon $other; do
		kill -TERM "$pid" 2>/dev/null || true
		wait "$pid" 2>/dev/null || true
	done
	daemon= other=
}

cleanup() {
	status=$?
	trap - EXIT INT TERM
	stop_daemon
	rm -rf "$tmp"
	exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

say() { printf '\n== %s\n' "$*" >&2; }

# Rows of a `weft bench ... --json` list, one object a line, into the collection and on the terminal.
collect() {
	grep '^{' "$1" | sed 's/,$//' >> "$rows"
	sed -n 's/^{"name":"\([^"]*\)","value":\([^,]*\),"unit":"\([^"]*\)","target":\([^,]*\),.*"pass":\([a-z]*\).*/\1|\2|\3|\4|\5/p' "$1" |
		awk -F'|' '{ printf "%-80s %10.4g %-12s target %-6s%s\n", $1, $2, $3, $4, $5 == "false" ? " MISSED" : "" }'
}

# row NAME VALUE UNIT TARGET LO HI PASS
row() {
	printf '{"name":"%s","value":%s,"unit":"%s","target":%s,"spread":[%s,%s],"pass":%s}\n' "$@" >> "$rows"
	printf '%-80s %10s %-12s target %s%s\n' "$1" "$2" "$3" "$4" "$([ "$7" = true ] || echo '  MISSED')"
}

at_least() { awk -v v="$1" -v t="$2" 'BEGIN { print (v >= t) ? "true" : "false" }'; }
at_most() { awk -v v="$1" -v t="$2" 'BEGIN { print (v <= t) ? "true" : "false" }'; }

# spread FILE: "median smallest largest" of numbers, one a line.
spread() { sort -g "$1" | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)], v[1], v[NR] }'; }

# figure NAME UNIT GOAL TARGET [FROM]: a row of the list in $tmp/part, with a target. GOAL: at_least,
# at_most or reported; a row that is not there is missed.
figure() {
	set -- "$1" "$2" "$3" "$4" "$(sed -n "s/^{\"name\":\"${5:-$1}\",\"value\":\([0-9][^,]*\),.*\"spread\":\[\([0-9][^,]*\),\([^]]*\)\].*/\1 \2 \3/p" "$tmp/part" | awk '{ printf "%.5g %.5g %.5g", $1, $2, $3 }')"
	# shellcheck disable=SC2086
	set -- "$1" "$2" "$3" "$4" ${5:-null null null}
	case $3 in
	reported) row "$1" "$5" "$2" null "$6" "$7" "$([ "$5" = null ] && echo false || echo true)" ;;
	*) row "$1" "$5" "$2" "$4" "$6" "$7" "$([ "$5" = null ] && echo false || $3 "$5" "$4")" ;;
	esac
}

# number KEY: of what stands in $tmp/status.
number() { grep -o "\"$1\":[0-9]*" "$tmp/status" | head -n 1 | cut -d: -f2; }

make_model() { # SHAPE [NAME OPTION...]
	shape=$1 name=${2:-$1}
	shift $(($# > 1 ? 2 : 1))
	[ -e "$models/$name/config.json" ] && return 0
	mkdir -p "$models"
	"$bin/weft" model make --shape "$shape" --arch llama --seed 1 "$@" "$models/$name"
}

make_adapter() { # MODEL NAME OPTION...
	model=$1 name=$2
	shift 2
	[ -e "$models/$name/adapter_config.json" ] && return 0
	"$bin/weft" adapter make --model "$models/$model" "$@" "$models/$name" > /dev/null
}

adapters() { for a in "$@"; do printf '[adapter %s]\npath = %s\n' "$a" "$models/$a"; done; }

# start MODEL CONF...: a private daemon; returns when the model is loaded. With $run another
# folder there can be two.
start() {
	model=$1 dir="$tmp/$run"
	shift
	rm -rf "$dir" && mkdir -m 700 "$dir"
	{ printf '[daemon]\nengine_user = root\n[model bench]\npath = %s\n' "$models/$model"; printf '%s\n' "$@"; } > "$tmp/weftd.conf"
	export WEFT_SOCKET="$dir/weftd.sock"
	"$bin/weftd" --foreground --runtime-dir "$dir" --config "$tmp/weftd.conf" > "$tmp/log" 2>&1 &
	daemon=$!
	i=0
	while [ ! -S "$WEFT_SOCKET" ]; do
		i=$((i + 1))
		if [ $i -gt 200 ] || ! kill -0 "$daemon" 2>/dev/null; then
			cat "$tmp/log" >&2
			exit 1
		fi
		sleep 0.05
	done
	"$bin/weft" run --tokens --max-tokens 1 1 > /dev/null || { cat "$tmp/log" >&2; exit 1; }
}

engine_pid() { sed -n 's/.*event=engine-started pid=\([0-9]*\).*/\1/p' "$tmp/log" | tail -n 1; }

# --- without a daemon ---------------------------------------------------------------------------

for part in machine ring index tokenizer kernels model; do
	say "weft bench $part"
	mkdir -p "$models"
	options=
	[ $part != model ] || options="--dir $models"
	# shellcheck disable=SC2086
	"$bin/weft" bench $part $options --json > "$tmp/part"
	collect "$tmp/part"
done

say "models"
make_model 135m
make_model 1b

# --- what the system adds to the model's own time --------------------------------------------------

ttft() { # NAME TARGET OPTIONS...: median of five runs' medians
	name=$1 target=$2
	shift 2
	: > "$tmp/values"
	for run in 1 2 3 4 5; do
		"$bin/weft" bench serve --clients 1 --requests 20 --rate 20 --prompt 16 --tokens 2 \
			--seed "$run" --json "$@" > "$tmp/part"
		sed -n 's/.*"serve: TTFT minus forward time, p50","value":\([^,]*\),.*/\1/p' "$tmp/part" >> "$tmp/values"
	done
	set -- $(spread "$tmp/values")
	row "$name" "$1" us "$target" "$2" "$3" "$(at_most "$1" "$target")"
}

say "front end"
start 135m "threads = 1" "poll = always"
ttft "TTFT minus forward time, engine polling, p50" 60 --poll-always
stop_daemon
start 135m
ttft "TTFT minus forward time, engine idle, p50" 150

# --- at idle ---------------------------------------------------------------------------------------

say "idle"
ticks() { # clock ticks of user and system time of weftd and its engine
	for p in "$daemon" "$(engine_pid)"; do
		sed 's/.*) //' "/proc/$p/stat" | awk '{ print $12 + $13 }'
	done | awk '{ s += $1 } END { print s }'
}
switches() { cat /proc/"$daemon"/task/*/status /proc/"$(engine_pid)"/task/*/status |
	awk '/ctxt_switches/ { s += $2 } END { print s }'; }
sleep 1
before=$(ticks) woken=$(switches)
sleep 10
after=$(ticks) woken=$(($(switches) - woken))
cpu=$(awk -v t=$((after - before)) -v hz="$(getconf CLK_TCK)" 'BEGIN { printf "%.2f", t / hz / 10 * 100 }')
row "CPU at idle, weftd and engine, 10 s" "$cpu" % 0 "$cpu" "$cpu" "$(at_most "$cpu" 0)"
row "context switches at idle, weftd and engine, 10 s" "$woken" count null "$woken" "$woken" true
stop_daemon

# --- system calls ----------------------------------------------------------------------------------

# Of the client process and of the engine's core thread, while a long answer streams: strace is
# attached once tokens flow and counts for two seconds. As a control the same is done with a client
# and an engine that sleep: there it must count something, or it was not attached.
core_thread() {
	for t in /proc/"$(engine_pid)"/task/*; do
		[ "$(cat "$t/comm")" != weft-core ] || basename "$t"
	done
}

count_calls() { # OPTIONS of the client...; sets rate, and calls_client, calls_engine of two seconds
	"$bin/weft" bench serve --clients 1 --requests 1 --warm-up 0 --prompt 16 --tokens 2000 \
		--json "$@" > "$tmp/part" &
	parent=$!
	sleep 1
	client=$(tr -d ' ' < "/proc/$parent/task/$parent/children")
	strace -c -f -o "$tmp/client.strace" -p "$client" 2> "$tmp/client.said" &
	s1=$!
	strace -c -o "$tmp/engine.strace" -p "$(core_thread)" 2> "$tmp/engine.said" &
	s2=$!
	sleep 2
	kill -INT $s1 $s2 2>/dev/null || true
	wait $s1 $s2 2>/dev/null || true
	wait "$parent"
	rate=$(sed -n 's/.*"serve: tokens generated, all clients","value":\([^,]*\),.*/\1/p' "$tmp/part")
	for who in client engine; do
		grep -q attached "$tmp/$who.said" || { cat "$tmp/$who.said" >&2; return 1; }
		eval "calls_$who=$(awk '$NF == "total" { n = $4 } END { print n + 0 }' "$tmp/$who.strace")"
	done
}

say "system calls"
if command -v strace > /dev/null; then
	start 135m "threads = 1" "poll = always"
	if count_calls --poll-always; then
		for who in client engine; do
			eval "calls=\$calls_$who"
			per=$(awk -v c="$calls" -v r="$rate" 'BEGIN { printf "%.4f", c / (2 * r) }')
			row "system calls per token, $who, poll=always, one compute thread" "$per" calls 0 \
				"$per" "$per" "$(at_most "$per" 0)"
		done
	fi
	stop_daemon
	start 135m "threads = 1"
	if count_calls; then
		per=$(awk -v c="$calls_client" -v r="$rate" 'BEGIN { printf "%.4f", c / (2 * r) }')
		row "system calls per token, client, adaptive (control: above 0)" "$per" calls null \
			"$per" "$per" "$(awk -v v="$per" 'BEGIN { print (v > 0) ? "true" : "false" }')"
	fi
	stop_daemon
else
	echo "no strace: not counted" >&2
fi

# --- the 1b model ----------------------------------------------------------------------------------

say "load and memory, 1b"
: > "$tmp/values"
cat "$models"/1b/*.safetensors > /dev/null
for run in 1 2 3 4 5; do
	start 1b
	sed -n 's/.*event=ready.*load_ms=\([0-9]*\).*/\1/p' "$tmp/log" | awk '{ print $1 / 1000 }' >> "$tmp/values"
	stop_daemon
done
set -- $(spread "$tmp/values")
row "load of the 1b model, page cache warm" "$1" s 4 "$2" "$3" "$(at_most "$1" 4)"
# A pool so small that three prompts touch nearly all of it: what is resident is then what counts.
start 1b "kv_bytes = 32M"
"$bin/weft" bench serve --clients 3 --requests 6 --prompt 300 --tokens 16 --json > "$tmp/part"
"$bin/weft" status --json > "$tmp/status"
rss=$(awk '/^Rss:/ { print $2 * 1024 }' "/proc/$(engine_pid)/smaps_rollup")
beyond=$(awk -v r="$rss" -v w="$(number weight_bytes)" -v b="$(number block_bytes)" -v n="$(number blocks)" \
	'BEGIN { printf "%.1f", (r - w - b * n) / 1048576 }')
row "engine memory beyond weights and pools" "$beyond" MiB 64 "$beyond" "$beyond" "$(at_most "$beyond" 64)"
stop_daemon

# --- adapters and the cache ------------------------------------------------------------------------

# The paper's ranks: activated adapters of 32, plain ones of 8, all seven linears.
make_model 135m 135m-16k --positions 16384
for i in 1 2 3 4 5; do
	make_adapter 135m-16k "alora$i" --rank 32 --seed "$i" --invocation "900,$((900 + i)),901"
	make_adapter 135m-16k "lora$i" --rank 8 --seed "$((10 + i))"
done
for i in 1 2 3 4 5 6 7 8; do make_adapter 135m-16k "r16-$i" --rank 16 --seed "$((20 + i))"; done

say "base -> adapter"
start 135m-16k "$(adapters alora1 alora2 alora3 alora4 alora5 lora1 lora2 lora3 lora4 lora5)"
"$bin/weft" bench pipeline --pipelines base-adapter --arms alora,lora-cold --prompts 1024,4096,8192 \
	--generate 64 --tokens 16 --reps 5 --share 5 --svg "$bin/bench-pipeline.svg" --json > "$tmp/part"
for n in 1024 4096 8192; do
	p="pipeline: base-adapter, prompt $n"
	ttft="reported null" e2e="reported null"
	[ $n != 8192 ] || { ttft="at_least 100"; e2e="at_least 30"; }
	# shellcheck disable=SC2086
	figure "$p, lora-cold against alora: TTFT" x $ttft
	# shellcheck disable=SC2086
	figure "$p, lora-cold against alora: E2E" x $e2e
	for arm in alora lora-cold; do
		figure "$p, $arm: TTFT" ms reported null
		figure "$p, $arm: E2E" ms reported null
		figure "$p, $arm: cached" % reported null
	done
done

say "base -> five adapters -> base"
"$bin/weft" bench pipeline --pipelines parallel --arms alora,alora-serial --prompts 4096 \
	--generate 64 --adapter-tokens 16 --tokens 16 --reps 5 --json > "$tmp/part"
p="pipeline: parallel, prompt 4096"
figure "$p, alora against alora-serial: wall" x at_most 0.6
figure "$p, alora: wall" ms at_most 600
figure "$p, alora-serial: wall" ms reported null
figure "$p, alora, base after: TTFT" ms at_most 400
figure "$p, alora: cached" % reported null
figure "$p, alora, base after: cached" % reported null
stop_daemon

say "what adapters cost"
run=none
start 135m-16k
none=$WEFT_SOCKET other=$daemon run=run
start 135m-16k "kv_bytes = 2G" "$(adapters r16-1 r16-2 r16-3 r16-4 r16-5 r16-6 r16-7 r16-8)"
"$bin/weft" bench adapters --against "$none" --batch 16 --context 1024 --tokens 24 --prompt 1024 --reps 15 \
	--json > "$tmp/part"
collect "$tmp/part"
stop_daemon

# The engine's own time per step, of the steps of full batches alone: a fresh engine that does
# nothing else. Smallest and largest are its median and its 99th percentile.
say "the engine's own work, batch 64"
start 135m-16k "$(adapters r16-1 r16-2 r16-3 r16-4 r16-5 r16-6 r16-7 r16-8)"
"$bin/weft" bench adapters --batch 64 --context 16 --tokens 64 --prompt 16 --reps 1 --json > /dev/null
"$bin/weft" status --json | grep -o '"own_time":{[^}]*}' > "$tmp/status"
own() { number "$1" | awk '{ printf "%.1f", $1 / 1000 }'; }
row "engine's own work per step, batch 64, p50" "$(own p50_ns)" us 50 "$(own p50_ns)" "$(own p99_ns)" \
	"$(at_most "$(own p50_ns)" 50)"
stop_daemon

say "probe"
make_model tiny tiny-40k --positions 40000
start tiny-40k
"$bin/weft" bench probe --prompt 32768 --json > "$tmp/part"
collect "$tmp/part"
stop_daemon

# --- together --------------------------------------------------------------------------------------

{ echo '['; sed '$!s/$/,/' "$rows"; echo ']'; } > "$bin/bench.json"
missed=$(grep -c '"pass":false' "$rows" || true)
printf '\n%s figures in %s, %s missed\n' "$(wc -l < "$rows")" "$bin/bench.json" "$missed"
