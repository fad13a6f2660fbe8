#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# weft metrics: after requests that are counted by hand, what Prometheus would read; as a file, over one HTTP
# connection, and where there is no daemon.
. "${WEFT_SRC:-.}/tests/e2e/shell.sh"
model=$src/tests/data/models/llama
umask 022
chmod 755 "$dir"
weft adapter make --model "$model" -r 8 --seed 1 -i 5,6 "$dir/a1" > "$dir/out"
check $? "an adapter is made"
printf '[model tiny]\npath = %s\nkv_bytes = 4M\n[adapter a1]\npath = %s/a1\n' "$model" "$dir" > "$dir/weftd.conf"
serve 755
i=0
while ! weft adapter list | grep -q 'a1.*loaded' && [ $i -lt 600 ]; do sleep 0.05; i=$((i + 1)); done

scrape() { # the engine of the moment has answered
	i=0
	while weft metrics > "$dir/m" && grep -q '^weft_engine_up{model="tiny"} 0' "$dir/m" && [ $i -lt 60 ]; do i=$((i + 1)); done
}
value() { grep -F "$1 " "$dir/m" | sed 's/.* //'; } # METRIC{LABELS}
counts() { # METRIC{LABELS} WANT NAME
	is "$(value "$1")" "$2" "$3"
}

scrape
counts 'weft_generated_tokens_total{model="tiny",adapter=""}' 0 "nothing has been made yet"
counts 'weft_time_to_first_token_seconds_count{model="tiny"}' 0 "and nothing timed"
counts 'weft_requests_ended_total{model="tiny",status="ok"}' 0 "nothing has ended"
is "$(grep -c '^weft_requests_ended_total' "$dir/m")" 19 "each way to end has its line, in which it is 0"

run() { weft run --tokens --ignore-eos "$@" > "$dir/out" 2>&1; }
# Three of the base: 8 + 8 + 20 tokens of prompt, 12 + 5 + 5 of answers. The second finds its first seven.
run -t 12 1 2 3 4 5 6 7 8 && run -t 5 1 2 3 4 5 6 7 8 && run -t 5 $(seq 40 59)
check $? "three requests of the base model"
# One of the adapter, two answers: 8 tokens, of which four come before its invocation; 2 * 6.
run -t 6 -n 2 --adapter a1 1 2 3 4 5 6 7 8
check $? "one of an adapter, with two answers"
run -t 5 --adapter nobody 1 2 3
[ $? = 1 ]
check $? "one that is refused"
run -t 999999 1 2 3
[ $? = 1 ]
check $? "and another"
first=$(weft run --tokens --ignore-eos -t 3 9 8 7 | tr ' ' '\n' | head -n 1)
run -t 30 --stop-token "$first" 9 8 7
check $? "two more, of which one meets its stop token at once"
scrape

