#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Serve a model with all its adapters from a private weftd, and put its test sets to them (weft eval).
#
#	eval.sh BUILD DATA [OPTION...]
#
# DATA holds base/, adapters/KIND-TASK/, sets/TASK.jsonl, and where there are any expect.json (what has
# to be right, less two points) and reference.jsonl (what something else answered). Options go to weft eval.
set -eu

bin=$(cd "$1" && pwd)
data=$(cd "$2" && pwd)
shift 2
tmp=$(mktemp -d "${TMPDIR:-/tmp}/weft-eval.XXXXXX")
daemon=

cleanup() {
	status=$?
	trap - EXIT INT TERM
	if [ -n "$daemon" ]; then
		kill -TERM "$daemon" 2>/dev/null || true
		wait "$daemon" 2>/dev/null || true
	fi
	rm -rf "$tmp"
	exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# Run by root, the engine stays root: a user weft may not be able to read the folder.
printf '[daemon]\nengine_user = root\n[model eval]\npath = %s\nkv_bytes = 1G\n' "$data/base" > "$tmp/weftd.conf"
kinds=
for folder in "$data"/adapters/*; do
	name=${folder##*/}
	printf '[adapter %s]\npath = %s\n' "$name" "$folder" >> "$tmp/weftd.conf"
	case " $kinds " in *" ${name%%-*} "*) ;; *) kinds="$kinds ${name%%-*}" ;; esac
done

export WEFT_SOCKET="$tmp/run/weftd.sock"
mkdir -m 700 "$tmp/run"
"$bin/weftd" --foreground --runtime-dir "$tmp/run" --config "$tmp/weftd.conf" > "$tmp/log" 2>&1 &
daemon=$!
i=0
while [ ! -S "$WEFT_SOCKET" ]; do
	i=$((i + 1))
	if [ $i -gt 600 ] || ! kill -0 "$daemon" 2>/dev/null; then
		echo "weftd did not start:" >&2
		cat "$tmp/log" >&2
		exit 1
	fi
	sleep 0.1
done

set -f
for kind in $kinds; do set -- "$@" -a "$kind-*"; done
set +f
[ ! -e "$data/expect.json" ] || set -- "$@" --expect "$data/expect.json" --slack 2
[ ! -e "$data/reference.jsonl" ] || set -- "$@" --reference "$data/reference.jsonl"
"$bin/weft" eval --tokenizer "$data/base" "$@" "$data"/sets/*.jsonl
