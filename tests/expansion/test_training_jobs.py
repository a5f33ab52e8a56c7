"""The expansion trainings as jobs, end to end on a tiny base made here: base, SFT, GRPO, evaluation, and outputs that exist."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from core.errors import UserError
from core.expansion import families, runs
from core.expansion.compare import compare
from core.expansion.schema import Line, Row, write_rows
from core.home import Home, open_home
from core.jobs.forms import problems, validated
from core.jobs.kinds import job_kind
from core.policy import Policy, version_files
from core.settings import load_settings
from db import tables as t
from db.engine import database, read_session
from tests import factories
from tests.databases import Databases
from training import expansion_base, expansion_evaluate, expansion_grpo, expansion_sft
from training.expansion_common import chat
from training.run import Run

pytestmark = pytest.mark.training

BODIES = {
    "expansion_base": expansion_base.build,
    "expansion_sft": expansion_sft.train,
    "expansion_grpo": expansion_grpo.train,
    "expansion_evaluate": expansion_evaluate.evaluate,
}
WORDS = ("asthma", "gout", "ulcer", "anemia", "stroke", "cough", "fever", "hernia", "rash", "angina")
NAMES = ("哮喘", "痛风", "溃疡", "贫血", "中风", "咳嗽", "发热", "疝气", "皮疹", "心绞痛")


def material(folder: Path) -> None:
    """rows.jsonl, and corpus/ with a passage for every query."""
    rng, rows, documents, pairs = random.Random(0), list[Row](), list[dict[str, str]](), list[dict[str, str]]()
    for i in range(100):
        word, other = WORDS[i % 10], WORDS[rng.randrange(10)]
        if i % 2:
            query, text = f"treatment of {word} with {other} {i}", f"{word} and {other} number {i} need medicine"
            lines = (Line("lex", f"{word} medicine"), Line("vec", f"how is {word} treated"))
        else:
            query, text = f"{NAMES[i % 10]}怎么治疗{i}", f"{NAMES[i % 10]}第{i}例用药治疗"
            lines = (Line("lex", f"{NAMES[i % 10]} 用药"), Line("vec", f"{NAMES[i % 10]}如何用药"))
        rows.append(Row(query, lines, "en" if i % 2 else "zh", number=i + 1))
        documents.append({"_id": f"D{i}", "title": "", "text": text})
        pairs.append({"query": query, "pos": f"D{i}"})
    (folder / "corpus").mkdir(parents=True)
    write_rows(folder / "rows.jsonl", rows)
    test = [{"_id": "q", "text": "a test question"}]
    for name, of in (("corpus", documents), ("train_pairs", pairs), ("queries", test)):
        (folder / "corpus" / f"{name}.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in of))
    (folder / "corpus" / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq\tD0\t1\n")


def run(home: Home, kind: str, **config: Any) -> dict[str, Any]:
    """The job's body, here and now; returns its result."""
    run_dir = home.runs / f"{kind}-{config['name']}"
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "config.json").write_text(job_kind(kind).config(**config).model_dump_json())
    BODIES[kind](Run(run_dir, 0, home))
    found: dict[str, Any] = json.loads((run_dir / "result.json").read_text())
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, databases: Databases) -> Iterator[Home]:
    """base, sft and grpo have run."""
    root = tmp_path_factory.mktemp("expansion")
    material(root / "m")
    (root / "home").mkdir()
    databases.provide(root / "home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONSILIUM_HOME", str(root / "home"))
        patch.setenv("CONSILIUM_NUM_THREADS", "1")
        patch.setenv("CONSILIUM_SIGNING_PASSWORD_MINUTES", "60")
        home = open_home(load_settings())
        data, corpus = str(root / "m" / "rows.jsonl"), str(root / "m" / "corpus")
        run(home, "expansion_base", name="base", data=data, corpora=corpus, num_passages=50, num_epochs=12, vocab_size=420,
            hidden_size=64, num_layers=1, tokens_per_batch=256, learning_rate=6e-3)  # fmt: skip
        run(home, "expansion_sft", name="sft", base_model="base", data=data, num_epochs=3, batch_size=8, learning_rate=6e-3)
        run(home, "expansion_grpo", name="grpo", sft_model="sft", data=data, corpus=corpus, num_steps=3, batch_size=8, max_new_tokens=40,
            learning_rate=0.02, sample_steps=2)  # fmt: skip
        yield home
        database().dispose()


def settings_of(home: Home) -> dict[str, str]:
    m = home.root.parent / "m"
    return {"queries": str(m / "rows.jsonl"), "corpus": str(m / "corpus")}


def test_versions_are_expanders_and_know_where_they_come_from(trained: Home) -> None:
    with read_session() as session:
        rows = {row.name: row for row in session.scalars(select(t.ModelVersion))}
    assert {row.task for row in rows.values()} == {"expansion"}
    assert (rows["grpo"].parent_version_id, rows["grpo"].base_version_id) == (rows["sft"].id, rows["base"].id)
    assert rows["grpo"].is_toy
    assert [name for name, _ in runs.versions()] == ["grpo", "sft", "base"]


def test_grpo_writes_metrics_samples_and_moves(trained: Home) -> None:
    folder = trained.runs / "expansion_grpo-grpo"
    steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [step["step"] for step in steps] == [1, 2, 3]
    assert steps[0]["objective/kl"] == pytest.approx(0, abs=1e-3)
    assert steps[-1]["objective/kl"] != 0
    assert {"reward/rubric", "reward/grounded", "parts/format", "val/finished_ratio"} <= set(steps[0])
    sample = json.loads((folder / "samples.jsonl").read_text().splitlines()[0])
    assert sample["prompt"]
    assert sample["completion"]


