#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
make_tokenizers.py - tokenizers of many kinds, and what the `tokenizers` package makes of texts.

    make_tokenizers.py [OUT]        default: tests/data/tokenizers

Each kind is a folder with its tokenizer.json, `digests` (little-endian 32-bit: one per string) and
`ids` (a line per string for the first of them). The strings come from a seeded generator that
tests/text/strings.c has too, word for word, over the fragments in pool.txt and specials.txt. What is not
UTF-8 is given to the package as Python's errors="replace" reads it.

A digest is FNV-1a, 32 bits, over: the ids of encoding with special tokens, as 32-bit words; a word of
ones; the ids of encoding without (special tokens' texts taken as text); a word of ones; the text of
the first ids decoded; a zero byte; the same with special tokens skipped.
"""
import json
import os
import struct
import sys

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers import processors, trainers

OUT = sys.argv[1] if len(sys.argv) > 1 else "tests/data/tokenizers"
STRINGS, IDS = 5000, 100
M64 = (1 << 64) - 1

POOL = """the|The quick brown fox|jumps over|lazy dog|it's|IT'S|we'll|they've|don't|you're|I'm|he'd|'Tis
Hello, world!|What time is it?|Order no. 4711 was shipped|please reply by e-mail|http://example.com/a?b=c&d=1
Straße|Äpfel und Öl|naïve café|déjà vu|¿Cómo estás?|señor|København|Zażółć gęślą jaźń|İstanbul|ıI|ſt|ﬁne
Привет, мир|как дела|Ελληνικά γλώσσα|ΑΣΣ|שלום עולם|مرحبا بالعالم|नमस्ते दुनिया|ภาษาไทย|বাংলা|தமிழ்
你好，世界|这是一个测试|日本語のテキスト|カタカナ|한국어 문장입니다|繁體中文|ＦＵＬＬ　ｗｉｄｔｈ|½ ¾ ² ₃ Ⅷ ①
🙂|👩‍👩‍👧‍👦|🇩🇪🇫🇷|👍🏽|❤️|🤖 robots|e\u0301|a\u0308\u0323|\u1e9b\u0323|\u212b|Å|\uac00\u11a8|가각
def f(x):|    return x * 2|for (int i = 0; i < n; i++) {|}|#include <stdio.h>|a[i]->b.c|!= == <= >= && \\|SELECT * FROM t;
x = {"key": [1, 2.5, null]}|\\n\\t|<p class="x">|</p>|--flag=value|$HOME/bin|0x1F|3.14159|1,000,000|2026-11-21|100%|C++|snake_case_name|CamelCase
▁|▁▁x|_|...|!!!|???|()|''|""|—|“quoted”|…|\u200b|\ufeff|\u00ad|x\u200dy|\u0903|Ⓐ|ⓩ|٣٤٥|१२३|𝟘𝟙|𐍈|ǅ|ß|µ"""
SPECIALS = """<|endoftext|>|<|begin_of_text|>|<|eot_id|>|<|im_start|>|<|im_end|>|<tool_call>|</tool_call>|<s>|</s>|<unk>|[INST]|[/INST]|[MASK]| [MASK] |[SEP]|word|Word|WORD|single|xsingley|[left]|  [left]|[right]  |[both]|\u3000[both] \u00a0|Ünï|ünï|<0x41>|<|end|<|eot_id|[MA|ab|abc|abcd"""

# "|" separates fragments, so those that hold one are written with U+001F for it.
def fragments(text, specials=False):
    if specials:
        for name in ("<|endoftext|>", "<|begin_of_text|>", "<|eot_id|>", "<|im_start|>", "<|im_end|>", "<|end"):
            text = text.replace(name, name.replace("|", "\x1f"))
    return [f.replace("\x1f", "|").encode() for line in text.split("\n") for f in line.split("|") if f]


POOL, SPECIALS = fragments(POOL), fragments(SPECIALS, True)
SPACES = [s.encode() for s in (" ", "  ", "\n", "\t", " \n", "\r\n", "\u00a0", "\u3000", "   \n\n ", "\u180e", "\u2028",
                               "\u0085", "\n\n\n", "     ", "\x0b\x0c", " \t ")]
RUNS = [s.encode() for s in ("a", " ", "1", "é", "▁", "你", "🙂", "\u0301", "-", "\n", "the ", "\u0323\u0301", "'s", "Z", "\xa0", "ab")]
RANGES = [(0, 0x80), (0xa0, 0xe0), (0x370, 0x8), (0x391, 0x11), (0x410, 0x40), (0x5d0, 0x1b), (0x905, 0x35), (0xe01, 0x3a),
          (0x1e00, 0x100), (0x2010, 0x40), (0x2190, 0x70), (0x3041, 0x56), (0x4e00, 0x5000), (0xac00, 0x2ba4),
          (0x1f300, 0x150), (0xf900, 0x100)]


class Random:
    def __init__(self, seed):
        self.state = seed

    def next(self):
        self.state = (self.state + 0x9e3779b97f4a7c15) & M64
        z = self.state
        z = ((z ^ z >> 30) * 0xbf58476d1ce4e5b9) & M64
        z = ((z ^ z >> 27) * 0x94d049bb133111eb) & M64
        return z ^ z >> 31

    def pick(self, items):
        return items[self.next() % len(items)]


def string(seed):
    r = Random(seed)
    out = b""
    for _ in range(1 + r.next() % 12):
        op = r.next() % 32
        if op < 12:
            out += r.pick(POOL)
        elif op < 20:
            out += b" " + r.pick(POOL)
        elif op < 22:
            out += r.pick(SPACES)
        elif op == 22:
            run = r.pick(RUNS)
            n = 1 + r.next() % 40
            if r.next() % 64 == 0:
                n *= 100
            out += run * n
        elif op == 23:
            out += str(r.next() >> (r.next() % 64)).encode()
        elif op == 24:
            for _ in range(1 + r.next() % 3):
                out += bytes([r.next() % 256])
        elif op < 27:
            base, n = r.pick(RANGES)
            out += chr(base + r.next() % n).encode()
        elif op < 30:
            out += r.pick(SPECIALS)
        elif op == 30:
            out += bytes([r.next() % 32])
        else:
            out += r.pick(POOL) + r.pick(SPACES)
    return out


# --- kinds -----------------------------------------------------------------------------------------

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
GRANITE4 = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
            r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
            r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def byte_level(**options):
    return pre_tokenizers.ByteLevel(add_prefix_space=options.pop("prefix", False), **options)


def split_then_bytes(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), behavior, invert),
                                    byte_level(use_regex=False)])


def special(*names):
    return [AddedToken(n, special=True, normalized=False) for n in names]


def train(tokenizer, size, specials=(), alphabet=None, **options):
    corpus = [string(1000000 + i).decode(errors="replace").replace("\0", "") for i in range(2000)]
    corpus += [(" ".join(p.decode() for p in POOL) + " ") * 3] * 3
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=list(specials), show_progress=False, max_token_length=24,
                                  initial_alphabet=alphabet or [], **options)
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


ALPHABET = pre_tokenizers.ByteLevel.alphabet()


def bytes_kind(size, pre, normalizer=None, post=None, specials=(), **options):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre
    if normalizer:
        t.normalizer = normalizer
    t.decoder = decoders.ByteLevel()
    train(t, size, alphabet=ALPHABET)
    t.add_special_tokens(special(*specials))
    if post:
        t.post_processor = post(t)
    return t


def template(t, single, names):
    return processors.TemplateProcessing(single=single, special_tokens=[(n, t.token_to_id(n)) for n in names])


def gpt2():
    return bytes_kind(1100, byte_level(), post=lambda t: processors.ByteLevel(trim_offsets=False), specials=["<|endoftext|>"])


def llama3():
    return bytes_kind(1000, split_then_bytes(LLAMA3), specials=["<|begin_of_text|>", "<|eot_id|>", "<|endoftext|>"],
                      post=lambda t: processors.Sequence([processors.ByteLevel(trim_offsets=True),
                                                          template(t, "<|begin_of_text|> $A", ["<|begin_of_text|>"])]))


def qwen2():
    t = bytes_kind(1000, split_then_bytes(QWEN2), normalizers.NFC(), specials=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
                   post=lambda t: processors.ByteLevel(trim_offsets=False))
    t.add_tokens([AddedToken("<tool_call>", normalized=False), AddedToken("</tool_call>", normalized=False)])
    return t


def granite():
    return bytes_kind(900, pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level()]),
                      specials=["<|endoftext|>", "<|im_start|>"])


def granite4():
    return bytes_kind(800, split_then_bytes(GRANITE4), specials=["<|endoftext|>"])


def characters_kind(size, pre=None, normalizer=None, fallback=True, decoder=None, fuse=True):
    t = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=fallback, fuse_unk=fuse))
    if pre:
        t.pre_tokenizer = pre
    if normalizer:
        t.normalizer = normalizer
    names = ["<unk>", "<s>", "</s>"] + ([f"<0x{b:02X}>" for b in range(256)] if fallback else [])
    # Trained with cuts at blanks, as SentencePiece is, whatever cuts are made later.
    later = t.pre_tokenizer
    t.pre_tokenizer = pre_tokenizers.Metaspace()
    train(t, size, names, limit_alphabet=260)
    model = json.loads(t.to_str())
    model["added_tokens"] = []
    # The library never makes a special token by merging; the package would, so no merge here does.
    model["model"]["merges"] = [m for m in model["model"]["merges"] if "".join(m) not in names]
    t = Tokenizer.from_str(json.dumps(model))
    t.pre_tokenizer = later
    t.decoder = decoder or decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                              decoders.Strip(" ", 1, 0)])
    t.add_special_tokens(special("<unk>", "<s>", "</s>"))
    t.post_processor = template(t, "<s> $A", ["<s>"])
    return t


def llama2():
    return characters_kind(1300, normalizer=normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]))


def mistral():
    t = characters_kind(1200, pre=pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=False))
    t.add_special_tokens(special("[INST]", "[/INST]"))
    t.post_processor = template(t, "<s> $A </s>", ["<s>", "</s>"])
    return t


def metaspace():
    return characters_kind(900, pre=pre_tokenizers.Metaspace("▁", prepend_scheme="always", split=True), fallback=False,
                           normalizer=normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()]), fuse=False,
                           decoder=decoders.Metaspace("▁", prepend_scheme="always", split=True))


def flags():
    t = bytes_kind(700, pre_tokenizers.ByteLevel(add_prefix_space=True),
                   normalizers.Sequence([normalizers.NFD(), normalizers.Lowercase(),
                                         normalizers.Replace(Regex(r"\s{3,}"), " ~ ")]))
    t.add_special_tokens([AddedToken("[MASK]", lstrip=True, special=True, normalized=False),
                          AddedToken("<s>", special=True, normalized=True),
                          AddedToken("<|endoftext|>", special=True, normalized=False, single_word=True)])
    t.add_tokens([AddedToken("word", single_word=True, normalized=False), AddedToken("single", single_word=True),
                  AddedToken("[left]", lstrip=True, normalized=False), AddedToken("[right]", rstrip=True),
                  AddedToken("[both]", lstrip=True, rstrip=True, normalized=False), AddedToken("Ünï", normalized=True),
                  AddedToken("abc", normalized=False), AddedToken("ab"), AddedToken("abcd"), AddedToken("[MA", single_word=True),
                  AddedToken("Ⓐ", single_word=True), AddedToken("the", single_word=True, rstrip=True, normalized=True)])
    return t


def behaviours():
    cuts = [pre_tokenizers.Split(" ", "merged_with_next"), pre_tokenizers.Split(Regex(r"[aeiou]+"), "merged_with_previous"),
            pre_tokenizers.Split(Regex(r"\W"), "contiguous"), pre_tokenizers.Split(Regex(r"\w+"), "isolated", True),
            pre_tokenizers.Split(Regex(r"[\x00-\x1f]"), "removed"), pre_tokenizers.Digits(individual_digits=False),
            pre_tokenizers.Split(Regex(r"x*"), "isolated"), byte_level(use_regex=False)]
    return bytes_kind(600, pre_tokenizers.Sequence(cuts), normalizers.NFKD())


KINDS = [gpt2, llama3, qwen2, granite, granite4, llama2, mistral, metaspace, flags, behaviours]


# --- what is written ---------------------------------------------------------------------------------

def fnv(data, h=0x811c9dc5):
    for b in data:
        h = (h ^ b) * 0x01000193 & 0xffffffff
    return h


def words(ids):
    return struct.pack(f"<{len(ids)}I", *ids)


def write(kind):
    name = kind.__name__
    folder = os.path.join(OUT, name)
    os.makedirs(folder, exist_ok=True)
    data = json.loads(kind().to_str())
    if name == "llama3":
        data["model"]["ignore_merges"] = True
        # A token that no merge reaches: taken only where whole pre-tokens are looked up.
        data["model"]["merges"] = [m for m in data["model"]["merges"] if "".join(m) not in ("Ġworld", "Ġfox", "Ġdog")]
    if name == "gpt2":
        data["model"]["merges"] = [" ".join(m) for m in data["model"]["merges"]]
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace('"merges":[', '"merges":[\n') + "\n"
    with open(os.path.join(folder, "tokenizer.json"), "w", encoding="utf-8") as f:
        f.write(text)
    t = Tokenizer.from_str(text)
    digests, lines = [], []
    for i in range(STRINGS):
        s = string(i + 1).decode(errors="replace")
        t.encode_special_tokens = False
        ids = t.encode(s, add_special_tokens=True).ids
        t.encode_special_tokens = True
        plain = t.encode(s, add_special_tokens=False).ids
        whole = t.decode(ids, skip_special_tokens=False).encode()
        skipped = t.decode(ids, skip_special_tokens=True).encode()
        digests.append(fnv(words(ids) + b"\xff" * 4 + words(plain) + b"\xff" * 4 + whole + b"\0" + skipped))
        if i < IDS:
            lines.append(" ".join(map(str, ids)) + "\n")
    with open(os.path.join(folder, "digests"), "wb") as f:
        f.write(words(digests))
    with open(os.path.join(folder, "ids"), "w") as f:
        f.writelines(lines)
    print(name, len(data["model"]["vocab"]), len(text))


def main():
    os.makedirs(OUT, exist_ok=True)
    for name, items in (("pool.txt", POOL), ("specials.txt", SPECIALS)):
        with open(os.path.join(OUT, name), "wb") as f:
            f.write(b"".join(i + b"\n" for i in items))
    with open(os.path.join(OUT, "sample"), "w") as f:
        f.writelines(f"{fnv(string(i + 1)):08x}\n" for i in range(20))
    for kind in KINDS:
        write(kind)


main()
