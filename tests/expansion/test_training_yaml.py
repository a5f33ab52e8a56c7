"""YAML as the field writes it: the shipped files are read, and every mistake is one sentence with its line and the fix."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import UserError
from core.expansion import runs_yaml
from core.home import Home
from core.i18n import error_text
from core.settings import ROOT
from db.engine import write_session
from tests import factories

CONFIGS = ROOT / "assets" / "expansion" / "configs"


@pytest.fixture
def versions(home: Home) -> Home:
    with write_session() as session:
        factories.version(session, "base", name="Qwen/Qwen3-1.7B")
        factories.version(session, "sft", name="expansion-sft", task="expansion")
        factories.version(session, "sft", name="doctor-sft")
    return home


def written(folder: Path, stage: str, *changes: tuple[str, str]) -> Path:
    """The shipped file with some of its text replaced."""
    text = (CONFIGS / f"{stage}.yaml").read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    path = folder / f"{stage}.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def line_of(path: Path, text: str) -> int:
    return next(n for n, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1) if text in line)


def test_the_shipped_files_ask_for_what_the_field_does(versions: Home) -> None:
    sft = runs_yaml.read(CONFIGS / "sft.yaml", "sft").config.model_dump()
    assert (sft["lora_r"], sft["batch_size"], sft["micro_batch_size"], sft["learning_rate"]) == (16, 16, 4, 2e-4)
    assert len(sft["target_modules"]) == 7
    grpo = runs_yaml.read(CONFIGS / "grpo.yaml", "grpo").config.model_dump()
    assert (grpo["lora_r"], grpo["beta"], grpo["num_generations"], grpo["num_steps"]) == (4, 0.04, 4, 200)
    assert grpo["target_modules"] == ["q_proj", "v_proj"]
    many = runs_yaml.read(CONFIGS / "sft.yaml", "sft", accelerate=CONFIGS / "accelerate_multi_gpu.yaml").config.model_dump()
    assert (many["num_processes"], many["batch_size"]) == (4, 64)


@pytest.mark.parametrize(
    ("stage", "old", "new", "code", "at", "said"),
    [
        ("sft", "  epochs: 5", "  epoch: 5", "yaml_unknown", "epoch: 5", "training.epochs"),
        ("sft", "lora:", "lorra:", "yaml_unknown", "rank: 16", "lora.rank"),
        ("sft", "  epochs: 5", "  epochs: five", "yaml_type", "epochs: five", "five"),
        ("sft", "  batch_size: 4 ", "  batch_size: 4.5 ", "yaml_type", "batch_size: 4.5", "4.5"),
        ("sft", "  max_length: 512", "  max_length: 512\n  max_length: 256", "yaml_twice", "max_length: 256", "max_length"),
        ("sft", '"Qwen/Qwen3-1.7B" ', '"Qwen9" ', "yaml_wrong_base", "Qwen9", "Qwen/Qwen3-1.7B"),
        ("sft", "  dropout: 0.0", "  dropout: 0.5", "yaml_unsupported", "dropout: 0.5", "0.0"),
        ("sft", '    - "q_proj"', '    - "query"', "yaml_value", "target_modules", "q_proj"),
        ("sft", "lora:\n", "lora: [1, 2\n", "yaml_broken", "", ""),
        ("grpo", "beta: 0.04", "beta: 0", "yaml_value", "beta: 0", "0.04"),
        ("grpo", "num_generations: 4", "num_generations: 5", "yaml_value", "num_generations: 5", "16"),
        ("grpo", '"expansion-sft" ', '"doctor-sft" ', "yaml_wrong_start", "doctor-sft", "expansion-sft"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_the_fix(
    versions: Home, tmp_path: Path, stage: runs_yaml.Stage, old: str, new: str, code: str, at: str, said: str
) -> None:
    path = written(tmp_path, stage, (old, new))
    with pytest.raises(UserError) as caught:
        runs_yaml.read(path, stage)
    assert caught.value.code == f"expansion_training.{code}"
    if at:
        assert caught.value.params["line"] == line_of(path, at)
    for language in ("en", "zh"):
        sentence = error_text(caught.value, language)
        assert said in sentence
        assert "{" not in sentence
        assert str(caught.value.params["line"]) in sentence


def test_what_is_missing_or_empty_says_where_to_begin(versions: Home, tmp_path: Path) -> None:
    path = written(tmp_path, "sft", ('  output: "expansion-sft"', "  # output"))
    with pytest.raises(UserError, match="yaml_missing") as caught:
        runs_yaml.read(path, "sft")
    assert "model.output" in error_text(caught.value, "en")
    empty = tmp_path / "empty.yaml"
    empty.write_text("# nothing\n")
    with pytest.raises(UserError, match="yaml_empty"):
        runs_yaml.read(empty, "grpo")
    with pytest.raises(UserError, match="yaml_no_file"):
        runs_yaml.read(tmp_path / "gone.yaml", "sft")


def test_keys_of_other_tools_are_taken_and_said_to_be_unused(versions: Home, tmp_path: Path) -> None:
    path = written(tmp_path, "grpo", ("model:\n", 'model:\n  torch_dtype: "bfloat16"\n  push_to_hub: false\n'))
    asked = runs_yaml.read(path, "grpo")
    assert asked.unused == (("model.torch_dtype", line_of(path, "torch_dtype")),)


def test_accelerate_that_we_do_not_run_is_refused(versions: Home, tmp_path: Path) -> None:
    path = written(tmp_path, "accelerate_multi_gpu", ('"MULTI_GPU"', '"DEEPSPEED"'))
    with pytest.raises(UserError, match="yaml_unsupported") as caught:
        runs_yaml.read(CONFIGS / "sft.yaml", "sft", accelerate=path)
    assert caught.value.params["line"] == line_of(path, "DEEPSPEED")
