"""What the fuzzers found, one test each: the input that showed it, and the sentence that answers it now."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import docx
import pytest

from app.guard import _check_origin
from benchmarks.fuzz.parsers import YAML, _tiny_gguf
from core.errors import UserError
from core.expansion import gguf, runs_yaml, schema
from core.home import Home
from core.importing.importer import import_file, preview
from core.importing.readers import RawRow, RowError, read_rows
from core.jobs.configs import ImportConfig
from core.lexicons import FOLDER, load_lexicons
from core.retrieval.chunk import Document
from core.retrieval.documents import read_file
from core.settings import Settings


def code_of(call: Any, *arguments: Any, **values: Any) -> str:
    with pytest.raises(UserError) as told:
        call(*arguments, **values)
    return told.value.code


@pytest.mark.parametrize(("host", "origin", "status"), [("[::1", "http://[::1", 400), ("127.0.0.1:80", "http://[", 403), ("[", "", 400)])
def test_an_address_that_is_none_is_refused_at_the_door(host: str, origin: str, status: int) -> None:
    headers = [(b"host", host.encode()), *([(b"origin", origin.encode())] if origin else [])]
    scope = {"type": "http", "method": "POST", "path": "/api/me", "headers": headers}
    from starlette.datastructures import Headers

    refused = _check_origin(scope, Headers(scope=scope), Settings())
    assert refused is not None
    assert refused[0] == status


@pytest.mark.parametrize("cut", [4, 24, 30, 60])
def test_a_gguf_that_ends_too_soon_is_a_sentence(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(_tiny_gguf()[:cut])
    assert code_of(gguf.metadata, path) == "expansion_export.bad_gguf"


def test_a_gguf_of_an_unknown_field_type_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(_tiny_gguf().replace(b"\x08\x00\x00\x00", b"\x63\x00\x00\x00", 1))
    assert code_of(gguf.metadata, path) == "expansion_export.bad_gguf"


@pytest.mark.parametrize("value", ["!!python/object:os.system x", "2001-99-99", "!!binary 'ä'", "{[1]: 2}", "!odd 1"])
def test_a_yaml_value_that_is_none_is_told_with_its_line(home: Home, tmp_path: Path, value: str) -> None:
    path = tmp_path / "sft.yaml"
    path.write_bytes(YAML + f"  seed: {value}\n".encode())
    with pytest.raises(UserError) as told:
        runs_yaml.read(path, "sft")
    assert told.value.code in ("expansion_training.yaml_broken", "expansion_training.yaml_type")
    assert told.value.params["line"] == 10


def test_yaml_nested_without_end_is_a_sentence(home: Home, tmp_path: Path) -> None:
    path = tmp_path / "sft.yaml"
    path.write_text("[" * 5000)
    assert code_of(runs_yaml.read, path, "sft") == "expansion_training.yaml_broken"


@pytest.mark.parametrize("line", ['{"query": ' + "9" * 5000 + "}", "[" * 100_000])
def test_numbers_and_depths_beyond_python_are_a_problem_of_their_line(line: str) -> None:
    rows, wrong = schema.check_text('{"query": "q", "output": ["lex: a"]}\n' + line)
    assert len(rows) == 1
    assert [(one.number, one.code) for one in wrong] == [(2, "bad_json")]


@pytest.mark.parametrize(
    "text", ['{"prompt": ' + "9" * 5000 + "}", '{"prompt": "\\ud800 alone"}', '{"prompt": "x", "meta": ["\\uDFFF"]}', "[" * 100_000]
)
def test_rows_that_no_table_can_hold_are_refused_one_by_one(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(text + '\n{"prompt": "a pair \\ud83d\\ude00 is fine"}\n')
    first, second = read_rows(path)
    assert isinstance(first, RowError)
    assert first.code == "row_not_json"
    assert isinstance(second, RawRow)
    (tmp_path / "rows.json").write_text(f"[{text}]")
    if "ud" in text.lower():
        assert [type(row) for row in read_rows(tmp_path / "rows.json")] == [RowError]
    else:  # the file as a whole cannot be parsed
        assert code_of(lambda: list(read_rows(tmp_path / "rows.json"))) == "data.json_broken"


def test_half_a_character_inside_a_cell_is_refused_and_the_rest_imported(home: Home, tmp_path: Path) -> None:
    path = tmp_path / "chats.csv"
    bad, good = ([{"role": "user", "content": text}] for text in ("\ud800 fever?", "What helps against fever?"))
    cells = ['"' + json.dumps(chat).replace('"', '""') + '"' for chat in (bad, good)]
    path.write_text("messages\n" + "\n".join(cells))
    config = ImportConfig(path=str(path), dataset="d")
    _, report = import_file(path, config, folder=tmp_path / "card", card_path="card", created_by=None, job_id=None)
    assert (report.num_imported, report.rejected_by_reason) == (1, {"row_half_character": 1})


@pytest.mark.parametrize("encoding", ["hex", "rot13", "idna", "utf-7", "unicode_escape", "a\x00b", "no-such"])
def test_an_encoding_that_is_none_of_files_is_a_sentence(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("prompt\nWhat helps?\n")
    assert code_of(preview, path, encoding=encoding) == "data.encoding_no_such"


def test_a_word_file_with_a_spoilt_part_is_named_and_left_out(tmp_path: Path) -> None:
    made = docx.Document()
    made.add_paragraph("Fever above 39 degrees needs a doctor. " * 40)
    out = io.BytesIO()
    made.save(out)
    data = bytearray(out.getvalue())
    with zipfile.ZipFile(out) as parts:
        part = parts.getinfo("word/document.xml")
    start = part.header_offset + 30 + len(part.filename)
    data[start + 20 : start + 60] = b"\xff" * 40
    (tmp_path / "guide.docx").write_bytes(bytes(data))
    found = read_file(tmp_path / "guide.docx", "guide.docx")
    assert not isinstance(found, Document)
    assert found.code == "index.doc_broken_docx"


def test_a_word_file_without_a_document_is_named_and_left_out(tmp_path: Path) -> None:
    made, spoilt = io.BytesIO(), tmp_path / "guide.docx"
    docx.Document().save(made)
    with zipfile.ZipFile(made) as old, zipfile.ZipFile(spoilt, "w") as new:
        for part in old.namelist():
            body = old.read(part)
            new.writestr(part, body.replace(b"w:document", b"w:dokument") if part == "word/document.xml" else body)
    found = read_file(spoilt, "guide.docx")
    assert not isinstance(found, Document)
    assert found.code == "index.doc_broken_docx"


@pytest.mark.parametrize("charset", ["idna", "punycode", "hex", "undefined"])
def test_a_page_that_names_a_charset_of_no_page_is_read_all_the_same(tmp_path: Path, charset: str) -> None:
    (tmp_path / "page.html").write_text(f"<meta charset={charset}><p>Fieber über 39 Grad: zum Arzt.</p>", encoding="utf-8")
    found = read_file(tmp_path / "page.html", "page.html")
    assert isinstance(found, Document)
    assert "über" in found.text


@pytest.mark.parametrize("text", ["a = ", "\xff", 'danger = "flat"\n'])
def test_a_broken_word_list_is_named(tmp_path: Path, text: str) -> None:
    import shutil

    copy = tmp_path / "lexicons"
    shutil.copytree(FOLDER, copy)
    (copy / "danger_signs.toml").write_bytes(text.encode("latin-1"))
    assert code_of(load_lexicons, copy) == "bad_lexicon"