counts 'weft_requests_total{model="tiny",adapter=""}' 5 "requests of the base model"
counts 'weft_requests_total{model="tiny",adapter="a1"}' 1 "and of the adapter"
counts 'weft_prompt_tokens_total{model="tiny",adapter=""}' 42 "8 + 8 + 20 + 3 + 3 tokens of prompts"
counts 'weft_prompt_tokens_total{model="tiny",adapter="a1"}' 8 "8 of the adapter's"
counts 'weft_prompt_tokens_cached_total{model="tiny",adapter=""}' 9 "all but the last of 8, and of 3, were found"
counts 'weft_prompt_tokens_cached_total{model="tiny",adapter="a1"}' 4 "and of the adapter's those before its invocation"
counts 'weft_generated_tokens_total{model="tiny",adapter=""}' 26 "12 + 5 + 5 + 3 + 1 tokens made"
counts 'weft_generated_tokens_total{model="tiny",adapter="a1"}' 12 "and 2 * 6"
counts 'weft_requests_ended_total{model="tiny",status="ok"}' 6 "requests that ended well"
counts 'weft_requests_ended_total{model="tiny",status="no-adapter"}' 1 "one had no adapter"
counts 'weft_requests_ended_total{model="tiny",status="too-long"}' 1 "one was too long"
counts 'weft_requests_refused_total{model="tiny"}' 2 "both were refused"
counts 'weft_answers_finished_total{model="tiny",reason="length"}' 6 "answers that ended by their length"
counts 'weft_answers_finished_total{model="tiny",reason="stop-token"}' 1 "and by the stop token"
counts 'weft_requests_abandoned_total{model="tiny"}' 0 "nobody left"
counts 'weft_requests_in_flight{model="tiny"}' 0 "nothing is under way"
counts 'weft_adapter_resident{model="tiny",adapter="a1"}' 1 "the adapter is in the pool"
counts 'weft_request_queue_seconds_count{model="tiny"}' 6 "each request waited once"
counts 'weft_time_to_first_token_seconds_count{model="tiny"}' 6 "had one first token"
counts 'weft_request_seconds_count{model="tiny"}' 6 "and one end"
counts 'weft_inter_token_seconds_count{model="tiny"}' 31 "38 tokens of 7 answers: 31 gaps"
counts 'weft_request_prompt_tokens_sum{model="tiny"}' 50 "prompts were 50 tokens long together"
counts 'weft_request_prompt_tokens_bucket{model="tiny",le="4"}' 2 "two of at most 4"
counts 'weft_request_prompt_tokens_bucket{model="tiny",le="8"}' 5 "five of at most 8"
counts 'weft_request_prompt_tokens_bucket{model="tiny",le="+Inf"}' 6 "six in all"
counts 'weft_request_generated_tokens_sum{model="tiny"}' 38 "answers 38"
counts 'vllm:generation_tokens_total{model_name="tiny"}' 38 "the same by vLLM's name"
counts 'vllm:prompt_tokens_total{model_name="tiny"}' 50 "prompts, too"
counts 'vllm:prefix_cache_hits_total{model_name="tiny"}' 13 "what was found"
counts 'vllm:request_success_total{model_name="tiny",finished_reason="stop"}' 1 "one stopped"
counts 'vllm:request_success_total{model_name="tiny",finished_reason="length"}' 6 "six were cut"
counts 'vllm:time_to_first_token_seconds_count{model_name="tiny"}' 6 "the same times"
grep -q '^weft_tenant_generated_tokens_total{model="tiny",tenant=".*"} 38$' "$dir/m"
check $? "all of it was one tenant's"

