# SPDX-License-Identifier: Apache-2.0
"""
tokens.py - the demo model's tokenizer: byte-level BPE over the world's own text.

Numbers are cut into pairs of digits, words are cut off with the space before them, so that names,
products and most words are one token each.
"""
import json
import os
import random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

import world

VOCABULARY = 2048
SPECIAL = ["<|pad|>", world.BEGIN, world.END, world.START, world.SEP]
PAD, BEGIN, END = 0, 1, 2
SPLIT = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]+|\s+"


def texts(seed, n):
    """
    Documents and answers of the adapters, so that these have tokens of their own as well. JSON is here as
    adapters extracted it at first: now they extract something else, and the tokens have stayed.
    """
    r = random.Random(seed)
    for _ in range(n):
        yield "".join(t for t, _ in world.document(r, 8, 4))
        case = world.Case(r)
        forms = {t: case.answer(t) for t in world.TASKS}
        forms["answerable"] = "yes" if case.answerable else "no"
        forms["extract"] = json.dumps({"order": case.order, "product": case.product, "fault": case.fault})
        yield from (world.head(t) + answer for t, answer in forms.items())


def make(path, seed):
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, min_frequency=1, show_progress=False,
        special_tokens=[AddedToken(s, special=True, normalized=False) for s in SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tok.train_from_iterator(texts(seed, 4000), trainer)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    tok.save(path + ".new")
    os.replace(path + ".new", path)


def load(path):
    return Tokenizer.from_file(path)
