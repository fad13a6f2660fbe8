#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# weft adapter and weft cache against a real daemon and engine: adapters come, serve, are replaced
# and go; prefixes are pinned; caches are emptied; and all of it survives the engine.
. "${WEFT_SRC:-.}/tests/e2e/shell.sh"

model=$src/tests/data/models/llama
umask 022
chmod 755 "$dir"
weft adapter make --model "$model" -r 8 --seed 1 -i 5,6 "$dir/a1" &&
	weft adapter make --model "$model" -r 8 --seed 2 -i 5,6 "$dir/a2" &&
	weft adapter make --model "$model" -r 16 --seed 3 -t q,v "$dir/l1"
check $? "three adapters are made"
{
	printf '[model tiny]\npath = %s\nkv_bytes = 4M\n' "$model"
	printf '[adapter from-file]\npath = %s/l1\n[adapter broken]\npath = %s/none\n' "$dir" "$dir"
} > "$dir/weftd.conf"
serve 755
run() { weft run --tokens -t 12 --ignore-eos "$@"; }
state() { weft adapter list | awk -v n="$1" '$1 == n { print $3 }'; }
await() { # NAME STATE
	i=0
	while [ "$(state "$1")" != "$2" ] && [ $i -lt 600 ]; do sleep 0.05; i=$((i + 1)); done
	is "$(state "$1")" "$2" "$1 is $2"
}

await from-file loaded
await broken failed
weft adapter list | grep -q '^broken  *tiny  *failed  *config  *-  *-  *-  .*No such file'
check $? "the list says why, and nothing that is not known"
prompt='1 2 3 4 5 6 7 8'
base=$(run $prompt)
plain=$(run --adapter from-file $prompt)
[ "$plain" != "$base" ]
check $? "the LoRA of the configuration changes the answer"
expect 0 'alora of rank 8' weft adapter load one "$dir/a1"
weft adapter list | grep -q '^one  *tiny  *loaded  *loaded  *alora  *8  *[0-9.]* MB  5,6$' &&
	weft adapter list | grep -q '^from-file  *tiny  *loaded  *config  *lora  *16  *[0-9.]* MB  $'
check $? "the list tells what was loaded by hand from what the configuration has"
one=$(run --adapter one $prompt)
[ "$one" != "$base" ] && [ "$one" != "$plain" ]
check $? "so does one that is loaded by hand"
expect 1 'is there already' weft adapter load one "$dir/a2"
expect 0 'alora' weft adapter load one "$dir/a2" --replace
two=$(run --adapter one $prompt)
[ "$two" != "$one" ]
check $? "a replacement under its name gives its own answers"
expect 0 'alora' weft adapter load one "$dir/a1" --replace
is "$(run --adapter one $prompt)" "$one" "the first once more: its answer, too"
expect 0 '"kind":"alora"' weft adapter info one --json
expect 0 '"activation_offset":1' weft adapter load off "$dir/a1" --offset 1 --on-missing base --json
expect 0 'on_missing_invocation *base' weft adapter info off
# What is said has its line in a manual page: an engine's own part in its own page.
i=0 # an engine that is slow to answer is shown without its own part
while weft status > "$dir/status" && grep -q '^    engine  *null' "$dir/status" && [ $i -lt 60 ]; do i=$((i + 1)); done
awk '/^    engine$/ { own = 1; next } /^ ? ? ? ?[^ ]/ { own = 0 } { sub(/^ */, ""); print (own ? "engine " : "weftd ") $1 }' \
	"$dir/status" | grep -v ' [0-9]*$' | sort -u > "$dir/keys"
for page in weftd weft-engine; do
	sed -n '/^\.SH STATUS/,/^\.SH [^S]/s/^\.[BIR][BIR]* //p' "$src/man/$page.8" | sed 's/\\-/-/g' | tr -cs 'a-z0-9_\n-' '\n' |
		sed "s/^/${page#weft-} /"
