"""The term model: what it writes, its files, and that training on pairs finds more."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from core.errors import UserError
from core.expansion.term_model import TermModel, Writing, load, stretches
from core.home import Home
from core.jobs.configs_expansion_training import ExpansionTermsConfig
from core.retrieval import retrieval_models
from training.expansion_terms import train
from training.run import Run

SAYS = {"treatments": "medicine and rest help", "symptoms": "people feel tired and weak", "causes": "a gene is changed"}


def model(**own: float) -> TermModel:
    """Knows that who asks for treatment reads of medicine."""
    into, out = np.array([[1.0]], np.float32), np.array([[1.0, 0.05]], np.float32)
    return TermModel(own, {"ptreatment": 0}, into, out, np.zeros(2, np.float32), ["medicine", "noise"], Writing((1,)))


def test_words_stand_as_often_as_they_weigh() -> None:
    found = model(pasthma=1.5, pchild=0.2).expand("treatment of asthma in a child", Writing((0,)))
    assert [line.text for line in found] == ["treatment treatment asthma asthma asthma"]


def test_words_of_answers_are_added_and_noise_is_not() -> None:
    assert model().expand("treatment", Writing((5,)))[0].text == "treatment treatment medicine medicine"


def test_chinese_keeps_stretches_whose_pairs_weigh_and_single_characters_that_weigh_more() -> None:
    weights = {"p癫痫": 1.0, "p痫病": 0.1, "p病会": 0.1, "p会遗": 0.1, "p遗传": 0.6, "s癫": 1.5, "s痫": 1.0, "s病": 0.1, "s会": 0.1}
    text = model(**weights, s遗=0.5, s传=0.5).expand("癫痫病会遗传", Writing((0,)))[0].text
    assert text.split() == ["癫痫", "遗传", "癫痫", "癫"]


def test_nothing_worth_a_mention_leaves_the_words_and_a_query_without_words_nothing() -> None:
    assert model(pasthma=0.0).expand("asthma", Writing((0,)))[0].text == "asthma"
    assert model().expand("?!") == ()


def test_stretches() -> None:
    assert stretches("abcde", [1, 2, 0, 1], 1) == ["abc", "de"]
    assert stretches("abcde", [1, 2, 0, 1], 2) == ["bc"]
    assert stretches("ab", [0], 1) == []


def test_files_come_back_and_damage_is_said(tmp_path: Path) -> None:
    first = model(pasthma=1.5)
    first.save(tmp_path)
    assert load(tmp_path).expand("asthma treatment") == first.expand("asthma treatment")
    (tmp_path / "terms.json").write_text("{}")
    with pytest.raises(UserError, match="terms_damaged"):
        load(tmp_path)


@pytest.mark.training
def test_training_learns_what_answers_say_and_finds_more(home: Home, tmp_path: Path) -> None:
    """A question's topic is a word that its passage does not hold: only learned words tell the three passages of a disease apart."""
    rng, disease = random.Random(0), ""
    documents, pairs = list[dict[str, str]](), list[dict[str, str]]()
    for i in range(180):
        topic = list(SAYS)[i % 3]
        disease = disease if i % 3 else "".join(rng.choice("bdfgklmnprst") + rng.choice("aeiou") for _ in range(4))
        documents.append({"_id": f"D{i}", "title": "", "text": f"With {disease} {SAYS[topic]}. Ask a doctor."})
        documents += [{"_id": f"N{i}-{n}", "title": "", "text": f"Life with {disease} goes on."} for n in range(4)]
        pairs.append({"query": f"What are the {topic} of {disease}?", "pos": f"D{i}"})
    folder = tmp_path / "set"
    folder.mkdir()
    for file, rows in (("corpus.jsonl", documents), ("train_pairs.jsonl", pairs)):
        (folder / file).write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = ExpansionTermsConfig(name="t", pairs=str(folder), num_epochs=60, own_epochs=2, width=16, eval_share=0.2, refit=False)
    run_dir = home.runs / "1"
    run_dir.mkdir(parents=True)
    (run_dir / "config.json").write_text(config.model_dump_json())
    train(Run(run_dir, 0, home))
    row = retrieval_models.get("t", "expander")
    assert row.form == "terms"
    written = load(retrieval_models.weights_of(row, home)).expand("What are the symptoms of nobody?")
    assert {"tired", "weak"} & set(written[-1].text.split())
    found = json.loads((run_dir / "result.json").read_text())
    assert found["recall@10 gain"][1] > 0, "the interval of the gain is above zero"
    assert len(found["tried"]) == 15
