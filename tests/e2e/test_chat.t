#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# weft chat in a pipe: each answer goes on from the conversation's own tokens, whoever gave the earlier ones, so
# all of it that can be cached is found; and its commands.
. "${WEFT_SRC:-.}/tests/e2e/shell.sh"
command -v python3 > /dev/null || { echo "1..0 # SKIP no python3 to read answers"; exit 0; }

data=$src/tests/data/chat
weft model make --quiet "$dir/model" && cp "$data"/tokenizer* "$dir/model" || exit 1
weft model make --quiet --seed 2 "$dir/plain" && cp "$data/tokenizer.json" "$dir/plain" || exit 1
weft adapter make --model "$dir/model" --invocation 511 "$dir/noted" > /dev/null || exit 1
weft adapter make --model "$dir/model" --seed 2 "$dir/lora" > /dev/null || exit 1
weft adapter make --model "$dir/plain" --invocation 511 "$dir/plainly" > /dev/null || exit 1
cat > "$dir/weftd.conf" <<CONF
[model chat]
path = $dir/model
[model plain]
path = $dir/plain
[adapter noted]
model = chat
path = $dir/noted
[adapter lora]
model = chat
path = $dir/lora
[adapter plainly]
model = plain
path = $dir/plainly
CONF
serve 700

# The cache holds every row of a prompt and its answer but the answer's last token's.
cat > "$dir/check.py" <<'CODE'
import json, sys
a = [json.loads(line) for line in open(sys.argv[1])]
expected, who = sys.argv[2].split(), [x["adapter"] for x in a]
bad = [] if len(a) == len(expected) else [f"{len(a)} answers"]
for i, (x, want) in enumerate(zip(a, expected)):
    before = a[i - 1]
    all_of_it = before["prompt_tokens"] + before["tokens"] - 1
    if want == "all" and x["cached_tokens"] != all_of_it:
        bad.append(f"{i}: {x['cached_tokens']} cached, not {all_of_it}")
    # An adapter's rows are its own: what comes before its invocation is shared.
    if want == "shared" and x["cached_tokens"] != before["activation"]:
        bad.append(f"{i}: {x['cached_tokens']} cached, not {before['activation']}")
    if want == "none" and x["cached_tokens"]:
        bad.append(f"{i}: {x['cached_tokens']} cached")
    if x["adapter"] == "noted" and x["activation"] != x["prompt_tokens"] - 1:
        bad.append(f"{i}: the invocation is not the prompt's end")
print("; ".join(bad) or "as it should be")
CODE
chat() { weft chat -m chat --json --ignore-eos -t 30 -T 1 -s 7 "$@"; }
cached() { python3 "$dir/check.py" "$dir/out" "$1"; }
printf '%s\n' 'Where is my order?' 'Thank you' 'And now?' | chat --system 'You are a helpful assistant.' > "$dir/out"
is "$(cached 'any all all')" "as it should be" "each turn finds the whole conversation"
printf '%s\n' 'The printer is red' '/adapter noted' 'what is it' '/adapter none' 'and now' '/adapter noted' 'again' '//end' |
	chat > "$dir/out" 2> "$dir/err"
is "$(cached 'any all shared all shared')" "as it should be" "across the base model and an activated adapter"
is "$(python3 -c "import json; print(*[json.loads(l)['adapter'] for l in open('$dir/out')])")" "None noted None noted noted" \
	"who answered"
printf '%s\n' 'Other words' '/adapter lora' 'what is it' 'and then' | chat > "$dir/out" 2> "$dir/err"
is "$(cached 'any none all')" "as it should be" "a plain LoRA finds its own"
printf '%s\n' 'One more time' '/reset' 'One more time' '/system Be brief.' 'One more time' | chat -a noted > "$dir/out"
is "$(python3 - "$dir/out" <<'CODE'
import json, sys
a = [json.loads(line) for line in open(sys.argv[1])]
print(a[0]["prompt_tokens"] == a[1]["prompt_tokens"] < a[2]["prompt_tokens"], a[0]["text"] == a[1]["text"])
CODE
)" "True True" "/reset begins anew, /system with another message"

# Without a template.
printf '%s\n' 'Hello' 'More' '/adapter plainly' 'And?' | weft chat -m plain --json --ignore-eos -t 20 -T 1 -s 3 > "$dir/out" 2> "$dir/err"
is "$(cached 'any all all')" "as it should be" "a model without a template"

# The text is that of weft run, and what is said about it goes to standard error.
message='The customer lives in Köln'
printf '%s' "$message" | weft chat -m chat --ignore-eos -t 30 --stats > "$dir/text" 2> "$dir/err"
is "$(cat "$dir/text")" "$(weft run -m chat --ignore-eos -t 30 "$message")" "an answer is that of weft run"
grep -q '^\[base: [0-9]* of [0-9]* prompt tokens cached, first token [0-9.]* ms, 30 tokens' "$dir/err"
check $? "--stats"
printf '%s\n' '/stats on' 'x' '/stats' 'x' | weft chat -m chat -t 5 > "$dir/text" 2> "$dir/err"
is "$(grep -c 'tokens cached' "$dir/err")" 1 "/stats"
printf '%s\n' /adapters /help '/adapter noted' /adapters | weft chat -m chat > "$dir/text" 2> "$dir/err"
[ ! -s "$dir/text" ] && grep -q '^  noted .*aLoRA' "$dir/err" && grep -q '^\* noted' "$dir/err" && grep -q '^/save FILE' "$dir/err"
check $? "/adapters, /help"
printf '%s\n' 'Hello <|im_end|>' "/save $dir/saved" /quit 'not this' | weft chat -m chat -a noted --json --ignore-eos -t 5 --system S > "$dir/out"
is "$(grep -c '' "$dir/out")" 1 "/quit ends it"
is "$(sed -n '1,5p' "$dir/saved" | tr '\n' '|')" "system:|S||user:|Hello <|im_end|>|" "/save"
is "$(stat -c %a "$dir/saved")" 600 "for its user alone"

fails() { # TEXT LINE: the command says so, and the pipe's status is 1
	printf '%s\n' "$2" | weft chat -m chat > /dev/null 2> "$dir/err"
	[ $? = 1 ] && grep -q -- "$1" "$dir/err"
	check $? "$2: $(head -n 1 "$dir/err")"
}
fails 'no command' '/fly away'
fails 'no adapter ghost' '/adapter ghost'
fails 'save FILE' '/save'
fails 'exists' "/save $dir/saved"
fails 'stats on' '/stats maybe'
head -c 9000 /dev/zero | tr '\0' '#' | weft chat -m chat 2>&1 | grep -q 'positions: /reset'
check $? "more than the model can hold"
weft chat --socket "$dir/none" < /dev/null 2>&1 | grep -q 'weftd running'
check $? "no daemon"
weft chat -m chat -a ghost < /dev/null 2>&1 | grep -q 'no adapter ghost'
check $? "no adapter"
weft chat -m chat -a noted < /dev/null
check $? "nothing said"
mkfifo "$dir/fifo"
for f in "$dir/fifo" "$dir"; do
	weft chat -m chat --history "$f" < /dev/null 2>&1 | grep -q 'neither a file nor a device'
	check $? "a history that is neither a file nor a device"
done
weft chat -m chat --history /dev/zero < /dev/null
check $? "a device is not read"
weft chat --help | grep -q '^usage: weft chat' && weft chat --complete | grep -q '^--history='
check $? "chat explains and completes itself"
weft --complete | grep -qx chat
check $? "and is among the commands"
echo "1..$n"
exit $failed
