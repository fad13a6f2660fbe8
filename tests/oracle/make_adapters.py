#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""make_adapters.py - adapters of the fixture models, and what peft computes with them.

    pip install torch transformers peft     (the fixtures were made with peft 0.21)
    tests/oracle/make_adapters.py [NAME...]

Each fixture is a folder tests/data/adapters/NAME:

    adapter_config.json, adapter_model.safetensors: as peft saves them
    oracle.json    "model": which of tests/data/models; "prompts", the first adapted position of
                   each ("activation", null: none), the greedy tokens after each, and the "rows" of
                   prompt + greedy whose logits are kept
    logits.f32     these rows, [row][vocabulary], little-endian float32, prompt after prompt

The folder is saved, read again by peft over the model in float32, and run. peft searches a prompt
for the invocation; what it finds is kept for the generated tokens, as its generate() does. Values
are exact in the type that they are saved in, and of such a size that what an adapter adds has about
half the size of what it is added to.
"""
import json
import math
import os
import shutil
import sys

import torch
import transformers as tf
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora.variants import calculate_alora_offsets

from make_fixtures import CLEAR, DISTINCT, OUT as MODELS

OUT = os.path.join(MODELS, "..", "adapters")
GREEDY = 32
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16

# name: (model, type of the file, what LoraConfig is told)
FIXTURES = {
    "llama-all": ("llama", BF16, dict(r=8, lora_alpha=16, target_modules=ALL)),
    "llama-qv": ("llama", F16, dict(r=20, lora_alpha=10, target_modules=["q_proj", "v_proj"])),
    "llama-rslora": ("llama", F32, dict(r=12, lora_alpha=8, use_rslora=True,
                                        target_modules=["o_proj", "mlp.down_proj"])),
    # Patterns as peft saves them: sorted; the first that matches decides.
    "llama-patterns": ("llama", BF16, dict(
        r=4, lora_alpha=8, target_modules=ALL,
        rank_pattern={"^model.layers.0.self_attn.q_proj": 3, r"layers\.1\.mlp\.(up|down)_proj": 24,
                      "k_proj": 17},
        alpha_pattern={"layers.1.mlp.gate_proj": 40, "mlp.gate_proj": 3, "o_proj": 1.5})),
    "llama-regex": ("llama", F16, dict(
        r=4, lora_alpha=6, target_modules=r".*layers\.[01]\..*(q|down|up)_proj",
        exclude_modules=["layers.0.mlp.up_proj"])),
    # A whole name is meant in spite of layers_to_transform.
    "llama3-layer": ("llama3", BF16, dict(r=6, lora_alpha=9, layers_to_transform=[1], layers_pattern="layers",
                                          target_modules=ALL + ["model.layers.0.mlp.up_proj"])),
    "llama-tied-bias-all": ("llama-tied-bias", BF16, dict(r=5, lora_alpha=10, target_modules=ALL)),
    "mistral-window-all": ("mistral-window", BF16, dict(r=3, lora_alpha=6, use_rslora=True,
                                                        target_modules="all-linear")),
    "qwen2-all": ("qwen2", F16, dict(r=8, lora_alpha=16, target_modules=ALL)),
    "qwen3-all": ("qwen3", F32, dict(r=7, lora_alpha=7, target_modules=ALL)),
    "granite-all": ("granite", BF16, dict(r=8, lora_alpha=16, target_modules=ALL)),
    "llama-alora": ("llama", BF16, dict(r=8, lora_alpha=16, target_modules=ALL,
                                        alora_invocation_tokens=[11, 12, 13])),
    "qwen2-alora": ("qwen2", BF16, dict(r=32, lora_alpha=32, alora_invocation_tokens=[5],
                                        target_modules=["q_proj", "k_proj", "v_proj"])),
    "qwen3-alora": ("qwen3", F32, dict(r=6, lora_alpha=12, target_modules=ALL,
                                       alora_invocation_tokens=[190, 191])),
    "granite-alora": ("granite", BF16, dict(r=16, lora_alpha=32,
                                            target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
                                            alora_invocation_tokens=[7, 8, 7, 8])),
}


def fill(model, dtype, gen):
    """A so that it has products of size 1 with normalised rows, B so that the scale cancels."""
    scales = {}
    for name, module in model.named_modules():
        if hasattr(module, "lora_A"):
            scales[name] = module.scaling["default"]
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_" not in name:
                continue
            noise = torch.randn(p.shape, generator=gen)
            if "lora_A" in name:
                std = 1 / math.sqrt(p.shape[1])
            else:
                std = 0.3 / (scales[name.split(".lora_")[0]] * math.sqrt(p.shape[1]))
            p.copy_((noise * std).to(dtype))
            p.data = p.data.to(dtype)


def draw_prompts(invocation, gen):
    """LoRA: a shorter and a longer one. aLoRA: invoked at the start, in the middle, at the end,
    twice, never."""
    def ids(n):
        return torch.randint(14, 189, (n,), generator=gen).tolist()

    if not invocation:
        return [ids(13), ids(70)]
    i = invocation
    return [i + ids(20), ids(17) + i + ids(18), ids(30) + i, ids(5) + i + ids(14) + i + ids(9), ids(23)]


class Runner:
    def __init__(self, model, invocation):
        self.model, self.invocation = model, invocation

    def activation(self, prompt):
        if not self.invocation:
            return 0
        back = calculate_alora_offsets(self.model.peft_config, "default", torch.tensor([prompt]))[0]
        return None if back is None else len(prompt) - back

    def logits(self, seq, a):
        kwargs = {}
        if self.invocation:
            kwargs["alora_offsets"] = [None if a is None else len(seq) - a]
        return self.model(torch.tensor([seq]), **kwargs).logits[0]

    def greedy(self, prompt, a):
        """Greedy tokens, or None if a choice was not clear."""
        seq = list(prompt)
        for _ in range(GREEDY):
            logits = self.logits(seq, a)[-1]
            top = logits.topk(2)
            if (top.values[0] - top.values[1]) / logits.abs().max() < CLEAR:
                return None
            seq.append(int(top.indices[0]))
        return seq[len(prompt):]


def rows_of(length, a):
    rows = set(range(0, length, 6)) | {length - 1, length + GREEDY - 2}
    rows |= set(range(length, length + GREEDY - 1, 6))
    if a:
        rows |= {a - 1, a, a + 1}
    return sorted(rows)


def run(runner, gen):
    oracle, blocks = dict(prompts=[], activation=[], greedy=[], rows=[]), []
    for which in range(len(draw_prompts(runner.invocation, gen))):
        for _ in range(300):
            prompt = draw_prompts(runner.invocation, gen)[which]
            a = runner.activation(prompt)
            tokens = runner.greedy(prompt, a)
            if tokens and len(set(tokens)) >= DISTINCT:
                break
        else:
            raise SystemExit("no prompt with clear and varied greedy choices")
        rows = rows_of(len(prompt), a)
        oracle["prompts"].append(prompt)
        oracle["activation"].append(a)
        oracle["greedy"].append(tokens)
        oracle["rows"].append(rows)
        blocks.append(runner.logits(prompt + tokens, a)[rows].contiguous())
    return oracle, torch.cat(blocks)


def base(name):
    return tf.AutoModelForCausalLM.from_pretrained(
        os.path.join(MODELS, name), dtype=torch.float32, attn_implementation="eager").eval()


def main():
    torch.set_num_threads(1)
    for name in sys.argv[1:] or list(FIXTURES):
        model, dtype, settings = FIXTURES[name]
        path = os.path.join(OUT, name)
        gen = torch.Generator().manual_seed(sum(name.encode()))
        adapted = get_peft_model(base(model), LoraConfig(task_type="CAUSAL_LM", **settings))
        fill(adapted, dtype, gen)
        adapted.peft_config["default"].base_model_name_or_path = "tests/data/models/" + model
        shutil.rmtree(path, ignore_errors=True)
        adapted.save_pretrained(path)
        os.unlink(os.path.join(path, "README.md"))
        runner = Runner(PeftModel.from_pretrained(base(model), path).eval(),
                        settings.get("alora_invocation_tokens"))
        with torch.no_grad():
            oracle, logits = run(runner, gen)
            seq = oracle["prompts"][0] + oracle["greedy"][0]
            moved = (base(model)(torch.tensor([seq])).logits[0]
                     - runner.logits(seq, oracle["activation"][0])).abs().max()
        oracle["model"] = model
        with open(os.path.join(path, "oracle.json"), "w") as f:
            json.dump(oracle, f, separators=(",", ":"))
            f.write("\n")
        logits.numpy().astype("<f4").tofile(os.path.join(path, "logits.f32"))
        print(name, "rows", len(logits), "max logit", float(logits.abs().max()), "moved", float(moved),
              "activation", oracle["activation"])


if __name__ == "__main__":
    main()
