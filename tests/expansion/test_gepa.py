"""Prompt search: better on queries it did not see, within its budget, and going on after kill -9 with what was spent counted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.errors import Forbidden, NotFound, UserError
from core.expansion import prompts, schema
from core.expansion.prompt_ledger import BudgetSpent, Ledger
from core.home import Home
from core.jobs.configs_expansion_export import ExpansionPromptConfig
from core.models import register_version
from core.records import VersionKind
from core.settings import ROOT
from db import tables as t
from db.engine import read_session, write_session
from tests import factories
from tests.expansion.scripted import Scripted, serving
from training.expansion_gepa import optimise
from training.run import Run

COMPLAINTS = ("chest pain", "skin rash", "night cough", "back pain", "dizziness", "ear ache", "leg swelling", "heartburn")
CONTEXTS = (
    *("after meals", "in pregnancy", "in children", "at night", "with fever", "with diabetes", "in old age", "during exercise"),
    *("in winter", "after surgery", "with asthma", "at work", "after travel", "with anaemia", "in summer"),
)
CONFIG: dict[str, Any] = {
    "model": "endpoint", "data": "set.jsonl", "budget": 60, "num_train": 8, "num_val": 4, "num_heldout": 6, "minibatch": 2,
    "num_at_once": 4,
}  # fmt: skip


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    with serving() as endpoint:
        yield endpoint


@pytest.fixture
def ready(home: Home, scripted: Scripted) -> Home:
    """An endpoint registered as a version, and a set of 120 queries."""
    with write_session() as session:
        row = register_version(session, name="endpoint", kind=VersionKind.EXTERNAL, manifest={"key_variable": ""})
        row.endpoint_url, row.endpoint_model = scripted.base, "any"
    rows = [{"query": f"{a} {b}", "output": [["lex", f"{a} {b} cause"], ["vec", f"why {a} {b}"]]} for a in COMPLAINTS for b in CONTEXTS]
    (home.root / "set.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return home


def folder(home: Home, **changes: Any) -> Path:
    made = home.run_dir(1)
    made.mkdir(parents=True, exist_ok=True)
    (made / "config.json").write_text(ExpansionPromptConfig(**{**CONFIG, **changes}).model_dump_json())
    return made


def result(home: Home) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((home.run_dir(1) / "result.json").read_text())
    return found


def test_a_search_improves_held_out_queries_within_its_budget(ready: Home, scripted: Scripted) -> None:
    optimise(Run(folder(ready), 0, ready))
    found = result(ready)
    assert found["before"] == pytest.approx(0.5, abs=0.05)
    assert found["after"] > 0.85
    assert found["low"] > 0.2  # 95 % interval of the paired difference
    assert found["requests"] == len(scripted.asked) <= 60
    assert "TWO-LEX" in found["instruction"]
    assert "WITH-VEC" in found["instruction"]
    # held-out queries are seen by nobody before the measurement
    queries = [messages[-1]["content"] for _, messages in scripted.asked]
    held, earlier = queries[-2 * found["num_heldout"] :], queries[: -2 * found["num_heldout"]]
    assert not set(held) & set(earlier)
    assert not any(query in text for query in held for text in earlier if "strict scorer" in text)
    # nothing is used before a person says so, and what is asked then is the new instruction
    assert prompts.current("endpoint") == schema.DEFAULT
    with write_session() as session:
        engineer, doctor = factories.user(session, "engineer").id, factories.user(session, "clinician").id
    with pytest.raises(Forbidden):
        prompts.apply(found["prompt"], by=doctor, reason="better")
    with pytest.raises(UserError, match="reason_missing"):
        prompts.apply(found["prompt"], by=engineer, reason=" ")
    with pytest.raises(NotFound, match="no_prompt"):
        prompts.apply(99, by=engineer, reason="better")
    prompts.apply(found["prompt"], by=engineer, reason="better on 6 held-out queries")
    assert prompts.current("endpoint") == found["instruction"]
    assert prompts.current("another") == schema.DEFAULT
    with read_session() as session:
        entry = session.query(t.AuditEntry).order_by(t.AuditEntry.id.desc()).first()
        assert entry is not None
        assert (entry.action, entry.actor_id, entry.detail["text"]) == ("apply_expansion_prompt", engineer, found["instruction"])
    prompts.apply(0, by=engineer, reason="back", model="endpoint")
    assert prompts.current("endpoint") == schema.DEFAULT
    assert [one.is_in_force for one in prompts.listing()] == [False, True]


def test_killed_and_started_again_it_ends_as_if_nothing_had_happened(
    ready: Home, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    optimise(Run(folder(ready), 0, ready))
    undisturbed, num_undisturbed = result(ready), len(scripted.asked)
    (ready.run_dir(1) / "checkpoints" / "requests.jsonl").unlink()
    (ready.run_dir(1) / "result.json").unlink()
    scripted.asked.clear()
    scripted.pause_s = 0.15
    command = [sys.executable, "-m", "training.expansion_gepa", "--run-dir", str(ready.run_dir(1))]
    environment = {**os.environ, "CONSILIUM_HOME": str(ready.root)}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(scripted.asked) < 20 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    killed_at = len(scripted.asked)
    assert 20 <= killed_at < num_undisturbed
    scripted.pause_s = 0
    optimise(Run(ready.run_dir(1), 0, ready))
    resumed = result(ready)
    assert resumed["requests_before"] >= killed_at  # what was sent is written down before it is sent
    assert len(scripted.asked) <= resumed["requests"] <= 60
    assert resumed["requests"] <= num_undisturbed + CONFIG["num_at_once"]  # what was in flight is asked again, nothing else
    for key in ("instruction", "before", "after", "val", "num_candidates"):
        assert resumed[key] == undisturbed[key]


def test_a_budget_that_cannot_work_and_an_endpoint_that_is_down_are_one_sentence(ready: Home, scripted: Scripted) -> None:
    with pytest.raises(UserError, match="budget_small"):
        optimise(Run(folder(ready, budget=20), 0, ready))
    assert scripted.asked == []
    with pytest.raises(UserError, match="too_few_queries"):
        optimise(Run(folder(ready, data=str(short_set(ready))), 0, ready))
    scripted.status = 401
    with pytest.raises(UserError, match="endpoint_refused"):
        optimise(Run(folder(ready), 0, ready))


def short_set(home: Home) -> Path:
    path = home.root / "short.jsonl"
    path.write_text(json.dumps({"query": "one", "output": [["lex", "one two"]]}) + "\n")
    return path


def test_the_ledger_counts_what_was_sent_and_lost(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "requests.jsonl", 3)
    ledger.send("a")
    ledger.got("a", "answer")
    ledger.send("b")
    ledger.close()
    with (tmp_path / "requests.jsonl").open("a") as file:
        file.write('{"sent": "c')  # killed in the middle of a line
    again = Ledger(tmp_path / "requests.jsonl", 3)
    assert (again.spent, again.known("a"), again.known("b")) == (3, "answer", None)
    assert again.left == 3 - 2 - 2  # a and b walked, b and c lost
    with pytest.raises(BudgetSpent):
        again.send("d")
    again.close()
    assert [json.loads(line) for line in (tmp_path / "requests.jsonl").read_text().splitlines()[:3]][-1] == {"sent": "b"}
