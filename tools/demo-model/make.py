#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
make.py - the demo model family, from nothing or from where the last run stopped.

    make.py --work DIR [--out DIR] [--seed N]

Trains the base, then the adapters of each kind, and writes them with the test sets to --out (default:
tests/data/demo). Checkpoints are in --work: a run that was stopped, even killed, is continued by the
same command. Everything follows from the seed and, because a sum's order is its bits, from the number of
threads: one, unless asked for more.
"""
import argparse
import os
import shutil

import torch

import export
import tokens
import train_adapters
import train_base
import world

HERE = os.path.dirname(os.path.abspath(__file__))


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--work", required=True)
    p.add_argument("--out", default=os.path.join(HERE, "..", "..", "tests", "data", "demo"))
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--threads", type=int, default=1)
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    os.makedirs(a.work, exist_ok=True)
    tok_path = os.path.join(a.work, "tokenizer.json")
    weights = train_base.train(a.work, a.seed)
    tok = tokens.load(tok_path)
    export.save_base(weights, tok_path, os.path.join(a.out, "base"))
    export.check_forward(weights, tok, os.path.join(a.out, "base"))
    for kind in train_adapters.KINDS:
        adapters = train_adapters.train(a.work, kind, weights, tok, a.seed)
        for task in world.TASKS:
            out = os.path.join(a.out, "adapters", f"{kind}-{task}")
            shutil.rmtree(out, ignore_errors=True)
            invocation = tok.encode(world.invocation(task)).ids if kind == "alora" else None
            export.save_adapter(weights, adapters[task], invocation, out)
    export.save_sets(os.path.join(a.out, "sets"))
    print("done: now tests/oracle/make_demo.py")


if __name__ == "__main__":
    main()
