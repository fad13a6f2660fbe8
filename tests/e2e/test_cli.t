#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The weft command against a real daemon: what it prints, what it refuses, how it exits.
. "${WEFT_SRC:-.}/tests/e2e/shell.sh"
json() { python3 -c "import json,sys; d=json.load(open('$dir/out')); sys.exit(not ($1))"; }
has_python=$(command -v python3)

model=$src/tests/data/models/llama
printf '[model tiny]\npath = %s\n' "$model" > "$dir/weftd.conf"
serve 700

# The fixture's oracle holds what transformers generated greedily.
if [ -n "$has_python" ]; then
	python3 - "$model/oracle.json" > "$dir/oracle" <<'CODE'
import json, sys
o = json.load(open(sys.argv[1]))
print(*o["prompts"][0])
print(*o["greedy"][0])
CODE
	prompt=$(sed -n 1p "$dir/oracle") want=$(sed -n 2p "$dir/oracle" | cut -d' ' -f1-20)
	is "$(weft run --tokens --max-tokens 20 --ignore-eos $prompt)" "$want" "greedy tokens are transformers'"
	is "$(echo "$prompt" | weft run --tokens --max-tokens 20 --ignore-eos)" "$want" "prompt on standard input"
	is "$(echo "$prompt" | tr ' ' ',' | weft run --tokens -t 20 --ignore-eos -)" "$want" "separated by commas"
fi
a=$(weft run --tokens -t 12 -T 1 --seed 5 --ignore-eos 1 2 3)
is "$(weft run --tokens -t 12 -T 1 --seed=5 --ignore-eos 1 2 3)" "$a" "the same seed, the same answer"
[ "$(weft run --tokens -t 12 -T 1 --seed 6 --ignore-eos 1 2 3)" != "$a" ]
check $? "another seed, another answer"
is "$(weft run --tokens -t 12 --ignore-eos 1 2 3 | wc -w)" 12 "max-tokens"
first=$(weft run --tokens -t 1 1 2 3)
[ "$(weft run --tokens -t 1 --logit-bias "$first:-inf" 1 2 3)" != "$first" ]
check $? "a forbidden token is not chosen"
is "$(weft run --tokens -t 12 --stop-token "$first" 1 2 3 | wc -w)" 1 "a stop token ends the answer"
is "$(weft run --tokens -t 4 -n 3 -T 1 --ignore-eos 1 2 3 | wc -l)" 3 "three answers, three lines"
is "$(weft run --tokens -t 4 -l 2 --ignore-eos 1 2 3 | awk -F'\t' 'NF == 4 { k++ } END { print k }')" 4 "log-probabilities, a line a token"
weft run --tokens -t 4 1 2 3 2> "$dir/err" > /dev/full
is "$? $(tail -n 1 "$dir/err")" "1 weft: standard output: not all of it could be written" "what a full disk loses is said"
weft run --tokens -t 4 1 2 3 2> "$dir/err" >&-
is "$? $(tail -n 1 "$dir/err")" "1 weft: standard output: not all of it could be written" "and what a closed one loses"
weft run --help 2> "$dir/err" > /dev/full
is "$? $(tail -n 1 "$dir/err")" "1 weft: standard output: not all of it could be written" "of help, too"
is "$(weft run --tokens -t 4 --adapter ghost 1 2 3 2> /dev/null | wc -c)" 0 "a refusal writes nothing on standard output"
weft run --tokens -t 4 --stats 1 2 3 2>&1 > /dev/null | grep -q 'first token'
check $? "--stats on standard error"
# Twenty tokens that nobody else has asked for: what is known of them before and after.
new=$(seq 100 119)
is "$(weft probe $new)" "0 of 20 tokens cached" "nothing of a new prompt is cached"
weft run --tokens -t 1 --no-cache $new > "$dir/out"
is "$(weft probe $new)" "0 of 20 tokens cached" "nor after a run without the cache"
weft run --tokens -t 1 $new > "$dir/out"
is "$(weft probe $new)" "19 of 20 tokens cached: device 19, host 0, disk 0" "after a run all but the last token"
echo "$new" > "$dir/prompt"
is "$(weft probe --file "$dir/prompt")" "$(echo "$new" | weft probe)" "from a file and from standard input"
if [ -n "$has_python" ]; then
	weft probe --json $new > "$dir/out"
	json "d == dict(prompt_tokens=20, cached_tokens=19, device_tokens=19, host_tokens=0, disk_tokens=0, invocation='none', activation=None)"
	check $? "weft probe --json"
	weft run --tokens -t 1 --json $new > "$dir/out"
	json "d['cached_tokens'] == 19 and d['invocation'] == 'none' and d['activation'] is None"
	check $? "what the probe said, a run finds"
