"""Rows written by a teacher: an OpenAI-compatible endpoint over HTTP, the job that asks it, and a job that breaks off and goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.errors import Unavailable, UserError
from core.expansion import sets
from core.home import Home
from core.jobs.configs_expansion_data import ExpansionDataConfig
from core.models import register_version
from core.records import VersionKind
from db.engine import write_session
from tests.expansion.scripted import serving, write
from training.expansion_data import run_expansion_data
from training.run import Run

QUERIES = ("gout in the foot", "asthma at night", "anemia of a child", "migraine with aura", "psoriasis of the scalp")
ALL = "TWO-LEX WITH-VEC WITH-HYDE"


def work(home: Home, **config: Any) -> dict[str, Any]:
    folder = home.runs / "teacher"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(ExpansionDataConfig(source="teacher", **config).model_dump_json())
    run_expansion_data(Run(folder, 0, home))
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found


def test_a_teacher_writes_rows_and_a_broken_job_asks_only_for_the_rest(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queries = tmp_path / "queries.txt"
    queries.write_text("\n".join([*QUERIES, QUERIES[0], ""]))
    monkeypatch.setattr("tests.expansion.scripted.write", lambda _instruction, query: answer(query))
    bad = {QUERIES[2]}

    def answer(query: str) -> str:
        return f"Sure! {query}" if query in bad else write(ALL, query)

    with serving() as endpoint:
        with write_session() as session:
            row = register_version(session, name="teacher", kind=VersionKind.EXTERNAL, manifest={"key_variable": ""})
            row.endpoint_url, row.endpoint_model = endpoint.base, "any"
        with pytest.raises(UserError, match="no_teacher"):
            work(home, name="t", queries=str(queries))
        endpoint.status = 500
        with pytest.raises(Unavailable):
            work(home, name="t", queries=str(queries), teacher="teacher")
        endpoint.status, endpoint.fails_from = 200, 6  # two good, three tries of the bad one, then it is down
        with pytest.raises(Unavailable):
            work(home, name="t", queries=str(queries), teacher="teacher")
        endpoint.status, before = 200, len(endpoint.asked)
        found = work(home, name="t", queries=str(queries), teacher="teacher", augment=False)
        asked = [messages[-1]["content"] for _, messages in endpoint.asked[before:]]
    assert asked == [*QUERIES[3:]], "what was written before the break is not asked for again"
    assert (found["rows"], found["refused"]) == (4, {"invalid": 1})
    stored = sets.kept_rows(found["id"])
    assert [one.query for one in stored] == [query for query in QUERIES if query not in bad]
    assert {one.source for one in stored} == {"teacher:teacher"}
    assert all(one.family for one in stored)
    assert {line.kind for line in stored[0].lines} == {"lex", "vec", "hyde"}
