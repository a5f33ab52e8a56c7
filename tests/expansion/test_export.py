"""Export: adapters merged, llama.cpp's own converter run and its file read back; a Modelfile; an Ollama; and one sentence per mistake.

What needs the converter (or llama.cpp itself) skips loudly where it is not at hand: `./run.sh expansion converter` fetches it.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from core.errors import Unavailable, UserError
from core.expansion import gguf, gguf_converter, gguf_ollama, schema
from core.home import Home
from core.jobs.configs_expansion_export import ExpansionExportConfig
from core.models import Weights, check_weights, get_version, register_version
from core.policy import version_files
from core.records import VersionKind
from core.settings import load_settings
from db.engine import read_session, write_session
from training.expansion_convert import splitting
from training.expansion_export import check_faithful, export, ordered, read_queries
from training.run import Run

LLAMA_PYTHON = os.environ.get("CONSILIUM_LLAMA_PYTHON", "")


@pytest.fixture
def converter() -> gguf_converter.Converter:
    found = gguf_converter.find(os.environ.get("CONSILIUM_GGUF_CONVERTER", ""))
    if found is None:
        pytest.skip("llama.cpp's converter is not here: run ./run.sh expansion converter")
    return found


def make_version(home: Home) -> None:
    """A tiny Qwen3 with random weights and Qwen's splitting, and an adapter that changes what it says."""
    import torch
    from peft import LoraConfig, get_peft_model

    from core.jobs.configs import DemoBaseConfig
    from training.demo_base import build_model, train_tokenizer

    torch.manual_seed(0)
    torch.set_num_threads(1)
    texts = [*QUERIES_TEXT.split("\n"), schema.DEFAULT]
    tokenizer = train_tokenizer(texts, ["胸痛", "aspirin"], 300)
    model = build_model(DemoBaseConfig(hidden_size=64, num_layers=2), tokenizer)
    base = home.models / "base" / "tiny"
    model.save_pretrained(base)
    tokenizer.save_pretrained(base)
    peft = get_peft_model(model, LoraConfig(r=4, lora_alpha=64, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    peft.save_pretrained(home.models / "sft" / "tiny-sft")
    with write_session() as session:
        row = register_version(session, name="tiny", kind=VersionKind.BASE, path=home.relative(base), is_toy=True)
        register_version(
            session, name="tiny-sft", kind=VersionKind.SFT, task="expansion", path="models/sft/tiny-sft",
            base_version_id=row.id, parent_version_id=row.id, is_toy=True,
        )  # fmt: skip


QUERIES_TEXT = "chest pain with cold sweat\ncan I take aspirin\n胸痛伴出汗怎么办\n阿司匹林 胃出血"


def folder(home: Home, **config: Any) -> Path:
    made = home.run_dir(1)
    made.mkdir(parents=True, exist_ok=True)
    values = {"model": "tiny-sft", "num_prompts": 3, "max_new_tokens": 12, "fetch_converter": False, **config}
    (made / "config.json").write_text(ExpansionExportConfig(**values).model_dump_json())
    return made


def test_an_export_answers_as_the_original_and_is_a_version(home: Home, converter: gguf_converter.Converter) -> None:
    make_version(home)
    types = ["f16", *(["Q4_K_M"] if LLAMA_PYTHON else [])]
    opened = Home(home.root, load_settings({"CONSILIUM_HOME": str(home.root), "CONSILIUM_LLAMA_PYTHON": LLAMA_PYTHON}))
    export(Run(folder(home, types=types), 0, opened))
    found = json.loads((home.run_dir(1) / "result.json").read_text())
    report = found["files"]["f16"]
    assert report["same_choice"] >= 0.99
    assert 0 < report["max_logit_difference"] < 0.05  # 16 bits lose something; what is compared is really the file
    if LLAMA_PYTHON:
        assert (report["llama_same_prompts"], report["llama_same_tokens"]) == (1.0, pytest.approx(1.0, abs=0.01))
    with read_session() as session:
        row = get_version(session, "tiny-sft-gguf")
        assert (row.task, row.kind, row.is_toy) == ("expansion", "sft", True)
        assert check_weights(home, row, is_thorough=True) is Weights.INTACT
        assert version_files(session, home, row).adapter is None  # whole: the model server takes it as it is
        assert row.manifest["merged"] == ["tiny-sft", "tiny"]
        place = home.resolve(row.path)
    about = gguf.metadata(place / report["file"])
    assert (about["general.architecture"], about["qwen3.block_count"], about["tokenizer.ggml.pre"]) == ("qwen3", 2, "qwen2")
    text = (place / "Modelfile").read_text()
    assert text.startswith(f"FROM ./{report['file']}\n")
    assert "PARAMETER stop <|im_end|>" in text
    assert schema.DEFAULT in text
    # a header that says something else is noticed
    config = json.loads((place / "config.json").read_text())
    assert gguf.differences(about, config) == []
    assert gguf.differences(about, {**config, "num_key_value_heads": 8}) == ["attention.head_count_kv 2 != num_key_value_heads 8"]


def test_every_mistake_is_one_sentence_before_anything_is_loaded(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with write_session() as session:
        register_version(session, name="tiny-sft", kind=VersionKind.BASE, path="models/base/none")
    with pytest.raises(UserError, match="no_llama"):
        export(Run(folder(home, types=["Q4_K_M"]), 0, home))
    monkeypatch.setattr(gguf_converter, "own_folder", lambda: tmp_path / "nothing")
    with pytest.raises(UserError, match="no_converter"):
        export(Run(folder(home), 0, home))
    with pytest.raises(UserError, match="no_queries"):
        export(Run(folder(home, queries="missing.txt"), 0, home))
    with pytest.raises(UserError, match="no_such_version"):
        export(Run(folder(home, model="other"), 0, home))
    (tmp_path / "other.tar.gz").write_bytes(b"not it")
    with pytest.raises(UserError, match="converter_hash"):
        gguf_converter.find(str(tmp_path / "other.tar.gz"))
    with pytest.raises(UserError, match="converter_setting"):
        gguf_converter.find(str(tmp_path))
    (tmp_path / "bad.gguf").write_bytes(b"GGUX" + bytes(64))
    with pytest.raises(UserError, match="bad_gguf"):
        gguf.metadata(tmp_path / "bad.gguf")
    (tmp_path / "rows.jsonl").write_text('{"query": "a", "output": [["lex", "b"]]}\n{"query": "c"}\n')
    with pytest.raises(UserError, match="'line': 2"):
        read_queries(tmp_path / "rows.jsonl")
    with pytest.raises(UserError, match="not_faithful"):
        check_faithful("f16", {"same_choice": 0.98})
    check_faithful("Q4_K_M", {"same_choice": 0.7})
    assert ordered(["Q4_K_M", "q8_0"]) == ["q8_0", "f16", "Q4_K_M"]


def test_a_tokenizer_is_known_by_how_it_splits() -> None:
    from training.demo_base import SPLIT

    level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Isolated", "invert": False}
    qwen = {"model": {"type": "BPE"}, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]}}
    assert splitting(qwen) == "qwen2"
    other = {**split, "pattern": {"Regex": SPLIT.replace(r"\p{N}", r"\p{N}{1,2}")}}
    assert splitting({**qwen, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [other, level]}}) is None
    assert splitting({**qwen, "model": {"type": "Unigram"}}) is None
    assert splitting({**qwen, "pre_tokenizer": {**level, "use_regex": True}}) == "gpt-2"


