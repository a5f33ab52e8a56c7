"""The data tools: a split that leaks no paraphrase, cleaning, selection, the offline writer, stored sets with their edits, the job."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import select

from core import accounts, audit
from core.errors import Conflicting, UserError
from core.expansion import analyse, chat_form, clean, families, generate, grounding, intents, reward, schema, sets, shape, terms
from core.expansion.offline import PERSONAL, OfflineWriter, Pair
from core.expansion.schema import Line, Row
from core.home import Home
from core.jobs.configs_expansion_data import ExpansionDataConfig
from db import tables as t
from db.engine import read_session
from training.expansion_data import run_expansion_data
from training.run import Run

DISEASES = (
    "gout",
    "asthma",
    "anemia",
    "migraine",
    "psoriasis",
    "hemophilia",
    "cataract",
    "pneumonia",
    "rickets",
    "scurvy",
    "measles",
    "mumps",
)
ZH = ("痛风", "哮喘", "贫血", "偏头痛", "银屑病", "血友病", "白内障", "肺炎", "佝偻病", "麻疹", "腮腺炎", "湿疹")
LINES = (Line("lex", "keywords of it"), Line("vec", "a sentence about the matter"))


def row(query: str, *lines: Line, **more: object) -> Row:
    return Row(query, lines or LINES, **more)  # type: ignore[arg-type]


def wordings() -> list[Row]:
    """Every question in several wordings, of which no two are equal."""
    found = []
    for name in DISEASES:
        found += [row(f"What are the treatments for {name}?"), row(f"how is {name} treated"), row(f"What are the treatments for {name} ??")]
        found += [row(f"what are the symptoms of {name}"), row(f"What are the signs and symptoms of {name.title()}?")]
    for name in ZH:
        found += [row(f"{name}怎么治疗"), row(f"请问{name}应该如何治疗？"), row(f"{name}会遗传吗"), row(f"医生你好，{name}会遗传吗？")]
    return found


def test_no_paraphrase_of_a_training_query_is_tested_on() -> None:
    rows = wordings()
    splits = families.split(rows, seed=3)
    assert set(splits) == {"train", "val", "test"}
    assert families.leaks(rows, splits) == 0
    asked: dict[tuple[str, str], set[str]] = {}
    for one, split in zip(rows, splits, strict=True):
        found = intents.asked(one.query)
        asked.setdefault((found.intent, found.topic.lower()), set()).add(split)
    assert len(asked) == 2 * len(DISEASES) + 2 * len(ZH)
    assert all(len(seen) == 1 for seen in asked.values())
    shares = Counter(splits)
    assert 0.7 < shares["train"] / len(rows) < 0.9
    assert families.split(list(reversed(rows)), seed=3) == list(reversed(splits))  # the order of the file does not matter
    naive = ["train" if i % 5 else "test" for i in range(len(rows))]
    assert families.leaks(rows, naive) > 10  # the proof can fail


def test_rows_of_one_passage_stay_together() -> None:
    rows = [row("alpha beta", family="doc:1"), row("gamma delta epsilon", family="doc:1"), row("zeta", family="doc:2")]
    assert families.families(rows) == [0, 0, 2]


def test_cleaning_takes_out_leaks_templates_and_misreadings() -> None:
    rows = [
        row(
            "MI symptoms",
            Line("lex", "michigan state symptoms"),
            Line("lex", "MI chest pain"),
            Line("vec", "signs of a heart attack"),
            number=1,
        ),
        row("rust ownership", Line("lex", "rust borrow -corrosion"), Line("vec", "how does ownership work in rust"), number=2),
        row("gout", Line("lex", "Sure, here are the lines"), Line("vec", "gout<|im_end|> and more"), number=3),
        row("支架术后吃什么药", Line("lex", "手机支架 推荐"), Line("vec", "放了心脏支架以后怎么用药"), number=4),
    ]
    rows += [
        row(
            f"thing{i} word",
            Line("lex", f"thing{i} word all about it"),
            Line("lex", f"other{i}"),
            Line("vec", f"natural words on item {i * 7919}"),
            number=10 + i,
        )
        for i in range(6)
    ]
    kept, removed = clean.clean(rows)
    rules = {(one.number, one.rule) for one in removed}
    assert {(1, "misreading"), (3, "leakage"), (3, "empty_row"), (4, "misreading"), (10, "repeated")} <= rules
    assert not any(number == 2 for number, _ in rules)  # "-corrosion" says what is not meant
    assert {one.number for one in kept} == {1, 2, 4, *range(10, 16)}
    assert all("all about it" not in line.text for one in kept for line in one.lines)


def test_any_encoding_is_read_for_cleaning() -> None:
    text = '{"query": "痛风", "output": [["lex", "尿酸"]]}\n\n'
    for raw in (text.encode("utf-8-sig"), text.encode("gb18030"), text.encode("utf-16")):
        rows, wrong = schema.check_text(clean.read_any(raw, "x"))
        assert (rows[0].query, wrong) == ("痛风", [])


def test_selections() -> None:
    rows = [row(f"english query number {i} about item{i}") for i in range(30)] + [row(f"痛风第{i}个问题怎么治疗{i}") for i in range(5)]
    chosen = shape.balanced(rows, 10, ["language"])
    assert Counter(schema.language_of(one.query) for one in chosen) == {"en": 5, "zh": 5}
    with pytest.raises(UserError, match="no_such_class"):
        shape.balanced(rows, 3, ["colour"])
    alike = [
        row("gout pain foot"),
        row("gout pain toe"),
        row("gout pain foot toe"),
        row("asthma inhaler dose"),
        row("cataract surgery lens"),
    ]
    assert {one.query for one in shape.diverse(alike, 3)} >= {"asthma inhaler dose", "cataract surgery lens"}
    good, poor = Line("vec", "how is gout in the big toe treated"), Line("lex", "x")
    kept, doubles = shape.dedupe(
        [row("treatment of gout in the toe", poor), row("treatment of gout in the toe?", Line("lex", "gout colchicine"), good)]
    )
    assert [one.lines[-1] for one in kept] == [good]
    assert len(doubles) == 1


def test_short_wordings_keep_lines_and_family() -> None:
    made = shape.augment_short([row("What are the treatments for Graves' Disease?", Line("lex", "Graves methimazole iodine"), LINES[1])])
    assert [one.query for one in made] == ["Graves' Disease treatment"]
    assert made[0].family == "query:What are the treatments for Graves' Disease?"
    assert shape.augment_short(
        [row("请问浅表性胃炎应该怎么治疗才能好", Line("lex", "奥美拉唑 胃黏膜"), Line("vec", "胃不舒服应该用哪些药物"))]
    )
    assert not shape.augment_short([row("gout")])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small judged folder in both languages."""
    made = tmp_path / "clinic"
    made.mkdir()
    corpus, pairs = [], []
    for i, (en, zh) in enumerate(zip(DISEASES, ZH, strict=True)):
        text = f"Patients with {en} are treated with drug{i}mycin tablets and rest. Surgery number{i} is rarely needed. Call 0123 4567890."
        corpus += [{"_id": f"e{i}", "title": "", "text": f"{text} Follow-up visits with laboratory tests are planned for {en}."}]
        corpus += [
            {
                "_id": f"z{i}",
                "title": "",
                "text": f"你好，感谢咨询。{zh}患者可以服用药物治疗，配合清淡饮食和适当运动，必要时住院观察。电话13800138000。",
            }
        ]
        pairs += [{"query": f"What are the treatments for {en}?", "pos": f"e{i}"}, {"query": f"{zh}怎么治疗", "pos": f"z{i}"}]
    for name, rows in (("corpus", corpus), ("queries", [{"_id": "q", "text": pairs[0]["query"]}]), ("train_pairs", pairs)):
        (made / f"{name}.jsonl").write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in rows), encoding="utf-8")
    (made / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq\te0\t1\n")
    return made


def test_the_offline_writer_uses_the_passage_and_names_nobody(folder: Path) -> None:
    made = generate.from_folder(folder, grounding=grounding.over_folder(folder))
    assert made.rows
    assert not any(one.query == "What are the treatments for gout?" for one in made.rows)  # it is a test question
    for one in made.rows:
        assert {"lex", "vec"} <= {line.kind for line in one.lines}
        assert reward.score(one.query, one.output).rubric >= generate.MIN_RUBRIC
        assert not any(PERSONAL.search(line.text) or "你好" in line.text for line in one.lines)
        assert (one.family or "").startswith("doc:")
    english = next(one for one in made.rows if "asthma" in one.query)
    assert any(set(terms.words(line.text)) - set(terms.words(english.query)) for line in english.lines if line.kind == "lex")
    writer = OfflineWriter({"a": "Gout is treated with colchicine."}, [Pair("What are the treatments for gout?", "missing")])
    assert list(writer.rows()) == []


def test_the_job_makes_a_set_that_training_reads(home: Home, folder: Path, tmp_path: Path) -> None:
    config = ExpansionDataConfig(name="clinic", folder=str(folder), limit=0)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(config.model_dump_json())
    run_expansion_data(Run(tmp_path / "run", 0, home))
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    set_id = sets.id_of("clinic")
    with read_session() as session:
        parts = {split: sets.rows(session, set_id, split) for split in ("train", "val", "test")}
        assert len(sets.rows(session, set_id)) == result["rows"] == sum(map(len, parts.values()))
    everything = [one for part in parts.values() for one in part]
    assert families.leaks(everything, [split for split, part in parts.items() for _ in part]) == 0
    run_expansion_data(Run(tmp_path / "run", 0, home))  # killed after storing: finds its own set
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text(config.model_dump_json())
    with pytest.raises(Conflicting, match="name_taken"):
        run_expansion_data(Run(tmp_path / "other", 0, home))


def test_edits_keep_who_and_why_and_join_the_audit_chain(home: Home) -> None:
    who = accounts.create_user("lin", "Dr Lin", "clinician", by=None)
    engineer = accounts.create_user("wu", "Wu", "engineer", by=None)
    made = sets.store("s", [row("gout treatment"), row("asthma inhaler")], source="file", by=engineer)
    one = sets.page(made)[0][0]
    with pytest.raises(UserError, match="reason_needed"):
        sets.reject(one.id, "  ", by=who, seen_edits=0)
    with pytest.raises(UserError, match="fix_invalid"):
        sets.fix(one.id, one.row.query, "lex: a\nprose", "why", by=who, seen_edits=0)
    sets.fix(one.id, "gout treatment", "lex: gout colchicine\nvec: how is gout treated today", "names the drug", by=who, seen_edits=0)
    with pytest.raises(Conflicting, match="stale_row"):
        sets.reject(one.id, "template", by=who, seen_edits=0)
    sets.reject(one.id, "template", by=who, seen_edits=1)
    assert [r.query for r in sets.kept_rows(made)] == ["asthma inhaler"]
    sets.restore(one.id, "mistaken", by=who, seen_edits=2)
    past = sets.history(one.id)
    assert [(e.kind, e.reason, e.by) for e in past] == [
        ("fix", "names the drug", "Dr Lin"),
        ("reject", "template", "Dr Lin"),
        ("restore", "mistaken", "Dr Lin"),
    ]
    assert past[0].before["lines"] != past[0].after["lines"]
    assert past[1].after["status"] == "rejected"
    with read_session() as session:
        assert audit.verify(session) is None
        actions = list(session.scalars(select(t.AuditEntry.action).where(t.AuditEntry.object_type == "expansion_row")))
    assert actions == ["expansion.fix", "expansion.reject", "expansion.restore"]


def test_clicks_become_rows(home: Home) -> None:
    with pytest.raises(UserError, match="no_clicks"):
        generate.from_clicks()
    from db.engine import write_session

    with write_session() as session:
        for i in range(6):
            text = f"Gout attacks are treated with colchicine tablets and cold packs. Ward {chr(65 + i)} keeps urate records."
            shown = [{"rank": 1, "parent": i, "title": "Gout", "text": text, "content_hash": f"h{i}"}]
            event = t.AskEvent(query=f"What are the treatments for gout in group {chr(65 + i)}?", contexts=shown)
            session.add(event)
            session.flush()
            session.add(t.AskFeedback(event_id=event.id, kind="opened", rank=1))
    made = generate.from_clicks()
    assert made.rows
    assert made.rows[0].source == "corpus:clicks"
    assert any("colchicine" in line.text for line in made.rows[0].lines)


def test_analysis_and_chat_form() -> None:
    rows = [*wordings(), row("gout", Line("lex", "gout"))]
    found = analyse.analyse(rows)
    assert found["rows"] == len(rows)
    assert found["languages"] == {"en": 5 * len(DISEASES) + 1, "zh": 4 * len(ZH)}
    assert found["rows_without"]["vec"] == 1
    assert {code for code, _ in found["warnings"]} >= {"warn_without", "warn_duplicates"}
    said = next(chat_form.formatted(rows[:1]))["messages"]
    assert [m["role"] for m in said] == ["system", "user", "assistant"]
    assert said[:2] == schema.prompt_messages(rows[0].query)
    assert schema.parse_output(said[2]["content"]).lines == rows[0].lines
    with pytest.raises(UserError, match="no_template"):
        next(chat_form.formatted(rows[:1], Path("/nowhere")))
