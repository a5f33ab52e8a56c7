import json, time, torch

KIND = "grpo"


def train(model_dir, prompts_file, reward_fn, steps, out_dir, cfg):
    import trl
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from peft import LoraConfig

    kind = cfg.get("kind", KIND)
    C, T = (trl.GRPOConfig, trl.GRPOTrainer) if kind == "grpo" else (trl.RLOOConfig, trl.RLOOTrainer)
    tok = AutoTokenizer.from_pretrained(model_dir)
    m = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    rows = [json.loads(l) for l in open(prompts_file)]
    ds = Dataset.from_list([dict(prompt=r["prompt"], row=json.dumps(r)) for r in rows])
    eos = tok.eos_token_id

    def rf(prompts, completions, completion_ids, row, **kw):
        return reward_fn([json.loads(x) for x in row], completions, [bool(c) and c[-1] == eos for c in completion_ids])

    B, mb = cfg["batch"], cfg["minibatch"]
    args = C(
        output_dir=out_dir + "/hf",
        per_device_train_batch_size=mb,
        gradient_accumulation_steps=1,
        steps_per_generation=B // mb,
        num_iterations=cfg["epochs"],
        num_generations=cfg.get("group", 8),
        max_completion_length=cfg["max_new"],
        temperature=cfg["temperature"],
        beta=cfg["beta"],
        learning_rate=cfg["lr"],
        lr_scheduler_type="constant",
        max_steps=steps * (B // mb) * cfg["epochs"],
        logging_steps=50,
        save_strategy="no",
        report_to=[],
        seed=cfg["seed"],
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        disable_tqdm=True,
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
        **cfg.get("extra", {}),
    )
    tr = T(
        model=m,
        reward_funcs=rf,
        args=args,
        train_dataset=ds,
        processing_class=tok,
        peft_config=LoraConfig(r=cfg["lora_r"], lora_alpha=2 * cfg["lora_r"], target_modules=cfg["targets"], task_type="CAUSAL_LM"),
    )
    times = {}

    def wrap(o, n):
        f = getattr(o, n)

        def g(*a, **k):
            t = time.time()
            r = f(*a, **k)
            times[n] = times.get(n, 0) + time.time() - t
            return r

        setattr(o, n, g)

    for n in (
        "_generate_single_turn",
        "_generate_and_score_completions",
        "_calculate_rewards",
        "training_step",
        "_prepare_inputs",
        "compute_loss",
    ):
        if hasattr(tr, n):
            wrap(tr, n)
    tr.train()
    f = tr.accelerator.unwrap_model(tr.model).merge_and_unload()
    if "forward" in f.__dict__:
        del f.__dict__["forward"]
    f.save_pretrained(out_dir + "/final")
    tok.save_pretrained(out_dir + "/final")
    return dict(times=times)
