# SPDX-License-Identifier: Apache-2.0
"""
train_adapters.py - the five tasks' adapters, all of one kind at a time.

    alora    changes the base from the invocation on. K and V of the conversation are the base's, so
             they are computed once, without gradients, for all five tasks
    lora     changes the base everywhere: gradients go through the whole prompt
    shared   as lora; A of each linear is one for the five tasks, B is each one's own

Each step takes conversations of equal length, so that nothing needs to be padded before the
invocation, and trains all five adapters on them. The loss is the answer's, its end included.
"""
import os
import random
import time

import torch
import torch.nn.functional as F

import model as M
import tokens
import train_base
import world

RANK, ALPHA = 8, 16
KINDS = {"alora": dict(steps=400, rows=16, rate=3e-3), "lora": dict(steps=300, rows=10, rate=2e-3),
         "shared": dict(steps=300, rows=10, rate=2e-3)}
WARM, CHECKPOINT_EVERY, TEST_EVERY = 20, 25, 50
POOL = 2000          # conversations drawn at a time, to be sorted by length
TRAIN_SEED, DEV_SEED, TEST_SEED = 2 * 10**6, 3 * 10**6, 4 * 10**6


# --- items -----------------------------------------------------------------------------------------

def item(r):
    """The conversation, at times behind a few prices, and its case."""
    case = world.Case(r)
    prices = world.turn("system", world.price_list(r, r.randint(1, 6))[0]) if r.random() < 0.2 else ""
    return world.BEGIN + prices + case.text(), case


def items(tok, seed, n):
    """n of (ids of the conversation, {task: ids of invocation and answer})."""
    r = random.Random(seed)
    drawn = [item(r) for _ in range(n)]
    talks = [e.ids for e in tok.encode_batch([text for text, _ in drawn])]
    ends = {t: tok.encode_batch([world.invocation(t) + c.answer(t) + world.END for _, c in drawn])
            for t in world.TASKS}
    return [(talk, {t: ends[t][i].ids for t in world.TASKS}) for i, talk in enumerate(talks)]


def batches(tok, seed, rows):
    """Without end: rows items of equal length."""
    waiting, drawn = {}, 0
    while True:
        for it in items(tok, seed + drawn, POOL):
            bucket = waiting.setdefault(len(it[0]), [])
            bucket.append(it)
            if len(bucket) == rows:
                yield bucket
                waiting[len(it[0])] = []
        drawn += 1


def padded(ends, skip):
    """ids [n, longest], and which of them are answers (not the first, the invocation, nor the padding)."""
    longest = max(map(len, ends))
    ids = torch.full((len(ends), longest), tokens.PAD)
    counts = torch.zeros(len(ends), longest)
    for i, e in enumerate(ends):
        ids[i, :len(e)] = torch.tensor(e)
        counts[i, skip:len(e)] = 1
    return ids, counts


# --- adapters --------------------------------------------------------------------------------------

def new_adapters(kind, seed):
    """task -> layer -> linear -> [A, B]; B starts at 0, A as peft draws it."""
    g = torch.Generator().manual_seed(seed)
    out, first = {}, None
    for task in world.TASKS:
        out[task] = []
        for i in range(M.CONFIG["layers"]):
            layer = {}
            for name, (rows, cols) in M.linear_shapes().items():
                a = (torch.rand(RANK, cols, generator=g) * 2 - 1) / cols ** 0.5
                if kind == "shared" and first:
                    a = first[i][name][0]
                layer[name] = [a.requires_grad_(), torch.zeros(rows, RANK).requires_grad_()]
            out[task].append(layer)
        first = first or out[task]
    return out


def scaled(adapter):
    """The scale of PEFT, alpha / r, goes to B."""
    return [{n: (a, b * (ALPHA / RANK)) for n, (a, b) in l.items()} for l in adapter]


def parameters(adapters):
    seen = {}
    for task in world.TASKS:
        for l in adapters[task]:
            for pair in l.values():
                seen.update({id(p): p for p in pair})
    return list(seen.values())


# --- forward ---------------------------------------------------------------------------------------

