"""Query expansion, stage two: GRPO with the expansion reward on top of the merged SFT.

As the field does it (github tobi/qmd, finetune/configs/grpo.yaml): the SFT adapter is merged into the base in memory, a small fresh
adapter (r4 on q and v) is trained, and the KL to the merged SFT holds it (beta above 0; the config refuses anything else). The update is
trl's through `training.trl_grpo`; the reward is `core.expansion.reward` with its retrieval term where the corpus knows the query. At
the end both adapters are stacked into one, exactly, so that the version is base + one adapter like any other.

    python -m training.expansion_grpo --run-dir DIR      (job kind expansion_grpo; num_processes > 1: under accelerate launch)

A run killed at any moment and resumed repeats the uninterrupted one: queries, samples and seeds follow from (seed, update) alone.
"""

from __future__ import annotations

import json
import math
import random
import time
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from safetensors.torch import load_file, save_file
from torch import Tensor, cat, manual_seed

from core.errors import UserError
from core.expansion import reward
from core.expansion.grounding import Grounding
from core.expansion.runs import rows_of
from core.jobs.configs_expansion_training import ExpansionGRPOConfig
from core.models import check_name_free, get_version
from core.policy import Policy, VersionFiles, version_files
from db import tables as t
from db.engine import read_session
from training import trl_common
from training.causal import adapter_tensors, num_parameters, prepare
from training.expansion_common import chat, open_grounding, score, valid_share
from training.expansion_sft import check_projections
from training.ppo_files import SAMPLES
from training.rl_version import register_rl
from training.run import Run, main
from training.trl_grpo import Shared, grpo_trainer

#: trl's names -> the field's
METRICS = {
    "loss": "loss/policy_avg",
    "grad_norm": "policy/grad_norm",
    "learning_rate": "lr",
    "kl": "objective/kl_k3_token",
    "entropy": "policy/entropy_avg",
    "frac_reward_zero_std": "val/groups_without_signal",
}
Scored = tuple[int, str, bool, float, reward.Score]


