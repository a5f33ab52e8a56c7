"""What is exported trains elsewhere: trl's own DPO and KTO trainers read the files as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.exports import service
from core.home import Home
from core.policy import Policy
from db import tables as t
from db.base import utc_now
from db.engine import write_session
from tests import factories

pytestmark = pytest.mark.training


@pytest.fixture
def exported(trained: Home) -> dict[str, Path]:
    """Eight rewritten answers and eight signed verdicts on samples of the training split."""
    with write_session() as session:
        admin, clinician = factories.user(session, "admin"), factories.user(session)
        for number in range(8):
            sample = factories.sample(session, f"I have coughed for {number + 2} days, what helps?", split="train")
            completion = factories.completion(session, f"<think>\n1. Cough.\n</think>\nTake {number} pills.", sample=sample)
            case = factories.conflict(session, completion=completion)
            session.add(t.PreferencePair(sample_id=sample.id, chosen="See a doctor.", rejected=completion.answer, source="adjudication"))
            session.add(
                t.Adjudication(
                    conflict_id=case.id,
                    user_id=clinician.id,
                    stage="signed",
                    client_id=f"c{number}",
                    verdict="acceptable" if number % 2 else "unsafe",
                    signed_at=utc_now(),
                )
            )
    return {kind: service.file_of(service.make(admin.id, kind).id)[1] for kind in ("preferences", "kto")}


@pytest.mark.parametrize("kind", ["preferences", "kto"])
def test_trl_trains_on_the_file_unchanged(exported: dict[str, Path], trained: Home, tmp_path: Path, kind: str) -> None:
    import trl
    from datasets import load_dataset

    rows = load_dataset("json", data_files=str(exported[kind]), cache_dir=str(tmp_path / "cache"), split="train")
    assert len(rows) == 8
    base = next(trained.models.glob("**/config.json")).parent
    policy = Policy.load(trained, str(base))
    common: dict[str, Any] = {
        "output_dir": str(tmp_path / "out"),
        "max_steps": 2,
        "per_device_train_batch_size": 4,
        "report_to": [],
        "use_cpu": True,
        "save_strategy": "no",
        "disable_tqdm": True,
        "bf16": False,
        "gradient_checkpointing": None,  # the name of old; warns
        "logging_steps": 1,
    }
    dpo, kto = (trl.DPOConfig, trl.DPOTrainer), (trl.KTOConfig, trl.KTOTrainer)
    settings, trainer_class = dpo if kind == "preferences" else kto
    before = {name: p.detach().clone() for name, p in policy.model.named_parameters()}
    trainer = trainer_class(model=policy.model, args=settings(**common), train_dataset=rows, processing_class=policy.tokenizer)
    trainer.train()
    assert any("loss" in line for line in trainer.state.log_history)
    assert any(not before[name].equal(p) for name, p in trainer.model.named_parameters())
    assert json.loads(exported[kind].read_text().splitlines()[0])["sample_id"]