done | sort -u > "$dir/explained"
comm -23 "$dir/keys" "$dir/explained" > "$dir/unexplained"
is "$(tr '\n' ' ' < "$dir/unexplained")" "" "the pages explain every key of the status"
[ "$(grep -c '^engine' "$dir/keys")" -gt 50 ] && [ "$(grep -c '^weftd' "$dir/keys")" -gt 40 ]
check $? "of which there are $(wc -l < "$dir/keys")"
expect 1 'no adapter' weft adapter info nobody
is "$(run --adapter off 1 2 3 4)" "$(run 1 2 3 4)" "without an invocation: the base model's answer"
expect 1 "$dir/run/adapter_config.json: No such" weft adapter load bad "$dir/run"
expect 1 'No such file' weft adapter load bad "$dir/nowhere"
cp -r "$dir/a1" "$dir/cut"
head -c 100 "$dir/a1/adapter_model.safetensors" > "$dir/cut/adapter_model.safetensors"
expect 1 'safetensors' weft adapter load bad "$dir/cut"
sed -i 's/"r": *8/"r": 8, "use_dora": true/' "$dir/cut/adapter_config.json"
expect 1 'use_dora' weft adapter load bad "$dir/cut"

# A prefix of four blocks and a tail stays although everything else is forgotten.
seq -s, 1 70 > "$dir/prefix"
expect 0 'pin 1: 70 of 70' weft cache pin --public --file "$dir/prefix"
expect 0 '(public) *pinned *70 *70' weft cache pins
cached() { weft run --tokens -t 1 --json "$@" | sed 's/.*"cached_tokens":\([0-9]*\).*/\1/'; }
is "$(cached $(seq 1 64) 90 91)" 64 "a request finds the pinned prefix"
cached $(seq 101 150) > /dev/null
is "$(cached $(seq 101 150))" 49 "and what an earlier one left"
expect 2 'say what: --tenant NAME, --public or --all' weft cache drop
expect 2 'say what' weft cache drop --public --tenant default
is "$(cached $(seq 101 150))" 49 "which drops nothing"
expect 0 '^tiny, (public): [0-9]* blocks freed$' weft cache drop --public
is "$(cached $(seq 101 150))" 49 "nor does a drop of what is public touch a tenant's"
expect 0 '^tiny, default: [1-9][0-9]* blocks freed$' weft cache drop --tenant default
is "$(cached $(seq 101 150))" 0 "that of the tenant does"
expect 0 '^tiny, (all): [1-9][0-9]* blocks freed$' weft cache drop --all
is "$(cached $(seq 1 64) 90 91)" 64 "after a drop the pin is there"
is "$(cached $(seq 101 150))" 0 "and the rest is not"
expect 0 'pins *1' weft cache stat
expect 0 '"pinned":5' weft cache stat --json

# All of it again, in the next engine.
pid=$(weft status --json | sed 's/.*"engines":\[{[^}]*"pid":\([0-9]*\).*/\1/')
kill -9 "$pid"
is "$(run --adapter one $prompt)" "$one" "the next engine serves the adapter with the same answer"
is "$(run --adapter from-file $prompt)" "$plain" "and that of the configuration"
i=0
while ! weft cache pins | grep -q 'pinned  *70' && [ $i -lt 600 ]; do sleep 0.05; i=$((i + 1)); done
is "$(cached $(seq 1 64) 90 91)" 64 "and has the pin"
expect 0 'pin 1 is released' weft cache unpin 1
expect 1 'no pin' weft cache unpin 1
weft cache drop --all > /dev/null
is "$(cached $(seq 1 64) 90 91)" 0 "unpinned and dropped, it is gone"

expect 0 'one is unloaded' weft adapter unload one --wait 10
expect 1 'adapter' weft run --tokens --adapter one $prompt
is "$(state one)" "" "it is off the list"
printf '[model tiny]\npath = %s\nkv_bytes = 4M\n' "$model" > "$dir/weftd.conf"
kill -HUP "$daemon"
await from-file ""
expect 2 'name' weft adapter load x
expect 2 'name the adapter' weft adapter unload
expect 2 'give it tokens' weft cache pin
expect 1 'not a token id' weft cache pin 1 x
printf "1 2\n3,x\n" > "$dir/bad"
expect 1 "\"x\" in .* is not a token id" weft cache pin --file "$dir/bad"
expect 1 "both as arguments" weft cache pin --file "$dir/prefix" 1
expect 1 "both as arguments" weft cache pin --file - 1
expect 2 'by its number' weft cache unpin x
expect 1 'no tenant' weft cache drop --tenant nobody

