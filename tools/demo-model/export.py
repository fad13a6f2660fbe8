# SPDX-License-Identifier: Apache-2.0
"""
export.py - base, adapters and test sets as folders and files that everybody can read.

The base is saved by transformers, the adapters by peft, both in bf16; what has been trained with
model.py's own forward pass is checked against theirs before anything counts as done.
"""
import json
import os
import random
import warnings

import torch
import transformers as tf
from peft import LoraConfig, get_peft_model

import model as M
import tokens
import train_adapters
import world

ITEMS = 500
TEMPLATE = ("{{ bos_token }}{% for m in messages %}{{ '<|start|>' + m['role'] + '<|sep|>' + m['content'] + '<|end|>' }}"
            "{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant<|sep|>' }}{% endif %}")


def config():
    c = M.CONFIG
    return tf.LlamaConfig(
        vocab_size=c["vocab"], hidden_size=c["hidden"], intermediate_size=c["ffn"], num_hidden_layers=c["layers"],
        num_attention_heads=c["heads"], num_key_value_heads=c["kv_heads"], head_dim=c["head_dim"],
        max_position_embeddings=c["positions"], rms_norm_eps=c["eps"], tie_word_embeddings=True,
        bos_token_id=tokens.BEGIN, eos_token_id=tokens.END, pad_token_id=tokens.PAD,
        rope_parameters={"rope_type": "default", "rope_theta": c["theta"]})


def state(weights):
    """Our weights under transformers' names."""
    c, out = M.CONFIG, {"model.embed_tokens.weight": weights["embed"], "model.norm.weight": weights["norm"]}
    q, kv = c["heads"] * c["head_dim"], c["kv_heads"] * c["head_dim"]
    for i in range(c["layers"]):
        p = f"model.layers.{i}."
        for n, w in zip(M.LINEARS[:3], weights[f"{i}.qkv"].split([q, kv, kv])):
            out[p + f"self_attn.{n}.weight"] = w
        for n, w in zip(M.LINEARS[4:6], weights[f"{i}.gate_up"].split([c["ffn"], c["ffn"]])):
            out[p + f"mlp.{n}.weight"] = w
        out[p + "self_attn.o_proj.weight"] = weights[f"{i}.o"]
        out[p + "mlp.down_proj.weight"] = weights[f"{i}.down"]
        out[p + "input_layernorm.weight"] = weights[f"{i}.norm1"]
        out[p + "post_attention_layernorm.weight"] = weights[f"{i}.norm2"]
    return {k: v.detach().contiguous() for k, v in out.items()}


def published(weights):
    """The base as transformers has it, in bf16."""
    m = tf.LlamaForCausalLM(config())
    s = state(weights)
    missing, unexpected = m.load_state_dict(s, strict=False)
    assert not unexpected and missing in ([], ["lm_head.weight"]), (missing, unexpected)
    m.tie_weights()
    return m.to(torch.bfloat16).eval()


def save_base(weights, tok_path, out):
    m = published(weights)
    m.save_pretrained(out)
    tok = tf.PreTrainedTokenizerFast(tokenizer_file=tok_path, bos_token=world.BEGIN, eos_token=world.END,
                                     pad_token="<|pad|>", chat_template=TEMPLATE,
                                     clean_up_tokenization_spaces=False, model_max_length=M.CONFIG["positions"])
    tok.save_pretrained(out)


def save_adapter(weights, adapter, invocation, out):
    """Through peft, as if it had trained it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        m = get_peft_model(published(weights), LoraConfig(
            r=train_adapters.RANK, lora_alpha=train_adapters.ALPHA, target_modules=M.LINEARS, task_type="CAUSAL_LM",
            alora_invocation_tokens=invocation))
    found = 0
    with torch.no_grad():
        for name, p in m.named_parameters():
            if "lora_" not in name:
                continue
            parts = name.split(".")
            at = parts.index("layers")
            pair = adapter[int(parts[at + 1])][parts[at + 3]]
            p.data = pair["lora_B" in name].detach().to(torch.bfloat16).clone()
            found += 1
    assert found == 2 * len(M.LINEARS) * M.CONFIG["layers"]
    m.peft_config["default"].base_model_name_or_path = "../../base"
    m.save_pretrained(out)
    readme = os.path.join(out, "README.md")  # peft's empty model card; ours is one for all
    if os.path.exists(readme):
        os.remove(readme)


def check_forward(weights, tok, folder):
    """model.py against transformers, in float32 on the published weights."""
    m = tf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    base = train_adapters.Base(weights, tok)
    w = {k: v.float() for k, v in base.w.items()}
    ids = torch.randint(5, M.CONFIG["vocab"], (2, 300), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours = torch.nn.functional.linear(M.forward(ids, w, base.cos[:300], base.sin[:300])[0], w["embed"])
        theirs = m(ids).logits
    off = (ours - theirs).abs().max().item() / theirs.abs().max().item()
    assert off < 1e-4, f"model.py and transformers differ by {off:.2e}"
    print(f"forward pass against transformers: largest difference {off:.1e} of the largest logit")


def plain(task, case):
    """What the base is asked without an adapter: where there is a question that both can be asked, that."""
    if task == "answerable":
        return world.turn("operator", world.FACTS[case.asked][1].format(O=case.offer)) + world.head("assistant")
    return world.invocation(task)


def save_sets(out, n=ITEMS):
    """One file a task: a line that says how to ask, and a line an item; the same conversations."""
    os.makedirs(out, exist_ok=True)
    r = random.Random(train_adapters.TEST_SEED)
    drawn = [train_adapters.item(r) for _ in range(n)]
    for task in world.TASKS:
        with open(os.path.join(out, task + ".jsonl"), "w") as f:
            json.dump({"task": task, "invocation": world.invocation(task), "max_tokens": 40}, f)
            f.write("\n")
            for text, case in drawn:
                json.dump({"text": text, "plain": plain(task, case), "answer": case.answer(task)}, f)
                f.write("\n")
