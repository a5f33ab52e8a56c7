# ruff: noqa: E501, E402, SIM115
"""Builds tokenizer, pretrains on cards+notes, SFTs on imperfect answers, saves model dir + prompt files.  usage: setup_world.py OUT [json overrides]"""

import json
import os
import sys
import time
import warnings

import torch

warnings.filterwarnings("ignore")
import lm
import world

out = sys.argv[1]
c = {
    "d": 128,
    "l": 4,
    "ff": 384,
    "h": 4,
    "kv": 2,
    "arch": "qwen2",
    "init": 0.06,
    "v": 2048,
    "pre": 8000,
    "notes": 600,
    "n": 4000,
    "tb": 512,
    "lr": 3e-3,
    "sft_lr": 3e-3,
    "opt": "adamw",
    "bf": False,
    "threads": 2,
    "seed": 0,
}
c.update(json.loads(sys.argv[2]) if len(sys.argv) > 2 else {})
torch.set_num_threads(c["threads"])
os.makedirs(out, exist_ok=True)
W0 = time.time()
C0 = time.process_time()
log = {}


def mark(k):
    log[k] = {"wall": round(time.time() - W0, 1), "cpu": round(time.process_time() - C0, 1)}
    print(k, log[k], flush=True)


ex = world.make(c["n"], 1)
cd = world.cards(c["pre"], 5)
nt = world.notes(c["notes"], 6)
tok = lm.build_tokenizer([e["prompt"] + e["answer"] for e in ex[:3000]] + cd[:1500] + nt, c["v"], out)
mark("tokenizer")
m = lm.build_model(len(tok), c["d"], c["l"], c["h"], c["kv"], c["ff"], arch=c["arch"], init=c["init"], seed=c["seed"])
print("params %.2fM" % (sum(p.numel() for p in m.parameters()) / 1e6))
pre = [(x, list(x)) for x in tok([t + "<|endoftext|>" for t in cd + nt])["input_ids"]]
r = lm.train(m, pre, c["tb"], 1, c["lr"], c["opt"], quiet=True, bf16=c["bf"])
print("pretrain", r)
mark("pretrain")
m.save_pretrained(out + "/base")
tok.save_pretrained(out + "/base")
r = lm.train(m, lm.encode(tok, ex, True), c["tb"], 1, c["sft_lr"], c["opt"], quiet=True, bf16=c["bf"])
print("sft", r)
mark("sft")
m.generation_config.eos_token_id = tok.eos_token_id
m.generation_config.pad_token_id = tok.pad_token_id
m.config.eos_token_id = tok.eos_token_id
m.config.pad_token_id = tok.pad_token_id
m.save_pretrained(out)
tok.save_pretrained(out)
for name, k, seed, h in (("prompts", 2000, 11, False), ("heldout", 200, 77, True)):
    with open(f"{out}/{name}.jsonl", "w") as f:
        for e in world.make(k, seed, heldout=h):
            f.write(json.dumps({k2: e[k2] for k2 in ("facts", "question", "prompt")}, ensure_ascii=False) + "\n")
held = [json.loads(line) for line in open(out + "/heldout.jsonl")]
for g in (False, True):
    e, tx = lm.evaluate(m, tok, held, max_new=120, greedy=g)
    log["greedy" if g else "sampled"] = {k: round(v, 3) for k, v in e.items()}
    print("greedy" if g else "sampled", log["greedy" if g else "sampled"], flush=True)
mark("eval")
json.dump({"cfg": c, "log": log}, open(out + "/setup.json", "w"), indent=1)
for e, t in list(zip(held, tx, strict=False))[:4]:
    print(e["question"], "\n", t, "\n")
