#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
make_regexes.py - regular expressions, and where the `tokenizers` package cuts texts at them.

    make_regexes.py [OUT]        default: tests/data/regexes.json

The file has a tokenizer whose ids are the bytes of the text, with a blank before each piece that the
expression cuts; the texts; and for each expression the FNV-1a digest, 32 bits, of the ids of all texts,
a word of ones after each. The characters are old ones, so that Unicode's version does not matter.
"""
import json
import random
import struct
import sys

from tokenizers import Regex, Tokenizer, models, pre_tokenizers

OUT = sys.argv[1] if len(sys.argv) > 1 else "tests/data/regexes.json"

CHARS = list("aabbcxkKſßẞsS ss'ffiltTA\n\r\t\v\f 019AFfgvV_-.$#<>{}[]()&,éσςΣÉ|`^~:;QEhu3") + list(
    "\u0301\u3000\ufb01\u0130\u0131\u3001\u3002\u3003\u3005\u30fc\u30fb\u3041\u3093\u30a2\u4f60\u597d\uac00\u0905\u0967"
    "\u0661\u0663\u044b\u00a0\u2028\u0085\u200d\u200b\u00bd\u00b2\u00b9\u2460\u2167\U0001f642\U0001f44d\U0001f3fd"
    "\u01c5\u0903\u24b6\0\x01\x07\x08\x1b\u064b\u0951\u3006\u0640\u0391\u212a\u2019")

# What whole models cut at.
PUBLISHED = r"""
's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s
[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+
[一-龥぀-ゟ゠-ヿ]+
\p{N}{1,3}(?=(?:\p{N}{3})*\b)
(?<!\p{N})\p{N}{3}(?=(?:\p{N}{3})*(?!\p{N}))
\w+(?:['’]\w+)?"""

OTHERS = r"""
\h \H [\h]+ \v [\v] \N \R \d+ \D+ \w+ \W+ \s+ \S+ [\w]+ [\w-] [\w.-] [^\w] [^\s\w]+ [\s\d]
. (?m). (?m-i:.) (?mi). (?im:a). x(?m).|a (?-m). ^. ^\s a$ \s$ \s+$ \n$ \A. .\z \s\Z \s+\Z
\bx \b1 \b\s \B. \Bx \b\w \w\b .\b (?<=\b)a (?<=a\b)\s
\p{Han} \P{Han}+ \p{^Han}+ [\p{Han}] [^\p{Han}a]+ \p{Hiragana} [\p{Hiragana}\p{Katakana}ー]+ \p{Arabic} \p{Hangul}
\p{Devanagari} \p{Latin}+ \p{Greek}+ \p{Cyrillic} \p{Common} \p{Inherited} \p{Hira} \p{Zyyy}
\p{L} \p{^L} \P{L} \P{^L} \p{Lu} \p{Lt} \p{Lm} \p{Lo} \p{M} \p{Mn} \p{Mc} \p{N} \p{Nd} \p{Nl} \p{No} \p{P} \p{Pc} \p{Pd}
\p{Po} \p{S} \p{Sm} \p{So} \p{Sk} \p{Z} \p{Zs} \p{C} \p{Cc} \p{Cf} \p{White_Space} \p{uppercase} \p{Emoji} [\p{L}\p{N}]
a{2} a{2}+ a{1,2}+ a{1,2}+b a{,2} a{,2}b a{2,} a{1,2}? a{2}? a{2}?b (?:a|b){2}?c (?:a|b){1,2}+c [\p{L}\p{M}]{1,2}+x a*+b a++
a?+ s{1,}? a{ a{x} a} a{,} ] } (a)\1 (.)\1(?#)0 (a)\1{1,2}+ (?<n>a)\k<n> (?'n'a) (?>a+)b (?#x)a(?#y)+ a\Kb
(?i:ab) (?i)ab a(?i)b a(?i)b|c (?:a(?i)b|c)k (?:a(?i)b|c)K|s (?i)a|b(?-i)s|k (?-i:a) (?i)'s (?i:'s|'t) (?i:[sdmt]|ll|ve|re)
(?i)k (?i)[k] (?i)[^k] (?i)[a-c]+ (?i)[a-z]+ (?i)é (?i)σ (?i)ı (?i)\w+ (?i)\p{L}x (?i:ſ)
(?<=a)b (?<!a)b (?<=a|bc)k (?=a). (?!a). a|b| (|a)b
[^a-c] [a\]] [a-] [-a] [a\-z] [+--] [\x00-\x1f] [\x{3040}-\x{30ff}] [\u3041-\u3093] [\b] [.$] \x41 \x{3042} \u0041 \t \01 \012
\_ \' \" \< \> \/ \` \# \é \a \e \f"""


def text(r):
    return "".join(r.choice(CHARS) for _ in range(r.randint(1, 24)))


def fnv(data, h=0x811c9dc5):
    for b in data:
        h = (h ^ b) * 0x01000193 & 0xffffffff
    return h


def tokenizer(expression):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    t = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(expression), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)])
    return t


def digest(expression, texts):
    t = tokenizer(expression)
    data = b""
    for s in texts:
        ids = t.encode(s).ids
        data += struct.pack(f"<{len(ids)}I", *ids) + b"\xff" * 4
    return fnv(data)


def main():
    r = random.Random(1)
    texts = [text(r) for _ in range(240)]
    # Runs, which chance seldom makes.
    texts += ["aaaaa b aab aaab", "ab aB AB Ab cK ck CK", "x\n\n", "a\nb a", "k \n\n  b\r\n", "12345678 1234 12", "it's IT'S we'LL",
              "'ſ 'S", "aaaaac ababc", "aac bbc abababc", "a a\n", "\r\n\n\r", "AAAA a{2} a{x} a{,} {", "²x x\u0301x \u0301x 1½"]
    expressions = PUBLISHED.strip().split("\n") + OTHERS.split()
    with open(OUT, "w") as f:
        f.write('{"tokenizer":' + tokenizer("x").to_str(pretty=False) + ',\n"texts":' + json.dumps(texts) + ',\n"expressions":{\n')
        f.write(",\n".join(f"{json.dumps(e)}:{digest(e, texts)}" for e in expressions) + "}}\n")


main()
