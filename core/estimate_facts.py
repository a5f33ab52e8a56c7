"""The facts behind an estimate, read in a few milliseconds: the base's config.json, the dataset's lengths, the device, the teacher's
price, and how long earlier runs of the same kind took on this machine.

    estimate.json = core.estimates.estimate_ppo(config, facts_for("ppo", config, home))

torch is never loaded: the Jobs page asks while a person fills in the form. Called by app.jobs_form_widgets and by the trainings.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from core import estimates
from core.estimates import DeviceFacts, Facts, ModelFacts, TeacherFacts
from core.home import Home, current_home
from core.jobs.configs import JobConfig
from core.jobs.files import Metrics
from core.jobs.kinds import job_kind
from core.models import lineage
from core.records import JobStatus, VersionKind
from core.teacher.store import price_of
from db import tables as t
from db.engine import read_session

#: dense 16-bit FLOP/s and memory bandwidth in bytes/s by the vendor's data sheet, and the share of each that training reaches
GPUS = {
    "H200": (989e12, 4.8e12), "H100": (989e12, 3.35e12), "A100": (312e12, 1.9e12), "L40S": (362e12, 0.86e12), "L40": (181e12, 0.86e12),
    "A40": (150e12, 0.7e12), "A10": (125e12, 0.6e12), "L4": (121e12, 0.3e12), "5090": (210e12, 1.79e12), "4090": (165e12, 1.0e12),
    "3090": (71e12, 0.94e12), "V100": (125e12, 0.9e12), "T4": (65e12, 0.32e12),
}  # fmt: skip
UNKNOWN_GPU = (60e12, 0.5e12)
MODEL_FLOPS_USED, BANDWIDTH_USED = 0.3, 0.5
#: what one CPU core reaches in fp32 on the small matrices of a model that fits a CPU, and its share of the memory bandwidth
CPU_FLOPS, CPU_BANDWIDTH = 12e9, 6e9
#: tokens per character where no tokenizer lies beside the model
TOKENS_PER_CHAR = {"zh": 0.75, "en": 0.25}
#: prompts looked at for the mean length
SAMPLED = 200
EARLIER_RUNS = 5
#: the config field that names the version a job starts from
START = {"ppo": "sft_model", "grpo": "sft_model", "sft": "base_model", "evaluate": "models"}
SPLIT = {"ppo": "train", "grpo": "train", "sft": "train"}


def facts_for(kind: str, config: JobConfig, home: Home | None = None, *, with_earlier: bool = True) -> Facts:
    """Gather the facts for one config. What cannot be known (a hub model, a dataset not made yet) is None or 0, never an error."""
    home = home or current_home()
    with read_session() as session:
        base, adapter = _start(session, home, kind, config)
        texts, num_prompts = _texts(session, kind, config)
        earlier = _earlier(session, kind) if with_earlier else []
    model = model_facts(base) if base else None
    prompt_tokens, reference_tokens = _lengths(texts, base)
    device = device_facts(home.settings.device, home.settings.num_threads, int(getattr(config, "num_processes", 1)))
    facts = Facts(
        model=model,
        device=device,
        teacher=teacher_facts(home),
        num_prompts=num_prompts,
        prompt_tokens=prompt_tokens,
        reference_tokens=reference_tokens,
        response_tokens=_response_length(home, earlier, config),
        lora_r=_rank(adapter) or int(getattr(config, "lora_r", 16)),
    )
    return calibrated(kind, facts, home, earlier) if earlier else facts


def estimate_for(kind: str, values: dict[str, Any], home: Home | None = None) -> dict[str, Any] | None:
    """The estimate of a form's values; None while they are not valid or the kind has none."""
    if kind not in START:
        return None
    try:
        config = job_kind(kind).config.model_validate(values)
    except ValidationError:
        return None
    return estimates.estimate(kind, config, facts_for(kind, config, home))


