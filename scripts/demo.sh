#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The demonstration: a small model and adapters with random weights, a private weftd without root,
# several client processes that generate at once with different models, and what it is worth that
# base model and adapters share one cache. Argument: the folder with the programs.
# Everything lies in a temporary directory that is gone afterwards, also after Ctrl-C.
set -eu

bin=$(cd "${1:-build}" && pwd)
shape=${SHAPE:-135m}
prompts=${PROMPTS:-256,1024}
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

say "1. A model of the shape $shape and ten adapters, all with random weights"
"$bin/weft" model make --shape "$shape" --arch llama --seed 1 "$tmp/model"
"$bin/weft" model info "$tmp/model"
# Five activated adapters (aLoRA), each woken by an invocation of its own; five plain LoRAs.
for i in 1 2 3 4 5; do
	"$bin/weft" adapter make --model "$tmp/model" --rank 32 --seed "$i" \
		--invocation "900,$((900 + i)),901" "$tmp/activated$i" > /dev/null
	"$bin/weft" adapter make --model "$tmp/model" --rank 8 --seed "$((10 + i))" \
		"$tmp/lora$i" > /dev/null
done
"$bin/weft" adapter info --model "$tmp/model" "$tmp/activated1"

say "2. A private weftd, as $(id -un), in $tmp"
# Run by root, the engine stays root: a user weft could not read the model in this private folder.
{
	printf '[daemon]\nengine_user = root\n[model demo]\npath = %s\n' "$tmp/model"
	for i in 1 2 3 4 5; do printf '[adapter activated%d]\npath = %s\n' $i "$tmp/activated$i"; done
} > "$tmp/weftd.conf"
export WEFT_SOCKET="$tmp/run/weftd.sock"
mkdir -m 700 "$tmp/run"
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
"$bin/weft" run --tokens --max-tokens 1 1 2 3 > /dev/null || { cat "$tmp/log" >&2; exit 1; }
"$bin/weft" model list
for i in 1 2 3 4 5; do "$bin/weft" adapter load "lora$i" "$tmp/lora$i" > /dev/null; done
"$bin/weft" adapter list

# One client process; its tokens, eight a line, as they come. With log-probabilities weft run prints
# a line a token.
stream() {
	who=$1
	shift
	"$bin/weft" run --tokens --no-resubmit --max-tokens 32 --temperature 1 --presence-penalty 10 --ignore-eos \
		--seed 7 --logprobs 0 "$@" | {
		line= n=0
		while read -r token _; do
			line=$(printf '%s %5d' "$line" "$token")
			n=$((n + 1))
			if [ $((n % 8)) = 0 ]; then
				echo "$who |$line"
				line=
			fi
		done
		[ -z "$line" ] || echo "$who |$line"
	}
}

say "3. Four client processes, one prompt, four models in one batch; tokens as they come"
stream "base      " 11 12 13 900 901 901 &
pids="$pids $!"
stream "lora1     " --adapter lora1 11 12 13 900 901 901 &
pids="$pids $!"
stream "activated1" --adapter activated1 11 12 13 900 901 901 &
pids="$pids $!"
stream "activated2" --adapter activated2 11 12 13 900 902 901 &
pids="$pids $!"
for p in $pids; do wait "$p"; done
pids=

say "4. One cache: the base model answers, five adapters at once go on, the base model sums up"
echo "alora: activated adapters, which read the base model's KV; lora-cold: plain LoRAs, which cannot;"
echo "alora-serial: the activated ones one after another."
"$bin/weft" bench pipeline --pipelines parallel --arms alora,alora-serial,lora-cold \
	--prompts "$prompts" --generate 32 --adapter-tokens 16 --tokens 16 --reps 2

say "5. What a token costs (3 clients, 64 prompt tokens, 32 generated)"
"$bin/weft" bench serve --clients 3 --requests 12 --prompt 64 --tokens 32

say "6. What this machine could do at most"
"$bin/weft" bench machine

stop_daemon
say "Done: weftd has stopped, $tmp is removed"
