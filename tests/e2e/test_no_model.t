#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# weftd as packages install it has no model yet: it serves all the same, says what is missing, and
# refuses clients and adapters for that reason.
. "${WEFT_SRC:-.}/tests/e2e/shell.sh"

printf '[daemon]\nengine_user = root\n' > "$dir/weftd.conf"
expect 0 'no \[model NAME\] section' weftd --check --config "$dir/weftd.conf"
expect 0 'no \[model NAME\] section' weftd --check --config "$src/packaging/weftd-first.conf"
serve 755
grep -q 'event=no-model.*\[model NAME\]' "$dir/log"
check $? "the log says what is missing"
expect 0 '^nobody is served' weft status
expect 0 '"engines":\[\]' weft status --json
expect 1 'no model is served' weft run --tokens 1 2 3
expect 1 'no model is served' weft run -m m --tokens 1 2 3
expect 1 'no model is served' weft adapter load a "$dir"
expect 1 'no model is served' weft cache pin --public 1 2 3
expect 1 'no model "m" is served' weft adapter load a "$dir" --model m
expect 0 '' weft model list
expect 0 '' weft adapter list
printf '[model m]\npath = %s\n' "$src/tests/data/models/llama" >> "$dir/weftd.conf"
kill -HUP "$daemon"
i=0
while ! grep -q event=reload "$dir/log" && [ $i -lt 600 ]; do sleep 0.1; i=$((i + 1)); done
grep -q 'model m is new: it is served after a restart' "$dir/log"
check $? "a reload says that a model takes a restart"
expect 1 'no model is served' weft run --tokens 1 2 3
kill -0 "$daemon"
check $? "weftd is there"
kill "$daemon"
wait "$daemon"
is $? 0 "and ends when told to"
daemon=
echo "1..$n"
exit $failed
