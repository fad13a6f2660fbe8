# SPDX-License-Identifier: Apache-2.0
"""
train_base.py - the base model, from nothing.

Rows are filled from the world: a conversation and as many of the operator's questions as fit; in
longer rows earlier conversations or a price list before it. Three stages: rows of 256 tokens, of
512, and a short tail of 4,096 while the learning rate falls to nothing. Matrices are trained with
Muon (momentum, then the nearest orthogonal matrix by Newton-Schulz), embeddings and norms with
AdamW. A checkpoint holds everything, so that a run that was stopped goes on as if it had not been.
"""
import os
import random
import time

import torch
import torch.nn.functional as F

import model as M
import tokens
import world

# (until step, rows, their length). 4,096 tokens a step.
STAGES = [(1600, 16, 256), (1900, 8, 512), (2040, 1, 4096)]
STEPS, WARM, DECAY = STAGES[-1][0], 60, 600
LR_MATRIX, LR_EMBED, LR_NORM, DECAY_W = 0.02, 0.01, 1e-3, 0.01
CHECKPOINT_EVERY, TEST_EVERY = 25, 100
QUIET = 0.4  # weight of what is no answer in the loss
DRILL = 0.15  # of the shortest rows repeat tokens drawn by chance: copying is learnt much sooner


# --- rows ------------------------------------------------------------------------------------------

def encode(tok, parts):
    """ids, and the kind of answer that each belongs to (None: none)."""
    ids, kinds = [], []
    for e, (_, kind) in zip(tok.encode_batch([t for t, _ in parts]), parts):
        ids += e.ids
        kinds += [kind] * len(e.ids)
    return ids, kinds