fi
if [ -n "$has_python" ]; then
	weft run --tokens -t 4 -n 2 -l 1 --prompt-logprobs 0 --ignore-eos --json 1 2 3 > "$dir/out"
	json "d['status'] == 'ok' and len(d['answers']) == 2 and len(d['answers'][1]['tokens']) == 4 and len(d['answers'][0]['logprobs'][3]) == 2 and d['prompt_logprobs'][0] is None and len(d['prompt_logprobs']) == 3 and d['prompt_tokens'] == 3"
	check $? "run --json"
	weft status --json > "$dir/out"
	json "d['engines'][0]['model'] == 'tiny' and d['engines'][0]['state'] == 'ready'"
	check $? "status --json"
	weft model list --json > "$dir/out"
	json "d[0]['name'] == 'tiny' and d[0]['ready'] and d[0]['vocab'] == 192"
	check $? "model list --json"
	weft bench serve --clients 2 --requests 4 --prompt 8 --tokens 8 --json > "$dir/out"
	json "all(set(r) == {'name','value','unit','target','spread','pass'} for r in d) and any('TTFT' in r['name'] for r in d)"
	check $? "bench serve --json"
	weft model make --shape tiny --arch qwen3 --json "$dir/made" > "$dir/out" && json "isinstance(d, dict)"
	check $? "model make --json"
	weft adapter make --model "$model" --rank 12 --targets q,v,down --invocation 5,6 --json "$dir/adapter" > "$dir/out"
	json "d['kind'] == 'alora' and d['invocation'] == [5, 6] and d['rank_max'] == 12 and list(d['linears']) == ['q', 'v', 'down'] and d['scale_max'] == 2"
	check $? "adapter make --json"
fi
weft status | grep -q '^engines'
check $? "status for people"
weft model list | grep -q 'tiny *llama *ready'
check $? "model list for people"
weft model info "$model" | grep -q llama
check $? "model info"
weft adapter make --model "$model" "$dir/lora" && weft adapter info "$dir/lora" --model "$model" | grep -q '^kind *LoRA'
check $? "adapter make, adapter info"

# What must fail, and how.
expect_error 1 'no adapter ghost' weft probe -a ghost 1 2
expect_error 1 'token 4000000000 (number 1 of the prompt, counted from 0) is not in the model.s vocabulary' weft probe 1 4000000000
seq 1 5000 | sed "s/.*/7/" > "$dir/long"
expect_error 1 'tokens, the model has [0-9]* positions' weft probe --file "$dir/long"
expect_error 1 'no prompt' weft probe --file /dev/null
expect_error 1 'Is a directory' weft probe --file "$dir"
expect_error 1 'no adapter ghost is loaded' weft run --tokens -a ghost 1 2
expect_error 1 'both as' weft probe --file "$dir/out" 1
expect_error 1 'cannot\|No such' weft probe --file "$dir/none"
expect_error 2 'unknown command' weft fly
expect_error 2 'weft model: unknown command "fly"' weft model fly
expect_error 2 'weft model: which command? list, make, info' weft model
for c in 'adapter fly' 'cache' 'bench fly' 'adapter load' 'adapter unload' 'adapter make' 'model info' 'cache unpin' 'eval' 'run --fly'; do
	weft $c > "$dir/out" 2> "$dir/err" < /dev/null
	is "$? $(wc -l < "$dir/out") $(grep -c "^weft ${c%% *}.* (weft ${c%% *}.*--help)$" "$dir/err") $(wc -l < "$dir/err")" "2 0 1 1" \
		"weft $c: one line, which names the help ($(cat "$dir/err"))"
