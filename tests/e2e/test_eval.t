#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# weft eval against a real daemon. What has to come out is known without it: the sets' right answers
# and the reference are what peft and transformers generated (tests/oracle/make_eval.py), and every
# fourth right answer is spoilt.
build=$(cd "${WEFT_BUILD:-build}" && pwd) src=$(cd "${WEFT_SRC:-.}" && pwd)
PATH=$build:$PATH
dir=$(mktemp -d) || exit 1
daemon=
finish() { [ -z "$daemon" ] || { kill "$daemon"; wait "$daemon"; }; rm -rf "$dir"; }
trap finish EXIT
n=0 failed=0
check() {
	n=$((n + 1))
	if [ "$1" = 0 ]; then echo "ok $n - $2"; else echo "not ok $n - $2"; failed=1; fi
}
if ! command -v python3 > /dev/null; then
	echo "1..0 # SKIP no python3"
	exit 0
fi

data=$src/tests/data/eval
{
	printf '[model tiny]\npath = %s\nkv_bytes = 64M\n' "$data/base"
	for a in alora-one alora-two lora-one lora-two; do
		printf '[adapter %s]\npath = %s\n' $a "$data/adapters/$a"
	done
} > "$dir/weftd.conf"
mkdir -m 700 "$dir/run"
weftd --foreground --runtime-dir "$dir/run" --config "$dir/weftd.conf" > "$dir/log" 2>&1 &
daemon=$!
export WEFT_SOCKET="$dir/run/weftd.sock"
i=0
while [ ! -S "$WEFT_SOCKET" ] && [ $i -lt 600 ]; do sleep 0.1; i=$((i + 1)); done

run() { weft eval -t "$data/base" "$@" > "$dir/out" 2> "$dir/err"; }
json() { python3 -c "
import json
d = json.load(open('$dir/out'))
right = {(r['task'], r['adapter']): r['right'] for r in d['results']}
reused = [p['reused'] for p in d['passes']]
raise SystemExit(not ($1))"; }
sets="$data/sets/one.jsonl $data/sets/two.jsonl"
both='-a alora-* -a lora-*'
set -f

run $both -r "$data/reference.jsonl" --json $sets
check $? "all answers are those of peft and transformers, and reuse changes none ($(head -n 1 "$dir/err"))"
json "d['answers'] == 48 and d['compared'] == 48 and d['unlike_reference'] == 0"
check $? "two sets, eight items, three arms"
json "all(right[t, 'alora-' + t] == 75 for t in ('one', 'two'))"
check $? "what is spoilt is counted as wrong, the rest as right"
json "all(p['different'] == 0 for p in d['passes']) and not any(reused[0].values())"
check $? "nothing is reused without the cache"
json "reused[1]['alora-*'] > 50 and reused[1]['lora-*'] < 10"
check $? "the base model's KV serves activated adapters, and no others"
json "all(v > 90 for v in reused[2].values())"
check $? "once more, nearly everything is there"
run $both --in-flight 1 -n 3 --json $sets && json "d['answers'] == 18"
check $? "one at a time, three items of each"
run $both $sets && grep -q '^one  *8 .* 75.0' "$dir/out" && grep -q 'All 48 answers are the same' "$dir/out"
check $? "the table"
run -a 'alora-*' -w 1 $sets && [ "$(grep -c '^  said: ' "$dir/err")" = 4 ]
check $? "a wrong answer of each set and arm is shown"

# What must fail, and how.
expect() { # TEXT ARGUMENT...
	text=$1
	shift
	run "$@"
	[ $? = 1 ] && grep -q -- "$text" "$dir/err"
	check $? "fails: $text"
}
echo '{"alora-one": 75, "alora-two": 75.5}' > "$dir/expect"
run -a 'alora-*' -e "$dir/expect" $sets
check $? "as many are right as expected"
echo '{"alora-one": 77}' > "$dir/expect"
expect '75.0 % are right, and 77.0' -a 'alora-*' -e "$dir/expect" $sets
run -a 'alora-*' -e "$dir/expect" --slack 2 $sets
check $? "with more slack it is enough"
echo '{"other": 1}' > "$dir/expect"
expect 'says nothing' -a 'alora-*' -e "$dir/expect" $sets
sed '1s/"answer": "/&x/' "$data/reference.jsonl" > "$dir/reference"
expect '1 of 48 answers are not those' $both -r "$dir/reference" $sets
echo '{"task": "three", "item": 0, "answer": ""}' > "$dir/reference"
expect 'no answer to any' $both -r "$dir/reference" $sets
expect 'does not have that adapter' -a 'ghost-*' $sets
expect 'no test set'
expect 'cannot\|No such' "$dir/none"
echo '{"task": "one", "invocation": "x", "max_tokens": 0}' > "$dir/set"
expect 'max_tokens' "$dir/set"
echo '{"task": "one", "invocation": "x", "max_tokens": 1}' > "$dir/set"
expect 'no items' "$dir/set"
echo '{"text": "x"}' >> "$dir/set"
expect 'line 2: a text is missing' "$dir/set"
echo 'x' > "$dir/set"
expect 'line 1' "$dir/set"
weft eval x > "$dir/out" 2> "$dir/err"
[ $? = 1 ] && grep -q 'which tokenizer' "$dir/err"
check $? "fails: which tokenizer"
weft eval --help | grep -q '^usage: weft eval' && weft eval --complete | grep -q -- --reference
check $? "eval explains and completes itself"
echo "1..$n"
exit $failed
