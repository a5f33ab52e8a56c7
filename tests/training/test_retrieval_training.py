"""The jobs embedding and reranker on a small world: they learn, go on after a stop, and say what the gate says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import UserError
from core.home import Home
from core.jobs.forms import problems
from core.jobs.kinds import job_kind
from core.retrieval import retrieval_models as registry
from core.retrieval.encoders import open_encoder
from core.retrieval.rerankers import open_reranker, reranked
from core.settings import ROOT
from db import tables as t
from db.engine import write_session
from db.tables.asking import AskFeedback
from training import embedding, reranker
from training.feedback_pairs import feedback_of
from training.retrieval_pairs import Judged, read_material
from training.run import Run, StopRequested

pytestmark = pytest.mark.training

#: what patients say, and the other words in which documents say it
KINDS = {"吃什么药": "处方以口服制剂为主，按疗程服用", "是什么原因": "发病机制与遗传及环境有关", "有什么表现": "临床常见体征包括红肿热痛"}
PLACES = [
    "鼻",
    "胃",
    "肝",
    "肾",
    "肺",
    "肠",
    "耳",
    "眼",
    "喉",
    "胆",
    "胰",
    "脾",
    "膀胱",
    "关节",
    "皮肤",
    "牙龈",
    "乳腺",
    "甲状腺",
    "前列腺",
    "骨髓",
]


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    rows = [
        {"query": f"{place}炎{asked}", "positive": f"{place}炎：{said}。", "negative": f"{place}炎：{other}。"}
        for place in PLACES
        for asked, said in KINDS.items()
        for other in [next(text for text in KINDS.values() if text != said)]
    ]
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    return path


@pytest.fixture
def run_job(home: Home) -> Callable[..., Path]:
    """Run a job's body in this process; `stop_after`: how often "stop and save" is still answered with no."""

    class Stopping(Run):
        left: int | None = None

        def should_stop(self) -> bool:
            if self.left is None:
                return False
            self.left -= 1
            return self.left < 0

    def run(body: Callable[[Run], None], kind: str, config: dict[str, Any], stop_after: int | None = None) -> Path:
        folder = home.runs / config["name"]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(job_kind(kind).config(**config).model_dump_json())
        one = Stopping(folder, 0, home)
        one.left = stop_after
        body(one)
        return folder

    return run


STATIC = {"dimension": 32, "num_epochs": 6, "batch_size": 16, "save_steps": 5, "eval_share": 0.25, "num_hard_negatives": 1, "num_rounds": 2}


def test_a_static_embedding_learns_goes_on_after_a_stop_and_is_registered(home: Home, pairs: Path, run_job: Callable[..., Path]) -> None:
    config = {"name": "zh", "pairs": str(pairs), **STATIC}
    folder = run_job(embedding.train, "embedding", config)
    result = json.loads((folder / "result.json").read_text())
    assert result["after"]["ndcg@10"] > result["before"]["ndcg@10"] + 0.05
    assert result["gate"]["n"] == 15
    assert result["gate"]["reason"] == "too_few_queries", "fifteen questions prove nothing, whatever they show"
    assert registry.get("zh").status == "candidate"
    encoder = open_encoder("zh")
    asked, right, wrong = encoder.encode(["胃炎吃什么药", *(f"胃炎：{KINDS[kind]}" for kind in ("吃什么药", "是什么原因"))], is_query=False)
    assert asked @ right > asked @ wrong
    again = {**config, "name": "zh-stopped"}
    with pytest.raises(StopRequested):
        run_job(embedding.train, "embedding", again, stop_after=7)
    stopped = home.runs / "zh-stopped"
    assert not (stopped / "result.json").exists()
    assert list(stopped.glob("checkpoints/round-1/checkpoint-*/complete"))
    run_job(embedding.train, "embedding", again)
    resumed = np.load(registry.models_folder(home, "zh-stopped") / "vectors.npy").astype(float)
    straight = np.load(registry.models_folder(home, "zh") / "vectors.npy").astype(float)
    np.testing.assert_allclose(resumed, straight, atol=2e-2)
    with pytest.raises(UserError, match="name_taken"):
        run_job(embedding.train, "embedding", config)