def test_the_stacked_adapter_is_the_merged_sft_with_the_new_adapter(trained: Home) -> None:
    """Base + one stacked adapter gives what GRPO trained: SFT merged into the base, its own adapter on top."""
    import torch
    from peft import PeftModel

    with read_session() as session:
        rows = {row.name: version_files(session, trained, row) for row in session.scalars(select(t.ModelVersion)) if row.kind != "base"}
    last = sorted((trained.runs / "expansion_grpo-grpo" / "checkpoints").glob("checkpoint-*"))[-1]
    stacked = Policy.load(trained, rows["grpo"].base, "cpu")
    stacked.add_adapter("x", rows["grpo"].adapter or "")
    merged = Policy.load(trained, rows["sft"].base, "cpu")
    model = PeftModel.from_pretrained(merged.model, str(rows["sft"].adapter)).merge_and_unload()
    model = PeftModel.from_pretrained(model, str(last))
    ids = torch.tensor([merged.encode(chat("treatment of asthma"))])
    with torch.no_grad(), stacked.using("x") as one:
        assert torch.allclose(one(input_ids=ids).logits, model(input_ids=ids).logits, atol=1e-4)


def test_evaluation_compares_versions_and_measures_drift_and_recall(trained: Home) -> None:
    found = run(
        trained, "expansion_evaluate", name="both", models=["sft", "grpo"], num_queries=12, max_new_tokens=40, **settings_of(trained)
    )
    report = runs.open_report(found["evaluation"], trained)
    assert runs.listing()[0].name == "both"
    sft, grpo = (report["models"][name]["summary"] for name in ("sft", "grpo"))
    assert sft["reward"]["n"] == found["num_queries"]
    assert sft["drift_from"] == "base"
    assert (sft["drift"] or 0) > 0
    assert grpo["drift_from"] == "sft"
    assert (grpo["drift"] or 0) > 0
    assert sft["retrieval"] is not None
    assert set(sft["by_language"]) == {"en", "zh"}
    assert {s["by"] for s in sft["slices"]} == {"language", "length", "names"}
    output = report["models"]["sft"]["outputs"][0]
    assert "deductions" in output
    assert output["grounded"] is not None
    assert compare(report, "sft", "grpo").measures["reward"].n == found["num_queries"]


def test_outputs_that_exist_are_scored_without_a_model(trained: Home, tmp_path: Path) -> None:
    rows = runs.queries_of(settings_of(trained)["queries"], 0)
    good, bad = [{"query": row.query, "output": row.output} for row in rows[:4]], [{"query": rows[4].query, "output": "no prefix"}]
    path = tmp_path / "outputs.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in good + bad))
    found = run(trained, "expansion_evaluate", name="given", outputs=str(path), **settings_of(trained))
    s = runs.open_report(found["evaluation"], trained)["models"]["outputs"]["summary"]
    assert (s["valid_outputs"], s["ratings"]["failed"]) == (4, 1)
    assert s["valid_lines"] == pytest.approx(8 / 9)
    path.write_text('{"query": "x"}\n')
    with pytest.raises(UserError, match="bad_output_line"):
        run(trained, "expansion_evaluate", name="broken", outputs=str(path), **settings_of(trained))


def test_what_cannot_work_is_said_before_a_model_is_loaded(trained: Home, tmp_path: Path) -> None:
    data = settings_of(trained)["queries"]
    for kind, values, code in (
        ("expansion_sft", {"base_model": "base", "data": "gone.jsonl"}, "no_such_data"),
        ("expansion_sft", {"base_model": "sft", "data": data}, "needs_base"),
        ("expansion_grpo", {"sft_model": "sft", "data": data, "corpus": "gone"}, "no_such_corpus"),
        ("expansion_grpo", {"sft_model": "nobody", "data": data}, "no_such_version"),
    ):
        with pytest.raises(UserError, match=code):
            run(trained, kind, name="x", **values)


def test_beta_is_held_above_zero() -> None:
    values = {"name": "x", "sft_model": "s", "data": "d"}
    assert {name: error.code for name, error in problems("expansion_grpo", {**values, "beta": 0}).items()} == {"beta": "jobs.bad_beta"}
    assert validated("expansion_grpo", values).model_dump()["beta"] == 0.04


def test_a_file_is_split_by_family_so_that_no_paraphrase_leaks() -> None:
    line = (Line("lex", "x"),)
    named = [Row(f"query {i} wording {j}", line, family=f"f{i}", number=1) for i in range(60) for j in range(3)]
    bare = [
        Row(text, line, number=1) for word in WORDS for text in (f"treatment of {word}", f"how is {word} treated?", f"Treatment of {word}!")
    ]
    for rows in (named, bare):
        splits = runs.splits_of(rows)
        assert set(splits) == {"train", "val", "test"}
        assert families.leaks(rows, splits) == 0
        assert runs.splits_of(rows[::-1]) == splits[::-1], "the order of the file must not matter"
    # a row that came later goes where its family is
    given = ["test" if "gout" in row.query else "train" for row in bare]
    late = next(i for i, row in enumerate(bare) if "gout" in row.query)
    assert runs.splits_of(bare, [*given[:late], "", *given[late + 1 :]]) == given


def test_an_expander_is_never_promoted_to_answer(trained: Home) -> None:
    from core import accounts, promotion

    boss = accounts.create_user("boss", "Dr Boss", "admin", by=None)
    with pytest.raises(UserError, match="not_for_answers"):
        promotion.promote(
            boss, "grpo", reason="it expands so well", signed_name="Dr Boss", expected_serving=None, proof=factories.proof(boss)
        )