def model_facts(folder: Path) -> ModelFacts | None:
    """A local base by its config.json and the sizes of its weight files; None when there is no readable config."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    config = config.get("text_config", config)
    try:
        hidden, layers, vocab = int(config["hidden_size"]), int(config["num_hidden_layers"]), int(config["vocab_size"])
        heads = int(config["num_attention_heads"])
        intermediate = int(config.get("intermediate_size", 4 * hidden))
    except (KeyError, TypeError, ValueError):
        return None
    kv_heads = int(config.get("num_key_value_heads") or heads)
    head_dim = int(config.get("head_dim") or hidden // heads)
    attention = hidden * head_dim * (2 * heads + 2 * kv_heads)
    embeddings = vocab * hidden * (1 if config.get("tie_word_embeddings", True) else 2)
    total = layers * (attention + 3 * hidden * intermediate + 2 * hidden) + embeddings + hidden
    return ModelFacts(total, layers, hidden, intermediate, vocab, heads, kv_heads, head_dim)


def device_facts(setting: str, num_threads: int, num_processes: int = 1) -> DeviceFacts:
    """The device in force, without torch: a GPU when nvidia-smi lists one and the setting does not say cpu."""
    cards = [] if setting == "cpu" else _gpus()
    if cards:
        name, memory = cards[0]
        flops, bandwidth = next((speed for mark, speed in GPUS.items() if mark in name), UNKNOWN_GPU)
        return DeviceFacts("cuda", name, flops * MODEL_FLOPS_USED, bandwidth * BANDWIDTH_USED, memory, num_processes)
    cores = num_threads or len(os.sched_getaffinity(0))
    memory = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return DeviceFacts("cpu", f"CPU, {cores} cores", CPU_FLOPS * cores, CPU_BANDWIDTH * cores, memory)


@lru_cache(maxsize=1)
def _gpus() -> list[tuple[str, float]]:
    """(name, bytes) per GPU as nvidia-smi lists them."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [line.rpartition(",") for line in done.stdout.splitlines() if "," in line]
    return [(name.strip(), float(size) * 2**20) for name, _, size in rows if size.strip().isdigit()]


def teacher_facts(home: Home) -> TeacherFacts:
    """The teacher of the settings and its price; None where no price is known."""
    settings = home.settings
    if not settings.teacher_base_url:
        return TeacherFacts("offline", True, 0.0, 0.0)
    price_in, price_out = teacher_price(settings.teacher_model)
    return TeacherFacts(settings.teacher_model, False, price_in, price_out)


def teacher_price(model: str) -> tuple[float | None, float | None]:
    """USD per million input and output tokens; (None, None) when the price table does not know the model."""
    with read_session() as session:
        price = price_of(session, model)
    return (price.input, price.output) if price else (None, None)


def calibrated(kind: str, facts: Facts, home: Home, earlier: Sequence[t.Job]) -> Facts:
    """`facts` with the median of actual / formula seconds over earlier runs of this kind here; the formula is applied to their configs
    as they were, so a longer run does not pass for a slower machine."""
    ratios: list[tuple[int, float]] = []
    for job in earlier:
        try:
            config = job_kind(kind).config.model_validate(job.config)
        except ValidationError:
            continue  # the kind's config has changed since
        before = estimates.estimate(kind, config, facts_for(kind, config, home, with_earlier=False))
        expected = before["seconds_uncalibrated"] if before else None
        if expected and job.started_at and job.finished_at:
            ratios.append((job.id, (job.finished_at - job.started_at).total_seconds() / expected))
    if not ratios:
        return facts
    values = {name: getattr(facts, name) for name in facts.__slots__}
    found = [ratio for _, ratio in ratios]
    seen = {"time_factor": statistics.median(found), "least_factor": min(found), "most_factor": max(found)}
    return Facts(**values | seen | {"num_earlier": len(ratios), "earlier_jobs": tuple(i for i, _ in ratios)})


