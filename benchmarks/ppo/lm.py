# ruff: noqa: E501
"""Tokenizer + tiny causal LM + packed pretrain / SFT loop."""

import math
import random
import time

import torch
import torch.nn.functional as F
import world


def build_tokenizer(texts, vocab, out):
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.NFC()
    # Qwen2's split pattern
    pat = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    t.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pat), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    t.decoder = decoders.ByteLevel()
    tr = trainers.BpeTrainer(
        vocab_size=vocab,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        show_progress=False,
    )
    t.train_from_iterator(texts, tr)
    tok = PreTrainedTokenizerFast(
        tokenizer_object=t,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="left",
        chat_template="{% for m in messages %}<|im_start|>{{m['role']}}\n{{m['content']}}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    )
    tok.add_tokens(["<think>", "</think>"])
    if out:
        tok.save_pretrained(out)
    return tok


def build_model(vocab, d=192, layers=4, heads=4, kv=2, ffn=None, arch="qwen2", seed=0, ctx=512, init=0.02):
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(seed)
    v = (vocab + 63) // 64 * 64
    kw = {
        "vocab_size": v,
        "hidden_size": d,
        "intermediate_size": ffn or d * 3,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "max_position_embeddings": ctx,
        "tie_word_embeddings": True,
        "initializer_range": init,
        "bos_token_id": None,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    if arch == "qwen3":
        kw["head_dim"] = d // heads
    cfg = AutoConfig.for_model(arch, **kw)
    return AutoModelForCausalLM.from_config(cfg, attn_implementation="sdpa", dtype=torch.float32)


def encode(tok, ex, sft):
    """list of (ids, labels) for examples; prompt masked when sft"""
    out = []
    ps = tok([e["prompt"] for e in ex], add_special_tokens=False)["input_ids"]
    as_ = tok([e["answer"] + "<|im_end|>" for e in ex], add_special_tokens=False)["input_ids"]
    for p, a in zip(ps, as_, strict=False):
        out.append((p + a, ([-100] * len(p) if sft else p) + a))
    return out


def opt_for(model, lr, kind):
    ps = [p for p in model.parameters() if p.requires_grad]
    return [torch.optim.AdamW(ps, lr=lr, betas=(0.9, 0.95), weight_decay=0.01, fused=True)]


def train(
    model,
    seqs,
    tokens_per_batch=4096,
    epochs=1.0,
    lr=3e-3,
    kind="adamw",
    seed=0,
    log=20,
    max_s=None,
    bf16=False,
    warm=0.05,
    quiet=False,
    pad=0,
):
    """length-bucketed padded batches (right pad)."""
    rng = random.Random(seed)
    model.train()

    def batches():
        idx = list(range(len(seqs)))
        rng.shuffle(idx)
        idx.sort(key=lambda i: len(seqs[i][0]) + rng.random() * 8)
        out, cur, mx = [], [], 0
        for i in idx:
            m2 = max(mx, len(seqs[i][0]))
            if cur and m2 * (len(cur) + 1) > tokens_per_batch:
                out.append(cur)
                cur, m2 = [], len(seqs[i][0])
            cur.append(i)
            mx = m2
        if cur:
            out.append(cur)
        rng.shuffle(out)
        return out

    todo = []
    while len(todo) == 0 or epochs > 0:
        b = batches()
        k = len(b) if epochs >= 1 else max(1, int(len(b) * epochs))
        todo += b[:k]
        epochs -= 1
    opts = opt_for(model, lr, kind)
    n = len(todo)
    base = [[g["lr"] for g in o.param_groups] for o in opts]
    t0 = time.time()
    ntok = 0
    hist = []
    for s, b in enumerate(todo):
        f = min(1, (s + 1) / max(1, warm * n)) * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * s / n)))
        for o, bl in zip(opts, base, strict=False):
            for g, rate in zip(o.param_groups, bl, strict=False):
                g["lr"] = rate * f
        L = max(len(seqs[i][0]) for i in b)
        ids = torch.full((len(b), L), pad)
        lab = torch.full((len(b), L), -100)
        for r, i in enumerate(b):
            x, y = seqs[i]
            ids[r, : len(x)] = torch.tensor(x)
            lab[r, : len(y)] = torch.tensor(y)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            h = (
                model.base_model(input_ids=ids, use_cache=False)[0]
                if not hasattr(model, "peft_config")
                else model.base_model.model.model(input_ids=ids, use_cache=False)[0]
            )
            keep = lab[:, 1:] != -100
            hh = h[:, :-1][keep]
            lg = (model.lm_head if not hasattr(model, "peft_config") else model.base_model.model.lm_head)(hh)
        loss = F.cross_entropy(lg.float(), lab[:, 1:][keep])
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
        for o in opts:
            o.step()
            o.zero_grad(set_to_none=True)
        ntok += sum(len(seqs[i][0]) for i in b)
        hist.append(loss.item())
        if not quiet and (s % log == 0 or s == n - 1):
            print(
                f"  step {s + 1}/{n} loss {sum(hist[-log:]) / len(hist[-log:]):.3f} {ntok / (time.time() - t0):.0f} tok/s {time.time() - t0:.1f}s",
                flush=True,
            )
        if max_s and time.time() - t0 > max_s:
            break
    return {"loss": sum(hist[-20:]) / len(hist[-20:]), "wall": time.time() - t0, "tok_s": ntok / (time.time() - t0), "steps": s + 1}


@torch.no_grad()
def evaluate(model, tok, ex, max_new=160, greedy=True, bs=100, seed=0, temperature=1.0):
    model.eval()
    torch.manual_seed(seed)
    t0 = time.time()
    rows = []
    texts = []
    for i in range(0, len(ex), bs):
        b = ex[i : i + bs]
        enc = tok([e["prompt"] for e in b], return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False)
        enc.pop("token_type_ids", None)
        kw = {"do_sample": False} if greedy else {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        o = model.generate(**enc, max_new_tokens=max_new, eos_token_id=tok.eos_token_id, pad_token_id=tok.pad_token_id, **kw)
        for e, r in zip(b, o[:, enc["input_ids"].shape[1] :].tolist(), strict=False):
            fin = tok.eos_token_id in r
            if fin:
                r = r[: r.index(tok.eos_token_id)]
            t = tok.decode(r, skip_special_tokens=True)
            texts.append(t)
            rows.append({**world.score(e["facts"], t, fin), "len": len(r), "fin": float(fin)})
    m = {k: sum(r[k] for r in rows) / len(rows) for k in rows[0]}
    fl = [r for r in rows if r["flagged"]]
    nf = [r for r in rows if not r["flagged"]]
    m["em_when_needed"] = sum(r["em_said"] for r in fl) / max(1, len(fl))
    m["em_when_not"] = sum(r["em_said"] for r in nf) / max(1, len(nf))
    # "well-formed & follows the template": well and every step line that is present is exact
    ok = 0
    for e, t in zip(ex, texts, strict=False):
        want = set(world.steps(e["facts"]))
        th = t.split("</think>")[0].replace("<think>", "").strip().split("\n") if "</think>" in t else ["x"]
        ok += all(line in want for line in th if line)
    m["steps_exact"] = ok / len(ex)
    m["wall"] = time.time() - t0
    return m, texts
