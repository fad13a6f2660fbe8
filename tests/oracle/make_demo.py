#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""make_demo.py - what transformers and peft answer with the demo model and its adapters.

    pip install torch transformers peft tokenizers
    tests/oracle/make_demo.py tests/data/demo [ITEMS]

The folder is what tools/demo-model/make.py wrote. reference.jsonl in it gets the greedy answers of the base
model and of every adapter to the first items of each set (default 6), computed in float32 on the
published bf16 weights; `weft eval --reference` compares with them. An answer in which some choice was
not clear is left out, and counted: rounding may decide it.
"""
import glob
import json
import os
import sys

import torch
import transformers as tf
from peft import PeftModel
from tokenizers import Tokenizer

import make_adapters

LEAD = 0.1  # logits between the likeliest token and the next: far above what bf16 moves


def load(folder):
    return tf.AutoModelForCausalLM.from_pretrained(os.path.join(folder, "base"), dtype=torch.float32,
                                                   attn_implementation="eager").eval()


def answer(tok, runner, prompt, end, max_tokens):
    """The greedy answer as text, or None if a choice was not clear."""
    ids = tok.encode(prompt).ids
    a, out = (runner.activation(ids), []) if runner.invocation else (0, [])
    while len(out) < max_tokens and end not in out:
        top = runner.logits(ids + out, a)[-1].topk(2)
        if top.values[0] - top.values[1] < LEAD:
            return None
        out.append(int(top.indices[0]))
    return tok.decode(out, skip_special_tokens=True)


def main():
    folder, n = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 6
    torch.set_num_threads(1)
    tok = Tokenizer.from_file(os.path.join(folder, "base", "tokenizer.json"))
    end = json.load(open(os.path.join(folder, "base", "config.json")))["eos_token_id"]
    kept = unclear = 0
    with torch.no_grad(), open(os.path.join(folder, "reference.jsonl"), "w") as f:
        for path in sorted(glob.glob(os.path.join(folder, "sets", "*.jsonl"))):
            lines = [json.loads(line) for line in open(path)][:n + 1]
            head, items = lines[0], lines[1:]
            adapters = sorted(glob.glob(os.path.join(folder, "adapters", "*-" + head["task"])))
            for adapter in [None] + adapters:
                model, invocation = load(folder), None
                if adapter:
                    config = json.load(open(os.path.join(adapter, "adapter_config.json")))
                    invocation = config["alora_invocation_tokens"]
                    model = PeftModel.from_pretrained(model, adapter).eval()
                runner = make_adapters.Runner(model, invocation)
                for i, it in enumerate(items):
                    prompt = it["text"] + (head["invocation"] if adapter else it["plain"])
                    said = answer(tok, runner, prompt, end, head["max_tokens"])
                    if said is None:
                        unclear += 1
                        continue
                    kept += 1
                    line = dict(task=head["task"], item=i, answer=said)
                    if adapter:
                        line["adapter"] = os.path.basename(adapter)
                    print(json.dumps(line), file=f)
    print(f"{kept} answers, {unclear} left out because a choice was not clear")


if __name__ == "__main__":
    main()
