#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Text in, text out: weft run with a prompt that is text, and weft tokenize, against the fixture's oracle and
# against what the same ids give.
. "${WEFT_SRC:-.}/tests/e2e/shell.sh"
command -v python3 > /dev/null || { echo "1..0 # SKIP no python3 to read the oracle"; exit 0; }
# A field of the last --json answer.
json() { python3 -c "import json,sys; d=json.load(open('$dir/out')); print($1)"; }

data=$src/tests/data/chat
weft model make --quiet "$dir/model" && cp "$data"/tokenizer* "$dir/model" || exit 1
weft model make --quiet "$dir/plain" && cp "$data/tokenizer.json" "$dir/plain" || exit 1
python3 - "$data/oracle.json" > "$dir/oracle" <<'CODE'
import json, sys
o = json.load(open(sys.argv[1]))
text, ids = o["encode"][1]
print(text)
print(*ids)
chat = o["chat"][0]
print(chat["messages"][0]["content"])
print(*chat["ids"])
chat = o["chat"][1]
print(chat["messages"][0]["content"])
print(chat["messages"][1]["content"].strip())
print(*chat["ids"])
hostile = o["hostile"][1]
print(hostile["messages"][0]["content"])
print(*hostile["ids"])
CODE
line() { sed -n "$1p" "$dir/oracle"; }
cat > "$dir/weftd.conf" <<CONF
[model chat]
path = $dir/model
[model plain]
path = $dir/plain
CONF
# The invocation is a special token; the other's is what "print" is at the beginning of a text.
note=511 print=$(weft tokenize -t "$dir/model" --bare print | tr ' ' ,)
weft adapter make --model "$dir/model" --invocation $note "$dir/noted" > /dev/null || exit 1
weft adapter make --model "$dir/model" --invocation "$print" "$dir/printed" > /dev/null || exit 1
weft adapter make --model "$dir/model" "$dir/lora" > /dev/null || exit 1
for a in noted printed lora; do printf '[adapter %s]\nmodel = chat\npath = %s\n' $a "$dir/$a" >> "$dir/weftd.conf"; done
serve 700
t="$dir/model"

# weft tokenize
is "$(weft tokenize -t "$t" "$(line 1)")" "$(line 2)" "tokenize: the oracle's ids"
is "$(line 1 | tr -d '\n' | weft tokenize -t "$t")" "$(line 2)" "from standard input"
line 1 | tr -d '\n' > "$dir/text"
is "$(weft tokenize -t "$t" --file "$dir/text")" "$(line 2)" "from a file"
is "$(weft tokenize -t "$t" --decode $(line 2))" "$(line 1)" "--decode"
is "$(line 2 | weft tokenize -t "$t" -d)" "$(line 1)" "--decode from standard input"
is "$(weft tokenize -t "$t" '<|note|>' | wc -w)" 7 "a special token's text is text"
is "$(weft tokenize -t "$t" --special '<|note|>')" $note "unless --special"
is "$(weft tokenize -t "$t" -d --skip-special $note $(line 2))" "$(line 1)" "--skip-special"
weft tokenize -t "$t" --json 'a "b"' > "$dir/out"
is "$(json "d['text']")" 'a "b"' "tokenize --json"
printf 'a\0b' | weft tokenize -t "$t" --json > "$dir/out"
is "$(json "d['text'] == 'a' + chr(0) + 'b'")" True "of a text with a zero in it"
is "$(weft tokenize -m chat "$(line 1)")" "$(line 2)" "without --tokenizer: the served model's"
is "$(weft tokenize -m chat -d $(line 2))" "$(line 1)" "--decode too"
expect_error 1 '2 models are served: name one' weft tokenize x
expect_error 1 'without a daemon' weft tokenize --socket "$dir/none" x
expect_error 1 'about the served' weft tokenize -t "$t" -m chat x
expect_error 1 'tokenizer of' weft tokenize -t "$dir" x
expect_error 1 'both as' weft tokenize -t "$t" --file "$dir/text" x
expect_error 1 'not a token id' weft tokenize -t "$t" -d x
expect_error 1 'not a token of this' weft tokenize -t "$t" -d 100000
weft tokenize --help | grep -q '^usage: weft tokenize' && weft tokenize --complete | grep -q '^--tokenizer='
check $? "tokenize explains and completes itself"

