#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""make_eval.py - a tiny random model with a tokenizer and adapters, and what peft answers with them.

    pip install torch transformers peft tokenizers     (the fixtures were made with peft 0.21)
    tests/oracle/make_eval.py

tests/data/eval holds base/, adapters/KIND-TASK/ (kinds alora and lora, tasks one and two), and

    sets/TASK.jsonl     test sets for `weft eval`. A random model has no right answers, so an item's
                        answer is what peft generated with the aLoRA; every fourth is spoilt, so that
                        75 % are right
    reference.jsonl     what peft and transformers generated for every item and adapter

Base and adapters run in float32 on weights that are exact in bf16. Items are drawn until every
greedy choice of every arm is clear.
"""
import json
import os
import shutil

import torch
import transformers as tf
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

import make_adapters
import make_fixtures

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data", "eval")
TASKS, ITEMS, MAX_TOKENS, VOCABULARY = ["one", "two"], 8, 6, 384
SPECIAL = ["<|pad|>", "<|begin|>", "<|end|>", "<|start|>", "<|sep|>"]
WORDS = """the customer bought a kettle last May and it leaks the shop will send another one when the parcel
comes back please tell me how long it takes and what it costs order number is on the bill one two question""".split()


def make_tokenizer(path, gen):
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator([text(gen) for _ in range(300)] + TASKS * 50, trainers.BpeTrainer(
        vocab_size=VOCABULARY, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[AddedToken(s, special=True, normalized=False) for s in SPECIAL]))
    tok.save(path)
    return tok


def text(gen):
    n = int(torch.randint(50, 70, (1,), generator=gen))
    return " ".join(WORDS[i] for i in torch.randint(len(WORDS), (n,), generator=gen).tolist())


class Arm:
    """Someone who answers: the base model, or an adapter of it."""

    def __init__(self, tok, model, invocation):
        self.tok, self.runner = tok, make_adapters.Runner(model, invocation)

    def answer(self, prompt):
        """The greedy answer as text, or None if a choice was not clear."""
        ids = self.tok.encode(prompt).ids
        a, out = self.runner.activation(ids), []
        while len(out) < MAX_TOKENS and 2 not in out:
            logits = self.runner.logits(ids + out, a)[-1]
            top = logits.topk(2)
            if (top.values[0] - top.values[1]) / logits.abs().max() < make_fixtures.CLEAR:
                return None
            out.append(int(top.indices[0]))
        return self.tok.decode(out, skip_special_tokens=True)


class Plain(Arm):
    def __init__(self, tok, model):
        self.tok, self.runner = tok, self
        self.model = model

    def activation(self, ids):
        return None

    def logits(self, seq, a):
        return self.model(torch.tensor([seq])).logits[0]


def head(role):
    return f"<|start|>{role}<|sep|>"


def make_base(gen):
    config = tf.LlamaConfig(**dict(make_fixtures.SHAPE, vocab_size=VOCABULARY), tie_word_embeddings=False)
    model = tf.LlamaForCausalLM(config)
    make_fixtures.fill(model, gen)
    model.to(torch.bfloat16).save_pretrained(os.path.join(OUT, "base"))


def load():
    return tf.AutoModelForCausalLM.from_pretrained(os.path.join(OUT, "base"), dtype=torch.float32,
                                                   attn_implementation="eager").eval()


def make_adapter(name, invocation, gen):
    m = get_peft_model(load(), LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules=make_adapters.ALL,
                                          alora_invocation_tokens=invocation))
    make_adapters.fill(m, torch.bfloat16, gen)
    m.peft_config["default"].base_model_name_or_path = "tests/data/eval/base"
    path = os.path.join(OUT, "adapters", name)
    m.save_pretrained(path)
    os.unlink(os.path.join(path, "README.md"))
    return PeftModel.from_pretrained(load(), path).eval()


def draw(arms, gen):
    """A text, and for each task what every arm says."""
    while True:
        talk = "<|begin|>" + head("user") + text(gen) + "<|end|>"
        said = {}
        for task in TASKS:
            plain = head("user") + task + " question<|end|>" + head("assistant")
            for kind, arm in arms[task].items():
                said[task, kind] = arm.answer(talk + (plain if kind == "base" else head(task)))
                if said[task, kind] is None:
                    break
            else:
                continue
            break
        else:
            return talk, said


def main():
    torch.set_num_threads(1)
    shutil.rmtree(OUT, ignore_errors=True)
    os.makedirs(os.path.join(OUT, "base"))
    os.makedirs(os.path.join(OUT, "sets"))
    gen = torch.Generator().manual_seed(7)
    tok = make_tokenizer(os.path.join(OUT, "base", "tokenizer.json"), gen)
    make_base(gen)
    arms = {}
    for task in TASKS:
        invocation = tok.encode(head(task)).ids
        arms[task] = {"base": Plain(tok, load()),
                      "alora": Arm(tok, make_adapter("alora-" + task, invocation, gen), invocation),
                      "lora": Arm(tok, make_adapter("lora-" + task, None, gen), None)}
    with torch.no_grad():
        items = [draw(arms, gen) for _ in range(ITEMS)]
    with open(os.path.join(OUT, "reference.jsonl"), "w") as ref:
        for task in TASKS:
            with open(os.path.join(OUT, "sets", task + ".jsonl"), "w") as f:
                print(json.dumps(dict(task=task, invocation=head(task), max_tokens=MAX_TOKENS)), file=f)
                for i, (talk, said) in enumerate(items):
                    plain = head("user") + task + " question<|end|>" + head("assistant")
                    answer = said[task, "alora"] + ("?" if i % 4 == 3 else "")
                    print(json.dumps(dict(text=talk, plain=plain, answer=answer)), file=f)
                    for kind in arms[task]:
                        line = dict(task=task, item=i, answer=said[task, kind])
                        if kind != "base":
                            line["adapter"] = f"{kind}-{task}"
                        print(json.dumps(line), file=ref)
    print(f"{ITEMS} items, {len({s for _, said in items for s in said.values()})} different answers")


if __name__ == "__main__":
    main()
