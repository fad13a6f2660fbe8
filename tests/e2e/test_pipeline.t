#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# weft bench pipeline against a real daemon with real adapters: every pipeline and arm is measured,
# and each arm reuses exactly what the design promises, to the token. The numbers expected here are
# counted by hand from the lengths.
. "${WEFT_SRC:-.}/tests/e2e/shell.sh"
if ! command -v python3 > /dev/null; then
	echo "1..0 # SKIP no python3"
	exit 0
fi

weft model make --quiet --shape tiny --seed 3 "$dir/model" || exit 1
printf '[daemon]\nengine_user = root\n[model tiny]\npath = %s\n' "$dir/model" > "$dir/weftd.conf"
for i in 1 2 3 4 5; do
	weft adapter make --model "$dir/model" --rank 8 --seed $i --invocation 7,$((20 + i)),9 \
		"$dir/a$i" > /dev/null || exit 1
	weft adapter make --model "$dir/model" --rank 4 --seed $((10 + i)) "$dir/l$i" > /dev/null || exit 1
	printf '[adapter a%d]\npath = %s\n[adapter l%d]\npath = %s\n' \
		$i "$dir/a$i" $i "$dir/l$i" >> "$dir/weftd.conf"
done
serve 700

weft bench pipeline --full --prompts 40,101 --generate 24 --tokens 4 --adapter-tokens 6 --prompt 35 \
	--generations 16,33 --rates 40 --requests 6 --reps 2 --svg "$dir/a.svg" --json \
	> "$dir/out" 2> "$dir/err"
check $? "all pipelines, all arms ($(head -n 1 "$dir/err"))"
[ $failed = 0 ] || sed 's/^/# /' "$dir/log"

is "$(grep -c '^weft: bench pipeline: [a-z-]*, [a-z]* [0-9]*, [a-z-]* (2 repetitions)$\|^weft: bench pipeline: async, rate 40, [a-z-]*$' "$dir/err")" 30 \
	"elsewhere than on a terminal a line for each arm of each length and rate"

cat > "$dir/verify.py" <<'CODE'
import json, sys
rows = {r["name"]: r for r in json.load(open(sys.argv[1]))}
bad = []
need = {"name", "value", "unit", "target", "spread", "pass"}
bad += [n for n, r in rows.items() if set(r) != need or r["value"] is None]
INV, TOKENS, ADAPTER, GEN, PROMPT = 3, 4, 6, 24, 35

def cached(point, arm, low, length, high=None, step=""):
    r = rows.get(f"pipeline: {point}, {arm}{step}: cached")
    high = low if high is None else high
    eps = 1e-6
    if not r or r["spread"][0] < 100 * low / length - eps or r["spread"][1] > 100 * high / length + eps:
        bad.append(f"{point}, {arm}{step}: {r and [v * length / 100 for v in r['spread']]} tokens "
                   f"cached, not {low}..{high} of {length}")

def timed(point, arms, step=""):
    for arm in arms:
        v = {}
        for what in ("queue", "prefill", "decode", "TTFT", "E2E"):
            r = rows.get(f"pipeline: {point}, {arm}{step}: {what}")
            if not r or r["unit"] != "ms" or not r["spread"][0] <= r["value"] <= r["spread"][1]:
                bad.append(f"{point}, {arm}{step}: {what}")
            else:
                v[what] = r["value"]
        if len(v) == 5 and not 0 < v["TTFT"] < v["E2E"]:
            bad.append(f"{point}, {arm}{step}: stages {v}")

ARMS = ("alora", "lora-cold", "lora-warm", "base-recompute")

def base_adapter(point, prompt, gen):
    length = prompt + gen + INV
    timed(point, ARMS)
    cached(point, "alora", prompt + gen - 1, length)  # the answer's last token has no KV
    cached(point, "lora-cold", 0, length)
    cached(point, "lora-warm", length - 1, length)
    cached(point, "base-recompute", 0, length)
    for what in ("TTFT", "E2E"):
        r = rows.get(f"pipeline: {point}, lora-cold against alora: {what}")
        if not r or r["unit"] != "x":
            bad.append(f"{point}: no speed-up of {what}")

