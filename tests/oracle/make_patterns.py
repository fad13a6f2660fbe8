#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""make_patterns.py - which names of modules Python's re says that patterns match.

    tests/oracle/make_patterns.py

writes tests/data/adapters/patterns.json: "names", and "patterns": [pattern, whole, suffix], where
`whole` and `suffix` are one letter per name, 1 or 0: re.fullmatch(pattern, name), as peft asks for a
target_modules that is a string, and re.match(rf"(.*\\.)?({pattern})$", name), as it asks for the keys
of rank_pattern. Most patterns are random, over the letters of the names.
"""
import json
import os
import random
import re

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data", "adapters")
LINEARS = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj",
           "mlp.down_proj"]
NAMES = [f"model.layers.{i}.{name}" for i in (0, 1, 2, 10, 12, 21) for name in LINEARS] + \
        ["", "q_proj", "a.q_proj", "ab", "aab", "a.b", "b", "q_pro", "xq_proj", "0", "10.0"]
WRITTEN = [
    "q_proj", "proj", "_proj", "self_attn.q_proj", "self.attn.q_proj", "layers.1.mlp.up_proj",
    r"layers\.1\.mlp\.up_proj", "layers.1", r".*layers\.\d\..*", r".*layers\.\d+\.mlp.*",
    r"model\.layers\.(0|1|2)\..*_proj", r"layers.(1|2).*", r"layers\.[0-1]\.mlp\.(up|down)_proj",
    r"layers\.1[0-2]\..*", r".*\.(?:q|k)_proj", "^model.*", "^layers.*", "^q_proj", "q_proj$",
    ".*q_proj$", "(.*)", ".*", "", "()", "(|q_proj)", "q?_?p?r?o?j?", "[^q]_proj", ".*[^kq]_proj",
    r".*mlp\.[a-z]+_proj", r"[a-z_]+\.[a-z]+\.\d+\.mlp\.up_proj", "a*b", "(a|b)*", "(a*b*)*", "(ab?)+",
    "((a|b)+)?", "(a.)+b", ".+b", "a+", "^^q_proj", "a$b", "x^q_proj", "(^|x)q_proj", "q_proj($|x)",
    r"q{1}_proj", r"(a|b){2}", r"a{0}b", r"a{0,1}b", r"a{2,}b", r"(a{1,2}){1,2}b", r".{3,7}", r"\w+",
    r"\w{6}", r"\bq_proj", r".*\bq_proj\b", r"\b", r".*\b.*", r"q\b.*", r"[\d]{1,}", r"[\d.]+", r"[^\w]+",
    r"[\w.\-]+", ".*?q_proj", "a+?b", "a??b", r"a{1,2}?b", r"layers\.\d{2}\.mlp.*",
    # As one of the training programs writes them.
    r"(?:.*?(?:language|text).*?(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense).*?"
    r"(?:k_proj|v_proj|q_proj|out_proj|fc1|fc2|o_proj|gate_proj|up_proj|down_proj).*?)|"
    r"(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense)\."
    r"(?:(?:k_proj|v_proj|q_proj|out_proj|fc1|fc2|o_proj|gate_proj|up_proj|down_proj)))",
    r"[a-c.]+", "[.-_]+", "[a-]b", "[]a]b", "[0-9]*", r"10\.0",
]


def random_pattern(rng, depth=0):
    atoms = ["a", "b", ".", r"\.", r"\d", r"\w", r"\b", "[ab]", "[^a]", r"[\d_]", "q_proj", "mlp", ".*", "1", "[0-2]", "layers"]
    out = []
    for _ in range(rng.randint(1, 4)):
        atom = rng.choice(atoms)
        if depth < 2 and rng.random() < 0.3:
            branches = [random_pattern(rng, depth + 1) for _ in range(rng.randint(1, 3))]
            atom = rng.choice(["(", "(?:"]) + "|".join(branches) + ")"
        elif len(atom) > 2 and atom[0] not in "[\\.":
            out.append(atom)
            continue
        if not atom.endswith("*") and atom != r"\b" and rng.random() < 0.35:
            # Python takes for ever over repetitions of repetitions.
            simple = not set("*+{") & set(atom)
            atom += rng.choice(["*", "+", "?", "*?", "+?", "{2}", "{1,}", "{0,2}", "{1,3}?"]
                               if simple else ["?", "??", "{0,1}"])
        out.append(atom)
    return "".join(out)


def main():
    rng = random.Random(1)
    patterns = list(WRITTEN)
    while len(patterns) < 400:
        patterns.append((rng.choice(["", ".*", "^", "model.*"]) if rng.random() < 0.5 else "")
                        + random_pattern(rng) + (".*" if rng.random() < 0.3 else ""))
    rows = []
    for p in dict.fromkeys(patterns):
        whole = "".join("1" if re.fullmatch(p, n) else "0" for n in NAMES)
        suffix = "".join("1" if re.match(rf"(.*\.)?({p})$", n) else "0" for n in NAMES)
        rows.append([p, whole, suffix])
    with open(os.path.join(OUT, "patterns.json"), "w") as f:
        f.write('{"names": ' + json.dumps(NAMES) + ',\n "patterns": [\n')
        f.write(",\n".join(json.dumps(r) for r in rows) + "\n]}\n")
    hits = sum(r[1].count("1") + r[2].count("1") for r in rows)
    print(len(rows), "patterns,", len(NAMES), "names,", hits, "matches")


if __name__ == "__main__":
    main()