def row(r, tok, length):
    """ids and kinds of length + 1: questions until the row is full."""
    ids, kinds = [], []
    if length > 256 and r.random() < 0.5:
        budget = r.randint(40, length - 260)
        while len(ids) < budget:
            i, k = encode(tok, world.document(r, r.randint(0, 6)))
            ids, kinds = ids + i, kinds + k
        n_prices = r.choice([0, r.randint(1, 10)])
    else:
        n_prices = r.choice([0, r.randint(1, 6)]) if length <= 256 else r.randint(2, length // 18)
    while len(ids) <= length:
        i, k = encode(tok, world.document(r, 20 if length <= 512 else r.randint(8, 20), n_prices))
        ids, kinds = ids + i, kinds + k
        n_prices = 0
    return ids[:length + 1], kinds[:length + 1]


def drill(r, length):
    """Tokens drawn by chance, over and over; from the second time on they count as answers."""
    once = [r.randrange(len(tokens.SPECIAL), M.CONFIG["vocab"]) for _ in range(r.randint(10, length // 2))]
    ids = (once * (length // len(once) + 2))[:length + 1]
    return ids, [None] * len(once) + ["drill"] * (length + 1 - len(once))


def batch(seed, tok, n, length):
    r = random.Random(seed)
    rows = [drill(r, length) if length == STAGES[0][2] and r.random() < DRILL else row(r, tok, length)
            for _ in range(n)]
    ids = torch.tensor([i for i, _ in rows])
    weight = torch.tensor([[1.0 if k else QUIET for k in ks[1:]] for _, ks in rows])
    return ids[:, :-1], ids[:, 1:], weight


# --- steps -----------------------------------------------------------------------------------------

def orthogonal(g):
    """The nearest orthogonal matrices of a stack, about: five steps of Newton-Schulz."""
    x = g.to(torch.bfloat16)
    wide = x.shape[-2] > x.shape[-1]
    if wide:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return (x.mT if wide else x).float()


class Muon:
    def __init__(self, weights):
        shapes = sorted({tuple(w.shape) for w in weights})
        self.groups = [[w for w in weights if tuple(w.shape) == s] for s in shapes]
        self.momentum = [torch.zeros(len(g), *g[0].shape) for g in self.groups]

    @torch.no_grad()
    def step(self, lr):
        for ws, m in zip(self.groups, self.momentum):
            g = torch.stack([w.grad for w in ws])
            m.lerp_(g, 0.05)
            update = orthogonal(g.lerp_(m, 0.95))
            scale = max(1, update.shape[-2] / update.shape[-1]) ** 0.5
            for w, u in zip(ws, update):
                w.mul_(1 - lr * DECAY_W).add_(u, alpha=-lr * scale)


def rate(step):
    """Full in the first stage; from 0.73 to nothing in the others."""
    if step < STAGES[0][0]:
        return min(1, (step + 1) / WARM)
    return max(0.02, (STEPS - step) / DECAY)


def half(weights):
    return {k: w.to(torch.bfloat16) if w.dim() == 2 else w for k, w in weights.items()}


def loss_of(weights, ids, target, weight, rot):
    w = half(weights)
    h, _ = M.forward(ids, w, rot[0][:ids.shape[1]], rot[1][:ids.shape[1]])
    total = 0
    for hs, t, wt in zip(h.flatten(0, 1).split(2048), target.flatten().split(2048), weight.flatten().split(2048)):
        logits = F.linear(hs.to(torch.bfloat16), w["embed"]).float()
        total = total + (F.cross_entropy(logits, t, reduction="none") * wt).sum()
    return total / weight.sum()


# --- tests -----------------------------------------------------------------------------------------

@torch.no_grad()
def test(weights, tok, rot, length=256, n=24, seed=10**6):
    """Share of answers that are right as a whole, by kind, with the right words before each."""
    r = random.Random(seed)
    w, right, count = half(weights), {}, {}
    for _ in range(n):
        ids, kinds = row(r, tok, length)
        h, _ = M.forward(torch.tensor([ids[:-1]]), w, rot[0][:length], rot[1][:length])
        best = F.linear(h[0].to(torch.bfloat16), w["embed"]).argmax(-1).tolist()
        i = 1
        while i <= length:
            j = i
            while j <= length and kinds[j] and kinds[j] == kinds[i] and ids[j] != tokens.END:
                j += 1
            if kinds[i] and j < length:
                count[kinds[i]] = count.get(kinds[i], 0) + 1
                right[kinds[i]] = right.get(kinds[i], 0) + (best[i - 1:j - 1] == ids[i:j])
            i = max(i + 1, j + 1)
    total = sum(right.values()) / sum(count.values())
    return total, {k: f"{right[k]}/{count[k]}" for k in sorted(count)}


# --- the run ---------------------------------------------------------------------------------------

class Run:
    def __init__(self, work, seed):
        self.path, self.seed, self.step, self.seconds = os.path.join(work, "base.pt"), seed, 0, 0.0
        self.weights = {k: w.requires_grad_() for k, w in M.new_weights(seed).items()}
        stacked = [w for k, w in self.weights.items() if k != "embed" and w.dim() == 2]
        norms = [w for w in self.weights.values() if w.dim() != 2]
        self.muon = Muon(stacked)
        # Steps of both optimizers are of the rate's size, whatever the gradient's. So embeddings are
        # of size 1: smaller ones are drowned, by their own steps and by what the layers add.
        self.adam = torch.optim.AdamW([dict(params=[self.weights["embed"]], full=LR_EMBED),
                                       dict(params=norms, full=LR_NORM)], betas=(0.9, 0.95), weight_decay=0.0)
        if os.path.exists(self.path):
            self.load()

    def load(self):
        c = torch.load(self.path, weights_only=True)
        self.step, self.seconds = c["step"], c["seconds"]
        with torch.no_grad():
            for k, w in self.weights.items():
                w.copy_(c["weights"][k])
        self.muon.momentum = c["muon"]
        self.adam.load_state_dict(c["adam"])

    def save(self):
        torch.save({"step": self.step, "seconds": self.seconds, "muon": self.muon.momentum,
                    "weights": {k: w.detach() for k, w in self.weights.items()},
                    "adam": self.adam.state_dict()}, self.path + ".new")
        os.replace(self.path + ".new", self.path)

    def one(self, tok, rot):
        _, n, length = next(s for s in STAGES if self.step < s[0])
        ids, target, weight = batch(self.seed * 10**6 + self.step, tok, n, length)
        loss = loss_of(self.weights, ids, target, weight, rot)
        loss.backward()
        lr = rate(self.step)
        for g in self.adam.param_groups:
            g["lr"] = g["full"] * lr
        self.adam.step()
        self.muon.step(LR_MATRIX * lr)
        for w in self.weights.values():
            w.grad = None
        self.step += 1
        return loss.item(), length


def train(work, seed):
    """Train the base, or go on with it; returns its weights."""
    tok_path = os.path.join(work, "tokenizer.json")
    if not os.path.exists(tok_path):
        tokens.make(tok_path, seed)
    tok, rot, run = tokens.load(tok_path), M.rotation(M.CONFIG["positions"]), Run(work, seed)
    while run.step < STEPS:
        t = time.time()
        loss, length = run.one(tok, rot)
        run.seconds += time.time() - t
        if run.step % 10 == 0:
            print(f"base step {run.step} of {STEPS}  loss {loss:.3f}  {4096 / (time.time() - t):.0f} tokens/s  "
                  f"{run.seconds:.0f} s", flush=True)
        if run.step % CHECKPOINT_EVERY == 0 or run.step == STEPS:
            run.save()
        if run.step % TEST_EVERY == 0 or run.step == STEPS:
            total, kinds = test(run.weights, tok, rot, length)
            print(f"base step {run.step}: {total:.1%} of answers right: {kinds}", flush=True)
    return run.weights
