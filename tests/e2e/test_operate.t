#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What an administrator does with a daemon that runs: watch it (weft top), see who is served (weft tenant), change its
# configuration (weft reload), start an engine again under a request (weft restart), and end it (weft drain).
. "${WEFT_SRC:-.}/tests/e2e/shell.sh"
model=$src/tests/data/models/llama
umask 022
chmod 755 "$dir"
weft adapter make --model "$model" -r 8 --seed 1 -i 5,6 "$dir/a1" > "$dir/out"
check $? "an adapter is made"
printf '[model tiny]\npath = %s\nkv_bytes = 4M\n[adapter a1]\nmodel = tiny\npath = %s/a1\n[model desk]\npath = %s\n' "$model" "$dir" \
	"$src/tests/data/demo/base" > "$dir/weftd.conf"
serve 755
i=0
while ! weft adapter list | grep -q 'a1.*loaded' && [ $i -lt 600 ]; do sleep 0.05; i=$((i + 1)); done
run() { weft run -m tiny --tokens --ignore-eos "$@" > "$dir/answer" 2>&1; }
# Some tenths of a second of work.
under_way() { while kill -0 $long 2> "$dir/err" && ! weft tenant list | grep -q ' 1/1024 '; do :; done; }
long() { exec weft run -m desk --tokens --ignore-eos -t 4000 --temperature 1 --seed 5 10 20 30; }

# Two looks (the second comes at once when the terminal changes its size), and between them 8 tokens of prompt of which
# nothing is known, 8 of which 7 are, and 8 of an adapter, which finds the 4 before its invocation.
first_look() { # an engine that was slow to answer has none
	weft top -n 2 -i 600 > "$dir/top" &
	watching=$!
	i=0
	while ! grep -q '^model *adapter' "$dir/top" && [ $i -lt 600 ]; do sleep 0.05; i=$((i + 1)); done
	grep -q '(base)' "$dir/top"
}
tries=0
while ! first_look && [ $tries -lt 20 ]; do kill "$watching"; wait "$watching"; tries=$((tries + 1)); done
is "$(awk '$2 == "ready" { print $5, $6, $7, $9; exit }' "$dir/top")" "- - - -" "the first picture has nothing to compare with"
run -t 5 1 2 3 4 5 6 7 8 && run -t 5 1 2 3 4 5 6 7 8 && run -t 5 --adapter a1 1 2 3 4 5 6 7 8
check $? "three requests"
while kill -WINCH "$watching" 2> "$dir/err"; do sleep 0.05; done
wait "$watching"
check $? "top ends after as many pictures as it was told"
sed -i '1,/^weft .* crashed/d' "$dir/top" # the second one
word() { awk -v a="$1" -v b="$2" -v n="$3" '$1 == a && (b == "" || $2 == b) { print $n; exit }' "$dir/top"; }
is "$(word tiny ready 6)" "46%" "11 of 24 tokens were cached, says the model's line"
is "$(word tiny '(base)' 6)" "44%" "7 of 16, the base model's"
is "$(word tiny a1 6)" "50%" "4 of 8, the adapter's"
is "$(word tiny default 6)" "46%" "and the tenant's is as the model's"
awk '$1 != "tiny" { next } $2 == "(base)" { b = $7 } $2 == "a1" { a = $7 } $2 == "default" { t = $7 } END { exit !(a > 0 && b > 1.9 * a && b < 2.1 * a && t > 2.9 * a && t < 3.1 * a) }' "$dir/top"
check $? "the base model made twice the tokens of the adapter, the tenant all"
awk '$2 == "ready" { exit !($9 > 0 && $9 <= $10 && $11 > 0 && $11 <= $12) }' "$dir/top"
check $? "half of the times are below the median, more below the 99th percentile"
weft top -n 3 -i 0.1 > "$dir/top"
is "$(grep -c '^tiny *ready .* 0\.0 *0% *0\.0 *0\.0 *- *- *- *- ' "$dir/top")" 2 "a quiet daemon: nothing, twice"
grep -q "$(printf '\033')" "$dir/top"
[ $? = 1 ]
check $? "and nothing for a terminal where there is none"
expect 2 'from 0.1' weft top -i 0

weft tenant list > "$dir/out"
is "$(awk '$1 == "default" { print $4, $5, $6, $7, $8, $9, $10 }' "$dir/out")" "0/1024 0 3 0 24 11 15" "the tenant's account"
expect 0 '"tokens_out":15' weft tenant list --json
want=$(long | cksum)
long > "$dir/long" &
long=$!
session=
while [ -z "$session" ] && kill -0 $long 2> "$dir/err"; do
	session=$(weft tenant sessions | awk -v p=$long '$5 == p { print $2, $3, $4 }')
done
is "${session:-default desk $(id -u)}" "default desk $(id -u)" "its session is listed with its user, if it was not over sooner"
wait $long

# Under a request: its answer is the same.
long > "$dir/long" &
long=$!
under_way
expect 0 'starts again' weft restart desk
wait $long
is "$? $(cksum < "$dir/long")" "0 $want" "a request goes on where it was"
expect 1 'no model "nobody" is served' weft restart nobody
weft top -n 2 -i 0.1 > "$dir/top"
grep -q -- ' -[0-9]' "$dir/top"
[ $? = 1 ]
check $? "an engine that counts anew does nothing less than nothing"

printf '[tenant guests]\nuid = %s\nweight = 7\n' "$(id -u)" >> "$dir/weftd.conf"
expect 0 'tenants' weft reload
weft tenant list > "$dir/out"
is "$(awk '$1 == "guests" { print $2 }' "$dir/out")" 7 "a new tenant, after a reload"
echo 'wieght = 7' >> "$dir/weftd.conf"
expect 1 'wieght' weft reload
is "$(wc -l < "$dir/err")" 1 "a mistake is one line"
expect 0 '^guests' weft tenant list

expect 2 'seconds' weft drain -s x
expect 1 'from 0 to 3600' weft drain -s 4000
expect 2 'seconds' weft drain -s -1
long > "$dir/long" 2> "$dir/err" &
long=$!
under_way
expect 0 'finishes' weft drain -s 30
wait $long
is "$? $(cksum < "$dir/long")" "0 $want" "what was under way is finished"
[ $failed = 0 ] || sed "s/^/# /" "$dir/err"
wait "$daemon"
is $? 0 "and the daemon has ended"
daemon=
expect 1 'is weftd running' weft top -n 1
expect 1 'is weftd running' weft tenant list
echo "1..$n"
exit $failed
