import json, os, time, types, torch, torch.nn as nn


class RewardShim(nn.Module):
    """trl's PPOTrainer only takes a sequence-classification module: it calls getattr(m, m.base_model_prefix)(ids...).hidden_states[-1] and m.score(h).
    Pass the ids through as 'hidden states', decode them again in score(), find the row again by its prompt text."""

    base_model_prefix = "backbone"

    def __init__(self, tok, rows, reward_fn):
        super().__init__()
        self.tok, self.fn = tok, reward_fn
        self.by = {tok.decode(tok(r["prompt"], add_special_tokens=False)["input_ids"]): r for r in rows}
        self.backbone = _Pass()
        self.dummy = nn.Parameter(torch.zeros(1))
        self.asst = "<|im_start|>assistant\n"

    def score(self, h):
        ids = h[..., 0].long().tolist()
        eos, pad = self.tok.eos_token_id, self.tok.pad_token_id
        rows, texts, fin = [], [], []
        for s in ids:
            t = self.tok.decode([x for x in s if x != pad])
            p, _, c = t.partition(self.asst)
            rows.append(self.by[p + self.asst])
            fin.append("<|im_end|>" in c)
            texts.append(c.split("<|im_end|>")[0])
        r = torch.tensor(self.fn(rows, texts, fin), dtype=torch.float32)
        return r[:, None, None].expand(h.shape[0], h.shape[1], 1)


class _Pass(nn.Module):
    def forward(self, input_ids=None, **k):
        return types.SimpleNamespace(hidden_states=[input_ids[..., None].double()])


def train(model_dir, prompts_file, reward_fn, steps, out_dir, cfg):
    from trl.experimental import ppo as P
    from trl.experimental.ppo import PPOConfig, PPOTrainer
    import trl.experimental.ppo.ppo_trainer as mod
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, AutoModelForSequenceClassification
    from peft import LoraConfig

    tok = AutoTokenizer.from_pretrained(model_dir)
    m = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    vm = AutoModelForSequenceClassification.from_pretrained(model_dir, num_labels=1, dtype=torch.float32)
    nn.init.zeros_(vm.score.weight)
    rows = [json.loads(l) for l in open(prompts_file)]
    ds = Dataset.from_list([dict(input_ids=tok(r["prompt"], add_special_tokens=False)["input_ids"]) for r in rows])
    B = cfg["batch"]
    args = PPOConfig(
        output_dir=out_dir + "/hf",
        per_device_train_batch_size=B,
        gradient_accumulation_steps=1,
        num_mini_batches=B // cfg["minibatch"],
        num_ppo_epochs=cfg["epochs"],
        total_episodes=steps * B,
        response_length=cfg["max_new"],
        temperature=cfg["temperature"],
        kl_coef=cfg["beta"],
        learning_rate=cfg["lr"],
        lr_scheduler_type="constant",
        stop_token="eos",
        local_rollout_forward_batch_size=B,
        num_sample_generations=0,
        report_to=[],
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        logging_steps=50,
        save_strategy="no",
        seed=cfg["seed"],
        disable_tqdm=True,
        vf_coef=cfg.get("vf", 0.1),
        lam=cfg["lam"],
        **cfg.get("extra", {}),
    )
    torch.manual_seed(cfg["seed"])
    tr = PPOTrainer(
        args=args,
        processing_class=tok,
        model=m,
        ref_model=None,
        reward_model=RewardShim(tok, rows, reward_fn),
        train_dataset=ds,
        value_model=vm,
        eval_dataset=ds.select(range(8)),
        peft_config=LoraConfig(r=cfg["lora_r"], lora_alpha=2 * cfg["lora_r"], target_modules=cfg["targets"], task_type="CAUSAL_LM"),
    )
    times = {}

    def wrap(n, key):
        f = getattr(mod, n)

        def g(*a, **k):
            t = time.time()
            r = f(*a, **k)
            times[key] = times.get(key, 0) + time.time() - t
            return r

        setattr(mod, n, g)

    wrap("batch_generation", "generation")
    wrap("get_reward", "value+reward forward")
    wrap("forward", "ref forward + train forward")
    tr.train()
    f = tr.accelerator.unwrap_model(tr.model).policy.merge_and_unload()
    f.save_pretrained(out_dir + "/final")
    tok.save_pretrained(out_dir + "/final")
    return dict(times=times, trainable=sum(p.numel() for p in tr.model.parameters() if p.requires_grad))
