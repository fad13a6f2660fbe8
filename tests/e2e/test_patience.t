#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Who waits for weftd is told: while an engine does not take a session, and when weftd dies under one.
. "${WEFT_SRC:-.}/tests/e2e/shell.sh"
data=$src/tests/data/chat
weft model make --quiet "$dir/model" && cp "$data"/tokenizer* "$dir/model" || exit 1
printf '[model chat]\npath = %s\n' "$dir/model" > "$dir/weftd.conf"
await() { # FILE TEXT
	i=0
	while ! grep -q -- "$2" "$1" && [ $i -lt 600 ]; do sleep 0.1; i=$((i + 1)); done
	grep -q -- "$2" "$1"
}
serve 700
want=$(weft run -t 8 --ignore-eos hello)
opened() { weft status --json | grep -o '"sessions_opened":[0-9]*' | cut -d: -f2; }
before=$(opened)

# An engine that is stopped takes no session, as one that loads takes none.
engine=$(weft status --json | grep -o '"pid":[0-9]*' | tail -n 1 | cut -d: -f2)
kill -STOP "$engine"
weft run -t 8 --ignore-eos hello > "$dir/out" 2> "$dir/err" & run=$!
await "$dir/err" 'waiting for weftd'
check $? "a session that is not opened at once: $(cat "$dir/err")"
[ ! -s "$dir/out" ]
check $? "nothing of that is on standard output"
kill -CONT "$engine"
wait $run
is "$? $(cat "$dir/out")" "0 $want" "and then it is answered"
is "$(grep -c 'waiting for weftd' "$dir/err")" 1 "it is said once"
is "$(opened)" $((before + 1)) "one session was opened"

# weftd dies while a conversation waits for its next line.
mkfifo "$dir/in"
weft chat -t 8 --ignore-eos < "$dir/in" > "$dir/out" 2> "$dir/err" & chat=$!
exec 3> "$dir/in"
echo hello >&3
i=0
while [ "$(cat "$dir/out")" != "$want" ] && [ $i -lt 600 ]; do sleep 0.1; i=$((i + 1)); done
is "$(cat "$dir/out")" "$want" "a conversation"
kill -KILL "$daemon"
wait "$daemon" 2> /dev/null
echo '/reset' >&3
echo hello >&3
await "$dir/err" 'weftd is gone; waiting'
check $? "weftd has died: $(cat "$dir/err")"
rm -rf "$dir/run"
serve 700 3>&-
await "$dir/err" 'weftd is back'
check $? "it is there again"
exec 3>&-
wait $chat
is "$? $(cat "$dir/out")" "0 $want
$want" "and the conversation went on"
is "$(grep -c 'weftd is' "$dir/err")" 2 "a line each"
echo "1..$n"
exit $failed
