#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The demonstration: make a small model, start a private weftd without root, let several client
# processes generate at once, print what was measured, stop. Argument: the folder with the programs.
# Everything lies in a temporary directory that is gone afterwards, also after Ctrl-C.
set -eu

bin=$(cd "${1:-build}" && pwd)
clients=${CLIENTS:-3}
shape=${SHAPE:-135m}
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

say "1. A model of the shape $shape with random weights"
"$bin/weft" model make --shape "$shape" --arch llama --seed 1 "$tmp/model"
"$bin/weft" model info "$tmp/model"

say "2. A private weftd, as $(id -un), in $tmp"
# Run by root, the engine stays root: a user weft could not read the model in this private folder.
cat > "$tmp/weftd.conf" <<CONF
[daemon]
engine_user = root
[model demo]
path = $tmp/model
CONF
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
"$bin/weft" run --max-tokens 1 1 2 3 > /dev/null || { cat "$tmp/log" >&2; exit 1; }
"$bin/weft" model list

# One client process; its tokens, eight a line, as they come. With log-probabilities weft run prints
# a line a token.
stream() {
	who=$1
	shift
	"$bin/weft" run --no-resubmit --max-tokens 48 --temperature 1 --presence-penalty 10 --ignore-eos \
		--seed "$1" --logprobs 0 "$@" | {
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

say "3. $clients client processes generate at once; tokens as they come"
i=1
while [ $i -le "$clients" ]; do
	stream "client $i" $((i * 100 + 1)) $((i * 100 + 2)) $((i * 100 + 3)) &
	pids="$pids $!"
	i=$((i + 1))
done
for p in $pids; do wait "$p"; done
pids=

say "4. The same seed gives the same answer"
a=$("$bin/weft" run --max-tokens 12 --temperature 1 --presence-penalty 10 --seed 7 --ignore-eos 1 2 3)
b=$("$bin/weft" run --max-tokens 12 --temperature 1 --presence-penalty 10 --seed 7 --ignore-eos 1 2 3)
echo "$a"
echo "$b"
[ "$a" = "$b" ] || { echo "the answers differ" >&2; exit 1; }

say "5. What it costs ($clients clients, 64 prompt tokens, 32 generated)"
"$bin/weft" bench serve --clients "$clients" --requests $((clients * 8)) --prompt 64 --tokens 32

say "6. What this machine could do at most"
"$bin/weft" bench machine

stop_daemon
say "Done: weftd has stopped, $tmp is removed"