class Base:
    """The frozen base, rounded as it is published."""

    def __init__(self, weights, tok):
        self.skip = {t: len(tok.encode(world.invocation(t)).ids) for t in world.TASKS}
        self.w = {k: w.detach().to(torch.bfloat16) if w.dim() == 2 else w.detach().to(torch.bfloat16).float()
                  for k, w in weights.items()}
        self.cos, self.sin = M.rotation(M.CONFIG["positions"])

    def talk(self, talks):
        """K and V of conversations of equal length."""
        with torch.no_grad():
            n = talks.shape[1]
            return M.forward(talks, self.w, self.cos[:n], self.sin[:n], keep=True)[1]

    def logits(self, h):
        return F.linear(h.to(torch.bfloat16), self.w["embed"]).float()

    def after(self, past, ids, lora):
        """Logits of ids behind past, every one of them adapted."""
        p, n = past[0][0].shape[2], ids.shape[1]
        mask = torch.ones(n, p + n, dtype=torch.bool).tril(p)
        h, _ = M.forward(ids, self.w, self.cos[p:p + n], self.sin[p:p + n], lora, past=past, mask=mask)
        return self.logits(h)

    def whole(self, talks, ids, lora):
        """Logits of ids behind talks, all adapted."""
        seq = torch.cat([talks, ids], 1)
        n = seq.shape[1]
        h, _ = M.forward(seq, self.w, self.cos[:n], self.sin[:n], lora)
        return self.logits(h[:, talks.shape[1]:])


def run_task(base, talks, past, its, task, adapter):
    """Logits, what is right, and what counts, of one task."""
    ids, counts = padded([e[task] for _, e in its], base.skip[task])
    lora = scaled(adapter) if adapter else None
    f = base.after(past, ids[:, :-1], lora) if past else base.whole(talks, ids[:, :-1], lora)
    return f, ids[:, 1:], counts[:, 1:]


@torch.no_grad()
def test(base, kind, adapters, tok, n=200, seed=DEV_SEED):
    """Share of exact answers by task. With the right tokens before it each one of an answer must be
    the likeliest, which is what greedy generation needs."""
    by_length, right = {}, dict.fromkeys(world.TASKS, 0)
    for it in items(tok, seed, n):
        by_length.setdefault(len(it[0]), []).append(it)
    for its in by_length.values():
        talks = torch.tensor([t for t, _ in its])
        past = base.talk(talks) if kind == "alora" else None
        for task in world.TASKS:
            logits, ids, counts = run_task(base, talks, past, its, task, adapters[task])
            wrong = ((logits.argmax(-1) != ids) & (counts > 0)).any(1)
            right[task] += int((~wrong).sum())
    return {t: right[t] / n for t in world.TASKS}


# --- the run ---------------------------------------------------------------------------------------

def train(work, kind, weights, tok, seed=1):
    """Train, or go on with, the adapters of a kind; returns them."""
    how, path = KINDS[kind], os.path.join(work, kind + ".pt")
    base, adapters = Base(weights, tok), new_adapters(kind, seed)
    params = parameters(adapters)
    opt = torch.optim.AdamW(params, lr=how["rate"], betas=(0.9, 0.99), weight_decay=0.0)
    step, seconds = 0, 0.0
    if os.path.exists(path):
        c = torch.load(path, weights_only=True)
        step, seconds = c["step"], c["seconds"]
        opt.load_state_dict(c["adam"])
        with torch.no_grad():
            for p, saved in zip(params, c["params"]):
                p.copy_(saved)
    source = batches(tok, TRAIN_SEED, how["rows"])
    for _ in range(step if step < how["steps"] else 0):
        next(source)
    while step < how["steps"]:
        began, its = time.time(), next(source)
        talks = torch.tensor([t for t, _ in its])
        past, losses = base.talk(talks) if kind == "alora" else None, []
        for task in world.TASKS:
            logits, ids, counts = run_task(base, talks, past, its, task, adapters[task])
            loss = (F.cross_entropy(logits.flatten(0, 1), ids.flatten(), reduction="none") * counts.flatten()).sum()
            loss = loss / counts.sum()
            loss.backward()
            losses.append(loss.item())
        rate = min(1, (step + 1) / WARM, 1.02 - step / how["steps"]) * how["rate"]
        opt.param_groups[0]["lr"] = rate
        torch.nn.utils.clip_grad_norm_(params, 5.0)
        opt.step()
        opt.zero_grad()
        step, seconds = step + 1, seconds + time.time() - began
        if step % 10 == 0:
            print(f"{kind} step {step} of {how['steps']}  loss " +
                  " ".join(f"{t} {l:.3f}" for t, l in zip(world.TASKS, losses)) + f"  {seconds:.0f} s", flush=True)
        if step % CHECKPOINT_EVERY == 0 or step == how["steps"]:
            torch.save({"step": step, "seconds": seconds, "adam": opt.state_dict(),
                        "params": [p.detach() for p in params]}, path + ".new")
            os.replace(path + ".new", path)
        if step % TEST_EVERY == 0 or step == how["steps"]:
            print(f"{kind} step {step}: " + "  ".join(
                f"{t} {a:.1%}" for t, a in test(base, kind, adapters, tok).items()), flush=True)
    return adapters
