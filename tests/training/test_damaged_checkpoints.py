"""A checkpoint that cannot be read costs the steps since the one before it, and says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from training.causal import load_checkpoint, save_checkpoint


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped"])
def test_the_one_before_a_damaged_checkpoint_is_used(tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str) -> None:
    for step in (5, 10):
        save_checkpoint(tmp_path, step, {"weights": {"a": torch.arange(2000.0) + step}})
    newest = tmp_path / "step-0000010" / "state.pt"
    whole = newest.read_bytes()
    newest.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "flipped": whole[:40] + b"\xff" * 60 + whole[100:]}[damage])
    state = load_checkpoint(tmp_path)
    assert state is not None
    assert state["step"] == 5
    assert "step-0000010 is damaged" in capsys.readouterr().out
    save_checkpoint(tmp_path, 10, {"weights": {}})  # the run comes by the same step again
    again = load_checkpoint(tmp_path)
    assert again is not None
    assert again["step"] == 10


def test_with_every_checkpoint_damaged_it_begins_anew(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 5, {})
    (tmp_path / "step-0000005" / "state.pt").write_bytes(b"")
    assert load_checkpoint(tmp_path) is None


def test_a_changed_file_of_a_trl_checkpoint_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from training.trl_common import COMPLETE, _sums, last_checkpoint

    for step in (9, 10):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "weights").write_bytes(b"1234")
        (folder / COMPLETE).write_text(json.dumps(_sums(folder)))
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    (tmp_path / "checkpoint-10" / "weights").write_bytes(b"12")
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-9"
    assert "checkpoint-10 is damaged" in capsys.readouterr().out