# The prompt's ids, seen through what they give: ids that are the same generate the same.
ids() { weft run -m chat --tokens -t 12 --ignore-eos "$@"; }
text() { weft run -m chat -t 12 --ignore-eos "$@"; }
tokens() { weft run -m chat -t 12 --ignore-eos --json "$@" > "$dir/out" && json "*d['answers'][0]['tokens']"; }
shown() { weft tokenize -t "$t" --decode --skip-special "$@"; }
is "$(tokens --raw "$(line 1)")" "$(ids $(line 2))" "--raw: the text's tokens"
is "$(tokens "$(line 3)")" "$(ids $(line 4))" "by the chat template"
is "$(tokens --chat "$(line 3)")" "$(ids $(line 4))" "--chat says so"
is "$(tokens --system "$(line 5)" "$(line 6)")" "$(ids $(line 7))" "--system"
is "$(tokens "$(line 8)")" "$(ids $(line 9))" "a message cannot be a special token"
[ "$(tokens --special "$(line 8)")" != "$(ids $(line 9))" ]
check $? "unless --special"
is "$(text "$(line 3)")" "$(shown $(ids $(line 4)))" "the text is that of the ids"
is "$(line 3 | tr -d '\n' | text | cat)" "$(shown $(ids $(line 4)))" "in a pipe"
is "$(line 3 | tr -d '\n' | text -)" "$(shown $(ids $(line 4)))" "with -"
is "$(line 3 | tokens)" "$(ids $(line 4))" "the newline at the end of what is piped is no part of it"
is "$(printf '%s\r\n' "$(line 3)" | tokens -)" "$(ids $(line 4))" "nor one with a carriage return"
is "$(line 1 | tokens --raw)" "$(ids $(line 2))" "nor with --raw"
two=$(printf 'a\n\n' | tokens --raw)
is "$two" "$(ids $(weft tokenize -t "$t" "a
"))" "of two one stays"
[ "$two" != "$(printf 'a\n' | tokens --raw)" ]
check $? "which makes a difference"
is "$(printf '%s\n' "$(line 1)" | weft tokenize -t "$t" | wc -w)" $(($(line 2 | wc -w) + 1)) "tokenize has every byte"
is "$(text --raw 12 7)" "$(shown $(ids $(weft tokenize -t "$t" '12 7')))" "numbers are a text too"
is "$(weft run -m plain -t 12 --ignore-eos "$(line 1)")" "$(shown $(weft run -m plain --tokens -t 12 --ignore-eos $(line 2)))" \
	"without a template the text is gone on with"

# Stop strings: a piece of what would be said, chosen from it.
text --raw -t 60 -T 1 -s 3 --json "$(line 1)" > "$dir/out"
cat > "$dir/stop.py" <<'CODE'
import json, re, sys
text = json.load(open(sys.argv[1]))["answers"][0]["text"]
stop = re.search(r"(?<=.{4})[a-z]{2}", text, re.S).group()
print(stop if sys.argv[2] == "stop" else json.dumps(text[:text.index(stop)]))
CODE
stop=$(python3 "$dir/stop.py" "$dir/out" stop) want=$(python3 "$dir/stop.py" "$dir/out" want)
text --raw -t 60 -T 1 -s 3 --json --stop zzzz --stop "$stop" "$(line 1)" > "$dir/out"
is "$(json "d['answers'][0]['finish'], json.dumps(d['answers'][0]['text'])")" "stop-string $want" "--stop ends before its text"
text --raw -t 60 -T 1 -s 3 --stop "$stop" "$(line 1)" > "$dir/some"
is "$(python3 -c "import json,sys; t=open('$dir/some').read(); print(json.dumps(t[:-1]))")" "$want" "and does in the stream"
text -n 2 -T 1 -s 1 x > "$dir/two"
is "$(grep -c '^answer [01]:$' "$dir/two")" 2 "two answers, each under its line"
text -l 1 x | awk -F'\t' 'NF == 3 { k++ } END { exit k != 12 }'
check $? "log-probabilities, a line a token"

# Invocations.
run() { weft run -m chat -t 2 --json "$@" > "$dir/out" && json "d['invocation'], d['activation']"; }
is "$(run -a noted hello)" "found $(($(weft tokenize -t "$t" --special '<|im_start|>user
hello<|im_end|>
' | wc -w)))" "an invocation takes the place of the words before the answer"
is "$(run -a noted --raw --special 'say <|note|>')" "found $(weft tokenize -t "$t" 'say ' | wc -w)" "or stands in the prompt"
is "$(run -a lora hello)" "none 0" "a plain LoRA needs none"
expect_error 1 'special tokens are not looked for' weft run -m chat -a noted --raw 'say <|note|>'
expect_error 1 'merged' weft run -m chat -a printed --raw 'The printer'
expect_error 1 'does not contain' weft run -m chat -a noted --raw 'say it'
is "$(run -a printed --raw print)" "found 0" "a word by itself is found"

# What cannot be.
echo | weft run -m chat > "$dir/out" 2> "$dir/err"
is "$? $(cat "$dir/out") $(grep -c 'no prompt' "$dir/err")" "1  1" "a newline alone is no prompt"
expect_error 1 'no prompt' weft run -m chat
expect_error 1 'no prompt' weft run -m chat ''
expect_error 1 'no chat template' weft run -m plain --chat x
expect_error 1 'no chat template' weft run -m plain --system y x
expect_error 1 '--tokens gives' weft run -m chat --tokens --raw 1
expect_error 1 '--stop is a text' weft run -m chat --tokens --stop x 1
expect_error 1 '--raw goes without' weft run -m chat --raw --chat x
expect_error 1 '--bare is about' weft run -m chat --bare x
expect_error 2 'not a valid' weft run -m chat --stop '' x

# An interrupt keeps what there is, asleep or spinning. It may come when the answer has ended already,
# which says nothing: then again. One that is not heeded never leaves less than all of the answer.
interrupted() { # OPTION...
	tries=0
	while [ $tries -lt 20 ]; do
		tries=$((tries + 1))
		: > "$dir/some"
		weft run -m chat --tokens --ignore-eos -t 4000 -T 1 "$@" 1 2 3 > "$dir/some" & run=$!
		i=0
		while [ ! -s "$dir/some" ] && [ $i -lt 6000 ]; do sleep 0.01; i=$((i + 1)); done
		kill -INT $run 2> /dev/null
		wait $run
		status=$? came=$(wc -w < "$dir/some")
		[ "$came" -ge 4000 ] || break
	done
	[ "$came" -gt 0 ] && [ "$came" -lt 4000 ] && [ $status = 130 ]
	check $? "an interrupted answer is kept: weft run $* ($came tokens, exit $status)"
}
interrupted
interrupted --poll-always
echo "1..$n"
exit $failed
