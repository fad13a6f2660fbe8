# SPDX-License-Identifier: Apache-2.0
"""
model.py - a small Llama, written out, as fast to train on a CPU as PyTorch allows.

transformers' LlamaForCausalLM computes the same (export.py checks that it does); here the products
that have the same input are one, weights are cast once a step, and the loss is taken where it
counts. LoRA is an argument of the forward pass: where it starts to apply is the only difference
between a plain LoRA (everywhere) and an activated one (from the invocation on).
"""
import math

import torch
import torch.nn.functional as F

CONFIG = dict(vocab=2048, hidden=256, layers=6, heads=4, kv_heads=2, head_dim=64, ffn=384,
              theta=1e5, eps=1e-5, positions=4096)

LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def linear_shapes(c=CONFIG):
    """(out, in) of each linear."""
    q, kv, h, f = c["heads"] * c["head_dim"], c["kv_heads"] * c["head_dim"], c["hidden"], c["ffn"]
    return {"q_proj": (q, h), "k_proj": (kv, h), "v_proj": (kv, h), "o_proj": (h, q),
            "gate_proj": (f, h), "up_proj": (f, h), "down_proj": (h, f)}


def new_weights(seed, c=CONFIG):
    """name -> float32 tensor; q, k, v and gate, up are stored stacked."""
    g = torch.Generator().manual_seed(seed)
    s = linear_shapes(c)

    def normal(rows, cols, std):
        return torch.randn(rows, cols, generator=g) * std

    deep = 0.01  # what layers add at the start must not drown what is seeded below
    std = 0.5 / math.sqrt(c["hidden"])
    w = {"embed": normal(c["vocab"], c["hidden"], 1.0), "norm": torch.ones(c["hidden"]) * 0.06}
    for i in range(c["layers"]):
        w[f"{i}.qkv"] = normal(s["q_proj"][0] + 2 * s["k_proj"][0], c["hidden"], std)
        w[f"{i}.o"] = normal(*s["o_proj"], deep)
        w[f"{i}.gate_up"] = normal(2 * c["ffn"], c["hidden"], std)
        w[f"{i}.down"] = normal(*s["down_proj"], deep)
        w[f"{i}.norm1"] = torch.ones(c["hidden"])
        w[f"{i}.norm2"] = torch.ones(c["hidden"])
    seed_copying(w, g, c)
    return w


def seed_copying(w, g, c=CONFIG):
    """
    Start with heads that copy, which training from noise finds late and by luck. A head of layer 0
    looks one position back (a constant part of the embeddings, turned by one position in the fast
    pairs of the rotation) and writes what it saw, in a code of its own, to the residual stream. Heads
    of layers 1 and 2 look for the code of the token at hand, in the slow pairs, which hardly turn over
    a row, and add what they find, the token that came after it, to what is predicted.
    """
    d, q_rows = c["head_dim"], c["heads"] * c["head_dim"]
    k_row, v_row = q_rows, q_rows + c["kv_heads"] * d
    inv = c["theta"] ** (-torch.arange(0, d, 2).float() / d)
    fast, slow = range(0, 8), list(range(d // 4, d // 2))
    constant = 7.2  # of the normalised hidden state, given what follows
    w["embed"][:, 0] = 8
    q, k = torch.zeros(d), torch.zeros(d)
    for i in fast:
        k[i] = 1
        q[i], q[i + d // 2] = torch.cos(inv[i]), torch.sin(-inv[i])
    strength = math.sqrt(7 * math.sqrt(d)) / constant
    code = torch.randn(d, c["hidden"], generator=g) / math.sqrt(c["hidden"])
    code[:, 0] = 0
    place = torch.linalg.qr(torch.randn(c["hidden"], d, generator=g))[0]
    place[0] = 0
    first = w["0.qkv"]
    first[:d] = 0
    first[k_row:k_row + d] = 0
    first[:d, 0], first[k_row:k_row + d, 0] = q * strength, k * strength
    first[v_row:v_row + d] = code
    w["0.o"][:, :d] = 2 * place
    keep = torch.zeros(d, 1)
    keep[slow] = keep[[i + d // 2 for i in slow]] = 1.9
    for i in (1, 2):
        read = torch.randn(d, c["hidden"], generator=g) / math.sqrt(c["hidden"])
        read[:, 0] = 0
        w[f"{i}.qkv"][:d] = keep * code
        w[f"{i}.qkv"][k_row:k_row + d] = keep * place.T
        w[f"{i}.qkv"][v_row:v_row + d] = read
        w[f"{i}.o"][:, :d] = 5 * read.T


def rotation(length, c=CONFIG):
    """cos and sin of [length, head_dim], as Llama's halves are rotated."""
    inv = c["theta"] ** (-torch.arange(0, c["head_dim"], 2).float() / c["head_dim"])
    angle = torch.outer(torch.arange(length).float(), inv)
    angle = torch.cat([angle, angle], -1)
    return angle.cos(), angle.sin()


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


def rms_norm(x, w, eps):
    x = x.float()
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * w


def adapted(x, w, lora, names, rows):
    """x w^T, and what the adapter adds to the parts of it that `names` are, where rows is 1."""
    y = F.linear(x, w)
    if lora is None:
        return y
    low = [(F.linear(x, lora[n][0].to(x.dtype)), lora[n][1].to(x.dtype)) for n in names]
    add = torch.cat([F.linear(a, b) for a, b in low], -1)
    return y + (add if rows is None else add * rows)


def layer(x, w, i, cos, sin, lora=None, rows=None, past=None, mask=None, c=CONFIG):
    """One layer: x [batch, length, hidden] in float32; past: K and V to attend to as well."""
    b, n, _ = x.shape
    dt = w[f"{i}.qkv"].dtype
    h = rms_norm(x, w[f"{i}.norm1"], c["eps"]).to(dt)
    l = lora and lora[i]
    y = adapted(h, w[f"{i}.qkv"], l, LINEARS[:3], rows)
    y = y.view(b, n, c["heads"] + 2 * c["kv_heads"], c["head_dim"]).transpose(1, 2)
    q, k, v = y.split([c["heads"], c["kv_heads"], c["kv_heads"]], 1)
    q, k = rotate(q.float(), cos, sin).to(dt), rotate(k.float(), cos, sin).to(dt)
    if past is not None:
        k, v = torch.cat([past[i][0], k], 2), torch.cat([past[i][1], v], 2)
    group = c["heads"] // c["kv_heads"]
    y = F.scaled_dot_product_attention(q, k.repeat_interleave(group, 1), v.repeat_interleave(group, 1),
                                       attn_mask=mask, is_causal=mask is None)
    y = y.transpose(1, 2).reshape(b, n, -1)
    x = x + adapted(y, w[f"{i}.o"], l, LINEARS[3:4], rows)
    h = rms_norm(x, w[f"{i}.norm2"], c["eps"]).to(dt)
    gate, up = adapted(h, w[f"{i}.gate_up"], l, LINEARS[4:6], rows).chunk(2, -1)
    return x + adapted(F.silu(gate) * up, w[f"{i}.down"], l, LINEARS[6:], rows), (k, v)


def forward(ids, w, cos, sin, lora=None, rows=None, past=None, mask=None, keep=False, c=CONFIG):
    """Hidden states after the last norm, and K and V of the layers if they are to be kept."""
    x = F.embedding(ids, w["embed"]).float()
    kept = []
    for i in range(c["layers"]):
        x, kv = layer(x, w, i, cos, sin, lora, rows, past, mask, c)
        if keep:
            kept.append(kv)
    return rms_norm(x, w["norm"], c["eps"]), kept
