"""The question writer learns to copy names it has never seen, resumes to the same weights, and is opened by its name."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from core.errors import Unavailable, UserError
from core.home import Home
from core.jobs.configs_doc2query import Doc2QueryConfig
from core.retrieval import retrieval_models
from core.retrieval.writers import open_writer
from training.doc2query import pairs_of, read_excluded, same, train_writer
from training.retrieval_pairs import read_material
from training.run import Run, StopRequested

pytestmark = pytest.mark.training

TOPICS = {
    "treatments": "{} is treated with rest, water and {}",
    "symptoms": "People with {} may feel tired and have {}",
    "causes": "{} comes from a change of the gene {}",
}
SMALL = {
    "width": 48,
    "max_source": 16,
    "vocabulary": 60,
    "num_epochs": 4,
    "tokens_per_batch": 800,
    "learning_rate": 6e-3,
    "num_tried": 420,
    "num_spans": 60,
}


def name(rng: random.Random) -> str:
    return "".join(rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(4)).capitalize()


def world(folder: Path, num: int = 420) -> list[dict[str, str]]:
    """A BEIR folder with three passages about each disease; a question's topic is a word that its passage does not contain."""
    rng, rows, documents, disease = random.Random(0), [], [], ""
    for i in range(num):
        topic = list(TOPICS)[i % len(TOPICS)]
        disease = name(rng) if i % len(TOPICS) == 0 else disease
        documents.append({"_id": f"D{i}", "title": "", "text": TOPICS[topic].format(disease, name(rng)) + ". Ask a doctor."})
        rows.append({"query": f"What are the {topic} of {disease}?", "pos": f"D{i}"})
    folder.mkdir()
    for file, lines in (("corpus.jsonl", documents), ("train_pairs.jsonl", rows)):
        (folder / file).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return rows


def a_run(home: Home, run_name: str, **config: Any) -> Run:
    directory = home.runs / run_name
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(Doc2QueryConfig(**config).model_dump_json())
    return Run(directory, 0, home)


def test_it_learns_to_copy_and_its_questions_raise_recall(home: Home, tmp_path: Path) -> None:
    world(tmp_path / "pairs")
    run = a_run(home, "1", name="writer", pairs=str(tmp_path / "pairs"), **SMALL)
    train_writer(run)
    found = json.loads((run.dir / "result.json").read_text())
    assert found["held_out_loss"] < 0.5
    assert found["kept_share"] > 0.5
    assert found["mrr@10 alone gain"][1] > 0, "the topic is in the questions alone"
    writer = open_writer("writer")
    assert writer.hash == retrieval_models.get("writer", "doc2query").content_hash
    passages = [
        "Zorbelitis is treated with rest, water and Kumanol. Ask a doctor.",
        "",
        "Vumpatosis comes from a change of the gene Rilo.",
    ]
    written = writer.write(passages, 3)
    assert written[0][0] == "What are the treatments of Zorbelitis?"
    assert written[1] == []
    assert written[2][0] == "What are the causes of Vumpatosis?"
    assert all(len(set(questions)) == len(questions) <= 3 for questions in written)
    # the same passage, number and seed give the same questions in any company; another seed draws others
    assert writer.write([passages[2], passages[0]], 3) == [written[2], written[0]]
    assert writer.write(passages[:1], 1)[0] == written[0][:1]

    (retrieval_models.models_folder(home, "writer") / "writer.json").write_text("{}")
    with pytest.raises(Unavailable, match="weights_changed"):
        open_writer("writer")


def test_a_stopped_training_resumes_to_the_same_weights(home: Home, tmp_path: Path) -> None:
    world(tmp_path / "pairs", 120)
    config = {"pairs": str(tmp_path / "pairs"), **SMALL, "num_epochs": 2, "save_steps": 2, "num_tried": 0}
    train_writer(a_run(home, "straight", name="straight", **config))

    run = a_run(home, "stopped", name="stopped", **config)
    (run.dir / "STOP").touch()
    with pytest.raises(StopRequested):
        train_writer(run)
    assert not retrieval_models.listing("doc2query")[1:], "a stopped training registers nothing"
    (run.dir / "STOP").unlink()
    train_writer(Run(run.dir, 0, home))
    weights = [
        open_writer(n).weights  # type: ignore[attr-defined]
        for n in ("straight", "stopped")
    ]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_excluded_and_held_out_questions_are_not_trained_on(home: Home, tmp_path: Path) -> None:
    rows = world(tmp_path / "pairs", 60)
    test = [rows[3]["query"].upper().replace("?", " ?"), rows[7]["query"]]
    (tmp_path / "queries.jsonl").write_text("".join(json.dumps({"_id": str(i), "text": q}) + "\n" for i, q in enumerate(test)))
    config = Doc2QueryConfig(name="w", pairs=str(tmp_path / "pairs"), exclude=str(tmp_path / "queries.jsonl"))
    material = read_material(config, home)
    pairs = pairs_of(material.train, material, 1.0, read_excluded(home, config.exclude))
    trained = {same(question) for question, _ in pairs}
    assert pairs
    assert not trained & {same(q) for q in test}
    assert not trained & {same(one.query) for one in material.held_out}


@pytest.mark.parametrize("is_seq2seq", [True, False])
def test_a_hugging_face_model_is_trained_by_the_same_script(home: Home, tmp_path: Path, is_seq2seq: bool) -> None:
    world(tmp_path / "pairs", 60)
    base = a_base(tmp_path / "base", is_seq2seq=is_seq2seq)
    run = a_run(home, "hub", name="hub", base=str(base), pairs=str(tmp_path / "pairs"), num_epochs=1, num_tried=4, num_questions=2)
    train_writer(run)
    found = json.loads((run.dir / "result.json").read_text())
    assert 0 < found["held_out_loss"] < 7
    writer = open_writer("hub")
    passages = ["Zorbelitis is treated with rest.", "Another one."]
    assert writer.write(passages, 2) == writer.write(passages[::-1], 2)[::-1]
    assert retrieval_models.get("hub").base == str(base)


def test_a_base_that_does_not_exist_is_refused(home: Home, tmp_path: Path) -> None:
    world(tmp_path / "pairs", 60)
    with pytest.raises(UserError, match=r"doc2query\.no_such_base"):
        train_writer(a_run(home, "none", name="none", base=str(tmp_path / "nothing"), pairs=str(tmp_path / "pairs")))


def a_base(folder: Path, *, is_seq2seq: bool) -> Path:
    """A tiny random model with a byte-level tokenizer, as a folder."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM, T5Config, T5ForConditionalGeneration

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({**{"<pad>": 0, "</s>": 1}, **{c: i + 2 for i, c in enumerate(alphabet)}}, []))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", pad_token="<pad>")
    tokenizer.save_pretrained(folder)
    size = len(tokenizer)
    torch.manual_seed(0)
    if is_seq2seq:
        shape = T5Config(vocab_size=size, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=0)
        T5ForConditionalGeneration(shape).save_pretrained(folder)
    else:
        causal = Qwen3Config(
            vocab_size=size,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
        )
        Qwen3ForCausalLM(causal).save_pretrained(folder)
    return folder