for p in (40, 101):
    base_adapter(f"base-adapter, prompt {p}", p, GEN)
    point, length = f"adapter-base, prompt {p}", p + INV + GEN
    timed(point, ARMS)
    cached(point, "alora", p, length)  # up to the invocation
    cached(point, "lora-cold", 0, length)
    cached(point, "lora-warm", length - 1, length)
    cached(point, "base-recompute", 0, length)
    point, length = f"parallel, prompt {p}", p + GEN + INV
    after = p + GEN + 5 * (INV + ADAPTER)
    for step in ("", ", base after"):
        timed(point, ARMS + ("alora-serial",), step)
    # The first of the five computes the answer's last token; the others may come after that.
    for arm in ("alora", "alora-serial"):
        cached(point, arm, p + GEN - 1, length, p + GEN)
        cached(point, arm, p + GEN, after, step=", base after")
    cached(point, "lora-cold", 0, length)
    cached(point, "lora-cold", p + GEN - 1, after, step=", base after")
    cached(point, "lora-warm", length - 1, length)
    cached(point, "lora-warm", after - 1, after, step=", base after")
    cached(point, "base-recompute", 0, length)
    cached(point, "base-recompute", 0, after, step=", base after")
    for who in ("alora", "alora-serial", "lora-cold", "alora against alora-serial"):
        if f"pipeline: {point}, {who}: wall" not in rows:
            bad.append(f"{point}: no wall time of {who}")
for g in (16, 33):
    base_adapter(f"generation, generated {g}", PROMPT, g)
base_adapter("async, rate 40", PROMPT, GEN)
print("\n".join("# " + b for b in bad))
sys.exit(bool(bad))
CODE
python3 "$dir/verify.py" "$dir/out"
check $? "every figure is there, and each arm reused exactly what it should"

python3 - "$dir/a.svg" <<'CODE'
import sys, xml.etree.ElementTree as E
root = E.parse(sys.argv[1]).getroot()
ns = "{http://www.w3.org/2000/svg}"
lines = root.findall(ns + "polyline")
titles = [t.text for t in root.findall(ns + "text")]
# Two plots of lines a pipeline: four arms, five of the parallel one.
good = (root.tag == ns + "svg" and len(lines) == 4 * 2 * 4 + 2 * 5
        and "base -> adapter: TTFT" in titles and "lora-warm" in titles
        and all(l.get("points").strip() for l in lines))
sys.exit(not good)
CODE
check $? "the picture is well-formed and has its lines"

# Repetitions that share a first call: the second adapter finds the answer's last token too, which
# the first one computed; plain adapters still find nothing.
weft bench pipeline --pipelines base-adapter --arms alora,lora-cold --prompts 50 -g 8 --reps 2 --share 2 \
	--json > "$dir/out"
python3 -c "
import json
r = {r['name']: r for r in json.load(open('$dir/out'))}
alora = r['pipeline: base-adapter, prompt 50, alora: cached']['spread']
assert [round(v * 61 / 100, 3) for v in alora] == [57, 58], alora
assert r['pipeline: base-adapter, prompt 50, lora-cold: cached']['spread'] == [0, 0]"
check $? "repetitions that share a first call"

