#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""make_fixtures.py - tiny random models of every family, and what transformers computes with them.

    pip install torch transformers        (any 5.x; the fixtures were made with 5.23 and torch 2.15)
    tests/oracle/make_fixtures.py [NAME...]

Each fixture is a folder tests/data/models/NAME:

    config.json, generation_config.json, model.safetensors (or shards): the model, BF16
    oracle.json    what was run: "prompts", the 64 "greedy" tokens after each, and the "rows" of
                   prompt + greedy whose logits are kept
    logits.f32     these rows, [row][vocabulary], little-endian float32, prompt after prompt

Transformers' default initialisation (std 0.02) hides errors: the residual stream drowns what the
layers add. Here the weights have std 0.6/sqrt(fan-in) and are exact in bf16, norms and biases are
not trivial, and windows and original contexts are shorter than the prompts. Prompts are drawn
until every greedy choice is clear, so that no rounding decides it.
"""
import json
import math
import os
import shutil
import sys

import torch
import transformers as tf

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data", "models")
GREEDY = 64
DISTINCT = 8  # greedy texts that fall into one token show little
CLEAR = 2e-3  # of the largest logit: the least lead of a greedy choice

SHAPE = dict(vocab_size=192, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
             num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
             bos_token_id=1, eos_token_id=2, pad_token_id=None)


def old_rope(config):
    """The spelling before transformers 5: rope_theta and rope_scaling."""
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = rope if rope.get("rope_type") != "default" else None


LLAMA3 = dict(rope_type="llama3", rope_theta=500.0, factor=8.0, low_freq_factor=1.0,
              high_freq_factor=4.0, original_max_position_embeddings=32)
YARN = dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=32)

# name: (config class, what differs from SHAPE, what is done to config.json, shards)
FIXTURES = {
    "llama": (tf.LlamaConfig, dict(tie_word_embeddings=False), None, 1),
    "llama-tied-bias": (tf.LlamaConfig, dict(tie_word_embeddings=True, attention_bias=True,
                                             num_key_value_heads=4), old_rope, 1),
    "llama3": (tf.LlamaConfig, dict(rope_parameters=LLAMA3, head_dim=16), None, 2),
    "llama-linear": (tf.LlamaConfig, dict(rope_parameters=dict(
        rope_type="linear", rope_theta=1000.0, factor=4.0)), old_rope, 1),
    "llama-yarn": (tf.LlamaConfig, dict(rope_parameters=YARN), None, 1),
    "mistral-window": (tf.MistralConfig, dict(sliding_window=20, head_dim=16), None, 1),
    "qwen2": (tf.Qwen2Config, dict(tie_word_embeddings=True), old_rope, 1),
    "qwen2-window-yarn": (tf.Qwen2Config, dict(
        num_hidden_layers=3, use_sliding_window=True, sliding_window=17, max_window_layers=1,
        rope_parameters=dict(YARN, rope_theta=100.0, attention_factor=1.3, beta_fast=1.5,
                             beta_slow=0.5)), None, 1),
    "qwen3": (tf.Qwen3Config, dict(head_dim=24, tie_word_embeddings=True), None, 1),
    "granite": (tf.GraniteConfig, dict(
        embedding_multiplier=3.0, residual_multiplier=0.4, attention_multiplier=0.5,
        logits_scaling=4.0, tie_word_embeddings=True), None, 1),
}


def bf16_exact(t):
    return t.to(torch.bfloat16).to(torch.float32)


def fill(model, gen):
    """Random weights that show errors; see the head of this file."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=gen)
            if name == "model.norm.weight":
                # Either sign: with a tied head, the last token would only ever be repeated.
                p.copy_(bf16_exact(torch.where(noise > 0, 1.0 + 0.3 * noise, -1.0 + 0.3 * noise)))
            elif "norm" in name:
                p.copy_(bf16_exact(1.0 + 0.3 * noise))
            elif name.endswith("bias"):
                p.copy_(bf16_exact(0.1 * noise))
            elif "embed_tokens" in name:
                # A tied embedding is the head as well: something between its two fan-ins, so
                # that neither the layers nor the token are drowned.
                scale = 3.0 if model.config.tie_word_embeddings else 1.0
                scale *= getattr(model.config, "embedding_multiplier", 1.0)
                p.copy_(bf16_exact(noise * 0.6 / scale))
            else:
                p.copy_(bf16_exact(noise * 0.6 / math.sqrt(p.shape[1])))


def greedy(model, prompt):
    """64 greedy tokens and the least lead of a choice, or None if one was not clear."""
    seq = list(prompt)
    for _ in range(GREEDY):
        logits = model(torch.tensor([seq])).logits[0, -1]
        top = logits.topk(2)
        if (top.values[0] - top.values[1]) / logits.abs().max() < CLEAR:
            return None
        seq.append(int(top.indices[0]))
    return seq[len(prompt):]


def run(model, gen):
    """Two prompts, one shorter and one longer than windows and original contexts."""
    oracle, blocks = dict(prompts=[], greedy=[], rows=[]), []
    for length in (13, 70):
        for _ in range(200):
            prompt = torch.randint(3, SHAPE["vocab_size"], (length,), generator=gen).tolist()
            tokens = greedy(model, prompt)
            if tokens and len(set(tokens)) >= DISTINCT:
                break
        else:
            raise SystemExit("no prompt with clear and varied greedy choices")
        rows = sorted(set(list(range(0, length, 5)) + [length - 1]
                          + list(range(length, length + GREEDY - 1, 4)) + [length + GREEDY - 2]))
        logits = model(torch.tensor([prompt + tokens])).logits[0]
        oracle["prompts"].append(prompt)
        oracle["greedy"].append(tokens)
        oracle["rows"].append(rows)
        blocks.append(logits[rows].contiguous())
    return oracle, torch.cat(blocks)


def save(path, model, edit, shards, oracle, logits):
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    model.to(torch.bfloat16)
    if shards > 1:
        model.save_pretrained(path, max_shard_size=120 * 1024)
    else:
        model.save_pretrained(path)
    with open(os.path.join(path, "config.json")) as f:
        config = json.load(f)
    if edit:
        edit(config)
    with open(os.path.join(path, "config.json"), "w") as f:
        json.dump(config, f, indent=1, sort_keys=True)
        f.write("\n")
    with open(os.path.join(path, "oracle.json"), "w") as f:
        json.dump(oracle, f, separators=(",", ":"))
        f.write("\n")
    logits.numpy().astype("<f4").tofile(os.path.join(path, "logits.f32"))


def main():
    torch.set_num_threads(1)
    names = sys.argv[1:] or list(FIXTURES)
    for name in names:
        cls, extra, edit, shards = FIXTURES[name]
        gen = torch.Generator().manual_seed(sum(name.encode()))
        config = cls(**{**SHAPE, **extra}, attn_implementation="eager")
        model = tf.AutoModelForCausalLM.from_config(config).to(torch.float32).eval()
        fill(model, gen)
        model.tie_weights()
        with torch.no_grad():
            oracle, logits = run(model, gen)
        save(os.path.join(OUT, name), model, edit, shards, oracle, logits)
        print(name, "rows", len(logits), "max logit", float(logits.abs().max()))


if __name__ == "__main__":
    main()
