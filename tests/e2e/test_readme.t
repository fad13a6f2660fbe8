#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What README.md tells a newcomer to type works as it stands there, but for the folders (this test's own) and
# the size of the model that "Run it" makes: every command ends with 0, and what the demo's desk answers is what
# transformers answers for it ("My order is 2046.", greedy, in float32; no choice is a close one).
. "${WEFT_SRC:-.}/tests/e2e/shell.sh"
if nm -D "$build/libweft.so.0" | grep -q ' __[at]san_init'; then
	echo "1..0 # SKIP built with a sanitizer, which README's program would need, too"
	exit 0
fi
chmod 755 "$dir"
cd "$src" || exit 1
# The first block of commands behind a line with this text.
block() {
	awk -v text="$1" '!on { on = index($0, text); next } /^    / { print substr($0, 5); some = 1; next } some && NF { exit }' \
		README.md | sed "s|/tmp/|$dir/|g; s|\<build/|$build/|g"
}
# Each command must end with 0.
try() { # NAME
	sh -ex "$dir/script" < "$dir/talk" > "$dir/out" 2> "$dir/err"
	check $? "$1"
	[ $failed = 0 ] || tail -n 5 "$dir/err" | sed 's/^/# /'
}
printf '%s\n' "Hello, this is Felix Bergholm. My lamp shows an error. It was order 2046. I need help today." \
	"/adapter alora-urgency" "Thank you. Where is that done?" > "$dir/talk"

block 'To talk to it:' > "$dir/desk.sh"
grep -q '^kill "\$(cat ' "$dir/desk.sh" && grep -q 'run -a alora-topic' "$dir/desk.sh"
check $? "README says how to talk to the desk"
grep -v '^kill' "$dir/desk.sh" > "$dir/script"
try "the desk is started, asked and talked to"
topic=$(head -n 1 "$dir/out")
grep -q "\"answer\": *\"$topic\"" tests/data/demo/sets/topic.jsonl
check $? "the adapter for topics names one ($topic)"
grep -qE '^(.*> )?(low|normal|high)$' "$dir/out"
check $? "and the one for urgency how urgent it is"
grep -c 'cached' "$dir/err" "$dir/out" | grep -q ':[1-9]'
check $? "with what it did not have to read"

export WEFT_SOCKET="$dir/desk/weftd.sock"
block 'is spoken to in text' | sed 's/-m m\>/-m desk/' > "$dir/script"
[ "$(grep -c '^weft ' "$dir/script")" = 3 ]
check $? "three commands for a model with a tokenizer"
try "work on the desk"

awk '/^```c$/ { on = 1; next } /^```$/ { on = 0 } on' README.md > "$dir/hello.c"
${CC:-gcc} -o "$dir/hello" "$dir/hello.c" -I libclient "$build/libweft.so.0"
check $? "the program is compiled"
export LD_LIBRARY_PATH="$build"
"$dir/hello" > "$dir/out"
check $? "runs"
is "$(head -n 1 "$dir/out")" "492 728 770 416 343 880 528 35 2 " "and the desk answers as it should"
(cd "$dir" && head -n 1 out | xargs weft tokenize -d) > "$dir/text"
is "$(cat "$dir/text")" "Is there more that I should know?<|end|>" "as text, too"
sed 's/{1, 3, /{1, 3000000, /' "$dir/hello.c" > "$dir/wrong.c"
${CC:-gcc} -o "$dir/wrong" "$dir/wrong.c" -I libclient "$build/libweft.so.0"
"$dir/wrong" > "$dir/out"
is "$? $(grep -c 'vocabulary' "$dir/out")" "1 1" "a prompt of tokens that there are not: a reason, and not 0"
grep '^kill' "$dir/desk.sh" > "$dir/script"
try "the desk is ended"

{
	block '## Run it' | sed '/make install$/d; s/--shape 135m/--shape tiny/'
	block 'Adapters come and go'
	echo "kill \$(cat $dir/weft/weftd.lock)"
} > "$dir/script"
[ "$(grep -c '^weft' "$dir/script")" = 9 ]
check $? "nine commands for a model of one's own and an adapter"
try "work"
grep -q '^[0-9 ]*$' "$dir/out" && grep -q 'alora of rank' "$dir/out"
check $? "and answer"
# What failed may have left a daemon.
[ $failed = 0 ] || for pid in $(cat "$dir"/*/weftd.lock 2> /dev/null); do
	[ "$(cat "/proc/$pid/comm" 2> /dev/null)" != weftd ] || kill "$pid"
done
echo "1..$n"
exit $failed