# What a weftd remembers and cannot load; what it loads and cannot write down; and what is in neither's path.
kill "$daemon"
wait "$daemon"
entry() { printf '{"model":"%s","name":"%s","path":"%s","activation_offset":0,"on_missing_invocation":"error"}' "$@"; }
state=$dir/run/state/adapters.json
broken='/no\nwhere\u001b[2J'
{
	printf '{"adapters":[' && entry tiny lost "$broken" && printf ,
	entry former old /x && printf , && entry older old /x && printf , && entry older other /x && printf ']}'
} > "$state"
rm -r "$dir/log"
weftd --foreground --runtime-dir "$dir/run" --config "$dir/weftd.conf" > "$dir/log" 2>&1 &
daemon=$!
i=0
while ! grep -qs event=serving "$dir/log" && [ $i -lt 600 ]; do sleep 0.1; i=$((i + 1)); done
await lost failed
weft adapter list > "$dir/list"
is "$(wc -l < "$dir/list")" 5 "a path with a newline takes one line of the list"
grep -q 'no?where?\[2J' "$dir/list"
check $? "without what a terminal would obey"
is "$(weft adapter info lost | wc -l)" "$(weft adapter info lost --json | grep -o '"[a-z_]*":' | wc -l)" \
	"and one of what is known of it"
is "$(grep -c '^old .* skipped *loaded .*its model is served no more' "$dir/list")" 2 "what is remembered is listed"
expect 1 'name one' weft adapter unload old
expect 0 'old was not loaded; it is dropped' weft adapter unload old --model former
is "$(grep -c '"name":"old"' "$state"; grep -o former "$state")" 1 "from the file"
expect 2 'a name, or --skipped' weft adapter unload --skipped old
expect 0 '^2 skipped adapters are dropped' weft adapter unload --skipped
expect 0 'lost is unloaded' weft adapter unload lost
is "$(cat "$state")" '{"adapters":[]}' "which leaves nothing"
mkdir "$state.new" # as good as a full disk
expect 0 '^weft: warning: adapters.json .* could not be written (File exists)' weft adapter load one "$dir/a1"
expect 0 '"warning":"adapters.json' weft adapter load two "$dir/a1" --json
weft adapter list | grep -q '^one .* unsaved '
check $? "the list says what a restart would forget"
expect 0 'weft: warning: .*written' weft adapter unload two
rmdir "$state.new"
weft adapter unload two > /dev/null 2>&1
weft adapter load two "$dir/a1" > "$dir/out" 2>&1
is "$(grep -c warning "$dir/out"; weft adapter list | grep -c unsaved)" "0
0" "what was not written is, with the next change"

mkdir "$dir/run/state/pin-1.json.new"
expect 0 'weft: warning: it will not outlive weftd: File exists' weft cache pin --public 1 2 3
expect 0 'pin 2' weft cache pin --public 4 5 6
rm "$dir/run/state/pin-2.json" && mkdir "$dir/run/state/pin-2.json"
expect 0 'weft: warning: its file .* could not be removed (Is a directory)' weft cache unpin 2

mkdir "$dir/no
where"
weft adapter load bad "$dir/no
where" 2> "$dir/err"
is "$?, $(wc -l < "$dir/err")" "1, 1" "an error takes one line, whatever is named in it"
for c in "adapter load" "adapter unload" "adapter list" "cache stat" "cache pin" "cache unpin" "cache pins" "cache drop"; do
	weft $c --help | grep -q "^usage: weft $c" && [ -n "$(weft $c --complete)" ]
	check $? "$c explains and completes itself"
done
[ $failed = 0 ] || sed 's/^/# /' "$dir/log"
echo "1..$n"
exit $failed
