"""Write the demo guideline documents (assets/demo/guidelines) from the demo world and our hand-written paragraphs.

Run by a person after the world has changed; the documents are committed. Deterministic: the same world gives the same
files. About every second condition gets a document, English and Chinese in turn, as Markdown, text or PDF.

    python -m training.demo_guidelines [FOLDER]
"""

from __future__ import annotations

import hashlib
import re
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.demo_world.world import DEMO, GUIDELINES, Condition, Verdict, World, load_world
from core.records import Language

#: every condition whose place in the world, counted from 0, leaves one of these after division by 9 (5 of 9)
CHOSEN = (0, 2, 4, 6, 7)
#: of the condition documents, every so-manieth is a PDF or a plain text; the others are Markdown
EVERY_PDF, EVERY_TXT = 10, 3
PAGE_LINES, LINE_WIDTH_ZH, LINE_WIDTH_EN = 46, 36, 84

HEAD = {
    Language.EN: {
        "demo": "DEMO DOCUMENT - not medical advice. Written for a toy search index.",
        "reviewed": "Last reviewed",
        "who": "Who it is for",
        "source": "Sources",
        "recognise": "How it shows",
        "flags": "Danger signs",
        "do": "What to do",
        "drugs": "Medicines",
        "groups": "People who need more care",
        "not": "What not to do",
    },
    Language.ZH: {
        "demo": "演示文档，不构成医疗建议，仅供演示检索使用。",
        "reviewed": "最近审阅",
        "who": "适用人群",
        "source": "资料来源",
        "recognise": "临床表现",
        "flags": "危险信号",
        "do": "处理要点",
        "drugs": "用药提示",
        "groups": "特殊人群",
        "not": "注意避免",
    },
}


def write(folder: Path) -> list[Path]:
    """Write every document into `folder` (emptied of old ones first) and return the paths."""
    world = load_world()
    notes = tomllib.loads((DEMO / "guideline-notes.toml").read_text("utf-8"))["categories"]
    topics = tomllib.loads((DEMO / "guideline-topics.toml").read_text("utf-8"))["topics"]
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    paths = [write_document(folder / topic["file"], *topic_document(topic)) for topic in topics]
    chosen = [c for i, c in enumerate(world.conditions.values()) if i % 9 in CHOSEN]
    for i, condition in enumerate(chosen):
        say = (Language.EN, Language.ZH)[i % 2]
        ending = "pdf" if i % EVERY_PDF in (3, 6) else "txt" if i % EVERY_TXT == 0 else "md"
        title, sections = condition_document(world, condition, notes[condition.category], say)
        paths.append(write_document(folder / f"{condition.id}.{ending}", say, title, sections))
    return paths


Sections = list[tuple[str, str | list[str]]]


def topic_document(topic: dict[str, Any]) -> tuple[Language, str, Sections]:
    """Language, title and sections of a hand-written document."""
    say = Language(topic["language"])
    head = HEAD[say]
    sections: Sections = [
        (head["reviewed"], review_date(topic["file"])),
        (head["who"], topic["who"]),
        (head["flags"], topic["flags"]),
        (head["do"], topic["do"]),
        (head["not"], topic["not"]),
        (head["source"], topic["source"]),
    ]
    return say, topic["title"], sections


def condition_document(world: World, condition: Condition, note: dict[str, Any], say: Language) -> tuple[str, Sections]:
    """Title and sections of a document about one condition."""
    zh = say is Language.ZH
    head, name = HEAD[say], condition.name.of(say)
    comma, stop = ("、", "。") if zh else (", ", ".")
    index = 1 if zh else 0
    title = f"{name}：识别、处理与用药安全" if zh else f"{upper(name)}: recognition, first steps and safe medicines"
    call = "立即拨打120或前往急诊" if zh else "call 120 or go to the emergency room"
    flags = [
        f"{f.sign.of(say)}：{f.meaning.of(say)}。{call}，{f.action.of(say)}。"
        if zh
        else f"{f.sign.of(say).capitalize()}: {f.meaning.of(say)}. {call.capitalize()}. {f.action.of(say)}."
        for f in condition.red_flags
    ]
    symptoms = comma.join(s.of(say) for s in condition.symptoms)
    shows = (
        f"主诉多为{condition.complaint.of(say)}；常见{symptoms}。"
        if zh
        else f"Usual complaint: {condition.complaint.of(say)}. Common: {symptoms}."
    )
    groups = [world.populations[p] for p in condition.populations if p != "adult"][:2]
    do = f"{condition.advice.of(say)}{stop}{'' if zh else ' '}{note['care'][index]}"
    colon = "：" if zh else ": "
    never = [f"{upper(world.drugs[d].name.of(say))}{colon}{world.drugs[d].never.of(say)}" for d in condition.drugs[:2]]
    return title, [
        (head["reviewed"], review_date(condition.id)),
        (head["who"], upper(comma.join(world.populations[p].name.of(say) for p in condition.populations)) + stop),
        (head["recognise"], shows),
        (head["flags"], flags),
        (head["do"], do),
        (head["drugs"], drug_lines(world, condition, say)),
        *([(head["groups"], [f"{upper(p.name.of(say))}{colon}{p.caution.of(say)}" for p in groups])] if groups else []),
        (head["not"], ("" if zh else " ").join([note["mistake"][index], *never])),
        (head["source"], list(condition.source)),
    ]