@pytest.mark.slow
def test_killed_at_a_checkpoint_it_goes_on_to_the_same_vectors_matryoshka_included(
    home: Home, pairs: Path, run_job: Callable[..., Path]
) -> None:
    config = {"name": "straight", "pairs": str(pairs), **STATIC, "num_rounds": 1, "num_hard_negatives": 0, "matryoshka": [16]}
    result = json.loads((run_job(embedding.train, "embedding", config) / "result.json").read_text())
    assert result["after"]["ndcg@10"] > result["before"]["ndcg@10"]
    straight = np.load(registry.models_folder(home, "straight") / "vectors.npy").astype(float)
    short = straight[:, :16] / np.maximum(np.linalg.norm(straight[:, :16], axis=1, keepdims=True), 1e-9)
    assert np.abs(short - straight[:, :16]).max() > 1e-3, "vectors have more than the first width"

    folder = home.runs / "killed"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(job_kind("embedding").config(**{**config, "name": "killed"}).model_dump_json())
    process = subprocess.Popen(
        [sys.executable, "-m", "training.embedding", "--run-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "CONSILIUM_HOME": str(home.root)},
    )
    try:
        while not list(folder.glob("checkpoints/round-1/checkpoint-*/complete")):
            assert process.poll() is None, "it ended before its first checkpoint"
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    assert not (folder / "result.json").exists(), "killed in the middle"
    run_job(embedding.train, "embedding", {**config, "name": "killed"})
    resumed = np.load(registry.models_folder(home, "killed") / "vectors.npy").astype(float)
    np.testing.assert_allclose(resumed, straight, atol=2e-2)


@pytest.mark.slow
def test_a_transformer_learns_with_the_cached_loss(home: Home, tmp_path: Path, run_job: Callable[..., Path]) -> None:
    path = tmp_path / "english.jsonl"
    organs = ("heart", "kidney", "lung", "skin", "bone", "liver", "thyroid", "stomach", "ear", "eye", "knee", "spleen")
    rows = [{"query": f"what ails the {organ}", "positive": f"A note on {organ} disorders."} for organ in organs]
    rows += [{"query": f"{organ} trouble, what to take", "positive": f"Medicines for the {organ}."} for organ in organs]
    path.write_text("\n".join(map(json.dumps, rows)))
    config = {
        "name": "cached", "pairs": str(path), "base": "minilm-en", "loss": "cached_mnr", "matryoshka": [64], "num_epochs": 1,
        "batch_size": 16, "max_length": 16, "eval_share": 0.25,
    }  # fmt: skip
    result = json.loads((run_job(embedding.train, "embedding", config) / "result.json").read_text())
    assert result["after"]["ndcg@10"] > 0.5
    before, after = (open_encoder(name, place="here").encode(["heart trouble"], is_query=True)[0] for name in ("minilm-en", "cached"))
    assert 0.5 < float(before @ after) < 0.99999, "the weights moved, and not far"


def test_what_a_config_cannot_mean_is_refused(home: Home, pairs: Path, tmp_path: Path, run_job: Callable[..., Path]) -> None:
    for changed, code in (
        ({"base": "text-embedding-3-small"}, "cannot_tune_hosted"),
        ({"base": "minilm-en"}, "english_only"),
        ({"loss": "cached_mnr"}, "static_needs_no_cache"),
        ({"pairs": str(tmp_path / "nothing")}, "no_pairs_file"),
        ({"max_pairs": 12}, "too_few_pairs"),
    ):
        with pytest.raises(UserError, match=code):
            run_job(embedding.train, "embedding", {"name": "x", "pairs": str(pairs), **changed})
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"query": "x"}\n')
    with pytest.raises(UserError, match="bad_pairs"):
        run_job(embedding.train, "embedding", {"name": "x", "pairs": str(bad)})
    assert registry.listing() == []


def test_a_feature_reranker_lifts_answers_that_the_words_do_not_tell_apart(home: Home, pairs: Path, run_job: Callable[..., Path]) -> None:
    config = {"name": "rr", "pairs": str(pairs), "depth": 6, "eval_share": 0.25, "num_networks": 1, "num_hidden": 8}
    result = json.loads((run_job(reranker.train, "reranker", config) / "result.json").read_text())
    assert result["after"]["ndcg@10"] > result["before"]["ndcg@10"] + 0.05
    opened = open_reranker("rr", place="server")
    passages = [f"胃炎：{said}。" for said in KINDS.values()]
    assert reranked(opened.score("胃炎是什么原因", passages))[0] == 1


@pytest.mark.parametrize(
    ("values", "field", "code"),
    [
        ({}, "pairs", "jobs.bad_missing"),
        ({"pairs": "p", "matryoshka": [4]}, "matryoshka", "jobs.bad_below_minimum"),
        ({"pairs": "p", "batch_size": 1}, "batch_size", "jobs.bad_below_minimum"),
    ],
)
def test_the_form_says_what_is_wrong(values: dict[str, Any], field: str, code: str) -> None:
    assert {name: error.code for name, error in problems("embedding", {"name": "x", **values}).items()} == {field: code}
    assert problems("embedding", {"name": "x", "with_feedback": True}) == {}


def test_held_out_questions_are_in_no_training_pair_and_always_the_same(home: Home, pairs: Path) -> None:
    config = job_kind("embedding").config(name="x", pairs=str(pairs), eval_share=0.2)
    first, second = read_material(config, home), read_material(config, home)  # type: ignore[arg-type]
    held = {one.query for one in first.held_out}
    assert len(held) == 12
    assert not held & {one.query for one in first.train}
    assert [one.query for one in second.held_out] == [one.query for one in first.held_out]
    assert all(one.positives and one.negatives for one in first.train)
    judged = [Judged("全新的问题", {"p": 1.0})]
    more = read_material(config, home, judged, {"p": "答案"})  # type: ignore[arg-type]
    assert "全新的问题" in {one.query for one in (*more.train, *more.held_out)}


def test_verdicts_on_answers_become_pairs(home: Home) -> None:
    contexts = [
        {"rank": 1, "title": "胃炎", "section": "", "text": "对的"},
        {"rank": 2, "title": "胃炎", "section": "病因", "text": "错的"},
    ]
    with write_session() as session:
        index = t.SearchIndex(name="guidelines", version=1, path="x")
        other = t.SearchIndex(name="elsewhere", version=1, path="y")
        session.add_all([index, other])
        session.flush()
        events = [t.AskEvent(query="胃炎吃什么药", contexts=contexts, index_id=one.id) for one in (index, other)]
        session.add_all(events)
        session.flush()
        acts = (("helped", 1), ("not_helped", 2), ("up", None), ("opened", 9))
        session.add_all([AskFeedback(event_id=events[0].id, kind=kind, rank=rank) for kind, rank in acts])
    judged, shown = feedback_of("guidelines")
    assert [one.query for one in judged] == ["胃炎吃什么药"]
    assert {shown[i]: grade for i, grade in judged[0].grades.items()} == {"胃炎\n对的": 1.0, "胃炎\n病因\n错的": 0.0}
    assert feedback_of("elsewhere")[0] == []
