#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The demonstration: the demo model family served by a private weftd without root, what sharing one
# cache is worth there, several client processes at once, and the same measured on a larger model.
# Argument: the folder with the programs. Everything else lies in a temporary directory that is gone
# afterwards, also after Ctrl-C.
set -eu

bin=$(cd "${1:-build}" && pwd)
src=$(cd "$(dirname "$0")/.." && pwd)
family=$src/tests/data/demo
shape=${SHAPE:-135m}
prompts=${PROMPTS:-1024}
tmp=$(mktemp -d "${TMPDIR:-/tmp}/weft-demo.XXXXXX")
daemon= pids=

stop_daemon() {
	[ -n "$daemon" ] || return 0
	kill -TERM "$daemon" 2>/dev/null || true
	wait "$daemon" 2>/dev/null || true
	daemon=
}

cleanup() {
	status=$?
	trap - EXIT INT TERM
	for p in $pids; do kill "$p" 2>/dev/null || true; done
	stop_daemon
	rm -rf "$tmp"
	exit "$status"
}
trap cleanup EXIT
trap 'echo; echo "interrupted, stopping"; exit 130' INT TERM

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
[ -t 1 ] || say() { printf '\n%s\n' "$*"; }

# Run by root, the engine stays root: a user weft could not read what lies in private folders.
start_daemon() { # NAME MODEL ADAPTER...
	printf '[daemon]\nengine_user = root\n[model %s]\npath = %s\n' "$1" "$2" > "$tmp/weftd.conf"
	model=$1
	shift 2
	for a; do printf '[adapter %s]\npath = %s\n' "${a##*/}" "$a" >> "$tmp/weftd.conf"; done
	rm -rf "$tmp/run"
	mkdir -m 700 "$tmp/run"
	export WEFT_SOCKET="$tmp/run/weftd.sock"
	"$bin/weftd" --foreground --runtime-dir "$tmp/run" --config "$tmp/weftd.conf" > "$tmp/log" 2>&1 &
	daemon=$!
	i=0
	while [ ! -S "$WEFT_SOCKET" ]; do
		i=$((i + 1))
		if [ $i -gt 100 ] || ! kill -0 "$daemon" 2>/dev/null; then
			echo "weftd did not start:" >&2
			cat "$tmp/log" >&2
			exit 1
		fi
		sleep 0.1
	done
	# Opening a session waits until the model is loaded.
	"$bin/weft" run --model "$model" --tokens --max-tokens 1 5 > /dev/null || { cat "$tmp/log" >&2; exit 1; }
}

say "1. A service desk: one small base model, five activated adapters (aLoRA), one cache"
start_daemon desk "$family/base" "$family"/adapters/*
"$bin/service_desk" "$src/examples/conversation.txt"

say "2. Four client processes at once: three adapters and the base model"
customer="Hello, this is Felix Bergholm. My lamp shows an error. It was order 2046. I need help today."
printf '\n  customer    %s\n\n' "$customer"
for task in topic urgency answerable; do
	answer=$("$bin/weft" run --adapter "alora-$task" "$customer") &&
		printf '  %-10s  %s\n' "$task" "$answer" &
	pids="$pids $!"
done
answer=$("$bin/weft" run "$customer") && printf '  %-10s  %s\n' base "$answer" &
pids="$pids $!"
for p in $pids; do wait "$p"; done
pids=
stop_daemon

say "3. The same on a model of the shape $shape, with random weights"
"$bin/weft" model make --quiet --shape "$shape" --arch llama --seed 1 "$tmp/model"
for i in 1 2 3 4 5; do
	"$bin/weft" adapter make --model "$tmp/model" --rank 32 --seed "$i" \
		--invocation "900,$((900 + i)),901" "$tmp/activated$i" > /dev/null
	"$bin/weft" adapter make --model "$tmp/model" --rank 8 --seed "$((10 + i))" \
		"$tmp/lora$i" > /dev/null
done
start_daemon large "$tmp/model" "$tmp"/activated* "$tmp"/lora*
echo "The base model answers, five adapters go on from its answer at once, the base model sums up."
echo "Measured with activated adapters, and with plain ones for comparison:"
"$bin/weft" bench pipeline --pipelines parallel --arms alora,lora-cold \
	--prompts "$prompts" --generate 32 --adapter-tokens 16 --tokens 16 --reps 1

stop_daemon
say "Done: weftd has stopped, $tmp is removed"