def _earlier(session: Session, kind: str) -> list[t.Job]:
    """The newest runs of this kind that went through in one attempt, so that their duration is that of the work."""
    query = select(t.Job).where(t.Job.kind == kind, t.Job.status == JobStatus.SUCCEEDED.value, t.Job.attempt == 1, t.Job.restarts == 0)
    return list(session.scalars(query.order_by(t.Job.id.desc()).limit(EARLIER_RUNS)))


def _start(session: Session, home: Home, kind: str, config: JobConfig) -> tuple[Path | None, Path | None]:
    """(folder of the base, folder of the adapter started from), where they lie on this machine."""
    named = getattr(config, START.get(kind, ""), "")
    name = str(named[0] if isinstance(named, list) and named else named)
    row = session.scalar(select(t.ModelVersion).where(t.ModelVersion.name == name))
    if row is None:
        return (Path(name) if name and Path(name).is_dir() else None), None
    base = next((v for v in lineage(session, row) if v.kind == VersionKind.BASE), None)
    folder = home.resolve(base.path) if base else None
    adapter = home.resolve(row.path) if row.kind in (VersionKind.SFT, VersionKind.RL) else None
    return (folder if folder and folder.is_dir() else None), adapter


def _texts(session: Session, kind: str, config: JobConfig) -> tuple[list[tuple[str, str, str]], int]:
    """Some (language, prompt, reference) of what the job would read, and how many there are."""
    split = SPLIT.get(kind) or str(getattr(config, "split", "test"))
    owner = session.scalar(select(t.Dataset.id).where(t.Dataset.name == str(getattr(config, "dataset", ""))))
    if owner is None:
        return [], 0
    query = select(t.Sample.id).where(t.Sample.dataset_id == owner, t.Sample.split == split)
    if kind == "sft":
        query = query.where(t.Sample.reference.is_not(None))
    ids = list(session.scalars(query))
    picked = ids[:: max(1, len(ids) // SAMPLED)][:SAMPLED]
    rows = session.execute(select(t.Sample.language, t.Sample.messages, t.Sample.reference).where(t.Sample.id.in_(picked)))
    return [(lang, "\n".join(str(m.get("content", "")) for m in messages), reference or "") for lang, messages, reference in rows], len(ids)


def _lengths(texts: Sequence[tuple[str, str, str]], base: Path | None) -> tuple[float, float]:
    """Mean tokens of prompts and references, by the base's own tokenizer where it lies beside the weights."""
    if not texts:
        return 0.0, 0.0
    path = base / "tokenizer.json" if base else None
    if path is not None and path.is_file():
        tokenizer = _tokenizer(str(path), path.stat().st_mtime_ns)
        sizes = [(len(tokenizer.encode(p).ids) + 8, len(tokenizer.encode(r).ids)) for _, p, r in texts]
    else:
        sizes = [(round(len(p) * TOKENS_PER_CHAR[lang]) + 8, round(len(r) * TOKENS_PER_CHAR[lang])) for lang, p, r in texts]
    return statistics.fmean(p for p, _ in sizes), statistics.fmean(r for _, r in sizes)


@lru_cache(maxsize=2)
def _tokenizer(path: str, _changed: int) -> Any:
    from tokenizers import Tokenizer  # a rust library without torch

    return Tokenizer.from_file(path)


def _response_length(home: Home, earlier: Sequence[t.Job], config: JobConfig) -> float | None:
    """Mean tokens of an answer in the newest earlier run under the same limit; None when nobody has measured one."""
    for job in earlier:
        if job.config.get("max_new_tokens") != getattr(config, "max_new_tokens", None):
            continue
        metrics = Metrics(home.run_dir(job.id) / "metrics.jsonl")
        metrics.read()
        if points := metrics.series.get("val/response_length"):
            return statistics.fmean(value for _, value in points)
    return None


def _rank(adapter: Path | None) -> int | None:
    if adapter is None:
        return None
    try:
        return int(json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))["r"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