done
expect_error 1 'no adapter ghost is loaded; ' weft probe -a ghost 1 2
seq 10 30 > "$dir/ids"
is "$(weft probe --file - < "$dir/ids")" "$(weft probe --file "$dir/ids")" "a file - is standard input"
expect_error 2 'unknown option' weft run --fly 1
expect_error 2 'not a valid' weft run --tokens --top-k many 1
expect_error 2 'not a valid' weft run --tokens --top-k -1 1
expect_error 2 'needs a value' weft run --tokens 1 --seed
expect_error 1 'no prompt' weft run
expect_error 1 'no prompt' weft run --tokens
expect_error 1 'no tokenizer.json, so it takes token ids only' weft run hello
expect_error 1 'not a token' weft run --tokens 1 two
expect_error 1 'not in the model' weft run --tokens -t 5 1 100000
expect_error 1 "prompt's 3 tokens and max_tokens exceed the model's [0-9]* positions: shorten" weft run --tokens -t 100000 1 2 3
expect_error 1 'another kind of socket; sessions are opened at weftd.sock' weft run --tokens --socket "$dir/run/admin.sock" 1
expect_error 1 'another kind of socket; --admin-socket is admin.sock' weft status --admin-socket "$dir/run/weftd.sock"
expect_error 1 'n must be' weft run --tokens -n 17 1
expect_error 1 'no model' weft run --tokens -m other 1
expect_error 1 'weftd running' weft run --tokens --socket "$dir/none" 1
expect_error 1 'weftd running' weft status --socket "$dir/none"
expect_error 1 'cannot\|config.json' weft model info "$dir"
expect_error 1 'adapter_config.json: cannot' weft adapter info "$model" --model "$model"
expect_error 1 'no linear "x"' weft adapter make --model "$model" --targets q,x "$dir/none"
expect_error 1 'is there already' weft adapter make --model "$model" "$dir/lora"
expect_error 2 'and --model' weft adapter make "$dir/none"
for c in "run" "probe" "status" "model list" "model make" "model info" "adapter make" "adapter info" "bench serve" "bench ring" "bench kernels" "bench machine" "bench model" "bench index"; do
	weft $c --help | grep -q "^usage: weft $c" && [ -n "$(weft $c --complete)" ]
	check $? "$c explains and completes itself"
done

is "$(weft help model make)" "$(weft model make --help)" "weft help COMMAND"
is "$(weft model make -h; weft model -h; weft -h)" "$(weft model make --help; weft model --help; weft --help)" "-h is --help"

# An interrupt cancels; what came is kept.
weft run --tokens -t 250 --ignore-eos --min-tokens 1 -n 16 -T 1 1 2 3 > "$dir/out" & run=$!
sleep 0.2
kill -INT $run 2> /dev/null
wait $run
status=$?
[ $status = 0 ] || [ $status = 130 ]
check $? "an interrupted run ends in order ($status)"

# Nor can a reader that does not read hold it: the second interrupt ends it.
mkfifo "$dir/full"
exec 8<> "$dir/full"
weft run --tokens -t 240 -n 16 -l 20 --ignore-eos -T 1 5 6 7 > "$dir/full" 2> /dev/null 8>&- & run=$!
sleep 1
kill -INT $run
sleep 0.2
kill -INT $run 2> /dev/null
i=0
while kill -0 $run 2> /dev/null && [ $i -lt 300 ]; do sleep 0.1; i=$((i + 1)); done
! kill -0 $run 2> /dev/null
check $? "one whose pipe is full ends by a second interrupt"
exec 8>&-

# What its caller had open for somebody else is not held open by a daemon in the background.
mkdir -m 700 "$dir/back"
mkfifo "$dir/held"
cat "$dir/held" > /dev/null & reader=$!
weftd --runtime-dir "$dir/back" --config "$dir/weftd.conf" > "$dir/backlog" 2>&1 9> "$dir/held"
check $? "weftd goes to the background"
i=0
while kill -0 $reader 2> /dev/null && [ $i -lt 600 ]; do sleep 0.1; i=$((i + 1)); done
! kill -0 $reader 2> /dev/null
check $? "and holds nothing open"
kill "$(tr -dc 0-9 < "$dir/back/weftd.lock")"
i=0
while [ -e "$dir/back/weftd.sock" ] && [ $i -lt 600 ]; do sleep 0.1; i=$((i + 1)); done
echo "1..$n"
exit $failed