def drug_lines(world: World, condition: Condition, say: Language) -> list[str]:
    """Up to four lines: the condition's own risks first, then drugs that need a check or help at once."""
    zh = say is Language.ZH
    lines = []
    for risk in condition.risks:
        name = world.drugs[risk.drug].name.of(say)
        who = "" if risk.population == "any" else world.populations[risk.population].name.of(say)
        who = (f"{who}不要使用" if who else "不要使用") if zh else (f" in a {who}" if who else "")
        if zh:
            lines.append(f"{who}{name}：{risk.why.of(say)}{risk.instead.of(say)}")
        else:
            lines.append(f"Do not use {name}{who}: {risk.why.of(say)} {risk.instead.of(say)}")
    listed = {risk.drug for risk in condition.risks}
    for drug_id in condition.drugs:
        if drug_id in listed or len(lines) >= 4:
            continue
        drug, verdict = world.drugs[drug_id], world.drug_risk(condition.id, "adult", drug_id)[1]
        name, risk_words = drug.name.of(say), drug.risk.of(say)
        avoided = [
            world.populations[p].name.of(say)
            for p in condition.populations
            if world.drug_risk(condition.id, p, drug_id)[1] is Verdict.AVOID
        ]
        if zh:
            check = "可按医嘱或说明书使用，但不能代替就医" if verdict is Verdict.FIRST_AID else "须经医生或药师核对剂量和过敏史后使用"
            lines.append(f"{name}{check}，主要风险为{risk_words}{'；' + '、'.join(avoided) + '应避免' if avoided else ''}。")
        else:
            check = (
                "as prescribed or labelled, not in place of a doctor"
                if verdict is Verdict.FIRST_AID
                else "only after a doctor or pharmacist checks dose and allergies"
            )
            lines.append(f"Use {name} {check}; main risk: {risk_words}{'; to be avoided: ' + ', '.join(avoided) if avoided else ''}.")
    return lines


def upper(text: str) -> str:
    """`text` with a capital first letter."""
    return text[:1].upper() + text[1:]


def review_date(key: str) -> str:
    """A steady date in 2025 for this document: documents of one collection are never all reviewed on one day."""
    digest = hashlib.sha256(key.encode()).digest()
    return f"2025-{digest[0] % 12 + 1:02d}-{digest[1] % 28 + 1:02d}"


def write_document(path: Path, say: Language, title: str, sections: Sections) -> Path:
    """Write one document in the format that its name asks for."""
    colon = "：" if say is Language.ZH else ": "
    marked = path.suffix == ".md"
    lines = [f"# {title}" if marked else title, "", HEAD[say]["demo"], ""]
    for heading, body in sections:
        if isinstance(body, str) and len(body) < 60 and not marked:
            lines += [f"{heading}{colon}{body}", ""]
        else:
            lines += [
                f"## {heading}" if marked else heading,
                "",
                *([f"- {item}" for item in body] if isinstance(body, list) else [body]),
                "",
            ]
    if path.suffix == ".pdf":
        write_pdf(path, say, title, lines)
    else:
        path.write_text("\n".join(lines).rstrip() + "\n", "utf-8")
    return path


def write_pdf(path: Path, say: Language, title: str, lines: Sequence[str]) -> None:
    """A plain A4 PDF; Chinese in pymupdf's built-in font, so that the text can be taken out again."""
    import textwrap

    import pymupdf

    width = LINE_WIDTH_ZH if say is Language.ZH else LINE_WIDTH_EN
    wrapped = [part for line in lines for part in (textwrap.wrap(line, width, drop_whitespace=True) or [""])]
    document = pymupdf.open()
    for start in range(0, len(wrapped), PAGE_LINES):
        page = document.new_page(width=595, height=842)
        for number, line in enumerate(wrapped[start : start + PAGE_LINES]):
            size = 15 if start + number == 0 else 11
            x = 64.0
            for run, is_latin in latin_runs(line):
                named = "helv" if is_latin else "china-s"
                page.insert_text((x, 70 + number * 16), run, fontname=named, fontsize=size)
                x += pymupdf.get_text_length(run, fontname=named, fontsize=size)
    document.set_metadata({"title": title, "author": "Consilium demo", "creationDate": "D:20250101000000Z", "modDate": "D:20250101000000Z"})
    document.save(path, garbage=4, deflate=True, no_new_id=True, reproducible=True)
    document.close()


def latin_runs(line: str) -> list[tuple[str, bool]]:
    """`line` cut where Latin text begins and ends: the Chinese font prints Latin letters and digits far apart."""
    return [(match.group(), match.group().isascii()) for match in re.finditer(r"[\x00-\x7f]+|[^\x00-\x7f]+", line)]


if __name__ == "__main__":
    written = write(Path(sys.argv[1]) if len(sys.argv) > 1 else GUIDELINES)
    print(f"{len(written)} documents, {sum(path.stat().st_size for path in written) // 1024} KiB")
