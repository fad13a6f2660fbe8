#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# weft eval, and the demo model family, against a real daemon. What has to come out is known without it:
# reference.jsonl is what transformers and peft generate, in float32 (tests/oracle/make_demo.py); how many
# answers are right follows from it and the sets.
. "${WEFT_SRC:-.}/tests/e2e/shell.sh"
if ! command -v python3 > /dev/null; then
	echo "1..0 # SKIP no python3"
	exit 0
fi

data=$src/tests/data/demo
{
	printf '[model desk]\npath = %s\nkv_bytes = 64M\n' "$data/base"
	for a in "$data"/adapters/*; do printf '[adapter %s]\npath = %s\n' "${a##*/}" "$a"; done
} > "$dir/weftd.conf"
serve 700

cat > "$dir/verify.py" <<'CODE'
import json, sys
out, data, condition = sys.argv[1:]
d = json.load(open(out))
N = 6
kinds = ["base", "alora-*", "lora-*", "shared-*"]
tasks = ["answerable", "extract", "rewrite", "topic", "urgency"]
right = {(r["task"], r["adapter"]): r["right"] for r in d["results"]}
reused = [p["reused"] for p in d["passes"]]
reference = [json.loads(line) for line in open(data + "/reference.jsonl")]
answers = {t: [json.loads(line)["answer"] for line in list(open(f"{data}/sets/{t}.jsonl"))[1:N + 1]] for t in tasks}

def scores_follow():
    """An answer that the reference leaves out, because a choice was too close, may be right or wrong."""
    for (task, adapter), percent in right.items():
        said = [r for r in reference if (r["task"], r.get("adapter")) == (task, adapter)]
        low = sum(r["answer"] == answers[task][r["item"]] for r in said)
        if not low <= round(percent * N / 100) <= low + N - len(said):
            print(f"# {task}, {adapter}: {percent} %, {low} of {len(said)} by the reference")
            return False
    return len(right) == len(tasks) * len(kinds)

sys.exit(not eval(condition))
CODE
run() { weft eval -t "$data/base" "$@" > "$dir/out" 2> "$dir/err"; }
json() { python3 "$dir/verify.py" "$dir/out" "$data" "$1"; }
sets=
for t in answerable extract rewrite topic urgency; do sets="$sets $data/sets/$t.jsonl"; done
all='-a alora-* -a lora-* -a shared-*'
set -f

run $all -n 6 -r "$data/reference.jsonl" --json $sets
check $? "all answers are those of peft and transformers, and reuse changes none ($(head -n 1 "$dir/err"))"
json 'd["answers"] == N * len(tasks) * len(kinds) and d["unlike_reference"] == 0'
check $? "five sets, six items, four arms"
json 'd["compared"] == len(reference) >= 100'
check $? "all of the reference was compared"
json 'scores_follow()'
check $? "as many answers are right as the reference and the sets say"
json 'all(p["different"] == 0 for p in d["passes"]) and not any(reused[0].values())'
check $? "nothing is reused without the cache"
json 'reused[1]["alora-*"] > 50 and reused[1]["lora-*"] < 20 and reused[1]["shared-*"] < 20'
check $? "the base model's KV serves activated adapters, and no others"
json 'all(reused[2][k] > 80 for k in kinds)'
check $? "once more, nearly everything is there"
run -a 'alora-*' --in-flight 1 -n 2 --json $sets && json 'd["answers"] == 2 * 2 * len(tasks)'
check $? "one at a time, two items of each"
run -a 'alora-*' -n 2 $sets && grep -q '^topic  *2 ' "$dir/out" && grep -q 'All 20 answers are the same' "$dir/out"
check $? "the table"
run -n 2 -w 1 $sets && [ "$(grep -c '^  said: ' "$dir/err")" = 5 ]
check $? "a wrong answer of each set is shown"

# What must fail, and how.
expect() { # TEXT ARGUMENT...
	text=$1
	shift
	run "$@"
	[ $? = 1 ] && grep -q -- "$text" "$dir/err"
	check $? "fails: $text"
}
topic=$data/sets/topic.jsonl
# The base model answers in sentences, and so never as the sets want it.
echo '{"base-topic": 0.5}' > "$dir/expect"
run -n 2 -e "$dir/expect" "$topic"
check $? "as many are right as expected"
echo '{"base-topic": 50}' > "$dir/expect"
expect '0.0 % are right, and 50.0' -n 2 -e "$dir/expect" "$topic"
run -n 2 -e "$dir/expect" --slack 50 "$topic"
check $? "with more slack it is enough"
echo '{"other": 1}' > "$dir/expect"
expect 'says nothing' -n 2 -e "$dir/expect" "$topic"
grep '"topic"' "$data/reference.jsonl" | sed '1s/"answer": "/&x/' > "$dir/reference"
expect '1 of [0-9]* answers are not those' $all -n 6 -r "$dir/reference" "$topic"
echo '{"task": "three", "item": 0, "answer": ""}' > "$dir/reference"
expect 'no answer to any' -n 2 -r "$dir/reference" "$topic"
expect 'no adapter ghost-topic is loaded' -a 'ghost-*' -n 2 "$topic"
run
[ $? = 2 ] && grep -q 'name a test set' "$dir/err"
check $? "fails: no test set"
expect 'cannot\|No such' "$dir/none"
echo '{"task": "one", "invocation": "x", "max_tokens": 0}' > "$dir/set"
expect 'max_tokens' "$dir/set"
echo '{"task": "one", "invocation": "x", "max_tokens": 1}' > "$dir/set"
expect 'no items' "$dir/set"
echo '{"text": "x"}' >> "$dir/set"
expect 'line 2: a text is missing' "$dir/set"
echo 'x' > "$dir/set"
expect 'line 1' "$dir/set"
weft eval -n 2 "$topic" > "$dir/out" 2> "$dir/err"
check $? "without --tokenizer: the served model's ($(head -n 1 "$dir/err"))"
grep -q '^sec: the time of all 2 answers, 64 at once' "$dir/out"
check $? "what the seconds are is said"
weft eval --help | grep -q '^usage: weft eval' && weft eval --complete | grep -q -- --reference
check $? "eval explains and completes itself"
echo "1..$n"
exit $failed