class Progress(trl_common.RunCallback):
    """Scores the completions of each update, and writes metrics and a table of samples."""

    def __init__(
        self,
        run: Run,
        plan: trl_common.Plan,
        config: ExpansionGRPOConfig,
        policy: Policy,
        queries: list[list[str]],
        grounding: Grounding | None,
    ) -> None:
        super().__init__(run, plan, METRICS)
        self.config, self.policy, self.queries, self.grounding = config, policy, queries, grounding
        self.history: list[dict[str, float]] = []
        self._own: list[Scored] = []
        self._all: list[Scored] = []
        self._shared: Shared | None = None
        self._number, self._began = 0, time.monotonic()

    # --- what training.trl_grpo asks for -----------------------------------------------------------------------------------

    def begin(self, number: int) -> None:
        self._number, self._own, self._began = number, [], time.monotonic()

    def on_finished(self, row: int, ids: list[int]) -> None:
        query = self.queries[self._number][row // self.config.num_generations]
        text, is_finished = self.policy.decode(ids), ids[-1] in self.policy.eos_ids
        self._own.append((row, text, is_finished, *score(query, text, is_finished=is_finished, grounding=self.grounding)))

    def scores(self) -> list[float]:
        rows = gather_object(self._own) if trl_common.num_processes() > 1 else self._own
        self._all = sorted(rows, key=lambda row: row[0])
        return [row[3] for row in self._all]

    def after(self, rollout: Shared) -> None:
        if rollout.number == 0 and (gap := max(map(abs, rollout.kl))) > 1e-3:
            raise AssertionError(f"policy and reference differ by {gap} nats before the first update")
        self._shared = rollout

    # --- what trl calls ------------------------------------------------------------------------------------------------------

    def translate(self, logs: dict[str, Any]) -> dict[str, float]:
        """The metrics of the update that has just ended."""
        shared = self._shared
        if shared is None:  # the summary that trl logs at the end
            return {}
        found, size = self._all, len(self._all)
        parts = [row[4] for row in found]
        kl = sum(shared.kl) / size
        metrics = super().translate(logs) | {
            "objective/scores": sum(row[3] for row in found) / size,
            "objective/kl": kl,
            "objective/kl_coef": self.config.beta,
            "objective/rlhf_reward": sum(row[3] for row in found) / size - self.config.beta * kl,
            "reward/rubric": sum(p.rubric for p in parts) / size,
            "reward/failed": sum(p.has_failed for p in parts) / size,
            "val/finished_ratio": sum(row[2] for row in found) / size,
            "val/response_length": sum(shared.num_tokens) / size,
            "seconds": time.monotonic() - self._began,
        }
        grounded = [p.grounded for p in parts if p.grounded is not None]
        if grounded:
            metrics["reward/grounded"] = sum(grounded) / len(grounded)
        if (lines := valid_share([row[1] for row in found])) is not None:
            metrics["reward/valid_lines"] = lines
        metrics |= {f"parts/{name}": sum(p.dimensions[name] for p in parts) / size for name in parts[0].dimensions}
        self.history.append({"step": float(shared.number + 1), **metrics})
        done = shared.number + 1
        if self.run.is_main and (done % self.config.sample_steps == 0 or done in (1, self.config.num_steps)):
            self._write_samples(done, shared)
        print(f"update {done}/{self.config.num_steps} reward {metrics['objective/scores']:.3f} kl {kl:.3f}", flush=True)
        self._shared = None
        return metrics

    def _write_samples(self, done: int, shared: Shared) -> None:
        with (self.run.dir / SAMPLES).open("a", encoding="utf-8") as file:
            for row, text, _finished, value, found in self._all:
                query = self.queries[shared.number][row // self.config.num_generations]
                line = {
                    "rollout": done,
                    "prompt": query,
                    "completion": text,
                    "score": value,
                    "kl": shared.kl[row],
                    "parts": found.dimensions,
                }
                file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.history = state["history"]
        path = self.run.dir / SAMPLES
        if self.run.is_main and path.is_file():
            lines = [line for line in path.read_text("utf-8").splitlines() if line.endswith("}")]
            kept = [line for line in lines if json.loads(line)["rollout"] <= len(self.history)]
            path.write_text("".join(line + "\n" for line in kept), "utf-8")


def train(run: Run) -> None:
    """GRPO from an expansion SFT."""
    learn(run, run.config(ExpansionGRPOConfig))


def learn(run: Run, config: ExpansionGRPOConfig) -> None:
    """The training itself; experiments call it with a config of their own making."""
    # 1. What a person can mend is said before a model is loaded.
    with read_session() as session:
        check_name_free(session, config.name, job_id=run.job_id)
        start = get_version(session, config.sft_model)
        files = version_files(session, run.home, start)
    queries = sorted({row.query for row in rows_of(config.data, ("train",), run.home)})
    if not queries:
        raise UserError("expansion_training.no_rows", data=config.data, split="train")
    grounding = open_grounding(run.home, config.corpus)
    asked = choose(queries, config)
    known = {query for chosen in asked for query in chosen}
    num_grounded = sum(bool(grounding.relevant(query)) for query in known) if grounding else 0
    print(f"{len(known)} queries, {num_grounded} with a known relevant passage", flush=True)

    # 2. The merged SFT with a fresh small adapter.
    policy = load_merged(run, files, config)
    prepare(run.home, config.seed, num_parameters(policy.model))
    plan = trl_common.Plan(
        phase="grpo",
        batch_size=config.batch_size,
        micro_batch_size=config.micro_batch_size,
        learning_rate=config.learning_rate,
        seed=config.seed,
        save_steps=config.save_steps,
        max_steps=config.num_steps,
        log_steps=1,
        gradient_checkpointing=config.gradient_checkpointing,
        schedule="linear",
        weight_decay=0.0,
        max_grad_norm=config.max_grad_norm,
    )
    progress = Progress(run, plan, config, policy, asked, grounding)
    trainer = grpo_trainer(
        run,
        policy,
        VersionFiles(files.base, None),  # the adapter that is trained is a fresh one; the SFT is inside the merged weights
        [chat(query) for chosen in asked for query in chosen],
        plan,
        progress,
        progress,
        num_generations=config.num_generations,
        generation_batch_size=config.batch_size,
        num_iterations=1,
        beta=config.beta,
        loss_type="dapo",
        max_completion_length=config.max_new_tokens,
        temperature=config.temperature,
    )

    # 3. Train, stack the two adapters, register.
    if run.is_main and not run.checkpoints.exists():
        (run.dir / SAMPLES).unlink(missing_ok=True)
    trl_common.fit(run, trainer, progress)
    if progress.checks:
        progress.checks()
    if run.is_main:
        finish(run, config, policy, files, start, progress.history, num_grounded / len(known))


def choose(queries: list[str], config: ExpansionGRPOConfig) -> list[list[str]]:
    """For every update its distinct queries: shuffled passes over at most `max_samples` of them."""
    rng, size = random.Random(f"expansion-grpo-{config.seed}"), config.batch_size // config.num_generations
    pool = rng.sample(queries, min(config.max_samples or len(queries), len(queries)))
    if len(pool) < size:
        raise UserError("expansion_training.too_few_queries", num=len(pool), needed=size)
    order: list[str] = []
    while len(order) < config.num_steps * size:
        order += rng.sample(pool, len(pool))
    return [order[i * size : (i + 1) * size] for i in range(config.num_steps)]


def load_merged(run: Run, files: VersionFiles, config: ExpansionGRPOConfig) -> Policy:
    """The start version as one set of weights, with a fresh trainable adapter (B = 0) under trl's name."""
    from peft import LoraConfig, PeftModel, get_peft_model

    policy = Policy.load(run.home, files.base, trl_common.place(run.home))
    if files.adapter is not None:
        policy.adopt(PeftModel.from_pretrained(policy.model, str(files.adapter)).merge_and_unload(), {})
    check_projections(policy, config.sft_model, list(config.target_modules))
    manual_seed(config.seed)
    lora = LoraConfig(
        r=config.lora_r, lora_alpha=config.lora_alpha, target_modules=list(config.target_modules), lora_dropout=0.0, task_type="CAUSAL_LM"
    )
    model = get_peft_model(policy.model, lora, adapter_name=trl_common.TRL_POLICY)
    model.peft_config[trl_common.TRL_POLICY].base_model_name_or_path = files.base  # a path: by a bare name PEFT would ask the hub
    policy.adopt(model, {trl_common.POLICY: trl_common.TRL_POLICY})
    trl_common.give_padding(policy)
    return policy


def finish(
    run: Run,
    config: ExpansionGRPOConfig,
    policy: Policy,
    files: VersionFiles,
    start: t.ModelVersion,
    history: list[dict[str, float]],
    grounded_share: float,
) -> None:
    """Write models/rl/NAME: the SFT adapter and the new one as one adapter on the same base, and register it."""
    with read_session() as session:
        base = start if files.adapter is None else session.get_one(t.ModelVersion, start.base_version_id)
    tensors = {name: tensor.cpu() for name, tensor in adapter_tensors(policy, trl_common.POLICY).items()}
    lora = policy.model.peft_config[trl_common.TRL_POLICY]
    lora.base_model_name_or_path = base.name

    def save(folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        mine = lora.to_dict() | {"inference_mode": True}
        write_stacked(folder, files.adapter, tensors, mine)

    last = history[-5:]
    final = {name: sum(h.get(name, math.nan) for h in last) / len(last) for name in ("objective/scores", "objective/kl")}
    manifest = {
        "method": "expansion_grpo",
        "dataset": {"name": config.data, "split": "train"},
        "corpus": config.corpus,
        "grounded_share": grounded_share,
        "kl": final["objective/kl"],
        "metrics": history[-1],
    }
    digest = register_rl(run, config.name, config, start, base.id, save, manifest, records=(SAMPLES,), task="expansion")
    run.result(
        version=config.name,
        content_hash=digest,
        num_samples=len(history) * config.batch_size,
        first_score=history[0]["objective/scores"],
        last_score=final["objective/scores"],
        kl=final["objective/kl"],
        grounded_share=grounded_share,
        seconds=sum(h["seconds"] for h in history),
    )


def write_stacked(folder: Path, first: Path | None, second: dict[str, Tensor], config: dict[str, Any]) -> None:
    """One adapter that adds what both add: ranks side by side, each with its own scale put into B.

    B1 A1 s1 + B2 A2 s2 = [s1 B1, s2 B2] [A1; A2], so the stacked adapter has scale 1 (alpha = rank); exact up to rounding.
    """
    earlier = load_file(first / "adapter_model.safetensors") if first else {}
    before = json.loads((first / "adapter_config.json").read_text(encoding="utf-8")) if first else config
    own = {"r": config["r"], "scale": config["lora_alpha"] / config["r"]}
    old = {"r": before["r"], "scale": before["lora_alpha"] / before["r"]}
    stacked: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    for name in sorted({*earlier, *second}):
        is_b = ".lora_B." in name
        parts = [side[name] * (scale if is_b else 1.0) for side, scale in ((earlier, old["scale"]), (second, own["scale"])) if name in side]
        stacked[name] = cat(parts, 1 if is_b else 0).contiguous()
        ranks[name.split(".lora_")[0].removeprefix("base_model.model.").rpartition(".")[2]] = stacked[name].shape[1 if is_b else 0]
    modules = sorted(ranks)
    standard = max(ranks.values())
    odd = {module: rank for module, rank in ranks.items() if rank != standard}
    target = {
        **config,
        "r": standard,
        "lora_alpha": standard,
        "target_modules": modules,
        "rank_pattern": odd,
        "alpha_pattern": odd,
    }
    save_file(stacked, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps(target, indent=1, default=_plain), encoding="utf-8")


def _plain(value: Any) -> Any:
    """PEFT's config holds sets and enums."""
    return sorted(value) if isinstance(value, set | frozenset) else str(getattr(value, "value", value))


if __name__ == "__main__":
    main(train)