# The format: a family's lines stand together behind its HELP and TYPE, no series comes twice, buckets grow, the last
# is the count, and the names are of their kinds.
cat > "$dir/format.awk" << 'EOF'
function bad(why) { print why ": " $0; failed = 1 }
/^# HELP / { if ($3 in seen) bad("a family twice"); seen[$3] = 1; now = $3; next }
/^# TYPE / { if ($3 != now) bad("TYPE without HELP"); type = $4; if ((type == "counter") != (now ~ /_total$/) && type != "histogram") bad("a name of another kind"); next }
/^#/ { bad("a comment"); next }
{
	name = $0; sub(/[{ ].*/, "", name); base = name
	if (type == "histogram") sub(/_(bucket|sum|count)$/, "", base)
	if (base != now) bad("out of its family")
	series = $0; sub(/ [^ ]*$/, "", series)
	if (series in once) bad("twice"); once[series] = 1
	if ($NF !~ /^[0-9.e+-]+$/) bad("no number")
	if (name ~ /_bucket$/) { if ($NF + 0 < last + 0) bad("buckets shrink"); last = $NF; if (series ~ /\+Inf/) { inf = $NF } }
	if (name ~ /_count$/ && type == "histogram") { if ($NF != inf) bad("the last bucket is not the count"); last = 0 }
}
END { exit failed }
EOF
awk -f "$dir/format.awk" "$dir/m" > "$dir/out"
check $? "the format is right $(head -n 1 "$dir/out")"
[ "$(grep -c '^# TYPE' "$dir/m")" -gt 80 ]
check $? "there are $(grep -c '^# TYPE' "$dir/m") families"
sed 's/^weft_blocks{/weft_blocks_available{/' "$dir/m" | awk -f "$dir/format.awk" > "$dir/out"
[ $? = 1 ]
check $? "a line out of its place would have been seen"

# A file: as a whole.
weft metrics -o "$dir/weft.prom" && grep -q '^weft_info' "$dir/weft.prom"
check $? "the same into a file"
[ "$(ls "$dir" | grep -c weft.prom)" = 1 ]
check $? "and nothing beside it"
mkfifo "$dir/pipe" && { cat "$dir/pipe" > "$dir/piped" & } && weft metrics -o "$dir/pipe" && wait $! && [ -p "$dir/pipe" ] &&
	grep -q '^weft_info' "$dir/piped"
check $? "a pipe is written to, and stays one"
weft metrics -o "$dir/none/weft.prom" > "$dir/out" 2> "$dir/err"
[ $? = 1 ] && grep -q "write $dir/none/weft.prom: No such file" "$dir/err" && [ "$(wc -l < "$dir/err")" = 1 ]
check $? "one line where it cannot be written: $(cat "$dir/err")"

# One HTTP connection.
ask() { printf "$1" | weft metrics --http > "$dir/http" 2> "$dir/err"; }
body() { sed '1,/^\r*$/d' "$dir/http"; }
ask 'GET /metrics HTTP/1.1\r\nHost: here\r\nAccept: */*\r\n\r\n' && head -n 1 "$dir/http" | grep -q '^HTTP/1.1 200 OK' &&
	body | awk -f "$dir/format.awk"
check $? "a scrape is answered"
is "$(tr -d '\r' < "$dir/http" | sed -n 's/^Content-Length: //p')" "$(body | wc -c)" "with as many bytes as it says"
ask 'HEAD /metrics?x=1 HTTP/1.1\r\n\r\n' && grep -q '^HTTP/1.1 200' "$dir/http" && [ -z "$(body)" ]
check $? "HEAD: without the text"
ask 'GET /metricsandmore HTTP/1.1\r\n\r\n' && head -n 1 "$dir/http" | grep -q ' 404 '
check $? "another path is not found"
ask 'POST /metrics HTTP/1.1\r\n\r\n' && head -n 1 "$dir/http" | grep -q ' 405 '
check $? "and another method not allowed"
ask 'GET /metrics HTTP/1.1\r\n'
[ $? = 1 ] && head -n 1 "$dir/http" | grep -q ' 400 ' && grep -q 'no HTTP request' "$dir/err"
check $? "half a request is a bad one"
head -c 20000 /dev/zero | tr '\0' a | weft metrics --http > "$dir/http" 2> "$dir/err"
[ $? = 1 ] && head -n 1 "$dir/http" | grep -q ' 400 '
check $? "so is one without an end"

# A daemon that stands still, and none.
kill -STOP "$daemon"
ask 'GET /metrics HTTP/1.1\r\n\r\n' & asked=$!
sleep 0.2
kill -CONT "$daemon"
wait $asked
head -n 1 "$dir/http" | grep -q ' 200 '
check $? "a scrape waits for a daemon that was held up"
kill "$daemon"
wait "$daemon"
daemon=
cp "$dir/weft.prom" "$dir/before"
weft metrics -o "$dir/weft.prom" > "$dir/out" 2> "$dir/err"
[ $? = 1 ] && cmp -s "$dir/before" "$dir/weft.prom" && grep -q 'is weftd running' "$dir/err"
check $? "without a daemon: one line, and the file stays"
ask 'GET /metrics HTTP/1.1\r\n\r\n'
head -n 1 "$dir/http" | grep -q ' 503 '
check $? "a scrape then is answered with 503"
echo "1..$n"
exit $failed
