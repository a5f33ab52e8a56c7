"""Reading rows: one form, every way to get it wrong named by line with a fix, and what a model writes taken apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.errors import UserError
from core.expansion import schema
from core.expansion.schema import Line, Row
from core.i18n import error_text

GOOD = '{"query": "gout", "output": [["lex", "urate crystals"], ["vec", "how is gout treated"]]}'


def test_a_row_survives_writing_and_reading(tmp_path: Path) -> None:
    lines = (Line("lex", "痛风 尿酸"), Line("vec", "痛风怎么治疗"), Line("hyde", "痛风发作时可用秋水仙碱。"))
    row = Row("痛风", lines, "zh", "doc:7", "corpus:x", 1, {"category": "treatment", "is_short": True})
    schema.write_rows(tmp_path / "a.jsonl", [row])
    assert schema.read_rows(tmp_path / "a.jsonl") == [row]
    assert schema.read_rows(tmp_path / "a.jsonl")[0].extra == row.extra
    assert schema.parse_output(row.output).lines == lines


def test_lines_may_be_written_as_text(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"query": "gout", "output": "lex: urate\\nvec: how is gout treated"}\n{"query": "gout", "output": ["lex: urate"]}\n')
    assert [[line.kind for line in row.lines] for row in schema.read_rows(path)] == [["lex", "vec"], ["lex"]]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ('{"query": "a", "output": [["lex", "b"]]', "bad_json"),
        ("", "empty_line"),
        ("[1]", "not_object"),
        ('{"output": [["lex", "b"]]}', "key_missing"),
        ('{"query": "a"}', "key_missing"),
        ('{"query": "a", "output": [["lex", "b"]], "qurey": 1}', "key_unknown"),
        ('{"query": 3, "output": [["lex", "b"]]}', "wrong_type"),
        ('{"query": "a", "output": 3}', "wrong_type"),
        ('{"query": "a", "output": [["lex", "b"]], "is_short": "yes"}', "wrong_type"),
        ('{"query": " ", "output": [["lex", "b"]]}', "query_empty"),
        ('{"query": "a", "output": []}', "output_empty"),
        ('{"query": "a", "output": [["lex", "b", "c"]]}', "output_item"),
        ('{"query": "a", "output": [["lex", 4]]}', "output_item"),
        ('{"query": "a", "output": [["LEX", "b"]]}', "prefix_unknown"),
        ('{"query": "a", "output": ["keywords without prefix"]}', "prefix_unknown"),
        ('{"query": "a", "output": [["lex", " "]]}', "line_empty"),
        ('{"query": "a", "output": [["vec", "one\\ntwo"]]}', "line_break"),
        ('{"query": "a", "output": [["lex", "b"]], "language": "de"}', "language_unknown"),
    ],
)
def test_a_wrong_line_is_named_with_its_fix(tmp_path: Path, line: str, code: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{GOOD}\n{line}\n{GOOD}\n")
    with pytest.raises(UserError) as caught:
        schema.read_rows(path)
    assert caught.value.code == f"expansion.{code}"
    assert caught.value.params["line"] == 2
    for language, mark in (("en", "ine 2"), ("zh", "第 2 行")):
        said = error_text(caught.value, language)
        assert mark in said
        assert "{" not in said.replace('{"query"', "")  # every placeholder was filled
    rows, wrong = schema.check_file(path)
    assert (len(rows), [p.code for p in wrong]) == (2, [code])


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "empty_file"),
        (b" \n\n", "empty_file"),
        (b"\xef\xbb\xbf" + GOOD.encode(), "bom"),
        (GOOD.encode("utf-16"), "bom"),
        (f"{GOOD}\n".encode() + '{"query": "痛风", "output": [["lex", "尿酸"]]}'.encode("gb18030"), "gb18030"),
        (GOOD.encode() + b"\n\xff\xff\xff", "encoding"),
    ],
)
def test_a_file_in_another_form_says_which(tmp_path: Path, raw: bytes, code: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(raw)
    with pytest.raises(UserError) as caught:
        schema.read_rows(path)
    assert caught.value.code == f"expansion.{code}"
    if code == "gb18030":
        assert caught.value.params["line"] == 2
    with pytest.raises(UserError, match="no_file"):
        schema.read_rows(tmp_path / "absent.jsonl")


def test_an_answer_is_taken_apart_with_its_line_numbers() -> None:
    parsed = schema.parse_output("<think>a\nb</think>\nlex: x\n\nHere is more\nvec:\nhyde: y<|im_end|>\n")
    assert parsed.lines == (Line("lex", "x"), Line("hyde", "y"))
    assert parsed.numbers == (3, 7)
    assert parsed.bad == ((5, "Here is more"),)
    assert (parsed.empty, parsed.think, parsed.leaks) == ((6,), "a\nb", ())
    assert not parsed.is_valid
    assert schema.parse_output("lex: x<|im_start|>user").leaks == ("<|im_start|>",)
    assert not schema.parse_output("").is_valid
    assert schema.parse_output("lex：全角冒号").bad  # a full-width colon is no prefix


def test_the_published_rows_are_of_this_form(shared_data: Path) -> None:
    rows = schema.read_rows(shared_data / "query-expansion" / "train.jsonl")
    assert len(rows) == 1500
    assert json.loads(json.dumps(rows[0].as_json()))["query"] == rows[0].query