weft bench pipeline --pipelines parallel --arms alora,alora-serial --prompts 40 -g 8 --reps 1 > "$dir/out"
check $? "a table"
[ "$(grep -c '^ *40  alora' "$dir/out")" = 4 ]
check $? "with a line for each arm and step"
grep -q "^Timed: the five adapters, in ms; measured once$" "$dir/out" && grep -q "^Timed: the base model's call after them" "$dir/out"
check $? "a table each for the five and for what follows"
grep -q '^alora-serial  ' "$dir/out" && ! grep -q '^lora-cold' "$dir/out" && [ "$(awk '{ if (length > m) m = length } END { print m }' "$dir/out")" -le 100 ]
check $? "the words it uses are explained, in lines of 100 characters at the most"
weft bench pipeline --full --pipelines base-adapter --arms alora -g 8 --reps 1 > "$dir/out"
check $? "the published lengths"
[ "$(grep -c '  alora ' "$dir/out")" = 1 ] && grep -q '^ *1024  alora' "$dir/out"
check $? "of which those are taken that the model takes"
weft bench pipeline --arms alora --reps 1 -t 4 > "$dir/out" 2> "$dir/err"
check $? "the defaults"
is "$(grep -o '^weft: bench pipeline: .*' "$dir/err" | cut -d, -f1-2 | cut -c23- | tr '\n' ';')" \
	"base-adapter, prompt 512;parallel, prompt 512;" "are two pipelines and a length"

expect_error 2 'not a valid' weft bench pipeline --arms alora,other
expect_error 2 'not a valid' weft bench pipeline --pipelines none
expect_error 2 'not a valid' weft bench pipeline --rates 1,-1
expect_error 1 'positions' weft bench pipeline --prompts 4096
expect_error 1 'cannot share' weft bench pipeline --share 6
expect_error 1 'begin at 1' weft bench pipeline --reps 0
expect_error 1 'cannot\|No such\|write' weft bench pipeline --pipelines generation --generations 4 \
	--reps 1 --arms alora --svg "$dir/none/a.svg"

weft bench adapters --batch 10 --context 32 --tokens 8 --prompt 64 --reps 2 --json > "$dir/out"
check $? "bench adapters"
python3 -c "
import json
rows = json.load(open('$dir/out'))
assert [r for r in rows if '5 adapters' in r['name']] and len(rows) == 6"
check $? "all plain adapters take part"
weft bench probe --prompt 500 --probes 5 --json > "$dir/out" 2> "$dir/err"
is "$(grep -c "\[" "$dir/err")" 0 "bench probe draws nothing where there is no terminal"
python3 -c "
import json
r = {r['name']: r for r in json.load(open('$dir/out'))}
assert r['probe: system calls made']['pass'] and 484 <= r['probe: tokens found cached']['value'] < 500
assert r['probe: a cached prompt of 500 tokens']['value'] > 0"
check $? "bench probe: the prompt is found, without a system call"
positions=$(python3 -c "import json; print(json.load(open('$dir/model/config.json'))['max_position_embeddings'])")
weft bench probe --probes 5 > "$dir/out"
check $? "bench probe asks no more than the model can take"
grep -q "a cached prompt of $((positions - 1)) tokens" "$dir/out"
check $? "all but one of $positions positions"
weft bench probe --prompt "$positions" > "$dir/out" 2>&1
is "$?: $(cat "$dir/out")" "1: weft: bench probe: a prompt of $positions tokens: the model has $positions positions, which leaves $((positions - 1)) for it (--prompt)" \
	"unless it is told to"
weft bench probe --model other 2>&1 | grep -q '^weft: .*other'
check $? "and speaks for itself when something fails"
for i in 2 3 4 5; do weft adapter unload a$i > /dev/null; done
weft bench pipeline --pipelines parallel --arms alora --prompts 40 -g 8 --reps 1 > "$dir/out" 2> "$dir/err"
is "$(grep only "$dir/err")" 'weft: bench pipeline: "parallel" makes 5 calls at once, but only 1 activated adapter is loaded: calls share it' \
	"fewer than five adapters"
for c in pipeline adapters probe; do
	weft bench $c --help | grep -q "^usage: weft bench $c" && [ -n "$(weft bench $c --complete)" ]
	check $? "bench $c explains and completes itself"
done
echo "1..$n"
exit $failed