class FakeOllama:
    """Ollama's three calls on loopback; `blobs` holds what was pushed, `created` what was made of it."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.created: list[dict[str, Any]] = []
        self.num_pushed = 0
        self.refusal = ""
        ollama = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                return

            def do_HEAD(self) -> None:
                self.send_response(200 if self.path.rpartition("/")[2] in ollama.blobs else 404)
                self.end_headers()

            def do_GET(self) -> None:
                self._json(200, {"version": "0.34.1"})

            def do_POST(self) -> None:
                if self.path.startswith("/api/blobs/"):
                    data = self._chunked()
                    name = self.path.rpartition("/")[2]
                    ollama.num_pushed += 1
                    good = name == "sha256:" + hashlib.sha256(data).hexdigest()
                    ollama.blobs.update({name: data} if good else {})
                    self._json(201 if good else 400, {})
                    return
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if ollama.refusal:
                    self._json(400, {"error": ollama.refusal})
                else:
                    ollama.created.append(body)
                    self._json(200, {"status": "success"})

            def _chunked(self) -> bytes:
                data = b""
                while size := int(self.rfile.readline(), 16):
                    data += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return data

            def _json(self, status: int, value: dict[str, Any]) -> None:
                text = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True


@pytest.fixture
def ollama(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeOllama]:
    made = FakeOllama()
    thread = threading.Thread(target=made.server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{made.server.server_address[1]}")
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join(5)


def test_an_ollama_gets_the_file_once_and_makes_the_model(ollama: FakeOllama, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "m-f16.gguf"
    file.write_bytes(os.urandom(3 << 20))
    given: dict[str, Any] = {"template": gguf.CHATML, "instruction": "Be brief.", "parameters": {"stop": ["<|im_end|>"]}}
    for _ in range(2):
        made = gguf_ollama.hand_over(file, "m", **given)
    assert (made.version, ollama.num_pushed, len(ollama.created)) == ("0.34.1", 1, 2)
    digest = "sha256:" + hashlib.sha256(file.read_bytes()).hexdigest()
    assert ollama.created[0]["files"] == {"m-f16.gguf": digest}
    assert (ollama.created[0]["system"], ollama.created[0]["template"]) == ("Be brief.", gguf.CHATML)
    ollama.refusal = "unsupported architecture"
    with pytest.raises(Unavailable, match="unsupported architecture"):
        gguf_ollama.hand_over(file, "m", **given)
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    with pytest.raises(Unavailable, match="ollama_away"):
        gguf_ollama.hand_over(file, "m", **given)


def test_the_address_of_ollama_is_read_as_ollama_reads_it() -> None:
    said = {
        "": "http://127.0.0.1:11434",
        "0.0.0.0": "http://127.0.0.1:11434",
        "box:8000": "http://box:8000",
        "https://o.lan/x": "https://o.lan:443/x",
    }
    assert {one: gguf_ollama.host(one) for one in said} == said
    with pytest.raises(UserError, match="ollama_host"):
        gguf_ollama.host("ftp://x:99999")
