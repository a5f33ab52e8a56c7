"""Training configs as the field writes them (sft.yaml, grpo.yaml, accelerate_multi_gpu.yaml) -> the config of a job of ours.

Every key is known, or refused with its line: a typing error can never pass silently. Keys of other tools that change nothing here
(tracking, torch_dtype ...) are taken and said to be unused; those that would change something we do not do are refused unless they say
just what we do. Reads files and names of versions; starts nothing. Called by app.expansion_train_commands and the tests.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml  # type: ignore[import-untyped]
from sqlalchemy import select

from core.errors import UserError
from core.home import current_home
from core.i18n import error_text, translate
from core.jobs import forms
from core.jobs.configs import JobConfig
from core.records import VersionKind
from core.settings import load_settings
from db import tables as t
from db.engine import read_session

Stage = Literal["sft", "grpo"]
KIND: dict[Stage, str] = {"sft": "expansion_sft", "grpo": "expansion_grpo"}
#: section.key -> (our field, type); "" is a field that is computed from several keys
Key = tuple[str, str]
SHARED: dict[str, Key] = {
    "model.output": ("name", "text"),
    "dataset.name": ("data", "text"),
    "dataset.max_samples": ("max_samples", "whole"),
    "training.batch_size": ("", "whole"),
    "training.gradient_accumulation_steps": ("", "whole"),
    "training.learning_rate": ("learning_rate", "number"),
    "training.save_steps": ("save_steps", "whole"),
    "training.seed": ("seed", "whole"),
    "lora.rank": ("lora_r", "whole"),
    "lora.alpha": ("lora_alpha", "whole"),
    "lora.target_modules": ("target_modules", "list"),
}
KEYS: dict[Stage, dict[str, Key]] = {
    "sft": {
        **SHARED,
        "model.base": ("base_model", "text"),
        "training.epochs": ("num_epochs", "number"),
        "training.max_length": ("max_length", "whole"),
    },
    "grpo": {
        **SHARED,
        "model.sft": ("sft_model", "text"),
        "dataset.corpus": ("corpus", "text"),
        "training.max_steps": ("num_steps", "whole"),
        "training.max_grad_norm": ("max_grad_norm", "number"),
        "grpo.num_generations": ("num_generations", "whole"),
        "grpo.max_completion_length": ("max_new_tokens", "whole"),
        "grpo.beta": ("beta", "number"),
        "grpo.temperature": ("temperature", "number"),
    },
}
#: taken, and without effect: the base of GRPO is that of its SFT, precision follows the device, files are ours
UNUSED = (
    *("model.torch_dtype", "dataset.text_field", "dataset.prompt_field", "dataset.split", "dataset.eval_split", "training.logging_steps"),
    *("training.save_interval_minutes", "training.save_total_limit", "training.eval_steps", "training.ddp_find_unused_parameters"),
    *("tracking.project", "tracking.run_name"),
)
UNUSED_IN: dict[Stage, tuple[str, ...]] = {"sft": UNUSED, "grpo": (*UNUSED, "model.base", "training.epochs")}
#: what these can only be
ONLY: dict[str, Any] = {
    "model.push_to_hub": False,
    "model.load_in_4bit": False,
    "model.load_in_8bit": False,
    "lora.dropout": 0.0,
    "training.lr_scheduler": {"sft": "cosine", "grpo": "linear"},
    "training.warmup_ratio": {"sft": 0.05, "grpo": 0.0},
}
REQUIRED: dict[Stage, tuple[str, ...]] = {
    "sft": ("model.base", "model.output", "dataset.name"),
    "grpo": ("model.sft", "model.output", "dataset.name"),
}
TYPES: dict[str, Callable[[Any], bool]] = {
    "whole": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "number": lambda v: isinstance(v, int | float) and not isinstance(v, bool),
    "text": lambda v: isinstance(v, str),
    "list": lambda v: isinstance(v, list) and all(isinstance(item, str) for item in v),
}
ACCELERATE = ("compute_environment", "distributed_type", "num_machines", "num_processes", "mixed_precision", "use_cpu", "machine_rank")
ACCELERATE_UNUSED = ("debug", "downcast_bf16", "enable_cpu_affinity", "gpu_ids", "main_training_function", "rdzv_backend", "same_network")
ACCELERATE_ONLY: dict[str, tuple[Any, ...]] = {
    "compute_environment": ("LOCAL_MACHINE",),
    "distributed_type": ("MULTI_GPU", "NO"),
    "num_machines": (1,),
    "machine_rank": (0,),
    "use_cpu": (False,),
    "mixed_precision": ("bf16", "no"),
}


@dataclass(frozen=True, slots=True)
class Value:
    """A value with its line, from 1."""

    value: Any
    line: int


@dataclass(frozen=True, slots=True)
class Asked:
    """A checked config: the job kind, its values, and the keys that were taken without effect, with their lines."""

    kind: str
    config: JobConfig
    unused: tuple[tuple[str, int], ...]


def read(path: Path, stage: Stage, *, accelerate: Path | None = None) -> Asked:
    """The job that a YAML file asks for. Raises UserError("expansion_training.yaml_...") with the line and the fix."""
    found = _flat(path, stage)
    known, unused, file = KEYS[stage], UNUSED_IN[stage], path.name
    values: dict[str, Any] = {}
    lines: dict[str, int] = {}
    left: list[tuple[str, int]] = []
    for key, given in found.items():
        if key in known:
            field, kind = known[key]
            _check_type(file, key, given, kind)
            if field:
                values[field], lines[field] = given.value, given.line
        elif key in ONLY:
            wanted = ONLY[key][stage] if isinstance(ONLY[key], dict) else ONLY[key]
            if given.value != wanted:
                raise UserError("expansion_training.yaml_unsupported", file=file, line=given.line, name=key, only=_shown(wanted))
        elif key in unused:
            left.append((key, given.line))
        else:
            raise _unknown(file, key, given.line, [*known, *ONLY, *unused])
    for key in REQUIRED[stage]:
        if key not in found:
            fix = translate("expansion_training.yaml_add_line", _language(), section=key.partition(".")[0])
            raise UserError("expansion_training.yaml_missing", file=file, name=key, fix=fix)
    processes = _processes(accelerate) if accelerate else 1
    one, steps = (found[k].value if k in found else None for k in ("training.batch_size", "training.gradient_accumulation_steps"))
    if one or steps:
        values["micro_batch_size"] = one or 1
        values["batch_size"] = (one or 1) * (steps or 1) * processes
        counted = found["training.batch_size" if one else "training.gradient_accumulation_steps"]
        lines["batch_size"] = lines["micro_batch_size"] = counted.line
    if processes > 1:
        values["num_processes"] = processes
    wrong = forms.problems(KIND[stage], values)
    for field, error in wrong.items():
        line = lines.get(field, next(iter(lines.values()), 1))
        raise UserError("expansion_training.yaml_value", file=file, line=line, reason=error_text(error, _language()))
    _check_start(file, stage, found)
    return Asked(KIND[stage], forms.validated(KIND[stage], values), tuple(left))


def _flat(path: Path, stage: str) -> dict[str, Value]:
    """section.key -> value with its line."""
    root = _composed(path, stage)
    found: dict[str, Value] = {}
    for section, body, line in _pairs(path.name, root):
        if not isinstance(body, yaml.MappingNode):
            raise UserError("expansion_training.yaml_not_sections", file=path.name, line=line)
        for key, node, at in _pairs(path.name, body):
            found[f"{section}.{key}"] = Value(_constructed(path.name, node, at), at)
    return found


def _constructed(file: str, node: yaml.Node, line: int) -> Any:
    """The value of a node; a tag that makes no plain value, or a date that is none, is told with its line."""
    try:
        return yaml.SafeLoader("").construct_object(node, deep=True)
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, RecursionError) as error:
        reason = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise UserError("expansion_training.yaml_broken", file=file, line=line, reason=reason) from error


def _composed(path: Path, stage: str) -> yaml.MappingNode:
    if not path.is_file():
        raise UserError("expansion_training.yaml_no_file", file=path, kind=stage)
    try:
        root = yaml.compose(path.read_text(encoding="utf-8-sig"), Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = error.problem or "?"
        raise UserError("expansion_training.yaml_broken", file=path.name, line=mark.line + 1 if mark else 1, reason=reason) from error
    except RecursionError as error:
        raise UserError("expansion_training.yaml_broken", file=path.name, line=1, reason="nested too deeply") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError("expansion_training.yaml_broken", file=path.name, line=1, reason=str(error).splitlines()[0]) from error
    if root is None:
        raise UserError("expansion_training.yaml_empty", file=path.name, kind=stage)
    if not isinstance(root, yaml.MappingNode):
        raise UserError("expansion_training.yaml_not_sections", file=path.name, line=root.start_mark.line + 1)
    return root


def _pairs(file: str, node: yaml.MappingNode) -> list[tuple[str, yaml.Node, int]]:
    """(key, value, line) in order; a key that stands twice is refused (YAML would take the last)."""
    found: dict[str, tuple[str, yaml.Node, int]] = {}
    for key, value in node.value:
        name, line = str(key.value), key.start_mark.line + 1
        if name in found:
            raise UserError("expansion_training.yaml_twice", file=file, line=line, name=name)
        found[name] = (name, value, line)
    return list(found.values())


def _check_type(file: str, key: str, given: Value, kind: str) -> None:
    if not TYPES[kind](given.value):
        expected = translate(f"expansion_training.type_{kind}", _language())
        shown = _shown(given.value)
        raise UserError("expansion_training.yaml_type", file=file, line=given.line, name=key, expected=expected, value=shown)


def _unknown(file: str, key: str, line: int, known: list[str]) -> UserError:
    section, _, name = key.partition(".")
    beside = [k for k in known if k.startswith(section + ".")] or known
    near = difflib.get_close_matches(key, known, 1, 0.75) or [k for k in known if name and k.endswith("." + name)][:1]
    fix = (
        translate("expansion_training.yaml_did_you_mean", _language(), near=near[0])
        if near
        else translate("expansion_training.yaml_known", _language(), known=", ".join(beside))
    )
    return UserError("expansion_training.yaml_unknown", file=file, line=line, name=key, fix=fix)


def _check_start(file: str, stage: Stage, found: dict[str, Value]) -> None:
    """The base (or SFT) that is named must be there; a name on the hub counts when the settings allow to ask it."""
    given = found["model.base" if stage == "sft" else "model.sft"]
    name = str(given.value)
    with read_session() as session:
        rows = list(session.scalars(select(t.ModelVersion).order_by(t.ModelVersion.id.desc())))
    if stage == "grpo":
        usable = [row.name for row in rows if row.task == "expansion" and row.kind == VersionKind.SFT]
        if name not in usable:
            known = ", ".join(usable[:5]) or "–"
            raise UserError("expansion_training.yaml_wrong_start", file=file, line=given.line, base=name, known=known)
        return
    bases = [row.name for row in rows if row.kind in (VersionKind.BASE, VersionKind.SFT)]
    is_folder = (current_home().root / Path(name).expanduser() / "config.json").is_file()
    if name in bases or is_folder or (name.count("/") == 1 and _may_ask_hub()):
        return
    known = ", ".join(bases[:5]) or "–"
    raise UserError("expansion_training.yaml_wrong_base", file=file, line=given.line, base=name, known=known)


def _may_ask_hub() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "") not in ("1", "true", "TRUE", "yes", "on")


def _processes(path: Path) -> int:
    """num_processes of an accelerate config. Raises UserError for a setting that we do not run."""
    file, number = path.name, 1
    for key, node, line in _pairs(file, _composed(path, "accelerate_multi_gpu")):
        value = _constructed(file, node, line)
        if key in ACCELERATE_UNUSED:
            continue
        if key not in ACCELERATE:
            raise _unknown(file, key, line, [*ACCELERATE, *ACCELERATE_UNUSED])
        if key == "num_processes":
            _check_type(file, key, Value(value, line), "whole")
            number = value
        elif _norm(value) not in map(_norm, ACCELERATE_ONLY[key]):
            only = " / ".join(map(_shown, ACCELERATE_ONLY[key]))
            raise UserError("expansion_training.yaml_unsupported", file=file, line=line, name=key, only=only)
    return number


def _norm(value: Any) -> str:
    """YAML reads a bare no as false; accelerate writes 'no' and NO for the same."""
    return {"false": "no"}.get(str(value).lower(), str(value).lower())


def _shown(value: Any) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)


def _language() -> str:
    """The fix inside a sentence is in the language of the command line; pages do not read YAML."""
    return load_settings().language
